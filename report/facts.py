"""What the run folder says about its questions and its walks, and the data that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.config import Config
from qcq.corpus import Corpus
from qcq.data import Dataset, load
from qcq.errors import CorpusError, DataError
from qcq.evaluation import TASKS, Partition
from qcq.run import FILE, NO_WALK, Row, Run
from qcq.support.registry import find
from qcq.support.types import check

WALKS = 50_000  # walks used, evenly spaced over the corpus


@dataclass(frozen=True, eq=False)
class Bank:
    """What the run folder says about its questions.

    Attributes
    ----------
    ids, names : of the questions; a name may be "".
    concept_ids, concept_names : of the concepts.
    members : csr_array (questions × concepts), the data set's own edges, held-out ones included.
    degree : int64 (questions,), concepts of a question in the training graph.
    responses : int64 (questions,) of training students, or None.
    difficulty : float64 (questions,), share of wrong answers among them, NaN where there are none; or None.
    """

    ids: list[str]
    names: list[str]
    concept_ids: list[str]
    concept_names: list[str]
    members: scipy.sparse.csr_array
    degree: NDArray[np.int64]
    responses: NDArray[np.int64] | None
    difficulty: NDArray[np.float64] | None

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Questions per concept: int64 (concepts,)."""
        return np.bincount(self.members.indices, minlength=len(self.concept_ids))

    def label(self, concept: int) -> str:
        """Its name, or its identifier where it has none."""
        return self.concept_names[concept] or self.concept_ids[concept]

    @property
    def largest(self) -> NDArray[np.int64]:
        """Concepts by decreasing number of questions, ties in index order: int64 (concepts,)."""
        return np.argsort(-self.sizes, kind="stable")

    def groups(self, n: int) -> NDArray[np.int64]:
        """For each question, the largest of its concepts among the ``n`` largest of all: int64 (questions,), a rank
        from 0; ``n`` if it tests none of them."""
        place = np.empty(len(self.sizes), dtype=np.int64)
        place[self.largest] = np.arange(len(self.sizes))
        out = np.full(len(self.ids), n)
        rows = np.repeat(np.arange(len(self.ids)), np.diff(self.members.indptr))
        np.minimum.at(out, rows, place[self.members.indices])
        return np.minimum(out, n)

    @classmethod
    def of(cls, run: Run) -> Bank | None:
        """Read ``questions.csv``, ``concepts.csv`` and ``graph.npz``; None if an older run has none of them."""

        if not (run.path / "graph.npz").is_file() or not (run.path / "concepts.csv").is_file():
            return None
        frame, concepts = (run.table(f"{name}.csv").fill_null("") for name in ("questions", "concepts"))
        arrays = run.edges()
        shape = (len(frame), len(concepts))
        edges = (np.ones(len(arrays["indices"])), arrays["indices"], arrays["indptr"])
        return cls(
            frame["question"].to_list(),
            frame["name"].to_list(),
            concepts["concept"].to_list(),
            concepts["name"].to_list(),
            scipy.sparse.csr_array(edges, shape=shape),
            arrays["degree"],
            arrays.get("responses"),
            arrays.get("difficulty"),
        )


def partition_of(run: Run, data: Dataset | None = None) -> Partition:
    """A run's data, divided as the run divided them; read anew where they aren't given.

    Raises
    ------
    DataError : they have changed since the run was made.
    """
    if data is not None:
        check("partition_of", "data", data, "Dataset")
    config = Config.load(run.path / "config.toml")
    made = config.partition(data or load(config.data, config.sections))
    wanted = run.read_json("about.json")["data_digest"]
    if made.data_digest != wanted:
        what = f"its data have changed since (digest {wanted[:12]}, now {made.data_digest[:12]})"
        raise DataError(what, file=run.path, fix="make the run anew")
    return made


def inspected(run: Run) -> dict[str, dict[str, Any]]:
    """What each walk can tell about its questions (``inspect/*.json``), by walk; an older run has none."""
    files = {walk: run.inspection(walk) for walk in run.config["walks"]}
    return {walk: run.read_json(path.relative_to(run.path)) for walk, path in files.items() if path.is_file()}


@dataclass(frozen=True)
class WalkFacts:
    """Statistics of the walks of one strategy, first seed.

    Attributes
    ----------
    walk : its name.
    walks, tokens, digest, counts : of the whole corpus.
    looked_at : number of walks used for the figures below.
    length : mean number of questions per walk.
    whole : share of walks that reached their full length.
    reached : share of the questions that occur.
    stays : share of steps that end at the question where they start.
    returns : share of a walk's questions that it has visited before.
    busiest : share of the visits that go to the most visited 1 % of the questions.
    """

    walk: str
    walks: int
    tokens: int
    digest: str
    counts: dict[str, int]
    looked_at: int
    length: float
    whole: float
    reached: float
    stays: float
    returns: float
    busiest: float

    @classmethod
    def of(cls, run: Run, walk: str) -> WalkFacts | None:
        """None if the run has no corpus of this walk."""
        folder = run.corpus(walk, run.config["seed"])
        try:
            corpus = Corpus.load(folder)
        except CorpusError:
            return None
        step = max(1, corpus.n_walks // WALKS)
        tokens = np.concatenate([shard[::step] for shard in corpus.shards])  # (walks, length)
        visits = np.bincount(tokens[(tokens >= 0) & (tokens < corpus.n_questions)], minlength=corpus.n_questions)
        asked = tokens[:, ::2] if corpus.strategy.get("keep_concepts") else tokens
        n = (asked >= 0).sum(axis=1)
        steps = (asked[:, 1:] >= 0).sum()
        ordered = np.sort(asked, axis=1)
        again = ((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)).sum()
        top = np.sort(visits)[::-1][: max(1, len(visits) // 100)]
        return cls(
            walk,
            corpus.n_walks,
            corpus.n_tokens,
            corpus.digest,
            dict(corpus.counts),
            len(tokens),
            float(n.mean()),
            float((n == asked.shape[1]).mean()),
            float((visits > 0).mean()),
            float(((asked[:, 1:] == asked[:, :-1]) & (asked[:, 1:] >= 0)).sum() / max(steps, 1)),
            float(again / max(n.sum(), 1)),
            float(top.sum() / max(visits.sum(), 1)),
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """One test student's mastery as a knowledge-tracing model estimates it, attempt by attempt.

    Attributes
    ----------
    task, label : the model, and the table of vectors that it reads.
    student : index of the student in the data set; -1 for somebody else.
    question, correct : int (attempts,), the question, and whether the answer was right.
    concepts : int64 (concepts,), the concepts that the student met, in that order.
    mastery : float (attempts + 1, concepts), probability of a right answer before the first attempt and after each.
    name : of a student who isn't in the data set.
    """

    task: str
    label: str
    student: int
    question: NDArray[np.int64]
    correct: NDArray[np.int64]
    concepts: NDArray[np.int64]
    mastery: NDArray[np.float32]
    name: str = ""

    def shown(self, bank: Bank, most: int) -> NDArray[np.int64]:
        """The ``most`` most often asked of ``concepts`` (their rows), in the order in which they were met."""
        asked = np.asarray(bank.members[self.question].sum(axis=0)).ravel()[self.concepts]  # (concepts,)
        return np.sort(np.argsort(-asked, kind="stable")[:most])


def traces(run: Run) -> list[Trace]:
    """The test students whose mastery is stored in a run (``traces/*.npz``), first seed.

    Of several tasks and tables the one with the highest figure is shown: an illustration, not a comparison.
    """
    best: tuple[float, str, dict[str, Any]] | None = None
    for task in run.config["tasks"]:
        metric = find("task", task, TASKS).metric
        for row in run.rows("training"):
            if "error" in row or row["seed"] != run.config["seed"] or not _traced(run, row, task).is_file():
                continue
            key = (row["walk"], row["trainer"], row["readout"], task, metric)
            figures = [
                r["value"]
                for r in run.rows("results")
                if (r["walk"], r["trainer"], r["readout"], r["task"], r["metric"]) == key
            ]
            if figures and (best is None or float(np.mean(figures)) > best[0]):
                best = float(np.mean(figures)), task, row
    if best is None:
        return []
    _, task, row = best
    file = _traced(run, row, task)
    arrays: dict[str, Any] = run.arrays(file.relative_to(run.path))
    label = row["trainer"] if row["walk"] in (NO_WALK, FILE) else f"{row['trainer']} on {row['walk']}"
    students = dict.fromkeys(key.partition("/")[0] for key in arrays)
    parts = ("question", "correct", "concepts", "mastery")
    sizes = len(run.table("questions.csv")), len(run.table("concepts.csv"))
    try:
        held: list[dict[str, Any]] = [{part: arrays[f"{s}/{part}"] for part in parts} for s in students]
        for one in held:
            for part, n in zip(("question", "concepts"), sizes, strict=True):
                if one[part].dtype.kind not in "iu" or not ((one[part] >= 0) & (one[part] < n)).all():
                    raise ValueError(f"{part} holds others than the {n} of the run")
            if one["mastery"].shape != (len(one["question"]) + 1, len(one["concepts"])):
                raise ValueError(f"mastery of shape {one['mastery'].shape}")
            if one["correct"].shape != one["question"].shape:
                raise ValueError(f"correct of shape {one['correct'].shape}")
        return [Trace(task, label, int(s), **one) for s, one in zip(students, held, strict=True)]
    except KeyError as error:
        raise run.damaged(file, ValueError(f"without {error}")) from None
    except ValueError as error:
        raise run.damaged(file, error) from None


def _traced(run: Run, row: Row, task: str) -> Path:
    return run.file("traces", row["walk"], row["trainer"], f"{task}--{row['readout']}", row["seed"], ".npz")
