"""Walks against their definitions: exact path probabilities, edges, counts, and the same bytes whoever samples."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from qcq.data.dataset import Dataset, Interactions
from qcq.errors import ChainError, ConfigError, GraphError, LeakageError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.walks import WALKS, ConceptHop, Node2Vec, NonBacktracking, Restart, WalkStrategy, Weighted, just, step
from qcq.walks.sampler import Sampler
from qcq.walks.tables import alias_tables

SIX = ("qcq", "non-backtracking", "concept-hop", "node2vec", "weighted", "restart")  # on the bare bipartite graph
EVERY = [
    *(WALKS[name]() for name in SIX),
    Node2Vec(p=4.0, q=1.0),
    Weighted(by="inverse-concept-frequency"),
    Weighted(by="responses"),
    Restart(probability=0.5),
]


def label(walk: WalkStrategy) -> str:
    own = {k: v for k, v in walk.config.items() if k not in ("length", "per_question", "start", "keep_concepts")}
    return "-".join([walk.name, *map(str, own.values())])


def graph_of(rows: list[dict[int, float]], n_concepts: int) -> KnowledgeGraph:
    w = np.zeros((len(rows), n_concepts))
    for q, row in enumerate(rows):
        for c, value in row.items():
            w[q, c] = value
    names = tuple(f"q{i}" for i in range(len(rows))), tuple(f"c{j}" for j in range(n_concepts))
    return KnowledgeGraph(*names, sparse.csr_array(w), np.arange(len(rows)) * 2)


# Every kind of node: one concept, several, more than a packed row holds, a concept with one question only.
HANDMADE = graph_of(
    [{0: 1.0}, {0: 2.0, 1: 1.0}, {1: 3.0, 2: 0.5}, {0: 1.0, 1: 1.0, 2: 4.0, 3: 1.0, 4: 2.0}, {2: 1.0, 4: 1.0, 5: 6.0}],
    6,
)


def neighbours(graph: KnowledgeGraph, walk: WalkStrategy) -> tuple[list[dict[int, float]], list[dict[int, float]]]:
    """Weighted neighbours of questions and of concepts, as the documentation of ``walk`` says."""
    w = graph.weights.toarray()
    edge = w > 0
    if not isinstance(walk, Weighted):
        w = edge.astype(float)
    elif walk.by == "inverse-concept-frequency":
        w = edge / np.maximum(edge.sum(axis=0, keepdims=True), 1)
    elif walk.by == "responses":
        w = edge * (1.0 + graph.responses[:, None])

    def lists(m: np.ndarray) -> list[dict[int, float]]:
        return [{int(j): float(row[j]) for j in np.flatnonzero(row)} for row in m]

    return lists(w), lists(w.T)


def choose(weights: dict[int, float]) -> Iterator[tuple[int, float]]:
    """Each choice with its probability; where all weights are 0, the documented fallback: the only way there is."""
    total = sum(weights.values())
    if total == 0:
        assert len(weights) == 1
        yield next(iter(weights)), 1.0
        return
    for node, weight in weights.items():
        if weight > 0:
            yield node, weight / total


def law(graph: KnowledgeGraph, walk: WalkStrategy, start: int, steps: int) -> dict[tuple[int, ...], float]:
    """Probability of every path q, c, q, c, q … of ``steps`` steps from ``start`` (c = -1 at a jump), by definition."""
    of_question, of_concept = neighbours(graph, walk)
    alpha, beta = getattr(walk, "biases", (1.0, 1.0))
    jump = getattr(walk, "probability", 0.0)
    paths: dict[tuple[int, ...], float] = {(start,): 1.0}
    for _ in range(steps):
        longer: dict[tuple[int, ...], float] = defaultdict(float)
        for path, p in paths.items():
            q, before = path[-1], path[-2] if len(path) > 1 else None
            if jump:
                longer[(*path, -1, start)] += p * jump
            leaving = {c: v * (beta if c == before else 1.0) for c, v in of_question[q].items()}
            for c, pc in choose(leaving):
                arriving = {x: v * (alpha if x == q else 1.0) for x, v in of_concept[c].items()}
                for x, px in choose(arriving):
                    if (here := p * (1 - jump) * pc * px) > 0:
                        longer[(*path, c, x)] += here
        paths = dict(longer)
    return paths


def fits(seen: Counter, expected: dict, n: int) -> None:
    """Chi-squared at a fixed seed; cells that are expected less than five times are taken together."""
    assert set(seen) <= set(expected), f"impossible: {set(seen) - set(expected)}"
    assert sum(expected.values()) == pytest.approx(1.0)
    cells = [(seen[key], n * p) for key, p in expected.items() if n * p >= 5]
    few = [(seen[key], n * p) for key, p in expected.items() if n * p < 5]
    if sum(e for _, e in few) >= 5:
        cells.append((sum(o for o, _ in few), sum(e for _, e in few)))
    if len(cells) > 1:
        observed, wanted = np.array(cells).T
        assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3


def paths_of(graph: KnowledgeGraph, walk: WalkStrategy, tokens: np.ndarray) -> list[tuple[int, ...]]:
    """Rows with concepts kept, as paths q, c, q …; -1 stands where a jump left no concept."""
    made = []
    for row in tokens.tolist():
        path: list[int] = []
        for token in row:
            if token < 0:
                break
            if token < graph.n_questions and len(path) % 2 == 1:
                path.append(-1)
            path.append(token - graph.n_questions if token >= graph.n_questions else token)
        made.append(tuple(path))
    return made


def remade(walk: WalkStrategy, **changes: object) -> WalkStrategy:
    return type(walk)(**{**walk.config, **changes})


@pytest.mark.parametrize("walk", EVERY, ids=label)
def test_paths_have_their_exact_probabilities(walk: WalkStrategy) -> None:
    each = 4000
    sampled = remade(walk, length=3, per_question=each, keep_concepts=True).sample(HANDMADE, seed=1)
    paths = paths_of(HANDMADE, walk, sampled.tokens)
    for start in range(HANDMADE.n_questions):
        mine = Counter(path for path in paths if path[0] == start)
        fits(mine, law(HANDMADE, walk, start, 2), each)


@pytest.mark.parametrize(("p", "q"), [(1.0, 0.5), (0.25, 4.0), (2.0, 1.0)])
def test_node2vec_is_the_textbook_walk(p: float, q: float) -> None:
    """Grover & Leskovec's α_pq(t, x) on the plain graph, distances by breadth-first search, middle case included."""
    graph = HANDMADE.to_networkx()
    distance = dict(nx.all_pairs_shortest_path_length(graph))

    def name(token: int, i: int) -> tuple[str, str]:
        return ("question", f"q{token}") if i % 2 == 0 else ("concept", f"c{token}")

    def textbook(path: tuple[int, ...]) -> float:
        nodes = [name(token, i) for i, token in enumerate(path)]
        probability = 1.0
        for i in range(1, len(nodes)):
            v, t = nodes[i - 1], nodes[i - 2] if i > 1 else None
            bias = {x: 1.0 if t is None else {0: 1 / p, 1: 1.0, 2: 1 / q}[distance[t][x]] for x in graph.neighbors(v)}
            probability *= bias[nodes[i]] / sum(bias.values())
        return probability

    for start in range(HANDMADE.n_questions):
        ours = law(HANDMADE, Node2Vec(p=p, q=q), start, 3)
        assert {path: textbook(path) for path in ours} == pytest.approx(ours)
        assert sum(map(textbook, ours)) == pytest.approx(1.0)  # so no path is missing


@pytest.mark.parametrize("walk", [WALKS["qcq"](), Weighted(), Weighted(by="responses")], ids=label)
def test_starts_by_degree_are_stationary(walk: WalkStrategy) -> None:
    n = 6000
    tokens = remade(walk, start="degree", length=6, per_question=n).sample(HANDMADE, seed=2).tokens
    strength = walk.strength(HANDMADE)
    for t in (0, 5):
        fits(Counter(tokens[:, t].tolist()), dict(enumerate(strength / strength.sum())), len(tokens))


def test_starts_by_question_are_equal() -> None:
    tokens = WALKS["qcq"](per_question=7).sample(HANDMADE).tokens
    assert np.bincount(tokens[:, 0]).tolist() == [7] * HANDMADE.n_questions


def test_restart_visits_with_personalised_pagerank() -> None:
    r, n = 0.3, 8000
    w = (HANDMADE.weights.toarray() > 0).astype(float)
    p = (w / w.sum(axis=1, keepdims=True)) @ (w / w.sum(axis=0, keepdims=True)).T
    pi = r * np.linalg.inv(np.eye(len(p)) - (1 - r) * p)  # row s: π = r·δ_s + (1-r)·π·P
    corpus = Restart(probability=r, length=40, per_question=n).sample(HANDMADE, seed=3)
    for start in range(HANDMADE.n_questions):
        last = corpus.tokens[corpus.tokens[:, 0] == start, -1]
        fits(Counter(last.tolist()), dict(enumerate(pi[start])), n)
    steps = corpus.n_walks * 39
    assert abs(corpus.counts["restarts"] / steps - r) < 5 * np.sqrt(r * (1 - r) / steps)


def test_inverse_concept_frequency_and_responses() -> None:
    icf = Weighted(by="inverse-concept-frequency").weights(HANDMADE).toarray()
    degree = (HANDMADE.weights.toarray() > 0).sum(axis=0)
    assert np.allclose(icf[3], [1 / degree[0], 1 / degree[1], 1 / degree[2], 1 / degree[3], 1 / degree[4], 0])
    answered = Weighted(by="responses").weights(HANDMADE).toarray()
    assert answered[3, :5].tolist() == [7.0] * 5
    assert answered[0].tolist() == [1.0, 0, 0, 0, 0, 0]


def test_responses_come_from_the_training_part_only() -> None:
    who, what = np.repeat(np.arange(10, dtype=np.int32), 3), np.tile(np.array([0, 1, 1], dtype=np.int32), 10)
    data = Dataset(
        "d", ("a", "b"), ("x",), sparse.csr_array(np.ones((2, 1))),
        Interactions(who, what, np.ones(30, dtype=np.int8)), tuple(map(str, range(10))),
    )  # fmt: skip
    split, graph = data.split(0), KnowledgeGraph.from_dataset(data)
    with pytest.raises(WalkError, match="with_responses"):
        Weighted(by="responses").sample(graph)
    known = graph.with_responses(split.train)
    assert known.responses.tolist() == [7, 14]
    assert known.digest != graph.digest
    with pytest.raises(LeakageError, match="training part only"):
        graph.with_responses(split.test)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="don't fit"):
        KnowledgeGraph.from_edges([("a", "x")]).with_responses(split.train)


@st.composite
def graphs(draw: st.DrawFn) -> KnowledgeGraph:
    """Anything a graph may be: isolated nodes on either side, stars, one concept, no edge, weights 15 decades apart."""
    kind = draw(st.sampled_from(["any", "star", "one concept", "empty"]))
    n_q, n_c = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    weight = st.sampled_from([1e-9, 0.5, 1.0, 3.0, 1e6])
    if kind == "star":  # one question with all concepts, which have no other
        rows = [{c: draw(weight) for c in range(n_c)}, *({} for _ in range(n_q - 1))]
    elif kind == "one concept":
        rows, n_c = [{0: draw(weight)} for _ in range(n_q)], 1
    elif kind == "empty":
        rows = [{} for _ in range(n_q)]
    else:
        rows = [draw(st.dictionaries(st.integers(0, n_c - 1), weight, max_size=n_c)) for _ in range(n_q)]
    return graph_of(rows, n_c)


@settings(max_examples=150, deadline=None)
@given(graph=graphs(), walk=st.sampled_from(EVERY), length=st.integers(1, 7), seed=st.integers(0, 5))
def test_every_step_is_an_edge_and_every_count_is_true(
    graph: KnowledgeGraph, walk: WalkStrategy, length: int, seed: int
) -> None:
    walk = remade(walk, length=length, per_question=3, keep_concepts=True)
    corpus = walk.sample(graph, seed)
    edge = graph.weights.toarray() > 0
    seen: Counter = Counter()
    paths = paths_of(graph, walk, corpus.tokens)
    assert [path[0] for path in paths] == [*range(graph.n_questions)] * 3
    for row, path in zip(corpus.tokens, paths, strict=True):
        assert (row[len(row[row >= 0]) :] == -1).all()  # pads only at the end
        seen["early_ends"] += len(path) < 2 * length - 1
        assert len(path) == (2 * length - 1 if edge[path[0]].any() else 1)
        for i in range(2, len(path), 2):
            x, c, y = path[i - 2], path[i - 1], path[i]
            if c < 0:
                assert walk.name == "restart"
                assert y == path[0]
                seen["restarts"] += 1
                continue
            assert edge[x, c]
            assert edge[y, c]
            forced = edge[:, c].sum() == 1
            seen["forced_returns"] += forced and walk.name == "non-backtracking"
            assert forced or y != x or walk.name != "non-backtracking"
            again = i > 2 and path[i - 3] == c
            forced = i > 2 and edge[x].sum() == 1
            seen["forced_repeats"] += forced and walk.name == "concept-hop"
            assert forced or not again or walk.name != "concept-hop"
    assert corpus.counts == {name: seen[name] for name in ("early_ends", *walk.tallies)}
    plain = remade(walk, keep_concepts=False).sample(graph, seed)  # the same walks, the concepts left out
    assert [walk.tolist() for walk in plain.sentences()] == [list(path[::2]) for path in paths]


@pytest.mark.parametrize("start", ["question", "degree"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("walk", EVERY[:6], ids=label)
def test_both_loops_give_the_same_bytes(walk: WalkStrategy, keep: bool, start: str) -> None:
    walk = remade(walk, length=9, per_question=60, keep_concepts=keep, start=start)
    rng = np.random.default_rng(0)
    for graph in (HANDMADE, graph_of([{}, *HANDMADE_ROWS, {}], 7), random_graph(rng, 300, 20)):
        index = np.arange(graph.n_questions * 60)
        one, counted = Sampler(walk, graph, 4, compiled=False).sample(index)
        two, again = Sampler(walk, graph, 4, compiled=True).sample(index)
        assert np.array_equal(one, two)
        assert counted.tolist() == again.tolist()


HANDMADE_ROWS = [{0: 1.0}, {0: 2.0, 1: 1.0}, {6: 3.0}, {0: 1.0, 1: 1.0, 2: 4.0, 3: 1.0, 4: 2.0}]


def random_graph(rng: np.random.Generator, n_questions: int, n_concepts: int) -> KnowledgeGraph:
    w = np.where(rng.random((n_questions, n_concepts)) < 0.12, rng.exponential(size=(n_questions, n_concepts)), 0.0)
    names = tuple(f"q{i}" for i in range(n_questions)), tuple(f"c{j}" for j in range(n_concepts))
    return KnowledgeGraph(*names, sparse.csr_array(w))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("walk", EVERY[:6], ids=label)
def test_threads_and_pieces_have_no_say(walk: WalkStrategy, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(np.random.default_rng(1), 1000, 15)
    sampler = Sampler(remade(walk, length=4, per_question=30, start="degree"), graph, 5, compiled)
    made = []
    for threads in ("1", "2", "4", "16"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        made.append(sampler.sample()[0])
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    cuts = [0, 1, 70, 9000, 9001, 20000, sampler.n_walks]
    made.append(np.concatenate([sampler.sample(np.arange(a, b))[0] for a, b in itertools.pairwise(cuts)]))
    assert all(np.array_equal(made[0], other) for other in made[1:])


def test_seeds_differ_and_repeat() -> None:
    walk = WALKS["qcq"](length=10)
    a, b, c = (walk.sample(HANDMADE, seed).digest for seed in (0, 0, 1))
    assert a == b != c


def test_limit_takes_different_walks_of_the_same_corpus() -> None:
    walk = NonBacktracking(length=12, start="degree")
    few, sampler = walk.sample(HANDMADE, 6, limit=20), Sampler(walk, HANDMADE, 6)
    which = sampler.some(20)
    assert len(set(which.tolist())) == 20
    assert np.array_equal(few.tokens, walk.sample(HANDMADE, 6).tokens[which])
    assert walk.sample(HANDMADE, 6, limit=10_000).n_walks == 50


def test_no_edges_no_degrees() -> None:
    empty = graph_of([{}, {}], 1)
    assert WALKS["qcq"](length=3).sample(empty).counts == {"early_ends": 20}
    with pytest.raises(WalkError, match="start=question"):
        WALKS["qcq"](start="degree").sample(empty)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_refused_weights(bad: float) -> None:
    with pytest.raises(GraphError, match="positive and finite"):
        KnowledgeGraph(("a",), ("x",), sparse.csr_array((np.array([bad]), ([0], [0])), shape=(1, 1)))


@pytest.mark.parametrize(
    ("walk", "settings_"),
    [
        ("node2vec", {"p": 0.0}),
        ("node2vec", {"q": float("inf")}),
        ("restart", {"probability": 1.5}),
        ("weighted", {"by": "idf"}),
        ("qcq", {"length": 0}),
        ("qcq", {"start": "anywhere"}),
    ],
)
def test_impossible_settings(walk: str, settings_: dict) -> None:
    with pytest.raises(ConfigError):
        WALKS[walk](**settings_)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(1e-12, 1e12), max_size=9), max_size=6))
def test_alias_tables_hold_the_weights(rows: list[list[float]]) -> None:
    """Summed over its cells, a table gives each neighbour back its share."""
    ptr = np.cumsum([0, *map(len, rows)])
    threshold, alias = alias_tables(ptr, np.array([w for row in rows for w in row]))
    for r, row in enumerate(rows):
        got = np.zeros(len(row))
        for k in range(len(row)):
            take = float(threshold[ptr[r] + k]) / 2.0**64
            got[k] += take / len(row)
            got[alias[ptr[r] + k]] += (1 - take) / len(row)
        if row:
            assert np.allclose(got, np.array(row) / sum(row), rtol=1e-9, atol=1e-15)


def test_alias_tables_compiled_are_the_same() -> None:
    from qcq.walks.kernel import compiled_fill_alias

    rng = np.random.default_rng(3)
    ptr = np.concatenate([[0], np.cumsum(rng.integers(0, 40, size=200))])
    weights = rng.lognormal(sigma=4.0, size=ptr[-1])
    threshold, alias = alias_tables(ptr, weights)
    same = np.empty_like(threshold), np.empty_like(alias)
    compiled_fill_alias(ptr, weights, *same)
    assert np.array_equal(threshold, same[0])
    assert np.array_equal(alias, same[1])


def test_concept_hop_leaves_the_concept() -> None:
    """What the strategy was made for: "q1-c1-q2-c1-q3-c1-q2" can't happen where questions have two concepts."""
    graph = graph_of([{i: 1.0, (i + 1) % 4: 1.0} for i in range(4)], 4)
    tokens = ConceptHop(length=20, keep_concepts=True).sample(graph).tokens
    assert (tokens[:, 1:-2:2] != tokens[:, 3::2]).all()


def test_small_jobs_wait_for_no_compiler() -> None:
    code = (
        "import sys; from qcq import WALKS, KnowledgeGraph\n"
        "g = KnowledgeGraph.from_edges([('a','x'),('b','x'),('b','y')])\n"
        "[WALKS[name]().sample(g) for name in sys.argv[1:]]\n"
        "assert not {'numba', 'torch', 'gensim'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, *SIX], check=True, timeout=600)


@pytest.mark.parametrize(
    "walk",
    [WALKS[name]() for name in SIX if name != "restart"] + [*EVERY[7:9], Weighted(), Node2Vec(p=2.0, q=2.0)],
    ids=label,
)
def test_walks_with_a_law_over_edges_have_a_chain(walk: WalkStrategy) -> None:
    """Where the chain says a walk is after two steps is where the definition's paths end."""
    chain = remade(walk, length=3).chain(HANDMADE)
    ends = np.zeros(HANDMADE.n_questions)
    for start in range(HANDMADE.n_questions):
        for path, p in law(HANDMADE, walk, start, 2).items():
            ends[path[-1]] += p / HANDMADE.n_questions
    assert np.allclose(chain.marginal(2), ends)


def test_a_walk_that_remembers_its_start_says_that_it_has_no_chain() -> None:
    with pytest.raises(ChainError, match=r"no exact chain for restart: .* depends on"):
        WALKS["restart"]().chain(HANDMADE)


OUTSIDE = """
from typing import NamedTuple
from qcq.walks.step import Lists, NONE, choose, count, helper, take, uniform, unit

@helper
def again(x, share):
    return unit(x) < share

class StayStep(NamedTuple):
    lists: Lists
    share: float

    def leave(self, place, c, x, y, counts):
        stays = again(x, self.share)
        count(counts, 1, stays)
        via, at = uniform(self.lists, place, y)
        return choose(stays, NONE, via), at

    def land(self, via, at, rest, place, first):
        return choose(via == NONE, place, take(self.lists.to, at))
"""


def test_a_step_of_somebody_else_and_one_that_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both loops agree on it, and code compiled before is taken from the disk for the same text only."""
    from qcq.walks import kernel
    from qcq.walks.tables import lists

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seen, hits = [], []
    for text in (OUTSIDE, OUTSIDE, OUTSIDE.replace("unit(x) < share", "unit(x) > share")):
        (tmp_path / "outside.py").write_text(text)
        monkeypatch.delitem(sys.modules, "outside", raising=False)
        step = importlib.import_module("outside").StayStep

        class Stay(WalkStrategy):
            tallies = ("stays",)

            def tables(self, graph: KnowledgeGraph, step: type = step) -> tuple:
                return step(lists(graph), 0.25)

        walk = Stay(length=9, per_question=400)
        (one, counted), (two, again) = (Sampler(walk, HANDMADE, 0, compiled).sample() for compiled in (False, True))
        assert np.array_equal(one, two)
        assert counted.tolist() == again.tolist()
        seen.append(counted[1] / (8 * len(one)))
        hits.append(sum(kernel._loops[step].stats.cache_hits.values()))
    assert seen == pytest.approx([0.25, 0.25, 0.75], abs=0.02)
    assert hits[1] == 1


def test_no_place_for_compiled_code_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed read-only, without a home folder: numba refuses to cache, and the kernel is compiled without."""
    from qcq.walks import kernel

    asked = []

    def njit(**options: object) -> object:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda function: function

    monkeypatch.setattr(kernel, "njit", njit)
    assert kernel.compiled(len) is len
    assert [bool(options.get("cache")) for options in asked] == [True, False]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.integers(0, 2**64 - 1))
def test_the_upper_half_of_a_product_is_exact(draws: list[int], factor: int) -> None:
    numbers, parts = np.array(draws, dtype=np.uint64), factor >> 32
    assert just._high(numbers, np.uint64(factor)).tolist() == [draw * factor >> 64 for draw in draws]
    assert step.high(numbers, np.uint64(parts)).tolist() == [draw * parts >> 64 for draw in draws]
