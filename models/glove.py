"""GloVe: log co-occurrence counts by weighted least squares."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from qcq.errors import TrainingError
from qcq.models.trainer import LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import generator
from qcq.support.settings import settings


@settings
class GloVe(Trainer):
    """Least squares on log counts: Σ f(X_ij) (w_i·w̃_j + b_i + b̃_j − log X_ij)², by AdaGrad; vectors are w + w̃.

    X counts pairs of the corpus up to ``window`` apart, each with weight 1/distance, and f(x) = min(1, (x / x_max)^¾).
    Only pairs that occur are fitted: GloVe doesn't learn that two questions never occur together. A question without
    any pair gets zeros. One thread; the same seed gives the same vectors.

    Parameters
    ----------
    window : the longest distance counted.
    epochs : passes over the distinct pairs.
    lr : AdaGrad's learning rate.
    x_max : the count from which a pair has full weight.

    References
    ----------
    Pennington, Socher & Manning 2014, GloVe: global vectors for word representation (EMNLP), eq. 8 and 9.
    """

    window: Annotated[int, Field(ge=1)] = 5
    epochs: Annotated[int, Field(ge=1)] = 15
    lr: Annotated[float, Field(gt=0)] = 0.05
    x_max: Annotated[float, Field(gt=0)] = 100.0

    tuning = ({}, {"window": 2}, {"window": 10})

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        from qcq.models.cooccurrence import cooccurrence
        from qcq.models.kernels.glove import epoch

        graph, corpus = source.graph, source.corpus
        kept = any((shard >= graph.n_questions).any() for shard in corpus.shards)
        size = graph.n_questions + (graph.n_concepts if kept else 0)
        counts = cooccurrence(corpus, 1 / np.arange(1, self.window + 1), size)
        if counts.nnz == 0:
            raise TrainingError("no walk has two tokens, so there is nothing to count; the graph may have no edges")
        sizes = np.diff(counts.indptr)
        rows = np.repeat(np.arange(size, dtype=np.int32), sizes)
        weight = np.minimum(1, (counts.data / np.float32(self.x_max)) ** np.float32(0.75))
        log_count = np.log(counts.data)
        rng = generator(seed, "glove")
        tables = (rng.random((2, size, self.dim + 1), dtype=np.float32) - np.float32(0.5)) / np.float32(self.dim + 1)
        squares = np.ones((2, size, self.dim + 1), dtype=np.float32)
        for done in range(self.epochs):
            order = rng.permutation(counts.nnz)
            given = (order, rows, counts.indices, log_count, weight, tables[0], tables[1], squares[0], squares[1])
            loss = epoch(*given, np.float32(self.lr))
            if not np.isfinite(loss):
                raise TrainingError(f"glove diverged in epoch {done + 1}; lower lr (given {self.lr})")
            progress(done + 1, self.epochs, squared_error=loss / counts.nnz)
        x = np.where(sizes[:, None] > 0, tables.sum(axis=0)[:, : self.dim], np.float32(0))  # (tokens, dim)
        n = graph.n_questions
        return LookupModel(graph, x[:n], x[n:] if kept else None, corpus.n_tokens)
