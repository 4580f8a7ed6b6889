"""Commands for a question bank: what there is, what is in it, its split and its walks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcq.cli.console import (
    DataOption,
    DebugOption,
    JsonOption,
    OnData,
    QuietOption,
    SetOption,
    StrictOption,
    app,
    out,
    print_table,
    say_unused,
    terminal,
)
from qcq.errors import ConfigError, UnknownNameError
from qcq.support.memory import amount

if TYPE_CHECKING:
    from qcq.data import Dataset
    from qcq.data.catalogue import PublicData
    from qcq.data.download import Finding
    from qcq.graph import KnowledgeGraph
    from qcq.walks import WalkStrategy


@app.command(cls=OnData, rich_help_panel="Question banks")
def inspect(
    data: DataOption = "simulated",
    walk: Annotated[str, typer.Option("--walk", help="Walk strategy whose floors are computed.")] = "qcq",
    set_: SetOption = None,
    strict: StrictOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """What a graph can tell, before anything is trained: counts, exchangeable questions, the floors of losses."""
    from qcq.config import Config
    from qcq.data import load
    from qcq.floors.identifiability import inspect as look

    settled = Config.load(None, set_ or (), data=data, walks=(walk,), strict=strict)
    say_unused(settled, set_)
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
    print_table([f"data set {found['dataset']}", ""], _important(found), left=1)
    out.print("entropies and floors in nats; every figure: --json", markup=False)


def _important(found: dict[str, Any]) -> list[list[str]]:
    """The rows a person needs first: counts, what can't be told apart, floors, and what would help."""

    def whole(name: str) -> str:
        return f"{found[name]:,}"

    concepts, most = found["concepts_a_question_mean"], found["concepts_a_question_most"]
    questions = found["questions_a_concept_median"], found["questions_a_concept_most"]
    rows = [
        ["questions", whole("questions")],
        ["concepts", whole("concepts")],
        ["edges", whole("edges")],
        ["concepts of a question: mean, most", f"{concepts:.2f}, {most:,}"],
        ["questions of a concept: median, most", f"{questions[0]:,.0f}, {questions[1]:,}"],
        ["questions without a concept", whole("questions_without_concept")],
        ["concepts without a question", whole("concepts_without_question")],
        ["components", whole("components")],
        ["questions that differ for the walk", whole("distinct_sets")],
        ["exchangeable with another question", f"{found['indistinguishable_share']:.1%}"],
        ["no knowledge: ln Q", f"{found['ln_q']:.3f}"],
        ["which one of exchangeable questions: no model knows", f"{found['within_class']:.3f}"],
    ]
    errors = found["standard_errors"]
    for name, value in found["floors"]["walk"].items():
        path = f"floors.walk.{name}"
        rows.append([f"floor of {name.replace('_', ' ')}", _nats(value, errors.get(path))])
    for name, value in found["achieved"].items():
        rows.append([f"reached by {name.replace('_', ' ')}", _nats(value, None)])
    shared = ", ".join(f"{value:.2f}" for value in found["mutual_information"][:3])
    rows.append(["mutual information at 1, 2, 3 steps", shared])
    if "recommended_dim" in found["log_ratio"]:
        rows.append(["dimensions for skip-gram", f"{found['log_ratio']['recommended_dim']:,}"])
    for name, effect in found["would_add"].items():
        if effect.get("indistinguishable_share", found["indistinguishable_share"]) != found["indistinguishable_share"]:
            rows.append([f"exchangeable with edges by {name}", f"{effect['indistinguishable_share']:.1%}"])
    return rows


def _nats(value: float | None, error: float | None) -> str:
    """An entropy, with its standard error if it is sampled."""
    if value is None:
        return "–"
    return f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")


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
            print_table(["what", "result", "found"], [[one.what, *_judged(one)] for one in seen], left=3)
            out.print(_reading(found[which], folder), markup=False)
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
        out.print(_reading(each, "DIR"), markup=False)
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


def _judged(one: Finding) -> tuple[str, str]:
    """The result in a word, and what was found."""
    from qcq.data.download import MISSING

    if one.found == MISSING:
        return MISSING, ""
    wrong = "no" if one.what in ("recognised", "read") else "DIFFERS"
    return {True: "ok", False: wrong, None: "not judged"}[one.ok], one.found


def _reading(data: PublicData, folder: object) -> str:
    """The command that reads a public data set, with the settings that it needs."""
    if not data.reader:
        return "to read it: there is no reader"
    settings = [f"{data.reader}.{key}={json.dumps(value)}" for key, value in data.settings.items()]
    options = ["--data", f"{data.reader}:{folder}", *(word for each in settings for word in ("--set", each))]
    return f"to read it: qcq run {shlex.join(options)}"


@app.command("list", rich_help_panel="Question banks")
def list_(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND-or-NAME]",
            help="walks, trainers, tasks or data: one kind, with all settings; or a name, with its settings.",
            show_default="names of all kinds",
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The walks, trainers, tasks and data formats, and what each is; the settings of one kind or name."""
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
    asked = {
        kind: {name: cls for name, cls in registry.items() if which in (None, kind, name)}
        for kind, registry in registries.items()
    }
    asked = {kind: parts for kind, parts in asked.items() if parts}
    section, dot, _ = str(which).partition(".")
    section = "walks" if section == "walk" else section
    if dot and any(section in (kind, *registry) for kind, registry in registries.items()):
        raise ConfigError(f"{which!r} is no kind or name, but perhaps a setting: 'qcq list {section}' shows settings")
    if not asked:
        raise UnknownNameError(
            "kind or name", str(which), [*registries, *(n for each in registries.values() for n in each)]
        )
    listed: dict[str, list[dict[str, Any]]] = {
        kind: [
            {
                "name": name,
                "about": (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
                "settings": fields(cls) if hasattr(cls, "__dataclass_fields__") else {},
                **({"figures": dict(getattr(cls, "figures", {}))} if kind == "tasks" else {}),
            }
            for name, cls in parts.items()
        ]
        for kind, parts in asked.items()
    }
    if as_json:
        out.print_json(json.dumps(listed, default=str))
        return
    for at, (kind, rows) in enumerate(listed.items()):
        out.print() if at else None
        shown = [[row["name"], " ".join(row["about"].replace("``", "").split())] for row in rows]
        print_table([kind, "what it is"], shown, left=2)
        if which is not None:
            _list_more(kind, asked[kind], one=which in asked[kind])
    if which is None:
        out.print("\nsettings: qcq list walks, trainers, tasks or data; qcq list NAME for one", markup=False)


def _default(value: Any) -> str:
    """A default as ``--set`` takes it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str) if value is not None else "none"


def _list_more(kind: str, parts: Mapping[str, type], one: bool) -> None:
    """Settings with their defaults, what a format needs, and what the figures of tasks are."""
    from qcq.support.settings import fields

    if kind == "data":
        needs = [[name, said] for name, cls in parts.items() if (said := getattr(cls, "needs", ""))]
        _more(["format", "what it needs"], needs)
    having = {name: getattr(cls, "settings", None) if kind == "tasks" else cls for name, cls in parts.items()}
    settings = {name: fields(cls) for name, cls in having.items() if cls is not None and fields(cls)}
    if one:
        for name, each in settings.items():
            _more(["setting", "default"], [[f"{name}.{key}", _default(v)] for key, v in each.items()])
    else:
        shown = [
            [name, ", ".join(f"{key}={_default(v)}" for key, v in each.items())] for name, each in settings.items()
        ]
        _more(["name", "settings"], shown)
    figures: dict[str, str] = {}
    for cls in parts.values():  # the tasks of knowledge tracing have most figures in common
        figures |= {key: line for key, line in getattr(cls, "figures", {}).items() if key not in figures}
    _more(["figures of kt tasks", "what they are"], [list(each) for each in figures.items()])


def _more(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A further table below another one; nothing if it has no rows."""
    if rows:
        out.print()
        print_table(titles, rows, left=2)


@app.command(cls=OnData, rich_help_panel="Question banks")
def split(
    out_dir: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the files.")],
    data: DataOption = "simulated",
    seed: Annotated[int, typer.Option(help="Of the division, where the data set has no split of its own.")] = 0,
    redo: Annotated[bool, typer.Option("--redo", help="Replace another split in the folder.")] = False,
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
    say_unused(settled, set_)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    how = f"divided at random by seed {seed}" if dataset.parts is None else "the data set's own split"
    made = write_split(dataset, dataset.split(seed), out_dir, how, replace=redo)
    digests = {"digest": made.digest, "test_digest": made.test_digest}
    if as_json:
        out.print_json(json.dumps({"folder": str(made.folder), **digests, "students": made.counts}))
        return
    rows = [["folder", str(made.folder)], ["how", how], *([part, f"{n:,}"] for part, n in made.counts.items())]
    print_table(
        ["split", "value"], [*rows, *([name.replace("_", " "), value] for name, value in digests.items())], left=2
    )


@app.command(cls=OnData, rich_help_panel="Question banks")
def walk(
    data: DataOption = "simulated",
    walk: Annotated[str, typer.Option("--walk", help="Walk strategy.")] = "qcq",
    out_dir: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the corpus.")] = Path("corpus"),
    text: Annotated[bool, typer.Option("--text", help="Write corpus.txt and vocab.txt too.")] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write walks.parquet too, a table for Spark: an array of names a walk.")
    ] = False,
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

    settled = Config.load(None, set_ or (), data=data, walks=(walk,), strict=strict)
    say_unused(settled, set_)
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
    if text or parquet:
        words(names)  # an error now, not after sampling
    with watch.progress("walks") as progress:
        corpus = strategy.stream(graph, out_dir, seed, max_memory=limit, progress=progress, replace=redo)
    if text:
        corpus.to_text(out_dir / "corpus.txt", names)
        corpus.write_vocabulary(out_dir / "vocab.txt", names)
    if parquet:
        corpus.to_parquet(out_dir / "walks.parquet", names)
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
