"""The rows that a network is trained and judged on, as tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.models.contract import Inputs
from tailbind.models.tensors import InputTensors, as_tensors
from tailbind.training.losses import sides


@dataclass(frozen=True)
class Rows:
    """All rows of a table, training and validation rows alike, on the network's device where they fit.

    Attributes
    ----------
    X : features; in the computer's memory where they do not fit into the GPU's, or on disk
    y : (n_samples,) pKd
    side : (n_samples,) −1 "<", 0 "=", +1 ">"
    weight : (n_samples,) weight of each row in the loss
    """

    X: InputTensors
    y: Tensor
    side: Tensor
    weight: Tensor

    @property
    def device(self) -> torch.device:
        """Where losses are computed: the network's device."""
        return self.y.device

    def labels(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a loss takes of rows beside predictions: pKd, weight and side of each, in the shape of `rows`."""
        there = rows.to(self.device)
        return self.y[there], self.weight[there], self.side[there]


def rows_on(
    device: torch.device,
    X: Inputs,
    y: NDArray[np.float64],
    relation: NDArray[np.str_],
    weight: NDArray[np.float64],
    notify: Callable[[str], None],
) -> Rows:
    """Return the rows of a table as tensors on a device.

    Parameters
    ----------
    X : (n_samples, n_features) features
    y, relation, weight : (n_samples,) pKd; "=", "<" or ">"; weight in the loss
    notify : told where the features do not fit into the GPU's memory

    Examples
    --------
    >>> X, y, relation = np.zeros((3, 2), np.float32), np.array([6.0, 5.0, 9.0]), np.array(["=", "<", "="])
    >>> rows = rows_on(torch.device("cpu"), X, y, relation, np.ones(3), print)
    >>> rows.labels(torch.tensor([1, 2]))
    (tensor([5., 9.]), tensor([1., 1.]), tensor([-1.,  0.]))
    """
    return Rows(
        _on_device(as_tensors(X), device, notify),
        *(torch.from_numpy(of_row.astype(np.float32)).to(device) for of_row in (y, sides(relation), weight)),
    )


def _on_device(X: InputTensors, device: torch.device, notify: Callable[[str], None]) -> InputTensors:
    """Return the features on the device where they fit, else where they are."""
    try:
        return X.to(device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        notify("The features do not fit into the GPU's memory; they stay in the computer's.")
        return X
