"""Tasks by name. Being here is enough to be listed, documented and run through the contract tests."""

from __future__ import annotations

from qcq.evaluation.difficulty import Difficulty
from qcq.evaluation.edges import Edges
from qcq.evaluation.retrieval import Retrieval
from qcq.evaluation.stability import Stability
from qcq.evaluation.statistics import Difference, paired_bootstrap
from qcq.evaluation.task import HeldOut, Problem, Score, Stage, Task

TASKS: dict[str, type[Task]] = {
    "edges": Edges,
    "difficulty": Difficulty,
    "retrieval": Retrieval,
    "stability": Stability,
}

__all__ = [
    "TASKS",
    "Difference",
    "Difficulty",
    "Edges",
    "HeldOut",
    "Problem",
    "Retrieval",
    "Score",
    "Stability",
    "Stage",
    "Task",
    "paired_bootstrap",
]
