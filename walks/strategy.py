"""What every walk strategy shares: its options, and the promise it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from qcq.corpus import Corpus
from qcq.errors import ChainError
from qcq.graph import KnowledgeGraph
from qcq.settings import settings

if TYPE_CHECKING:
    from qcq.chain import MarkovChain


@settings
class WalkStrategy(ABC):
    """A way of walking over the graph. The class is its configuration.

    Parameters
    ----------
    length : questions in a walk (with ``keep_concepts`` the concepts between them are tokens too: 2·length - 1).
    per_question : walks a question; with ``start="degree"`` the same total, starts drawn in proportion to degree.
    start : where walks begin.
    keep_concepts : keep the concept tokens between the questions.
    """

    length: Annotated[int, Field(ge=1)] = 40
    per_question: Annotated[int, Field(ge=1)] = 10
    start: Literal["question", "degree"] = "question"
    keep_concepts: bool = False

    @abstractmethod
    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        """Sample the corpus: same graph, settings and seed, same bytes.

        Parameters
        ----------
        graph : what to walk on.
        seed : which random stream.
        limit : at most this many walks, from starts drawn at random among those that the settings ask for; used for
            held-out walks.
        """

    def chain(self, graph: KnowledgeGraph) -> MarkovChain:
        """The exact Markov chain of this walk.

        Raises
        ------
        ChainError : this walk has none; the text says why.
        """
        raise ChainError(f"no exact chain for {type(self).__name__}")

    @property
    def config(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)
