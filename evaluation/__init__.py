"""Tasks by name. A task registered here is listed, documented and run through the contract tests."""

from __future__ import annotations

from qcq.evaluation.areas import Decomposition, Pairs, balanced, bootstrap_decomposition, decompose
from qcq.evaluation.clusters import Clusters
from qcq.evaluation.difficulty import Difficulty
from qcq.evaluation.discrimination import Discrimination
from qcq.evaluation.edges import Edges
from qcq.evaluation.geometry import Geometry
from qcq.evaluation.prerequisites import Prerequisites
from qcq.evaluation.retrieval import Retrieval
from qcq.evaluation.stability import Stability
from qcq.evaluation.statistics import Contest, Difference, auc_units, mean_units, paired_bootstrap, simultaneous
from qcq.evaluation.task import HeldOut, Partition, Score, Stage, Task, TaskSpec, unanswerable
from qcq.evaluation.tracing.baselines import KTBaselines
from qcq.evaluation.tracing.fast import KTFast
from qcq.evaluation.tracing.peer import KTPeer
from qcq.evaluation.tracing.tasks import KT, KTAttention, KTDifficulty
from qcq.support.registry import Labelled

TASKS: Labelled[type[Task]] = Labelled(
    "task",
    {
        "edges": Edges,
        "difficulty": Difficulty,
        "retrieval": Retrieval,
        "stability": Stability,
        "discrimination": Discrimination,
        "prerequisites": Prerequisites,
        "clusters": Clusters,
        "geometry": Geometry,
        "kt": KT,
        "kt-difficulty": KTDifficulty,
        "kt-attention": KTAttention,
        "kt-fast": KTFast,
        "kt-baselines": KTBaselines,
        "kt-peer": KTPeer,
    },
)

__all__ = [
    "KT",
    "TASKS",
    "Clusters",
    "Contest",
    "Decomposition",
    "Difference",
    "Difficulty",
    "Discrimination",
    "Edges",
    "Geometry",
    "HeldOut",
    "KTAttention",
    "KTBaselines",
    "KTDifficulty",
    "KTFast",
    "KTPeer",
    "Pairs",
    "Partition",
    "Prerequisites",
    "Retrieval",
    "Score",
    "Stability",
    "Stage",
    "Task",
    "TaskSpec",
    "auc_units",
    "balanced",
    "bootstrap_decomposition",
    "decompose",
    "mean_units",
    "paired_bootstrap",
    "simultaneous",
    "unanswerable",
]
