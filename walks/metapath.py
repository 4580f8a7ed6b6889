"""Walks along typed edges: metapaths, and mixtures of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple, TypeAlias

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.errors import ConfigError, GraphError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import EDGES, NODES, TypedGraph, onto, rows
from qcq.support.settings import settings
from qcq.walks.counter import mix
from qcq.walks.qcq import UniformStep
from qcq.walks.step import (
    AT,
    HALF,
    KEY,
    NOW,
    ONE,
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
    high,
    prefetch,
)
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from qcq.data import TrainPart
    from qcq.floors.chain import Chain

_STATIC = {"q", "c", "p"}  # types that need no responses
_BETWEEN = "(?<!s)-|(?<=s)-(?!-)"  # the dash between two types, which isn't the one of "s-"


@dataclass(frozen=True)
class Component:
    """One metapath of a mixture: types from question to question, and its share."""

    types: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        return "-".join(self.types)


def parse(pattern: str) -> tuple[tuple[Component, ...], float]:
    """The components of a pattern, shares normalised, and what the shares summed to as they were given.

    Raises
    ------
    ConfigError : the pattern can't be read; one line.

    Examples
    --------
    >>> made, total = parse("3*q-c-q + q-s+-q")
    >>> [(str(c), c.share) for c in made], total
    ([('q-c-q', 0.75), ('q-s+-q', 0.25)], 4.0)
    """

    def error(what: str) -> ConfigError:
        return ConfigError(f"setting pattern: {what}, given {pattern!r}")

    found: dict[tuple[str, ...], float] = {}
    weighted = False
    for term in re.split(r"\+(?!-)", pattern):  # the plus of "s+" stands before a dash
        weight, star, path = term.rpartition("*")
        weighted |= bool(star)
        try:
            share = float(weight) if star else 1.0
        except ValueError:
            raise error(f"{weight.strip()!r} is no number; write for example 0.6*q-c-q + 0.4*q-s-q") from None
        if not 0 < share < np.inf:
            raise error(f"a share must be positive and finite, not {weight.strip()}")
        types = tuple(re.split(_BETWEEN, path.strip()))
        if "" in types:
            raise error("a type is missing; write for example q-c-q")
        for kind in types:
            if kind not in NODES:
                raise error(f"there is no node type {kind!r}; there are {', '.join(NODES)}")
        if len(types) < 2 or (types[0], types[-1]) != ("q", "q"):
            raise error(f"{path.strip()!r} must lead from q to q")
        if "q" in types[1:-1]:
            raise error(
                f"{path.strip()!r} passes a question on its way, and a step goes from one question to the next; "
                "mix the parts, as in 0.5*q-c-q + 0.5*q-s-q"
            )
        for a, b in pairwise(types):
            if (a, b) not in EDGES and (b, a) not in EDGES:
                raise error(f"there are no edges between {a} and {b} in {path.strip()!r}")
        found[types] = found.get(types, 0.0) + share
    total = sum(found.values())
    return tuple(Component(types, share / total) for types, share in found.items()), total if weighted else 1.0


@dataclass(frozen=True, eq=False)
class Mixture:
    """A pattern on a graph: one step U from questions to stacked hubs, one step V back.

    Attributes
    ----------
    out : U, csr_array (questions × hubs); a row sums to 1, or to 0 where nothing leads out of the question.
    into : V, csr_array (hubs × questions), uniform in every row: only q–q edges have weights, and they lead to a hub.
    degree : float64 (questions,), the share-weighted mean of the components' degrees, each scaled to sum to 1: the
        stationary law of one undirected component.
    served : component → bool (questions,), whether it leads out of the question.
    rescued : bool (questions,), those that no component serves and the step over concepts does.
    """

    out: csr_array
    into: csr_array
    degree: NDArray[np.float64]
    served: dict[str, NDArray[np.bool_]]
    rescued: NDArray[np.bool_]

    @cached_property
    def stationary(self) -> NDArray[np.float64]:
        """A law that the walk keeps: float64 (questions,), by iterating the lazy walk (I + P)/2 on ``degree``."""
        pi = self.degree
        u, v = self.out.T.tocsr(), self.into.T.tocsr()
        for _ in range(_ROUNDS):
            moved = (pi + v @ (u @ pi)) / 2
            if np.abs(moved - pi).sum() <= 1e-12 * pi.sum():
                break
            pi = moved
        return pi


_ROUNDS = 3_000
_Steps: TypeAlias = "tuple[csr_array, csr_array, NDArray[np.float64]]"


class StackedStep(NamedTuple):
    """A hub in proportion to its weight, then one of its questions uniformly.

    Attributes
    ----------
    hubs : question → hub.
    ptr : uint64 (hubs + 1,); the questions of hub h are ``to[ptr[h] : ptr[h + 1]]``.
    to : uint32 (edges,).
    """

    hubs: Cells
    ptr: NDArray[np.uint64]
    to: NDArray[np.uint32]

    def begin(self, q: Bits) -> Bits:
        return q << HALF

    def ways(self, place: Bits) -> Bits:
        return degree(self.hubs, place >> HALF)

    def step(self, place: Bits, c: Bits, first: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        via = decide(self.hubs, *cell(self.hubs, place >> HALF, x))
        at = self.ptr[via]
        return np.uint64(self.to[at + high(y, self.ptr[via + ONE] - at)]) << HALF, via

    def depart(self, lane: Bits, lanes: Bits, x: Bits, y: Bits, counts: Ints) -> None:
        for w in range(lanes):
            at, rest = cell(self.hubs, lane[NOW + w] >> HALF, mix(lane[KEY + w] + x))
            lane[AT + w] = at
            lane[REST + w] = rest
            prefetch(self.hubs.cells, TWO * at)
        for w in range(lanes):
            via = decide(self.hubs, lane[AT + w], lane[REST + w])
            at = self.ptr[via]
            spot = at + high(mix(lane[KEY + w] + y), self.ptr[via + ONE] - at)
            lane[VIA + w] = via
            lane[AT + w] = spot
            prefetch(self.to, spot)

    def land(self, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
        return np.uint64(self.to[at]) << HALF

    def ask(self, place: Bits) -> None:
        prefetch(self.hubs.ptr, place >> HALF)


def _step(out: csr_array, into: csr_array) -> Step:
    """A step to weighted hubs and back to any of a hub's questions.

    Where no question prefers one of its hubs, as with a single pattern of unweighted edges, that is ``qcq`` on hubs.
    """
    from qcq.walks.tables import cells, packed

    first = np.repeat(out.indptr[:-1], np.diff(out.indptr))
    if np.allclose(out.data, out.data[first], rtol=1e-12, atol=0):
        return UniformStep(packed(out, into))
    return StackedStep(cells(out), into.indptr.astype(np.uint64), into.indices.astype(np.uint32))


@settings
class Metapath(WalkStrategy):
    """From question to question along typed edges; with a mixture, the kind of path is chosen anew at every step.

    A pattern names node types from question to question: ``q-c-q``, ``q-s-q``, ``q-s+-q``, ``q-s--q``, ``q-d-q``,
    ``q-q``, ``q-c-c-q``, ``q-c-p-c-q`` (``qcq.graph.typed.NODES`` explains them). A mixture weighs several,
    ``0.6*q-c-q + 0.4*q-s+-q``. A step draws a component, then one edge after the other: uniformly, but q–q in
    proportion to how often the one question followed the other. So the walk is a first-order Markov chain with
    P = Σ_k w_k P_k, and stacking the components' hubs, U = [w_1 U_1 | w_2 U_2 | …], makes it P = U V.

    An edge that can't be continued to a question is never taken. Where a component doesn't lead out of a question, its
    share goes to the others, in proportion; where none does, the walk takes the step q-c-q. Both are counted. With
    ``start="degree"`` walks start from the walk's stationary law.

    Students, bins and order come from the training part alone. A difficulty bin *is* the question's share of wrong
    answers, cut in steps, so a high figure of the task ``difficulty`` on such walks says that they carry it, not that
    anything was found out.

    Parameters
    ----------
    pattern : the metapath, or mixture; shares that don't sum to 1 are normalised.
    bins : difficulty bins, for ``d``.

    References
    ----------
    Dong, Chawla & Swami 2017, metapath2vec: scalable representation learning for heterogeneous networks (KDD), eq. 3
    (for a single pattern).
    """

    name: ClassVar[str] = "metapath"

    pattern: str = "0.6*q-c-q + 0.4*q-s+-q"
    bins: Annotated[int, Field(ge=2, le=1000)] = 10

    def __post_init__(self) -> None:
        components, _ = parse(self.pattern)
        if self.keep_concepts and [c.types for c in components] != [("q", "c", "q")]:
            raise ConfigError(
                f"setting keep_concepts: between the questions of {self.pattern!r} there isn't always one concept; "
                "only q-c-q can keep them"
            )

    @property
    def components(self) -> tuple[Component, ...]:
        """What is mixed; shares sum to 1."""
        return parse(self.pattern)[0]

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        wanted = {kind for c in self.components for kind in c.types} - _STATIC
        ordered = any(c.types == ("q", "q") for c in self.components)
        if not wanted and not ordered:
            self.mixture(graph)
            return graph
        if train is None:
            raise WalkError(
                f"metapath.pattern={self.pattern!r} needs {'students' if wanted else 'an order'}, and the data set has "
                "no responses; only c and p can be walked there"
            )
        typed = TypedGraph.of(graph, train)
        self.mixture(typed)
        return typed

    def mixture(self, graph: KnowledgeGraph) -> Mixture:
        """The pattern as two steps on this graph.

        Raises
        ------
        WalkError : a component has no path at all on this graph; the text says why.
        """
        from qcq.walks.tables import kept

        return kept(graph, f"mixture/{self.pattern}/{self.bins}", lambda: self._mix(graph))

    def _mix(self, graph: KnowledgeGraph) -> Mixture:
        typed = graph if isinstance(graph, TypedGraph) else TypedGraph.of(graph, None)
        has_concept = np.diff(graph.weights.indptr) > 0
        able = np.ones(graph.n_questions, dtype=bool)
        while True:  # a question that can't be left again is no place to go; only q–q leads to such
            steps = [self._steps(typed, c, able) for c in self.components]
            served = np.array([degree > 0 for _, _, degree in steps])  # (components, questions)
            still = served.any(axis=0) | has_concept
            if (still | ~able).all():
                break
            able &= still
        share = served * np.array([[c.share] for c in self.components])
        total = share.sum(axis=0)
        rescued = (total == 0) & has_concept
        share = np.vstack([share / np.where(total > 0, total, 1), rescued])  # (components + 1, questions)
        if rescued.any():
            steps.append(self._steps(typed, Component(("q", "c", "q"), 1.0), able))
        out = [scipy.sparse.diags_array(w) @ u for w, (u, _, _) in zip(share, steps, strict=False)]
        u = scipy.sparse.csr_array(scipy.sparse.hstack(out, format="csr"))
        u.eliminate_zeros()
        u.sort_indices()
        v = scipy.sparse.csr_array(scipy.sparse.vstack([v for _, v, _ in steps], format="csr"))
        degree = sum(c.share * d / d.sum() for c, (_, _, d) in zip(self.components, steps, strict=False))
        return Mixture(
            u, v, np.asarray(degree), {str(c): s for c, s in zip(self.components, served, strict=True)}, rescued
        )

    def _steps(self, graph: TypedGraph, component: Component, able: NDArray[np.bool_]) -> _Steps:
        """U and V of one component (its last node before the question is the hub), and the questions' degrees."""
        try:
            edges = [graph.relation(a, b, bins=self.bins) for a, b in pairwise(component.types)]
        except GraphError as error:
            raise WalkError(f"metapath.pattern: {component} can't be walked: {error}") from None
        arrives, first = able, edges[0]
        for i in range(len(edges) - 1, -1, -1):  # keep the edges from which a question can be reached
            first = onto(edges[i], arrives)
            edges[i] = rows(first)
            arrives = np.diff(edges[i].indptr) > 0
        if not arrives.any():
            raise WalkError(f"metapath.pattern: {component} can't be walked: no such path from any question")
        degree = np.asarray(first.sum(axis=1)).ravel()
        if len(edges) == 1:  # q-q: the next question is its own hub
            same = scipy.sparse.csr_array(scipy.sparse.diags_array(able.astype(np.float64), format="csr"))
            return edges[0], onto(same, able), degree
        first = edges[0]
        for middle in edges[1:-1]:
            first = scipy.sparse.csr_array(first @ middle)
        first.eliminate_zeros()
        first.sort_indices()
        return first, edges[-1], degree

    def facts(self, graph: KnowledgeGraph) -> dict[str, int]:
        made = self.mixture(graph)
        alone = {f"questions_without_{name}": int((~served).sum()) for name, served in made.served.items()}
        return {**alone, "questions_on_fallback": int(made.rescued.sum())}

    def remarks(self, graph: KnowledgeGraph) -> tuple[str, ...]:
        components, total = parse(self.pattern)
        said = []
        if abs(total - 1.0) > 1e-9:
            normal = " + ".join(f"{c.share:.4g}*{c}" for c in components)
            said.append(f"metapath.pattern: the shares sum to {total:g}; normalised to {normal}")
        made = self.mixture(graph)
        for name, served in made.served.items():
            if missing := int((~served).sum()):
                said.append(f"metapath: {name} leads nowhere from {missing:,} of {graph.n_questions:,} questions")
        if rescued := int(made.rescued.sum()):
            said.append(f"metapath: {rescued:,} of these, served by no component, are left by q-c-q instead")
        return tuple(said)

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import kept

        made = self.mixture(graph)
        return kept(graph, f"mixture/{self.pattern}/{self.bins}/tables", lambda: _step(made.out, made.into))

    def strength(self, graph: KnowledgeGraph) -> NDArray[np.float64]:
        return self.mixture(graph).stationary

    def chain(self, graph: KnowledgeGraph) -> Chain:
        from qcq.floors.markov import MarkovChain

        made = self.mixture(graph)
        start = np.ones(graph.n_questions) if self.start == "question" else made.stationary
        return MarkovChain(made.out, made.into, start, self.length, self.keep_concepts, graph.digest)
