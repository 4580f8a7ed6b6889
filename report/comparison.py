"""The comparison table of a run, and who wins, said with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from qcq.evaluation import TASKS
from qcq.evaluation.statistics import paired_bootstrap
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


def verdicts(run: Run, table: Comparison) -> list[str]:
    """One sentence a task: how the best learned vectors stand against the best baseline, and the learners pairwise.

    Who is "best" is decided on validation; the difference is measured on test, unit by unit (a held-out edge, a
    question), averaged over seeds, with a 95 % bootstrap interval over units. Nothing is called better unless its
    interval excludes zero.
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
            if first is None or second is None:
                continue
            interval = paired_bootstrap(first, second)
            name_a, name_b = (line.trainer if line.baseline else f"{line.trainer} on {line.walk}" for line in (a, b))
            figure = f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
            if interval.low > 0:
                text = f"{name_a} beats {'the baseline ' if b.baseline else ''}{name_b} by {figure}"
            elif interval.high < 0:
                text = f"{'the baseline ' if b.baseline else ''}{name_b} wins: {name_a} differs from it by {figure}"
            else:
                text = f"{name_a} and {'the baseline ' if b.baseline else ''}{name_b} can't be told apart: {figure}"
            out.append(f"{column.title}: {text}")
    return out
