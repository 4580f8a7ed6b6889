"""How hard is the question? Regressed from its vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcq.data import TrainPart
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.task import STAGES, Problem, Score, Stage, Task
from qcq.seeds import generator

LEAST = 5  # training responses that a question needs for its difficulty to be worth predicting
FEWEST = 20  # such questions that a data set needs
PENALTIES = np.logspace(-5, 2, 15)  # candidates of the ridge penalty, per training question


class Difficulty(Task):
    """The share of training students' wrong answers, predicted from the vector by ridge regression.

    Questions with at least five training responses are divided 60/20/20: the ridge is fitted on the first part, its
    penalty chosen by leave-one-out inside it, and judged on the second (validation) or third (test). Vectors are
    centred and scaled as a whole, so rotating a table changes nothing. Reported: R² (a unit a question, 1 minus its
    squared error over the variance, whose mean is R²) and Spearman's correlation (0 where all predictions are equal).
    """

    metric = "r2"
    about = "difficulty among training students, regressed from the vectors of other questions"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        if problem.split is None:
            raise EvaluationError(f"difficulty: {problem.dataset.name} has no interactions; it needs who answered how")
        train = TrainPart.checked(problem.split.train)
        able = np.flatnonzero(train.counts >= LEAST)
        if len(able) < FEWEST:
            raise EvaluationError(
                f"difficulty: {len(able)} questions of {problem.dataset.name} have {LEAST} training responses; "
                f"it needs {FEWEST}"
            )
        self._target = train.difficulty
        order = generator(problem.seed, "difficulty", "questions").permutation(able)
        fifth = round(0.2 * len(order))
        self._train = order[2 * fifth :]
        self._judged: dict[Stage, np.ndarray] = {"test": order[:fifth], "validation": order[fifth : 2 * fifth]}
        for stage in STAGES:
            if np.ptp(self._target[self._judged[stage]]) == 0:
                raise EvaluationError(f"difficulty: all {stage} questions are equally hard; nothing can be explained")

    def questions(self, stage: Stage) -> np.ndarray:
        """The questions judged on a stage, in the order of the units: int64 (units,)."""
        return self._judged[stage]

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        from scipy.stats import rankdata
        from sklearn.linear_model import RidgeCV

        vectors = self.vectors(embeddings)
        learnt = vectors[self._train].astype(np.float64)
        centre = learnt.mean(axis=0)
        learnt -= centre
        scale = np.sqrt((learnt**2).mean()) or 1.0
        ridge = RidgeCV(alphas=PENALTIES * len(learnt)).fit(learnt / scale, self._target[self._train])
        judged = self._judged[stage]
        truth = self._target[judged]
        guess = ridge.predict((vectors[judged] - centre) / scale)
        # Equal vectors get equal ranks, whatever the last bits of their predictions.
        a, b = rankdata(truth), rankdata(np.round(guess, 9))
        flat = np.ptp(b) == 0
        return Score.of_units(
            {"r2": 1 - (truth - guess) ** 2 / truth.var()},
            spearman=0.0 if flat else float(np.corrcoef(a, b)[0, 1]),
        )
