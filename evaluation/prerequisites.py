"""Which concepts are prerequisites of one another? Known links, ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its submodules load when they are first used

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.edges import TOLERANCE
from qcq.evaluation.ranking import expected_hit, expected_reciprocal_rank, unit
from qcq.evaluation.task import Partition, Score, Stage, Task


class Prerequisites(Task):
    """Known prerequisite links between concepts: each concept of a link ranked among all by cosine with the other.

    A concept's vector is the mean of the vectors of the questions that test this concept alone: a question that tests
    two concepts would bring their means together, whatever the vectors are. The other concepts to which a concept is
    linked are not ranked, nor are concepts without a question of their own. A cosine has no direction, so the figure
    has none either: it says that linked concepts are close, not which one comes first. Both stages are the same.
    Reported: MRR and hits@3, per link, the mean of its two rankings.
    """

    metric = "mrr"
    description = (
        "known prerequisite links ranked among all concepts; circular for walks over concept links (c-c edges)"
    )
    tunes = False
    unit = "links"

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        graph = partition.graph
        alone = np.flatnonzero(np.diff(graph.weights.indptr) == 1)
        held = scipy.sparse.csr_array((graph.weights[alone] > 0).astype(np.float64).T)  # (concepts, questions)
        asked = np.diff(held.indptr) > 0
        at = {c: i for i, c in enumerate(graph.concepts)}
        known = {
            (min(at[a], at[b]), max(at[a], at[b]))
            for a, b in partition.dataset.prerequisites
            if a != b and a in at and b in at and asked[at[a]] and asked[at[b]]
        }
        if not known or asked.sum() < 3:
            raise EvaluationError(
                f"prerequisites: {partition.dataset.name} knows of {len(known)} links between concepts that have "
                "questions of their own; it needs one, and three such concepts"
            )
        self._alone, self._held = alone, held
        self._links = np.array(sorted(known))  # (links, 2)
        self._barred = np.tile(~asked, (graph.n_concepts, 1))  # (concepts, concepts): not ranked for this row
        self._barred[np.r_[self._links[:, 0], self._links[:, 1]], np.r_[self._links[:, 1], self._links[:, 0]]] = True
        np.fill_diagonal(self._barred, True)

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        own = self._held @ self.vectors(embeddings)[self._alone].astype(np.float64)
        concepts = unit(own)  # a cosine doesn't depend on the length of a mean
        cosine = concepts @ concepts.T  # (concepts, concepts)
        ways = []
        for one, other in (self._links.T, self._links[:, ::-1].T):
            wanted = cosine[one, other][:, None]
            rivals = np.where(self._barred[one], -np.inf, cosine[one])  # (links, concepts)
            better = (rivals > wanted + TOLERANCE).sum(axis=1)
            tied = (np.abs(rivals - wanted) <= TOLERANCE).sum(axis=1)
            ways.append((expected_reciprocal_rank(better, tied), expected_hit(better, tied, 3)))
        (mrr, hits), (back_mrr, back_hits) = ways
        return Score.of_units({"mrr": (mrr + back_mrr) / 2, "hits@3": (hits + back_hits) / 2})
