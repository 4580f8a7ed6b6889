"""A language model trained by several processes learns what one process does, and outlives one of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from qcq import data
from qcq.errors import ConfigError, TrainingError
from qcq.graph import KnowledgeGraph
from qcq.models import CLM, MLM, RTD, TRAINERS, TrainingData
from qcq.models.language.distributed import Shared, train_share
from qcq.models.language.execution import Rows
from qcq.models.language.training import Checkpoint
from qcq.models.trainer import Trainer
from qcq.support.settings import settings
from qcq.walks import QCQ

TINY: Mapping[str, Any] = {"dim": 16, "heads": 2, "steps": 12, "batch": 7, "lr": 1e-2}
CASES: Mapping[str, Mapping[str, Any]] = {
    "mlm": {"softmax": "full"},
    "cloze": {"tying": "untied"},
    "clm": {"negatives": 64},
    "bilm": {"softmax": "gbce", "negatives": 64},
}


def made_source() -> TrainingData:
    bank = data.Simulated(questions=120, concepts=8, students=0).read()
    return TrainingData(KnowledgeGraph.from_dataset(bank), QCQ(length=10, per_question=4))


@pytest.fixture(scope="module")
def source() -> TrainingData:
    return made_source()


def in_group(rank: int, n: int, file: str, work: Callable[..., None], *given: Any) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=n)
    try:
        work(*given)
    finally:
        distributed.destroy_process_group()
    # A thread of the group that outlives it can abort the process at its end. The kernel lists it a moment longer.
    until = time.monotonic() + 30
    while group_threads():
        assert time.monotonic() < until
        time.sleep(0.01)


def group_threads() -> list[str]:
    """The names of gloo's threads in this process, where the system lists them."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            names.append(task.read_text())
    return [name for name in names if "gloo" in name]


def one_step(home: str) -> None:
    """A step of every case; each process writes the gradients of the body, and the tables after it."""
    rank = distributed.get_rank()
    for name, more in CASES.items():
        trainer = TRAINERS[name](**{**TINY, **more})
        after, kept = stepped(trainer, Shared)
        np.savez(Path(home, f"{name}-{rank}.npz"), **after, keeps=kept)


def stepped(trainer: Any, kind: type[Rows]) -> tuple[dict[str, np.ndarray], bool]:
    source = made_source()
    learner, _ = trainer.learner(source, 0)
    run = kind(learner, trainer, source.corpus, trainer.asker(source.corpus), 0)
    run.start(0)
    losses, held = [], {}
    for step in range(3):
        learner.encoder.train()
        run.step(step, 0.5)
        losses += [value for value, _ in run.known(wait=True)]
        # Adam's steps hide the size of a gradient, so its mean is looked at too: a tenth of the first gradient.
        for name, table in learner.tables.items():
            held[f"weight of {name}, {step}"] = table.weight.numpy().copy()
            held[f"mean of {name}, {step}"] = table.held[:, table.dim : 2 * table.dim].numpy().copy()
        means = [run.optimiser.state[p].get("exp_avg", torch.zeros_like(p)).flatten() for p in learner.body]
        held[f"mean of body, {step}"] = torch.cat(means).numpy().copy()
        held[f"body, {step}"] = torch.cat([p.detach().flatten() for p in learner.body]).numpy().copy()
    return {**held, "losses": np.array(losses)}, run.keeps


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_steps_of_several_processes_are_those_of_one(processes: int, tmp_path: Path) -> None:
    spawn(in_group, (processes, str(tmp_path / "group"), one_step, str(tmp_path)), nprocs=processes)
    for name, more in CASES.items():
        alone, keeps = stepped(TRAINERS[name](**{**TINY, **more}), Rows)
        assert keeps
        files = [np.load(tmp_path / f"{name}-{rank}.npz") for rank in range(processes)]
        assert [bool(file["keeps"]) for file in files] == [True] + [False] * (processes - 1)
        for key, value in alone.items():
            for file in files:  # all processes have the same bytes, and those of one process up to rounding
                assert file[key].tobytes() == files[0][key].tobytes(), (name, key)
            assert np.abs(files[0][key] - value).max() < 1e-3 * np.abs(value).max(), (name, key)


def whole(home: str) -> None:
    trainer = MLM(**{**TINY, "steps": 40}, checkpoint=str(Path(home, "kept.safetensors")))
    train_share(trainer, made_source(), 0, {"about": "test"})


@pytest.mark.slow
def test_the_first_process_keeps_what_all_have_learnt(source: TrainingData, tmp_path: Path) -> None:
    spawn(in_group, (2, str(tmp_path / "group"), whole, str(tmp_path)), nprocs=2)
    trainer = MLM(**{**TINY, "steps": 40})
    learner, _ = trainer.learner(source, 0)
    run = Rows(learner, trainer, source.corpus, trainer.asker(source.corpus), 0)
    counters = Checkpoint(str(tmp_path / "kept.safetensors"), learner, run.optimiser, {"about": "test"}).load()
    alone = trainer.fit(source, 0)
    assert counters[0] == 40
    assert counters[1] == alone.tokens
    assert len(counters[-1]) == len(alone.history)
    assert abs(counters[-1][-1][1]["loss"] - alone.history[-1]) < 0.02


def test_a_batch_is_divided_without_loss(source: TrainingData) -> None:
    for trainer in (MLM(**TINY), CLM(**TINY), TRAINERS["bilm"](**TINY)):
        ask: Any = trainer.asker(source.corpus)  # type: ignore[attr-defined]
        walks = np.asarray(source.corpus.shards[0][:9])
        batch = ask(walks, np.random.default_rng(0))
        parts = [batch.divided(at, 4) for at in range(4)]
        weights = torch.cat([part.share for part in parts])
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(batch.targets)))
        together = torch.cat([part.targets for part in parts]).sort().values
        assert together.tolist() == sorted(batch.targets.tolist())
        for at, part in enumerate(parts):
            own = part.tokens.flatten()[part.asked]
            assert len(part.tokens) == len(range(at, 9, 4))
            assert len(own) + (0 if part.back is None else len(part.back)) == len(part.targets)


def test_what_processes_can_not_do_is_one_line(source: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="2 processes train on the CPU only, given device 'cuda'"):
        MLM(processes=2, device="cuda")
    with pytest.raises(ConfigError, match="rtd is trained by one process, given processes 2"):
        RTD(processes=2)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"processes: ray can't be imported .*pip install 'qcq\[ray\]'") as caught:
        MLM(**TINY, processes=2).fit(source)
    assert "\n" not in str(caught.value)


@settings
class Deadly(MLM):
    """Its second process is killed once, when a checkpoint is there."""

    mark: str = ""

    def ask(self, tokens: Any, n_questions: int, rng: Any) -> Any:
        there = self.checkpoint and Path(self.checkpoint).exists()
        if there and distributed.is_initialized() and distributed.get_rank() == 1 and not Path(self.mark).exists():
            Path(self.mark).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ask(tokens, n_questions, rng)


@pytest.mark.tools
def test_ray_trains_what_one_process_trains_whatever_is_killed(source: TrainingData, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    settings: dict[str, Any] = {**TINY, "steps": 60}
    alone: Any = MLM(**settings).fit(source, 0)
    mark = tmp_path / "killed"
    many: Any = Deadly(**settings, processes=2, mark=str(mark), checkpoint=str(tmp_path / "kept.safetensors"))
    learnt = many.fit(source, 0)
    assert mark.exists()
    assert learnt.tokens == alone.tokens
    a, b = alone.embeddings().unit, learnt.embeddings().unit
    assert (a * b).sum(axis=1).mean() > 0.999
    assert abs(alone.history[-1] - learnt.history[-1]) < 0.02


@pytest.mark.tools
def test_divergence_among_processes_is_one_line(source: TrainingData) -> None:
    pytest.importorskip("ray")
    wild: Trainer = replace(MLM(**TINY, processes=2), steps=60, lr=1e4, table_lr=1e4)
    with pytest.raises(TrainingError, match="training diverged at step") as caught:
        wild.fit(source, 0)
    assert "\n" not in str(caught.value)
