"""The engine: a run is a plan of cells; an executor runs each cell once."""

from __future__ import annotations

from qcq.engine.cell import Cell, Row
from qcq.engine.executor import CellResult, Executor, Serial
from qcq.engine.plan import Outcome, Plan, Step
from qcq.engine.processes import Processes
from qcq.engine.store import Store
from qcq.support.progress import Watch


def make_executor(store: Store, jobs: int = 1, watch: Watch | None = None) -> Executor:
    """This process for one job, otherwise as many processes as jobs."""
    return Serial(store, watch) if jobs == 1 else Processes(store, jobs, watch)


__all__ = [
    "Cell",
    "CellResult",
    "Executor",
    "Outcome",
    "Plan",
    "Processes",
    "Row",
    "Serial",
    "Step",
    "Store",
    "make_executor",
]
