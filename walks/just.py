"""Jump and stay: walks over several kinds of nodes without a metapath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import ChainError, ConfigError, GraphError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph, onto, rows
from qcq.support.settings import settings
from qcq.walks.counter import GOLDEN, mix
from qcq.walks.step import (
    AT,
    HALF,
    KEY,
    LOW,
    NONE,
    NOW,
    ONE,
    REST,
    SPARE,
    TWO,
    VIA,
    Bits,
    Cells,
    Ints,
    Step,
    cell,
    choose,
    count,
    decide,
    high,
    prefetch,
)
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from qcq.data import TrainPart
    from qcq.floors.chain import Chain

_31 = np.uint64(31)
_ROUNDS = 10_000  # concepts in a row at most; all but a vanishing share of the walks have left long before


class JustStep(NamedTuple):
    """Stay among the questions or jump to the concepts.

    Between steps, ``via`` isn't a concept but α to the power of how long the walk has stayed, out of 2^64; NONE, of who
    has just jumped, is as good as 1.

    Attributes
    ----------
    alpha : α out of 2^64: a stay goes on with probability α, α², … after 1, 2, … questions in a row.
    ptr : (2 · questions + 1,), uint32 where that is enough, else uint64; question q jumps to the concepts
        ``to[ptr[2q] : ptr[2q + 1]]`` and stays with the questions ``to[ptr[2q + 1] : ptr[2q + 2]]``, each uniformly; a
        question stands there as often as it followed.
    to : uint32, concepts and questions by their numbers.
    run : concept → the last concept of the stay that begins there.
    lists : uint64 (concepts + 1,); concept c leads to the questions ``to[lists[c] : lists[c + 1]]``.
    """

    alpha: np.uint64
    ptr: NDArray[np.uint32 | np.uint64]
    to: NDArray[np.uint32]
    run: Cells
    lists: NDArray[np.uint64]

    def begin(self, q: Bits) -> Bits:
        return q << HALF

    def ways(self, place: Bits) -> Bits:
        return np.uint64(self.ptr[(place >> _31) + TWO] - self.ptr[place >> _31])

    def step(self, place: Bits, c: Bits, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        at = place >> _31
        begin, middle, end = (np.uint64(self.ptr[at + i]) for i in (np.uint64(0), ONE, TWO))
        concepts, following = middle - begin, end - middle
        stay = _high(c, self.alpha)
        limit = choose(following == 0, np.uint64(0), choose(concepts == 0, NONE, stay))
        stays = (x | ONE) <= limit
        count(counts, 1, stays)
        x = x * GOLDEN
        n = choose(stays, following, concepts)
        spot = choose(stays, middle, begin) + high(x, n)
        jumps = np.flatnonzero(~stays)
        at, rest = cell(self.run, np.uint64(self.to[spot[jumps]]), (x * n)[jumps])
        last = decide(self.run, at, rest)
        at = self.lists[last]
        spot[jumps] = at + high(rest * GOLDEN, self.lists[last + ONE] - at)
        return np.uint64(self.to[spot]) << HALF, choose(stays, stay, NONE)

    def depart(self, lane: Bits, lanes: Bits, x: Bits, y: Bits, counts: Ints) -> None:
        # Nobody knows which walks jump, so a branch would be guessed wrong all the time: the jumpers are listed.
        jumpers = np.uint64(0)
        for w in range(lanes):
            draw = mix(lane[KEY + w] + x)
            at = lane[NOW + w] >> _31
            begin, middle, end = np.uint64(self.ptr[at]), np.uint64(self.ptr[at + ONE]), np.uint64(self.ptr[at + TWO])
            concepts, following = middle - begin, end - middle
            stay = high(lane[VIA + w], self.alpha)
            limit = choose(following == 0, np.uint64(0), choose(concepts == 0, NONE, stay))
            stays = (draw | ONE) <= limit  # so that 0 is never and NONE always
            n = choose(stays, following, concepts)
            # The coin leaves the draw somewhere in one interval, but its golden multiples are still spread evenly.
            draw *= GOLDEN
            spot = choose(stays, middle, begin) + high(draw, n)
            lane[VIA + w] = choose(stays, stay, NONE)
            lane[AT + w] = spot
            lane[REST + w] = draw * n
            lane[SPARE + jumpers] = w
            jumpers += choose(stays, np.uint64(0), ONE)
            prefetch(self.to, spot)
        counts[1] += np.int64(lanes - jumpers)
        for j in range(jumpers):
            w = lane[SPARE + j]
            at, rest = cell(self.run, np.uint64(self.to[lane[AT + w]]), lane[REST + w])
            lane[AT + w] = at
            lane[REST + w] = rest
            prefetch(self.run.cells, TWO * at)
        for j in range(jumpers):
            w = lane[SPARE + j]
            rest = lane[REST + w]
            last = decide(self.run, lane[AT + w], rest)
            at = self.lists[last]
            spot = at + high(rest * GOLDEN, self.lists[last + ONE] - at)
            lane[AT + w] = spot
            prefetch(self.to, spot)

    def land(self, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
        return np.uint64(self.to[at]) << HALF

    def ask(self, place: Bits) -> None:
        prefetch(self.ptr, place >> _31)


def _high(a: Bits, b: np.uint64) -> Bits:
    """The upper 64 bits of a 128-bit product: ``high`` for any ``b``, which only numpy has to spell out."""
    low = (a & LOW) * (b & LOW) >> HALF
    middle = (a >> HALF) * (b & LOW) + low
    return (a >> HALF) * (b >> HALF) + (middle >> HALF) + ((a & LOW) * (b >> HALF) + (middle & LOW) >> HALF)


def _step(alpha: float, order: csr_array, out: csr_array, run: csr_array, into: csr_array) -> JustStep:
    """Pack what :meth:`Just._steps` made."""
    from qcq.walks.tables import cells

    both = scipy.sparse.csr_array(scipy.sparse.hstack([out != 0, order], format="csr"))
    both.sort_indices()
    ptr = np.zeros(2 * out.shape[0] + 1, dtype=np.int64)
    ptr[1::2] = np.diff(out.indptr)
    ptr[2::2] = np.asarray(order.sum(axis=1)).ravel()
    ptr = np.cumsum(ptr)
    to = np.repeat(both.indices, both.data.astype(np.int64))
    to = np.where(to < out.shape[1], to, to - out.shape[1])
    return JustStep(
        np.uint64(int(alpha * 2**64)),
        ptr.astype(np.uint32 if ptr[-1] <= LOW else np.uint64),
        np.concatenate([to, into.indices]).astype(np.uint32),
        cells(run),
        (into.indptr + len(to)).astype(np.uint64),
    )


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

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import kept

        return kept(graph, f"just/{self.alpha}/tables", lambda: _step(self.alpha, *self._steps(graph)))

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
