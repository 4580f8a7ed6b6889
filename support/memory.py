"""How much memory a stage may hold: a bound for the whole process and those it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from qcq.errors import ConfigError

VARIABLE = "QCQ_MAX_MEMORY"  # worker processes inherit it


def set_bound(text: str | None) -> None:
    """Bound the stages of this process and its workers; None changes nothing.

    Raises
    ------
    ConfigError : no amount of memory.
    """
    if text is not None:
        os.environ[VARIABLE] = str(amount(text))


def bound() -> int | None:
    """The bound in bytes, or None.

    Raises
    ------
    ConfigError : the environment variable ``QCQ_MAX_MEMORY`` is no amount of memory.
    """
    text = os.environ.get(VARIABLE)
    return amount(text, VARIABLE) if text else None


@contextmanager
def scoped() -> Iterator[None]:
    """A bound that is set inside ends with the block."""
    held = os.environ.get(VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if held is not None:
            os.environ[VARIABLE] = held


@contextmanager
def unbounded() -> Iterator[None]:
    """Without the bound, for a trial that says what the whole will cost."""
    held = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        if held is not None:
            os.environ[VARIABLE] = held


def shown(n: float) -> str:
    """A number of bytes for a message.

    Examples
    --------
    >>> shown(3 * 2**29), shown(2**20)
    ('1.5 GiB', '1.0 MiB')
    """
    return f"{n / 2**30:,.1f} GiB" if n >= 2**29 else f"{n / 2**20:,.1f} MiB"


def amount(text: str, name: str = "--max-memory") -> int:
    """``2G``, ``500M`` or plain bytes, as a number of bytes.

    Examples
    --------
    >>> amount("2G"), amount("500k"), amount("4096")
    (2147483648, 512000, 4096)
    """
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isdecimal() or len(digits) > 18 or int(digits) == 0:
        raise ConfigError(f"{name} {text!r}: write a number of bytes, or one with K, M or G, for example 2G")
    return int(digits) * unit
