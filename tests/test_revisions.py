"""When the code behind a kind of cell changes, its author raises its revision or says that results stay.

``python tests/test_revisions.py`` writes down the code as it is now, once that is decided.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import qcq
from qcq.engine import Cell
from qcq.engine.kinds import Chosen, Inspected, Scored, Trained, Walked
from qcq.report import Mapped
from qcq.report.trace import FittedTracer
from qcq.study.cells import Law, Looks
from qcq.study.shuffled import Shuffled

ROOT = Path(qcq.__file__).parent
KEPT = Path(__file__).with_suffix(".json")
KINDS: tuple[type[Cell], ...] = (Walked, Trained, Chosen, Scored, Inspected, Mapped, FittedTracer, Law)
WATCHED: tuple[type, ...] = (*KINDS, Looks, Shuffled)  # what lies above the engine and enters keys is watched too
# What these do decides no result.
BESIDE = {
    "qcq.errors",
    "qcq.cli",
    *(f"qcq.support.{name}" for name in ("progress", "terminal", "environment", "cost", "registry")),
}


def modules(name: str) -> list[Path]:
    """The files of a package or module."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@cache
def digest(text: str) -> str:
    """Of the syntax tree of a module, without comments, docstrings and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports while it runs, late imports included."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("qcq."):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update({node.module, *(name for name in inner if modules(name)[0].is_file())})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def closure(code: tuple[str, ...]) -> set[Path]:
    """The files of these modules and of all that they import. A package that is imported stands for its own file alone:
    what is taken from it is imported there."""
    files = {path for name in code for path in modules(name)}
    waiting = list(files)
    while waiting:
        for name in imported(waiting.pop()) - BESIDE:
            path = ROOT.joinpath(*name.split(".")[1:])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if path not in files:
                files.add(path)
                waiting.append(path)
    return files


def state(kind: Any) -> dict[str, object]:
    """Revision and code of a kind as they are now. Of the engine only what the kind itself names counts."""
    files = sorted(path for path in closure(kind.code) if path in named(kind) or path.parent.name != "engine")
    code = hashlib.sha256("".join(digest(path.read_text(encoding="utf-8")) for path in files).encode()).hexdigest()
    return {"revision": kind.revision, "code": code[:16]}


def named(kind: Any) -> set[Path]:
    return {path for name in kind.code for path in modules(name)}


@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.__name__)
def test_code_that_changed_was_looked_at(kind: Any) -> None:
    assert kind.code
    kept = json.loads(KEPT.read_text())[kind.__name__]
    assert state(kind) == kept, (
        f"the code behind {kind.__name__} changed: raise its revision if its results change (finished cells of older "
        "runs are then done again), and write the state down with 'python tests/test_revisions.py'"
    )


def test_every_kind_is_watched() -> None:
    def below(cls: Any) -> set[Any]:
        return {cls, *(each for sub in cls.__subclasses__() for each in below(sub))}

    ours = {cls for cls in below(Cell) if cls.__module__.startswith("qcq.") and not cls.__abstractmethods__}
    assert ours == set(KINDS)


def test_words_do_not_count_and_statements_do() -> None:
    assert digest('def f():\n    """One."""\n    return 1  # why\n') == digest(
        'def f():\n    """Two."""\n\n    return 1\n'
    )
    assert digest("def f():\n    return 1\n") != digest("def f():\n    return 2\n")


if __name__ == "__main__":
    KEPT.write_text(json.dumps({kind.__name__: state(kind) for kind in WATCHED}, indent=1) + "\n")
