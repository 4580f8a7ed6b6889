"""The rooms of the package and what they import, as the Mermaid picture of ARCHITECTURE.md.

``python docs/architecture.py`` writes the picture anew from the imports of the code; a test holds the two together.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
ROOMS = ("support", "data", "graph", "floors", "walks", "models", "evaluation", "engine", "report", "study", "cli")
DOORS = ("corpus", "embeddings", "config", "run", "recipes", "pipeline", "audit")  # files at the root


def imports(path: Path) -> set[str]:
    """What a file imports of the package while it runs: names of rooms, and of files at the root."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "qcq":
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def edges() -> list[tuple[str, str]]:
    """(who, whom): imports between rooms, without those that follow from others."""
    reads = {room: {n for p in (ROOT / room).rglob("*.py") for n in imports(p)} for room in ROOMS}
    reads |= {door: imports(ROOT / f"{door}.py") for door in DOORS}
    reads["pipeline"] -= {"cli"}  # only so that `python pipeline.py` is `qcq run`
    known = {name: {n for n in found if n in reads and n != name} for name, found in reads.items()}

    def reach(name: str) -> set[str]:
        return {far for near in known[name] for far in (near, *reach(near))}

    return sorted(
        (name, other) for name, near in known.items() for other in near if not any(other in reach(n) for n in near)
    )


def picture() -> str:
    """The Mermaid block."""
    lines = [f"    {one} --> {other}" for one, other in edges() if other != "support"]
    return "\n".join(["```mermaid", "graph BT", *lines, "```"])


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"```mermaid\n.*?```", lambda _: picture(), text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()
