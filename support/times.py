"""Dates and times in a column: those that no calendar here reaches are refused. polars panics, or computes others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FAR = 94_000_000  # days from 1970, 257,000 years: polars' calendar has 262,000, and microseconds last for 292,000


def refuse_far_times(cells: pl.Series) -> None:
    """ValueError where a date, a time or a duration, or one in a list, is more than 257,000 years from 1970 or zero."""
    import polars as pl

    kind: Any = cells.dtype
    depth = 0
    while isinstance(kind, pl.List | pl.Array):
        kind, depth = kind.inner, depth + 1
    if isinstance(kind, pl.Date):
        most = FAR
    elif isinstance(kind, pl.Datetime | pl.Duration):
        most = FAR * 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[kind.time_unit]
    else:
        return
    for _ in range(depth):
        cells = cells.explode()
    number = cells.to_physical()
    ends = number.min(), number.max()
    if any(isinstance(end, int) and abs(end) > most for end in ends):
        raise ValueError("a time more than 257,000 years from 1970")
