"""AKT's folders with problem ids (ASSISTments 2009): five test files that together contain every student once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.blocks import are_triples, blocks
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.text import json_object
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

FOLDS = 5


@settings
class AKT(Reader):
    """The union of ``*_test1.csv`` to ``*_test5.csv``. Rows of one attempt at several skills are merged.

    Train and valid files repeat the same students and are not read. An attempt at a question with several skills
    takes several rows with the same question and answer. If the rows counted as attempts, the first one would reveal
    the answer of the others, so they are merged. Names come from ``skill.json`` and ``problems.json`` where present.
    """

    needs: ClassVar[str] = "NAME_test1.csv to NAME_test5.csv with four lines a student"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            files = sorted(path.glob("*_test[1-5].csv"))
            if not files:
                return False
            with files[0].open(encoding="utf-8") as file:
                numbered = re.fullmatch(r"\d+(,[^,\s]+)?\s*", file.readline(200)) is not None
            return numbered and not are_triples(files[0])  # the same names are in use for three lines a student
        except (OSError, ValueError):
            return False

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        names = {re.sub(r"_test[1-5]\.csv$", "", file.name) for file in path.glob("*_test[1-5].csv")}
        if len(names) != 1:
            what = f"{len(names)} data sets" if names else "no *_test1.csv"
            fix = "a folder should hold the five test files of one"
            raise DataError(what, file=path, value=", ".join(sorted(names)) or None, fix=fix)
        (stem,) = names
        students: dict[str, int] = {}
        questions: dict[int, int] = {}
        concepts: dict[int, int] = {}
        edges: dict[tuple[int, int], None] = {}
        student: list[int] = []
        question: list[int] = []
        correct: list[int] = []
        rows = 0
        for fold in range(1, FOLDS + 1):
            file = path / f"{stem}_test{fold}.csv"
            for block in blocks(file):
                who = block.heading.split(",")[-1].strip()
                if not who:
                    raise DataError(
                        "blank identifier", file=file, row=block.row, value=block.heading, fix="name the user"
                    )
                if who in students:
                    what = "a student who occurred already"
                    raise DataError(what, file=file, row=block.row, value=who, fix="the test files share no students")
                me = students.setdefault(who, len(students))
                rows += len(block.questions)
                before = (-1, -1, -1)
                for q, s, a in zip(block.questions, block.skills, block.answers, strict=True):
                    # A row that differs from the row before in its skill only is the same attempt.
                    if (q, a) != before[:2] or s == before[2]:
                        student.append(me)
                        question.append(questions.setdefault(q, len(questions)))
                        correct.append(a)
                    before = (q, a, s)
                    edges[questions[q], concepts.setdefault(s, len(concepts))] = None

        matrix, _ = q_matrix(len(questions), len(concepts), *np.array(list(edges)).T)
        notes = [
            f"merged {several(rows - len(question), 'repeated attempt')} "
            "(same question and answer written again under another skill)"
        ]
        skipped = sorted(file.name for file in path.glob(f"{stem}_*.csv") if "_test" not in file.name)
        if skipped:
            notes.append(
                f"left {several(len(skipped), 'file')} unread that repeat the same students ({skipped[0]} ...)"
            )
        question_names = {
            q: f"problem {name}" for q, name in _names(path / "problems.json").items() if int(q) in questions
        }
        concept_names = {c: name for c, name in _names(path / "skill.json").items() if int(c) in concepts}
        return Dataset(
            path.resolve().name,
            tuple(map(str, questions)),
            tuple(map(str, concepts)),
            matrix,
            interactions(student, question, correct),
            tuple(students),
            question_names,
            concept_names,
            notes=(*notes, *remarks(matrix)),
        )


def _names(path: Path) -> dict[str, str]:
    """Index (as text) → name, from a name → index map; empty if there is no such file."""
    if not path.is_file():
        return {}
    found = json_object(path)
    for name, index in found.items():
        if type(index) is not int:
            raise DataError("not a whole number", file=path, column=name, value=index, fix="write a whole number, as 3")
    return {str(index): name for name, index in found.items()}
