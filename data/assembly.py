"""From pairs of indices to the parts of a Dataset, with notes on what is unusual in them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import ArrayLike, NDArray

from qcq.data.dataset import Interactions
from qcq.support.words import several


def q_matrix(
    n_questions: int, n_concepts: int, rows: ArrayLike, columns: ArrayLike
) -> tuple[scipy.sparse.csr_array, int]:
    """The Q-matrix, float64 csr (questions × concepts) with 1 for an edge, and how many pairs were repeated."""
    rows, columns = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    made = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n_questions, n_concepts))
    made.sum_duplicates()
    made.data[:] = 1.0
    return made, len(rows) - made.nnz


def interactions(
    student: ArrayLike,
    question: ArrayLike,
    correct: ArrayLike,
    timestamp: ArrayLike | None = None,
    *,
    ordered: bool = True,
) -> Interactions:
    """Responses grouped by student, sorted by time where it is known, otherwise in the input order."""
    time = None if timestamp is None else np.asarray(timestamp, dtype=np.float64)
    order = chronological(student, time)
    return Interactions.sorted(order, student, question, correct, time, ordered)


def chronological(student: ArrayLike, time: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """The rows by student, then by time where it is known; rows of one time stay in the input order."""
    student = np.asarray(student, dtype=np.int32)
    return np.lexsort((student,) if time is None else (time, student))  # lexsort is stable


def halves(share: NDArray[np.float64]) -> tuple[NDArray[np.int8], list[str]]:
    """Shares of the full marks as right (one half or more) or wrong, and a note about it."""
    correct = (share >= 0.5).astype(np.int8)
    between = (share > 0) & (share < 1)
    if not between.any():
        return correct, []
    right = int(correct[between].sum())
    said = f"{int(between.sum()):,} of {len(share):,} scores are part marks: half or more counts as right ({right:,})"
    return correct, [said]


def remarks(matrix: scipy.sparse.csr_array, repeated: int = 0) -> list[str]:
    """What is unusual about a Q-matrix, in words; empty when nothing is."""
    without_concept = int((np.diff(matrix.indptr) == 0).sum())
    without_question = matrix.shape[1] - len(np.unique(matrix.indices))
    said = []
    if repeated:
        said.append(f"{several(repeated, 'edge')} given more than once, counted once")
    if without_concept:
        said.append(f"{several(without_concept, 'question')} without a concept: isolated in the graph")
    if without_question:
        said.append(f"{several(without_question, 'concept')} without a question")
    return said


def cycle(parents: Iterable[tuple[str, str]]) -> list[str] | None:
    """A cycle in child–parent pairs as the names along it, or None.

    Examples
    --------
    >>> cycle([("a", "b"), ("b", "c")]), cycle([("a", "b"), ("b", "a")])
    (None, ['a', 'b', 'a'])
    """
    above = dict(parents)
    done: set[str] = set()
    for start in above:
        path = [start]
        seen = {start}
        while path[-1] in above and path[-1] not in done:
            path.append(above[path[-1]])
            if path[-1] in seen:
                return path[path.index(path[-1]) :]
            seen.add(path[-1])
        done |= seen
    return None
