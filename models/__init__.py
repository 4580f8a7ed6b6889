"""Trainers by name. Being here is enough to be listed, documented and run through the contract tests."""

from qcq.models.baselines import SVD, ConceptOneHot, Random
from qcq.models.trainer import Model, Source, Table, Trainer

TRAINERS: dict[str, type[Trainer]] = {
    "random": Random,
    "concept-onehot": ConceptOneHot,
    "svd": SVD,
}

__all__ = ["SVD", "TRAINERS", "ConceptOneHot", "Model", "Random", "Source", "Table", "Trainer"]
