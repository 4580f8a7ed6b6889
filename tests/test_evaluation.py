"""Tasks: figures against brute force and scikit-learn, planted truth, chance, ties, leaks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import norm, spearmanr
from scipy.stats import t as student_t

from qcq.data import Dataset, Simulated, Split, TestPart, TrainPart
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError, LeakageError
from qcq.evaluation import (
    TASKS,
    Contest,
    HeldOut,
    Partition,
    TaskSpec,
    auc_units,
    mean_units,
    paired_bootstrap,
    ranking,
    simultaneous,
    unanswerable,
)
from qcq.evaluation.ranking import (
    Cosines,
    distinct,
    expected_hit,
    expected_precision,
    expected_reciprocal_rank,
    members,
    membership,
)
from qcq.evaluation.statistics import _resampled
from qcq.evaluation.task import SHARE
from qcq.graph import KnowledgeGraph
from qcq.support.seeds import generator
from qcq.support.settings import fields


@pytest.fixture(scope="module")
def data():
    return Simulated(questions=600, concepts=24, students=300, responses=100, sets=40, seed=1).read()


@pytest.fixture(scope="module")
def partition(data):
    return Partition.make(data, seed=0)


def table(partition, vectors):
    return Embeddings(partition.graph.questions, vectors)


def noise(partition, seed, dim=16):
    return table(partition, np.random.default_rng(seed).standard_normal((partition.graph.n_questions, dim)))


def made(partition, name):
    """The task, with settings that make it quick where it has any."""
    cls = TASKS[name]
    quick = {"epochs": 2, "hidden": 8, "tables": ("frozen",)}
    if cls.settings is None:
        return cls(partition)
    return cls(
        partition, cls.settings(**{name: value for name, value in quick.items() if name in fields(cls.settings)})
    )


def tiny(q_matrix, **more):
    w = sparse.csr_array(np.array(q_matrix, dtype=float))
    questions, concepts = ([f"{kind}{i}" for i in range(n)] for kind, n in zip("qc", w.shape, strict=True))
    return Dataset("tiny", questions, concepts, w, **more)


# --- the partition ----------------------------------------------------------------------------------------------------


@budget(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_held_out_edges_leave_every_question_and_concept_with_one(seed):
    rng = np.random.default_rng(seed)
    w = (rng.random((rng.integers(1, 30), rng.integers(1, 6))) < 0.5).astype(float)
    partition = Partition.make(tiny(w), seed=seed)
    left = partition.graph.weights.toarray()
    held = [(q, c) for e in partition.edges.values() for q, c in zip(e.questions, e.concepts, strict=True)]
    assert len(held) == len(set(held)) == w.sum() - left.sum()
    assert all(w[q, c] == 1 and left[q, c] == 0 for q, c in held)
    assert len({q for q, _ in held}) == len(held) <= SHARE * (w.sum(axis=1) > 1).sum() + 0.5
    assert (left.sum(axis=1) >= np.minimum(w.sum(axis=1), 1)).all()
    assert (left.sum(axis=0) >= np.minimum(w.sum(axis=0), 1)).all()
    assert 0 <= len(partition.edges["test"]) - len(partition.edges["validation"]) <= 1


def test_a_concept_about_to_be_emptied_keeps_a_question():
    w = np.zeros((40, 41))
    w[:, 0] = 1
    w[np.arange(40), 1 + np.arange(40)] = 1  # every concept but the first has one question
    for seed in range(5):
        assert (Partition.make(tiny(w), seed=seed).graph.weights.sum(axis=0) > 0).all()


def test_a_problem_is_fixed_by_its_seed(data, partition):
    again, other = Partition.make(data, seed=0), Partition.make(data, seed=1)
    assert again.graph.digest == partition.graph.digest != other.graph.digest
    assert np.array_equal(again.split.train.students, partition.split.train.students)
    assert not np.array_equal(other.split.train.students, partition.split.train.students)


def test_holding_nothing_out_keeps_the_graph_and_closes_the_edges_task(data):
    whole = Partition.make(data, hold_out_edges=False)
    assert whole.graph.n_edges == data.q_matrix.nnz
    for held in whole.edges.values():
        assert len(held.questions) == len(held.concepts) == 0
    with pytest.raises(EvaluationError, match="no validation edges were held out"):
        TASKS["edges"](whole)


def test_what_a_data_set_lacks_is_said():
    alone = Partition.make(tiny(np.eye(4)))
    with pytest.raises(EvaluationError, match="0 questions with several concepts"):
        TASKS["edges"](alone)
    with pytest.raises(EvaluationError, match="1 questions with several concepts"):
        TASKS["edges"](Partition.make(tiny([[1, 1], [1, 0], [0, 1]])))
    with pytest.raises(EvaluationError, match="no two questions of tiny share a concept"):
        TASKS["retrieval"](alone)
    with pytest.raises(EvaluationError, match="no interactions"):
        TASKS["difficulty"](alone)
    with pytest.raises(EvaluationError, match="of 2 questions each has all others as neighbours; it needs 12"):
        TASKS["stability"](Partition.make(tiny(np.eye(2))))
    few = Partition.make(Simulated(questions=15, concepts=3, students=50, responses=20).read())
    with pytest.raises(EvaluationError, match="it needs 20"):
        TASKS["difficulty"](few)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_task_that_compares_seeds_needs_two(seeds):
    tasks = [TaskSpec(name, TASKS[name]) for name in ("retrieval", "stability")]
    found = unanswerable(tasks, Partition.make(tiny(np.ones((20, 1)))), seeds)
    assert found == ({"stability": "stability compares seeds; use at least two"} if seeds == 1 else {})
    with pytest.raises(EvaluationError, match="tiny: none of the tasks can be scored: edges: no validation edges"):
        unanswerable([TaskSpec("edges", TASKS["edges"])], Partition.make(tiny(np.ones((20, 1)))), seeds)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_vector_of_a_concept_is_the_mean_of_its_questions(rows, monkeypatch):
    """Whatever the weights of the edges are; zeros for a concept without questions."""
    monkeypatch.setattr("qcq.evaluation.task._ROWS", rows)
    w = np.array([[1, 0, 0, 0], [2, 0, 0.5, 0], [0, 0, 3, 0], [0, 1, 0, 0], [1, 0, 4, 0], [0, 0, 1, 0], [0, 0, 0.1, 0]])
    task = TASKS["retrieval"](Partition.make(tiny(w), hold_out_edges=False))
    emb = noise(task.partition, 0)
    found = task.concept_vectors(emb)
    for c in range(3):
        assert found[c] == pytest.approx(emb.vectors[w[:, c] > 0].astype(float).mean(axis=0))
    assert (found[3] == 0).all()


# --- ties -----------------------------------------------------------------------------------------------------------


def orders(scores):
    """Every order in which ties can be broken, each once as often as the others."""
    n = len(scores)
    for tiebreak in itertools.permutations(range(n)):
        yield sorted(range(n), key=lambda i: (-scores[i], tiebreak[i]))


@budget(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.integers(1, 4), st.data())
def test_expectations_equal_the_mean_over_all_ways_to_break_ties(scores, k, draw):
    n = len(scores)
    k = min(k, n)
    relevant = sorted(draw.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    target = relevant[0]
    ranks, precision, first, member = [], [], [], np.zeros(n)
    for order in orders(scores):
        ranks.append(order.index(target) + 1)
        hits = np.isin(order, relevant)
        precision.append((hits * np.cumsum(hits) / np.arange(1, n + 1)).sum() / len(relevant))
        first.append(hits[:k].mean())
        member[order[:k]] += 1
    s = np.array(scores)
    better, tied = (s > s[target]).sum(), (s == s[target]).sum() - 1
    assert expected_reciprocal_rank(better, tied) == pytest.approx(np.mean(1 / np.array(ranks)))
    assert expected_hit(better, tied, k) == pytest.approx(np.mean(np.array(ranks) <= k))
    assert expected_precision(s, np.array(relevant), k) == pytest.approx((np.mean(precision), np.mean(first)))
    assert membership(s, k) == pytest.approx(member / len(ranks))


@budget(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_distinct_rows(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (rng.integers(1, 60), rng.integers(1, 4))).astype(np.float32) * np.float32(0.1)
    kept, index = distinct(rows)
    assert np.array_equal(kept[index], rows)
    assert len(kept) == len(np.unique(rows + 0.0, axis=0))


def test_distinct_survives_a_collision_of_keys(monkeypatch):
    monkeypatch.setattr(
        ranking.np.random, "default_rng", lambda seed: SimpleNamespace(integers=lambda *a, **k: np.zeros(3, np.uint64))
    )
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    kept, index = distinct(rows)
    assert np.array_equal(kept[index], rows)
    cosines = Cosines(rows[::-1])  # all differ, in another order than they are kept in
    query, scores, times = next(cosines.of(np.array([0])))
    found, _ = cosines.items(members(scores, 1, times)[0], query)
    assert found.tolist() == [1]


@pytest.mark.parametrize("twice", [False, True])
def test_cosines_are_cosines_block_by_block(twice, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    vectors[7] = 0
    if twice:
        vectors[30:] = vectors[:20]
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)
    dense = vectors @ vectors.T / length[:, None] / length
    for name, value in (("_BLOCK", 120), ("_STRIP", 16), ("_AT_ONCE", 2)):
        monkeypatch.setattr(ranking, name, value)
    cosines = Cosines(vectors)
    for query, row, times in cosines.of(np.array([3, 7, 9, 20, 49])):
        others = np.arange(50) != query
        assert row[cosines.group][others] / ranking.GRID == pytest.approx(dense[query][others], abs=2e-6)
        if times is None:
            assert row[cosines.group[query]] == ranking.LOWEST
        else:
            assert np.array_equal(times, np.bincount(cosines.group[others], minlength=len(row)))


@budget(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_groups_of_equal_rows_give_the_figures_of_single_rows(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 40))
    vectors = rng.integers(-1, 2, (n, 2)).astype(np.float32)  # many rows are equal, many cosines tie
    cosines = Cosines(vectors)
    queries = rng.choice(n, 3, replace=False)
    k = int(rng.integers(1, n))
    for query, row, times in cosines.of(queries):
        plain = np.delete(row[cosines.group], query)
        relevant = np.sort(rng.choice(n - 1, int(rng.integers(1, n)), replace=False))
        grouped = cosines.group[relevant + (relevant >= query)]
        assert expected_precision(row, grouped, k, times) == pytest.approx(expected_precision(plain, relevant, k))
        groups, probability = members(row, k, times)
        rows, place = cosines.items(groups, query)
        found = np.zeros(n)
        found[rows] = probability[place]
        assert np.delete(found, query) == pytest.approx(membership(plain, k))
        assert found[query] == 0
        assert found.sum() == pytest.approx(k)


# --- against scikit-learn -------------------------------------------------------------------------------------------


def test_average_precision_is_scikit_learns_where_nothing_ties():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, label = rng.permutation(40), rng.random(40) < 0.3
        label[0] = True
        ours, first = expected_precision(scores, np.flatnonzero(label), 10)
        assert ours == pytest.approx(average_precision_score(label, scores))
        assert first == pytest.approx(label[np.argsort(-scores)[:10]].mean())


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_edges_figures_equal_a_plain_loop(partition, block, monkeypatch):
    monkeypatch.setattr("qcq.evaluation.edges._BLOCK", block)
    emb = noise(partition, 3)
    score = TASKS["edges"](partition).score(emb, "validation")
    w = partition.graph.weights.toarray() > 0
    means = np.stack([emb.vectors[w[:, c]].mean(axis=0) for c in range(w.shape[1])])
    held = partition.edges["validation"]
    for i, (q, c) in enumerate(zip(held.questions, held.concepts, strict=True)):
        cosine = means @ emb.vectors[q] / np.linalg.norm(means, axis=1) / np.linalg.norm(emb.vectors[q])
        rank = 1 + sum(cosine[d] > cosine[c] for d in range(w.shape[1]) if not w[q, d])
        assert score.units["mrr"][i] == pytest.approx(1 / rank)
        assert score.units["hits@1"][i] == (rank == 1)
        assert score.units["hits@10"][i] == (rank <= 10)
    assert score.metrics["mrr"] == pytest.approx(score.units["mrr"].mean())


def test_difficulty_figures_equal_scikit_learns(partition):
    """The penalty is found again by leaving each training question out, in closed form; the figures by scikit-learn."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    from qcq.evaluation.regression import PENALTIES

    task = TASKS["difficulty"](partition)
    rng = np.random.default_rng(0)
    hard = partition.dataset.truth["difficulty"]
    emb = table(partition, np.column_stack([hard + rng.normal(0, 1, len(hard)), rng.normal(0, 3, (len(hard), 3))]))
    y = partition.split.train.difficulty
    judged = task.questions("test")
    able = np.flatnonzero(partition.split.train.counts >= 5)
    learnt = np.setdiff1d(able, np.r_[task.questions("validation"), judged])
    x = emb.vectors[learnt].astype(float)
    centred = x - x.mean(axis=0)
    scale = np.sqrt((centred**2).mean())

    def left_out(penalty):
        a = centred / scale
        hat = a @ np.linalg.solve(a.T @ a + penalty * np.eye(4), a.T) + 1 / len(a)
        return (((y[learnt] - hat @ y[learnt]) / (1 - np.diag(hat))) ** 2).mean()

    penalty = min(PENALTIES * len(x), key=left_out)
    guess = Ridge(penalty).fit(x / scale, y[learnt]).predict(emb.vectors[judged].astype(float) / scale)
    score = task.score(emb, "test")
    assert score.metrics["r2"] == pytest.approx(r2_score(y[judged], guess))
    assert score.metrics["spearman"] == pytest.approx(spearmanr(y[judged], guess).statistic)
    assert score.units["r2"].mean() == pytest.approx(score.metrics["r2"])


def test_difficulty_divides_the_questions(partition):
    task = TASKS["difficulty"](partition)
    test, validation = set(task.questions("test").tolist()), set(task.questions("validation").tolist())
    assert not test & validation
    able = np.flatnonzero(partition.split.train.counts >= 5)
    assert len(test) == len(validation) == round(0.2 * len(able))
    assert test | validation < set(able.tolist())
    assert (partition.split.train.counts[list(test | validation)] >= 5).all()


def test_twenty_questions_are_enough_for_difficulty():
    for n in (19, 20):
        few = Partition.make(Simulated(questions=n, concepts=3, students=60, responses=15).read())
        assert (few.split.train.counts >= 5).all()
        if n == 20:
            assert len(TASKS["difficulty"](few).score(noise(few, 0)).units["r2"]) == 4
            continue
        with pytest.raises(EvaluationError, match="19 questions of simulated have 5 training responses; it needs 20"):
            TASKS["difficulty"](few)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_questions_of_one_difficulty_have_nothing_to_explain(stage, monkeypatch):
    room = Partition.make(Simulated(questions=40, concepts=3, students=60, responses=30).read())
    task = TASKS["difficulty"](room)
    value = np.arange(40.0)
    value[task.questions(stage)] = 1
    monkeypatch.setattr(TASKS["difficulty"], "target", lambda self, train: value)
    with pytest.raises(EvaluationError, match=f"difficulty: all {stage} questions have the same value"):
        TASKS["difficulty"](room)
    value[task.questions(stage)[0]] = 2  # a range of 1
    TASKS["difficulty"](room)


# --- planted truth and chance ---------------------------------------------------------------------------------------


def harmonic(n):
    return (1 / np.arange(1, n + 1)).sum()


def test_oracles_score_high(data, partition):
    concepts = table(partition, data.q_matrix.toarray())  # knows the held-out edges
    hard = data.truth["difficulty"][:, None]
    assert TASKS["edges"](partition).score(concepts).metrics["mrr"] > 0.9
    assert TASKS["retrieval"](partition).score(concepts).metrics["map"] > 0.9
    difficulty = TASKS["difficulty"](partition)
    from_hard = difficulty.score(table(partition, hard)).metrics
    assert from_hard["r2"] > 0.55
    assert from_hard["spearman"] > 0.75
    assert difficulty.score(concepts).metrics["r2"] < 0.4  # concepts alone can't tell
    assert TASKS["stability"](partition).score(concepts, others=[concepts]).metrics["overlap@10"] == 1


def test_vectors_that_say_nothing_score_exactly_chance(partition):
    zero = table(partition, np.zeros((partition.graph.n_questions, 4)))
    held = partition.edges["test"]
    left = partition.graph.n_concepts - np.diff(partition.graph.weights.indptr)[held.questions]
    edges = TASKS["edges"](partition).score(zero)
    assert edges.units["mrr"] == pytest.approx([harmonic(n) / n for n in left])
    assert edges.metrics["hits@10"] == pytest.approx((10 / left).mean())
    difficulty = TASKS["difficulty"](partition).score(zero).metrics
    assert difficulty["r2"] <= 0
    assert difficulty["spearman"] == 0
    assert (TASKS["stability"](partition).score(zero, others=[zero]).units["overlap@10"] == 1).all()


def test_random_vectors_score_chance_on_average(partition):
    edges, retrieval, stability = (TASKS[name](partition) for name in ("edges", "retrieval", "stability"))
    zero = table(partition, np.zeros((partition.graph.n_questions, 4)))
    tables = [noise(partition, seed) for seed in range(6)]
    for task, metric, spread in ((edges, "mrr", 1), (retrieval, "map", 1), (retrieval, "precision@10", 1)):
        chance = task.score(zero).metrics[metric]
        units = np.concatenate([task.score(t).units[metric] for t in tables])
        # A concept that meets another in many questions has a mean like its own, so units are not quite independent.
        assert units.mean() == pytest.approx(chance, abs=spread * 5 * units.std() / np.sqrt(len(units)) + 0.005)
    overlap = stability.score(tables[0], others=tables[1:]).units["overlap@10"]
    chance = 10 / (partition.graph.n_questions - 1)
    assert overlap.mean() == pytest.approx(chance, abs=5 * overlap.std() / np.sqrt(len(overlap)))
    r2 = [TASKS["difficulty"](partition).score(t).metrics["r2"] for t in tables]
    assert max(r2) < 0.1


def test_stability_counts_shared_neighbours(partition):
    a, b, c = (noise(partition, seed) for seed in (1, 2, 3))
    units = TASKS["stability"](partition).score(a, others=[b, c]).units["overlap@10"]
    for q in range(0, len(units), 97):
        near = [{name for name, _ in e.nearest(partition.graph.questions[q], k=10)} for e in (a, b, c)]
        assert units[q] == pytest.approx((len(near[0] & near[1]) + len(near[0] & near[2])) / 20)


def test_stability_needs_a_question_that_is_no_neighbour():
    """With eleven questions each has all the others as its ten nearest, whatever the table."""
    TASKS["stability"](Partition.make(tiny(np.ones((12, 1)))))
    with pytest.raises(EvaluationError, match="of 11 questions each has all others"):
        TASKS["stability"](Partition.make(tiny(np.ones((11, 1)))))


def test_stability_needs_another_seed(partition):
    with pytest.raises(EvaluationError, match="at least one other seed"):
        TASKS["stability"](partition).score(noise(partition, 0))


# --- what must not matter -------------------------------------------------------------------------------------------


def relabelled(partition, order):
    """The same partition with question order[i] in place i."""
    old, place = partition.graph, np.argsort(order)
    graph = KnowledgeGraph([old.questions[i] for i in order], old.concepts, old.weights[order])
    edges = {stage: HeldOut(place[held.questions], held.concepts) for stage, held in partition.edges.items()}
    return replace(partition, graph=graph, edges=edges)


@pytest.mark.parametrize("name", ["edges", "retrieval", "stability"])
def test_relabelling_questions_permutes_the_result(partition, name):
    order = np.random.default_rng(5).permutation(partition.graph.n_questions)
    moved = relabelled(partition, order)
    a, b = noise(partition, 0), noise(partition, 1)
    before = TASKS[name](partition).score(a, others=[b])
    after = TASKS[name](moved).score(table(moved, a.vectors[order]), others=[table(moved, b.vectors[order])])
    for metric, value in before.metrics.items():
        assert after.metrics[metric] == pytest.approx(value, abs=1e-12)
    for metric, values in before.units.items():
        if name == "edges":
            assert after.units[metric] == pytest.approx(values, abs=1e-12)
        else:
            assert np.sort(after.units[metric]) == pytest.approx(np.sort(values), abs=1e-12)


THERE = [  # tasks whose tool is installed
    pytest.param(name, marks=pytest.mark.skipif(bool(cls.missing()), reason=cls.missing()))
    for name, cls in sorted(TASKS.items())
]


@pytest.mark.parametrize("name", THERE)
def test_rotating_and_scaling_a_table_changes_nothing(partition, name):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0] * 3
    a, b = noise(partition, 0), noise(partition, 1)
    task = made(partition, name)
    before = task.score(a, others=[b]).metrics
    after = task.score(table(partition, a.vectors @ turn), others=[b]).metrics
    assert after == pytest.approx(before, abs=2e-3)


@pytest.mark.parametrize("name", THERE)
def test_scoring_twice_gives_the_same_and_changes_no_input(partition, name):
    a, b = noise(partition, 0), noise(partition, 1)
    kept = [a.vectors.copy(), b.vectors.copy(), partition.graph.digest]
    task = made(partition, name)
    first, second = task.score(a, others=[b]), task.score(a, others=[b])
    assert first.metrics == second.metrics
    assert task.metric in first.metrics
    assert all(np.isfinite(list(first.metrics.values())))
    for metric, values in first.units.items():
        assert first.metrics[metric] == pytest.approx(values.mean())
    assert np.array_equal(a.vectors, kept[0])
    assert np.array_equal(b.vectors, kept[1])
    assert replace(partition.graph).digest == kept[2]


@pytest.mark.parametrize("name", THERE)
def test_embeddings_of_other_questions_are_refused(partition, name):
    task = TASKS[name](partition)
    a = noise(partition, 0)
    with pytest.raises(EvaluationError, match="599 question vectors for 600"):
        task.score(Embeddings(a.ids[1:], a.vectors[1:]), others=[a])
    with pytest.raises(EvaluationError, match="row 0 of the embeddings is question 'q599'"):
        task.score(Embeddings(a.ids[::-1], a.vectors), others=[a])


# --- leaks ----------------------------------------------------------------------------------------------------------


def test_only_the_training_part_is_learnt_from(data, partition):
    split = partition.split
    assert TrainPart.checked(split.train) is split.train
    for offered in (split.test, split.validation, data, data.interactions, split):
        with pytest.raises(LeakageError, match=f"given {type(offered).__name__}"):
            TrainPart.checked(offered)
    with pytest.raises(LeakageError):
        Split(0, split.test, split.validation, split.test)
    smuggled = SimpleNamespace(train=split.test)
    with pytest.raises(LeakageError, match="given TestPart"):
        TASKS["difficulty"](replace(partition, split=smuggled))


def test_a_student_stands_in_one_part(data, partition):
    split = partition.split
    everybody = np.arange(len(data.students), dtype=np.int32)
    with pytest.raises(LeakageError, match="are in ValidationPart too"):
        Split(0, TrainPart(data, everybody, data.interactions), split.validation, split.test)
    with pytest.raises(LeakageError, match="are in ValidationPart too"):
        Split(0, TrainPart(data, split.train.students, data.interactions), split.validation, split.test)
    with pytest.raises(LeakageError, match="are in TestPart too"):
        Split(0, split.train, split.validation, TestPart(data, split.train.students, split.train.interactions))


def test_a_response_of_another_part_is_refused(partition):
    split = partition.split
    both = np.union1d(split.train.students, split.test.students)
    mixed = replace(split.train, interactions=partition.dataset.interactions.of(both))
    with pytest.raises(LeakageError, match="are in TestPart too"):
        Split(0, mixed, split.validation, split.test)


def test_responses_of_other_students_change_nothing(data, partition):
    """Turn every answer of validation and test students around: graph, target and score stay."""
    outside = ~np.isin(data.interactions.student, partition.split.train.students)
    turned = replace(
        data.interactions, correct=np.where(outside, 1 - data.interactions.correct, data.interactions.correct)
    )
    other = Partition.make(replace(data, interactions=turned), seed=0)
    assert other.graph.digest == partition.graph.digest
    emb = noise(partition, 0)
    before, after = (TASKS["difficulty"](p).score(emb).units["r2"] for p in (partition, other))
    assert np.array_equal(before, after)


def test_a_held_out_edge_has_no_part_in_its_concepts_vector():
    """q0 gave up b. With it, b's mean would be (0.25, 0), right beside q0; without it b ranks behind c."""
    graph = KnowledgeGraph.from_edges([("q0", "a"), ("q1", "b"), ("q2", "c")])
    held = HeldOut(np.array([0]), np.array([1]))
    partition = Partition(tiny(np.eye(3)), None, graph, {"validation": held, "test": held}, 0)
    score = TASKS["edges"](partition).score(table(partition, np.array([[1, 0], [-0.5, 0], [0.5, 1]])))
    assert score.units["mrr"].tolist() == [pytest.approx(0.5)]


# --- statistics -----------------------------------------------------------------------------------------------------


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = []
    for trial in range(300):
        base = rng.random(80)
        ours = base + rng.exponential(0.2, 80)  # mean difference 0.2, skewed
        d = paired_bootstrap(ours, base, draws=400, seed=trial)
        hits.append(d.low <= 0.2 <= d.high)
    assert 0.90 < np.mean(hits) < 0.99


def test_clusters_are_drawn_whole():
    """Five units a cluster share most of their difference: drawn one by one the interval is far too short."""
    rng = np.random.default_rng(1)
    label = np.repeat(np.arange(60), 5)
    whole, single = [], []
    for trial in range(200):
        ours = rng.normal(0, 1, 60)[label] + rng.normal(0, 0.3, 300)
        for hits, groups in ((whole, label), (single, None)):
            d = paired_bootstrap(ours, np.zeros(300), groups, draws=300, seed=trial)
            hits.append(not d.decided)
    assert 0.88 < np.mean(whole) < 0.99
    assert np.mean(single) < 0.8


@pytest.mark.parametrize("block", [1, 30, 1 << 22])
@pytest.mark.parametrize(("level", "low", "high"), [(0.4, 0.25, 0.25), (0.6, 0.0, 1.0)])
def test_the_ends_of_an_interval_are_quantiles(level, low, high, block, monkeypatch):
    """Of two clusters, one unit with 1 and three with 0: means are 0, 1/4 and 1 with probability 1/4, 1/2 and 1/4."""
    monkeypatch.setattr("qcq.evaluation.statistics._BLOCK", block)
    d = paired_bootstrap([1.0, 0, 0, 0], np.zeros(4), ["a", "b", "b", "b"], level=level)
    assert (d.mean, d.low, d.high) == (0.25, low, high)


def test_a_difference_says_what_it_rests_on():
    d = paired_bootstrap([1.0, 2, 3, 4], [0.0, 1, 2, 3], groups=["a", "a", "b", "c"])
    assert (d.mean, d.low, d.high, d.units, d.clusters) == (1, 1, 1, 4, 3)
    assert d.decided
    assert not paired_bootstrap([1.0, 2], [1.0, 2]).decided
    assert paired_bootstrap([1.0, 2, 5], [1.0, 3, 2], seed=1) == paired_bootstrap([1.0, 2, 5], [1.0, 3, 2], seed=1)


@pytest.mark.parametrize("groups", [None, ["a", "a"]])
def test_one_unit_decides_nothing(groups):
    figures = np.array([[0.9], [0.4]]) if groups is None else np.array([[0.9, 0.8], [0.4, 0.3]])
    (found,) = simultaneous([Contest(figures, [(0, 1)], groups)])
    for d in (*found, paired_bootstrap(*figures, groups)):
        assert (d.low, d.high, d.decided) == (-np.inf, np.inf, False)
        assert str(d) == "+0.500 (no interval: it rests on one unit)"


def test_the_same_figures_have_the_same_interval():
    figures = np.sqrt(np.arange(2.0, 42))  # no two samples have the same mean
    d = [paired_bootstrap(figures, np.zeros(40)) for _ in range(3)]
    assert d[0] == d[1] == d[2]


def test_answers_that_are_all_alike_have_no_area():
    for answers, said in (([1, 1], "right"), ([0, 0], "wrong"), ([], "wrong")):
        with pytest.raises(EvaluationError, match=f"all {len(answers)} responses are {said}; there is no area"):
            auc_units(answers, [0.5] * len(answers))


def test_questions_of_one_value_have_nothing_to_predict(data):
    right = np.ones_like(data.interactions.correct)
    alike = Partition.make(replace(data, interactions=replace(data.interactions, correct=right)))
    with pytest.raises(EvaluationError, match="questions have the same value; no variance to explain"):
        TASKS["difficulty"](alike)


def test_pairs_that_are_none_are_refused():
    with pytest.raises(EvaluationError, match="equally long"):
        paired_bootstrap([1.0, 2], [1.0])
    with pytest.raises(EvaluationError, match="equally long"):
        paired_bootstrap([], [])
    with pytest.raises(EvaluationError, match="figure 1 of the pairs isn't finite"):
        paired_bootstrap([1.0, np.nan], [1.0, 2])
    with pytest.raises(EvaluationError, match="3 group labels for 2 pairs"):
        paired_bootstrap([1.0, 2], [1.0, 2], groups=[1, 2, 3])


def test_intervals_asked_for_together_hold_together():
    """Eight tables that differ in noise only, part of it shared: one by one, some interval misses far too often."""
    rng = np.random.default_rng(2)
    pairs = [(i, 0) for i in range(1, 9)]
    together, singly, alone = [], [], []
    for trial in range(200):
        figures = rng.normal(0, 1, (9, 60)) + rng.exponential(1, 60)
        (found,) = simultaneous([Contest(figures, pairs)], draws=400, seed=trial)
        together.append(all(not d.decided for d in found))
        single = [paired_bootstrap(figures[i], figures[j], draws=400, seed=trial) for i, j in pairs]
        singly.append(all(not d.decided for d in single))
        alone += [not simultaneous([Contest(figures, pairs[:1])], draws=400, seed=trial)[0][0].decided]
        assert found[0].comparisons == 8
        assert found[0].mean == pytest.approx(single[0].mean)
        assert found[0].high - found[0].low > single[0].high - single[0].low
    assert 0.90 < np.mean(together) < 0.99
    assert np.mean(singly) < 0.85
    assert 0.90 < np.mean(alone) < 0.99


def test_simultaneous_intervals_are_their_formula():
    """Two contests of six and of nine clusters of several sizes, from the same draws as the function takes."""
    rng = np.random.default_rng(5)
    contests, size = [], 4 * np.arange(1, 4)
    for n in (6, 9):
        label = np.repeat(np.arange(n), np.resize(size, n))
        contests.append(
            Contest(rng.normal(0, 1, (3, n))[:, label] + rng.normal(0, 1, (3, len(label))), [(0, 1)], label)
        )
    contests[1] = replace(contests[1], pairs=[(0, 1), (2, 0)])
    found = simultaneous(contests, level=0.9, draws=300, seed=3)
    worst, rows = np.zeros(300), []
    for contest in contests:
        label = np.asarray(contest.groups)
        n = label.max() + 1
        total = np.stack([np.bincount(label, row) for row in contest.figures])
        means = _resampled(total, np.bincount(label), 300, generator(3, "bootstrap"))
        for i, j in contest.pairs:
            mean = contest.figures[i].mean() - contest.figures[j].mean()
            away = means[:, i] - means[:, j] - mean
            spread = away.std(ddof=1)
            worst = np.maximum(worst, np.abs(away) / spread)
            rows.append((mean, spread, n, len(label)))
    tail = norm.sf(np.quantile(worst, 0.9))
    for d, (mean, spread, n, units) in zip([*found[0], *found[1]], rows, strict=True):
        half = student_t.isf(tail, n - 1) * spread * np.sqrt(n / (n - 1))
        assert (d.mean, d.low, d.high) == pytest.approx((mean, mean - half, mean + half))
        assert (d.units, d.clusters, d.comparisons) == (units, n, 3)


@pytest.mark.parametrize("size", [1e-13, 1.0, 1e13])
def test_a_difference_that_is_the_same_in_every_unit_widens_no_other(size):
    """Up to rounding, at every scale, also where some figure is 0."""
    rng = np.random.default_rng(6)
    large = np.r_[0.0, rng.normal(0, 1e6, 39)]
    figures = size * np.stack([*rng.normal(0, 1e6, (2, 40)), large, large + 0.1])
    alone, among = (simultaneous([Contest(figures, pairs)])[0][0] for pairs in ([(0, 1)], [(0, 1), (3, 2)]))
    assert (alone.low, alone.high) == (among.low, among.high)
    plain = simultaneous([Contest(figures / size, [(0, 1)])])[0][0]
    assert (alone.low, alone.high) == pytest.approx((size * plain.low, size * plain.high))


def test_contests_on_different_units_are_corrected_for_each_other():
    rng = np.random.default_rng(3)
    figures = rng.normal(0, 1, (2, 80))
    alone = simultaneous([Contest(figures, [(0, 1)])])[0][0]
    others = [Contest(rng.normal(0, 1, (2, 50 + i)), [(0, 1)]) for i in range(19)]
    among = simultaneous([Contest(figures, [(0, 1)]), *others])[0][0]
    # Twenty independent comparisons: near the normal quantiles of 0.975 and, by Bonferroni, of 1 - 0.025 / 20.
    assert (among.high - among.low) / (alone.high - alone.low) == pytest.approx(3.02 / 1.96, abs=0.12)
    same = simultaneous([Contest(np.stack([figures[0]] * 2), [(0, 1)])])[0][0]
    assert (same.low, same.high, same.decided) == (0, 0, False)
    with pytest.raises(EvaluationError, match="isn't finite"):
        simultaneous([Contest(np.array([[1.0, np.nan]]), [(0, 0)])])
    with pytest.raises(EvaluationError, match="figure 1 of the pairs isn't finite"):
        simultaneous([Contest(np.array([[1.0, 2, 3], [1, np.inf, 3]]), [(0, 1)])])
    with pytest.raises(EvaluationError, match=r"figures of shape \(3,\); give \(tables, units\), one unit at least"):
        simultaneous([Contest(np.zeros(3), [(0, 1)])])
    with pytest.raises(EvaluationError, match="one unit at least"):
        simultaneous([Contest(np.zeros((2, 0)), [(0, 1)])])


@budget(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_area_under_the_curve_is_the_mean_of_its_units(seed):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 80))
    truth, score = rng.integers(0, 2, n), rng.integers(0, 6, n) / 4  # many ties
    truth[:2] = 0, 1
    student = rng.integers(0, 5, n)
    for groups, clusters in ((None, n), (student, len(set(student.tolist())))):
        units = auc_units(truth, score, groups)
        assert len(units) == clusters
        assert units.mean() == pytest.approx(roc_auc_score(truth, score))
    assert mean_units(score, student).mean() == pytest.approx(score.mean())
    with pytest.raises(EvaluationError, match="are right"):
        auc_units(np.ones(n), score)


def test_the_interval_of_an_area_covers_the_truth_when_students_are_drawn():
    """Two readers of the same students, whose answers and whose readers' errors go together inside a student."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(4)

    def school(students):
        n = rng.integers(5, 40, students)
        student = np.repeat(np.arange(students), n)
        level = rng.normal(0, 1, students)[student] + rng.normal(0, 0.5, n.sum())
        truth = rng.random(n.sum()) < 1 / (1 + np.exp(-1.5 * level))
        own = [rng.normal(0, s, students)[student] + rng.normal(0, s, n.sum()) for s in (0.5, 0.9)]
        return truth, level + own[0], level + own[1], student

    truth, one, two, _ = school(8_000)
    expected = roc_auc_score(truth, one) - roc_auc_score(truth, two)
    students, responses = [], []
    for trial in range(100):
        truth, one, two, student = school(80)
        for hits, groups in ((students, student), (responses, None)):
            d = paired_bootstrap(auc_units(truth, one, groups), auc_units(truth, two, groups), draws=250, seed=trial)
            assert d.mean == pytest.approx(roc_auc_score(truth, one) - roc_auc_score(truth, two))
            hits.append(d.low <= expected <= d.high)
    assert 0.90 < np.mean(students) < 0.99
    assert np.mean(responses) < 0.85
