"""Large banks: a projection in bounded memory, tables refused before they begin, estimates that are near the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qcq.data import Simulated
from qcq.errors import ConfigError, TrainingError
from qcq.evaluation import TASKS, Partition, edges, ranking
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models import TRAINERS, TrainingData, baselines, projection
from qcq.walks import WALKS


def weighted_graph() -> KnowledgeGraph:
    """Uneven weights, a question alone, a concept alone, two components."""
    dense = np.zeros((9, 6))
    for q, c, weight in [(0, 0, 1), (0, 1, 2), (1, 1, 1), (2, 0, 3), (3, 2, 1), (4, 2, 2), (4, 3, 1), (5, 3, 1)]:
        dense[q, c] = weight
    dense[6, [2, 3]] = 0.5
    dense[7, 1] = 4
    return KnowledgeGraph([f"q{i}" for i in range(9)], [f"c{i}" for i in range(6)], sparse.csr_array(dense))


def dense_fastrp(graph: KnowledgeGraph, trainer, seed: int) -> np.ndarray:
    """Σ_k w_k P^k L R by dense matrices of questions × questions."""
    w = graph.weights.toarray()
    d_q, d_c = w.sum(axis=1), w.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.nan_to_num(w / d_q[:, None]) @ np.nan_to_num(w / d_c).T
    pi = d_q / d_q.sum()
    scale = np.diag([x**trainer.beta if x > 0 else 0 for x in pi])
    stream = projection.derive(seed, "fastrp")
    r = np.vstack([trainer._random(at, slice(0, trainer.dim), stream) for at in projection._blocks(len(pi))])
    return sum(weight * np.linalg.matrix_power(p, k) @ scale @ r for k, weight in enumerate(trainer.weights, start=1))


@pytest.mark.parametrize("beta", [0.0, -0.5, -1.0])
@pytest.mark.parametrize("weights", [(1.0,), (0.0, 2.0, -1.0)])
def test_fastrp_is_the_dense_formula(monkeypatch, beta, weights):
    monkeypatch.setattr(projection, "_ROWS", 4)  # several blocks, the last one shorter
    trainer = TRAINERS["fastrp"](dim=20, beta=beta, weights=weights)
    for graph in (weighted_graph(), KnowledgeGraph.from_dataset(Simulated(questions=150, concepts=12).read())):
        model = trainer.fit(TrainingData(graph), 3)
        exact = dense_fastrp(graph, trainer, 3)
        size = np.abs(exact).max()
        hubs = model.frozen()["concepts"]
        np.testing.assert_allclose(projection.rows(graph.weights) @ hubs, exact, atol=1e-10 * size)
        np.testing.assert_allclose(model.embeddings().vectors, exact, atol=1e-5 * size)
        assert size > 0


def test_fastrp_has_the_same_bytes_in_one_pass_or_several(monkeypatch):
    graph = KnowledgeGraph.from_dataset(Simulated(questions=300, concepts=20, responses=0).read())
    whole = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 1).embeddings()
    monkeypatch.setattr(projection, "_HELD", 1)  # a strip of columns at a time
    strips = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 1).embeddings()
    assert whole.vectors.tobytes() == strips.vectors.tobytes()
    other = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 2).embeddings()
    assert not np.allclose(whole.vectors, other.vectors)


def test_the_projection_has_the_variance_of_the_formula():
    trainer = TRAINERS["fastrp"](dim=64, sparsity=4)
    r = trainer._random(slice(0, 20_000), slice(0, 64), 5)
    assert set(np.unique(r)) == {-2.0, 0.0, 2.0}
    assert abs((r != 0).mean() - 0.25) < 0.003
    assert np.abs(r.T @ r / len(r) - np.eye(64)).max() < 0.06  # six standard errors


def test_fastrp_puts_questions_of_the_same_concepts_together():
    graph = KnowledgeGraph.from_dataset(Simulated(questions=400, concepts=16, responses=0).read())
    emb = TRAINERS["fastrp"]().fit(TrainingData(graph)).embeddings()
    cosine = emb.unit @ emb.unit.T
    same = graph.concept_sets[:, None] == graph.concept_sets
    assert cosine[same].min() > 0.999
    shared = (graph.weights @ graph.weights.T).toarray() > 0
    assert cosine[shared & ~same].mean() > cosine[~shared].mean() + 0.2


def test_a_typed_graph_without_responses_is_the_plain_one():
    graph = KnowledgeGraph.from_dataset(Simulated(questions=120, concepts=10, responses=0).read())
    typed = TypedGraph.of(graph, None)
    walk = WALKS["metapath"](pattern="q-c-q")
    plain = TRAINERS["fastrp"](dim=16).fit(TrainingData(graph), 4).embeddings()
    other = TRAINERS["fastrp"](dim=16).fit(TrainingData(typed, walk), 4).embeddings()
    np.testing.assert_allclose(plain.vectors, other.vectors, atol=1e-5)


def test_fastrp_refuses_what_it_cannot_do():
    alone = KnowledgeGraph(["a"], ["c"], sparse.csr_array((1, 1)))
    with pytest.raises(TrainingError, match="fastrp needs edges"):
        TRAINERS["fastrp"]().fit(TrainingData(alone))
    with pytest.raises(ConfigError, match="not all of them zero"):
        TRAINERS["fastrp"](weights=(0.0,))
    graph = weighted_graph()
    isolated = TRAINERS["fastrp"](dim=4).fit(TrainingData(replace(graph))).embeddings().vectors[8]
    assert not isolated.any()


# --- tables that may be too large -----------------------------------------------------------------------------------


def room(questions: int = 400, concepts: int = 20) -> KnowledgeGraph:
    return KnowledgeGraph.from_dataset(Simulated(questions=questions, concepts=concepts, responses=0).read())


def test_a_tall_matrix_is_factorised_in_blocks(monkeypatch):
    graph = room()
    for name in ("svd", "spectral"):
        whole = TRAINERS[name](dim=12).fit(TrainingData(graph)).embeddings().vectors
        monkeypatch.setattr(baselines, "TALL", 0)
        monkeypatch.setattr(baselines, "_ROWS", 64)
        blocks = TRAINERS[name](dim=12).fit(TrainingData(graph)).embeddings().vectors
        monkeypatch.undo()
        np.testing.assert_allclose(whole @ whole.T, blocks @ blocks.T, atol=1e-4)


def test_a_one_hot_table_that_is_too_large_is_refused_before_it_is_made():
    many = sparse.csr_array((np.ones(200_000), (np.arange(200_000), np.arange(200_000) % 50_000)))
    graph = KnowledgeGraph([f"q{i}" for i in range(200_000)], [f"c{i}" for i in range(50_000)], many)
    with pytest.raises(TrainingError, match=r"needs 46\.\d GiB .* the bound is 2 GiB: take fastrp or spectral"):
        TRAINERS["concept-onehot"]().fit(TrainingData(graph))


def test_cosines_in_blocks_are_the_cosines(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 5)).astype(np.float32)
    for table in (rows, np.vstack([rows, rows[:40]])):
        queries = np.arange(0, len(table), 7)
        whole = dict(ranking.similarities(table, queries))
        monkeypatch.setattr(ranking, "_ROWS", 32)
        blocks = dict(ranking.similarities(table, queries))
        monkeypatch.undo()
        for query in queries:
            assert np.abs(whole[query] - blocks[query]).max() <= 1  # a millionth, by rounding


def test_the_edges_of_a_large_bank_are_a_sample_of_them(monkeypatch):
    partition = Partition.make(Simulated(questions=1_500, concepts=30, responses=0).read())
    emb = TRAINERS["fastrp"]().fit(TrainingData(partition.graph)).embeddings()
    task = TASKS["edges"](partition)
    whole = task.score(emb).units["mrr"]
    monkeypatch.setattr(edges, "LARGEST", 60)
    some = task.score(emb).units["mrr"]
    assert len(some) == 60 < len(whole)
    assert set(some) <= set(whole)
    assert some.tobytes() == TASKS["edges"](partition).score(emb).units["mrr"].tobytes()
