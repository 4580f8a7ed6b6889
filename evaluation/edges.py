"""Which concept is missing? Held-out question–concept edges, ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.ranking import expected_hit, expected_reciprocal_rank, unit
from qcq.evaluation.task import STAGES, Problem, Score, Stage, Task

TOLERANCE = 1e-6  # cosines closer than this are tied: float32 vectors can't tell them apart
_BLOCK = 1 << 22  # similarities held at once


class Edges(Task):
    """The held-out concept of a question, ranked among all concepts by cosine.

    A concept's vector is the mean of the vectors of its remaining questions; concepts that the question still has are
    not ranked, nor are concepts without a question. Reported: MRR, hits@1, hits@10, a unit an edge.
    """

    metric = "mrr"
    holds_out_edges = True
    about = "held-out question-concept edges ranked among all concepts; only questions with several concepts take part"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        for stage in STAGES:
            if stage not in problem.edges or len(problem.edges[stage]) == 0:
                several = int((np.diff(problem.dataset.q_matrix.indptr) > 1).sum())
                raise EvaluationError(
                    f"edges: no {stage} edges were held out ({problem.dataset.name} has {several} questions with "
                    "several concepts); it needs questions with several concepts and hold_out_edges=True"
                )
        self._incidence = (problem.graph.weights > 0).astype(np.float64)
        self._degree = self._incidence.sum(axis=0)  # (concepts,)

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        held = self.problem.edges[stage]
        vectors = self.vectors(embeddings)
        mean = (self._incidence.T @ vectors.astype(np.float64)) / np.maximum(self._degree, 1)[:, None]
        concepts = unit(mean)  # (concepts, dim)
        step = max(1, _BLOCK // len(concepts))
        better, tied = np.empty(len(held)), np.empty(len(held))
        for at in range(0, len(held), step):
            rows, target = held.questions[at : at + step], held.concepts[at : at + step]
            cosine = unit(vectors[rows]) @ concepts.T  # (edges, concepts)
            wanted = np.take_along_axis(cosine, target[:, None], axis=1)
            cosine[:, self._degree == 0] = -np.inf
            cosine[self._incidence[rows].nonzero()] = -np.inf
            better[at : at + step] = (cosine > wanted + TOLERANCE).sum(axis=1)
            tied[at : at + step] = (np.abs(cosine - wanted) <= TOLERANCE).sum(axis=1) - 1
        return Score.of_units(
            {
                "mrr": expected_reciprocal_rank(better, tied),
                "hits@1": expected_hit(better, tied, 1),
                "hits@10": expected_hit(better, tied, 10),
            }
        )
