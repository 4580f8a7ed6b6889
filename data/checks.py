"""What a careful colleague would ask about the tables of somebody's own data. docs/checks.md lists the checks.

What is surely wrong is an error. What is probably wrong is a :class:`Doubt`: a note with a count and an example.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcq.data.dataset import Interactions
from qcq.errors import DataError
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

    from qcq.data.table import RawTable

# How programs write an empty cell. "Na" and "none" may be names.
EMPTY = (
    "nan",
    "NaN",
    "NAN",
    "null",
    "NULL",
    "None",
    "NONE",
    "N/A",
    "n/a",
    "#N/A",
    "#NA",
    "NA",
    "<NA>",
    "#REF!",
    "#VALUE!",
)
CONCEPTS = "concepts"
SEPARATORS = (";", ",", "|", "/", "+", "&", "~", "；", "，", "、", "_")
# Headings that are read as a column where it is missing, without case, spaces, "_" and "-": those of ASSISTments
# (user_id, problem_id, skill_id), EdNet (question_id, tags), DataShop (Anon Student Id), Riiid (answered_correctly),
# pyKT (uid), EduCDM (item_id), and their like. Nobody means anything else by them.
SYNONYMS = {
    "student": ("user", "userid", "uid", "studentid", "anonstudentid", "learner", "learnerid"),
    "question": ("questionid", "item", "itemid", "problem", "problemid", "exercise", "exerciseid"),
    "correct": ("iscorrect", "answeredcorrectly", "correctfirstattempt"),
    "timestamp": ("datetime", "answeredat"),
    "concept": (
        "conceptid",
        "kc",
        "kcid",
        "knowledgecomponent",
        "knowledgecomponentid",
        "skill",
        "skillid",
        "skillname",
        "tag",
        "topic",
        "topicid",
    ),
    "concepts": ("conceptids", "kcs", "knowledgecomponents", "skills", "skillids", "tags", "topics"),
}
# Headings that may mean a column or something else: a time may be how long it took, a score may be marks.
HINTS = {
    "correct": ("score", "right", "outcome", "result", "response"),
    "timestamp": ("time", "date", "starttime", "when"),
    "concept": ("conceptname", "kcname", "topicname", "category"),
}


LATEST = 1e11  # seconds since 1970 that nobody means: the year 5138
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}  # of a second


class Doubt(str):
    """A note on something that is probably wrong: ``--strict`` makes an error of it.

    Examples
    --------
    >>> doubt("2 names differ in case only", file="questions.csv", value="A", fix="write one name if they are one")
    "doubtful: questions.csv: 2 names differ in case only: 'A'; write one name if they are one"
    """


def doubt(what: str, *, file: str | Path, column: str | None = None, value: object = None, fix: str) -> Doubt:
    """A Doubt in the form of a DataError."""
    return Doubt(f"doubtful: {DataError(what, file=Path(file).name, column=column, value=value, fix=fix)}")


def refuse_doubts(notes: Sequence[str]) -> None:
    """DataError if there is a Doubt among the notes."""
    doubts = [str(note) for note in notes if isinstance(note, Doubt)]
    if doubts:
        more = f" (and {several(len(doubts) - 1, 'more doubt')})" if len(doubts) > 1 else ""
        raise DataError(f"{doubts[0]}{more}", fix="--strict makes an error of it")


def bare(heading: str) -> str:
    """A heading without case, spaces, ``_`` and ``-``.

    Examples
    --------
    >>> bare("Problem ID"), bare("problem_id")
    ('problemid', 'problemid')
    """
    return re.sub(r"[\s_-]+", "", heading).lower()


def known(heading: object) -> bool:
    """Whether it is a column that is read, or a usual heading of one.

    Examples
    --------
    >>> known("question"), known("problem_id"), known("level"), known(None)
    (True, True, False, False)
    """
    return isinstance(heading, str) and any(bare(heading) in (column, *names) for column, names in SYNONYMS.items())


def meant(name: str, known: Sequence[str]) -> str | None:
    """The name in ``known`` that was probably meant by ``name``; None where there is none.

    Examples
    --------
    >>> meant("Timestamp ", ["student", "timestamp"]), meant("time", ["timestamp"]), meant("hints", ["timestamp"])
    ('timestamp', 'timestamp', None)
    """
    plain = bare(name)
    for each in known:
        if plain in (each, *SYNONYMS.get(each, ()), *HINTS.get(each, ())):
            return each
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.75)
    return near[0] if near else None


def refuse_names(
    table: RawTable, column: str, cells: pl.Series, names: pl.Series, rows: pl.Series | None = None
) -> None:
    """DataError for a name that is surely none: blank, with space around it, with invisible characters, a word for
    an empty cell. ``names`` are the distinct cells, each of which is looked at once.
    """
    blank = names.is_null() | (names.str.strip_chars() == "").fill_null(False)
    empty = names.is_in([*EMPTY, "-1"] if column.startswith("concept") else list(EMPTY))
    for bad, what, fix in (
        (blank, "blank identifier", "give it a name"),
        (
            names.str.contains(r"^\s|\s$|[\x00-\x1f\x7f]"),
            "identifier with space around it or a control character in it",
            "take it out: 'a' and ' a' would be two different things",
        ),
        (
            # not the joiners U+200C and U+200D, which Persian, Hindi and emoji need
            names.str.contains(r"[\x{AD}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{FEFF}]"),
            "identifier with an invisible character in it",
            "take it out: two names that look alike would be two different things",
        ),
        (
            empty,
            "word for an empty cell as an identifier",
            "leave the cell empty, or rename what is really called that",
        ),
    ):
        bad = bad.fill_null(False)
        if bad.any():
            wrong = names.filter(bad)
            found = cells.is_in(wrong.drop_nulls().implode()).fill_null(wrong.has_nulls())
            at = found.arg_max()
            assert at is not None
            n, shown = int(found.sum()), ", ".join(repr(name or "") for name in wrong.sort().to_list()[:5])
            where = f" (in {n:,} rows: {shown})" if n > 1 else ""
            row = at if rows is None else rows[at]
            raise table.error(what + where, at=row, column=column, value=cells[at] or "", fix=fix)


def plain(names: pl.Series) -> pl.Series:
    """Names without what is easily written in two ways: Unicode form, case, blanks, leading zeros, ``.0``."""
    return (
        names.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
        .str.replace(r"^(-?\d+)\.0+$", "$1")
        .str.replace(r"^0+(\d)", "$1")
    )


def alike(source: str | Path, names: pl.Series, kind: str) -> list[Doubt]:
    """Names that differ in case, blanks, leading zeros, ``.0`` or Unicode form only."""
    bare = plain(names)
    twice = bare.is_duplicated()
    if not twice.any():
        return []
    one, other = names.filter(bare == bare.filter(twice)[0]).to_list()[:2]
    what = (
        f"{int(twice.sum()):,} {kind}s differ from another one only in case, blanks, leading zeros, '.0' or the form "
        "of a letter"
    )
    return [doubt(what, file=source, value=[one, other], fix="write one name if they are one")]


def converted(source: str | Path, names: pl.Series, kind: str) -> list[Doubt]:
    """Identifiers that a spreadsheet or a frame has turned into rounded numbers, or into dates and times."""
    power = names.str.contains(r"^-?\d(?:[.,]\d+)?[eE]\+?\d+$")
    long = names.str.contains(r"^\d{16,}$")
    zeros = names.str.contains(r"^\d{15,}0$")
    found = names.filter(power | (long & zeros)) if (long & ~zeros).sum() == 0 else names.filter(power)
    said = []
    if len(found):
        what = f"{several(len(found), kind)} may be numbers that a spreadsheet or a float has rounded"
        fix = "export the column as text, and read it as text"
        said.append(doubt(what, file=source, column=kind, value=found[0], fix=fix))
    dated = names.filter(names.str.contains(r"^(\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$"))
    if len(dated):
        what = f"{several(len(dated), kind)} may be names that a program has turned into dates or times"
        said.append(doubt(what, file=source, column=kind, value=dated[0], fix="write the column as text"))
    return said


def lists(source: str | Path, column: str, cells: pl.Series, sure: str = "") -> list[Doubt]:
    """Concepts that look like several: another separator than the column's, or a list in another notation.

    A separator in ``sure`` counts wherever it is; others where the parts occur elsewhere too, for a name may have it.
    """
    names = cells.unique(maintain_order=True)
    known = set(names)
    said = []
    for separator in SEPARATORS:
        cut = {
            cell: parts
            for cell in names.filter(names.str.contains(separator, literal=True)).to_list()
            if len(parts := [part for piece in cell.split(separator) if (part := piece.strip())]) > 1
        }
        times = Counter(part for parts in cut.values() for part in set(parts))
        found = [
            cell
            for cell, parts in cut.items()
            if separator == ";"
            or separator in sure
            # names of several words have "_" too, and share words
            or (all if separator == "_" else any)(part in known for part in parts)
            or (separator != "_" and all(times[part] > 1 for part in parts))
        ]
        if found:
            call = "" if column == CONCEPTS else f"call the column {CONCEPTS}"
            write = "" if separator == ";" else f"write ';' between them{', in quotes' if separator in sure else ''}"
            fix = " and ".join(filter(None, [write, call]))
            what = f"{several(len(found), 'concept')} may be several with {separator!r} between them"
            said.append(doubt(what, file=source, column=column, value=found[0], fix=fix))
    noted = names.filter(names.str.contains(r"^\s*(\[.*\]|\{.*\}|\(.*\))\s*$"))
    if len(noted):
        what = f"{several(len(noted), 'concept')} may be a list in the notation of a programming language"
        fix = "write ';' between concepts, without brackets"
        said.append(doubt(what, file=source, column=column, value=noted[0], fix=fix))
    return said


def second_heading(table: RawTable) -> None:
    """DataError where a row repeats the heading, as in files that were joined."""
    import polars as pl

    columns = [name for name in table.frame.columns if table.frame[name].dtype == pl.String]
    if len(columns) < 2:
        return
    rows = table.frame.with_row_index("at ").select("at ", *columns)
    written = {column: heading.strip().lower() for heading, column in table.called}
    for name in columns:
        rows = rows.filter(pl.col(name).str.strip_chars().str.to_lowercase() == written.get(name, name))
    if rows.height:
        fix = "take the row out; the file was put together from several"
        raise table.error("a second heading", at=rows["at "][0], value=",".join(columns), fix=fix)


def names_apart(table: RawTable, column: str) -> list[Doubt]:
    """Identifiers with two different readable names."""
    if "name" not in table.frame.columns:
        return []
    named = table.frame.filter(~table.blank("name")).select(column, "name").unique(maintain_order=True)
    twice = named[column].is_duplicated()
    if not twice.any():
        return []
    who = str(named.filter(twice)[column][0])
    both = named.filter(named[column] == who)["name"].to_list()[:2]
    what = f"{several(named.filter(twice)[column].n_unique(), column)} with different names, {who!r} first"
    return [doubt(what, file=table.source, column="name", value=both, fix="keep one; the last one is shown")]


def repeats(made: Interactions) -> NDArray[np.bool_]:
    """bool (responses,): true for one that repeats the one before it: student, question, answer, and time if known."""
    same = np.ones(len(made), dtype=bool)
    same[:1] = False
    known: list[NDArray] = [
        made.student,
        made.question,
        made.correct,
        *([] if made.timestamp is None else [made.timestamp]),
    ]
    for array in known:
        same[1:] &= array[1:] == array[:-1]
    return same


def repeated(
    source: str | Path, made: Interactions, again: NDArray[np.bool_], students: Sequence[str], questions: Sequence[str]
) -> Doubt:
    """Of responses that repeat the row before: an attempt that is written once a concept gives its own answer away."""
    at = int(again.argmax())
    what = (
        f"{int(again.sum()):,} of {len(made):,} responses repeat the row before them (same student, question and "
        "answer); if an attempt is written once per concept, each row gives the next answer away"
    )
    example = [students[made.student[at]], questions[made.question[at]]]
    fix = "merge them with csv.merge_repeats=true, or set it to false if they are attempts"
    return doubt(what, file=source, value=example, fix=fix)


def times(source: str | Path, order: NDArray[np.int64], student: NDArray, time: NDArray[np.float64]) -> list[str]:
    """Times that run backwards in the file, and times that tie; ``order`` sorts by student and time."""
    ordered = student[order]
    same = ordered[1:] == ordered[:-1]
    said: list[str] = []
    if np.median(time) > LATEST:
        years = np.median(time) / 31_556_952
        unit = next((unit for unit, n in UNITS.items() if 1990 <= 1970 + years / n <= 2100), None)
        year = f"in seconds they are in the year {1970 + years:,.0f}"
        what = f"times may be {unit}: {year}" if unit else f"times that may be no seconds: {year}"
        fix = f"divide them by {UNITS[unit]:,}" if unit else "give seconds since 1970, or ISO 8601"
        said.append(doubt(what, file=source, column="timestamp", fix=fix))
    if back := int((same & (order[1:] < order[:-1])).sum()):
        said.append(f"{Path(source).name}: sorted by time; {back:,} of {len(time):,} rows were not in its order")
    if tied := int((same & (np.diff(time[order]) == 0)).sum()):
        said.append(
            f"{Path(source).name}: {tied:,} of {len(time):,} rows have the time of the row before: in the file's order"
        )
    return said


def unread(source: str | Path, kind: str, names: Iterable[str], missing: Sequence[str]) -> list[str]:
    """Columns, files or sheets that were not read, each with the one that was probably meant."""
    said: list[str] = []
    others = []
    nearest: dict[str, str | None] = {}
    for name in names:
        near = nearest[name] = nearest[name] if name in nearest else meant(name, missing)
        if near is None:
            others.append(name)
        else:
            said.append(doubt(f"{kind} {name!r} was not read", file=source, fix=f"rename it if it is {near}"))
    if others:
        shown = ", ".join(map(repr, others[:8])) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        said.append(f"{Path(source).name}: {kind}s not read: {shown}")
    return said
