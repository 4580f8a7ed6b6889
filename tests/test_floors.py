"""Every floor against brute force over all walks of tiny graphs: the definition, without any of the algebra."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import entropy

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, CorpusError
from qcq.floors.expected import Expected
from qcq.floors.losses import AT_FLOOR, TRAP, verdict
from qcq.floors.markov import MarkovChain, edge_steps
from qcq.floors.objectives import (
    Cloze,
    HeldOutBatch,
    Masked,
    MaskedBert,
    NextQuestion,
    Objective,
    Replaced,
    SkipGram,
    first_walks,
)
from qcq.floors.pairs import PairLaw
from qcq.graph import KnowledgeGraph
from qcq.walks import WALKS

TINY = {
    "path": [[1, 0], [1, 1], [0, 1]],
    "twins": [[1, 0], [1, 0], [1, 1]],
    "two components": [[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]],
    "an isolated question": [[1, 0], [0, 0], [1, 1], [0, 0]],
    "weighted": [[0.5, 2.0], [3.0, 0.0], [1.0, 1.0]],
    "one of each": [[1]],
}


def graph_of(weights) -> KnowledgeGraph:
    w = sparse.csr_array(np.array(weights, dtype=float))
    return KnowledgeGraph([f"q{i}" for i in range(w.shape[0])], [f"c{j}" for j in range(w.shape[1])], w)


def all_walks(weights, length: int, keep: bool, start) -> list[tuple[tuple[int, ...], float]]:
    """Every walk with its probability, by walking: -1 pads."""
    w = np.array(weights, dtype=float)
    n = len(w)
    done: list[tuple[tuple[int, ...], float]] = []
    width = 2 * length - 1 if keep else length

    def go(walk: tuple[int, ...], q: int, left: int, p: float) -> None:
        if left == 0 or w[q].sum() == 0:
            done.append((walk + (-1,) * (width - len(walk)), p))
            return
        for c in np.flatnonzero(w[q]):
            for q2 in np.flatnonzero(w[:, c]):
                step = w[q, c] / w[q].sum() * w[q2, c] / w[:, c].sum()
                more = (n + int(c), int(q2)) if keep else (int(q2),)
                go(walk + more, int(q2), left - 1, p * step)

    for q in np.flatnonzero(start):
        go((int(q),), int(q), length - 1, start[q] / sum(start))
    merged: dict[tuple[int, ...], float] = {}
    for walk, p in done:  # without the concepts, several paths are one walk
        merged[walk] = merged.get(walk, 0.0) + p
    return list(merged.items())


def setting(name: str, length: int, keep: bool, by_degree: bool = False):
    weights = np.array(TINY[name], dtype=float)
    graph = graph_of(weights)
    chain = MarkovChain.of_graph(
        graph, length=length, keep_concepts=keep, start="degree" if by_degree else "question", weights=graph.weights
    )
    walks = all_walks(weights, length, keep, weights.sum(axis=1) if by_degree else np.ones(len(weights)))
    tokens = np.array([walk for walk, _ in walks], dtype=np.int32)
    prob = np.array([p for _, p in walks])
    assert prob.sum() == pytest.approx(1)
    corpus = Corpus([tokens], graph.n_questions, graph.n_concepts, graph.digest)
    return graph, chain, corpus, tokens, prob


CASES = [
    (name, length, keep, by_degree)
    for name in TINY
    for length, keep, by_degree in [(1, False, False), (4, False, False), (4, False, True), (3, True, False)]
]


def paper(objective: Objective, corpus: Corpus, seed: int) -> HeldOutBatch | None:
    try:
        return objective.held_out_batch(corpus, seed)
    except CorpusError:  # nothing to ask in so few tokens
        return None


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rate", [0.15, 0.6, 1.0])
def test_masked_floor_is_the_posterior_summed_over_all_walks(case, rate):
    _, chain, corpus, tokens, prob = setting(*case)
    batch = paper(Masked(rate), corpus, 1)
    if batch is None:
        return
    floor = batch.objective.floor(chain, batch)
    pads = tokens < 0
    for item, (w, p) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
        shown = ~batch.asked[w]
        same = (tokens[:, shown] == tokens[w, shown]).all(axis=1) & (pads == pads[w]).all(axis=1)
        right = same & (tokens[:, p] == tokens[w, p])
        assert floor[item] == pytest.approx(-np.log(prob[right].sum() / prob[same].sum()), abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cloze_floor_is_the_posterior_given_all_other_tokens(case):
    _, chain, corpus, tokens, prob = setting(*case)
    batch = Cloze().held_out_batch(corpus)
    floor = Cloze().floor(chain, batch)
    for item, (w, p) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
        others = np.arange(tokens.shape[1]) != p
        same = (tokens[:, others] == tokens[w, others]).all(axis=1) & (tokens[:, p] >= 0)
        right = same & (tokens[:, p] == tokens[w, p])
        assert floor[item] == pytest.approx(-np.log(prob[right].sum() / prob[same].sum()), abs=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if c[1] > 1], ids=str)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_next_question_floor_is_the_conditional_given_all_the_past_or_all_the_future(case, direction):
    _, chain, corpus, tokens, prob = setting(*case)
    objective = NextQuestion(direction)
    batch = objective.held_out_batch(corpus)
    floor = objective.floor(chain, batch)
    for item, (w, p) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
        known = np.arange(tokens.shape[1]) < p if direction == "forward" else np.arange(tokens.shape[1]) > p
        same = (tokens[:, known] == tokens[w, known]).all(axis=1) & (tokens[:, p] >= 0)
        right = same & (tokens[:, p] == tokens[w, p])
        assert floor[item] == pytest.approx(-np.log(prob[right].sum() / prob[same].sum()), abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", [(0.15, 0.8, 0.1), (0.5, 0.4, 0.3), (0.9, 0.0, 0.9), (0.5, 0.0, 0.0)], ids=str)
def test_bert_floor_is_the_posterior_under_the_corruption(case, rule):
    graph, chain, corpus, tokens, prob = setting(*case)
    objective = MaskedBert(*rule)
    rate, mask, random = rule
    batch = paper(objective, corpus, 2)
    if batch is None:
        return
    floor = objective.floor(chain, batch)

    def likelihood(seen: int, truth: np.ndarray, scored: bool) -> np.ndarray:
        """p(what is shown | the true tokens), written down from the rule."""
        stranger = random / graph.n_questions if seen < graph.n_questions else 0.0
        changed = mask if seen == HIDDEN else stranger + (1 - mask - random) * (truth == seen)
        return rate * changed + (0.0 if scored else (1 - rate) * (truth == seen))

    for item, (w, p) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
        weight = prob * ((tokens < 0) == (tokens[w] < 0)).all(axis=1)
        for place in np.flatnonzero(tokens[w] >= 0):
            weight = weight * likelihood(int(batch.seen[w, place]), tokens[:, place], scored=place == p)
        right = tokens[:, p] == tokens[w, p]
        assert floor[item] == pytest.approx(-np.log(weight[right].sum() / weight.sum()), abs=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if c[1] > 1], ids=str)
@pytest.mark.parametrize("window", [1, 2, 5])
def test_skipgram_floor_is_the_best_score_of_each_pair(case, window):
    graph, chain, corpus, tokens, prob = setting(*case)
    vocabulary = graph.n_questions + graph.n_concepts
    k = 3
    counts = np.arange(1.0, vocabulary + 1)
    objective = SkipGram(window, k, 0.75, counts)
    batch = objective.held_out_batch(corpus, 3)
    floor = objective.floor(chain, batch)

    joint = np.zeros((vocabulary, vocabulary))  # input, output
    for (walk, p), centre in itertools.product(zip(tokens.tolist(), prob, strict=True), range(tokens.shape[1])):
        for reach in range(1, window + 1):
            for other in range(max(centre - reach, 0), min(centre + reach + 1, tokens.shape[1])):
                if other != centre and walk[centre] >= 0 and walk[other] >= 0:
                    joint[walk[other], walk[centre]] += p / window
    with np.errstate(invalid="ignore"):
        conditional = joint / joint.sum(axis=1, keepdims=True)
    noise = counts**0.75 / (counts**0.75).sum()
    # Expected positives and negatives of each pair, negatives equal to the output skipped: what the best score weighs.
    positive = conditional
    negative = k * noise * (1 - conditional)
    for item, row in enumerate(batch.pairs):
        x = row[0]
        chance = positive[x] / (positive[x] + negative[x])  # p(real | pair): the Bayes answer
        with np.errstate(divide="ignore"):
            expected = -np.log(chance[row[1]]) - np.log1p(-chance[row[2:][row[2:] >= 0]]).sum()
        assert floor[item] == pytest.approx(expected, abs=1e-9)
    law = chain.pair_law(window)
    seen = np.flatnonzero(joint.sum(axis=1) > 0)
    seen = seen[seen < chain.n_tokens]
    np.testing.assert_allclose(law.probability(seen), joint.sum(axis=1)[seen] / joint.sum(), atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c[1] > 1], ids=str)
def test_large_graphs_take_another_path_to_the_same_floors(case, monkeypatch):
    _, chain, corpus, *_ = setting(*case)
    papers = [
        o.held_out_batch(corpus, 1) for o in (Masked(0.5), MaskedBert(0.5), Cloze(), NextQuestion(), SkipGram(3, 3))
    ]
    dense = [p.objective.floor(chain, p) for p in papers]
    monkeypatch.setattr("qcq.floors.markov._DENSE_HUBS", 0)
    for module in ("blocks", "markov", "pairs"):
        monkeypatch.setattr(f"qcq.floors.{module}.BLOCK", 50)
    monkeypatch.setattr(PairLaw, "_TABLE", 0)
    sparse_chain = MarkovChain(chain.out, chain.into, chain.start, chain.length, chain.keep_concepts)
    assert not sparse_chain.dense
    for p, expected in zip(papers, dense, strict=True):
        np.testing.assert_allclose(p.objective.floor(sparse_chain, p), expected, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rate", [0.15, 0.7])
def test_expected_masked_and_cloze_floors_are_means_over_all_walks_and_masks(case, rate):
    _, chain, _, tokens, prob = setting(*case)
    total = weight = 0.0
    for hide in itertools.product([False, True], repeat=tokens.shape[1]):
        chance = np.where(hide, rate, 1 - rate).prod()
        asked = np.array(hide) & (tokens >= 0)
        seen = np.where(asked, HIDDEN, tokens)
        where = np.nonzero(asked)[0]
        total += chance * -(prob[where] @ chain.log_posterior(tokens, asked, seen, seen))
        weight += chance * prob[where].sum()
    assert Masked(rate).expected(Expected(chain)) == pytest.approx(total / weight, abs=1e-9)
    there = tokens >= 0
    where = np.nonzero(there)[0]
    cloze = -(prob[where] @ chain.log_posterior(tokens, there, tokens, tokens)) / prob[where].sum()
    assert Cloze().expected(Expected(chain)) == pytest.approx(cloze, abs=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if c[1] > 1], ids=str)
def test_expected_next_and_skipgram_floors_are_means_over_all_walks(case):
    _, chain, corpus, _, prob = setting(*case)
    for objective in (NextQuestion(), NextQuestion("backward")):
        batch = objective.held_out_batch(corpus)
        mean = prob[batch.walk] @ objective.floor(chain, batch) / prob[batch.walk].sum()
        assert objective.expected(Expected(chain)) == pytest.approx(mean, abs=1e-9)
    noise = chain.unigram**0.75 / (chain.unigram**0.75).sum()
    law = chain.pair_law(3)
    total = 0.0
    for x, y in itertools.product(np.flatnonzero(law.probability(np.arange(chain.n_tokens)) > 0), repeat=2):
        p = law.conditional(np.array([x]), np.array([y]))[0]
        score = SkipGram(3, 4).score(np.array([p]), noise[[y]])[0]
        loss = p * np.logaddexp(0, -score) if p > 0 else 0.0
        loss += 4 * noise[y] * (1 - p) * np.logaddexp(0, score) if p < 1 else 0.0
        total += law.probability(np.array([x]))[0] * loss
    assert SkipGram(3, 4).expected(Expected(chain)) == pytest.approx(total, abs=1e-9)


def test_what_skipgram_of_some_rank_was_found_to_reach_lies_above_the_floor_and_falls_to_it_at_full_rank():
    """Every vector pair that anybody tries, the textbook's or a random one, does no better than what was found."""
    w = np.random.default_rng(1).random((12, 4)).round(2) + 0.01
    chain = MarkovChain(*edge_steps(sparse.csr_array(w)), np.ones(12), length=7)
    law = Expected(chain)
    floor, full = law.skipgram(3, 4), law.skipgram_of_rank(12, 3, 4)
    found = [law.skipgram_of_rank(d, 3, 4) for d in (1, 2, 12)]
    assert full == pytest.approx(floor, abs=1e-5)
    assert found[0] > found[1] > found[2] >= floor - 1e-9
    noise = chain.unigram**0.75 / (chain.unigram**0.75).sum()
    every = np.arange(12)
    p = chain.pair_law(3).conditional(np.repeat(every, 12), np.tile(every, 12)).reshape(12, 12)
    r = 4 * noise * (1 - p)
    best = np.log(p / r)
    u, s, vt = np.linalg.svd(best)
    for d, reached in ((1, found[0]), (2, found[1])):
        truncated = (u[:, :d] * s[:d]) @ vt[:d]
        loss = chain.pair_law(3).probability(every) @ (
            p * np.logaddexp(0, -truncated) + r * np.logaddexp(0, truncated)
        ).sum(axis=1)
        assert reached <= loss + 1e-9


def test_the_formula_of_two_visible_neighbours():
    weights = np.array(TINY["weighted"])
    u, v = edge_steps(sparse.csr_array(weights))
    p = (u @ v).toarray()
    chain = MarkovChain(u, v, np.ones(3), length=6)
    tokens = np.array([[0, 1, 2, 0, 1, 2]], dtype=np.int32)
    seen = tokens.copy()
    seen[0, [1, 2, 3]] = HIDDEN
    asked = np.zeros(tokens.shape, dtype=bool)
    asked[0, 2] = True
    got = chain.log_posterior(tokens, asked, seen, seen)[0]
    p2, p4 = np.linalg.matrix_power(p, 2), np.linalg.matrix_power(p, 4)
    assert got == pytest.approx(np.log(p2[0, 2] * p2[2, 1] / p4[0, 1]), abs=1e-12)


def test_walks_of_another_graph_are_refused():
    _, chain, corpus, *_ = setting("path", 4, False)
    other = Corpus(corpus.shards, 3, 2, graph_of(TINY["twins"]).digest)
    with pytest.raises(ChainError, match="another graph"):
        Masked().floor(chain, Masked(0.5).held_out_batch(other))
    with pytest.raises(ChainError, match="4 tokens wide, the chain's are 5"):
        Masked().floor(setting("path", 5, False)[1], Masked(0.5).held_out_batch(corpus))


def test_a_token_of_another_vocabulary_is_refused_wherever_it_stands():
    _, chain, *_ = setting("path", 4, False)
    for at in range(4):
        tokens = np.zeros((2, 4), dtype=np.int32)
        tokens[1, at] = chain.n_tokens
        with pytest.raises(ChainError, match=f"token {chain.n_tokens} isn't one of the chain's {chain.n_tokens}"):
            chain.check(tokens)


@pytest.mark.parametrize("objective", [SkipGram(window=2), Masked(0.5), NextQuestion()], ids=lambda one: one.name)
def test_the_first_walks_of_a_batch_are_a_batch_of_the_first_walks(objective):
    _, _, corpus, *_ = setting("path", 4, False)
    n = corpus.n_walks
    batch = objective.held_out_batch(corpus, seed=1)
    right = batch.tokens[batch.asked] if batch.pairs is None else batch.pairs[:, 1]  # behind it are the negatives
    assert batch.targets.tolist() == right.tolist()
    for most in (1, n // 2, n):
        some = first_walks(batch, n, most)
        mine = batch.walk < most
        assert 0 < mine.sum() == len(some)
        assert some.walk.tolist() == batch.walk[mine].tolist()
        assert some.targets.tolist() == batch.targets[mine].tolist()


def test_the_uniform_answer_counts_concepts_where_walks_keep_them():
    """One concept: its token is the first after the questions."""
    graph = graph_of([[1], [1], [1]])
    for keep, tokens in ((True, 4), (False, 3)):
        corpus = WALKS["qcq"](length=4, keep_concepts=keep).sample(graph, 0)
        assert Masked().blank(Masked().held_out_batch(corpus)) == pytest.approx(np.log(tokens))


def test_a_step_that_the_walk_never_takes_is_refused():
    graph, chain, *_ = setting("two components", 3, False)
    corpus = Corpus([np.array([[0, 0, 2]], dtype=np.int32)], 4, 3, graph.digest)
    with pytest.raises(ChainError, match="step of probability 0"):
        Cloze().floor(chain, Cloze().held_out_batch(corpus))


def test_an_objective_without_a_floor_says_so():
    class ReplacedToken(Objective):
        name = "replaced_token"

        def held_out_batch(self, corpus, seed=0):
            raise NotImplementedError

    with pytest.raises(ChainError, match="no floor is known for the objective 'replaced_token'"):
        ReplacedToken().floor(setting("path", 3, False)[1], None)


@given(floor=st.floats(0.5, 8.0), way=st.floats(0.5, 5.0))
def test_verdicts_change_at_shares_of_the_way(floor: float, way: float) -> None:
    """The way is from the unigram loss to the floor, wherever the floor lies."""
    unigram = floor + way

    def said(share: float) -> str:
        return verdict(floor + share * way, floor, unigram, unigram + 1.0)

    assert said(0.99 * AT_FLOOR) == "at floor"
    assert said(1.01 * AT_FLOOR) == said(0.99 * (1 - TRAP)) == "under-trained"
    assert said(1.01 * (1 - TRAP)) == "unigram trap"


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
def test_the_uninformed_loss_of_replaced_tokens_is_the_entropy_of_their_rate(rate: float) -> None:
    batch = Replaced(rate).held_out_batch(Corpus([np.array([[0, 1, 0, 1]], dtype=np.int32)], 2, 1, ""))
    assert Replaced(rate).unigram(batch, np.full(3, 1 / 3)) == pytest.approx(np.full(4, entropy([rate, 1 - rate])))
