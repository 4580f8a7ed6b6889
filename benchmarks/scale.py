"""What a bank of many questions costs on one machine, stage by stage: seconds, bytes on disk, peak memory.

The bank is simulated: a hundred questions a concept, no students. Every stage runs in a process of its own, so its
peak is its own, and leaves a row in the working folder; a run that was cut off goes on at the stage that is missing.
Before a stage its cost is said, predicted from smaller banks on this machine, which are measured first: a tiny one, a
tenth and a quarter. On the tiny one every stage runs twice, so what a first run compiles is in no figure. The
measurements are kept in the user's cache, by processor, version and commit. BLAS has one thread.

``peak`` is the highest resident memory of the stage without files that are mapped into memory (walks, tables on disk),
which the system takes away where it needs the room; ``peak_with_files`` is with them. A stage that passes
``--max-memory`` is stopped, and the job with it.

    python benchmarks/scale.py --size 1e5 [--walks 2] [--max-memory 16G] [--folder DIR] [--json docs/results/scale.json]
    python benchmarks/scale.py --size 1e7 --until walks                    # the first stages alone
    python benchmarks/scale.py --paper --json docs/results/scale.json      # the arithmetic for a billion questions
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qcq.support.calibration import keep, recalled
from qcq.support.environment import environment

DIM, LENGTH, SEEDS = 64, 40, (0, 1)
QUESTIONS_A_CONCEPT, ASKED = 100, 20
PARTS, SMALLEST = (10, 4), 1_000  # of a bank, measured first, and the questions of the smallest one
POLL = 0.05  # seconds between two looks at a stage's memory
GIB = 2**30
_KEPT = "scale"  # measurements in the user's cache


class Job(NamedTuple):
    """One bank: how many questions, how many walks a question, and where its files are."""

    size: int
    walks: int
    folder: Path

    @property
    def concepts(self) -> int:
        return max(8, self.size // QUESTIONS_A_CONCEPT)

    def table(self, trainer: str, seed: int) -> Path:
        return self.folder / f"{trainer}-{seed}.npy"


# --- the stages: each returns figures of its own, and runs alone in a process -------------------------------------


def bank(job: Job) -> dict[str, Any]:
    from qcq.data import Simulated
    from qcq.graph import KnowledgeGraph

    room = Simulated(questions=job.size, concepts=job.concepts, sets=2 * job.concepts, students=0)
    KnowledgeGraph.from_dataset(room.read()).save(job.folder / "bank.npz")
    return {}


def partition(job: Job) -> Any:
    from qcq.data import read
    from qcq.evaluation import Partition

    return Partition.make(read(str(job.folder / "bank.npz")))


def graph(job: Job) -> dict[str, Any]:
    made = partition(job)
    made.graph.save(job.folder / "train.npz")
    about = made.graph.describe()
    return {key: about[key] for key in ("questions", "concepts", "edges", "components")}


def trained(job: Job) -> Any:
    import warnings

    from qcq.graph import KnowledgeGraph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KnowledgeGraph.load(job.folder / "train.npz")


def walks(job: Job) -> dict[str, Any]:
    from qcq.walks import QCQ

    corpus = QCQ(length=LENGTH, per_question=job.walks).stream(trained(job), job.folder / "corpus")
    return {"sampled": corpus.n_walks, "tokens": corpus.n_tokens}


def learnt(job: Job, name: str, seed: int) -> dict[str, Any]:
    from qcq.corpus import Corpus
    from qcq.models import TRAINERS, TrainingData

    corpus = Corpus.load(job.folder / "corpus") if name == "sgns" else None
    model = TRAINERS[name](dim=DIM).fit(TrainingData(trained(job), sampled=corpus), seed)
    np.save(job.table(name, seed), model.embeddings().vectors)
    return {"tokens": model.tokens}


def tables(job: Job, name: str, questions: Any) -> list[Any]:
    from qcq.embeddings import Embeddings

    return [Embeddings(questions, np.load(job.table(name, seed), mmap_mode="r")) for seed in SEEDS]


def scored(job: Job, task: str, name: str) -> dict[str, Any]:
    from qcq.evaluation import TASKS

    made = partition(job)
    one, *others = tables(job, name, made.graph.questions)
    asked = TASKS[task](made)
    score = asked.score(one, "test", others)
    values = score.units[asked.metric]
    figure = {asked.metric: float(values.mean()), "se": float(values.std(ddof=1) / np.sqrt(len(values)))}
    return {**{key: round(value, 4) for key, value in figure.items()}, "units": len(values)}


def parquet(job: Job) -> dict[str, Any]:
    made = trained(job)
    tables(job, "sgns", made.questions)[0].save(job.folder / "vectors.parquet")
    return {"file": (job.folder / "vectors.parquet").stat().st_size}


def search(job: Job) -> dict[str, Any]:
    from qcq.embeddings import Embeddings

    table = Embeddings.load(job.folder / "vectors.parquet")
    _ = table.unit, table.index
    asked = np.random.default_rng(0).choice(len(table), ASKED)
    used = time.process_time()
    found = [table.nearest(table.ids[i], k=10) for i in asked]
    return {"cpu_ms_a_search": round(1e3 * (time.process_time() - used) / ASKED, 2), "found": len(found)}


Stage = Callable[[Job], dict[str, Any]]
STAGES: dict[str, Stage] = {"bank": bank, "graph": graph, "walks": walks}
for _name in ("sgns", "fastrp"):
    for _seed in SEEDS:
        STAGES[f"{_name} seed {_seed}"] = lambda job, n=_name, s=_seed: learnt(job, n, s)  # type: ignore[misc]
for _task in ("edges", "retrieval", "stability"):
    for _name in ("sgns", "fastrp"):
        STAGES[f"{_task} {_name}"] = lambda job, t=_task, n=_name: scored(job, t, n)  # type: ignore[misc]
STAGES |= {"parquet": parquet, "search": search}


def work(stage: str, job: Job) -> float:
    """What a stage's time grows with, up to a constant: see the code of each."""
    if stage.startswith("edges"):
        from qcq.evaluation.edges import LARGEST

        return job.size + min(LARGEST, 0.075 * job.size) * job.concepts / 10
    if stage.startswith(("retrieval", "stability")):
        from qcq.evaluation.retrieval import QUERIES

        return job.size * min(QUERIES, job.size)
    return job.size * (job.walks if stage.startswith(("walks", "sgns")) else 1)


# --- measuring a stage ------------------------------------------------------------------------------------------------


def alone(stage: str, job: Job, most: int) -> dict[str, Any]:
    """Run a stage in a process of its own and watch it: seconds, peaks, and its figures."""
    command = [sys.executable, __file__, "--stage", stage, "--size", str(job.size), "--walks", str(job.walks)]
    began = time.perf_counter()
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    # Large arrays go back to the system when they are freed: otherwise glibc moves this threshold, and a peak depends
    # on the past. Small ones are kept: to give those back takes time again and again.
    one |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
    child = subprocess.Popen(
        [*command, "--folder", str(job.folder)], stdout=subprocess.PIPE, text=True, env={**os.environ, **one}
    )
    peaks, done = [0, 0], threading.Event()

    def watch() -> None:
        while not done.wait(POLL):
            try:
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            except OSError:
                return
            held = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith("Rss")}
            own = held.get("RssAnon", 0) + held.get("RssShmem", 0)
            peaks[:] = max(peaks[0], own), max(peaks[1], own + held.get("RssFile", 0))
            if own > most:
                child.kill()

    watching = threading.Thread(target=watch)
    watching.start()
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watching.join()
    if child.returncode != 0:
        why = f"passed --max-memory {most / GIB:.1f} GiB" if peaks[0] > most else f"ended with {child.returncode}"
        raise SystemExit(f"{stage} on {job.size:,} questions {why}; what is done is kept in {job.folder}")
    own = json.loads(said.splitlines()[-1])
    row = {
        "stage": stage,
        "size": job.size,
        "walks": job.walks,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "bytes": bytes_of(job.folder),
        "peak": peaks[0],
        "peak_with_files": peaks[1],
        "git": environment()["git"],
    }
    assert not own.keys() & row.keys(), "a stage's own figure has the name of one that every stage has"
    return row | own


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.suffix != ".json")


# --- predicting a stage -----------------------------------------------------------------------------------------------


def remembered() -> list[dict[str, Any]]:
    """What was measured on this machine with this commit."""
    return list(recalled(_KEPT).get("rows", []))


def remember(row: dict[str, Any]) -> None:
    rows = [each for each in remembered() if any(each[key] != row[key] for key in ("stage", "size", "walks"))]
    keep(_KEPT, {"rows": [*rows, row]})


def predicted(stage: str, job: Job) -> dict[str, float] | None:
    """Seconds and peak memory of a stage; None if fewer than two smaller banks are known.

    Seconds lie on the line through the smallest bank, which is the start of a process, and the largest one: a line
    through two banks of like size would multiply the noise of both. Peaks have no such noise, and a stage may hold its
    data in another way in a small bank: they lie on the line through the two largest.
    """
    smaller: dict[int, dict[str, Any]] = {}
    for row in remembered():
        if row["stage"] == stage and row["size"] < job.size and row["walks"] == job.walks:
            smaller[row["size"]] = row
    if len(smaller) < 2:
        return None
    sizes, out = sorted(smaller), {}
    for what in ("seconds", "cpu_seconds", "peak"):
        low, high = (smaller[size] for size in (sizes[-2] if what == "peak" else sizes[0], sizes[-1]))
        banks = (job._replace(size=row["size"]) for row in (low, high))
        a, b, x = (each.size if what == "peak" else work(stage, each) for each in (*banks, job))
        out[what] = high[what] + max(0.0, (high[what] - low[what]) / (b - a)) * (x - b)
    return out


def compiled(job: Job, stages: Sequence[str], most: int) -> None:
    """Run the stages once, unmeasured: compiled code is kept on disk for all later processes."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        alone(stage, job, most)


def carry_out(job: Job, stages: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The stages of a bank that aren't done yet, and the rows of all."""
    job.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for stage in stages:
        kept = job.folder / f"{stage.replace(' ', '-')}.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        if known.get("git") == environment()["git"]:
            remember(known)
            rows.append(known)
            continue
        before = predicted(stage, job)
        if before is not None:
            print(f"{job.size:>10,} {stage:18} about {before['seconds']:8.0f} s {before['peak'] / GIB:6.2f} GiB")
            if before["peak"] > most:
                raise SystemExit(
                    f"{stage} needs about {before['peak'] / GIB:.1f} GiB, the bound is {most / GIB:.1f} GiB: "
                    "raise --max-memory, or take a smaller --size"
                )
        row = alone(stage, job, most)
        row["bytes"] -= sum(each["bytes"] for each in rows)
        if before is not None:
            row["predicted"] = {key: round(value, 2) for key, value in before.items()}
            row["ratio"] = {key: round(row[key] / max(value, 1e-9), 3) for key, value in before.items()}
        print(
            f"{job.size:>10,} {stage:18} took {row['seconds']:9.1f} s ({row['cpu_seconds']:.1f} of processors) "
            f"{row['peak'] / GIB:6.2f} GiB {row.get('ratio', '')}",
            flush=True,
        )
        kept.write_text(json.dumps(row), encoding="utf-8")
        remember(row)
        rows.append(row)
    return rows


# --- the arithmetic beyond one machine ------------------------------------------------------------------------------

MANY, NODES = 10**9, (16, 64, 256)
MEMORY, CORES, NETWORK = 64, 16, 25 / 8  # a node: GB, cores, and GB a second of a network of 25 Gbit/s
NAME = 72  # bytes of an identifier as Python text, with its place in a list


def slope(rows: list[dict[str, Any]], stage: str) -> float:
    """CPU seconds a token or question, between the two largest banks: starting the process cancels out."""
    what = "tokens" if stage.startswith("sgns") else "size"
    low, high = sorted((row for row in rows if row["stage"] == stage), key=lambda row: row["size"])[-2:]
    return float((high["cpu_seconds"] - low["cpu_seconds"]) / (high[what] - low[what]))


def paper(rows: list[dict[str, Any]], walks_a_question: int = 2) -> dict[str, Any]:
    """What 10⁹ questions take, from constants measured on this machine.

    ``copies``: every node has both tables and they are averaged by a ring. ``split``: the rows are divided among the
    nodes, and every token fetches its rows of the two tables and sends them back once.
    """
    token = slope(rows, "sgns seed 0")
    largest = max((row for row in rows if row["stage"] == "graph"), key=lambda row: row["size"])
    tokens = MANY * walks_a_question * LENGTH
    table = 2 * 4 * DIM * MANY
    need = {
        "identifiers as Python text": NAME * MANY,
        "graph": (12 * largest["edges"] / largest["size"] + 8) * MANY,
        "walks on disk": 4 * tokens,
        "tables of sgns": table,
        "table of fastrp": table / 2,
        "its table of concepts": 8 * DIM * MANY / QUESTIONS_A_CONCEPT,
    }
    nodes = [
        {
            "nodes": n,
            "walks_gb": round(4 * tokens / n / 1e9, 1),
            "tables_gb": round(table / n / 1e9, 1),
            "tables_fit_split": "yes" if table / n / 1e9 < 0.8 * MEMORY else "no",
            "tables_fit_copied": "yes" if table / 1e9 < 0.8 * MEMORY else "no",
            "epoch_hours": round(token * tokens / (CORES * n) / 3600, 2),
            "split_gb": round(4 * 4 * DIM * tokens / n / 1e9),
            "split_hours": round(4 * 4 * DIM * tokens / n / 1e9 / NETWORK / 3600, 2),
            "copies_gb": round(2 * table * (n - 1) / n / 1e9),
            "copies_hours": round(2 * table * (n - 1) / n / 1e9 / NETWORK / 3600, 2),
        }
        for n in NODES
    ]
    return {
        "tokens_a_second_and_core": round(1 / token),
        "tokens": tokens,
        "need": [{"what": what, "gb": round(size / 1e9, 1)} for what, size in need.items()],
        "cluster": nodes,
    }


def label(size: int) -> str:
    """1e6, 2.5e6."""
    return f"{size:.1e}".replace(".0e", "e").replace("e+0", "e")


def curves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a stage: CPU seconds and peak memory of every size."""
    out = []
    for stage in STAGES:
        row: dict[str, Any] = {"curve": stage}
        for each in rows:
            if each["stage"] == stage:
                row[f"cpu {label(each['size'])}"] = each["cpu_seconds"]
                row[f"gib {label(each['size'])}"] = round(each["peak"] / GIB, 2)
                row[f"mb {label(each['size'])}"] = round(each["bytes"] / 1e6, 1)
        out.append(row)
    return out


def clear(folder: Path) -> None:
    """Remove all but the rows."""
    for path in folder.glob("*"):
        if path.is_dir() and not path.name.startswith("part-"):
            shutil.rmtree(path)
        elif path.is_file() and path.suffix != ".json":
            path.unlink()


def size_of(text: str) -> int:
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:].upper(), 1)
    return int(float(text.rstrip("kKmMgG")) * unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=lambda text: int(float(text)), default=1_000)
    parser.add_argument("--walks", type=int, default=2, help="walks a question")
    parser.add_argument("--max-memory", type=size_of, default=16 * GIB, help="that a stage may hold, as 16G")
    parser.add_argument("--folder", type=Path, default=None, help="working folder (default: scale-SIZE)")
    parser.add_argument("--until", choices=STAGES, default=list(STAGES)[-1], help="the last stage")
    parser.add_argument("--keep", action="store_true", help="keep walks and tables when all stages are done")
    parser.add_argument("--json", type=Path, help="write the rows here, beside those of other sizes")
    parser.add_argument("--paper", action="store_true", help="only the arithmetic for a billion questions")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    job = Job(args.size, args.walks, args.folder or Path(f"scale-{args.size}"))
    if args.stage:
        print(json.dumps(STAGES[args.stage](job)))
        return
    held = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.is_file() else {"rows": []}
    rows = held["rows"]
    if not args.paper:
        stages = list(STAGES)[: list(STAGES).index(args.until) + 1]
        sizes = [SMALLEST, *(job.size // part for part in PARTS)]
        smaller = [
            job._replace(size=size, folder=job.folder / f"part-{size}") for size in sizes if SMALLEST <= size < job.size
        ]
        for small in smaller:
            known = {row["stage"] for row in remembered() if (row["size"], row["walks"]) == (small.size, small.walks)}
            if not known.issuperset(stages):
                if small.size == SMALLEST:
                    compiled(small, stages, args.max_memory)
                carry_out(small, stages, args.max_memory)
                clear(small.folder)
        parts = {small.size for small in smaller if small.size > SMALLEST}
        new = [row for row in remembered() if row["size"] in parts and row["walks"] == job.walks]
        new += carry_out(job, stages, args.max_memory)
        if not args.keep:
            clear(job.folder)
        from record import stamped

        measured = {(row["stage"], row["size"], row["walks"]) for row in new}
        rows = [row for row in rows if (row["stage"], row["size"], row["walks"]) not in measured] + stamped(new)
        rows.sort(key=lambda row: (row["size"], row["walks"], list(STAGES).index(row["stage"])))
    held = {"dim": DIM, "length": LENGTH, "questions_a_concept": QUESTIONS_A_CONCEPT, "curves": curves(rows)}
    if len({row["size"] for row in rows if row["stage"] == "sgns seed 0"}) > 1:
        held["paper"] = paper(rows)
    held["rows"] = rows
    if args.json:
        args.json.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
