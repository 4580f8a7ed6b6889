"""How are the vectors distributed in their space?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.evaluation.ranking import unit
from qcq.evaluation.retrieval import Sharing
from qcq.evaluation.task import Score, Stage
from qcq.support.seeds import generator

PAIRED = 2_000  # questions of which all pairs are used


class Geometry(Sharing):
    """How spread out, even and tight the vectors are; none of these figures alone says that vectors are good.

    With x a vector scaled to length 1, over a seeded sample of questions that share a concept with another one:

    - ``contrast``: mean cosine of a question with those that share a concept with it, minus that with all others; per
      question. Measured on the training graph, so it is circular, as ``retrieval`` is.
    - ``alignment``: mean of ``|x - y|²`` over questions that share a concept; low is tight.
    - ``uniformity``: log of the mean of ``exp(-2 |x - y|²)`` over any two questions; low is spread evenly.
    - ``isotropy``: min / max over principal directions ±c of Σ_x exp(c · x); 1 is the same in every direction.
    - ``effective-rank``: exp of the entropy of the singular values of the centred table, scaled to sum to 1.

    References
    ----------
    Wang & Isola 2020, Understanding contrastive representation learning through alignment and uniformity (ICML), eq. 1
    and 2; Mu & Viswanath 2018, All-but-the-top (ICLR), eq. 4; Roy & Vetterli 2007, The effective rank (EUSIPCO).
    """

    name = "geometry"
    metric = "contrast"
    description = "how wide, even and tight the vectors lie; contrast (same concept against any) is circular by design"
    tunes = False

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        vectors = self.vectors(embeddings)
        rows = unit(vectors)
        near = np.array([rows[self._relevant(q)].mean(axis=0) @ rows[q] for q in self._queries])  # mean cosines
        asked = rows[self._queries]
        any_ = (asked @ rows.sum(axis=0) - (asked**2).sum(axis=1)) / (len(rows) - 1)
        return Score.of_units(
            {"contrast": near - any_, "alignment": 2 - 2 * near},
            uniformity=self._uniformity(rows),
            isotropy=_isotropy(rows),
            **{"effective-rank": _effective_rank(vectors)},
        )

    def _uniformity(self, rows: NDArray[np.float64]) -> float:
        if len(rows) > PAIRED:
            rng = generator(self.partition.seed, "geometry", "pairs")
            rows = rows[rng.choice(len(rows), size=PAIRED, replace=False)]
        heat = np.exp(-2 * np.maximum(2 - 2 * rows @ rows.T, 0))  # (sample, sample)
        n = len(rows)
        return float(np.log((heat.sum() - np.trace(heat)) / (n * (n - 1))))


def _isotropy(rows: NDArray[np.float64]) -> float:
    _, axes = np.linalg.eigh(rows.T @ rows)
    along = rows @ axes  # (questions, dim)
    total = np.concatenate([np.exp(along).sum(axis=0), np.exp(-along).sum(axis=0)])
    return float(total.min() / total.max())


def _effective_rank(vectors: NDArray[np.float32]) -> float:
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    square = np.linalg.eigvalsh(centred.T @ centred)
    values = np.sqrt(np.where(square > 1e-12 * max(square.max(initial=0.0), 1e-300), square, 0.0))
    if values.sum() == 0:
        return 0.0
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
