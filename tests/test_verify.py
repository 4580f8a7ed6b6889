"""A run knows its own files: whatever is changed, cut short, lost or added is found, and made again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq import Run, cli
from qcq.config import Config
from qcq.engine.store import sealed
from qcq.engine.verify import _listed, discard, verify
from qcq.errors import ConfigError
from qcq.run import MANIFEST
from qcq.support.folders import refuse_foreign

COMMAND = ["--trainers", "sgns,svd", "--seeds", "2", "--set", "tune=false", "--quiet"]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("verify")
    (home / "q.csv").write_text("question,concepts\n" + "".join(f"q{i},c{i % 4};c{i % 5}\n" for i in range(40)))
    assert call("run", "--data", str(home / "q.csv"), "--out", str(home / "run"), *COMMAND) == 0
    return home / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def files(run: Path) -> list[Path]:
    """Every file that has a hash: the mark of the folder, that of its store, and the hashes themselves have none."""
    return sorted(path for path in run.rglob("*") if path.is_file() and path not in {*known(run), run / ".lock"})


def known(run: Path) -> list[Path]:
    """Files without a hash, of which it is known what they say."""
    return [run / "qcq.json", run / "cells" / "qcq.json", run / MANIFEST]


def test_a_run_as_it_was_written_has_no_fault(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faults, checked = verify(Run.open(finished))
    assert faults == []
    assert checked == len(files(finished))
    assert call("verify", str(finished)) == 0
    assert f"{checked} files compared, 0 faults" in capsys.readouterr().out


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_cut_or_lost_file_is_found(
    finished: Path, tmp_path_factory: pytest.TempPathFactory, data
) -> None:
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("one") / "run"))
    path = data.draw(st.sampled_from([*known(run), *files(run)]))
    way = data.draw(st.sampled_from(["flip", "cut", "lose", "add", "double"]))
    held = bytearray(path.read_bytes())
    if way == "flip" and held:
        at = data.draw(st.integers(0, len(held) - 1))
        held[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(bytes(held))
    elif way == "cut" and held:
        path.write_bytes(bytes(held[: data.draw(st.integers(0, len(held) - 1))]))
    elif way == "double" and held:
        at = data.draw(st.integers(0, len(held) - 1))
        path.write_bytes(bytes(held[:at] + held[at : at + 1] + held[at:]))
    elif way == "lose":
        path.unlink()
    else:
        (path.parent / "stranger").write_text("hello")
    faults, _ = verify(Run(run))
    assert faults
    shutil.rmtree(run)


def test_any_changed_byte_of_a_mark_or_of_the_hashes_is_found(run: Path) -> None:
    """Also where they say the same: a blank more, or another number of the format."""
    for path in known(run):
        held = path.read_bytes()
        for at in range(0, min(len(held), 40), 3):
            for other in (
                held[:at] + held[at : at + 1] + held[at:],
                held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :],
            ):
                path.write_bytes(other)
                assert verify(Run(run))[0], other
        path.write_bytes(held)
    (run / "qcq.json").write_text('{"kind": "run"}\n')  # as qcq 0.1 wrote it
    assert verify(Run(run))[0] == []


def test_a_fault_names_its_cell_and_is_repaired_to_the_same_bytes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(run.glob("embeddings/qcq--sgns*seed-1.safetensors"))
    whole = table.read_bytes()
    artefact = next(path for path in run.glob("cells/*/*.safetensors") if path.read_bytes() == whole)
    for path in {table, artefact}:
        path.write_bytes(whole[:-4] + b"\0\0\0\1")
    assert call("verify", str(run), "--json") == 1
    found = json.loads(capsys.readouterr().out)["faults"]
    assert {Path(f["path"]) for f in found} == {table, artefact}
    assert [f["cell"] for f in found if f["cell"]] == ["Trained qcq · sgns, seed 1"]
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert table.read_bytes() == whole
    assert verify(Run.open(run))[0] == []


def test_a_lost_row_a_lost_view_and_a_leftover_are_repaired_and_a_strangers_file_stays(run: Path) -> None:
    next(run.glob("cells/*/row.json")).unlink()
    next(run.glob("embeddings/*.safetensors")).unlink()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run / "cells" / f"0123.{socket.gethostname()}-{gone.pid}.partial").mkdir()
    (run / "notes.txt").write_text("mine")
    faults, _ = verify(Run.open(run))
    assert {f.what for f in faults} >= {"cannot be read", "is missing", "left by a process that was stopped"}
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert (run / "notes.txt").read_text() == "mine"
    assert [f.path.name for f in verify(Run.open(run))[0]] == ["notes.txt"]


def test_a_run_that_lost_its_hashes_or_is_not_finished_is_repaired(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(run.glob("cells/*/*.safetensors"))
    for finished, words in ((True, "can't be compared"), (False, "is not finished")):
        about = json.loads((run / "about.json").read_text())
        (run / "about.json").write_text(json.dumps({**about, "finished": finished}))
        (run / MANIFEST).unlink()
        table.write_bytes(table.read_bytes()[:-1])
        assert call("verify", str(run)) == 1
        said = capsys.readouterr().out.replace("\n", " ")
        assert words in said
        assert table.name in said  # its cell has hashes of its own
        assert call("verify", str(run), "--repair", "--quiet") == 0
        assert verify(Run.open(run))[0] == []


def test_discarding_keeps_what_is_whole(run: Path) -> None:
    before = {path: path.read_bytes() for path in files(run)}
    lost = next(run.glob("cells/*/row.json"))
    lost.write_text("{")
    discard(Run.open(run), verify(Run.open(run))[0])
    gone = {path for path in before if not path.exists()}
    assert gone
    assert {path.parent for path in gone} == {lost.parent}


def again(run: Path, *more: str) -> int:
    """The same command once more."""
    return call("run", "--data", str(run.parent / "q.csv"), "--out", str(run), *COMMAND, *more)


@pytest.fixture
def bank(finished: Path, run: Path) -> Path:
    """The data of the run, beside its copy, where the settings of the copy name them."""
    made = Path(shutil.copy(finished.parent / "q.csv", run.parent / "q.csv"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(finished.parent), str(run.parent)))
    assert again(run) == 0
    return made


def test_what_a_user_keeps_among_the_views_stays(run: Path, bank: Path) -> None:
    mine = [run / "embeddings" / "my.npz", run / "scores" / "thesis" / "t.csv", run / "download.partial", run / "n.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (run / "foo.partial").mkdir()
    next(run.glob("scores/*.npz")).unlink()
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert again(run) == 0
    assert [path.read_text() for path in mine] == ["mine"] * 4
    assert (run / "foo.partial").is_dir()


def test_views_that_are_not_made_any_more_are_removed(run: Path, bank: Path) -> None:
    assert list(run.glob("embeddings/qcq--sgns*"))
    words = ["--trainers", "svd", "--seeds", "2", "--set", "tune=false", "--quiet", "--redo"]
    assert call("run", "--data", str(bank), "--out", str(run), *words) == 0
    assert not list(run.glob("embeddings/qcq--sgns*"))
    assert list(run.glob("embeddings/none--svd*"))
    assert verify(Run.open(run))[0] == []


@pytest.mark.parametrize("view", ["scores", "inspect", "embeddings"])
def test_nothing_behind_a_link_is_touched(run: Path, bank: Path, view: str, capsys: pytest.CaptureFixture[str]) -> None:
    photos = run.parent / "photos"
    (photos / "2").mkdir(parents=True)
    (photos / "1.jpg").write_text("photo")
    (photos / "2" / "a").write_text("photo")
    shutil.rmtree(run / view)
    (run / view).symlink_to(photos)
    faults, _ = verify(Run.open(run))
    assert Path(run / view) in {fault.path for fault in faults}
    assert not [fault for fault in faults if "1.jpg" in str(fault.path)]
    assert again(run) == 2
    assert "is a link; move the folder back here, or name another --out" in capsys.readouterr().err
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert sorted(path.name for path in photos.rglob("*")) == ["1.jpg", "2", "a"]


def test_a_users_folders_in_the_store_stay(run: Path, bank: Path) -> None:
    for name in (
        "backup",
        "my.notes",
        "0123.elsewhere-1.partial",
        f"0123.{socket.gethostname()}-{os.getpid()}.partial",
    ):
        (run / "cells" / name).mkdir()
        (run / "cells" / name / "mine.txt").write_text("mine")
    found = {fault.path.name: fault.what for fault in verify(Run.open(run))[0]}
    assert found == {"backup": "not written by qcq", "my.notes": "not written by qcq"}
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert len(list(run.glob("cells/*/mine.txt"))) == 4
    cell = next(run.glob("cells/*/row.json")).parent
    (cell / "mine.txt").write_text("mine")
    (cell / "row.json").write_text("{")
    assert call("verify", str(run), "--repair", "--quiet") == 0
    shutil.rmtree(cell)


def test_nothing_is_removed_before_the_data_are_there(
    run: Path, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank.rename(bank.with_name("away.csv"))
    (run / "report.md").write_text("changed")
    before = sorted(path for path in run.rglob("*") if path.is_file())
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert "no such file" in capsys.readouterr().err
    assert sorted(path for path in run.rglob("*") if path.is_file()) == before
    bank.write_text("question,concepts\nq1,a\nq2,a\nq3,b\n")
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert "holds a run on other data" in capsys.readouterr().err
    assert sorted(path for path in run.rglob("*") if path.is_file()) == before


def test_lost_cells_and_marks_are_found_and_made_again(run: Path, bank: Path) -> None:
    lost = sorted(path.parent for path in run.glob("cells/*/row.json"))[:2]
    for cell in lost:
        shutil.rmtree(cell)
    (run / "qcq.json").unlink()
    (run / "cells" / "qcq.json").write_text("X")
    with pytest.raises(ConfigError, match=r"its mark qcq\.json is missing; 'qcq verify"):
        refuse_foreign(run, "run")
    found = {fault.path: fault.what for fault in verify(Run.open(run))[0]}
    assert found == {
        **dict.fromkeys(lost, "is missing"),
        run / "qcq.json": "is missing",
        run / "cells" / "qcq.json": "cannot be read",
    }
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert all((cell / "row.json").is_file() for cell in lost)
    assert verify(Run.open(run))[0] == []


def test_a_folder_or_a_dead_link_in_place_of_a_file(run: Path, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = next(run.glob("scores/*.npz"))
    for path in (run / "report.md", view):
        path.unlink()
        path.mkdir()
    (run / "report.html").unlink()
    (run / "report.html").symlink_to("/nowhere/at/all")
    found = {fault.path: fault.what for fault in verify(Run.open(run))[0]}
    assert found == dict.fromkeys((run / "report.md", view, run / "report.html"), "is not a file")
    (view / "mine.txt").write_text("mine")
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert "is not a file, and qcq did not make it; move it away" in capsys.readouterr().err
    (view / "mine.txt").unlink()
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert verify(Run.open(run))[0] == []


def test_a_store_lies_outside_the_run_and_is_found_from_where_the_run_began(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(bank), "--trainers", "svd", "--seeds", "1", "--set", "tune=false", "--quiet"]
    for store in ("", "store", "scores"):
        assert call("run", "--out", str(tmp_path / "a"), "--store", str(tmp_path / "a" / store), *words) == 2
        assert "is in the run's own folder" in capsys.readouterr().err
        assert not (tmp_path / "a").exists()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert call("run", "--out", "d", "--store", "s", *words) == 0
    assert call("verify", "d") == 0
    monkeypatch.chdir(tmp_path / "sub")
    assert call("verify", "../d", "--repair") == 2
    assert "its store s isn't here" in capsys.readouterr().err
    assert not (tmp_path / "sub" / "s").exists()


def test_a_fold_has_its_cells_beside_it(tmp_path: Path) -> None:
    words = ["--trainers", "svd", "--tasks", "retrieval", "--seeds", "1", "--set", "tune=false", "--set", "folds=2"]
    words += ["--set", "simulated.questions=60", "--set", "simulated.students=40", "--quiet"]
    assert call("run", "--out", str(tmp_path / "f"), *words) == 0
    fold = tmp_path / "f" / "fold-1"
    assert call("verify", str(fold)) == 0
    next(fold.glob("scores/*.npz")).unlink()
    assert call("verify", str(fold), "--repair", "--quiet") == 0
    assert not (fold / "cells").exists()


@pytest.mark.parametrize("walk", ["qcq@/../../../victim", "qcq@../../../victim", "qcq@a:b"])
def test_no_name_leaves_the_folder_of_the_run(bank: Path, tmp_path: Path, walk: str) -> None:
    out = tmp_path / "deep" / "out"
    words = ["--data", str(bank), "--walks", walk, "--trainers", "ppmi-svd", "--tasks", "retrieval", "--seeds", "1"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert call("run", "--out", str(out), *words, "--set", "tune=false", "--quiet") == 0
    after = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(out)}
    assert after == set(before)
    assert all(path.read_bytes() == held for path, held in before.items())
    assert verify(Run.open(out))[0] == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["svd@a/b", "svd@a-b"], "trainers 'svd@a/b' and 'svd@a-b' would share the file 'svd@a-b'; rename one"),
        (["svd@" + "x" * 260], "give one that can be printed, of at most 80 bytes"),
        (["svd@a\nb"], "give one that can be printed"),
    ],
)
def test_names_that_can_not_be_those_of_files_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(trainers=tuple(names))
    assert said in str(caught.value)


@pytest.mark.parametrize("place", ["manifest", "views", "cells", "row"])
@pytest.mark.parametrize("way", [pytest.param("absolute", marks=pytest.mark.slow), "upwards"])
def test_no_name_in_a_foreign_run_removes_a_file_elsewhere(run: Path, bank: Path, place: str, way: str) -> None:
    (run.parent / "mine").symlink_to(bank)
    mine = [run.parent / "mine", run.parent / "mine.txt"]
    mine[1].write_text("mine")
    names = [str(each) if way == "absolute" else os.path.relpath(each, run) for each in mine]
    if place == "manifest":
        held = json.loads((run / MANIFEST).read_text())["files"]
        (run / MANIFEST).write_text(_listed({**held, **dict.fromkeys(names, "0" * 64)}))
    elif place == "views":
        up = names if way == "absolute" else [f"scores/../{name}" for name in names]
        (run / ".views.json").write_text(json.dumps(up))
    elif place == "cells":
        about = json.loads((run / "about.json").read_text())
        there = names if way == "absolute" else [f"../{name}" for name in names]
        (run / "about.json").write_text(json.dumps({**about, "cells": there}))
    else:
        row = next(run.glob("cells/*/row.json"))
        there = names if way == "absolute" else [f"../../{name}" for name in names]
        told = {**json.loads(row.read_text()), "files": dict.fromkeys(there, "0" * 64)}
        row.write_text(json.dumps({**told, "seal": sealed(told)}) + "\n")
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert again(run) == 0
    assert [path.exists() and not path.is_dir() for path in mine] == [True, True]
    assert mine[0].is_symlink()
    assert mine[1].read_text() == "mine"
    assert bank.read_text().startswith("question")


@pytest.mark.parametrize("name", ["corpus/qcq", "corpus/qcq/seed-0"])
def test_nothing_behind_a_link_inside_a_view_is_touched(run: Path, bank: Path, name: str, capsys) -> None:
    elsewhere = run.parent / "elsewhere"
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert run / name in {fault.path for fault in verify(Run.open(run))[0] if fault.what == "is a link"}
    assert again(run, "--redo", "--set", "seed=5") == 2
    assert f"{name}: is a link; move the folder back here" in capsys.readouterr().err
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before


def test_a_changed_row_is_found(run: Path) -> None:
    """Each change leaves a row that can be read: a figure, a space, a figure with the seal of the earlier one."""
    row = next(run.glob("cells/*/row.json"))
    whole = row.read_text()
    held = json.loads(whole)
    for text in (json.dumps({**held, "row": {}}) + "\n", whole.replace(": ", ":  ", 1)):
        row.write_text(text)
        assert [(fault.path, fault.what) for fault in verify(Run.open(run))[0]] == [
            (row, "changed since it was written")
        ]


def test_a_file_of_a_cell_that_is_lost_is_named(run: Path) -> None:
    artefact = next(run.glob("cells/*/*.safetensors"))
    artefact.unlink()
    found = [fault for fault in verify(Run.open(run))[0] if fault.path == artefact]
    assert [(fault.what, bool(fault.cell)) for fault in found] == [("is missing", True)]


def test_a_strangers_file_in_a_faulty_cell_stays(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = next(run.glob("cells/*/*.safetensors"))
    artefact.write_bytes(artefact.read_bytes()[:-1])
    (artefact.parent / "mine.txt").write_text("mine")
    assert call("verify", str(run), "--repair", "--quiet") == 2
    assert "a faulty cell, with files that qcq did not write; move them away" in capsys.readouterr().err
    (artefact.parent / "mine.txt").rename(run.parent / "mine.txt")
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert verify(Run.open(run))[0] == []
