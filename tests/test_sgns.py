"""sgns: updates as written down slowly, quality as gensim's, the same bytes at any number of threads."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qcq.corpus import Corpus
from qcq.errors import ChainError, ConfigError, TrainingError
from qcq.floors import objectives
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData, sgns_parts
from qcq.models.kernels import sgns as sgns_kernel
from qcq.models.sgns import SGNS
from qcq.models.word2vec import SkipGram, shuffled
from qcq.support.seeds import derive, generator
from qcq.walks import QCQ

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def slow(corpus: Corpus, trainer: SGNS, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One thread of sgns in plain numpy, float64 and exact sigmoids: (inputs, outputs)."""
    from qcq.models.kernels.sgns import SEGMENT, alias_table
    from qcq.models.kernels.sgns_step import MOST

    w = trainer.window
    counts = np.bincount(corpus.tokens[corpus.tokens >= 0], minlength=size)
    noise = alias_table(counts**0.75).tolist()
    team, _ = trainer._sizes(counts, min(corpus.length, SEGMENT))
    start = derive(seed, "sgns", "start")
    drawn = [mix(start + i * GOLDEN & MASK) >> 32 for i in range(size * trainer.dim)]
    x = (np.array(drawn).reshape(size, trainer.dim) / 2**31 - 1) / trainer.dim
    y = np.zeros((2 * w if trainer.ordered else 1, size, trainer.dim))
    pieces = -(-corpus.length // SEGMENT)
    n = -(-corpus.n_walks * pieces // team)
    total = trainer.epochs * n
    done = 0
    order = generator(seed, "sgns", "order")
    share = -(-trainer.negatives // -(-trainer.negatives // MOST))

    def queue(walk: np.ndarray, begin: int, reach) -> Iterator[tuple[int, int, int]]:
        """(input, output, which table) of one member's pairs, in order."""
        for t in range(begin, min(begin + SEGMENT, len(walk))):
            wide = 1 + (next(reach) * w >> 32)
            for s in range(max(0, t - wide), min(len(walk), t + wide + 1)):
                if s != t:
                    yield walk[s], walk[t], (s - t + w - (s > t)) if trainer.ordered else 0

    def draws(state: int) -> Iterator[int]:
        while True:
            state = (state + GOLDEN) & MASK
            yield mix(state)

    def token(r: int) -> int:
        v = (r >> 32) * size >> 32
        return v if r & 0xFFFFFFFF < noise[v][0] else noise[v][1]

    for _ in range(trainer.epochs):
        tokens = next(shuffled(corpus, corpus.n_walks, order))
        for who in range(n):
            state = mix((derive(seed, "sgns") + mix(done * GOLDEN & MASK)) & MASK)
            reach, strangers = (r >> 32 for r in draws(state)), draws(mix(state + GOLDEN & MASK))
            rate = trainer.lr * (1 - done / total * (1 - 1 / 250))
            done += 1
            members = [divmod(s, pieces) for s in range(who, corpus.n_walks * pieces, n)]
            queues = [queue(tokens[m][tokens[m] >= 0], part * SEGMENT, reach) for m, part in members]
            while pairs := [pair for pair in (next(q, None) for q in queues) if pair]:
                round_ = [token(next(strangers)) for _ in range(trainer.negatives)]
                kept = [v if v not in {c for _, c, _ in pairs} else -1 for v in round_]
                while pairs:
                    two = len(pairs) > 1 and pairs[0][0] != pairs[1][0] and pairs[0][1] != pairs[1][1]
                    now, pairs = pairs[: 1 + two], pairs[1 + two :]
                    for part in range(0, trainer.negatives, share):
                        # a token counts as often as it was drawn, all at its first place
                        rows = [v for i, v in enumerate(kept) if v >= 0 and v not in kept[:i]]
                        rows = [v for v in rows if part <= kept.index(v) < part + share]
                        before, table = [x[a].copy() for a, _, _ in now], y[now[0][2]]
                        old = table[rows]
                        for (a, c, _), z in zip(now, before, strict=True):
                            if part == 0:
                                gain = rate / (1 + np.exp(table[c] @ z))
                                x[a] += gain * table[c]
                                table[c] += gain * z
                            times = np.array([kept.count(v) for v in rows])
                            gains = rate * times / (1 + np.exp(-old @ z))
                            x[a] -= gains @ old
                            table[rows] -= np.outer(gains, z)
    return x, y.reshape(-1, trainer.dim)


def loose(n: int, tokens: np.ndarray) -> TrainingData:
    graph = KnowledgeGraph([str(i) for i in range(n)], ["c"], sparse.csr_array(np.ones((n, 1))))
    return TrainingData(graph, sampled=Corpus([tokens.astype(np.int32)], n, 1, graph.digest))


@pytest.mark.parametrize(
    ("negatives", "team", "ordered"),
    [  # few, as many and more than a step's
        (2, 1, False),
        (5, 1, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((5, 1, False), (5, 3, False), (8, 2, False))),
    ],
)
def test_the_kernel_is_the_slow_one(negatives, team, ordered, monkeypatch):
    monkeypatch.setattr(SGNS, "_sizes", lambda *_: (team, 0))
    rng = np.random.default_rng(negatives)
    tokens = rng.integers(0, 40, (6, 150))  # three segments a walk
    tokens[2, 70:] = -1
    tokens[3, 1:] = -1
    tokens[4, :] = -1
    source = loose(40, tokens)
    trainer = SGNS(
        dim=32, window=3, negatives=negatives, epochs=2, lr=0.5, ordered=ordered, deterministic=False, threads=1
    )
    model = trainer.fit(source, 5)
    x, y = slow(source.corpus, trainer, 5, 40)
    assert np.abs(y).max() > 0.5
    np.testing.assert_allclose(model.inputs, x, atol=1e-4 * np.abs(x).max())
    np.testing.assert_allclose(model.outputs, y, atol=1e-4 * np.abs(y).max())


def test_the_kernel_takes_addresses_of_its_arguments_only():
    """An array made inside compiled code is freed at its last use by name, whatever its address is still used for."""
    tree = ast.parse(Path(sgns_kernel.__file__).read_text())
    loops = {"train", "add", "rounds"}
    compiled = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in loops]
    given = {argument.arg for function in compiled for argument in function.args.args}
    owners = [node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "ctypes"]
    assert set(owners) - {"table", "by"} <= given  # the two are names for arguments in ``add``
    assert len(owners) >= 6


def test_the_deterministic_mode_makes_the_same_updates():
    """With one segment at a time there is nothing stale, so copying rows there and back changes only rounding."""
    tokens = np.random.default_rng(0).integers(0, 12, (40, 20))  # so few tokens that the batch is one segment
    source = loose(12, tokens)
    fast, safe = (
        SGNS(dim=64, lr=0.5, deterministic=deterministic, threads=1).fit(source, 0) for deterministic in (False, True)
    )
    for one, two in ((fast.inputs, safe.inputs), (fast.outputs, safe.outputs)):
        np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(one).max())


def test_order_is_learnt_where_there_is_one():
    """Each walk counts upwards, so the token behind is another one than the token before: only the ordered knows."""
    begins = np.random.default_rng(0).integers(0, 30, 400)
    source = loose(30, (begins[:, None] + np.arange(20)) % 30)
    trainers = [SGNS(dim=32, window=2, epochs=5, lr=0.1, ordered=ordered) for ordered in (False, True)]
    bare, ordered = (trainer.fit(source, 0) for trainer in trainers)
    paper, same = bare.objective.held_out_batch(source.corpus, 0), ordered.objective.held_out_batch(source.corpus, 0)
    assert np.array_equal(paper.pairs, same.pairs)
    assert ordered.losses(same).mean() < bare.losses(paper).mean() - 0.3
    with pytest.raises(ChainError, match="no floor"):
        ordered.objective.floor(source.chain, same)


def test_a_paper_tells_how_far_apart_tokens_stand():
    walks = np.array([[5, 6, 7, 8], [1, 2, -1, -1]])
    paper = objectives.SkipGram(window=2, negative=1, ordered=True).held_out_batch(loose(9, walks).corpus)
    assert np.array_equal(paper.pairs[:, 0] - paper.pairs[:, 1], paper.apart)


def test_any_number_of_threads_gives_the_same_bytes():
    tokens = np.random.default_rng(0).integers(0, 3_000, (500, 30))
    tokens[::7, 20:] = -1
    source = loose(3_000, tokens)
    one = SGNS(dim=64, threads=1).fit(source, 0)
    for threads in (2, 3, 0):
        more = SGNS(dim=64, threads=threads).fit(source, 0)
        assert np.array_equal(one.inputs, more.inputs)
        assert np.array_equal(one.outputs, more.outputs)
    assert not np.array_equal(one.inputs, SGNS(dim=64, threads=1).fit(source, 1).inputs)


def test_a_thread_that_never_starts_is_not_waited_for(monkeypatch):
    """An interrupt may come between two starts: the threads that work don't wait for the others, and it is raised."""

    class Interrupted(ThreadPoolExecutor):
        def map(self, work, lanes):
            if "trained" not in repr(work):
                return super().map(work, lanes)
            self.submit(work, 0)
            raise KeyboardInterrupt

    monkeypatch.setattr(sgns_parts, "ThreadPoolExecutor", Interrupted)
    source = loose(3_000, np.random.default_rng(0).integers(0, 3_000, (500, 30)))
    with pytest.raises(KeyboardInterrupt):  # and not for ever in the pool's end, which joins its threads
        SGNS(dim=64, threads=2).fit(source, 0)


def test_how_the_corpus_is_sharded_changes_nothing():
    tokens = np.random.default_rng(0).integers(0, 500, (90, 30)).astype(np.int32)
    whole = loose(500, tokens)
    parts = TrainingData(whole.graph, sampled=Corpus([tokens[:50], tokens[50:]], 500, 1, whole.graph.digest))
    one, two = (SGNS(dim=64).fit(source, 0).inputs for source in (whole, parts))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_same_parts_give_the_same_bytes_however_they_are_trained(deterministic):
    tokens = np.random.default_rng(0).integers(0, 3_000, (503, 30)).astype(np.int32)
    source = loose(3_000, tokens)
    sharded = TrainingData(source.graph, sampled=Corpus(np.split(tokens, [50, 51, 309]), 3_000, 1, source.graph.digest))
    how = {"dim": 32, "parts": 3, "period": 2_000, "epochs": 2, "deterministic": deterministic}
    one = SGNS(threads=1, **how).fit(source, 0)
    for threads, other in [(1, sharded), *([(2, source), (3, sharded)] if deterministic else [])]:
        more = SGNS(threads=threads, **how).fit(other, 0)
        assert np.array_equal(one.inputs, more.inputs)
        assert np.array_equal(one.outputs, more.outputs)
    assert one.tokens == 2 * tokens.size
    for change in ({"parts": 2}, {"period": 4_000}):
        assert not np.array_equal(one.inputs, SGNS(threads=1, **{**how, **change}).fit(source, 0).inputs)


@pytest.mark.parametrize("cuts", [[], [1], [4, 5, 17]])
def test_every_walk_is_in_one_part(cuts):
    from qcq.models.sgns_parts import divided

    tokens = np.arange(20 * 3, dtype=np.int32).reshape(20, 3)
    parts = divided(Corpus(np.split(tokens, cuts), 60, 0, ""), 3)
    for i, part in enumerate(parts):
        assert np.array_equal(part.tokens, tokens[i::3])
    with pytest.raises(ConfigError, match="30 parts of 20 walks"):
        divided(Corpus([tokens], 60, 0, ""), 30)


@given(st.floats(0, 1e7), st.floats(1e-4, 1), st.integers(2, 9))
def test_merged_changes_bring_a_row_as_far_as_one_part_after_the_other(updates, rate, parts):
    """A row at 1 whose goal is 0: each part multiplies it by r, one after the other by r^parts."""
    from qcq.models.sgns_parts import _CURVATURE, shares

    r = np.exp(-_CURVATURE * rate * updates)
    (share,) = shares(np.array([updates]), rate, parts)
    assert 1 / parts - 1e-12 <= share <= 1
    assert 1 + parts * share * (r - 1) == pytest.approx(r**parts, abs=1e-6)


def test_two_parts_learn_as_much_as_one():
    from qcq.data import Simulated
    from qcq.floors.losses import HeldOutLoss

    graph = KnowledgeGraph.from_dataset(Simulated(questions=500, concepts=20, students=10).read())
    source = TrainingData(graph, QCQ())
    whole, *parted = (SGNS(dim=32, epochs=2, parts=n, period=8_192).fit(source, 0) for n in (1, 2))
    paper = HeldOutLoss(source, whole.objective.held_out_batch(source.heldout, 0))
    excess = [paper.report(model.losses(paper.batch), ()).excess for model in (whole, *parted)]
    assert excess[1] < excess[0] + 0.02
    assert parted[0].tokens == whole.tokens


def test_small_components_need_their_walks_apart():
    """Walks of one small component standing together in the corpus must not push it too far at once."""
    block = np.repeat(np.arange(100), 10)  # 1,000 questions in components of ten, walks in their order
    rng = np.random.default_rng(0)
    tokens = (block[:, None] * 10 + rng.integers(0, 10, (1_000, 30))).repeat(4, axis=0)
    source = loose(1_000, tokens)
    model = SGNS(dim=64, lr=0.1, epochs=2).fit(source, 0)
    paper = model.objective.held_out_batch(source.corpus, 0)
    assert model.losses(paper).mean() < 0.7 * np.log(2) * 6
    unit = model.embeddings().unit
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    best = np.argsort(-near, axis=1)[:, :5]
    assert (best // 10 == np.arange(1_000)[:, None] // 10).mean() > 0.95


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_alias_table_is_the_distribution(seed, n):
    from qcq.models.kernels.sgns import alias_table

    weight = np.random.default_rng(seed).random(n) ** 3
    weight[1:][np.random.default_rng(seed + 1).random(n - 1) < 0.2] = 0
    table = alias_table(weight)
    keep = table[:, 0] / 2**32
    share = keep / n + np.bincount(table[:, 1], weights=(1 - keep) / n, minlength=n)
    np.testing.assert_allclose(share, weight / weight.sum(), atol=1e-8)
    assert not table[weight == 0, 0].any()  # not even a random number of zero draws it


def test_nothing_to_learn_and_divergence_are_errors():
    with pytest.raises(TrainingError, match="no walk has two tokens"):
        SGNS().fit(loose(5, np.array([[1], [2]])))
    with pytest.raises(TrainingError, match="diverged"):
        SGNS(dim=64, lr=1e30).fit(loose(5, np.tile([0, 1, 2, 3, 4], (50, 8))))


def test_concept_tokens_get_vectors():
    graph = KnowledgeGraph.from_edges([(f"q{i}", f"c{i % 3}") for i in range(30)])
    emb = TRAINERS["sgns"](dim=64).fit(TrainingData(graph, QCQ(length=5, keep_concepts=True))).embeddings()
    assert emb.concept_vectors.shape == (3, 64)


def test_progress_reaches_the_end():
    seen = []
    SGNS(dim=64, epochs=2).fit(
        loose(9, np.tile(np.arange(9), (20, 1))), 0, lambda done, total: seen.append((done, total))
    )
    assert seen[-1][0] == seen[-1][1]


def near(vectors: np.ndarray, graph: KnowledgeGraph) -> float:
    """Share of the ten nearest that have a concept in common with the question, over 500 questions."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    some = np.random.default_rng(0).choice(len(unit), 500, replace=False)
    similar = unit[some] @ unit.T
    similar[np.arange(500), some] = -2
    best = np.argpartition(-similar, 10, axis=1)[:, :10]
    return float(np.take_along_axis((graph.weights[some] @ graph.weights.T).toarray() > 0, best, axis=1).mean())


# How far sgns may lie from gensim. The seeds of either lie up to 0.002, 0.003 and 0.02 apart.
MARGIN = {"loss": 0.02, "near": 0.02, "edges": 0.04}


@pytest.mark.parametrize(("reader", "folder"), [("s2kt", "s2kt_assist09"), ("pebg", "pebg_ednet")])
def test_equals_gensim_on_real_data(reader, folder):
    from qcq.data import load
    from qcq.evaluation import TASKS, Partition

    path = Path(os.environ.get("QCQ_DATA", "")) / folder
    if not os.environ.get("QCQ_DATA") or not path.is_dir():
        pytest.skip(f"no {folder} under $QCQ_DATA")
    if why := SkipGram.missing():
        pytest.skip(why)
    partition = Partition.make(load(f"{reader}:{path}"), 0)
    source = TrainingData(partition.graph, sampled=QCQ().sample(partition.graph, 0, limit=24_000))
    gensim = SkipGram(dim=32, lr=0.1, workers=1).fit(source, 0)  # several threads race, and seldom lie far apart
    paper, edges = gensim.objective.held_out_batch(source.heldout, 0), TASKS["edges"](partition)

    def figures(model) -> dict[str, float]:
        emb = model.embeddings()
        mrr = edges.score(emb).metrics["mrr"]
        return {"loss": model.losses(paper).mean(), "near": near(emb.vectors, partition.graph), "edges": mrr}

    theirs = figures(gensim)
    for deterministic in (True, False):
        ours = figures(SGNS(dim=32, lr=0.1, deterministic=deterministic).fit(source, 0))
        far = {name: abs(ours[name] - theirs[name]) for name in MARGIN}
        assert all(far[name] < MARGIN[name] for name in MARGIN), (ours, theirs)
