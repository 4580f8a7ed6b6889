"""Walk strategies by name. Being here is enough to be listed, documented and run through the contract tests."""

from qcq.support.registry import Registry
from qcq.walks.biased import ConceptHop, Node2Vec, NonBacktracking
from qcq.walks.just import Just
from qcq.walks.metapath import Metapath
from qcq.walks.qcq import QCQ
from qcq.walks.restart import Restart
from qcq.walks.session import Session
from qcq.walks.strategy import WalkStrategy
from qcq.walks.weighted import Weighted

WALKS: Registry[type[WalkStrategy]] = Registry(
    "walk",
    {
        "qcq": QCQ,
        "non-backtracking": NonBacktracking,
        "concept-hop": ConceptHop,
        "node2vec": Node2Vec,
        "weighted": Weighted,
        "restart": Restart,
        "metapath": Metapath,
        "session": Session,
        "just": Just,
    },
)

__all__ = [
    "QCQ",
    "WALKS",
    "ConceptHop",
    "Just",
    "Metapath",
    "Node2Vec",
    "NonBacktracking",
    "Restart",
    "Session",
    "WalkStrategy",
    "Weighted",
]
