"""What typed walks know of difficulty: one table a data set.

    python benchmarks/typed.py [--data simulated,s2kt:PATH,…] [--trainer ppmi-svd] [--seeds 3] [--per-question 10]
                               [--only TEXT] [--json FILE] [--quick]

Columns, all on the same 20 % of the questions that the ridge was not fitted on (R²; the fit is on training students):

- ``task``: the task ``difficulty``, share of wrong answers among training students. The walks' student and bin edges
  are made of these very answers, so a high figure says that the vectors carry what the graph was told.
- ``unseen``: the same prediction against the share among test students, whom nothing here has seen, over questions with
  at least five test responses. The row ``the number itself`` predicts it by the training share alone: what there is to
  carry.
- ``planted``: the same against the planted difficulty (simulated only), from a ridge fitted on planted values.
- ``edges``: held-out question–concept edges, the task's metric: what a mixture pays for knowing more.

Rows: baselines that see no walk, ``qcq``, and the walks over typed edges, at default settings. Figures are means over
the seeds of walk and trainer, ± their standard deviation; the split and the held-out edges are the same for all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from record import stamped

from qcq.data import load
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError, TrainingError, WalkError
from qcq.evaluation import TASKS, Difficulty, Partition
from qcq.models import TRAINERS, TrainingData
from qcq.walks import WALKS, WalkStrategy

WALKED: list[tuple[str, dict]] = [
    ("qcq", {}),
    ("metapath", {"pattern": "q-s-q"}),
    ("metapath", {"pattern": "q-s+-q"}),
    ("metapath", {"pattern": "q-s--q"}),
    ("metapath", {"pattern": "q-d-q"}),
    ("metapath", {"pattern": "q-q"}),
    ("metapath", {"pattern": "0.6*q-c-q + 0.4*q-s+-q"}),
    ("metapath", {"pattern": "0.6*q-c-q + 0.4*q-s--q"}),
    ("metapath", {"pattern": "0.6*q-c-q + 0.4*q-d-q"}),
    ("just", {}),
    ("session", {}),
    ("session", {"responses": True}),
]
LEAST = 5


class TableScorer:
    """The columns of one data set."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.difficulty = Difficulty(partition)
        self.judged = self.difficulty.questions("test")
        self.train = partition.split.train
        enough = np.flatnonzero(self.train.counts >= LEAST)
        self.fitted = np.setdiff1d(enough, np.r_[self.judged, self.difficulty.questions("validation")])
        r = partition.split.test.interactions
        n = len(partition.graph.questions)
        seen = np.bincount(r.question, minlength=n)
        right = np.bincount(r.question, weights=r.correct, minlength=n)
        self.unseen = self.judged[seen[self.judged] >= LEAST]
        self.share = 1 - right / np.maximum(seen, 1)
        self.planted = partition.dataset.truth.get("difficulty")
        try:
            self.edges = TASKS["edges"](partition)
        except EvaluationError:
            self.edges = None

    def row(self, emb: Embeddings) -> dict[str, float | None]:
        x = emb.vectors
        seen = self._r2(x, self.train.difficulty, self.share, self.unseen) if len(self.unseen) > 1 else None
        return {
            "task": self.difficulty.score(emb).metrics["r2"],
            "unseen": seen,
            "planted": None if self.planted is None else self._r2(x, self.planted, self.planted, self.judged),
            "edges": None if self.edges is None else self.edges.score(emb).metrics[type(self.edges).metric],
        }

    def _r2(self, x: NDArray, learnt: NDArray, asked: NDArray, judged: NDArray) -> float:
        from sklearn.linear_model import RidgeCV

        fit = x[self.fitted].astype(np.float64)
        centre = fit.mean(axis=0)
        scale = np.sqrt(((fit - centre) ** 2).mean()) or 1.0
        ridge = RidgeCV(alphas=np.logspace(-5, 2, 15) * len(fit)).fit((fit - centre) / scale, learnt[self.fitted])
        error = asked[judged] - ridge.predict((x[judged] - centre) / scale)
        return float(1 - (error**2).mean() / asked[judged].var())


def label(name: str, settings: dict) -> str:
    return " ".join([name, *(str(v) if k == "pattern" else f"{k}={v}" for k, v in settings.items())])


COLUMNS = ("task", "unseen", "planted", "edges")


def over_seeds(made: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Each column's mean, and its standard deviation where there are several seeds."""
    out: dict[str, float | None] = {}
    for key in COLUMNS:
        found = [value for row in made if (value := row[key]) is not None]
        out[key] = statistics.fmean(found) if found else None
        if len(found) > 1:
            out[f"{key}_sd"] = statistics.stdev(found)
    return out


def rows(
    partition: Partition, trainer: str, per_question: int, seeds: int, walked: list[tuple[str, dict]]
) -> Iterator[dict]:
    judge = TableScorer(partition)
    ids, train = partition.graph.questions, partition.split.train
    number = np.nan_to_num(train.difficulty, nan=float(np.nanmean(train.difficulty)))[:, None]
    yield {"row": "the number itself", **judge.row(Embeddings(ids, number.astype(np.float32)))}
    for name, times in (("random", seeds), ("concept-onehot", 1)):
        found = [TRAINERS[name]().fit(TrainingData(partition.graph), seed) for seed in range(times)]
        yield {"row": name, **over_seeds([judge.row(one.embeddings()) for one in found])}
    emb = found[0].embeddings()
    both = np.hstack([emb.vectors, number * np.sqrt(emb.vectors.shape[1])]).astype(np.float32)
    yield {"row": "concept-onehot and the number", **judge.row(Embeddings(ids, both))}
    for name, settings in walked:
        walk: WalkStrategy = WALKS[name](per_question=per_question, **settings)
        began, made = time.perf_counter(), []
        try:
            graph = walk.prepare(partition.graph, train)
            for seed in range(seeds):
                corpus = walk.sample(graph, seed)
                model = TRAINERS[trainer]().fit(TrainingData(graph, walk, seed, corpus), seed)
                made.append(judge.row(walk.to_questions(partition.graph, model.embeddings())))
        except (WalkError, TrainingError) as error:
            yield {"row": label(name, settings), "refused": str(error)}
            continue
        yield {
            "row": label(name, settings),
            **over_seeds(made),
            "tokens": corpus.n_tokens,
            "seconds": round(time.perf_counter() - began, 1),
        }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", default="simulated")
    ask.add_argument("--trainer", default="ppmi-svd")
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--per-question", type=int, default=10)
    ask.add_argument("--only", default="", help="rows whose name holds one of these, separated by commas")
    ask.add_argument("--json", type=Path)
    ask.add_argument("--quick", action="store_true", help="two walks a question, four rows, one seed")
    given = ask.parse_args()
    made = []
    for spec in given.data.split(","):
        partition = Partition.make(load(spec, {}))
        walked = [WALKED[0], WALKED[6], WALKED[8], WALKED[11]] if given.quick else WALKED
        walked = [one for one in walked if any(part in label(*one) for part in given.only.split(","))]
        print(f"\n{partition.dataset.name}, {given.trainer}\n")
        print("| vectors | task | unseen | planted | edges | tokens |\n|---|---:|---:|---:|---:|---:|", flush=True)
        per_question, seeds = (2, 1) if given.quick else (given.per_question, given.seeds)
        for row in rows(partition, given.trainer, per_question, seeds, walked):
            made.append({"benchmark": "typed", "data": partition.dataset.name, "trainer": given.trainer, **row})
            figures = [
                ""
                if row.get(key) is None
                else f"{row[key]:.3f}" + (f" ± {row[sd]:.3f}" if (sd := f"{key}_sd") in row else "")
                for key in COLUMNS
            ]
            tokens = f"{row['tokens']:,}" if "tokens" in row else row.get("refused", "")
            print(f"| {' | '.join([row['row'], *figures, tokens])} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(stamped(made), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
