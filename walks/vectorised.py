"""The walk loop in numpy: the compiled loop's arithmetic, step for step, so the bytes are the same.

For jobs so small that importing (or filling) a compiler's cache would take longer than the walks themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.walks.counter import draw
from qcq.walks.step import HALF, NONE, Ints, Step, part


def walk(
    step: Step,
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
    begin, ways, move = (part(type(step), name) for name in ("begin", "ways", "step"))
    place = begin(step, starts.astype(np.uint64))
    out[:, 0] = starts
    out[:, 1:] = -1
    row = np.flatnonzero(ways(step, place) > 0)  # a question without a way out is a walk of its own
    if length > 1:
        counts[0] += len(starts) - len(row)
    index, place = index[row], place[row]
    first, c = place, np.full(len(place), NONE)
    column = np.zeros(len(place), dtype=np.int64)
    for t in range(1, length):
        x, y = (draw(seed, index, length, t, which) for which in (0, 1))
        place, c = move(step, place, c, first, x, y, counts)
        if keep:
            went = c != NONE
            out[row[went], column[went] + 1] = c[went] + np.uint64(n_questions)
            column += 1 + went
        else:
            column += 1
        out[row, column] = place >> HALF
