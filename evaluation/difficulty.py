"""How hard is the question? Regressed from its vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.evaluation.regression import Regression


class Difficulty(Regression):
    """The share of wrong answers among training students, predicted from the vector by ridge regression.

    Questions with at least five training responses are split 60/20/20. The ridge is fitted on the first part, with a
    penalty chosen by leave-one-out on that part, and scored on the second (validation) or third (test). Vectors are
    centred and scaled as a whole, so rotating a table changes nothing. Reported: R² (per question: 1 minus its squared
    error over the variance; the mean is R²) and Spearman's correlation (0 if all predictions are equal).
    """

    metric = "r2"
    description = "difficulty among training students, regressed from the vectors of other questions"
    name = "difficulty"
    least = 5

    def target(self, train: TrainPart) -> NDArray[np.float64]:
        return train.difficulty
