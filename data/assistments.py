"""ASSISTments' published CSVs in their raw columns: 2009 to 2010 skill builder and its likes, 2012 to 2013, 2017."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

from qcq.data.assembly import interactions, q_matrix, remarks
from qcq.data.checks import EMPTY
from qcq.data.dataset import Dataset
from qcq.data.log import answers, from_log, moments
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

COLUMNS = ("order_id", "user_id", "problem_id", "correct", "skill_id")
SETS_ONLY = {"user_id", "log_id", "sequence_id", "correct"}  # 2015: sequence_id is the id of a problem set
NO_SKILL = ("noskill", *EMPTY)


class Timed(NamedTuple):
    """The columns of a release whose rows have a time."""

    student: str
    question: str
    correct: str
    skill: str
    time: str


RELEASES = {
    "2012-2013": Timed("user_id", "problem_id", "correct", "skill_id", "start_time"),
    "2017": Timed("studentId", "problemId", "correct", "skill", "startTime"),
}


@settings
class ASSISTments(Reader):
    """One raw file of 2009-2010, 2012-2013 or 2017, told apart by its columns.

    2009-2010: rows of one attempt (one row per skill) are merged by ``order_id``; attempts are sorted by it. The
    others have times: rows of one student, question and time are one attempt, sorted by ``start_time`` (``startTime``).
    An answer of 2012-2013 that has a part of the marks is left out and counted. The file of 2015 has problem sets and
    no problems; it is refused.

    A byte order mark, Latin-1, ids written as ``12.0`` and rows without a skill are all usual in published copies.
    Problems that never have a skill are kept as questions without a concept. A file whose first column is an unnamed
    index with gaps in its order is a random sample of rows: it is read, but its attempts count as unordered.

    References
    ----------
    Feng, Heffernan and Koedinger 2009, Addressing the assessment challenge with an online system that tutors as it
    assesses, UMUAI; https://sites.google.com/site/assistmentsdata. 2017: the data mining competition of Patikorn,
    Baker and Heffernan 2020, JEDM 12(2); https://sites.google.com/view/assistmentsdatamining.
    """

    needs: ClassVar[str] = f"a CSV file with the columns {', '.join(COLUMNS)} (2009), " + " or ".join(
        f"{', '.join(columns)} ({year})" for year, columns in RELEASES.items()
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        import polars as pl

        file, notes = _choose(path)
        names = set(header(file))
        if names >= SETS_ONLY and "problem_id" not in names:
            what = (
                "ASSISTments 2015 has concepts only: sequence_id is a set of problems, and no column says which problem"
            )
            fix = "take the release of 2009, 2012 or 2017; a graph needs questions"
            raise DataError(what, file=file, column="sequence_id", fix=fix)
        for year, release in RELEASES.items():
            if _fits(release, names) and not set(COLUMNS) <= names:
                return _timed(path, file, year, release, notes)
        indexed = header(file)[:1] == [""]
        columns = ("skill_name", "original", *([""] if indexed else []))
        table = RawTable.read(file, COLUMNS, columns, encodings=("utf-8", "latin-1"))
        if table.encoding != "utf-8":
            notes.append(f"read as {table.encoding}: the file is not UTF-8")
        order = table.whole("order_id").cast(pl.Int64, strict=False)
        table.reject(order.is_null(), "not a whole number", "order_id", "write a whole number, as 3")
        users, problems = table.identifiers("user_id"), table.identifiers("problem_id")
        skills = table.whole("skill_id")
        bare = table.blank("skill_id") | skills.is_in(EMPTY).fill_null(False)
        rows = pl.DataFrame(
            {
                "order": order,
                "user": users,
                "problem": problems,
                "correct": table.binary("correct"),
                "skill": skills.set(bare, None),
            }
        )
        joint = rows["skill"].drop_nulls().str.contains("_")
        if joint.any():  # some copies write the skills of an attempt into one cell
            example = rows["skill"].drop_nulls().filter(joint)[0]
            notes.append(f"{several(int(joint.sum()), 'cell')} of several skills, as {example!r}: one edge each")
        questions = problems.unique(maintain_order=True)
        students = users.unique(maintain_order=True)
        single = rows.with_columns(pl.col("skill").str.split("_")).explode("skill").drop_nulls("skill")
        concepts = single["skill"].unique(maintain_order=True)
        if len(concepts) == 0:
            raise DataError(
                "no row has a skill", file=file, column="skill_id", fix="take a copy of the data with skills"
            )
        edges = single.unique(["problem", "skill"], maintain_order=True)
        matrix, _ = q_matrix(
            len(questions), len(concepts), codes(edges["problem"], questions), codes(edges["skill"], concepts)
        )
        attempts = rows.unique(["user", "order", "problem"], keep="first", maintain_order=True)
        if merged := len(rows) - len(attempts):
            notes.append(f"merged {several(merged, 'repeated row')} of attempts written again, once a skill or in full")
        if torn := len(rows.unique(["user", "order", "problem", "correct"])) - len(attempts):
            notes.append(f"{several(torn, 'attempt')} both right and wrong: the first row counts")
        if bare.any():
            notes.append(f"{several(int(bare.sum()), 'row')} without a skill: kept as attempts, no edge")
        if "original" in table.frame.columns and (aids := int((table.whole("original") == "0").sum())):
            notes.append(f"{several(aids, 'row')} of scaffolding (original is 0), kept")
        ordered = not (indexed and not table.whole("").cast(pl.Int64, strict=False).is_sorted())
        if ordered:
            attempts = attempts.sort("order", maintain_order=True)
            notes.append("sorted by order_id")
        else:
            notes.append("a random sample of rows (its index column is out of order): no sequences in it")
        called: dict[str, str] = {}
        if "skill_name" in table.frame.columns:
            said = ~(table.blank("skill_id") | table.blank("skill_name"))
            called = dict(zip(skills.filter(said), table.frame["skill_name"].filter(said), strict=True))
        return Dataset(
            _name(path),
            tuple(questions),
            tuple(concepts),
            matrix,
            interactions(
                codes(attempts["user"], students),
                codes(attempts["problem"], questions),
                attempts["correct"],
                ordered=ordered,
            ),
            tuple(students),
            concept_names=called,
            notes=(*notes, *remarks(matrix)),
        )


def _timed(path: Path, file: Path, year: str, columns: Timed, notes: list[str]) -> Dataset:
    import polars as pl

    named = () if columns.skill == "skill" else ("skill",)
    table = RawTable.read(file, columns, ("original", *named), encodings=("utf-8", "latin-1"))
    said = [*notes, f"the release of {year}, sorted by {columns.time}"]
    if table.encoding != "utf-8":
        said.append(f"read as {table.encoding}: the file is not UTF-8")
    skill = table.whole(columns.skill)
    bare = table.blank(columns.skill) | skill.is_in(NO_SKILL).fill_null(False)
    rows = pl.DataFrame(
        {
            "student": table.identifiers(columns.student),
            "question": table.identifiers(columns.question),
            "concept": skill.set(bare, None),
            "correct": answers(table, columns.correct),
            "time": moments(table, columns.time),
        }
    )
    if "original" in table.frame.columns and (aids := int((table.whole("original") == "0").sum())):
        said.append(f"{several(aids, 'row')} of scaffolding (original is 0), kept")
    called: dict[str, str] = {}
    if named and "skill" in table.frame.columns:
        said_so = ~(bare | table.blank("skill"))
        called = dict(zip(skill.filter(said_so), table.frame["skill"].filter(said_so), strict=True))
    return from_log(_name(path), file, rows, skills=columns.skill, concept_names=called, notes=said)


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _fits(columns: Timed, names: set[str]) -> bool:
    return {name.lower() for name in columns} <= names


def _files(path: Path) -> list[Path]:
    candidates = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return [file for file in candidates if _known(set(header(file)))]


def _known(names: set[str]) -> bool:
    timed = any(_fits(columns, names) for columns in RELEASES.values())
    return set(COLUMNS) <= names or timed or (names >= SETS_ONLY and "problem_id" not in names)


def _choose(path: Path) -> tuple[Path, list[str]]:
    """The file to read. Of several, samples (which have the unnamed index of a frame) are passed over."""
    files = _files(path)
    if not files and path.is_file():
        return path, []  # the table reports what is missing in it
    if not files:
        raise DataError("no CSV file with the raw columns", file=path, fix=f"they are {', '.join(COLUMNS)}")
    whole = [file for file in files if header(file)[:1] != [""]] or files
    if len(whole) > 1:
        names = ", ".join(file.name for file in whole)
        raise DataError("several raw files", file=path, value=names, fix="name one: assistments:FOLDER/FILE")
    left = [file.name for file in files if file != whole[0]]
    notes = [f"read {whole[0].name}, left {', '.join(left)} unread: a sample of rows with its index"] if left else []
    return whole[0], notes
