"""The compiled walk loop. Its twin in numpy is :mod:`qcq.walks.vectorised`; both give the same bytes.

The loop exists once, and is compiled for each kind of step (``qcq.walks.step``) anew: ``leave`` picks the concept and
draws where in its list to look, ``land`` reads the place there. Each thread keeps ``LANES`` walks in flight and moves
all of them through one phase before the next: while one waits for memory, the others' loads are already on their way.
Steps with alias tables have a phase more, and a ``depart`` of their own for it.

Everything is a uint64, so that no index has a sign to check, and nothing here counts references (``_nrt=False``): two
threads counting on one array's counter took eight times as long as the walks.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_jitable
from numpy.typing import NDArray

from qcq.walks import step as _step
from qcq.walks import tables as _tables
from qcq.walks.counter import GOLDEN, mix
from qcq.walks.step import AT, FIRST, HALF, HELPERS, KEY, LANES, NONE, NOW, ONE, REST, ROW, VIA, part, prefetch

_UNIT = 2.0**-53
_PARTS = "begin", "ways", "depart", "leave", "land", "ask"


def compiled(function, *, cache=True, **options):
    """``numba.njit`` that keeps what it compiled on disk, or does without where no folder can be written to."""
    options = {"nogil": True, "_nrt": False} | options
    try:
        return njit(cache=cache, **options)(function)
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
    """Without a branch: these choices are random, and a wrong guess costs more than the step."""
    if a != b:
        raise TypingError(f"choose needs two numbers of one type, given {a} and {b}")

    def emit(context, builder, signature, args):
        made = builder.select(*args)
        made.set_metadata("unpredictable", builder.module.add_metadata([]))
        return made

    return a(types.boolean, a, a), emit


@intrinsic
def _prefetch(typingctx, array, index):
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


# The functions of ``qcq.walks.step`` that are something else here.


@overload(_step.high)
def _(x, n):
    return lambda x, n: _high(x, n)


@overload(_step.unit)
def _(x):
    return lambda x: np.float64(np.int64(x >> np.uint64(11))) * _UNIT


@overload(_step.choose)
def _(yes, a, b):
    return lambda yes, a, b: _choose(yes, a, b)


@overload(_step.take, inline="always")
def _(array, index):
    return lambda array, index: array[index]


@overload(_step.prefetch)
def _(array, index):
    return lambda array, index: _prefetch(array, index)


@overload(_step.count)
def _(counts, which, happened):
    def add(counts, which, happened):
        counts[which] += happened

    return add


def _own(name, **options):
    """What a step does in its own way, or in the usual one: known by the type of the step when this is compiled."""

    def stub(step, *args):
        raise NotImplementedError

    @overload(stub, strict=False, **options)
    def chosen(step, *args):
        return part(step.instance_class, name) if name != "depart" else getattr(step.instance_class, name, depart)

    return stub


_begin, _ways, _leave, _land, _ask = (_own(name) for name in ("begin", "ways", "leave", "land", "ask"))
_depart = _own("depart", inline="always")


def depart(self, lane, lanes, x, y, counts):
    """Bring every walk in flight to the spot where ``land`` finds its next place.

    Parameters
    ----------
    lane : uint64 (8 · LANES,), what each walk in flight carries along (``qcq.walks.step``).
    lanes : how many are in flight.
    x, y : walk w's two draws are ``mix(lane[KEY + w] + x)`` and ``mix(lane[KEY + w] + y)``.
    counts : as for :func:`qcq.walks.step.step`.
    """
    for w in range(lanes):
        key = lane[KEY + w]
        via, at = _leave(self, lane[NOW + w], lane[VIA + w], mix(key + x), mix(key + y), counts)
        lane[VIA + w] = via
        lane[AT + w] = at
        prefetch(self.lists.to, at)


def walk_lanes(step, index, starts, length, keep, n_questions, seed, out, width, counts, lane):
    """:func:`walk` on a flat ``out``."""
    n = np.uint64(n_questions)
    for base in range(0, len(starts), LANES):
        lanes = np.uint64(0)
        for i in range(base, min(base + LANES, len(starts))):
            place = _begin(step, np.uint64(starts[i]))
            out[i * width] = starts[i]
            if _ways(step, place) == 0:  # a question without a way out is a walk of its own
                out[i * width + 1 : (i + 1) * width] = -1
                counts[0] += length > 1
                continue
            lane[ROW + lanes] = i * width
            lane[KEY + lanes] = seed + np.uint64(index[i]) * np.uint64(2 * length) * GOLDEN
            lane[FIRST + lanes] = place
            lane[NOW + lanes] = place
            lane[VIA + lanes] = NONE
            lanes += ONE
        for t in range(1, length):
            x = np.uint64(2 * t) * GOLDEN
            y = x + GOLDEN
            _depart(step, lane, lanes, x, y, counts)
            column = np.uint64(2 * t if keep else t)
            for w in range(lanes):
                c = lane[VIA + w]
                place = _land(step, c, lane[AT + w], lane[REST + w], lane[NOW + w], lane[FIRST + w])
                lane[NOW + w] = place
                _ask(step, place)
                here = lane[ROW + w] + column
                out[here] = place >> HALF
                if keep:
                    out[here - ONE] = n + c if c != NONE else NONE
        if keep:
            _close_gaps(out, lane, lanes, np.uint64(width))


@compiled
def _close_gaps(out, lane, lanes, width):
    """A jump wrote -1 where a concept would stand; pads belong at the end."""
    for w in range(lanes):
        begins = lane[ROW + w]
        to = begins
        for here in range(begins, begins + width):
            if out[here] >= 0:
                out[to] = out[here]
                to += ONE
        for here in range(to, begins + width):
            out[here] = -1


_loops: dict[type, Any] = {}
_lock = threading.Lock()


def _loop(kind):
    """``walk_lanes`` for one kind of step."""
    with _lock:
        while HELPERS:
            register_jitable(HELPERS.pop())
        if kind not in _loops:
            code = _code(kind)
            loop = FunctionType(walk_lanes.__code__, globals())
            loop.__qualname__ = f"walk_lanes.{kind.__module__}.{kind.__qualname__}-{code}"  # its name on disk
            _loops[kind] = compiled(loop, cache=bool(code))
        return _loops[kind]


def _code(kind):
    """A digest of the files that a step is written in; "" where it can't be found again by its name.

    numba itself only looks at this file: whoever changed a step would be given what was compiled before.
    """
    if kind.__module__ == "__main__" or getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
        return ""
    todo = [walk_lanes, *(getattr(kind, name, getattr(_step, name, None)) for name in _PARTS)]
    seen, files = set(), set()
    while todo:
        thing = todo.pop()
        if isinstance(thing, FunctionType) and thing not in seen:
            seen.add(thing)
            files.add(thing.__code__.co_filename)
            todo += [thing.__globals__.get(name) for name in thing.__code__.co_names]
        elif isinstance(thing, ModuleType):
            files.add(getattr(thing, "__file__", __file__))
    if not all(map(os.path.isfile, files)):
        return ""
    return hashlib.sha256(b"".join(sorted(Path(file).read_bytes() for file in files))).hexdigest()[:16]


def walk(
    step: Any,
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
    step : how walks move, and what that reads.
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
    _loop(type(step))(step, index, starts, length, keep, n_questions, seed, flat, width, counts, lane)


compiled_fill_alias = compiled(_tables.fill_alias, _nrt=True)  # it allocates
