"""What a reader returns: the Q-matrix, optional responses, names. And the split of the students into parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import ArrayLike, NDArray

from qcq.errors import DataError, LeakageError
from qcq.support.notebook import first, html_table
from qcq.support.seeds import generator
from qcq.support.words import in_short, several


@dataclass(frozen=True, eq=False)
class Interactions:
    """Responses, grouped by student and in the order in which each student gave them.

    Attributes
    ----------
    student : int32 (n,), ascending. Index into ``Dataset.students``.
    question : int32 (n,). Index into ``Dataset.questions``.
    correct : int8 (n,), 0 or 1.
    timestamp : float64 (n,) in seconds, or None where the source gives only an order (or none).
    ordered : False where the source has no order: then the order within a student means nothing.
    """

    student: NDArray[np.int32]
    question: NDArray[np.int32]
    correct: NDArray[np.int8]
    timestamp: NDArray[np.float64] | None = None
    ordered: bool = True

    def __len__(self) -> int:
        return len(self.student)

    def __repr__(self) -> str:
        return in_short("Interactions", several(len(self), "response"), "" if self.ordered else "without an order")

    @classmethod
    def sorted(
        cls,
        order: NDArray[np.int64],
        student: ArrayLike,
        question: ArrayLike,
        correct: ArrayLike,
        timestamp: NDArray[np.float64] | None = None,
        ordered: bool = True,
    ) -> Interactions:
        """Rows in any order, taken in ``order``."""
        return cls(
            np.asarray(student, dtype=np.int32)[order],
            np.asarray(question, dtype=np.int32)[order],
            np.asarray(correct, dtype=np.int8)[order],
            None if timestamp is None else timestamp[order],
            ordered,
        )

    def of(self, students: NDArray[np.int32]) -> Interactions:
        """The responses of the given students only, in the same order."""
        return self.where(np.isin(self.student, students))

    def where(self, keep: NDArray[np.bool_]) -> Interactions:
        """The responses where ``keep``, bool (n,), is true, in the same order."""
        time = None if self.timestamp is None else self.timestamp[keep]
        return Interactions(self.student[keep], self.question[keep], self.correct[keep], time, self.ordered)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Questions, the concepts they test, and, where known, the responses of students.

    Attributes
    ----------
    name : short name, used in results.
    questions, concepts, students : their identifiers, in index order.
    q_matrix : scipy.sparse.csr_array float64 (questions × concepts); a positive entry is an edge with its weight.
    interactions : the responses, or None.
    question_names, concept_names : identifier → readable name, where the source has them.
    parents : concept identifier → parent concept identifier, where the source has a hierarchy.
    parts : int8 (students,) with 0 train, 1 validation, 2 test where the source has its own split, else None.
    notes : what the reader found and did, one line each ("merged 51,033 repeated attempts").
    truth : what a simulation planted, by name; empty for real data.
    prerequisites : (concept identifier, identifier of a concept that comes after it), where the source has any.
    left_out : int32, ascending: students in no part of any split, because their answers also occur under another
        identifier (:mod:`qcq.data.duplicates`), or because they are sealed. Their responses are still among
        ``interactions``.
    sealed : int32, ascending: students kept for a later test (:mod:`qcq.data.sealed`); in ``left_out`` too unless the
        reader was told to test on them.
    own : whether it is somebody's own data (files, frames or a graph) and no published set.
    """

    name: str
    questions: Sequence[str]
    concepts: Sequence[str]
    q_matrix: scipy.sparse.csr_array
    interactions: Interactions | None = None
    students: Sequence[str] = ()
    question_names: Mapping[str, str] = field(default_factory=dict)
    concept_names: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    parts: NDArray[np.int8] | None = None
    notes: tuple[str, ...] = ()
    truth: Mapping[str, NDArray] = field(default_factory=dict)
    prerequisites: Sequence[tuple[str, str]] = ()
    left_out: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    sealed: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    own: bool = False

    def __post_init__(self) -> None:
        if self.q_matrix.shape != (len(self.questions), len(self.concepts)):
            raise DataError(
                "the Q-matrix doesn't fit the identifiers",
                value=f"{self.q_matrix.shape} for {len(self.questions)} questions, {len(self.concepts)} concepts",
                fix="give one row per question and one column per concept",
            )
        if len(self.questions) == 0:
            raise DataError("no questions in the data set", value=self.name, fix="give at least one question")

    def __repr__(self) -> str:
        seen, name = self.interactions, " ".join(self.name.split())
        answers = () if seen is None else (several(len(self.students), "student"), several(len(seen), "response"))
        bank = several(len(self.questions), "question"), several(len(self.concepts), "concept")
        return in_short(f"Dataset {name}", *bank, *answers)

    def _repr_html_(self) -> str:
        seen = self.interactions
        return html_table(
            f"Dataset {self.name}",
            {
                "questions": f"{len(self.questions):,}",
                "concepts": f"{len(self.concepts):,}",
                "edges": f"{self.q_matrix.nnz:,}",
                "students": "" if seen is None else f"{len(self.students):,}",
                "responses": "none" if seen is None else f"{len(seen):,}",
                "first questions": first(self.questions),
                "notes": f"{len(self.notes):,}" if self.notes else "",
            },
        )

    def noting(self, notes: Iterable[str]) -> Dataset:
        """The data set with these notes before its own."""
        return replace(self, notes=(*notes, *self.notes))

    def split(
        self, seed: int = 0, fractions: tuple[float, float] = (0.1, 0.2), fold: tuple[int, int] | None = None
    ) -> Split:
        """Divide the students once. If the source has its own split, that one is used, unless a fold is asked for.
        Students in ``left_out`` are in no part.

        Parameters
        ----------
        seed : of the random division.
        fractions : shares of validation and test students, together less than 1.
        fold : (k, n): the k-th (from 1) of n equal parts of the students is the test part, so that over all k each
            student is a test student once. The validation share is taken from the other students. None: no folds.

        Raises
        ------
        DataError : the data set has no interactions, or fewer students than folds; impossible fractions or folds; no
            student would be left to train on, or a sealed student would be in another part than the test.
        """
        _refuse_shares(self.name, fractions, fold)
        if self.interactions is None:
            raise DataError(
                "the data set has no interactions, so there are no students to split",
                value=self.name,
                fix="read it with responses",
            )
        who = np.setdiff1d(np.arange(len(self.students)), self.left_out)
        part = np.full(len(self.students), -1, dtype=np.int8)
        if fold is not None:
            k, n_folds = fold
            if n_folds > len(who):
                what = f"{n_folds} folds of {len(who)} students"
                raise DataError(what, value=self.name, fix=f"at most {len(who)} folds give each a test student")
            order = generator(seed, "split", "folds").permutation(who)
            part[order] = np.where(np.arange(len(order)) % n_folds == k - 1, 2, 0)
            others = generator(seed, "split", "folds", k).permutation(np.flatnonzero(part == 0))
            part[others[: round(fractions[0] * len(order))]] = 1
        elif self.parts is not None:
            part[who] = self.parts[who]
        else:
            n = len(who)
            order = generator(seed, "split", "students").permutation(who)
            n_test, n_valid = round(fractions[1] * n), round(fractions[0] * n)
            part[who] = 0
            part[order[:n_test]] = 2
            part[order[n_test : n_test + n_valid]] = 1
        if len(who) and not (part == 0).any():
            fix = "ask for fewer validation and test students" if self.parts is None or fold else "correct their parts"
            raise DataError(f"none of {len(who):,} students is left to train on", value=self.name, fix=fix)
        learnt = np.intersect1d(self.sealed, np.flatnonzero((part == 0) | (part == 1)))
        if len(learnt):
            what = f"{len(learnt):,} sealed students would be trained or validated on"
            fix = "leave sealed at closed; opened, they are the test set, without folds or other students' lists"
            raise DataError(what, value=self.name, fix=fix)
        students = [np.flatnonzero(part == p).astype(np.int32) for p in range(3)]
        made = [self.interactions.of(s) for s in students]
        return Split(
            seed,
            TrainPart(self, students[0], made[0]),
            ValidationPart(self, students[1], made[1]),
            TestPart(self, students[2], made[2]),
        )


def _refuse_shares(name: str, fractions: Sequence[float], fold: Sequence[int] | None) -> None:
    """DataError for shares or a fold that divide nobody."""
    try:
        valid, test = map(float, fractions)
    except (TypeError, ValueError):
        valid = test = np.nan
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        fix = "give (validation, test), 0 or more each and together less than 1"
        raise DataError(f"fractions of students {fractions!r}", file=name, fix=fix)
    if fold is None:
        return
    try:
        k, n_folds = fold
    except (TypeError, ValueError):
        k = n_folds = -1
    whole = isinstance(k, Integral) and isinstance(n_folds, Integral)
    if not (whole and 1 <= k <= n_folds):
        what = f"there are {n_folds} folds, given {k}" if whole and n_folds >= 0 else f"no fold: {fold!r}"
        raise DataError(what, file=name, fix="give (k, n), the k-th (from 1) of n folds")


@dataclass(frozen=True, eq=False, repr=False)
class Part:
    """The students of one part of a split, and their responses only."""

    dataset: Dataset
    students: NDArray[np.int32]
    interactions: Interactions

    def __repr__(self) -> str:
        kind = f"{type(self).__name__} of {self.dataset.name}"
        return in_short(kind, several(len(self.students), "student"), several(len(self.interactions), "response"))


@dataclass(frozen=True, eq=False, repr=False)
class TrainPart(Part):
    """The only part that anything may learn from. Code that derives something from responses takes this type only."""

    @staticmethod
    def checked(part: TrainPart) -> TrainPart:
        """Return ``part`` if it is a training part: the check at run time for code that takes responses.

        Raises
        ------
        LeakageError : anything else, whatever its type claims.
        """
        if not isinstance(part, TrainPart):
            raise LeakageError(
                f"only the training part may be learnt from, given {type(part).__name__}; pass dataset.split().train"
            )
        return part

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of training responses per question: int64 (questions,)."""
        return np.bincount(self.interactions.question, minlength=len(self.dataset.questions))

    @cached_property
    def difficulty(self) -> NDArray[np.float64]:
        """Share of wrong answers among training students: float64 (questions,), NaN for a question without answers."""
        right = np.bincount(
            self.interactions.question, weights=self.interactions.correct, minlength=len(self.dataset.questions)
        )
        with np.errstate(invalid="ignore"):
            return 1.0 - right / self.counts


@dataclass(frozen=True, eq=False, repr=False)
class ValidationPart(Part):
    """Students used to choose settings."""


@dataclass(frozen=True, eq=False, repr=False)
class TestPart(Part):
    """Students used once, at the end."""

    __test__ = False  # tells pytest that this is not a test class


@dataclass(frozen=True, eq=False)
class Split:
    """Students divided into train, validation and test, once.

    Raises
    ------
    LeakageError : ``train`` isn't a training part, or holds a student or a response of another part.
    """

    seed: int
    train: TrainPart
    validation: ValidationPart
    test: TestPart

    def __post_init__(self) -> None:
        train = TrainPart.checked(self.train)
        learnt = np.union1d(train.students, train.interactions.student)
        for part in (self.validation, self.test):
            shared = np.intersect1d(learnt, part.students)
            if len(shared):
                name = self.train.dataset.students[int(shared[0])]
                raise LeakageError(
                    f"{len(shared)} training students are in {type(part).__name__} too, {name!r} first; "
                    "give every student to one part"
                )
