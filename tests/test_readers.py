"""The readers: real folders give the figures known for them, made ones come back as they were written."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq.data import DATASETS, Dataset, load, read, recognise
from qcq.data.checks import EMPTY
from qcq.errors import DataError, UnknownNameError
from qcq.graph import KnowledgeGraph


def real(name: str) -> Path:
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"needs the real data set {name} under $QCQ_DATA")
    return Path(root) / name


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


def same(a: Dataset, b: Dataset) -> bool:
    pairs = [(a.q_matrix.toarray(), b.q_matrix.toarray())]
    if a.interactions is not None and b.interactions is not None:
        pairs += [(getattr(a.interactions, f), getattr(b.interactions, f)) for f in ("student", "question", "correct")]
    names = ("questions", "concepts", "students", "question_names", "concept_names", "parents")
    return all(np.array_equal(x, y) for x, y in pairs) and all(getattr(a, n) == getattr(b, n) for n in names)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------- real folders

KNOWN = {  # folder: format, students, questions, concepts, responses (None: a graph alone), questions without concept
    "s2kt_assist09": ("s2kt", 3852, 17737, 123, 282_619, 0),
    "akt_assist2009_pid": ("akt", 4150, 16891, 110, 325_589 - 51_033, 0),
    "pebg_ednet": ("pebg", 5002, 12372, 188, 222_141, 0),
    "pebg_assist09_graph": ("pebg", 0, 15911, 123, None, 0),
    "eedi_csc311": ("eedi", 542, 1774, 230, 56_688 + 7_086 + 3_543, 0),
    "icd_math_ec": ("icd", 0, 27613, 314, None, 0),
    "icd_Math2015": ("math2015", 4209 + 3911 + 536, 60, 11 + 16 + 8, 20 * (4209 + 3911 + 536), 0),
    "icd_Math2015/Math1": ("math2015", 4209, 20, 11, 84_180, 0),
    "icd_Math2015/Math2": ("math2015", 3911, 20, 16, 78_220, 0),
    "icd_Math2015/FrcSub": ("math2015", 536, 20, 8, 10_720, 0),
    "raw_assist2009_sample": ("assistments", 15, 1442, 74, 1548, 329),
    "raw_assist2009_sample/skill_builder_data_sample.csv": ("assistments", 2059, 6086, 116, 9028, 1036),
    "pykt_assist2009_sample": ("pykt", 14, 1112, 74, 1209, 0),
}


@functools.cache
def known(folder: str) -> Dataset:
    """A real folder, read once for all tests."""
    return read(real(folder))


@pytest.mark.parametrize("folder", KNOWN)
def test_a_real_folder_gives_the_counts_known_for_it(folder: str) -> None:
    kind, students, questions, concepts, responses, isolated = KNOWN[folder]
    data = known(folder)
    assert data.notes[0] == f"recognised as {kind}"
    assert (len(data.students), len(data.questions), len(data.concepts)) == (students, questions, concepts)
    assert (None if data.interactions is None else len(data.interactions)) == responses
    for names in (data.questions, data.concepts, data.students):
        assert len(set(names)) == len(names)
    found = KnowledgeGraph.from_dataset(data).describe()
    assert (found["questions_without_concept"], found["concepts_without_question"]) == (isolated, 0)
    assert any("without a concept" in note for note in data.notes) == (isolated > 0)
    if data.interactions is not None:
        assert (np.diff(data.interactions.student) >= 0).all()
        assert len(np.unique(data.interactions.student)) == students
        assert set(np.unique(data.interactions.correct)) == {0, 1}


@pytest.mark.parametrize("folder", KNOWN)
def test_a_real_folder_is_recognised_by_one_format_only(folder: str) -> None:
    path = real(folder)
    assert [name for name, kind in DATASETS.items() if kind.recognises(path)] == [KNOWN[folder][0]]
    assert recognise(path) == KNOWN[folder][0]


def test_the_table_in_the_docs_is_the_one_tested() -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    table = re.search(r"^\| folder \| format .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    shown = {name: tuple(cells) for name, *cells in rows}
    assert shown == {
        name: (kind, *("–" if figure is None else f"{figure:,}" for figure in figures))
        for name, (kind, *figures) in KNOWN.items()
    }


def test_only_sources_with_sequences_count_as_ordered() -> None:
    ordered = {name for name in KNOWN if (given := known(name).interactions) is not None and given.ordered}
    sequences = {"s2kt_assist09", "akt_assist2009_pid", "pebg_ednet", "raw_assist2009_sample", "pykt_assist2009_sample"}
    assert ordered == sequences


@pytest.mark.parametrize("folder", ["s2kt_assist09", "pebg_ednet", "eedi_csc311", "raw_assist2009_sample"])
def test_reading_twice_gives_the_same(folder: str) -> None:
    path = real(folder)
    assert same(known(folder), load(f"{KNOWN[folder][0]}:{path}"))


def test_s2kt_composites_are_decoded_and_the_split_kept() -> None:
    data = known("s2kt_assist09")
    assert not [c for c in data.concepts if "_" in c]
    assert data.parts is not None
    assert np.bincount(data.parts).tolist() == [2696, 386, 770]
    there = np.bincount(data.parts) - np.bincount(data.parts[data.left_out], minlength=3)
    split = data.split()
    assert [len(p.students) for p in (split.train, split.validation, split.test)] == there.tolist() == [2612, 384, 767]


def test_s2kt_and_the_pebg_graph_agree_on_every_problem_they_share() -> None:
    """Two papers, two formats, the same ASSISTments problems: each decodes to the same skills."""
    ours, theirs = known("s2kt_assist09"), known("pebg_assist09_graph")
    shared = set(ours.questions) & set(theirs.questions)
    assert len(shared) == 15911
    assert {e for e in edges_of(ours) if e[0] in shared} == edges_of(theirs)


def test_s2kt_against_its_files_read_naively() -> None:
    path = real("s2kt_assist09")
    problems = {i: p for p, i in json.loads((path / "problem_id_hashmap.json").read_text()).items()}
    lines = (path / "dev.txt").read_text().split("\n")
    data = known("s2kt_assist09")
    rows = [a for a in answers_of(data) if a[0] == "dev-3"]
    assert rows == [
        ("dev-3", problems[int(q)], int(c)) for q, c in zip(lines[9].split(","), lines[11].split(","), strict=True)
    ]


def test_akt_merges_attempts_written_once_a_skill() -> None:
    data = known("akt_assist2009_pid")
    assert any(note.startswith("merged 51,033 repeated attempts") for note in data.notes)
    assert data.concept_names["1"] == "Box and Whisker"
    assert data.question_names["1"] == "problem 51424"


def test_akt_reads_without_the_name_files(tmp_path: Path) -> None:
    for file in real("akt_assist2009_pid").glob("*_test?.csv"):
        (tmp_path / file.name).symlink_to(file)
    data = read(tmp_path)
    assert len(data.questions) == 16891
    assert not data.question_names
    assert not data.concept_names


def test_pebg_skills_agree_with_the_joint_skill_of_each_response() -> None:
    """The responses repeat each question's concepts as a joint id: an independent source for the same edges."""
    import ast

    path = real("pebg_ednet")
    joint = {i: s for s, i in ast.literal_eval((path / "skill_id_dict.txt").read_text()).items()}
    lines = (path / "data.txt").read_text().split("\n")
    data = known("pebg_ednet")
    concepts = {q: set() for q in data.questions}
    for q, c in edges_of(data):
        concepts[q].add(c)
    for row in range(0, 2000, 4):
        for s, q in zip(json.loads(lines[row + 1]), json.loads(lines[row + 2]), strict=True):
            assert concepts[data.questions[q]] == set(joint[s].split(";"))


def test_eedi_hierarchy_against_eedis_own() -> None:
    """The same subjects stand in another published folder with their true parents (their ids there are one higher)."""
    truth = {int(c) - 1: int(p) - 1 for c, p in known("icd_math_ec").parents.items()}
    data = known("eedi_csc311")
    with (real("eedi_csc311") / "question_meta.csv").open(newline="") as file:
        lists = {row["question_id"]: json.loads(row["subject_id"]) for row in csv.DictReader(file)}
    leaves: dict[str, set[str]] = {q: set() for q in data.questions}
    for q, c in edges_of(data):
        leaves[q].add(c)
    right = [leaves[q] == {str(s) for s in of if s not in {truth.get(o) for o in of}} for q, of in lists.items()]
    assert sum(right) == 1770  # of 1774
    of = {s: {q for q, subjects in lists.items() if s in subjects} for s in set().union(*lists.values())}
    naive = {q: {str(s) for s in v if not any(of[o] < of[s] for o in v)} for q, v in lists.items()}
    assert sum(naive[q] == {str(s) for s in v if s not in {truth.get(o) for o in v}} for q, v in lists.items()) == 1756
    assert not {"0", "1"} & set(data.concepts)  # the root and the strand of numbers
    assert np.mean([truth.get(int(child)) == int(parent) for child, parent in data.parents.items()]) > 0.97


def test_eedi_never_reads_the_file_without_labels() -> None:
    assert "left private_test_data.csv unread: it has no labels" in known("eedi_csc311").notes


def test_icd_names_and_parents() -> None:
    data = known("icd_math_ec")
    assert set(data.concepts) <= set(data.concept_names)
    chain = ["44"]
    while chain[-1] in data.parents:
        chain.append(data.parents[chain[-1]])
    assert [data.concept_names[c] for c in chain][::3] == ["Area of Simple Shapes", "Maths"]


def test_math2015_scores_count_as_right_from_one_half_on() -> None:
    path = real("icd_Math2015/Math2")
    data = known("icd_Math2015/Math2")
    scores = np.loadtxt(path / "data.txt")
    assert np.array_equal(data.interactions.correct.reshape(scores.shape), scores >= 0.5)
    assert np.array_equal(data.q_matrix.toarray(), np.loadtxt(path / "q.txt"))
    assert "9,095 of 78,220 scores are part marks: half or more counts as right (5,748)" in data.notes
    assert data.concept_names["16"] == "Data handling"
    first = known("icd_Math2015/Math1").notes
    assert "11,822 of 84,180 scores are part marks: half or more counts as right (4,927)" in first


def test_assistments_against_its_rows_read_naively() -> None:
    with (real("raw_assist2009_sample") / "assistment_test15.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    data = known("raw_assist2009_sample")
    assert edges_of(data) == {(row["problem_id"], row["skill_id"]) for row in rows if row["skill_id"]}
    attempts = {int(row["order_id"]): (row["user_id"], row["problem_id"], int(row["correct"])) for row in rows}
    mine: dict[str, list[tuple[str, str, int]]] = {}
    for answer in answers_of(data):
        mine.setdefault(answer[0], []).append(answer)
    for user, answers in mine.items():
        assert answers == [attempts[order] for order in sorted(attempts) if attempts[order][0] == user]


# ------------------------------------------------------------------------------------------------- made folders


def s2kt(folder: Path, **changes: str) -> Path:
    files = {
        "train.txt": "3\n0,1,0\n0,2,0\n1,0,1\n1\n2\n1\n0\n",
        "dev.txt": "1\n1\n2\n1\n",
        "test.txt": "2\n2,2\n1,1\n0,1\n",
        "problem_id_hashmap.json": '{"p0": 0, "p1": 1, "p2": 2}',
        "skill_id_hashmap.json": '{"10": 0, "13": 1, "10_13": 2}',
    }
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(changes.get(name, text))
    return folder


def akt(folder: Path, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    for fold in range(1, 6):
        text = f"{fold},user{fold}\n7,7,7,8\n1,2,2,1\n1,1,1,0\n"
        (folder / f"x_test{fold}.csv").write_text(changes.get(f"x_test{fold}.csv", text))
    return folder


def pebg(folder: Path, **changes: str) -> Path:
    files = {
        "pro_id_dict.txt": "{'q1': 0, 'q2': 1}",
        "pro_skill_dict.txt": "{'q1': '5;6', 'q2': '6;6'}",
        "data.txt": "[2]\n[0, 1]\n[0, 1]\n[1, 0]\n",
    }
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(changes.get(name, text))
    return folder


def test_s2kt_made(tmp_path: Path) -> None:
    data = read(s2kt(tmp_path / "s"))
    assert edges_of(data) == {("p0", "10"), ("p1", "10"), ("p1", "13"), ("p2", "13")}
    assert answers_of(data)[:4] == [
        ("train-1", "p0", 1),
        ("train-1", "p1", 0),
        ("train-1", "p0", 1),
        ("train-2", "p2", 0),
    ]
    assert data.parts is not None
    assert data.parts.tolist() == [0, 0, 1, 2]


def test_akt_made(tmp_path: Path) -> None:
    """Rows 7/1, 7/2, 7/2, 8/1: the second is the first under another skill, the third a new attempt."""
    (akt(tmp_path / "a") / "x_train1.csv").write_text("never read")
    data = read(tmp_path / "a")
    assert answers_of(data)[:3] == [("user1", "7", 1), ("user1", "7", 1), ("user1", "8", 0)]
    assert edges_of(data) == {("7", "1"), ("7", "2"), ("8", "1")}
    assert data.notes[1].startswith("merged 5 repeated attempts")
    assert any("x_train1.csv" in note for note in data.notes)


def test_pebg_made(tmp_path: Path) -> None:
    data = read(pebg(tmp_path / "p"))
    assert edges_of(data) == {("q1", "5"), ("q1", "6"), ("q2", "6")}
    assert "1 edge given more than once, counted once" in data.notes
    assert answers_of(data) == [("1", "q1", 1), ("1", "q2", 0)]


def ednet(folder: Path, **changes: str) -> Path:
    files = {
        "contents/questions.csv": "question_id,bundle_id,explanation_id,correct_answer,part,tags,deployed_at\n"
        "q1,b1,e1,b,1,1;2;179,1558093217098\nq2,b1,e1,a,2,15,1558093219720\nq3,b2,e2,c,5,-1,1558093222784\n",
        "KT1/u10.csv": "timestamp,solving_id,question_id,user_answer,elapsed_time\n"
        "1565096190868,1,q2,a,38000\n1565096190868,1,q1,c,38000\n1565096151269,2,q3,,24000\n",
        "KT1/u2.csv": "timestamp,solving_id,question_id,user_answer,elapsed_time\r\n1565096151269,1,q3,c,24000\r\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(changes.get(name, text), newline="")
    return folder


def test_ednet_made(tmp_path: Path) -> None:
    data = read(ednet(tmp_path / "e"))
    assert data.notes[0] == "recognised as ednet"
    assert edges_of(data) == {("q1", "1"), ("q1", "2"), ("q1", "179"), ("q2", "15")}
    assert answers_of(data) == [("u2", "q3", 1), ("u10", "q2", 1), ("u10", "q1", 0)]
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp[0] == pytest.approx(1565096151.269)
    assert "1 row without an answer, left out" in data.notes
    assert any(note.startswith("1 of 3 responses have the time of the one before") for note in data.notes)
    assert "1 question without a concept: isolated in the graph" in data.notes
    fewer = load(str(tmp_path / "e"), {"ednet": {"students": 1}})
    assert len(fewer.students) == 1
    assert any("read 1 of 2 students" in note for note in fewer.notes)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("KT1/u2.csv", "time,question\n1,q3\n", "u2.csv, row 1: no file of a student"),
        (
            "KT1/u2.csv",
            "timestamp,solving_id,question_id,user_answer,elapsed_time\n1,1,q3,c\n",
            "u2.csv, row 2: ragged",
        ),
        (
            "KT1/u2.csv",
            "timestamp,solving_id,question_id,user_answer,elapsed_time\n1,1,q9,c,2\n",
            "u2.csv, column question_id: unknown question: 'q9'",
        ),
        (
            "KT1/u2.csv",
            "timestamp,solving_id,question_id,user_answer,elapsed_time\nx,1,q3,c,2\n",
            "u2.csv, column timestamp: not a time: 'x'",
        ),
        (
            "contents/questions.csv",
            "question_id,correct_answer,tags\nq1,a,-1\nq2,a,-1\nq3,a,\n",
            "no question has a tag",
        ),
    ],
)
def test_ednet_wrong(file: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        read(ednet(tmp_path, **{file: text}))


@pytest.mark.parametrize("name", ["s2kt", "akt"])
def test_lists_may_end_in_a_comma(name: str, tmp_path: Path) -> None:
    make = {"s2kt": s2kt, "akt": akt}[name]
    plain, trailing = make(tmp_path / "plain"), make(tmp_path / "trailing")
    for file in trailing.iterdir():
        if "test" in file.name or file.suffix == ".txt":
            lines = file.read_text().splitlines()
            file.write_text("".join(f"{line},\n" if i % 4 else f"{line}\n" for i, line in enumerate(lines)))
    assert same(read(plain), read(trailing))


def test_joint_skills_of_assistments_are_several(tmp_path: Path) -> None:
    head = "order_id,user_id,problem_id,correct,skill_id\n"
    (tmp_path / "a.csv").write_text(head + "1,u,p1,1,1_13\n2,u,p2,0,1\n3,u,p3,1,13\n4,u,p4,1,NA\n")
    data = read(tmp_path / "a.csv")
    assert edges_of(data) == {("p1", "1"), ("p1", "13"), ("p2", "1"), ("p3", "13")}
    assert "1 cell of several skills, as '1_13': one edge each" in data.notes
    assert any(note.startswith("1 row without a skill") for note in data.notes)


def test_eedi_made(tmp_path: Path) -> None:
    """Two full branches, and a list of both: its leaves are theirs, and nothing hangs from the root."""
    folder = write(
        tmp_path,
        question_meta='question_id,subject_id\n0,"[0, 1, 2, 3]"\n1,"[0, 1, 2, 4]"\n2,"[0, 1, 2, 3, 4]"\n3,"[0, 1]"\n',
        subject_meta="subject_id,name\n0,Maths\n3,Halves\n9,Never used\n",
        train_data="question_id,user_id,is_correct\n2,7,1\n0,8,0\n",
        private_test_data="question_id,user_id,is_correct\n1,7,\n",
    )
    data = read(folder)
    assert edges_of(data) == {("0", "3"), ("1", "4"), ("2", "3"), ("2", "4"), ("3", "1")}
    assert data.parents == {"1": "0", "2": "1", "3": "2", "4": "2"}
    assert data.concept_names == {"0": "Maths", "3": "Halves"}
    assert answers_of(data) == [("7", "2", 1), ("8", "0", 0)]
    assert data.interactions is not None
    assert not data.interactions.ordered


def test_icd_made(tmp_path: Path) -> None:
    folder = write(tmp_path, item='item_id,knowledge_code\n5,"[1, 2]"\n6,[]\n')
    assert read(folder).interactions is None
    write(
        folder, record="user_id,item_id,score\nu,6,0.5\nu,5,0.25\nv,5,1.0\n", skill="knowledge_code,parent\n1,2.0\n2,\n"
    )
    data = read(folder)
    assert edges_of(data) == {("5", "1"), ("5", "2")}
    assert answers_of(data) == [("u", "6", 1), ("u", "5", 0), ("v", "5", 1)]
    assert data.parents == {"1": "2"}
    assert "2 of 3 scores are part marks: half or more counts as right (1)" in data.notes


def test_assistments_made(tmp_path: Path) -> None:
    """Latin-1, an index, ids as floats, one row a skill, a row without one, and rows out of order."""
    head = "order_id,user_id,problem_id,correct,skill_id,skill_name\n"
    rows = "30,u,p1,1,5.0,Médiane\n30,u,p1,1,6.0,Mode\n10,u,p2,0,,\n20,v,p1,0,5.0,Médiane\n"
    file = tmp_path / "raw.csv"
    file.write_bytes((head + rows).encode("latin-1"))
    data = read(file)
    assert edges_of(data) == {("p1", "5"), ("p1", "6")}
    assert answers_of(data) == [("u", "p2", 0), ("u", "p1", 1), ("v", "p1", 0)]
    assert data.concept_names == {"5": "Médiane", "6": "Mode"}
    assert "merged 1 repeated row of attempts written again, once a skill or in full" in data.notes
    assert "read as latin-1: the file is not UTF-8" in data.notes
    (tmp_path / "sample.csv").write_text("," + head + "7,30,u,p1,1,5,x\n3,10,u,p2,0,,\n")
    assert read(tmp_path).notes[1].startswith("read raw.csv, left sample.csv unread")
    sample = read(tmp_path / "sample.csv")
    assert sample.interactions is not None
    assert not sample.interactions.ordered
    assert answers_of(sample) == [("u", "p1", 1), ("u", "p2", 0)]


# ------------------------------------------------------------------------------------------------------ own data

label = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda name: name not in (*EMPTY, "-1")
)
edge_sets = st.lists(st.tuples(label, label), min_size=1, max_size=30)
fresh = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fresh
@given(edges=edge_sets, newline=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_edges_written_are_edges_read(tmp_path: Path, edges: list[tuple[str, str]], newline: str, bom: bool) -> None:
    with (tmp_path / "questions.csv").open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file, lineterminator=newline).writerows([("question", "concept"), *edges])
    data = read(tmp_path)
    assert edges_of(data) == set(edges)
    assert list(data.questions) == list(dict.fromkeys(q for q, _ in edges))
    assert list(data.concepts) == list(dict.fromkeys(c for _, c in edges))
    again = len(edges) - len(set(edges))
    assert bool(again) == any("more than once" in note for note in data.notes)
    assert same(data, read(pl.DataFrame(edges, schema=["question", "concept"], orient="row")))
    assert same(data, read(pd.DataFrame(edges, columns=["question", "concept"])))


@fresh
@given(
    rows=st.lists(
        st.tuples(label, st.lists(label.filter(lambda s: ";" not in s), max_size=4)), min_size=1, max_size=20
    ).filter(lambda rows: any(concepts for _, concepts in rows))
)
def test_lists_of_concepts_written_are_read(tmp_path: Path, rows: list[tuple[str, list[str]]]) -> None:
    with (tmp_path / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "concepts"), *((q, ";".join(cs)) for q, cs in rows)])
    data = read(f"csv:{tmp_path}")
    assert edges_of(data) == {(q, c) for q, cs in rows for c in cs}
    assert set(data.questions) == {q for q, _ in rows}
    lists = {"question": [q for q, _ in rows], "concepts": [cs for _, cs in rows]}
    assert same(data, read(pl.DataFrame(lists, schema_overrides={"concepts": pl.List(pl.String)})))
    assert same(data, read(pd.DataFrame(lists)))


def test_csv_in_full(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "mine",
        questions='question,concepts,name,level\nq1,halves; thirds,"one, two",3\nq2,halves,,1\nq3,,,\n',
        interactions="student,question,correct,timestamp\nbo,q1,1,20\nal,q2,0,5\nbo,q2,0,10\nbo,q3,1,20\n",
        concepts="concept,name,parent\nhalves,Halves,fractions\nfractions,Fractions,\n",
    )
    data = read(folder)
    assert data.name == "mine"
    assert edges_of(data) == {("q1", "halves"), ("q1", "thirds"), ("q2", "halves")}
    assert answers_of(data) == [("bo", "q2", 0), ("bo", "q1", 1), ("bo", "q3", 1), ("al", "q2", 0)]
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    assert data.interactions.timestamp.tolist() == [10, 20, 20, 5]
    assert data.interactions.ordered
    assert data.question_names == {"q1": "one, two"}
    assert data.concept_names == {"halves": "Halves", "fractions": "Fractions"}
    assert data.parents == {"halves": "fractions"}
    assert data.notes == (
        "recognised as csv",
        "questions.csv: columns not read: 'level'",
        "1 concept without a row in concepts.csv",
        "interactions.csv: sorted by time; 1 of 4 rows were not in its order",
        "interactions.csv: 1 of 4 rows have the time of the row before: in the file's order",
        "1 question without a concept: isolated in the graph",
        "1 concept without a question",
    )
    assert same(read(folder / "questions.csv"), read(pl.read_csv(folder / "questions.csv")))


def test_times_as_iso_8601(tmp_path: Path) -> None:
    rows = "student,question,correct,timestamp\na,q,1,2024-03-01T10:00:30\na,q,0,2024-03-01 10:00:00\n"
    data = read(write(tmp_path, questions="question,concept\nq,c\n", interactions=rows))
    assert data.interactions is not None
    assert data.interactions.correct.tolist() == [0, 1]
    assert data.interactions.timestamp is not None
    assert np.diff(data.interactions.timestamp).tolist() == [30]


def test_a_blank_line_at_the_end_and_a_quoted_newline_free_mess_are_fine(tmp_path: Path) -> None:
    data = read(write(tmp_path, questions='question,concepts\n"q ""one""",a\nq"2,b\n\n\n'))
    assert data.questions == ('q "one"', 'q"2')


# ---------------------------------------------------------------------------------------------- frames and graphs


def test_frames_with_responses_and_names_are_left_as_they_are() -> None:
    questions = pl.DataFrame({"question": [1, 2, 2], "concept": ["a", "a", "b"]})
    answers = pl.DataFrame({"student": [7, 7, 8], "question": [2, 1, 1], "correct": [True, False, True]})
    concepts = pl.DataFrame({"concept": ["a", "b"], "name": ["A", None], "parent": [None, "a"]})
    before = [frame.clone() for frame in (questions, answers, concepts)]
    data = read(questions, interactions=answers, concepts=concepts)
    assert edges_of(data) == {("1", "a"), ("2", "a"), ("2", "b")}
    assert answers_of(data) == [("7", "2", 1), ("7", "1", 0), ("8", "1", 1)]
    assert (data.concept_names, data.parents) == ({"a": "A"}, {"b": "a"})
    assert all(old.equals(new) for old, new in zip(before, (questions, answers, concepts), strict=True))
    assert data.notes[0] == "read from a frame"


def test_pandas_frames_read_like_polars_frames() -> None:
    questions = pd.DataFrame({"question": [1, 2, 3], "concepts": ["a;b", None, "b"]})
    answers = pd.DataFrame(
        {
            "student": ["x", "y", "x"],
            "question": [1.0, 2.0, 1.0],
            "correct": [1.0, 0.0, 0.0],
            "timestamp": pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-01"]),
        }
    )
    before = questions.copy(deep=True), answers.copy(deep=True)
    data = read(questions, interactions=answers)
    assert edges_of(data) == {("1", "a"), ("1", "b"), ("3", "b")}
    assert answers_of(data) == [("x", "1", 0), ("x", "1", 1), ("y", "2", 0)]
    pd.testing.assert_frame_equal(before[0], questions)
    pd.testing.assert_frame_equal(before[1], answers)


def test_networkx_there_and_back() -> None:
    graph = KnowledgeGraph.from_edges([("q1", "a"), ("q2", "a"), ("q2", "b")]).to_networkx()
    graph.add_node(("question", "alone"), bipartite=0)
    graph["question", "q1"]["concept", "a"]["weight"] = 2.5
    answers = pl.DataFrame({"student": ["s"], "question": ["alone"], "correct": [1]})
    data = read(graph, interactions=answers)
    assert edges_of(data) == {("q1", "a"), ("q2", "a"), ("q2", "b")}
    assert data.q_matrix[data.questions.index("q1"), data.concepts.index("a")] == 2.5
    assert answers_of(data) == [("s", "alone", 1)]
    assert "1 question without a concept: isolated in the graph" in data.notes


def test_networkx_nodes_that_become_one_name() -> None:
    graph = nx.Graph()
    graph.add_nodes_from([1, "1"], bipartite=0)
    graph.add_node("c", bipartite=1)
    with pytest.raises(DataError, match="two questions with one name: '1'"):
        read(graph)


# ------------------------------------------------------------------------------------------------ what is it, where


def test_paths_with_home_variables_and_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a:b", questions="question,concept\nq,c\n")
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for source in (folder, str(folder), "$HERE/a:b", "csv:$HERE/a:b", "~/a:b", "csv:~/a:b"):
        assert read(source).questions == ("q",), source
    monkeypatch.chdir(tmp_path)
    assert read("a:b").notes[0] == "recognised as csv"


def test_made_data_needs_no_path() -> None:
    data = load("simulated", {"simulated": {"questions": 40, "concepts": 8, "students": 5, "responses": 10}})
    assert (len(data.questions), data.notes[0]) == (40, "made by simulated")


def test_outside_readers_are_named_by_module_and_class(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", questions="question,concept\nq,c\n")
    assert read(f"qcq.data.csv:CSV:{folder}").questions == ("q",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s2kd:somewhere", "unknown format 's2kd'; did you mean s2kt?"),
        ("s2kt", "no path given: 's2kt'; write s2kt:PATH; it needs train.txt"),
        ("nowhere", "no such file or folder; check"),
        ("csv:nowhere", "no such file or folder; check"),
        ("s2kt:$NOT_SET_AT_ALL/x", "the environment variable NOT_SET_AT_ALL isn't set"),
        ("C:\\data", "no such file or folder"),
        ("some/dir:x", "no such file or folder"),
        (".", "the folder is empty; put the files of a data set into it; 'qcq list data' shows what each format needs"),
    ],
)
def test_sources_that_are_none(source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, UnknownNameError), match=re.escape(said)):
        read(source)


def test_sources_of_another_kind() -> None:
    with pytest.raises(DataError, match="no data set can be read from this: 'int'"):
        read(3)
    with pytest.raises(DataError, match="go with a frame of questions"):
        read("simulated", interactions=pl.DataFrame())


@pytest.mark.parametrize("name", DATASETS)
def test_recognising_never_raises(name: str, tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_bytes(b"\xff\xfe\x00bad")
    (tmp_path / "x_test1.csv").write_bytes(b"\xff\xfe\x00bad")
    for path in (tmp_path, tmp_path / "questions.csv", tmp_path / "not there"):
        assert DATASETS[name].recognises(path) is False


def test_every_format_says_what_it_needs() -> None:
    for kind in DATASETS.values():
        assert bool(kind.needs) == kind.needs_path


def test_looking_at_the_formats_loads_no_heavy_library() -> None:
    code = "import sys, qcq.data; print([m for m in ('torch', 'gensim', 'numba', 'polars') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
