"""Names in CSV that a spreadsheet program would take for a formula: an apostrophe makes them text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qcq.support.forked import refuse_forked

if TYPE_CHECKING:
    import polars as pl

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that is one, or that already is a guarded one
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)  # numbers are safe


def guarded(name: str) -> str:
    """``name`` with an apostrophe in front if a spreadsheet program would compute it; numbers stay as they are.

    Examples
    --------
    >>> [guarded(name) for name in ("=1+1", "-5", "q1", "'=1+1")]
    ["'=1+1", '-5', 'q1', "''=1+1"]

    References
    ----------
    OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    return "'" + name if _FORMULA.match(name) and not _NUMBER.fullmatch(name) else name


def restored(cells: Iterable[str]) -> list[str]:
    """The names of a column that were :func:`guarded`; a column that :func:`guarded` can't have made stays as it is.

    Examples
    --------
    >>> restored(["'=1+1", "-5", "q1", "'quoted'"]), restored(["'=1+1", "=1+1"])
    (['=1+1', '-5', 'q1', "'quoted'"], ["'=1+1", '=1+1'])
    """
    cells = list(cells)
    made = [cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in cells]
    return made if all(guarded(name) == cell for name, cell in zip(made, cells, strict=True)) else cells


def guarded_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame with all its text, and its headings, guarded."""
    import polars as pl

    refuse_forked()
    text = [pl.col(name).map_elements(guarded, pl.String) for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(text).rename(guarded)


def restored_frame(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """A frame with the text of these columns restored."""
    import polars as pl

    def whole(column: pl.Series) -> pl.Series:
        names = column.drop_nulls().unique()
        return column.replace(names, pl.Series(restored(names), dtype=pl.String))

    return frame.with_columns(whole(frame[name]) for name in columns)
