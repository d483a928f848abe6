from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import RecipeError
from tailbind.features import distinct
from tailbind.features.composition import Composition, shares
from tailbind.features.pipeline import FeaturePipeline, reads_sequences
from tailbind.options import read_options
from tailbind.table.schema import AffinityTable, ReadingReport

Rows = list[tuple[str | None, str | None, str | None]]


def table_of(rows: Rows) -> AffinityTable:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("heavy", "light", "antigen"), pl.String), orient="row")
    return AffinityTable(frame, np.empty((len(rows), 0), np.float32), (), ReadingReport((), len(rows), {}, {}))


def every(rows: Rows) -> np.ndarray:
    return np.arange(len(rows), dtype=np.intp)


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


chain = st.none() | st.text(alphabet="ACDX", max_size=6)
some_rows = st.lists(st.tuples(chain, chain, chain), min_size=1, max_size=8)
plain = Composition(standardize=False)
#: Each example takes some milliseconds, and more where the machine is busy.
few = settings(max_examples=40, deadline=None)
either = st.sampled_from([Composition(), plain, Composition(("light",), dipeptides=False)])


def column(options: Composition, rows: Rows, name: str) -> list[float]:
    features = options.fit(table_of(rows), every(rows)).transform(table_of(rows))
    return features.dense[:, features.names.index(name)].tolist()


def test_shares_by_hand() -> None:
    rows: Rows = [("AAC", "AXA", "WAAW")]
    assert column(plain, rows, "heavy share A") == pytest.approx([2 / 3])
    assert column(plain, rows, "heavy share AA") == column(plain, rows, "heavy share AC") == [0.5]
    assert column(plain, rows, "heavy share CA") == [0]
    assert column(plain, rows, "heavy log length") == pytest.approx([np.log(3)])
    assert column(plain, rows, "light share unknown") == pytest.approx([1 / 3])
    assert column(plain, rows, "light share AA") == [0]  # there is an X between them
    assert column(plain, rows, "antigen share W") == [0.5]
    assert column(plain, rows, "antigen share AW") == pytest.approx([1 / 3])
    assert column(plain, rows, "antigen missing") == [0]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        (Composition(), 3 * 423),
        (Composition(dipeptides=False), 3 * 23),
        (Composition(("antigen", "heavy"), dipeptides=False), 2 * 23),
    ],
)
def test_every_column_has_a_name_of_its_own(options: Composition, width: int) -> None:
    rows: Rows = [("AC", "D", "EFG")]
    features = options.fit(table_of(rows), every(rows)).transform(table_of(rows))
    assert features.dense.shape == (1, width)
    assert features.dense.dtype == np.float32
    assert len(set(features.names)) == len(features.names) == width
    assert {name.split()[0] for name in features.names} == set(options.chains)


@few
@given(st.text(alphabet="ACDX-é", min_size=1, max_size=12))
def test_shares_of_all_letters_sum_to_1(sequence: str) -> None:
    values = shares([sequence], dipeptides=True)[0]
    assert values[:21].sum() == pytest.approx(1)
    assert values[:20].sum() == pytest.approx(sum(letter in "ACD" for letter in sequence) / len(sequence))
    known = [one in "ACD" and other in "ACD" for one, other in pairwise(sequence)]
    assert values[21:421].sum() == pytest.approx(sum(known) / max(len(sequence) - 1, 1))


def test_the_columns_are_those_that_counting_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = "ACDEFGHIKLMNPQRSTVWY"
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list(letters + "X"), size)) for size in rng.integers(1, 40, 30)]
    expected = [
        [sequence.count(letter) / len(sequence) for letter in letters]
        + [sequence.count("X") / len(sequence)]
        + [
            sum(sequence[i : i + 2] == one + other for i in range(len(sequence))) / max(len(sequence) - 1, 1)
            for one, other in product(letters, letters)
        ]
        + [np.log(len(sequence))]
        for sequence in sequences
    ]
    np.testing.assert_allclose(shares(sequences, dipeptides=True), expected, rtol=1e-6)
    monkeypatch.setattr(distinct, "BUDGET", 500)  # a sequence at a time
    np.testing.assert_allclose(shares(sequences, dipeptides=True), expected, rtol=1e-6)


def test_standardising_gives_training_rows_mean_0_and_sd_1(table: AffinityTable, parts: dict[str, np.ndarray]) -> None:
    features = Composition(dipeptides=False).fit(table, parts["train"]).transform(table)
    heavy = [name.startswith("heavy share") and not name.endswith("unknown") for name in features.names]
    train = features.dense[parts["train"]][:, heavy].astype(np.float64)
    assert train.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert train.std(axis=0) == pytest.approx(1, abs=1e-4)
    assert np.abs(features.dense[parts["test"]][:, heavy].mean(axis=0)).max() > 1e-3


def test_a_missing_chain_is_marked_and_says_nothing_else() -> None:
    rows: Rows = [("ACDA", "AC", "ACD"), ("CCAA", "", None), ("AD", None, "DDDD"), (None, "CD", "ACD")]
    for options in (Composition(), plain):
        fitted = options.fit(table_of(rows), every(rows))
        features = fitted.transform(table_of(rows))
        assert np.isfinite(features.dense).all()
        for name, missing in {"light": [0, 1, 1, 0], "antigen": [0, 1, 0, 0], "heavy": [0, 0, 0, 1]}.items():
            own = [position for position, column in enumerate(features.names) if column.startswith(name)]
            assert features.dense[:, own[-1]].tolist() == missing
            assert not features.dense[np.array(missing) == 1][:, own[:-1]].any()
            assert features.dense[np.array(missing) == 0][:, own[:-1]].any()


def test_a_row_without_antibody_has_no_features() -> None:
    rows: Rows = [("ACD", "ACD", "ACD"), ("", None, "ACD"), (None, "A", "")]
    features = Composition().fit(table_of(rows), every(rows)).transform(table_of(rows))
    assert features.complete.tolist() == [True, False, True]
    assert np.isnan(features.dense[1]).all()


def test_a_chain_that_training_never_had_moves_little() -> None:
    fitted = Composition().fit(table_of([("ACD", "", "")]), np.array([0]))
    dense = fitted.transform(table_of([("ACD", "W" * 100, "MKTAYIAK")])).dense
    assert np.isfinite(dense).all()
    assert np.abs(dense).max() <= 1


def test_a_sequence_unlike_any_in_training_is_at_most_a_range_beyond(
    table: AffinityTable, parts: dict[str, np.ndarray]
) -> None:
    fitted = Composition().fit(table, parts["train"])
    strange = table_of([("W" * 3000, "C", "X" * 50), ("-*", "ACACACACA", "")])
    dense = fitted.transform(strange).dense.astype(np.float64)
    training = fitted.transform(table).dense[parts["train"]].astype(np.float64)
    low, high = training.min(axis=0), training.max(axis=0)
    room = np.maximum(high - low, 1) * (1 + 1e-6)
    assert (dense <= high + room).all()
    assert (dense >= low - room).all()


@pytest.mark.parametrize("chain", ["heavy", "light", "antigen"])
def test_a_substitution_changes_the_features(table: AffinityTable, parts: dict[str, np.ndarray], chain: str) -> None:
    fitted = Composition().fit(table, parts["train"])
    before = table.frame[chain][0]
    mutants = [before[:5] + letter + before[6:] for letter in "ACDEFGHIKLMNPQRSTVWY" if letter != before[5]]
    rows = replace(table, frame=pl.concat([table.frame[:1].with_columns(pl.lit(m).alias(chain)) for m in mutants]))
    dense = fitted.transform(rows).dense
    original = fitted.transform(table.stretch(slice(0, 1))).dense
    assert len(np.unique(np.vstack([original, dense]), axis=0)) == 20


@few
@given(some_rows, either, st.data())
def test_any_rows_in_any_order_get_the_same_features(rows: Rows, options: Composition, data: st.DataObject) -> None:
    table = table_of(rows)
    fitted = options.fit(table, every(rows))
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    part = fitted.transform(table_of([rows[position] for position in order]))
    np.testing.assert_array_equal(part.dense, fitted.transform(table).dense[order])
    shuffled = data.draw(st.permutations(rows))
    assert same_state(options.fit(table_of(shuffled), every(rows)).state(), fitted.state())


@few
@given(some_rows, some_rows, some_rows, either)
def test_nothing_is_learned_from_other_rows(rows: Rows, others: Rows, instead: Rows, options: Composition) -> None:
    one = options.fit(table_of(rows + others), every(rows)).state()
    assert same_state(one, options.fit(table_of(rows + instead), every(rows)).state())
    assert same_state(one, options.fit(table_of(rows), every(rows)).state())


def test_no_rows_have_no_features() -> None:
    rows: Rows = [("ACD", "AC", "A")]
    fitted = Composition().fit(table_of(rows), every(rows))
    assert fitted.transform(table_of([])).dense.shape == (0, 3 * 423)
    empty = Composition().fit(table_of([]), np.empty(0, np.intp))
    assert np.isfinite(empty.transform(table_of(rows)).dense).all()


@pytest.mark.parametrize("options", [Composition(), plain, Composition(("antigen", "light"), dipeptides=False)])
def test_the_state_rebuilds_it_to_the_bit_through_a_file(
    table: AffinityTable, parts: dict[str, np.ndarray], tmp_path: Path, options: Composition
) -> None:
    pipeline = FeaturePipeline.fit({"composition": "composition"}, {"composition": options}, table, parts["train"])
    save_state(tmp_path / "a.pth", "model", {"features": pipeline.state()})
    again = FeaturePipeline.from_state(load_state(tmp_path / "a.pth", "model")["features"])
    assert again.options == {"composition": options}
    assert reads_sequences(again.blocks)
    np.testing.assert_array_equal(again.transform(table).dense, pipeline.transform(table).dense)
    assert again.transform(table).names == pipeline.transform(table).names


@pytest.mark.parametrize("chains", [[], ["heavy", "heavy"]])
def test_chains_are_named_once_each(chains: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"features\.composition\.chains must name one chain or more, each once; got"):
        read_options(Composition, {"chains": chains}, "features.composition")


def test_an_unknown_chain_is_refused() -> None:
    with pytest.raises(RecipeError, match="must be one of heavy, light, antigen; got 'kappa'"):
        read_options(Composition, {"chains": ["kappa"]}, "features.composition")
