"""Typed, one-line errors: what is wrong, where, the value, what to do.

Every error the library raises on purpose is a :class:`QCQError`; the command line prints it as one line and exits with
exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NEAR = 0.6  # the least share of common letters of a name that was meant


class QCQError(Exception):
    """Base of every error that qcq raises on purpose. Its text is one line."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[QCQError], args: tuple[Any, ...], state: dict[str, Any]) -> QCQError:
    """An error from another process, made without running its constructor again."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class DataError(QCQError):
    """A data set that can't be read.

    Parameters
    ----------
    what : what is wrong, in a few words.
    file, row, column : where; rows count from 1 as in an editor, the header included.
    value : the offending value, shown in Python's notation and cut at 60 characters.
    fix : what to do about it.

    Examples
    --------
    >>> str(DataError("neither 0 nor 1", file="i.csv", row=3, column="correct", value="2", fix="write 0 or 1"))
    "i.csv, row 3, column correct: neither 0 nor 1: '2'; write 0 or 1"
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        column: str | None = None,
        value: object = None,
        fix: str | None = None,
    ) -> None:
        self.file, self.row, self.column, self.value = file, row, column, value
        where = [str(file)] if file is not None else []
        where += [f"row {row}"] if row is not None else []
        where += [f"column {column}"] if column is not None else []
        text = f"{', '.join(where)}: {what}" if where else what
        if value is not None:
            shown = repr(value)
            text += f": {shown if len(shown) <= 60 else shown[:57] + '...'}"
        super().__init__(" ".join((text + (f"; {fix}" if fix else "")).split("\n")))


class GraphError(QCQError):
    """A graph that can't be built, or isn't what an operation needs."""


class WalkError(QCQError):
    """Walks that can't be sampled on this graph with these settings."""


class CorpusError(QCQError):
    """A corpus that can't be read, or that belongs to another graph."""


class ChainError(QCQError):
    """No exact chain or floor for this walk or objective; the text says why. No approximation replaces it."""


class TrainingError(QCQError):
    """Training that can't start or had to stop (divergence, NaN)."""


class EmbeddingError(QCQError):
    """Vectors of the wrong shape, with NaN or infinity, or without the question asked for."""


class StoreError(QCQError):
    """A store of finished cells that can't be read."""


class EngineError(QCQError):
    """What a process can't do: a cell whose process died or didn't get it, data in a process forked too late."""


class EvaluationError(QCQError):
    """A task that can't be scored on this data set."""


class LeakageError(QCQError):
    """Responses of students outside the training part were passed to something that learns."""


class ConfigError(QCQError):
    """A misspelt, mistyped or impossible setting."""


class ArgumentError(QCQError, TypeError):
    """An argument of another type than a function takes."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """At most three known names that are written nearly like ``name``, the nearest first.

    Examples
    --------
    >>> nearest("fraction", ["fractions", "decimals"]), nearest("walk", ["akt"])
    (['fractions'], [])
    """
    return difflib.get_close_matches(name, list(known), n=3, cutoff=NEAR)


class UnknownNameError(ConfigError, KeyError):
    """A name that is in no registry. The text has the nearest valid names.

    Examples
    --------
    >>> str(UnknownNameError("walk", "qcp", ["qcq", "node2vec"]))
    "unknown walk 'qcp'; did you mean qcq? (known: node2vec, qcq)"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known, name = sorted(known), str(name)
        section, dot, _ = name.rpartition(".")
        shared = section + dot if all(each.startswith(section + dot) for each in known) else ""  # would all look alike
        keys = [each.removeprefix(shared) for each in known]
        near = [shared + each for each in nearest(name.removeprefix(shared), keys)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        listed = f"known: {', '.join(known)}" if len(known) <= 30 else f"{len(known):,} are known"
        super().__init__(f"unknown {kind} {name!r}{hint} ({listed})")

    def __str__(self) -> str:  # a KeyError's would put it in quotes
        return str(self.args[0])
