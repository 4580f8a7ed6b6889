"""The engine: a run is a plan of cells; an executor runs each cell once."""

from __future__ import annotations

from qcq.engine.cell import Cell, Row
from qcq.engine.executor import CellResult, Executor, Serial
from qcq.engine.plan import Outcome, Plan, Step
from qcq.engine.processes import Processes
from qcq.engine.ray import Ray, RayCluster
from qcq.engine.remote import make_store
from qcq.engine.store import Store
from qcq.errors import ArgumentError
from qcq.support.progress import Watch


def check_jobs(jobs: object) -> None:
    """ArgumentError for what is neither a number of processes nor a Ray cluster."""
    if not isinstance(jobs, RayCluster) and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
        what = f"jobs takes a number of processes from 1 on, or a RayCluster, given {type(jobs).__name__} {jobs!r}"
        raise ArgumentError(f"{what}; for all cores give os.cpu_count()")


def make_executor(store: Store, jobs: int | RayCluster = 1, watch: Watch | None = None) -> Executor:
    """This process for one job, as many processes as jobs, or a Ray cluster."""
    if isinstance(jobs, RayCluster):
        return Ray(store, jobs, watch)
    return Serial(store, watch) if jobs == 1 else Processes(store, jobs, watch)


__all__ = [
    "Cell",
    "CellResult",
    "Executor",
    "Outcome",
    "Plan",
    "Processes",
    "Ray",
    "RayCluster",
    "Row",
    "Serial",
    "Step",
    "Store",
    "check_jobs",
    "make_executor",
    "make_store",
]
