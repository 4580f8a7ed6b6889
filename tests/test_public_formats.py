"""Public logs, each from a fixture in exactly its published layout: what was planted in it comes back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qcq.data import DATASETS, Dataset, load, read
from qcq.errors import DataError


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


def times_of(data: Dataset) -> list[float]:
    assert data.interactions is not None
    assert data.interactions.timestamp is not None
    return data.interactions.timestamp.tolist()


def write(folder: Path, **files: str) -> Path:
    """Files of a folder; ``__`` in a name is a slash, and a dot stands before the ending after the last ``_``."""
    for name, text in files.items():
        stem, _, ending = name.replace("__", "/").rpartition("_")
        file = folder / f"{stem}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    return folder


def lines(heading: str, *rows: str, between: str = ",") -> str:
    names = heading.split(",")
    for row in rows:
        assert len(row.split("|")) == len(names), row
    return "".join(between.join(cells) + "\n" for cells in [names, *(row.split("|") for row in rows)])


# ---------------------------------------------------------------------------------------------------- ASSISTments

A2012 = (
    "problem_log_id,skill,problem_id,user_id,assignment_id,assistment_id,start_time,end_time,problem_type,original,"
    "correct,bottom_hint,hint_count,actions,attempt_count,ms_first_response,tutor_mode,sequence_id,student_class_id,"
    "position,type,base_sequence_id,skill_id,teacher_id,school_id,overlap_time,template_id,answer_id,answer_text,"
    "first_action,problemlogid,Average_confidence(FRUSTRATED),Average_confidence(CONFUSED),"
    "Average_confidence(CONCENTRATING),Average_confidence(BORED)"
)


def row2012(log: int, user: str, problem: str, time: str, correct: str, skill: str = "", original: int = 1) -> str:
    called = {"277": "Mode", "280": "Médiane"}.get(skill, "")
    return (
        f"{log}|{called}|{problem}|{user}|9|8|{time}|2012-09-28 15:11:45|algebra|{original}|{correct}|0|0|...|1|21231|"
        f"tutor|7014|7|1|MasterySection|7014|{skill}|4|3|21231|5|||0|{log}|0|0|0.8|0.1"
    )


def test_assistments_2012_is_sorted_by_time_and_part_marks_are_left_out(tmp_path: Path) -> None:
    text = lines(
        A2012,
        row2012(4, "u1", "p2", "2012-09-28 15:11:24.5", "1", "277"),
        row2012(5, "u1", "p2", "2012-09-28 15:11:24.5", "1", "280"),  # the same attempt, written once a skill
        row2012(6, "u1", "p1", "2012-09-28 15:11:24", "0", "277.0"),
        row2012(7, "u2", "p3", "2012-10-01 08:00:00", "0.25", "280"),
        row2012(8, "u2", "p4", "2012-10-01 08:00:01", "1", "", 0),
        row2012(9, "u2", "p4", "2012-10-01 08:00:07", "0", "", 0),
        row2012(10, "u2", "p1", "", "0", "277"),
    )
    file = tmp_path / "2012-2013-data-with-predictions-4-final.csv"
    file.write_bytes(text.encode("latin-1"))
    data = read(tmp_path)
    assert data.notes[0] == "recognised as assistments"
    assert edges_of(data) == {("p1", "277"), ("p2", "277"), ("p2", "280"), ("p3", "280")}
    assert answers_of(data) == [("u1", "p1", 0), ("u1", "p2", 1), ("u2", "p4", 1), ("u2", "p4", 0)]
    assert np.diff(times_of(data))[0] == pytest.approx(0.5)
    assert data.concept_names == {"277": "Mode", "280": "Médiane"}
    for note in (
        "the release of 2012-2013, sorted by start_time",
        "read as latin-1: the file is not UTF-8",
        "1 of 7 answers are part marks, as 0.25: neither right nor wrong, left out",
        "1 row without a time, left out",
        "merged 1 repeated row: the same student, question and time, the first counts",
        "2 rows without a skill: kept as attempts, no edge",
        "2 rows of scaffolding (original is 0), kept",
        "1 of 4 responses are to the question just before: further attempts, kept",
        "1 question without a concept: isolated in the graph",
    ):
        assert note in data.notes, note
    assert any("1 of 5 rows were not in its order" in note or "1 of 4 rows" in note for note in data.notes)


A2017 = (
    "studentId,MiddleSchoolId,InferredGender,SY ASSISTments Usage,AveKnow,action_num,skill,problemId,problemType,"
    "assignmentId,assistmentId,startTime,endTime,timeTaken,correct,original,hint,MCAS,Enrolled,Selective,isSTEM"
)


def row2017(action: int, student: int, skill: str, problem: int, time: int, correct: int) -> str:
    return (
        f"{student}|2|Male|2004-2005|0.35|{action}|{skill}|{problem}|noprobtype|20405010|104051120|{time}|{time + 6}|6|"
        f"{correct}|1|0|45|0|0|NA"
    )


def test_assistments_2017_keeps_every_action(tmp_path: Path) -> None:
    text = lines(
        A2017,
        row2017(9952, 8, "sum-of-angles", 1120, 1096470360, 1),
        row2017(9951, 8, "sum-of-angles", 1120, 1096470354, 0),
        row2017(9953, 8, "noskill", 1121, 1096470378, 1),
        row2017(9954, 35, "area_of-circle", 1120, 1096470378, 1),
    )
    data = read(write(tmp_path, anonymized_full_release_competition_dataset_csv=text))
    # a skill's name is taken as it is written: only the ids of 2009 are joined by an underscore
    assert edges_of(data) == {("1120", "sum-of-angles"), ("1120", "area_of-circle")}
    assert answers_of(data) == [("8", "1120", 0), ("8", "1120", 1), ("8", "1121", 1), ("35", "1120", 1)]
    assert times_of(data) == [1096470354, 1096470360, 1096470378, 1096470378]
    assert "1 of 4 responses are to the question just before: further attempts, kept" in data.notes
    assert "1 row without a skill: kept as attempts, no edge" in data.notes


def test_assistments_2015_is_refused_because_it_has_no_problems(tmp_path: Path) -> None:
    text = "user_id,log_id,sequence_id,correct\n50121,167478035,7014,0.0\n50121,167478043,7014,1.0\n"
    folder = write(tmp_path, **{"2015_100_skill_builders_main_problems_csv": text})
    assert [name for name, kind in DATASETS.items() if kind.needs_path and kind.recognises(folder)] == ["assistments"]
    with pytest.raises(
        DataError, match=r"column sequence_id: ASSISTments 2015 has concepts only.*; take the release of"
    ):
        read(folder)


# -------------------------------------------------------------------------------------------------------- DataShop

KDD = (
    "Row,Anon Student Id,Problem Hierarchy,Problem Name,Problem View,Step Name,Step Start Time,First Transaction Time,"
    "Correct Transaction Time,Step End Time,Step Duration (sec),Correct Step Duration (sec),Error Step Duration (sec),"
    "Correct First Attempt,Incorrects,Hints,Corrects,KC(Default),Opportunity(Default)"
)


def step(row: int, student: str, problem: str, name: str, time: str, right: str, kc: str = "", view: int = 1) -> str:
    end = f"{time}|{time}|{time}|92|||{right}|2|0|1" if time else "|||||||||"
    opportunity = "~~".join("1" for _ in kc.split("~~")) if kc else ""
    return f"{row}|{student}|Unit CTA1_01, Section 1|{problem}|{view}|{name}|{time}|{end}|{kc}|{opportunity}"


STEPS = (
    step(1, "JG4Tz", "LDEMO_WKST", "R1C1", "2006-10-26 09:52:30.0", "0"),
    step(2, "JG4Tz", "LDEMO_WKST", "R2C1", "2006-10-26 09:53:46.0", "1", "Identifying units"),
    step(3, "JG4Tz", "LDEMO_WKST", "R1C2", "2006-10-26 09:53:41.0", "1", "Identifying units~~Entering a given"),
    step(4, "JG4Tz", "LDEMO_WKST", "R1C2", "2006-10-26 09:53:41.0", "1", "Identifying units~~Entering a given"),
    step(5, "JG4Tz", "LDEMO_WKST", "R2C1", "2006-10-26 09:59:00.0", "0", "Identifying units", 2),
    step(6, "abc12", "REAL20B", "R1C1 ", "2006-10-26 09:59:00.0", "1", "Using small numbers"),
    step(7, "abc12", "LDEMO_WKST", 'a "quoted" step', "2006-10-26 09:59:00.0", "0", "Entering a given"),
)


def kdd(folder: Path, *rows: str, name: str = "algebra_2006_2007_train", heading: str = KDD) -> Path:
    return write(folder, **{f"{name}_txt": lines(heading, *rows, between="\t")})


def test_kddcup_made(tmp_path: Path) -> None:
    data = read(kdd(tmp_path, *STEPS))
    assert data.notes[0] == "recognised as kddcup"
    assert edges_of(data) == {
        ("LDEMO_WKST----R2C1", "Identifying units"),
        ("LDEMO_WKST----R1C2", "Identifying units"),
        ("LDEMO_WKST----R1C2", "Entering a given"),
        ("REAL20B----R1C1", "Using small numbers"),
        ('LDEMO_WKST----a "quoted" step', "Entering a given"),
    }
    assert answers_of(data) == [
        ("JG4Tz", "LDEMO_WKST----R1C1", 0),
        ("JG4Tz", "LDEMO_WKST----R1C2", 1),
        ("JG4Tz", "LDEMO_WKST----R2C1", 1),
        ("JG4Tz", "LDEMO_WKST----R2C1", 0),
        ("abc12", "REAL20B----R1C1", 1),
        ("abc12", 'LDEMO_WKST----a "quoted" step', 0),
    ]
    assert np.diff(times_of(data)[:3]).tolist() == [71, 5]
    for note in (
        "1 question with several skills in a cell, as 'Identifying units~~Entering a given': one edge each",
        "merged 1 repeated row: the same student, question and time, the first counts",
        "1 row without a skill: kept as attempts, no edge",
        "1 row with space around a problem or a step, taken off",
        "1 of 6 responses are to the question just before: further attempts, kept",
    ):
        assert note in data.notes, note
    assert any(note.endswith("1 of 6 rows have the time of the row before: in the file's order") for note in data.notes)


def test_kddcup_reads_the_training_file_and_the_first_model_of_skills(tmp_path: Path) -> None:
    heading = KDD.replace("KC(Default),Opportunity(Default)", "KC(KTracedSkills),Opportunity(KTracedSkills)")
    heading += ",KC(SubSkills),Opportunity(SubSkills)"
    rows = [row + "|Enter given|1" for row in STEPS]
    kdd(tmp_path, *rows, name="bridge_to_algebra_2008_2009_train", heading=heading)
    test = [step(8, "abc12", "REAL20B", "R9C1", "", "", "Using small numbers") + "|Enter given|1"]
    kdd(tmp_path, *test, name="bridge_to_algebra_2008_2009_test", heading=heading)
    data = read(tmp_path)
    assert set(data.concepts) == {"Enter given"}
    assert "REAL20B----R9C1" not in data.questions
    assert "concepts are from KC(SubSkills); KC(KTracedSkills) not read" in data.notes
    assert any("left bridge_to_algebra_2008_2009_test.txt unread" in note for note in data.notes)
    with pytest.raises(
        DataError, match=r"no row has an answer: this is a test file; take the file that ends in _train\.txt"
    ):
        read(tmp_path / "bridge_to_algebra_2008_2009_test.txt")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [step(1, "s", "P", "a", "yesterday", "1", "k")],
            "row 2, column First Transaction Time: not a time: 'yesterday'",
        ),
        (
            [step(1, "s", "P", "a", "2006-10-26 09:52:30.0", "right", "k")],
            "row 2, column Correct First Attempt: an answer",
        ),
        ([step(1, "s", "P", "a", "2006-10-26 09:52:30.0", "1")], "column KC(Default): no row has a skill"),
        ([step(1, "", "P", "a", "2006-10-26 09:52:30.0", "1", "k")], "row 2, column Anon Student Id: blank identifier"),
        (["1|s"], "row 2: ragged row: 2 fields"),
    ],
)
def test_kddcup_wrong(rows: list[str], said: str, tmp_path: Path) -> None:
    names = KDD.split(",")
    text = "".join("\t".join(cells) + "\n" for cells in [names, *(row.split("|") for row in rows)])
    with pytest.raises(DataError, match=re.escape(said)):
        read(write(tmp_path, algebra_2005_2006_train_txt=text))


@pytest.mark.parametrize("seed", range(5))
def test_kddcup_against_its_rows_read_naively(seed: int, tmp_path: Path) -> None:
    """Random rows in a random order, some written twice, some without a skill: an independent reading agrees."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(120):
        student, problem, name, minute = (int(rng.integers(n)) for n in (4, 3, 5, 30))
        kc = "~~".join(f"k{k}" for k in sorted(rng.choice(6, rng.integers(3), replace=False)))
        made.append(
            (f"s{student}", f"P{problem}", f"R{name}", f"2006-10-26 09:{minute:02}:00.0", int(rng.integers(2)), kc)
        )
    made += [made[i] for i in rng.integers(0, 120, 10)]
    rows = [step(i, s, p, n, time, str(right), kc) for i, (s, p, n, time, right, kc) in enumerate(made)]
    data = read(kdd(tmp_path, *rows))
    assert edges_of(data) == {(f"{p}----{n}", k) for _, p, n, _, _, kc in made for k in kc.split("~~") if k}
    first: dict[tuple[str, str, str], tuple[str, str, int]] = {}
    for s, p, n, time, right, _ in made:
        first.setdefault((s, f"{p}----{n}", time), (time, f"{p}----{n}", right))
    for who in {row[0] for row in made}:
        expected = sorted((value for key, value in first.items() if key[0] == who), key=lambda value: value[0])
        assert [(q, c) for s, q, c in answers_of(data) if s == who] == [(q, c) for _, q, c in expected]
    assert len(answers_of(data)) == len(first)


def test_kddcup_with_two_training_files_asks_for_one(tmp_path: Path) -> None:
    kdd(kdd(tmp_path, *STEPS), *STEPS, name="algebra_2005_2006_train")
    with pytest.raises(DataError, match=r"several logs of steps: 'algebra_2005_2006_train.txt, algebra_2006"):
        read(tmp_path)
    assert len(read(tmp_path / "algebra_2005_2006_train.txt").students) == 2


OLI = (
    "Row,Sample,Anon Student Id,Problem Hierarchy,Problem Name,Problem View,Step Name,Step Start Time,"
    "First Transaction Time,Correct Transaction Time,Step End Time,Step Duration (sec),Correct Step Duration (sec),"
    "Error Step Duration (sec),First Attempt,Incorrects,Hints,Corrects,Condition,KC (F2011),Opportunity (F2011),"
    "Predicted Error Rate (F2011),KC (Single-KC)"
)


def oli(row: int, student: str, name: str, time: str, outcome: str, kc: str, view: int = 1) -> str:
    return (
        f'{row}|All Data|{student}|"sequence Statics, unit Forces"|_m2_assess|{view}|{name}|{time}|{time}|{time}|{time}'
        f"|23.13|23.13|.|{outcome}|0|0|1|.|{kc}|1|0.39|Single-KC"
    )


@pytest.mark.parametrize(
    ("ending", "between", "clock"), [("csv", ",", "2011/9/21 {}"), ("txt", "\t", "2011-09-21 {}:00")]
)
def test_statics_made(ending: str, between: str, clock: str, tmp_path: Path) -> None:
    rows = (
        oli(1, "Stu_b", "q1_point1i1 UpdateComboBox", clock.format("17:35"), "correct", "identify_interaction"),
        oli(2, "Stu_b", "q1_point3i3 UpdateComboBox", clock.format("17:35"), "hint", "gravitational_forces"),
        oli(3, "Stu_b", "q1_point3i3 UpdateComboBox", clock.format("17:35"), "incorrect", "gravitational_forces", 2),
        oli(4, "Stu_b", "q0 UpdateNumberField", clock.format("17:02"), "correct", "identify_interaction~~couple"),
        oli(5, "Stu_c", "q2 UpdateHotspot", clock.format("18:00"), "incorrect", "."),
        oli(6, "Stu_c", "q2 UpdateHotspot", clock.format("18:00"), "correct", ".", 2),  # seen again within the minute
        oli(7, "Stu_c", "q2 UpdateHotspot", clock.format("18:00"), "correct", ".", 2),
    )
    folder = write(tmp_path, **{f"AllData_student_step_2011F_{ending}": lines(OLI, *rows, between=between)})
    data = read(folder)
    assert data.notes[0] == "recognised as statics"
    one, two, zero = (
        f"_m2_assess----{name}"
        for name in ("q1_point1i1 UpdateComboBox", "q1_point3i3 UpdateComboBox", "q0 UpdateNumberField")
    )
    assert edges_of(data) == {
        (one, "identify_interaction"),
        (two, "gravitational_forces"),
        (zero, "identify_interaction"),
        (zero, "couple"),
    }
    assert answers_of(data) == [
        ("Stu_b", zero, 1),
        ("Stu_b", one, 1),
        ("Stu_b", two, 0),
        ("Stu_c", "_m2_assess----q2 UpdateHotspot", 0),
        ("Stu_c", "_m2_assess----q2 UpdateHotspot", 1),
    ]
    assert "1 of 7 first attempts are hints: no answer, neither right nor wrong" in data.notes
    assert "1 row without an answer, left out" in data.notes
    assert "3 rows without a skill: kept as attempts, no edge" in data.notes
    assert "merged 1 repeated row: the same student, question and time, the first counts" in data.notes


def test_statics_refuses_an_unknown_outcome(tmp_path: Path) -> None:
    row = oli(1, "Stu_b", "q1 UpdateComboBox", "2011/9/21 17:35", "perhaps", "couple")
    folder = write(tmp_path, AllData_student_step_2011F_csv=lines(OLI, row))
    with pytest.raises(DataError, match="row 2, column First Attempt: an unknown outcome: 'perhaps'; it is correct"):
        read(folder)


# ----------------------------------------------------------------------------------------------------------- Junyi

EXERCISES = (
    "name,live,prerequisites,h_position,v_position,creation_date,seconds_per_fast_problem,pretty_display_name,"
    "short_display_name,topic,area"
)
PROBLEMS = (
    "user_id,exercise,problem_type,problem_number,topic_mode,suggested,review_mode,time_done,time_taken,"
    "time_taken_attempts,correct,count_attempts,hint_used,count_hints,hint_time_taken_list,earned_proficiency,"
    "points_earned"
)


def exercise(name: str, before: str, topic: str, area: str) -> str:
    return f"{name}|True|{before}|40|-20|2012-10-11 17:55:24.8056 UTC|13.0|圓與弧 {name}|圓與弧|{topic}|{area}"


def problem(user: int, name: str, time: int, correct: str, number: int = 1) -> str:
    return f"{user}|{name}|0|{number}|False|True|False|{time}|4|3&1|{correct}|2|False|0||False|0"


def junyi(folder: Path) -> Path:
    table = lines(
        EXERCISES,
        exercise("adding_1", "", "addition", "arithmetic"),
        exercise("adding_2", "adding_1", "addition", "arithmetic"),
        exercise("area_1", '"adding_2,multiplying_1"', "area", "geometry"),
        exercise("multiplying_1", "adding_1", "multiplication", "arithmetic"),
        exercise("adding_3", "multiplying_1", "addition", "arithmetic"),
        exercise("loose", "gone", "", "null"),
        exercise("adding_1", "", "other", "geometry"),
        exercise("proof", "", "logics", "logics"),
    )
    log = lines(
        PROBLEMS,
        problem(7, "area_1", 1420714810324490, "True"),
        problem(7, "adding_1", 1403098400836660, "false", 1),
        problem(7, "adding_1", 1403098400836660, "True", 2),
        problem(0, "new_one", 1403098400836660, "True"),
    )
    return write(folder, junyi_Exercise_table_csv=table, junyi_ProblemLog_original_csv=log)


def test_junyi_2015_made(tmp_path: Path) -> None:
    data = read(junyi(tmp_path))
    assert data.notes[0] == "recognised as junyi"
    assert edges_of(data) == {
        ("adding_1", "addition"),
        ("adding_2", "addition"),
        ("adding_3", "addition"),
        ("area_1", "area"),
        ("multiplying_1", "multiplication"),
        ("proof", "logics"),
    }
    assert data.parents == {
        "addition": "arithmetic",
        "multiplication": "arithmetic",
        "area": "geometry",
        "logics": "logics (area)",
    }
    # addition and multiplication are each before the other; within a topic there is nothing to keep
    assert set(data.prerequisites) == {("addition", "area"), ("multiplication", "area")}
    assert answers_of(data) == [("7", "adding_1", 0), ("7", "adding_1", 1), ("7", "area_1", 1), ("0", "new_one", 1)]
    assert times_of(data)[0] == pytest.approx(1403098400.83666)
    assert data.question_names["area_1"] == "圓與弧 area_1"
    for note in (
        "1 row of an exercise listed before: the first row counts",
        "6 prerequisites between exercises: 2 between their topics",
        "2 prerequisites between topics left out: each of the two is before the other",
        "1 prerequisite that no row describes, left out",
        "1 exercise of the log that junyi_Exercise_table.csv lacks, kept without a concept",
        "2 questions without a concept: isolated in the graph",
    ):
        assert note in data.notes, note


def test_junyi_2015_without_its_log_is_a_graph(tmp_path: Path) -> None:
    (junyi(tmp_path) / "junyi_ProblemLog_original.csv").unlink()
    data = read(tmp_path)
    assert data.interactions is None
    assert "no junyi_ProblemLog_original.csv: a graph without responses" in data.notes


CONTENT = (
    "ucid,content_pretty_name,content_kind,difficulty,subject,learning_stage,level1_id,level2_id,level3_id,level4_id"
)
ATTEMPTS = (
    "timestamp_TW,uuid,ucid,upid,problem_number,exercise_problem_repeat_session,is_correct,total_sec_taken,"
    "total_attempt_cnt,used_hint_cnt,is_hint_used,is_downgrade,is_upgrade,level"
)


def attempt(time: str, user: str, content: str, number: int, correct: str) -> str:
    return f"2019-05-01 {time}:00 UTC|{user}|{content}|p{number}|{number}|1|{correct}|12|1|0|False||False|0"


def kaggle(folder: Path, *rows: str) -> Path:
    content = lines(
        CONTENT,
        "c1|加法|Exercise|normal|math|elementary|L1|L2|L3|L4a",
        "c2|減法|Exercise|easy|math|elementary|L1|L2|L3|L4a",
        "c3|面積|Exercise|hard|math|junior|L1|L2|L3b|L4b",
    )
    rows = rows or (
        attempt("21:15", "b", "c1", 2, "True"),
        attempt("21:00", "a", "c2", 1, "True"),
        attempt("21:00", "a", "c1", 2, "False"),
        attempt("21:00", "a", "c1", 1, "True"),
        attempt("20:45", "a", "c3", 1, "False"),
    )
    return write(folder, Info_Content_csv=content, Log_Problem_csv=lines(ATTEMPTS, *rows))


def test_junyi_2019_made(tmp_path: Path) -> None:
    data = read(kaggle(tmp_path))
    assert data.notes[0] == "recognised as junyi"
    assert edges_of(data) == {("c1", "L4a"), ("c2", "L4a"), ("c3", "L4b")}
    assert data.parents == {"L4a": "L3", "L4b": "L3b", "L3": "L2", "L3b": "L2", "L2": "L1"}
    given: dict[str, list[tuple[str, int]]] = {}
    for who, what, right in answers_of(data):
        given.setdefault(who, []).append((what, right))
    assert given == {"a": [("c3", 0), ("c1", 1), ("c1", 0), ("c2", 1)], "b": [("c1", 1)]}
    assert sorted(set(np.diff(times_of(data)))) == [0, 900]
    assert any(
        note.startswith("2 of 5 responses have the time of the one before (times are rounded") for note in data.notes
    )
    assert data.question_names["c1"] == "加法"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            attempt("21:00", "a", "c1", 1, "1.5"),
            "Log_Problem.csv, row 2, column is_correct: neither true nor false: '1.5'",
        ),
        ("soon|a|c1|p|1|1|True|1|1|0|False|||0", "Log_Problem.csv, row 2, column timestamp_TW: not a time: 'soon'"),
        (attempt("21:00", "a", "", 1, "True"), "Log_Problem.csv, row 2, column ucid: blank identifier"),
    ],
)
def test_junyi_wrong(row: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        read(kaggle(tmp_path, row))


def test_two_releases_of_junyi_in_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two releases in one folder"):
        read(junyi(kaggle(tmp_path)))


# ------------------------------------------------------------------------------------------------------------ Eedi

SUBJECTS = (
    "SubjectId,Name,ParentId,Level\n3,Maths,NULL,0\n32,Number,3,1\n144,Basic,32,2\n33,BIDMAS,144,3\n34,Bounds,144,3\n"
)


def neurips(folder: Path, tasks: str = "1_2", at: str = "", **changes: str) -> Path:
    files = {
        f"metadata__question_metadata_task_{tasks}_csv": "QuestionId,SubjectId\n"
        '0,"[3, 32, 144, 33]"\n1,"[3, 32, 144, 34]"\n2,"[3, 32, 144, 33, 34]"\n3,"[3, 32]"\n',
        "metadata__subject_metadata_csv": SUBJECTS,
        f"metadata__answer_metadata_task_{tasks}_csv": "AnswerId,DateAnswered,Confidence,GroupId,QuizId,SchemeOfWorkId"
        "\n10.0,2020-01-14 12:10:00.000,,115,57,\n11.0,2020-01-14 12:09:00.000,75,115,57,\n"
        "12.0,2020-01-14 12:10:00.000,,115,57,\n14.0,,,115,57,\n11.0,2020-01-14 12:59:00.000,,115,57,\n"
        ",2020-01-14 12:59:00.000,,115,57,\n",
        f"train_data__train_task_{tasks}_csv": "QuestionId,UserId,AnswerId,IsCorrect,CorrectAnswer,AnswerValue\n"
        "0,7,10,1,2,2\n2,7,11,0,1,3\n1,7,12,1,4,4\n3,8,10,0,1,2\n1,9,14,1,4,4\n2,9,99,1,4,4\n",
    }
    return write(folder, **{name: changes.get(name, text) for name, text in files.items()})


@pytest.mark.parametrize("flat", [False, True])
def test_eedi_tasks_made(flat: bool, tmp_path: Path) -> None:
    folder = neurips(tmp_path / "e")
    if flat:
        for file in list(folder.rglob("*.csv")):
            file.rename(folder / file.name)
    data = read(folder)
    assert data.notes[0] == "recognised as eedi"
    assert edges_of(data) == {("0", "33"), ("1", "34"), ("2", "33"), ("2", "34"), ("3", "32")}
    assert data.parents == {"33": "144", "34": "144", "144": "32", "32": "3"}
    assert data.concept_names["33"] == "BIDMAS"
    assert data.concept_names["3"] == "Maths"
    assert answers_of(data) == [("7", "2", 0), ("7", "0", 1), ("7", "1", 1), ("8", "3", 0)]
    assert np.diff(times_of(data)[:3]).tolist() == [60, 0]
    assert data.interactions is not None
    assert data.interactions.ordered
    assert "2 answers without a date, left out" in data.notes
    assert "2 dates of no answer, or of one that has a date already, left out" in data.notes
    assert any(note.endswith("1 of 4 rows have the time of the row before: in the file's order") for note in data.notes)


def test_eedi_asks_which_tasks(tmp_path: Path) -> None:
    folder = neurips(neurips(tmp_path), "3_4")
    with pytest.raises(DataError, match=r"two pairs of tasks.*--set eedi.tasks=1_2, or 3_4"):
        read(folder)
    data = load(str(folder), {"eedi": {"tasks": "3_4"}})
    assert any(note.startswith("tasks 3 and 4: kept 3 subjects at the leaves") for note in data.notes)
    with pytest.raises(
        DataError, match=r"question_metadata_task_3_4.csv: no questions of these tasks; set eedi.tasks=1_2"
    ):
        load(str(neurips(tmp_path / "one")), {"eedi": {"tasks": "3_4"}})


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metadata__subject_metadata_csv", None, "subject_metadata.csv: no table of subjects; take it from"),
        (
            "metadata__subject_metadata_csv",
            "SubjectId,Name,ParentId,Level\n3,Maths,33,0\n33,BIDMAS,3,1\n",
            "subjects in a circle: ['3', '33', '3']",
        ),
        ("metadata__subject_metadata_csv", "SubjectId,Name,ParentId,Level\n3,Maths,NULL,0\n", "an unknown subject: '3"),
        ("metadata__answer_metadata_task_1_2_csv", None, "no dates of the answers; take answer_metadata_task_1_2.csv"),
        (
            "metadata__answer_metadata_task_1_2_csv",
            "AnswerId,DateAnswered\n77,2020-01-14 12:10:00.000\n",
            "no answer has a date",
        ),
        (
            "metadata__question_metadata_task_1_2_csv",
            "QuestionId,SubjectId\n0,3\n",
            "row 2, column SubjectId: not a list",
        ),
        (
            "train_data__train_task_1_2_csv",
            "QuestionId,UserId,AnswerId,IsCorrect\n55,7,10,1\n",
            "train_task_1_2.csv, row 2, column QuestionId: unknown question: '55'",
        ),
    ],
)
def test_eedi_tasks_wrong(file: str, text: str | None, said: str, tmp_path: Path) -> None:
    folder = neurips(tmp_path, **({} if text is None else {file: text}))
    if text is None:
        stem, _, ending = file.replace("__", "/").rpartition("_")
        (folder / f"{stem}.{ending}").unlink()
    with pytest.raises(DataError, match=re.escape(said)):
        read(folder)


# ------------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda folder: write(folder, a_csv=lines(A2017, row2017(1, 8, "x", 1, 5, 1))), "assistments"),
        (lambda folder: kdd(folder, *STEPS), "kddcup"),
        (
            lambda folder: write(folder, a_csv=lines(OLI, oli(1, "s", "q", "2011/9/21 17:35", "correct", "k"))),
            "statics",
        ),
        (junyi, "junyi"),
        (kaggle, "junyi"),
        (neurips, "eedi"),
    ],
)
def test_a_folder_is_recognised_by_one_reader_only(make, name: str, tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert [each for each, kind in DATASETS.items() if kind.needs_path and kind.recognises(folder)] == [name]
