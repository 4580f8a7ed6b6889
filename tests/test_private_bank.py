"""A run on somebody's own question bank: whose vectors are shown, what is said once, and what isn't said at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from qcq.cli import main
from qcq.config import Config
from qcq.data import read
from qcq.data.graphs import GraphFile
from qcq.embeddings import Embeddings
from qcq.errors import EmbeddingError, UnknownNameError
from qcq.evaluation import Partition
from qcq.evaluation.register import test_parts
from qcq.recipes import add, embed
from qcq.report.similar import FEW, similar, similar_in
from qcq.run import Run
from qcq.support.terminal import Terminal

CONCEPTS = ["adding", "taking", "halves", "thirds"]
Q = "q0"


def call(*arguments: object) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def bank_text() -> str:
    """28 questions on one or two of four concepts; one name differs from another in case only, which is doubtful."""
    rows = [f"q{i},{CONCEPTS[i % 4]};{CONCEPTS[(i // 4) % 4]}\n" for i in range(28)]
    return "question,concepts\n" + "".join(rows) + "Q0,halves\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str, str]:
    """A run of a learner and a baseline by the command line, and what it wrote on both streams."""
    folder = tmp_path_factory.mktemp("bank")
    (folder / "bank.csv").write_text(bank_text())
    capture = pytest.MonkeyPatch()
    out, err = Console(record=True, soft_wrap=True, width=500), Console(record=True, soft_wrap=True, width=500)
    for module in ("comparisons", "console"):
        capture.setattr(f"qcq.cli.{module}.out", out)
        capture.setattr(f"qcq.cli.{module}.err", err)
    quick = ["--trainers", "sgns,svd", "--seeds", "1", "--jobs", "1", "--set", "tune=false", "--set", "sgns.epochs=1"]
    assert call("run", "--data", folder / "bank.csv", "--out", folder / "run", *quick) == 0
    capture.undo()
    return Run(folder / "run"), out.export_text(), err.export_text()


@pytest.fixture
def run(made: tuple[Run, str, str]) -> Run:
    return made[0]


# ------------------------------------------------------------------------------------------------ what a run says


def test_a_doubt_is_said_once_and_kept_in_the_report(made: tuple[Run, str, str]) -> None:
    run, out, err = made
    said = [line for line in (out + err).splitlines() if line.startswith("doubtful: ")]
    assert len(said) == 1
    assert "2 questions differ from another one only in case" in said[0]
    assert (run.path / "report.md").read_text().count(said[0]) == 1
    assert said[0] in run.read_json("about.json")["notes"]


def test_a_terminal_says_a_doubt_once_and_other_lines_each_time() -> None:
    console = Console(record=True, width=200)
    watch = Terminal(console, quiet=False)
    for line in ("doubtful: a", "plain", "doubtful: a", "plain", "doubtful: b"):
        watch.say(line)
    assert console.export_text().splitlines() == ["doubtful: a", "plain", "plain", "doubtful: b"]


def test_nothing_is_said_of_a_register_that_does_not_know_the_bank(made: tuple[Run, str, str]) -> None:
    run, out, err = made
    assert "regist" not in out + err
    assert run.read_json("about.json")["test_parts"] == []
    for name in ("report.md", "report.html", "about.json"):
        assert "the register" not in (run.path / name).read_text()


DOORS: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: folder / "bank.csv",
    "a frame": lambda folder: pl.read_csv(folder / "bank.csv"),
    "edges": lambda folder: [(f"q{i}", f"c{j}") for i in range(30) for j in (i % 3, 3)],
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_of_own_data_is_private(door: str, tmp_path: Path) -> None:
    (tmp_path / "bank.csv").write_text(bank_text())
    data = read(DOORS[door](tmp_path))
    assert data.own
    assert test_parts(Partition.make(data), Config.load(None, ["tasks=edges"]).task_specs()) == []


def test_a_graph_file_is_private_too_and_simulated_data_are_not(tmp_path: Path) -> None:
    (tmp_path / "graph.csv").write_text("question,concept,weight\nq,a,1\nr,a,1\n")
    assert GraphFile().read(tmp_path / "graph.csv").own
    assert not read("simulated").own


# ----------------------------------------------------------------------------------------------------------- similar


def test_similar_says_whose_vectors_and_what_did_better(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {row["trainer"]: row["score"] for row in run.rows("tuning") if row["chosen"]}
    assert set(scores) == {"sgns", "svd"}
    best = max(scores, key=lambda name: scores[name])
    assert run.winner()[0] == best
    assert call("similar", run.path, Q, "-k", "2") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{Q}, vectors of sgns on qcq: best ")
    assert (second == "svd (no walks) did better; to take it: --trainer svd") == (best == "svd")
    assert call("similar", run.path, Q, "-k", "2", "--trainer", "svd") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{Q}, vectors of svd"


@pytest.mark.parametrize(("sgns", "svd"), [(0.2, 0.7), (0.7, 0.2)])
def test_the_winner_is_named_only_where_it_is_another_one(
    sgns: float, svd: float, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shutil import copytree

    other = Run(copytree(run.path, tmp_path / "run"))
    rows = [{**row, "score": {"sgns": sgns, "svd": svd}[row["trainer"]]} for row in run.rows("tuning")]
    (other.path / "tuning.jsonl").unlink()
    (other.path / "tuning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert call("similar", other.path, Q) == 0
    shown = capsys.readouterr().out
    better = ": best on walks by validation\nsvd (no walks) did better; to take it: --trainer svd\n"
    assert shown.startswith(
        f"{Q}, vectors of sgns on qcq" + (better if svd > sgns else ": best of all by validation\n")
    )


def test_the_default_shows_what_is_left_and_a_given_number_must_fit(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = ["--concept", "adding", "--not-concept", "taking"]
    left = len(similar(run, Q, concept="adding", not_concept="taking"))
    assert 0 < left < FEW
    assert call("similar", run.path, Q, *narrow) == 0
    assert f"{left} questions: all that are left" in capsys.readouterr().out
    assert call("similar", run.path, Q, "-k", left + 1, *narrow) == 2
    assert f"{left + 1} asked for; take -k {left}" in capsys.readouterr().err
    assert call("similar", run.path, Q, "--concept", "adding", "--not-concept", "adding") == 2
    assert "no other question with the concept adding, without the concept adding; loosen" in capsys.readouterr().err


def test_similar_in_a_file_of_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    table = Embeddings([f"q{i}" for i in range(5)], rng.normal(size=(5, 3)))
    file = table.save(tmp_path / "v.npz")
    assert [(a.question, a.similarity) for a in similar_in(table, "q1")] == table.nearest("q1", 4)
    assert call("similar", file, "q1") == 0
    out = capsys.readouterr().out
    assert "q1, vectors of v.npz" in out
    assert "4 questions: all that are left" in out
    assert "concepts" not in out
    for given, said in (
        (["q9"], "q9"),
        (["q1", "-k", "9"], "4 other questions, 9 asked for; take -k 4"),
        (["q1", "--harder", "--concept", "a"], "a file of vectors, without what --harder and --concept needs"),
    ):
        assert call("similar", file, *given) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UnknownNameError):
        similar_in(table, "q9")
    with pytest.raises(EmbeddingError, match="no other question; give a larger bank"):
        similar_in(Embeddings(["q"], np.ones((1, 2))), "q")


def test_a_file_with_its_model_knows_the_concepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank.csv").write_text(bank_text())
    bank = read(tmp_path / "bank.csv")
    table = embed(bank, "concepts", dim=4)
    table.save(tmp_path / "v.safetensors")
    table.save_model(tmp_path / "v.safetensors")
    assert call("similar", tmp_path / "v.safetensors", Q, "-k", "3", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    for each in answer["similar"]:
        row = bank.q_matrix[[bank.questions.index(each["question"])]].toarray()[0]
        assert set(each["concepts"]) == {bank.concepts[int(c)] for c in np.flatnonzero(row)}
        assert set(each["shared"]) == set(each["concepts"]) & {"adding"}


# --------------------------------------------------------------------------------------------------------------- add


def test_the_counts_of_add_sum_to_the_new_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank.csv").write_text(bank_text())
    new = "question,concepts\nn1,adding\nn2,adding;taking;halves\nn3,unheard\nn4,unheard;adding\nn5,\n"
    (tmp_path / "new.csv").write_text(new)
    bank = read(tmp_path / "bank.csv")
    table = embed(bank, "concepts", dim=4)
    made = add(table, bank, read(tmp_path / "new.csv"))
    assert (made.unplaced, made.partly) == (("n3", "n5"), ("n4",))
    assert made.by_set + made.by_model + made.by_concepts + len(made.unplaced) == 5
    file = table.save(tmp_path / "v.safetensors")
    for out, data in (("with.npz", []), ("without.npz", ["--data", tmp_path / "bank.csv"])):
        if not data:
            table.save_model(file)
        else:
            (tmp_path / "v.safetensors.model" / "model.safetensors").unlink()
        assert call("add", "--to", file, "--questions", tmp_path / "new.csv", "--out", tmp_path / out, *data) == 0
        said = capsys.readouterr()
        counts = said.out.partition("(")[2].partition(")")[0]
        assert sum(int(part.split()[0]) for part in counts.split(", ")) == 5, said.out
        assert said.out.startswith("5 new vectors")
        assert "2 new questions without a concept that the bank knows: the mean of all, n3, n5" in said.err
        assert "1 new question with concepts that the bank doesn't know: made from the others, n4" in said.err


# ----------------------------------------------------------------------------------------------------------- inspect


@pytest.mark.parametrize("data", ["bank", "simulated"])
def test_inspect_fits_a_screen_and_its_figures_are_those_of_json(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bank.csv").write_text(bank_text())
    source = ["--data", tmp_path / "bank.csv" if data == "bank" else "simulated", "--set", "simulated.questions=150"]
    assert call("inspect", *source) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("doubtful: ")]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert call("inspect", *source, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    shown = {row[1].strip(): row[2].strip() for row in (line.split("|") for line in lines) if len(row) == 4}
    assert list(shown)[2] == "questions"  # after the heading and its rule
    assert shown["components"] == str(found["components"])
    assert shown["exchangeable with another question"] == f"{found['indistinguishable_share']:.1%}"
    floors = {name: value for name, value in found["floors"]["walk"].items() if value is not None}
    assert floors
    for name, value in floors.items():
        assert float(shown[f"floor of {name.replace('_', ' ')}"].split()[0]) == pytest.approx(value, abs=6e-4)
    helped = {name for name in shown if name.startswith("exchangeable with edges by")}
    assert bool(helped) == (data == "simulated")
