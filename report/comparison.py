"""The comparison table of a run, and which method wins, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from qcq.evaluation import TASKS, Contest, Difference, Task, paired_bootstrap, simultaneous
from qcq.run import FILE, NO_WALK, Row, Run
from qcq.support.registry import find


@dataclass(frozen=True)
class Column:
    """One figure: a metric of a task, or a cost."""

    title: str
    task: str
    metric: str


@dataclass(frozen=True)
class Line:
    """One trainer on one walk, with the read-out chosen on validation; or vectors from a file (walk ``file``).

    ``values`` has, for each column, the figures of all seeds (empty if there are none).
    """

    walk: str
    trainer: str
    readout: str
    values: tuple[tuple[float, ...], ...]
    error: str | None = None

    @property
    def baseline(self) -> bool:
        return self.walk == NO_WALK

    @property
    def label(self) -> str:
        return self.trainer if self.walk in (NO_WALK, FILE) else f"{self.trainer} on {self.walk}"


@dataclass(frozen=True)
class Comparison:
    """Mean ± standard deviation over seeds of every headline figure."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    def cells(self) -> list[list[str]]:
        """As text, row by row: walk, trainer, read-out, then one figure per column."""
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
    # The spread over seeds: the sample standard deviation; not shown for a single seed.
    return f"{text} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else text


def entrants(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(walk, trainer) of all methods that a run with these settings may have, in order: trainers, the baselines that
    its tasks always need, and vectors from files."""
    asked = (name for task in config["tasks"] for name in find("task", task, TASKS).baselines)
    trainers = dict.fromkeys((*config["trainers"], *asked))
    made = [(walk, trainer) for trainer in trainers for walk in (NO_WALK, *config["walks"])]
    return made + [(FILE, name) for name in config.get("vectors", {})]


def comparison(run: Run) -> Comparison:
    """The table of a run: its trainers in the configured order, its tasks' headline figures, excess and seconds."""
    config = run.config
    results, training = run.rows("results"), run.rows("training")
    tasks = {name: find("task", name, TASKS) for name in config["tasks"]}
    heads = [(n, metric) for n, task in tasks.items() if task.of_tables for metric in (task.metric, *task.slices)]
    present = [(t, m) for t, m in heads if any((r["task"], r["metric"]) == (t, m) for r in results)]
    columns = [Column(f"{task} {metric}", task, metric) for task, metric in present]
    costs = [Column("excess, nats", "training", "excess"), Column("seconds", "training", "seconds")]
    lines = []
    for walk, trainer in entrants(config):
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
    """The chosen settings' figure on validation: the task's own, or else the mean over the tasks that choose."""
    mine = [r for r in run.rows("training") if (r["walk"], r["trainer"]) == (line.walk, line.trainer)]
    own = [r["judged"][task][find("task", task, TASKS).metric] for r in mine if task in r.get("judged", {})]
    if own:
        return float(np.mean(own))
    rows = [r for r in run.rows("tuning") if (r["walk"], r["trainer"]) == (line.walk, line.trainer) and r["chosen"]]
    found = rows[0].get(task, rows[0]["score"]) if rows else None
    return -np.inf if found is None else float(found)


def _units(run: Run, line: Line, task: str, metric: str) -> Any:
    seeds = [r["seed"] for r in run.rows("training") if (r["walk"], r["trainer"]) == (line.walk, line.trainer)]
    found = [run.units(line.walk, line.trainer, line.readout, seed).get(f"{task}/{metric}") for seed in seeds]
    there = [f for f in found if f is not None]
    return np.mean(there, axis=0) if len(there) == len(found) else None  # (units,)


FEW = 20  # units from which a bootstrap interval is roughly right


@dataclass(frozen=True)
class PairedComparison:
    """Two lines of the table compared on one figure.

    Attributes
    ----------
    first : never a baseline; ``second`` is the best baseline, or isn't a baseline either.
    difference : first minus second, paired by unit on test; the intervals are simultaneous for all pairs of a run.
    """

    column: Column
    first: Line
    second: Line
    difference: Difference

    def __str__(self) -> str:
        name_a, name_b = (line.label for line in (self.first, self.second))
        name_b = f"the baseline {name_b}" if self.second.baseline else name_b
        d = self.difference
        if d.low > 0:
            return f"{self.column.title}: {name_a} beats {name_b} by {d}"
        if d.high < 0:
            return f"{self.column.title}: {name_b} wins: {name_a} differs from it by {d}"
        return f"{self.column.title}: {name_a} and {name_b} can't be told apart: {d}"


def paired_comparisons(run: Run, table: Comparison) -> list[PairedComparison]:
    """Compare the best learned vectors with the best baseline on every task that measures quality, and the learners
    pairwise if there are three at most. Vectors from a file are each compared with the best baseline.

    The "best" ones are chosen on validation. The difference is measured on test, paired by unit (a held-out edge, a
    question, a student) and averaged over seeds. The 95 % intervals are bootstrapped over these units and are
    simultaneous for all pairs of the run (:func:`~qcq.evaluation.simultaneous`).
    """
    return pooled([(run, table)], [c for c in table.columns[3:] if c.task in TASKS and quality(TASKS[c.task])])


def pooled(folds: Sequence[tuple[Run, Comparison]], columns: Sequence[Column]) -> list[PairedComparison]:
    """:func:`paired_comparisons` over the units of several runs of the same settings, without a common unit.

    Validation figures are averaged over the runs; a method that failed in one of them is left out.
    """
    held = [{(line.walk, line.trainer): line for line in table.lines if not line.error} for _, table in folds]
    lines = [line for key, line in held[0].items() if all(key in one for one in held)]
    learned = [line for line in lines if not line.baseline]
    base = [line for line in lines if line.baseline]

    def everywhere(line: Line) -> list[tuple[Run, Line]]:
        return [(run, one[line.walk, line.trainer]) for (run, _), one in zip(folds, held, strict=True)]

    def validation(line: Line, task: str) -> float:
        return float(np.mean([_validation(run, its, task) for run, its in everywhere(line)]))

    def units(line: Line, column: Column) -> Any:
        found = [_units(run, its, column.task, column.metric) for run, its in everywhere(line)]
        return None if any(u is None for u in found) else np.concatenate(found)

    drawn: list[tuple[Column, Line, Line]] = []
    contests = []
    for column in columns:
        pairs: list[tuple[Line, Line]] = []
        if learned and base:
            first, second = (max(group, key=lambda line: validation(line, column.task)) for group in (learned, base))
            pairs += [(line, second) for line in learned if line is first or line.walk == FILE]
        pairs += list(combinations(learned, 2)) if len(learned) <= 3 else []
        for pair in pairs:
            both = [units(line, column) for line in pair]
            if all(u is not None for u in both):
                drawn.append((column, *pair))
                contests.append(Contest(np.stack(both), [(0, 1)]))
    found = simultaneous(contests)
    return [PairedComparison(*who, difference) for who, (difference,) in zip(drawn, found, strict=True)]


@dataclass(frozen=True)
class Beside:
    """A table's figure beside that of a model without it.

    Attributes
    ----------
    baseline : the model without vectors that is best on validation, or the task's own model without the table.
    difference : the table's less the model's, paired by student on test; simultaneous for all of a run.
    """

    column: Column
    line: Line
    baseline: str
    difference: Difference

    def __str__(self) -> str:
        said = "can't be told apart from" if not self.difference.decided else "is ahead of"
        said = "is behind" if self.difference.high < 0 else said
        without = "" if self.baseline == OWN else ", without vectors"
        return f"{self.column.title}: {self.line.label} {said} {self.baseline}{without}: {self.difference}"


OWN = "the same model with its own embedding"


def beside_baselines(run: Run, table: Comparison) -> list[Beside]:
    """The best learned vectors and the best baseline table beside models without them: the best of ``kt-baselines``,
    and the task's own model where it has one (``Task.rival``).

    All are chosen on validation. One entry for each such model and figure of knowledge tracing in the table; empty
    where there is no such model.
    """
    name = next((task for task in run.config["tasks"] if not find("task", task, TASKS).of_tables), None)
    lines = [line for line in table.lines if not line.error]
    judged = [row["judged"][name]["model"] for row in run.rows("training") if name in row.get("judged", {})]
    drawn: list[tuple[Column, Line, str]] = []
    contests = []
    for column in table.columns[3:]:
        if column.task not in TASKS or TASKS[column.task].unit != "students":
            continue
        rival = TASKS[column.task].rival
        beside = [(judged[0], name, f"{judged[0]}/{column.metric}")] if name is not None and judged else []
        beside += [(OWN, column.task, f"{rival}/{column.metric}")] if rival else []
        groups = ([x for x in lines if x.baseline is kind] for kind in (False, True)) if beside else ()
        for line in (max(one, key=lambda x: _validation(run, x, column.task)) for one in groups if one):
            ours = _units(run, line, column.task, column.metric)
            for model, task, figure in beside:
                theirs = _units(run, line, task, figure)
                if ours is not None and theirs is not None:
                    drawn.append((column, line, model))
                    contests.append(Contest(np.stack([ours, theirs]), [(0, 1)]))
    found = simultaneous(contests) if contests else []
    return [Beside(*who, difference) for who, (difference,) in zip(drawn, found, strict=True)]


def of_tables(rows: Sequence[Row]) -> list[Row]:
    """The rows of results whose figures are of a table of vectors."""
    made = []
    for row in rows:
        task = find("task", row["task"], TASKS)
        if task.of_tables and not (task.rival and row["metric"].startswith(f"{task.rival}/")):
            made.append(row)
    return made


def quality(task: type[Task]) -> bool:
    """Whether a task's figure says that vectors are good. Reconstruction and stability don't: vectors without further
    use can be good at both."""
    return task.tunes or task.costly


def correction(compared: Sequence[PairedComparison] | Sequence[Beside]) -> str:
    """What the intervals of the paired comparisons guarantee, in words."""
    n = len(compared)
    if n < 2:
        return "a 95 % bootstrap interval"
    return f"95 % bootstrap intervals that hold for all {n} comparisons at once (max-T)"


def cautions(run: Run, table: Comparison) -> list[str]:
    """Warnings on how to read the table, one line each."""
    said = [] if run.finished else ["this run isn't finished: the same command goes on with it"]
    said += [note for note in run.read_json("about.json")["notes"] if note.startswith("doubtful: ")]
    for column in table.columns[3:]:
        if column.task in TASKS and column.metric == TASKS[column.task].metric:
            found = [_units(run, line, column.task, column.metric) for line in table.lines if not line.error]
            n = next((len(units) for units in found if units is not None), FEW)
            if n < FEW:
                said.append(
                    f"{column.task} is judged on {n} {TASKS[column.task].unit}: from fewer than {FEW} a bootstrap "
                    "interval comes out too narrow, so read its differences as hints"
                )
    names = list(run.config.get("vectors", {}))
    if not names:
        return said
    said.append(
        f"{', '.join(names)}: read from a file; what it was made from isn't known here, so no split can be proved"
    )
    if any(find("task", task, TASKS).holds_out_edges for task in run.config["tasks"]):
        said.append(
            "vectors from a file that were made from the whole question-concept graph have seen the held-out edges: "
            "their figure on edges then says how well known edges are reproduced, not predicted"
        )
    return said


def verdicts(run: Run, table: Comparison) -> list[str]:
    """:func:`paired_comparisons` in words. A method is called better only if the interval excludes zero."""
    return [str(pair) for pair in paired_comparisons(run, table)]


@dataclass(frozen=True)
class Standing:
    """The interval of one figure of the table, and its mark.

    Attributes
    ----------
    low, high : 95 % bootstrap interval over units of the mean over seeds, or None if there are fewer than two units.
    mark : ``best`` of its column on test; ``level`` if the interval of its paired difference to the best includes
        zero; else "". The best is chosen on test, so the intervals are simultaneous for all pairs of the column. A
        column is marked only if it has two figures to compare.
    """

    low: float | None = None
    high: float | None = None
    mark: str = ""


def standings(run: Run, table: Comparison) -> list[list[Standing]]:
    """One per figure, in the shape of the table: lines × columns from the fourth on."""
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
        at = list(units)
        figures = np.stack([units[i] for i in at])  # (lines, units)
        best = int(figures.mean(axis=1).argmax())
        pairs = list(combinations(range(len(at)), 2))
        (found,) = simultaneous([Contest(figures, pairs)])
        undecided = {pair for pair, difference in zip(pairs, found, strict=True) if not difference.decided}
        for k, i in enumerate(at):
            own = paired_bootstrap(figures[k], np.zeros(figures.shape[1]))
            mark = ""
            if len(at) > 1:
                same = k == best or bool(np.array_equal(figures[k], figures[best]))
                mark = "best" if same else "level" if (min(k, best), max(k, best)) in undecided else ""
            out[i][j] = Standing(own.low, own.high, mark) if own.clusters > 1 else Standing(mark=mark)
    return out
