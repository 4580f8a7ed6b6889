"""A fast approximation of the task ``kt``: seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.evaluation.tracing.tasks import AHEAD, FIGURES, Attempts, principal

WIDTHS = (2, 8, 32)  # how fast the weight of a past answer falls with the distance of its question, in steps of four
PENALTIES = (0.1, 10.0, 1000.0)  # of the squared weights of the vector; tried on validation
_ROUNDS = 12  # of Newton's method


class KTFast(Task):
    """``kt`` without a network: a logistic model whose features come from the embedding.

    For the attempt t of a student at question q, with x the vectors and answers r (±1 around their mean):

    - m_β = Σ_i k_β r_i / (1 + Σ_i k_β) and n_β = log(1 + Σ_i k_β) over the attempts i before t, where
      k_β = exp(β (cos(x_q, x_i) - 1)), for three widths β: the results on similar questions, and their number;
    - the same mean and count over all attempts before t, similar or not;
    - the vector itself, on at most 64 principal axes: the question's own bias, as far as the vector shows it.

    Fitted on the training students by Newton's method with a ridge on the vector's weights, chosen on validation.
    Figures and units as in ``kt``. docs/evaluation.md says how well its ranking of tables agrees with that of ``kt``.
    """

    metric = "auc"
    unit = "students"
    figures = FIGURES
    revision = 2
    description = "the next answer of unseen students, by a logistic model on embedding-kernel history; seconds a table"

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        self.attempts = Attempts(partition, "kt-fast")

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        from scipy.special import expit

        vectors = principal(self.vectors(embeddings))[:, :64]
        x, y = self._features(vectors, "train")
        held, truth = self._features(vectors, "validation")
        free = x.shape[1] - vectors.shape[1]  # features before the vector, with a fixed penalty
        fits = [_fit(x, y, np.r_[np.full(free, 1e-3), np.full(vectors.shape[1], p)]) for p in PENALTIES]
        losses = [np.logaddexp(0, -(2 * truth - 1) * (held @ w)).mean() for w in fits]
        weights = fits[int(np.argmin(losses))]
        asked = held if stage == "validation" else self._features(vectors, stage)[0]
        ahead = self._features(vectors, stage, AHEAD)[0]
        return self.attempts.judge(expit(asked @ weights), stage, expit(ahead @ weights))

    def _features(
        self, vectors: NDArray[np.float32], part: str, ahead: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (responses, ·), the constant first and the vector last, and answers, (responses,).

        The history of a response ends before its block of ``ahead`` responses of the student.
        """
        r = self.attempts.parts[part].interactions
        mean = float(self.attempts.train.interactions.correct.mean())
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        history = np.zeros((len(r), 2 * len(WIDTHS) + 2))
        begin = np.flatnonzero(np.r_[True, r.student[1:] != r.student[:-1]])
        for a, b in zip(begin, np.append(begin[1:], len(r)), strict=True):
            u, answer = unit[r.question[a:b]], (r.correct[a:b] - mean).astype(np.float32)
            at = np.arange(b - a)
            before = (at < (at - at % ahead)[:, None]).astype(np.float32)  # (t, i): i came before the block of t
            weight = before
            for i in range(len(WIDTHS) + 1):
                if i == 1:
                    weight = np.exp(WIDTHS[0] * (u @ u.T - 1)) * before
                elif i > 1:
                    weight = np.square(np.square(weight))
                total = weight.sum(axis=1)
                history[a:b, 2 * i] = (weight @ answer) / (1 + total)
                history[a:b, 2 * i + 1] = np.log1p(total)
        one = np.ones((len(r), 1))
        return np.hstack([one, history, vectors[r.question]]), r.correct.astype(np.float64)


def _fit(x: NDArray[np.float64], y: NDArray[np.float64], penalty: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that minimise Σ log(1 + exp(-±x·w)) + Σ penalty w² / 2, by Newton's method: (features,)."""
    from scipy.special import expit

    w = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        p = expit(x @ w)
        slope = x.T @ (p - y) + penalty * w
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + np.diag(penalty), slope)
        w -= step
        if np.abs(step).max() < 1e-7:
            break
    return w
