"""The baselines: no walk, no learning. A method that doesn't beat them has learnt nothing useful."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import TrainingError
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Frozen, LookupModel, Model, Trainer, TrainingData
from qcq.support.memory import bound, shown
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings

TALL = 2**27  # numbers of a factor in float64 that are kept at once: 1 GiB
_MORE = 10  # columns beyond the rank, for accuracy
_ROWS = 1 << 18  # rows of a taller matrix at a time
LARGEST = 2**31  # bytes of a dense table at most


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
        need = self.memory(graph, 0, 0)
        limit = bound() or LARGEST
        if need > limit:
            rows = graph.n_questions + graph.n_concepts  # a concept has a row too
            raise TrainingError(
                f"concept-onehot needs {shown(need)} for a table of {rows:,} × {graph.n_concepts:,} numbers, "
                f"the bound is {shown(limit)}: take fastrp or spectral"
            )
        held = graph.weights.data
        if graph.n_edges and not (held.max() <= np.finfo(np.float32).max and held.min() >= np.finfo(np.float32).tiny):
            raise TrainingError(
                f"concept-onehot: weights from {held.min():.3g} to {held.max():.3g} don't fit into float32; "
                "divide all of them by one number so that they do, or take concept-mean"
            )
        table = np.zeros(graph.weights.shape, dtype=np.float32)
        table[np.repeat(np.arange(len(table)), np.diff(graph.weights.indptr)), graph.weights.indices] = (
            graph.weights.data
        )
        own = np.eye(graph.n_concepts, dtype=np.float32)
        return LookupModel(graph, table, own, parts={"concepts": own})

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        return 4 * (graph.n_questions + graph.n_concepts) * graph.n_concepts + 8 * graph.n_edges

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
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

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """The formula itself."""
        concepts = frozen.part("concepts", weights.shape[1], self.dim)
        return np.asarray(weights @ concepts) / np.asarray(weights.sum(axis=1))[:, None]


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
        graph = source.graph
        w = graph.weights

        def scale(degree: np.ndarray) -> scipy.sparse.dia_array:
            return scipy.sparse.diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))

        a = scale(w.sum(axis=1)) @ w @ scale(w.sum(axis=0))  # (questions, concepts)
        v, s, u = factors(a, min(self.dim, *w.shape), 7, derive(seed, "svd"))
        gain = np.where(s > 1e-9 * max(s[0], 1e-300), s, 0) ** self.power * (s > 1e-9 * max(s[0], 1e-300))
        questions, concepts = u(gain, self.dim), np.zeros((w.shape[1], self.dim), dtype=np.float32)
        concepts[:, : len(s)] = v * gain
        parts = {"v": v, "s": s, "degree": np.asarray(w.sum(axis=0)), "added": np.zeros(2)}
        return LookupModel(graph, questions, concepts, parts=parts)

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        return factors_memory(graph, self.dim)

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """a V S^(power - 1) of the new question's row a of A, with the old degrees of the concepts.

        References
        ----------
        Deerwester et al. 1990, Indexing by latent semantic analysis (JASIS), "folding-in".
        """
        return folded(frozen, weights, self.dim, self.power)


Left = Callable[[NDArray[np.float64], int], NDArray[np.float32]]


def factors(
    a: scipy.sparse.sparray, rank: int, rounds: int, stream: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Left]:
    """Leading factors of a tall sparse matrix a ≈ u diag(s) v^T, by a randomised factorisation.

    Returns
    -------
    v : float64 (columns, rank); s : float64 (rank,).
    u : a function of a gain per factor and a width: float32 (rows, width), u times the gain, zeros beyond the rank.

    A matrix whose u in float64 would be too large (``TALL`` numbers) is read in blocks of rows: subspace iteration on
    a^T a, in which only tables of columns are kept, with as many passes as the other way.

    References
    ----------
    Halko, Martinsson & Tropp 2011, Finding structure with randomness (SIAM Review), algorithms 4.4 and 5.1.
    """
    a = scipy.sparse.csr_array(a)
    if a.shape[0] * (rank + _MORE) <= TALL:
        from sklearn.utils.extmath import randomized_svd

        u, s, vt = randomized_svd(scipy.sparse.csr_matrix(a), rank, n_iter=rounds, random_state=stream % 2**32)

        def held(gain: NDArray[np.float64], width: int) -> NDArray[np.float32]:
            out = np.zeros((len(u), width), dtype=np.float32)
            out[:, :rank] = u * gain
            return out

        return vt.T, s, held
    spans = [slice(at, at + _ROWS) for at in range(0, a.shape[0], _ROWS)]
    q = generator(stream, "range").standard_normal((a.shape[1], min(a.shape[1], rank + _MORE)))
    for _ in range(rounds + 1):
        q = np.linalg.qr(q)[0]
        image = np.zeros_like(q)
        for some in spans:
            image += a[some].T @ (a[some] @ q)
        q, last = image, q
    value, inner = np.linalg.eigh(last.T @ image)  # a^T a within the last space
    best = np.argsort(-value)[:rank]
    s = np.sqrt(np.maximum(value[best], 0))
    v = last @ inner[:, best]

    def made(gain: NDArray[np.float64], width: int) -> NDArray[np.float32]:
        out = np.zeros((a.shape[0], width), dtype=np.float32)
        back = v * (gain / np.where(s > 1e-9 * max(s[0], 1e-300), s, np.inf))
        for some in spans:
            out[some, :rank] = a[some] @ back
        return out

    return v, s, made


def factors_memory(graph: KnowledgeGraph, dim: int) -> int:
    """What :func:`factors` and its tables hold, in bytes."""
    wide = dim + _MORE
    held = 24 * wide * (graph.n_questions if graph.n_questions * wide <= TALL else _ROWS)
    tables = 4 * dim * (graph.n_questions + graph.n_concepts)
    return tables + held + 32 * wide * graph.n_concepts + 28 * graph.n_edges


def folded(frozen: Frozen, weights: scipy.sparse.csr_array, dim: int, power: float) -> NDArray[np.float64]:
    """Rows of a degree-normalised matrix a ≈ u S V^T as u S^power, the right factors frozen: float64 (rows, dim).

    Parts: ``v`` (concepts, rank) and ``s`` (rank,), the factors; ``degree`` of the concepts; ``added``, a number added
    to the degrees of questions and of concepts.
    """
    v, added = frozen.part("v", weights.shape[1], range(1, dim + 1)), frozen.part("added", 2)
    s = frozen.part("s", v.shape[1])

    def scale(degree: NDArray[np.float64], more: float) -> scipy.sparse.dia_array:
        raised = np.asarray(degree) + more
        return scipy.sparse.diags_array(1 / np.sqrt(np.where(raised > 0, raised, 1)))

    a = scale(weights.sum(axis=1), added[0]) @ weights @ scale(frozen.part("degree", weights.shape[1]), added[1])
    real = s > 1e-9 * max(float(s[0]), 1e-300)
    out = np.zeros((weights.shape[0], dim))
    out[:, : len(s)] = np.asarray(a @ v) * np.where(real, np.where(real, s, 1.0) ** (power - 1), 0.0)
    return out
