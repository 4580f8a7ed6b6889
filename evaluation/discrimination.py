"""How well does the question discriminate between students? Regressed from its vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.evaluation.regression import Regression


class Discrimination(Regression):
    """A question's item-rest correlation among training students, predicted from the vector by ridge regression.

    The item-rest correlation of question q is the correlation of the answers to q with the same students' results on
    other questions. A student's result is the mean, over their answers to other questions, of the answer minus the
    question's share of right answers, so that students with hard questions don't count as weak. Only questions with at
    least twenty training responses, both right and wrong ones, are used. Split, fitted and reported as in
    ``difficulty``.

    References
    ----------
    Lord & Novick 1968, Statistical theories of mental test scores, sec. 15.3 (item-test correlations, here without the
    item itself).
    """

    metric = "r2"
    description = (
        "item-rest correlation among training students, regressed from the vectors of other questions; a noisy target"
    )
    tunes = False
    name = "discrimination"
    least = 20

    def target(self, train: TrainPart) -> NDArray[np.float64]:
        r, n = train.interactions, len(train.dataset.questions)
        if len(r) == 0:
            return np.full(n, np.nan)

        def mean(values: NDArray) -> NDArray[np.float64]:  # over the responses to each question
            return np.bincount(r.question, weights=values, minlength=n) / np.maximum(train.counts, 1)

        rest = r.correct - mean(r.correct)[r.question]
        # A student's result on other questions: all their answers except those to this question (it may have several).
        _, pair = np.unique(r.student.astype(np.int64) * n + r.question, return_inverse=True)
        own, times = np.bincount(pair, weights=rest)[pair], np.bincount(pair)[pair]
        all_, many = np.bincount(r.student, weights=rest)[r.student], np.bincount(r.student)[r.student]
        elsewhere = (all_ - own) / np.maximum(many - times, 1)
        away = elsewhere - mean(elsewhere)[r.question]
        spread = np.sqrt(mean(rest**2) * mean(away**2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 1e-12, mean(rest * away) / spread, np.nan)
