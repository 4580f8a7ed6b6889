"""Bad input: each case one typed line that names the file, the row, the column, the value and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from qcq.data import read
from qcq.data.text import literal
from qcq.errors import DataError
from qcq.support.arrays import read_sparse

GOOD: dict[str, Any] = {
    "questions.csv": b"question,concepts\nq1,a;b\nq2,b\n",
    "interactions.csv": b"student,question,correct\ns1,q1,1\ns1,q2,0\n",
    "concepts.csv": b"concept,name,parent\na,A,\nb,B,a\n",
}


def refused(source: object, *said: str, **more: object) -> DataError:
    """The error of reading ``source``: typed, one line, and it says all that."""
    with pytest.raises(DataError) as caught:
        read(source, **more)
    text = str(caught.value)
    assert "\n" not in text
    for piece in said:
        assert piece in text, text
    return caught.value


CSV_CASES: dict[str, tuple[dict[str, bytes | None], tuple[str, ...]]] = {
    "no questions": ({"questions.csv": None}, ("no such file", "questions.csv")),
    "empty file": ({"questions.csv": b""}, ("questions.csv: the file is empty", "question, concepts")),
    "blank first row": ({"questions.csv": b"\nquestion,concepts\nq,a\n"}, ("no header in the first row",)),
    "header alone": ({"questions.csv": b"question,concepts\n"}, ("questions.csv: no rows", "give at least one")),
    "no responses": ({"interactions.csv": b"student,question,correct\n"}, ("interactions.csv: no rows",)),
    "missing column": (
        {"interactions.csv": b"student,question,corect\ns,q1,1\n"},
        ("interactions.csv, row 1, column correct: missing column", "rename 'corect' to 'correct'"),
    ),
    "missing column without a near one": (
        {"interactions.csv": b"student,question,points\ns,q1,1\n"},
        ("column correct: missing column", "the columns are student, question, points"),
    ),
    "no column of concepts": ({"questions.csv": b"question,level\nq,a\n"}, ("row 1, column concepts: missing column",)),
    "two missing columns": (
        {"interactions.csv": b"student,frage,corect\ns1,q1,1\n"},
        ("row 1: missing columns question and correct", "rename 'corect' to 'correct'; the columns are student, frage"),
    ),
    "two columns for one": (
        {"questions.csv": b"item,problem_id,skill\nq,1,a\n"},
        ("row 1, column question: 2 columns that may be question: 'item', 'problem_id'", "call the right one question"),
    ),
    "two columns for concepts": (
        {"questions.csv": b"question,skill,tags\nq,a,b\n"},
        ("row 1: both a column concept and a column concepts: ['skill', 'tags']",),
    ),
    "a year of two digits": (
        {"interactions.csv": b"student,question,correct,timestamp\ns1,q1,1,13.03.24\n"},
        ("row 2, column timestamp: a date whose year has two digits: '13.03.24'", "write the year in full"),
    ),
    "both columns of concepts": ({"questions.csv": b"question,concept,concepts\nq,a,a\n"}, ("row 1: both a column",)),
    "a column twice": (
        {"interactions.csv": b"student,question,correct,correct\ns,q1,1,0\n"},
        ("row 1, column correct: a column occurs twice",),
    ),
    "half a character": (
        {"questions.csv": b"question,concepts\nq1,\x81\n"},
        ("questions.csv, row 2: wrong encoding: b'\\x81'", "save the file as UTF-8"),
    ),
    "NUL byte": ({"questions.csv": b"question,concepts\nq1,a\nq\0,b\n"}, ("row 3: NUL byte", "'\\x00'")),
    "a field too many": (
        {"interactions.csv": b"student,question,correct\ns1,q1,1\ns1,q2,0,0\n"},
        ("interactions.csv, row 3: ragged row: 4 fields where the header has 3: 's1,q2,0,0'", "quote fields"),
    ),
    "a field too few": (
        {"interactions.csv": b"student,question,correct\ns1,q1,1\ns1,q2\ns1,q1,0\n"},
        ("interactions.csv, row 3: ragged row: 2 fields where the header has 3: 's1,q2'",),
    ),
    "a field too few in a row of space": ({"questions.csv": b"question,concepts\n  \nq1,a\n"}, ("row 2: ragged row",)),
    "a blank line inside": ({"questions.csv": b"question,concepts\nq1,a\n\nq2,b\n"}, ("row 3: blank line",)),
    "an open quote": ({"questions.csv": b'question,concepts\nq1,a\nq2,"b\nq3,c\n'}, ("row 3: not valid CSV",)),
    "text after a quote": ({"questions.csv": b'question,concepts\nq1,"a"b\n'}, ("row 2: not valid CSV",)),
    "blank question": (
        {"questions.csv": b"question,concepts\nq1,a\n,b\n"},
        ("questions.csv, row 3, column question: blank identifier: ''", "give it a name"),
    ),
    "question of space": ({"questions.csv": b'question,concepts\n" ",a\n'}, ("row 2, column question: blank", "' '")),
    "blank concept": (
        {"questions.csv": b"question,concepts\nq1,a\nq2,a;;b\n"},
        ("questions.csv, row 3, column concepts: blank identifier",),
    ),
    "blank student": (
        {"interactions.csv": b"student,question,correct\n,q1,1\n"},
        ("interactions.csv, row 2, column student: blank identifier",),
    ),
    "a newline in a question": (
        {"questions.csv": b'question,concepts\nq1,a\n"q\n2",a\n"q\n3",a\n'},
        ("row 3, column question", "control character", "'q\\n2'"),
    ),
    "unknown question": (
        {"interactions.csv": b"student,question,correct\ns1,q1,1\ns1,q9,1\n"},
        ("interactions.csv, row 3, column question: unknown question: 'q9'", "add it to the questions"),
    ),
    "blank question in the responses": (
        {"interactions.csv": b"student,question,correct\ns1,,1\n"},
        ("interactions.csv, row 2, column question: blank identifier",),
    ),
    "response of two": (
        {"interactions.csv": b"student,question,correct\ns1,q1,1\ns1,q2,2\n"},
        ("interactions.csv, row 3, column correct: response is neither 0 nor 1: '2'", "write 1 for a right answer"),
    ),
    "response NaN": (
        {"interactions.csv": b"student,question,correct\ns1,q1,NaN\n"},
        ("row 2, column correct", "'NaN'"),
    ),
    "no response": ({"interactions.csv": b"student,question,correct\ns1,q1,\n"}, ("row 2, column correct", ": ''")),
    "half a response": ({"interactions.csv": b"student,question,correct\ns1,q1,0.5\n"}, ("row 2", "'0.5'")),
    "a time that is none": (
        {"interactions.csv": b"student,question,correct,timestamp\ns1,q1,1,1\ns1,q1,1,noon\n"},
        ("row 3, column timestamp: not a time: 'noon'", "seconds"),
    ),
    "a time without end": (
        {"interactions.csv": b"student,question,correct,timestamp\ns1,q1,1,inf\n"},
        ("row 2, column timestamp: not a time: 'inf'",),
    ),
    "no concepts at all": (
        {"questions.csv": b"question,concepts\nq1,\nq2,\n", "concepts.csv": None},
        ("no question has",),
    ),
    "a concept listed twice": (
        {"concepts.csv": b"concept\na\nb\na\n"},
        ("row 4, column concept: a concept listed twice",),
    ),
    "an unknown parent": ({"concepts.csv": b"concept,parent\na,z\n"}, ("row 2, column parent: unknown parent: 'z'",)),
    "parents in a circle": (
        {"concepts.csv": b"concept,parent\na,b\nb,a\n"},
        ("concepts.csv, row 2, column parent: the parents run in a circle: 'a → b → a'",),
    ),
    "a row late in a file of quoted newlines": (
        {
            "questions.csv": b'question,concepts,name\nq1,a,"two\nlines"\nq2,b,x\n',
            "interactions.csv": b"student,question,correct\ns,q1,1\ns,q2,7\n",
        },
        ("interactions.csv, row 3", "'7'"),
    ),
}


@pytest.mark.parametrize("case", CSV_CASES)
def test_csv(case: str, tmp_path: Path) -> None:
    changes, said = CSV_CASES[case]
    for name, content in {**GOOD, **changes}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    refused(f"csv:{tmp_path}", *said)


def test_the_good_files_are_good(tmp_path: Path) -> None:
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path).q_matrix.nnz == 3


def test_a_row_deep_in_a_large_file_is_named_exactly(tmp_path: Path) -> None:
    rows = ["s,q1,1"] * 5000
    rows[4321] = "s,q1,oops"
    (tmp_path / "questions.csv").write_bytes(GOOD["questions.csv"])
    (tmp_path / "interactions.csv").write_text("student,question,correct\n" + "\n".join(rows))
    error = refused(tmp_path, "'oops'")
    assert (error.row, error.column) == (4323, "correct")


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "questions.csv").mkdir()
    refused(f"csv:{tmp_path}", "the file can't be read")


def test_frames() -> None:
    good = pl.DataFrame({"question": ["q1"], "concept": ["a"]})
    refused(
        pl.DataFrame({"question": ["q1"]}), "questions frame, column concepts: missing column", "columns are question"
    )
    refused(good.clear(), "questions frame: no rows")
    refused(
        pd.DataFrame({"question": ["q1", None], "concept": ["a", "a"]}),
        "questions frame, row 1, column question: blank",
    )
    refused(pl.DataFrame({"question": ["q1"], "concepts": [["a", " "]]}), "row 0, column concepts: blank identifier")
    refused(pl.DataFrame({"question": ["q"], "concept": ["a"], "concepts": ["a"]}), "both a column concept and")
    for value in (None, float("nan"), 2.0, -1.0, 0.5):
        answers = pd.DataFrame({"student": ["s", "s"], "question": ["q1", "q1"], "correct": [1.0, value]})
        refused(good, "interactions frame, row 1, column correct: response is neither", interactions=answers)
        refused(
            good, "interactions frame, row 1, column correct", interactions=pl.from_pandas(answers, nan_to_null=False)
        )
    answers = pl.DataFrame({"student": ["s"], "question": ["q2"], "correct": [1]})
    refused(good, "interactions frame, row 0, column question: unknown question: 'q2'", interactions=answers)
    refused(good, "interactions is neither a polars nor a pandas frame: 'list'", interactions=[1])


# --------------------------------------------------------------------------------------------- published formats


def s2kt() -> dict[str, str]:
    return {
        "train.txt": "2\n0,1\n0,1\n1,0\n1\n1\n1\n0\n",
        "dev.txt": "1\n1\n1\n1\n",
        "test.txt": "1\n0\n0\n0\n",
        "problem_id_hashmap.json": '{"p0": 0, "p1": 1}',
        "skill_id_hashmap.json": '{"10": 0, "10_13": 1}',
    }


def akt() -> dict[str, str]:
    return {f"x_test{fold}.csv": f"{fold},u{fold}\n7,8\n1,2\n1,0\n" for fold in range(1, 6)}


def pebg() -> dict[str, str]:
    return {
        "pro_id_dict.txt": "{'q1': 0, 'q2': 1}",
        "pro_skill_dict.txt": "{'q1': '5;6', 'q2': '6'}",
        "data.txt": "[2]\n[0, 1]\n[0, 1]\n[1, 0]\n",
    }


def eedi() -> dict[str, str]:
    return {
        "question_meta.csv": 'question_id,subject_id\n0,"[0, 1, 2, 3]"\n1,"[0, 1, 2, 4]"\n',
        "subject_meta.csv": "subject_id,name\n0,Maths\n",
        "train_data.csv": "question_id,user_id,is_correct\n0,7,1\n",
    }


def icd() -> dict[str, str]:
    return {
        "item.csv": 'item_id,knowledge_code\n5,"[1, 2]"\n6,[2]\n',
        "record.csv": "user_id,item_id,score\nu,5,1\n",
    }


def math2015() -> dict[str, str]:
    return {"q.txt": "1\t0\n1\t1\n", "data.txt": "1\t0.5\n0\t0\n0\t1\n"}


def assistments() -> dict[str, str]:
    return {"raw.csv": "order_id,user_id,problem_id,correct,skill_id\n1,u,p,1,5\n2,u,q,0,\n"}


PUBLISHED: list[tuple[Callable[[], dict[str, str]], str, str | None, tuple[str, ...]]] = [
    (s2kt, "dev.txt", None, ("dev.txt: no such file",)),
    (s2kt, "skill_id_hashmap.json", None, ("skill_id_hashmap.json: no such file",)),
    (s2kt, "dev.txt", "", ("dev.txt: the file is empty",)),
    (s2kt, "train.txt", "1\n0\n0\n1\n2\n0,1\n", ("train.txt, row 5: the last student has 2 of 4 lines",)),
    (s2kt, "train.txt", "2\n0,1\n0\n1,0\n", ("train.txt, row 3: 1 skills for 2 questions",)),
    (s2kt, "train.txt", "2\n0,1\n0,1\n1,0,1\n", ("train.txt, row 4: 3 answers for 2 questions",)),
    (s2kt, "train.txt", "3\n0,1\n0,1\n1,0\n", ("train.txt, row 1: the heading announces another number", "'3'")),
    (s2kt, "train.txt", "2\n0,x\n0,1\n1,0\n", ("train.txt, row 2, column entry 2: not a whole number: 'x'",)),
    (s2kt, "train.txt", "2\n0,1\n0,1\n1,2\n", ("train.txt, row 4, column entry 2: response is neither 0 nor 1: 2",)),
    (s2kt, "train.txt", "2\n0,1\n0,1\n1,nan\n", ("train.txt, row 4, column entry 2", "'nan'")),
    (s2kt, "train.txt", "2\n0,5\n0,1\n1,0\n", ("train.txt, row 2: an index that problem_id_hashmap.json", "5; 0 to 1")),
    (s2kt, "train.txt", "2\n0,1\n0,-1\n1,0\n", ("train.txt, row 3: an index that skill_id_hashmap.json", "-1")),
    (s2kt, "skill_id_hashmap.json", "{", ("skill_id_hashmap.json, row 1: not valid JSON",)),
    (s2kt, "skill_id_hashmap.json", "[1]", ("not a JSON object",)),
    (s2kt, "skill_id_hashmap.json", "{}", ("the map is empty",)),
    (s2kt, "skill_id_hashmap.json", '{"10": 0, "11": 0}', ("the indices are not 0 to 1, each once",)),
    (s2kt, "skill_id_hashmap.json", '{"10": 0, "10__13": 1}', ("blank identifier: '10__13'",)),
    (s2kt, "train.txt", "1\n0\n0\n1\0\n", ("train.txt, row 4: NUL byte",)),
    (akt, "x_test3.csv", None, ("x_test3.csv: no such file",)),
    (akt, "x_test3.csv", "1,u1\n7\n1\n1\n", ("x_test3.csv, row 1: a student who occurred already: 'u1'",)),
    (akt, "x_test3.csv", "3,\n7\n1\n1\n", ("x_test3.csv, row 1: blank identifier: '3,'",)),
    (akt, "x_test3.csv", "3,u3\n7\n1\n3\n", ("x_test3.csv, row 4, column entry 1: response is neither 0 nor 1: 3",)),
    (akt, "y_test1.csv", "3,u3\n7\n1\n1\n", ("2 data sets: 'x, y'",)),
    (akt, "skill.json", '{"a": "b"}', ("skill.json, column a: not a whole number: 'b'",)),
    (pebg, "pro_id_dict.txt", "{'q1': 0, 'q2': 2}", ("pro_id_dict.txt: the indices are not 0 to 1",)),
    (pebg, "pro_id_dict.txt", "__import__('os').getcwd()", ("pro_id_dict.txt, row 1: not a Python literal",)),
    (pebg, "pro_id_dict.txt", "{", ("not a Python literal: '{'",)),
    (pebg, "pro_id_dict.txt", "[1]", ("pro_id_dict.txt, row 1: not a dict: '[1]'",)),
    (pebg, "pro_id_dict.txt", "{}", ("the dictionary is empty",)),
    (pebg, "pro_skill_dict.txt", "{'q9': '5'}", ("pro_skill_dict.txt: a question that pro_id_dict.txt", "'q9'")),
    (pebg, "pro_skill_dict.txt", "{'q1': '5;;6'}", ("pro_skill_dict.txt, column q1: blank identifier: '5;;6'",)),
    (pebg, "pro_skill_dict.txt", "{'q1': 5}", ("pro_skill_dict.txt, column q1: not a text of concepts: 5",)),
    (pebg, "pro_skill_dict.txt", "{'q1': ''}", ("no question has a concept",)),
    (pebg, "data.txt", "[2]\n[0, 1]\n[0, 9]\n[1, 0]\n", ("data.txt, row 3: a question that pro_id_dict.txt doesn't",)),
    (pebg, "data.txt", "[3]\n[0, 1]\n[0, 1]\n[1, 0]\n", ("data.txt, row 1: the heading announces", "'[3]'")),
    (
        pebg,
        "data.txt",
        "[2]\n[0, 1]\n[0, 1]\n[1, NaN]\n",
        ("data.txt, row 4, column entry 2: not a whole number: nan",),
    ),
    (pebg, "data.txt", "[2]\n[0, 1]\nexit()\n[1, 0]\n", ("data.txt, row 3: not a Python literal: 'exit()'",)),
    (eedi, "question_meta.csv", None, ("question_meta.csv: no such file",)),
    (
        eedi,
        "question_meta.csv",
        "question_id,subject_id\n0,[0]\n1,[x]\n",
        ("question_meta.csv, row 3, column subject_id: not a list of whole numbers: '[x]'", "write [1, 2]"),
    ),
    (
        eedi,
        "question_meta.csv",
        "question_id,subject_id\n0,[0]\n0,[1]\n",
        ("row 3, column question_id: a question listed",),
    ),
    (eedi, "question_meta.csv", "question_id,subject_id\n0,[]\n", ("no question has a subject",)),
    (
        eedi,
        "train_data.csv",
        "question_id,user_id,is_correct\n0,7,\n",
        ("row 2, column is_correct: response is neither",),
    ),
    (
        eedi,
        "train_data.csv",
        "question_id,user_id,is_correct\n5,7,1\n",
        ("row 2, column question_id: unknown question: '5'",),
    ),
    (eedi, "train_data.csv", "question_id,user_id\n5,7\n", ("row 1, column is_correct: missing column",)),
    (
        icd,
        "item.csv",
        "item_id,knowledge_code\n5,[1]\n5,[2]\n",
        ("item.csv, row 3, column item_id: an item listed twice",),
    ),
    (icd, "item.csv", "item_id,knowledge_code\n5,12\n", ("row 2, column knowledge_code: not a list",)),
    (icd, "record.csv", "user_id,item_id,score\nu,9,1\n", ("record.csv, row 2, column item_id: unknown item: '9'",)),
    (icd, "record.csv", "user_id,item_id,score\nu,5,1.5\n", ("record.csv, row 2, column score: no score from 0 to 1",)),
    (icd, "record.csv", "user_id,item_id,score\nu,5,nan\n", ("row 2, column score: no score from 0 to 1: 'nan'",)),
    (math2015, "q.txt", None, ("no q.txt and data.txt",)),
    (math2015, "q.txt", "", ("q.txt: the file is empty",)),
    (math2015, "q.txt", "1\t0\n1\n", ("q.txt, row 2: ragged row: 1 columns where the first row has 2",)),
    (math2015, "q.txt", "1\t0\n1\t0.5\n", ("q.txt, row 2, column 2: neither 0 nor 1: 0.5",)),
    (math2015, "q.txt", "1\t0\n", ("data.txt: 2 scores a student for 1 questions",)),
    (math2015, "data.txt", "1\t0\n0\t7\n", ("data.txt, row 2, column 2: no share from 0 to 1: '7'",)),
    (math2015, "data.txt", "1\t0\nnan\t1\n", ("data.txt, row 2, column 1: no share from 0 to 1: 'nan'",)),
    (
        assistments,
        "raw.csv",
        None,
        ("no CSV file with the raw columns", "order_id, user_id, problem_id, correct, skill_id"),
    ),
    (
        assistments,
        "raw.csv",
        "order_id,user_id,problem_id,correct,skill_id\n1,u,p,2,5\n",
        ("raw.csv, row 2, column correct: response is neither",),
    ),
    (
        assistments,
        "raw.csv",
        "order_id,user_id,problem_id,correct,skill_id\nx,u,p,1,5\n",
        ("raw.csv, row 2, column order_id: not a whole number: 'x'",),
    ),
    (assistments, "raw.csv", "order_id,user_id,problem_id,correct,skill_id\n1,u,p,1,\n", ("no row has a skill",)),
    (
        assistments,
        "other.csv",
        "order_id,user_id,problem_id,correct,skill_id\n1,u,p,1,\n",
        ("several raw files: 'other.csv, raw.csv'", "assistments:FOLDER/FILE"),
    ),
]


@pytest.mark.parametrize(("files", "name", "content", "said"), PUBLISHED)
def test_published(
    files: Callable[[], dict[str, str]], name: str, content: str | None, said: tuple[str, ...], tmp_path: Path
) -> None:
    for file, text in files().items():
        (tmp_path / file).write_text(text)
    assert read(f"{files.__name__}:{tmp_path}").interactions is not None
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    refused(f"{files.__name__}:{tmp_path}", *said)


def test_pebg_matrices(tmp_path: Path) -> None:
    (tmp_path / "pro_id_dict.txt").write_text("{1: 0, 2: 1}")
    (tmp_path / "skill_id_dict.txt").write_text("{'7': 0, '8': 1, '7_8': 2}")
    file = tmp_path / "pro_skill_sparse.npz"
    sparse.save_npz(file, sparse.coo_matrix(np.array([[1.0, 0], [1, 1]])))
    data = read(tmp_path)
    assert (data.questions, data.concepts, data.q_matrix.toarray().tolist()) == (
        ("1", "2"),
        ("7", "8"),
        [[1, 0], [1, 1]],
    )
    sparse.save_npz(file, sparse.coo_matrix(np.ones((3, 2))))
    refused(tmp_path, "a matrix of 3 × 2 for 2 questions and 3 skills")
    file.write_bytes(b"PK nonsense")
    refused(tmp_path, "pro_skill_sparse.npz: not a sparse matrix")
    with file.open("wb") as out:  # a pickled object must not be loaded
        np.savez(out, data=np.array([{"a": 1}], dtype=object), row=[0], col=[0], shape=[2, 2], format=b"coo")
    refused(tmp_path, "pro_skill_sparse.npz: not a sparse matrix")


class Runs:
    """A pickle that runs code where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_no_code_in_a_published_file_is_run(tmp_path: Path) -> None:
    matrix, ran = tmp_path / "pro_skill_sparse.npz", tmp_path / "ran"
    parts = {"row": [0], "col": [0], "shape": [1, 1], "format": b"coo"}
    np.savez(matrix, data=np.array([Runs(ran)], dtype=object), **parts)
    with pytest.raises(ValueError, match="an array of objects"):
        read_sparse(matrix)
    for text in (f"open({str(ran)!r}, 'w')", f"[open({str(ran)!r}, 'w')]", f"{{0: open({str(ran)!r}, 'w')}}"):
        with pytest.raises(DataError, match="not a Python literal"):
            literal(text, object, file=matrix, row=1)
    assert not ran.exists()


def test_an_error_is_one_line_however_odd_the_value(tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text('question,concepts\n"q\n\n' + "x" * 500 + '",a\n')
    assert re.search(r"row 2, column question: .{10,200}$", str(refused(tmp_path)))


@pytest.mark.parametrize("source", ["{}", "csv:{}"])
def test_what_can_be_read_only_once_is_refused(source: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"a pipe or a device, which can't be read twice; write it to a file first"):
        read(source.format(tmp_path / "pipe"))
