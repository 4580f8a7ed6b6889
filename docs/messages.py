"""The checks of your own data, each with its message; and every error and note of the readers, from the code.

``python docs/messages.py`` writes docs/checks.md anew; a test holds page and code together.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from qcq.data import read
from qcq.data.checks import Doubt
from qcq.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "checks.md"
SOURCES = [*sorted((ROOT / "data").glob("*.py")), ROOT / "embeddings.py", ROOT / "support" / "vectors.py"]

BANK_FILE, LOG_FILE = "questions.csv", "interactions.csv"
BANK = "question,concept\nq1,halves\nq2,thirds\n"
LOG = "student,question,correct\n"
CHECKS: dict[str, dict[str, str]] = {
    "rows that repeat the one before": {BANK_FILE: BANK, LOG_FILE: LOG + "s1,q1,1\ns1,q1,1\ns1,q2,0\n"},
    "times that run backwards": {
        BANK_FILE: BANK,
        LOG_FILE: "student,question,correct,timestamp\ns1,q1,1,20\ns1,q2,0,10\n",
    },
    "times that tie": {BANK_FILE: BANK, LOG_FILE: "student,question,correct,timestamp\ns1,q1,1,20\ns1,q2,0,20\n"},
    "dates whose day and month can't be told apart": {
        BANK_FILE: BANK,
        LOG_FILE: "student,question,correct,timestamp\ns1,q1,1,01/03/2024\ns1,q2,0,02/03/2024\n",
    },
    "a cell that is no time": {
        BANK_FILE: BANK,
        LOG_FILE: "student,question,correct,timestamp\ns1,q1,1,2024-03-01\ns1,q2,0,2024-13-01\n",
    },
    "a column that was probably meant": {BANK_FILE: BANK, LOG_FILE: "student,question,correct,time\ns1,q1,1,20\n"},
    "columns that aren't read": {BANK_FILE: "question,concept,level\nq1,halves,3\n"},
    "a file that was probably meant": {BANK_FILE: BANK, "interaction.csv": LOG + "s1,q1,1\n"},
    "a log in one file": {"log.csv": "student,question,concept,correct\ns1,q1,halves,1\ns1,q2,thirds,0\n"},
    "words for an empty cell": {BANK_FILE: "question,concept\nq1,nan\nq2,-1\nq3,halves\n"},
    "several concepts in one cell": {BANK_FILE: "question,concept\nq1,halves;thirds\nq2,halves\n"},
    "another separator": {BANK_FILE: 'question,concepts\nq1,"halves,thirds"\nq2,halves\n'},
    "lists in a program's notation": {BANK_FILE: "question,concepts\nq1,\"['halves']\"\n"},
    "names that differ only in form": {BANK_FILE: "question,concept\nq1,Halves\nq2,halves\n"},
    "numbers that a spreadsheet has rounded": {BANK_FILE: "question,concept\n1.23457E+15,halves\n"},
    "a second heading": {BANK_FILE: "question,concept\nq1,halves\nquestion,concept\nq2,halves\n"},
    "two names for one thing": {BANK_FILE: "question,concept,name\nq1,halves,One\nq1,thirds,Two\n"},
    "an invisible character": {BANK_FILE: "question,concept\nq1,halves\nq2,halves\u200b\n"},
    "space around a name": {BANK_FILE: "question,concept\nq1,halves\nq2, halves\n"},
    "a usual heading": {BANK_FILE: "item,skill\nq1,halves\n"},
    "two headings for one column": {BANK_FILE: "item,problem_id,skill\nq1,7,halves\n"},
    "columns that are missing": {BANK_FILE: BANK, LOG_FILE: "student,answer\ns1,1\n"},
    "dates with points": {
        BANK_FILE: BANK,
        LOG_FILE: "student,question,correct,timestamp\ns1,q1,1,01.03.2024\ns1,q2,0,02.03.2024\n",
    },
    "a decimal comma": {BANK_FILE: 'question,concept,weight\nq1,halves,"0,5"\n'},
    "a comma that may be decimal or not": {BANK_FILE: 'question,concept,weight\nq1,halves,"1,250"\n'},
    "questions that aren't in the bank": {BANK_FILE: BANK, LOG_FILE: LOG + "s1,q1,1\ns1,q8,1\ns2,q9,0\n"},
    "answers that are neither right nor wrong": {BANK_FILE: BANK, LOG_FILE: LOG + "s1,q1,1\ns1,q2,0.5\ns2,q2,2\n"},
    "an edge with two weights": {BANK_FILE: "question,concept,weight\nq1,halves,1\nq1,halves,2\n"},
    "a row with a cell too few": {BANK_FILE: "question,concept\nq1,halves\nq2\nq3,halves\n"},
    "a file that isn't UTF-8": {BANK_FILE: "question,concept\nq1,Brüche\n"},
    "parents in a circle": {BANK_FILE: BANK, "concepts.csv": "concept,parent\nhalves,thirds\nthirds,halves\n"},
}


HEAD = """# Checks of your data

This page lists what `qcq` checks when it reads your own data, and every message of the readers. To check your files,
run

```console
$ qcq inspect --data csv:PATH
$ qcq inspect --data csv:PATH --strict
```

| what is found | what happens |
|---|---|
| surely wrong | an error; nothing is read |
| probably wrong | a note that begins with `doubtful:`; `--strict` (`read(..., strict=True)`) makes it an error |
| worth knowing | a note |

`qcq inspect` shows the doubtful notes first, and every report repeats them. Your own data (files, frames, graphs,
edges) is not repaired. What can mean one thing only is read so, with a note. Published formats are repaired where their
convention asks for it ([data](data.md)).

`python docs/messages.py` writes this page. The examples are small files that the command reads.

## Checks

| check | message for a small example |
|---|---|
"""
MIDDLE = """

## Every message

The messages of the readers of data and of vectors. In place of … the message has words that depend on the data. An
error names the file. It also names row, column and value if there is one.

| file | kind | message | what to do |
|---|---|---|---|
"""


class Message(NamedTuple):
    """One place in the code that can speak.

    Attributes
    ----------
    kind : ``error``, ``doubtful`` or ``note``.
    says, fix : its text, ``…`` where it depends on the data.
    where : whether it names a file, a row, a column or a value.
    """

    kind: str
    says: str
    fix: str
    where: bool
    file: str
    line: int


def _text(node: ast.expr | None, known: Mapping[str, ast.expr] = {}) -> str:
    """A text in the code, ``…`` for its parts that depend on the data; ``known`` are the values of local names."""
    if isinstance(node, ast.Name) and node.id in known:
        return _text(known[node.id])
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body)} / {_text(node.orelse)}"
    return "…"


def _spoken(call: ast.Call, known: Mapping[str, ast.expr]) -> tuple[str, str, str, bool] | None:
    """Kind, text, advice and place of a call that makes a message."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    given = {each.arg: each.value for each in call.keywords}
    args = call.args
    if name in ("DataError", "error", "doubt") and args:
        kind = "doubtful" if name == "doubt" else "error"
        placed = name == "error" or bool({"file", "value"} & set(given))
        return kind, _text(args[0], known), _text(given.get("fix"), known), placed
    if name == "reject" and len(args) > 2:
        return "error", _text(args[1], known), _text(args[3] if len(args) > 3 else given.get("fix"), known), True
    if name in ("EmbeddingError", "GraphError") and args:
        says, _, fix = _text(args[0]).partition("; ")
        return "error", says, fix, True
    if name == "append" and args and isinstance(args[0], ast.JoinedStr | ast.Constant):
        owner = (
            call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
        )
        return ("note", _text(args[0]), "", True) if owner in ("notes", "said") else None
    return None


def messages() -> Iterator[Message]:
    """Every message of the readers whose text is in the code."""
    for path in SOURCES:
        known: dict[str, ast.expr] = {}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Call)]
        for node in sorted(calls, key=lambda each: each.lineno):
            if isinstance(node, ast.Assign):
                if isinstance(node.targets[0], ast.Name):  # the last value given to a name before the call
                    known[node.targets[0].id] = node.value
                continue
            found = _spoken(node, known)
            if found and found[1].strip(" …;:,./"):
                yield Message(*found, path.relative_to(ROOT).as_posix(), node.lineno)


def said(files: dict[str, str]) -> list[str]:
    """What reading these files says: the error, or the doubtful notes, or the notes."""
    with tempfile.TemporaryDirectory() as home:
        for name, text in files.items():
            Path(home, name).write_bytes(text.encode("cp1252" if "ü" in text else "utf-8"))
        try:
            notes = read(Path(home, "log.csv") if "log.csv" in files else home).notes[1:]
        except DataError as error:
            return ["error: " + str(error).replace(f"{Path(home)}/", "").replace(f"{Path(home).resolve()}/", "")]
        made = [note.replace(Path(home).name, "FOLDER") for note in notes]
        return [note for note, raw in zip(made, notes, strict=True) if isinstance(raw, Doubt)] or made[:1]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "⏎").replace("\u200b", "[U+200B]").replace("<", "&lt;")


def page() -> str:
    looked = [f"| {what} | {_cell(line)} |" for what, files in CHECKS.items() for line in said(files)]
    seen = sorted({(m.file, m.kind, m.says, m.fix) for m in messages()})
    listed = [f"| {file} | {kind} | {_cell(says)} | {_cell(fix)} |" for file, kind, says, fix in seen]
    return HEAD + "\n".join(looked) + MIDDLE + "\n".join(listed) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
