"""PEBG: its loss beside a dense one written again in numpy, whose answers it reads, and its place in a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import qcq
from qcq.audit import audit
from qcq.config import Config
from qcq.data import Simulated
from qcq.errors import ConfigError, TrainingError
from qcq.evaluation import TASKS, Partition
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models import PEBG, TrainingData
from qcq.models.pebg import Relations, loss, product
from qcq.pipeline import Experiment
from qcq.run import Run

BALANCE = 0.3


@pytest.fixture(scope="module")
def partition():
    return Partition.make(Simulated(questions=70, concepts=9, students=40, responses=12, sets=12, seed=5).read())


@pytest.fixture(scope="module")
def graph(partition):
    return PEBG().prepare(partition.graph, partition.split.train)


@pytest.fixture(scope="module")
def weights(graph):
    """Weights of every part that are far from zero, so that no term of the loss is small."""
    rng = np.random.default_rng(0)
    start = PEBG(dim=6, vertices=5)._start(graph, 0)
    return {name: np.asarray(0.6 * rng.standard_normal(each.shape), dtype=np.float32) for name, each in start.items()}


def dense(weights, graph, answers, rows) -> float:
    """The joint loss from its formulas alone: every pair, one after the other."""
    w = {name: each.astype(np.float64) for name, each in weights.items()}
    tags = graph.weights.toarray() > 0
    n, m = tags.shape

    def entropy(product, truth):
        said = 1 / (1 + np.exp(-product))
        return -np.log(said if truth else 1 - said)

    first = np.mean([entropy(w["question"][i] @ w["concept"][j], tags[i, j]) for i in rows for j in range(m)])
    second = np.mean(
        [entropy(w["question"][i] @ w["question"][j], (tags[i] & tags[j]).any()) for i in rows for j in range(n)]
    )
    third = np.mean(
        [
            entropy(w["concept"][i] @ w["concept"][j], (tags[:, i] & tags[:, j]).any())
            for i in range(m)
            for j in range(m)
        ]
    )
    off = []
    for i in rows:
        given = answers.correct[answers.question == i]
        if len(given):
            q, s = w["question"][i], w["concept"][tags[i]].mean(axis=0)
            squares = np.array([q @ q, q @ s, s @ q, s @ s])
            e = np.maximum(0, w["linear"] @ np.concatenate([q, s]) + w["quadratic"] @ squares + w["bias"])
            off.append((given.mean() - e @ w["difficulty"] - w["constant"]) ** 2)
    assert 0 < len(off) < len(rows)  # some questions have no training answers
    return float(BALANCE * (first + second + third) + (1 - BALANCE) * np.mean(off))


def test_the_loss_and_its_gradient_are_those_of_the_dense_formulas(partition, graph, weights):
    n, m = graph.n_questions, graph.n_concepts
    rows, answers = np.arange(5, 70), partition.split.train.interactions
    block = Relations.of(graph).block(rows, np.arange(n), np.arange(m))
    found = loss({name: torch.from_numpy(each) for name, each in weights.items()}, block, BALANCE)
    assert float(found) == pytest.approx(dense(weights, graph, answers, rows), abs=1e-5)
    double = {name: torch.from_numpy(each.astype(np.float64)).requires_grad_() for name, each in weights.items()}
    wide = replace(block, **{name: getattr(block, name).double() for name in ("tested", "shared", "joint", "right")})
    torch.autograd.backward(loss(double, wide, BALANCE))
    rng, step = np.random.default_rng(1), 1e-5
    for name in weights:  # along a direction drawn at random
        way = rng.standard_normal(weights[name].shape)
        ends = [
            dense({**weights, name: weights[name].astype(np.float64) + sign * step * way}, graph, answers, rows)
            for sign in (1, -1)
        ]
        slope = float((double[name].grad * torch.from_numpy(way)).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-7), name


@pytest.mark.slow
def test_drawn_columns_estimate_the_loss_over_all(graph, weights):
    made = {name: torch.from_numpy(each) for name, each in weights.items()}
    known, rng = Relations.of(graph), np.random.default_rng(0)
    n, m = graph.n_questions, graph.n_concepts
    whole = float(loss(made, known.block(np.arange(n), np.arange(n), np.arange(m)), BALANCE))
    drawn = [
        float(loss(made, known.block(np.arange(n), rng.choice(n, 15, replace=False), np.arange(m)), BALANCE))
        for _ in range(300)
    ]
    assert abs(np.mean(drawn) - whole) < 4 * np.std(drawn) / np.sqrt(300)
    assert np.std(drawn) > 0


def test_difficulty_of_training_students_is_in_the_vectors_and_only_theirs(partition):
    data = Simulated(questions=150, concepts=8, students=400, responses=60, sets=12, seed=3).read()
    made = Partition.make(data)
    task, trainer = TASKS["difficulty"](made), PEBG(dim=16, epochs=200, lr=1e-2)
    train = made.split.train
    known = trainer.fit(TrainingData(trainer.prepare(made.graph, train))).embeddings()
    blind = trainer.fit(TrainingData(made.graph)).embeddings()
    assert task.score(known).metrics["r2"] > task.score(blind).metrics["r2"] + 0.1
    r = data.interactions
    tested = np.isin(r.student, train.students, invert=True)
    turned = replace(data, interactions=replace(r, correct=np.where(tested, 1 - r.correct, r.correct).astype(np.int8)))
    other = Partition.make(turned)
    again = trainer.fit(TrainingData(trainer.prepare(other.graph, other.split.train))).embeddings()
    assert np.array_equal(again.vectors, known.vectors)


def test_without_answers_there_are_only_vertices(partition, graph):
    trainer = PEBG(dim=6, vertices=5, epochs=2)
    assert trainer.prepare(partition.graph, None) is partition.graph
    assert isinstance(graph, TypedGraph)
    blind, known = (trainer.fit(TrainingData(each)) for each in (partition.graph, graph))
    assert (blind.readouts, known.readouts) == (("vertex",), ("product", "vertex"))
    assert blind.embeddings().dim == known.embeddings("vertex").dim == 5
    assert known.embeddings().dim == 6
    assert len(blind.embeddings().concept_vectors) == partition.graph.n_concepts
    with pytest.raises(TrainingError, match="pebg needs edges"):
        trainer.fit(TrainingData(KnowledgeGraph(["a", "b"], ["c"], partition.graph.weights[:2, :1] * 0)))


def test_dropout_stands_only_in_training(graph, weights):
    made = {name: torch.from_numpy(each) for name, each in weights.items()}
    block = Relations.of(graph).block(np.arange(70))
    torch.manual_seed(0)
    kept, dropped = (product(made, block, each)[0] for each in (0.0, 0.5))
    share = float((dropped[kept > 0] == 0).float().mean())
    assert 0.35 < share < 0.65
    assert torch.allclose(dropped[dropped > 0], 2 * kept[dropped > 0])


def test_a_run_trains_it_once_for_all_walks_and_its_audit_passes(tmp_path, monkeypatch):
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    sections = {
        "simulated": {"questions": 80, "concepts": 8, "students": 60, "responses": 40},
        "pebg": {"epochs": 3, "vertices": 8},
        "walk": {"length": 8, "per_question": 2},
    }
    config = Config(trainers=("pebg", "ppmi-svd"), walks=("qcq", "weighted"), seeds=1, dim=8, sections=sections)
    experiment = Experiment(config)
    run = experiment.run(tmp_path / "run")
    (row,) = [row for row in run.rows("training") if row["trainer"] == "pebg"]
    assert row["walk"] == "none"
    made = run.embeddings("pebg").provenance
    train = experiment.partition.split.train
    assert made["graph_digest"] == TypedGraph.of(experiment.partition.graph, train).digest
    checks = {check.name: check for check in audit(Run(tmp_path / "run"))}
    assert all(check.ok for check in checks.values()), checks
    assert "pebg" in checks["vectors"].found  # it was made again with other answers of the test students


def test_one_table_of_it_says_whose_answers_it_read():
    data = Simulated(questions=60, concepts=8, students=40, responses=30).read()
    small = {"pebg": {"epochs": 2}}
    whole, trained = (qcq.embed(data, trainer="pebg", dim=8, students=s, sections=small) for s in ("all", "train"))
    assert whole.provenance["students"] == 40 > trained.provenance["students"]
    assert not np.array_equal(whole.vectors, trained.vectors)
    bare = qcq.embed(replace(data, interactions=None, students=()), trainer="pebg", dim=8, sections=small)
    assert bare.provenance["students"] == 0


@pytest.mark.parametrize("wrong", [{"balance": 1.0}, {"dropout": 1.0}, {"epochs": 0}, {"columns": 0}])
def test_bad_settings_are_one_line(wrong):
    with pytest.raises(ConfigError, match=f"setting {next(iter(wrong))}"):
        PEBG(**wrong)
