"""A run knows its own files: whatever is changed, cut short, lost or added is found, and made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq import Run, cli
from qcq.engine.folder import MANIFEST
from qcq.engine.verify import discard, verify
from qcq.errors import ConfigError

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
    without = {run / "qcq.json", run / "cells" / "qcq.json", run / MANIFEST, run / ".lock"}
    return sorted(path for path in run.rglob("*") if path.is_file() and path not in without)


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
    path = data.draw(st.sampled_from(files(run)))
    way = data.draw(st.sampled_from(["flip", "cut", "lose", "add"]))
    held = bytearray(path.read_bytes())
    if way == "flip" and held:
        at = data.draw(st.integers(0, len(held) - 1))
        held[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(bytes(held))
    elif way == "cut" and held:
        path.write_bytes(bytes(held[: data.draw(st.integers(0, len(held) - 1))]))
    elif way == "lose":
        path.unlink()
    else:
        (path.parent / "stranger").write_text("hello")
    faults, _ = verify(Run.open(run)) if (run / "config.toml").is_file() else (["config.toml is missing"], 0)
    assert faults
    shutil.rmtree(run)


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
    (run / "cells" / "0123.elsewhere-1.partial").mkdir()
    (run / "notes.txt").write_text("mine")
    faults, _ = verify(Run.open(run))
    assert {f.what for f in faults} >= {"cannot be read", "is missing", "left by a process that was stopped"}
    assert call("verify", str(run), "--repair", "--quiet") == 0
    assert (run / "notes.txt").read_text() == "mine"
    assert [f.path.name for f in verify(Run.open(run))[0]] == ["notes.txt"]


def test_an_unfinished_run_has_nothing_to_compare(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / MANIFEST).unlink()
    with pytest.raises(ConfigError, match="a qcq that wrote no hashes"):
        verify(Run.open(run))
    about = json.loads((run / "about.json").read_text())
    (run / "about.json").write_text(json.dumps({**about, "finished": False}))
    assert call("verify", str(run)) == 2
    assert "is not finished" in capsys.readouterr().err


def test_discarding_keeps_what_is_whole(run: Path) -> None:
    before = {path: path.read_bytes() for path in files(run)}
    lost = next(run.glob("cells/*/row.json"))
    lost.write_text("{")
    discard(Run.open(run), verify(Run.open(run))[0])
    gone = {path for path in before if not path.exists()}
    assert gone
    assert {path.parent for path in gone} == {lost.parent}
