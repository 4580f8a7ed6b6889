"""The environment of a result: versions, processor, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("qcq", "numpy", "scipy", "numba", "gensim", "torch", "networkx", "polars", "scikit-learn", "plotly")


def environment() -> dict[str, Any]:
    """Versions, processor, threads, the command and, in a git checkout, the revision."""
    root = Path(__file__).resolve().parent.parent
    git = None
    if (root / ".git").exists():
        with suppress(OSError):  # no git on this machine
            found = subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607  (the user's)
                capture_output=True,
                text=True,
            )
            git = found.stdout.strip() or None
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "threads": os.cpu_count(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
        "git": git,
        "command": " ".join(["qcq", *sys.argv[1:]]),
    }


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # gensim, on a Python version without a wheel
        return None
