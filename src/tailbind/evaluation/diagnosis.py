"""What a run's own history says is wrong with it, and which options the training notebook's troubleshooting advises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Validation loss at the end over its lowest, from which training has gone on for too long.
OVERFIT_RISE: Final = 1.15
#: Validation loss over training loss at the end, from which the model has learned its rows by heart.
OVERFIT_GAP: Final = 2.0
#: Validation RMSE over ridge regression's (or the labels' SD), from which a network has learned too little.
UNDERFIT_RATIO: Final = 1.0
#: Fall of the validation loss over the last fifth of the epochs, from which more epochs would help.
STILL_FALLING: Final = 0.05
#: Typical change of the validation loss from one epoch to the next, from which training is unstable.
UNSTABLE_STEP: Final = 0.25
#: Share of the labels' SD, or of the rows in distinct predictions, below which predictions have collapsed.
COLLAPSED_SPREAD: Final = 0.1
COLLAPSED_DISTINCT: Final = 0.01
#: Mean error over the labels' SD, from which a network has not yet come near the labels.
FAR_OFF: Final = 0.5
#: Seconds per epoch above which the training notebook calls training slow.
SLOW_EPOCH_SECONDS: Final = 15 * 60


#: symptom → (option, value to try, whether that is more (+1), less (−1) or something else (0)), as the
#: training notebook's troubleshooting has them.
ADVICE: Final[Mapping[str, tuple[tuple[str, Any, int], ...]]] = {
    "overfitting": (
        ("model.dropout", 0.4, 1),
        ("optimizer.weight_decay", 1e-3, 1),
        ("model.hidden_dims", [256, 128, 64], -1),
        ("loss.kind", "mse", 0),
    ),
    "underfitting": (
        ("training.epochs", 150, 1),
        ("model.hidden_dims", [1024, 512, 256, 128], 1),
        ("optimizer.lr", 3e-4, 1),
    ),
    "collapse": (("optimizer.lr", 3e-4, 1), ("loss.kind", "mse", 0), ("loss.extreme_factor", 1.0, -1)),
    "instability": (
        ("optimizer.lr", 1e-4, -1),
        ("training.clip_grad_norm", 1.0, -1),
        ("loss.extreme_factor", 1.0, -1),
    ),
    "slowness": (("training.batch_size", 256, 1),),
}


@dataclass(frozen=True)
class Finding:
    """A symptom, what shows it, and the options to try.

    Attributes
    ----------
    symptom : overfitting, underfitting, collapse, instability or slowness
    evidence : the figures it was found by
    advice : what options cannot do, "" for nothing
    options : `--set` values, in the order to try them
    """

    symptom: str
    evidence: str
    advice: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Likelihood:
    """How the losses of a run are negative log likelihoods of labels under normal noise.

    Attributes
    ----------
    sigma : the noise's standard deviation in pKd, the same in every epoch; None for a learned one
    measured : of the training and of the validation rows, the share that is measured, not marked < or >; under
        weights, the sum of these rows' weights over the number of all rows
    """

    sigma: float | None = None
    measured: tuple[float, float] = (1.0, 1.0)

    def squared_error(self, train: Array, val: Array) -> tuple[Array, Array]:
        """Return the mean squared errors that the mean losses of every epoch stand for.

        A learned noise is taken for the errors' SD. With a fixed one, a bound counts for about the square of what
        it is missed by, but for 1.4 sigma² (2 log 2 · sigma²) where it is just met. Both are approximate where
        labels are bounds, and a mean loss that no errors have (rows of another make-up, as in a second stage)
        counts as 0.

        Examples
        --------
        >>> level = np.log(0.2) + np.log(2 * np.pi) / 2
        >>> train, val = Likelihood().squared_error(np.array([level + 0.5]), np.array([level + 0.5]))
        >>> float(val[0].round(6))  # the errors' SD is the noise's
        0.04
        >>> train, val = Likelihood(sigma=0.2).squared_error(np.array([level + 0.5]), np.array([level + 8.0]))
        >>> float(train[0].round(6)), float(val[0].round(6))
        (0.04, 0.64)
        """
        if self.sigma is None:
            return _fitted_variance(train), _fitted_variance(val)
        level = np.log(self.sigma) + np.log(2 * np.pi) / 2
        of_train, of_val = (
            np.maximum(2 * self.sigma**2 * (loss - share * level), 0)
            for loss, share in zip((train, val), self.measured, strict=True)
        )
        return of_train, of_val


def diagnose(
    history: Mapping[str, Sequence[float]],
    validation: Mapping[str, Any],
    ridge_rmse: float | None = None,
    device: str = "",
    settings: Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
) -> list[Finding]:
    """Return what is wrong with a finished training, nothing being a good answer.

    Parameters
    ----------
    history : the columns of `history.csv`; empty lists for models without epochs
    validation : figures of the validation rows, as `evaluate` gives them
    ridge_rmse : ridge regression's RMSE on the same rows
    device : the device trained on, for advice on speed
    settings : the resolved recipe by section, of a blend the parts' under `parts`; options that it already has, or
        exceeds, are not advised
    likelihood : where the losses are negative log likelihoods, of what noise; these have no zero, and are judged by
        the mean squared errors that they stand for
    """
    findings = [_collapse(validation)]
    if not len(history.get("epoch", ())):
        findings.append(_underfitting(np.empty(0), np.empty(0), "", validation, ridge_rmse))
    else:
        train = np.asarray(history["train_loss"], dtype=np.float64)
        val = np.asarray(history["val_loss"], dtype=np.float64)
        seconds = np.asarray(history["seconds"], dtype=np.float64)
        loss = "loss"
        if likelihood is not None:
            (train, val), loss = likelihood.squared_error(train, val), "loss, as squared error,"
        findings += [
            _overfitting(train, val, loss),
            _underfitting(train, val, loss, validation, ridge_rmse),
            _instability(val, loss),
            _slowness(seconds, device),
        ]
    found = [finding for finding in findings if finding is not None]
    if any(finding.symptom == "overfitting" for finding in found):  # its remedies contradict those of underfitting
        found = [finding for finding in found if finding.symptom != "underfitting"]
    at_once = not len(history.get("epoch", ()))
    parts: Mapping[str, Any] = (settings or {}).get("parts", {})
    if parts:  # of a blend each part has options of its own; its model's say nothing of how it learns
        return [
            replace(
                finding,
                options=tuple(
                    option
                    for name, part in parts.items()
                    for option in _options(finding.symptom, part, at_once=True, whose=f"parts.{name}.")
                ),
            )
            for finding in found
        ]
    return [replace(finding, options=_options(finding.symptom, settings or {}, at_once)) for finding in found]


def _options(symptom: str, settings: Mapping[str, Any], at_once: bool, whose: str = "") -> tuple[str, ...]:
    """Return the advised options that would change the settings, in the advised direction.

    Options that a section does not have are not advised; without epochs, nor are those of sections that are not there.
    `whose` stands before each.
    """
    options = []
    for key, value, direction in ADVICE[symptom]:
        section, _, name = key.partition(".")
        if name not in settings.get(section, {} if at_once else {name}):
            continue  # a model without epochs has no learning rate, one of other layers no such width
        now = settings.get(section, {}).get(name)
        if key == "loss.kind" and now not in (None, "focal"):
            continue  # the advice is against the focal loss alone; another was chosen for a reason
        if key == "training.clip_grad_norm" and now == 0:
            now = float("inf")  # 0 does not clip
        if now is not None:
            size_now, size = (sum(x) if isinstance(x, list | tuple) else x for x in (now, value))
            if size_now == size or (direction and (size - size_now) * direction < 0):
                continue
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        options.append(f"'{whose}{key}=[{text}]'" if isinstance(value, list) else f"{whose}{key}={text}")
    return tuple(options)


def _fitted_variance(loss: Array) -> Array:
    """Return the mean squared error at which a normal distribution fitted to the errors has this mean loss."""
    return np.exp(np.minimum(2 * loss, 600)) / (2 * np.pi * np.e)


def _tail(values: Array) -> Array:
    """Return the last tenth of the epochs, at least one."""
    return values[-max(1, len(values) // 10) :]


def _overfitting(train: Array, val: Array, loss: str) -> Finding | None:
    best = int(np.argmin(val))
    if best >= len(val) - len(_tail(val)):
        return None  # it is still improving
    at_end_train, at_end_val = float(np.median(_tail(train))), float(np.median(_tail(val)))
    risen = at_end_val > max(OVERFIT_RISE * val[best], at_end_train) and at_end_train <= train[best]
    gap = at_end_train > 0 and at_end_val > OVERFIT_GAP * at_end_train
    if not (risen or gap):
        return None
    return Finding(
        "overfitting",
        f"At the end the training {loss} is {at_end_train:.3g} and the validation {loss} {at_end_val:.3g}; the latter "
        f"was lowest, {val[best]:.3g}, after epoch {best + 1} of {len(val)}.",
    )


def _underfitting(
    train: Array, val: Array, loss: str, validation: Mapping[str, Any], ridge_rmse: float | None
) -> Finding | None:
    reference = ridge_rmse if ridge_rmse is not None else float(validation["label_sd"])
    name = "ridge regression" if ridge_rmse is not None else "their SD"
    fifth = max(1, len(val) // 5)
    before = float(np.median(val[-2 * fifth : -fifth])) if len(val) > fifth else float("nan")
    fall = 1 - float(np.median(val[-fifth:])) / before if before > 0 else 0.0
    too_little = float(validation["rmse"]) > UNDERFIT_RATIO * reference
    falling = len(val) >= 5 and fall > STILL_FALLING and train[-1] <= train[-fifth - 1]
    if not (too_little or falling):
        return None
    evidence = []
    if too_little:
        evidence.append(f"Validation RMSE {float(validation['rmse']):.3f} is above {reference:.3f}, that of {name}.")
    bias = float(validation.get("bias", 0.0))
    if too_little and len(val) and abs(bias) > FAR_OFF * float(validation["label_sd"]):
        side = "below" if bias < 0 else "above"
        evidence.append(f"Predictions are on average {abs(bias):.1f} {side} the labels, as after too few epochs.")
    if falling:
        evidence.append(f"The validation {loss} was still falling, by {fall:.0%} over the last fifth of the epochs.")
    return Finding(
        "underfitting",
        " ".join(evidence),
    )


def _collapse(validation: Mapping[str, Any]) -> Finding | None:
    n, distinct = int(validation["n"]), int(validation["distinct_predictions"])
    spread, label_sd = float(validation["prediction_sd"]), float(validation["label_sd"])
    if n < 2 or (spread > COLLAPSED_SPREAD * label_sd and distinct > max(1, min(COLLAPSED_DISTINCT * n, 20))):
        return None
    return Finding(
        "collapse",
        f"{distinct:,} distinct predictions on {n:,} validation rows; their SD is {spread:.3f}, the labels' "
        f"{label_sd:.3f}.",
    )


def _instability(val: Array, loss: str) -> Finding | None:
    if len(val) < 6:
        return None
    later = val[len(val) // 3 :]
    steps = np.abs(np.diff(np.log(np.maximum(later, 1e-12))))
    typical = float(np.median(steps))
    if typical <= UNSTABLE_STEP:
        return None
    return Finding(
        "instability",
        f"From one epoch to the next the validation {loss} typically changes by {np.expm1(typical):.0%}.",
    )


def _slowness(seconds: Array, device: str) -> Finding | None:
    typical = float(np.median(seconds))
    if typical <= SLOW_EPOCH_SECONDS:
        return None
    no_gpu = device.startswith("cpu")
    return Finding(
        "slowness",
        f"An epoch takes {typical / 60:.0f} minutes{' on the CPU' if no_gpu else ''}.",
        "Use a GPU: in Colab, Runtime → Change runtime type → GPU." if no_gpu else "",
    )
