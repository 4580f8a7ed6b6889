"""When the code behind a kind of cell changes, its author raises its revision or says that results stay.

``python tests/test_revisions.py`` writes down the code as it is now, once that is decided.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest

import qcq
from qcq.engine import Cell
from qcq.engine.kinds import Chosen, Inspected, Scored, Trained, Walked
from qcq.report import Mapped
from qcq.study.cells import Law

ROOT = Path(qcq.__file__).parent
KEPT = Path(__file__).with_suffix(".json")
KINDS: tuple[type[Cell], ...] = (Walked, Trained, Chosen, Scored, Inspected, Mapped, Law)


def modules(name: str) -> list[Path]:
    """The files of a package or module."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


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


def state(kind: type[Cell]) -> dict[str, object]:
    """Revision and code of a kind as they are now."""
    files = sorted({path for name in kind.code for path in modules(name)})
    code = hashlib.sha256("".join(digest(path.read_text(encoding="utf-8")) for path in files).encode()).hexdigest()
    return {"revision": kind.revision, "code": code[:16]}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_code_that_changed_was_looked_at(kind: type[Cell]) -> None:
    assert kind.code
    kept = json.loads(KEPT.read_text())[kind.__name__]
    assert state(kind) == kept, (
        f"the code behind {kind.__name__} changed: raise its revision if its results change (finished cells of older "
        "runs are then done again), and write the state down with 'python tests/test_revisions.py'"
    )


def test_every_kind_is_watched() -> None:
    def below(cls: type[Cell]) -> set[type[Cell]]:
        return {cls, *(each for sub in cls.__subclasses__() for each in below(sub))}

    ours = {cls for cls in below(Cell) if cls.__module__.startswith("qcq.") and not cls.__abstractmethods__}
    assert ours == set(KINDS)


def test_words_do_not_count_and_statements_do() -> None:
    assert digest('def f():\n    """One."""\n    return 1  # why\n') == digest(
        'def f():\n    """Two."""\n\n    return 1\n'
    )
    assert digest("def f():\n    return 1\n") != digest("def f():\n    return 2\n")


if __name__ == "__main__":
    KEPT.write_text(json.dumps({kind.__name__: state(kind) for kind in KINDS}, indent=1) + "\n")
