"""Typed, one-line errors for arguments of another type than a public function takes."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, TypeVar

from qcq.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])

# What a plain kind of argument is, and how it is called in an error.
PLAIN: dict[str, tuple[Any, str]] = {
    "path": ((str, os.PathLike), "a path (str or Path)"),
    "int": (Integral, "a whole number"),
    "list": (Iterable, "a list"),
    "mapping": (Mapping, "a dict"),
}
# How to get the thing that a class stands for.
ADVICE = {
    "KnowledgeGraph": "make one with KnowledgeGraph.from_dataset(data)",
    "Dataset": "read one with qcq.read(...)",
    "TrainingData": "write TrainingData(graph, walk)",
    "Embeddings": "load some with Embeddings.load(path)",
    "KeyedVectors": "give gensim's, for example model.wv",
    "Partition": "make one with Partition.make(data)",
    "Run": "open one with Run.open(path)",
    "Config": "write Config(data=...), or Config.load(path)",
    "WalkStrategy": 'take one from the registry, as WALKS["qcq"]()',
    "Graph": "give a networkx graph",
    "HeteroData": "give torch_geometric.data.HeteroData",
}


def check(function: str, name: str, value: object, kind: str) -> None:
    """ArgumentError if ``value`` isn't of ``kind``: a key of ``PLAIN``, or the name of a class or of one above it.

    Classes go by their names, so that this module needs none of them.

    Examples
    --------
    >>> check("sample", "seed", 3, "int")
    >>> check("sample", "seed", "x", "int")
    Traceback (most recent call last):
    qcq.errors.ArgumentError: sample: seed takes a whole number, given str 'x'
    """
    if kind in PLAIN:
        types, said = PLAIN[kind]
        fits = isinstance(value, types) and not isinstance(value, {"list": str, "int": bool}.get(kind, ()))
    else:
        said = f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
        fits = any(each.__name__ == kind for each in type(value).__mro__)
    if not fits:
        shown = repr(value) if isinstance(value, str | int | float | None) else ""
        advice = f"; {ADVICE[kind]}" if kind in ADVICE else ""
        given = f"{type(value).__name__} {shown}".strip()
        raise ArgumentError(f"{function}: {name} takes {said}, given {given[:60]}{advice}")


def _taken(signature: inspect.Signature, given: Mapping[str, Any]) -> str:
    """What a function takes, for a call that names something else."""
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    other = next((name for name in given if name not in signature.parameters), None)
    if other is not None and "sections" in names:  # the settings of parts have a place of their own
        part = next((given[key] for key in ("trainer", "walk") if given.get(key)), "NAME")
        return f'a setting of {part} is given as sections={{"{part}": {{"{other}": {given[other]!r}}}}}'
    return f"it takes {', '.join(names)}"


def takes(**kinds: str) -> Callable[[F], F]:
    """Check the named arguments of a public function by :func:`check`, where they are given; whole numbers become int.

    A call that the function can't take is an ArgumentError with its name.
    """

    def wrap(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise ArgumentError(f"{function.__qualname__}: {error}; {_taken(signature, kwargs)}") from None
            given = bound.arguments
            for name, kind in kinds.items():
                if name in given:
                    check(function.__qualname__, name, given[name], kind)
                    if kind == "int":
                        given[name] = int(given[name])  # numpy's whole numbers are in no JSON
            return function(*bound.args, **bound.kwargs)

        checked.takes = kinds  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return wrap
