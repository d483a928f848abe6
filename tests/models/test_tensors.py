import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.models.tensors import as_tensors
from tailbind.table.features import Features


def features(n: int = 30, n_sparse: int = 11, density: float = 0.2) -> Features:
    """Random rows; some have no nonzero."""
    rng = np.random.default_rng(1)
    sparse = rng.normal(size=(n, n_sparse)) * (rng.random((n, n_sparse)) < density)
    sparse[[0, 7, n - 1]] = 0
    return Features(
        rng.normal(size=(n, 3)).astype(np.float32),
        ("a", "b", "c"),
        csr_array(sparse.astype(np.float32)),
        tuple(f"s{column}" for column in range(n_sparse)),
    )


@pytest.mark.parametrize(
    "rows", [np.array([4, 2, 2, 0, 29]), np.array([7]), np.array([], np.intp), np.arange(30), np.array([29, 0])]
)
def test_rows_are_gathered_as_scipy_gathers_them(rows: np.ndarray) -> None:
    X = features()
    taken, expected = as_tensors(X).take(torch.from_numpy(rows)), X.take(rows)
    assert expected.sparse is not None
    assert taken.indices is not None and taken.offsets is not None and taken.values is not None
    np.testing.assert_array_equal(taken.dense, expected.dense)
    np.testing.assert_array_equal(taken.offsets, expected.sparse.indptr)
    np.testing.assert_array_equal(taken.indices, expected.sparse.indices)
    np.testing.assert_array_equal(taken.values, expected.sparse.data)


def test_a_stretch_of_rows_is_those_rows() -> None:
    X = as_tensors(features())
    stretch, rows = X.take(slice(5, 12)), X.take(torch.arange(5, 12))
    assert len(stretch) == 7
    assert all(torch.equal(a, b) for a, b in zip(stretch.arguments, rows.arguments, strict=True))


def test_an_array_is_a_dense_block_that_is_not_copied() -> None:
    array = np.ones((4, 2), np.float32)
    X = as_tensors(array)
    assert len(X.arguments) == 1
    array[0, 0] = 5
    assert float(X.dense[0, 0]) == 5
    assert X.take(torch.tensor([3, 0])).dense[:, 0].tolist() == [1, 5]
