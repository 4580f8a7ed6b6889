"""Tokens a second of ``sgns``, and seconds of ``netmf``, against those who train skip-gram.

    python benchmarks/lookup.py [--quick] [--json FILE] [--only s2kt_assist09,pebg_ednet,1M,curve] [--dim 128]
                                [--rounds 3] [--peers gensim,fasttext,...]

Everybody gets the same walks, dimension, window (5), negatives (5), epochs (1) and learning rate (0.05), and all cores.
Rounds alternate, figures are medians, the ratio is how many times quicker ours is. gensim is timed without its
vocabulary and without writing its text file, ours is timed whole; both read walks in the same random order. Beside each
figure stands what was learnt: the loss on held-out pairs (``sgns`` and gensim score the same paper; lower is better),
the share of the ten nearest questions that have a concept in common, and the MRR of held-out edges.

Peers: gensim by ``corpus_file``, by lists of str, and by lists of int as ``skipgram`` feeds it; fastText's own package,
PyG's MetaPath2Vec and PecanPy in environments of their own (made on first use under $XDG_CACHE_HOME/qcq/benchmarks).
PecanPy and MetaPath2Vec walk for themselves and count those tokens; MetaPath2Vec is so slow that it is timed on 40
batches, so what it has learnt by then says little.

``1M`` is 1,000,000 generated questions with 10,000 concepts, 4,000,000 tokens of walks on them; ``curve`` is ours and
gensim's tokens/s over the size of the vocabulary. ``--quick`` stays under a minute: 60,000 tokens, one round, no
installations, no environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import walks as walk_benchmark  # the script beside this one
from qcq.data import Simulated, read
from qcq.embeddings import Embeddings
from qcq.evaluation import TASKS, Problem
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Source
from qcq.models.word2vec import shuffled
from qcq.objectives import SkipGram
from qcq.walks import QCQ

Row = dict[str, Any]
REAL = {"s2kt_assist09": "s2kt", "pebg_ednet": "pebg"}
LR = 0.05
walk_benchmark.NEEDS["fasttext"] = ["fasttext-wheel", "numpy<2"]
OUTSIDE = {
    "fasttext": "fastText",
    "pyg_metapath2vec": "PyG MetaPath2Vec",
    "pecanpy": "PecanPy",
}


@dataclass
class Case:
    """A graph, its walks in random order, and how to judge vectors learnt from them."""

    name: str
    graph: KnowledgeGraph
    problem: Problem | None
    source: Source
    rows: list[list[int]]

    @classmethod
    def make(cls, name: str, tokens: int) -> Case:
        problem = None
        if name == "1M":
            graph = walk_benchmark.generated(10**6, 10**4)
        elif name.isdigit():
            graph = walk_benchmark.generated(int(name), max(20, int(name) // 100))
        else:
            folder = Path(os.environ.get("QCQ_DATA", "")) / name
            real = "QCQ_DATA" in os.environ and folder.is_dir()
            if not real:
                print(f"{name}: no such folder under $QCQ_DATA, so a simulated classroom stands in", flush=True)
            made = read(f"{REAL[name]}:{folder}") if real else Simulated(questions=15_000, concepts=150).read()
            problem = Problem.make(made)
            graph, name = problem.graph, name if real else "simulated"
        corpus = QCQ().sample(graph, 0, limit=tokens // 40)
        mixed = next(shuffled(corpus, corpus.n_walks, np.random.default_rng(0)))
        held = type(corpus)([mixed], corpus.n_questions, corpus.n_concepts, corpus.graph_digest)
        rows = [walk[: int((walk >= 0).sum())].tolist() for walk in mixed]
        return cls(name, graph, problem, Source(graph, given=held), rows)

    def judge(self, vectors: np.ndarray) -> str:
        """Share of the ten nearest with a concept in common over 1,000 questions, and the MRR of held-out edges."""
        said = []
        if len(vectors) <= 100_000:
            emb = Embeddings(self.graph.questions, vectors)
            some = np.random.default_rng(0).choice(len(vectors), min(1_000, len(vectors)), replace=False)
            near = emb.unit[some] @ emb.unit.T
            near[np.arange(len(some)), some] = -2
            best = np.argpartition(-near, 10, axis=1)[:, :10]
            w = self.graph.weights
            shares = np.take_along_axis((w[some] @ w.T).toarray() > 0, best, axis=1).mean()
            said.append(f"near {shares:.3f}")
            if self.problem is not None and len(self.problem.edges["test"]):
                said.append(f"edges {TASKS['edges'](self.problem).score(emb).metrics['mrr']:.3f}")
        return ", ".join(said)

    def loss(self, inputs: np.ndarray, outputs: np.ndarray, paper: Any) -> float:
        from qcq.models.word2vec import PairModel

        model = PairModel(self.graph, inputs, outputs, np.ones(len(inputs), dtype=bool))
        return float(model.losses(paper).mean())


Round = Callable[[], tuple[float, float, str]]  # → tokens, seconds, what was learnt


def sgns(case: Case, dim: int, deterministic: bool) -> Round:
    trainer = TRAINERS["sgns"](dim=dim, lr=LR, deterministic=deterministic)

    def run() -> tuple[float, float, str]:
        began = time.perf_counter()
        model = trainer.fit(case.source, 0)
        took = time.perf_counter() - began
        loss = case.loss(model.inputs, model.outputs, paper(case))
        return model.tokens, took, f"loss {loss:.4f}, {case.judge(model.embeddings().vectors)}"

    return run


_PAPERS: dict[int, Any] = {}


def paper(case: Case) -> Any:
    """The same pairs of held-out walks for everybody."""
    if id(case) not in _PAPERS:
        tokens = case.source.corpus.tokens
        counts = np.bincount(tokens[tokens >= 0], minlength=case.graph.n_questions).astype(np.float64)
        held = QCQ().sample(case.graph, 1, limit=1_000)
        _PAPERS[id(case)] = SkipGram(counts=counts).probe(held)
    return _PAPERS[id(case)]


def gensim(case: Case, dim: int, way: str, cores: int) -> Round:
    from gensim.models import Word2Vec

    words = case.rows if way == "lists of int" else [[str(t) for t in row] for row in case.rows]
    options = {
        "vector_size": dim, "window": 5, "sg": 1, "negative": 5, "sample": 0, "min_count": 1, "epochs": 1, "alpha": LR,
        "min_alpha": LR / 250, "workers": cores, "seed": 0,
    }  # fmt: skip
    handle, name = tempfile.mkstemp(suffix=".txt")
    with os.fdopen(handle, "w") as out:
        if way == "corpus_file":
            out.writelines(" ".join(row) + "\n" for row in words)

    def run() -> tuple[float, float, str]:
        model = Word2Vec(**options)
        model.build_vocab(words)
        fed = {"corpus_file": name} if way == "corpus_file" else {"corpus_iterable": words}
        counted = {"total_words": model.corpus_total_words, "total_examples": model.corpus_count}
        began = time.perf_counter()
        model.train(**fed, **counted, epochs=1)
        took = time.perf_counter() - began
        tables = np.zeros((2, case.graph.n_questions, dim), dtype=np.float32)
        ids = np.array(model.wv.index_to_key, dtype=np.int64)
        tables[:, ids] = model.wv.vectors, model.syn1neg
        return model.corpus_total_words, took, f"loss {case.loss(*tables, paper(case)):.4f}, {case.judge(tables[0])}"

    return run


@contextmanager
def outside(peer: str, case: Case, dim: int, cores: int, install: bool) -> Iterator[tuple[str, Round]]:
    """Version and round of a peer in an environment of its own."""
    folder = Path(tempfile.mkdtemp())
    edges = case.graph.weights.tocoo()
    np.savez(
        folder / "graph.npz", q=edges.row.astype(np.int64), c=edges.col.astype(np.int64),
        n_questions=case.graph.n_questions, n_concepts=case.graph.n_concepts,
    )  # fmt: skip
    np.save(folder / "walks.npy", case.source.corpus.tokens)
    script = Path(__file__).with_name("lookup_peers.py")
    python = walk_benchmark.environment(peer, install)
    given = [str(folder / "graph.npz"), str(folder / "walks.npy"), str(dim), str(cores), str(folder / "out.npy")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([python, str(script), peer, *given], text=True, **pipes)

    def answer() -> dict[str, Any]:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"can't be run: {(process.stderr.read().strip().splitlines() or ['?'])[-1][:150]}")
        return json.loads(line)

    def run() -> tuple[float, float, str]:
        process.stdin.write("\n")
        process.stdin.flush()
        said = answer()
        return said["tokens"], said["seconds"], case.judge(np.load(folder / "out.npy"))

    try:
        yield answer()["version"], run
    finally:
        process.kill()
        process.wait()


def paired(case: str, peer: str, about: str, mine: Round, theirs: Round, rounds: int) -> Row:
    a, b = [], []
    for _ in range(rounds):
        ours_, theirs_ = mine(), theirs()
        a.append(ours_[0] / ours_[1])
        b.append(theirs_[0] / theirs_[1])
    one, two = statistics.median(a), statistics.median(b)
    print(f"{case:34} {peer:28} {one / 1e3:9.0f} {two / 1e3:9.0f} k tokens/s {one / two:8.1f} ×", flush=True)
    print(f"{'':34} ours: {ours_[2]}\n{'':34} theirs: {theirs_[2]}", flush=True)
    return {
        "benchmark": "lookup", "case": case, "peer": peer, "peer_version": about, "ours": one, "theirs": two,
        "unit": "tokens/s", "ratio": one / two, "ours_learnt": ours_[2], "theirs_learnt": theirs_[2],
    }  # fmt: skip


def netmf(case: Case, dim: int, rounds: int, theirs: Round) -> Row:
    """From graph to vectors, and gensim from walks to vectors at its defaults for this corpus."""
    g = case.graph
    spent = []
    for _ in range(max(3, rounds)):
        fresh = KnowledgeGraph(g.questions, g.concepts, g.weights)  # nothing cached from before
        began = time.perf_counter()
        vectors = TRAINERS["netmf"](dim=dim).fit(Source(fresh), 0).embeddings().vectors
        spent.append(time.perf_counter() - began)
    said = [theirs() for _ in range(rounds)]
    one, two = statistics.median(spent), statistics.median(s[1] for s in said)
    print(f"{'netmf ' + case.name:34} {'gensim lists of int':28} {one:9.3f} {two:9.1f} s          {two / one:8.0f} ×")
    print(f"{'':34} ours: {case.judge(vectors)}\n{'':34} theirs: {said[-1][2]}", flush=True)
    return {
        "benchmark": "lookup", "case": f"netmf {case.name} d{dim}", "peer": "gensim lists of int",
        "peer_version": version("gensim"), "ours": one, "theirs": two, "unit": "s", "ratio": two / one,
        "ours_learnt": case.judge(vectors), "theirs_learnt": said[-1][2],
    }  # fmt: skip


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--quick", action="store_true")
    ask.add_argument("--json", type=Path)
    ask.add_argument("--only", default="s2kt_assist09,pebg_ednet,1M,curve")
    ask.add_argument("--dim", type=int, default=128)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--tokens", type=int, default=4_000_000)
    ask.add_argument("--peers", default="gensim,fasttext,pyg_metapath2vec,pecanpy")
    chosen = ask.parse_args()
    cores = os.cpu_count() or 1
    rounds, tokens = (1, 60_000) if chosen.quick else (chosen.rounds, chosen.tokens)
    names = ["s2kt_assist09"] if chosen.quick else [n for n in chosen.only.split(",") if n != "curve"]
    peers = ["gensim"] if chosen.quick else chosen.peers.split(",")
    dim, rows = chosen.dim, []
    TRAINERS["sgns"](dim=dim).fit(Source(small := walk_benchmark.generated(50, 5), QCQ(length=4)), 0)  # compiles
    TRAINERS["sgns"](dim=dim, deterministic=False).fit(Source(small, QCQ(length=4)), 0)
    print(f"{cores} cores, dimension {dim}, median of {rounds}; {tokens:,} tokens\n")
    for name in names:
        case = Case.make(name, tokens)
        fast, safe = sgns(case, dim, False), sgns(case, dim, True)
        ways = ["corpus_file", "lists of str", "lists of int"] if not chosen.quick else ["lists of str"]
        label = f"sgns {case.name} d{dim}"
        if "gensim" in peers:
            made = {way: gensim(case, dim, way, cores) for way in ways}
            for way, run in made.items():
                rows.append(paired(label, f"gensim {way}", version("gensim"), fast, run, rounds))
            rows.append(paired(f"{label} deterministic", f"gensim {way}", version("gensim"), safe, run, rounds))
            if name in REAL:
                rows.append(netmf(case, dim, rounds, run))
        for peer in peers:
            if peer in OUTSIDE and name != "1M":
                try:
                    with outside(peer, case, dim, cores, not chosen.quick) as (about, run):
                        rows.append(paired(label, OUTSIDE[peer], about, fast, run, 1))
                except RuntimeError as error:
                    print(f"{label:34} {OUTSIDE[peer]:28} {error}", flush=True)
    if not chosen.quick and "curve" in chosen.only.split(","):
        for n in (1_000, 10_000, 100_000, 1_000_000):
            case = Case.make(str(n), tokens // 2)
            run = gensim(case, 64, "lists of int", cores)
            label = f"sgns {n:,} questions d64"
            rows.append(paired(label, "gensim lists of int", version("gensim"), sgns(case, 64, False), run, 1))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
