"""A store at an address: the bytes of a local one, shared by folders that have nothing else in common."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from qcq.config import Config
from qcq.engine import Store, make_store
from qcq.engine.kinds import Trained
from qcq.engine.remote import RemoteStore
from qcq.errors import ConfigError
from qcq.pipeline import Experiment

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
