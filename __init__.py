"""qcq: question embeddings from question-concept-question walks, every loss read against its exact floor."""

from qcq.corpus import Corpus
from qcq.embeddings import Embeddings
from qcq.errors import QCQError
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Source
from qcq.walks import WALKS

__version__ = "0.1.0"

__all__ = ["TRAINERS", "WALKS", "Corpus", "Embeddings", "KnowledgeGraph", "QCQError", "Source", "__version__"]
