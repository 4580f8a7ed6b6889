"""Cells on Ray: the bytes of one process, on several raylets, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from qcq.config import Config
from qcq.corpus import Corpus
from qcq.data import Simulated
from qcq.engine import Cell, Plan, Ray, RayCluster, Row, Store, make_store
from qcq.engine.kinds import Trained, Walked
from qcq.errors import ConfigError, EngineError, TrainingError
from qcq.evaluation import Partition
from qcq.graph import KnowledgeGraph
from qcq.models import SGNS, TrainingData, sgns_parts
from qcq.models.word2vec import PairModel
from qcq.pipeline import Experiment
from qcq.run import Run
from qcq.support.cluster import connect, machines
from qcq.support.progress import Watch

SMALL = ["walk.length=8", "walk.per_question=2", "mlm.steps=10", "simulated.questions=80", "simulated.students=40"]
FEW = Config.load(overrides=[*SMALL, "dim=8", "seeds=1", "tune=false", "trainers=sgns,mlm,svd"])


@dataclass(frozen=True, eq=False, kw_only=True)
class Number(Cell):
    """A number; it may be asked to fail."""

    number: int
    fails: bool = False

    def run(self, store: Store, progress: Any) -> Row:
        if self.fails:
            raise TrainingError(f"{self.number} is refused")
        progress(1, 1)
        return {"number": self.number}


@dataclass(frozen=True, eq=False, kw_only=True)
class Deadly(Number):
    """Its process is killed, the first time."""

    mark: str

    def run(self, store: Store, progress: Any) -> Row:
        if not Path(self.mark).exists():
            Path(self.mark).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(store, progress)


@dataclass(frozen=True, eq=False, kw_only=True)
class Counted(Number):
    """Says how many machines its process sees."""

    def run(self, store: Store, progress: Any) -> Row:
        return {"machines": machines()}


class Heard(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


MEASURED = ("environment.json", "report.html", "report.md", "manifest.json")


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a run that are made from results, without what was measured by a clock."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith("cells") or name in MEASURED:
            continue
        out[name] = path.read_bytes()
        if name == "training.jsonl":
            rows = [{**json.loads(line), "seconds": 0, "peak_rss_mb": 0} for line in out[name].splitlines()]
            out[name] = json.dumps(rows).encode()
    return out


@dataclass(frozen=True, eq=False, kw_only=True)
class Looked(Cell):
    """Says of every array of the data whether a worker owns it."""

    data: str

    def run(self, store: Store, progress: Any) -> Row:
        graph = store.data[self.data].graph
        answers = store.data[self.data].dataset.interactions
        arrays = {"weights": graph.weights.data, "indices": graph.weights.indices, "answers": answers.correct}
        return {
            "own": [name for name, array in arrays.items() if array.flags.owndata],
            "writeable": [name for name, array in arrays.items() if array.flags.writeable],
            "threads": os.environ["OMP_NUM_THREADS"],
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Doomed(Number):
    """Its process is always killed."""

    def run(self, store: Store, progress: Any) -> Row:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Broken(Number):
    def run(self, store: Store, progress: Any) -> Row:
        raise KeyError("a bug")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The main job in this process."""
    return Experiment(FEW).run(tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Three raylets on this machine, the driver's without a CPU; workers find this module by its name."""
    pytest.importorskip("ray", reason="needs ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        paths = [Path(__file__).parent.parent, Path(__file__).parent]
        patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]))
        # On a busy machine a node takes longer than Ray and we wait for.
        patch.setattr(Cluster._wait_for_node, "__defaults__", (180,))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes(timeout=180)
        with pytest.MonkeyPatch.context() as longer:
            longer.setattr("qcq.engine.ray._ANSWER", 60.0)
            found = RayCluster(made.address)
        yield found
        made.shutdown()


def executed(store: Store, cluster: RayCluster, cells: list[Cell], heard: Heard | None = None) -> Any:
    with Ray(store, cluster, heard) as workers:
        assert workers.slots == 2
        return Plan(cells).execute(workers, store)


@pytest.mark.tools
def test_data_are_shared_and_not_copied(cluster: RayCluster, tmp_path: Path) -> None:
    partition = Partition.make(Simulated(questions=3_000, concepts=50, students=500).read())
    store = Store(tmp_path / "cells", {partition.digest: partition}).open()
    cell = Looked(data=partition.digest)
    assert executed(store, cluster, [cell]).row(cell) == {"own": [], "writeable": [], "threads": "1"}


@pytest.mark.tools
def test_errors_and_deaths_are_those_of_their_cells(cluster: RayCluster, tmp_path: Path) -> None:
    store, heard = Store(tmp_path / "cells").open(), Heard()
    refused, doomed = Number(number=1, fails=True), Doomed(number=2, label="doomed")
    deadly = Deadly(number=7, mark=str(tmp_path / "mark"), label="deadly")
    fine = [Number(number=n) for n in range(3, 6)]
    outcome = executed(store, cluster, [refused, doomed, deadly, *fine], heard)
    with pytest.raises(TrainingError, match=r"^1 is refused$"):
        outcome.row(refused)
    with pytest.raises(EngineError, match=r"^doomed: its worker.* died \(killed\), 4 times; not enough memory\?$"):
        outcome.row(doomed)
    assert outcome.row(deadly) == {"number": 7}  # begun again
    assert [outcome.row(cell)["number"] for cell in fine] == [3, 4, 5]
    assert [line for line in heard.lines if line.startswith("deadly: its worker") and "begun again" in line]
    with pytest.raises(RuntimeError, match="KeyError"):
        executed(store, cluster, [Broken(number=9, label="broken")])


@pytest.mark.tools
def test_a_folder_that_a_node_cannot_see_and_another_version_are_named(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = Store(tmp_path / "not-there")
    with pytest.raises(EngineError, match=r"can't see the folder .*not-there; put it on a disk that all nodes share"):
        executed(unseen, cluster, [Number(number=1)]).row(Number(number=1))
    monkeypatch.setattr(Number, "revision", 2)  # here, not in the workers
    store, cell = Store(tmp_path / "cells").open(), Number(number=1)
    with pytest.raises(EngineError, match="another version of qcq"):
        executed(store, cluster, [cell]).row(cell)


@pytest.mark.tools
def test_cells_go_to_a_store_at_an_address(cluster: RayCluster, tmp_path: Path) -> None:
    address, cells = f"file://{tmp_path}/far", [Number(number=n) for n in range(3)]
    store = make_store(address, tmp_path / "near", {}).open()
    assert [executed(store, cluster, cells).row(cell)["number"] for cell in cells] == [0, 1, 2]
    other = make_store(address, tmp_path / "other", {}).open()
    assert [other.row(cell)["number"] for cell in cells] == [0, 1, 2]


@pytest.mark.tools
def test_the_main_job_has_the_bytes_of_one_process(cluster: RayCluster, one: Run, tmp_path: Path) -> None:
    other = Experiment(FEW).run(tmp_path / "other", jobs=cluster)
    ours, theirs = tree(other.path), tree(one.path)
    assert ours == theirs
    assert sum(name.startswith("embeddings/") for name in ours) >= 3
    plan, stores = Experiment(FEW).plan, [Experiment(FEW).store(run.path) for run in (one, other)]
    corpora = [{cell.corpus(store).digest for cell in plan.cells if isinstance(cell, Walked)} for store in stores]
    assert corpora[0] == corpora[1] != set()
    for cell in plan.cells:
        if isinstance(cell, Trained):
            assert all(stores[1].finished(cell) == stores[0].finished(cell) for store in stores)


def workers_of(parent: int, labels: set[str]) -> list[tuple[int, str]]:
    """Ray workers below ``parent`` that run one of the cells: process id, label. Ray names a process by its task."""
    found, above, names = [], {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(errors="replace")
            names[int(path.parent.name)] = (
                (path.parent / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            )
        except OSError:
            continue
        above[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    for pid, name in names.items():
        at = pid
        while at in above and at != parent:
            at = above[at]
        label = name.strip("\0 ").removeprefix("ray::")
        if at == parent and name.startswith("ray::") and label in labels:
            found.append((pid, label))
    return found


@pytest.mark.tools
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers under /proc")
def test_killed_workers_lose_nothing_and_change_no_byte(cluster: RayCluster, one: Run, tmp_path: Path) -> None:
    labels = {cell.label for cell in Experiment(FEW).plan.cells}
    killed: Counter[str] = Counter()
    ended = threading.Event()
    rng = np.random.default_rng(0)

    def kill() -> None:
        # Each cell at most twice: one that dies four times has no result, and slow machines begin the first for long.
        while not ended.wait(float(rng.uniform(0.1, 1.0))) and killed.total() < 8:
            if running := [each for each in workers_of(os.getpid(), labels) if killed[each[1]] < 2]:
                victim, label = running[int(rng.integers(len(running)))]
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(victim, signal.SIGKILL)
                    killed[label] += 1

    heard = Heard()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        other = Experiment(FEW).run(tmp_path / "other", jobs=cluster, watch=heard)
    finally:
        ended.set()
        killer.join()
    assert not [line for line in heard.lines if "4 times" in line]
    assert tree(other.path) == tree(one.path)
    assert killed.total() >= 2
    assert sum("is begun again" in line for line in heard.lines) <= killed.total()


PARTED = Config.load(overrides=[*SMALL, "dim=8", "seeds=1", "tune=false", "trainers=sgns", "tasks=retrieval"])
PARTED = replace(PARTED, sections={**PARTED.sections, "sgns": {"parts": 3, "period": 200}})


@pytest.mark.tools
def test_parts_of_sgns_have_the_bytes_of_one_process_whoever_is_killed(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    tokens = np.random.default_rng(0).integers(0, 3_000, (900, 30)).astype(np.int32)
    graph = KnowledgeGraph([f"q{i}" for i in range(3_000)], ["c"], sparse.csr_array(np.ones((3_000, 1))))
    source = TrainingData(graph, sampled=Corpus([tokens], 3_000, 0, graph.digest))
    trainer = SGNS(dim=16, parts=3, period=3_000, epochs=2, threads=1)
    alone = trainer.fit(source, 1)
    monkeypatch.setattr(sgns_parts.Here, "__call__", lambda *_: pytest.fail("trained in this process"))
    connect(1, cluster.address)
    try:
        assert machines() == 2
        killed, ended = [], threading.Event()

        def kill() -> None:
            while not ended.wait(0.3) and len(killed) < 3:  # a part that dies four times is an error
                for pid, _ in workers_of(os.getpid(), {"sgns part"})[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        try:
            several = trainer.fit(source, 1)
        finally:
            ended.set()
            killer.join()
    finally:
        ray.shutdown()
    assert killed
    assert isinstance(alone, PairModel)
    assert isinstance(several, PairModel)
    assert several.inputs.tobytes() == alone.inputs.tobytes()
    assert several.outputs.tobytes() == alone.outputs.tobytes()


@pytest.mark.tools
def test_parts_of_sgns_inside_a_cell_are_trained_by_several_machines(cluster: RayCluster, tmp_path: Path) -> None:
    store, cell = Store(tmp_path / "cells").open(), Counted(number=1)
    assert executed(store, cluster, [cell]).row(cell) == {"machines": 2}
    alone = Experiment(PARTED).run(tmp_path / "one")
    other = Experiment(PARTED).run(tmp_path / "other", jobs=cluster)
    assert tree(other.path) == tree(alone.path)


@pytest.mark.tools
def test_a_part_whose_process_always_dies_is_one_line(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def dies(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fails(*given: Any) -> None:
        raise ValueError("shapes differ")

    steps = sgns_parts.Steps(np.zeros((2, 2), np.uint32), np.zeros(2, np.float32))
    tables = sgns_parts.Tables(np.zeros((2, 16), np.float32), np.zeros((2, 16), np.float32))
    plan = sgns_parts.Plan(2, 2, False, 5, 1, 1, np.uint64(0), 1)
    monkeypatch.setattr(sgns_parts, "_turn", dies)
    connect(1, cluster.address)
    try:
        with pytest.raises(
            TrainingError, match=r"^sgns: the process of a part died 4 times .*use sgns.parts=1"
        ) as caught:
            sgns_parts.OnRay(steps, 1)(tables, [sgns_parts.Turn(plan, np.zeros((1, 5), np.int32), 0)])
    finally:
        ray.shutdown()
    assert "\n" not in str(caught.value)


@pytest.mark.tools
def test_addresses_that_do_not_answer_are_one_line_within_seconds() -> None:
    pytest.importorskip("ray", reason="needs ray")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        with pytest.raises(ConfigError, match=r"no Ray cluster answers \(Connection refused\)"):
            RayCluster(f"127.0.0.1:{port}")
        deaf.listen(5)
        began = time.monotonic()
        with pytest.raises(ConfigError, match=r"no Ray cluster answers \(no answer\)"):
            RayCluster(f"127.0.0.1:{port}")
        assert time.monotonic() - began < 30  # Ray itself takes more than 40
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        RayCluster("somewhere")


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from qcq.cli import main

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in (["run"], ["study"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, "--engine", "ray"])
        assert capsys.readouterr().err.splitlines() == [
            "error: engine ray: Ray isn't installed; install it: pip install 'qcq[ray]'"
        ]
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--address", "auto"])
    assert "add --engine ray" in capsys.readouterr().err
