"""Neighbour lists packed for the sampling loop. Built once a graph, kept with it, read by both loops.

On a large graph a walk does little but wait for memory, so the lists are laid out to be asked seldom. A *row* is a set
of concepts: its size and the concepts, in 32 bytes up to seven of them. Questions with the same concepts share one row,
and a concept's list of questions names each question's row beside it, so that a step reads one entry of that list and
then a row, which for the many questions with a single concept is in the cache already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from qcq.errors import WalkError
from qcq.graph import KnowledgeGraph

T = TypeVar("T")

SLOTS = 8  # uint32: a row takes as many times that as its size and concepts need
HALF = np.uint64(32)
LOW = np.uint64(2**32 - 1)


class Lists(NamedTuple):
    """Both sides of the graph, unweighted. A *place* is where a walk stands: question << 32 | its row, a uint64.

    Attributes
    ----------
    rows : uint32: how many concepts, then which. Row r begins at 8 r; after more than seven, some numbers are no row's.
    ptr : uint64 (concepts + 1,); the questions of concept c are ``to[ptr[c] : ptr[c + 1]]``.
    to : uint64 (edges,), places.
    row_of : uint32 (questions,), the row of each question.
    """

    rows: NDArray[np.uint32]
    ptr: NDArray[np.uint64]
    to: NDArray[np.uint64]
    row_of: NDArray[np.uint32]


class Cells(NamedTuple):
    """Walker's alias tables, one a node: a uniform cell, then keep its own neighbour or take the cell's alias.

    Attributes
    ----------
    ptr : uint64 (nodes + 1,), where each node's cells start.
    cells : uint64 (2 · edges,): a threshold out of 2^64, then own neighbour (high half) and alias (low half).
    """

    ptr: NDArray[np.uint64]
    cells: NDArray[np.uint64]


# What a step reads. The type says which step it is.


class Uniform(NamedTuple):
    """One uniform neighbour after the other."""

    lists: Lists


class Biased(NamedTuple):
    """Uniform but for the way back: weight ``alpha`` to the question just left, ``beta`` to the concept just used."""

    lists: Lists
    alpha: float
    beta: float


class Restart(NamedTuple):
    """Uniform, but before each step back to the walk's start with this probability."""

    lists: Lists
    probability: float


class Weighted(NamedTuple):
    """A neighbour in proportion to the weight of its edge."""

    questions: Cells
    concepts: Cells


class Stacked(NamedTuple):
    """A hub in proportion to its weight, then one of its questions uniformly.

    Attributes
    ----------
    hubs : question → hub.
    ptr : uint64 (hubs + 1,); the questions of hub h are ``to[ptr[h] : ptr[h + 1]]``.
    to : uint32 (edges,).
    """

    hubs: Cells
    ptr: NDArray[np.uint64]
    to: NDArray[np.uint32]


class Just(NamedTuple):
    """Stay among the questions or jump to the concepts.

    Attributes
    ----------
    alpha : α out of 2^64: a stay goes on with probability α, α², … after 1, 2, … questions in a row.
    ptr : (2 · questions + 1,), uint32 where that is enough, else uint64; question q jumps to the concepts
        ``to[ptr[2q] : ptr[2q + 1]]`` and stays with the questions ``to[ptr[2q + 1] : ptr[2q + 2]]``, each uniformly; a
        question stands there as often as it followed.
    to : uint32, concepts and questions by their numbers.
    run : concept → the last concept of the stay that begins there.
    lists : uint64 (concepts + 1,); concept c leads to the questions ``to[lists[c] : lists[c + 1]]``.
    """

    alpha: np.uint64
    ptr: NDArray[np.uint32 | np.uint64]
    to: NDArray[np.uint32]
    run: Cells
    lists: NDArray[np.uint64]


Tables = Uniform | Biased | Restart | Weighted | Stacked | Just


def nbytes(tables: Any) -> int:
    """Bytes that the arrays of some tables take."""
    if isinstance(tables, np.ndarray):
        return tables.nbytes
    return sum(map(nbytes, tables)) if isinstance(tables, tuple) else 0


def kept(graph: KnowledgeGraph, key: str, build: Callable[[], T]) -> T:
    """What ``build`` made for this graph, made once: seeds, held-out walks and shards share it."""
    store: dict[str, Any] = graph.__dict__.setdefault("_tables", {})
    if key not in store:
        store[key] = build()
    return store[key]


def lists(graph: KnowledgeGraph) -> Lists:
    """The graph's neighbour lists, packed."""
    if graph.n_questions + graph.n_concepts > np.iinfo(np.int32).max:
        raise WalkError(
            f"{graph.n_questions} questions and {graph.n_concepts} concepts: tokens are int32, so a graph may have "
            "2147483647 nodes at most; divide the graph"
        )
    return kept(graph, "lists", lambda: packed(graph.weights, graph.by_concept))


def packed(w: sparse.csr_array, back: sparse.csr_array) -> Lists:
    """The lists of any two-step walk: questions × hubs and hubs × questions, whose weights aren't looked at."""
    start, degree = w.indptr[:-1].astype(np.int64), np.diff(w.indptr)
    row_of = np.zeros(w.shape[0], dtype=np.uint32)
    rows, n = [], 0
    for d in np.unique(degree).tolist():
        which = np.flatnonzero(degree == d)
        sets = w.indices[start[which, None] + np.arange(d)]  # (questions, d)
        if d < SLOTS:
            same = _same_rows(sets, w.shape[1])
            _, first, same = np.unique(same, return_index=True, return_inverse=True)
            sets = sets[first]
        else:
            same = np.arange(len(which))
        span = 1 + d // SLOTS
        made = np.zeros((len(sets), span * SLOTS), dtype=np.uint32)
        made[:, 0], made[:, 1 : d + 1] = d, sets
        row_of[which] = n + span * same
        rows.append(made.reshape(-1))
        n += span * len(sets)
    to = back.indices.astype(np.uint64) << HALF
    to |= row_of[back.indices]
    return Lists(np.concatenate(rows), back.indptr.astype(np.uint64), to, row_of)


def _same_rows(sets: NDArray, n_values: int) -> NDArray[np.int64]:
    """A number for each row of an integer matrix, equal exactly for equal rows."""
    same = np.zeros(len(sets), dtype=np.int64)
    for column in sets.T:
        same = same * n_values + column
        if sets.shape[1] > 1:  # numbered anew after every column, so that nothing overflows
            same = np.unique(same, return_inverse=True)[1]
    return same


def weighted(graph: KnowledgeGraph, key: str, weights: Callable[[], sparse.csr_array]) -> Weighted:
    """Alias tables of both sides under ``weights`` (questions × concepts), which ``key`` names."""

    def build() -> Weighted:
        w = weights()
        back = sparse.csr_array(w.T.tocsr())
        back.sort_indices()
        return Weighted(cells(w), cells(back))

    return kept(graph, f"weighted/{key}", build)


def stacked(out: sparse.csr_array, into: sparse.csr_array) -> Stacked | Uniform:
    """Tables of a step to weighted hubs and back to any of a hub's questions.

    Where no question prefers one of its hubs, as with a single pattern of unweighted edges, that is ``qcq`` on hubs.
    """
    first = np.repeat(out.indptr[:-1], np.diff(out.indptr))
    if np.allclose(out.data, out.data[first], rtol=1e-12, atol=0):
        return Uniform(packed(out, into))
    return Stacked(cells(out), into.indptr.astype(np.uint64), into.indices.astype(np.uint32))


def just(
    alpha: float,
    order: sparse.csr_array,
    out: sparse.csr_array,
    run: sparse.csr_array,
    into: sparse.csr_array,
) -> Just:
    """Tables of jump and stay.

    Parameters
    ----------
    alpha : α.
    order : question → next question of a stay, whole numbers.
    out, into : question → concept and back; any edge is as good as another.
    run : concept → last concept of the stay that begins there, probabilities.
    """
    both = sparse.csr_array(sparse.hstack([out != 0, order], format="csr"))
    both.sort_indices()
    ptr = np.zeros(2 * out.shape[0] + 1, dtype=np.int64)
    ptr[1::2] = np.diff(out.indptr)
    ptr[2::2] = np.asarray(order.sum(axis=1)).ravel()
    ptr = np.cumsum(ptr)
    to = np.repeat(both.indices, both.data.astype(np.int64))
    to = np.where(to < out.shape[1], to, to - out.shape[1])
    return Just(
        np.uint64(int(alpha * 2**64)),
        ptr.astype(np.uint32 if ptr[-1] <= LOW else np.uint64),
        np.concatenate([to, into.indices]).astype(np.uint32),
        cells(run),
        (into.indptr + len(to)).astype(np.uint64),
    )


def cells(w: sparse.csr_array) -> Cells:
    """The alias tables of a matrix of weights, row by row."""
    ptr = w.indptr.astype(np.int64)
    threshold, alias = alias_tables(ptr, w.data)
    cells = np.empty((w.nnz, 2), dtype=np.uint64)
    cells[:, 0] = threshold
    row_start = np.repeat(ptr[:-1], np.diff(ptr))
    cells[:, 1] = w.indices.astype(np.uint64) << np.uint64(32) | w.indices[row_start + alias].astype(np.uint64)
    return Cells(ptr.astype(np.uint64), cells.reshape(-1))


def alias_tables(ptr: NDArray[np.int64], weights: NDArray[np.float64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Alias tables of many rows: row r has the weights ``weights[ptr[r] : ptr[r + 1]]``.

    Parameters
    ----------
    ptr : int64 (rows + 1,).
    weights : float64 (cells,), finite, none negative, one positive in every row that isn't empty.

    Returns
    -------
    uint64 (cells,) and int64 (cells,): in cell k of its row a draw below the threshold (out of 2^64) takes k, else the
    alias, counted from the row's start. A full cell is its own alias.

    Examples
    --------
    >>> threshold, alias = alias_tables(np.array([0, 2]), np.array([1.0, 3.0]))
    >>> (threshold / 2**64).tolist(), alias.tolist()  # 1/4 = ½ · ½ is cell 0 kept; all else is 1
    ([0.5, 1.0], [1, 1])

    References
    ----------
    Vose (1991), A linear algorithm for generating random numbers with a given distribution.
    """
    threshold = np.empty(len(weights), dtype=np.uint64)
    alias = np.empty(len(weights), dtype=np.int64)
    if len(weights) <= 200_000:  # the same lines run as plain Python where compiling would take longer
        fill_alias(ptr, np.asarray(weights, dtype=np.float64), threshold, alias)
    else:
        from qcq.walks.kernel import compiled_fill_alias

        compiled_fill_alias(ptr, np.asarray(weights, dtype=np.float64), threshold, alias)
    return threshold, alias


def fill_alias(ptr: Any, weights: Any, threshold: Any, alias: Any) -> None:
    """Vose's two stacks for every row, in plain loops: run as they are, or compiled."""
    full = np.uint64(2**64 - 1)
    longest = 0
    for r in range(len(ptr) - 1):
        longest = max(longest, ptr[r + 1] - ptr[r])
    share = np.empty(longest, dtype=np.float64)
    stack = np.empty(longest, dtype=np.int64)  # light cells grow from the left, heavy ones from the right
    for r in range(len(ptr) - 1):
        lo = ptr[r]
        d = ptr[r + 1] - lo
        top = 0.0  # scaling by the largest first keeps the sum finite, whatever the weights
        for k in range(d):
            top = max(top, weights[lo + k])
        total = 0.0
        for k in range(d):
            total += weights[lo + k] / top
        light = 0
        heavy = d
        for k in range(d):
            share[k] = weights[lo + k] / top / total * d
            if share[k] < 1.0:
                stack[light] = k
                light += 1
            else:
                heavy -= 1
                stack[heavy] = k
        last = -1
        while light > 0 and heavy < d:
            light -= 1
            small = stack[light]
            big = stack[heavy]
            last = big
            threshold[lo + small] = np.uint64(share[small] * 18446744073709551616.0)
            alias[lo + small] = big
            share[big] = (share[big] + share[small]) - 1.0
            if share[big] < 1.0:
                heavy += 1
                stack[light] = big
                light += 1
        # What is left is full but for rounding. Rounding can also use up the heavy cells a little too soon: a light
        # cell still waiting then keeps its own share, however small, and the last heavy cell takes the difference.
        for k in range(heavy, d):
            last = stack[k]
            threshold[lo + last] = full
            alias[lo + last] = last
        for k in range(light):
            small = stack[k]
            if last < 0 or small == last:
                threshold[lo + small] = full
                alias[lo + small] = small
            else:
                threshold[lo + small] = np.uint64(share[small] * 18446744073709551616.0)
                alias[lo + small] = last
