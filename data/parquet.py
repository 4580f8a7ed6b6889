"""Tables in parquet files: only the columns that are needed are read, by polars' lazy scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qcq.data.frames import raw_table
from qcq.data.table import RawTable
from qcq.errors import DataError


def columns(path: Path) -> list[str]:
    """The names of a file's columns; empty if it can't be read. Never raises."""
    import polars as pl

    try:
        return pl.scan_parquet(path, glob=False).collect_schema().names()
    except (OSError, pl.exceptions.PolarsError):
        return []


def table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
    """The required columns of a file, and the optional ones that it has, as text; rows count from 0.

    Raises
    ------
    DataError : no such file, a damaged one, a missing column, no rows, or cells that are no text, numbers or lists.
    """
    import polars as pl

    if not path.is_file():
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name")
    names = columns(path)
    if not names:
        raise DataError("not a readable parquet file", file=path, fix="write it again")
    wanted = [name for name in (*required, *optional) if name in names]
    try:
        # Without a wanted column the error below says which; then nothing has to be read.
        frame = pl.scan_parquet(path, glob=False).select(wanted or names[:1]).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        what = f"damaged parquet file ({str(error).splitlines()[0]})"
        raise DataError(what, file=path, fix="write it again") from None
    made = raw_table(frame, path, required, optional)
    return replace(made, unread=tuple(name for name in names if name not in wanted))
