"""A published log, one row an attempt, to a data set; what its field leaves out or merges is counted and said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcq.data.assembly import chronological, q_matrix, remarks
from qcq.data.checks import times
from qcq.data.dataset import Dataset, Interactions
from qcq.data.table import RawTable, codes
from qcq.errors import DataError
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl


def from_log(
    name: str,
    source: Path,
    rows: pl.DataFrame,
    *,
    skills: str,
    between: str | None = None,
    attempt: Sequence[str] = ("student", "question", "time"),
    concept_names: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """Questions and edges from all rows, responses from those that have an answer and a time.

    Parameters
    ----------
    name, source : of the data set, and its file.
    rows : polars frame in the order of the file with ``student``, ``question``, ``concept`` (null for none),
        ``correct`` (as :func:`answers` returns it, null for none) and ``time`` (as :func:`moments` returns it).
    between : what separates several skills in a cell; None where a cell is one skill.
    skills : the column of the file that the concepts are from, for the error where there are none.
    attempt : the columns in which rows of one attempt agree; the first of them counts.
    notes : the reader's own, which come first.

    Raises
    ------
    DataError : no row has a skill, or none has an answer and a time.
    """
    import polars as pl

    said = list(notes)
    questions = rows["question"].unique(maintain_order=True)
    cells = rows.select("question", "concept").drop_nulls().unique(maintain_order=True)
    if between is not None and len(joint := cells.filter(pl.col("concept").str.contains(between, literal=True))):
        what = several(joint["question"].n_unique(), "question")
        said.append(f"{what} with several skills in a cell, as {joint['concept'][0]!r}: one edge each")
        cells = cells.with_columns(pl.col("concept").str.split(between)).explode("concept")
    edges = (
        cells.with_columns(pl.col("concept").str.strip_chars())
        .filter(pl.col("concept") != "")
        .unique(maintain_order=True)
    )
    concepts = edges["concept"].unique(maintain_order=True)
    if len(concepts) == 0:
        raise DataError("no row has a skill", file=source, column=skills, fix="take a copy of the data with skills")
    matrix, _ = q_matrix(
        len(questions), len(concepts), codes(edges["question"], questions), codes(edges["concept"], concepts)
    )
    if bare := rows["concept"].null_count():
        said.append(f"{several(bare, 'row')} without a skill: kept as attempts, no edge")
    kept, lost = _whole(rows)
    said += lost
    if len(kept) == 0:
        raise DataError("no row has an answer and a time", file=source, fix="take the file with the answers")
    attempts = kept.unique(list(attempt), keep="first", maintain_order=True)
    if merged := len(kept) - len(attempts):
        said.append(f"merged {several(merged, 'repeated row')}: the same student, question and time, the first counts")
    responses, students, found = ordered(source, attempts, questions)
    return Dataset(
        name,
        tuple(questions),
        tuple(concepts),
        matrix,
        responses,
        students,
        concept_names={key: value for key, value in (concept_names or {}).items() if key in set(concepts)},
        notes=(*said, *found, *remarks(matrix)),
    )


def ordered(
    source: Path, attempts: pl.DataFrame, questions: pl.Series
) -> tuple[Interactions, tuple[str, ...], list[str]]:
    """Attempts (``student, question, correct, time``) by student and time, the students, and notes on their order."""
    students = attempts["student"].unique(maintain_order=True)
    student = codes(attempts["student"], students).to_numpy()
    time = attempts["time"].to_numpy()
    order = chronological(student, time)
    said = times(source, order, student, time)
    made = Interactions.sorted(
        order, student, codes(attempts["question"], questions).to_numpy(), attempts["correct"].to_numpy(), time
    )
    again = int(((np.diff(made.student) == 0) & (np.diff(made.question) == 0)).sum())
    if again:
        said.append(f"{again:,} of {len(made):,} responses are to the question just before: further attempts, kept")
    return made, tuple(students), said


def answers(table: RawTable, column: str) -> pl.Series:
    """A column of answers as Float64: 0, 1, or a part of the marks.

    Raises
    ------
    DataError : a cell that is no number.
    """
    import polars as pl

    number = table.frame[column].str.strip_chars().cast(pl.Float64, strict=False)
    fix = "get the file again from its source"
    table.reject(~number.is_finite().fill_null(False), "an answer that is no number", column, fix)
    return number


def moments(table: RawTable, column: str) -> pl.Series:
    """A column of times as Float64 seconds, null where the cell is blank.

    Raises
    ------
    DataError : a cell that is neither blank nor a time.
    """
    import polars as pl

    blank = table.blank(column)
    if not blank.any():
        return pl.Series(table.seconds(column))
    made = np.full(len(table), np.nan)
    if not blank.all():
        # A blank cell borrows the first time there is, so that the rows of errors stay those of the file.
        first = table.frame[column].filter(~blank)[0]
        filled = table.frame.with_columns(table.frame[column].set(blank, first))
        made = replace(table, frame=filled).seconds(column)
    return pl.Series(made).set(blank, None)


def _whole(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The rows with a right or wrong answer and a time, and notes on the others."""
    import polars as pl

    said = []
    part = ~rows["correct"].is_in([0.0, 1.0]).fill_null(True)
    if part.any():
        example = rows["correct"].filter(part)[0]
        n = int(part.sum())
        said.append(f"{n:,} of {len(rows):,} answers are part marks, as {example:g}: neither right nor wrong, left out")
    none = rows["correct"].is_null()
    if none.any():
        said.append(f"{several(int(none.sum()), 'row')} without an answer, left out")
    late = rows["time"].is_null() & ~part & ~none
    if late.any():
        said.append(f"{several(int(late.sum()), 'row')} without a time, left out")
    kept = rows.filter(~(part | none | late))
    return kept.with_columns(pl.col("correct").cast(pl.Int8)), said
