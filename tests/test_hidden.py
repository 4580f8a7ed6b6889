"""Walks that remember one step: every floor against brute force over all walks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, CorpusError
from qcq.floors.hidden import ReturnChain
from qcq.floors.identifiability import inspect
from qcq.floors.losses import clustered
from qcq.floors.markov import MarkovChain
from qcq.floors.objectives import Cloze, Masked, MaskedBert, NextQuestion, SkipGram
from qcq.graph import KnowledgeGraph
from qcq.walks import WALKS

TINY = {
    "path": [[1, 0], [1, 1], [0, 1]],
    "twins": [[1, 0], [1, 0], [1, 1], [1, 1]],
    "ring": [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
    "ways out": [[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 1]],
    "an isolated question": [[1, 0], [0, 0], [1, 1], [0, 0]],
    "one of each": [[1]],
}
BIASES = [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (3.0, 0.25), (0.0, 0.0), (1.0, 1.0)]


def graph_of(weights) -> KnowledgeGraph:
    w = sparse.csr_array(np.array(weights, dtype=float))
    return KnowledgeGraph([f"q{i}" for i in range(w.shape[0])], [f"c{j}" for j in range(w.shape[1])], w)


def choose(options, back, bias):
    """The documented step: weight ``bias`` to the way back, 1 to every other; the only way where there is one."""
    if len(options) == 1:
        return {options[0]: 1.0}
    weight = {o: bias if o == back else 1.0 for o in options}
    total = sum(weight.values())
    return {o: w / total for o, w in weight.items()}


def all_walks(weights, alpha, beta, length, keep, start):
    w = np.array(weights)
    n, width = len(w), 2 * length - 1 if keep else length
    merged: dict[tuple[int, ...], float] = {}

    def go(walk, q, came, left, p):
        if p == 0:
            return
        if left == 0 or not w[q].any():
            whole = walk + (-1,) * (width - len(walk))
            merged[whole] = merged.get(whole, 0.0) + p
            return
        for c, pc in choose(list(np.flatnonzero(w[q])), came, beta).items():
            for q2, pq in choose(list(np.flatnonzero(w[:, c])), q, alpha).items():
                go(walk + ((n + int(c), int(q2)) if keep else (int(q2),)), q2, c, left - 1, p * pc * pq)

    for q in range(n):
        go((q,), q, None, length - 1, start[q] / sum(start))
    return np.array(list(merged), dtype=np.int32), np.array(list(merged.values()))


CASES = [(name, bias, length, keep) for name in TINY for bias in BIASES for length, keep in [(4, False), (3, True)]]


def setting(name, bias, length, keep, by_degree=False):
    graph = graph_of(TINY[name])
    chain = ReturnChain(graph, *bias, length, keep, by_degree)
    start = np.array(TINY[name]).sum(axis=1) if by_degree else np.ones(len(TINY[name]))
    tokens, prob = all_walks(TINY[name], *bias, length, keep, start)
    assert prob.sum() == pytest.approx(1)
    return chain, Corpus([tokens], graph.n_questions, graph.n_concepts, graph.digest), tokens, prob


@pytest.mark.parametrize("case", CASES, ids=str)
def test_masked_cloze_and_next_question_floors(case):
    chain, corpus, tokens, prob = setting(*case)
    place = np.arange(tokens.shape[1])
    pads = tokens < 0
    for objective in (Masked(0.4), Masked(1.0), Cloze(), NextQuestion(), NextQuestion("backward")):
        try:
            batch = objective.held_out_batch(corpus, 1)
        except CorpusError:
            continue
        floor = objective.floor(chain, batch)
        for item, (w, p) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
            known = {
                "masked": ~batch.asked[w],
                "cloze": place != p,
                "next_question": place < p,
                "previous_question": place > p,
            }[objective.name]
            same = (tokens[:, known] == tokens[w, known]).all(axis=1)
            same &= (tokens[:, p] >= 0) if objective.name == "next_question" else (pads == pads[w]).all(axis=1)
            right = same & (tokens[:, p] == tokens[w, p])
            assert floor[item] == pytest.approx(-np.log(prob[right].sum() / prob[same].sum()), abs=1e-9), objective


@pytest.mark.parametrize("case", CASES, ids=str)
def test_posteriors_and_marginals(case):
    chain, _, tokens, prob = setting(*case, by_degree=True)
    rng = np.random.default_rng(0)
    for p in range(tokens.shape[1]):
        share = np.bincount(tokens[:, p] + 1, weights=prob, minlength=chain.n_tokens + 1)[1:]
        np.testing.assert_allclose(chain.marginal(p), share, atol=1e-12)
    for w in rng.integers(len(tokens), size=4):
        hide = (rng.random(tokens.shape[1]) < 0.4) & (tokens[w] >= 0)
        p = int(rng.integers((tokens[w] >= 0).sum()))
        shown = ~hide & (np.arange(len(hide)) != p)
        same = (tokens[:, shown] == tokens[w, shown]).all(axis=1) & ((tokens < 0) == (tokens[w] < 0)).all(axis=1)
        law = np.bincount(tokens[same, p], weights=prob[same], minlength=chain.n_tokens) / prob[same].sum()
        np.testing.assert_allclose(chain.posterior(np.where(shown, tokens[w], HIDDEN), p), law, atol=1e-9)


def test_what_earlier_context_adds_to_the_last_question_is_its_expectation_over_all_walks():
    """E ln p(x2 | x0, x1) - ln p(x2 | x1), for walks of three questions, which are the shortest that can remember."""
    weights = TINY["ways out"]
    walk = WALKS["concept-hop"](length=3, per_question=400)
    tokens, prob = all_walks(weights, 1.0, 0.0, 3, False, np.ones(len(weights)))
    full = (tokens >= 0).all(axis=1)
    tokens, prob = tokens[full], prob[full] / prob[full].sum()

    def given(row, places):  # of the last question
        alike = (tokens[:, places] == row[places]).all(axis=1)
        return prob[alike & (tokens[:, -1] == row[-1])].sum() / prob[alike].sum()

    exact = sum(p * np.log(given(row, [0, 1]) / given(row, [1])) for row, p in zip(tokens, prob, strict=True))
    report = inspect(graph_of(weights), walk)
    error = report["standard_errors"]["mutual_information_given_neighbours"]
    assert exact > 4 * error
    assert abs(report["mutual_information_given_neighbours"] - exact) < 4 * error


@pytest.mark.parametrize("name", ["non-backtracking", "node2vec"])
def test_a_walk_of_one_question_is_drawn_from_the_starts(name):
    graph = graph_of([[1, 1], [1, 0], [0, 1], [0, 0]])
    chain = WALKS[name](length=1, start="degree").chain(graph)
    np.testing.assert_allclose(chain.posterior([HIDDEN], 0), [0.5, 0.25, 0.25, 0], atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if not c[3]], ids=str)
def test_skipgram_floor(case):
    chain, corpus, tokens, prob = setting(*case)
    n, window = chain.n_questions, 2
    joint = np.zeros((n, n))
    for (walk, p), centre, reach in itertools.product(
        zip(tokens.tolist(), prob, strict=True), range(tokens.shape[1]), (1, 2)
    ):
        for other in range(max(centre - reach, 0), min(centre + reach + 1, tokens.shape[1])):
            if other != centre and walk[centre] >= 0 and walk[other] >= 0:
                joint[walk[other], walk[centre]] += p / window
    law, seen = chain.pair_law(window), np.flatnonzero(joint.sum(axis=1))
    x, y = np.repeat(seen, n), np.tile(np.arange(n), len(seen))
    np.testing.assert_allclose(law.conditional(x, y), (joint / joint.sum(axis=1, keepdims=True).clip(1e-300))[x, y])
    np.testing.assert_allclose(law.probability(seen), joint.sum(axis=1)[seen] / joint.sum())
    batch = SkipGram(window, 2).held_out_batch(corpus)
    assert np.isfinite(batch.objective.floor(chain, batch)).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=24, max_size=24).filter(any), st.booleans(), st.integers(0, 99))
def test_without_biases_it_is_the_plain_chain(cells, keep, seed):
    graph = graph_of(np.array(cells, dtype=float).reshape(8, 3))
    from qcq.walks import QCQ

    corpus = QCQ(length=6, keep_concepts=keep, per_question=3).sample(graph, seed)
    plain = MarkovChain.of_graph(graph, length=6, keep_concepts=keep)
    chain = ReturnChain(graph, 1.0, 1.0, 6, keep)
    for objective in (Masked(0.5), Cloze()):
        batch = objective.held_out_batch(corpus, seed)
        np.testing.assert_allclose(objective.floor(chain, batch), objective.floor(plain, batch), atol=1e-9)


@pytest.mark.parametrize("name", ["non-backtracking", "concept-hop", "node2vec"])
@pytest.mark.parametrize("keep", [False, True])
def test_the_sampled_walk_follows_this_law(name, keep):
    """Frequencies of all short walks from the engine, against their exact probabilities."""
    graph = graph_of(TINY["ways out"])
    walk = WALKS[name](length=4, per_question=20_000, keep_concepts=keep)
    chain, corpus = walk.chain(graph), walk.sample(graph, 3)
    batch = Cloze().held_out_batch(corpus)
    law, se = {}, {}
    for objective in (Masked(0.3), NextQuestion()):
        batch = objective.held_out_batch(corpus, 0)
        floor = objective.floor(chain, batch)
        law[objective.name], se[objective.name] = clustered(floor, batch.walk)
        # A wrong idea of the biases answers worse.
        wrong = MarkovChain.of_graph(graph, length=4, keep_concepts=keep)
        excess, error = clustered(objective.floor(wrong, batch) - floor, batch.walk)
        assert excess > 3 * error
    tokens, prob = all_walks(TINY["ways out"], *walk.biases, 4, keep, np.ones(4))
    found, counts = np.unique(corpus.tokens, axis=0, return_counts=True)
    expected = {tuple(t): p * corpus.n_walks for t, p in zip(tokens.tolist(), prob, strict=True)}
    chi = sum((n - expected[tuple(t)]) ** 2 / expected[tuple(t)] for t, n in zip(found.tolist(), counts, strict=True))
    assert chi < len(expected) + 6 * np.sqrt(2 * len(expected))


def test_what_has_no_floor_says_so():
    chain, corpus, *_ = setting("path", (0.0, 1.0), 3, True)
    with pytest.raises(ChainError, match="masked_bert on return-biased walks"):
        MaskedBert(0.9).floor(chain, MaskedBert(0.9).held_out_batch(corpus))
    with pytest.raises(ChainError, match="keep their concepts"):
        SkipGram().floor(chain, SkipGram().held_out_batch(corpus))


def test_too_many_distinct_edges_are_refused(monkeypatch):
    monkeypatch.setattr("qcq.floors.hidden._MOST_EDGES", 2)
    with pytest.raises(ChainError, match="distinct edges are too many"):
        ReturnChain(graph_of(TINY["path"]), 1.0, 0.0, 3)
