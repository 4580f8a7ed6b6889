"""Which questions of a run are like a given one, with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcq.data import Dataset
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EmbeddingError, UnknownNameError
from qcq.models.inference import opened
from qcq.run import Run
from qcq.support.words import several

FEW = 10  # answers where nobody says how many
TIE = 1e-6  # cosines closer than this are equal but for rounding


@dataclass(frozen=True)
class Alike:
    """A question and why it is like another one.

    Attributes
    ----------
    question, name : identifier and readable name, where there is one.
    similarity : cosine of the vectors.
    tied : whether another question of the answer, or the next one after it, is exactly as similar.
    concepts : its concepts' names.
    shared : those of them that the other question has too.
    difficulty, harder_by : share of wrong answers among training students, and how much more than the other question's;
        None where nobody answered one of them.
    answered_both : training students who answered both; None where the data aren't at hand.
    """

    question: str
    name: str
    similarity: float
    tied: bool
    concepts: tuple[str, ...]
    shared: tuple[str, ...]
    difficulty: float | None
    harder_by: float | None
    answered_both: int | None


def similar(
    run: Run,
    question: str,
    k: int | None = None,
    *,
    trainer: str | None = None,
    walk: str | None = None,
    level: str | None = None,
    concept: str | None = None,
    not_concept: str | None = None,
    unseen_by: str | None = None,
    data: Dataset | None = None,
) -> list[Alike]:
    """The questions of a run that are most like ``question``, best first.

    Parameters
    ----------
    k : how many; by default ten, or all that are left.
    trainer, walk : whose vectors; by default those of the trainer that is best on validation.
    level : ``easier`` or ``harder`` than the question, by the share of wrong answers among training students.
    concept, not_concept : identifier or name of a concept that the answer must have, or must not have.
    unseen_by : a student; questions that the student answered are left out. It needs ``data``.
    data : the run's data set, for ``unseen_by`` and for how many students answered both.

    Raises
    ------
    UnknownNameError : no such question, concept, student or trainer.
    EmbeddingError : fewer questions are left than ``k``, or none; the question has a vector of zeros, or all questions
        have the same.
    ConfigError : a difficulty is asked for where nobody answered, or ``data`` aren\'t those of the run.
    """
    name, on = run.best(walk, trainer)
    emb = run.embeddings(name, walk=on)
    if question not in emb:
        raise UnknownNameError("question", question, emb.ids)
    bank = _Bank.read(run)
    at = emb.index[question]
    where = np.ones(len(emb), dtype=bool)
    filters = []
    for given, wanted in ((concept, True), (not_concept, False)):
        if given is not None:
            where &= bank.tests(given) == wanted
            filters.append(f"{'with' if wanted else 'without'} the concept {given}")
    if level is not None:
        if bank.difficulty is None or np.isnan(bank.difficulty[at]):
            raise ConfigError(f"{question!r} has no training answers, so no difficulty; leave out --{level}")
        with np.errstate(invalid="ignore"):
            own = bank.difficulty[at]
            where &= bank.difficulty > own if level == "harder" else bank.difficulty < own
        filters.append(level)
    if data is not None and tuple(data.questions) != tuple(emb.ids):  # answers are found by the question's row
        raise ConfigError(f"{run.path}: its data have changed since: other questions, or another order; make it anew")
    if unseen_by is not None:
        where &= ~_seen(data, unseen_by)
        filters.append(f"not answered by {unseen_by}")
    where[at] = False
    own_concepts = set(bank.of(at))
    out = []
    for other, cosine, tied in _nearest(emb, question, k, where, filters):
        i = emb.index[other]
        difficulty = bank.hard(i)
        asked = bank.hard(at)
        out.append(
            Alike(
                other,
                bank.names[i],
                cosine,
                tied,
                bank.of(i),
                tuple(c for c in bank.of(i) if c in own_concepts),
                difficulty,
                None if difficulty is None or asked is None else difficulty - asked,
                None if data is None else _both(data, run, at, i),
            )
        )
    return out


def similar_in(table: Embeddings, question: str, k: int | None = None) -> list[Alike]:
    """The questions of a table that are most like ``question``, best first.

    Concepts are known where the table has a model beside it; names, difficulties and answers aren't.

    Parameters
    ----------
    table : vectors of any origin.
    k : how many; by default ten, or all there are.

    Raises
    ------
    UnknownNameError : no such question.
    EmbeddingError : fewer questions than ``k``, or no other one; the question has a vector of zeros, or all questions
        have the same.
    """
    if question not in table:
        raise UnknownNameError("question", question, table.ids)
    model = opened(table)
    where = np.ones(len(table), dtype=bool)
    where[table.index[question]] = False
    sets = {} if model is None else model.concepts
    own = set(sets.get(question, ()))
    return [
        Alike(other, "", cosine, tied, its := sets.get(other, ()), tuple(c for c in its if c in own), None, None, None)
        for other, cosine, tied in _nearest(table, question, k, where, [])
    ]


def _nearest(
    table: Embeddings, question: str, k: int | None, where: NDArray[np.bool_], filters: list[str]
) -> Iterator[tuple[str, float, bool]]:
    """The nearest questions among ``where``, their cosines, and whether another one of them is exactly as near."""
    left, by = int(where.sum()), f" {', '.join(filters)}" if filters else ""
    if left == 0:
        raise EmbeddingError(f"no other question{by}; {'loosen the filter' if filters else 'give a larger bank'}")
    if k is not None and left < k:
        raise EmbeddingError(f"{several(left, 'other question')}{by}, {k:,} asked for; take -k {left}")
    k = min(FEW, left) if k is None else k
    found = table.nearest(question, min(k + 1, left), where=where)
    cosines = np.array([s for _, s in found])
    for other, cosine in found[:k]:
        yield other, cosine, bool((np.abs(cosines - cosine) < TIE).sum() > 1)


def _seen(data: Dataset | None, student: str) -> NDArray[np.bool_]:
    """bool (questions,): what a student answered."""
    if data is None or data.interactions is None:
        raise ConfigError("--unseen-by needs the answers of students; the run's data have none, or aren't at hand")
    if student not in data.students:
        raise UnknownNameError("student", student, data.students)
    seen = np.zeros(len(data.questions), dtype=bool)
    seen[data.interactions.question[data.interactions.student == list(data.students).index(student)]] = True
    return seen


def _both(data: Dataset, run: Run, one: int, other: int) -> int | None:
    """How many training students answered both questions."""
    if data.interactions is None:
        return None
    config = run.config
    fold = (config["fold"], config["folds"]) if config.get("folds", 1) > 1 else None
    seen = data.split(config["seed"], fold=fold).train.interactions
    return len(np.intersect1d(seen.student[seen.question == one], seen.student[seen.question == other]))


@dataclass(frozen=True, eq=False)
class _Bank:
    """What a run folder says of its questions."""

    names: list[str]
    concept_ids: list[str]
    concept_names: list[str]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    difficulty: NDArray[np.float64] | None

    @classmethod
    def read(cls, run: Run) -> _Bank:

        questions, concepts = run.table("questions.csv"), run.table("concepts.csv")
        held = run.edges()
        difficulty, indptr, indices = held.get("difficulty"), held["indptr"], held["indices"]
        ids = concepts["concept"].to_list()
        labels = [name or own for own, name in zip(ids, concepts["name"].to_list(), strict=True)]
        return cls([name or "" for name in questions["name"].to_list()], ids, labels, indptr, indices, difficulty)

    def of(self, question: int) -> tuple[str, ...]:
        """The names of a question's concepts."""
        return tuple(self.concept_names[c] for c in self.indices[self.indptr[question] : self.indptr[question + 1]])

    def hard(self, question: int) -> float | None:
        """The share of wrong answers of training students, None where there are none."""
        if self.difficulty is None or np.isnan(self.difficulty[question]):
            return None
        return float(self.difficulty[question])

    def tests(self, concept: str) -> NDArray[np.bool_]:
        """bool (questions,): which questions have a concept, called by its identifier or name."""
        found = [i for i, both in enumerate(zip(self.concept_ids, self.concept_names, strict=True)) if concept in both]
        if not found:
            raise UnknownNameError("concept", concept, {*self.concept_ids, *self.concept_names})
        owner = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        out = np.zeros(len(self.indptr) - 1, dtype=bool)
        out[owner[np.isin(self.indices, found)]] = True
        return out
