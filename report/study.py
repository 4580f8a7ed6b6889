"""The page of a study: verdicts in plain words, figures, tables, all made from ``study.json``."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qcq.conjectures import CONJECTURES, EQUAL, Measured, Ruling, rulings
from qcq.report.markdown import markdown_table
from qcq.run import write

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
        write(folder / "study" / f"{name}.svg", drawing)
    write(folder / "study.md", page(held))
    return folder / "study.md"


def page(results: Results) -> str:
    """The whole page as Markdown."""
    names = [name for name in CONJECTURES if name in results["found"]]
    drawn = drawings(results)
    judged = {name: rulings(results["found"][name], name) for name in names}
    parts = [
        "# Why did the Transformer lose to skip-gram?",
        "<!-- Made by qcq.report.study from the results of qcq study; a test holds the two together. -->",
        "A practitioner trained a one-layer BERT on question–concept–question walks. Its loss stayed at 5–7 and its "
        "vectors lost to skip-gram's. He left four guesses and a question, and here each is an experiment with a "
        "verdict. "
        f"{_ran(results)}",
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


def _short(ruling: Ruling) -> str:
    """The verdict; of each half where they differ."""
    if ruling.word == "depends" and ruling.on.startswith("which half"):
        return "; ".join(f"{half}: {part.verdict}" for half, part in ruling.parts)
    return ruling.verdict


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
    shown = [f"{100 * v:.0f}" if percent else f"{v:.2f}" for v in (min(values), max(values))] if values else ["–", "–"]
    text = shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"
    return f"{text} %" if percent else text


def _on(each: Each, key: str, unit: str = "") -> str:
    """The figure with its interval on every data set that has it."""
    said = []
    for data, m in each.items():
        if key in m:
            f = m[key]
            ends = "" if f.low is None or f.high is None else f" [{f.low:.2f}, {f.high:.2f}]"
            said.append(f"{f.value:.2f}{unit and ' ' + unit}{ends} on `{data}`")
    return _listed(said) if said else "an amount that wasn't measured"


# ------------------------------------------------------------------------------------------------------ in plain words


def _far(each: Each) -> str:
    return (
        f"Five steps apart, {_span(each, 'fading', True)} of what neighbours share (beyond belonging to one "
        "component) is "
        "left, so far-apart questions can still be related. But the two nearest neighbours say "
        f"{_span(each, 'near', True)} of all that the other tokens say: on a walk without memory the rest is "
        "redundant, "
        "exactly. A Transformer has nothing to gain from looking far; it has to find its neighbours. Left to itself it "
        f"puts {_span(each, 'attention within 2, relative', True)} of its attention within two steps, "
        f"started at its neighbours {_span(each, 'attention within 2, local', True)}."
    )


def _order(each: Each) -> str:
    matters = all(m["place"].above(EQUAL) for m in each.values())
    return (
        f"Reading a q-c-q walk backwards costs {_span(each, 'direction')} nat: before and after mean nothing, as he "
        "said. "
        f"{'Near and far do' if matters else 'Whether near and far do depends'}: a masked model that isn't told where "
        f"tokens stand loses {_on(each, 'place', 'nat')} against one with a relative bias that starts at the "
        "neighbours, "
        f"and one with BERT's absolute positions {_on(each, 'place, absolute', 'nat')}. "
        f"The path is limited in another way: {_span(each, 'exchangeable', True)} of the questions share their "
        "concepts "
        "with another question, and no such walk tells those apart."
    )


def _weak(each: Each) -> str:
    return (
        f"One step of the walk tells {_span(each, 'information a step')} nats, "
        f"{_span(each, 'share of the entropy', True)} "
        "of all there is to know about a question. Whether that is weaker than between words isn't decided here: no "
        "text "
        "large enough was at hand. Skip-gram's negatives are no advantage in themselves if the same Transformer is no "
        f"better with them: with negative sampling instead of a softmax its vectors change by {_on(each, 'vectors')} "
        "and "
        f"its excess over the floor by {_on(each, 'loss', 'nat')}."
    )


def _objective(each: Each) -> str:
    said = [
        f"{text} {_on(each, f'clm-{other} edges/mrr')}" for other, text in (("mlm", "BERT's way"), ("cloze", "cloze"))
    ]
    return (
        "In equal time, next-token (`clm`) ends "
        f"{_span(each, 'excess of clm')} nat above its floor, masked (`mlm`) {_span(each, 'excess of mlm')}, `cloze`, "
        "which "
        f"is masked but asks for every token, {_span(each, 'excess of cloze')}. Edges MRR of `clm` less {said[0]}; "
        "less "
        f"{said[1]}."
    )


def _traps(each: Each) -> str:
    keys = dict.fromkeys(key for m in each.values() for key in m if key.startswith("explained by "))
    best = max(keys, key=lambda key: sum(m[key].value for m in each.values() if key in m), default="")
    single = (
        f" The single change that removes most is *{best.removeprefix('explained by ')}* ({_span(each, best, True)})."
    )
    return (
        f"The note's configuration ends {_span(each, 'note')} nat above the floor; the library's defaults remove "
        f"{_span(each, 'explained', True)} of that in the same steps.{single if best else ''} Adding token, type and "
        f"position vectors instead of concatenating them costs {_on(each, 'added', 'nat')}, in the same steps."
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
        "one. "
        "What counts is the excess over the floor, and the verdicts rest on it and on what the vectors are worth."
    )


# ------------------------------------------------------------------------------------------------------------ sections


def _section(results: Results, name: str, judged: tuple[Ruling, Mapping[str, Ruling]], drawn: bool) -> str:
    over, each = judged
    found = results["found"][name]
    verdict = _short(over)
    parts = [f"## {TITLES[name]}", f"*{CONJECTURES[name].claim}*", f"**{verdict[0].upper()}{verdict[1:]}.**"]
    lines = [
        f"- `{data}`{half and f', {half}'}: *{one.verdict}*: {one.because}."
        for data, ruling in each.items()
        for half, one in ruling.parts or (("", ruling),)
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
    titles = ["data", "cell", "seeds", "loss", "excess", *list(SCORES.values())[:3], "seconds"]
    rows = []
    for data, got in found.items():
        for cell, row in got["cells"].items():
            if "error" in row:
                rows.append([data, f"{cell}: {row['error']}", *["–"] * 7])
            elif "scores" in row:
                numbers = [row.get("loss"), row.get("excess"), *(row["scores"].get(key) for key in list(SCORES)[:3])]
                shown = ["–" if x is None else f"{x:.3f}" for x in numbers]
                rows.append([data, cell, str(row["seeds"]), *shown, f"{row['seconds']:.0f}"])
    return markdown_table(titles, rows, 2) if rows else ""


def _manner(results: Results) -> str:
    steps, seeds = results["settings"]["steps"], results["settings"]["seeds"]
    return (
        "## How to read it\n\n"
        f"- Skip-gram has {seeds} seeds, every language model one ({steps:,} steps of a masked model; the others take "
        "the "
        "steps that take equally long). Intervals of language models say how sure a difference is on these held-out "
        "walks, "
        "edges, questions and students, not what another seed would do.\n"
        "- Rules and thresholds were fixed before any bank was run: "
        "[decisions/0701](decisions/0701-verdict-rules.md). `loss` figures are differences of held-out loss in nats "
        "(ours "
        "less theirs: above 0 is worse), all others of scores (above 0 is better). Brackets are 95 % intervals; "
        "figures "
        "without them are exact, or plain readings.\n"
        "- `excess` is the held-out loss above the exact floor; shuffled walks, ordered skip-gram and sessions have no "
        "floor.\n"
        f"- To repeat it: `qcq study --size {results['size']}` with `--data` for each data set; finished cells are "
        "kept, so "
        "a study that was stopped goes on where it stood."
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


CHARTS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], Rows]]] = {
    "far": ("Mutual information of two questions of a walk beyond their component", "nats, exact", _fading),
    "order": ("Excess over the floor by what the model knows of positions", "nats", _excesses),
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
