"""What inferred vectors of new questions are worth, beside those of a table that was trained with the questions.

A tenth of the questions is held out whole, a table is trained without them, and they are inferred
(:func:`qcq.recipes.add`). There are two cases. ``concepts``: from their concepts alone. ``responses``: from their
concepts and the training students' answers to them, for the recipe ``tracing`` with its three numbers; the retrained
table then has the same answers. Five tables are compared on the held-out questions: ``retrained`` on all questions,
``inferred``, ``concepts`` (the mean of the concepts of the same table) and two that know nothing or only the concepts,
``random`` and ``concept-mean``. No knowledge-tracing model is trained on an answer to a held-out question.

- ``auc``: ``kt-fast`` on test attempts at held-out questions. ``lead`` is that of the retrained table over ``random``
  with its interval over test students; ``kept`` the share of it that inference keeps, None where that interval takes in
  zero.
- ``moved``: 1 - cosine with the retrained vector after an orthogonal turn; ``old``, the same of the old questions. None
  where the tables have different widths.
- ``mrr``: held-out questions with several concepts lose one before training and inference; it is ranked among all.
- ``map``: the other questions ranked for a held-out one; those that share a concept are relevant.
- ``seconds``: processor time for inferring 1,000 questions of new sets of concepts, none with a twin.

A cell is one data set, trainer, case and seed. Finished cells are in the JSON file and are not made again; its last
list, ``medians``, is over the seeds.

    python benchmarks/unseen.py --data s2kt:DIR pebg:DIR --seeds 0,1,2 --json docs/results/unseen.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from record import made

from qcq.data import Dataset, load
from qcq.embeddings import Embeddings
from qcq.errors import EmbeddingError
from qcq.evaluation.ranking import Cosines, expected_precision, expected_reciprocal_rank, unit
from qcq.evaluation.statistics import auc_units, paired_bootstrap
from qcq.evaluation.task import Partition, Score
from qcq.evaluation.tracing.fast import KTFast
from qcq.models.inference import by_concepts, opened
from qcq.recipes import add, embed
from qcq.report.diff import difference
from qcq.support.files import write_text

Row = dict[str, Any]
TRACING = "tracing"  # a recipe
TRAINERS = ("netmf", "svd", "spectral", "sgns", "fasttext", "mlm", TRACING)
NUMBERED = ("difficulty", "popularity", "rasch")
SECTIONS = {"mlm": {"steps": 1_500}}  # a quarter of its own: three trainings a cell
VERSION = 3
SHARE = 0.1
QUERIES = 500  # held-out questions whose retrieval is measured, at most


def part(
    data: Dataset, rows: np.ndarray, matrix: scipy.sparse.csr_array | None = None, answered: bool = True
) -> Dataset:
    """Some questions of a data set, with the answers to them unless told otherwise."""
    own = scipy.sparse.csr_array((data.q_matrix if matrix is None else matrix)[rows])
    made = replace(data, questions=[data.questions[i] for i in rows], q_matrix=own, truth={}, notes=())
    seen = data.interactions
    if seen is None or not answered:
        return replace(made, interactions=None)
    place = np.full(len(data.questions), -1, dtype=np.int32)
    place[rows] = np.arange(len(rows))
    kept = seen.where(place[seen.question] >= 0)
    return replace(made, interactions=replace(kept, question=place[kept.question]))


def without(data: Dataset, away: np.ndarray) -> Dataset:
    """All questions, without the answers to some."""
    seen = data.interactions
    assert seen is not None
    return replace(data, interactions=seen.where(~np.isin(seen.question, away)))


def log(data: Dataset, seed: int) -> dict[str, list]:
    """The answers of the training students, in their order."""
    r = data.split(seed).train.interactions
    return {
        "student": [data.students[i] for i in r.student],
        "question": [data.questions[i] for i in r.question],
        "correct": r.correct.tolist(),
    }


def tables(
    less: Embeddings, whole: Embeddings, bank: Dataset, new: Dataset, answers: dict[str, list] | None = None
) -> dict[str, Embeddings]:
    """The retrained, the inferred and the concepts' table."""
    old = less.vectors.astype(np.float64)
    mean = by_concepts(bank.q_matrix, old, new.q_matrix)
    concepts = Embeddings([*less.ids, *new.questions], np.vstack([less.vectors, mean]), provenance=less.provenance)
    return {"retrained": whole, "inferred": add(less, None, new, answers).embeddings, "concepts": concepts}


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


def compared(table: Embeddings) -> np.ndarray:
    """The vectors without columns of numbers, as ``nearest`` takes them."""
    return table.vectors[:, table.compared]


def mrr(table: Embeddings, bank: Dataset, new: Dataset, lost: np.ndarray) -> float:
    """Of the concept ``lost[i]`` that new question i has lost (-1: none), among those that it doesn't have."""
    tested = (bank.q_matrix > 0).astype(np.float64)
    n = np.asarray(tested.sum(axis=0)).ravel()
    vectors = compared(table)
    old = vectors[[table.index[q] for q in bank.questions]]
    concepts = unit(np.asarray(tested.T @ old) / np.maximum(n, 1)[:, None])
    asked = np.flatnonzero(lost >= 0)
    cosine = unit(vectors[[table.index[new.questions[int(i)]] for i in asked]]) @ concepts.T
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
    cosines, found = Cosines(compared(table.aligned(data.questions))), []
    for i, (query, scores, times) in zip(asked, cosines.of(away[asked]), strict=True):
        others = np.setdiff1d(shared[[i]].indices, [query])
        if len(others):
            found.append(expected_precision(scores, cosines.group[others], 10, times)[0])
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
    weights, nowhere = weights.tocsr(), np.ones(1_000, dtype=bool)  # a concept that nobody knows: no twins
    model.infer(table, scipy.sparse.csr_array(weights[:5]), nowhere[:5])  # libraries are loaded
    start = time.process_time()
    _, how, _ = model.infer(table, weights, nowhere)
    return time.process_time() - start if "model" in how else None


def thinned(data: Dataset, away: np.ndarray, rng: np.random.Generator) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """The q-matrix in which each held-out question with several concepts has lost one, and which: int64 (away,)."""
    matrix, lost = scipy.sparse.lil_array(data.q_matrix), np.full(len(away), -1)
    for at, i in enumerate(away):
        own = data.q_matrix[[i]].indices
        if len(own) > 1:
            lost[at] = rng.choice(own)
            matrix[i, lost[at]] = 0
    return matrix.tocsr(), lost


class Drawn:
    """What a seed draws of a data set, and the figures of the tables that know nothing or only the concepts."""

    def __init__(self, data: Dataset, seed: int, dim: int) -> None:
        rng = np.random.default_rng(seed)
        self.data, self.seed, self.dim = data, seed, dim
        self.every = np.arange(len(data.questions))
        self.away = np.sort(rng.choice(self.every, int(SHARE * len(self.every)), replace=False))
        self.matrix, self.lost = thinned(data, self.away, rng)
        self.task = HeldOut(data, self.away, seed)
        self.bank = part(data, np.setdiff1d(self.every, self.away), answered=False)
        self.new, self.fewer = (part(data, self.away, q, answered=False) for q in (None, self.matrix))
        base = {name: self.bare(name, self.every) for name in ("random", "concept-mean")}
        self.units, self.row = self.figures(base)
        self.row |= self.ranks({name: self.bare(name, self.every, self.matrix) for name in base})

    def bare(self, name: str, rows: np.ndarray, matrix: scipy.sparse.csr_array | None = None) -> Embeddings:
        """A trainer's table of some questions, without any answers."""
        bank = part(self.data, rows, matrix, answered=False)
        return embed(bank, walk="qcq", trainer=name, dim=self.dim, seed=self.seed, sections=SECTIONS)

    def figures(self, tables: dict[str, Embeddings]) -> tuple[dict[str, np.ndarray], Row]:
        """Each test student's share of the AUC, and AUC and MAP."""
        units = {name: self.task.units(table) for name, table in tables.items()}
        row: Row = {f"auc_{name}": float(each.mean()) for name, each in units.items()}
        for name, table in tables.items():
            row[f"map_{name}"] = retrieval(table, self.data, self.away, self.seed)
        return units, row

    def ranks(self, tables: dict[str, Embeddings]) -> Row:
        """MRR of the concept that each held-out question has lost."""
        if not (self.lost >= 0).any():
            return {}
        return {f"mrr_{name}": mrr(table, self.bank, self.fewer, self.lost) for name, table in tables.items()}


def measured(drawn: Drawn, trainer: str, case: str) -> Row:
    """All figures of one cell."""
    data, away, every, seed = drawn.data, drawn.away, drawn.every, drawn.seed
    bank, new, rest = drawn.bank, drawn.new, np.setdiff1d(every, away)
    answers = log(data, seed) if case == "responses" else None
    known = data if answers or data.interactions is None else without(data, away)

    def trained(rows: np.ndarray, matrix: scipy.sparse.csr_array | None = None) -> Embeddings:
        if trainer == TRACING:
            return embed(part(known, rows, matrix), trainer, dim=drawn.dim, seed=seed, numbers=NUMBERED)
        return drawn.bare(trainer, rows, matrix)

    less = trained(rest)
    tried = tables(less, trained(every), bank, new, answers)
    row: Row = {"twins": add(less, None, new).by_set / len(away), "seconds": seconds(less, seed)}
    for name in ("inferred", "concepts"):
        try:
            found = difference(tried["retrained"], tried[name])
        except EmbeddingError:  # other widths: the recipe leaves out directions without variance
            continue
        moved = dict(zip(found.questions, found.moved, strict=True))
        row[f"moved_{name}"] = float(np.mean([moved[q] for q in new.questions]))
        row["moved_old"] = float(np.mean([moved[q] for q in bank.questions]))
    units, own = drawn.figures(tried)
    row |= drawn.row | own
    lead = paired_bootstrap(units["retrained"], drawn.units["random"])
    row["lead"] = [lead.mean, lead.low, lead.high]
    for name in ("inferred", "concepts"):
        kept = float((units[name] - drawn.units["random"]).mean()) / lead.mean if lead.low > 0 else None
        row[f"kept_{name}"] = kept
    if (drawn.lost >= 0).any():
        row |= drawn.ranks(tables(less, trained(every, drawn.matrix), bank, drawn.fewer, answers))
    return row


def cells(given: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Trainer, case and seed of each cell of a data set; the first seed of all trainers comes first."""
    for seed in (int(each) for each in given.seeds.split(",")):
        for trainer in given.trainers.split(","):
            for case in ("concepts", *(["responses"] if trainer == TRACING else [])):
                yield trainer, case, seed


def results_in(file: Path | None) -> list[Row]:
    """The finished cells of this version."""
    known = json.loads(file.read_text()) if file is not None and file.exists() else {}
    return known.get("results", []) if known.get("version") == VERSION else []


def medians(results: list[Row]) -> list[Row]:
    """Of each data set, trainer and case the medians over seeds, and how many leads exclude zero."""
    rows, names = [], ("data", "trainer", "case", "dim")
    marks = {tuple(row[name] for name in names) for row in results}
    for mark in sorted(marks, key=lambda mark: (mark[0], TRAINERS.index(mark[1]), mark)):
        mine = [row for row in results if tuple(row[name] for name in names) == mark]
        made: Row = {"of": "medians", **dict(zip(names, mark, strict=True))}
        made |= {"seeds": len(mine), "leads above zero": sum(row["lead"][1] > 0 for row in mine)}
        for name in dict.fromkeys(name for row in mine for name, x in row.items() if isinstance(x, float)):
            made[name] = float(np.median([row[name] for row in mine if isinstance(row.get(name), float)]))
        made |= {
            name: float(np.median([row["lead"][i] for row in mine])) for i, name in enumerate(("lead", "low", "high"))
        }
        rows.append(made)
    return rows


def written(file: Path, results: list[Row]) -> None:
    held = {"version": VERSION, "made": made(), "results": results, "medians": medians(results)}
    write_text(file, json.dumps(held, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="FORMAT:PATH")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--trainers", default=",".join(TRAINERS), help="comma-separated")
    parser.add_argument("--json", type=Path, help="written after every cell; cells that are in it aren't made again")
    given = parser.parse_args()
    results = results_in(given.json)
    for source in given.data:
        data, drawn = load(source), None
        for trainer, case, seed in cells(given):
            mark = {"data": data.name, "trainer": trainer, "case": case, "seed": seed, "dim": given.dim}
            if any(mark.items() <= row.items() for row in results):
                continue
            if trainer == TRACING and data.interactions is None:
                print(data.name, trainer, "needs answers; left out", flush=True)
                continue
            if drawn is None or drawn.seed != seed:
                drawn = Drawn(data, seed, given.dim)
            row = {**mark, **measured(drawn, trainer, case)}
            results = [*results_in(given.json), row] if given.json else [*results, row]  # others may write it too
            if given.json:
                written(given.json, results)
            shown = {name: round(x, 3) for name, x in row.items() if isinstance(x, float)}
            print(data.name, trainer, case, f"seed {seed}:", shown, flush=True)
    if given.json:
        written(given.json, results_in(given.json))
    for row in medians(results):
        print({name: round(x, 3) if isinstance(x, float) else x for name, x in row.items()})


if __name__ == "__main__":
    main()
