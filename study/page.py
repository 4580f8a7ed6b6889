"""The page of a study: verdicts in plain words, figures, tables, all made from ``study.json``."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qcq.study.conjectures import ALL, CONJECTURES, FADED, REVERSIBLE, STUCK, Measured, Verdict, verdicts
from qcq.support.files import write_text
from qcq.support.terminal import markdown_table

Results = Mapping[str, Any]
Each = Mapping[str, Mapping[str, Measured]]  # data set → its figures
Rows = Sequence[tuple[str, Measured]]

TITLES = {
    "far": "1. Far-apart questions",
    "order": "2. Order, and a limited path",
    "weak": "3. Weak relations, negatives against softmax",
    "objective": "4. Masked or next-token",
    "traps": "5. Traps, and adding vectors",
}
SCORES = {"edges/mrr": "edges MRR", "difficulty/r2": "difficulty R²", "kt-fast/auc": "kt-fast AUC", "kt/auc": "kt AUC"}
LABELS = {
    "near": "said by the two nearest, of what all tokens say",
    "fading": "left five steps apart, of what neighbours share",
    "direction": "nats a token lost reading backwards (exact law)",
    "place": "loss, no positions less relative bias started at the neighbours",
    "place, absolute": "loss, absolute positions less the same",
    "place, relative": "loss, relative bias started at 0 less the same",
    "exchangeable": "share of exchangeable questions",
    "backwards, qcq": "loss of clm reading backwards less forwards, qcq",
    "backwards, session": "loss of clm reading backwards less forwards, session",
    "shuffled session": "loss of mlm on shuffled sessions less in order",
    "vectors": "score, negative sampling less full softmax",
    "loss": "loss, negative sampling less full softmax",
    "note": "excess of the note's configuration",
    "explained": "share of it that the defaults remove",
    "added": "loss, vectors added less concatenated",
}
BLUE, GREY, DARK = "#0072B2", "#B0B0B0", "#333333"


def write_study(results: Results | str | Path, folder: str | Path) -> Path:
    """Write ``study.md`` and its figures (``study/*.svg``) into ``folder``.

    Parameters
    ----------
    results : what ``study.json`` holds, or the path of one.
    folder : where the page goes.
    """
    held = json.loads(Path(results).read_text(encoding="utf-8")) if isinstance(results, (str, Path)) else results
    folder = Path(folder)
    for name, drawing in drawings(held).items():
        write_text(folder / "study" / f"{name}.svg", drawing)
    write_text(folder / "study.md", page(held))
    return folder / "study.md"


def page(results: Results) -> str:
    """The whole page as Markdown."""
    names = [name for name in CONJECTURES if name in results["found"]]
    drawn = drawings(results)
    judged = {name: verdicts(results["found"][name], name) for name in names}
    parts = [
        "# Why did the Transformer lose to skip-gram?",
        "<!-- Made by qcq.study.page from the results of qcq study; a test holds the two together. -->",
        "A practitioner trained a one-layer BERT on question–concept–question walks. Its loss stayed at 5–7 and its "
        "vectors lost to skip-gram's. He left four guesses and a question, and here each is an experiment with a "
        "verdict. "
        f"{_ran(results)}",
        results.get("remarks", ""),  # what a reader has to know of these results beside what the rules say
        "## In one page",
        "\n".join(f"- **{TITLES[name]}: {_short(judged[name][0])}.** {_plainly(results, name)}" for name in names),
        _moral(results),
        *(_section(results, name, judged[name], name in drawn) for name in names),
        _manner(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ran(results: Results) -> str:
    data = [
        f"`{name}` ({about['questions']:,} questions, {about['concepts']:,} concepts, {about['responses']:,} answers)"
        for name, about in results["data"].items()
    ]
    said = f"Size `{results['size']}`, on {_listed(data)}."
    if list(results["data"]) == ["simulated"]:
        said += " **This is the simulated classroom alone: no real question bank has been run yet.**"
    return said


def _short(verdict: Verdict) -> str:
    """The verdict; of each half where they differ."""
    if verdict.word == "depends" and verdict.on.startswith("which half"):
        return "; ".join(f"{half}: {part.text}" for half, part in verdict.parts)
    return verdict.text


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _each(results: Results, name: str) -> dict[str, dict[str, Measured]]:
    return {
        data: {key: Measured(**m) for key, m in found["measures"].items()}
        for data, found in results["found"].get(name, {}).items()
        if "measures" in found
    }


def _span(each: Each, key: str, percent: bool = False) -> str:
    """The figure, or its range over the data sets that have it."""
    values = [m[key].value for m in each.values() if key in m]
    ends = (min(values), max(values)) if values else ()
    shown = [f"{100 * v:.0f}" if percent else Measured(v).shown(2) for v in ends] or ["–", "–"]
    text = shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"
    return f"{text} %" if percent else text


def _figure(m: Measured, digits: int = 2) -> str:
    return m.shown(digits)


def _sets(each: Each, key: str, say: Callable[[Measured], str]) -> str:
    """What is to be said of a figure, data set by data set."""
    said = [f"{say(m[key])} on `{data}`" for data, m in each.items() if key in m]
    return _listed(said) if said else "by an amount that wasn't measured"


def _change(m: Measured) -> str:
    """A loss less another's, in words: above 0 is worse."""
    if m.above(0) or m.below(0):
        return f"{'worse' if m.value > 0 else 'better'} by {_figure(Measured(abs(m.value), *_turned(m)))} nat"
    return f"level ({_figure(m)} nat)"


def _turned(m: Measured) -> tuple[float | None, float | None]:
    """The interval of the figure's absolute value, for one that is clear of 0."""
    if m.low is None or m.high is None or m.value > 0:
        return m.low, m.high
    return -m.high, -m.low


# ------------------------------------------------------------------------------------------------------ in plain words


def _far(each: Each) -> str:
    left = [m["fading"].value > FADED for m in each.values()]
    related = (
        ", so far-apart questions can still be related"
        if all(left)
        else ""
        if any(left)
        else ", which is next to nothing"
    )
    redundant = all(not m["near"].below(ALL) for m in each.values())
    rest = (
        ": on a walk without memory the rest is redundant, exactly. A Transformer has nothing to gain from looking "
        "far; it has to find its neighbours."
        if redundant
        else "."
    )
    return (
        f"Five steps apart, {_span(each, 'fading', True)} of what neighbours share (beyond belonging to one component) "
        f"is left{related}. The two nearest neighbours say {_span(each, 'near', True)} of all that the other tokens "
        f"say{rest} Left to itself it puts {_span(each, 'attention within 2, relative', True)} of its attention within "
        f"two steps, started at its neighbours {_span(each, 'attention within 2, local', True)}."
    )


def _order(each: Each) -> str:
    nothing = all(m["direction"].value <= REVERSIBLE for m in each.values())
    gains = []
    for data, m in each.items():
        own = {key.removeprefix("gain "): figure for key, figure in m.items() if key.startswith("gain ")}
        if own:
            best = max(own, key=lambda name: own[name].value)
            gains.append(f"{_figure(own[best], 3)} on `{data}` ({best})")
    return (
        f"Reading a q-c-q walk backwards costs {_span(each, 'direction')} nat"
        f"{': before and after mean nothing, as he said' if nothing else ''}. Near and far are another matter: against "
        "a relative bias that starts at the neighbours, a masked model that isn't told where tokens stand is "
        f"{_sets(each, 'place', _change)}, and one with BERT's absolute positions "
        f"{_sets(each, 'place, absolute', _change)}. "
        f"As for the path, {_span(each, 'exchangeable', True)} of the questions share their concepts with another "
        "question, and no such walk tells those apart; the richer walk that helps knowledge tracing most adds "
        f"{_listed(gains) if gains else 'an amount that could not be measured'} to the AUC of the stand-in `kt-fast`."
    )


def _weak(each: Each) -> str:
    keys = [key for m in each.values() for name in m if (key := name.removeprefix("gbce, ")) in SCORES]
    score = _listed([SCORES[key] for key in dict.fromkeys(keys)]) if keys else "their score"
    return (
        f"One step of the walk tells {_sets(each, 'information a step', _figure)} nats, of which "
        f"{_sets(each, 'above components', _figure)} are more than which component of the graph the walk is in. "
        "Whether that is weaker than between words isn't decided here: no text large enough was at hand. Skip-gram's "
        "negatives are no advantage in themselves if the same Transformer is no better with them: with negative "
        f"sampling instead of a softmax, {score} changes by "
        f"{_sets(each, 'vectors', _figure)}, and by its loss it is {_sets(each, 'loss', _change)}."
    )


def _objective(each: Each) -> str:
    ends = [
        f"{_figure(m['excess of clm'])}, {_figure(m['excess of mlm'])} and {_figure(m['excess of cloze'])} on `{data}`"
        for data, m in each.items()
    ]
    said = [
        f"{text} {_sets(each, f'clm-{other} edges/mrr', _figure)}"
        for other, text in (("mlm", "`mlm`"), ("cloze", "`cloze`"))
    ]
    traced = ""
    if any("kt, sgns less mlm" in m for m in each.values()):
        figures = _sets(each, "kt, sgns less mlm", lambda m: _figure(m, 3))
        traced = f" In knowledge tracing (`kt`, a DKT on the vectors) skip-gram's AUC less that of `mlm` is {figures}."
    return (
        "In steps that take about equally long, next-token (`clm`), masked (`mlm`) and masked with every token asked "
        f"for (`cloze`) end so many nats above their floors: {'; '.join(ends)}. Edges MRR of `clm` less that of "
        f"{said[0]}; less that of {said[1]}.{traced}"
    )


def _traps(each: Each) -> str:
    ends, singles = [], []
    for data, m in each.items():
        end = f"{_figure(m['note'])} nat above the floor on `{data}`"
        if m["note"].value > STUCK:
            end += f", of which the library's defaults remove {100 * m['explained'].value:.0f} % in the same steps"
            own = {
                key.removeprefix("explained by "): figure
                for key, figure in m.items()
                if key.startswith("explained by ") and not key.endswith("steps")
            }
            best = max(own, key=lambda name: own[name].value, default="")
            if best:
                singles.append(f"*{best}* on `{data}` ({100 * own[best].value:.0f} %)")
        ends.append(end)
    single = f" The single change that removes most is {_listed(singles)}." if singles else ""
    return (
        f"The note's configuration ends {'; '.join(ends)}.{single} Adding token, type and position vectors instead of "
        f"concatenating them is {_sets(each, 'added', _change)}."
    )


_PLAIN: Mapping[str, Callable[[Each], str]] = {
    "far": _far,
    "order": _order,
    "weak": _weak,
    "objective": _objective,
    "traps": _traps,
}


def _plainly(results: Results, name: str) -> str:
    each = _each(results, name)
    return _PLAIN[name](each) if each else "It couldn't be judged on these data."


def _moral(results: Results) -> str:
    return (
        "A loss of 5–7 says nothing by itself: [floors.md](floors.md) shows that a perfect model of such walks has "
        "one. What counts is the excess over the floor, and the verdicts rest on it and on what the vectors are worth."
    )


# ------------------------------------------------------------------------------------------------------------ sections


def _section(results: Results, name: str, judged: tuple[Verdict, Mapping[str, Verdict]], drawn: bool) -> str:
    over, each = judged
    found = results["found"][name]
    verdict = _short(over)
    parts = [f"## {TITLES[name]}", f"*{CONJECTURES[name].claim}*", f"**{verdict[0].upper()}{verdict[1:]}.**"]
    lines = [
        f"- `{data}`{half and f', {half}'}: *{one.text}*: {one.because}."
        for data, verdict in each.items()
        for half, one in verdict.parts or (("", verdict),)
    ]
    lines += [f"- `{data}`: not judged: {got['why']}" for data, got in found.items() if "why" in got]
    parts.append("\n".join(lines))
    if drawn:
        title, unit, _ = CHARTS[name]
        parts.append(f"![{title}, {unit}](study/{name}.svg)")
    parts += [_measures(results, name), _cells(found)]
    return "\n\n".join(part for part in parts if part)


def _measures(results: Results, name: str) -> str:
    each = _each(results, name)
    if not each:
        return ""
    keys = list(dict.fromkeys(key for m in each.values() for key in m))
    rows = [[LABELS.get(key, key), *(str(m[key]) if key in m else "–" for m in each.values())] for key in keys]
    return markdown_table(["figure", *each], rows, 1)


def _cells(found: Mapping[str, Any]) -> str:
    every = [row for got in found.values() for row in got["cells"].values()]
    keys = [key for key in SCORES if any(key in row.get("scores", {}) for row in every) or key in list(SCORES)[:3]]
    titles = ["data", "cell", "seeds", "loss", "excess", *(SCORES[key] for key in keys), "seconds"]
    rows = []
    for data, got in found.items():
        for cell, row in got["cells"].items():
            if "error" in row:
                rows.append([data, f"{cell}: {row['error']}", *["–"] * (len(titles) - 2)])
            elif "scores" in row:
                numbers = [row.get("loss"), row.get("excess"), *(row["scores"].get(key) for key in keys)]
                shown = ["–" if x is None else f"{x:.3f}" for x in numbers]
                rows.append([data, cell, str(row["seeds"]), *shown, f"{row['seconds']:.0f}"])
    return markdown_table(titles, rows, 2) if rows else ""


def _manner(results: Results) -> str:
    steps, seeds = results["settings"]["steps"], results["settings"]["seeds"]
    return (
        "## How to read it\n\n"
        f"- Skip-gram has {seeds} seeds, every language model one ({steps:,} steps of a masked model; the others take "
        "the steps that took equally long on a bank, `EQUAL_COMPUTE`; the tables give the seconds that each took "
        "here). Intervals of language models say how sure a difference is on these held-out walks, edges, questions "
        "and students, not what another seed would do.\n"
        "- Rules and thresholds were fixed before any bank was run: "
        "[decisions/0701](decisions/0701-verdict-rules.md). `loss` figures are differences of held-out loss in nats "
        "(ours less theirs: above 0 is worse), all others of scores (above 0 is better). Brackets are 95 % intervals; "
        "figures without them are exact, or plain readings.\n"
        "- `excess` is the held-out loss above the exact floor; shuffled walks, ordered skip-gram, sessions and `rtd` "
        "have no floor, and walks that are only judged by tracing aren't read against theirs.\n"
        f"- To repeat it: `qcq study --size {results['size']}` with `--data` for each data set; finished cells are "
        "kept, so a study that was stopped goes on where it stood."
    )


# ------------------------------------------------------------------------------------------------------------ drawings


def _fading(cells: Mapping[str, Any]) -> Rows:
    apart = cells["law of qcq"]["above_components"]
    return [(f"{k} apart", Measured(apart[k - 1])) for k in (1, 2, 3, 5, 10, 20, 40) if k <= len(apart)]


def _excesses(cells: Mapping[str, Any]) -> Rows:
    return [
        (name, Measured(row["excess"], row["excess"] - 1.96 * row["se"], row["excess"] + 1.96 * row["se"]))
        for name, row in cells.items()
        if row.get("excess") is not None and not name.startswith("sgns")
    ]


def _positions(cells: Mapping[str, Any]) -> Rows:
    return [row for row in _excesses(cells) if row[0].startswith("mlm")]


CHARTS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], Rows]]] = {
    "far": ("Mutual information of two questions of a walk beyond their component", "nats, exact", _fading),
    "order": ("Excess over the floor by what the model knows of positions", "nats", _positions),
    "weak": ("Excess over the floor by loss", "nats", _excesses),
    "objective": ("Excess over each objective's own floor", "nats", _excesses),
    "traps": ("Excess over the floor: the note's configuration, one change at a time", "nats", _excesses),
}


def drawings(results: Results) -> dict[str, str]:
    """The figures as SVG, by experiment. Drawn here and not in a browser: a study needs none, and the same results give
    the same bytes."""
    out = {}
    for name, (title, unit, rows) in CHARTS.items():
        panels = {data: rows(got["cells"]) for data, got in results["found"].get(name, {}).items() if "measures" in got}
        if any(panels.values()):
            out[name] = dots(title, unit, panels)
    return out


def dots(title: str, unit: str, panels: Mapping[str, Rows]) -> str:
    """Figures as dots on a common scale from 0, intervals as lines, a panel a data set.

    Examples
    --------
    >>> dots("t", "nats", {"a": [("x", Measured(1.0, 0.5, 1.5))]}).count("<circle")
    1
    """
    ends = [x for rows in panels.values() for _, m in rows for x in (m.value, m.low, m.high) if x is not None]
    least, most = min(0.0, *ends), max(1e-9, *ends)
    left, wide, line = 190, 480, 22
    height = 34 + sum(26 + line * len(rows) for rows in panels.values()) + 8

    def across(x: float) -> float:
        return round(left + (x - least) / (most - least) * wide, 1)

    said = html.escape(f"{title} ({unit})")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img" aria-label="{said}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="760" height="{height}" fill="#FFFFFF"/>',
        f'<text x="12" y="22" font-weight="bold" fill="{DARK}">{said}</text>',
    ]
    y = 34
    for data, rows in panels.items():
        out.append(f'<text x="12" y="{y + 17}" fill="{DARK}" font-style="italic">{html.escape(data)}</text>')
        y += 26
        zero = across(0.0)
        out.append(f'<line x1="{zero}" x2="{zero}" y1="{y}" y2="{y + line * len(rows)}" stroke="{GREY}"/>')
        for label, m in rows:
            middle, x = y + line // 2, across(m.value)
            out.append(
                f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end" fill="{DARK}">{html.escape(label)}</text>'
            )
            if m.low is not None and m.high is not None:
                low, high = across(m.low), across(m.high)
                out.append(
                    f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="{BLUE}" stroke-width="2"/>'
                )
            out.append(f'<circle cx="{x}" cy="{middle}" r="4.5" fill="{BLUE}"/>')
            out.append(f'<text x="{left + wide + 16}" y="{middle + 4}" fill="{DARK}">{m.value:.3f}</text>')
            y += line
    return "\n".join([*out, "</svg>"]) + "\n"
