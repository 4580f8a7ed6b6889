"""Names for interchangeable parts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from inspect import isabstract
from typing import TypeVar

from qcq.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(dict[str, T]):
    """Parts by name. An unknown name is answered with the nearest ones.

    Examples
    --------
    >>> Registry("walk", {"qcq": 1})["qcp"]
    Traceback (most recent call last):
    qcq.errors.UnknownNameError: unknown walk 'qcp'; did you mean qcq? (known: qcq)
    """

    def __init__(self, kind: str, parts: Mapping[str, T]) -> None:
        super().__init__(parts)
        self.kind = kind

    def __missing__(self, name: str) -> T:
        raise UnknownNameError(self.kind, str(name), self)


class Labelled(Registry[T]):
    """A registry in which ``name@label`` stands for the part ``name``: one of several uses of it in a comparison.

    Examples
    --------
    >>> parts = Labelled("task", {"kt": 1})
    >>> parts["kt@wide"], "kt@wide" in parts, "kx@wide" in parts, list(parts)
    (1, True, False, ['kt'])
    """

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).partition("@")[0])

    def __missing__(self, name: str) -> T:
        part, at, _ = str(name).partition("@")
        return self[part] if at else super().__missing__(name)


def find(kind: str, name: str, registry: Mapping[str, T], base: type | None = None) -> T:
    """The part called ``name``: a registered one, or code outside the package, written as ``package.module:Class``.

    With ``base``, outside code has to be a class under it of which objects can be made.

    Examples
    --------
    >>> find("walk", "a", {"a": 1})
    1
    """
    if name in registry:
        return registry[name]
    module, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise UnknownNameError(kind, name, registry)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # outside code may raise anything while it is imported
        raise UnknownNameError(kind, f"{name} ({' '.join(str(error).split())})", registry) from error
    if base is not None and not (isinstance(found, type) and issubclass(found, base) and not isabstract(found)):
        raise ConfigError(f"{kind} {name!r}: not a class that derives from {base.__name__}, with all of its methods")
    return found
