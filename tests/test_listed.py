"""``qcq list`` and ``qcq data`` on a terminal of 80 columns: names, settings on demand, how to read a data set."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from qcq import cli
from qcq.config import Config
from qcq.data import DATASETS
from qcq.data.catalogue import PUBLIC
from qcq.evaluation import TASKS
from qcq.models import TRAINERS
from qcq.support.settings import fields
from qcq.walks import WALKS

KINDS: dict[str, Mapping[str, Any]] = {"walks": WALKS, "trainers": TRAINERS, "tasks": TASKS, "data": DATASETS}
NAMES = [name for registry in KINDS.values() for name in registry]


def call(*args: object) -> int:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    console = cli.console.out
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_color_system", None)
    monkeypatch.setattr(console, "_width", 80)


def test_a_name_is_a_row_and_no_line_is_wider_than_the_terminal(narrow: None, capsys) -> None:
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    first = [line.split(" ")[0] for line in lines if line and not line.startswith(" ")]
    assert [name for name in first if name in NAMES] == NAMES
    assert len(lines) < 3 * len(NAMES)  # two lines a name, the headings and the end
    text = "\n".join(lines)
    assert "per_question=" not in text
    assert "``" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_settings(kind: str, narrow: None, capsys) -> None:
    assert call("list", kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    text = re.sub(r"\s+", "", "".join(lines))
    for name, cls in KINDS[kind].items():
        asked = cls.settings if kind == "tasks" else cls
        for key in () if asked is None else fields(asked):
            assert f"{key}=" in text, (name, key)


def test_a_name_has_its_settings_as_they_are_given(capsys) -> None:
    for name in ("node2vec", "mlm", "kt", "pykt"):
        assert call("list", name) == 0
        given = re.findall(r"^\| (\S+)\s+\| (.+?)\s*\|$", capsys.readouterr().out, flags=re.MULTILINE)
        overrides = [f"{key}={value}" for key, value in given if key.startswith(f"{name}.") and value != "none"]
        assert overrides
        lists: dict[str, Any] = {"walks": [name]} if name in WALKS else {"tasks": [name]} if name in TASKS else {}
        assert Config.load(overrides=overrides, **lists)  # each is what --set takes


def test_an_unknown_name_says_the_nearest_and_json_is_as_it_was(capsys) -> None:
    assert call("list", "pykkt") == 2
    assert "unknown kind or name 'pykkt'; did you mean pykt" in capsys.readouterr().err
    assert call("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {kind: [row["name"] for row in rows] for kind, rows in listed.items()} == {k: [*v] for k, v in KINDS.items()}
    assert set(listed["walks"][0]) == set(listed["data"][0]) == {"name", "about", "settings"}
    assert set(listed["tasks"][0]) == {"name", "about", "settings", "figures"}
    assert call("list", "walks", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"walks": listed["walks"]}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_data_set_says_how_it_is_read(name: str, capsys) -> None:
    assert call("data", name) == 0
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to read it: ")][:1]
    reader = PUBLIC[name].reader
    if not reader:
        assert said == "to read it: there is no reader"
        return
    words = shlex.split(said.removeprefix("to read it: "))
    assert words[:3] == ["qcq", "run", "--data"]
    assert words[3] == f"{reader}:DIR"
    settled = Config.load(overrides=words[5::2], data=words[3]).reader(reader)
    assert all(getattr(settled, key) == value for key, value in PUBLIC[name].settings.items())


def test_a_missing_file_is_missing_and_does_not_differ(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    assert call("data", "eedi-1-2", folder) == 1
    text = capsys.readouterr().out
    results = dict(re.findall(r"^\| (\S+)\s+\| (\S.*?)\s+\| ", text, flags=re.MULTILINE))
    assert results["train_task_1_2.csv"] == "missing"
    assert (results["recognised"], results["read"]) == ("no", "no")
    assert "DIFFERS" not in text
    assert f"to read it: qcq run --data 'eedi:{folder}' --set 'eedi.tasks=\"1_2\"'" in text
    assert call("data", "eedi-1-2", folder, "--json") == 1
    found = json.loads(capsys.readouterr().out)["found"]
    assert {"what": "train_task_1_2.csv", "ok": False, "found": "missing"} in found
