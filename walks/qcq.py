"""The plain q-c-q metapath walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.step import Bits, Ints, Lists, Step, uniform
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.floors.chain import Chain


class UniformStep(NamedTuple):
    """One uniform neighbour after the other."""

    lists: Lists

    def leave(self, place: Bits, c: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        return uniform(self.lists, place, x)


@settings
class QCQ(WalkStrategy):
    """From a question to one of its concepts, uniformly; from there to one of its questions, uniformly; and so on.

    P(x → y) = Σ_c 1/d(x) · 1/d(c) over the concepts c of both. Weights of the edges are not looked at (``weighted``
    does). Going back is allowed: both return biases are 1.
    """

    name: ClassVar[str] = "qcq"

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import lists

        return UniformStep(lists(graph))

    def chain(self, graph: KnowledgeGraph) -> Chain:
        from qcq.floors.markov import MarkovChain

        return MarkovChain.of_graph(graph, length=self.length, start=self.start, keep_concepts=self.keep_concepts)
