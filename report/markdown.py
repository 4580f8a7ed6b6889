"""``report.md``: the run in words and tables."""

from __future__ import annotations

from typing import Any

from qcq.evaluation import TASKS
from qcq.floors.losses import share_left
from qcq.report.comparison import (
    Comparison,
    beside_baselines,
    cautions,
    comparison,
    correction,
    paired_comparisons,
)
from qcq.report.tables import FigureTable, table_of_other_figures, table_without_vectors, tracing_table
from qcq.run import Run
from qcq.support.files import write_text
from qcq.support.markdown import code, plain, plain_table
from qcq.support.registry import find


def write_report(run: Run) -> None:
    """Write ``report.md`` from the run's rows: all its content is read from the folder."""
    about, config = run.read_json("about.json"), run.config
    table, seeds = comparison(run), config["seeds"]
    parts = [
        f"# {plain(about['dataset'])}: which question vectors are worth using",
        _data_section(about),
        "## Comparison",
        f"Mean ± standard deviation over {seeds} seed{'' if seeds == 1 else 's'}, test set; settings and read-outs "
        "were chosen on validation. `excess` is the held-out loss above the exact floor of the walk, same tokens.",
        plain_table([c.title for c in table.columns], table.cells(), 3),
        _verdict_section(run, table),
        _task_section(config, about),
        _loss_section(run),
        _tuning_section(run),
        _use_section(run),
        _figure_section(tracing_table(run)),
        _figure_section(table_without_vectors(run), *_beside(run, table)),
        _figure_section(table_of_other_figures(run)),
        _repeat_section(run, config),
    ]
    write_text(run.path / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def _data_section(about: dict[str, Any]) -> str:
    graph = about["graph"]
    lines = [
        f"- {graph['questions']:,} questions, {graph['concepts']:,} concepts, {graph['edges']:,} edges in the training "
        f"graph; {sum(about['held_out_edges'].values()):,} edges held out of it before anything else",
        f"- {graph['questions_without_concept']:,} questions without a concept, {graph['concepts_without_question']:,} "
        f"concepts without a question, {graph['components']:,} components",
    ]
    if about["students"]:
        s, sealed = about["students"], about.get("sealed", 0)
        out = about.get("left_out", 0) - sealed
        doubles = f", except duplicates of one person: {out:,} identifiers are in no part" if out else ""
        lines.append(
            f"- {about['responses']:,} responses; students: {s['train']:,} train, {s['validation']:,} validation, "
            f"{s['test']:,} test, divided before anything was derived from a response{doubles}"
        )
    lines += [f"- {plain(note)}" for note in about["notes"] if not note.startswith("doubtful: ")]  # these are cautions
    return "\n".join(lines)


def _verdict_section(run: Run, table: Comparison) -> str:
    compared = paired_comparisons(run, table)
    said = [str(pair) for pair in compared]
    failed = [f"{line.trainer} on {line.walk} failed: {line.error}" for line in table.lines if line.error]
    careful = cautions(run, table)
    if not said and not failed and not careful:
        return ""
    note = (
        "Differences are paired by edge, question or student on test, averaged over seeds, with "
        f"{correction(compared)}; the learner and the baseline to compare were chosen on validation."
    )
    return "\n".join([*(f"- {plain(line)}" for line in [*said, *failed, *careful]), "", note])


def _task_section(config: dict[str, Any], about: dict[str, Any]) -> str:
    lines = [f"- **{plain(name)}**: {find('task', name, TASKS).description}" for name in config["tasks"]]
    lines += [f"- **{plain(name)}** was left out: {plain(why)}" for name, why in about["skipped_tasks"].items()]
    return "\n".join(["## What was asked", "", *lines])


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _loss_section(run: Run) -> str:
    rows = [r for r in run.rows("training") if r.get("loss") is not None]
    if not rows:
        return ""
    titles = ["walk", "trainer", "objective", "verdict", "seed"]
    titles += ["loss", "floor", "excess", "± se", "unigram", "left", "tokens"]
    cells = [
        [
            r["walk"],
            r["trainer"],
            r["objective"],
            r["verdict"] or "–",
            str(r["seed"]),
            *(_number(r[key]) for key in ("loss", "floor", "excess", "excess_se", "unigram")),
            "–" if (left := share_left(r["excess"], r["floor"], r["unigram"])) is None else f"{left:.1%}",
            f"{r['tokens']:,}",
        ]
        for r in rows
    ]
    text = (
        "Held-out loss in nats, the floor that no model can go below, and the difference. Losses and "
        "excesses of two objectives are not on one scale. `left` is: the excess as a share of unigram - floor, "
        "which is all that can be learnt; the verdict goes by it."
    )
    return "\n\n".join(["## Loss against its floor", text, plain_table(titles, cells, 4)])


def _tuning_section(run: Run) -> str:
    rows = run.rows("tuning")
    if not rows:
        return ""
    cells = [
        [
            r["walk"],
            r["trainer"],
            ", ".join(f"{k}={v}" for k, v in r["candidate"].items()) or "defaults",
            r["readout"],
            "yes" if r["chosen"] else "",
            _number(r["score"]),
        ]
        for r in rows
    ]
    text = "Tried on validation with the first seed; the score is the mean of the validation figures that may tune"
    text += "." if all(r["score"] is not None for r in rows) else ", and a dash where no task of the run may."
    titles = ["walk", "trainer", "settings", "read-out", "chosen", "score"]
    return "\n\n".join(["## Settings tried", text, plain_table(titles, cells, 5)])


def _use_section(run: Run) -> str:
    """How costly tasks used each table, as chosen on validation."""
    cells = [
        [r["walk"], r["trainer"], task, str(r["seed"]), found["way"], _number(found[find("task", task, TASKS).metric])]
        for r in run.rows("training")
        for task, found in r.get("judged", {}).items()
        if "way" in found
    ]
    if not cells:
        return ""
    text = "Each way to use a table was tried; this one was the best on validation, with the figure in the last column."
    titles = ["walk", "trainer", "task", "seed", "way", "validation"]
    return "\n\n".join(["## How tables were used", text, plain_table(titles, cells, 5)])


def _figure_section(table: FigureTable | None, *after: str) -> str:
    """A table of figures, and what is said below it."""
    if table is None:
        return ""
    cells = [[*labels, *(_number(value) for value in values)] for labels, values in table.rows]
    shown = plain_table([*table.labels, *table.figures], cells, len(table.labels))
    return "\n\n".join([f"## {table.title}", table.text, shown, *after])


def _beside(run: Run, table: Comparison) -> list[str]:
    """The best tables beside the best model without vectors."""
    beside = beside_baselines(run, table)
    note = (
        f"Differences are paired by student on test, averaged over seeds, with {correction(beside)}; the tables and "
        "the model without vectors were chosen on validation."
    )
    return ["\n".join(f"- {plain(each)}" for each in beside), note] if beside else []


def _repeat_section(run: Run, config: dict[str, Any]) -> str:
    env = run.read_json("environment.json")
    digests = dict.fromkeys(
        f"- corpus of {plain(r['walk'])}, seed {r['seed']}: {code(r['corpus_digest'])}"
        for r in run.rows("training")
        if r.get("corpus_digest")
    )
    lines = [
        f"- command: {code(env['command'])}; every setting is in `config.toml`",
        f"- Python {env['python']} on {plain(env['cpu'])}, {env['threads']} threads; "
        + ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        *digests,
    ]
    loose = dict.fromkeys(r["trainer"] for r in run.rows("training") if not r.get("reproducible", True))
    lines += [
        f"- {plain(name)} is **not** reproducible with these settings: another run gives other vectors"
        for name in loose
    ]
    return "\n".join(["## To repeat it", "", *lines])
