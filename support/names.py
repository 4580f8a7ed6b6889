"""Identifiers of any type as text: the same text, whether they come from a table, a graph or a list."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import numpy as np

from qcq.errors import DataError


def named(value: Any) -> str | None:
    """A cell of any type as a name or as the text of a number; None for a missing value.

    Whole floats are written without ``.0``. Floats too large for single steps have lost digits: they keep an exponent,
    by which :func:`qcq.data.checks.converted` knows them. Bytes are text in UTF-8.

    Raises
    ------
    DataError : bytes that aren't UTF-8, or several values in the place of one.

    Examples
    --------
    >>> named(7.0), named(2.5), named(True), named(float("nan")), named(2.0**53), named(b"q1")
    ('7', '2.5', '1', None, '9.007199254740992e+15', 'q1')
    """
    if isinstance(value, str):
        return str(value)
    if getattr(value, "ndim", None) == 0 and not isinstance(value, np.generic) and hasattr(value, "item"):
        value = value.item()  # an array or a tensor of one number
    if missing(value):
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise DataError("a name in bytes, which isn't UTF-8", value=repr(value), fix="give text") from None
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, list | set | frozenset | dict) or getattr(value, "ndim", 0) > 0:
        raise DataError("several values in the place of one name", value=repr(value)[:60], fix="give text or a number")
    if isinstance(value, float | np.floating):
        large = abs(float(value)) >= exact(value)
        return np.format_float_scientific(value, trim="-") if large else re.sub(r"\.0+$", "", str(value))
    if isinstance(value, Decimal):
        return re.sub(r"\.0+$", "", str(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def missing(value: Any) -> bool:
    """Whether a cell is None, NaN, NaT or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return getattr(value, "ndim", 0) == 0 and bool(value != value)


def exact(kind: Any) -> int:
    """The whole number from which on floats of a type, or of a value's type, skip some: 2^53 for 64 bits."""
    return 2 ** int(np.finfo(kind).nmant + 1)
