"""The command line: arguments and output; other modules do the work."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from qcq.errors import ConfigError, QCQError
from qcq.support.terminal import Terminal, duration, show, size
from qcq.support.threads import affordable_jobs

if TYPE_CHECKING:
    from qcq.data import Dataset
    from qcq.engine import Plan, Store
    from qcq.graph import KnowledgeGraph
    from qcq.run import Run
    from qcq.walks import WalkStrategy

app = typer.Typer(
    name="qcq",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Question embeddings from question-concept-question walks, every loss read against its exact floor.",
    epilog="Settings are named section.key: walk.length, mlm.steps, node2vec.p ...; 'qcq list' shows them all.",
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

WORTH_PROCESSES = 200.0  # weight of a plan (:attr:`qcq.engine.Cell.weight`) from which starting processes pays off

DataOption = Annotated[
    str, typer.Option("--data", help="format:path, a bare path (recognised by its contents), or 'simulated'.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, for example walk.length=20.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
StrictOption = Annotated[
    bool | None, typer.Option("--strict", help="Make an error of everything doubtful in the data.", show_default=False)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result and errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, help="Processes; changes no result.", show_default="the cores, as memory allows"
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="A folder of finished work that several runs share.", show_default="in the run folder"
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        out.print(f"qcq {metadata.version('qcq')}")
        raise typer.Exit


@app.callback()
def qcq(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Question embeddings from question-concept-question walks, every loss read against its exact floor."""


def _terminal(quiet: bool) -> Terminal:
    return Terminal(err, quiet)


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML file; without one, the defaults.")] = None,
    data: Annotated[
        str | None, typer.Option(help="format:path, a bare path, or 'simulated' (the default: a made-up classroom).")
    ] = None,
    walks: Annotated[str | None, typer.Option(help="Walk strategies, comma-separated.")] = None,
    trainers: Annotated[str | None, typer.Option(help="Trainers, comma-separated.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, comma-separated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.", show_default="3")] = None,
    size: Annotated[str | None, typer.Option(help="Which of the file's sizes to run, for example small.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Run folder.", show_default="runs/DATA")
    ] = None,
    set_: SetOption = None,
    strict: StrictOption = None,
    jobs: JobsOption = None,
    store: StoreOption = None,
    track: Annotated[
        str | None,
        typer.Option(metavar="TRACKER", help="Send losses, floors, figures and report to wandb, trackio or mlflow."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and what it will cost.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Do finished cells again.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare trainers on one data set, end to end: walks, training, evaluation, report.

    Finished cells of an earlier run in the same folder are skipped.
    """
    from qcq.config import Config

    options = {"data": data, "walks": walks, "trainers": trainers, "tasks": tasks, "seeds": seeds, "size": size}
    settled = Config.load(config, set_ or (), **options, store=store, strict=strict)

    from qcq.pipeline import Experiment, run_folds
    from qcq.report.tracking import open_tracker

    tracker = None if track is None else open_tracker(track)  # before the data are read
    experiment = Experiment(settled)
    folder = out_dir or Path("runs") / experiment.data.name
    whole = settled.folds == 1 or bool(settled.fold)
    if dry_run:
        if not whole:
            raise ConfigError("--dry-run shows one fold; name it: --set fold=1")
        _dry_run(experiment.plan, experiment.store(folder))
        return
    if whole:
        todo = _jobs(jobs, experiment.plan)
        _tell(experiment.run(folder, jobs=todo, redo=redo, watch=_terminal(quiet), tracker=tracker))
        return
    from qcq.report import Folds

    first = Experiment(replace(settled, fold=1), experiment.data)
    many = _jobs(jobs, first.plan)
    how: dict[str, Any] = {"jobs": many, "redo": redo, "watch": _terminal(quiet), "tracker": tracker}
    folds = Folds(run_folds(settled, folder, experiment.data, **how))
    _show([column.title for column in folds.columns], folds.cells(), left=3)
    for pair in folds.paired_comparisons():
        out.print(str(pair), markup=False)
    out.print(
        f"report: {folder / 'report.md'}, and one in each of {folder}/fold-1 to fold-{len(folds.runs)}", markup=False
    )
    if any("error" in row for made in folds.runs for row in made.rows("training")):
        raise typer.Exit(1)


def _dry_run(plan: Plan, store: Store) -> None:
    """The cells of a plan, which of them are finished, and the expected cost of the others."""
    from qcq.engine.estimate import Rates

    steps = plan.steps(store, Rates())
    rows = []
    for step in steps:
        e, state = step.estimate, {True: "finished", False: "to do", None: "waits for a choice"}[step.finished]
        cost = ["–"] * 4 if e is None else [f"{e.tokens:,}", size(e.bytes), size(e.memory), duration(e.seconds)]
        rows.append([step.cell.label, state, *cost])
    _show(["cell", "state", "tokens", "on disk", "memory", "about"], rows, left=2)
    left = sum(step.estimate.seconds for step in steps if step.estimate is not None)
    n = sum(step.finished is not True for step in steps)
    said = f"{n} of {len(steps)} cells to do, about {duration(left)} in one process"
    out.print(f"{said}; times are predicted from a short trial on this machine", markup=False)


def _tell(made: Run) -> None:
    """A finished run: its table, the comparisons, the place of the report; exit code 1 if a trainer failed."""
    from qcq.report import beside_baselines, cautions, comparison, verdicts

    table = comparison(made)
    _show([column.title for column in table.columns], table.cells(), left=3)
    for line in [*verdicts(made, table), *map(str, beside_baselines(made, table)), *cautions(made, table)]:
        out.print(line, markup=False)
    for each in table.lines:
        if each.error:
            err.print(f"{each.trainer} failed: {each.error}", markup=False)
    out.print(f"report: {made.path / 'report.html'} (and report.md)", markup=False)
    if any("error" in row for row in made.rows("training")):
        raise typer.Exit(1)


@app.command()
def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Question vectors: .safetensors, .npz (ids, vectors), .parquet, .json (id: vector), .csv, .pt (ids, "
            "vectors), or word2vec's .txt, .vec or .bin.",
        ),
    ],
    data: DataOption = "simulated",
    tasks: Annotated[str | None, typer.Option(help="Tasks, comma-separated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds of the baselines.", show_default="3")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Run folder.", show_default="runs/DATA-FILE")
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(
            help="What becomes of questions without a vector: refuse, or mean-of-concepts.", show_default="refuse"
        ),
    ] = None,
    set_: SetOption = None,
    strict: StrictOption = None,
    jobs: JobsOption = None,
    store: StoreOption = None,
    redo: Annotated[bool, typer.Option("--redo", help="Do finished cells again.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare your own vectors with the baselines, by the tasks and statistics of [bold]qcq run[/bold].

    Every question of the data set needs one vector. With several files they are compared with each other too.
    """
    from qcq.config import YARDSTICKS, Config
    from qcq.models import TRAINERS

    named = {f"{file.stem}-file" if file.stem in TRAINERS else file.stem: str(file) for file in files}
    if len(named) < len(files):
        raise ConfigError("two files have the same name; name them apart, the table goes by their names")
    options = {"data": data, "tasks": tasks, "seeds": seeds, "store": store, "strict": strict, "missing": missing}
    settled = Config.load(None, set_ or (), walks=(), trainers=YARDSTICKS, vectors=named, **options)

    from qcq.pipeline import Experiment

    experiment = Experiment(settled)
    folder = out_dir or Path("runs") / "-".join([experiment.data.name, *named])
    _tell(experiment.run(folder, jobs=_jobs(jobs, experiment.plan), redo=redo, watch=_terminal(quiet)))


@app.command()
def audit(
    folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder.", show_default=False)] = None,
    data: Annotated[
        str | None, typer.Option(help="format:path of the data.", show_default="where the run read it")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train every model of the first seed again, in the world turned round.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Show instead what the published leak does to an AUC on --data.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Which division of the students --replay takes.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that no test student's answer reached graph, walks, difficulty, choices or vectors of a run.

    The run is rebuilt where the test students answered otherwise, and where they never answered; all that was learnt
    from has to come out the same. Exit code 1 if a check fails.
    """
    if replay:
        if data is None or folder is not None or retrain:
            raise ConfigError("--replay needs data, no run and no --retrain: qcq audit --replay --data format:path")
        _replay(data, seed, as_json)
        return
    if folder is None:
        raise ConfigError("no run given: qcq audit RUN, or qcq audit --replay --data format:path")
    from qcq.audit import audit as look
    from qcq.config import Config
    from qcq.data import load
    from qcq.run import Run

    made = Run.open(folder)
    # Another path, but read with the settings of the run's format.
    moved = None if data is None else load(data, Config.load(made.path / "config.toml").sections)
    checks = look(made, moved, retrain=retrain, watch=_terminal(quiet or as_json))
    words = {True: "ok", False: "FAILED", None: "not proved"}
    if as_json:
        out.print_json(json.dumps([{"check": c.name, "ok": c.ok, "found": c.found} for c in checks]))
    else:
        _show(["check", "result", "found"], [[c.name, words[c.ok], c.found] for c in checks], left=3)
    if any(c.ok is False for c in checks):
        raise typer.Exit(1)


def _replay(data: str, seed: int, as_json: bool) -> None:
    from dataclasses import asdict

    from qcq.data import load
    from qcq.evaluation.leak import replay

    dataset = load(data)
    found = replay(dataset.split(seed))
    if as_json:
        out.print_json(json.dumps({"dataset": dataset.name, **{name: asdict(one) for name, one in found.items()}}))
        return
    _show(
        ["test responses to", "responses", "AUC, all students", "AUC, training students", "inflated by"],
        [
            [
                {"all": "all questions", "cold": "cold questions", "warm": "the others"}[name],
                f"{one.responses:,}",
                f"{one.leaky:.3f}",
                f"{one.honest:.3f}",
                str(one.difference),
            ]
            for name, one in found.items()
        ],
        left=1,
    )
    out.print(
        f"{dataset.name}: test students' answers predicted from the difficulty of the question alone, made once from "
        "all students and once from training students; 95 % intervals over students.",
        markup=False,
    )


@app.command()
def study(
    size: Annotated[str, typer.Option(help="small (minutes), medium (an hour or two) or full (overnight).")] = "small",
    data: Annotated[
        list[str] | None,
        typer.Option(help="format:path or a bare path, in addition to the simulated classroom; may be repeated."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Experiments, comma-separated: far, order, weak, objective, traps.",
            show_default="all",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Folder of the study.", show_default="runs/study-SIZE")
    ] = None,
    jobs: JobsOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Why did the Transformer lose to skip-gram? Five conjectures, each an experiment with a verdict.

    The rules of the verdicts were fixed beforehand. Finished cells of an earlier study in the same folder are skipped.
    """
    from qcq.study import Study
    from qcq.study.conjectures import CONJECTURES, verdicts

    folder = out_dir or Path("runs") / f"study-{size}"
    made = Study(size, data or (), [name.strip() for name in only.split(",")] if only else (), store=store or "")
    found = made.run(folder, jobs=affordable_jobs() if jobs is None else jobs, watch=_terminal(quiet))["found"]
    for name, each in found.items():
        verdict, by_data = verdicts(each, name)
        out.print(f"{name}: {CONJECTURES[name].claim}", markup=False, style="bold" if out.is_terminal else None)
        out.print(f"  {verdict.text}", markup=False)
        for dataset, judged in by_data.items():
            for half, one in judged.parts or (("", judged),):
                out.print(f"  {dataset}{half and f', {half}'}: {one.text}: {one.because}", markup=False)
        for dataset, got in each.items():
            if "why" in got:
                out.print(f"  {dataset}: not judged: {got['why']}", markup=False)
    out.print(f"page: {folder / 'study.md'}", markup=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write every plot there as PNG, SVG and PDF too.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write report.html anew from a run folder: one page that opens from disk and asks no other host."""
    from qcq.report import write_page, write_run_figures
    from qcq.run import Run

    made = Run.open(folder)
    out.print(f"report: {write_page(made).path}", markup=False)
    if figures is not None:
        paths = write_run_figures(made, figures)
        out.print(f"figures: {len(paths)} files in {figures}", markup=False)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    repair: Annotated[bool, typer.Option("--repair", help="Make faulty files again, by the same run.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare every file of a run with the hash written with it: changed, cut short, missing, or not of the run."""
    from qcq.engine.verify import discard
    from qcq.engine.verify import verify as compare
    from qcq.run import Run

    run = Run.open(folder)
    faults, checked = compare(run)
    if as_json:
        found = [{"path": str(f.path), "what": f.what, "cell": f.cell} for f in faults]
        out.print_json(json.dumps({"checked": checked, "faults": found}))
    else:
        for fault in faults:
            out.print(str(fault), markup=False)
        out.print(f"{checked:,} files compared, {len(faults):,} faults", markup=False)
    if faults and repair:
        from qcq.config import Config
        from qcq.pipeline import Experiment

        config = Config.load(run.path / "config.toml")
        discard(run, faults)
        Experiment(config).run(folder, watch=_terminal(quiet))
        faults, checked = compare(run)
        kept = [f for f in faults if f.what == "not written by this run"]
        out.print(f"repaired; {checked:,} files compared, {len(faults):,} faults", markup=False)
        for fault in kept:
            out.print(f"{fault.path}: left as it is, because the run did not write it", markup=False)
        faults = [f for f in faults if f not in kept]
    if faults:
        raise typer.Exit(1)


@app.command()
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
    _show(["split", "value"], [*rows, *([name.replace("_", " "), value] for name, value in digests.items())], left=2)


@app.command()
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
    watch = _terminal(quiet)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    for note in dataset.notes:
        watch.say(note)
    graph = _graph(dataset, strategy)
    limit = _bytes(max_memory)
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
    _show(
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


def _bytes(text: str) -> int:
    """``2G``, ``500M`` or plain bytes."""
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:].upper(), 1)
    digits = text.rstrip("kKmMgG")
    if not digits.isdigit() or int(digits) == 0:
        raise ConfigError(f"--max-memory {text!r}: write a number of bytes, or one with K, M or G, for example 2G")
    return int(digits) * unit


Kind = Literal["walks", "trainers", "tasks", "data"]


@app.command("list")
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
        _show([name, "what it is", "settings"], shown, left=3)
        figures: dict[str, str] = {}
        for row in rows:  # the tasks of knowledge tracing have most figures in common
            figures |= {key: line for key, line in row.get("figures", {}).items() if key not in figures}
        if figures:
            _show(["figures of kt tasks", "what they are"], [list(each) for each in figures.items()], left=2)


@app.command("data")
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
            _show(["what", "result", "found"], [[one.what, words[one.ok], one.found] for one in seen], left=3)
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
    _show(["name", "data set", "reader", "licence", "SHA-256", "official page"], rows, left=6)
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
        _show(["file", "", "bytes", "SHA-256", "stated at"], files, left=5)
        counts = [
            [
                *("–" if n is None else f"{n:,}" for n in (c.students, c.questions, c.concepts, c.responses)),
                f"{c.by}{c.note and f' ({c.note})'}: {c.source}",
            ]
            for c in each.counts
        ]
        if counts:
            _show(["students", "questions", "concepts", "responses", "counted by"], counts, left=0)


@app.command()
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
    _show(["what", "value"], [[key, _plain(value)] for key, value in _flat(found) if key != "notes"], left=1)


@app.command()
def embed(
    out_file: Annotated[
        Path, typer.Option("--out", dir_okay=False, help="The file of vectors; its ending gives the format.")
    ],
    data: DataOption = "simulated",
    recipe: Annotated[
        str | None,
        typer.Option(help="concepts, similar or tracing.", show_default="tracing with answers, else concepts"),
    ] = None,
    walk: Annotated[str | None, typer.Option(help="A walk strategy, instead of a recipe.")] = None,
    trainer: Annotated[str | None, typer.Option(help="A trainer, instead of a recipe.")] = None,
    dim: Annotated[int, typer.Option(min=1, help="Dimensions; tracing adds one per concept.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the split, the walks and the training.")] = 0,
    numbers: Annotated[
        str | None, typer.Option("--with", help="Columns to add: difficulty, popularity, rasch; comma-separated.")
    ] = None,
    students: Annotated[
        Path | None,
        typer.Option(
            help="A file of the students whose answers are read, one per line.",
            show_default="those of training",
        ),
    ] = None,
    all_students: Annotated[bool, typer.Option("--all-students", help="Read the answers of all students.")] = False,
    fold: Annotated[int | None, typer.Option(min=2, help="Write one file for each of so many folds.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN-or-FILE", help="Begin where an earlier training of the bank ended."),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace a file that is there already.")] = False,
    set_: SetOption = None,
    strict: StrictOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train one table of vectors and write it, with its provenance."""
    from qcq.config import Config
    from qcq.data import load
    from qcq.data.assembly import several
    from qcq.recipes import embed as make
    from qcq.support.vectors import WRITERS, by_ending

    by_ending(out_file, WRITERS, "written as")  # an error now, not after the training
    settled = Config.load(None, set_ or (), data=data, strict=strict)
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    watch = _terminal(quiet)
    for note in dataset.notes:
        watch.say(note)
    if students is not None and all_students:
        raise ConfigError("--students and --all-students are given; give one of them")
    named = None if students is None else [line.strip() for line in students.read_text().splitlines() if line.strip()]
    files: dict[tuple[int, int] | None, Path] = {None: out_file}
    if fold is not None:
        files = {(k, fold): out_file.with_stem(f"{out_file.stem}-fold-{k}") for k in range(1, fold + 1)}
    for file in files.values():
        if file.exists() and not redo:
            raise ConfigError(f"{file}: exists already; name another file, or replace it with --redo")
    for which, file in files.items():
        with watch.progress(file.name) as progress:
            made = make(
                dataset,
                recipe or "",
                walk=walk or "",
                trainer=trainer or "",
                dim=dim,
                seed=seed,
                sections=settled.sections,
                students=named if named is not None else "all" if all_students else "train",
                fold=which,
                numbers=[name.strip() for name in numbers.split(",")] if numbers else (),
                start=start,
                keep=file.with_name(f"{file.name}.model"),
                progress=progress,
            )
        made.save(file)
        made.save_model(file)
        inside = made.provenance["students"]
        if zeros := int((~made.vectors.any(axis=1)).sum()):
            err.print(f"{several(zeros, 'vector')} of zeros alone: nothing is known of these questions", markup=False)
        if unused := int((~made.vectors.any(axis=0)).sum()):
            err.print(f"{several(unused, 'dimension')} of zeros alone: a smaller --dim loses nothing", markup=False)
        whose = f"with answers of {inside:,} students inside" if inside else "without answers of students"
        out.print(f"{len(made):,} vectors of {made.dim} dimensions, {whose}: {file}", markup=False)


@app.command()
def add(
    table: Annotated[Path, typer.Option("--to", dir_okay=False, help="The file of vectors of the old questions.")],
    questions: Annotated[Path, typer.Option(help="The new questions with their concepts, read like a bank.")],
    out_file: Annotated[Path, typer.Option("--out", dir_okay=False, help="A new file for old and new vectors.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="The bank that the vectors were made from; not needed with FILE.model beside FILE."
        ),
    ] = None,
    strict: StrictOption = None,
    debug: DebugOption = False,
) -> None:
    """Give vectors to questions that came later, by the model beside the table. Old rows stay as they are."""
    from qcq.data import load
    from qcq.data.assembly import several
    from qcq.data.checks import refuse_doubts
    from qcq.embeddings import Embeddings
    from qcq.recipes import add as extend
    from qcq.support.vectors import WRITERS, by_ending

    by_ending(out_file, WRITERS, "written as")
    if out_file.exists():
        raise ConfigError(f"{out_file}: exists already; name another file")
    new = load(f"csv:{questions}", strict=bool(strict))
    made = extend(Embeddings.load(table), None if data is None else load(data), new)
    if strict:
        refuse_doubts(made.notes)
    for note in (*new.notes[1:], *made.notes):
        err.print(note, markup=False, style="yellow" if note.startswith("doubtful: ") and err.is_terminal else None)
    made.embeddings.save(out_file)
    made.embeddings.save_model(out_file)
    if made.unplaced:
        shown = ", ".join(made.unplaced[:5]) + (", …" if len(made.unplaced) > 5 else "")
        err.print(
            f"{several(len(made.unplaced), 'new question')} without a concept that the bank knows: the mean of all, "
            f"{shown}",
            markup=False,
        )
    added = made.embeddings.provenance["added"]["questions"]
    how = f"{made.by_set:,} from questions with the same concepts"
    how += (
        f", {made.by_model:,} by the model"
        if made.by_model
        else f", {made.by_concepts:,} from their concepts one by one"
    )
    out.print(f"{added:,} new vectors after the old ones ({how}): {out_file}", markup=False)


@app.command()
def similar(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    question: Annotated[str, typer.Argument(help="The question's identifier.")],
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many.", show_default="10")] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Whose vectors.", show_default="the best one on walks, by validation")
    ] = None,
    walk: Annotated[str | None, typer.Option(help="On which walk.")] = None,
    easier: Annotated[bool, typer.Option("--easier", help="Only questions that fewer got wrong.")] = False,
    harder: Annotated[bool, typer.Option("--harder", help="Only questions that more got wrong.")] = False,
    concept: Annotated[str | None, typer.Option(help="Only questions with this concept.")] = None,
    not_concept: Annotated[str | None, typer.Option(help="Only questions without this concept.")] = None,
    unseen_by: Annotated[str | None, typer.Option(help="Only questions that this student did not answer.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The questions that are most like a question, with reasons; by the trainer on walks that is best on validation."""
    from dataclasses import asdict

    from qcq.config import Config
    from qcq.data import load
    from qcq.errors import DataError
    from qcq.report.similar import similar as look
    from qcq.run import Run

    made = Run.open(folder)
    if not made.finished:
        err.print("this run isn't finished: the same command goes on with it", markup=False)
    if easier and harder:
        raise ConfigError("--easier and --harder are given; give one of them")
    settled = Config.load(made.path / "config.toml")
    try:
        dataset = load(settled.data, settled.sections)
    except DataError:
        if unseen_by is not None:
            raise
        dataset = None  # the data have moved; only the number of students who answered both is lost
    name, on = (trainer, walk) if trainer else made.best(walk)
    found = look(
        made,
        question,
        k,
        trainer=name,
        walk=on,
        level="easier" if easier else "harder" if harder else None,
        concept=concept,
        not_concept=not_concept,
        unseen_by=unseen_by,
        data=dataset,
    )
    if as_json:
        out.print_json(json.dumps({"question": question, "trainer": name, "similar": [asdict(each) for each in found]}))
        return
    out.print(f"{question}, vectors of {name}", markup=False)
    named = any(each.name for each in found)
    hard = any(each.difficulty is not None for each in found)
    both = any(each.answered_both is not None for each in found)
    titles = ["question", *(["name"] if named else []), "concepts", "shared", "similarity"]
    titles += [*(["wrong answers", "difference"] if hard else []), *(["answered both"] if both else [])]
    rows = []
    for each in found:
        row = [each.question, *([each.name] if named else []), "; ".join(each.concepts), str(len(each.shared))]
        row.append(f"{each.similarity:.4f}{' (tie)' if each.tied else ''}")
        if hard:
            row.append("–" if each.difficulty is None else f"{each.difficulty:.0%}")
            row.append("–" if each.harder_by is None else f"{100 * each.harder_by:+.0f} points")
        if both:
            row.append("–" if each.answered_both is None else f"{each.answered_both:,}")
        rows.append(row)
    _show(titles, rows, left=3 if named else 2)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A file of vectors, or a run folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same bank.")],
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="How many of the questions that moved most.", show_default="10")
    ] = None,
    trainer: Annotated[str | None, typer.Option(help="Of run folders: whose vectors.")] = None,
    align: Annotated[
        Path | None, typer.Option("--align", dir_okay=False, help="Write B there, turned onto A; a new file.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """How two tables of one bank differ: which questions moved most, after B is turned onto A."""
    from qcq.embeddings import Embeddings
    from qcq.report.diff import difference, reasons
    from qcq.run import Run
    from qcq.support.vectors import WRITERS, by_ending

    if align is not None:
        by_ending(align, WRITERS, "written as")
        if align.exists():
            raise ConfigError(f"{align}: exists already; name another file")
    runs = [Run.open(path) if path.is_dir() else None for path in (first, second)]

    def table(path: Path, run: Run | None) -> Embeddings:
        if run is None:
            return Embeddings.load(path)
        name, on = (trainer, None) if trainer else run.best()
        return run.embeddings(name, walk=on)

    found = difference(table(first, runs[0]), table(second, runs[1]))
    if k is not None and k > len(found.questions):
        n = len(found.questions)
        raise ConfigError(f"{n:,} questions are in both tables, {k:,} asked for; take -k {n}")
    most = sorted(range(len(found.questions)), key=lambda i: -found.moved[i])[: k or 10]
    one, other = runs
    why = {i: "" if one is None or other is None else reasons(one, other, found.questions[i]) for i in most}
    if align is not None:
        found.aligned.save(align)
    if as_json:
        moved = [{"question": found.questions[i], "moved": float(found.moved[i]), "why": why[i]} for i in most]
        counts = {"both": len(found.questions), "only_first": found.only_first, "only_second": found.only_second}
        figures = {"moved_mean": float(found.moved.mean()), "before_turn": found.before, "overlap": found.overlap}
        out.print_json(json.dumps({**counts, **figures, "k": found.k, "moved": moved}))
        return
    rows = [[found.questions[i], f"{found.moved[i]:.4f}", why[i]] for i in most]
    _show(["question", "moved", "what changed"], rows, left=1)
    out.print(
        f"{len(found.questions):,} questions in both, {found.only_first:,} in A only, {found.only_second:,} in B only; "
        f"mean 1 - cosine {found.moved.mean():.4f} after B is turned onto A, {found.before:.4f} before; "
        f"{found.overlap:.0%} of the {found.k} nearest neighbours are the same",
        markup=False,
    )
    if align is not None:
        out.print(f"B turned onto A: {align}", markup=False)


@app.command()
def trace(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder on data with answers.")],
    student: Annotated[
        Path,
        typer.Argument(
            metavar="STUDENT.csv", dir_okay=False, help="One student's question,correct[,timestamp], a row an attempt."
        ),
    ],
    out_file: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="Write mastery after each attempt: .csv or .parquet.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw it: .html, or .png, .svg, .pdf with the extra figures.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Whose vectors.", show_default="the best one on walks, by validation")
    ] = None,
    walk: Annotated[str | None, typer.Option(help="On which walk.")] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out attempts at questions that the run doesn't know.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """A student's mastery of each concept over time, by the knowledge-tracing model of a run."""
    from qcq.data.assembly import several
    from qcq.report.figures import mastery, write_figure
    from qcq.report.trace import trace as follow
    from qcq.run import Run

    endings: dict[str, str] = {".csv": "write_csv", ".parquet": "write_parquet"}
    if out_file is not None and out_file.suffix.lower() not in endings:
        raise ConfigError(f"{out_file}: no frame is written as {out_file.suffix!r}; take .csv or .parquet")
    for file in (out_file, plot):
        if file is not None and file.exists():
            raise ConfigError(f"{file}: exists already; name another file")
    watch = _terminal(quiet)
    with watch.progress("the tracing model") as progress:
        found = follow(
            Run.open(folder), student, trainer=trainer, walk=walk, skip_unknown=skip_unknown, progress=progress
        )
    one, frame = found.trace, found.to_frame()
    if found.fitted:
        err.print(f"the tracing model was trained in {duration(found.fitted)}; it is kept in the run", markup=False)
    if found.skipped:
        err.print(f"{several(found.skipped, 'attempt')} at questions that the run doesn't know, left out", markup=False)
    if out_file is not None:
        getattr(frame, endings[out_file.suffix.lower()])(out_file)
    if plot is not None:
        drawn = mastery(found.bank, [one])
        if drawn is None:
            raise ConfigError(f"{student}: none of its questions has a concept, so there is nothing to draw")
        write_figure(drawn, plot)
    labels = [found.bank.label(int(c)) for c in one.concepts]
    if as_json:
        about = {"task": one.task, "vectors": one.label, "attempts": len(one.question), "skipped": found.skipped}
        ids = [found.bank.concept_ids[int(c)] for c in one.concepts]
        each = zip(ids, labels, one.mastery.T.tolist(), strict=True)
        out.print_json(json.dumps({**about, "concepts": [{"concept": c, "name": n, "mastery": m} for c, n, m in each]}))
        return
    rows = []
    for j in sorted(range(len(labels)), key=lambda j: one.mastery[-1, j]):
        its = found.bank.members[one.question][:, [int(one.concepts[j])]].toarray()[:, 0] > 0
        right = f"{int(one.correct[its].sum())} of {int(its.sum())}"
        rows.append([labels[j], right, f"{one.mastery[0, j]:.0%}", f"{one.mastery[-1, j]:.0%}"])
    out.print(f"{several(len(one.question), 'attempt')}, {one.task} on vectors of {one.label}", markup=False)
    _show(["concept", "right", "before", "after"], rows, left=1)
    for file in (out_file, plot):
        if file is not None:
            out.print(str(file), markup=False)


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN-or-FILE", help="A run folder, or a file of vectors as [bold]qcq score[/bold] reads."
        ),
    ],
    out_file: Annotated[Path, typer.Option("--out", metavar="PATH", help="The file to write; a folder for hub.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="hub (a folder), tensorboard (.tsv), atlas (.parquet), or an ending: safetensors, npz, parquet, json, "
            "csv, pt, npy …",
            show_default="by the ending of PATH",
        ),
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Whose vectors.", show_default="the best one on walks, by validation")
    ] = None,
    walk: Annotated[str | None, typer.Option(help="On which walk.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of which seed.", show_default="the first")] = None,
    order: Annotated[
        Path | None,
        typer.Option(metavar="keyid2idx.json", help="Write rows by index, in this order (.npy, .pt, .json)."),
    ] = None,
    padding: Annotated[
        Literal["first", "last"] | None, typer.Option(help="A row of zeros before or after the others.")
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace a file that exists.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write vectors in the form that another tool reads.

    Which command is for which tool: docs/interop.md.
    """
    from qcq.report.export import export as write

    choice: dict[str, Any] = {"trainer": trainer, "walk": walk, "seed": seed}
    made = write(source, out_file, to, **choice, order=order, padding=padding, redo=redo)
    for note in made.notes:
        err.print(note, markup=False)
    shape = f"{len(made.embeddings):,} vectors of {made.embeddings.dim:,} dimensions"
    out.print(f"{' and '.join(map(str, made.files))}: {shape} ({made.label})", markup=False)
    if made.next:
        out.print(made.next, markup=False)


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


def _show(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    show(out, titles, rows, left)


def _jobs(given: int | None, plan: Plan) -> int:
    """The requested number of processes; else one per core if memory allows, or one if the plan is short."""
    if given is not None:
        return given
    return affordable_jobs() if sum(cell.weight for cell in plan.cells) >= WORTH_PROCESSES else 1


def _terminated(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: processes are stopped, and finished cells stay."""
    raise KeyboardInterrupt


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: one-line errors, exit code 2; ``--debug`` shows their traceback."""
    given = list(sys.argv[1:] if args is None else args)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show must not end finished work
            stream.reconfigure(errors="replace")
    try:
        app(given)
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on where it was stopped", markup=False)
        raise SystemExit(130) from None
    except (QCQError, OSError, MemoryError) as error:
        if "--debug" in given:
            raise
        err.print(f"error: {_reason(error)}", markup=False, style="red" if err.is_terminal else None)
        raise SystemExit(2) from None


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, QCQError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}; finished work is kept: the same command goes on with it"
    return "not enough memory; finished work is kept. Take fewer --jobs, or a smaller dim or corpus"
