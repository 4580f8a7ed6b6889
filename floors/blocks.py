"""Products of tall and wide matrices, in blocks of bounded size."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

BLOCK = 2**23  # numbers in one dense block of messages: 64 MiB

Matrix: TypeAlias = Any  # a dense float64 array, or a csr_array where there are very many hubs


def rowdot(a: Matrix, b: Matrix, rows_a: NDArray, rows_b: NDArray) -> NDArray[np.float64]:
    """a[rows_a] · b[rows_b], row by row: float64 (rows,). In blocks, so that memory stays bounded."""
    out = np.empty(len(rows_a))
    if isinstance(a, np.ndarray):
        if a.shape[0] * b.shape[0] <= min(len(rows_a), BLOCK):
            return (a @ b.T)[rows_a, rows_b]
        size = max(1, 2**17 // a.shape[1])  # blocks that stay in the cache
        for i in range(0, len(out), size):
            np.einsum("ij,ij->i", a[rows_a[i : i + size]], b[rows_b[i : i + size]], out=out[i : i + size])
        return out
    if a.nnz * b.shape[0] > b.nnz * a.shape[0]:
        a, b, rows_a, rows_b = b, a, rows_b, rows_a
    order = np.argsort(rows_b, kind="stable")  # the rows with more entries are expanded, some at a time
    kinds, start = np.unique(rows_b[order], return_index=True)
    start = np.r_[start, len(order)]
    size = max(1, BLOCK // b.shape[1])
    many = max(1, BLOCK * a.shape[0] // (4 * max(a.nnz, 1)))
    for i in range(0, len(kinds), size):
        dense = b[kinds[i : i + size]].toarray()
        for lo in range(start[i], start[min(i + size, len(kinds))], many):
            some = order[lo : min(lo + many, start[min(i + size, len(kinds))])]
            out[some] = pick(dense, a, np.searchsorted(kinds[i : i + size], rows_b[some]), rows_a[some])
    return out


def pick(dense: NDArray, held: scipy.sparse.csr_array, rows: NDArray, kinds: NDArray) -> NDArray[np.float64]:
    """dense[rows] · held[kinds], row by row, computing only the entries in ``held``: float64 (rows,)."""
    n = held.indptr[kinds + 1] - held.indptr[kinds]
    ends = np.cumsum(n)
    at = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - n, n) + np.repeat(held.indptr[kinds], n)
    each = dense[np.repeat(rows, n), held.indices[at]] * held.data[at]
    total = np.bincount(np.repeat(np.arange(len(kinds)), n), weights=each, minlength=len(kinds))
    return np.asarray(total, dtype=np.float64)
