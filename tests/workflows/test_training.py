"""`train`: the run folder as the contract has it, and nothing fitted outside the training rows."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import tailbind
from tailbind.errors import RunError, TableError, TrainingError
from tailbind.evaluation.diagnosis import Finding, Likelihood, diagnose
from tailbind.scale import BIN_NAMES
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import RandomSplit
from tailbind.training.loop import Trainer
from tailbind.workflows import evaluating

FILES = {
    "best_model_v2.pth", "final_model_v2.pth", "checkpoint_v2_epoch_2.pth", "checkpoint_v2_epoch_4.pth",
    "training_curves_v2.png", "predictions_vs_targets_v2.png", "residuals_analysis_v2.png", "intervals_v2.png",
    "calibration.pth",
    "evaluation_results_v2.txt", "test_predictions_v2.csv", "report.html", "config.json", "split.parquet",
    "leakage.parquet", "audit.json", "history.csv", "metrics.json", "environment.json",
    "model_card.md", "domain.parquet", "DONE",
}  # fmt: skip
TINY = ("model.hidden_dims=[8]", "training.epochs=2", "training.batch_size=64")


def test_the_run_folder_is_as_the_contract_says(run_v2: tailbind.RunSummary) -> None:
    assert {path.name for path in run_v2.path.iterdir()} == FILES


def test_every_checkpoint_is_read_without_running_code(run_v2: tailbind.RunSummary) -> None:
    for path in run_v2.path.glob("*.pth"):
        content = torch.load(path, weights_only=True)
        assert path.name == "calibration.pth" or content["recipe_name"] == "v2"


def test_metrics_have_the_contract_s_shape(run_v2: tailbind.RunSummary) -> None:
    metrics = json.loads((run_v2.path / "metrics.json").read_text())
    test = metrics["test"]
    assert {"n", "rmse", "mae", "spearman", "pearson", "r2", "bins", "measured", "censored"} <= set(test)
    assert list(test["bins"]) == list(BIN_NAMES)
    assert set(test["bins"]["weak"]) == {"n", "rmse", "mae", "bias"}
    assert test["n"] == sum(entry["n"] for entry in test["bins"].values() if entry)
    assert test["measured"]["n"] + test["censored"]["n"] == test["n"]
    assert test["censored"]["n"] > 0
    assert test["macro_rmse"] == pytest.approx(np.mean([bin["rmse"] for bin in test["bins"].values() if bin]))
    assert test["n"] == sum(entry["n"] for entry in test["predicted_bins"].values() if entry)
    assert list(test["retrieval"]) == ["9", "11"]
    found = test["retrieval"]["9"]
    assert found["n"] + found["n_unknown"] == test["n"]
    low, high = found["intervals"]["average_precision"]
    assert low <= found["average_precision"] <= high
    assert set(metrics["baselines"]) == {"training_mean", "source_mean", "ridge"}
    assert metrics["baselines"]["training_mean"]["n"] == test["n"]
    assert metrics["criteria"]["grade"] in ("none", "minimum", "target", "stretch")


def test_test_predictions_give_the_metrics(run_v2: tailbind.RunSummary) -> None:
    frame = pl.read_csv(run_v2.path / "test_predictions_v2.csv")
    near = ["pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11"]
    near += ["antibody_identity", "antigen_identity", "domain"]
    assert frame.columns == ["row_id", "true_pkd", "predicted_pkd", "residual", "affinity_bin", "relation", *near]
    residual = frame["predicted_pkd"] - frame["true_pkd"]
    assert np.allclose(residual, frame["residual"])
    assert np.sqrt((residual**2).mean()) == pytest.approx(run_v2.metrics["test"]["rmse"])  # type: ignore[operator]
    assert (frame["relation"] == "<").sum() == run_v2.metrics["test"]["censored"]["n_below"] > 0


def test_the_relation_is_there_without_a_mark(simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).filter(pl.col("relation") == "=").drop("relation").write_csv(tmp_path / "plain.csv")
    run = tailbind.train(tmp_path / "plain.csv", recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    assert pl.read_csv(run.path / "test_predictions_v2.csv")["relation"].unique().to_list() == ["="]


def test_the_split_is_saved_and_the_test_rows_are_its(run_v2: tailbind.RunSummary, table: tailbind.read_table) -> None:  # type: ignore[valid-type]
    split = pl.read_parquet(run_v2.path / "split.parquet")
    assert split.columns == ["row_id", "part", "family"]
    assert split["part"].to_list() == RandomSplit()(table.frame).tolist()  # type: ignore[attr-defined]
    predicted = pl.read_csv(run_v2.path / "test_predictions_v2.csv", schema_overrides={"row_id": pl.String})
    assert predicted["row_id"].to_list() == split.filter(pl.col("part") == "test")["row_id"].to_list()


def test_history_has_a_row_per_epoch_and_the_best_is_the_lowest(run_v2: tailbind.RunSummary) -> None:
    history = pl.read_csv(run_v2.path / "history.csv")
    assert history.columns == ["epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second"]
    assert history["epoch"].to_list() == [1, 2, 3, 4]
    best = torch.load(run_v2.path / "best_model_v2.pth", weights_only=True)
    assert best["epoch"] == history["epoch"][history["val_loss"].arg_min()]
    assert best["val_loss"] == history["val_loss"].min()


def test_config_holds_the_recipe_with_every_default(run_v2: tailbind.RunSummary) -> None:
    config = json.loads((run_v2.path / "config.json").read_text())
    assert config["name"] == "v2"
    assert config["model"] == {
        "kind": "mlp", "hidden_dims": [32, 16], "activation": "gelu", "initialization": "xavier_uniform",
        "batch_norm": True, "dropout": 0.3, "members": 1, "embedding_dim": 64, "sparse_alone": False,
        "numerical_embedding": "none", "numerical_dim": 8, "numerical_bins": 16, "numerical_frequency": 0.1,
    }  # fmt: skip
    assert config["loss"] == {
        "kind": "focal", "gamma": 2.0, "weights": "inverse", "extreme_factor": 10.0, "cap": 0.0, "beta": 0.9999,
        "smoothing_sigma": 0.0, "smoothing_width": 0.1, "smoothing_reach": 3.0,
    }  # fmt: skip


def test_the_report_is_one_page_that_needs_no_other_file(run_v2: tailbind.RunSummary) -> None:
    page = (run_v2.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert "Ridge" in page
    assert "Very strong" in page


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    runs = [
        tailbind.train(simulated_csv, recipe="v2", out=tmp_path / str(i), overrides=TINY, seed=seed, device="cpu")
        for i, seed in enumerate([1, 1, 2])
    ]
    first, again, other = (run.metrics["test"]["rmse"] for run in runs)
    assert first == again
    assert first != other


def test_labels_of_test_rows_change_nothing_that_is_learned(simulated_csv: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(simulated_csv)
    parts = RandomSplit()(tailbind.read_table(simulated_csv).frame)
    usable = frame["esm2_pca_0"].is_not_null().to_numpy()
    test = np.zeros(len(frame), dtype=bool)
    test[np.flatnonzero(usable)[parts == "test"]] = True
    changed = frame.with_columns(pl.when(pl.Series(test)).then(7.7).otherwise(pl.col("pKd")).alias("pKd"))
    changed.write_csv(tmp_path / "changed.csv")
    for name, data in (("a", simulated_csv), ("b", tmp_path / "changed.csv")):
        tailbind.train(
            data, recipe="v2", out=tmp_path / name, overrides=[*TINY, "features.columns.standardize=true"], device="cpu"
        )
    a, b = (torch.load(tmp_path / name / "final_model_v2.pth", weights_only=True) for name in "ab")
    for one, other in zip(a["model"]["members"], b["model"]["members"], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(
        a["features"]["columns"]["state"]["mean"]["__array__"], b["features"]["columns"]["state"]["mean"]["__array__"]
    )


def test_an_ensemble_reports_its_members_spread(simulated_csv: Path, tmp_path: Path) -> None:
    run = tailbind.train(simulated_csv, recipe="v2-ensemble", out=tmp_path / "run", overrides=TINY, device="cpu")
    frame = pl.read_csv(run.path / "test_predictions_v2-ensemble.csv")
    assert frame["predicted_sd"].min() > 0  # type: ignore[operator]
    assert run.metrics["test"]["member_sd"] == pytest.approx(frame["predicted_sd"].mean())


def test_two_stages_share_one_history(simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*TINY, "training.finetune_epochs=3", "training.finetune_bins=['strong', 'very_strong']"]
    run = tailbind.train(simulated_csv, recipe="v2-two-stage", out=tmp_path / "run", overrides=changes, device="cpu")
    history = pl.read_csv(run.path / "history.csv")
    assert history["lr"].to_list()[2:] == [1e-5] * 3
    assert history["epoch"].to_list() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("recipe", ["v2-mse", "v2-overfitting", "v2-underfitting", "v2-small"])
def test_the_variants_train(recipe: str, simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*(["model.hidden_dims=[8]"] if recipe == "v2-underfitting" else []), "training.epochs=1"]
    run = tailbind.train(simulated_csv, recipe=recipe, out=tmp_path / "run", overrides=changes, device="cpu")
    assert (run.path / f"best_model_{recipe}.pth").exists()


def test_the_full_width_variant_reads_the_unreduced_columns(simulated_csv: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(simulated_csv)
    wide = frame.with_columns(pl.col(f"esm2_pca_{i}").alias(f"esm2_dim_{i}") for i in range(7))
    wide.write_csv(tmp_path / "wide.csv")
    run = tailbind.train(tmp_path / "wide.csv", recipe="v2-full", out=tmp_path / "run", overrides=TINY, device="cpu")
    best = torch.load(run.path / "best_model_v2-full.pth", weights_only=True)
    assert best["features"]["columns"]["state"]["names"] == [f"esm2_dim_{i}" for i in range(7)]


def test_an_empty_bin_is_a_warning(tmp_path: Path, simulated_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.read_csv(simulated_csv).filter(pl.col("pKd") < 9).write_csv(tmp_path / "weak.csv")
    run = tailbind.train(tmp_path / "weak.csv", recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    assert "No training rows: Strong (9–11), Very strong (≥ 11)" in capsys.readouterr().out
    assert run.metrics["test"]["bins"]["very_strong"] is None
    assert run.metrics["criteria"]["levels"]["minimum"][0]["met"] is None


def test_a_table_shorter_than_a_batch_is_one_batch(
    tmp_path: Path, simulated_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.read_csv(simulated_csv).head(60).write_csv(tmp_path / "short.csv")
    run = tailbind.train(
        tmp_path / "short.csv", recipe="v2", out=tmp_path / "run", overrides=["training.epochs=1"], device="cpu"
    )
    assert run.metrics["train"]["n"] < 128
    assert "training rows are fewer than a batch" in capsys.readouterr().out


def test_an_occupied_folder_is_left_alone(run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in run_v2.path.iterdir()}
    with pytest.raises(RunError, match=r"holds a finished run. Choose another folder or add --force"):
        tailbind.train(simulated_csv, recipe="v2", out=run_v2.path, device="cpu")
    assert {path.name: path.read_bytes() for path in run_v2.path.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    for force in (False, True):
        with pytest.raises(RunError, match="must be empty or a run; it holds other files"):
            tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "mine", device="cpu", force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all my work"


def test_force_replaces_a_run_and_keeps_foreign_files(simulated_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tailbind.train(simulated_csv, recipe="v2-mse", out=out, overrides=TINY, device="cpu")
    (out / "notes.txt").write_text("mine")
    tailbind.train(simulated_csv, recipe="v1", out=out, overrides=TINY, device="cpu", force=True)
    assert not list(out.glob("*v2-mse*"))
    assert (out / "best_model_v1.pth").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_bad_table_leaves_a_forced_run_alone(simulated_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tailbind.train(simulated_csv, recipe="v2", out=out, overrides=TINY, device="cpu")
    pl.read_csv(simulated_csv).head(15).write_csv(tmp_path / "few.csv")
    with pytest.raises(TableError, match=r"few.csv must have at least 20 usable rows to train on; got \d+ of 15"):
        tailbind.train(tmp_path / "few.csv", recipe="v2", out=out, overrides=TINY, device="cpu", force=True)
    assert (out / "DONE").exists()


def test_a_constant_label_is_refused(simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).with_columns(pKd=pl.lit(6.0)).write_csv(tmp_path / "flat.csv")
    with pytest.raises(TableError, match=r"flat.csv must have labels that differ; all 1,\d+ are pKd 6"):
        tailbind.train(tmp_path / "flat.csv", recipe="v2", out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(
    simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trainer._train_members

    def diverging(self: Trainer, *arguments: object) -> float:
        return float("nan") if self.epoch == 2 else honest(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_train_members", diverging)
    with pytest.raises(
        TrainingError, match=r"nan in epoch 3\. .* Last good checkpoint: .*best_model_v2.pth \(epoch \d"
    ):
        tailbind.train(
            simulated_csv, recipe="v2", out=tmp_path / "run", overrides=[*TINY, "training.epochs=4"], device="cpu"
        )
    assert not (tmp_path / "run" / "DONE").exists()
    assert tailbind.load(tmp_path / "run").checkpoint.epoch in (1, 2)


def test_tensorboard_is_written_where_asked_for(simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*TINY, "training.tensorboard=true"]
    run = tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "run", overrides=changes, device="cpu")
    assert list((run.path / "tensorboard").glob("events*"))


def test_several_files_are_one_table(simulated_csv: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(simulated_csv)
    frame.head(700).write_csv(tmp_path / "ours.csv")
    frame.tail(500).drop("database_source").write_csv(tmp_path / "theirs.csv")
    run = tailbind.train(
        [tmp_path / "ours.csv", tmp_path / "theirs.csv"],
        recipe="v2",
        out=tmp_path / "run",
        overrides=TINY,
        device="cpu",
    )
    ids = pl.read_parquet(run.path / "split.parquet")["row_id"]
    assert ids.str.starts_with("theirs:").sum() > 300
    assert ids.n_unique() == len(ids)


@pytest.fixture(scope="module")
def run_tobit(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    changes = [
        "model.hidden_dims=[32]", "training.epochs=30", "training.batch_size=64", "optimizer.lr=0.003", "loss.sigma=0.0"
    ]  # fmt: skip
    out = tmp_path_factory.mktemp("runs") / "tobit"
    return tailbind.train(simulated_csv, recipe="v2-tobit", out=out, overrides=changes, device="cpu")


def test_tobit_takes_bounds_and_reports_its_noise(run_tobit: tailbind.RunSummary) -> None:
    metrics = json.loads((run_tobit.path / "metrics.json").read_text())
    assert metrics["sigma"]["learned"] is True
    assert 0.1 < metrics["sigma"]["best_epoch"][0] < 2.0
    assert len(metrics["sigma"]["final"]) == 1
    labels = metrics["labels"]
    assert 0 < labels["taken_as_bounds"] < labels["censored"]
    assert labels["fitted_as_measured"] == 0
    text = (run_tobit.path / "evaluation_results_v2-tobit.txt").read_text()
    assert f"took {labels['taken_as_bounds']} training labels marked < or > as bounds" in text
    assert "Noise of the labels" in text


def test_what_takes_bounds_is_judged_by_its_measured_rows(run_tobit: tailbind.RunSummary) -> None:
    metrics = json.loads((run_tobit.path / "metrics.json").read_text())
    test, criteria = metrics["test"], metrics["criteria"]
    assert criteria["rows"] == "measured"
    assert {"n", "rmse", "bins", "measured", "censored", "intervals"} <= set(test)
    judged = {entry["metric"]: entry for entry in criteria["expected"]}
    assert judged["rmse"]["value"] == test["measured"]["rmse"] != test["rmse"]
    assert judged["weak.rmse"]["value"] == test["measured"]["bins"]["weak"]["rmse"] != test["bins"]["weak"]["rmse"]
    low, high = test["measured"]["intervals"]["rmse"]
    assert low < test["measured"]["rmse"] < high
    assert [low, high] != test["intervals"]["rmse"]
    text = (run_tobit.path / "evaluation_results_v2-tobit.txt").read_text()
    headline = next(line for line in text.splitlines() if line.startswith("Grade:"))
    best = min(entry["measured"]["rmse"] for entry in metrics["baselines"].values())
    assert f"With an RMSE of {test['measured']['rmse']:.3f} it " in headline
    assert f"({best:.3f})" in headline
    assert (
        f"Judged on the {test['measured']['n']} measured test rows; the {test['censored']['n']} marked < or > are "
        f"bounds, on which the one-sided RMSE is {test['censored']['one_sided_rmse']:.3f}."
    ) in headline
    tables = {block.split("\n")[0]: " ".join(block.split()) for block in text.split("\n\n")}
    assert f"RMSE {test['measured']['rmse']:.3f}" in tables["Overall"]
    assert f"RMSE {test['rmse']:.3f}" in tables["All rows, floors counted as measured"]
    assert "the grade does not go by these figures" in tables["All rows, floors counted as measured"]
    assert "All rows by affinity bin, floors counted as measured" in tables
    assert "Errors on the measured test rows" in (run_tobit.path / "report.html").read_text()


def test_what_fits_floors_as_measured_is_judged_by_all_rows(run_v2: tailbind.RunSummary) -> None:
    test, criteria = run_v2.metrics["test"], run_v2.metrics["criteria"]
    assert test["censored"]["n"] > 0
    assert criteria["rows"] == "all"
    assert criteria["levels"]["minimum"][1]["value"] == test["rmse"]
    assert "intervals" not in test["measured"]
    text = (run_v2.path / "evaluation_results_v2.txt").read_text()
    assert "Judged on" not in text
    assert "floors counted as measured" not in text


def test_what_takes_bounds_is_judged_by_all_rows_where_none_is_marked(simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).filter(pl.col("relation") == "=").write_csv(tmp_path / "measured.csv")
    run = tailbind.train(
        tmp_path / "measured.csv", recipe="v2-tobit", out=tmp_path / "run", overrides=TINY, device="cpu"
    )
    assert run.metrics["criteria"]["rows"] == "all"
    assert "Judged on" not in (run.path / "evaluation_results_v2-tobit.txt").read_text()


def test_a_fixed_noise_is_reported_as_given(simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*TINY, "loss.sigma=0.4", "loss.weights=inverse", "model.members=2"]
    run = tailbind.train(simulated_csv, recipe="v2-tobit", out=tmp_path / "run", overrides=changes, device="cpu")
    assert run.metrics["sigma"] == {
        "learned": False,
        "best_epoch": pytest.approx([0.4, 0.4]),
        "final": pytest.approx([0.4, 0.4]),
    }
    assert "Noise of the labels: 0.400 pKd, given" in (run.path / "evaluation_results_v2-tobit.txt").read_text()


def test_a_run_at_a_given_noise_is_diagnosed_by_it(
    simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Likelihood | None] = []

    def spy(*args: object, likelihood: Likelihood | None = None, **kwargs: object) -> list[Finding]:
        seen.append(likelihood)
        return diagnose(*args, likelihood=likelihood, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluating, "diagnose", spy)
    for name, recipe, *changes in (
        ("given", "v2-tobit", "loss.sigma=0.3"),
        ("weighted", "v2-tobit", "loss.sigma=0.3", "loss.weights=inverse"),
        ("learned", "v2-tobit", "loss.sigma=0.0"),
        ("squared", "v2"),
    ):
        out = tmp_path / name
        tailbind.train(simulated_csv, recipe=recipe, out=out, overrides=[*TINY, *changes], device="cpu")
    given, weighted, learned, squared = seen
    table = tailbind.read_table(simulated_csv)
    part = pl.read_parquet(tmp_path / "given" / "split.parquet")["part"].to_numpy()
    shares = [float((table.relation[part == name] == "=").mean()) for name in ("train", "val")]
    assert given == Likelihood(pytest.approx(0.3), pytest.approx(shares))  # type: ignore[arg-type]
    assert weighted is not None
    # Under weights the training rows weigh 1 on average, measured and marked ones together.
    assert 0 < weighted.measured[0] < 1
    assert weighted.measured[0] != pytest.approx(shares[0], rel=0.01)
    assert (learned, squared) == (Likelihood(), None)


def test_how_marked_labels_are_taken_is_said(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for recipe, sentence in (("v2", "this recipe fits them as if measured"), ("v2-tobit", "loss takes them as bounds")):
        tailbind.train(simulated_csv, recipe=recipe, out=tmp_path / recipe, overrides=TINY, device="cpu")
        printed = " ".join(capsys.readouterr().out.split())
        assert sentence in printed
        # A likelihood starts at the labels, so it needs no epochs to reach them.
        assert ("epochs are few" in printed) == (recipe == "v2")
    labels = run_v2.metrics["labels"]
    train = pl.read_parquet(run_v2.path / "split.parquet")["part"].to_numpy() == "train"
    marked = tailbind.read_table(simulated_csv).relation != "="
    assert labels["fitted_as_measured"] == (train & marked).sum() > 0
    assert labels["taken_as_bounds"] == 0
    text = (run_v2.path / "evaluation_results_v2.txt").read_text()
    assert f"This recipe fitted {labels['fitted_as_measured']} training labels marked < or > as if measured" in text
    assert "sigma" not in run_v2.metrics


def test_measured_and_censored_rows_are_shown_apart(run_v2: tailbind.RunSummary) -> None:
    test = run_v2.metrics["test"]
    text, page = (run_v2.path / name for name in ("evaluation_results_v2.txt", "report.html"))
    assert "Measured and censored labels" in text.read_text()
    assert "Measured and censored labels" in page.read_text()
    assert f"{test['censored']['concordance_pairs']:,} pairs" in text.read_text()
    assert 0.5 < test["censored"]["concordance"] <= 1
    ridge = run_v2.metrics["baselines"]["ridge"]
    assert (ridge["measured"]["n"], ridge["censored"]["n"]) == (test["measured"]["n"], test["censored"]["n"])


def test_a_table_without_censored_rows_shows_none(simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).filter(pl.col("relation") == "=").write_csv(tmp_path / "measured.csv")
    run = tailbind.train(tmp_path / "measured.csv", recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    censored = run.metrics["test"]["censored"]
    assert (censored["n"], censored["one_sided_rmse"]) == (0, None)
    assert censored["concordance_pairs"] > 0
    assert "Measured and censored" not in (run.path / "evaluation_results_v2.txt").read_text()


def test_too_few_epochs_to_reach_the_labels_are_warned_of(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "few", overrides=TINY, device="cpu")
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"2 epochs are few for 7\d\d rows", printed)
    assert "Try --set training.epochs=455." in printed  # 0.5 / 1e-4 / 11 steps
    tailbind.train(
        simulated_csv, recipe="v2", out=tmp_path / "fast", overrides=[*TINY, "optimizer.lr=0.1"], device="cpu"
    )
    assert "epochs are few" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def unmarked_run(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    """A run on the simulated table with its floor taken for measured."""
    folder = tmp_path_factory.mktemp("unmarked")
    pl.read_csv(simulated_csv).with_columns(relation=pl.lit("=")).write_csv(folder / "unmarked.csv")
    return tailbind.train(folder / "unmarked.csv", recipe="v2", out=folder / "run", overrides=TINY, device="cpu")


def test_the_audit_is_in_the_run(unmarked_run: tailbind.RunSummary, simulated_csv: Path) -> None:
    table = tailbind.read_table(simulated_csv)
    n_floor = int((table.relation == "<").sum())
    document = json.loads((unmarked_run.path / "audit.json").read_text())
    assert document["n_rows"] == len(table)
    (floor,) = (entry for entry in document["findings"] if entry["rule"] == "floor")
    assert (floor["source"], floor["n_rows"], floor["numbers"]["value"]) == ("family_0", n_floor, 6.5)
    assert set(document["skipped"]) >= {"swapped_chains", "single_chain", "not_an_antibody"}
    brief = unmarked_run.metrics["audit"]
    assert 20 < brief["suspected_floors_in_training"] == n_training_floors(unmarked_run, table) < n_floor
    assert {key: brief[key] for key in ("errors", "warnings", "notes")} == {
        key: document[key] for key in ("errors", "warnings", "notes")
    }
    assert [set(entry) for entry in brief["findings"]] == [{"severity", "rule", "source", "n_rows"}] * len(
        document["findings"]
    )


def n_training_floors(run: tailbind.RunSummary, table: AffinityTable) -> int:
    """Return how many of the training rows are at the table's floor."""
    training = pl.read_parquet(run.path / "split.parquet").filter(pl.col("part") == "train")["row_id"]
    floors = table.frame.filter(pl.col("relation") == "<")["row_id"]
    return len(set(training) & set(floors))


def test_training_takes_every_row_whatever_the_audit_says(
    unmarked_run: tailbind.RunSummary, run_v2: tailbind.RunSummary
) -> None:
    split, other = (pl.read_parquet(run.path / "split.parquet") for run in (unmarked_run, run_v2))
    assert split.select("row_id", "part").equals(other.select("row_id", "part"))
    assert unmarked_run.metrics["labels"]["fitted_as_measured"] == 0


def test_the_report_shows_what_the_audit_found(
    unmarked_run: tailbind.RunSummary, run_v2: tailbind.RunSummary, simulated_csv: Path
) -> None:
    n_floor = n_training_floors(unmarked_run, tailbind.read_table(simulated_csv))
    for name in ("evaluation_results_v2.txt", "report.html"):
        page = (unmarked_run.path / name).read_text()
        assert "What the audit found in the table" in page
        assert f"{n_floor} more look like a detection limit, unmarked, and were fitted as measured." in page
        marked = (run_v2.path / name).read_text()
        assert "What the audit found in the table" in marked
        assert "look like a detection limit" not in marked
    assert run_v2.metrics["audit"]["suspected_floors_in_training"] == 0


def test_findings_are_announced_before_training(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.read_csv(simulated_csv).with_columns(relation=pl.lit("="))
    frame.write_csv(tmp_path / "unmarked.csv")
    tailbind.train(tmp_path / "unmarked.csv", recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "Audit of " in line)
    assert re.search(r"Warning: Audit of 1,\d+ rows from 3 sources: .*\d warnings?\. See .*audit\.json", line)
    assert printed.index(line) < printed.index("epoch 1/2")
