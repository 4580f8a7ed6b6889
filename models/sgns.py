"""Skip-gram with negative sampling in compiled code: gensim's objective, on all cores, directly from integer tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from qcq.errors import ConfigError, TrainingError
from qcq.floors import objectives
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Frozen, Model, Trainer, TrainingData
from qcq.models.weights import WARM_RATE, WARM_STEPS, Weights
from qcq.models.word2vec import PairModel, inferred, shuffled, token_counts
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings
from qcq.support.threads import n_threads

_AT_ONCE = 1 << 18  # tokens between two progress reports
_LARGEST_BATCH = 64  # segments that read the same state in the deterministic mode
_LARGEST_TEAM = 16  # segments that share noise tokens


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

    warm = True
    tuning = ({}, {"window": 2}, {"window": 10})

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        from qcq.models.kernels.sgns import SEGMENT, alias_table, begin, compiled, rows_a_team

        corpus = source.corpus
        counts, paired = token_counts(corpus)
        if not paired.any():
            raise TrainingError(
                "no walk has two tokens, so there is nothing to learn from; the graph may have no edges"
            )
        wide = -(-self.dim // 16) * 16  # rows of whole cache lines; the columns beyond dim stay zero
        tables = 2 * self.window if self.ordered else 1
        inputs, outputs = _table(len(counts), wide), _table(tables * len(counts), wide)
        threads = self.threads or n_threads()
        pieces = -(-corpus.length // SEGMENT)
        team, batch = self._sizes(counts, min(corpus.length, SEGMENT))
        room = batch if self.deterministic else 0
        most_in, most_out = rows_a_team(corpus.length, team, self.window, self.negatives, self.ordered)
        nothing = _table(threads, wide)
        slots = np.full((threads, 2, len(outputs) if room else 0), -1, dtype=np.int32)
        kept = np.empty((room, most_in), dtype=np.int64), np.empty((room, most_out), dtype=np.int64)
        held = np.zeros((2, room), dtype=np.int64)
        changes = _table(room * most_in, wide), _table(room * most_out, wide)
        train, add = compiled(wide, self.negatives)
        noise = alias_table(counts**0.75)
        lr = self.lr if source.start is None else WARM_RATE * self.lr
        rates = np.array([lr, lr / 250], dtype=np.float32)
        stream = np.uint64(derive(seed, "sgns"))
        step = max(1, _AT_ONCE // corpus.length)
        order = generator(seed, "sgns", "order")
        used = corpus.n_walks if source.start is None else math.ceil(WARM_STEPS * corpus.n_walks)
        full, rest = divmod(used, step)
        total = self.epochs * (full * -(-step * pieces // team) + -(-rest * pieces // team))
        done = 0
        with ThreadPoolExecutor(threads) as pool:

            def everywhere(work: Callable[[int], None]) -> None:
                """One thread's share; numba's code releases the GIL while it runs."""
                for _ in pool.map(work, range(threads)):
                    pass

            def trained(lane: int, start: int, end: int) -> None:
                given = (window, ordered, team, stream, done, total, n, start, end, lane, threads, room > 0)
                train(walks, inputs, outputs, nothing, noise, rates, *given, slots, *kept, held, *changes)

            def added(lane: int, teams: int) -> None:
                add(inputs, outputs, *kept, held, *changes, teams, lane, threads)

            window, ordered = self.window, self.ordered
            everywhere(lambda lane: begin(inputs, self.dim, np.uint64(derive(seed, "sgns", "start")), lane, threads))
            if source.start is not None:
                self._begin_from(source.start, inputs, outputs)
            for _ in range(self.epochs):
                for walks in shuffled(corpus, step, order, used):
                    n = -(-len(walks) * pieces // team)
                    for start in range(0, n, room or n):
                        end = min(start + (room or n), n)
                        everywhere(partial(trained, start=start, end=end))
                        if room:
                            everywhere(partial(added, teams=end - start))
                    done += n
                    progress(done, total)
        inputs = np.ascontiguousarray(inputs[:, : self.dim])  # one after the other: each may be a copy
        outputs = np.ascontiguousarray(outputs[:, : self.dim])
        if not all(np.isfinite([table.min(), table.max()]).all() for table in (inputs, outputs)):
            raise TrainingError(f"sgns diverged: its vectors are no longer finite; lower lr (given {self.lr})")
        objective = objectives.SkipGram(
            self.window, self.negatives, counts=counts.astype(np.float64), ordered=self.ordered
        )
        tokens = round(self.epochs * corpus.n_tokens * used / corpus.n_walks)
        about = {"name": "sgns", **self.config}
        return PairModel(source.graph, inputs, outputs, paired, tokens, objective, trainer=about)

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

    def infer(self, frozen: Frozen, weights: sparse.csr_array) -> NDArray[np.float64] | None:
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


def _table(rows: int, columns: int) -> NDArray[np.float32]:
    """Zeros that start on a cache line: float32 (rows, columns)."""
    room = np.zeros(rows * columns + 16, dtype=np.float32)
    skip = -room.ctypes.data // 4 % 16
    return room[skip : skip + rows * columns].reshape(rows, columns)
