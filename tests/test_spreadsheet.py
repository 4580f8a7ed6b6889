"""A question bank as a teacher or a tool exports it: the same table in every format is the same bank."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import networkx as nx
import numpy as np
import polars as pl
import pytest

from qcq.data import Dataset, read
from qcq.data.checks import HINTS, SYNONYMS, Doubt, bare
from qcq.errors import DataError

Rows = Sequence[Sequence[str]]
FORMATS = ("csv", "semicolons.csv", "tsv", "xlsx", "parquet", "frame")


def written(folder: Path, rows: Rows, kind: str, name: str = "bank") -> object:
    """The table in one of the formats: a path, or a frame."""
    if kind == "frame":
        return pl.DataFrame(rows[1:], schema=dict.fromkeys(rows[0], pl.String), orient="row")
    file = folder / f"{name}.{kind.rpartition('.')[2]}"
    if kind == "parquet":
        pl.DataFrame(rows[1:], schema=dict.fromkeys(rows[0], pl.String), orient="row").write_parquet(file)
    elif kind == "xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for row in rows:
            book.active.append(list(row))
        book.save(file)
    else:
        text = io.StringIO()
        between = {"csv": ",", "tsv": "\t"}.get(kind, ";")
        csv.writer(text, delimiter=between, lineterminator="\n").writerows(rows)
        file.write_text(text.getvalue(), encoding="utf-8")
    return file


def edges(data: Dataset) -> set[tuple[str, str]]:
    coo = data.q_matrix.tocoo()
    return {(data.questions[r], data.concepts[c]) for r, c in zip(coo.row, coo.col, strict=True)}


def doubts(data: Dataset) -> list[str]:
    return [note for note in data.notes if isinstance(note, Doubt)]


# ----------------------------------------------------------------------------------------------------------- headings


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("question", "concept"),
    [("problem_id", "skill"), ("Item", "Tags"), ("exercise", "KC"), ("Question ID", "knowledge components")],
)
def test_usual_headings_are_read_in_every_format_and_said(
    kind: str, question: str, concept: str, tmp_path: Path
) -> None:
    data = read(written(tmp_path, [[question, concept], ["q1", "a"], ["q2", "b"]], kind))
    assert edges(data) == {("q1", "a"), ("q2", "b")}
    said = [note.partition(": ")[2] for note in data.notes if "read as" in note and "column " in note]
    column = "concepts" if concept.lower().endswith("s") else "concept"
    assert said == [f"column {question!r} read as question", f"column {concept!r} read as {column}"]
    assert not doubts(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_two_headings_that_fit_are_refused(kind: str, tmp_path: Path) -> None:
    for heading, said in (
        (["problem", "item", "skill"], "column question: 2 columns that may be question: 'problem', 'item'"),
        (["question", "skill_id", "skill_name"], "column concept: 2 columns that may be concept"),
        (["question", "skill", "tags"], "both a column concept and a column concepts"),
    ):
        with pytest.raises(DataError) as caught:
            read(written(tmp_path, [heading, ["1", "2", "3"]], kind))
        assert said in str(caught.value)


def test_the_documented_heading_wins_over_a_usual_one(tmp_path: Path) -> None:
    data = read(written(tmp_path, [["question", "item", "concept", "skill"], ["q", "i", "c", "s"]], "csv"))
    assert edges(data) == {("q", "c")}
    assert any("columns not read: 'item', 'skill'" in note for note in data.notes)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_log_under_usual_headings_is_a_log(kind: str, tmp_path: Path) -> None:
    rows = [["user_id", "problem_id", "skill", "is_correct"], ["u", "p", "a", "1"], ["u", "r", "b", "0"]]
    data = read(written(tmp_path, rows, kind))
    assert data.interactions is not None
    assert data.interactions.correct.tolist() == [1, 0]
    assert data.students == ("u",)


def test_two_columns_of_students_of_a_log_are_refused_and_of_a_bank_only_named(tmp_path: Path) -> None:
    rows = [["user", "learner", "item", "kc", "correct"], ["u", "l", "p", "a", "1"]]
    with pytest.raises(DataError, match=r"2 columns that may be student: 'user', 'learner'"):
        read(written(tmp_path, rows, "csv"))
    data = read(written(tmp_path, [row[:4] for row in rows], "csv", "other"))
    assert any("columns not read: 'user', 'learner'" in note for note in data.notes)


@pytest.mark.parametrize("heading", ["time", "date", "start time", "score"])
def test_a_heading_that_may_mean_something_else_is_not_read(heading: str, tmp_path: Path) -> None:
    """A time may be how long an answer took, a score may be marks."""
    (tmp_path / "questions.csv").write_text("question,concept\nq,a\n")
    (tmp_path / "interactions.csv").write_text(f"student,question,correct,{heading}\ns,q,1,3\n")
    data = read(tmp_path)
    assert data.interactions is not None
    assert data.interactions.timestamp is None
    assert any(repr(heading) in note and "not read" in note for note in data.notes)


def test_no_heading_is_usual_for_two_columns() -> None:
    every = [name for names in SYNONYMS.values() for name in names]
    assert len(set(every)) == len(every)
    assert not set(every) & {name for names in HINTS.values() for name in names}
    assert all(bare(name) == name for table in (SYNONYMS, HINTS) for names in table.values() for name in names)


def test_a_second_heading_under_usual_names_is_found(tmp_path: Path) -> None:
    rows = [["problem", "skill"], ["p", "a"], ["Problem", "Skill"], ["r", "b"]]
    with pytest.raises(DataError, match="row 3: a second heading"):
        read(written(tmp_path, rows, "csv"))


# ------------------------------------------------------------------------------------------- missing columns, sheets


@pytest.mark.parametrize("kind", FORMATS)
def test_all_missing_columns_are_named_at_once(kind: str, tmp_path: Path) -> None:
    made = written(tmp_path, [["Frage", "Thema"], ["q", "a"]], kind)
    with pytest.raises(DataError) as caught:
        read(made if kind == "frame" else f"csv:{made}")
    assert "missing columns question and concepts" in str(caught.value)
    assert "the columns are Frage, Thema" in str(caught.value)


def test_the_sheet_that_was_read_and_the_others_are_named(tmp_path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.title = "About"
    book.active.append(["Author", "Year"])
    book.active.append(["me", 2024])
    for row in (("question", "concepts"), ("q", "a")):
        (book["Bank"] if "Bank" in book.sheetnames else book.create_sheet("Bank")).append(row)
    book.save(tmp_path / "bank.xlsx")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "bank.xlsx")
    text = str(caught.value)
    assert "missing columns question and concepts on sheet 'About'" in text
    assert "only the first sheet is read: move the one with the table to the front of 'About', 'Bank'" in text
    book.move_sheet("Bank", -1)
    book.save(tmp_path / "bank.xlsx")
    assert edges(read(tmp_path / "bank.xlsx")) == {("q", "a")}


# ------------------------------------------------------------------------------------------------ separators and space


@pytest.mark.parametrize("kind", FORMATS)
def test_semicolons_separate_concepts_in_every_format_and_commas_in_none(kind: str, tmp_path: Path) -> None:
    rows = [["question", "concepts"], ["q1", "a; b"], ["q2", "adding, whole"], ["q3", "b;c"]]
    data = read(written(tmp_path, rows, kind))
    assert edges(data) == {("q1", "a"), ("q1", "b"), ("q2", "adding, whole"), ("q3", "b"), ("q3", "c")}
    assert not doubts(data)
    data = read(written(tmp_path, [["question", "concepts"], ["q1", "a, b"], ["q2", "b"]], kind, "commas"))
    assert edges(data) == {("q1", "a, b"), ("q2", "b")}
    (note,) = doubts(data)
    assert "1 concept may be several with ',' between them: 'a, b'; write ';' between them" in note


def test_commas_where_semicolons_separate_the_columns_are_doubtful_in_any_case(tmp_path: Path) -> None:
    """A hand-written file of such a kind can't have had a plain semicolon between concepts."""
    data = read(written(tmp_path, [["question", "concepts"], ["q1", "a,b"], ["q2", "c"]], "semicolons.csv"))
    (note,) = doubts(data)
    assert "may be several with ',' between them: 'a,b'; write ';' between them, in quotes" in note


@pytest.mark.parametrize("kind", FORMATS)
def test_space_around_a_name_is_taken_off_and_counted(kind: str, tmp_path: Path) -> None:
    rows = [["question", "concepts"], ["q1", "a;b "], ["q2 ", " b"], ["q2", "c"], ["q3", "a ; c"]]
    data = read(written(tmp_path, rows, kind))
    assert edges(data) == {("q1", "a"), ("q1", "b"), ("q2", "b"), ("q2", "c"), ("q3", "a"), ("q3", "c")}
    said = [note.partition(": ")[2] for note in data.notes if "without the space" in note]
    assert said == [
        "1 cell of question read without the space around the name, for example 'q2 '",
        "2 cells of concepts read without the space around the name, for example 'a;b '",
    ]
    assert not doubts(data)


def test_space_is_taken_off_on_both_sides_of_a_match(tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text("question,concept\nq1 ,a\nq2,b\u00a0\n")
    (tmp_path / "interactions.csv").write_text("student,question,correct\ns ,q1,1\ns, q2,0\n")
    (tmp_path / "concepts.csv").write_text("concept,parent\na ,\nb,a \n")
    data = read(tmp_path)
    assert (data.questions, data.concepts, data.students) == (("q1", "q2"), ("a", "b"), ("s",))
    assert data.parents == {"b": "a"}
    assert sum("without the space" in note for note in data.notes) == 6


def test_lists_in_frames_are_treated_alike() -> None:
    data = read(pl.DataFrame({"question": ["q1", "q2"], "concepts": [["a ", "b"], ["a"]]}))
    assert edges(data) == {("q1", "a"), ("q1", "b"), ("q2", "a")}
    assert any("1 cell of concepts read without the space" in note for note in data.notes)


def test_nodes_of_a_graph_are_never_merged() -> None:
    graph = nx.Graph([("q", "c"), ("q ", "c")])
    nx.set_node_attributes(graph, {"q": 0, "q ": 0, "c": 1}, "bipartite")
    with pytest.raises(DataError, match=r"1 node among the questions with space around the name: 'q '"):
        read(graph)


# --------------------------------------------------------------------------------------------------- numbers and dates


def log(folder: Path, times: Sequence[str], kind: str = "csv") -> object:
    rows = [["student", "question", "concept", "correct", "timestamp"]]
    return written(folder, [*rows, *(["s", f"q{i}", "a", "1", time] for i, time in enumerate(times))], kind)


def seconds(data: Dataset) -> list[float]:
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    return data.interactions.timestamp.tolist()


@pytest.mark.parametrize("kind", FORMATS)
def test_dates_with_points_begin_with_the_day(kind: str, tmp_path: Path) -> None:
    settled, open_ = ["12.03.2024 14:05", "13.03.2024 14:06"], ["2.03.2024 14:05", "3.03.2024 14:06"]
    data = read(log(tmp_path, settled, kind))
    assert np.diff(seconds(data)).tolist() == [86460.0]
    assert any("dates read as day, month, year: no other order fits all of them" in note for note in data.notes)
    data = read(log(tmp_path, open_, kind))
    assert np.diff(seconds(data)).tolist() == [86460.0]
    assert any("dates with points begin with the day" in note for note in data.notes)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["2/3/2024 14:05", "3/3/2024 14:06"], "a date whose day and month can't be told apart"),
        (["2.3.2024", "3/3/2024"], "a date whose day and month can't be told apart"),
        (["13.14.2024", "14.13.2024"], "a date whose day and month can't be told apart"),
        (["13.03.24 14:05"], "a date whose year has two digits"),
        (["1,234", "2,345"], "a comma that may be decimal or between thousands"),
        (["1.234,5", "7,5"], "not a time"),
        (["0.5", "7,5"], "not a time"),
    ],
)
def test_times_that_could_mean_two_things_are_refused(times: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(log(tmp_path, times))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_decimal_comma_is_read_where_the_whole_column_has_it(kind: str, tmp_path: Path) -> None:
    data = read(log(tmp_path, ["1,5", "2,125", "10"], kind))
    assert seconds(data) == [1.5, 2.125, 10.0]
    assert any("the comma of timestamp read as a decimal point, for example '1,5'" in note for note in data.notes)
    rows = [["question", "concept", "weight"], ["q", "a", "0,5"], ["q", "b", "2"]]
    data = read(written(tmp_path, rows, kind, "weights"))
    assert sorted(data.q_matrix.data) == [0.5, 2.0]
    assert any("the comma of weight read as a decimal point" in note for note in data.notes)
    rows[1][2] = "1,250"
    with pytest.raises(DataError, match="column weight: a comma that may be decimal or between thousands"):
        read(written(tmp_path, rows, kind, "thousands"))


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bank.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="no readable Parquet file"):
        read(f"csv:{tmp_path / 'bank.parquet'}")


@pytest.mark.parametrize("said", ["A1", "A1:A2", "A1:B2", "A1:ZZ99", ""])
def test_all_rows_of_a_sheet_are_read_whatever_size_it_says(said: str, tmp_path: Path) -> None:
    """Some programs write a size before they know it. Rows and columns beyond were left out without a word."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["question", "concepts", "name"], ["q1", "a", "one"], ["q2", "b"], ["q3", "c", "three"]):
        book.active.append(row)
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as held, zipfile.ZipFile(tmp_path / "bank.xlsx", "w") as made:
        for name in held.namelist():
            size = f'<dimension ref="{said}" />'.encode() if said else b""
            made.writestr(name, re.sub(rb"<dimension [^>]*/>", size, held.read(name)))
    found = read(tmp_path / "bank.xlsx")
    assert edges(found) == {("q1", "a"), ("q2", "b"), ("q3", "c")}


def test_merged_cells_have_their_value_in_every_row(tmp_path: Path) -> None:
    """The file of a merged cell has a value in its first row only; a teacher sees it in all."""
    book = pytest.importorskip("openpyxl").Workbook()
    rows = [["question", "concepts", "note"], ["q1", "a", "x"], ["q2", None], ["q3", None], ["q4", "b"], [None, "c"]]
    for row in [*rows, [None, None], ["q5", "d"]]:
        book.active.append(row)
    for area in ("B2:B4", "A5:A6", "C2:D3", "A1:A1"):
        book.active.merge_cells(area)
    book.save(tmp_path / "bank.xlsx")
    with pytest.raises(DataError, match="row 7: blank line"):
        read(tmp_path / "bank.xlsx")
    book.active.delete_rows(7)
    book.save(tmp_path / "bank.xlsx")
    data = read(tmp_path / "bank.xlsx")
    assert edges(data) == {("q1", "a"), ("q2", "a"), ("q3", "a"), ("q4", "b"), ("q4", "c"), ("q5", "d")}
    assert "bank.xlsx: 4 cells read with the value of the merged cell above, for example C3" in "\n".join(data.notes)


def test_merged_cells_reach_no_blank_row_and_no_heading(tmp_path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["question", "concepts"], ["q1", "a"], ["q2", "b"]):
        book.active.append(row)
    book.active.merge_cells("B3:B9")  # openpyxl writes the empty rows below the table
    book.active.merge_cells("C1:C3")
    book.save(tmp_path / "bank.xlsx")
    data = read(tmp_path / "bank.xlsx")
    assert edges(data) == {("q1", "a"), ("q2", "b")}
    assert not any("merged" in note for note in data.notes)


def test_a_formula_without_its_value_is_named(tmp_path: Path) -> None:
    """Programs that don't compute write formulas alone. Their cells would be blank."""
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["question", "concepts"], ["q1", "a"], ["q2", '=IF(A3="q2","b","c")']):
        book.active.append(row)
    book.save(tmp_path / "made.xlsx")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "made.xlsx")
    said = "made.xlsx, row 3, column B: a formula without its value; open the file in a spreadsheet program and save it"
    assert str(caught.value).endswith(said)
    for value, kind, concept in (("b", "str", "b"), ("", "str", None), ("5", "n", "5")):
        with zipfile.ZipFile(tmp_path / "made.xlsx") as held, zipfile.ZipFile(tmp_path / "bank.xlsx", "w") as made:
            for name in held.namelist():
                data = re.sub(
                    rb'<c r="B3"([^>]*)>(<f>.*?</f>)<v ?/>',
                    rb'<c r="B3" t="%s">\2<v>%s</v>' % (kind.encode(), value.encode()),
                    held.read(name),
                )
                made.writestr(name, data)
        of_q2 = {("q2", concept)} if concept else set()
        assert edges(read(tmp_path / "bank.xlsx")) == {("q1", "a"), *of_q2}
