"""The input and output of every task."""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcq.data import Dataset, Split
from qcq.embeddings import Embeddings
from qcq.errors import ArgumentError, EvaluationError
from qcq.graph import KnowledgeGraph
from qcq.support.reproducible import reproducible
from qcq.support.seeds import generator
from qcq.support.types import takes
from qcq.support.words import in_short, several

Stage = Literal["validation", "test"]
STAGES: tuple[Stage, Stage] = ("validation", "test")
_ROWS = 1 << 20  # rows in float64 at once
SHARE = 0.3  # share of the questions with several concepts of which one edge is held out


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Question–concept edges held out of the graph: int64 arrays (edges,)."""

    questions: NDArray[np.int64]
    concepts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return in_short("HeldOut", several(len(self), "edge"))


@dataclass(frozen=True, eq=False)
class Partition:
    """The data divided for evaluation, before any walk or training. :meth:`make` makes one.

    Attributes
    ----------
    dataset : as read.
    split : the split of its students, or None if it has no interactions.
    graph : the training graph, without the held-out edges.
    edges : the held-out edges by stage; empty if none were held out.
    seed : of the random division.

    Examples
    --------
    >>> from qcq.data import Simulated
    >>> partition = Partition.make(Simulated(questions=200, concepts=10, students=50).read())
    >>> held = len(partition.edges["validation"]) + len(partition.edges["test"])
    >>> partition.graph.n_edges + held == partition.dataset.q_matrix.nnz
    True
    """

    dataset: Dataset
    split: Split | None
    graph: KnowledgeGraph
    edges: Mapping[Stage, HeldOut]
    seed: int

    @classmethod
    @takes(dataset="Dataset", seed="int")
    def make(
        cls, dataset: Dataset, seed: int = 0, hold_out_edges: bool = True, fold: tuple[int, int] | None = None
    ) -> Partition:
        """Divide the students and hold out edges, once, by ``seed``.

        A share (``SHARE``) of the questions with several concepts loses one edge each, drawn uniformly, so each
        question keeps at least one; if a concept would lose its last question, one of its edges stays. Half of the
        edges are for validation, the other half (and the odd one) for the test.

        Parameters
        ----------
        dataset : as read.
        seed : of the random division.
        hold_out_edges : False leaves the graph whole; then the task ``edges`` can't be scored.
        fold : (k, n): which fold has the test students (:meth:`~qcq.data.Dataset.split`); the held-out edges are the
            same in every fold.
        """
        graph = KnowledgeGraph.from_dataset(dataset)
        split = None if dataset.interactions is None else dataset.split(seed, fold=fold)
        rows, columns = _draw_edges(graph, generator(seed, "split", "edges")) if hold_out_edges else _NONE
        half = len(rows) // 2
        edges: dict[Stage, HeldOut] = {
            "validation": HeldOut(rows[:half], columns[:half]),
            "test": HeldOut(rows[half:], columns[half:]),
        }
        return cls(dataset, split, graph.without(rows, columns) if len(rows) else graph, edges, seed)

    @cached_property
    def data_digest(self) -> str:
        """SHA-256 over the training graph and all responses: equal exactly if a run has the same data."""
        h = hashlib.sha256(self.graph.digest.encode())
        answers = self.dataset.interactions
        if answers is not None:
            for array in (answers.student, answers.question, answers.correct):
                h.update(np.ascontiguousarray(array).data)
            h.update(np.ascontiguousarray(self.dataset.left_out).data)
        return h.hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that a score can depend on: the data, the part of each student, and the held-out edges."""
        data = self.dataset
        about = [self.data_digest, self.seed, KnowledgeGraph.from_dataset(data).digest, list(data.prerequisites)]
        about += [None if data.interactions is None else data.interactions.ordered, sorted(data.truth)]
        h = hashlib.sha256(json.dumps(about).encode())
        arrays = [data.truth[name] for name in sorted(data.truth)]
        arrays += [array for held in self.edges.values() for array in (held.questions, held.concepts)]
        if self.split is not None:
            arrays += [part.students for part in (self.split.train, self.split.validation, self.split.test)]
        for array in arrays:
            h.update(f"{array.dtype} {array.shape}".encode())
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    @property
    def part_sizes(self) -> dict[str, int]:
        """Students in each part; empty if there are none."""
        split = self.split
        if split is None:
            return {}
        return {part: len(getattr(split, part).students) for part in ("train", "validation", "test")}


_NONE = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def _draw_edges(graph: KnowledgeGraph, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges to hold out, in random order: int64 (edges,) questions and concepts."""
    w = graph.weights
    degree = np.diff(w.indptr)
    several = rng.permutation(np.flatnonzero(degree > 1))
    rows = several[: round(SHARE * len(several))].astype(np.int64)
    columns = w.indices[w.indptr[rows] + rng.integers(0, degree[rows])].astype(np.int64)
    # A question loses one edge at most. A concept could lose all its edges if all were drawn: then it keeps one.
    drawn = np.bincount(columns, minlength=graph.n_concepts)
    emptied = np.flatnonzero((drawn > 0) & (drawn == np.diff(graph.by_concept.indptr)))
    last, first = np.unique(columns, return_index=True)
    keep = np.ones(len(rows), dtype=bool)
    keep[first[np.isin(last, emptied)]] = False
    return rows[keep], columns[keep]


@dataclass(frozen=True, eq=False)
class Score:
    """The figures of one embedding on one task.

    Attributes
    ----------
    metrics : name → value.
    units : name → float64 (units,), the figure of each unit (edge, question, student) if the metric is their mean, so
        that two embeddings can be compared in pairs; the same units in the same order for every embedding.
    choices : name → what the task itself chose for this embedding, on validation.
    """

    metrics: Mapping[str, float]
    units: Mapping[str, NDArray[np.float64]]
    choices: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_units(cls, units: Mapping[str, NDArray[np.float64]], **more: float) -> Score:
        """The score whose metrics are the means of ``units``, and ``more`` metrics."""
        return cls({name: float(values.mean()) for name, values in units.items()} | more, units)


def _staged(score: Callable[..., Score]) -> Callable[..., Score]:
    """``score``, with an error for a stage that is none: test figures belong to nothing else."""

    @functools.wraps(score)
    def checked(self: Task, embeddings: Embeddings, stage: Stage = "test", *given: Any, **more: Any) -> Score:
        if stage not in STAGES:
            raise ArgumentError(f"{type(self).__name__}.score: stage takes 'validation' or 'test', given {stage!r}")
        return score(self, embeddings, stage, *given, **more)

    return checked


class Task(ABC):
    """One evaluation of embeddings. Made once for a partition, then used for every embedding.

    Class attributes
    ----------------
    metric : the headline figure; higher is better.
    slices : further figures that every comparison shows.
    description : one line: what is measured, and its caveat.
    tunes : True where the validation figure may choose settings and read-outs.
    compares_seeds : True where the figure compares the seeds of one trainer, so that a single seed has none.
    holds_out_edges : True where the task needs edges that were held out before any walk or training.
    costly : True where only the read-out chosen by the other tasks is scored.
    of_tables : False where the figures don't depend on the vectors: a report shows them once, beside the tables.
    rival : prefix of the figures ``rival/FIGURE`` of the same model without a table, shown once; empty if none.
    unit : what the figures are averaged over, in the plural: ``questions``, ``students`` (those of test) …
    baselines : trainers that every comparison with this task includes.
    settings : the class of the task's settings, its second argument, where it has any.
    figures : what ``qcq list`` says of the task's figures: name → one line; may be empty.
    revision : raised by its author when the same vectors get other figures; finished runs are then scored again.
    """

    metric: ClassVar[str]
    slices: ClassVar[tuple[str, ...]] = ()
    description: ClassVar[str]
    tunes: ClassVar[bool] = True
    compares_seeds: ClassVar[bool] = False
    holds_out_edges: ClassVar[bool] = False
    costly: ClassVar[bool] = False
    of_tables: ClassVar[bool] = True
    rival: ClassVar[str] = ""
    unit: ClassVar[str] = "questions"
    baselines: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[type[Any] | None] = None
    figures: ClassVar[Mapping[str, str]] = {}
    revision: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        if "score" in vars(cls):
            cls.score = takes(embeddings="Embeddings")(reproducible()(_staged(cls.score)))  # type: ignore[method-assign]
        if "__init__" in vars(cls):
            made = reproducible()(cls.__init__)
            cls.__init__ = takes(partition="Partition")(made)  # type: ignore[method-assign]

    @takes(partition="Partition")
    def __init__(self, partition: Partition) -> None:
        """Raises EvaluationError where the data set lacks what this task needs; the text says what is missing."""
        self.partition = partition

    def settled(self, given: Any) -> Any:
        """The settings that were given, or the defaults.

        Raises
        ------
        ArgumentError : settings of another task, which would make another model.
        """
        kind = type(self).settings
        assert kind is not None
        if given is not None and type(given) is not kind:
            what = f"{type(self).__name__} takes {kind.__name__}, given {type(given).__name__}"
            raise ArgumentError(f"{what}; write {type(self).__name__}(partition, {kind.__name__}(...))")
        return kind() if given is None else given

    @classmethod
    def missing(cls) -> str:
        """Why it can't be scored on this machine and what to do, in one line; empty where it can.

        Only a task that needs a library which isn't installed everywhere has something to say.
        """
        return ""

    @abstractmethod
    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        """The figures on one stage. ``others`` are the same trainer's embeddings from other seeds."""

    @classmethod
    def memory(cls, graph: KnowledgeGraph, dim: int) -> int:
        """Bytes that scoring a table holds at most, about, without the data: here for a table in a few copies."""
        return 16 * dim * graph.n_questions

    def traces(self, embeddings: Embeddings) -> Mapping[str, NDArray]:
        """Arrays for plots, by name, after :meth:`score`: stored with the scores of a run. Most tasks have none."""
        return {}

    def vectors(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Question vectors in the partition's order, float32 (questions, dim).

        Raises
        ------
        EvaluationError : the embeddings are of other questions.
        """
        wanted = self.partition.graph.questions
        if len(embeddings) != len(wanted):
            raise EvaluationError(f"{len(embeddings)} question vectors for {len(wanted)} questions; train on this data")
        if embeddings.ids is not wanted and list(embeddings.ids) != list(wanted):
            at = next(i for i, (a, b) in enumerate(zip(embeddings.ids, wanted, strict=True)) if a != b)
            raise EvaluationError(
                f"row {at} of the embeddings is question {embeddings.ids[at]!r}, of the partition {wanted[at]!r}; "
                "keep the data set's order"
            )
        return embeddings.vectors

    def concept_vectors(self, embeddings: Embeddings) -> NDArray[np.float64]:
        """Concept vectors, each the mean of the vectors of its questions in the training graph: float64 (concepts,
        dim); zeros for a concept without questions."""
        incidence = (self.partition.graph.weights > 0).astype(np.float64)
        vectors = self.vectors(embeddings)
        total = np.zeros((incidence.shape[1], vectors.shape[1]))
        for at in range(0, len(vectors), _ROWS):  # a wide copy of all rows may not fit into memory
            total += incidence[at : at + _ROWS].T @ vectors[at : at + _ROWS].astype(np.float64)
        return total / np.maximum(incidence.sum(axis=0), 1)[:, None]


@dataclass(frozen=True, eq=False)
class TaskSpec:
    """A task of a comparison: its name, class and settings (None where the class has none)."""

    name: str
    task: type[Task]
    settings: Any = None

    def made(self, partition: Partition) -> Task:
        """The task itself. Raises EvaluationError where the data don't have what it needs."""
        return self.task(partition) if self.settings is None else self.task(partition, self.settings)  # type: ignore[call-arg]


def unanswerable(tasks: Sequence[TaskSpec], partition: Partition, seeds: int) -> dict[str, str]:
    """Why some of the tasks can't be scored on these data with this number of seeds, by name.

    Raises
    ------
    EvaluationError : none of them can be scored.
    """
    out = {}
    for each in tasks:
        try:
            if each.task.compares_seeds and seeds < 2:
                raise EvaluationError(f"{each.name} compares seeds; use at least two")
            each.made(partition)
        except EvaluationError as error:
            out[each.name] = str(error)
    if len(out) == len(tasks):
        raise EvaluationError(f"{partition.dataset.name}: none of the tasks can be scored: {'; '.join(out.values())}")
    return out
