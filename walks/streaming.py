"""A corpus larger than memory: sampled shard by shard to disk, resumed where it was cut off."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import Corpus, CorpusWriter, Header
from qcq.errors import WalkError
from qcq.support.progress import Progress
from qcq.walks.sampler import CHUNK, Sampler, small
from qcq.walks.tables import nbytes

if TYPE_CHECKING:
    from qcq.graph import KnowledgeGraph
    from qcq.walks.strategy import WalkStrategy

SHARD_BYTES = 2**27  # of a shard at most: 128 MiB
_TO_DISK = 1e9  # bytes hashed and written a second, roughly, while the next shard is sampled
_TRIAL = 4096  # walks sampled to learn how long the rest will take


@dataclass(frozen=True)
class Plan:
    """What sampling to disk will take. ``str`` makes it one line.

    Attributes
    ----------
    walks, tokens : how many; tokens at most, should no walk end early.
    bytes : on disk.
    shards, shard_walks : how many files, of how many walks.
    memory : bytes that sampling holds at most, the packed graph included.
    seconds : about how long, from a small trial on this machine; None where no trial was made.

    Examples
    --------
    >>> print(Plan(100, 4000, 16000, 1, 100, 10**6, 0.2))
    100 walks, 4,000 tokens, 16.0 kB on disk in 1 shard, 1.0 MB of memory, about 1 s
    """

    walks: int
    tokens: int
    bytes: int
    shards: int
    shard_walks: int
    memory: int
    seconds: float | None = None

    def __str__(self) -> str:
        parts = [
            f"{self.walks:,} walks",
            f"{self.tokens:,} tokens",
            f"{_size(self.bytes)} on disk in {self.shards:,} shard{'s' if self.shards != 1 else ''}",
            f"{_size(self.memory)} of memory",
        ]
        return ", ".join(parts + ([] if self.seconds is None else [f"about {_duration(self.seconds)}"]))


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan(strategy: WalkStrategy, graph: KnowledgeGraph, max_memory: int, *, trial: bool) -> Plan:
    """Sizes, and with ``trial`` the time, of streaming this walk."""
    sampler = Sampler(strategy, graph, 0)
    row = 4 * sampler.width
    held = nbytes(strategy.tables(graph))
    # Two shards are in memory, one being sampled while the other is written; a chunk's own arrays are small change.
    room = (max_memory - held) // 2
    least = min(CHUNK, sampler.n_walks)
    if room < least * row:
        raise WalkError(
            f"max_memory of {_size(max_memory)} is too little: the packed graph takes {_size(held)} and two shards "
            f"of {least} walks {_size(2 * least * row)}; give at least {_size(held + 2 * least * row)}"
        )
    shard_walks = max(least, min(room, SHARD_BYTES) // row // CHUNK * CHUNK)
    shard_walks = min(shard_walks, sampler.n_walks)
    made = Plan(
        sampler.n_walks,
        sampler.n_walks * sampler.width,
        sampler.n_walks * row,
        -(-sampler.n_walks // shard_walks),
        shard_walks,
        held + 2 * shard_walks * row,
    )
    if not trial:
        return made
    sampler = Sampler(strategy, graph, 0, compiled=not small(sampler.hops))
    some = sampler.some(min(_TRIAL, sampler.n_walks))
    sampler.sample(some[:1])  # whatever has to be compiled or loaded
    began = time.perf_counter()
    sampler.sample(some)
    each = (time.perf_counter() - began) / len(some)
    return replace(made, seconds=made.walks * each + made.bytes / _TO_DISK)


def stream(
    strategy: WalkStrategy,
    graph: KnowledgeGraph,
    directory: str | Path,
    seed: int,
    max_memory: int,
    progress: Progress,
    replace: bool,
) -> Corpus:
    """See :meth:`WalkStrategy.stream`."""
    sampler = Sampler(strategy, graph, seed)
    sampler = Sampler(strategy, graph, seed, compiled=not small(sampler.hops))
    shard_walks = plan(strategy, graph, max_memory, trial=False).shard_walks
    about = Header(
        sampler.n_walks,
        sampler.width,
        graph.n_questions,
        graph.n_concepts,
        graph.digest,
        {"name": strategy.name, **strategy.config},
        seed,
    )
    writer = CorpusWriter(directory, about, replace=replace)
    progress(writer.done, about.walks)
    buffers = [np.empty((shard_walks, sampler.width), dtype=np.int32) for _ in range(2)]
    pending: Future[None] | None = None

    def put(walks: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        writer.add(walks, strategy.named(counts))

    with ThreadPoolExecutor(1) as behind:
        for turn, begin in enumerate(range(writer.done, about.walks, shard_walks)):
            walks = buffers[turn % 2][: min(shard_walks, about.walks - begin)]
            counts = np.zeros(3, dtype=np.int64)
            sampler.fill(begin, walks, counts)
            if pending is not None:
                pending.result()
                progress(begin, about.walks)
            pending = behind.submit(put, walks, counts)
        if pending is not None:
            pending.result()
    progress(about.walks, about.walks)
    return writer.finish(writer.counts | strategy.facts(graph))
