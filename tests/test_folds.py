"""Folds of the students: everybody is a test student once; what lies between folds is no spread between seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

import qcq
from qcq import cli
from qcq.audit import audit
from qcq.config import Config
from qcq.data import Dataset, Simulated
from qcq.errors import ConfigError, DataError
from qcq.evaluation import TASKS, Partition
from qcq.models.answers import digests
from qcq.models.inference import opened
from qcq.pipeline import Experiment, run_folds
from qcq.report import Folds
from qcq.run import Run

ROOM = {"questions": 60, "concepts": 6, "students": 41, "responses": 20}


SMALL = Simulated(**{**ROOM, "responses": 2}).read()


@budget(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 100))
def test_every_student_is_a_test_student_once(n, seed):
    tested = []
    for k in range(1, n + 1):
        split = SMALL.split(seed, fold=(k, n))
        parts = [split.train.students, split.validation.students, split.test.students]
        assert sorted(np.concatenate(parts).tolist()) == list(range(41))
        assert len(parts[1]) == 4
        assert len(parts[2]) in (41 // n, 41 // n + 1)
        tested += parts[2].tolist()
    assert sorted(tested) == list(range(41))


def test_folds_put_a_split_of_the_data_set_aside_and_hold_out_the_same_edges():
    data = Simulated(**ROOM).read()
    object.__setattr__(data, "parts", np.zeros(41, dtype=np.int8))
    assert len(data.split().test.students) == 0
    problems = [Partition.make(data, 3, fold=(k, 3)) for k in (1, 2, 3)]
    assert {len(p.split.test.students) for p in problems} == {13, 14}
    assert len({p.graph.digest for p in problems}) == 1
    assert len({tuple(p.split.test.students) for p in problems}) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fold": (9, 3)}, r"there are 3 folds, given 9; give \(k, n\), the k-th \(from 1\) of n folds"),
        ({"fold": (0, 3)}, "there are 3 folds, given 0"),
        ({"fold": (-1, 3)}, "there are 3 folds, given -1"),
        ({"fold": (0, 0)}, "there are 0 folds, given 0"),
        ({"fold": (1, 42)}, "42 folds of 41 students"),
        ({"fold": (1.5, 3)}, r"no fold: \(1.5, 3\); give \(k, n\)"),
        ({"fold": (1,)}, "no fold: "),
        ({"fold": 1}, "no fold: 1"),
        ({"fold": "12"}, "no fold: '12'"),
        ({"fold": (1, 1)}, "none of 41 students is left to train on: 'simulated'; ask for fewer"),
        ({"fold": (1, 2), "fractions": (0.9, 0.0)}, "none of 41 students is left to train on"),
        (
            {"fractions": (0.9, 0.9)},
            r"simulated: fractions of students \(0.9, 0.9\); give \(validation, test\), 0 or more",
        ),
        ({"fractions": (0.5, 0.5)}, "fractions of students"),
        ({"fractions": (-0.5, 0.2)}, "fractions of students"),
        ({"fractions": (0.2, -0.5)}, "fractions of students"),
        ({"fractions": (float("nan"), 0.9)}, "fractions of students"),
        ({"fractions": (0.1, float("inf"))}, "fractions of students"),
        ({"fractions": (0.1,)}, "fractions of students"),
        ({"fractions": 0.1}, "fractions of students 0.1"),
        ({"fractions": ("a", 0.1)}, "fractions of students"),
        ({"fractions": (0.0, 0.999)}, "none of 41 students is left to train on"),
    ],
)
def test_a_split_that_divides_nobody_is_refused(asked, said):
    with pytest.raises(DataError, match=said):
        SMALL.split(**asked)


def test_a_split_of_the_data_set_without_training_students_is_refused():
    with pytest.raises(DataError, match="none of 41 students is left to train on: 'simulated'; correct their parts"):
        replace(SMALL, parts=np.full(41, 2, dtype=np.int8)).split()
    assert len(SMALL.split(fold=(np.int64(2), np.int64(41))).test.students) == 1
    assert len(SMALL.split(fractions=(0.0, 0.0)).train.students) == 41


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Run]:
    config = Config(
        trainers=("svd", "random"),
        tasks=("kt-fast", "difficulty"),
        seeds=2,
        dim=4,
        folds=2,
        sections={"simulated": ROOM},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "write_page"):
            patch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
        return run_folds(config, tmp_path_factory.mktemp("folds") / "run")


def test_folds_and_seeds_are_told_apart(runs):
    folds = Folds(runs)
    titles, cells = [column.title for column in folds.columns], folds.cells()
    for task in ("kt-fast auc", "difficulty r2"):
        for row in cells:
            shown = row[titles.index(task)]
            name, metric = task.split()
            held = [
                [
                    r["value"]
                    for r in run.rows("results")
                    if (r["trainer"], r["task"], r["metric"]) == (row[1], name, metric)
                ]
                for run in runs
            ]
            assert [len(fold) for fold in held] == [2, 2]
            means = np.mean(held, axis=1)
            between = np.sqrt(np.mean(np.var(held, axis=1, ddof=1)))
            assert shown == f"{means.mean():.3f} ± {means.std(ddof=1):.3f} ± {between:.3f}"


def test_students_of_all_folds_are_drawn_together(runs):
    """And only they: the judged questions are the same in each fold."""
    config = Config(
        trainers=("ppmi-svd", "random"),
        tasks=("kt-fast", "edges"),
        seeds=1,
        dim=4,
        folds=2,
        sections={"simulated": ROOM},
    )
    assert Folds(runs).paired_comparisons() == []  # nobody has learnt from walks
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "write_page"):
            patch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
        made = run_folds(config, runs[0].path.parent.parent / "learnt")
    (pair,) = Folds(made).paired_comparisons()
    assert pair.column.task == "kt-fast"
    assert pair.difference.units == 41
    figures = [
        np.concatenate([run.units(walk, trainer, readout, 0)["kt-fast/auc"] for run in made])
        for walk, trainer, readout in (("qcq", "ppmi-svd", "table"), ("none", "random", "table"))
    ]
    assert pair.difference.mean == pytest.approx((figures[0] - figures[1]).mean())
    text = (runs[0].path.parent.parent / "learnt" / "report.md").read_text()
    assert "41 students is a test student in one fold" in text
    assert str(pair) in text
    assert not [check for check in audit(made[1]) if not check.ok]


def test_tasks_say_whether_their_units_are_students():
    data = Simulated(**ROOM).read()
    partition = Partition.make(data)
    emb = qcq.Embeddings(data.questions, np.random.default_rng(0).standard_normal((60, 4)))
    students = len(np.unique(partition.split.test.interactions.student))
    of_students = {name for name in TASKS if TASKS[name].unit == "students"}
    assert "kt-fast" in of_students
    assert not of_students & {"edges", "difficulty", "retrieval", "stability", "geometry", "clusters"}
    assert len(TASKS["kt-fast"](partition).score(emb).units["auc"]) == students


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 1}, "there are 1 folds, given 1"),
        ({"folds": 3, "fold": 4}, "there are 3 folds, given 4"),
        ({"folds": 0}, "setting folds"),
    ],
)
def test_folds_that_there_are_not_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Config(**options)


def test_folds_need_students_and_a_caller_who_knows(tmp_path):
    config = Config(folds=2, sections={"simulated": {**ROOM, "students": 0}})
    with pytest.raises(DataError, match="no students to divide into folds"):
        run_folds(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="name one of the 2 folds"):
        Experiment(config).run(tmp_path / "run")
    with pytest.raises(ConfigError, match="1 is no number of folds"):
        run_folds(Config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_runs_folds(tmp_path: Path, capsys, monkeypatch):
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    args = ["run", "--trainers", "random", "--tasks", "difficulty", "--seeds", "1", "--set", "folds=2", "-q"]
    args += [f"--set=simulated.{key}={value}" for key, value in ROOM.items()]
    with pytest.raises(SystemExit) as stop:
        cli.main([*args, "--out", str(tmp_path / "run")])
    assert stop.value.code == 0
    assert "fold-1 to fold-2" in capsys.readouterr().out
    assert (tmp_path / "run" / "fold-2" / "results.jsonl").is_file()
    with pytest.raises(SystemExit) as stop:
        cli.main(["audit", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert "holds a run for each fold of the students; name one" in capsys.readouterr().err.replace("\n", " ")


def test_the_command_says_why_a_trainer_failed_in_each_fold(tmp_path: Path, capsys):
    words = [
        "--trainers",
        "sgns,svd",
        "--tasks",
        "difficulty",
        "--seeds",
        "1",
        "--set=folds=2",
        "--set=sgns.parts=9999",
    ]
    words += [f"--set=simulated.{name}={value}" for name, value in ROOM.items()]
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "--quiet", "--out", str(tmp_path / "run"), *words])
    said = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
    assert left.value.code == 1
    assert [line.split(": ")[0] for line in said] == ["fold-1", "fold-2"]
    assert all("sgns failed: setting sgns.parts: 9999" in line for line in said)


LEARNING = ["trainers=sgns,svd", "tasks=edges", "seeds=1", "tune=false", "sgns.dim=4", "sgns.epochs=1", "folds=3"]


def fold_of(folder: Path, number: int, *settings: str, data: Dataset | None = None) -> Run:
    """One fold, with cells of its own."""
    config = Config.load(overrides=[*LEARNING, f"fold={number}", *settings])
    Experiment(config, data or Simulated(**ROOM).read()).run(folder)
    return Run.open(folder)


def files_of(store: Path) -> dict[str, dict[str, str]]:
    """Cell → hashes of its files, the times of a training apart."""
    return {row.parent.name: json.loads(row.read_text())["files"] for row in store.glob("*/row.json")}


def test_cells_with_one_key_have_the_same_files_and_each_fold_knows_its_own_students(tmp_path: Path) -> None:
    """The plain walk reads no students, so folds share its training. Whose answers a table may read, they don't."""
    data = Simulated(**ROOM).read()
    renamed = replace(data, students=[f"other-{name}" for name in data.students])
    runs = [fold_of(tmp_path / "a", 1), fold_of(tmp_path / "b", 2), fold_of(tmp_path / "c", 1, data=renamed)]
    one, *others = (files_of(run.path / "cells") for run in runs)
    for other in others:
        shared = one.keys() & other.keys()
        assert any("model.safetensors" in one[key] for key in shared)
        assert {key: one[key] for key in shared} == {key: other[key] for key in shared}
    for number, run, bank in ((1, runs[0], data), (2, runs[1], data), (1, runs[2], renamed)):
        model = opened(run.embeddings("sgns"))
        assert model is not None
        held = model.students
        assert held is not None
        train = bank.split(fold=(number, 3)).train
        assert set(held.digests[held.training]) == set(digests([bank.students[i] for i in train.students]))
        assert set(held.digests) == set(digests(bank.students))
