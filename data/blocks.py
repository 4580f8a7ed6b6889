"""The layouts in which knowledge-tracing papers publish responses: four lines per student, or three.

Four lines are a heading, the questions, the skills and the answers; three are the number of answers, the items and the
answers. The lists of a student have the same length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from qcq.data.text import literal, read_text
from qcq.errors import DataError

LINES = 4
TRIPLE = 3
LOOKED_AT = 30  # lines by which a file of triples is known
LONGEST = 1 << 20  # characters of a line that are read for it


class Block(NamedTuple):
    """One student: the row of the heading, and what the four lines say."""

    row: int
    heading: str
    questions: list[int]
    skills: list[int]
    answers: list[int]


def numbers(line: str, *, file: Path, row: int) -> list[int]:
    """Whole numbers with commas between them, and perhaps one at the end: ``3,1,2,``."""
    pieces = line.rstrip().removesuffix(",").split(",")
    try:
        return list(map(int, pieces))
    except ValueError:
        at = next(i for i, piece in enumerate(pieces) if not _is_whole(piece))
        what, fix = "not a whole number", "write a whole number, as 3"
        raise DataError(what, file=file, row=row, column=f"entry {at + 1}", value=pieces[at], fix=fix) from None


def _is_whole(piece: str) -> bool:
    try:
        int(piece)
    except ValueError:  # not a number, or one of thousands of digits
        return False
    return True


def python_list(line: str, *, file: Path, row: int) -> list[int]:
    """A Python list of whole numbers: ``[3, 1, 2]``, read without running it."""
    made: list[int] = literal(line, list, file=file, row=row)
    for position, value in enumerate(made, start=1):
        if type(value) is not int:
            raise DataError(
                "not a whole number",
                file=file,
                row=row,
                column=f"entry {position}",
                value=value,
                fix="write a whole number, as 3",
            )
    return made


def blocks(
    path: Path,
    parse: Callable[..., list[int]] = numbers,
    lines: tuple[str, str, str] = ("questions", "skills", "answers"),
) -> Iterator[Block]:
    """The students of a file.

    Parameters
    ----------
    parse : how a list is written.
    lines : which of the three lists is on the second, third and fourth line.

    Raises
    ------
    DataError : a student with fewer than four lines, lists of different lengths, an answer that is neither 0 nor 1.
    """
    rows = read_text(path)[0].splitlines()
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise DataError("the file is empty", file=path, fix="it needs four lines a student")
    for start in range(0, len(rows), LINES):
        if start + LINES > len(rows):
            what = f"the last student has {len(rows) - start} of {LINES} lines"
            raise DataError(what, file=path, row=start + 1, value=rows[start], fix="the file is cut off; get it again")
        lists = {name: parse(rows[start + i], file=path, row=start + i + 1) for i, name in enumerate(lines, start=1)}
        for i, name in enumerate(lines[1:], start=2):
            if len(lists[name]) != len(lists[lines[0]]):
                what = f"{len(lists[name])} {name} for {len(lists[lines[0]])} {lines[0]}"
                raise DataError(what, file=path, row=start + i + 1, fix="the three lists of a student are equally long")
        answers = lists["answers"]
        if not {0, 1}.issuperset(answers):
            position = next(i for i, answer in enumerate(answers, start=1) if answer not in (0, 1))
            row = start + lines.index("answers") + 2
            at = f"entry {position}"
            raise DataError(
                "response is neither 0 nor 1",
                file=path,
                row=row,
                column=at,
                value=answers[position - 1],
                fix="write 1 for right, 0 for wrong",
            )
        yield Block(start + 1, rows[start], lists["questions"], lists["skills"], answers)


class Triple(NamedTuple):
    """One student in three lines: the row of the first, the items as they are written, and the answers."""

    row: int
    items: list[str]
    answers: list[int]


def triples(path: Path) -> Iterator[Triple]:
    """The students of a file of three lines each: number of answers, items, answers.

    Raises
    ------
    DataError : a student with fewer than three lines, another number of items or answers than announced, a blank item,
        an answer that is neither 0 nor 1.
    """
    rows = read_text(path)[0].splitlines()
    while rows and not rows[-1].strip() and len(rows) % TRIPLE != 0:
        rows.pop()
    if not rows:
        raise DataError("the file is empty", file=path, fix="it needs three lines a student")
    for start in range(0, len(rows), TRIPLE):
        if start + TRIPLE > len(rows):
            what = f"the last student has {len(rows) - start} of {TRIPLE} lines"
            raise DataError(what, file=path, row=start + 1, value=rows[start], fix="the file is cut off; get it again")
        announced = rows[start].strip()
        if not announced.isdecimal() or len(announced) > 9:
            fix = "three lines a student: the number of answers, the items, the answers"
            raise DataError("not a number of answers", file=path, row=start + 1, value=announced, fix=fix)
        items, answers = (_pieces(rows[start + i]) for i in (1, 2))
        for i, (pieces, kind) in enumerate(((items, "items"), (answers, "answers")), start=2):
            if len(pieces) != int(announced):
                what = f"{len(pieces)} {kind} where {announced} are announced"
                raise DataError(what, file=path, row=start + i, fix="get the file again from its source")
        for row, pieces, what, bad in (
            (start + 2, items, "blank identifier", ("",)),
            (start + 3, answers, "response is neither 0 nor 1", None),
        ):
            for at, piece in enumerate(pieces, start=1):
                if (piece in bad) if bad else (piece not in ("0", "1")):
                    fix = "give the item a name" if bad else "write 1 for right, 0 for wrong"
                    raise DataError(what, file=path, row=row, column=f"entry {at}", value=piece, fix=fix)
        yield Triple(start + 1, items, [int(answer) for answer in answers])


def are_triples(path: Path) -> bool:
    """Whether the first lines of a file are whole triples of number, items and answers. Never raises."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = iter(lambda: file.readline(LONGEST), "")
            rows = [line.strip() for line in islice(lines, LOOKED_AT)]
    except (OSError, ValueError):
        return False
    whole = len(rows) - len(rows) % TRIPLE
    if whole == 0 or (any(rows[whole:]) and len(rows) < LOOKED_AT):
        return False
    for start in range(0, whole, TRIPLE):
        items, answers = (_pieces(rows[start + i]) for i in (1, 2))
        sizes = {str(len(items)), str(len(answers)), rows[start]}
        if len(sizes) > 1 or not set(answers) <= {"0", "1"}:
            return False
    return True


def _pieces(line: str) -> list[str]:
    """What commas separate; one at the end separates nothing."""
    bare = line.strip().removesuffix(",")
    return [piece.strip() for piece in bare.split(",")] if bare else []
