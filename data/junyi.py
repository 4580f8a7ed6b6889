"""Junyi Academy's two releases: 2015 (DataShop 1198) and 2019 (Kaggle). A question is an exercise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcq.data.assembly import cycle, interactions, q_matrix, remarks
from qcq.data.checks import EMPTY
from qcq.data.dataset import Dataset, Interactions
from qcq.data.log import ordered
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

TABLE, LOG = "junyi_Exercise_table.csv", "junyi_ProblemLog_original.csv"
COLUMNS = ("name", "prerequisites", "topic", "area")
ANSWERS = ("user_id", "exercise", "time_done", "correct")
CONTENT, ATTEMPTS = "Info_Content.csv", "Log_Problem.csv"
LEVELS = ("level4_id", "level3_id", "level2_id", "level1_id")  # from the narrowest to the widest
GIVEN = ("uuid", "ucid", "timestamp_TW", "problem_number", "is_correct")
NONE = ("null", "nan", *EMPTY)


@settings
class Junyi(Reader):
    """Junyi Academy 2015 or 2019: the table of exercises, which are the questions, and, where present, the log.

    An exercise draws a new problem each time, so attempts at it repeat.

    2015: ``junyi_Exercise_table.csv`` and ``junyi_ProblemLog_original.csv``. The concept is the topic, its parent the
    area. Prerequisites are between exercises; they are kept as prerequisites of the topics where these differ, and left
    out where two topics are each before the other. Times are microseconds.

    2019: ``Info_Content.csv`` and ``Log_Problem.csv``. The concept is the fourth level of the curriculum, the three
    above are its parents. Times are rounded to 15 minutes: within one, the attempts at an exercise stay together, in
    the order of ``problem_number``.

    References
    ----------
    Chang, Hsu and Chen 2015, Modeling exercise relationships in e-learning: a unified approach, EDM;
    https://pslcdatashop.web.cmu.edu/DatasetInfo?datasetId=1198. 2019:
    https://www.kaggle.com/datasets/junyiacademy/learning-activity-public-dataset-by-junyi-academy.
    """

    needs: ClassVar[str] = (
        f"{TABLE} with the columns {', '.join(COLUMNS)}, and {LOG}; "
        f"or {CONTENT} with ucid and {', '.join(LEVELS)}, and {ATTEMPTS}"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return set(COLUMNS) <= set(header(path / TABLE)) or {"ucid", *LEVELS} <= set(header(path / CONTENT))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        if (path / CONTENT).is_file() and (path / TABLE).is_file():
            both = f"{TABLE}, {CONTENT}"
            raise DataError("two releases in one folder", file=path, value=both, fix="give each its own folder")
        return _kaggle(path) if (path / CONTENT).is_file() else _datashop(path)


def _datashop(path: Path) -> Dataset:
    import polars as pl

    table = RawTable.read(path / TABLE, COLUMNS, ("pretty_display_name",))
    topics, areas = _filled(table, "topic"), _filled(table, "area")
    shared = areas.is_in(topics.drop_nulls().unique().implode()).fill_null(False)
    bank, notes = _bank(
        pl.DataFrame(
            {
                "question": table.identifiers("name"),
                "concept": topics,
                "parent": areas.zip_with(~shared, areas + " (area)"),
                "before": _filled(table, "prerequisites"),
            }
        )
    )
    if shared.any():
        notes.append(f"{several(areas.filter(shared).n_unique(), 'area')} with the name of a topic: 'NAME (area)'")
    parents, said = _parents(bank, ["concept", "parent"], path / TABLE)
    lifted, found = _lifted(bank)
    notes += [*said, *found]
    responses: Interactions | None = None
    students: tuple[str, ...] = ()
    questions = bank["question"]
    if (path / LOG).is_file():
        log = RawTable.read(path / LOG, ANSWERS)
        micro = log.frame["time_done"].str.strip_chars().cast(pl.Float64, strict=False)
        log.reject(~micro.is_finite().fill_null(False), "not a time", "time_done", "it is in microseconds")
        rows = pl.DataFrame(
            {
                "student": log.identifiers("user_id"),
                "question": log.identifiers("exercise"),
                "correct": _truth(log, "correct"),
                "time": micro / 1e6,
            }
        )
        questions, said = _with_unlisted(questions, rows["question"], TABLE)
        responses, students, found = ordered(path / LOG, rows, questions)
        notes += [*said, *found]
    else:
        notes.append(f"no {LOG}: a graph without responses")
    return _dataset(
        path, questions, bank, parents, responses, students, notes, _shown(table, "name", "pretty_display_name"), lifted
    )


def _kaggle(path: Path) -> Dataset:
    import polars as pl

    table = RawTable.read(path / CONTENT, ("ucid", *LEVELS), ("content_pretty_name",))
    bank, notes = _bank(
        pl.DataFrame(
            {"question": table.identifiers("ucid"), "concept": _filled(table, LEVELS[0])}
            | {name: _filled(table, name) for name in LEVELS[1:]}
        )
    )
    parents, said = _parents(bank, ["concept", *LEVELS[1:]], path / CONTENT)
    notes += said
    responses: Interactions | None = None
    students: tuple[str, ...] = ()
    questions = bank["question"]
    if (path / ATTEMPTS).is_file():
        log = RawTable.read(path / ATTEMPTS, GIVEN)
        number = log.whole("problem_number").cast(pl.Int64, strict=False)
        log.reject(number.is_null(), "not a whole number", "problem_number", "get the file again from its source")
        clock = log.frame["timestamp_TW"].str.strip_chars().str.replace(r" UTC$", "")
        users, exercises = log.identifiers("uuid"), log.identifiers("ucid")
        questions, said = _with_unlisted(questions, exercises, CONTENT)
        rows = pl.DataFrame(
            {
                "student": users,
                "at": codes(exercises, questions),
                "correct": _truth(log, "is_correct"),
                "time": replace(log, frame=log.frame.with_columns(clock)).seconds("timestamp_TW"),
                "number": number,
            }
        ).sort(["time", "at", "number"], maintain_order=True)
        names = rows["student"].unique(maintain_order=True)
        students = tuple(names)
        responses = interactions(codes(rows["student"], names), rows["at"], rows["correct"], rows["time"])
        assert responses.timestamp is not None
        tied = int(((np.diff(responses.student) == 0) & (np.diff(responses.timestamp) == 0)).sum())
        notes += [
            *said,
            f"{tied:,} of {len(rows):,} responses have the time of the one before (times are rounded to 15 minutes): "
            "by exercise in the order of the table, and by problem_number",
        ]
    else:
        notes.append(f"no {ATTEMPTS}: a graph without responses")
    return _dataset(
        path, questions, bank, parents, responses, students, notes, _shown(table, "ucid", "content_pretty_name")
    )


def _filled(table: RawTable, column: str) -> pl.Series:
    """The cells of a column, null for a blank one and for a word that stands for one."""
    cells = table.frame[column].str.strip_chars()
    return cells.set(table.blank(column) | cells.is_in(NONE).fill_null(False), None)


def _truth(table: RawTable, column: str) -> pl.Series:
    """The cells of a column of ``True`` and ``False`` as int8."""
    import polars as pl

    cells = table.frame[column].str.strip_chars().str.to_lowercase()
    wrong = ~cells.is_in(["true", "false"]).fill_null(False)
    table.reject(wrong, "neither true nor false", column, "get the file again from its source")
    return (cells == "true").cast(pl.Int8)


def _bank(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The rows of the exercises, each once."""
    bank = rows.unique("question", keep="first", maintain_order=True)
    twice = len(rows) - len(bank)
    said = [f"{several(twice, 'row')} of an exercise listed before: the first row counts"] if twice else []
    return bank, said


def _parents(bank: pl.DataFrame, levels: list[str], file: Path) -> tuple[dict[str, str], list[str]]:
    """Concept → parent, level by level from the narrowest; of two parents the first."""
    import polars as pl

    made: dict[str, str] = {}
    torn = 0
    for below, above in itertools.pairwise(levels):
        pairs = bank.select(pl.col(below).alias("a"), pl.col(above).alias("b")).drop_nulls().unique(maintain_order=True)
        pairs = pairs.filter(pl.col("a") != pl.col("b"))
        first = pairs.unique("a", keep="first", maintain_order=True)
        torn += len(pairs) - len(first)
        made.update(dict(zip(first["a"], first["b"], strict=True)))
    if around := cycle(made.items()):
        raise DataError("parents in a circle", file=file, value=around, fix="get the file again from its source")
    return made, [f"{several(torn, 'concept')} with a second parent: the first counts"] if torn else []


def _lifted(bank: pl.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """Prerequisites between exercises as prerequisites between their topics."""
    import polars as pl

    topic = dict(zip(bank["question"], bank["concept"], strict=True))
    lists = bank.drop_nulls("before").select("question", pl.col("before").str.split(",")).explode("before")
    pairs = [(before.strip(), after) for after, before in lists.iter_rows() if before.strip()]
    if not pairs:
        return [], []
    unknown = sum(before not in topic for before, _ in pairs)
    ends = {(topic.get(before), topic[after]) for before, after in pairs}
    between = {(a, b) for a, b in ends if a is not None and b is not None and a != b}
    clear = sorted((a, b) for a, b in between if (b, a) not in between)
    said = [f"{several(len(pairs), 'prerequisite')} between exercises: {len(clear):,} between their topics"]
    if torn := len(between) - len(clear):
        said.append(f"{torn:,} prerequisites between topics left out: each of the two is before the other")
    if unknown:
        said.append(f"{several(unknown, 'prerequisite')} that no row describes, left out")
    return clear, said


def _with_unlisted(questions: pl.Series, given: pl.Series, file: str) -> tuple[pl.Series, list[str]]:
    """The questions, and after them those of the log that the table lacks."""
    import polars as pl

    distinct = given.unique(maintain_order=True)
    more = distinct.filter(~distinct.is_in(questions.implode()))
    if len(more) == 0:
        return questions, []
    said = f"{several(len(more), 'exercise')} of the log that {file} lacks, kept without a concept"
    return pl.concat([questions, more]), [said]


def _shown(table: RawTable, column: str, name: str) -> dict[str, str]:
    """Exercise → readable name, where the table has that column."""
    if name not in table.frame.columns:
        return {}
    named = ~table.blank(name)
    return dict(zip(table.frame[column].filter(named), table.frame[name].filter(named), strict=True))


def _dataset(
    path: Path,
    questions: pl.Series,
    bank: pl.DataFrame,
    parents: dict[str, str],
    responses: Interactions | None,
    students: tuple[str, ...],
    notes: list[str],
    shown: dict[str, str],
    prerequisites: Sequence[tuple[str, str]] = (),
) -> Dataset:
    edges = bank.drop_nulls("concept")
    concepts = edges["concept"].unique(maintain_order=True)
    if len(concepts) == 0:
        fix = "get the file again from its source"
        raise DataError("no exercise has a topic", file=path, fix=fix)
    matrix, _ = q_matrix(
        len(questions), len(concepts), codes(edges["question"], questions), codes(edges["concept"], concepts)
    )
    return Dataset(
        path.resolve().name,
        tuple(questions),
        tuple(concepts),
        matrix,
        responses,
        students,
        question_names=shown,
        parents=parents,
        prerequisites=prerequisites,
        notes=(*notes, *remarks(matrix)),
    )
