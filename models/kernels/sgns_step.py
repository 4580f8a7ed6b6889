"""One gradient step of ``sgns`` in vector instructions.

The compiler doesn't vectorise by itself: it must assume that any two rows overlap. So the step is written here in
LLVM's vectors of eight floats, which compile to the registers of any machine. Two pairs take a step together, which
halves how often the rows of their shared noise are fetched; their scores and sigmoids are computed side by side in the
lanes of one vector.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # floats in a vector; also one score each for the real pair and for up to MOST noise tokens
MOST = 5  # noise tokens per step; more would not stay in registers
_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FREE = ("fast",)
_LOG2_E = 1.4426950408889634
_EXP2 = (0.0013333558146428443, 0.009618129107628477, 0.05550410866482158, 0.2402265069591007, 0.6931471805599453, 1.0)


def _vector(*values):
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, v) for v in (values if len(values) > 1 else values * LANES)])


def _call(builder, name, *values):
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), values)


def _shuffle(builder, one, two, lanes):
    return builder.shuffle_vector(
        one, two, ir.Constant(ir.VectorType(_INT, LANES), [ir.Constant(_INT, i) for i in lanes])
    )


def _add_product(builder, total, one, two):
    return builder.fadd(total, builder.fmul(one, two, flags=_FREE), flags=_FREE)


def _sums(builder, rows):
    """A vector whose lane i is the sum of ``rows[i]``."""
    rows = rows + [_vector(0.0)] * (LANES - len(rows))

    def folded(rows, even, odd):
        halves = zip(rows[::2], rows[1::2], strict=True)
        return [
            builder.fadd(_shuffle(builder, a, b, even), _shuffle(builder, a, b, odd), flags=_FREE) for a, b in halves
        ]

    beside = (0, 2, 8, 10, 4, 6, 12, 14), (1, 3, 9, 11, 5, 7, 13, 15)  # neighbours, without crossing a vector's middle
    rows = folded(folded(rows, *beside), *beside)
    return folded(rows, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))[0]


def _sigmoid(builder, x):
    """1 / (1 + 2^z) with z = −x log2 e = n + r: a polynomial for 2^r, and n added to its exponent."""
    x = _call(builder, "maxnum", _call(builder, "minnum", x, _vector(30.0)), _vector(-30.0))
    z = builder.fmul(x, _vector(-_LOG2_E), flags=_FREE)
    n = _call(builder, "rint", z)
    r = builder.fsub(z, n)
    power = _vector(_EXP2[0])
    for c in _EXP2[1:]:
        power = _add_product(builder, _vector(c), power, r)
    raised = builder.shl(builder.fptosi(n, _INTS), ir.Constant(_INTS, [ir.Constant(_INT, 23)] * LANES))
    power = builder.bitcast(builder.add(builder.bitcast(power, _INTS), raised), _VECTOR)
    return builder.fdiv(_vector(1.0), builder.fadd(_vector(1.0), power, flags=_FREE), flags=_FREE)


@intrinsic(prefer_literal=True)
def step(typing, inputs, outputs, rows, times, part, rate, dim, noise, real):
    """The step of one pair, or of two, with shared noise tokens. For use inside compiled code.

        x += rate (1 − σ(x·y)) y − Σ rate t σ(x·n) n,   y += rate (1 − σ(x·y)) x,   n −= Σ rate t σ(x·n) x

    ``inputs`` and ``outputs`` are tuples of int64: addresses of the pairs' rows x and y. ``rows`` (int64) are addresses
    of noise rows, of which number ``part · noise`` and following are taken. ``times`` (float32, LANES per part) has the
    weight of the pair itself, and then of each noise token. Rows are ``dim`` floats, a multiple of LANES, and start at
    multiples of 32 bytes; all rows must be different. ``dim``, ``noise`` (at most MOST) and ``real`` are constants; if
    ``real`` is zero, outputs aren't used.
    """
    members, dim_, noise_, real_ = len(inputs), dim.literal_value, noise.literal_value, bool(real.literal_value)

    def build(context, builder, signature, given):
        return _built(context, builder, signature, given, members, dim_, noise_, real_)

    return types.void(inputs, outputs, rows, times, part, rate, dim, noise, real), build


def _built(context, builder, signature, given, members, dim, noise, real):
    """The code that replaces :func:`step` in a compiled function."""
    inputs, outputs, rows, times, part, rate = given[:6]
    part = context.cast(builder, part, signature.args[4], types.int64)

    def row(address):
        return builder.inttoptr(address, _VECTOR.as_pointer())

    def offset(k):
        return builder.mul(part, ir.Constant(_LONG, k))

    xs = [row(builder.extract_value(inputs, m)) for m in range(members)]
    ys = [row(builder.extract_value(outputs, m)) for m in range(members)] if real else []
    start = builder.gep(context.make_array(signature.args[2])(context, builder, rows).data, [offset(noise)])
    ns = [row(builder.load(builder.gep(start, [ir.Constant(_LONG, j)]))) for j in range(noise)]
    held = builder.gep(context.make_array(signature.args[3])(context, builder, times).data, [offset(LANES)])
    weight = builder.load(builder.bitcast(held, _VECTOR.as_pointer()), align=4)

    def load(pointer, at):
        return builder.load(builder.gep(pointer, [at]), align=32)

    def store(value, pointer, at):
        builder.store(value, builder.gep(pointer, [at]), align=32)

    chunks = ir.Constant(_LONG, dim // LANES)
    products = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(real + noise)] for _ in range(members)]
    for m in range(members):
        for product in products[m]:
            builder.store(_vector(0.0), product)
    with cgutils.for_range(builder, chunks) as loop:
        shared = [load(n, loop.index) for n in ns]
        for m in range(members):
            x = load(xs[m], loop.index)
            others = [load(ys[m], loop.index), *shared] if real else shared
            for product, other in zip(products[m], others, strict=True):
                builder.store(_add_product(builder, builder.load(product), x, other), product)
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    rate = _shuffle(builder, builder.insert_element(nothing, rate, ir.Constant(_INT, 0)), nothing, [0] * LANES)
    wanted = _vector(1.0, *[0.0] * (LANES - 1))
    gains = []  # [pair][0 for its output, 1 … for noise], the same number in all lanes
    for m in range(members):
        scores = [builder.load(product) for product in products[m]]
        chance = _sigmoid(builder, _sums(builder, scores if real else [_vector(0.0), *scores]))
        miss = builder.fsub(wanted, builder.fmul(weight, chance, flags=_FREE), flags=_FREE)
        gain = builder.fmul(rate, miss, flags=_FREE)
        gains.append([_shuffle(builder, gain, gain, [j] * LANES) for j in range(1 + noise)])
    with cgutils.for_range(builder, chunks) as loop:
        before = [load(x, loop.index) for x in xs]
        after = list(before)
        for m in range(members if real else 0):
            y = load(ys[m], loop.index)
            after[m] = _add_product(builder, after[m], gains[m][0], y)
            store(_add_product(builder, y, gains[m][0], before[m]), ys[m], loop.index)
        for j in range(noise):
            n = pushed = load(ns[j], loop.index)
            for m in range(members):
                after[m] = _add_product(builder, after[m], gains[m][1 + j], n)
                pushed = _add_product(builder, pushed, gains[m][1 + j], before[m])
            store(pushed, ns[j], loop.index)
        for m in range(members):
            store(after[m], xs[m], loop.index)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def combine(typing, target, source, dim, sign):
    """Row ``target`` becomes ``source`` (sign 0), or has it added (1) or subtracted (-1). Addresses, as for a step."""
    chunks, kind = dim.literal_value // LANES, sign.literal_value

    def build(context, builder, signature, given):
        to, of = (builder.inttoptr(address, _VECTOR.as_pointer()) for address in given[:2])
        with cgutils.for_range(builder, ir.Constant(_LONG, chunks)) as loop:
            here = builder.gep(to, [loop.index])
            value = builder.load(builder.gep(of, [loop.index]), align=32)
            if kind:
                combined = builder.fadd if kind > 0 else builder.fsub
                value = combined(builder.load(here, align=32), value)
            builder.store(value, here, align=32)
        return context.get_dummy_value()

    return types.void(target, source, dim, sign), build


@intrinsic
def fetch(typing, address):
    """Prefetch the cache line at an address (int64), for reading and writing."""

    def build(context, builder, signature, given):
        pointer = builder.inttoptr(given[0], ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [pointer, *(ir.Constant(_INT, i) for i in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), build


PATIENCE = 50_000  # looks at a counter, some 50 µs, before a waiting thread sleeps
_SLEEP, _FOR = ("Sleep", 0) if sys.platform == "win32" else ("usleep", 50)  # µs


@intrinsic
def claim(typing, counter):
    """Add one to the counter (int64) at an address, for all threads, and return what it was before."""

    def build(context, builder, signature, given):
        place = builder.inttoptr(given[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_LONG, 1), "acq_rel")

    return types.int64(types.int64), build


@intrinsic
def await_count(typing, counter, wanted):
    """Wait until the counter (int64) at an address has come so far; what others wrote before can then be read.

    Waiting in Python's thread pool costs as much as the work between two waits, because a thread has to be woken. This
    watches the counter, and sleeps for short times if it takes long.
    """

    def build(context, builder, signature, given):
        place = builder.inttoptr(given[0], _LONG.as_pointer())
        looks = cgutils.alloca_once_value(builder, ir.Constant(_LONG, 0))
        look, wait, rest, done = (
            builder.append_basic_block(f"await.{name}") for name in ("look", "wait", "rest", "done")
        )
        builder.branch(look)
        builder.position_at_end(look)
        come = builder.icmp_signed(">=", builder.load_atomic(place, "acquire", 8), given[1])
        builder.cbranch(come, done, wait)
        builder.position_at_end(wait)
        looked = builder.add(builder.load(looks), ir.Constant(_LONG, 1))
        builder.store(looked, looks)
        builder.cbranch(builder.icmp_signed("<", looked, ir.Constant(_LONG, PATIENCE)), look, rest)
        builder.position_at_end(rest)
        kind = ir.FunctionType(_INT, [_INT])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, _SLEEP), [ir.Constant(_INT, _FOR)])
        builder.branch(look)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build
