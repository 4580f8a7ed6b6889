"""What a cell of a frame, file or workbook may hold: one rule for names through every door, and doubts that say so."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest

from qcq.data import Dataset, read
from qcq.data.checks import Doubt
from qcq.errors import DataError
from qcq.graph import KnowledgeGraph

BANK = {"question": ["q1", "q2"], "concept": ["a", "b"]}
LOG = {"question": ["q1", "q2", "q1"], "concept": ["a", "b", "a"], "correct": [1, 0, 1]}


def edges(data: Dataset) -> set[tuple[str, str]]:
    coo = data.q_matrix.tocoo()
    return {(data.questions[r], data.concepts[c]) for r, c in zip(coo.row, coo.col, strict=True)}


def doubts(data: Dataset) -> list[str]:
    return [note for note in data.notes if isinstance(note, Doubt)]


def bank(folder: Path, rows: Sequence[str], heading: str = "question,concept", encoding: str = "utf-8") -> Path:
    (folder / "questions.csv").write_bytes("\n".join([heading, *rows, ""]).encode(encoding))
    return folder


def workbook(file: Path, rows: Sequence[Sequence[object]]) -> Path:
    book = pytest.importorskip("openpyxl").Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)
    return file


# ------------------------------------------------------------------------------------------------------ pandas frames


@pytest.mark.parametrize("twice", ["questions", "interactions", "concepts"])
def test_a_column_of_a_frame_that_occurs_twice_is_refused(twice: str) -> None:
    frames = {
        "questions": pd.DataFrame(BANK),
        "interactions": pd.DataFrame({"student": ["s"], "question": ["q1"], "correct": [1]}),
        "concepts": pd.DataFrame({"concept": ["a", "b"], "name": ["A", "B"]}),
    }
    column = frames[twice].columns[-1]
    frames[twice] = pd.concat([frames[twice], frames[twice][column]], axis=1)
    with pytest.raises(DataError) as caught:
        read(frames["questions"], interactions=frames["interactions"], concepts=frames["concepts"])
    assert str(caught.value) == f"{twice} frame, column {column}: a column occurs twice; keep one of them"


@pytest.mark.parametrize("drop", [True, False])
def test_an_index_of_questions_may_be_a_column_too(drop: bool) -> None:
    assert edges(read(pd.DataFrame(BANK).set_index("question", drop=drop))) == {("q1", "a"), ("q2", "b")}
    both = pd.DataFrame(BANK).set_index(["question", "concept"], drop=drop)
    assert edges(read(both)) == {("q1", "a"), ("q2", "b")}


# ------------------------------------------------------------------------------------------- numbers as identifiers

LONG = [765432109876543211, 765432109876543212, 765432109876543289]  # one number, as 64-bit floats
COARSE: dict[str, Callable[[], object]] = {
    "pandas": lambda: pd.DataFrame({**LOG, "student": np.array(LONG, float)}),
    "polars": lambda: pl.DataFrame({**LOG, "student": np.array(LONG, float)}),
    "the first number without a neighbour": lambda: pd.DataFrame({**LOG, "student": [2.0**53, 1.0, 2.0]}),
    "below zero": lambda: pd.DataFrame({**LOG, "student": [-(2.0**53), 1.0, 2.0]}),
    "32 bits": lambda: pl.DataFrame({**LOG, "student": np.array([2**24, 2**24 + 1, 1], np.float32)}),
}


@pytest.mark.parametrize("case", COARSE)
def test_floats_too_large_for_identifiers_are_doubtful(case: str) -> None:
    (note,) = doubts(read(COARSE[case]()))
    assert note.startswith(
        "doubtful: questions frame, column student: 1 student may be numbers that a spreadsheet or a"
    )
    assert note.endswith("; export the column as text, and read it as text")
    with pytest.raises(DataError, match="--strict"):
        read(COARSE[case](), strict=True)


def test_floats_too_large_are_doubtful_in_every_column_of_names_and_door(tmp_path: Path) -> None:
    big = 2.0**60
    pl.DataFrame({"question": ["q1"], "concept": [big]}).write_parquet(tmp_path / "bank.parquet")
    graph = nx.Graph([("q1", big)])
    nx.set_node_attributes(graph, {"q1": 0, big: 1}, "bipartite")
    doors: list[Any] = [
        pd.DataFrame({"question": ["q1"], "concept": [big]}),
        pd.DataFrame({"question": ["q1"], "concepts": [[big]]}),
        pl.DataFrame({"question": ["q1"], "concepts": [[big]]}),
        [("q1", big)],
        tmp_path / "bank.parquet",
        graph,
    ]
    for door in doors:
        data = read(door)
        assert data.concepts == ("1.152921504606847e+18",)
        assert any("column concept: 1 concept may be numbers" in note for note in doubts(data))
    (note,) = doubts(read(pl.DataFrame({"question": [big], "concept": ["a"]})))
    assert "column question: 1 question may be numbers" in note


def test_floats_that_hold_their_numbers_are_not_doubtful() -> None:
    frame = pd.DataFrame({**LOG, "student": [2.0**53 - 1, 1e15, 20240301.0], "timestamp": [1.7e9, 1.7e9 + 1, 1.7e9]})
    data = read(frame)
    assert data.students == ("9007199254740991", "1000000000000000", "20240301")
    assert not doubts(data)


def test_cells_of_several_types_stay_apart() -> None:
    cells = pd.Series([2**53 + 1, 2**53, 1.0], dtype=object)
    data = read(pd.DataFrame({**LOG, "student": cells}))
    assert data.students == ("9007199254740993", "9007199254740992", "1")
    mixed = pd.DataFrame({"question": ["q1", "q2", "q3"], "concept": pd.Series(["a", 7.0, None], dtype=object)})
    assert edges(read(mixed)) == {("q1", "a"), ("q2", "7")}
    lists = pd.DataFrame({"question": ["q1", "q2"], "concepts": [["a", "b"], "a"]})
    assert edges(read(lists)) == {("q1", "a"), ("q1", "b"), ("q2", "a")}


def test_numbers_as_names_are_written_alike_through_every_door() -> None:
    graph = nx.Graph([("q1", 1.0), ("q2", 2.5)])
    nx.set_node_attributes(graph, {"q1": 0, "q2": 0, 1.0: 1, 2.5: 1}, "bipartite")
    questions = ["q1", "q2"]
    doors: list[Any] = [
        pd.DataFrame({"question": questions, "concept": [1.0, 2.5]}),
        pd.DataFrame({"question": [*questions, "q3"], "concept": [1.0, 2.5, None]}),
        pd.DataFrame({"question": questions, "concepts": [[1.0], [2.5]]}),
        pd.DataFrame({"question": questions, "concepts": [{1.0}, {2.5}]}),
        pl.DataFrame({"question": questions, "concept": [1.0, 2.5]}),
        pl.DataFrame({"question": questions, "concepts": [[1.0], [2.5]]}),
        [("q1", 1.0), ("q2", 2.5)],
        graph,
    ]
    for door in doors:
        assert edges(read(door)) == {("q1", "1"), ("q2", "2.5")}


# ------------------------------------------------------------------------------------------------------------ workbooks


def test_long_numbers_of_a_workbook_are_doubtful_beside_others(tmp_path: Path) -> None:
    """A workbook keeps 15 digits of a number. Text in the same column has all of its own."""
    rows = [("question", "concept"), (7.65432109876543e17, "a"), ("765432109876543289", "b"), (123456789012345.0, "b")]
    data = read(workbook(tmp_path / "bank.xlsx", rows))
    assert data.questions == ("7.65432109876543e+17", "765432109876543289", "123456789012345")
    (note,) = doubts(data)
    assert "column question: 1 question may be numbers that a spreadsheet or a float has rounded" in note
    rows = [("question", "concept"), (1234567890123450.0, "a"), (1234567890123460.0, "b")]
    (note,) = doubts(read(workbook(tmp_path / "short.xlsx", rows)))
    assert "2 questions may be numbers" in note


DAY, HOUR = datetime.datetime(2024, 3, 4), datetime.time(1, 2)


def test_dates_as_names_are_doubtful(tmp_path: Path) -> None:
    rows = [
        ("question", "concept", "student", "correct"),
        ("q1", DAY, "s1", 1),
        ("q2", "3-5", HOUR, 0),
        (DAY, "b", "s1", 1),
    ]
    data = read(workbook(tmp_path / "log.xlsx", rows))
    assert [note.split(": ")[1:3] for note in doubts(data)] == [
        ["log.xlsx, column question", "1 question may be names that a program has turned into dates or times"],
        ["log.xlsx, column concept", "1 concept may be names that a program has turned into dates or times"],
        ["log.xlsx, column student", "1 student may be names that a program has turned into dates or times"],
    ]
    for made in (
        pd.DataFrame({"question": ["q1"], "concept": pd.to_datetime(["2024-03-04"])}),
        pl.DataFrame({"question": ["q1"], "concept": [DAY.date()]}),
        [("q1", DAY)],
    ):
        data = read(made)
        assert data.concepts == ("2024-03-04T00:00:00",)
        assert len(doubts(data)) == 1


def test_dates_as_times_are_not(tmp_path: Path) -> None:
    rows = [("question", "concept", "student", "correct", "timestamp"), ("q1", "a", "s", 1, DAY)]
    data = read(workbook(tmp_path / "log.xlsx", rows))
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp.tolist() == [1709510400.0]
    assert not doubts(data)


# ---------------------------------------------------------------------------------------------------------------- lists

MISSING = [None, float("nan"), pd.NA, pd.NaT, np.float64("nan")]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, lambda cells: np.array(cells, dtype=object)])
def test_missing_entries_of_a_cell_are_left_out(kind: Callable[[list[object]], object], missing: object) -> None:
    cells = [kind(["a", missing]), kind([missing]), kind(["b"])]
    data = read(pd.DataFrame({"question": ["q1", "q2", "q3"], "concepts": cells}))
    assert edges(data) == {("q1", "a"), ("q3", "b")}
    assert "1 question without a concept: isolated in the graph" in data.notes


def test_missing_entries_of_groups_and_of_polars_are_left_out() -> None:
    skill = pd.array([1, None, None], dtype="Int64")
    frame = pd.DataFrame({"question": ["q1", "q1", "q2"], "skill": skill})
    for made in (frame.groupby("question")["skill"].agg(list), frame.groupby("question")["skill"].unique()):
        data = read(made.to_frame())
        assert (data.questions, data.concepts) == (("q1", "q2"), ("1",))
    for cells in ([["a", None], [None], ["a"]], [[1.0, float("nan")], [float("nan")], [1.0]]):
        data = read(pl.DataFrame({"question": ["q1", "q2", "q3"], "concepts": cells}))
        assert [len(row) for row in np.split(data.q_matrix.indices, data.q_matrix.indptr[1:-1])] == [1, 0, 1]


@pytest.mark.parametrize("column", ["student", "question", "correct", "timestamp"])
@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_a_list_in_a_column_of_answers_is_refused(frame: Any, column: str, tmp_path: Path) -> None:
    row = {"student": "s", "question": "q1", "correct": 1, "timestamp": 5}
    cells = {name: [[cell, cell] if name == column else cell] for name, cell in row.items()}
    with pytest.raises(DataError) as caught:
        read(frame(BANK), interactions=frame(cells))
    assert str(caught.value).startswith(f"interactions frame, column {column}: a list in each cell")
    assert str(caught.value).endswith("give each value a row of its own: one row per answer")


@pytest.mark.parametrize(
    "cells",
    [
        {"question": [["q1"]], "concept": ["a"]},
        {"question": ["q1"], "concept": ["a"], "weight": [[1.0]]},
        {"question": ["q1"], "concepts": [[["a"]]]},
    ],
)
def test_a_list_is_refused_in_a_bank_but_for_its_concepts(cells: dict[str, Any], tmp_path: Path) -> None:
    pl.DataFrame(cells).write_parquet(tmp_path / "bank.parquet")
    for source in (pl.DataFrame(cells), f"csv:{tmp_path / 'bank.parquet'}"):
        with pytest.raises(DataError, match=r"a list in each cell: 'List\([^\n]+\)'; give each value a row of its own"):
            read(source)


def test_a_table_in_a_cell_is_refused() -> None:
    with pytest.raises(DataError, match="questions frame: no table of text, numbers and lists"):
        read(pd.DataFrame({"question": ["q1"], "concepts": [np.ones((2, 2))]}))


# ---------------------------------------------------------------------------------------------------------------- files


def test_answers_beside_a_file_of_answers_are_named(tmp_path: Path) -> None:
    rows = {"user_id": ["s", "s"], "question": ["q1", "q2"], "concept": ["a", "b"], "correct": [1, 1]}
    answers = pl.DataFrame({"student": ["s"], "question": ["q1"], "correct": [0]})
    pl.DataFrame(rows).write_csv(tmp_path / "questions.csv")
    answers.write_csv(tmp_path / "interactions.csv")
    for data in (read(tmp_path), read(pl.DataFrame(rows), interactions=answers)):
        (note,) = doubts(data)
        assert ": columns not read: 'user_id', 'correct'; answers are those of interactions" in note
        assert data.interactions is not None
        assert data.interactions.correct.tolist() == [0]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_saved_graph_with_a_lone_question_is_read_as_a_bank(ending: str, tmp_path: Path) -> None:
    graph = KnowledgeGraph.from_edges([("q1", "a"), ("q2", "b")])
    graph = KnowledgeGraph([*graph.questions, "q3"], graph.concepts, np.array([[0.5, 0], [0, 2], [0, 0]]))
    data = read(graph.save(tmp_path / f"g{ending}"))
    assert (data.questions, data.concepts) == (("q1", "q2", "q3"), ("a", "b"))
    assert data.q_matrix.toarray().tolist() == [[0.5, 0], [0, 2], [0, 0]]


@pytest.mark.parametrize("rows", [["q1,a,", "q2,b,1"], ["q1,a,1", "q2,,heavy"], ["q1,a,1", "q2,,-1"]])
def test_a_weight_that_is_none_is_refused_still(rows: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column weight: not a positive weight"):
        read(bank(tmp_path, rows, "question,concept,weight"))


@pytest.mark.parametrize("separator", ["；", "，", "、", "~~", "_", "||"])
def test_separators_of_practice_are_doubtful_where_the_parts_occur(separator: str, tmp_path: Path) -> None:
    (note,) = doubts(read(bank(tmp_path, [f"q1,a{separator}b", "q2,a", "q3,b"])))
    assert f"1 concept may be several with {separator[0]!r} between them: 'a{separator}b'" in note
    assert not doubts(read(bank(tmp_path, [f"q1,a{separator}b", "q2,c"])))


def test_names_of_several_words_are_not_lists(tmp_path: Path) -> None:
    rows = ["q1,add_halves", "q2,add_thirds", "q3,cut_halves", "q4,cut_thirds", "q5,add"]
    assert not doubts(read(bank(tmp_path, rows)))


@pytest.mark.parametrize("space", ["\t", "\u00a0", "\u3000", " \t "])
def test_any_space_beside_a_separator_is_taken_off_and_said(space: str, tmp_path: Path) -> None:
    rows = [f"q1,a;{space}b", "q2,b ; a"]
    frame = pl.DataFrame([row.split(",") for row in rows], schema=["question", "concepts"], orient="row")
    for data in (read(bank(tmp_path, rows, "question,concepts")), read(frame)):
        assert edges(data) == {("q1", "a"), ("q1", "b"), ("q2", "a"), ("q2", "b")}
        said = [note.partition(": ")[2] for note in data.notes if "without the space" in note]
        example = repr(f"a;{space}b")
        assert said == [f"1 cell of concepts read without the space around the name, for example {example}"]


@pytest.mark.parametrize(
    ("time", "said", "fix"),
    [
        (1_700_000_000_000, "may be milliseconds", "divide them by 1,000"),
        (1_700_000_000_000_000, "may be microseconds", "divide them by 1,000,000"),
        (1_700_000_000_000_000_000, "may be nanoseconds", "divide them by 1,000,000,000"),
        (20_240_301_235_959, "that may be no seconds", "give seconds since 1970, or ISO 8601"),
    ],
)
def test_the_unit_of_times_is_the_one_that_gives_a_year_of_today(time: int, said: str, fix: str) -> None:
    answers = pl.DataFrame({"student": ["s"], "question": ["q1"], "correct": [1], "timestamp": [time]})
    (note,) = doubts(read(pl.DataFrame(BANK), interactions=answers))
    assert f"column timestamp: times {said}: in seconds they are in the year" in note
    assert note.endswith(f"; {fix}")


# ------------------------------------------------------------------------------------------------------------ encodings


def test_two_accents_inside_a_word_are_letters(tmp_path: Path) -> None:
    data = read(bank(tmp_path, ["q1,Größe", "q2,a"], encoding="cp1252"))
    assert data.concepts == ("Größe", "a")
    assert "questions.csv: read as cp1252, for example 'Größe'" in data.notes
    assert not doubts(data)


def test_a_few_lone_characters_beside_letters_are_doubtful(tmp_path: Path) -> None:
    for text, encoding in (("créé", "cp1252"), ("A类", "gb18030")):
        (note,) = doubts(read(bank(tmp_path, [f"q1,{text}", "q2,b"], encoding=encoding)))
        assert "Chinese characters, each alone, may be letters of Windows' code page 1252" in note


@pytest.mark.parametrize("rows", [["题1,a", "题2,b"], ["q1,分数", "q2,A类"], ["q1,x轴", "q2,分数"], ["q1,数"]])
def test_short_chinese_files_are_read(rows: list[str], tmp_path: Path) -> None:
    data = read(bank(tmp_path, rows, encoding="gb18030"))
    assert edges(data) == {(row.split(",")[0], row.split(",")[1]) for row in rows}
    assert not doubts(data)
