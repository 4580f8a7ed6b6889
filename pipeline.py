"""The pipeline: data → graph → walks → corpus → models → embeddings → evaluation → report. No algorithm is here.

``python pipeline.py`` is the same as ``qcq run``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from qcq import data as _data
from qcq.config import Config
from qcq.data import Dataset
from qcq.embeddings import Embeddings, load_matched
from qcq.engine import Cell, Plan, RayCluster, Store, check_jobs, make_executor, make_store
from qcq.engine.comparison import Method
from qcq.engine.earlier import goes_on
from qcq.engine.folder import Tables, refuse_links, write_description, write_views
from qcq.engine.kinds import Inspected, Walked
from qcq.engine.plan import Outcome
from qcq.engine.processes import end_imported
from qcq.errors import ConfigError, DataError, TrainingError
from qcq.evaluation import Partition, TaskSpec, unanswerable
from qcq.graph import KnowledgeGraph
from qcq.models import PrecomputedVectors
from qcq.report import Mapped, Tracker, tracked, write_folds, write_page, write_report
from qcq.run import FILE, NO_WALK, Run, cells_of
from qcq.support.folders import claim, refuse_foreign
from qcq.support.lock import occupied
from qcq.support.progress import Watch
from qcq.support.types import check


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config in, results out.

    Parameters
    ----------
    config : what to run.
    dataset : the data, if they shouldn't be read from ``config.data``: a result of ``qcq.data.read``.

    Examples
    --------
    >>> Experiment(Config()).run("runs/simulated")  # doctest: +SKIP
    """

    config: Config
    dataset: Dataset | None = None

    def __post_init__(self) -> None:
        check("Experiment", "config", self.config, "Config")
        if self.dataset is not None:
            check("Experiment", "dataset", self.dataset, "Dataset")

    @cached_property
    def data(self) -> Dataset:
        """The data set, read once."""
        return self.dataset or _data.load(self.config.data, self.config.sections, strict=self.config.strict)

    @cached_property
    def partition(self) -> Partition:
        """The split of the students and the held-out edges, made before anything else."""
        if len(self.data.questions) < 2:
            raise DataError(
                "a comparison needs at least two questions", value=self.data.name, fix="give a larger question bank"
            )
        return self.config.partition(self.data)

    @cached_property
    def graphs(self) -> dict[str, KnowledgeGraph]:
        """The training graph of each walk, with the training responses that the walk needs."""
        train = None if self.partition.split is None else self.partition.split.train
        return {name: walk.prepare(self.partition.graph, train) for name, walk in self.config.build_walks().items()}

    @cached_property
    def matched(self) -> dict[str, tuple[Embeddings, tuple[str, ...]]]:
        """The vectors from files, by name, in the order of the questions; with notes on rows left out or filled in."""
        return load_matched(self.config.vectors, self.data, self.config.missing)

    @cached_property
    def vectors(self) -> dict[str, PrecomputedVectors]:
        """The vectors from files as trainers that have learnt already."""
        made = ((name, emb, str(self.config.vectors[name])) for name, (emb, _) in self.matched.items())
        return {name: PrecomputedVectors(embeddings=emb, file=file, dim=emb.dim) for name, emb, file in made}

    @cached_property
    def seeds(self) -> range:
        """The seeds; the first one is also the seed of the split."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    @cached_property
    def tasks(self) -> list[TaskSpec]:
        """The tasks that can be scored on these data."""
        return [each for each in self.config.task_specs() if each.name not in self.skipped]

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Why the other tasks can't be scored, by name. Raises EvaluationError if none can."""
        return unanswerable(self.config.task_specs(), self.partition, self.config.seeds)

    @cached_property
    def methods(self) -> list[Method]:
        """Trainers on walks, baselines, and vectors from files. TrainingError for one that can't learn here."""
        out, tune = [], self.config.tune
        for name, trainer in self.config.build_trainers().items():
            if why := trainer.missing():
                raise TrainingError(f"trainer {name!r}: {why}")
            # A baseline doesn't use walks, so it has one row for all of them.
            for walk in self.graphs if trainer.learns else (NO_WALK,):
                walks = {seed: self.walked(walk, seed) for seed in self.seeds}
                out.append(Method.plan(walk, name, trainer, walks, self.tasks, self.partition, tune=tune))
        # A table from a file has no seeds, but a task that trains its own model on the table has.
        seeds = self.seeds if any(each.task.costly for each in self.tasks) else self.seeds[:1]
        for name, table in self.vectors.items():
            out.append(Method.plan(FILE, name, table, dict.fromkeys(seeds), self.tasks, self.partition, tune=tune))
        return out

    def walked(self, walk: str, seed: int) -> Walked | None:
        """The walks of one seed; None for a trainer that doesn't use walks."""
        if walk == NO_WALK:
            return None
        strategy, digest = self.config.build_walks()[walk], self.graphs[walk].digest
        label = f"walks of {walk}, seed {seed}"
        return Walked(data=self.partition.digest, walk=strategy, seed=seed, graph=digest, label=label)

    @cached_property
    def inspected(self) -> dict[str, Inspected]:
        """What each walk on the graph can tell about questions."""
        data, walks = self.partition.digest, self.config.build_walks()
        return {name: Inspected(data=data, walk=walk, label=f"what {name} can tell") for name, walk in walks.items()}

    @cached_property
    def maps(self) -> dict[Method, Mapped]:
        """A map of the first seed's vectors of every method."""
        same: dict[str, Any] = {"data": self.partition.digest, "maps": len(self.methods), "seed": self.config.seed}
        return {m: Mapped(trained=m.first, readout=m.chosen, label=f"{m.label}: map", **same) for m in self.methods}

    @property
    def plan(self) -> Plan:
        """Every cell of the run."""
        cells: list[Cell] = [cell for method in self.methods for cell in method.cells]
        return Plan([*cells, *self.inspected.values(), *self.maps.values()])

    def store(self, out: str | Path) -> Store:
        """Where the cells of a run in ``out`` are stored, those of a fold beside it; nothing is created yet."""
        home = cells_of(Path(out), self.config.fold)
        return make_store(self.config.store, home, {self.partition.digest: self.partition})

    def run(
        self,
        out: str | Path,
        *,
        jobs: int | RayCluster = 1,
        redo: bool = False,
        watch: Watch | None = None,
        tracker: Tracker | None = None,
    ) -> Run:
        """Run the experiment; finished cells of an earlier run in the same folder (or store) are read from there.

        Parameters
        ----------
        out : the run folder; created only after data and settings are checked.
        jobs : how many processes, or a Ray cluster; doesn't change the results. With more than one, a script puts its
            work under ``if __name__ == "__main__":``, because each process imports the script.
        redo : run finished cells again.
        watch : receives the progress.
        tracker : wandb, trackio, or an object with their ``init``, ``log`` and ``finish``.

        Returns
        -------
        Run : the folder, with ``report.md`` and ``report.html`` in it.

        Raises
        ------
        ConfigError : all folds are asked for, which :func:`run_folds` runs; or a folder that isn't this run's.
        """
        end_imported()
        check_jobs(jobs)
        if self.config.folds > 1 and not self.config.fold:
            raise ConfigError(f"setting fold: name one of the {self.config.folds} folds, or run them all by run_folds")
        return _run_all([self], [Path(out)], self.store(out), jobs, redo, watch or Watch(), tracker)[0]

    def check(self, out: str | Path, *, redo: bool = False, watch: Watch | None = None) -> None:
        """Refuse a folder that :meth:`run` would refuse; nothing is written.

        Raises
        ------
        ConfigError : the folder isn't this run's.
        """
        run, store = Run(Path(out)), self.store(out)
        for method in self.methods:
            method.refuse_unusable(store, redo)
        _refuse(run)
        goes_on(run, self.config, self.methods, self.partition.data_digest, redo, watch)

    def begin(self, run: Run, watch: Watch) -> None:
        """Describe the run in its folder."""
        notes = [f"{name}: {note}" for name, (_, said) in self.matched.items() for note in said]
        write_description(run, self.config, self.partition, self.skipped, notes, watch)
        for name, walk in self.config.build_walks().items():
            for line in walk.remarks(self.graphs[name]):
                watch.say(line)

    def finish(self, run: Run, outcome: Outcome, watch: Watch) -> None:
        """The run's tables, vectors and reports, as views of the finished cells."""
        write_views(run, self.methods, self.inspected, self.maps, outcome)
        write_report(run)
        with watch.progress("report.html"):
            write_page(run)


def run_folds(
    config: Config,
    out: str | Path,
    dataset: Dataset | None = None,
    *,
    jobs: int | RayCluster = 1,
    redo: bool = False,
    watch: Watch | None = None,
    tracker: Tracker | None = None,
) -> list[Run]:
    """Run every fold of the students: ``out/fold-1`` … are normal runs; ``out/report.md`` pools them.

    Parameters
    ----------
    config : with ``folds`` of at least two.
    out, dataset, jobs, redo, watch, tracker : as in :class:`Experiment`.

    Raises
    ------
    ConfigError : there are no folds to run.
    DataError : the data set has no students to divide.
    """
    end_imported()
    check_jobs(jobs)
    if config.folds < 2:
        raise ConfigError(f"setting folds: {config.folds} is no number of folds; give 2 at least")
    data, out = Experiment(config, dataset).data, Path(out)
    if data.interactions is None:
        raise DataError("no students to divide into folds", value=data.name, fix="leave folds at 1")
    folds = [Experiment(replace(config, fold=k), data) for k in range(1, config.folds + 1)]
    store = make_store(config.store, out / "cells", {each.partition.digest: each.partition for each in folds})
    refuse_foreign(out, "folds")
    claim(out, "folds")
    folders = [out / f"fold-{k}" for k in range(1, len(folds) + 1)]
    with occupied(out):
        runs = _run_all(folds, folders, store, jobs, redo, watch or Watch(), tracker)
        write_folds(runs, out)
    return runs


def _run_all(
    experiments: Sequence[Experiment],
    folders: Sequence[Path],
    store: Store,
    jobs: int | RayCluster,
    redo: bool,
    watch: Watch,
    tracker: Tracker | None,
) -> list[Run]:
    """Several experiments as one plan, so that shared cells run once and no process waits for the last experiment."""
    for method in (method for each in experiments for method in each.methods):
        method.refuse_unusable(store, redo)
    # An impossible walk, vectors of other questions, or another run's folder: an error before anything is written.
    plan = Plan(cell for each in experiments for cell in each.plan.cells)
    made = {Run(folder): each for each, folder in zip(experiments, folders, strict=True)}
    for run in made:
        _refuse(run)
    with occupied(*(claim(run.path, "run") for run in made)):
        for run, each in made.items():
            goes_on(run, each.config, each.methods, each.partition.data_digest, redo, watch)
        for run, each in made.items():
            each.begin(run, watch)
        with tracked(tracker, watch, list(made)) as watch:
            tables = Tables({run: each.methods for run, each in made.items()}, watch, redo)
            with make_executor(store.open(), jobs, watch) as workers:
                outcome = plan.execute(workers, store, redo=redo, on_done=tables.on_done)
            for run, each in made.items():
                each.finish(run, outcome, watch)
    return list(made)


def _refuse(run: Run) -> None:
    """ConfigError for a folder in which no run can be."""
    refuse_foreign(run.path, "run")
    refuse_links(run.path)


def main() -> None:
    """``python pipeline.py …`` is ``qcq run …``."""
    from qcq.cli import main as command

    sys.argv.insert(1, "run")  # a run's page shows the command to repeat it
    command()


if __name__ == "__main__":
    # Run as a script, this module is called __main__; other modules import it as qcq.pipeline.
    from qcq.pipeline import main as _main

    _main()
