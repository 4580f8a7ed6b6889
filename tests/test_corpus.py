"""Corpora in memory and on disk: the same bytes, never half of them, and text that reads back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from qcq.corpus import SPECIAL, Corpus, CorpusWriter
from qcq.errors import CorpusError, WalkError
from qcq.graph import KnowledgeGraph
from qcq.walks import WALKS, NonBacktracking, Restart, WalkStrategy
from qcq.walks.sampler import CHUNK
from qcq.walks.tables import nbytes

WALK = NonBacktracking(length=6, per_question=40)


def some_graph(n_questions: int = 1500) -> KnowledgeGraph:
    rng = np.random.default_rng(0)
    w = sparse.csr_array(sparse.random(n_questions, 30, density=0.06, rng=rng, format="csr"))
    return KnowledgeGraph(tuple(f"q{i}" for i in range(n_questions)), tuple(f"c{j}" for j in range(30)), w)


GRAPH = some_graph()


def least_memory(walk: WalkStrategy, graph: KnowledgeGraph = GRAPH) -> int:
    """So little that a shard is one chunk of walks."""
    return nbytes(walk.tables(graph)) + 2 * CHUNK * 4 * (2 * walk.length if walk.keep_concepts else walk.length)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["qcq", "non-backtracking", "concept-hop", "node2vec", "weighted", "restart"])
def test_streaming_gives_the_bytes_of_sampling(name: str, tmp_path: Path) -> None:
    walk = WALKS[name](length=5, per_question=40, keep_concepts=name == "restart", start="degree")
    whole = walk.sample(GRAPH, 3)
    small = walk.stream(GRAPH, tmp_path / "small", 3, max_memory=least_memory(walk))
    large = walk.stream(GRAPH, tmp_path / "large", 3)
    assert len(small.shards) > 3 > len(large.shards) == 1
    assert all(isinstance(shard, np.memmap) for shard in small.shards)
    assert np.array_equal(small.tokens, whole.tokens)
    assert small.digest == large.digest == whole.digest
    assert small.counts == large.counts == whole.counts
    assert small.n_tokens == whole.n_tokens == int((whole.tokens >= 0).sum())
    assert dict(small.strategy) == dict(whole.strategy)
    small.verify()
    assert not [path for path in (tmp_path / "small").iterdir() if "partial" in path.name or "sampling" in path.name]


def test_killed_and_resumed(tmp_path: Path) -> None:
    """Killed for good (SIGKILL) after two shards, in a process of its own; the rest is made here."""
    code = (
        "import os, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_corpus import GRAPH, WALK, least_memory\n"
        "def watch(done, total, **_):\n"
        "    if done >= 16384: os.kill(os.getpid(), signal.SIGKILL)\n"
        "WALK.stream(GRAPH, sys.argv[1], 7, max_memory=least_memory(WALK), progress=watch)\n"
    )
    folder = tmp_path / "walks"
    killed = subprocess.run([sys.executable, "-c", code, str(folder), str(Path(__file__).parent)], timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "corpus.json").exists()
    with pytest.raises(CorpusError, match="interrupted"):
        Corpus.load(folder)
    before = (folder / "walks-00000.npy").stat().st_mtime_ns
    seen: list[int] = []
    again = WALK.stream(GRAPH, folder, 7, max_memory=2**28, progress=lambda done, total, **_: seen.append(done))
    assert seen[0] >= 16384  # what was there was kept, whatever the size of the shards now
    assert (folder / "walks-00000.npy").stat().st_mtime_ns == before
    once = WALK.stream(GRAPH, tmp_path / "once", 7)
    assert again.digest == once.digest
    assert again.counts == once.counts
    again.verify()


def test_torn_shards_are_made_again(tmp_path: Path) -> None:
    """A partial file, a shard that nobody listed, and a listed one that was cut short."""
    whole = WALK.stream(GRAPH, tmp_path / "whole", max_memory=least_memory(WALK))
    torn = tmp_path / "torn"

    class Stop(Exception):
        pass

    def stop(done: int, total: int, **_: object) -> None:
        if done >= 3 * CHUNK:
            raise Stop

    with pytest.raises(Stop):
        WALK.stream(GRAPH, torn, max_memory=least_memory(WALK), progress=stop)
    (torn / "walks-00007.npy.partial").write_bytes(b"half")
    (torn / "walks-00006.npy").write_bytes(b"unlisted")
    cut = torn / "walks-00001.npy"
    cut.write_bytes(cut.read_bytes()[:-100])
    again = WALK.stream(GRAPH, torn, max_memory=least_memory(WALK))
    assert again.digest == whole.digest
    assert sorted(files(torn)) == sorted(files(tmp_path / "whole"))


def test_a_finished_corpus_is_read_and_another_is_not_overwritten(tmp_path: Path) -> None:
    first = WALK.stream(GRAPH, tmp_path, 1)
    before = files(tmp_path)
    assert WALK.stream(GRAPH, tmp_path, 1).digest == first.digest
    assert files(tmp_path) == before
    with pytest.raises(CorpusError, match=r"holds another corpus \(walk non-backtracking, seed 1\)"):
        WALK.stream(GRAPH, tmp_path, 2)
    assert files(tmp_path) == before
    other = WALK.stream(GRAPH, tmp_path, 2, replace=True)
    assert other.digest == WALK.sample(GRAPH, 2).digest != first.digest


def test_too_little_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WalkError, match="give at least"):
        WALK.stream(GRAPH, tmp_path / "none", max_memory=1000)
    assert not (tmp_path / "none").exists()


def test_plan_is_what_happens(tmp_path: Path) -> None:
    plan = WALK.plan(GRAPH, max_memory=least_memory(WALK))
    made = WALK.stream(GRAPH, tmp_path, max_memory=least_memory(WALK))
    assert (plan.walks, plan.tokens, plan.bytes) == (made.n_walks, made.n_walks * 6, made.n_walks * 24)
    assert plan.shards == len(made.shards)
    assert plan.shard_walks == len(made.shards[0])
    assert plan.memory <= least_memory(WALK)
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert str(plan).startswith("60,000 walks, 360,000 tokens, 1.4 MB on disk in 8 shards")


def test_save_and_load(tmp_path: Path) -> None:
    corpus = Restart(length=4, keep_concepts=True).sample(GRAPH, 2)
    cut = Corpus(
        np.array_split(corpus.tokens, 3), 1500, 30, corpus.graph_digest, corpus.strategy, corpus.seed, corpus.counts
    )
    for one in (corpus, cut, corpus):  # in place of what was there
        back = Corpus.load(one.save(tmp_path))
        assert back.digest == back._digest() == corpus.digest
        assert (back.n_tokens, back.counts, back.seed) == (corpus.n_tokens, corpus.counts, 2)
        assert len(back.shards) == len(one.shards)
        assert np.array_equal(back.tokens, corpus.tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.json", "qcq.json", "walks-00000.npy"]


def test_broken_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no readable corpus"):
        Corpus.load(tmp_path)
    corpus = WALK.sample(GRAPH)
    corpus.save(tmp_path)
    good = np.load(tmp_path / "walks-00000.npy")
    np.save(tmp_path / "walks-00000.npy", good[:-1])
    with pytest.raises(CorpusError, match="59999 walks on disk"):
        Corpus.load(tmp_path)
    np.save(tmp_path / "walks-00000.npy", good.astype(np.int64))
    with pytest.raises(CorpusError, match="int64"):
        Corpus.load(tmp_path)
    changed = good.copy()
    changed[5, 2] += 1
    np.save(tmp_path / "walks-00000.npy", changed)
    with pytest.raises(CorpusError, match="sample them again"):
        Corpus.load(tmp_path).verify()
    (tmp_path / "walks-00000.npy").unlink()
    with pytest.raises(CorpusError, match="no readable corpus"):
        Corpus.load(tmp_path)


def test_an_unfinished_writer_leaves_no_corpus(tmp_path: Path) -> None:
    from qcq.corpus import Header

    writer = CorpusWriter(tmp_path, Header(10, 3, 5, 1, "g", {"name": "qcq"}, 0))
    writer.add(np.zeros((4, 3), dtype=np.int32))
    with pytest.raises(CorpusError, match="4 of 10 walks"):
        writer.finish()
    assert not (tmp_path / "corpus.json").exists()


def test_batches_are_every_walk_once_an_epoch(tmp_path: Path) -> None:
    corpus = WALK.stream(GRAPH, tmp_path, max_memory=least_memory(WALK))
    batches = corpus.batches(1000, np.random.default_rng(0))
    seen = np.concatenate([next(batches) for _ in range(60)])
    assert sorted(seen.tolist()) == sorted(corpus.tokens.tolist())
    assert not np.array_equal(seen, corpus.tokens)


@pytest.mark.parametrize("keep", [False, True])
def test_text_reads_back(keep: bool, tmp_path: Path) -> None:
    """Line by line, the text split at spaces is the walk; ids of one and of sixty bytes, not only ASCII."""
    graph = KnowledgeGraph.from_edges([("a", "x"), ("b" * 60, "x"), ("ü", "y"), ("b" * 60, "y")]).without([], [])
    graph = KnowledgeGraph((*graph.questions, "lonely"), graph.concepts, sparse.csr_array(
        np.vstack([graph.weights.toarray(), np.zeros((1, 2))])))  # fmt: skip
    walk = Restart(length=5, per_question=30, keep_concepts=keep)
    corpus = walk.stream(graph, tmp_path / "walks", 4)
    ids = [*graph.questions, *graph.concepts]
    lines = corpus.to_text(tmp_path / "walks.txt", ids).read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [line.split(" ") for line in lines] == [[ids[t] for t in walk] for walk in corpus.sentences()]
    vocabulary = corpus.write_vocabulary(tmp_path / "vocab.txt", ids).read_text(encoding="utf-8").splitlines()
    assert vocabulary == [*SPECIAL, *(ids if keep else graph.questions)]
    assert not list(tmp_path.glob("*.partial"))


def test_gensim_reads_the_text(tmp_path: Path) -> None:
    word2vec = pytest.importorskip("gensim.models.word2vec")
    corpus = WALK.sample(GRAPH)
    path = corpus.to_text(tmp_path / "walks.txt", GRAPH.questions)
    read = [[GRAPH.question_index[word] for word in line] for line in word2vec.LineSentence(str(path))]
    assert read == [walk.tolist() for walk in corpus.sentences()]


@pytest.mark.parametrize(
    ("bad", "why"), [("a b", "white space"), ("", "empty"), ("q1", "two tokens"), ("[PAD]", "two")]
)
def test_names_that_no_text_can_hold(bad: str, why: str, tmp_path: Path) -> None:
    corpus = WALK.sample(GRAPH)
    with pytest.raises(CorpusError, match=why):
        corpus.to_text(tmp_path / "walks.txt", [bad, *GRAPH.questions[1:]])
    with pytest.raises(CorpusError, match="names for"):
        corpus.write_vocabulary(tmp_path / "walks.txt", GRAPH.questions[1:])
    assert not list(tmp_path.iterdir())


def test_identity_is_in_corpus_json(tmp_path: Path) -> None:
    corpus = WALK.stream(GRAPH, tmp_path, 5)
    about = json.loads((tmp_path / "corpus.json").read_text())
    assert about["digest"] == corpus.digest
    assert about["graph_digest"] == GRAPH.digest
    assert about["strategy"] == {"name": "non-backtracking", **WALK.config}
    assert (about["seed"], about["walks"], about["length"], about["questions"]) == (5, 60_000, 6, 1500)
