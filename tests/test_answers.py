"""Answers to new questions: numbers by their formulas, rows by what stands beside them, and whose are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy

from qcq import cli
from qcq.data import Dataset, Simulated, read
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, DataError
from qcq.evaluation.tracing.features import NUMBERS
from qcq.graph import KnowledgeGraph
from qcq.models.answers import HALFWAY, Answers, drawn
from qcq.recipes import add, embed

ROOM = Simulated(questions=120, concepts=8, students=120, responses=60).read()
SEEN = ROOM.interactions
assert SEEN is not None
SPLIT = ROOM.split(0)
AWAY = np.arange(7, 120, 12)
NUMBERED = ("difficulty", "popularity", "rasch")


def part(rows: np.ndarray, answers: bool) -> Dataset:
    """Some questions of the classroom, with the answers to them."""
    place = np.full(120, -1)
    place[rows] = np.arange(len(rows))
    assert SEEN is not None
    kept = SEEN.where(place[SEEN.question] >= 0)
    seen = replace(kept, question=place[kept.question].astype(np.int32))
    matrix = scipy.sparse.csr_array(ROOM.q_matrix[rows])
    names = [ROOM.questions[i] for i in rows]
    students = {"interactions": seen, "students": ROOM.students, "parts": PARTS} if answers else {}
    return Dataset("part", names, ROOM.concepts, matrix, **students)  # type: ignore[arg-type]


PARTS = np.zeros(120, dtype=np.int8)
for number, each in enumerate((SPLIT.train, SPLIT.validation, SPLIT.test)):
    PARTS[each.students] = number
BANK, NEW = part(np.setdiff1d(np.arange(120), AWAY), True), part(AWAY, False)
TRAIN = SPLIT.train.interactions
ON_NEW = TRAIN.where(np.isin(TRAIN.question, AWAY))
FRAME = pl.DataFrame(
    {
        "student": [ROOM.students[i] for i in TRAIN.student],
        "question": [ROOM.questions[i] for i in TRAIN.question],
        "correct": TRAIN.correct,
    }
)
TABLE = embed(BANK, "tracing", dim=8, numbers=NUMBERED)


def test_numbers_of_new_questions_are_those_that_old_ones_would_have() -> None:
    """Difficulty and popularity by their formulas; rasch as a fit with the questions among the others gives it."""
    made = add(TABLE, None, NEW, FRAME).embeddings
    graph = KnowledgeGraph.from_dataset(ROOM)
    n = np.bincount(ON_NEW.question, minlength=120)[AWAY]
    assert (n >= 5).all()
    found = made.vectors[-len(AWAY) :, -3:]
    assert found[:, 1] == pytest.approx(np.log1p(n), rel=1e-6)
    share = 1 - BANK.split(0).train.interactions.correct.mean()
    right = np.bincount(ON_NEW.question, ON_NEW.correct, 120)[AWAY]
    assert found[:, 0] == pytest.approx(np.log((n - right + 4 * share) / (right + 4 * (1 - share))), rel=1e-5)
    whole = NUMBERS["rasch"](TRAIN, graph)[AWAY]
    assert np.corrcoef(found[:, 2], whole)[0, 1] > 0.97
    assert np.abs(found[:, 2] - whole).mean() < 0.2


def test_without_answers_numbers_are_those_of_a_question_nobody_answered() -> None:
    made = add(TABLE, None, NEW).embeddings.vectors[-len(AWAY) :, -3:]
    share = 1 - BANK.split(0).train.interactions.correct.mean()
    assert made == pytest.approx(np.tile([np.log(share / (1 - share)), 0, 0], (len(AWAY), 1)), rel=1e-5)


def test_what_a_trainer_can_not_use_is_said() -> None:
    table = embed(BANK, "concepts", dim=8)
    made = add(table, None, NEW, FRAME)
    assert made.notes == ("netmf on qcq: walks read no answers, so they change nothing",)
    assert made.embeddings.vectors.tobytes() == add(table, None, NEW).embeddings.vectors.tobytes()
    assert "has no model" in " ".join(add(replace(table, model=None), BANK, NEW, FRAME).notes)
    alone = FRAME.filter(pl.col("question").is_in([ROOM.questions[int(i)] for i in AWAY]))
    rows = TABLE.infer({ROOM.questions[7]: []}, responses=alone.filter(pl.col("question") == ROOM.questions[7]))
    assert "no answer to an old question comes directly before or after" in " ".join(rows.provenance["answers"])


def test_rows_move_to_what_stands_beside_them() -> None:
    """By hand: three students ask n after a, and one asks b after n."""
    old, new = ["a", "b", "c"], ["n", "m"]
    rows = np.eye(3)
    frame = {
        "student": ["s", "s", "t", "t", "u", "u", "u"],
        "question": ["a", "n", "a", "n", "a", "n", "b"],
        "correct": [1, 0, 1, 1, 1, 0, 0],
    }
    answers = Answers.read(frame, new, old, None)
    made = np.zeros((2, 3))
    found, changed = drawn(answers, made, rows)
    assert changed == 1
    assert found[0] == pytest.approx(3 / (3 + HALFWAY) * np.array([3 / 4, 1 / 4, 0]))
    assert not found[1].any()


@pytest.mark.parametrize(
    "choice", [("metapath", "ppmi-svd"), pytest.param(("session", "sgns"), marks=pytest.mark.slow)]
)
def test_a_walk_over_answers_places_a_new_question_by_them(choice: tuple[str, str]) -> None:
    """Every student asks a new question right after one and the same old one, so it comes nearer to that one."""
    walk, trainer = choice
    table = embed(BANK, walk=walk, trainer=trainer, dim=8, sections={"metapath": {"pattern": "q-q"}})
    target = BANK.questions[50]
    names = [ROOM.students[i] for i in SPLIT.train.students]
    frame = pl.DataFrame(
        {
            "student": [s for s in names for _ in range(2)],
            "question": [target, "new"] * len(names),
            "correct": [1] * 2 * len(names),
        }
    )
    concepts = {"new": [ROOM.concepts[0], ROOM.concepts[5]]}
    before, after = table.infer(concepts), table.infer(concepts, responses=frame)

    def cosine(row: np.ndarray) -> float:
        own = table[target]
        return float(row @ own / np.linalg.norm(row) / np.linalg.norm(own))

    assert cosine(after["new"]) > cosine(before["new"])
    assert cosine(after["new"]) > 0.9


def test_only_training_students_may_answer() -> None:
    for other in (SPLIT.test, SPLIT.validation):
        name = ROOM.students[other.students[0]]
        frame = {"student": [name, ROOM.students[SPLIT.train.students[0]]], "question": ["n", "n"], "correct": [0, 1]}
        for table in (TABLE, embed(BANK, "concepts", dim=4)):
            with pytest.raises(DataError, match="answers of 1 student outside the training part") as said:
                table.infer({"n": [ROOM.concepts[0]]}, responses=frame)
            assert name in str(said.value)
    everybody = embed(BANK, "tracing", dim=4, students="all")
    assert everybody.infer({"n": [ROOM.concepts[0]]}, responses=frame).provenance["answers"]
    stranger = {"student": ["never seen"], "question": ["n"], "correct": [0]}
    assert TABLE.infer({"n": [ROOM.concepts[0]]}, responses=stranger)["n"][-2] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"student": ["s"], "question": ["nowhere"], "correct": [1]}, "1 question neither new nor in the table"),
        ({"student": ["s"], "question": ["n"], "correct": [7]}, "correct"),
        ({"student": ["s"], "question": [BANK.questions[0]], "correct": [1]}, "no answer to a new question"),
        ({"student": ["s"], "question": ["n"]}, "missing column"),
        ({"student": [], "question": [], "correct": []}, "no rows"),
        ({"student": ["s", "t"], "question": ["n"], "correct": [1]}, "columns that make no table"),
        ({"student": ["s"], "question": ["n"], "correct": [1], "time": [5]}, "time: .* rename it to timestamp"),
        ({"user_id": ["s"], "uid": ["s"], "question": ["n"], "correct": [1]}, "2 columns that may be student"),
    ],
)
def test_answers_that_can_not_be_read_are_one_line(columns: dict[str, list], said: str) -> None:
    with pytest.raises(DataError, match=said) as found:
        TABLE.infer({"n": [ROOM.concepts[0]]}, responses=columns)
    assert len(str(found.value).splitlines()) == 1


def test_times_give_the_order() -> None:
    frame = {"student": ["s"] * 3, "question": ["n", "b", "a"], "correct": [1, 1, 1], "timestamp": [3.0, 1.0, 2.0]}
    answers = Answers.read(frame, ["n"], ["a", "b"], None)
    assert answers.beside(1, 2).toarray().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("kind", ["file", "polars", "pandas", "columns"])
def test_answers_have_the_headings_and_names_of_a_bank(kind: str, tmp_path: Path) -> None:
    cells = {"user_id": ["s", "s", "s"], "item_id": [" n", "b", "a "], "is_correct": [1, 1, 1], "datetime": [3, 1, 2]}
    source: object = cells
    if kind == "file":
        pl.DataFrame(cells).write_csv(source := tmp_path / "answers.csv")
    elif kind != "columns":
        source = pl.DataFrame(cells) if kind == "polars" else pytest.importorskip("pandas").DataFrame(cells)
    answers = Answers.read(source, ["n"], ["a", "b"], None)
    assert answers.beside(1, 2).toarray().tolist() == [[1.0, 0.0]]
    said = " ".join(answers.notes)
    assert "column 'user_id' read as student" in said
    assert "2 cells of question read without the space around the name" in said
    assert "sorted by time" in said
    made = TABLE.infer({"n": []}, responses={"uid": ["s"], "question": ["n"], "correct": [1]})
    assert "column 'uid' read as student" in made.provenance["answers"][0]


def test_space_around_a_name_hides_no_student_of_another_part() -> None:
    frame = {"student": [f" {ROOM.students[SPLIT.test.students[0]]}"], "question": ["n"], "correct": [0]}
    with pytest.raises(DataError, match="outside the training part"):
        TABLE.infer({"n": []}, responses=frame)


def test_a_model_holds_no_names_of_students(tmp_path: Path) -> None:
    data = replace(BANK, students=[f"pupil-{i:03d}" for i in range(120)])
    table = embed(data, "tracing", dim=4, numbers=("rasch",))
    folder = table.save_model(table.save(tmp_path / "v.safetensors"))
    assert folder is not None
    assert all(b"pupil-" not in file.read_bytes() for file in folder.iterdir())
    loaded = Embeddings.load(tmp_path / "v.safetensors")
    name = f"pupil-{SPLIT.test.students[0]:03d}"
    with pytest.raises(DataError, match="outside the training part"):
        loaded.infer({"n": []}, responses={"student": [name], "question": ["n"], "correct": [1]})


def test_answers_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*args: object) -> int:
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    file = TABLE.save(tmp_path / "v.safetensors")
    TABLE.save_model(file)
    rows = [(q, NEW.concepts[c]) for i, q in enumerate(NEW.questions) for c in NEW.q_matrix[[i]].indices]
    (tmp_path / "new.csv").write_text("question,concept\n" + "".join(f"{q},{c}\n" for q, c in rows))
    FRAME.write_csv(tmp_path / "answers.csv")
    command = ["add", "--to", file, "--questions", tmp_path / "new.csv", "--responses", tmp_path / "answers.csv"]
    assert call(*command, "--out", tmp_path / "more.safetensors") == 0
    assert "rasch: from" in capsys.readouterr().err
    made = Embeddings.load(tmp_path / "more.safetensors")
    assert made.vectors.tobytes() == add(TABLE, None, NEW, FRAME).embeddings.aligned(made.ids).vectors.tobytes()
    assert made.vectors[: len(TABLE)].tobytes() == TABLE.vectors.tobytes()
    one = FRAME.with_columns(pl.lit(ROOM.students[SPLIT.test.students[0]]).alias("student"))
    one.write_csv(tmp_path / "answers.csv")
    assert call(*command, "--out", tmp_path / "bad.safetensors") == 2
    text = capsys.readouterr().err
    assert "outside the training part" in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_concept_that_the_bank_does_not_have_is_a_warning() -> None:
    table = embed(read([("q1", "halves"), ("q2", "thirds"), ("q3", "thirds")]), "concepts", dim=2)
    with pytest.warns(UserWarning, match=r"doubtful: 'new' has an unknown concept 'third'; did you mean thirds\?"):
        table.infer({"new": ["third", "halves"]})


def test_a_table_of_another_recipe_is_no_start_and_its_students_stay_in_the_count(tmp_path) -> None:
    room = Simulated(questions=40, concepts=5, students=30, responses=10).read()
    followed = embed(room, "tracing", dim=8).save(tmp_path / "followed.safetensors")
    with pytest.raises(ConfigError, match="sgns can't start from a table of the recipe tracing; start from a table of"):
        embed(room, trainer="sgns", dim=8, start=followed)
    first = embed(room, trainer="sgns", walk="metapath", dim=8)
    assert first.provenance["students"] > 0
    later = embed(room, trainer="sgns", dim=8, start=first.save(tmp_path / "first.safetensors"))
    assert later.provenance["students"] == first.provenance["students"]
