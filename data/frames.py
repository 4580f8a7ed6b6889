"""Data that is in memory already: polars and pandas frames, and networkx graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qcq.data.bipartite import refuse_bad_weights, two_sides
from qcq.data.checks import SYNONYMS, known
from qcq.data.csv import assemble, questions_columns
from qcq.data.dataset import Dataset
from qcq.data.table import RawTable
from qcq.errors import DataError
from qcq.support.names import missing, named
from qcq.support.words import several

if TYPE_CHECKING:
    import networkx as nx
    import polars as pl


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
        RawTable.of_frame(given, "questions frame", *questions_columns(given.columns, "questions frame"), SYNONYMS),
        *(
            None if frame is None else raw_table(frame, what, required, optional)
            for frame, what, required, optional in (
                (interactions, "interactions", ("student", "question", "correct"), ("timestamp",)),
                (concepts, "concepts", ("concept",), ("name", "parent")),
            )
        ),
        merge_repeats=merge_repeats,
    )


def raw_table(frame: Any, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> RawTable:
    """A polars or pandas frame as the readers' checks take a table; ``what`` names it in errors."""
    return RawTable.of_frame(_polars(frame, what), f"{what} frame", required, optional, SYNONYMS)


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
    columns = {"question": [named(q) for q, _ in pairs], "concept": [named(c) for _, c in pairs]}
    frame = pl.DataFrame(columns, schema={"question": pl.String, "concept": pl.String})
    return replace(from_frames(frame, interactions), name="edges")


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
        if spaced := [name for name in names if name != name.strip() and name.strip()]:
            what, fix = f"{several(len(spaced), 'node')} among the {side} with space around the name", "take it out"
            raise DataError(what, file="networkx graph", value=spaced[0], fix=fix)
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
    """The frame in polars; a column of pandas is passed as plain values, which may be of several types."""
    import polars as pl

    if not is_frame(frame):
        kind = type(frame).__name__
        raise DataError(f"{what} is neither a polars nor a pandas frame", value=kind, fix="give a DataFrame")
    if isinstance(frame, pl.DataFrame):
        return frame
    levels = [i for i, name in enumerate(frame.index.names) if known(name) and name not in frame.columns]
    if levels:  # as groupby leaves them
        frame = frame.reset_index(levels, allow_duplicates=True)
    names = [str(name) for name in frame.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError("a column occurs twice", file=f"{what} frame", column=twice[0], fix="keep one of them")
    try:
        return pl.DataFrame([_column(str(name), cells.tolist()) for name, cells in frame.items()])
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"no table of text, numbers and lists ({error})", file=f"{what} frame", fix="give plain cells"
        ) from None


def _column(name: str, cells: Sequence[Any]) -> pl.Series:
    """A column of pandas in polars. Cells of several types become text one by one: as one type, some would be equal."""
    import polars as pl

    plain = [_plain(value) for value in cells]
    kinds = {type(value) for value in plain if value is not None}
    if len(kinds) > 1 and list in kinds:
        plain = [value if value is None or isinstance(value, list) else [named(value)] for value in plain]
    elif len(kinds) > 1:
        plain = [named(value) for value in plain]
    column = pl.Series(name, plain, strict=False)
    if column.null_count() > sum(value is None for value in plain):  # integers of more than 128 bits
        column = pl.Series(name, [None if value is None else named(value) for value in plain])
    return column


def _plain(value: Any) -> Any:
    """A cell without pandas' own types: a list for several values, those that miss left out; None for a missing one."""
    if isinstance(value, tuple | list | set | frozenset) or (
        hasattr(value, "__array__") and getattr(value, "ndim", 0) == 1
    ):
        texts = [text for each in value if (text := named(each)) is not None]
        return sorted(texts) if isinstance(value, set | frozenset) else texts
    return None if missing(value) else value
