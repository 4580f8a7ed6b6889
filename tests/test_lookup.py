"""The look-up family: gensim's trainers on integers, and the closed forms against dense oracles."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from qcq.corpus import Corpus
from qcq.errors import ConfigError, TrainingError, UnknownNameError
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Source
from qcq.models.word2vec import CBOW, FastText, SkipGram, token_counts
from qcq.objectives import Masked, Probe


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
def source(blocks: KnowledgeGraph) -> Source:
    return walks(blocks, 20, 20)


def walks(graph: KnowledgeGraph, length: int, per_question: int, keep: bool = False) -> Source:
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
    return Source(graph, given=corpus_of(np.array(rows), graph))


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
def test_gensim_finds_the_planted_blocks(trainer, source):
    model = trainer.fit(source, 0)
    assert same_block(model.embeddings().vectors) > 0.9
    assert model.tokens == trainer.epochs * source.corpus.n_tokens


@pytest.mark.parametrize("name", ["skipgram", "cbow", "fasttext"])
def test_same_seed_same_vectors_in_another_process(name):
    code = (
        "import hashlib, numpy as np\n"
        "from qcq.corpus import Corpus\n"
        "from qcq.graph import KnowledgeGraph\n"
        "from qcq.models import TRAINERS, Source\n"
        "g = KnowledgeGraph.from_edges([(f'q{i}', f'c{i % 3}') for i in range(30)])\n"
        "rows = np.random.default_rng(0).integers(0, 30, (100, 10)).astype(np.int32)\n"
        f"m = TRAINERS[{name!r}](dim=8).fit(Source(g, given=Corpus([rows], 30, 3, g.digest)), 3)\n"
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


def test_another_seed_gives_other_vectors(source):
    one, two = (SkipGram(dim=8).fit(source, seed).embeddings().vectors for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_a_question_that_was_never_paired_reads_as_zero(source, blocks):
    emb = SkipGram(dim=8).fit(source, 0).embeddings()
    assert not emb["lonely"].any()
    assert np.abs(emb.vectors[:80]).max(axis=1).min() > 0


def test_concept_vectors_come_with_concept_tokens(blocks):
    kept = SkipGram(dim=8).fit(walks(blocks, 5, 2, keep=True), 0).embeddings()
    bare = SkipGram(dim=8).fit(walks(blocks, 5, 2), 0).embeddings()
    assert kept.concept_vectors.shape == (4, 8)
    assert bare.concept_vectors is None


def test_tokens_beyond_gensims_cut_are_learnt(blocks):
    rng = np.random.default_rng(0)
    walk = np.concatenate([rng.integers(0, 40, 10_000), rng.integers(40, 80, 3_000)])
    model = SkipGram(dim=8).fit(Source(blocks, given=corpus_of(walk[None], blocks)), 0)
    assert model.tokens == 13_000
    assert np.abs(model.outputs[:80]).max(axis=1).min() > 0  # output rows start at zero


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
    assert SkipGram(dim=4).fit(Source(blocks, given=corpus), 0).tokens == corpus.n_tokens


def test_nothing_to_learn_from_is_an_error(blocks):
    with pytest.raises(TrainingError, match="no walk has two tokens"):
        SkipGram().fit(Source(blocks, given=corpus_of(np.array([[3], [4]]), blocks)), 0)


def test_losses_are_the_formula(source):
    model = SkipGram(dim=8).fit(source, 0)
    pairs = some_pairs(80)
    probe = Probe(Masked(), source.corpus.tokens, np.arange(len(pairs)), pairs=pairs)
    expected = []
    for x, y, *noise in pairs:
        loss = np.log1p(np.exp(-float(model.inputs[x] @ model.outputs[y])))
        loss += sum(np.log1p(np.exp(float(model.inputs[x] @ model.outputs[n]))) for n in noise if n >= 0)
        expected.append(loss)
    np.testing.assert_allclose(model.losses(probe), expected, rtol=1e-6)


def test_hierarchical_softmax_has_no_pair_loss(source):
    model = SkipGram(dim=8, hierarchical=True).fit(source, 0)
    with pytest.raises(ConfigError, match="no held-out loss"):
        model.losses(Probe(Masked(), source.corpus.tokens, np.arange(1), pairs=some_pairs(80, 1)))


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


def test_silence(source, capfd):
    SkipGram(dim=4, workers=2).fit(source, 0)
    FastText(dim=4).fit(source, 0)
    assert capfd.readouterr() == ("", "")


def test_fasttext_composes_a_question_from_its_concepts(blocks):
    rows = walks(blocks, 10, 5).corpus.tokens
    rows = np.where(rows == 7, 8, rows)  # question 7 is never reached
    model = FastText(dim=8).fit(Source(blocks, given=corpus_of(rows, blocks)), 0)
    emb = model.embeddings()
    np.testing.assert_allclose(emb.vectors[7], emb.concept_vectors[0], rtol=1e-6)
    np.testing.assert_allclose(model.unseen(["c0", "c2"]), emb.concept_vectors[[0, 2]].mean(axis=0), rtol=1e-6)
    assert not emb["lonely"].any()
    with pytest.raises(UnknownNameError, match="c9"):
        model.unseen(["c9"])
    with pytest.raises(TrainingError, match="at least one concept"):
        model.unseen([])


def test_registered():
    assert {"skipgram", "cbow", "fasttext"} <= set(TRAINERS)
