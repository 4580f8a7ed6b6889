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

from qcq.data.assembly import chronological
from qcq.data.checks import SYNONYMS, meant, times
from qcq.data.csv import NO_NAMES
from qcq.data.dataset import TrainPart
from qcq.data.frames import raw_table
from qcq.data.table import RawTable, codes
from qcq.data.text import OFFICE
from qcq.embeddings import STUDENTS
from qcq.errors import DataError
from qcq.support.arrays import digest, read_safetensors
from qcq.support.files import whole_path
from qcq.support.words import several

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

    def save(self, folder: Path) -> Path:
        """Write them into the folder of a model, and return the file."""
        from safetensors.numpy import save_file

        with whole_path(folder / STUDENTS) as partial:
            arrays = {"students": self.digests, "training": self.training}
            save_file(arrays, partial, {"digest": digest({}, arrays)})
        return folder / STUDENTS

    @classmethod
    def load(cls, folder: Path) -> Students | None:
        """What :meth:`save` wrote; None where there is no file.

        Raises
        ------
        ValueError : it can't be read, or was changed since it was written: a student's mark could be another one.
        OSError : it may not be read.
        """
        if not (folder / STUDENTS).is_file():
            return None
        meta, held = read_safetensors(folder / STUDENTS)
        shapes = {array.shape for array in held.values()}
        kinds = {name: array.dtype for name, array in held.items()}
        if kinds != {"students": np.uint64, "training": np.bool_} or len(shapes) != 1 or held["students"].ndim != 1:
            raise ValueError(f"{STUDENTS}: no students with their marks")
        if meta.get("digest") not in (None, digest({}, held)):  # earlier versions wrote none
            raise ValueError(f"{STUDENTS} was changed or damaged since it was written")
        return cls(held["students"], held["training"])


def digests(names: Sequence[str]) -> NDArray[np.uint64]:
    """The first eight bytes of SHA-256 of each identifier: uint64 (names,)."""
    return np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:8]) for n in names], dtype=np.uint64)


def answers_table(source: Any, what: str, required: Sequence[str], optional: Sequence[str]) -> RawTable:
    """Columns of answers in a file or a frame, as the readers of a bank take them: other usual headings, bare names.

    Raises
    ------
    DataError : missing columns, no rows, or a time under a name that isn't read: the answers would be in a wrong order.
    """
    if isinstance(source, str | Path):
        table = RawTable.read(Path(source), required, optional, OFFICE, SYNONYMS)
    else:
        table = raw_table(source, what, required, optional)
    for name in table.unread if "timestamp" in table.absent else ():
        if meant(name, ["timestamp"]):
            fix = "rename it to timestamp, or remove it if the rows are in order"
            raise table.error("a column that looks like the time of an attempt", column=name, fix=fix)
    return table.without_space([name for name in table.frame.columns if name not in NO_NAMES])


def in_order(table: RawTable, student: NDArray[np.integer]) -> tuple[NDArray[np.int64], list[str]]:
    """The rows by student and time, and notes on how the table and its times were read."""
    notes = table.notes()
    if "timestamp" not in table.frame.columns:
        return chronological(student, None), notes
    time = table.seconds("timestamp")
    order = chronological(student, time)
    if (dates := table.dates("timestamp")) is not None:
        which = "day, month, year" if dates[0] else "month, day, year"
        notes.append(f"{Path(table.source).name}: dates read as {which}: {dates[1]}")
    return order, [*notes, *times(table.source, order, student, time)]


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
    notes : how the table was read, where that isn't plain.
    """

    student: NDArray[np.int64]
    who: NDArray[np.uint64]
    new: NDArray[np.int64]
    old: NDArray[np.int64]
    correct: NDArray[np.int8]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Any, new: Sequence[str], old: Sequence[str], students: Students | None) -> Answers:
        """Answers from a file, a frame or columns ``student``, ``question``, ``correct`` (and ``timestamp``).

        Parameters
        ----------
        source : a path; a polars or pandas frame; or a mapping, column → values. Without ``timestamp`` the rows of a
            student are in the order of the answers. Rows on old questions show what stands beside a new one. Other
            usual headings and space around names are read as the readers do.
        new, old : identifiers.
        students : who was divided into parts; None where nobody knows.

        Raises
        ------
        DataError : a question that is neither new nor old, an answer that is neither 0 nor 1, no answer to a new
            question, a student outside the training part, columns of different lengths, or a time under another name.
        """
        import polars as pl

        if isinstance(source, Mapping):
            try:
                source = pl.DataFrame({str(name): cells for name, cells in source.items()}, strict=False)
            except (TypeError, pl.exceptions.PolarsError) as error:
                said = " ".join(str(error).split())[:100]
                fix = "give a list for each, of one length"
                raise DataError(f"columns that make no table ({said})", file="responses", fix=fix) from None
        table = answers_table(source, "responses", COLUMNS, MORE)
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
        order, notes = in_order(table, student)
        question, correct = at.to_numpy().astype(np.int64)[order], table.binary("correct")[order]
        if not (question < len(new)).any():
            raise DataError("no answer to a new question", file=table.source, fix="give one at least, or leave it out")
        fresh = question < len(new)
        at_new, at_old = np.where(fresh, question, -1), np.where(fresh, -1, question - len(new))
        return cls(student[order], marks, at_new, at_old, correct, tuple(notes))

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
