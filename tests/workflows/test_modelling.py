"""In memory and in a run folder, the same model is learned."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

import tailbind
from tailbind.errors import FeatureError
from tailbind.predictor import load
from tailbind.recipes import load_recipe
from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import part_rows
from tailbind.workflows.learning import Learned, learn
from tailbind.workflows.plan import resolve

CPU = torch.device("cpu")
TINY = ("model.hidden_dims=[8]", "training.epochs=3", "training.batch_size=64", "training.finetune_epochs=1")


def learned(
    table: AffinityTable, rows: dict[str, NDArray[np.intp]], recipe: str, *changes: str, said: list[str] | None = None
) -> Learned:
    plan = resolve(load_recipe(recipe, changes))
    return learn(plan, table, rows, device=CPU, notify=(said if said is not None else []).append)


@pytest.mark.parametrize(
    ("recipe", "changes"), [("ridge-columns", ()), ("source-mean", ()), ("v2", (*TINY, "split.kind=pair"))]
)
def test_it_is_the_model_of_a_run(recipe: str, changes: tuple[str, ...], simulated_csv: Path, tmp_path: Path) -> None:
    run = tailbind.train(
        simulated_csv, recipe=recipe, out=tmp_path / "run", overrides=changes, device="cpu",
        console=Console(file=StringIO()),
    )  # fmt: skip
    predictor = load(run.path, "cpu")
    table = read_table(simulated_csv, feature_prefix=None if recipe == "source-mean" else "auto")
    split = pl.read_parquet(run.path / "split.parquet")
    assert split["row_id"].to_list() == table.frame["row_id"].to_list()
    result = learned(table, part_rows(split["part"].to_numpy().astype("<U5")), recipe, *changes)
    predicted = predictor.predict_pkd(predictor.compute_features(table))[0]
    np.testing.assert_array_equal(result.predict(table), predicted)
    assert len(result.features) == len(table)
    np.testing.assert_array_equal(result.model.predict(result.features), predicted)


def test_rows_in_no_part_are_not_looked_at(table: AffinityTable, parts: dict[str, NDArray[np.intp]]) -> None:

    frame = table.frame.with_row_index("at").with_columns(
        pkd=pl.when(pl.col("at").is_in(parts["test"].tolist())).then(pl.lit(99.0)).otherwise(pl.col("pkd"))
    )
    spoiled = replace(table, frame=frame.drop("at"))
    for recipe, changes in (("ridge-columns", ()), ("v1", TINY)):
        one, other = (learned(of, parts, recipe, *changes).predict(table) for of in (table, spoiled))
        np.testing.assert_array_equal(one, other)


def test_it_says_what_a_run_says(table: AffinityTable, parts: dict[str, NDArray[np.intp]]) -> None:
    said: list[str] = []
    learned(table, parts, "v2", *TINY, said=said)
    assert any(text.startswith("Bin weights: very weak ") for text in said)
    assert any("3 epochs are few for" in text and text.startswith("Warning: ") for text in said)
    said.clear()
    learned(table, parts, "ridge-columns", said=said)
    assert [text for text in said if text.startswith("Model: ridge on 12 dense")]
    assert not [text for text in said if text.startswith("Bin weights")]


def test_a_row_without_features_is_nan(simulated_csv: Path) -> None:
    table = read_table(simulated_csv, keep_incomplete=True)
    complete = np.isfinite(table.features).all(axis=1)
    rows = np.flatnonzero(complete)
    with pytest.raises(FeatureError, match=r"must give every row its features"):
        learned(table, {"train": rows[:100], "val": rows[100:150]}, "ridge-columns")
    result = learned(table.take(complete), {"train": np.arange(100), "val": np.arange(100, 150)}, "ridge-columns")
    np.testing.assert_array_equal(np.isfinite(result.predict(table)), complete)
    assert not complete.all()


def test_the_input_is_left_as_it_is(table: AffinityTable, parts: dict[str, NDArray[np.intp]]) -> None:
    before, frame = table.features.copy(), table.frame.clone()
    learned(table, parts, "nearest-neighbour-columns", "model.k=3")
    np.testing.assert_array_equal(table.features, before)
    assert table.frame.equals(frame)
