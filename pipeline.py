"""The main job: data → graph → walks → corpus → models → embeddings → evaluation → report. No algorithm lives here.

``python pipeline.py`` is the same as ``qcq run``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from qcq import data as _data
from qcq.config import Config
from qcq.data import Dataset
from qcq.embeddings import Embeddings
from qcq.engine import Cell, Plan, Store, executor
from qcq.engine.comparison import FILE, NO_WALK, Asked, Method
from qcq.engine.folder import write_description, write_tables, write_views
from qcq.engine.kinds import Inspected, Walked
from qcq.engine.plan import Outcome
from qcq.errors import ConfigError, DataError, EmbeddingError, EvaluationError, TrainingError
from qcq.evaluation import Partition
from qcq.graph import KnowledgeGraph
from qcq.models import Given, Trainer
from qcq.report import Mapped, write_folds, write_page, write_report
from qcq.run import Run
from qcq.support.folders import claim, refuse_foreign
from qcq.support.progress import Watch


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config in, results out.

    Parameters
    ----------
    config : what to run.
    dataset : the data to run it on, if it isn't to be read from ``config.data``: whatever ``qcq.data.read`` returns.

    Examples
    --------
    >>> Experiment(Config()).run("runs/simulated")  # doctest: +SKIP
    """

    config: Config
    dataset: Dataset | None = None

    @cached_property
    def data(self) -> Dataset:
        """The data set, read once."""
        return self.dataset if self.dataset is not None else _data.load(self.config.data, self.config.sections)

    @cached_property
    def partition(self) -> Partition:
        """The students divided and the edges held out, before anything else happens."""
        if len(self.data.questions) < 2:
            raise DataError(
                "a comparison needs at least two questions", value=self.data.name, fix="give a larger question bank"
            )
        hold_out = any(task.holds_out_edges for task in self.config.task_classes().values())
        fold = (self.config.fold, self.config.folds) if self.config.fold else None
        return Partition.make(self.data, self.config.seed, hold_out_edges=hold_out, fold=fold)

    @cached_property
    def graphs(self) -> dict[str, KnowledgeGraph]:
        """The training graph of each walk, with what the walk needs of the training students."""
        train = None if self.partition.split is None else self.partition.split.train
        return {name: walk.prepare(self.partition.graph, train) for name, walk in self.config.build_walks().items()}

    @cached_property
    def given(self) -> dict[str, Given]:
        """The vectors that somebody else made, by name, in the order of the questions.

        Raises
        ------
        EmbeddingError : a file that can't be read, or that doesn't fit the questions.
        """
        out = {}
        for name, file in self.config.vectors.items():
            try:
                emb = Embeddings.load(file).aligned(self.data.questions)
            except EmbeddingError as error:
                said = str(error)
                raise EmbeddingError(said if said.startswith(str(Path(file))) else f"{file}: {said}") from None
            out[name] = Given(embeddings=emb, file=str(file), dim=emb.dim)
        return out

    @cached_property
    def seeds(self) -> range:
        """The seeds, the first of them the one by which students are divided."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    @cached_property
    def tasks(self) -> list[Asked]:
        """The tasks that can be asked here.

        Raises
        ------
        EvaluationError : none of them can.
        """
        asked = [each for each in self._asked if each.name not in self.skipped]
        if not asked:
            why = "; ".join(self.skipped.values())
            raise EvaluationError(f"{self.data.name}: none of the tasks can be scored: {why}")
        return asked

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Why the other tasks can't be asked, by name."""
        out = {}
        for each in self._asked:
            try:
                if each.task.compares_seeds and self.config.seeds < 2:
                    raise EvaluationError(f"{each.name} compares seeds; ask for at least two")
                each.made(self.partition)
            except EvaluationError as error:
                out[each.name] = str(error)
        return out

    @cached_property
    def _asked(self) -> list[Asked]:
        settings = self.config.task_settings()
        return [Asked(name, cls, settings.get(name)) for name, cls in self.config.task_classes().items()]

    @cached_property
    def methods(self) -> list[Method]:
        """What is compared: trainers on walks, baselines, and vectors from files.

        Raises
        ------
        TrainingError : a trainer that can't learn on this machine, which the settings name.
        """
        out = []
        for name, trainer in self.config.build_trainers().items():
            if why := trainer.missing():
                raise TrainingError(f"trainer {name!r}: {why}")
            # A baseline doesn't look at walks, so one row of it serves all of them.
            for walk in self.graphs if trainer.learns else (NO_WALK,):
                walks = {seed: self.walked(walk, seed) for seed in self.seeds}
                out.append(self._method(walk, name, trainer, walks))
        # A table from a file has no seeds, but a task that trains a model of its own on it has.
        seeds = self.seeds if any(each.task.costly for each in self.tasks) else self.seeds[:1]
        out += [self._method(FILE, name, table, dict.fromkeys(seeds)) for name, table in self.given.items()]
        return out

    def walked(self, walk: str, seed: int) -> Walked | None:
        """The walks of one seed; None for a trainer that doesn't look at walks."""
        if walk == NO_WALK:
            return None
        strategy, digest = self.config.build_walks()[walk], self.graphs[walk].digest
        label = f"walks of {walk}, seed {seed}"
        return Walked(data=self.partition.digest, walk=strategy, seed=seed, graph=digest, label=label)

    def _method(self, walk: str, name: str, trainer: Trainer, walks: Mapping[int, Walked | None]) -> Method:
        return Method.plan(
            walk,
            name,
            trainer,
            walks,
            self.tasks,
            data=self.partition.digest,
            graph=self.partition.graph.digest,
            dataset=self.data.name,
            tune=self.config.tune,
        )

    @cached_property
    def inspected(self) -> dict[str, Inspected]:
        """What the graph can tell under each walk."""
        walks = self.config.build_walks()
        made = {name: f"what {name} can tell" for name in walks}
        return {n: Inspected(data=self.partition.digest, walk=walks[n], label=label) for n, label in made.items()}

    @cached_property
    def maps(self) -> dict[Method, Mapped]:
        """A map of the first seed's vectors of every method."""
        n, seed = len(self.methods), self.config.seed
        return {
            m: Mapped(
                data=self.partition.digest,
                trained=m.trained[seed],
                readout=m.chosen,
                maps=n,
                seed=seed,
                label=f"{m.label}: map",
            )
            for m in self.methods
        }

    @property
    def plan(self) -> Plan:
        """Every cell of the run."""
        cells: list[Cell] = [cell for method in self.methods for cell in method.cells]
        return Plan([*cells, *self.inspected.values(), *self.maps.values()])

    def store(self, out: str | Path) -> Store:
        """Where the cells of a run in ``out`` are kept; nothing is made yet."""
        return Store(self.config.store or Path(out) / "cells", {self.partition.digest: self.partition})

    def run(self, out: str | Path, *, jobs: int = 1, redo: bool = False, watch: Watch | None = None) -> Run:
        """Do the main job; what an earlier run in the same folder (or store) has finished is read from there.

        Parameters
        ----------
        out : the run folder; made only once data and settings have been found good.
        jobs : how many processes; changes no byte of the results.
        redo : do finished cells again.
        watch : who is told about progress.

        Returns
        -------
        Run : the folder, with ``report.md`` and ``report.html`` in it.

        Raises
        ------
        ConfigError : all folds are asked for, which :func:`run_folds` runs; or a folder that isn't this run's.
        """
        if self.config.folds > 1 and not self.config.fold:
            raise ConfigError(f"setting fold: name one of the {self.config.folds} folds, or run them all by run_folds")
        return _run_all([self], [Path(out)], self.store(out), jobs, redo, watch or Watch())[0]

    def begin(self, out: Path, redo: bool, watch: Watch) -> Run:
        """The run folder, marked and described; nothing is changed where it isn't this run's."""
        # A walk that can't be had here, or vectors of other questions, say so before a folder is made.
        _ = self.plan
        run = Run(out)
        refuse_foreign(out, "run")
        run.refuse_other_data(self.digest, redo)
        claim(out, "run")
        for name, why in self.skipped.items():
            watch.say(f"task {name} is left out: {why}")
        write_description(run, self.config, self.partition, self.skipped, watch)
        for name, walk in self.config.build_walks().items():
            for line in walk.remarks(self.graphs[name]):
                watch.say(line)
        return run

    def finish(self, run: Run, outcome: Outcome, watch: Watch) -> None:
        """The run's tables, vectors and reports, as views of the finished cells."""
        write_views(run, self.methods, self.inspected, self.maps, outcome)
        write_report(run)
        with watch.progress("report.html"):
            write_page(run)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the training graph and all responses: equal exactly where a run would see the same data."""
        return self.partition.data_digest


def run_folds(
    config: Config,
    out: str | Path,
    dataset: Dataset | None = None,
    *,
    jobs: int = 1,
    redo: bool = False,
    watch: Watch | None = None,
) -> list[Run]:
    """Every fold of the students in turn: ``out/fold-1`` … are runs like any other; ``out/report.md`` pools them.

    Parameters
    ----------
    config : with ``folds`` of two at least.
    out, dataset, jobs, redo, watch : as in :class:`Experiment`.

    Raises
    ------
    ConfigError : there are no folds to run.
    DataError : the data set has no students to divide.
    """
    if config.folds < 2:
        raise ConfigError(f"setting folds: {config.folds} is no number of folds; give 2 at least")
    data, out = Experiment(config, dataset).data, Path(out)
    if data.interactions is None:
        raise DataError("no students to divide into folds", value=data.name, fix="leave folds at 1")
    folds = [Experiment(replace(config, fold=k), data) for k in range(1, config.folds + 1)]
    store = Store(config.store or out / "cells", {each.partition.digest: each.partition for each in folds})
    refuse_foreign(out, "folds")
    claim(out, "folds")
    runs = _run_all(folds, [out / f"fold-{k}" for k in range(1, len(folds) + 1)], store, jobs, redo, watch or Watch())
    write_folds(runs, out)
    return runs


def _run_all(
    experiments: Sequence[Experiment], folders: Sequence[Path], store: Store, jobs: int, redo: bool, watch: Watch
) -> list[Run]:
    """Several experiments as one plan, so that what they share is done once and no process waits for the last."""
    runs = [each.begin(folder, redo, watch) for each, folder in zip(experiments, folders, strict=True)]
    plan = Plan(cell for each in experiments for cell in each.plan.cells)
    store.open()
    waiting = {
        method: (each, run, set(method.cells))
        for each, run in zip(experiments, runs, strict=True)
        for method in each.methods
    }
    finished: dict[Run, list[Method]] = {run: [] for run in runs}

    def told(cell: Cell, outcome: Outcome) -> None:
        for method, (each, run, left) in waiting.items():
            if cell in left:
                left.remove(cell)
                if not left:
                    watch.say(method.said(outcome))
                    finished[run].append(method)
                    write_tables(run, [m for m in each.methods if m in finished[run]], outcome)

    with executor(store, jobs, watch) as workers:
        outcome = plan.execute(workers, store, redo=redo, told=told)
    for each, run in zip(experiments, runs, strict=True):
        each.finish(run, outcome, watch)
    return runs


def main() -> None:
    """``python pipeline.py …`` is ``qcq run …``."""
    from qcq.cli import main as command

    sys.argv.insert(1, "run")  # a run's page shows the command that repeats it
    command()


__all__ = ["Config", "ConfigError", "Experiment"]

if __name__ == "__main__":
    # Run as a script this module is called __main__; the one that everybody imports is qcq.pipeline.
    from qcq.pipeline import main as _main

    _main()
