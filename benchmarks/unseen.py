"""What inferred vectors of new questions are worth, beside those of a table that was trained with the questions.

A tenth of the questions is held out whole, a table is trained without them, and they are inferred from their concepts
alone (:func:`qcq.recipes.add`). Four tables are compared on the held-out questions: ``retrained`` on all questions,
``inferred``, ``concepts`` (the mean of the concepts of the same table) and two that know nothing or only the concepts,
``random`` and ``concept-mean``. No table and no knowledge-tracing model reads a training answer to a held-out question.

- ``auc``: ``kt-fast`` on test attempts at held-out questions. ``lead`` is that of the retrained table over ``random``
  with its interval over test students; ``kept`` the share of it that inference keeps, None where that interval takes in
  zero.
- ``moved``: 1 - cosine with the retrained vector after an orthogonal turn; ``old``, the same of the old questions.
- ``mrr``: held-out questions with several concepts lose one before training and inference; it is ranked among all.
- ``map``: the other questions ranked for a held-out one; those that share a concept are relevant.
- ``seconds``: processor time for inferring 1,000 questions of new sets of concepts, twins aside.

    python benchmarks/unseen.py s2kt:DIR pebg:DIR --json docs/results/unseen.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy
from record import made

from qcq.data import Dataset, load
from qcq.embeddings import Embeddings
from qcq.evaluation.ranking import expected_precision, expected_reciprocal_rank, similarities, unit
from qcq.evaluation.statistics import auc_units, paired_bootstrap
from qcq.evaluation.task import Partition, Score
from qcq.evaluation.tracing.fast import KTFast
from qcq.models.inference import by_concepts, opened
from qcq.recipes import add, embed
from qcq.report.diff import difference

TRAINERS = ("netmf", "svd", "spectral", "sgns", "fasttext")
SHARE = 0.1
QUERIES = 500  # held-out questions whose retrieval is measured, at most


def part(data: Dataset, rows: np.ndarray, matrix: scipy.sparse.csr_array | None = None) -> Dataset:
    """Some questions of a data set, without answers."""
    own = scipy.sparse.csr_array((data.q_matrix if matrix is None else matrix)[rows])
    return Dataset(data.name, [data.questions[i] for i in rows], data.concepts, own)


def tables(less: Embeddings, whole: Embeddings, bank: Dataset, new: Dataset) -> dict[str, Embeddings]:
    """The retrained, the inferred and the concepts' table."""
    old = less.vectors.astype(np.float64)
    mean = by_concepts(bank.q_matrix, old, new.q_matrix)
    concepts = Embeddings([*less.ids, *new.questions], np.vstack([less.vectors, mean]))
    return {"retrained": whole, "inferred": add(less, None, new).embeddings, "concepts": concepts}


class HeldOut:
    """``kt-fast`` on attempts at held-out questions; no attempt at them is trained on."""

    def __init__(self, data: Dataset, away: np.ndarray, seed: int) -> None:
        self.data, self.task = data, KTFast(Partition.make(data, seed, hold_out_edges=False))
        attempts = self.task.attempts
        for name in ("train", "validation"):
            held = attempts.parts[name]
            kept = held.interactions.where(~np.isin(held.interactions.question, away))
            attempts.parts[name] = replace(held, interactions=kept)
        attempts.train = attempts.parts["train"]  # type: ignore[assignment]
        self.away = away
        attempts.judge = self.judge  # type: ignore[method-assign]

    def judge(self, probability: np.ndarray, stage: str, ahead: np.ndarray | None = None) -> Score:
        r = self.task.attempts.parts[stage].interactions
        on = np.isin(r.question, self.away)
        return Score.of_units({"auc": auc_units(r.correct[on], probability[on], r.student[on])})

    def units(self, table: Embeddings) -> np.ndarray:
        """The share of each test student in the AUC; their mean is the AUC."""
        return self.task.score(table.aligned(self.data.questions)).units["auc"]


def mrr(table: Embeddings, bank: Dataset, new: Dataset, lost: np.ndarray) -> float:
    """Of the concept ``lost[i]`` that new question i has lost (-1: none), among those that it doesn't have."""
    tested = (bank.q_matrix > 0).astype(np.float64)
    n = np.asarray(tested.sum(axis=0)).ravel()
    old = table.vectors[[table.index[q] for q in bank.questions]]
    concepts = unit(np.asarray(tested.T @ old) / np.maximum(n, 1)[:, None])
    asked = np.flatnonzero(lost >= 0)
    cosine = unit(table.vectors[[table.index[new.questions[i]] for i in asked]]) @ concepts.T
    wanted = cosine[np.arange(len(asked)), lost[asked]][:, None]
    cosine[:, n == 0] = -np.inf
    cosine[new.q_matrix[asked].nonzero()] = -np.inf
    level = np.abs(cosine - wanted) <= 1e-6
    return float(expected_reciprocal_rank((cosine > wanted + 1e-6).sum(axis=1), level.sum(axis=1) - 1).mean())


def retrieval(table: Embeddings, data: Dataset, away: np.ndarray, seed: int) -> float:
    """MAP of held-out questions."""
    tested = (data.q_matrix > 0).astype(np.float64)
    shared = (scipy.sparse.csr_array(tested[away]) @ tested.T).tocsr()
    asked = np.random.default_rng(seed).permutation(len(away))[:QUERIES]
    vectors, found = table.aligned(data.questions).vectors, []
    for i, (query, scores) in zip(asked, similarities(vectors, away[asked]), strict=True):
        others = np.setdiff1d(shared[[i]].indices, [query])
        if len(others):
            found.append(expected_precision(np.delete(scores, query), others - (others > query), 10)[0])
    return float(np.mean(found))


def seconds(table: Embeddings, seed: int) -> float | None:
    """For 1,000 questions of up to three concepts each; None where the trainer has no way."""
    model = opened(table)
    assert model is not None
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.diff(model.graph.by_concept.indptr))
    weights = scipy.sparse.lil_array((1_000, model.graph.n_concepts))
    for i in range(1_000):
        weights[i, rng.choice(known, rng.integers(1, 4))] = 1.0
    start = time.process_time()
    made = model.parts[0].infer(model.graph, table.vectors.astype(np.float64), weights.tocsr())
    return None if made is None else time.process_time() - start


def thinned(data: Dataset, away: np.ndarray, rng: np.random.Generator) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """The q-matrix in which each held-out question with several concepts has lost one, and which: int64 (away,)."""
    matrix, lost = scipy.sparse.lil_array(data.q_matrix), np.full(len(away), -1)
    for at, i in enumerate(away):
        own = data.q_matrix[[i]].indices
        if len(own) > 1:
            lost[at] = rng.choice(own)
            matrix[i, lost[at]] = 0
    return matrix.tocsr(), lost


def measured(data: Dataset, trainer: str, seed: int, dim: int) -> dict[str, object]:
    """All figures of one seed."""
    rng = np.random.default_rng(seed)
    every = np.arange(len(data.questions))
    away = np.sort(rng.choice(every, int(SHARE * len(every)), replace=False))
    rest = np.setdiff1d(every, away)

    def trained(name: str, rows: np.ndarray, matrix: scipy.sparse.csr_array | None = None) -> Embeddings:
        return embed(part(data, rows, matrix), walk="qcq", trainer=name, dim=dim, seed=seed)

    bank, new = part(data, rest), part(data, away)
    less = trained(trainer, rest)
    tried = tables(less, trained(trainer, every), bank, new)
    base = {"random": trained("random", every), "concept-mean": trained("concept-mean", every)}
    row: dict[str, object] = {
        "seed": seed,
        "twins": add(less, None, new).by_set / len(away),
        "seconds": seconds(less, seed),
    }
    for name in ("inferred", "concepts"):
        found = difference(tried["retrained"], tried[name])
        moved = dict(zip(found.questions, found.moved, strict=True))
        row[f"moved_{name}"] = float(np.mean([moved[q] for q in new.questions]))
        row["moved_old"] = float(np.mean([moved[q] for q in bank.questions]))
    task = HeldOut(data, away, seed)
    units = {name: task.units(table) for name, table in {**tried, **base}.items()}
    row |= {f"auc_{name}": float(each.mean()) for name, each in units.items()}
    lead = paired_bootstrap(units["retrained"], units["random"])
    row["lead"] = [lead.mean, lead.low, lead.high]
    for name in ("inferred", "concepts"):
        kept = float((units[name] - units["random"]).mean()) / lead.mean if lead.low > 0 else None
        row[f"kept_{name}"] = kept
    row |= {f"map_{name}": retrieval(table, data, away, seed) for name, table in {**tried, **base}.items()}
    matrix, lost = thinned(data, away, rng)
    if (lost >= 0).any():
        fewer = part(data, away, matrix)
        thin = {**tables(less, trained(trainer, every, matrix), bank, fewer)}
        thin |= {name: trained(name, every, matrix) for name in base}
        row |= {f"mrr_{name}": mrr(table, bank, fewer, lost) for name, table in thin.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--trainers", default=",".join(TRAINERS))
    parser.add_argument(
        "--json", type=Path, help="written after every figure; figures that are in it aren't made again"
    )
    given = parser.parse_args()
    known = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    results = known.get("results", []) if known.get("version") == 2 else []
    for source in given.data:
        data = load(source)
        for trainer in given.trainers.split(","):
            for seed in range(given.seeds):
                mark = {"data": data.name, "trainer": trainer, "seed": seed, "dim": given.dim}
                if any(mark.items() <= row.items() for row in results):
                    continue
                results.append({**mark, **measured(data, trainer, seed, given.dim)})
                if given.json:
                    text = json.dumps({"version": 2, "made": made(), "results": results}, indent=2)
                    given.json.write_text(text + "\n")
            mine = [row for row in results if row["data"] == data.name and row["trainer"] == trainer]
            names = [name for name in mine[0] if name not in ("data", "trainer", "seed", "dim", "lead")]
            held = {name: [row[name] for row in mine if row.get(name) is not None] for name in names}
            print(data.name, trainer, {name: round(float(np.median(each)), 3) for name, each in held.items() if each})


if __name__ == "__main__":
    main()
