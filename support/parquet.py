"""Parquet files. Arrow reads them: on some damaged files, polars' own reader ends the whole process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qcq.support.forked import refuse_forked

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns, for which only the end of the file is read.

    Raises
    ------
    ValueError : no Parquet file, a damaged one, or one with types that Arrow doesn't have; the text says why.
    OSError : no such file, or one that may not be read.
    """
    return _read(path, lambda file: list(file.schema_arrow.names))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The columns of these names, or all. The same errors as :func:`parquet_columns`."""
    import polars as pl
    import pyarrow as pa

    def read(file: Any) -> pl.DataFrame:
        again = [name for name, n in Counter(file.schema_arrow.names).items() if n > 1]
        if again:
            raise ValueError(f"two columns {again[0]!r}")
        table = file.read(columns).replace_schema_metadata(None)
        table.validate(full=True)  # polars takes text and offsets as they are
        for at, field in enumerate(table.schema):
            _refuse_panics(field)
            if pa.types.is_decimal256(field.type):  # polars has no such type
                narrow = pa.decimal128(min(field.type.precision, 38), field.type.scale)
                table = table.set_column(at, field.name, table.column(at).cast(narrow))
        frame = pl.from_arrow(table, rechunk=False)
        assert isinstance(frame, pl.DataFrame)
        frame.columns = table.column_names  # polars gives an empty name another one
        return frame

    return _read(path, read)


def _refuse_panics(field: Any) -> None:
    """ValueError for a column over which polars panics: of what is said of it, or of its lists."""
    for key, value in (field.metadata or {}).items():
        key.decode()
        value.decode()
    if getattr(field.type, "list_size", 1) == 0:
        raise ValueError(f"column {field.name!r} has lists of a fixed length of 0")
    for i in range(field.type.num_fields):
        _refuse_panics(field.type.field(i))


def _read(path: Path, take: Callable[[Any], T]) -> T:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_forked()
    try:
        # Opened here: then an OSError with a number is one of the file, and Arrow's own are about what is in it.
        with path.open("rb") as file:
            held = pq.ParquetFile(file, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
            return take(held)
    except (ValueError, OSError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(" ".join(str(error).split())[:200]) from None
