import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailbind.errors import TrainingError
from tailbind.training.batches import Epoch, Shuffled, Stratified


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers and the bins of rows, mixed."""
    bins = np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts))
    return np.arange(1000, 1000 + len(bins)), bins


def batches(epoch: Epoch) -> tuple[torch.Tensor, ...]:
    return torch.split(epoch.rows, epoch.sizes)


def test_shuffled_is_every_row_once_in_the_order_of_one_permutation() -> None:
    rows = np.arange(100, 150)
    epoch = Shuffled(rows)(16, stream())
    assert torch.equal(epoch.rows, torch.from_numpy(rows)[torch.randperm(50, generator=stream())])
    assert epoch.sizes == [16, 16, 16, 2]
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
    held = [np.bincount(bins[batch.numpy() - 1000], minlength=5) for batch in batches(epoch)]
    assert all((of_batch[present] >= least).all() for of_batch in held)
    assert all(len(batch) <= size for batch in batches(epoch))
    for index in present:  # evenly dealt
        assert max(of_batch[index] for of_batch in held) - min(of_batch[index] for of_batch in held) <= 1
    drawn, factor = epoch.rows.numpy(), epoch.factor.numpy()
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
    times = np.bincount(epoch.rows.numpy() - 1000, minlength=len(rows))
    n_batches = len(epoch.sizes)
    assert n_batches == 32, "16 + 10 + 4 + 1 + 1 rows of the bins"
    assert (times[np.isin(bins, [1, 2, 3])] == 1).all()
    assert times[bins == 4].tolist() == [n_batches]
    assert times[bins == 0].tolist() == [16, 16]


def test_the_same_stream_gives_the_same_batches_and_goes_on() -> None:
    rows, bins = rows_of(3, 50, 30, 20, 1)
    batching = Stratified(rows, bins, 2)
    first, again = stream(), stream()
    one, other = batching(16, first), batching(16, again)
    assert torch.equal(one.rows, other.rows)
    assert not torch.equal(batching(16, first).rows, one.rows)
    saved = again.get_state()
    expected = batching(16, again).rows
    resumed = torch.Generator()
    resumed.set_state(saved)
    assert torch.equal(batching(16, resumed).rows, expected)


@pytest.mark.parametrize(("n", "size"), [(1, 5), (2, 5), (6, 5), (11, 5), (5, 2), (3, 2), (7, 2)])
def test_no_batch_of_a_single_bin_is_a_single_row(n: int, size: int) -> None:
    epoch = Stratified(np.arange(n), np.zeros(n, np.intp))(size, stream())
    lengths = epoch.sizes
    assert sum(lengths) == n
    assert min(lengths) >= min(2, n)
