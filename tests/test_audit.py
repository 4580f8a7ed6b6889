"""The auditor: an honest run passes, and every planted leak is caught where it was planted."""

from __future__ import annotations

import json
import os
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from qcq import cli
from qcq.audit import audit
from qcq.config import Config
from qcq.data import Simulated, load
from qcq.data.dataset import Interactions
from qcq.errors import EvaluationError
from qcq.evaluation import KT, TASKS
from qcq.evaluation.leak import replay
from qcq.evaluation.tracing.baselines import BASELINES, Nearest, SimilarStudents
from qcq.graph.typed import TypedGraph
from qcq.models import SVD, TRAINERS, LookupModel
from qcq.pipeline import Experiment
from qcq.run import Run
from qcq.support.settings import settings
from qcq.walks import QCQ, WALKS, Weighted

SMALL: dict[str, Any] = {
    "simulated": {"questions": 100, "concepts": 10, "students": 60, "responses": 40},
    "walk": {"length": 8, "per_question": 3},
}
ROOM = Simulated(**SMALL["simulated"]).read()


@settings
class Leaky(Weighted):
    """A walk weighted by the responses of everybody: the training part knows its data set, and that knows them all."""

    name = "leaky"
    by: Literal["given", "inverse-concept-frequency", "responses"] = "responses"

    def prepare(self, graph, train):
        everybody = np.bincount(train.dataset.interactions.question, minlength=graph.n_questions)
        return replace(graph, responses=everybody.astype(np.int64))


@settings
class Session(QCQ):
    """The plain walk on a graph that carries the training students."""

    name = "carrying"

    def prepare(self, graph, train):
        return TypedGraph.of(graph, train)


@settings
class Peeking(SVD):
    """A trainer that looks up how everybody answered."""

    learns = True
    tuning: ClassVar[Any] = ({},)

    def fit(self, source, seed=0, progress=None):
        seen = source.graph.train.dataset.interactions
        right = np.bincount(seen.question, weights=seen.correct, minlength=source.graph.n_questions)
        return LookupModel(source.graph, np.repeat(right[:, None], 4, axis=1).astype(np.float32) + 1)


class LeakyKT(KT):
    """A knowledge-tracing model that is trained on everybody's answers."""

    def __init__(self, partition, plan=None):
        from qcq.evaluation.tracing.models import Sequences

        super().__init__(partition, plan)
        r = partition.dataset.interactions
        self.attempts._sequences["train"] = Sequences(r, self.attempts.fold[r.student].astype(np.int64))


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setitem(WALKS, "leaky", Leaky)
    monkeypatch.setitem(WALKS, "carrying", Session)
    monkeypatch.setitem(TRAINERS, "peeking", Peeking)


def made(folder, monkeypatch, **more) -> Run:
    """A run without its report, which is no part of what is audited."""
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    options: dict[str, Any] = {
        "trainers": ["ppmi-svd", "svd", "random"],
        "seeds": 2,
        "dim": 8,
        "sections": SMALL,
        **more,
    }
    config = Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    return Experiment(config).run(folder)


def rewrite(run: Run, name: str, rows: list) -> None:
    (run.path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        return made(tmp_path_factory.mktemp("audit") / "run", patch)


@pytest.fixture
def run(honest, tmp_path) -> Run:
    """A copy of the honest run, to be spoilt."""
    return Run(Path(shutil.copytree(honest.path, tmp_path / "run")))


def failed(checks) -> dict[str, str]:
    return {check.name: check.found for check in checks if check.ok is False}


def test_an_honest_run_passes(honest):
    checks = audit(honest, retrain=True)
    names = ["data", "students", "duplicates", "graph", "walk qcq", "difficulty", "choices", "vectors"]
    assert [c.name for c in checks] == names
    assert all(c.ok for c in checks), failed(checks)
    assert "made again with the test students' answers turned round, same vectors: ppmi-svd, svd, random" in (
        checks[-1].found
    )
    assert all(len(c.found.splitlines()) == 1 for c in checks)


def test_a_walk_that_looks_at_test_students_is_caught(planted, tmp_path, monkeypatch, capsys):
    made(tmp_path / "run", monkeypatch, walks=["leaky"], trainers=["ppmi-svd", "random"], seeds=1)
    checks = audit(Run(tmp_path / "run"))
    assert list(failed(checks)) == ["walk leaky"]
    assert "it looks at test students" in failed(checks)["walk leaky"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["audit", str(tmp_path / "run")])
    assert stop.value.code == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_trainer_that_looks_at_test_students_is_caught_by_training_it_again(planted, tmp_path, monkeypatch):
    made(tmp_path / "run", monkeypatch, walks=["carrying"], trainers=["peeking", "random"], seeds=1)
    assert not failed(audit(Run(tmp_path / "run")))  # what went in was honest
    assert "peeking on carrying: trained again" in failed(audit(Run(tmp_path / "run"), retrain=True))["vectors"]


def test_difficulty_of_all_students_is_caught(run):
    with np.load(run.path / "graph.npz") as held:
        arrays = {key: held[key] for key in held.files}
    seen = ROOM.interactions
    n = np.bincount(seen.question, minlength=100)
    arrays["difficulty"] = 1 - np.bincount(seen.question, weights=seen.correct, minlength=100) / np.maximum(n, 1)
    np.savez(run.path / "graph.npz", **arrays)
    assert "difficulty of questions" in failed(audit(run))["difficulty"]


def test_choosing_by_anything_but_validation_is_caught(run):
    rows = run.rows("tuning")
    mine = [r for r in rows if r["trainer"] == "svd"]
    worst = min(mine, key=lambda r: r["score"])
    assert worst["score"] < max(r["score"] for r in mine)
    moved = [{**r, "chosen": r == worst} if r["trainer"] == "svd" else r for r in rows]
    rewrite(run, "tuning", moved)
    assert "aren't those with the best validation figures" in failed(audit(run))["choices"]
    praised = [{**r, "score": r["score"] + 1} if r["chosen"] and r["trainer"] == "svd" else r for r in moved]
    rewrite(run, "tuning", praised)
    assert "a score isn't the mean of its validation figures" in failed(audit(run))["choices"]
    more = {"random": 0.01}
    rows = [
        {
            **r,
            "difficulty": r["difficulty"] + more.get(r["trainer"], 0),
            "score": r["score"] + more.get(r["trainer"], 0) / 2,
        }
        for r in rows
    ]
    rewrite(run, "tuning", rows)
    assert "random on none: difficulty on validation is" in failed(audit(run))["choices"]


def test_a_corpus_or_a_graph_from_elsewhere_is_caught(run, tmp_path):
    other = QCQ(length=8, per_question=3)
    other.sample(Experiment(Config(sections=SMALL)).partition.graph, 7).save(run.path / "corpus" / "qcq" / "seed-1")
    assert "isn't the one the models were trained on" in failed(audit(run))["walk qcq"]
    emb = run.embeddings("random", seed=1)
    elsewhere = replace(emb, provenance={**emb.provenance, "graph_digest": "0" * 64})
    elsewhere.save(run.file("embeddings", "none", "random", "table", 1, ".safetensors"))
    assert "random on none: table was made from another graph" in failed(audit(run))["vectors"]
    about = run.read_json("about.json")
    (run.path / "about.json").write_text(json.dumps({**about, "graph_digest": "0" * 64}))
    assert "not 000000000000" in failed(audit(run))["graph"]


def test_missing_files_fail_their_check(run):
    shutil.rmtree(run.path / "corpus")
    run.file("embeddings", "none", "random", "table", 0, ".safetensors").unlink()
    assert set(failed(audit(run))) == {"walk qcq", "choices", "vectors"}


def test_other_data_are_noticed(run):
    seen = ROOM.interactions
    moved = replace(ROOM, interactions=replace(seen, correct=np.roll(seen.correct, 1)))
    assert "other data" in failed(audit(run, moved))["data"]


def test_without_students_there_is_nothing_to_leak(tmp_path, monkeypatch):
    sections = {**SMALL, "simulated": {**SMALL["simulated"], "students": 0}}
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    run = Experiment(Config(sections=sections, trainers=("random",), seeds=1)).run(tmp_path / "run")
    assert [(c.name, c.ok) for c in audit(run)] == [("data", True), ("students", True)]


KT_SMALL = {"epochs": 1, "hidden": 8, "tables": ("frozen",)}


@pytest.mark.slow
def test_a_costly_task_is_proved_by_training_again(tmp_path, monkeypatch):
    monkeypatch.setattr(KT, "baselines", ())
    sections = {**SMALL, "kt": KT_SMALL}
    run = made(tmp_path / "run", monkeypatch, tasks=["edges", "kt"], trainers=["random"], seeds=1, sections=sections)
    last = audit(run)[-1]
    assert (last.name, last.ok) == ("kt", None)
    assert "--retrain" in last.found
    checks = audit(run, retrain=True)
    assert not failed(checks)
    assert checks[-1].name == "kt"
    assert "random: model, epoch, validation figures and the predictions" in checks[-1].found


def test_a_model_that_is_trained_on_test_students_is_caught(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "kt", LeakyKT)
    monkeypatch.setattr(LeakyKT, "baselines", ())
    sections = {**SMALL, "kt": KT_SMALL}
    run = made(tmp_path / "run", monkeypatch, tasks=["edges", "kt"], trainers=["random"], seeds=1, sections=sections)
    assert "other figures on validation" in failed(audit(run, retrain=True))["kt"]


class AmongAll(Nearest):
    """A tracer that looks for similar students among all, the test students too."""

    def __init__(self, attempts, k=3):
        super().__init__(attempts, k)

    def columns(self, responses, concepts, ahead):
        return self.among(self.attempts.train.dataset.interactions).columns(responses, concepts, ahead)

    def among(self, seen):
        there = copy(self.attempts)
        there.train = replace(there.train, students=np.unique(seen.student), interactions=seen)
        return Nearest(there, self.k)


class AmongTest(AmongAll):
    """A tracer that learns as it should, and looks for similar students among those of the part that it predicts."""

    def columns(self, responses, concepts, ahead):
        return self.among(responses).columns(responses, concepts, ahead)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (AmongAll, "other figures on validation with half of the test students' answers turned round"),
        (AmongTest, "predictions for a test student are others with half of the test students' answers turned round"),
        (SimilarStudents, ""),
    ],
)
def test_a_tracer_that_finds_similar_students_among_test_students_is_caught(model, found, tmp_path, monkeypatch):
    monkeypatch.setitem(BASELINES, "similar-students", model)
    more = {"kt-baselines": {"models": ["question-mean", "similar-students"]}}
    sections = {**SMALL, **more}
    tasks = ["edges", "kt-baselines"]
    run = made(tmp_path / "run", monkeypatch, tasks=tasks, trainers=["random"], seeds=1, sections=sections)
    checks = audit(run, retrain=True)
    if not found:
        assert not failed(checks)
        assert "predictions for the other half are the same" in checks[-1].found
        return
    assert list(failed(checks)) == ["kt-baselines"]
    assert found in failed(checks)["kt-baselines"]


# --- the published leak ---------------------------------------------------------------------------------------------


def test_the_replay_is_scikit_learns_area_under_the_curve():
    data = Simulated(questions=300, concepts=10, students=100, responses=20).read()
    split = data.split()
    found = replay(split)
    test = split.test.interactions
    for key, seen in (("leaky", data.interactions), ("honest", split.train.interactions)):
        rate = {}
        for q, c in zip(seen.question.tolist(), seen.correct.tolist(), strict=True):
            rate.setdefault(q, []).append(c)
        guess = [np.mean(rate.get(q, seen.correct)) for q in test.question.tolist()]
        assert getattr(found["all"], key) == pytest.approx(roc_auc_score(test.correct, guess))
    assert found["all"].difference.low > 0
    assert found["cold"].difference.mean > found["warm"].difference.mean
    assert found["cold"].responses + found["warm"].responses == found["all"].responses == len(test)


@pytest.mark.parametrize("right", [0, 1, 4, 5])
def test_cold_questions_are_replayed_where_they_have_right_and_wrong_answers(right):
    """Five answers in training make a cold question, six a warm one; five test students answer both."""
    rows = [(s, 0, s % 2) for s in range(5)] + [(s, 1, s % 2) for s in range(6)]  # training
    rows += [(6 + s, 0, s < right) for s in range(5)] + [(6 + s, 1, s < 2) for s in range(5)]
    student, question, correct = (np.array(column, dtype=np.int32) for column in zip(*sorted(rows), strict=True))
    seen = Interactions(student, question, correct.astype(np.int8))
    parts = np.array([0] * 6 + [2] * 5, dtype=np.int8)
    data = replace(
        ROOM,
        questions=ROOM.questions[:2],
        q_matrix=ROOM.q_matrix[:2],
        interactions=seen,
        students=[f"s{i}" for i in range(11)],
        parts=parts,
        truth={},
    )
    found = replay(data.split())
    assert set(found) == {"all", "warm"} | ({"cold"} if 0 < right < 5 else set())
    assert (found["all"].responses, found["warm"].responses) == (10, 5)


def test_where_nothing_leaks_nothing_is_inflated():
    """Every question answered by very many: one student's answers weigh nothing."""
    found = replay(Simulated(questions=10, concepts=5, students=1500, responses=20).read().split())
    assert abs(found["all"].difference.mean) < 0.002


def test_a_replay_needs_right_and_wrong_answers():
    one = np.ones(10, dtype=np.int32)
    seen = Interactions(np.arange(10, dtype=np.int32), 0 * one, one.astype(np.int8))
    data = replace(ROOM, interactions=seen, students=[f"s{i}" for i in range(10)])
    with pytest.raises(EvaluationError, match="a replay needs right and wrong ones"):
        replay(data.split())


def test_the_leak_on_ednet_is_as_large_as_others_found_it():
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / "pebg_ednet").is_dir():
        pytest.skip("needs the real data set pebg_ednet under $QCQ_DATA")
    found = replay(load(f"pebg:{root}/pebg_ednet").split())["all"]
    assert found.leaky == pytest.approx(0.747, abs=0.015)  # independent estimate on another division
    assert found.honest == pytest.approx(0.696, abs=0.015)
    assert found.difference.low > 0.03


# --- the command ----------------------------------------------------------------------------------------------------


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    return int(stop.value.code or 0)


def test_the_command(honest, capsys):
    assert call("audit", str(honest.path), "--json") == 0
    assert {c["check"] for c in json.loads(capsys.readouterr().out)} >= {"graph", "walk qcq", "vectors"}
    assert call("audit", "--replay", "--data", "simulated", "--json") == 0
    assert json.loads(capsys.readouterr().out)["all"]["leaky"] > 0.5
    assert call("audit") == 2
    assert "no run given" in capsys.readouterr().err
    assert call("audit", "--replay") == 2
    assert "--replay needs data" in capsys.readouterr().err
    assert call("audit", "--replay", "--data", "simulated", "--set", "x=1") == 2
