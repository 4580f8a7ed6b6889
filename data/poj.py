"""Submissions to Peking University's online judge (POJ), as pyKT reads them; tags come from a table next to the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qcq.data.dataset import Dataset
from qcq.data.log import from_log, moments
from qcq.data.reader import Reader
from qcq.data.table import RawTable
from qcq.data.text import OFFICE, header
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

LOG, TAGS = "poj_log.csv", "poj_tags.csv"
USER, PROBLEM, RESULT, TIME = COLUMNS = ("User", "Problem", "Result", "Submit Time")
TAGGED = ("Problem", "Tags")
BETWEEN = ";"
RIGHT = "Accepted"
WRONG = (
    "Wrong Answer",
    "Compile Error",
    "Time Limit Exceeded",
    "Memory Limit Exceeded",
    "Runtime Error",
    "Output Limit Exceeded",
    "Presentation Error",
    "System Error",
    "Validator Error",
)


@settings
class POJ(Reader):
    """``poj_log.csv`` (User, Problem, Result, Submit Time) and ``poj_tags.csv`` (Problem, Tags) of your own.

    The published log has no concepts: pyKT takes each problem for one, which leaves nothing to walk on. Tags are from
    ``poj_tags.csv``, with ``;`` between several; without it the log is refused. A submission is right if it was
    accepted; a compile error and the like count as wrong, as in pyKT. Rows whose result is no verdict (``Waiting``) are
    left out and counted, and so are rows without a user or a problem.

    References
    ----------
    Pandey and Srivastava 2020, RKT: relation-aware self-attention for knowledge tracing, CIKM, who collected the log;
    ``pykt/preprocess/poj_preprocess.py``, https://github.com/pykt-team/pykt-toolkit.
    """

    needs: ClassVar[str] = f"{LOG} with the columns {', '.join(COLUMNS)}, and {TAGS} with {', '.join(TAGGED)}"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return {name.lower() for name in COLUMNS} <= set(header(_log(path)))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        import polars as pl

        file = _log(path)
        table = RawTable.read(file, COLUMNS, (), OFFICE)
        tags = file.parent / TAGS
        if not tags.is_file():
            what = "no tags of the problems: the log has no concepts"
            fix = f"put a table with the columns {','.join(TAGGED)} next to {file.name}, {BETWEEN!r} between tags"
            raise DataError(what, file=tags, fix=fix)
        tagged = RawTable.read(tags, TAGGED, (), OFFICE)
        known = _tags(tagged)
        said = [*table.notes(), *tagged.notes()]
        result = table.frame[RESULT].str.strip_chars()
        verdict = pl.DataFrame({"r": result}).select(
            pl.when(pl.col("r") == RIGHT).then(1.0).when(pl.col("r").is_in(WRONG)).then(0.0).alias("correct")
        )["correct"]
        rows = pl.DataFrame(
            {
                "student": table.frame[USER],
                "question": table.whole(PROBLEM),
                "correct": verdict,
                "time": moments(table, TIME),
            }
        )
        nobody = table.blank(USER) | table.blank(PROBLEM)
        if nobody.any():
            said.append(f"{several(int(nobody.sum()), 'row')} without a user or a problem, left out")
        others = result.filter(verdict.is_null() & ~nobody).drop_nulls().unique().sort().to_list()
        if others:
            said.append(f"results that are no verdict: {', '.join(map(repr, others[:5]))}; their rows have no answer")
        rows = rows.filter(~nobody).join(known, on="question", how="left", maintain_order="left")
        if unused := known.join(rows, on="question", how="anti").height:
            said.append(f"{several(unused, 'problem')} of {TAGS} without a submission, left out")
        name = path.resolve().name if path.is_dir() else path.stem
        return from_log(name, file, rows, skills="Tags", between=BETWEEN, notes=said)


def _log(path: Path) -> Path:
    return path / LOG if path.is_dir() else path


def _tags(table: RawTable) -> pl.DataFrame:
    """Problem → its tags in one cell, null for none; the rows of a problem add up."""
    import polars as pl

    table.identifiers(PROBLEM)
    cells = table.frame["Tags"].set(table.blank("Tags"), None)
    rows = pl.DataFrame({"question": table.whole(PROBLEM), "concept": cells})
    return rows.group_by("question", maintain_order=True).agg(
        pl.when(pl.col("concept").count() > 0).then(pl.col("concept").drop_nulls().str.join(BETWEEN)).alias("concept")
    )
