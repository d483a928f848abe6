"""The command line: exit codes, one line for every mistake, nothing written for bad input."""

from pathlib import Path

import polars as pl
import pytest

from tailbind.cli import main
from tailbind.table import reading
from tailbind.table.cache import TableCache


@pytest.fixture
def frame(simulated_csv: Path) -> pl.DataFrame:
    return pl.read_csv(simulated_csv).drop_nulls("esm2_pca_0").head(200)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command line that must fail as a user's mistake; return its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    assert message.startswith("tailbind: ")
    assert "Traceback" not in message
    return message


def with_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table with a word for the label of its fourth row."""
    text = frame["pKd"].cast(pl.String).to_list()
    return frame.with_columns(pKd=pl.Series([*text[:3], "strong", *text[4:]]))


BAD_TABLES = {
    "text in pKd": (with_text, "pKd must hold numbers; got 'strong' (line 5)"),
    "infinite pKd": (
        lambda f: f.with_columns(pKd=pl.lit(float("inf"))),
        "pKd must be finite; got inf (lines 2, 3, 4 and 197 more)",
    ),
    "pKd out of range": (
        lambda f: f.with_columns(pKd=pl.lit(25.0)),
        "pKd must give a pKd between -5 and 20; got 25",
    ),
    "Kd of zero": (lambda f: f.with_columns(Kd_nM=pl.lit(0.0)).drop("pKd"), "Kd_nM must be above 0; got 0"),
    "no label": (
        lambda f: f.rename({"pKd": "pK_d"}),
        "must have a label column (pKd, Kd_nM, Kd, delta_g, …); it has none. Rename yours; did you mean 'pK_d'?",
    ),
    "no features": (
        lambda f: f.select("pKd"),
        "must have numbered feature columns (as in esm2_pca_0 …); found none, and no sequences",
    ),
    "a gap": (lambda f: f.drop("esm2_pca_7"), "must be numbered without a gap; esm2_pca_7 is missing"),
    "constant label": (lambda f: f.with_columns(pKd=pl.lit(6.0)), "must have labels that differ"),
    "too few rows": (lambda f: f.head(19), "must have at least 20 usable rows to train on; got 19 of 19"),
    "duplicate ids": (lambda f: f.with_columns(row_id=pl.lit("a")), "row_id must be different in every row"),
    "header only": (lambda f: f.head(0), "must hold rows; it has a header only"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_one_line_and_nothing_is_written(
    fault: str, frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = BAD_TABLES[fault]
    spoil(frame).write_csv(tmp_path / "bad.csv")
    message = refused(
        capsys, "train", tmp_path / "bad.csv", "--recipe", "v2", "--out", tmp_path / "run", "--device", "cpu"
    )
    assert expected in message
    assert "bad.csv" in message
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "table.xlsx").write_text("x")
    for path, words in (
        (tmp_path / "missing.csv", "there is no such file"),
        (tmp_path, "it is a directory"),
        (tmp_path / "empty.csv", "the file is empty"),
        (tmp_path / "table.xlsx", "must end in .csv, .tsv, .txt"),
    ):
        assert words in refused(capsys, "train", path, "--recipe", "v2", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "v2-enssemble"], "Recipe 'v2-enssemble' does not exist; did you mean 'v2-ensemble'?"),
        (["--recipe", "nowhere.toml"], "Recipe nowhere.toml must be a TOML file; there is none"),
        (["--set", "model.dropuot=0.4"], "model.dropuot is not an option of this recipe; did you mean 'dropout'?"),
        (["--set", "modle.dropout=0.4"], "there is no section 'modle'; did you mean 'model'?"),
        (["--set", "model.dropout=1.5"], "model.dropout must be at least 0 and below 1; got 1.5"),
        (["--set", "model.dropout=high"], "model.dropout must be a number; got 'high'"),
        (["--set", "model.kind=mpl"], "model.kind 'mpl' does not exist; did you mean 'mlp'?"),
        (["--set", "dropout"], "--set must be section.key=value, as in model.dropout=0.4; got 'dropout'"),
        (["--set", "split.kind=group", "--set", "split.column=pdb"], "split.column must name a column of the table"),
        (["--set", "split.kind=group"], "the table has no 'group'. Known: row_id, pkd"),
        (["--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--bogus"], "--bogus"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    arguments: list[str], expected: str, simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "train", simulated_csv, "--recipe", "v2", "--out", tmp_path / "run", *arguments)
    assert expected in message
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_line(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    assert "must be a folder; it is a file" in refused(
        capsys, "train", simulated_csv, "--recipe", "v2", "--out", tmp_path / "file"
    )

    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    message = refused(capsys, "train", simulated_csv, "--recipe", "v2", "--out", tmp_path / "read-only" / "run")
    assert "must be writable; Permission denied. Free space or choose another place" in message


def test_a_wrong_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such command 'trian'" in refused(capsys, "trian")
    assert "See tailbind train --help" in refused(capsys, "train")


def test_interrupting_is_one_line_and_exit_code_130(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tailbind.training.loop import Trainer

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    assert (
        main(["train", str(simulated_csv), "--recipe", "v2", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 130
    )
    assert capsys.readouterr().err == (
        "tailbind: Interrupted. An unfinished training goes on with --resume, "
        "a ladder and embed with the same command.\n"
    )


def test_without_a_verb_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_recipes_lists_and_prints_what_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tailbind.features.pipeline import reads_sequences
    from tailbind.recipes import load_recipe, recipe_names
    from tailbind.workflows.plan import resolve

    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert listed == {name: load_recipe(name).description for name in recipe_names()}
    heads = ["From sequences:", "From the table's own feature columns:", "From labels alone:"]
    assert [line for line in lines if not line.startswith("  ")] == heads
    sequences, columns = lines.index(heads[0]), lines.index(heads[1])
    for name in recipe_names():
        place = next(number for number, line in enumerate(lines) if line.startswith(f"  {name} "))
        assert (sequences < place < columns) == reads_sequences(resolve(load_recipe(name)).features), name
    for name in recipe_names():
        assert main(["recipes", name]) == 0
        (tmp_path / f"{name}.toml").write_text(capsys.readouterr().out)
        assert resolve(load_recipe(tmp_path / f"{name}.toml")) == resolve(load_recipe(name))


def test_in_a_terminal_the_list_of_recipes_is_wrapped_below_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tailbind.recipes import load_recipe, recipe_names

    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(line[line.rindex("  ") + 2 :] for line in lines if line.startswith("  "))
    assert all(load_recipe(name).description in words for name in recipe_names())


def test_a_recipe_file_beside_its_base(simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "base.toml").write_text('extends = "v1"\n[model]\nhidden_dims = [7]\n')
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n[training]\nepochs = 1\n')
    out = tmp_path / "run"
    command = [
        "train",
        str(simulated_csv),
        "--recipe",
        str(tmp_path / "mine.toml"),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    assert "150 →" not in (printed := capsys.readouterr().out)
    assert "12 → 7 → 1" in printed
    assert (out / "best_model_mine.pth").exists()
    assert main(["predict", str(out), str(simulated_csv), "--out", str(tmp_path / "p.csv")]) == 0
    assert "p.csv: 1,200 rows," in capsys.readouterr().out
    assert main(["evaluate", str(out), str(simulated_csv)]) == 0
    assert "The run was trained on rows of this very table" in capsys.readouterr().out


def test_no_cache_reads_a_long_table_anew(
    simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "default_cache", lambda: TableCache(tmp_path / "cache", smallest=0))
    train = ["train", str(simulated_csv), "--recipe", "v1", "--set", "training.epochs=1", "--device", "cpu", "--out"]
    for name, options, used in (
        ("a", ["--no-cache"], False),
        ("b", [], False),
        ("c", [], True),
        ("d", ["--no-cache"], False),
    ):
        assert main([*train, str(tmp_path / name), *options]) == 0
        assert ("(from the cache in" in capsys.readouterr().out) == used
        assert (tmp_path / "cache").exists() == (name != "a")
    for verb in (
        ["check", str(simulated_csv), "--no-numbering"],
        ["evaluate", str(tmp_path / "a"), str(simulated_csv)],
    ):
        for options, used in (([], False), ([], True), (["--no-cache"], False)):
            assert main([*verb, *options]) < 2
            assert ("(from the cache in" in capsys.readouterr().err) == used
