"""The one training loop of all language models, and the tables it updates a few rows at a time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcq.corpus import Corpus
from qcq.errors import TrainingError
from qcq.models.language.softmax import Loss
from qcq.models.language.transformer import Encoder
from qcq.support.files import whole_path
from qcq.support.progress import Progress
from qcq.support.seeds import derive, generator

if TYPE_CHECKING:
    from qcq.models.language.trainers import LanguageTrainer

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's (Kingma & Ba 2015)


class SparseTable:
    """A table of vectors. A step reads and updates only a few rows, so its cost doesn't grow with the vocabulary.

    Rows are updated by Adam, each with a step count of its own (bias correction uses the row's count), so a row that a
    step didn't read stays unchanged.

    Attributes
    ----------
    held : float32 (rows, 3 dim + 1). A row has its vector, Adam's two moments and its count side by side, because most
        of a step's cost is fetching rows from memory.
    """

    def __init__(self, weight: Tensor) -> None:
        self.dim = weight.shape[1]
        self.held = weight.new_zeros(len(weight), 3 * self.dim + 1)
        self.held[:, : self.dim] = weight
        self.taken: list[tuple[Tensor | None, Tensor]] = []

    @property
    def weight(self) -> Tensor:
        """The vectors: a view, (rows, dim)."""
        return self.held[:, : self.dim]

    def rows(self, ids: Tensor | None = None) -> Tensor:
        """Rows (n, dim) for distinct ``ids`` int64 (n,), or all of them; their gradient is stored for :meth:`step`."""
        if not torch.is_grad_enabled():
            return self.weight if ids is None else self.weight[ids]
        leaf = (self.weight if ids is None else self.weight[ids]).detach().requires_grad_()
        self.taken.append((ids, leaf))
        return leaf

    def look_up(self, ids: Tensor) -> Tensor:
        """Vectors (..., dim) of ``ids`` int64 (...), which may repeat."""
        if not torch.is_grad_enabled():
            return F.embedding(ids, self.weight)
        distinct, where = torch.unique(ids, return_inverse=True)
        return F.embedding(where, self.rows(distinct))

    def gradients(self) -> tuple[Tensor | None, Tensor] | None:
        """Rows read since the last step (None: all) and their gradient; a row read twice gets the sum. Clears them."""
        taken = [(ids, leaf.grad) for ids, leaf in self.taken if leaf.grad is not None]
        self.taken = []
        if not taken:
            return None
        if len(taken) == 1:
            return taken[0]
        if any(ids is None for ids, _ in taken):
            total = torch.zeros_like(self.weight)
            for ids, grad in taken:
                total = total + grad if ids is None else total.index_add(0, ids, grad)
            return None, total
        distinct, where = torch.unique(torch.cat([ids for ids, _ in taken if ids is not None]), return_inverse=True)
        joined = torch.cat([grad for _, grad in taken])
        return distinct, joined.new_zeros(len(distinct), joined.shape[1]).index_add(0, where, joined)

    @torch.no_grad()
    def step(self, ids: Tensor | None, grad: Tensor, rate: float) -> None:
        """One Adam step for the rows ``ids`` with ``grad`` (n, dim)."""
        row = self.held if ids is None else self.held.index_select(0, ids)
        weight, mean, square, count = torch.split(row, [self.dim, self.dim, self.dim, 1], dim=1)
        count += 1
        mean.lerp_(grad, 1 - BETAS[0])
        square.lerp_(grad.square(), 1 - BETAS[1])
        spread = (square / (1 - BETAS[1] ** count)).sqrt_().add_(EPSILON)
        weight -= rate * mean / (1 - BETAS[0] ** count) / spread
        if ids is not None:
            self.held.index_copy_(0, ids, row)


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A batch of walks turned into predictions.

    Attributes
    ----------
    tokens : int64 (walks, length), the input of the model; an arbitrary token at hidden positions.
    hidden : bool (walks, length), tokens behind a mask.
    real : bool (walks, length), False at padding.
    asked : bool (walks, length), the positions to predict.
    targets : int64 (asked,), the right answers in row-major order.
    back : bool (walks, length), the positions to predict from their right; their answers come after the others. None if
        there are none.
    """

    tokens: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    real: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    targets: NDArray[np.int64]
    back: NDArray[np.bool_] | None = None


class Learner:
    """Tables around an encoder: tokens in, states and losses out.

    Attributes
    ----------
    encoder : any Encoder.
    input, output, bias : tables (V, dim), (V, dim), (V, 1). ``output`` *is* ``input`` if they are tied.
    loss : how predictions are scored in training.
    n_questions : tokens from this number on are of type 1.
    """

    def __init__(
        self, encoder: Encoder, input: SparseTable, output: SparseTable, bias: SparseTable, loss: Loss, n_questions: int
    ) -> None:
        self.encoder, self.input, self.output, self.bias, self.loss = encoder, input, output, bias, loss
        self.n_questions = n_questions

    @property
    def device(self) -> torch.device:
        return self.input.weight.device

    @property
    def tables(self) -> dict[str, SparseTable]:
        """The distinct tables by name."""
        tied = {} if self.output is self.input else {"output": self.output}
        return {"input": self.input, **tied, "bias": self.bias}

    def states(self, tokens: NDArray, hidden: NDArray[np.bool_], real: NDArray[np.bool_]) -> list[Tensor]:
        """States of every layer, each (walks, length, dim); see Encoder."""
        return self.encoder(*self.seen(tokens, hidden, real))

    def answers(
        self,
        tokens: NDArray,
        hidden: NDArray[np.bool_],
        real: NDArray[np.bool_],
        asked: NDArray[np.bool_],
        back: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """The states for predictions, (asked + back, dim); see Encoder."""
        there = torch.from_numpy(asked).to(self.device)
        behind = None if back is None else torch.from_numpy(back).to(self.device)
        return self.encoder.answers(*self.seen(tokens, hidden, real), there, behind)

    def seen(
        self, tokens: NDArray, hidden: NDArray[np.bool_], real: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The input of an encoder from walks: vectors, hidden, real, types."""
        ids = torch.from_numpy(np.where(hidden | ~real, 0, tokens).astype(np.int64)).to(self.device)  # (B, L)
        types = (ids >= self.n_questions).long() if self.encoder.types.shape[0] > 1 else None
        behind, there = (torch.from_numpy(m).to(self.device) for m in (hidden, real))
        return self.input.look_up(ids), behind, there, types

    def exercise_loss(self, exercise: TrainingBatch, step: int) -> Tensor:
        """Mean training loss of a batch, the ``step``-th."""
        last = self.answers(exercise.tokens, exercise.hidden, exercise.real, exercise.asked, exercise.back)  # (N, D)
        if not len(last):  # walks of one token have no neighbour to predict: nothing is learnt from them
            return last.sum()
        return self.loss(last, torch.from_numpy(exercise.targets).to(self.device), self.output, self.bias, step)

    @torch.no_grad()
    def nats(
        self,
        tokens: NDArray[np.int32],
        asked: NDArray[np.bool_],
        hidden: NDArray[np.bool_] | None = None,
        back: bool = False,
    ) -> NDArray[np.float64]:
        """-log p(token) at every asked position, row-major: float64 (asked,), p summing to 1 over the vocabulary.

        ``hidden`` are the positions behind a mask; without it, the asked ones, if the encoder needs that. With ``back``
        the positions are predicted from their right.
        """
        self.encoder.eval()
        nothing = np.zeros_like(asked)
        if hidden is None:
            hidden = asked if self.encoder.hides else nothing
        real = tokens >= 0
        most = max(1, 2**24 // len(self.output.weight))  # in pieces of 64 MiB
        out: list[Tensor] = []
        for i in range(0, len(tokens), 256):
            part = slice(i, i + 256)
            before, behind = (nothing[part], asked[part]) if back else (asked[part], None)
            last = self.answers(tokens[part], hidden[part], real[part], before, behind)  # (N, D)
            right = torch.from_numpy(tokens[part][asked[part]].astype(np.int64)).to(self.device)  # (N,)
            for h, target in zip(torch.split(last, most), torch.split(right, most), strict=True):
                scores = torch.addmm(self.bias.weight[:, 0], h, self.output.weight.T)  # (most, V)
                out.append(F.cross_entropy(self.loss.log_shares(scores), target, reduction="none"))
        return torch.cat(out).double().cpu().numpy() if out else np.zeros(0)


def rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate of ``step`` (from 0) as a share of its peak: a linear rise, then a half cosine down to 0.

    Examples
    --------
    >>> [round(rate(s, 100, 0.1), 3) for s in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def train(
    learner: Learner,
    plan: LanguageTrainer,
    corpus: Corpus,
    ask: Callable[[NDArray[np.int32], np.random.Generator], TrainingBatch],
    seed: int,
    progress: Progress,
    measure: Callable[[Sequence[float]], Mapping[str, Any]],
    about: Mapping[str, Any],
) -> tuple[int, list[float]]:
    """Train in place; returns the number of tokens seen and the held-out losses measured during training.

    Parameters
    ----------
    ask : turns a batch of walks, int32 (walks, length), into an exercise.
    measure : from the losses measured so far, gives held-out figures: ``loss``, and ``floor``, ``excess`` and
        ``verdict`` if there is a floor.
    about : what must agree with a checkpoint to continue from it.

    Raises
    ------
    TrainingError : the loss is no longer finite, or has grown far above its start; the last good
        checkpoint stays.
    """
    body = [p for p in learner.encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(body, lr=plan.lr, betas=BETAS, eps=EPSILON)
    batches = corpus.batches(plan.batch, generator(seed, "batches"))
    keep = Checkpoint(plan.checkpoint, learner, optimiser, about) if plan.checkpoint else None
    first, tokens, began, smooth, best, waited = 0, 0, 0.0, 0.0, math.inf, 0
    history: list[float] = []
    if keep is not None and keep.exists():
        first, tokens, began, smooth, best, waited, history = keep.load()
        for _ in range(first):
            next(batches)
    every = max(1, plan.steps // 20)
    clock, done = time.perf_counter(), 0
    with torch.random.fork_rng(devices=[]):
        for step in range(first, plan.steps):
            rng = generator(seed, "step", step)
            torch.manual_seed(derive(seed, "dropout", step))
            learner.encoder.train()
            walks = next(batches)
            loss = learner.exercise_loss(ask(walks, rng), step)
            value = float(loss.detach())
            began = value if step == 0 else began
            smooth = value if step == 0 else 0.95 * smooth + 0.05 * value
            share = rate(step, plan.steps, plan.warmup)
            if not math.isfinite(value) or smooth > 2 * began + 1:
                what = "is not finite" if not math.isfinite(value) else f"grew from {began:.2f} to {smooth:.2f}"
                raise TrainingError(
                    f"training diverged at step {step + 1} of {plan.steps}: the loss {what} at learning rates "
                    f"{plan.lr * share:.2g} (body) and {plan.table_lr * share:.2g} (tables); lower lr and table_lr, or "
                    "raise warmup" + (f"; the last good state is in {plan.checkpoint}" if keep else "")
                )
            torch.autograd.backward(loss)
            grads = {name: table.gradients() for name, table in learner.tables.items()}
            norm = math.sqrt(
                sum(float(g.square().sum()) for _, g in filter(None, grads.values()))
                + sum(float(p.grad.square().sum()) for p in body if p.grad is not None)
            )
            shrink = min(1.0, plan.clip / max(norm, 1e-12))
            for name, table in learner.tables.items():
                taken = grads[name]
                if taken is not None:
                    table.step(taken[0], taken[1] * shrink, plan.table_lr * share)
            for p in body:
                if p.grad is not None:
                    p.grad *= shrink
            optimiser.param_groups[0]["lr"] = plan.lr * share
            optimiser.step()
            optimiser.zero_grad()
            seen = int((walks >= 0).sum())
            tokens, done = tokens + seen, done + seen
            if (step + 1) % every and step + 1 < plan.steps:
                continue
            figures = measure(history)
            speed = done / max(time.perf_counter() - clock, 1e-9)
            progress(step + 1, plan.steps, **figures, tokens_per_second=speed)
            history.append(figures["loss"])
            goal = figures.get("excess", figures["loss"])
            waited = 0 if goal < best else waited + 1
            best = min(best, goal)
            if keep is not None:
                keep.save(step + 1, tokens, began, smooth, best, waited, history)
            if plan.stop_excess is not None and figures.get("excess", math.inf) <= plan.stop_excess:
                break
            if plan.patience and waited >= plan.patience:
                break
    return tokens, history


class Checkpoint:
    """All that a run needs to continue as if it had never stopped, in one ``.safetensors`` file.

    Every random stream is named after its step, so tensors and a few counters are enough.
    """

    def __init__(self, path: str, learner: Learner, optimiser: torch.optim.Optimizer, about: Mapping[str, Any]) -> None:
        self.path, self.learner, self.optimiser = Path(path), learner, optimiser
        self.about = json.dumps(about, sort_keys=True, default=str)

    def exists(self) -> bool:
        return self.path.exists()

    def save(self, *counters: float | list[float]) -> None:
        """Write the state, completely or not at all."""
        from safetensors.torch import save_file

        tensors = {f"encoder.{name}": p for name, p in self.learner.encoder.state_dict().items()}
        for name, table in self.learner.tables.items():
            tensors[name] = table.held
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{part}": t for part, t in state.items()}
        tensors = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
        with whole_path(self.path) as partial:
            save_file(tensors, partial, metadata={"about": self.about, "counters": json.dumps(counters)})

    def load(self) -> list[Any]:
        """Restore the saved state; returns the counters.

        Raises
        ------
        TrainingError : the file is not a checkpoint, or one of another run.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="pt") as file:
                meta = file.metadata() or {}
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{self.path}: no readable checkpoint ({error}); remove it to start afresh") from None
        if meta.get("about") != self.about:
            raise TrainingError(
                f"{self.path}: this checkpoint is of another run (other settings, seed or corpus); remove it or name "
                "another file"
            )

        def under(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in held.items() if key.startswith(f"{name}.")}

        self.learner.encoder.load_state_dict(under("encoder"))
        for name, table in self.learner.tables.items():
            table.held.copy_(held[name])
        state = self.optimiser.state_dict()
        for key, t in under("adam").items():
            i, part = key.split(".")
            state["state"].setdefault(int(i), {})[part] = t
        self.optimiser.load_state_dict(state)
        return json.loads(meta["counters"])
