"""``report.html``: the run as one page that needs only a browser. All its content is read from the run folder."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcq.engine.verify import add_to_manifest, write_manifest
from qcq.evaluation import TASKS
from qcq.report import figures
from qcq.report.comparison import (
    Comparison,
    PairedComparison,
    Standing,
    beside_baselines,
    cautions,
    comparison,
    correction,
    paired_comparisons,
    standings,
)
from qcq.report.facts import Bank, WalkFacts, inspected, traces
from qcq.report.maps import Map, Pictured, read_maps
from qcq.report.tables import figure_tables
from qcq.run import MANIFEST, Page, Run
from qcq.support.files import write_text
from qcq.support.lock import occupied
from qcq.support.registry import find

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN_NEIGHBOURS = 5
_NONE = 65_535  # "not known" among 16-bit numbers

MEANS = {
    "at floor": "at most 2 % of the way from the unigram loss to the floor is left, or three standard errors",
    "under-trained": "there is something left to learn",
    "unigram trap": "it has learnt how frequent questions are and nothing of their order",
    "overfitting": "its held-out loss was lower earlier in training",
    "diverged": "the loss isn't finite, or is far above that of a model that knows nothing",
}


def write_page(run: Run) -> Page:
    """Write ``report.html`` from the run folder: one file with all plots, no network needed."""
    from plotly.offline import get_plotlyjs

    about, env, config = run.read_json("about.json"), run.read_json("environment.json"), run.config
    table = comparison(run)
    beside = beside_baselines(run, table)
    bank, drawn, found = Bank.of(run), read_maps(run), inspected(run)
    stands, compared = standings(run, table), paired_comparisons(run, table)
    drawings = _figures(run, table, stands, bank, drawn)
    plots = {name: figure for name, figure in drawings.items() if figure is not None}
    context = {
        "about": about,
        "config": config,
        "toml": (run.path / "config.toml").read_text(encoding="utf-8"),
        "environment": env,
        "sentences": sentences(run, table, compared, found),
        "missing": missing(run, table, bank, found, about),
        "paired_comparisons": [str(d) for d in compared],
        "correction": correction(compared),
        "beside": [str(each) for each in beside],
        "beside_correction": correction(beside),
        "table": table,
        "standings": stands,
        "losses": [r for r in run.rows("training") if r.get("loss") is not None],
        "means": MEANS,
        "tasks": {name: find("task", name, TASKS).description for name in config["tasks"]},
        "inspected": found,
        "walks": [facts for walk in config["walks"] if (facts := WalkFacts.of(run, walk))],
        "bank": bank,
        "largest": [] if bank is None else bank.largest[: figures.LARGEST].tolist(),
        "drawn": drawn,
        "traces": traces(run) if "mastery" in plots else [],
        "tuning": run.rows("tuning"),
        "figure_tables": figure_tables(run),
        "unreproducible": sorted({r["trainer"] for r in run.rows("training") if not r.get("reproducible", True)}),
        "corpora": dict.fromkeys(
            (r["walk"], r["seed"], r["corpus_digest"]) for r in run.rows("training") if r.get("corpus_digest")
        ),
        "plots": set(plots),
        "plotly": _as_it_is(get_plotlyjs()),
        "css": _as_it_is((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        "js": _as_it_is((Path(__file__).parent / "page.js").read_text(encoding="utf-8")),
        "data": _json({"figures": plots, "map": None if bank is None or not drawn else _map(bank, drawn)}),
    }
    text = _template().render(context)
    with occupied(run.path):
        write_text(run.path / "report.html", text)
        if (run.path / MANIFEST).is_file():
            add_to_manifest(run, [run.path / "report.html"])
        else:
            write_manifest(run)  # the last file of a run
    return Page(run.path / "report.html")


def write_run_figures(run: Run, folder: Path) -> list[Path]:
    """The plots of the page, and the maps, as PNG, SVG and PDF.

    Raises
    ------
    ConfigError : there is nothing to draw them with.
    """
    bank, drawn, table = Bank.of(run), read_maps(run), comparison(run)
    made = _figures(run, table, standings(run, table), bank, drawn)
    for way in ("pca", "tsne"):
        made[f"map-{way}"] = figures.embedding_map(bank, drawn, way)
    return figures.write_figures(made, folder)


def _figures(
    run: Run,
    table: Comparison,
    stands: Sequence[Sequence[Standing]],
    bank: Bank | None,
    drawn: Sequence[tuple[Pictured, Map]],
) -> dict[str, Figure | None]:
    """All plots that a page can have; None where this run has none."""
    return {
        "cost": figures.cost(table, stands),
        "losses": figures.losses(run),
        "information": figures.information(inspected(run)),
        "hubs": None if bank is None else figures.hubs(bank),
        "clusters": None if bank is None else figures.clusters(bank, drawn),
        "mastery": None if bank is None else figures.mastery(bank, traces(run)),
    }


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"n": _n, "digits": _digits, "percent": lambda x: f"{x:.1%}", "toml_line": _inline, "mean": np.mean}
    return env.get_template("page.html")


def _as_it_is(text: str) -> Any:
    """A file of this package, which isn't escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  (not of the run)


def _n(value: int) -> str:
    return f"{value:,}"


def _digits(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def _inline(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "defaults"


def _json(value: Any) -> Any:
    """JSON that can be put inside a script element: ``<``, ``>``, ``&`` and ``'`` are written as escapes."""
    from jinja2.utils import htmlsafe_json_dumps
    from plotly.io.json import to_json_plotly

    return htmlsafe_json_dumps(value, dumps=lambda v, **_: to_json_plotly(v, engine="json"))


def _bytes(values: NDArray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _map(bank: Bank, drawn: Sequence[tuple[Pictured, Map]]) -> dict[str, Any]:
    """What the browser needs to draw the maps and show neighbours: numbers as base64, little-endian."""
    shown = drawn[0][1].shown
    members = bank.members[shown]
    difficulty = None if bank.difficulty is None or bank.responses is None else bank.difficulty[shown]
    answered = None if bank.responses is None else bank.responses[shown]
    names = [bank.names[i] for i in shown]
    return {
        "total": len(bank.ids),
        "ids": [bank.ids[i] for i in shown],
        "names": names if any(names) else [],
        "concepts": [bank.label(c) for c in range(len(bank.concept_ids))],
        "order": [int(c) for c in bank.largest if bank.sizes[c] > 0],
        "sizes": bank.sizes.tolist(),
        "starts": _bytes(members.indptr, "<i4"),
        "members": _bytes(members.indices, "<i4"),
        "group": _bytes(bank.groups(figures.GROUPS)[shown], "<u1"),
        "groups": figures.GROUPS,
        "degree": _bytes(np.minimum(bank.degree[shown], _NONE), "<u2"),
        "responses": None if answered is None else _bytes(answered, "<i4"),
        "wrong": None
        if difficulty is None
        else _bytes(np.where(np.isnan(difficulty), _NONE, np.nan_to_num(difficulty) * 10_000), "<u2"),
        "neighbours": min(SHOWN_NEIGHBOURS, drawn[0][1].nearest.shape[1]),
        "maps": [_one_map(one, made) for one, made in drawn],
    }


def _one_map(one: Pictured, made: Map) -> dict[str, Any]:
    k = min(SHOWN_NEIGHBOURS, made.nearest.shape[1])
    return {
        "label": one.label,
        "readout": one.readout,
        "explained": made.explained.tolist(),
        "landmarks": made.landmarks,
        "pca": _bytes(_whole_numbers(made.pca), "<i2"),
        "tsne": _bytes(_whole_numbers(made.tsne), "<i2") if len(made.tsne) else None,
        "twins": _bytes(np.minimum(made.twins, _NONE), "<u2"),
        "nearest": _bytes(made.nearest[:, :k], "<u2"),
        "cosine": _bytes(np.round(made.similarity[:, :k] * 100), "<i1"),
        "together": _bytes(np.minimum(made.together[:, :k], _NONE), "<u2") if len(made.together) else None,
    }


def _whole_numbers(places: NDArray[np.float32]) -> NDArray[np.int16]:
    """Positions, scaled equally in both directions into ±30,000."""
    centre = (places.max(axis=0) + places.min(axis=0)) / 2
    width = float(np.ptp(places, axis=0).max()) or 1.0
    return np.round((places - centre) / width * 60_000).astype(np.int16)


def sentences(
    run: Run, table: Comparison, compared: Sequence[PairedComparison], found: dict[str, dict[str, Any]]
) -> list[str]:
    """The run in three sentences: the best vectors, the losses above their floors, the information in the graph."""
    return [_who_wins(table, compared), _losses(run), _graph(found)]


def _who_wins(table: Comparison, compared: Sequence[PairedComparison]) -> str:
    good = [line for line in table.lines if not line.error]
    if not good:
        return "No trainer finished, so there is nothing to compare."
    heads = {(task, find("task", task, TASKS).metric) for task in {pair.column.task for pair in compared}}
    against = [pair for pair in compared if pair.second.baseline and (pair.column.task, pair.column.metric) in heads]
    if not against:
        if len(good) == 1:
            return f"Only {good[0].label} was run, so there is nothing to compare it with."
        kind = "baselines" if all(line.baseline for line in good) else "learned vectors"
        return f"Only {kind} were run, so learned vectors and baselines can't be compared; the table has all figures."
    said = []
    for pair in against:
        d, a, b = pair.difference, pair.first.label, pair.second.label
        ends = f"95 % interval {d.low:+.3f} to {d.high:+.3f}" if d.clusters > 1 else "of one unit: no interval"
        figure = f"({d.mean:+.3f}, {ends})"
        if d.low > 0:
            said.append(f"on {pair.column.title}, {a} beats the best baseline, {b} {figure}")
        elif d.high < 0:
            said.append(f"on {pair.column.title}, the baseline {b} beats the best learned vectors, {a} {figure}")
        else:
            said.append(f"on {pair.column.title}, {a} and the best baseline, {b}, can't be told apart {figure}")
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def _losses(run: Run) -> str:
    rows = [r for r in run.rows("training") if r.get("excess") is not None]
    models = list(dict.fromkeys((r["trainer"], r["walk"]) for r in rows))
    if not models:
        return "No trainer in this run has both a likelihood and an exact floor, so no loss can be read against one."
    several = len(run.config["walks"]) > 1
    said = []
    for trainer, walk in models:
        mine = [r for r in rows if (r["trainer"], r["walk"]) == (trainer, walk)]
        words = " or ".join(dict.fromkeys(r["verdict"] for r in mine))
        name = f"{trainer} on {walk}" if several else trainer
        said.append(f"{name} ends {np.mean([r['excess'] for r in mine]):.2f} nats above its floor ({words})")
    return "On held-out walks, " + "; ".join(said) + "."


def _graph(found: dict[str, dict[str, Any]]) -> str:
    if not found or "unigram" not in next(iter(found.values())):
        return "What the graph can tell of its questions was not worked out in this run."
    walk, f = next(iter(found.items()))
    information = (f.get("mutual_information_above_components") or [0.0])[0]
    if f["indistinguishable_share"] > 0:
        twins = (
            f"{f['indistinguishable_share']:.1%} of the {f['questions']:,} questions have a twin, another question "
            f"that this walk can't tell from it; there are {f['distinct_sets']:,} kinds of question"
        )
    else:
        twins = f"all {f['questions']:,} questions can be told apart by their concepts"
    return f"In this graph {twins}, and a step of the {walk} walk tells {information:.2f} nats about the next question."


def missing(
    run: Run, table: Comparison, bank: Bank | None, found: dict[str, dict[str, Any]], about: dict[str, Any]
) -> list[str]:
    """What this report can't show, and why, one line each."""
    out = [f"{line.label} failed: {line.error}" for line in table.lines if line.error]
    out += [f"{line}." for line in cautions(run, table)]
    good = [line for line in table.lines if not line.error]
    if not about["students"]:
        out.append("The data set has no students: there is no difficulty, no correct rate and no co-answered question.")
    out += [f"The task {name} was left out: {why}" for name, why in about["skipped_tasks"].items()]
    if not any(r.get("loss") is not None for r in run.rows("training")):
        out.append("No trainer with a held-out loss was run: there are no loss curves.")
    else:
        curved = {r["trainer"] for r in run.rows("curves")}
        ends = list(
            dict.fromkeys(
                r["trainer"] for r in run.rows("training") if r.get("loss") is not None and r["trainer"] not in curved
            )
        )
        if ends:
            out.append(
                f"{', '.join(ends)}: the loss was measured at the end only; its panel shows points, not a curve."
            )
        out += [
            f"{trainer} on {walk} has no floor: {why}"
            for trainer, walk, why in dict.fromkeys(
                (r["trainer"], r["walk"], r["why_no_floor"]) for r in run.rows("training") if r.get("why_no_floor")
            )
        ]
    if len(good) == 1:
        out.append("A single trainer finished: nothing is marked as best.")
    if run.config["seeds"] < 2:
        out.append("A single seed was run: there is no spread over seeds.")
    if bank is None:
        out.append(
            "The run folder is of an older version and holds no concepts of questions: run it again for the map."
        )
    for walk in run.config["walks"]:
        if walk not in found:
            out.append(f"What the walk {walk} can tell was not worked out.")
        out += [f"{walk}: {note}" for note in found.get(walk, {}).get("notes", [])]
    return out
