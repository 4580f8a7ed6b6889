"""A training that begins where an earlier one ended: the space stays, new questions land, and bad starts are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy

from qcq import cli, read
from qcq.data import Dataset, Simulated
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EmbeddingError
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.weights import WARM_STEPS, Weights
from qcq.recipes import beginning, embed
from qcq.walks import WALKS

pytestmark = pytest.mark.slow

QUICK: dict[str, dict[str, Any]] = {"sgns": {}, "mlm": {"steps": 400}, "cloze": {"steps": 400}}
ROOM = Simulated(questions=120, concepts=8, students=20, responses=5).read()


def part(data: Dataset, rows: np.ndarray) -> Dataset:
    matrix = scipy.sparse.csr_array(data.q_matrix[rows])
    return Dataset(data.name, [data.questions[i] for i in rows], data.concepts, matrix)


OLD = part(ROOM, np.flatnonzero(np.arange(120) % 10 != 3))  # a tenth is new
NEW = part(ROOM, np.arange(120))


def call(*args: object) -> int:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.mark.parametrize("name", QUICK)
def test_a_warm_start_keeps_the_space_and_reaches_the_loss_of_a_cold_one(name: str, tmp_path: Path) -> None:
    sections = {name: QUICK[name]}
    old = embed(OLD, trainer=name, dim=16, sections=sections, keep=tmp_path / "old.model")
    warm = embed(NEW, trainer=name, dim=16, sections=sections, start=tmp_path / "old.model", seed=1)
    assert warm.ids == list(NEW.questions)
    a, b = (t.unit[[t.index[q] for q in OLD.questions]] for t in (old, warm))
    assert np.mean(np.sum(a * b, axis=1)) > 0.95
    assert warm.provenance["from"]["file"] == "old.model"
    assert warm.provenance["from"]["name"] == name
    graph, walk = KnowledgeGraph.from_dataset(NEW), WALKS["qcq"]()
    trainer = TRAINERS[name](dim=16, **QUICK[name])
    cold_source = TrainingData(graph, walk, 1)
    warm_source = replace(cold_source, start=beginning(tmp_path / "old.model", name, NEW))
    losses, tokens = [], []
    for source in (cold_source, warm_source):
        model = trainer.fit(source, 1)
        assert model.objective is not None
        losses.append(model.losses(model.objective.held_out_batch(cold_source.heldout, 0)).mean())
        tokens.append(model.tokens)
    assert losses[1] <= losses[0] + 0.01
    assert tokens[1] <= (WARM_STEPS + 0.01) * tokens[0]


@pytest.mark.parametrize("name", QUICK)
def test_old_rows_are_copied_and_new_ones_begin_at_their_twins(name: str, tmp_path: Path) -> None:
    embed(OLD, trainer=name, dim=8, sections={name: QUICK[name]}, keep=tmp_path / "m")
    kept, begun = Weights.load(tmp_path / "m" / "weights.safetensors"), beginning(tmp_path / "m", name, NEW)
    at = {q: i for i, q in enumerate(begun.questions)}
    for table, rows in kept.tables.items():
        assert np.array_equal(begun.tables[table][[at[q] for q in kept.questions]], rows)
    sets = [frozenset(NEW.q_matrix[[i]].indices.tolist()) for i in range(120)]
    old = set(kept.questions)
    twins = [(i, [j for j in range(120) if sets[j] == sets[i] and NEW.questions[j] in old]) for i in range(3, 120, 10)]
    checked = [(i, t) for i, t in twins if t]
    assert checked
    for i, t in checked:
        assert begun.tables["input"][i] == pytest.approx(begun.tables["input"][t].mean(axis=0), abs=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_weights_come_back_from_their_file(name: str, tmp_path: Path) -> None:
    """A model of weights with no training left predicts as the model that they were taken from."""
    source = TrainingData(KnowledgeGraph.from_dataset(OLD), WALKS["qcq"](), 0)
    model = TRAINERS[name](dim=8, **QUICK[name]).fit(source, 0)
    weights = model.weights()
    assert weights is not None
    back = Weights.load(weights.save(tmp_path / "w.safetensors"))
    assert back.digest == weights.digest
    assert list(back.questions) == list(weights.questions)
    assert back.trainer["name"] == name


def test_a_start_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    embed(OLD, trainer="sgns", dim=8, keep=tmp_path / "m")
    with pytest.raises(ConfigError, match="a start of 8 dimensions for a table of 16; take --dim 8"):
        embed(NEW, trainer="sgns", dim=16, start=tmp_path / "m")
    with pytest.raises(ConfigError, match="mlm can't start from weights of sgns"):
        embed(NEW, trainer="mlm", dim=8, start=tmp_path / "m")
    with pytest.raises(ConfigError, match="another window or order"):
        embed(NEW, trainer="sgns", dim=8, start=tmp_path / "m", sections={"sgns": {"ordered": True}})
    with pytest.raises(EmbeddingError, match="a table of another bank"):
        embed(read([("x", "a"), ("y", "a"), ("z", "b")]), trainer="sgns", dim=8, start=tmp_path / "m")
    with pytest.raises(ConfigError, match="NetMF always begins afresh"):
        embed(NEW, trainer="netmf", dim=8, start=embed(OLD, trainer="netmf", dim=8).save(tmp_path / "n.safetensors"))
    with pytest.raises(ConfigError, match="the recipe concepts always begins afresh"):
        embed(NEW, "concepts", dim=8, start=tmp_path / "m")
    embed(OLD, trainer="mlm", dim=8, keep=tmp_path / "l", sections={"mlm": {"steps": 2}})
    with pytest.raises(ConfigError, match=r"another encoder \(layers\)"):
        embed(NEW, trainer="mlm", dim=8, start=tmp_path / "l", sections={"mlm": {"steps": 2, "layers": 2}})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="no readable weights"):
        embed(NEW, trainer="sgns", dim=8, start=tmp_path / "broken")


def test_a_table_without_weights_is_a_start_too(tmp_path: Path) -> None:
    old = embed(OLD, "similar", dim=8)
    file = old.save(tmp_path / "v.safetensors")
    begun = beginning(file, "sgns", NEW)
    assert set(begun.tables) == {"input"}
    assert embed(NEW, "similar", dim=8, start=file).provenance["from"]["file"] == "v.safetensors"
    with pytest.raises(ConfigError, match="mlm can't start from a table of sgns"):
        embed(NEW, trainer="mlm", dim=8, start=file)


def test_a_bank_without_new_questions_is_trained_on(tmp_path: Path) -> None:
    old = embed(NEW, trainer="sgns", dim=8, keep=tmp_path / "old.model")
    held = beginning(tmp_path / "old.model", "sgns", NEW)
    assert np.array_equal(
        held.tables["input"], Weights.load(tmp_path / "old.model" / "weights.safetensors").tables["input"]
    )
    warm = embed(NEW, trainer="sgns", dim=8, start=tmp_path / "old.model", seed=1)
    assert np.mean(np.sum(old.unit * warm.unit, axis=1)) > 0.95


def test_from_on_the_command_line_and_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, n in (("old", 40), ("new", 42)):
        rows = "".join(f"q{i},a{i % 4};b{i % 3}\n" for i in range(n))
        (tmp_path / f"{name}.csv").write_text("question,concepts\n" + rows)
    common = ["--trainer", "sgns", "--dim", "8", "--quiet"]
    assert call("embed", "--data", tmp_path / "old.csv", "--out", tmp_path / "old.parquet", *common) == 0
    later = ["embed", "--data", tmp_path / "new.csv", *common, "--from", tmp_path / "old.parquet"]
    assert call(*later, "--out", tmp_path / "new.safetensors") == 0
    made, old = Embeddings.load(tmp_path / "new.safetensors"), Embeddings.load(tmp_path / "old.parquet")
    assert np.mean([made.unit[made.index[q]] @ old.unit[old.index[q]] for q in old]) > 0.95
    assert made.provenance["from"]["file"] == "old.parquet"
    quick = ["--trainers", "sgns", "--set", "sgns.dim=8", "--seeds", "1", "--tasks", "retrieval", "--quiet"]
    assert call("run", "--data", tmp_path / "old.csv", "--out", tmp_path / "run", *quick) == 0
    assert call(*later[:-1], tmp_path / "run", "--out", tmp_path / "r.safetensors") == 0
    assert "output" in beginning(tmp_path / "run", "sgns", read(tmp_path / "new.csv")).tables
    capsys.readouterr()
    for given, said in (
        (["--from", tmp_path / "none.parquet"], "no such file"),
        (["--from", tmp_path / "run", "--trainer", "mlm"], "unknown trainer 'mlm'"),
        (["--from", tmp_path / "old.parquet", "--dim", "4"], "take --dim 8"),
    ):
        assert call(*later[:-2], *given, "--out", tmp_path / "bad.parquet") == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1
    assert not (tmp_path / "bad.parquet").exists()
