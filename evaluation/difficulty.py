"""How hard is the question? Regressed from its vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.evaluation.regression import Regression


class Difficulty(Regression):
    """The share of training students' wrong answers, predicted from the vector by ridge regression.

    Questions with at least five training responses are divided 60/20/20: the ridge is fitted on the first part, its
    penalty chosen by leave-one-out inside it, and judged on the second (validation) or third (test). Vectors are
    centred and scaled as a whole, so rotating a table changes nothing. Reported: R² (a unit a question, 1 minus its
    squared error over the variance, whose mean is R²) and Spearman's correlation (0 where all predictions are equal).
    """

    metric = "r2"
    description = "difficulty among training students, regressed from the vectors of other questions"
    name = "difficulty"
    least = 5

    def target(self, train: TrainPart) -> NDArray[np.float64]:
        return train.difficulty
