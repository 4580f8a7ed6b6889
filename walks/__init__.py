"""Walk strategies by name. Being here is enough to be listed, documented and run through the contract tests."""

from qcq.walks.qcq import QCQ
from qcq.walks.strategy import WalkStrategy

WALKS: dict[str, type[WalkStrategy]] = {
    "qcq": QCQ,
}

__all__ = ["QCQ", "WALKS", "WalkStrategy"]
