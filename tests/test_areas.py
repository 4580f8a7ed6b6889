"""Areas taken apart: brute force and scikit-learn to 1e-12, planted worlds, students drawn, answers kept back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import qcq
from qcq import cli
from qcq.data import Simulated
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation import TASKS, Pairs, Partition, auc_units, balanced, bootstrap_decomposition, decompose
from qcq.evaluation.tracing import models as tracing
from qcq.evaluation.tracing.models import MODELS, Sequences, Tracer
from qcq.evaluation.tracing.tasks import AHEAD, Attempts, KTSettings, first_meetings, principal
from qcq.support.seeds import generator

CLOSE = pytest.approx
EXACT: dict[str, Any] = {"rel": 1e-12, "abs": 1e-12}


def world(seed: int, n: int = 60, students: int = 6, questions: int = 5, levels: int = 8):
    """Answers with ties: truth, scores, students, questions."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    truth[:2] = 0, 1
    return truth, rng.integers(0, levels, n) / 7, rng.integers(0, students, n), rng.integers(0, questions, n)


def brute(truth, score, weight=None, keep=lambda i, j: True):
    """Won and whole weight of the pairs, one by one."""
    weight = np.ones(len(truth)) if weight is None else weight
    won = total = 0.0
    for i in np.flatnonzero(truth):
        for j in np.flatnonzero(truth == 0):
            if keep(i, j):
                w = weight[i] * weight[j]
                total += w
                won += w * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
    return won, total


# --- against brute force and scikit-learn ---------------------------------------------------------------------------


@budget(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 9), st.integers(1, 9))
def test_the_decomposition_is_brute_force_and_adds_up(seed, n, students, levels):
    truth, score, student, _ = world(seed, n, students, levels=levels)
    found = decompose(truth, score, student)
    won, total = brute(truth, score)
    own, of_own = brute(truth, score, keep=lambda i, j: student[i] == student[j])
    assert found.pooled == CLOSE(won / total, **EXACT)
    assert found.pooled == CLOSE(roc_auc_score(truth, score), **EXACT)
    assert found.share == CLOSE(of_own / total, **EXACT)
    means = [
        roc_auc_score(truth[student == s], score[student == s])
        for s in np.unique(student)
        if 0 < truth[student == s].sum() < (student == s).sum()
    ]
    assert np.isnan(found.mean) if not means else found.mean == CLOSE(np.mean(means), **EXACT)
    assert np.isnan(found.within) if of_own == 0 else found.within == CLOSE(own / of_own, **EXACT)
    if total > of_own:
        assert found.between == CLOSE((won - own) / (total - of_own), **EXACT)
    within, between = np.nan_to_num(found.within), np.nan_to_num(found.between)
    assert found.pooled == CLOSE(found.share * within + (1 - found.share) * between, **EXACT)


@budget(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_pairs_within_strata_with_weights_are_brute_force(seed, levels):
    truth, score, _, question = world(seed, levels=levels)
    weight = np.random.default_rng(seed).gamma(1.0, size=len(truth)) * (np.arange(len(truth)) % 5 > 0)
    found = Pairs.of(truth, score, question, weight)
    won, total = brute(truth, score, weight, lambda i, j: question[i] == question[j])
    assert (found.won, found.total) == CLOSE((won, total), **EXACT)
    both = Pairs.of(truth, score, weights=weight)
    if both.total:
        assert both.area == CLOSE(roc_auc_score(truth, score, sample_weight=weight), rel=1e-12)


def test_the_balanced_area_is_the_mean_over_all_samples():
    """Every sample of a small world, drawn one by one; and scikit-learn's area on many draws of a larger one."""
    from itertools import combinations, product

    truth = np.array([1, 1, 1, 0, 1, 0, 0, 1, 1])
    score = np.array([3, 1, 2, 2, 5, 1, 4, 0, 9])
    question = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    choices = []
    for q in range(3):
        kinds = [np.flatnonzero((question == q) & (truth == k)).tolist() for k in (0, 1)]
        m = min(map(len, kinds))
        choices += [list(combinations(kind, m)) for kind in kinds]
    areas = []
    for drawn in product(*choices):
        kept = np.array([i for part in drawn for i in part])
        areas.append(roc_auc_score(truth[kept], score[kept]))
    assert len(areas) == 6
    assert Pairs.of(truth, score, weights=balanced(truth, question)).area == CLOSE(np.mean(areas), **EXACT)

    truth, score, _, question = world(3, n=400, questions=12)
    rng, found = np.random.default_rng(0), []
    for _ in range(600):
        some = []
        for q in range(12):
            both = [np.flatnonzero((question == q) & (truth == k)) for k in (0, 1)]
            some += [i for kind in both for i in rng.choice(kind, min(map(len, both)), replace=False)]
        found.append(roc_auc_score(truth[some], score[some]))
    wanted = Pairs.of(truth, score, weights=balanced(truth, question)).area
    assert np.mean(found) == CLOSE(wanted, abs=4 * np.std(found) / np.sqrt(600))


def test_many_answers_take_a_sort_and_not_all_pairs():
    rng = np.random.default_rng(0)
    n = 400_000
    truth, score = rng.integers(0, 2, n), rng.integers(0, 50, n) / 49
    began = time.process_time()
    found = decompose(truth, score, rng.integers(0, 2000, n))
    Pairs.of(truth, score, weights=balanced(truth, rng.integers(0, 20_000, n)))
    assert time.process_time() - began < 20  # all pairs would be 4e10
    assert found.pooled == CLOSE(0.5, abs=0.01)


def test_what_has_no_pairs_is_said():
    assert np.isnan(Pairs.of([1, 1, 0], [0.2, 0.3, 0.4], ["a", "b", "c"]).area)
    with pytest.raises(EvaluationError, match="no stratum has both right and wrong answers"):
        Pairs.of([1, 0], [0.2, 0.3], ["a", "b"]).units(["a", "b"])
    with pytest.raises(EvaluationError, match="all 2 answers are right"):
        decompose([1, 1], [0.1, 0.2], [0, 1])
    with pytest.raises(EvaluationError, match="score 1 isn't finite"):
        Pairs.of([1, 0], [0.2, np.nan])
    with pytest.raises(EvaluationError, match="3 scores"):
        Pairs.of([1, 0], [0.2, 0.1, 0.3])


# --- students as units ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_units_are_the_derivative_by_a_students_weight(seed):
    truth, score, student, question = world(seed)
    step = 1e-6
    for strata, inside, weight in (
        (None, False, None),
        (student, True, None),
        (question, False, None),
        (None, False, balanced(truth, question)),
    ):
        found = Pairs.of(truth, score, strata, weight)
        units = found.units(student, inside)
        assert units.mean() == CLOSE(found.area, **EXACT)
        assert len(units) == len(np.unique(student))
        base = np.ones(len(truth)) if weight is None else weight
        for place, s in enumerate(np.unique(student)):
            # A pair inside a student belongs to this copy of the student alone: its weight grows once, not squared.
            more = np.where(student == s, np.sqrt(1 + step) if inside else 1 + step, 1.0)
            slope = (Pairs.of(truth, score, strata, base * more).area - found.area) / step
            assert units[place] == CLOSE(found.area + len(units) * slope, abs=2e-5)
    assert Pairs.of(truth, score).units(student) == CLOSE(auc_units(truth, score, student), **EXACT)


def test_the_student_bootstrap_is_the_drawn_data_set():
    truth, score, student, _ = world(1, n=80)
    low, high = bootstrap_decomposition(truth, score, student, draws=40, seed=7)
    rng, found = generator(7, "bootstrap", "decomposition"), []
    n = len(np.unique(student))
    for _ in range(40):
        drawn = rng.integers(0, n, n)
        rows = [np.flatnonzero(student == s) for s in drawn]
        copy = np.concatenate([np.full(len(at), k) for k, at in enumerate(rows)])
        kept = np.concatenate(rows)
        found.append(decompose(truth[kept], score[kept], copy))
    for name in ("pooled", "within", "between", "share", "mean"):
        wanted = np.nanquantile([getattr(each, name) for each in found], [0.025, 0.975])
        assert (getattr(low, name), getattr(high, name)) == CLOSE(wanted, **EXACT)
        assert getattr(low, name) < getattr(decompose(truth, score, student), name) < getattr(high, name)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Students who differ in ability and a score of the question alone: the area within a student is known."""
    held, worlds, hard = 0, 120, np.linspace(-2, 2, 12)
    p = 1 / (1 + np.exp(hard))
    difference = np.sign(np.subtract.outer(-hard, -hard))
    pair = np.outer(p, 1 - p)
    np.fill_diagonal(pair, 0)
    truth_within = float((pair * (difference + 1) / 2).sum() / pair.sum())
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        answers = (rng.random((40, 12)) < p).astype(int)
        student, score = np.repeat(np.arange(40), 12), np.tile(-hard, 40)
        low, high = bootstrap_decomposition(answers.ravel(), score, student, draws=200, seed=seed)
        held += low.within <= truth_within <= high.within
    assert 0.87 * worlds <= held <= worlds


# --- planted worlds -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partition():
    return Partition.make(
        Simulated(questions=150, concepts=10, students=160, responses=50, sets=12, seed=3).read(), seed=0
    )


def test_who_knows_only_questions_has_exactly_a_half_within_them(partition):
    """And in the balanced sample; and who knows only students has a half within students."""
    attempts = Attempts(partition, "kt")
    r = partition.split.test.interactions
    mean = 1 - np.nan_to_num(attempts.train.difficulty, nan=0.5)
    found = attempts.judge(mean[r.question], "test").metrics
    assert found["auc-within-questions"] == 0.5
    assert found["auc-balanced"] == CLOSE(0.5, **EXACT)
    assert found["auc"] > 0.6
    assert found["auc-within-students"] > 0.6
    share = np.bincount(r.student, r.correct) / np.maximum(np.bincount(r.student), 1)
    found = attempts.judge(share[r.student], "test").metrics
    assert found["auc-within-students"] == found["auc-mean-student"] == 0.5
    assert found["auc-within-questions"] > 0.6
    assert found["auc-between-students"] > found["auc"]


def test_the_area_within_questions_is_the_planted_one():
    """Able students answer right with 0.8, the others with 0.3, whatever the question; the score tells them apart."""
    rng = np.random.default_rng(0)
    able = rng.random(4000) < 0.5
    question = rng.integers(0, 40, (4000, 20))
    right = (rng.random((4000, 20)) < np.where(able, 0.8, 0.3)[:, None]).ravel().astype(int)
    score = np.repeat(able, 20) + 10.0 * question.ravel()  # a useless preference for some questions beside it
    a, b = 0.8 * 0.5 / 0.55, 0.2 * 0.5 / 0.45  # P(able | right), P(able | wrong)
    wanted = a * (1 - b) + (a * b + (1 - a) * (1 - b)) / 2
    assert Pairs.of(right, score, question.ravel()).area == CLOSE(wanted, abs=0.005)
    assert Pairs.of(right, score).area == CLOSE(0.5 + (wanted - 0.5) / 40, abs=0.01)


def test_figures_of_a_task_are_named_listed_and_described(partition, capsys):
    score = TASKS["kt-fast"](partition).score(
        Embeddings(partition.graph.questions, np.random.default_rng(0).standard_normal((150, 6)).astype(np.float32))
    )
    figures = TASKS["kt-fast"].figures
    new = {"auc-within-students", "auc-between-students", "within-share", "auc-mean-student", "auc-within-questions"}
    new |= {"auc-balanced", "auc-first", f"auc-next-{AHEAD}"}
    assert new <= set(score.metrics) <= set(figures)
    page = (Path(qcq.__file__).parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in new)
    for name in new - {"auc-between-students", "within-share", "auc-mean-student"}:
        assert score.units[name].mean() == CLOSE(score.metrics[name], **EXACT)
    with pytest.raises(SystemExit):
        cli.main(["list", "tasks", "--json"])
    listed = {row["name"]: row["figures"] for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert new <= set(listed["kt"])
    assert listed["edges"] == {}


# --- answers kept back ----------------------------------------------------------------------------------------------


def uneven(partition, lengths):
    r = partition.split.train.interactions
    n = sum(lengths)
    student = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return Sequences(replace(r, student=student, question=r.question[:n], correct=r.correct[:n]), np.zeros(n, int))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [100, 12])
def test_ahead_is_what_is_known_before_the_block(partition, monkeypatch, model, size):
    """Beside `mastery` after the answers before each block; what is answered inside the block changes nothing there."""
    monkeypatch.setattr(tracing, "CHUNK", size)
    rng = np.random.default_rng(0)
    vectors = principal(rng.standard_normal((150, 8)))
    tracer = Tracer(vectors, np.zeros((1, 150, 0), np.float32), False, KTSettings(model=model, hidden=12), 0)
    part = uneven(partition, [1, 43, 5, 4, 25, 13])
    ahead, plain = tracer.predict(part, AHEAD), tracer.predict(part)
    for begin, length in zip(part.begin, part.length, strict=True):
        mine = slice(begin, begin + length)
        question, correct = part.question[mine], part.correct[mine]
        known = tracer.mastery(question, correct, np.arange(150))
        for t in range(length):
            assert ahead[begin + t] == CLOSE(known[t - t % AHEAD, question[t]], abs=1e-5)
            if t % AHEAD == 0:
                assert ahead[begin + t] == CLOSE(plain[begin + t], abs=1e-5)
    at = part.begin[1] + 10
    part.correct[at : at + AHEAD] = 1 - part.correct[at : at + AHEAD]
    turned = tracer.predict(part, AHEAD)
    assert turned[: at + AHEAD] == CLOSE(ahead[: at + AHEAD], abs=1e-6)
    assert np.abs(turned[at + AHEAD :] - ahead[at + AHEAD :]).max() > 1e-4


def test_history_of_the_stand_in_ends_before_the_block(partition):
    task = TASKS["kt-fast"](partition)
    vectors = principal(np.random.default_rng(0).standard_normal((150, 6)))
    plain, _ = task._features(vectors, "validation")
    ahead, _ = task._features(vectors, "validation", AHEAD)
    r = partition.split.validation.interactions
    begin = np.flatnonzero(np.r_[True, r.student[1:] != r.student[:-1]])
    number = np.arange(len(r)) - np.maximum.accumulate(np.isin(np.arange(len(r)), begin) * np.arange(len(r)))
    assert np.array_equal(ahead[number % AHEAD == 0], plain[number % AHEAD == 0])
    inside = np.flatnonzero((number % AHEAD == 3) & (number > AHEAD))[0]
    assert ahead[inside, 2] == CLOSE(np.log1p(number[inside] - 3))
    other = replace(r, correct=np.where(np.arange(len(r)) == inside - 1, 1 - r.correct, r.correct))
    task.attempts.parts["validation"] = replace(task.attempts.parts["validation"], interactions=other)
    assert np.array_equal(task._features(vectors, "validation", AHEAD)[0][inside], ahead[inside])
    assert not np.array_equal(task._features(vectors, "validation")[0][inside], plain[inside])


def test_first_meetings_are_a_plain_loop(partition):
    r = partition.split.test.interactions
    again = replace(r, question=r.question % 20)  # many met twice
    seen, wanted = set(), []
    for pair in zip(again.student.tolist(), again.question.tolist(), strict=True):
        wanted.append(pair not in seen)
        seen.add(pair)
    assert first_meetings(again).tolist() == wanted
    assert not all(wanted)


def test_transfer_is_judged_where_the_question_is_new():
    """Who repeats a student's last answer to the same question, and guesses else, has a half at first meetings."""
    rng = np.random.default_rng(0)
    data = Simulated(questions=60, concepts=6, students=120, responses=40, seed=1).read()
    r = data.interactions
    question = rng.integers(0, 12, len(r)).astype(np.int32)
    fixed = {}
    correct = np.array(
        [fixed.setdefault((s, q), int(rng.random() < 0.5)) for s, q in zip(r.student, question, strict=True)],
        dtype=np.int8,
    )
    partition = Partition.make(replace(data, interactions=replace(r, question=question, correct=correct)))
    attempts = Attempts(partition, "kt")
    r = partition.split.test.interactions
    first = first_meetings(r)
    guess = np.where(first, 0.5, 0.1 + 0.8 * r.correct)
    found = attempts.judge(guess, "test").metrics
    assert found["auc-first"] == 0.5
    assert found["auc"] > 0.8
