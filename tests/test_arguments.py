"""Arguments of another kind than was meant: the same result, or an error that says so; never another result."""

from __future__ import annotations

from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch

from qcq import Embeddings, KnowledgeGraph, embed, read
from qcq.audit import audit
from qcq.config import Config
from qcq.data import Dataset, Simulated
from qcq.errors import ArgumentError, ConfigError, DataError, EmbeddingError, EvaluationError, GraphError
from qcq.evaluation import KT, TASKS, KTAttention, Partition
from qcq.evaluation.areas import balanced, bootstrap_decomposition, decompose
from qcq.evaluation.statistics import Contest, auc_units, paired_bootstrap, simultaneous
from qcq.evaluation.tracing.tasks import KTSettings
from qcq.models import TRAINERS, TrainingData
from qcq.pipeline import Experiment
from qcq.report.trace import trace
from qcq.support.names import named
from qcq.support.seeds import derive
from qcq.walks import WALKS


@pytest.fixture(scope="module")
def room() -> Dataset:
    return Simulated(questions=60, concepts=6, students=60, responses=20).read()


@pytest.fixture(scope="module")
def part(room: Dataset) -> Partition:
    return Partition.make(room)


@pytest.fixture(scope="module")
def table(part: Partition) -> Embeddings:
    return TRAINERS["random"](dim=4).fit(TrainingData(part.graph)).embeddings()


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, None, "2"])
def test_a_number_of_processes_that_is_none(jobs: Any, room: Dataset, tmp_path) -> None:
    with pytest.raises(ArgumentError, match="jobs takes a number of processes from 1"):
        Experiment(Config(trainers=("svd",), tasks=("retrieval",), dim=4), room).run(tmp_path / "run", jobs=jobs)
    assert not (tmp_path / "run").exists()


def test_settings_of_another_task(part: Partition) -> None:
    for task in ("kt-attention", "kt-difficulty", "kt-baselines"):
        with pytest.raises(ArgumentError, match=r"takes \w+Settings, given KTSettings"):
            TASKS[task](part, KTSettings(epochs=1))  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="KT takes KTSettings, given dict"):
        KT(part, {"epochs": 1})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="KT takes KTSettings, given KTAttentionSettings"):
        KT(part, KTAttention.settings(epochs=1))


@pytest.mark.parametrize("task", ["retrieval", "edges", "difficulty", "clusters", "kt-fast"])
def test_a_stage_that_is_none(task: str, part: Partition, table: Embeddings) -> None:
    with pytest.raises(ArgumentError, match="stage takes 'validation' or 'test', given 'train'"):
        TASKS[task](part).score(table, "train")  # type: ignore[arg-type]


def test_whole_numbers_of_numpy_are_whole_numbers(room: Dataset, tmp_path) -> None:
    seeded = embed(room, "concepts", dim=np.int64(4), seed=np.int64(3))  # type: ignore[arg-type]
    plain = embed(room, "concepts", dim=4, seed=3)
    seeded.save(tmp_path / "a.safetensors")
    plain.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert Partition.make(room, np.int64(3)).digest == Partition.make(room, 3).digest  # type: ignore[arg-type]
    graph = KnowledgeGraph.from_dataset(room)
    WALKS["qcq"]().stream(graph, tmp_path / "walks", np.int64(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1.9, True, "x", None])
def test_a_seed_that_is_no_whole_number(seed: Any, room: Dataset) -> None:
    for work in (
        lambda: embed(room, "concepts", dim=4, seed=seed),
        lambda: Partition.make(room, seed),
        lambda: room.split(seed),
        lambda: paired_bootstrap([1.0, 2.0], [2.0, 3.0], seed=seed),
        lambda: derive(seed, "walks"),
    ):
        with pytest.raises(ArgumentError, match="seed takes a whole number"):
            work()


def test_numbers_stay_numbers_when_more_is_added(room: Dataset) -> None:
    one = embed(room, "tracing", dim=4, numbers=("difficulty", "rasch"))
    more = one.concatenate({"zero": np.zeros(60)})
    assert more.columns == [*one.columns, "zero"]
    assert more.compared.tolist() == [*one.compared, True]
    assert more.nearest("q0", 5) == one.nearest("q0", 5)
    other = Embeddings(one.ids, np.eye(60)[:, :2]).concatenate({"mine": one}, name="walks")
    assert other.columns == ["walks.0", "walks.1", *one.columns]
    assert other.compared.tolist() == [True, True, *one.compared]


def test_two_columns_of_one_name() -> None:
    table = Embeddings(["a", "b"], np.eye(2))
    with pytest.raises(EmbeddingError, match=r"two columns would be called 'x.1'"):
        table.concatenate({"x": np.ones((2, 2)), "x.1": [9, 8]})
    with pytest.raises(EmbeddingError, match="two parts are called 'x'"):
        table.concatenate({"x": [1, 2]}).concatenate({"x": [1, 2]})


def test_what_pandas_has_labelled_goes_to_its_question() -> None:
    pd = pytest.importorskip("pandas")
    table = Embeddings(["a", "b", "c"], np.eye(3))
    shuffled = pd.Series([3.0, 1.0, 2.0], index=["c", "a", "b"])
    assert table.concatenate({"x": shuffled}).vectors[:, 3].tolist() == [1, 2, 3]
    assert table.concatenate({"x": shuffled.reset_index(drop=True)}).vectors[:, 3].tolist() == [3, 1, 2]
    with pytest.raises(EmbeddingError, match="index that isn't the questions"):
        table.concatenate({"x": shuffled.iloc[:2]})
    assert [name for name, _ in table.nearest("a", where=shuffled > 2)] == ["c"]
    assert [name for name, _ in table.nearest("a", where=(shuffled > 2).astype("boolean"))] == ["c"]


@pytest.mark.parametrize("where", [["a", "b", "c"], [0, 1, 2], ["False"] * 3, [True, None, False]])
def test_what_is_no_truth_value(where: Any) -> None:
    with pytest.raises(EmbeddingError, match="not truth values"):
        Embeddings(["a", "b", "c"], np.eye(3)).nearest("a", where=where)


def test_features_of_torch_and_masked_ones() -> None:
    table = Embeddings(["a", "b"], np.eye(2))
    learning: Any = torch.ones(2, requires_grad=True)
    assert table.concatenate({"x": learning}).vectors[:, 2].tolist() == [1, 1]
    assert table.concatenate({"x": learning.to(torch.bfloat16)}).vectors[:, 2].tolist() == [1, 1]
    assert table.concatenate({"x": [learning[0], learning[1]]}).vectors[:, 2].tolist() == [1, 1]
    assert Embeddings(["a"], [learning]).vectors.tolist() == [[1, 1]]
    with pytest.raises(EmbeddingError, match="'meta'"):
        table.concatenate({"x": learning.to("meta")})
    for masked in (np.ma.masked_equal([[1.0, 2.0], [3.0, 999.0]], 999.0),):
        with pytest.raises(EmbeddingError, match="masked numbers"):
            table.concatenate({"x": masked})
        with pytest.raises(EmbeddingError, match="masked numbers"):
            Embeddings(["a", "b"], masked)


def test_settings_that_would_change_nothing(room: Dataset) -> None:
    with pytest.raises(ConfigError, match="sgns: the recipe similar has settings of its own"):
        embed(room, "similar", dim=4, sections={"sgns": {"window": 3}})
    made = embed(room, trainer="svd", dim=4, sections={"svd": {"dim": 3}})
    assert (made.dim, made.provenance["dim"]) == (3, 3)


def test_a_way_to_fill_in_that_is_none(room: Dataset) -> None:
    with pytest.raises(ArgumentError, match="missing takes 'refuse' or"):
        Embeddings(["q0"], [[1.0]]).matched(room, "zeros")  # type: ignore[arg-type]


NAMES = [(b"q1", "q1"), (1, "1"), (1.0, "1"), (np.int8(3), "3"), (True, "1"), (Decimal("2.0"), "2"), (2.5, "2.5")]
NAMES += [(ip_address("10.0.0.0"), "10.0.0.0"), (torch.tensor(7), "7")]


@pytest.mark.parametrize(("given", "name"), NAMES)
def test_a_name_is_the_same_wherever_it_comes_from(given: Any, name: str) -> None:
    assert named(given) == name
    assert Embeddings([given], [[1.0]]).ids == [name]
    assert read([(given, "c")]).questions == (name,)
    assert KnowledgeGraph([given], ["c"], scipy.sparse.csr_array([[1.0]])).questions == (name,)
    graph = nx.Graph([(given, "c")])
    nx.set_node_attributes(graph, {given: 0, "c": 1}, "bipartite")
    assert KnowledgeGraph.from_networkx(graph).questions == (name,)


@pytest.mark.parametrize("given", [np.array(["a"]), ["a"], {"a"}, torch.ones(2), b"\xff"])
def test_what_is_no_name(given: Any) -> None:
    with pytest.raises(DataError):
        named(given)
    table = Embeddings(["a"], [[1.0]])
    assert given not in table
    with pytest.raises(EmbeddingError, match="row 1 has a question id that is none"):
        Embeddings([given], [[1.0]])


def test_a_node_that_is_a_pair_keeps_both_halves() -> None:
    graph = nx.Graph([(("alg", 1), "c"), (("geo", 1), "c")])
    nx.set_node_attributes(graph, {("alg", 1): 0, ("geo", 1): 0, "c": 1}, "bipartite")
    assert KnowledgeGraph.from_networkx(graph).questions == ("('alg', 1)", "('geo', 1)")


@pytest.mark.parametrize(
    ("names", "said"), [([1, "1"], "called '1'"), (["a", "a"], "called 'a'"), ([{"a"}, "b"], "several values")]
)
def test_names_of_a_graph(names: list[Any], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        KnowledgeGraph(names, ["c"], scipy.sparse.csr_array([[1.0], [1.0]]))
    with pytest.raises(GraphError, match="half a character"):
        KnowledgeGraph(["\ud800", "b"], ["c"], scipy.sparse.csr_array([[1.0], [1.0]]))


@pytest.mark.parametrize("missing", [np.nan, None, 2, "right"])
def test_a_missing_answer_is_no_wrong_one(missing: Any) -> None:
    truth = [1, 0, missing, 0]
    for work in (
        lambda: auc_units(truth, [0.1, 0.2, 0.3, 0.4]),
        lambda: decompose(truth, [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]),
        lambda: balanced(truth, [0, 0, 1, 1]),
    ):
        with pytest.raises(EvaluationError, match="neither 0 nor 1"):
            work()


def test_intervals_that_there_are_none_of() -> None:
    given = [1, 0, 1, 0], [0.9, 0.4, 0.6, 0.5], [0, 0, 1, 1]
    for how, said in (({"level": 95.0}, "level is 95"), ({"draws": 0}, "draws is 0")):
        for work in (
            lambda how=how: paired_bootstrap([1.0, 2.0], [2.0, 2.5], **how),
            lambda how=how: simultaneous([Contest(np.eye(3), [(0, 1)])], **how),
            lambda how=how: bootstrap_decomposition(*given, **how),
        ):
            with pytest.raises(EvaluationError, match=said):
                work()


def test_a_frame_of_bytes_is_text() -> None:
    assert read(pl.DataFrame({"question": [b"q1", b"q2"], "concept": ["a", "b"]})).questions == ("q1", "q2")


def test_what_belongs_elsewhere_is_said(room: Dataset, part: Partition, table: Embeddings, tmp_path) -> None:
    with pytest.raises(ArgumentError, match="dataset takes a Dataset, given DataFrame; read one with"):
        Experiment(Config(), pl.DataFrame({"question": ["a"], "concept": ["b"]}))  # type: ignore[arg-type]
    for work in (lambda: audit(tmp_path), lambda: trace(str(tmp_path), [])):  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match=r"run takes a Run, given \w+.*; open one with Run.open"):
            work()
    with pytest.raises(ArgumentError, match="student takes a whole number, given str 's3'"):
        KT(part).mastery(table, "s3")  # type: ignore[arg-type]


def test_a_table_finds_its_model_from_another_folder(room: Dataset, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = embed(room, "concepts", dim=2)
    made.save_model(Path("vectors.npz"))
    made.save("vectors.npz")
    read_back = Embeddings.load("vectors.npz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    new = {"new": [room.concepts[0]]}
    assert np.array_equal(read_back.infer(new).vectors, made.infer(new).vectors)


def test_whole_numbers_that_no_float_holds() -> None:
    huge = 10**400
    with pytest.raises(EmbeddingError, match="number that is too large"):
        Embeddings(["a"], [[huge]])  # type: ignore[arg-type]
    with pytest.raises(EmbeddingError, match="'x': question vectors have a number that is too large"):
        Embeddings(["a"], [[1.0]]).concatenate({"x": [huge]})
    with pytest.raises(EvaluationError, match="neither 0 nor 1"):
        auc_units([0, huge], [0.1, 0.2])
    graph = nx.Graph()
    graph.add_nodes_from([("q", {"bipartite": 0}), ("c", {"bipartite": 1})])
    graph.add_edge("q", "c", weight=huge)
    with pytest.raises(GraphError, match="give a positive number"):
        KnowledgeGraph.from_networkx(graph)
