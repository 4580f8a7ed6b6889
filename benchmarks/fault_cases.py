"""The commands whose calls ``faults.py injected`` makes fail, and the small bank that they work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOM = ["simulated.questions=60", "simulated.students=40", "simulated.concepts=6", "simulated.responses=20"]
QUICK = ["walk.length=8", "walk.per_question=2", "mlm.steps=6", "mlm.heads=2", "sgns.epochs=1", "dim=8"]
SETTINGS = [f"--set={setting}" for setting in [*ROOM, *QUICK]]
BANK = "question,concepts\n" + "".join(f"q{i},c{i % 4};d{i % 3}\n" for i in range(24))
ANSWERS = "student,question,correct\n" + "".join(
    f"s{s},q{(7 * s + i) % 24},{(s * i + i // 3) % 2}\n" for s in range(16) for i in range(9)
)


@dataclass(frozen=True)
class Case:
    """A command whose calls are made to fail.

    Parameters
    ----------
    name : in the results.
    words : the command; ``HOME`` stands for the folder it is run in.
    made : what it makes, under that folder.
    before : commands that make what it needs, or what it replaces; they are run once.
    """

    name: str
    words: tuple[str, ...]
    made: str
    before: tuple[tuple[str, ...], ...] = ()


def saved_graph(path: str) -> None:
    """The graph of a small bank, in the format of the path's ending."""
    from qcq.data import load
    from qcq.graph import KnowledgeGraph

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    KnowledgeGraph.from_dataset(load(str(Path(path).parents[1] / "bank"))).save(path)


def damaged(path: str) -> None:
    """A run with one flipped bit and one lost file."""
    table = next(Path(path, "embeddings").glob("*.safetensors"))
    held = bytearray(table.read_bytes())
    held[-1] ^= 1
    table.unlink()
    table.write_bytes(held)
    Path(path, "report.md").unlink()


# Calls of Python, or of this script, that are tried like commands.
CALLS: dict[str, Callable[[str], None]] = {"graph.save": saved_graph, "damage": damaged}

RUN = ("run", "--quiet", "--data", "HOME/bank", "--seeds", "1", *(f"--set={one}" for one in QUICK), "--set=tune=false")
WALK = ("walk", "--quiet", "--data", "HOME/bank", "--out", "HOME/made", *SETTINGS[4:6])
SCORED = ("--quiet", "--data", "HOME/bank", "--seeds", "1", "--tasks", "edges", "--set=dim=8")
EDGES = ("--trainers", "svd", "--tasks", "edges")
SHORT = (*RUN, *EDGES, "--out", "HOME/made")
TABLE = ("embed", "--quiet", "--data", "HOME/bank", "--recipe", "concepts", "--dim", "4")
WRITTEN = (*TABLE, "--out", "HOME/table.npz")
TRACED = ("--tasks", "kt-difficulty", *(f"--set=kt-difficulty.{one}" for one in ("hidden=4", "epochs=1")))
TABLES = (WRITTEN, (*TABLE[:4], "--trainer", "svd", "--dim", "4", "--out", "HOME/other.npz"))
EXPORTS = {"tensorboard": "table.tsv", "hub": "hub", "atlas": "table.parquet"}
CASES = (
    Case("run", (*RUN, "--trainers", "sgns,mlm,svd", "--tasks", "edges,difficulty", "--out", "HOME/made"), "made"),
    Case("run --redo", (*SHORT, "--redo"), "made", (SHORT,)),
    Case("run of folds", (*SHORT, "--set=folds=2"), "made"),
    Case("run of tracers", (*RUN, "--trainers", "svd", *TRACED, "--out", "HOME/made"), "made"),
    Case("run with a far store", (*RUN, *EDGES, "--store", "file://HOME/made/far", "--out", "HOME/made/run"), "made"),
    Case(
        "run with a checkpoint",
        (
            *RUN,
            "--trainers",
            "mlm",
            "--tasks",
            "edges",
            "--set=mlm.checkpoint=HOME/made/kept.safetensors",
            *("--out", "HOME/made/run"),
        ),
        "made",
    ),
    Case("score", ("score", "HOME/table.npz", *SCORED, "--out", "HOME/made"), "made", (WRITTEN,)),
    Case("report", ("report", "HOME/made"), "made", (SHORT,)),
    Case("verify --repair", ("verify", "--quiet", "--repair", "HOME/made"), "made", (SHORT, ("damage", "HOME/made"))),
    Case(
        "trace",
        (
            "trace",
            "--quiet",
            "HOME/made/run",
            "HOME/student.csv",
            "--out",
            "HOME/made/far.csv",
            "--plot",
            "HOME/made/far.html",
        ),
        "made",
        ((*RUN, "--trainers", "svd", *TRACED, "--out", "HOME/made/run"),),
    ),
    Case("walk", (*WALK, "--text", "--parquet"), "made"),
    *(
        Case(f"graph.save {kind}", ("graph.save", f"HOME/made/graph.{kind}"), "made")
        for kind in ("graphml", "csv", "npz")
    ),
    Case("split", ("split", "--data", "HOME/bank", "--out", "HOME/made"), "made"),
    *(
        Case(f"embed {kind}", (*TABLE, "--redo", "--out", f"HOME/made/table.{kind}"), "made")
        for kind in ("safetensors", "parquet", "csv", "npz", "json", "pt", "vec")
    ),
    *(
        Case(
            f"export {kind}",
            ("export", "HOME/table.npz", "--to", kind, "--redo", "--out", f"HOME/made/{file}"),
            "made",
            (WRITTEN,),
        )
        for kind, file in EXPORTS.items()
    ),
    *(
        Case(
            f"export {kind} --order",
            ("export", "HOME/table.npz", "--order", "HOME/order.json", "--redo", "--out", f"HOME/made/table.{kind}"),
            "made",
            (WRITTEN,),
        )
        for kind in ("npy", "json", "pt")
    ),
    Case(
        "diff --align", ("diff", "HOME/table.npz", "HOME/other.npz", "--align", "HOME/made/turned.npz"), "made", TABLES
    ),
    Case(
        "add",
        ("add", "--to", "HOME/table.parquet", "--questions", "HOME/new.csv", "--out", "HOME/made/more.parquet"),
        "made",
        ((*TABLE, "--out", "HOME/table.parquet"),),
    ),
)
