"""Your own data: three CSV files, or the same tables as frames. Nothing is repaired; anything wrong is an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcq.data.assembly import cycle, interactions, q_matrix, remarks, several
from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings

if TYPE_CHECKING:
    import polars as pl

QUESTIONS, INTERACTIONS, CONCEPTS = "questions.csv", "interactions.csv", "concepts.csv"


@settings
class CSV(Reader):
    """``questions.csv``, and, where present, ``interactions.csv`` and ``concepts.csv``; or one file of questions.

    - ``questions.csv``: ``question,concepts`` with ``;`` between concepts, or ``question,concept`` with one row per
      edge. The concepts of all rows of a question count. An empty cell gives a question without a concept. ``name`` is
      optional.
    - ``interactions.csv``: ``student,question,correct`` and optionally ``timestamp`` (seconds, or ISO 8601); without
      it, the rows of a student are in the order of the answers.
    - ``concepts.csv``: ``concept`` and optionally ``name`` and ``parent``.
    """

    needs: ClassVar[str] = f"{QUESTIONS} with the columns question and concepts (or concept)"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        names = header(path / QUESTIONS if path.is_dir() else path)
        return "question" in names and ("concept" in names or "concepts" in names)

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        folder = path.is_dir()
        questions = read_questions(path / QUESTIONS if folder else path)
        answers = concepts = None
        if folder and (path / INTERACTIONS).exists():
            answers = RawTable.read(path / INTERACTIONS, ("student", "question", "correct"), ("timestamp",))
        if folder and (path / CONCEPTS).exists():
            concepts = RawTable.read(path / CONCEPTS, ("concept",), ("name", "parent"))
        name = path.resolve().name if folder else path.stem
        return assemble(name, questions, answers, concepts)


def read_questions(path: Path) -> RawTable:
    """The table of questions, with whichever of the two columns of concepts it has."""
    names = header(path)
    if "concept" in names and "concepts" in names:
        fix = "keep concepts (';' between them) or concept (one row per edge)"
        raise DataError("both a column concept and a column concepts", file=path, row=1, fix=fix)
    return RawTable.read(path, ("question", "concept" if "concept" in names else "concepts"), ("name",))


def assemble(
    name: str, questions: RawTable, answers: RawTable | None = None, concepts: RawTable | None = None
) -> Dataset:
    """The data set of three tables.

    Raises
    ------
    DataError : a blank identifier, an unknown question or parent, a response that is neither 0 nor 1 …
    """
    import polars as pl

    called = questions.identifiers("question")
    question_ids = called.unique(maintain_order=True)
    row = codes(called, question_ids)
    pieces, record = _concepts(questions)
    known = concepts.identifiers("concept") if concepts is not None else pl.Series([], dtype=pl.String)
    if concepts is not None and known.n_unique() < len(known):
        concepts.reject(~known.is_first_distinct(), "a concept listed twice", "concept", "keep one of its rows")
    concept_ids = pl.concat([pieces.rename("concept"), known.rename("concept")]).unique(maintain_order=True)
    if len(concept_ids) == 0:
        raise DataError("no question has a concept", file=questions.source, fix="name at least one concept")
    matrix, repeated = q_matrix(
        len(question_ids), len(concept_ids), row.to_numpy()[record.to_numpy()], codes(pieces, concept_ids).to_numpy()
    )
    notes = remarks(matrix, repeated)
    if concepts is not None and (unlisted := len(concept_ids) - len(known)):
        notes.append(f"{several(unlisted, 'concept')} without a row in {CONCEPTS}")
    responses, students = (None, ()) if answers is None else _interactions(answers, question_ids)
    return Dataset(
        name,
        tuple(question_ids),
        tuple(concept_ids),
        matrix,
        responses,
        students,
        _names(questions, "question"),
        {} if concepts is None else _names(concepts, "concept"),
        {} if concepts is None else _parents(concepts, concept_ids),
        notes=tuple(notes),
    )


def _concepts(table: RawTable) -> tuple[pl.Series, pl.Series]:
    """The concept names, one after the other, and the record each is in; empty cells give none."""
    import polars as pl

    column = "concept" if "concept" in table.frame.columns else "concepts"
    cells = table.frame[column]
    listed = cells.dtype == pl.List
    filled = (cells.list.len() > 0).fill_null(False) if listed else ~table.blank(column)
    long = pl.DataFrame({"piece": cells, "at": np.arange(len(cells))}).filter(filled)
    if listed:
        long = long.explode("piece")
    elif column == "concepts":  # a space after a semicolon belongs to the separator
        long = long.with_columns(pl.col("piece").str.split(";")).explode("piece")
        long = long.with_columns(pl.col("piece").str.strip_chars(" "))
    return table.identifiers(column, long["piece"], long["at"]), long["at"]


def _interactions(table: RawTable, question_ids: pl.Series) -> tuple[Interactions, tuple[str, ...]]:
    who = table.identifiers("student")
    question = codes(table.identifiers("question"), question_ids)
    table.reject(question.is_null(), "unknown question", "question", "add it to the questions, or take the row out")
    correct = table.binary("correct")
    time = table.seconds("timestamp") if "timestamp" in table.frame.columns else None
    students = who.unique(maintain_order=True)
    made = interactions(codes(who, students).to_numpy(), question.to_numpy(), correct, time)
    return made, tuple(students)


def _names(table: RawTable, column: str) -> dict[str, str]:
    if "name" not in table.frame.columns:
        return {}
    named = table.frame.filter(~table.blank("name"))
    return dict(zip(named[column], named["name"], strict=True))


def _parents(table: RawTable, concept_ids: pl.Series) -> dict[str, str]:
    if "parent" not in table.frame.columns:
        return {}
    filled = ~table.blank("parent")
    unknown = filled & ~table.frame["parent"].is_in(concept_ids.implode())
    table.reject(unknown, "unknown parent", "parent", "give the parent a row of its own")
    pairs = list(zip(table.frame["concept"].filter(filled), table.frame["parent"].filter(filled), strict=True))
    circle = cycle(pairs)
    if circle:
        at = table.frame["concept"].to_list().index(circle[0])
        raise table.error("the parents run in a circle", at=at, column="parent", value=" → ".join(circle))
    return dict(pairs)
