"""How many threads a process may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# The variables that numba, OpenMP and the usual BLAS libraries read when they are loaded.
THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
)


def n_threads() -> int:
    """``NUMBA_NUM_THREADS`` if it is set, else one thread per core that this process may use."""
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    if given.isdecimal() and len(given) < 9 and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: where a step is so small that threads mostly busy-wait. With another job on the machine, two
    threads are ten times slower than one. One thread also gives the same figures on any number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Limited:
    """Blocks in which BLAS has one thread; several Python threads may be in one at once, and leave in any order."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.limits = ExitStack()
        self.libraries: list[ThreadpoolController] = []

    def enter(self) -> None:
        with self.lock:
            found = _blas(len(sys.modules), next(reversed(sys.modules)))
            if found not in self.libraries:
                self.limits.enter_context(found.limit(limits=1))
                self.libraries.append(found)
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:  # each has the threads again that it had before the first block
                self.limits.close()
                self.libraries.clear()


_limited = _Limited()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS on one thread: with more, sums are rounded in another order, so results would hang on the machine."""
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, which isn't limited if it is loaded in the block)

    _limited.enter()
    try:
        yield
    finally:
        _limited.leave()


@lru_cache(maxsize=1)
def _blas(modules: int, last: str) -> ThreadpoolController:
    """The BLAS libraries of this process, looked for again when a module was imported: it may bring one.

    Then there are more ``modules``, or another one is the ``last``, where one went in between.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


ROOM = 1.5 * 2**30  # bytes that a process needs with torch, numba and a medium data set loaded


def affordable_jobs() -> int:
    """Number of processes for which this machine has cores and free memory, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # a system without this information
        return cores
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
    return max(1, min(cores, int(free / ROOM))) if free else cores
