"""Would another seed have given the same neighbours?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.ranking import Cosines, members, memory
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.graph import KnowledgeGraph
from qcq.support.seeds import generator

QUERIES = 1_000  # queries at most
K = 10  # neighbours


class Stability(Task):
    """The share of a question's ten nearest neighbours that are also neighbours under another seed.

    With ties, an item is a neighbour with a probability m_j: 1 above the tie, (places left)/(size of the tie) in it,
    and 0 below. The overlap of two tables is Σ_j min(m_j, m'_j) / k. This is the largest overlap that any way of
    breaking the ties of both can reach, so the overlap of identical tables is exactly 1 (if ties were broken
    independently, a table would differ from itself). Without ties it is the plain share. Chance level is k / (questions
    - 1). Reported: overlap@10, the mean over the other seeds, per question of a seeded sample.
    """

    metric = "overlap@10"
    description = "overlap of the ten nearest neighbours between seeds; a bad table can be stable"
    tunes = False
    compares_seeds = True

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        n = partition.graph.n_questions
        if n < K + 2:
            raise EvaluationError(f"stability: of {n} questions each has all others as neighbours; it needs {K + 2}")
        rng = generator(partition.seed, "stability", "queries")
        self._queries = np.sort(rng.choice(n, size=min(QUERIES, n), replace=False))

    @classmethod
    def memory(cls, graph: KnowledgeGraph, dim: int) -> int:
        return 2 * (4 * dim * graph.n_questions + memory(graph.n_questions, dim, QUERIES)) + 40 * graph.n_questions

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        """Raises EvaluationError where ``others`` is empty."""
        if not others:
            raise EvaluationError("stability compares seeds; give the embeddings of at least one other seed as others")
        tables = [Cosines(self.vectors(e)) for e in (embeddings, *others)]
        overlap = np.zeros(len(self._queries))
        for i, asked in enumerate(zip(*(table.of(self._queries) for table in tables), strict=True)):
            first, *rest = (_neighbours(table, *each) for table, each in zip(tables, asked, strict=True))
            overlap[i] = np.mean([_shared(first, other) for other in rest])
        return Score.of_units({"overlap@10": overlap})


def _neighbours(
    table: Cosines, query: int, scores: NDArray[np.int32], times: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The questions that may be neighbours, and the probability of each."""
    groups, probability = members(scores, K, times)
    rows, place = table.items(groups, query)
    return rows, probability[place]


def _shared(
    one: tuple[NDArray[np.int64], NDArray[np.float64]], other: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> float:
    """Σ min(m, m') / K of two neighbourhoods.

    Both sum to K, so Σ min = K - Σ |difference| / 2, which is exact where they are equal.
    """
    at, place = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    apart = np.zeros(len(at))
    apart[place[: len(one[0])]] = one[1]
    apart[place[len(one[0]) :]] -= other[1]
    return float(1 - np.abs(apart).sum() / (2 * K))
