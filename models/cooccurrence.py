"""How often two tokens occur near each other in a corpus: compiled, on all cores, the same at any thread count."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import scipy  # its submodules load when they are first used
from numba import njit
from numpy.typing import NDArray

from qcq.corpus import Corpus
from qcq.support.threads import n_threads

_CHUNKS = 64  # parts of the vocabulary for the threads; each has one row of scratch space


@njit(cache=True)
def _occurrences(tokens, n_tokens, size):
    """Positions of every token, grouped by token: where each group starts, and flat positions."""
    length = tokens.shape[1]
    start = np.zeros(size + 1, dtype=np.int64)
    for i in range(tokens.shape[0]):
        for t in range(length):
            if tokens[i, t] >= 0:
                start[tokens[i, t] + 1] += 1
    for x in range(size):
        start[x + 1] += start[x]
    free = start[:-1].copy()
    where = np.empty(n_tokens, dtype=np.int64)
    for i in range(tokens.shape[0]):
        for t in range(length):
            x = tokens[i, t]
            if x >= 0:
                where[free[x]] = i * length + t
                free[x] += 1
    return start, where


@njit(cache=True, nogil=True)
def _row_sizes(tokens, start, where, begin, end, window, sizes):
    """Different neighbours of each token from ``begin`` to ``end``, into ``sizes``."""
    length = tokens.shape[1]
    stamp = np.full(len(sizes), -1, dtype=np.int32)
    for x in range(begin, end):
        for o in range(start[x], start[x + 1]):
            i, t = divmod(where[o], length)
            for s in range(max(0, t - window), min(length, t + window + 1)):
                y = tokens[i, s]
                if s != t and y >= 0 and stamp[y] != x:
                    stamp[y] = x
                    sizes[x] += 1


@njit(cache=True, nogil=True)
def _fill(tokens, start, where, begin, end, decay, indptr, indices, data):
    """The rows of the tokens from ``begin`` to ``end``, into ``indices`` and ``data``."""
    length = tokens.shape[1]
    window = len(decay)
    total = np.zeros(len(indptr) - 1, dtype=np.float64)
    for x in range(begin, end):
        at = indptr[x]
        for o in range(start[x], start[x + 1]):
            i, t = divmod(where[o], length)
            for s in range(max(0, t - window), min(length, t + window + 1)):
                y = tokens[i, s]
                if s != t and y >= 0:
                    if total[y] == 0:
                        indices[at] = y
                        at += 1
                    total[y] += decay[abs(s - t) - 1]
        row = indices[indptr[x] : at]
        row.sort()
        for j in range(len(row)):
            data[indptr[x] + j] = total[row[j]]
            total[row[j]] = 0


def cooccurrence(corpus: Corpus, decay: NDArray[np.float64], size: int) -> scipy.sparse.csr_array:
    """Weighted counts of ordered token pairs, both directions: symmetric csr_array float32 (size, size).

    Parameters
    ----------
    corpus : the walks; read as one array.
    decay : float64 (window,), positive; a pair ``d`` steps apart counts ``decay[d - 1]``.
    size : size of the vocabulary; tokens are below it.

    Examples
    --------
    >>> walks = Corpus([np.array([[0, 1, 2]], dtype=np.int32)], 3, 0, "")
    >>> cooccurrence(walks, np.array([1.0, 0.5]), 3).toarray()
    array([[0. , 1. , 0.5],
           [1. , 0. , 1. ],
           [0.5, 1. , 0. ]], dtype=float32)
    """
    tokens = np.ascontiguousarray(corpus.tokens)
    start, where = _occurrences(tokens, corpus.n_tokens, size)
    share = np.linspace(0, start[-1], _CHUNKS + 1)[1:-1]  # equal numbers of occurrences per chunk
    bounds = np.concatenate([[0], np.searchsorted(start[1:], share), [size]])
    weights = np.ascontiguousarray(decay, dtype=np.float64)
    sizes = np.zeros(size, dtype=np.int64)
    # Threads of Python, not numba's: a process that is forked later can't have those.
    with ThreadPoolExecutor(n_threads()) as pool:

        def each(work: Callable[[int, int], None]) -> None:
            for _ in pool.map(work, *zip(*pairwise(bounds.tolist()), strict=True)):
                pass

        each(lambda begin, end: _row_sizes(tokens, start, where, begin, end, len(weights), sizes))
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
        each(lambda begin, end: _fill(tokens, start, where, begin, end, weights, indptr, indices, data))
    return scipy.sparse.csr_array((data, indices, indptr), shape=(size, size))


def shrinking(window: int) -> NDArray[np.float64]:
    """Weight of a pair d steps apart if the window is drawn from 1…window: (window − d + 1) / window."""
    return (window - np.arange(window)) / window
