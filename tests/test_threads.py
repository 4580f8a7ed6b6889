"""What the process has set has no say in a result: the number of threads, and what torch was told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from qcq.data import Dataset, Simulated
from qcq.embeddings import Embeddings
from qcq.engine import Cell, Plan, Processes, Serial, Store
from qcq.evaluation import KT, TASKS, Partition, Score, Task
from qcq.evaluation.tracing.tasks import KTSettings
from qcq.floors.losses import measure
from qcq.graph import KnowledgeGraph
from qcq.models import MLM, PEBG, TRAINERS, Trainer, TrainingData
from qcq.models.language.huggingface import export, load
from qcq.models.trainer import LookupModel
from qcq.recipes import embed
from qcq.report.diff import difference
from qcq.report.maps import draw
from qcq.support.reproducible import reproducible

BACKENDS: Any = torch.backends  # their settings have no types


def most() -> int:
    """The most threads that a BLAS library of this process may use."""
    return max(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    """Outside of qcq, BLAS has two threads, and has them again afterwards."""
    import scipy.linalg  # noqa: F401

    with threadpool_limits(2, "blas"):
        yield
        assert most() == 2


@dataclass(frozen=True, eq=False, repr=False)
class Told(LookupModel):
    """Adds the number of threads to its vectors when they are read."""

    def _read(self, readout) -> Embeddings:
        return replace(super()._read(readout), vectors=self.vectors + np.float32(10 * most()))


@dataclass(frozen=True, kw_only=True)
class Asked(Trainer):
    """Its vectors are the number of threads."""

    learns = False

    def fit(self, source, seed=0, progress=None) -> LookupModel:
        return Told(source.graph, np.full((source.graph.n_questions, self.dim), most(), dtype=np.float32))


class Counted(Task):
    """Its figure is the number of threads, here and when it was made."""

    def __init__(self, partition) -> None:
        super().__init__(partition)
        self.before = most()

    def score(self, embeddings, stage="test", others=()) -> Score:
        return Score({"here": float(most()), "before": float(self.before)}, {})


@dataclass(frozen=True, eq=False, kw_only=True)
class Loading(Cell):
    """Loads the BLAS of scipy, as a closed form does; its figure is the number of threads."""

    def run(self, store, progress):
        import scipy.linalg  # noqa: F401

        return {"threads": most()}


@pytest.fixture(scope="module")
def room() -> Dataset:
    return Simulated(questions=1_200, concepts=50, students=200, responses=30).read()


def test_any_trainer_and_any_task_has_one_thread(room: Dataset) -> None:
    part = Partition.make(room)
    assert most() == 2
    made = Asked(dim=2).fit(TrainingData(part.graph)).embeddings()
    assert set(made.vectors.ravel()) == {11.0}
    assert Counted(part).score(made).metrics == {"here": 1.0, "before": 1.0}


def test_new_questions_and_differences_have_one_thread(room: Dataset, monkeypatch) -> None:
    import scipy.linalg

    made = embed(room, trainer="svd", dim=8)
    asked, infer, turned = [], TRAINERS["svd"].infer, scipy.linalg.orthogonal_procrustes
    monkeypatch.setattr(TRAINERS["svd"], "infer", lambda *given: asked.append(most()) or infer(*given))
    monkeypatch.setattr("scipy.linalg.orthogonal_procrustes", lambda *given: asked.append(most()) or turned(*given))
    made.infer({"new": list(room.concepts[:7])})
    difference(made, made)
    assert asked == [1, 1]


def test_held_out_losses_have_one_thread(room: Dataset, monkeypatch) -> None:
    source = TrainingData(KnowledgeGraph.from_dataset(room))
    model, asked = TRAINERS["oracle"](dim=2).fit(source), []
    losses = type(model).losses
    monkeypatch.setattr(type(model), "losses", lambda *given: asked.append(most()) or losses(*given))
    measure(model, source)
    assert asked == [1]


def test_libraries_are_looked_for_when_a_module_was_imported(monkeypatch) -> None:
    looked = []

    class Counting(ThreadpoolController):
        def __init__(self) -> None:
            looked.append(1)
            super().__init__()

    monkeypatch.setattr("threadpoolctl.ThreadpoolController", Counting)
    monkeypatch.setitem(sys.modules, "one_more_than_before", sys)
    for _ in range(3):
        with reproducible():
            pass
    assert len(looked) == 1
    monkeypatch.setitem(sys.modules, "and_another", sys)
    with reproducible():
        pass
    assert len(looked) == 2
    monkeypatch.delitem(sys.modules, "and_another")
    monkeypatch.setitem(sys.modules, "one_in_its_place", sys)  # as many as before
    with reproducible():
        pass
    assert len(looked) == 3


def test_blocks_that_overlap_end_with_the_threads_of_before() -> None:
    """As those of two Python threads do: the first to begin ends first."""
    first, second = reproducible(), reproducible()
    for block in (first, second):
        block.__enter__()
        assert most() == 1
    first.__exit__(None, None, None)
    assert most() == 1
    second.__exit__(None, None, None)
    assert most() == 2


def test_clusters_are_found_on_one_thread(room: Dataset, monkeypatch) -> None:
    """Threads of k-means add up their parts in the order in which they end."""
    from sklearn.cluster import KMeans

    part, asked, fit = Partition.make(room), [], KMeans.fit_predict
    table = TRAINERS["random"](dim=8).fit(TrainingData(part.graph)).embeddings()

    def counted(*given):
        asked.append({each["num_threads"] for each in threadpool_info()})
        return fit(*given)

    monkeypatch.setattr(KMeans, "fit_predict", counted)
    with threadpool_limits(2):
        TASKS["clusters"](part).score(table)
    assert asked == [{1}]


def test_a_map_is_the_same_on_any_number_of_threads() -> None:
    """Threads of a search for neighbours choose among rows that are equally near; here each is one of a hundred."""
    import sklearn.neighbors  # noqa: F401  (its library must be there to be given two threads)

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((15, 8))[rng.integers(15, size=1_500)]
    table = Embeddings([f"q{i}" for i in range(1_500)], rows)
    with threadpool_limits(2):
        many = draw(table, np.arange(1_500))
    with threadpool_limits(1):
        one = draw(table, np.arange(1_500))
    for name, value in vars(one).items():
        assert np.array_equal(getattr(many, name), value), name


def test_kt_fast_scores_the_same_on_any_number_of_threads(room: Dataset) -> None:
    part = Partition.make(room)
    table = TRAINERS["random"](dim=64).fit(TrainingData(part.graph)).embeddings()
    many = TASKS["kt-fast"](part).score(table)
    with threadpool_limits(1, "blas"):
        one = TASKS["kt-fast"](part).score(table)
    assert many.metrics == one.metrics
    assert {name: each.tobytes() for name, each in many.units.items()} == {
        name: each.tobytes() for name, each in one.units.items()
    }


def test_a_cell_has_one_thread(tmp_path) -> None:
    store = Store(tmp_path / "cells").open()
    assert Plan([Loading()]).execute(Serial(store), store).row(Loading()) == {"threads": 1}


def test_the_first_cell_of_a_process_has_one_thread_too(tmp_path, monkeypatch) -> None:
    """It loads libraries, which the process did not have when the cell began."""
    monkeypatch.setattr("qcq.engine.processes.os.cpu_count", lambda: 8)  # each process may use eight threads
    store = Store(tmp_path / "cells").open()
    with Processes(store, 1) as processes:
        outcome = Plan([Loading()]).execute(processes, store)
    assert outcome.row(Loading()) == {"threads": 1}


@contextmanager
def default_type() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


@contextmanager
def short_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert torch.get_float32_matmul_precision() == "medium"
        assert not hasattr(BACKENDS, "fp32_precision") or BACKENDS.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def short_everything() -> Iterator[None]:
    BACKENDS.fp32_precision = "bf16"
    try:
        yield
        assert BACKENDS.mkldnn.conv.fp32_precision == "bf16"
    finally:
        BACKENDS.fp32_precision = "none"
        assert BACKENDS.mkldnn.conv.fp32_precision == "none"  # it still follows


@contextmanager
def without_onednn() -> Iterator[None]:
    BACKENDS.mkldnn.set_flags(False)
    try:
        yield
        assert not BACKENDS.mkldnn.enabled
    finally:
        BACKENDS.mkldnn.set_flags(True)


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield
        assert torch.is_inference_mode_enabled()


@contextmanager
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield
        assert not torch.is_grad_enabled()


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


# What a notebook sets for its own models.
SETS = [default_type, default_device, short_products, without_onednn, inference, no_grad, autocast]
SETS += [short_everything] if hasattr(BACKENDS, "fp32_precision") else []


@dataclass(frozen=True)
class Everything:
    """Bytes and figures of a training, its read-outs and losses, a file, and a task."""

    source: TrainingData
    task: Task
    folder: Path

    def __call__(self) -> list[object]:
        model = MLM(dim=8, steps=10).fit(self.source)
        vectors = [model.embeddings(name).vectors.tobytes() for name in model.readouts]
        vectors.append(PEBG(dim=8, epochs=2).fit(self.source).embeddings().vectors.tobytes())
        table = TRAINERS["random"](dim=8).fit(self.source).embeddings()
        with TemporaryDirectory(dir=self.folder) as folder:
            vectors.append(table.save(Path(folder, "table.pt")).read_bytes())
        return [*vectors, measure(model, self.source), self.task.score(table).metrics]


@pytest.fixture(scope="module")
def everything(room: Dataset, tmp_path_factory) -> Everything:
    part = Partition.make(room)
    task = KT(part, KTSettings(epochs=1, hidden=4, tables=("frozen",)))
    return Everything(TrainingData(part.graph), task, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def alone(everything: Everything) -> list[object]:
    return everything()


@pytest.mark.parametrize("set_", SETS)
def test_what_torch_was_told_has_no_say(set_, everything: Everything, alone: list[object]) -> None:
    with set_():
        assert everything() == alone


def test_products_are_those_of_float32() -> None:
    """Not all machines have shorter ones, so this looks at what is set."""
    if not hasattr(BACKENDS, "fp32_precision"):
        pytest.skip("torch before 2.9 has one setting")
    one = BACKENDS.mkldnn
    for set_ in (short_products, short_everything):
        with set_(), reproducible():
            for each in (one.matmul, one.conv, one.rnn, BACKENDS.cuda.matmul):
                assert each.fp32_precision in ("none", "ieee")


def test_threads_that_train_at_once_make_the_same_bytes() -> None:
    """torch has one random state for all of them."""
    trainer, often = MLM(dim=8, steps=20, dropout=0.3), sys.getswitchinterval()
    source = TrainingData(KnowledgeGraph.from_dataset(Simulated(questions=60, concepts=6).read()))

    def made(seed: int) -> bytes:
        slow = lambda *given, **figures: time.sleep(0.01)  # noqa: E731  (another thread goes on here)
        return trainer.fit(source, seed, slow).embeddings().vectors.tobytes()

    one_by_one = [made(seed) for seed in range(3)]
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(made, range(3))) == one_by_one
    finally:
        sys.setswitchinterval(often)


def test_a_torch_that_another_thread_is_loading_is_waited_for(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(1)\nwhole = True\n")
    code = (
        f"import sys, threading, time; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from qcq.support.reproducible import _torch\n"
        "threading.Thread(target=lambda: __import__('torch')).start()\n"
        "while 'torch' not in sys.modules: time.sleep(0.01)\n"
        "assert _torch().whole"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("set_", SETS)
def test_a_bert_is_exported_and_read_whatever_torch_was_told(set_, room: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = TrainingData(KnowledgeGraph.from_dataset(room))
    model = MLM(dim=8, steps=2, layout="bert", norm="post", position="absolute", heads=4).fit(source)
    whole = export(model, tmp_path / "alone") / "model.safetensors"
    with set_():
        assert (export(model, tmp_path / "other") / "model.safetensors").read_bytes() == whole.read_bytes()
        read = load(tmp_path / "other", source).embeddings()
    assert np.array_equal(read.vectors, load(tmp_path / "alone", source).embeddings().vectors)


@pytest.mark.parametrize("name", ["svd", "spectral", "ppmi-svd"])
def test_closed_forms_are_the_same_bytes_on_any_number_of_threads(name: str, room: Dataset) -> None:
    source = TrainingData(KnowledgeGraph.from_dataset(room))
    many = TRAINERS[name](dim=64).fit(source).embeddings()
    with threadpool_limits(1, "blas"):
        one = TRAINERS[name](dim=64).fit(source).embeddings()
    assert many.vectors.tobytes() == one.vectors.tobytes()


def test_a_recipe_is_the_same_bytes_on_any_number_of_threads(room: Dataset) -> None:
    many = embed(room, "tracing", dim=64)
    with threadpool_limits(1, "blas"):
        one = embed(room, "tracing", dim=64)
    assert many.vectors.tobytes() == one.vectors.tobytes()
