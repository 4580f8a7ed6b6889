"""A process forked from one in which polars has threads: an error where it would wait for ever."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import polars as pl
import pytest

from qcq import Embeddings, embed, read
from qcq.data import Simulated
from qcq.errors import EngineError
from qcq.support.formulas import guarded_frame

if sys.platform != "linux":
    pytest.skip("threads of a process have names on Linux only", allow_module_level=True)

FRAME = pl.DataFrame({"question": ["q1", "q2", "q3"], "concept": ["a", "a", "b"]})
PAIRS = [("q1", "a"), ("q2", "a"), ("q3", "b")]


def _in_fork(work: Callable[[], object]) -> str:
    """What a forked process answers within 30 seconds: the name and the text of its error, or ``done``."""
    FRAME.group_by("concept").agg(pl.len())  # polars has its threads now
    here, there = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # polars and Python warn of the fork
        process = multiprocessing.get_context("fork").Process(target=_answer, args=(there, work))
        process.start()
    try:
        return here.recv() if here.poll(30) else "waits"
    finally:
        process.kill()
        process.join()


def _answer(pipe: Connection, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
    else:
        pipe.send("done")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("forked")
    FRAME.write_csv(home / "bank.csv")
    table = Embeddings(["q1", "q2"], [[1.0, 2.0], [3.0, 4.0]])
    for kind in ("parquet", "csv", "npz", "safetensors"):
        table.save(home / f"vectors.{kind}")
    return home


WORK: dict[str, Callable[[Path], object]] = {
    "a frame": lambda home: read(FRAME),
    "pairs": lambda home: read(PAIRS),
    "a file": lambda home: read(home / "bank.csv"),
    "simulated": lambda home: read("simulated"),
    "vectors from Parquet": lambda home: Embeddings.load(home / "vectors.parquet"),
    "vectors as Parquet": lambda home: Embeddings(["q"], [[1.0]]).save(home / "made.parquet"),
    "a frame of names": lambda home: guarded_frame(FRAME),
}


@pytest.mark.parametrize("work", list(WORK.values()), ids=list(WORK))
def test_polars_in_a_forked_process_is_an_error(work, home):
    said = _in_fork(lambda: work(home))
    assert said.startswith(EngineError.__name__), said
    assert "get_context('spawn')" in said
    assert not list(home.glob("made.*"))


@pytest.mark.parametrize("kind", ["csv", "npz", "safetensors"])
def test_vectors_need_no_polars_in_a_forked_process(kind, home):
    assert _in_fork(lambda: Embeddings.load(home / f"vectors.{kind}").nearest("q1", 1)) == "done"


def test_what_was_read_before_the_fork_goes_on_in_it():
    room = Simulated(questions=30, concepts=4, students=20, responses=8).read()
    made = embed(room, "concepts", dim=2)
    new = {"new": [room.concepts[0]]}
    assert _in_fork(lambda: (room.split(0), embed(room, "concepts", dim=2), made.infer(new))) == "done"


def test_the_process_that_forks_goes_on():
    _in_fork(lambda: None)
    assert len(read(FRAME).questions) == 3


@pytest.mark.parametrize("trainer", ["glove", "ppmi-svd", "netmf", "svd"])
def test_vectors_are_made_in_a_forked_process_like_before(trainer, tmp_path):
    room = Simulated(questions=30, concepts=4, students=20, responses=8).read()

    def make(name: str) -> bytes:
        embed(room, trainer=trainer, dim=2).save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    before = make("here.npz")
    assert _in_fork(lambda: make("there.npz")) == "done"
    assert (tmp_path / "there.npz").read_bytes() == before
