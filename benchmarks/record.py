"""What every results file carries: the command, the day, the code, the data and the machine.

``code`` has a digest for each folder of the package, of the syntax trees without comments and docstrings, so that
``docs/build.py`` can say which results are older than the code that they describe.

Benchmarks write the record themselves. Of a finished run, or of a command that prints JSON, it is added here:

    python benchmarks/record.py docs/results/main.md RUN
    python benchmarks/record.py docs/results/inspect_training.json RUN/inspect/qcq.json
    python benchmarks/record.py docs/results/inspect.json -- qcq inspect --data DATA --json
    python benchmarks/record.py docs/results/study_medium.json RUN/study.json qcq study --size medium --data DATA

The run must have been made by the code of this checkout. Of a study, the remarks that were written by hand stay.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from qcq.data import Dataset, load
from qcq.errors import EvaluationError
from qcq.graph import KnowledgeGraph
from qcq.run import Run
from qcq.support.environment import environment
from qcq.support.files import write_text

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("support", "data", "graph", "floors", "walks", "models", "evaluation", "engine", "report", "study")


def code() -> dict[str, str]:
    """A digest for each folder of the package."""
    return {folder: _digest(sorted((ROOT / folder).rglob("*.py"))) for folder in FOLDERS}


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
        found.update(ast.dump(tree).encode())
    return found.hexdigest()[:16]


def made(*data: Dataset) -> dict[str, Any]:
    """The record of a benchmark that runs now, on these data sets."""
    here = {key: value for key, value in environment().items() if key != "command"}
    words = [word if "/" not in word else Path(word).name for word in sys.argv[1:]]
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "date": time.strftime("%Y-%m-%d"),
        "data": {each.name: KnowledgeGraph.from_dataset(each).digest[:16] for each in data},
        "code": code(),
        **here,
    }


def stamped(rows: list[dict[str, Any]], *data: Dataset) -> list[dict[str, Any]]:
    """Rows, each with the record; rows of an earlier run keep theirs."""
    now = made(*data)
    return [row if "made" in row else {**row, "made": now} for row in rows]


def of_run(path: Path) -> str:
    """A file of a finished run (a folder: its report), with the record.

    Raises
    ------
    EvaluationError : the run isn't finished, or the package has changed since.
    """
    folder = next((each for each in (path, *path.parents) if (each / "about.json").exists()), path)
    run = Run.open(folder)
    if not run.finished:
        raise EvaluationError(f"{folder}: the run isn't finished; run the same command again")
    file = path if path.is_file() else folder / "report.md"
    here, about = run.read_json("environment.json"), run.read_json("about.json")
    if changed(str(here["git"])):
        raise EvaluationError(f"{folder}: made by the code at {here['git']}, which isn't that of this checkout")
    day = time.strftime("%Y-%m-%d", time.localtime((folder / "report.md").stat().st_mtime))
    data = {about["dataset"]: about["graph_digest"][:16]}
    record = {"command": here.pop("command"), "date": day, "data": data, "code": code(), **here}
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return json.dumps({**json.loads(text), "made": record}, indent=2) + "\n"
    return f"{text.rstrip()}\n\n<!-- made {json.dumps(record)} -->\n"


def of_study(path: Path, words: list[str], target: Path) -> str:
    """The results of a study with the record of its command, and the remarks that the target has."""
    named = [load(os.path.expandvars(word)) for option, word in pairwise(words) if option == "--data"]
    day = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))
    record = {**made(*named), "command": " ".join(words), "date": day}
    remarks = json.loads(target.read_text(encoding="utf-8")).get("remarks", {}) if target.is_file() else {}
    held = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({**held, "remarks": remarks, "made": record}, indent=1) + "\n"


def changed(revision: str) -> bool:
    """Whether the package here may be another than the one at a revision."""
    same = ["git", "diff", "--quiet", revision, "--", *FOLDERS]
    return revision.endswith("-dirty") or subprocess.run(same, cwd=ROOT, capture_output=True).returncode != 0


def of_command(words: list[str]) -> str:
    """What a command of qcq prints as JSON, with the record."""
    program = str(Path(sys.executable).with_name(words[0]))
    # Variables are written out here and not in the record.
    done = subprocess.run([program, *map(os.path.expandvars, words[1:])], stdout=subprocess.PIPE, text=True, check=True)
    named = [load(word) for option, word in pairwise(words) if option == "--data"]
    record = {**made(*named), "command": " ".join(words)}
    return json.dumps({**json.loads(done.stdout), "made": record}, indent=2) + "\n"


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    target, first, *words = sys.argv[1:]
    if first == "--":
        text = of_command(words)
    elif Path(first).name == "study.json":
        text = of_study(Path(first), words, Path(target))
    else:
        text = of_run(Path(first))
    write_text(Path(target), text)


if __name__ == "__main__":
    main()
