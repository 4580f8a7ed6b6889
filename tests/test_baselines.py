"""Models without vectors: their formulas, planted worlds, leaks, and their place in a report."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from qcq.config import Config
from qcq.data import Simulated
from qcq.data.assembly import interactions
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError
from qcq.evaluation import TASKS, Partition
from qcq.evaluation.tracing import baselines
from qcq.evaluation.tracing.baselines import (
    BASELINES,
    BKT,
    NODES,
    BestLR,
    KTBaselinesSettings,
    Mastery,
    TwoParameter,
    TwoParameterHistory,
    before,
    blocks,
)
from qcq.evaluation.tracing.features import PRIOR
from qcq.evaluation.tracing.tasks import AHEAD, FIGURES, Attempts
from qcq.pipeline import Experiment
from qcq.report import beside_baselines, comparison


@pytest.fixture(scope="module")
def data():
    return Simulated(questions=120, concepts=8, students=300, responses=60, sets=12, seed=3).read()


@pytest.fixture(scope="module")
def partition(data):
    return Partition.make(data, seed=0)


@pytest.fixture(scope="module")
def attempts(partition):
    return Attempts(partition, "kt-baselines")


@pytest.fixture(scope="module")
def task(partition):
    return TASKS["kt-baselines"](partition)


def nothing(partition):
    return Embeddings(partition.graph.questions, np.zeros((partition.graph.n_questions, 1), dtype=np.float32))


def answered(data, correct, question=None):
    """The same students with other answers, and to other questions."""
    r = data.interactions
    changed = {"correct": np.asarray(correct, dtype=np.int8)}
    return replace(data, interactions=replace(r, **changed, **({} if question is None else {"question": question})))


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 3, 5])
def test_counts_before_a_block_are_a_plain_loop(ahead):
    rng = np.random.default_rng(ahead)
    student = np.repeat(np.arange(4), [7, 1, 12, 5])
    question, correct = rng.integers(0, 3, 25), rng.integers(0, 2, 25)
    r = interactions(student, question, correct)
    begin, block = blocks(r, ahead)
    seen, good = before(r.student.astype(np.int64) * 3 + r.question, np.arange(25), r.correct, block)
    for t in range(25):
        mine = np.flatnonzero(r.student == r.student[t])
        assert begin[t] == mine[0]
        assert block[t] == mine[0] + (t - mine[0]) // ahead * ahead
        same = [i for i in mine if i < block[t] and r.question[i] == r.question[t]]
        assert seen[t] == len(same)
        assert good[t] == r.correct[same].sum()


@pytest.mark.parametrize("ahead", [1, AHEAD])
def test_features_of_best_lr_are_their_definition(partition, attempts, ahead):
    model = BestLR(attempts)
    x = model.features("validation", ahead).toarray()
    r, w = partition.split.validation.interactions, partition.graph.weights.toarray() > 0
    n, k = w.shape
    assert x.shape == (len(r), n + 3 * k + 4)
    _, block = blocks(r, ahead)
    for t in (0, 1, 7, 63, 119, len(r) - 1):
        past = np.flatnonzero((r.student == r.student[t]) & (np.arange(len(r)) < block[t]))
        right = r.correct[past] > 0
        asked = np.zeros(n)
        asked[r.question[t]] = 1
        own = w[r.question[t]].astype(float)
        on = w[r.question[past]]  # (past, concepts)
        same = r.question[past] == r.question[t]
        counts = [(right & same).sum(), same.sum(), right.sum(), len(past)]
        wanted = [asked, own, own * np.log1p(on[right].sum(axis=0)), own * np.log1p(on.sum(axis=0)), np.log1p(counts)]
        assert x[t] == pytest.approx(np.concatenate(wanted), abs=1e-12)


# --- planted worlds -------------------------------------------------------------------------------------------------


def test_question_means_are_training_shares(partition, attempts):
    model = BASELINES["question-mean"](attempts)
    r, test = partition.split.train.interactions, partition.split.test.interactions
    guess = model.predict("test")
    for at in (0, 50, 999):
        its = r.correct[r.question == test.question[at]]
        assert guess[at] == pytest.approx((its.sum() + PRIOR * r.correct.mean()) / (len(its) + PRIOR))


@pytest.mark.parametrize("slopes", [False, True])
def test_item_response_finds_what_was_planted(data, slopes):
    """2,000 answers a question: slope and ease come back, and so does the ability from the answers so far."""
    rng = np.random.default_rng(0)
    r = data.interactions
    student, question = np.repeat(np.arange(3000), 20), np.concatenate([rng.permutation(30)[:20] for _ in range(3000)])
    slope = rng.uniform(0.5, 1.8, 30) if slopes else np.full(30, 1.3)
    ease, able = rng.normal(0.3, 1.0, 30), rng.standard_normal(3000)
    correct = rng.random(60_000) < expit(slope[question] * able[student] + ease[question])
    seen = interactions(student, question, correct.astype(int))
    matrix = data.q_matrix[:30]
    world = replace(
        data,
        interactions=seen,
        questions=data.questions[:30],
        q_matrix=matrix,
        students=[f"s{i}" for i in range(3000)],
        parts=None,
        truth={},
    )
    assert r is not seen
    partition = Partition.make(world, hold_out_edges=False)
    attempts = Attempts(partition, "kt-baselines")
    model = (TwoParameterHistory if slopes else BASELINES["rasch"])(attempts)
    a, b = model.parameters
    assert np.abs(b - ease).mean() < 0.12
    assert np.abs(a - slope).mean() < 0.12
    if not slopes:
        assert np.ptp(a) == 0
        return
    test = partition.split.test.interactions
    last = np.flatnonzero(np.r_[test.student[1:] != test.student[:-1], True])
    guess = model.predict("test")
    # Beside the posterior mean computed answer by answer from the planted values, on a finer grid.
    grid = np.linspace(-5, 5, 801)
    for t in last[:20]:
        mine = np.flatnonzero((test.student == test.student[t]) & (np.arange(len(test)) < t))
        weight = np.exp(-(grid**2) / 2)
        for i in mine:
            p = expit(slope[test.question[i]] * grid + ease[test.question[i]])
            weight = weight * (p if test.correct[i] else 1 - p)
        wanted = (weight * expit(slope[test.question[t]] * grid + ease[test.question[t]])).sum() / weight.sum()
        assert guess[t] == pytest.approx(wanted, abs=0.06)
    truth = expit(slope[test.question] * able[test.student] + ease[test.question])
    assert (
        np.abs(guess[last] - truth[last]).mean() < np.abs(TwoParameter(attempts).predict("test") - truth)[last].mean()
    )


@pytest.mark.parametrize("model", ["rasch", "2pl"])
def test_item_response_is_where_the_penalised_likelihood_is_highest(model, monkeypatch):
    """With few answers the priors matter: no step from the parameters found raises the sum over all abilities."""
    monkeypatch.setattr(baselines, "ENOUGH", 1e-7)
    monkeypatch.setattr(baselines, "ROUNDS", 2000)
    world = Simulated(questions=12, concepts=3, students=30, responses=8, seed=1).read()
    fitted = BASELINES[model](Attempts(Partition.make(world, seed=0, hold_out_edges=False), "kt-baselines"))
    r = fitted.attempts.train.interactions
    middle = np.log((r.correct.sum() + 1) / (len(r) - r.correct.sum() + 1))
    nodes = np.linspace(-4, 4, NODES)
    weight = norm.pdf(nodes) / norm.pdf(nodes).sum()

    def highest(slope, ease):
        p = expit(slope[r.question, None] * nodes + ease[r.question, None])  # (answers, nodes)
        of_answer = np.where(r.correct[:, None] > 0, p, 1 - p)
        whole = sum(np.log(weight @ of_answer[r.student == s].prod(axis=0)) for s in np.unique(r.student))
        steep = slope if model == "2pl" else slope[:1]
        return whole + norm.logpdf(ease, middle, 2.0).sum() + norm.logpdf(steep, 1.0, 0.5).sum()

    slope, ease = fitted.parameters
    best = highest(slope, ease)
    ways = [np.eye(12)[i] for i in range(12)]
    for step in (-0.01, 0.01):
        assert all(highest(slope, ease + step * way) < best for way in ways)
        assert all(highest(slope + step * way, ease) < best for way in (ways if model == "2pl" else [np.ones(12)]))


def test_without_history_nothing_is_traced(task):
    found = task.scores("test")
    for name in ("question-mean", "rasch", "2pl"):
        assert found[name].metrics["auc-within-questions"] == 0.5
        assert found[name].metrics["auc-balanced"] == pytest.approx(0.5, abs=1e-12)
        assert found[name].metrics["auc-next-5"] == found[name].metrics["auc"]
    for name in ("2pl-history", "bkt", "pfa", "best-lr", "similar-students"):
        assert found[name].metrics["auc-within-questions"] > 0.55
    assert set(found) == set(BASELINES)
    assert len(task.models["2pl"].nodes) == NODES


def test_concepts_that_were_practised_are_traced_by_counts(data):
    """Right with 0.9 once three of the concept were met, else with 0.2: PFA finds it, IRT can't."""
    rng = np.random.default_rng(0)
    r, tags = data.interactions, data.q_matrix.toarray() > 0
    single = np.flatnonzero(tags.sum(axis=1) == 1)
    question = rng.choice(single, len(r)).astype(np.int32)
    concept = tags[question].argmax(axis=1)
    met, correct = {}, []
    for s, c in zip(r.student.tolist(), concept.tolist(), strict=True):
        correct.append(rng.random() < (0.9 if met.get((s, c), 0) >= 3 else 0.2))
        met[s, c] = met.get((s, c), 0) + 1
    world = answered(data, correct, question)
    found = TASKS["kt-baselines"](Partition.make(world), KTBaselinesSettings(models=("pfa", "best-lr", "2pl-history")))
    scores = {name: score.metrics for name, score in found.scores("test").items()}
    assert scores["pfa"]["auc"] > scores["2pl-history"]["auc"] + 0.03
    assert scores["pfa"]["auc-within-students"] > 0.75
    assert found.best in ("pfa", "best-lr")


@pytest.mark.parametrize("ahead", [1, 3])
def test_bkt_is_the_sum_over_every_path_of_its_hidden_states(partition, monkeypatch, ahead):
    """Short sequences, parameters given: P(right | answers before the block) by all paths, known and unknown."""
    attempts = Attempts(partition, "kt-baselines")
    model = BKT(attempts)
    rng = np.random.default_rng(0)
    n = int(model.skills.max()) + 1
    given = Mastery(*(rng.uniform(0.1, 0.45, n) for _ in range(4)))
    monkeypatch.setitem(vars(model), "mastery", given)
    part = partition.split.validation
    short = part.interactions.where(np.arange(len(part.interactions)) < 60)
    monkeypatch.setitem(attempts.parts, "validation", replace(part, interactions=short))
    guess = model.predict("validation", ahead)
    _, block = blocks(short, ahead)
    checked = 0
    for t in range(60):
        skill = model.skills[short.question[t]]
        mine = [i for i in range(t) if short.student[i] == short.student[t]]
        same = [i for i in mine if model.skills[short.question[i]] == skill]
        if len(same) > 9:
            continue
        k, learnt, g, s = (getattr(given, name)[skill] for name in ("known", "learnt", "guess", "slip"))
        total = right = 0.0
        for path in product((0, 1), repeat=len(same) + 1):
            p = k if path[0] else 1 - k
            for a, b in pairwise(path):
                p *= (b == 1) if a else (learnt if b else 1 - learnt)
            for state, i in zip(path[:-1], same, strict=True):
                if i < block[t]:
                    good = 1 - s if state else g
                    p *= good if short.correct[i] else 1 - good
            total += p
            right += p * (1 - s if path[-1] else g)
        assert guess[t] == pytest.approx(right / total, abs=1e-12)
        checked += len(same) > 1
    assert checked > 5


def test_bkt_finds_what_was_planted(data):
    """Two skills with parameters far apart, 1,500 students: EM brings them back."""
    rng = np.random.default_rng(0)
    planted = np.array([[0.2, 0.1, 0.15, 0.05], [0.6, 0.3, 0.3, 0.2]])
    tags = data.q_matrix.toarray() > 0
    pick = [int(np.flatnonzero((tags.sum(axis=1) == 1) & tags[:, c])[0]) for c in (0, 1)]
    question = np.tile(np.repeat(pick, 12), 1500)
    correct = []
    for _ in range(1500):
        for known, learnt, guess, slip in planted:
            state = rng.random() < known
            for _ in range(12):
                correct.append(rng.random() < (1 - slip if state else guess))
                state |= rng.random() < learnt
    seen = interactions(np.repeat(np.arange(1500), 24), question, np.array(correct, dtype=int))
    names = [f"s{i}" for i in range(1500)]
    world = replace(data, interactions=seen, students=names, parts=None, truth={})
    attempts = Attempts(Partition.make(world, hold_out_edges=False), "kt-baselines")
    model = BKT(attempts)
    for c in (0, 1):
        skill = model.skills[pick[c]]
        found = [getattr(model.mastery, name)[skill] for name in ("known", "learnt", "guess", "slip")]
        assert found == pytest.approx(planted[c], abs=0.06)


def test_best_lr_is_first_where_questions_and_counts_both_matter(task):
    assert task.best == max(BASELINES, key=lambda name: task.scores("validation")[name].metrics["auc"])
    found = task.scores("test")
    assert found["best-lr"].metrics["auc"] > found["question-mean"].metrics["auc"]
    assert found["best-lr"].metrics["auc"] > found["pfa"].metrics["auc"]


# --- leaks ----------------------------------------------------------------------------------------------------------


def test_test_answers_change_no_parameter_and_no_choice(data, partition, task):
    tested = np.isin(data.interactions.student, partition.split.test.students)
    turned = answered(data, np.where(tested, 1 - data.interactions.correct, data.interactions.correct))
    other = TASKS["kt-baselines"](Partition.make(turned, seed=0))
    assert other.best == task.best
    for name in BASELINES:
        assert np.array_equal(task.models[name].predict("validation"), other.models[name].predict("validation"))
    first = blocks(partition.split.test.interactions, 1)[0] == np.arange(len(partition.split.test.interactions))
    for name in BASELINES:
        assert np.array_equal(task.models[name].predict("test")[first], other.models[name].predict("test")[first])


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("ahead", [1, AHEAD])
def test_a_block_is_predicted_without_its_own_and_later_answers(task, name, ahead, monkeypatch):
    model = task.models[name]
    part = task.attempts.parts["test"]
    r = part.interactions
    begin, block = blocks(r, ahead)
    at = int(begin[200] + 10)  # the begin of a block of some student
    whole = model.predict("test", ahead)
    mine = (np.arange(len(r)) >= at) & (r.student == r.student[at])
    turned = replace(r, correct=np.where(mine, 1 - r.correct, r.correct))
    monkeypatch.setitem(task.attempts.parts, "test", replace(part, interactions=turned))
    other = model.predict("test", ahead)
    same = block <= at
    assert block[at] == at
    assert other[same | ~mine] == pytest.approx(whole[same | ~mine], abs=1e-9)
    if name in ("2pl-history", "bkt", "pfa", "best-lr", "similar-students"):
        assert np.abs(other - whole).max() > 1e-3


# --- in a run -------------------------------------------------------------------------------------------------------


def test_every_figure_of_every_model_is_reported(task, partition):
    score = task.score(nothing(partition))
    assert score.metrics["auc"] == score.metrics[f"{task.best}/auc"]
    assert score.choices == {"model": task.best}
    for name in BASELINES:
        mine = {metric.split("/")[1] for metric in score.metrics if metric.startswith(f"{name}/")}
        assert mine == set(FIGURES) - {"auc-cold", "auc-unseen"} | (mine & {"auc-cold", "auc-unseen"})
    again = task.score(Embeddings(partition.graph.questions, np.random.default_rng(0).standard_normal((120, 4))))
    assert again.metrics == score.metrics


def test_a_report_shows_them_once_beside_the_tables(tmp_path):
    config = Config(
        tasks=("kt-fast", "kt-baselines"),
        trainers=("concept-mean", "random", "ppmi-svd"),
        seeds=1,
        tune=False,
        sections={"ppmi-svd": {"dim": 8}, "kt-baselines": {"models": ["question-mean", "2pl-history"]}},
    )
    data = Simulated(questions=200, concepts=10, students=150, responses=30, seed=3).read()
    run = Experiment(config, data).run(tmp_path / "run")
    rows = [row for row in run.rows("results") if row["task"] == "kt-baselines"]
    assert {row["metric"].split("/")[0] for row in rows} == {"auc", "question-mean", "2pl-history"}
    assert len({row["value"] for row in rows if row["metric"] == "auc"}) == 1
    table = comparison(run)
    assert not [column for column in table.columns if column.task == "kt-baselines"]
    (learned, base) = beside_baselines(run, table)
    assert (learned.line.trainer, learned.baseline) == ("ppmi-svd", "2pl-history")
    assert base.line.baseline
    line = next(line for line in table.lines if line.trainer == "ppmi-svd")
    figure = next(row["value"] for row in rows if row["metric"] == "2pl-history/auc")
    assert learned.difference.mean == pytest.approx(line.values[0][0] - figure)
    assert learned.difference.comparisons == 2
    page = (run.path / "report.md").read_text()
    section = page.split("## Without vectors")[1].split("\n## ")[0]
    for name in ("question-mean", "2pl-history"):
        assert len(re.findall(rf"\n\| kt-baselines +\| {name} ", section)) == 1
    assert str(learned) in section
    assert "kt-baselines" not in page.split("## Knowledge tracing")[1].split("\n## ")[0]
    assert "Beside models without vectors" in (run.path / "report.html").read_text()


def test_bad_settings_are_one_line():
    with pytest.raises(ConfigError, match="setting models: none given; name some of question-mean"):
        KTBaselinesSettings(models=())
    with pytest.raises(ConfigError, match=r"setting models\.0: input should be 'question-mean'"):
        Config.load(None, ["tasks=kt-baselines", 'kt-baselines.models=["irt"]'])
