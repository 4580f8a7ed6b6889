"""Closed forms: skip-gram's matrix computed and factorised instead of learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import ChainError, TrainingError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models.baselines import factors, factors_memory, folded
from qcq.models.trainer import Frozen, LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings

if TYPE_CHECKING:
    from qcq.floors.markov import MarkovChain

_DENSE = 3_000  # rows up to which the log-ratio matrix is dense and factorised exactly
_BLOCK = 1_024  # rows in memory at a time with more rows


class Quotient:
    """The graph with exchangeable questions merged: one row for each set of concepts and weights.

    Attributes
    ----------
    label : int64 (questions,), the class of each question.
    sizes : float64 (classes,), number of questions per class.
    rows : csr_array float64 (classes, concepts), the weights of a class.

    Classes are sorted by their rows, so that relabelling the questions only changes ``label``.
    """

    def __init__(self, graph: KnowledgeGraph) -> None:
        _, first, label = np.unique(graph.concept_sets, return_index=True, return_inverse=True)
        w = scipy.sparse.csr_array(graph.weights[first])
        spans = [slice(w.indptr[i], w.indptr[i + 1]) for i in range(len(first))]
        order = sorted(range(len(first)), key=lambda i: (tuple(w.indices[spans[i]]), tuple(w.data[spans[i]])))
        rank = np.empty(len(first), dtype=np.int64)
        rank[order] = np.arange(len(first))
        self.label: NDArray[np.int64] = rank[label]
        self.sizes: NDArray[np.float64] = np.bincount(self.label, minlength=len(first)).astype(np.float64)
        self.rows = scipy.sparse.csr_array(w[order])


class LogRatio:
    """log max(1, expected co-occurrence ÷ chance ÷ negatives) of a q–c–q walk, on the quotient graph.

    For the stationary walk on weights W, with U = D_q⁻¹W, V = D_c⁻¹Wᵀ and P = UV, Qiu et al. 2018, eq. 7:

        K = vol / (bT) · (Σ_{r=1…T} P^r) D_q⁻¹ = vol / (bT) · U (Σ_{r=0…T−1} M^r) D_c⁻¹ Uᵀ,  M = VU.

    If concepts are tokens too, the walk on all nodes takes T steps of half that size, and vol counts both sides.

    Parameters
    ----------
    quotient : the merged graph.
    window, negatives : T and b.
    keep : concepts are tokens too; their rows follow those of the classes.

    Attributes
    ----------
    gain : float64 (nodes,), the square root of each row's class size: diag(gain) log K diag(gain) has the full matrix's
        singular values, and its singular vectors divided by gain are the full ones.
    """

    def __init__(self, quotient: Quotient, window: int, negatives: float, keep: bool) -> None:
        w = quotient.rows
        d_q, d_c = w.sum(axis=1), quotient.sizes @ w

        def inverse(degree: NDArray[np.float64]) -> scipy.sparse.dia_array:
            return scipy.sparse.diags_array(np.where(degree > 0, 1 / np.where(degree > 0, degree, 1), 0))

        self.u = scipy.sparse.csr_array(inverse(d_q) @ w)  # (classes, concepts)
        self.d_c = inverse(d_c)
        members = scipy.sparse.diags_array(quotient.sizes)
        self.m = scipy.sparse.csr_array(self.d_c @ w.T @ members @ self.u)  # (concepts, concepts)
        self.keep, self.window = keep, window
        self.scale = float(d_c.sum()) * (2 if keep else 1) / (negatives * window)
        self.gain = np.sqrt(np.concatenate([quotient.sizes, np.ones(w.shape[1] if keep else 0)]))
        start = [self.u, scipy.sparse.eye_array(w.shape[1], format="csr")] if keep else [self.u]
        self.start = scipy.sparse.csr_array(scipy.sparse.vstack(start))  # (nodes, concepts), a node's first half-step

    def rows(self, at: slice) -> NDArray[np.float64]:
        """Rows ``at`` of diag(gain) log max(1, K) diag(gain): float64 (rows, nodes)."""
        concept = np.arange(self.start.shape[0])[at] >= self.u.shape[0]
        return self.gain[at, None] * self._logs(self.start[at].toarray(), concept) * self.gain

    def outside(self, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """Rows of questions that aren't in the graph, log max(1, K) diag(gain): float64 (questions, nodes).

        Parameters
        ----------
        weights : csr_array (questions, concepts), each with a concept.
        """
        total = np.asarray(weights.sum(axis=1))
        return (
            self._logs((scipy.sparse.diags_array(1 / total) @ weights).toarray(), np.zeros(len(total), dtype=bool))
            * self.gain
        )

    def _logs(self, x: NDArray[np.float64], concept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """log max(1, K) of rows by their first half-steps ``x`` (rows, concepts)."""
        # Steps to a question number 1…T. With concepts as tokens, every second step leads to a question and the others
        # to a concept; a concept is half a step further, so its powers of M begin at one, a question's at zero.
        reach = np.zeros_like(x), np.zeros_like(x)  # summed powers towards questions, towards concepts
        for r in range(1, self.window + 1):
            if not self.keep:
                reach[0][:] += x
                x = x @ self.m
            elif r % 2:
                reach[1][~concept] += x[~concept]
                reach[0][concept] += x[concept]
                x[concept] = x[concept] @ self.m
            else:
                reach[0][~concept] += x[~concept]
                reach[1][concept] += x[concept]
                x[~concept] = x[~concept] @ self.m
        k = (reach[0] @ self.d_c) @ self.u.T  # (rows, classes)
        if self.keep:
            k = np.hstack([k, reach[1] @ self.d_c])  # (rows, nodes)
        return np.log(np.maximum(self.scale * k, 1.0))

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """All rows, in blocks."""
        for at in range(0, len(self.gain), _BLOCK):
            span = slice(at, min(at + _BLOCK, len(self.gain)))
            yield span, self.rows(span)


class ChainRatio(LogRatio):
    """The same for a first-order chain P = UV with stationary distribution π: K = Σ_{r=1…T} (P^r + P*^r) / 2 / (bT π).

    P* = diag(1/π) Pᵀ diag(π) is the chain run backwards; skip-gram uses pairs in both orders. On undirected edges of
    one kind P* = P, and this is eq. 7.

    Parameters
    ----------
    chain : started from its stationary distribution.
    window, negatives : T and b.
    """

    def __init__(self, chain: MarkovChain, window: int, negatives: float) -> None:
        one = np.zeros(chain.n_classes, dtype=np.int64)
        one[chain.classes] = np.arange(chain.n_questions)  # a question of each class
        u = scipy.sparse.csr_array(chain.out[one])
        v = scipy.sparse.csr_array(scipy.sparse.csc_array(chain.into)[:, one])
        sizes, pi = chain.sizes.astype(np.float64), chain.start[one]
        hub = (pi * sizes) @ u  # (hubs,)

        def over(x: NDArray[np.float64]) -> scipy.sparse.dia_array:
            return scipy.sparse.diags_array(np.where(x > 0, 1 / np.where(x > 0, x, 1), 0))

        back = scipy.sparse.csr_array(over(pi) @ v.T @ scipy.sparse.diags_array(hub))  # U of P*
        ways = [(u, v)]
        if np.abs(back - u).max() > 1e-9:
            ways.append((back, scipy.sparse.csr_array(over(hub) @ u.T @ scipy.sparse.diags_array(pi))))
        self.ways = [(a, scipy.sparse.csr_array(b @ scipy.sparse.diags_array(sizes) @ a), b) for a, b in ways]
        self.over_pi = np.where(pi > 0, 1 / np.where(pi > 0, pi, 1), 0)
        self.window, self.scale = window, 1.0 / (negatives * window * len(ways))
        self.gain = np.sqrt(sizes)

    def rows(self, at: slice) -> NDArray[np.float64]:
        k = np.zeros((len(self.gain[at]), len(self.gain)))
        for first, middle, last in self.ways:
            x = first[at].toarray()  # (rows, hubs)
            reach = x.copy()
            for _ in range(self.window - 1):
                x = x @ middle
                reach += x
            k += reach @ last
        return self.gain[at, None] * np.log(np.maximum(self.scale * k * self.over_pi, 1.0)) * self.gain


def _settle(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column with the sign that makes its largest entry positive."""
    if vectors.size == 0:
        return vectors
    best = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * np.where(best < 0, -1.0, 1.0)


def _widen(vectors: NDArray[np.float64], dim: int) -> NDArray[np.float32]:
    """float32 (rows, dim), zeros where the rank is smaller."""
    out = np.zeros((len(vectors), dim), dtype=np.float32)
    out[:, : vectors.shape[1]] = vectors
    return out


@settings
class NetMF(Trainer):
    """The closed form of skip-gram: the logarithm of the walk's exact expected co-occurrences, factorised.

    X = U_d Σ_d^½ of log max(1, vol / (bT) · (Σ_{r=1…T} P^r) D⁻¹), where P is the stationary walk, T the
    window, b the negatives, and vol the total degree of the nodes that are tokens. No walk is sampled and nothing is
    random. Questions with the same concepts and weights have the same row, so the matrix is computed once for each
    distinct set. Weighting a set by the square root of its size makes the factorisation equal to the full one. With
    many distinct sets, a randomised factorisation passes over the rows without having all of them in memory; its time
    grows with the square of the number of sets.

    The matrix is exact, but its truncation minimises a squared error: it isn't the rank-d optimum of skip-gram's own
    loss, which weights frequent pairs more.

    On a typed graph P is the walk's own exact chain (``metapath``); a walk without one is refused.

    Parameters
    ----------
    window : T, the longest distance counted; all distances up to it have the same weight.
    negatives : b; ratios below b times chance count as b.

    References
    ----------
    Qiu et al. 2018, Network embedding as matrix factorization: unifying DeepWalk, LINE, PTE, and node2vec (WSDM),
    eq. 7 and algorithm 3. Musco & Musco 2015, Randomized block Krylov methods for stronger and faster approximate
    singular value decomposition (NIPS), algorithm 2, for the randomised path.
    """

    window: Annotated[int, Field(ge=1)] = 5
    negatives: Annotated[float, Field(gt=0)] = 1.0

    tuning = ({}, {"window": 2}, {"window": 10})

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        graph = source.graph
        if graph.n_edges == 0:
            raise TrainingError("netmf needs edges, and the graph has none")
        ratio: LogRatio
        if isinstance(graph, TypedGraph):
            chain = stationary(source, graph, "netmf")
            label, ratio = chain.classes, ChainRatio(chain, self.window, self.negatives)
        else:
            quotient = Quotient(graph)
            label = quotient.label
            ratio = LogRatio(quotient, self.window, self.negatives, source.walk.keep_concepts)
        if len(ratio.gain) <= _DENSE:
            value, vector = _top(ratio.rows(slice(0, len(ratio.gain))), self.dim)
        else:
            rng = generator(derive(seed, "netmf"), "range")
            value, vector = _streamed(ratio, min(self.dim, len(ratio.gain)), rng, progress)
        vector = _settle(vector)
        x = vector * np.sqrt(np.abs(value)) / ratio.gain[:, None]  # (nodes, rank)
        n = int(label.max()) + 1
        concepts = _widen(x[n:], self.dim) if len(x) > n else None
        plain = not isinstance(graph, TypedGraph)
        parts = {"vectors": vector, "values": value} if plain else {}
        return LookupModel(graph, _widen(x[:n], self.dim)[label], concepts, parts=parts)

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        nodes = int(graph.concept_sets.max(initial=0)) + 1
        matrix = 5 * 8 * nodes * nodes if nodes <= _DENSE else 8 * (5 * _BLOCK + 10 * (self.dim + 10)) * nodes
        return matrix + 4 * self.dim * (graph.n_questions + graph.n_concepts)

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """Nyström: the new question's exact row of the log-ratio matrix, projected on the frozen eigenvectors.

        The question steps to its concepts, and from there the old bank's chain goes on. An eigenvector v of L D (D: the
        sizes of the sets of questions) has v = L D v / λ, also at a row that wasn't there.

        References
        ----------
        Williams & Seeger 2001, Using the Nyström method to speed up kernel machines (NIPS), eq. 8.
        """
        quotient = Quotient(frozen.graph)
        ratio = LogRatio(quotient, self.window, self.negatives, frozen.walk.keep_concepts)
        vector = frozen.part("vectors", len(ratio.gain), range(self.dim + 1))
        value = frozen.part("values", vector.shape[1])
        rows = ratio.outside(weights)  # (new questions, nodes)
        real = np.abs(value) > 1e-9 * np.abs(value).max(initial=1e-300)
        out = np.zeros((weights.shape[0], self.dim))
        size = np.abs(np.where(real, value, 1.0))
        out[:, : len(value)] = (rows @ vector) * np.where(real, np.sign(value) / np.sqrt(size), 0.0)
        return out


def stationary(source: TrainingData, graph: TypedGraph, name: str) -> MarkovChain:
    """The exact chain of a walk over typed edges, started from its stationary distribution, for the trainer ``name``.

    Raises
    ------
    TrainingError : the walk has no chain of first order.
    """
    from qcq.floors.markov import MarkovChain

    try:
        if isinstance(source.walk.chain(graph), MarkovChain):
            chain = replace(source.walk, start="degree").chain(graph)
            assert isinstance(chain, MarkovChain)
            return chain
    except ChainError as error:
        raise TrainingError(f"{name} needs the walk's exact chain: {error}") from None
    raise TrainingError(f"{name} needs a first-order chain, and {source.walk.name} has another; take ppmi-svd")


def _top(matrix: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenpairs of a symmetric matrix, largest absolute values first.

    Computed component by component: most graphs have several, and equal eigenvalues of different components would
    otherwise mix.
    """
    n, label = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(matrix), directed=False)
    values, vectors = [], []
    for part in np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=n))[:-1]):
        value, inner = _leading(matrix[np.ix_(part, part)], min(rank, len(part)))
        vector = np.zeros((len(matrix), len(value)))
        vector[part] = inner
        values.append(value)
        vectors.append(vector)
    value = np.concatenate(values)
    best = np.argsort(-np.abs(value), kind="stable")[:rank]
    return value[best], np.hstack(vectors)[:, best]


def _leading(matrix: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same for one component."""
    n = len(matrix)
    if n > max(500, 4 * rank):
        from scipy.sparse.linalg import eigsh

        rng = generator(0, "lanczos")  # a fixed start: the result is exact for any start
        value, vector = eigsh(matrix, rank, v0=rng.standard_normal(n))
        # Lanczos can miss copies of a repeated eigenvalue. The residual shows it.
        rest = scipy.linalg.qr(rng.standard_normal((n, 16)), mode="economic")[0]
        for _ in range(8):
            rest -= vector @ (vector.T @ rest)
            rest = scipy.linalg.qr(matrix @ rest, mode="economic")[0]
        rest -= vector @ (vector.T @ rest)
        left = np.abs(scipy.linalg.eigvalsh(rest.T @ matrix @ rest)).max()
        if left <= np.abs(value).min() * (1 + 1e-9):
            return value, vector
    value, vector = scipy.linalg.eigh(matrix)
    best = np.argsort(-np.abs(value), kind="stable")[:rank]
    return value[best], vector[:, best]


def _streamed(
    ratio: LogRatio, rank: int, rng: np.random.Generator, progress: Progress, passes: int = 4
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same by a block Krylov space of a random start with ten extra directions, over blocks of rows."""
    n = len(ratio.gain)
    basis = np.empty((n, 0))
    image = np.empty((n, 0))
    block = rng.standard_normal((n, min(n, rank + 10)))
    for i in range(passes):
        for _ in range(2):  # one pass isn't enough in floating point
            block = scipy.linalg.qr(block - basis @ (basis.T @ block), mode="economic")[0][:, : n - basis.shape[1]]
        turned = np.empty_like(block)
        for span, rows in ratio.blocks():
            turned[span] = rows @ block
            progress(i * n + span.stop, passes * n)
        basis, image = np.hstack([basis, block]), np.hstack([image, turned])
        block = turned
        if basis.shape[1] == n:
            break
    inside = basis.T @ image
    value, inner = _leading((inside + inside.T) / 2, rank)
    return value, basis @ inner


@settings
class PPMISVD(Trainer):
    """Truncated SVD of the positive PMI matrix counted in the corpus; vectors are U S^½.

    PPMI = max(0, log(n_xy n / (n_x n_y)) − log shift), where n_xy counts pairs as skip-gram samples them: weight
    (T − d + 1) / T at distance d up to T, the window.

    Parameters
    ----------
    window : T.
    shift : k of the shifted PMI that skip-gram with k negatives factorises; 1 is plain PPMI.

    References
    ----------
    Levy & Goldberg 2014, Neural word embedding as implicit matrix factorization (NIPS), eq. 11 and 12.
    """

    window: Annotated[int, Field(ge=1)] = 5
    shift: Annotated[float, Field(gt=0)] = 1.0

    tuning = ({}, {"window": 2}, {"window": 10})

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        from sklearn.utils.extmath import randomized_svd

        from qcq.models.cooccurrence import cooccurrence, shrinking

        graph, corpus = source.graph, source.corpus
        kept = any((shard >= graph.n_questions).any() for shard in corpus.shards)
        size = graph.n_questions + (graph.n_concepts if kept else 0)
        counts = cooccurrence(corpus, shrinking(self.window), size)
        if counts.nnz == 0:
            raise TrainingError("no walk has two tokens, so there is nothing to count; the graph may have no edges")
        total = counts.sum(axis=1, dtype=np.float64)  # (tokens,)
        log_total = np.log(np.where(total > 0, total, 1))
        row = np.repeat(np.arange(size), np.diff(counts.indptr))
        pmi = np.log(counts.data) - (log_total[row] + log_total[counts.indices] - np.log(total.sum() / self.shift))
        data = np.maximum(pmi, 0).astype(np.float32)
        ppmi = scipy.sparse.csr_matrix((data, counts.indices, counts.indptr), counts.shape)
        ppmi.eliminate_zeros()
        rank = min(self.dim, size)
        u, s, _ = randomized_svd(ppmi, rank, n_iter=4, random_state=derive(seed, "ppmi-svd") % 2**32)
        x = _widen(u * np.sqrt(s), self.dim)
        n = graph.n_questions
        return LookupModel(graph, x[:n], x[n:] if kept else None, corpus.n_tokens)


@settings
class Spectral(Trainer):
    """Regularised spectral embedding of the graph: leading singular vectors of D_q^−½ W D_c^−½, with the mean degree
    added to each degree.

    Without this addition, a graph with many components has as many singular values of one, and its leading vectors only
    say in which component a question is. Questions and concepts share the space; singular values aren't used (``svd``
    scales by them).

    References
    ----------
    Rohe, Qin & Yu 2016, Co-clustering directed graphs to discover asymmetries and directional communities (PNAS),
    algorithm di-sim. Qin & Rohe 2013, Regularized spectral clustering under the degree-corrected stochastic blockmodel.
    """

    learns: ClassVar[bool] = False

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        w = source.graph.weights

        def scale(degree: NDArray[np.float64]) -> scipy.sparse.dia_array:
            raised = degree + degree.mean()
            return scipy.sparse.diags_array(1 / np.sqrt(np.where(raised > 0, raised, 1)))

        a = scale(w.sum(axis=1)) @ w @ scale(w.sum(axis=0))  # (questions, concepts)
        v, s, u = factors(a, min(self.dim, *w.shape), 7, derive(seed, "spectral"))
        real = (s > 1e-9 * max(float(s[0]), 1e-300)).astype(np.float64)  # smaller ones are rounding errors
        parts = {
            "v": v,
            "s": s,
            "degree": np.asarray(w.sum(axis=0)),
            "added": np.array([w.sum(axis=1).mean(), w.sum(axis=0).mean()]),
        }
        return LookupModel(source.graph, u(real, self.dim), _widen(v * real, self.dim), parts=parts)

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        return factors_memory(graph, self.dim)

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """a V S^-1 of the new question's row a, with the old degrees of the concepts and the old mean degrees."""
        return folded(frozen, weights, self.dim, 0.0)
