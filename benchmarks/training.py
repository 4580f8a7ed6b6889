"""How long training and an import take on the CPU, against the package as it was before.

    git worktree add --detach ../before 746d70c
    python benchmarks/training.py ../before [--json docs/results/training.json] [--only mlm,run,sgns,kt,import]
    python benchmarks/training.py --table docs/results/training.json

The folder is a checkout of the commit to compare with; its name stands in every row. Rounds alternate between the two
versions, each in a process of its own, so that whatever else the machine does meets both. Figures are medians; the
ratio is before over now: more than 1 is faster, or less. One command on two quiet cores takes about twenty minutes.

Cases
-----
mlm     processor seconds of ``mlm`` at its defaults to an excess of 0.10 nat on held-out walks of s2kt_assist09, one
        thread, without the measurements' walks; and the excess at the end.
run     wall-clock seconds of `qcq run experiments/classroom.toml`, which is `make run` after installation; an untimed
        run before compiles what is compiled.
sgns    tokens/s of deterministic ``sgns`` against gensim's corpus_file, by each version's benchmarks/lookup.py.
kt      processor seconds of four epochs of ``kt`` and ``kt-attention`` on one table, and the best AUC on validation.
import  wall-clock ms of `import qcq` in a process of its own, median of ten; the compiled files are there
        before; the layout of today was built on 114ff19

Real data is read from $QCQ_DATA/s2kt_assist09; without it, the simulated classroom stands in.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent.parent
GOAL = 0.10  # nats over the floor
ROUNDS = {"mlm": 2, "run": 2, "sgns": 1, "kt": 2, "import": 3}  # sgns has rounds of its own


# ------------------------------------------------------------------------------------------------- inside one version


def _data() -> Any:
    from qcq import data

    folder = Path(os.environ.get("QCQ_DATA", "")) / "s2kt_assist09"
    real = "QCQ_DATA" in os.environ and folder.is_dir()
    return data.read(f"s2kt:{folder}") if real else data.Simulated(questions=2000).read()


def mlm(seed: int) -> Row:
    from qcq.floors.objectives import Masked
    from qcq.graph import KnowledgeGraph
    from qcq.models import MLM, TrainingData

    source = TrainingData(KnowledgeGraph.from_dataset(_data()))
    _ = source.corpus, source.heldout
    MLM(steps=2).fit(source, seed)  # compiles
    began = time.process_time()
    reached: Row = {}

    def watch(done: int, total: int, **figures: Any) -> None:
        if figures.get("excess", 1.0) <= GOAL and not reached:
            reached.update(seconds=time.process_time() - began, step=done)

    trainer = MLM()
    model = trainer.fit(source, seed, watch)
    whole = time.process_time() - began
    paper = Masked().held_out_batch(source.heldout, seed=0)
    excess = float((model.losses(paper) - paper.objective.floor(source.chain, paper)).mean())
    return {
        "mlm, CPU s to an excess of 0.10": reached.get("seconds", float("inf")),
        "mlm, CPU s a step": whole / trainer.steps,
        "mlm, CPU s at the defaults": whole,
        "mlm, excess at the end": excess,
    }


def run(seed: int) -> Row:
    code = "import sys; from qcq.cli import main; sys.argv[0] = 'qcq'; main()"
    config = str(HERE / "experiments" / "classroom.toml")  # the same for both
    with tempfile.TemporaryDirectory() as folder:
        for timed in (False, True):
            out = Path(folder) / str(timed)
            given = [
                sys.executable,
                "-c",
                code,
                "run",
                config,
                "--out",
                str(out),
                *([] if timed else ["--set=mlm.steps=20"]),
            ]
            began = time.perf_counter()
            subprocess.run(given, check=True, capture_output=True)
            took = time.perf_counter() - began
    return {"make run, s": took}


def sgns(seed: int) -> Row:
    import qcq

    script = Path(qcq.__file__).resolve().parent / "benchmarks" / "lookup.py"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        given = ["--only", "s2kt_assist09", "--peers", "gensim corpus_file", "--rounds", "5", "--tokens", "2000000"]
        subprocess.run([sys.executable, str(script), *given, "--json", str(out)], check=True, capture_output=True)
        rows = json.loads(out.read_text(encoding="utf-8"))
    made: Row = {}
    for row in rows:
        if row["case"].startswith("sgns"):
            kind = "deterministic" if row["case"].endswith("deterministic") else "fast"
            made[f"sgns {kind} over gensim corpus_file"] = row["ratio"]
            made[f"sgns {kind}, learnt"] = row["ours_learnt"]
    return made


def kt(seed: int) -> Row:
    import numpy as np

    from qcq.evaluation import Partition
    from qcq.evaluation.tracing.models import Tracer
    from qcq.evaluation.tracing.tasks import TABLE_MODES, Attempts, KTSettings, principal
    from qcq.models import TRAINERS, TrainingData
    from qcq.walks import WALKS

    partition = Partition.make(_data(), 0, hold_out_edges=False)
    attempts, walk = Attempts(partition, "kt"), WALKS["qcq"](per_question=2)
    source = TrainingData(walk.prepare(partition.graph, attempts.train), walk, seed)
    model = TRAINERS["concept-mean"](dim=64).fit(source, seed)
    vectors = principal(walk.to_questions(partition.graph, model.embeddings()).vectors)
    train, held = attempts.sequences("train"), attempts.sequences("validation")
    made: Row = {}
    kinds: dict[str, Any] = {"kt": "dkt", "kt-attention": "attention"}
    for name, kind in kinds.items():
        plan = KTSettings(model=kind, epochs=4, patience=4)
        size, moves = TABLE_MODES["fine-tuned"]
        began = time.process_time()
        tracer = Tracer(np.float32(size) * vectors, attempts.question_features(()), moves, plan, seed)
        tracer.fit(train, held)
        made[f"CPU s of four epochs of {name}"] = time.process_time() - began
        made[f"validation AUC of {name}"] = max(tracer.history)
    return made


def importing(seed: int) -> Row:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(11):  # the first one makes the compiled files
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import qcq"], check=True, env=environment)
        times.append(1e3 * (time.perf_counter() - began))
    return {"import qcq, ms": statistics.median(times[1:])}


CASES: dict[str, Callable[[int], Row]] = {"mlm": mlm, "run": run, "sgns": sgns, "kt": kt, "import": importing}

# ---------------------------------------------------------------------------------------------------- both versions


def inside(tree: Path, case: str, seed: int) -> Row:
    """A case in a process that imports the package from ``tree``."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "qcq").symlink_to(tree.resolve())
        one = {} if case in ("run", "sgns") else {"OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **one, "PYTHONPATH": folder}
        given = [sys.executable, str(Path(__file__).resolve()), "--case", case, "--seed", str(seed)]
        made = subprocess.run(given, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if made.returncode:
        raise SystemExit(f"{case} in {tree} failed:\n{made.stderr}")
    return dict(json.loads(made.stdout.splitlines()[-1]))


def commit(tree: Path) -> str:
    given = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(given, capture_output=True, text=True, check=True).stdout.strip()


def measure(before: Path, names: list[str]) -> Iterator[list[Row]]:
    """The rows of each case, as soon as they are there."""
    against = commit(before)
    for name in names:
        rows = []
        sides: tuple[list[Row], list[Row]] = ([], [])
        for seed in range(ROUNDS[name]):
            for side, tree in zip(sides, (before, HERE), strict=True):
                side.append(inside(tree, name, seed))
                print(name, "before" if tree is before else "now", side[-1], flush=True)
        for case in dict.fromkeys(case for side in sides for made in side for case in made):
            theirs, ours = ([made[case] for made in side if case in made] for side in sides)
            row: Row = {"case": case, "against": against, "rounds": len(ours)}
            for key, found in (("before", theirs), ("now", ours)):
                if found:
                    row[key] = found[0] if isinstance(found[0], str) else statistics.median(found)
            if isinstance(row.get("before"), float) and row.get("now"):
                row["ratio"] = row["before"] / row["now"]
            rows.append(row)
        yield rows


def table(rows: list[Row]) -> str:
    lines = ["| case | before | now | before / now | against |", "|---|---:|---:|---:|---|"]
    for row in rows:
        held = (row.get(key, "") for key in ("before", "now", "ratio"))
        figures = (each if isinstance(each, str) else f"{each:.4g}" for each in held)
        lines.append(f"| {row['case']} | {' | '.join(figures)} | {row['against']} |")
    return "\n".join(lines)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("before", type=Path, nargs="?", help="a checkout of the commit to compare with")
    ask.add_argument("--json", type=Path)
    ask.add_argument("--table", type=Path)
    ask.add_argument("--only", default=",".join(CASES))
    ask.add_argument("--case", choices=[*CASES], help=argparse.SUPPRESS)
    ask.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    chosen = ask.parse_args()
    if chosen.case:
        print(json.dumps(CASES[chosen.case](chosen.seed)))
        return
    if chosen.table:
        print(table(json.loads(chosen.table.read_text(encoding="utf-8"))))
        return
    if chosen.before is None:
        ask.error("name a checkout of the commit to compare with")
    from record import stamped  # it imports this version, and a case may be of the other

    for rows in measure(chosen.before, chosen.only.split(",")):
        print(table(rows), flush=True)
        if chosen.json:
            kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else []
            new = {row["case"] for row in rows}
            kept = [row for row in kept if row["case"] not in new]
            chosen.json.write_text(json.dumps([*kept, *stamped(rows)], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
