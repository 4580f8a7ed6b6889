"""How much does it inflate knowledge tracing that some students stand in the published data under two identifiers?

python benchmarks/duplicates.py s2kt:FOLDER

A DKT on concept-mean vectors is trained twice on the data set's own split: as published, and with all but one
identifier of each person left out of every part (``qcq.data.duplicates``). Both foresee the same test students, and
their AUC is shown for those who stand in the published training or validation part under another identifier, and for
the others. Brackets are 95 % intervals over students.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from qcq import data
from qcq.evaluation import Partition, paired_bootstrap
from qcq.evaluation.statistics import auc_units
from qcq.evaluation.tracing.models import Tracer
from qcq.evaluation.tracing.tasks import Attempts, KTSettings, principal
from qcq.models import TRAINERS, TrainingData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="format:path")
    parser.add_argument("--epochs", type=int, default=KTSettings().epochs)
    args = parser.parse_args()
    honest = data.load(args.data)
    if honest.parts is None or not len(honest.left_out):
        raise SystemExit(f"{honest.name}: needs a data set that brings a split of its own and has duplicate students")
    published = replace(honest, left_out=np.empty(0, dtype=np.int32))
    pairs = data.duplicate_students(honest.interactions, len(honest.students), len(honest.questions))
    worlds = {}
    for name, each in (("as published", published), ("one identifier each", honest)):
        partition = Partition.make(each, 0, hold_out_edges=False)
        worlds[name] = (partition, Attempts(partition, "kt"))
    split = worlds["as published"][0].split
    tested = worlds["one identifier each"][1].parts["test"].interactions
    earlier = np.union1d(split.train.students, split.validation.students)
    other = np.concatenate([pairs, pairs[:, ::-1]])  # (2 pairs, 2)
    again = np.intersect1d(other[np.isin(other[:, 1], earlier), 0], tested.student)
    theirs = np.isin(tested.student, again)
    print(
        f"{len(pairs)} pairs of students are one person; {len(again)} of {len(np.unique(tested.student))} test "
        f"students stand in the training or validation part too, with {theirs.mean():.0%} of the test responses\n"
    )
    print("| numbers beside | table | test responses of | as published | one identifier each | inflated by |")
    print("|---|---|---|---:|---:|---:|")
    for features in ((), ("difficulty", "popularity")):
        for way in ("frozen", "fine-tuned"):
            units = {}
            for name, (partition, attempts) in worlds.items():
                source = TrainingData(partition.graph)
                vectors = principal(TRAINERS["concept-mean"](dim=64).fit(source, 0).embeddings().vectors)
                plan = KTSettings(epochs=args.epochs)
                tracer = Tracer(vectors, attempts.question_features(features), way == "fine-tuned", plan, 0)
                tracer.fit(attempts.sequences("train"), attempts.sequences("validation"))
                units[name] = tracer.predict(worlds["one identifier each"][1].sequences("test"))
            for who, kept in (
                ("all", theirs | ~theirs),
                ("people who stand in training too", theirs),
                ("others", ~theirs),
            ):
                a, b = (auc_units(tested.correct[kept], units[name][kept], tested.student[kept]) for name in worlds)
                d = paired_bootstrap(a, b)
                cells = [", ".join(features) or "none", way, who, f"{a.mean():.4f}", f"{b.mean():.4f}"]
                print(f"| {' | '.join(cells)} | {d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}] |", flush=True)


if __name__ == "__main__":
    main()
