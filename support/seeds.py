"""One seed in, independent named streams out.

Every consumer of random numbers has its own named stream, so a new consumer doesn't change another's numbers.
"""

from __future__ import annotations

import hashlib
from numbers import Integral

import numpy as np

from qcq.errors import ArgumentError


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream called ``path`` under ``seed``: the first bits of SHA-256 over both.

    Raises
    ------
    ArgumentError : a seed that is no whole number; half a seed would be another one's.

    Examples
    --------
    >>> derive(0, "walks") == derive(0, "walks"), derive(0, "walks") == derive(0, "masks")
    (True, False)
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ArgumentError(f"seed takes a whole number, given {type(seed).__name__} {str(seed)[:40]}")
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for the stream called ``path`` under ``seed``."""
    return np.random.default_rng(derive(seed, *path))
