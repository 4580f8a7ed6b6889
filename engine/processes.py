"""Cells in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from qcq.engine.cell import Cell
from qcq.engine.executor import CellResult, Executor, work_for
from qcq.engine.store import Store
from qcq.errors import EngineError
from qcq.support.progress import Progress, Watch
from qcq.support.threads import THREAD_VARIABLES

_CHECKED = 0.5  # seconds between two checks that the parent is alive


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    cell: Cell | None = None
    drawn: ExitStack | None = None
    progress: Progress | None = None


class Processes(Executor):
    """``jobs`` processes, each running one cell at a time. The number of processes doesn't change any result.

    Workers are spawned, not forked, each with an equal share of the cores. A worker that dies (killed, out of memory)
    is reported as the error of its cell and replaced; the other cells go on.

    Parameters
    ----------
    store : where results go; its data are sent to each worker once.
    jobs : how many processes.
    watch : receives the progress.
    """

    def __init__(self, store: Store, jobs: int, watch: Watch | None = None) -> None:
        self.store, self.slots, self.watch = store, jobs, watch or Watch()
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._ready: list[CellResult] = []

    def submit(self, cell: Cell, redo: bool = False) -> None:
        worker = next((w for w in self._workers if w.cell is None), None)
        if worker is None:
            worker = self._start()
        worker.cell, worker.drawn = cell, ExitStack()
        worker.progress = worker.drawn.enter_context(self.watch.progress(cell.label))
        try:
            worker.pipe.send((cell, redo))
        except (OSError, EOFError):
            self._ready.append(self._buried(worker))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            worker.cell = None
            worker.drawn.close()
            self._ready.append(
                CellResult(cell, EngineError(f"{cell.label}: can't be sent to a process ({error}); jobs=1"))
            )

    def wait(self) -> CellResult:
        while not self._ready:
            busy = {w.pipe: w for w in self._workers if w.cell is not None}
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):
                    self._ready.append(self._buried(worker))
                    continue
                if kind == "progress":
                    assert worker.progress is not None
                    worker.progress(*content[:2], **content[2])
                    continue
                assert worker.cell is not None
                assert worker.drawn is not None
                worker.drawn.close()
                done = CellResult(worker.cell, content)
                worker.cell = None
                if kind == "crashed":
                    raise RuntimeError(f"{done.cell.label}: {content}")
                self._ready.append(done)
        return self._ready.pop(0)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.slots)
        process = self._context.Process(target=_serve, args=(theirs, self.store, os.getpid()), daemon=True)
        with _environment({name: str(threads) for name in THREAD_VARIABLES}):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _buried(self, worker: _Worker) -> CellResult:
        """A worker died: only its current cell is lost."""
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        assert worker.cell is not None
        assert worker.drawn is not None
        worker.drawn.close()
        code = worker.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; not enough memory for so many jobs?" if code == -signal.SIGKILL else ""
        return CellResult(worker.cell, EngineError(f"{worker.cell.label}: its process ended ({how}){hint}"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            if worker.drawn is not None:
                worker.drawn.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that a process started in the block inherits."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, store: Store, parent: int) -> None:
    """The life of a worker: one cell after the other, until the pipe is closed or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch_over, args=(parent,), daemon=True).start()
    while True:
        try:
            cell, redo = pipe.recv()
        except (EOFError, OSError):
            return
        answer = work_for(cell, store, lambda progress: pipe.send(("progress", progress)), redo)
        try:
            pipe.send(answer)
        except OSError:
            return


def _watch_over(parent: int) -> None:
    """End this process when the parent is gone, even in the middle of a cell: its result is no longer needed."""
    while os.getppid() == parent:
        time.sleep(_CHECKED)
    os._exit(1)
