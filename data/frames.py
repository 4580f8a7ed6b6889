"""Data that is in memory already: polars and pandas frames, and networkx graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcq.data.bipartite import refuse_bad_weights, two_sides
from qcq.data.checks import meant
from qcq.data.csv import assemble, questions_columns
from qcq.data.dataset import Dataset
from qcq.data.table import RawTable
from qcq.errors import DataError

if TYPE_CHECKING:
    import networkx as nx
    import polars as pl


NAMES = ("question", "concept", "concepts", "student", "correct", "timestamp")


def from_frames(
    questions: Any, interactions: Any = None, concepts: Any = None, *, merge_repeats: bool | None = None
) -> Dataset:
    """The data set of frames with the same columns as the CSV files of the format ``csv``; the frames are not changed.

    Parameters
    ----------
    questions : polars or pandas frame with ``question`` and ``concept`` (one row per edge) or ``concepts`` (text with
        ``;`` between them, or lists, tuples, sets or arrays); or ``concept1``, ``concept2`` …; ``name`` and ``weight``
        are optional. A frame with ``student`` and ``correct`` too is a log: its responses are read from it.
    interactions : frame with ``student, question, correct`` and optionally ``timestamp``, or None.
    concepts : frame with ``concept`` and optionally ``name`` and ``parent``, or None.
    merge_repeats : as in :class:`qcq.data.CSV`.

    Raises
    ------
    DataError : as for the format ``csv``; rows count from 0, as in the frame.
    """
    given = _polars(questions, "questions")
    return assemble(
        "frame",
        _table(given, "questions", *questions_columns(given.columns, "questions frame")),
        *(
            None if frame is None else _table(_polars(frame, what), what, required, optional)
            for frame, what, required, optional in (
                (interactions, "interactions", ("student", "question", "correct"), ("timestamp",)),
                (concepts, "concepts", ("concept",), ("name", "parent")),
            )
        ),
        merge_repeats=merge_repeats,
    )


def raw_table(frame: Any, what: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
    """A polars or pandas frame as the readers' checks take a table; ``what`` names it, or its file, in errors."""
    return _table(_polars(frame, str(what)), what, tuple(required), tuple(optional))


def from_edges(edges: Iterable[tuple[Any, Any]], interactions: Any = None) -> Dataset:
    """The data set of (question, concept) pairs.

    Raises
    ------
    DataError : there are none, or not pairs; identifiers and interactions as for :func:`from_frames`.
    """
    import polars as pl

    pairs = list(edges)
    for at, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            fix = "give (question, concept)"
            raise DataError("no pair of a question and a concept", file="edges", row=at, value=pair, fix=fix)
    columns = {"question": [_text(q) for q, _ in pairs], "concept": [_text(c) for _, c in pairs]}
    frame = pl.DataFrame(columns, schema={"question": pl.String, "concept": pl.String})
    return replace(from_frames(frame, interactions), name="edges")


def _text(name: Any) -> str | None:
    """An identifier as text; None for a missing value."""
    return None if name is None or name != name else str(name)


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
    lone = ("question without a concept", "questions without a concept")  # said of the graph's own edges below
    notes = [note for note in data.notes if not any(word in note for word in (*lone, "without a question"))]
    again = graph.number_of_edges() - weights.nnz
    return replace(data, name="graph", q_matrix=weights, notes=(*notes, *remarks(weights, again)))


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
    if any(name in NAMES for name in frame.index.names):  # as groupby leaves them
        frame = frame.reset_index([name for name in frame.index.names if name in NAMES])
    columns = {str(name): [_plain(value) for value in cells.tolist()] for name, cells in frame.items()}
    try:
        return pl.DataFrame({name: pl.Series(name, cells, strict=False) for name, cells in columns.items()})
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"no table of text, numbers and lists ({error})", file=f"{what} frame", fix="give plain cells"
        ) from None


def _plain(value: Any) -> Any:
    """A cell without pandas' and numpy's own types: a list for several values, None for a missing value."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple | list) or (hasattr(value, "__array__") and getattr(value, "ndim", 0) == 1):
        return [None if each is None or each != each else str(each) for each in value]
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if value != value else value


def _table(frame: pl.DataFrame, what: str | Path, required: tuple[str, ...], optional: tuple[str, ...]) -> RawTable:
    import polars as pl

    source = what if isinstance(what, Path) else f"{what} frame"
    for name in required:
        if name not in frame.columns:
            near = next((each for each in frame.columns if meant(each, [name]) == name), None)
            fix = f"rename {near!r} to {name!r}" if near else f"the columns are {', '.join(frame.columns[:12])}"
            raise DataError("missing column", file=source, column=name, fix=fix)
    if frame.height == 0:
        raise DataError("no rows", file=source, fix="give at least one")

    def as_text(cells: pl.Series) -> pl.Series:
        kind = cells.dtype
        if isinstance(kind, pl.List | pl.Array):
            return cells.cast(pl.List(pl.String))
        if kind == pl.Boolean:
            return cells.cast(pl.Int8).cast(pl.String)
        if kind == pl.Date or kind == pl.Datetime:
            return (cells.cast(pl.Datetime("us")).dt.epoch("us") / 1e6).cast(pl.String)
        if kind == pl.Duration:
            return (cells.dt.total_microseconds() / 1e6).cast(pl.String)
        if kind == pl.Object:
            return pl.Series(cells.name, [None if value is None else str(value) for value in cells], dtype=pl.String)
        if kind.is_float():
            whole = cells.fill_nan(None)
            # integers, made floats by a missing value
            return whole.cast(pl.Int64 if (whole.drop_nulls() % 1 == 0).all() else kind).cast(pl.String)
        if kind.is_decimal():
            return cells.cast(pl.String).str.replace(r"\.0+$", "")
        return cells.cast(pl.String)

    wanted = [name for name in (*required, *optional) if name in frame.columns]
    made = {}
    for name in wanted:
        try:
            made[name] = as_text(frame[name])
        except pl.exceptions.PolarsError:
            kind = str(frame[name].dtype)
            raise DataError(
                "neither text, numbers, times nor lists", file=source, column=name, value=kind, fix="convert it to text"
            ) from None
    left = tuple(name for name in frame.columns if name not in wanted)
    absent = tuple(name for name in optional if name not in frame.columns)
    return RawTable(source, pl.DataFrame(made), unread=left, absent=absent)
