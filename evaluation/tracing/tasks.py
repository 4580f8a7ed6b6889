"""Knowledge tracing: does an embedding help a model to predict the answers of new students?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qcq.data import TrainPart
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EvaluationError
from qcq.evaluation.areas import Pairs, balanced, decompose
from qcq.evaluation.statistics import auc_units, mean_units
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.evaluation.tracing.features import NUMBERS, Number
from qcq.support.seeds import generator
from qcq.support.settings import settings
from qcq.support.types import takes

if TYPE_CHECKING:
    from qcq.data.dataset import Interactions, Part
    from qcq.evaluation.tracing.models import Sequences, Tracer

COLD = 5  # training responses of a cold question, at most
BINS = 15  # of the calibration error
CROSSFIT_FOLDS = 5  # of training students, so that no student gets features made from their own answers
KEPT = 8  # trained models that a task caches
AHEAD = 5  # answers that auc-next-5 predicts without an answer in between
FIGURES: Mapping[str, str] = {  # of every task of knowledge tracing; docs/evaluation.md explains them
    "auc": "area under the ROC curve over all pairs of a right and a wrong answer",
    "accuracy": "share of answers predicted right at a probability of one half",
    "log-loss": "mean negative log-likelihood of the answers",
    "ece": "expected calibration error",
    "auc-cold": f"auc over questions with at most {COLD} training responses",
    "auc-unseen": "auc over questions without training responses",
    "auc-within-students": "area over the pairs of one student: whose own right and wrong answers are told apart",
    "auc-between-students": "area over the pairs of two students",
    "within-share": "share of all pairs that are within a student: auc is the mean of the two areas with this weight",
    "auc-mean-student": "plain mean of the students' own areas",
    "auc-within-questions": "area over the pairs of one question: who answers it right; 0.5 without tracing",
    "auc-balanced": "area on a sample with as many right as wrong answers of every question, in expectation",
    "auc-first": "auc over the attempts at questions that the student meets for the first time",
    "auc-next-5": "auc where each five answers are predicted at once, from those before them",
}
TableMode = Literal["frozen", "fine-tuned", "small-start"]
TABLE_MODES: Mapping[TableMode, tuple[float, bool]] = {  # scale of a table at the start, and whether it is trained
    "frozen": (1.0, False),
    "fine-tuned": (1.0, True),
    "small-start": (0.1, True),
}
EQUAL = "none: all vectors are equal"  # the way in which a table is used that tells no question from another
SHOWN = 30  # questions for the mean mastery of a concept, at most
TRACED, LONG = 3, 60  # test students whose mastery a report shows: those with the number of attempts closest to LONG


@settings
class KTSettings:
    """How the knowledge-tracing model of ``kt`` is built and trained; the same for every table.

    Parameters
    ----------
    model : ``dkt`` (an LSTM) or ``attention``.
    tables : ways to use a table; each is tried, and validation chooses the best. ``frozen``: the vectors stay as they
        are; ``fine-tuned``: a change of each vector is learnt with ``table_lr``, decaying to none with ``table_decay``;
        ``small-start``: the same, from vectors of a tenth of their size, so that useless vectors are soon outweighed.
    features : features from training students in addition to a question's vector
        (:mod:`qcq.evaluation.tracing.features`): ``difficulty``, ``popularity``, and ``rasch``, how much harder it is
        than others on its concepts, given the abilities of its students.
    hidden : width of the model.
    dropout : share of the state and of the hidden layer that is dropped in training.
    epochs, patience : number of epochs at most, and epochs without a better validation AUC after which to stop.
    lr : learning rate of the model, falling linearly.
    table_lr, table_decay : learning rate of the vectors' change, and its weight decay.
    device : where it computes: "cpu", "cuda", "mps", or "auto": the first of cuda, mps and cpu that is there. Batches
        are those of the CPU; figures differ from its by rounding and dropout.
    """

    model: Literal["dkt", "attention"] = "dkt"
    tables: tuple[TableMode, ...] = tuple(TABLE_MODES)
    features: tuple[Number, ...] = ()
    hidden: Annotated[int, Field(ge=1)] = 100
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    epochs: Annotated[int, Field(ge=1)] = 8
    patience: Annotated[int, Field(ge=1)] = 2
    lr: Annotated[float, Field(gt=0)] = 4e-3
    table_lr: Annotated[float, Field(gt=0)] = 2e-3
    table_decay: Annotated[float, Field(ge=0)] = 1.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.tables:
            raise ConfigError(f"setting tables: none given; name some of {', '.join(TABLE_MODES)}")


@settings
class KTDifficultySettings(KTSettings):
    """:class:`KTSettings` of ``kt-difficulty``."""

    features: tuple[Number, ...] = ("difficulty", "popularity")


@settings
class KTAttentionSettings(KTSettings):
    """:class:`KTSettings` of ``kt-attention``."""

    model: Literal["dkt", "attention"] = "attention"


class KT(Task):
    """The next answer of a student, predicted from the vectors of the questions and the previous answers.

    A question-level DKT (or attention) is trained on the training students; it knows a question only by its vector.
    Each way to use a table (``TABLE_MODES``) is tried; validation students choose the way and the epoch; test students
    are used once. Every attempt is predicted exactly once, the first one too. Vectors are centred, rotated to their
    principal axes and scaled as a whole, so rotating or scaling a table changes nothing. Reported per student:
    ``FIGURES``. A model is trained from the seed in the embedding's provenance.
    """

    metric = "auc"
    slices = ("auc-cold",)
    description = "the next answer of unseen students, by a DKT on the vectors; minutes per table on real data"
    tunes = False
    costly = True
    unit = "students"
    baselines = ("random", "concept-mean", "concept-onehot", "svd")
    settings = KTSettings
    figures = FIGURES
    revision = 2
    title: ClassVar[str] = "kt"

    def __init__(self, partition: Partition, plan: KTSettings | None = None) -> None:
        super().__init__(partition)
        self.plan: KTSettings = self.settled(plan)
        self.attempts = Attempts(partition, self.title)
        self._kept: dict[str, tuple[str, Tracer]] = {}

    def tracer(self, embeddings: Embeddings) -> Tracer:
        """The trained model, which can also estimate a student's mastery (``Tracer.mastery``)."""
        return self._trained(principal(self.vectors(embeddings)), self._seed(embeddings))[1]

    @takes(embeddings="Embeddings", student="int")
    def mastery(self, embeddings: Embeddings, student: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """A student's mastery of each concept that they met, before the first attempt and after each.

        Parameters
        ----------
        embeddings : the embeddings of the model; it is trained if necessary.
        student : index into ``dataset.students``.

        Returns
        -------
        concepts : indices, int64 (concepts,), in the order in which the student met them.
        mastery : float32 (attempts + 1, concepts), the mean probability of a right answer over the concept's questions,
            of at most SHOWN of them, the most answered first.
        """
        r = self.partition.dataset.interactions
        if r is None or not (mine := r.student == student).any():
            raise EvaluationError(f"student {student} of {self.partition.dataset.name} has no responses to trace")
        by_question, by_concept = self.partition.graph.weights, self.partition.graph.by_concept
        question, counts = r.question[mine], self.attempts.train.counts
        met = by_question[question].indices
        concepts = met[np.sort(np.unique(met, return_index=True)[1])].astype(np.int64)
        rows = []
        for concept in concepts:
            its = by_concept.indices[by_concept.indptr[concept] : by_concept.indptr[concept + 1]]
            rows.append(its[np.argsort(-counts[its], kind="stable")[:SHOWN]])
        asked, which = np.unique(np.concatenate(rows), return_inverse=True) if rows else (np.empty(0, np.int64), None)
        every = self.tracer(embeddings).mastery(question, r.correct[mine], asked)  # (attempts + 1, asked)
        cuts = np.cumsum([len(row) for row in rows])[:-1]
        parts = np.split(which, cuts) if which is not None else []
        return concepts, np.stack([every[:, part].mean(axis=1) for part in parts], axis=1) if parts else every

    def traces(self, embeddings: Embeddings) -> dict[str, NDArray]:
        r = self.attempts.parts["test"].interactions
        students, n = np.unique(r.student, return_counts=True)
        usual = students[np.argsort(np.abs(np.log(n / LONG)), kind="stable")][:TRACED]
        found: dict[str, NDArray] = {}
        for student in usual.tolist():
            mine = r.student == student
            concepts, mastery = self.mastery(embeddings, student)
            found |= {
                f"{student}/question": r.question[mine],
                f"{student}/correct": r.correct[mine],
                f"{student}/concepts": concepts,
                f"{student}/mastery": mastery,
            }
        return found

    def _seed(self, embeddings: Embeddings) -> int:
        return int(embeddings.provenance.get("seed", self.partition.seed))

    def _trained(self, vectors: NDArray[np.float32], seed: int) -> tuple[str, Tracer]:
        from qcq.evaluation.tracing.models import Tracer

        key = hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest() + f"/{vectors.shape}/{seed}"
        if key not in self._kept:
            found: list[tuple[float, str, Tracer]] = []
            features = self.attempts.question_features(self.plan.features)
            for way in self.plan.tables if vectors.shape[1] else self.plan.tables[:1]:  # no vectors: all ways are equal
                size, moves = TABLE_MODES[way]
                made = Tracer(np.float32(size) * vectors, features, moves and vectors.shape[1] > 0, self.plan, seed)
                made.fit(self.attempts.sequences("train"), self.attempts.sequences("validation"))
                found.append((max(made.history), way if vectors.shape[1] else EQUAL, made))
            _, used, made = max(found, key=lambda each: each[0])
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = used, made
        self._kept[key] = self._kept.pop(key)  # now the most recently used
        return self._kept[key]

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        way, tracer = self._trained(principal(self.vectors(embeddings)), self._seed(embeddings))
        sequences = self.attempts.sequences(stage)
        score = self.attempts.judge(tracer.predict(sequences), stage, tracer.predict(sequences, AHEAD))
        return Score(score.metrics, score.units, {"way": way})


class KTDifficulty(KT):
    """``kt`` with two features from the training students for each vector: the question's difficulty and popularity.

    The aim is to measure what an embedding adds to them, so the same model with only the two features is always scored
    too: ``auc-alone``. Training students get features made without their own fold, a fifth of the students. Otherwise
    the features of a rarely answered question would reveal their answer, in training only.
    """

    description = (
        "kt with train-only difficulty and popularity added to each vector; auc-alone is these two without a vector"
    )
    settings = KTDifficultySettings
    figures: ClassVar[Mapping[str, str]] = {**FIGURES, "auc-alone": "auc of the two features without a vector"}
    title = "kt-difficulty"

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        score = super().score(embeddings, stage, others)
        nothing = np.zeros((self.partition.graph.n_questions, 0), dtype=np.float32)
        _, tracer = self._trained(nothing, self._seed(embeddings))
        alone = self.attempts.judge(tracer.predict(self.attempts.sequences(stage)), stage)
        return Score(
            {**score.metrics, "auc-alone": alone.metrics["auc"]},
            {**score.units, "auc-alone": alone.units["auc"]},
            score.choices,
        )


class KTAttention(KT):
    """``kt`` with attention in place of the LSTM, to check that a gain doesn't depend on one model."""

    description = "kt with a model of another kind: attention of the next question over the attempts before it"
    settings = KTAttentionSettings
    title = "kt-attention"


class Attempts:
    """The attempts of a partition's students, the features of each question, and the scoring of predictions.

    Raises
    ------
    EvaluationError : no students, no order, or a part in which all answers are the same; the text names ``task``.
    """

    def __init__(self, partition: Partition, task: str) -> None:
        name = partition.dataset.name
        if partition.split is None:
            raise EvaluationError(f"{task}: {name} has no students; it needs who answered which question how, in order")
        self.train, self.graph = TrainPart.checked(partition.split.train), partition.graph
        self.parts: dict[str, Part] = {
            "train": self.train,
            "validation": partition.split.validation,
            "test": partition.split.test,
        }
        if not self.train.interactions.ordered:
            raise EvaluationError(f"{task}: the responses of {name} have no order; it needs one, to predict the next")
        for part, held in self.parts.items():
            right = int(held.interactions.correct.sum())
            if right in (0, len(held.interactions)):
                n = len(held.interactions)
                raise EvaluationError(
                    f"{task}: {name} has {n} {part} responses, {right} of them right; it needs right and wrong ones"
                )
        students = generator(partition.seed, "kt", "folds").permutation(self.train.students)
        self.fold = np.full(len(partition.dataset.students), CROSSFIT_FOLDS)
        self.fold[students] = np.arange(len(students)) % CROSSFIT_FOLDS
        self._sequences: dict[str, Sequences] = {}

    def sequences(self, part: str) -> Sequences:
        from qcq.evaluation.tracing.models import Sequences

        if part not in self._sequences:
            r = self.parts[part].interactions
            self._sequences[part] = Sequences(r, self.fold[r.student].astype(np.int64))
        return self._sequences[part]

    def question_features(self, features: Sequence[Number]) -> NDArray[np.float32]:
        """Features from training students: float32 (CROSSFIT_FOLDS + 1, questions, features).

        Version f leaves out the training students of fold f; the last version uses all of them. Each feature is centred
        and scaled by its mean and spread over training responses.
        """
        r, graph = self.train.interactions, self.graph
        out = np.empty((CROSSFIT_FOLDS + 1, graph.n_questions, len(features)))
        for version in range(CROSSFIT_FOLDS + 1):
            seen = r.of(self.train.students[self.fold[self.train.students] != version])
            for i, feature in enumerate(features):
                out[version, :, i] = NUMBERS[feature](seen, graph)
        met = out[CROSSFIT_FOLDS][r.question]  # (responses, features)
        return ((out - met.mean(axis=0)) / np.maximum(met.std(axis=0), 1e-9)).astype(np.float32)

    def judge(self, probability: NDArray[np.float64], stage: Stage, ahead: NDArray[np.float64] | None = None) -> Score:
        """The figures of predicted probabilities, (responses,), of a stage's responses in order.

        Parameters
        ----------
        probability : that each response is right, from all responses of the student before it.
        stage : whose responses they are.
        ahead : that each response is right, from the responses before its block of AHEAD; None: ``auc-next-5`` is left
            out.
        """
        r = self.parts[stage].interactions
        right = r.correct.astype(np.float64)
        guess = np.clip(probability, 1e-7, 1 - 1e-7)
        loss = -np.where(right > 0, np.log(guess), np.log1p(-guess))
        units = {
            "auc": auc_units(r.correct, probability, r.student),
            "accuracy": mean_units((probability >= 0.5) == (right > 0), r.student),
            "log-loss": mean_units(loss, r.student),
        }
        met = self.train.counts[r.question]
        slices = {"auc-cold": met <= COLD, "auc-unseen": met == 0, "auc-first": first_meetings(r)}
        for name, slice_ in slices.items():
            if 0 < r.correct[slice_].sum() < slice_.sum():
                units[name] = auc_units(r.correct[slice_], probability[slice_], r.student[slice_])
        taken = {
            "auc-within-students": Pairs.of(r.correct, probability, r.student),
            "auc-within-questions": Pairs.of(r.correct, probability, r.question),
            "auc-balanced": Pairs.of(r.correct, probability, weights=balanced(r.correct, r.question)),
        }
        for name, pairs in taken.items():
            if pairs.total:
                units[name] = pairs.units(r.student, inside=name == "auc-within-students")
        if ahead is not None:
            units[f"auc-next-{AHEAD}"] = auc_units(r.correct, ahead, r.student)
        found = decompose(r.correct, probability, r.student)
        whole = {"auc-between-students": found.between, "within-share": found.share, "auc-mean-student": found.mean}
        more = {name: value for name, value in whole.items() if np.isfinite(value)}
        return Score.of_units(units, ece=calibration_error(r.correct, probability), **more)


def first_meetings(responses: Interactions) -> NDArray[np.bool_]:
    """Which responses are a student's first to their question: bool (responses,).

    Only there the question itself can't have been traced; what was learnt at others has to carry over.

    Examples
    --------
    >>> from qcq.data.assembly import interactions
    >>> first_meetings(interactions([0, 0, 0, 1], [7, 8, 7, 7], [1, 0, 1, 1])).tolist()
    [True, True, False, True]
    """
    n = int(responses.question.max(initial=-1)) + 1
    first = np.zeros(len(responses), dtype=bool)
    first[np.unique(responses.student.astype(np.int64) * n + responses.question, return_index=True)[1]] = True
    return first


def calibration_error(correct: NDArray, probability: NDArray[np.float64], bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b/n |mean correct - mean probability| over ``bins`` bins of equal width.

    Examples
    --------
    >>> calibration_error(np.array([1, 0, 1, 1]), np.array([0.75, 0.75, 0.75, 0.75]))
    0.0

    References
    ----------
    Guo et al. 2017, On calibration of modern neural networks (ICML), eq. 3.
    """
    at = np.minimum((probability * bins).astype(np.int64), bins - 1)
    away = np.bincount(at, weights=correct - probability, minlength=bins)
    return float(np.abs(away).sum() / len(probability))


def principal(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred, on principal axes (the largest first), scaled as a whole to a mean square of 1: (questions, rank).

    Directions without variance are left out. The sign of an axis makes its third moment positive, so a rotated
    table gives the same rows.
    """
    x = vectors.astype(np.float64)
    x -= x.mean(axis=0)
    variance, axes = np.linalg.eigh(x.T @ x)
    rounding = 1e-15 * len(x) * float(np.abs(vectors).max(initial=0.0)) ** 2  # what is left of equal rows is less
    kept = np.flatnonzero(variance > 1e-9 * max(variance.max(initial=0.0), rounding))[::-1]
    x = x @ axes[:, kept]
    x *= np.where((x**3).sum(axis=0) < 0, -1, 1)
    return (x / (np.sqrt((x**2).mean()) if x.size else 1.0)).astype(np.float32)
