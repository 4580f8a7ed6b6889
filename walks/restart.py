"""Walks that come home: personalised PageRank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field

from qcq.errors import ChainError
from qcq.graph import KnowledgeGraph
from qcq.support.settings import settings
from qcq.walks.step import NONE, Bits, Ints, Lists, Step, choose, count, take, uniform, unit
from qcq.walks.strategy import WalkStrategy

if TYPE_CHECKING:
    from qcq.floors.chain import Chain


class RestartStep(NamedTuple):
    """Uniform, but before each step back to the walk's start with this probability."""

    lists: Lists
    probability: float

    def leave(self, place: Bits, c: Bits, x: Bits, y: Bits, counts: Ints) -> tuple[Bits, Bits]:
        jump = unit(x) < self.probability
        count(counts, 1, jump)
        via, at = uniform(self.lists, place, y)
        return choose(jump, NONE, via), at

    def land(self, via: Bits, at: Bits, rest: Bits, place: Bits, first: Bits) -> Bits:
        return choose(via == NONE, first, take(self.lists.to, at))


@settings
class Restart(WalkStrategy):
    """A q-c-q walk that, before each step, jumps back to its own start with a fixed probability.

    A walk from s visits questions in the long run with personalised PageRank (Page et al. 1999):
    π = r·δ_s + (1 - r)·π·P. A jump crosses no edge: with ``keep_concepts`` the two questions stand side by side, and
    the row has as many tokens less. ``restarts`` counts the jumps.

    Parameters
    ----------
    probability : r, of a jump before each step.
    """

    name: ClassVar[str] = "restart"
    tallies: ClassVar[tuple[str, ...]] = ("restarts",)

    probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.15

    def tables(self, graph: KnowledgeGraph) -> Step:
        from qcq.walks.tables import lists

        return RestartStep(lists(graph), self.probability)

    def chain(self, graph: KnowledgeGraph) -> Chain:
        """The plain chain where the walk never jumps; otherwise it remembers its start, and there is none."""
        from qcq.floors.markov import MarkovChain

        if self.probability > 0:
            raise ChainError(
                "no exact chain for restart: a jump leads back to the walk's own start, so where it goes next depends "
                "on more than the last question; qcq and weighted have one"
            )
        return MarkovChain.of_graph(graph, length=self.length, start=self.start, keep_concepts=self.keep_concepts)
