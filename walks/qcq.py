"""The plain q-c-q metapath walk."""

from __future__ import annotations

import numpy as np

from qcq.corpus import Corpus
from qcq.graph import KnowledgeGraph
from qcq.seeds import derive, generator
from qcq.settings import settings
from qcq.walks.strategy import WalkStrategy


@settings
class QCQ(WalkStrategy):
    """From a question to one of its concepts, uniformly; from there to one of its questions, uniformly; and so on."""

    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        from qcq.walks.kernel import walk_questions

        rng = generator(seed, "walk", "starts")
        starts = np.tile(np.arange(graph.n_questions, dtype=np.int32), self.per_question)
        if self.start == "degree":
            degree = np.diff(graph.weights.indptr).astype(np.float64)
            starts = rng.choice(graph.n_questions, size=len(starts), p=degree / degree.sum()).astype(np.int32)
        if limit is not None and limit < len(starts):
            starts = rng.choice(starts, size=limit, replace=False)
        qc, cq = graph.weights, graph.by_concept
        tokens = walk_questions(
            qc.indptr.astype(np.int64),
            qc.indices.astype(np.int32),
            cq.indptr.astype(np.int64),
            cq.indices.astype(np.int32),
            starts,
            self.length,
            self.keep_concepts,
            np.uint64(derive(seed, "walk", "steps")),
        )
        early = {"early_ends": int((tokens[:, -1] < 0).sum())}
        return Corpus(
            [tokens], graph.n_questions, graph.n_concepts, graph.digest, {"name": "qcq", **self.config}, seed, early
        )
