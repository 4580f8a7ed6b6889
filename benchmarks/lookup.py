"""Tokens a second of ``sgns``, and seconds of ``netmf``, against those who train skip-gram.

    python benchmarks/lookup.py [--quick] [--json FILE] [--only s2kt_assist09,pebg_ednet,1M,curve,memory,order]
                                [--dim 128] [--rounds 3] [--tokens 4000000] [--peers "gensim lists of int,fastText"]
    python benchmarks/lookup.py --table FILE

Everybody gets the same walks, dimension, window (5), negatives (5), epochs (1) and learning rate (0.05), and all
cores. Rounds alternate and each has a seed of its own; figures are medians, the ratio is how many times quicker ours
is. gensim is timed without its vocabulary and without writing its text file, ours is timed whole; both read walks in
the same random order. Beside each figure stands what was learnt, mean and standard deviation over the rounds: the loss
on held-out pairs (``sgns`` and gensim score the same paper; lower is better), ``near``, the share of the ten nearest
questions that have a concept in common, and the tasks ``edges`` and ``difficulty`` on test.

Peers: gensim by ``corpus_file``, by lists of str, and by lists of int as ``skipgram`` feeds it; fastText's own package,
PyG's MetaPath2Vec and PecanPy in environments of their own (made on first use under $XDG_CACHE_HOME/qcq/benchmarks).
PecanPy and MetaPath2Vec walk for themselves and count those tokens; MetaPath2Vec is so slow that it is timed on 40
batches, so what it has learnt by then says little.

``1M`` is 1,000,000 generated questions with 10,000 concepts; ``curve`` is tokens/s over the size of the vocabulary, at
dimension 64; ``memory`` is the peak of a process that makes the graph of ``1M``, walks it and trains on it; ``order``
is what gensim loses when walks come in the order of the questions they start at, and not in random order. ``--json``
puts its rows beside those already in the file, in place of rows of the same case and peer; ``--table`` prints such a
file as Markdown. ``--quick`` stays under a minute: 60,000 tokens, one round, no installations, no environment of its
own.
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
from record import stamped

import walks as walk_benchmark  # the script beside this one
from qcq.data import Simulated, read
from qcq.embeddings import Embeddings
from qcq.evaluation import TASKS, Partition
from qcq.floors.objectives import SkipGram
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.word2vec import shuffled
from qcq.walks import QCQ

Row = dict[str, Any]
Learnt = dict[str, float]
REAL = {"s2kt_assist09": "s2kt", "pebg_ednet": "pebg"}
LR = 0.05
walk_benchmark.NEEDS["fasttext"] = ["fasttext-wheel", "numpy<2"]
walk_benchmark.NEEDS["pecanpy"] = ["pecanpy"]
GENSIM = {"gensim corpus_file": "file", "gensim lists of str": "str", "gensim lists of int": "int"}
OUTSIDE = {"fastText": "fasttext", "PyG MetaPath2Vec": "pyg_metapath2vec", "PecanPy": "pecanpy"}


@dataclass
class Case:
    """A graph, its walks in random order, and how to judge vectors learnt from them."""

    name: str
    graph: KnowledgeGraph
    partition: Partition | None
    source: TrainingData
    rows: list[list[int]]

    @classmethod
    def make(cls, name: str, tokens: int) -> Case:
        partition = None
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
            partition = Partition.make(made)
            graph, name = partition.graph, name if real else "simulated"
        corpus = QCQ().sample(graph, 0, limit=tokens // 40)
        mixed = next(shuffled(corpus, corpus.n_walks, np.random.default_rng(0)))
        held = type(corpus)([mixed], corpus.n_questions, corpus.n_concepts, corpus.graph_digest)
        rows = [walk[: int((walk >= 0).sum())].tolist() for walk in mixed]
        return cls(name, graph, partition, TrainingData(graph, sampled=held), rows)

    def judge(self, vectors: np.ndarray) -> Learnt:
        """``near`` over 1,000 questions (100 of a large graph), and tasks."""
        emb, n = Embeddings(self.graph.questions, vectors), len(vectors)
        some = np.random.default_rng(0).choice(n, min(1_000 if n <= 100_000 else 100, n), replace=False)
        near = emb.unit[some] @ emb.unit.T
        near[np.arange(len(some)), some] = -2
        best = np.argpartition(-near, 10, axis=1)[:, :10]
        w = self.graph.weights
        shared = [(w[[q]] @ w[them].T).nnz / 10 for q, them in zip(some, best, strict=True)]
        learnt = {"near": float(np.mean(shared))}
        for name in ("edges", "difficulty") if self.partition is not None else ():
            task = TASKS[name](self.partition)
            learnt[name] = float(task.score(emb).metrics[task.metric])
        return learnt

    def loss(self, inputs: np.ndarray, outputs: np.ndarray, paper: Any) -> float:
        from qcq.models.word2vec import PairModel

        model = PairModel(self.graph, inputs, outputs, np.ones(len(inputs), dtype=bool))
        return float(model.losses(paper).mean())


Round = Callable[[int], tuple[float, float, Learnt]]  # seed → tokens, seconds, what was learnt


def sgns(case: Case, dim: int, deterministic: bool) -> Round:
    trainer = TRAINERS["sgns"](dim=dim, lr=LR, deterministic=deterministic)

    def run(seed: int) -> tuple[float, float, Learnt]:
        began = time.perf_counter()
        model = trainer.fit(case.source, seed)
        took = time.perf_counter() - began
        loss = case.loss(model.inputs, model.outputs, paper(case))
        return model.tokens, took, {"loss": loss, **case.judge(model.embeddings().vectors)}

    return run


_PAPERS: dict[int, Any] = {}


def paper(case: Case) -> Any:
    """The same pairs of held-out walks for everybody."""
    if id(case) not in _PAPERS:
        tokens = case.source.corpus.tokens
        counts = np.bincount(tokens[tokens >= 0], minlength=case.graph.n_questions).astype(np.float64)
        held = QCQ().sample(case.graph, 1, limit=1_000)
        _PAPERS[id(case)] = SkipGram(counts=counts).held_out_batch(held)
    return _PAPERS[id(case)]


def gensim(case: Case, dim: int, way: str, cores: int) -> Round:
    from gensim.models import Word2Vec

    words = case.rows if way == "int" else [[str(t) for t in row] for row in case.rows]
    handle, name = tempfile.mkstemp(suffix=".txt")
    with os.fdopen(handle, "w") as out:
        if way == "file":
            out.writelines(" ".join(row) + "\n" for row in words)

    def run(seed: int) -> tuple[float, float, Learnt]:
        model = Word2Vec(
            vector_size=dim, window=5, sg=1, negative=5, sample=0, min_count=1, epochs=1, alpha=LR, min_alpha=LR / 250,
            workers=cores, seed=seed,
        )  # fmt: skip
        model.build_vocab(words)
        fed = {"corpus_file": name} if way == "file" else {"corpus_iterable": words}
        counted = {"total_words": model.corpus_total_words, "total_examples": model.corpus_count}
        began = time.perf_counter()
        model.train(**fed, **counted, epochs=1)
        took = time.perf_counter() - began
        tables = np.zeros((2, case.graph.n_questions, dim), dtype=np.float32)
        ids = np.array(model.wv.index_to_key, dtype=np.int64)
        tables[:, ids] = model.wv.vectors, model.syn1neg
        learnt = {"loss": case.loss(*tables, paper(case)), **case.judge(tables[0])}
        return model.corpus_total_words, took, learnt

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

    def run(seed: int) -> tuple[float, float, Learnt]:
        process.stdin.write("\n")
        process.stdin.flush()
        said = answer()
        return said["tokens"], said["seconds"], case.judge(np.load(folder / "out.npy"))

    try:
        yield answer()["version"], run
    finally:
        process.kill()
        process.wait()


def spread(rounds: list[Learnt]) -> str:
    """``loss 0.4041 ± 0.0002, near 0.997 ± 0.001``."""
    said = []
    for name in rounds[0]:
        values, digits = [learnt[name] for learnt in rounds], 4 if name == "loss" else 3
        wide = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        said.append(f"{name} {statistics.mean(values):.{digits}f}{wide}")
    return ", ".join(said)


def row(
    case: str, peer: str, about: str, unit: str, ours: list[float], theirs: list[float], *learnt: list[Learnt]
) -> Row:
    """Printed, and as it goes to the file. Seconds and memory are better when less, the others when more."""
    one, two = statistics.median(ours), statistics.median(theirs)
    ratio = two / one if unit in ("s", "GiB") else one / two
    said = [spread(rounds) for rounds in learnt]
    print(f"{case:34} {peer:22} {one:12,.4g} {two:12,.4g} {unit:9} {ratio:7.1f} ×", flush=True)
    for who, what in zip(("ours", "theirs"), said, strict=False):
        print(f"{'':34} {who}: {what}", flush=True)
    return {
        "benchmark": "lookup", "case": case, "peer": peer, "peer_version": about, "ours": one, "theirs": two,
        "unit": unit, "ratio": ratio, **dict(zip(("ours_learnt", "theirs_learnt"), said, strict=False)),
    }  # fmt: skip


def rounds_of(n: int, *rivals: Round) -> list[list[tuple[float, float, Learnt]]]:
    """``n`` rounds in which everybody takes a turn; a list for each."""
    done: list[list[tuple[float, float, Learnt]]] = [[] for _ in rivals]
    for seed in range(n):
        for rounds, rival in zip(done, rivals, strict=True):
            rounds.append(rival(seed))
    return done


def against(case: str, peer: str, about: str, *sides: list[tuple[float, float, Learnt]]) -> Row:
    speeds = [[tokens / took for tokens, took, _ in side] for side in sides]
    return row(case, peer, about, "tokens/s", *speeds, *([learnt for _, _, learnt in side] for side in sides))


def netmf(case: Case, dim: int, rounds: int, peer: str, theirs: list[tuple[float, float, Learnt]]) -> Row:
    """From graph to vectors, and gensim from walks to vectors."""
    g, spent = case.graph, []
    for _ in range(max(3, rounds)):
        fresh = KnowledgeGraph(g.questions, g.concepts, g.weights)  # nothing cached from before
        began = time.perf_counter()
        vectors = TRAINERS["netmf"](dim=dim).fit(TrainingData(fresh), 0).embeddings().vectors
        spent.append(time.perf_counter() - began)
    about = f"netmf {case.name} d{dim}", peer, version("gensim")
    learnt = [case.judge(vectors)], [learnt for _, _, learnt in theirs]
    return row(*about, "s", spent, [took for _, took, _ in theirs], *learnt)


def order(tokens: int, cores: int) -> Row:
    """Walks trained in random order, and in the order of the questions they start at: gensim's own neighbours."""
    case = Case.make("pebg_ednet", tokens)
    mixed = rounds_of(1, gensim(case, 64, "int", cores))[0]
    case.rows.sort()
    sorted_ = rounds_of(1, gensim(case, 64, "int", cores))[0]
    about = f"gensim {case.name} d64, walks in random order", "in the order of starts", version("gensim")
    learnt = [[learnt for _, _, learnt in side] for side in (mixed, sorted_)]
    return row(*about, "near", *([found["near"] for found in side] for side in learnt), *learnt)


def memory(dim: int, tokens: int) -> Row:
    """Peak of a process that makes the graph, walks it and trains; beside it the bound it has to keep."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import walks; from qcq.models import TRAINERS, TrainingData; from qcq.walks import QCQ\n"
        "g = walks.generated(10**6, 10**4); c = QCQ().sample(g, 0, limit=int(sys.argv[3]) // 40)\n"
        "TRAINERS['sgns'](dim=int(sys.argv[2])).fit(TrainingData(g, sampled=c), 0)\n"
        # VmHWM, because ru_maxrss begins with the peak of the process that started this one.
        "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 2**20)"
    )
    given = [sys.executable, "-c", code, str(Path(__file__).parent), str(dim), str(tokens)]
    peak = float(subprocess.run(given, check=True, capture_output=True, text=True).stdout)
    return row(f"sgns 1M d{dim} peak memory", "a bound of 4 GiB", "", "GiB", [peak], [4.0])


def table(rows: list[Row]) -> str:
    """Rows as Markdown, and the curve over the vocabulary as a chart."""
    lines = [
        "# The look-up family against its peers",
        "",
        "Made by `benchmarks/lookup.py`, which says what is compared.",
        "",
    ]
    lines += ["| case | peer | ours | theirs | unit | ratio |", "|---|---|---:|---:|---|---:|"]
    for r in rows:
        digits = ",.0f" if r["unit"] == "tokens/s" else ".3g"
        figures = f"{r['ours']:{digits}} | {r['theirs']:{digits}} | {r['unit']} | {r['ratio']:.1f}"
        lines.append(f"| {r['case']} | {(r['peer'] + ' ' + r['peer_version']).strip()} | {figures} |")
    lines += ["", "What each had learnt, mean ± standard deviation over the rounds:", ""]
    lines += ["| case | peer | ours | theirs |", "|---|---|---|---|"]
    lines += [
        f"| {r['case']} | {r['peer']} | {r['ours_learnt']} | {r['theirs_learnt']} |" for r in rows if "ours_learnt" in r
    ]
    curve = [r for r in rows if r["case"].endswith("questions d64")]
    if curve:
        lines += [
            "",
            "Thousand tokens a second over the number of questions, dimension 64; the upper line is `sgns`:",
            "",
        ]
        lines += ["```mermaid", "xychart-beta"]
        lines.append(f"    x-axis [{', '.join(r['case'].split()[1].replace(',', '') for r in curve)}]")
        for side in ("ours", "theirs"):
            lines.append(f"    line [{', '.join(f'{r[side] / 1e3:.0f}' for r in curve)}]")
        lines.append("```")
    return "\n".join(lines)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--quick", action="store_true")
    ask.add_argument("--json", type=Path)
    ask.add_argument("--table", type=Path)
    ask.add_argument("--only", default="s2kt_assist09,pebg_ednet,1M,curve,memory,order")
    ask.add_argument("--dim", type=int, default=128)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--tokens", type=int, default=4_000_000)
    ask.add_argument("--peers", default=",".join([*GENSIM, *OUTSIDE]))
    chosen = ask.parse_args()
    if chosen.table:
        print(table(json.loads(chosen.table.read_text(encoding="utf-8"))))
        return
    cores = os.cpu_count() or 1
    rounds, tokens = (1, 60_000) if chosen.quick else (chosen.rounds, chosen.tokens)
    names = ["s2kt_assist09"] if chosen.quick else chosen.only.split(",")
    peers = ["gensim lists of str"] if chosen.quick else chosen.peers.split(",")
    dim, rows, about = chosen.dim, [], version("gensim")
    small = TrainingData(walk_benchmark.generated(50, 5), QCQ(length=4))
    for deterministic in (False, True):  # compiles
        for wide in (dim, 64):
            TRAINERS["sgns"](dim=wide, deterministic=deterministic).fit(small, 0)
    print(f"{cores} cores, dimension {dim}, median of {rounds}; {tokens:,} tokens\n", flush=True)
    for name in names:
        if name == "memory":
            rows.append(memory(dim, tokens))
        elif name == "order":
            rows.append(order(tokens, cores))
        elif name == "curve":
            for n in (1_000, 10_000, 100_000, 1_000_000):
                case = Case.make(str(n), tokens // 2)
                sides = rounds_of(1, sgns(case, 64, False), gensim(case, 64, "int", cores))
                rows.append(against(f"sgns {n:,} questions d64", "gensim lists of int", about, *sides))
        else:
            case = Case.make(name, tokens)
            fast, safe = sgns(case, dim, False), sgns(case, dim, True)
            label = f"sgns {case.name} d{dim}"
            for peer in [p for p in peers if p in GENSIM]:
                mine, still, theirs = rounds_of(rounds, fast, safe, gensim(case, dim, GENSIM[peer], cores))
                rows.append(against(label, peer, about, mine, theirs))
                rows.append(against(f"{label} deterministic", peer, about, still, theirs))
                if name in REAL:
                    rows.append(netmf(case, dim, rounds, peer, theirs))
            for peer in [p for p in peers if p in OUTSIDE and name != "1M"]:
                try:
                    with outside(OUTSIDE[peer], case, dim, cores, not chosen.quick) as (made, run):
                        rows.append(against(label, peer, made, *rounds_of(1, fast, run)))
                except RuntimeError as error:
                    print(f"{label:34} {peer:22} {error}", flush=True)
    if chosen.json:
        kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else []
        new = {(r["case"], r["peer"]) for r in rows}
        rows = [r for r in kept if (r["case"], r["peer"]) not in new] + stamped(rows)
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
