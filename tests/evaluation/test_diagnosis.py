import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tailbind.evaluation.diagnosis import ADVICE, Finding, Likelihood, diagnose
from tailbind.evaluation.metrics import evaluate
from tailbind.models import MODELS
from tailbind.options import Registry, read_options
from tailbind.recipes import load_recipe
from tailbind.recipes.schema import parse_override
from tailbind.training import LOSSES, OPTIMIZERS
from tailbind.training.stages import TrainingOptions

HEALTHY_TRAIN = 0.5 + 4 * np.exp(-np.arange(60) / 8)
HEALTHY_VAL = 0.6 + 4 * np.exp(-np.arange(60) / 8)
GOOD: dict[str, Any] = {"n": 500, "rmse": 0.8, "label_sd": 1.6, "prediction_sd": 1.4, "distinct_predictions": 480}


def history(train: Any = HEALTHY_TRAIN, val: Any = HEALTHY_VAL, seconds: float = 3.0) -> Mapping[str, Sequence[float]]:
    n = len(train)
    return {
        "epoch": list(range(1, n + 1)),
        "train_loss": list(train),
        "val_loss": list(val),
        "lr": [1e-4] * n,
        "seconds": [seconds] * n,
        "rows_per_second": [1e4] * n,
    }


def only(findings: list[Finding], symptom: str) -> Finding:
    assert [finding.symptom for finding in findings] == [symptom]
    return findings[0]


def test_a_healthy_run_has_nothing_wrong() -> None:
    assert diagnose(history(), GOOD, ridge_rmse=1.0, device="cpu") == []
    assert diagnose(history(), GOOD) == []


def test_a_saw_tooth_of_restarts_is_healthy() -> None:
    saw, fall = np.tile(np.linspace(0.06, 0.0, 20), 5), 4 * np.exp(-np.arange(100) / 8)
    assert diagnose(history(0.5 + fall, 0.6 + fall + saw), GOOD, ridge_rmse=1.0) == []


def test_overfitting_by_a_rising_validation_loss() -> None:
    rise = np.maximum(0, np.arange(60) - 25) * 0.02
    # The training loss stays near to it, so that the rise alone tells.
    found = only(diagnose(history(HEALTHY_TRAIN + 0.4, HEALTHY_VAL + rise), GOOD, ridge_rmse=1.0), "overfitting")
    lowest = int(np.argmin(HEALTHY_VAL + rise)) + 1
    assert f"after epoch {lowest} of 60" in found.evidence
    assert found.options[0] == "model.dropout=0.4"
    assert "optimizer.weight_decay=0.001" in found.options


def test_overfitting_by_a_gap() -> None:
    train = 4 * np.exp(-np.arange(60) / 8) + 0.05
    val = HEALTHY_VAL + np.where(np.arange(60) > 40, 0.05, 0.0)
    only(diagnose(history(train=train, val=val), GOOD, ridge_rmse=1.0), "overfitting")


def test_underfitting_by_being_worse_than_ridge() -> None:
    found = only(diagnose(history(), GOOD, ridge_rmse=0.7), "underfitting")
    assert "0.800 is above 0.700, that of ridge regression" in found.evidence
    assert "training.epochs=150" in found.options
    found = only(diagnose(history(), {**GOOD, "rmse": 1.7}), "underfitting")
    assert "1.700 is above 1.600, that of their SD" in found.evidence


def test_underfitting_by_still_falling() -> None:
    falling = np.geomspace(8, 1, 60)
    found = only(diagnose(history(train=falling, val=falling * 1.05), GOOD, ridge_rmse=1.0), "underfitting")
    assert "still falling" in found.evidence


def as_likelihood(squared: Any) -> Any:
    """Return the mean negative log likelihood of a normal distribution fitted to errors of this mean square."""
    return np.log(np.asarray(squared) * 2 * np.pi * np.e) / 2


def at_noise(squared: Any, sigma: float, measured: float = 1.0) -> Any:
    """Return the mean negative log likelihood of such errors under a given noise; bounds among them cost nothing."""
    return np.asarray(squared) / (2 * sigma**2) + measured * (np.log(sigma) + np.log(2 * np.pi) / 2)


@pytest.mark.parametrize("sigma", [None, 0.05, 0.2])
def test_a_likelihood_is_judged_as_the_squared_errors_it_stands_for(sigma: float | None) -> None:
    # Below a mean square of about 0.06 the loss of a fitted noise is negative, and of these as low as it gets.
    scale = 0.01 if sigma is None else sigma**2 / 3
    rise = np.maximum(0, np.arange(60) - 25) * 0.02
    cases = {
        "healthy": (HEALTHY_TRAIN, HEALTHY_VAL, 1.0),
        "overfitting": (HEALTHY_TRAIN + 0.4, HEALTHY_VAL + rise, 1.0),
        "underfitting": (np.geomspace(8, 1, 60), np.geomspace(8, 1, 60) * 1.05, 1.0),
        "unstable": (HEALTHY_TRAIN, 0.6 * np.where(np.arange(60) % 2, 1.0, 1.6), 1.0),
    }
    for name, (train, val, ridge) in cases.items():
        squared = diagnose(history(scale * train, scale * val), GOOD, ridge)
        losses = [as_likelihood(x * scale) if sigma is None else at_noise(x * scale, sigma) for x in (train, val)]
        negative = history(*losses)
        assert min(negative["val_loss"]) < 0, name
        found = diagnose(negative, GOOD, ridge, likelihood=Likelihood(sigma))
        assert [finding.symptom for finding in found] == [finding.symptom for finding in squared], name
        assert all("loss, as squared error," in finding.evidence for finding in found), name


def test_a_likelihood_of_a_first_epoch_far_off_is_no_overflow() -> None:
    far = [1e6, *as_likelihood(HEALTHY_VAL)]
    for sigma in (None, 0.2):
        assert diagnose(history(far, far), GOOD, ridge_rmse=1.0, likelihood=Likelihood(sigma)) == []


def test_errors_above_a_given_noise_are_not_blown_up() -> None:
    # The fitted noise's exponential makes of this quiet run an RMSE that jumps by factors.
    rng = np.random.default_rng(0)
    squared = (0.8 + rng.uniform(-0.02, 0.02, 60)) ** 2
    quiet = history(at_noise(squared, 0.2), at_noise(squared, 0.2))
    assert diagnose(quiet, GOOD, ridge_rmse=1.0, likelihood=Likelihood(0.2)) == []
    assert diagnose(quiet, GOOD, ridge_rmse=1.0, likelihood=Likelihood()) != []


def test_the_evidence_of_a_given_noise_is_in_squared_errors() -> None:
    train, val = np.full(60, 0.04), np.where(np.arange(60) < 30, 0.2, 0.25)
    losses = history(at_noise(train, 0.2), at_noise(val, 0.2))
    found = only(diagnose(losses, GOOD, ridge_rmse=1.0, likelihood=Likelihood(0.2)), "overfitting")
    assert "training loss, as squared error, is 0.04 and the validation loss, as squared error, 0.25" in found.evidence
    assert "lowest, 0.2, after epoch 1 of 60" in found.evidence


@pytest.mark.parametrize("sigma", [0.2, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_bounds_count_for_the_square_of_what_they_are_missed_by(sigma: float, share: float) -> None:
    rng = np.random.default_rng(1)
    error, marked = rng.normal(0, 3 * sigma, 20_000), rng.random(20_000) < share
    loss = np.where(marked, -stats.norm.logcdf(-error / sigma), -stats.norm.logpdf(error, scale=sigma)).mean()
    one_sided = np.square(np.where(marked, np.maximum(error, 0), error)).mean()
    same = np.array([loss])
    train, val = Likelihood(sigma, (1 - marked.mean(), 1 - marked.mean())).squared_error(same, same)
    assert train == val
    # A bound's own cost is at most sigma² (2 log 2 + what the tail adds, below 4).
    assert one_sided * (1 - 1e-9) <= train[0] <= one_sided + marked.mean() * 4 * sigma**2
    assert share > 0 or train[0] == pytest.approx(one_sided)


def test_a_loss_that_no_errors_have_counts_as_none() -> None:
    train, val = Likelihood(2.0, (1.0, 0.5)).squared_error(np.array([0.5]), np.array([0.5]))
    assert (train[0], val[0]) == (0.0, 0.0)


def test_weights_are_in_the_shares() -> None:
    squared, weight = np.array([0.01, 0.09, 0.25]), np.array([4.0, 0.5, 0.1])
    loss = np.array([(weight * at_noise(squared, 0.2)).mean()])
    shares = (float(weight.mean()), float(weight.mean()))
    assert Likelihood(0.2, shares).squared_error(loss, loss)[0] == pytest.approx((weight * squared).mean())


def test_a_loss_that_was_chosen_for_its_bounds_is_not_advised_away() -> None:
    few = {**GOOD, "distinct_predictions": 2}
    for kind, advised in (("focal", True), ("mse", False), ("tobit", False)):
        found = only(diagnose(history(), few, ridge_rmse=1.0, settings={"loss": {"kind": kind}}), "collapse")
        assert ("loss.kind=mse" in found.options) == advised, kind


def test_collapse_onto_few_values() -> None:
    found = only(diagnose(history(), {**GOOD, "distinct_predictions": 2}, ridge_rmse=1.0), "collapse")
    assert "2 distinct predictions on 500 validation rows" in found.evidence


def test_collapse_onto_the_mean() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(7, 1.5, 500)
    figures = evaluate(y, 7 + rng.normal(0, 0.05, 500))
    found = only(diagnose(history(), figures, ridge_rmse=2.0), "collapse")
    assert "SD is 0.04" in found.evidence
    assert "loss.kind=mse" in found.options


def test_collapse_is_seen_without_epochs() -> None:
    nothing: dict[str, list[float]] = {name: [] for name in history()}
    assert diagnose(nothing, GOOD) == []
    only(diagnose(nothing, {**GOOD, "distinct_predictions": 1, "prediction_sd": 0.0}), "collapse")


def test_instability() -> None:
    jumps = np.where(np.arange(60) % 2, 1.0, 1.6)
    found = diagnose(history(val=0.6 * jumps), GOOD, ridge_rmse=1.0)[-1]
    assert found.symptom == "instability"
    assert "60%" in found.evidence
    assert "training.clip_grad_norm=1.0" in found.options


def test_slowness_names_the_gpu_only_where_there_was_none() -> None:
    on_cpu = only(diagnose(history(seconds=1200), GOOD, ridge_rmse=1.0, device="cpu: 2 threads"), "slowness")
    assert on_cpu.evidence == "An epoch takes 20 minutes on the CPU."
    assert "Use a GPU" in on_cpu.advice
    on_gpu = only(diagnose(history(seconds=1200), GOOD, ridge_rmse=1.0, device="cuda: A100"), "slowness")
    assert on_gpu.evidence == "An epoch takes 20 minutes."
    assert on_gpu.advice == ""
    assert diagnose(history(seconds=899), GOOD, ridge_rmse=1.0, device="cpu") == []


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_few_epochs_say_little(n: int) -> None:
    assert diagnose(history(HEALTHY_TRAIN[:n], HEALTHY_VAL[:n]), GOOD, ridge_rmse=1.0) in (
        [],
        diagnose(history(HEALTHY_TRAIN[:n], HEALTHY_VAL[:n]), GOOD),
    )


def test_all_that_is_wrong_is_told() -> None:
    jumps = np.where(np.arange(60) % 2, 1.0, 1.6)
    findings = diagnose(
        history(val=0.6 * jumps + np.linspace(0, 2, 60), seconds=1200),
        {**GOOD, "rmse": 2.0, "distinct_predictions": 1},
        ridge_rmse=1.0,
        device="cpu",
    )
    symptoms = [finding.symptom for finding in findings]
    assert symptoms[:2] == ["collapse", "overfitting"]
    assert "underfitting" not in symptoms  # whose remedies contradict those of overfitting
    assert "slowness" in symptoms


def test_what_is_set_already_or_exceeded_is_not_advised() -> None:
    def advised(**settings: dict[str, Any]) -> tuple[str, ...]:
        return only(diagnose(history(), GOOD, ridge_rmse=0.7, settings=settings), "underfitting").options

    everything = ("training.epochs=150", "'model.hidden_dims=[1024,512,256,128]'", "optimizer.lr=0.0003")
    assert advised() == everything
    assert advised(training={"epochs": 100}, model={"hidden_dims": [512, 256]}, optimizer={"lr": 1e-4}) == everything
    assert advised(training={"epochs": 150}) == everything[1:]
    assert advised(training={"epochs": 300}, optimizer={"lr": 1e-3}) == everything[1:2]
    assert advised(model={"hidden_dims": (2048, 1024)}, optimizer={"lr": 3e-4}) == everything[:1]


def test_advice_for_a_blend_is_options_of_its_parts() -> None:
    network = {"model": {"hidden_dims": [64]}, "training": {"epochs": 150}, "optimizer": {"lr": 1e-4}}
    settings = {
        "model": {"kind": "blend", "hidden_dims": [1]},
        "training": {"seed": 42},
        "parts": {"net": network, "linear": {"model": {"alphas": [1.0]}, "loss": {"kind": "mse"}, "training": {}}},
    }
    found = only(diagnose({}, GOOD, ridge_rmse=0.7, settings=settings), "underfitting")
    assert found.options == (
        "'parts.net.model.hidden_dims=[1024,512,256,128]'",
        "parts.net.optimizer.lr=0.0003",
    )


def test_a_loss_that_is_mse_already_is_not_advised() -> None:
    bad = {**GOOD, "distinct_predictions": 2}
    found = only(diagnose(history(), bad, 1.0, settings={"loss": {"kind": "mse", "extreme_factor": 10.0}}), "collapse")
    assert found.options == ("optimizer.lr=0.0003", "loss.extreme_factor=1.0")


def test_every_advised_option_is_one_that_can_be_set() -> None:
    sections: dict[str, Registry] = {"model": MODELS, "optimizer": OPTIMIZERS, "loss": LOSSES}
    bad = {**GOOD, "rmse": 9.0, "distinct_predictions": 1}
    wild = np.where(np.arange(60) % 2, 0.6, 3.0)
    found = diagnose(history(train=HEALTHY_TRAIN * 0.1, val=wild, seconds=1e4), bad, 1.0, "cpu")
    found += diagnose(history(), bad, 1.0)
    assert {finding.symptom for finding in found} == {*ADVICE}
    for option in {option for finding in found for option in finding.options}:
        ((name, values),) = parse_override(*shlex.split(option)).items()
        if name == "training":
            read_options(TrainingOptions, values, name)
        elif "kind" in values:
            sections[name].load(values["kind"])
        else:
            read_options(sections[name].load(load_recipe("v2").sections[name].kind), values, name)


def test_a_model_without_epochs_is_judged_by_its_predictions() -> None:
    nothing: dict[str, list[float]] = {}
    assert diagnose(nothing, GOOD, ridge_rmse=1.1 * GOOD["rmse"]) == []
    settings = {"model": {"kind": "trees", "n_trees": 3}, "loss": {"kind": "mse"}, "training": {"seed": 42}}
    found = only(diagnose(nothing, GOOD, ridge_rmse=0.9 * GOOD["rmse"], settings=settings), "underfitting")
    assert "is above" in found.evidence
    assert "epochs" not in found.evidence
    assert found.options == ()
    alike = only(diagnose(nothing, {**GOOD, "distinct_predictions": 1}, 2.0, settings=settings), "collapse")
    assert alike.options == ()


def test_an_option_that_the_model_lacks_is_not_advised() -> None:
    settings = {"model": {"kind": "attention", "n_layers": 2}, "training": {"epochs": 100}}
    found = only(diagnose(history(), GOOD, ridge_rmse=0.7, settings=settings), "underfitting")
    assert found.options == ("training.epochs=150", "optimizer.lr=0.0003")
