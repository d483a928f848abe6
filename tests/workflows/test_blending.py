"""Blends from `train` to `compare`: their parts, the rows that choose their weights, and what a run leaves."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

import tailbind
from tailbind.cli import main
from tailbind.errors import TrainingError
from tailbind.models.blend import Blended, Gate, Opinions
from tailbind.models.contract import Predictive, Problem
from tailbind.predictor import load
from tailbind.recipes import load_recipe
from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import Landscape, simulate
from tailbind.table.splitting import part_rows
from tailbind.workflows import blending, evaluating, fitting, journal, modelling
from tailbind.workflows.dividing import fold_rows
from tailbind.workflows.learning import Learned, learn
from tailbind.workflows.plan import Plan, resolve

Rows = NDArray[np.intp]

BLEND = """
description = "A network, a ridge and the mean."

[features.BLOCK]

[split]
kind = "pair"

[model]
kind = "blend"
folds = 3

[parts.network]
recipe = "v2"

[parts.network.model]
hidden_dims = [8]

[parts.network.optimizer]
lr = 0.01

[parts.network.training]
epochs = 2
batch_size = 64
start_at_mean = true

[parts.linear]
recipe = "ridge"

[parts.mean]
recipe = "training-mean"
"""
OF_EACH = {"model", "n_train", "seconds", "share"}
FILES = (
    "best_model_{}.pth", "final_model_{}.pth", "training_curves_{}.png", "predictions_vs_targets_{}.png",
    "residuals_analysis_{}.png", "intervals_{}.png", "calibration.pth",
    "evaluation_results_{}.txt", "test_predictions_{}.csv", "report.html", "config.json",
    "split.parquet", "leakage.parquet", "audit.json", "history.csv", "metrics.json", "environment.json",
    "model_card.md", "domain.parquet", "DONE",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 300 rows of three families, with sequences and six feature columns, and recipes for either."""
    folder = tmp_path_factory.mktemp("blends")
    frame = simulate(Landscape(n_rows=300, n_features=6, n_families=3, missing=0)).drop("true_pkd")
    groups = pl.Series("group", [f"g{i % 30}" for i in range(300)])
    dates = pl.Series("date", [str(1990 + i % 25) for i in range(300)])
    frame.with_columns(groups, dates).write_csv(folder / "small.csv")
    (folder / "columns.toml").write_text(BLEND.replace("BLOCK", "columns"))
    of_sites = BLEND.replace("[features.BLOCK]", "[features.sites]\nnumbering = false")
    (folder / "sites.toml").write_text(of_sites + "largest_family = 70\n")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """Recipe → its run folder, trained from the command line."""
    for name in ("columns", "sites"):
        out, recipe = folder / f"run-{name}", str(folder / f"{name}.toml")
        data = str(folder / "small.csv")
        assert main(["train", data, "--recipe", recipe, "--out", str(out), "--device", "cpu"]) == 0
    return {name: folder / f"run-{name}" for name in ("columns", "sites")}


@pytest.fixture
def table(folder: Path) -> AffinityTable:
    return read_table(folder / "small.csv")


def plan_of(folder: Path, *changes: str, recipe: str = "columns") -> Plan:
    return resolve(load_recipe(folder / f"{recipe}.toml", changes))


def learned(plan: Plan, table: AffinityTable, said: list[str] | None = None) -> Learned:
    rows = part_rows(plan.split(table.frame))
    return learn(plan, table, rows, device=torch.device("cpu"), notify=(said if said is not None else []).append)


class Spy:
    """Sees what each part learns from, out of fold or not, and which rows it then predicts to choose weights."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.fitted: list[tuple[str, Problem]] = []
        self.predicted: list[tuple[list[Rows], Rows]] = []
        self.chosen: list[int] = []
        fit: Any = blending._fitted
        choose: Any = Gate.__dict__["fit"].__func__
        predict = blending.FittedParts.predict
        of_fold: list[Rows] = []

        def spying_fit(plan: Plan, problem: Problem, *rest: Any) -> blending.FittedParts:
            *others, honest = rest
            of_fold.clear()

            def one(name: str, own: Plan, posed: Problem, computed: NDArray[np.bool_]) -> Predictive:
                self.fitted.append((name, posed))
                of_fold.append(posed.train)
                model: Predictive = honest(name, own, posed, computed)
                return model

            found: blending.FittedParts = fit(plan, problem, *others, one)
            return found

        def spying_predict(parts: blending.FittedParts, X: Any, rows: Rows) -> blending.Predicted:
            self.predicted.append((list(of_fold), rows))
            return predict(parts, X, rows)

        def spying_choose(cls: type[Gate], opinions: Opinions, *rest: Any, **options: Any) -> Gate:
            self.chosen.append(len(opinions.sizes))
            gate: Gate = choose(cls, opinions, *rest, **options)
            return gate

        patch.setattr(blending, "_fitted", spying_fit)
        patch.setattr(blending.FittedParts, "predict", spying_predict)
        patch.setattr(Gate, "fit", classmethod(spying_choose))


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


# --- the rows that choose the weights -------------------------------------------------------------------


def test_few_training_rows_choose_out_of_fold_beside_the_validation_rows(
    folder: Path, table: AffinityTable, spy: Spy
) -> None:
    plan = plan_of(folder)
    rows = part_rows(plan.split(table.frame))
    learned(plan, table)
    (_, validation), *folds = spy.predicted
    np.testing.assert_array_equal(validation, rows["val"])
    assert len(folds) == 3
    np.testing.assert_array_equal(np.sort(np.concatenate([fold for _, fold in folds])), rows["train"])
    for learned_from, fold in folds:
        assert len(learned_from) == 3
        for train in learned_from:
            assert not np.intersect1d(train, fold).size
            np.testing.assert_array_equal(np.sort([*train, *fold]), rows["train"])
    assert not np.intersect1d(np.concatenate([p.train for _, p in spy.fitted]), rows["test"]).size
    n = len(rows["val"]) + len(rows["train"])
    assert spy.chosen == [n, *(n - len(fold) for _, fold in spy.predicted)]  # then without each in turn


def test_caution_draws_predictions_to_the_mean_label(folder: Path, table: AffinityTable) -> None:
    said: list[str] = []
    bold, cautious = (learned(plan_of(folder, f"model.caution={caution}"), table, said) for caution in (0, 10))
    assert isinstance(bold.model, Blended)
    assert isinstance(cautious.model, Blended)
    assert bold.model.trust == 1
    assert cautious.model.trust < 1
    mean = table.pkd[part_rows(plan_of(folder).split(table.frame))["train"]].mean()
    share = 100 * (1 - cautious.model.trust)
    assert f"Predictions are drawn {share:.0f} % of the way to the mean label, {mean:.2f}." in said
    assert f"drawn {share:.0f} % of the way to the mean" in cautious.model.describe()
    assert "drawn" not in bold.model.describe()
    np.testing.assert_allclose(
        cautious.predict(table) - mean, cautious.model.trust * (bold.predict(table) - mean), atol=1e-9
    )
    again = Blended.from_state(cautious.model.state())
    np.testing.assert_array_equal(again.predict(cautious.features), cautious.model.predict(cautious.features))


REFIT = ("model.refit=true", "parts.near.recipe=nearest-neighbour")


def test_parts_that_choose_nothing_by_validation_rows_learn_from_them_in_the_end(
    folder: Path, table: AffinityTable, spy: Spy
) -> None:
    rows = part_rows(plan_of(folder).split(table.frame))
    both = np.sort([*rows["train"], *rows["val"]])
    said: list[str] = []
    result = learned(plan_of(folder, *REFIT), table, said)
    assert "Fitted once more to training and validation rows together: mean, near." in said
    assert isinstance(result.model, Blended)
    assert list(result.model.parts) == ["network", "linear", "mean", "near"]  # a ridge chooses its penalty by them
    last = dict(spy.fitted[-2:])
    assert sorted(last) == ["mean", "near"]
    for problem in last.values():
        np.testing.assert_array_equal(problem.train, both)
    assert result.model.parts["mean"].model.predict(result.features, rows["test"])[0] == pytest.approx(
        table.pkd[both].mean()
    )
    assert not np.intersect1d(np.concatenate([problem.train for _, problem in spy.fitted]), rows["test"]).size
    spy.fitted.clear()
    learned(plan_of(folder, *REFIT, "model.folds_up_to=10"), table)
    assert [name for name, _ in spy.fitted] == ["network", "linear", "mean", "near"]


def test_figures_of_validation_rows_are_from_before_they_were_learned_from(folder: Path, tmp_path: Path) -> None:
    data, metrics = folder / "small.csv", {}
    only = ("parts.network=false", "parts.linear=false", *REFIT[1:])
    for refit in ("false", "true"):
        out = tmp_path / refit
        changes = [*only, f"model.refit={refit}"]
        tailbind.train(data, recipe=str(folder / "columns.toml"), out=out, overrides=changes, device="cpu")
        metrics[refit] = json.loads((out / "metrics.json").read_text())
    assert metrics["true"]["validation"] == metrics["false"]["validation"]
    assert metrics["true"]["test"]["rmse"] != metrics["false"]["test"]["rmse"]
    n = metrics["true"]["train"]["n"] + metrics["true"]["validation"]["n"]
    assert [part["n_refitted"] for part in metrics["true"]["parts"].values()] == [n, n]
    assert not any("n_refitted" in part for part in metrics["false"]["parts"].values())
    shown = (tmp_path / "true" / "evaluation_results_columns.txt").read_text()
    assert f"parts learned again from training and validation rows together: mean from {n}, near from {n}." in shown
    leaked = {name: entry["leakage"]["heavy"]["median_identity"] for name, entry in metrics.items()}
    assert leaked["true"] >= leaked["false"]


def test_many_training_rows_leave_it_to_the_validation_rows(folder: Path, table: AffinityTable, spy: Spy) -> None:
    rows = part_rows(plan_of(folder).split(table.frame))
    learned(plan_of(folder, f"model.folds_up_to={len(rows['train']) - 1}"), table)
    assert [name for name, _ in spy.fitted] == ["network", "linear", "mean"]
    assert spy.chosen == [len(rows["val"])]
    learned(plan_of(folder, f"model.folds_up_to={len(rows['train'])}"), table)
    assert spy.chosen[1] > len(rows["val"])


def test_folds_keep_together_what_the_split_keeps_together(folder: Path, table: AffinityTable, spy: Spy) -> None:
    learned(plan_of(folder, "split.kind=group"), table)
    group = table.frame["group"].to_numpy()
    assert len(spy.predicted) == 4
    for learned_from, fold in spy.predicted[1:]:
        for train in learned_from:
            assert not set(group[train]) & set(group[fold])


def test_folds_by_date_learn_from_the_past_alone(folder: Path, table: AffinityTable) -> None:
    plan = plan_of(folder, "split.kind=date")
    rows = part_rows(plan.split(table.frame))["train"]
    year = table.frame["date"].cast(pl.Int64).to_numpy()
    folds = fold_rows(plan, table, rows, 3)
    assert len(folds) == 3
    for rest, fold in folds:
        assert year[rest].max() < year[fold].min()


def test_too_few_groups_for_folds_are_told_and_the_validation_rows_choose(
    folder: Path, table: AffinityTable, spy: Spy
) -> None:
    frame = table.frame.with_columns(group=pl.Series([f"g{i % 5}" for i in range(len(table))]))
    said: list[str] = []
    learned(plan_of(folder, "split.kind=group", "model.folds=10"), replace(table, frame=frame), said)
    assert len(spy.predicted) == 1
    told = [text for text in said if text.startswith("The validation rows alone choose the weights; there are no fold")]
    assert len(told) == 1
    assert "needs at least 10 groups" in told[0]


def test_a_fold_without_which_a_part_has_too_few_rows_has_no_say(folder: Path, table: AffinityTable, spy: Spy) -> None:
    n_train = len(part_rows(plan_of(folder).split(table.frame))["train"])
    said: list[str] = []
    learned(plan_of(folder, f"parts.linear.fewest_rows={n_train}"), table, said)
    assert len(spy.predicted) == 1
    assert [name for name, _ in spy.fitted] == ["network", "linear", "mean"], "nothing is fitted in vain"
    assert any("3 of 3 folds of training rows had no say in the weights" in text for text in said)


def test_the_first_part_may_have_too_few_rows_without_a_fold(folder: Path, table: AffinityTable) -> None:
    n_train = len(part_rows(plan_of(folder).split(table.frame))["train"])
    changes = [f"parts.{name}.fewest_rows={n_train}" for name in ("network", "linear", "mean")]
    assert isinstance(learned(plan_of(folder, *changes), table).model, Blended)


# --- the parts --------------------------------------------------------------------------------------------


def test_a_part_with_too_few_rows_is_left_out_and_told(folder: Path, table: AffinityTable, tmp_path: Path) -> None:
    said: list[str] = []
    model = learned(plan_of(folder, "parts.network.fewest_rows=5000"), table, said).model
    assert isinstance(model, Blended)
    assert list(model.parts) == ["linear", "mean"]
    told = "Without network: it must have 5,000 training rows at least; there are 208."
    assert told in said
    printed = StringIO()
    run = tailbind.train(
        folder / "small.csv", recipe=folder / "columns.toml", out=tmp_path / "run", device="cpu",
        overrides=["parts.network.fewest_rows=5000"], console=Console(file=printed, width=300),
    )  # fmt: skip
    assert told in printed.getvalue()
    assert run.metrics["parts"]["network"] == {"model": "mlp", "left_out": told.partition(": ")[2].rstrip(".")}
    assert run.metrics["epochs"] == 0
    assert not (run.path / "history.csv").exists()
    assert not (run.path / "training_curves_columns.png").exists()
    text = (run.path / "evaluation_results_columns.txt").read_text()
    assert "network is left out: it must have 5,000 training rows at least; there are 208." in text


def test_v3_on_few_rows_of_one_antigen(table: AffinityTable) -> None:
    antigens = table.frame["antigen"]
    one = table.take((antigens == antigens.mode()[0]).to_numpy())
    numberless = ("features.sites.numbering=false", "features.descriptors.numbering=false", "split.kind=random")
    result = learned(resolve(load_recipe("v3", numberless)), one)
    assert isinstance(result.model, Blended)
    assert list(result.model.parts) == ["few", "antigens", "mean"]
    rows = np.arange(len(one))
    of_parts = {name: part.model.predict(part.view(result.features), rows) for name, part in result.model.parts.items()}
    assert np.ptp(of_parts["antigens"]) < 1e-6  # one antigen tells nothing: its part is the mean of its rows
    assert of_parts["antigens"][0] == pytest.approx(of_parts["mean"][0], abs=1e-4)
    assert np.std(of_parts["few"]) > 0.1
    predicted = result.predict(one)
    assert np.corrcoef(predicted, one.pkd)[0, 1] > 0.5


@pytest.mark.parametrize(("most", "left_out"), [(207, True), (208, False)])
def test_a_part_for_few_rows_is_left_out_of_a_large_table(
    folder: Path, table: AffinityTable, most: int, left_out: bool
) -> None:
    said: list[str] = []
    model = learned(plan_of(folder, f"parts.linear.most_rows={most}"), table, said).model
    assert isinstance(model, Blended)
    assert ("linear" not in model.parts) is left_out
    assert ("Without linear: it must have 207 training rows at most; there are 208." in said) is left_out


def test_a_part_about_small_families_learns_from_them_alone(folder: Path, table: AffinityTable, spy: Spy) -> None:
    largest = 70
    model = learned(plan_of(folder, recipe="sites"), table).model
    assert isinstance(model, Blended)
    train = dict(spy.fitted[:3])["mean"].train
    everyone = dict(spy.fitted[:3])["linear"].train
    source = table.source
    sizes = {name: int((source[everyone] == name).sum()) for name in np.unique(source)}
    assert {sizes[name] > largest for name in sizes} == {True, False}, "or there is nothing to see"
    np.testing.assert_array_equal(train, everyone[[sizes[name] <= largest for name in source[everyone]]])


def test_a_blend_without_a_part_for_every_row_cannot_learn(folder: Path, table: AffinityTable) -> None:
    changes = [f"parts.{name}.fewest_rows=5000" for name in ("network", "linear")]
    with pytest.raises(TrainingError, match=r"must have a part with a say about every row .* on 208 training rows"):
        learned(plan_of(folder, *changes, "parts.mean.largest_family=50"), table)
    with pytest.raises(TrainingError, match=r"Change parts\.NAME\.fewest_rows and most_rows, or add rows"):
        learned(plan_of(folder, *changes, "parts.mean.fewest_rows=5000"), table)


def test_every_part_has_the_blend_s_seed(folder: Path, table: AffinityTable, spy: Spy) -> None:
    one = learned(plan_of(folder, "training.seed=9"), table)
    assert {posed.seed for _, posed in spy.fitted} == {9}
    again, other = (learned(plan_of(folder, f"training.seed={seed}"), table) for seed in (9, 10))
    np.testing.assert_array_equal(one.predict(table), again.predict(table))
    assert np.abs(one.predict(table) - other.predict(table)).max() > 1e-4


def test_a_part_is_weighted_by_its_own_loss(folder: Path, table: AffinityTable, spy: Spy) -> None:
    said: list[str] = []
    learned(plan_of(folder), table, said)
    by_part = dict(spy.fitted[:3])
    assert by_part["network"].weight.std() > 0.1
    assert (by_part["linear"].weight == 1).all()
    assert [text.partition(": ")[0] for text in said if "Bin weights: " in text] == ["network"]
    assert [text for text in said if text.startswith("linear: ridge on 6 dense")]
    said.clear()
    measured = table.pkd < 9
    learned(plan_of(folder), table.take(measured), said)
    assert [text for text in said if "No training rows: " in text] == [
        "Warning: No training rows: Strong (9–11), Very strong (≥ 11). Nothing can be learned there."
    ]


def test_a_warning_of_a_part_stays_a_warning(folder: Path, table: AffinityTable) -> None:
    said: list[str] = []
    learned(plan_of(folder, "parts.network.training.start_at_mean=false"), table, said)
    assert [text for text in said if text.startswith("Warning: network: 2 epochs are few for 208 rows")]


def test_a_part_may_read_residues_beside_one_that_reads_columns(folder: Path, table: AffinityTable) -> None:
    text = """
        [features.sites]
        numbering = false
        [features.residues]
        numbering = false
        [split]
        kind = "pair"
        [model]
        kind = "blend"
        folds_up_to = 0
        [parts.pairs]
        recipe = "attention"
        [parts.pairs.model]
        dim = 8
        heads = 2
        layers = 1
        hidden_dim = 4
        members = 1
        [parts.pairs.training]
        epochs = 1
        [parts.linear]
        recipe = "ridge"
        blocks = ["sites"]
    """
    (folder / "residues.toml").write_text(text)
    few = table.take(np.arange(len(table)) < 60)
    result = learned(plan_of(folder, recipe="residues"), few)
    assert isinstance(result.model, Blended)
    assert [part.residues for part in result.model.parts.values()] == [True, False]
    assert np.isfinite(result.predict(few)).all()


# --- what a run leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["columns", "sites"])
def test_the_run_folder_is_as_the_contract_says(name: str, runs: Mapping[str, Path]) -> None:
    run = runs[name]
    assert {path.name for path in run.iterdir()} == {file.format(name) for file in FILES}
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["parts"]) == ["network", "linear", "mean"]
    assert set(metrics["parts"]["network"]) == OF_EACH | {"parameters", "best_epoch", "epochs", "batch_size"}
    assert set(metrics["parts"]["linear"]) == set(metrics["parts"]["mean"]) == OF_EACH
    shares = [part["share"] for part in metrics["parts"].values()]
    assert sum(shares) == pytest.approx(1)
    assert metrics["epochs"] == len(pl.read_csv(run / "history.csv")) == 2
    assert metrics["parameters"] == metrics["parts"]["network"]["parameters"]
    assert not {"best_epoch", "batch_size"} & set(metrics)
    assert metrics["seconds"] >= sum(part["seconds"] for part in metrics["parts"].values())
    assert metrics["test"]["member_sd"] > 0
    best, final = (torch.load(run / f"{kind}_model_{name}.pth", weights_only=True) for kind in ("best", "final"))
    assert best["model_kind"] == "blend"
    assert best["val_loss"] == final["val_loss"] > 0


def test_a_part_without_rows_in_its_scope_is_left_out(folder: Path, table: AffinityTable) -> None:
    said: list[str] = []
    model = learned(plan_of(folder, "parts.mean.largest_family=5", recipe="sites"), table, said).model
    assert isinstance(model, Blended)
    assert list(model.parts) == ["network", "linear"]
    assert "Without mean: it must have 10 training rows in its scope; there are 0." in said


@pytest.mark.parametrize("name", ["columns", "sites"])
def test_a_new_process_predicts_the_same_without_training(
    name: str, runs: Mapping[str, Path], folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from tailbind.predictor import load; p = load(sys.argv[1], 'cpu'); "
        "p.predict(p.read(sys.argv[2])).write_parquet(sys.argv[3]); "
        "print([name for name in sys.modules if name.startswith('tailbind.training')])"
    )
    arguments = [str(runs[name]), str(folder / "small.csv"), str(tmp_path / "other.parquet")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    tested = pl.read_csv(runs[name] / f"test_predictions_{name}.csv", schema_overrides={"row_id": pl.String})
    there = tested.select("row_id").join(pl.read_parquet(arguments[2]), on="row_id", how="left", maintain_order="left")
    np.testing.assert_allclose(there["predicted_pkd"], tested["predicted_pkd"], rtol=1e-6)
    np.testing.assert_allclose(there["predicted_sd"], tested["predicted_sd"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["columns", "sites"])
def test_in_memory_it_is_the_same_to_the_bit(name: str, runs: Mapping[str, Path], folder: Path) -> None:
    table = read_table(folder / "small.csv", sequences=name == "sites", feature_prefix="auto")
    split = pl.read_parquet(runs[name] / "split.parquet")
    assert split["row_id"].to_list() == table.frame["row_id"].to_list()
    plan, rows = plan_of(folder, recipe=name), part_rows(split["part"].to_numpy().astype("<U5"))
    result = learn(plan, table, rows, device=torch.device("cpu"))
    predictor = load(runs[name], "cpu")
    predicted, sd = predictor.predict_pkd(predictor.compute_features(table))
    np.testing.assert_array_equal(result.predict(table), predicted)
    np.testing.assert_array_equal(result.model.predict_with_sd(result.features)[1], sd)


def test_the_report_tells_of_the_parts(runs: Mapping[str, Path]) -> None:
    text = (runs["columns"] / "evaluation_results_columns.txt").read_text()
    page = (runs["columns"] / "report.html").read_text()
    parts = json.loads((runs["columns"] / "metrics.json").read_text())["parts"]
    for shown in (text, page):
        assert "What the blend consists of" in shown
        assert "Diagnosis of the predictions" in shown
        for name, part in parts.items():
            assert f"{name} {100 * part['share']:.0f} % (" in shown
        assert "mean SD over parts and their members" in shown
    assert f"best on validation: {parts['network']['best_epoch']} (network)" in text
    assert "Loss and learning rate by epoch of network" in page
    steps = text.partition("Next steps")[2]
    assert "tailbind " in steps
    for missing in ("hidden_dims", "model.members", "finetune_epochs"):
        assert missing not in steps


def test_advice_names_options_that_the_recipe_has(folder: Path, tmp_path: Path) -> None:
    changes = ["parts.linear=false", "parts.network.optimizer.lr=1e-6", "parts.second.recipe=v1"]
    changes += ["parts.second.fewest_rows=5000"]
    run = tailbind.train(
        folder / "small.csv", recipe=folder / "columns.toml", out=tmp_path / "run", device="cpu", overrides=changes,
        console=Console(file=StringIO()),
    )  # fmt: skip
    (finding,) = [entry for entry in run.metrics["diagnosis"] if entry["symptom"] == "underfitting"]
    options = [option.strip("'") for option in finding["options"]]
    assert "parts.network.training.epochs=150" in options
    assert {option.split(".")[1] for option in options} == {"network"}, "what is left out is not to be changed"
    assert plan_of(folder, *changes, *options).parts["network"].plan.training.epochs == 150  # type: ignore[union-attr]


def test_the_history_has_the_parts_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    changes = [
        "parts.second.recipe=v1", "parts.second.model.hidden_dims=[4]", "parts.second.training.epochs=3",
        "parts.second.training.start_at_mean=true", "parts.second.training.select_by=rmse",
    ]  # fmt: skip
    printed = StringIO()
    run = tailbind.train(
        folder / "small.csv", recipe=folder / "columns.toml", out=tmp_path / "run", device="cpu", overrides=changes,
        console=Console(file=printed, width=300),
    )  # fmt: skip
    history = pl.read_csv(run.path / "history.csv")
    assert history["epoch"].to_list() == [1, 2, 3, 4, 5]
    parts = run.metrics["parts"]
    assert [parts[name]["epochs"] for name in ("network", "second")] == [2, 3]
    val_score = history["val_score"].to_list()
    assert parts["second"]["best_epoch"] == 3 + int(np.argmin(val_score[2:]))
    lr = history["lr"].to_list()
    assert lr[0] == 0.01
    assert lr[2] == 0.001
    assert "second epoch 3/3" in printed.getvalue()
    assert "Loss and learning rate by epoch of network, then second" in (run.path / "report.html").read_text()


def test_a_blend_is_compared_and_held_against_a_table(
    runs: Mapping[str, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs["columns"]), str(runs["sites"]), "--out", str(tmp_path / "c")]) == 0
    assert "Comparison: columns vs sites" in capsys.readouterr().out
    assert (tmp_path / "c" / "comparison.html").exists()
    assert main(["evaluate", str(runs["sites"]), str(folder / "small.csv"), "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["test"]["n"] == 300


# --- going on ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands in for kill -9 between two writes."""


def same(a: Any, b: Any) -> bool:
    """Return whether two states are equal, tensors to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def test_a_blend_stopped_before_any_write_is_continued_exactly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "_pictures", lambda *_: dict.fromkeys("abcd", b"no picture, for speed"))
    changes = ["parts.last.recipe=v1", "parts.last.model.hidden_dims=[4]", "parts.last.training.epochs=2"]

    def go(out: Path, **more: Any) -> tailbind.RunSummary:
        return tailbind.train(
            folder / "small.csv", recipe=folder / "columns.toml", out=out, overrides=changes, device="cpu",
            console=Console(file=StringIO()), **more,
        )  # fmt: skip

    whole = go(tmp_path / "whole").path
    honest: tuple[Callable[..., Any], Callable[..., Any]] = Path.replace, journal._append
    n_writes = 0

    def strike_at(patch: pytest.MonkeyPatch, kill_at: int) -> None:
        def strike(honest: Callable[..., Any]) -> Callable[..., Any]:
            def write(*arguments: Any) -> Any:
                nonlocal n_writes
                n_writes += 1
                if n_writes == kill_at:
                    raise Killed
                return honest(*arguments)

            return write

        patch.setattr(Path, "replace", strike(honest[0]))
        patch.setattr(journal, "_append", strike(honest[1]))

    for kill_at in range(1, 100):
        out, n_writes = tmp_path / f"killed-{kill_at}", 0
        with monkeypatch.context() as patch:
            strike_at(patch, kill_at)
            try:
                go(out)
            except Killed:
                pass
            else:
                break  # every write has been struck once
        history = out / "history.csv"
        lines = history.read_text().splitlines() if history.exists() else []
        go(out, resume=True)
        for kind in ("best", "final"):
            file = f"{kind}_model_columns.pth"
            one, other = (torch.load(path / file, weights_only=True) for path in (out, whole))
            assert same(one, other), kill_at
        assert history.read_text().splitlines()[: len(lines)] == lines
        unchanging = ["epoch", "train_loss", "val_loss", "lr"]
        assert pl.read_csv(history)[unchanging].equals(pl.read_csv(whole / "history.csv")[unchanging])
        name = "test_predictions_columns.csv"
        assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert kill_at > 20


def test_a_finished_part_is_not_fitted_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []
    honest = modelling.fit_at_once

    def spying(plan: Plan, *rest: Any) -> Predictive:
        fitted.append(plan.kinds["model"])
        return honest(plan, *rest)

    def stop(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(fitting, "fit_at_once", spying)
    options: dict[str, Any] = {"recipe": folder / "columns.toml", "out": tmp_path / "run", "device": "cpu"}
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "put_together", stop)
        with pytest.raises(Killed):
            tailbind.train(folder / "small.csv", console=Console(file=StringIO()), **options)
    assert fitted == ["ridge", "training_mean"]
    printed = StringIO()
    run = tailbind.train(folder / "small.csv", resume=True, console=Console(file=printed, width=300), **options)
    assert fitted == ["ridge", "training_mean"]
    assert "epoch 1/2" not in printed.getvalue()
    assert [part["n_train"] for part in run.metrics["parts"].values()] == [208] * 3
    assert not (run.path / "resume.pth").exists()
