from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import RecipeError
from tailbind.features.kmers import FittedKmers, Kmers, split
from tailbind.features.pipeline import FeaturePipeline
from tailbind.options import read_options
from tailbind.table.schema import AffinityTable, ReadingReport


def table_of(*antigens: str | None) -> AffinityTable:
    n = len(antigens)
    frame = pl.DataFrame(
        {"heavy": ["EVQL"] * n, "light": [""] * n, "antigen": list(antigens)}, schema_overrides={"antigen": pl.String}
    )
    return AffinityTable(frame, np.empty((n, 0), np.float32), (), ReadingReport((), n, {}, {}))


def columns(fitted: FittedKmers, table: AffinityTable) -> np.ndarray:
    features = fitted.transform(table)
    assert features.sparse is not None
    assert features.dense.shape == (len(table), 0)
    assert features.sparse.shape == (len(table), len(features.sparse_names))
    return features.sparse.toarray()


def test_words_by_hand() -> None:
    table = table_of("AAAA", "CA")
    fitted = Kmers(k=2).fit(table, np.arange(2))
    names = fitted.transform(table).sparse_names
    assert names == tuple(f"antigen kmer {word}" for word in ("A$", "AA", "CA", "^A", "^C"))
    expected = [[1, 3, 0, 1, 0] / np.sqrt(11), [1, 0, 1, 0, 1] / np.sqrt(3)]
    np.testing.assert_allclose(columns(fitted, table), expected, rtol=1e-6)


def test_products_are_cosines_of_all_words_though_only_those_of_training_have_a_column() -> None:
    table = table_of("ACDEF", "ACDKLM", "WWWW", "", None, "ACDEF")
    fitted = Kmers().fit(table, np.array([0, 3]))
    rows = columns(fitted, table)
    counts = [[*split(text or "", 3)] for text in table.frame["antigen"]]
    for row, words in zip(rows, counts, strict=True):
        shared = len(set(words) & set(counts[0]))
        assert rows[0] @ row == pytest.approx(shared / np.sqrt(max(1, len(words)) * len(counts[0])))
    assert rows[0] @ rows[0] == pytest.approx(1)
    assert 0 < rows[1] @ rows[1] < 1
    assert not rows[2:5].any()
    np.testing.assert_array_equal(rows[5], rows[0])


def test_a_sequence_shorter_than_a_word_is_one_word() -> None:
    assert list(split("A", 5)) == ["^A$"]
    table = table_of("A", "C")
    np.testing.assert_array_equal(columns(Kmers(k=5).fit(table, np.arange(2)), table), np.eye(2))


def test_other_chains_are_read_where_they_are_asked_for() -> None:
    table = table_of("ACD", "CCC")
    features = Kmers(k=1, chains=("heavy", "antigen")).fit(table, np.arange(2)).transform(table)
    assert features.sparse_names[0] == "heavy kmer $"
    assert {name.split()[0] for name in features.sparse_names} == {"heavy", "antigen"}
    assert Kmers(chains=("light",)).fit(table, np.arange(2)).transform(table).n_sparse == 0


def test_it_goes_through_the_pipeline_and_comes_back(table: AffinityTable, tmp_path: Path) -> None:
    rows = np.arange(10)
    pipeline = FeaturePipeline.fit({"kmers": "kmers"}, {"kmers": Kmers(k=2)}, table, rows)
    save_state(tmp_path / "state.pth", "features", pipeline.state())
    again = FeaturePipeline.from_state(load_state(tmp_path / "state.pth", "features"))
    one, other = pipeline.transform(table), again.transform(table)
    assert one.sparse is not None
    assert other.sparse is not None
    assert one.n_sparse > 0
    assert one.sparse_names == other.sparse_names
    assert (one.sparse != other.sparse).nnz == 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"features\.kmers\.chains must name one chain or more, each once; got \[\]"):
        read_options(Kmers, {"chains": []}, "features.kmers")
    with pytest.raises(RecipeError, match=r"features\.kmers\.k must be at least 1 and at most 5; got 9"):
        read_options(Kmers, {"k": 9}, "features.kmers")
