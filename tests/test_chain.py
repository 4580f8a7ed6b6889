"""The chain's law against dense matrices and against sampling; what inspect says, on hand-made and on real graphs."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import chi2

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, ConfigError
from qcq.floors.expected import Expected
from qcq.floors.identifiability import ENOUGH, _sampled_at_rest, inspect, would_add
from qcq.floors.losses import HeldOutLoss, clustered, measure, share_left, verdict
from qcq.floors.markov import MarkovChain, edge_steps
from qcq.floors.objectives import Cloze, Masked, MaskedBert, NextQuestion, SkipGram
from qcq.floors.pairs import PairLaw
from qcq.graph import KnowledgeGraph
from qcq.models import TrainingData
from qcq.walks import QCQ, WALKS

PLAIN = ["qcq", "weighted", "non-backtracking", "concept-hop", "node2vec", "restart"]  # walk any graph


def graph_of(weights) -> KnowledgeGraph:
    w = sparse.csr_array(np.array(weights, dtype=float))
    return KnowledgeGraph([f"q{i}" for i in range(w.shape[0])], [f"c{j}" for j in range(w.shape[1])], w)


@st.composite
def graphs(draw, most_questions=12, most_concepts=5):
    """Any small graph: isolated nodes, several components and repeated rows included; at least one edge."""
    q = draw(st.integers(1, most_questions))
    c = draw(st.integers(1, most_concepts))
    cells = draw(st.lists(st.booleans(), min_size=q * c, max_size=q * c).filter(any))
    return graph_of(np.array(cells, dtype=float).reshape(q, c))


def dense(chain: MarkovChain) -> np.ndarray:
    return (chain.out @ chain.into).toarray()


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(1, 5))
def test_powers_and_marginals_are_those_of_the_dense_matrix(graph, length):
    chain = MarkovChain.of_graph(graph, length=length)
    p, q = dense(chain), np.arange(graph.n_questions)
    mu = chain.start
    for a in range(1, length + 1):
        np.testing.assert_allclose(chain.power(a, q[:, None], q[None]), np.linalg.matrix_power(p, a), atol=1e-12)
        np.testing.assert_allclose(chain.marginal(a - 1), mu, atol=1e-12)
        mu = mu @ p
    assert chain.unigram.sum() == pytest.approx(1)
    whole, mu = MarkovChain.of_graph(graph, length=length, keep_concepts=True), chain.start
    for a in range(length):
        law = np.concatenate([mu, np.zeros(graph.n_concepts)])
        np.testing.assert_allclose(whole.marginal(2 * a), law, atol=1e-12)
        if a + 1 < length:
            through = mu @ chain.out.toarray()[:, : graph.n_concepts]
            law = np.concatenate([np.zeros(graph.n_questions), through])
            np.testing.assert_allclose(whole.marginal(2 * a + 1), law, atol=1e-12)
        mu = mu @ p


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_a_class_is_a_set_of_concepts(graph):
    chain = MarkovChain.of_graph(graph, length=3)
    sets = [tuple(row) for row in graph.weights.toarray()]
    for i in range(len(sets)):
        for j in range(i):
            assert (sets[i] == sets[j]) == (chain.classes[i] == chain.classes[j])


def test_classes_tell_starts_and_weights_apart():
    u, v = edge_steps(sparse.csr_array(np.ones((4, 1))))
    chain = MarkovChain(u, v, np.array([1.0, 1.0, 2.0, 1.0]), 3)
    assert chain.n_classes == 2
    assert chain.classes[0] == chain.classes[1] == chain.classes[3] != chain.classes[2]


@settings(max_examples=25, deadline=None)
@given(graphs(6, 3), st.integers(2, 4), st.booleans(), st.integers(0, 2**31))
def test_swapping_two_questions_of_one_class_leaves_every_posterior_alone(graph, length, keep, seed):
    chain = MarkovChain.of_graph(graph, length=length, keep_concepts=keep)
    rng = np.random.default_rng(seed)
    walk = QCQ(length=length, keep_concepts=keep, per_question=1).sample(graph, seed % 97).tokens[-1]
    place = 0 if walk[-1] < 0 else 2 * rng.integers(length) if keep else rng.integers(length)
    p = chain.posterior(walk, int(place))
    for k in range(chain.n_classes):
        members = [i for i in np.flatnonzero(chain.classes == k) if i not in walk]
        assert np.ptp(p[members]) < 1e-12 if members else True


@settings(max_examples=30, deadline=None)
@given(graphs(), st.integers(2, 6), st.booleans(), st.integers(0, 2**31))
def test_the_oracles_distribution_holds_the_floor(graph, length, keep, seed):
    walk = QCQ(length=length, keep_concepts=keep, per_question=1)
    corpus, chain = walk.sample(graph, seed), walk.chain(graph)
    rng = np.random.default_rng(seed)
    asked = (rng.random(corpus.tokens.shape) < 0.5) & (corpus.tokens >= 0)
    seen = np.where(asked, HIDDEN, corpus.tokens)
    got = chain.log_posterior(corpus.tokens, asked, seen, seen)
    for item, (w, p) in list(enumerate(zip(*np.nonzero(asked), strict=True)))[:20]:
        law = chain.posterior(seen[w], p)
        assert law.sum() == pytest.approx(1)
        assert got[item] == pytest.approx(np.log(law[corpus.tokens[w, p]]), abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(
    graphs(),
    st.sampled_from(["qcq", "weighted"]),
    st.booleans(),
    st.sampled_from(["question", "degree"]),
    st.integers(0, 99),
)
def test_floors_on_sampled_walks_lie_within_their_error_of_the_expected_floor(graph, name, keep, start, seed):
    """Walks from the engine, floors from the algebra: were either wrong, they'd differ."""
    walk = WALKS[name](length=6, per_question=-(-3000 // graph.n_questions), keep_concepts=keep, start=start)
    chain, corpus = walk.chain(graph), walk.sample(graph, seed)
    for objective in (Masked(0.5), Cloze(), NextQuestion(), NextQuestion("backward"), SkipGram(3, 2)):
        expected = objective.expected(Expected(chain)) if chain.start[np.diff(chain.out.indptr) > 0].sum() else None
        if expected is None or corpus.tokens[:, 1:].max() < 0:
            continue
        if isinstance(objective, SkipGram):
            vocabulary = np.zeros(graph.n_questions + graph.n_concepts)
            vocabulary[: chain.n_tokens] = chain.unigram
            batch = SkipGram(3, 2, counts=vocabulary).held_out_batch(corpus, seed)
        else:
            batch = objective.held_out_batch(corpus, seed)
        mean, se = clustered(batch.objective.floor(chain, batch), batch.walk)
        # What happens in fewer than one walk in a thousand may be missing from sample and error alike.
        assert abs(mean - expected) < 5 * se + 1e-3, (objective, mean, expected, se)


@settings(max_examples=8, deadline=None)
@given(graphs(8, 3), st.integers(0, 99))
def test_no_other_answer_beats_the_oracle(graph, seed):
    """Bend the exact answers a little, in any direction: the mean loss can only rise (beyond chance)."""
    walk = QCQ(length=5, per_question=-(-4000 // graph.n_questions))
    chain, corpus = walk.chain(graph), walk.sample(graph, seed)
    rng = np.random.default_rng(seed)
    for objective in (Masked(0.4), MaskedBert(0.4)):
        batch = objective.held_out_batch(corpus, seed)
        floor = objective.floor(chain, batch)
        # Another Bayesian with a wrong idea of the walk: other transition weights on the same edges.
        w = graph.weights.copy()
        w.data = rng.uniform(0.5, 2.0, len(w.data))
        wrong = MarkovChain.of_graph(graph, length=5, weights=w)
        excess, se = clustered(objective.floor(wrong, batch) - floor, batch.walk)
        assert excess > -4 * se - 1e-9


def test_conditional_information_beyond_the_neighbours_is_zero():
    """I(X_2; X_0 | X_1) of a first-order walk, from the joint law of three questions."""
    chain = MarkovChain.of_graph(graph_of([[1, 0], [1, 1], [0, 1], [1, 0]]), length=3)
    p = dense(chain)
    joint = chain.start[:, None, None] * p[:, :, None] * p[None]  # (x0, x1, x2)
    given_both = joint / joint.sum(axis=2, keepdims=True).clip(1e-300)
    given_last = joint.sum(axis=0) / joint.sum(axis=(0, 2))[:, None]
    ratio = np.where(joint > 0, given_both / given_last[None].clip(1e-300), 1.0)
    assert abs((joint * np.log(ratio)).sum()) < 1e-12


@pytest.mark.parametrize(
    ("out", "into", "start", "message"),
    [
        (np.ones((2, 1)), np.full((1, 2), 0.5), [1, -1], "not negative"),
        (np.ones((2, 1)), np.full((1, 2), 0.5), [0, 0], "not all 0"),
        (np.full((2, 1), 0.7), np.full((1, 2), 0.5), [1, 1], "rows of U"),
        (np.ones((2, 1)), np.full((1, 2), 0.7), [1, 1], "rows of V"),
        (np.array([[1.0], [0.0]]), np.full((1, 2), 0.5), [1, 1], "stuck"),
        (np.ones((2, 1)), np.zeros((1, 2)), [1, 1], "stuck"),
        (np.ones((2, 1)), np.full((1, 3), 1 / 3), [1, 1], "don't fit"),
    ],
)
def test_what_is_no_chain_is_refused(out, into, start, message):
    with pytest.raises(ChainError, match=message):
        MarkovChain(sparse.csr_array(out), sparse.csr_array(into), np.array(start, dtype=float), 3)


def test_seeing_the_impossible_is_refused():
    chain = MarkovChain.of_graph(graph_of([[1, 0], [0, 1]]), length=3)
    with pytest.raises(ChainError, match="probability 0"):
        chain.posterior([0, HIDDEN, 1], 1)


def test_clustered_error_is_that_of_walk_means_when_walks_are_equally_long():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 7)) + rng.normal(size=(200, 1))
    mean, se = clustered(values.ravel(), np.repeat(np.arange(200), 7))
    means = values.mean(axis=1)
    assert mean == pytest.approx(means.mean())
    assert se == pytest.approx(means.std(ddof=1) / np.sqrt(200))


@pytest.mark.parametrize(
    ("loss", "history", "word"),
    [
        (5.62, [], "at floor"),
        (5.0, [], "at floor"),
        (float("inf"), [6.0], "diverged"),
        (float("nan"), [6.0], "diverged"),
        (11.5, [12.0, 13.0], "diverged"),
        (11.5, [6.0, 8.0], "overfitting"),
        (6.2, [6.0], "overfitting"),
        (6.01, [6.0], "under-trained"),
        (9.5, [9.7], "unigram trap"),
        (9.9, [], "unigram trap"),
        (6.0, [6.5], "under-trained"),
    ],
)
def test_verdicts_follow_their_rules(loss, history, word):
    assert verdict(loss, 5.6, 9.6, 9.8, se=0.01, history=history) == word


@given(st.floats(0.0, 6.0), st.floats(0.3, 8.0), st.floats(0.0, 1.2), st.floats(0.3, 5.0))
def test_a_verdict_depends_on_the_share_of_the_way_alone(floor, way, share, scale):
    """The same share of another way, over another floor: the same word (away from the thresholds and the least way)."""
    assume(
        all(abs(share - edge) > 1e-6 for edge in (0.02, 0.9)) and share < 1.0 and min(way, way * scale) * 0.02 > 0.006
    )
    words = {
        verdict(f + share * w, f, f + w, f + w + 0.2) for f, w in ((floor, way), (0.0, way), (floor + 1.0, way * scale))
    }
    assert words == {"at floor" if share <= 0.02 else "unigram trap" if share >= 0.9 else "under-trained"}


def test_a_walk_that_tells_nothing_is_at_its_floor():
    assert verdict(5.601, 5.6, 5.6, 5.8) == "at floor"
    assert share_left(0.001, 5.6, 5.6) is None


def test_a_report_pairs_model_and_oracle_on_the_same_items():
    graph = graph_of([[1, 0], [1, 1], [0, 1], [1, 0]])
    source = TrainingData(graph, QCQ(length=8, per_question=50))

    class Uniform:
        objective, history = Masked(), ()

        def losses(self, batch):
            return np.full(len(batch), np.log(4.0))

    report = measure(Uniform(), source)
    batch = Masked().held_out_batch(source.heldout, 0)
    floor = Masked().floor(source.chain, batch)
    assert report.floor == pytest.approx(floor.mean())
    assert report.excess == pytest.approx(np.log(4) - floor.mean())
    assert report.se == pytest.approx(clustered(np.log(4) - floor, batch.walk)[1])
    assert report.loss == pytest.approx(np.log(4))
    assert report.items == len(batch)
    assert report.unigram <= report.loss + 3 * report.se
    assert report.verdict == "unigram trap"
    assert report.figures["excess"] == report.excess

    class Silent(Uniform):
        objective = None

    with pytest.raises(ConfigError, match="no held-out loss"):
        measure(Silent(), source)


@pytest.mark.parametrize(("history", "word"), [([0.7, 0.1, 0.9], "overfitting"), ([0.9, 0.3, 0.3], "unigram trap")])
def test_only_differences_inside_a_history_count(history, word):
    """Losses during training come from another, here a much easier, paper."""
    graph = graph_of([[1, 0], [1, 1], [0, 1], [1, 0]])
    source = TrainingData(graph, QCQ(length=8, per_question=200))

    class Uniform:
        objective = Masked()

        def losses(self, batch):
            return np.full(len(batch), np.log(4.0))

    assert measure(Uniform(), source, history=history).verdict == word


def test_a_walk_without_a_chain_is_reported_without_a_floor():
    graph = graph_of([[1, 1], [1, 1], [0, 1]])
    source = TrainingData(graph, WALKS["restart"](length=5, probability=0.3))

    class Uniform:
        objective, history = Masked(), ()

        def losses(self, batch):
            return np.full(len(batch), np.log(3.0))

    report = measure(Uniform(), source)
    assert (report.floor, report.excess, report.verdict) == (None, None, None)
    assert "no exact chain for restart" in report.why
    assert 0 < report.unigram < 1.2


def test_inspect_of_a_graph_worked_out_by_hand():
    # Two components: concept 0 with four alike questions; concept 1 with a question that has it alone, and one that has
    # concept 2 as well.
    report = inspect(graph_of([[1, 0, 0]] * 4 + [[0, 1, 0], [0, 1, 1]]), QCQ(length=4))
    assert report["distinct_sets"] == 3
    assert report["indistinguishable_share"] == pytest.approx(4 / 6)
    assert report["ln_q"] == pytest.approx(np.log(6))
    pi = np.array([1, 1, 1, 1, 1, 2]) / 7
    assert report["unigram"] == pytest.approx(-(pi * np.log(pi)).sum())
    assert report["within_class"] == pytest.approx(4 / 7 * np.log(4))
    assert report["components"] == 2
    component = np.array([4, 3]) / 7
    assert report["component_entropy"] == pytest.approx(-(component * np.log(component)).sum())
    rest = MarkovChain.of_graph(graph_of([[1, 0, 0]] * 4 + [[0, 1, 0], [0, 1, 1]]), length=4, start="degree")
    p = dense(rest)
    for lag, found in enumerate(report["mutual_information"], 1):
        joint = pi[:, None] * np.linalg.matrix_power(p, lag)
        ratio = np.where(joint > 0, joint / np.outer(pi, pi), 1.0)
        assert found == pytest.approx((joint * np.log(ratio)).sum(), abs=1e-9)
    assert len(report["mutual_information"]) == 4
    assert report["mutual_information_given_neighbours"] == 0.0
    assert report["would_add"]["prerequisites"]["within_class"] == pytest.approx(report["within_class"])
    assert set(report["floors"]["walk"]) == {
        "next_question", "previous_question", "masked", "masked_bert", "cloze", "skipgram",
    }  # fmt: skip
    assert set(report["standard_errors"]) == {"floors.walk.masked_bert"}
    assert report["achieved"]["skipgram_rank_64"] >= report["floors"]["walk"]["skipgram"] - 1e-9


def test_context_beyond_the_last_question_tells_something_where_the_walk_remembers():
    report = inspect(
        graph_of([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]), WALKS["concept-hop"](length=5, per_question=200)
    )
    error = report["standard_errors"]["mutual_information_given_neighbours"]
    assert report["mutual_information_given_neighbours"] > 4 * error
    assert set(report["floors"]["walk"]) == {"next_question", "previous_question", "masked", "cloze", "skipgram"}
    assert any("masked_bert" in note for note in report["notes"])


def test_a_concept_among_the_tokens_has_its_share_where_the_graph_has_one_only():
    source = TrainingData(graph_of([[1], [1], [1]]), WALKS["restart"](length=4, probability=0.3, keep_concepts=True))
    batch = Masked().held_out_batch(source.heldout, 0)
    tokens = np.concatenate([shard[shard >= 0] for shard in source.corpus.shards])
    share = 1 + np.bincount(tokens, minlength=4)
    assert HeldOutLoss(source, batch).unigram == pytest.approx(-np.log(share / share.sum())[batch.targets].mean())


@settings(max_examples=15, deadline=None)
@given(graphs(), st.integers(1, 5), st.booleans(), st.sampled_from(PLAIN))
def test_inspect_speaks_of_any_graph_and_walk(graph, length, keep, name):
    import json

    report = inspect(graph, WALKS[name](length=length, keep_concepts=keep, per_question=2))
    json.dumps(report, allow_nan=False)
    stationary = report["floors"]["stationary"]
    assert -1e-9 <= stationary["masked_both_neighbours"] <= stationary["next_question"] + 1e-9
    assert stationary["next_question"] == pytest.approx(report["unigram"] - report["mutual_information"][0], abs=1e-9)
    assert report["within_class"] <= stationary["masked_both_neighbours"] + 1e-9
    information = report["mutual_information"]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(information))
    above = [max(i - report["component_entropy"], 0) for i in information]
    assert report["mutual_information_above_components"] == pytest.approx(above)
    assert information[-1] >= report["component_entropy"] - 1e-9


def test_a_large_graph_is_sampled_and_agrees_with_the_exact_figures(monkeypatch):
    rng = np.random.default_rng(0)
    graph = graph_of((rng.random((60, 9)) < 0.25).astype(float))
    walk = QCQ(length=6, per_question=40)
    exact = inspect(graph, walk)
    monkeypatch.setattr("qcq.floors.identifiability.MOST_CLASSES", 5)
    monkeypatch.setattr("qcq.floors.expected.MOST_CLASSES", 5)
    sampled = inspect(graph, walk)
    errors = sampled["standard_errors"]
    assert len(errors) == 2 + 6 + 6
    for path in errors:
        a: Any = exact
        b: Any = sampled
        for key in path.split("."):
            a, b = (a[int(key)], b[int(key)]) if isinstance(a, list) else (a[key], b[key])
        # skip-gram's noise comes from the sampled walks' counts there, from the exact shares here
        slack = 0.1 if path.endswith("skipgram") else 4 * errors.get(path, 0) + 1e-9
        if path in exact["standard_errors"]:
            slack += 4 * exact["standard_errors"][path]
        assert abs(a - b) < slack, path
    assert sampled["log_ratio"] is None
    assert any("sampled" in note for note in sampled["notes"])


def test_sampled_figures_have_the_error_that_they_state():
    """Over many samples, figure minus exact figure has the spread of the stated standard error."""
    rng = np.random.default_rng(1)
    rest = MarkovChain.of_graph(graph_of((rng.random((60, 9)) < 0.25).astype(float)), length=4, start="degree")
    law, seeds = Expected(rest), 12
    pi = rest.start[rest._members] * rest.sizes
    exact = np.array([pi @ law.row_entropies(lag) for lag in range(2)])
    apart = []
    for seed in range(seeds):
        *_, later = _sampled_at_rest(rest, 2, seed)
        apart.append([(value - true) / error for (value, error), true in zip(later, exact, strict=True)])
    spread = np.square(apart).mean(axis=0)  # chi-square over its degrees of freedom
    assert (spread > chi2.ppf(1e-4, seeds) / seeds).all()
    assert (spread < chi2.ppf(1 - 1e-4, seeds) / seeds).all()


def test_difficulty_bins_hold_equal_shares_of_the_questions():
    """Ten questions of one concept, of ten difficulties: five bins of two."""
    from qcq.data import Dataset, Interactions

    student, question = (each.ravel().astype(np.int32) for each in np.indices((10, 10)))
    r = Interactions(student, question, (student >= question).astype(np.int8))
    names = [f"n{i}" for i in range(10)]
    dataset = Dataset(
        "d", names, ["c"], sparse.csr_array(np.ones((10, 1))), r, names, parts=np.zeros(10, dtype=np.int8)
    )
    graph = KnowledgeGraph.from_dataset(dataset)
    found = would_add(graph, MarkovChain.of_graph(graph, length=3), dataset.split().train)["difficulty"]
    assert found["distinct_sets"] == 5
    assert found["indistinguishable_share"] == 1.0
    assert found["within_class"] == pytest.approx(np.log(2))


def test_energy_by_rank_is_that_of_the_whole_matrix():
    graph = graph_of((np.random.default_rng(3).random((40, 6)) < 0.4).astype(float))
    report = inspect(graph, QCQ(length=6))["log_ratio"]
    chain = MarkovChain.of_graph(graph, length=6, start="degree")
    whole = chain.pair_law(5).log_ratio()[np.ix_(chain.classes, chain.classes)]
    energy = np.sort(np.linalg.eigvalsh(whole) ** 2)[::-1]
    share = np.cumsum(energy) / energy.sum()
    for rank, found in report["energy_by_rank"].items():
        assert found == pytest.approx(share[int(rank) - 1], abs=1e-9)
    assert list(report["energy_by_rank"])[:4] == ["1", "2", "4", "8"]
    need = report["recommended_dim"]
    assert share[need - 1] >= ENOUGH > share[need - 2]


def test_the_log_ratio_of_a_question_that_hardly_any_walk_meets():
    """p(c | c) = 1 and p(c) = 1e-309: their quotient is beyond the largest number, its logarithm isn't."""
    rare = 1e-309
    u, v = edge_steps(sparse.csr_array(np.array([[1.0, 0], [1, 0], [0, 1]])))
    chain = MarkovChain(u, v, np.array([0.5, 0.5, rare]), 4)
    classes = chain.classes[[0, 2]]
    assert chain.pair_law(2).log_ratio()[np.ix_(classes, classes)] == pytest.approx(np.diag([0.0, -np.log(rare)]))


@pytest.mark.parametrize("keep", [False, True])
def test_many_concepts_take_another_path_to_the_same_posterior(keep, monkeypatch):
    graph = graph_of([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
    walk = [0, 4, 1, 6, 2] if keep else [0, 1, 2]
    chain, other = (MarkovChain.of_graph(graph, length=3, keep_concepts=keep) for _ in range(2))
    laws = [chain.posterior(walk, p) for p in range(len(walk))]
    monkeypatch.setattr("qcq.floors.markov._DENSE_HUBS", 0)
    assert not other.dense
    np.testing.assert_allclose([other.posterior(walk, p) for p in range(len(walk))], laws, atol=1e-12)


def test_edges_from_responses_would_split_equal_questions():
    from qcq.data import Dataset, Interactions

    q_matrix = sparse.csr_array(np.ones((4, 1)))
    r = Interactions(
        np.array([0, 0, 0, 1, 1], dtype=np.int32),
        np.array([0, 1, 2, 0, 1], dtype=np.int32),
        np.array([1, 0, 1, 1, 0], dtype=np.int8),
    )
    dataset = Dataset("d", list("abcd"), ["c"], q_matrix, r, ["s", "t"], parts=np.zeros(2, dtype=np.int8))
    report = inspect(KnowledgeGraph.from_dataset(dataset), QCQ(length=3), dataset.split().train)
    assert report["distinct_sets"] == 1
    add = report["would_add"]
    assert add["students"]["distinct_sets"] == 3  # {0, 1} answered by both, 2 by one, 3 by none
    assert add["difficulty"]["distinct_sets"] == 3  # never wrong, always wrong, not answered
    assert add["order"]["distinct_sets"] == 3  # neighbours {b}, {a, c}, {b}, none: a and c are alike
    assert add["prerequisites"]["distinct_sets"] == 1


REAL = os.environ.get("QCQ_DATA")
needs_data = pytest.mark.skipif(not REAL, reason="needs the real data sets: set QCQ_DATA to their folder")


@needs_data
@pytest.mark.parametrize(
    ("folder", "next_question", "both", "sets"),
    [("pebg_assist09_graph", 5.632, 5.465, 145), ("pebg_ednet", 6.665, 5.934, 1494)],
)
def test_real_graphs_have_the_independently_computed_floors(folder, next_question, both, sets):
    found = inspect(graph_of_npz(folder), QCQ())
    assert found["distinct_sets"] == sets
    assert found["floors"]["stationary"]["next_question"] == pytest.approx(next_question, abs=1e-3)
    assert found["floors"]["stationary"]["masked_both_neighbours"] == pytest.approx(both, abs=1e-3)


def graph_of_npz(folder: str) -> KnowledgeGraph:
    m = sparse.csr_array(sparse.load_npz(Path(REAL) / folder / "pro_skill_sparse.npz"))
    return KnowledgeGraph([f"q{i}" for i in range(m.shape[0])], [f"c{i}" for i in range(m.shape[1])], m)


@needs_data
def test_the_masked_floor_of_assistments_as_walked():
    from qcq.data import read

    graph = KnowledgeGraph.from_dataset(read(Path(REAL) / "s2kt_assist09"))
    chain = QCQ().chain(graph)
    assert Masked().expected(Expected(chain)) == pytest.approx(5.57, abs=0.01)
    corpus = QCQ().sample(graph, 0, limit=500)
    batch = Masked().held_out_batch(corpus, 0)
    mean, se = clustered(Masked().floor(chain, batch), batch.walk)
    assert abs(mean - Masked().expected(Expected(chain))) < 4 * se


def test_a_corpus_that_is_read_again_has_the_same_floor(tmp_path):
    graph = graph_of([[1, 0], [1, 1], [0, 1]])
    corpus = QCQ(length=6).sample(graph, 0)
    again = Corpus.load(corpus.save(tmp_path / "walks"))
    chain = QCQ(length=6).chain(graph)
    floors = [Masked().floor(chain, Masked().held_out_batch(c, 5)) for c in (corpus, again)]
    np.testing.assert_array_equal(*floors)


def test_a_pair_law_that_would_take_hours_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(np.random.default_rng(0).random((40, 6)) < 0.4)
    law = WALKS["qcq"](length=6).chain(graph).pair_law(3)
    law._table = None
    assert law.conditional([0], [1]) >= 0
    monkeypatch.setattr(PairLaw, "_WORK", (10.0, 10.0))
    with pytest.raises(ChainError, match=r"no skip-gram floor: 6 nodes between questions .* window 1"):
        law.conditional([0], [1])
