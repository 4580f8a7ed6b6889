"""The plain q-c-q metapath walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.floors.chain import Chain
    from qcq.walks.tables import Tables


@settings
class QCQ(WalkStrategy):
    """From a question to one of its concepts, uniformly; from there to one of its questions, uniformly; and so on.

    P(x → y) = Σ_c 1/d(x) · 1/d(c) over the concepts c of both. Weights of the edges are not looked at (``weighted``
    does). Going back is allowed: both return biases are 1.
    """

    name: ClassVar[str] = "qcq"

    def tables(self, graph: KnowledgeGraph) -> Tables:
        from qcq.walks.tables import Uniform, lists

        return Uniform(lists(graph))

    def chain(self, graph: KnowledgeGraph) -> Chain:
        from qcq.floors.markov import MarkovChain

        return MarkovChain.of_graph(graph, length=self.length, start=self.start, keep_concepts=self.keep_concepts)
