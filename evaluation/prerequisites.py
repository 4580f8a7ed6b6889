"""Which concepts come after one another? Known prerequisites, ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.edges import TOLERANCE
from qcq.evaluation.ranking import expected_hit, expected_reciprocal_rank, unit
from qcq.evaluation.task import Problem, Score, Stage, Task


class Prerequisites(Task):
    """Known prerequisite links between concepts: each concept of a link ranked among all by cosine with the other.

    Two concepts are held against each other by the means of the vectors of those questions that test the one and not
    the other: questions that test both would bring any two means together, random vectors' too. The other concepts to
    which a concept is linked are not ranked, nor are concepts without a question. A cosine has no direction, so neither
    has the figure: it says that concepts which build on one another lie close, not which comes first. Both stages are
    the same. Reported: MRR and hits@3, a unit a link, the mean of its two rankings.
    """

    metric = "mrr"
    about = "known prerequisite links ranked among all concepts; circular for walks over concept links (c-c edges)"
    tunes = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        graph = problem.graph
        at = {c: i for i, c in enumerate(graph.concepts)}
        asked = np.diff(graph.by_concept.indptr) > 0
        known = {
            (min(at[a], at[b]), max(at[a], at[b]))
            for a, b in problem.dataset.prerequisites
            if a != b and a in at and b in at and asked[at[a]] and asked[at[b]]
        }
        if not known or asked.sum() < 3:
            raise EvaluationError(
                f"prerequisites: {problem.dataset.name} knows of {len(known)} links between concepts that have "
                "questions; it needs one, and three concepts"
            )
        self._links = np.array(sorted(known))  # (links, 2)
        self._barred = np.tile(~asked, (graph.n_concepts, 1))  # (concepts, concepts): not ranked beside the row's own
        self._barred[np.r_[self._links[:, 0], self._links[:, 1]], np.r_[self._links[:, 1], self._links[:, 0]]] = True
        np.fill_diagonal(self._barred, True)

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        cosine = self._cosines(self.vectors(embeddings).astype(np.float64))
        ways = []
        for one, other in (self._links.T, self._links[:, ::-1].T):
            wanted = cosine[one, other][:, None]
            rivals = np.where(self._barred[one], -np.inf, cosine[one])  # (links, concepts)
            better = (rivals > wanted + TOLERANCE).sum(axis=1)
            tied = (np.abs(rivals - wanted) <= TOLERANCE).sum(axis=1)
            ways.append((expected_reciprocal_rank(better, tied), expected_hit(better, tied, 3)))
        (mrr, hits), (back_mrr, back_hits) = ways
        return Score.of_units({"mrr": (mrr + back_mrr) / 2, "hits@3": (hits + back_hits) / 2})

    def _cosines(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosine of each two concepts, questions of both left out: float64 (concepts, concepts), 0 where one has no
        question of its own; rows without a link are left 0."""
        incidence = (self.problem.graph.weights > 0).astype(np.float64).tocsc()
        total, size = incidence.T @ vectors, incidence.sum(axis=0)  # (concepts, dim), (concepts,)
        out = np.zeros((len(size), len(size)))
        for a in np.unique(self._links):
            its = incidence.indices[incidence.indptr[a] : incidence.indptr[a + 1]]
            both = incidence[its].T  # (concepts, questions of a)
            shared, n = both @ vectors[its], both.sum(axis=1)
            mine = (total[a] - shared) / np.maximum(size[a] - n, 1)[:, None]  # (concepts, dim)
            other = (total - shared) / np.maximum(size - n, 1)[:, None]
            alone = (size[a] > n) & (size > n)
            out[a] = np.where(alone, (unit(mine) * unit(other)).sum(axis=1), 0.0)
        return out
