"""The look-up family: gensim's trainers on integers, and the closed forms against dense oracles."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qcq.corpus import Corpus
from qcq.errors import ConfigError, TrainingError, UnknownNameError
from qcq.floors.objectives import HeldOutBatch, Masked
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData, factorization
from qcq.models.factorization import PPMISVD, LogRatio, NetMF, Quotient, _top
from qcq.models.word2vec import CBOW, FastText, SkipGram, token_counts
from qcq.walks import QCQ

needs_gensim = pytest.mark.skipif(bool(SkipGram.missing()), reason=SkipGram.missing())


@pytest.fixture(scope="module")
def blocks() -> KnowledgeGraph:
    """Four concepts of 20 questions each, chained by one shared question, and one question of no concept."""
    edges = [(f"q{20 * c + i}", f"c{c}") for c in range(4) for i in range(20)]
    edges += [(f"q{20 * c}", f"c{c - 1}") for c in range(1, 4)]
    graph = KnowledgeGraph.from_edges(edges)
    weights = graph.weights.copy()
    weights.resize((81, 4))
    return KnowledgeGraph((*graph.questions, "lonely"), graph.concepts, weights)


@pytest.fixture(scope="module")
def source(blocks: KnowledgeGraph) -> TrainingData:
    return walks(blocks, 20, 20)


def walks(graph: KnowledgeGraph, length: int, per_question: int, keep: bool = False) -> TrainingData:
    """q-c-q walks by the book, so that a failure here is never the walk engine's."""
    rng = np.random.default_rng(0)
    concepts = np.split(graph.weights.indices, graph.weights.indptr[1:-1])
    questions = np.split(graph.by_concept.indices, graph.by_concept.indptr[1:-1])
    rows = []
    for q in list(range(graph.n_questions)) * per_question:
        row = [q]
        while len(row) < length and len(concepts[q]):
            c = concepts[q][rng.integers(len(concepts[q]))]
            q = questions[c][rng.integers(len(questions[c]))]
            row += [graph.n_questions + c, q] if keep else [q]
        rows.append(row + [-1] * (length + keep - len(row)))
    return TrainingData(graph, sampled=corpus_of(np.array(rows), graph))


def corpus_of(rows: np.ndarray, graph: KnowledgeGraph) -> Corpus:
    return Corpus([rows.astype(np.int32)], graph.n_questions, graph.n_concepts, graph.digest)


def same_block(vectors: np.ndarray) -> float:
    """Share of the five nearest that stand in the question's own block of twenty; chance is 0.24."""
    unit = vectors[:80] / np.linalg.norm(vectors[:80], axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    best = np.argsort(-near, axis=1)[:, :5]
    return float((best // 20 == np.arange(80)[:, None] // 20).mean())


def some_pairs(size: int, n: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, size, (n, 5)).astype(np.int32)
    pairs[::3, 3] = -1  # a skipped negative
    return pairs


GENSIM = [
    SkipGram(dim=16, epochs=3),
    SkipGram(dim=16, epochs=3, hierarchical=True),
    CBOW(dim=16, epochs=20),
    FastText(dim=16, epochs=3),
]


@pytest.mark.parametrize("trainer", GENSIM, ids=repr)
@needs_gensim
def test_gensim_finds_the_planted_blocks(trainer, source):
    model = trainer.fit(source, 0)
    assert same_block(model.embeddings().vectors) > 0.9
    assert model.tokens == trainer.epochs * source.corpus.n_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["skipgram", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cbow", "fasttext"))]
)
@needs_gensim
def test_same_seed_same_vectors_in_another_process(name):
    code = (
        "import hashlib, numpy as np\n"
        "from qcq.corpus import Corpus\n"
        "from qcq.graph import KnowledgeGraph\n"
        "from qcq.models import TRAINERS, TrainingData\n"
        "g = KnowledgeGraph.from_edges([(f'q{i}', f'c{i % 3}') for i in range(30)])\n"
        "rows = np.random.default_rng(0).integers(0, 30, (100, 10)).astype(np.int32)\n"
        f"m = TRAINERS[{name!r}](dim=8).fit(TrainingData(g, sampled=Corpus([rows], 30, 3, g.digest)), 3)\n"
        "print(hashlib.sha256(m.embeddings().vectors.tobytes()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(digests) == 1


@needs_gensim
def test_another_seed_gives_other_vectors(source):
    one, two = (SkipGram(dim=8).fit(source, seed).embeddings().vectors for seed in (0, 1))
    assert not np.array_equal(one, two)


@needs_gensim
def test_a_question_that_was_never_paired_reads_as_zero(source, blocks):
    emb = SkipGram(dim=8).fit(source, 0).embeddings()
    assert not emb["lonely"].any()
    assert np.abs(emb.vectors[:80]).max(axis=1).min() > 0


@needs_gensim
def test_concept_vectors_come_with_concept_tokens(blocks):
    kept = SkipGram(dim=8).fit(walks(blocks, 5, 2, keep=True), 0).embeddings()
    bare = SkipGram(dim=8).fit(walks(blocks, 5, 2), 0).embeddings()
    assert kept.concept_vectors.shape == (4, 8)
    assert bare.concept_vectors is None


@needs_gensim
def test_tokens_beyond_gensims_cut_are_learnt(blocks):
    rng = np.random.default_rng(0)
    walk = np.concatenate([rng.integers(0, 40, 10_000), rng.integers(40, 80, 3_000)])
    model = SkipGram(dim=8).fit(TrainingData(blocks, sampled=corpus_of(walk[None], blocks)), 0)
    assert model.tokens == 13_000
    assert np.abs(model.outputs[:80]).max(axis=1).min() > 0  # output rows start at zero


@needs_gensim
def test_ragged_walks_and_empty_ones(blocks):
    rows = np.full((200, 6), -1)
    rng = np.random.default_rng(0)
    for row in rows:
        row[: rng.integers(0, 7)] = 0
    rows[rows == 0] = rng.integers(0, 80, (rows == 0).sum())
    corpus = corpus_of(rows, blocks)
    counts, paired = token_counts(corpus)
    assert counts.sum() == corpus.n_tokens
    assert len(counts) == 81  # no concept tokens, so no concepts in the vocabulary
    lone = (rows >= 0).sum(axis=1) == 1
    assert set(np.flatnonzero(paired)) == set(rows[~lone][rows[~lone] >= 0])
    assert SkipGram(dim=4).fit(TrainingData(blocks, sampled=corpus), 0).tokens == corpus.n_tokens


@needs_gensim
def test_nothing_to_learn_from_is_an_error(blocks):
    with pytest.raises(TrainingError, match="no walk has two tokens"):
        SkipGram().fit(TrainingData(blocks, sampled=corpus_of(np.array([[3], [4]]), blocks)), 0)


@needs_gensim
def test_losses_are_the_formula(source):
    model = SkipGram(dim=8).fit(source, 0)
    pairs = some_pairs(80)
    batch = HeldOutBatch(Masked(), source.corpus.tokens, np.arange(len(pairs)), pairs=pairs)
    expected = []
    for x, y, *noise in pairs:
        loss = np.log1p(np.exp(-float(model.inputs[x] @ model.outputs[y])))
        loss += sum(np.log1p(np.exp(float(model.inputs[x] @ model.outputs[n]))) for n in noise if n >= 0)
        expected.append(loss)
    np.testing.assert_allclose(model.losses(batch), expected, rtol=1e-6)


@needs_gensim
def test_hierarchical_softmax_has_no_pair_loss(source):
    model = SkipGram(dim=8, hierarchical=True).fit(source, 0)
    with pytest.raises(ConfigError, match="no held-out loss"):
        model.losses(HeldOutBatch(Masked(), source.corpus.tokens, np.arange(1), pairs=some_pairs(80, 1)))


@needs_gensim
def test_progress_reaches_the_end_and_its_errors_reach_the_caller(source):
    seen = []
    SkipGram(dim=4, epochs=2).fit(source, 0, lambda done, total, **_: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == 2 * source.corpus.n_tokens

    class Stop(Exception):
        pass

    def stop(done, total, **figures):
        raise Stop

    with pytest.raises(Stop):
        SkipGram(dim=4, epochs=2).fit(source, 0, stop)


@needs_gensim
def test_silence(source, capfd):
    SkipGram(dim=4, workers=2).fit(source, 0)
    FastText(dim=4).fit(source, 0)
    assert capfd.readouterr() == ("", "")


@needs_gensim
def test_fasttext_composes_a_question_from_its_concepts(blocks):
    rows = walks(blocks, 10, 5).corpus.tokens
    rows = np.where(rows == 7, 8, rows)  # question 7 is never reached
    model = FastText(dim=8).fit(TrainingData(blocks, sampled=corpus_of(rows, blocks)), 0)
    emb = model.embeddings()
    np.testing.assert_allclose(emb.vectors[7], emb.concept_vectors[0], rtol=1e-6)
    np.testing.assert_allclose(model.unseen(["c0", "c2"]), emb.concept_vectors[[0, 2]].mean(axis=0), rtol=1e-6)
    assert not emb["lonely"].any()
    with pytest.raises(UnknownNameError, match="c9"):
        model.unseen(["c9"])
    with pytest.raises(TrainingError, match="at least one concept"):
        model.unseen([])


def test_registered():
    assert {"skipgram", "cbow", "fasttext", "sgns", "netmf", "glove", "ppmi-svd", "spectral", "concept-mean"} <= set(
        TRAINERS
    )


@needs_gensim
def test_skip_grams_objective_is_scored_on_its_own_paper(source):
    model = SkipGram(dim=16, epochs=3, window=3, negatives=2).fit(source, 0)
    assert (model.objective.window, model.objective.negative) == (3, 2)
    batch = model.objective.held_out_batch(source.corpus, 1)
    knowing_nothing = np.log(2) * (batch.pairs[:, 1:] >= 0).sum(axis=1)
    assert model.losses(batch).mean() < knowing_nothing.mean()


# --- closed forms ---------------------------------------------------------------------------------------------------


def weighted_graph(rng: np.random.Generator, n_questions: int = 60, n_concepts: int = 9) -> KnowledgeGraph:
    """Questions that share few distinct rows of weights, and one without any."""
    kinds = rng.integers(0, 4, (12, n_concepts)) * (rng.random((12, n_concepts)) < 0.4) * 0.5
    w = kinds[rng.integers(0, 12, n_questions)]
    w[-1] = 0
    names = [f"q{i}" for i in range(n_questions)]
    return KnowledgeGraph(names, [f"c{j}" for j in range(n_concepts)], sparse.csr_array(w))


def dense_netmf(graph: KnowledgeGraph, window: int, negatives: float, keep: bool) -> np.ndarray:
    """Qiu et al. 2018, eq. 7, written down on all questions (and concepts)."""
    w = graph.weights.toarray()

    def inverse(d):
        return np.diag(np.where(d > 0, 1 / np.where(d > 0, d, 1), 0))

    if keep:
        a = np.block([[np.zeros((len(w), len(w))), w], [w.T, np.zeros((w.shape[1], w.shape[1]))]])
        degree = a.sum(axis=1)
        step = inverse(degree) @ a
    else:
        degree = w.sum(axis=1)
        step = inverse(degree) @ w @ inverse(w.sum(axis=0)) @ w.T
    powers = sum(np.linalg.matrix_power(step, r) for r in range(1, window + 1))
    k = degree.sum() / (negatives * window) * powers @ inverse(degree)
    return np.log(np.maximum(k, 1))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("window", "negatives"), [(1, 1.0), (4, 1.0), (5, 2.0)])
def test_netmf_on_the_quotient_is_netmf_on_the_full_graph(keep, window, negatives):
    for seed in range(5):
        graph = weighted_graph(np.random.default_rng(seed))
        full = dense_netmf(graph, window, negatives, keep)
        u, s, _ = np.linalg.svd(full)
        s = np.where(s > 1e-9 * s[0], s, 0)  # (nodes,)
        rank = next(r for r in range(3, len(s)) if s[r - 1] - s[r] > 1e-6 * s[0] or s[r] == 0)  # no tie at the cut
        x = u[:, :rank] * np.sqrt(s[:rank])
        source = TrainingData(graph, QCQ(keep_concepts=keep))
        emb = NetMF(dim=rank, window=window, negatives=negatives).fit(source).embeddings()
        ours = np.vstack([emb.vectors, emb.concept_vectors]) if keep else emb.vectors
        np.testing.assert_allclose(ours @ ours.T, x @ x.T, atol=1e-5 * s[0])  # vectors are float32
        assert (emb.concept_vectors is not None) == keep


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 6))
def test_the_log_ratio_matrix_is_exact(seed, keep, window):
    graph = weighted_graph(np.random.default_rng(seed))
    if graph.n_edges == 0:
        return
    quotient = Quotient(graph)
    ratio = LogRatio(quotient, window, 1.0, keep)
    nodes = np.concatenate([quotient.label, len(quotient.sizes) + np.arange(graph.n_concepts if keep else 0)])
    merged = ratio.rows(slice(0, len(ratio.gain))) / np.outer(ratio.gain, ratio.gain)
    np.testing.assert_allclose(merged[np.ix_(nodes, nodes)], dense_netmf(graph, window, 1.0, keep), atol=1e-10)


def test_netmf_by_blocks_is_the_dense_one(monkeypatch):
    rng = np.random.default_rng(1)
    inside = np.arange(400)[:, None] % 6 == np.arange(30) % 6  # six groups, so six leading directions
    w = (rng.random((400, 30)) < np.where(inside, 0.7, 0.01)) * (rng.random((400, 30)) + 0.5)
    graph = KnowledgeGraph([str(i) for i in range(400)], [str(j) for j in range(30)], sparse.csr_array(w))
    dense = NetMF(dim=6, window=3).fit(TrainingData(graph)).embeddings().vectors
    monkeypatch.setattr(factorization, "_DENSE", 100)
    monkeypatch.setattr(factorization, "_BLOCK", 64)
    monkeypatch.setattr(LogRatio, "rows", watched := Watched(LogRatio.rows))
    seen = []
    blocked = NetMF(dim=6, window=3).fit(TrainingData(graph), 0, lambda done, total, **_: seen.append((done, total)))
    vectors = blocked.embeddings().vectors
    assert max(watched.sizes) == 64
    assert seen[-1][0] == seen[-1][1]
    exact = np.linalg.norm(dense @ dense.T)
    assert np.linalg.norm(vectors @ vectors.T - dense @ dense.T) < 1e-4 * exact


class Watched:
    """A method that remembers how many rows it was asked for."""

    def __init__(self, method):
        self.method, self.sizes = method, []

    def __get__(self, owner, kind=None):
        def call(at):
            self.sizes.append(at.stop - at.start)
            return self.method(owner, at)

        return call


def test_repeated_eigenvalues_are_all_found():
    """Forty equal blocks, joined weakly to one node: Lanczos alone may return a repeated eigenvalue once."""
    block = np.random.default_rng(0).random((15, 15))
    a = np.kron(np.eye(40), block + block.T)
    a[0::15, 0] += 1e-3
    a[0, 0::15] += 1e-3
    a = (a + a.T) / 2
    value, vector = _top(a, 50)
    exact = np.linalg.eigvalsh(a)
    np.testing.assert_allclose(np.sort(np.abs(value)), np.sort(np.abs(exact))[-50:], rtol=1e-9)
    np.testing.assert_allclose(vector.T @ vector, np.eye(50), atol=1e-9)


def test_netmf_does_not_see_the_order_of_questions():
    graph = weighted_graph(np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(graph.n_questions)
    turned = KnowledgeGraph([graph.questions[i] for i in order], graph.concepts, graph.weights[order])
    one, two = (NetMF(dim=5).fit(TrainingData(g)).embeddings().vectors for g in (graph, turned))
    assert np.array_equal(one[order], two)


def test_closed_forms_never_sample_a_walk(blocks, monkeypatch):
    monkeypatch.setattr(QCQ, "sample", lambda *args, **kwargs: pytest.fail("sampled"))
    for name in ("netmf", "spectral", "concept-mean"):
        TRAINERS[name](dim=8).fit(TrainingData(blocks), 0)


@pytest.mark.parametrize("name", ["netmf", "ppmi-svd", "spectral"])
def test_closed_forms_find_the_planted_blocks(name, source):
    model = TRAINERS[name](dim=4).fit(source, 0)
    assert same_block(model.embeddings().vectors) > 0.9
    assert not model.embeddings()["lonely"].any()


def test_netmf_without_edges_is_an_error():
    graph = KnowledgeGraph(["a", "b"], ["c"], sparse.csr_array((2, 1)))
    with pytest.raises(TrainingError, match="no"):
        NetMF().fit(TrainingData(graph))


def brute_cooccurrence(tokens: np.ndarray, decay: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, size))
    for walk in tokens:
        for s, x in enumerate(walk):
            for t, y in enumerate(walk):
                if s != t and abs(s - t) <= len(decay) and x >= 0 and y >= 0:
                    out[x, y] += decay[abs(s - t) - 1]
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 9))
def test_cooccurrence_is_brute_force(seed, window, length):
    from qcq.models.cooccurrence import cooccurrence

    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 6, (7, length)).astype(np.int32)
    tokens[np.arange(length) >= rng.integers(0, length + 1, 7)[:, None]] = -1
    decay = rng.random(window) + 0.1
    corpus = Corpus([tokens[:3], tokens[3:]], 5, 1, "")
    counted = cooccurrence(corpus, decay, 6)
    np.testing.assert_allclose(counted.toarray(), brute_cooccurrence(tokens, decay, 6), rtol=1e-6)
    assert counted.has_sorted_indices


def test_ppmi_svd_is_the_dense_formula(source):
    counts = brute_cooccurrence(source.corpus.tokens, np.array([1, 2 / 3, 1 / 3]), 81)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(counts * counts.sum() / np.outer(counts.sum(axis=0), counts.sum(axis=0)) / 1.5)
    ppmi = np.maximum(np.nan_to_num(pmi, neginf=0), 0)
    u, s, _ = np.linalg.svd(ppmi)
    x = u[:, :4] * np.sqrt(s[:4])
    ours = PPMISVD(dim=4, window=3, shift=1.5).fit(source, 0).embeddings().vectors
    np.testing.assert_allclose(ours @ ours.T, x @ x.T, atol=1e-3 * s[0])


def test_concept_mean_is_the_mean():
    graph = weighted_graph(np.random.default_rng(0))
    emb = TRAINERS["concept-mean"](dim=6).fit(TrainingData(graph), 1).embeddings()
    w = graph.weights.toarray()
    expected = w @ emb.concept_vectors / np.maximum(w.sum(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(emb.vectors, expected, atol=1e-5)


# --- glove ----------------------------------------------------------------------------------------------------------


def test_glove_makes_the_updates_of_the_paper():
    from qcq.models.kernels.glove import epoch

    rng = np.random.default_rng(0)
    counts = sparse.coo_array(rng.integers(0, 4, (6, 6)) * 40.0)
    weight = np.minimum(1, (counts.data / 100) ** 0.75)
    start = rng.random((2, 6, 4)) - 0.5  # three dimensions and a bias
    order = rng.permutation(counts.nnz)
    w, c = start[0].copy(), start[1].copy()
    seen_w, seen_c = np.ones_like(w), np.ones_like(c)
    total = 0.0
    for at in order:
        i, j = counts.row[at], counts.col[at]
        gap = w[i, :3] @ c[j, :3] + w[i, 3] + c[j, 3] - np.log(counts.data[at])
        total += weight[at] * gap**2
        slope_w = weight[at] * gap * np.append(c[j, :3], 1)
        slope_c = weight[at] * gap * np.append(w[i, :3], 1)
        w[i] -= 0.1 * slope_w / np.sqrt(seen_w[i])
        c[j] -= 0.1 * slope_c / np.sqrt(seen_c[j])
        seen_w[i] += slope_w**2
        seen_c[j] += slope_c**2
    ours, squares = start.astype(np.float32), np.ones((2, 6, 4), dtype=np.float32)
    given = (np.log(counts.data).astype(np.float32), weight.astype(np.float32))
    got = epoch(order, counts.row, counts.col, *given, *ours, *squares, np.float32(0.1))
    np.testing.assert_allclose(ours, [w, c], atol=1e-5)
    np.testing.assert_allclose(squares, [seen_w, seen_c], rtol=1e-4)
    assert got == pytest.approx(total, rel=1e-4)


def test_glove_fits_the_log_counts_and_finds_the_blocks(source):
    errors = []
    trainer = TRAINERS["glove"](dim=8, epochs=30)
    model = trainer.fit(source, 0, lambda done, total, squared_error: errors.append(squared_error))
    assert errors[-1] < errors[0] / 5
    vectors = model.embeddings().vectors
    assert same_block(vectors) > 0.5
    assert not model.embeddings()["lonely"].any()
    assert np.array_equal(vectors, trainer.fit(source, 0).embeddings().vectors)
