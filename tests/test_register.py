"""The register of test readings and the seal: who is sealed, what opening costs, what a run says it has read."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qcq
from qcq.audit import audit
from qcq.config import Config
from qcq.data import EdNet, Simulated, sealed
from qcq.errors import ConfigError, DataError
from qcq.evaluation import Partition, register
from qcq.evaluation.register import Reading, edges_digest, readings, students_digest, test_parts
from qcq.pipeline import Experiment
from qcq.run import Run
from qcq.support.progress import Watch

ROOT = Path(qcq.__file__).parent
SEALED = [f"u{number}" for number in range(1, 2000) if sealed.is_sealed(f"u{number}")]
OPEN = [f"u{number}" for number in range(1, 200) if not sealed.is_sealed(f"u{number}")]


def ednet(folder: Path, students: list[str], responses: int = 12) -> Path:
    """A folder as EdNet KT1 is downloaded; whether an answer is right is drawn."""
    rng = np.random.default_rng(0)
    (folder / "contents").mkdir(parents=True)
    rows = "".join(f"q{i},a,{i % 5};{5 + i % 3}\n" for i in range(40))
    (folder / "contents" / "questions.csv").write_text("question_id,correct_answer,tags\n" + rows)
    (folder / "KT1").mkdir()
    for student in students:
        asked = rng.choice(40, responses, replace=False)
        body = "".join(f"{t},{t},q{q},{'a' if rng.random() < 0.6 else 'b'},9\n" for t, q in enumerate(asked))
        heading = "timestamp,solving_id,question_id,user_answer,elapsed_time\n"
        (folder / "KT1" / f"{student}.csv").write_text(heading + body)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ednet(tmp_path_factory.mktemp("data") / "ednet", OPEN[:60] + SEALED[:12])


@pytest.fixture
def own_register(tmp_path, monkeypatch):
    """A register of the test's own in a checkout of its own."""
    file = tmp_path / "checkout" / "evaluation" / "register.toml"
    file.parent.mkdir(parents=True)
    (file.parents[1] / "pyproject.toml").touch()
    file.write_bytes(register.REGISTER.read_bytes())
    monkeypatch.setattr(register, "REGISTER", file)
    readings.cache_clear()
    yield file
    readings.cache_clear()


# --- the seal -------------------------------------------------------------------------------------------------------


def test_the_rule_is_the_one_that_was_committed():
    among = [f"u{number}" for number in range(1, sealed.ASKED)]
    kept = [each for each in among if sealed.is_sealed(each)]
    assert sealed.digest(kept) == sealed.DIGEST
    assert abs(len(kept) / len(among) - sealed.SHARE) < 4 * np.sqrt(sealed.SHARE / len(among))


def test_sealed_students_are_in_no_part_unless_they_are_the_test_part(folder):
    closed, opened = EdNet().read(folder), EdNet(sealed="test").read(folder)
    for data in (closed, opened):
        assert {data.students[i] for i in data.sealed} == set(SEALED[:12])
    split = closed.split(0)
    everybody = np.concatenate([split.train.students, split.validation.students, split.test.students])
    assert not np.isin(everybody, closed.sealed).any()
    assert len(everybody) == 60
    split = opened.split(0)
    assert np.array_equal(split.test.students, opened.sealed)
    assert len(split.train.students) + len(split.validation.students) == 60
    assert "12 students sealed for a later test" in " ".join(closed.notes)
    assert "12 sealed students are the test set" in " ".join(opened.notes)


def test_nothing_trains_on_sealed_students(folder):
    opened = EdNet(sealed="test").read(folder)
    with pytest.raises(DataError, match="sealed students would be trained or validated on"):
        opened.split(0, fold=(1, 3))
    with pytest.raises(DataError, match="sealed students would be trained or validated on"):
        replace(opened, parts=np.zeros(72, dtype=np.int8)).split(0)
    closed = EdNet().read(folder)
    for k in (1, 2, 3):
        parts = closed.split(0, fold=(k, 3))
        assert not np.isin(parts.test.students, closed.sealed).any()


def test_no_sealed_student_nothing_to_open(tmp_path):
    few = ednet(tmp_path / "few", OPEN[:5])
    assert len(EdNet().read(few).sealed) == 0
    with pytest.raises(DataError, match="none of the students is sealed"):
        EdNet(sealed="test").read(few)


def test_opening_the_seal_is_entered_before_anything_is_scored(folder, tmp_path, own_register):
    before = len(readings())
    plain = ["seeds=1", "trainers=concept-mean", "tasks=kt-fast", "tune=false"]
    config = Config.load(None, [f"data=ednet:{folder}", *plain])
    Experiment(config).begin(Run(tmp_path / "closed"), Watch())
    assert len(readings()) == before
    config = Config.load(None, [f"data=ednet:{folder}", "ednet.sealed=test", *plain])
    experiment = Experiment(config)
    for _ in range(2):  # an interrupted run that goes on is one reading
        run = Run(tmp_path / "opened")
        experiment.begin(run, Watch())
    assert len(readings()) == before + 1
    entry = readings()[-1]
    assert entry.digest == students_digest(experiment.partition.split.test)
    assert (entry.rows, entry.tasks, entry.where) == ("12 students", "kt-fast", "opened")
    (part,) = run.read_json("about.json")["test_parts"]
    assert (part["sealed"], part["units"], part["digest"]) == (12, 12, entry.digest)
    (tmp_path / "checkout" / "pyproject.toml").unlink()  # an installed package isn't changed
    Experiment(config).begin(Run(tmp_path / "elsewhere"), Watch())
    assert len(readings()) == before + 1
    assert len(readings(tmp_path / "elsewhere" / "register.toml")) == 1


def test_the_sealed_experiment_is_a_configuration_that_leaves_the_seal_closed():
    config = Config.load(ROOT / "experiments" / "sealed.toml")
    assert config.task_settings()["kt-difficulty"].features == ("difficulty", "popularity", "rasch")
    assert config.sections["ednet"].get("sealed", "closed") == "closed"


# --- the register ---------------------------------------------------------------------------------------------------


def test_digests_go_by_who_is_in_a_part_and_never_by_answers():
    data = Simulated(questions=80, concepts=6, students=40, responses=10, seed=1).read()
    one, other = (Partition.make(data, seed) for seed in (0, 1))
    turned = replace(data, interactions=replace(data.interactions, correct=1 - data.interactions.correct))
    same = Partition.make(turned, 0)
    assert students_digest(one.split.test) == students_digest(same.split.test)
    assert edges_digest(one) == edges_digest(same)
    assert students_digest(one.split.test) != students_digest(other.split.test)
    assert edges_digest(one) != edges_digest(other)


def test_a_run_names_what_it_reads_and_what_the_register_knows(folder, tmp_path, own_register):
    lines = []
    watch = Watch()
    watch.say = lines.append  # type: ignore[assignment, method-assign]
    options = ["seeds=1", "trainers=concept-mean", "tasks=kt-fast,edges", "tune=false"]
    run = Experiment(Config.load(None, [f"data=ednet:{folder}", *options])).run(tmp_path / "run", watch=watch)
    parts = {each["unit"]: each for each in run.read_json("about.json")["test_parts"]}
    assert set(parts) == {"students", "edges"}
    assert any("kt-fast: reads 12 test students" in line and "aren't in the register" in line for line in lines)
    found = {check.name: check for check in audit(Run.open(run.path))}
    assert found["test students"].ok
    assert "aren't in the register" in found["test students"].found
    entry = "\n".join(f"{k} = {json.dumps(v)}" for k, v in {**vars(readings()[0]), **_known(parts)}.items())
    own_register.write_text(own_register.read_text() + f"\n[[reading]]\n{entry}\n")
    readings.cache_clear()
    found = {check.name: check for check in audit(Run.open(run.path))}
    assert "read once before" in found["test students"].found
    about = run.read_json("about.json")
    about["test_parts"][0]["digest"] = "0" * 64
    (run.path / "about.json").write_text(json.dumps(about))
    assert {c.name: c.ok for c in audit(Run.open(run.path))}["test students"] is False


def _known(parts):
    return {"digest": parts["students"]["digest"], "unit": "students"}


def test_sealed_students_are_no_duplicates_in_a_report(folder, tmp_path, own_register):
    options = ["seeds=1", "trainers=concept-mean", "tasks=kt-fast", "tune=false"]
    run = Experiment(Config.load(None, [f"data=ednet:{folder}", *options])).run(tmp_path / "run")
    about = run.read_json("about.json")
    assert (about["left_out"], about["sealed"]) == (12, 12)
    page = (run.path / "report.md").read_text()
    assert "12 students sealed for a later test" in page
    assert "duplicates of one person" not in page


def test_simulated_data_have_nothing_to_register():
    config = Config.load(None, ["tasks=edges,kt-fast", "seeds=1"])
    data = Simulated(questions=80, concepts=6, students=40, responses=10, seed=1).read()
    assert test_parts(Partition.make(data), config.task_specs()) == []
    real = replace(data, truth={})
    names = {each["unit"]: each["tasks"] for each in test_parts(Partition.make(real), config.task_specs())}
    assert names == {"students": ["kt-fast"], "edges": ["edges"]}


def test_every_results_file_with_test_figures_is_in_the_register():
    listed = {each.where for each in readings()}
    for file in sorted((ROOT / "docs" / "results").glob("*.md")):
        shown = re.search("test (part|set); settings and read-outs were chosen", file.read_text(encoding="utf-8"))
        if shown and "simulated" not in file.name:
            assert f"docs/results/{file.name}" in listed, f"{file.name} shows test figures; enter it in the register"
    for each in readings():
        assert "/" not in each.where or (ROOT / each.where).is_file(), each.where
        assert each.unit in ("students", "edges", "questions")
        assert each.digest or each.unit == "questions"
        assert all(getattr(each, name) for name in ("date", "data", "rows", "tasks", "where", "command", "why"))


def test_the_page_is_made_from_the_register():
    spec = importlib.util.spec_from_file_location("tests_read", ROOT / "docs" / "tests_read.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run python docs/tests_read.py"


@pytest.mark.parametrize(("text", "match"), [("[[reading]\n", "no register"), ('[[reading]]\ndate = "x"\n', "lacks")])
def test_what_is_no_register_is_said_in_one_line(tmp_path, text, match):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        readings(tmp_path / "r.toml")


@pytest.mark.parametrize(("name", "data"), [("s2kt", "s2kt_assist09"), ("pebg", "pebg_ednet")])
def test_digests_in_the_register_are_those_of_the_data(name, data):
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / data).is_dir():
        pytest.skip(f"needs the real data set {data} under $QCQ_DATA")
    partition = Partition.make(qcq.read(f"{name}:{root}/{data}"), 0)
    known = {each.digest for each in readings()}
    assert {students_digest(partition.split.test), edges_digest(partition)} <= known


def test_entries_are_ordered_by_date():
    dates = [each.date for each in readings() if each.commit or each.where]
    assert dates == sorted(dates)
    assert all(isinstance(each, Reading) for each in readings())
    assert len(tomllib.loads(register.REGISTER.read_text())["reading"]) == len(readings())
