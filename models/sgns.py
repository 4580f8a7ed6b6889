"""Skip-gram with negative sampling in compiled code: gensim's objective, on all cores, directly from integer tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field, model_validator

from qcq.corpus import Corpus
from qcq.errors import ConfigError, TrainingError
from qcq.floors import objectives
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Frozen, Model, Trainer, TrainingData
from qcq.models.weights import WARM_RATE, WARM_STEPS, Weights
from qcq.models.word2vec import PairModel, inferred, shuffled, token_counts
from qcq.support import devices
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings
from qcq.support.threads import n_threads

_AT_ONCE = 1 << 18  # tokens between two progress reports
_LARGEST_BATCH = 64  # segments that read the same state in the deterministic mode
_LARGEST_TEAM = 16  # segments that share noise tokens
_MERGED = 1_024  # rows merged at a time
_CURVATURE = 0.1  # of the loss in a row, by measurement: docs/decisions/0802


@settings
class SGNS(Trainer):
    """Skip-gram with negative sampling, compiled, on all cores.

    The objective, windows, noise and learning rate are those of ``skipgram`` (gensim). Two things differ: noise tokens
    are shared by pairs of several walks, for speed, and scores beyond ±6 still learn (gensim skips them).

    Parameters
    ----------
    window : most steps between the two tokens of a pair; each centre draws its own window from 1…window.
    negatives : noise tokens per pair, drawn in proportion to count^0.75.
    epochs : passes over the corpus.
    lr : learning rate at the start; it falls linearly to lr / 250 at the end.
    ordered : an output table for each of the 2 · window positions around a centre, so that the score of a pair depends
        on the relative position of its tokens too (structured skip-gram). It costs 2 · window times the memory of the
        outputs, and noise is no longer shared. Its loss uses the same pairs as without, and has no floor here.
    deterministic : the same vectors for the same seed at any number of threads: a few dozen walks read the same
        state, and their changes are summed in their order. Without it, threads write without synchronisation: faster,
        and no two runs are exactly equal.
    threads : how many; 0 means one per core.
    device : where to train: "cpu", "cuda", "mps", or "auto": the first of cuda, mps and cpu that is there. A device
        computes the scores of many walks as matrix products, with other random numbers than the CPU; its tables must
        fit in its memory. It needs torch, and neither ``ordered`` nor ``parts``.
    parts : the walks are divided into so many parts, each of which trains tables of its own. Now and then the tables
        are merged: rows that were seldom trained get the sum of the parts' changes, rows that were trained often their
        mean (:func:`shares`). The same parts give the same vectors wherever they are trained.
    period : tokens that each part trains between two merges; without effect for one part.

    A question that is never near another one in any walk gets a zero vector: nothing is known about it.

    References
    ----------
    Mikolov et al. 2013, Distributed representations of words and phrases and their compositionality (NIPS), eq. 4.
    Ji et al. 2016, Parallelizing word2vec in shared and distributed memory, section 3, for the shared negatives.
    Ling et al. 2015, Two/too simple adaptations of word2vec for syntax problems (NAACL), section 3.1, for the order.
    """

    window: Annotated[int, Field(ge=1)] = 5
    negatives: Annotated[int, Field(ge=1)] = 5
    epochs: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 0.05
    ordered: bool = False
    deterministic: bool = True
    threads: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"
    parts: Annotated[int, Field(ge=1)] = 1
    period: Annotated[int, Field(ge=1)] = 1 << 16

    warm = True
    tuning = ({}, {"window": 2}, {"window": 10})
    static: ClassVar[bool] = False  # run a device's steps, even on the CPU

    @model_validator(mode="after")
    def _fits(self) -> SGNS:
        if self.device != "cpu" and (self.ordered or self.parts > 1):
            raise ValueError(f"device {self.device!r} trains neither ordered tables nor parts; use 'cpu'")
        return self

    @property
    def place(self) -> str:
        """The device that ``device`` means here."""
        return devices.place(self.device)

    @property
    def reproducible(self) -> bool:
        if self.place == "cpu":
            return self.deterministic or (self.threads or n_threads()) == 1
        return self.deterministic and self.place == "cuda"

    def refuse_unusable(self) -> None:
        devices.refuse_unusable(self.device)

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        """Train on the source's walks.

        Raises
        ------
        ConfigError : a missing device, or more parts than walks.
        TrainingError : there is nothing to learn from, training diverged, or a device failed.
        """
        self.refuse_unusable()
        corpus = source.corpus
        counts, paired = token_counts(corpus)
        if not paired.any():
            raise TrainingError(
                "no walk has two tokens, so there is nothing to learn from; the graph may have no edges"
            )
        on_device = self.static or self.place != "cpu"
        inputs, outputs, used = (self._on_device if on_device else self._on_threads)(source, counts, seed, progress)
        if not all(np.isfinite([table.min(), table.max()]).all() for table in (inputs, outputs)):
            raise TrainingError(f"sgns diverged: its vectors are no longer finite; lower lr (given {self.lr})")
        objective = objectives.SkipGram(
            self.window, self.negatives, counts=counts.astype(np.float64), ordered=self.ordered
        )
        tokens = round(self.epochs * corpus.n_tokens * used / corpus.n_walks)
        about = {"name": "sgns", **self.config}
        return PairModel(source.graph, inputs, outputs, paired, tokens, objective, trainer=about)

    def _on_device(
        self, source: TrainingData, counts: NDArray[np.int64], seed: int, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """Both tables, and how many walks an epoch has."""
        from qcq.models.kernels.sgns import begin
        from qcq.models.sgns_device import DeviceTables, train

        corpus = source.corpus
        inputs, outputs = _table(len(counts), self.dim), _table(len(counts), self.dim)
        begin(inputs, self.dim, np.uint64(derive(seed, "sgns", "start")), 0, 1)
        if source.start is not None:
            self._begin_from(source.start, inputs, outputs)
        lr, used = self._effort(source, corpus)
        spread = counts.sum() / counts.max()
        together = max(1, int(spread / corpus.length))
        noise, place = counts.astype(np.float64) ** 0.75, self.place
        with devices.guarded(place, lambda: "while its tables were made", lambda: "use device = 'cpu', or lower dim"):
            tables = DeviceTables(
                inputs,
                outputs,
                noise,
                self.window,
                self.negatives,
                corpus.length,
                together,
                place,
                self.deterministic,
                seed,
            )
        train(corpus, tables, (lr, lr / 250), self.epochs, used, seed, progress)
        with devices.guarded(place, lambda: "while its tables were read", lambda: "use device = 'cpu'"):
            return *tables.rows(), used

    def _effort(self, source: TrainingData, corpus: Corpus) -> tuple[float, int]:
        """The learning rate at the start, and the walks of an epoch: less of both if an earlier training goes on."""
        if source.start is None:
            return self.lr, corpus.n_walks
        return WARM_RATE * self.lr, math.ceil(WARM_STEPS * corpus.n_walks)

    def _on_threads(
        self, source: TrainingData, counts: NDArray[np.int64], seed: int, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """Both tables, and how many walks an epoch has in all parts."""
        from qcq.models.kernels.sgns import alias_table, begin

        corpus = source.corpus
        wide = -(-self.dim // 16) * 16  # rows of whole cache lines; the columns beyond dim stay zero
        tables = 2 * self.window if self.ordered else 1
        threads = self.threads or n_threads()
        corpora = _divided(corpus, self.parts)
        parts = [self._part(each, i, counts, wide, tables, threads, source, seed) for i, each in enumerate(corpora)]
        lr, _ = self._effort(source, corpus)
        noise = alias_table(counts**0.75)
        rates = np.array([lr, lr / 250], dtype=np.float32)
        inputs, outputs = parts[0].inputs, parts[0].outputs
        done, total = 0, sum(part.total for part in parts)
        with ThreadPoolExecutor(threads) as pool:

            def everywhere(work: Callable[[int], None]) -> None:
                """One thread's share; numba's code releases the GIL while it runs."""
                for _ in pool.map(work, range(threads)):
                    pass

            start = np.uint64(derive(seed, "sgns", "start"))
            everywhere(lambda lane: begin(inputs, self.dim, start, lane, threads))
            if source.start is not None:
                self._begin_from(source.start, inputs, outputs)
            base = [] if len(parts) == 1 else [inputs.copy(), outputs.copy()]
            for part in parts[1:]:
                part.inputs[:], part.outputs[:] = base
            for _ in range(self.epochs):
                for walks in zip_longest(*(part.shuffled() for part in parts)):
                    rate = lr * (1 - done / total)
                    for part, some in zip(parts, walks, strict=True):
                        if some is not None:
                            done += part.train(some, noise, rates, everywhere)
                            progress(done, total)
                    if base:
                        seen = max(some.size for some in walks if some is not None)
                        weigh = [shares(n, rate, self.parts) for n in self._updates(counts, seen, tables)]
                        everywhere(
                            partial(_merge, base, [(p.inputs, p.outputs) for p in parts], weigh, threads=threads)
                        )
        del base
        inputs = np.ascontiguousarray(inputs[:, : self.dim])  # one after the other: each may be a copy
        outputs = np.ascontiguousarray(outputs[:, : self.dim])
        return inputs, outputs, sum(part.used for part in parts)

    def _part(
        self,
        corpus: Corpus,
        number: int,
        counts: NDArray[np.int64],
        wide: int,
        tables: int,
        threads: int,
        source: TrainingData,
        seed: int,
    ) -> _Part:
        """A part of the walks with tables and work space of its own; the first part has the streams of a single one."""
        from qcq.models.kernels.sgns import SEGMENT, compiled, rows_a_team

        pieces = -(-corpus.length // SEGMENT)
        team, batch = self._sizes(counts, min(corpus.length, SEGMENT))
        room = batch if self.deterministic else 0
        most = rows_a_team(corpus.length, team, self.window, self.negatives, self.ordered)
        at_once = _AT_ONCE if self.parts == 1 else self.period
        step = max(1, at_once // corpus.length)
        _, used = self._effort(source, corpus)
        full, rest = divmod(used, step)
        total = self.epochs * (full * -(-step * pieces // team) + -(-rest * pieces // team))
        which = () if number == 0 else ("part", number)
        outputs = _table(tables * len(counts), wide)
        return _Part(
            corpus=corpus,
            step=step,
            used=used,
            total=total,
            given=(self.window, self.ordered, team, np.uint64(derive(seed, "sgns", *which))),
            order=generator(seed, "sgns", "order", *which),
            inputs=_table(len(counts), wide),
            outputs=outputs,
            loop=compiled(wide, self.negatives),
            room=room,
            nothing=_table(threads, wide),
            slots=np.full((threads, 2, len(outputs) if room else 0), -1, dtype=np.int32),
            kept=(np.empty((room, most[0]), dtype=np.int64), np.empty((room, most[1]), dtype=np.int64)),
            held=np.zeros((2, room), dtype=np.int64),
            changes=(_table(room * most[0], wide), _table(room * most[1], wide)),
        )

    def _updates(
        self, counts: NDArray[np.int64], tokens: int, tables: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How often each row is trained, on average, while so many tokens are: float64 (rows,), of inputs, outputs."""
        pairs = (self.window + 1) * tokens
        share, noise = counts / counts.sum(), counts**0.75 / (counts**0.75).sum()
        read, written = pairs * (1 + self.negatives) * share, pairs * (share + self.negatives * noise)
        return read, np.tile(written / tables, tables)

    def _begin_from(self, start: Weights, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> None:
        """Copy rows of an earlier training; outputs that aren't known stay at zero, where they begin."""
        start.refuse_other("sgns", self.dim, len(inputs))
        inputs[:, : self.dim] = start.tables["input"]
        held = start.tables.get("output")
        if held is None:
            return
        tables = len(outputs) // len(inputs)
        if held.shape[1] != tables * self.dim:
            raise ConfigError(
                "the start was trained with another window or order; take the settings it was trained with"
            )
        outputs[:, : self.dim] = held.reshape(len(inputs), tables, self.dim).swapaxes(0, 1).reshape(-1, self.dim)

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        tokens = graph.n_questions + graph.n_concepts
        wide, tables = -(-self.dim // 16) * 16, 1 + (2 * self.window if self.ordered else 1)
        copy = wide if wide > self.dim else 0
        slots = 8 * (self.threads or n_threads()) * (tables - 1) * self.deterministic
        return tokens * (4 * wide * tables + 4 * copy + slots + 40) + 8 * walks + 8 * _AT_ONCE

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64] | None:
        """New rows alone, against the frozen outputs: :func:`qcq.models.word2vec.inferred`. Not if ``ordered``."""
        return inferred(frozen, weights, self.window, self.negatives)

    def _sizes(self, counts: NDArray[np.int64], length: int) -> tuple[int, int]:
        """Segments that share noise, and teams of them that read the same state in the deterministic mode.

        Both are so small that even the most frequent token is rarely in two at once: with few questions they are 1.
        """
        spread = counts.sum() / counts.max()  # tokens, if all were as frequent as the most frequent
        team = 1 if self.ordered else int(np.clip(spread / 256, 1, _LARGEST_TEAM))
        batch = int(np.clip(spread / (team * length), 1, _LARGEST_BATCH // team))
        return team, batch


@dataclass(eq=False)
class _Part:
    """Walks and the tables that they train.

    Attributes
    ----------
    step, used : walks trained at a time, and in an epoch.
    total : teams of all training.
    room : teams that read the same state in the deterministic mode; 0 without it.
    given, loop, nothing, slots, kept, held, changes : as :mod:`qcq.models.kernels.sgns` takes them.
    """

    corpus: Corpus
    step: int
    used: int
    total: int
    given: tuple[int, bool, int, np.uint64]
    order: np.random.Generator
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    loop: Callable[..., None]
    room: int
    nothing: NDArray[np.float32]
    slots: NDArray[np.int32]
    kept: tuple[NDArray[np.int64], NDArray[np.int64]]
    held: NDArray[np.int64]
    changes: tuple[NDArray[np.float32], NDArray[np.float32]]
    done: int = 0

    def shuffled(self) -> Iterator[NDArray[np.int32]]:
        """The walks of an epoch, ``step`` at a time."""
        return shuffled(self.corpus, self.step, self.order, self.used)

    def train(
        self,
        walks: NDArray[np.int32],
        noise: NDArray[np.uint32],
        rates: NDArray[np.float32],
        everywhere: Callable[[Callable[[int], None]], None],
    ) -> int:
        """Train these walks; returns the number of their teams."""
        from qcq.models.kernels.sgns import SEGMENT

        *settings, team, stream = self.given
        threads = len(self.nothing)
        n = -(-len(walks) * -(-self.corpus.length // SEGMENT) // team)

        counters = np.zeros(1 + 2 * -(-n // (self.room or n)), dtype=np.int64)

        def trained(lane: int) -> None:
            given = (*settings, team, stream, self.done, self.total, n, lane, threads, self.room, counters)
            work = (self.slots, *self.kept, self.held, *self.changes)
            self.loop(walks, self.inputs, self.outputs, self.nothing, noise, rates, *given, *work)

        everywhere(trained)
        self.done += n
        return n


def _divided(corpus: Corpus, parts: int) -> list[Corpus]:
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
    divided = [
        [shard[(part - at) % parts :: parts] for shard, at in zip(corpus.shards, begins, strict=False)]
        for part in range(parts)
    ]
    return [replace(corpus, shards=[shard for shard in shards if len(shard)]) for shards in divided]


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


def _merge(
    base: Sequence[NDArray[np.float32]],
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    weigh: Sequence[NDArray[np.float64]],
    lane: int,
    threads: int,
) -> None:
    """Add the parts' changes to the base, in the order of the parts, and give each part the result: a thread's rows."""
    for side, (table, weight) in enumerate(zip(base, weigh, strict=True)):
        for at in range(lane * _MERGED, len(table), threads * _MERGED):
            rows = slice(at, at + _MERGED)
            before = table[rows].copy()
            for part in parts:
                table[rows] += weight[rows, None].astype(np.float32) * (part[side][rows] - before)
            for part in parts:
                part[side][rows] = table[rows]


def _table(rows: int, columns: int) -> NDArray[np.float32]:
    """Zeros that start on a cache line: float32 (rows, columns)."""
    room = np.zeros(rows * columns + 16, dtype=np.float32)
    skip = -room.ctypes.data // 4 % 16
    return room[skip : skip + rows * columns].reshape(rows, columns)
