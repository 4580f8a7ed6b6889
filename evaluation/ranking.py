"""Rankings with ties: every figure is its expectation when ties are broken at random.

Closed forms give all questions with the same concepts the same vector. With ties, the order in an implementation is
arbitrary but would affect the score; the expectation doesn't depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID = 1_000_000  # cosines are compared in millionths: smaller differences of float32 vectors count as ties
LOWEST = -2 * GRID  # below every cosine: a query isn't a candidate
_BLOCK = 1 << 25  # similarities held at once
_STRIP = 1 << 14  # rows in float64 at once
_KEYS = 1 << 20  # rows hashed at once
_AT_ONCE = 8  # queries that share a pass over the table, at least


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
    for some in _strips(len(rows), _KEYS):
        key[some] = (rows[some] + np.float32(0)).view(np.uint32).astype(np.uint64) @ factors  # -0.0 becomes 0.0
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, np.arange(len(rows))
    if any(not np.array_equal(rows[first[index[some]]], rows[some]) for some in _strips(len(rows), _KEYS)):
        return np.unique(rows + np.float32(0), axis=0, return_inverse=True)  # two different rows have the same key
    return rows[first], index


def _strips(n: int, rows: int) -> Iterator[slice]:
    return (slice(at, min(at + rows, n)) for at in range(0, n, rows))


def unit(rows: NDArray) -> NDArray[np.float64]:
    """Rows scaled to length 1 in float64; a zero row stays zero."""
    wide = rows.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norm > 0, norm, 1)


class Cosines:
    """Cosines of some rows of a table, the queries, with all other rows. Identical rows are one group, so they tie.

    Only a few queries are in memory at once, and rows in float64 only for a strip of the table.

    Parameters
    ----------
    vectors : (rows, dim).

    Attributes
    ----------
    group : int64 (rows,), the group of each row.
    """

    def __init__(self, vectors: NDArray) -> None:
        self._kept, self.group = distinct(vectors)
        self._alone = np.array_equal(self.group, np.arange(len(self._kept)))  # every row is a group of its own
        self._size = None if self._alone else np.bincount(self.group)
        norm = np.concatenate([np.zeros(0), *(_norm(part) for _, part in self._wide())])
        self._scale = GRID / np.where(norm > 0, norm, 1)  # (groups,); a zero row has cosine 0 with all

    def _wide(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The distinct rows in float64, strip by strip."""
        return ((some, self._kept[some].astype(np.float64)) for some in _strips(len(self._kept), _STRIP))

    def of(self, queries: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.int64] | None]]:
        """Each query, the cosines of its groups, in millionths, and how many candidates each group has.

        The number is None where each group is one row: then the query itself, which is no candidate, is at LOWEST.
        Both arrays hold until the next query is asked for.
        """
        step = at_once(len(self._kept))
        for at in range(0, len(queries), step):
            block = queries[at : at + step]
            asked = unit(self._kept[self.group[block]])
            grid = np.empty((len(block), len(self._kept)), dtype=np.int32)
            for some, wide in self._wide():
                cosine = asked @ wide.T  # (block, strip)
                cosine *= self._scale[some]
                grid[:, some] = np.rint(cosine, out=cosine)
            for query, row in zip(block.tolist(), grid, strict=True):
                mine = self.group[query]
                if self._size is None:
                    row[mine] = LOWEST
                    yield query, row, None
                    continue
                times = self._size.copy()
                times[mine] -= 1
                yield query, row, times

    def items(self, groups: NDArray[np.int64], query: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of some groups, without the query, and the place of each one's group among ``groups``."""
        if self._alone:
            return groups, np.arange(len(groups))
        order, start = self._order
        rows = [order[start[g] : start[g + 1]] for g in groups]
        place = np.repeat(np.arange(len(groups)), [len(each) for each in rows])
        found = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return found[found != query], place[found != query]

    @cached_property
    def _order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows sorted by group, and where each group starts."""
        return np.argsort(self.group, kind="stable"), np.r_[0, np.cumsum(np.bincount(self.group))]


def _norm(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.einsum("ij,ij->i", wide, wide))


def at_once(rows: int) -> int:
    """Queries that share a pass over a table."""
    return max(_AT_ONCE, _BLOCK // max(rows, 1))


def memory(rows: int, dim: int, queries: int) -> int:
    """Bytes that :class:`Cosines` holds at most, about, beside the table, if no two rows are equal."""
    queries = min(queries, at_once(rows))
    grid = 4 * queries * rows + 16 * queries * min(rows, _STRIP)
    keys = 40 * rows + 16 * dim * min(rows, _KEYS)
    return 4 * dim * rows + 8 * rows + max(grid + 16 * rows, keys)


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


def expected_precision(
    scores: NDArray, relevant: NDArray[np.int64], k: int, times: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Expected average precision, and expected precision among the first ``k``, of one ranking.

    A group of n tied items, r of them relevant, is below G better items, R of them relevant. Position j in the group
    has a relevant item with probability r/n, and then (j - 1)(r - 1)/(n - 1) of the positions before it in the group
    are expected to have one too. So it adds Σ_j (r/n) (R + 1 + (j - 1)(r - 1)/(n - 1)) / (G + j) to the sum of
    precisions.

    Parameters
    ----------
    scores : of all candidates, (candidates,), or of groups of them that tie, (groups,); higher is better.
    relevant : indices of the scores of relevant candidates, at least one.
    k : depth of the precision; at most the number of candidates.
    times : how many candidates each score is of, int64 (groups,); one each without it.
    """
    height, r = np.unique(scores[relevant], return_counts=True)
    near = scores >= height[0]  # the others come after all relevant ones
    sorted_, upto = _sorted(scores[near], None if times is None else times[near])
    height, r = height[::-1], r[::-1].astype(np.float64)
    end = upto[np.searchsorted(sorted_, height, side="right")]
    n = (end - upto[np.searchsorted(sorted_, height, side="left")]).astype(np.float64)
    above = (upto[-1] - end).astype(np.float64)
    found = np.cumsum(r) - r
    harmonic = _harmonic(above, n)
    before = n - (above + 1) * harmonic  # Σ (j - 1) / (above + j)
    among = (r - 1) / np.maximum(n - 1, 1)
    total = (r / n * ((found + 1) * harmonic + among * before)).sum()
    depth = min(k, len(scores) if times is None else int(times.sum()))
    return float(total / r.sum()), float((r / n * np.clip(depth - above, 0, n)).sum() / depth)


def _sorted(scores: NDArray, times: NDArray[np.int64] | None) -> tuple[NDArray, NDArray[np.int64]]:
    """The scores in ascending order, and how many candidates have one of the first i of them: int64 (scores + 1,)."""
    if times is None:
        return np.sort(scores), np.arange(len(scores) + 1)
    order = np.argsort(scores)
    return scores[order], np.r_[0, np.cumsum(times[order])]


def members(
    scores: NDArray, k: int, times: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The scores of items that may be among the first ``k``, and each item's probability with ties broken at random.

    Parameters
    ----------
    scores : of items, (items,), or of groups of them that tie, (groups,).
    times : how many items each score is of, int64 (groups,); one each without it.

    Returns
    -------
    index : int64, of scores, ascending, and probability : float64, of an item; over all items it sums to k.
    """
    most = k if times is None else min(k + 1, len(scores))  # one group may have no items: that of the query alone
    edge = np.partition(scores, len(scores) - most)[len(scores) - most]
    index = np.flatnonzero(scores >= edge)
    n = np.ones(len(index), dtype=np.int64) if times is None else times[index]
    _, place = np.unique(-scores[index].astype(np.float64), return_inverse=True)
    upto = np.cumsum(np.bincount(place, n))  # items at a height or above
    last = int(np.searchsorted(upto, k))  # the height at which k is reached
    before = upto[last - 1] if last else 0
    tied = upto[last] - before
    kept = (place <= last) & (n > 0)
    return index[kept], np.where(place[kept] == last, (k - before) / tied, 1.0)


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
