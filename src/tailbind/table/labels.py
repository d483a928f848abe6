"""The label column of a file, whatever it states, as pKd and a relation on the pKd scale."""

import numpy as np
import polars as pl

from tailbind.errors import TableError, nearest
from tailbind.scale import PKD_RANGE, ROOM_TEMPERATURE_KELVIN, pkd_from_delta_g, pkd_from_kd
from tailbind.table.cells import Source, parse_numbers, refuse
from tailbind.table.schema import (
    ABOVE,
    BELOW,
    LABELS,
    MEASURED,
    RELATIONS,
    SPELLINGS,
    TEMPERATURES,
    normalise,
    numbered_blocks,
)

#: Words by which a label column of another name is recognised, to be named in the message.
LABEL_WORDS = ("pkd", "kd_nm", "affinity", "delta_g")


def find_label(source: Source) -> str:
    """Return the file's label column.

    Raises
    ------
    TableError
        When it has none, naming the column most like one.
    """
    own = source.find(list(LABELS))
    if own is None:
        numbered = {column for block in numbered_blocks(source.columns).values() for column in block}
        plain = [column for column in source.columns if column not in numbered]
        hints = [nearest(word, plain, "its columns") for word in LABEL_WORDS]
        hint = next((hint for hint in hints if hint.startswith("did")), hints[0])
        raise TableError(
            f"{source.path} must have a label column (pKd, Kd_nM, Kd, delta_g, …); it has none. Rename yours; {hint}."
        )
    return own


def read_labels(source: Source, raw: pl.DataFrame, check_range: bool = True) -> tuple[pl.Series, pl.Series]:
    """Return pKd (null where empty) and its relation, converted from whatever the file states.

    Without `check_range` a label that no binder has is kept, for an audit to find.
    """
    own = find_label(source)
    scale, unit = LABELS[normalise(own)]
    source.taken["pkd"] = own
    values, marks = _split_marks(raw[own])
    numbers, bad = parse_numbers(values)
    if bad.any():
        raise TableError(
            f"{source.path}: {own} must hold numbers; got {raw[own].filter(bad)[0]!r} ({source.rows(bad)}). "
            "Correct the cells or leave them empty."
        )
    refuse(source, own, numbers.is_infinite().fill_null(False), numbers, "be finite")
    if check_range:
        _check_kd(source, own, numbers)
    pkd = _to_pkd(source, raw, own, numbers, scale, unit)
    if check_range:
        outside = ~pkd.is_between(*PKD_RANGE).fill_null(True)
        low, high = PKD_RANGE
        words = f"give a pKd between {low:g} and {high:g}"
        refuse(source, own, outside, numbers, words, "Check its unit and sign, or ask tailbind check")
    return pkd, _relation(source, raw, marks, flipped=scale != "pkd")


def _split_marks(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the cells without a leading `<` or `>`, and that mark ("" where there is none)."""
    if values.dtype.is_numeric():
        return values, pl.repeat("", len(values), eager=True)
    text = values.cast(pl.String).str.strip_chars()
    marks = text.str.extract(r"^([<>≤≥]=?)").fill_null("")
    return text.str.replace(r"^[<>≤≥]=?\s*", ""), marks


def _check_kd(source: Source, own: str, numbers: pl.Series) -> None:
    """Refuse a column called Kd whose values are no mol/L."""
    stated = numbers.drop_nulls().to_numpy()
    median = float(np.median(stated)) if len(stated) else 0.0
    if normalise(own) == "kd" and median > 1e-2:
        raise TableError(
            f"{source.path}: {own} must be in mol/L; got a median of {median:g}, which no binder has. Rename the "
            "column to say its unit (Kd_nM, Kd_uM, …)."
        )


def _to_pkd(source: Source, raw: pl.DataFrame, own: str, numbers: pl.Series, scale: str, unit: str) -> pl.Series:
    if scale == "pkd":
        return numbers
    if scale == "kd":
        refuse(source, own, (numbers <= 0).fill_null(False), numbers, "be above 0")
        source.notes.append(f"Converted {own} from {unit} to pKd.")
        return pl.Series("pkd", pkd_from_kd(numbers.to_numpy(), unit)).fill_nan(None)
    column = source.find(TEMPERATURES)
    if column is None:
        temperature: pl.Series | float = ROOM_TEMPERATURE_KELVIN
        source.notes.append(f"Converted {own} from kcal/mol to pKd at {ROOM_TEMPERATURE_KELVIN} K.")
    else:
        temperature, bad = parse_numbers(raw[column])
        if bad.any():
            raise TableError(
                f"{source.path}: {column} must hold numbers; got {raw[column].filter(bad)[0]!r} ({source.rows(bad)}). "
                "Correct the cells or leave them empty."
            )
        temperature = temperature.fill_null(ROOM_TEMPERATURE_KELVIN)
        refuse(source, column, ~temperature.is_between(250, 400), temperature, "be in kelvin (250–400)")
        source.notes.append(f"Converted {own} from kcal/mol to pKd at the temperature in {column}.")
    return pl.Series("pkd", pkd_from_delta_g(numbers.to_numpy(), np.asarray(temperature))).fill_nan(None)


def _relation(source: Source, raw: pl.DataFrame, marks: pl.Series, flipped: bool) -> pl.Series:
    """Return the relation on the pKd scale; what is stated about a Kd or ΔG points the other way."""
    own = source.find(SPELLINGS["relation"])
    stated = marks
    if own is not None:
        source.taken["relation"] = own
        symbols = raw[own].cast(pl.String).str.strip_chars().str.to_lowercase().str.replace_all(r"[\s_]+", " ")
        symbols = symbols.fill_null("")
        bad = ~symbols.is_in(list(RELATIONS))
        if bad.any():
            raise TableError(
                f"{source.path}: {own} must be one of = < > (or ≤, <=, less than …); got {symbols.filter(bad)[0]!r} "
                f"({source.rows(bad)}). Correct the cells or leave them empty for measured values."
            )
        in_cell, in_column = (
            entry.replace_strict(dict(RELATIONS), return_dtype=pl.String) for entry in (marks, symbols)
        )
        torn = (marks != "") & (symbols != "") & (in_column != MEASURED) & (in_cell != in_column)
        if torn.any():
            raise TableError(
                f"{source.path}: {own} and the mark in the label's cell must agree; got {symbols.filter(torn)[0]!r} "
                f"beside {marks.filter(torn)[0]!r} ({source.rows(torn)}). Remove one of them."
            )
        stated = pl.select(pl.when(marks == "").then(symbols).otherwise(marks)).to_series()
    relation = stated.replace_strict(dict(RELATIONS), return_dtype=pl.String)
    if flipped and (relation != MEASURED).any():
        relation = relation.replace({BELOW: ABOVE, ABOVE: BELOW})
        source.notes.append("Turned < and > round: they were stated about Kd or ΔG, not pKd.")
    return relation
