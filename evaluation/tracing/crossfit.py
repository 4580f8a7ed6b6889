"""Vectors made of answers, made without one's own: an embedding for each fold of training students, turned alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.evaluation.task import Partition
from qcq.evaluation.tracing.tasks import CROSSFIT_FOLDS, Attempts, principal
from qcq.models.trainer import Trainer, TrainingData
from qcq.walks.strategy import WalkStrategy


def cross_fitted(
    partition: Partition, attempts: Attempts, walk: WalkStrategy, trainer: Trainer, seed: int = 0
) -> NDArray[np.float32]:
    """The vectors of ``trainer`` on ``walk``, once without each fold of training students and once with all of them.

    A student's answers stand in the edges of a typed graph. A knowledge-tracing model that is shown vectors made of
    them learns to read the student's own answers out of the vectors, which no new student's are in. Given version f,
    the students of fold f are shown vectors that their answers had no part in.

    Two trainings agree up to a rotation at best. Version f is therefore turned and scaled onto the last by orthogonal
    Procrustes, min ‖W (s V_f R - V)‖ over rotations R and scales s, with questions weighed by their training responses.

    Returns
    -------
    float32 (CROSSFIT_FOLDS + 1, questions, dim), to stand beside the numbers of :meth:`Attempts.question_features`.

    References
    ----------
    Schönemann 1966, A generalized solution of the orthogonal Procrustes problem (Psychometrika 31).
    """
    whole = principal(_vectors(partition, attempts.train, walk, trainer, seed))
    made = []
    for fold in range(CROSSFIT_FOLDS):
        students = attempts.train.students[attempts.fold[attempts.train.students] != fold]
        part = TrainPart(attempts.train.dataset, students, attempts.train.interactions.of(students))
        made.append(turned(_vectors(partition, part, walk, trainer, seed), whole, np.sqrt(part.counts)))
    return np.stack([*made, whole]).astype(np.float32)


def turned(vectors: NDArray, onto: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """``vectors`` centred, turned and scaled onto ``onto``; rows count with ``weight`` squared."""
    x = vectors - vectors.mean(axis=0, dtype=np.float64)
    mine, theirs = x * weight[:, None], onto * weight[:, None]
    u, s, vt = np.linalg.svd(mine.T @ theirs, full_matrices=False)
    return (x @ (u @ vt)) * (s.sum() / np.maximum((mine**2).sum(), 1e-30))


def _vectors(
    partition: Partition, part: TrainPart, walk: WalkStrategy, trainer: Trainer, seed: int
) -> NDArray[np.float32]:
    graph = walk.prepare(partition.graph, part)
    return walk.to_questions(partition.graph, trainer.fit(TrainingData(graph, walk, seed), seed).embeddings()).vectors
