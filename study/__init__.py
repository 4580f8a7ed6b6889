"""``qcq study``: five conjectures on why a Transformer lost to skip-gram, each measured and decided by a rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from qcq.config import Config
from qcq.engine import Cell, Outcome, Plan, RayCluster, Row, Store, check_jobs, make_executor, make_store
from qcq.engine.plan import Groups
from qcq.engine.processes import end_imported
from qcq.errors import ConfigError, EvaluationError, UnknownNameError
from qcq.pipeline import Experiment
from qcq.study.cells import TASKS, StudyData, Trial, headline
from qcq.study.conjectures import UNJUDGED, verdicts
from qcq.study.experiments import EXPERIMENTS, SIZES, ExperimentResults, Size, StudyExperiment, Trials
from qcq.support.files import write_text
from qcq.support.folders import claim, refuse_foreign
from qcq.support.lock import occupied
from qcq.support.progress import Watch


@dataclass(frozen=True, eq=False)
class Study:
    """All experiments, or some, on the simulated classroom and on data sets of yours.

    Parameters
    ----------
    size : how much is run: a name in ``SIZES``, or your own Size.
    data : data sets in addition to the simulated classroom, as ``qcq run --data`` takes them.
    only : names of the experiments to run; none: all.
    first : the data set that always comes first.
    store : a folder of finished cells that several studies and runs share; empty for one in the study's own folder.

    Examples
    --------
    >>> Study("small").run("runs/study")  # doctest: +SKIP
    """

    size: str | Size
    data: Sequence[str] = ()
    only: Sequence[str] = ()
    first: str | Experiment = "simulated"
    store: str | Path = ""

    def __post_init__(self) -> None:
        if isinstance(self.size, str) and self.size not in SIZES:
            raise UnknownNameError("size", self.size, SIZES)
        for name in self.only:
            if name not in EXPERIMENTS:
                raise UnknownNameError("experiment", name, EXPERIMENTS)

    def run(self, out: str | Path, *, jobs: int | RayCluster = 1, watch: Watch | None = None) -> Row:
        """Run what isn't finished yet; write ``study.json``, ``study.md`` and its figures.

        Parameters
        ----------
        out : folder of the study; finished cells in it are skipped.
        jobs : how many processes, or a Ray cluster; doesn't change the results. With more than one, a script puts its
            work under ``if __name__ == "__main__":``, because each process imports the script.
        watch : receives the progress.

        Returns
        -------
        dict : the content of ``study.json``; :func:`qcq.study.conjectures.verdicts` makes the verdicts from it.
        """
        from qcq.study.page import write_study

        end_imported()
        check_jobs(jobs)
        watch, out = watch or Watch(), Path(out)
        refuse_foreign(out, "study")
        size = self.size if isinstance(self.size, Size) else SIZES[self.size]
        tasks = (*TASKS, "kt") if size.kt else TASKS
        experiments = [
            source if isinstance(source, Experiment) else Experiment(Config(data=source, tasks=tasks))
            for source in dict.fromkeys([self.first, *self.data])
        ]
        names = [experiment.data.name for experiment in experiments]  # unreadable data fail before anything is run
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ConfigError(f"two data sets are called {twice[0]!r}; give each once")
        sets = [StudyData(experiment) for experiment in experiments]
        for one in sets:
            _ = one.experiment.tasks  # impossible tasks fail now too
        claim(out, "study")
        store = make_store(self.store, out / "cells", {one.digest: one.experiment.partition for one in sets}).open()
        running = _Running(self, size, sets, store, out, watch)
        with occupied(out):
            with make_executor(store, jobs, watch) as workers:
                outcome = running.plan.execute(workers, store, on_done=running.on_done)
            results = running.results(outcome)
            write_study(results, out)
        return results


class _Running:
    """A study while it runs: the unfinished trials, and the results so far."""

    def __init__(
        self, study: Study, size: Size, sets: Sequence[StudyData], store: Store, out: Path, watch: Watch
    ) -> None:
        self.study, self.size, self.out, self.watch = study, size, out, watch
        self.sets = sets
        self.trials = {
            (name, data): EXPERIMENTS[name].cells(size, data) for data in sets for name in study.only or EXPERIMENTS
        }
        self.cells = {
            (name, data): {cell for each in trials.values() for trial in each for cell in trial.cells(data)}
            for (name, data), trials in self.trials.items()
        }
        self.plan = Plan(cell for cells in self.cells.values() for cell in sorted(cells, key=lambda cell: cell.key))
        # Several experiments may share one trial: it is reported once, under the first name.
        self._lines: dict[frozenset[Cell], tuple[str, StudyData, Trial]] = {}
        for (_, data), trials in self.trials.items():
            for name, each in trials.items():
                for trial in each:
                    self._lines.setdefault(frozenset(trial.cells(data)), (name, data, trial))
        self._trials = Groups({cells: cells for cells in self._lines})
        self._experiments = Groups(self.cells)

    def on_done(self, cell: Cell, outcome: Outcome) -> None:
        """One cell has ended."""
        for its in self._trials.done(cell):
            if its & outcome.executed or any(c in outcome.errors for c in its):
                name, data, trial = self._lines[its]
                self.watch.say(f"{data.name} · {name}: {headline(trial.result(data, outcome)[0])}")
        for name, data in self._experiments.done(cell):
            results = self.results(outcome)
            judged = verdicts(results["found"][name], name)[1].get(data.name, UNJUDGED)
            self.watch.say(f"{data.name} · {name}: {judged.text}")
            write_text(self.out / "study.json", json.dumps(results, indent=1) + "\n")

    def results(self, outcome: Outcome) -> Row:
        """The content of ``study.json``: the experiments whose cells have all ended."""
        named = self.study.size if isinstance(self.study.size, str) else "of your own"
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.size).items()}
        results: Row = {"size": named, "settings": plain, "qcq": metadata.version("qcq"), "data": {}, "found": {}}
        for name, data in self.cells:
            results["data"][data.name] = data.describe()
            if self._experiments.complete((name, data)):
                found = _experiment(EXPERIMENTS[name], self.trials[name, data], data, outcome)
                results["found"].setdefault(name, {})[data.name] = found
        return results


def _experiment(experiment: StudyExperiment, trials: Trials, data: StudyData, outcome: Outcome) -> Row:
    """One experiment on one data set: its trials' rows, its figures, or why there are none."""
    held = {name: [trial.result(data, outcome) for trial in each] for name, each in trials.items()}
    found = ExperimentResults(
        {name: [row for row, _ in each] for name, each in held.items()},
        {name: [units for _, units in each] for name, each in held.items()},
    )
    out: Row = {"cells": {name: _summary(rows) for name, rows in found.rows.items()}}
    try:
        out["measures"] = {name: asdict(measure) for name, measure in experiment.measures(found).items()}
    except EvaluationError as error:
        out["why"] = str(error)
    return out


def _summary(rows: Sequence[Row]) -> Row:
    """What the page shows of a cell: means over its seeds."""
    first = next((row for row in rows if "error" in row), rows[0])
    if "scores" not in first:
        return dict(first)
    out: Row = {key: first.get(key) for key in ("objective", "verdict", "readout") if first.get(key) is not None}
    out |= {"seeds": len(rows), "seconds": round(sum(row["seconds"] for row in rows), 1), "tokens": first["tokens"]}
    for key in ("loss", "floor", "excess", "se"):
        if first.get(key) is not None:
            out[key] = float(np.mean([row[key] for row in rows]))
    keys = dict.fromkeys(key for row in rows for key in row["scores"])
    out["scores"] = {k: float(np.mean([row["scores"][k] for row in rows if k in row["scores"]])) for k in keys}
    return out | {key: first[key] for key in ("attention", "window", "backwards") if key in first}
