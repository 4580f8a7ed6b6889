"""Ray, started or reached without a word to anyone."""

from __future__ import annotations

import os
import sys

QUIET = {
    "USAGE_STATS_ENABLED": "0",  # nothing is sent to anyone
    "ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "DEDUP_LOGS_SKIP_REGEX": ".",  # its remarks on dead workers would be printed among our results
}


def connect(cpus: int, address: str = "") -> None:
    """Start a local cluster of so many CPUs, or connect to the one at the address.

    Raises
    ------
    OSError, RuntimeError, ValueError : Ray's own, if it can't.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(f"RAY_{name}", value)
    import ray

    if address:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    else:
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def machines() -> int:
    """How many machines with a CPU the Ray cluster has that this process belongs to; 1 without one."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 1
    return max(1, sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes()))
