"""Your own data: files of questions, responses and concepts, or the same tables as frames.

What is surely wrong is an error, what is probably wrong a note (:mod:`qcq.data.checks`). What can mean one thing only
is read so, with a note: a known heading, space around a name, a decimal comma.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data import checks
from qcq.data.assembly import chronological, cycle, q_matrix, remarks
from qcq.data.dataset import Dataset, Interactions
from qcq.data.excel import first_row
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import OFFICE, header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

TABLES = ("questions", "interactions", "concepts")
ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".csv.gz", ".tsv.gz")
ANSWER = ("student", "question", "correct")
NO_NAMES = ("name", "weight", "correct", "timestamp")  # columns that don't hold identifiers
WIDE = re.compile(r"concepts?[ _-]?\d+")


@settings
class CSV(Reader):
    """A folder with ``questions.csv``, and, where present, ``interactions.csv`` and ``concepts.csv``; or one file.

    - ``questions.csv``: ``question,concepts`` with ``;`` between concepts; or ``question,concept`` with one row per
      edge; or ``question,concept1,concept2``. The concepts of all rows of a question count. An empty cell gives a
      question without a concept. ``name`` and ``weight`` (of the row's edges) are optional.
    - ``interactions.csv``: ``student,question,correct`` and optionally ``timestamp`` (seconds, or ISO 8601); without
      it, the rows of a student are in the order of the answers.
    - ``concepts.csv``: ``concept`` and optionally ``name`` and ``parent``.
    - One file may have all in one: ``student,question,concept,correct,timestamp``.

    Other usual headings (:data:`qcq.data.checks.SYNONYMS`) are read where exactly one fits, with a note.

    Columns are separated by commas, semicolons or tabs. The endings ``.tsv``, ``.txt``, ``.xlsx`` (with the extra
    ``excel``), ``.parquet`` (concepts may be lists there) and ``.csv.gz`` are read as well; so are UTF-16, GB18030 and
    the Windows code page 1252.

    Parameters
    ----------
    merge_repeats : whether a response that repeats the one before it (same student, question and answer, and the same
        time where it is known) is merged with it. None: it is kept, and a note says how many there are.
    """

    needs: ClassVar[str] = "questions.csv with the columns question and concepts (or concept)"
    merge_repeats: bool | None = None

    @classmethod
    def recognises(cls, path: Path, also: Mapping[str, Sequence[str]] = MappingProxyType({})) -> bool:
        """Whether it looks like a table of questions; ``also`` are other headings of its columns."""
        file = _find(path, TABLES[0]) if path.is_dir() else path
        if file is None:
            return False
        if file.suffix.lower() == ".xlsx":
            return True  # no other format is read from a workbook
        names = header(file)
        if not names and file.suffix.lower() == ".parquet":
            return True  # no other format is read from Parquet, and reading says what is wrong
        return _there("question", names, also) and bool(_concept_columns(names, also))

    @classmethod
    def nearly(cls, path: Path) -> str:
        """Which columns of a table of questions to rename so that it is read; empty if it doesn't look like one."""
        file = _find(path, TABLES[0]) if path.is_dir() else path
        names = dict.fromkeys(header(file)) if file is not None else {}
        known = {"question": ["question"], "concepts": ["concepts", "concept"]}
        found = {kind: next((n for n in names if checks.meant(n, words)), None) for kind, words in known.items()}
        if None in found.values():
            return ""
        return " and ".join(
            f"the column {name!r} to {checks.meant(str(name), known[kind])!r}"
            for kind, name in found.items()
            if name not in known[kind]
        )

    @classmethod
    def lacks(cls, path: Path) -> str:
        """The column that a file lacks to be a table of questions; empty if it has both, or is no table."""
        file = _find(path, TABLES[0]) if path.is_dir() else path
        names = header(file) if file is not None and file.name.lower().endswith(ENDINGS) else []
        if len(names) < 2:
            return ""
        return "question" if "question" not in names else "" if _concept_columns(names) else "concepts"

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        if not path.is_dir():
            return assemble(path.name.partition(".")[0], read_questions(path), merge_repeats=self.merge_repeats)
        files = {name: _find(path, name) for name in TABLES}
        if files["questions"] is None:
            near = [file.name for file in sorted(path.iterdir()) if checks.meant(_stem(file), ["questions"])]
            fix = f"rename {near[0]!r} to 'questions.csv'" if near else f"it needs {self.needs}"
            raise DataError("no such file", file=path / "questions.csv", fix=fix)
        answers = concepts = None
        if files["interactions"] is not None:
            answers = RawTable.read(files["interactions"], ANSWER, ("timestamp",), OFFICE, checks.SYNONYMS)
        if files["concepts"] is not None:
            concepts = RawTable.read(files["concepts"], ("concept",), ("name", "parent"), OFFICE, checks.SYNONYMS)
        read = [file for file in files.values() if file is not None]
        left = [file.name for file in sorted(path.iterdir()) if _left(file) and file not in read]
        made = assemble(
            path.resolve().name, read_questions(files["questions"]), answers, concepts, merge_repeats=self.merge_repeats
        )
        missing = [f"{name}.csv" for name in TABLES if files[name] is None]
        more = [
            file for file in left if files.get(next((n for n in TABLES if file.lower().startswith(n)), "")) is not None
        ]
        fix = "put its rows into the file that is read, or move it away"
        doubts = [checks.doubt(f"file {file!r} was not read", file=path.resolve(), fix=fix) for file in more]
        others = [file for file in left if file not in more]
        return made.noting([*doubts, *checks.unread(path.resolve(), "file", others, missing)])


def _stem(file: Path) -> str:
    return file.name.partition(".")[0].lower()


def _left(file: Path) -> bool:
    """Whether a file that isn't read is worth a word."""
    return file.is_file() and not file.name.startswith((".", "~$"))


def _find(folder: Path, name: str) -> Path | None:
    """The file of a table in a folder, whichever ending it has; None if there is none."""
    found = [folder / f"{name}{ending}" for ending in ENDINGS if (folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        both = ", ".join(file.name for file in found)
        raise DataError(f"several files of {name}", file=folder, value=both, fix="keep one of them")
    return found[0] if found else None


def _there(column: str, names: Sequence[str], also: Mapping[str, Sequence[str]]) -> bool:
    """Whether a column is among the headings, under its name or another one."""
    return column in names or any(checks.bare(name) in also.get(column, ()) for name in names)


def _concept_columns(names: Sequence[str], also: Mapping[str, Sequence[str]] = MappingProxyType({})) -> list[str]:
    """The columns of concepts: ``concepts``, ``concept``, or ``concept1``, ``concept2`` …; else those in ``also``."""
    named = [name for name in ("concepts", "concept") if name in names]
    wide = [name for name in names if WIDE.fullmatch(name)]
    return named or wide or [name for name in ("concepts", "concept") if _there(name, names, also)]


def questions_columns(names: Sequence[str], source: Path | str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that a table of questions must have, and those it may have; those of responses if it has all of them.

    Raises
    ------
    DataError : the columns ``concept`` and ``concepts`` are both there.
    """
    names = [name.strip().lower() for name in names]
    concepts = _concept_columns(names, checks.SYNONYMS) or ["concepts"]
    if {"concept", "concepts"} <= set(concepts):
        both = [n for n in names if any(n == c or checks.bare(n) in checks.SYNONYMS[c] for c in concepts)]
        fix = "keep concepts (';' between them) or concept (one row per edge), and call the other one differently"
        raise DataError("both a column concept and a column concepts", file=source, row=1, value=both, fix=fix)
    log = (*ANSWER, "timestamp") if all(_there(name, names, checks.SYNONYMS) for name in ANSWER) else ()
    return ("question", *concepts), ("name", "weight", *(name for name in log if name != "question"))


def read_questions(path: Path) -> RawTable:
    """The table of questions of a file; with the columns of responses if it is a log."""
    names = first_row(path) if path.suffix.lower() == ".xlsx" else header(path)
    return RawTable.read(path, *questions_columns(names, path), OFFICE, checks.SYNONYMS)


def assemble(
    name: str,
    questions: RawTable,
    answers: RawTable | None = None,
    concepts: RawTable | None = None,
    *,
    merge_repeats: bool | None = None,
) -> Dataset:
    """The data set of three tables, whichever door they came through, with notes on what is doubtful in them.

    Raises
    ------
    DataError : a blank identifier, an unknown question or parent, a response that is neither 0 nor 1 …
    """
    import polars as pl

    questions = _bare_names(questions)
    answers, concepts = answers and _bare_names(answers), concepts and _bare_names(concepts)
    log = answers is None and set(ANSWER) <= set(questions.frame.columns)
    called, question_ids = questions.frame["question"], questions.distinct("question")
    pieces, record = _concepts(questions)
    known = concepts.identifiers("concept") if concepts is not None else pl.Series([], dtype=pl.String)
    if concepts is not None and known.n_unique() < len(known):
        concepts.reject(~known.is_first_distinct(), "a concept listed twice", "concept", "keep one of its rows")
    concept_ids = pl.concat([pieces.rename("concept"), known.rename("concept")]).unique(maintain_order=True)
    if len(concept_ids) == 0:
        raise DataError("no question has a concept", file=questions.source, fix="name at least one concept")
    rows, columns = codes(called, question_ids).to_numpy()[record], codes(pieces, concept_ids).to_numpy()
    matrix, repeated = q_matrix(len(question_ids), len(concept_ids), rows, columns)
    if "weight" in questions.frame.columns:
        matrix = weighted(questions, matrix, rows, columns, record)
    notes = [*_looks(questions, "question", question_ids), *checks.alike(questions.source, question_ids, "question")]
    notes += checks.alike(questions.source, concept_ids, "concept")
    notes += checks.converted(questions.source, pieces.unique(maintain_order=True), "concept")
    if answers is not None and set(ANSWER) <= set(questions.frame.columns):
        heading = {column: heading for heading, column in questions.called}
        held = (name for name in ("student", "correct", "timestamp") if name in questions.frame.columns)
        what = f"columns not read: {', '.join(repr(heading.get(name, name)) for name in held)}"
        fix = f"answers are those of {Path(answers.source).name}: put these rows there, or read this table alone"
        notes.append(checks.doubt(what, file=questions.source, fix=fix))
    # Where semicolons separate the columns and no cell has one, commas were probably meant to separate concepts.
    apart = "concepts" in questions.frame.columns and questions.between == ";"
    sure = "," if apart and not questions.frame["concepts"].str.contains(";", literal=True).any() else ""
    for column in _concept_columns(questions.frame.columns):
        notes += checks.lists(questions.source, column, pieces, sure)
    if "weight" in questions.frame.columns:
        notes += _decimal(questions, "weight")
    if concepts is not None:
        notes += _looks(concepts, "concept", known)
        if unlisted := len(concept_ids) - len(known):
            notes.append(f"{several(unlisted, 'concept')} without a row in {Path(concepts.source).name}")
    responses: Interactions | None = None
    students: tuple[str, ...] = ()
    if log or answers is not None:
        table = questions if answers is None else answers
        responses, students, said = _interactions(table, question_ids, merge_repeats, log)
        notes += said
    if log:
        notes.append(f"{Path(questions.source).name}: read as questions and their responses in one table")
    elif answers is None:
        notes += _nearly_a_log(questions)
    return Dataset(
        name,
        tuple(question_ids),
        tuple(concept_ids),
        matrix,
        responses,
        students,
        _names(questions, "question"),
        {} if concepts is None else _names(concepts, "concept"),
        {} if concepts is None else _parents(concepts, concept_ids),
        notes=(
            *sorted(notes, key=lambda note: not isinstance(note, checks.Doubt)),
            *remarks(matrix, 0 if log else repeated),
        ),
        own=True,
    )


def _nearly_a_log(table: RawTable) -> list[str]:
    """A doubt about a table of questions that would be a log of answers too, if one heading were another."""
    found = {
        each: name
        for each in ("student", "correct")
        for name in dict.fromkeys(table.unread)
        if checks.meant(name, [each])
    }
    if len(found) < 2:
        return []
    wrong = [(name, each) for each, name in found.items() if not _there(each, [name.strip().lower()], checks.SYNONYMS)]
    fix = " and ".join(f"rename {name!r} to {each!r}" for name, each in wrong)
    return [checks.doubt("it looks like a log of answers, and no answers were read", file=table.source, fix=fix)]


def _bare_names(table: RawTable) -> RawTable:
    """The table without space around its identifiers."""
    return table.without_space([name for name in table.frame.columns if name not in NO_NAMES])


def _looks(table: RawTable, column: str, names: pl.Series) -> list[str]:
    """The checks of a table of questions or concepts: what was read and how, and its identifiers."""
    return [
        *table.notes(),
        *checks.converted(table.source, names, column),
        *checks.names_apart(table, column),
    ]


def _concepts(table: RawTable) -> tuple[pl.Series, NDArray[np.int64]]:
    """The concept names, one after the other, and the record each is in; empty cells give none."""
    import polars as pl

    pieces, records = [], []
    for column in _concept_columns(table.frame.columns):
        cells = table.frame[column]
        listed = cells.dtype == pl.List
        filled = (cells.list.len() > 0).fill_null(False) if listed else ~table.blank(column)
        long = pl.DataFrame({"piece": cells, "at": np.arange(len(cells))}).filter(filled)
        if listed:
            long = long.explode("piece")
        elif column == checks.CONCEPTS:  # the space beside separators is off already
            long = long.with_columns(pl.col("piece").str.split(";")).explode("piece")
        pieces.append(table.identifiers(column, long["piece"], long["at"]).rename("concept"))
        records.append(long["at"].to_numpy())
    record = np.concatenate(records)
    order = np.argsort(record, kind="stable")
    return pl.concat(pieces).gather(order), record[order]


def _decimal(table: RawTable, column: str) -> list[str]:
    """A note on numbers with a decimal comma."""
    example = table.decimal_comma(column)
    said = f"{Path(table.source).name}: the comma of {column} read as a decimal point, for example {example!r}"
    return [said] if example else []


def weighted(
    table: RawTable, matrix: scipy.sparse.csr_array, rows: NDArray, columns: NDArray, record: NDArray
) -> scipy.sparse.csr_array:
    """The Q-matrix with the weight of each row on its edges."""
    import polars as pl

    number = table.numbers("weight")
    bad = ~(number.is_finite() & (number > 0)).fill_null(False)
    edge = np.zeros(len(table), dtype=bool)
    edge[record] = True
    bad &= ~table.blank("weight") | pl.Series(edge)  # a question without a concept has no edge to weigh
    table.reject(
        bad, "not a positive weight", "weight", "give a number with a point, as 0.5, or leave the edge's row out"
    )
    given = number.to_numpy()[record]
    order = np.lexsort((columns, rows))
    same = (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    apart = same & (np.diff(given[order]) != 0)
    if apart.any():
        at = int(record[order][1:][apart][0])
        fix = "give an edge one weight"
        raise table.error("an edge with two weights", at=at, column="weight", value=table.frame["weight"][at], fix=fix)
    first = order[np.concatenate([[True], ~same])]  # in the order of rows and columns, as the matrix holds its edges
    made = matrix.copy()
    made.sort_indices()
    made.data[:] = given[first]
    return made


def _interactions(
    table: RawTable, question_ids: pl.Series, merge_repeats: bool | None, log: bool
) -> tuple[Interactions, tuple[str, ...], list[str]]:
    """Responses, the students' identifiers, and what is doubtful in them."""
    who, students = table.frame["student"], table.distinct("student")
    asked = table.frame["question"]
    question = codes(asked, question_ids)
    if question.has_nulls():
        table.identifiers("question")  # no name at all is the truer reason
        raise _unknown(table, asked, question, question_ids)
    correct = table.binary("correct")
    time = table.seconds("timestamp") if "timestamp" in table.frame.columns else None
    student = codes(who, students).to_numpy().astype(np.int32)
    order = chronological(student, time)
    made = Interactions.sorted(order, student, question.to_numpy(), correct, time)
    notes = [
        *([] if log else table.notes()),
        *checks.alike(table.source, students, "student"),
        *checks.converted(table.source, students, "student"),
    ]
    if time is not None:
        notes += _decimal(table, "timestamp")
        if (order_of_dates := table.dates("timestamp")) is not None:
            which = "day, month, year" if order_of_dates[0] else "month, day, year"
            notes.append(f"{Path(table.source).name}: dates read as {which}: {order_of_dates[1]}")
        notes += checks.times(table.source, order, student, time)
    again = checks.repeats(made)
    if again.any() and merge_repeats:
        notes.append(f"merged {int(again.sum()):,} of {len(made):,} responses that repeat the row before them")
        made = made.where(~again)
    elif again.any() and merge_repeats is None:
        notes.append(checks.repeated(table.source, made, again, students.to_list(), question_ids.to_list()))
    return made, tuple(students), notes


def _unknown(table: RawTable, asked: pl.Series, question: pl.Series, question_ids: pl.Series) -> DataError:
    """Which questions of the responses aren't among the questions, how many rows, and what would match them."""
    lost = asked.filter(question.is_null())
    names = lost.unique(maintain_order=True)
    shown = ", ".join(names.to_list()[:5]) + (", …" if len(names) > 5 else "")
    many = f" (in {len(lost):,} rows, about {several(len(names), 'question')})" if len(lost) > 1 else ""
    close = checks.plain(names).is_in(checks.plain(question_ids).implode()).sum()
    hint = f"; {close:,} would match but for case, blanks, leading zeros or '.0'" if close else ""
    fix = f"add {'them' if len(names) > 1 else 'it'} to the questions, or take the rows out{hint}"
    return table.error(
        f"unknown question{many}", at=question.is_null().arg_max(), column="question", value=shown, fix=fix
    )


def _names(table: RawTable, column: str) -> dict[str, str]:
    if "name" not in table.frame.columns:
        return {}
    named = table.frame.filter(~table.blank("name"))
    return dict(zip(named[column], named["name"], strict=True))


def _parents(table: RawTable, concept_ids: pl.Series) -> dict[str, str]:
    if "parent" not in table.frame.columns:
        return {}
    filled = ~table.blank("parent")
    unknown = filled & ~table.frame["parent"].is_in(concept_ids.implode())
    table.reject(unknown, "unknown parent", "parent", "give the parent a row of its own")
    pairs = list(zip(table.frame["concept"].filter(filled), table.frame["parent"].filter(filled), strict=True))
    circle = cycle(pairs)
    if circle:
        at = table.frame["concept"].to_list().index(circle[0])
        raise table.error(
            "the parents run in a circle", at=at, column="parent", value=" → ".join(circle), fix="take one of them out"
        )
    return dict(pairs)
