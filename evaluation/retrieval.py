"""Are questions on the same concept close together?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.ranking import Cosines, expected_precision, memory
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.graph import KnowledgeGraph
from qcq.support.seeds import generator

QUERIES = 1_000  # queries at most


class Sharing(Task):
    """Compares a seeded sample of questions with those that share a concept with them in the training graph.

    Class attributes
    ----------------
    name : the task's name in errors and for its stream of random numbers.
    """

    name: ClassVar[str]

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        graph = partition.graph
        crowded = np.diff(graph.by_concept.indptr) > 1
        able = np.flatnonzero((graph.weights > 0) @ crowded)
        if len(able) == 0:
            raise EvaluationError(f"{self.name}: no two questions of {partition.dataset.name} share a concept")
        rng = generator(partition.seed, self.name, "queries")
        self._queries = np.sort(rng.choice(able, size=min(QUERIES, len(able)), replace=False))

    def _relevant(self, query: int) -> NDArray[np.int64]:
        """Other questions that share a concept with ``query``: int64, ascending."""
        w, by = self.partition.graph.weights, self.partition.graph.by_concept
        its = w.indices[w.indptr[query] : w.indptr[query + 1]]
        sharing = [by.indices[by.indptr[c] : by.indptr[c + 1]] for c in its]
        every = sharing[0] if len(sharing) == 1 else np.unique(np.concatenate(sharing))
        return every[every != query]


class Retrieval(Sharing):
    """All other questions ranked by cosine with one question; those that share a concept in the graph are relevant.

    This is reconstruction: the relevant questions are taken from the training graph itself. A high figure says that the
    vectors preserve the graph, not that they know anything else. Reported: MAP and precision@10 over a seeded sample of
    questions that share a concept with another one, per question; both stages are the same.
    """

    name = "retrieval"
    metric = "map"
    description = "same-concept retrieval on the training graph: reconstruction, circular by design"
    tunes = False

    @classmethod
    def memory(cls, graph: KnowledgeGraph, dim: int) -> int:
        return 4 * dim * graph.n_questions + memory(graph.n_questions, dim, QUERIES) + 40 * graph.n_questions

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        figures = np.empty((len(self._queries), 2))
        cosines = Cosines(self.vectors(embeddings))
        k = min(10, len(cosines.group) - 1)
        for i, (query, scores, times) in enumerate(cosines.of(self._queries)):
            figures[i] = expected_precision(scores, cosines.group[self._relevant(query)], k, times)
        return Score.of_units({"map": figures[:, 0], "precision@10": figures[:, 1]})
