"""Small data, unfinished runs, and what the machine refuses: said in words, one line each."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from qcq import cli
from qcq.config import Config
from qcq.corpus import Corpus
from qcq.data import DATASETS, Simulated, read
from qcq.embeddings import Embeddings
from qcq.engine import Store
from qcq.errors import ArgumentError, QCQError, UnknownNameError
from qcq.evaluation import TASKS, Partition
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.pipeline import Experiment
from qcq.report import cautions, comparison, write_page
from qcq.run import Run
from qcq.support.terminal import Terminal, show
from qcq.walks import WALKS

QUICK = ["--trainers", "svd,random", "--seeds", "2", "--quiet"]


def call(*args: object) -> int:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bank of 14 questions and 12 students, one of whose responses repeats the row before it."""
    (tmp_path / "bank").mkdir()
    questions = "".join(f"q{i},a{i % 3};b{i % 2}\n" for i in range(14))
    rows = "".join(f"s{s},q{(3 * s + i) % 14},{(s + i) % 2}\n" for s in range(12) for i in range(6))
    (tmp_path / "bank" / "questions.csv").write_text("question,concepts\n" + questions)
    (tmp_path / "bank" / "interactions.csv").write_text(
        "student,question,correct\n" + rows + rows.splitlines()[-1] + "\n"
    )
    return tmp_path / "bank"


def test_few_units_and_doubts_and_an_unfinished_run_are_said(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(small.parent / "run")
    assert call("run", "--data", small, "--out", run.path, "--tasks", "retrieval,kt-fast", *QUICK) == 0
    said = capsys.readouterr()
    assert "doubtful: interactions.csv: 1 of 73 responses repeat the row before" in said.err  # --quiet or not
    assert "kt-fast is judged on 2 students: from fewer than 20" in said.out
    assert "retrieval is judged on 14 questions" in said.out
    assert "isn't finished" not in said.out
    page = write_page(run).path.read_text(encoding="utf-8")
    assert "doubtful: interactions.csv" in page
    assert "judged on 2 students" in page
    about = run.read_json("about.json")
    (run.path / "about.json").write_text(json.dumps(about | {"finished": False}))
    assert cautions(run, comparison(run))[0] == "this run isn't finished: the same command goes on with it"
    assert call("similar", run.path, "q1", "--trainer", "svd") == 0
    assert "this run isn't finished" in capsys.readouterr().err


def test_strict_refuses_a_doubtful_bank_before_anything_is_written(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("run", "walk"):
        assert call(command, "--data", small, "--out", small.parent / command, "--strict", "--quiet") == 2
        assert "repeat the row before" in capsys.readouterr().err
        assert not (small.parent / command).exists()
    assert call("inspect", "--data", small, "--strict") == 2


def test_more_folds_than_students_are_refused_at_once(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--data", small, "--out", small.parent / "run", "--set", "folds=13", *QUICK) == 2
    assert "13 folds of 12 students: 'bank'; at most 12 folds" in capsys.readouterr().err
    assert not (small.parent / "run").exists()


def test_a_file_called_like_a_trainer_is_not_taken_for_it(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(small.parent / "svd.npz", ids=[f"q{i}" for i in range(13)], vectors=rng.normal(size=(13, 4)))
    score = ["score", small.parent / "svd.npz", "--data", small, "--out", small.parent / "run", "--quiet"]
    assert call(*score, "--tasks", "retrieval", "--seeds", "1") == 2
    assert "1 of 14 questions have no vector: 'q13'" in capsys.readouterr().err
    assert call(*score, "--tasks", "retrieval", "--seeds", "1", "--missing", "mean-of-concepts") == 0
    table = capsys.readouterr().out
    assert "| file | svd-file " in table
    assert "| none | svd " in table
    run = Run(small.parent / "run")
    assert run.embeddings("svd-file").dim == 4
    assert any("1 of 14 questions have no vector: the mean" in note for note in run.read_json("about.json")["notes"])
    assert (
        call("run", "--data", small, "--set", f"vectors.svd={small.parent / 'svd.npz'}", "--out", small.parent / "x")
        == 2
    )
    assert "a trainer has this name" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_said_before_any_work(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--data", small, "--out", small.parent / "run", "--set", "mlm.device=nowhere", "--quiet"]
    assert call(*command, "--trainers", "svd,mlm") == 2
    assert "setting device: 'nowhere' can't be used here" in capsys.readouterr().err
    assert not (small.parent / "run").exists()


def test_inspect_shows_doubts_first(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "--data", small) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("doubtful: interactions.csv")
    assert second == "recognised as csv"


@pytest.mark.parametrize("registry", [WALKS, TRAINERS, TASKS, DATASETS], ids=["walk", "trainer", "task", "format"])
def test_a_registry_answers_a_misspelt_name_with_the_nearest(registry: dict) -> None:
    name = next(iter(registry))
    with pytest.raises(UnknownNameError, match=f"did you mean .*{name}"):
        registry[name + "x"]
    with pytest.raises(KeyError):
        registry["nothing like it"]
    assert registry.get(name + "x") is None
    assert name + "x" not in registry


def test_markup_in_names_is_shown_as_written() -> None:
    names = ["Closed interval [a]", "[/b] half-open", "[red] herring"]
    drawn = io.StringIO()
    show(Console(file=drawn, force_terminal=True, width=80), ["[bold]"], [[name] for name in names], left=1)
    for name in [*names, "[bold]"]:
        assert name in drawn.getvalue()


def test_what_a_stream_can_not_encode_is_replaced(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "questions.csv").write_text(
        "question,concept\n" + "".join(f"题{i},分数\n" for i in range(3)), encoding="utf-8"
    )
    (small / "interactions.csv").unlink()
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    for module in (cli.bank, cli.console):
        monkeypatch.setattr(module, "out", Console(file=stream))
    assert call("inspect", "--data", small) == 0
    stream.flush()
    assert b"?" in held.getvalue()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "cells/x"), "cells/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "cells"), "cells: Permission denied"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: Exception, words: str, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Store, "perform", refuse)
        broken.setattr("qcq.support.files.whole_path", refuse)
        code = call("run", "--data", small, "--out", small.parent / "run", "--tasks", "retrieval", *QUICK)
    said = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert code in (1, 2)
    assert said
    assert all("Traceback" not in line for line in said)
    # When there is room again the same command goes on.
    assert call("run", "--data", small, "--out", small.parent / "run", "--tasks", "retrieval", *QUICK) == 0


def test_doubts_are_shown_even_if_quiet() -> None:
    drawn = io.StringIO()
    terminal = Terminal(Console(file=drawn, width=200), quiet=True)
    terminal.say("an ordinary note")
    terminal.say("doubtful: a file: something")
    assert drawn.getvalue() == "doubtful: a file: something\n"


def test_names_that_a_text_can_not_hold_are_refused_before_sampling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bank.csv").write_text("question,concept\nq 1,a\nq2,a\n")
    assert call("walk", "--data", tmp_path / "bank.csv", "--out", tmp_path / "corpus", "--text", "--quiet") == 2
    assert "'q 1' can't be a word of a text" in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()
    (tmp_path / "bank.csv").write_text("question,concept\nq1,a\nq2,a\n")
    keep = ["--set", "walk.keep_concepts=true", "--text", "--quiet"]
    assert call("walk", "--data", tmp_path / "bank.csv", "--out", tmp_path / "corpus", *keep) == 0
    first = (tmp_path / "corpus" / "corpus.txt").read_text().splitlines()[0].split()
    assert set(first) == {"q1", "q2", "a"}


ROOM = Simulated(questions=30, concepts=3, students=10, responses=5).read()
GRAPH = KnowledgeGraph.from_dataset(ROOM)
WALK = WALKS["qcq"](length=4, per_question=1)
TABLE = Embeddings(["a", "b"], np.eye(2))
WRONG = {
    "KnowledgeGraph.from_dataset": lambda: KnowledgeGraph.from_dataset("x"),  # type: ignore[arg-type]
    "KnowledgeGraph.from_networkx": lambda: KnowledgeGraph.from_networkx(3),  # type: ignore[arg-type]
    "KnowledgeGraph.from_edges": lambda: KnowledgeGraph.from_edges(3),  # type: ignore[arg-type]
    "sample, a data set": lambda: WALK.sample(ROOM),  # type: ignore[arg-type]
    "sample, a seed": lambda: WALK.sample(GRAPH, "x"),  # type: ignore[arg-type]
    "chain": lambda: WALK.chain(ROOM),  # type: ignore[arg-type]
    "plan": lambda: WALK.plan(3),  # type: ignore[arg-type]
    "stream": lambda: WALK.stream(GRAPH, 3),  # type: ignore[arg-type]
    "fit": lambda: TRAINERS["svd"](dim=2).fit(GRAPH),  # type: ignore[arg-type]
    "TrainingData, a graph": lambda: TrainingData(ROOM),  # type: ignore[arg-type]
    "TrainingData, a walk": lambda: TrainingData(GRAPH, "qcq"),  # type: ignore[arg-type]
    "Partition.make": lambda: Partition.make(GRAPH),  # type: ignore[arg-type]
    "Task": lambda: TASKS["retrieval"](ROOM),  # type: ignore[arg-type]
    "score": lambda: TASKS["retrieval"](Partition.make(ROOM)).score(np.eye(30)),  # type: ignore[arg-type]
    "Embeddings, ids": lambda: Embeddings(None, np.eye(2)),  # type: ignore[arg-type]
    "Embeddings.load": lambda: Embeddings.load(3),  # type: ignore[arg-type]
    "Embeddings.save": lambda: TABLE.save(3),  # type: ignore[arg-type]
    "aligned": lambda: TABLE.aligned(3),  # type: ignore[arg-type]
    "matched": lambda: TABLE.matched(GRAPH),  # type: ignore[arg-type]
    "nearest": lambda: TABLE.nearest("a", "x"),  # type: ignore[arg-type]
    "concatenate": lambda: TABLE.concatenate([1, 2]),  # type: ignore[arg-type]
    "Config.load": lambda: Config.load(3),  # type: ignore[arg-type]
    "Run.open": lambda: Run.open(3),  # type: ignore[arg-type]
    "Corpus.load": lambda: Corpus.load(3),  # type: ignore[arg-type]
    "to_text": lambda: WALK.sample(GRAPH).to_text("corpus.txt", 3),  # type: ignore[arg-type]
    "Experiment": lambda: Experiment("simulated"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call_", WRONG)
def test_a_wrong_type_is_a_typed_error_that_names_what_is_taken(call_: str) -> None:
    with pytest.raises(ArgumentError, match=r"takes an? .*, given ") as caught:
        WRONG[call_]()
    assert isinstance(caught.value, QCQError)
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vectors", ["x", [[1, 2], [3]], [["a"], ["b"]], None])
def test_vectors_that_are_no_table_are_said(vectors: object) -> None:
    with pytest.raises(QCQError, match=r"no table of numbers|of shape"):
        Embeddings(["a", "b"], vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 3, {"q": "c"}])
def test_sources_that_are_none(source: object) -> None:
    with pytest.raises(QCQError, match="no data set can be read from this"):
        read(source)
