"""The table of several folds of the students: the spread between folds and between seeds, and which method wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qcq.evaluation import TASKS
from qcq.report.comparison import Column, Comparison, PairedComparison, comparison, correction, pooled
from qcq.run import Run
from qcq.support.files import write_text
from qcq.support.markdown import plain, plain_table


@dataclass(frozen=True)
class Folds:
    """Runs that differ only in their test students.

    Parameters
    ----------
    runs : one per fold.
    """

    runs: Sequence[Run]

    @cached_property
    def tables(self) -> list[Comparison]:
        """The comparison of each fold."""
        return [comparison(run) for run in self.runs]

    @property
    def columns(self) -> list[Column]:
        """The columns that every fold has: one fold may have too little data for a task."""
        first, *others = self.tables
        return [column for column in first.columns if all(column in table.columns for table in others)]

    def cells(self) -> list[list[str]]:
        """Row by row: walk, trainer, read-outs, then "mean ± between folds ± between seeds" for each figure.

        The mean is over folds of the mean over seeds. The first ± is the standard deviation of the latter over folds,
        the second the root of the mean variance between seeds of one fold (left out with a single seed).
        """
        figures = self.columns[3:]
        rows = []
        for line in self.tables[0].lines:
            mine = [
                (table, one)
                for table in self.tables
                for one in table.lines
                if (one.walk, one.trainer) == (line.walk, line.trainer)
            ]
            if len(mine) < len(self.runs) or any(one.error for _, one in mine):
                rows.append([line.walk, line.trainer, "failed", *["–"] * len(figures)])
                continue
            readouts = "/".join(dict.fromkeys(one.readout for _, one in mine))
            cells = [_cell([one.values[table.columns.index(c) - 3] for table, one in mine]) for c in figures]
            rows.append([line.walk, line.trainer, readouts, *cells])
        return rows

    def paired_comparisons(self) -> list[PairedComparison]:
        """Paired comparisons over the students of all folds, on the tasks whose units are students.

        Each student is a test student in one fold, so all of them are resampled together. The units of other tasks
        (held-out edges, questions) are the same in every fold; pooling them would count each several times.
        """
        columns = [c for c in self.columns if c.task in TASKS and TASKS[c.task].unit == "students"]
        return pooled(list(zip(self.runs, self.tables, strict=True)), columns)


def _cell(values: Sequence[Sequence[float]]) -> str:
    """``values``: one row per fold, one figure per seed."""
    if any(len(fold) == 0 for fold in values):
        return "–"
    means = [float(np.mean(fold)) for fold in values]
    text = f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    if all(len(fold) > 1 for fold in values):
        text += f" ± {np.sqrt(np.mean([np.var(fold, ddof=1) for fold in values])):.3f}"
    return text


def write_folds(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``report.md`` of all folds; each fold also has a report of its own."""
    folds = Folds(runs)
    about, config = runs[0].read_json("about.json"), runs[0].config
    compared = folds.paired_comparisons()
    students = sum(run.read_json("about.json")["students"]["test"] for run in runs)
    spread = "; the second is the one between seeds of a fold" if config["seeds"] > 1 else ""
    parts = [
        f"# {plain(about['dataset'])}, {len(runs)} folds: which question vectors are worth using",
        f"Every one of {students:,} students is a test student in one fold; settings and read-outs were chosen on the "
        f"validation students of each. Mean over folds; the first ± is the standard deviation between folds{spread}.",
        plain_table([c.title for c in folds.columns], folds.cells(), 3),
    ]
    if compared:
        note = f"Differences student by student over all folds, averaged over seeds, with {correction(compared)}."
        parts.append("\n".join([*(f"- {plain(pair)}" for pair in compared), "", note]))
    else:
        parts.append("No task whose units are students was asked, so there is nothing to pool over folds.")
    parts.append("\n".join(f"- fold {k}: [report](fold-{k}/report.md)" for k in range(1, len(runs) + 1)))
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
    return folder / "report.md"
