"""How often two tokens occur near each other in a corpus: compiled, on all cores, the same at any thread count."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import scipy  # its submodules load when they are first used
from numba import njit, prange
from numpy.typing import NDArray

from qcq.corpus import Corpus

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


@njit(cache=True, parallel=True)
def _row_sizes(tokens, start, where, bounds, window):
    length = tokens.shape[1]
    size = len(start) - 1
    sizes = np.zeros(size, dtype=np.int64)
    for chunk in prange(len(bounds) - 1):
        stamp = np.full(size, -1, dtype=np.int32)
        for x in range(bounds[chunk], bounds[chunk + 1]):
            for o in range(start[x], start[x + 1]):
                i, t = divmod(where[o], length)
                for s in range(max(0, t - window), min(length, t + window + 1)):
                    y = tokens[i, s]
                    if s != t and y >= 0 and stamp[y] != x:
                        stamp[y] = x
                        sizes[x] += 1
    return sizes


@njit(cache=True, parallel=True)
def _fill(tokens, start, where, bounds, decay, indptr):
    length = tokens.shape[1]
    size = len(start) - 1
    window = len(decay)
    indices = np.empty(indptr[-1], dtype=np.int32)
    data = np.empty(indptr[-1], dtype=np.float32)
    for chunk in prange(len(bounds) - 1):
        total = np.zeros(size, dtype=np.float64)
        for x in range(bounds[chunk], bounds[chunk + 1]):
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
    return indices, data


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
    sizes = _row_sizes(tokens, start, where, bounds, len(decay))
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    indices, data = _fill(tokens, start, where, bounds, np.ascontiguousarray(decay, dtype=np.float64), indptr)
    return scipy.sparse.csr_array((data, indices, indptr), shape=(size, size))


def shrinking(window: int) -> NDArray[np.float64]:
    """Weight of a pair d steps apart if the window is drawn from 1…window: (window − d + 1) / window."""
    return (window - np.arange(window)) / window
