"""Logs of PSLC DataShop, a row for each step that a student took: KDD Cup 2010, and OLI Engineering Statics 2011."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qcq.data.checks import EMPTY
from qcq.data.dataset import Dataset
from qcq.data.log import answers, from_log, moments
from qcq.data.reader import Reader
from qcq.data.table import RawTable
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

STUDENT, PROBLEM, VIEW, STEP, TIME = (
    "Anon Student Id",
    "Problem Name",
    "Problem View",
    "Step Name",
    "First Transaction Time",
)
STEPS = (STUDENT, PROBLEM, VIEW, STEP, TIME)
GRADED, SAID = "Correct First Attempt", "First Attempt"  # 0 or 1; or correct, incorrect, hint
JOIN = "----"  # between problem and step, as in pyKT's names
BETWEEN = "~~"
NONE = (".", *EMPTY)  # DataShop writes a point into an empty cell


@settings
class KDDCup(Reader):
    """KDD Cup 2010: ``algebra_2005_2006_train.txt``, ``bridge_to_algebra_2006_2007_train.txt`` and their likes.

    A question is a step of a problem, named ``PROBLEM----STEP``. An answer is right if the first attempt is: asking
    for a hint is wrong. Concepts are from the first of the columns ``KC(Default)``, ``KC(SubSkills)``,
    ``KC(KTracedSkills)`` and ``KC(Rules)`` that is there; ``~~`` separates several. Responses are sorted by the time
    of the first transaction. Of a folder the training file is read: the test file has no answers.

    References
    ----------
    Stamper, Niculescu-Mizil, Ritter, Gordon and Koedinger 2010, data sets of the KDD Cup 2010 Educational Data Mining
    Challenge; https://pslcdatashop.web.cmu.edu/KDDCup/rules_data_format.jsp.
    """

    needs: ClassVar[str] = f"a file …_train.txt with the columns {', '.join((*STEPS, GRADED))} and KC(…)"
    models: ClassVar[tuple[str, ...]] = ("KC(Default)", "KC(SubSkills)", "KC(KTracedSkills)", "KC(Rules)")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return bool(_files(path, GRADED))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        file, notes = _choose(path, GRADED, self.needs)
        model = _model(file, self.models)
        others = [name for name in self.models if name != model and name.lower() in header(file)]
        if others:
            notes.append(f"concepts are from {model}; {', '.join(others)} not read")
        table = RawTable.read(file, (*STEPS, GRADED, model), encodings=("utf-8", "latin-1"))
        if table.blank(GRADED).all():
            fix = "take the file that ends in _train.txt"
            raise DataError("no row has an answer: this is a test file", file=file, column=GRADED, fix=fix)
        return _steps(path, file, table, answers(table, GRADED), model, notes)


@settings
class Statics(Reader):
    """OLI Engineering Statics, Fall 2011: ``AllData_student_step_2011F.csv``, or a student-step export of DataShop.

    A question is a step of a problem, named ``PROBLEM----STEP``. A first attempt is correct, incorrect or a hint; rows
    of hints are left out and counted, as the published figures have it. Concepts are from ``KC (F2011)``; ``~~``
    separates several, a point is none. Times are those of the first transaction, in the CSV to the minute.

    References
    ----------
    Steif and Bier 2014, OLI Engineering Statics, Fall 2011; https://pslcdatashop.web.cmu.edu/DatasetInfo?datasetId=507.
    """

    needs: ClassVar[str] = f"a file with the columns {', '.join((*STEPS, SAID))} and KC (F2011)"
    models: ClassVar[tuple[str, ...]] = ("KC (F2011)",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return any(set(map(str.lower, cls.models)) <= set(header(file)) for file in _files(path, SAID))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        import polars as pl

        file, notes = _choose(path, SAID, self.needs)
        model = _model(file, self.models)
        table = RawTable.read(file, (*STEPS, SAID, model), encodings=("utf-8", "latin-1"))
        said = table.frame[SAID].str.strip_chars().str.to_lowercase()
        known = said.is_in(["correct", "incorrect", "hint"])
        fix = "it is correct, incorrect or hint"
        table.reject(~(known | said.is_in(NONE) | table.blank(SAID)).fill_null(True), "an unknown outcome", SAID, fix)
        if hints := int((said == "hint").sum()):
            notes.append(f"{hints:,} of {len(said):,} first attempts are hints: no answer, neither right nor wrong")
        right = said.replace_strict({"correct": 1.0, "incorrect": 0.0}, default=None, return_dtype=pl.Float64)
        return _steps(path, file, table, right, model, notes)


def _steps(path: Path, file: Path, table: RawTable, right: pl.Series, model: str, notes: list[str]) -> Dataset:
    """Rows of steps with their answers, ``right`` (null for none), to a data set."""
    import polars as pl

    if table.encoding != "utf-8":
        notes.append(f"read as {table.encoding}: the file is not UTF-8")
    problem, step = (table.frame[name].str.strip_chars() for name in (PROBLEM, STEP))
    skill = table.frame[model].str.strip_chars()
    rows = pl.DataFrame(
        {
            "student": table.identifiers(STUDENT),
            "question": problem + JOIN + step,
            "view": table.frame[VIEW],
            "concept": skill.set(table.blank(model) | skill.is_in(NONE).fill_null(False), None),
            "correct": right,
            "time": moments(table, TIME),
        }
    )
    unnamed = table.blank(PROBLEM) | table.blank(STEP)
    if unnamed.any():
        notes.append(f"{several(int(unnamed.sum()), 'row')} without a problem or a step, left out")
        rows = rows.filter(~unnamed)
    if spaced := int(((problem != table.frame[PROBLEM]) | (step != table.frame[STEP])).sum()):
        notes.append(f"{several(spaced, 'row')} with space around a problem or a step, taken off")
    same = ("student", "question", "view", "time")
    name = path.resolve().name if path.is_dir() else path.stem
    return from_log(name, file, rows, skills=model, between=BETWEEN, attempt=same, notes=notes)


def _files(path: Path, outcome: str) -> list[Path]:
    """The logs of steps with this column of outcomes."""
    found = [path]
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in (".txt", ".csv", ".tsv"))
    return [file for file in found if {name.lower() for name in (*STEPS, outcome)} <= set(header(file))]


def _choose(path: Path, outcome: str, needs: str) -> tuple[Path, list[str]]:
    """The file to read: of several, the training file."""
    files = _files(path, outcome)
    if not files and path.is_file():
        return path, []  # the table reports what is missing in it
    if not files:
        raise DataError("no log of steps", file=path, fix=f"it needs {needs}")
    train = [file for file in files if file.stem.endswith("_train")] or files
    if len(train) > 1:
        names = ", ".join(file.name for file in train)
        raise DataError("several logs of steps", file=path, value=names, fix="name one: FORMAT:FOLDER/FILE")
    left = [file.name for file in files if file != train[0]]
    return train[0], [
        f"read {train[0].name}, left {', '.join(left)} unread: the competition's test set"
    ] if left else []


def _model(file: Path, models: tuple[str, ...]) -> str:
    """The first of these columns of concepts that the file has; the first of all where it has none."""
    names = header(file)
    return next((name for name in models if name.lower() in names), models[0])
