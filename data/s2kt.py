"""S2KT's folders (ASSISTments 2009 and others): four lines per student, indices decoded by two maps."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.blocks import blocks
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.text import by_index, json_object
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

PARTS = ("train", "dev", "test")
PROBLEMS, SKILLS = "problem_id_hashmap.json", "skill_id_hashmap.json"


@settings
class S2KT(Reader):
    """Train, dev and test students in four lines each; skill ids are composites ("10_13" is skills 10 and 13).

    Questions have their original problem ids, concepts their original skill ids. Students have no ids and are named
    after their file: ``train-1``, ``train-2``, and so on. The split of the source is in ``Dataset.parts``.
    """

    needs: ClassVar[str] = f"train.txt, dev.txt, test.txt, {PROBLEMS}, {SKILLS}"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return all((path / name).is_file() for name in ("train.txt", PROBLEMS, SKILLS))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        questions, skills = (by_index(json_object(path / name), path / name) for name in (PROBLEMS, SKILLS))
        concepts: dict[str, int] = {}
        members = [[concepts.setdefault(c, len(concepts)) for c in skill.split("_")] for skill in skills]
        if "" in concepts:
            value = next(skill for skill in skills if "" in skill.split("_"))
            raise DataError("blank identifier", file=path / SKILLS, value=value, fix="a skill id is like 10 or 10_13")

        students: list[str] = []
        parts: list[int] = []
        student: list[int] = []
        question: list[int] = []
        skill: list[int] = []
        correct: list[int] = []
        for part, name in enumerate(PARTS):
            file = path / f"{name}.txt"
            for number, block in enumerate(blocks(file), start=1):
                if block.heading.strip() != str(len(block.questions)):
                    what = (
                        f"the heading announces another number of responses than the {len(block.questions)} that follow"
                    )
                    raise DataError(
                        what, file=file, row=block.row, value=block.heading, fix="get the file again from its source"
                    )
                _inside(block.questions, len(questions), PROBLEMS, file, block.row + 1)
                _inside(block.skills, len(skills), SKILLS, file, block.row + 2)
                student += [len(students)] * len(block.questions)
                question += block.questions
                skill += block.skills
                correct += block.answers
                students.append(f"{name}-{number}")
                parts.append(part)

        tested = np.unique(np.array([question, skill], dtype=np.int64), axis=1)  # (2, pairs)
        edges = [(q, c) for q, s in tested.T.tolist() for c in members[s]]
        matrix, _ = q_matrix(len(questions), len(concepts), *zip(*edges, strict=True))
        composite = sum(len(m) > 1 for m in members)
        share = [parts.count(part) for part in range(len(PARTS))]
        notes = [
            f"decoded {several(len(skills), 'skill id')}, {composite:,} of them composite, "
            f"into {several(len(concepts), 'concept')}",
            "kept the source's own split: "
            + ", ".join(f"{n:,} {p} students" for n, p in zip(share, PARTS, strict=True)),
        ]
        return Dataset(
            path.resolve().name,
            questions,
            tuple(concepts),
            matrix,
            interactions(student, question, correct),
            tuple(students),
            parts=np.array(parts, dtype=np.int8),
            notes=(*notes, *remarks(matrix)),
        )


def _inside(indices: list[int], n: int, known: str, file: Path, row: int) -> None:
    if min(indices) < 0 or max(indices) >= n:
        wrong = next(i for i in indices if not 0 <= i < n)
        raise DataError(f"an index that {known} doesn't have", file=file, row=row, value=wrong, fix=f"0 to {n - 1}")
