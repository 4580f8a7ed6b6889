"""What runs the cells. An executor has two methods; only these differ between one process, several and a cluster."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from qcq.engine.cell import Cell
from qcq.engine.store import Store
from qcq.errors import EngineError, QCQError, TrainingError
from qcq.support.progress import Progress, Watch
from qcq.support.reproducible import reproducible

OFTEN = 0.2  # seconds between two progress messages of another process


@dataclass(frozen=True)
class CellResult:
    """A cell that has ended.

    Attributes
    ----------
    cell : the cell.
    error : why it has no result; None where it has one.
    """

    cell: Cell
    error: QCQError | None = None


class Executor(ABC):
    """Runs cells whose inputs are finished. Used as a context manager, so that everything it started is stopped.

    Attributes
    ----------
    slots : how many cells it runs at a time.
    """

    slots: int = 1

    @abstractmethod
    def submit(self, cell: Cell, redo: bool = False) -> None:
        """Take a cell whose inputs are in the store; at most ``slots`` cells before :meth:`wait` returns one.

        ``redo`` : run it again if it is finished.
        """

    @abstractmethod
    def wait(self) -> CellResult:
        """Wait for the next cell that ends."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop what is still running."""
        return None  # most have nothing to stop


def work(cell: Cell, store: Store, progress: Progress, redo: bool = False) -> CellResult:
    """Run one cell, on one BLAS thread."""
    try:
        with reproducible():
            store.perform(cell, lambda: cell.run(store, progress), redo=redo)
    except QCQError as error:
        return CellResult(cell, error)
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename is not None else ""
        return CellResult(cell, EngineError(f"{cell.label}: {where}{error.strerror or error}"))
    except MemoryError:
        return CellResult(cell, TrainingError(f"{cell.label}: not enough memory on this machine"))
    return CellResult(cell)


def work_for(
    cell: Cell, store: Store, tell: Callable[[tuple[int, int, dict[str, float | str]]], object], redo: bool = False
) -> tuple[str, QCQError | str | None]:
    """Run one cell for another process.

    Parameters
    ----------
    tell : sends progress there (done, total, figures), at most every ``OFTEN`` seconds.

    Returns
    -------
    ``done`` and the cell's error or None; or ``crashed`` and the text of a bug, which ends the run.
    """
    last = 0.0

    def told(done: int, total: int, **figures: float | str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= OFTEN:
            last = now
            tell((done, total, figures))

    try:
        return "done", work(cell, store, told, redo).error
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


class Serial(Executor):
    """One cell after the other, in this process.

    Parameters
    ----------
    store : where results go.
    watch : receives the progress.
    """

    def __init__(self, store: Store, watch: Watch | None = None) -> None:
        self.store, self.watch = store, watch or Watch()
        self._waiting: deque[tuple[Cell, bool]] = deque()

    def submit(self, cell: Cell, redo: bool = False) -> None:
        self._waiting.append((cell, redo))

    def wait(self) -> CellResult:
        cell, redo = self._waiting.popleft()
        with self.watch.progress(cell.label) as progress:
            return work(cell, self.store, progress, redo)
