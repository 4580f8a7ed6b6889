"""Eedi: the NeurIPS 2020 Education Challenge, and its subset for the CSC311 course, whose answers have no order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from qcq.data import neurips2020
from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

QUESTIONS, SUBJECTS = "question_meta.csv", "subject_meta.csv"
ANSWERS, UNLABELLED = ("train_data.csv", "valid_data.csv", "test_data.csv"), "private_test_data.csv"
DEPTH = 4  # root, strand, topic, subtopic: Eedi's own levels


@settings
class Eedi(Reader):
    """Concepts are the subjects at the leaves; the levels above them, root included, are their parents.

    NeurIPS 2020: ``question_metadata_task_1_2.csv`` (or ``3_4``), ``subject_metadata.csv``, ``train_task_1_2.csv`` and
    ``answer_metadata_task_1_2.csv``, in one folder or in ``metadata`` and ``train_data`` as in the download. Answers
    are sorted by ``DateAnswered``, which is to the minute.

    CSC311: ``question_meta.csv`` and, where present, ``subject_meta.csv`` and the answers, which have no order. Every
    question lists whole branches, root included, and the root would connect everything to everything. The files
    don't say which subject is below which, so the hierarchy is inferred from the lists (:func:`hierarchy`).
    Answers of the train, valid and test files are put together: they were divided by answer, not by student.

    Parameters
    ----------
    tasks : which tasks of the NeurIPS 2020 data to read where a folder has both; their questions and students are
        numbered anew, so they can't be joined.

    References
    ----------
    Wang et al. 2020, Instructions and guide for diagnostic questions: the NeurIPS 2020 education challenge,
    arXiv:2007.12061; https://eedi.com/projects/neurips-education-challenge.
    """

    needs: ClassVar[str] = (
        f"{QUESTIONS} with the columns question_id and subject_id; or question_metadata_task_1_2.csv (or 3_4) with "
        "QuestionId and SubjectId, and subject_metadata.csv"
    )
    tasks: Literal["", "1_2", "3_4"] = ""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if any({"questionid", "subjectid"} <= set(header(file)) for file in neurips2020.questions_of(path).values()):
            return True
        return {"question_id", "subject_id"} <= set(header(path / QUESTIONS))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        if found := neurips2020.questions_of(path):
            if len(found) > 1 and not self.tasks:
                both = ", ".join(file.name for file in found.values())
                raise DataError("two pairs of tasks", file=path, value=both, fix="choose: --set eedi.tasks=1_2, or 3_4")
            first = next(iter(found))
            tasks = self.tasks or first
            if tasks not in found:
                name = f"question_metadata_task_{tasks}.csv"
                raise DataError("no questions of these tasks", file=path / name, fix=f"set eedi.tasks={first}")
            return neurips2020.read_tasks(path, tasks, found[tasks])
        table = RawTable.read(path / QUESTIONS, ("question_id", "subject_id"))
        questions = table.identifiers("question_id")
        table.reject(~questions.is_first_distinct(), "a question listed twice", "question_id", "keep one of its rows")
        lists = table.integer_lists("subject_id")
        parents = hierarchy(lists)
        leaves = [[s for s in subjects if all(parents.get(other) != s for other in subjects)] for subjects in lists]
        concepts: dict[int, int] = {}
        edges = [(q, concepts.setdefault(s, len(concepts))) for q, subjects in enumerate(leaves) for s in subjects]
        if not edges:
            raise DataError(
                "no question has a subject", file=path / QUESTIONS, fix="get the file again from its source"
            )
        matrix, repeated = q_matrix(len(questions), len(concepts), *zip(*edges, strict=True))
        named = len({s for subjects in lists for s in subjects})
        notes = [
            f"kept {several(len(concepts), 'subject')} at the leaves as concepts and {named - len(concepts):,} above "
            "them as parents, by a hierarchy inferred from which subjects occur together"
        ]
        names: dict[str, str] = {}
        if (path / SUBJECTS).is_file():
            subjects = RawTable.read(path / SUBJECTS, ("subject_id", "name"))
            names = dict(zip(subjects.identifiers("subject_id"), subjects.identifiers("name"), strict=True))
            if len(names) > named:
                notes.append(f"{several(len(names) - named, 'subject')} that no question lists, left out")
        files = [path / name for name in ANSWERS if (path / name).is_file()]
        responses, students = _answers(files, questions) if files else (None, ())
        if files:
            notes.append(
                "the answers have no order; the source's own split divides answers, not students: its files are joined"
            )
        if (path / UNLABELLED).is_file():
            notes.append(f"left {UNLABELLED} unread: it has no labels")
        return Dataset(
            path.resolve().name,
            tuple(questions),
            tuple(map(str, concepts)),
            matrix,
            responses,
            students,
            concept_names={str(s): names[str(s)] for s in {*concepts, *parents.values()} if str(s) in names},
            parents={str(child): str(parent) for child, parent in parents.items()},
            notes=(*notes, *remarks(matrix, repeated)),
        )


def hierarchy(lists: Sequence[Sequence[int]]) -> dict[int, int]:
    """Subject → the subject above it, from lists that hold whole branches down from the root.

    A list of exactly four subjects is one branch. The more questions list a subject, the higher its level; this gives
    these subjects their level (of two equally frequent ones, the smaller id is higher). A subject b is below the rarest
    subject that is in every list with b, provided that this subject isn't at the lowest level and, where both levels
    are known, is above b's.

    Returns
    -------
    dict : the root isn't in it.
    """
    count = Counter(s for subjects in lists for s in subjects)
    level: dict[int, int] = {}
    together: dict[int, set[int]] = {}
    for subjects in lists:
        if len(subjects) == DEPTH:
            level.update((s, depth) for depth, s in enumerate(sorted(subjects, key=lambda s: (-count[s], s))))
        for s in subjects:
            together[s] = together[s] & set(subjects) if s in together else set(subjects)

    def above(a: int, b: int) -> bool:
        if a in level:
            return level[a] < level.get(b, DEPTH) and level[a] < DEPTH - 1
        return b not in level and (-count[a], a) < (-count[b], b)

    found = {}
    for b, always in together.items():
        candidates = [a for a in always if a != b and above(a, b)]
        if candidates:
            found[b] = min(candidates, key=lambda a: (count[a], -level.get(a, -1), -a))
    return found


def _answers(files: Sequence[Path], questions: object) -> tuple[Interactions, tuple[str, ...]]:
    import polars as pl

    assert isinstance(questions, pl.Series)
    who, what, right = [], [], []
    for file in files:
        table = RawTable.read(file, ("question_id", "user_id", "is_correct"))
        question = codes(table.identifiers("question_id"), questions)
        table.reject(question.is_null(), "unknown question", "question_id", f"it isn't in {QUESTIONS}")
        who.append(table.identifiers("user_id"))
        what.append(question)
        right.append(pl.Series(table.binary("is_correct")))
    users = pl.concat(who)
    students = users.unique(maintain_order=True)
    given = interactions(codes(users, students), pl.concat(what), pl.concat(right), ordered=False)
    return given, tuple(students)
