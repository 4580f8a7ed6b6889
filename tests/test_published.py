"""A split as files: who is in which part, one person once, digests, and metadata that Croissant's validator takes."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from qcq import cli
from qcq.data import Simulated, same_person, without_duplicates
from qcq.data.assembly import interactions
from qcq.errors import ConfigError, DataError
from qcq.evaluation.published import COLUMNS, PARTS, write_split
from qcq.evaluation.register import students_digest


@pytest.fixture(scope="module")
def doubled():
    """A classroom in which students 3 and 7 stand under two identifiers each, the second ones with fewer answers."""
    data = Simulated(questions=200, concepts=10, students=40, responses=80, seed=2).read()
    r = data.interactions
    mine = [np.flatnonzero(r.student == s)[:-1] for s in (3, 7)]
    kept = np.concatenate([np.arange(len(r)), *mine])
    student = np.concatenate([r.student, *(np.full(len(m), 40 + i) for i, m in enumerate(mine))])
    both = interactions(student, r.question[kept], r.correct[kept])
    return without_duplicates(replace(data, interactions=both, students=[f"s{i}" for i in range(42)], truth={}))


def rows(folder):
    with (folder / "students.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_person_behind_a_duplicate_is_the_identifier_that_stays(doubled):
    assert doubled.left_out.tolist() == [40, 41]
    assert same_person(doubled) == {40: 3, 41: 7}
    assert same_person(replace(doubled, left_out=np.array([0, 40], dtype=np.int32))) == {40: 3}


def test_files_say_who_is_where(doubled, tmp_path):
    split = doubled.split(5)
    made = write_split(doubled, split, tmp_path / "split", "divided at random by seed 5")
    found = rows(tmp_path / "split")
    assert [row["student"] for row in found] == list(doubled.students)
    for part in ("train", "validation", "test"):
        wanted = {doubled.students[i] for i in getattr(split, part).students}
        assert {row["student"] for row in found if row["part"] == part} == wanted
        assert made.counts[part] == len(wanted)
    assert {row["student"]: row["same_as"] for row in found if row["same_as"]} == {"s40": "s3", "s41": "s7"}
    assert {row["part"] for row in found if row["same_as"]} == {"duplicate"}
    assert made.digest == hashlib.sha256((tmp_path / "split" / "students.csv").read_bytes()).hexdigest()
    assert made.test_digest == students_digest(split.test)


def test_equal_splits_have_equal_bytes_and_answers_play_no_role(doubled, tmp_path):
    turned = replace(doubled, interactions=replace(doubled.interactions, correct=1 - doubled.interactions.correct))
    one, two = (write_split(d, d.split(0), tmp_path / n, "by seed 0") for d, n in ((doubled, "a"), (turned, "b")))
    other = write_split(doubled, doubled.split(1), tmp_path / "c", "by seed 1")
    assert one.digest == two.digest != other.digest
    for name in ("students.csv", "croissant.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_sealed_students_are_named_as_such(doubled, tmp_path):
    out = np.array([5, 40, 41], dtype=np.int32)
    data = replace(doubled, sealed=np.array([5], dtype=np.int32), left_out=out)
    made = write_split(data, data.split(0), tmp_path / "s", "by seed 0")
    assert made.counts["sealed"] == 1
    assert rows(tmp_path / "s")[5]["part"] == "sealed"
    data = replace(doubled, left_out=out)
    write_split(data, data.split(0), tmp_path / "o", "by seed 0")
    assert rows(tmp_path / "o")[5]["part"] == "left out"


def test_metadata_describe_the_file(doubled, tmp_path):
    made = write_split(doubled, doubled.split(0), tmp_path / "split", "by seed 0")
    about = json.loads((tmp_path / "split" / "croissant.json").read_text(encoding="utf-8"))
    assert about["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    (file,) = about["distribution"]
    assert (file["sha256"], file["contentUrl"]) == (made.digest, "students.csv")
    fields = [field["source"]["extract"]["column"] for field in about["recordSet"][0]["field"]]
    assert fields == list(COLUMNS) == list(rows(tmp_path / "split")[0])
    assert made.test_digest in about["description"]
    assert all(part in COLUMNS["part"] for part in PARTS)


def test_croissants_validator_takes_it(doubled, tmp_path):
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant isn't installed: pip install mlcroissant")
    made = write_split(doubled, doubled.split(0), tmp_path / "split", "by seed 0")
    read = croissant.Dataset(jsonld=str(made.folder / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    found = list(read.records("students"))
    assert len(found) == 42
    assert found[41]["students/same_as"] == b"s7"


def test_what_cannot_be_written_is_refused(doubled, tmp_path):
    twice = replace(doubled, students=[*doubled.students[:-1], "s5"])
    with pytest.raises(DataError, match="two students with one identifier: 's5'; give every student one of their own"):
        write_split(twice, twice.split(0), tmp_path / "split", "by seed 0")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "students.csv").write_text("my own")
    with pytest.raises(ConfigError, match="holds files that qcq did not make"):
        write_split(doubled, doubled.split(0), tmp_path / "mine", "by seed 0")
    assert (tmp_path / "mine" / "students.csv").read_text() == "my own"


def test_the_command_writes_and_tells(tmp_path, capsys):
    small = ["--set", "simulated.questions=60", "--set", "simulated.students=30", "--set", "simulated.responses=5"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["split", "--out", str(tmp_path / "s"), *small, "--seed", "3", "--json"])
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["students"] == {"train": 21, "validation": 3, "test": 6}
    assert told["digest"] == hashlib.sha256((tmp_path / "s" / "students.csv").read_bytes()).hexdigest()
    with pytest.raises(SystemExit):
        cli.main(["split", "--out", str(tmp_path / "s"), *small, "--seed", "3"])
    assert "divided at random by seed 3" in capsys.readouterr().out


def test_another_split_and_an_edited_one_are_replaced_only_when_asked(tmp_path, capsys):
    small = ["--set", "simulated.questions=60", "--set", "simulated.students=30", "--set", "simulated.responses=5"]

    def code(*more):
        with pytest.raises(SystemExit) as stop:
            cli.main(["split", "--out", str(tmp_path / "s"), *small, *more])
        return stop.value.code

    table, about = tmp_path / "s" / "students.csv", tmp_path / "s" / "croissant.json"
    assert code("--seed", "1") == 0
    first = table.read_bytes(), about.read_bytes()
    capsys.readouterr()
    assert code("--seed", "2") == 2
    assert capsys.readouterr().err.startswith(f"error: {table}: is of another split, or was edited; name another")
    assert (table.read_bytes(), about.read_bytes()) == first
    about.write_text(about.read_text() + " ")
    assert code("--seed", "1") == 2
    assert f"{about}: is of another split, or was edited" in capsys.readouterr().err
    assert code("--seed", "2", "--redo") == 0
    assert table.read_bytes() != first[0]
