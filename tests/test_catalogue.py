"""Public data sets: facts with their sources, and what a folder lacks of what was published."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

import qcq
from qcq import cli
from qcq.data import DATASETS
from qcq.data.catalogue import PUBLIC, QCQ, Copy, Counts, Expected, PublicData, named
from qcq.data.download import Finding, likeliest, look
from qcq.errors import DataError, UnknownNameError

ROOT = Path(qcq.__file__).parent
QUESTIONS = "question,concepts\nq1,halves;thirds\nq2,thirds\n"
ANSWERS = "student,question,correct\ns1,q1,1\ns1,q2,0\n"
REAL = {  # under $QCQ_DATA
    "s2kt-assistments-2009": "s2kt_assist09",
    "akt-assistments-2009": "akt_assist2009_pid",
    "pebg-ednet": "pebg_ednet",
    "pebg-assistments-2009": "pebg_assist09_graph",
    "eedi-csc311": "eedi_csc311",
    "icd-math-ec": "icd_math_ec",
    "math2015": "icd_Math2015",
}


# ------------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize("name", PUBLIC)
def test_every_fact_has_a_source(name: str) -> None:
    data = PUBLIC[name]
    assert data.page.startswith("http")
    assert data.files
    assert data.reader in DATASETS if data.reader else data.note.startswith("can't be read")
    assert bool(data.licence) == data.licence_source.startswith("http")
    for file in data.files:
        assert file.copies
        for copy in file.copies:
            assert not Path(copy.path).is_absolute()
            assert bool(copy.source) == (copy.size is not None or bool(copy.sha256))
            assert copy.source == "" or copy.source.startswith("https://")
            assert re.fullmatch(r"([0-9a-f]{64})?", copy.sha256)
            assert copy.size is None or copy.size > 0
    for counts in data.counts:
        assert counts.ours == (counts.source == QCQ) == (counts.by == "qcq")
        assert counts.ours or counts.source.startswith("http")
        assert any(n is not None for n in (counts.students, counts.questions, counts.concepts, counts.responses))


def test_every_reader_of_a_published_format_has_a_data_set() -> None:
    own = {"csv", "graph"}  # what users make themselves
    assert {each.reader for each in PUBLIC.values() if each.reader} == {
        name for name, kind in DATASETS.items() if kind.needs_path and name not in own
    }


def test_the_tables_in_the_docs_are_the_catalogue() -> None:
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "docs" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert made.BEGIN + made.tables() + made.END in page, "run python docs/catalogue.py"
    for name in PUBLIC:
        assert f"| `{name}` |" in page


def test_counts_of_ours_are_those_of_the_tested_table() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, folder in REAL.items():
        (counts,) = PUBLIC[name].counts
        shown = [counts.students, counts.questions, counts.concepts, counts.responses]
        cells = " | ".join("–" if n is None else f"{n:,}" for n in shown)
        assert f"| {folder} | {PUBLIC[name].reader} | {cells} |" in page


@pytest.mark.parametrize("name", REAL)
def test_a_real_folder_is_as_published(name: str) -> None:
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / REAL[name]).is_dir():
        pytest.skip(f"needs the real data set {REAL[name]} under $QCQ_DATA")
    found = list(look(PUBLIC[name], Path(root) / REAL[name]))
    assert [one for one in found if one.ok is not True] == []
    assert found[-1].what == "counts of qcq"
    assert likeliest(named(PUBLIC[name].reader), Path(root) / REAL[name]) == name


def test_names_lead_to_data_sets() -> None:
    assert list(named("assistments")) == [f"assistments-{year}" for year in (2009, 2012, 2015, 2017)]
    assert list(named("eedi-3-4")) == ["eedi-3-4"]
    with pytest.raises(UnknownNameError, match="unknown public data set 'ednett'; did you mean ednet"):
        named("ednett")


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "questions.csv").write_text(QUESTIONS)
    (tmp_path / "set" / "interactions.csv").write_text(ANSWERS)
    return tmp_path / "set"


def published() -> PublicData:
    """A set that the fixture's folder holds exactly."""
    digest = hashlib.sha256(QUESTIONS.encode()).hexdigest()
    return PublicData(
        "a set",
        "https://example.org",
        "csv",
        (
            Expected((Copy("questions.csv", len(QUESTIONS), digest, "https://example.org"),), ("question", "concepts")),
            Expected((Copy("inter*.csv"),), ("Student", "correct"), number=1),
            Expected((Copy("readme.txt", 3, "", "https://example.org"),), needed=False),
        ),
        (
            Counts(1, 2, 2, 2, "qcq", QCQ, ours=True),
            Counts(9, 2, None, None, "others", "https://example.org", "before a filter"),
        ),
    )


def findings(data: PublicData, folder: Path, **more: bool) -> dict[str, Finding]:
    found = list(look(data, folder, **more))
    assert len({one.what for one in found}) == len(found)
    return {one.what: one for one in found}


def test_a_folder_as_published_is_found_so(folder: Path) -> None:
    found = findings(published(), folder)
    assert {what: one.ok for what, one in found.items()} == {
        "questions.csv": True,
        "questions.csv, heading": True,
        "interactions.csv": True,
        "interactions.csv, heading": True,
        "recognised": True,
        "read": True,
        "counts of qcq": True,
        "counts of others": None,
    }
    assert found["questions.csv"].found == f"{len(QUESTIONS)} bytes, SHA-256 as published"
    assert found["counts of others"].found == "9 students stated (before a filter)"
    assert "read" not in findings(published(), folder, read=False)


def test_what_is_missing_or_another_version_is_said(folder: Path) -> None:
    data = published()
    (folder / "questions.csv").write_text(QUESTIONS.replace("halves", "halbes"))  # as many bytes
    assert "another version: SHA-256" in findings(data, folder)["questions.csv"].found
    (folder / "questions.csv").write_text(QUESTIONS + "q3,halves\n")
    found = findings(data, folder)
    assert found["questions.csv"].ok is False
    assert f"{len(QUESTIONS) + 10} bytes, where {len(QUESTIONS)} are published" in found["questions.csv"].found
    assert found["counts of qcq"] == Finding("counts of qcq", False, "2 questions stated")
    (folder / "interactions2.csv").write_text(ANSWERS)
    assert findings(data, folder)["inter*.csv"] == Finding("inter*.csv", False, "2 files of 1")
    for file in folder.glob("inter*.csv"):
        file.unlink()
    assert findings(data, folder)["inter*.csv"] == Finding("inter*.csv", False, "missing")
    (folder / "readme.txt").write_text("long")  # not needed, but known
    assert findings(data, folder)["readme.txt"].ok is False


def test_a_heading_without_a_column_is_said(folder: Path) -> None:
    (folder / "interactions.csv").write_text(ANSWERS.replace("correct", "right"))
    found = findings(published(), folder)
    assert found["interactions.csv, heading"] == Finding("interactions.csv, heading", False, "no column correct")
    assert found["read"].ok is False
    assert "column correct: missing column" in found["read"].found
    assert not [what for what in found if what.startswith("counts")]


def test_a_folder_of_another_format_is_said(folder: Path) -> None:
    found = findings(replace(published(), reader="s2kt"), folder)
    assert found["recognised"].ok is False
    assert "not as s2kt, which needs train.txt" in found["recognised"].found
    none = findings(replace(published(), reader="", note="can't be read: no problems"), folder)
    assert none["reader"] == Finding("reader", None, "can't be read: no problems")
    assert "read" not in none


def test_of_several_editions_each_is_compared_with_its_own(folder: Path) -> None:
    digest = hashlib.sha256(ANSWERS.encode()).hexdigest()
    two = Expected((Copy("a.csv", 1, "0" * 64, "https://x"), Copy("interactions.csv", None, digest, "https://x")))
    found = findings(replace(published(), files=(two,)), folder)
    assert found["interactions.csv"].ok is True
    assert "a.csv" not in found


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; name the folder"):
        list(look(published(), tmp_path / "nowhere"))


# ------------------------------------------------------------------------------------------------------ command line


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in args])
    return int(stop.value.code or 0)


def test_the_command_lists_shows_and_checks(folder: Path, capsys, monkeypatch) -> None:
    assert call("data") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and each.page in shown for name, each in PUBLIC.items())
    assert call("data", "ednet") == 0
    shown = capsys.readouterr().out
    assert "CC BY-NC 4.0 (https://github.com/riiid/ednet)" in shown
    assert "784,309" in shown
    assert call("data", "assistments-2009", "--json") == 0
    (made,) = json.loads(capsys.readouterr().out).values()
    assert made["files"][0]["copies"][0]["size"] == 83_201_940
    monkeypatch.setitem(PUBLIC, "mine", published())
    assert call("data", "mine", folder) == 0
    assert "SHA-256 as published" in capsys.readouterr().out
    assert call("data", "mine", folder, "--json", "--files-only") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["name"], made["found"][-1]["what"]) == ("mine", "recognised")
    (folder / "questions.csv").unlink()
    assert call("data", "mine", folder) == 1
    assert re.search(r"^\| questions.csv +\| missing \|", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_command_names_the_release_that_is_there(tmp_path: Path, capsys) -> None:
    (tmp_path / "2015_100_skill_builders_main_problems.csv").write_text("user_id,log_id,sequence_id,correct\n1,2,3,1\n")
    assert call("data", "assistments", tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("assistments-2015: ")
    assert "can't be read: it names problem sets and no problems" in shown


def test_wrong_names_and_folders_are_one_line(tmp_path: Path, capsys) -> None:
    assert call("data", "xes3g5n") == 2
    assert "did you mean xes3g5m" in capsys.readouterr().err
    assert call("data", "ednet", tmp_path / "nowhere") == 2
    assert "no such folder" in capsys.readouterr().err
