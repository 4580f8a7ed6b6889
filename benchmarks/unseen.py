"""How near added vectors come to those of a table that was trained with the questions.

A tenth of the questions is held out whole, the table is trained without them, and they are added. Every vector is
compared with the one in a table trained on all questions, after an orthogonal turn. ``concepts`` adds by the mean of
the concepts alone, ``add`` is :func:`qcq.recipes.add`. Beside them stands how far the old questions moved by training
again.

    python benchmarks/unseen.py s2kt:DIR pebg:DIR --json docs/results/unseen.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import scipy

from qcq.data import Dataset, load
from qcq.embeddings import Embeddings
from qcq.recipes import add, embed
from qcq.report.diff import difference

RECIPES = ("concepts", "similar")
SHARE = 0.1


def part(data: Dataset, rows: np.ndarray) -> Dataset:
    """Some questions of a data set, without answers."""
    matrix = scipy.sparse.csr_array(data.q_matrix[rows])
    return Dataset(data.name, [data.questions[i] for i in rows], data.concepts, matrix)


def by_concepts(table: Embeddings, bank: Dataset, new: Dataset) -> Embeddings:
    """Every new question as the mean of its concepts, whether or not another one has exactly these."""
    old = table.aligned(bank.questions).vectors.astype(np.float64)
    tested = (bank.q_matrix > 0).astype(np.float64)
    means = (tested.T @ old) / np.maximum(tested.sum(axis=0), 1)[:, None]
    wanted = (new.q_matrix > 0).astype(np.float64) * (tested.sum(axis=0) > 0)
    rows = (wanted @ means) / np.maximum(wanted.sum(axis=1), 1)[:, None]
    return Embeddings([*table.ids, *new.questions], np.vstack([table.vectors, rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = []
    for source in given.data:
        data = load(source)
        every = np.arange(len(data.questions))
        for recipe in RECIPES:
            found = []
            for seed in range(given.seeds):
                away = np.sort(np.random.default_rng(seed).choice(every, int(SHARE * len(every)), replace=False))
                bank, new = part(data, np.setdiff1d(every, away)), part(data, away)
                whole, less = embed(part(data, every), recipe, seed=seed), embed(bank, recipe, seed=seed)
                made = add(less, bank, new)
                tables = {"add": made.embeddings, "concepts": by_concepts(less, bank, new)}
                row = {"same_set": made.by_set / len(away)}
                for name, table in tables.items():
                    moved = dict(zip((d := difference(whole, table)).questions, d.moved, strict=True))
                    row[name] = float(np.mean([moved[q] for q in new.questions]))
                    row["old"] = float(np.mean([moved[q] for q in bank.questions]))
                found.append(row)
            means = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
            spread = {f"{name}_sd": float(np.std([row[name] for row in found], ddof=1)) for name in found[0]}
            results.append({"data": data.name, "recipe": recipe, **means, **spread})
            print(
                f"| {data.name} | {recipe} | {means['same_set']:.0%} | {means['add']:.3f} | {means['concepts']:.3f} | "
                f"{means['old']:.3f} |"
            )
    if given.json:
        given.json.write_text(json.dumps({"seeds": given.seeds, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
