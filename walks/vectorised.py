"""The walk loop in numpy: the compiled loop's arithmetic, step for step, so the bytes are the same.

For jobs so small that importing (or filling) a compiler's cache would take longer than the walks themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from qcq.walks.counter import draw
from qcq.walks.tables import SLOTS, Biased, Cells, Lists, Restart, Tables, Uniform, Weighted

Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]
Step = Callable[[Ints, Ints, Ints, Bits, Bits, Ints], tuple[Ints, Ints]]

_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)
_UNIT = 2.0**-53


def split(x: Bits, n: Ints) -> tuple[Ints, Bits]:
    """``x`` as a fraction of 2^64 cut into ``n`` equal parts: which part, and where in it (again a fraction)."""
    m = n.astype(np.uint64)
    high = (x >> _HALF) * m + (((x & _LOW) * m) >> _HALF)
    return (high >> _HALF).astype(np.int64), x * m


def walk(
    tables: Tables,
    index: Ints,
    starts: NDArray[np.int32],
    length: int,
    keep: bool,
    n_questions: int,
    seed: np.uint64,
    out: NDArray[np.int32],
    counts: Ints,
) -> None:
    """Fill ``out`` with one walk a row. Parameters as in :func:`qcq.walks.kernel.walk`."""
    step = make_step(tables)
    q = starts.astype(np.int64)
    out[:, 0] = starts
    out[:, 1:] = -1
    row = np.flatnonzero(_degree(tables, q) > 0)  # a question has an edge out, or its walk ends at once
    if length > 1:
        counts[0] += len(q) - len(row)
    index, q = index[row], q[row]
    first, c = q, np.full(len(q), -1, dtype=np.int64)
    column = np.zeros(len(q), dtype=np.int64)
    for t in range(1, length):
        q, c = step(q, c, first, draw(seed, index, length, t, 0), draw(seed, index, length, t, 1), counts)
        if keep:
            went = c >= 0
            out[row[went], column[went] + 1] = n_questions + c[went]
            column += 1 + went
        else:
            column += 1
        out[row, column] = q


@singledispatch
def make_step(tables: Tables) -> Step:
    """The step that belongs to these tables: (question, concept before, start, two draws, counts) → the next two."""
    raise NotImplementedError(type(tables))


@singledispatch
def _degree(tables: Tables, q: Ints) -> Ints:
    return tables.lists.rows[q * SLOTS].astype(np.int64)  # type: ignore[union-attr]


@_degree.register
def _(tables: Weighted, q: Ints) -> Ints:
    return tables.questions.ptr[q + 1] - tables.questions.ptr[q]


def _concept(lists: Lists, q: Ints, degree: Ints, k: Ints) -> Ints:
    """The ``k``-th concept of each question."""
    rows = lists.rows
    found = rows[q * SLOTS + 1 + np.minimum(k, SLOTS - 2)].astype(np.int64)
    long = np.flatnonzero(degree >= SLOTS)
    if len(long):
        at = q[long] * SLOTS
        offset = rows[at + 1].view(np.uint32).astype(np.int64) | rows[at + 2].astype(np.int64) << 32
        found[long] = lists.tail[offset + k[long]]
    return found


@make_step.register
def _(tables: Uniform) -> Step:
    def step(q: Ints, c: Ints, first: Ints, x: Bits, y: Bits, counts: Ints) -> tuple[Ints, Ints]:
        return _uniform(tables.lists, q, x)

    return step


def _uniform(lists: Lists, q: Ints, x: Bits) -> tuple[Ints, Ints]:
    degree = lists.rows[q * SLOTS].astype(np.int64)
    k, rest = split(x, degree)
    c = _concept(lists, q, degree, k)
    at = lists.ptr[c]
    k, _ = split(rest, lists.ptr[c + 1] - at)
    return lists.to[at + k].astype(np.int64), c


@make_step.register
def _(tables: Restart) -> Step:
    def step(q: Ints, c: Ints, first: Ints, x: Bits, y: Bits, counts: Ints) -> tuple[Ints, Ints]:
        back = (x >> np.uint64(11)) * _UNIT < tables.probability
        counts[1] += int(back.sum())
        to, via = _uniform(tables.lists, q, y)
        return np.where(back, first, to), np.where(back, -1, via)

    return step


@make_step.register
def _(tables: Biased) -> Step:
    lists, alpha, beta = tables

    def pick(x: Bits, degree: Ints, bias: float) -> Ints:
        """Which of the ``degree - 1`` other neighbours; -1 is the way back."""
        u = (x >> np.uint64(11)) * _UNIT * ((degree - 1) + bias)
        return np.where(u < degree - 1, u, -1).astype(np.int64)

    def step(q: Ints, c: Ints, first: Ints, x: Bits, y: Bits, counts: Ints) -> tuple[Ints, Ints]:
        degree = lists.rows[q * SLOTS].astype(np.int64)
        fresh = c < 0  # nothing to return to yet
        k = np.where(fresh, split(x, degree)[0], pick(x, degree, beta))
        via = _concept(lists, q, degree, np.maximum(k, 0))
        via = np.where(~fresh & (via == c), _concept(lists, q, degree, degree - 1), via)
        via = np.where(k < 0, c, via)
        if beta == 0.0:
            counts[2] += int((~fresh & (degree == 1)).sum())
        at = lists.ptr[via]
        degree = lists.ptr[via + 1] - at
        k = pick(y, degree, alpha)
        to = lists.to[at + np.maximum(k, 0)].astype(np.int64)
        to = np.where(to == q, lists.to[at + degree - 1], to)
        to = np.where(k < 0, q, to)
        if alpha == 0.0:
            counts[1] += int((degree == 1).sum())
        return to, via

    return step


@make_step.register
def _(tables: Weighted) -> Step:
    def pick(side: Cells, node: Ints, x: Bits) -> Ints:
        at = side.ptr[node]
        k, rest = split(x, side.ptr[node + 1] - at)
        both = side.cells[2 * (at + k) + 1]
        return np.where(rest < side.cells[2 * (at + k)], both >> _HALF, both & _LOW).astype(np.int64)

    def step(q: Ints, c: Ints, first: Ints, x: Bits, y: Bits, counts: Ints) -> tuple[Ints, Ints]:
        via = pick(tables.questions, q, x)
        return pick(tables.concepts, via, y), via

    return step
