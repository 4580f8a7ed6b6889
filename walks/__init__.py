"""Walk strategies by name. Being here is enough to be listed, documented and run through the contract tests."""

from qcq.walks.biased import ConceptHop, Node2Vec, NonBacktracking
from qcq.walks.qcq import QCQ
from qcq.walks.restart import Restart
from qcq.walks.strategy import WalkStrategy
from qcq.walks.weighted import Weighted

WALKS: dict[str, type[WalkStrategy]] = {
    "qcq": QCQ,
    "non-backtracking": NonBacktracking,
    "concept-hop": ConceptHop,
    "node2vec": Node2Vec,
    "weighted": Weighted,
    "restart": Restart,
}

__all__ = ["QCQ", "WALKS", "ConceptHop", "Node2Vec", "NonBacktracking", "Restart", "WalkStrategy", "Weighted"]
