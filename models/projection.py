"""FastRP: powers of a walk's transition matrix under a random projection."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import ConfigError, TrainingError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph, rows
from qcq.models.factorization import stationary
from qcq.models.trainer import Frozen, LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings

_ROWS = 1 << 16  # questions in memory at a time, beside the table itself
_STRIP = 16  # columns with a random stream of their own
_HELD = 1 << 28  # bytes of the columns that are computed together


@settings
class FastRP(Trainer):
    """A sparse random projection of the walk's powers: fast, exact in expectation, of bounded memory.

    X = Σ_k w_k P^k L R, where P is the transition matrix from question to question, L = diag(π^β) with the stationary
    distribution π, and R (questions, dim) has entries ±√s with probability 1/(2s) each and zeros elsewhere. P = U V
    steps through the concepts, so the sum is U Z with Z = (Σ_k w_k (VU)^(k−1)) V L R, a table of concepts. There is
    never a matrix of questions × questions: R is drawn and used in blocks of rows, and many columns are computed in
    several passes.

    A question is the mean of its concepts' rows of Z, weighted by its edges. Questions with the same concepts and
    weights get the same vector, and one without concepts gets zeros. On a typed graph P is the walk's own exact chain
    (``metapath``); a walk without one is refused.

    Parameters
    ----------
    weights : w_1, w_2 …; as many powers are computed. One power is two steps in the graph.
    beta : β; -1 divides a column by how often the walk is at that question, 0 doesn't.
    sparsity : s; 3 leaves a third of the entries.

    References
    ----------
    Chen, Sultan, Tian, Chen & Skiena 2019, Fast and accurate network embeddings via very sparse random projection
    (CIKM), algorithm 1. Achlioptas 2003, Database-friendly random projections (JCSS), for s = 3.
    """

    weights: tuple[float, ...] = (1.0, 1.0)
    beta: Annotated[float, Field(ge=-1, le=0)] = 0.0
    sparsity: Annotated[float, Field(ge=1)] = 3.0

    tuning = ({}, {"weights": (0.0, 1.0)}, {"weights": (1.0, 1.0, 1.0, 1.0), "beta": -0.5})

    def __post_init__(self) -> None:
        if not any(self.weights) or not np.isfinite(self.weights).all():
            raise ConfigError(
                f"setting weights: finite numbers, not all of them zero, for example 1,1; given {list(self.weights)}"
            )

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        graph = source.graph
        if graph.n_edges == 0:
            raise TrainingError("fastrp needs edges, and the graph has none")
        w = graph.weights
        plain = not isinstance(graph, TypedGraph)
        if isinstance(graph, TypedGraph):
            chain = stationary(source, graph, "fastrp")
            out, pi = scipy.sparse.csr_array(chain.out), np.asarray(chain.start)
            back = scipy.sparse.csr_array(scipy.sparse.csc_array(chain.into).T)
        else:
            degree = np.asarray(w.sum(axis=0))
            out, pi = rows(w), np.asarray(w.sum(axis=1)) / w.sum()
            back = scipy.sparse.csr_array((w.data / degree[w.indices], w.indices, w.indptr), shape=w.shape)
        table = np.zeros((graph.n_questions, self.dim), dtype=np.float32)
        hubs = np.empty((out.shape[1], self.dim), dtype=np.float64)
        scale = np.where(pi > 0, np.where(pi > 0, pi, 1) ** self.beta, 0)
        strips = max(1, _HELD // (3 * 8 * _STRIP * out.shape[1]))
        for at in range(0, self.dim, strips * _STRIP):
            columns = slice(at, min(at + strips * _STRIP, self.dim))
            hubs[:, columns] = self._hubs(out, back, scale, columns, derive(seed, "fastrp"))
            for some in _blocks(graph.n_questions):
                table[some, columns] = out[some] @ hubs[:, columns]
            progress(columns.stop, self.dim)
        if not np.isfinite(table).all():
            raise TrainingError("fastrp: numbers too large for float32; take smaller weights")
        if not plain:
            return LookupModel(graph, table)
        return LookupModel(graph, table, hubs.astype(np.float32), parts={"concepts": hubs})

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        wide = min(self.dim, max(1, _HELD // (3 * 8 * _STRIP * graph.n_concepts)) * _STRIP)
        columns = 8 * graph.n_concepts * (self.dim + 3 * wide)
        block = 3 * 8 * min(_ROWS, graph.n_questions) * wide
        return 4 * self.dim * graph.n_questions + columns + block + 16 * graph.n_edges + 24 * graph.n_questions

    def _hubs(
        self,
        out: scipy.sparse.csr_array,
        back: scipy.sparse.csr_array,
        scale: NDArray[np.float64],
        columns: slice,
        stream: int,
    ) -> NDArray[np.float64]:
        """Columns of Z: float64 (concepts, columns). ``out`` is U, ``back`` is the transpose of V."""
        power = np.zeros((out.shape[1], columns.stop - columns.start))
        for some in _blocks(len(scale)):
            power += back[some].T @ (scale[some, None] * self._random(some, columns, stream))
        total = self.weights[0] * power
        for weight in self.weights[1:]:
            last, power = power, np.zeros_like(power)
            for some in _blocks(len(scale)):
                power += back[some].T @ (out[some] @ last)
            total += weight * power
        return total

    def _random(self, some: slice, columns: slice, stream: int) -> NDArray[np.float64]:
        """A block of R: the same entries however wide the columns are."""
        strips = []
        for at in range(columns.start, columns.stop, _STRIP):
            u = generator(stream, "rows", some.start, at).random((some.stop - some.start, _STRIP), dtype=np.float32)
            sign = (u < 0.5 / self.sparsity).astype(np.float64) - (u >= 1 - 0.5 / self.sparsity)
            strips.append(sign * np.sqrt(self.sparsity))
        return np.hstack(strips)[:, : columns.stop - columns.start]

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """The formula's own row: the new question steps to its concepts, and the old bank's chain goes on there."""
        return np.asarray(rows(weights) @ frozen.part("concepts", weights.shape[1], self.dim))


def _blocks(n: int) -> list[slice]:
    return [slice(at, min(at + _ROWS, n)) for at in range(0, n, _ROWS)]
