"""Walks in random order: what a model learns if it only knows which tokens are in one walk."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qcq.corpus import Corpus
from qcq.errors import ChainError
from qcq.floors.chain import Chain
from qcq.graph import KnowledgeGraph
from qcq.support.progress import Progress, silent
from qcq.support.seeds import generator
from qcq.support.settings import settings
from qcq.walks import QCQ, WalkStrategy
from qcq.walks.step import Step
from qcq.walks.strategy import MAX_MEMORY


@settings
class Shuffled(WalkStrategy):
    """Another walk with the tokens of each walk in random order: only which tokens are in one walk is left.

    Parameters
    ----------
    walk : the walk whose order is destroyed.
    """

    name: ClassVar[str] = "shuffled"
    code: ClassVar[tuple[str, ...]] = ("qcq.study.shuffled",)

    walk: WalkStrategy = field(default_factory=QCQ)

    def prepare(self, graph: KnowledgeGraph, train: Any) -> KnowledgeGraph:
        return self.walk.prepare(graph, train)

    def tables(self, graph: KnowledgeGraph) -> Step:
        return self.walk.tables(graph)

    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        return self._mixed(self.walk.sample(graph, seed, limit=limit))

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
        return Corpus.load(self.sample(graph, seed).save(directory))

    def heldout(self, graph: KnowledgeGraph, seed: int, limit: int) -> Corpus:
        return self._mixed(self.walk.heldout(graph, seed, limit))

    def chain(self, graph: KnowledgeGraph) -> Chain:
        raise ChainError("no exact chain for shuffled walks: their order is gone")

    def _mixed(self, corpus: Corpus) -> Corpus:
        tokens = corpus.tokens
        key = generator(corpus.seed, "shuffled").random(tokens.shape)
        mixed = np.take_along_axis(tokens, np.argsort(np.where(tokens < 0, 2.0, key), axis=1), axis=1)  # pads stay last
        about = {"name": self.name, **self.config}
        return Corpus([mixed], corpus.n_questions, corpus.n_concepts, corpus.graph_digest, about, corpus.seed)

    @property
    def config(self) -> dict[str, Any]:
        return {"walk": {"name": self.walk.name, **self.walk.config}}
