"""The kinds of cell that plans are made of: walks, a trained model, a choice on validation, scores, a graph's facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import Corpus
from qcq.data import TrainPart
from qcq.embeddings import MODEL, WEIGHTS, Embeddings
from qcq.engine.cell import Cell, Row, plain, unkeyed
from qcq.engine.estimate import Estimate, Rates
from qcq.engine.store import Store
from qcq.errors import EvaluationError
from qcq.evaluation import Partition, Stage, Task
from qcq.floors.losses import HeldOutLoss
from qcq.floors.objectives import Objective, first_walks
from qcq.graph import KnowledgeGraph
from qcq.models import Model, Trainer, TrainingData
from qcq.models.answers import Students
from qcq.models.inference import InferenceModel, Part
from qcq.models.trainer import HELD_OUT_WALKS
from qcq.support.cost import measured
from qcq.support.files import whole
from qcq.support.memory import bound, shown
from qcq.support.progress import Progress
from qcq.walks import WalkStrategy
from qcq.walks.strategy import MAX_MEMORY

_WALK_CODE = ("qcq.walks", "qcq.graph", "qcq.corpus", "qcq.data", "qcq.support.seeds")
_MODEL_CODE = (*_WALK_CODE, "qcq.models", "qcq.floors", "qcq.embeddings", "qcq.engine.kinds")


class Measurement(Protocol):
    """A further measurement of a model while it is in memory: a frozen dataclass whose fields are in the key."""

    def measure(self, model: Model, source: TrainingData) -> Row:
        """Figures for the row of the cell that trained the model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OnData(Cell):
    """A cell that works on data of the store.

    Parameters
    ----------
    data : their digest, by which the store finds them.
    """

    data: str

    def partition(self, store: Store) -> Partition:
        """The data, with students split and edges held out."""
        return store.data[self.data]

    def train(self, store: Store) -> TrainPart | None:
        """The training students' responses; None where there are no students."""
        split = self.partition(store).split
        return None if split is None else split.train

    def students(self, store: Store) -> Students | None:
        """Whose answers may be read, and whose not; None where there are no students."""
        train = self.train(store)
        return None if train is None else Students.of(train)

    def prepared(self, store: Store, walk: WalkStrategy) -> KnowledgeGraph:
        """The training graph with the training responses that the walk needs."""
        key = f"graph {self.data} {plain(walk)}"
        return store.cached(key, lambda: walk.prepare(self.partition(store).graph, self.train(store)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Walked(OnData):
    """The corpus of one walk and seed: ``corpus/`` and its digest.

    Parameters
    ----------
    walk, seed : the walk and the seed of the sample.
    graph : digest of the prepared graph, which determines the walks.
    """

    code = _WALK_CODE

    data: str = unkeyed("")
    walk: WalkStrategy
    seed: int
    graph: str

    def run(self, store: Store, progress: Progress) -> Row:
        graph = self.prepared(store, self.walk)
        most = min(MAX_MEMORY, bound() or MAX_MEMORY)
        corpus = self.walk.stream(graph, store.file(self, "corpus"), self.seed, max_memory=most, progress=progress)
        return {"digest": corpus.digest, "walks": corpus.n_walks, "tokens": corpus.n_tokens}

    def corpus(self, store: Store) -> Corpus:
        """The walks, memory-mapped."""
        return Corpus.load(store.file(self, "corpus"))

    def estimate(self, store: Store, rates: Rates) -> Estimate:
        plan = self.walk.plan(self.prepared(store, self.walk))
        return Estimate(plan.tokens, plan.bytes, plan.memory, plan.seconds or 0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trained(OnData):
    """What is stored of one trained model: a table per read-out, losses, costs.

    Parameters
    ----------
    walked : the walks that it is trained on; None for a trainer that doesn't look at walks.
    trainer : its settings, or the cell that chooses them.
    seed : of the training.
    graph : digest of the training graph.
    dataset : name of the data, for the provenance of the vectors.
    loss_walks : held-out walks on which the loss is measured, at most HELD_OUT_WALKS; 0 for none.
    measurements : further measurements of the model.
    """

    code = _MODEL_CODE
    revision = 3

    data: str = unkeyed("")
    walked: Walked | None
    trainer: Trainer | Chosen
    seed: int
    graph: str
    dataset: str
    loss_walks: int = HELD_OUT_WALKS
    measurements: tuple[Measurement, ...] = ()

    def resolved(self, resolve: Callable[[Cell], Cell], store: Store) -> Trained:
        made = super().resolved(resolve, store)
        return replace(made, trainer=made.trainer.trainer(store)) if isinstance(made.trainer, Chosen) else made

    def run(self, store: Store, progress: Progress) -> Row:
        trainer = self.settings
        source = self.source(store)
        if trainer.learns and self.walked is not None:
            _ = source.corpus  # sampling doesn't count as the trainer's cost
        curve: list[Row] = []

        def watched(done: int, total: int, **figures: float | str) -> None:
            progress(done, total, **figures)
            if "loss" in figures:
                held = {key: figures.get(key) for key in ("loss", "floor", "excess", "verdict")}
                curve.append({"step": done, "steps": total, **held})

        with measured() as cost:
            model = trainer.fit(source, self.seed, watched)
        corpus = source.sampled
        provenance = {
            "dataset": self.dataset,
            "graph_digest": source.graph.digest,
            "walk": {} if corpus is None else dict(corpus.strategy),
            "corpus_digest": None if corpus is None else corpus.digest,
            "trainer": {"name": type(trainer).__name__, **trainer.config},
            "seed": self.seed,
        }
        graph, tables, turned = self.partition(store).graph, [], False
        for readout in model.readouts:
            learnt = model.embeddings(readout)
            e = source.walk.to_questions(graph, learnt)
            turned |= e is not learnt
            made = Embeddings(e.ids, e.vectors, e.concept_ids, e.concept_vectors, {**provenance, "readout": readout})
            made.save(self.table(store, readout))
            tables.append(made)
        # Where a walk makes other rows of the trainer's, its parts don't fit them.
        part = Part.of(trainer, source.walk, 0, None if turned else model)
        # Who is a training student depends on the run's split, which isn't in the key: see students().
        InferenceModel(graph, [part]).save(self.model(store).parent, *tables)
        row: Row = {
            "seconds": round(cost.seconds, 3),
            "peak_rss_mb": round(cost.peak_rss_mb, 1),
            "tokens": model.tokens,
            **self._loss(store, model, source),
            **({"device": trainer.place} if hasattr(trainer, "place") else {}),
            "reproducible": trainer.reproducible,
            "corpus_digest": provenance["corpus_digest"],
            "readouts": list(model.readouts),
            "settings": plain(trainer.config),
            "curve": curve,
        }
        for measurement in self.measurements:
            row |= measurement.measure(model, source)
        return row

    @property
    def weight(self) -> float:
        return self.settings.effort

    @property
    def gpus(self) -> int:
        return int(getattr(self.settings, "device", "cpu") != "cpu")

    @property
    def settings(self) -> Trainer:
        """The trainer's settings; those of the first candidate if they aren't chosen yet."""
        return self.trainer if isinstance(self.trainer, Trainer) else self.trainer.candidates[0].settings

    def source(self, store: Store) -> TrainingData:
        """What the trainer may use: graph, walks, exact chain."""
        walked = self.walked
        if walked is None:
            graph = self.settings.prepare(self.partition(store).graph, self.train(store))
            return TrainingData(graph, seed=self.seed)
        return store.cached(
            f"source {walked.key}",
            lambda: TrainingData(
                walked.prepared(store, walked.walk), walked.walk, walked.seed, sampled=walked.corpus(store)
            ),
        )

    def table(self, store: Store, readout: str) -> Path:
        """The file of a read-out's vectors."""
        return store.file(self, f"{readout.replace('/', '-')}.safetensors")

    def weights(self, store: Store) -> Path:
        """The file of what a further training can begin from; only some trainers have one."""
        return store.file(self, WEIGHTS)

    def model(self, store: Store) -> Path:
        """The file of what new questions are inferred with, for the tables of all read-outs."""
        return store.file(self, MODEL)

    def embeddings(self, store: Store, readout: str) -> Embeddings:
        """The vectors of a read-out."""
        return Embeddings.load(self.table(store, readout))

    def _loss(self, store: Store, model: Model, source: TrainingData) -> Row:
        """The held-out loss against its floor; per walk in ``loss.npz``."""
        names = ("objective", "loss", "floor", "excess", "unigram", "verdict")
        empty: Row = {**dict.fromkeys(names), "excess_se": None, "why_no_floor": None}
        if model.objective is None or not self.loss_walks:
            return empty
        objective, n = model.objective, source.heldout.n_walks

        def measured_loss() -> HeldOutLoss:
            asked = objective.held_out_batch(source.heldout, 0)
            return HeldOutLoss(source, asked if self.loss_walks >= n else first_walks(asked, n, self.loss_walks))

        walked = "none" if self.walked is None else self.walked.key
        key = f"loss {walked} {self.loss_walks} {_identity(objective)}"
        held = store.cached(key, measured_loss)
        losses = model.losses(held.batch)
        report = held.report(losses, model.history)
        with whole(store.file(self, "loss.npz")) as file:
            over = losses if held.floor is None else losses - held.floor
            np.savez_compressed(file, excess=mean_by_walk(over, held.batch.walk, n))
        found: Row = {name: getattr(report, name) for name in names}
        return {**empty, **found, "excess_se": report.se, "why_no_floor": report.why or None}

    def loss_by_walk(self, store: Store) -> NDArray[np.float64] | None:
        """Mean loss above its floor (or the loss, if there is no floor) per held-out walk: float64 (walks,), NaN for a
        walk without items; None if no loss was measured."""
        if not store.file(self, "loss.npz").is_file():
            return None
        return store.arrays(self, "loss.npz")["excess"]

    def estimate(self, store: Store, rates: Rates) -> Estimate:
        trainer = self.settings
        graph = self.partition(store).graph
        tokens = length = 0
        if self.walked is not None:
            tokens, length = self.walked.estimate(store, rates).tokens, self.walked.walk.length
        work = trainer.work(graph, tokens, length)
        table = 4 * trainer.dim * graph.n_questions
        kept = 3 if trainer.learns else 1  # tables of the weights, and what new questions are inferred with
        return Estimate(
            work if self.walked is not None else 0,
            (1 + kept) * table,
            trainer.memory(graph, tokens // length if length else 0, length),
            rates.training(trainer, work),
        )


def _identity(objective: Objective) -> str:
    """An objective by its settings; the counts for its noise are those of the walks."""
    about = [(f.name, getattr(objective, f.name)) for f in fields(objective) if f.name != "counts"]  # type: ignore[arg-type]
    return f"{objective.name} {about}"


def mean_by_walk(values: NDArray[np.float64], walk: NDArray, n: int) -> NDArray[np.float64]:
    """Mean of ``values`` (items,) per walk: float64 (n,), NaN for a walk without items."""
    count = np.bincount(walk, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.bincount(walk, values, minlength=n) / count)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored(OnData):
    """The scores of one trained model's tables on one task.

    Parameters
    ----------
    trained : the model whose tables are scored.
    task, settings : the task and its settings.
    stages : validation, test, or both.
    readout : None for the tables of all read-outs, or the cell that chooses one read-out.
    others : the same trainer's models of other seeds, for a task that compares seeds.
    """

    code = ("qcq.evaluation", "qcq.data", "qcq.graph", "qcq.embeddings", "qcq.engine.kinds", "qcq.support.seeds")

    trained: Trained
    task: type[Task]
    settings: Any = None
    stages: tuple[Stage, ...]
    readout: str | Chosen | None = None
    others: tuple[Trained, ...] = ()

    @property
    def gpus(self) -> int:
        return int(getattr(self.settings, "device", "cpu") != "cpu")

    def resolved(self, resolve: Callable[[Cell], Cell], store: Store) -> Scored:
        made = super().resolved(resolve, store)
        return replace(made, readout=made.readout.readout(store)) if isinstance(made.readout, Chosen) else made

    def run(self, store: Store, progress: Progress) -> Row:
        key = f"task {self.data} {plain(self.task)} {plain(self.settings)}"
        self._refuse_beyond_bound(store)
        settings = () if self.settings is None else (self.settings,)
        task = store.cached(key, lambda: self.task(self.partition(store), *settings))
        assert not isinstance(self.readout, Chosen)
        names: list[str] = store.row(self.trained)["readouts"] if self.readout is None else [self.readout]
        scores: Row = {}
        units: dict[str, NDArray] = {}
        for name in names:
            emb = self.trained.embeddings(store, name)
            others = [other.embeddings(store, name) for other in self.others]
            scores[name] = {}
            for stage in self.stages:
                score = task.score(emb, stage, others)
                metrics = {metric: float(value) for metric, value in score.metrics.items()}
                scores[name][stage] = {"metrics": metrics, "choices": dict(score.choices)}
                units |= {f"{name}/{stage}/{metric}": value for metric, value in score.units.items()}
            if "test" in self.stages and (traces := task.traces(emb)):
                with whole(self.traces(store, name)) as file:
                    np.savez_compressed(file, **traces)  # type: ignore[arg-type]
        with whole(store.file(self, "units.npz")) as file:
            np.savez_compressed(file, **units)  # type: ignore[arg-type]
        return {"scores": scores}

    def _refuse_beyond_bound(self, store: Store) -> None:
        limit = bound()
        if limit is None:
            return
        need = self.task.memory(self.partition(store).graph, self.trained.settings.dim)
        if need > limit:
            raise EvaluationError(
                f"scoring needs about {shown(need)}, the bound is {shown(limit)}: "
                "raise --max-memory, or take fewer dimensions"
            )

    @property
    def weight(self) -> float:
        return 50.0 if self.task.costly else 2.0

    def figure(self, store: Store, readout: str, stage: Stage) -> float:
        """The headline figure of a read-out."""
        return float(store.row(self)["scores"][readout][stage]["metrics"][self.task.metric])

    def units(self, store: Store, readout: str, stage: Stage) -> dict[str, NDArray[np.float64]]:
        """The figures of each unit: metric → float64 (units,)."""
        start = f"{readout}/{stage}/"
        held = store.arrays(self, "units.npz")
        return {key.removeprefix(start): each for key, each in held.items() if key.startswith(start)}

    def traces(self, store: Store, readout: str) -> Path:
        """The file of a task's arrays for a plot; most tasks have none."""
        return store.file(self, f"traces-{readout.replace('/', '-')}.npz")

    def estimate(self, store: Store, rates: Rates) -> Estimate:
        partition = self.partition(store)
        answers = partition.dataset.interactions
        size = len(answers) if self.task.unit == "students" and answers is not None else partition.graph.n_questions
        memory = self.task.memory(partition.graph, self.trained.settings.dim)
        seconds = rates.scoring(self.task, self.settings, size, len(self.stages))
        return Estimate(0, 8 * size, memory, seconds)


@dataclass(frozen=True, eq=False, kw_only=True)
class Chosen(Cell):
    """The candidate settings and the read-out with the best mean figure on validation.

    Parameters
    ----------
    candidates : the models tried.
    judged : for each candidate, its scores on the tasks used for the choice; all read-outs.
    """

    code = ("qcq.engine.kinds",)
    decides: ClassVar[bool] = True

    candidates: tuple[Trained, ...]
    judged: tuple[tuple[Scored, ...], ...]

    def run(self, store: Store, progress: Progress) -> Row:
        tried: list[Row] = []
        for i, (candidate, scored) in enumerate(zip(self.candidates, self.judged, strict=True)):
            for readout in store.row(candidate)["readouts"]:
                figures = [each.figure(store, readout, "validation") for each in scored]
                mean = float(np.mean(figures)) if figures else 0.0
                tried.append({"candidate": i, "readout": readout, "score": mean, "figures": figures})
        best = max(range(len(tried)), key=lambda i: tried[i]["score"])
        return {"tried": tried, "best": best}

    def readout(self, store: Store) -> str:
        """The read-out chosen."""
        row = store.row(self)
        return str(row["tried"][row["best"]]["readout"])

    def candidate(self, store: Store) -> int:
        """Which candidate was chosen."""
        row = store.row(self)
        return int(row["tried"][row["best"]]["candidate"])

    def trainer(self, store: Store) -> Trainer:
        """The settings chosen."""
        return self.candidates[self.candidate(store)].settings


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspected(OnData):
    """What a walk on a graph can tell about its questions, before anything is trained."""

    code = (*_WALK_CODE, "qcq.floors", "qcq.data")

    walk: WalkStrategy

    def run(self, store: Store, progress: Progress) -> Row:
        from qcq.floors.identifiability import inspect

        return inspect(self.prepared(store, self.walk), self.walk, self.train(store))
