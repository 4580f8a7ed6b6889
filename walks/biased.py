"""Walks that remember one step: the two return biases."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.step import NONE, ONE, Bits, Ints, Lists, Step, choose, concept, count, degree, helper, high, size, unit
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.floors.chain import Chain


@helper
def _other(x: Bits, n: Bits, bias: float) -> Bits:
    """One of the ``n - 1`` other neighbours; ``n - 1`` is the way back, of weight ``bias`` against 1 each."""
    last = n - ONE
    k = np.int64(unit(x) * (np.float64(np.int64(last)) + bias))
    return np.minimum(np.uint64(k), last)


class BiasedStep(NamedTuple):
    """Uniform but for the way back: weight ``alpha`` to the question just left, ``beta`` to the concept just used."""

    lists: Lists
    alpha: float
    beta: float

    def leave(self, place: Bits, c: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        lists = self.lists
        n = size(lists, place)
        if c == NONE:  # nothing to return to yet
            via = concept(lists, place, high(x, n))
        else:
            last = n - ONE
            k = _other(x, n, self.beta)
            back = k == last
            # The last concept stands in for the way back: every other is hit by one k.
            k = choose(concept(lists, place, k) == c, last, k)
            via = choose(back, c, concept(lists, place, k))
            if self.beta == 0.0:
                counts[2] += back
        n = degree(lists, via)
        k = _other(y, n, self.alpha)
        if k < n - ONE:
            return via, lists.ptr[via] + k
        if self.alpha == 0.0:
            counts[1] += 1
        return via, NONE

    def land(self, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
        if at == NONE:
            return place
        to = self.lists.to[at]
        if to == place:
            to = self.lists.to[self.lists.ptr[via + ONE] - ONE]
        return to

    def step(self, place: Bits, c: Bits, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        lists = self.lists
        n = size(lists, place)
        fresh = c == NONE
        k = choose(fresh, high(x, n), _other(x, n, self.beta))
        back = ~fresh & (k == n - ONE)
        k = choose(concept(lists, place, k) == c, n - ONE, k)
        via = choose(back, c, concept(lists, place, k))
        if self.beta == 0.0:
            count(counts, 2, back)
        at = lists.ptr[via]
        n = lists.ptr[via + ONE] - at
        k = _other(y, n, self.alpha)
        back = k == n - ONE
        to = lists.to[at + k]
        to = choose(to == place, lists.to[at + n - ONE], to)
        if self.alpha == 0.0:
            count(counts, 1, back)
        return choose(back, place, to), via


@settings
class ReturnBiased(WalkStrategy):
    """A q-c-q walk with a weight on either way back.

    At a concept, the question just left has weight α against 1 for each other question; at a question, the concept
    just used has weight β against 1 for each other concept. ``qcq`` is α = β = 1. A walk's first step, which has
    nothing behind it, is uniform. Where a weight of 0 leaves no choice (a concept with one question, a question with
    one concept), the walk takes the only way there is, and ``forced_returns`` or ``forced_repeats`` counts it.
    """

    tallies: ClassVar[tuple[str, ...]] = ("forced_returns", "forced_repeats")

    @property
    @abstractmethod
    def biases(self) -> tuple[float, float]:
        """(α, β)."""

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import lists

        return BiasedStep(lists(graph), *self.biases)

    def chain(self, graph: KnowledgeGraph) -> Chain:
        """The plain chain where both biases are 1; else one over the edges, for the walk remembers its last step."""
        from qcq.floors.hidden import ReturnChain
        from qcq.floors.markov import MarkovChain

        if self.biases == (1.0, 1.0):
            return MarkovChain.of_graph(graph, length=self.length, start=self.start, keep_concepts=self.keep_concepts)
        return ReturnChain(graph, *self.biases, self.length, self.keep_concepts, self.start == "degree", self.name)


@settings
class NonBacktracking(ReturnBiased):
    """Never straight back to the question just left: (α, β) = (0, 1)."""

    name: ClassVar[str] = "non-backtracking"

    @property
    def biases(self) -> tuple[float, float]:
        return 0.0, 1.0


@settings
class ConceptHop(ReturnBiased):
    """Never out of a question through the concept it was entered by: (α, β) = (1, 0).

    A plain walk lingers on one concept ("q1-c1-q2-c1-q3-c1-q2"); this one changes the concept at every question that
    has another.
    """

    name: ClassVar[str] = "concept-hop"

    @property
    def biases(self) -> tuple[float, float]:
        return 1.0, 0.0


@settings
class Node2Vec(ReturnBiased):
    """node2vec (Grover & Leskovec 2016, section 3.2.2) on the bipartite graph: α = β = q/p.

    node2vec weighs the next node by 1/p where it is the one before, 1 where it is a neighbour of the one before, and
    1/q elsewhere. Two neighbours of one node stand on the same side of a bipartite graph, so they are never joined:
    without triangles the middle case doesn't occur, and what is left is 1/p against 1/q, a return weight of q/p.
    Edge weights are not looked at.

    Parameters
    ----------
    p : return parameter; large values make going back rare.
    q : in-out parameter. Only q/p matters here.
    """

    name: ClassVar[str] = "node2vec"

    p: Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)] = 1.0
    q: Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)] = 0.5

    @property
    def biases(self) -> tuple[float, float]:
        return self.q / self.p, self.q / self.p
