"""Cells on a Ray cluster: one that runs already, or a local one that ends with the run.

Ray has the machines, this module the cells. Each cell is one Ray task. The store with its data is put into the object
store once; arrays in it are shared by all processes of a node, read-only and without a copy. Results go where the
store's folder is, so all nodes need to see that folder.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from qcq.engine.cell import Cell
from qcq.engine.estimate import Rates
from qcq.engine.executor import OFTEN, CellResult, Executor, work_for
from qcq.engine.store import Store
from qcq.errors import ConfigError, EngineError, QCQError
from qcq.support.cluster import connect
from qcq.support.progress import Progress, Watch
from qcq.support.threads import ROOM, THREAD_VARIABLES

if TYPE_CHECKING:
    from qcq.evaluation import Task
    from qcq.models import Trainer

_ANSWER = 5.0  # seconds in which an address has to answer
_TRIES = 4  # how often a cell is begun whose worker dies


@dataclass(frozen=True)
class RayCluster:
    """Where cells run: give it as ``jobs`` to :meth:`qcq.pipeline.Experiment.run`. It changes no result.

    Parameters
    ----------
    address : ``HOST:PORT`` of a running cluster, or ``auto`` for the one of this machine; empty starts a local one.
    jobs : how many cells run at a time; 0 means one per CPU of the cluster. The CPUs are divided equally among them.

    Raises
    ------
    ConfigError : Ray isn't installed, or no cluster answers at the address.

    References
    ----------
    Moritz et al. 2018, Ray: a distributed framework for emerging AI applications (OSDI).
    """

    address: str = ""
    jobs: int = 0

    def __post_init__(self) -> None:
        found = importlib.util.find_spec("ray")
        if found is None or found.origin is None:  # no origin: a folder that happens to be called ray
            raise ConfigError("engine ray: Ray isn't installed; install it: pip install 'qcq[ray]'")
        if not self.address or self.address == "auto":
            return
        host, colon, port = self.address.rpartition(":")
        if not colon or not port.isdecimal():
            raise ConfigError(f"address {self.address!r}: write HOST:PORT of the cluster's head, or auto")
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
            # Ray itself waits for a minute or more, and can't be told to wait less.
            ask = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", self.address]
            subprocess.run(ask, check=True, capture_output=True, timeout=2 * _ANSWER)
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or "what answers there is no Ray of this version"
            why = "no answer" if isinstance(error, TimeoutError | subprocess.TimeoutExpired) else why
            raise ConfigError(
                f"address {self.address}: no Ray cluster answers ({why}); 'ray start --head' shows the address"
            ) from None


class Ray(Executor):
    """Each cell is a Ray task with declared CPUs, memory and GPUs. Where it runs changes no result.

    A cell whose worker or node dies is begun again, at most four times in all; each death is said. The cluster that
    this executor starts or connects to is left at the end; one that the process is connected to already stays.

    Parameters
    ----------
    store : where results go; put into the object store once.
    cluster : where cells run.
    watch : receives the progress.
    """

    def __init__(self, store: Store, cluster: RayCluster, watch: Watch | None = None) -> None:
        self.store, self.cluster, self.watch = store, cluster, watch or Watch()
        self._running: dict[Any, _Task] = {}  # reference to the result → the task
        self._ready: list[CellResult] = []
        self._board: Any = None
        self._ours = False

    def __enter__(self) -> Ray:
        try:
            with _deferred():
                self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def submit(self, cell: Cell, redo: bool = False) -> None:
        drawn = ExitStack()
        self._start(_Task(cell, redo, drawn.enter_context(self.watch.progress(cell.label)), drawn))

    def wait(self) -> CellResult:
        import ray

        while not self._ready:
            for ended in ray.wait(list(self._running), num_returns=1, timeout=OFTEN)[0]:
                self._ended(ended, self._running.pop(ended))
            self._draw()
        return self._ready.pop(0)

    def _open(self) -> None:
        """Connect, divide the CPUs, and put the store into the object store."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        self.slots = self.cluster.jobs or max(1, sum(cpus))
        self._cpus = max(1, min(sum(cpus) // self.slots, max(cpus)))
        self._memory = int(
            max((node.get("memory", 0) for node in nodes if node.get("CPU", 0) >= self._cpus), default=0)
        )
        self._gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        shared = copy.copy(self.store)
        shared.path = self.store.path.resolve()
        self._shared = ray.put(shared)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Board)
        self._board = board.remote()
        self._news = self._board.read.remote()
        self._perform = ray.remote(max_retries=0)(_perform)

    def _connect(self) -> None:
        """Start a local cluster, or connect to the one at the address."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            connect(max(self.cluster.jobs, cores), self.cluster.address)
        except (OSError, RuntimeError, ValueError) as error:
            named = f"address {self.cluster.address}" if self.cluster.address else "a local Ray cluster"
            raise EngineError(f"{named}: Ray can't be started ({_line(error)})") from None

    def _start(self, task: _Task) -> None:
        """Give a cell to the cluster."""
        cell = task.cell
        task.begun += 1
        needs = {
            "name": cell.label or type(cell).__name__,
            "num_cpus": self._cpus,
            "num_gpus": cell.gpus if self._gpus else 0,
            "memory": self._needed(cell),
            "runtime_env": {"env_vars": {name: str(self._cpus) for name in THREAD_VARIABLES}},
        }
        try:
            # In a list, so that a worker asks for the store once, not for each cell.
            made = self._perform.options(**needs).remote([self._shared], cell, cell.key, task.redo, self._board)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self._finish(task, EngineError(f"{cell.label}: can't be sent to a process ({_line(error)}); jobs=1"))
        else:
            self._running[made] = task

    def _ended(self, made: Any, task: _Task) -> None:
        """Take a result, or begin the cell again if its worker died."""
        import ray
        from ray import exceptions as gone

        label = task.cell.label
        try:
            kind, content = ray.get(made)
        except (gone.WorkerCrashedError, gone.NodeDiedError, gone.OutOfMemoryError, gone.ObjectLostError) as error:
            how = {gone.NodeDiedError: "its node is gone", gone.OutOfMemoryError: "the memory of its node was full"}
            place = f" on {task.place}" if task.place else ""
            said = f"{label}: its worker{place} died ({how.get(type(error), 'killed')})"
            if task.begun < _TRIES:
                self.watch.say(f"{said}; it is begun again")
                self._start(task)
            else:
                self._finish(task, EngineError(f"{said}, {task.begun} times; not enough memory?"))
            return
        except gone.RayError as error:
            self._finish(
                task, EngineError(f"{label}: no worker could take it ({_line(error)}); install qcq on all nodes")
            )
            return
        if kind == "crashed":
            raise RuntimeError(f"{label}: {content}")
        self._finish(task, content)

    def _finish(self, task: _Task, error: QCQError | None) -> None:
        task.drawn.close()
        self._ready.append(CellResult(task.cell, error))

    def _draw(self) -> None:
        """Show what workers told since the last time."""
        import ray

        if not ray.wait([self._news], timeout=0)[0]:
            return
        try:
            news = ray.get(self._news)
        except ray.exceptions.RayError:  # the board died and begins anew: progress alone is lost
            news = {}
        self._news = self._board.read.remote()
        for task in self._running.values():
            task.place, told = news.get(task.cell.key, (task.place, None))
            if told is not None:
                task.progress(*told[:2], **told[2])

    def _needed(self, cell: Cell) -> int:
        """Bytes of memory that a cell declares: what is expected, at most all of the largest node."""
        try:
            expected = cell.estimate(self.store, _Untimed())
        except QCQError:
            expected = None
        return min(self._memory, int(ROOM) + (0 if expected is None else expected.memory))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        for made, task in self._running.items():
            task.drawn.close()
            ray.cancel(made, force=True)
        self._running = {}
        if self._board is not None:
            ray.kill(self._board)
        if self._ours:
            ray.shutdown()


@contextmanager
def _deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect after the block: Ray crashes when it is interrupted while it starts.

    What Ray does on a signal ends with the block too; its own handler would end the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {each: signal.signal(each, lambda n, _: came.append(n)) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came:
        signal.raise_signal(came[0])


@dataclass(eq=False)
class _Task:
    """A cell on the cluster.

    Attributes
    ----------
    place : the machine where it was last seen.
    begun : how often it was begun.
    """

    cell: Cell
    redo: bool
    progress: Progress
    drawn: ExitStack
    place: str = ""
    begun: int = 0


class _Board:
    """An actor to which workers tell their progress, and which the executor reads."""

    def __init__(self) -> None:
        self._news: dict[str, tuple[str, Any]] = {}

    def tell(self, key: str, place: str, told: Any) -> None:
        self._news[key] = place, told

    def read(self) -> dict[str, tuple[str, Any]]:
        """What is new since the last time, by the key of the cell."""
        news, self._news = self._news, {}
        return news


class _Untimed(Rates):
    """No trial runs: only sizes are asked for."""

    def training(self, trainer: Trainer, work: int) -> float:
        return 0.0

    def scoring(self, task: type[Task], settings: Any, size: int, stages: int = 1) -> float:
        return 0.0


_stores: dict[str, Store] = {}  # in a worker: reference → the store


def _perform(shared: list[Any], cell: Cell, key: str, redo: bool, board: Any) -> tuple[str, Any]:
    """Run a cell in a worker: how it ended, and its error or the text of a crash."""
    import ray

    place = socket.gethostname()
    board.tell.remote(key, place, None)
    if shared[0].hex() not in _stores:
        _stores[shared[0].hex()] = ray.get(shared[0])
    store = _stores[shared[0].hex()]
    if not store.seen():
        return "done", EngineError(
            f"{cell.label}: {place} can't see the folder {store.path}; put it on a disk that all nodes share (--store)"
        )
    vars(cell).pop("key", None)  # it is computed again, by this node's code
    if cell.key != key:
        return "done", EngineError(f"{cell.label}: {place} has another version of qcq; install the same on all nodes")
    return work_for(cell, store, lambda progress: board.tell.remote(key, place, progress), redo)


def _line(error: Exception) -> str:
    """The last line of an error that says something, in one line."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
