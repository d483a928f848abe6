import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailbind.errors import TrainingError
from tailbind.training.batches import Epoch, Shuffled, Stratified, batches


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers and the bins of rows, mixed."""
    bins = np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts))
    return np.arange(1000, 1000 + len(bins)), bins


def test_shuffled_is_every_row_once_in_the_order_of_one_permutation() -> None:
    rows = np.arange(100, 150)
    epoch = Shuffled(rows)(16, stream())
    assert torch.equal(torch.cat(epoch.rows), torch.from_numpy(rows)[torch.randperm(50, generator=stream())])
    assert [len(batch) for batch in epoch.rows] == [16, 16, 16, 2]
    assert epoch.factor is None


@given(
    st.lists(st.integers(0, 60), min_size=5, max_size=5).filter(any),
    st.integers(5, 40),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_what_holds_of_stratified_batches(counts: list[int], size: int, least: int, seed: int) -> None:
    rows, bins = rows_of(*counts)
    present = np.flatnonzero(counts)
    if least * len(present) > size:
        with pytest.raises(TrainingError, match=rf"A batch must hold {least} rows of each of {len(present)} bins"):
            Stratified(rows, bins, least)(size, stream(seed))
        return
    epoch = Stratified(rows, bins, least)(size, stream(seed))
    assert epoch.factor is not None
    held = [np.bincount(bins[batch.numpy() - 1000], minlength=5) for batch in epoch.rows]
    assert all((of_batch[present] >= least).all() for of_batch in held)
    assert all(len(batch) <= size for batch in epoch.rows)
    for index in present:  # evenly dealt
        assert max(of_batch[index] for of_batch in held) - min(of_batch[index] for of_batch in held) <= 1
    drawn, factor = torch.cat(epoch.rows).numpy(), torch.cat(epoch.factor).numpy()
    times = np.bincount(drawn - 1000, minlength=len(rows))
    assert times.min() >= 1
    for index in present:  # within a bin as often, or once more
        assert np.ptp(times[bins == index]) <= 1
    assert factor.mean() == pytest.approx(1, rel=1e-4)
    # A bin counts for its rows, however often they are drawn.
    sums = np.bincount(bins[drawn - 1000], weights=factor, minlength=5)
    assert sums == pytest.approx(np.array(counts) * len(drawn) / len(rows), rel=1e-4)


def test_common_rows_come_once_and_rare_ones_in_every_batch() -> None:
    rows, bins = rows_of(2, 500, 300, 100, 1)
    epoch = Stratified(rows, bins)(32, stream())
    times = np.bincount(torch.cat(epoch.rows).numpy() - 1000, minlength=len(rows))
    n_batches = len(epoch.rows)
    assert n_batches == 32, "16 + 10 + 4 + 1 + 1 rows of the bins"
    assert (times[np.isin(bins, [1, 2, 3])] == 1).all()
    assert times[bins == 4].tolist() == [n_batches]
    assert times[bins == 0].tolist() == [16, 16]


def test_the_same_stream_gives_the_same_batches_and_goes_on() -> None:
    rows, bins = rows_of(3, 50, 30, 20, 1)
    batching = Stratified(rows, bins, 2)
    first, again = stream(), stream()
    one, other = batching(16, first), batching(16, again)
    assert torch.equal(torch.cat(one.rows), torch.cat(other.rows))
    assert not torch.equal(torch.cat(batching(16, first).rows), torch.cat(one.rows))
    saved = again.get_state()
    expected = torch.cat(batching(16, again).rows)
    resumed = torch.Generator()
    resumed.set_state(saved)
    assert torch.equal(torch.cat(batching(16, resumed).rows), expected)


@pytest.mark.parametrize(("n", "size"), [(1, 5), (2, 5), (6, 5), (11, 5), (5, 2), (3, 2), (7, 2)])
def test_no_batch_of_a_single_bin_is_a_single_row(n: int, size: int) -> None:
    epoch = Stratified(np.arange(n), np.zeros(n, np.intp))(size, stream())
    lengths = [len(batch) for batch in epoch.rows]
    assert sum(lengths) == n
    assert min(lengths) >= min(2, n)


def test_batches_are_taken_to_a_device_as_they_are() -> None:
    epoch = Epoch(batches(torch.arange(9), 4), [torch.ones(4), torch.full((5,), 2.0)])
    there = epoch.to(torch.device("cpu"))
    assert [batch.tolist() for batch in there.rows] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert there.factor is not None
    assert [factor.tolist() for factor in there.factor] == [[1.0] * 4, [2.0] * 5]
