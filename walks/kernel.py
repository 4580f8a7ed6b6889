"""The compiled walk loop. Its twin in numpy is :mod:`qcq.walks.vectorised`; both give the same bytes.

The loop exists once. A strategy is its step, chosen at compile time by the type of its tables (``qcq.walks.tables``):
``leave`` picks the concept and draws where in its list to look, ``land`` reads the question there. Each thread keeps
``LANES`` walks in flight and moves all of them through one phase before the next: while one waits for memory, the
others' loads are already on their way.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from qcq.walks import tables as _tables
from qcq.walks.tables import Biased, Restart, Uniform, Weighted

LANES = 64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


def compiled(function):
    """``numba.njit`` that keeps what it compiled on disk, or does without where no folder can be written to."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found neither the package's folder nor the user's cache folder writable
        return njit(nogil=True)(function)


@intrinsic
def _high(typingctx, a, b):
    """The upper 64 bits of a 128-bit product: one instruction, which Python has no operator for."""

    def emit(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic
def _prefetch(typingctx, array, index):
    """Ask for ``array[index]`` without waiting for it."""

    def emit(context, builder, signature, args):
        from numba.core import cgutils

        made = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = cgutils.get_item_pointer(
            context, builder, signature.args[0], made, [args[1]], wraparound=False, boundscheck=False
        )
        byte = ir.IntType(8).as_pointer()
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(
            call, [builder.bitcast(pointer, byte), ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)]
        )
        return context.get_dummy_value()

    return types.void(array, index), emit


@compiled
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _concept(lists, q, degree, k):
    at = np.uint64(q) * np.uint64(4)
    if degree < 4:
        return np.int64(lists.rows[at + np.uint64(1) + np.uint64(k)])
    low = np.int64(np.uint32(lists.rows[at + np.uint64(1)]))
    return np.int64(lists.tail[np.uint64((np.int64(lists.rows[at + np.uint64(2)]) << 32) + low + k)])


@compiled
def _other(x, degree, bias):
    """One of the ``degree - 1`` other neighbours, or -1: the way back, with weight ``bias`` against their 1 each."""
    u = np.float64(np.int64(x >> np.uint64(11))) * _UNIT * (np.float64(degree - 1) + bias)
    if u < np.float64(degree - 1):
        return np.int64(u)
    return np.int64(-1)


@compiled
def _uniform(lists, q, x):
    """A uniform concept, and a uniform place in its list from what is left of the same draw."""
    degree = np.int64(lists.rows[np.uint64(q) * np.uint64(4)])
    via = _concept(lists, q, degree, np.int64(_high(x, np.uint64(degree))))
    at = lists.ptr[np.uint64(via)]
    many = np.uint64(lists.ptr[np.uint64(via) + np.uint64(1)] - at)
    return via, at + np.int64(_high(x * np.uint64(degree), many))


@compiled
def _cell(side, node, x):
    """A uniform alias cell of ``node``, and the fraction of the draw that is left to decide inside it."""
    at = side.ptr[np.uint64(node)]
    many = np.uint64(side.ptr[np.uint64(node) + np.uint64(1)] - at)
    return at + np.int64(_high(x, many)), x * many


@compiled
def _decide(side, at, rest):
    both = side.cells[np.uint64(2 * at + 1)]
    if rest < side.cells[np.uint64(2 * at)]:
        return np.int64(both >> np.uint64(32))
    return np.int64(both & np.uint64(0xFFFFFFFF))


# The steps. Only their signatures stand here; ``overload`` gives each type of tables its own.


def degree(tables, q):
    """How many ways lead out of question ``q``."""


def leave(tables, q, c, x, y, counts):
    """(concept, place in its list, fraction left) on leaving ``q``, where the walk came by ``c`` (-1: it starts)."""


def land(tables, via, at, rest, q, first, counts):
    """The question at that place, for a walk that left ``q`` and began at ``first``."""


def ask(tables, at):
    """Prefetch what ``land`` will read."""


def ask_question(tables, q):
    """Prefetch what ``leave`` will read."""


@overload(degree)
def _degree(tables, q):
    if tables.instance_class is Weighted:
        return lambda tables, q: tables.questions.ptr[np.uint64(q) + np.uint64(1)] - tables.questions.ptr[np.uint64(q)]
    return lambda tables, q: np.int64(tables.lists.rows[np.uint64(q) * np.uint64(4)])


@overload(leave)
def _leave(tables, q, c, x, y, counts):
    if tables.instance_class is Uniform:

        def step(tables, q, c, x, y, counts):
            via, at = _uniform(tables.lists, q, x)
            return via, at, np.uint64(0)

    elif tables.instance_class is Restart:

        def step(tables, q, c, x, y, counts):
            if np.float64(np.int64(x >> np.uint64(11))) * _UNIT < tables.probability:
                counts[1] += 1
                return np.int64(-1), np.int64(0), np.uint64(0)
            via, at = _uniform(tables.lists, q, y)
            return via, at, np.uint64(0)

    elif tables.instance_class is Biased:

        def step(tables, q, c, x, y, counts):
            lists = tables.lists
            ways = np.int64(lists.rows[np.uint64(q) * np.uint64(4)])
            if c < 0:  # nothing to return to yet
                via = _concept(lists, q, ways, np.int64(_high(x, np.uint64(ways))))
            else:
                via = c
                k = _other(x, ways, tables.beta)
                if k >= 0:
                    via = _concept(lists, q, ways, k)
                    if via == c:  # the last one stands in for the way back: every other is hit by one k
                        via = _concept(lists, q, ways, ways - 1)
                elif ways == 1 and tables.beta == 0.0:
                    counts[2] += 1
            at = lists.ptr[np.uint64(via)]
            many = lists.ptr[np.uint64(via) + np.uint64(1)] - at
            k = _other(y, many, tables.alpha)
            if k < 0:
                if many == 1 and tables.alpha == 0.0:
                    counts[1] += 1
                return via, np.int64(-1), np.uint64(0)
            return via, at + k, np.uint64(0)

    else:

        def step(tables, q, c, x, y, counts):
            at, rest = _cell(tables.questions, q, x)
            via = _decide(tables.questions, at, rest)
            at, rest = _cell(tables.concepts, via, y)
            return via, at, rest

    return step


@overload(land)
def _land(tables, via, at, rest, q, first, counts):
    if tables.instance_class is Weighted:
        return lambda tables, via, at, rest, q, first, counts: _decide(tables.concepts, at, rest)
    if tables.instance_class is Uniform:
        return lambda tables, via, at, rest, q, first, counts: np.int64(tables.lists.to[np.uint64(at)])
    if tables.instance_class is Restart:

        def jump(tables, via, at, rest, q, first, counts):
            return first if via < 0 else np.int64(tables.lists.to[np.uint64(at)])

        return jump

    def back(tables, via, at, rest, q, first, counts):
        if at < 0:
            return q
        to = np.int64(tables.lists.to[np.uint64(at)])
        if to == q:
            to = np.int64(tables.lists.to[np.uint64(tables.lists.ptr[np.uint64(via) + np.uint64(1)] - 1)])
        return to

    return back


@overload(ask)
def _ask(tables, at):
    if tables.instance_class is Weighted:
        return lambda tables, at: _prefetch(tables.concepts.cells, 2 * at)
    return lambda tables, at: _prefetch(tables.lists.to, at)


@overload(ask_question)
def _ask_question(tables, q):
    if tables.instance_class is Weighted:
        return lambda tables, q: _prefetch(tables.questions.ptr, q)
    return lambda tables, q: _prefetch(tables.lists.rows, 4 * q)


@compiled
def walk(tables, index, starts, length, keep, n_questions, seed, out, counts):
    """Fill ``out`` with one walk a row.

    Parameters
    ----------
    tables : which step, and what it reads.
    index : int64 (walks,), which walk of the whole corpus each row is: its random numbers hang on it.
    starts : int32 (walks,), first questions.
    length : questions a walk.
    keep : write the concepts between them too.
    n_questions : concept c is token n_questions + c.
    seed : uint64.
    out : int32 (walks, length or 2·length - 1); -1 pads.
    counts : int64 (3,): early ends, forced returns (or restarts), forced repeats; added to.
    """
    width = out.shape[1]
    flat = out.reshape(-1)
    row = np.empty(LANES, dtype=np.int64)
    now = np.empty(LANES, dtype=np.int64)
    first = np.empty(LANES, dtype=np.int64)
    via = np.empty(LANES, dtype=np.int64)
    at = np.empty(LANES, dtype=np.int64)
    rest = np.empty(LANES, dtype=np.uint64)
    state = np.empty(LANES, dtype=np.uint64)
    for begin in range(0, len(starts), LANES):
        lanes = 0
        for i in range(begin, min(begin + LANES, len(starts))):
            q = np.int64(starts[i])
            flat[i * width] = q
            if degree(tables, q) == 0:
                flat[i * width + 1 : (i + 1) * width] = -1
                counts[0] += length > 1
                continue
            row[lanes] = i * width
            now[lanes] = q
            first[lanes] = q
            via[lanes] = -1
            state[lanes] = seed + np.uint64(index[i]) * np.uint64(2 * length) * _GOLDEN
            lanes += 1
        for _t in range(1, length):
            for w in range(lanes):
                s = state[w] + _GOLDEN + _GOLDEN
                state[w] = s
                c, a, r = leave(tables, now[w], via[w], _mix(s), _mix(s + _GOLDEN), counts)
                via[w] = c
                at[w] = a
                rest[w] = r
                ask(tables, a)
            for w in range(lanes):
                q = land(tables, via[w], at[w], rest[w], now[w], first[w], counts)
                now[w] = q
                ask_question(tables, q)
                here = row[w]
                if keep and via[w] >= 0:
                    here += 1
                    flat[here] = n_questions + via[w]
                here += 1
                flat[here] = q
                row[w] = here
        if keep:  # a jump writes no concept, so a row may end early
            for w in range(lanes):
                here = row[w] + 1
                while here % width != 0:
                    flat[here] = -1
                    here += 1


compiled_fill_alias = compiled(_tables.fill_alias)
