"""Where gensim isn't installed: its trainers say so in one line, and a run that names no trainers goes on with sgns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcq
from qcq import cli
from qcq.config import Config, default_trainers
from qcq.embeddings import Embeddings
from qcq.errors import EmbeddingError, QCQError, TrainingError
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.run import Run
from qcq.walks import QCQ

ROOT = Path(qcq.__file__).parent
CLASSROOM = str(ROOT / "experiments" / "classroom.toml")
GENSIMS = ("skipgram", "cbow", "fasttext")
GRAPH = KnowledgeGraph.from_edges([(f"q{i}", f"c{i % 3}") for i in range(12)])
SMALL = [
    *("--seeds", "1", "--tasks", "retrieval", "--set", "tune=false", "--set", "dim=16"),
    *("--set", "simulated.questions=120", "--set", "simulated.students=60", "--set", "walk.per_question=2"),
]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds no module of a name that stands for None here."""
    for name in ("gensim", "gensim.models"):
        monkeypatch.setitem(sys.modules, name, None)


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    return int(stop.value.code or 0)


def one_line(error: QCQError) -> str:
    assert len(str(error).splitlines()) == 1
    return str(error)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("name", GENSIMS)
def test_a_trainer_says_it_before_a_walk_is_sampled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QCQ, "sample", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(TrainingError) as raised:
        TRAINERS[name]().fit(TrainingData(GRAPH))
    said = one_line(raised.value)
    assert said.startswith(f"{TRAINERS[name].__name__} learns with gensim")
    for word in ("it isn't installed", "no wheel for Python 3.14", "take an older Python, or sgns"):
        assert word in said


def test_a_broken_gensim_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"cannot import\n  {name}")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(TrainingError) as raised:
        TRAINERS["skipgram"]().fit(TrainingData(GRAPH))
    assert "can't be imported here (cannot import gensim.models)" in one_line(raised.value)


@pytest.mark.usefixtures("without")
def test_only_its_own_trainers_miss_it() -> None:
    assert {name for name, cls in TRAINERS.items() if cls.missing()} == set(GENSIMS)
    with pytest.raises(EmbeddingError) as raised:
        Embeddings(["a"], np.ones((1, 2))).to_keyedvectors()
    assert "gensim can't be imported here" in one_line(raised.value)


def test_qcq_is_imported_and_lists_its_parts() -> None:
    code = "import sys; sys.modules['gensim'] = None\nimport qcq\nfrom qcq.cli import main; main(['list', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(GENSIMS) <= {row["name"] for row in json.loads(done.stdout)["trainers"]}


@pytest.mark.parametrize("path", [None, CLASSROOM])
def test_skipgram_is_the_default_where_it_can_be_had(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    config = Config.load(path)
    assert config.trainers == default_trainers() == ("skipgram", "mlm", "random", "concept-onehot", "svd")
    assert config.notes == []


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("path", [[], [CLASSROOM]], ids=["qcq run", "make run"])
def test_a_run_without_named_trainers_takes_sgns_and_says_it(
    path: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *path, *SMALL, "--set", "mlm.steps=5", "--out", str(tmp_path / "run")) == 0
    note = "sgns takes the place of skipgram, with settings of its own: SkipGram learns with gensim"
    assert len([line for line in capsys.readouterr().err.splitlines() if note in line]) == 1
    run = Run(tmp_path / "run")
    assert {row["trainer"] for row in run.rows("training")} == {"sgns", "mlm", "random", "concept-onehot", "svd"}
    assert run.config["trainers"][0] == "sgns"
    assert note in (run.path / "report.md").read_text()
    assert note in re.sub(r"\s+", " ", (run.path / "report.html").read_text())


@pytest.mark.usefixtures("without")
def test_sgns_of_ones_own_choice_takes_nobodys_place() -> None:
    assert Config.load(overrides=["trainers=sgns,svd"]).notes == []
    assert Config.load(overrides=["trainers=skipgram,svd"]).notes == []


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("name", [*GENSIMS, "skipgram@wide"])
def test_who_names_it_is_told_before_anything_is_done(
    name: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *SMALL, "--trainers", f"svd,{name}", *more, "--out", str(tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: trainer {name!r}: ")
    assert "learns with gensim, which can't be imported here" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()
