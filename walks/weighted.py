"""Walks in proportion to weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.errors import WalkError
from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.counter import mix
from qcq.walks.step import (
    AT,
    HALF,
    KEY,
    NOW,
    REST,
    TWO,
    VIA,
    Bits,
    Cells,
    Ints,
    Step,
    cell,
    decide,
    degree,
    prefetch,
)
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.data import TrainPart
    from qcq.floors.chain import Chain


class WeightedStep(NamedTuple):
    """A neighbour in proportion to the weight of its edge."""

    questions: Cells
    concepts: Cells

    def begin(self, q: Bits) -> Bits:
        return q << HALF

    def ways(self, place: Bits) -> Bits:
        return degree(self.questions, place >> HALF)

    def step(self, place: Bits, c: Bits, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        via = decide(self.questions, *cell(self.questions, place >> HALF, x))
        return decide(self.concepts, *cell(self.concepts, via, y)) << HALF, via

    def depart(self, lane: Bits, lanes: Bits, x: Bits, y: Bits, counts: Ints) -> None:
        for w in range(lanes):
            at, rest = cell(self.questions, lane[NOW + w] >> HALF, mix(lane[KEY + w] + x))
            lane[AT + w] = at
            lane[REST + w] = rest
            prefetch(self.questions.cells, TWO * at)
        for w in range(lanes):
            via = decide(self.questions, lane[AT + w], lane[REST + w])
            at, rest = cell(self.concepts, via, mix(lane[KEY + w] + y))
            lane[VIA + w] = via
            lane[AT + w] = at
            lane[REST + w] = rest
            prefetch(self.concepts.cells, TWO * at)

    def land(self, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
        return decide(self.concepts, at, rest) << HALF

    def ask(self, place: Bits) -> None:
        prefetch(self.questions.ptr, place >> HALF)


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

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import cells, kept

        def build() -> WeightedStep:
            w = self.weights(graph)
            back = scipy.sparse.csr_array(w.T.tocsr())
            back.sort_indices()
            return WeightedStep(cells(w), cells(back))

        return kept(graph, f"weighted/{self.by}", build)

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
