"""Which published tracer, with which table, is worth a fixed comparison? Chosen on validation; no test part is read.

The tables are those of ``experiments/referee.toml``. A cell is one data set, model, walk, trainer and seed. The model
is trained with the table, in each of the ways of that file, and with its own embedding from the same seed. A row has
the AUC of both on validation students. These choose the epoch and the way too, so both figures are a little too high,
and the table has one more choice. ``ahead`` is the difference, with its 95 % interval over students.

Finished cells are in the JSON file and are not made again.

    python benchmarks/published.py --data s2kt:DIR pebg:DIR --models qDKT,DIMKT --json docs/results/published.json
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from pathlib import Path
from typing import Any

from record import ROOT, made

from qcq.data import load
from qcq.embeddings import Embeddings
from qcq.evaluation import Partition, paired_bootstrap
from qcq.evaluation.tracing.peer import OWN, PEERS, KTPeer, KTPeerSettings
from qcq.models import TRAINERS, TrainingData
from qcq.support.files import write_text
from qcq.walks import Metapath

Row = dict[str, Any]
REFEREE = tomllib.loads((ROOT / "experiments" / "referee.toml").read_text(encoding="utf-8"))


def table(partition: Partition, walk: str, trainer: str, seed: int) -> Embeddings:
    """Vectors of a trainer on a walk of the file; only training students are read."""
    settings = {**REFEREE["walk"], **REFEREE[walk]}
    strategy = Metapath(**settings)
    assert partition.split is not None
    graph = strategy.prepare(partition.graph, partition.split.train)
    model = TRAINERS[trainer](dim=64).fit(TrainingData(graph, strategy, seed), seed)
    made = strategy.to_questions(partition.graph, model.embeddings())
    return Embeddings(made.ids, made.vectors, provenance={**made.provenance, "seed": seed})


def measured(task: KTPeer, vectors: Embeddings) -> Row:
    """AUC on validation students with the table and with the model's own embedding."""
    began = time.process_time()
    score = task.score(vectors, "validation")
    ahead = paired_bootstrap(score.units["auc"], score.units[f"{OWN}/auc"])
    return {
        "way": score.choices["way"],
        "toolkit": score.choices["toolkit"],
        "with the table": round(score.metrics["auc"], 4),
        "own embedding": round(score.metrics[f"{OWN}/auc"], 4),
        "ahead": {"value": round(ahead.mean, 4), "low": round(ahead.low, 4), "high": round(ahead.high, 4)},
        "cpu_seconds": round(time.process_time() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="FORMAT:PATH")
    parser.add_argument("--models", default="qDKT", help=f"comma-separated, of {', '.join(PEERS)}")
    parser.add_argument("--trainers", default=REFEREE["trainers"][0], help="comma-separated")
    parser.add_argument("--walks", default=",".join(REFEREE["walks"]), help="comma-separated, of the file")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--epochs", type=int, default=KTPeerSettings().epochs)
    parser.add_argument("--json", type=Path, help="written after every cell; cells that are in it aren't made again")
    given = parser.parse_args()

    def finished() -> list[Row]:
        there = given.json is not None and given.json.exists()
        return json.loads(given.json.read_text())["results"] if there else []

    results = finished()
    for source in given.data:
        data = load(source)
        for seed in (int(each) for each in given.seeds.split(",")):
            partition = Partition.make(data, seed, hold_out_edges=False)
            for model in given.models.split(","):
                ways = tuple(REFEREE["kt-peer"]["tables"])
                task = KTPeer(partition, KTPeerSettings(model=model, tables=ways, epochs=given.epochs))
                for walk in given.walks.split(","):
                    for trainer in given.trainers.split(","):
                        mark = {"data": data.name, "model": model, "walk": walk, "trainer": trainer, "seed": seed}
                        mark["epochs"] = given.epochs
                        if any(mark.items() <= row.items() for row in results):
                            continue
                        row = {**mark, **measured(task, table(partition, walk, trainer, seed))}
                        results = [*(finished() or results), row]  # another process may write the file too
                        if given.json:
                            held = {"made": made(data), "results": results}
                            write_text(given.json, json.dumps(held, indent=1) + "\n")
                        print(row, flush=True)


if __name__ == "__main__":
    main()
