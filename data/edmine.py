"""A folder of pyedmine's unified format: blocks of lines, named by the first line, and the Q-matrix as an array."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.data.assembly import q_matrix, remarks
from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.data.table import RawTable
from qcq.data.text import read_text
from qcq.errors import DataError
from qcq.support.arrays import read_npy
from qcq.support.settings import settings
from qcq.support.words import several

RESPONSES, MATRIX = "data.txt", "Q_table.npy"
REQUIRED = ("user_id", "seq_len", "question_seq", "correctness_seq")
AGAIN = "get the file again from its source"
MILLISECONDS = 1e11  # as seconds, this is in the year 5138


@settings
class EDMine(Reader):
    """``data.txt`` and ``Q_table.npy`` of ``dataset_preprocessed/NAME``, with the maps of identifiers where present.

    The first line of ``data.txt`` names the lines of a student: ``user_id,seq_len;question_seq,correctness_seq,…``. The
    first ``seq_len`` entries of a list count, what follows is padding. Times are in seconds for most sets and in
    milliseconds for some; numbers above 1e11 are taken as milliseconds, and a note says so. ``question_id_map.csv`` and
    the like give the original identifiers; without them the identifiers are edmine's indices.

    References
    ----------
    ``write_kt_file`` in ``edmine/utils/data_io.py``, https://github.com/ZhijieXiong/pyedmine
    """

    needs: ClassVar[str] = (
        f"{RESPONSES} whose first line has user_id,seq_len;question_seq,correctness_seq, and {MATRIX}"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            with (path / RESPONSES).open(encoding="utf-8-sig") as file:
                return set(REQUIRED) <= {*_keys(file.readline(1 << 12))}
        except (OSError, ValueError):
            return False

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        matrix = _matrix(path / MATRIX)
        users, asked, answers, times, notes = _responses(path / RESPONSES, matrix.shape[0])
        questions = _identifiers(path, "question", [str(i) for i in range(matrix.shape[0])], notes)
        concepts = _identifiers(path, "concept", [str(i) for i in range(matrix.shape[1])], notes)
        students = _identifiers(path, "user", users, notes)
        edges, _ = q_matrix(*matrix.shape, *np.nonzero(matrix))
        student = np.repeat(np.arange(len(users)), [len(one) for one in asked])
        time = None if times is None else np.concatenate(times)
        order = np.arange(len(student))
        responses = Interactions.sorted(order, student, np.concatenate(asked), np.concatenate(answers), time)
        return Dataset(
            path.resolve().name, questions, concepts, edges, responses, students, notes=(*notes, *remarks(edges))
        )


def _keys(line: str) -> list[str]:
    return [key.strip() for key in line.strip().replace(";", ",").split(",")]


def _matrix(file: Path) -> NDArray[np.int64]:
    try:
        made = read_npy(file)
    except FileNotFoundError:
        fix = "a set without it has no concepts of questions; take one that has it"
        raise DataError("no Q-matrix", file=file, fix=fix) from None
    except (OSError, ValueError) as error:
        raise DataError(f"not an array saved by numpy ({error})", file=file, fix=AGAIN) from None
    if not isinstance(made, np.ndarray) or made.ndim != 2 or made.size == 0 or not np.isin(made, (0, 1)).all():
        shape = getattr(made, "shape", None)
        raise DataError("not a matrix of 0 and 1, questions by concepts", file=file, value=shape, fix=AGAIN)
    return made.astype(np.int64)


Lists = list[NDArray[np.float64]]


def _responses(file: Path, n_questions: int) -> tuple[list[str], Lists, Lists, Lists | None, list[str]]:
    """Users, and for each the questions, the answers and, where they are there, the times in seconds."""
    rows = read_text(file)[0].splitlines()
    while rows and not rows[-1].strip():
        rows.pop()
    keys = _keys(rows[0]) if rows else []
    for key in REQUIRED:
        if key not in keys:
            fix = (
                f"the first line names the lines of a student: {REQUIRED[0]},{REQUIRED[1]};{REQUIRED[2]},{REQUIRED[3]}"
            )
            raise DataError("a line of each student isn't named", file=file, row=1, column=key, fix=fix)
    users: dict[str, None] = {}
    found: dict[str, Lists] = {key: [] for key in ("question_seq", "correctness_seq", "time_seq") if key in keys}
    for start in range(1, len(rows), len(keys)):
        if start + len(keys) > len(rows):
            what = f"the last student has {len(rows) - start} of {len(keys)} lines"
            raise DataError(what, file=file, row=start + 1, value=rows[start], fix="the file is cut off; get it again")
        at = {key: start + i for i, key in enumerate(keys)}
        user, size = rows[at["user_id"]].strip(), rows[at["seq_len"]].strip()
        if not user or user in users:
            what = "a student listed twice" if user else "blank identifier"
            raise DataError(what, file=file, row=at["user_id"] + 1, column="user_id", value=user, fix=AGAIN)
        if not size.isdecimal() or len(size) > 9 or int(size) == 0:
            raise DataError("not a length", file=file, row=at["seq_len"] + 1, column="seq_len", value=size, fix=AGAIN)
        users[user] = None
        for key, lists in found.items():
            lists.append(_numbers(rows[at[key]], int(size), file, at[key] + 1, key))
        for key, most in (("question_seq", n_questions - 1), ("correctness_seq", 1)):
            given = found[key][-1]
            bad = (given < 0) | (given > most) | (given % 1 != 0)
            if bad.any():
                what = f"a question that {MATRIX} doesn't have" if key == "question_seq" else "neither 0 nor 1"
                value = f"{given[bad][0]:g}"
                raise DataError(what, file=file, row=at[key] + 1, column=key, value=value, fix=f"0 to {most}")
    if not users:
        raise DataError("no student under the first line", file=file, fix=AGAIN)
    times, notes = found.get("time_seq"), []
    if times is not None and max(float(one.max()) for one in times) > MILLISECONDS:
        times = [one / 1000 for one in times]
        notes.append("times read as milliseconds: as seconds they would be after the year 5000")
    return list(users), found["question_seq"], found["correctness_seq"], times, notes


def _numbers(line: str, size: int, file: Path, row: int, column: str) -> NDArray[np.float64]:
    """The first ``size`` numbers of a line."""
    pieces = line.strip().split(",")
    if len(pieces) < size:
        what = f"{len(pieces)} entries for {several(size, 'response')}"
        raise DataError(what, file=file, row=row, column=column, fix=AGAIN)
    try:
        made = np.array(pieces[:size], dtype=np.float64)
    except ValueError:
        made = np.array([np.nan])
    if not np.isfinite(made).all():
        raise DataError("not a list of numbers", file=file, row=row, column=column, value=line, fix=AGAIN)
    return made


def _identifiers(path: Path, kind: str, indices: list[str], notes: list[str]) -> tuple[str, ...]:
    """The original identifiers of indices, where there is a map of them."""
    file = path / f"{kind}_id_map.csv"
    if not file.is_file():
        notes.append(f"no {file.name}: identifiers of {kind}s are edmine's indices")
        return tuple(indices)
    table = RawTable.read(file, ("original_id", "mapped_id"))
    mapped, original = table.whole("mapped_id"), table.identifiers("original_id")
    for column, cells in (("mapped_id", mapped), ("original_id", original)):
        table.reject(~cells.is_first_distinct(), "listed twice", column, AGAIN)
    known = dict(zip(mapped, original, strict=True))
    lost = [index for index in indices if index not in known]
    if lost:
        fix = "take the files of one run of edmine's preprocessing"
        raise DataError(f"a {kind} without an identifier", file=file, column="mapped_id", value=lost[0], fix=fix)
    return tuple(known[index] for index in indices)
