"""EduData's triple lines: number of answers, items and answers of a student; concepts from a table in its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from qcq.data.assembly import interactions, remarks
from qcq.data.blocks import triples
from qcq.data.dataset import Dataset
from qcq.data.icd import COLUMNS, ITEMS, read_items, triple_files
from qcq.data.reader import Reader
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

PARTS = {"train": 0, "valid": 1, "validation": 1, "dev": 1, "test": 2}
CALLED = ("train", "validation", "test")


@settings
class EduData(Reader):
    """Files of three lines a student (number of answers, items, answers), and ``item.csv`` with the items' concepts.

    The lines name one id an answer, so on their own they don't say what a question tests. ``item.csv`` does, with the
    columns ``item_id,knowledge_code`` as in EduData's sets for cognitive diagnosis; without it the set is refused.
    One file, or a folder with one file, or with files that have ``train``, ``valid`` (or ``dev``) and ``test`` in
    their names: if all three parts are there, they are kept as the split. Students have no ids and are named after
    their file: ``train-1``, ``train-2`` and so on. ``edudata json2tl`` makes such lines of EduData's json sequences.

    References
    ----------
    ``EduData/Task/KnowledgeTracing/format.py``, https://github.com/bigdata-ustc/EduData; the layout comes from Piech et
    al. 2015, Deep knowledge tracing, NeurIPS.
    """

    needs: ClassVar[str] = (
        f"files of three lines a student (number, items, answers), and {ITEMS} with {', '.join(COLUMNS)}"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(triple_files(path))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        folder = path if path.is_dir() else path.parent
        files = _choose(path)
        if not (folder / ITEMS).is_file():
            what = f"the lines name one id an answer, and no {ITEMS} says which concepts an item tests"
            fix = (
                f"put {ITEMS} ({','.join(COLUMNS)}; a list as [3, 7]) into their folder; if the ids are skills, as in "
                "ktbd's assistment_2009_2010, there are no questions: take the raw release"
            )
            raise DataError(what, file=folder / ITEMS, fix=fix)
        items, concepts, matrix, repeated = read_items(folder / ITEMS)
        place = {item: i for i, item in enumerate(items)}
        student: list[int] = []
        question: list[int] = []
        correct: list[int] = []
        students: list[str] = []
        parts: list[int] = []
        silent = 0
        for file in files:
            for number, one in enumerate(triples(file), start=1):
                if not one.items:
                    silent += 1
                    continue
                unknown = next((at for at, item in enumerate(one.items, start=1) if item not in place), None)
                if unknown is not None:
                    fix = f"it isn't in {ITEMS}; take the table of the same numbering"
                    value = one.items[unknown - 1]
                    raise DataError(
                        "unknown item", file=file, row=one.row + 1, column=f"entry {unknown}", value=value, fix=fix
                    )
                student += [len(students)] * len(one.items)
                question += [place[item] for item in one.items]
                correct += one.answers
                students.append(f"{file.stem}-{number}")
                parts.append(_part(file))
        if not students:
            raise DataError("no student has an answer", file=files[0], fix="get the file again from its source")
        notes = [f"{several(silent, 'student')} without an answer, left out"] if silent else []
        kept = None
        if set(parts) == {0, 1, 2}:
            kept = np.array(parts, dtype=np.int8)
            shares = ", ".join(f"{parts.count(i):,} {name} students" for i, name in enumerate(CALLED))
            notes.append(f"kept the source's own split: {shares}")
        elif len(files) > 1:
            notes.append(f"no split kept: {', '.join(file.name for file in files)} aren't train, valid and test")
        return Dataset(
            path.resolve().name if path.is_dir() else path.stem,
            tuple(items),
            concepts,
            matrix,
            interactions(student, question, correct),
            tuple(students),
            parts=kept,
            notes=(*notes, *remarks(matrix, repeated)),
        )


def _choose(path: Path) -> list[Path]:
    """The files to read: the one named, the only one of a folder, or its parts."""
    if path.is_file():
        return [path]  # what is wrong in it is said when it is read
    files = triple_files(path)
    if not files:
        raise DataError("no file of triple lines", file=path, fix="three lines a student: number, items, answers")
    stems = [file.stem for file in files]
    if len(files) > 1 and (min(map(_part, files)) < 0 or len({*stems}) < len(stems)):
        names = ", ".join(file.name for file in files)
        fix = "name one: edudata:FOLDER/FILE; students of several files would count twice"
        raise DataError("several files of triple lines", file=path, value=names, fix=fix)
    return sorted(files, key=_part)


def _part(file: Path) -> int:
    """Which part of a split a file is by its name; -1 if it is none."""
    found = {PARTS[word] for word in re.split(r"[._\-]", file.name.lower()) if word in PARTS}
    return found.pop() if len(found) == 1 else -1
