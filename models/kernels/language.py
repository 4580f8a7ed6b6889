"""The compiled loops of a training step on the CPU: what is neither a matrix product nor one of torch's own layers.

A step of a small model has as many bytes to move as sums to make. Rows of the tables are gathered, their gradients
added up and Adam's means moved, each in one pass over the rows that the step read; scores become shares in the
place where they stand.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

_FREE = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order, but with infinities and NaN as they are
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(x) for x in (1.4426950408889634, 0.693359375, -2.12194440e-4))
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(x)
    for x in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
_ZERO, _HALF, _ONE, _ENDLESS, _LOWEST = (np.float32(x) for x in (0.0, 0.5, 1.0, np.inf, -87.0))


@njit(inline="always")
def _exp(x):
    """e^x for x ≤ 0 to 2e-7 relative, 0 below -87, NaN for NaN: 2^n · e^r with |r| ≤ ln 2 / 2 (Cephes' polynomial)."""
    y = x if x > _LOWEST else _LOWEST
    n = np.floor(y * _LOG2_E + _HALF)
    r = y - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    p = p * r * r + r + _ONE
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return p * power if x > _LOWEST else (x if x != x else _ZERO)


@njit(fastmath={"nnan", "nsz", "reassoc"})
def _top(row):  # a NaN may be passed over here: it stays in the row
    top = row[0]
    for m in range(1, len(row)):
        top = row[m] if row[m] > top else top
    return top


@njit(cache=True, nogil=True)
def places(ids, place, listed, n):
    """A place for each of ``ids``, int64 (k,): those met before keep theirs, others come after the ``n`` listed.

    ``place``, int32 (V,), is -1 for a token without one; ``listed`` are the tokens by place. Returns the places and
    how many there are now.
    """
    out = np.empty(len(ids), dtype=np.int64)
    for i in range(len(ids)):
        at = place[ids[i]]
        if at < 0:
            at = n
            place[ids[i]] = at
            listed[n] = ids[i]
            n += 1
        out[i] = at
    return out, n


@njit(cache=True, nogil=True)
def forget(place, listed, n):
    """No token has a place any more."""
    for i in range(n):
        place[listed[i]] = -1


@njit(cache=True, nogil=True)
def gather(held, ids, out):
    """out[i] = the first columns of held[ids[i]]."""
    dim = out.shape[1]
    for i in range(len(ids)):
        row = ids[i]
        for d in range(dim):
            out[i, d] = held[row, d]


@njit(cache=True, nogil=True)
def add_rows(total, at, rows):
    """total[at[i]] += rows[i], in the order of i."""
    dim = rows.shape[1]
    for i in range(len(at)):
        to = at[i]
        for d in range(dim):
            total[to, d] += rows[i, d]


@njit(cache=True, nogil=True, fastmath=_FREE, error_model="numpy")
def adam(held, ids, grad, rate, shrink, first, second, epsilon, fall1, fall2):
    """One step of Adam for the rows ``ids`` of ``held``: vector, two means and a count side by side.

    ``fall1[n]`` and ``fall2[n]`` are 1 / (1 - beta^n), the corrections for the n-th update of a row; the last ones
    stand for all later.
    """
    dim = grad.shape[1]
    kept1, kept2 = _ONE - first, _ONE - second
    for i in range(len(ids)):
        row = held[ids[i]]
        weight, mean, square = row[:dim], row[dim : 2 * dim], row[2 * dim : 3 * dim]
        row[3 * dim] += _ONE
        at = min(np.int64(row[3 * dim]), len(fall1) - 1)
        ahead, wide = rate * fall1[at], fall2[at]
        slope = grad[i]
        for d in range(dim):
            g = slope[d] * shrink
            m = mean[d] + kept1 * (g - mean[d])
            s = square[d] + kept2 * (g * g - square[d])
            mean[d] = m
            square[d] = s
            weight[d] -= ahead * m / (np.sqrt(s * wide) + epsilon)


@njit(cache=True, nogil=True, fastmath=_FREE, error_model="numpy")
def exponentiate(scores, top, total):
    """scores[i, j] = e^(scores[i, j] - top[i]), which is at most 1; total[i] gets the sum of row i."""
    for i in range(scores.shape[0]):
        least = top[i]
        sum = _ZERO
        for j in range(scores.shape[1]):
            e = _exp(scores[i, j] - least)
            scores[i, j] = e
            sum += e
        total[i] = sum


@njit(cache=True, nogil=True, fastmath=_FREE, error_model="numpy")
def attend(scores, scale, place, veil, hidden, seen):
    """Attention scores (B, H, L, M) to weights, in place.

    A score is scaled, gets ``place`` (H, L, M) and, at a hidden key, ``veil`` (H,); a key that isn't ``seen``,
    bool (B, L or 1, M), weighs nothing. Rows sum to 1; each query has to see a key.
    """
    batch, heads, length, keys = scores.shape
    each = np.empty(keys, dtype=np.float32)
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                if i < seen.shape[1]:
                    for m in range(keys):
                        each[m] = (veil[h] if hidden[b, m] else _ZERO) if seen[b, i, m] else -_ENDLESS
                row, at = scores[b, h, i], place[h, i]
                for m in range(keys):
                    row[m] = row[m] * scale + at[m] + each[m]
                top = _top(row)
                sum = _ZERO
                for m in range(keys):
                    e = _exp(row[m] - top)
                    row[m] = e
                    sum += e
                for m in range(keys):
                    row[m] /= sum


@njit(cache=True, nogil=True, fastmath=_FREE, error_model="numpy")
def attended(weights, slope, scale, hidden, d_place, d_veil):
    """Backwards: the gradient ``slope`` (B, H, L, M) by the weights to that by the products of queries and keys, in
    place; what ``attend`` added gets its own, summed over the batch."""
    batch, heads, length, keys = weights.shape
    for b in range(batch):
        for h in range(heads):
            veiled = _ZERO
            for i in range(length):
                w, s, d = weights[b, h, i], slope[b, h, i], d_place[h, i]
                along = _ZERO
                for m in range(keys):
                    along += w[m] * s[m]
                for m in range(keys):
                    g = w[m] * (s[m] - along)
                    s[m] = g * scale
                    d[m] += g
                for m in range(keys):
                    veiled += s[m] if hidden[b, m] else _ZERO
            d_veil[h] += veiled / scale


def corrections(beta: float, n: int = 1 << 15) -> NDArray[np.float32]:
    """1 / (1 - beta^k) for k = 0 … n - 1 (0 stands for 1), as Adam needs them: float32 (n,)."""
    fall: NDArray[np.float64] = 1 / -np.expm1(np.maximum(np.arange(n), 1) * math.log(beta))
    return fall.astype(np.float32)
