"""Which vectors help a knowledge-tracing model? Everything that was tried on one data set, winners and losers.

python benchmarks/kt.py s2kt:FOLDER --out kt.jsonl
python benchmarks/kt.py s2kt:FOLDER --out kt.jsonl --show

Each row is trained in the same ways (the table frozen, fine-tuned, fine-tuned from a small start), the best one on
validation is kept, and its test figures are written down with the students' units. Finished rows are skipped. Plain
rows know nothing of answers. ``+ d`` has the training students' difficulty and popularity beside the vectors,
``+ d, rasch`` a third number too (``qcq.evaluation.tracing.features``). ``drawn`` vectors are drawn to the mean of the
question's concepts, the more the less it was answered. ``folded`` ones are made of answers, for each fifth of the
training students without their own (``qcq.evaluation.tracing.crossfit``); ``leaky`` ones of all of them, as usual.
``--show`` prints the table and the intervals, which hold together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from qcq import data
from qcq.embeddings import Embeddings
from qcq.evaluation import Contest, KTFast, Partition, simultaneous
from qcq.evaluation.tracing.crossfit import cross_fitted
from qcq.evaluation.tracing.features import Number
from qcq.evaluation.tracing.models import Tracer, auc
from qcq.evaluation.tracing.tasks import TABLE_MODES, Attempts, KTSettings, principal
from qcq.models import TRAINERS, TrainingData
from qcq.recipes import shrunk
from qcq.walks import WALKS, Metapath, Session, WalkStrategy

MIX = "0.5*q-c-q + 0.5*q-q"
ANSWERS = "0.5*q-c-q + 0.25*q-s+-q + 0.25*q-s--q"
HARD = "0.34*q-c-q + 0.33*q-q + 0.33*q-d-q"
BINS = "0.6*q-c-q + 0.4*q-d-q"
ORDER = "0.4*q-c-q + 0.3*q-q + 0.3*q-s-q"
REFERENCES = ("concept-mean", "concept-mean + d")
NUMBERS: dict[str, tuple[Number, ...]] = {
    " + d": ("difficulty", "popularity"),
    " + d, rasch": ("difficulty", "popularity", "rasch"),
    " + d of everybody": ("difficulty", "popularity"),  # no fold left out: one's own answer is in the number
}


class Bench:
    """One data set, divided once."""

    def __init__(self, where: str, seed: int) -> None:
        self.partition = Partition.make(data.load(where, {}), 0, hold_out_edges=False)
        self.attempts = Attempts(self.partition, "kt")
        self.train = self.attempts.train
        self.seed = seed
        self.kept: dict[str, np.ndarray] = {}
        r = self.train.interactions
        every = b"".join(np.ascontiguousarray(each).tobytes() for each in (r.student, r.question, r.correct))
        self.digest = hashlib.sha256(every).hexdigest()[:12]

    def table(self, trainer: str, walk: WalkStrategy | None = None, **settings: Any) -> np.ndarray:
        key = f"{trainer}{walk}{settings}"
        if key not in self.kept:
            strategy = walk or WALKS["qcq"](per_question=2)
            source = TrainingData(strategy.prepare(self.partition.graph, self.train), strategy, self.seed)
            model = TRAINERS[trainer](**settings).fit(source, self.seed)
            self.kept[key] = principal(strategy.to_questions(self.partition.graph, model.embeddings()).vectors)
        return self.kept[key]

    def fold(self, walk: WalkStrategy, trainer: str, **settings: Any) -> np.ndarray:
        key = f"folded {trainer}{walk}{settings}"
        if key not in self.kept:
            self.kept[key] = cross_fitted(self.partition, self.attempts, walk, TRAINERS[trainer](**settings), self.seed)
        return self.kept[key]

    def nothing(self) -> np.ndarray:
        return np.zeros((self.partition.graph.n_questions, 0), dtype=np.float32)

    def drawn(self, vectors: np.ndarray) -> np.ndarray:
        """Drawn to the mean over the question's concepts, the more the less it was answered."""
        return shrunk(vectors, self.partition.graph, self.train)

    def rows(self) -> dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray] | None]]:
        """Name → vectors, folded vectors. What a name ends with says what stands beside them (``NUMBERS``)."""

        def mean() -> np.ndarray:
            return self.table("concept-mean", dim=64)

        def plain() -> np.ndarray:
            return self.table("ppmi-svd", dim=64)

        def order() -> np.ndarray:
            return self.table("ppmi-svd", Metapath(pattern="q-q", per_question=2), dim=64)

        def mixed(pattern: str, dim: int = 64) -> Callable[[], np.ndarray]:
            return lambda: self.table("ppmi-svd", Metapath(pattern=pattern, per_question=2), dim=dim)

        def both() -> np.ndarray:
            return np.hstack([mean(), order()])

        def onehot() -> np.ndarray:
            return self.table("concept-onehot")

        def one_and_drawn() -> np.ndarray:
            return np.hstack([onehot(), principal(self.drawn(order()))])

        def mixture_drawn() -> np.ndarray:
            return principal(self.drawn(mixed(ORDER)()))

        def answered() -> np.ndarray:
            return self.fold(Session(responses=True), "sgns", dim=32, epochs=5)

        def signed() -> np.ndarray:
            return self.fold(Metapath(pattern=ANSWERS, per_question=2), "ppmi-svd", dim=64)

        def hard() -> np.ndarray:
            return self.fold(Metapath(pattern=HARD, per_question=2), "ppmi-svd", dim=64)

        def bins() -> np.ndarray:
            return self.fold(Metapath(pattern=BINS, per_question=2), "ppmi-svd", dim=64)

        return {
            "concept-mean": (mean, None),
            "concept-mean + d": (mean, None),
            "concept-mean + d of everybody": (mean, None),
            "qcq": (plain, None),
            "nothing + d": (self.nothing, None),
            "qcq + d": (plain, None),
            "concept-mean & q-q + d": (both, None),
            "concept-mean & q-q, folded session answers + d": (both, answered),
            "concept-mean & q-q, folded s+ s- + d": (both, signed),
            "concept-mean & q-q, folded c q d mixture + d": (both, hard),
            "folded c d mixture": (self.nothing, bins),
            "folded c q d mixture": (self.nothing, hard),
            "concept-mean, folded c d mixture": (mean, bins),
            "leaky session answers + d": (lambda: self.table("sgns", Session(responses=True), dim=32), None),
            "q-q + d": (order, None),
            "mixture of c and q + d": (mixed(MIX), None),
            "mixture of c, q and s + d": (mixed(ORDER), None),
            "mixture of c, q and s, 128 + d": (mixed(ORDER, 128), None),
            "mixture of c and s + d": (mixed("0.4*q-c-q + 0.6*q-s-q"), None),
            "q-s-q + d": (mixed("q-s-q"), None),
            "concept-mean & mixture of c, q and s + d": (lambda: np.hstack([mean(), mixed(ORDER)()]), None),
            "session + d": (lambda: self.table("sgns", Session(), dim=64, epochs=5), None),
            "concept-onehot + d": (onehot, None),
            "concept-mean + d, rasch": (mean, None),
            "concept-onehot & drawn q-q + d": (one_and_drawn, None),
            "concept-onehot & drawn q-q + d, rasch": (one_and_drawn, None),
            "drawn mixture of c, q and s + d, rasch": (mixture_drawn, None),
            "q-q": (order, None),
            "session": (lambda: self.table("sgns", Session(), dim=64, epochs=5), None),
            "leaky session answers": (lambda: self.table("sgns", Session(responses=True), dim=32), None),
            "random": (lambda: self.table("random", dim=64), None),
            "svd": (lambda: self.table("svd", dim=64), None),
            "concept-onehot": (onehot, None),
        }

    def judge(self, name: str, plan: KTSettings) -> dict[str, object]:
        vectors, versions = self.rows()[name]
        x = vectors()
        numbers = next((numbers for end, numbers in NUMBERS.items() if name.endswith(end)), ())
        features = self.attempts.question_features(numbers)
        if name.endswith("of everybody"):
            features = np.repeat(features[-1:], len(features), axis=0)
        if versions is not None:
            features = np.concatenate([features, versions()], axis=2)
        began, tried = time.perf_counter(), {}
        for way in plan.tables:
            size, moves = TABLE_MODES[way]
            if moves and x.shape[1] == 0:
                continue
            tracer = Tracer(np.float32(size) * x, features, moves, plan, self.seed)
            tracer.fit(self.attempts.sequences("train"), self.attempts.sequences("validation"))
            tried[way] = tracer
        way = max(tried, key=lambda each: max(tried[each].history))
        seconds = time.perf_counter() - began
        held = self.attempts.sequences("validation")
        cold = self.train.counts[held.question] <= 5
        guess = tried[way].predict(held)
        score = self.attempts.judge(tried[way].predict(self.attempts.sequences("test")), "test")
        fast = None
        if not numbers and versions is None:
            questions = self.partition.graph.questions
            fast = round(KTFast(self.partition).score(Embeddings(questions, x), "validation").metrics["auc"], 4)
        return {
            "way": way,
            "fast_validation": fast,
            "validation": {each: round(max(tried[each].history), 4) for each in tried},
            "validation_cold": round(auc(guess[cold], held.correct[cold]), 4),
            "test": {metric: round(value, 4) for metric, value in score.metrics.items()},
            "seconds": round(seconds, 1),
            "units": {metric: score.units[metric].round(6).tolist() for metric in ("auc", "auc-cold")},
        }


def show(rows: list[dict]) -> None:
    """The table of one model, seeds averaged, and what each row gains over the references."""
    if len(worlds := {row["data"] for row in rows}) > 1:
        raise SystemExit(f"the file holds rows of {len(worlds)} divisions of students; they can't be compared")
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        names = list(dict.fromkeys(row["name"] for row in mine))
        head = [f"{model}: vectors", "used", "validation", "test AUC", "cold", "log-loss", "s"]
        head += [f"over {reference}" for reference in REFERENCES]
        print(f"\n| {' | '.join(head)} |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
        units = {
            (name, metric): np.mean([row["units"][metric] for row in mine if row["name"] == name], axis=0)
            for name in names
            for metric in ("auc", "auc-cold")
        }
        gains = {}
        pairs = [(i, names.index(r)) for r in REFERENCES if r in names for i, name in enumerate(names) if name != r]
        for metric in ("auc", "auc-cold"):
            contest = Contest(np.stack([units[name, metric] for name in names]), pairs)
            gains[metric] = dict(zip(pairs, simultaneous([contest])[0], strict=True))
        for i, name in enumerate(names):
            its = [row for row in mine if row["name"] == name]
            cells = [np.mean([max(row["validation"].values()) for row in its])]
            cells += [np.mean([row["test"][metric] for row in its]) for metric in ("auc", "auc-cold", "log-loss")]
            said = []
            for r in REFERENCES:
                d = gains["auc"].get((i, names.index(r))) if r in names else None
                c = gains["auc-cold"].get((i, names.index(r))) if r in names else None
                both = [f"{x.mean:+.4f} [{x.low:+.4f}, {x.high:+.4f}]" for x in (d, c) if x is not None]
                said.append(", cold ".join(both))
            seconds = np.mean([row["seconds"] for row in its])
            ways = "/".join(dict.fromkeys(row["way"] for row in its))
            print(f"| {name} | {ways} | {' | '.join(f'{x:.4f}' for x in cells)} | {seconds:.0f} | {' | '.join(said)} |")
        plain = [row for row in mine if row["fast_validation"] is not None]
        if len(plain) > 2:
            best = [max(row["validation"].values()) for row in plain]
            for way, theirs in (("the better way", best), ("frozen", [r["validation"]["frozen"] for r in plain])):
                agreement = spearmanr([row["fast_validation"] for row in plain], theirs).statistic
                print(f"\nkt-fast ranks {len(plain)} plain tables as {model} ({way}) does: Spearman {agreement:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="format:path")
    parser.add_argument("--out", type=Path, required=True, help="rows, a JSON object a line; finished ones are kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", default="dkt", help="comma-separated: dkt, attention")
    parser.add_argument("--only", help="these rows, separated by '; '")
    parser.add_argument("--ways", default=",".join(TABLE_MODES), help="how a table may be used")
    parser.add_argument("--show", action="store_true", help="print the table of what there is and do nothing else")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    if args.show:
        show(rows)
        return
    for seed in range(args.seeds):
        bench = Bench(args.data, seed)
        for model in args.models.split(","):
            plan = KTSettings(model=model, tables=tuple(args.ways.split(",")))
            for name in bench.rows():
                told = {"data": bench.digest, "name": name, "model": model, "seed": seed}
                done = any(told.items() <= row.items() for row in rows)
                if done or (args.only and name not in args.only.split("; ")):
                    continue
                rows.append({**told, **bench.judge(name, plan)})
                with args.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print({key: value for key, value in rows[-1].items() if key != "units"}, flush=True)


if __name__ == "__main__":
    main()
