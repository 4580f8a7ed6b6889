"""What every task is given, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcq.data import Dataset, Split
from qcq.embeddings import Embeddings
from qcq.graph import KnowledgeGraph

Stage = Literal["validation", "test"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Question–concept edges that left the graph: int64 arrays (edges,)."""

    questions: NDArray[np.int64]
    concepts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.questions)


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be solved, fixed before anything is walked or trained.

    Attributes
    ----------
    dataset : as read.
    split : its students divided, or None where it has no interactions.
    graph : the training graph: the held-out edges are gone from it.
    edges : the edges that left, by stage; empty where no edges were held out.
    seed : which division.
    """

    dataset: Dataset
    split: Split | None
    graph: KnowledgeGraph
    edges: Mapping[Stage, HeldOut]
    seed: int


@dataclass(frozen=True, eq=False)
class Score:
    """The figures of one embedding on one task.

    Attributes
    ----------
    metrics : name → value.
    units : name → float64 (units,), the figure of each unit (edge, question) where the metric is their mean, so that
        two embeddings can be compared pair by pair; the same units in the same order for every embedding.
    """

    metrics: Mapping[str, float]
    units: Mapping[str, NDArray[np.float64]]


class Task(ABC):
    """One question put to an embedding. Made once for a problem, then asked for every embedding.

    Class attributes
    ----------------
    metric : the headline figure; higher is better.
    about : one line: what is asked, and its caveat.
    tunes : True where the validation figure may choose settings and read-outs.
    """

    metric: ClassVar[str]
    about: ClassVar[str]
    tunes: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        """Raises EvaluationError where the data set can't answer this task; the text says what is missing."""
        self.problem = problem

    @abstractmethod
    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        """The figures on one stage. ``others`` are the same trainer's embeddings from other seeds."""
