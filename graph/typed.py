"""The typed graph: concepts, and the students, answers, difficulty and successors of each question.

Everything here that derives from responses comes from a :class:`~qcq.data.TrainPart`, never from a data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.errors import GraphError, LeakageError
from qcq.graph.knowledge import KnowledgeGraph

if TYPE_CHECKING:
    from qcq.data.dataset import TrainPart

NODES = {
    "q": "question",
    "c": "concept",
    "p": "parent concept",
    "s": "student",
    "s+": "student by right answers",
    "s-": "student by wrong answers",
    "d": "difficulty bin",
}
EDGES = (("q", "c"), ("q", "s"), ("q", "s+"), ("q", "s-"), ("q", "d"), ("q", "q"), ("c", "p"), ("c", "c"))
LEAST = 5  # training responses that a question needs to be in a difficulty bin


@dataclass(frozen=True, eq=False, repr=False)
class TypedGraph(KnowledgeGraph):
    """A :class:`KnowledgeGraph` that also knows the training students' responses. :meth:`of` makes one.

    Edges by the types of their ends (``NODES``); each is a CSR matrix, made when it is first asked for:

    - q–c, from the Q-matrix;
    - q–s, q–s+, q–s-: a training student answered the question, at least once right, at least once wrong;
    - q–d: the question's difficulty bin, by its share of wrong answers (``difficulty``);
    - q–q: how often the second question came directly after the first in the training students' sequences; directed;
    - c–p: a concept and its parent; c–c: two concepts of which one is the parent or a prerequisite of the other.

    All weights are 1, except those of q–q.

    Parameters
    ----------
    train : the training part, or None: then the graph has only edges that need no responses.

    Raises
    ------
    LeakageError : ``train`` isn't the training part, or holds a response of another student.
    GraphError : ``train`` has other questions.

    Examples
    --------
    >>> from qcq.data import Simulated
    >>> data = Simulated(questions=60, concepts=8, students=40, responses=30).read()
    >>> graph = TypedGraph.of(KnowledgeGraph.from_dataset(data), data.split().train)
    >>> graph.relation("q", "s").shape, graph.relation("q", "q").shape
    ((60, 28), (60, 60))
    """

    train: TrainPart | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train is None:
            return
        from qcq.data.dataset import TrainPart

        train = TrainPart.checked(self.train)
        strangers = np.setdiff1d(train.interactions.student, train.students)
        if len(strangers):
            raise LeakageError(
                f"responses of {len(strangers)} students outside the training part were passed to the graph, of "
                f"{train.dataset.students[int(strangers[0])]!r} first; pass dataset.split().train as it is"
            )
        if tuple(train.dataset.questions) != tuple(self.questions):
            raise GraphError(f"responses to the questions of {train.dataset.name!r} don't fit this graph's questions")

    @classmethod
    def of(cls, graph: KnowledgeGraph, train: TrainPart | None) -> TypedGraph:
        """``graph`` with the responses of the training students."""
        same = {f.name: getattr(graph, f.name) for f in fields(KnowledgeGraph)}
        return cls(**same, train=train)

    def _hash(self) -> hashlib._Hash:
        h = super()._hash()
        if self.train is not None:
            r = self.train.interactions
            for array in (self.train.students, r.student, r.question, r.correct):
                h.update(np.ascontiguousarray(array).data)
            h.update(b"ordered" if r.ordered else b"unordered")
        return h

    def relation(self, a: str, b: str, *, bins: int = 10) -> scipy.sparse.csr_array:
        """Edges from nodes of type ``a`` to nodes of type ``b``: csr_array float64, sorted, without zeros.

        Parameters
        ----------
        a, b : keys of ``NODES``.
        bins : how many difficulty bins, where one end is ``d``.

        Raises
        ------
        GraphError : there are no such edges; the text says why.
        """
        if (a, b) not in EDGES:
            if (b, a) in EDGES:
                return _turned(self.relation(b, a, bins=bins))
            known = ", ".join(f"{one}–{other}" for one, other in EDGES)
            raise GraphError(f"there are no edges between {a} and {b}; there are {known}")
        if (a, b) == ("c", "c"):
            return self.concept_links
        if b == "q":
            return self.order
        if b == "c":
            return scipy.sparse.csr_array(self.weights != 0, dtype=np.float64)
        if b == "p":
            return self.concept_parents
        if b == "d":
            return self.difficulty(bins)
        return self.students({"s": None, "s+": 1, "s-": 0}[b])

    def _trained(self, what: str) -> TrainPart:
        if self.train is None:
            raise GraphError(
                f"{what} come from training responses, and this graph was given none; make it with "
                "TypedGraph.of(graph, split.train)"
            )
        return self.train

    def students(self, correct: Literal[0, 1] | None) -> scipy.sparse.csr_array:
        """1 where a student answered a question (right, wrong, or either): float64 (questions, training students)."""
        train = self._trained("edges to students")
        r = train.interactions
        keep = slice(None) if correct is None else r.correct == correct
        student = np.searchsorted(np.sort(train.students), r.student[keep])
        return _ones(r.question[keep], student, (self.n_questions, len(train.students)))

    def difficulty(self, bins: int = 10) -> scipy.sparse.csr_array:
        """Bins of equally many questions by the share of wrong answers: float64 (questions, bins).

        Questions with fewer than ``LEAST`` training responses are in no bin. Questions with equal shares are in the
        same bin, so some bins may be empty.
        """
        train = self._trained("difficulty bins")
        known = np.flatnonzero(train.counts >= LEAST)
        if not len(known):
            raise GraphError(f"no question has {LEAST} training responses, so there are no difficulty bins")
        share = train.difficulty[known]
        edges = np.quantile(share, np.arange(1, bins) / bins)
        return _ones(known, np.searchsorted(edges, share, side="right"), (self.n_questions, bins))

    @cached_property
    def order(self) -> scipy.sparse.csr_array:
        """How often question y came directly after x: float64 (questions, questions). Repeating x doesn't count."""
        r = self._trained("edges from question to question").interactions
        if not r.ordered:
            raise GraphError("the responses of this data set have no order, so no question follows another")
        one, next_ = r.question[:-1], r.question[1:]
        follows = (r.student[1:] == r.student[:-1]) & (one != next_)
        shape = (self.n_questions, self.n_questions)
        return _summed(one[follows], next_[follows], shape)

    @cached_property
    def concept_parents(self) -> scipy.sparse.csr_array:
        """1 where a concept has a parent: float64 (concepts, parents), parents in alphabetical order."""
        known = set(self.concepts)
        above = {c: p for c, p in self.parents.items() if c in known}
        if not above:
            raise GraphError("the concepts of this data set have no parents")
        parents = {p: i for i, p in enumerate(sorted(set(above.values())))}
        row = [i for i, c in enumerate(self.concepts) if c in above]
        return _ones(row, [parents[above[self.concepts[i]]] for i in row], (self.n_concepts, len(parents)))

    @cached_property
    def concept_links(self) -> scipy.sparse.csr_array:
        """1 where one concept is the parent or a prerequisite of the other: float64 (concepts, concepts), symmetric."""
        at = {c: i for i, c in enumerate(self.concepts)}
        pairs = [(at[a], at[b]) for a, b in (*self.parents.items(), *self.prerequisites) if a in at and b in at]
        if not pairs:
            raise GraphError("no concept is the parent or a prerequisite of another one, so there are no c–c edges")
        a, b = np.array(pairs).T
        return _ones(np.r_[a, b], np.r_[b, a], (self.n_concepts, self.n_concepts))


def _turned(m: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    turned = scipy.sparse.csr_array(m.T.tocsr())
    turned.sort_indices()
    return turned


Numbers = Sequence[int] | NDArray


def _summed(row: Numbers, column: Numbers, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    made = scipy.sparse.csr_array((np.ones(len(row)), (row, column)), shape=shape)
    made.sum_duplicates()
    return made


def _ones(row: Numbers, column: Numbers, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    made = _summed(row, column, shape)
    made.data[:] = 1.0
    return made


def onto(m: scipy.sparse.csr_array, columns: NDArray[np.bool_]) -> scipy.sparse.csr_array:
    """Only the edges to the allowed columns."""
    kept = scipy.sparse.csr_array(m @ scipy.sparse.diags_array(columns.astype(np.float64)))
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


def rows(m: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Rows scaled to sum to 1; a row without edges stays zero."""
    total = np.asarray(m.sum(axis=1)).ravel()
    each = m.data / np.repeat(np.where(total > 0, total, 1), np.diff(m.indptr))
    return scipy.sparse.csr_array((each, m.indices, m.indptr), shape=m.shape)
