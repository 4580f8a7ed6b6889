"""What a message tells a new user to do is what helps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from qcq import cli
from qcq.config import Config
from qcq.data import Simulated, read
from qcq.embeddings import Embeddings
from qcq.errors import ArgumentError, DataError, EmbeddingError, UnknownNameError
from qcq.evaluation import Partition
from qcq.graph import KnowledgeGraph, TypedGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.sgns import SGNS
from qcq.pipeline import Experiment
from qcq.recipes import add, embed
from qcq.run import Run
from qcq.walks import WALKS

BANK = "question,concept\n" + "".join(f"q{i},{('fractions', 'decimals')[i % 2]}\n" for i in range(12))


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in args])
    return int(stop.value.code or 0)


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line of an error on the command line."""
    assert call(*args) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "questions.csv").write_text(BANK)
    return tmp_path / "questions.csv"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hints")
    (folder / "questions.csv").write_text(BANK)
    config = Config(data=str(folder / "questions.csv"), trainers=("svd", "random"), tasks=("retrieval",), seeds=2)
    return Experiment(config).run(folder / "run").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def test_a_table_given_as_settings_is_told_from_them(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"by its ending this is data; give it as --data {bank}" in said(capsys, "run", bank)
    assert f"data are given as --data {bank.parent}" in said(capsys, "run", bank.parent)
    (bank.parent / "mine.toml").write_text("seeds: 3")
    assert "not valid TOML" in said(capsys, "run", bank.parent / "mine.toml")


@pytest.mark.parametrize("command", ["embed", "walk", "split", "inspect"])
def test_data_without_their_option_are_told_it(command: str, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = () if command == "inspect" else ("--out", bank.parent / "new.npz")
    assert f"qcq {command} takes data as --data {bank}" in said(capsys, command, bank, *out)


def test_data_that_nobody_named_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "v.npz", ids=["a", "b"], vectors=np.eye(2))
    text = said(capsys, "score", tmp_path / "v.npz", "--out", tmp_path / "run")
    assert "(data set simulated, taken where --data isn't given)" in text
    small = ["--set", "simulated.questions=40", "--set", "simulated.students=20", "--recipe", "concepts", "--dim", 2]
    assert call("embed", "-q", "--out", tmp_path / "w.npz", *small) == 0
    assert "(data set simulated, taken where --data isn't given)" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["missing", "corrupt"])
@pytest.mark.parametrize("name", ["questions.csv", "concepts.csv", "graph.npz", "embeddings"])
def test_a_lost_file_of_a_run_is_repaired(name: str, damage: object, run: Path, capsys: pytest.CaptureFixture) -> None:
    made = Run.open(run)
    row = made.trained("svd")
    file = made.file("embeddings", row["walk"], "svd", row["readout"], row["seed"], ".safetensors")
    damage(file if name == "embeddings" else run / name)  # type: ignore[operator]
    text = said(capsys, "similar", run, "q1", "--trainer", "svd")
    assert f"'qcq verify {run} --repair' makes it again" in text
    assert "finished work" not in text
    assert call("verify", run, "--repair", "--quiet") == 0
    assert call("similar", run, "q1", "--trainer", "svd") == 0


def test_what_the_machine_refuses_a_command_without_cells_keeps_no_work() -> None:
    assert cli._reason(OSError(28, "No space left on device", "x"), False) == "x: No space left on device"
    assert "finished work" not in cli._reason(MemoryError(), False)


def test_each_seed_of_a_run_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seeds = 2")
    rows = [f'{{"trainer": "svd", "walk": "{w}", "seed": {s}, "error": "x"}}\n' for w in "ab" for s in (0, 1)]
    (tmp_path / "training.jsonl").write_text("".join(rows))
    with pytest.raises(Exception, match=r"no seed 9; it has 0, 1$"):
        Run.open(tmp_path).trained("svd", seed=9)


ROOM = Simulated(questions=2_000, students=30, responses=5).read()
BARE = read([("q1", "fractions"), ("q2", "decimals")])
TABLE = Embeddings(["q1", "q2"], np.eye(2))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda: embed(BARE, trainer="sgns", window=3),  # type: ignore[call-arg]
            r'^embed: .*window.*; a setting of sgns is given as sections=\{"sgns": \{"window": 3\}\}$',
        ),
        (lambda: embed(BARE, step=3), r'a setting of NAME is given as sections=\{"NAME": \{"step": 3\}\}'),  # type: ignore[call-arg]
        (lambda: embed(), r"^embed: missing a required argument: 'data'; it takes data, recipe"),  # type: ignore[call-arg]
        (lambda: TABLE.nearest("q1", n=3), r"^Embeddings.nearest: .*'n'; it takes question, k, where$"),  # type: ignore[call-arg]
        (lambda: TABLE.nearest(["q1"]), "a question's identifier is asked for, given list"),  # type: ignore[arg-type]
        (lambda: TABLE.nearest(np.eye(2)[0]), "given ndarray"),  # type: ignore[arg-type]
        (lambda: TABLE[:3], "given slice; vectors has all rows"),  # type: ignore[index]
    ],
)
def test_a_call_that_can_not_be_is_named(act: Callable[[], object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        act()


def test_names_of_any_kind_are_looked_up() -> None:
    table = Embeddings([("a", 1), ("b", 2)], np.eye(2))  # type: ignore[list-item]
    assert table[("a", 1)].tolist() == [1, 0]  # type: ignore[index]
    assert TABLE[np.array("q2")].tolist() == [0, 1]  # type: ignore[index]
    with pytest.raises(UnknownNameError):
        TABLE[np.array("q3")]  # type: ignore[index]


def test_vectors_that_torch_learns_are_taken() -> None:
    learning = torch.nn.Parameter(torch.eye(2, dtype=torch.bfloat16))
    made = Embeddings(["a", "b"], learning)  # type: ignore[arg-type]
    assert made.vectors.tolist() == [[1, 0], [0, 1]]
    assert learning.requires_grad


def test_a_table_without_its_model_says_where_it_belongs(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("question,concept\nn1,fractions\n")
    TABLE.save(tmp_path / "v.parquet")
    text = said(
        capsys, "add", "--to", tmp_path / "v.parquet", "--questions", tmp_path / "new.csv", "--out", tmp_path / "w.npz"
    )
    assert f"{tmp_path / 'v.parquet.model'} is missing); move the two together, or give the bank with --data" in text
    for act in (lambda: add(TABLE, None, read([("n1", "fractions")])), lambda: TABLE.infer({"n1": ["fractions"]})):
        with pytest.raises(EmbeddingError, match=r"move FILE.model and FILE together, or give the bank") as caught:
            act()
        assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"": ["q1"], "0": [1.0]}, r"columns '', '0'; name one 'question'; if a frame's index has the ids"),
        ({"a": ["q1"], "b": [1.0]}, r"columns 'a', 'b'; name one 'question'$"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_vectors_without_ids(frame: dict, words: str, ending: str, tmp_path: Path) -> None:
    made = pl.DataFrame(frame)
    (made.write_csv if ending == ".csv" else made.write_parquet)(tmp_path / f"v{ending}")
    with pytest.raises(EmbeddingError, match=words) as caught:
        Embeddings.load(tmp_path / f"v{ending}")
    hint = "index_label='question'" if ending == ".csv" else "rename_axis('question')"
    assert (hint in str(caught.value)) == ("" in frame)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"vector": [[1.0, 2.0]], "level": [3]},
            "'vector' holds lists, which are read where there is no other column; ",
        ),
        ({"vector": [[1.0, 2.0]], "level": [3]}, "take out 'level'$"),
        ({"title": ["x"], "vector": [[1.0, 2.0]]}, "'title' doesn't hold numbers; take it out"),
        ({"vector": ["[1, 2]"]}, "'vector' doesn't hold numbers; write lists of them, or a column per dimension"),
        ({"vector": [{"x": 1.0}]}, "'vector' holds structs; write one list of numbers"),
    ],
)
def test_a_column_that_is_no_number_is_not_taken_out_with_the_vectors(
    columns: dict, words: str, tmp_path: Path
) -> None:
    pl.DataFrame({"question": ["q1"], **columns}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(EmbeddingError, match=words):
        Embeddings.load(tmp_path / "v.parquet")


def test_ids_as_objects_of_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a", "b"], dtype=object), vectors=np.eye(2))
    with pytest.raises(EmbeddingError, match=r"save ids as np.array\(ids, dtype=str\)"):
        Embeddings.load(tmp_path / "v.npz")


def test_the_arrays_of_a_run_are_no_graph(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"are missing: \['format', .*; it is a run's own file; give the data"):
        KnowledgeGraph.load(run / "graph.npz")
    shutil.copy(run / "graph.npz", tmp_path / "graph.npz")
    with pytest.raises(DataError, match=r"these arrays are missing: \['format', .*; write it with KnowledgeGraph"):
        KnowledgeGraph.load(tmp_path / "graph.npz")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("window", "did you mean sgns.window or "),
        ("length", r"did you mean walk.length\?"),
        ("per_question", r"did you mean walk.per_question\? \(known: walk.per_question\)"),
        ("students", r"did you mean ednet.students or simulated.students\?"),
        ("sead", r"did you mean seed or seeds\?"),
    ],
)
def test_a_setting_without_its_section_is_told_it(key: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        Config.load(overrides=[f"{key}=3"])


def test_only_near_names_are_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean walks?" in said(capsys, "list", "walk")
    assert "'qcq list walks' shows settings" in said(capsys, "list", "walk.length")
    assert "'qcq list sgns' shows settings" in said(capsys, "list", "sgns.window")
    assert "did you mean" not in said(capsys, "list", "xyz.length")


@pytest.mark.parametrize("more", [["--fold", 5], ["--all-students"]])
def test_a_recipe_that_nobody_named_has_its_reason(more: list, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "embed", "-q", "--data", bank, "--out", bank.parent / "v.npz", *more)
    assert "concepts (taken because the data have no answers) reads no answers" in text
    text = said(capsys, "embed", "-q", "--data", bank, "--recipe", "similar", "--out", bank.parent / "v.npz", *more)
    assert "similar reads no answers" in text


def test_one_fault_is_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.md").write_text("x")
    assert call("verify", run) == 1
    assert "files compared, 1 fault\n" in capsys.readouterr().out


def test_large_objects_show_themselves_in_a_line() -> None:
    graph = KnowledgeGraph.from_dataset(ROOM)
    split = ROOM.split()
    source = TrainingData(graph, WALKS["qcq"](length=4, per_question=1))
    typed = TypedGraph.of(graph, split.train)
    model = SGNS(dim=4, epochs=1).fit(source)
    table = embed(ROOM, "concepts", dim=4)
    lookup = TRAINERS["svd"](dim=4).fit(source)
    many = [ROOM, ROOM.interactions, graph, typed, split, source, source.corpus, model, lookup, table, table.model]
    many += [Partition.make(ROOM), model.weights()]
    for each in many:
        assert len(repr(each)) < 600, type(each)
        assert "\n" not in repr(each)
        assert type(each).__name__ in repr(each)
    assert repr(table) == "<Embeddings: 2,000 questions, 4 dimensions>"
    assert "recipe concepts" in table._repr_html_()
    assert "data simulated" in table._repr_html_()


def test_a_concept_written_nearly_right_is_told(bank: Path) -> None:
    old = read([(f"q{i}", ("fractions", "decimals")[i % 2]) for i in range(6)])
    table = embed(old, "concepts", dim=2)
    (note,) = add(table, None, read([("n1", "fraction")])).notes
    assert "1 concept that the bank doesn't have, so it says nothing here: ['fraction']" in note
    assert "write it as the bank does, 'fraction' may be 'fractions'" in note
    (note,) = add(table, None, read([("n1", "xyz"), ("n2", "abc")])).notes
    assert "2 concepts that the bank doesn't have, so they say nothing here" in note
    assert "leave them, or add questions on them to the bank" in note


def test_equal_tables_moved_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diff", run, run, "--trainer", "svd") == 0
    out = capsys.readouterr().out
    assert out.startswith("A: svd; B: svd\nno question moved\n")
    assert "0.0000 |" not in out


def test_a_dry_run_is_of_what_the_run_would_do(
    bank: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["run", "--data", tmp_path / "questions.csv", "--trainers", "svd,random", "--tasks", "retrieval"]
    new = tmp_path / "new"
    assert call(*same, "--seeds", 1, "--out", new, "--quiet") == 0
    capsys.readouterr()
    assert call(*same, "--seeds", 1, "--out", new, "--dry-run") == 0
    assert "\n0 of " in capsys.readouterr().out
    assert call(*same, "--seeds", 1, "--out", new, "--dry-run", "--redo") == 0
    assert "finished" not in capsys.readouterr().out
    other = [*same, "--seeds", 1, "--set", "dim=8", "--out", new]
    assert said(capsys, *other, "--dry-run", "-q") == said(capsys, *other, "-q")
    (foreign := tmp_path / "foreign").mkdir()
    (foreign / "x").write_text("mine")
    assert said(capsys, *same, "--out", foreign, "--dry-run") == said(capsys, *same, "--out", foreign)
