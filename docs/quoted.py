"""Every number of a page comes from a results file: this command writes them, a test compares.

A page names the place of a number in a comment, which a reader of the page doesn't see. FILE is a report or JSON in
``docs/results``, or the number of a decision. Of a report, the rows of all tables are read, and its lists. A comparison
has the columns ``line`` and ``difference``; a line of facts ("17,737 questions, 123 concepts") has ``fact`` and a
column for each noun. Of JSON, every object is a row. A row is found by cells (``word``, ``column=word``, ``~text in a
cell``), a value by its column.

    0.776<!--s2kt_assist09.md: skipgram :: edges mrr-->                 a value, with the decimals that the page shows
    0.004 [0.001, 0.007]<!--FILE: ~ppmi-svd beats :: difference-->      with its interval
    <!--rows s2kt_assist09.md: skipgram; svd :: trainer; edges mrr-->   a table: rows that have one of the cells
    <!--rows typed_simulated.json: row=qcq :: row; unseen .3-->         a column of JSON with three decimals
    <!--lines s2kt_assist09.md: skipgram on qcq beats-->               lines of the file's lists
    <!--end-->                                                         where a table or lines end

A decision is a record of its day. It may hold figures that no results file has, if it says where they come from: a
paragraph that begins with ``Figures:`` below each table of them, and at least one where the prose has some. It names a
command, or says that the figures were taken once with a script (a run, code) that was not kept, or are arithmetic.

    python docs/quoted.py            writes every number anew
    python docs/quoted.py --check    names those that differ, and digits that come from nowhere
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
DECISIONS = ROOT / "docs" / "decisions"
# Pages that a command makes, and measured reports, are sources, not users, of numbers.
MADE = {"checks.md", "licences.md", "study.md", "tests_read.md"}

NUMBER = r"[-+−]?\d[\d,]*(?:\.\d+)?"
SHOWN = rf"{NUMBER}(?: ± {NUMBER})?(?: \[{NUMBER}, {NUMBER}\])?"
VALUE = re.compile(rf"({SHOWN})<!--([\w.]+): ([^>]*?):: ([^>]*?)-->")
BLOCK = re.compile(r"(<!--(rows|lines) ([\w.]+): ([^>]*?)-->\n)(.*?)(<!--end-->)", flags=re.DOTALL)
# Tables of docs/data.md that code writes or a test of their own holds.
HELD = r"<!-- (?:python docs/catalogue\.py|KNOWN in tests/test_readers\.py) -->.*?<!-- end -->"
# Digits that need no source: a confidence level, a version, a year, a reference, a name that holds a digit.
FREE = re.compile(
    r"95 %|\b\d+\.\d+\.\d+\b"
    r"|\b(?:19|20)\d\d(?:[-–]\d\d(?:\d\d)?)?\b|\bPython 3\.\d+(?:(?:,? | to | and | or )3\.\d+)*\b"
    r"|arXiv \d{4}\.\d+|#\d+"
    r"|[A-Za-z@_]+[-.]?\d[\w.]*|\b\d+[A-Za-z][\w-]*"
)


# What the paragraph "Figures:" of a decision may say.
ORIGINS = re.compile(
    r"with (?:a script|a run|code) that was not kept|\bread once in the registry\b|\barithmetic\b"
    r"|`[^`]*(?:\.py|\bqcq \w+)[^`]*`"
)
SCRIPT = re.compile(r"\b(?:\w+/)+\w+\.py\b")


class SourceError(Exception):
    """A comment that names no value, or several that differ."""


@cache
def rows(name: str) -> list[dict[str, str | float]]:
    """The rows of a results file: column → value."""
    path = _path(name)
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"))  # a decision may be drawn from others
    if path.suffix == ".json":
        return list(_objects(json.loads(text), {}))
    found: list[dict[str, str | float]] = []
    heading = ""
    titles: list[str] = []
    for line in text.splitlines():
        heading = line.lstrip("# ") if line.startswith("#") else heading
        if line.startswith("- "):
            found += _listed(line[2:])
        if not line.startswith("|"):
            titles = []
            continue
        cells = [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]
        if not titles:
            titles = cells
        elif not set(line) <= set("|-: "):
            found.append({"section": heading, **dict(zip(titles, cells, strict=True))})
    return found


def _path(name: str) -> Path:
    found = sorted(DECISIONS.glob(f"{name}-*.md")) if name.isdigit() else [RESULTS / name]
    if len(found) != 1 or not found[0].is_file():
        raise SourceError(f"there is no docs/results/{name}")
    return found[0]


def _listed(line: str) -> Iterator[dict[str, str | float]]:
    """A line of a report's list: a comparison, or facts."""
    compared = re.search(rf"^(.*?)(?:: | by )({NUMBER} \[{NUMBER}, {NUMBER}\])$", line)
    if compared:
        yield {"line": compared[1], "difference": compared[2]}
    else:
        yield {"fact": line, **{noun: number for number, noun in re.findall(rf"({NUMBER}) ([a-z]+)", line)}}


def _objects(value: Any, above: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document as a flat row; it takes over the plain fields of the objects around it.

    Objects inside others also have ``in``, their key, and ``path``, all keys ("found/weak/"). Item 1 of a list "a" of
    numbers is the column "a 1". A column "a" with a standard deviation "a_sd" holds both, "0.15 ± 0.01". An object with
    ``value``, ``low`` and ``high`` has the column ``interval``, "0.3 [0.1, 0.5]".
    """
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, above)
    elif isinstance(value, dict):
        plain = {**above, **{key: each for key, each in value.items() if not isinstance(each, dict | list)}}
        plain |= {key: f"{plain[key]} ± {plain[f'{key}_sd']}" for key in value if f"{key}_sd" in value}
        if {"value", "low", "high"} <= value.keys():
            plain["interval"] = f"{plain['value']} [{plain['low']}, {plain['high']}]"
        inner = [each for each in value.values() if isinstance(each, dict | list)]
        for key, each in value.items():
            if isinstance(each, list):
                plain |= {f"{key} {i}": x for i, x in enumerate(each, start=1) if isinstance(x, int | float)}
        yield plain
        for key, each in value.items():
            if isinstance(each, dict):
                yield from _objects(each, {**plain, "in": key, "path": f"{plain.get('path', '')}{key}/"})
            elif isinstance(each, list) and inner:
                yield from _objects(each, plain)


def _holds(row: dict[str, str | float], words: str) -> bool:
    """Whether each of the words, divided by commas, is a cell of the row or ``column=cell``."""
    for word in filter(None, (each.strip() for each in words.split(","))):
        column, _, wanted = word.rpartition("=")
        cells = [str(cell) for cell in ([row.get(column)] if column else row.values())]
        if not (any(wanted[1:] in cell for cell in cells) if wanted.startswith("~") else wanted in cells):
            return False
    return True


def value(name: str, words: str, column: str, shown: str) -> str:
    """The value at a place, written with as many decimals as ``shown`` has.

    Raises
    ------
    SourceError : no row holds the words, or several do and differ.
    """
    found = {str(row[column]) for row in rows(name) if column in row and _holds(row, words)}
    if len(found) != 1:
        raise SourceError(f"{name}: {words} :: {column}: {len(found)} values: {sorted(found)[:4]}")
    numbers = iter(re.findall(rf"{NUMBER}(?:e-?\d+)?", found.pop()))
    try:
        return re.sub(NUMBER, lambda m: _written(float(next(numbers).replace(",", "").replace("−", "-")), m[0]), shown)
    except StopIteration:
        raise SourceError(f"{name}: {words} :: {column} holds fewer numbers than the page shows") from None


def _written(number: float, shown: str) -> str:
    """A number in the form in which the page shows it: its decimals, its sign, its thousands."""
    sign = "+" if shown.startswith("+") else ""
    thousands = "," if abs(number) >= 1e4 or "," in shown else ""
    return f"{number:{sign}{thousands}.{len(shown.partition('.')[2])}f}"


def table(name: str, given: str) -> str:
    """Rows of a file as a table; ``given`` is "cells; cells :: column; column"."""
    words, _, columns = given.partition("::")
    asked = [each.strip() for each in columns.split(";")]
    decimals = {re.sub(r" \.\d$", "", each): re.findall(r" \.(\d)$", each) for each in asked}
    wanted = list(decimals)
    picked: list[list[str]] = []
    for each in words.split(";"):
        having = [row for row in rows(name) if _holds(row, each) and set(wanted) <= set(row)]
        hits = [[_cell(row[column], *decimals[column]) for column in wanted] for row in having]
        if not hits:
            raise SourceError(f"{name}: no row with {each.strip()!r} has the columns {wanted}")
        for hit in hits:  # objects inside a row repeat it
            if hit not in picked:
                picked.append(hit)
    numeric = [all(re.match(rf"{NUMBER}|–$", row[i]) for row in picked) for i in range(len(wanted))]
    rule = ["---:" if right else "---" for right in numeric]
    return "".join("| " + " | ".join(row) + " |\n" for row in (wanted, rule, *picked))


def _cell(cell: Any, decimals: str = "") -> str:
    if cell is None:
        return "–"
    if decimals:
        return re.sub(rf"{NUMBER}(?:e-?\d+)?", lambda m: f"{float(m[0]):.{decimals}f}", str(cell))
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else re.sub(r"(?<!\\)\*", r"\\*", str(cell))


def lines(name: str, words: str) -> str:
    """Lines of a report's lists that hold one of the texts, which semicolons divide."""
    listed = [line for line in _path(name).read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    found = [line for each in words.split(";") for line in listed if each.strip() in line]
    if not found:
        raise SourceError(f"{name}: no line with {words!r}")
    return "\n".join(dict.fromkeys(found)) + "\n"


def drawn(text: str) -> str:
    """A page with every number written anew from its source."""
    makers = {"rows": table, "lines": lines}
    text = BLOCK.sub(lambda m: m[1] + makers[m[2]](m[3], m[4]) + m[6], text)
    return VALUE.sub(lambda m: f"{value(m[2], m[3], m[4], m[1])}{m[0][len(m[1]) :]}", text)


def loose(text: str) -> list[tuple[int, str]]:
    """Line and text of the digits in a page's prose and tables that come from no source."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])  # lines keep their numbers

    for pattern in (r"```.*?```", r"<!--(?:rows|lines) .*?<!--end-->", HELD):
        text = re.sub(pattern, blank, text, flags=re.DOTALL)
    for pattern in (
        VALUE.pattern,
        r"<!--.*?-->",
        r"`[^`\n]*`",
        r"\]\([^)]*\)",
        r"\[\d{4}\]?",
        r"^\s*\d+\. ",
        FREE.pattern,
    ):
        text = re.sub(pattern, blank, text, flags=re.MULTILINE)
    return [(at, hit) for at, line in enumerate(text.splitlines(), start=1) for hit in re.findall(NUMBER, line)]


def unexplained(text: str) -> list[tuple[int, str]]:
    """Line and text of the figures of a decision that come from no results file, and of which it doesn't say more."""
    lines = text.splitlines()
    said = {at: _paragraph(lines, at) for at, line in enumerate(lines) if line.startswith("Figures: ")}
    found = [(at + 1, what) for at, what in said.items() if not _origin(what)]
    for at, hit in loose(text):
        if _in_table(lines[at - 1]):
            below = next((i for i in range(at, len(lines)) if lines[i] and not _in_table(lines[i])), None)
            if below not in said:
                found.append((at, hit))
        elif not said and re.search(r"\d[.,]\d", hit):
            found.append((at, hit))
    return sorted(found)


def _in_table(line: str) -> bool:
    return line.lstrip().startswith("|")


def _paragraph(lines: list[str], at: int) -> str:
    end = next((i for i in range(at, len(lines)) if not lines[i]), len(lines))
    return " ".join(lines[at:end])


def _origin(said: str) -> bool:
    """Whether a paragraph names an origin, and every script that it names exists."""
    return bool(ORIGINS.search(said)) and all((ROOT / path).is_file() for path in SCRIPT.findall(said))


def decisions() -> list[Path]:
    """The decisions, whose figures may have other origins."""
    return sorted(DECISIONS.glob("*.md"))


def pages() -> list[Path]:
    """The pages whose numbers all come from results files."""
    return [ROOT / "README.md", ROOT / "README.zh.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if _uses(p))]


def _uses(path: Path) -> bool:
    return path.name not in MADE and not {"results", "decisions"} & {part.name for part in path.parents}


def main() -> int:
    """Write the numbers, or say which differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, faults = parser.parse_args().check, 0
    for page in [*decisions(), *pages()]:  # pages quote decisions
        text = page.read_text(encoding="utf-8")
        try:
            made = drawn(text)
        except SourceError as error:
            print(f"{page.relative_to(ROOT)}: {error}")
            faults += 1
            continue
        if made != text and check:
            print(f"{page.relative_to(ROOT)}: differs from the results; run python docs/quoted.py")
            faults += 1
        elif made != text:
            page.write_text(made, encoding="utf-8")
        if check:
            for line, hit in (unexplained if page.parent == DECISIONS else loose)(made):
                print(f"{page.relative_to(ROOT)}:{line}: {hit} has no origin")
                faults += 1
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
