"""What a message tells a new user to do is what helps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qcq import cli
from qcq.config import Config
from qcq.pipeline import Experiment
from qcq.run import Run

BANK = "question,concept\n" + "".join(f"q{i},{('fractions', 'decimals')[i % 2]}\n" for i in range(12))


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in args])
    return int(stop.value.code or 0)


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line of an error on the command line."""
    assert call(*args) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "questions.csv").write_text(BANK)
    return tmp_path / "questions.csv"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    (folder / "questions.csv").write_text(BANK)
    config = Config(data=str(folder / "questions.csv"), trainers=("svd", "random"), tasks=("retrieval",), seeds=2)
    return Experiment(config).run(folder / "run").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def test_a_table_given_as_settings_is_told_from_them(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"by its ending this is data; give it as --data {bank}" in said(capsys, "run", bank)
    assert f"data are given as --data {bank.parent}" in said(capsys, "run", bank.parent)
    (bank.parent / "mine.toml").write_text("seeds: 3")
    assert "not valid TOML" in said(capsys, "run", bank.parent / "mine.toml")


@pytest.mark.parametrize("command", ["embed", "walk", "split", "inspect"])
def test_data_without_their_option_are_told_it(command: str, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = () if command == "inspect" else ("--out", bank.parent / "new.npz")
    assert f"qcq {command} takes data as --data {bank}" in said(capsys, command, bank, *out)


def test_data_that_nobody_named_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "v.npz", ids=["a", "b"], vectors=np.eye(2))
    text = said(capsys, "score", tmp_path / "v.npz", "--out", tmp_path / "run")
    assert "(data set simulated, taken where --data isn't given)" in text
    small = ["--set", "simulated.questions=40", "--set", "simulated.students=20", "--recipe", "concepts", "--dim", 2]
    assert call("embed", "-q", "--out", tmp_path / "w.npz", *small) == 0
    assert "(data set simulated, taken where --data isn't given)" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["missing", "corrupt"])
@pytest.mark.parametrize("name", ["questions.csv", "concepts.csv", "graph.npz", "embeddings"])
def test_a_lost_file_of_a_run_is_repaired(name: str, damage: object, run: Path, capsys: pytest.CaptureFixture) -> None:
    made = Run.open(run)
    row = made.trained("svd")
    file = made.file("embeddings", row["walk"], "svd", row["readout"], row["seed"], ".safetensors")
    damage(file if name == "embeddings" else run / name)  # type: ignore[operator]
    text = said(capsys, "similar", run, "q1", "--trainer", "svd")
    assert f"'qcq verify {run} --repair' makes it again" in text
    assert "finished work" not in text
    assert call("verify", run, "--repair", "--quiet") == 0
    assert call("similar", run, "q1", "--trainer", "svd") == 0


def test_what_the_machine_refuses_a_command_without_cells_keeps_no_work() -> None:
    assert cli._reason(OSError(28, "No space left on device", "x"), False) == "x: No space left on device"
    assert "finished work" not in cli._reason(MemoryError(), False)


def test_each_seed_of_a_run_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seeds = 2")
    rows = [f'{{"trainer": "svd", "walk": "{w}", "seed": {s}, "error": "x"}}\n' for w in "ab" for s in (0, 1)]
    (tmp_path / "training.jsonl").write_text("".join(rows))
    with pytest.raises(Exception, match=r"no seed 9; it has 0, 1$"):
        Run.open(tmp_path).trained("svd", seed=9)
