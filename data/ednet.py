"""EdNet KT1 as it is downloaded: one CSV file per student, and the table of questions with their tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.data.sealed import Seal, with_seal
from qcq.data.table import RawTable, codes
from qcq.data.text import header, read_bytes
from qcq.errors import DataError
from qcq.support.seeds import generator
from qcq.support.settings import settings
from qcq.support.words import several

QUESTIONS = ("contents/questions.csv", "EdNet-Contents/contents/questions.csv", "questions.csv")
STUDENTS = ("KT1", "EdNet-KT1/KT1", ".")
META = ("question_id", "correct_answer", "tags")
COLUMNS = ("timestamp", "solving_id", "question_id", "user_answer", "elapsed_time")
CHUNK = 20_000  # files that are parsed together


@settings
class EdNet(Reader):
    """``contents/questions.csv`` and, where present, ``KT1/u1.csv``, ``KT1/u2.csv`` …, a file per student.

    An answer is right if it is the question's ``correct_answer``; rows without an answer are left out and counted. The
    tag ``-1`` means that a question has none. A bundle of questions is submitted at once, so its answers have one time;
    they stay in the order of the file.

    Parameters
    ----------
    students : how many of the students to read, drawn by a fixed seed; 0 reads all (784,309 in the published set).
    sealed : ``closed`` leaves one student in twenty out of every part of a split, kept for a later test; ``test`` makes
        them the test part (:mod:`qcq.data.sealed`). A run that does so writes it into the register of test readings.

    References
    ----------
    Choi et al. 2020, EdNet: a large-scale hierarchical dataset in education, AIED.
    """

    needs: ClassVar[str] = (
        "contents/questions.csv with question_id, correct_answer and tags; KT1/u1.csv … for responses"
    )
    students: Annotated[int, Field(ge=0)] = 0
    sealed: Seal = "closed"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        file = _questions(path)
        return file is not None and set(META) <= set(header(file))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        import polars as pl

        file = _questions(path)
        if file is None:
            raise DataError("no table of questions", file=path / QUESTIONS[0], fix=f"it needs {self.needs}")
        table = RawTable.read(file, META)
        questions = table.identifiers("question_id")
        table.reject(~questions.is_first_distinct(), "a question listed twice", "question_id", "keep one of its rows")
        tags = table.frame.select(
            pl.col("tags").str.split(";").alias("tag"), pl.int_range(pl.len()).alias("at")
        ).explode("tag")
        tags = tags.with_columns(pl.col("tag").str.strip_chars()).filter(
            pl.col("tag").is_not_null() & ~pl.col("tag").is_in(["", "-1"])
        )
        concepts = tags["tag"].unique(maintain_order=True)
        if len(concepts) == 0:
            raise DataError("no question has a tag", file=file, column="tags", fix="get the file again from its source")
        matrix, repeated = q_matrix(
            len(questions), len(concepts), tags["at"].to_numpy(), codes(tags["tag"], concepts).to_numpy()
        )
        files = _files(path)
        notes = [] if files else ["no file of a student (u1.csv …): a graph without responses"]
        if self.students and self.students < len(files):
            chosen = generator(0, "ednet", "students").choice(len(files), self.students, replace=False)
            notes.append(f"read {self.students:,} of {len(files):,} students, drawn by a fixed seed")
            files = [files[i] for i in np.sort(chosen)]
        responses: Interactions | None = None
        if files:
            responses, said = _responses(files, questions, table.frame["correct_answer"])
            notes += said
        made = Dataset(
            path.resolve().name,
            tuple(questions),
            tuple(concepts),
            matrix,
            responses,
            tuple(file.stem for file in files),
            notes=(*notes, *remarks(matrix, repeated)),
        )
        return with_seal(made, self.sealed) if files else made


def _questions(path: Path) -> Path | None:
    return next((path / name for name in QUESTIONS if (path / name).is_file()), None)


def _files(path: Path) -> list[Path]:
    """The files of the students, by number."""
    for name in STUDENTS:
        folder = path / name
        if folder.is_dir():
            found = [file for file in folder.glob("u*.csv") if file.stem[1:].isdecimal()]
            if found:
                return sorted(found, key=lambda file: int(file.stem[1:]))
    return []


def _responses(files: Sequence[Path], questions: object, answers: object) -> tuple[Interactions, list[str]]:
    """All students' responses: parsed many files at a time, because one by one takes longer than the parsing."""
    import polars as pl

    assert isinstance(questions, pl.Series)
    assert isinstance(answers, pl.Series)
    parts: list[tuple[np.ndarray, ...]] = []
    bare = 0
    right = answers.str.strip_chars().to_numpy()
    for begin in range(0, len(files), CHUNK):
        text = b"student,question_id,timestamp,user_answer\n" + b"".join(_rows(files[begin : begin + CHUNK], begin))
        frame = pl.read_csv(text, infer_schema=False, quote_char=None)  # cells without commas, so without quotes
        empty = frame["user_answer"].is_null() | (frame["user_answer"].str.strip_chars() == "").fill_null(False)
        bare += int(empty.sum())
        frame = frame.filter(~empty)
        student = frame["student"].cast(pl.Int64).to_numpy()
        question = codes(frame["question_id"], questions)
        time = frame["timestamp"].cast(pl.Float64, strict=False)
        for bad, column, what in (
            (question.is_null(), "question_id", "unknown question"),
            (~time.is_finite().fill_null(False), "timestamp", "not a time"),
        ):
            if bad.any():
                at = int(bad.to_numpy().argmax())
                where = files[int(student[at])]
                fix = "get the file again from its source"
                raise DataError(what, file=where, column=column, value=frame[column][at], fix=fix)
        asked = question.to_numpy()
        correct = frame["user_answer"].str.strip_chars().to_numpy() == right[asked]
        parts.append((student, asked, correct, time.to_numpy() / 1000))
    student, asked, correct, seconds = (np.concatenate(column) for column in zip(*parts, strict=True))
    notes = [f"{several(bare, 'row')} without an answer, left out"] if bare else []
    made = interactions(student, asked, correct, seconds)
    assert made.timestamp is not None
    tied = int(((np.diff(made.student) == 0) & (np.diff(made.timestamp) == 0)).sum())
    if tied:
        said = f"{tied:,} of {len(made):,} responses have the time of the one before (bundles): in the file's order"
        notes.append(said)
    return made, notes


def _rows(files: Sequence[Path], first: int) -> Iterator[bytes]:
    """The rows of the files, each led by the number of its file."""
    for number, file in enumerate(files, start=first):
        heading, _, body = read_bytes(file).decode("utf-8-sig", errors="replace").replace("\r\n", "\n").partition("\n")
        names = [name.strip() for name in heading.split(",")]
        if not set(COLUMNS[:1] + COLUMNS[2:4]) <= set(names):
            fix = f"the columns are {', '.join(COLUMNS)}"
            raise DataError("no file of a student", file=file, row=1, value=heading, fix=fix)
        keep = [names.index(name) for name in ("question_id", "timestamp", "user_answer")]
        for row, line in enumerate(body.splitlines(), start=2):
            cells = line.split(",")
            if len(cells) != len(names):
                fix = "get the file again from its source"
                what = f"ragged row: {len(cells)} fields where the header has {len(names)}"
                raise DataError(what, file=file, row=row, value=line, fix=fix)
            yield f"{number},{','.join(cells[i].strip() for i in keep)}\n".encode()
