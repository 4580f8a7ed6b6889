"""The baselines: no walk, no learning. A method that doesn't beat them has learnt nothing useful."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from qcq.errors import TrainingError
from qcq.models.trainer import LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings

_MOST = 2**29  # entries of a dense table: 2 GiB


@settings
class Random(Trainer):
    """Independent standard normal vectors: the result without any knowledge."""

    learns: ClassVar[bool] = False

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        rng = generator(seed, "random")
        graph = source.graph
        questions = rng.standard_normal((graph.n_questions, self.dim), dtype=np.float32)
        return LookupModel(graph, questions, rng.standard_normal((graph.n_concepts, self.dim), dtype=np.float32))


@settings
class ConceptOneHot(Trainer):
    """A question's row of the Q-matrix, one dimension per concept (``dim`` is not used)."""

    learns: ClassVar[bool] = False

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        graph = source.graph
        rows = graph.n_questions + graph.n_concepts  # a concept has a row too
        if rows * graph.n_concepts > _MOST:
            raise TrainingError(
                f"concept-onehot would need {rows:,} × {graph.n_concepts:,} numbers "
                f"({rows * graph.n_concepts * 4 / 2**30:.1f} GiB); use svd instead"
            )
        return LookupModel(
            graph, graph.weights.toarray().astype(np.float32), np.eye(graph.n_concepts, dtype=np.float32)
        )


@settings
class ConceptMean(Trainer):
    """The mean of a question's concept vectors, which are independent standard normals: a short concept-onehot.

    x_q = Σ_c w_qc v_c / Σ_c w_qc. It knows which concepts a question has, and nothing else. A question without concepts
    gets zeros.
    """

    learns: ClassVar[bool] = False

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        graph = source.graph
        concepts = generator(seed, "concept-mean").standard_normal((graph.n_concepts, self.dim))
        degree = graph.weights.sum(axis=1)[:, None]
        questions = (graph.weights @ concepts) / np.where(degree > 0, degree, 1)  # (questions, dim)
        return LookupModel(graph, questions.astype(np.float32), concepts.astype(np.float32))


@settings
class SVD(Trainer):
    """Truncated SVD of the degree-normalised graph, A = D_q^-1/2 W D_c^-1/2 ≈ U S V^T; vectors are U S^power.

    Parameters
    ----------
    dim : rank; a smaller graph gives its own rank, padded with zeros.
    power : exponent of the singular values.

    References
    ----------
    Dhillon 2001, Co-clustering documents and words using bipartite spectral graph partitioning (KDD), eq. 9.
    """

    power: Annotated[float, Field(ge=0)] = 1.0

    learns: ClassVar[bool] = False
    tuning = ({}, {"power": 0.5}, {"power": 0.0})

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        from scipy import sparse
        from sklearn.utils.extmath import randomized_svd

        graph = source.graph
        w = graph.weights

        def scale(degree: np.ndarray) -> sparse.dia_array:
            return sparse.diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))

        a = scale(w.sum(axis=1)) @ w @ scale(w.sum(axis=0))  # (questions, concepts)
        rank = min(self.dim, *w.shape)
        u, s, vt = randomized_svd(sparse.csr_matrix(a), rank, n_iter=7, random_state=derive(seed, "svd") % 2**32)
        wide = np.zeros((2, max(w.shape), self.dim), dtype=np.float32)
        gain = np.where(s > 1e-9 * max(s[0], 1e-300), s, 0) ** self.power * (s > 1e-9 * max(s[0], 1e-300))
        wide[0, : w.shape[0], :rank] = u * gain
        wide[1, : w.shape[1], :rank] = vt.T * gain
        return LookupModel(graph, wide[0, : w.shape[0]], wide[1, : w.shape[1]])
