"""All figures of a run as tables, the same for ``report.md`` and ``report.html``: means over seeds, on test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from qcq.evaluation import TASKS
from qcq.report.comparison import of_tables
from qcq.run import Row, Run
from qcq.support.registry import find

ITS_OWN = "its own embedding"  # in the place of a model's name: the model of a task without our vectors
_VECTORS = ("walk", "trainer", "read-out")


class FigureTable(NamedTuple):
    """A table of figures.

    Attributes
    ----------
    title, text : what stands above it.
    labels : titles of the first columns, which hold text.
    figures : titles of the others.
    rows : for each line its labels and its figures; None where there is none.
    """

    title: str
    text: str
    labels: tuple[str, ...]
    figures: list[str]
    rows: list[tuple[tuple[str, ...], list[float | None]]]


def figure_tables(run: Run) -> list[FigureTable]:
    """All that a run has."""
    made = (tracing_table(run), table_without_vectors(run), table_of_other_figures(run))
    return [each for each in made if each]


def tracing_table(run: Run) -> FigureTable | None:
    """Every figure of knowledge tracing: a row for each model and table of vectors."""
    results = [r for r in of_tables(run.rows("results")) if _over_students(r)]
    order = run.config["tasks"]
    figures, rows = _means(results, lambda r: (r["task"], *_of(r)), lambda r: r["metric"])
    rows.sort(key=lambda row: order.index(row[0][0]))
    text = "Means over seeds, test students."
    return FigureTable("Knowledge tracing", text, ("task", *_VECTORS), figures, rows) if rows else None


def table_without_vectors(run: Run) -> FigureTable | None:
    """Models without vectors, and tasks' models with their own embedding."""
    results = run.rows("results")
    shown = {id(r) for r in of_tables(results)}
    # These models are the same beside every table of vectors: one row a seed is enough.
    single = {(r["task"], r["metric"], r["seed"]): r for r in results if id(r) not in shown and "/" in r["metric"]}
    figures, rows = _means(single.values(), lambda r: (r["task"], _model(r)), lambda r: r["metric"].partition("/")[2])
    text = (
        "Models that see none of these vectors, learnt from the same training students, their penalties or epochs "
        f'chosen on validation; "{ITS_OWN}" is that of the task\'s own model. They are the same beside every table of '
        "vectors; means over seeds."
    )
    return FigureTable("Without vectors", text, ("task", "model"), figures, rows) if rows else None


def table_of_other_figures(run: Run) -> FigureTable | None:
    """The figures of all other tasks: a row for each table of vectors."""
    results = [r for r in of_tables(run.rows("results")) if not _over_students(r)]
    figures, rows = _means(results, _of, lambda r: f"{r['task']} {r['metric']}")
    title = "Every other figure, every read-out"
    return FigureTable(title, "Means over seeds.", _VECTORS, figures, rows) if rows else None


def _means(
    results: Iterable[Row], key: Callable[[Row], tuple[str, ...]], figure: Callable[[Row], str]
) -> tuple[list[str], list[tuple[tuple[str, ...], list[float | None]]]]:
    held: dict[tuple[str, ...], dict[str, list[float]]] = {}
    figures: dict[str, None] = {}
    for r in results:
        figures[figure(r)] = None
        held.setdefault(key(r), {}).setdefault(figure(r), []).append(r["value"])
    rows = [(k, [sum(v) / len(v) if (v := mine.get(f)) else None for f in figures]) for k, mine in held.items()]
    return list(figures), rows


def _of(row: Row) -> tuple[str, ...]:
    return row["walk"], row["trainer"], row["readout"]


def _over_students(row: Row) -> bool:
    """Whether a figure is one of knowledge tracing."""
    return find("task", row["task"], TASKS).unit == "students"


def _model(row: Row) -> str:
    return ITS_OWN if find("task", row["task"], TASKS).rival else row["metric"].partition("/")[0]
