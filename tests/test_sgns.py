"""sgns: updates as written down slowly, quality as gensim's, the same bytes at any number of threads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qcq.corpus import Corpus
from qcq.errors import TrainingError
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Source
from qcq.models.sgns import SGNS
from qcq.models.word2vec import SkipGram, shuffled
from qcq.seeds import derive, generator
from qcq.walks import QCQ

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def slow(corpus: Corpus, trainer: SGNS, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One thread of sgns in plain numpy, float64 and exact sigmoids: (inputs, outputs)."""
    from qcq.models.sgns_kernel import SEGMENT, alias_table

    counts = np.bincount(corpus.tokens[corpus.tokens >= 0], minlength=size)
    noise = alias_table(counts**0.75).tolist()
    team, _ = trainer._sizes(counts, min(corpus.length, SEGMENT))
    x = (2 * generator(seed, "sgns", "start").random((size, trainer.dim), dtype=np.float32) - 1) / trainer.dim
    x = x.astype(np.float64)
    y = np.zeros_like(x)
    pieces = -(-corpus.length // SEGMENT)
    n = -(-corpus.n_walks * pieces // team)
    total = trainer.epochs * n
    done = 0
    order = generator(seed, "sgns", "order")

    def draw() -> int:
        nonlocal state
        state = (state + GOLDEN) & MASK
        return mix(state)

    for _ in range(trainer.epochs):
        tokens = next(shuffled(corpus, corpus.n_walks, order))
        for who in range(n):
            state = mix((derive(seed, "sgns") + mix(done * GOLDEN & MASK)) & MASK)
            rate = trainer.lr * (1 - done / total * (1 - 1 / 250))
            done += 1
            members = [divmod(s, pieces) for s in range(who, corpus.n_walks * pieces, n)]
            for offset in range(SEGMENT):
                queues = []
                for w, part in members:
                    walk = tokens[w][tokens[w] >= 0]
                    t = part * SEGMENT + offset
                    if t < len(walk):
                        wide = 1 + ((draw() >> 32) * trainer.window >> 32)
                        near = range(max(0, t - wide), min(len(walk), t + wide + 1))
                        queues.append((walk[t], [walk[s] for s in near if s != t]))
                queues = [(centre, waiting) for centre, waiting in queues if waiting]
                centres = {centre for centre, _ in queues}
                while any(waiting for _, waiting in queues):
                    drawn = []
                    for _ in range(trainer.negatives):
                        r = draw()
                        v = (r >> 32) * size >> 32
                        drawn.append(v if r & 0xFFFFFFFF < noise[v][0] else noise[v][1])
                    rows, times = np.unique([v for v in drawn if v not in centres], return_counts=True)
                    for centre, waiting in queues:
                        if waiting:
                            them = np.concatenate([[centre], rows]).astype(int)
                            before = x[(z := waiting.pop(0))].copy()
                            gain = -rate * np.concatenate([[1], times]) / (1 + np.exp(-y[them] @ before))
                            gain[0] += rate
                            x[z] += gain @ y[them]
                            y[them] += np.outer(gain, before)
    return x, y


def loose(n: int, tokens: np.ndarray) -> Source:
    graph = KnowledgeGraph([str(i) for i in range(n)], ["c"], sparse.csr_array(np.ones((n, 1))))
    return Source(graph, given=Corpus([tokens.astype(np.int32)], n, 1, graph.digest))


@pytest.mark.parametrize(("negatives", "team"), [(2, 1), (5, 1), (5, 3), (8, 2)])  # few, as many and more than a loop
def test_the_kernel_is_the_slow_one(negatives, team, monkeypatch):
    monkeypatch.setattr(SGNS, "_sizes", lambda *_: (team, 0))
    rng = np.random.default_rng(negatives)
    tokens = rng.integers(0, 40, (6, 150))  # three segments a walk
    tokens[2, 70:] = -1
    tokens[3, 1:] = -1
    tokens[4, :] = -1
    source = loose(40, tokens)
    trainer = SGNS(dim=64, window=3, negatives=negatives, epochs=2, lr=0.5, deterministic=False, threads=1)
    model = trainer.fit(source, 5)
    x, y = slow(source.corpus, trainer, 5, 40)
    assert np.abs(y).max() > 0.5
    np.testing.assert_allclose(model.inputs, x, atol=2e-2 * np.abs(x).max())
    np.testing.assert_allclose(model.outputs, y, atol=2e-2 * np.abs(y).max())


def test_the_deterministic_mode_makes_the_same_updates():
    """With one segment at a time there is nothing stale, so copying rows there and back changes only rounding."""
    tokens = np.random.default_rng(0).integers(0, 12, (40, 20))  # so few tokens that the batch is one segment
    source = loose(12, tokens)
    fast, safe = (
        SGNS(dim=64, lr=0.5, deterministic=deterministic, threads=1).fit(source, 0) for deterministic in (False, True)
    )
    for one, two in ((fast.inputs, safe.inputs), (fast.outputs, safe.outputs)):
        np.testing.assert_allclose(one, two, atol=1e-2 * np.abs(one).max())  # the sigmoid's table has steps


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


def test_how_the_corpus_is_sharded_changes_nothing():
    tokens = np.random.default_rng(0).integers(0, 500, (90, 30)).astype(np.int32)
    whole = loose(500, tokens)
    parts = Source(whole.graph, given=Corpus([tokens[:50], tokens[50:]], 500, 1, whole.graph.digest))
    one, two = (SGNS(dim=64).fit(source, 0).inputs for source in (whole, parts))
    assert np.array_equal(one, two)


def test_small_components_need_their_walks_apart():
    """Walks of one small component standing together in the corpus must not push it too far at once."""
    block = np.repeat(np.arange(100), 10)  # 1,000 questions in components of ten, walks in their order
    rng = np.random.default_rng(0)
    tokens = (block[:, None] * 10 + rng.integers(0, 10, (1_000, 30))).repeat(4, axis=0)
    source = loose(1_000, tokens)
    model = SGNS(dim=64, lr=0.1, epochs=2).fit(source, 0)
    paper = model.objective.probe(source.corpus, 0)
    assert model.losses(paper).mean() < 0.7 * np.log(2) * 6
    unit = model.embeddings().unit
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    best = np.argsort(-near, axis=1)[:, :5]
    assert (best // 10 == np.arange(1_000)[:, None] // 10).mean() > 0.95


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_alias_table_is_the_distribution(seed, n):
    from qcq.models.sgns_kernel import alias_table

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
    emb = TRAINERS["sgns"](dim=64).fit(Source(graph, QCQ(length=5, keep_concepts=True))).embeddings()
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


LOSS_MARGIN = 0.01  # nats a pair; gensim's seeds lie 0.001 apart
NEAR_MARGIN = 0.02  # share of neighbours; seeds lie 0.003 apart


@pytest.mark.parametrize(("reader", "folder"), [("s2kt", "s2kt_assist09"), ("pebg", "pebg_ednet")])
def test_no_worse_than_gensim_on_real_data(reader, folder):
    from qcq.data import load

    path = Path(os.environ.get("QCQ_DATA", "")) / folder
    if not os.environ.get("QCQ_DATA") or not path.is_dir():
        pytest.skip(f"no {folder} under $QCQ_DATA")
    source = Source(KnowledgeGraph.from_dataset(load(f"{reader}:{path}")), QCQ(per_question=2))
    gensim = SkipGram(dim=64, lr=0.1, workers=2).fit(source, 0)
    ours = SGNS(dim=64, lr=0.1).fit(source, 0)
    paper = gensim.objective.probe(source.heldout, 0)
    assert ours.losses(paper).mean() < gensim.losses(paper).mean() + LOSS_MARGIN
    assert near(ours.embeddings().vectors, source.graph) > near(gensim.embeddings().vectors, source.graph) - NEAR_MARGIN
