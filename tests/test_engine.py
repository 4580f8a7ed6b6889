"""The engine: keys, the store, plans, processes; the same bytes whoever does the cells, whatever is killed."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qcq.config import Config
from qcq.data import Simulated
from qcq.engine import Cell, Plan, Processes, Row, Serial, Store
from qcq.engine.kinds import Chosen, Scored, Trained
from qcq.engine.verify import _cell
from qcq.errors import ConfigError, DataError, EngineError, QCQError, StoreError, TrainingError, UnknownNameError
from qcq.pipeline import Experiment, run_folds
from qcq.run import Run
from qcq.study import Study
from qcq.support.progress import Watch
from qcq.support.seeds import derive

SMALL = ["walk.length=8", "walk.per_question=2", "mlm.steps=10", "simulated.questions=80", "simulated.students=40"]
FIRST = Config().trainers[0]  # skipgram, or sgns where gensim isn't installed
FEW = Config.load(overrides=[*SMALL, "dim=8", "seeds=2", f"trainers={FIRST},mlm,svd,random"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Number(Cell):
    """A number; it may be asked to fail."""

    number: int
    fails: bool = False

    def run(self, store, progress) -> Row:
        store.file(self, "half.txt").write_text("half")
        if self.fails:
            raise TrainingError(f"{self.number} is refused")
        progress(1, 1)
        store.file(self, "number.txt").write_text(str(self.number))
        return {"number": self.number}


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Cell):
    parts: tuple[Cell, ...]

    def run(self, store, progress) -> Row:
        return {"sum": sum(store.row(part).get("number", 0) for part in self.parts)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Deadly(Number):
    """Its process is killed, the first time."""

    mark: str

    def run(self, store, progress) -> Row:
        if not Path(self.mark).exists():
            Path(self.mark).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(store, progress)


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a run that are made from results, without what was measured by a clock."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if (
            not path.is_file()
            or name.startswith("cells")
            or name in ("environment.json", "report.html", "report.md", "manifest.json")
        ):
            continue
        if name == "training.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            out[name] = json.dumps([{**row, "seconds": 0, "peak_rss_mb": 0} for row in rows]).encode()
        else:
            out[name] = path.read_bytes()
    return out


def test_a_key_hangs_on_settings_inputs_and_revision_but_not_on_the_label():
    one, two = Number(number=1, label="a"), Number(number=2)
    assert one.key == Number(number=1, label="b").key != two.key
    assert Sum(parts=(one, two)).key != Sum(parts=(two, one)).key
    newer = type("Number", (Number,), {"revision": 2, "__qualname__": Number.__qualname__, "__module__": __name__})
    assert newer(number=1).key != one.key
    assert Sum(parts=(one, two)).inputs == (one, two)
    cells = Plan([Sum(parts=(one, two)), one]).cells
    assert set(cells) == {one, two, Sum(parts=(one, two))}
    assert cells[-1] == Sum(parts=(one, two))


def test_a_finished_cell_is_read_and_a_failed_one_leaves_nothing(tmp_path):
    store = Store(tmp_path / "cells").open()
    good, bad = Number(number=1), Number(number=2, fails=True)
    total, other = Sum(parts=(good, bad)), Sum(parts=(good,))
    outcome = Plan([total, other]).execute(Serial(store), store)
    assert outcome.row(other) == {"sum": 1}
    for cell in (bad, total):  # with it falls what reads it, and nothing else
        with pytest.raises(TrainingError, match="2 is refused"):
            outcome.row(cell)
    assert {path.name for path in store.path.iterdir()} == {"qcq.json", good.key, other.key}
    assert store.file(good, "number.txt").read_text() == "1"
    again = Plan([other]).execute(Serial(store), store)
    assert not again.executed
    assert Plan([other]).execute(Serial(store), store, redo=True).executed == {good, other}
    (store.path / good.key / "row.json").write_text("{")
    with pytest.raises(StoreError, match="remove that folder and run again"):
        Store(store.path).row(good)


def test_a_store_is_a_folder_of_its_own(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="did not make"):
        Store(tmp_path).open()
    store = Store(tmp_path / "cells").open()
    left = store.path / f"{Number(number=1).key}.{os.uname().nodename}-999999999.partial"
    alive = store.path / f"{Number(number=1).key}.{os.uname().nodename}-{os.getpid()}.partial"
    for path in (left, alive):
        path.mkdir()
    Store(store.path).open()
    assert not left.exists()  # of a process that was killed
    assert alive.exists()


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("a"),
        UnknownNameError("walk", "qcp", ["qcq"]),
        DataError("no", file="f", row=3, column="c", value=1, fix="do"),
    ],
)
def test_errors_come_back_from_other_processes(error: QCQError):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.__dict__) == (type(error), str(error), error.__dict__)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device", "cells/x"), "cells/x: No space left on device"),
        (MemoryError(), "not enough memory on this machine"),
    ],
)
def test_what_the_machine_refuses_is_the_error_of_its_cell(raised, said, tmp_path, monkeypatch):
    def fail(*_: object) -> Row:
        raise raised

    store, good, bad = Store(tmp_path / "cells").open(), Number(number=1), Sum(parts=(), label="bad")
    monkeypatch.setattr(Sum, "run", fail)
    outcome = Plan([bad, good]).execute(Serial(store), store)
    assert outcome.row(good) == {"number": 1}
    with pytest.raises(QCQError, match=f"^bad: {said}"):
        outcome.row(bad)


def test_a_damaged_artefact_is_the_error_of_its_cell(tmp_path):
    store, cell = Store(tmp_path / "cells").open(), Number(number=1, label="one")
    store.perform(cell, lambda: cell.run(store, lambda *_: None))
    with pytest.raises(StoreError, match=r"number\.txt: Number 'one' has no readable arrays .*remove its folder"):
        store.arrays(cell, "number.txt")
    with pytest.raises(StoreError, match="has no readable arrays"):
        store.arrays(cell, "never written")


def test_a_row_from_before_hashes_is_read(tmp_path):
    store, cell = Store(tmp_path / "cells").open(), Number(number=1)
    (store.path / cell.key).mkdir()
    (store.path / cell.key / "row.json").write_text('{"kind": "Number", "label": "", "row": {"number": 1}}')
    assert store.row(cell) == {"number": 1}
    assert _cell(store.path / cell.key, {})[0] == []


def test_a_seed_is_the_same_number_everywhere():
    """Written here once, because another process would have to be asked for a second opinion."""
    assert derive(0, "walks") == 6584138064701639465
    assert derive(0, "walks", "masks", 1) == 2011118124305216089
    assert derive(-1, "é") == 2278241453017025475


def test_a_plan_waits_for_a_choice_and_trains_nothing_twice(tmp_path):
    experiment = Experiment(FEW)
    method = next(m for m in experiment.methods if m.name == FIRST)
    assert len(method.chosen.candidates) > 1
    store = experiment.store(tmp_path).open()
    outcome = Plan(method.cells).execute(Serial(store), store)
    chosen = outcome.resolved(method.chosen)
    assert isinstance(chosen, Chosen)
    first = outcome.resolved(method.trained[0])
    assert first == chosen.candidates[chosen.candidate(store)]
    kinds = [json.loads(path.read_text())["kind"] for path in store.path.glob("*/row.json")]
    assert kinds.count("Trained") == len(method.chosen.candidates) + 1  # the candidates, and the second seed
    scored = [outcome.resolved(cell) for cell in method.cells if isinstance(cell, Scored)]
    assert all(isinstance(cell.trained.trainer, type(chosen.trainer(store))) for cell in scored)


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> Run:
    return Experiment(FEW).run(tmp_path_factory.mktemp("serial") / "run")


def test_two_processes_make_the_bytes_of_one(serial, tmp_path):
    run = Experiment(FEW).run(tmp_path / "run", jobs=2)
    ours, theirs = tree(run.path), tree(serial.path)
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert sum(name.startswith("embeddings/") for name in ours) >= 8


@pytest.mark.slow
def test_a_shared_store_is_used_by_both(serial, tmp_path):
    config = replace(FEW, store=str(tmp_path / "store"))
    runs = [Experiment(config).run(tmp_path / name) for name in ("one", "two")]
    assert not any((run.path / "cells").exists() for run in runs)
    assert tree(runs[0].path) == tree(runs[1].path)
    times = [{(r["trainer"], r["seed"]): r["seconds"] for r in run.rows("training")} for run in runs]
    assert times[0] == times[1]  # nothing was trained again
    for name, content in tree(runs[0].path).items():
        if name != "config.toml":
            assert content == tree(serial.path)[name], name


def test_a_dead_worker_is_the_error_of_its_cell(tmp_path):
    store = Store(tmp_path / "cells").open()
    deadly = Deadly(number=7, mark=str(tmp_path / "mark"), label="deadly")
    others = [Number(number=n) for n in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        for folder in (Path(__file__).parent.parent, Path(__file__).parent):  # workers import this module by its name
            patch.syspath_prepend(str(folder))
        with Processes(store, 2) as workers:
            outcome = Plan([deadly, *others]).execute(workers, store)
            again = Plan([deadly]).execute(workers, store)
    assert again.row(deadly) == {"number": 7}
    with pytest.raises(EngineError, match=r"deadly: its process ended \(killed by SIGKILL\)"):
        outcome.row(deadly)
    assert [outcome.row(other)["number"] for other in others] == [0, 1, 2, 3]


def imported(monkeypatch, script):
    """Each new process imports this script first, as it does that of its parent."""
    made = multiprocessing.spawn.get_preparation_data

    def changed(name):
        found = made(name)
        found.pop("init_main_from_name", None)
        return {**found, "init_main_from_path": str(script)}

    monkeypatch.setattr("multiprocessing.spawn.get_preparation_data", changed)


def test_a_script_that_would_begin_again_in_each_process_is_said(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from qcq.engine.processes import end_imported\nend_imported()\n")
    imported(monkeypatch, tmp_path / "mine.py")
    store = Store(tmp_path / "cells", {"large": bytes(10**6)}).open()  # more than the pipe of a new process holds
    with Processes(store, 2) as workers, pytest.raises(EngineError, match="would begin its work again; put that"):
        Plan([Number(number=n) for n in range(3)]).execute(workers, store)


def test_processes_that_cannot_begin_end_the_run(tmp_path, monkeypatch, capfd):
    (tmp_path / "mine.py").write_text("raise OSError('no such licence')\n")
    imported(monkeypatch, tmp_path / "mine.py")
    store = Store(tmp_path / "cells").open()
    with (
        Processes(store, 1) as workers,
        pytest.raises(EngineError, match=r"before it began \(exit code 1\); it imports"),
    ):
        Plan([Number(number=n) for n in range(3)]).execute(workers, store)
    assert capfd.readouterr().err.count("no such licence") == 2  # the line and the error of one traceback


def test_whatever_begins_processes_ends_in_one_that_imports_its_script(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    config = replace(FEW, folds=2)
    for begin in (Experiment(FEW).run, partial(run_folds, config), Study("small").run):
        with pytest.raises(SystemExit):
            begin(tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_script_without_a_guard_ends_with_one_error(tmp_path):
    lines = ["from qcq.config import Config", "from qcq.pipeline import Experiment"]
    lines += ["made = Experiment(Config.load(overrides=['trainers=svd', 'tasks=edges', 'seeds=1']))"]
    lines += ["made.run('out', jobs=2)"]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].startswith("qcq.errors.EngineError: mine.py: each process imports this script")


def test_a_cell_that_cannot_be_sent_or_read_is_the_only_one_that_fails(tmp_path, monkeypatch):
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Local(Number):
        """pickle finds no class in a function."""

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Elsewhere(Number):
        """Its module can be imported in this process alone, as that of a notebook."""

    Elsewhere.__module__, Elsewhere.__qualname__ = "only_here", "Elsewhere"
    monkeypatch.setitem(sys.modules, "only_here", SimpleNamespace(Elsewhere=Elsewhere))
    for folder in (Path(__file__).parent.parent, Path(__file__).parent):
        monkeypatch.syspath_prepend(str(folder))
    store = Store(tmp_path / "cells").open()
    cells = [Number(number=1), Local(number=2), Elsewhere(number=3), Number(number=4)]
    with Processes(store, 1) as workers:
        outcome = Plan(cells).execute(workers, store)
    assert [outcome.row(cells[at])["number"] for at in (0, 3)] == [1, 4]
    with pytest.raises(EngineError, match=r"can't be sent to another process \(.*Local.*; use jobs=1$"):
        outcome.row(cells[1])
    with pytest.raises(
        EngineError, match=r"can't read it \(No module named 'only_here'\); define its classes in a mod"
    ):
        outcome.row(cells[2])


def test_data_that_cannot_be_sent_are_the_error_of_every_cell(tmp_path):
    store = Store(tmp_path / "cells", {"a": lambda: 1}).open()
    with Processes(store, 1) as workers:
        outcome = Plan(cells := [Number(number=n) for n in range(2)]).execute(workers, store)
    for cell in cells:
        with pytest.raises(EngineError, match=r"can't be sent to another process \(.*lambda.*\); use jobs=1$"):
            outcome.row(cell)


COMMAND = [
    "run",
    "--quiet",
    "--trainers",
    f"{FIRST},mlm,svd",
    "--seeds",
    "2",
    *(f"--set={s}" for s in [*SMALL, "dim=8"]),
]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_some_moment_it_ends_with_the_same_bytes(jobs, tmp_path):
    command = [sys.executable, "-c", "from qcq.cli import main; main()", *COMMAND, "--jobs", str(jobs), "--out"]
    rng = np.random.default_rng(jobs)
    for kill in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(2.0, 6.0)))
        process.send_signal(kill)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_a_run_says_whether_it_is_finished(serial, tmp_path):
    assert serial.finished
    about = json.loads((serial.path / "about.json").read_text())
    assert about["finished"] is True


class Heard(Watch):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_a_failure_is_said_and_the_rest_goes_on(tmp_path, monkeypatch):
    def full(self, store, progress):
        raise MemoryError

    heard = Heard()
    monkeypatch.setattr(Trained, "run", full)
    run = Experiment(replace(FEW, trainers=("svd",))).run(tmp_path / "run", watch=heard)
    assert [row["error"] for row in run.rows("training")] == [
        "svd (settings 1 of 3), seed 0: not enough memory on this machine"
    ]
    assert any("failed" in line for line in heard.lines)


def test_the_data_are_part_of_the_key():
    def keys(**changes) -> set[str]:
        data = Simulated(questions=60, concepts=6, students=30, **changes).read()
        experiment = Experiment(replace(FEW, trainers=("svd",)), data)
        return {cell.key for cell in experiment.plan.cells if isinstance(cell, Scored)}

    assert keys() == keys()
    assert not keys() & keys(seed=1)
    other = Experiment(replace(FEW, trainers=("svd",), seed=5)).plan.cells  # another division of the students
    assert not {c.key for c in Experiment(replace(FEW, trainers=("svd",))).plan.cells} & {c.key for c in other}
