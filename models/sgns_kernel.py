"""The compiled loops of ``sgns``.

Noise tokens are shared, or fetching their rows would cost more than the arithmetic. They are shared by tokens of
*different* walks: a team of segments is trained in step, and each round draws noise once, copies its rows into a small
block, and lets the next pair of every member update the block. Pairs of one window would push a shared noise token all
the same way, which measurably costs loss; those of different walks don't.

Rows of the block lie a constant number of floats apart and five of them share a loop, which is what lets the compiler
keep their sums in vector registers. Every team has a random stream of its own, so what is drawn never depends on which
thread draws it.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import functools

import numpy as np
from numba import njit

SEGMENT = 64  # centres handled as one piece of work
LANES = 5  # noise rows that share a loop
_BINS = 4096  # of the sigmoid's table, over -8…8
SIGMOID = (1 / (1 + np.exp(-((np.arange(_BINS) + 0.5) * 16 / _BINS - 8)))).astype(np.float32)


def rows_a_team(team: int, window: int, negatives: int) -> tuple[int, int]:
    """The most input rows and output rows that a team can touch."""
    return team * (SEGMENT + 2 * window), SEGMENT * (team + 2 * window * negatives)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@njit(cache=True)
def _mix(x):  # splitmix64's finaliser
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def alias_table(weight):
    """Walker's alias table as uint32 (n, 2): a threshold out of 2^32, and who takes over beyond it.

    A token of weight zero is never drawn, not even when a random number hits its threshold.
    """
    n = len(weight)
    table = np.empty((n, 2), dtype=np.uint32)
    share = weight / weight.sum() * n
    stack = np.empty(n, dtype=np.int64)
    few, many = 0, n  # two stacks in one array, growing towards each other
    for i in range(n):
        if share[i] < 1:
            stack[few] = i
            few += 1
        else:
            many -= 1
            stack[many] = i
    while few > 0 and many < n:
        few -= 1
        small, large = stack[few], stack[many]
        table[small, 0] = np.uint32(min(share[small] * 4294967296.0, 4294967295.0))
        table[small, 1] = large
        share[large] -= 1 - share[small]
        if share[large] < 1:
            many += 1
            stack[few] = large
            few += 1
    heaviest = np.argmax(weight)
    for at in range(few):  # only rounding is left on either stack
        table[stack[at], 0] = 4294967295 if weight[stack[at]] > 0 else 0
        table[stack[at], 1] = stack[at] if weight[stack[at]] > 0 else heaviest
    for at in range(many, n):
        table[stack[at], 0] = 4294967295
        table[stack[at], 1] = stack[at]
    return table


@njit(inline="always")
def _sigmoid(table, score):
    at = (score + np.float32(8)) * np.float32(_BINS / 16)
    return table[np.int64(min(max(at, np.float32(0)), np.float32(_BINS - 1)))]


@functools.cache
def compiled(dim, parts):
    """The training loop for rows of ``dim`` floats and up to ``parts`` times LANES noise tokens."""
    rows = parts * LANES
    at_c, at_x, at_new = rows * dim, (rows + 1) * dim, (rows + 2) * dim

    @njit(cache=True, fastmath=True, nogil=True)
    def train(
        tokens,  # int32 (walks, length)
        inputs,  # float32 (vocabulary, dim)
        outputs,  # float32 (vocabulary, dim)
        noise,  # uint32 (vocabulary, 2), alias table
        sigmoid,  # float32 (bins,)
        rates,  # float32 (2,), learning rate at the start and at the end of all training
        window,
        negatives,
        team,  # segments that are trained in step and share noise tokens
        seed,  # uint64
        first,  # teams trained before this call
        total,  # teams of all training
        n,  # teams of these walks
        start,  # this call trains every ``lanes``-th team from start + lane to stop
        stop,
        lane,
        lanes,
        copied,  # work on copies of the rows, and hand over what changed
        slots,  # int32 (lanes, 2, vocabulary), all -1
        kept_in,  # int64 (teams, rows), which rows a team changed …
        kept_out,
        held,  # int64 (2, teams), how many
        by_in,  # float32 (teams · rows, dim), and by how much
        by_out,
    ):
        length = tokens.shape[1]
        size = np.uint64(len(noise))
        pieces = (length + SEGMENT - 1) // SEGMENT  # segments a walk
        segments = tokens.shape[0] * pieces
        most_in, most_out = kept_in.shape[1], kept_out.shape[1]
        n_in, n_out = held[0], held[1]
        into = by_in if copied else inputs
        outof = by_out if copied else outputs
        block = np.zeros((rows + 3) * dim, dtype=np.float32)  # noise, the centre, the input as it was and as it becomes
        ys = np.zeros(rows, dtype=np.int64)
        home = np.zeros(rows, dtype=np.int64)
        times = np.zeros(rows, dtype=np.float32)
        centre = np.zeros(team, dtype=np.int64)  # of each member: token, row of its output, context at hand …
        centre_row = np.zeros(team, dtype=np.int64)
        at_s = np.zeros(team, dtype=np.int64)
        end_s = np.zeros(team, dtype=np.int64)
        left = np.zeros(team, dtype=np.int64)
        right = np.zeros(team, dtype=np.int64)
        walk = np.zeros(team, dtype=np.int64)
        begin = np.zeros(team, dtype=np.int64)
        for who in range(start + lane, stop, lanes):
            at = who - start
            state = _mix(seed + _mix(np.uint64(first + who) * _GOLDEN))
            rate = np.float32(rates[0] + (rates[1] - rates[0]) * np.float32((first + who) / total))
            if copied:
                n_in[at] = n_out[at] = 0
            for m in range(team):  # members lie far apart, so that those of a long walk hardly meet
                segment = m * n + who
                left[m] = right[m] = begin[m] = 0
                if segment < segments:
                    walk[m], part = divmod(segment, pieces)
                    begin[m] = part * SEGMENT
                    left[m] = max(0, begin[m] - window)
                    right[m] = min(length, begin[m] + SEGMENT + window)
                    while right[m] > left[m] and tokens[walk[m], right[m] - 1] < 0:  # pads stand at the end
                        right[m] -= 1
                if copied:
                    for s in range(left[m], right[m]):
                        x = tokens[walk[m], s]
                        if slots[lane, 0, x] < 0:
                            slots[lane, 0, x] = at * most_in + n_in[at]
                            kept_in[at, n_in[at]] = x
                            for e in range(dim):
                                by_in[at * most_in + n_in[at], e] = inputs[x, e]
                            n_in[at] += 1
            for offset in range(SEGMENT):
                going = 0
                for m in range(team):
                    t = begin[m] + offset
                    at_s[m] = end_s[m] = 0
                    if t < right[m]:
                        state += _GOLDEN
                        wide = 1 + np.int64(((_mix(state) >> _32) * np.uint64(window)) >> _32)
                        at_s[m], end_s[m] = max(left[m], t - wide), min(right[m], t + wide + 1)
                        if at_s[m] == t:
                            at_s[m] += 1
                    centre[m] = -1
                    if at_s[m] < end_s[m]:
                        going += 1
                        y = np.int64(tokens[walk[m], t])
                        centre[m] = y
                        if copied:
                            if slots[lane, 1, y] < 0:
                                slots[lane, 1, y] = at * most_out + n_out[at]
                                kept_out[at, n_out[at]] = y
                                for e in range(dim):
                                    by_out[at * most_out + n_out[at], e] = outputs[y, e]
                                n_out[at] += 1
                            y = np.int64(slots[lane, 1, y])
                        centre_row[m] = y
                while going > 0:
                    for j in range(negatives):
                        state += _GOLDEN
                        r = _mix(state)
                        y = np.int64(((r >> _32) * size) >> _32)
                        if (r & _LOW) >= np.uint64(noise[y, 0]):
                            y = np.int64(noise[y, 1])
                        ys[j] = y
                        times[j] = 1
                        for m in range(team):  # what is being predicted isn't noise
                            if centre[m] == y:
                                times[j] = 0
                        for h in range(j):  # drawn twice: one row, counted twice
                            if ys[h] == y and times[j] > 0:
                                times[j] = 0
                                times[h] += 1
                                ys[j] = -1
                        if times[j] > 0:
                            if copied:
                                if slots[lane, 1, y] < 0:
                                    slots[lane, 1, y] = at * most_out + n_out[at]
                                    kept_out[at, n_out[at]] = y
                                    for e in range(dim):
                                        by_out[at * most_out + n_out[at], e] = outputs[y, e]
                                    n_out[at] += 1
                                y = np.int64(slots[lane, 1, y])
                            home[j] = y
                            for e in range(dim):
                                block[j * dim + e] = outof[y, e]
                    for m in range(team):
                        s = at_s[m]
                        if s >= end_s[m]:
                            continue
                        x = np.int64(tokens[walk[m], s])
                        if copied:
                            x = np.int64(slots[lane, 0, x])
                        y = centre_row[m]
                        for e in range(dim):
                            block[at_x + e] = into[x, e]
                        for e in range(dim):
                            block[at_c + e] = outof[y, e]
                        f0 = f1 = f2 = f3 = f4 = f5 = np.float32(0)
                        for e in range(dim):
                            v = block[at_x + e]
                            f0 += v * block[at_c + e]
                            f1 += v * block[e]
                            f2 += v * block[dim + e]
                            f3 += v * block[2 * dim + e]
                            f4 += v * block[3 * dim + e]
                            f5 += v * block[4 * dim + e]
                        g0 = rate * (np.float32(1) - _sigmoid(sigmoid, f0))
                        g1 = -rate * times[0] * _sigmoid(sigmoid, f1)
                        g2 = -rate * times[1] * _sigmoid(sigmoid, f2)
                        g3 = -rate * times[2] * _sigmoid(sigmoid, f3)
                        g4 = -rate * times[3] * _sigmoid(sigmoid, f4)
                        g5 = -rate * times[4] * _sigmoid(sigmoid, f5)
                        for e in range(dim):
                            v = block[at_x + e]
                            y0, y1, y2 = block[at_c + e], block[e], block[dim + e]
                            y3, y4, y5 = block[2 * dim + e], block[3 * dim + e], block[4 * dim + e]
                            block[at_new + e] = v + g0 * y0 + g1 * y1 + g2 * y2 + g3 * y3 + g4 * y4 + g5 * y5
                            block[at_c + e] = y0 + g0 * v
                            block[e] = y1 + g1 * v
                            block[dim + e] = y2 + g2 * v
                            block[2 * dim + e] = y3 + g3 * v
                            block[3 * dim + e] = y4 + g4 * v
                            block[4 * dim + e] = y5 + g5 * v
                        for p in range(1, parts):  # more noise than one loop holds
                            o = p * LANES * dim
                            f1 = f2 = f3 = f4 = f5 = np.float32(0)
                            for e in range(dim):
                                v = block[at_x + e]
                                f1 += v * block[o + e]
                                f2 += v * block[o + dim + e]
                                f3 += v * block[o + 2 * dim + e]
                                f4 += v * block[o + 3 * dim + e]
                                f5 += v * block[o + 4 * dim + e]
                            j = p * LANES
                            g1 = -rate * times[j] * _sigmoid(sigmoid, f1)
                            g2 = -rate * times[j + 1] * _sigmoid(sigmoid, f2)
                            g3 = -rate * times[j + 2] * _sigmoid(sigmoid, f3)
                            g4 = -rate * times[j + 3] * _sigmoid(sigmoid, f4)
                            g5 = -rate * times[j + 4] * _sigmoid(sigmoid, f5)
                            for e in range(dim):
                                v = block[at_x + e]
                                y1, y2, y3 = block[o + e], block[o + dim + e], block[o + 2 * dim + e]
                                y4, y5 = block[o + 3 * dim + e], block[o + 4 * dim + e]
                                block[at_new + e] += g1 * y1 + g2 * y2 + g3 * y3 + g4 * y4 + g5 * y5
                                block[o + e] = y1 + g1 * v
                                block[o + dim + e] = y2 + g2 * v
                                block[o + 2 * dim + e] = y3 + g3 * v
                                block[o + 3 * dim + e] = y4 + g4 * v
                                block[o + 4 * dim + e] = y5 + g5 * v
                        for e in range(dim):
                            into[x, e] = block[at_new + e]
                        for e in range(dim):
                            outof[y, e] = block[at_c + e]
                        s += 1
                        if s == begin[m] + offset:  # not the centre itself
                            s += 1
                        at_s[m] = s
                        if s >= end_s[m]:
                            going -= 1
                    for j in range(negatives):
                        if times[j] > 0:
                            for e in range(dim):
                                outof[home[j], e] = block[j * dim + e]
            if copied:  # hand over what changed
                for r in range(n_in[at]):
                    x = kept_in[at, r]
                    slots[lane, 0, x] = -1
                    for e in range(dim):
                        by_in[at * most_in + r, e] -= inputs[x, e]
                for r in range(n_out[at]):
                    y = kept_out[at, r]
                    slots[lane, 1, y] = -1
                    for e in range(dim):
                        by_out[at * most_out + r, e] -= outputs[y, e]

    return train


@njit(cache=True, nogil=True)
def add(inputs, outputs, kept_in, kept_out, held, by_in, by_out, teams, lane, lanes):
    """What the teams changed, summed into the tables in their order; this call takes every ``lanes``-th row."""
    for side in range(2):
        table, kept, by = (inputs, kept_in, by_in) if side == 0 else (outputs, kept_out, by_out)
        for at in range(teams):
            for r in range(held[side, at]):
                x = kept[at, r]
                if x % lanes == lane:
                    for e in range(table.shape[1]):
                        table[x, e] += by[at * kept.shape[1] + r, e]
