"""Models without vectors: their formulas, planted worlds, leaks, and their place in a report."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit, logsumexp
from scipy.stats import norm
from sklearn.metrics import log_loss

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
    PFA,
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


@pytest.mark.parametrize("model", ["rasch", "2pl"])
def test_a_question_that_nobody_answered_is_as_easy_as_all_answers_together(model):
    """The logit of the share of right answers, one of each kind added."""
    world = Simulated(questions=12, concepts=3, students=30, responses=8, seed=1).read()
    few = replace(world, interactions=world.interactions.where(world.interactions.question > 0))
    attempts = Attempts(Partition.make(few, seed=0, hold_out_edges=False), "kt-baselines")
    right = int(attempts.train.interactions.correct.sum())
    wrong = len(attempts.train.interactions) - right
    _, ease = BASELINES[model](attempts).parameters
    assert attempts.train.counts[0] == 0
    assert ease[0] == pytest.approx(np.log((right + 1) / (wrong + 1)), abs=1e-9)


def test_a_very_long_history_is_as_exact_as_a_short_one(partition, monkeypatch):
    """4,000 answers of one student, whose likelihood is far below the smallest float at every ability."""
    attempts = Attempts(partition, "kt-baselines")
    rng = np.random.default_rng(0)
    seen = interactions(np.zeros(4000, dtype=int), rng.integers(0, 120, 4000), rng.integers(0, 2, 4000))
    monkeypatch.setitem(attempts.parts, "test", replace(attempts.parts["test"], interactions=seen))
    model = TwoParameterHistory(attempts)
    slope, ease = model.parameters
    p = expit(slope[:, None] * model.nodes + ease[:, None])[seen.question]  # (answers, nodes)
    said = np.log(np.where(seen.correct[:, None] > 0, p, 1 - p))
    guess = model.predict("test")
    for t in (0, 1, 10, 500, 3999):
        log = said[:t].sum(axis=0) + norm.logpdf(model.nodes)
        assert guess[t] == pytest.approx(np.exp(log - logsumexp(log)) @ p[t], abs=1e-9)


def test_the_strength_of_a_ridge_is_chosen_on_validation(attempts, monkeypatch):
    """Three planned fits: the first is best on training, the second on validation, the third were its sign turned."""
    model = PFA(attempts)
    held, train = (attempts.parts[part].interactions.correct for part in ("validation", "train"))
    sign = {"train": np.ones(len(train)), "validation": 2.0 * held - 1}
    sign["validation"][::5] *= -1
    monkeypatch.setattr(model, "features", lambda part, ahead=1: sparse.csr_array(sign[part][:, None]))
    fits = iter([(1.4, -1.0), (1.4, 0.3), (-1.4, -0.3)])
    strengths = []

    class Planned:
        def __init__(self, C, **_):
            strengths.append(C)

        def fit(self, x, y):
            weight, constant = next(fits)
            assert np.array_equal(y, train)
            self.coef_, self.intercept_ = np.array([[weight]]), np.array([constant])
            return self

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Planned)
    weight, constant = model.fitted
    assert strengths == list(baselines.PENALTIES)
    assert (weight.tolist(), constant) == ([1.4], 0.3)
    guess = expit(1.4 * sign["validation"] + 0.3)
    assert model.predict("validation") == pytest.approx(guess)
    assert model.loss("validation") == pytest.approx(log_loss(held, guess))


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
    """Short sequences, parameters given: P(right | answers before the block) by all paths, known and unknown.

    Students are neighbours by number, and meet the first two skills and the last one.
    """
    attempts = Attempts(partition, "kt-baselines")
    model = BKT(attempts)
    rng = np.random.default_rng(0)
    n = int(model.skills.max()) + 1
    given = Mastery(*(rng.uniform(0.1, 0.45, n) for _ in range(4)))
    monkeypatch.setitem(vars(model), "mastery", given)
    part = partition.split.validation
    r = part.interactions
    short = r.where(np.arange(len(r)) - blocks(r, 1)[0] < 12)
    student = np.unique(short.student, return_inverse=True)[1].astype(np.int32)
    question = rng.choice(np.flatnonzero(np.isin(model.skills, [0, 1, n - 1])), len(short)).astype(np.int32)
    short = replace(short, student=student, question=question)
    monkeypatch.setitem(attempts.parts, "validation", replace(part, interactions=short))
    guess = model.predict("validation", ahead)
    _, block = blocks(short, ahead)
    checked = 0
    for t in range(len(short)):
        skill = model.skills[short.question[t]]
        mine = [i for i in range(t) if short.student[i] == short.student[t]]
        same = [i for i in mine if model.skills[short.question[i]] == skill]
        if len(same) > 7:
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


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_round_of_bkt_is_the_expectation_over_every_path(share, monkeypatch):
    """Expected beginnings, moves, guesses and slips by all paths, over their chances, drawn to those of all skills;
    guess and slip are at most a half, which a share of right answers near 1 or 0 would pass."""
    world = Simulated(questions=12, concepts=3, students=40, responses=8, seed=1).read()
    world = answered(world, np.random.default_rng(0).random(len(world.interactions)) < share)
    model = BKT(Attempts(Partition.make(world, hold_out_edges=False), "kt-baselines"))
    monkeypatch.setattr(BKT, "ROUNDS", 1)
    known, learnt, guess, slip = BKT.START
    r, n = model.attempts.train.interactions, int(model.skills.max()) + 1
    hits, chances = np.zeros((4, n)), np.zeros((4, n))
    for student, skill in product(np.unique(r.student), range(n)):
        right = r.correct[(r.student == student) & (model.skills[r.question] == skill)]
        weight, counts = [], []
        for path in product((0, 1), repeat=len(right)) if len(right) else ():
            p = known if path[0] else 1 - known
            for a, b in pairwise(path):
                p *= float(b) if a else (learnt if b else 1 - learnt)
            for state, good in zip(path, right, strict=True):
                p *= (1 - slip if good else slip) if state else (guess if good else 1 - guess)
            weight.append(p)
            before_last = [(a, b) for a, b in pairwise(path) if not a]
            wrong = sum(1 - right[i] for i, s in enumerate(path) if s)
            guessed = sum(right[i] for i, s in enumerate(path) if not s)
            counts.append(
                [
                    [path[0], 1],
                    [sum(b for _, b in before_last), len(before_last)],
                    [guessed, path.count(0)],
                    [wrong, path.count(1)],
                ]
            )
        if weight:
            mean = np.average(counts, axis=0, weights=weight)  # (4, 2)
            hits[:, skill] += mean[:, 0]
            chances[:, skill] += mean[:, 1]
    overall = hits.sum(axis=1) / chances.sum(axis=1)
    expected = (hits + BKT.DRAWN * overall[:, None]) / (chances + BKT.DRAWN)
    assert (expected[2:].max() > 0.5) == (share != 0.5)
    expected[2:] = np.minimum(expected[2:], 0.5)
    for name, values in zip(("known", "learnt", "guess", "slip"), expected, strict=True):
        assert getattr(model.mastery, name) == pytest.approx(values, abs=1e-12)


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
