"""The tracer that looks up similar students: its feature by brute force, and what a person under two names gives it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from qcq.data import Simulated, without_duplicates
from qcq.data.assembly import interactions
from qcq.evaluation import Partition
from qcq.evaluation.tracing import similar
from qcq.evaluation.tracing.baselines import Nearest, QuestionMean, SimilarStudents, blocks
from qcq.evaluation.tracing.features import PRIOR
from qcq.evaluation.tracing.tasks import Attempts

ROOM = Simulated(questions=60, concepts=6, students=120, responses=40, sets=9, seed=4).read()


def tiny() -> Attempts:
    """Twenty students, seven questions that they may meet again, answers at random; two of them answer nearly alike."""
    rng = np.random.default_rng(2)
    student = np.repeat(np.arange(20), rng.integers(3, 15, 20))
    question, correct = rng.integers(0, 7, len(student)), rng.integers(0, 2, len(student))
    data = replace(
        ROOM,
        questions=ROOM.questions[:7],
        q_matrix=ROOM.q_matrix[:7],
        interactions=interactions(student, question, correct),
        students=[f"s{i}" for i in range(20)],
        parts=None,
        truth={},
    )
    return Attempts(Partition.make(data, seed=1, hold_out_edges=False), "kt-baselines")


def plainly(attempts: Attempts, part: str, ahead: int, k: int) -> np.ndarray:
    """The three numbers as their definition says them, one response after the other."""
    train, r = attempts.train.interactions, attempts.parts[part].interactions
    _, block = blocks(r, ahead)
    rows = []
    for t in range(len(r)):
        me, asked = r.student[t], r.question[t]
        others = [v for v in np.unique(train.student) if v != me]
        theirs = {v: {} for v in others}  # student → question → mean answer, -1 to 1
        for v in others:
            for q in range(7):
                given = train.correct[(train.student == v) & (train.question == q)]
                if len(given):
                    theirs[v][q] = 2 * given.mean() - 1
        rest = train.student != me
        usual = (train.correct[rest].sum() + 1) / (rest.sum() + 2)
        to_it = train.correct[rest & (train.question == asked)]
        share = (to_it.sum() + PRIOR * usual) / (len(to_it) + PRIOR)
        past = [i for i in range(block[t]) if r.student[i] == me]
        so_far = (r.correct[past].sum() + PRIOR * usual) / (len(past) + PRIOR)
        near = []
        for v in others:
            if asked in theirs[v] and past:
                common = sum((2.0 * r.correct[i] - 1) * theirs[v].get(r.question[i], 0.0) for i in past)
                if common > 1e-12:
                    near.append((-round(common, 12), v))
        said = [(np.log(1 - minus), (theirs[v][asked] + 1) / 2) for minus, v in sorted(near)[:k]]
        drawn = (sum(w * right for w, right in said) + PRIOR * share) / (sum(w for w, _ in said) + PRIOR)
        rows.append([share, so_far, drawn])
    return logit(np.array(rows))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_three_numbers_are_their_definition(compiled, part, ahead, k, monkeypatch):
    if not compiled:
        monkeypatch.setattr(similar, "nearest", similar.nearest.py_func)
    attempts = tiny()
    found = Nearest(attempts, k).features(part, ahead).toarray()
    assert found == pytest.approx(plainly(attempts, part, ahead, k), abs=1e-9)
    assert np.abs(found[:, 2] - found[:, 0]).max() > 0.1  # somebody was looked up


def twice(data, seed=0):
    """Every student under two names, the second in another order, all in parts drawn at random."""
    rng = np.random.default_rng(seed)
    r, n = data.interactions, len(data.students)
    order = np.lexsort((rng.random(len(r)), r.student))
    made = interactions(
        np.r_[r.student, r.student + n], np.r_[r.question, r.question[order]], np.r_[r.correct, r.correct[order]]
    )
    names = [*data.students, *(f"again-{s}" for s in data.students)]
    return replace(
        data, interactions=made, students=names, parts=rng.choice(3, 2 * n, p=[0.6, 0.1, 0.3]).astype(np.int8)
    )


def test_it_gains_where_a_person_has_two_names_and_only_there():
    data = twice(Simulated(questions=200, concepts=8, students=300, responses=80, sets=12, seed=3).read())
    found = {}
    for name, each in (("twice", data), ("once", without_duplicates(data))):
        attempts = Attempts(Partition.make(each, hold_out_edges=False), "kt-baselines")
        for model in (SimilarStudents, QuestionMean):
            found[name, model] = attempts.judge(model(attempts).predict("test"), "test").metrics["auc"]
    assert found["twice", SimilarStudents] > found["once", SimilarStudents] + 0.05
    assert abs(found["twice", QuestionMean] - found["once", QuestionMean]) < 0.04
    assert found["once", SimilarStudents] > found["once", QuestionMean]  # the share so far says something too
