"""embed, add, similar: from a bank to vectors, new questions and alike ones, on a classroom with planted answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcq import cli, read
from qcq.data import Dataset, Simulated
from qcq.embeddings import Embeddings
from qcq.errors import ArgumentError, ConfigError, DataError, EmbeddingError, UnknownNameError
from qcq.evaluation.tracing.features import NUMBERS
from qcq.graph import KnowledgeGraph
from qcq.models.inference import InferenceModel
from qcq.recipes import RECIPES, add, default_recipe, embed, shrunk
from qcq.report.diff import difference, reasons
from qcq.report.similar import similar
from qcq.run import Run

ROOM = Simulated(questions=120, concepts=8, students=80, responses=25).read()
TRAIN = ROOM.split(0).train
KNOWN = np.flatnonzero(TRAIN.counts >= 10)  # questions whose difficulty is worth something
AT = int(KNOWN[np.argsort(TRAIN.difficulty[KNOWN])[len(KNOWN) // 2]])  # one of middling difficulty
Q = ROOM.questions[AT]


def call(*args: object) -> int:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def concepts_of(data: Dataset, question: int) -> set[int]:
    w = data.q_matrix
    return set(w.indices[w.indptr[question] : w.indptr[question + 1]].tolist())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "room"
    room = [f"--set=simulated.{k}={v}" for k, v in (("questions", 120), ("concepts", 8), ("students", 80))]
    quick = ["--trainers", "sgns,svd,random", "--seeds", "1", "--tasks", "edges,retrieval", "--quiet"]
    assert call("run", *room, *quick, "--set", "simulated.responses=25", "--out", folder) == 0
    return Run(folder)


# ------------------------------------------------------------------------------------------------------------ embed


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_puts_questions_on_the_same_concepts_together(recipe: str) -> None:
    emb = embed(ROOM, recipe, dim=16)
    assert emb.ids == ROOM.questions
    assert emb.provenance["recipe"] == recipe
    shared = [
        np.mean([bool(concepts_of(ROOM, i) & concepts_of(ROOM, emb.index[q])) for q, _ in emb.nearest(emb.ids[i], 5)])
        for i in range(0, 120, 10)
    ]
    assert np.mean(shared) > 0.9


def test_the_same_recipe_and_seed_give_the_same_bytes() -> None:
    one, two, other = (embed(ROOM, "similar", dim=8, seed=seed) for seed in (0, 0, 1))
    assert one.vectors.tobytes() == two.vectors.tobytes() != other.vectors.tobytes()


def test_only_training_students_are_read_unless_others_are_asked_for() -> None:
    """The answers of other students are turned round: the table changes only where they may be read."""
    split = ROOM.split(0)
    assert ROOM.interactions is not None
    flipped = ROOM.interactions.correct.copy()
    away = ~np.isin(ROOM.interactions.student, split.train.students)
    flipped[away] = 1 - flipped[away]
    turned = replace(ROOM, interactions=replace(ROOM.interactions, correct=flipped))
    kwargs = {"recipe": "tracing", "dim": 8, "numbers": ("difficulty", "rasch")}
    one, two = embed(ROOM, **kwargs), embed(turned, **kwargs)  # type: ignore[arg-type]
    assert np.array_equal(one.vectors, two.vectors)
    assert one.provenance["students"] == len(split.train.students)
    everybody = embed(turned, **kwargs, students="all")  # type: ignore[arg-type]
    assert everybody.provenance["students"] == 80
    assert not np.array_equal(everybody.vectors, one.vectors)
    named = [ROOM.students[i] for i in split.train.students]
    assert np.array_equal(embed(ROOM, **kwargs, students=named).vectors, one.vectors)  # type: ignore[arg-type]


def test_numbers_are_columns_that_nearest_does_not_use() -> None:
    plain, both = embed(ROOM, "concepts", dim=8), embed(ROOM, "concepts", dim=8, numbers=("difficulty", "popularity"))
    assert both.columns[-2:] == ["difficulty", "popularity"]
    train, graph = ROOM.split(0).train, KnowledgeGraph.from_dataset(ROOM)
    wanted = NUMBERS["difficulty"](train.interactions, graph)
    assert both.vectors[:, -2] == pytest.approx(wanted, rel=1e-6)
    assert both.nearest("q3", 5) == plain.nearest("q3", 5)
    assert both.provenance["students"] == len(train.students)


def test_shrinking_is_its_formula() -> None:
    train, graph = ROOM.split(0).train, KnowledgeGraph.from_dataset(ROOM)
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    made = shrunk(x, graph, train)
    for q in (0, 7):
        means = []
        for c in concepts_of(ROOM, q):
            asked = [i for i in range(120) if c in concepts_of(ROOM, i)]
            n = train.counts[asked]
            means.append((n[:, None] * x[asked]).sum(axis=0) / n.sum())
        centre, n = np.mean(means, axis=0), train.counts[q]
        assert made[q] == pytest.approx(centre + n / (n + 30) * (x[q] - centre), abs=1e-5)


def test_a_walk_and_trainer_instead_of_a_recipe() -> None:
    emb = embed(ROOM, walk="node2vec", trainer="svd", dim=4)
    assert emb.provenance["walk"]["name"] == "node2vec"
    assert emb.provenance["trainer"]["dim"] == 4
    assert "recipe" not in emb.provenance


BARE = read([("q1", "a"), ("q2", "a"), ("q3", "b")])
FEW = replace(ROOM, interactions=ROOM.interactions.where(np.arange(len(ROOM.interactions)) < 1))  # type: ignore[union-attr, arg-type]
ERRORS = {
    "folds of nothing": (
        lambda: embed(ROOM, "concepts", fold=(1, 2)),
        ConfigError,
        "reads no answers, so it is the same",
    ),
    "students of nothing": (lambda: embed(ROOM, "similar", students="all"), ConfigError, "reads no answers"),
    "both": (lambda: embed(ROOM, "concepts", trainer="svd"), ConfigError, "give one or the other"),
    "no such recipe": (lambda: embed(ROOM, "concept"), UnknownNameError, "did you mean concepts"),
    "no such number": (lambda: embed(ROOM, numbers=["dificulty"]), UnknownNameError, "did you mean difficulty"),
    "no answers": (lambda: embed(BARE, "tracing"), ConfigError, "the recipe tracing needs answers"),
    "no answers for numbers": (lambda: embed(BARE, numbers=["rasch"]), ConfigError, "rasch needs answers"),
    "no such student": (
        lambda: embed(ROOM, students=["s1", "nobody"]),
        DataError,
        "1 of 2 students aren't in the data",
    ),
    "the letters of a student": (lambda: embed(ROOM, "tracing", students="s1"), ArgumentError, r"a list: \['s1'\]"),
    "one student as a number": (
        lambda: embed(ROOM, students=1),  # type: ignore[arg-type]
        ArgumentError,
        "students takes a list, given int 1",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_can_not_be_embedded_is_said(case: str) -> None:
    make, kind, said = ERRORS[case]
    with pytest.raises(kind, match=said):
        make()


def test_too_few_answers_for_the_default_get_the_recipe_without() -> None:
    assert embed(FEW, dim=4).provenance["recipe"] == "concepts"


ONCE = "student,question,concept,correct\n" + "".join(f"s{i},q{i % 8},c{i % 3},{i % 2}\n" for i in range(40))


def test_an_answer_a_student_gives_the_recipe_without_a_sequence_and_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bank := tmp_path / "one.csv").write_text(ONCE)
    assert call("embed", "--data", bank, "--out", tmp_path / "v.parquet", "--dim", 4) == 0
    said = capsys.readouterr().err
    assert "recipe concepts instead of tracing: no student answered two questions" in said
    assert call("embed", "--data", bank, "--out", tmp_path / "w.parquet", "--recipe", "tracing") == 2
    said = capsys.readouterr().err
    assert "from question to question, and no student answered two questions; take the recipe concepts" in said
    assert "metapath" not in said


def test_answers_without_an_order_are_no_sequence() -> None:
    assert ROOM.interactions is not None
    loose = replace(ROOM, interactions=replace(ROOM.interactions, ordered=False))
    assert default_recipe(loose) == ("concepts", "the answers have no order")
    assert default_recipe(FEW) == ("concepts", "only 1 answer to 120 questions")
    assert default_recipe(BARE) == ("concepts", "")
    assert default_recipe(ROOM) == ("tracing", "")
    with pytest.raises(ConfigError, match="and the answers have no order; take the recipe concepts"):
        embed(loose, "tracing", dim=4)


@pytest.mark.parametrize("more", [(), ("--with", "rasch")])
def test_questions_that_nothing_sets_apart_are_said_to_be_so(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bank := tmp_path / "one.csv").write_text(ONCE)
    assert call("embed", "--data", bank, "--out", tmp_path / "v.parquet", "--recipe", "concepts", *more) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "all questions have the same concepts, so walks can't tell them apart" in said
    assert "nothing is known" not in said


def test_vectors_of_zeros_have_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bank := tmp_path / "bank.csv").write_text("question,concepts\nq1,a\nq2,b\nq3,\nq4,a;b\nq5,a;b\n")
    assert call("embed", "--data", bank, "--out", tmp_path / "v.parquet", "--dim", 2) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 vector of zeros alone: nothing is known of these questions" in said
    assert "2 vectors of zeros alone: their concepts bring them near to no question" in said


def test_embed_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank.csv").write_text("question,concepts\n" + "".join(f"q{i},a{i % 3};b{i % 2}\n" for i in range(20)))
    out = tmp_path / "v.parquet"
    command = ["embed", "--data", tmp_path / "bank.csv", "--dim", "4", "--quiet"]
    assert call(*command, "--out", out) == 0
    assert "20 vectors of 4 dimensions, without answers of students" in capsys.readouterr().out
    assert Embeddings.load(out).dim == 4
    assert call(*command, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert call(*command, "--out", tmp_path / "v.xyz") == 2
    assert "no vectors are written as '.xyz'" in capsys.readouterr().err
    room = ["--data", "simulated", "--set", "simulated.questions=60", "--set", "simulated.students=40"]
    assert call("embed", *room, "--out", tmp_path / "f.npz", "--fold", "2", "--with", "difficulty", "--quiet") == 0
    assert {path.name for path in tmp_path.glob("f*.npz")} == {"f-fold-1.npz", "f-fold-2.npz"}
    (tmp_path / "f-fold-5.npz").write_bytes(b"")
    command = ["embed", *room, "--out", tmp_path / "f.npz", "--fold", "2", "--redo", "--with", "difficulty", "--quiet"]
    assert call(*command) == 2
    assert "f-fold-5.npz: of an output with more than 2 folds; move it away" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--recipe", "similar", "--set", "sgns.epochs=7"], "--set sgns: the recipe similar has settings of its own"),
        (
            ["--set", "walk.length=9"],
            "--set walk: a recipe has settings of its own; instead of it name walk or trainer",
        ),
        (["--trainer", "netmf", "--set", "sgns.window=3"], "only settings of walk and qcq and netmf count here"),
        (["--trainer", "svd", "--set", "walk.length=9"], "--set walk: only settings of svd count here"),
        (["--trainer", "svd", "--set", "dim=3"], "--set dim: qcq embed takes dim from --dim; give it there"),
        (["--set", "data=other.csv"], "qcq embed takes data from --data; give it there"),
        (["--set", "seeds=2"], "qcq embed has no use for seeds; leave it out"),
        (["--with", ""], "unknown number ''"),
        (["--with", "rasch,rasch"], "a number is given twice"),
    ],
)
def test_what_would_change_nothing_is_refused(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bank := tmp_path / "one.csv").write_text(ONCE)
    assert call("embed", "--data", bank, "--out", tmp_path / "v.npz", "--quiet", *more) == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [bank]


def test_settings_that_count_are_taken_and_a_walk_that_does_not_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bank := tmp_path / "bank.csv").write_text("question,concepts\nq1,a\nq2,b\nq3,a;b\n")
    given = ["--set", "qcq.keep_concepts=true", "--set", "walk.length=8", "--set", "csv.merge_repeats=true"]
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    assert call("embed", "--data", bank, "--out", one, "--dim", 2, "--trainer", "netmf", *given) == 0
    walk = Embeddings.load(one).provenance["walk"]
    assert (walk["length"], walk["keep_concepts"]) == (8, True)
    assert "changes nothing" not in capsys.readouterr().err
    assert call("embed", "--data", bank, "--out", other, "--dim", 2, "--trainer", "svd", "--walk", "node2vec") == 0
    assert "svd looks at no walks, so --walk node2vec changes nothing" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["data", "vectors.x", "walks", "trainers"])
def test_what_score_decides_itself_is_no_setting(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("score", "v.npz", "--data", "one.csv", "--set", f"{key}=svd") == 2
    assert f"--set {key.partition('.')[0]}: qcq score " in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".vec", ".txt", ".bin"])
def test_a_name_that_a_format_can_not_hold_is_said_before_anything_is_trained(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bank := tmp_path / "bank.csv").write_text("question,concepts\nitem 1,a\nitem 2,a;b\n")
    (new := tmp_path / "new.csv").write_text("question,concepts\nitem 3,a\n")
    assert call("embed", "--data", bank, "--out", tmp_path / "v.npz", "--dim", 2) == 0
    there = set(tmp_path.iterdir())
    for made in ("embed", "add"):  # neither is reached
        monkeypatch.setattr(f"qcq.recipes.{made}", None)
    capsys.readouterr()
    out = tmp_path / f"w{ending}"
    assert call("embed", "--data", bank, "--out", out, "--trainer", "sgns") == 2
    assert f"w{ending}: 'item 1' has white space in it" in capsys.readouterr().err
    assert call("add", "--to", tmp_path / "v.npz", "--questions", new, "--out", out) == 2
    assert f"w{ending}: 'item 1' has white space in it" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == there


def test_a_folder_in_the_way_of_a_model_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.npz.model").mkdir()
    (tmp_path / "v.npz.model" / "mine.txt").write_text("mine")
    (bank := tmp_path / "bank.csv").write_text("question,concepts\nq1,a\nq2,a;b\n")
    assert call("embed", "--data", bank, "--out", tmp_path / "v.npz", "--dim", 2) == 2
    assert "holds files that qcq did not make" in capsys.readouterr().err
    assert not (tmp_path / "v.npz").exists()


def test_students_that_can_not_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    room = [f"--set=simulated.{k}={v}" for k, v in (("questions", 60), ("students", 40), ("responses", 20))]
    command = ["embed", *room, "--recipe", "tracing", "--dim", "4", "--out", tmp_path / "v.npz", "--quiet"]
    for text, said in (
        (b"\n\n", "no student whose answers may be read"),
        (b"s1\nnobody\n", "1 of 2 students aren't in the data: 'nobody'"),
        (b"\xff\xfe\n", "damaged UTF-16"),
        (None, "no such file"),
    ):
        file = tmp_path / "students.txt"
        file.write_bytes(text) if text is not None else file.unlink()
        assert call(*command, "--students", file) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert len(shown.splitlines()) == 1
    assert call(*command, "--fold", "500") == 2
    assert "at most 40 folds" in capsys.readouterr().err
    assert not (tmp_path / "v.npz").exists()


# -------------------------------------------------------------------------------------------------------------- add


def test_new_questions_get_the_mean_of_their_twins_or_concepts_and_old_rows_stay() -> None:
    bank = read([("q1", "a"), ("q2", "a"), ("q3", "b"), ("q4", "b"), ("q4", "c")])
    table = Embeddings(bank.questions, np.random.default_rng(0).normal(size=(4, 5)), provenance={"seed": 0})
    new = read(
        [
            ("n1", "a"),
            ("n2", "a"),
            ("n2", "b"),
            ("n3", "unheard of"),
            ("n4", "c"),
            ("n4", "b"),
            ("n5", "b"),
            ("n5", "x"),
        ]
    )
    made = add(table, bank, new)
    emb, q = made.embeddings, table.vectors
    assert list(emb) == ["q1", "q2", "q3", "q4", "n1", "n2", "n3", "n4", "n5"]
    assert emb.vectors[:4].tobytes() == q.tobytes()
    a, b = q[:2].mean(axis=0), q[2:].mean(axis=0)
    assert emb["n1"] == pytest.approx(a)  # q1 and q2 have exactly its concepts
    assert emb["n2"] == pytest.approx((a + b) / 2)  # nobody has both
    assert emb["n3"] == pytest.approx(q.mean(axis=0))
    assert emb["n4"] == pytest.approx(q[3])  # q4 alone has both
    assert emb["n5"] == pytest.approx(b)  # x isn't known, so it has no twin
    assert (made.by_set, made.by_concepts, made.unplaced) == (2, 2, ("n3",))
    assert emb.provenance["added"]["questions"] == 5


def test_a_twin_has_the_vector_that_it_would_have_been_trained_to() -> None:
    """netmf depends on the concepts alone, so a question that is added gets the vector of its twin."""
    emb = add(embed(ROOM, "concepts", dim=8), ROOM, read([("new", ROOM.concepts[c]) for c in concepts_of(ROOM, 3)]))
    assert emb.by_set == 1
    assert emb.embeddings["new"] == pytest.approx(emb.embeddings[ROOM.questions[3]], abs=1e-6)


def test_a_held_out_question_lands_among_questions_on_its_concepts() -> None:
    coo = ROOM.q_matrix.tocoo()
    pairs = [(ROOM.questions[r], ROOM.concepts[c]) for r, c in zip(coo.row, coo.col, strict=True)]
    away = set(ROOM.questions[::10])
    bank = read([pair for pair in pairs if pair[0] not in away])
    emb = add(embed(bank, "concepts", dim=16), bank, read([pair for pair in pairs if pair[0] in away])).embeddings
    share = []
    for question in away:
        mine = concepts_of(ROOM, ROOM.questions.index(question))
        near = [concepts_of(ROOM, ROOM.questions.index(q)) for q, _ in emb.nearest(question, 5)]
        share.append(np.mean([bool(mine & each) for each in near]))
    assert np.mean(share) > 0.9


def test_what_can_not_be_added_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Embeddings(BARE.questions, np.eye(3))
    with pytest.raises(DataError, match="1 of 1 new questions are in the table already: 'q1'"):
        add(table, BARE, read([("q1", "a")]))
    with pytest.raises(EmbeddingError, match="questions have no vector"):
        add(table, read([("x", "a"), ("y", "a")]), read([("n", "a")]))
    (tmp_path / "bank.csv").write_text("question,concept\nq1,a\nq2,a\nq3,b\n")
    (tmp_path / "new.csv").write_text("question,concept\nn1,a\nn2,c\n")
    file, out = table.save(tmp_path / "v.npz"), tmp_path / "more.npz"
    command = ["add", "--to", file, "--questions", tmp_path / "new.csv", "--data", tmp_path / "bank.csv", "--out", out]
    assert call(*command) == 0
    said = capsys.readouterr()
    assert "1 new question without a concept that the bank knows: the mean of all, n2" in said.err
    assert "2 new vectors" in said.out
    assert "1 concept that the bank doesn't have, so it says nothing here: ['c']" in said.err
    assert len(Embeddings.load(out)) == 5
    (tmp_path / "new.csv").write_text("question,concept\nn1,A\n")
    assert call(*command[:-1], tmp_path / "strict.npz", "--strict") == 2
    assert "'A' may be 'a'" in capsys.readouterr().err
    assert not (tmp_path / "strict.npz").exists()
    assert call(*command) == 2
    assert "exists already" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- diff


def test_a_turn_is_undone_and_what_moved_is_found() -> None:
    """One question is planted elsewhere in a table that is else only turned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    y = x @ turn
    y[7] = -y[7]
    ids = [f"q{i}" for i in range(60)]
    found = difference(Embeddings(ids, x), Embeddings([*ids, "new"], np.vstack([y, y[:1]])))
    assert int(found.moved.argmax()) == 7
    assert np.delete(found.moved, 7).max() < 0.01 < found.before
    assert (found.only_first, found.only_second) == (0, 1)
    assert found.aligned.vectors[:7] == pytest.approx(x[:7], abs=0.1)
    assert len(found.aligned) == 61
    assert difference(Embeddings(ids, x), Embeddings(ids, x @ turn)).overlap == pytest.approx(1, abs=1e-3)


def test_numbers_are_not_turned() -> None:
    one, other = (embed(ROOM, "similar", dim=8, seed=seed, numbers=("difficulty",)) for seed in (0, 1))
    found = difference(one, other)
    assert found.moved.mean() < found.before
    assert found.aligned.vectors[:, -1].tobytes() == other.vectors[:, -1].tobytes()
    assert difference(embed(ROOM, "similar", dim=8), other).moved == pytest.approx(found.moved, abs=1e-5)


def test_tables_that_can_not_be_compared_are_said() -> None:
    a = Embeddings(["a", "b"], np.eye(2))
    with pytest.raises(EmbeddingError, match="of 2 and 3 dimensions"):
        difference(a, Embeddings(["a", "b"], np.eye(3)[:2]))
    with pytest.raises(EmbeddingError, match="1 questions are in both tables"):
        difference(a, Embeddings(["a", "c"], np.eye(2)))


def test_diff_on_the_command_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", run.path, run.path, "-k", "3", "--align", tmp_path / "b.npz") == 0
    out = capsys.readouterr().out
    assert "120 questions in both" in out
    assert "100% of the 10 nearest neighbours are the same" in out
    assert len(Embeddings.load(tmp_path / "b.npz")) == 120
    assert call("diff", run.path, tmp_path / "b.npz", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["moved_mean"] == pytest.approx(0, abs=1e-5)
    assert call("diff", run.path, run.path, "--align", tmp_path / "b.npz") == 2
    assert "exists already" in capsys.readouterr().err


def test_diff_of_another_bank_or_of_too_many_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Embeddings(["x", "y"], np.eye(2)).save(tmp_path / "other.npz")
    same = Embeddings(["y", "x"], np.eye(2)).save(tmp_path / "same.npz")
    for given, said in (
        ([run.path, other], "dimensions can't be turned onto each other"),
        ([other, Embeddings(["a", "b"], np.eye(2)).save(tmp_path / "b.npz")], "0 questions are in both tables"),
        ([other, same, "-k", "3"], "2 questions are in both tables, 3 asked for; take -k 2"),
        ([other, same, "--trainer", "svd"], "two files are given; leave it out"),
        ([other, tmp_path / "none.npz"], "no such file"),
        ([run.path, run.path, "--trainer", "sgn"], "did you mean sgns"),
    ):
        assert call("diff", *given) == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1
    assert call("diff", other, same) == 0  # by default, all there are


def test_add_to_a_table_of_another_bank_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank.csv").write_text("question,concept\nx1,a\nx2,b\n")
    (tmp_path / "new.csv").write_text("question,concept\nn1,a\n")
    file, out = Embeddings(BARE.questions, np.eye(3)).save(tmp_path / "v.npz"), tmp_path / "more.npz"
    command = ["add", "--to", file, "--questions", tmp_path / "new.csv", "--data", tmp_path / "bank.csv", "--out", out]
    assert call(*command) == 2
    text = capsys.readouterr().err
    assert "2 of 2 questions have no vector" in text
    assert len(text.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("verb", ["embed", "add"])
def test_a_table_is_there_only_if_its_model_is(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that failed between the two can be repeated: it refuses a table that is there."""
    (tmp_path / "bank.csv").write_text("question,concept\nx1,a\nx2,b\n")
    (tmp_path / "new.csv").write_text("question,concept\nn1,a\n")
    first = ["embed", "--data", tmp_path / "bank.csv", "--recipe", "concepts", "--dim", 2, "--out", tmp_path / "v.npz"]
    second = ["add", "--to", tmp_path / "v.npz", "--questions", tmp_path / "new.csv", "--out", tmp_path / "more.npz"]
    command, out = (first, "v.npz") if verb == "embed" else (second, "more.npz")
    if verb == "add":
        assert call(*first) == 0
    with monkeypatch.context() as broken:
        broken.setattr(
            InferenceModel, "save", lambda *given: (_ for _ in ()).throw(OSError(5, "Input/output error", "there"))
        )
        assert call(*command) == 2
    assert not (tmp_path / out).exists()
    assert call(*command) == 0
    assert Embeddings.load(tmp_path / out).inference() is not None


def test_what_changed_between_two_runs_is_said(tmp_path: Path) -> None:
    pages = {"old": "q1,a\nq2,a\nq3,b\nq4,b\n", "new": "q1,a\nq1,b\nq2,a\nq3,b\nq4,b\n"}
    for name, text in pages.items():
        (tmp_path / f"{name}.csv").write_text("question,concept\n" + text)
        quick = ["--trainers", "svd,random", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
        assert call("run", "--data", tmp_path / f"{name}.csv", "--out", tmp_path / name, *quick) == 0
    assert reasons(Run(tmp_path / "old"), Run(tmp_path / "new"), "q1") == "+b"
    assert reasons(Run(tmp_path / "old"), Run(tmp_path / "new"), "q2") == ""


# ---------------------------------------------------------------------------------------------------------- similar


def test_alike_questions_share_concepts_and_have_reasons(run: Run) -> None:
    data = Simulated(questions=120, concepts=8, students=80, responses=25).read()
    found = similar(run, Q, 6, data=data)
    assert run.best()[0] == "sgns"  # never a baseline, whatever its figure
    assert [each.similarity for each in found] == sorted((each.similarity for each in found), reverse=True)
    assert np.mean([bool(each.shared) for each in found]) > 0.8
    seen = data.split(0).train.interactions
    own = set(seen.student[seen.question == AT])
    for each in found:
        other = set(seen.student[seen.question == int(each.question[1:])])
        assert each.answered_both == len(own & other)


def test_filters_keep_what_they_say(run: Run) -> None:
    data = Simulated(questions=120, concepts=8, students=80, responses=25).read()
    concept = data.concepts[min(concepts_of(data, AT))]
    difficulty = data.split(0).train.difficulty
    name = data.concept_names.get(concept, concept)
    for each in similar(run, Q, 3, level="harder"):
        assert difficulty[int(each.question[1:])] > difficulty[AT]
        assert each.harder_by is not None
        assert each.harder_by > 0
    assert all(name in each.concepts for each in similar(run, Q, 3, concept=concept))
    assert not any(name in each.concepts for each in similar(run, Q, 3, not_concept=name))
    answered = set(data.interactions.question[data.interactions.student == 4])  # type: ignore[union-attr]
    for each in similar(run, Q, 20, unseen_by=data.students[4], data=data):
        assert int(each.question[1:]) not in answered


def test_harder_questions_are_harder_by_the_planted_difficulty(run: Run) -> None:
    planted = ROOM.truth["difficulty"]
    harder, easier = (
        np.mean([planted[int(each.question[1:])] for each in similar(run, Q, 12, level=level)])
        for level in ("harder", "easier")
    )
    assert easier < planted[AT] < harder


def test_ties_are_said_to_be_ties(run: Run) -> None:
    found = similar(run, Q, 30, trainer="concept-onehot" if "concept-onehot" in run.config["trainers"] else "svd")
    for each in found:
        same = [other for other in found if abs(other.similarity - each.similarity) < 1e-6]
        assert each.tied or len(same) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["q999"], "unknown question 'q999'"),
        ([Q, "-k", "120"], "119 other questions, 120 asked for; take -k 119"),
        (
            [Q, "--concept", "c0", "--not-concept", "c0"],
            "no other question with the concept c0, without the concept c0",
        ),
        ([Q, "--concept", "alchemy"], "unknown concept 'alchemy'"),
        ([Q, "--trainer", "sgn"], "did you mean sgns"),
        ([Q, "--unseen-by", "nobody"], "unknown student 'nobody'"),
        ([Q, "--easier", "--harder"], "give one of them"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    options: list[str], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("similar", run.path, *options) == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1


def test_a_file_is_no_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Embeddings(["a", "b"], np.eye(2)).save(tmp_path / "v.npz")
    assert call("trace", file, file) == 2
    text = capsys.readouterr().err
    assert "is a file, and a run is a folder" in text
    assert len(text.splitlines()) == 1


def test_similar_on_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("similar", run.path, Q, "-k", "3") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{Q}, vectors of sgns on qcq: best ")
    assert "wrong answers" in out
    assert call("similar", run.path, Q, "-k", "3", "--json", "--easier") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["similar"]) == 3
    assert all(each["harder_by"] < 0 for each in answer["similar"])
