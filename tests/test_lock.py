"""Two processes on one run folder: the second is told who works there; a dead owner is no obstacle."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qcq import cli
from qcq.config import Config
from qcq.engine import Cell, Row, Store
from qcq.engine.verify import Fault, discard, verify
from qcq.errors import ConfigError
from qcq.pipeline import Experiment
from qcq.run import Run
from qcq.support.folders import MARK, claim, refuse_foreign, write_mark
from qcq.support.lock import LOCK, OWNER, occupied

SMALL = ["simulated.questions=60", "simulated.students=30", "simulated.responses=10", "walk.per_question=2", "dim=4"]
SETTINGS = [*SMALL, "trainers=random,svd", "tasks=retrieval", "seeds=1", "tune=false"]
HOLD = """
import sys, time
from pathlib import Path
from qcq.support.lock import occupied
with occupied(sys.argv[1]):
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""
RUN = """
import sys, time
from pathlib import Path
from qcq.cli import main
from qcq.pipeline import Experiment
begin = Experiment.begin
def slow(self, run, watch):
    begin(self, run, watch)
    Path(sys.argv[1]).touch()
    while Path(sys.argv[2]).exists():
        time.sleep(0.05)
Experiment.begin = slow
main(sys.argv[3:])
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Number(Cell):
    number: int

    def run(self, store, progress) -> Row:
        return {"number": self.number}


def waited_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def command(out: Path, *more: str) -> list[str]:
    return ["run", *(word for each in SETTINGS for word in ("--set", each)), "--out", str(out), "--quiet", *more]


def tables(folder: Path) -> dict[str, bytes]:
    names = ("config.toml", "about.json", "results.jsonl", "tuning.jsonl", "questions.csv")
    held = {name: (folder / name).read_bytes() for name in names}
    return held | {path.name: path.read_bytes() for path in (folder / "embeddings").iterdir() if path.is_file()}


def python(code: str, *words: object) -> subprocess.Popen:
    given = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_process_is_told_who_works_there_and_goes_on_after_a_kill(tmp_path: Path, capsys) -> None:
    out, began, gate = tmp_path / "run", tmp_path / "began", tmp_path / "gate"
    gate.touch()
    first = python(RUN, began, gate, *command(out))
    try:
        waited_for(began, first)
        with pytest.raises(SystemExit) as stop:
            cli.main(command(out))
        assert stop.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith(f"error: {out}: process {first.pid} on {socket.gethostname()} (since 20")
        assert text.endswith(" works in this folder; wait until it ends, or name another folder\n")
        assert text.count("\n") == 1
        assert not (out / "results.jsonl").exists()  # it touched nothing
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (out / OWNER).exists()  # the dead owner's name, which is no lock
    (out / f"results.jsonl.{first.pid}.partial").write_text("{")  # it may have been killed while it wrote
    made = Experiment(Config.load(overrides=SETTINGS)).run(out)
    assert not (out / OWNER).exists()
    assert (out / LOCK).read_bytes() == b""
    assert verify(made)[0] == []
    whole = Experiment(Config.load(overrides=SETTINGS)).run(tmp_path / "whole")
    assert tables(out) == tables(whole.path)


@pytest.mark.slow
def test_of_two_at_once_one_works_and_the_other_is_told(tmp_path: Path) -> None:
    """Both wait at the same gate, so that they ask for the lock at the same moment."""
    out = tmp_path / "run"
    code = "import sys, time\nfrom pathlib import Path\nfrom qcq.cli import main\nimport qcq.pipeline\n"
    code += "Path(sys.argv[1]).touch()\nwhile Path(sys.argv[2]).exists(): time.sleep(0.001)\nmain(sys.argv[3:])"
    gate = tmp_path / "gate"
    gate.touch()
    both = [python(code, tmp_path / f"there{i}", gate, *command(out)) for i in range(3)]
    for i, process in enumerate(both):
        waited_for(tmp_path / f"there{i}", process)
    gate.unlink()
    said = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    for code_, text in zip(codes, said, strict=True):
        if code_:  # those that came when the first had ended have nothing to do, which is right
            assert code_ == 2
            assert text.count("\n") == 1
            assert "works in this folder" in text
    assert verify(Run.open(out))[0] == []


@pytest.mark.slow
def test_a_store_serves_several_runs_at_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    several = [python(RUN, tmp_path / f"b{i}", tmp_path / "none", *command(tmp_path / f"run{i}", "--store", str(store)))
               for i in range(3)]  # fmt: skip
    for process in several:
        _, text = process.communicate(timeout=300)
        assert process.returncode == 0, text
    alone = Experiment(Config.load(overrides=SETTINGS)).run(tmp_path / "alone")
    for i in range(3):
        made = tables(tmp_path / f"run{i}")
        made.pop("config.toml")  # it names the store
        assert made.items() <= tables(alone.path).items()
    assert {path.name for path in store.iterdir() if path.name != "qcq.json"} == {
        path.name for path in (alone.path / "cells").iterdir() if path.name != "qcq.json"
    }


@pytest.mark.slow
def test_who_writes_into_a_run_asks_for_it(tmp_path: Path, capsys) -> None:
    """run, report, verify --repair, folds and trace; readers don't."""
    made = Experiment(Config.load(overrides=SETTINGS)).run(tmp_path / "run")
    next(made.path.glob("embeddings/*")).unlink()
    (tmp_path / "s.csv").write_text("question,correct\nq1,1\nq2,0\n")
    there = tmp_path / "there"
    held = python(HOLD, made.path, there)
    try:
        waited_for(there, held)
        for words in (
            command(made.path),
            ["report", str(made.path)],
            ["verify", str(made.path), "--repair"],
            ["trace", str(made.path), str(tmp_path / "s.csv"), "--trainer", "svd", "--quiet"],
        ):
            with pytest.raises(SystemExit) as stop:
                cli.main(words)
            assert stop.value.code == 2
            assert f"process {held.pid} on " in capsys.readouterr().err
        for words, code in ((["verify", str(made.path)], 1), (["export", str(made.path), "--trainer", "svd"], 0)):
            with pytest.raises(SystemExit) as stop:
                cli.main([*words, *(["--out", str(tmp_path / "v.npz")] if code == 0 else [])])
            assert stop.value.code == code
    finally:
        held.kill()
        held.wait()
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", str(made.path), "--repair", "--quiet"])
    assert stop.value.code == 0


def test_a_thread_may_ask_again_and_another_thread_may_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with occupied(tmp_path):
                pass
        except ConfigError as error:
            refused.append(str(error))

    with occupied(tmp_path):
        with occupied(tmp_path, tmp_path / "."):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert (tmp_path / OWNER).exists()
    assert len(refused) == 1
    assert f"process {os.getpid()} on " in refused[0]
    other()
    assert len(refused) == 1


def test_an_error_gives_the_lock_back_and_an_unreadable_owner_is_another_process(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(KeyError), occupied(tmp_path):
        raise KeyError
    monkeypatch.setattr("qcq.support.lock.PATIENCE", 0.1)
    there = tmp_path / "there"
    held = python(HOLD, tmp_path, there)
    try:
        waited_for(there, held)
        (tmp_path / OWNER).write_text("{")
        with pytest.raises(ConfigError, match="another process works in this folder"), occupied(tmp_path):
            pass
    finally:
        held.kill()
        held.wait()
    with occupied(tmp_path):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_gets_a_file_instead(number: int, tmp_path: Path, monkeypatch) -> None:
    filelock = pytest.importorskip("filelock")

    def without(self: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "_acquire", without)
    monkeypatch.setattr("qcq.support.lock.PATIENCE", 0.1)
    with occupied(tmp_path):
        refused: list[str] = []

        def other() -> None:
            with pytest.raises(ConfigError, match=f"process {os.getpid()} on "), occupied(tmp_path):
                pass
            refused.append("yes")

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert refused == ["yes"]
    assert not (tmp_path / LOCK).exists()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / LOCK).write_text(f"{dead.pid}\n{socket.gethostname()}\n")  # as filelock writes it
    with occupied(tmp_path):
        pass


def test_two_may_claim_a_new_folder_and_drop_a_cell_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "qcq.json.123.partial").write_text("{")  # another process is about to claim it too
    claim(tmp_path / "store", "store")
    store, number = Store(tmp_path / "store").open(), Number(number=1)
    store.perform(number, lambda: number.run(store, lambda *_, **__: None))
    other = Store(store.path)
    store.drop(number)
    other.drop(number)
    assert not store.finished(number)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = store.path / f"{number.key}.dropped.{socket.gethostname()}-{dead.pid}.partial"
    left.mkdir()
    store.tidy()
    assert not left.exists()


def test_a_folder_that_another_claims_at_this_moment_is_no_foreign_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark wasn't there, and is when the folder's files are listed."""
    listed = Path.iterdir

    def late(folder: Path) -> Iterator[Path]:
        if folder == tmp_path and not (folder / MARK).exists():
            write_mark(folder, "store")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", late)
    refuse_foreign(tmp_path, "store")
    assert (tmp_path / MARK).is_file()
    (tmp_path / MARK).unlink()
    with pytest.raises(ConfigError, match="holds a store, not a run"):
        refuse_foreign(tmp_path, "run")


def test_a_cell_that_another_finishes_at_this_moment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wasn't there, and is when its folder is looked for: it has lost no file."""
    store, other, number = Store(tmp_path).open(), Store(tmp_path), Number(number=1)
    here, looked = Store._here, []

    def late(self: Store, cell: Cell) -> bool:
        found = here(self, cell)
        if self is store and not looked:
            looked.append(cell)
            other.perform(cell, lambda: {"number": 1})
        return found

    monkeypatch.setattr(Store, "_here", late)
    monkeypatch.setattr(Store, "_remove", lambda *_: pytest.fail("removed what another has finished"))
    assert store.perform(number, lambda: pytest.fail("done again")) == {"number": 1}
    assert looked


def test_a_lock_that_is_given_back_names_nobody(tmp_path: Path) -> None:
    with occupied(tmp_path):
        assert (tmp_path / OWNER).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK]


def test_nothing_is_discarded_where_another_works(tmp_path: Path) -> None:
    made = Run(claim(tmp_path / "run", "run"))
    (made.path / "report.md").write_text("changed")
    refused: list[str] = []

    def other() -> None:
        with pytest.raises(ConfigError, match="works in this folder"):
            discard(made, [Fault(made.path / "report.md", "changed since it was written")])
        refused.append("yes")

    (made.path / "config.toml").write_text("")
    with occupied(made.path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == ["yes"]
    assert (made.path / "report.md").read_text() == "changed"
