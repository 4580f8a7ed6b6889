"""Commands for comparisons: run and score them, check them, report them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcq.cli.console import (
    UNGIVEN,
    AddressOption,
    DataOption,
    DebugOption,
    EngineOption,
    JobsOption,
    JsonOption,
    MemoryOption,
    QuietOption,
    SetOption,
    StoreOption,
    StrictOption,
    app,
    err,
    out,
    print_table,
    processes,
    ray_cluster,
    say_unused,
    terminal,
)
from qcq.errors import ConfigError, EmbeddingError
from qcq.support.memory import bound, set_bound
from qcq.support.terminal import duration, size
from qcq.support.threads import affordable_jobs

if TYPE_CHECKING:
    from qcq.engine import Plan, Store
    from qcq.run import Run


@app.command(rich_help_panel="Comparisons")
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
    engine: EngineOption = "processes",
    address: AddressOption = None,
    store: StoreOption = None,
    track: Annotated[
        str | None,
        typer.Option(metavar="TRACKER", help="Send losses, floors, figures and report to wandb, trackio or mlflow."),
    ] = None,
    max_memory: MemoryOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and what it will cost.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Do finished cells again.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare trainers on one data set, end to end: walks, training, evaluation, report.

    Finished cells of an earlier run in the same folder are skipped.
    """
    from qcq.config import Config

    set_bound(max_memory)
    cluster = ray_cluster(engine, address, jobs)
    options = {"data": data, "walks": walks, "trainers": trainers, "tasks": tasks, "seeds": seeds, "size": size}
    settled = Config.load(config, set_ or (), **options, store=store, strict=strict)
    say_unused(settled, set_)

    from qcq.pipeline import Experiment, run_folds
    from qcq.report.tracking import open_tracker

    tracker = None if track is None else open_tracker(track)  # before the data are read
    experiment = Experiment(settled)
    folder = out_dir or Path("runs") / experiment.data.name
    whole = settled.folds == 1 or bool(settled.fold)
    if dry_run:
        if not whole:
            raise ConfigError("--dry-run shows one fold; name it: --set fold=1")
        experiment.check(folder, redo=redo, watch=terminal(quiet))
        _dry_run(experiment.plan, experiment.store(folder), redo)
        return
    if whole:
        todo = cluster or processes(jobs, experiment.plan)
        _tell(experiment.run(folder, jobs=todo, redo=redo, watch=terminal(quiet), tracker=tracker))
        return
    from qcq.report import Folds

    first = Experiment(replace(settled, fold=1), experiment.data)
    many = cluster or processes(jobs, first.plan)
    how: dict[str, Any] = {"jobs": many, "redo": redo, "watch": terminal(quiet), "tracker": tracker}
    folds = Folds(run_folds(settled, folder, experiment.data, **how))
    print_table([column.title for column in folds.columns], folds.cells(), left=3)
    for pair in folds.paired_comparisons():
        out.print(str(pair), markup=False)
    out.print(
        f"report: {folder / 'report.md'}, and one in each of {folder}/fold-1 to fold-{len(folds.runs)}", markup=False
    )
    failed = [(made.path.name, row) for made in folds.runs for row in made.rows("training") if "error" in row]
    for fold, row in failed:
        err.print(f"{fold}: {row['trainer']} failed: {row['error']}", markup=False)
    if failed:
        raise typer.Exit(1)


def _dry_run(plan: Plan, store: Store, redo: bool) -> None:
    """The cells of a plan, which of them are finished, and the expected cost of the others."""
    from qcq.engine.estimate import Rates

    steps = plan.steps(store, Rates.of_machine(), redo)
    rows = []
    for step in steps:
        e, state = step.estimate, {True: "finished", False: "to do", None: "waits for a choice"}[step.finished]
        limit = bound()
        if e is not None and limit is not None and e.memory > limit:
            state = "needs more than --max-memory"
        cost = ["–"] * 4 if e is None else [f"{e.tokens:,}", size(e.bytes), size(e.memory), duration(e.seconds)]
        rows.append([step.cell.label, state, *cost])
    print_table(["cell", "state", "tokens", "on disk", "memory", "about"], rows, left=2)
    left = sum(step.estimate.seconds for step in steps if step.estimate is not None)
    n = sum(step.finished is not True for step in steps)
    said = f"{n} of {len(steps)} cells to do, about {duration(left)} in one process"
    out.print(f"{said}; times are predicted from a short trial on this machine", markup=False)


@app.command(rich_help_panel="Comparisons")
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
    engine: EngineOption = "processes",
    address: AddressOption = None,
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

    cluster = ray_cluster(engine, address, jobs)
    named = {f"{file.stem}-file" if file.stem in TRAINERS else file.stem: str(file) for file in files}
    if len(named) < len(files):
        raise ConfigError("two files have the same name; name them apart, the table goes by their names")
    options = {"data": data, "tasks": tasks, "seeds": seeds, "store": store, "strict": strict, "missing": missing}
    settled = Config.load(None, set_ or (), walks=(), trainers=YARDSTICKS, vectors=named, **options)
    say_unused(settled, set_)

    from qcq.pipeline import Experiment

    experiment = Experiment(settled)
    folder = out_dir or Path("runs") / "-".join([experiment.data.name, *named])
    try:
        plan = experiment.plan
    except EmbeddingError as error:
        if data != "simulated" or not str(error).endswith(end := "(data set simulated)"):
            raise
        raise EmbeddingError(f"{str(error).removesuffix(end)}({UNGIVEN})") from None
    todo = cluster or processes(jobs, plan)
    _tell(experiment.run(folder, jobs=todo, redo=redo, watch=terminal(quiet)))


def _tell(made: Run) -> None:
    """A finished run: its table, the comparisons, the place of the report; exit code 1 if a trainer failed."""
    from qcq.report import beside_baselines, cautions, comparison, verdicts

    table = comparison(made)
    print_table([column.title for column in table.columns], table.cells(), left=3)
    # What is doubtful in the data was said when they were read.
    cautious = [line for line in cautions(made, table) if not line.startswith("doubtful: ")]
    for line in [*verdicts(made, table), *map(str, beside_baselines(made, table)), *cautious]:
        out.print(line, markup=False)
    for each in table.lines:
        if each.error:
            err.print(f"{each.trainer} failed: {each.error}", markup=False)
    out.print(f"report: {made.path / 'report.html'} (and report.md)", markup=False)
    if any("error" in row for row in made.rows("training")):
        raise typer.Exit(1)


@app.command(rich_help_panel="Comparisons")
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


@app.command(rich_help_panel="Comparisons")
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
    checks = look(made, moved, retrain=retrain, watch=terminal(quiet or as_json))
    words = {True: "ok", False: "FAILED", None: "not proved"}
    if as_json:
        out.print_json(json.dumps([{"check": c.name, "ok": c.ok, "found": c.found} for c in checks]))
    else:
        print_table(["check", "result", "found"], [[c.name, words[c.ok], c.found] for c in checks], left=3)
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
    print_table(
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


@app.command(rich_help_panel="Comparisons")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    repair: Annotated[bool, typer.Option("--repair", help="Make faulty files again, by the same run.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare every file of a run with the hash written with it: changed, cut short, missing, or not of the run."""
    from qcq.engine.verify import FOREIGN, SETTINGS, discard
    from qcq.engine.verify import verify as compare
    from qcq.run import Run
    from qcq.support.words import several

    run = Run.open(folder)
    faults, checked = compare(run)
    if as_json:
        found = [{"path": str(f.path), "what": f.what, "cell": f.cell} for f in faults]
        out.print_json(json.dumps({"checked": checked, "faults": found}))
    else:
        for fault in faults:
            out.print(str(fault), markup=False)
        out.print(f"{several(checked, 'file')} compared, {several(len(faults), 'fault')}", markup=False)
    if faults and repair:
        from qcq.config import Config
        from qcq.pipeline import Experiment

        experiment = None
        if run.path / SETTINGS not in {fault.path for fault in faults}:
            experiment = Experiment(Config.load(run.path / SETTINGS))
            about = run.path / "about.json" not in {fault.path for fault in faults}
            run.refuse_other_data(experiment.partition.data_digest, redo=not about)  # before anything is removed
        dropped = discard(run, faults)
        assert experiment is not None  # settings that are faulty are an error there
        experiment.run(folder, watch=terminal(quiet))
        faults, checked = compare(run)
        kept = [f for f in faults if f.what.startswith(FOREIGN)]
        out.print(f"repaired; {several(checked, 'file')} compared, {several(len(faults), 'fault')}", markup=False)
        for fault in kept:
            out.print(f"{fault.path}: left as it is, because the run did not write it", markup=False)
        for path in dropped:
            out.print(f"{path}: dropped; the next 'qcq trace' trains it again", markup=False)
        faults = [f for f in faults if f not in kept]
    if faults:
        raise typer.Exit(1)


@app.command(rich_help_panel="Comparisons")
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
    engine: EngineOption = "processes",
    address: AddressOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Why did the Transformer lose to skip-gram? Five conjectures, each an experiment with a verdict.

    The rules of the verdicts were fixed beforehand. Finished cells of an earlier study in the same folder are skipped.
    """
    from qcq.study import Study
    from qcq.study.conjectures import CONJECTURES, verdicts

    cluster = ray_cluster(engine, address, jobs)
    folder = out_dir or Path("runs") / f"study-{size}"
    made = Study(size, data or (), [name.strip() for name in only.split(",")] if only else (), store=store or "")
    todo = cluster or (affordable_jobs() if jobs is None else jobs)
    found = made.run(folder, jobs=todo, watch=terminal(quiet))["found"]
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
