"""From a strategy to tokens: starts, the loop's choice, threads. Everything that all walks share beyond their step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcq.errors import WalkError
from qcq.graph import KnowledgeGraph
from qcq.support.seeds import derive, generator
from qcq.support.threads import n_threads
from qcq.walks import vectorised
from qcq.walks.counter import draw
from qcq.walks.step import high
from qcq.walks.tables import alias_tables

if TYPE_CHECKING:
    from qcq.walks.strategy import WalkStrategy

SMALL = 16_000_000  # hops below which numpy is done before numba is even imported
WARM = 200_000  # the same once the compiled loop's module is loaded
CHUNK = 8192  # walks handed to a thread at a time


@dataclass(frozen=True, eq=False)
class Sampler:
    """One corpus to be: a strategy on a graph with a seed. Any stretch of its walks can be sampled alone.

    Parameters
    ----------
    compiled : which loop: the compiled one, numpy's, or (None) whichever is done first.
    """

    strategy: WalkStrategy
    graph: KnowledgeGraph
    seed: int
    compiled: bool | None = None

    @property
    def n_walks(self) -> int:
        return self.graph.n_questions * self.strategy.per_question

    @property
    def width(self) -> int:
        """Tokens a walk at most."""
        return 2 * self.strategy.length - 1 if self.strategy.keep_concepts else self.strategy.length

    @property
    def hops(self) -> int:
        """Edges crossed by the whole corpus."""
        return 2 * self.n_walks * (self.strategy.length - 1)

    @cached_property
    def key(self) -> np.uint64:
        """Where in the random sequence this seed begins."""
        return np.uint64(derive(self.seed, "walk"))

    def sample(self, index: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The walks ``index`` (default: all of them): int32 (walks, width), and their counts."""
        out = np.empty((self.n_walks if index is None else len(index), self.width), dtype=np.int32)
        counts = np.zeros(3, dtype=np.int64)
        self.fill(0 if index is None else index, out, counts)
        return out, counts

    def some(self, limit: int) -> NDArray[np.int64]:
        """``limit`` different walks drawn at random: int64 (limit,)."""
        return generator(self.seed, "walk", "limit").choice(self.n_walks, size=limit, replace=False)

    def starts(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        """First questions of the walks ``index``: int32 (walks,). A formula, so no list of all starts is ever made."""
        n = self.graph.n_questions
        if self.strategy.start == "question":
            return (index % n).astype(np.int32)
        threshold, alias = self._start_table
        x = draw(self.key, index, self.strategy.length, 0, 0)
        k = high(x, np.uint64(n)).astype(np.int64)
        return np.where(x * np.uint64(n) < threshold[k], k, alias[k]).astype(np.int32)

    @cached_property
    def _start_table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """An alias table over the questions, in proportion to how much of the graph hangs on each."""
        strength = self.strategy.strength(self.graph)
        if not strength.any():
            raise WalkError("start=degree on a graph without edges: no question has a degree; use start=question")
        return alias_tables(np.array([0, len(strength)]), strength)

    def fill(self, index: NDArray[np.int64] | int, out: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        """Sample the walks ``index``, or (an int) those from there on, into ``out``; adds to ``counts``."""
        if not len(out):
            return
        step, s = self.strategy.tables(self.graph), self.strategy
        hops = 2 * len(out) * (s.length - 1)
        loop = _loop(self.compiled if self.compiled is not None else not small(hops))

        def part(begin: int) -> NDArray[np.int64]:
            rows = out[begin : begin + CHUNK]
            if isinstance(index, int):
                mine = np.arange(index + begin, index + begin + len(rows))
            else:
                mine = index[begin : begin + CHUNK]
            seen = np.zeros(len(counts), dtype=np.int64)
            n = self.graph.n_questions
            loop(step, mine, self.starts(mine), s.length, s.keep_concepts, n, self.key, rows, seen)
            return seen

        begins = range(0, len(out), CHUNK)
        if len(begins) == 1:
            counts += part(0)
            return
        with ThreadPoolExecutor(n_threads()) as pool:
            for seen in pool.map(part, begins):
                counts += seen


def _loop(compiled: bool) -> Callable[..., None]:
    if not compiled:
        return vectorised.walk
    from qcq.walks import kernel

    return kernel.walk


def small(hops: int) -> bool:
    """True where numpy's loop is done before the compiled one could begin."""
    return hops < (SMALL if "qcq.walks.kernel" not in sys.modules else WARM)
