"""Folders carry the number of their format: a run of qcq 0.1 opens, one of a newer qcq is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcq import cli
from qcq.config import Config
from qcq.corpus import Corpus
from qcq.engine import Store
from qcq.engine.verify import verify
from qcq.errors import ConfigError
from qcq.pipeline import Experiment
from qcq.run import MANIFEST, Run
from qcq.support.folders import FORMAT, MARK, claim, refuse_newer

SMALL = ["simulated.questions=60", "simulated.students=30", "simulated.responses=10", "walk.per_question=2", "dim=4"]
SETTINGS = [*SMALL, "trainers=sgns,svd", "tasks=retrieval,difficulty", "seeds=1", "tune=false"]
LATER = ("finished", "split_digest", "test_parts", "sealed")  # keys of about.json that qcq 0.1 did not write


def call(*words: object) -> int:
    try:
        cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Experiment(Config.load(overrides=SETTINGS)).run(tmp_path_factory.mktemp("formats") / "run").path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def old(run: Path) -> Path:
    """The run as qcq 0.1.0 left it: no cells, hashes and lock, no number of the format, fewer facts, other keys."""
    shutil.rmtree(run / "cells")
    for name in ("manifest.json", ".lock"):
        (run / name).unlink()
    (run / MARK).write_text('{"kind": "run"}\n')
    about = json.loads((run / "about.json").read_text())
    (run / "about.json").write_text(json.dumps({key: value for key, value in about.items() if key not in LATER}))
    rows = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "comparison": "0420b2d0a271b292[0]"}) + "\n" for row in rows)
    (run / "training.jsonl").write_text(text)
    lines = [line for line in (run / "config.toml").read_text().splitlines() if line.split(" = ")[0] not in NEW]
    (run / "config.toml").write_text("\n".join(lines) + "\n")
    return run


NEW = ("missing", "strict")  # settings that qcq 0.1 did not have


def test_every_kind_of_folder_says_its_format(run: Path, tmp_path: Path) -> None:
    for folder in (run, run / "cells", next((run / "corpus").glob("*/*"))):
        assert json.loads((folder / MARK).read_text())["format"] == FORMAT
    assert json.loads((claim(tmp_path / "new", "study") / MARK).read_text()) == {"kind": "study", "format": FORMAT}


def test_a_run_of_0_1_opens(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Run.open(old)
    assert opened.finished
    assert opened.best() == ("sgns", "qcq")
    assert opened.embeddings("svd").vectors.shape == (60, 4)
    assert call("similar", old, "q1", "-k", "2") == 0
    assert call("export", old, "--out", tmp_path / "v.npz") == 0
    assert "isn't finished" not in capsys.readouterr().err
    (tmp_path / "s.csv").write_text("question,correct\nq1,1\nq2,0\n")
    assert call("trace", old, tmp_path / "s.csv", "--quiet") == 0
    assert call("audit", old, "--quiet") == 0
    assert MANIFEST in {fault.path.name for fault in verify(Run.open(old))[0]}
    assert call("report", old) == 0
    capsys.readouterr()
    assert call("run", old / "config.toml", "--out", tmp_path / "again", "--quiet") == 0  # the way to migrate
    capsys.readouterr()
    assert call("run", old / "config.toml", "--out", old) == 0
    said = capsys.readouterr().err
    assert "qcq · sgns, svd: made from another file or by another version, so the results are replaced" in said
    assert verify(Run.open(old))[0] == []
    assert [row["value"] for row in Run(old).rows("results")] == [
        row["value"] for row in Run(tmp_path / "again").rows("results")
    ]


def test_a_folder_of_a_newer_qcq_is_refused_by_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / MARK).write_text(json.dumps({"kind": "run", "format": FORMAT + 1}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words in (
        ["similar", run, "q1"],
        ["export", run, "--out", run.parent / "v.npz"],
        ["verify", run],
        ["run", *(word for each in SETTINGS for word in ("--set", each)), "--out", run, "--quiet"],
    ):
        assert call(*words) == 2
        text = capsys.readouterr().err
        assert f"{run}: holds a run in format {FORMAT + 1}, made by a newer qcq" in text
        assert text.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    for folder, opened in (
        (run / "cells", lambda at: Store(at).open()),
        (next((run / "corpus").glob("*/*")), Corpus.load),
    ):
        kind = json.loads((folder / MARK).read_text())["kind"]
        (folder / MARK).write_text(json.dumps({"kind": kind, "format": FORMAT + 1}))
        with pytest.raises(ConfigError, match=f"holds a {kind} in format {FORMAT + 1}, made by a newer qcq"):
            opened(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"kind": "run", "format": "new"}',
        '{"format": 2}',
        "3",
        '{"kind": "run", "format": Infinity}',
        "[" * 10_000,
    ],
)
def test_a_mark_that_says_nothing_is_an_error(text: str, run: Path) -> None:
    (run / MARK).write_text(text)
    with pytest.raises(ConfigError, match="unreadable mark"):
        Run.open(run)


def test_another_kind_of_folder_is_no_run(run: Path, tmp_path: Path) -> None:
    assert refuse_newer(tmp_path) == ""
    with pytest.raises(ConfigError, match="a store, no run, in this folder"):
        Run.open(run / "cells")


@pytest.mark.parametrize("name", ["training.jsonl", "about.json", "tuning.jsonl", "config.toml"])
def test_a_damaged_table_is_one_line_and_repaired(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2] + b"{")
    words = ["similar", run, "q1"] if name != "training.jsonl" else ["export", run, "--out", run.parent / "v.npz"]
    assert call(*words) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert name in text
    if name != "config.toml":
        assert "--repair' makes it again" in text
        assert call("verify", run, "--repair", "--quiet") == 0
        assert np.array_equal((run / name).read_bytes()[:20], whole[:20])
        assert verify(Run.open(run))[0] == []
