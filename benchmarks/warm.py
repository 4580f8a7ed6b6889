"""What a warm start saves, and whether the space stays: a twentieth of the questions is new.

The table is trained without them, then with them: once from scratch (cold), once from the old weights (warm), which
takes a quarter of the steps at a twentieth of the learning rates. Losses are nats on the same held-out walks of the new
graph; the cosine is between old and new vectors of the old questions, without any turn.

    python benchmarks/warm.py s2kt:DIR [--trainers sgns,mlm,cloze] [--json docs/results/warm.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from record import made

from qcq.data import Dataset, load
from qcq.embeddings import WEIGHTS
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Model, TrainingData
from qcq.recipes import beginning
from qcq.walks import WALKS

SHARE = 0.05
COSINE, STEPS = 0.95, 0.25  # to reach


def part(data: Dataset, rows: np.ndarray) -> Dataset:
    """Some questions of a data set, without answers."""
    matrix = scipy.sparse.csr_array(data.q_matrix[rows])
    return Dataset(data.name, [data.questions[i] for i in rows], data.concepts, matrix)


def loss(model: Model, source: TrainingData) -> float:
    assert model.objective is not None
    return float(model.losses(model.objective.held_out_batch(source.heldout, 0)).mean())


def measured(name: str, data: Dataset, seed: int, settings: dict[str, int]) -> dict[str, float]:
    every = np.arange(len(data.questions))
    away = np.random.default_rng(seed).choice(every, int(SHARE * len(every)), replace=False)
    bank, whole = part(data, np.setdiff1d(every, away)), part(data, every)
    trainer, walk = TRAINERS[name](**settings), WALKS["qcq"]()
    old = trainer.fit(TrainingData(KnowledgeGraph.from_dataset(bank), walk, seed), seed)
    source = TrainingData(KnowledgeGraph.from_dataset(whole), walk, seed + 100)
    with tempfile.TemporaryDirectory() as home:
        weights = old.weights()
        assert weights is not None
        weights.save(Path(home) / WEIGHTS)
        start = beginning(Path(home), name, whole)
    began = time.process_time()
    cold = trainer.fit(source, seed + 100)
    between = time.process_time()
    warm = trainer.fit(replace(source, start=start), seed + 100)
    ended = time.process_time()
    tables = [model.embeddings() for model in (old, warm, cold)]
    units = [t.unit[[t.index[q] for q in bank.questions]] for t in tables]
    return {
        "cold_loss": loss(cold, source),
        "warm_loss": loss(warm, source),
        "steps": warm.tokens / cold.tokens,
        "cosine": float(np.mean(np.sum(units[0] * units[1], axis=1))),
        "cold_cosine": float(np.mean(np.sum(units[0] * units[2], axis=1))),
        "cold_cpu_seconds": between - began,
        "warm_cpu_seconds": ended - between,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--trainers", default="sgns,mlm,cloze")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of a cold start of mlm and cloze; by default the trainers' own")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    data, rows = load(args.data), []
    for name in args.trainers.split(","):
        settings = {"steps": args.steps} if args.steps and name != "sgns" else {}
        for seed in range(args.seeds):
            rows.append({"data": data.name, "trainer": name, "seed": seed, **measured(name, data, seed, settings)})
            print(json.dumps(rows[-1]), flush=True)
        print(json.dumps(medians(rows)[-1]), flush=True)
        if args.json:
            about = {"made": made(data), "share": SHARE, "target": {"cosine": COSINE, "steps": STEPS}}
            held = {**about, "settings": settings, "medians": medians(rows), "seeds": rows}
            args.json.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each trainer, and how many seeds reach the loss of a cold start."""
    out = []
    for name in dict.fromkeys(row["trainer"] for row in rows):
        mine = [row for row in rows if row["trainer"] == name]
        row = {"of": "medians", "data": mine[0]["data"], "trainer": name, "seeds": len(mine)}
        row["reached"] = sum(each["warm_loss"] <= each["cold_loss"] for each in mine)
        row |= {
            key: statistics.median(each[key] for each in mine) for key in mine[0] if isinstance(mine[0][key], float)
        }
        out.append(row)
    return out


if __name__ == "__main__":
    main()
