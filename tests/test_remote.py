"""A store at an address: the bytes of a local one, shared by folders that have nothing else in common."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from qcq.config import Config
from qcq.engine import Store, make_store
from qcq.engine.kinds import Trained, Walked
from qcq.engine.remote import RemoteStore
from qcq.errors import ConfigError, StoreError
from qcq.pipeline import Experiment
from qcq.walks import QCQ

SMALL = ["walk.length=8", "walk.per_question=2", "simulated.questions=80", "simulated.students=40"]
FEW = Config.load(overrides=[*SMALL, "dim=8", "seeds=1", "tune=false", "trainers=sgns,svd", "tasks=retrieval"])


@pytest.fixture(params=["file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/far/cells" if request.param == "file" else f"memory://{uuid.uuid4()}/cells"


def vectors(folder: Path) -> dict[str, bytes]:
    files = [path for path in (folder / "embeddings").rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_second_folder_trains_nothing_again(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Experiment(FEW).run(tmp_path / "local")
    far = replace(FEW, store=address)
    first = Experiment(far).run(tmp_path / "first")
    assert vectors(first.path) == vectors(local.path)
    monkeypatch.setattr(Trained, "run", lambda *_: pytest.fail("trained again"))
    second = Experiment(far).run(tmp_path / "second")
    assert vectors(second.path) == vectors(local.path)
    cells = [{path.name for path in (run.path / "cells").iterdir()} for run in (first, second)]
    assert cells[1] <= cells[0]  # what nobody asked for isn't fetched


def test_a_cell_without_its_row_is_not_finished_and_a_dropped_one_is_gone(address: str, tmp_path: Path) -> None:
    experiment = Experiment(replace(FEW, store=address, trainers=("svd",)))
    store = experiment.store(experiment.run(tmp_path / "run").path)
    assert isinstance(store, RemoteStore)
    cell = next(cell for cell in experiment.plan.cells if isinstance(cell, Trained))

    def other(name: str) -> Store:
        return make_store(address, tmp_path / name / "cells", {}).open()

    assert other("one").finished(cell)
    assert cell.table(other("one"), "table").is_file()
    row = f"{store._root}/{cell.key}/row.json"
    held = store._files.cat_file(row)
    store._files.rm_file(row)
    assert not other("two").finished(cell)
    store._files.pipe_file(row, held)
    assert other("three").finished(cell)
    store.drop(cell)
    assert not other("four").finished(cell)


def test_two_may_fetch_a_cell_at_once(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's folder of the cell isn't taken away when the first one comes later."""
    experiment = Experiment(replace(FEW, store=address, trainers=("svd",)))
    store = experiment.store(experiment.run(tmp_path / "run").path)
    cell = next(cell for cell in experiment.plan.cells if isinstance(cell, Trained))
    first, second = (make_store(address, tmp_path / "shared" / "cells", {}).open() for _ in range(2))
    assert isinstance(first, RemoteStore)
    get, begun = first._files.get_file, []

    def late(there: str, here: str) -> None:
        get(there, here)
        if not begun:
            begun.append(there)
            second.row(cell)

    monkeypatch.setattr(first._files, "get_file", late)
    monkeypatch.setattr(first, "_remove", lambda *_: pytest.fail("removed what another has fetched"))
    assert first.row(cell) == store.row(cell)
    assert begun


def test_a_machine_without_the_folder_takes_its_own(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there"))
    (tmp_path / "there").mkdir()
    store = make_store(address, tmp_path / "nowhere", {})
    assert store.seen()
    assert store.path.parent == tmp_path / "there"
    assert not Store(tmp_path / "nowhere").seen()


def test_addresses_that_are_no_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that qcq did not make"):
        make_store(f"file://{tmp_path}/mine", tmp_path / "cells", {}).open()
    with pytest.raises(ConfigError, match="no such store can be opened"):
        make_store("nothing://x/y", tmp_path / "cells", {})


class ClientError(Exception):
    """What a library of a bucket raises: it is neither an OSError nor one of ours."""


def rows_at(address: str) -> list[str]:
    """The rows of cells at an address in memory."""
    root = address.removeprefix("memory:/")
    return [path for path in MemoryFileSystem.store if path.startswith(root) and path.endswith("row.json")]


def failing(error: Exception) -> Callable[..., Any]:
    def failed(*args: Any, **more: Any) -> Any:
        raise error

    return failed


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("AccessDenied\nwhen calling PutObject"),
        pytest.param(ClientError("503 slow down"), marks=pytest.mark.slow),
        pytest.param(OSError(28, "No space left on device"), marks=pytest.mark.slow),
    ],
)
def test_what_could_not_be_copied_is_copied_by_the_next_run(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"memory://{uuid.uuid4()}/cells"
    far = replace(FEW, store=address, trainers=("svd",))
    local = Experiment(replace(FEW, trainers=("svd",))).run(tmp_path / "local")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", failing(error))
        Experiment(far).run(tmp_path / "run")
    said = [json.loads(line)["error"] for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()]
    assert said
    for line in said:
        assert re.fullmatch(rf"store {address}: can't be written \({type(error).__name__}: [^\n]+\); check .*", line)
    assert not rows_at(address)
    monkeypatch.setattr(Walked, "run", failing(AssertionError("walked again")))
    again = Experiment(far).run(tmp_path / "run")
    assert vectors(again.path) == vectors(local.path)
    there = {path.split("/")[-2] for path in rows_at(address)}
    assert there == {path.parent.name for path in (local.path / "cells").glob("*/row.json")}


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("exists", ClientError("403 Forbidden")),
        ("makedirs", PermissionError("AccessDenied")),
        ("pipe_file", TimeoutError()),
    ],
)
def test_an_address_that_does_not_answer_or_refuses_is_one_line(
    method: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, method, failing(error))
    address = f"memory://{uuid.uuid4()}/cells"
    with pytest.raises(
        StoreError, match=rf"store {address}: can't be opened \({type(error).__name__}: .+\); check"
    ) as e:
        make_store(address, tmp_path / "cells", {}).open()
    assert "\n" not in str(e.value)


def test_reading_and_dropping_at_an_address_fail_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"memory://{uuid.uuid4()}/cells"
    experiment = Experiment(replace(FEW, store=address, trainers=("svd",)))
    experiment.run(tmp_path / "run")
    cell = next(cell for cell in experiment.plan.cells if isinstance(cell, Trained))
    for method, ask, done in (
        ("get_file", lambda store: store.row(cell), "read"),
        ("cat_file", lambda store: store.file(cell, "x"), "read"),
        ("rm_file", lambda store: store.drop(cell), "changed"),
    ):
        store = make_store(address, tmp_path / method, {}).open()
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, method, failing(ClientError("gone")))
            with pytest.raises(StoreError, match=rf"can't be {done} \(ClientError: gone\)"):
                ask(store)
        assert not list((tmp_path / method).glob("*.partial"))
        assert store.row(cell) == experiment.store(tmp_path / "run").row(cell)


def test_two_stores_of_one_address_have_one_result(tmp_path: Path) -> None:
    address = f"memory://{uuid.uuid4()}/cells"
    experiment = Experiment(replace(FEW, trainers=("svd",)))
    experiment.run(tmp_path / "run")
    cell = next(cell for cell in experiment.plan.cells if isinstance(cell, Trained))
    one, other = (make_store(address, tmp_path / name, {}).open() for name in ("one", "other"))
    assert not other.finished(cell)
    one.perform(cell, lambda: {"by": "one"})
    assert other.perform(cell, lambda: {"by": "other"}) == {"by": "one"}  # it looked before the first one was done
    one.drop(cell)
    assert not other.finished(cell)
    assert other.perform(cell, lambda: {"by": "other"}) == {"by": "one"}  # from its folder, and copied again
    assert make_store(address, tmp_path / "third", {}).open().row(cell) == {"by": "one"}
    assert other.perform(cell, lambda: {"by": "other"}, redo=True) == {"by": "other"}
    assert make_store(address, tmp_path / "fourth", {}).open().row(cell) == {"by": "other"}


def test_what_this_machine_lacks_is_not_blamed_on_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"memory://{uuid.uuid4()}/cells"
    experiment = Experiment(replace(FEW, store=address, trainers=("svd",)))
    experiment.run(tmp_path / "run")
    cell = next(cell for cell in experiment.plan.cells if isinstance(cell, Trained))
    store = make_store(address, tmp_path / "other", {}).open()
    full = OSError(28, "No space left on device", str(tmp_path / "other" / "x"))
    for error in (full, MemoryError()):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "get_file", failing(error))
            with pytest.raises(type(error)):
                store.row(cell)


def test_no_name_in_a_foreign_store_leaves_the_folder(address: str, tmp_path: Path) -> None:
    first, second = (make_store(address, tmp_path / name / "cells", {}).open() for name in ("one", "two"))
    assert isinstance(first, RemoteStore)
    cell = Walked(data="", walk=QCQ(), seed=0, graph="")
    first._files.makedirs(f"{first._root}/{cell.key}", exist_ok=True)
    first._files.pipe_file(f"{first._root}/{cell.key}/row.json", json.dumps({"files": {"../../../mine": ""}}).encode())
    first._files.pipe_file(f"{first._root}/mine", b"foreign")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="no readable cell"):
        second.row(cell)
    assert (tmp_path / "mine").read_text() == "mine"
