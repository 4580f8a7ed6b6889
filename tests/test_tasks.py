"""The tasks that aren't asked by default: figures against plain loops, planted truth, chance, what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy import sparse

from qcq.data import Dataset, Simulated
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation import TASKS, Discrimination, HeldOut, Partition
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData


@pytest.fixture(scope="module")
def data():
    return Simulated(questions=400, concepts=24, students=200, responses=60, sets=40, seed=1).read()


@pytest.fixture(scope="module")
def partition(data):
    return Partition.make(data, seed=0)


def table(partition, vectors):
    return Embeddings(partition.graph.questions, vectors)


def noise(partition, seed, dim=16):
    return table(partition, np.random.default_rng(seed).standard_normal((partition.graph.n_questions, dim)))


def tiny(q_matrix, **more):
    w = sparse.csr_array(np.array(q_matrix, dtype=float))
    questions, concepts = ([f"{kind}{i}" for i in range(n)] for kind, n in zip("qc", w.shape, strict=True))
    return Dataset("tiny", questions, concepts, w, **more)


# --- all of them ----------------------------------------------------------------------------------------------------


def test_the_oracle_comes_first_and_noise_last_wherever_an_answer_was_planted(partition, data):
    """Against every baseline; an oracle knows what was planted, and that is another thing for each task."""
    many = Partition.make(Simulated(questions=400, concepts=24, students=4000, responses=60, sets=40, seed=1).read())
    truth, tags = data.truth, data.q_matrix.toarray()
    linked = np.eye(24)
    for a, b in data.prerequisites:
        linked[int(a[1:]), int(b[1:])] = linked[int(b[1:]), int(a[1:])] = 0.7
    oracles = {
        "edges": (partition, tags),  # held-out edges and all
        "difficulty": (partition, truth["difficulty"][:, None]),
        "discrimination": (many, np.column_stack([many.dataset.truth[k] for k in ("discrimination", "difficulty")])),
        "prerequisites": (partition, tags @ linked),
    }
    for name, (asked, vectors) in oracles.items():
        task = TASKS[name](asked)
        source = TrainingData(asked.graph)
        tables = {b: TRAINERS[b](dim=16).fit(source).embeddings() for b in ("concept-mean", "concept-onehot", "svd")}
        figures = {b: task.score(e).metrics[task.metric] for b, e in tables.items()}
        oracle = task.score(table(asked, vectors)).metrics[task.metric]
        random = np.mean([task.score(noise(asked, seed)).metrics[task.metric] for seed in range(5)])
        assert oracle > max(figures.values()) + 0.05, (name, oracle, figures)
        assert random < min(figures.values()) + 0.05, (name, random, figures)
        assert oracle > random + 0.2


# --- edges: negatives as frequent as answers ------------------------------------------------------------------------


def test_matched_negatives_equal_a_plain_loop(partition, data):
    emb = noise(partition, 3)
    score = TASKS["edges"](partition).score(emb, "test")
    w, whole = partition.graph.weights.toarray() > 0, data.q_matrix.toarray() > 0
    means = np.stack([emb.vectors[w[:, c]].mean(axis=0) for c in range(w.shape[1])])
    often = [sum(1 / row.sum() for row in whole if row[c] and row.sum() > 1) for c in range(w.shape[1])]
    held = partition.edges["test"]
    for i, (q, c) in enumerate(zip(held.questions, held.concepts, strict=True)):
        cosine = means @ emb.vectors[q] / np.linalg.norm(means, axis=1)
        rivals = [d for d in range(w.shape[1]) if not w[q, d] and d != c]
        won = sum(often[d] for d in rivals if cosine[d] < cosine[c])
        assert score.units["matched"][i] == pytest.approx(won / sum(often[d] for d in rivals))


@budget(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_edges_with_ties_and_concepts_without_questions_equal_a_plain_loop(seed):
    """Few directions, so that many cosines tie; concepts that no question has left, and questions without rivals."""
    rng = np.random.default_rng(seed)
    n, k = 14, int(rng.integers(2, 7))
    whole = rng.random((n, k)) < rng.choice([0.1, 0.3, 0.6])
    whole[:4, :2] = True
    held = [(q, int(rng.choice(np.flatnonzero(whole[q])))) for q in range(4)]
    left = whole.copy()
    left[tuple(np.transpose(held))] = False
    left[:, rng.integers(k)] = False  # somebody's only concept may be among them
    for c in {c for _, c in held}:
        left[4, c] = whole[4, c] = True  # an answer has a question left
    graph = KnowledgeGraph([f"q{i}" for i in range(n)], [f"c{i}" for i in range(k)], sparse.csr_array(left * 1.0))
    asked = HeldOut(*np.array(held).T)
    partition = Partition(tiny(whole), None, graph, {"validation": asked, "test": asked}, 0)
    emb = table(partition, rng.integers(-1, 2, (n, 2)))
    score = TASKS["edges"](partition).score(emb)
    often = [sum(1 / row.sum() for row in whole if row[c] and row.sum() > 1) for c in range(k)]

    def cosine(a, b):
        size = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / size if size else 0.0

    for i, (q, c) in enumerate(held):
        near = {d: cosine(emb.vectors[q], emb.vectors[left[:, d]].mean(axis=0)) for d in range(k) if left[:, d].any()}
        rivals = [d for d in near if d != c and not left[q, d]]
        above = [d for d in rivals if near[d] > near[c] + 1e-6]
        level = [d for d in rivals if abs(near[d] - near[c]) <= 1e-6]
        ranks = len(above) + 1 + np.arange(len(level) + 1)
        assert score.units["mrr"][i] == pytest.approx((1 / ranks).mean())
        assert score.units["hits@1"][i] == pytest.approx((ranks <= 1).mean())
        total = sum(often[d] for d in rivals)
        won = total - sum(often[d] for d in above) - sum(often[d] for d in level) / 2
        assert score.units["matched"][i] == pytest.approx(won / total if total else 0.5)


def test_knowing_what_is_frequent_beats_chance_in_mrr_but_not_among_matched_negatives():
    """Concept 0 is the answer to nearly everything; a table that ranks it first for everybody knows nothing else."""
    rng = np.random.default_rng(0)
    popular = 1 / (1 + np.arange(20.0)) ** 1.5
    w = np.zeros((800, 20))
    for row in w:
        row[rng.choice(20, 2, replace=False, p=popular / popular.sum())] = 1
    partition = Partition.make(tiny(w))
    left = partition.graph.weights.toarray()
    # In the second dimension lies the popularity of a question's concepts, in the first what all have in common.
    vectors = np.column_stack([np.ones(800), np.zeros(800)])
    held = partition.edges["test"]
    vectors[:, 1] = np.where(left[:, 0] > 0, 0.0, 1.0)
    asked = np.flatnonzero(left.sum(axis=1) == 1)
    vectors[asked, 1] = 0.0  # whoever is asked points to concept 0
    score = TASKS["edges"](partition).score(table(partition, vectors))
    chance = TASKS["edges"](partition).score(table(partition, np.zeros((800, 2))))
    assert chance.metrics["matched"] == pytest.approx(0.5)
    assert score.metrics["mrr"] > chance.metrics["mrr"] + 0.1
    assert abs(score.metrics["matched"] - 0.5) < 0.1
    assert len(held) > 100


# --- discrimination -------------------------------------------------------------------------------------------------


@budget(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_item_rest_correlation_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    n, students = 6, 12
    student = np.sort(rng.integers(0, students, 150)).astype(np.int32)
    question = rng.integers(0, n, 150).astype(np.int32)
    correct = rng.integers(0, 2, 150).astype(np.int8)
    data = tiny(np.eye(n), interactions=Interactions(student, question, correct), students=list(map(str, range(12))))
    train = replace(data.split(fractions=(0.0, 0.0)).train)
    partition = Partition.make(replace(data, parts=np.zeros(12, dtype=np.int8)))
    assert len(partition.split.train.interactions) == len(train.interactions) == 150
    found = Discrimination.target(None, train)
    share = [correct[question == q].mean() for q in range(n)]
    rest = correct - np.array(share)[question]
    for q in range(n):
        mine = np.flatnonzero(question == q)
        elsewhere = []
        for i in mine:
            others = rest[(student == student[i]) & (question != q)]
            elsewhere.append(others.sum() / max(len(others), 1))
        expected = np.corrcoef(correct[mine], elsewhere)[0, 1] if 0 < share[q] < 1 else np.nan
        assert found[q] == pytest.approx(expected, nan_ok=True)


def test_planted_discrimination_is_found_where_students_are_many():
    data = Simulated(questions=300, concepts=16, students=4000, responses=60, sets=24, seed=2).read()
    task = TASKS["discrimination"](Partition.make(data))
    sharp, hard = data.truth["discrimination"], data.truth["difficulty"]
    knows = task.score(table(task.partition, np.column_stack([sharp, hard]))).metrics
    assert knows["r2"] > 0.2
    assert knows["spearman"] > 0.4
    assert task.score(noise(task.partition, 0)).metrics["r2"] < 0.05


def test_discrimination_says_what_is_missing():
    few = Partition.make(Simulated(questions=100, concepts=5, students=40, responses=20).read())
    with pytest.raises(EvaluationError, match=r"discrimination: .* questions of simulated have 20 training responses"):
        TASKS["discrimination"](few)


# --- prerequisites --------------------------------------------------------------------------------------------------


def test_prerequisite_ranks_equal_a_plain_loop(partition, data):
    emb = noise(partition, 5)
    score = TASKS["prerequisites"](partition).score(emb)
    w = partition.graph.weights.toarray() > 0
    pure = w & (w.sum(axis=1) == 1)[:, None]
    means = np.stack([emb.vectors[pure[:, c]].mean(axis=0) for c in range(w.shape[1])])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosine = means @ means.T
    links = sorted({(min(int(a[1:]), int(b[1:])), max(int(a[1:]), int(b[1:]))) for a, b in data.prerequisites})
    near = {c: {b for a, b in links if a == c} | {a for a, b in links if b == c} for c in range(w.shape[1])}
    expected, hits = [], []
    for a, b in links:
        ranks = [
            1 + sum(cosine[x, c] > cosine[x, y] for c in range(w.shape[1]) if c != x and c not in near[x])
            for x, y in ((a, b), (b, a))
        ]
        expected.append(np.mean([1 / r for r in ranks]))
        hits.append(np.mean([r <= 3 for r in ranks]))
    assert score.units["mrr"] == pytest.approx(expected)
    assert score.units["hits@3"] == pytest.approx(hits)
    assert 0 < score.metrics["hits@3"] < 1


def test_prerequisites_are_found_by_who_knows_the_concepts_and_by_nobody_else(partition, data):
    task = TASKS["prerequisites"](partition)
    concepts = data.q_matrix.toarray()
    after = np.zeros((24, 24))
    for a, b in data.prerequisites:
        after[int(a[1:]), int(b[1:])] = after[int(b[1:]), int(a[1:])] = 0.7
    knows = task.score(table(partition, concepts @ (np.eye(24) + after))).metrics
    tags = task.score(table(partition, concepts)).metrics
    chance = np.mean([task.score(noise(partition, seed)).metrics["mrr"] for seed in range(4)])
    assert knows["mrr"] > 0.65
    assert knows["mrr"] > tags["mrr"] + 0.15 > chance + 0.3
    assert chance < 0.25  # although the questions of two linked concepts are often the same
    nothing = task.score(table(partition, np.zeros((400, 3)))).units["mrr"]
    assert (nothing < 0.25).all()  # all tied: the mean of 1/rank over every order


def test_links_are_the_same_in_both_stages_so_nothing_is_chosen_by_them(partition):
    task, emb = TASKS["prerequisites"](partition), noise(partition, 0)
    one, two = (task.score(emb, stage).units for stage in ("validation", "test"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not task.tunes


def test_links_between_concepts_without_questions_are_not_asked():
    with pytest.raises(EvaluationError, match="tiny knows of 0 links"):
        TASKS["prerequisites"](Partition.make(tiny(np.eye(4))))
    with pytest.raises(EvaluationError, match="tiny knows of 0 links"):
        TASKS["prerequisites"](Partition.make(tiny([[1, 0], [1, 0]], prerequisites=(("c0", "c1"),))))


# --- clusters -------------------------------------------------------------------------------------------------------


@budget(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_bcubed_figures_equal_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    w = rng.random((14, 4)) < 0.45
    w[:2, 0] = True
    label = rng.integers(0, 3, int((w.sum(axis=1) > 0).sum()))
    partition = Partition.make(tiny(w), hold_out_edges=False)

    class Fixed:
        def __init__(self, *_, **__):
            pass

        def fit_predict(self, rows):
            assert len(rows) == len(label)
            return label

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.cluster.KMeans", Fixed)
        score = TASKS["clusters"](partition).score(noise(partition, 0, dim=3))
    tagged = w[w.any(axis=1)].astype(int)
    share = tagged @ tagged.T > 0
    same = label[:, None] == label
    precision = (share & same).sum(axis=1) / same.sum(axis=1)
    recall = (share & same).sum(axis=1) / share.sum(axis=1)
    assert score.units["bcubed-precision"] == pytest.approx(precision)
    assert score.units["bcubed-recall"] == pytest.approx(recall)
    assert score.units["bcubed"] == pytest.approx(2 / (1 / precision + 1 / recall))


def test_clusters_of_one_concept_each_are_perfect():
    w = np.eye(6)[np.random.default_rng(0).integers(0, 6, 200)]
    partition = Partition.make(tiny(w))
    task = TASKS["clusters"](partition)
    perfect = task.score(table(partition, w + 0.0)).metrics
    assert (perfect["bcubed"], perfect["v-measure"]) == (pytest.approx(1), pytest.approx(1))
    assert task.score(noise(partition, 0)).metrics["bcubed"] < 0.35
    with pytest.raises(EvaluationError, match="clusters: no two questions of tiny share a concept"):
        TASKS["clusters"](Partition.make(tiny(np.eye(4))))


def test_two_questions_on_one_concept_are_enough_for_clusters():
    partition = Partition.make(tiny([[1, 0], [1, 0], [0, 1]]))
    vectors = np.array([[1, 0], [1, 0.1], [0, 1]])
    assert TASKS["clusters"](partition).score(table(partition, vectors)).metrics["bcubed"] == pytest.approx(1)


# --- geometry -------------------------------------------------------------------------------------------------------


def test_geometry_equals_plain_loops(partition):
    emb = noise(partition, 7, dim=5)
    score = TASKS["geometry"](partition).score(emb)
    x = emb.vectors.astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    w = partition.graph.weights.toarray() > 0
    share = (w.astype(int) @ w.T.astype(int)) > 0
    np.fill_diagonal(share, False)
    cosine = x @ x.T
    other = ~np.eye(len(x), dtype=bool)
    asked = np.flatnonzero(share.any(axis=1))
    near = np.array([cosine[q, share[q]].mean() for q in asked])
    assert score.units["contrast"] == pytest.approx(near - [cosine[q, other[q]].mean() for q in asked])
    apart = ((x[:, None] - x) ** 2).sum(axis=2)
    assert score.units["alignment"] == pytest.approx([apart[q, share[q]].mean() for q in asked])
    assert score.metrics["uniformity"] == pytest.approx(np.log(np.exp(-2 * apart[other]).mean()))
    values = np.linalg.svd(emb.vectors.astype(float) - emb.vectors.mean(axis=0), compute_uv=False)
    p = values / values.sum()
    assert score.metrics["effective-rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    axes = np.linalg.svd(x)[2]
    z = np.exp(x @ np.vstack([axes, -axes]).T).sum(axis=0)
    assert score.metrics["isotropy"] == pytest.approx(z.min() / z.max())


def test_geometry_of_tables_whose_shape_is_known(partition):
    task = TASKS["geometry"](partition)
    n = partition.graph.n_questions
    wide = task.score(noise(partition, 1, dim=20)).metrics
    assert wide["effective-rank"] == pytest.approx(20, abs=1)
    assert wide["isotropy"] > 0.8
    line = task.score(table(partition, np.linspace(1, 2, n)[:, None] * np.ones(8))).metrics
    assert line["effective-rank"] == pytest.approx(1)
    assert line["uniformity"] == pytest.approx(0, abs=1e-6)
    assert line["isotropy"] < 0.2
    same = task.score(table(partition, np.ones((n, 4)))).metrics
    assert (same["effective-rank"], same["contrast"]) == (0, pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_the_effective_rank_of_a_flat_table_counts_its_directions_alone(partition, size):
    """Three directions in eight dimensions; the other five are rounding, at every scale."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((partition.graph.n_questions, 3)) * [1, 2, 4] @ rng.standard_normal((3, 8))
    p = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)[:3]
    p /= p.sum()
    found = TASKS["geometry"](partition).score(table(partition, size * wide)).metrics["effective-rank"]
    assert found == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_held_out_edges_stay_unknown():
    """A question that gave up its only tie to another one isn't asked about it."""
    graph = KnowledgeGraph.from_edges([("q0", "a"), ("q1", "b"), ("q2", "b")])
    held = HeldOut(np.array([0]), np.array([1]))
    partition = Partition(tiny([[1, 1], [0, 1], [0, 1]]), None, graph, {"validation": held, "test": held}, 0)
    assert len(TASKS["geometry"](partition).score(noise(partition, 0)).units["contrast"]) == 2
