"""Vectors of questions that were not there, by the model of a table: exact where the trainer is, planted where not."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy

from qcq import cli, read
from qcq.data import Dataset, Simulated
from qcq.embeddings import Embeddings
from qcq.errors import EmbeddingError, UnknownNameError
from qcq.graph import KnowledgeGraph
from qcq.models.inference import by_concepts, logistic_rows, opened, pair_law
from qcq.models.trainer import Frozen
from qcq.recipes import add, embed
from qcq.walks import WALKS

ROOM = Simulated(questions=120, concepts=8, students=40, responses=10).read()
GRAPH = KnowledgeGraph.from_dataset(ROOM)
SETS = GRAPH.concept_sets
EXACT = {"svd": 8, "netmf": 8, "spectral": 8, "fastrp": 8, "concept-mean": 8, "concept-onehot": 8}
LEARNT = ["sgns", *(["skipgram", "fasttext"] if importlib.util.find_spec("gensim") else [])]


def rows(table: Embeddings, weights: scipy.sparse.csr_array = GRAPH.weights) -> np.ndarray:
    """By the trainer's own way alone, without twins."""
    model = opened(table)
    assert model is not None
    made = model.parts[0].infer(model.graph, table.vectors.astype(np.float64), weights)
    assert made is not None
    return made


def bank_without(away: np.ndarray) -> tuple[Dataset, Dataset]:
    def part(which: np.ndarray) -> Dataset:
        names = [ROOM.questions[i] for i in which]
        return Dataset("part", names, ROOM.concepts, scipy.sparse.csr_array(ROOM.q_matrix[which]))

    return part(np.setdiff1d(np.arange(120), away)), part(away)


@pytest.mark.parametrize("trainer", EXACT)
def test_an_old_question_folded_in_gives_its_old_vector(trainer: str) -> None:
    table = embed(ROOM, trainer=trainer, dim=EXACT[trainer])
    assert rows(table) == pytest.approx(table.vectors, abs=1e-6)


@pytest.mark.parametrize("settings", [{"svd": {"power": 0.5}}, {"svd": {"power": 0.0}}])
def test_every_power_of_svd_folds_in(settings: dict) -> None:
    table = embed(ROOM, trainer="svd", dim=8, sections=settings)
    assert rows(table) == pytest.approx(table.vectors, abs=1e-6)


def test_netmf_with_concepts_as_tokens_folds_in() -> None:
    table = embed(ROOM, walk="qcq", trainer="netmf", dim=8, sections={"qcq": {"keep_concepts": True}})
    assert rows(table) == pytest.approx(table.vectors, abs=1e-6)


@pytest.mark.parametrize("keep", [False, True])
def test_the_law_of_a_new_question_is_that_of_its_twin(keep: bool) -> None:
    """Against the chain's own powers, summed by hand."""
    walk = WALKS["qcq"](keep_concepts=keep)
    chain = walk.chain(GRAPH)
    decay = np.array([1.0, 0.75, 0.5, 0.25])
    found = pair_law(Frozen(GRAPH, walk, np.zeros((120, 1)), {}), scipy.sparse.csr_array(GRAPH.weights[[3]]), decay)
    assert found is not None
    law, classes = found
    at = np.arange(120)
    steps = range(1, 5) if not keep else (2, 4)
    share = [decay[d - 1] * chain.power(d if not keep else d // 2, 3, at) for d in steps]
    wanted = np.bincount(classes, np.sum(share, axis=0))
    assert law[0, : len(wanted)] / law[0, : len(wanted)].sum() == pytest.approx(wanted / wanted.sum(), abs=1e-12)
    assert law.sum() == pytest.approx(1)


def test_newton_finds_the_least_loss() -> None:
    rng = np.random.default_rng(0)
    start, outputs = rng.normal(size=(3, 4)), rng.normal(size=(20, 4))
    p, n = rng.dirichlet(np.ones(20), size=3), 5 * rng.dirichlet(np.ones(20))
    x = logistic_rows(start, outputs, p, n, prior=0.3, steps=30)
    real = 1 / (1 + np.exp(-x @ outputs.T))
    assert (real * (p + n) - p) @ outputs + 0.3 * (x - start) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("trainer", LEARNT)
def test_an_old_question_inferred_anew_is_near_its_own_row(trainer: str) -> None:
    table = embed(ROOM, walk="qcq", trainer=trainer, dim=16)
    made, own = rows(table), table.vectors
    cosine = (made * own).sum(axis=1) / np.linalg.norm(made, axis=1) / np.linalg.norm(own, axis=1)
    assert cosine.mean() > 0.9
    other = np.roll(own, 7, axis=0)
    apart = (made * other).sum(axis=1) / np.linalg.norm(made, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.mean() > apart.mean() + 0.1


@pytest.mark.parametrize("trainer", ["svd", "netmf", "spectral", *LEARNT])
def test_a_new_set_of_concepts_lands_among_questions_on_them(trainer: str) -> None:
    """Whole sets are held out, so that no new question has a twin: the trainer itself must place it."""
    several = np.unique(SETS[np.diff(GRAPH.weights.indptr) > 1])
    bank, new = bank_without(np.flatnonzero(np.isin(SETS, several[::3])))
    made = add(embed(bank, walk="qcq", trainer=trainer, dim=8), None, new)
    assert made.by_set == 0
    assert made.by_model == len(new.questions) > 0
    share = []
    for i, question in enumerate(new.questions):
        mine = new.q_matrix[[i]].indices
        near = [ROOM.questions.index(q) for q, _ in made.embeddings.nearest(question, 5)]
        share.append(np.mean([bool(set(mine) & set(ROOM.q_matrix[[j]].indices)) for j in near]))
    assert np.mean(share) > 0.9


def test_the_mean_of_concepts_is_said_where_a_trainer_has_no_way() -> None:
    several = np.unique(SETS[np.diff(GRAPH.weights.indptr) > 1])
    bank, new = bank_without(np.flatnonzero(several[0] == SETS))
    made = add(embed(bank, walk="qcq", trainer="ppmi-svd", dim=8), None, new)
    assert (made.by_model, made.by_concepts) == (0, len(new.questions))
    old = made.embeddings.vectors[: len(bank.questions)].astype(np.float64)
    wanted = by_concepts(bank.q_matrix, old, new.q_matrix)
    assert made.embeddings.vectors[len(old) :] == pytest.approx(wanted, abs=1e-6)


def test_the_recipe_for_tracing_infers_one_hot_concepts_and_the_order_of_its_concepts() -> None:
    table = embed(ROOM, "tracing", dim=8)
    concepts = list(ROOM.concepts)
    taken = {frozenset(GRAPH.weights[[i]].indices.tolist()) for i in range(120)}
    pair = next([a, b] for a in range(8) for b in range(a) if frozenset([a, b]) not in taken)
    made = table.infer({"new": [concepts[c] for c in pair]})
    assert np.flatnonzero(made["new"][:8]).tolist() == sorted(pair)
    weights = scipy.sparse.csr_array((np.ones(2), ([0, 0], sorted(pair))), shape=(1, 8))
    assert made["new"][8:] == pytest.approx(by_concepts(GRAPH.weights, table.vectors[:, 8:], weights)[0], abs=1e-5)


@pytest.mark.parametrize("ending", [".parquet", ".safetensors", ".npz"])
def test_a_model_beside_a_file_infers_as_before_and_again_after_adding(ending: str, tmp_path: Path) -> None:
    table = embed(ROOM, "similar", dim=8)
    file = table.save(tmp_path / f"v{ending}")
    table.save_model(file)
    names = list(ROOM.concepts[:3])
    loaded = Embeddings.load(file)
    assert loaded.infer({"n": names}).vectors.tobytes() == table.infer({"n": names}).vectors.tobytes()
    more = add(Embeddings.load(file), None, read([("n", names[0])])).embeddings
    assert more.vectors[:120].tobytes() == table.vectors.tobytes()
    more.save_model(more.save(tmp_path / f"more{ending}"))
    again = Embeddings.load(tmp_path / f"more{ending}").infer({"m": names})
    assert again["m"] == pytest.approx(table.infer({"m": names})["m"])


def test_neighbours_lend_their_concepts_and_nothing_known_is_flagged() -> None:
    table = embed(ROOM, "concepts", dim=8)
    made = table.infer({"none": [], "odd": ["unheard of"]}, neighbours={"like": [ROOM.questions[5]]})
    assert made["like"] == pytest.approx(table[ROOM.questions[5]], abs=1e-6)
    assert made["none"] == pytest.approx(table.vectors.mean(axis=0), abs=1e-6)
    assert made.provenance["inferred"] == {"nothing": 2, "twins": 1}
    assert made.provenance["unplaced"] == ["none", "odd"]


def test_what_can_not_be_inferred_is_one_line(tmp_path: Path) -> None:
    table = embed(ROOM, "concepts", dim=8)
    with pytest.raises(EmbeddingError, match="has no model next to it"):
        replace(table, model=None).infer({"n": []})
    with pytest.raises(EmbeddingError, match="has no model next to it"):
        add(replace(table, model=None), None, read([("n", "a")]))
    with pytest.raises(EmbeddingError, match="in the table already"):
        table.infer({ROOM.questions[0]: []})
    with pytest.raises(UnknownNameError, match="unknown question"):
        table.infer({}, neighbours={"n": ["q9999"]})
    file = table.save(tmp_path / "v.npz")
    folder = table.save_model(file)
    assert folder is not None
    embed(ROOM, "concepts", dim=4).save(file)
    with pytest.raises(EmbeddingError, match="the model of another table"):
        Embeddings.load(file).infer({"n": []})
    (folder / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(EmbeddingError, match="no readable model"):
        Embeddings.load(file).infer({"n": []})


def test_add_needs_no_bank_where_the_model_is_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*args: object) -> int:
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    (tmp_path / "bank.csv").write_text("question,concepts\n" + "".join(f"q{i},a{i % 3}\n" for i in range(20)))
    (tmp_path / "new.csv").write_text("question,concepts\nn1,a1;a2\n")
    file = tmp_path / "v.parquet"
    assert call("embed", "--data", tmp_path / "bank.csv", "--dim", "4", "--out", file, "--quiet") == 0
    new = ["--questions", tmp_path / "new.csv"]
    assert call("add", "--to", file, *new, "--out", tmp_path / "more.parquet") == 0
    assert "1 by the model" in capsys.readouterr().out
    (tmp_path / "v.parquet.model" / "model.safetensors").unlink()
    assert call("add", "--to", file, *new, "--out", tmp_path / "third.parquet") == 2
    assert "--data BANK" in capsys.readouterr().err
    assert call("add", "--to", file, *new, "--data", tmp_path / "bank.csv", "--out", tmp_path / "third.parquet") == 0
    assert "has no model next to it: new questions get the mean" in capsys.readouterr().err
