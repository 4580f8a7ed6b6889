"""The register of test readings: what was ever read on a test part of real data, by whom and why.

A test part that has been read helped to decide what came after, so a new figure on it is no fresh test. The register,
``register.toml`` beside this module, lists the readings behind this project's own pages; :func:`readings` gives them.
A run on a published data set names the test parts that it reads and what the register knows of them. Somebody's own
data can't be in it, so a run on them doesn't mention it. ``docs/tests_read.md`` is the register as a page.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qcq.data.dataset import Part
from qcq.data.sealed import digest
from qcq.errors import ConfigError
from qcq.evaluation.task import Partition, TaskSpec
from qcq.support.files import write_text

REGISTER = Path(__file__).with_name("register.toml")
Unit = Literal["students", "edges", "questions"]
_FIELDS = ("date", "commit", "data", "unit", "digest", "rows", "tasks", "where", "command", "why")


@dataclass(frozen=True)
class Reading:
    """One entry of the register.

    Attributes
    ----------
    date, commit : when its figures were first written down; the commit is empty for one that the code wrote.
    data : name of the data set, and how it was divided.
    unit : ``students``: answers of test students; ``edges``: held-out edges; ``questions``: the questions on which a
        regression was judged, whose target is made of training students' answers.
    digest : of the test part (:func:`students_digest`, :func:`edges_digest`); empty where none was kept.
    rows : what was read: how many units, for how many tables.
    tasks : by which tasks or benchmarks.
    where : the page or results file with the figures.
    command : that made them.
    why : what was decided or said with them.
    """

    date: str
    commit: str
    data: str
    unit: Unit
    digest: str
    rows: str
    tasks: str
    where: str
    command: str
    why: str


def students_digest(part: Part) -> str:
    """SHA-256 over the identifiers of a part's students, each with its number of responses; answers play no role."""
    n = np.bincount(part.interactions.student, minlength=len(part.dataset.students))
    return digest(f"{part.dataset.students[s]}\t{n[s]}" for s in part.students)


def edges_digest(partition: Partition) -> str:
    """SHA-256 over the identifiers of the held-out test edges."""
    held, graph = partition.edges["test"], partition.graph
    pairs = zip(held.questions.tolist(), held.concepts.tolist(), strict=True)
    return digest(f"{graph.questions[q]}\t{graph.concepts[c]}" for q, c in pairs)


@cache
def readings(file: Path | None = None) -> tuple[Reading, ...]:
    """The entries of a register, in order; by default of this package's own.

    Raises
    ------
    ConfigError : the file is no register; the text names the entry.

    Examples
    --------
    >>> readings()[0].date
    '2026-11-23'
    """
    file = file or REGISTER
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8")).get("reading", [])
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no register of test readings: {error}") from None
    for i, each in enumerate(given):
        if set(each) != set(_FIELDS):
            wrong = sorted(set(each) ^ set(_FIELDS))
            raise ConfigError(f"{file}: reading {i + 1} lacks fields or has unknown ones: {', '.join(wrong)}")
    return tuple(Reading(**each) for each in given)


def test_parts(partition: Partition, tasks: Sequence[TaskSpec]) -> list[dict[str, Any]]:
    """The test parts that scoring these tasks reads; none for simulated data and for somebody's own.

    Returns
    -------
    One dict a part: ``unit``, ``digest``, ``units`` (how many), ``tasks`` (names), ``sealed`` (how many of the students
    are), ``readings`` (entries of the register with this digest).
    """
    if partition.dataset.truth or partition.dataset.own:
        return []
    found = []
    split = partition.split
    names = [each.name for each in tasks if each.task.unit == "students"]
    if names and split is not None:
        sealed = int(np.isin(split.test.students, partition.dataset.sealed).sum())
        found.append(_part("students", students_digest(split.test), len(split.test.students), names, sealed))
    names = [each.name for each in tasks if each.task.holds_out_edges]
    if names and len(partition.edges["test"]):
        found.append(_part("edges", edges_digest(partition), len(partition.edges["test"]), names, 0))
    return found


test_parts.__test__ = False  # type: ignore[attr-defined]  # tells pytest that this is not a test


def _part(unit: Unit, key: str, units: int, tasks: list[str], sealed: int) -> dict[str, Any]:
    known = sum(each.digest == key for each in readings())
    return {"unit": unit, "digest": key, "units": units, "tasks": tasks, "sealed": sealed, "readings": known}


def said(part: dict[str, Any]) -> str:
    """A test part in one line."""
    known = part["readings"]
    names = {"students": "test students", "edges": "held-out test edges"}
    times = "once" if known == 1 else f"{known} times"
    before = f"by the register read {times} before" if known else "which aren't in the register"
    seal = f"; {part['sealed']:,} of them sealed until now" if part["sealed"] else ""
    what = f"{part['units']:,} {names[part['unit']]} ({part['digest'][:12]})"
    return f"{', '.join(part['tasks'])}: reads {what}, {before}{seal}"


def record(part: dict[str, Any], data: str, where: Path, why: str) -> Path:
    """Write a reading of sealed students into the register, before any of them is scored.

    The register of a checkout is written to (:data:`REGISTER`), so that the reading is committed with what follows from
    it; an installed package isn't changed: there it is ``register.toml`` in the run folder. A part already entered
    by the same folder isn't entered again.

    Returns
    -------
    Path : the file written to.
    """
    checkout = (REGISTER.parents[1] / "pyproject.toml").is_file()
    file = REGISTER if checkout else where / "register.toml"
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    entry = Reading(
        date=date.today().isoformat(),
        commit="",
        data=data,
        unit=part["unit"],
        digest=part["digest"],
        rows=f"{part['units']:,} students",
        tasks=", ".join(part["tasks"]),
        where=where.name,
        command="config.toml of the run folder",
        why=why,
    )
    known = readings(file) if before else ()
    if not any((each.digest, each.where, each.tasks) == (entry.digest, entry.where, entry.tasks) for each in known):
        lines = [f"{name} = {json.dumps(getattr(entry, name), ensure_ascii=False)}" for name in _FIELDS]
        write_text(file, before + "\n[[reading]]\n" + "\n".join(lines) + "\n")
        readings.cache_clear()
    return file
