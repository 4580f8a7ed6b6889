"""qcq: question embeddings from question-concept-question walks, with the exact floor of a loss where one is known."""

from qcq.corpus import Corpus
from qcq.data import DATASETS, Dataset, read
from qcq.embeddings import Embeddings
from qcq.errors import QCQError
from qcq.evaluation import TASKS
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.recipes import embed
from qcq.run import Run
from qcq.walks import WALKS

__version__ = "0.2.0"

__all__ = [
    "DATASETS",
    "TASKS",
    "TRAINERS",
    "WALKS",
    "Corpus",
    "Dataset",
    "Embeddings",
    "KnowledgeGraph",
    "QCQError",
    "Run",
    "TrainingData",
    "__version__",
    "embed",
    "read",
]
