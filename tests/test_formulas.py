"""No cell of a CSV file that qcq writes is a formula, and every name comes back."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qcq.config import Config
from qcq.data import read
from qcq.embeddings import Embeddings
from qcq.evaluation.published import write_split
from qcq.graph import KnowledgeGraph
from qcq.pipeline import Experiment
from qcq.run import Run
from qcq.support.formulas import guarded, guarded_frame, restored, restored_frame

HOSTILE = ('=HYPERLINK("http://a.example","b")', "+1+cmd|' /C calc'!A0", "-1+2", "@SUM(A1)", "'=1", "''@x", "=")
NUMBERS = ("-5", "+3", "-1.5", "7")


def safe(cell: str) -> bool:
    """As the specification says it: no sign of a formula in front, or a plain number."""
    return cell[:1] not in {"=", "+", "-", "@", "\t", "\r"} or re.fullmatch(r"[+-][0-9.e+-]+", cell) is not None


def cells(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") for cell in row]


@given(st.text() | st.builds(str.__add__, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "'=", "''-"]), st.text()))
@example("-5")
@example("-5\n")
@example("'-5")
def test_every_name_comes_back_and_none_is_a_formula(name: str) -> None:
    assert restored([guarded(name), "q"]) == [name, "q"]
    assert safe(guarded(name))
    frame = pl.DataFrame({"a": [name, "q", name, None], "b": [1.5, 2, 3, 4]})
    assert guarded_frame(frame)["a"].to_list() == [guarded(name), "q", guarded(name), None]
    assert restored_frame(guarded_frame(frame), "a").equals(frame)


def test_apostrophes_of_other_programs_stay(tmp_path: Path) -> None:
    """Two concepts would become one, or a name another one."""
    (tmp_path / "edges.csv").write_text("question,concept\nq1,'+' and '-'\nq2,'='\nq3,='\nq2,x\nq1,x\n")
    graph = KnowledgeGraph.load(tmp_path / "edges.csv")
    assert set(graph.concepts) == {"'+' and '-'", "'='", "='", "x"}
    assert restored(["'-5"]) == ["'-5"]


def test_numbers_stay_as_they_are() -> None:
    assert [guarded(name) for name in NUMBERS] == list(NUMBERS)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_graph(ending: str, tmp_path: Path) -> None:
    graph = KnowledgeGraph.from_edges([(name, other) for name in (*HOSTILE, *NUMBERS) for other in HOSTILE[:3]])
    path = graph.save(tmp_path / f"graph{ending}")
    assert all(map(safe, cells(path)))
    assert KnowledgeGraph.load(path).digest == graph.digest


def test_vectors(tmp_path: Path) -> None:
    names = [*HOSTILE, *NUMBERS]
    table = Embeddings(names, np.eye(len(names), dtype=np.float32))
    path = table.save(tmp_path / "table.csv")
    assert all(map(safe, cells(path)))
    assert list(Embeddings.load(path)) == names


def test_a_run_and_a_published_split(tmp_path: Path) -> None:
    """Names of questions, concepts and students; the report reads them back."""
    pairs = [(name, f"@{(i + j) % 4}") for i, name in enumerate([*HOSTILE, *"abcdefghijklmnopqrst"]) for j in range(2)]
    edges = pl.DataFrame(pairs, ["question", "concept"], orient="row")
    rows = [(f"=s{s}", name, (s + i) % 2) for s in range(20) for i, name in enumerate(HOSTILE)]
    answers = pl.DataFrame(rows, ["student", "question", "correct"], orient="row")
    bank = read(edges, interactions=answers)
    config = Config.load(overrides=["trainers=svd", "tasks=edges", "seeds=1", "tune=false", "dim=2"])
    Experiment(config, bank).run(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    for name in ("questions.csv", "concepts.csv"):
        assert all(map(safe, cells(run.path / name)))
    assert run.table("questions.csv")["question"].to_list() == list(bank.questions)
    assert run.table("concepts.csv")["concept"].to_list() == list(bank.concepts)
    split = bank.split()
    made = write_split(bank, split, tmp_path / "split", "drawn")
    assert all(map(safe, cells(made.folder / "students.csv")))
