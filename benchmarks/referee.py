"""The referee: its one fixed comparison, chosen on validation students and tested once, and a table of all models.

``choose`` trains published models with the tables of ``experiments/referee.toml``, in each of the ways of that file,
and with their own embedding from the same seed. A row is one data set, model, walk, trainer and seed, with the AUC of
both on validation students; no test part is read. Validation chooses the epoch and the way too, so both figures are a
little too high, and the table has one more choice. ``ahead`` is the difference, with its 95 % interval over students.
Finished rows are in the JSON file and are not made again.

``claim`` reads finished runs of that file and computes the comparison that its comment fixes (``CLAIM``), averaged over
the seeds, with its own 95 % interval over test students. It holds if the interval is above zero on both sets. Every
other comparison carries no claim; it stands in the report of its run, or in the table of ``compare``.

``compare`` puts all models of several finished runs into one table: a row is a model with the vectors of a trainer, its
own embedding, or none. Rows of earlier calls stay in the JSON file. ``ahead`` is the AUC with the vectors minus that of
the same model with its own embedding. Its 95 % intervals over students hold for all rows of the file at once, by
Bonferroni's correction. With ``--beside FILE``, a difference also has the interval of the same row of another such file
(the same models on another device, say), and ``same side`` tells whether both are above zero, both below, or neither.

    python benchmarks/referee.py choose --data s2kt:DIR pebg:DIR --models qDKT --json docs/results/referee_choice.json
    python benchmarks/referee.py claim RUN RUN --json docs/results/referee_claim.json
    python benchmarks/referee.py compare RUN RUN --json docs/results/referee_models.json
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import ROOT, made
from scipy.stats import t

from qcq.data import load
from qcq.embeddings import Embeddings
from qcq.errors import EvaluationError
from qcq.evaluation import Partition, paired_bootstrap
from qcq.evaluation.statistics import Difference
from qcq.evaluation.tracing.peer import OWN, PEERS, KTPeer, KTPeerSettings
from qcq.models import TRAINERS, TrainingData
from qcq.report.tables import ITS_OWN, table_without_vectors, tracing_table
from qcq.run import NO_WALK, Run
from qcq.support.files import write_text
from qcq.walks import Metapath

Row = dict[str, Any]
REFEREE = tomllib.loads((ROOT / "experiments" / "referee.toml").read_text(encoding="utf-8"))
TRAINER = "ppmi-svd"
CLAIM = {"task": "kt-peer@qdkt", "metric": "auc", "trainer": TRAINER, "walk": "metapath@difficulty"}
SETS = {"s2kt_assist09", "pebg_ednet"}
LEFT_OUT = "left-out"


def table(partition: Partition, walk: str, seed: int) -> Embeddings:
    """Vectors of ``ppmi-svd`` on a walk of the file; only training students are read."""
    strategy = Metapath(**{**REFEREE["walk"], **REFEREE[walk]})
    assert partition.split is not None
    graph = strategy.prepare(partition.graph, partition.split.train)
    model = TRAINERS[TRAINER](dim=64).fit(TrainingData(graph, strategy, seed), seed)
    found = strategy.to_questions(partition.graph, model.embeddings())
    return Embeddings(found.ids, found.vectors, provenance={**found.provenance, "seed": seed})


def interval(difference: Difference) -> dict[str, float]:
    return {key: round(getattr(difference, at), 4) for key, at in (("value", "mean"), ("low", "low"), ("high", "high"))}


def measured(task: KTPeer, vectors: Embeddings) -> Row:
    """AUC on validation students with the table and with the model's own embedding."""
    began = time.process_time()
    score = task.score(vectors, "validation")
    return {
        "way": score.choices["way"],
        "toolkit": score.choices["toolkit"],
        "with the table": round(score.metrics["auc"], 4),
        "own embedding": round(score.metrics[f"{OWN}/auc"], 4),
        "ahead": interval(paired_bootstrap(score.units["auc"], score.units[f"{OWN}/auc"])),
        "cpu_seconds": round(time.process_time() - began),
    }


def finished(file: Path | None) -> list[Row]:
    there = file is not None and file.exists()
    return json.loads(file.read_text(encoding="utf-8"))["results"] if file is not None and there else []


def choose(given: argparse.Namespace) -> None:
    results = finished(given.json)
    ways = tuple(REFEREE["kt-peer"]["tables"])
    for source in given.data:
        data = load(source)
        for seed in (int(each) for each in given.seeds.split(",")):
            partition = Partition.make(data, seed, hold_out_edges=False)
            for model in given.models:
                task = KTPeer(partition, KTPeerSettings(model=model, tables=ways, epochs=given.epochs))
                for walk in given.walks:
                    mark = {"data": data.name, "model": model, "walk": walk, "trainer": TRAINER, "seed": seed}
                    mark |= {"epochs": given.epochs, "pattern": REFEREE[walk]["pattern"], "ways": ", ".join(ways)}
                    if any(mark.items() <= row.items() for row in results):
                        continue
                    row = {**mark, **measured(task, table(partition, walk, seed)), "made": made(data)}
                    results.append(row)
                    if given.json:
                        write_text(given.json, json.dumps({"results": results}, indent=1) + "\n")
                    print({key: value for key, value in row.items() if key != "made"}, flush=True)


def claimed(run: Run) -> Row:
    """The fixed comparison in one run.

    Raises
    ------
    EvaluationError : a run with other settings than those for which the comparison is fixed.
    """
    task, metric, trainer, walk = CLAIM.values()
    plan = json.loads(json.dumps(asdict(KTPeerSettings(**{**REFEREE["kt-peer"], **REFEREE[task]}))))
    del plan["device"]  # figures differ by rounding alone
    fixed = {"seeds": REFEREE["seeds"], "tune": False, walk: {**REFEREE["walk"], **REFEREE[walk]}, task: plan}
    for name, wanted in fixed.items():
        held = run.config.get(name)
        if not (wanted.items() <= (held or {}).items() if isinstance(wanted, dict) else held == wanted):
            raise EvaluationError(f"{run.path}: {name} is {held}; the comparison is fixed for {wanted}")
    if run.config.get("split", {}).get("duplicates", LEFT_OUT) != LEFT_OUT:
        raise EvaluationError(f"{run.path}: a run as published; the comparison is fixed for one identifier a person")
    training = [row for row in run.rows("training") if (row["walk"], row["trainer"]) == (walk, trainer)]
    units = [run.units(walk, trainer, row.get("readout", ""), row["seed"]) for row in training]
    asked = [f"{task}/{metric}", f"{task}/{OWN}/{metric}"]
    if len(units) != REFEREE["seeds"] or not all(set(asked) <= set(each) for each in units):
        raise EvaluationError(f"{run.path}: {task} of {trainer} on {walk} isn't finished for every seed; run it again")
    ours, own = (np.mean([each[name] for each in units], axis=0) for name in asked)  # (students,)
    found = paired_bootstrap(ours, own)
    return {
        "data": run.read_json("about.json")["dataset"],
        **CLAIM,
        "seeds": len(units),
        "students": len(ours),
        "with the table": round(float(ours.mean()), 4),
        "own embedding": round(float(own.mean()), 4),
        "ahead": interval(found),
        "above zero": "yes" if found.low > 0 else "no",
        "command": run.read_json("environment.json")["command"],
    }


def claim(given: argparse.Namespace) -> None:
    rows = [claimed(Run.open(path)) for path in given.runs]
    holds = "yes" if {row["data"] for row in rows if row["above zero"] == "yes"} == SETS else "no"
    for row in rows:
        print(row)
    print(f"holds on both sets: {holds}")
    if given.json:
        held = {"made": made(), "claim": {**CLAIM, "holds": holds}, "results": rows}
        write_text(given.json, json.dumps(held, indent=1) + "\n")


def models(run: Run, data: str) -> list[Row]:
    """Every figure of each model in a run, with the vectors of each trainer, its own embedding, or none."""
    rows = []
    found, bare = tracing_table(run), table_without_vectors(run)
    for (task, walk, trainer, _), values in found.rows if found else ():
        rows.append({**known(run, data, task), "vectors": trainer, "walk": walk, **rounded(found.figures, values)})
    for (task, model), values in bare.rows if bare else ():
        about = {"vectors": ITS_OWN} if model == ITS_OWN else {"model": model, "vectors": "none"}
        rows.append({**known(run, data, task), **about, "walk": NO_WALK, **rounded(bare.figures, values)})
    return rows


def known(run: Run, data: str, task: str) -> Row:
    """What a figure is of."""
    plan = run.config.get(task, {})
    row = {"data": data, "task": task, "model": plan.get("model", task), "seeds": run.config["seeds"]}
    return {**row, "epochs": plan["epochs"], "ways": ", ".join(plan["tables"])} if "tables" in plan else row


def rounded(figures: Sequence[str], values: Sequence[float | None]) -> Row:
    return {name: round(value, 4) for name, value in zip(figures, values, strict=True) if value is not None}


def beside_own(run: Run, data: str) -> list[tuple[Row, NDArray[np.float64]]]:
    """AUC of each student with a table and with the model's own embedding, means over seeds: (2, students)."""
    held: dict[tuple[str, str, str], list[NDArray[np.float64]]] = {}
    for row in run.rows("training"):
        units = run.units(row["walk"], row["trainer"], row.get("readout", ""), row["seed"])
        for task in run.config["tasks"]:
            if f"{task}/{OWN}/auc" in units:
                both = np.stack([units[f"{task}/auc"], units[f"{task}/{OWN}/auc"]])  # (2, students)
                held.setdefault((task, row["trainer"], row["walk"]), []).append(both)
    return [
        ({**known(run, data, task), "vectors": trainer, "walk": walk}, np.mean(each, axis=0))
        for (task, trainer, walk), each in held.items()
    ]


def compare(given: argparse.Namespace) -> None:
    there = given.json and given.json.exists()
    file = json.loads(given.json.read_text(encoding="utf-8")) if there else {"results": [], "differences": []}
    rows = {marked(row): row for row in file["results"]}
    pairs = {marked(row): row for row in file["differences"]}
    for run in map(Run.open, given.runs):
        failed = [row["error"] for row in run.rows("training") if row.get("error")]
        if failed or not run.finished:
            why = f"failed: {failed[0]}" if failed else "isn't finished"
            raise EvaluationError(f"{run.path}: a row {why}; run the same command again")
        about = run.read_json("about.json")
        data = about["dataset"]
        if run.config.get("split", {}).get("duplicates", LEFT_OUT) != LEFT_OUT:
            data += " as published"
        command = run.read_json("environment.json")["command"]
        for row in models(run, data):
            rows[marked(row)] = {**row, "students": about["students"]["test"], "command": command}
        for row, units in beside_own(run, data):
            ours, own = units
            d, se = float((ours - own).mean()), float(np.std(ours - own, ddof=1) / np.sqrt(len(ours)))
            means = {"with the table": round(float(ours.mean()), 4), "own embedding": round(float(own.mean()), 4)}
            exact = {"difference": round(d, 6), "se": round(se, 6), "students": len(ours)}
            pairs[marked(row)] = {**row, **means, **exact}
    differences = at_once(list(pairs.values()))
    if given.beside:
        other = {
            marked(row): row["ahead"] for row in json.loads(given.beside.read_text(encoding="utf-8"))["differences"]
        }
        differences = [beside(row, other.get(marked(row))) for row in differences]
    for row in differences:
        print(row)
    if given.json:
        order = list(dict.fromkeys((row["data"], row["model"]) for row in rows.values()))
        results = sorted(
            rows.values(), key=lambda row: (order.index((row["data"], row["model"])), row["vectors"] != ITS_OWN)
        )
        held = {"made": made(), "results": results, "differences": differences}
        write_text(given.json, json.dumps(held, indent=1) + "\n")


def beside(row: Row, there: dict[str, float] | None) -> Row:
    """The row with the interval of the same comparison in another file, if it is there."""
    if there is None:
        return row
    same = side(row["ahead"]) == side(there)
    return {**row, "other file": "{value} [{low}, {high}]".format(**there), "same side": "yes" if same else "no"}


def side(ahead: dict[str, float]) -> int:
    """1: above zero, -1: below, 0: an interval that takes in zero."""
    return int(ahead["low"] > 0) - int(ahead["high"] < 0)


def marked(row: Row) -> tuple[Any, ...]:
    """What tells a row from others."""
    return tuple(row.get(name) for name in ("data", "task", "model", "seeds", "epochs", "ways", "vectors", "walk"))


def at_once(rows: list[Row]) -> list[Row]:
    """The rows with intervals that hold for all of them at once: d ± t s with Student's t at 1 - 0.05 / (2 rows)."""
    out = []
    for row in rows:
        reach = float(t.ppf(1 - 0.05 / (2 * len(rows)), row["students"] - 1)) * row["se"]
        d = row["difference"]
        ahead = {"value": round(d, 4), "low": round(d - reach, 4), "high": round(d + reach, 4)}
        out.append({**row, "ahead": ahead})
    return out


def named(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads comma-separated names, of these."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("choose", help="on validation students")
    one.add_argument("--data", nargs="+", required=True, metavar="FORMAT:PATH")
    one.add_argument("--models", type=named(PEERS), default="qDKT", help=f"comma-separated, of {', '.join(PEERS)}")
    walks = REFEREE["walks"]
    one.add_argument("--walks", type=named(walks), default=",".join(walks), help="comma-separated, of the file")
    one.add_argument("--seeds", default="0", help="comma-separated")
    one.add_argument("--epochs", type=int, default=KTPeerSettings().epochs)
    one.add_argument("--json", type=Path, help="written after every row; rows that are in it aren't made again")
    one.set_defaults(do=choose)
    other = verbs.add_parser("claim", help="on test students, from finished runs")
    other.add_argument("runs", nargs="+", metavar="RUN")
    other.add_argument("--json", type=Path)
    other.set_defaults(do=claim)
    whole = verbs.add_parser("compare", help="all models of finished runs")
    whole.add_argument("runs", nargs="+", metavar="RUN")
    whole.add_argument("--json", type=Path)
    whole.add_argument("--beside", type=Path, metavar="FILE", help="another file of compare, whose rows stand beside")
    whole.set_defaults(do=compare)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
