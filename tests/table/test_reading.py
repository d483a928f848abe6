import gzip
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.errors import FeatureError, TableError
from tailbind.scale import delta_g_from_pkd
from tailbind.table.reading import NO_FEATURES, NO_LABEL, read_table
from tailbind.table.schema import LABELS, SPELLINGS, AffinityTable

Write = Callable[..., Path]
WIDTH = 5
BLOCK = [f"e_{index}" for index in range(WIDTH)]
#: Feature cells of a row, and the header of the block.
CELLS = "0.5,1,2,3,4"
HEAD = ",".join(BLOCK)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines, each given without its feature cells, as a CSV of that name."""

    def write(header: str, *rows: str, name: str = "t.csv", features: bool = True) -> Path:
        lines = [f"{header},{HEAD}", *(f"{row},{CELLS}" for row in rows)] if features else [header, *rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


def same(left: AffinityTable, right: AffinityTable) -> None:
    """Fail unless two tables say the same, apart from their files' names."""
    assert left.frame.drop("file").equals(right.frame.drop("file"))
    np.testing.assert_array_equal(left.features, right.features)
    assert left.feature_names == right.feature_names


# --- formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["t.tsv", "t.txt", "t.parquet", "t.csv.gz", "t.tsv.gz", "semicolons.csv", "T.CSV"])
def test_every_format_gives_the_same_table(simulated_csv: Path, tmp_path: Path, form: str) -> None:
    frame = pl.read_csv(simulated_csv).head(60)
    reference, other = tmp_path / "reference.csv", tmp_path / form
    frame.write_csv(reference)
    separator = {"tsv": "\t", "txt": "\t"}.get(form.removesuffix(".gz").split(".")[1], ",")
    if form.endswith(".parquet"):
        frame.write_parquet(other)
    elif form.endswith(".gz"):
        other.write_bytes(gzip.compress(frame.write_csv(separator=separator).encode()))
    else:
        frame.write_csv(other, separator=";" if form.startswith("semicolons") else separator)
    expected, got = read_table(reference), read_table(other)
    same(without_truth(expected), without_truth(got))
    assert len(expected) > 40
    assert got.report.dropped == expected.report.dropped
    assert got.frame["file"].unique().to_list() == [form]


def without_truth(table: AffinityTable) -> AffinityTable:
    """Leave out the column that is not canonical: it keeps the file's type, text in a CSV, numbers in Parquet."""
    return replace(table, frame=table.frame.drop("true_pkd"))


def test_the_seeds_table_reads_as_it_was_written(simulated_csv: Path, table: AffinityTable) -> None:
    frame = pl.read_csv(simulated_csv)
    kept = frame.filter(pl.col("esm2_pca_0").is_not_null())
    assert 0.1 < 1 - len(kept) / len(frame) < 0.2
    assert table.report.n_read == 1200
    assert table.report.dropped == {NO_LABEL: 0, NO_FEATURES: 1200 - len(kept)}
    assert table.report.files == ("simulated.csv",)
    np.testing.assert_array_equal(table.pkd, kept["pKd"].to_numpy())
    np.testing.assert_allclose(table.features, kept.select(pl.col("^esm2_pca_.*$")).to_numpy(), rtol=1e-6)
    assert table.relation.tolist() == kept["relation"].to_list()
    assert table.source.tolist() == kept["database_source"].to_list()
    assert table.frame["heavy"].to_list() == kept["antibody_heavy"].to_list()
    assert table.feature_names == tuple(f"esm2_pca_{index}" for index in range(12))
    assert table.frame["row_id"].to_list() == [
        str(row) for row in frame.with_row_index("row").filter(pl.col("esm2_pca_0").is_not_null())["row"]
    ]
    report = "\n".join(table.report.lines())
    assert "Read 1,200 rows from simulated.csv." in report
    assert "pKd as pkd" in report
    assert "antibody_heavy as heavy" in report
    assert f"Dropped {1200 - len(kept)} rows: features are empty." in report


def test_features_are_float32_and_row_major(table: AffinityTable) -> None:
    assert table.features.dtype == np.float32
    assert table.features.flags.c_contiguous
    assert np.isfinite(table.features).all()
    assert len(table) == len(table.features) == len(table.pkd)


def test_byte_order_mark_line_endings_and_quotes_of_spreadsheets(tmp_path: Path) -> None:
    text = f'pKd,{HEAD},name\r\n7.5,{CELLS},"a, b"\r\n'
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    table = read_table(tmp_path / "t.csv")
    assert table.pkd.tolist() == [7.5]
    assert table.frame["name"].to_list() == ["a, b"]


# --- spellings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canonical", "spelling"), [(name, spelling) for name, words in SPELLINGS.items() for spelling in words]
)
def test_every_spelling_is_found(write: Write, canonical: str, spelling: str) -> None:
    value = ">" if canonical == "relation" else "QVQ"
    table = read_table(write(f"pKd,{spelling.upper()}", f"7,{value}"))
    assert table.frame[canonical].to_list() == [value]
    assert table.report.columns[canonical] == spelling.upper()


@pytest.mark.parametrize("header", ["Antigen Sequence", "antigen-sequence", " antigen_sequence ", "antigen.sequence"])
def test_spellings_differ_in_case_and_punctuation(write: Write, header: str) -> None:
    assert read_table(write(f"pKd,{header}", "7,mkv")).frame["antigen"].to_list() == ["MKV"]


def test_sequences_are_capitals_and_absent_columns_empty(write: Write) -> None:
    frame = read_table(write("pKd,vh,source", "7, qvq ,Set A")).frame
    assert frame["heavy"].to_list() == ["QVQ"]
    assert frame["source"].to_list() == ["Set A"]
    assert frame.select("light", "antigen", "antigen_name", "group").row(0) == ("", "", "", "")


def test_other_columns_survive_under_their_own_names(write: Write) -> None:
    table = read_table(write("pKd,Assay type,note", "7,SPR,", "8,BLI,x"))
    assert table.frame["Assay type"].to_list() == ["SPR", "BLI"]
    assert table.frame["note"].to_list() == [None, "x"]


def test_row_ids_of_the_file_are_kept(write: Write) -> None:
    assert read_table(write("row_id,pKd", "b,7", "a,8")).frame["row_id"].to_list() == ["b", "a"]


# --- labels and units --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value", "pkd"),
    [
        ("pKd", "7.25", 7.25),
        ("p_Kd", "7.25", 7.25),
        ("Kd_nM", "1", 9.0),
        ("kd_nm", "1e3", 6.0),
        ("Kd (nM)", "10", 8.0),
        ("Kd", "1e-9", 9.0),
        ("kd_m", "1e-9", 9.0),
        ("kd_uM", "1", 6.0),
        ("Kd (\N{MICRO SIGN}M)", "1", 6.0),
        ("Kd (\N{GREEK SMALL LETTER MU}M)", "1", 6.0),
        ("Kd_pM", "1", 12.0),
        ("Kd_mM", "1", 3.0),
        ("delta_g", "-12.2782", 9.0),
        ("dG", "-12.2782", 9.0),
    ],
)
def test_labels_by_hand(write: Write, header: str, value: str, pkd: float) -> None:
    table = read_table(write(header, value))
    assert table.pkd == pytest.approx([pkd], abs=1e-4)
    assert table.relation.tolist() == ["="]
    assert table.report.columns["pkd"] == header


@pytest.mark.parametrize("spelling", LABELS)
def test_every_label_spelling_is_known_and_converted(write: Write, spelling: str) -> None:
    scale, unit = LABELS[spelling]
    value = {"pkd": 8.0, "kd": 10 / {"M": 1e9, "mM": 1e6, "uM": 1e3, "nM": 1, "pM": 1e-3, "fM": 1e-6}.get(unit, 1)}.get(
        scale, float(delta_g_from_pkd(8.0))
    )
    table = read_table(write(spelling, repr(value)))
    assert table.pkd == pytest.approx([8.0])
    assert any(f"Converted {spelling}" in note for note in table.report.notes) == (scale != "pkd")


def test_pkd_is_taken_before_kd(write: Write) -> None:
    table = read_table(write("Kd_nM,pKd", "1,7"))
    assert table.pkd.tolist() == [7.0]
    assert table.frame["Kd_nM"].to_list() == ["1"]


def test_delta_g_uses_each_rows_temperature(write: Write) -> None:
    cold, warm = float(delta_g_from_pkd(8.0, 280.0)), float(delta_g_from_pkd(8.0, 310.0))
    room = float(delta_g_from_pkd(8.0))
    rows = (f"{cold!r},280", f"{warm!r},310", f"{room!r},")
    table = read_table(write("dG,Temperature (K)", *rows))
    assert table.pkd == pytest.approx([8.0, 8.0, 8.0])
    assert "at the temperature in Temperature (K)" in " ".join(table.report.notes)
    without = read_table(write("dG", repr(cold)))
    assert without.pkd == pytest.approx([8.0 * 280 / 298.15])
    assert "298.15 K" in " ".join(without.report.notes)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("25", r"t\.csv: temperature must be in kelvin \(250–400\); got 25 \(line 3\)"),
        ("inf", r"t\.csv: temperature must be in kelvin \(250–400\); got inf \(line 3\)"),
        ("warm", r"t\.csv: temperature must hold numbers; got 'warm' \(line 3\)"),
    ],
)
def test_a_temperature_that_cannot_be_is_refused(write: Write, cell: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_table(write("dG,temperature", "-9,298", f"-9,{cell}"))


def test_a_kd_without_unit_that_looks_like_nanomolar_is_refused(write: Write) -> None:
    with pytest.raises(TableError, match=r"t\.csv: Kd must be in mol/L; got a median of 8\.5, .* \(Kd_nM, Kd_uM"):
        read_table(write("Kd", "5", "12"))
    assert "Warning" not in " ".join(read_table(write("Kd", "1e-9")).report.notes)


# --- relations ---------------------------------------------------------------------------------------


def test_a_relation_column_in_every_spelling(write: Write) -> None:
    rows = ["7,", "7,=", "7,==", "7,<", "7,<=", "7,≤", "7,>", "7,>=", "7,≥", "7, > "]
    assert read_table(write("pKd,relation", *rows)).relation.tolist() == [*"===", *"<<<", *">>>>"]


def test_marks_in_cells_and_kd_points_the_other_way(write: Write) -> None:
    # A Kd above 10 µM is a pKd below 5.
    table = read_table(write("Kd_nM", "<5", "> 10000", "≤1", ">=1", "10"))
    assert table.pkd == pytest.approx([9 - np.log10(5), 5.0, 9.0, 9.0, 8.0])
    assert table.relation.tolist() == [">", "<", ">", "<", "="]
    assert "Turned < and > round" in " ".join(table.report.notes)
    assert read_table(write("pKd", "<5", ">10", "7")).relation.tolist() == ["<", ">", "="]


def test_a_relation_beside_a_kd_or_delta_g_points_the_other_way(write: Write) -> None:
    assert read_table(write("Kd_nM,relation", "10000,>", "1,<", "1,=")).relation.tolist() == ["<", ">", "="]
    assert read_table(write("dG,qualifier", "-7,>", "-14,<")).relation.tolist() == ["<", ">"]
    assert not any("Turned" in note for note in read_table(write("Kd_nM", "1")).report.notes)


def test_the_mark_in_a_cell_counts_before_the_relation_column(write: Write) -> None:
    assert read_table(write("pKd,relation", "<5,=", "5,<", ">9,")).relation.tolist() == ["<", "<", ">"]


def test_an_unknown_relation_is_located(write: Write) -> None:
    rows = ["7,=", "7,~", "7,about", "7,~", "7,~"]
    with pytest.raises(
        TableError,
        match=r"t\.csv: Relation must be one of = < > .*got '~' \(lines 3, 4, 5 and 1 more\)\. Correct the cells",
    ):
        read_table(write("pKd,Relation", *rows))


# --- several files -----------------------------------------------------------------------------------


def test_several_files_are_stacked_with_their_sources(write: Write) -> None:
    seeds = write("pKd,dataset", "7,A", "8,B", name="seeds.csv")
    extra = write("Kd_nM", "0.001", name="strong_binders.csv")
    table = read_table([seeds, extra])
    assert table.pkd == pytest.approx([7.0, 8.0, 12.0])
    assert table.source.tolist() == ["A", "B", "strong_binders"]
    assert table.frame["file"].to_list() == ["seeds.csv", "seeds.csv", "strong_binders.csv"]
    assert table.report.files == ("seeds.csv", "strong_binders.csv")
    assert table.report.n_read == 3
    assert table.frame["row_id"].n_unique() == 3
    assert table.frame["row_id"].to_list()[:2] == ["0", "1"]


def test_the_order_of_files_does_not_matter_for_ids_of_their_own(write: Write) -> None:
    own = write("row_id,pKd", "x,7", "y,8", name="own.csv")
    numbered = write("pKd", "6", name="numbered.csv")
    assert set(read_table([own, numbered]).frame["row_id"]) >= {"x", "y"}
    assert set(read_table([numbered, own]).frame["row_id"]) >= {"x", "y"}


def test_columns_of_several_files_are_matched_by_name(tmp_path: Path) -> None:
    first = pl.DataFrame({"pKd": [7.0], **{name: [float(i)] for i, name in enumerate(BLOCK)}, "note": ["x"]})
    second = first.select(*reversed(BLOCK), "pKd").with_columns(only=pl.lit(1))
    first.write_csv(tmp_path / "a.csv")
    second.write_parquet(tmp_path / "b.parquet")
    table = read_table([tmp_path / "a.csv", tmp_path / "b.parquet"])
    assert table.feature_names == tuple(BLOCK)
    np.testing.assert_array_equal(table.features[0], table.features[1])
    assert table.features.flags.c_contiguous
    assert table.frame["note"].to_list() == ["x", None]


def test_files_with_other_features_are_refused(write: Write, tmp_path: Path) -> None:
    first = write("pKd", "7", name="a.csv")
    frame = pl.read_csv(first).with_columns(e_5=pl.lit(1.0))
    frame.write_csv(tmp_path / "b.csv")
    with pytest.raises(FeatureError, match=r"b\.csv and a\.csv must have the same feature columns; e_5 is in one only"):
        read_table([first, tmp_path / "b.csv"])


def test_drops_of_several_files_are_added(write: Write) -> None:
    first, second = write("pKd", "7", "", name="a.csv"), write("pKd", "", "", "8", name="b.csv")
    assert read_table([first, second]).report.dropped == {NO_LABEL: 3, NO_FEATURES: 0}


def test_one_bad_file_among_several_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"absent\.csv must be a CSV, TSV or Parquet file; there is no such file"):
        read_table([write("pKd", "7"), tmp_path / "absent.csv"])


# --- the feature block -------------------------------------------------------------------------------


def test_columns_are_put_in_numeric_order(tmp_path: Path) -> None:
    names = [f"e_{index}" for index in range(12)]
    shuffled = [names[index] for index in (10, 2, 0, 11, 9, 1, 8, 3, 7, 4, 6, 5)]
    frame = pl.DataFrame({"pKd": [7.0], **{name: [float(name[2:])] for name in shuffled}})
    frame.write_csv(tmp_path / "t.csv")
    table = read_table(tmp_path / "t.csv")
    assert table.feature_names == tuple(names)
    np.testing.assert_array_equal(table.features[0], np.arange(12))


def test_rows_without_label_or_features_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = [
        f"pKd,{HEAD}",
        f"7,{CELLS}",
        f",{CELLS}",
        f"NA,{CELLS}",
        "8,,,,,",
        "8,1,,3,4,5",
        "8,nan,2,3,4,5",
        ",,,,,",
        f"9,{CELLS}",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = read_table(tmp_path / "t.csv")
    assert table.pkd.tolist() == [7.0, 9.0]
    assert table.frame["row_id"].to_list() == ["0", "7"]
    assert table.report.dropped == {NO_LABEL: 3, NO_FEATURES: 3}
    assert "Dropped 3 rows: no pKd." in table.report.lines()
    assert len(table) + sum(table.report.dropped.values()) == table.report.n_read


def test_incomplete_rows_may_be_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"pKd,{HEAD}\n7,{CELLS}\n8,1,,3,4,5\n,{CELLS}\n")
    table = read_table(tmp_path / "t.csv", keep_incomplete=True)
    assert table.pkd.tolist() == [7.0, 8.0]
    assert np.isnan(table.features).tolist() == [[False] * 5, [False, True, False, False, False]]
    assert table.report.dropped == {NO_LABEL: 1}


def test_labels_need_not_be_looked_at(write: Write) -> None:
    table = read_table(write("heavy,pKd", "QVQ,rubbish", "EVQ,"), labels=False)
    assert len(table) == 2
    assert table.frame["pkd"].null_count() == 2
    assert table.relation.tolist() == ["=", "="]
    assert table.features.shape == (2, WIDTH)
    assert len(read_table(write("heavy", "QVQ"), labels=False)) == 1


def test_features_need_not_be_read(write: Write) -> None:
    table = read_table(write("pKd,heavy", "7,QVQ", features=False), feature_prefix=None)
    assert table.features.shape == (1, 0)
    assert table.report.dropped == {NO_LABEL: 0}
    assert read_table(write("pKd", "7"), feature_prefix=None).features.shape == (1, 0)


@pytest.mark.parametrize(("missing", "numbers"), [(73, range(150)), (3, range(1, 9)), (1, range(8))])
def test_a_gap_in_the_block_is_named(tmp_path: Path, missing: int, numbers: range) -> None:
    names = [f"esm2_pca_{number}" for number in numbers if number != missing]
    pl.DataFrame({"pKd": [7.0], **{name: [0.0] for name in names}}).write_csv(tmp_path / "t.csv")
    with pytest.raises(
        FeatureError, match=rf"t\.csv: the columns {names[0]} … {names[-1]} must .* esm2_pca_{missing} is missing\. Add"
    ):
        read_table(tmp_path / "t.csv")


def test_blocks_may_start_at_one_and_carry_zeros(tmp_path: Path) -> None:
    for names in ([f"f{number}" for number in range(1, 7)], [f"f_{number:03d}" for number in range(6)]):
        pl.DataFrame({"pKd": [7.0], **{name: [0.0] for name in names}}).write_csv(tmp_path / "t.csv")
        assert read_table(tmp_path / "t.csv").feature_names == tuple(names)


@pytest.mark.parametrize("gz", [False, True])
def test_text_in_a_feature_column_is_located(tmp_path: Path, gz: bool) -> None:
    text = f"pKd,{HEAD}\n7,{CELLS}\n8,1,2,many,4,5\n9,1,2,few,4,5\n"
    path = tmp_path / ("t.csv.gz" if gz else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if gz else text.encode())
    with pytest.raises(
        FeatureError, match=r"t\.csv.*: e_2 must hold numbers; got 'many' \(lines 3, 4\)\. Correct the cells or leave"
    ):
        read_table(path)


def test_empty_feature_cells_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"pKd,{HEAD}\n7,{CELLS}\n8,1,2,N/A,4,5\n9,1,2,null,4,5\n6, 1.5 ,2,3,4,5\n")
    table = read_table(tmp_path / "t.csv")
    assert table.pkd.tolist() == [7.0, 6.0]
    assert table.features[1].tolist() == [1.5, 2, 3, 4, 5]
    assert table.report.dropped[NO_FEATURES] == 2


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e39", "-1e300"])
def test_an_infinite_feature_is_located(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.csv").write_text(f"pKd,{HEAD}\n7,{CELLS}\n8,1,{cell},3,4,5\n")
    with pytest.raises(FeatureError, match=r"t\.csv: e_1 must hold finite numbers that fit float32; .*\(line 3\)"):
        read_table(tmp_path / "t.csv")


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    frame = pl.DataFrame({"pKd": ["7", "high"], **{name: [1.0, float("inf")] for name in BLOCK}})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t\.parquet: pKd must hold numbers; got 'high' \(row 2\)"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(FeatureError, match=r"t\.parquet: e_0 must hold finite numbers.*\(row 2\)"):
        read_table(tmp_path / "t.parquet", labels=False)


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.Int16, pl.String])
def test_parquet_columns_of_any_type(tmp_path: Path, dtype: type[pl.DataType]) -> None:
    values = pl.Series([7, 8, None]).cast(dtype)
    features = {name: pl.Series([1, 2, 3]).cast(dtype) for name in BLOCK}
    pl.DataFrame({"pKd": values, **features}).write_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.pkd.tolist() == [7.0, 8.0]
    assert table.features.dtype == np.float32
    assert table.features[:, 0].tolist() == [1.0, 2.0]
    assert table.report.dropped == {NO_LABEL: 1, NO_FEATURES: 0}


def two_blocks(path: Path, first: str, second: str) -> Path:
    names = [f"{prefix}{number}" for prefix in (first, second) for number in range(WIDTH)]
    pl.DataFrame({"pKd": [7.0], **{name: [float(position)] for position, name in enumerate(names)}}).write_csv(path)
    return path


def test_two_blocks_must_be_chosen_between(tmp_path: Path) -> None:
    path = two_blocks(tmp_path / "t.csv", "a_", "b_")
    with pytest.raises(
        FeatureError, match=r"t\.csv has several blocks of feature columns: a_\*, b_\*\. Choose .*features\.columns\.pr"
    ):
        read_table(path)
    chosen = read_table(path, feature_prefix="b_")
    assert chosen.features.tolist() == [[5, 6, 7, 8, 9]]
    assert chosen.feature_names == ("b_0", "b_1", "b_2", "b_3", "b_4")


def test_the_seeds_block_is_preferred(tmp_path: Path) -> None:
    path = two_blocks(tmp_path / "t.csv", "esm2_dim_", "esm2_pca_")
    assert read_table(path).feature_names[0] == "esm2_pca_0"
    assert read_table(path, feature_prefix="esm2_dim_").features.tolist() == [[0, 1, 2, 3, 4]]


def test_replicate_columns_are_no_feature_block(write: Write) -> None:
    table = read_table(write("pKd,kd_rep_1,kd_rep_2", "7,1,2"))
    assert table.feature_names == tuple(BLOCK)
    assert table.frame["kd_rep_1"].to_list() == ["1"]


def test_an_absent_block_names_what_there_is(write: Write) -> None:
    with pytest.raises(
        FeatureError, match=r"t\.csv must have numbered feature columns esm2_dim_0, esm2_dim_1, .*found e_\*"
    ):
        read_table(write("pKd", "7"), feature_prefix="esm2_dim_")


def test_a_small_block_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("pKd,e_0,e_1\n7,1,2\n")
    with pytest.raises(
        FeatureError, match=r"found e_\* only \(name one of fewer than 5 columns with --set features\.col"
    ):
        read_table(tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv", feature_prefix="e_").features.tolist() == [[1.0, 2.0]]


def test_a_missing_label_is_told_before_missing_features(write: Write) -> None:
    with pytest.raises(TableError, match="must have a label column"):
        read_table(write("note", "x", features=False))


def test_neither_features_nor_sequences(write: Write) -> None:
    with pytest.raises(
        FeatureError,
        match=r"t\.csv must have numbered feature columns .*found none, and no sequences\. Add the columns",
    ):
        read_table(write("pKd,note", "7,x", features=False))


def test_sequences_without_features_are_told_apart(write: Write) -> None:
    with pytest.raises(
        FeatureError,
        match=r"it has sequences \(heavy, antigen\)\. Add the columns, or train .*: --recipe v3",
    ):
        read_table(write("pKd,vh,antigen", "7,Q,M", features=False))


# --- sequences that features are computed from -------------------------------------------------------


HEAVY, LIGHT = "EVQLVESGGGLVQPGG", "DIQMTQSPSSLSASVG"


def test_rows_with_neither_heavy_nor_light_are_dropped_and_counted_or_kept(write: Write) -> None:
    rows = [f"7,{HEAVY},", f"6,,{LIGHT}", "5,,", "8, , ", f",{HEAVY},"]
    file = write("pKd,vh,vl", *rows, features=False)
    table = read_table(file, feature_prefix=None, sequences=True)
    assert table.pkd.tolist() == [7, 6]
    assert table.features.shape == (2, 0)
    assert dict(table.report.dropped) == {"no pKd": 1, "no heavy or light sequence": 2}
    assert "Dropped 2 rows: no heavy or light sequence." in table.report.lines()
    kept = read_table(file, feature_prefix=None, sequences=True, keep_incomplete=True)
    assert kept.pkd.tolist() == [7, 6, 5, 8]
    assert "no heavy or light sequence" not in kept.report.dropped
    assert len(read_table(file, feature_prefix=None)) == 4


@pytest.mark.parametrize("column", ["vh", "vl"])
def test_one_chain_s_column_is_enough(write: Write, column: str) -> None:
    assert (
        len(read_table(write(f"pKd,{column}", f"7,{HEAVY}", features=False), feature_prefix=None, sequences=True)) == 1
    )


def test_a_table_without_antibody_sequences_is_refused_where_they_are_needed(write: Write) -> None:
    file = write("pKd,antigen,clone", "7,MKT,a", features=False)
    message = (
        r"must have antibody sequences in a column heavy or light \(or vh, .*\), .* columns are pKd, antigen, clone\."
    )
    with pytest.raises(FeatureError, match=message):
        read_table(file, feature_prefix=None, sequences=True)
    assert len(read_table(file, feature_prefix=None)) == 1


@pytest.mark.parametrize("cell", ["12345", "n/a?", "EV1234567"])
def test_what_is_no_protein_is_refused_where_sequences_are_needed(write: Write, cell: str) -> None:
    path = write("heavy,pKd", "EVQLVESGG,7", f"{cell},8")
    message = rf"heavy must hold protein sequences in one-letter code; got '{re.escape(cell.upper())}' \(line 3\)"
    with pytest.raises(FeatureError, match=message):
        read_table(path, feature_prefix=None, sequences=True)
    assert len(read_table(path, feature_prefix=None)) == 2  # where nothing is computed from it, a check tells


@pytest.mark.parametrize("column", ["vh", "Light Chain", "antigen_seq"])
def test_dna_is_refused_where_sequences_are_needed(write: Write, column: str) -> None:
    rows = [f"7,{HEAVY},{HEAVY}", f"7,{HEAVY},{'gaggtgcagctg' * 6}", f"6,{HEAVY},"]
    file = write(f"pKd,heavy,{column}" if column != "vh" else "pKd,x,vh", *rows, features=False)
    message = rf"{column} must hold protein sequences; got DNA or RNA \(line 3\)\. Translate them\."
    with pytest.raises(FeatureError, match=message):
        read_table(file, feature_prefix=None, sequences=True)
    assert len(read_table(file, feature_prefix=None)) == 3


def test_letters_that_are_no_amino_acids_are_told_with_an_example(write: Write, tmp_path: Path) -> None:
    rows = [f"7,{HEAVY},{LIGHT}", f"6,{HEAVY}X,{LIGHT}", f"6,{HEAVY},", f"6,Z*{HEAVY},{LIGHT}"]
    first = write("pKd,vh,vl", *rows, features=False)
    warning = "Warning: 2 heavy sequences have letters that are none of the twenty amino acids, such as X (lines 3, 5)."
    assert warning in read_table(first, feature_prefix=None, sequences=True).report.notes
    assert read_table(first, feature_prefix=None).report.notes == ()
    second = tmp_path / "second.csv"
    second.write_text(f"pKd,vh\n7,{HEAVY}B\n", encoding="utf-8")
    notes = read_table([first, second], feature_prefix=None, sequences=True).report.notes
    assert any(note.startswith("Warning: 1 heavy sequences of second.csv have letters") for note in notes)


def test_numbered_columns_and_sequences_may_both_be_needed(write: Write) -> None:
    file = write("pKd,vh", f"7,{HEAVY}", "6,")
    table = read_table(file, sequences=True)
    assert table.features.shape[0] == 1
    assert table.features.shape[1] > 0


# --- labels that cannot be ---------------------------------------------------------------------------


def test_text_in_the_label_is_located(write: Write) -> None:
    rows = ["7", "strong", "6,5"[:1], "n.d.", "??", "low"]
    with pytest.raises(
        TableError,
        match=r"t\.csv: pKd must hold numbers; got 'strong' \(lines 3, 5, 6 and 1 more\)\. Correct the cells or leave",
    ):
        read_table(write("pKd", *rows))


@pytest.mark.parametrize("cell", ["inf", "-inf", "Infinity"])
def test_an_infinite_pkd_is_located(write: Write, cell: str) -> None:
    with pytest.raises(TableError, match=r"t\.csv: pKd must be finite; got -?inf \(line 3\)\. Correct the cells"):
        read_table(write("pKd", "7", cell))


@pytest.mark.parametrize(
    ("header", "good", "bad", "shown"),
    [
        ("pKd", "20", "20.01", r"20\.01"),
        ("pKd", "-5", "-5.01", r"-5\.01"),
        ("Kd_nM", "1e-11", "1e-12", "1e-12"),
        ("Kd", "1e-20", "1e-21", "1e-21"),
        ("dG", "-27", "-28", "-28"),
        ("dG", "6.8", "9", "9"),
    ],
)
def test_a_pkd_out_of_range_is_located(write: Write, header: str, good: str, bad: str, shown: str) -> None:
    assert len(read_table(write(header, good))) == 1
    with pytest.raises(
        TableError, match=rf"t\.csv: {header} must give a pKd between -5 and 20; got {shown} \(line 3\)\. Check its"
    ):
        read_table(write(header, good, bad))


@pytest.mark.parametrize("cell", ["0", "-3"])
def test_a_kd_that_is_not_positive_is_located(write: Write, cell: str) -> None:
    with pytest.raises(TableError, match=rf"t\.csv: Kd_nM must be above 0; got {cell} \(lines 3, 4\)"):
        read_table(write("Kd_nM", "5", cell, cell))


@pytest.mark.parametrize(
    ("own", "message"),
    [("pK_d", "did you mean 'pK_d'"), ("affinity_nM", "did you mean 'affinity_nM'"), ("x", "its columns: x")],
)
def test_no_label_column_names_the_nearest(write: Write, own: str, message: str) -> None:
    with pytest.raises(
        TableError, match=rf"t\.csv must have a label column \(pKd, Kd_nM, .*it has none\. Rename yours; {message}"
    ):
        read_table(write(own, "7"))


def test_every_row_may_lack_its_label(write: Write) -> None:
    for header in ("pKd", "Kd_nM", "dG"):
        table = read_table(write(header, "", "na"))
        assert len(table) == 0
        assert table.features.shape == (0, WIDTH)
        assert table.report.dropped[NO_LABEL] == 2


# --- files that cannot be read -----------------------------------------------------------------------


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"gone\.csv must be a CSV, TSV or Parquet file; there is no such file"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(TableError, match=r"must be a CSV, TSV or Parquet file; it is a directory\. Name a file in it"):
        read_table(tmp_path)
    with pytest.raises(TableError, match="At least one table must be given; got none"):
        read_table([])


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(TableError, match=rf"{name} must hold a header and rows; the file is empty"):
        read_table(tmp_path / name)


def test_a_file_of_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n\n")
    with pytest.raises(TableError, match=r"t\.csv must be readable as a table"):
        read_table(tmp_path / "t.csv")


def test_a_header_alone(write: Write, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"t\.csv must hold rows; it has a header only"):
        read_table(write("pKd"))
    pl.DataFrame(schema=dict.fromkeys(["pKd", *BLOCK], pl.Float64)).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t\.parquet must hold rows; it has a header only"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(("name", "shown"), [("t.xlsx", ".xlsx"), ("t", ""), ("t.json.gz", ".json")])
def test_an_unknown_ending(tmp_path: Path, name: str, shown: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(TableError, match=rf"{name} must end in \.csv, \.tsv, .* or \.parquet; got '{shown}'"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(("header", "cell"), [("pKd,é", "7,n"), ("pKd,n", "7,é"), ("n,Kd (µM)", "n,1")])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_not_utf_8(tmp_path: Path, header: str, cell: str, encoding: str) -> None:
    text = f"{header},{HEAD}\n{cell},{CELLS}\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    with pytest.raises(TableError, match=r"t\.csv must be readable as a table \(UTF-8, .*got: invalid utf-8") as caught:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_rows_longer_than_the_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"pKd,{HEAD}\n7,{CELLS}\n8,{CELLS},9,9\n")
    with pytest.raises(
        TableError, match=r"t\.csv must be readable as a table \(.*equal rows\); got: found more fields"
    ):
        read_table(tmp_path / "t.csv")


def test_rows_shorter_than_the_header_are_incomplete(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"pKd,{HEAD}\n7,{CELLS}\n8,1,2\n")
    table = read_table(tmp_path / "t.csv")
    assert table.pkd.tolist() == [7.0]
    assert table.report.dropped[NO_FEATURES] == 1


@pytest.mark.parametrize(
    ("name", "content"), [("t.parquet", b"not parquet"), ("t.csv.gz", gzip.compress(b"a" * 99, mtime=0)[:-9])]
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=rf"{name} must be readable as a table") as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_column_names_must_differ(write: Write) -> None:
    with pytest.raises(TableError, match=r"t\.csv: column names must differ; 'note' is there twice\. Rename one"):
        read_table(write("pKd,note,note", "7,a,b"))


def test_row_ids_must_differ(write: Write) -> None:
    rows = ["a,7", "b,7", "a,8", "b,8", "c,9"]
    with pytest.raises(
        TableError, match=r"row_id must be different in every row of t\.csv; 4 rows share theirs, such as a, b\. Make"
    ):
        read_table(write("row_id,pKd", *rows))


def test_row_ids_must_differ_across_files(write: Write) -> None:
    files = [write("row_id,pKd", "a,7", name="x.csv"), write("row_id,pKd", "a,8", name="y.csv")]
    with pytest.raises(TableError, match=r"every row of x\.csv, y\.csv; 2 rows share theirs, such as a"):
        read_table(files)


def test_row_ids_must_not_be_empty(write: Write) -> None:
    with pytest.raises(TableError, match=r"t\.csv: row_id must not be empty; line 3"):
        read_table(write("row_id,pKd", "a,7", ",8"))


def test_nothing_that_is_given_is_changed(simulated_csv: Path) -> None:
    before = simulated_csv.read_bytes()
    paths: Sequence[Path] = [simulated_csv]
    read_table(paths)
    assert paths == [simulated_csv]
    assert simulated_csv.read_bytes() == before


def test_a_mark_in_the_cell_that_contradicts_the_relation_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.csv"
    path.write_text("Kd_nM,relation,vh\n>1000,<,EVQL\n>1000,>,EVQL\n>1000,,EVQL\n")
    with pytest.raises(TableError, match=r"relation and the mark in the label's cell must agree; got '<' .*\(line 2\)"):
        read_table(path, feature_prefix=None)
    path.write_text("Kd_nM,relation,vh\n>1000,=,EVQL\n>1000,>,EVQL\n5,<,EVQL\n")
    assert read_table(path, feature_prefix=None).relation.tolist() == ["<", "<", ">"]
