"""Processes forked from one in which polars has threads: the threads aren't in them, and polars waits for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qcq.errors import EngineError

_TASKS = Path("/proc/self/task")  # Linux names the threads of a process here


class _Fork:
    """What the last fork was of."""

    threads = False  # the parent's, just before
    lost = False  # in this process


def _threads() -> bool:
    """Whether polars has its threads; where no system names them, whether it is loaded at all."""
    if "polars" not in sys.modules:
        return False
    return not _TASKS.is_dir() or any(map(_is_polars, list(_TASKS.iterdir())))


def _is_polars(task: Path) -> bool:
    try:
        return (task / "comm").read_text().startswith("polars-0")
    except OSError:  # the thread has just ended
        return False


def _before() -> None:
    _Fork.threads = _threads()


def _in_child() -> None:
    _Fork.lost |= _Fork.threads


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_child=_in_child)


def refuse_forked() -> None:
    """Before work that polars does with its threads.

    Raises
    ------
    EngineError : this process was forked from one in which polars has threads.
    """
    if _Fork.lost:
        raise EngineError(
            "this process was forked from one that had used polars, which would wait for ever here; read before the "
            "fork, or start processes by multiprocessing.get_context('spawn')"
        )
