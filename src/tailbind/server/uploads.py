"""Tables that strangers send: what is refused before a reader sees it, and what is written for a spreadsheet."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final

import polars as pl

from tailbind.server.checking import RefusedError
from tailbind.server.limits import MIB, Limits
from tailbind.server.unpacking import DAMAGED, too_many_columns

TEXTS: Final = (".csv", ".tsv", ".txt")
PARQUET: Final = ".parquet"
_MAGIC: Final = b"PAR1"
#: How compressed files begin: readers of tables would unpack some of them, to any size.
_PACKED: Final = {
    b"PK": "a zip archive", b"\x1f\x8b": "a gzip file", b"\x28\xb5\x2f\xfd": "a zstd file", b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file", b"7z\xbc\xaf": "a 7z archive", b"x\x01": "a zlib file", b"x^": "a zlib file",
    b"x\x9c": "a zlib file", b"x\xda": "a zlib file", b"\xd0\xcf\x11\xe0": "an Excel file",
}  # fmt: skip
_BEFORE_HEADER: Final = b"\xef\xbb\xbf\r\n"
_MOST_FOOTER: Final = 4 * MIB
_FORMULA: Final = r"^[\s]*[=+\-@\t\r\n＝＋－＠]"
_NUMBER: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def shown_name(name: "str | None") -> str:
    """Return what messages call an upload: the last part of its name, harmless; no file is ever opened by it.

    >>> shown_name("../../etc/pass wd.csv"), shown_name("C:\\\\x\\\\<b>.csv"), shown_name(None)
    ('pass wd.csv', '_b_.csv', 'table')
    """
    last = PureWindowsPath(PurePosixPath(name or "").name).name
    return re.sub(r"[^\w .()+\-]", "_", last)[-80:].strip(". ") or "table"


def suffix_of(name: str, content: bytes, limits: Limits) -> str:
    """Return the format of an upload as a suffix, having looked at how it begins and ends.

    Parameters
    ----------
    name : as `shown_name` returns it
    content : the whole file

    Raises
    ------
    RefusedError
        For anything that is no CSV, TSV or Parquet file, is packed, or has too many columns.

    Examples
    --------
    >>> suffix_of("designs.CSV", b"heavy,light\\nEVQL,DIQM\\n", Limits())
    '.csv'
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in (*TEXTS, PARQUET):
        raise _refused(f"must end in .csv, .tsv, .txt or .parquet; got {suffix or 'no ending'!r}. Save it as CSV.")
    if not content:
        raise _refused("must hold a header and rows; the file is empty.")
    if suffix == PARQUET:
        _check_parquet(content)
        return suffix
    for start, words in _PACKED.items():
        if content.startswith(start):
            raise _refused(f"must be plain text, as its name says; it is {words}. Send what is in it.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"must be UTF-8 text; byte {error.start + 1:,} is not. Save it as CSV (UTF-8).") from None
    if b"\0" in content:
        raise _refused("must be text; it has zero bytes. Save it as CSV (UTF-8).")
    _check_cells(content, limits)
    return suffix


def _check_parquet(content: bytes) -> None:
    footer = int.from_bytes(content[-8:-4], "little")
    if len(content) < 12 or content[:4] != _MAGIC or content[-4:] != _MAGIC or footer > min(_MOST_FOOTER, len(content)):
        raise _refused(DAMAGED)


def _check_cells(content: bytes, limits: Limits) -> None:
    """Refuse a text that becomes more cells than it has letters: the reader fills up rows that lack some."""
    header = content.lstrip(_BEFORE_HEADER).split(b"\n", 1)[0]
    if header.count(b'"') % 2:
        raise _refused('must have its column names on one line; a " in that line is not closed.')
    n_columns = 1 + max(header.count(separator) for separator in (b",", b";", b"\t"))
    if n_columns > limits.upload_columns:
        raise _refused(too_many_columns(limits, n_columns))
    n_cells = n_columns * content.count(b"\n")
    if n_cells > max(len(content), MIB):
        raise _refused(f"must have a cell in every row for each of its {n_columns:,} columns; most rows have fewer.")


def _refused(words: str) -> RefusedError:
    return RefusedError(f"The file {words}", [("file", words)])


def spreadsheet_csv(frame: pl.DataFrame) -> bytes:
    """Return a frame as CSV in which no cell is a formula: text that begins like one gets a ' before it.

    >>> spreadsheet_csv(pl.DataFrame({"row_id": ["=1+1", "-3", "a"], "pkd": [-1.5, 2.0, None]})).decode().split()
    ['row_id,pkd', "'=1+1,-1.5", '-3,2.0', 'a,']
    """
    text = pl.col(pl.String)
    formula = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER)
    escaped = frame.with_columns(pl.when(formula).then("'" + text).otherwise(text).name.keep())
    return escaped.write_csv().encode()
