"""How long work reports on itself. The library never prints; whoever calls it may watch."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work: ``done`` of ``total`` steps, and the figures worth showing (loss, floor …)."""

    def __call__(self, done: int, total: int, **figures: float | str) -> None: ...


def silent(done: int, total: int, **figures: float | str) -> None:
    """Reports to nobody: the default everywhere."""
