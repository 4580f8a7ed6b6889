"""How a step of training is run: row by row on the CPU, or as one program of fixed shapes on a device.

What is learnt is the same: encoder, position, objective and loss stand elsewhere, once. What differs is where numbers
are drawn, how the tables are updated, and when somebody waits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcq.corpus import Corpus
from qcq.models.language.softmax import Sampled
from qcq.models.language.tables import BETAS, EPSILON
from qcq.models.language.training import Exercise, Learner, TrainingBatch
from qcq.support.devices import guarded
from qcq.support.seeds import derive, generator

if TYPE_CHECKING:
    from qcq.models.language.trainers import LanguageTrainer

Ask = Callable[[NDArray[np.int32], np.random.Generator], TrainingBatch]

_LOOK = 64  # steps on a device between two looks at their losses
_WARM = 3  # steps before one is captured: torch makes its handles and states in them


class Execution(ABC):
    """Runs the steps of a training.

    Attributes
    ----------
    optimiser : Adam for the body.
    generators : devices whose random state the training changes, for ``torch.random.fork_rng``.
    keeps : whether it writes checkpoints; of several processes one does.
    """

    keeps = True
    optimiser: torch.optim.Adam
    generators: list[torch.device]

    def __init__(self, learner: Learner, trainer: LanguageTrainer, corpus: Corpus, ask: Ask, seed: int) -> None:
        self.learner, self.trainer, self.corpus, self.ask, self.seed = learner, trainer, corpus, ask, seed
        self.generators = []

    @abstractmethod
    def start(self, first: int) -> None:
        """Before the step ``first``, the first one to be run."""

    @abstractmethod
    def step(self, step: int, share: float) -> None:
        """Run a step with ``share`` of the peak learning rates."""

    @abstractmethod
    def known(self, wait: bool) -> list[tuple[float, int]]:
        """Loss and tokens of the steps that are known since the last call; of all of them with ``wait``."""

    def guarded(self, kept: str) -> AbstractContextManager[None]:
        """Turns what a device can do to a training into one line; ``kept`` says where the last good state is."""
        return nullcontext()


class Rows(Execution):
    """On the CPU: numpy draws the walks and masks, and a step reads and updates the rows that it needs."""

    def __init__(self, learner: Learner, trainer: LanguageTrainer, corpus: Corpus, ask: Ask, seed: int) -> None:
        super().__init__(learner, trainer, corpus, ask, seed)
        self.body = learner.body
        self.optimiser = torch.optim.Adam(self.body, lr=trainer.lr, betas=BETAS, eps=EPSILON, fused=True)
        self.batches = corpus.batches(trainer.batch, generator(seed, "batches"))
        self.told: list[tuple[float, int]] = []

    def start(self, first: int) -> None:
        for _ in range(first):
            next(self.batches)

    def step(self, step: int, share: float) -> None:
        trainer, tables = self.trainer, self.learner.tables
        walks = next(self.batches)
        exercise = self.ask(walks, generator(self.seed, "step", step))
        loss = self._loss(exercise, step)
        value = self._value(loss.detach())
        self.told.append((value, int(np.count_nonzero(exercise.real))))
        if not math.isfinite(value):
            return
        torch.autograd.backward(loss)
        grads = self._gradients()
        body = [p.grad for p in self.body if p.grad is not None]
        square = sum(float(torch.linalg.vector_norm(g)) ** 2 for _, g in filter(None, grads.values()))
        norm = math.sqrt(square + float(torch.nn.utils.get_total_norm(body)) ** 2)
        shrink = min(1.0, trainer.clip / max(norm, 1e-12))
        for name, table in tables.items():
            if (taken := grads[name]) is not None:
                table.step(*taken, trainer.table_lr * share, shrink)
        if shrink < 1:
            for grad in body:
                grad *= shrink
        self.optimiser.param_groups[0]["lr"] = trainer.lr * share
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _loss(self, exercise: TrainingBatch, step: int) -> Tensor:
        torch.manual_seed(derive(self.seed, "dropout", step))
        return self.learner.exercise_loss(exercise, step)

    def _value(self, loss: Tensor) -> float:
        return float(loss)

    def _gradients(self) -> dict[str, tuple[Tensor | None, Tensor] | None]:
        """Those of the tables; those of the body stand in its parameters."""
        return {name: table.gradients() for name, table in self.learner.tables.items()}

    def known(self, wait: bool) -> list[tuple[float, int]]:
        told, self.told = self.told, []
        return told


class Drawn:
    """Random numbers on a device, from torch's own stream there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def random(self, size: Any, /) -> Tensor:
        return torch.rand(size, device=self.device)

    def integers(self, low: int, high: int, size: Any, /) -> Tensor:
        return torch.randint(low, high, size, device=self.device, dtype=torch.int32)


def fixed(made: Any, walks: Tensor, most: int) -> Exercise:
    """An exercise with ``most`` predictions, whatever was asked for: fewer are filled up with ones that count 0.

    Parameters
    ----------
    made : what an objective asks for, an ``Asked`` of tensors.
    walks : int64 (walks, length).
    most : more are left out, the last ones first.
    """
    place = torch.arange(walks.numel(), device=walks.device)
    at, counts = [], []
    for asked in (made.asked, made.back):
        if asked is None:
            continue
        flat = asked.flatten()
        rank = torch.where(flat, flat.cumsum(0) - 1, most).clamp(max=most)  # of each position among the asked ones
        at.append(place.new_zeros(most + 1).scatter_(0, rank, place)[:-1])
        counts.append(torch.arange(most, device=walks.device) < flat.sum())
    there, counted = torch.cat(at), torch.cat(counts)
    there = torch.where(counted, there, 0)
    targets = walks.flatten().index_select(0, there).clamp(min=0)
    share = counted / counted.sum().clamp(min=1)
    tokens = made.tokens.long().clamp(min=0)
    back = there[most:] if made.back is not None else None
    return Exercise(tokens, made.hidden, walks >= 0, there[:most], targets, back, share)


class Device(Execution):
    """On a device: walks lie there, are drawn, masked and scored there, and every shape is known beforehand.

    Nothing waits for the device but a look at the losses every few dozen steps. On CUDA a step is captured once and
    replayed (a CUDA graph), with matrix products in bfloat16 and tables in float32; elsewhere the same code runs
    operation by operation, in float32.

    The walks of a pass come in a random order that is drawn on the device, and every step has random numbers of its
    own, so a training that was stopped continues as if it hadn't been.
    """

    def __init__(self, learner: Learner, trainer: LanguageTrainer, corpus: Corpus, ask: Ask, seed: int) -> None:
        super().__init__(learner, trainer, corpus, ask, seed)
        self.device = device = learner.device
        self.cuda = device.type == "cuda"
        if self.cuda:
            self.generators = [device]
            learner.loss.narrow = torch.bfloat16
        self.body = learner.body
        self.rates = torch.zeros(2, device=device)  # of body and tables
        self.optimiser = torch.optim.Adam(
            self.body, lr=self.rates[0] if self.cuda else trainer.lr, betas=BETAS, eps=EPSILON,
            fused=True, capturable=self.cuda,
        )  # fmt: skip
        self.size = min(trainer.batch, corpus.n_walks)
        tokens = self.size * corpus.length
        spread = trainer.asks * (1 - trainer.asks) * tokens
        self.most = min(tokens, math.ceil(trainer.asks * tokens + 6 * math.sqrt(spread)) + 1)
        self.chosen = torch.zeros(self.size, dtype=torch.int64, device=device)
        self.loss, self.seen = torch.zeros((), device=device), torch.zeros((), device=device)
        self.told = torch.zeros(_LOOK, 2, device=device)
        self.at = 0
        self.graph: Any = None
        self.order = torch.empty(0, dtype=torch.int64, device=device)
        self.turn = -1
        self.current = 0

    def start(self, first: int) -> None:
        shards = [torch.from_numpy(np.asarray(shard, dtype=np.int32)) for shard in self.corpus.shards]
        self.walks = torch.cat(shards).to(self.device)
        if self.cuda:  # a checkpoint that was loaded brought a number of its own
            self.optimiser.param_groups[0]["lr"] = self.rates[0]
        self.ran = 0

    def step(self, step: int, share: float) -> None:
        self.current = step
        turn, at = divmod(step, len(self.walks) // self.size)
        if turn != self.turn:
            torch.manual_seed(derive(self.seed, "batches", turn))
            self.order, self.turn = torch.randperm(len(self.walks), device=self.device), turn
        self.chosen.copy_(self.order[at * self.size : (at + 1) * self.size])
        self.rates[0].fill_(self.trainer.lr * share)
        self.rates[1].fill_(self.trainer.table_lr * share)
        if not self.cuda:
            self.optimiser.param_groups[0]["lr"] = self.trainer.lr * share
        if isinstance(self.learner.loss, Sampled):
            self.learner.loss.hold(step, self.device)
        torch.manual_seed(derive(self.seed, "dropout", step))
        if not self.cuda:
            self._once()
        elif self.ran < _WARM:
            side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                self._once()
            torch.cuda.current_stream(self.device).wait_stream(side)
        else:
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self._once()
                torch.manual_seed(derive(self.seed, "dropout", step))
            self.graph.replay()
        self.ran += 1
        self.told[self.at, 0].copy_(self.loss)
        self.told[self.at, 1].copy_(self.seen)
        self.at += 1

    def _once(self) -> None:
        """A step on what ``chosen`` and ``rates`` say; no shape in it depends on a value, and nothing waits."""
        learner, trainer = self.learner, self.trainer
        walks = self.walks.index_select(0, self.chosen).long()
        made = trainer.ask(walks, self.corpus.n_questions, Drawn(self.device))
        exercise = fixed(made, walks, self.most)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if self.cuda else nullcontext():
            loss = learner.exercise_loss(exercise, self.current)
        torch.autograd.backward(loss)
        grads = {name: table.gradients() for name, table in learner.tables.items()}
        body = [p.grad for p in self.body if p.grad is not None]
        every = [g for _, g in filter(None, grads.values())]
        norm = torch.nn.utils.get_total_norm([*body, *every])
        shrink = (trainer.clip / norm.clamp(min=1e-12)).clamp(max=1.0)
        for name, table in learner.tables.items():
            if (taken := grads[name]) is not None:
                table.step(*taken, self.rates[1], shrink)
        for grad in body:
            grad.mul_(shrink)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.loss.copy_(loss.detach())
        self.seen.copy_((walks >= 0).sum())

    def known(self, wait: bool) -> list[tuple[float, int]]:
        if not wait and self.at < _LOOK:
            return []
        told = [(loss, round(seen)) for loss, seen in self.told[: self.at].tolist()]
        self.at = 0
        return told

    def guarded(self, kept: str) -> AbstractContextManager[None]:
        return guarded(
            str(self.device),
            lambda: f"at step {self.current + 1} of {self.trainer.steps}",
            self._less,
            kept,
        )

    def _less(self) -> str:
        fits = self._fits()
        return f"a batch of {fits} instead of {self.trainer.batch} would fit" if fits else "lower batch, dim or layers"

    def _memory(self) -> tuple[int, int]:
        """Bytes of the device's memory (0: not known), and of what stays there from step to step."""
        total = 0
        if self.device.type in ("cuda", "mps"):
            total = torch.cuda.mem_get_info(self.device)[1] if self.cuda else torch.mps.recommended_max_memory()
        tables = sum(4 * table.held.numel() + 8 * table.weight.numel() for table in self.learner.tables.values())
        return total, tables + 4 * self.corpus.n_tokens

    def _fits(self) -> int:
        """Walks a step, a power of two, for which there should be memory; 0 if there are none, or nothing is known."""
        total, stays = self._memory()
        length, dim = self.corpus.length, self.learner.input.dim
        block = 4 * length * (40 * dim + 6 * self.trainer.heads * length)  # states, products and shares of a layer
        walk = self.trainer.layers * block + 16 * length * dim
        if isinstance(self.learner.loss, Sampled):
            walk += 8 * (self.most // self.size + 1) * self.learner.loss.negatives
        fits = int((0.9 * total - stays) // walk)
        most = min(fits, self.trainer.batch // 2)
        return 1 << (most.bit_length() - 1) if most > 0 else 0


def execution(learner: Learner, trainer: LanguageTrainer) -> type[Execution]:
    """How the steps of a trainer are run in this process."""
    return Rows if learner.device.type == "cpu" and not trainer.static else Device
