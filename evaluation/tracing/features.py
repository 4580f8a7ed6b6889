"""Features of a question from training students' answers, used in addition to its vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcq.data.dataset import Interactions
from qcq.graph import KnowledgeGraph

PRIOR = 4.0  # weight of the overall share of wrong answers in a question's own share, in responses
SPREAD = 2.0  # variance of abilities, log-odds squared
AROUND = 1.0  # variance of eases around the mean ease of the question's concepts
ROUNDS = 20  # of Newton steps
REACH = 1.0  # largest step in log-odds: a full step may oscillate for ever if nearly all answers are right

Number = Literal["difficulty", "popularity", "rasch"]


def share_wrong(responses: Interactions) -> float:
    """The share of wrong answers, one half if there are none, no nearer to 0 or 1 than 1/(n + 2): its log-odds are
    finite, and it is the plain share unless all answers are alike."""
    n = len(responses)
    return float(np.clip(1 - responses.correct.mean(), 1 / (n + 2), 1 - 1 / (n + 2))) if n else 0.5


def difficulty(responses: Interactions, graph: KnowledgeGraph) -> NDArray[np.float64]:
    """Log-odds of a wrong answer, (wrong + PRIOR p) / (right + PRIOR (1 - p)), p the overall share: (questions,)."""
    share = share_wrong(responses)
    n = np.bincount(responses.question, minlength=graph.n_questions)
    right = np.bincount(responses.question, weights=responses.correct, minlength=graph.n_questions)
    return np.log((n - right + PRIOR * share) / (right + PRIOR * (1 - share)))


def popularity(responses: Interactions, graph: KnowledgeGraph) -> NDArray[np.float64]:
    """log(1 + responses): (questions,)."""
    return np.log1p(np.bincount(responses.question, minlength=graph.n_questions))


def rasch(responses: Interactions, graph: KnowledgeGraph) -> NDArray[np.float64]:
    """How much harder a question is than others on its concepts, given students' abilities: (questions,), log-odds.

    logit P(right) = m + ability + ease. Abilities are normal around 0, a question's ease is normal around the mean ease
    of its concepts (each the mean over answers to its questions). The estimates are the most probable values, by Newton
    steps on abilities and eases in turn. The result is the concepts' ease minus the question's own: 0 without answers.

    Examples
    --------
    >>> import numpy as np
    >>> from qcq.data.assembly import interactions
    >>> graph = KnowledgeGraph.from_edges([("a", "c"), ("b", "c")])
    >>> able, weak = [1] * 9 + [0], [0] * 9 + [1]
    >>> seen = interactions(np.repeat([0, 1], 11), [0] * 10 + [1] + [1] * 10 + [0], able + [1] + weak + [0])
    >>> share = difficulty(seen, graph)
    >>> bool(share[1] - share[0] > rasch(seen, graph)[1] - rasch(seen, graph)[0])  # the weak answered b
    True

    References
    ----------
    Rasch 1960, Probabilistic models for some intelligence and attainment tests.
    """
    return Eases.of(responses, graph).number


@dataclass(frozen=True, eq=False)
class Eases:
    """The estimates behind :func:`rasch`, which new answers can be read with.

    Attributes
    ----------
    middle : m.
    student, ability : int32 (students,), those who answered, and float64 (students,).
    concept : float64 (concepts,), the mean ease over answers to a concept's questions.
    number : float64 (questions,), what :func:`rasch` returns.
    """

    middle: float
    student: NDArray[np.int32]
    ability: NDArray[np.float64]
    concept: NDArray[np.float64]
    number: NDArray[np.float64]

    @classmethod
    def of(cls, responses: Interactions, graph: KnowledgeGraph) -> Eases:
        """The most probable values, by Newton steps on abilities and eases in turn."""
        who, student = np.unique(responses.student, return_inverse=True)
        question = responses.question
        right = responses.correct.astype(np.float64)
        n, n_students = graph.n_questions, len(who)
        answers = np.bincount(question, minlength=n).astype(np.float64)
        tested = (graph.weights > 0).astype(np.float64)  # (questions, concepts)
        of_concept = np.maximum(tested.T @ answers, 1e-9)
        of_question = np.maximum(tested.sum(axis=1), 1)
        middle = np.log((right.sum() + 1) / (len(right) - right.sum() + 1))
        ability, ease, around = np.zeros(n_students), np.zeros(n), np.zeros(n)
        concept = np.zeros(graph.n_concepts)

        def slopes(at: NDArray, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            p = 1 / (1 + np.exp(-(middle + ability[student] + ease[question])))
            up, bend = np.bincount(at, right - p, size), np.bincount(at, p * (1 - p), size)
            return up.astype(np.float64), bend.astype(np.float64)

        for _ in range(ROUNDS):
            up, bend = slopes(student, n_students)
            ability += np.clip((up - ability / SPREAD) / (bend + 1 / SPREAD), -REACH, REACH)
            concept = (tested.T @ (ease * answers)) / of_concept
            around = tested @ concept / of_question
            up, bend = slopes(question, n)
            ease += np.clip((up - (ease - around) / AROUND) / (bend + 1 / AROUND), -REACH, REACH)
        return cls(float(middle), who, ability, np.asarray(concept), np.where(answers > 0, around - ease, 0.0))


NUMBERS: Mapping[Number, Callable[[Interactions, KnowledgeGraph], NDArray[np.float64]]] = {
    "difficulty": difficulty,
    "popularity": popularity,
    "rasch": rasch,
}
