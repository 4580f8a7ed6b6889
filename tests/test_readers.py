"""The readers: real folders give the figures known for them, made ones come back as they were written."""

from __future__ import annotations

import csv
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

KNOWN = {  # folder: format, students, questions, concepts, responses after merging (None: a graph alone)
    "s2kt_assist09": ("s2kt", 3852, 17737, 123, 282_619),
    "akt_assist2009_pid": ("akt", 4150, 16891, 110, 325_589 - 51_033),
    "pebg_ednet": ("pebg", 5002, 12372, 188, 222_141),
    "pebg_assist09_graph": ("pebg", 0, 15911, 123, None),
}


@pytest.mark.parametrize("folder", KNOWN)
def test_a_real_folder_gives_the_counts_known_for_it(folder: str) -> None:
    kind, students, questions, concepts, responses = KNOWN[folder]
    data = read(real(folder))
    assert data.notes[0] == f"recognised as {kind}"
    assert (len(data.students), len(data.questions), len(data.concepts)) == (students, questions, concepts)
    assert (None if data.interactions is None else len(data.interactions)) == responses
    for names in (data.questions, data.concepts, data.students):
        assert len(set(names)) == len(names)
    assert KnowledgeGraph.from_dataset(data).describe()["questions_without_concept"] == 0


@pytest.mark.parametrize("folder", KNOWN)
def test_a_real_folder_is_recognised_by_one_format_only(folder: str) -> None:
    path = real(folder)
    assert [name for name, kind in DATASETS.items() if kind.recognises(path)] == [KNOWN[folder][0]]
    assert recognise(path) == KNOWN[folder][0]


@pytest.mark.parametrize("folder", ["s2kt_assist09", "pebg_ednet"])
def test_reading_twice_gives_the_same(folder: str) -> None:
    path = real(folder)
    assert same(read(path), load(f"{KNOWN[folder][0]}:{path}"))


def test_s2kt_composites_are_decoded_and_the_split_kept() -> None:
    data = read(real("s2kt_assist09"))
    assert not [c for c in data.concepts if "_" in c]
    assert data.parts is not None
    assert np.bincount(data.parts).tolist() == [2696, 386, 770]
    assert [len(p.students) for p in (data.split().train, data.split().validation, data.split().test)] == [
        2696,
        386,
        770,
    ]
    assert len(np.unique(KnowledgeGraph.from_dataset(data).concept_sets)) == 149


def test_s2kt_and_the_pebg_graph_agree_on_every_problem_they_share() -> None:
    """Two papers, two formats, the same ASSISTments problems: each decodes to the same skills."""
    ours, theirs = read(real("s2kt_assist09")), read(real("pebg_assist09_graph"))
    shared = set(ours.questions) & set(theirs.questions)
    assert len(shared) == 15911
    assert {e for e in edges_of(ours) if e[0] in shared} == edges_of(theirs)


def test_s2kt_against_its_files_read_naively() -> None:
    path = real("s2kt_assist09")
    problems = {i: p for p, i in json.loads((path / "problem_id_hashmap.json").read_text()).items()}
    lines = (path / "dev.txt").read_text().split("\n")
    data = read(path)
    rows = [a for a in answers_of(data) if a[0] == "dev-3"]
    assert rows == [
        ("dev-3", problems[int(q)], int(c)) for q, c in zip(lines[9].split(","), lines[11].split(","), strict=True)
    ]


def test_akt_merges_attempts_written_once_a_skill() -> None:
    data = read(real("akt_assist2009_pid"))
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
    data = read(path)
    concepts = {q: set() for q in data.questions}
    for q, c in edges_of(data):
        concepts[q].add(c)
    for row in range(0, 2000, 4):
        for s, q in zip(json.loads(lines[row + 1]), json.loads(lines[row + 2]), strict=True):
            assert concepts[data.questions[q]] == set(joint[s].split(";"))


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


# ------------------------------------------------------------------------------------------------------ own data

label = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
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
        "1 question without a concept: isolated in the graph",
        "1 concept without a question",
        "1 concept without a row in concepts.csv",
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


def test_pandas_frames_need_no_pyarrow() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import pandas as pd, qcq.data\n"
        "d = qcq.data.read(pd.DataFrame({'question': ['a', 'b'], 'concepts': ['x;y', None]}))\n"
        "assert d.q_matrix.nnz == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
        (".", "no known format; formats and what each needs: csv: questions.csv"),
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
