"""The random stream: a counter, so that it belongs to the walk and not to whoever happens to sample it.

One SplitMix64 sequence (Steele, Lea & Flood 2014) a seed, cut into equal pieces: walk i owns the 2·length numbers that
begin at 2·length·i, two a step. No two walks share a number, any walk can be sampled alone, and threads, shards and
lanes have no say in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed: np.uint64, index: NDArray[np.int64], length: int, t: int, which: int) -> NDArray[np.uint64]:
    """Number ``which`` (0 or 1) of step ``t`` of the walks ``index``: uint64 (walks,). Step 0 draws the start."""
    at = index.astype(np.uint64) * np.uint64(2 * length) + np.uint64(2 * t + which)
    return mix(seed + at * GOLDEN)
