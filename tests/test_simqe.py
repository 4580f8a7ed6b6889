"""SimQE: its relations and its loss beside dense ones written again, whose answers it reads, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from qcq.data import Simulated
from qcq.errors import TrainingError
from qcq.evaluation import TASKS, Partition
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models import SimQE, TrainingData
from qcq.models.simqe import PRIOR, fused, loss, relations

DECAY = 0.3


@pytest.fixture(scope="module")
def partition() -> Partition:
    return Partition.make(Simulated(questions=70, concepts=9, students=60, responses=30, sets=12, seed=5).read())


@pytest.fixture(scope="module")
def graph(partition: Partition) -> TypedGraph:
    made = SimQE().prepare(partition.graph, partition.split.train)
    assert isinstance(made, TypedGraph)
    return made


def test_relations_are_those_of_a_loop_over_answers(graph: TypedGraph) -> None:
    made = relations(graph, bins=4)
    assert list(made) == ["concepts", "students", "difficulty"]
    assert np.array_equal(made["concepts"].weights.toarray(), graph.weights.toarray())
    assert graph.train is not None
    r, students = graph.train.interactions, sorted(graph.train.students.tolist())
    usual, expected = r.correct.mean(), np.zeros((graph.n_questions, 2 * len(students)))
    for place, s in enumerate(students):
        mine = r.student == s
        ability = (r.correct[mine].sum() + PRIOR * usual) / (mine.sum() + PRIOR)
        for question, right in zip(r.question[mine], r.correct[mine], strict=True):
            if right:
                expected[question, place] += 1 - ability
            else:
                expected[question, len(students) + place] += ability
    assert made["students"].weights.toarray() == pytest.approx(expected)
    assert made["difficulty"].weights.toarray() == pytest.approx(graph.difficulty(4).toarray())


def dense(weights: dict[str, np.ndarray], x, there, student, right) -> float:
    """The loss from its formulas alone: every answer, one after the other."""
    total, squares = 0.0, 0.0
    for each, has, s, good in zip(x, there, student, right, strict=True):
        odds = np.exp(weights["share"]) * has
        beta = odds / odds.sum() if has.any() else odds
        e = sum(beta[r] * weights["map"][r] @ each[r] for r in range(len(each)))
        u = weights["student"][s]
        said = 1 / (1 + np.exp(-(u @ e + weights["ability"][s] + weights["easy"] @ e + weights["constant"])))
        total -= np.log(said if good else 1 - said)
        squares += u @ u
    return float((total + DECAY * squares) / len(x))


def test_the_loss_and_its_gradient_are_those_of_the_dense_formulas() -> None:
    rng = np.random.default_rng(0)
    n, tables, dim, students = 40, 3, 5, 6
    shapes = {
        "map": (tables, dim, dim), "share": (tables,), "student": (students, dim),
        "ability": (students,), "easy": (dim,), "constant": (),
    }  # fmt: skip
    held = {name: np.asarray(0.7 * rng.standard_normal(shape)) for name, shape in shapes.items()}
    x, there = rng.standard_normal((n, tables, dim)), rng.random((n, tables)) < 0.6
    there[0] = False  # a question in no relation
    student, right = rng.integers(0, students, n), rng.integers(0, 2, n)
    weights = {name: torch.tensor(each, requires_grad=True) for name, each in held.items()}
    given = torch.tensor(x), torch.tensor(there), torch.tensor(student), torch.tensor(right, dtype=torch.float64)
    found = loss(weights, *given, DECAY)
    assert found.item() == pytest.approx(dense(held, x, there, student, right), abs=1e-9)
    assert not fused(weights, *given[:2])[0].any()
    torch.autograd.backward(found)
    step = 1e-6
    for name, each in held.items():  # along a direction drawn at random
        way = rng.standard_normal(each.shape)
        ends = [dense({**held, name: each + sign * step * way}, x, there, student, right) for sign in (1, -1)]
        slope = weights[name].grad
        assert slope is not None
        assert float((slope * torch.tensor(way)).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


@pytest.mark.slow
def test_it_knows_difficulty_and_concepts_and_reads_training_students_alone() -> None:
    data = Simulated(questions=150, concepts=8, students=300, responses=60, sets=12, seed=3).read()
    made, trainer = Partition.make(data), SimQE(dim=16, per_question=5)
    assert made.split is not None
    train = made.split.train
    known = trainer.fit(TrainingData(trainer.prepare(made.graph, train)))
    assert known.readouts == ("fused", "concepts", "students", "difficulty")
    blind = trainer.fit(TrainingData(made.graph))
    assert blind.readouts == ("concepts",)
    difficulty, retrieval = TASKS["difficulty"](made), TASKS["retrieval"](made)
    assert difficulty.score(known.embeddings()).metrics["r2"] > 0.6
    assert difficulty.score(blind.embeddings()).metrics["r2"] < 0.3
    assert retrieval.score(known.embeddings("concepts")).metrics["map"] > 0.8
    r = data.interactions
    assert r is not None
    tested = np.isin(r.student, train.students, invert=True)
    turned = replace(data, interactions=replace(r, correct=np.where(tested, 1 - r.correct, r.correct).astype(np.int8)))
    other = Partition.make(turned)
    assert other.split is not None
    again = trainer.fit(TrainingData(trainer.prepare(other.graph, other.split.train)))
    assert np.array_equal(again.embeddings().vectors, known.embeddings().vectors)


def test_what_can_not_be_trained_is_one_line(graph: TypedGraph) -> None:
    bare = KnowledgeGraph(["a", "b"], ["c"], sparse.csr_array((2, 1)))
    with pytest.raises(TrainingError, match=r"^simqe needs edges, and the graph has none$"):
        SimQE().fit(TrainingData(bare))
    with pytest.raises(TrainingError, match=r"diverged in epoch \d of its fusion; lower lr \(given 1e\+30\)$"):
        SimQE(dim=8, per_question=2, lr=1e30).fit(TrainingData(graph))
