"""What may tell how far a model is to be trusted on a row, from its features and its own prediction."""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.models.blend import FAMILY
from tailbind.models.contract import FloatArray
from tailbind.table.features import Features

#: Dense columns that say how far a row's chains are from what training mostly saw.
CHANGES: Final = re.compile(r"(heavy|light|antigen) .*changed residues")


def landscapes(features: Features, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return (n_rows,) a code of each row's landscape: its families of heavy chains and antigens; 0 without any.

    Codes are of the columns of one fitted pipeline, and of no other.
    """
    code = np.zeros(len(rows), np.int64)
    if features.sparse is None:
        return code
    lit = features.sparse[rows]
    for chain in ("heavy", "antigen"):
        columns = [
            column
            for column, name in enumerate(features.sparse_names)
            if FAMILY.fullmatch(name) and name.startswith(f"{chain} ")
        ]
        family = np.zeros(len(rows), np.int64)
        if columns:
            of_chain = lit[:, columns].tocoo()
            family[of_chain.row] = of_chain.col + 1
        code = code * (len(columns) + 1) + family
    return code


def doubt(
    features: Features, rows: NDArray[np.intp], predicted: FloatArray, sd: FloatArray | None
) -> tuple[NDArray[np.float32], FloatArray, NDArray[np.int64]]:
    """Return what `evaluation.calibration` takes of rows: inputs, the model's SD (0 without one) and landscapes.

    Inputs are the prediction, its SD, whether something of the row is unseen, and of the dense features those that
    count changed residues.

    Parameters
    ----------
    rows : (n_rows,) with features
    predicted, sd : (n_rows,) pKd
    """
    spread = np.zeros(len(rows)) if sd is None else sd
    unseen = np.zeros(len(rows)) if features.unseen is None else features.unseen[rows] != ""
    inputs = [predicted, spread, unseen]
    changes = [column for column, name in enumerate(features.names) if CHANGES.fullmatch(name)]
    if changes:
        inputs.append(features.dense[rows][:, changes])
    return np.column_stack(inputs).astype(np.float32), spread, landscapes(features, rows)
