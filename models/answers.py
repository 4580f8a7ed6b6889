"""Students' answers to questions that were not there in training, and what a table can take from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data.assembly import chronological, several
from qcq.data.dataset import TrainPart
from qcq.data.frames import raw_table
from qcq.data.table import RawTable, codes
from qcq.data.text import OFFICE
from qcq.errors import DataError

HALFWAY = 30.0  # training responses at which a question's own vector and its concepts' weigh the same
COLUMNS, MORE = ("student", "question", "correct"), ("timestamp",)


@dataclass(frozen=True, eq=False)
class Students:
    """Which students a bank divided, by digests of their identifiers: a model doesn't hold the identifiers.

    Attributes
    ----------
    digests : uint64 (students,), ascending.
    training : bool (students,), whose answers may be read.
    """

    digests: NDArray[np.uint64]
    training: NDArray[np.bool_]

    @classmethod
    def of(cls, train: TrainPart) -> Students:
        """The students of a data set, and those of its training part."""
        found = digests(train.dataset.students)
        order = np.argsort(found, kind="stable")
        training = np.isin(np.arange(len(found)), train.students)
        return cls(found[order], training[order])


def digests(names: Sequence[str]) -> NDArray[np.uint64]:
    """The first eight bytes of SHA-256 of each identifier: uint64 (names,)."""
    return np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:8]) for n in names], dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers by student, in the order in which each gave them.

    Attributes
    ----------
    student : int64 (answers,), index into ``who``.
    who : uint64 (students,), their digests.
    new : int64 (answers,), which new question; -1 for an old one.
    old : int64 (answers,), which old question; -1 for a new one.
    correct : int8 (answers,).
    """

    student: NDArray[np.int64]
    who: NDArray[np.uint64]
    new: NDArray[np.int64]
    old: NDArray[np.int64]
    correct: NDArray[np.int8]

    @classmethod
    def read(cls, source: Any, new: Sequence[str], old: Sequence[str], students: Students | None) -> Answers:
        """Answers from a file, a frame or columns ``student``, ``question``, ``correct`` (and ``timestamp``).

        Parameters
        ----------
        source : a path; a polars or pandas frame; or a mapping, column → values. Without ``timestamp`` the rows of a
            student are in the order of the answers. Rows on old questions show what stands beside a new one.
        new, old : identifiers.
        students : who was divided into parts; None where nobody knows.

        Raises
        ------
        DataError : a question that is neither new nor old, an answer that is neither 0 nor 1, no answer to a new
            question, or a student outside the training part.
        """
        import polars as pl

        if isinstance(source, str | Path):
            table = RawTable.read(Path(source), COLUMNS, MORE, OFFICE)
        else:
            frame = pl.DataFrame(dict(source), strict=False) if isinstance(source, Mapping) else source
            table = raw_table(frame, "responses", COLUMNS, MORE)
        asked = table.identifiers("question")
        at = codes(asked, pl.Series([*new, *old]))
        lost = at.is_null()
        if lost.any():
            names = asked.filter(lost).unique(maintain_order=True)
            what = f"{several(len(names), 'question')} neither new nor in the table"
            fix = "leave such rows out, or add these questions to the new ones"
            raise table.error(what, at=lost.arg_max(), column="question", value=names[0], fix=fix)
        names = table.identifiers("student")
        who = names.unique(maintain_order=True)
        marks = digests(who.to_list())
        if students is not None:
            there = np.isin(marks, students.digests)
            away = there & ~np.isin(marks, students.digests[students.training])
            if away.any():
                what = f"answers of {several(int(away.sum()), 'student')} outside the training part"
                fix = "give answers of training students alone: others are for validation and test"
                first = names.is_in(who.filter(pl.Series(away)).implode()).arg_max() or 0
                raise table.error(what, at=first, column="student", value=names[first], fix=fix)
        student = codes(names, who).to_numpy().astype(np.int64)
        time = table.seconds("timestamp") if "timestamp" in table.frame.columns else None
        order = chronological(student, time)
        question, correct = at.to_numpy().astype(np.int64)[order], table.binary("correct")[order]
        if not (question < len(new)).any():
            raise DataError("no answer to a new question", file=table.source, fix="give one at least, or leave it out")
        fresh = question < len(new)
        return cls(
            student[order], marks, np.where(fresh, question, -1), np.where(fresh, -1, question - len(new)), correct
        )

    def counts(self, n: int) -> NDArray[np.int64]:
        """How many answers each of ``n`` new questions has."""
        return np.bincount(self.new[self.new >= 0], minlength=n)

    def beside(self, n_new: int, n_old: int) -> scipy.sparse.csr_array:
        """How often an old question came directly before or after a new one: float64 (new questions, old questions)."""
        one, other = slice(None, -1), slice(1, None)
        same = self.student[one] == self.student[other]
        ahead, after = same & (self.new[one] >= 0) & (self.old[other] >= 0), same & (self.old[one] >= 0)
        after &= self.new[other] >= 0
        row = np.r_[self.new[one][ahead], self.new[other][after]]
        column = np.r_[self.old[other][ahead], self.old[one][after]]
        made = scipy.sparse.csr_array((np.ones(len(row)), (row, column)), shape=(n_new, n_old))
        made.sum_duplicates()
        return made


def drawn(answers: Answers, made: NDArray[np.float64], rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Rows of new questions by what stands beside them: c + n / (n + HALFWAY) (x - c), for those with an old neighbour.

    c is the row that is inferred from the concepts alone, x the mean of the rows of the old questions that came
    directly before or after, and n the number of answers to the question.

    Parameters
    ----------
    made : c, float64 (new questions, dim).
    rows : float64 (old questions, dim).

    Returns
    -------
    rows : float64 (new questions, dim).
    changed : how many have an old neighbour.
    """
    beside = answers.beside(len(made), len(rows))
    met = np.asarray(beside.sum(axis=1))[:, None]
    n = answers.counts(len(made))[:, None]
    mean = np.asarray(beside @ rows) / np.maximum(met, 1)
    return np.where(met > 0, made + n / (n + HALFWAY) * (mean - made), made), int((met > 0).sum())
