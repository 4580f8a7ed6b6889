"""The compiled walk loop."""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True)
def _mix(x):  # splitmix64's finaliser
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _below(x, n):  # uniform on 0…n-1 from the upper 32 bits of x
    return np.int64(((x >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@njit(cache=True, parallel=True)
def walk_questions(q_ptr, q_to, c_ptr, c_to, starts, length, keep, seed):
    n = len(starts)
    n_questions = len(q_ptr) - 1
    width = 2 * length - 1 if keep else length
    out = np.full((n, width), -1, dtype=np.int32)
    golden = np.uint64(0x9E3779B97F4A7C15)
    for i in prange(n):
        state = _mix(seed + _mix(np.uint64(i) * golden))
        q = starts[i]
        out[i, 0] = q
        for t in range(1, length):
            lo = q_ptr[q]
            degree = q_ptr[q + 1] - lo
            if degree == 0:
                break
            state += golden
            c = q_to[lo + _below(_mix(state), degree)]
            state += golden
            lo = c_ptr[c]
            q = c_to[lo + _below(_mix(state), c_ptr[c + 1] - lo)]
            if keep:
                out[i, 2 * t - 1] = n_questions + c
                out[i, 2 * t] = q
            else:
                out[i, t] = q
    return out
