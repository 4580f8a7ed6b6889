"""How long typed walks take against ``qcq``, at equal hops.

    python benchmarks/typed_speed.py [--questions 17000] [--json FILE] [--quick]

Simulated classroom with 150 concepts and a sixth as many students as questions, 60 responses each; 40 questions a walk,
the compiled loop on all cores. Strategies take turns, the figures are medians over the rounds; ``ratio`` is the time of
``qcq`` over that of the walk, so 1 is as quick and 0.5 takes twice as long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from record import stamped

import qcq
from qcq.data import Simulated
from qcq.graph import KnowledgeGraph
from qcq.walks import WALKS
from qcq.walks.sampler import Sampler

CASES: list[tuple[str, dict]] = [
    ("qcq", {}),
    ("weighted", {}),
    ("metapath", {"pattern": "q-c-q"}),
    ("metapath", {"pattern": "q-s-q"}),
    ("metapath", {"pattern": "0.6*q-c-q + 0.4*q-s+-q"}),
    ("metapath", {"pattern": "0.5*q-c-q + 0.5*q-d-q"}),
    ("just", {}),
]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--questions", type=int, default=17_000)
    ask.add_argument("--json", type=Path)
    ask.add_argument("--quick", action="store_true", help="a tenth of the walks, three rounds")
    given = ask.parse_args()
    n = given.questions
    room = Simulated(questions=n, concepts=150, sets=200, students=n // 6, responses=60).read()
    graph, train = KnowledgeGraph.from_dataset(room), room.split().train
    index = np.arange(15_000 if given.quick else 150_000) % (10 * n)
    samplers = []
    for name, settings in CASES:
        walk = WALKS[name](**settings)
        sampler = Sampler(walk, walk.prepare(graph, train), 0, compiled=True)
        sampler.sample(index[:1000])  # compiled, and tables packed
        samplers.append(sampler)
    seconds: list[list[float]] = [[] for _ in CASES]
    for _ in range(3 if given.quick else 5):
        for sampler, mine in zip(samplers, seconds, strict=True):
            began = time.perf_counter()
            sampler.sample(index)
            mine.append(time.perf_counter() - began)
    median = [statistics.median(mine) / (len(index) * 78) * 1e9 for mine in seconds]
    made = []
    print("| walk | ns a hop | ratio |\n|---|---:|---:|")
    for (name, settings), ours in zip(CASES, median, strict=True):
        case = " ".join([name, *settings.values()])
        print(f"| {case} | {ours:.1f} | {median[0] / ours:.2f} |")
        made.append(
            {
                "benchmark": "typed_speed",
                "case": case,
                "peer": "qcq",
                "peer_version": qcq.__version__,
                "ours": ours,
                "theirs": median[0],
                "unit": "ns/hop",
                "ratio": median[0] / ours,
            }
        )
    if given.json:
        given.json.write_text(json.dumps(stamped(made), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
