"""The compiled loops of ``sgns``.

Noise tokens are shared, because fetching their rows would cost more than the arithmetic. They are shared by tokens of
*different* walks: a team of segments is trained side by side; each round draws noise once and trains the next pair of
every member with it. Pairs of one window would all push a shared noise token in the same direction, which measurably
worsens the loss; pairs of different walks don't.

The rows for a round are known one round before and are prefetched: tables are larger than a core's own cache. Every
team has its own random streams, so the random numbers don't depend on which thread runs the team.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,call-arg"

from __future__ import annotations

import functools

import numpy as np
from numba import njit

from qcq.models.kernels.sgns_step import LANES, MOST, await_count, claim, combine, fetch, step

SEGMENT = 64  # centres in one piece of work
AHEAD = 4  # rows fetched before they are summed


def rows_a_team(length: int, team: int, window: int, negatives: int, ordered: bool) -> tuple[int, int]:
    """The most input rows and output rows that a team can touch."""
    centres = min(length, SEGMENT)
    return team * (centres + 2 * window), centres * (2 * window * (negatives + ordered) + team)


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
    """Walker's alias table as uint32 (n, 2): a threshold out of 2^32, and the token used above it.

    A token of weight zero is never drawn, not even if a random number equals its threshold.
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
    for at in range(few):  # only rounding errors are left on either stack
        table[stack[at], 0] = 4294967295 if weight[stack[at]] > 0 else 0
        table[stack[at], 1] = stack[at] if weight[stack[at]] > 0 else heaviest
    for at in range(many, n):
        table[stack[at], 0] = 4294967295
        table[stack[at], 1] = stack[at]
    return table


@njit(cache=True, nogil=True)
def begin(table, dim, seed, lane, lanes):
    """Uniform numbers in ±1/dim for the first ``dim`` columns of every ``lanes``-th block of rows."""
    scale = np.float32(1 / (2147483648.0 * dim))
    for block in range(lane, (len(table) + 1023) // 1024, lanes):
        for x in range(block * 1024, min(len(table), (block + 1) * 1024)):
            for e in range(dim):
                r = _mix(seed + np.uint64(x * dim + e) * _GOLDEN) >> _32
                table[x, e] = (np.float32(np.int64(r)) - np.float32(2147483648.0)) * scale


@njit(inline="always")
def _ask(address, line):
    for at in range(0, line, 64):
        fetch(address + at)


@functools.cache
def compiled(dim, negatives):
    """The loop that trains walks, for rows of ``dim`` floats and so many noise tokens per pair."""
    parts = -(-negatives // MOST)
    share = -(-negatives // parts)  # noise tokens per step
    line = dim * 4  # bytes per row

    @njit(cache=True, nogil=True)
    def train(
        tokens,  # int32 (walks, length)
        inputs,  # float32 (vocabulary, dim), on a cache line
        outputs,  # float32 (tables · vocabulary, dim), the same
        nothing,  # float32 (lanes, dim), the same: rows for updates with weight zero
        noise,  # uint32 (vocabulary, 2), alias table
        rates,  # float32 (2,), learning rate at the start and at the end of all training
        window,
        ordered,  # one output table for every place in the window
        team,  # segments that are trained side by side and share noise tokens
        seed,  # uint64
        first,  # teams trained before this call
        total,  # teams of all training
        n,  # teams of these walks
        start,  # this call trains teams from here …
        stop,  # … to here, if no other thread has them
        lane,
        taken,  # addresses of two counters: how many of them threads have begun …
        done,  # … and how many pieces of work are done
        copied,  # work on copies of the rows, and return the changes
        slots,  # int32 (lanes, 2, tables · vocabulary), all -1
        kept_in,  # int64 (teams, rows), which rows a team changed …
        kept_out,
        held,  # int64 (2, teams), how many
        by_in,  # float32 (teams · rows, dim), and by how much
        by_out,
    ):
        length = tokens.shape[1]
        size = np.uint64(len(noise))
        pieces = (length + SEGMENT - 1) // SEGMENT  # segments per walk
        segments = tokens.shape[0] * pieces
        most_in, most_out = kept_in.shape[1], kept_out.shape[1]
        n_in, n_out = held[0], held[1]
        inputs_at, outputs_at = np.int64(inputs.ctypes.data), np.int64(outputs.ctypes.data)
        into = np.int64(by_in.ctypes.data) if copied else inputs_at
        outof = np.int64(by_out.ctypes.data) if copied else outputs_at
        # Arrays whose address is taken must be the caller's: an array made here would be freed at its last use by name.
        nowhere = np.int64(nothing.ctypes.data) + lane * line
        drawn, following = np.zeros(negatives, dtype=np.int64), np.zeros(negatives, dtype=np.int64)
        rows = np.full(parts * share, nowhere, dtype=np.int64)  # addresses
        times = np.zeros(parts * LANES, dtype=np.float32)
        times[0] = 1
        walk = np.zeros(team, dtype=np.int64)  # of each member, and:
        left, right, last = (
            np.zeros_like(walk),
            np.zeros_like(walk),
            np.zeros_like(walk),
        )  # tokens in sight, centres' end
        centre, at_s, end_s = np.zeros_like(walk), np.zeros_like(walk), np.zeros_like(walk)
        live, x_row, y_row, y_token = np.zeros_like(walk), np.zeros_like(walk), np.zeros_like(walk), np.zeros_like(walk)
        while True:
            at = claim(taken)
            if at >= stop - start:
                break
            who = start + at
            if copied:
                n_in[at] = n_out[at] = 0
            state = _mix(seed + _mix(np.uint64(first + who) * _GOLDEN))
            noise_state = _mix(state + _GOLDEN)
            rate = rates[0] + (rates[1] - rates[0]) * np.float32((first + who) / total)
            for m in range(team):
                segment = who + m * n
                left[m] = right[m] = last[m] = at_s[m] = end_s[m] = 0
                centre[m] = -1
                if segment < segments:
                    walk[m], part = divmod(segment, pieces)
                    begins = part * SEGMENT
                    centre[m] = begins - 1
                    left[m] = max(0, begins - window)
                    right[m] = min(length, begins + SEGMENT + window)
                    while right[m] > left[m] and tokens[walk[m], right[m] - 1] < 0:  # pads are at the end
                        right[m] -= 1
                    last[m] = min(right[m], begins + SEGMENT)
                if copied:
                    for s in range(left[m], right[m]):
                        if s + AHEAD < right[m]:
                            _ask(inputs_at + np.int64(tokens[walk[m], s + AHEAD]) * line, line)
                        x = tokens[walk[m], s]
                        if slots[lane, 0, x] < 0:
                            slots[lane, 0, x] = at * most_in + n_in[at]
                            kept_in[at, n_in[at]] = x
                            combine(into + (at * most_in + n_in[at]) * line, inputs_at + np.int64(x) * line, dim, 0)
                            n_in[at] += 1
                else:
                    for s in range(left[m], min(right[m], left[m] + window + 1)):
                        _ask(into + np.int64(tokens[walk[m], s]) * line, line)
            for j in range(negatives):
                noise_state += _GOLDEN
                r = _mix(noise_state)
                y = np.int64(((r >> _32) * size) >> _32)
                following[j] = y if (r & _LOW) < np.uint64(noise[y, 0]) else np.int64(noise[y, 1])
            while True:
                alive = 0
                for m in range(team):
                    while at_s[m] >= end_s[m] and centre[m] + 1 < last[m]:  # to the next centre
                        centre[m] += 1
                        t = centre[m]
                        state += _GOLDEN
                        wide = 1 + np.int64(((_mix(state) >> _32) * np.uint64(window)) >> _32)
                        at_s[m], end_s[m] = max(left[m], t - wide), min(right[m], t + wide + 1)
                        if at_s[m] == t:
                            at_s[m] += 1
                        if not copied and t + window + 1 < right[m]:
                            _ask(into + np.int64(tokens[walk[m], t + window + 1]) * line, line)
                        if t + 1 < last[m] and not ordered:
                            _ask(outputs_at + np.int64(tokens[walk[m], t + 1]) * line, line)
                    if at_s[m] < end_s[m]:
                        live[alive] = m
                        alive += 1
                if alive == 0:
                    break
                table = np.int64(0)  # start of the table of this position; ordered teams have one member
                for i in range(alive):
                    m = live[i]
                    x, y = np.int64(tokens[walk[m], at_s[m]]), np.int64(tokens[walk[m], centre[m]])
                    y_token[i] = y
                    if ordered:
                        apart = at_s[m] - centre[m]
                        table = (apart + window - (1 if apart > 0 else 0)) * np.int64(size)
                        y += table
                    if copied:
                        x = np.int64(slots[lane, 0, x])
                        if slots[lane, 1, y] < 0:
                            slots[lane, 1, y] = at * most_out + n_out[at]
                            kept_out[at, n_out[at]] = y
                            combine(outof + (at * most_out + n_out[at]) * line, outputs_at + y * line, dim, 0)
                            n_out[at] += 1
                        y = np.int64(slots[lane, 1, y])
                    x_row[i], y_row[i] = into + x * line, outof + y * line
                    at_s[m] += 1
                    if at_s[m] == centre[m]:
                        at_s[m] += 1
                for j in range(negatives):
                    drawn[j] = following[j]
                    noise_state += _GOLDEN
                    r = _mix(noise_state)
                    y = np.int64(((r >> _32) * size) >> _32)
                    following[j] = y if (r & _LOW) < np.uint64(noise[y, 0]) else np.int64(noise[y, 1])
                    _ask(outputs_at + following[j] * line, line)
                for j in range(negatives):
                    y = drawn[j]
                    count = np.float32(1)
                    for i in range(alive):  # the predicted token isn't noise
                        if y_token[i] == y:
                            count = np.float32(0)
                    for h in range(j):  # drawn twice: one row, counted twice
                        if drawn[h] == y and count > 0:
                            count = np.float32(0)
                            times[h // share * LANES + 1 + h % share] += 1
                            drawn[j] = -1
                    times[j // share * LANES + 1 + j % share] = count
                    rows[j] = nowhere
                    if count > 0:
                        y += table
                        if copied:
                            if slots[lane, 1, y] < 0:
                                slots[lane, 1, y] = at * most_out + n_out[at]
                                kept_out[at, n_out[at]] = y
                                combine(outof + (at * most_out + n_out[at]) * line, outputs_at + y * line, dim, 0)
                                n_out[at] += 1
                            y = np.int64(slots[lane, 1, y])
                        rows[j] = outof + y * line
                i = 0
                while i < alive:
                    if i + 1 < alive and x_row[i] != x_row[i + 1] and y_row[i] != y_row[i + 1]:
                        xs, ys = (x_row[i], x_row[i + 1]), (y_row[i], y_row[i + 1])
                        step(xs, ys, rows, times, 0, rate, dim, share, 1)
                        for part in range(1, parts):
                            step(xs, ys, rows, times, part, rate, dim, share, 0)
                        i += 2
                    else:
                        x1, y1 = (x_row[i],), (y_row[i],)
                        step(x1, y1, rows, times, 0, rate, dim, share, 1)
                        for part in range(1, parts):
                            step(x1, y1, rows, times, part, rate, dim, share, 0)
                        i += 1
            if copied:  # return the changes
                for r in range(n_in[at]):
                    slots[lane, 0, kept_in[at, r]] = -1
                    if r + AHEAD < n_in[at]:
                        _ask(inputs_at + kept_in[at, r + AHEAD] * line, line)
                    combine(into + (at * most_in + r) * line, inputs_at + kept_in[at, r] * line, dim, -1)
                for r in range(n_out[at]):
                    slots[lane, 1, kept_out[at, r]] = -1
                    if r + AHEAD < n_out[at]:
                        _ask(outputs_at + kept_out[at, r + AHEAD] * line, line)
                    combine(outof + (at * most_out + r) * line, outputs_at + kept_out[at, r] * line, dim, -1)
            claim(done)

    @njit(cache=True, nogil=True)
    def add(inputs, outputs, kept_in, kept_out, held, by_in, by_out, teams, shares, taken, done):
        """Add the teams' changes to the tables, in the order of the teams; a piece is every ``shares``-th row."""
        while True:
            share = claim(taken)
            if share >= shares:
                break
            for side in range(2):
                table, kept, by = (inputs, kept_in, by_in) if side == 0 else (outputs, kept_out, by_out)
                to, of = np.int64(table.ctypes.data), np.int64(by.ctypes.data)
                for at in range(teams):
                    for r in range(held[side, at]):
                        x = kept[at, r]
                        if x % shares == share:
                            if r + AHEAD < held[side, at]:
                                _ask(to + kept[at, r + AHEAD] * line, line)
                            combine(to + x * line, of + (at * kept.shape[1] + r) * line, dim, 1)
            claim(done)

    @njit(cache=True, nogil=True)
    def rounds(
        tokens,
        inputs,
        outputs,
        nothing,
        noise,
        rates,
        window,
        ordered,
        team,
        seed,
        first,
        total,
        n,
        lane,
        lanes,
        room,  # teams that read the same state; 0: every team writes into the tables
        counters,  # int64 (1 + 2 · rounds,), zeros: pieces done, and pieces of each phase that threads have begun
        slots,
        kept_in,
        kept_out,
        held,
        by_in,
        by_out,
    ):
        """Train all teams. In each round threads train teams on the same state; then they add up what changed.

        A thread takes the next piece of a phase as soon as all pieces of earlier phases are done. So nobody waits for a
        thread that has no core, and pieces are done in an order that changes no result.
        """
        done = np.int64(counters.ctypes.data)
        taken, wanted = done, 0
        for start in range(0, n, room if room > 0 else n):
            stop = min(start + room, n) if room > 0 else n
            await_count(done, wanted)
            taken += 8
            train(
                tokens, inputs, outputs, nothing, noise, rates, window, ordered, team, seed, first, total, n, start,
                stop, lane, taken, done, room > 0, slots, kept_in, kept_out, held, by_in, by_out,
            )  # fmt: skip
            wanted += stop - start
            if room > 0:
                await_count(done, wanted)
                taken += 8
                add(inputs, outputs, kept_in, kept_out, held, by_in, by_out, stop - start, lanes, taken, done)
                wanted += lanes

    return rounds
