"""What every walk strategy shares: its options, and the promise it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qcq.corpus import Corpus
from qcq.errors import ChainError
from qcq.graph import KnowledgeGraph
from qcq.support.progress import Progress, silent
from qcq.support.settings import settings
from qcq.support.types import takes

if TYPE_CHECKING:
    from qcq.data import TrainPart
    from qcq.embeddings import Embeddings
    from qcq.floors.chain import Chain
    from qcq.walks.step import Step
    from qcq.walks.streaming import Plan

MAX_MEMORY = 2**30  # bytes that sampling to disk holds unless told otherwise


@settings
class WalkStrategy(ABC):
    """A way of walking over the graph. The class is its configuration; a subclass says how it steps.

    Parameters
    ----------
    length : questions in a walk (with ``keep_concepts`` the concepts between them are tokens too: 2·length - 1).
    per_question : walks a question; with ``start="degree"`` the same total, starts drawn in proportion to degree.
    start : where walks begin. With ``"question"`` walk i starts at question i mod Q.
    keep_concepts : keep the concept tokens between the questions.

    Class attributes
    ----------------
    name : what the command line and every result call it.
    sampled : False where walks aren't drawn but found, so that ``per_question`` has no say.
    tallies : what the step counts beside ``early_ends``; at most two names.
    revision : raised by its author when the same settings and seed give other walks; finished runs then do them again.
    """

    name: ClassVar[str] = ""
    sampled: ClassVar[bool] = True
    tallies: ClassVar[tuple[str, ...]] = ()
    revision: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        if "chain" in vars(cls):
            cls.chain = takes(graph="KnowledgeGraph")(cls.chain)  # type: ignore[method-assign]
        if "name" not in vars(cls):  # outside code is called as the command line names it
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    length: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    per_question: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    start: Literal["question", "degree"] = "question"
    keep_concepts: bool = False

    @abstractmethod
    def tables(self, graph: KnowledgeGraph) -> Step:
        """The step on this graph (``qcq.walks.step``): what it reads, packed, and by its type how it moves."""

    @takes(graph="KnowledgeGraph")
    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        """The graph with what this walk needs beside questions and concepts: nothing, for most.

        Parameters
        ----------
        graph : the training graph.
        train : the training students' responses, the only ones that may shape a walk; None where there are none.

        Raises
        ------
        WalkError : the walk needs responses and there are none.
        """
        return graph

    def facts(self, graph: KnowledgeGraph) -> dict[str, int]:
        """What ``Corpus.counts`` says of this walk on this graph beside what happened while sampling."""
        return {}

    @takes(graph="KnowledgeGraph")
    def remarks(self, graph: KnowledgeGraph) -> tuple[str, ...]:
        """What a user should hear before reading a result of this walk on this graph, one line each."""
        return ()

    def heldout(self, graph: KnowledgeGraph, seed: int, limit: int) -> Corpus:
        """At most ``limit`` walks of the same law for measuring losses, from a stream that no trainer learns from."""
        return self.sample(graph, seed, limit=limit)

    def to_questions(self, graph: KnowledgeGraph, embeddings: Embeddings) -> Embeddings:
        """Vectors of the questions of ``graph`` from those of :meth:`prepare`'s graph: the same, for most.

        Parameters
        ----------
        graph : the graph as it was before :meth:`prepare`.
        embeddings : what was learnt on the prepared one.
        """
        return embeddings

    def strength(self, graph: KnowledgeGraph) -> NDArray[np.float64]:
        """What ``start="degree"`` goes by: float64 (questions,), how much of the graph hangs on each question."""
        return np.diff(graph.weights.indptr).astype(np.float64)

    @takes(graph="KnowledgeGraph", seed="int")
    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        """Sample the corpus: same graph, settings and seed, same bytes, whatever the number of threads.

        Parameters
        ----------
        graph : what to walk on.
        seed : which random stream.
        limit : at most this many walks, drawn at random from the whole corpus; used for held-out walks.

        Raises
        ------
        WalkError : this walk can't be had on this graph.

        Examples
        --------
        >>> from qcq import WALKS, KnowledgeGraph
        >>> graph = KnowledgeGraph.from_edges([("q1", "c1"), ("q2", "c1"), ("q2", "c2"), ("q3", "c2")])
        >>> WALKS["non-backtracking"](length=3, per_question=1).sample(graph).tokens.shape
        (3, 3)
        """
        from qcq.walks.sampler import Sampler

        sampler = Sampler(self, graph, seed)
        tokens, counts = sampler.sample(sampler.some(limit) if limit is not None and limit < sampler.n_walks else None)
        return Corpus(
            [tokens],
            graph.n_questions,
            graph.n_concepts,
            graph.digest,
            {"name": self.name, **self.config},
            seed,
            self.named(counts) | self.facts(graph),
        )

    @takes(graph="KnowledgeGraph", directory="path", seed="int")
    def stream(
        self,
        graph: KnowledgeGraph,
        directory: str | Path,
        seed: int = 0,
        *,
        max_memory: int = MAX_MEMORY,
        progress: Progress = silent,
        replace: bool = False,
    ) -> Corpus:
        """Sample the corpus to disk, shard by shard, and read it back memory-mapped: the bytes of :meth:`sample`.

        A folder where the same walk was interrupted is gone on with; one that holds it whole is read as it is.

        Parameters
        ----------
        graph, seed : as for :meth:`sample`.
        directory : where the shards and ``corpus.json`` go.
        max_memory : bytes that sampling may hold, its packed copy of the graph included; the graph itself comes on
            top. It sets the size of the shards, and changes no byte of the walks.
        progress : told after every shard.
        replace : delete another corpus that the folder holds; otherwise that is an error.

        Raises
        ------
        WalkError : this walk can't be had on this graph, or in so little memory.
        CorpusError : the folder holds another corpus.
        """
        from qcq.walks.streaming import stream

        return stream(self, graph, directory, seed, max_memory, progress, replace)

    @takes(graph="KnowledgeGraph")
    def plan(self, graph: KnowledgeGraph, *, max_memory: int = MAX_MEMORY) -> Plan:
        """How many walks, tokens and bytes :meth:`stream` will make, and (from a short trial) about how long it takes.

        Examples
        --------
        >>> from qcq import WALKS, KnowledgeGraph
        >>> graph = KnowledgeGraph.from_edges([("q1", "c1"), ("q2", "c1")])
        >>> WALKS["qcq"]().plan(graph).tokens
        800
        """
        from qcq.walks.streaming import plan

        return plan(self, graph, max_memory, trial=True)

    def named(self, counts: NDArray[np.int64]) -> dict[str, int]:
        """What the loop counted, by name."""
        return {name: int(n) for name, n in zip(("early_ends", *self.tallies), counts, strict=False)}

    def chain(self, graph: KnowledgeGraph) -> Chain:
        """The exact Markov chain of this walk.

        Raises
        ------
        ChainError : this walk has none; the text says why.
        """
        raise ChainError(f"no exact chain for {self.name}: nobody has written it")

    @property
    def config(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)
