"""A language model trained by several processes: each takes a share of every batch, and all take the same step.

Every process draws the whole batch, with its masks, from the same random streams, and computes the gradients of its own
walks, weighted as in the whole batch. The gradients are summed over the processes: those of the body as they are, those
of the tables as dense rows that were gathered, in the order of the processes. So each process then has the same
gradients, and they are those of one process up to rounding.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

# Its functions take the group as a default when they are imported, and an optimiser imports them. A group that is older
# than they would keep its threads, which can abort the process at its end (pytorch issue 190489).
import torch.distributed.nn
from torch import Tensor, distributed

from qcq.errors import ConfigError, QCQError, TrainingError
from qcq.models.language.execution import Rows
from qcq.models.language.training import Checkpoint, Learner, TrainingBatch, train
from qcq.support.cluster import connect
from qcq.support.progress import silent
from qcq.support.seeds import derive

if TYPE_CHECKING:
    from qcq.models.language.tables import Table
    from qcq.models.language.trainers import LanguageTrainer
    from qcq.models.trainer import TrainingData

RESTARTS = 3  # of all processes, after one died


class Shared(Rows):
    """The steps of one process of a group of torch.distributed."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.rank, self.processes = distributed.get_rank(), distributed.get_world_size()
        self.keeps = self.rank == 0

    def _loss(self, exercise: TrainingBatch, step: int) -> Tensor:
        torch.manual_seed(derive(self.seed, "dropout", step, self.rank))
        return self.learner.exercise_loss(exercise.divided(self.rank, self.processes), step)

    def _value(self, loss: Tensor) -> float:
        whole = loss.clone()
        distributed.all_reduce(whole)
        return float(whole)

    def _gradients(self) -> dict[str, tuple[Tensor | None, Tensor] | None]:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.body]
        if grads:
            flat = torch.cat([grad.flatten() for grad in grads])
            distributed.all_reduce(flat)
            for p, own in zip(self.body, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                p.grad = own.view_as(p)
        return {name: self._summed(table) for name, table in self.learner.tables.items()}

    def _summed(self, table: Table) -> tuple[Tensor | None, Tensor] | None:
        """The gradient of a table over all processes."""
        own = table.gradients()
        rows = 0 if own is None else -1 if own[0] is None else len(own[0])
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.processes)]
        distributed.all_gather(sizes, torch.tensor([rows]))
        counts = [int(size) for size in sizes]
        if min(counts) < 0:  # all rows; a process whose walks asked for nothing has none
            whole = torch.zeros_like(table.weight) if own is None else own[1].contiguous()
            distributed.all_reduce(whole)
            return None, whole
        most = max(counts)
        if most == 0:
            return None
        ids, grad = torch.zeros(most, dtype=torch.int64), torch.zeros(most, table.dim)
        if own is not None and own[0] is not None:
            ids[:rows], grad[:rows] = own[0], own[1]
        every_ids = [torch.empty_like(ids) for _ in counts]
        every_grad = [torch.empty_like(grad) for _ in counts]
        distributed.all_gather(every_ids, ids)
        distributed.all_gather(every_grad, grad)
        for theirs, change, n in zip(every_ids, every_grad, counts, strict=True):
            table.add(theirs[:n], change[:n])
        return table.gradients()


def train_share(trainer: LanguageTrainer, source: TrainingData, seed: int, about: Mapping[str, Any]) -> Learner:
    """What each process of a group does; the first one measures, for all, and writes ``trainer.checkpoint``."""
    from qcq.models.language.trainers import Monitor

    torch.set_num_threads(trainer.threads)
    learner, counts = trainer.learner(source, seed)
    first = distributed.get_rank() == 0
    monitor = Monitor(trainer.model(source, learner), source, len(counts)) if first else None

    def measure(history: Sequence[float]) -> Mapping[str, Any]:
        told: list[Any] = [monitor(history) if monitor is not None else None]
        distributed.broadcast_object_list(told)
        return dict(told[0])

    train(learner, trainer, source.corpus, trainer.asker(source.corpus), seed, silent, measure, about, Shared)
    return learner


def by_ray(
    trainer: LanguageTrainer, source: TrainingData, seed: int, learner: Learner, about: Mapping[str, Any]
) -> tuple[int, list[float]]:
    """Train ``learner`` by ``trainer.processes`` processes that Ray Train starts; returns tokens and held-out losses.

    A process that dies ends the others, and all are started again from the last checkpoint, up to RESTARTS times. The
    checkpoint is ``trainer.checkpoint``, or a temporary file; several machines must share its folder.

    Raises
    ------
    ConfigError : Ray isn't installed, or has too few CPUs.
    TrainingError : training diverged, or its processes died too often.
    """
    ray, ray_train, ray_torch = (_library(name) for name in ("ray", "ray.train", "ray.train.torch"))
    needed = trainer.processes * trainer.threads
    ours = not ray.is_initialized()
    if ours:
        connect(needed)
    try:
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < needed:
            raise ConfigError(
                f"setting processes: {trainer.processes} with {trainer.threads} threads each need {needed} CPUs, "
                f"Ray has {there}; lower them"
            )
        with tempfile.TemporaryDirectory(prefix="qcq-") as home:
            path, failed = trainer.checkpoint or str(Path(home, "training.safetensors")), Path(home, "failed.txt")
            plan = replace(trainer, checkpoint=path)
            given = {"given": ray.put((plan, source, seed, dict(about))), "failed": str(failed)}
            run = ray_train.RunConfig(
                name="training", storage_path=home, failure_config=ray_train.FailureConfig(max_failures=RESTARTS)
            )
            scaling = ray_train.ScalingConfig(
                num_workers=trainer.processes, resources_per_worker={"CPU": trainer.threads}
            )
            backend = ray_torch.TorchConfig(backend="gloo")
            try:
                ray_torch.TorchTrainer(
                    _process, train_loop_config=given, torch_config=backend, scaling_config=scaling, run_config=run
                ).fit()
            except ray_train.TrainingFailedError as error:
                said = " ".join(str(error).split())[:200]
                raise TrainingError(
                    f"the processes of the training died {RESTARTS + 1} times ({said}); use processes = 1"
                ) from None
            if failed.exists():
                raise TrainingError(failed.read_text(encoding="utf-8"))
            optimiser = Rows(learner, plan, source.corpus, plan.asker(source.corpus), seed).optimiser
            counters = Checkpoint(path, learner, optimiser, about).load()
    finally:
        if ours:
            ray.shutdown()
    return counters[1], [figures["loss"] for _, figures in counters[-1]]


def _process(given: Mapping[str, Any]) -> None:
    """One of Ray Train's processes."""
    import ray

    trainer, source, seed, about = ray.get(given["given"])
    try:
        train_share(trainer, source, seed, about)
    except QCQError as error:  # to start it again would not help
        Path(given["failed"]).write_text(str(error), encoding="utf-8")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"setting processes: {name} can't be imported ({said}); install it with: pip install 'qcq[ray]'"
        ) from None
