"""Which concept is missing? Held-out question–concept edges, ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.ranking import expected_hit, expected_reciprocal_rank, unit
from qcq.evaluation.task import SHARE, STAGES, HeldOut, Partition, Score, Stage, Task
from qcq.graph import KnowledgeGraph
from qcq.support.seeds import generator

TOLERANCE = 1e-6  # cosines closer than this are tied: float32 vectors can't tell them apart
LARGEST = 20_000  # held-out edges of a stage that are ranked at most
_BLOCK = 1 << 22  # similarities held at once


class Edges(Task):
    """The held-out concept of a question, ranked among all concepts by cosine.

    A concept's vector is the mean of the vectors of its remaining questions. Concepts that the question still has are
    not ranked, nor are concepts without a question. Reported: MRR, hits@1, hits@10, per edge; and ``matched``, the
    probability that the held-out concept is ranked above another ranked concept (ties count half) that is drawn with
    the frequency at which it would be the answer. A table that only knows how frequent concepts are gets 0.5 there,
    whatever its MRR. Of more than 20,000 held-out edges a seeded sample of so many is ranked.
    """

    revision = 2
    metric = "mrr"
    holds_out_edges = True
    unit = "held-out edges"
    description = (
        "held-out question-concept edges ranked among all concepts; only questions with several concepts take part"
    )

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        for stage in STAGES:
            if stage not in partition.edges or len(partition.edges[stage]) == 0:
                several = int((np.diff(partition.dataset.q_matrix.indptr) > 1).sum())
                raise EvaluationError(
                    f"edges: no {stage} edges were held out ({partition.dataset.name} has {several} questions with "
                    "several concepts); it needs questions with several concepts and hold_out_edges=True"
                )
        self._incidence = (partition.graph.weights > 0).astype(np.float64)
        self._degree = self._incidence.sum(axis=0)  # (concepts,)
        # One edge of a question with several is held out uniformly: the expected number of times for each concept.
        whole = partition.dataset.q_matrix
        several = np.diff(whole.indptr) > 1
        share = several / np.maximum(np.diff(whole.indptr), 1)
        self._frequency = (whole > 0).astype(np.float64).T @ share  # (concepts,)

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        held = self._sample(stage)
        vectors = self.vectors(embeddings)
        concepts = unit(self.concept_vectors(embeddings))  # (concepts, dim)
        step = max(1, _BLOCK // len(concepts))
        better, tied, matched = np.empty(len(held)), np.empty(len(held)), np.empty(len(held))
        for at in range(0, len(held), step):
            rows, target = held.questions[at : at + step], held.concepts[at : at + step]
            cosine = unit(vectors[rows]) @ concepts.T  # (edges, concepts)
            wanted = np.take_along_axis(cosine, target[:, None], axis=1)
            cosine[:, self._degree == 0] = -np.inf
            cosine[self._incidence[rows].nonzero()] = -np.inf
            above, level = cosine > wanted + TOLERANCE, np.abs(cosine - wanted) <= TOLERANCE
            np.put_along_axis(level, target[:, None], False, axis=1)
            better[at : at + step], tied[at : at + step] = above.sum(axis=1), level.sum(axis=1)
            rivals = np.isfinite(cosine) @ self._frequency - self._frequency[target]
            beaten = rivals - above @ self._frequency - 0.5 * (level @ self._frequency)
            matched[at : at + step] = np.where(rivals > 1e-9, beaten / np.maximum(rivals, 1e-9), 0.5)
        return Score.of_units(
            {
                "mrr": expected_reciprocal_rank(better, tied),
                "hits@1": expected_hit(better, tied, 1),
                "hits@10": expected_hit(better, tied, 10),
                "matched": matched,
            }
        )

    @classmethod
    def memory(cls, graph: KnowledgeGraph, dim: int) -> int:
        held = min(LARGEST, SHARE * graph.n_questions / 4)  # if half of the questions have several concepts
        ranked = 30 * int(max(min(_BLOCK, held * graph.n_concepts), graph.n_concepts))  # cosines, comparisons
        means = 8 * dim * min(1 << 20, graph.n_questions)
        tables = dim * (4 * graph.n_questions + 16 * graph.n_concepts)
        return tables + max(ranked, means) + 20 * graph.n_edges

    def _sample(self, stage: Stage) -> HeldOut:
        """The edges that are ranked: all of them, or a seeded sample in their order."""
        held = self.partition.edges[stage]
        if len(held) <= LARGEST:
            return held
        rng = generator(self.partition.seed, "edges", stage)
        some = np.sort(rng.choice(len(held), size=LARGEST, replace=False))
        return HeldOut(held.questions[some], held.concepts[some])
