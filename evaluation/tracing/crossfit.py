"""Cross-fitting for vectors that derive from answers: one embedding without each fold of training students, aligned."""

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

    In a typed graph, a student's answers are in the edges. A knowledge-tracing model trained with vectors made from
    them learns to read the student's own answers out of the vectors; the answers of a new student are not in them. So
    the students of fold f are shown version f, made without their answers.

    Two trainings agree up to a rotation at best. So version f is rotated and scaled onto the last version by orthogonal
    Procrustes, min ‖W (s V_f R - V)‖ over rotations R and scales s, with questions weighted by their training
    responses.

    Returns
    -------
    float32 (CROSSFIT_FOLDS + 1, questions, dim), to be joined with the features of :meth:`Attempts.question_features`.

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
    """``vectors`` centred, rotated and scaled onto ``onto``; rows are weighted by ``weight`` squared."""
    x = vectors - vectors.mean(axis=0, dtype=np.float64)
    mine, theirs = x * weight[:, None], onto * weight[:, None]
    u, s, vt = np.linalg.svd(mine.T @ theirs, full_matrices=False)
    return (x @ (u @ vt)) * (s.sum() / np.maximum((mine**2).sum(), 1e-30))


def _vectors(
    partition: Partition, part: TrainPart, walk: WalkStrategy, trainer: Trainer, seed: int
) -> NDArray[np.float32]:
    graph = walk.prepare(partition.graph, part)
    return walk.to_questions(partition.graph, trainer.fit(TrainingData(graph, walk, seed), seed).embeddings()).vectors
