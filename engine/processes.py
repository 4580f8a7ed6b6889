"""Cells in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from qcq.engine.cell import Cell
from qcq.engine.executor import CellResult, Executor, work_for
from qcq.engine.store import Store
from qcq.errors import EngineError, QCQError
from qcq.support.progress import Progress, Watch
from qcq.support.threads import THREAD_VARIABLES

_CHECKED = 0.5  # seconds between two checks that the parent is alive
_UNGUARDED = 75  # exit code of a worker whose script would have run again in it


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    begun: bool = False
    stored: bool = False  # it has the store
    cell: Cell | None = None
    redo: bool = False
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
        worker.cell, worker.redo, worker.drawn = cell, redo, ExitStack()
        worker.progress = worker.drawn.enter_context(self.watch.progress(cell.label))
        if worker.begun:
            self._give(worker)

    def wait(self) -> CellResult:
        while not self._ready:
            busy = {w.pipe: w for w in self._workers if w.cell is not None}
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):
                    kind, content = "ended", None
                if (result := self._heard(worker, kind, content)) is not None:
                    self._ready.append(result)
        return self._ready.pop(0)

    def _heard(self, worker: _Worker, kind: str, content: Any) -> CellResult | None:
        """Take in what a worker said; its cell's result if it has one."""
        cell = worker.cell
        assert cell is not None
        assert worker.progress is not None
        match kind:
            case "ended":
                return self._buried(worker)
            case "begun":
                worker.begun = True
                self._give(worker)
                return None
            case "progress":
                worker.progress(*content[:2], **content[2])
                return None
            case "crashed":
                raise RuntimeError(f"{cell.label}: {content}")
            case "unread":
                why = f"another process can't read it ({content}); define its classes in a module, or use jobs=1"
                content = EngineError(f"{cell.label}: {why}")
        return self._freed(worker, content)

    def _freed(self, worker: _Worker, error: QCQError | None) -> CellResult:
        """The result of a worker's cell; the worker may have another one."""
        cell, worker.cell = worker.cell, None
        assert cell is not None
        assert worker.drawn is not None
        worker.drawn.close()
        return CellResult(cell, error)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.slots)
        # The store isn't among the arguments: if a process ends before it has read long ones, start() waits for ever.
        process = self._context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        with _environment({name: str(threads) for name in THREAD_VARIABLES}):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _give(self, worker: _Worker) -> None:
        """Send a worker its cell; the first time, the store before it."""
        cell = worker.cell
        assert cell is not None
        try:
            if not worker.stored:
                worker.pipe.send(self.store)
                worker.stored = True
            worker.pipe.send((cell, worker.redo))
        except OSError:  # it has ended; wait() finds that too
            return
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            why = EngineError(f"{cell.label}: can't be sent to another process ({error}); use jobs=1")
            self._ready.append(self._freed(worker, why))

    def _buried(self, worker: _Worker) -> CellResult:
        """A worker died: only its current cell is lost, if it had begun."""
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        cell = self._freed(worker, None).cell
        code = worker.process.exitcode or 0
        if code == _UNGUARDED:
            raise EngineError(
                f"{_script()}: each process imports this script first, and would begin its work again; put that work "
                "under if __name__ == '__main__':, or use jobs=1"
            )
        if code > 0 and not worker.begun:
            raise EngineError(
                f"a process ended before it began (exit code {code}); it imports {_script()}, and what it said then "
                "is on the terminal; use jobs=1"
            )
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; not enough memory for so many jobs?" if code == -signal.SIGKILL else ""
        return CellResult(cell, EngineError(f"{cell.label}: its process ended ({how}){hint}"))

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


def end_imported() -> None:
    """End this process if it is a worker that imports the script of its parent, which would begin a run again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself looks at
        raise SystemExit(_UNGUARDED)


def _script() -> str:
    """The script that this process runs."""
    return os.path.basename(getattr(sys.modules["__main__"], "__file__", "") or "the main module")


def _serve(pipe: Connection, parent: int) -> None:
    """The life of a worker: one cell after the other, until the pipe is closed or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch_over, args=(parent,), daemon=True).start()
    try:
        pipe.send(("begun", None))
        store = _received(pipe)
        while True:
            given = _received(pipe)
            if unread := next((each for each in (store, given) if isinstance(each, Exception)), None):
                pipe.send(("unread", str(unread)))
                continue
            cell, redo = given
            pipe.send(work_for(cell, store, lambda progress: pipe.send(("progress", progress)), redo))
    except (EOFError, OSError):
        return


def _received(pipe: Connection) -> Any:
    """What the parent sent, or why it can't be read: its class can't be imported here, as one of a notebook."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise
    except Exception as error:
        return error


def _watch_over(parent: int) -> None:
    """End this process when the parent is gone, even in the middle of a cell: its result is no longer needed."""
    while os.getppid() == parent:
        time.sleep(_CHECKED)
    os._exit(1)
