"""From sequences alone: training, prediction in a new process, evaluation, comparison, the ladder."""

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
from tailbind.errors import FeatureError
from tailbind.features.sites import FittedSites
from tailbind.predictor import load
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import Landscape, simulate
from tailbind.workflows import featurising, journal
from tailbind.workflows.laddering import BASELINES, RUNGS, ladder

SMALL = (
    "features.sites.numbering=false",
    "model.hidden_dims=[32, 16]",
    "optimizer.lr=0.01",
    "loss.kind=mse",
    "loss.weights=none",
    "loss.extreme_factor=1.0",
    "training.epochs=30",
    "training.batch_size=32",
)
INTERVALS = ("pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11")
NEAR = ("antibody_identity", "antigen_identity", "domain")
HEAVY, LIGHT = "antibody_heavy", "antibody_light"


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """500 rows of three families, with features; every 10th without a light chain, 7 without heavy and light."""
    frame = simulate(Landscape(n_rows=500, n_features=6, n_families=3, missing=0)).drop("true_pkd")
    row = pl.int_range(pl.len())
    return frame.with_columns(
        pl.when(row < 7).then(pl.lit("")).otherwise(pl.col(HEAVY)).alias(HEAVY),
        pl.when((row < 7) | (row % 10 == 0)).then(pl.lit("")).otherwise(pl.col(LIGHT)).alias(LIGHT),
    )


@pytest.fixture(scope="module")
def data(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sequences") / "sequences.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def printed() -> StringIO:
    return StringIO()


@pytest.fixture(scope="module")
def run(data: Path, printed: StringIO, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    return trained(data, tmp_path_factory.mktemp("runs") / "v2-sequence", printed)


def trained(data: Path, out: Path, printed: StringIO | None = None, **options: object) -> tailbind.RunSummary:
    console = Console(file=printed or StringIO(), width=200)
    options = {"recipe": "v2-sequence", "overrides": SMALL, "device": "cpu", **options}
    return tailbind.train(data, out=out, console=console, **options)  # type: ignore[arg-type]


def predicted(run: tailbind.RunSummary, frame: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, list[str]]:
    """Return the predictions of a run for a table, and what was said."""
    said: list[str] = []
    frame.write_csv(folder / "new.csv")
    return tailbind.predict(run.path, folder / "new.csv", device="cpu", notify=said.append), said


# --- training ----------------------------------------------------------------------------------------


def test_training_says_what_the_blocks_gave_and_whom_it_left_out(
    run: tailbind.RunSummary, printed: StringIO, data: Path
) -> None:
    predictor = load(run.path, "cpu")
    table = predictor.read(data)
    sites, composition = (block.transform(table) for block in predictor.features.blocks.values())
    assert sites.n_sparse > 20
    sizes = f"sites {sites.n_sparse:,} sparse and {len(sites.names):,} dense columns"
    assert f"Features: {sizes}; composition {len(composition.names):,} columns.\n" in printed.getvalue()
    assert "Dropped 7 rows: no heavy or light sequence.\n" in printed.getvalue()
    n_dense = len(sites.names) + len(composition.names)
    assert f"Network: {n_dense:,} dense + 64 summed embeddings of {sites.n_sparse:,} sparse" in printed.getvalue()
    assert sum(run.metrics[part]["n"] for part in ("train", "validation", "test")) == 493


def test_it_learns(run: tailbind.RunSummary) -> None:
    test, baselines = run.metrics["test"], run.metrics["baselines"]
    assert test["rmse"] < 0.9 * baselines["training_mean"]["rmse"]
    assert baselines["ridge"]["rmse"] < 0.9 * baselines["source_mean"]["rmse"]


def test_what_training_never_saw_is_silent_in_the_network(run: tailbind.RunSummary, data: Path) -> None:
    predictor = load(run.path, "cpu")
    table = predictor.read(data)
    features = predictor.compute_features(table)
    split = pl.read_parquet(run.path / "split.parquet").filter(pl.col("part") == "train")["row_id"]
    train = table.frame["row_id"].is_in(split.implode()).arg_true().to_numpy()
    chosen = features.take(train)
    (module,) = predictor.model.members
    first, embedding = module.layers[0].weight, module.embedding.weight
    assert chosen.sparse is not None
    absent = (chosen.dense == 0).all(axis=0)
    assert absent.sum() > 10
    silent = (first == 0).all(dim=0).numpy()[: len(absent)]
    np.testing.assert_array_equal(silent, absent)
    np.testing.assert_array_equal((embedding == 0).all(dim=1).numpy(), chosen.sparse.sum(axis=0) == 0)


def test_columns_of_the_table_are_left_as_they_are(data: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(data, infer_schema_length=None).with_columns(esm2_pca_6=pl.lit(0.0))
    frame.write_csv(tmp_path / "zero.csv")
    changes = (*SMALL[1:3], "training.epochs=1")
    plain = trained(tmp_path / "zero.csv", tmp_path / "run", recipe="v2", overrides=changes)
    (module,) = load(plain.path, "cpu").model.members
    assert module[0].weight[:, 6].abs().min() > 0


def test_a_run_that_was_stopped_goes_on_exactly(
    run: tailbind.RunSummary, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def stop(path: Path, line: str) -> None:
        if line.startswith("3,"):
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_append", stop)
        with pytest.raises(StoppedError):
            trained(data, tmp_path / "run")
    with monkeypatch.context() as patch:
        # The features are those it began with: nothing is fitted again.
        patch.setattr(featurising.FeaturePipeline, "fit", None)
        resumed = trained(data, tmp_path / "run", resume=True)
    name = "final_model_v2-sequence.pth"
    one, other = (
        torch.load(path / name, weights_only=True)["model"]["members"][0] for path in (run.path, resumed.path)
    )
    assert set(one) == set(other)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert resumed.metrics["test"] == run.metrics["test"]


def test_force_begins_with_features_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [*SMALL, "training.epochs=1"]
    first = trained(data, tmp_path / "run", overrides=changes)
    (first.path / "resume.pth").write_bytes(b"of an earlier run")
    (first.path / "DONE").unlink()
    again = trained(data, tmp_path / "run", overrides=[*changes, "features.composition=false"], force=True)
    assert list(load(again.path, "cpu").features.blocks) == ["sites"]


def test_blocks_of_both_kinds_stand_side_by_side(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "both.toml"
    recipe.write_text('extends = "v2"\n[features.sites]\nnumbering = false\n', encoding="utf-8")
    said = StringIO()
    both = trained(data, tmp_path / "run", said, recipe=recipe, overrides=(*SMALL[1:], "training.epochs=1"))
    assert "Features: columns 6 columns; sites " in said.getvalue()
    assert "Dropped 7 rows: no heavy or light sequence." in said.getvalue()
    assert load(both.path, "cpu").model.n_features > 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.exclude(HEAVY, LIGHT), r"bad.csv must have antibody sequences in a column heavy or light \(or vh, "),
        (
            pl.when(pl.int_range(pl.len()) == 9)
            .then(pl.lit("GAGGTGCAGCTG" * 20))
            .otherwise(pl.col(HEAVY))
            .alias(HEAVY),
            r"bad.csv: antibody_heavy must hold protein sequences; got DNA or RNA \(line 11\)\. Translate them\.",
        ),
    ],
)
def test_a_table_it_cannot_be_computed_from_is_refused_and_leaves_nothing(
    frame: pl.DataFrame, tmp_path: Path, change: pl.Expr, message: str
) -> None:
    bad = (
        frame.with_columns(change)
        if change.meta.output_name(raise_if_undetermined=False) == HEAVY
        else frame.select(change)
    )
    bad.write_csv(tmp_path / "bad.csv")
    with pytest.raises(FeatureError, match=message):
        trained(tmp_path / "bad.csv", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_row_that_gets_no_features_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FittedSites.transform

    def transform(self: FittedSites, table: AffinityTable) -> Features:
        features = honest(self, table)
        features.dense[table.frame["row_id"].is_in(["8", "11"]).to_numpy()] = np.nan
        return features

    monkeypatch.setattr(FittedSites, "transform", transform)
    with pytest.raises(FeatureError, match=r"must give every row its features; 2 rows get none, such as row_id 8, 11"):
        trained(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- predicting --------------------------------------------------------------------------------------


def test_a_new_process_predicts_from_sequences_what_training_predicted(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame.select(HEAVY, LIGHT, "antigen").write_csv(tmp_path / "sequences.csv")
    out = tmp_path / "predicted.csv"
    command = ["predict", str(run.path), str(tmp_path / "sequences.csv"), "--out", str(out), "--device", "cpu"]
    done = subprocess.run([sys.executable, "-m", "tailbind", *command], check=True, capture_output=True, text=True)
    again = pl.read_csv(out)
    assert again.columns == ["row_id", "predicted_pkd", "predicted_kd_nm", "affinity_bin", *INTERVALS, "unseen", *NEAR]
    in_training = pl.read_csv(run.path / "test_predictions_v2-sequence.csv")
    both = in_training.join(again, on="row_id", suffix="_again")
    assert len(both) == len(in_training) > 50
    np.testing.assert_allclose(both["predicted_pkd"], both["predicted_pkd_again"], atol=1e-5)
    assert "7 of them without features and left empty" in done.stdout.replace("\n", " ")
    assert again.head(7).drop("row_id").null_count().row(0) == (7,) * 12


def test_order_company_and_case_change_no_prediction(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame = frame.with_row_index("row_id").drop("pKd", "relation")
    whole, _ = predicted(run, frame, tmp_path)
    shuffled, _ = predicted(run, frame.sample(fraction=1, shuffle=True, seed=1), tmp_path)
    few, _ = predicted(run, frame[100:103].with_columns(pl.col(HEAVY).str.to_lowercase()), tmp_path)
    for other in (shuffled, few):
        both = other.join(whole, on="row_id", suffix="_whole")
        assert len(both) == len(other)
        np.testing.assert_allclose(both["predicted_pkd"].to_numpy(), both["predicted_pkd_whole"].to_numpy(), atol=1e-5)
        assert both["unseen"].equals(both["unseen_whole"], check_names=False, null_equal=True)


def test_what_training_never_saw_is_told_row_by_row(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    test = pl.read_parquet(run.path / "split.parquet").filter(pl.col("part") == "train")["row_id"].cast(pl.Int64)
    known = frame[test.to_list()].filter(pl.col(HEAVY) != "")[:20]
    assert predicted(run, known, tmp_path)[0]["unseen"].null_count() == 20
    assert not any("never saw" in line for line in predicted(run, known, tmp_path)[1])
    changed = known[3, HEAVY][:1].replace("E", "W") + known[3, HEAVY][1:]
    new = known.with_columns(
        pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(changed)).otherwise(pl.col(HEAVY)).alias(HEAVY)
    )
    frame, said = predicted(run, new, tmp_path)
    assert frame["unseen"].is_not_null().arg_true().to_list() == [3]
    assert "heavy" in frame["unseen"][3]
    assert frame["predicted_pkd"].null_count() == 0
    (warning,) = [line for line in said if "never saw" in line]
    assert warning == (
        f"Warning: 1 of 20 rows have something that training never saw, such as {frame['unseen'][3]} (row_id 3); "
        "trust their predictions less. See the column unseen."
    )
    new.write_csv(tmp_path / "measured.csv")
    result = tailbind.evaluate(run.path, tmp_path / "measured.csv", out=tmp_path / "out", device="cpu")
    assert result["n_unseen"] == 1
    assert "Rows with something training never saw: 1" in (tmp_path / "out" / "evaluation.txt").read_text()


def test_evaluate_on_the_training_table_gives_the_run_s_figures(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    rows = pl.read_csv(run.path / "test_predictions_v2-sequence.csv")["row_id"].to_list()
    frame.with_row_index("row_id")[rows].write_csv(tmp_path / "test.csv")
    result = tailbind.evaluate(run.path, tmp_path / "test.csv", device="cpu")
    assert result["test"]["rmse"] == pytest.approx(run.metrics["test"]["rmse"], abs=1e-5)
    assert result["n_without_features"] == 0


def test_a_run_on_columns_looks_for_nothing_unseen(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    assert "unseen" not in tailbind.predict(run_v2.path, simulated_csv).columns
    assert tailbind.evaluate(run_v2.path, simulated_csv)["n_unseen"] is None


# --- beside other runs -------------------------------------------------------------------------------


def test_runs_on_sequences_and_on_columns_are_compared(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame.filter(pl.col(HEAVY) != "").write_csv(tmp_path / "both.csv")
    changes = ("training.epochs=1", "model.hidden_dims=[8]", "split.kind=pair")
    sequences = trained(tmp_path / "both.csv", tmp_path / "s", overrides=(*changes, SMALL[0]))
    columns = trained(tmp_path / "both.csv", tmp_path / "c", recipe="v2", overrides=changes)
    comparison = tailbind.compare([sequences.path, columns.path])
    assert list(comparison.names) == ["v2-sequence", "v2"]
    assert comparison.n == sequences.metrics["test"]["n"]


def test_the_ladder_is_climbed_on_sequences(tmp_path: Path) -> None:
    families = simulate(Landscape(n_rows=300, n_features=6, n_families=40, missing=0))
    families.select(pl.exclude("^esm2_pca_.*$")).write_csv(tmp_path / "families.csv")
    changes = ("training.epochs=1", "model.hidden_dims=[8]", SMALL[0])
    result = ladder(
        tmp_path / "families.csv", recipe="v2-sequence", out=tmp_path / "ladder", overrides=changes, device="cpu",
        console=Console(file=StringIO()),
    )  # fmt: skip
    assert result.rungs == list(RUNGS)
    assert {step.predictor for step in result.steps} == {"v2-sequence", *BASELINES}
