"""``benchmarks/record.py``: what a run and a command leave under docs/results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from qcq.config import Config
from qcq.errors import EvaluationError
from qcq.pipeline import Experiment
from qcq.run import Run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "changed", lambda revision: False)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("record")
    (folder / "q.csv").write_text("question,concepts\n" + "".join(f"q{i},c{i % 4};c{i % 5}\n" for i in range(40)))
    config = Config(data=str(folder / "q.csv"), trainers=("netmf",), tasks=("edges",), seeds=1, tune=False)
    return Experiment(config).run(folder / "run")


def test_a_report_is_kept_with_its_command_and_the_digest_of_its_graph(record: ModuleType, run: Run) -> None:
    text = record.of_run(run.path)
    report, _, rest = text.partition("<!-- made ")
    assert report.rstrip() == (run.path / "report.md").read_text().rstrip()
    made = json.loads(rest.removesuffix(" -->\n"))
    assert made["command"] == run.read_json("environment.json")["command"]
    about = run.read_json("about.json")
    assert made["data"] == {about["dataset"]: about["graph_digest"][:16]}
    assert set(made["code"]) == set(record.FOLDERS)
    assert {"date", "versions", "cpu", "git"} <= set(made)


def test_a_file_of_a_run_is_kept_as_json(record: ModuleType, run: Run) -> None:
    file = run.path / "inspect" / "qcq.json"
    held = json.loads(record.of_run(file))
    assert held.pop("made")["command"] == run.read_json("environment.json")["command"]
    assert held == json.loads(file.read_text())


def test_a_run_of_other_code_is_not_kept(record: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "changed", lambda revision: True)
    with pytest.raises(EvaluationError, match="which isn't that of this checkout"):
        record.of_run(run.path)


def test_uncommitted_code_and_unknown_revisions_count_as_other_code() -> None:
    spec = importlib.util.spec_from_file_location("fresh_record", ROOT / "benchmarks" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.changed("c787ecba5000-dirty")
    assert module.changed("0" * 12)


@pytest.mark.slow
def test_what_a_command_prints_is_kept_with_the_digest_of_its_data(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.csv").write_text("question,concepts\nq1,a\nq2,a\nq3,b\nq4,b\n")
    monkeypatch.setenv("PLACE", str(tmp_path))
    held = json.loads(record.of_command(["qcq", "inspect", "--data", "$PLACE/q.csv", "--json"]))
    made = held.pop("made")
    assert held["questions"] == 4
    assert made["command"] == "qcq inspect --data $PLACE/q.csv --json"
    assert list(made["data"]) == ["q"]
