"""EduData's triple lines and POJ's log: what was planted in them comes back, what lacks concepts is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq.data import DATASETS, Dataset, load, read
from qcq.errors import DataError

ITEMS = 'item_id,knowledge_code\n1,"[3, 7]"\n2,[3]\n5,[9]\n'
TRIPLES = "3\n1,2,1\n1,0,1\n1\n2,\n0,\n"


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def edges_of(data: Dataset) -> set[tuple[str, str]]:
    coo = data.q_matrix.tocoo()
    return {(data.questions[r], data.concepts[c]) for r, c in zip(coo.row, coo.col, strict=True)}


def answers_of(data: Dataset) -> list[tuple[str, str, int]]:
    given = data.interactions
    assert given is not None
    return [
        (data.students[s], data.questions[q], int(c))
        for s, q, c in zip(given.student, given.question, given.correct, strict=True)
    ]


def refused(source: str | Path, *said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(str(source))
    text = str(caught.value)
    assert "\n" not in text
    for piece in said:
        assert piece in text, text


def recognised(path: Path) -> list[str]:
    return [name for name, kind in DATASETS.items() if kind.needs_path and kind.recognises(path)]


# ----------------------------------------------------------------------------------------------------------- EduData


def test_triple_lines_take_their_concepts_from_the_table_of_items(tmp_path: Path) -> None:
    data = read(write(tmp_path / "set", {"item.csv": ITEMS, "log.tl": TRIPLES}))
    assert data.notes[0] == "recognised as edudata"
    assert data.name == "set"
    assert data.questions == ("1", "2", "5")
    assert edges_of(data) == {("1", "3"), ("1", "7"), ("2", "3"), ("5", "9")}
    assert answers_of(data) == [("log-1", "1", 1), ("log-1", "2", 0), ("log-1", "1", 1), ("log-2", "2", 0)]
    assert data.interactions is not None
    assert data.interactions.ordered
    assert data.parts is None
    assert read(tmp_path / "set" / "log.tl").students == data.students  # the file alone finds its table too


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    students=st.lists(
        st.lists(st.tuples(st.sampled_from("125"), st.integers(0, 1)), min_size=1, max_size=9), min_size=1, max_size=12
    ),
    comma=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_any_triples_come_back_in_their_order(tmp_path: Path, students: list, comma: bool, ending: str) -> None:
    """As EduData's json2tl writes them, with a comma at the end of a list or without."""
    lines = []
    for student in students:
        items, answers = zip(*student, strict=True)
        lists = (",".join(map(str, part)) + "," * comma for part in (items, answers))
        lines += [str(len(student)), *lists]
    write(tmp_path, {"item.csv": ITEMS, "log.txt": ending.join(lines) + ending})
    assert recognised(tmp_path) == ["edudata"]
    data = read(tmp_path)
    wanted = [(f"log-{i}", item, answer) for i, one in enumerate(students, start=1) for item, answer in one]
    assert answers_of(data) == wanted


def test_the_parts_of_a_split_are_kept_if_all_three_are_there(tmp_path: Path) -> None:
    files = {"item.csv": ITEMS, "a.train.tl": TRIPLES * 2, "a.valid.tl": TRIPLES, "a.test.tl": "1\n5\n1\n"}
    data = read(write(tmp_path / "three", files))
    assert data.parts is not None
    assert data.parts.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert data.students[-1] == "a.test-1"
    assert "kept the source's own split: 4 train students, 2 validation students, 1 test students" in data.notes
    assert [len(part.students) for part in (data.split().train, data.split().validation, data.split().test)] == [
        4,
        2,
        1,
    ]
    del files["a.valid.tl"]
    data = read(write(tmp_path / "two", files))
    assert data.parts is None
    assert "no split kept: a.train.tl, a.test.tl aren't train, valid and test" in data.notes


def test_students_without_an_answer_are_counted(tmp_path: Path) -> None:
    data = read(write(tmp_path, {"item.csv": ITEMS, "log.txt": "0\n\n\n" + TRIPLES + "0\n\n\n"}))
    assert "2 students without an answer, left out" in data.notes
    assert data.students == ("log-2", "log-3")


def test_ids_without_a_table_are_refused_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    folder = write(tmp_path, {"train.txt": TRIPLES})
    assert recognised(folder) == ["edudata"]
    refused(folder, "item.csv: the lines name one id an answer", "put item.csv (item_id,knowledge_code", "raw release")


def test_a_table_with_records_is_not_taken_for_triples(tmp_path: Path) -> None:
    files = {"item.csv": ITEMS, "record.csv": "user_id,item_id,score\nu,1,1\n"}
    assert recognised(write(tmp_path, files)) == ["icd"]


def test_four_lines_a_student_are_not_three(tmp_path: Path) -> None:
    """A student of one answer looks alike for three lines; the next ones tell."""
    for i, text in enumerate(("1\n5\n1\n0\n", "1\n5\n1\n0\n" * 3, "2\n5,5\n1,1\n0,1\n" * 9)):
        folder = write(tmp_path / f"{i}", {"train.txt": text})
        assert not DATASETS["edudata"].recognises(folder)


def test_three_lines_under_the_names_of_akt_are_not_akt(tmp_path: Path) -> None:
    names = [f"a_{part}{i}.csv" for part in ("train", "test") for i in (1, 2)]
    folder = write(tmp_path, {"item.csv": ITEMS, **dict.fromkeys(names, TRIPLES)})
    assert recognised(folder) == ["edudata"]
    refused(folder, "several files of triple lines", "students of several files would count twice")


BAD_TRIPLES = {
    "a line too few": ("2\n1,2\n1,0\n2\n1,2\n", "row 4: the last student has 2 of 3 lines: '2'", "cut off"),
    "a number that is none": ("two\n1,2\n1,0\n", "row 1: not a number of answers: 'two'", "three lines a student"),
    "too few items": ("2\n1\n1,0\n", "row 2: 1 items where 2 are announced", "get the file again"),
    "too many answers": ("2\n1,2\n1,0,1\n", "row 3: 3 answers where 2 are announced"),
    "a part mark": ("2\n1,2\n1,0.5\n", "row 3, column entry 2: response is neither 0 nor 1: '0.5'", "write 1"),
    "a blank item": ("2\n1,,\n1,0\n", "row 2, column entry 2: blank identifier: ''"),
    "an unknown item": ("2\n1,4\n1,0\n", "row 2, column entry 2: unknown item: '4'", "of the same numbering"),
    "empty": ("", "log.txt: the file is empty", "three lines a student"),
    "nobody": ("0\n\n\n", "no student has an answer"),
    "NUL": ("1\n\0\n1\n", "row 2: NUL byte"),
}


@pytest.mark.parametrize("case", BAD_TRIPLES)
def test_bad_triples_are_one_line_with_their_row(case: str, tmp_path: Path) -> None:
    text, *said = BAD_TRIPLES[case]
    refused(f"edudata:{write(tmp_path, {'item.csv': ITEMS, 'log.txt': text}) / 'log.txt'}", "log.txt", *said)


def test_bad_folders_of_triples(tmp_path: Path) -> None:
    two = write(tmp_path / "two", {"item.csv": ITEMS, "all.txt": TRIPLES, "train.txt": TRIPLES})
    refused(f"edudata:{two}", "several files of triple lines: 'all.txt, train.txt'", "name one: edudata:FOLDER/FILE")
    refused(f"edudata:{write(tmp_path / 'none', {'item.csv': ITEMS})}", "no file of triple lines")
    table = write(tmp_path / "table", {"item.csv": "item_id,knowledge_code\n1,three\n", "log.txt": "1\n1\n1\n"})
    refused(f"edudata:{table}", "item.csv, row 2, column knowledge_code: not a list of whole numbers")
    twice = write(tmp_path / "twice", {"item.csv": ITEMS + "1,[3]\n", "log.txt": "1\n1\n1\n"})
    refused(f"edudata:{twice}", "item.csv, row 5, column item_id: an item listed twice")


# --------------------------------------------------------------------------------------------------------------- POJ

LOG = "User,Problem,Result,Submit Time\n"
ROWS = (
    "bob,1000,Wrong Answer,2008-01-02 03:04:06\n"
    "ann,1000,Accepted,2008-01-02 03:04:05\n"
    "bob,1000,Accepted,2008-01-02 03:05:06\n"
    "bob,1001,Compile Error,2008-01-01 00:00:00\n"
    "null,1002,Accepted,2008-01-02 03:04:05\n"
    "ann,1001,Waiting,2008-01-03 03:04:05\n"
    ",1001,Accepted,2008-01-03 03:04:05\n"
    "ann,1001,Accepted,\n"
)
TAGS = "Problem,Tags\n1000,sums; loops\n1000,input\n1001,loops\n1003,trees\n"


def test_poj_is_read_by_verdict_and_time_with_tags_from_the_table_beside_it(tmp_path: Path) -> None:
    data = read(write(tmp_path / "poj", {"poj_log.csv": LOG + ROWS, "poj_tags.csv": TAGS}))
    assert data.notes[0] == "recognised as poj"
    assert edges_of(data) == {("1000", "sums"), ("1000", "loops"), ("1000", "input"), ("1001", "loops")}
    assert answers_of(data) == [
        ("bob", "1001", 0),
        ("bob", "1000", 0),
        ("bob", "1000", 1),
        ("ann", "1000", 1),
        ("null", "1002", 1),  # a user's name, not an empty cell
    ]
    for note in (
        "1 row without a user or a problem, left out",
        "results that are no verdict: 'Waiting'; their rows have no answer",
        "1 row without an answer, left out",
        "1 row without a time, left out",
        "1 problem of poj_tags.csv without a submission, left out",
        "1 row without a skill: kept as attempts, no edge",
        "1 of 5 responses are to the question just before: further attempts, kept",
        "1 question without a concept: isolated in the graph",
    ):
        assert note in data.notes, note


def test_poj_without_tags_is_refused_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    folder = write(tmp_path, {"poj_log.csv": LOG + ROWS})
    assert recognised(folder) == ["poj"]
    for source in (folder, folder / "poj_log.csv"):
        refused(source, "poj_tags.csv: no tags of the problems: the log has no concepts", "Problem,Tags")


BAD_LOGS: dict[str, tuple[dict[str, str | bytes], tuple[str, ...]]] = {
    "no column": ({"poj_log.csv": "User,Problem,Result\na,1,Accepted\n"}, ("column Submit Time: missing column",)),
    "no rows": ({"poj_log.csv": LOG}, ("no rows under the header",)),
    "a time that is none": (
        {"poj_log.csv": LOG + "a,1000,Accepted,soon\n"},
        ("row 2, column Submit Time: not a time",),
    ),
    "no verdict at all": ({"poj_log.csv": LOG + "a,1000,Waiting,2008-01-02 03:04:05\n"}, ("no row has an answer",)),
    "ragged": ({"poj_log.csv": LOG + "a,1000,Accepted\n"}, ("row 2: ragged row: 3 fields",)),
    "no column of tags": (
        {"poj_tags.csv": "Problem,Skill\n1000,sums\n"},
        ("poj_tags.csv", "column Tags: missing column"),
    ),
    "no tag": ({"poj_tags.csv": "Problem,Tags\n1000,\n1001,\n"}, ("column Tags: no row has a skill",)),
    "a blank problem": ({"poj_tags.csv": "Problem,Tags\n,sums\n"}, ("row 2, column Problem: blank identifier",)),
    "no log": ({"poj_log.csv": b""}, ("the file is empty",)),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_a_bad_log_of_poj_is_one_line(case: str, tmp_path: Path) -> None:
    change, said = BAD_LOGS[case]
    refused(f"poj:{write(tmp_path, {'poj_log.csv': LOG + ROWS, 'poj_tags.csv': TAGS, **change})}", *said)


def test_a_log_in_the_code_page_of_its_users_is_read(tmp_path: Path) -> None:
    log = LOG + "".join(f"用户{i},1000,Accepted,2008-01-02 03:04:0{i}\n" for i in range(4))
    data = read(write(tmp_path, {"poj_log.csv": log.encode("gb18030"), "poj_tags.csv": TAGS}))
    assert data.students[0] == "用户0"
    assert np.all(data.interactions.correct == 1)  # type: ignore[union-attr]
