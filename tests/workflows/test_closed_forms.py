"""Recipes whose models learn without epochs, from `train` to `compare`, as networks' do."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import tailbind
from tailbind.cli import main
from tailbind.errors import RecipeError
from tailbind.models.contract import ClosedForm
from tailbind.predictor import load
from tailbind.recipes import load_recipe, recipe_names
from tailbind.table.simulation import Landscape, simulate
from tailbind.workflows import fitting
from tailbind.workflows.plan import SeedOptions, resolve

#: Recipe → what makes it quick enough for a test.
RECIPES = {
    "training-mean": (),
    "source-mean": (),
    "nearest-neighbour": ("features.sites.numbering=false",),
    "ridge": ("features.sites.numbering=false",),
    "lightgbm": ("features.sites.numbering=false",),
    "gaussian-process": ("features.sites.numbering=false",),
    "nearest-neighbour-columns": (),
    "ridge-columns": (),
    "lightgbm-columns": (),
    "gaussian-process-columns": (),
}


def files(name: str) -> set[str]:
    """Return what a run folder of a model without epochs holds."""
    return {
        f"best_model_{name}.pth", f"final_model_{name}.pth", f"predictions_vs_targets_{name}.png",
        f"residuals_analysis_{name}.png", f"intervals_{name}.png", "calibration.pth",
        f"evaluation_results_{name}.txt", f"test_predictions_{name}.csv",
        "report.html", "config.json", "split.parquet", "leakage.parquet", "audit.json", "metrics.json",
        "environment.json", "model_card.md", "domain.parquet", "DONE",
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows of three families, from three data sets, with sequences and six feature columns."""
    path = tmp_path_factory.mktemp("table") / "small.csv"
    simulate(Landscape(n_rows=300, n_features=6, n_families=3, missing=0)).drop("true_pkd").write_csv(path)
    return path


class Runs(dict[str, Path]):
    """Recipe → its run folder, trained from the command line when first asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        super().__init__()
        self.data, self.folder = data, folder

    def __missing__(self, name: str) -> Path:
        options = [part for change in RECIPES[name] for part in ("--set", change)]
        out = self.folder / name
        assert main(["train", str(self.data), "--recipe", name, "--out", str(out), "--device", "cpu", *options]) == 0
        self[name] = out
        return out


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(data, tmp_path_factory.mktemp("runs"))


def metrics_of(run: Path) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = json.loads((run / "metrics.json").read_text())
    return figures


def test_every_recipe_without_epochs_is_tried_here() -> None:
    closed = {name for name in recipe_names() if isinstance(resolve(load_recipe(name)).model, ClosedForm)}
    assert closed - {"v3"} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_run_folder_is_as_the_contract_says(name: str, runs: Runs) -> None:
    assert {path.name for path in runs[name].iterdir()} == files(name)
    metrics = json.loads((runs[name] / "metrics.json").read_text())
    assert metrics["epochs"] == 0
    assert not {"best_epoch", "batch_size", "parameters"} & set(metrics)
    assert "Diagnosis of the predictions" in (runs[name] / "report.html").read_text()
    config = json.loads((runs[name] / "config.json").read_text())
    assert list(config) == ["name", "description", "features", "split", "model", "loss", "training", "calibration"]
    assert config["training"] == {"seed": 42}


@pytest.mark.parametrize("name", RECIPES)
def test_the_best_model_is_the_final_one_and_holds_no_code(name: str, runs: Runs) -> None:
    best, final = (torch.load(runs[name] / f"{kind}_model_{name}.pth", weights_only=True) for kind in ("best", "final"))
    assert best["epoch"] == final["epoch"] == 0
    assert best["val_loss"] == final["val_loss"] > 0
    assert best["model_kind"] == resolve(load_recipe(name)).kinds["model"]


def test_the_baselines_are_those_that_every_report_shows(runs: Runs) -> None:
    for name in ("training_mean", "source_mean", "ridge"):
        recipe = metrics_of(runs[name.replace("_", "-")])
        assert recipe["test"]["rmse"] == recipe["baselines"][name]["rmse"]  # type: ignore[index]


def test_what_learns_from_sequences_learns(runs: Runs) -> None:
    errors = {name: metrics_of(runs[name])["test"]["rmse"] for name in RECIPES}
    assert errors["source-mean"] < 0.9 * errors["training-mean"]
    for name in ("ridge", "gaussian-process", "nearest-neighbour"):
        assert errors[name] < 0.9 * errors["training-mean"], name


@pytest.mark.parametrize("name", RECIPES)
def test_predictions_are_the_same_again(name: str, runs: Runs, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "predicted.csv"
    assert main(["predict", str(runs[name]), str(data), "--out", str(out)]) == 0
    there = pl.read_csv(out).select("row_id", "predicted_pkd")
    tested = pl.read_csv(runs[name] / f"test_predictions_{name}.csv").select(
        "row_id", pl.col("predicted_pkd").alias("p")
    )
    both = tested.join(there, on="row_id", how="left")
    np.testing.assert_allclose(both["predicted_pkd"], both["p"], rtol=1e-5)


def test_a_new_process_predicts_the_same_without_training(runs: Runs, data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from tailbind.predictor import load; p = load(sys.argv[1], 'cpu'); "
        "p.predict(p.read(sys.argv[2])).write_parquet(sys.argv[3]); "
        "print([name for name in sys.modules if name.startswith('tailbind.training')])"
    )
    arguments = [str(runs["ridge"]), str(data), str(tmp_path / "other.parquet")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    predictor = load(runs["ridge"], "cpu")
    here = predictor.predict(predictor.read(data))
    np.testing.assert_allclose(pl.read_parquet(arguments[2])["predicted_pkd"], here["predicted_pkd"], rtol=1e-12)


def test_two_are_compared_and_one_is_held_against_a_table(
    runs: Runs, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs["training-mean"]), str(runs["ridge"]), "--out", str(tmp_path / "c")]) == 0
    assert "ridge" in capsys.readouterr().out
    assert (tmp_path / "c" / "comparison.html").exists()
    assert main(["evaluate", str(runs["source-mean"]), str(data), "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["n_unseen"] == 0


def test_a_table_with_neither_sequences_nor_features_is_enough_for_means(data: Path, tmp_path: Path) -> None:
    pl.read_csv(data).select("pKd", "database_source").write_csv(tmp_path / "bare.csv")
    run = tailbind.train(
        tmp_path / "bare.csv", recipe="source-mean", out=tmp_path / "run", overrides=["split.kind=random"],
        device="cpu", console=Console(file=StringIO()),
    )  # fmt: skip
    assert run.metrics["test"]["rmse"] < run.metrics["baselines"]["training_mean"]["rmse"]
    new = pl.DataFrame({"source": ["never heard of", ""]})
    new.write_csv(tmp_path / "new.csv")
    predicted = tailbind.predict(run.path, tmp_path / "new.csv", device="cpu")
    assert predicted["unseen"].to_list() == ["source never heard of", "no source"]
    assert predicted["predicted_pkd"].to_list() == pytest.approx([run.metrics["train"]["label_mean"]] * 2)
    new.select(other="source").write_csv(tmp_path / "none.csv")
    assert tailbind.predict(run.path, tmp_path / "none.csv", device="cpu")["unseen"].to_list() == ["no source"] * 2


def test_an_unfinished_run_is_fitted_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    out = tmp_path / "run"
    options = {"recipe": "ridge-columns", "out": out, "device": "cpu", "console": Console(file=StringIO())}
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "write_results", stop)
        with pytest.raises(StoppedError):
            tailbind.train(data, **options)  # type: ignore[arg-type]
    before = torch.load(out / "best_model_ridge-columns.pth", weights_only=True)
    assert not (out / "DONE").exists()
    resumed = tailbind.train(data, resume=True, **options)  # type: ignore[arg-type]
    assert {path.name for path in out.iterdir()} == files("ridge-columns")
    after = torch.load(out / "best_model_ridge-columns.pth", weights_only=True)
    assert torch.equal(before["model"]["coefficients"]["__array__"], after["model"]["coefficients"]["__array__"])
    again = tailbind.train(data, resume=True, **options)  # type: ignore[arg-type]
    assert again.metrics["test"]["rmse"] == resumed.metrics["test"]["rmse"]


def test_a_network_s_traces_are_gone_when_a_run_is_replaced(data: Path, tmp_path: Path) -> None:
    out, console = tmp_path / "run", Console(file=StringIO())
    tiny = ("training.epochs=1", "training.checkpoint_every=1", "model.hidden_dims=[4]", "split.kind=random")
    tailbind.train(data, recipe="v1", out=out, overrides=tiny, device="cpu", console=console)
    tailbind.train(data, recipe="ridge-columns", out=out, force=True, device="cpu", console=console)
    assert {path.name for path in out.iterdir()} == files("ridge-columns")


def test_weights_are_told_and_change_a_ridge(data: Path, tmp_path: Path, runs: Runs) -> None:
    printed = StringIO()
    run = tailbind.train(
        data, recipe="ridge-columns", out=tmp_path / "run", overrides=["loss.weights=inverse"], device="cpu",
        console=Console(file=printed, width=200),
    )  # fmt: skip
    assert "Bin weights: " in printed.getvalue()
    assert "Model: ridge on 6 dense and 0 sparse columns, penalty" in printed.getvalue()
    one, other = (
        torch.load(path / "best_model_ridge-columns.pth", weights_only=True)["model"]["coefficients"]["__array__"]
        for path in (run.path, runs["ridge-columns"])
    )
    assert not torch.allclose(one, other)


def test_only_next_steps_that_can_be_taken_are_shown(runs: Runs) -> None:
    steps = (runs["training-mean"] / "evaluation_results_training-mean.txt").read_text().partition("Next steps")[2]
    assert "MORE.csv" in steps
    assert "hidden_dims" not in steps


# --- what would have no effect ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("ridge", "optimizer.lr=0.1", r"ridge learns without epochs; optimizer has no effect\. Leave it out"),
        ("ridge", "schedule.kind=constant", r"ridge learns without epochs; schedule has no effect\. Leave it out"),
        ("ridge", "training.epochs=3", r"ridge learns without epochs; training\.epochs has no effect\. Leave it out"),
        ("source-mean", "training.batch_size=3", r"source_mean learns without epochs; training\.batch_size has no"),
        ("v2", "model.kind=ridge", r"Recipe v2: ridge learns .*; optimizer has no .* extend a recipe without it"),
        ("ridge", "loss.kind=focal", r"loss\.kind must be mse for ridge; got 'focal'\. Leave \[loss\] out"),
        ("ridge", "loss.gamma=2", r"loss\.gamma is not an option of this recipe"),
        ("nearest-neighbour", "loss.weights=inverse", r"loss\.weights must be none for nearest_neighbour, which .* no"),
        ("training-mean", "loss.extreme_factor=2", r"loss\.extreme_factor must be 1\.0 for training_mean, .*got 2\.0"),
        ("nearest-neighbour", "model.k=0", r"model\.k must be at least 1 and at most 1000; got 0"),
        ("ridge", "model.alphas=[0]", r"model\.alphas must be above 0; got 0"),
        ("ridge", "model.alpha=1", r"model\.alpha is not an option of this recipe; did you mean 'alphas'"),
        ("ridge", "model.kind=mlp", r"Recipe ridge must say \[loss\] kind = …; it does not"),
    ],
)
def test_what_a_model_without_epochs_cannot_heed_is_an_error(recipe: str, change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        resolve(load_recipe(recipe, [change]))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change = "features.category.column=lab"
    assert main(["train", str(data), "--recipe", "source-mean", "--out", str(tmp_path / "x"), "--set", change]) == 2
    assert "features.category.column names, 'lab'; it has none." in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("bounds", "way", "words"),
    [
        ("drop", "left_out", "left out"),
        ("expect", "taken_as_bounds", "took"),
        ("measured", "fitted_as_measured", "fitted"),
    ],
)
def test_a_run_tells_what_was_done_with_marked_labels(
    bounds: str, way: str, words: str, data: Path, tmp_path: Path
) -> None:
    changes = [*RECIPES["gaussian-process"], f"model.bounds={bounds}"]
    said = StringIO()
    run = tailbind.train(
        data,
        recipe="gaussian-process",
        out=tmp_path / "run",
        overrides=changes,
        device="cpu",
        console=Console(file=said),
    )
    labels = run.metrics["labels"]
    marked = pl.read_csv(data).filter(pl.col("relation") != "=").height
    told = {
        "drop": f"{marked} labels are marked < or >; this recipe leaves them out of training.",
        "expect": f"{marked} labels are marked < or >; this recipe's model takes them as bounds.",
        "measured": f"{marked} labels are marked < or >; this recipe fits them as if measured.",
    }
    assert told[bounds] in said.getvalue()
    ways = ("left_out", "taken_as_bounds", "fitted_as_measured")
    assert {name: bool(labels[name]) for name in ways} == {name: name == way for name in ways}
    text = (run.path / "evaluation_results_gaussian-process.txt").read_text()
    assert f"This recipe {words} {labels[way]} training labels marked < or >" in text
    assert run.metrics["test"]["censored"]["n"] > 0
    assert run.metrics["criteria"]["rows"] == ("all" if way == "fitted_as_measured" else "measured")


def test_the_seed_is_the_only_option_of_its_training() -> None:
    plan = resolve(load_recipe("ridge", ["training.seed=7"]))
    assert plan.training == SeedOptions(7)
    assert plan.optimizer is plan.schedule is None
    assert plan.is_closed_form
    assert not plan.takes_bounds


@pytest.mark.parametrize("name", RECIPES)
def test_it_prints_as_one_that_loads(name: str, tmp_path: Path) -> None:
    plan = resolve(load_recipe(name))
    (tmp_path / "printed.toml").write_text(plan.toml())
    again = resolve(load_recipe(tmp_path / "printed.toml"))
    assert {**again.document(), "name": name} == plan.document()
