"""Knowledge tracing without question vectors: the baselines that every table has to be compared with.

Each learns from the training students, chooses its penalty on the validation students and predicts everybody's answers
from those before. None sees a vector, so the figures of ``kt-baselines`` are the same beside every table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.evaluation.tracing.features import PRIOR
from qcq.evaluation.tracing.tasks import AHEAD, Attempts
from qcq.support.settings import settings

PENALTIES = (0.1, 1.0, 10.0)  # inverse strengths of the ridge, tried on validation
NODES = 21  # of the quadrature over abilities
REACH = 4.0  # of the quadrature, in standard deviations
SLOPE, SLOPE_SPREAD = 1.0, 0.5  # prior of a question's slope
EASE_SPREAD = 2.0  # prior of a question's ease around the mean ease, standard deviation in log-odds
ROUNDS, ENOUGH = 60, 1e-3  # of EM, and the largest change at which it stops
SIMILAR = (1, 3, 10)  # training students that ``similar-students`` looks up, tried on validation

Name = Literal["question-mean", "rasch", "2pl", "2pl-history", "bkt", "pfa", "best-lr", "similar-students"]


class Baseline(ABC):
    """A model of answers that knows students, questions and their concepts, and no vectors.

    Parameters
    ----------
    attempts : whose training part it learns from, and whose validation part chooses its penalty.
    """

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts

    @abstractmethod
    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        """Probability that each response of a part is right, (responses,), from the student's responses before its
        block of ``ahead``."""

    def loss(self, part: str) -> float:
        """Mean negative log-likelihood of a part's answers."""
        right = self.attempts.parts[part].interactions.correct > 0
        guess = np.clip(self.predict(part), 1e-7, 1 - 1e-7)
        return float(-np.where(right, np.log(guess), np.log1p(-guess)).mean())


class QuestionMean(Baseline):
    """The share of right answers to the question among training students, drawn to the overall share by a prior of
    PRIOR responses: (right + PRIOR p) / (n + PRIOR). It knows nothing of the student."""

    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        train = self.attempts.train.interactions
        p, n = train.correct.mean(), self.attempts.train.counts
        right = np.bincount(train.question, train.correct, len(n))
        return ((right + PRIOR * p) / (n + PRIOR))[self.attempts.parts[part].interactions.question]


class ItemResponse(Baseline):
    """Item response theory: logit P(right) = slope_q θ + ease_q, with θ ~ N(0, 1) over students.

    Fitted on training students by marginal maximum a posteriori: EM over a quadrature of θ, with a Newton step per
    round on the parameters of every question (Bock & Aitkin 1981). With ``slopes`` False all questions share one slope
    (Rasch).

    A new student's ability isn't known. Without ``history`` it stays N(0, 1) for every answer, so the prediction is the
    question's mean over students, allowing for who answered it: no tracing. With ``history`` it is the posterior
    after the answers before, for one ability that doesn't change.

    References
    ----------
    Rasch 1960, Probabilistic models for some intelligence and attainment tests; Bock & Aitkin 1981, Marginal maximum
    likelihood estimation of item parameters (Psychometrika 46); Wilson et al. 2016, Back to the basics: Bayesian
    extensions of IRT outperform neural networks for proficiency estimation (EDM), for the posterior as a tracer.
    """

    slopes: ClassVar[bool] = False
    history: ClassVar[bool] = False

    @cached_property
    def nodes(self) -> NDArray[np.float64]:
        """Abilities of the quadrature: (NODES,)."""
        return np.linspace(-REACH, REACH, NODES)

    @cached_property
    def prior(self) -> NDArray[np.float64]:
        """Weight of each node, N(0, 1): (NODES,)."""
        weight = np.exp(-(self.nodes**2) / 2)
        return weight / weight.sum()

    @cached_property
    def parameters(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope and ease of every question: (questions,) each."""
        from scipy.special import expit, log_expit

        r, n = self.attempts.train.interactions, len(self.attempts.train.counts)
        student = np.unique(r.student, return_inverse=True)[1]
        shape = (int(student.max()) + 1, n)
        right = scipy.sparse.csr_array((r.correct.astype(np.float64), (student, r.question)), shape=shape)
        every = scipy.sparse.csr_array((np.ones(len(r)), (student, r.question)), shape=shape)
        wrong = every - right
        middle = float(np.log((r.correct.sum() + 1) / (len(r) - r.correct.sum() + 1)))
        slope, ease, x = np.full(n, SLOPE), np.full(n, middle), self.nodes
        for _ in range(ROUNDS):
            logit = slope[:, None] * x + ease[:, None]  # (questions, nodes)
            said = right @ log_expit(logit) + wrong @ log_expit(-logit) + np.log(self.prior)  # (students, nodes)
            belief = np.exp(said - said.max(axis=1, keepdims=True))
            belief /= belief.sum(axis=1, keepdims=True)
            seen, good = every.T @ belief, right.T @ belief  # (questions, nodes)
            p = expit(logit)
            up, bend = good - seen * p, seen * p * (1 - p)
            g = np.stack([up.sum(axis=1) - (ease - middle) / EASE_SPREAD**2, up @ x])
            h = np.stack([bend.sum(axis=1) + EASE_SPREAD**-2, bend @ x, bend @ x**2])
            g[1] -= (slope - SLOPE) / SLOPE_SPREAD**2
            h[2] += SLOPE_SPREAD**-2
            if self.slopes:
                size = h[0] * h[2] - h[1] ** 2
                step = np.stack([(h[2] * g[0] - h[1] * g[1]) / size, (h[0] * g[1] - h[1] * g[0]) / size])
            else:  # one slope: the others' steps are eliminated
                own = (up @ x).sum() - (slope[0] - SLOPE) / SLOPE_SPREAD**2
                whole = (bend @ x**2).sum() + SLOPE_SPREAD**-2 - (h[1] ** 2 / h[0]).sum()
                common = (own - (h[1] * g[0] / h[0]).sum()) / whole
                step = np.stack([(g[0] - h[1] * common) / h[0], np.full(n, common)])
            step = np.clip(step, -1, 1)
            ease, slope = ease + step[0], slope + step[1]
            if np.abs(step).max() < ENOUGH:
                break
        return slope, ease

    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        from scipy.special import expit, log_expit

        r = self.attempts.parts[part].interactions
        slope, ease = self.parameters
        logit = slope[:, None] * self.nodes + ease[:, None]
        if not self.history:
            return (expit(logit) @ self.prior)[r.question]
        said = np.where(r.correct[:, None] > 0, log_expit(logit)[r.question], log_expit(-logit)[r.question])
        total = np.vstack([np.zeros(NODES), np.cumsum(said, axis=0)])  # (responses + 1, nodes)
        begin, block = blocks(r, ahead)
        known = total[block] - total[begin] + np.log(self.prior)
        belief = np.exp(known - known.max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
        return (belief * expit(logit)[r.question]).sum(axis=1)


class TwoParameter(ItemResponse):
    """:class:`ItemResponse` with a slope for each question, without history."""

    slopes = True


class TwoParameterHistory(TwoParameter):
    """:class:`ItemResponse` with a slope for each question and the ability's posterior from the answers so far."""

    history = True


class Logistic(Baseline):
    """Logistic regression with a ridge on sparse features, by scikit-learn; its strength is chosen on validation.

    Features are made of counts of the answers before, scaled by φ(n) = log(1 + n).
    """

    def features(self, part: str, ahead: int = 1) -> scipy.sparse.csr_array:
        """(responses, features)."""
        r, graph = self.attempts.parts[part].interactions, self.attempts.graph
        return scipy.sparse.hstack(self.columns(r, scipy.sparse.csr_array(graph.weights > 0), ahead)).tocsr()

    @abstractmethod
    def columns(
        self, responses: Interactions, concepts: scipy.sparse.csr_array, ahead: int
    ) -> list[scipy.sparse.sparray]:
        """Blocks of features, (responses, ·) each; ``concepts`` bool (questions, concepts)."""

    @cached_property
    def fitted(self) -> tuple[NDArray[np.float64], float]:
        """Weights and constant that are best on validation, by log-loss."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        x, held = self.features("train"), self.features("validation")
        y = self.attempts.train.interactions.correct
        truth = 2.0 * self.attempts.parts["validation"].interactions.correct - 1
        found = []
        for strength in PENALTIES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a baseline decide nothing
                model = LogisticRegression(C=strength, max_iter=300, tol=1e-4).fit(x, y)
            weight, constant = model.coef_[0], float(model.intercept_[0])
            loss = np.logaddexp(0, -truth * (held @ weight + constant)).mean()
            found.append((float(loss), weight, constant))
        _, weight, constant = min(found, key=lambda each: each[0])
        return weight, constant

    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        from scipy.special import expit

        weight, constant = self.fitted
        return expit(self.features(part, ahead) @ weight + constant)


class PFA(Logistic):
    """Performance factors: logit = Σ over the question's concepts c of β_c + γ_c φ(s_c) + ρ_c φ(f_c), with s_c and f_c
    the student's right and wrong answers so far to questions on c. It doesn't know the question itself.

    References
    ----------
    Pavlik, Cen & Koedinger 2009, Performance factors analysis (AIED), eq. 3, whose counts aren't scaled; φ as in Gervet
    et al. 2020.
    """

    def columns(
        self, responses: Interactions, concepts: scipy.sparse.csr_array, ahead: int
    ) -> list[scipy.sparse.sparray]:
        own = concepts[responses.question].astype(np.float64).tocsr()  # (responses, concepts)
        right, wrong = by_concept(responses, own, ahead)
        return [own, right, wrong]


class BestLR(Logistic):
    """Logistic regression on counts: the question, its concepts, and φ of right answers and of attempts so far, per
    concept (with weights of their own), to this question, and in all.

    References
    ----------
    Gervet, Koedinger, Schneider & Mitchell 2020, When is deep learning the best approach to knowledge tracing? (JEDM
    12), Best-LR without time windows (https://github.com/theophilegervet/learner-performance-prediction).
    """

    def columns(
        self, responses: Interactions, concepts: scipy.sparse.csr_array, ahead: int
    ) -> list[scipy.sparse.sparray]:
        r, n = responses, concepts.shape[0]
        own = concepts[r.question].astype(np.float64).tocsr()
        right, wrong = by_concept(r, own, ahead)
        attempts = right.copy()
        attempts.data = np.log1p(np.expm1(right.data) + np.expm1(wrong.data))
        at = np.arange(len(r))
        asked = scipy.sparse.csr_array((np.ones(len(r)), (at, r.question)), shape=(len(r), n))
        dense = []
        for key in (r.student.astype(np.int64) * n + r.question, r.student.astype(np.int64)):
            seen, good = before(key, at, r.correct, blocks(r, ahead)[1])
            dense += [np.log1p(good), np.log1p(seen)]
        return [asked, own, right, attempts, scipy.sparse.csr_array(np.stack(dense, axis=1))]


@dataclass(frozen=True, eq=False)
class Mastery:
    """Parameters of Bayesian knowledge tracing, (skills,) each.

    Attributes
    ----------
    known : probability that a student knows the skill at first, P(L_0).
    learnt : that it is learnt at an attempt, P(T).
    guess, slip : of a right answer without knowing it, and of a wrong one knowing it, P(G) and P(S).
    """

    known: NDArray[np.float64]
    learnt: NDArray[np.float64]
    guess: NDArray[np.float64]
    slip: NDArray[np.float64]


class BKT(Baseline):
    """Bayesian knowledge tracing: a hidden Markov model per skill; a skill is known or not, and never forgotten.

        P(right) = P(L)(1 - slip) + (1 - P(L)) guess,   P(L) ← P(L | answer) + (1 - P(L | answer)) learnt

    A skill is a set of concepts, so a question with several has one skill. The parameters are fitted by EM on training
    students, those of a skill drawn by DRAWN pseudo-attempts to those of all skills together, with guess and slip at
    most one half. It doesn't know the question itself, nor that skills have to do with one another. Attempts in between
    whose answers aren't known yet count as chances to learn.

    References
    ----------
    Corbett & Anderson 1994, Knowledge tracing: modeling the acquisition of procedural knowledge (UMUAI 4).
    """

    DRAWN = 4.0
    START = (0.4, 0.15, 0.3, 0.1)  # known, learnt, guess, slip
    ROUNDS, ENOUGH = 60, 1e-4

    @cached_property
    def skills(self) -> NDArray[np.int64]:
        """Skill of each question: int64 (questions,)."""
        w = scipy.sparse.csr_array(self.attempts.graph.weights > 0)
        w.sort_indices()
        index: dict[bytes, int] = {}
        rows = (w.indices[a:b].tobytes() for a, b in zip(w.indptr[:-1], w.indptr[1:], strict=True))
        return np.array([index.setdefault(row, len(index)) for row in rows], dtype=np.int64)

    def sequences(self, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Responses of a part, those of one student to one skill together and in order: their places, (responses,), and
        where each sequence begins, (sequences,)."""
        r = self.attempts.parts[part].interactions
        skill = self.skills[r.question]
        order = np.lexsort((np.arange(len(r)), skill, r.student))
        new = (np.diff(r.student[order]) != 0) | (np.diff(skill[order]) != 0)
        return order, np.flatnonzero(np.r_[True, new])

    def filtered(
        self, mastery: Mastery, skill: NDArray[np.int64], right: NDArray[np.bool_], begin: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """P(L) before and after each answer of sequences that lie one after another: (responses,) each."""
        expected, told = np.empty(len(right)), np.empty(len(right))
        for at, first in self._steps(begin, len(right)):
            s = skill[at]
            belief = mastery.known[s]
            if not first:
                belief = told[at - 1] + (1 - told[at - 1]) * mastery.learnt[s]
            if_known = np.where(right[at], 1 - mastery.slip[s], mastery.slip[s])
            if_not = np.where(right[at], mastery.guess[s], 1 - mastery.guess[s])
            expected[at] = belief
            told[at] = belief * if_known / (belief * if_known + (1 - belief) * if_not)
        return expected, told

    @staticmethod
    def _steps(begin: NDArray[np.int64], n: int) -> list[tuple[NDArray[np.int64], bool]]:
        """Places of the first answers of all sequences, then of their second ones, and so on."""
        length = np.diff(np.r_[begin, n])
        order = np.argsort(-length, kind="stable")
        begin, length = begin[order], length[order]
        return [(begin[: np.searchsorted(-length, -t)] + t, t == 0) for t in range(int(length.max(initial=0)))]

    @cached_property
    def mastery(self) -> Mastery:
        """The fitted parameters."""
        order, begin = self.sequences("train")
        r = self.attempts.train.interactions
        skill, right = self.skills[r.question][order], r.correct[order] > 0
        n = int(self.skills.max(initial=0)) + 1
        last = np.zeros(len(right), dtype=bool)
        last[np.r_[begin[1:], len(right)] - 1] = True
        now = Mastery(*(np.full(n, value) for value in self.START))
        steps = self._steps(begin, len(right))[::-1]
        for _ in range(self.ROUNDS):
            expected, told = self.filtered(now, skill, right, begin)
            smooth, moved = told.copy(), np.zeros(len(right))
            for at, _ in steps:  # the last answers first
                at = at[~last[at]]
                share = smooth[at + 1] / expected[at + 1]  # P(known next | all answers) over that before the next one
                smooth[at] = told[at] * share
                moved[at] = (1 - told[at]) * now.learnt[skill[at]] * share
            drawn = [
                (skill[begin], smooth[begin], np.ones(len(begin))),
                (skill[~last], moved[~last], 1 - smooth[~last]),
                (skill, (1 - smooth) * right, 1 - smooth),
                (skill, smooth * ~right, smooth),
            ]
            found = []
            for of, hits, chances in drawn:
                mean = hits.sum() / max(chances.sum(), 1e-9)
                up, down = np.bincount(of, hits, n), np.bincount(of, chances, n)
                found.append((up + self.DRAWN * mean) / (down + self.DRAWN))
            made = Mastery(found[0], found[1], np.minimum(found[2], 0.5), np.minimum(found[3], 0.5))
            change = max(
                float(np.abs(a - b).max()) for a, b in zip(vars(made).values(), vars(now).values(), strict=True)
            )
            now = made
            if change < self.ENOUGH:
                break
        return now

    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        r = self.attempts.parts[part].interactions
        order, begin = self.sequences(part)
        skill = self.skills[r.question][order]
        expected, _ = self.filtered(self.mastery, skill, r.correct[order] > 0, begin)
        key = r.student.astype(np.int64) * (int(self.skills.max(initial=0)) + 1) + self.skills[r.question]
        seen = before(key, np.arange(len(r)), r.correct, blocks(r, ahead)[1])[0][order]
        place = np.arange(len(r)) - np.repeat(begin, np.diff(np.r_[begin, len(r)]))  # in its sequence
        belief = expected[np.arange(len(r)) - place + seen]  # before the first answer that isn't known yet
        belief = 1 - (1 - belief) * (1 - self.mastery.learnt[skill]) ** (place - seen)
        out = np.empty(len(r))
        out[order] = belief * (1 - self.mastery.slip[skill]) + (1 - belief) * self.mastery.guess[skill]
        return out


class Nearest(Logistic):
    """:class:`SimilarStudents` with a number of neighbours that is given.

    Parameters
    ----------
    attempts : as for every baseline.
    k : how many training students are looked up.
    """

    def __init__(self, attempts: Attempts, k: int) -> None:
        super().__init__(attempts)
        self.k = k

    @cached_property
    def answers(self) -> scipy.sparse.csr_array:
        """The mean of each training student's answers (±1) to each question: (questions, students); it may be 0."""
        r, n = self.attempts.train.interactions, len(self.attempts.train.counts)
        student = np.unique(r.student, return_inverse=True)[1]
        shape = (n, int(student.max()) + 1)
        often, mean = (
            scipy.sparse.csr_array((each, (r.question, student)), shape=shape)
            for each in (np.ones(len(r)), 2.0 * r.correct - 1)
        )
        for each in (often, mean):
            each.sum_duplicates()
            each.sort_indices()
        mean.data /= often.data
        return mean

    def columns(
        self, responses: Interactions, concepts: scipy.sparse.csr_array, ahead: int
    ) -> list[scipy.sparse.sparray]:
        from scipy.special import logit

        from qcq.evaluation.tracing.similar import nearest

        r, train = responses, self.attempts.train.interactions
        mean = self.answers
        size, of = mean.shape
        begin, block = blocks(r, ahead)
        first = np.unique(begin)
        places = np.unique(train.student)
        own = np.searchsorted(places, r.student[first])
        own = np.where(places[np.minimum(own, of - 1)] == r.student[first], own, -1)
        signs = 2.0 * r.correct - 1
        theirs = (mean.indptr, mean.indices, mean.data, of)
        similarity, answers = nearest(np.r_[first, len(r)], block, r.question, signs, own, *theirs, self.k)
        mine = np.repeat(own >= 0, np.diff(np.r_[first, len(r)]))
        key = r.student.astype(np.int64) * size + r.question
        student, pair = (np.unique(each, return_inverse=True)[1] for each in (r.student, key))

        def others(theirs: NDArray, own: NDArray) -> tuple[NDArray, NDArray]:
            """Sum over training students' answers to each response's question, and over all; without one's own."""
            to_it = np.bincount(train.question, theirs, size)[r.question] - mine * np.bincount(pair, own)[pair]
            return to_it, theirs.sum() - mine * np.bincount(student, own)[student]

        right, every_right = others(train.correct, r.correct)
        asked, every = others(np.ones(len(train)), np.ones(len(r)))
        usual = (every_right + 1) / (every + 2)
        share = (right + PRIOR * usual) / (asked + PRIOR)
        seen, good = before(r.student.astype(np.int64), np.arange(len(r)), r.correct, block)
        weight = np.log1p(similarity)
        found = (weight * (answers + 1) / 2).sum(axis=1) + PRIOR * share
        shares = share, (good + PRIOR * usual) / (seen + PRIOR), found / (weight.sum(axis=1) + PRIOR)
        return [scipy.sparse.csr_array(logit(np.stack(shares, axis=1)))]


class SimilarStudents(Baseline):
    """Logistic regression on three numbers, each the log-odds of a share: how many training students answered the
    question right (``question-mean``), how many answers of the student so far are right, and what the k most similar
    training students answered to the question; validation chooses k among SIMILAR.

    The similarity of two students is the sum of products of their answers (±1) to the same questions: agreements less
    disagreements, of the student's answers before the moment and the mean answers of the training student. Neighbours
    are training students who answered the question and whose similarity s is above 0. Their answers have weight
    log(1 + s) and are drawn to the share of the question by a prior of PRIOR. A training student's row leaves that
    student out of all that comes from training students.

    It is the simplest tracer of a family that retrieves similar students. Where one person has two identifiers, one in
    training and one in the test, it finds the person's own answers. Compare its figures with and without duplicates
    (``qcq.without_duplicates``).
    """

    @cached_property
    def nearest(self) -> Nearest:
        """The model whose k is best on validation, by log-loss."""
        return min((Nearest(self.attempts, k) for k in SIMILAR), key=lambda model: model.loss("validation"))

    def predict(self, part: str, ahead: int = 1) -> NDArray[np.float64]:
        return self.nearest.predict(part, ahead)


def blocks(responses: Interactions, ahead: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each response's student begins, and where its block of ``ahead`` responses does: int64 (responses,)."""
    at = np.arange(len(responses))
    first = np.r_[True, responses.student[1:] != responses.student[:-1]]
    begin = np.maximum.accumulate(np.where(first, at, 0))
    return begin, at - (at - begin) % ahead


def before(
    key: NDArray[np.int64], at: NDArray[np.int64], right: NDArray, until: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many entries of the same key stand at earlier places than ``until``, and how many of them are right.

    Parameters
    ----------
    key : of each entry, at least 0, (entries,).
    at : place of each entry in the responses; an entry's ``until`` is at most its own place.
    right : 0 or 1.
    until : the place from which on nothing is counted.
    """
    n = int(at.max(initial=-1)) + 1
    place = key * n + at
    order = np.argsort(place, kind="stable")
    place, good = place[order], np.r_[0, np.cumsum(right[order], dtype=np.int64)]
    low, high = np.searchsorted(place, key * n), np.searchsorted(place, key * n + until)
    return high - low, good[high] - good[low]


def by_concept(
    responses: Interactions, own: scipy.sparse.csr_array, ahead: int
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """φ of the right and of the wrong answers so far on each concept of the question: (responses, concepts) each, with
    the pattern of ``own``."""
    at = np.repeat(np.arange(len(responses)), np.diff(own.indptr))
    key = responses.student.astype(np.int64)[at] * own.shape[1] + own.indices
    seen, good = before(key, at, responses.correct[at], blocks(responses, ahead)[1][at])
    right, wrong = own.copy(), own.copy()
    right.data, wrong.data = np.log1p(good), np.log1p(seen - good)
    return right, wrong


BASELINES: Mapping[Name, type[Baseline]] = {
    "question-mean": QuestionMean,
    "rasch": ItemResponse,
    "2pl": TwoParameter,
    "2pl-history": TwoParameterHistory,
    "bkt": BKT,
    "pfa": PFA,
    "best-lr": BestLR,
    "similar-students": SimilarStudents,
}


@settings
class KTBaselinesSettings:
    """Which baselines ``kt-baselines`` scores.

    Parameters
    ----------
    models : names of baselines: ``question-mean``, ``rasch`` and ``2pl`` (item response theory without tracing),
        ``2pl-history``, ``bkt``, ``pfa``, ``best-lr``, ``similar-students``.
    """

    models: tuple[Name, ...] = tuple(BASELINES)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError(f"setting models: none given; name some of {', '.join(BASELINES)}")


class KTBaselines(Task):
    """The next answer of a student without any vectors: baselines, scored as ``kt`` scores a table.

    Share of right answers per question, Rasch and two-parameter item response theory without tracing, the latter with
    an ability from the answers so far, BKT, PFA, Best-LR, and a tracer that looks up similar training students. They
    learn from training students, and validation chooses their penalties. Reported: every figure of ``kt`` for each of
    them, as ``MODEL/FIGURE``, and ``auc`` of the one that has the best validation AUC. The figures are the same for
    every table.
    """

    metric = "auc"
    unit = "students"
    description = (
        "the next answer of unseen students without vectors: question means, IRT, BKT, PFA, Best-LR, similar ones"
    )
    tunes = False
    costly = True
    of_tables = False
    revision = 2
    settings = KTBaselinesSettings
    figures: ClassVar[Mapping[str, str]] = {
        "auc": "of the baseline with the best validation AUC",
        "MODEL/FIGURE": "of kt-baselines: every figure of kt for each of its models",
    }

    def __init__(self, partition: Partition, plan: KTBaselinesSettings | None = None) -> None:
        super().__init__(partition)
        plan = self.settled(plan)
        self.attempts = Attempts(partition, "kt-baselines")
        self.models: dict[str, Baseline] = {name: BASELINES[name](self.attempts) for name in plan.models}
        self._found: dict[Stage, dict[str, Score]] = {}

    def scores(self, stage: Stage) -> Mapping[str, Score]:
        """The score of every baseline, by name."""
        if stage not in self._found:
            self._found[stage] = {
                name: self.attempts.judge(model.predict(stage), stage, model.predict(stage, AHEAD))
                for name, model in self.models.items()
            }
        return self._found[stage]

    @cached_property
    def best(self) -> str:
        """The baseline with the best AUC on validation."""
        found = self.scores("validation")
        return max(found, key=lambda name: found[name].metrics["auc"])

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        self.vectors(embeddings)  # those of other questions are refused, as by every task
        found = self.scores(stage)
        metrics = {"auc": found[self.best].metrics["auc"]}
        units = {"auc": found[self.best].units["auc"]}
        for name, score in found.items():
            metrics |= {f"{name}/{figure}": value for figure, value in score.metrics.items()}
            units |= {f"{name}/{figure}": value for figure, value in score.units.items()}
        return Score(metrics, units, {"model": self.best})
