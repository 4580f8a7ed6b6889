"""PEBG's folders: EdNet with responses, and graphs as sparse matrices with Python dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.blocks import blocks, python_list
from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.data.text import literal, read_text
from qcq.errors import DataError
from qcq.support.arrays import read_sparse
from qcq.support.settings import settings
from qcq.support.words import several

QUESTIONS, SKILLS, LISTED = "pro_id_dict.txt", "skill_id_dict.txt", "pro_skill_dict.txt"
MATRIX, RESPONSES = "pro_skill_sparse.npz", "data.txt"


@settings
class PEBG(Reader):
    """Question and skill ids from Python dictionaries; concepts from ``pro_skill_dict.txt``, or else from the matrix.

    The files are read as literals and plain arrays: nothing in them is ever run. ``pro_feat.npz`` contains the correct
    rate over all users, test students included, and is never used. Students have no ids and are named by position.
    """

    needs: ClassVar[str] = f"{QUESTIONS} with {LISTED} (or {SKILLS} and {MATRIX}), and {RESPONSES} for responses"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / QUESTIONS).is_file() and ((path / LISTED).is_file() or (path / MATRIX).is_file())

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        questions = _ids(path / QUESTIONS)
        edges, concepts, notes = (_listed if (path / LISTED).is_file() else _sparse)(path, questions)
        matrix, repeated = q_matrix(len(questions), len(concepts), *edges)
        responses, students = None, 0
        if (path / RESPONSES).is_file():
            responses, students = _responses(path / RESPONSES, len(questions))
        else:
            notes.append(f"no {RESPONSES}: a graph without responses")
        if (path / "pro_feat.npz").is_file():
            notes.append("left pro_feat.npz unread: its correct rates come from all students, test students included")
        return Dataset(
            path.resolve().name,
            questions,
            concepts,
            matrix,
            responses,
            tuple(str(i) for i in range(1, students + 1)),
            notes=(*notes, *remarks(matrix, repeated)),
        )


def _dictionary(path: Path) -> dict[Any, Any]:
    made: dict[Any, Any] = literal(read_text(path)[0].strip(), dict, file=path, row=1)
    if not made:
        raise DataError("the dictionary is empty", file=path, row=1, fix="get the file again from its source")
    return made


def _ids(path: Path) -> tuple[str, ...]:
    """The identifiers of an identifier → index dictionary, in index order; the indices have no gaps."""
    found = _dictionary(path)
    for key, index in found.items():
        if type(index) is not int or not str(key).strip():
            raise DataError(
                "not an identifier with its index",
                file=path,
                column=str(key),
                value=index,
                fix="get the file again from its source",
            )
    if sorted(found.values()) != list(range(len(found))):
        raise DataError(
            f"the indices are not 0 to {len(found) - 1}, each once", file=path, fix="get the file again from its source"
        )
    return tuple(str(key) for key in sorted(found, key=found.__getitem__))


def _listed(path: Path, questions: tuple[str, ...]) -> tuple[tuple[list[int], list[int]], tuple[str, ...], list[str]]:
    """Edges from question → "c;c;c"."""
    file = path / LISTED
    found = {str(question): cell for question, cell in _dictionary(file).items()}
    index = {question: i for i, question in enumerate(questions)}
    for question in found:
        if question not in index:
            raise DataError(
                f"a question that {QUESTIONS} doesn't have",
                file=file,
                value=question,
                fix="get the file again from its source",
            )
    concepts: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    for question, i in index.items():
        cell = found.get(question, "")
        if not isinstance(cell, str):
            raise DataError("not a text of concepts", file=file, column=question, value=cell, fix='write "c;c"')
        for piece in cell.split(";") if cell else ():
            if not piece.strip():
                raise DataError("blank identifier", file=file, column=question, value=cell, fix="name the concept")
            rows.append(i)
            columns.append(concepts.setdefault(piece, len(concepts)))
    if not concepts:
        raise DataError("no question has a concept", file=file, fix="get the file again from its source")
    return (rows, columns), tuple(concepts), []


def _sparse(path: Path, questions: tuple[str, ...]) -> tuple[tuple[list[int], list[int]], tuple[str, ...], list[str]]:
    """Edges from the matrix. Its columns are the first ids of the skill map; composites ("10_13") come after them."""
    skills = _ids(path / SKILLS)
    file = path / MATRIX
    try:
        found = read_sparse(file).tocoo()
    except (OSError, ValueError) as error:
        raise DataError(
            f"not a sparse matrix saved by scipy ({error})", file=file, fix="get the file again from its source"
        ) from None
    if found.shape[0] != len(questions) or found.shape[1] > len(skills):
        what = (
            f"a matrix of {found.shape[0]} × {found.shape[1]} for {len(questions)} questions and {len(skills)} skills"
        )
        raise DataError(what, file=file, fix=f"take the matrix that belongs to {QUESTIONS} and {SKILLS}")
    kept = found.data != 0
    concepts = skills[: found.shape[1]]
    notes = []
    if len(skills) > len(concepts):
        joint = len(skills) - len(concepts)
        notes.append(f"set {several(joint, 'joint skill id')} aside: the matrix has a column for each single concept")
    return (found.row[kept].tolist(), found.col[kept].tolist()), concepts, notes


def _responses(file: Path, n_questions: int) -> tuple[Interactions, int]:
    student: list[int] = []
    question: list[int] = []
    correct: list[int] = []
    number = -1
    for number, block in enumerate(blocks(file, python_list, ("skills", "questions", "answers"))):
        announced = python_list(block.heading, file=file, row=block.row)
        if announced != [len(block.questions)]:
            what = f"the heading announces another number of responses than the {len(block.questions)} that follow"
            raise DataError(
                what, file=file, row=block.row, value=block.heading, fix="get the file again from its source"
            )
        if block.questions and not (min(block.questions) >= 0 and max(block.questions) < n_questions):
            wrong = next(q for q in block.questions if not 0 <= q < n_questions)
            what = f"a question that {QUESTIONS} doesn't have"
            raise DataError(what, file=file, row=block.row + 2, value=wrong, fix=f"0 to {n_questions - 1}")
        student += [number] * len(block.questions)
        question += block.questions
        correct += block.answers
    return interactions(student, question, np.array(correct, dtype=np.int8)), number + 1
