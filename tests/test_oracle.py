"""The trainer that is the best possible model."""

from __future__ import annotations

import numpy as np
import pytest

from qcq.errors import TrainingError
from qcq.floors.losses import measure
from qcq.graph import KnowledgeGraph
from qcq.models.oracle import Oracle
from qcq.models.trainer import TrainingData
from qcq.walks import QCQ, Restart

EDGES = [("a", "x"), ("b", "x"), ("c", "x"), ("c", "y"), ("d", "y"), ("e", "y"), ("f", "y"), ("f", "z")]


def test_the_oracle_stands_at_its_floor():
    source = TrainingData(KnowledgeGraph.from_edges(EDGES), QCQ(length=8))
    report = measure(Oracle(dim=3).fit(source), source)
    assert (report.excess, report.se, report.verdict) == (0.0, 0.0, "at floor")


def test_its_rows_are_where_questions_go():
    graph = KnowledgeGraph.from_edges(EDGES)
    rows = Oracle().fit(TrainingData(graph)).embeddings("row").vectors
    weights = graph.weights.toarray()
    np.testing.assert_allclose(rows, weights / weights.sum(axis=1, keepdims=True), atol=1e-7)


def test_at_full_rank_its_log_ratio_is_that_of_the_exact_pairs():
    graph = KnowledgeGraph.from_edges(EDGES)
    source = TrainingData(graph, QCQ(length=6))
    vectors = Oracle(dim=6, window=2).fit(source).embeddings("logratio").vectors.astype(float)
    law, q = source.chain.pair_law(2), np.arange(6)
    x, y = np.repeat(q, 6), np.tile(q, 6)
    ratio = np.maximum(np.log(np.maximum(law.conditional(x, y) / law.probability(y), 1e-300)), 0).reshape(6, 6)
    # X X^T is |R|: the same singular vectors, all signs positive.
    value, vector = np.linalg.eigh(ratio)
    np.testing.assert_allclose(vectors @ vectors.T, (vector * np.abs(value)) @ vector.T, atol=1e-5)
    assert vectors[0] == pytest.approx(vectors[1])  # a and b are exchangeable


def test_without_a_chain_there_is_no_oracle():
    source = TrainingData(KnowledgeGraph.from_edges(EDGES), Restart(length=5, probability=0.3))
    with pytest.raises(TrainingError, match="oracle: no exact chain"):
        Oracle().fit(source)
