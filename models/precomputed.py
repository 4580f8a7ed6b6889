"""Vectors that somebody else made, standing in a comparison like any other."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from qcq.embeddings import Embeddings
from qcq.models.trainer import LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.settings import settings


@settings
class PrecomputedVectors(Trainer):
    """A table as it was given: nothing is walked and nothing is trained.

    Parameters
    ----------
    embeddings : the table, in the order of the graph's questions (:meth:`~qcq.embeddings.Embeddings.aligned`).
    file : where it was read from, for the record.

    Examples
    --------
    >>> import numpy as np
    >>> from qcq.graph import KnowledgeGraph
    >>> graph = KnowledgeGraph.from_edges([("a", "c"), ("b", "c")])
    >>> given = PrecomputedVectors(embeddings=Embeddings(["a", "b"], np.eye(2)))
    >>> given.fit(TrainingData(graph)).embeddings().vectors.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    embeddings: Embeddings
    file: str = ""

    learns: ClassVar[bool] = False

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        return LookupModel(source.graph, self.embeddings.aligned(source.graph.questions).vectors)

    @property
    def config(self) -> dict[str, Any]:
        """Where the table came from and the digest of its numbers, which stand for it."""
        digest = hashlib.sha256(self.embeddings.vectors.tobytes()).hexdigest()
        return {"dim": self.embeddings.dim, "file": self.file, "sha256": digest}
