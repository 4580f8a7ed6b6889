"""What a piece of work cost: seconds and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Filled in when the ``with`` block ends.

    Attributes
    ----------
    seconds : wall-clock time.
    peak_rss_mb : highest resident memory of this process during the block, in MiB. Where the kernel can't reset its
        high-water mark (anything but Linux), the highest since the process began.
    """

    seconds: float = 0.0
    peak_rss_mb: float = 0.0


def _peak_mb() -> float:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block.

    Examples
    --------
    >>> with measured() as cost:
    ...     _ = sum(range(1000))
    >>> cost.seconds >= 0 and cost.peak_rss_mb > 0
    True
    """
    with suppress(OSError):  # not Linux, or a locked-down container: the mark stays that of the whole process
        _CLEAR.write_text("5")  # resets VmHWM (man 5 proc)
    cost, start = Cost(), time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds, cost.peak_rss_mb = time.perf_counter() - start, _peak_mb()
