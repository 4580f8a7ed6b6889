"""Own data: what is surely wrong is an error, what is doubtful a note, and the doors to one room agree."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq.data import Dataset, load, read
from qcq.data.checks import Doubt
from qcq.data.excel import sheet
from qcq.errors import DataError, GraphError
from qcq.graph import KnowledgeGraph

ANSWERS = "student,question,correct\ns1,q1,1\ns1,q2,0\ns2,q2,1\n"


def bank(folder: Path, **files: str | bytes) -> Path:
    """A folder of files, ``questions`` for ``questions.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        raw = text.encode() if isinstance(text, str) else text
        (folder / name.replace("__", ".")).with_suffix(
            ".csv" if "__" not in name else "." + name.split("__")[1]
        ).write_bytes(raw)
    return folder


def edges(data: Dataset) -> set[tuple[str, str]]:
    coo = data.q_matrix.tocoo()
    return {(data.questions[r], data.concepts[c]) for r, c in zip(coo.row, coo.col, strict=True)}


def doubts(data: Dataset) -> list[str]:
    return [note for note in data.notes if isinstance(note, Doubt)]


def answers(data: Dataset) -> list[tuple[str, str, int]]:
    made = data.interactions
    assert made is not None
    columns = zip(made.student, made.question, made.correct, strict=True)
    return [(data.students[s], data.questions[q], int(c)) for s, q, c in columns]


# --------------------------------------------------------------------------------------------- what becomes a note


def test_attempts_written_once_a_concept_are_counted_and_can_be_merged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, n = ["student,question,correct"], 0
    for student in range(20):
        for _ in range(15):
            rows += [f"s{student},q{rng.integers(8)},{rng.integers(2)}"] * 2
            n += 1
    questions = "question,concepts\n" + "".join(f"q{q},a{q};b\n" for q in range(8))
    folder = bank(tmp_path, questions=questions, interactions="\n".join(rows) + "\n")
    data = read(folder)
    (note,) = doubts(data)
    assert f"of {2 * n:,} responses repeat the row before them" in note
    assert "csv.merge_repeats=true" in note
    said = int(note.split("interactions.csv: ")[1].split(" of ")[0])
    merged = load(str(folder), {"csv": {"merge_repeats": True}})
    assert merged.interactions is not None
    assert len(merged.interactions) == 2 * n - said <= n
    assert not doubts(merged)
    assert not doubts(load(str(folder), {"csv": {"merge_repeats": False}}))
    with pytest.raises(DataError, match=r"repeat the row before.*--strict"):
        read(folder, strict=True)


def test_a_second_try_at_another_time_is_no_repeat(tmp_path: Path) -> None:
    log = "student,question,correct,timestamp\ns,q,1,1\ns,q,1,2\n"
    assert not doubts(read(bank(tmp_path, questions="question,concept\nq,a\n", interactions=log)))


def test_a_log_in_one_file_has_questions_and_responses(tmp_path: Path) -> None:
    log = "student,question,concept,correct,timestamp\n"
    log += "s1,q1,halves,1,1\ns1,q2,thirds,0,2\ns2,q1,halves,0,1\ns2,q2,thirds,1,2\n"
    file = bank(tmp_path, log=log) / "log.csv"
    data = read(file)
    assert edges(data) == {("q1", "halves"), ("q2", "thirds")}
    assert answers(data) == [("s1", "q1", 1), ("s1", "q2", 0), ("s2", "q1", 0), ("s2", "q2", 1)]
    assert answers(read(pl.read_csv(file))) == answers(data)


@pytest.mark.parametrize("heading", ["Timestamp", " timestamp", "TIMESTAMP"])
def test_headings_are_compared_without_case_and_space(heading: str, tmp_path: Path) -> None:
    log = f"student,question,correct,{heading}\ns1,q2,1,20\ns1,q1,0,10\n"
    data = read(bank(tmp_path, questions="Question,Concepts\nq1,a\nq2,b\n", interactions=log))
    assert [q for _, q, _ in answers(data)] == ["q1", "q2"]
    assert any("sorted by time; 1 of 2 rows" in note for note in data.notes)


@pytest.mark.parametrize("heading", ["time", "Start_Time", "timestmp"])
def test_a_column_that_may_be_the_time_is_named(heading: str, tmp_path: Path) -> None:
    log = f"student,question,correct,{heading}\ns1,q2,1,20\ns1,q1,0,10\n"
    data = read(bank(tmp_path, questions="question,concepts\nq1,a\nq2,b\n", interactions=log))
    assert doubts(data) == [
        f"doubtful: interactions.csv: column {heading!r} was not read; rename it if it is timestamp"
    ]


def test_a_file_that_may_be_the_responses_is_named(tmp_path: Path) -> None:
    data = read(bank(tmp_path, questions="question,concept\nq1,a\n", interaction=ANSWERS, readme__md="about"))
    assert [note.split(": ", 2)[2] for note in doubts(data)] == [
        "file 'interaction.csv' was not read; rename it if it is interactions.csv"
    ]
    assert any("files not read: 'readme.md'" in note for note in data.notes)


NOTES: dict[str, tuple[str, str]] = {
    "another separator": (
        'question,concepts\nq1,"halves,thirds"\nq2,halves|thirds\nq3,halves\nq4,thirds\n',
        "may be several with ','",
    ),
    "a list in the column concept": ("question,concept\nq1,halves;thirds\nq2,halves\n", "call the column concepts"),
    "a list in Python's notation": (
        "question,concept\nq1,\"['a', 'b']\"\nq2,c\n",
        "list in the notation of a programming",
    ),
    "case": ("question,concept\nq1,Halves\nq2,halves\n", "2 concepts differ"),
    "leading zeros": ("question,concept\n007,a\n7,b\n", "2 questions differ"),
    "a float's .0": ("question,concept\n7.0,a\n7,b\n", "2 questions differ"),
    "composed letters": ("question,concept\nq1,e\u0301t\nq2,\u00e9t\n", "2 concepts differ"),
    "rounded by a spreadsheet": ("question,concept\n1.23457E+15,a\nq2,b\n", "1 question may be numbers"),
    "two names": ("question,concept,name\nq1,a,One\nq1,b,Two\n", "1 question with different names"),
}


@pytest.mark.parametrize("case", NOTES)
def test_what_is_doubtful_is_a_note_and_strict_refuses_it(case: str, tmp_path: Path) -> None:
    text, said = NOTES[case]
    folder = bank(tmp_path, questions=text)
    assert any(said in note for note in doubts(read(folder))), read(folder).notes
    with pytest.raises(DataError, match="--strict"):
        read(folder, strict=True)
    frame = pl.read_csv(folder / "questions.csv", infer_schema=False)
    assert any(said in note for note in doubts(read(frame)))


def test_times_that_may_be_milliseconds_are_doubtful(tmp_path: Path) -> None:
    log = "student,question,correct,timestamp\ns,q,1,1700000000000\ns,q,0,1700000001000\n"
    (note,) = doubts(read(bank(tmp_path, questions="question,concept\nq,a\n", interactions=log)))
    assert "times may be milliseconds" in note


def test_answers_as_spreadsheets_write_them(tmp_path: Path) -> None:
    log = "student,question,correct\ns,q,TRUE\ns,q,False\n"
    data = read(bank(tmp_path, questions="question,concept\nq,a\n", interactions=log))
    assert [c for _, _, c in answers(data)] == [1, 0]


def test_a_second_table_of_questions_is_doubtful(tmp_path: Path) -> None:
    (note,) = doubts(read(bank(tmp_path, questions="question,concept\nq,a\n", questions_new="question,concept\nr,a\n")))
    assert "file 'questions_new.csv' was not read; put its rows into the file that is read" in note


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="the file is empty"):
        read(tmp_path / "empty.csv")


ERRORS: dict[str, tuple[str, str]] = {
    "words for nothing": (
        "question,concept\nq1,nan\nq2,-1\nq3,NULL\nq4,halves\n",
        "row 2, column concept: word for an empty cell",
    ),
    "an invisible character": (
        "question,concept\nq1,halves\nq2,halves\u200b\n",
        "row 3, column concept: identifier with an invisible character in it: 'halves\\u200b'",
    ),
    "a second heading": ("question,concept\nq1,a\nQuestion,Concept\nq2,b\n", "row 3: a second heading"),
    "two weights": ("question,concept,weight\nq1,a,1\nq1,a,2\n", "row 3, column weight: an edge with two weights"),
    "no weight": (
        "question,concept,weight\nq1,a,1\nq1,b,heavy\n",
        "row 3, column weight: not a positive weight: 'heavy'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_surely_wrong_is_an_error(case: str, tmp_path: Path) -> None:
    text, said = ERRORS[case]
    with pytest.raises(DataError) as caught:
        read(bank(tmp_path, questions=text))
    assert said in str(caught.value)


def test_unknown_questions_are_counted_and_named(tmp_path: Path) -> None:
    rows = "".join(f"s{i},q{1 if i >= 57 else 900 + i % 3},1\n" for i in range(157))
    with pytest.raises(DataError) as caught:
        read(bank(tmp_path, questions="question,concept\nq1,a\n", interactions="student,question,correct\n" + rows))
    assert "unknown question (in 57 rows, about 3 questions): 'q900, q901, q902'" in str(caught.value)


def test_unknown_questions_that_differ_in_form_only_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 would match but for case, blanks, leading zeros"):
        read(bank(tmp_path, questions="question,concept\n7,a\n", interactions="student,question,correct\ns,7.0,1\n"))


def test_the_wrong_one_of_many_times_is_blamed(tmp_path: Path) -> None:
    times = ("2024-03-01T10:00:00", "2024-03-01T10:05:00", "2024-13-01T10:06:00")
    log = "student,question,correct,timestamp\n" + "".join(f"s,q,1,{time}\n" for time in times)
    with pytest.raises(DataError, match=r"row 4, column timestamp: not a time: '2024-13-01T10:06:00'"):
        read(bank(tmp_path, questions="question,concept\nq,a\n", interactions=log))


@pytest.mark.parametrize(
    ("times", "seconds"),
    [(("13/03/2024 10:00", "1/4/2024 10:00"), 19 * 86400), (("3/13/2024", "4/1/2024"), 19 * 86400)],
)
def test_dates_of_which_one_settles_the_order_are_read(times: tuple[str, str], seconds: int, tmp_path: Path) -> None:
    log = "student,question,correct,timestamp\n" + "".join(f"s,q{i},1,{time}\n" for i, time in enumerate(times))
    data = read(bank(tmp_path, questions="question,concept\nq0,a\nq1,a\n", interactions=log))
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    assert np.diff(data.interactions.timestamp).tolist() == [seconds]
    assert any("dates read as" in note for note in data.notes)


def test_dates_in_either_order_are_refused(tmp_path: Path) -> None:
    log = "student,question,correct,timestamp\ns,q,1,01/03/2024\ns,q,0,02/03/2024\n"
    with pytest.raises(DataError, match="day and month can't be told apart"):
        read(bank(tmp_path, questions="question,concept\nq,a\n", interactions=log))


# --------------------------------------------------------------------------------------------- layouts and programs

PLAIN = "question,concepts,name\nq1,halves;thirds,Brüche\nq2,halves,\n"
EXPORTS: dict[str, bytes] = {
    "comma": PLAIN.encode(),
    "semicolon": PLAIN.replace("halves;thirds", '"halves|thirds"')
    .replace(",", ";")
    .replace("|", ";")
    .replace("\n", "\r\n")
    .encode("utf-8-sig"),
    "tab": PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "tab, the bytes in the other order": b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"),
    "sep= line": ("sep=,\n" + PLAIN).encode(),
    "Windows": PLAIN.encode("cp1252"),
    "empty rows at the end": (PLAIN + ",,\n,,\n").encode(),
    "gzip": gzip.compress(PLAIN.encode()),
    "a very long cell": PLAIN.replace("Brüche", "ü" * 200_000).encode(),
}


@pytest.mark.parametrize("program", EXPORTS)
def test_what_spreadsheets_export_is_read(program: str, tmp_path: Path) -> None:
    data = read(bank(tmp_path, questions=EXPORTS[program]))
    assert edges(data) == {("q1", "halves"), ("q1", "thirds"), ("q2", "halves")}
    assert data.question_names["q1"].strip("ü") in ("Brüche", "")
    assert not doubts(data)


def test_a_table_with_mistyped_headings_is_told_what_to_rename(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rename the column 'questoin' to 'question' and .*'conceps' to 'concepts'"):
        read(bank(tmp_path, bank="Questoin,Conceps\nA1,halves\n") / "bank.csv")


def test_chinese_in_gb18030_is_read(tmp_path: Path) -> None:
    data = read(bank(tmp_path, questions="question,concept\n题1,分数\n题2,小数\n".encode("gb18030")))
    assert edges(data) == {("题1", "分数"), ("题2", "小数")}
    assert any("read as gb18030" in note for note in data.notes)


def test_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ("Question", "Concept", "Difficulty"),
        (1, "a", 0.5),
        (2.0, "b", None),
        ("q3", "a", 1),
        ("q4", True, 1),
        (None,),
        (None,),
    ):
        book.active.append(row)
    book.create_sheet("answers").append(["student"])
    book.save(tmp_path / "bank.xlsx")
    data = read(tmp_path / "bank.xlsx")
    assert edges(data) == {("1", "a"), ("2", "b"), ("q3", "a"), ("q4", "TRUE")}
    assert sheet(tmp_path / "bank.xlsx").sheets[1:] == ("answers",)
    assert any("sheets not read: 'answers'" in note for note in data.notes)
    (tmp_path / "bad.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(DataError, match="no readable workbook"):
        read(tmp_path / "bad.xlsx")


def test_a_wide_layout_is_read(tmp_path: Path) -> None:
    data = read(bank(tmp_path, questions="question,concept1,concept2\nq1,a,b\nq2,b,\n"))
    assert edges(data) == {("q1", "a"), ("q1", "b"), ("q2", "b")}


def test_weights_have_a_column(tmp_path: Path) -> None:
    data = read(bank(tmp_path, questions="question,concept,weight\nq2,b,0.5\nq1,a,2\nq1,b,3\nq1,a,2\n"))
    at = {
        (data.questions[r], data.concepts[c]): w
        for r, c, w in zip(*data.q_matrix.nonzero(), data.q_matrix.data, strict=True)
    }
    assert at == {("q2", "b"): 0.5, ("q1", "a"): 2.0, ("q1", "b"): 3.0}


# ---------------------------------------------------------------------------------------------- doors to one room


def test_all_doors_give_the_same_data_and_notes(tmp_path: Path) -> None:
    pairs = [("q1", "a"), ("q2", "a"), ("q2", "B"), ("q3", "b")]
    graph = nx.Graph()
    graph.add_nodes_from({q for q, _ in pairs}, bipartite=0)
    graph.add_nodes_from({c for _, c in pairs}, bipartite=1)
    graph.add_edges_from(pairs)
    frame = pl.DataFrame(pairs, schema=["question", "concept"], orient="row")
    text = "question,concept\n" + "".join(f"{q},{c}\n" for q, c in pairs)
    doors = [
        read(bank(tmp_path, questions=text)),
        read(frame),
        read(pd.DataFrame(pairs, columns=["question", "concept"])),
        read(pairs),
        read(graph),
        read(graph.to_directed()),
        read(nx.MultiGraph(graph)),
    ]
    for data in doors:
        assert edges(data) == set(pairs)
        assert data.q_matrix.data.tolist() == [1.0] * 4
        (note,) = doubts(data)
        assert "2 concepts differ from another one only in case" in note


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_an_edge_given_twice_in_a_graph_counts_once_and_is_said(kind: type[nx.Graph]) -> None:
    graph = kind()
    graph.add_nodes_from(["q1"], bipartite=0)
    graph.add_nodes_from(["a", "b"], bipartite=1)
    graph.add_edges_from([("q1", "a"), ("a", "q1"), ("q1", "b")])
    data = read(graph)
    assert data.q_matrix.toarray().tolist() == [[1.0, 1.0]]
    assert "1 edge given more than once, counted once" in data.notes
    assert KnowledgeGraph.from_networkx(graph).weights.toarray().tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("weight", [None, "high", float("nan")])
def test_a_weight_that_is_none_names_its_edge(weight: object) -> None:
    graph = nx.Graph()
    graph.add_node("q1", bipartite=0)
    graph.add_node("a", bipartite=1)
    graph.add_edge("q1", "a", weight=weight)
    with pytest.raises(GraphError, match=r"'q1' – 'a' is (None|'high'|nan)"):
        read(graph)


def test_sides_with_other_names_are_explained() -> None:
    graph = nx.Graph([("q1", "a")])
    nx.set_node_attributes(graph, {"q1": "question", "a": "concept"}, "bipartite")
    with pytest.raises(GraphError, match="bipartite=0, which marks questions; the values are 'concept', 'question'"):
        read(graph)


ROWS = {"question": ["q1", "q1", "q2"], "concepts": ["a", "b", "a"]}
ARRAYS = {"question": ["q1", "q2"], "concepts": [["a", "b"], ["a", "a"]]}
LISTS: dict[str, Callable[[], object]] = {
    "groupby": lambda: pd.DataFrame(ROWS)
    .groupby("question")["concepts"].unique().reset_index(),
    "groupby with its index": lambda: pd.DataFrame(ROWS)
    .groupby("question")["concepts"].unique().to_frame(),
    "arrays of one length": lambda: pd.DataFrame(ARRAYS).assign(concepts=list(np.array(ARRAYS["concepts"]))),
    "tuples": lambda: pd.DataFrame({"question": ["q1", "q2"], "concepts": [("a", "b"), ("a",)]}),
    "sets": lambda: pd.DataFrame({"question": ["q1", "q2"], "concepts": [{"a", "b"}, {"a"}]}),
    "polars lists": lambda: pl.DataFrame({"question": ["q1", "q2"], "concepts": [["a", "b"], ["a"]]}),
    "polars arrays": lambda: pl.DataFrame(ARRAYS, schema_overrides={"concepts": pl.Array(pl.String, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_cells_with_several_values_are_lists(case: str) -> None:
    assert edges(read(LISTS[case]())) == {("q1", "a"), ("q1", "b"), ("q2", "a")}


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_missing_concepts_are_missing_whatever_they_are_called(missing: object) -> None:
    data = read(pd.DataFrame({"question": ["q1", "q2"], "concept": pd.Series(["a", missing], dtype=object)}))
    assert edges(data) == {("q1", "a")}
    assert "1 question without a concept: isolated in the graph" in data.notes


DTYPES = ["int64", "int8", "uint32", "Int64", "float64", "Float32", "string", "category", "object", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_identifiers_of_every_dtype(dtype: str) -> None:
    frame = pd.DataFrame(
        {"question": pd.Series([0, 1], dtype=dtype if dtype != "string" else "object"), "concept": ["a", "b"]}
    )
    frame["question"] = frame["question"].astype(dtype)
    assert read(frame).questions == ("0", "1")


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Decimal(10, 2), pl.UInt8, pl.Float32, pl.Binary])
def test_identifiers_of_polars_dtypes(dtype: object) -> None:
    ids = pl.Series("question", ["0", "1"]) if dtype in (pl.Categorical, pl.Binary) else pl.Series("question", [0, 1])
    frame = pl.DataFrame([ids.cast(dtype), pl.Series("concept", ["a", "b"])])  # type: ignore[arg-type]
    assert read(frame).questions == ("0", "1")


@pytest.mark.parametrize("cells", [[2**200, 1], [[2**200], [1]]], ids=["alone", "in lists"])
def test_identifiers_of_any_length_are_kept(cells: list[object]) -> None:
    data = read(pd.DataFrame({"question": ["q1", "q2"], "concepts": pd.Series(cells, dtype=object)}))
    assert edges(data) == {("q1", str(2**200)), ("q2", "1")}


# --------------------------------------------------------------------------------- a valid bank, spoilt in one way

name = st.from_regex(r"[b-df-hj-m]{3}[1-9][0-9]{0,2}", fullmatch=True)


def _spoil(rows: list[list[str]], how: str, at: int) -> tuple[list[list[str]], str]:
    """The rows spoilt in one way at one place, and what is said of it."""
    rows = [list(row) for row in rows]
    row = rows[at % len(rows)]
    if how == "case":
        rows.append([row[0], row[1].upper()])
        return rows, "only in case"
    if how == "zero":
        rows.append(["0" + row[0][3:], row[1]])
        rows.append([row[0][3:], row[1]])
        return rows, "leading zeros"
    if how == "nothing":
        row[1] = "NaN"
        return rows, "word for an empty cell"
    if how == "invisible":
        row[1] += "\u200b"
        return rows, "invisible character"
    if how == "heading":
        rows.insert(at % len(rows), ["question", "concept"])
        return rows, "a second heading"
    if how == "list":
        rows.append([row[0], f"{row[1]};{rows[0][1]}x"])
        return rows, "may be several with ';'"
    rows[at % len(rows)] = [row[0]]
    return rows, "ragged row"


SPOILS = ["case", "zero", "nothing", "invisible", "heading", "list", "short"]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(name, name).map(list), min_size=2, max_size=12),
    how=st.sampled_from(SPOILS),
    at=st.integers(0, 100),
    between=st.sampled_from([",", ";", "\t"]),
)
def test_a_valid_bank_has_no_doubts_and_a_spoilt_one_has(
    tmp_path: Path, rows: list[list[str]], how: str, at: int, between: str
) -> None:
    def text(rows: list[list[str]]) -> str:
        cells = [[f'"{cell}"' if between in cell else cell for cell in row] for row in [["question", "concept"], *rows]]
        return "".join(between.join(row) + "\n" for row in cells)

    good = read(bank(tmp_path, questions=text(rows)))
    assert not doubts(good)
    assert edges(good) == {(q, c) for q, c in rows}
    spoilt, said = _spoil(rows, how, at)
    try:
        found = doubts(read(bank(tmp_path, questions=text(spoilt))))
    except DataError as error:
        found = [str(error)]
    assert any(said in note for note in found), found


def test_a_log_with_one_wrong_heading_is_not_silently_a_bank(tmp_path: Path) -> None:
    rows = "u1,q1,a,1\nu1,q2,b,0\nu2,q1,a,1\n"
    (tmp_path / "log.csv").write_text("user_id,item_id,skills,corect\n" + rows)
    with pytest.raises(
        DataError, match=r"looks like a log of answers, and no answers were read; rename 'corect' to 'c"
    ):
        read(tmp_path / "log.csv", strict=True)
    (tmp_path / "bank.csv").write_text("author,question,concept,score\n" + rows)
    assert not doubts(read(tmp_path / "bank.csv"))
