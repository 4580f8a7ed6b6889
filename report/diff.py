"""How two tables of one bank differ: retrained after a month, or by two trainers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.errors import EmbeddingError
from qcq.evaluation.ranking import membership
from qcq.run import Run
from qcq.support.reproducible import reproducible
from qcq.support.seeds import generator
from qcq.support.types import takes

QUERIES = 1_000  # questions whose neighbours are compared, at most


@dataclass(frozen=True, eq=False)
class TableDifference:
    """Two tables, the second turned onto the first.

    Attributes
    ----------
    questions : those in both tables, in the order of the first.
    only_first, only_second : how many are in one table only.
    moved : float64 (questions,), 1 - cosine between a question's two vectors after the turn; 0 between zeros and zeros.
    before : the same mean without the turn: two trainings may differ by a turn alone.
    overlap : share of the k nearest neighbours that both tables have in common, mean over a seeded sample of questions.
    k : neighbours.
    aligned : the second table, all its rows turned, so that models made for the first can read it.
    notes : how many questions have a vector of zeros in a table.
    """

    questions: tuple[str, ...]
    only_first: int
    only_second: int
    moved: NDArray[np.float64]
    before: float
    overlap: float
    k: int
    aligned: Embeddings
    notes: tuple[str, ...] = ()


@takes(first="Embeddings", second="Embeddings", k="int")
@reproducible()
def difference(first: Embeddings, second: Embeddings, k: int = 10) -> TableDifference:
    """Turn the second table onto the first: the rotation or reflection R minimises |B R - A|, rows at length 1.

    Columns of numbers such as difficulty are not compared, and stay as they are.

    Raises
    ------
    EmbeddingError : other dimensions, fewer than two questions in common, or a table in which these have one vector.

    Examples
    --------
    >>> a = Embeddings(["p", "q", "r"], np.eye(3))
    >>> turned = Embeddings(["p", "q", "r"], np.eye(3)[:, [1, 2, 0]])
    >>> found = difference(a, turned, k=1)
    >>> round(float(found.moved.max()), 6), found.overlap, round(found.before, 6)
    (0.0, 1.0, 1.0)

    References
    ----------
    Schönemann 1966, A generalized solution of the orthogonal Procrustes problem.
    """
    wide = int(first.compared.sum()), int(second.compared.sum())
    if wide[0] != wide[1]:
        raise EmbeddingError(f"tables of {wide[0]} and {wide[1]} dimensions can't be turned onto each other")
    common = tuple(q for q in first if q in second)
    if len(common) < 2:
        raise EmbeddingError(f"{len(common)} questions are in both tables; give two tables of one bank")
    notes, rows = [], []
    for name, table in (("first", first), ("second", second)):
        shared = Embeddings(common, table.vectors[[table.index[q] for q in common]], provenance=table.provenance)
        try:
            notes += [f"the {name} table: {note}" for note in shared.remarks()]
        except EmbeddingError as error:
            raise EmbeddingError(f"the {name} table: {error}") from None
        rows.append(shared.unit.astype(np.float64))
    a, b = rows  # (questions, dim)
    turn, _ = scipy.linalg.orthogonal_procrustes(b, a)  # (dim, dim)
    k = min(k, len(common) - 1)
    asked = np.sort(generator(0, "diff", "queries").choice(len(common), size=min(QUERIES, len(common)), replace=False))
    turned = second.vectors.copy()
    turned[:, second.compared] = second.vectors[:, second.compared] @ turn
    return TableDifference(
        common,
        len(first) - len(common),
        len(second) - len(common),
        _apart(a, b @ turn),
        float(_apart(a, b).mean()),
        float(np.mean([_overlap(a, b, i, k) for i in asked])),
        k,
        replace(
            second,
            vectors=turned,
            concept_vectors=None if second.concept_vectors is None else second.concept_vectors @ turn,
            provenance={**second.provenance, "turned_onto": dict(first.provenance)},
        ),
        tuple(notes),
    )


def _apart(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """1 - cosine of rows of length 1, and 0 of two rows of zeros; rounding never makes it negative."""
    return np.where(a.any(axis=1) | b.any(axis=1), np.maximum(1 - np.einsum("ij,ij->i", a, b), 0.0), 0.0)


def _overlap(a: NDArray, b: NDArray, i: int, k: int) -> float:
    """Share of common neighbours of one question; among equal cosines a neighbour counts by its chance of being one."""
    one, other = (membership(np.delete(t @ t[i], i), k) for t in (a, b))
    return float(1 - np.abs(one - other).sum() / (2 * k))


def reasons(first: Run, second: Run, question: str) -> str:
    """What changed for a question between two runs, in words; empty if nothing is known to."""

    tables = [run.table("questions.csv") for run in (first, second)]
    sets, counts = [], []
    for run, table in zip((first, second), tables, strict=True):
        at = table["question"].index_of(question)
        cell = None if at is None else table["concepts"][at]
        sets.append(set((cell or "").split("; ")) - {""})
        held = run.edges()
        counts.append(int(held["responses"][at]) if at is not None and "responses" in held else 0)
    said = [f"+{name}" for name in sorted(sets[1] - sets[0])] + [f"-{name}" for name in sorted(sets[0] - sets[1])]
    if counts[1] != counts[0]:
        said.append(f"{counts[1] - counts[0]:+,} responses")
    return ", ".join(said)
