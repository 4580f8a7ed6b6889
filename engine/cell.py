"""A cell: one piece of work whose result depends on its settings, the cells it reads, and the data."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from qcq.support.progress import Progress

if TYPE_CHECKING:
    from qcq.engine.estimate import Estimate, Rates
    from qcq.engine.store import Store

Row: TypeAlias = dict[str, Any]
AnyCell = TypeVar("AnyCell", bound="Cell")


def unkeyed(default: Any) -> Any:
    """A field of a cell that its result does not depend on, so that it stays out of the key."""
    return field(default=default, kw_only=True, metadata={"keyed": False})


@dataclass(frozen=True, eq=False, kw_only=True)
class Cell(ABC):
    """One piece of work. A subclass is a frozen dataclass: its fields are its settings and the cells it reads.

    The key is a digest of the kind and its revision, the settings, the keys of the cells it reads, and the data. Two
    cells with the same key have the same result, byte for byte. So a result that is in the store is never computed
    again: not after a kill, in another study or in another process.

    Parameters
    ----------
    label : the name shown to people; not in the key.

    Class attributes
    ----------------
    revision : raised by the author when the result of this kind changes. ``tests/test_revisions.py`` watches ``code``.
    code : packages and modules whose code decides the result.
    decides : True for a cell that chooses settings of others.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False, kw_only=True)
    ... class Square(Cell):
    ...     number: int
    ...     def run(self, store, progress):
    ...         return {"square": self.number**2}
    >>> Square(number=2).key == Square(number=2, label="two").key != Square(number=3).key
    True
    """

    revision: ClassVar[int] = 1
    code: ClassVar[tuple[str, ...]] = ()
    decides: ClassVar[bool] = False

    label: str = unkeyed("")

    @abstractmethod
    def run(self, store: Store, progress: Progress) -> Row:
        """Do the work: write artefacts to ``store.file(self, name)`` and return the row of results.

        Raises
        ------
        QCQError : the work can't be done; cells that read this cell aren't run either, all others are.
        """

    def resolved(self: AnyCell, resolve: Callable[[Cell], Cell], store: Store) -> AnyCell:
        """This cell with its settings resolved, and those of the cells it reads, once these are finished.

        A cell may be planned before its settings are known, because another cell chooses them. Once resolved, it holds
        the settings themselves.
        """
        return replace(self, **{name: _map(value, resolve) for name, value in self._values() if _cells(value)})

    def estimate(self, store: Store, rates: Rates) -> Estimate | None:
        """The expected cost, or None where it isn't known before other cells are finished."""
        return None

    @property
    def weight(self) -> float:
        """Rough duration in arbitrary units: cells on the longest path through a plan run first."""
        return 1.0

    @property
    def gpus(self) -> int:
        """How many GPUs it uses, where there are any."""
        return 0

    @property
    def inputs(self) -> tuple[Cell, ...]:
        """The cells that it reads."""
        return tuple(cell for _, value in self._values() for cell in _cells(value))

    @cached_property
    def key(self) -> str:
        """Hexadecimal digest, 32 characters."""
        about = [_name(type(self)), self.revision, {name: plain(value) for name, value in self._values(keyed=True)}]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]

    def _values(self, keyed: bool = False) -> list[tuple[str, Any]]:
        every = [f for f in fields(self) if not keyed or f.metadata.get("keyed", True)]
        return [(f.name, getattr(self, f.name)) for f in every]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


def plain(value: Any) -> Any:
    """Settings as plain JSON values: cells become their keys, classes their name and revision.

    Raises
    ------
    TypeError : a value without such a form; its class needs a ``config``.
    """
    if isinstance(value, Cell):
        return value.key
    if isinstance(value, type):
        return [_name(value), getattr(value, "revision", 1)]
    if hasattr(value, "config"):  # a walk, a trainer
        return [_name(type(value)), getattr(value, "revision", 1), plain(value.config)]
    if is_dataclass(value):
        return [
            _name(type(value)),
            getattr(value, "revision", 1),
            {f.name: plain(getattr(value, f.name)) for f in fields(value)},
        ]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} can't be part of a key")


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _cells(value: Any) -> Iterator[Cell]:
    if isinstance(value, Cell):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _cells(each)


def _map(value: Any, resolve: Callable[[Cell], Cell]) -> Any:
    if isinstance(value, Cell):
        return resolve(value)
    if isinstance(value, list | tuple):
        return tuple(_map(each, resolve) for each in value)
    return value
