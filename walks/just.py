"""Jump and stay: walks over several kinds of nodes without a metapath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import ChainError, ConfigError, GraphError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph, onto, rows
from qcq.support.settings import settings
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from qcq.data import TrainPart
    from qcq.floors.chain import Chain
    from qcq.walks.tables import Tables

_ROUNDS = 10_000  # concepts in a row at most; all but a vanishing share of the walks have left long before


@settings
class Just(WalkStrategy):
    """Jump or stay (JUST): stay among the nodes of one type with probability α^l after l of them in a row, else jump.

    Staying at a question goes along q–q (in proportion to how often the next one came straight after it in a training
    student's sequence), at a concept along c–c (uniformly); jumping crosses to the other type along q–c, uniformly. A
    node without edges to its own type jumps, one without edges to the other type stays. The walk shows its questions;
    the concepts between two of them may be several. With two types of nodes there is only one to jump to, so the
    original's memory of types has nothing to remember. ``stays`` counts steps from question to question.

    A graph with neither q–q nor c–c edges is bipartite: nothing can stay, and the walk would be ``qcq``.

    Parameters
    ----------
    alpha : α.

    References
    ----------
    Hussein, Yang & Cudré-Mauroux 2018, Are meta-paths necessary? Revisiting heterogeneous graph embeddings (CIKM).
    """

    name: ClassVar[str] = "just"
    tallies: ClassVar[tuple[str, ...]] = ("stays",)

    alpha: Annotated[float, Field(gt=0, le=0.999)] = 0.5

    def __post_init__(self) -> None:
        if self.keep_concepts:
            raise ConfigError("setting keep_concepts: a jump may pass several concepts, so just shows questions only")

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        typed = TypedGraph.of(graph, train)
        self._steps(typed)
        return typed

    def _steps(self, graph: KnowledgeGraph) -> tuple[csr_array, csr_array, csr_array, csr_array]:
        """Question → next question, question → concept, concept → last concept of a stay, concept → question.

        The first counts how often the one came after the other; rows of the others sum to 1, or to 0.

        Raises
        ------
        WalkError : there is nowhere to stay.
        """
        from qcq.walks.tables import kept

        return kept(graph, f"just/{self.alpha}", lambda: self._made(graph))

    def _made(self, graph: KnowledgeGraph) -> tuple[csr_array, csr_array, csr_array, csr_array]:
        typed = graph if isinstance(graph, TypedGraph) else TypedGraph.of(graph, None)
        links = _or_none(typed, "c", "c")
        order = _or_none(typed, "q", "q")
        if links is None and order is None:
            raise WalkError(
                "just: this graph has neither q–q nor c–c edges (no order of training responses, no parents or "
                "prerequisites among its concepts), so there is nowhere to stay and the walk would be qcq; take qcq"
            )
        into = rows(typed.relation("c", "q"))
        out = rows(typed.relation("q", "c"))
        has_question = np.diff(into.indptr) > 0
        if links is None:
            run = scipy.sparse.csr_array(scipy.sparse.diags_array(has_question.astype(np.float64), format="csr"))
        else:
            run = self._run(rows(links), has_question)
        run.eliminate_zeros()
        run.sort_indices()
        if order is None:
            order = scipy.sparse.csr_array((graph.n_questions, graph.n_questions), dtype=np.float64)
        while True:  # a question that can't be left again is no place to go
            able = (np.diff(out.indptr) > 0) | (np.diff(order.indptr) > 0)
            if able[order.indices].all():
                return order, out, run, into
            order = onto(order, able)

    def _run(self, links: csr_array, has_question: NDArray[np.bool_]) -> csr_array:
        """Where a run of concepts ends that begins at each: csr_array (concepts, concepts), rows sum to 1."""
        # A concept from which no question can be reached is never entered: it has no question, so no q–c edge leads
        # there, and c–c edges go both ways.
        n = links.shape[0]
        has_link = np.diff(links.indptr) > 0
        here = scipy.sparse.csr_array(scipy.sparse.eye_array(n, format="csr"))  # (first concept, concept now)
        ended = scipy.sparse.csr_array((n, n), dtype=np.float64)
        for run in range(1, _ROUNDS):
            stay = np.where(has_question, self.alpha**run, 1.0) * has_link
            ended = ended + here @ scipy.sparse.diags_array(np.where(has_question, 1.0 - stay, 0.0))
            here = scipy.sparse.csr_array(here @ scipy.sparse.diags_array(stay) @ links)
            if here.nnz == 0 or here.sum(axis=1).max() < 1e-17:
                break
        return rows(scipy.sparse.csr_array(ended))

    def tables(self, graph: KnowledgeGraph) -> Tables:
        from qcq.walks.tables import just, kept

        return kept(graph, f"just/{self.alpha}/tables", lambda: just(self.alpha, *self._steps(graph)))

    def chain(self, graph: KnowledgeGraph) -> Chain:
        """The exact chain where only concepts can stay; otherwise the walk counts its questions, and there is none."""
        from qcq.floors.markov import MarkovChain

        order, out, run, into = self._steps(graph)
        if order.nnz:
            raise ChainError(
                "no exact chain for just: whether it stays hangs on how many questions it has stayed for already; "
                "metapath mixtures of q-q and q-c-q have one"
            )
        start = np.ones(graph.n_questions) if self.start == "question" else self.strength(graph)
        return MarkovChain(scipy.sparse.csr_array(out @ run), into, start, self.length, False, graph.digest)


def _or_none(graph: TypedGraph, a: str, b: str) -> csr_array | None:
    try:
        return graph.relation(a, b)
    except GraphError:  # no such edges here; that there are none of either kind is said by the caller
        return None
