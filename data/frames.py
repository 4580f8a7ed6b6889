"""Data that is in memory already: polars and pandas frames, and networkx graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qcq.data.bipartite import refuse_bad_weights, two_sides
from qcq.data.csv import assemble
from qcq.data.dataset import Dataset
from qcq.data.table import RawTable
from qcq.errors import DataError

if TYPE_CHECKING:
    import networkx as nx
    import polars as pl


def from_frames(questions: Any, interactions: Any = None, concepts: Any = None) -> Dataset:
    """The data set of frames with the same columns as the CSV files of the format ``csv``; the frames are not changed.

    Parameters
    ----------
    questions : polars or pandas frame with ``question`` and ``concept`` (one row per edge) or ``concepts`` (text with
        ``;`` between them, or lists); ``name`` is optional.
    interactions : frame with ``student, question, correct`` and optionally ``timestamp``, or None.
    concepts : frame with ``concept`` and optionally ``name`` and ``parent``, or None.

    Raises
    ------
    DataError : as for the format ``csv``; rows count from 0, as in the frame.
    """
    given = _polars(questions, "questions")
    if "concept" in given.columns and "concepts" in given.columns:
        raise DataError("both a column concept and a column concepts", file="questions frame", fix="keep one of them")
    column = "concept" if "concept" in given.columns else "concepts"
    return assemble(
        "frame",
        _table(given, "questions", ("question", column), ("name",)),
        *(
            None if frame is None else _table(_polars(frame, what), what, required, optional)
            for frame, what, required, optional in (
                (interactions, "interactions", ("student", "question", "correct"), ("timestamp",)),
                (concepts, "concepts", ("concept",), ("name", "parent")),
            )
        ),
    )


def from_graph(graph: nx.Graph, interactions: Any = None) -> Dataset:
    """The data set of a networkx graph whose nodes give their side in the attribute ``bipartite``.

    Raises
    ------
    GraphError : a node without the attribute, or an edge within one side.
    DataError : two nodes of a side with one name; interactions as for :func:`from_frames`.
    """
    import polars as pl

    from qcq.data.assembly import remarks

    questions, concepts, weights = two_sides(graph)
    refuse_bad_weights(questions, concepts, weights)
    for side, names in (("questions", questions), ("concepts", concepts)):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(
                f"two {side} with one name", file="networkx graph", value=twice, fix="rename one of the nodes"
            )
    edges = pl.DataFrame({"question": list(questions), "concepts": [[] for _ in questions]})
    edges = edges.with_columns(pl.col("concepts").cast(pl.List(pl.String)))
    listed = pl.DataFrame({"concept": list(concepts)}, schema={"concept": pl.String})
    data = from_frames(edges, interactions, listed)
    return replace(data, name="graph", q_matrix=weights, notes=tuple(remarks(weights)))


def is_frame(source: object) -> bool:
    """Whether it is a polars or pandas frame, found out without importing either."""
    kind = type(source)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("polars", "pandas")


def is_graph(source: object) -> bool:
    """Whether it is a networkx graph, found out without importing networkx."""
    return any(kind.__module__.partition(".")[0] == "networkx" for kind in type(source).__mro__)


def _polars(frame: Any, what: str) -> pl.DataFrame:
    """The frame in polars; pandas columns are passed as plain values, so that pyarrow isn't needed."""
    import polars as pl

    if not is_frame(frame):
        kind = type(frame).__name__
        raise DataError(f"{what} is neither a polars nor a pandas frame", value=kind, fix="give a DataFrame")
    if isinstance(frame, pl.DataFrame):
        return frame
    columns = {
        str(name): [None if missing else value for value, missing in zip(cells, cells.isna(), strict=True)]
        for name, cells in frame.items()
    }
    return pl.DataFrame({name: pl.Series(name, cells, strict=False) for name, cells in columns.items()})


def _table(frame: pl.DataFrame, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> RawTable:
    import polars as pl

    source = f"{what} frame"
    for name in required:
        if name not in frame.columns:
            fix = f"the columns are {', '.join(frame.columns[:12])}"
            raise DataError("missing column", file=source, column=name, fix=fix)
    if frame.height == 0:
        raise DataError("no rows", file=source, fix="give at least one")

    def as_text(cells: pl.Series) -> pl.Series:
        if cells.dtype == pl.List:
            return cells.cast(pl.List(pl.String))
        if cells.dtype == pl.Boolean:
            return cells.cast(pl.Int8).cast(pl.String)
        if cells.dtype == pl.Date or cells.dtype == pl.Datetime:
            return (cells.cast(pl.Datetime("us")).dt.epoch("us") / 1e6).cast(pl.String)
        if cells.dtype.is_float() and (cells.drop_nulls() % 1 == 0).all():  # integers, made floats by a missing value
            return cells.cast(pl.Int64).cast(pl.String)
        return cells.cast(pl.String)

    wanted = [name for name in (*required, *optional) if name in frame.columns]
    return RawTable(source, pl.DataFrame([as_text(frame[name]).alias(name) for name in wanted]))
