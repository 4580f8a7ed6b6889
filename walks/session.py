"""No walk at all: what the training students really did, one question after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.corpus import Corpus, CorpusWriter, Header
from qcq.embeddings import Embeddings
from qcq.errors import ChainError, ConfigError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.support.progress import Progress, silent
from qcq.support.seeds import generator
from qcq.support.settings import settings
from qcq.walks.strategy import MAX_MEMORY, WalkStrategy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from qcq.data import TrainPart
    from qcq.floors.chain import Chain
    from qcq.walks.step import Step
    from qcq.walks.streaming import Plan

_MARKS = "+", "-"


@settings
class Session(WalkStrategy):
    """No walk: the training students' own sequences of questions, cut into windows of ``length``.

    The only corpus with a true order, and so the control for whether order matters. Each student's first cut is drawn
    uniformly, so a sequence may begin and end with a shorter window and another seed cuts elsewhere; nothing else is
    random. How many windows there are is the students' doing: ``per_question`` isn't used. Questions that no training
    student met are in no window and keep what their trainer began with; they are counted.

    Parameters
    ----------
    responses : tokens are a question *and* its answer, ``17+`` and ``17-``; a question's vector is the two of them, one
        after the other, so it is twice as long.
    held_out : share of the training students whose sequences no trainer sees; losses are measured on them.
    """

    name: ClassVar[str] = "session"
    sampled: ClassVar[bool] = False

    responses: bool = False
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        if self.keep_concepts:
            raise ConfigError("setting keep_concepts: a session is what students did, there are no concepts between")
        if self.start != "question":
            raise ConfigError("setting start: a session starts where its student did; leave start alone")

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        if train is None:
            raise WalkError("session needs students' sequences, and the data set has no responses; take qcq")
        if not train.interactions.ordered:
            raise WalkError("session needs an order, and the responses of this data set have none; take metapath q-s-q")
        typed = TypedGraph.of(graph, train)  # who isn't the training part is found out here
        return _answered(typed, train) if self.responses else typed

    def to_questions(self, graph: KnowledgeGraph, embeddings: Embeddings) -> Embeddings:
        if not self.responses:
            return embeddings
        n = len(graph.questions)
        both = np.hstack([embeddings.vectors[:n], embeddings.vectors[n:]])  # (questions, 2 dim)
        return Embeddings(graph.questions, both, provenance=embeddings.provenance)

    def tables(self, graph: KnowledgeGraph) -> Step:
        raise WalkError("session has no steps: its windows are read, not walked")

    def chain(self, graph: KnowledgeGraph) -> Chain:
        raise ChainError(
            "no exact chain for session: students made these sequences, and nobody knows the law they followed"
        )

    def facts(self, graph: KnowledgeGraph) -> dict[str, int]:
        r = _of(graph).interactions
        seen = r.question[~np.isin(r.student, self._set_aside(_of(graph).students))]
        return {"questions_in_no_session": graph.n_questions - len(np.unique(seen))}

    def remarks(self, graph: KnowledgeGraph) -> tuple[str, ...]:
        unmet = self.facts(graph)["questions_in_no_session"]
        if not unmet:
            return ()
        kind = "question–answer pairs" if self.responses else "questions"
        return (f"session: {unmet:,} of {graph.n_questions:,} {kind} are in no training sequence",)

    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        return self._corpus(graph, seed, limit, held_out=False)

    def heldout(self, graph: KnowledgeGraph, seed: int, limit: int) -> Corpus:
        return self._corpus(graph, seed, limit, held_out=True)

    def _corpus(self, graph: KnowledgeGraph, seed: int, limit: int | None, *, held_out: bool) -> Corpus:
        begin, n = self._windows(graph, seed, held_out=held_out)
        if limit is not None and limit < len(n):
            some = generator(seed, "session", "limit").choice(len(n), size=limit, replace=False)
            begin, n = begin[some], n[some]
        strategy = {"name": self.name, **self.config}
        rows, counts = self._rows(graph, begin, n), self._counts(graph, n)
        return Corpus([rows], graph.n_questions, graph.n_concepts, graph.digest, strategy, seed, counts)

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
        plan = self.plan(graph, max_memory=max_memory, seed=seed)
        begin, n = self._windows(graph, seed, held_out=False)
        strategy = {"name": self.name, **self.config}
        about = Header(len(n), self.length, graph.n_questions, graph.n_concepts, graph.digest, strategy, seed)
        writer = CorpusWriter(directory, about, replace=replace)
        progress(writer.done, about.walks)
        for at in range(writer.done, about.walks, plan.shard_walks):
            part = slice(at, at + plan.shard_walks)
            writer.add(self._rows(graph, begin[part], n[part]))
            progress(writer.done, about.walks)
        return writer.finish(self._counts(graph, n))

    def plan(self, graph: KnowledgeGraph, *, max_memory: int = MAX_MEMORY, seed: int = 0) -> Plan:
        from qcq.walks.streaming import SHARD_BYTES, Plan

        n_walks = len(self._windows(graph, seed, held_out=False)[1])
        row = 4 * self.length
        if max_memory < row:
            raise WalkError(f"max_memory of {max_memory} bytes is too little for a window; give at least {row}")
        shard = max(1, min(min(max_memory, SHARD_BYTES) // row, n_walks))
        shards = -(-n_walks // shard)
        return Plan(n_walks, n_walks * self.length, n_walks * row, shards, shard, shard * row)

    def _windows(self, graph: KnowledgeGraph, seed: int, *, held_out: bool) -> tuple[NDArray, NDArray]:
        """Where each window begins among the training responses, and how many it holds: int64 (windows,) each."""
        train = _of(graph)
        r = train.interactions
        first = np.ones(len(r), dtype=bool)  # (responses,), a student's first
        first[1:] = r.student[1:] != r.student[:-1]
        who = np.cumsum(first) - 1
        place = np.arange(len(r)) - np.flatnonzero(first)[who]
        offset = generator(seed, "session", "cuts").integers(0, self.length, size=int(first.sum()))
        begin = np.flatnonzero(first | ((place - offset[who]) % self.length == 0))
        n = np.diff(np.append(begin, len(r)))
        mine = np.isin(r.student[begin], self._set_aside(train.students)) == held_out
        if not mine.any():
            raise WalkError(
                f"session: no {'held-out' if held_out else 'training'} student has a response; "
                "the training part needs a few students more"
            )
        return begin[mine], n[mine]

    def _set_aside(self, students: NDArray[np.int32]) -> NDArray[np.int32]:
        """The training students whose sequences are held out, the same for every seed."""
        order = generator(0, "session", "held-out").permutation(np.sort(students))
        return order[: max(1, round(self.held_out * len(order)))] if len(order) > 1 else order[:0]

    def _rows(self, graph: KnowledgeGraph, begin: NDArray, n: NDArray) -> NDArray[np.int32]:
        question = _of(graph).interactions.question
        at = np.arange(self.length)
        inside = at < n[:, None]  # (windows, length)
        rows = question[np.where(inside, begin[:, None] + at, 0)]
        return np.where(inside, rows, -1).astype(np.int32)

    def _counts(self, graph: KnowledgeGraph, n: NDArray) -> dict[str, int]:
        return {"short_windows": int((n < self.length).sum()), **self.facts(graph)}


def _of(graph: KnowledgeGraph) -> TrainPart:
    if not isinstance(graph, TypedGraph) or graph.train is None:
        raise WalkError(
            "session needs students' sequences, and this graph knows of none; "
            "pass it through session.prepare(graph, split.train)"
        )
    if not graph.train.interactions.ordered:
        raise WalkError("session needs an order, and the responses of this graph have none; take metapath q-s-q")
    return graph.train


def _answered(graph: TypedGraph, train: TrainPart) -> TypedGraph:
    """The graph whose questions are ``17+`` (first half) and ``17-``: each has the edges of question 17."""
    questions = [f"{q}{mark}" for mark in _MARKS for q in graph.questions]
    n, r = graph.n_questions, train.interactions
    token = np.where(r.correct == 1, r.question, r.question + n).astype(np.int32)

    def twice(m: csr_array) -> csr_array:
        return scipy.sparse.csr_array(scipy.sparse.vstack([m, m], format="csr"))

    dataset = replace(train.dataset, questions=questions, q_matrix=twice(train.dataset.q_matrix), interactions=None)
    answered = replace(train, dataset=dataset, interactions=replace(r, question=token))
    return replace(graph, questions=questions, weights=twice(graph.weights), responses=None, train=answered)
