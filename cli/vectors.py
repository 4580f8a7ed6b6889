"""Commands for vectors: make, extend, search, compare and export them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qcq.cli.console import (
    UNGIVEN,
    DataOption,
    DebugOption,
    JsonOption,
    MemoryOption,
    OnData,
    QuietOption,
    StrictOption,
    app,
    err,
    out,
    print_table,
    read_here,
    terminal,
)
from qcq.errors import ConfigError, EmbeddingError
from qcq.support.files import whole_path
from qcq.support.formulas import guarded_frame
from qcq.support.memory import set_bound
from qcq.support.terminal import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qcq.config import Config
    from qcq.data import Dataset
    from qcq.embeddings import Embeddings
    from qcq.run import Run


@app.command(cls=OnData, rich_help_panel="Vectors")
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
    max_memory: MemoryOption = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace a file that is there already.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=read_here,
            help="A setting of the data, or with --walk or --trainer one of these: sgns.window=3.",
        ),
    ] = None,
    strict: StrictOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train one table of vectors and write it, with its provenance."""
    from qcq.data import load
    from qcq.data.text import OFFICE, read_text
    from qcq.recipes import default_recipe
    from qcq.recipes import embed as make
    from qcq.support.vectors import WRITERS, by_ending

    set_bound(max_memory)
    by_ending(out_file, WRITERS, "written as")  # an error now, not after the training
    settled = _settings(set_, data, strict, recipe or "", walk or "", trainer or "")
    dataset = load(settled.data, settled.sections, strict=settled.strict)
    watch = terminal(quiet)
    for note in dataset.notes:
        watch.say(note)
    if walk and trainer and not _learns(trainer):
        watch.say(f"{trainer} looks at no walks, so --walk {walk} changes nothing")
    if students is not None and all_students:
        raise ConfigError("--students and --all-students are given; give one of them")
    named = None
    if students is not None:
        named = [line.strip() for line in read_text(students, OFFICE)[0].splitlines() if line.strip()]
    files: dict[tuple[int, int] | None, Path] = {None: out_file}
    if fold is not None:
        files = {(k, fold): out_file.with_stem(f"{out_file.stem}-fold-{k}") for k in range(1, fold + 1)}
        _refuse_other_folds(out_file, fold)
    for file in files.values():
        if file.exists() and not redo:
            raise ConfigError(f"{file}: exists already; name another file, or replace it with --redo")
        _refuse_unwritable(file, dataset.questions)
    if not (recipe or walk or trainer):
        default, why = default_recipe(dataset)
        if why:
            watch.say(f"recipe {default} instead of tracing: {why}")
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
                numbers=() if numbers is None else [name.strip() for name in numbers.split(",")],
                start=start,
                keep=file.with_name(f"{file.name}.model"),
                progress=progress,
            )
        made.save_model(file)  # first: who finds the table finds its model
        made.save(file)
        inside = made.provenance["students"]
        for line in _zeros(dataset, made):
            err.print(line, markup=False)
        whose = f"with answers of {inside:,} students inside" if inside else "without answers of students"
        whose += f" ({UNGIVEN})" if data == "simulated" else ""
        out.print(f"{len(made):,} vectors of {made.dim} dimensions, {whose}: {file}", markup=False)


def _refuse_other_folds(out_file: Path, folds: int) -> None:
    """ConfigError for files of an output with more folds: next to the new ones, they would look like theirs."""
    named = re.compile(re.escape(f"{out_file.stem}-fold-") + r"(\d+)" + re.escape(out_file.suffix))
    for path in sorted(out_file.parent.glob("*")):
        found = named.fullmatch(path.name)
        if found and int(found[1]) > folds:
            raise ConfigError(f"{path}: of an output with more than {folds} folds; move it away, or name another file")


def _learns(trainer: str) -> bool:
    """Whether a trainer looks at walks."""
    from qcq.models import TRAINERS
    from qcq.support.registry import find

    return find("trainer", trainer.partition("@")[0], TRAINERS).learns


def _settings(
    given: Sequence[str] | None, data: str, strict: bool | None, recipe: str, walk: str, trainer: str
) -> Config:
    """The settings of ``--set``, all of which count: those of the data, and those of a named walk and trainer."""
    from qcq.config import Config
    from qcq.data import DATASETS

    settled = Config.load(None, given or (), data=data, strict=strict)
    walked = not trainer or _learns(trainer)
    named = [*(("walk", walk or "qcq") if walked else ()), trainer or "sgns"] if walk or trainer else []
    used = {*DATASETS, "split", *named, *(name.partition("@")[0] for name in named)}
    if idle := [section for section in settled.sections if section not in used]:
        if named:
            raise ConfigError(f"--set {idle[0]}: only settings of {' and '.join(named)} count here; leave it out")
        what = f"the recipe {recipe}" if recipe else "a recipe"
        fix = "instead of it name walk or trainer, as --walk qcq --trainer sgns"
        raise ConfigError(f"--set {idle[0]}: {what} has settings of its own; {fix}")
    return settled


def _refuse_unwritable(file: Path, questions: Sequence[str]) -> None:
    """What writing would end in, before hours of training: a name that the format can't hold, a folder in the way."""
    from qcq.embeddings import Embeddings, model_folder
    from qcq.support.folders import refuse_foreign

    refuse_foreign(model_folder(file), "model", also=("model.safetensors",))
    odd = next((name for name in questions if name.split() != [name]), None)
    if odd is None:
        return
    with TemporaryDirectory() as home:  # the writer itself knows what it can't hold
        try:
            Embeddings([odd], [[0.0]]).save(Path(home, f"names{file.suffix}"))  # type: ignore[arg-type]
        except EmbeddingError as error:
            raise EmbeddingError(f"{file}: {error}") from None


def _zeros(data: Dataset, made: Embeddings) -> Iterator[str]:
    """What a table doesn't tell: questions that nothing sets apart, rows and columns of zeros."""
    from qcq.support.words import several

    w = data.q_matrix
    degree = w.indptr[1:] - w.indptr[:-1]
    same = len(degree) > 1 and bool((degree == degree[0]).all())
    same = same and all((x.reshape(len(degree), -1) == x[: degree[0]]).all() for x in (w.indices, w.data))
    numbers = len(made.provenance.get("numbers", ()))
    if same and not (made.provenance["students"] and made.vectors[:, : made.dim - numbers].any()):
        yield "all questions have the same concepts, so walks can't tell them apart; give concepts that divide them"
    zero = ~made.vectors.any(axis=1)
    if bare := int((zero & (degree == 0)).sum()):
        yield f"{several(bare, 'vector')} of zeros alone: nothing is known of these questions"
    if common := 0 if same else int((zero & (degree > 0)).sum()):
        yield f"{several(common, 'vector')} of zeros alone: their concepts bring them near to no question"
    if not zero.all() and (unused := int((~made.vectors.any(axis=0)).sum())):
        yield f"{several(unused, 'dimension')} of zeros alone: a smaller --dim loses nothing"


@app.command(rich_help_panel="Vectors")
def add(
    table: Annotated[
        Path,
        typer.Option("--to", metavar="RUN-or-FILE", help="Vectors of the old questions: a file, or a run folder."),
    ],
    questions: Annotated[Path, typer.Option(help="The new questions with their concepts, read like a bank.")],
    out_file: Annotated[Path, typer.Option("--out", dir_okay=False, help="A new file for old and new vectors.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="The bank that the vectors were made from; not needed with FILE.model beside FILE."
        ),
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Of a run: whose vectors.", show_default="the best one on walks, by validation")
    ] = None,
    walk: Annotated[str | None, typer.Option(help="Of a run: on which walk.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a run: of which seed.", show_default="the first")] = None,
    responses: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Training students' answers to the new questions (and to old ones around them): "
            "student,question,correct[,timestamp].",
        ),
    ] = None,
    strict: StrictOption = None,
    debug: DebugOption = False,
) -> None:
    """Give vectors to questions that came later, by the model beside the table. Old rows stay as they are."""
    from qcq.data import load
    from qcq.data.checks import refuse_doubts
    from qcq.embeddings import model_folder
    from qcq.recipes import add as extend
    from qcq.recipes import chosen
    from qcq.support.vectors import WRITERS, by_ending
    from qcq.support.words import several

    by_ending(out_file, WRITERS, "written as")
    if out_file.exists():
        raise ConfigError(f"{out_file}: exists already; name another file")
    new = load(f"csv:{questions}", strict=bool(strict))
    old, bank = chosen(table, trainer, walk, seed)
    _refuse_unwritable(out_file, [*old.ids, *new.questions])
    bank = bank if data is None else load(data)
    if bank is None and old.model is None:
        fix = "move the two together, or give the bank with --data BANK"
        raise EmbeddingError(f"{table}: no model next to it ({model_folder(table)} is missing); {fix}")
    made = extend(old, bank, new, responses)
    if strict:
        refuse_doubts(made.notes)
    for note in (*new.notes[1:], *made.notes):
        err.print(note, markup=False, style="yellow" if note.startswith("doubtful: ") and err.is_terminal else None)
    made.embeddings.save_model(out_file)  # first: a table that exists is not made again
    made.embeddings.save(out_file)
    for which, what in (
        (made.unplaced, "without a concept that the bank knows: the mean of all"),
        (made.partly, "with concepts that the bank doesn't know: made from the others"),
    ):
        if which:
            shown = ", ".join(which[:5]) + (", …" if len(which) > 5 else "")
            err.print(f"{several(len(which), 'new question')} {what}, {shown}", markup=False)
    added = made.embeddings.provenance["added"]["questions"]
    ways = (
        (made.by_set, "from questions with the same concepts"),
        (made.by_model, "by the model"),
        (made.by_concepts, "from their concepts one by one"),
        (len(made.unplaced), "with the mean of all"),
    )
    how = ", ".join(f"{n:,} {way}" for n, way in ways if n)
    out.print(f"{added:,} new vectors after the old ones ({how}): {out_file}", markup=False)


@app.command(rich_help_panel="Vectors")
def similar(
    folder: Annotated[Path, typer.Argument(metavar="RUN-or-FILE", help="A run folder, or a file of vectors.")],
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

    from qcq.embeddings import Embeddings
    from qcq.errors import DataError
    from qcq.report.facts import partition_of
    from qcq.report.similar import FEW, similar_in
    from qcq.report.similar import similar as look
    from qcq.run import FILE, NO_WALK, Run
    from qcq.support.words import several

    if easier and harder:
        raise ConfigError("--easier and --harder are given; give one of them")
    level = "easier" if easier else "harder" if harder else None
    choice: dict[str, Any] = {"concept": concept, "not_concept": not_concept, "unseen_by": unseen_by}
    if folder.is_file():
        given = {"trainer": trainer, "walk": walk, level or "easier": level, **choice}
        if options := [f"--{key.replace('_', '-')}" for key, value in given.items() if value is not None]:
            what = f"a file of vectors, without what {' and '.join(options)} needs"
            raise ConfigError(f"{folder}: {what}; give a run folder")
        name, on, found, why = folder.name, FILE, similar_in(Embeddings.load(folder), question, k), ""
    else:
        made = Run.open(folder)
        if not made.finished:
            err.print("this run isn't finished: the same command goes on with it", markup=False)
        try:
            dataset = partition_of(made).dataset
        except DataError as error:
            if unseen_by is not None:
                raise
            dataset = None
            err.print(f"how many students answered both isn't known: {error}", markup=False)
        name, on = made.best(walk, trainer)
        found = look(made, question, k, trainer=name, walk=on, level=level, **choice, data=dataset)
        why = "" if trainer else _why(made, name, on)
    of = name if on in (NO_WALK, FILE) else f"{name} on {on}"
    if as_json:
        about = {"question": question, "trainer": name, "walk": on, "similar": [asdict(each) for each in found]}
        out.print_json(json.dumps(about))
        return
    out.print(f"{question}, vectors of {of}{why}", markup=False)
    if k is None and len(found) < FEW:
        out.print(f"{several(len(found), 'question')}: all that are left", markup=False)
    named = any(each.name for each in found)
    hard = any(each.difficulty is not None for each in found)
    both = any(each.answered_both is not None for each in found)
    known = any(each.concepts for each in found)
    titles = ["question", *(["name"] if named else []), *(["concepts", "shared"] if known else []), "similarity"]
    titles += [*(["wrong answers", "difference"] if hard else []), *(["answered both"] if both else [])]
    rows = []
    for each in found:
        row = [each.question, *([each.name] if named else [])]
        row += ["; ".join(each.concepts), str(len(each.shared))] if known else []
        row.append(f"{each.similarity:.4f}{' (tie)' if each.tied else ''}")
        if hard:
            row.append("–" if each.difficulty is None else f"{each.difficulty:.0%}")
            row.append("–" if each.harder_by is None else f"{100 * each.harder_by:+.0f} points")
        if both:
            row.append("–" if each.answered_both is None else f"{each.answered_both:,}")
        rows.append(row)
    print_table(titles, rows, left=1 + named + known)


def _why(run: Run, trainer: str, walk: str) -> str:
    """Why these vectors were taken, and whether others of the run did better."""
    from qcq.run import FILE, NO_WALK

    first, place = run.winner()
    if (first, place) == (trainer, walk):
        return ": best of all by validation"
    which = first if place in (NO_WALK, FILE) else f"{first} --walk {place}"
    without = " (no walks)" if place == NO_WALK else ""
    return f": best on walks by validation\n{first}{without} did better; to take it: --trainer {which}"


@app.command(rich_help_panel="Vectors")
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
    from qcq.run import FILE, NO_WALK, Run
    from qcq.support.vectors import WRITERS, by_ending

    if align is not None:
        by_ending(align, WRITERS, "written as")
        if align.exists():
            raise ConfigError(f"{align}: exists already; name another file")
    runs = [Run.open(path) if path.is_dir() else None for path in (first, second)]
    if trainer is not None and not any(runs):
        raise ConfigError("--trainer is for run folders, and two files are given; leave it out")

    tables: list[Embeddings] = []
    named = []
    for path, run in zip((first, second), runs, strict=True):
        name, on = (path.name, FILE) if run is None else run.best(None, trainer)
        tables.append(Embeddings.load(path) if run is None else run.embeddings(name, walk=on))
        named.append(name if on in (NO_WALK, FILE) else f"{name} on {on}")
    found = difference(tables[0], tables[1])
    if k is not None and k > len(found.questions):
        n = len(found.questions)
        raise ConfigError(f"{n:,} questions are in both tables, {k:,} asked for; take -k {n}")
    for note in found.notes:
        err.print(note, markup=False)
    most = sorted(range(len(found.questions)), key=lambda i: -found.moved[i])[: k or 10]
    one, other = runs
    why = {i: "" if one is None or other is None else reasons(one, other, found.questions[i]) for i in most}
    if align is not None:
        found.aligned.save(align)
    if as_json:
        moved = [{"question": found.questions[i], "moved": float(found.moved[i]), "why": why[i]} for i in most]
        counts = {"both": len(found.questions), "only_first": found.only_first, "only_second": found.only_second}
        figures = {"moved_mean": float(found.moved.mean()), "before_turn": found.before, "overlap": found.overlap}
        out.print_json(json.dumps({"tables": named, **counts, **figures, "k": found.k, "moved": moved}))
        return
    out.print(f"A: {named[0]}; B: {named[1]}", markup=False)
    rows = [[found.questions[i], far, why[i]] for i in most if (far := f"{found.moved[i]:.4f}") != "0.0000" or why[i]]
    if rows:
        print_table(["question", "moved", "what changed"], rows, left=1)
    else:
        out.print("no question moved", markup=False)
    out.print(
        f"{len(found.questions):,} questions in both, {found.only_first:,} in A only, {found.only_second:,} in B only; "
        f"mean 1 - cosine {found.moved.mean():.4f} after B is turned onto A, {found.before:.4f} before; "
        f"{found.overlap:.0%} of the {found.k} nearest neighbours are the same",
        markup=False,
    )
    if align is not None:
        out.print(f"B turned onto A: {align}", markup=False)


@app.command(rich_help_panel="Vectors")
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


@app.command(rich_help_panel="Vectors")
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
        str | None, typer.Option(help="Whose vectors.", show_default="the best one by validation, baselines included")
    ] = None,
    walk: Annotated[str | None, typer.Option(help="On which walk.")] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out attempts at questions that the run doesn't know.")
    ] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Train the tracing model anew, even if the run has it.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """A student's mastery of each concept over time, by the knowledge-tracing model of a run."""
    from qcq.report.figures import mastery, refuse_undrawable, write_figure
    from qcq.report.trace import trace as follow
    from qcq.run import Run
    from qcq.support.words import several

    if out_file is not None and out_file.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{out_file}: no frame is written as {out_file.suffix!r}; take .csv or .parquet")
    if plot is not None:
        refuse_undrawable(plot)
    for file in (out_file, plot):
        if file is not None and file.exists():
            raise ConfigError(f"{file}: exists already; name another file")
    watch = terminal(quiet)
    with watch.progress("the tracing model") as progress:
        choice: dict[str, Any] = {"trainer": trainer, "walk": walk, "skip_unknown": skip_unknown, "redo": redo}
        found = follow(Run.open(folder), student, **choice, progress=progress)
    for note in found.notes:
        watch.say(note)
    one, frame = found.trace, found.to_frame()
    if found.fitted:
        err.print(f"the tracing model was trained in {duration(found.fitted)}; it is kept in the run", markup=False)
    if found.skipped:
        err.print(f"{several(found.skipped, 'attempt')} at questions that the run doesn't know, left out", markup=False)
    if out_file is not None:
        with whole_path(out_file) as partial:
            if out_file.suffix.lower() == ".csv":
                guarded_frame(frame).write_csv(partial)
            else:
                frame.write_parquet(partial)
    if plot is not None and (drawn := mastery(found.bank, [one])) is not None:
        write_figure(drawn, plot)
    labels = [found.bank.label(int(c)) for c in one.concepts]
    if as_json:
        about = {"task": one.task, "vectors": one.label, "attempts": len(one.question), "skipped": found.skipped}
        about |= {"training_students": found.students, "validation_auc": found.validation_auc}
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
    out.print(
        f"the model was trained on {several(found.students, 'student')}; its AUC on validation students is "
        f"{found.validation_auc:.3f}",
        markup=False,
    )
    print_table(["concept", "right", "before", "after"], rows, left=1)
    for file in (out_file, plot):
        if file is not None:
            out.print(str(file), markup=False)
