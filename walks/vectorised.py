"""The walk loop in numpy: the compiled loop's arithmetic, step for step, so the bytes are the same.

For jobs so small that importing (or filling) a compiler's cache would take longer than the walks themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from qcq.walks.counter import GOLDEN, draw
from qcq.walks.tables import HALF, LOW, SLOTS, Biased, Cells, Just, Lists, Restart, Stacked, Tables, Uniform, Weighted

Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]
Step = Callable[[Bits, Ints, Bits, Bits, Bits, Ints], tuple[Bits, Ints]]

_UNIT = 2.0**-53


def split(x: Bits, n: Bits | np.uint64) -> tuple[Bits, Bits]:
    """``x`` as a fraction of 2^64 cut into ``n`` equal parts: which part, and where in it (again a fraction)."""
    return ((x >> HALF) * n + (((x & LOW) * n) >> HALF)) >> HALF, x * n


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
    place = begin(tables, starts.astype(np.uint64))
    out[:, 0] = starts
    out[:, 1:] = -1
    row = np.flatnonzero(ways(tables, place) > 0)  # a question without a way out is a walk of its own
    if length > 1:
        counts[0] += len(starts) - len(row)
    index, place = index[row], place[row]
    first, c = place, np.full(len(place), -1, dtype=np.int64)
    column = np.zeros(len(place), dtype=np.int64)
    for t in range(1, length):
        place, c = step(place, c, first, draw(seed, index, length, t, 0), draw(seed, index, length, t, 1), counts)
        if keep:
            went = c >= 0
            out[row[went], column[went] + 1] = n_questions + c[went]
            column += 1 + went
        else:
            column += 1
        out[row, column] = place >> HALF


@singledispatch
def make_step(tables: Tables) -> Step:
    """The step that belongs to these tables: (place, concept before, start, two draws, counts) → place and concept."""
    raise NotImplementedError(type(tables))


@singledispatch
def begin(tables: Tables, q: Bits) -> Bits:
    """Where a walk stands that starts at question ``q``."""
    return q << HALF | tables.lists.row_of[q]  # type: ignore[union-attr]


@begin.register(Weighted)
@begin.register(Stacked)
@begin.register(Just)
def _(tables: Weighted | Stacked | Just, q: Bits) -> Bits:
    return q << HALF


@singledispatch
def ways(tables: Tables, place: Bits) -> Bits:
    """How many ways lead out of a place."""
    return _size(tables.lists, place)  # type: ignore[union-attr, arg-type]


@ways.register
def _(tables: Weighted, place: Bits) -> Bits:
    return _cells_of(tables.questions, place >> HALF)


@ways.register
def _(tables: Stacked, place: Bits) -> Bits:
    return _cells_of(tables.hubs, place >> HALF)


@ways.register
def _(tables: Just, place: Bits) -> Bits:
    at = place >> np.uint64(31)
    return (tables.ptr[at + np.uint64(2)] - tables.ptr[at]).astype(np.uint64)


def _cells_of(side: Cells, node: Bits) -> Bits:
    return side.ptr[node + np.uint64(1)] - side.ptr[node]


def _pick(side: Cells, node: Bits, x: Bits) -> tuple[Bits, Bits]:
    """A neighbour of each node by its alias table, and what is left of the draw that decided inside the cell."""
    k, rest = split(x, _cells_of(side, node))
    cell = np.uint64(2) * (side.ptr[node] + k)
    both = side.cells[cell + np.uint64(1)]
    return np.where(rest < side.cells[cell], both >> HALF, both & LOW), rest


def _size(lists: Lists, place: Bits) -> Bits:
    return lists.rows[(place & LOW) * np.uint64(SLOTS)].astype(np.uint64)


def _concept(lists: Lists, place: Bits, k: Bits) -> Ints:
    """The ``k``-th of the concepts at each place."""
    return lists.rows[(place & LOW) * np.uint64(SLOTS) + np.uint64(1) + k].astype(np.int64)


@make_step.register
def _(tables: Uniform) -> Step:
    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        return _uniform(tables.lists, place, x)

    return step


def _uniform(lists: Lists, place: Bits, x: Bits) -> tuple[Bits, Ints]:
    size = _size(lists, place)
    k, rest = split(x, size)
    c = _concept(lists, place, k)
    at = lists.ptr[c]
    k, _ = split(rest, lists.ptr[c + 1] - at)
    return lists.to[at + k], c


@make_step.register
def _(tables: Restart) -> Step:
    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        back = (x >> np.uint64(11)) * _UNIT < tables.probability
        counts[1] += int(back.sum())
        to, via = _uniform(tables.lists, place, y)
        return np.where(back, first, to), np.where(back, -1, via)

    return step


@make_step.register
def _(tables: Biased) -> Step:
    lists, alpha, beta = tables

    def pick(x: Bits, size: Bits, bias: float) -> tuple[Bits, NDArray[np.bool_]]:
        """Which of the ``size - 1`` other neighbours (0 if none), and whether the walk goes back instead."""
        others = (size - np.uint64(1)).astype(np.float64)
        u = (x >> np.uint64(11)) * _UNIT * (others + bias)
        back = ~(u < others)
        return np.where(back, 0.0, u).astype(np.uint64), back

    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        size = _size(lists, place)
        fresh = c < 0  # nothing to return to yet
        k, back = pick(x, size, beta)
        via = _concept(lists, place, np.where(fresh, split(x, size)[0], k))
        via = np.where(via == c, _concept(lists, place, size - np.uint64(1)), via)
        via = np.where(back & ~fresh, c, via)
        if beta == 0.0:
            counts[2] += int((~fresh & (size == 1)).sum())
        at = lists.ptr[via]
        size = lists.ptr[via + 1] - at
        k, back = pick(y, size, alpha)
        to = lists.to[at + k]
        to = np.where(to == place, lists.to[at + size - np.uint64(1)], to)
        if alpha == 0.0:
            counts[1] += int((size == 1).sum())
        return np.where(back, place, to), via

    return step


@make_step.register
def _(tables: Weighted) -> Step:
    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        via = _pick(tables.questions, place >> HALF, x)[0]
        return _pick(tables.concepts, via, y)[0] << HALF, via.astype(np.int64)

    return step


@make_step.register
def _(tables: Stacked) -> Step:
    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        via = _pick(tables.hubs, place >> HALF, x)[0]
        at = tables.ptr[via]
        to = tables.to[at + split(y, tables.ptr[via + np.uint64(1)] - at)[0]]
        return to.astype(np.uint64) << HALF, via.astype(np.int64)

    return step


@make_step.register
def _(tables: Just) -> Step:
    none = np.uint64(2**64 - 1)

    def step(place: Bits, c: Ints, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Ints]:
        # Between steps, c isn't a concept but α to the power of how long the walk has stayed; -1 is as good as 1.
        at = place >> np.uint64(31)
        begin, middle, end = (tables.ptr[at + np.uint64(i)].astype(np.uint64) for i in range(3))
        concepts, following = middle - begin, end - middle
        stay = _high(c.view(np.uint64), tables.alpha)
        limit = np.where(following == 0, np.uint64(0), np.where(concepts == 0, none, stay))
        stays = (x | np.uint64(1)) <= limit
        counts[1] += int(stays.sum())
        spot, rest = split(x * GOLDEN, np.where(stays, following, concepts))
        spot += np.where(stays, middle, begin)
        jumps = np.flatnonzero(~stays)
        last, rest = _pick(tables.run, tables.to[spot[jumps]].astype(np.uint64), rest[jumps])
        at = tables.lists[last]
        spot[jumps] = at + split(rest * GOLDEN, tables.lists[last + np.uint64(1)] - at)[0]
        return tables.to[spot].astype(np.uint64) << HALF, np.where(stays, stay, none).view(np.int64)

    return step


def _high(a: Bits, b: np.uint64) -> Bits:
    """The upper 64 bits of a 128-bit product."""
    low = (a & LOW) * (b & LOW) >> HALF
    middle = (a >> HALF) * (b & LOW) + low
    return (a >> HALF) * (b >> HALF) + (middle >> HALF) + ((a & LOW) * (b >> HALF) + (middle & LOW) >> HALF)
