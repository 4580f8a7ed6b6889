"""The baselines: no walk, no learning. A method that doesn't beat them has learnt nothing useful."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from qcq.errors import TrainingError
from qcq.models.trainer import Frozen, LookupModel, Model, Trainer, TrainingData
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
            graph,
            graph.weights.toarray().astype(np.float32),
            np.eye(graph.n_concepts, dtype=np.float32),
            parts={"concepts": np.eye(graph.n_concepts, dtype=np.float32)},
        )

    def infer(self, frozen: Frozen, weights: sparse.csr_array) -> NDArray[np.float64]:
        """The row itself."""
        return np.asarray(weights.toarray(), dtype=np.float64)


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
        return LookupModel(
            graph, questions.astype(np.float32), concepts.astype(np.float32), parts={"concepts": concepts}
        )

    def infer(self, frozen: Frozen, weights: sparse.csr_array) -> NDArray[np.float64]:
        """The formula itself."""
        return np.asarray(weights @ frozen.parts["concepts"]) / np.asarray(weights.sum(axis=1))[:, None]


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
        parts = {"v": vt.T, "s": s, "degree": np.asarray(w.sum(axis=0)), "added": np.zeros(2)}
        return LookupModel(graph, wide[0, : w.shape[0]], wide[1, : w.shape[1]], parts=parts)

    def infer(self, frozen: Frozen, weights: sparse.csr_array) -> NDArray[np.float64]:
        """a V S^(power - 1) of the new question's row a of A, with the old degrees of the concepts.

        References
        ----------
        Deerwester et al. 1990, Indexing by latent semantic analysis (JASIS), "folding-in".
        """
        return folded(frozen, weights, self.dim, self.power)


def folded(frozen: Frozen, weights: sparse.csr_array, dim: int, power: float) -> NDArray[np.float64]:
    """Rows of a degree-normalised matrix a ≈ u S V^T as u S^power, the right factors frozen: float64 (rows, dim).

    Parts: ``v`` (concepts, rank) and ``s`` (rank,), the factors; ``degree`` of the concepts; ``added``, a number added
    to the degrees of questions and of concepts.
    """
    v, s, added = frozen.parts["v"], frozen.parts["s"], frozen.parts["added"]

    def scale(degree: NDArray[np.float64], more: float) -> sparse.dia_array:
        raised = np.asarray(degree) + more
        return sparse.diags_array(1 / np.sqrt(np.where(raised > 0, raised, 1)))

    a = scale(weights.sum(axis=1), added[0]) @ weights @ scale(frozen.parts["degree"], added[1])
    real = s > 1e-9 * max(float(s[0]), 1e-300)
    out = np.zeros((weights.shape[0], dim))
    out[:, : len(s)] = np.asarray(a @ v) * np.where(real, np.where(real, s, 1.0) ** (power - 1), 0.0)
    return out
