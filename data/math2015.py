"""The Math2015 exams (Math1, Math2, FrcSub): a Q-matrix and a table of scores, without order."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.data.assembly import halves, interactions, q_matrix, remarks
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.text import read_text
from qcq.errors import DataError
from qcq.support.settings import settings

SKILLS, SCORES, NAMES = "q.txt", "data.txt", "qnames.txt"


@settings
class Math2015(Reader):
    """One exam (a folder with ``q.txt`` and ``data.txt``), or a folder of exams read as one data set.

    Scores are shares of the full marks; a share of one half or more counts as a right answer. The exams of a folder
    have no student, question or skill in common, so identifiers start with the exam's name, ``Math1/3``.
    """

    needs: ClassVar[str] = f"{SKILLS} (questions × skills) and {SCORES} (students × questions), or folders with them"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            return bool(_exams(path))
        except OSError:
            return False

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        folders = _exams(path)
        if not folders:
            raise DataError(f"no {SKILLS} and {SCORES}", file=path, fix="give the folder of an exam, or of several")
        questions: list[str] = []
        concepts: list[str] = []
        students: list[str] = []
        names: dict[str, str] = {}
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int64]] = []
        who: list[NDArray[np.int64]] = []
        what: list[NDArray[np.int64]] = []
        share: list[NDArray[np.float64]] = []
        for folder in folders:
            prefix = "" if folder == path else f"{folder.name}/"
            skills, scores = _grid(folder / SKILLS), _grid(folder / SCORES)
            if scores.shape[1] != len(skills):
                what_is = f"{scores.shape[1]} scores a student for {len(skills)} questions in {SKILLS}"
                raise DataError(what_is, file=folder / SCORES, fix="a row is a student, a column a question")
            if not np.isin(skills, (0.0, 1.0)).all():
                row, column = np.argwhere(~np.isin(skills, (0.0, 1.0)))[0].tolist()
                at = {"row": row + 1, "column": str(column + 1)}
                raise DataError(
                    "neither 0 nor 1",
                    file=folder / SKILLS,
                    value=float(skills[row, column]),
                    fix="write 1 where the question needs the skill",
                    **at,
                )
            question, concept = np.nonzero(skills)
            rows.append(question + len(questions))
            columns.append(concept + len(concepts))
            who.append(np.repeat(np.arange(len(scores)), len(skills)) + len(students))
            what.append(np.tile(np.arange(len(skills)), len(scores)) + len(questions))
            share.append(scores.ravel())
            names |= {prefix + number: name for number, name in _names(folder / NAMES).items()}
            questions += [f"{prefix}{i}" for i in range(1, len(skills) + 1)]
            concepts += [f"{prefix}{i}" for i in range(1, skills.shape[1] + 1)]
            students += [f"{prefix}{i}" for i in range(1, len(scores) + 1)]
        matrix, _ = q_matrix(len(questions), len(concepts), np.concatenate(rows), np.concatenate(columns))
        correct, said = halves(np.concatenate(share))
        notes = [*said, "the scores have no order", *remarks(matrix)]
        if folders != [path]:
            exams = ", ".join(folder.name for folder in folders)
            notes = [f"read {len(folders)} exams as one data set: {exams}; they share nothing", *notes]
        return Dataset(
            path.resolve().name,
            tuple(questions),
            tuple(concepts),
            matrix,
            interactions(np.concatenate(who), np.concatenate(what), correct, ordered=False),
            tuple(students),
            concept_names={concept: names[concept] for concept in concepts if concept in names},
            notes=tuple(notes),
        )


def _exams(path: Path) -> list[Path]:
    if (path / SKILLS).is_file() and (path / SCORES).is_file():
        return [path]
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    return [folder for folder in folders if (folder / SKILLS).is_file() and (folder / SCORES).is_file()]


def _grid(path: Path) -> NDArray[np.float64]:
    """A table of shares, float64 (rows, columns), columns separated by tabs or spaces."""
    lines = read_text(path)[0].rstrip().splitlines()
    if not lines:
        raise DataError("the file is empty", file=path, fix="get the file again from its source")
    made = np.empty((len(lines), len(lines[0].split())))
    for row, line in enumerate(lines):
        cells = line.split()
        if len(cells) != made.shape[1]:
            what = f"ragged row: {len(cells)} columns where the first row has {made.shape[1]}"
            raise DataError(what, file=path, row=row + 1, value=line, fix="get the file again from its source")
        for column, cell in enumerate(cells):
            try:
                made[row, column] = float(cell)
            except ValueError:
                made[row, column] = np.nan
            if not 0 <= made[row, column] <= 1:
                raise DataError(
                    "no share from 0 to 1",
                    file=path,
                    row=row + 1,
                    column=str(column + 1),
                    value=cell,
                    fix="give the share of the full marks",
                )
    return made


def _names(path: Path) -> dict[str, str]:
    """Number → name from lines like ``3<tab>Simplify,`` under a heading; empty where there is no such file."""
    if not path.is_file():
        return {}
    parts = [line.split("\t") for line in read_text(path)[0].splitlines()[1:]]
    return {part[0].strip(): part[1].strip().rstrip(",.") for part in parts if len(part) == 2}
