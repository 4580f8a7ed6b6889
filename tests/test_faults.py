"""Whatever call fails while something is written: all of it is there or nothing, and the next try succeeds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import qcq
from qcq.embeddings import Embeddings
from qcq.engine import Cell, Row, Store
from qcq.errors import QCQError
from qcq.support.files import partial_path, tidy, whole, write_text
from qcq.support.folders import MARK, claim, refuse_foreign

BENCHMARKS = Path(qcq.__file__).parent / "benchmarks"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


injection = module("injection")
PASSING = [name for name, fault in injection.FAULTS.items() if fault.raised is not None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Arrays(Cell):
    """Two files in a cell, one of them in a folder."""

    number: int = 3

    def run(self, store: Store, progress: object) -> Row:
        with whole(store.file(self, "one.npz")) as file:
            np.savez(file, a=np.arange(self.number))
        write_text(store.file(self, "more/two.txt"), "two\n" * 1000)
        return {"number": self.number}


def perform(home: Path) -> None:
    store = Store(home / "cells").open()
    cell = Arrays()
    store.perform(cell, lambda: cell.run(store, None))


def redo(home: Path) -> None:
    store = Store(home / "cells").open()
    cell = Arrays()
    store.perform(cell, lambda: cell.run(store, None), redo=True)


def table(ending: str) -> Callable[[Path], object]:
    return lambda home: Embeddings(["a", "b"], np.eye(2)).save(home / "in" / f"table{ending}")


WRITERS: dict[str, Callable[[Path], object]] = {
    "store": perform,
    "store, redo": redo,
    "mark": lambda home: claim(home / "run", "run"),
    **{ending: table(ending) for ending in (".safetensors", ".parquet", ".csv", ".npz", ".json", ".pt", ".bin")},
}


def contents(home: Path) -> dict[str, bytes]:
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}


CASES = [(writer, fault) for writer in WRITERS for fault in (PASSING if writer[0] != "." else ["ENOSPC"])]
SLOW, QUICK = ("store", "store, redo"), [("store", "ENOSPC")]


@pytest.mark.parametrize(
    ("writer", "fault"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW and case not in QUICK else []) for case in CASES],
)
def test_any_call_may_fail_and_nothing_half_written_stays(writer: str, fault: str, tmp_path: Path) -> None:
    write, home = WRITERS[writer], tmp_path.resolve() / "home"
    home.mkdir()
    with injection.Shim(home).under() as counted:
        write(home)
    reference, calls = contents(home), len(counted.calls)
    assert calls > 3
    struck = 0
    for at in range(calls):
        if writer != "store, redo":  # this one is to replace what is there
            shutil.rmtree(home)
            home.mkdir()
        shim = injection.Shim(home, injection.FAULTS[fault], at)
        with shim.under():
            try:
                write(home)
            except (OSError, MemoryError, QCQError):
                struck += 1
        for name, data in contents(home).items():
            assert ".partial" in name or data == reference[name], (at, shim.struck)
        write(home)
        assert contents(home) == reference, (at, shim.struck)
    assert struck > 1  # or this test says nothing


def test_every_file_and_its_folder_are_flushed_before_and_after_it_gets_its_name(tmp_path: Path) -> None:
    home = tmp_path.resolve()
    with injection.Shim(home).under() as shim:
        write_text(home / "new" / "a.txt", "a")
    # The file, its name, and the two folders that got a new name: "new", and the one that it is in.
    assert " ".join(shim.calls) == "mkdir open write fsync rename unlink fsync fsync"


def test_a_finished_cell_is_flushed_with_its_folder(tmp_path: Path) -> None:
    home = tmp_path.resolve()
    Store(home / "cells").open()
    with injection.Shim(home).under() as shim:
        perform(home)
    calls = shim.calls
    last = len(calls) - 1 - calls[::-1].index("rename")  # by which the cell gets its name
    assert calls[last + 1] == "fsync"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")

    def half() -> None:
        with whole(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert contents(tmp_path) == {"a.txt": b"before"}


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    mine = partial_path(tmp_path / "a.txt")
    gone = mine.with_name(mine.name.replace(f"-{os.getpid()}.", "-999999999."))
    elsewhere = tmp_path / "a.txt.elsewhere-999999999.partial"
    for path in (mine, gone, elsewhere):
        path.write_text("half")
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, elsewhere.name])


def test_what_a_killed_process_left_of_a_file_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    gone = [partial_path(tmp_path / name) for name in ("a.txt", "b.txt")]
    gone = [path.with_name(path.name.replace(f"-{os.getpid()}.", "-999999999.")) for path in gone]
    for path in gone:
        path.write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", gone[1].name]


def test_a_folder_whose_mark_was_being_written_is_claimed_again(tmp_path: Path) -> None:
    (tmp_path / f"{MARK}.elsewhere-7.partial").write_text("{")
    refuse_foreign(tmp_path, "run")
    claim(tmp_path, "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(QCQError, match=r"files that qcq did not make \('notes.txt'\)"):
        refuse_foreign(tmp_path / "run", "run")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("injected", "--only", "split", "--step", "2"), ("damaged", "--times", "3")])
def test_faults_are_survived(words: tuple[str, ...], tmp_path: Path) -> None:
    """Some of the faults of benchmarks/faults.py: on the shortest of its commands, and on three files of a run."""
    command = [sys.executable, str(BENCHMARKS / "faults.py"), *words]
    made = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert made.returncode == 0, made.stdout + made.stderr
    assert "survived" in made.stdout
