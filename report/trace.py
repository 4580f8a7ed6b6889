"""A student's state: mastery of each concept after each attempt, by the knowledge-tracing model of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.config import Config
from qcq.data import Dataset
from qcq.data.table import codes
from qcq.embeddings import Embeddings
from qcq.engine import Store, make_store
from qcq.engine.cell import Row, plain, unkeyed
from qcq.engine.kinds import OnData
from qcq.engine.verify import add_to_manifest
from qcq.errors import ConfigError, DataError
from qcq.evaluation import TaskSpec
from qcq.evaluation.tracing.tasks import KT, KTSettings
from qcq.models.answers import answers_table, in_order
from qcq.report.facts import Bank, Trace, partition_of
from qcq.run import FILE, NO_WALK, Run
from qcq.support.cost import measured
from qcq.support.files import from_json, link, sha256, write_text
from qcq.support.lock import occupied
from qcq.support.progress import Progress, silent
from qcq.support.types import takes
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

PIECE = 256  # questions whose probabilities are computed at once


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedTracer(OnData):
    """The knowledge-tracing model of a task, trained on one table: ``tracer.safetensors``.

    Parameters
    ----------
    table : the file of the vectors.
    vectors : their digest.
    task, settings : ``kt`` or a task of its family, and its settings.
    """

    revision = 2
    code = ("qcq.evaluation", "qcq.data", "qcq.graph", "qcq.embeddings", "qcq.support.seeds", "qcq.report.trace")

    table: str = unkeyed("")
    vectors: str
    task: type[KT]
    settings: KTSettings

    def run(self, store: Store, progress: Progress) -> Row:
        task = self.task(self.partition(store), self.settings)
        with measured() as cost:
            tracer = task.tracer(Embeddings.load(self.table))
        tracer.save(store.file(self, "tracer.safetensors"))
        students = len(task.attempts.train.students)
        return {"seconds": round(cost.seconds, 3), "students": students, "validation_auc": max(tracer.history)}


@dataclass(frozen=True, eq=False)
class StudentState:
    """What a run's model says of one student.

    Attributes
    ----------
    trace : the attempts, the concepts they were on, and their mastery.
    bank : the questions and concepts of the run.
    skipped : attempts at questions that the run doesn't know; they were left out.
    fitted : seconds that the training of the model took; 0 where it was trained before.
    students : training students whose answers the model was trained on.
    validation_auc : AUC of the model on validation students.
    notes : how the attempts were read, where that isn't plain.
    """

    trace: Trace
    bank: Bank
    skipped: int
    fitted: float
    students: int
    validation_auc: float
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pl.DataFrame:
        """A row for each attempt and concept: ``attempt`` (0 is before the first), ``question`` and ``correct`` of the
        attempt (null at 0), ``concept``, ``name``, ``mastery``."""
        import polars as pl

        one = self.trace
        steps, n = one.mastery.shape
        asked = [None, *(self.bank.ids[int(q)] for q in one.question)]
        right = [None, *one.correct.tolist()]
        return pl.DataFrame(
            {
                "attempt": np.repeat(np.arange(steps), n),
                "question": pl.Series([q for q in asked for _ in range(n)], dtype=pl.String),
                "correct": pl.Series([c for c in right for _ in range(n)], dtype=pl.Int8),
                "concept": [self.bank.concept_ids[int(c)] for c in one.concepts] * steps,
                "name": [self.bank.label(int(c)) for c in one.concepts] * steps,
                "mastery": one.mastery.ravel(),
            }
        )


@takes(run="Run")
def trace(
    run: Run,
    student: Path | str | Any,
    *,
    trainer: str | None = None,
    walk: str | None = None,
    skip_unknown: bool = False,
    redo: bool = False,
    data: Dataset | None = None,
    progress: Progress = silent,
) -> StudentState:
    """A student's mastery of each concept that they met, before the first attempt and after each.

    Mastery of concept c after t attempts is the mean predicted probability over its questions,

        m_c(t) = 1/|Q_c| · Σ_{q in Q_c} p(right at q | attempts 1 … t),

    by the run's knowledge-tracing model: that of its task ``kt`` (or ``kt-difficulty``, ``kt-attention``) on the table
    that was best on validation. A run keeps scores but no such model, so it is trained again when it is first asked
    for, on the run's data, and kept in the run. It is trained anew where the run's vectors or data are others by now.

    Parameters
    ----------
    student : a file with the columns ``question`` and ``correct``, and ``timestamp`` where the rows aren't in order; or
        a polars or pandas frame of the same. Other usual headings and space around names are read as the readers do.
    trainer, walk : whose vectors; by default those best on validation of the task, test figures are never looked at.
    skip_unknown : leave out attempts at questions that the run doesn't know.
    redo : train the model anew, even if the run has it.
    data : the run's data, if they shouldn't be read from where the run read them.

    Raises
    ------
    DataError : a question that the run doesn't know, an answer that is neither 0 nor 1, two students, no attempts, none
        at a question with a concept, or a time under another name.
    ConfigError : the run's data are others by now.
    EvaluationError : data without ordered answers.

    References
    ----------
    Piech et al. 2015, Deep knowledge tracing (NeurIPS), section 3 and figure 1, for probabilities over time as a
    student's state; the mean over a concept's questions makes it comparable between concepts.
    """
    bank = Bank.of(run)
    if bank is None:
        raise ConfigError(f"{run.path}: an older run without its concepts; run it again")
    question, correct, skipped, notes = _attempts(student, bank, skip_unknown)
    met = bank.members[question].indices
    concepts = met[np.sort(np.unique(met, return_index=True)[1])].astype(np.int64)
    if not len(concepts):
        fix = "give attempts at questions that the run knows concepts of"
        raise DataError("no attempt at a question with a concept", value=bank.ids[int(question[0])], fix=fix)
    spec, row = _chosen(run, trainer, walk)
    kept = run.file(
        "tracers", row["walk"], row["trainer"], f"{spec.name}--{row['readout']}", row["seed"], ".safetensors"
    )
    vectors = sha256(run.file("embeddings", row["walk"], row["trainer"], row["readout"], row["seed"], ".safetensors"))
    about = {} if redo or not kept.is_file() else _about(run, kept, spec, vectors)
    fitted = 0.0
    if not about:
        about = _fit(run, spec, row, vectors, kept, redo, data, progress)
        fitted = float(about["seconds"])

    from qcq.evaluation.tracing.models import Tracer

    tracer = Tracer.load(kept)
    asked = scipy.sparse.csr_array(bank.members[:, concepts] > 0).astype(np.float64)  # (questions, concepts)
    its = np.flatnonzero(asked.sum(axis=1))
    mastery = np.zeros((len(question) + 1, len(concepts)))
    for at in range(0, len(its), PIECE):
        some = its[at : at + PIECE]
        mastery += tracer.mastery(question, correct, some) @ asked[some]
    mastery /= asked.sum(axis=0)
    label = row["trainer"] if row["walk"] in (NO_WALK, FILE) else f"{row['trainer']} on {row['walk']}"
    name = Path(student).stem if isinstance(student, str | Path) else "the student"
    found = Trace(spec.name, label, -1, question, correct, concepts, mastery.astype(np.float32), name)
    return StudentState(found, bank, skipped, fitted, about["students"], about["validation_auc"], notes)


def _attempts(
    student: Path | str | Any, bank: Bank, skip_unknown: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, tuple[str, ...]]:
    """Questions and answers of one student in order, how many attempts were left out, and how the table was read."""
    import polars as pl

    table = answers_table(student, "student", ("question", "correct"), ("timestamp", "student"))
    if "student" in table.frame.columns and len(who := table.distinct("student")) > 1:
        raise table.error(
            f"{len(who)} students in one file", column="student", value=who[1], fix="give the rows of one student"
        )
    asked = table.frame["question"]
    at = codes(asked, pl.Series(bank.ids))
    lost = at.is_null()
    if lost.any() and not skip_unknown:
        table.identifiers("question")  # no name at all is the truer reason
        names = asked.filter(lost).unique(maintain_order=True)
        where = f" ({several(len(names), 'question')} in {several(int(lost.sum()), 'row')})" if len(names) > 1 else ""
        fix = "correct it, or leave such rows out with --skip-unknown (skip_unknown=True)"
        raise table.error(
            f"a question that the run doesn't know{where}",
            at=lost.arg_max(),
            column="question",
            value=names[0],
            fix=fix,
        )
    correct = table.binary("correct")
    order, notes = in_order(table, np.zeros(len(table), dtype=np.int32))
    order = order[~lost.to_numpy()[order]]
    if not len(order):
        raise DataError("no attempt at a question of the run", file=table.source, fix="give one attempt at least")
    return at.to_numpy()[order].astype(np.int64), correct[order].astype(np.int64), int(lost.sum()), tuple(notes)


def _chosen(run: Run, trainer: str | None, walk: str | None) -> tuple[TaskSpec, Mapping[str, Any]]:
    """The task whose model is used, and the table: a row of ``training.jsonl``. Only validation figures are read."""
    specs = [each for each in Config.load(run.path / "config.toml").task_specs() if issubclass(each.task, KT)]
    judged: list[tuple[float, TaskSpec, Mapping[str, Any]]] = []
    for spec in specs:
        figures: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for each in run.rows("training"):
            if spec.name in each.get("judged", {}):
                figures.setdefault((each["walk"], each["trainer"]), []).append(each)
        for rows in figures.values():
            mean = float(np.mean([each["judged"][spec.name][spec.task.metric] for each in rows]))
            if (trainer in (None, rows[0]["trainer"])) and (walk in (None, rows[0]["walk"])):
                judged.append((mean, spec, rows[0]))
    if judged:
        _, spec, row = max(judged, key=lambda one: one[0])
        return spec, row
    spec = specs[0] if specs else TaskSpec("kt", KT, KTSettings())
    name, on = run.best(walk, trainer)
    return spec, run.trained(name, walk=on)


def _made_of(run: Run, spec: TaskSpec) -> str:
    """A digest of what a model is trained on, its vectors apart; empty where the run doesn't say its split."""
    split = run.read_json("about.json").get("split_digest")
    about = [split, plain(spec.task), plain(spec.settings)]
    return "" if split is None else hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _about(run: Run, kept: Path, spec: TaskSpec, vectors: str) -> dict[str, Any]:
    """What is known of a model in the run; empty if it was made from something else."""
    try:
        about: dict[str, Any] = from_json(kept.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(about, dict):
        return {}
    return about if (about.get("vectors"), about.get("made_of")) == (vectors, _made_of(run, spec)) else {}


def _fit(
    run: Run,
    spec: TaskSpec,
    row: Mapping[str, Any],
    vectors: str,
    kept: Path,
    redo: bool,
    data: Dataset | None,
    progress: Progress,
) -> dict[str, Any]:
    """Train the model on the run's data, and keep it in the run with what is said of it."""
    config, partition = Config.load(run.path / "config.toml"), partition_of(run, data)
    table = run.file("embeddings", row["walk"], row["trainer"], row["readout"], row["seed"], ".safetensors")
    cell = FittedTracer(
        data=partition.digest,
        table=str(table),
        vectors=vectors,
        task=cast(type[KT], spec.task),
        settings=spec.settings,
        label=f"{row['trainer']}: {spec.name}",
    )
    with occupied(run.path):
        store = make_store(config.store or "", run.path / "cells", {partition.digest: partition}).open()
        made = store.perform(cell, lambda: cell.run(store, progress), redo=redo)
        link(store.file(cell, "tracer.safetensors"), kept)
        about = {**made, "vectors": vectors, "made_of": _made_of(run, spec)}
        write_text(kept.with_suffix(".json"), json.dumps(about) + "\n")
        add_to_manifest(run, [kept, kept.with_suffix(".json")])
    return about
