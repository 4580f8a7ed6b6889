"""The page of a study: a table of verdicts, then figures and tables of each conjecture, made from ``study.json``."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcq.study.conjectures import (
    ALL,
    CONJECTURES,
    COUNTS,
    COUNTS_AUC,
    EQUAL,
    EXPLAINS,
    EXPLAINS_NOTHING,
    FADED,
    REVERSIBLE,
    STUCK,
    Measured,
    Verdict,
    verdicts,
)
from qcq.study.experiments import SIZES
from qcq.support.files import from_json, write_text
from qcq.support.markdown import code, plain, plain_table
from qcq.support.terminal import markdown_table

Results = Mapping[str, Any]
Figures = Mapping[str, Measured]
Rows = Sequence[tuple[str, Measured]]

TITLES = {
    "far": "1. Far-apart questions",
    "order": "2. Order, and a limited path",
    "weak": "3. Weak relations, negatives against softmax",
    "objective": "4. Masked or next-token",
    "traps": "5. Traps, and adding vectors",
}
SCORES = {"edges/mrr": "edges MRR", "difficulty/r2": "difficulty R²", "kt-fast/auc": "kt-fast AUC", "kt/auc": "kt AUC"}
# Names of figures: whole, or by their beginning ("gain difficulty"); what follows a beginning is kept.
LABELS = {
    "near": "told by the two nearest tokens, share of what all tell",
    "fading": "left five steps apart, share of what neighbours have",
    "widest window ": "widest window − narrowest, ",
    "longest walks ": "longest walks − shortest, ",
    "attention within 2, local": "share of attention within two steps, bias started at the neighbours",
    "attention within 2, relative": "share of attention within two steps, bias started at 0",
    "direction": "loss by reading backwards, exact, nats a token",
    "exchangeable": "share of exchangeable questions, training graph",
    "gain ": "AUC, richer walk − qcq: ",
    "place": "loss, no positions − bias started at the neighbours",
    "place, absolute": "loss, absolute positions − bias started at the neighbours",
    "place, relative": "loss, bias started at 0 − bias started at the neighbours",
    "shuffled walks ": "sgns, shuffled walks − walks, ",
    "ordered session ": "sgns on sessions, ordered − not, ",
    "ordered ": "sgns, ordered − not, ",
    "mlm on shuffled walks ": "mlm, shuffled walks − walks, ",
    "backwards, ": "loss of clm, backwards − forwards, ",
    "shuffled session": "loss of mlm, shuffled sessions − sessions",
    "information a step": "mutual information of a step, training graph, nats",
    "share of the entropy": "the same, share of the entropy of a question",
    "above components": "the same, minus that of the component, nats",
    "vectors": "score, negative sampling − full softmax",
    "loss": "loss, negative sampling − full softmax",
    "gbce, ": "gBCE − full softmax, ",
    "sampled softmax, ": "sampled softmax − full softmax, ",
    "clm-": "clm − ",
    "kt, ": "kt AUC, ",
    "note": "excess of the note's configuration",
    "explained": "share of it removed by the defaults",
    "explained by ": "share of it removed by ",
    "one walk a question, excess": "excess of the note's configuration, one walk a question",
    "added": "loss, vectors added − concatenated",
}
# What a section's figures are; a paragraph each.
EXPLAINED = {
    "far": "Mutual information is exact, and what the component alone tells is left out ([floors](floors.md)). "
    "On a walk without memory the two nearest neighbours tell all that the other tokens tell. "
    "The other figures ask whether a model uses more: skip-gram with wider windows and longer walks, "
    "`mlm` that sees only the nearest tokens, and where `mlm` attends.",
    "order": "`none`, `absolute` and `relative` are other positions of the same `mlm`, whose default is a relative "
    "bias that starts at the neighbours. A richer walk is compared by skip-gram's vectors: one without answers in "
    "`kt-fast`, one made of answers in `kt`, with one seed. "
    "*Shuffled* walks have the same tokens in random order. *Ordered* skip-gram tells left from right. "
    "*Session* walks are answers of students in their true order.",
    "weak": "The same masked Transformer is trained with four losses, in equal steps. Whether the relations are "
    "weaker than between words isn't decided: no text was large enough to bound its mutual information.",
    "objective": "Steps are chosen to take about equally long. A pair is won by the side that is ahead in one score "
    "and behind in none. The task `kt` was added after the rule, so no verdict uses it. "
    "The excesses are not on one scale.",
    "traps": "The note's configuration is in `experiments/note.toml`. The defaults, and one change at a time, have "
    "the same number of steps, except for *twice the steps*. A negative share means that a change adds to the excess.",
}
# The picture follows the reader's colour scheme, also inside <img>.
STYLE = """<style>
  .ground { fill: #ffffff } text { fill: #333333 } .axis { stroke: #b0b0b0 }
  circle { fill: #0072b2 } .interval { stroke: #0072b2; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .axis { stroke: #656c76 }
    circle { fill: #56b4e9 } .interval { stroke: #56b4e9 }
  }
</style>"""


@dataclass(frozen=True)
class Decision:
    """A row of the table of verdicts: a conjecture, or half of one.

    Attributes
    ----------
    claim : what is claimed.
    figure : what decides, in words.
    rule : of the verdict, in short.
    shown : the deciding figures of a data set.
    """

    claim: str
    figure: str
    rule: str
    shown: Callable[[Figures], str]


def _both(*keys: str) -> Callable[[Figures], str]:
    return lambda m: "; ".join(str(m[key]) for key in keys if key in m)


def _best_gain(m: Figures) -> str:
    gains = {key.removeprefix("gain "): figure for key, figure in m.items() if key.startswith("gain ")}
    best = max(gains, key=lambda name: gains[name].value, default="")
    return f"{gains[best]} ({best})" if best else "–"


def _surest(m: Figures) -> str:
    """Of each pair the score whose interval is furthest from 0, in half-widths of the interval."""

    def width(key: str) -> float:
        figure = m[key]
        reach = 0.0 if figure.low is None or figure.high is None else (figure.high - figure.low) / 2
        return abs(figure.value) / max(reach, 1e-9)

    said = []
    for pair in ("clm-mlm ", "clm-cloze "):
        keys = [key for key in m if key.startswith(pair)]
        said += [f"{SCORES.get(key.removeprefix(pair), key)} {m[key]}" for key in sorted(keys, key=width)[-1:]]
    return "; ".join(said)


# By conjecture and half; "" for a conjecture that is one.
DECISIONS: Mapping[tuple[str, str], Decision] = {
    ("far", ""): Decision(
        "1. Far-apart questions in a walk are barely related",
        "share told by the two nearest tokens; share left five steps apart",
        f"supported: first at least {ALL}, second at most {FADED}; refuted: neither; else depends",
        _both("near", "fading"),
    ),
    ("order", "no order"): Decision(
        "2. There is no positional order",
        "loss by reading backwards; loss without positions, nats",
        f"first above {REVERSIBLE}: refuted; else the second's interval above {EQUAL}: depends, below: supported",
        _both("direction", "place"),
    ),
    ("order", "limited path"): Decision(
        "2. Question–concept–question is a limited path",
        "AUC of the best richer walk − that of qcq",
        f"supported: an interval above 0; refuted: all below {COUNTS_AUC}; else more data",
        _best_gain,
    ),
    ("weak", ""): Decision(
        "3. Skip-gram gains by negatives instead of a softmax",
        "negatives − softmax in one Transformer: score; loss, nats",
        f"supported: score above 0, loss not above {EQUAL}; refuted: score below {COUNTS}, loss not below -{EQUAL}; "
        "else depends",
        _both("vectors", "loss"),
    ),
    ("objective", ""): Decision(
        "4. Masked or next-token: it matters which",
        "clm − mlm; clm − cloze: of each pair the surest score (below 0: masked is ahead)",
        "supported: one side wins both pairs; "
        f"refuted: no pair is won, all within {COUNTS} ({COUNTS_AUC} of AUC) of 0; else depends",
        _surest,
    ),
    ("traps", "traps"): Decision(
        "5. Traps of training explain the note",
        "excess of the note's configuration, nats; share that the defaults remove",
        f"first at most {STUCK}: refuted; else the second's interval above {EXPLAINS}: supported, "
        f"below {EXPLAINS_NOTHING}: refuted; else depends",
        _both("note", "explained"),
    ),
    ("traps", "adding"): Decision(
        "5. Token, type and position vectors may be added",
        "loss, added − concatenated, nats",
        f"interval below {EQUAL}: supported; above: refuted; across: more data",
        _both("added"),
    ),
}


def write_study(results: Results | str | Path, folder: str | Path) -> Path:
    """Write ``study.md`` and its figures (``study/*.svg``) into ``folder``.

    Parameters
    ----------
    results : what ``study.json`` holds, or the path of one.
    folder : where the page goes.
    """
    held = from_json(Path(results).read_text(encoding="utf-8")) if isinstance(results, (str, Path)) else results
    folder = Path(folder)
    drawn = drawings(held)
    for name, drawing in drawn.items():
        write_text(folder / "study" / f"{name}.svg", drawing)
    write_text(folder / "study.md", page(held))
    for name in CHARTS:  # last: the earlier page shows the figures of another study
        if name not in drawn:
            (folder / "study" / f"{name}.svg").unlink(missing_ok=True)
    return folder / "study.md"


def page(results: Results) -> str:
    """The whole page as Markdown."""
    names = [name for name in CONJECTURES if name in results["found"]]
    drawn = drawings(results)
    parts = [
        "# Why did the Transformer lose to skip-gram?",
        "<!-- Made by qcq.study.page.write_study from the results of qcq study; a test holds the two together. -->",
        "This page decides five conjectures, each by an experiment and a rule. The rules were written before the "
        "medium study was run ([decision](decisions/0701-verdict-rules.md)). By then we knew the mutual "
        "information of ASSISTments, one comparison of objectives and one of training steps. After that a shorter run "
        "was stopped, and the study was made again without duplicate students.",
        "A practitioner had trained a one-layer BERT on question–concept–question walks. Its loss stayed at five to "
        "seven nats, and its vectors lost to skip-gram's. His note gave four guesses and a question.",
        _ran(results),
        *_withdrawn(results),
        "## Verdicts",
        _table(results, names),
        _manner(results),
        *(_section(results, name, name in drawn) for name in names),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ran(results: Results) -> str:
    counts = ("questions", "concepts", "responses")
    rows = [[name, *(f"{about[key]:,}" for key in counts)] for name, about in results["data"].items()]
    parts = []
    if results["size"] in SIZES:
        given = "".join(" --data DIR" for name in results["data"] if name != "simulated")
        parts.append(f"```console\n$ qcq study --size {results['size']}{given}\n```")
    parts.append(plain_table(["data", *counts], rows, 1))
    if list(results["data"]) == ["simulated"]:
        parts.append("**This is the simulated classroom alone: no real question bank has been run yet.**")
    return "\n\n".join(parts)


def _withdrawn(results: Results) -> Iterator[str]:
    """What was withdrawn later: written into the results by hand under ``remarks``, as notes for the reader are."""
    rows = [[one["said"], one["why"], one["instead"]] for one in _remarks(results, "withdrawn")]
    if rows:
        yield "## Withdrawn"
        yield markdown_table(["what was said", "why it is withdrawn", "what is known"], rows, 3)


def _remarks(results: Results, kind: str) -> list[Any]:
    return list(results.get("remarks", {}).get(kind, []))


def _table(results: Results, names: Sequence[str]) -> str:
    """The verdicts: a row a conjecture or half, a column a data set."""
    marks = {(one["conjecture"], one["of"]): one["mark"] for one in _remarks(results, "withdrawn")}
    rows = []
    for (name, half), decision in DECISIONS.items():
        if name not in names:
            continue
        judged, each = verdicts(results["found"][name], name)[1], _each(results, name)
        mark = f" ({marks[name, half]})" if (name, half) in marks else ""
        cells = [
            f"**{_half(judged[data], half).text}**{mark}: {decision.shown(each[data])}"
            if data in judged
            else "not judged"
            for data in results["data"]
        ]
        rows.append([decision.claim, *cells, decision.figure, decision.rule])
    titles = ["conjecture", *map(plain, results["data"]), "deciding figures", "rule"]
    return markdown_table(titles, rows, len(titles))


def _half(verdict: Verdict, half: str) -> Verdict:
    return dict(verdict.parts)[half] if half else verdict


def _each(results: Results, name: str) -> dict[str, dict[str, Measured]]:
    return {
        data: {key: Measured(**m) for key, m in found["measures"].items()}
        for data, found in results["found"].get(name, {}).items()
        if "measures" in found
    }


def _label(key: str) -> str:
    """A figure's name on the page."""
    begins = [begin for begin in LABELS if begin.endswith((" ", "-")) and key.startswith(begin)]
    if key in LABELS:
        text = LABELS[key]
    elif begins:
        longest = max(begins, key=len)
        text = LABELS[longest] + key.removeprefix(longest)
    else:
        text = key
    for score, shown in SCORES.items():
        text = text.replace(score, shown)
    return text.replace(" less ", " − ")


def _manner(results: Results) -> str:
    steps, seeds = results["settings"]["steps"], results["settings"]["seeds"]
    rows = [row for found in results["found"].values() for got in found.values() for row in got["cells"].values()]
    words = [row["verdict"] for row in rows if "verdict" in row]
    lines = [
        f"Language models have one seed. `mlm` has {steps:,} steps, the others have those that took about equally "
        f"long (`EQUAL_COMPUTE`). Skip-gram has {seeds} seeds.",
        "Brackets are 95 % intervals over held-out walks, edges, questions or students. They say nothing about other "
        "seeds of a language model. Figures without them are exact, or counted.",
        "Losses are held-out losses in nats; a difference above 0 means a worse loss. Scores are better when higher.",
        "An interval that contains zero means *not told apart*, not equal.",
        "Differences of losses, and shares, are means over walks. Tables of models have means over predicted tokens, "
        "so the two do not match exactly. The excess of `sgns` in a list of figures is that of its first seed.",
        "A dash means that the section did not measure it.",
        f"Of the {len(words)} rows below that have a floor, {words.count('under-trained')} are `under-trained`. "
        "A loss of five to seven nats says nothing by itself; excess is the loss above the exact floor.",
        "An excess is the distance of one model from its own floor. Excesses of two objectives (sections 3 and 4) are "
        "not on one scale. The floor is that of the training graph, on the first 400 held-out walks "
        "([which floor is which](floors.md#which-floor-is-which)).",
        "Shuffled walks, ordered skip-gram, sessions and `rtd` have no floor. Richer walks are scored by tasks only.",
        *_remarks(results, "notes"),
    ]
    return "\n".join(f"- {line}" for line in lines)


# ------------------------------------------------------------------------------------------------------------ sections


def _section(results: Results, name: str, drawn: bool) -> str:
    found = results["found"][name]
    parts = [f"## {TITLES[name]}", f"*{CONJECTURES[name].claim}*", EXPLAINED[name]]
    parts.append(
        "\n".join(f"- {code(data)}: not judged: {plain(got['why'])}" for data, got in found.items() if "why" in got)
    )
    if drawn:
        title, unit, _ = CHARTS[name]
        parts.append(f"![{title}, {unit}](study/{name}.svg)")
    parts += [_measures(results, name), _cells(found)]
    return "\n\n".join(part for part in parts if part)


def _measures(results: Results, name: str) -> str:
    each = _each(results, name)
    if not each:
        return ""
    withdrawn = [one for one in _remarks(results, "withdrawn") if one["conjecture"] == name]
    marks = {key: one["mark"] for one in withdrawn for key in one["figures"]}
    keys = list(dict.fromkeys(key for m in each.values() for key in m))
    rows = [
        [
            _label(key) + (f" ({marks[key]})" if key in marks else ""),
            *(str(m[key]) if key in m else "–" for m in each.values()),
        ]
        for key in keys
    ]
    return markdown_table(["figure", *map(plain, each)], rows, 1)


def _cells(found: Mapping[str, Any]) -> str:
    every = [row for got in found.values() for row in got["cells"].values()]
    keys = [key for key in SCORES if any(key in row.get("scores", {}) for row in every)]
    titles = ["data", "model", "seeds", "loss", "excess", *(SCORES[key] for key in keys), "seconds"]
    rows = []
    for data, got in found.items():
        for cell, row in got["cells"].items():
            if "error" in row:
                rows.append([data, f"{cell}: {row['error']}", *["–"] * (len(titles) - 2)])
            elif "scores" in row:
                numbers = [row.get("loss"), row.get("excess"), *(row["scores"].get(key) for key in keys)]
                shown = ["–" if x is None else f"{x:.3f}" for x in numbers]
                rows.append([data, cell, str(row["seeds"]), *shown, f"{row['seconds']:.0f}"])
    return plain_table(titles, rows, 2) if rows else ""


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
        STYLE,
        f'<rect class="ground" width="760" height="{height}"/>',
        f'<text x="12" y="22" font-weight="bold">{said}</text>',
    ]
    y = 34
    for data, rows in panels.items():
        out.append(f'<text x="12" y="{y + 17}" font-style="italic">{html.escape(data)}</text>')
        y += 26
        zero = across(0.0)
        out.append(f'<line x1="{zero}" x2="{zero}" y1="{y}" y2="{y + line * len(rows)}" class="axis"/>')
        for label, m in rows:
            middle, x = y + line // 2, across(m.value)
            out.append(f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end">{html.escape(label)}</text>')
            if m.low is not None and m.high is not None:
                low, high = across(m.low), across(m.high)
                out.append(f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" class="interval"/>')
            out.append(f'<circle cx="{x}" cy="{middle}" r="4.5"/>')
            out.append(f'<text x="{left + wide + 16}" y="{middle + 4}">{m.value:.3f}</text>')
            y += line
    return "\n".join([*out, "</svg>"]) + "\n"
