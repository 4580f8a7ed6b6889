"""Nanoseconds a hop, against everybody who samples random walks.

    python benchmarks/walks.py [--quick] [--json FILE] [--only assist09,1M,10M,text] [--peers grape,...] [--disk DIR]

One hop is one edge crossed. A peer runs in an environment of its own (made on first use under
$XDG_CACHE_HOME/qcq/benchmarks), on the same graph, with the same number of hops a walk (78: 40 questions and the 39
concepts between them), in rounds that alternate with ours (two each, of which the second counts); the figures are
medians, the ratio is theirs / ours. Ours is the compiled loop with all cores, a fresh int32 array every round: ``qcq``
and ``node2vec`` write every node, as peers do, ``qcq-questions-only`` leaves the concepts out, as trainers want it.

Graphs: ``assist09`` is $QCQ_DATA/s2kt_assist09 where that is set, else a generated graph of its size; ``1M`` and
``10M`` are generated, 1,000,000 questions × 10,000 concepts and 10,000,000 × 100,000. ``text`` is the text export in
million tokens a second. ``--disk DIR`` samples 10 walks of 40 questions from each of the 10,000,000 questions to DIR,
which takes 16 GB, and prints time and peak memory. ``--quick`` stays under a minute: fewer rounds, the small graph, no
installations.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import stamped
from scipy import sparse

import qcq
from qcq.graph import KnowledgeGraph
from qcq.support.cost import measured
from qcq.support.threads import n_threads
from qcq.walks import WALKS, Node2Vec, WalkStrategy
from qcq.walks.sampler import Sampler

Row = dict[str, Any]

LENGTH = 40
TOKENS = 2 * LENGTH - 1
ROUND = 24_000_000  # hops a round of ours at least, so that a round is long enough to be timed

NEEDS = {  # what pip installs for each peer; None: it runs in this environment
    "grape": [
        "ensmallen", "environments_utils", "py-cpuinfo", "bioregistry", "compress_json", "downloaders", "dict_hash",
        "userinput", "cache_decorator",
    ],
    "pecanpy_kernel": ["pecanpy"],
    "pecanpy_simulate_walks": ["pecanpy"],
    "fastnode2vec": ["fastnode2vec"],
    "graph_walker": ["graph-walker", "scikit-learn"],
    "pyg_metapath2vec": ["torch==2.13.0", "torch_geometric"],
    "torch_cluster": ["torch==2.13.0", "setuptools", "wheel", "torch-cluster"],
    "dgl": [
        "dgl==2.1.0", "torch==2.2.2", "torchdata==0.7.1", "numpy<2", "setuptools<70", "pandas", "pyyaml", "pydantic",
    ],
    "csrgraph": ["setuptools", "csrgraph"],
    "karateclub": ["setuptools", "karateclub"],
    "networkx_loop": None,
}  # fmt: skip
SHOWN = {"grape": "GRAPE (ensmallen)", "numpy_loop": "numpy loop of qcq"}
LARGE = {  # peers for the large graphs; the rest would take too long, and nobody's round on 10M ends within minutes
    "1M": ("grape", "pecanpy_kernel"),
    "10M": (),
}
TARGET = {"10M": 12.0}  # ns a hop


class Names:
    """Identifiers that are never stored: ten million strings take more memory than the graph."""

    def __init__(self, prefix: str, n: int) -> None:
        self.prefix, self.n = prefix, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> str:
        if not 0 <= i < self.n:
            raise IndexError(i)
        return f"{self.prefix}{i}"

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(self.n))


def generated(n_questions: int, n_concepts: int) -> KnowledgeGraph:
    """Most questions have one concept, some up to four; a concept's popularity falls like rank^-0.8."""
    rng = np.random.default_rng(0)
    degree = rng.choice([1, 2, 3, 4], size=n_questions, p=[0.81, 0.13, 0.04, 0.02])
    popularity = (1.0 + rng.permutation(n_concepts)) ** -0.8
    tickets = np.repeat(np.arange(n_concepts), np.ceil(popularity / popularity.sum() * 100 * n_concepts).astype(int))
    q = np.repeat(np.arange(n_questions), degree)
    c = tickets[rng.integers(len(tickets), size=len(q))]
    edge = np.unique(q * np.int64(n_concepts) + c)
    w = sparse.csr_array((np.ones(len(edge)), (edge // n_concepts, edge % n_concepts)), shape=(n_questions, n_concepts))
    return KnowledgeGraph(Names("q", n_questions), Names("c", n_concepts), w)  # type: ignore[arg-type]


def load(size: str) -> KnowledgeGraph:
    folder = Path(os.environ.get("QCQ_DATA", "")) / "s2kt_assist09"
    if size == "assist09" and "QCQ_DATA" in os.environ and folder.is_dir():
        from qcq.data import read

        return KnowledgeGraph.from_dataset(read(f"s2kt:{folder}"))
    return generated(*{"assist09": (17_751, 123), "1M": (10**6, 10**4), "10M": (10**7, 10**5)}[size])


def ours(walk: WalkStrategy, graph: KnowledgeGraph, compiled: bool = True) -> Callable[[], float]:
    """A round: ns a hop."""
    sampler = Sampler(walk, graph, 0, compiled)
    n = min(sampler.n_walks, ROUND // (2 * LENGTH - 2))

    def sample() -> float:
        began = time.perf_counter()
        out = np.empty((n, sampler.width), dtype=np.int32)
        sampler.fill(0, out, np.zeros(3, dtype=np.int64))
        return (time.perf_counter() - began) / (n * (2 * LENGTH - 2)) * 1e9

    return sample


def environment(peer: str, install: bool) -> str:
    """The peer's own Python. Raises RuntimeError with the reason where it can't be had."""
    if NEEDS[peer] is None:
        return sys.executable
    needs = NEEDS[peer] or []
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qcq" / "benchmarks"
    folder = cache / ("pecanpy" if peer.startswith("pecanpy") else peer)
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return str(python)
    if not install:
        raise RuntimeError("not installed; --quick installs nothing")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    for part in [needs[:-1], needs[-1:]] if peer == "torch_cluster" else [needs]:  # its build needs torch
        isolated = ["--no-build-isolation"] if part == needs[-1:] and peer == "torch_cluster" else []
        command = [str(python), "-m", "pip", "install", "-q", "--prefer-binary", *isolated, *part]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        except subprocess.TimeoutExpired:
            raise RuntimeError("can't be installed: pip took more than 20 minutes") from None
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "rror" in line]
            raise RuntimeError(f"can't be installed: {(errors or ['pip failed'])[-1].strip()[:150]}")
    ready.touch()
    return str(python)


@contextmanager
def peer_rounds(peer: str, edges: Path, install: bool) -> Iterator[tuple[str, list[str], Callable[[str], float]]]:
    """Version, kinds of walk, and a round of one kind: ns a hop."""
    script = Path(__file__).with_name("walk_peers.py")
    process = subprocess.Popen(
        [environment(peer, install), str(script), peer, str(edges), str(TOKENS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NUMBA_NUM_THREADS": str(n_threads()), "OMP_NUM_THREADS": str(n_threads())},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    def answer() -> dict[str, Any]:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"can't be run: {(process.stderr.read().strip().splitlines() or ['no answer'])[-1][:150]}"
            )
        return json.loads(line)

    def sample(kind: str) -> float:
        process.stdin.write(kind + "\n")
        process.stdin.flush()
        said = answer()
        return said["seconds"] / said["hops"] * 1e9

    try:
        about = answer()
        yield about["version"], about["kinds"], sample
    finally:
        process.kill()
        process.wait()


def row(case: str, peer: str, version: str, mine: float, theirs: float, unit: str, ratio: float) -> Row:
    return {
        "benchmark": "walks", "case": case, "peer": peer, "peer_version": version, "ours": mine, "theirs": theirs,
        "unit": unit, "ratio": ratio,
    }  # fmt: skip


def warm(once: Callable[[], float]) -> float:
    """The second of two rounds: the first brings back the caches, threads and pages that the other side has taken."""
    once()
    return once()


def paired(
    case: str, peer: str, version: str, mine: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> Row:
    """Alternating rounds after one of each to warm up; of a peer that takes over 15 s a round, that one counts."""
    mine()
    began = time.perf_counter()
    a, b = [warm(mine)], [theirs()]
    rounds = min(rounds, int(30 / (2 * (time.perf_counter() - began))))
    if rounds:
        a, b = map(list, zip(*((warm(mine), warm(theirs)) for _ in range(rounds)), strict=True))
    ours_, theirs_ = statistics.median(a), statistics.median(b)
    made = row(case, SHOWN.get(peer, peer), version, ours_, theirs_, "ns/hop", theirs_ / ours_)
    show(made)
    return made


def show(r: Row) -> None:
    peer = f"{r['peer']} {r['peer_version']}"
    print(f"{r['case']:<28} {peer:<36} {r['ours']:>8.2f} {r['theirs']:>10.2f} {r['unit']:>9} {r['ratio']:>9.1f}×")


def against(size: str, peers: list[str], rounds: int, install: bool) -> list[Row]:
    graph = load(size)
    print(f"\n{size}: {graph.n_questions:,} questions, {graph.n_concepts:,} concepts, {graph.n_edges:,} edges")
    print(f"{'case':<28} {'peer':<36} {'ours':>8} {'theirs':>10} {'unit':>9} {'ratio':>10}")
    again = max(10, -(-ROUND // (graph.n_questions * (2 * LENGTH - 2))))
    shared: dict[str, Any] = {"length": LENGTH, "per_question": again}
    first = {
        f"qcq {size}": ours(WALKS["qcq"](keep_concepts=True, **shared), graph),
        f"qcq-questions-only {size}": ours(WALKS["qcq"](**shared), graph),
    }
    second = {f"node2vec {size}": ours(Node2Vec(keep_concepts=True, p=1.0, q=0.5, **shared), graph)}
    rows = []
    if size == "assist09":
        loop = ours(WALKS["qcq"](keep_concepts=True, **shared), graph, compiled=False)
        rows.append(paired(f"qcq {size}", "numpy_loop", qcq.__version__, first[f"qcq {size}"], loop, rounds))
    if size in TARGET:
        for case, mine in (first | second).items():
            mine()
            ns = statistics.median(warm(mine) for _ in range(rounds))
            rows.append(row(case, "target", "", ns, TARGET[size], "ns/hop", TARGET[size] / ns))
            show(rows[-1])
    coo = graph.weights.tocoo()
    with tempfile.TemporaryDirectory() as folder:
        edges = Path(folder) / "edges.npz"
        np.savez(edges, q=coo.row, c=coo.col, n_questions=graph.n_questions, n_concepts=graph.n_concepts)
        for peer in peers:
            try:
                with peer_rounds(peer, edges, install) as (version, kinds, sample):
                    for kind, cases in (("first", first), ("node2vec", second)):
                        for case, mine in cases.items() if kind in kinds else ():
                            rows.append(paired(case, peer, version, mine, partial(sample, kind), rounds))
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"{'':<28} {SHOWN.get(peer, peer)}: {error}")
    return rows


def text(rounds: int) -> list[Row]:
    """Million tokens a second, written as text: ours, numpy's writer, pandas' writer."""
    import pandas as pd

    graph = generated(17_751, 123)
    corpus = WALKS["qcq"](length=LENGTH, per_question=5).sample(graph)
    few = corpus.tokens[:10_000]
    print(f"\ntext: {corpus.n_tokens:,} tokens")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walks.txt"
        ids = [*graph.questions]
        names = np.array(ids)

        def speed(write: Callable[[], Any], tokens: int) -> Callable[[], float]:
            def once() -> float:
                began = time.perf_counter()
                write()
                return tokens / (time.perf_counter() - began) / 1e6

            return once

        mine = speed(lambda: corpus.to_text(path, ids), corpus.n_tokens)
        writers = {
            ("numpy.savetxt", np.__version__): lambda: np.savetxt(path, names[few], fmt="%s"),
            ("pandas.to_csv", pd.__version__): lambda: pd.DataFrame(names[few]).to_csv(
                path, sep=" ", header=False, index=False
            ),
        }
        rows = []
        for (peer, version), write in writers.items():
            theirs = speed(write, few.size)
            a, b = zip(*((mine(), theirs()) for _ in range(rounds)), strict=True)
            x, y = statistics.median(a), statistics.median(b)
            rows.append(row("qcq-text assist09", peer, version, x, y, "Mtoken/s", x / y))
            show(rows[-1])
    return rows


def to_disk(folder: Path) -> list[Row]:
    """Four billion tokens; theirs is the target, 6 GiB."""
    with measured() as building:
        graph = generated(10**7, 10**5)
    walk = WALKS["qcq"](length=LENGTH, per_question=10)
    print(f"\n10M to disk: {walk.plan(graph)}")
    with measured() as cost:
        corpus = walk.stream(graph, folder)
    peak = max(cost.peak_rss_mb, building.peak_rss_mb)
    print(f"{corpus.n_tokens:,} tokens sampled, hashed and written in {cost.seconds:.0f} s, digest {corpus.digest}")
    made = row("qcq-to-disk 10M memory", "target", "", peak, 6144.0, "MiB", 6144.0 / peak)
    show(made)
    return [made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--only", default="", help="of assist09, 1M, 10M, text")
    parser.add_argument("--peers", default="", help=f"of {', '.join(NEEDS)}")
    parser.add_argument("--rounds", type=int, help="paired rounds (default 9, or 3 with --quick)")
    parser.add_argument("--disk", type=Path, help="sample four billion tokens to this folder, and nothing else")
    args = parser.parse_args()
    rounds = args.rounds or (3 if args.quick else 9)
    sizes = (
        args.only.split(",") if args.only else ["assist09", "text"] if args.quick else ["assist09", "1M", "10M", "text"]
    )
    print(f"qcq {qcq.__version__}, {n_threads()} threads")
    rows: list[Row] = []
    if args.disk:
        rows += to_disk(args.disk)
        sizes = []
    for size in sizes:
        if size == "text":
            rows += text(rounds)
            continue
        quick = ["grape", "pecanpy_kernel", "networkx_loop"]
        peers = args.peers.split(",") if args.peers else quick if args.quick else list(NEEDS)
        rows += against(size, [p for p in peers if p in LARGE.get(size, peers)], rounds, not args.quick)
    if args.json:
        args.json.write_text(json.dumps(stamped(rows), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
