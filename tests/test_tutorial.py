"""docs/tutorials/pykt.md: every command is executed on the sample folder, with the released pyKT."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import qcq

ROOT = Path(qcq.__file__).parent
PAGE = (ROOT / "docs" / "tutorials" / "pykt.md").read_text(encoding="utf-8")


def tutorial() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pykt_tutorial", ROOT / "benchmarks" / "pykt_tutorial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins() -> dict[str, str]:
    """The tools that the extra ``tools`` and the Makefile install: name → version."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    without = re.findall(r"--no-deps (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    asked = [Requirement(each.strip("'")) for each in [*extras["tools"], *without]]
    return {each.name: str(each.specifier).removeprefix("==") for each in asked}


def test_the_page_shows_five_commands_and_their_times() -> None:
    commands = tutorial().commands()
    assert len(commands) == 5
    assert [line for block in re.findall(r"```.*?```", PAGE, flags=re.DOTALL) for line in block.splitlines()[1:-1]] == [
        f"$ {command}" for command in commands
    ]
    held = json.loads((ROOT / "docs" / "results" / "pykt_tutorial.json").read_text(encoding="utf-8"))
    assert [row["command"] for row in held["commands"]] == commands[1:]
    shown = re.findall(r"^\| `(.+)` \| (\d+)<!--.*?--> \|$", PAGE, flags=re.MULTILINE)
    assert shown == [(row["command"], f"{row['seconds']:.0f}") for row in held["commands"]]


def test_the_first_command_installs_the_version_that_is_tested() -> None:
    assert tutorial().commands()[0] == f"pip install pykt-toolkit=={pins()['pykt-toolkit']}"


@pytest.mark.tools
def test_every_command_runs_and_pykt_trains(tmp_path: Path) -> None:
    pytest.importorskip("pykt", reason="needs pykt-toolkit")
    module = tutorial()
    sample = Path(os.environ.get("QCQ_DATA", ROOT)) / module.SAMPLE
    if not sample.is_dir():
        pytest.skip(f"needs QCQ_DATA with {module.SAMPLE}")
    said = [line for _, _, line in module.run(tmp_path, sample)]
    assert len(said) == 4
    ours, theirs = said[2:]
    assert ours.startswith("qDKT with qcq's rows, trained on: AUC ")
    assert theirs.startswith("qDKT with pyKT's own initial values: AUC ")
    assert all(0 < float(auc) < 1 for line in said[2:] for auc in re.findall(r"\d\.\d+", line))


@pytest.mark.tools
@pytest.mark.skipif(not os.environ.get("QCQ_REQUIRE_TOOLS"), reason="asked for by make tools-test only")
@pytest.mark.parametrize("name", pins())
def test_the_tool_of_the_pin_is_installed(name: str) -> None:
    """So that no test of a tool is skipped where they are asked for."""
    assert metadata.version(name) == pins()[name]
