"""`tailbind probe`: it knows a model that sees mutations from one that does not, and finds the run's own table."""

import json
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import FeatureError, RunError, TableError
from tailbind.evaluation import probing as judging
from tailbind.predictor import Predictor
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.mutants import substitutions
from tailbind.table.mutants import Mutants, find_mutants
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import FRAMEWORKS, LETTERS
from tailbind.workflows import Probe, export, probe, probing
from tailbind.workflows.probe_page import probe_report
from tailbind.workflows.probe_variants import changed_rows, every_substitution

#: Residues of the simulated heavy chain that are mutated: two in each CDR, and two in frameworks.
PLACES = np.array([5, 27, 30, 51, 53, 70, 98, 102])


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """Two antibodies with every mutant of eight places, most of them against two antigens.

    A place has its effect, larger in CDRs, and a residue a small one; the second antigen turns the effects round.
    """
    rng = np.random.default_rng(3)
    rows = []
    for family in range(2):
        heavy, light = (_filled(FRAMEWORKS[chain], rng) for chain in ("heavy", "light"))
        antigens = ["".join(rng.choice(list(LETTERS), 90)) for _ in range(2)]
        of_place = dict(zip(PLACES.tolist(), rng.choice([-1.6, 1.4, -0.9], len(PLACES)), strict=True))
        of_place[5] = of_place[70] = 0.1
        of_residue = dict(zip(AMINO_ACIDS, rng.normal(0, 0.1, 20), strict=True))
        for place, residue, mutant in [(-1, "", heavy), *substitutions(heavy, PLACES)]:
            effect = 0.0 if place < 0 else of_place[place] + of_residue[residue]
            for number, antigen in enumerate(antigens):
                pkd = 8.0 + family - 1.2 * number + effect * (1 - 2 * number) + rng.normal(0, 0.05)
                rows.append((mutant, light, antigen, f"antigen {family}.{number}", f"lab {family}", round(pkd, 3)))
    columns = ["heavy", "light", "antigen", "antigen_name", "source", "pkd"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        row_id=pl.format("r{}", pl.int_range(pl.len())), relation=pl.lit("=")
    )


def _filled(framework: str, rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(LETTERS)) if letter == "." else letter for letter in framework)


@pytest.fixture(scope="module")
def data(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutants") / "mutants.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def seeing(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gaussian process on sites and the antigens' words, which knows places and antigens."""
    out = tmp_path_factory.mktemp("runs") / "seeing"
    changes = ["features.sites.numbering=false"]
    return tailbind.train(data, recipe="gaussian-process", out=out, overrides=changes, device="cpu").path


@pytest.fixture(scope="module")
def blind(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ridge regression under so large a penalty that all predictions are the mean."""
    out = tmp_path_factory.mktemp("runs") / "blind"
    changes = ["features.sites=false", "model.alphas=[1e12]"]
    return tailbind.train(data, recipe="ridge", out=out, overrides=changes, device="cpu").path


@pytest.fixture(scope="module")
def probed(seeing: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Probe, Path]:
    out = tmp_path_factory.mktemp("probes") / "seeing"
    return probe(seeing, out=out, antibodies=2, device="cpu"), out


def answers(result: Probe) -> dict[str, str]:
    return {verdict.key: verdict.answer for verdict in result.verdicts}


def test_a_model_that_sees_mutations_is_said_to(probed: tuple[Probe, Path]) -> None:
    result, _ = probed
    found = answers(result)
    assert {key: found[key] for key in ("responds", "order", "size", "places", "antigen")} == dict.fromkeys(
        ("responds", "order", "size", "places", "antigen"), "yes"
    )
    assert result.passes
    mutants = result.figures["mutants"]
    assert mutants["n"] >= 60
    assert mutants["spearman"] > 0.7 > mutants["spearman_blosum62"]
    # One mutant of each place and residue, against two antigens, of two antibodies; the wild type is nobody's.
    assert result.figures["mutants_measured"]["n"] == 2 * 2 * len(PLACES) * 19
    assert result.figures["scan"]["n"] == sum(19 * (len(a["heavy"]) + len(a["light"])) for a in result.scanned)
    assert result.n_predictions > result.figures["scan"]["n"]


def test_regions_are_those_of_imgt(probed: tuple[Probe, Path]) -> None:
    regions, measured = probed[0].figures["regions"], probed[0].figures["regions_measured"]
    assert set(regions) == {f"{chain} {name}" for chain in ("heavy", "light") for name in
                            ("FR1", "CDR1", "FR2", "CDR2", "FR3", "CDR3", "FR4")}  # fmt: skip
    assert set(measured) <= {"heavy FR1", "heavy CDR1", "heavy CDR2", "heavy FR3", "heavy CDR3"}
    assert measured["heavy CDR1"]["mean_absolute"] > measured["heavy FR1"]["mean_absolute"]
    assert sum(entry["n"] for entry in measured.values()) == probed[0].figures["mutants"]["n"]


def test_the_page_stands_alone_and_says_what_the_text_says(probed: tuple[Probe, Path]) -> None:
    result, out = probed
    assert {path.name for path in out.iterdir()} == {"probe.html", "probe.txt", "probe.json"}
    page = (out / "probe.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("<img") == 3
    assert page.index("What it has learned") < page.index("How far changes move predictions")
    text = (out / "probe.txt").read_text(encoding="utf-8")
    for verdict in result.verdicts:
        assert f"{verdict.question} {verdict.answer.capitalize()}. {verdict.evidence}" in text
    document = json.loads((out / "probe.json").read_text(encoding="utf-8"))
    assert document["passes"] is True
    assert [entry["key"] for entry in document["verdicts"]] == [verdict.key for verdict in result.verdicts]
    assert document["figures"]["mutants"]["n"] == result.figures["mutants"]["n"]


def test_tiles_hold_against_what_verdicts_do(probed: tuple[Probe, Path]) -> None:
    result, _ = probed
    few = judging.changes(np.linspace(-9, 9, judging.FEWEST_PAIRS - 1))
    everywhere = result.figures["mutants_measured"]
    probes = {way: entry for way, entry in result.figures["probes"].items() if way != "antigen_swapped"}

    def tiles(**others: object) -> dict[str, str]:
        return {name: words for name, _, words in probe_report(replace(result, figures=result.figures | others)).tiles}

    assert tiles(scan_measured=few)["SD over mutants"].endswith(f"measured {everywhere['sd']:.2f}")
    assert tiles(scan_measured=few, mutants_measured=few)["SD over mutants"].endswith("0.5 would be usual")
    for n_antigens, words in enumerate(("the table names no", "the table has one", "the test rows name no")):
        assert tiles(probes=probes, n_antigens=n_antigens)["Antigen swapped"] == f"{words} antigen"


def test_a_model_that_says_the_mean_has_collapsed(
    blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", str(blind), "--out", str(tmp_path / "out"), "--antibodies", "1", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"Collapsed: [\d,]+ substitutions, in 1 training antibody, have \d+ distinct answers?", out)
    assert "gives single mutants one and the same answer" in out
    assert "Blind to the antigen: swapping it" in out
    assert out.rstrip().endswith(f"Report: {tmp_path / 'out' / 'probe.html'}")


def test_json_alone_is_printed(seeing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(seeing), "--json", "--antibodies", "1", "--device", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"][0]["answer"] == "yes"


def test_the_same_probe_twice_is_the_same(seeing: Path, probed: tuple[Probe, Path]) -> None:
    again = probe(seeing, antibodies=2, device="cpu")
    assert again.verdicts == probed[0].verdicts
    assert again.figures == probed[0].figures


# --- the run's own table -----------------------------------------------------------------------------


def test_a_table_that_moved_is_asked_for(seeing: Path, data: Path, frame: pl.DataFrame, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(seeing, run)
    environment = json.loads((run / "environment.json").read_text())
    environment["data"] = [str(tmp_path / "gone.csv")]
    (run / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunError, match=r"trained on must be at .*gone.csv; there is no such file.* --data"):
        probe(run, device="cpu")
    (tmp_path / "gone.csv").write_text(data.read_text().replace("8.", "7.", 1))
    with pytest.raises(RunError, match=r"gone.csv must be the table .* it has changed since \(SHA-256\).* --data"):
        probe(run, device="cpu")
    frame.write_parquet(tmp_path / "same.parquet")  # another file, the same rows
    assert probe(run, data=tmp_path / "same.parquet", antibodies=1, device="cpu").passes


def test_another_table_is_refused(seeing: Path, frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.with_columns(pkd=pl.col("pkd") + 1).write_csv(tmp_path / "other.csv")
    with pytest.raises(
        TableError, match=r"--data must be the table .* row_id r\d+ had pKd [\d.]+ there; other.csv has"
    ):
        probe(seeing, data=tmp_path / "other.csv", device="cpu")
    frame.with_columns(row_id=pl.format("x{}", "row_id")).write_csv(tmp_path / "foreign.csv")
    with pytest.raises(TableError, match=r"foreign.csv has none. Name that table."):
        probe(seeing, data=tmp_path / "foreign.csv", device="cpu")


def test_columns_cannot_be_probed(run_v2: tailbind.RunSummary, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"must compute its features from sequences .* own columns esm2_pca_\*"):
        probe(run_v2.path, device="cpu")
    mean = tailbind.train(data, recipe="training-mean", out=tmp_path / "mean", device="cpu")
    with pytest.raises(FeatureError, match=r"reads no sequences\. Train a recipe that does"):
        probe(mean.path, device="cpu")


def test_what_is_there_is_not_overwritten(seeing: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="must be a new or empty folder"):
        probe(seeing, out=tmp_path, device="cpu")
    with pytest.raises(RunError, match="must be a run folder"):
        probe(tmp_path, device="cpu")


def test_an_export_is_refused_before_its_table_is_read(seeing: Path, data: Path, tmp_path: Path) -> None:
    export(seeing, tmp_path / "export")
    for given in (None, tmp_path / "no such table.csv", data):
        with pytest.raises(
            RunError, match=r"export must be a run that `tailbind train` wrote; it is an export.* Probe"
        ):
            probe(tmp_path / "export", data=given, device="cpu")


@pytest.mark.parametrize("content", [None, "row_id,predicted_pkd\nr1,7.5\n", ""])
def test_damaged_test_predictions_are_one_line(
    seeing: Path, frame: pl.DataFrame, tmp_path: Path, content: str | None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(seeing, run)
    predictions = run / "test_predictions_gaussian-process.csv"
    predictions.unlink()
    if content is not None:
        predictions.write_text(content)
    frame.write_parquet(tmp_path / "same.parquet")
    with pytest.raises(RunError, match=r"test_predictions_gaussian-process.csv must be readable; it is missing or dam"):
        probe(run, data=tmp_path / "same.parquet", device="cpu")


@pytest.mark.parametrize("antibodies", [0, -1])
def test_an_antibody_at_least_is_scanned(seeing: Path, antibodies: int) -> None:
    with pytest.raises(RunError, match=f"--antibodies must be at least 1; got {antibodies}"):
        probe(seeing, antibodies=antibodies, device="cpu")


# --- which rows are asked --------------------------------------------------------------------------------


def test_scanned_antibodies_are_of_the_largest_families_first_and_then_any() -> None:
    heavy = ["EV" + letter for letter in "AAACDEFG"]
    frame = pl.DataFrame({"heavy": heavy, "light": ["D"] * 8, "antigen": ["M"] * 8, "antigen_name": [""] * 8})
    parts = pl.DataFrame({"part": ["train"] * 7 + ["test"], "family": [0, 0, 0, 0, 1, 1, 2, 2]})
    pairs = frame.unique(maintain_order=True).with_columns(row=pl.Series([0, 3, 4, 5, 6, 7]))
    nobody = np.array([], np.intp)
    mutants = Mutants(nobody, nobody, np.array([], bool), nobody, np.array([0, 4, 0, 1, 0, 0]))
    # Of the largest family that with most relatives, likewise of the others; then whoever is left, as ordered.
    asked = {most: probing._antibodies(frame, parts, pairs, mutants, most).tolist() for most in (1, 2, 4, 9)}
    assert asked == {1: [3], 2: [3, 5], 4: [3, 5, 6, 0], 9: [3, 5, 6, 0, 4]}


def test_many_antibodies_are_chosen_among_quickly() -> None:
    n = 60_000
    frame = pl.DataFrame({"heavy": [f"EV{row}" for row in range(n)]}).with_columns(
        light=pl.lit(""), antigen=pl.lit("M"), antigen_name=pl.lit("")
    )
    parts = pl.DataFrame({"part": ["train"] * n, "family": [0] * n})
    pairs = frame.with_columns(row=pl.int_range(n))
    nobody = np.array([], np.intp)
    mutants = Mutants(nobody, nobody, np.array([], bool), nobody, np.zeros(n, np.intp))
    started = time.process_time()
    assert probing._antibodies(frame, parts, pairs, mutants, 3).tolist() == [0, 1, 2]
    assert time.process_time() - started < 2  # a look-up of each antibody took 5 s


def test_an_antigen_under_two_names_is_one() -> None:
    frame = pl.DataFrame({"antigen": ["MKT", "MKT", "", "", ""], "antigen_name": ["one", "other", "HER2", "HER2", ""]})
    assert probing._n_antigens(frame.head(2)) == 1
    assert probing._n_antigens(frame) == 2
    assert probing._n_antigens(frame.tail(1)) == 0


def test_a_model_without_skill_is_told_from_one_with_it_as_often_as_intervals_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With both antigens of each antibody held out, and mutants in twos that are all held out."""
    monkeypatch.setattr(judging, "intervals", partial(judging.intervals, n_resamples=100))
    rng = np.random.default_rng(0)
    n = 60
    heavy = np.repeat(["".join(letters) for letters in rng.choice(list(AMINO_ACIDS), (n // 2, 30))], 2)
    pairs = pl.DataFrame({
        "source": ["a"] * n, "target": ["MKT", "GGS"] * (n // 2), "heavy": heavy, "light": [""] * n,
        "row": np.arange(n), "held_out": [True] * n,
    })  # fmt: skip
    in_twos = pairs.with_columns(
        target=pl.lit("MKT"), heavy=pl.col("heavy") + pl.Series(["A", "C"] * (n // 2)), light=pl.lit("")
    )
    mutants = find_mutants(in_twos).one_way(np.ones(n, bool))
    held: dict[str, list[bool]] = {"antigens": [], "mutants": []}
    for _ in range(200):
        measured, predicted = rng.normal(size=(2, n))
        asked = SimpleNamespace(rows=predicted.__getitem__)
        labelled = pairs.with_columns(pkd=measured)
        found = {
            "antigens": probing._antigens(asked, labelled, rng),
            "mutants": probing._held_out_mutants(asked, in_twos.with_columns(pkd=measured), mutants, mutants, None)[1][
                "mutants"
            ],
        }
        for key, figures in found.items():
            assert (figures["n"], figures["n_clusters"]) == (n // 2, n // 2)
            held[key].append(figures["interval"][0] <= 0 <= figures["interval"][1])
    shares = {key: np.mean(inside) for key, inside in held.items()}
    assert all(share >= 0.9 for share in shares.values()), shares  # both ways round 0.83 to 0.86


# --- what the predictor says of itself -----------------------------------------------------------------


def test_rows_outside_of_what_is_known_count_as_flagged_but_not_as_new(
    seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Predictor.predict

    def with_domain(self: Predictor, table: AffinityTable) -> pl.DataFrame:
        word = pl.when(table.frame["antigen"] == "").then(pl.lit("outside")).otherwise(pl.lit("edge"))
        return plain(self, table).drop("unseen").with_columns(domain=word)

    monkeypatch.setattr(Predictor, "predict", with_domain)
    result = probe(seeing, antibodies=1, device="cpu")
    assert result.figures["probes"]["antigen_removed"]["share_flagged"] == 1.0
    assert result.figures["scan"]["share_flagged"] == 0.0
    assert answers(result)["new"] == "unknown"
    assert "scan_new" not in result.figures


# --- how rows are changed ----------------------------------------------------------------------------


def test_changed_rows_differ_in_what_is_changed_and_in_nothing_else(frame: pl.DataFrame) -> None:
    rows = np.arange(0, len(frame), 7)
    before = frame.clone()
    found = changed_rows(frame, rows, None, np.random.default_rng(0))
    assert set(found) == {"antigen_removed", "antigen_swapped", "antibody_swapped", "chains_exchanged"}
    changed = {
        "antigen_removed": {"antigen", "antigen_name"},
        "antigen_swapped": {"antigen", "antigen_name"},
        "antibody_swapped": {"heavy", "light"},
        "chains_exchanged": {"heavy", "light"},
    }
    for way, variants in found.items():
        own = frame[variants.base.tolist()]
        assert variants.base.tolist() == rows.tolist()
        kept = [column for column in frame.columns if column not in changed[way]]
        assert variants.frame.select(kept).equals(own.select(kept))
    own = frame[rows.tolist()]
    assert (found["antigen_swapped"].frame["antigen"] != own["antigen"]).all()
    assert (found["antigen_removed"].frame["antigen"] == "").all()
    assert found["chains_exchanged"].frame["heavy"].equals(own["light"], check_names=False)
    swapped = found["antibody_swapped"].frame
    assert ((swapped["heavy"] != own["heavy"]) | (swapped["light"] != own["light"])).all()
    assert frame.equals(before)


def test_rows_without_an_antigen_or_a_chain_are_left_out(frame: pl.DataFrame) -> None:
    bare = frame.head(4).with_columns(
        antigen=pl.lit(""), antigen_name=pl.lit(""), light=pl.Series(["", "DIQ", "", ""]), heavy=pl.lit("EVQ")
    )
    found = changed_rows(bare, np.arange(4), None, np.random.default_rng(0))
    assert set(found) == {"antibody_swapped", "chains_exchanged"}
    assert found["chains_exchanged"].base.tolist() == [1]


def test_every_substitution_is_one_residue(frame: pl.DataFrame) -> None:
    two = frame.head(2).with_columns(heavy=pl.Series(["EVQ", "AC"]), light=pl.Series(["", "D"]))
    found = every_substitution(two, np.array([1, 0]), None)
    assert np.bincount(found.base).tolist() == [57, 57]
    for row, base in zip(found.frame.iter_rows(named=True), found.base.tolist(), strict=True):
        was = two.row(base, named=True)
        pairs = zip(was["heavy"] + was["light"], row["heavy"] + row["light"], strict=True)
        assert sum(one != other for one, other in pairs) == 1
    assert len(np.unique(found.letters)) == 57 + 57
