"""The comparison table of a run, and who wins, said with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from qcq.evaluation import TASKS
from qcq.evaluation.statistics import Difference, paired_bootstrap
from qcq.registry import find
from qcq.run import Run


@dataclass(frozen=True)
class Column:
    """One figure: a metric of a task, or a cost."""

    title: str
    task: str
    metric: str


@dataclass(frozen=True)
class Line:
    """One trainer on one walk, with the read-out chosen on validation.

    ``values`` holds, for each column, the figures of all seeds (empty where there are none).
    """

    walk: str
    trainer: str
    readout: str
    values: tuple[tuple[float, ...], ...]
    error: str | None = None

    @property
    def baseline(self) -> bool:
        return self.walk == "none"

    @property
    def label(self) -> str:
        return self.trainer if self.baseline else f"{self.trainer} on {self.walk}"


@dataclass(frozen=True)
class Comparison:
    """Mean ± standard deviation over seeds of every headline figure."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    def cells(self) -> list[list[str]]:
        """As text, row by row: walk, trainer, read-out, then a figure a column."""
        rows = []
        for line in self.lines:
            if line.error:
                rows.append([line.walk, line.trainer, "failed", *["–"] * (len(self.columns) - 3)])
                continue
            figures = [_cell(v, c) for v, c in zip(line.values, self.columns[3:], strict=True)]
            rows.append([line.walk, line.trainer, line.readout, *figures])
        return rows


_NAMES = (Column("walk", "", "walk"), Column("trainer", "", "trainer"), Column("read-out", "", "readout"))


def _cell(values: Sequence[float], column: Column) -> str:
    if not values:
        return "–"
    mean = float(np.mean(values))
    if column.metric == "seconds":
        return f"{mean:.2f}" if mean < 10 else f"{mean:.0f}"
    text = f"{mean:.3f}"
    # The spread over seeds: the sample standard deviation, so one seed shows none.
    return f"{text} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else text


def comparison(run: Run) -> Comparison:
    """The table of a run: its trainers in the configured order, its tasks' headline figures, excess and seconds."""
    config = run.config
    results, training = run.rows("results"), run.rows("training")
    heads = [(name, find("task", name, TASKS).metric) for name in config["tasks"]]
    present = [(t, m) for t, m in heads if any((r["task"], r["metric"]) == (t, m) for r in results)]
    columns = [Column(f"{task} {metric}", task, metric) for task, metric in present]
    costs = [Column("excess, nats", "training", "excess"), Column("seconds", "training", "seconds")]
    lines = []
    for trainer in config["trainers"]:
        for walk in ("none", *config["walks"]):
            mine = [row for row in training if (row["walk"], row["trainer"]) == (walk, trainer)]
            if not mine:
                continue
            if "error" in mine[0]:
                lines.append(Line(walk, trainer, "", (), mine[0]["error"]))
                continue
            readout = mine[0]["readout"]
            key = (walk, trainer, readout)
            values: list[tuple[float, ...]] = [
                tuple(
                    r["value"]
                    for r in results
                    if (r["walk"], r["trainer"], r["readout"]) == key and (r["task"], r["metric"]) == (c.task, c.metric)
                )
                for c in columns
            ]
            values += [tuple(row[c.metric] for row in mine if row[c.metric] is not None) for c in costs]
            lines.append(Line(walk, trainer, readout, tuple(values)))
    return Comparison((*_NAMES, *columns, *costs), tuple(lines))


def _validation(run: Run, line: Line, task: str) -> float:
    rows = [r for r in run.rows("tuning") if (r["walk"], r["trainer"]) == (line.walk, line.trainer) and r["chosen"]]
    return float(rows[0].get(task, -np.inf)) if rows else -np.inf


def _units(run: Run, line: Line, task: str, metric: str) -> Any:
    seeds = [r["seed"] for r in run.rows("training") if (r["walk"], r["trainer"]) == (line.walk, line.trainer)]
    found = [run.units(line.walk, line.trainer, line.readout, seed).get(f"{task}/{metric}") for seed in seeds]
    there = [f for f in found if f is not None]
    return np.mean(there, axis=0) if len(there) == len(found) else None  # (units,)


@dataclass(frozen=True)
class Duel:
    """Two lines of the table against each other, on one figure.

    Attributes
    ----------
    first : of learned vectors always; ``second`` is the best baseline, or other learned vectors.
    difference : first minus second, unit by unit on test.
    """

    column: Column
    first: Line
    second: Line
    difference: Difference

    def __str__(self) -> str:
        name_a, name_b = (line.label for line in (self.first, self.second))
        name_b = f"the baseline {name_b}" if self.second.baseline else name_b
        d = self.difference
        figure = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        if d.low > 0:
            return f"{self.column.title}: {name_a} beats {name_b} by {figure}"
        if d.high < 0:
            return f"{self.column.title}: {name_b} wins: {name_a} differs from it by {figure}"
        return f"{self.column.title}: {name_a} and {name_b} can't be told apart: {figure}"


def duels(run: Run, table: Comparison) -> list[Duel]:
    """How the best learned vectors stand against the best baseline on every task that may tune, and the learners
    pairwise.

    Who is "best" is decided on validation; the difference is measured on test, unit by unit (a held-out edge, a
    question), averaged over seeds, with a 95 % bootstrap interval over units.
    """
    out = []
    lines = [line for line in table.lines if not line.error]
    for column in table.columns[3:]:
        task = TASKS.get(column.task)
        if task is None or not task.tunes:
            continue
        learned = [line for line in lines if not line.baseline]
        base = [line for line in lines if line.baseline]
        pairs = []
        if learned and base:
            best = [max(group, key=lambda line: _validation(run, line, column.task)) for group in (learned, base)]
            pairs.append((best[0], best[1]))
        pairs += list(combinations(learned, 2)) if len(learned) <= 3 else []
        for a, b in pairs:
            first, second = (_units(run, line, column.task, column.metric) for line in (a, b))
            if first is not None and second is not None:
                out.append(Duel(column, a, b, paired_bootstrap(first, second)))
    return out


def verdicts(run: Run, table: Comparison) -> list[str]:
    """:func:`duels` in words. Nothing is called better unless its interval excludes zero."""
    return [str(duel) for duel in duels(run, table)]


@dataclass(frozen=True)
class Standing:
    """Where one figure of the table stands.

    Attributes
    ----------
    low, high : 95 % bootstrap interval over units of the mean over seeds, or None where a figure has no units.
    mark : ``best`` of its column on test, ``level`` where the paired interval of the difference to the best takes in
        zero, else "". A column is marked only where there are two figures to compare.
    """

    low: float | None = None
    high: float | None = None
    mark: str = ""


def standings(run: Run, table: Comparison) -> list[list[Standing]]:
    """One a figure, in the shape of the table: lines × columns from the fourth on."""
    out = [[Standing() for _ in table.columns[3:]] for _ in table.lines]
    for j, column in enumerate(table.columns[3:]):
        if column.task not in TASKS:
            continue
        units = {
            i: found
            for i, line in enumerate(table.lines)
            if not line.error and (found := _units(run, line, column.task, column.metric)) is not None
        }
        if not units:
            continue
        best = max(units, key=lambda i: float(units[i].mean()))
        for i, mine in units.items():
            own = paired_bootstrap(mine, np.zeros(len(mine)))
            mark = ""
            if len(units) > 1:
                same = i == best or bool(np.array_equal(mine, units[best]))
                mark = "best" if same else "" if paired_bootstrap(units[best], mine).decided else "level"
            out[i][j] = Standing(own.low, own.high, mark)
    return out
