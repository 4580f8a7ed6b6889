"""Trainers by name. A trainer registered here is listed, documented and run through the contract tests."""

from qcq.models.baselines import SVD, ConceptMean, ConceptOneHot, Random
from qcq.models.factorization import PPMISVD, NetMF, Spectral
from qcq.models.glove import GloVe
from qcq.models.language.electra import RTD
from qcq.models.language.huggingface import HFBert
from qcq.models.language.trainers import CLM, MLM, BiLM, Cloze
from qcq.models.oracle import Oracle
from qcq.models.pebg import PEBG
from qcq.models.precomputed import PrecomputedVectors
from qcq.models.projection import FastRP
from qcq.models.sgns import SGNS
from qcq.models.simqe import SimQE
from qcq.models.trainer import LookupModel, Model, Trainer, TrainingData
from qcq.models.word2vec import CBOW, FastText, SkipGram
from qcq.support.registry import Registry

TRAINERS: Registry[type[Trainer]] = Registry(
    "trainer",
    {
        "random": Random,
        "concept-onehot": ConceptOneHot,
        "svd": SVD,
        "concept-mean": ConceptMean,
        "spectral": Spectral,
        "fastrp": FastRP,
        "skipgram": SkipGram,
        "cbow": CBOW,
        "fasttext": FastText,
        "sgns": SGNS,
        "glove": GloVe,
        "netmf": NetMF,
        "ppmi-svd": PPMISVD,
        "oracle": Oracle,
        "pebg": PEBG,
        "simqe": SimQE,
        "mlm": MLM,
        "cloze": Cloze,
        "clm": CLM,
        "bilm": BiLM,
        "rtd": RTD,
        "hf-bert": HFBert,
    },
)

__all__ = [
    "CBOW",
    "CLM",
    "MLM",
    "PEBG",
    "PPMISVD",
    "RTD",
    "SGNS",
    "SVD",
    "TRAINERS",
    "BiLM",
    "Cloze",
    "ConceptMean",
    "ConceptOneHot",
    "FastRP",
    "FastText",
    "GloVe",
    "HFBert",
    "LookupModel",
    "Model",
    "NetMF",
    "Oracle",
    "PrecomputedVectors",
    "Random",
    "SimQE",
    "SkipGram",
    "Spectral",
    "Trainer",
    "TrainingData",
]
