"""``sgns`` in parts: each part of the walks trains tables of its own, which are merged now and then (local SGD).

A part reads its walks, the tables of the last merge, and streams of its own, and nothing else. So its bytes don't
depend on where it is trained: here, or by the machines of a Ray cluster, if their processors are of one kind.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import Corpus
from qcq.errors import ConfigError, QCQError, TrainingError

_MERGED = 1_024  # rows merged at a time
_CURVATURE = 0.1  # of the loss in a row, by measurement: docs/decisions/0802
_TRIES = 4  # how often the training of a part between two merges is begun whose process dies

Everywhere = Callable[[Callable[[int], None]], None]  # gives a function to every thread, and waits


class Tables(NamedTuple):
    """Input and output rows, float32 (rows, columns), each starting on a cache line."""

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How the walks of a part are trained.

    Attributes
    ----------
    window, negatives, ordered : of the objective.
    length : of the walks.
    team : segments that share noise tokens.
    room : teams that read the same state in the deterministic mode; 0 without it.
    stream : of random numbers.
    total : teams of all training.
    """

    window: int
    negatives: int
    ordered: bool
    length: int
    team: int
    room: int
    stream: np.uint64
    total: int

    def teams(self, walks: int) -> int:
        """The teams of so many walks."""
        from qcq.models.kernels.sgns import SEGMENT

        return -(-walks * -(-self.length // SEGMENT) // self.team)


class Loop:
    """The compiled loop with the room that it works in, for tables of one size."""

    def __init__(self, plan: Plan, tables: Tables, threads: int) -> None:
        from qcq.models.kernels.sgns import compiled, rows_a_team

        wide = tables.inputs.shape[1]
        most = rows_a_team(plan.length, plan.team, plan.window, plan.negatives, plan.ordered)
        room = plan.room
        self.loop, self.threads = compiled(wide, plan.negatives), threads
        self.nothing = table(threads, wide)
        self.work = (
            np.full((threads, 2, len(tables.outputs) if room else 0), -1, dtype=np.int32),
            np.empty((room, most[0]), dtype=np.int64),
            np.empty((room, most[1]), dtype=np.int64),
            np.zeros((2, room), dtype=np.int64),
            table(room * most[0], wide),
            table(room * most[1], wide),
        )

    def train(self, turn: Turn, tables: Tables, steps: Steps, everywhere: Everywhere) -> None:
        """Train the walks of a turn, in place."""
        plan, walks, done = turn
        n = plan.teams(len(walks))
        counters = np.zeros(1 + 2 * -(-n // (plan.room or n)), dtype=np.int64)
        given = plan.window, plan.ordered, plan.team, plan.stream, done, plan.total, n

        def trained(lane: int) -> None:
            where = lane, self.threads, plan.room, counters
            self.loop(walks, *tables, self.nothing, steps.noise, steps.rates, *given, *where, *self.work)

        everywhere(trained)


class Steps(NamedTuple):
    """What every step reads: noise as an alias table, uint32 (tokens, 2), and the first and last learning rate."""

    noise: NDArray[np.uint32]
    rates: NDArray[np.float32]


class Turn(NamedTuple):
    """What a part trains between two merges: its walks, int32 (walks, length), after ``done`` teams."""

    plan: Plan
    walks: NDArray[np.int32]
    done: int


class Alone:
    """One part, which trains the tables themselves: nothing is merged."""

    def __init__(self, plan: Plan, tables: Tables, steps: Steps, threads: int, everywhere: Everywhere) -> None:
        self.loop, self.steps, self.everywhere = Loop(plan, tables, threads), steps, everywhere

    def __call__(self, tables: Tables, turns: Sequence[Turn]) -> list[Tables]:
        for turn in turns:
            self.loop.train(turn, tables, self.steps, self.everywhere)
        return [tables]


class Here:
    """The parts in this process, one after the other, each on all threads."""

    def __init__(self, steps: Steps, threads: int, everywhere: Everywhere) -> None:
        self.steps, self.threads, self.everywhere = steps, threads, everywhere
        self.loop: Loop | None = None  # the parts differ in nothing that it depends on
        self.tables: dict[Plan, Tables] = {}

    def __call__(self, base: Tables, turns: Sequence[Turn]) -> list[Tables]:
        out = []
        for turn in turns:
            if turn.plan in self.tables:
                for mine, merged in zip(self.tables[turn.plan], base, strict=True):
                    mine[:] = merged
            else:
                self.tables[turn.plan] = _copy(base)
            own = self.tables[turn.plan]
            self.loop = self.loop or Loop(turn.plan, own, self.threads)
            self.loop.train(turn, own, self.steps, self.everywhere)
            out.append(own)
        return out


class OnRay:
    """The parts on the machines of the Ray cluster that this process belongs to: a task for each turn.

    A task has no state: one whose process or machine dies is begun again with the same tables and walks.

    Parameters
    ----------
    threads : of a task, at most the CPUs of the smallest machine, so that each machine can take one.
    """

    def __init__(self, steps: Steps, threads: int) -> None:
        self.ray: Any = importlib.import_module("ray")
        cpus = [int(node["Resources"].get("CPU", 0)) for node in self.ray.nodes() if node["Alive"]]
        self.threads = min(threads, *(n for n in cpus if n >= 1))
        self.steps = self.ray.put(steps)
        self.task = self.ray.remote(max_retries=0)(_turn).options(
            name="sgns part", num_cpus=self.threads, scheduling_strategy="SPREAD"
        )

    def __call__(self, base: Tables, turns: Sequence[Turn]) -> list[Tables]:
        shared, code = self.ray.put(base), _code()

        def begun(turn: Turn) -> Any:
            return self.task.remote(shared, self.steps, turn, self.threads, code)

        refs = [begun(turn) for turn in turns]
        try:
            return [self._tables(ref, partial(begun, turn)) for ref, turn in zip(refs, turns, strict=True)]
        except QCQError:
            for ref in refs:
                self.ray.cancel(ref, force=True)
            raise

    def _tables(self, ref: Any, again: Callable[[], Any]) -> Tables:
        """What a task returns; it is begun again where its process died."""
        gone = self.ray.exceptions
        died = gone.WorkerCrashedError, gone.NodeDiedError, gone.OutOfMemoryError, gone.ObjectLostError
        for tried in range(1, _TRIES + 1):
            try:
                made = self.ray.get(ref)
            except died as error:
                if tried == _TRIES:
                    raise TrainingError(
                        f"sgns: the process of a part died {_TRIES} times ({_line(error)}); give it more memory, or "
                        "use sgns.parts=1"
                    ) from None
                ref = again()
            except gone.RayError as error:
                raise TrainingError(f"sgns: a part could not be trained ({_line(error)}); use sgns.parts=1") from None
            else:
                break
        if made is None:
            raise TrainingError(
                "sgns: a machine of the cluster has another version of qcq; install the same on all machines"
            )
        return Tables(*made)


def _turn(base: Tables, steps: Steps, turn: Turn, threads: int, code: str) -> Tables | None:
    """A task of :class:`OnRay`; None where this machine's code is another one."""
    if code != _code():
        return None
    own = _copy(base)
    with on_threads(threads) as everywhere:
        Loop(turn.plan, own, threads).train(turn, own, steps, everywhere)
    return own


def _code() -> str:
    """SHA-256 of what decides the bytes of a part."""
    from qcq.models.kernels import sgns

    text = b"".join(Path(str(file)).read_bytes() for file in (__file__, sgns.__file__))
    return hashlib.sha256(text).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]


def _copy(base: Tables) -> Tables:
    own = Tables(table(*base.inputs.shape), table(*base.outputs.shape))
    for mine, each in zip(own, base, strict=True):
        mine[:] = each
    return own


@contextmanager
def on_threads(threads: int) -> Iterator[Everywhere]:
    """So many threads; numba's code releases the GIL while it runs."""
    with ThreadPoolExecutor(threads) as pool:

        def everywhere(work: Callable[[int], None]) -> None:
            for _ in pool.map(work, range(threads)):
                pass

        yield everywhere


def divided(corpus: Corpus, parts: int) -> list[Corpus]:
    """The corpus in parts: every ``parts``-th walk, however they are sharded.

    Raises
    ------
    ConfigError : fewer walks than parts.
    """
    if parts == 1:
        return [corpus]
    if corpus.n_walks < parts:
        raise ConfigError(f"setting sgns.parts: {parts} parts of {corpus.n_walks} walks; give at most one per walk")
    begins = np.cumsum([0, *(len(shard) for shard in corpus.shards)])
    each = [
        [shard[(part - at) % parts :: parts] for shard, at in zip(corpus.shards, begins, strict=False)]
        for part in range(parts)
    ]
    return [replace(corpus, shards=[shard for shard in shards if len(shard)]) for shards in each]


def shares(updates: NDArray[np.float64], rate: float, parts: int) -> NDArray[np.float64]:
    """The share of each part's change that a row of the merged table takes: float64 (rows,), from 1/parts to 1.

    One part brings a row nearer to its goal by a factor of r = exp(−c · rate · updates), c its curvature; one after the
    other they would by r^parts. So each change counts for (1 − r^parts) / (parts (1 − r)): all of it for a row that was
    hardly trained, 1/parts (a mean) for one that is at its goal.

    Parameters
    ----------
    updates : how often each row is trained between two merges.
    rate : the learning rate.
    parts : how many changes are merged.
    """
    r = np.exp(-_CURVATURE * rate * updates)
    return np.where(r > 1 - 1e-9, 1.0, (1 - r**parts) / np.maximum(parts * (1 - r), 1e-300))


def merge(base: Tables, parts: Sequence[Tables], weigh: Sequence[NDArray[np.float64]], lane: int, threads: int) -> None:
    """Add the parts' changes to the base, in the order of the parts: a thread's rows."""
    for side, (merged, weight) in enumerate(zip(base, weigh, strict=True)):
        for at in range(lane * _MERGED, len(merged), threads * _MERGED):
            rows = slice(at, at + _MERGED)
            before = merged[rows].copy()
            for part in parts:
                merged[rows] += weight[rows, None].astype(np.float32) * (part[side][rows] - before)


def table(rows: int, columns: int) -> NDArray[np.float32]:
    """Zeros that start on a cache line: float32 (rows, columns)."""
    room = np.zeros(rows * columns + 16, dtype=np.float32)
    skip = -room.ctypes.data // 4 % 16
    return room[skip : skip + rows * columns].reshape(rows, columns)
