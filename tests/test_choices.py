"""Choices, chance and corner cases whose wrong versions look right: each test fails for one such version.

Where something is chosen on validation, the right choice is neither the first nor the last, nor the best on training.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from qcq.data import Simulated
from qcq.data.dataset import Dataset, Interactions
from qcq.embeddings import Embeddings
from qcq.evaluation import TASKS, Partition
from qcq.evaluation.ranking import expected_precision
from qcq.evaluation.statistics import Contest, simultaneous
from qcq.evaluation.tracing import fast, models
from qcq.evaluation.tracing.tasks import TABLE_MODES, KTSettings
from qcq.floors.losses import HeldOutLoss, verdict
from qcq.floors.objectives import Masked, SkipGram
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.walks import WALKS
from qcq.walks.counter import draw
from qcq.walks.sampler import Sampler


@pytest.fixture(scope="module")
def partition() -> Partition:
    return Partition.make(Simulated(questions=60, concepts=6, students=60, responses=12).read(), seed=0)


def test_no_two_walks_share_a_random_number() -> None:
    length, walks = 7, np.arange(50)
    numbers = np.stack([draw(np.uint64(3), walks, length, t, which) for t in range(length) for which in (0, 1)])
    assert len(np.unique(numbers)) == numbers.size == 2 * length * len(walks)


@pytest.mark.parametrize("compiled", [False, True])
def test_walks_whose_numbers_would_overlap_are_independent(compiled: bool) -> None:
    """On a ring of equal questions a step is one number; an overlap would make walks share their second halves."""
    graph = KnowledgeGraph.from_edges([(f"q{i}", "c") for i in range(1_000)])
    tokens, _ = Sampler(WALKS["qcq"](length=20, per_question=1), graph, 0, compiled).sample()
    later, earlier = tokens[1:, 1:10], tokens[:-1, 11:20]
    assert (later == earlier).mean() < 0.01  # one in 999 by chance


@pytest.mark.parametrize("compiled", [False, True])
def test_a_walk_of_one_question_never_ends_early(compiled: bool) -> None:
    matrix = sparse.csr_array(np.array([[1.0], [0.0]]))
    graph = KnowledgeGraph.from_dataset(Dataset("d", ["q", "alone"], ["c"], matrix))
    for length, early in ((1, 0), (2, 3)):
        tokens, counts = Sampler(WALKS["qcq"](length=length, per_question=3), graph, 0, compiled).sample()
        assert counts[0] == early
        assert (tokens[tokens[:, 0] == 1, 1:] == -1).all()


def test_the_table_mode_is_the_best_on_validation(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first, the last, nor the one that is ahead in the last epoch."""
    histories = dict(zip(TABLE_MODES, ([0.6, 0.7, 0.5], [0.6, 0.8, 0.4], [0.65, 0.66, 0.67]), strict=True))
    made: list[str] = []

    class Planned:
        def __init__(self, vectors: Any, features: Any, moves: bool, plan: KTSettings, seed: int) -> None:
            made.append(list(TABLE_MODES)[len(made)])
            self.history = histories[made[-1]]

        def fit(self, train: Any, validation: Any) -> None: ...

        def predict(self, sequences: Any, ahead: int = 1) -> Any:
            return np.linspace(0.1, 0.9, len(partition.split.test.interactions), dtype=np.float32)

    monkeypatch.setattr(models, "Tracer", Planned)
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    score = TASKS["kt"](partition).score(Embeddings(list(partition.graph.questions), vectors))
    assert made == list(TABLE_MODES)
    assert score.choices == {"way": "fine-tuned"}


def test_a_tracer_keeps_its_best_epoch(partition: Partition) -> None:
    task = TASKS["kt"](partition, KTSettings(tables=("fine-tuned",), epochs=12, patience=12, lr=0.05, hidden=16))
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    tracer = task.tracer(Embeddings(list(partition.graph.questions), vectors))
    held = task.attempts.sequences("validation")
    assert int(np.argmax(tracer.history)) < len(tracer.history) - 1  # it overfits, or this test says nothing
    assert models.auc(tracer.predict(held), held.correct) == pytest.approx(max(tracer.history), abs=1e-6)


def test_the_penalty_of_kt_fast_is_chosen_on_validation(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three planned fits: the first is best on training, the second on validation, the third on neither."""
    task = TASKS["kt-fast"](partition)
    fits = iter([np.array([5.0]), np.array([1.0]), np.array([-1.0])])
    monkeypatch.setattr(fast, "_fit", lambda x, y, penalty: next(fits))

    def features(vectors: Any, part: str, ahead: int = 1) -> tuple[Any, Any]:
        x = np.tile([[1.0], [-1.0]], (40, 1))
        truth = (x[:, 0] > 0).astype(float)
        if part == "validation":
            truth[::4] = 1 - truth[::4]  # a quarter of these are noise: large weights are punished
        return x, truth

    seen: list[Any] = []
    monkeypatch.setattr(task, "_features", features)
    monkeypatch.setattr(task.attempts, "judge", lambda p, stage, ahead=None: seen.append(p) or SimpleNamespace())
    monkeypatch.setattr(fast, "principal", lambda v: np.zeros((60, 0), np.float32))
    task.score(Embeddings(list(partition.graph.questions), np.ones((60, 2))), "test")
    assert seen[0][0] == pytest.approx(1 / (1 + np.exp(-1.0)))


@pytest.mark.parametrize("clusters", [3, 5, 10, 50])
def test_simultaneous_intervals_cover_what_they_promise(clusters: int) -> None:
    """Of 95 % intervals of a true difference of 0, about 95 % contain it, for few clusters too."""
    rng = np.random.default_rng(clusters)
    trials, held = 400, 0
    for trial in range(trials):
        figures = np.stack([rng.normal(size=clusters), np.zeros(clusters)])
        [[found]] = simultaneous([Contest(figures, [(0, 1)])], draws=400, seed=trial)
        held += found.low <= 0 <= found.high
    assert held / trials > {3: 0.86, 5: 0.90}.get(clusters, 0.92)
    assert held / trials < 0.99


def test_duplicate_students_stay_out_of_a_published_split() -> None:
    student = np.repeat(np.arange(6), 4).astype(np.int32)
    data = Dataset(
        "d",
        [f"q{i}" for i in range(4)],
        ["c"],
        sparse.csr_array(np.ones((4, 1))),
        Interactions(student, np.tile(np.arange(4), 6).astype(np.int32), np.ones(24, dtype=np.int8)),
        students=[f"s{i}" for i in range(6)],
        parts=np.array([0, 0, 1, 1, 2, 2], dtype=np.int8),
        left_out=np.array([1, 5]),
    )
    split = data.split()
    assert [part.students.tolist() for part in (split.train, split.validation, split.test)] == [[0], [2, 3], [4]]


def test_a_rise_within_three_standard_errors_is_no_overfitting() -> None:
    rise: dict[str, Any] = {"loss": 1.1, "floor": 0.5, "unigram": 5.0, "blank": 6.0, "history": [1.5, 1.0]}
    assert verdict(**rise, se=0.05) == "under-trained"
    assert verdict(**rise, se=0.02) == "overfitting"


def test_spectral_is_the_regularised_one() -> None:
    """Against the dense formula; without regularisation the leading vectors of many components span other questions."""
    rng = np.random.default_rng(0)
    edges = [(f"q{i}", f"c{i % 7}") for i in range(70)] + [(f"q{i}", f"c{rng.integers(7, 12)}") for i in range(40)]
    graph = KnowledgeGraph.from_edges(edges)
    w = graph.weights.toarray()

    def dense(more: float) -> np.ndarray:
        rows, columns = w.sum(axis=1), w.sum(axis=0)
        scaled = w / np.sqrt(rows + more * rows.mean())[:, None] / np.sqrt(columns + more * columns.mean())
        u = np.linalg.svd(scaled, full_matrices=False)[0][:, :3]
        return u @ u.T  # (questions, questions), the same for every choice of signs

    vectors = TRAINERS["spectral"](dim=3).fit(TrainingData(graph, WALKS["qcq"](), 0)).embeddings().vectors
    assert np.allclose(vectors @ vectors.T, dense(1.0), atol=1e-4)
    assert not np.allclose(dense(1.0), dense(0.0), atol=1e-2)


@pytest.mark.parametrize("keep", [False, True])
def test_the_unigram_of_walks_without_a_chain_counts_only_tokens_that_can_occur(keep: bool) -> None:
    edges = [(f"q{i}", f"c{c}") for i in range(12) for c in (i, (i + 1) % 12)]  # as many concepts as questions
    graph = KnowledgeGraph.from_edges(edges)
    walk = WALKS["restart"](length=10, per_question=20, probability=0.3, keep_concepts=keep)
    source = TrainingData(graph, walk, 0)
    batch = Masked().held_out_batch(source.heldout, 0)
    held = HeldOutLoss(source, batch)
    assert held.floor is None
    size = 24 if keep else 12
    tokens = np.concatenate([shard[shard >= 0] for shard in source.corpus.shards])
    share = np.bincount(tokens, minlength=size) + 1.0
    assert len(share) == size
    assert held.unigram == pytest.approx(-np.log(share / share.sum())[batch.targets].mean())


def test_precision_with_fewer_candidates_than_its_depth() -> None:
    """Of three candidates one is relevant: a third, whatever the depth beyond three."""
    for k in (3, 10):
        assert expected_precision(np.array([3, 2, 1]), np.array([1]), k)[1] == pytest.approx(1 / 3)


def test_the_uninformed_loss_of_skipgram_counts_no_skipped_negatives() -> None:
    """On two questions nearly half of all drawn negatives equal the output and are skipped."""
    graph = KnowledgeGraph.from_edges([("q0", "c"), ("q1", "c")])
    source = TrainingData(graph, WALKS["qcq"](length=10, per_question=20), 0)
    objective = SkipGram()
    batch = objective.held_out_batch(source.heldout, 0)
    assert batch.pairs is not None
    assert (batch.pairs[:, 2:] < 0).mean() > 0.3
    nothing = objective.losses(batch, np.zeros((len(batch), 1 + objective.negative)))
    assert objective.blank(batch) == pytest.approx(nothing.mean())
    more = replace(batch, pairs=np.where(batch.pairs < 0, 1 - batch.pairs[:, 1:2], batch.pairs).astype(np.int32))
    assert objective.blank(more) > objective.blank(batch)
