"""Rankings with ties: every figure is its expectation when ties are broken at random.

Closed forms give all questions with the same concepts the same vector. With ties, the order in an implementation is
arbitrary but would affect the score; the expectation doesn't depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID = 1_000_000  # cosines are compared in millionths: smaller differences of float32 vectors count as ties
_BLOCK = 1 << 23  # similarities held at once
_ROWS = 1 << 20  # rows in float64 at once
_AT_ONCE = 16  # queries that share a pass over a longer table


def distinct(rows: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """The different rows of a table, and which of them each row is.

    Returns
    -------
    kept : (distinct, dim), and index : int64 (rows,) with ``kept[index] == rows``. Where no row occurs twice, ``kept``
        holds the rows in their own order.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    factors = np.random.default_rng(0).integers(0, 2**64, rows.shape[1], dtype=np.uint64)
    key = np.empty(len(rows), dtype=np.uint64)  # modulo 2^64
    for some in _blocks(len(rows)):
        key[some] = (rows[some] + np.float32(0)).view(np.uint32).astype(np.uint64) @ factors  # -0.0 becomes 0.0
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, np.arange(len(rows))
    if any(not np.array_equal(rows[first[index[some]]], rows[some]) for some in _blocks(len(rows))):
        return np.unique(rows + np.float32(0), axis=0, return_inverse=True)  # two different rows have the same key
    return rows[first], index


def _blocks(n: int) -> Iterator[slice]:
    return (slice(at, min(at + _ROWS, n)) for at in range(0, n, _ROWS))


def unit(rows: NDArray) -> NDArray[np.float64]:
    """Rows scaled to length 1 in float64; a zero row stays zero."""
    wide = rows.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norm > 0, norm, 1)


def similarities(vectors: NDArray, queries: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """For each query its cosines with all rows, in millionths: yields (query, int32 (rows,)).

    Only a few queries are in memory at once. Identical rows are computed once, so they tie exactly. Unit rows in
    float64 are kept for one block of rows; in a longer table they are made again for every few queries.
    """
    kept, index = distinct(vectors)
    same = len(kept) == len(index)
    spans = list(_blocks(len(kept)))
    once = unit(kept) if len(spans) == 1 else None
    step = max(1 if once is not None else _AT_ONCE, _BLOCK // len(kept))
    for at in range(0, len(queries), step):
        block = queries[at : at + step]
        asked = unit(kept[index[block]])
        grid = np.empty((len(block), len(kept)), dtype=np.int32)
        for some in spans:
            cosine = asked @ (unit(kept[some]) if once is None else once).T  # (block, distinct)
            cosine *= GRID
            grid[:, some] = np.rint(cosine, out=cosine)
        for query, row in zip(block.tolist(), grid, strict=True):
            yield query, row if same else row[index]


def memory(rows: int, dim: int, queries: int) -> int:
    """Bytes that :func:`similarities` holds at most, about, beside the table."""
    queries = min(queries, max(_AT_ONCE if rows > _ROWS else 1, _BLOCK // max(rows, 1)))
    grid = 4 * queries * rows + 24 * queries * min(rows, _ROWS) + 40 * rows
    return 4 * dim * rows + 32 * dim * min(rows, _ROWS) + grid


def _harmonic(below: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/(below+1) + … + 1/(below+n)."""
    from scipy.special import digamma

    return digamma(below + n + 1) - digamma(below + 1)


def expected_reciprocal_rank(better: ArrayLike, tied: ArrayLike) -> NDArray[np.float64]:
    """E[1 / rank] of an item with ``better`` items above it and ``tied`` others with the same score.

    Its rank is uniform on better + 1 … better + tied + 1.

    Examples
    --------
    >>> expected_reciprocal_rank(0, 1)  # (1/1 + 1/2) / 2
    array(0.75)
    """
    above, n = np.asarray(better, dtype=np.float64), np.asarray(tied, dtype=np.float64) + 1
    return np.asarray(_harmonic(above, n) / n)


def expected_hit(better: ArrayLike, tied: ArrayLike, k: int) -> NDArray[np.float64]:
    """P(rank ≤ k) of an item with ``better`` items above it and ``tied`` others with the same score.

    Examples
    --------
    >>> expected_hit(0, 3, k=1)
    array(0.25)
    """
    above, n = np.asarray(better, dtype=np.float64), np.asarray(tied, dtype=np.float64) + 1
    return np.asarray(np.clip(k - above, 0, n) / n)


def expected_precision(scores: NDArray, relevant: NDArray[np.int64], k: int) -> tuple[float, float]:
    """Expected average precision, and expected precision among the first ``k``, of one ranking.

    A group of n tied items, r of them relevant, is below G better items, R of them relevant. Position j in the group
    has a relevant item with probability r/n, and then (j - 1)(r - 1)/(n - 1) of the positions before it in the group
    are expected to have one too. So it adds Σ_j (r/n) (R + 1 + (j - 1)(r - 1)/(n - 1)) / (G + j) to the sum of
    precisions.

    Parameters
    ----------
    scores : of all candidates, (candidates,); higher is better.
    relevant : their indices, at least one.
    k : depth of the precision; at most the number of candidates.
    """
    sorted_ = np.sort(scores)
    height, r = np.unique(scores[relevant], return_counts=True)
    height, r = height[::-1], r[::-1].astype(np.float64)
    end = np.searchsorted(sorted_, height, side="right")
    n = (end - np.searchsorted(sorted_, height, side="left")).astype(np.float64)
    above = (len(sorted_) - end).astype(np.float64)
    found = np.cumsum(r) - r
    harmonic = _harmonic(above, n)
    before = n - (above + 1) * harmonic  # Σ (j - 1) / (above + j)
    among = (r - 1) / np.maximum(n - 1, 1)
    total = (r / n * ((found + 1) * harmonic + among * before)).sum()
    depth = min(k, len(scores))
    return float(total / r.sum()), float((r / n * np.clip(depth - above, 0, n)).sum() / depth)


def members(scores: NDArray, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The items that may be among the first ``k``, and the probability of each when ties are broken at random.

    Returns
    -------
    index : int64 (items,), ascending, and probability : float64 (items,), which sums to k.
    """
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    index = np.flatnonzero(scores >= edge)
    tied = scores[index] == edge
    n = int(tied.sum())
    return index, np.where(tied, (k - (len(index) - n)) / n, 1.0)


def membership(scores: NDArray, k: int) -> NDArray[np.float64]:
    """Probability that each item is among the first ``k`` when ties are broken at random: float64, sums to k.

    Examples
    --------
    >>> membership(np.array([3, 1, 2, 1]), 3).tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    index, probability = members(scores, k)
    out = np.zeros(len(scores))
    out[index] = probability
    return out
