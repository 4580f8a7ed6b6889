"""pyKT's sequence files: students cut into padded windows, put together again. XES3G5M is published in them too.

A file has a row a window, with lists in its cells (``questions``, ``concepts``, ``responses``, …). Undone are:

- *Padding and history.* Only entries whose ``selectmasks`` is 1 count. ``-1`` marks padding, and in overlapping windows
  what an earlier window has shown already.
- *Windows.* The windows of a student stand in order, so their entries follow each other.
- *Concept rows.* At concept level an attempt at a question with several concepts is a row a concept; ``is_repeat`` is 1
  from the second on. They are merged, also where a window ends between them.

A window drops the end of a student where fewer than three entries are left, and the two levels drop different ends. So
every file tells the beginning of each student; the longest account is taken, and all others must agree with it.

References
----------
Liu et al. 2022, pyKT: a Python library to benchmark deep learning based knowledge tracing models, NeurIPS;
``pykt/preprocess/split_datasets.py`` and ``split_datasets_que.py`` in github.com/pykt-team/pykt-toolkit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcq.data.assembly import q_matrix, remarks
from qcq.data.dataset import Dataset, Interactions
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

LISTS = ("questions", "concepts", "responses")
OPTIONAL = ("timestamps", "selectmasks", "is_repeat")
AGAIN = "get the file again from its source"
ONE_RUN = "take the files of one run of pyKT's preprocessing"
TEST = -1  # what pyKT writes as the fold of a test student


@dataclass(frozen=True, eq=False)
class Account:
    """What one file says about its students, each from the first attempt on.

    Attributes
    ----------
    file : where it stands.
    attempts : polars frame, a row an attempt in order: ``student``, ``place`` (0, 1, … within the student),
        ``question``, ``concepts`` (``_`` between them), ``correct`` (0 or 1), ``seconds`` (null where unknown), ``row``
        of the file, and ``whole`` (false where concepts may be missing, because a window may have ended within it).
    folds : student → fold, -1 for a test student; empty where the file has no folds.
    by_concept : whether the file has a row a concept.
    uncut : whether the file has every attempt of its students.
    """

    file: Path
    attempts: pl.DataFrame
    folds: Mapping[str, int] = field(default_factory=dict)
    by_concept: bool = False
    uncut: bool = False

    def named(self, rename: Callable[[str, pl.Series, Path], pl.Series]) -> Account:
        """With other identifiers: ``rename(kind, cells, file)``, where kind is uid, questions or concepts."""
        import polars as pl

        kinds = {"student": "uid", "question": "questions", "concepts": "concepts"}
        made = [rename(kind, self.attempts[name], self.file).alias(name) for name, kind in kinds.items()]
        who = rename("uid", pl.Series(list(self.folds), dtype=pl.String), self.file)
        return replace(
            self,
            attempts=self.attempts.with_columns(made),
            folds=dict(zip(who, self.folds.values(), strict=True)),
        )


def by_concept_only(file: Path, row: int | None = None) -> DataError:
    """The error for a set in which no response names a question."""
    what = "a set at concept level only: its responses name concepts, but no questions"
    fix = "take a set whose responses name questions, as pyKT's of ASSISTments 2009, ASSISTments 2012 or EdNet"
    return DataError(what, file=file, row=row, fix=fix)


def accounts(folder: Path, level: str) -> tuple[list[Account], list[str]]:
    """The sequence files of one level of a folder, and notes on those that were left unread.

    Parameters
    ----------
    level : ``"_quelevel"``, or ``""`` for the files with a row a concept.

    Returns
    -------
    list of Account : an uncut file before the windows. Overlapping windows are read only where no other file has the
        test students.

    Raises
    ------
    DataError : as :func:`account`.
    """
    train = [folder / f"train_valid{part}{level}.csv" for part in ("", "_sequences")]
    test = [folder / f"test{part}{level}.csv" for part in ("", "_sequences")]
    windows = folder / f"test_window_sequences{level}.csv"
    found = [file for file in (*train, *test) if is_sequences(file) or is_nearly(file)]
    notes = []
    if is_sequences(windows):
        if set(found) & set(test):
            notes.append(f"left {windows.name} unread: its overlapping windows repeat the test students")
        else:
            found.append(windows)
    questions = sorted(file.name for file in folder.glob("test_question_*.csv")) if not level else []
    if questions:
        notes.append(f"left {' and '.join(questions)} unread: the test students again, as pyKT is tested on them")
    return [account(file) for file in found], notes


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of their numbers, or as they come where one isn't a number.

    Examples
    --------
    >>> in_order(["10", "9"]), in_order(["b", "a"])
    (('9', '10'), ('b', 'a'))
    """
    names = tuple(names)
    return tuple(sorted(names, key=int)) if all(name.isdecimal() and len(name) < 1000 for name in names) else names


def is_sequences(file: Path) -> bool:
    """Whether a file looks like one of pyKT's by its heading; never raises."""
    return {"fold", "uid", "responses"} <= set(header(file))


def is_nearly(file: Path) -> bool:
    """Whether a file looks like one of pyKT's that lacks a column, so that reading it says which; never raises."""
    names = set(header(file))
    return not is_sequences(file) and len(names & {"fold", "uid", *LISTS}) >= 3


def account(file: Path) -> Account:
    """Read one sequence file.

    Raises
    ------
    DataError : no questions in it, lists of different lengths, a response that is neither 0 nor 1, padding inside a
        sequence, a repeated row without the one that it repeats, a student in two folds.
    """
    import polars as pl

    names = header(file)
    if is_sequences(file) and "questions" not in names:
        raise by_concept_only(file, 1)
    table = RawTable.read(file, ("fold", "uid", *LISTS), OPTIONAL)
    table.identifiers("uid")
    lists = [name for name in (*LISTS, *OPTIONAL) if name in table.frame.columns]
    fold = table.whole("fold").cast(pl.Int64, strict=False)
    table.reject(fold.is_null(), "not a fold", "fold", "write -1 for test students, 0 and up for the others")
    size = table.frame["responses"].str.count_matches(",", literal=True)
    for name in lists:
        commas = table.frame[name].str.count_matches(",", literal=True)
        off = (commas != size).fill_null(True)
        if off.any():
            at = off.arg_max()
            assert at is not None
            what = f"{_entries(commas[at])} {name} for {_entries(size[at])} responses"
            raise table.error(what, at=at, column=name, fix="the lists of a row are equally long; " + AGAIN)
    folds = _folds(table, fold)
    # One column after the other gets its own type: all of them as text would take a multiple of the memory.
    row = pl.Series("row", np.repeat(np.arange(2, len(table) + 2, dtype=np.int32), size.to_numpy() + 1))
    counts = None
    if "selectmasks" in lists:
        mask = _split(table, "selectmasks")
        _refuse(file, row, mask, ~mask.is_in(["1", "-1"]), "a mask is 1 or -1", "selectmasks")
        counts = mask == "1"
        if not counts.any():
            raise DataError("no response that counts in any row", file=file, column="selectmasks", fix=AGAIN)
        row = row.filter(counts)
    flat = {"row": row, "uid": table.frame["uid"].gather(row - 2)}
    for name in lists:
        if name != "selectmasks":
            cells = _split(table, name)
            flat[name] = _typed(file, row, cells if counts is None else cells.filter(counts), name)
    frame = pl.DataFrame(flat).with_columns(whole=pl.lit(True))
    if (frame["uid"] != frame["uid"].shift(1)).sum() + 1 > len(folds):  # windows of a student between those of others
        frame = frame.sort("uid", maintain_order=True)
    if by_concept := "is_repeat" in lists:
        frame = _merged(file, frame)
        if counts is not None:
            frame = frame.with_columns(whole=pl.int_range(pl.len()).over("uid") < pl.len().over("uid") - 1)
    attempts = frame.select(
        pl.col("uid").alias("student"),
        pl.int_range(pl.len()).over("uid").alias("place"),
        pl.col("questions").alias("question"),
        "concepts",
        pl.col("responses").alias("correct"),
        (pl.col("timestamps") if "timestamps" in lists else pl.lit(None, dtype=pl.Float64)).alias("seconds"),
        "row",
        "whole",
    )
    return Account(file, attempts, folds, by_concept, uncut=counts is None)


def _entries(commas: int | None) -> int:
    return 0 if commas is None else commas + 1


def _split(table: RawTable, name: str) -> pl.Series:
    """The entries of all lists of a column, one after the other."""
    return table.frame[name].str.split(",").explode()


def _typed(file: Path, row: pl.Series, cells: pl.Series, name: str) -> pl.Series:
    """The entries of a column as what they mean: identifiers, 0 or 1, seconds.

    Raises
    ------
    DataError : an entry that is something else.
    """
    import polars as pl

    if name == "timestamps":
        seconds = cells.cast(pl.Float64, strict=False) / 1000
        _refuse(file, row, cells, ~seconds.is_finite().fill_null(False), "not a time", name)
        return seconds
    if name in ("questions", "concepts"):
        _refuse(file, row, cells, cells.is_in(["-1", ""]), "padding inside a sequence", name)
        return cells
    what = "response is neither 0 nor 1" if name == "responses" else "is_repeat is 0 or 1"
    _refuse(file, row, cells, ~cells.is_in(["0", "1"]), what, name)
    return cells.cast(pl.Int8)


def _folds(table: RawTable, fold: pl.Series) -> dict[str, int]:
    """Student → fold."""
    first = table.frame["uid"].is_first_distinct()
    folds = dict(zip(table.frame["uid"].filter(first), fold.filter(first), strict=True))
    own = table.frame["uid"].replace_strict(list(folds), list(folds.values()), return_dtype=fold.dtype)
    table.reject(fold != own, "a student in two folds", "fold", AGAIN)
    return folds


def _merged(file: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """A row a concept becomes a row an attempt."""
    import polars as pl

    again = frame["is_repeat"] == 1
    alike = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("uid", "questions", "responses"))
    alone = again & ~frame.select(alike.fill_null(False)).to_series()
    what = "a repeated row without the row that it repeats"
    _refuse(file, frame["row"], frame["is_repeat"], alone, what, "is_repeat")
    number = (~again).cum_sum()
    joint = frame.select(number.alias("attempt"), "concepts").filter(
        number.is_in(number.filter(again).unique().implode())
    )
    joint = joint.group_by("attempt", maintain_order=True).agg(pl.col("concepts").str.join("_"))
    first = frame.filter(~again)
    concepts = first["concepts"].scatter((joint["attempt"] - 1).to_list(), joint["concepts"])
    return first.with_columns(concepts)


def _refuse(file: Path, row: pl.Series, cells: pl.Series, bad: pl.Series, what: str, column: str) -> None:
    """Raise for the first entry where ``bad`` is true, if there is one."""
    bad = bad.fill_null(True)
    if bad.any():
        at = bad.arg_max()
        assert at is not None
        value = cells[at] if cells[at] is not None else ""
        raise DataError(what, file=file, row=row[at], column=column, value=value, fix=AGAIN)


@dataclass(frozen=True, eq=False)
class Sequences:
    """The attempts of all students, each in order, as all files together tell them.

    Attributes
    ----------
    attempts : as in :class:`Account`.
    folds : student → fold.
    notes : what the files have more or less of.
    """

    attempts: pl.DataFrame
    folds: Mapping[str, int]
    notes: tuple[str, ...]

    @classmethod
    def together(cls, given: Sequence[Account]) -> Sequences:
        """The longest account of each student, the earlier of two equally long ones, checked against all the others.

        Raises
        ------
        DataError : two files tell different things about an attempt, or about the fold of a student.
        """
        import polars as pl

        folds: dict[str, int] = {}
        for one in given:
            for student, fold in one.folds.items():
                if folds.setdefault(student, fold) != fold:
                    value = f"{student}: {fold}, elsewhere {folds[student]}"
                    raise DataError("a student in two folds", file=one.file, column="fold", value=value, fix=ONE_RUN)
        length = pl.concat(
            one.attempts.group_by("student").agg(pl.len().alias("n")).with_columns(order=pl.lit(i))
            for i, one in enumerate(given)
        )
        longest = length.sort("n", "order", descending=[True, False]).unique("student", keep="first")
        truth = pl.concat(
            one.attempts.join(longest.filter(pl.col("order") == i), on="student", how="semi", maintain_order="left")
            for i, one in enumerate(given)
        )
        for one in given:
            _agree(one, truth)
        notes = []
        for i, one in enumerate(given):
            behind = length.filter(pl.col("order") == i).join(longest, on="student", suffix="_all")
            lost = (behind["n_all"] - behind["n"]).cast(pl.Int64)
            missing = int(lost.sum())
            if missing and one.uncut:
                who = behind.filter(lost > 0).row(0, named=True)
                value = f"{who['n']}, elsewhere {who['n_all']}"
                what = f"fewer responses of student {who['student']} than another file, though the file has no windows"
                raise DataError(what, file=one.file, value=value, fix=ONE_RUN)
            if missing:
                where = f"{several(missing, 'response')} of {several(int((lost > 0).sum()), 'student')}"
                notes.append(f"{one.file.name} lacks the end of some students, {where}: read from the other files")
        uncut = {student for one in given if one.uncut for student in one.attempts["student"].unique()}
        if cut := longest.height - len(uncut):
            which = f"{several(cut, 'student')} known from windows only"
            notes.append(f"{which}: their last responses may be missing, windows leave one or two out")
        return cls(truth, folds, tuple(notes))

    def identifiers(self) -> dict[str, list[str]]:
        """The students (``uid``), ``questions`` and ``concepts`` that occur, in order of appearance."""
        return {
            "uid": self.attempts["student"].unique(maintain_order=True).to_list(),
            "questions": self.attempts["question"].unique(maintain_order=True).to_list(),
            "concepts": list(dict.fromkeys(concept for _, concept in self.edges)),
        }

    @cached_property
    def edges(self) -> list[tuple[str, str]]:
        """The pairs (question, concept), each once."""
        import polars as pl

        listed = self.attempts.select("question", pl.col("concepts").str.split("_")).unique(maintain_order=True)
        return list(listed.explode("concepts").unique(maintain_order=True).iter_rows())

    def dataset(
        self,
        path: Path,
        ids: Mapping[str, Sequence[str]],
        fold: int,
        notes: Sequence[str],
        more: Sequence[tuple[str, str]] = (),
    ) -> Dataset:
        """The data set.

        Parameters
        ----------
        ids : the identifiers of ``questions``, ``concepts`` and students (``uid``), in order. Students without
            an attempt are left out.
        fold : the fold for validation.
        more : edges of questions that nobody has answered.

        Raises
        ------
        DataError : as :meth:`parts`.
        """
        there = dict.fromkeys(self.identifiers()["uid"])
        students = [student for student in ids["uid"] if student in there]
        if len(students) < len(there):  # pyKT's indices are of pieces, where an identifier has a "_" in it
            students = list(there)
        question, concept = ({name: i for i, name in enumerate(ids[kind])} for kind in ("questions", "concepts"))
        edges = [(question[q], concept[c]) for q, c in (*self.edges, *more)]
        matrix, _ = q_matrix(len(question), len(concept), *zip(*edges, strict=True))
        responses, timed = self.interactions(students, ids["questions"])
        parts, split = self.parts(students, fold, path)
        return Dataset(
            path.resolve().name,
            tuple(ids["questions"]),
            tuple(ids["concepts"]),
            matrix,
            responses,
            tuple(students),
            parts=parts,
            notes=(*notes, *self.notes, *split, *timed, *self._torn(), *remarks(matrix)),
        )

    def _torn(self) -> list[str]:
        """A note on questions whose attempts list different concepts."""
        import polars as pl

        listed = self.attempts.filter("whole").select("question", "concepts").unique()
        sets = listed.select("question", pl.col("concepts").str.split("_").list.unique().list.sort().list.join("_"))
        torn = int((sets.unique().group_by("question").len()["len"] > 1).sum())
        said = f"{several(torn, 'question')} with other concepts in other attempts: an edge to each of them"
        return [said] if torn else []

    def interactions(self, students: Sequence[str], questions: Sequence[str]) -> tuple[Interactions, list[str]]:
        """The responses by index, in pyKT's order, and notes on their times."""
        import polars as pl

        student = codes(self.attempts["student"], pl.Series(students, dtype=pl.String)).to_numpy()
        question = codes(self.attempts["question"], pl.Series(questions, dtype=pl.String)).to_numpy()
        order = np.argsort(student, kind="stable")
        notes = []
        time: NDArray[np.float64] | None = self.attempts["seconds"].to_numpy()
        unknown = self.attempts["seconds"].null_count()
        if unknown:
            time = None
            if unknown < len(student):
                notes.append(
                    f"{several(unknown, 'response')} without a time: times are left out, the order is the files'"
                )
        made = Interactions.sorted(order, student, question, self.attempts["correct"], time)
        if made.timestamp is not None:
            back = int(((np.diff(made.student) == 0) & (np.diff(made.timestamp) < 0)).sum())
            if back:
                notes.append(f"{several(back, 'response')} earlier than the one before: left in the order of the files")
        return made, notes

    def parts(self, students: Sequence[str], fold: int, folder: Path) -> tuple[NDArray[np.int8] | None, list[str]]:
        """The split: test students, ``fold`` for validation, the other folds for training; None where it isn't known.

        Raises
        ------
        DataError : no student is in ``fold``, or a student is in no file.
        """
        if not self.folds:
            return None, ["no file with folds: no split of the source"]
        if TEST not in self.folds.values():
            return None, ["no file with test students: the folds are not kept as a split"]
        lost = [student for student in students if student not in self.folds]
        if lost:
            what = f"{several(len(lost), 'student')} in none of the files with folds"
            raise DataError(what, file=folder, value=lost[0], fix="put both train_valid and test files into the folder")
        known = sorted(set(self.folds.values()) - {TEST})
        if fold not in known:
            fix = f"the folds are {', '.join(map(str, known))}"
            raise DataError("no student is in the fold of validation", file=folder, value=fold, fix=fix)
        given = np.array([self.folds[student] for student in students])
        made = np.where(given == TEST, 2, np.where(given == fold, 1, 0)).astype(np.int8)
        train, validation, test = np.bincount(made, minlength=3).tolist()
        said = (
            f"kept the source's own split: {train:,} students to train, fold {fold} ({validation:,}) for validation, "
            f"{test:,} to test"
        )
        return made, [said]


def _agree(one: Account, truth: pl.DataFrame) -> None:
    """DataError for the first attempt about which a file says something else."""

    begin = truth.with_row_index("begin").unique("student", keep="first").select("student", "begin")
    at = one.attempts.join(begin, on="student", how="left", maintain_order="left")
    there = truth[at["begin"] + at["place"]]
    columns = {"question": "questions", "correct": "responses", "concepts": "concepts", "seconds": "timestamps"}
    for column, name in columns.items():
        apart = (one.attempts[column] != there[column]).fill_null(False)
        if column == "concepts":
            apart &= one.attempts["whole"] & there["whole"]
        if apart.any():
            found, other = (frame.row(apart.arg_max(), named=True) for frame in (one.attempts, there))
            where = f"at response {found['place'] + 1} of student {found['student']}"
            what = f"the {name} differ from those of another file {where}"
            value = f"{found[column]}, there {other[column]}"
            fix = f"{ONE_RUN}, or leave one of the two out"
            raise DataError(what, file=one.file, row=found["row"], column=name, value=value, fix=fix)
