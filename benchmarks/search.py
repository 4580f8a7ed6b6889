"""How fast the nearest questions are found among a million, exactly and by an index, with and without a filter.

The table is drawn: each of a million questions stands near one of ten thousand concepts. ``ours`` is
``Embeddings.nearest``, which is exact. The indexes are measured where they are installed: ``faiss-cpu`` with HNSW
(Malkov & Yashunin 2018) and a selector of rows, and ``usearch`` with HNSW, which has no filter in Python, so it is
asked for more neighbours than are needed and those outside the filter are dropped.

    python benchmarks/search.py [--rows N] [--json docs/results/search.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from record import made

from qcq.embeddings import Embeddings

DIM, K, QUERIES, CONCEPTS = 64, 10, 50, 10_000
SHARES = (1.0, 0.5, 0.1, 0.01)  # of the questions that a filter leaves
LINKS, BUILD, SEARCH = 16, 100, 100  # of HNSW: links a row, candidates while building and while searching
TARGET = 20.0  # ms

Ask = Callable[[int, np.ndarray | None], list[int]]


def table(rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CONCEPTS, DIM))
    return (centres[rng.integers(0, CONCEPTS, rows)] + 0.7 * rng.normal(size=(rows, DIM))).astype(np.float32)


def exact(emb: Embeddings) -> Ask:
    _ = emb.unit

    def ask(i: int, where: np.ndarray | None) -> list[int]:
        return [emb.index[name] for name, _ in emb.nearest(emb.ids[i], K, where=where)]

    return ask


def faiss(emb: Embeddings) -> Ask:
    import faiss as library

    index = library.IndexHNSWFlat(DIM, LINKS, library.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD
    index.add(emb.unit)

    def ask(i: int, where: np.ndarray | None) -> list[int]:
        given = library.SearchParametersHNSW(efSearch=SEARCH)
        if where is not None:
            bits = np.packbits(where, bitorder="little")
            given.sel = library.IDSelectorBitmap(bits)
        _, found = index.search(emb.unit[i : i + 1], K + 1, params=given)
        return [int(j) for j in found[0] if j not in (i, -1)][:K]

    return ask


def usearch(emb: Embeddings) -> Ask:
    from usearch.index import Index

    index = Index(ndim=DIM, metric="ip", dtype="f32", connectivity=LINKS, expansion_add=BUILD, expansion_search=SEARCH)
    index.add(np.arange(len(emb)), emb.unit)

    def ask(i: int, where: np.ndarray | None) -> list[int]:
        share = 1.0 if where is None else float(where.mean())
        found = index.search(emb.unit[i], int(2 * (K + 1) / share)).keys
        return [int(j) for j in found if j != i and (where is None or where[j])][:K]

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    emb = Embeddings([str(i) for i in range(args.rows)], table(args.rows))
    rng = np.random.default_rng(1)
    asked = rng.choice(args.rows, QUERIES, replace=False).tolist()
    filters = {share: None if share == 1 else rng.random(args.rows) < share for share in SHARES}
    makers: dict[str, Callable[[Embeddings], Ask]] = {"ours": exact}
    makers |= {name: make for name, make in (("faiss", faiss), ("usearch", usearch)) if find_spec(name)}
    truth: dict[float, list[set[int]]] = {}
    rows: list[dict[str, Any]] = []
    print(f"{'':10}{'left':>6}{'ms':>9}{'CPU ms':>9}{'recall@10':>11}{'build s':>10}")
    for name, make in makers.items():
        began = time.process_time()
        ask = make(emb)
        build = time.process_time() - began
        for share, where in filters.items():
            wall, cpu, recall = [], [], []
            for at, i in enumerate(asked):
                start, used = time.perf_counter(), time.process_time()
                found = ask(i, where)
                wall.append(1e3 * (time.perf_counter() - start))
                cpu.append(1e3 * (time.process_time() - used))
                if name == "ours":
                    truth.setdefault(share, []).append(set(found))
                recall.append(len(truth[share][at].intersection(found)) / K)
            row: dict[str, Any] = {
                "method": name,
                "left": share,
                "ms": round(statistics.median(wall), 3),
                "cpu_ms": round(statistics.median(cpu), 3),
                "recall_at_10": round(statistics.mean(recall), 4),
                "build_cpu_seconds": round(build, 1),
            }
            ours = next((r for r in rows if r["method"] == "ours" and r["left"] == share), row)
            row["exact_ratio"] = round(ours["ms"] / row["ms"], 2)
            rows.append(row)
            print(
                f"{name:10}{share:6.0%}{row['ms']:9.2f}{row['cpu_ms']:9.2f}{row['recall_at_10']:11.3f}{build:10.1f}",
                flush=True,
            )
        if args.json:
            about = {"made": made(), "rows": args.rows, "dim": DIM, "k": K, "queries": QUERIES, "target_ms": TARGET}
            args.json.write_text(json.dumps({**about, "results": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
