"""The store, and a run that is continued, in any order of mishaps; a plain model says what is to be there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import qcq.engine.store
from qcq.config import Config
from qcq.engine import Cell, Row, Store
from qcq.engine.store import ROW
from qcq.engine.verify import discard, verify, write_manifest
from qcq.errors import ConfigError, QCQError, StoreError, TrainingError
from qcq.pipeline import Experiment
from qcq.run import MANIFEST, Run
from qcq.support.files import write_text
from qcq.support.folders import MARK, claim
from qcq.support.lock import OWNER

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="another process is a fork of this one")
CELLS = st.integers(0, 2)


@pytest.fixture(autouse=True, scope="module")
def _without_waiting_for_a_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


KEPT = {"one.txt": "one {0}\n" * 9, "more/two.txt": "two {0}\n"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Letters(Cell):
    """Two files whose content is known beforehand; something may happen between them."""

    number: int

    def run(self, store: Store, progress: object, between: Callable[[], object] = lambda: None) -> Row:
        for name, text in KEPT.items():
            write_text(store.file(self, name), text.format(self.number))
            between()
        return {"number": self.number, "half": self.number / 2}


def other_process(work: Callable[[], object]) -> int:
    """What a copy of this process ended with, which did the work."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def dies(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spoil(path: Path, way: str, at: int) -> None:
    """Flip a bit of a file, cut it, or remove it."""
    held = bytearray(path.read_bytes())
    if way == "lose":
        path.unlink()
    elif way == "cut":
        path.write_bytes(bytes(held[: at % len(held)]))
    else:
        held[at % len(held)] ^= 1 << (at % 8)
        path.write_bytes(bytes(held))


class Storing(RuleBasedStateMachine):
    """The model: the finished cells, each with its damaged files; and what was left in the folder by others."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp()).resolve()
        self.run = Run(claim(self.home / "run", "run"))
        self.path = self.run.path / "cells"
        self.store = Store(self.path).open()
        write_manifest(self.run)
        self.there: dict[int, dict[str, str]] = {}
        self.dead: set[str] = set()  # names left by killed processes of this machine
        self.elsewhere: set[str] = set()  # and by another machine

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    def perform(self, number: int, between: Callable[[], object] = lambda: None, redo: bool = False) -> int:
        """Ask for a cell, and return how often it was run."""
        cell, times = Letters(number=number), []

        def work() -> Row:
            times.append(1)
            return cell.run(self.store, None, between)

        assert self.store.perform(cell, work, redo=redo) == {"number": number, "half": number / 2}
        return len(times)

    def finished(self, number: int) -> bool:
        lost = {name for name, way in self.there.get(number, {}).items() if way == "lose"}
        return number in self.there and ROW not in lost and (not lost or ROW in self.there[number])

    @rule(number=CELLS, redo=st.booleans())
    def ask(self, number: int, redo: bool) -> None:
        if self.finished(number) and not redo and ROW in self.there[number]:
            self.store = Store(self.path)  # another process: this one may know the row
            with pytest.raises(StoreError, match="remove that folder and run again"):
                self.perform(number)
            return
        again = redo or not self.finished(number)
        assert self.perform(number, redo=redo) == again
        if again:
            self.there[number] = {}

    @rule(number=CELLS)
    def fail(self, number: int) -> None:
        def refuse() -> None:
            raise TrainingError("refused")

        if not self.finished(number):
            with pytest.raises(TrainingError, match="refused"):
                self.perform(number, refuse)
            self.there.pop(number, None)  # what had lost its row is removed before it is begun

    @rule(number=CELLS)
    def drop(self, number: int) -> None:
        self.store.drop(Letters(number=number))
        self.there.pop(number, None)

    @rule(number=CELLS)
    def another_is_faster(self, number: int) -> None:
        """A second process makes the same cell whole while the first one is in the middle of it."""
        if not self.finished(number):
            codes: list[int] = []

            def between() -> None:
                if not codes:
                    codes.append(other_process(lambda: self.perform(number)))
                    assert ".partial" in str(self.store.file(Letters(number=number), "one.txt"))

            self.perform(number, between)
            assert codes == [0]
            self.there[number] = {}

    @rule(number=CELLS, dropping=st.booleans())
    def kill(self, number: int, dropping: bool) -> None:
        if self.finished(number) != dropping:
            return

        def work() -> None:
            if dropping:
                qcq.engine.store.shutil.rmtree = dies  # type: ignore[attr-defined]
                self.store.drop(Letters(number=number))
            self.perform(number, dies)

        before = {path.name for path in self.path.iterdir()}
        assert other_process(work) == -signal.SIGKILL
        self.there.pop(number, None)
        left = {path.name for path in self.path.iterdir()} - before
        assert len(left) == 1
        self.dead |= left

    @rule(number=CELLS)
    def leave_from_elsewhere(self, number: int) -> None:
        name = f"{Letters(number=number).key}.elsewhere-7.partial"
        (self.path / name).mkdir(exist_ok=True)
        self.elsewhere.add(name)

    @rule()
    def open(self) -> None:
        self.store = Store(self.path).open()
        self.dead.clear()

    @precondition(lambda self: self.there)
    @rule(data=st.data(), way=st.sampled_from(["flip", "cut", "lose"]), at=st.integers(0, 10_000))
    def spoil_a_file(self, data: Any, way: str, at: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.there)))
        name = data.draw(st.sampled_from([ROW, *KEPT]))
        if name not in self.there[number]:
            spoil(self.path / Letters(number=number).key / name, way, at)
            self.there[number][name] = way

    @rule()
    def compare_and_discard(self) -> None:
        expected = {self.path / name for name in self.dead}  # a process elsewhere may still write
        for number, names in self.there.items():  # of a cell whose row is spoilt, nothing more is known
            expected |= {self.path / Letters(number=number).key / name for name in {ROW} & names.keys() or names}
        faults, _ = verify(self.run)
        assert {fault.path for fault in faults} == expected
        discard(self.run, faults)
        self.there = {number: names for number, names in self.there.items() if not names}
        self.dead.clear()
        assert verify(self.run)[0] == []

    @invariant()
    def all_that_is_whole_can_be_read(self) -> None:
        fresh = Store(self.path)
        names = {path.name for path in self.path.iterdir()} - {MARK}
        assert names == {Letters(number=n).key for n in self.there} | self.dead | self.elsewhere
        for number in range(3):
            cell = Letters(number=number)
            assert fresh.finished(cell) == self.finished(number)
            if number not in self.there or ROW in self.there[number]:
                with pytest.raises(StoreError):
                    fresh.row(cell)
                continue
            assert fresh.row(cell) == {"number": number, "half": number / 2}
            for name in KEPT.keys() - self.there[number].keys():
                assert fresh.file(cell, name).read_text() == KEPT[name].format(number)


class StoringLonger(Storing):
    """The same at length."""


TestStoring = Storing.TestCase
TestStoring.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestStoringLonger = pytest.mark.slow(StoringLonger.TestCase)
TestStoringLonger.settings = settings(TestStoring.settings, max_examples=40)

SMALL = ["simulated.questions=60", "simulated.students=30", "simulated.responses=10", "walk.per_question=2", "dim=4"]
SETTINGS = [*SMALL, "tasks=retrieval", "tune=false"]
TRAINERS = ("concept-onehot", "random", "svd")
MEASURED = ("environment.json", "report.md", "report.html", MANIFEST)
TIMES = ("seconds", "peak_rss_mb", "fit_seconds", "tokens_per_second")


class Stopped(BaseException):
    """What no code of a run catches."""


def contents(folder: Path) -> dict[str, bytes]:
    """The files that are made from results, without what a clock measured."""
    out = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in MEASURED or name.startswith("cells/") or ".partial" in name:
            continue
        out[name] = path.read_bytes()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in out[name].splitlines()]
            out[name] = json.dumps([{key: each[key] for key in each if key not in TIMES} for each in rows]).encode()
    return out


def go(folder: Path, trainers: tuple[str, ...], seeds: int, redo: bool = False) -> Run:
    given = [*SETTINGS, f"trainers={','.join(trainers)}", f"seeds={seeds}"]
    return Experiment(Config.load(overrides=given)).run(folder, redo=redo)


@cache
def undisturbed(trainers: tuple[str, ...], seeds: int) -> dict[str, bytes]:
    """What a run in an empty folder makes."""
    with tempfile.TemporaryDirectory() as home:
        return contents(go(Path(home, "run"), trainers, seeds).path)


class Resuming(RuleBasedStateMachine):
    """The model: which run was last asked for, whether it ended, and whether a file was spoilt since."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp()).resolve()
        self.folder = self.home / "run"
        self.asked: tuple[tuple[str, ...], int] | None = None
        self.shown: set[tuple[str, int]] = set()  # rows that the tables show
        self.ended = self.spoilt = False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("qcq.pipeline.write_page", write_manifest)  # the page itself takes most of the time

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.home)

    def rows(self) -> set[tuple[str, int]]:
        return {(row["trainer"], row["seed"]) for row in Run(self.folder).rows("training")}

    @precondition(lambda self: not self.spoilt)
    @rule(
        trainers=st.sets(st.sampled_from(TRAINERS), min_size=1).map(lambda some: tuple(sorted(some))),
        seeds=st.integers(1, 2),
        stop=st.none() | st.integers(0, 8),
    )
    def run(self, trainers: tuple[str, ...], seeds: int, stop: int | None) -> None:
        wanted = {(trainer, seed) for trainer in trainers for seed in range(seeds)}
        if self.shown - wanted:
            before = contents(self.folder)
            with pytest.raises(ConfigError, match="in it, not here"):
                go(self.folder, trainers, seeds)
            assert contents(self.folder) == before
            return
        left = [stop]
        perform = Store.perform

        def counted(store: Store, cell: Cell, run: Callable[[], Row], **more: Any) -> Row:
            if left[0] == 0:
                raise Stopped
            left[0] = None if left[0] is None else left[0] - 1
            return perform(store, cell, run, **more)

        self.asked, self.ended = (trainers, seeds), False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "perform", counted)
            try:
                go(self.folder, trainers, seeds)
            except Stopped:
                assert self.shown <= self.rows() <= wanted  # nothing that was shown is lost
                self.shown = self.rows()
                return
        self.shown, self.ended = wanted, True
        assert self.rows() == wanted

    @precondition(lambda self: self.asked is not None and not self.spoilt)
    @rule(data=st.data(), dropping=st.booleans())
    def leave(self, data: Any, dropping: bool) -> None:
        """What a killed process leaves: half a cell, or half a file."""
        dead = f"{socket.gethostname()}-999999999.partial"
        (self.folder / f"results.jsonl.{dead}").write_text("{")
        (self.folder / "cells").mkdir(exist_ok=True)
        half = self.folder / "cells" / f"{'0' * 32}{'.dropped' * dropping}.{dead}"
        half.mkdir(exist_ok=True)
        (half / "half.txt").write_text("half")
        self.ended = False

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), way=st.sampled_from(["flip", "cut", "lose"]), at=st.integers(0, 10**6))
    def spoil_a_file(self, data: Any, way: str, at: int) -> None:
        own = {self.folder / MARK, self.folder / "cells" / MARK, self.folder / ".lock"}
        files = sorted(p for p in self.folder.rglob("*") if p.is_file() and p not in own and p.stat().st_size)
        path = files[data.draw(st.integers(0, 10**6)) % len(files)]
        spoil(path, way, at)
        self.spoilt = True
        found = {fault.path for fault in verify(Run(self.folder))[0]}
        named = path in found or any(path.is_relative_to(row.parent) for row in found if row.name == ROW)
        unread = self.folder / MANIFEST in found  # then there are no hashes to compare a view with
        assert found if path.name == MANIFEST or unread else named

    @precondition(lambda self: self.spoilt)
    @rule()
    def run_over_damage(self) -> None:
        """The same command again works, or says in one line what is damaged."""
        if said := self.again():
            assert "\n" not in said
            assert str(self.folder) in said

    @precondition(lambda self: self.spoilt)
    @rule()
    def repair(self) -> None:
        """As ``qcq verify --repair`` does, which sends to the first command if settings or hashes are lost."""
        run = Run(self.folder)
        faults, _ = verify(run)
        if any(fault.path.name == "config.toml" for fault in faults):
            with pytest.raises(ConfigError, match="run the first command again"):
                discard(run, faults)
            assert not self.again()
            faults, _ = verify(run)
        discard(run, faults)
        assert not self.again()
        self.spoilt = False

    def again(self, redo: bool = False) -> str:
        """The same command: what it complains about."""
        assert self.asked is not None
        try:
            go(self.folder, *self.asked, redo=redo)
        except QCQError as error:
            return str(error)
        return ""

    @invariant()
    def what_ended_is_whole(self) -> None:
        if self.asked is None or self.spoilt:
            return
        assert not (self.folder / OWNER).exists()
        if self.ended:
            assert not list(self.folder.rglob("*.partial"))
            assert verify(Run(self.folder))[0] == []
            assert contents(self.folder) == undisturbed(*self.asked)


# Each step takes a while, so a failing case isn't made shorter.
FEW = settings(max_examples=4, stateful_step_count=12, deadline=None, phases=[Phase.generate])


class ResumingLonger(Resuming):
    """The same at length."""


TestResuming = Resuming.TestCase
TestResuming.settings = FEW
TestResumingLonger = pytest.mark.slow(ResumingLonger.TestCase)
TestResumingLonger.settings = settings(FEW, max_examples=12)
