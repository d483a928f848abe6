from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import multivariate_normal, spearmanr, truncnorm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern, WhiteKernel

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError, RecipeError, TrainingError
from tailbind.models import gaussian_process
from tailbind.models.baselines import Ridge
from tailbind.models.contract import Predictive, Problem
from tailbind.models.gaussian_process import (
    GaussianProcess,
    Process,
    _expected,
    _likelihood_and_slope,
    _Observed,
    _stretches,
)
from tailbind.models.kernels import NOISE, Kernel
from tailbind.models.points import Group, Layout, Part, Points, complexes, in_turn
from tailbind.options import read_options
from tailbind.table.features import Features

N, TRAIN, TEST = 400, np.arange(150), np.arange(150, 400)
LETTERS = "ADFKW"


def landscape(**changes: object) -> Problem:
    """Six sites of five residues each, of which two matter and act together; a dense column that adds up."""
    rng = np.random.default_rng(0)
    names: list[str] = []
    for site in range(6):
        where = f"heavy 0 H{50 + site} CDR2 S"
        names += [f"{where}>any", *(f"{where}>{letter}" for letter in LETTERS)]
    names.append("heavy family 0")
    columns = np.zeros((N, len(names)), np.float32)
    columns[:, -1] = 1
    residues = rng.integers(-1, len(LETTERS), (N, 6))  # -1: the consensus
    for site in range(6):
        changed = residues[:, site] >= 0
        columns[changed, 6 * site] = 1
        columns[changed, 6 * site + 1 + residues[changed, site]] = 1
    effect = np.array([0.0, -0.2, -1.0, -0.9, 0.8, -1.1])  # by residue, the consensus last
    first, second = effect[residues[:, 0]], effect[residues[:, 1]]
    dense = rng.normal(size=(N, 2)).astype(np.float32)
    y = 8 + first + second + first * second + 0.3 * dense[:, 0] + rng.normal(scale=0.05, size=N)
    X = Features(dense, ("a", "b"), csr_array(columns), tuple(names))
    return replace(Problem(X, y, np.full(N, "="), np.ones(N), TRAIN, np.empty(0, np.intp)), **changes)


@pytest.fixture(scope="module")
def fitted() -> Process:
    return GaussianProcess().fit(landscape())


def rmse(model: Predictive, task: Problem, rows: np.ndarray = TEST) -> float:
    return float(np.sqrt(np.square(model.predict(task.X, rows) - task.y[rows]).mean()))


def test_a_process_learns_what_acts_together_where_a_line_cannot(fitted: Process) -> None:
    task = landscape()
    assert isinstance(fitted, Predictive)
    assert rmse(fitted, task) < 0.6 * rmse(Ridge(1.0).fit(task.X, task.y, TRAIN), task)
    assert spearmanr(fitted.predict(task.X, TEST), task.y[TEST])[0] > 0.95
    relevance = fitted.parameters[-6:]
    assert relevance[:2].min() > relevance[2:].max()
    assert fitted.to(torch.device("cpu")) is fitted


def test_sites_may_all_matter_alike() -> None:
    task = landscape()
    alike = GaussianProcess(relevance=0.0).fit(task)
    assert alike.parameters[-6:].tolist() == [0.0] * 6
    assert rmse(GaussianProcess().fit(task), task) < rmse(alike, task)


def test_a_residue_seen_once_is_thought_to_do_as_its_like() -> None:
    """Valine does harm; isoleucine and aspartate were seen once, alike: of the two, isoleucine is like valine."""
    where = "heavy 0 H52 CDR2 S"
    names = (f"{where}>any", f"{where}>V", f"{where}>I", f"{where}>D", "heavy 0 H53 CDR2 S>T")
    rows = np.zeros((42, 5), np.float32)
    rows[:20, :2] = 1
    rows[20, [0, 2]] = rows[21, [0, 3]] = 1
    rows[:40:2, 4] = 1
    y = np.where(rows[:, 1] == 1, 6.0, 8.0) + np.random.default_rng(0).normal(scale=0.5, size=42)
    y[20:22] = 7.0
    rows[40:] = rows[20:22]
    rows[40:, 4] = rows[20, 4] = rows[21, 4] = 0
    X = Features(np.zeros((42, 0), np.float32), (), csr_array(rows), names)
    model = GaussianProcess().fit(Problem(X, y, np.full(42, "="), np.ones(42), np.arange(40), np.empty(0, np.intp)))
    isoleucine, aspartate = model.predict(X, np.array([40, 41]))
    assert isoleucine < aspartate - 0.1


def part_of(values: np.ndarray) -> Part:
    return Part(torch.from_numpy(values), torch.from_numpy(np.square(values).sum(1)), torch.arange(len(values)))


def test_the_kernel_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    sites, dense = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    points = Points((part_of(sites), part_of(dense)), torch.zeros(20, dtype=torch.long))
    groups = Group("heavy", "sites"), Group("other", "columns")
    kernel = Kernel(groups, {groups[0]: np.array([0, 0, 1])})
    parameters = torch.log(torch.tensor([0.5, 0.2, 0.7, 1.3, 0.3, 0.9, 4.0, 0.25], dtype=torch.float64))
    stretched = sites * [2, 2, 0.5]
    expected = (
        1
        + 0.5 * DotProduct(0)(stretched)
        + 0.7 * Matern(1.3, nu=2.5)(stretched)
        + 0.2 * DotProduct(0)(dense)
        + 0.3 * RBF(0.9)(dense)
    )
    found = kernel.matrix(parameters, points, points)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(kernel.diagonal(parameters, points).numpy(), np.diag(expected), rtol=1e-9)


def test_where_antibody_and_antigen_vary_there_are_rough_parts_of_both_and_of_each() -> None:
    rng = np.random.default_rng(0)
    heavy, antigen = rng.normal(size=(9, 2)), rng.normal(size=(9, 3))
    complex_ = np.array([1, 1, 2, 2, 2, 3, 4, 4, 5])
    groups = Group("heavy", "columns"), Group("antigen", "columns"), Group("other", "complex")
    kernel = Kernel(groups, {})
    points = Points((part_of(heavy), part_of(antigen)), torch.from_numpy(complex_))
    values = [0.3, 0.5, 1.1, 0.7, 0.2, 1.4, 0.4, 0.6]  # complex; both: size, lengths; antibody: size, length; antigen
    parameters = torch.log(torch.tensor(values, dtype=torch.float64))
    expected = (
        1
        + 0.3 * (complex_[:, None] == complex_)
        + 0.5 * Matern(1.0, nu=0.5)(np.hstack([heavy / 1.1, antigen / 0.7]))
        + 0.2 * Matern(1.4, nu=0.5)(heavy)
        + 0.4 * Matern(0.6, nu=0.5)(antigen)
    )
    np.testing.assert_allclose(kernel.matrix(parameters, points, points).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(kernel.diagonal(parameters, points).numpy(), np.diag(expected), atol=1e-5)
    assert len(kernel.start()) == len(values)


def test_a_process_of_dense_columns_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(80, 2)).astype(np.float32)
    y = 7 + np.sin(2 * X[:, 0]) + rng.normal(scale=0.1, size=80)
    train = np.arange(50)
    model = GaussianProcess().fit(Problem(X, y, np.full(80, "="), np.ones(80), train, np.empty(0, np.intp)))
    noise, linear, amplitude, length = np.exp(model.parameters)
    kernel = (
        ConstantKernel(1.0)
        + ConstantKernel(linear) * DotProduct(0, "fixed")
        + ConstantKernel(amplitude) * RBF(length)
        + WhiteKernel(noise + 1e-6)
    )
    points = model.layout.points(Features(X, ("a", "b"))).parts[0].values.numpy()
    judge = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(points[train], y[train])
    mean, sd = judge.predict(points[50:], return_std=True)
    np.testing.assert_allclose(model.predict(X, np.arange(50, 80)), mean, atol=1e-3)
    np.testing.assert_allclose(model.predict_sd(X, np.arange(50, 80)), sd, rtol=1e-4)
    assert np.sqrt(np.square(mean - y[50:]).mean()) < 0.3


def observed_of(task: Problem, rows: np.ndarray) -> tuple[Kernel, _Observed]:
    layout = Layout.fit(task.X, rows)
    y = torch.from_numpy((task.y[rows] - task.y[rows].mean()) / task.y[rows].std())
    weight = torch.from_numpy(task.weight[rows] / task.weight[rows].mean())
    return Kernel.of(layout), _Observed(layout.points(task.X, rows).told_apart(), y, weight)


def likelihood(kernel: Kernel, observed: _Observed, parameters: np.ndarray) -> tuple[float, np.ndarray]:
    return _likelihood_and_slope(kernel, parameters, observed, list(_stretches(kernel, observed.points)))


def test_the_likelihood_is_a_normal_s_and_weights_divide_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    task = landscape(weight=np.random.default_rng(0).uniform(0.5, 2, N))
    kernel, observed = observed_of(task, np.arange(30))
    parameters = np.r_[NOISE, kernel.start()]
    noise = 0.1 / observed.weight.numpy() + 1e-6
    own = torch.from_numpy(parameters[1:])
    covariance = kernel.matrix(own, observed.points, observed.points).numpy() + np.diag(noise)
    expected = multivariate_normal(np.zeros(30), covariance).logpdf(observed.y.numpy())
    assert likelihood(kernel, observed, parameters)[0] == pytest.approx(expected)
    monkeypatch.setattr(gaussian_process, "STRETCH", 30 * 3 * 7)  # seven rows at a time
    value, slope = likelihood(kernel, observed, parameters)
    assert value == pytest.approx(expected)
    for at in range(len(parameters)):
        step = np.zeros(len(parameters))
        step[at] = 1e-5
        up, down = (likelihood(kernel, observed, parameters + sign * step)[0] for sign in (1, -1))
        assert slope[at] == pytest.approx((up - down) / 2e-5, abs=1e-4)


def test_hyperparameters_are_likelier_than_where_the_search_began(fitted: Process) -> None:
    kernel, observed = observed_of(landscape(), TRAIN)
    found, start = (likelihood(kernel, observed, p)[0] for p in (fitted.parameters, np.r_[NOISE, kernel.start()]))
    assert found - start > 50


def test_the_interval_holds_what_it_should(fitted: Process) -> None:
    task = landscape()
    sd = fitted.predict_sd(task.X, TEST)
    inside = np.abs(fitted.predict(task.X, TEST) - task.y[TEST]) < 1.96 * sd
    assert 0.85 < inside.mean() <= 1
    assert fitted.predict_sd(task.X, TRAIN).mean() < sd.mean()
    assert fitted.predict_sd(task.X, np.empty(0, np.intp)).shape == (0,)


def test_a_bound_becomes_the_mean_of_what_others_say_cut_off_there() -> None:
    task = landscape()
    kernel, observed = observed_of(task, np.arange(40))
    parameters = np.r_[NOISE, kernel.start()]
    for sign, side in (("<", -1), (">", 1)):
        relation = np.array(["="] * 39 + [sign])
        found = _expected(kernel, parameters, observed, relation).y.numpy()
        np.testing.assert_array_equal(found[:39], observed.y.numpy()[:39])
        covariance = kernel.matrix(torch.from_numpy(parameters[1:]), observed.points, observed.points).numpy()
        covariance += (0.1 + 1e-6) * np.eye(40)
        weights = np.linalg.solve(covariance[:39, :39], covariance[:39, 39])
        mean = weights @ observed.y.numpy()[:39]
        sd = np.sqrt(covariance[39, 39] - weights @ covariance[:39, 39])
        cut = (float(observed.y[39]) - mean) / sd
        low, high = (-np.inf, cut) if side < 0 else (cut, np.inf)
        assert found[39] == pytest.approx(truncnorm(low, high, mean, sd).mean())


def test_what_is_done_with_bounds() -> None:
    task = landscape()
    floor = np.median(task.y)
    below = task.y < floor
    floored = replace(task, y=np.where(below, floor, task.y), relation=np.where(below, "<", "="))
    errors = {}
    for bounds in gaussian_process.BOUNDS:
        model = GaussianProcess(bounds=bounds).fit(floored)
        errors[bounds] = rmse(model, task)
        assert len(model.observed.y) == (150 if bounds != "drop" else int((~below[TRAIN]).sum()))
    assert errors["expect"] < 0.9 * errors["measured"]
    with pytest.raises(TrainingError, match=r"needs a training row .* whose relation is \"=\"; there is none"):
        GaussianProcess(bounds="drop").fit(replace(task, relation=np.full(N, "<")))
    with pytest.raises(TrainingError, match="weight above 0; there is none"):
        GaussianProcess().fit(replace(task, weight=np.zeros(N)))


def test_without_bounds_they_are_all_the_same(fitted: Process) -> None:
    task = landscape()
    for bounds in ("measured", "drop"):
        np.testing.assert_array_equal(GaussianProcess(bounds=bounds).fit(task).predict(task.X), fitted.predict(task.X))


def test_of_too_many_rows_some_are_drawn_and_it_is_said() -> None:
    told: list[str] = []
    task = landscape(notify=told.append)
    options = GaussianProcess(max_rows=60, tuning_rows=40)
    model = options.fit(task)
    assert len(model.observed.y) == 60
    assert told == [
        "The Gaussian process learns from 60 of the 150 training rows, family by family in turn: its time grows with "
        "their cube (model.max_rows)."
    ]
    replace(options, choice="random").fit(task)
    assert ", drawn at random: " in told[1]
    np.testing.assert_array_equal(options.fit(task).predict(task.X), model.predict(task.X))
    assert (options.fit(replace(task, seed=1)).predict(task.X) != model.predict(task.X)).any()
    assert np.std(task.y[TEST]) > rmse(model, task)


@pytest.mark.parametrize(("most", "expected"), [(150, {1}), (149, {2})])
def test_few_rows_are_learned_by_one_thread(most: int, expected: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    likelihood = gaussian_process._likelihood_and_slope

    def watched(*given: object) -> object:
        seen.add(torch.get_num_threads())
        return likelihood(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gaussian_process, "MOST_ALONE", most)
    monkeypatch.setattr(gaussian_process, "STEPS", 2)
    monkeypatch.setattr(gaussian_process, "_likelihood_and_slope", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        GaussianProcess().fit(landscape())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == expected


def test_only_training_rows_are_seen(fitted: Process) -> None:
    task = landscape()
    y, dense = task.y.copy(), task.X.dense.copy()
    y[TEST], dense[TEST] = 99, 99
    other = GaussianProcess().fit(replace(task, y=y, X=replace(task.X, dense=dense)))
    np.testing.assert_array_equal(other.predict(task.X), fitted.predict(task.X))


def test_weightless_rows_are_left_out() -> None:
    task = landscape()
    weight = np.ones(N)
    weight[100:150] = 0
    spoilt = np.where(weight == 0, 99, task.y)
    model = GaussianProcess().fit(replace(task, weight=weight, y=spoilt))
    expected = GaussianProcess().fit(replace(task, train=np.arange(100)))
    np.testing.assert_array_equal(model.predict(task.X), expected.predict(task.X))


def test_rows_are_predicted_in_their_order_a_piece_at_a_time(fitted: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    task, rows = landscape(), np.array([5, 300, 3])
    whole, sd = fitted.predict(task.X), fitted.predict_sd(task.X)
    assert fitted.predict_with_sd(task.X, rows)[1] is None
    assert fitted.predict(task.X, np.empty(0, np.intp)).shape == (0,)
    monkeypatch.setattr(gaussian_process, "MOST_LIKENESSES", 150 * 2 * 7)
    np.testing.assert_allclose(fitted.predict(task.X), whole, rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(task.X, rows), whole[rows], rtol=1e-5)
    np.testing.assert_allclose(fitted.predict_sd(task.X, rows), sd[rows])


def test_a_process_comes_back_from_a_file(fitted: Process, tmp_path: Path) -> None:
    task = landscape()
    save_state(tmp_path / "state.pth", "model", fitted.state())
    again = GaussianProcess.from_state(load_state(tmp_path / "state.pth", "model"))
    np.testing.assert_array_equal(again.predict(task.X), fitted.predict(task.X))
    np.testing.assert_array_equal(again.predict_sd(task.X), fitted.predict_sd(task.X))
    assert again.describe() == fitted.describe()
    assert fitted.describe().startswith(
        "Gaussian process of 150 rows, 6 sites and 2 dense columns that vary in them, noise 0.0"
    )


def test_rows_alike_and_labels_alike_are_borne() -> None:
    task = landscape()
    same = replace(task, train=np.repeat(np.arange(5), 6))
    assert np.isfinite(GaussianProcess().fit(same).predict(task.X)).all()
    flat = GaussianProcess().fit(replace(task, y=np.full(N, 7.0)))
    np.testing.assert_allclose(flat.predict(task.X), 7.0)
    one = GaussianProcess().fit(replace(task, train=np.array([3])))
    np.testing.assert_allclose(one.predict(task.X), task.y[3], atol=1e-6)


def test_other_features_than_those_of_training_are_refused(fitted: Process) -> None:
    with pytest.raises(FeatureError, match="must have 2 dense and 37 sparse columns, as in training; got 3 and 0"):
        fitted.predict(np.zeros((2, 3), np.float32))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.bounds must be one of measured, drop, expect; got 'tobit'"):
        read_options(GaussianProcess, {"bounds": "tobit"}, "model")


def strangers() -> Problem:
    """Variants of complexes: antigens of three kinds, told by words; many variants of some complexes, few of others."""
    rng = np.random.default_rng(2)
    n, n_complexes = 240, 40
    complex_ = np.r_[np.zeros(80, np.intp), rng.integers(1, n_complexes, n - 80)]
    kind = rng.integers(0, 3, n_complexes)
    level = np.array([-1.5, 0.0, 1.5])[kind] + rng.normal(scale=0.3, size=n_complexes)
    names = [f"heavy family {at}" for at in range(n_complexes)] + [f"antigen family {at}" for at in range(n_complexes)]
    names += [f"antigen kmer {word}" for word in ("AAA", "CCC", "DDD", "EEE")]
    columns = np.zeros((n, len(names)), np.float32)
    columns[np.arange(n), complex_] = columns[np.arange(n), n_complexes + complex_] = 1
    columns[np.arange(n), 2 * n_complexes + kind[complex_]] = np.sqrt(0.9)
    columns[:, -1] = np.sqrt(0.1)
    new = complex_ >= 30
    columns[np.ix_(new, np.arange(2 * n_complexes))] = 0
    y = 8 + level[complex_] + rng.normal(scale=0.3, size=n)
    X = Features(np.empty((n, 0), np.float32), (), csr_array(columns), tuple(names))
    return Problem(X, y, np.full(n, "="), np.ones(n), np.flatnonzero(~new), np.flatnonzero(new))


def test_strangers_are_known_by_their_words() -> None:
    task = strangers()
    test = task.validation
    model = GaussianProcess().fit(task)
    assert rmse(model, task, test) < 0.5 * np.std(task.y[test])
    wordless = replace(task, X=replace(task.X, sparse=task.X.sparse[:, :80], sparse_names=task.X.sparse_names[:80]))
    assert rmse(GaussianProcess().fit(wordless), wordless, test) > 0.9 * np.std(task.y[test])
    assert (model.predict_sd(task.X, test).min() > model.predict_sd(task.X, task.train[:80])).all()


def test_a_complex_is_a_family_of_heavy_chains_and_one_of_antigens() -> None:
    task = strangers()
    found = complexes(task.X, np.arange(len(task.y)))
    assert (found[task.validation] == 0).all()
    families = task.X.sparse[:, :40].toarray().argmax(axis=1)
    for one in task.train[:90]:
        np.testing.assert_array_equal(found[task.train] == found[one], families[task.train] == families[one])


def test_rows_are_chosen_family_by_family() -> None:
    families = np.repeat([3, 8, 5], [50, 4, 10])
    chosen = in_turn(families, 20, np.random.default_rng(0))
    assert np.bincount(families[chosen])[[3, 8, 5]].tolist() == [8, 4, 8]
    assert len(set(chosen.tolist())) == 20
    assert (in_turn(families, 20, np.random.default_rng(1)) != chosen).any()
    task = strangers()
    rows = GaussianProcess(max_rows=60)._chosen(task)
    counts = np.unique(complexes(task.X, rows), return_counts=True)[1]
    whole = np.unique(complexes(task.X, task.train), return_counts=True)[1]
    assert counts.max() <= 3
    assert len(counts) == len(whole)


def test_dense_columns_far_outside_training_take_a_row_no_further_than_their_reach() -> None:
    rng = np.random.default_rng(3)
    dense = rng.normal(size=(60, 2)).astype(np.float32)
    dense[50:55, 0], dense[55:, 0] = 100, 1e6
    X = Features(dense, ("heavy charge", "antigen charge"))
    task = Problem(X, 7 + dense[:, 1].astype(float), np.full(60, "="), np.ones(60), np.arange(50), np.arange(0))
    model = GaussianProcess().fit(task)
    dense[50:, 1] = 0
    np.testing.assert_allclose(model.predict(X, np.arange(50, 60)), model.predict(X, np.array([50]))[0], rtol=1e-5)
    assert 4 < model.predict(X, np.array([55]))[0] < 10
