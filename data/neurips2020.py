"""Eedi's data of the NeurIPS 2020 Education Challenge, tasks 1 to 4: answers with dates, and the tree of subjects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qcq.data.assembly import cycle, q_matrix, remarks
from qcq.data.checks import EMPTY
from qcq.data.dataset import Dataset, Interactions
from qcq.data.log import moments, ordered
from qcq.data.table import RawTable, codes
from qcq.errors import DataError
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

TASKS = ("1_2", "3_4")
META = ("QuestionId", "SubjectId")
SUBJECTS = "subject_metadata.csv"
FOLDERS = (".", "metadata", "train_data", "data", "data/metadata", "data/train_data")


def questions_of(path: Path) -> dict[str, Path]:
    """Tasks (``1_2``, ``3_4``) → their table of questions, of those that the folder has."""
    found = {tasks: find(path, f"question_metadata_task_{tasks}.csv") for tasks in TASKS}
    return {tasks: file for tasks, file in found.items() if file is not None}


def find(path: Path, name: str) -> Path | None:
    """A file of the download, in the folder itself or where the archive has it."""
    return next((path / folder / name for folder in FOLDERS if (path / folder / name).is_file()), None)


def read_tasks(path: Path, tasks: str, file: Path) -> Dataset:
    """The questions, subjects and training answers of two tasks.

    Concepts are the subjects at the leaves of what a question lists; the levels above are their parents.

    Raises
    ------
    DataError : a file is missing, or isn't what it should be.
    """
    table = RawTable.read(file, META)
    questions = table.identifiers("QuestionId")
    table.reject(~questions.is_first_distinct(), "a question listed twice", "QuestionId", "keep one of its rows")
    lists = [[str(subject) for subject in subjects] for subjects in table.integer_lists("SubjectId")]
    names, parents = _subjects(path)
    leaves = [[s for s in subjects if all(parents.get(other) != s for other in subjects)] for subjects in lists]
    concepts: dict[str, int] = {}
    edges = [(q, concepts.setdefault(s, len(concepts))) for q, subjects in enumerate(leaves) for s in subjects]
    if not edges:
        raise DataError("no question has a subject", file=file, fix="get the file again from its source")
    for subject in concepts:
        if subject not in names:
            fix = f"get {SUBJECTS} of the same release"
            raise DataError("an unknown subject", file=file, column="SubjectId", value=subject, fix=fix)
    matrix, repeated = q_matrix(len(questions), len(concepts), *zip(*edges, strict=True))
    above: dict[str, str] = {}
    for subject in concepts:
        while subject in parents:
            above[subject] = parents[subject]
            subject = parents[subject]
    notes = [
        f"tasks {tasks.replace('_', ' and ')}: kept {several(len(concepts), 'subject')} at the leaves as concepts, "
        f"and {len({*above.values()} - {*concepts}):,} above them as parents"
    ]
    responses: Interactions | None = None
    students: tuple[str, ...] = ()
    train = find(path, f"train_task_{tasks}.csv")
    if train is None:
        notes.append(f"no train_task_{tasks}.csv: a graph without responses")
    else:
        responses, students, said = _answers(train, find(path, f"answer_metadata_task_{tasks}.csv"), questions)
        notes += said
    if any((path / folder).is_dir() for folder in ("test_data", "data/test_data")):
        notes.append("left test_data unread: the answers that the challenge held back")
    return Dataset(
        path.resolve().name,
        tuple(questions),
        tuple(concepts),
        matrix,
        responses,
        students,
        concept_names={s: names[s] for s in {*concepts, *above.values()} if s in names},
        parents=above,
        notes=(*notes, *remarks(matrix, repeated)),
    )


def _subjects(path: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Subject → name, and subject → the subject above it."""
    file = find(path, SUBJECTS)
    if file is None:
        fix = "take it from the folder metadata of the download: it says which subject is below which"
        raise DataError("no table of subjects", file=path / SUBJECTS, fix=fix)
    table = RawTable.read(file, ("SubjectId", "Name", "ParentId"))
    subjects = table.identifiers("SubjectId")
    names = dict(zip(subjects, table.frame["Name"].fill_null(""), strict=True))
    parent = table.whole("ParentId")
    under = ~(table.blank("ParentId") | parent.is_in([*EMPTY, "NULL"]).fill_null(False))
    parents = dict(zip(subjects.filter(under), parent.filter(under), strict=True))
    if around := cycle(parents.items()):
        raise DataError("subjects in a circle", file=file, value=around, fix="get the file again from its source")
    return names, parents


def _answers(train: Path, dates: Path | None, questions: pl.Series) -> tuple[Interactions, tuple[str, ...], list[str]]:
    import polars as pl

    table = RawTable.read(train, ("QuestionId", "UserId", "AnswerId", "IsCorrect"))
    question = codes(table.identifiers("QuestionId"), questions)
    table.reject(question.is_null(), "unknown question", "QuestionId", "it isn't in the table of questions")
    answer = table.whole("AnswerId")
    rows = pl.DataFrame(
        {
            "student": table.identifiers("UserId"),
            "question": table.frame["QuestionId"],
            "correct": pl.Series(table.binary("IsCorrect")),
            "answer": answer,
        }
    )
    said = []
    if dates is None:
        fix = f"take answer_{train.name.replace('train', 'metadata')} from the folder metadata of the download"
        raise DataError("no dates of the answers", file=train, fix=fix)
    when = RawTable.read(dates, ("AnswerId", "DateAnswered"))
    moment = pl.DataFrame({"answer": when.whole("AnswerId"), "time": moments(when, "DateAnswered")})
    once = moment.drop_nulls("answer").unique("answer", keep="first", maintain_order=True)
    if more := len(moment) - len(once):
        said.append(f"{several(more, 'date')} of no answer, or of one that has a date already, left out")
    rows = rows.join(once, on="answer", how="left", maintain_order="left")
    undated = rows["time"].is_null()
    if undated.any():
        said.append(f"{several(int(undated.sum()), 'answer')} without a date, left out")
        rows = rows.filter(~undated)
    if len(rows) == 0:
        raise DataError("no answer has a date", file=dates, fix="take the file of the same tasks")
    responses, students, found = ordered(train, rows, questions)
    return responses, students, [*said, *found]
