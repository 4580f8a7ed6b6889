"""The compiled walk loop. Its twin in numpy is :mod:`qcq.walks.vectorised`; both give the same bytes.

The loop exists once. A strategy is its step, chosen at compile time by the type of its tables (``qcq.walks.tables``):
``leave`` picks the concept and draws where in its list to look, ``land`` reads the place there. Each thread keeps
``LANES`` walks in flight and moves all of them through one phase before the next: while one waits for memory, the
others' loads are already on their way. Steps with alias tables have a phase more, and a ``depart`` of their own for it.

Everything is a uint64, so that no index has a sign to check, and nothing here counts references (``_nrt=False``): two
threads counting on one array's counter took eight times as long as the walks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from qcq.walks import tables as _tables
from qcq.walks.counter import GOLDEN
from qcq.walks.tables import Just, Restart, Stacked, Uniform, Weighted

LANES = 64
NONE = np.uint64(2**64 - 1)  # no concept: a walk that has just begun, or a jump
_UNIT = 2.0**-53
# Where in a thread's scratch memory each walk in flight keeps: where its row begins, its place in the random sequence,
# its first and its present place, the concept it goes by, the spot in that concept's list, what is left of the draw.
# And a list of those that jump, for ``Just``.
_ROW, _KEY, _FIRST, _NOW, _VIA, _AT, _REST, _JUMPERS = (np.uint64(i * LANES) for i in range(8))
_1 = np.uint64(1)
_2 = np.uint64(2)
_31 = np.uint64(31)
_32 = np.uint64(32)
_LOW = np.uint64(2**32 - 1)
_SLOTS = np.uint64(_tables.SLOTS)


def compiled(function, **options):
    """``numba.njit`` that keeps what it compiled on disk, or does without where no folder can be written to."""
    options = {"nogil": True, "_nrt": False} | options
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found neither the package's folder nor the user's cache folder writable
        return njit(**options)(function)


@intrinsic
def _high(typingctx, a, b):
    """The upper 64 bits of a 128-bit product: one instruction, which Python has no operator for."""

    def emit(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic
def _choose(typingctx, yes, a, b):
    """``a if yes else b`` without a branch: these choices are random, and a wrong guess costs more than the step."""

    def emit(context, builder, signature, args):
        made = builder.select(*args)
        made.set_metadata("unpredictable", builder.module.add_metadata([]))
        return made

    return types.uint64(types.boolean, types.uint64, types.uint64), emit


@intrinsic
def _prefetch(typingctx, array, index):
    """Ask for ``array[index]`` without waiting for it."""

    def emit(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        call = builder.module.globals.get("llvm.prefetch.p0i8") or ir.Function(
            builder.module, kind, "llvm.prefetch.p0i8"
        )
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(call, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), emit


@compiled
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _size(lists, place):
    return np.uint64(lists.rows[(place & _LOW) * _SLOTS])


@compiled
def _concept(lists, place, k):
    """The ``k``-th of the concepts at a place."""
    return np.uint64(lists.rows[(place & _LOW) * _SLOTS + _1 + k])


@compiled
def _uniform(lists, place, x):
    """A uniform concept, and a uniform spot in its list from what is left of the same draw."""
    size = _size(lists, place)
    via = _concept(lists, place, _high(x, size))
    at = lists.ptr[via]
    return via, at + _high(x * size, lists.ptr[via + _1] - at)


@compiled
def _other(x, size, bias):
    """One of the ``size - 1`` other neighbours; ``size - 1`` is the way back, of weight ``bias`` against 1 each."""
    others = np.float64(np.int64(size) - 1)
    u = np.float64(np.int64(x >> np.uint64(11))) * _UNIT * (others + bias)
    return np.uint64(np.int64(min(u, others)))


@compiled
def _many(side, node):
    return side.ptr[node + _1] - side.ptr[node]


@compiled
def _cell(side, node, x):
    """A uniform alias cell of ``node``, and the fraction of the draw that is left to decide inside it."""
    at = side.ptr[node]
    size = side.ptr[node + _1] - at
    return at + _high(x, size), x * size


@compiled
def _decide(side, at, rest):
    both = side.cells[_2 * at + _1]
    return _choose(rest < side.cells[_2 * at], both >> _32, both & _LOW)


# The steps. Only their signatures stand here; ``overload`` gives each type of tables its own.


def begin(tables, q):
    """Where a walk stands that starts at question ``q``."""


def ways(tables, place):
    """How many ways lead out of a place."""


def depart(tables, lane, lanes, x, y, counts):
    """Bring every walk in flight to the spot where ``land`` finds its next place."""


def leave(tables, place, c, x, y, counts):
    """(concept, spot in its list) on leaving a place to which the walk came by concept ``c``: all of a plain step."""


def land(tables, via, at, rest, place, first):
    """The place at that spot, for a walk that left ``place`` and began at ``first``."""


def ask_place(tables, place):
    """Prefetch what ``leave`` will read."""


@overload(begin)
def _begin(tables, q):
    if tables.instance_class in (Weighted, Stacked, Just):
        return lambda tables, q: q << _32
    return lambda tables, q: q << _32 | np.uint64(tables.lists.row_of[q])


@overload(ways)
def _ways(tables, place):
    if tables.instance_class is Weighted:
        return lambda tables, place: tables.questions.ptr[(place >> _32) + _1] - tables.questions.ptr[place >> _32]
    if tables.instance_class is Stacked:
        return lambda tables, place: _many(tables.hubs, place >> _32)
    if tables.instance_class is Just:
        return lambda tables, place: np.uint64(tables.ptr[(place >> _31) + _2] - tables.ptr[place >> _31])
    return lambda tables, place: _size(tables.lists, place)


@overload(leave)
def _leave(tables, place, c, x, y, counts):
    if tables.instance_class is Uniform:

        def step(tables, place, c, x, y, counts):
            via, at = _uniform(tables.lists, place, x)
            return via, at

    elif tables.instance_class is Restart:

        def step(tables, place, c, x, y, counts):
            jump = np.float64(np.int64(x >> np.uint64(11))) * _UNIT < tables.probability
            counts[1] += jump
            via, at = _uniform(tables.lists, place, y)
            return _choose(jump, NONE, via), at

    else:

        def step(tables, place, c, x, y, counts):
            lists = tables.lists
            size = _size(lists, place)
            if c == NONE:  # nothing to return to yet
                via = _concept(lists, place, _high(x, size))
            else:
                last = size - _1
                k = _other(x, size, tables.beta)
                back = k == last
                # The last concept stands in for the way back: every other is hit by one k.
                k = _choose(_concept(lists, place, k) == c, last, k)
                via = _choose(back, c, _concept(lists, place, k))
                if tables.beta == 0.0:
                    counts[2] += back
            at = lists.ptr[via]
            last = lists.ptr[via + _1] - at - _1
            k = _other(y, last + _1, tables.alpha)
            if k < last:
                return via, at + k
            if tables.alpha == 0.0:
                counts[1] += 1
            return via, NONE

    return step


@overload(land)
def _land(tables, via, at, rest, place, first):
    if tables.instance_class is Weighted:
        return lambda tables, via, at, rest, place, first: _decide(tables.concepts, at, rest) << _32
    if tables.instance_class is Uniform:
        return lambda tables, via, at, rest, place, first: tables.lists.to[at]
    if tables.instance_class is Restart:
        return lambda tables, via, at, rest, place, first: _choose(via == NONE, first, tables.lists.to[at])

    if tables.instance_class in (Stacked, Just):
        return lambda tables, via, at, rest, place, first: np.uint64(tables.to[at]) << _32

    def back(tables, via, at, rest, place, first):
        if at == NONE:
            return place
        to = tables.lists.to[at]
        if to == place:
            to = tables.lists.to[tables.lists.ptr[via + _1] - _1]
        return to

    return back


@overload(ask_place)
def _ask_place(tables, place):
    if tables.instance_class is Weighted:
        return lambda tables, place: _prefetch(tables.questions.ptr, place >> _32)
    if tables.instance_class is Stacked:
        return lambda tables, place: _prefetch(tables.hubs.ptr, place >> _32)
    if tables.instance_class is Just:
        return lambda tables, place: _prefetch(tables.ptr, place >> _31)
    return lambda tables, place: _prefetch(tables.lists.rows, (place & _LOW) * _SLOTS)


@overload(depart, inline="always")
def _depart(tables, lane, lanes, x, y, counts):
    if tables.instance_class is Just:

        def stay_or_jump(tables, lane, lanes, x, y, counts):
            # Nobody knows which walks jump, so a branch would be guessed wrong all the time: the jumpers are listed.
            jumpers = np.uint64(0)
            for w in range(lanes):
                draw = _mix(lane[_KEY + w] + x)
                at = lane[_NOW + w] >> _31
                begin, middle, end = (
                    np.uint64(tables.ptr[at]),
                    np.uint64(tables.ptr[at + _1]),
                    np.uint64(tables.ptr[at + _2]),
                )
                concepts, following = middle - begin, end - middle
                # NONE, of who has just jumped, is as good as 1; what is kept is 1, α, α², … out of 2^64.
                stay = _high(lane[_VIA + w], tables.alpha)
                limit = _choose(following == 0, np.uint64(0), _choose(concepts == 0, NONE, stay))
                stays = (draw | _1) <= limit  # so that 0 is never and NONE always
                size = _choose(stays, following, concepts)
                # The coin leaves the draw somewhere in one interval, but its golden multiples are still spread evenly.
                draw *= GOLDEN
                spot = _choose(stays, middle, begin) + _high(draw, size)
                lane[_VIA + w] = _choose(stays, stay, NONE)
                lane[_AT + w] = spot
                lane[_REST + w] = draw * size
                lane[_JUMPERS + jumpers] = w
                jumpers += _choose(stays, np.uint64(0), _1)
                _prefetch(tables.to, spot)
            counts[1] += np.int64(lanes - jumpers)
            for j in range(jumpers):
                w = lane[_JUMPERS + j]
                at, rest = _cell(tables.run, np.uint64(tables.to[lane[_AT + w]]), lane[_REST + w])
                lane[_AT + w] = at
                lane[_REST + w] = rest
                _prefetch(tables.run.cells, _2 * at)
            for j in range(jumpers):
                w = lane[_JUMPERS + j]
                rest = lane[_REST + w]
                last = _decide(tables.run, lane[_AT + w], rest)
                at = tables.lists[last]
                spot = at + _high(rest * GOLDEN, tables.lists[last + _1] - at)
                lane[_AT + w] = spot
                _prefetch(tables.to, spot)

        return stay_or_jump

    if tables.instance_class is Stacked:

        def to_hub(tables, lane, lanes, x, y, counts):
            for w in range(lanes):
                at, rest = _cell(tables.hubs, lane[_NOW + w] >> _32, _mix(lane[_KEY + w] + x))
                lane[_AT + w] = at
                lane[_REST + w] = rest
                _prefetch(tables.hubs.cells, _2 * at)
            for w in range(lanes):
                via = _decide(tables.hubs, lane[_AT + w], lane[_REST + w])
                at = tables.ptr[via]
                spot = at + _high(_mix(lane[_KEY + w] + y), tables.ptr[via + _1] - at)
                lane[_VIA + w] = via
                lane[_AT + w] = spot
                _prefetch(tables.to, spot)

        return to_hub

    if tables.instance_class is Weighted:

        def to_concept(tables, lane, lanes, x, y, counts):
            for w in range(lanes):
                at, rest = _cell(tables.questions, lane[_NOW + w] >> _32, _mix(lane[_KEY + w] + x))
                lane[_AT + w] = at
                lane[_REST + w] = rest
                _prefetch(tables.questions.cells, _2 * at)
            for w in range(lanes):
                via = _decide(tables.questions, lane[_AT + w], lane[_REST + w])
                at, rest = _cell(tables.concepts, via, _mix(lane[_KEY + w] + y))
                lane[_VIA + w] = via
                lane[_AT + w] = at
                lane[_REST + w] = rest
                _prefetch(tables.concepts.cells, _2 * at)

        return to_concept

    def step(tables, lane, lanes, x, y, counts):
        for w in range(lanes):
            key = lane[_KEY + w]
            via, at = leave(tables, lane[_NOW + w], lane[_VIA + w], _mix(key + x), _mix(key + y), counts)
            lane[_VIA + w] = via
            lane[_AT + w] = at
            _prefetch(tables.lists.to, at)

    return step


@compiled
def walk_lanes(tables, index, starts, length, keep, n_questions, seed, out, width, counts, lane):
    """:func:`walk` on a flat ``out``; ``lane`` is uint64 (8 · LANES,), what each walk in flight carries along."""
    n = np.uint64(n_questions)
    for base in range(0, len(starts), LANES):
        lanes = np.uint64(0)
        for i in range(base, min(base + LANES, len(starts))):
            place = begin(tables, np.uint64(starts[i]))
            out[i * width] = starts[i]
            if ways(tables, place) == 0:  # a question without a way out is a walk of its own
                out[i * width + 1 : (i + 1) * width] = -1
                counts[0] += length > 1
                continue
            lane[_ROW + lanes] = i * width
            lane[_KEY + lanes] = seed + np.uint64(index[i]) * np.uint64(2 * length) * GOLDEN
            lane[_FIRST + lanes] = place
            lane[_NOW + lanes] = place
            lane[_VIA + lanes] = NONE
            lanes += _1
        for t in range(1, length):
            x = np.uint64(2 * t) * GOLDEN
            y = x + GOLDEN
            depart(tables, lane, lanes, x, y, counts)
            column = np.uint64(2 * t if keep else t)
            for w in range(lanes):
                c = lane[_VIA + w]
                place = land(tables, c, lane[_AT + w], lane[_REST + w], lane[_NOW + w], lane[_FIRST + w])
                lane[_NOW + w] = place
                ask_place(tables, place)
                here = lane[_ROW + w] + column
                out[here] = place >> _32
                if keep:
                    out[here - _1] = n + c if c != NONE else NONE
        if keep:
            _close_gaps(out, lane, lanes, np.uint64(width))


@compiled
def _close_gaps(out, lane, lanes, width):
    """A jump wrote -1 where a concept would stand; pads belong at the end."""
    for w in range(lanes):
        begins = lane[_ROW + w]
        to = begins
        for here in range(begins, begins + width):
            if out[here] >= 0:
                out[to] = out[here]
                to += _1
        for here in range(to, begins + width):
            out[here] = -1


def walk(
    tables: Any,
    index: NDArray[np.int64],
    starts: NDArray[np.int32],
    length: int,
    keep: bool,
    n_questions: int,
    seed: np.uint64,
    out: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Fill ``out`` with one walk a row. Releases the GIL, so threads may fill different rows at once.

    Parameters
    ----------
    tables : which step, and what it reads.
    index : int64 (walks,), which walk of the whole corpus each row is: its random numbers hang on it.
    starts : int32 (walks,), first questions.
    length : questions a walk.
    keep : write the concepts between them too.
    n_questions : concept c is token n_questions + c.
    seed : where the random sequence begins.
    out : int32 (walks, length or 2·length - 1), C-contiguous; -1 pads.
    counts : int64 (3,): early ends, forced returns (or restarts), forced repeats; added to.
    """
    lane = np.empty(8 * LANES, dtype=np.uint64)
    flat, width = out.reshape(-1), out.shape[1]
    walk_lanes(tables, index, starts, length, keep, n_questions, seed, flat, width, counts, lane)


compiled_fill_alias = compiled(_tables.fill_alias, _nrt=True)  # it allocates
