"""A folder that pyKT's own preprocessing made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.sequences import ONE_RUN, Account, Sequences, accounts, by_concept_only, in_order, is_nearly, is_sequences
from qcq.data.text import by_index, json_object, read_text
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

WHOLE, IDS = "data.txt", "keyid2idx.json"
LEVELS = ("_quelevel", "")
LINES = ("uid and number of responses", "questions", "concepts", "responses", "timestamps", "usetimes")
MISSING = "NA"
CUT = "pyKT cuts identifiers at '_': write them without it, and preprocess again"
ESCAPED = {"####": "_", "@@@@": ","}  # what pyKT writes for them in names


@settings
class PyKT(Reader):
    """``data.txt``, ``keyid2idx.json`` and the sequence files of either level, as many of them as there are.

    What is the truth: ``data.txt`` has every response with its original identifiers, uncut, so it is taken where it is
    there. Next come the files of the question level (``*_quelevel.csv``), whose windows drop the end of a student, then
    those with a row a concept, which drop another end. Where several are there, each must tell the beginning of the
    same students; anything else is an error. The split is in the sequence files alone.

    Questions and concepts are in the order of ``keyid2idx.json``, so that question ``i`` here is question ``i`` in
    pyKT. Without that file the identifiers are pyKT's indices. Students with fewer than three responses are in
    ``data.txt`` only: pyKT leaves them out of its split, so they are left out here, and counted. A set without
    questions is refused.

    Parameters
    ----------
    fold : the fold for validation, pyKT's ``--fold``. The other folds are for training, its test students for the test.

    References
    ----------
    Liu et al. 2022, pyKT: a Python library to benchmark deep learning based knowledge tracing models, NeurIPS;
    https://pykt-toolkit.readthedocs.io
    """

    needs: ClassVar[str] = f"{WHOLE} with six lines a student, or train_valid_sequences*.csv and test_sequences*.csv"
    fold: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def recognises(cls, path: Path) -> bool:
        names = [f"{name}{level}.csv" for name in ("train_valid_sequences", "train_valid") for level in LEVELS]
        files = [path / name for name in names]
        return any(is_sequences(file) or is_nearly(file) for file in files) or _has_six_lines(path / WHOLE)

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        names = _names(path / IDS)
        given: list[Account] = []
        notes: list[str] = []
        for level in LEVELS:
            found, said = accounts(path, level)
            given += found
            notes += said
        given, said = _without_pieces(given)
        notes += said
        if names:
            given = [one.named(lambda kind, cells, file: _original(names[kind], kind, cells, file)) for one in given]
        left: list[str] = []
        if (path / WHOLE).is_file():
            whole = students_of(path / WHOLE)
            if given and not names:
                notes.append(
                    f"no {IDS}: students of the sequence files can't be found in {WHOLE}, no split of the source"
                )
                given = []
            if names:
                whole, left = _kept(whole, names["uid"], {student for one in given for student in one.folds})
                _refuse_unknown(path / IDS, whole, names)
            given.insert(0, whole)
        elif not names:
            notes.append(f"no {IDS}: identifiers are pyKT's indices")
        if not given:
            raise DataError("nothing of pyKT's in the folder", file=path, fix=f"it needs {self.needs}")
        made = Sequences.together(given)
        ids = {kind: names.get(kind) or in_order(found) for kind, found in made.identifiers().items()}
        data = made.dataset(path, ids, self.fold, [*left, *notes])
        return replace(data, question_names=_readable(ids["questions"]), concept_names=_readable(ids["concepts"]))


def students_of(file: Path) -> Account:
    """The students of a ``data.txt``: uid and number, questions, concepts, responses, timestamps, usetimes.

    Raises
    ------
    DataError : no questions or no concepts in it, a student with fewer than six lines or listed twice, lists of
        different lengths, a response that is neither 0 nor 1, a blank identifier.
    """
    import polars as pl

    lines = read_text(file)[0].splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError("the file is empty", file=file, fix="it needs six lines a student")
    columns: dict[str, list[str | None]] = {name: [] for name in ("questions", "concepts", "responses", "timestamps")}
    sizes: dict[str, int] = {}
    begin = []
    for start in range(0, len(lines), len(LINES)):
        row = start + 1
        if start + len(LINES) > len(lines):
            what = f"the last student has {len(lines) - start} of {len(LINES)} lines"
            raise DataError(what, file=file, row=row, value=lines[start], fix="the file is cut off; get it again")
        heading = re.fullmatch(r"\(?'?([^,]+?)'?(?:,\))?,(\d{1,9})", lines[start].strip())
        if heading is None:
            raise DataError("not a student and a number", file=file, row=row, value=lines[start], fix="write uid,3")
        who, size = heading[1].strip(), int(heading[2])
        if who in sizes:
            raise DataError("a student listed twice", file=file, row=row, value=who, fix="keep one")
        for name, line in zip(LINES[1:5], lines[start + 1 : start + 5], strict=True):
            row += 1
            text = line.strip()
            if text == MISSING and name == "questions":
                raise by_concept_only(file, row)
            if text == MISSING and name == "timestamps":
                columns[name] += [None] * size
                continue
            pieces = text.split(",")
            if text == MISSING or len(pieces) != size:
                what = f"no {name}" if text == MISSING else f"{len(pieces)} {name} for {size} responses"
                raise DataError(what, file=file, row=row, column=name, fix="the lists of a student are equally long")
            columns[name] += pieces
        sizes[who] = size
        begin.append(start + 1)
    long = list(sizes.values())
    flat = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).with_columns(
        pl.Series("student", list(sizes), dtype=pl.String).gather(_repeated(long)),
        pl.Series("row", begin, dtype=pl.Int32).gather(_repeated(long)),
    )
    flat = flat.with_columns(pl.col(list(columns)).str.strip_chars())
    seconds = flat["timestamps"].cast(pl.Float64, strict=False) / 1000
    for name, below, bad, what in (
        ("questions", 1, flat["questions"] == "", "blank identifier"),
        ("concepts", 2, flat["concepts"].str.contains(r"^_|__|_$|^$"), "blank identifier"),
        ("responses", 3, ~flat["responses"].is_in(["0", "1"]), "response is neither 0 nor 1"),
        ("timestamps", 4, flat["timestamps"].is_not_null() & ~seconds.is_finite().fill_null(False), "not a time"),
    ):
        at = bad.arg_max()
        if at is not None and bad[at]:
            fix = "get the file again from its source"
            where = int(flat["row"][at]) + below
            raise DataError(what, file=file, row=where, column=name, value=flat[name][at], fix=fix)
    attempts = flat.select(
        "student",
        pl.int_range(pl.len()).over("student").alias("place"),
        pl.col("questions").alias("question"),
        "concepts",
        pl.col("responses").cast(pl.Int8).alias("correct"),
        seconds.alias("seconds"),
        "row",
        pl.lit(True).alias("whole"),
    )
    return Account(file, attempts, uncut=True)


def _repeated(sizes: list[int]) -> pl.Series:
    """0 as often as the first size says, 1 as often as the second, and so on."""
    import numpy as np
    import polars as pl

    return pl.Series(np.repeat(np.arange(len(sizes)), sizes))


def _has_six_lines(file: Path) -> bool:
    """Whether a file begins like a ``data.txt`` of pyKT's; never raises."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            lines = [opened.readline(1 << 24).strip() for _ in LINES]
    except (OSError, ValueError):
        return False
    heading = re.fullmatch(r"[^,]+(?:,\))?,(\d{1,9})", lines[0])
    if heading is None or not lines[-1]:
        return False
    size = int(heading[1])
    answers = lines[3].split(",")
    return len(answers) == size and set(answers) <= {"0", "1"} and len(lines[2].split(",")) == size


def _names(file: Path) -> dict[str, tuple[str, ...]]:
    """Original identifiers in the order of their indices; empty if there is no such file."""
    if not file.is_file():
        return {}
    found = json_object(file)
    made = {}
    for kind in ("questions", "concepts", "uid"):
        if kind == "questions" and kind not in found and "concepts" in found:
            raise by_concept_only(file)
        if not isinstance(found.get(kind), dict):
            fix = 'it should look like {"questions": {"id": 0}, "concepts": {…}, "uid": {…}}'
            raise DataError("no indices of this kind", file=file, column=kind, fix=fix)
        made[kind] = by_index(found[kind], file, kind)
    return made


def _original(names: tuple[str, ...], kind: str, cells: pl.Series, file: Path) -> pl.Series:
    """The identifiers of indices; ``3_5`` is two of them, joined by ``_`` again."""
    import polars as pl

    known = {str(index): name for index, name in enumerate(names)}
    made = {}
    for cell in cells.unique().to_list():
        if "_" in cell and kind == "questions":
            raise DataError(
                "pieces of an identifier instead of a question", file=file, column=kind, value=cell, fix=CUT
            )
        pieces = [known.get(piece) for piece in cell.split("_")]
        if None in pieces:
            what = f"an index of {kind} that {IDS} doesn't have"
            raise DataError(what, file=file, column=kind, value=cell, fix=f"0 to {len(names) - 1}")
        made[cell] = "_".join(piece for piece in pieces if piece is not None)
    return cells.replace_strict(list(made), list(made.values()), return_dtype=pl.String)


def _without_pieces(given: list[Account]) -> tuple[list[Account], list[str]]:
    """Without the concept level where students' identifiers have a ``_``: the levels then number them differently."""
    if not any("_" in student for one in given for student in one.folds):
        return given, []
    kept = [one for one in given if not one.by_concept]
    left = [one.file.name for one in given if one.by_concept]
    said = f"left {', '.join(left)} unread: student identifiers with '_' have other indices there"
    return kept, [said] if left else []


def _kept(whole: Account, numbered: Sequence[str], divided: set[str]) -> tuple[Account, list[str]]:
    """The students that pyKT kept, and a note on those that it left out.

    Parameters
    ----------
    numbered : the students of ``keyid2idx.json``.
    divided : the students of the sequence files.
    """
    import polars as pl

    there = set(whole.attempts["student"].unique())
    lost = sorted(divided - there)
    if lost:
        what = f"{several(len(lost), 'student')} of the sequence files not in it"
        raise DataError(what, file=whole.file, value=lost[0], fix=ONE_RUN)
    known = there & {*numbered, *divided}
    if not known:
        raise DataError(f"none of its students is in {IDS}", file=whole.file, value=min(there), fix=ONE_RUN)
    out = whole.attempts.filter(~pl.col("student").is_in(list(known)))
    who = f"{several(out['student'].n_unique(), 'student')} with {several(out.height, 'response')}"
    said = f"{who} left out: pyKT has left them out of its split (fewer than three responses)"
    kept = whole.attempts.filter(pl.col("student").is_in(list(known)))
    return replace(whole, attempts=kept), [said] if out.height else []


def _refuse_unknown(file: Path, whole: Account, names: Mapping[str, Sequence[str]]) -> None:
    """DataError for a question or concept of ``data.txt`` that has no index."""
    import polars as pl

    found = {"questions": whole.attempts["question"], "concepts": whole.attempts["concepts"].str.split("_").explode()}
    for kind, cells in found.items():
        unknown = cells.filter(~cells.is_in(pl.Series(names[kind]).implode()))
        if len(unknown):
            what, fix = f"an identifier of {WHOLE} without an index", CUT if "_" in unknown[0] else ONE_RUN
            raise DataError(what, file=file, column=kind, value=unknown[0], fix=fix)


def _readable(names: tuple[str, ...]) -> dict[str, str]:
    """Names in which pyKT has replaced ``_`` and ``,``, as they were."""
    made = {}
    for name in names:
        shown = name
        for written, meant in ESCAPED.items():
            shown = shown.replace(written, meant)
        if shown != name:
            made[name] = shown
    return made
