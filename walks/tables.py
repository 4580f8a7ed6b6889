"""Neighbour lists packed for the sampling loop. Built once a graph, kept with it, read by both loops.

On a large graph a walk does little but wait for memory, so the lists are laid out to be asked seldom. A *row* is a set
of concepts: its size and the concepts, in 32 bytes up to seven of them. Questions with the same concepts share one row,
and a concept's list of questions names each question's row beside it, so that a step reads one entry of that list and
then a row, which for the many questions with a single concept is in the cache already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.errors import WalkError
from qcq.graph import KnowledgeGraph
from qcq.walks.step import HALF, SLOTS, Cells, Lists

T = TypeVar("T")


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


def packed(w: scipy.sparse.csr_array, back: scipy.sparse.csr_array) -> Lists:
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


def cells(w: scipy.sparse.csr_array) -> Cells:
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
