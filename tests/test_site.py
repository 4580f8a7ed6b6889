"""The site: everything registered has its place, every page builds without a warning, fields are those of a run."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

import qcq
from qcq import cli

ROOT = Path(qcq.__file__).parent


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_registered_has_its_place(build: ModuleType) -> None:
    pages = build.reference()
    for page, registry in (
        ("walks", qcq.WALKS),
        ("trainers", qcq.TRAINERS),
        ("tasks", qcq.TASKS),
        ("data", qcq.DATASETS),
    ):
        assert [name for name in registry if f"\n## `{name}`\n" not in pages[page]] == []
    group = typer.main.get_group(cli.app)
    for name, command in group.commands.items():
        assert f"\n## `qcq {name}`\n" in pages["commands"]
        assert all(f"`{each.opts[0]}`" in pages["commands"] for each in command.params if each.opts[0].startswith("--"))


def test_every_field_of_a_run_is_described(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,concepts\n" + "".join(f"q{i},c{i % 4};c{i % 5}\n" for i in range(40)))
    words = ["--trainers", "mlm,sgns", "--seeds", "1", "--set", "mlm.steps=20", "--quiet"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--data", str(tmp_path / "q.csv"), "--out", str(tmp_path / "run"), *words])
    assert stop.value.code == 0
    for table, described in build.FIELDS.items():
        rows = [json.loads(line) for line in (tmp_path / "run" / f"{table}.jsonl").read_text().splitlines()]
        found = {key for row in rows for key in row} - set(qcq.TASKS)  # tuning has a column a task
        assert found == set(described), table


def test_a_results_file_says_what_is_older_than_the_code(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = build._record()
    stamp = {**record.made(), "command": "python benchmarks/x.py"}
    stale = {**stamp, "code": {**stamp["code"], "walks": "other"}}
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "new.json").write_text(json.dumps([{"ratio": 2, "made": stamp}]))
    (folder / "old.json").write_text(json.dumps({"ratio": 2, "made": stale}))
    (folder / "report.md").write_text(f"# A report\n\n<!-- made {json.dumps({**stamp, 'command': 'qcq run'})} -->\n")
    (folder / "rows.json").write_text(
        json.dumps({"results": [{"made": {**stale, "date": "2026-01-01"}}, {"made": stamp}]})
    )
    (folder / "older.md").write_text("- command: `qcq run --seeds 1`; every setting\n- qcq 0.1.0, numpy 2.4.6\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "_record", lambda: record)
    page = build.results()
    assert f"| `python benchmarks/x.py` | {stamp['date']} | nothing |" in page
    assert f"| `python benchmarks/x.py` | {stamp['date']} | walks |" in page
    assert f"| `qcq run` | {stamp['date']} | nothing |" in page
    assert f"| `python benchmarks/x.py` | 2026-01-01 to {stamp['date']} | walks |" in page
    assert "| `qcq run --seeds 1` | – | made by qcq 0.1.0 |" in page


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("index", "reference/commands", "tutorials/first_run", "decisions/0301-random-stream"):
        assert (tmp_path / "html" / f"{name}.html").is_file()
    # Nothing is fetched from elsewhere when a page is opened.
    start = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'(?:src|srcset)="([^"?]+)', start)
    assert "pictures/report-light.png" in shown
    assert not [name for name in shown if not (tmp_path / "html" / name).is_file()]
    assert not [part for part in start.split("<")[1:] if part.startswith(("link ", "script ", "img ")) and "//" in part]
