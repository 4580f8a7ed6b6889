"""Names for interchangeable parts. A registry is a plain dict; this module only looks names up."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar

from qcq.errors import UnknownNameError

T = TypeVar("T")


def find(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The part called ``name``: a registered one, or code outside the package, written as ``package.module:Class``.

    Examples
    --------
    >>> find("walk", "a", {"a": 1})
    1
    """
    if name in registry:
        return registry[name]
    module, _, attribute = name.partition(":")
    if attribute:
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UnknownNameError(kind, f"{name} ({error})", registry) from None
    raise UnknownNameError(kind, name, registry)
