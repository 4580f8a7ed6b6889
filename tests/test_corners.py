"""Walks, chains, floors and statistics against other implementations, on graphs from a generator that likes corners.

The chain here is made of fractions and of every path there is, so nothing in it is rounded before the end.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, CorpusError, EvaluationError, GraphError, TrainingError
from qcq.evaluation.ranking import expected_hit, expected_reciprocal_rank
from qcq.evaluation.statistics import Contest, auc_units, paired_bootstrap, simultaneous
from qcq.floors.expected import Expected
from qcq.floors.identifiability import inspect
from qcq.floors.markov import MarkovChain
from qcq.floors.objectives import Cloze, Masked, MaskedBert, NextQuestion
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.walks import WALKS, Weighted
from qcq.walks.sampler import Sampler

FIRST_ORDER = ("qcq", "weighted", "non-backtracking", "concept-hop", "node2vec")
Path = tuple[int, ...]
Law = dict[Path, Fraction]


def graph_of(weights) -> KnowledgeGraph:
    w = sparse.csr_array(np.array(weights, dtype=float))
    return KnowledgeGraph([f"q{i}" for i in range(w.shape[0])], [f"c{j}" for j in range(w.shape[1])], w)


@st.composite
def corners(draw: st.DrawFn, questions: int = 4, concepts: int = 3) -> KnowledgeGraph:
    """A small graph with an edge at least, often with something extreme in it."""
    n_q, n_c = draw(st.integers(1, questions)), draw(st.integers(1, concepts))
    weight = st.sampled_from([1.0, 1.0, 0.75, 3.0, 1e-9, 1e-300, 1e300])
    kind = draw(st.sampled_from(["any", "one concept", "a concept with everything", "parallel", "isolated"]))
    n_c = {"one concept": 1, "parallel": max(1, (n_q + 1) // 2)}.get(kind, n_c)
    w = np.array(draw(st.lists(st.just(0.0) | weight, min_size=n_q * n_c, max_size=n_q * n_c))).reshape(n_q, n_c)
    if kind == "a concept with everything":
        w[:, -1] = draw(st.lists(weight, min_size=n_q, max_size=n_q))
    elif kind == "parallel":  # two questions a component
        w = np.where(np.arange(n_q)[:, None] // 2 == np.arange(n_c), draw(weight), 0.0)
    elif kind == "isolated":
        w[0] = 0.0
    assume(w.any())
    return graph_of(w)


def law(graph: KnowledgeGraph, length: int, keep: bool = False, start: str = "question", weighted: bool = True) -> Law:
    """Every walk with its probability, in fractions; -1 pads."""
    w = [[Fraction(x) if weighted else Fraction(bool(x)) for x in row] for row in graph.weights.toarray().tolist()]
    n, width = len(w), 2 * length - 1 if keep else length
    of_concept = [sum(column) for column in zip(*w, strict=True)]
    first = [Fraction(1) if start == "question" else sum(row, Fraction(0)) for row in w]
    paths: Law = {(q,): p / sum(first) for q, p in enumerate(first) if p}
    for _ in range(length - 1):
        longer: Law = defaultdict(Fraction)
        for path, p in paths.items():
            q = path[-1]
            if q < 0 or not (total := sum(w[q])):
                longer[path + (-1,) * (2 if keep else 1)] += p
                continue
            for c, y in itertools.product(range(len(w[0])), range(n)):
                if w[q][c] and w[y][c]:
                    longer[(*path, n + c, y) if keep else (*path, y)] += p * w[q][c] / total * w[y][c] / of_concept[c]
        paths = longer
    assert sum(paths.values()) == 1
    assert {len(path) for path in paths} == {width}
    return dict(paths)


def ln(p: Fraction) -> float:
    return math.log(p.numerator) - math.log(p.denominator)


def entropy(parts: dict) -> float:
    """-Σ p ln p of fractions that sum to 1."""
    return -sum(float(p) * ln(p) for p in parts.values() if p)


def chain_of(graph: KnowledgeGraph, length: int, keep: bool = False, start: str = "question") -> MarkovChain:
    chain = Weighted(length=length, keep_concepts=keep, start=start).chain(graph)
    assert isinstance(chain, MarkovChain)
    return chain


shapes = st.sampled_from([(1, False), (3, False), (4, False), (2, True), (3, True)])
starts = st.sampled_from(["question", "degree"])


@settings(max_examples=60, deadline=None)
@given(graph=corners(), shape=shapes, start=starts)
def test_marginals_powers_and_pairs_are_those_of_every_path(graph: KnowledgeGraph, shape, start: str) -> None:
    length, keep = shape
    chain, exact = chain_of(graph, length, keep, start), law(graph, length, keep, start)
    for place in range(chain.width):
        wanted = np.zeros(chain.n_tokens)
        for path, p in exact.items():
            if path[place] >= 0:
                wanted[path[place]] += float(p)
        np.testing.assert_allclose(chain.marginal(place), wanted, rtol=1e-12, atol=1e-290)
    n, step = graph.n_questions, np.zeros((graph.n_questions,) * 2)
    for (x, y), p in law(graph, 2).items():
        step[x, y] += n * float(p) if y >= 0 else 0.0
    for a in range(1, 4):
        ours = chain.power(a, np.arange(n)[:, None], np.arange(n))
        np.testing.assert_allclose(ours, np.linalg.matrix_power(step, a), rtol=1e-12, atol=1e-290)
    window, pairs = 2, np.zeros((chain.n_tokens,) * 2)
    for path, p in exact.items():
        for i, j in itertools.product(range(chain.width), repeat=2):
            if 0 < abs(i - j) <= window and path[i] >= 0 and path[j] >= 0:
                pairs[path[i], path[j]] += float(p) * (window - abs(i - j) + 1) / window
    left, right = (each.ravel() for each in np.indices(pairs.shape))
    if pairs.any():
        ours = chain.pair_law(window).conditional(left, right).reshape(pairs.shape)
        total = pairs.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(ours, pairs / np.where(total > 0, total, 1), rtol=1e-9, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(graph=corners(), shape=shapes, start=starts, seed=st.integers(0, 99), rule=st.sampled_from([0.8, 0.0]))
def test_floors_of_single_tokens_are_the_posteriors_over_every_path(graph, shape, start, seed, rule) -> None:
    """Of walks that can be met: a probability of 1e-30 never is."""
    length, keep = shape
    chain, exact = chain_of(graph, length, keep, start), law(graph, length, keep, start)
    met = [path for path, p in exact.items() if p > Fraction(1, 10**30)]
    tokens = np.array(met, dtype=np.int32)
    corpus = Corpus([tokens], graph.n_questions, graph.n_concepts, graph.digest)
    bert = MaskedBert(0.5, rule, 0.1)

    def likelihood(seen: int, truth: int, scored: bool) -> Fraction:
        rate, mask, random = Fraction(1, 2), Fraction(rule), Fraction(0.1)
        if seen == HIDDEN:
            return rate * mask
        stranger = random / graph.n_questions if seen < graph.n_questions else Fraction(0)
        return rate * (stranger + (1 - mask - random) * (truth == seen)) + (0 if scored else (1 - rate)) * (
            truth == seen
        )

    for objective in (Masked(0.5), Cloze(), NextQuestion(), NextQuestion("backward"), bert):
        try:
            batch = objective.held_out_batch(corpus, seed)
        except CorpusError:  # nothing to ask in so few tokens
            continue
        floor = batch.objective.floor(chain, batch)
        for item, (w, place) in enumerate(zip(*np.nonzero(batch.asked), strict=True)):
            true = tuple(batch.tokens[w].tolist())
            weights: dict[int, Fraction] = defaultdict(Fraction)
            for path, p in exact.items():
                if objective is bert or isinstance(objective, Masked):
                    if [a < 0 for a in path] != [a < 0 for a in true]:
                        continue
                    known = [i for i in range(len(true)) if true[i] >= 0]
                elif isinstance(objective, NextQuestion):
                    known = list(range(place) if objective.direction == "forward" else range(place + 1, len(true)))
                else:
                    known = [i for i in range(len(true)) if i != place]
                if path[place] < 0:
                    continue
                if objective is bert:
                    for i in known:
                        p *= likelihood(int(batch.seen[w, i]), path[i], i == place)
                elif isinstance(objective, Masked):
                    p *= all(path[i] == true[i] for i in known if not batch.asked[w, i])
                else:
                    p *= all(path[i] == true[i] for i in known)
                weights[path[place]] += p
            wanted = ln(weights[true[place]] / sum(weights.values()))
            assert floor[item] == pytest.approx(-wanted, abs=1e-9, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(graph=corners(), shape=shapes.filter(lambda shape: shape[0] > 1), start=starts)
def test_expected_floors_are_entropies_over_every_path(graph: KnowledgeGraph, shape, start: str) -> None:
    length, keep = shape
    exact, expected = law(graph, length, keep, start), Expected(chain_of(graph, length, keep, start))
    alive = {path: p for path, p in exact.items() if path[1] >= 0}
    goes_on = sum(alive.values())
    if float(goes_on) == 0.0:
        return

    def given_that(shown: tuple[int, ...], place: int) -> float:
        """H(X_place | X_shown) of walks that go on."""
        joint: dict[Path, Fraction] = defaultdict(Fraction)
        for path, p in alive.items():
            joint[tuple(path[i] for i in (*shown, place))] += p / goes_on
        known: dict[Path, Fraction] = defaultdict(Fraction)
        for key, p in joint.items():
            known[key[:-1]] += p
        return entropy(joint) - entropy(known)

    width = expected.chain.width
    forward = np.mean([given_that(tuple(range(p)), p) for p in range(1, width)])
    backward = np.mean([given_that(tuple(range(p + 1, width)), p) for p in range(width - 1)])
    assert expected.next_question() == pytest.approx(forward, abs=1e-9)
    assert expected.previous_question() == pytest.approx(backward, abs=1e-9)
    dead: dict[Path, Fraction] = {path: p / (1 - goes_on) for path, p in exact.items() if path[1] < 0}
    lone = 1.0 - float(goes_on)
    for rate in (0.0, 0.3):
        total = 0.0
        for shown in itertools.product([True, False], repeat=width):
            chance = math.prod(1 - rate if yes else rate for yes in shown)
            for place in range(width):
                if rate and not shown[place]:
                    continue
                others = tuple(i for i in range(width) if i != place and (shown[i] or not rate))
                total += chance / ((1 - rate) or 1) * given_that(others, place) if rate or all(shown) else 0.0
        tokens = float(goes_on) * width + lone
        wanted = (float(goes_on) * total + lone * entropy(dead)) / tokens
        found = expected.masked(rate) if rate else expected.cloze()
        assert found == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(graph=corners(6, 4), name=st.sampled_from(FIRST_ORDER), start=starts, seed=st.integers(0, 99))
def test_walks_go_where_the_chain_says_along_edges_alone(graph, name: str, start: str, seed: int) -> None:
    walk = WALKS[name](length=4, per_question=1500, keep_concepts=True, start=start)
    tokens, n, edge = walk.sample(graph, seed).tokens, graph.n_questions, graph.weights.toarray() > 0
    steps = [tokens[:, i : i + 3] for i in range(0, tokens.shape[1] - 2, 2)]
    taken = np.unique(np.concatenate(steps), axis=0)
    taken = taken[taken[:, 1] >= 0]
    assert edge[taken[:, 0], taken[:, 1] - n].all()
    assert edge[taken[:, 2], taken[:, 1] - n].all()
    chain = walk.chain(graph)
    for place in range(1 if start == "question" else 0, chain.width):
        seen = np.bincount(tokens[tokens[:, place] >= 0, place], minlength=chain.n_tokens)
        wanted = chain.marginal(place) * len(tokens)
        assert not seen[wanted < 1e-9].any()
        many = wanted >= 5
        cells = np.array([*zip(seen[many], wanted[many], strict=True), (seen[~many].sum(), wanted[~many].sum())])
        rest = len(tokens) - cells.sum(axis=0)  # walks that have ended
        cells = np.array([(a, b) for a, b in [*cells, rest] if b >= 1])
        if len(cells) > 1:  # starts are spread evenly, so the first steps vary less than independent walks do
            assert stats.chisquare(cells[:, 0], cells[:, 1] * cells[:, 0].sum() / cells[:, 1].sum()).pvalue > 1e-8


@settings(max_examples=30, deadline=None)
@given(graph=corners(8, 4), start=starts, seed=st.integers(0, 99))
def test_both_loops_and_the_page_of_a_graph_bear_any_weight(graph: KnowledgeGraph, start: str, seed: int) -> None:
    import json

    walk = Weighted(length=3, per_question=4, start=start)
    one, two = (Sampler(walk, graph, seed, compiled).sample()[0] for compiled in (False, True))
    assert np.array_equal(one, two)
    found = inspect(graph, walk)
    json.dumps(found, allow_nan=False)
    information = found["mutual_information"]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(information))
    assert found["floors"]["stationary"]["next_question"] >= -1e-9


def test_a_hundred_thousand_parallel_components() -> None:
    """Of k questions with one concept, the next one is any of the k: ln k, without any of the algebra."""
    sizes = np.arange(100_000) % 3 + 1
    concept = np.repeat(np.arange(len(sizes)), sizes)
    w = sparse.csr_array((np.ones(len(concept)), (np.arange(len(concept)), concept)))
    graph = KnowledgeGraph([f"q{i}" for i in range(w.shape[0])], [f"c{j}" for j in range(w.shape[1])], w)
    walk = WALKS["qcq"](length=3)
    corpus = walk.sample(graph, 0, limit=3000)
    assert (concept[corpus.tokens] == concept[corpus.tokens[:, :1]]).all()
    chain = walk.chain(graph)
    for objective in (NextQuestion(), Cloze()):
        batch = objective.held_out_batch(corpus)
        at = concept[batch.tokens[batch.asked]]
        np.testing.assert_allclose(objective.floor(chain, batch), np.log(sizes[at]), atol=1e-12)
    assert graph.describe()["components"] == len(sizes)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([[1e308, 1e308]], "sum to more than the largest float"),
        ([[1e308], [1.7e308]], "divide all of them by the largest, 1.7e\\+308"),
        ([[5e-324]], "2.3e-308 at least"),
    ],
)
def test_weights_that_can_not_be_reckoned_with_are_refused(weights: list, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        graph_of(weights)


def test_starts_and_tables_that_no_float_holds_are_refused() -> None:
    chain = chain_of(graph_of([[1.0], [1.0]]), 3)
    with pytest.raises(ChainError, match="finite sum"):
        MarkovChain(chain.out, chain.into, np.full(2, 1.7e308), 3)
    for weight in (1e300, 1e-300):
        with pytest.raises(TrainingError, match="don't fit into float32"):
            TRAINERS["concept-onehot"]().fit(TrainingData(graph_of([[weight, 1.0]])))


# --- statistics -------------------------------------------------------------------------------------------------------

figures = st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-12, 3.0]), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None)
@given(difference=figures, scale=st.sampled_from([1.0, 1e-140, 1e140]))
def test_a_bootstrap_interval_is_that_of_every_possible_sample(difference: list[float], scale: float) -> None:
    """Few units: all samples of them can be listed, each as likely as the others."""
    ours = np.array(difference) * scale
    means = np.sort([np.mean(each) for each in itertools.product(ours, repeat=len(ours))])
    found = paired_bootstrap(ours, np.zeros(len(ours)), draws=20_000, level=0.8)
    for end, tail in ((found.low, 0.1), (found.high, 0.9)):
        near = np.quantile(means, [tail - 0.02, tail + 0.02], method="inverted_cdf")
        assert near[0] - 1e-12 * scale <= end <= near[1] + 1e-12 * scale


def test_intervals_agree_with_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 40, 400):
        ours = rng.normal(0.3, 1, n)
        found = paired_bootstrap(ours, np.zeros(n), draws=20_000)
        peer = stats.bootstrap((ours,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
        assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=0.04 * (peer.high - peer.low))
        (single,) = simultaneous([Contest(np.stack([ours, np.zeros(n)]), [(0, 1)])], draws=20_000)[0]
        textbook = stats.ttest_1samp(ours, 0).confidence_interval()
        width = textbook.high - textbook.low
        # At five units a bootstrap mean is no normal variable, and its quantile is what t is made from.
        assert (single.low, single.high) == pytest.approx(tuple(textbook), abs=(0.12 if n == 5 else 0.03) * width)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-100, 1e-13, 1e13, 1e140]))
def test_intervals_scale_with_the_figures(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    made = np.round(rng.normal(size=(3, 12)) * 16) / 16
    made[2] = made[0]
    pairs = [(0, 1), (2, 0)]
    one, two = (simultaneous([Contest(made * s, pairs)], draws=200)[0] for s in (1.0, scale))
    for a, b in zip(one, two, strict=True):
        # A mean of exactly 0 is 0 up to rounding when the scaled figures are added up.
        want = np.array([a.mean, a.low, a.high]) * scale
        assert want == pytest.approx([b.mean, b.low, b.high], rel=1e-9, abs=1e-12 * scale)
        assert a.decided == b.decided
    a, b = (paired_bootstrap(made[0] * s, made[1] * s, draws=200) for s in (1.0, scale))
    assert np.array([a.low, a.high]) * scale == pytest.approx([b.low, b.high], rel=1e-9, abs=1e-12 * scale)


def test_figures_whose_square_is_no_float_are_refused() -> None:
    huge = np.array([1e200, 1.5e308, 1e308])
    for call in (
        lambda: paired_bootstrap(huge, np.zeros(3)),
        lambda: simultaneous([Contest(np.stack([huge, np.zeros(3)]), [(0, 1)])]),
    ):
        with pytest.raises(EvaluationError, match="too large"):
            call()


@settings(max_examples=60, deadline=None)
@given(
    truth=st.lists(st.integers(0, 1), min_size=2, max_size=30),
    values=st.lists(
        st.sampled_from([0.0, -0.0, 1.0, 1e300, -1e300, 1e-300, 5e-324, np.inf, -np.inf, 1 + 2**-52]),
        min_size=30, max_size=30,
    ),
)  # fmt: skip
def test_the_area_of_extreme_scores_is_scikit_learns_and_its_spread_delongs(truth: list[int], values: list) -> None:
    from sklearn.metrics import roc_auc_score

    right, score = np.array(truth) == 1, np.array(values[: len(truth)])
    assume(0 < right.sum() < len(right))
    figures = auc_units(truth, score)
    ranks = stats.rankdata(score, "dense")  # scikit-learn takes no infinity
    assert figures.mean() == pytest.approx(roc_auc_score(truth, ranks))
    above = (score[right][:, None] > score[~right]) + 0.5 * (score[right][:, None] == score[~right])
    delong = above.mean(axis=1).var() / right.sum() + above.mean(axis=0).var() / (~right).sum()
    assert figures.var() / len(figures) == pytest.approx(delong, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.permutations(range(6)), min_size=1, max_size=8), data=st.data())
def test_reciprocal_ranks_and_hits_are_scikit_learns(rows: list[list[int]], data) -> None:
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    score = np.array(rows, dtype=float)
    wanted = np.array([data.draw(st.integers(0, 5)) for _ in rows])
    one = score[np.arange(len(rows)), wanted]
    better = (score > one[:, None]).sum(axis=1)
    label = np.eye(6, dtype=int)[wanted]
    assert expected_reciprocal_rank(better, 0 * better).mean() == pytest.approx(
        label_ranking_average_precision_score(label, score)
    )
    hits = top_k_accuracy_score(wanted, score, k=3, labels=np.arange(6))
    assert expected_hit(better, 0 * better, 3).mean() == pytest.approx(hits)
    seen = Counter(better.tolist())
    assert sum(seen.values()) == len(rows)
