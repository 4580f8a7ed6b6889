"""The best possible model, computed instead of trained: the reference for all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qcq.embeddings import Embeddings
from qcq.errors import ChainError, TrainingError
from qcq.floors.expected import MOST_CLASSES
from qcq.floors.markov import MarkovChain
from qcq.floors.objectives import HeldOutBatch, Masked, Objective
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.settings import settings

_MOST = 2**31  # entries of a dense table


@settings
class Oracle(Trainer):
    """Predicts with the walk's exact distribution, so its excess over the floor is 0.

    Its vectors have all that the walk tells about a question, and nothing else:

    - ``row``: the question's row of U, its step probabilities (one dimension per hub; ``dim`` is not used);
    - ``logratio``: R ≈ X Y^T with R[x, y] = max(0, ln p(x,y) / (p(x) p(y))) of the walk's exact pairs, X = A S^½ from
      the singular value decomposition R = A S B^T cut at rank ``dim``.

    Parameters
    ----------
    dim : rank of ``logratio``; a smaller R gives its own rank, padded with zeros.
    window : of the pairs: tokens to either side, before it shrinks.

    References
    ----------
    Levy & Goldberg 2014, Neural word embedding as implicit matrix factorization (NIPS), section 3.
    """

    window: Annotated[int, Field(ge=1)] = 5

    learns: ClassVar[bool] = True  # it uses the walk's distribution, though not its walks

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        try:
            chain = source.chain
        except ChainError as error:
            raise TrainingError(f"oracle: {error}") from None
        if not isinstance(chain, MarkovChain):
            raise TrainingError(f"oracle: {type(chain).__name__} has no row of U for a question; qcq and weighted have")
        if chain.n_questions * chain.n_hubs > _MOST:
            raise TrainingError(f"oracle would need {chain.n_questions:,} × {chain.n_hubs:,} numbers for its rows")
        if chain.n_classes > MOST_CLASSES or chain.length < 2:
            return _Oracle(source.graph, chain, None)
        # Equal questions have equal rows: the small matrix, both sides weighted by √size, has the same singular values.
        n = np.sqrt(chain.sizes)
        value, vector = np.linalg.eigh(chain.pair_law(self.window).log_ratio() * n * n[:, None])
        best = np.argsort(-np.abs(value), kind="stable")[: self.dim]
        half = vector[:, best] * np.sqrt(np.abs(value[best])) / n[:, None]  # (classes, rank)
        out = np.zeros((chain.n_classes, self.dim))
        out[:, : len(best)] = half
        return _Oracle(source.graph, chain, out[chain.classes].astype(np.float32))


@dataclass(frozen=True, eq=False, repr=False)
class _Oracle(Model):
    graph: KnowledgeGraph
    chain: MarkovChain
    vectors: NDArray[np.float32] | None
    objective: Objective | None = field(default_factory=Masked)

    @property
    def readouts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("row",) if self.vectors is None else ("row", "logratio")

    def losses(self, batch: HeldOutBatch) -> NDArray[np.float64]:
        return batch.objective.floor(self.chain, batch)

    def _read(self, readout: str) -> Embeddings:
        if readout == "row" or self.vectors is None:
            return Embeddings(self.graph.questions, self.chain.out.toarray().astype(np.float32))
        return Embeddings(self.graph.questions, self.vectors)
