"""What every results file carries: the command, the day, the code, the data and the machine.

``code`` has a digest for each folder of the package, of the syntax trees without comments and docstrings, so that
``docs/build.py`` can say which results are older than the code that they describe.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qcq.data import Dataset
from qcq.graph import KnowledgeGraph
from qcq.support.environment import environment

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
