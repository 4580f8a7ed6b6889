"""How long work reports progress. The library never prints; the caller may watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work: ``done`` of ``total`` steps, and the figures worth showing (loss, floor …)."""

    def __call__(self, done: int, total: int, **figures: float | str) -> None: ...


def silent(done: int, total: int, **figures: float | str) -> None:
    """Reports nothing: the default everywhere."""


class Watch:
    """Watches a whole experiment. This one sees nothing; the command line's draws it on the terminal."""

    def say(self, line: str) -> None:
        """One finished piece of work, in one line."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A piece of long work called ``label``, while the block lasts."""
        yield silent
