"""Students under two identifiers: found where planted, not where there are none, never on both sides of a split."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

import qcq
from qcq.audit import audit
from qcq.config import Config
from qcq.data import Dataset, Simulated, duplicate_students, load, without_duplicates
from qcq.data.assembly import interactions
from qcq.data.dataset import Interactions
from qcq.errors import ConfigError
from qcq.pipeline import Experiment


def answered_once(data: Dataset) -> Dataset:
    """``data`` with the first answer of each student to each question: left-away answers then break no tie, so a
    duplicate's questions are all its original's."""
    r = data.interactions
    _, first = np.unique(np.stack([r.student, r.question]), axis=1, return_index=True)
    first.sort()
    return replace(data, interactions=interactions(r.student[first], r.question[first], r.correct[first]))


ROOM = answered_once(Simulated(questions=400, concepts=10, students=80, responses=200).read())
ANSWERS = np.bincount(ROOM.interactions.student)
RATES = np.bincount(ROOM.interactions.student, weights=ROOM.interactions.correct) / ANSWERS
# Whose answers say something. With four fifths of them and a slip the evidence was 32 at least, in 25 draws for each
# student. Needed are 22. At a rate of 0.87 it was 18.
TOLD = np.flatnonzero((RATES > 0.25) & (RATES < 0.8)).tolist()


def found(data: Dataset) -> list[tuple[int, int]]:
    pairs = duplicate_students(data.interactions, len(data.students), len(data.questions))
    return [tuple(pair) for pair in pairs.tolist()]


def doubled(data: Dataset, who: list[int], keep: float = 1.0, slips: int = 0, seed: int = 0) -> Dataset:
    """``data`` with the students ``who`` standing there again at the end: answers in another order, some left
    away, some changed."""
    rng = np.random.default_rng(seed)
    r = data.interactions
    student, question, correct = [r.student], [r.question], [r.correct]
    for k, s in enumerate(who):
        own = rng.permutation(np.flatnonzero(r.student == s))
        own = own[: round(keep * len(own))]
        answers = r.correct[own].copy()
        answers[:slips] ^= 1
        student.append(np.full(len(own), len(data.students) + k))
        question.append(r.question[own])
        correct.append(answers)
    made = interactions(np.concatenate(student), np.concatenate(question), np.concatenate(correct))
    parts = None if data.parts is None else np.r_[data.parts, np.full(len(who), 2)].astype(np.int8)
    names = (*data.students, *(f"again-{s}" for s in who))
    return replace(data, interactions=made, students=names, parts=parts)


@budget(max_examples=25, deadline=None)
@given(
    who=st.lists(st.sampled_from(TOLD), min_size=1, max_size=4, unique=True),
    keep=st.floats(0.8, 1.0),
    slips=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_planted_duplicates_are_found_in_any_order_and_no_others(who, keep, slips, seed):
    assert found(doubled(ROOM, who, keep, slips, seed)) == sorted((s, 80 + k) for k, s in enumerate(who))


@pytest.mark.parametrize("seed", range(8))
def test_a_classroom_has_none(seed):
    assert found(Simulated(questions=60, concepts=6, students=200, responses=60, seed=seed).read()) == []


def test_students_who_got_everything_right_are_not_one_person():
    question = np.tile(np.arange(50), 40)
    right = (np.arange(2000) % 50 > 0).astype(np.int8)  # all agree on everything: easy questions and a hard one
    assert len(duplicate_students(interactions(np.repeat(np.arange(40), 50), question, right), 40, 50)) == 0


def test_one_identifier_of_a_person_stands_in_no_part_of_any_split():
    data = without_duplicates(doubled(ROOM, [3, 7], keep=0.9))
    assert data.left_out.tolist() == [80, 81]  # those with fewer responses
    assert "2 students in no part of a split" in data.notes[-1]
    assert len(data.interactions) == len(doubled(ROOM, [3, 7], keep=0.9).interactions)
    assert without_duplicates(data) is data
    for split in (data.split(1), data.split(1, fold=(2, 3))):
        parts = [split.train.students, split.validation.students, split.test.students]
        assert sorted(np.concatenate(parts).tolist()) == list(range(80))


def test_a_published_test_part_keeps_its_students():
    data = doubled(replace(ROOM, parts=np.zeros(80, dtype=np.int8)), [3, 7], keep=0.9)
    assert without_duplicates(data).left_out.tolist() == [3, 7]


def test_a_data_set_without_duplicates_stays_the_object_it_was():
    assert without_duplicates(ROOM) is ROOM
    bare = replace(ROOM, interactions=None)
    assert without_duplicates(bare) is bare


def test_whatever_is_read_has_been_looked_at():
    import polars as pl

    data = doubled(ROOM, [5])
    r = data.interactions
    questions = pl.DataFrame({"question": data.questions, "concept": ["c"] * len(data.questions)})
    seen = pl.DataFrame(
        {
            "student": [data.students[s] for s in r.student],
            "question": [data.questions[q] for q in r.question],
            "correct": r.correct,
        }
    )
    made = qcq.read(questions, interactions=seen)
    assert len(made.left_out) == 1


def test_the_auditor_catches_a_person_on_both_sides(tmp_path):
    config = Config(trainers=("svd",), tasks=("difficulty",), seeds=1, dim=4, tune=False)
    leaky = doubled(ROOM, TOLD[:10])
    run = Experiment(config, leaky).run(tmp_path / "leaky")
    checks = {check.name: check for check in audit(run, leaky)}
    assert checks["duplicates"].ok is False
    assert "one person under two identifiers" in checks["duplicates"].found
    honest = without_duplicates(leaky)
    (other,) = audit(run, honest)  # nothing can be proved of a run on another division
    assert other.ok is False
    assert "the run left 0 identifiers of students out, of these data 10 are" in other.found
    run = Experiment(config, honest).run(tmp_path / "honest")
    checks = {check.name: check for check in audit(run, honest)}
    assert all(check.ok for check in checks.values()), checks
    assert "10 identifiers are left out" in checks["duplicates"].found


def test_answers_that_are_a_draw_say_nothing():
    student = np.array([0, 0, 1, 1])
    seen = Interactions(student, np.zeros(4, dtype=np.int64), np.array([0, 1, 1, 0], dtype=np.int8))
    assert len(duplicate_students(seen, 2, 1)) == 0


def test_students_whose_discrimination_no_rasch_model_knows_are_not_one_person():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        logit = 2 * (rng.normal(size=(100, 1)) - 2 * rng.normal(size=60))
        answers = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.int8)
        seen = interactions(np.repeat(np.arange(100), 60), np.tile(np.arange(60), 100), answers.ravel())
        assert len(duplicate_students(seen, 100, 60)) == 0


@pytest.mark.parametrize("where", ["s2kt:s2kt_assist09", "akt:akt_assist2009_pid"])
def test_assistments_as_published_has_89_people_under_two_identifiers(where):
    root = os.environ.get("QCQ_DATA")
    if not root:
        pytest.skip("needs the real data sets under $QCQ_DATA")
    name, folder = where.split(":")
    data = load(f"{name}:{root}/{folder}")
    assert len(data.left_out) == len(found(data)) == 89


def test_as_published_leaves_nobody_out_says_so_and_fails_the_audit(tmp_path):
    data = doubled(ROOM, TOLD[:2])
    r = data.interactions
    rows = zip(r.student.tolist(), r.question.tolist(), r.correct.tolist(), strict=True)
    (tmp_path / "bank").mkdir()
    lines = [f"{data.questions[q]},{data.students[s]},{c}" for s, q, c in rows]
    (tmp_path / "bank" / "interactions.csv").write_text("question,student,correct\n" + "\n".join(lines) + "\n")
    edges = [f"{q},{data.concepts[data.q_matrix[[i]].indices[0]]}" for i, q in enumerate(data.questions)]
    (tmp_path / "bank" / "questions.csv").write_text("question,concepts\n" + "\n".join(edges) + "\n")
    source = f"csv:{tmp_path / 'bank'}"
    assert len(load(source).left_out) == 2
    published = load(source, {"split": {"duplicates": "as-published"}})
    assert len(published.left_out) == 0
    assert published.notes[-1].startswith("2 students in a part as published, though the same")
    assert load("simulated", {"split": {"duplicates": "as-published"}}).notes == load("simulated").notes
    given = ["split.duplicates=as-published", "dim=4", "walk.per_question=1", "tune=false"]
    settled = Config.load(overrides=given, data=source, trainers=("svd",), tasks=("difficulty",), seeds=1)
    run = Experiment(settled).run(tmp_path / "run")
    checks = {check.name: check for check in audit(run, retrain=False)}
    assert checks["data"].ok
    assert checks["duplicates"].ok is False
    with pytest.raises(ConfigError, match=r"split.duplicates: input should be 'left-out' or 'as-published'"):
        Config.load(overrides=["split.duplicates=out"])
