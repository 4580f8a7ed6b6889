"""Trainers by name. Being here is enough to be listed, documented and run through the contract tests."""

from qcq.models.baselines import SVD, ConceptOneHot, Random
from qcq.models.language import MLM, Cloze
from qcq.models.trainer import Model, Source, Table, Trainer
from qcq.models.word2vec import CBOW, FastText, SkipGram

TRAINERS: dict[str, type[Trainer]] = {
    "random": Random,
    "concept-onehot": ConceptOneHot,
    "svd": SVD,
    "skipgram": SkipGram,
    "cbow": CBOW,
    "fasttext": FastText,
    "mlm": MLM,
    "cloze": Cloze,
}

__all__ = [
    "CBOW",
    "MLM",
    "SVD",
    "TRAINERS",
    "Cloze",
    "ConceptOneHot",
    "FastText",
    "Model",
    "Random",
    "SkipGram",
    "Source",
    "Table",
    "Trainer",
]
