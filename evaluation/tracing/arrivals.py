"""Numbers of new questions, from answers to them, as they would be for an old question."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.errors import EmbeddingError
from qcq.evaluation.tracing.features import AROUND, NUMBERS, PRIOR, REACH, ROUNDS, Eases, Number, share_wrong
from qcq.graph import KnowledgeGraph
from qcq.models.answers import Answers, digests
from qcq.models.inference import Part
from qcq.models.trainer import frozen_part
from qcq.support.words import several


class NumberPart(Part):
    """One column of a table that is a number of :mod:`qcq.evaluation.tracing.features`.

    Without answers it is what an old question without answers has. With answers it follows the same formula; the
    overall share, the abilities of the students and the eases of the concepts stay as they were.
    """

    kind: ClassVar[str] = "number"
    exchangeable: ClassVar[bool] = False

    @classmethod
    def made(cls, name: str, train: TrainPart, graph: KnowledgeGraph) -> NumberPart:
        """Of the number ``name`` (a key of ``NUMBERS``) from the answers in ``train``."""
        seen = train.interactions
        arrays = {"share": np.array([share_wrong(seen)])}
        if name == "rasch":
            found = Eases.of(seen, graph)
            names = train.dataset.students
            arrays = {
                "middle": np.array([found.middle]),
                "concept": found.concept,
                "ability": found.ability,
                "who": digests([names[i] for i in found.student]),
            }
        return cls((name, {}), ("", {}), 1, arrays)

    def infer(self, graph: KnowledgeGraph, vectors: NDArray, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """The number of a question without answers: float64 (new questions, 1)."""
        n = weights.shape[0]
        if self.trainer[0] != "difficulty":
            return np.zeros((n, 1))
        share = self._share
        return np.full((n, 1), np.log(share / (1 - share)))

    def answered(
        self,
        graph: KnowledgeGraph,
        vectors: NDArray,
        made: NDArray[np.float64],
        weights: scipy.sparse.csr_array,
        answers: Answers,
    ) -> tuple[NDArray[np.float64], str]:
        name = cast(Number, self.trainer[0])
        fresh = answers.new >= 0
        n = answers.counts(len(made))
        said = f"{name}: from {several(int(n.sum()), 'answer')} to {several(int((n > 0).sum()), 'new question')}"
        if name == "rasch":
            return self._rasch(made, weights, answers), said
        right = np.bincount(answers.new[fresh], answers.correct[fresh], len(made))
        if name == "popularity":
            return np.log1p(n)[:, None], said
        share = self._share
        return np.log((n - right + PRIOR * share) / (right + PRIOR * (1 - share)))[:, None], said

    @property
    def _share(self) -> float:
        """The share of wrong answers in training."""
        share = float(frozen_part(self.arrays, "share", 1)[0])
        if not 0 < share < 1:
            raise EmbeddingError(
                f"the model's share of wrong answers is {share:g}, and not between 0 and 1; "
                "write the table again with qcq embed"
            )
        return share

    def _rasch(
        self, made: NDArray[np.float64], weights: scipy.sparse.csr_array, answers: Answers
    ) -> NDArray[np.float64]:
        """By Newton steps on the new eases alone. Of a student without training answers the ability is 0."""
        fresh = answers.new >= 0
        question, right = answers.new[fresh], answers.correct[fresh].astype(np.float64)
        who, concept = frozen_part(self.arrays, "who", None), frozen_part(self.arrays, "concept", weights.shape[1])
        able = frozen_part(self.arrays, "ability", len(who))
        order = np.argsort(who)
        place = np.searchsorted(who[order], answers.who)
        place = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(answers.who), dtype=np.int64)
        known = np.isin(answers.who, who)
        ability = np.where(known, able[place] if len(order) else 0.0, 0.0)[answers.student[fresh]]
        tested = (weights > 0).astype(np.float64)
        around = np.asarray(tested @ concept) / np.maximum(np.asarray(tested.sum(axis=1)), 1)
        ease, middle = around.copy(), float(frozen_part(self.arrays, "middle", 1)[0])
        for _ in range(ROUNDS):
            p = 1 / (1 + np.exp(-(middle + ability + ease[question])))
            up, bend = (np.bincount(question, x, len(made)) for x in (right - p, p * (1 - p)))
            ease += np.clip((up - (ease - around) / AROUND) / (bend + 1 / AROUND), -REACH, REACH)
        return np.where(answers.counts(len(made)) > 0, around - ease, 0.0)[:, None]


__all__ = ["NUMBERS", "NumberPart"]
