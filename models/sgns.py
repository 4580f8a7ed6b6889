"""Skip-gram with negative sampling in compiled code: gensim's objective, on all cores, directly from integer tokens."""

from __future__ import annotations

import math
from dataclasses import replace
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
from qcq.models.sgns_parts import (
    Alone,
    Here,
    OnRay,
    Plan,
    Steps,
    Tables,
    Turn,
    divided,
    merge,
    on_threads,
    shares,
    table,
)
from qcq.models.trainer import Frozen, Model, Trainer, TrainingData
from qcq.models.weights import WARM_RATE, WARM_STEPS, Weights
from qcq.models.word2vec import PairModel, inferred, shuffled, token_counts
from qcq.support import devices
from qcq.support.cluster import machines
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
    device : where to train: "cpu", "cuda", "mps", or "auto": the first of cuda, mps and cpu that is there. A device
        computes the scores of many walks as matrix products, with other random numbers than the CPU; its tables must
        fit in its memory. It needs torch, and neither ``ordered`` nor ``parts``.
    parts : the walks are divided into so many parts, each of which trains tables of its own. Now and then the tables
        are merged: rows that were seldom trained get the sum of the parts' changes, rows that were trained often their
        mean (:func:`shares <qcq.models.sgns_parts.shares>`). On a Ray cluster of several machines they are trained at
        the same time. The same parts give the same vectors wherever they are trained.
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
        inputs, outputs = table(len(counts), self.dim), table(len(counts), self.dim)
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
        sides = 2 * self.window if self.ordered else 1
        threads = self.threads or n_threads()
        corpora = divided(corpus, self.parts)
        step = max(1, (_AT_ONCE if self.parts == 1 else self.period) // corpus.length)
        used = [self._effort(source, each)[1] for each in corpora]
        plans = [self._plan(corpus, counts, i, n, step, seed) for i, n in enumerate(used)]
        lr, _ = self._effort(source, corpus)
        steps = Steps(alias_table(counts**0.75), np.array([lr, lr / 250], dtype=np.float32))
        tables = Tables(table(len(counts), wide), table(sides * len(counts), wide))
        teams, done, total = [0] * self.parts, 0, sum(plan.total for plan in plans)
        orders = [generator(seed, "sgns", "order", *_part(i)) for i in range(self.parts)]
        with on_threads(threads) as everywhere:
            start, into = np.uint64(derive(seed, "sgns", "start")), tables.inputs
            everywhere(lambda lane: begin(into, self.dim, start, lane, threads))
            if source.start is not None:
                self._begin_from(source.start, *tables)
            trained: Alone | Here | OnRay
            if self.parts == 1:
                trained = Alone(plans[0], tables, steps, threads, everywhere)
            else:
                trained = OnRay(steps, threads) if machines() > 1 else Here(steps, threads, everywhere)
            for _ in range(self.epochs):
                walks = (shuffled(*each) for each in zip(corpora, [step] * self.parts, orders, used, strict=True))
                for round_ in zip_longest(*walks):
                    given = {i: some for i, some in enumerate(round_) if some is not None}
                    made = trained(tables, [Turn(plans[i], some, teams[i]) for i, some in given.items()])
                    if self.parts > 1:
                        updates = self._updates(counts, max(some.size for some in given.values()), sides)
                        weigh = [shares(n, lr * (1 - done / total), self.parts) for n in updates]
                        everywhere(partial(merge, tables, made, weigh, threads=threads))
                    del made  # on Ray it holds the object store's copies
                    for i, some in given.items():
                        teams[i] += plans[i].teams(len(some))
                    done = sum(teams)
                    progress(done, total)
        into, out = tables
        del tables, trained
        into = np.ascontiguousarray(into[:, : self.dim])  # one after the other: each may be a copy
        out = np.ascontiguousarray(out[:, : self.dim])
        return into, out, sum(used)

    def _plan(self, corpus: Corpus, counts: NDArray[np.int64], part: int, used: int, step: int, seed: int) -> Plan:
        """How ``used`` walks of a part are trained in each epoch, ``step`` at a time."""
        from qcq.models.kernels.sgns import SEGMENT

        team, batch = self._sizes(counts, min(corpus.length, SEGMENT))
        stream = np.uint64(derive(seed, "sgns", *_part(part)))
        room = batch if self.deterministic else 0
        plan = Plan(self.window, self.negatives, self.ordered, corpus.length, team, room, stream, 0)
        full, rest = divmod(used, step)
        return replace(plan, total=self.epochs * (full * plan.teams(step) + plan.teams(rest)))

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
        held = tables * (1 if self.parts == 1 else self.parts + 2)  # those of the parts, merged, and given to the parts
        return tokens * (4 * wide * held + 4 * copy + slots + 40) + 8 * walks + 8 * _AT_ONCE

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


def _part(number: int) -> tuple[str | int, ...]:
    """The name of a part's streams; the first part has those of a training without parts."""
    return () if number == 0 else ("part", number)
