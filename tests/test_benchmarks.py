"""The accuracy benchmark on a small simulated pool: every part, resumed, with its pages and pictures."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import ablation, accuracy

from tailbind.models.blend import Opinions
from tailbind.table.simulation import Landscape, simulate

RIDGE = """
description = "Ridge on composition."
[features.composition]
dipeptides = false
[split]
kind = "random"
[model]
kind = "ridge"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of two landscapes and a table of many antigens."""
    folder = tmp_path_factory.mktemp("measurements")
    simulated = simulate(Landscape(n_rows=1200, n_features=8, n_families=2, missing=0, seed=1))
    frame = simulated.select(
        pl.int_range(pl.len()).cast(pl.String).alias("row_id"),
        pl.col("antibody_heavy").alias("heavy"),
        pl.col("antibody_light").alias("light"),
        "antigen",
        pl.col("pKd").alias("pkd"),
        "relation",
        pl.col("database_source").alias("source"),
    )
    frame.write_parquet(folder / "affinity_pool.parquet")
    columns = [name for name in simulated.columns if name.startswith("esm2_pca_")]
    simulated.rename({"antibody_heavy": "heavy", "antibody_light": "light"}).select(
        "heavy", "light", "antigen", "pKd", *columns
    ).write_csv(folder / "columns.csv")
    many = simulate(Landscape(n_rows=500, n_features=4, n_families=2, floor=-10, missing=0, seed=2))
    many.select(
        pl.int_range(pl.len()).cast(pl.String).alias("row_id"),
        pl.col("antibody_heavy").alias("heavy"),
        pl.col("antibody_light").alias("light"),
        "antigen",
        pl.col("pKd").alias("pkd"),
        (pl.int_range(pl.len()) % 120).alias("ag_cluster"),
    ).write_parquet(folder / "multi_antigen.parquet")
    return folder


@pytest.fixture(scope="module")
def recipe(data: Path) -> Path:
    path = data / "ridge-shares.toml"
    path.write_text(RIDGE)
    return path


def run(data: Path, out: Path, part: str, *options: str, recipes: str) -> int:
    return accuracy.main(
        ["--data", str(data), "--part", part, "--recipes", recipes, "--resamples", "40", "--device", "cpu",
         "--out", str(out / "kept"), "--pages", str(out / "pages"), "--pictures", str(out / "pictures"), *options]
    )  # fmt: skip


def page(out: Path, part: str) -> str:
    assert (out / "pictures" / f"accuracy-{part}.png").read_bytes()[:4] == b"\x89PNG"
    return (out / "pages" / f"accuracy-{part}.md").read_text()


def cells(text: str, title: str, row: str) -> list[str]:
    """Return the cells of a row of the table under a title."""
    table = text.split(f"### {title}\n", 1)[1].split("### ", 1)[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_pool(data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--seeds", "42,43", "--random-split")
    recipes = f"training-mean,{recipe}"
    assert run(data, tmp_path, "pool", *given, recipes=recipes) == 0
    first = capsys.readouterr().out
    assert first.count("trained;") == 6
    text = page(tmp_path, "pool")
    measured = cells(text, "Measured rows", "ridge-shares")
    value, low, _, high = measured[0].replace("(", "").replace(")", "").split()
    assert float(low) < float(value) < float(high)
    assert float(value) < float(cells(text, "Measured rows", "training-mean")[0].split()[0])
    assert "n = " in text.split("### Measured rows")[1].split("###")[0]
    against = cells(text, "ridge-shares against the best baseline", "RMSE")
    assert against[0] == "training-mean"
    assert against[-1] == "better"
    assert "random split, all rows as stated" in text
    assert "Finding binders of pKd ≥ 9" in text

    # Once more: nothing is trained, and the page is the same but for nothing.
    assert run(data, tmp_path, "pool", *given, recipes=recipes) == 0
    again = capsys.readouterr().out
    assert again.count("trained;") == 0
    assert again.count("read;") == 6
    assert page(tmp_path, "pool") == text

    # A recipe that changes is trained again, alone.
    changed = tmp_path / recipe.name
    changed.write_text(RIDGE.replace("dipeptides = false", "dipeptides = true"))
    assert run(data, tmp_path, "pool", *given, recipes=f"training-mean,{changed}") == 0
    third = capsys.readouterr().out
    assert third.count("ridge-shares trained;") == 3
    assert third.count("training-mean read;") == 3


def test_a_recipe_on_columns_is_tested_on_the_same_rows(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = "training-mean,ridge-columns"
    assert run(data, tmp_path, "pool", "--seeds", "42", recipes=recipes) == 0
    assert "ridge-columns reads feature columns; here are none" in page(tmp_path, "pool")
    given = ("--seeds", "42", "--seed-table", str(data / "columns.csv"))
    assert run(data, tmp_path, "pool", *given, recipes=recipes) == 0
    assert "is left out" not in page(tmp_path, "pool")
    of_recipes = [pl.read_parquet(next((tmp_path / "kept" / "pool" / name).iterdir())) for name in recipes.split(",")]
    assert of_recipes[0]["row_id"].equals(of_recipes[1]["row_id"])

    capsys.readouterr()
    other = pl.read_csv(data / "columns.csv").reverse()
    other.write_csv(tmp_path / "reversed.csv")
    code = run(data, tmp_path, "pool", "--seed-table", str(tmp_path / "reversed.csv"), recipes=recipes)
    assert code == 2
    assert "must have the rows of" in capsys.readouterr().err
    holes = pl.read_csv(data / "columns.csv").with_columns(pl.when(pl.int_range(pl.len()) > 2).then(pl.col("^esm2.*$")))
    holes.write_csv(tmp_path / "holes.csv")
    assert run(data, tmp_path, "pool", "--seed-table", str(tmp_path / "holes.csv"), recipes=recipes) == 2
    assert "3 rows have none" in capsys.readouterr().err


def test_a_recipe_that_takes_long_is_trained_on_the_first_split_alone(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--seeds", "42,43", "--once", "training-mean", "--random-split")
    assert run(data, tmp_path, "pool", *given, recipes=f"source-mean,training-mean,{recipe}") == 0
    out = capsys.readouterr().out
    assert [out.count(f"{name} trained;") for name in ("training-mean", "source-mean", "ridge-shares")] == [1, 3, 3]
    text = page(tmp_path, "pool")
    assert "training-mean" not in text.split("### Measured rows")[1].split("###")[0]
    assert float(cells(text, "Split 42 alone, all recipes", "training-mean")[0].split()[0]) > 0
    command = "--part pool --recipes source-mean,training-mean,ridge-shares --seeds 42,43 --once training-mean"
    assert f"python benchmarks/accuracy.py --data FOLDER {command} --random-split" in text


def test_the_ablation_refuses_a_table_on_which_v3_is_another_blend(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main(["--data", str(data), "--out", str(tmp_path), "--page", str(tmp_path / "page.md")]) == 2
    assert "must have more training rows than 1,999" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def test_a_blend_is_heard_without_one_of_its_parts() -> None:
    said = Opinions(np.array([[6.0, 7.0, 8.0]]), np.zeros((1, 3)), np.array([[True, False, True]]), np.array([4]))
    left = ablation.Heard(("a", "b", "c"), said, said).without("b")
    assert left.names == ("a", "c")
    assert left.test.predictions.tolist() == [[6.0, 8.0]]
    assert left.validation.speaks.tolist() == [[True, True]]
    assert left.test.sizes.tolist() == [4]


def test_cold(data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path, "cold", recipes=f"training-mean,{recipe}") == 0
    assert capsys.readouterr().out.count("trained;") == 10
    text = page(tmp_path, "cold")
    mae = cells(text, "New antigens", "ridge-shares")[0]
    assert "(" in mae
    against_mean, against_median = cells(text, "MAE against a constant", "ridge-shares")
    assert against_mean.startswith("−")
    assert against_median.startswith("−")
    assert cells(text, "New antigens", "training-median")[1] == "–"
    by_fold = [float(cell) for cell in cells(text, "By fold", "ridge-shares")[:5]]
    assert float(mae.split()[0]) == pytest.approx(np.mean(by_fold), abs=1e-3)
    assert "120 clusters of antigens" in text.replace("\n", " ")


def test_few(data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--sizes", "40,160", "--repeats", "2", "--fewest", "250")
    assert run(data, tmp_path, "few", *given, recipes=f"training-mean,{recipe}") == 0
    out = capsys.readouterr().out
    assert out.count("trained;") == 2 * 2 * 2 * 2
    text = page(tmp_path, "few")
    small, large = cells(text, "Mean Spearman", "ridge-shares")
    assert "(" in small
    assert float(small.split()[0]) < float(large.split()[0])
    assert cells(text, "Mean Spearman", "training-mean")[0].startswith("0.000")
    assert cells(text, "ridge-shares against the best baseline", "Spearman, 160 rows")[0] == "training-mean"


def test_mistakes_are_told_in_a_line(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = tmp_path / "v1.toml"
    twin.write_text(RIDGE)
    assert run(data, tmp_path, "pool", recipes=f"v1,{twin}") == 2
    assert "two are called v1" in capsys.readouterr().err
    assert run(data, tmp_path, "pool", recipes="v99") == 2
    assert "'v99' does not exist" in capsys.readouterr().err
