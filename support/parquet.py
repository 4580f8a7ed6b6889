"""Parquet files. Arrow reads them: on some damaged files, polars' own reader ends the whole process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns, for which only the end of the file is read.

    Raises
    ------
    ValueError : no Parquet file, or a damaged one; the text says why, in one line.
    OSError : no such file, or one that may not be read.
    """
    return _read(path, lambda file: list(file.schema_arrow.names))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The columns of these names, or all. The same errors as :func:`parquet_columns`."""
    import polars as pl
    import pyarrow as pa

    def read(file: Any) -> pl.DataFrame:
        name, count = Counter(file.schema_arrow.names).most_common(1)[0] if file.schema_arrow.names else ("", 0)
        if count > 1:
            raise ValueError(f"{count} columns {name!r}")
        table = file.read(columns)
        table.validate(full=True)  # polars takes text and offsets as they are
        # Without what else is said of the columns, which polars reads too.
        frame = pl.from_arrow(pa.Table.from_arrays(table.columns, table.column_names))
        assert isinstance(frame, pl.DataFrame)
        frame.columns = table.column_names  # polars gives an empty name another one
        return frame if columns is None else frame.select(columns)

    return _read(path, read)


def _read(path: Path, take: Callable[[Any], T]) -> T:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not by its name: Arrow's errors of a damaged file are OSErrors too, and one of the name has a number.
        with pa.OSFile(str(path)) as file, pq.ParquetFile(file, page_checksum_verification=True) as held:
            return take(held)
    # A panic is polars' own fault: a word that is no UTF-8 in what is said of a list, for one.
    except (
        ValueError,
        MemoryError,
        OSError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(" ".join(str(error).split())[:200]) from None
