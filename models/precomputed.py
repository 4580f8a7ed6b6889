"""Vectors from a file, as a method in a comparison."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from qcq.embeddings import Embeddings
from qcq.models.trainer import LookupModel, Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.settings import settings


@settings
class PrecomputedVectors(Trainer):
    """A table of given vectors: no walks and no training.

    Parameters
    ----------
    embeddings : the table, in the order of the graph's questions (:meth:`~qcq.embeddings.Embeddings.aligned`).
    file : the file that it comes from, for the provenance.

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
        """The file of the table, and the digest of its numbers as its identity."""
        digest = hashlib.sha256(self.embeddings.vectors.tobytes()).hexdigest()
        return {"dim": self.embeddings.dim, "file": self.file, "sha256": digest}
