"""The published leak, reproduced: how difficulty computed from all students changes an AUC on the test students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcq.data.dataset import Interactions, Split
from qcq.errors import EvaluationError
from qcq.evaluation.statistics import Difference, auc_units, paired_bootstrap

COLD = 5  # training responses of a cold question, at most


@dataclass(frozen=True)
class Inflation:
    """How well difficulty alone predicts test students' answers, computed with and without their own answers.

    Attributes
    ----------
    leaky : AUC where difficulty is the share of wrong answers among all students, test students included.
    honest : AUC where it is the share among training students.
    difference : leaky minus honest, with a 95 % interval over students.
    responses : of test students, used for the figures.
    """

    leaky: float
    honest: float
    difference: Difference
    responses: int


def replay(split: Split) -> Mapping[str, Inflation]:
    """Predict every test student's answers only from the difficulty of the question, twice.

    First, the difficulty of a question is its share of wrong answers among all students, as published question features
    are computed; then it is the share among the training students only. A question without answers (from these
    students) gets the share over all questions. In the leaky case, an answer to a rare question is part of its own
    prediction, so there the AUC rises most.

    Returns
    -------
    slice → :class:`Inflation`: ``all``, ``cold`` (at most ``COLD`` training responses; unseen ones included), ``warm``
    (more). A slice in which all answers are alike is left out.

    Raises
    ------
    EvaluationError : the test students gave no answers, or only right or only wrong ones.

    Examples
    --------
    >>> from qcq.data import Simulated
    >>> found = replay(Simulated(questions=300, concepts=10, students=80, responses=20).read().split())
    >>> found["all"].leaky > found["all"].honest
    True
    """
    test, train = split.test.interactions, split.train.interactions
    n_questions = len(split.train.dataset.questions)
    parts = (train, split.validation.interactions, test)
    leaky, honest = (_ease(seen, n_questions)[test.question] for seen in (parts, (train,)))
    met = split.train.counts[test.question]
    found = {}
    for name, kept in (("all", met >= 0), ("cold", met <= COLD), ("warm", met > COLD)):
        right = test.correct[kept]
        if 0 < right.sum() < len(right):
            units = [auc_units(right, guess[kept], test.student[kept]) for guess in (leaky, honest)]
            found[name] = Inflation(
                float(units[0].mean()), float(units[1].mean()), paired_bootstrap(units[0], units[1]), len(right)
            )
    if "all" not in found:
        raise EvaluationError(
            f"{split.train.dataset.name}: {len(test)} test responses, {int(test.correct.sum())} of them right; a "
            "replay needs right and wrong ones"
        )
    return found


def _ease(seen: tuple[Interactions, ...], n_questions: int) -> NDArray[np.float64]:
    """Share of right answers per question, the overall share if it has no answers: float64 (questions,)."""
    question = np.concatenate([r.question for r in seen])
    correct = np.concatenate([r.correct for r in seen])
    n = np.bincount(question, minlength=n_questions)
    right = np.bincount(question, weights=correct, minlength=n_questions)
    return np.where(n > 0, right / np.maximum(n, 1), correct.mean() if len(correct) else 0.5)
