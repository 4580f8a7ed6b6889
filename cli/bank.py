"""Commands for a question bank: what there is, what is in it, its split and its walks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qcq.cli.console import (
    DataOption,
    DebugOption,
    JsonOption,
    QuietOption,
    SetOption,
    StrictOption,
    app,
    out,
    print_table,
    terminal,
)
from qcq.support.memory import amount

if TYPE_CHECKING:
    from qcq.data import Dataset
    from qcq.graph import KnowledgeGraph
    from qcq.walks import WalkStrategy

Kind = Literal["walks", "trainers", "tasks", "data"]


@app.command(rich_help_panel="Question banks")
def inspect(
    data: DataOption = "simulated",
    walk: Annotated[str, typer.Option("--walk", help="Walk strategy whose floors are computed.")] = "qcq",
    set_: SetOption = None,
    strict: StrictOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """What a graph can tell, before anything is trained: counts, exchangeable questions, the floor of every loss."""
    from qcq.config import Config
    from qcq.data import load
    from qcq.floors.identifiability import inspect as look

    settled = Config.load(None, set_ or (), data=data, walks=walk, strict=strict)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    strategy = settled.build_walks()[walk]
    graph = _graph(dataset, strategy)
    found = look(graph, strategy, None if dataset.interactions is None else dataset.split().train)
    notes = [*dataset.notes, *found.pop("notes", [])]
    found = {"dataset": dataset.name, "notes": notes, **graph.describe(), **found}
    if as_json:
        out.print_json(json.dumps(found))
        return
    for note in sorted(notes, key=lambda note: not note.startswith("doubtful: ")):
        doubtful = note.startswith("doubtful: ") and out.is_terminal
        out.print(note, markup=False, style="yellow" if doubtful else None)
    print_table(["what", "value"], [[key, _plain(value)] for key, value in _flat(found) if key != "notes"], left=1)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 else f"{value:,.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        shown = ", ".join(_plain(item) for item in value[:5])
        return shown + (f", … ({len(value)} in --json)" if len(value) > 5 else "")
    return str(value)


@app.command("data", rich_help_panel="Question banks")
def data_(
    name: Annotated[
        str | None, typer.Argument(help="A public data set, or a reader's name for all of its.", show_default="all")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where it was downloaded to.", show_default=False)
    ] = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Look at the files of DIR only; don't read them and count.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Public data sets: page, licence, files, published counts; with DIR, what is missing or another version.

    Exit code 1 if something is missing or isn't as published.
    """
    from dataclasses import asdict

    from qcq.data.catalogue import PUBLIC, named
    from qcq.data.download import editions, likeliest, look

    found = PUBLIC if name is None else named(name)
    if folder is not None:
        which = likeliest(found, folder)
        seen = list(look(found[which], folder, read=not files_only))
        if as_json:
            out.print_json(json.dumps({"name": which, "folder": str(folder), "found": [asdict(one) for one in seen]}))
        else:
            out.print(f"{which}: {found[which].title}", markup=False)
            words = {True: "ok", False: "DIFFERS", None: "not judged"}
            print_table(["what", "result", "found"], [[one.what, words[one.ok], one.found] for one in seen], left=3)
        if any(one.ok is False for one in seen):
            raise typer.Exit(1)
        return
    if as_json:
        out.print_json(json.dumps({key: asdict(each) for key, each in found.items()}))
        return
    rows = [
        [
            key,
            each.title,
            each.reader or "none",
            each.licence or "see the page",
            "known" if any(copy.sha256 for file in each.files for copy in file.copies) else "",
            each.page,
        ]
        for key, each in found.items()
    ]
    print_table(["name", "data set", "reader", "licence", "SHA-256", "official page"], rows, left=6)
    for key, each in found.items() if name is not None else ():
        out.print(f"\n{key}{each.note and f': {each.note}'}", markup=False)
        if each.licence:
            out.print(f"licence: {each.licence} ({each.licence_source})", markup=False)
        files = [
            [
                ("or " if at else "") + copy.path,
                "" if file.needed else "not needed",
                "" if copy.size is None else f"{copy.size:,}",
                copy.sha256,
                copy.source,
            ]
            for file in each.files
            for at, copy in enumerate(editions(file))
        ]
        print_table(["file", "", "bytes", "SHA-256", "stated at"], files, left=5)
        counts = [
            [
                *("–" if n is None else f"{n:,}" for n in (c.students, c.questions, c.concepts, c.responses)),
                f"{c.by}{c.note and f' ({c.note})'}: {c.source}",
            ]
            for c in each.counts
        ]
        if counts:
            print_table(["students", "questions", "concepts", "responses", "counted by"], counts, left=0)


@app.command("list", rich_help_panel="Question banks")
def list_(
    kind: Annotated[Kind | None, typer.Argument(help="One kind only.", show_default="all")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The walks, trainers, tasks and data formats, with their settings."""
    from qcq.data import DATASETS
    from qcq.evaluation import TASKS
    from qcq.models import TRAINERS
    from qcq.support.settings import fields
    from qcq.walks import WALKS

    registries: dict[str, Mapping[str, type]] = {
        "walks": WALKS,
        "trainers": TRAINERS,
        "tasks": TASKS,
        "data": DATASETS,
    }
    listed: dict[str, list[dict[str, Any]]] = {
        name: [
            {
                "name": key,
                "about": (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
                "settings": fields(cls) if hasattr(cls, "__dataclass_fields__") else {},
                **({"figures": dict(getattr(cls, "figures", {}))} if name == "tasks" else {}),
            }
            for key, cls in registry.items()
        ]
        for name, registry in registries.items()
        if kind in (None, name)
    }
    if as_json:
        out.print_json(json.dumps(listed, default=str))
        return
    for name, rows in listed.items():
        shown = [
            [row["name"], " ".join(row["about"].split()), ", ".join(f"{k}={v}" for k, v in row["settings"].items())]
            for row in rows
        ]
        print_table([name, "what it is", "settings"], shown, left=3)
        figures: dict[str, str] = {}
        for row in rows:  # the tasks of knowledge tracing have most figures in common
            figures |= {key: line for key, line in row.get("figures", {}).items() if key not in figures}
        if figures:
            print_table(["figures of kt tasks", "what they are"], [list(each) for each in figures.items()], left=2)


@app.command(rich_help_panel="Question banks")
def split(
    out_dir: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the files.")],
    data: DataOption = "simulated",
    seed: Annotated[int, typer.Option(help="Of the division, where the data set has no split of its own.")] = 0,
    set_: SetOption = None,
    strict: StrictOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write which student is in which part, for use without qcq: students.csv and its Croissant metadata.

    People under two identifiers are marked; answers aren't in it.
    """
    from qcq.config import Config
    from qcq.data import load
    from qcq.evaluation.published import write_split

    settled = Config.load(None, set_ or (), data=data, strict=strict)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    how = f"divided at random by seed {seed}" if dataset.parts is None else "the data set's own split"
    made = write_split(dataset, dataset.split(seed), out_dir, how)
    digests = {"digest": made.digest, "test_digest": made.test_digest}
    if as_json:
        out.print_json(json.dumps({"folder": str(made.folder), **digests, "students": made.counts}))
        return
    rows = [["folder", str(made.folder)], ["how", how], *([part, f"{n:,}"] for part, n in made.counts.items())]
    print_table(
        ["split", "value"], [*rows, *([name.replace("_", " "), value] for name, value in digests.items())], left=2
    )


@app.command(rich_help_panel="Question banks")
def walk(
    data: DataOption = "simulated",
    walk: Annotated[str, typer.Option("--walk", help="Walk strategy.")] = "qcq",
    out_dir: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the corpus.")] = Path("corpus"),
    text: Annotated[bool, typer.Option("--text", help="Write corpus.txt and vocab.txt too.")] = False,
    max_memory: Annotated[str, typer.Option(help="What sampling may hold, for example 500M or 4G.")] = "1G",
    redo: Annotated[bool, typer.Option("--redo", help="Replace another corpus in the folder.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the walks.")] = 0,
    set_: SetOption = None,
    strict: StrictOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Sample the walks only: int32 shards and their digest."""
    from qcq.config import Config
    from qcq.corpus import words
    from qcq.data import load

    settled = Config.load(None, set_ or (), data=data, walks=walk, strict=strict)
    strategy = settled.build_walks()[walk]
    watch = terminal(quiet)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    for note in dataset.notes:
        watch.say(note)
    graph = _graph(dataset, strategy)
    limit = amount(max_memory)
    for line in strategy.remarks(graph):
        watch.say(line)
    watch.say(str(strategy.plan(graph, max_memory=limit)))
    names = [*graph.questions, *(graph.concepts if strategy.keep_concepts else ())]
    if text:
        words(names)  # an error now, not after sampling
    with watch.progress("walks") as progress:
        corpus = strategy.stream(graph, out_dir, seed, max_memory=limit, progress=progress, replace=redo)
    if text:
        corpus.to_text(out_dir / "corpus.txt", names)
        corpus.write_vocabulary(out_dir / "vocab.txt", names)
    print_table(
        ["corpus", "value"],
        [
            ["folder", str(out_dir)],
            ["walks", f"{corpus.n_walks:,}"],
            ["tokens", f"{corpus.n_tokens:,}"],
            *([name.replace("_", " "), f"{n:,}"] for name, n in corpus.counts.items()),
            ["digest", corpus.digest],
        ],
        left=2,
    )


def _graph(dataset: Dataset, strategy: WalkStrategy) -> KnowledgeGraph:
    """The whole graph, with the training students' responses if the walk needs them."""
    from qcq.graph import KnowledgeGraph

    graph = KnowledgeGraph.from_dataset(dataset)
    return strategy.prepare(graph, None if dataset.interactions is None else dataset.split().train)
