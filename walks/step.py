"""What a step is made of, for both loops.

A step is a NamedTuple: its fields are what it reads, its methods how a walk moves. ``leave`` picks the concept to go by
and a spot in that concept's list, ``land`` the place at the spot (:func:`step` says what they are given). The compiled
loop calls them for one walk, numpy's for arrays with an entry a walk. So they are written with the functions below and
without ``if``, and their numbers are uint64. What a step doesn't define (``begin``, ``ways``, ``land``, ``ask``) is
taken from here, and suits a step over packed lists in a field called ``lists``.

A step that is quicker otherwise writes the loops apart: ``step`` for numpy, and for the compiled one ``leave`` and
``land`` with branches, or ``depart`` (:func:`qcq.walks.kernel.depart`) in phases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from qcq.walks.counter import mix

Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = Any  # NDArray[np.uint64], an entry a walk; compiled, one of its numbers
Step: TypeAlias = tuple[Any, ...]  # a NamedTuple as above
F = TypeVar("F", bound=Callable[..., Any])

SLOTS = 8  # uint32: a row takes as many times that as its size and concepts need
HALF = np.uint64(32)
LOW = np.uint64(2**32 - 1)
ONE, TWO = np.uint64(1), np.uint64(2)
NONE = np.uint64(2**64 - 1)  # no concept: a walk that has just begun, or a jump
_WIDTH = np.uint64(SLOTS)
_UNIT = 2.0**-53

# Where in a thread's scratch memory each walk in flight keeps: where its row begins, its place in the random sequence,
# its first and its present place, the concept it goes by, the spot in that concept's list, what is left of the draw.
# And what ``depart`` needs besides.
LANES = 64
ROW, KEY, FIRST, NOW, VIA, AT, REST, SPARE = (np.uint64(i * LANES) for i in range(8))


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


HELPERS: list[Callable[..., Any]] = []  # not yet known to the compiler


def helper(function: F) -> F:
    """Let steps call this function: the compiled loop compiles it too. It is written as a step is."""
    HELPERS.append(function)
    return function


# The compiled loop has these in machine instructions of its own.


def high(x: Bits, n: Bits) -> Bits:
    """Which of ``n`` < 2^32 equal parts of 2^64 holds ``x``; how far into it ``x`` is, is ``x * n``, again of 2^64."""
    return ((x >> HALF) * n + (((x & LOW) * n) >> HALF)) >> HALF


def unit(x: Bits) -> Any:
    """A draw as a float64 from 0 to below 1."""
    return (x >> np.uint64(11)) * _UNIT


def choose(yes: Any, a: Bits, b: Bits) -> Bits:
    """``a`` where ``yes``, else ``b``."""
    return np.where(yes, a, b)


def count(counts: Ints, which: int, happened: Any) -> None:
    """Add to a tally: 0 is ``early_ends``, 1 and 2 are the strategy's ``tallies``."""
    counts[which] += int(happened.sum())


def take(array: NDArray[Any], index: Bits) -> Any:
    """``array[index]``; numpy is quicker by a signed index."""
    return array[index.view(np.int64)]


def prefetch(array: NDArray[Any], index: Bits) -> None:
    """Ask for ``array[index]`` without waiting for it; nothing in numpy."""


helper(mix)


# Packed lists.


@helper
def size(lists: Lists, place: Bits) -> Bits:
    """How many concepts there are at a place."""
    return np.uint64(take(lists.rows, (place & LOW) * _WIDTH))


@helper
def concept(lists: Lists, place: Bits, k: Bits) -> Bits:
    """The ``k``-th of the concepts at a place."""
    return np.uint64(take(lists.rows, (place & LOW) * _WIDTH + ONE + k))


@helper
def degree(side: Lists | Cells, node: Bits) -> Bits:
    """How many neighbours a node has on the other side: of lists, how many questions a concept."""
    return take(side.ptr, node + ONE) - take(side.ptr, node)


@helper
def uniform(lists: Lists, place: Bits, x: Bits) -> tuple[Bits, Bits]:
    """A uniform concept, and a uniform spot in its list from what is left of the same draw."""
    n = size(lists, place)
    via = concept(lists, place, high(x, n))
    at = take(lists.ptr, via)
    return via, at + high(x * n, take(lists.ptr, via + ONE) - at)


# Alias tables.


@helper
def cell(side: Cells, node: Bits, x: Bits) -> tuple[Bits, Bits]:
    """A uniform alias cell of ``node``, and the fraction of the draw that is left to decide inside it."""
    at = take(side.ptr, node)
    n = take(side.ptr, node + ONE) - at
    return at + high(x, n), x * n


@helper
def decide(side: Cells, at: Bits, rest: Bits) -> Bits:
    """The neighbour that a cell stands for."""
    both = take(side.cells, TWO * at + ONE)
    return choose(rest < take(side.cells, TWO * at), both >> HALF, both & LOW)


# What a step does unless it says otherwise.


def begin(self: Any, q: Bits) -> Bits:
    """Where a walk stands that starts at question ``q``."""
    return q << HALF | np.uint64(take(self.lists.row_of, q))


def ways(self: Any, place: Bits) -> Bits:
    """How many ways lead out of a place."""
    return size(self.lists, place)


def land(self: Any, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
    """The place at spot ``at``, for a walk that left ``place`` by concept ``via`` and began at ``first``."""
    return take(self.lists.to, at)


def ask(self: Any, place: Bits) -> None:
    """Prefetch what ``leave`` will read."""
    prefetch(self.lists.rows, (place & LOW) * _WIDTH)


def step(self: Any, place: Bits, c: Bits, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
    """One step of all walks, in numpy.

    Parameters
    ----------
    place, first : where each walk stands (:class:`Lists`), and where it began.
    c : the concept by which it came; NONE where it has just begun or jumped.
    x, y : two draws of the walk, out of 2^64.
    counts : see :func:`count`.

    Returns
    -------
    The next place, and the concept between (or NONE).
    """
    via, at = self.leave(place, c, x, y, counts)
    return part(type(self), "land")(self, via, at, x, place, first), via


def part(kind: type, name: str) -> Callable[..., Any]:
    """How steps of a kind do one thing: in their own way, or as above."""
    return getattr(kind, name, None) or globals()[name]
