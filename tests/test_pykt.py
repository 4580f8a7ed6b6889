"""pyKT folders, XES3G5M and edmine: what was planted comes back, whichever of the files are there."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcq.data import DATASETS, Dataset, load, read
from qcq.errors import DataError

Attempt = tuple[str, tuple[str, ...], int, int]  # question, concepts, response, milliseconds
LENGTH = 6  # of a window
LEAST = 3  # responses that a student, or the last window, must have


# ---------------------------------------------------------------------------------------- pyKT's layout, made here


def classroom(seed: int = 0, students: int = 12, longest: int = 40) -> dict[str, list[Attempt]]:
    """Students with attempts, some too short for pyKT, some longer than several windows."""
    draw = random.Random(seed)
    concepts = {f"q{i}": tuple(f"c{c}" for c in draw.sample(range(9), draw.choice([1, 1, 2, 3]))) for i in range(25)}
    made = {}
    for s in range(students):
        begin, n = draw.randrange(10**12), draw.randrange(1, longest)
        asked = [draw.choice(sorted(concepts)) for _ in range(n)]
        made[f"u{s}"] = [(q, concepts[q], draw.randrange(2), begin + 1000 * i) for i, q in enumerate(asked)]
    made["short"] = made["u0"][:1]
    made["long"] = [(q, concepts[q], 1, i) for i, q in enumerate(sorted(concepts) * 2)]
    made["even"] = made["long"][: 2 * LENGTH]
    return made


def six_lines(students: dict[str, list[Attempt]]) -> str:
    blocks = []
    for who, attempts in students.items():
        questions, concepts, answers, times = zip(*attempts, strict=True)
        joint = ["_".join(of) for of in concepts]
        lists = [questions, joint, answers, times]
        blocks += [f"{who},{len(attempts)}", *(",".join(map(str, one)) for one in lists), "NA"]
    return "\n".join(blocks) + "\n"


def indices(students: dict[str, list[Attempt]]) -> dict[str, dict[str, int]]:
    """Numbers in order of appearance, of the students that are long enough."""
    ids: dict[str, dict[str, int]] = {"questions": {}, "concepts": {}, "uid": {}}
    for who, attempts in students.items():
        if len(attempts) >= LEAST:
            ids["uid"][who] = len(ids["uid"])
            for question, concepts, *_ in attempts:
                ids["questions"].setdefault(question, len(ids["questions"]))
                for concept in concepts:
                    ids["concepts"].setdefault(concept, len(ids["concepts"]))
    return ids


def row(fold: int, uid: int, columns: dict[str, Sequence[object]]) -> str:
    return f"{fold},{uid}," + ",".join('"' + ",".join(map(str, cells)) + '"' for cells in columns.values())


def sequence_files(folder: Path, students: dict[str, list[Attempt]], folds: dict[str, int], by_concept: bool) -> None:
    """The files of one level: uncut, windows, overlapping windows (of the test students)."""
    ids = indices(students)
    level = "" if by_concept else "_quelevel"
    heads: dict[str, str] = {}
    lines: dict[str, list[str]] = {
        f"{p}{kind}{level}": [] for p in ("train_valid", "test") for kind in ("", "_sequences")
    }
    lines[f"test_window_sequences{level}"] = []
    for who, uid in ids["uid"].items():
        entries = []
        for question, concepts, answer, time in students[who]:
            numbers = [str(ids["concepts"][c]) for c in concepts]
            written = enumerate(numbers) if by_concept else [(0, "_".join(numbers))]
            entries += [(ids["questions"][question], c, answer, time, min(i, 1)) for i, c in written]
        names = ["questions", "concepts", "responses", "timestamps", "is_repeat"][: 5 if by_concept else 4]
        part = "test" if folds[who] == -1 else "train_valid"

        def put(name: str, these: list, mask: list[int] | None, uid: int = uid, who: str = who) -> None:
            pad = [] if mask is None else [-1] * (LENGTH - len(these))
            columns = {k: [*(e[i] for e in these), *pad] for i, k in enumerate(names)}  # noqa: B023
            if mask is not None:
                columns["selectmasks"] = [*mask, *pad]
            heads[name] = ",".join(["fold", "uid", *columns])
            lines[name].append(row(folds[who], uid, columns))

        put(f"{part}{level}", entries, None)
        for start in range(0, len(entries), LENGTH):
            window = entries[start : start + LENGTH]
            if len(window) >= LEAST:
                put(f"{part}_sequences{level}", window, [1] * len(window))
        if part == "test":
            put(f"test_window_sequences{level}", entries[:LENGTH], [1] * min(LENGTH, len(entries)))
            for end in range(LENGTH + 1, len(entries) + 1):
                history = [-1] * (LENGTH - 1)
                put(f"test_window_sequences{level}", entries[end - LENGTH : end], [*history, 1])
    for name, body in lines.items():
        if body:
            (folder / f"{name}.csv").write_text("\n".join([heads[name], *body]) + "\n")


def folds_of(students: dict[str, list[Attempt]]) -> dict[str, int]:
    return {who: (-1, 0, 1, 2)[i % 4] for i, who in enumerate(indices(students)["uid"])}


def pykt(folder: Path, students: dict[str, list[Attempt]]) -> Path:
    """Everything that pyKT's preprocessing writes and the reader looks at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.txt").write_text(six_lines(students))
    (folder / "keyid2idx.json").write_text(json.dumps({**indices(students), "max_concepts": 3}))
    for by_concept in (True, False):
        sequence_files(folder, students, folds_of(students), by_concept)
    (folder / "test_question_sequences.csv").write_text("fold,uid,responses\n")
    return folder


def keeping(folder: Path, *names: str) -> Path:
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()
    return folder


# ---------------------------------------------------------------------------------------------- what comes back


def told(data: Dataset) -> dict[str, list[tuple[str, int, int]]]:
    """Student → (question, response, milliseconds) in order."""
    seen = data.interactions
    assert seen is not None
    assert seen.timestamp is not None
    made: dict[str, list[tuple[str, int, int]]] = {}
    for s, q, c, t in zip(seen.student, seen.question, seen.correct, seen.timestamp, strict=True):
        made.setdefault(data.students[s], []).append((data.questions[q], int(c), round(t * 1000)))
    return made


def edges(data: Dataset) -> set[tuple[str, str]]:
    return {(data.questions[q], data.concepts[c]) for q, c in zip(*data.q_matrix.nonzero(), strict=True)}


def planted(students: dict[str, list[Attempt]]) -> dict[str, list[tuple[str, int, int]]]:
    return {who: [(q, a, t) for q, _, a, t in of] for who, of in students.items() if len(of) >= LEAST}


def surviving(attempts: list[Attempt], by_concept: bool) -> int:
    """How many attempts of a student windows keep, counted entry by entry."""
    owner = [i for i, (_, concepts, *_) in enumerate(attempts) for _ in range(len(concepts) if by_concept else 1)]
    rest = len(owner) % LENGTH
    kept = owner[: len(owner) - rest] if rest < LEAST else owner
    return len(set(kept))


WINDOWS = ("train_valid_sequences", "test_sequences")
WHOLE, IDS = "data.txt", "keyid2idx.json"
FILES: dict[str, tuple[str, ...]] = {  # the sequence files that are there, without their level and ending
    "windows": WINDOWS,
    "overlapping": ("train_valid_sequences", "test_window_sequences"),
    "uncut": ("train_valid", "test"),
    "both": ("train_valid", "test", *WINDOWS),
}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_a_whole_folder_comes_back_as_it_was_planted(seed: int, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "k", ignore_errors=True)
    students = classroom(seed)
    data = read(pykt(tmp_path / "k", students))
    assert data.notes[0] == "recognised as pykt"
    assert told(data) == planted(students)
    ids = indices(students)
    for kind, names in (("questions", data.questions), ("concepts", data.concepts), ("uid", data.students)):
        assert list(names) == list(ids[kind]), "not pyKT's order"
    assert edges(data) == {(q, c) for of in students.values() if len(of) >= LEAST for q, cs, *_ in of for c in cs}
    folds = folds_of(students)
    assert data.parts is not None
    assert data.parts.tolist() == [{-1: 2, 0: 1}.get(folds[who], 0) for who in data.students]


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("level", ["", "_quelevel"])
def test_one_level_alone_undoes_windows_padding_and_concept_rows(level: str, files: str, tmp_path: Path) -> None:
    students = classroom(3)
    names = [f"{name}{level}.csv" for name in FILES[files]]
    data = read(keeping(pykt(tmp_path / "k", students), IDS, *names))
    truth, found = planted(students), told(data)
    folds = folds_of(students)
    assert list(found) == list(truth)
    for who, attempts in truth.items():
        cut = files == "windows" or (files == "overlapping" and folds[who] != -1)
        kept = surviving(students[who], by_concept=not level) if cut else len(attempts)
        assert found[who] == attempts[:kept], who
    lost = sum(map(len, truth.values())) - sum(map(len, found.values()))
    assert (lost > 0) == (files in ("windows", "overlapping"))
    assert any("known from windows only" in note for note in data.notes) == (files in ("windows", "overlapping"))


def test_windows_of_a_student_may_stand_apart(tmp_path: Path) -> None:
    """The windows of one student keep their order, whatever stands between them."""
    students = classroom(3)
    folder = keeping(pykt(tmp_path / "k", students), IDS, "train_valid_sequences.csv", "test_sequences.csv")
    before = told(read(folder))
    file = folder / "train_valid_sequences.csv"
    head, *lines = file.read_text().splitlines()
    owners = [line.split(",")[1] for line in lines]
    turn = [owners[:i].count(owner) for i, owner in enumerate(owners)]
    spread = [lines[i] for i in np.argsort(turn, kind="stable")]
    assert spread != lines
    file.write_text("\n".join([head, *spread]) + "\n")
    assert told(read(folder)) == before


def test_two_levels_tell_more_than_either(tmp_path: Path) -> None:
    """Each level drops other ends, so together they have more of some student than each alone."""
    students = classroom(1, students=40)
    folder = pykt(tmp_path / "k", students)
    keeping(folder, IDS, *(f"{name}{level}.csv" for name in WINDOWS for level in ("", "_quelevel")))
    data = read(folder)
    found = told(data)
    alone = {level: [surviving(of, level) for of in students.values() if len(of) >= LEAST] for level in (True, False)}
    assert [len(of) for of in found.values()] == np.maximum(alone[True], alone[False]).tolist()
    assert max(sum(alone[True]), sum(alone[False])) < sum(map(len, found.values()))
    assert all(planted(students)[who][: len(of)] == of for who, of in found.items())
    behind = sum(map(len, found.values())) - sum(alone[False])
    said = [re.search(r"^\S+_quelevel.csv lacks .* (\d+) response", note) for note in data.notes]
    assert sum(int(found[1]) for found in said if found) == behind


def test_data_txt_alone_has_everybody_and_no_split(tmp_path: Path) -> None:
    students = classroom(2)
    data = read(keeping(pykt(tmp_path / "k", students), WHOLE))
    assert data.parts is None
    assert {who: len(of) for who, of in told(data).items()} == {who: len(of) for who, of in students.items()}
    assert "no file with folds: no split of the source" in data.notes


def test_students_that_pykt_left_out_are_counted(tmp_path: Path) -> None:
    students = classroom(2)
    data = read(pykt(tmp_path / "k", students))
    out = [of for of in students.values() if len(of) < LEAST]
    many = f"{len(out)} student{'s' * (len(out) > 1)} with {sum(map(len, out))} response"
    assert any(note.startswith(many) and "left out" in note for note in data.notes)
    assert "short" not in data.students


def test_without_the_map_identifiers_are_indices(tmp_path: Path) -> None:
    students = classroom(2)
    ids = indices(students)
    data = read(keeping(pykt(tmp_path / "k", students), "train_valid_quelevel.csv", "test_quelevel.csv"))
    assert data.questions == tuple(map(str, range(len(ids["questions"]))))
    names = list(ids["questions"])
    back = {list(ids["uid"])[int(who)]: [(names[int(q)], c, t) for q, c, t in of] for who, of in told(data).items()}
    assert back == planted(students)
    assert f"no {IDS}: identifiers are pyKT's indices" in data.notes


def test_the_fold_for_validation_is_a_setting(tmp_path: Path) -> None:
    students = classroom(2)
    folder = pykt(tmp_path / "k", students)
    data = load(str(folder), {"pykt": {"fold": 2}})
    assert data.parts is not None
    folds = folds_of(students)
    assert [folds[who] for who, part in zip(data.students, data.parts, strict=True) if part == 1] == [
        2 for fold in folds.values() if fold == 2
    ]
    with pytest.raises(DataError, match=r"no student is in the fold of validation: 7; the folds are 0, 1, 2"):
        load(str(folder), {"pykt": {"fold": 7}})


def test_folds_without_test_students_are_no_split(tmp_path: Path) -> None:
    data = read(keeping(pykt(tmp_path / "k", classroom(2)), IDS, "train_valid_sequences_quelevel.csv"))
    assert data.parts is None
    assert any("no file with test students" in note for note in data.notes)


def test_no_times_and_names_with_replaced_signs(tmp_path: Path) -> None:
    text = "u1,3\nProb####1----x@@@@y,b,b\nadd####two_c,c,c\n1,0,1\nNA\nNA\n(u2,),1\nb\nc\n0\nNA\nNA\n"
    (tmp_path / "data.txt").write_text(text)
    data = read(tmp_path)
    assert data.students == ("u1", "u2")
    assert data.question_names == {"Prob####1----x@@@@y": "Prob_1----x,y"}
    assert data.concept_names == {"add####two": "add_two"}
    assert edges(data) == {("Prob####1----x@@@@y", "add####two"), ("Prob####1----x@@@@y", "c"), ("b", "c")}
    assert data.interactions is not None
    assert data.interactions.timestamp is None


def test_students_with_an_underscore_are_read_from_the_question_level(tmp_path: Path) -> None:
    """pyKT's question level numbers the pieces of ``stu_7``, so its concept level can't be matched."""
    students = {f"stu_{i}": of for i, of in enumerate(classroom(4).values())}
    folder = pykt(tmp_path / "k", students)
    pieces: dict[str, int] = {}
    whole = indices(students)["uid"]
    made = ["_".join(str(pieces.setdefault(piece, len(pieces))) for piece in who.split("_")) for who in whole]
    ids = {**indices(students), "uid": pieces}
    (folder / IDS).write_text(json.dumps(ids))
    for file in folder.glob("*_quelevel.csv"):
        file.write_text(re.sub(r"(?m)^(-?\d+),(\d+),", lambda m: f"{m[1]},{made[int(m[2])]},", file.read_text()))
    data = read(folder)
    assert told(data) == planted(students)
    assert data.parts is not None
    assert any("have other indices there" in note for note in data.notes)


def test_other_concepts_in_other_attempts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("u1,3\na,a,b\nx,x_y,y\n1,0,1\n5000,4000,6000\nNA\n")
    data = read(tmp_path)
    assert edges(data) == {("a", "x"), ("a", "y"), ("b", "y")}
    assert "1 question with other concepts in other attempts: an edge to each of them" in data.notes
    assert [(q, t) for q, _, t in told(data)["u1"]] == [("a", 5000), ("a", 4000), ("b", 6000)], "pyKT's order is kept"
    assert "1 response earlier than the one before: left in the order of the files" in data.notes


# --------------------------------------------------------------------------------------------------- bad input


def test_a_set_at_concept_level_only_is_refused_with_that_reason(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.txt").write_text("u1,3\nNA\nx,y,x\n1,0,1\nNA\nNA\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train_valid_sequences.csv").write_text('fold,uid,concepts,responses\n0,0,"1,2","0,1"\n')
    for name in "ab":
        assert DATASETS["pykt"].recognises(tmp_path / name)
        with pytest.raises(
            DataError, match="a set at concept level only: its responses name concepts, but no questions"
        ):
            read(tmp_path / name)


GOOD = "u1,3\na,b,a\nx,y,x\n1,0,1\nNA\nNA\nu2,3\nb,b,a\ny,y,x\n1,1,1\nNA\nNA\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1,1,1\nNA\nNA\n", "1,1,1\nNA\n", "data.txt, row 7: the last student has 5 of 6 lines"),
        ("1,1,1", "1,2,1", "data.txt, row 10, column responses: response is neither 0 nor 1: '2'"),
        ("y,y,x", "y,y", "data.txt, row 9, column concepts: 2 concepts for 3 responses"),
        ("y,y,x", "NA", "data.txt, row 9, column concepts: no concepts"),
        ("y,y,x", "y,y_,x", "data.txt, row 9, column concepts: blank identifier: 'y_'"),
        ("b,b,a", "b,,a", "data.txt, row 8, column questions: blank identifier"),
        ("u2,3", "u1,3", "data.txt, row 7: a student listed twice: 'u1'"),
        ("u2,3", "u2", "data.txt, row 7: not a student and a number: 'u2'"),
        ("1,1,1\nNA\n", "1,1,1\n1,x,3\n", "data.txt, row 11, column timestamps: not a time: 'x'"),
    ],
)
def test_a_data_txt_that_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert GOOD.count(old) == 1
    (tmp_path / "data.txt").write_text(GOOD.replace(old, new))
    with pytest.raises(DataError, match=re.escape(said)):
        read(tmp_path)


HEAD = "fold,uid,questions,concepts,responses,selectmasks,is_repeat\n"
LINE = '0,0,"3,3,4,-1","1,2,1,-1","1,1,0,-1","1,1,1,-1","0,1,0,-1"\n'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"1,1,0,-1"', '"1,1,0"', "row 2, column questions: 4 questions for 3 responses"),
        ('"3,3,4,-1"', '"3,3,-1,-1"', "row 2, column questions: padding inside a sequence: '-1'"),
        ('"1,1,0,-1"', '"1,1,5,-1"', "row 2, column responses: response is neither 0 nor 1: '5'"),
        ('"1,1,1,-1"', '"1,1,0,-1"', "row 2, column selectmasks: a mask is 1 or -1: '0'"),
        ('"1,1,1,-1"', '"-1,-1,-1,-1"', "column selectmasks: no response that counts in any row"),
        ('"0,1,0,-1"', '"1,1,0,-1"', "column is_repeat: a repeated row without the row that it repeats"),
        ('"0,1,0,-1"', '"0,1,x,-1"', "column is_repeat: is_repeat is 0 or 1: 'x'"),
        ('"0,1,0,-1"', '"0,1,1,-1"', "column is_repeat: a repeated row without the row that it repeats"),
        ("0,0,", "x,0,", "row 2, column fold: not a fold: 'x'"),
        (LINE, LINE + LINE.replace("0,0,", "1,0,"), "row 3, column fold: a student in two folds"),
    ],
)
def test_a_sequence_file_that_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert LINE.count(old) >= 1
    (tmp_path / "train_valid_sequences.csv").write_text(HEAD + LINE.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(said)):
        read(tmp_path)


def change(file: Path, pattern: str, new: str) -> None:
    text, n = re.subn(pattern, new, file.read_text(), count=1)
    assert n == 1
    file.write_text(text)


LONG = r"(?m)^(long,50\n"  # the student "long" of data.txt, whom the sequence files tell as before
CSV = "train_valid_sequences_quelevel.csv"


@pytest.mark.parametrize(
    ("file", "pattern", "new", "said"),
    [
        (WHOLE, LONG + r")\w+,", r"\1q24,", "the questions differ from those of another file at response 1"),
        (WHOLE, LONG + r".*\n.*\n)1,1", r"\g<1>0,1", "the responses differ from those of another file at response 1"),
        (WHOLE, LONG + r".*\n)(\w+),", r"\1c0_c1_c2_c3,", "the concepts differ from those of another file"),
        (WHOLE, LONG + r".*\n.*\n.*\n)0,", r"\g<1>1,", "the timestamps differ from those of another file"),
        (WHOLE, r"(?m)^long,50\n(.*\n){5}", "", "1 student of the sequence files not in it: 'long'"),
        (IDS, r'"q\d+": 3,', "", "the indices are not 0 to"),
        (IDS, r'"uid"', '"who"', "column uid: no indices of this kind"),
        (CSV, r'(?m)^0,(\d+),"\d+', r'0,\1,"999', "an index of questions that keyid2idx.json"),
        (CSV, r"(?m)^0,(\d+)(,.*\n)", r"1,\1\2", "a student in two folds"),
    ],
)
def test_files_that_disagree(file: str, pattern: str, new: str, said: str, tmp_path: Path) -> None:
    folder = pykt(tmp_path / "k", classroom(5))
    change(folder / file, pattern, new)
    with pytest.raises(DataError, match=re.escape(said)):
        read(folder)


@pytest.mark.parametrize(("new", "fix"), [("q99", "one run"), ("q_99", "pyKT cuts identifiers at '_'")])
def test_a_question_without_an_index(new: str, fix: str, tmp_path: Path) -> None:
    folder = keeping(pykt(tmp_path / "k", classroom(5)), WHOLE, IDS)
    change(folder / WHOLE, r"(?m)^(u1,\d+\n)q\d+,", rf"\g<1>{new},")
    with pytest.raises(
        DataError, match=rf"column questions: an identifier of data.txt without an index: '{new}'.*{fix}"
    ):
        read(folder)


def test_pieces_of_questions(tmp_path: Path) -> None:
    folder = pykt(tmp_path / "k", classroom(5))
    change(folder / "test_sequences_quelevel.csv", r'(?m)^-1,(\d+),"(\d+)', r'-1,\1,"\2_0')
    with pytest.raises(
        DataError, match=r"pieces of an identifier instead of a question: '\d+_0'; pyKT cuts identifiers"
    ):
        read(folder)


def test_an_uncut_file_that_lacks_responses_is_an_error(tmp_path: Path) -> None:
    students = classroom(5)
    folder = pykt(tmp_path / "k", students)
    (folder / "data.txt").write_text(six_lines({**students, "long": students["long"][:-7]}))
    with pytest.raises(
        DataError, match="fewer responses of student long than another file, though the file has no windows"
    ):
        read(folder)


def test_test_files_that_are_missing_beside_data_txt(tmp_path: Path) -> None:
    folder = pykt(tmp_path / "k", classroom(5))
    keeping(folder, WHOLE, IDS, "test_sequences.csv")
    with pytest.raises(DataError, match=r"\d+ students in none of the files with folds.*put both train_valid and test"):
        read(folder)


# ------------------------------------------------------------------------------------------------- a real folder


def real() -> Path:
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / "pykt_assist2009_sample").exists():
        pytest.skip("needs the real data set pykt_assist2009_sample under $QCQ_DATA")
    return Path(root) / "pykt_assist2009_sample"


def test_the_real_folder_against_its_data_txt_read_naively() -> None:
    path = real()
    lines = (path / "data.txt").read_text().splitlines()
    blocks = [lines[i : i + 6] for i in range(0, len(lines), 6)]
    naive = {
        b[0].split(",")[0]: list(zip(b[1].split(","), b[2].split(","), b[3].split(","), strict=True)) for b in blocks
    }
    data = read(path)
    assert data.interactions is not None
    got: dict[str, list[tuple[str, int]]] = {}
    for s, q, c in zip(data.interactions.student, data.interactions.question, data.interactions.correct, strict=True):
        got.setdefault(data.students[s], []).append((data.questions[q], int(c)))
    assert got == {who: [(q, int(c)) for q, _, c in of] for who, of in naive.items() if len(of) >= LEAST}
    assert edges(data) == {
        (q, c) for of in naive.values() if len(of) >= LEAST for q, cs, _ in of for c in cs.split("_")
    }
    ids = json.loads((path / IDS).read_text())
    assert (list(data.questions), list(data.concepts), list(data.students)) == tuple(
        list(ids[kind]) for kind in ("questions", "concepts", "uid")
    )
    assert [DATASETS["pykt"].recognises(path), DATASETS["pebg"].recognises(path)] == [True, False]
    assert data.parts is not None
    assert np.bincount(data.parts).tolist() == [9, 3, 2]


@pytest.mark.parametrize("level", ["", "_quelevel"])
def test_one_level_of_the_real_folder_gives_the_same_as_all_of_it(level: str, tmp_path: Path) -> None:
    path = real()
    for name in (IDS, *(f"{name}{level}.csv" for name in WINDOWS)):
        shutil.copy(path / name, tmp_path / name)
    whole, one = read(path), read(tmp_path)
    assert whole.interactions is not None
    assert one.interactions is not None
    for name in ("student", "question", "correct"):
        assert np.array_equal(getattr(whole.interactions, name), getattr(one.interactions, name))
    assert (whole.q_matrix != one.q_matrix).nnz == 0
    assert whole.parts is not None
    assert np.array_equal(whole.parts, one.parts)


# ------------------------------------------------------------------------------------------------------ XES3G5M


def xes(folder: Path, seed: int = 0) -> tuple[Path, dict[str, list[Attempt]]]:
    """A folder as it is published: numbers for identifiers, question and concept level, metadata."""
    raw = classroom(seed)
    ids = indices(raw)
    students = {
        str(ids["uid"][who]): [
            (str(ids["questions"][q]), tuple(str(ids["concepts"][c]) for c in cs), a, t) for q, cs, a, t in of
        ]
        for who, of in raw.items()
        if len(of) >= LEAST
    }
    for name, by_concept in (("question_level", False), ("kc_level", True)):
        (folder / name).mkdir(parents=True)
        sequence_files(folder / name, raw, folds_of(raw), by_concept)
    keeping(
        folder / "question_level",
        *(f"{n}_quelevel.csv" for n in ("train_valid_sequences", "test", "test_window_sequences")),
    )
    keeping(folder / "kc_level", "train_valid_sequences.csv", "test.csv")
    (folder / "kc_level" / "test_question_window_sequences.csv").write_text("fold,uid,responses\n")
    n = len(ids["concepts"])
    # concept i stands under n (even) or n + 1 (odd), and those under n + 2
    texts = {str(i): f"知识{i}" for i in range(n)} | {str(n): "偶", str(n + 1): "奇", str(n + 2): "数学"}
    concepts = {q: cs for of in students.values() for q, cs, *_ in of}
    routes = {
        q: ["----".join([texts[str(n + 2)], texts[str(n + int(c) % 2)], texts[c]]) for c in cs]
        for q, cs in concepts.items()
    }
    routes["777"] = ["数学----偶----知识0"]  # nobody has answered it
    meta = {
        q: {"content": f"question {q}, ____ = ?", "kc_routes": r, "answer": ["1"], "options": None, "type": "填空"}
        for q, r in routes.items()
    }
    (folder / "metadata").mkdir()
    (folder / "metadata" / "questions.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    (folder / "metadata" / "kc_routes_map.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    return folder, students


def test_xes3g5m_made(tmp_path: Path) -> None:
    folder, students = xes(tmp_path / "XES3G5M", 7)
    data = read(folder)
    assert data.notes[0] == "recognised as xes3g5m"
    found = told(data)
    assert set(found) == set(students)
    folds = list(folds_of(classroom(7)).values())  # by number of the student
    for who, of in students.items():
        kept = len(of) if folds[int(who)] == -1 else max(surviving(of, True), surviving(of, False))
        assert found[who] == [(q, a, t) for q, _, a, t in of][:kept]
    assert edges(data) == {(q, c) for of in students.values() for q, cs, *_ in of for c in cs} | {("777", "0")}
    assert list(data.questions) == sorted(data.questions, key=int)
    assert list(data.concepts) == sorted(data.concepts, key=int)
    n = len(data.concepts)
    assert data.parents == {str(i): str(n + i % 2) for i in range(n)} | {str(n): str(n + 2), str(n + 1): str(n + 2)}
    assert data.question_names["3"] == "question 3, ____ = ?"
    assert (data.concept_names["0"], data.concept_names[str(n + 2)]) == ("知识0", "数学")
    assert data.parts is not None
    assert data.parts.tolist() == [{-1: 2, 0: 1}.get(fold, 0) for fold in folds]
    assert "1 question without a response: concepts from the ends of the routes" in data.notes
    assert not any("differ" in note or "other concepts" in note for note in data.notes)


def test_xes3g5m_is_recognised_by_one_reader(tmp_path: Path) -> None:
    folder, _ = xes(tmp_path / "x")
    assert [name for name, kind in DATASETS.items() if kind.recognises(folder)] == ["xes3g5m"]
    assert [name for name, kind in DATASETS.items() if kind.recognises(folder / "question_level")] == ["pykt"]
    assert [name for name, kind in DATASETS.items() if kind.recognises(pykt(tmp_path / "k", classroom()))] == ["pykt"]


def test_xes3g5m_without_responses_is_a_graph(tmp_path: Path) -> None:
    folder, students = xes(tmp_path / "x")
    for name in ("question_level", "kc_level"):
        shutil.rmtree(folder / name)
    data = read(folder)
    assert data.interactions is None
    assert edges(data) == {(q, c) for of in students.values() for q, cs, *_ in of for c in cs} | {("777", "0")}


def test_xes3g5m_parents_of_concepts_with_several(tmp_path: Path) -> None:
    folder, _ = xes(tmp_path / "x")
    for name in ("question_level", "kc_level"):
        shutil.rmtree(folder / name)
    routes = {
        "0": ["a----b----c", "b----a"],  # b under a on two routes, a under b on one: the circle is left out
        "1": ["a----b", "d----c"],
        "2": ["d----c", "e----nowhere----c"],
    }
    meta = {q: {"content": None, "kc_routes": r} for q, r in routes.items()}
    (folder / "metadata" / "questions.json").write_text(json.dumps(meta))
    texts = {"1": "a ", "2": "b", "3": "c", "4": "d", "5": "e"}
    (folder / "metadata" / "kc_routes_map.json").write_text(json.dumps(texts))
    data = read(folder)
    assert data.parents == {"2": "1", "3": "4"}
    assert "1 concept under several others: the parent in most questions counts" in data.notes
    assert "1 parent left out that would close a circle" in data.notes
    assert any(
        note.startswith("1 name on the routes that metadata/kc_routes_map.json doesn't have") for note in data.notes
    )
    assert not data.question_names


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("questions.json", '{"0": {"content": "?"}}', "questions.json, column 0: no list kc_routes"),
        ("questions.json", '{"0": ["a"]}', "questions.json, column 0: no list kc_routes"),
        ("questions.json", "{}", "no questions in it"),
        ("kc_routes_map.json", '{"0": ""}', "kc_routes_map.json, column 0: not the name of a concept"),
        ("kc_routes_map.json", "{}", "no concepts in it"),
    ],
)
def test_xes3g5m_metadata_that_is_wrong(name: str, text: str, said: str, tmp_path: Path) -> None:
    folder, _ = xes(tmp_path / "x")
    (folder / "metadata" / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(said)):
        read(folder)


def test_xes3g5m_levels_that_disagree(tmp_path: Path) -> None:
    folder, _ = xes(tmp_path / "x")
    change(folder / "kc_level" / "test.csv", r'(?m)^(-1,\d+,"\d+(?:,\d+)*","\d+(?:,\d+)*",")1', r"\g<1>0")
    with pytest.raises(DataError, match=r"test.csv.*(responses differ|a repeated row without)"):
        read(folder)


# ------------------------------------------------------------------------------------------------------- edmine

EDMINE = "user_id,seq_len;question_seq,correctness_seq,time_seq\n4\n3\n0,2,1\n1,0,1\n5,7,9\n7\n1\n2,0,0\n1,0,0\n3,0,0\n"
MAPS = {"question": {"a": 0, "b": 1, "c": 2}, "concept": {"y": 1, "x": 0}, "user": {"ann": 4, "bob": 7}}


def edmine(folder: Path, text: str = EDMINE, maps: dict[str, dict[str, int]] = MAPS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.txt").write_text(text)
    np.save(folder / "Q_table.npy", np.array([[1, 0], [0, 1], [1, 1]]))
    for kind, ids in maps.items():
        rows = "".join(f"{original},{mapped}\n" for original, mapped in ids.items())
        (folder / f"{kind}_id_map.csv").write_text("original_id,mapped_id\n" + rows)
    return folder


def test_edmine_made(tmp_path: Path) -> None:
    data = read(edmine(tmp_path))
    assert data.notes[0] == "recognised as edmine"
    assert edges(data) == {("a", "x"), ("b", "y"), ("c", "x"), ("c", "y")}
    want = {"ann": [("a", 1, 5000), ("c", 0, 7000), ("b", 1, 9000)], "bob": [("c", 1, 3000)]}  # padding undone
    assert told(data) == want
    bare = read(edmine(tmp_path / "bare", EDMINE.replace("5,7,9", "5,7,1300000000000"), {}))
    assert (bare.questions, bare.students) == (("0", "1", "2"), ("4", "7"))
    assert "no user_id_map.csv: identifiers of users are edmine's indices" in bare.notes
    assert any(note.startswith("times read as milliseconds") for note in bare.notes)
    assert told(bare)["4"][-1] == ("1", 1, 1_300_000_000_000)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0,2,1", "0,3,1", "row 4, column question_seq: a question that Q_table.npy doesn't have: '3'"),
        ("1,0,1", "1,2,1", "row 5, column correctness_seq: neither 0 nor 1: '2'"),
        ("0,2,1", "0,2", "row 4, column question_seq: 2 entries for 3 responses"),
        ("5,7,9", "5,x,9", "row 6, column time_seq: not a list of numbers"),
        ("\n7\n1\n", "\n4\n1\n", "row 7, column user_id: a student listed twice: '4'"),
        ("\n7\n1\n", "\n8\n1\n", "user_id_map.csv, column mapped_id: a user without an identifier: '8'"),
        ("\n7\n1\n", "\n7\n-\n", "row 8, column seq_len: not a length: '-'"),
        ("3,0,0\n", "", "row 7: the last student has 4 of 5 lines"),
        ("correctness_seq", "answer_seq", "row 1, column correctness_seq: a line of each student isn't named"),
    ],
)
def test_edmine_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert EDMINE.count(old) == 1
    with pytest.raises(DataError, match=re.escape(said)):
        load(f"edmine:{edmine(tmp_path, EDMINE.replace(old, new))}")


def test_edmine_q_tables_that_are_wrong(tmp_path: Path) -> None:
    folder = edmine(tmp_path)
    np.save(folder / "Q_table.npy", np.array([[2, 0]]))
    with pytest.raises(DataError, match="not a matrix of 0 and 1"):
        read(folder)
    (folder / "Q_table.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="not an array saved by numpy"):
        read(folder)
    (folder / "Q_table.npy").unlink()
    with pytest.raises(DataError, match="no Q-matrix"):
        read(folder)
