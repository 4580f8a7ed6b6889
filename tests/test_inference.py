"""Vectors of questions that were not there, by the model of a table: exact where the trainer is, planted where not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy

from qcq import cli, read
from qcq.data import Dataset, Simulated
from qcq.embeddings import Embeddings
from qcq.errors import ArgumentError, EmbeddingError, UnknownNameError
from qcq.floors.markov import edge_steps
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.inference import Part, by_concepts, logistic_rows, opened, pair_law, with_model
from qcq.models.language.slot import mapped, walks
from qcq.models.trainer import Frozen
from qcq.recipes import add, embed
from qcq.report.similar import similar_in
from qcq.run import Run
from qcq.walks import WALKS

ROOM = Simulated(questions=120, concepts=8, students=40, responses=10).read()
GRAPH = KnowledgeGraph.from_dataset(ROOM)
SETS = GRAPH.concept_sets
EXACT = {"svd": 8, "netmf": 8, "spectral": 8, "fastrp": 8, "concept-mean": 8, "concept-onehot": 8}
LANGUAGE = ["mlm", "cloze", "clm", "bilm", "rtd"]
QUICK: dict[str, dict[str, int]] = {name: {"steps": 300} for name in LANGUAGE} | {"rtd": {"steps": 1_000}}
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


BANK, NEW = bank_without(
    np.flatnonzero(np.isin(SETS, np.unique(SETS[np.diff(GRAPH.weights.indptr) > 1])[::3]))
)  # whole sets are held out


def alike(table: Embeddings, new: Dataset) -> float:
    """The share of the five nearest of a new question that share a concept with it."""
    share = []
    for i, question in enumerate(new.questions):
        mine = set(new.q_matrix[[i]].indices)
        near = [ROOM.questions.index(q) for q, _ in table.nearest(question, 5)]
        share.append(np.mean([bool(mine & set(ROOM.q_matrix[[j]].indices)) for j in near]))
    return float(np.mean(share))


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


@pytest.mark.parametrize(("scale", "prior"), [(0.3, 0.3), (1.0, 0.3), (3.0, 0.3), (1.0, 0.01)])
def test_rows_have_the_least_loss_as_newton_finds_it(scale: float, prior: float) -> None:
    """Against scipy's trust-region Newton with the exact curvature, one row at a time."""
    rng = np.random.default_rng(0)
    start, outputs = rng.normal(size=(300, 4)), scale * rng.normal(size=(500, 4))  # more than a block of rows
    p, n = rng.dirichlet(np.full(500, 0.05), size=300), 5 * rng.dirichlet(np.ones(500))
    x = logistic_rows(start, outputs, p, n, prior)
    for i in (0, 1, 150, 299):

        def loss(v: np.ndarray, i: int = i) -> float:
            z = outputs @ v
            held = prior / 2 * np.square(v - start[i]).sum()
            return float(p[i] @ np.logaddexp(0, -z) + n @ np.logaddexp(0, z) + held)

        def slope(v: np.ndarray, i: int = i) -> np.ndarray:
            real = scipy.special.expit(outputs @ v)
            return outputs.T @ (real * (p[i] + n) - p[i]) + prior * (v - start[i])

        def curvature(v: np.ndarray, i: int = i) -> np.ndarray:
            real = scipy.special.expit(outputs @ v)
            return (outputs.T * (real * (1 - real) * (p[i] + n))) @ outputs + prior * np.eye(4)

        best = scipy.optimize.minimize(
            loss, start[i], jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-10}
        )
        assert x[i] == pytest.approx(best.x, abs=1e-6)


@pytest.mark.parametrize("trainer", LEARNT)
def test_an_old_question_inferred_anew_is_near_its_own_row(trainer: str) -> None:
    table = embed(ROOM, walk="qcq", trainer=trainer, dim=16)
    made, own = rows(table), table.vectors
    cosine = (made * own).sum(axis=1) / np.linalg.norm(made, axis=1) / np.linalg.norm(own, axis=1)
    assert cosine.mean() > 0.9
    other = np.roll(own, 7, axis=0)
    apart = (made * other).sum(axis=1) / np.linalg.norm(made, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.mean() > apart.mean() + 0.1


@pytest.mark.parametrize(
    ("trainer", "seeds"),
    [
        *((name, 1) for name in ("svd", "netmf", "spectral", *LEARNT, "mlm")),
        *(pytest.param(name, 3, marks=pytest.mark.slow) for name in LANGUAGE[1:]),
    ],
)
def test_a_new_set_of_concepts_lands_among_questions_on_them(trainer: str, seeds: int) -> None:
    """No new question has a twin: the trainer itself must place it. A seed of rtd may be far off on some processor."""
    found = []
    for seed in range(seeds):
        made = add(embed(BANK, walk="qcq", trainer=trainer, dim=8, sections=QUICK, seed=seed), None, NEW)
        assert made.by_set == 0
        assert made.by_model == len(NEW.questions) > 0
        found.append(alike(made.embeddings, NEW))
    assert np.mean(found) > 0.9


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


@pytest.mark.slow
def test_a_language_model_infers_with_concepts_as_tokens_and_for_every_read_out() -> None:
    walk = WALKS["qcq"](keep_concepts=True)
    graph = KnowledgeGraph.from_dataset(BANK)
    model = TRAINERS["mlm"](dim=8, steps=200).fit(TrainingData(graph, walk))
    for readout in model.readouts:
        table = with_model(
            model.embeddings(readout), graph, [Part.of(TRAINERS["mlm"](dim=8, steps=200), walk, 0, model)]
        )
        made = add(table, None, NEW)
        assert made.by_model == len(NEW.questions)
        assert alike(made.embeddings, NEW) > 0.8


def test_a_map_from_states_to_rows_is_found_where_there_is_one() -> None:
    """Rows planted as a linear function of states come back; states that say nothing give almost nothing."""
    rng = np.random.default_rng(0)
    states, turn = rng.normal(size=(200, 6)), rng.normal(size=(6, 3))
    size, new = rng.integers(1, 9, 200).astype(float), rng.normal(size=(40, 6))
    middle = np.average(states, axis=0, weights=size)
    assert mapped(states, (states - middle) @ turn, size, new) == pytest.approx((new - middle) @ turn, abs=0.05)
    noise = rng.normal(size=(200, 3))
    assert np.abs(mapped(states, noise, size, new)).max() < 0.5
    assert not mapped(np.ones((200, 6)), noise, size, np.ones((40, 6))).any()


def test_walks_through_a_slot_step_over_its_concepts() -> None:
    out, into = edge_steps(GRAPH.weights)
    one = scipy.sparse.csr_array(([1.0], ([0], [3])), shape=(1, 8))  # a question on concept 3 alone
    tokens = walks(one, out, into, np.zeros(500, dtype=np.int64), 4, None, np.random.default_rng(0))
    on = np.flatnonzero(GRAPH.weights[:, [3]].toarray()[:, 0])
    assert set(tokens[:, 0].tolist()) == set(on.tolist())
    share = (GRAPH.weights > 0).astype(float) @ (GRAPH.weights > 0).astype(float).T
    assert all(share[a, b] > 0 for a, b in zip(tokens[:, 0], tokens[:, 1], strict=True))
    mixed = walks(one, out, into, np.zeros(50, dtype=np.int64), 3, 120, np.random.default_rng(0))
    assert (mixed[:, 0] == 123).all()
    assert ((mixed[:, 1] < 120) & (mixed[:, 2] >= 120)).all()


def test_a_loaded_table_infers_where_only_vectors_were_imported(tmp_path: Path) -> None:
    table = embed(ROOM, "concepts", dim=4)
    table.save_model(table.save(tmp_path / "v.npz"))
    code = (
        "from qcq.embeddings import Embeddings\n"
        f"print(Embeddings.load({str(tmp_path / 'v.npz')!r}).infer({{'n': [{ROOM.concepts[0]!r}]}}).ids)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['n']"


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


def test_a_file_knows_the_concepts_of_added_questions(tmp_path: Path) -> None:
    table = embed(ROOM, "similar", dim=8)
    one, other = ROOM.concepts[0], ROOM.concepts[1]
    first = add(table, None, read([("n", one), ("n", "unheard of")])).embeddings
    both = add(first, None, read([("m", one), ("m", other)])).embeddings
    file = both.save(tmp_path / "v.parquet")
    both.save_model(file)
    found = {each.question: each for each in similar_in(Embeddings.load(file), "n", len(both) - 1)}
    assert found["m"].concepts == (one, other)
    assert found["m"].shared == (one,)
    old = next(q for q, own in opened(table).concepts.items() if own == (one,))  # type: ignore[union-attr]
    assert found[old].shared == (one,)
    asked = similar_in(Embeddings.load(file), old, len(both) - 1)
    assert {each.question: each.concepts for each in asked}["n"] == (one, "unheard of")


def test_neighbours_lend_their_concepts_and_nothing_known_is_flagged() -> None:
    table = embed(ROOM, "concepts", dim=8)
    with pytest.warns(UserWarning, match="'odd' has an unknown concept 'unheard of'"):
        made = table.infer({"none": [], "odd": ["unheard of"]}, neighbours={"like": [ROOM.questions[5]]})
    assert made["like"] == pytest.approx(table[ROOM.questions[5]], abs=1e-6)
    assert made["none"] == pytest.approx(table.vectors.mean(axis=0), abs=1e-6)
    assert made.provenance["inferred"] == {"nothing": 2, "twins": 1}
    assert made.provenance["unplaced"] == ["none", "odd"]


NUMBERED = read([("q1", "1"), ("q2", "2"), ("q3", "12")])


def test_names_of_new_questions_and_their_concepts_may_be_numbers() -> None:
    table = embed(NUMBERED, "concepts", dim=2)
    made = table.infer({5: [12]}, neighbours={6: np.array(["q1"])})  # type: ignore[dict-item, list-item]
    assert list(made.ids) == ["5", "6"]
    assert np.array_equal(made["5"], table["q3"])
    assert np.array_equal(made["6"], table["q1"])


@pytest.mark.parametrize(
    ("concepts", "neighbours", "said"),
    [
        ({"n": "12"}, None, r"concepts of 'n' are a list of names, given str '12'; give a list: \['12'\]"),
        ({}, {"n": "q1"}, r"neighbours of 'n' are a list of names, given str 'q1'; give a list: \['q1'\]"),
        ({"n": 12}, None, r"given int 12; give a list: \[12\]"),
        ({"n": b"12"}, None, "given bytes"),
        ({"n": {"12": 0.5}}, None, "given dict"),
        ({"n": None}, None, r"given NoneType None; give a list: \['name', …\], or \[\] for none"),
        ({"n": ["12", None]}, None, "a missing value among"),
        ({"n": [float("nan")]}, None, "a missing value among"),
        ({5: ["12"], "5": ["12"]}, None, "'5' is given twice"),
        ({}, "q1", "infer: neighbours takes a dict, given str 'q1'"),
    ],
)
def test_what_is_no_list_of_names_is_one_line(concepts: dict, neighbours: dict, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        embed(NUMBERED, "concepts", dim=2).infer(concepts, neighbours)


def test_a_number_that_is_the_name_of_an_old_question_is_refused() -> None:
    table = embed(read([("1", "a"), ("2", "b")]), "concepts", dim=2)
    with pytest.raises(EmbeddingError, match="'1' first"):
        table.infer({1: ["a"]})  # type: ignore[dict-item]


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
    embed(ROOM, "concepts", dim=4).save(tmp_path / "other.npz").replace(file)  # saved there, it would remove the model
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


@pytest.mark.slow
def test_a_run_holds_what_inference_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*args: object) -> int:
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    rows = [(q, BANK.concepts[c]) for i, q in enumerate(BANK.questions) for c in BANK.q_matrix[[i]].indices]
    (tmp_path / "bank.csv").write_text("question,concept\n" + "".join(f"{q},{c}\n" for q, c in rows))
    rows = [(q, NEW.concepts[c]) for i, q in enumerate(NEW.questions) for c in NEW.q_matrix[[i]].indices]
    (tmp_path / "new.csv").write_text("question,concept\n" + "".join(f"{q},{c}\n" for q, c in rows))
    quick = ["--trainers", "sgns,svd,mlm,random", "--set", "mlm.steps=100", "--seeds", "2", "--tasks", "retrieval"]
    dims = [f"--set={name}.dim=8" for name in ("sgns", "svd", "mlm", "random")]
    run = tmp_path / "run"
    assert call("run", "--data", tmp_path / "bank.csv", "--out", run, *quick, *dims, "--quiet") == 0
    assert call("verify", run) == 0
    command = ["add", "--to", run, "--questions", tmp_path / "new.csv", "--out"]
    choices: list[tuple[list[str], str]] = [
        ([], "by the model"),
        (["--trainer", "svd"], "by the model"),
        (["--trainer", "mlm", "--seed", "1"], "by the model"),
        (["--trainer", "random"], "from their concepts one by one"),
    ]
    for i, (choice, how) in enumerate(choices):
        capsys.readouterr()
        out = tmp_path / f"{i}.safetensors"
        assert call(*command, out, *choice) == 0
        assert how in capsys.readouterr().out
        made = Embeddings.load(out)
        assert len(made) == len(BANK.questions) + len(NEW.questions)
        name = choice[1] if choice else Run(run).best()[0]
        seed = 1 if "--seed" in choice else 0
        old = Run(run).embeddings(name, seed=seed)
        assert made.vectors[: len(old)].tobytes() == old.vectors.tobytes()
        assert opened(made) is not None  # and it can be added to again
        if name != "random":
            assert alike(made, NEW) > 0.8
    for model in (run / "embeddings").rglob("model.safetensors"):
        model.unlink()  # as a run of an earlier version
    assert call(*command, tmp_path / "older.safetensors", "--trainer", "svd") == 0
    assert "has no model next to it: new questions get the mean" in capsys.readouterr().err
    for given, said in (
        (["--trainer", "nobody"], "unknown trainer 'nobody'"),
        (["--seed", "7"], "no seed 7"),
        (["--walk", "weighted"], "unknown walk 'weighted'"),
    ):
        assert call(*command, tmp_path / "bad.safetensors", *given) == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1
    assert call("add", "--to", tmp_path / "0.safetensors", *command[3:], tmp_path / "bad.npz", "--seed", "1") == 2
    assert "is a file with one table; leave out --trainer" in capsys.readouterr().err
