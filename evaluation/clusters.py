"""Do clusters of vectors agree with concepts?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its submodules load when they are first used

from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.ranking import unit
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.support.seeds import derive, generator

MOST = 20_000  # questions clustered at most


class Clusters(Task):
    """k-means of the vectors scaled to length 1, with as many clusters as concepts, compared with the concepts.

    Circular by design: the walks were made from the concepts. B-cubed figures, per question: precision is the share of
    its cluster that shares a concept with it; recall is the share of all questions sharing a concept with it that are
    in its cluster (itself included in both); ``bcubed`` is their harmonic mean. ``v-measure`` compares the clusters
    with the sets of concepts as a whole. Both stages are the same.

    References
    ----------
    Amigó, Gonzalo, Artiles & Verdejo 2009, A comparison of extrinsic clustering evaluation metrics based on formal
    constraints (Information Retrieval 12), sec. 5, for items of several categories; Rosenberg & Hirschberg 2007,
    V-measure (EMNLP-CoNLL).
    """

    metric = "bcubed"
    description = "k-means clusters against concepts on the training graph: circular by design"
    tunes = False

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        graph = partition.graph
        tagged = np.flatnonzero(np.diff(graph.weights.indptr) > 0)
        if len(tagged) == 0 or np.diff(graph.by_concept.indptr).max() < 2:
            raise EvaluationError(f"clusters: no two questions of {partition.dataset.name} share a concept")
        rng = generator(partition.seed, "clusters", "questions")
        self._asked = np.sort(rng.choice(tagged, size=min(MOST, len(tagged)), replace=False))
        rows, first, self._set = np.unique(graph.concept_sets[self._asked], return_index=True, return_inverse=True)
        of_set = (graph.weights[self._asked[first]] > 0).astype(np.float64)  # (sets, concepts)
        self._share = scipy.sparse.csr_array((of_set @ of_set.T) > 0, dtype=np.float64)  # (sets, sets)
        self._n = int((np.diff(graph.by_concept.indptr) > 0).sum())
        self._sharing = self._share @ np.bincount(self._set, minlength=len(rows))  # (sets,): questions that share

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        from sklearn.cluster import KMeans
        from sklearn.metrics import v_measure_score
        from threadpoolctl import threadpool_limits

        rows = unit(self.vectors(embeddings)[self._asked])
        distinct = len(np.unique(np.round(rows, 5), axis=0))
        seed = derive(self.partition.seed, "clusters", "k-means") % 2**31
        means = KMeans(min(self._n, distinct), n_init=1, max_iter=100, random_state=seed)
        with threadpool_limits(1):  # its threads add up their parts in the order in which they end
            label = means.fit_predict(rows).astype(np.int64)
        shape = (label.max() + 1, self._share.shape[0])
        held = scipy.sparse.coo_array((np.ones(len(label)), (label, self._set)), shape=shape).tocsr()
        both = (held @ self._share).toarray()[label, self._set]  # questions of its cluster that share a concept
        precision = both / np.bincount(label)[label]
        recall = both / self._sharing[self._set]
        return Score.of_units(
            {
                "bcubed": 2 * precision * recall / (precision + recall),
                "bcubed-precision": precision,
                "bcubed-recall": recall,
            },
            **{"v-measure": float(v_measure_score(self._set, label))},
        )
