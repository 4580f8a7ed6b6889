"""A comparison as cells: every trainer on every walk, chosen on validation, trained with every seed, scored on test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qcq.embeddings import model_folder
from qcq.engine.cell import Cell
from qcq.engine.kinds import Chosen, Scored, Trained, Walked
from qcq.engine.plan import Outcome
from qcq.engine.store import Store
from qcq.errors import QCQError
from qcq.evaluation import Partition, TaskSpec
from qcq.models import Trainer
from qcq.run import FILE, NO_WALK, Run
from qcq.support.devices import refuse_unusable
from qcq.support.files import link, whole

TABLES = ("tuning", "training", "curves", "results")  # tables to which a method adds rows


@dataclass(frozen=True, eq=False)
class Method:
    """One trainer on one walk, as the cells that it needs.

    Attributes
    ----------
    walk, name : their names in results.
    chosen : the cell that chooses settings and read-out on validation.
    trained : seed → the model.
    scored : (seed, task) → its scores.
    """

    dataset: str
    walk: str
    name: str
    tasks: Sequence[TaskSpec]
    chosen: Chosen
    trained: Mapping[int, Trained]
    scored: Mapping[tuple[int, str], Scored]

    def refuse_unusable(self, store: Store, redo: bool = False) -> None:
        """QCQError where a candidate that is still to be trained can't be trained, or scored, on this machine."""
        new = [each for each in self.chosen.candidates if redo or not store.finished(each)]
        for candidate in new:
            if isinstance(candidate.trainer, Trainer):
                candidate.trainer.refuse_unusable()
        for task in self.tasks if new else ():
            refuse_unusable(getattr(task.settings, "device", "cpu"))

    @classmethod
    def plan(
        cls,
        walk: str,
        name: str,
        trainer: Trainer,
        walks: Mapping[int, Walked | None],
        tasks: Sequence[TaskSpec],
        partition: Partition,
        *,
        tune: bool = True,
    ) -> Method:
        """The cells of one trainer on one walk.

        Parameters
        ----------
        walk, name : their names in results.
        trainer : its settings; each of its ``tuning`` is tried on validation with the first seed.
        walks : seed → the walks it is trained on, the first seed first.
        tasks : the tasks to score.
        partition : the data, split.
        tune : False leaves the settings as they are; a read-out is still chosen.
        """
        label = name if walk in (NO_WALK, FILE) else f"{walk} · {name}"
        judges = [each for each in tasks if each.task.tunes]
        tried = trainer.tuning if tune and judges else ({},)
        first = next(iter(walks))
        data, dataset = partition.digest, partition.dataset.name
        train_part = None if partition.split is None else partition.split.train
        graph = (trainer.prepare(partition.graph, train_part) if walk == NO_WALK else partition.graph).digest

        def train(seed: int, settings: Trainer | Chosen, which: str = "") -> Trained:
            return Trained(
                data=data,
                walked=walks[seed],
                trainer=settings,
                seed=seed,
                graph=graph,
                dataset=dataset,
                label=f"{label}{which}, seed {seed}",
            )

        def score(trained: Trained, each: TaskSpec, **stages: Any) -> Scored:
            text = f"{trained.label}: {each.name}"
            return Scored(data=data, trained=trained, task=each.task, settings=each.settings, label=text, **stages)

        candidates = tuple(
            train(first, replace(trainer, **change), f" (settings {i + 1} of {len(tried)})" if len(tried) > 1 else "")
            for i, change in enumerate(tried)
        )
        judged = tuple(tuple(score(c, each, stages=("validation",)) for each in judges) for c in candidates)
        chosen = Chosen(candidates=candidates, judged=judged, label=f"{label}: choice on validation")
        # With one candidate, no cell has to wait for the choice of settings.
        settings = chosen if len(candidates) > 1 else candidates[0].trainer
        trained = {seed: train(seed, settings) for seed in walks}
        scored = {}
        for seed, model in trained.items():
            for each in tasks:
                if each.task.compares_seeds:
                    others = tuple(t for s, t in trained.items() if s != seed and walk != FILE)
                    if others:
                        scored[seed, each.name] = score(model, each, stages=("test",), others=others)
                elif each.task.costly:
                    scored[seed, each.name] = score(model, each, stages=("test", "validation"), readout=chosen)
                else:
                    scored[seed, each.name] = score(model, each, stages=("test",))
        return cls(dataset, walk, name, tasks, chosen, trained, scored)

    @property
    def label(self) -> str:
        return self.name if self.walk in (NO_WALK, FILE) else f"{self.walk} · {self.name}"

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells whose results the method's tables show."""
        return [self.chosen, *self.trained.values(), *self.scored.values()]

    def said(self, outcome: Outcome) -> str:
        """The outcome in one line: the headline figures, or why there are none."""
        if (error := self.error(outcome)) is not None:
            return f"{self.label}: failed: {error}"
        if not outcome.executed & {*self.cells, *self.chosen.candidates}:
            return f"{self.label}: finished earlier, skipped"
        readout, shown = self.readout(outcome), []
        for each in self.tasks:
            scores = [self._scores(outcome, s, t) for s, t in self.scored if t == each.name]
            if scores:
                values = [one[readout]["test"]["metrics"][each.task.metric] for one in scores]
                shown.append(f"{each.name} {each.task.metric} {np.mean(values):.3f}")
        return f"{self.label}: {', '.join(shown)}"

    def error(self, outcome: Outcome) -> QCQError | None:
        """Why the method has no results; None where it has."""
        return next((outcome.errors[cell] for cell in self.cells if cell in outcome.errors), None)

    @property
    def first(self) -> Trained:
        """The model of the first seed."""
        return next(iter(self.trained.values()))

    def rows(self, outcome: Outcome) -> dict[str, list[dict[str, Any]]]:
        """Its rows of every table of a run, by the table's name."""
        about = {"dataset": self.dataset, "walk": self.walk, "trainer": self.name}
        error = self.error(outcome)
        if error is not None:
            seed = next(iter(self.trained))
            failed = {**about, "seed": seed, "comparison": self.chosen.key, "error": str(error)}
            return {"training": [failed]}
        tuning = []
        judges = [each.name for each in self.tasks if each.task.tunes]
        choice = outcome.row(self.chosen)
        for i, tried in enumerate(choice["tried"]):
            candidate = self._change(tried["candidate"])
            figures = dict(zip(judges, tried["figures"], strict=True))
            score = tried["score"] if figures else None  # no task of the run may choose
            given = {"candidate": candidate, "readout": tried["readout"], "score": score}
            tuning.append({**about, **given, **figures, "chosen": i == choice["best"]})
        readout = self.readout(outcome)
        training, curves, results = [], [], []
        for seed, trained in self.trained.items():
            row = dict(outcome.row(trained))
            readouts, settings, curve = row.pop("readouts"), row.pop("settings"), row.pop("curve")
            judged = {name: self._judged(outcome, seed, name, readout) for s, name in self._costly if s == seed}
            cell = {"readout": readout, "readouts": readouts, "comparison": self.chosen.key, "settings": settings}
            training.append({**about, "seed": seed, **row, "judged": judged, **cell})
            curves += [{**about, "seed": seed, **at} for at in curve]
        for each in readouts:
            for seed in self.trained:
                for task in self.tasks:
                    scores = self._scores(outcome, seed, task.name).get(each, {}).get("test", {}).get("metrics", {})
                    given = {"readout": each, "seed": seed, "task": task.name}
                    results += [{**about, **given, "metric": metric, "value": v} for metric, v in scores.items()]
        return {"tuning": tuning, "training": training, "curves": curves, "results": results}

    @property
    def _costly(self) -> list[tuple[int, str]]:
        return [key for key, cell in self.scored.items() if cell.task.costly]

    def _change(self, i: int) -> dict[str, Any]:
        """The settings of a candidate where they differ from the first one's, as its trainer lists them."""
        trainer = self.chosen.candidates[0].trainer
        assert isinstance(trainer, Trainer)
        return dict(trainer.tuning[i]) if len(self.chosen.candidates) > 1 else {}

    def _scores(self, outcome: Outcome, seed: int, task: str) -> dict[str, Any]:
        cell = self.scored.get((seed, task))
        return {} if cell is None else outcome.row(cell)["scores"]

    def _judged(self, outcome: Outcome, seed: int, task: str, readout: str) -> dict[str, Any]:
        held = self._scores(outcome, seed, task)[readout]["validation"]
        metric = self.scored[seed, task].task.metric
        return {metric: held["metrics"][metric], **held["choices"]}

    def readout(self, outcome: Outcome) -> str:
        """The read-out chosen on validation."""
        return outcome.resolved(self.chosen).readout(outcome.store)

    def link(self, run: Run, outcome: Outcome) -> Iterator[Path]:
        """Its vectors, scores and traces under their names in a run folder, one after the other."""
        if self.error(outcome) is not None:
            return
        store = outcome.store
        students = self.first.students(store)
        for seed, cell in self.trained.items():
            trained = outcome.resolved(cell)
            if (weights := trained.weights(store)).is_file():
                view = run.weights(self.walk, self.name, seed)
                link(weights, view)
                yield view
            for readout in store.row(trained)["readouts"]:
                view = run.file("embeddings", self.walk, self.name, readout, seed, ".safetensors")
                link(trained.table(store, readout), view)
                yield view
                home = model_folder(view)
                if students is not None:
                    yield students.save(home)
                for made in (trained.model(store), trained.weights(store)):
                    if made.is_file():  # cells of earlier versions have no model
                        link(made, home / made.name)
                        yield home / made.name
                units: dict[str, Any] = {}
                for task in self.tasks:
                    asked = self.scored.get((seed, task.name))
                    if asked is None:
                        continue
                    scored = outcome.resolved(asked)
                    units |= {f"{task.name}/{k}": v for k, v in scored.units(store, readout, "test").items()}
                    if (traces := scored.traces(store, readout)).is_file():
                        view = run.file("traces", self.walk, self.name, f"{task.name}--{readout}", seed, ".npz")
                        link(traces, view)
                        yield view
                view = run.file("scores", self.walk, self.name, readout, seed, ".npz")
                with whole(view) as file:
                    np.savez_compressed(file, **units)
                yield view
