"""qcq trace: a student's mastery over time, on classrooms whose right answer is planted."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qcq import cli
from qcq.config import Config
from qcq.data import Simulated
from qcq.embeddings import Embeddings
from qcq.engine.verify import verify
from qcq.errors import DataError, EvaluationError
from qcq.evaluation.tracing.models import Tracer
from qcq.pipeline import Experiment
from qcq.report.trace import trace
from qcq.run import Run


def call(*args: object) -> int:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


N = 12  # questions on each of the concepts A and B; every student is good at one of them


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Half of the students can do A and not B, the others the reverse: what one concept's answers say is planted."""
    folder = tmp_path_factory.mktemp("trace")
    rng = np.random.default_rng(0)
    (folder / "room").mkdir()
    bank = "".join(f"{c}{i},{c}\n" for c in "ab" for i in range(N))
    (folder / "room" / "questions.csv").write_text("question,concept\n" + bank)
    rows = []
    for s in range(120):
        for _ in range(24):
            c = "ab"[rng.integers(2)]
            able = (c == "a") == (s % 2 == 0)
            rows.append(f"s{s},{c}{rng.integers(N)},{int(rng.random() < (0.9 if able else 0.1))}\n")
    (folder / "room" / "interactions.csv").write_text("student,question,correct\n" + "".join(rows))
    quick = ["--trainers", "sgns,concept-onehot", "--seeds", "1", "--tasks", "retrieval,kt", "--quiet"]
    quick += ["--jobs", "1", "--set", "tune=false", "--set", "sgns.dim=8"]
    quick += ["--set", "kt.epochs=10", "--set", 'kt.tables=["frozen"]']
    assert call("run", "--data", folder / "room", "--out", folder / "run", *quick) == 0
    return Run(folder / "run")


@pytest.fixture
def good_at_a(tmp_path: Path) -> Path:
    path = tmp_path / "anna.csv"
    path.write_text("question,correct\n" + "".join(f"a{i},1\nb{i},0\n" for i in range(8)))
    return path


def test_who_answers_a_right_and_b_wrong_masters_a_and_not_b(run: Run, good_at_a: Path) -> None:
    found = trace(run, good_at_a)
    frame = found.to_frame()
    assert frame.columns == ["attempt", "question", "correct", "concept", "name", "mastery"]
    assert len(frame) == 17 * 2
    assert frame["mastery"].is_between(0, 1).all()
    last = dict(frame.filter(pl.col("attempt") == 16).select("concept", "mastery").iter_rows())
    first = dict(frame.filter(pl.col("attempt") == 0).select("concept", "mastery").iter_rows())
    assert last["a"] > first["a"] + 0.1
    assert last["b"] < first["b"] - 0.1
    assert last["a"] > last["b"] + 0.3
    assert all(abs(start - 0.5) < 0.1 for start in first.values())  # the mean of all answers is one half
    assert frame["question"].to_list()[2:4] == ["a0", "a0"]


def test_mastery_is_the_mean_over_the_questions_of_a_concept(run: Run, good_at_a: Path) -> None:
    found = trace(run, good_at_a)
    [kept] = (run.path / "tracers").glob("*.safetensors")
    tracer = Tracer.load(kept)
    every = tracer.mastery(found.trace.question, found.trace.correct, np.arange(2 * N))
    ids = np.array(found.bank.ids)
    for j, c in enumerate(found.trace.concepts):
        mine = np.char.startswith(ids.astype(str), found.bank.concept_ids[int(c)])
        assert found.trace.mastery[:, j] == pytest.approx(every[:, mine].mean(axis=1), abs=1e-5)


def test_the_model_is_trained_once_and_chosen_on_validation(run: Run, good_at_a: Path) -> None:
    one = trace(run, good_at_a)
    again = trace(run, good_at_a)
    assert again.fitted == 0
    assert np.array_equal(one.trace.mastery, again.trace.mastery)
    judged = {row["trainer"]: row["judged"]["kt"]["auc"] for row in run.rows("training")}
    assert one.trace.label.split(" ")[0] == max(judged, key=lambda name: judged[name])


def test_times_give_the_order(run: Run, tmp_path: Path) -> None:
    rows = [(f"a{i}", 1, i) for i in range(4)] + [(f"b{i}", 0, 4 + i) for i in range(4)]
    frame = pl.DataFrame(rows, schema=["question", "correct", "timestamp"], orient="row")
    ordered, turned = trace(run, frame), trace(run, frame.reverse())
    assert np.array_equal(ordered.trace.question, turned.trace.question)
    assert np.array_equal(ordered.trace.mastery, turned.trace.mastery)


@pytest.mark.parametrize("name", ["time", "date"])
def test_a_time_under_another_name_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    """Unread, it would leave the attempts in the order of the file."""
    rows = [("a0", 1, 2), ("b0", 0, 1)]
    frame = pl.DataFrame(rows, schema=["question", "correct", name], orient="row")
    frame.write_csv(tmp_path / "student.csv")
    for given in (frame, tmp_path / "student.csv"):
        with pytest.raises(DataError, match="rename it to timestamp"):
            trace(run, given)


def test_attempts_have_the_headings_and_names_of_a_bank(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "student.csv").write_text("user_id,item_id,is_correct,datetime\nx, b0,0,2\nx,a0,1,1\n")
    found = trace(run, path)
    assert [found.bank.ids[q] for q in found.trace.question] == ["a0", "b0"]
    plain = pl.DataFrame({"question": ["a0", "b0"], "correct": [1, 0]})
    assert np.array_equal(found.trace.mastery, trace(run, plain).trace.mastery)
    assert call("trace", run.path, path) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "column 'item_id' read as question" in said
    assert "1 cell of question read without the space around the name" in said
    path.write_text("user_id,item_id,is_correct\nx,b0,0\ny,a0,1\n")
    with pytest.raises(DataError, match="2 students in one file"):
        trace(run, path)


def test_unknown_questions_are_named_or_left_out_with_their_number(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("question,correct\na0,1\nzzz,1\na1,1\nzz,0\n")
    with pytest.raises(DataError, match=r"row 3, column question: .*2 questions in 2 rows.*'zzz'"):
        trace(run, path)
    assert call("trace", run.path, path, "--quiet") == 2
    said = capsys.readouterr().err
    assert "--skip-unknown" in said
    assert len(said.splitlines()) == 1
    found = trace(run, path, skip_unknown=True)
    assert found.skipped == 2
    path.with_name("known.csv").write_text("question,correct\na0,1\na1,1\n")
    assert np.array_equal(found.trace.mastery, trace(run, path.with_name("known.csv")).trace.mastery)
    assert call("trace", run.path, path, "--quiet", "--skip-unknown") == 0
    assert "2 attempts at questions that the run doesn't know, left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,correct\na0,2\n", "neither 0 nor 1"),
        ("question\na0\n", "missing column"),
        ("student,question,correct\ns1,a0,1\ns2,a1,1\n", "2 students in one file"),
        ("question,correct,timestamp\na0,1,soon\n", "not a time"),
        ("question,correct\n", "no rows"),
        ("question,correct\nzz,1\n", "no attempt at a question of the run"),
    ],
)
def test_a_file_that_can_not_be_traced_is_one_line(
    text: str, said: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "student.csv").write_text(text)
    assert call("trace", run.path, tmp_path / "student.csv", "--quiet", "--skip-unknown") == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1


def test_trace_on_the_command_line(
    run: Run, good_at_a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "new" / "m.csv", tmp_path / "more" / "m.html"
    assert call("trace", run.path, good_at_a, "--out", table, "--plot", page, "--quiet") == 0
    out = capsys.readouterr().out
    assert out.startswith("16 attempts, kt on vectors of ")
    assert "8 of 8" in out
    assert len(pl.read_csv(table)) == 17 * 2
    text = page.read_text()
    assert "anna: 16 attempts, 50% right" in text
    assert '<script src="http' not in text  # the page needs no other file
    assert call("trace", run.path, good_at_a, "--json", "--quiet") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [len(each["mastery"]) for each in answer["concepts"]] == [17, 17]
    assert answer["attempts"] == 16
    for option, file, reason in (("--out", table, "exists already"), ("--plot", tmp_path / "m.doc", "'.doc'")):
        assert call("trace", run.path, good_at_a, option, file, "--quiet") == 2
        assert reason in capsys.readouterr().err
    assert call("trace", run.path, good_at_a, "--trainer", "sgn", "--quiet") == 2
    assert "did you mean sgns" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_without_kt_or_without_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the task ``kt`` the run's best table is taken; without answers there is nothing to learn from."""
    room = Simulated(questions=60, concepts=4, students=60, responses=20)
    options = [f"--set=simulated.{k}={getattr(room, k)}" for k in ("questions", "concepts", "students", "responses")]
    quick = ["--trainers", "sgns,random", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
    assert call("run", *options, "--out", tmp_path / "room", *quick) == 0
    (tmp_path / "s.csv").write_text("question,correct\nq1,1\nq2,0\n")
    found = trace(Run(tmp_path / "room"), tmp_path / "s.csv")
    assert found.trace.label == "sgns on qcq"
    assert found.fitted > 0
    (tmp_path / "bank.csv").write_text("question,concept\n" + "".join(f"q{i},c{i % 3}\n" for i in range(12)))
    assert call("run", "--data", tmp_path / "bank.csv", "--out", tmp_path / "bare", *quick) == 0
    capsys.readouterr()
    assert call("trace", tmp_path / "bare", tmp_path / "s.csv", "--quiet") == 2
    assert "has no students" in capsys.readouterr().err


def test_a_run_whose_data_have_changed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "questions.csv").write_text(
        "question,concept\n" + "".join(f"q{i},c{i % 2}\n" for i in range(6))
    )
    answers = "".join(f"s{s},q{(s + i) % 6},{(s * i) % 2}\n" for s in range(20) for i in range(5))
    (tmp_path / "room" / "interactions.csv").write_text("student,question,correct\n" + answers)
    quick = ["--trainers", "sgns", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
    assert call("run", "--data", tmp_path / "room", "--out", tmp_path / "run", *quick) == 0
    with (tmp_path / "room" / "interactions.csv").open("a") as file:
        file.write("s99,q1,1\n")
    (tmp_path / "s.csv").write_text("question,correct\nq1,1\n")
    capsys.readouterr()
    assert call("trace", tmp_path / "run", tmp_path / "s.csv", "--quiet") == 2
    text = capsys.readouterr().err
    assert "its data have changed since" in text
    assert len(text.splitlines()) == 1


def test_a_broken_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="no readable tracing model"):
        Tracer.load(tmp_path / "t.safetensors")


@pytest.fixture
def copied(run: Run, good_at_a: Path, tmp_path: Path) -> Run:
    """The run with its model of ``trace``."""
    trace(run, good_at_a)
    return Run(Path(shutil.copytree(run.path, tmp_path / "run")))


def models(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.path / "tracers").iterdir())}


def test_repair_and_the_same_command_keep_a_whole_model(copied: Run, good_at_a: Path) -> None:
    before = models(copied)
    assert {Path(name).suffix for name in before} == {".safetensors", ".json"}
    assert verify(copied)[0] == []
    lost = next(copied.path.glob("embeddings/*"))
    lost.unlink()
    assert [fault.path for fault in verify(copied)[0]] == [lost]
    assert call("verify", copied.path, "--repair", "--quiet") == 0
    assert models(copied) == before
    assert verify(copied)[0] == []
    Experiment(Config.load(copied.path / "config.toml")).run(copied.path)
    assert models(copied) == before
    assert trace(copied, good_at_a).fitted == 0


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_repair_drops_a_faulty_model_and_names_it(
    copied: Run, good_at_a: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [faulty] = (copied.path / "tracers").glob(f"*{suffix}")
    faulty.write_bytes(faulty.read_bytes()[:-1])
    [model] = (copied.path / "tracers").glob("*.safetensors")
    assert call("verify", copied.path, "--repair", "--quiet") == 0
    said = capsys.readouterr().out.splitlines()
    assert f"{faulty}: changed since it was written" in said
    assert f"{model}: dropped; the next 'qcq trace' trains it again" in said
    assert models(copied) == {}
    assert verify(copied)[0] == []
    assert trace(copied, good_at_a).validation_auc > 0.5
    assert verify(copied)[0] == []


def test_redo_and_other_vectors_or_settings_train_anew(copied: Run, good_at_a: Path) -> None:
    first = trace(copied, good_at_a)
    assert first.fitted == 0
    again = trace(copied, good_at_a, redo=True)
    assert again.fitted > 0
    assert np.array_equal(again.trace.mastery, first.trace.mastery)  # the same seed, the same bytes
    text = (copied.path / "config.toml").read_text()
    assert "epochs = 10" in text
    (copied.path / "config.toml").write_text(text.replace("epochs = 10", "epochs = 1"))
    assert trace(copied, good_at_a).fitted > 0
    trainer, readout = first.trace.label.split(" ")[0], "--".join(["kt", ""])
    [kept] = (copied.path / "tracers").glob(f"*--{trainer}--{readout}*.safetensors")
    table = copied.embeddings(trainer)
    drawn = np.random.default_rng(1).standard_normal(table.vectors.shape, dtype=np.float32)
    turned = Embeddings(table.ids, drawn, table.concept_ids, table.concept_vectors, table.provenance)
    turned.save(next(copied.path.glob(f"embeddings/*--{trainer}--{copied.trained(trainer)['readout']}--*")))
    before = kept.read_bytes()
    assert trace(copied, good_at_a).fitted > 0
    assert kept.read_bytes() != before


def test_a_model_or_a_report_written_later_hides_no_fault(copied: Run, good_at_a: Path) -> None:
    faulty = next(copied.path.glob("scores/*"))
    faulty.write_bytes(faulty.read_bytes() + b"\0")
    trace(copied, good_at_a, redo=True)
    assert call("report", copied.path) == 0
    assert [fault.path for fault in verify(copied)[0]] == [faulty]


def test_it_says_what_the_model_rests_on(run: Run, good_at_a: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = trace(run, good_at_a)
    experiment = Experiment(Config.load(run.path / "config.toml"))
    assert experiment.partition.split is not None
    assert found.students == len(experiment.partition.split.train.students) == 84
    assert 0.8 < found.validation_auc < 1  # a concept's answers say how the next one ends
    assert call("trace", run.path, good_at_a, "--quiet") == 0
    said = capsys.readouterr().out.splitlines()[1]
    auc = f"{found.validation_auc:.3f}"
    assert said == f"the model was trained on 84 students; its AUC on validation students is {auc}"
    assert call("trace", run.path, good_at_a, "--json", "--quiet") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["training_students"], answer["validation_auc"]) == (84, found.validation_auc)


@pytest.mark.parametrize(("option", "name"), [("--out", "m.xlsx"), ("--plot", "m.doc"), ("--plot", "m")])
def test_endings_are_checked_before_anything_is_trained(
    run: Run, good_at_a: Path, option: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    module = sys.modules["qcq.report.trace"]  # qcq.report.trace itself is the function
    monkeypatch.setattr(module, "trace", lambda *_, **__: pytest.fail("it was trained"))
    assert call("trace", run.path, good_at_a, option, name, "--redo", "--quiet") == 2
    text = capsys.readouterr().err
    assert f"error: {name}: no f" in text
    assert len(text.splitlines()) == 1


def test_a_question_without_a_concept_has_no_mastery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "room").mkdir()
    bank = "".join(f"q{i},c{i % 2}\n" for i in range(6)) + "bare,\n"
    (tmp_path / "room" / "questions.csv").write_text("question,concepts\n" + bank)
    answers = "".join(f"s{s},q{(s + i) % 6},{(s * i) % 2}\n" for s in range(20) for i in range(5))
    (tmp_path / "room" / "interactions.csv").write_text("student,question,correct\n" + answers)
    quick = ["--trainers", "svd", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
    assert call("run", "--data", tmp_path / "room", "--out", tmp_path / "run", *quick) == 0
    (tmp_path / "s.csv").write_text("question,correct\nbare,1\n")
    capsys.readouterr()
    assert call("trace", tmp_path / "run", tmp_path / "s.csv", "--quiet") == 2
    assert "no attempt at a question with a concept: 'bare'" in capsys.readouterr().err


def test_a_run_of_baselines_is_traced_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    room = [f"--set=simulated.{k}={v}" for k, v in (("questions", 60), ("students", 60), ("responses", 20))]
    quick = ["--trainers", "concept-mean,svd", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
    assert call("run", *room, "--out", tmp_path / "run", *quick) == 0
    (tmp_path / "s.csv").write_text("question,correct\nq1,1\nq2,0\n")
    capsys.readouterr()
    assert call("trace", tmp_path / "run", tmp_path / "s.csv", "--quiet") == 2
    assert "give --trainer with one of concept-mean, svd" in capsys.readouterr().err
    assert call("trace", tmp_path / "run", tmp_path / "s.csv", "--trainer", "concept-mean", "--quiet") == 0
    assert "kt on vectors of concept-mean" in capsys.readouterr().out


def test_where_no_task_may_choose_there_is_no_score_and_the_best_is_that_of_kt(run: Run) -> None:
    assert [row["score"] for row in run.rows("tuning")] == [None] * len(run.rows("tuning"))
    text = (run.path / "report.md").read_text()
    section = text[text.index("## Settings tried") :].split("\n## ")[0]
    assert "a dash where no task of the run may" in section
    assert "0.000" not in section
    assert run.best() == ("sgns", "qcq")
    rows = run.rows("tuning") + [{**row, "trainer": "other"} for row in run.rows("tuning") if row["walk"] == "qcq"]
    trained = run.rows("training")
    [its] = [row for row in trained if row["trainer"] == "sgns"]
    auc = its["judged"]["kt"]["auc"]
    for better in (-0.1, 0.1):
        its_twin = {**its, "trainer": "other", "judged": {"kt": {"auc": auc + better, "way": "frozen"}}}
        held = {"tuning": rows, "training": [*trained, its_twin]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "rows", lambda self, name, held=held: held[name])
            assert run.best()[0] == ("other" if better > 0 else "sgns")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "rows", lambda self, name: {"tuning": rows, "training": []}[name])
        assert run.best() == ("sgns", "qcq")  # nothing was judged: the first of the run
    assert call("audit", run.path, "--quiet") == 0
