"""The plots of a report, each a Plotly figure for the page that can be written as PNG, SVG or PDF."""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcq.errors import ConfigError
from qcq.evaluation import TASKS
from qcq.report.comparison import Comparison, Standing, quality
from qcq.report.facts import Bank, Trace
from qcq.report.maps import Map, Pictured
from qcq.run import Run
from qcq.support.files import partial_path, write_text
from qcq.support.folders import claim

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe & Ito's palette, which people with any colour vision can tell apart; shapes repeat the information.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
SHAPES = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "triangle-down")
FORMATS = ("png", "svg", "pdf")
LARGEST = 24  # concepts in a chart
ROWS = 16  # concepts of a student in a heat-map
GROUPS = 7  # concepts with a colour of their own on a map


def plain(text: str, most: int = 48) -> str:
    """Text that Plotly shows as it is: Plotly interprets some HTML, and an id may look like HTML.

    Examples
    --------
    >>> plain("<b>q</b>")
    '&lt;b&gt;q&lt;/b&gt;'
    """
    return html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)


def _layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 60, "r": 16, "t": 24, "b": 52},
        "template": "none",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        **more,
    }


def _figure(height: int, **layout: Any) -> Figure:
    from plotly.graph_objects import Figure

    return Figure(layout=_layout(height, **layout))


def _look(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "symbol": SHAPES[i % len(SHAPES)]}


def cost(table: Comparison, stands: Sequence[Sequence[Standing]]) -> Figure | None:
    """Cost against quality, one panel per task: the line joins the trainers that no other beats in both (Pareto front).

    Reconstruction and stability don't count as quality.
    """
    from plotly.subplots import make_subplots

    tuning = [(j, c) for j, c in enumerate(table.columns[3:]) if c.task in TASKS and quality(TASKS[c.task])]
    columns = tuning or [(j, c) for j, c in enumerate(table.columns[3:]) if c.task != "training"]
    seconds = len(table.columns) - 4
    lines = [(i, line) for i, line in enumerate(table.lines) if not line.error and line.values[seconds]]
    if not lines or not columns:
        return None
    rows = (len(columns) + 1) // 2
    figure = make_subplots(
        rows=rows,
        cols=min(2, len(columns)),
        subplot_titles=[plain(c.title) for _, c in columns],
        vertical_spacing=0.28 / rows,
        horizontal_spacing=0.12,
    )
    figure.update_layout(_layout(340 * rows + 70, margin={"l": 60, "r": 16, "t": 24, "b": 100}))
    for at, (j, column) in enumerate(columns):
        row, col = at // 2 + 1, at % 2 + 1
        # A closed form may take no measurable time, which a logarithmic axis can't show.
        x = np.array([max(float(np.mean(line.values[seconds])), 1e-3) for _, line in lines])
        y = np.array([float(np.mean(line.values[j])) if line.values[j] else np.nan for _, line in lines])
        front = _front(x, y)
        figure.add_scatter(
            x=x[front],
            y=y[front],
            mode="lines",
            line={"shape": "hv", "dash": "dot", "width": 1.5, "color": "#7F7F7F"},
            hoverinfo="skip",
            name="no other is both cheaper and better",
            legendgroup="front",
            showlegend=at == 0,
            row=row,
            col=col,
        )
        for k, (i, line) in enumerate(lines):
            if np.isnan(y[k]):
                continue
            bar = stands[i][j]
            ends = None
            if bar.low is not None and bar.high is not None:
                ends = {"array": [max(bar.high - y[k], 0)], "arrayminus": [max(y[k] - bar.low, 0)], "thickness": 1}
            figure.add_scatter(
                x=[x[k]],
                y=[y[k]],
                error_y=ends,
                mode="markers",
                marker={**_look(k), "size": 12},
                name=plain(line.label),
                legendgroup=line.label,
                showlegend=at == 0,
                hovertemplate=f"{plain(line.label)}<br>{plain(column.title)} %{{y:.3f}}"
                "<br>%{x:.3g} seconds<extra></extra>",
                row=row,
                col=col,
            )
        figure.update_xaxes(type="log", dtick=1, title="seconds to train", row=row, col=col)
        figure.update_yaxes(title=plain(column.metric), row=row, col=col)
    return figure


def _front(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the points with no other point to the left and above, from left to right."""
    out: list[int] = []
    for i in sorted(np.flatnonzero(~np.isnan(y)).tolist(), key=lambda i: (x[i], -y[i])):
        if not out or y[i] > y[out[-1]]:
            out.append(i)
    return out


def losses(run: Run) -> Figure | None:
    """Held-out loss over training, one panel per model, with its floor and the unigram loss; one line per seed."""
    from plotly.subplots import make_subplots

    rows = [r for r in run.rows("training") if r.get("loss") is not None]
    models = list(dict.fromkeys((r["walk"], r["trainer"]) for r in rows))
    if not models:
        return None
    curves = run.rows("curves")
    several = len(run.config["walks"]) > 1
    titles = [plain(f"{trainer} on {walk}" if several else trainer) for walk, trainer in models]
    lines = (len(models) + 2) // 3
    figure = make_subplots(
        rows=lines,
        cols=min(3, len(models)),
        subplot_titles=titles,
        vertical_spacing=0.26 / lines,
        horizontal_spacing=0.09,
    )
    figure.update_layout(_layout(310 * lines + 90, margin={"l": 60, "r": 16, "t": 24, "b": 100}))
    for at, model in enumerate(models):
        row, col = at // 3 + 1, at % 3 + 1
        mine = [r for r in rows if (r["walk"], r["trainer"]) == model]
        last = 0.0
        for i, r in enumerate(mine):
            curve = [c for c in curves if (c["walk"], c["trainer"], c["seed"]) == (*model, r["seed"])]
            x = [c["step"] for c in curve] or [1 + 0.08 * (i - (len(mine) - 1) / 2)]  # seeds side by side
            y = [c["loss"] for c in curve] or [r["loss"]]
            last = max(last, x[-1]) if curve else last
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines+markers" if curve else "markers",
                line={"color": COLOURS[0], "width": 1.6},
                marker={"color": COLOURS[0], "size": 5 if curve else 9, "symbol": SHAPES[i % len(SHAPES)]},
                name="held-out loss, one line per seed",
                legendgroup="loss",
                showlegend=at == 0 and i == 0,
                hovertemplate=f"seed {r['seed']}<br>step %{{x}}<br>%{{y:.3f}} nats<extra></extra>",
                row=row,
                col=col,
            )
        for key, name, colour, dash in (
            ("floor", "floor: no model gets below", COLOURS[1], "dash"),
            ("unigram", "unigram: frequencies only", COLOURS[2], "dot"),
        ):
            known = [r[key] for r in mine if r[key] is not None]
            if known:
                figure.add_scatter(
                    x=[0, last or 2],
                    y=[float(np.mean(known))] * 2,
                    mode="lines",
                    line={"color": colour, "dash": dash, "width": 2},
                    name=name,
                    legendgroup=key,
                    showlegend=at == 0,
                    hovertemplate=f"{key} %{{y:.3f}} nats<extra></extra>",
                    row=row,
                    col=col,
                )
        if last == 0:
            figure.update_xaxes(tickvals=[1], ticktext=["trained"], range=[0, 2], row=row, col=col)
        else:
            figure.update_xaxes(title="steps", range=[0, last * 1.02], row=row, col=col)
        figure.update_yaxes(title="nats", row=row, col=col)
    return figure


def information(found: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Mutual information of two questions of a walk by the steps between them, minus what their component tells."""
    if not found:
        return None
    figure = _figure(340)
    for i, (walk, about) in enumerate(found.items()):
        y = about.get("mutual_information_above_components") or []
        figure.add_scatter(
            x=list(range(1, len(y) + 1)),
            y=y,
            mode="lines+markers",
            marker={**_look(i), "size": 6},
            line={"color": COLOURS[i % len(COLOURS)]},
            name=plain(walk),
            hovertemplate="%{x} steps apart<br>%{y:.3f} nats<extra></extra>",
        )
    figure.update_xaxes(title="steps apart")
    figure.update_yaxes(title="nats", rangemode="tozero")
    figure.update_layout(showlegend=len(found) > 1)
    return figure


def hubs(bank: Bank) -> Figure | None:
    """The largest concepts by the questions that test them: walks mix through these."""
    order = bank.largest[:LARGEST]
    order = order[bank.sizes[order] > 0][::-1]
    if len(order) == 0:
        return None
    figure = _figure(90 + 19 * len(order), margin={"l": 12, "r": 16, "t": 8, "b": 48})
    figure.add_bar(
        x=bank.sizes[order],
        y=[f"{i}" for i in range(len(order))],
        orientation="h",
        marker={"color": COLOURS[0]},
        customdata=[plain(bank.label(int(c)), 200) for c in order],
        hovertemplate="%{customdata}<br>%{x:,} questions<extra></extra>",
    )
    figure.update_yaxes(
        tickvals=[f"{i}" for i in range(len(order))],
        ticktext=[plain(bank.label(int(c)), 34) + " " for c in order],
        automargin=True,
    )
    figure.update_xaxes(title="questions")
    return figure


def clusters(bank: Bank, drawn: Sequence[tuple[Pictured, Map]]) -> Figure | None:
    """How tightly each large concept clusters: the share of a question's neighbours that test the concept too."""
    if not drawn or drawn[0][1].nearest.shape[1] == 0:
        return None
    order = bank.largest[:LARGEST]
    order = order[bank.sizes[order] > 1]
    if len(order) == 0:
        return None
    share = np.full((len(drawn) + 1, len(order)), np.nan)  # (trainers and chance, concepts)
    shown = drawn[0][1].shown
    for j, c in enumerate(order):
        tests = np.asarray(bank.members[:, [int(c)]].todense()).ravel()[shown] > 0
        for i, (_, made) in enumerate(drawn):
            if tests.any():
                share[i, j] = tests[made.nearest[tests]].mean()
        share[-1, j] = max(tests.sum() - 1, 0) / max(len(shown) - 1, 1)
    names = [*(one.label for one, _ in drawn), "by chance"]
    figure = _figure(150 + 20 * len(order), margin={"l": 12, "r": 8, "t": 8, "b": 12})
    figure.add_heatmap(
        z=share.T[::-1],
        x=[f"{i}" for i in range(len(names))],
        y=[f"{j}" for j in range(len(order))],
        colorscale="Cividis",
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=1,
        colorbar={"title": {"text": "share"}, "thickness": 12, "tickformat": ".0%"},
        customdata=[
            [plain(f"{name} · {bank.label(int(c))} ({bank.sizes[c]:,} questions)", 200) for name in names]
            for c in order[::-1]
        ],
        hovertemplate="%{customdata}<br>%{z:.0%} of the neighbours<extra></extra>",
        hoverongaps=False,
    )
    figure.update_xaxes(
        tickvals=[f"{i}" for i in range(len(names))],
        ticktext=[plain(n, 24) for n in names],
        side="top",
        automargin=True,
        fixedrange=True,
    )
    figure.update_yaxes(
        tickvals=[f"{j}" for j in range(len(order))],
        ticktext=[plain(bank.label(int(c)), 34) + " " for c in order[::-1]],
        automargin=True,
        fixedrange=True,
    )
    return figure


def mastery(bank: Bank, traced: Sequence[Trace]) -> Figure | None:
    """The estimated mastery of test students over time: one panel per student, one row per concept, one column per
    attempt. A disc marks a right answer, a cross a wrong one."""
    from plotly.subplots import make_subplots

    drawn = [(one, one.shown(bank, ROWS)) for one in traced if len(one.concepts) and len(one.question)]
    if not drawn:
        return None
    tall = [30 + 22 * len(rows) for _, rows in drawn]
    figure = make_subplots(
        rows=len(drawn),
        row_heights=[h / sum(tall) for h in tall],
        vertical_spacing=min(0.25, 110 / (sum(tall) + 110 * len(drawn))),
        subplot_titles=[_report_card(one) for one, _ in drawn],
    )
    margin = {"l": 12, "r": 8, "t": 34, "b": 90}
    figure.update_layout(_layout(sum(tall) + 110 * len(drawn) + 40, margin=margin, coloraxis=_MASTERY))
    for at, (one, rows) in enumerate(drawn, start=1):
        names = [plain(bank.label(int(c)), 34) + " " for c in one.concepts[rows]]
        long_names = [plain(bank.label(int(c)), 200) for c in one.concepts[rows]]
        steps = list(range(len(one.mastery)))
        figure.add_heatmap(
            z=one.mastery[:, rows].T,
            x=steps,
            y=list(range(len(rows))),
            coloraxis="coloraxis",
            ygap=1,
            customdata=[[name] * len(steps) for name in long_names],
            hovertemplate="%{customdata}<br>after %{x} attempts: right with %{z:.0%}<extra></extra>",
            row=at,
            col=1,
        )
        tests = bank.members[one.question][:, one.concepts[rows]].tocoo()  # (attempts, shown concepts)
        for right, symbol, name in ((1, "circle", "answered right"), (0, "x", "answered wrong")):
            kept = one.correct[tests.row] == right
            when = tests.row[kept]
            figure.add_scatter(
                x=when + 1,
                y=tests.col[kept],
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": 7,
                    "color": "#FFFFFF",
                    "line": {"width": 1, "color": "#000000"},
                },
                name=name,
                legendgroup=name,
                showlegend=at == 1,
                customdata=[plain(bank.names[int(q)] or bank.ids[int(q)], 120) for q in one.question[when]],
                hovertemplate=f"attempt %{{x}}, {name}: %{{customdata}}<extra></extra>",
                row=at,
                col=1,
            )
        figure.update_yaxes(
            tickvals=list(range(len(rows))),
            ticktext=names,
            autorange="reversed",
            automargin=True,
            fixedrange=True,
            showgrid=False,
            zeroline=False,
            row=at,
            col=1,
        )
        figure.update_xaxes(title="attempts", showgrid=False, zeroline=False, row=at, col=1)
    return figure


_MASTERY = {
    "colorscale": "Cividis",
    "cmin": 0,
    "cmax": 1,
    "colorbar": {"title": {"text": "mastery"}, "thickness": 12, "tickformat": ".0%"},
}


def _report_card(one: Trace) -> str:
    who = plain(one.name) if one.name else f"test student {one.student}"
    return f"{who}: {len(one.question)} attempts, {one.correct.mean():.0%} right"


def embedding_map(bank: Bank | None, drawn: Sequence[tuple[Pictured, Map]], way: str = "tsne") -> Figure | None:
    """The maps side by side, coloured by the largest concepts: for print. The page draws its own, interactive maps."""
    from plotly.subplots import make_subplots

    have = [(one, getattr(made, way), made) for one, made in drawn if len(getattr(made, way))]
    if not have:
        return None
    lines, across = (len(have) + 2) // 3, min(3, len(have))
    figure = make_subplots(
        rows=lines,
        cols=across,
        subplot_titles=[plain(one.label) for one, _, _ in have],
        horizontal_spacing=0.02,
        vertical_spacing=0.12 / lines,
    )
    margin = {"l": 8, "r": 8, "t": 36, "b": 96}
    figure.update_layout(
        _layout(340 * lines + 110, width=max(700, 340 * across), margin=margin), legend_itemsizing="constant"
    )
    n = len(have[0][2].shown)
    group = np.zeros(n, dtype=np.int64) if bank is None else bank.groups(GROUPS)[have[0][2].shown]
    for at, (_, places, _) in enumerate(have):
        for g in np.unique(group)[::-1]:  # the smaller concepts lie below
            mine = group == g
            name = "all others" if bank is None or g == GROUPS else plain(bank.label(int(bank.largest[g])))
            figure.add_scattergl(
                x=places[mine, 0],
                y=places[mine, 1],
                mode="markers",
                marker={"size": 3, "color": COLOURS[g] if g < GROUPS else "#C3CAD4"},
                name=name,
                legendgroup=int(g),
                showlegend=at == 0,
                row=at // 3 + 1,
                col=at % 3 + 1,
            )
    figure.update_xaxes(showgrid=False, zeroline=False, showticklabels=False, showline=True, mirror=True)
    figure.update_yaxes(showgrid=False, zeroline=False, showticklabels=False, showline=True, mirror=True)
    return figure


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>qcq</title><style>
:root { color-scheme: light dark; }
body { margin: 1rem; background: #ffffff; }
@media screen and (prefers-color-scheme: dark) { body { background: #171c24; } }
</style></head><body>
"""
# The colours of the report, which follow the reader's setting; on paper they are the light ones.
_THEME = """
const box = document.getElementById("{plot_id}"), dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint(on) {
  const colours = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": on ? "#e6eaf0" : "#1b2430",
    "hoverlabel.bgcolor": on ? "#171c24" : "#ffffff", "hoverlabel.font.color": on ? "#e6eaf0" : "#1b2430",
  };
  for (const key of Object.keys(box.layout).filter((name) => /^[xy]axis[0-9]*$/.test(name))) {
    colours[key + ".gridcolor"] = colours[key + ".zerolinecolor"] = on ? "#2b3340" : "#e6e9ee";
    colours[key + ".linecolor"] = colours[key + ".tickcolor"] = on ? "#566172" : "#9aa4b2";
  }
  Plotly.relayout(box, colours);
}
paint(dark.matches);
dark.addEventListener("change", () => paint(dark.matches));
window.addEventListener("beforeprint", () => paint(false));
window.addEventListener("afterprint", () => paint(dark.matches));
"""


def refuse_undrawable(path: Path) -> None:
    """ConfigError if no figure can be written there: another ending, or a picture without kaleido."""
    kind = path.suffix.lower().removeprefix(".")
    if kind in FORMATS:
        _refuse_without_kaleido()
    elif kind != "html":
        raise ConfigError(f"{path}: no figure is written as {path.suffix!r}; take .html, .{', .'.join(FORMATS)}")


def write_figure(figure: Figure, path: Path) -> Path:
    """One figure as the ending says: a page (``.html``) that needs no other file, or a picture.

    Raises
    ------
    ConfigError : another ending; kaleido or Chromium is missing.
    """
    refuse_undrawable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().removeprefix(".")
    if kind == "html":
        config = {"responsive": True, "displaylogo": False}
        made = figure.to_html(config, full_html=False, include_mathjax=False, post_script=_THEME)
        write_text(path, f"{_HEAD}{made}</body></html>\n")
    else:
        _draw([_job(figure, path, kind)])
    return path


def write_figures(figures: Mapping[str, Figure | None], folder: Path) -> list[Path]:
    """Each figure as PNG, SVG and PDF. Pictures of the same names that were there before are removed, also those of a
    figure that is None now: they show something else.

    Raises
    ------
    ConfigError : kaleido isn't installed, or finds no Chromium to draw with; the folder holds other files.
    """
    _refuse_without_kaleido()
    claim(folder, "figures")
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    apart = partial_path(folder / "drawn")
    try:
        apart.mkdir(exist_ok=True)
        _draw([_job(figure, apart / f"{name}.{kind}", kind) for name, figure in drawn.items() for kind in FORMATS])
        for name, kind in product(figures, FORMATS):  # first all: whoever is killed here leaves no pictures of two runs
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
        files = [folder / f"{name}.{kind}" for name, kind in product(drawn, FORMATS)]
        for file in files:
            (apart / file.name).rename(file)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
    return files


def _job(figure: Figure, path: Path, kind: str) -> dict[str, Any]:
    return {"fig": figure, "path": path, "opts": {"format": kind, "scale": 2 if kind == "png" else 1, **_size(figure)}}


def _refuse_without_kaleido() -> None:
    if find_spec("kaleido") is None:
        raise ConfigError("pictures need kaleido; install it with: pip install 'qcq[figures]'")


def _draw(jobs: list[dict[str, Any]]) -> None:
    """Pictures by kaleido. ConfigError if it isn't installed, or finds no Chromium."""
    _refuse_without_kaleido()
    import kaleido

    try:
        # Plotly's own write_images() can't be told to leave out MathJax, which is fetched from another host.
        kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"mathjax": False})
    except Exception as error:
        # An error here comes from the browser, and its type changes with the browser's version.
        said = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"--figures: {type(error).__name__}: {said}; it needs Chromium or Chrome on the PATH"
        ) from error


def _size(figure: Figure) -> dict[str, int]:
    return {"width": int(figure.layout.width or 960), "height": int(figure.layout.height)}
