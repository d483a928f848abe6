"""`scan`: every substitution as `predict` would have it, numbered, ranked, drawn; combinations that are predicted."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import FeatureError, SequenceError
from tailbind.predictor import Predictor, load
from tailbind.sequences import numbering
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import Landscape, simulate
from tailbind.workflows import scan_input
from tailbind.workflows.combining import Combining, _chosen
from tailbind.workflows.scan_input import read_numbers, read_pair
from tailbind.workflows.scan_page import WORTH, headline, scan_picture, scan_report, scan_tables
from tailbind.workflows.scanning import Scan, is_unseen_here, scan

PLAIN = ("features.sites.numbering=false",)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return simulate(Landscape(n_rows=300, n_features=6, n_families=2, missing=0))


@pytest.fixture(scope="module")
def pair(frame: pl.DataFrame) -> dict[str, str]:
    row = frame.row(0, named=True)
    return {"heavy": row["antibody_heavy"], "light": row["antibody_light"], "antigen": row["antigen"]}


@pytest.fixture(scope="module")
def data(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "t.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def ridge(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ridge"
    return tailbind.train(data, recipe="ridge", out=out, overrides=PLAIN, device="cpu").path


@pytest.fixture(scope="module")
def ensemble(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Two networks, which tell an SD."""
    out = tmp_path_factory.mktemp("runs") / "ensemble"
    changes = (*PLAIN, "model.members=2", "model.hidden_dims=[16]", "training.epochs=3", "features.composition=false")
    tailbind.train(data, recipe="v2-sequence", out=out, overrides=changes, device="cpu")
    return load(out, "cpu")


@pytest.fixture(scope="module")
def scanned(ridge: Path, pair: dict[str, str]) -> Scan:
    return scan(ridge, **pair, chains=["heavy"], device="cpu")


def test_every_substitution_is_there_once_and_none_is_the_wild_type(scanned: Scan, pair: dict[str, str]) -> None:
    frame = scanned.frame
    assert len(frame) == 19 * len(pair["heavy"])
    assert frame["mutation"].n_unique() == len(frame)
    assert not (frame["wild_type"] == frame["residue"]).any()
    for row in frame.sample(20, seed=1).iter_rows(named=True):
        assert pair["heavy"][row["position"] - 1] == row["wild_type"]
        assert row["mutation"] == f"H:{row['wild_type']}{row['position']}{row['residue']}"
    assert sorted(frame["rank"].to_list()) == list(range(1, len(frame) + 1))
    pkd = frame.sort("rank")["predicted_pkd"].to_numpy()
    assert (np.diff(pkd) <= 0.01).all()
    np.testing.assert_allclose(frame["delta_pkd"], frame["predicted_pkd"] - scanned.wild_type["predicted_pkd"])


def test_it_says_what_predict_says_of_the_mutated_sequences(
    scanned: Scan, ridge: Path, pair: dict[str, str], tmp_path: Path
) -> None:
    some = scanned.frame.sample(40, seed=2)
    mutants = [
        pair["heavy"][: row["position"] - 1] + row["residue"] + pair["heavy"][row["position"] :]
        for row in some.iter_rows(named=True)
    ]
    table = pl.DataFrame({"heavy": [pair["heavy"], *mutants]}).with_columns(
        light=pl.lit(pair["light"]), antigen=pl.lit(pair["antigen"])
    )
    table.write_csv(tmp_path / "mutants.csv")
    predicted = tailbind.predict(ridge, tmp_path / "mutants.csv", device="cpu")
    np.testing.assert_allclose(predicted["predicted_pkd"][0], scanned.wild_type["predicted_pkd"], atol=1e-5)
    np.testing.assert_allclose(predicted["predicted_pkd"][1:], some["predicted_pkd"], atol=1e-5)
    assert predicted["unseen"][1:].to_list() == some["unseen"].to_list()


def test_a_loaded_predictor_takes_the_place_of_a_run(scanned: Scan, ridge: Path, pair: dict[str, str]) -> None:
    again = scan(load(ridge, "cpu"), pair["heavy"].lower(), pair["light"], pair["antigen"], chains=("heavy",))
    assert again.frame.equals(scanned.frame)


def test_both_antibody_chains_are_scanned_unless_said(ridge: Path, pair: dict[str, str]) -> None:
    assert scan(ridge, **pair, positions=None).chains == ["heavy", "light"]
    alone = scan(ridge, heavy=pair["heavy"], antigen=pair["antigen"])
    assert alone.chains == ["heavy"]
    antigen = scan(ridge, **pair, chains=["antigen"], positions=[1, 3])
    assert antigen.frame["position"].unique().sort().to_list() == [1, 3]
    assert antigen.frame["mutation"][0].startswith("A:")


def test_what_training_saw_at_a_place_is_told_apart(scanned: Scan, frame: pl.DataFrame, pair: dict[str, str]) -> None:
    family = frame.filter(pl.col("antigen") == pair["antigen"])["antibody_heavy"].to_list()
    seen = scanned.frame.filter(~pl.col("unseen_here"))
    assert 0 < len(seen) < 50
    for row in seen.iter_rows(named=True):
        assert any(sequence[row["position"] - 1] == row["residue"] for sequence in family)


@pytest.mark.parametrize(
    ("mutant", "wild_type", "expected"),
    [
        ("", "", False),
        ("heavy H52 Y>W", "", True),
        ("antigen none", "antigen none", False),
        ("heavy H52 Y>W; antigen none", "antigen none", True),
        ("heavy family (72% like the nearest)", "heavy family (71% like the nearest)", True),
        ("heavy H52 Y>W", "heavy H52 Y>F", True),
        ("heavy 1 A>V", "heavy 1 A>V, 2 C>D", False),
        ("heavy 1 A>V, 2 C>D, 3 E>F and 1 more", "heavy 1 A>V, 2 C>D, 3 E>F", True),
        ("heavy 1 A>V, 2 C>D, 3 E>F", "heavy 1 A>V, 2 C>D, 3 E>F and 1 more", False),
        ("light 1 A>V", "", False),
    ],
)
def test_only_what_the_substitution_brings_is_unseen_here(mutant: str, wild_type: str, expected: bool) -> None:
    assert is_unseen_here(mutant, wild_type, "heavy") is expected


# --- places ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not numbering.can_number(), reason="needs anarcii")
def test_positions_have_imgt_names_and_regions_can_be_asked_for(ridge: Path, pair: dict[str, str]) -> None:
    found = scan(ridge, **pair, regions=["CDR3"])
    assert found.numbered
    assert set(found.frame["region"]) == {"CDR3"}
    heavy = found.frame.filter(pl.col("chain") == "heavy").unique("position", maintain_order=True)
    numbers = [int(name[1:].rstrip("ABCDE")) for name in heavy["imgt"]]
    assert min(numbers) == 105
    assert max(numbers) == 117
    assert pair["heavy"][heavy["position"][0] - 2] == "C"  # 104, before CDR3


@pytest.mark.skipif(not numbering.can_number(), reason="needs anarcii")
def test_a_model_s_own_families_give_the_same_numbers_without_anarcii(
    data: Path, pair: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["features.composition=false"]
    run = tailbind.train(data, recipe="ridge", out=tmp_path / "run", overrides=changes, device="cpu").path
    predictor = load(run, "cpu")
    by_anarcii = numbering.number([pair["heavy"], pair["light"]])
    monkeypatch.setattr(scan_input, "number", lambda sequences: [pytest.fail("numbered") for _ in sequences])
    monkeypatch.setattr(scan_input, "can_number", lambda: False)
    found = scan(predictor, **pair)
    for chain, (domain,) in zip(("heavy", "light"), by_anarcii, strict=True):
        sites = found.frame.filter(pl.col("chain") == chain).unique("position", maintain_order=True).drop_nulls("imgt")
        assert [name[1:] for name in sites["imgt"]] == list(domain.positions)
        assert sites["position"][0] == domain.start + 1


def test_without_anarcii_positions_are_plain_and_regions_refused(
    ridge: Path, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_input, "can_number", lambda: False)
    said: list[str] = []
    plain = scan(ridge, **pair, chains=["heavy"], positions=[5], notify=said.append)
    assert not plain.numbered
    assert plain.frame["imgt"].null_count() == plain.frame["region"].null_count() == 19
    assert any("IMGT numbers need anarcii" in line for line in said)
    with pytest.raises(SequenceError, match=r"Regions need anarcii .* Run: pip install"):
        scan(ridge, **pair, regions=["CDR1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heavy": "", "light": ""}, "A heavy or a light chain must be given; both are empty"),
        ({"heavy": "EVQX"}, "heavy must be made of the twenty amino acids .* got X at position 4"),
        ({"chains": ["kappa"]}, "A chain to scan must be one of heavy, light, antigen; got 'kappa'"),
        ({"chains": []}, "A chain to scan must be named"),
        ({"antigen": "", "chains": ["antigen"]}, "The chain to scan must be given; antigen is empty"),
        ({"regions": ["CDR4"]}, "A region must be one of FR1, CDR1, .* got 'CDR4'"),
        ({"positions": [3]}, "Positions need one chain to scan; got heavy, light"),
        ({"chains": ["heavy"], "positions": [0]}, r"Positions in heavy must be 1 to \d+; got 0"),
        ({"chains": ["heavy"], "positions": []}, "There must be a residue to substitute; heavy has none"),
        ({"combine": 1}, "Combinations must be of 2 to 10 substitutions; got 1"),
        ({"combine": 2, "top": 0}, "At least 1 combination must be asked for; got 0"),
        ({"combine": 2, "explore": -1.0}, "explore must be a number of 0 or above; got -1"),
        ({"combine": 2, "explore": 1.0}, r"explore = 1 must have a model that tells an SD; this one tells none"),
        ({"combine": 2, "avoid": "CX"}, "avoid must be letters of amino acids, as in CM; got 'CX'"),
        ({"chains": ["heavy"], "positions": [3], "combine": 2}, "two positions to substitute; there is one"),
    ],
)
def test_what_cannot_be_scanned_is_one_line(
    options: dict[str, object], message: str, ridge: Path, pair: dict[str, str]
) -> None:
    with pytest.raises(SequenceError, match=message):
        scan(ridge, **{**pair, **options}, device="cpu")  # type: ignore[arg-type]


def test_a_run_on_feature_columns_is_refused(run_v2: tailbind.RunSummary, pair: dict[str, str]) -> None:
    with pytest.raises(FeatureError, match=r"reads sequences alone; this one, of recipe 'v2', reads .* esm2_pca_"):
        scan(run_v2.path, **pair)


def test_a_model_that_sees_no_sequence_is_refused(data: Path, pair: dict[str, str], tmp_path: Path) -> None:
    run = tailbind.train(data, recipe="training-mean", out=tmp_path / "mean", device="cpu").path
    with pytest.raises(FeatureError, match="reads no sequence"):
        scan(run, **pair)


def test_composition_alone_can_be_scanned(data: Path, pair: dict[str, str], tmp_path: Path) -> None:
    changes = ["features.sites=false"]
    run = tailbind.train(data, recipe="ridge", out=tmp_path / "run", overrides=changes, device="cpu").path
    found = scan(run, **pair, chains=["heavy"], positions=[5, 6])
    assert "unseen_here" not in found.frame.columns
    assert found.frame["delta_pkd"].abs().max() > 0


def test_what_makes_a_scan_say_little_is_told(ridge: Path, pair: dict[str, str]) -> None:
    said: list[str] = []
    scan(ridge, heavy="AW" * 50, light=pair["light"], chains=["heavy"], positions=[1], notify=said.append)
    assert any("training never saw something of the antibody as given (heavy family" in line for line in said)
    assert not any("does not see them" in line for line in said)


def test_a_model_that_does_not_see_substitutions_is_called_so(data: Path, pair: dict[str, str], tmp_path: Path) -> None:
    changes = ["features.sites=false", 'features.composition.chains=["light"]']
    run = tailbind.train(data, recipe="ridge", out=tmp_path / "run", overrides=changes, device="cpu").path
    said: list[str] = []
    blind = scan(run, **pair, chains=["heavy"], positions=[5, 6], notify=said.append)
    assert any("predicts the same pKd for every substitution: it does not see them" in line for line in said)
    assert "All 38 substitutions are predicted the same" in headline(blind)


# --- combinations ------------------------------------------------------------------------------------


def parts(combinations: pl.DataFrame) -> list[frozenset[str]]:
    return [frozenset(text.split("+")) for text in combinations["mutations"]]


@pytest.fixture(scope="module")
def combined(ensemble: Predictor, pair: dict[str, str]) -> Scan:
    return scan(ensemble, **pair, chains=["heavy"], combine=3, top=12, explore=1.0)


def test_combinations_are_ranked_by_their_own_prediction(
    combined: Scan, ensemble: Predictor, pair: dict[str, str], tmp_path: Path
) -> None:
    table = combined.combinations
    assert 0 < len(table) <= 12
    assert set(table["n_mutations"]) <= {2, 3}
    np.testing.assert_allclose(table["score"], table["predicted_pkd"] + table["predicted_sd"])
    assert table["score"].is_sorted(descending=True)
    singles = dict(combined.frame.select("mutation", "delta_pkd").iter_rows())
    for row, own in zip(table.iter_rows(named=True), parts(table), strict=True):
        assert len({text[3:-1] for text in own}) == row["n_mutations"]
        assert row["sum_of_singles"] == pytest.approx(sum(singles[text] for text in own))
        changed = [i for i, (a, b) in enumerate(zip(pair["heavy"], row["heavy"], strict=True), 1) if a != b]
        assert changed == sorted(int(text[3:-1]) for text in own)
        assert all(row["heavy"][int(text[3:-1]) - 1] == text[-1] != "C" for text in own)
    table.select("heavy").with_columns(light=pl.lit(pair["light"]), antigen=pl.lit(pair["antigen"])).write_csv(
        tmp_path / "c.csv"
    )
    again = ensemble.predict(ensemble.read(tmp_path / "c.csv"))
    np.testing.assert_allclose(again["predicted_pkd"], table["predicted_pkd"], atol=1e-5)


def test_no_two_combinations_share_all_but_one_unless_asked(
    combined: Scan, ensemble: Predictor, pair: dict[str, str]
) -> None:
    def twins(found: list[frozenset[str]]) -> int:
        return sum(len(a & b) >= max(len(a), len(b)) - 1 for i, a in enumerate(found) for b in found[:i])

    assert twins(parts(combined.combinations)) == 0
    alike = scan(ensemble, **pair, chains=["heavy"], combine=3, top=12, explore=1.0, diverse=False).combinations
    assert twins(parts(alike)) > 0
    assert alike["score"][-1] >= combined.combinations["score"][-1]


def test_the_same_seed_gives_the_same_combinations(combined: Scan, ensemble: Predictor, pair: dict[str, str]) -> None:
    again = scan(ensemble, **pair, chains=["heavy"], combine=3, top=12, explore=1.0)
    assert again.combinations.equals(combined.combinations)


def test_the_best_pairs_of_the_best_substitutions_are_found(ridge: Path, pair: dict[str, str]) -> None:
    """A linear model's best combination is that of its best substitutions, one per position."""
    found = scan(ridge, **pair, chains=["heavy"], positions=list(range(1, 40)), combine=2, top=1, avoid="")
    best = found.frame.sort("delta_pkd", descending=True).unique("position", keep="first", maintain_order=True)
    assert found.combinations["delta_pkd"][0] >= best["delta_pkd"][:2].sum() - 0.02


def test_a_substitution_that_adds_nothing_is_not_put_in(combined: Scan) -> None:
    wild = combined.wild_type["predicted_pkd"] + combined.wild_type["predicted_sd"]
    singles = {
        row["mutation"]: row["predicted_pkd"] + row["predicted_sd"] for row in combined.frame.iter_rows(named=True)
    }
    for row, own in zip(combined.combinations.iter_rows(named=True), parts(combined.combinations), strict=True):
        assert row["score"] >= wild + 0.01
        assert row["score"] >= max(singles[text] for text in own) + 0.01


def test_a_combination_is_better_than_each_part_of_it_however_small() -> None:
    """One substitution adds 2; all pairs lose most of it, and triples gain a little of that back."""
    known = {(0,): 2.0, (1,): 0.1, (2,): 0.1, (0, 1): 0.2, (0, 2): 0.2, (1, 2): 0.3, (0, 1, 2): 0.5}
    with pytest.raises(SequenceError, match=r"are about combinations; none are asked for"):
        Combining(0, 5, None, "", seen_only=True, diverse=False, seed=0)
    found = [combination for combination in known if len(combination) > 1]
    chosen = _chosen(found, known, Combining(3, 5, None, "", seen_only=False, diverse=False, seed=0))
    assert [found[at] for at in chosen] == [(1, 2)]


def test_only_what_training_saw_is_combined_when_asked(ensemble: Predictor, pair: dict[str, str]) -> None:
    found = scan(ensemble, **pair, chains=["heavy"], combine=2, seen_only=True)
    seen = set(found.frame.filter(~pl.col("unseen_here"))["mutation"])
    assert set().union(*parts(found.combinations)) <= seen


def test_a_model_that_does_not_tell_what_training_saw_cannot_leave_it_out(
    data: Path, pair: dict[str, str], tmp_path: Path
) -> None:
    changes = ["features.sites=false"]
    run = tailbind.train(data, recipe="ridge", out=tmp_path / "run", overrides=changes, device="cpu").path
    with pytest.raises(SequenceError, match="seen_only must have a model that tells what training saw"):
        scan(run, **pair, chains=["heavy"], combine=2, seen_only=True)


# --- what else a predictor tells ---------------------------------------------------------------------


def test_intervals_and_the_domain_are_shown_where_a_predictor_tells_them(
    ridge: Path, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Predictor.predict

    def predict(self: Predictor, table: AffinityTable) -> pl.DataFrame:
        pkd = pl.col("predicted_pkd")
        more = (pkd - 0.7).alias("pkd_low"), (pkd + 0.9).alias("pkd_high"), pl.lit("edge").alias("domain")
        return honest(self, table).with_columns(more)

    monkeypatch.setattr(Predictor, "predict", predict)
    found = scan(ridge, **pair, chains=["heavy"], positions=[3, 4])
    np.testing.assert_allclose(found.frame["pkd_high"] - found.frame["pkd_low"], 1.6)
    strongest, *_ = scan_tables(found)
    assert strongest.header[5:7] == ("Interval", "Domain")
    assert strongest.rows[0][6] == "edge"
    page = scan_report(found, scan_picture(found)).html()
    assert "half the interval" in page
    assert re.search(r"Kd [\d.]+ [nµm]?M; pKd \d", page)


# --- the command line --------------------------------------------------------------------------------


def test_the_command_writes_table_picture_and_page(
    ridge: Path, pair: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "pair.fasta"
    fasta.write_text("".join(f">{chain}\n{sequence}\n" for chain, sequence in pair.items()))
    out = tmp_path / "out"
    command = ["scan", str(ridge), "--fasta", str(fasta), "--scan", "heavy", "--combine", "2", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Strongest substitutions" in printed
    assert "Positions that tolerate least" in printed
    assert {path.name for path in out.iterdir()} == {"scan.csv", "scan.png", "scan.html", "combinations.csv"}
    written = pl.read_csv(out / "scan.csv")
    assert len(written) == 19 * len(pair["heavy"])
    assert written.columns[:9] == [
        "chain", "position", "imgt", "region", "wild_type", "residue", "mutation", "rank", "predicted_pkd",
    ]  # fmt: skip
    page = (out / "scan.html").read_text()
    assert "data:image/png;base64," in page
    assert pair["heavy"] in page
    assert main(command) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err


def test_json_holds_the_whole_scan(ridge: Path, pair: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scan", str(ridge), "--heavy", pair["heavy"], "--positions", "3-4,9", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert [len(document[key]) for key in ("substitutions", "combinations")] == [57, 0]
    assert {row["position"] for row in document["substitutions"]} == {3, 4, 9}
    assert document["sequences"]["heavy"] == pair["heavy"]


def test_positions_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert read_numbers("31-33, 52") == [31, 32, 33, 52]
    for text in ("a", "3-", "-3", "3.5", "1-2-3"):
        with pytest.raises(SequenceError, match="Positions must be numbers and ranges, as in 31-35,52"):
            read_numbers(text)
    for text, message in (
        ("31-35,60-52", r"must ascend; got '60-52'\. Write 52-60"),
        ("1-9999999999", "1,000,000 at most"),
    ):
        with pytest.raises(SequenceError, match=message):
            read_numbers(text)
    (tmp_path / "h.fasta").write_text(">vh\nEVQL\n")
    assert read_pair("", "DIQM", "", tmp_path / "h.fasta") == {"heavy": "EVQL", "light": "DIQM", "antigen": ""}
    with pytest.raises(SequenceError, match="The heavy must be given once; it is typed and in"):
        read_pair("EVQL", "", "", tmp_path / "h.fasta")


def test_tables_show_residues_the_model_cannot_tell_apart_in_one_row(scanned: Scan) -> None:
    strongest = scan_tables(scanned, n_rows=2000)[0]
    shared = [row[0] for row in strongest.rows if "[" in row[0]]
    n_shown = sum(len(name.partition("[")[2].rstrip("]")) for name in shared) + len(strongest.rows) - len(shared)
    assert n_shown == len(scanned.frame)
    n_stronger = int((scanned.frame["delta_pkd"] >= WORTH).sum())
    assert f"Of {len(scanned.frame):,} substitutions {n_stronger:,} are predicted" in headline(scanned)
