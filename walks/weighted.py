"""Walks in proportion to weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.errors import WalkError
from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.data import TrainPart
    from qcq.floors.chain import Chain
    from qcq.walks.tables import Tables


@settings
class Weighted(WalkStrategy):
    """Every step in proportion to the weights of the edges: P(x → y) = Σ_c w(x,c)/w(x) · w(y,c)/w(c).

    With ``start="degree"`` starts are drawn in proportion to w(x), the sum over a question's edges, which is the
    walk's stationary law.

    Parameters
    ----------
    by : where weights come from. ``given``: the graph's own. ``inverse-concept-frequency``: 1/d(c), so that a
        question is left by its rare concepts first. ``responses``: 1 + the responses of training students to the
        question (``graph.with_responses(train)``), so that a concept leads to its much-answered questions first; the 1
        keeps a question that nobody answered on the map.
    """

    name: ClassVar[str] = "weighted"

    by: Literal["given", "inverse-concept-frequency", "responses"] = "given"

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        if self.by != "responses":
            return graph
        if train is None:
            raise WalkError("weighted.by=responses: the data set has no responses; weigh by given or another")
        return graph.with_responses(train)

    def weights(self, graph: KnowledgeGraph) -> scipy.sparse.csr_array:
        """The weights to walk by: csr_array float64 (questions × concepts).

        Raises
        ------
        WalkError : ``by="responses"`` on a graph that knows of none.
        """
        w = graph.weights
        if self.by == "given":
            return w
        if self.by == "inverse-concept-frequency":
            degree = np.diff(graph.by_concept.indptr)
            return scipy.sparse.csr_array((1.0 / degree[w.indices], w.indices, w.indptr), shape=w.shape)
        if graph.responses is None:
            raise WalkError(
                "weighted.by=responses: the graph carries no counts of training responses; "
                "add them with graph.with_responses(split.train), or weigh by given or inverse-concept-frequency"
            )
        each = np.repeat(1.0 + graph.responses, np.diff(w.indptr))
        return scipy.sparse.csr_array((each, w.indices, w.indptr), shape=w.shape)

    def tables(self, graph: KnowledgeGraph) -> Tables:
        from qcq.walks.tables import weighted

        return weighted(graph, self.by, lambda: self.weights(graph))

    def strength(self, graph: KnowledgeGraph) -> NDArray[np.float64]:
        return np.asarray(self.weights(graph).sum(axis=1), dtype=np.float64)

    def chain(self, graph: KnowledgeGraph) -> Chain:
        from qcq.floors.markov import MarkovChain

        return MarkovChain.of_graph(
            graph,
            length=self.length,
            start=self.start,
            keep_concepts=self.keep_concepts,
            weights=self.weights(graph),
        )
