"""Typed edges, metapaths and sessions against plain loops over the responses, and against leaks."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from scipy import sparse, stats

from qcq.data import Dataset, Simulated, TrainPart
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.errors import ChainError, ConfigError, LeakageError, TrainingError, WalkError
from qcq.evaluation import Partition
from qcq.floors.identifiability import would_add
from qcq.floors.objectives import Masked, NextQuestion
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import LEAST, TypedGraph
from qcq.models import TrainingData
from qcq.models.factorization import ChainRatio, NetMF
from qcq.walks import WALKS, Just, Metapath, Session
from qcq.walks.metapath import parse
from qcq.walks.sampler import Sampler

PATTERNS = [
    "q-c-q",
    "q-s-q",
    "q-s+-q",
    "q-s--q",
    "q-d-q",
    "q-q",
    "q-c-c-q",
    "q-c-p-c-q",
    "0.6*q-c-q + 0.4*q-s+-q",
    "q-q + 2*q-d-q",
    "0.2*q-c-c-q+0.3*q-s--q+0.5*q-q",
]


@functools.cache
def data() -> Dataset:
    """Every awkward thing: a question without concept, one without students, one that nobody leaves, one always wrong;
    a concept without question, one without parent."""
    rng = np.random.default_rng(3)
    w = np.zeros((12, 6))
    w[[0, 1, 2, 3], 0] = 1
    w[[3, 4, 5], 1] = [1, 2, 0.5]
    w[[5, 0, 8], 2] = 1
    w[[6, 7, 9], 3] = 1
    w[9, 4] = 1  # question 10 and concept 5 have no edge; question 11 only has students
    student = np.repeat(np.arange(9, dtype=np.int32), 10)
    question = rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 9, 11], 90).astype(np.int32)
    correct = (rng.random(90) < np.linspace(0.1, 0.9, 12)[question]).astype(np.int8)
    correct[question == 4] = 0
    question[question == 11] = np.where(np.arange((question == 11).sum()) < 2, 11, 0)
    question[9], correct[9], question[8] = 6, 1, 2  # question 6 ends the first student's sequence, and no other one's
    return Dataset(
        "awkward",
        [f"q{i}" for i in range(12)],
        [f"c{i}" for i in range(6)],
        sparse.csr_array(w),
        Interactions(student, question, correct),
        [f"s{i}" for i in range(9)],
        parents={"c0": "top", "c1": "top", "c2": "c3", "c3": "c4"},
        prerequisites=(("c0", "c2"), ("c1", "c0")),
        parts=np.array([0, 0, 0, 0, 0, 0, 1, 2, 2], dtype=np.int8),
    )


def graph() -> KnowledgeGraph:
    return KnowledgeGraph.from_dataset(data())


@functools.cache
def train() -> TrainPart:
    return data().split().train


# --- the definition, in plain loops ---------------------------------------------------------------------------------


def neighbours(bins: int = 10) -> dict[tuple[str, str], dict]:
    """Weighted neighbours by (type, next type) → node → {node: weight}."""
    d = data()
    found: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))

    def join(a: str, x: object, b: str, y: object) -> None:
        found[a, b][x][y] = 1.0
        found[b, a][y][x] = 1.0

    for q, c in zip(*d.q_matrix.nonzero(), strict=True):
        join("q", int(q), "c", int(c))
    for child, parent in d.parents.items():
        join("c", int(child[1:]), "p", parent)
    links = [*d.parents.items(), *d.prerequisites]
    for a, b in links:
        if b.startswith("c"):
            join("c", int(a[1:]), "c", int(b[1:]))
    r = train().interactions
    rows = list(zip(r.student.tolist(), r.question.tolist(), r.correct.tolist(), strict=True))
    right, total = Counter(), Counter()
    for s, q, ok in rows:
        join("q", q, "s", s)
        join("q", q, "s+" if ok else "s-", s)
        right[q] += ok
        total[q] += 1
    share = {q: 1 - right[q] / n for q, n in total.items() if n >= LEAST}
    edges = np.quantile(list(share.values()), np.arange(1, bins) / bins)
    for q, value in share.items():
        join("q", q, "d", int((edges <= value).sum()))
    for (s, q, _), (s2, q2, _) in itertools.pairwise(rows):
        if s == s2 and q != q2:
            found["q", "q"][q][q2] += 1.0
    return found


def law(pattern: str) -> np.ndarray:
    """P[x, y] of one step, by definition."""
    edges = neighbours()
    components = parse(pattern)[0]
    n = len(data().questions)
    able = set(range(n))

    def ahead(types: tuple[str, ...], i: int, node: object) -> dict:
        """Nodes to go on to, with probabilities, from position i of the path: only those that arrive."""
        on = {y: w for y, w in edges[types[i], types[i + 1]][node].items() if arrives(types, i + 1, y)}
        return {y: w / sum(on.values()) for y, w in on.items()}

    def arrives(types: tuple[str, ...], i: int, node: object) -> bool:
        if i == len(types) - 1:
            return node in able
        return any(arrives(types, i + 1, y) for y in edges[types[i], types[i + 1]][node])

    def ends(types: tuple[str, ...], i: int, node: object) -> dict:
        if i == len(types) - 1:
            return {node: 1.0}
        out: dict = defaultdict(float)
        for y, p in ahead(types, i, node).items():
            for z, r in ends(types, i + 1, y).items():
                out[z] += p * r
        return out

    def leaves(x: int) -> bool:
        return any(ahead(c.types, 0, x) for c in components) or bool(edges["q", "c"][x])

    while lost := {x for x in able if not leaves(x)}:
        able -= lost
    p = np.zeros((n, n))
    for x in range(n):
        some = [c for c in components if ahead(c.types, 0, x)] or [parse("q-c-q")[0][0]]
        for c in some:
            for y, r in ends(c.types, 0, x).items():
                p[x, y] += c.share / sum(k.share for k in some) * r
    return p


# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_chain_is_the_definition(pattern: str) -> None:
    walk = Metapath(pattern=pattern)
    chain = walk.chain(walk.prepare(graph(), train()))
    np.testing.assert_allclose((chain.out @ chain.into).toarray(), law(pattern), atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_walks_follow_the_chain(pattern: str, compiled: bool) -> None:
    """Every step of every walk, by the question it leaves: chi-squared, and nothing that has probability 0."""
    walk = Metapath(pattern=pattern, length=4, per_question=1500)
    tokens, _ = Sampler(walk, walk.prepare(graph(), train()), 1, compiled).sample()
    p = law(pattern)
    seen = np.zeros_like(p)
    for t in range(3):
        there = tokens[:, t + 1] >= 0
        np.add.at(seen, (tokens[there, t], tokens[there, t + 1]), 1)
    assert (seen[p == 0] == 0).all()
    assert ((tokens[:, 1] < 0) == (p.sum(axis=1) == 0)[tokens[:, 0]]).all()  # only a question without a way out ends
    for x in range(len(p)):
        cells = p[x] * seen[x].sum() >= 5
        if cells.sum() > 1:
            observed, wanted = seen[x][cells], p[x][cells]
            assert stats.chisquare(observed, wanted / wanted.sum() * observed.sum()).pvalue > 1e-4
    # The component is chosen anew: where a walk goes doesn't hang on how it came.
    came, went = tokens[:, 0], tokens[:, 2]
    middle = Counter(tokens[:, 1].tolist()).most_common(1)[0][0]
    if middle >= 0:
        here = (tokens[:, 1] == middle) & (went >= 0)
        table = np.zeros((len(p), len(p)))
        np.add.at(table, (came[here], went[here]), 1)
        table = table[table.sum(axis=1) >= 60][:, table.sum(axis=0) >= 60]
        if min(table.shape) > 1:
            assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("pattern", PATTERNS)
def test_threads_shards_and_loops_have_no_say(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Metapath(pattern=pattern, length=5, per_question=1000, start="degree")
    typed = walk.prepare(graph(), train())
    whole = walk.sample(typed, 3)
    made = []
    for threads, compiled in itertools.product(("1", "5"), (False, True)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        made.append(Sampler(walk, typed, 3, compiled).sample()[0])
    assert all(np.array_equal(whole.tokens, other) for other in made)
    memory = 2**20
    streamed = walk.stream(typed, tmp_path / "a", 3, max_memory=memory)
    assert streamed.digest == whole.digest
    assert streamed.counts == whole.counts
    assert walk.stream(typed, tmp_path / "a", 3).digest == whole.digest


@pytest.mark.parametrize("pattern", ["0.6*q-c-q + 0.4*q-s+-q", "q-q", "q-s--q"])
def test_the_stationary_law_stays(pattern: str) -> None:
    walk = Metapath(pattern=pattern, start="degree", length=6)
    pi = walk.strength(walk.prepare(graph(), train()))
    moving = law(pattern).sum(axis=1) > 0
    np.testing.assert_allclose((pi @ law(pattern))[moving], pi[moving], atol=1e-9 * pi.sum())
    chain = walk.chain(walk.prepare(graph(), train()))
    np.testing.assert_allclose(chain.marginal(5)[moving], chain.marginal(0)[moving], atol=1e-9)


def test_a_single_pattern_over_concepts_is_qcq() -> None:
    ours, plain = Metapath(pattern="q-c-q", per_question=30), WALKS["qcq"](per_question=30)
    assert np.array_equal(ours.sample(graph(), 2).tokens, plain.sample(graph(), 2).tokens)


def test_one_undirected_pattern_starts_as_qcq_does() -> None:
    ours, plain = Metapath(pattern="q-c-q").strength(graph()), WALKS["qcq"]().strength(graph())
    np.testing.assert_allclose(ours / ours.sum(), plain / plain.sum())


@pytest.mark.parametrize("pattern", ["0.6*q-c-q + 0.4*q-s+-q", "0.5*q-q + 0.5*q-d-q"])
def test_the_floor_of_a_mixture_is_exact(pattern: str) -> None:
    """Token by token against the table of all walks of four questions; the mean against the sampled one."""
    walk = Metapath(pattern=pattern, length=4, per_question=400)
    typed = walk.prepare(graph(), train())
    chain, p = walk.chain(typed), law(pattern)
    n, moving = len(p), p.sum(axis=1) > 0
    corpus = walk.sample(typed, 2)

    paper = NextQuestion().held_out_batch(corpus, 0)
    floor = NextQuestion().floor(chain, paper)
    row, at = np.nonzero(paper.asked)
    before, here = corpus.tokens[row, np.maximum(at - 1, 0)], corpus.tokens[row, at]
    np.testing.assert_allclose(floor, np.where(at == 0, np.log(n), -np.log(np.where(at == 0, 1, p[before, here]))))
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
    mu = np.where(moving, 1.0, 0.0) / moving.sum()
    wanted = np.mean([mu @ np.linalg.matrix_power(p, t) @ entropy for t in range(3)])
    steps = floor[at > 0]
    of_walk = np.bincount(row[at > 0], steps, minlength=corpus.n_walks)[moving[corpus.tokens[:, 0]]] / 3
    assert abs(of_walk.mean() - wanted) < 4 * of_walk.std() / np.sqrt(len(of_walk))

    every = np.einsum("a,ab,bc,cd->abcd", np.ones(n) / n, p, p, p)  # the law of whole walks
    whole = replace(corpus, shards=[corpus.tokens[moving[corpus.tokens[:, 0]]][:80]])
    paper = Masked(rate=0.4).held_out_batch(whole, 1)
    said = []
    for tokens, asked in zip(paper.tokens, paper.asked, strict=True):
        table = every[tuple(slice(None) if hidden else token for token, hidden in zip(tokens, asked, strict=True))]
        table = np.asarray(table / table.sum())
        for axis, token in enumerate(tokens[asked]):
            said.append(-np.log(np.moveaxis(table, axis, 0)[token].sum()))
    np.testing.assert_allclose(Masked(rate=0.4).floor(chain, paper), said, atol=1e-9)


def test_who_is_served_by_what_is_counted_and_said() -> None:
    walk = Metapath(pattern="2*q-s--q + q-d-q", per_question=2)
    typed = walk.prepare(graph(), train())
    counts = walk.sample(typed).counts
    edges = neighbours()
    wrong = {q for q in range(12) if edges["q", "s-"][q]}
    assert counts["questions_without_q-s--q"] == 12 - len(wrong)
    left = {q for q in range(12) if q in wrong or edges["q", "d"][q]}
    assert counts["questions_on_fallback"] == len({q for q in range(12) if q not in left and edges["q", "c"][q]}) > 0
    said = walk.remarks(typed)
    assert "sum to 3; normalised to 0.6667*q-s--q + 0.3333*q-d-q" in said[0]
    assert all("\n" not in line for line in said)
    assert not any("normalised" in line for line in replace(walk, pattern="q-s--q + q-q").remarks(typed))
    assert not any("normalised" in line for line in replace(walk, pattern="0.5*q-s--q + 0.5*q-q").remarks(typed))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "a type is missing"),
        ("q", "must lead from q to q"),
        ("q-c", "'q-c' must lead from q to q"),
        ("q-s-", "a type is missing"),
        ("q--q", "a type is missing"),
        ("q-c-q +", "a type is missing"),
        ("q-x-q", "no node type 'x'; there are q, c, p"),
        ("q-s-c-q", "no edges between s and c"),
        ("q-p-q", "no edges between q and p"),
        ("q-c-q-s-q", "passes a question on its way"),
        ("half*q-c-q", "'half' is no number"),
        ("0*q-c-q", "positive and finite"),
        ("-1*q-c-q + 2*q-s-q", "positive and finite"),
        ("nan*q-c-q", "positive and finite"),
    ],
)
def test_bad_patterns_are_refused_at_once(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match="setting pattern: ") as error:
        Metapath(pattern=pattern)
    assert said in str(error.value)
    assert repr(pattern) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "changes", "said"),
    [
        ("q-s-q", {"interactions": None}, "needs students, and the data set has no responses"),
        ("q-d-q", {"interactions": None}, "needs students, and the data set has no responses"),
        ("q-q", {"interactions": None}, "needs an order, and the data set has no responses"),
        ("q-c-p-c-q", {"parents": {}}, "q-c-p-c-q can't be walked: .* no parents"),
        ("q-c-c-q", {"parents": {}, "prerequisites": ()}, "q-c-c-q can't be walked: .* no c–c edges"),
        ("q-q", {"ordered": False}, "q-q can't be walked: .* no order"),
        ("q-s--q", {"correct": 1}, "q-s--q can't be walked: no such path"),
        ("q-d-q", {"few": True}, "q-d-q can't be walked: no question has 5 training responses"),
    ],
)
def test_what_the_data_set_lacks_is_said_before_sampling(pattern: str, changes: dict, said: str) -> None:
    base = data()
    r = base.interactions
    if "ordered" in changes:
        changes = {"interactions": replace(r, ordered=False)}
    elif "correct" in changes:
        changes = {"interactions": replace(r, correct=np.ones_like(r.correct))}
    elif "few" in changes:
        changes = {"interactions": Interactions(r.student[:12], r.question[:12], r.correct[:12])}
    changed = replace(base, **changes)
    part = None if changed.interactions is None else changed.split().train
    with pytest.raises(WalkError, match=said) as error:
        Metapath(pattern=pattern).prepare(KnowledgeGraph.from_dataset(changed), part)
    assert "\n" not in str(error.value)


def test_a_graph_without_students_says_where_they_come_from() -> None:
    with pytest.raises(WalkError, match=r"q-s-q can't be walked: .* TypedGraph.of\(graph, split.train\)"):
        Metapath(pattern="q-s-q").sample(graph())
    assert Metapath(pattern="q-c-c-q", per_question=1).sample(graph()).graph_digest == graph().digest


def test_only_one_concept_between_questions_can_be_kept() -> None:
    kept = Metapath(pattern="q-c-q", keep_concepts=True, length=3, per_question=4).sample(graph(), 1)
    q, c = kept.tokens[kept.tokens[:, 1] >= 0][:, :2].T
    assert (graph().weights.toarray()[q, c - 12] > 0).all()
    with pytest.raises(ConfigError, match="keep_concepts"):
        Metapath(pattern="q-c-c-q", keep_concepts=True)


# --- jump and stay --------------------------------------------------------------------------------------------------


def just_law(alpha: float, start: int, steps: int) -> dict[tuple[int, ...], float]:
    """Probability of every row of ``steps`` + 1 questions, by the definition: state (node, how many of its type)."""
    edges = neighbours()
    lost = {x for x in range(12) if not edges["q", "q"][x] and not edges["q", "c"][x]}
    order = {x: {y: w for y, w in edges["q", "q"][x].items() if y not in lost} for x in range(12)}

    def moves(kind: str, node: int, run: int) -> dict[tuple[str, int, int], float]:
        same = order[node] if kind == "q" else edges["c", "c"][node]
        other = "c" if kind == "q" else "q"
        across = edges[kind, other][node]
        stay = 0.0 if not same else 1.0 if not across else alpha**run
        out = {(kind, y, run + 1): stay * w / sum(same.values()) for y, w in same.items()}
        return out | {(other, y, 1): (1 - stay) * w / sum(across.values()) for y, w in across.items()}

    def next_question(node: int, run: int) -> dict[tuple[int, int], float]:
        found: dict = defaultdict(float)
        here = {("q", node, run): 1.0}
        while here:
            on: dict = defaultdict(float)
            for (kind, x, n), p in here.items():
                for (to, y, m), r in moves(kind, x, n).items():
                    if to == "q":
                        found[y, m] += p * r
                    elif p * r > 1e-13:
                        on[to, y, m] += p * r
            here = on
        return found

    rows = {((start,), 1): 1.0}
    for _ in range(steps):
        longer: dict = defaultdict(float)
        for (row, run), p in rows.items():
            for (y, m), r in next_question(row[-1], run).items():
                longer[(*row, y), m] += p * r
        rows = longer
    law: dict = defaultdict(float)
    for (row, _), p in rows.items():
        law[row] += p
    return law


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_jump_and_stay_has_its_exact_probabilities(alpha: float, compiled: bool) -> None:
    n = 4000
    walk = Just(alpha=alpha, length=4, per_question=n)
    tokens, counts = Sampler(walk, walk.prepare(graph(), train()), 1, compiled).sample()
    assert counts[1] > 0
    for start in range(12):
        expected = just_law(alpha, start, 3)
        seen = Counter(map(tuple, tokens[tokens[:, 0] == start].tolist()))
        if not expected:
            assert set(seen) == {(start, -1, -1, -1)}
            continue
        assert sum(expected.values()) == pytest.approx(1.0)
        assert set(seen) <= set(expected)
        often = [row for row, p in expected.items() if n * p >= 5]
        observed = np.array([*(seen[row] for row in often), n - sum(seen[row] for row in often)], dtype=float)
        wanted = np.array([*(n * expected[row] for row in often), 0.0])
        wanted[-1] = n - wanted.sum()
        assert stats.chisquare(observed + 1e-9, wanted + 1e-9, sum_check=False).pvalue > 1e-4


def test_jump_and_stay_on_threads_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Just(length=6, per_question=1000)
    typed = walk.prepare(graph(), train())
    whole = walk.sample(typed, 3)
    for threads, compiled in itertools.product(("1", "5"), (False, True)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        assert np.array_equal(Sampler(walk, typed, 3, compiled).sample()[0], whole.tokens)
    streamed = walk.stream(typed, tmp_path / "a", 3, max_memory=2**20)
    assert (streamed.digest, streamed.counts) == (whole.digest, whole.counts)


def test_jump_and_stay_needs_somewhere_to_stay() -> None:
    bare = replace(graph(), parents={}, prerequisites=())
    with pytest.raises(WalkError, match="nowhere to stay and the walk would be qcq"):
        Just().prepare(bare, None)
    with pytest.raises(ChainError, match="no exact chain for just"):
        Just().chain(Just().prepare(graph(), train()))
    # Where only concepts can stay, the walk is first-order: its chain is the definition's first step.
    alone = Just(alpha=0.7, length=2)
    chain = alone.chain(alone.prepare(graph(), None))
    p = (chain.out @ chain.into).toarray()
    sampled = replace(alone, per_question=4000).sample(graph(), 1).tokens
    for x in range(12):
        seen = np.bincount(sampled[(sampled[:, 0] == x) & (sampled[:, 1] >= 0), 1], minlength=12)
        assert (seen[p[x] == 0] == 0).all()
        assert np.abs(seen / max(seen.sum(), 1) - p[x]).max() < 0.04


def test_large_tables_walk_as_small_ones_do() -> None:
    """Where the edges are too many for 32 bits, the tables point with 64."""
    walk = Just(length=6, per_question=50)
    typed = walk.prepare(graph(), train())
    tokens, _ = Sampler(walk, typed, 3, compiled=False).sample()
    tables = walk.tables(typed)
    assert tables.ptr.dtype == np.uint32
    typed.__dict__["_tables"][f"just/{walk.alpha}/tables"] = tables._replace(ptr=tables.ptr.astype(np.uint64))
    assert np.array_equal(Sampler(walk, typed, 3, compiled=False).sample()[0], tokens)


# --- leaks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
def test_other_students_are_refused(part: str) -> None:
    split = data().split()
    theirs = getattr(split, part)
    for offered in (theirs, data(), split, data().interactions):
        for build in (
            lambda x: TypedGraph.of(graph(), x),
            lambda x: Metapath(pattern="q-s-q").prepare(graph(), x),
            lambda x: Just().prepare(graph(), x),
        ):
            with pytest.raises(LeakageError):
                build(offered)
    # One response of theirs slipped under the training part, its list of students left as it is or not.
    mine, r = split.train.interactions, theirs.interactions
    mixed = Interactions(*(np.append(getattr(mine, f), getattr(r, f)[:1]) for f in ("student", "question", "correct")))
    with pytest.raises(LeakageError, match=r"1 students outside the training part .*'s[678]' first"):
        TypedGraph.of(graph(), replace(split.train, interactions=mixed))
    with pytest.raises(LeakageError):
        Session().prepare(graph(), replace(split.train, interactions=mixed))


def test_nothing_hangs_on_other_students() -> None:
    """With other answers, and other questions, of validation and test students: the same graph, bit by bit."""
    r = data().interactions
    theirs = r.student >= 6
    question = np.where(theirs, r.question[::-1], r.question)
    other = Interactions(r.student, question, np.where(theirs, 1 - r.correct, r.correct))
    changed = replace(data(), interactions=other).split().train
    walk = Metapath(pattern="0.3*q-s+-q + 0.3*q-d-q + 0.4*q-q")
    ours, same = walk.prepare(graph(), train()), walk.prepare(graph(), changed)
    assert ours.digest == same.digest
    assert walk.sample(ours, 1).digest == walk.sample(same, 1).digest
    assert Session().sample(ours, 1).digest == Session().sample(same, 1).digest


def test_builders_are_typed_to_take_the_training_part_only() -> None:
    """What a type checker reads: the parameter is TrainPart, and no other part is one."""
    from qcq.data.dataset import TestPart, ValidationPart

    names = {"TrainPart": TrainPart}
    for builder in (TypedGraph.of, Metapath.prepare, Session.prepare, KnowledgeGraph.with_responses):
        hint = get_type_hints(builder, {**vars(inspect.getmodule(builder)), **names})["train"]
        assert hint in (TrainPart, TrainPart | None)
    assert not issubclass(TestPart, TrainPart)
    assert not issubclass(ValidationPart, TrainPart)


# --- sessions -------------------------------------------------------------------------------------------------------


def sequences(part: TrainPart) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for s, q in zip(part.interactions.student.tolist(), part.interactions.question.tolist(), strict=True):
        found[s].append(q)
    return found


@pytest.mark.parametrize(("length", "held_out", "out"), [(1, 0.2, 1), (4, 0.01, 1), (4, 0.5, 3), (25, 0.4, 2)])
def test_sessions_are_the_sequences_cut_in_windows(length: int, held_out: float, out: int) -> None:
    walk = Session(length=length, held_out=held_out)
    typed = walk.prepare(graph(), train())
    parts = [walk.sample(typed, 7), walk.heldout(typed, 7, 1000)]
    found = []
    for corpus in parts:
        rows = [row.tolist() for row in corpus.sentences()]
        assert all(1 <= len(row) <= length for row in rows)
        found.append(rows)
    everybody = sequences(train())
    # Windows come in order, so they are the sequences of whole students, one after the other.
    for rows, n in zip(found, (6 - out, out), strict=True):
        joined = [q for row in rows for q in row]
        who = [s for s, seq in everybody.items() if str(seq)[1:-1] in str(joined)[1:-1]]
        assert len(who) == n
        assert joined == [q for s in who for q in everybody[s]]
    if length == 4:
        assert walk.sample(typed, 8).digest != parts[0].digest
        inner = [row for row in found[0] if len(row) < 4]
        assert len(inner) == parts[0].counts["short_windows"] <= 2 * (6 - out)


def test_sessions_stream_to_the_same_bytes(tmp_path: Path) -> None:
    walk = Session(length=4)
    typed = walk.prepare(graph(), train())
    whole = walk.sample(typed, 2)
    small, large = walk.stream(typed, tmp_path / "a", 2, max_memory=64), walk.stream(typed, tmp_path / "b", 2)
    assert len(small.shards) > 2 > len(large.shards)
    assert small.digest == large.digest == whole.digest
    assert small.counts == large.counts == whole.counts
    assert walk.plan(typed).walks <= whole.n_walks + 20
    assert walk.sample(typed, 2, limit=3).n_walks == 3


def test_tokens_with_answers_become_questions_again() -> None:
    plain, walk = Session(length=5), Session(length=5, responses=True)
    doubled = walk.prepare(graph(), train())
    assert list(doubled.questions) == [f"q{i}{mark}" for mark in "+-" for i in range(12)]
    tokens, same = walk.sample(doubled, 4).tokens, plain.sample(plain.prepare(graph(), train()), 4).tokens
    assert np.array_equal(np.where(tokens >= 0, tokens % 12, -1), same)
    right = Counter(zip(train().interactions.question.tolist(), train().interactions.correct.tolist(), strict=True))
    assert set(tokens[tokens >= 0]) <= {q + 12 * (1 - ok) for q, ok in right}
    vectors = np.arange(72, dtype=np.float32).reshape(24, 3)
    folded = walk.to_questions(graph(), Embeddings(doubled.questions, vectors))
    assert list(folded.ids) == list(graph().questions)
    assert folded["q2"].tolist() == [*vectors[2], *vectors[14]]
    emb = Embeddings(graph().questions, vectors[:12])
    assert plain.to_questions(graph(), emb) is emb


def test_sessions_say_what_they_lack() -> None:
    with pytest.raises(WalkError, match="no responses"):
        Session().prepare(graph(), None)
    unordered = replace(data(), interactions=replace(data().interactions, ordered=False)).split().train
    with pytest.raises(WalkError, match="needs an order"):
        Session().prepare(graph(), unordered)
    with pytest.raises(WalkError, match=r"session.prepare\(graph, split.train\)"):
        Session().sample(graph())
    with pytest.raises(ChainError, match="session: students made"):
        Session().chain(graph())
    for setting in ({"keep_concepts": True}, {"start": "degree"}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            Session(**setting)


# --- what such edges can tell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["q-s-q", "0.6*q-c-q + 0.4*q-s+-q", "0.5*q-q + 0.5*q-c-q"])
def test_netmf_writes_down_the_mixtures_own_walk(pattern: str) -> None:
    walk = Metapath(pattern=pattern)
    typed = walk.prepare(graph(), train())
    p, window = law(pattern), 3
    pi = walk.strength(typed) / walk.strength(typed).sum()
    powers = sum(np.linalg.matrix_power(p, r) for r in range(1, window + 1)) / window
    with np.errstate(divide="ignore", invalid="ignore"):
        k = np.nan_to_num((powers / pi + (powers / pi).T) / 2, posinf=0)
    full = np.log(np.maximum(k, 1))
    chain = replace(walk, start="degree").chain(typed)
    ratio = ChainRatio(chain, window, 1.0)
    some = ratio.rows(slice(0, len(ratio.gain))) / np.outer(ratio.gain, ratio.gain)
    np.testing.assert_allclose(some[np.ix_(chain.classes, chain.classes)], full, atol=1e-6)
    emb = NetMF(dim=12, window=window).fit(TrainingData(typed, walk)).embeddings().vectors
    value, vector = np.linalg.eigh(full)
    np.testing.assert_allclose(emb @ emb.T, vector * np.abs(value) @ vector.T, atol=1e-4)
    with pytest.raises(TrainingError, match="netmf needs the walk's exact chain: no exact chain for session"):
        NetMF().fit(TrainingData(typed, Session()))


def test_inspect_says_what_each_kind_of_edge_would_tell_apart() -> None:
    found = would_add(graph(), WALKS["qcq"](start="degree").chain(graph()), train())
    sets = [tuple(row) for row in (graph().weights != 0).toarray().tolist()]
    r = train().interactions
    rows = list(zip(r.student.tolist(), r.question.tolist(), r.correct.tolist(), strict=True))
    for kind, seen in {
        "prerequisites": lambda q: None,
        "students": lambda q: frozenset(s for s, x, _ in rows if x == q),
        "answers": lambda q: frozenset((s, ok) for s, x, ok in rows if x == q),
    }.items():
        label = [(sets[q], seen(q)) for q in range(12)]
        alone = sum(label.count(one) == 1 for one in label)
        assert found[kind]["distinct_sets"] == len(set(label))
        assert found[kind]["indistinguishable_share"] == pytest.approx(1 - alone / 12)
    assert found["answers"]["indistinguishable_share"] < found["prerequisites"]["indistinguishable_share"]


def test_planted_difficulty_is_carried_by_mixed_walks_only() -> None:
    """Against what concepts can know, on questions that the ridge never saw (their answers did shape the walk)."""
    room = Simulated(questions=300, concepts=12, students=300, responses=60, sets=20, seed=4).read()
    partition = Partition.make(room, hold_out_edges=False)
    walk = Metapath(pattern="0.5*q-c-q + 0.25*q-s+-q + 0.25*q-s--q", per_question=1)
    typed = walk.prepare(partition.graph, partition.split.train)
    p = walk.mixture(typed)
    step = (p.out @ p.into).toarray()
    hard = room.truth["difficulty"]
    known = np.arange(300) % 2 == 0

    def r2(rows: np.ndarray) -> float:
        from sklearn.linear_model import RidgeCV

        x = (rows - rows[known].mean(axis=0)) / np.sqrt((rows[known] ** 2).mean())
        fit = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x[known], hard[known])
        return fit.score(x[~known], hard[~known])

    assert r2(np.sqrt(step)) > r2(partition.graph.weights.toarray()) + 0.2
