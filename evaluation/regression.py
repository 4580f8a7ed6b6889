"""A statistic of each question, predicted from its vector: the common code of difficulty and discrimination."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation.task import STAGES, Partition, Score, Stage, Task
from qcq.support.seeds import generator

FEWEST = 20  # questions with a known statistic that a data set needs
PENALTIES = np.logspace(-5, 2, 15)  # candidates of the ridge penalty, per training question


class Regression(Task):
    """Ridge regression of a statistic of each question from training responses, scored on other questions.

    Questions with a known statistic are split 60/20/20. The ridge is fitted on the first part, with a penalty chosen by
    leave-one-out on that part, and scored on the second (validation) or third (test). Vectors are centred and scaled as
    a whole, so rotating a table changes nothing.

    Class attributes
    ----------------
    name : the task's name in errors and for its stream of random numbers.
    least : training responses that a question needs.
    """

    name: ClassVar[str]
    least: ClassVar[int]

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        data = partition.dataset.name
        if partition.split is None:
            raise EvaluationError(f"{self.name}: {data} has no interactions; it needs who answered how")
        train = TrainPart.checked(partition.split.train)
        self._target = self.target(train)
        able = np.flatnonzero(np.isfinite(self._target) & (train.counts >= self.least))
        if len(able) < FEWEST:
            raise EvaluationError(
                f"{self.name}: {len(able)} questions of {data} have {self.least} training responses; it needs {FEWEST}"
            )
        order = generator(partition.seed, self.name, "questions").permutation(able)
        fifth = round(0.2 * len(order))
        self._train = order[2 * fifth :]
        self._judged: dict[Stage, NDArray[np.int64]] = {"test": order[:fifth], "validation": order[fifth : 2 * fifth]}
        for stage in STAGES:
            if np.ptp(self._target[self._judged[stage]]) == 0:
                raise EvaluationError(f"{self.name}: all {stage} questions have the same value; no variance to explain")

    @abstractmethod
    def target(self, train: TrainPart) -> NDArray[np.float64]:
        """The statistic of each question: float64 (questions,), NaN where it is unknown."""

    def questions(self, stage: Stage) -> NDArray[np.int64]:
        """The questions scored in a stage, in the order of the units: int64 (units,)."""
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
        # Equal vectors get equal ranks, even if the last bits of their predictions differ.
        a, b = rankdata(truth), rankdata(np.round(guess, 9))
        flat = np.ptp(b) == 0
        return Score.of_units(
            {"r2": 1 - (truth - guess) ** 2 / truth.var()},
            spearman=0.0 if flat else float(np.corrcoef(a, b)[0, 1]),
        )
