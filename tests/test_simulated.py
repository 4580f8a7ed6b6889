"""The simulated classroom: what was planted is recovered from what it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from qcq.data import DATASETS
from qcq.data.simulated import KNOWN, MASTERED, RATE, Simulated
from qcq.errors import ConfigError, DataError, UnknownNameError


@pytest.fixture(scope="module")
def room():
    return Simulated(questions=800, concepts=24, students=500, responses=100, sets=40).read()


def members(data):
    w = data.q_matrix
    return [w.indices[w.indptr[q] : w.indptr[q + 1]].tolist() for q in range(w.shape[0])]


def bytes_of(data):
    w, seen = data.q_matrix, data.interactions
    arrays = [w.indptr, w.indices, w.data, seen.student, seen.question, seen.correct, seen.timestamp]
    return b"".join(np.ascontiguousarray(a).tobytes() for a in [*arrays, *(data.truth[k] for k in sorted(data.truth))])


def test_it_is_registered_and_says_what_it_is(room):
    assert DATASETS["simulated"] is Simulated
    assert not Simulated.needs_path
    assert room.name == "simulated"
    assert "distinct concept sets" in room.notes[0]
    assert len(room.question_names) == len(room.questions) == 800
    assert len(set(room.concept_names.values())) == 24


def test_the_classroom_has_the_promised_shape(room):
    sizes = np.diff(room.q_matrix.indptr)
    assert sizes.min() == 1
    assert sizes.max() <= 4
    assert (room.q_matrix.sum(axis=0) > 0).all()
    assert (np.bincount(room.interactions.student) == 100).all()
    assert (np.diff(room.interactions.student) >= 0).all()
    time = room.interactions.timestamp.reshape(500, 100)
    assert (np.diff(time, axis=1) > 0).all()


def test_prerequisites_are_an_order_and_neighbours_meet_in_questions(room):
    before, after = room.truth["prerequisites"].T
    assert (before < after).all()  # so there is no cycle
    linked = set(zip(before.tolist(), after.tolist(), strict=True))
    several = [m for m in members(room) if len(m) > 1]
    assert several
    for m in several:
        for c in m:
            assert any((c, d) in linked or (d, c) in linked for d in m)


def test_mastery_follows_the_equations_and_no_question_comes_before_its_prerequisites(room):
    concepts = members(room)
    needs = [np.array([], dtype=int) for _ in room.concepts]
    for a, b in room.truth["prerequisites"].tolist():
        needs[b] = np.append(needs[b], a)
    question = room.interactions.question.reshape(500, 100)
    level = room.truth["mastery"].reshape(500, 100)
    for s in range(0, 500, 10):
        m = np.where(np.arange(24) < room.truth["entry"][s], KNOWN, 0.0)
        for t in range(100):
            its = concepts[question[s, t]]
            assert level[s, t] == pytest.approx(m[its].mean())
            for c in its:
                assert (m[needs[c]] >= MASTERED).all()
            m[its] += RATE * (1 - m[its])


def test_responses_follow_the_planted_probabilities(room):
    y, p = room.interactions.correct, room.truth["probability"]
    bins = np.clip((p * 10).astype(int), 0, 9)
    z = np.bincount(bins, y - p, 10) / np.sqrt(np.bincount(bins, p * (1 - p), 10))
    assert np.abs(z[np.bincount(bins, minlength=10) > 50]).max() < 4


def test_difficulty_correlates_with_the_correct_rate_as_theory_predicts(room):
    """A rate over n responses is the mean probability plus noise of variance Σ p (1 - p) / n²."""
    q, p = room.interactions.question, room.truth["probability"]
    n = np.bincount(q, minlength=800)
    keep = n >= 20
    assert keep.sum() > 500

    def total(values):
        return np.bincount(q, values, 800)[keep]

    rate, mean = total(room.interactions.correct) / n[keep], total(p) / n[keep]
    noise = total(p * (1 - p)) / n[keep] ** 2
    predicted = np.sqrt(mean.var() / (mean.var() + noise.mean()))
    assert np.corrcoef(rate, mean)[0, 1] == pytest.approx(predicted, abs=0.02)
    assert np.corrcoef(rate, -room.truth["difficulty"][keep])[0, 1] > 0.8


def test_difficulty_is_recovered_within_its_standard_error(room):
    """Given ability and discrimination, the best b solves Σ y = Σ σ(a (θ - b)), with error 1/√information."""
    seen, truth = room.interactions, room.truth
    theta = truth["ability"][seen.student] + 2.0 * truth["mastery"]
    z = []
    for q in range(800):
        of = seen.question == q
        right, n = seen.correct[of].sum(), of.sum()
        if n < 30 or right in (0, n):
            continue
        a, b = truth["discrimination"][q], 0.0
        for _ in range(50):
            p = expit(a * (theta[of] - b))
            b += np.clip((p.sum() - right) / (a * (p * (1 - p)).sum()), -1, 1)
        z.append((b - truth["difficulty"][q]) * a * np.sqrt((p * (1 - p)).sum()))
    assert len(z) > 400
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z)) + 0.05  # the estimate has a small bias of order 1/n
    assert 0.85 < np.std(z) < 1.15


def test_learning_curves_rise(room):
    """The same students on the same single concept: the sixth response is right more often than the first."""
    single = np.diff(room.q_matrix.indptr) == 1
    seen = room.interactions
    of = np.flatnonzero(single[seen.question])
    concept = room.q_matrix.indices[room.q_matrix.indptr[seen.question[of]]]
    key = seen.student[of].astype(np.int64) * 24 + concept
    order = np.argsort(key, kind="stable")
    start = np.flatnonzero(np.diff(key[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(start, np.diff(np.append(start, len(order))))
    long = np.repeat(np.diff(np.append(start, len(order))) >= 6, np.diff(np.append(start, len(order))))
    y, p = seen.correct[of][order], room.truth["probability"][of][order]
    gain = y[long & (place == 5)].mean() - y[long & (place == 0)].mean()
    expected = p[long & (place == 5)].mean() - p[long & (place == 0)].mean()
    assert expected > 0.08
    assert gain == pytest.approx(expected, abs=4 * np.sqrt(0.5 / (long & (place == 0)).sum()))
    assert gain > 0.04


def test_without_gain_nobody_gets_better():
    data = Simulated(questions=200, concepts=8, students=100, responses=30, gain=0).read()
    a, b = data.truth["discrimination"], data.truth["difficulty"]
    q, s = data.interactions.question, data.interactions.student
    assert np.allclose(data.truth["probability"], expit(a[q] * (data.truth["ability"][s] - b[q])))


def test_same_seed_same_bytes_other_seed_other_classroom():
    small = {"questions": 100, "concepts": 12, "students": 30, "responses": 20}
    first = bytes_of(Simulated(**small, seed=3).read())
    assert first == bytes_of(Simulated(**small, seed=3).read())
    assert first != bytes_of(Simulated(**small, seed=4).read())


def test_more_responses_leave_the_questions_as_they_are():
    few, many = (Simulated(questions=100, concepts=12, students=9, responses=n).read() for n in (5, 50))
    assert (few.q_matrix != many.q_matrix).nnz == 0
    assert np.array_equal(few.truth["difficulty"], many.truth["difficulty"])


def test_students_are_simulated_block_by_block(monkeypatch):
    import qcq.data.simulated as module

    monkeypatch.setattr(module, "BLOCK", 7)
    data = Simulated(questions=60, concepts=8, students=20, responses=15).read()
    assert np.array_equal(np.bincount(data.interactions.student), np.full(20, 15))
    assert len(data.truth["ability"]) == 20


def test_responses_block_by_block_are_those_of_the_data_set(monkeypatch):
    import qcq.data.simulated as module

    monkeypatch.setattr(module, "BLOCK", 7)
    room = Simulated(questions=60, concepts=8, students=20, responses=15)
    whole, blocks = room.read().interactions, list(room.blocks())
    assert [len(block) for block in blocks] == [7 * 15, 7 * 15, 6 * 15]
    for column in ("student", "question", "correct", "timestamp"):
        assert np.array_equal(np.concatenate([getattr(b, column) for b in blocks]), getattr(whole, column))
    # More responses than any memory holds: the first students are there at once.
    assert len(next(replace(room, students=2 * 10**9).blocks())) == 7 * 15
    assert not list(replace(room, students=0).blocks())


@pytest.mark.parametrize("nobody", [{"students": 0}, {"responses": 0}])
def test_a_classroom_without_responses(nobody):
    data = Simulated(questions=50_000, concepts=100, **nobody).read()
    assert data.interactions is None
    assert data.students == ()
    assert len(data.truth["difficulty"]) == 50_000


def test_one_concept_is_enough():
    data = Simulated(questions=5, concepts=1, students=3, responses=4).read()
    assert data.q_matrix.shape == (5, 1)
    assert data.truth["prerequisites"].shape == (0, 2)


def test_wrong_use_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="5 questions can't cover 6 concepts"):
        Simulated(questions=5, concepts=6)
    with pytest.raises(UnknownNameError, match="did you mean questions"):
        Simulated(question=5)  # type: ignore[call-arg]
    with pytest.raises(DataError, match="made, not read"):
        Simulated().read(tmp_path)
    assert not Simulated.recognises(tmp_path)
