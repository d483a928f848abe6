"""What an epoch is judged by: the loss of validation rows, and what the best epoch has the least of."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.models.network import Network
from tailbind.training.member import Loss, Member
from tailbind.training.rows import Rows
from tailbind.training.selection import VAL_LOSS, validation_score
from tailbind.training.stages import TrainingOptions


@dataclass(frozen=True)
class Validation:
    """Judges a network by rows that it does not learn from.

    Attributes
    ----------
    rows : of the whole table
    chosen : (n_validation,) the validation rows
    y_true, side : (n_validation,) their pKd in double precision, and what of it the loss takes as a bound
    loss : the recipe's
    options : what to select by; the batch size, for a loss that compares rows
    """

    rows: Rows
    chosen: Tensor
    y_true: NDArray[np.float64]
    side: NDArray[np.float32]
    loss: Loss
    options: TrainingOptions

    def losses(self, network: Network, members: list[Member]) -> tuple[float, list[float], Tensor]:
        """Return the loss of the mean prediction, the mean over the members' losses; each member's; and it.

        A loss that compares rows is taken in batches as large as the recipe's, whatever training had to do with.
        """
        rows = self.chosen.to(self.rows.X.device)
        pieces = self._together(network.device) if self.loss.compares_rows else None
        outputs = network.outputs(self.rows.X, rows)
        of_rows = self.rows.labels(rows)
        mean = outputs.mean(dim=0)

        def loss_of(member: Member, predicted: Tensor) -> float:
            if pieces is None:
                return float(member.loss(predicted, *of_rows).double().mean())
            values = [member.loss(predicted[piece], *(of_row[piece] for of_row in of_rows)) for piece in pieces]
            return float(torch.cat(values).double().mean())

        with torch.no_grad():
            of_mean = [loss_of(member, mean) for member in members]
            of_members = [loss_of(member, output) for member, output in zip(members, outputs, strict=True)]
        return float(np.mean(of_mean)), of_members, mean

    def score(self, val_loss: float, predicted: Tensor) -> float:
        """Return what the best epoch is to have the least of: the loss, or an unweighted error of the predictions."""
        if self.options.select_by == VAL_LOSS:
            return val_loss
        y_pred = predicted.cpu().numpy().astype(np.float64)
        return validation_score(self.options.select_by, self.y_true, y_pred, self.side)

    def _together(self, device: torch.device) -> list[Tensor]:
        """Return which of the rows a loss compares with each other: the same in every epoch."""
        order = np.random.default_rng(self.options.seed).permutation(len(self.chosen))
        return list(torch.split(torch.from_numpy(order).to(device), self.options.batch_size))
