"""Knowledge tracing: what models are shown, metrics against scikit-learn, planted truth, leaks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import orthogonal_procrustes
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from qcq.config import Config
from qcq.data import Simulated, TrainPart
from qcq.data.assembly import interactions
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EvaluationError, TrainingError
from qcq.evaluation import TASKS, Partition, paired_bootstrap
from qcq.evaluation.tracing import models as tracing
from qcq.evaluation.tracing import tasks as kt
from qcq.evaluation.tracing.arrivals import NumberPart
from qcq.evaluation.tracing.crossfit import _vectors, cross_fitted, turned
from qcq.evaluation.tracing.fast import PENALTIES, WIDTHS, _fit
from qcq.evaluation.tracing.features import AROUND, PRIOR, SPREAD, Eases, difficulty, rasch
from qcq.evaluation.tracing.models import MODELS, Sequences, Tracer, auc
from qcq.evaluation.tracing.tasks import (
    CROSSFIT_FOLDS,
    SHOWN,
    TABLE_MODES,
    Attempts,
    KTDifficultySettings,
    KTSettings,
    calibration_error,
    principal,
)
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS
from qcq.models.answers import Answers, digests
from qcq.pipeline import Experiment
from qcq.report.comparison import comparison, paired_comparisons
from qcq.walks import WALKS

CLASSROOM = Simulated(questions=150, concepts=10, students=160, responses=50, sets=12, seed=3)
SMALL: dict[str, Any] = {"epochs": 4, "hidden": 16, "tables": ("frozen",), "lr": 1e-2}


@pytest.fixture(scope="module")
def data():
    return CLASSROOM.read()


@pytest.fixture(scope="module")
def partition(data):
    return Partition.make(data, seed=0)


@pytest.fixture(scope="module")
def attempts(partition):
    return Attempts(partition, "kt")


def table(partition, vectors, **provenance):
    return Embeddings(partition.graph.questions, vectors, provenance=provenance)


def noise(partition, seed=0):
    return table(partition, np.random.default_rng(seed).standard_normal((partition.graph.n_questions, 12)))


def oracle(partition):
    data = partition.dataset
    return table(partition, np.column_stack([data.q_matrix.toarray(), 0.3 * data.truth["difficulty"]]))


def uneven(partition, lengths):
    """Sequences of the given lengths, made of the first training responses."""
    r = partition.split.train.interactions
    n = sum(lengths)
    student = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return Sequences(replace(r, student=student, question=r.question[:n], correct=r.correct[:n]), np.zeros(n, int))


# --- what a model is shown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_attempt_is_asked_once_after_the_one_before(partition, monkeypatch, seed):
    monkeypatch.setattr(tracing, "CHUNK", 7)
    lengths = [1, 30, 2, 7, 8, 14, 15, 3, 1, 22]
    part = uneven(partition, lengths)
    seen = []
    for batch in part.batches(None if seed is None else np.random.default_rng(seed)):
        for earlier, later in pairwise(batch):
            rows = len(later.at)  # those who go on are the first rows of the piece before, in the same order
            assert np.array_equal(earlier.at[:rows, -1] + 1, later.at[:, 0])
        for piece in batch:
            for row in range(len(piece.at)):
                for step, at in enumerate(piece.at[row]):
                    if at < 0:
                        assert not piece.real[row, step]
                        assert piece.before[row, step] == piece.answer[row, step] == -1
                        continue
                    seen.append(int(at))
                    assert piece.question[row, step] == part.question[at]
                    assert piece.correct[row, step] == part.correct[at]
                    first = at in part.begin
                    assert piece.before[row, step] == (-1 if first else part.question[at - 1])
                    assert piece.answer[row, step] == (-1 if first else part.correct[at - 1])
    assert sorted(seen) == list(range(sum(lengths)))


@pytest.mark.parametrize("model", MODELS)
def test_pieces_change_nothing_and_the_future_is_unseen(partition, monkeypatch, model):
    """One student read in one go, in pieces, through `mastery`, and with his later answers turned around."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1, partition.graph.n_questions, 2)).astype(np.float32)
    tracer = Tracer(principal(noise(partition).vectors), features, False, KTSettings(model=model, hidden=12), 0)
    part = uneven(partition, [1, 40, 25])
    whole = tracer.predict(part)
    monkeypatch.setattr(tracing, "CHUNK", 6)
    assert tracer.predict(part) == pytest.approx(whole, abs=1e-5)
    mine = slice(1, 41)
    every = tracer.mastery(part.question[mine], part.correct[mine], np.arange(partition.graph.n_questions))
    assert every.shape == (41, partition.graph.n_questions)
    assert every[np.arange(40), part.question[mine]] == pytest.approx(whole[mine], abs=1e-5)
    part.correct[20:] = 1 - part.correct[20:]
    turned = tracer.predict(part)
    assert turned[:21] == pytest.approx(whole[:21], abs=1e-5)
    assert np.abs(turned[21:41] - whole[21:41]).max() > 1e-4


def test_dkt_is_its_formula(partition):
    tracer = Tracer(
        principal(noise(partition).vectors), np.zeros((1, 150, 0), np.float32), False, KTSettings(hidden=5), seed=1
    )
    part = uneven(partition, [6])
    w = {name: value.numpy().astype(float) for name, value in tracer.model.state_dict().items()}
    x = tracer.table.vectors.numpy()[part.question]
    h, c = np.zeros(5), np.zeros(5)
    for t in range(6):
        sign = 2.0 * part.correct[t - 1] - 1
        before = np.r_[x[t - 1], x[t - 1] * sign, sign] if t else np.zeros(2 * x.shape[1] + 1)
        gates = w["reader.weight_ih_l0"] @ before + w["reader.weight_hh_l0"] @ h
        i, f, g, o = np.split(gates + w["reader.bias_ih_l0"] + w["reader.bias_hh_l0"], 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        inner = np.maximum(w["head.known.weight"] @ h + w["head.known.bias"] + w["head.asked.weight"] @ x[t], 0)
        logit = w["head.out.weight"] @ inner + w["head.out.bias"] + w["head.straight.weight"] @ x[t]
        assert tracer.predict(part)[t] == pytest.approx(float(1 / (1 + np.exp(-logit[0]))), abs=1e-6)


def test_attention_is_its_formula(partition):
    tracer = Tracer(
        principal(noise(partition).vectors),
        np.zeros((1, 150, 0), np.float32),
        False,
        KTSettings(model="attention", hidden=8),
        seed=1,
    )
    part = uneven(partition, [5])
    m, x = tracer.model, tracer.table.vectors[torch.from_numpy(part.question)]
    sign = torch.from_numpy(2.0 * part.correct - 1).float()[:, None]
    with torch.no_grad():
        nothing = torch.zeros(1, x.shape[1])
        keys = torch.cat([nothing, x[:-1]])
        signs = torch.cat([torch.zeros(1, 1), sign[:-1]])
        q, k, v = m.query(x), m.key(keys), m.value(torch.cat([keys, keys * signs, signs], 1))
        for t in range(5):
            found = []
            for head in range(m.HEADS):
                own = slice(head * m.each, (head + 1) * m.each)
                back = torch.arange(t, -1, -1.0)
                score = k[: t + 1, own] @ q[t, own] / m.each**0.5 - torch.log1p(m.decay[head].exp()) * back
                found.append(score.softmax(0) @ v[: t + 1, own])
            logit = m.head(torch.cat(found)[None, None, None], x[t][None, None, None])
            assert tracer.predict(part)[t] == pytest.approx(float(torch.sigmoid(logit)), abs=1e-6)


def test_attention_looks_back_a_fixed_number_of_attempts(partition, monkeypatch):
    """From where a piece begins, the row of the first piece that has no attempt before it included."""
    monkeypatch.setattr(tracing, "CHUNK", 4)
    monkeypatch.setattr(tracing, "BACK", 3)
    plan = KTSettings(model="attention", hidden=8)
    tracer = Tracer(principal(noise(partition).vectors), np.zeros((1, 150, 0), np.float32), False, plan, seed=1)
    part = uneven(partition, [14])
    whole = tracer.predict(part)
    for j in range(14):
        part.correct[j] = 1 - part.correct[j]
        moved = np.flatnonzero(np.abs(tracer.predict(part) - whole) > 1e-7)
        part.correct[j] = 1 - part.correct[j]
        assert moved.tolist() == [t for t in range(j + 1, 14) if j >= t // 4 * 4 - 4]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", ["dkt", "attention"])
def test_a_table_without_columns_is_read_without_a_warning(partition, model, tmp_path):
    table = np.zeros((150, 0), np.float32), np.zeros((1, 150, 0), np.float32)
    tracer = Tracer(*table, False, KTSettings(model=model, hidden=8), seed=1)
    part = uneven(partition, [6, 9])
    made = tracer.predict(part)
    assert np.isfinite(made).all()
    assert np.array_equal(Tracer.load(tracer.save(tmp_path / "t.safetensors")).predict(part), made)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(tracing, "Linear", torch.nn.Linear)
        plain = Tracer(*table, False, KTSettings(model=model, hidden=8), seed=1)
    assert np.array_equal(plain.predict(part), made)  # the same draws as torch's


@pytest.mark.filterwarnings("error:Initializing zero-element")
def test_equal_vectors_are_said_to_be_used_in_no_way(partition):
    task = TASKS["kt"](partition, KTSettings(epochs=1, patience=1, hidden=4))
    score = task.score(Embeddings(partition.graph.questions, np.full((150, 3), 0.3)))
    assert score.choices["way"] == "none: all vectors are equal"
    assert 0 < score.metrics["auc"] < 1


def test_training_says_how_far_it_is(partition):
    part = uneven(partition, [10] * 12)
    plan = KTSettings(epochs=2, patience=2, hidden=4)
    tracer = Tracer(principal(noise(partition).vectors), np.zeros((1, 150, 0), np.float32), False, plan, seed=1)
    said = []
    tracer.fit(part, part, lambda done, total: said.append((done, total)))
    assert said == [(i, 6) for i in range(1, 7)]


def test_fine_tuning_moves_only_questions_that_were_met(partition, attempts):
    plan = KTSettings(epochs=1, hidden=8)
    tracer = Tracer(principal(noise(partition).vectors), attempts.question_features(()), True, plan, 0)
    met = partition.split.train.counts > 0
    tracer.fit(attempts.sequences("train"), attempts.sequences("validation"))
    moved = np.abs(tracer.table.change.detach().numpy()).max(axis=1)
    assert (moved[met] > 0).all()
    assert (moved[~met] == 0).all()


def test_a_diverging_model_stops_with_one_line(partition, attempts):
    vectors = principal(noise(partition).vectors)
    vectors[0] = np.nan
    with pytest.raises(TrainingError, match="the loss of epoch 1 isn't finite; lower lr"):
        Tracer(vectors, attempts.question_features(()), False, KTSettings(hidden=8), 0).fit(
            attempts.sequences("train"), attempts.sequences("validation")
        )


# --- numbers beside the vectors -------------------------------------------------------------------------------------


def test_numbers_beside_a_vector_leave_ones_own_fold_out(partition, attempts):
    made = attempts.question_features(("difficulty", "popularity"))
    assert made.shape == (CROSSFIT_FOLDS + 1, partition.graph.n_questions, 2)
    r = partition.split.train.interactions

    def plain(kept, q):
        share = 1 - r.correct[kept].mean()
        n, right = (kept & (r.question == q)).sum(), (kept & (r.question == q) & (r.correct == 1)).sum()
        return np.log((n - right + PRIOR * share) / (right + PRIOR * (1 - share))), np.log1p(n)

    everybody = np.ones(len(r), dtype=bool)
    whole = np.array([plain(everybody, q) for q in range(partition.graph.n_questions)])
    centre, spread = whole[r.question].mean(axis=0), whole[r.question].std(axis=0)
    for q in (0, 7, 149):
        assert made[CROSSFIT_FOLDS, q] == pytest.approx((whole[q] - centre) / spread, abs=1e-5)
        for fold in range(CROSSFIT_FOLDS):
            kept = attempts.fold[r.student] != fold
            assert made[fold, q] == pytest.approx((np.array(plain(kept, q)) - centre) / spread, abs=1e-5)
    assert sorted(np.unique(attempts.fold[partition.split.train.students])) == list(range(CROSSFIT_FOLDS))
    others = np.r_[partition.split.validation.students, partition.split.test.students]
    assert (attempts.fold[others] == CROSSFIT_FOLDS).all()


def test_rasch_numbers_are_the_most_probable_ones(partition):
    """Beside scipy's minimum of the same penalised likelihood, the concepts' mean ease being what rasch ends with."""
    from scipy.optimize import minimize

    r, graph = partition.split.train.interactions, partition.graph
    n, student = graph.n_questions, np.unique(r.student, return_inverse=True)[1]
    m = np.log((r.correct.sum() + 1) / (len(r) - r.correct.sum() + 1))
    tested, answers = (graph.weights > 0).toarray(), np.bincount(r.question, minlength=n)

    def around(ease):
        return tested @ (tested.T @ (ease * answers) / (tested.T @ answers)) / tested.sum(axis=1)

    ease = np.zeros(n)
    for _ in range(30):
        centre = around(ease)

        def loss(x, centre=centre):
            ability, own = x[: student.max() + 1], x[student.max() + 1 :]
            logit = m + ability[student] + own[r.question]
            p = 1 / (1 + np.exp(-logit))
            slope = p - r.correct
            up = [np.bincount(student, slope), np.bincount(r.question, slope, n)]
            slopes = np.concatenate([up[0] + ability / SPREAD, up[1] + (own - centre) / AROUND])
            penalty = (ability**2).sum() / (2 * SPREAD) + ((own - centre) ** 2).sum() / (2 * AROUND)
            return (np.logaddexp(0, logit) - r.correct * logit).sum() + penalty, slopes

        x = minimize(loss, np.r_[np.zeros(student.max() + 1), ease], jac=True, method="L-BFGS-B").x
        ease, before = x[student.max() + 1 :], ease
        if np.abs(ease - before).max() < 1e-3:
            break
    met = answers > 0
    assert rasch(r, graph)[met] == pytest.approx((around(ease) - ease)[met], abs=0.03)
    assert (rasch(r, graph)[~met] == 0).all()


@pytest.mark.parametrize("wrong", [5, 40, 200])
def test_a_hard_question_among_easy_ones_is_hard(wrong):
    """Nearly everything right, one question never: whole Newton steps swing between two ends there."""
    rng = np.random.default_rng(0)
    student, question = np.repeat(np.arange(1000), 20), np.tile(np.arange(20), 1000)
    correct = (rng.random(20_000) < 0.985).astype(np.int8)
    seen = interactions(
        np.r_[student, np.arange(wrong)], np.r_[question, np.full(wrong, 20)], np.r_[correct, [0] * wrong]
    )
    graph = KnowledgeGraph.from_edges([(f"q{i}", "c") for i in range(21)])
    number = rasch(seen, graph)
    assert number.argmax() == 20
    assert number[20] > 2


def test_rasch_allows_for_who_answered(data, partition):
    """Only able students meet the odd questions: their shares of wrong answers drop, not their place."""
    r, graph = data.interactions, partition.graph
    able = data.truth["ability"]
    kept = (r.question % 2 == 0) | (able[r.student] > np.median(able))
    seen = replace(r, student=r.student[kept], question=r.question[kept], correct=r.correct[kept])
    odd = np.arange(graph.n_questions) % 2 == 1
    moved = {f: (f(seen, graph) - f(r, graph))[odd].mean() for f in (difficulty, rasch)}
    assert moved[difficulty] < -0.2
    assert abs(moved[rasch]) < abs(moved[difficulty]) / 2


def test_what_test_students_answered_changes_no_prediction(data, partition):
    """All their answers turned around: difficulty, training, the choice of the epoch and the first attempts stay."""
    tested = np.isin(data.interactions.student, partition.split.test.students)
    turned = replace(
        data.interactions, correct=np.where(tested, 1 - data.interactions.correct, data.interactions.correct)
    )
    other = Partition.make(replace(data, interactions=turned), seed=0)
    plan = KTDifficultySettings(**{**SMALL, "epochs": 1})
    a, b = (TASKS["kt-difficulty"](p, plan) for p in (partition, other))
    for one, two in zip(
        a.tracer(noise(partition)).model.parameters(), b.tracer(noise(other)).model.parameters(), strict=True
    ):
        assert torch.equal(one, two)
    assert np.array_equal(a.attempts.question_features(plan.features), b.attempts.question_features(plan.features))
    fast, slow = (TASKS["kt-fast"](p).score(noise(p), "validation").metrics for p in (partition, other))
    assert fast == slow


def new_questions(partition):
    """Four new questions, on concepts 0 and 1, on 2, on none and on 3; and answers to the first three (one to n1) and
    to an old one, by students of training and as many whom nobody knows."""
    weights = np.zeros((4, 10))
    weights[[0, 0, 1, 3], [0, 1, 2, 3]] = [1, 2, 1, 1]
    rng = np.random.default_rng(0)
    asked = rng.choice(["n0", "n2", "q0"], 300)
    asked[7] = "n1"
    students = [partition.dataset.students[i] for i in partition.split.train.students]
    names = rng.choice([*students, *(f"never-{i}" for i in range(len(students)))], 300)
    frame = {"student": names.tolist(), "question": asked.tolist(), "correct": rng.integers(0, 2, 300)}
    return sparse.csr_array(weights), frame, Answers.read(frame, [f"n{i}" for i in range(4)], ["q0"], None)


@pytest.mark.parametrize("number", ["difficulty", "popularity"])
@pytest.mark.parametrize("seen", [True, False])
def test_numbers_of_new_questions_are_those_of_old_ones(partition, number, seen):
    """Before any answer, and from answers; also where nobody answered anything in training."""
    train = partition.split.train
    r = train.interactions if seen else train.interactions.where(np.zeros(len(train.interactions), dtype=bool))
    weights, frame, answers = new_questions(partition)
    part = NumberPart.made(number, replace(train, interactions=r), partition.graph)
    share = 1 - r.correct.mean() if seen else 0.5
    made = part.infer(partition.graph, noise(partition).vectors, weights)
    assert made == pytest.approx(np.full((4, 1), np.log(share / (1 - share)) if number == "difficulty" else 0.0))
    found, said = part.answered(partition.graph, noise(partition).vectors, made, weights, answers)
    for q in range(4):
        own = frame["correct"][np.array(frame["question"]) == f"n{q}"]
        n, right = len(own), own.sum()
        wanted = np.log((n - right + PRIOR * share) / (right + PRIOR * (1 - share)))
        assert found[q] == pytest.approx([wanted if number == "difficulty" else np.log1p(n)])
    assert said == f"{number}: from {300 - frame['question'].count('q0')} answers to 3 new questions"


@pytest.mark.parametrize("right", [0, 1])
def test_difficulty_is_finite_where_all_training_answers_are_alike(partition, right):
    """The share of wrong answers is then that of the answers and one of each kind, for old questions and new ones."""
    train = partition.split.train
    n = len(train.interactions)
    alike = replace(train, interactions=replace(train.interactions, correct=np.full(n, right, dtype=np.int8)))
    share = (n * (1 - right) + 1) / (n + 2)
    wrong = train.counts * (1 - right)
    wanted = np.log((wrong + PRIOR * share) / (train.counts - wrong + PRIOR * (1 - share)))
    assert difficulty(alike.interactions, partition.graph) == pytest.approx(wanted)
    part = NumberPart.made("difficulty", alike, partition.graph)
    weights, _, answers = new_questions(partition)
    made = part.infer(partition.graph, noise(partition).vectors, weights)
    assert made == pytest.approx(np.full((4, 1), np.log(share / (1 - share))))
    found, _ = part.answered(partition.graph, noise(partition).vectors, made, weights, answers)
    assert np.isfinite(found).all()
    assert found[3] == pytest.approx(made[3])


@pytest.mark.parametrize("seen", [True, False])
def test_rasch_numbers_of_new_questions_are_the_most_probable_ones(partition, seen):
    """Beside scipy's minimum for each question alone, abilities and concepts as the training answers left them."""
    from scipy.optimize import minimize_scalar

    train = partition.split.train
    digest = digests(partition.dataset.students)
    low = digest < np.median(digest[train.students])  # so that some students come after the last known one
    r = train.interactions.where(low[train.interactions.student] & seen)
    weights, frame, answers = new_questions(partition)
    part = NumberPart.made("rasch", replace(train, interactions=r), partition.graph)
    made = part.infer(partition.graph, noise(partition).vectors, weights)
    assert made.tolist() == [[0.0]] * 4
    assert answers.who.max() > part.arrays["who"].max(initial=0)
    found, _ = part.answered(partition.graph, noise(partition).vectors, made, weights, answers)
    eases = Eases.of(r, partition.graph)
    able = dict(zip([train.dataset.students[i] for i in eases.student], eases.ability, strict=True))
    for q, of in enumerate(([0, 1], [2], [], [3])):
        mine = np.flatnonzero(np.array(frame["question"]) == f"n{q}")
        around = eases.concept[of].mean() if of else 0.0
        height = np.array([eases.middle + able.get(frame["student"][i], 0.0) for i in mine])
        right = frame["correct"][mine]

        def loss(ease, around=around, height=height, right=right):
            logit = height + ease
            return (np.logaddexp(0, logit) - right * logit).sum() + (ease - around) ** 2 / (2 * AROUND)

        best = minimize_scalar(loss, tol=1e-12).x
        assert found[q] == pytest.approx([around - best if len(mine) else 0.0], abs=1e-6)


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_scikit_learns(partition, attempts, monkeypatch):
    monkeypatch.setattr(kt, "COLD", int(np.median(partition.split.train.counts)))
    rng = np.random.default_rng(0)
    r = partition.split.test.interactions
    guess = np.round(np.clip(rng.normal(0.4 + 0.2 * r.correct, 0.2), 0.01, 0.99), 2)  # with ties
    score = attempts.judge(guess, "test")
    assert score.metrics["auc"] == pytest.approx(roc_auc_score(r.correct, guess))
    assert score.metrics["accuracy"] == pytest.approx(accuracy_score(r.correct, guess >= 0.5))
    assert score.metrics["log-loss"] == pytest.approx(log_loss(r.correct, guess))
    cold = partition.split.train.counts[r.question] <= kt.COLD
    assert 0 < cold.sum() < len(r)
    assert score.metrics["auc-cold"] == pytest.approx(roc_auc_score(r.correct[cold], guess[cold]))
    for name, units in score.units.items():
        assert units.mean() == pytest.approx(score.metrics[name])
    assert len(score.units["auc"]) == len(partition.split.test.students)


def test_figures_of_slices_are_those_of_their_answers():
    """Cold, unseen and first meetings by plain loops, beside scikit-learn."""
    partition = Partition.make(Simulated(questions=400, concepts=10, students=60, responses=20, seed=3).read())
    attempts = Attempts(partition, "kt")
    r = partition.split.test.interactions
    guess = np.random.default_rng(0).random(len(r))
    counts = [int((partition.split.train.interactions.question == q).sum()) for q in r.question]
    met: set[tuple[int, int]] = set()
    first = []
    for pair in zip(r.student.tolist(), r.question.tolist(), strict=True):
        first.append(pair not in met)
        met.add(pair)
    metrics = attempts.judge(guess, "test").metrics
    slices = {
        "auc-cold": [n <= 5 for n in counts],
        "auc-unseen": [n == 0 for n in counts],
        "auc-first": first,
    }
    for name, mine in slices.items():
        assert 0 < sum(mine) < len(r)
        assert metrics[name] == pytest.approx(roc_auc_score(r.correct[mine], guess[mine]))


def test_a_certain_prediction_has_a_finite_loss(partition, attempts):
    r = partition.split.test.interactions
    assert attempts.judge(1.0 - r.correct, "test").metrics["log-loss"] == pytest.approx(-np.log(1e-7))
    assert attempts.judge(1.0 * r.correct, "test").metrics["log-loss"] == pytest.approx(1e-7)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_a_slice_has_an_auc_as_soon_as_it_has_one_pair(partition, monkeypatch, right):
    """One right answer among the cold ones is enough, and one wrong one; without either there is no figure."""
    attempts = Attempts(partition, "kt")
    monkeypatch.setattr(kt, "COLD", int(np.median(partition.split.train.counts)))
    r = partition.split.test.interactions
    cold = np.flatnonzero(partition.split.train.counts[r.question] <= kt.COLD)
    for turned_round in (False, True):
        correct = r.correct.copy()
        correct[cold] = turned_round
        correct[cold[:right]] = not turned_round
        stage = replace(attempts.parts["test"], interactions=replace(r, correct=correct))
        monkeypatch.setitem(attempts.parts, "test", stage)
        guess = np.random.default_rng(0).random(len(r))
        metrics = attempts.judge(guess, "test").metrics
        assert ("auc-cold" in metrics) == (right > 0)
        if right:
            assert metrics["auc-cold"] == pytest.approx(roc_auc_score(correct[cold], guess[cold]))


def test_gaps_of_two_bins_do_not_cancel():
    """Too high by 0.1 in one bin and too low by 0.1 in another one is an error of 0.1, not of 0."""
    right = np.repeat([0, 1, 0, 1], [8, 2, 2, 8])
    guess = np.repeat([0.3, 0.7], 10)
    assert calibration_error(right, guess) == pytest.approx(0.1)


@pytest.mark.parametrize("answer", [0, 1])
def test_an_area_of_equal_answers_is_a_half(answer):
    assert auc(np.array([0.2, 0.9, 0.5]), np.full(3, answer)) == 0.5


def test_calibration_error_is_the_gap_bin_by_bin():
    rng = np.random.default_rng(0)
    guess = np.r_[rng.random(500), 0.0, 1.0]
    right = (rng.random(502) < guess**2).astype(int)
    gap = 0.0
    for low in np.arange(15) / 15:
        inside = (guess >= low) & ((guess < low + 1 / 15) | (low > 0.93))
        gap += inside.mean() * abs(right[inside].mean() - guess[inside].mean())
    assert calibration_error(right, guess) == pytest.approx(gap)


def test_principal_axes_forget_rotation_and_scale_and_keep_distances(partition):
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, size=(80, 6)) * np.arange(1, 7)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    made = principal(x)
    assert principal(7 * x @ turn + 3) == pytest.approx(made, abs=1e-5)
    assert (made.astype(float) ** 2).mean() == pytest.approx(1)
    gram = (x - x.mean(0)) @ (x - x.mean(0)).T
    mine = made.astype(float) @ made.T
    assert mine / mine.trace() == pytest.approx(gram / gram.trace(), abs=1e-6)
    assert principal(np.hstack([x, x])).shape == (80, 6)
    assert principal(np.ones((5, 3))).shape == (5, 0)
    for size in (0.1, 1e-30, 3e30):  # what rounding leaves of equal rows is no direction
        assert principal(np.full((5_001, 3), size, dtype=np.float32)).shape == (5_001, 0)


def test_the_logistic_fit_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5))
    y = (rng.random(400) < 1 / (1 + np.exp(-x @ np.arange(5)))).astype(float)
    theirs = LogisticRegression(C=1 / PENALTIES[1], fit_intercept=False, tol=1e-10).fit(x, y)
    assert _fit(x, y, np.full(5, PENALTIES[1])) == pytest.approx(theirs.coef_[0], abs=1e-4)


def test_kernel_history_is_a_plain_loop(partition):
    task = TASKS["kt-fast"](partition)
    vectors = principal(noise(partition).vectors)
    features, _ = task._features(vectors, "validation")
    r = partition.split.validation.interactions
    mean = partition.split.train.interactions.correct.mean()
    for at in (0, 1, 49, 50, 77):
        before = np.flatnonzero((r.student == r.student[at]) & (np.arange(len(r)) < at))
        x, past = vectors[r.question[at]], vectors[r.question[before]]
        cosine = past @ x / np.linalg.norm(past, axis=1) / np.linalg.norm(x)
        wanted = [1.0]
        for width in (0, *WIDTHS):
            k = np.exp(width * (cosine - 1))
            wanted += [(k * (r.correct[before] - mean)).sum() / (1 + k.sum()), np.log1p(k.sum())]
        assert features[at] == pytest.approx(np.r_[wanted, x], abs=1e-4)


# --- planted truth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kt", "kt-attention", "kt-fast"])
def test_the_oracle_comes_first_and_random_last(partition, name):
    cls = TASKS[name]
    task = cls(partition, *([cls.settings(**SMALL)] if cls.settings else []))
    concepts = table(partition, partition.dataset.q_matrix.toarray())
    best, middle, worst = (task.score(e) for e in (oracle(partition), concepts, noise(partition)))
    assert best.metrics["auc"] > middle.metrics["auc"] > worst.metrics["auc"] > 0.5
    assert paired_bootstrap(best.units["auc"], worst.units["auc"]).low > 0
    assert best.metrics["log-loss"] < worst.metrics["log-loss"]


def test_difficulty_beside_the_vectors_helps_and_stands_alone(partition):
    plain = TASKS["kt"](partition, KTSettings(**SMALL)).score(noise(partition)).metrics
    both = TASKS["kt-difficulty"](partition, KTDifficultySettings(**SMALL)).score(noise(partition)).metrics
    assert both["auc"] > plain["auc"]
    assert both["auc-alone"] > 0.55


def test_the_better_way_to_use_a_table_is_chosen_on_validation(partition):
    task = TASKS["kt"](partition, KTSettings(**{**SMALL, "epochs": 2, "tables": tuple(TABLE_MODES)}))
    found = {}
    for way in TABLE_MODES:
        one = TASKS["kt"](partition, KTSettings(**{**SMALL, "epochs": 2, "tables": (way,)}))
        found[way] = max(one.tracer(noise(partition)).history)
    assert max(task.tracer(noise(partition)).history) == max(found.values())
    assert found[task.score(noise(partition)).choices["way"]] == max(found.values())


@pytest.mark.slow
def test_a_run_keeps_what_kt_chose_and_its_sentences_go_by_kts_own_validation(tmp_path):
    config = Config(
        tasks=("kt-fast", "kt"),
        trainers=("ppmi-svd", "sgns"),
        seeds=2,
        sections={
            "kt": {**SMALL, "epochs": 1},
            "ppmi-svd": {"dim": 8},
            "sgns": {"dim": 8},
            "walk": {"per_question": 1},
        },
    )
    data = Simulated(questions=400, concepts=10, students=90, responses=30, seed=3).read()  # with cold questions
    run = Experiment(config, data).run(tmp_path / "run")
    found = {(r["trainer"], r["seed"]): r["judged"]["kt"] for r in run.rows("training")}
    assert all(set(each) == {"auc", "way"} and 0 < each["auc"] < 1 for each in found.values())
    mean = {name: np.mean([found[name, seed]["auc"] for seed in (0, 1)]) for name, _ in found}
    base = max(("random", "concept-mean", "concept-onehot", "svd"), key=mean.__getitem__)
    met = {
        pair.second.trainer
        for pair in paired_comparisons(run, comparison(run))
        if pair.column.task == "kt" and pair.second.baseline
    }
    assert met == {base}
    assert {"kt auc", "kt auc-cold"} <= {column.title for column in comparison(run).columns}
    assert "| small-start |" not in (page := (run.path / "report.md").read_text())  # frozen alone was tried
    assert page.count("| frozen ") == 12


def test_another_seed_in_the_provenance_trains_another_model(partition):
    task = TASKS["kt"](partition, KTSettings(**{**SMALL, "epochs": 1}))
    vectors = noise(partition).vectors
    a, b, again = (task.score(table(partition, vectors, seed=s)).metrics["auc"] for s in (1, 2, 1))
    assert a == again != b


def test_mastery_of_a_concept_is_the_mean_over_its_questions(partition):
    task = TASKS["kt"](partition, KTSettings(**{**SMALL, "epochs": 1}))
    emb = noise(partition)
    held = task.traces(emb)
    students = {name.split("/")[0] for name in held}
    assert len(students) == 3
    assert all(int(s) in partition.split.test.students for s in students)
    student = min(students)
    q, right, concepts, mastery = (held[f"{student}/{k}"] for k in ("question", "correct", "concepts", "mastery"))
    assert mastery.shape == (len(q) + 1, len(concepts))
    w = partition.graph.weights.toarray() > 0
    assert set(concepts.tolist()) == set(np.flatnonzero(w[q].any(axis=0)).tolist())
    assert w[q[0], concepts[0]]
    its = np.flatnonzero(w[:, concepts[-1]])
    assert len(its) <= SHOWN
    assert task.tracer(emb).mastery(q, right, its).mean(axis=1) == pytest.approx(mastery[:, -1], abs=1e-5)
    with pytest.raises(EvaluationError, match="has no responses to trace"):
        task.mastery(emb, len(partition.dataset.students))


# --- what can't be asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kt", "kt-difficulty", "kt-attention", "kt-fast"])
def test_data_without_what_it_needs_is_refused_in_one_line(data, name):
    nobody = Partition.make(replace(data, interactions=None, students=()))
    with pytest.raises(EvaluationError, match="has no students; it needs who answered which question how, in order"):
        TASKS[name](nobody)
    unordered = Partition.make(replace(data, interactions=replace(data.interactions, ordered=False)))
    with pytest.raises(EvaluationError, match="have no order"):
        TASKS[name](unordered)
    right = np.ones_like(data.interactions.correct)
    with pytest.raises(EvaluationError, match="of them right; it needs right and wrong ones"):
        TASKS[name](Partition.make(replace(data, interactions=replace(data.interactions, correct=right))))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_one_right_and_one_wrong_answer_in_a_part_are_enough(data, partition, part):
    r = data.interactions
    mine = np.flatnonzero(np.isin(r.student, getattr(partition.split, part).students))
    for right in (0, 1, len(mine) - 1, len(mine)):
        correct = r.correct.copy()
        correct[mine] = np.arange(len(mine)) < right
        made = Partition.make(replace(data, interactions=replace(r, correct=correct)), seed=0)
        if 0 < right < len(mine):
            assert Attempts(made, "kt").parts[part].interactions.correct.sum() == right
            continue
        with pytest.raises(EvaluationError, match=f"has {len(mine)} {part} responses, {right} of them right; it needs"):
            Attempts(made, "kt")


def test_settings_reach_the_task_and_its_baselines_come_along():
    config = Config.load(None, ["tasks=kt,kt-fast", "trainers=skipgram", "kt.hidden=20", "kt.tables=['frozen']"])
    assert config.task_settings()["kt"] == KTSettings(hidden=20, tables=("frozen",))
    assert set(config.build_trainers()) == {"skipgram", "random", "concept-mean", "concept-onehot", "svd"}
    assert config.to_dict()["kt"]["tables"] == ["frozen"]
    with pytest.raises(ConfigError, match=r"unknown setting 'kt\.hiden'; did you mean kt\.hidden"):
        Config.load(None, ["tasks=kt", "kt.hiden=20"])
    with pytest.raises(ConfigError, match="setting tables: none given"):
        KTSettings(tables=())
    with pytest.raises(ConfigError, match=r'kt\.tables: should be a list, for example \["frozen"\], given .frozen'):
        Config.load(None, ["tasks=kt", "kt.tables=frozen"])


def test_a_size_replaces_settings_of_the_same_names(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        'seeds = 3\ntasks = ["kt"]\n[kt]\nhidden = 50\nepochs = 9\n[sizes.small]\nseeds = 1\nkt.epochs = 2\n'
    )
    whole, small = Config.load(path), Config.load(path, size="small")
    assert (whole.seeds, whole.task_settings()["kt"].epochs) == (3, 9)
    assert (small.seeds, small.task_settings()["kt"]) == (1, KTSettings(hidden=50, epochs=2))
    assert Config.load(path, ["size=small", "seeds=2"]).seeds == 2
    with pytest.raises(ConfigError, match="no size 'tiny'; it has small"):
        Config.load(path, size="tiny")


def test_the_benchmark_is_a_configuration_in_both_sizes():
    path = Path(__file__).parents[1] / "experiments" / "benchmark.toml"
    whole, small = Config.load(path), Config.load(path, size="small")
    assert {"kt", "kt-difficulty", "kt-attention", "kt-fast"} <= set(whole.tasks)
    assert small.seeds == 1
    assert set(small.tasks) < set(whole.tasks)
    assert small.build_walks()["session"] == whole.build_walks()["session"].__class__(per_question=2)


def test_turning_undoes_a_rotation_a_shift_and_a_scale():
    rng = np.random.default_rng(0)
    onto = principal(rng.standard_normal((50, 5)))
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    assert turned(3 * onto @ turn + 7, onto, np.ones(50)) == pytest.approx(onto, abs=1e-5)
    other = rng.standard_normal((50, 5))
    found, weight = turned(other, onto, np.ones(50)), np.ones(50)
    for _ in range(20):  # no other rotation comes closer
        q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
        tried = turned(other, onto, weight) @ q
        assert np.linalg.norm(found - onto) <= np.linalg.norm(tried - onto)


def test_turning_weighs_questions_by_their_responses():
    """scipy's Procrustes on weighted rows; weights far from one another change rotation and scale."""
    rng = np.random.default_rng(1)
    vectors, onto, weight = rng.standard_normal((40, 4)), rng.standard_normal((40, 4)), rng.uniform(0.01, 3, 40)
    x = vectors - vectors.mean(axis=0)
    rotation, scale = orthogonal_procrustes(x * weight[:, None], onto * weight[:, None])
    expected = x @ rotation * scale / np.square(x * weight[:, None]).sum()
    assert turned(vectors, onto, weight) == pytest.approx(expected)


def test_folded_vectors_are_made_without_ones_own_answers(partition, attempts):
    """Turn the answers of one fold's students around: their version stays, the others move."""
    walk = WALKS["metapath"](pattern="0.5*q-c-q + 0.5*q-s+-q", length=8, per_question=2)
    trainer = TRAINERS["netmf"](dim=6)
    made = cross_fitted(partition, attempts, walk, trainer)
    assert made.shape == (CROSSFIT_FOLDS + 1, partition.graph.n_questions, 6)
    train = partition.split.train
    mine = np.isin(train.interactions.student, train.students[attempts.fold[train.students] == 2])
    r = replace(train.interactions, correct=np.where(mine, 1 - train.interactions.correct, train.interactions.correct))
    parts = [
        TrainPart(train.dataset, kept, responses.of(kept))
        for responses in (train.interactions, r)
        for kept in (train.students[attempts.fold[train.students] != 2], train.students)
    ]
    without, whole, without_turned, whole_turned = (_vectors(partition, part, walk, trainer, 0) for part in parts)
    assert np.array_equal(without, without_turned)
    assert np.abs(whole - whole_turned).max() > 1e-4
    assert principal(whole) == pytest.approx(made[CROSSFIT_FOLDS], abs=1e-5)
