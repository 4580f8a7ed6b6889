"""How long ``qcq inspect`` takes, and how much memory, against what it is allowed.

    python benchmarks/floors.py [--quick] [--json FILE]

Real graphs are read from $QCQ_DATA and left out where it isn't set. The large graph is drawn: 1 to 3 concepts a
question, concept c with a probability ∝ c^-0.7. Every case runs in a process of its own, imports and reading included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import stamped

LIMITS = {"s2kt_assist09": 10, "pebg_ednet": 10, "pebg_assist09_graph": 10, "1M": 120}  # seconds
QUICK = "100k"


def drawn(n_questions: int, n_concepts: int):
    import numpy as np
    from scipy import sparse

    from qcq import KnowledgeGraph

    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n_questions), rng.integers(1, 4, n_questions))
    p = np.arange(1, n_concepts + 1) ** -0.7
    w = sparse.csr_array((np.ones(len(rows)), (rows, rng.choice(n_concepts, len(rows), p=p / p.sum()))))
    w.resize((n_questions, n_concepts))
    w.sum_duplicates()
    w.data[:] = 1.0
    return KnowledgeGraph([f"q{i}" for i in range(n_questions)], [f"c{i}" for i in range(n_concepts)], w)


def child(case: str) -> None:
    from qcq import WALKS, KnowledgeGraph
    from qcq.data import read
    from qcq.floors.identifiability import inspect

    sizes = {"1M": (1_000_000, 10_000), QUICK: (100_000, 1_000)}
    graph = (
        drawn(*sizes[case]) if case in sizes else KnowledgeGraph.from_dataset(read(Path(os.environ["QCQ_DATA"]) / case))
    )
    stationary = inspect(graph, WALKS["qcq"]())["floors"]["stationary"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**stationary, "gib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run each, a smaller large graph; under a minute")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        child(args.case)
        return
    cases = dict(LIMITS)
    if args.quick:
        cases.pop("1M")
        cases[QUICK] = 60
    rows = []
    print(f"{'case':24}{'seconds':>10}{'limit':>8}{'GiB':>8}{'next':>9}{'both':>9}")
    for case, limit in cases.items():
        if case not in ("1M", QUICK) and not os.environ.get("QCQ_DATA"):
            print(f"{case:24}left out: set QCQ_DATA to the folder of the real data sets")
            continue
        seconds = []
        for _ in range(1 if args.quick or case == "1M" else 3):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, "--case", case], check=True, capture_output=True, text=True
            )
            seconds.append(time.perf_counter() - began)
        found, ours = json.loads(done.stdout), statistics.median(seconds)
        print(
            f"{case:24}{ours:10.1f}{limit:8d}{found['gib']:8.2f}{found['next_question']:9.3f}"
            f"{found['masked_both_neighbours']:9.3f}",
            flush=True,
        )
        rows.append(
            {
                "benchmark": "inspect",
                "case": f"qcq {case}",
                "peer": "stated limit",
                "peer_version": "",
                "ours": round(ours, 2),
                "theirs": limit,
                "unit": "s",
                "ratio": round(limit / ours, 2),
                "peak_gib": round(found["gib"], 2),
            }
        )
    if args.json:
        args.json.write_text(json.dumps(stamped(rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
