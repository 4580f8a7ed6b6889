"""Large banks: a projection in bounded memory, tables refused before they begin, estimates that are near the truth."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

import qcq
from qcq import embeddings
from qcq.cli import main
from qcq.data import Simulated, read
from qcq.data import table as tables
from qcq.data.text import records as text_records
from qcq.embeddings import Embeddings
from qcq.engine import estimate
from qcq.engine.estimate import Rates
from qcq.errors import ConfigError, DataError, EmbeddingError, TrainingError
from qcq.evaluation import TASKS, KTFast, Partition, edges, ranking
from qcq.evaluation.task import Score
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models import TRAINERS, TrainingData, baselines, projection
from qcq.walks import WALKS


def weighted_graph() -> KnowledgeGraph:
    """Uneven weights, a question alone, a concept alone, two components."""
    dense = np.zeros((9, 6))
    for q, c, weight in [(0, 0, 1), (0, 1, 2), (1, 1, 1), (2, 0, 3), (3, 2, 1), (4, 2, 2), (4, 3, 1), (5, 3, 1)]:
        dense[q, c] = weight
    dense[6, [2, 3]] = 0.5
    dense[7, 1] = 4
    return KnowledgeGraph([f"q{i}" for i in range(9)], [f"c{i}" for i in range(6)], sparse.csr_array(dense))


def dense_fastrp(graph: KnowledgeGraph, trainer, seed: int) -> np.ndarray:
    """Σ_k w_k P^k L R by dense matrices of questions × questions."""
    w = graph.weights.toarray()
    d_q, d_c = w.sum(axis=1), w.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.nan_to_num(w / d_q[:, None]) @ np.nan_to_num(w / d_c).T
    pi = d_q / d_q.sum()
    scale = np.diag([x**trainer.beta if x > 0 else 0 for x in pi])
    stream = projection.derive(seed, "fastrp")
    r = np.vstack([trainer._random(at, slice(0, trainer.dim), stream) for at in projection._blocks(len(pi))])
    return sum(weight * np.linalg.matrix_power(p, k) @ scale @ r for k, weight in enumerate(trainer.weights, start=1))


@pytest.mark.parametrize("beta", [0.0, -0.5, -1.0])
@pytest.mark.parametrize("weights", [(1.0,), (0.0, 2.0, -1.0)])
def test_fastrp_is_the_dense_formula(monkeypatch, beta, weights):
    monkeypatch.setattr(projection, "_ROWS", 4)  # several blocks, the last one shorter
    trainer = TRAINERS["fastrp"](dim=20, beta=beta, weights=weights)
    for graph in (weighted_graph(), KnowledgeGraph.from_dataset(Simulated(questions=150, concepts=12).read())):
        model = trainer.fit(TrainingData(graph), 3)
        exact = dense_fastrp(graph, trainer, 3)
        size = np.abs(exact).max()
        hubs = model.frozen()["concepts"]
        np.testing.assert_allclose(projection.rows(graph.weights) @ hubs, exact, atol=1e-10 * size)
        np.testing.assert_allclose(model.embeddings().vectors, exact, atol=1e-5 * size)
        assert size > 0


def test_fastrp_has_the_same_bytes_in_one_pass_or_several(monkeypatch):
    graph = KnowledgeGraph.from_dataset(Simulated(questions=300, concepts=20, responses=0).read())
    whole = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 1).embeddings()
    monkeypatch.setattr(projection, "_HELD", 1)  # a strip of columns at a time
    strips = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 1).embeddings()
    assert whole.vectors.tobytes() == strips.vectors.tobytes()
    other = TRAINERS["fastrp"](dim=40).fit(TrainingData(graph), 2).embeddings()
    assert not np.allclose(whole.vectors, other.vectors)


def test_the_projection_has_the_variance_of_the_formula():
    trainer = TRAINERS["fastrp"](dim=64, sparsity=4)
    r = trainer._random(slice(0, 20_000), slice(0, 64), 5)
    assert set(np.unique(r)) == {-2.0, 0.0, 2.0}
    assert abs((r != 0).mean() - 0.25) < 0.003
    assert np.abs(r.T @ r / len(r) - np.eye(64)).max() < 0.06  # six standard errors


def test_fastrp_puts_questions_of_the_same_concepts_together():
    graph = KnowledgeGraph.from_dataset(Simulated(questions=400, concepts=16, responses=0).read())
    emb = TRAINERS["fastrp"]().fit(TrainingData(graph)).embeddings()
    cosine = emb.unit @ emb.unit.T
    same = graph.concept_sets[:, None] == graph.concept_sets
    assert cosine[same].min() > 0.999
    shared = (graph.weights @ graph.weights.T).toarray() > 0
    assert cosine[shared & ~same].mean() > cosine[~shared].mean() + 0.2


def test_a_typed_graph_without_responses_is_the_plain_one():
    graph = KnowledgeGraph.from_dataset(Simulated(questions=120, concepts=10, responses=0).read())
    typed = TypedGraph.of(graph, None)
    walk = WALKS["metapath"](pattern="q-c-q")
    plain = TRAINERS["fastrp"](dim=16).fit(TrainingData(graph), 4).embeddings()
    other = TRAINERS["fastrp"](dim=16).fit(TrainingData(typed, walk), 4).embeddings()
    np.testing.assert_allclose(plain.vectors, other.vectors, atol=1e-5)


def test_fastrp_refuses_what_it_cannot_do():
    alone = KnowledgeGraph(["a"], ["c"], sparse.csr_array((1, 1)))
    with pytest.raises(TrainingError, match="fastrp needs edges"):
        TRAINERS["fastrp"]().fit(TrainingData(alone))
    with pytest.raises(ConfigError, match="not all of them zero"):
        TRAINERS["fastrp"](weights=(0.0,))
    graph = weighted_graph()
    isolated = TRAINERS["fastrp"](dim=4).fit(TrainingData(replace(graph))).embeddings().vectors[8]
    assert not isolated.any()


# --- tables that may be too large -----------------------------------------------------------------------------------


def room(questions: int = 400, concepts: int = 20) -> KnowledgeGraph:
    return KnowledgeGraph.from_dataset(Simulated(questions=questions, concepts=concepts, responses=0).read())


def test_a_tall_matrix_is_factorised_in_blocks(monkeypatch):
    graph = room()
    for name in ("svd", "spectral"):
        whole = TRAINERS[name](dim=12).fit(TrainingData(graph)).embeddings().vectors
        monkeypatch.setattr(baselines, "TALL", 0)
        monkeypatch.setattr(baselines, "_ROWS", 64)
        blocks = TRAINERS[name](dim=12).fit(TrainingData(graph)).embeddings().vectors
        monkeypatch.undo()
        np.testing.assert_allclose(whole @ whole.T, blocks @ blocks.T, atol=1e-4)


def test_a_one_hot_table_that_is_too_large_is_refused_before_it_is_made():
    many = sparse.csr_array((np.ones(200_000), (np.arange(200_000), np.arange(200_000) % 50_000)))
    graph = KnowledgeGraph([f"q{i}" for i in range(200_000)], [f"c{i}" for i in range(50_000)], many)
    with pytest.raises(TrainingError, match=r"needs 46\.\d GiB .* the bound is 2.0 GiB: take fastrp or spectral"):
        TRAINERS["concept-onehot"]().fit(TrainingData(graph))


def test_cosines_in_blocks_are_the_cosines(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 5)).astype(np.float32)
    for table in (rows, np.vstack([rows, rows[:40]])):
        queries = np.arange(0, len(table), 7)
        cosines = ranking.Cosines(table)
        whole = {query: row.copy() for query, row, _ in cosines.of(queries)}
        monkeypatch.setattr(ranking, "_STRIP", 32)
        blocks = {query: row.copy() for query, row, _ in cosines.of(queries)}
        monkeypatch.undo()
        for query in queries:
            assert np.abs(whole[query] - blocks[query]).max() <= 1  # a millionth, by rounding


def test_the_edges_of_a_large_bank_are_a_sample_of_them(monkeypatch):
    partition = Partition.make(Simulated(questions=1_500, concepts=30, responses=0).read())
    emb = TRAINERS["fastrp"]().fit(TrainingData(partition.graph)).embeddings()
    task = TASKS["edges"](partition)
    whole = task.score(emb).units["mrr"]
    monkeypatch.setattr(edges, "LARGEST", 60)
    some = task.score(emb).units["mrr"]
    assert len(some) == 60 < len(whole)
    assert set(some) <= set(whole)
    assert some.tobytes() == TASKS["edges"](partition).score(emb).units["mrr"].tobytes()


# --- files of many rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", ",", ",\n,\n", "\n\n"])
def test_empty_cells_do_not_need_the_slow_way(tmp_path, monkeypatch, end, tail):
    text = "question,concepts\nq1,c1;c2\nq2,\nq3,c2\nq4,\n" + tail
    (tmp_path / "bank.csv").write_bytes(text.replace("\n", end).encode())
    slow = []
    monkeypatch.setattr(tables, "records", lambda *given: slow.append(given) or text_records(*given))
    data = read(str(tmp_path / "bank.csv"))
    assert len(slow) == 1  # the heading alone
    assert list(data.questions) == ["q1", "q2", "q3", "q4"]
    assert data.q_matrix.toarray().tolist() == [[1, 1], [0, 0], [0, 1], [0, 0]]


def test_a_row_of_empty_cells_in_the_middle_is_still_an_error(tmp_path):
    (tmp_path / "bank.csv").write_text("question,concepts\nq1,c1\n,\nq2,c1\n")
    with pytest.raises(DataError, match="row 3: blank line"):
        read(str(tmp_path / "bank.csv"))


def test_a_parquet_bank_is_the_csv_bank(tmp_path):
    rows = {"question": ["q1", "q2", "q3"], "concepts": ["a;b", None, "b"], "text": ["x", "y", "z"]}
    frame = pl.DataFrame(rows)
    frame.write_csv(tmp_path / "one.csv")
    frame.write_parquet(tmp_path / "two.parquet")
    listed = frame.with_columns(pl.col("concepts").str.split(";"))
    listed.write_parquet(tmp_path / "three.parquet")
    one, two, three = (read(str(tmp_path / name)) for name in ("one.csv", "two.parquet", "three.parquet"))
    for other in (two, three):
        assert list(other.questions) == list(one.questions)
        assert KnowledgeGraph.from_dataset(other).digest == KnowledgeGraph.from_dataset(one).digest
        assert any("columns not read: 'text'" in note for note in other.notes)


def test_a_parquet_folder_with_responses(tmp_path):
    pl.DataFrame({"question": [1, 2], "concept": ["a", "b"]}).write_parquet(tmp_path / "questions.parquet")
    answers = {"student": ["s"] * 3, "question": [1, 2, 1], "correct": [True, False, True]}
    pl.DataFrame(answers).write_parquet(tmp_path / "interactions.parquet")
    data = read(str(tmp_path))
    assert data.interactions is not None
    assert data.interactions.correct.tolist() == [1, 0, 1]


def test_parquet_files_with_errors(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="no readable Parquet file"):
        read(f"csv:{tmp_path / 'bad.parquet'}")
    pl.DataFrame({"question": ["a"], "colour": ["b"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="missing column"):
        read(f"csv:{tmp_path / 'other.parquet'}")
    pl.DataFrame({"question": ["a", " "], "concept": ["b", "b"]}).write_parquet(tmp_path / "blank.parquet")
    with pytest.raises(DataError, match=r"blank.parquet.*row 1.*blank identifier"):
        read(str(tmp_path / "blank.parquet"))


# --- memory is known before -------------------------------------------------------------------------------------------


def peak(work) -> int:
    """Most bytes that numpy and Python held during the work, beyond those before it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("questions", [20_000, pytest.param(60_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["svd", "spectral", "fastrp", "sgns", "concept-onehot", "netmf"])
def test_a_trainer_knows_its_memory(name, questions):
    """Within a factor of 1.5 either way; netmf within 2.5, because its factorisations have buffers of their own."""
    graph = room(questions, 200)
    walk = WALKS["qcq"](length=10, per_question=2)
    source = TrainingData(graph, walk)
    trainer = TRAINERS[name](dim=32)
    small = TrainingData(room(), walk)
    trainer.fit(small)  # what is loaded and compiled once
    if name == "sgns":
        _ = source.corpus
    _ = graph.by_concept, graph.concept_sets
    told = trainer.memory(graph, 2 * questions, 10)
    found = peak(lambda: trainer.fit(source))
    factor = 2.5 if name == "netmf" else 1.5
    assert told / factor < found < told * factor, (told, found)


@pytest.mark.parametrize(
    "name", ["edges", *(pytest.param(n, marks=pytest.mark.slow) for n in ("retrieval", "stability"))]
)
def test_a_task_knows_its_memory(name):
    """Within a factor of 2 either way."""
    partition = Partition.make(Simulated(questions=40_000, concepts=200, responses=0).read())
    rng = np.random.default_rng(0)
    one, other = (
        Embeddings(partition.graph.questions, rng.normal(size=(40_000, 32)).astype(np.float32)) for _ in range(2)
    )
    task = TASKS[name](partition)
    told = task.memory(partition.graph, 32)
    found = peak(lambda: task.score(one, "test", [other]))
    assert told / 2 < found < told * 2, (told, found)


def test_what_a_stage_cannot_do_within_the_bound_is_said_before_it_begins(monkeypatch):
    graph = room()
    monkeypatch.setenv("QCQ_MAX_MEMORY", "100k")
    for name in ("netmf", "sgns", "svd"):
        with pytest.raises(TrainingError, match=r"needs about .* the bound is .*: raise --max-memory, or take fastrp"):
            TRAINERS[name]().fit(TrainingData(graph))
    monkeypatch.setenv("QCQ_MAX_MEMORY", "1G")
    TRAINERS["svd"]().fit(TrainingData(graph))
    monkeypatch.setenv("QCQ_MAX_MEMORY", "much")
    with pytest.raises(ConfigError, match="QCQ_MAX_MEMORY 'much': write a number of bytes"):
        TRAINERS["svd"]().fit(TrainingData(graph))


def test_a_dry_run_says_which_cells_are_beyond_the_bound(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QCQ_MAX_MEMORY", "")  # what the command sets is taken back
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    asked = "--trainers svd --tasks retrieval --seeds 1 --set tune=false --set simulated.questions=300"
    with pytest.raises(SystemExit) as ended:
        main(["run", *asked.split(), "--dry-run", "--max-memory", "200k"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "needs more than --max-memory" in said
    kept = list((tmp_path / "cache" / "qcq").glob("rates-*.json"))
    assert len(kept) == 1
    assert any("SVD" in key for key in json.loads(kept[0].read_text()))


def test_the_time_of_a_task_has_its_training_once(monkeypatch):
    """A task keeps what it trained, so a second score by the same task says nothing of the training."""
    spent = {"train": 8.0, "predict": 1.0}
    clock = [0.0]

    class Trains(KTFast):
        def score(self, embeddings, stage="test", others=()):
            new = not vars(self).get("trained")
            self.trained = True
            clock[0] += spent["predict"] + spent["train"] * new
            return Score({"auc": 0.5}, {})

    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    rates = Rates()
    responses = len(rates._problem.dataset.interactions)
    assert rates.scoring(Trains, None, responses) == pytest.approx(9.0)
    assert rates.scoring(Trains, None, responses, stages=2) == pytest.approx(10.0)
    assert rates.scoring(Trains, None, 3 * responses, stages=2) == pytest.approx(30.0)


def test_a_cell_asks_for_the_time_of_all_its_stages(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(Rates, "scoring", lambda self, task, settings, size, stages=1: asked.append(stages) or 0.0)
    given = "--trainers svd --tasks kt --seeds 1 --set tune=false --set simulated.questions=300"
    with pytest.raises(SystemExit):
        main(["run", *given.split(), "--dry-run", "--out", str(tmp_path / "run")])
    assert max(asked) == 2


def test_noise_of_a_small_bank_does_not_grow_in_a_prediction(monkeypatch):
    """Seconds: start of a process and a share of the largest bank. Peaks: the line through the two largest."""
    scale = _scale(monkeypatch)
    job = scale.Job(10_000_000, 2, Path("unused"))

    def rows(slow):
        taken = {1_000: 1.0, 1_000_000: 3.0 * slow, 2_500_000: 6.0}
        peaks = {1_000: 50, 1_000_000: 100, 2_500_000: 175}
        about = {"stage": "bank", "walks": 2}
        return [{**about, "size": n, "seconds": t, "cpu_seconds": t, "peak": peaks[n]} for n, t in taken.items()]

    found = []
    for slow in (1.0, 1.9):
        monkeypatch.setattr(scale, "remembered", lambda slow=slow: rows(slow))
        found.append(scale.predicted("bank", job))
    assert found[0] == found[1]
    assert found[0]["seconds"] == pytest.approx(1 + 5 * (10_000_000 - 1_000) / (2_500_000 - 1_000))
    assert found[0]["peak"] == pytest.approx(175 + 75 / 1_500_000 * 7_500_000)
    monkeypatch.setattr(scale, "remembered", lambda: rows(1.0)[:1])
    assert scale.predicted("bank", job) is None


def _scale(monkeypatch):
    folder = Path(qcq.__file__).parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("scale_benchmark", folder / "scale.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_size_has_its_own_column_and_a_stage_can_not_rename_itself(monkeypatch):
    scale = _scale(monkeypatch)
    sizes = [1_000, 2_000_000, 2_500_000, 10_000_000]
    assert [scale.label(size) for size in sizes] == ["1e3", "2e6", "2.5e6", "1e7"]
    row = {"stage": "walks", "cpu_seconds": 1.0, "peak": 2**30, "bytes": 0, "walks": 2}
    (column,) = [each for each in scale.curves([{**row, "size": size} for size in sizes]) if "cpu 1e3" in each]
    assert {f"cpu {scale.label(size)}" for size in sizes} <= set(column)
    job = scale.Job(1_000, 2, Path("unused"))
    told = "import sys; print('{\"walks\": 7}')"
    monkeypatch.setattr(scale.sys, "executable", sys.executable)
    monkeypatch.setattr(scale, "__file__", told)
    began = scale.subprocess.Popen

    def instead(command, **more):
        return began([command[0], "-c", told], **more)

    monkeypatch.setattr(scale.subprocess, "Popen", instead)
    with pytest.raises(AssertionError, match="own figure"):
        scale.alone("walks", job, 2**40)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_vectors_are_checked_and_scaled_strip_by_strip(monkeypatch, rows):
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    vectors[4] = 0
    names = [f"q{i}" for i in range(7)]
    whole = Embeddings(names, vectors)
    expected = whole.unit
    monkeypatch.setattr(embeddings, "_ROWS", rows)
    assert np.array_equal(Embeddings(names, vectors).unit, expected)
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    assert expected == pytest.approx(vectors / np.where(norm > 0, norm, 1), abs=1e-6)
    vectors[5, 1] = np.nan
    with pytest.raises(EmbeddingError, match="question 'q5' has NaN"):
        Embeddings(names, vectors)


def test_rates_are_measured_once_a_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Rates.of_machine()
    seconds = first.training(TRAINERS["svd"](), 1_000)
    calls = []
    monkeypatch.setattr(estimate, "_timed", lambda work: calls.append(work) or 0.0)
    assert Rates.of_machine().training(TRAINERS["svd"](), 1_000) == pytest.approx(seconds)
    assert not calls
    next(tmp_path.glob("qcq/*.json")).write_text("{broken")
    Rates.of_machine().training(TRAINERS["svd"](), 1_000)
    assert len(calls) == 1
