"""How many threads a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

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


_TURN = RLock()


@contextmanager
def torch_alone(threads: int = 1) -> Iterator[None]:
    """torch for one Python thread at a time, with so many threads of its own: it has one random state, and one number
    of threads, for the whole process.

    Most steps are so small that threads mostly busy-wait. With another job on the machine, two threads are ten times
    slower than one. One thread also gives the same figures on any number of cores.
    """
    import torch

    with _TURN:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


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
