"""The one training loop of all language models, and the tables it updates a few rows at a time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from qcq.models.language.tables import SparseTable, Table
from qcq.models.language.transformer import Encoder
from qcq.support.arrays import digest, read_safetensors
from qcq.support.devices import guarded
from qcq.support.files import from_json, whole_path
from qcq.support.progress import Progress

if TYPE_CHECKING:
    from qcq.models.language.execution import Execution
    from qcq.models.language.trainers import LanguageTrainer


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

    def divided(self, at: int, of: int) -> Exercise:
        """The predictions of every ``of``-th walk from ``at`` on, with the weight that each has in the whole batch."""
        mine = np.zeros((len(self.tokens), 1), dtype=bool)
        mine[at::of] = True
        sides = [self.asked] if self.back is None else [self.asked, self.back]
        own = np.concatenate([np.broadcast_to(mine, side.shape)[side] for side in sides])
        behind = None if self.back is None else self.back[at::of]
        part = TrainingBatch(
            self.tokens[at::of], self.hidden[at::of], self.real[at::of], self.asked[at::of], self.targets[own], behind
        )
        weight = torch.full((int(own.sum()),), 1 / max(1, len(self.targets)))
        return replace(part.on(torch.device("cpu")), share=weight)

    def on(self, device: torch.device) -> Exercise:
        """The same as tensors on ``device``."""
        there = [None if m is None else _tensor(np.flatnonzero(m), device) for m in (self.asked, self.back)]
        tokens, hidden, real = (_tensor(x, device) for x in (self.tokens, self.hidden, self.real))
        assert there[0] is not None
        return Exercise(tokens, hidden, real, there[0], _tensor(self.targets, device), there[1])


@dataclass(frozen=True, eq=False)
class Exercise:
    """A batch of predictions as tensors on the device that learns.

    Attributes
    ----------
    tokens, hidden, real : (walks, length), as in a TrainingBatch.
    asked : int64 (N,), the positions to predict in walks · length.
    targets : int64 (N + M,), the right answers.
    back : int64 (M,), the positions to predict from their right, or None.
    share : (N + M,), how much each prediction counts; they sum to 1. None counts all alike. Where the number of
        predictions must be known beforehand, those that fill up count 0.
    """

    tokens: Tensor
    hidden: Tensor
    real: Tensor
    asked: Tensor
    targets: Tensor
    back: Tensor | None = None
    share: Tensor | None = None


def _tensor(x: NDArray | Tensor, device: torch.device) -> Tensor:
    return (x if isinstance(x, Tensor) else torch.from_numpy(x)).to(device)


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
        self, encoder: Encoder, input: Table, output: Table, bias: Table, loss: Loss, n_questions: int
    ) -> None:
        self.encoder, self.input, self.output, self.bias, self.loss = encoder, input, output, bias, loss
        self.n_questions = n_questions

    @property
    def device(self) -> torch.device:
        return self.input.weight.device

    @property
    def tables(self) -> dict[str, Table]:
        """The distinct tables by name."""
        tied = {} if self.output is self.input else {"output": self.output}
        return {"input": self.input, **tied, "bias": self.bias}

    @property
    def body(self) -> list[Tensor]:
        """The parameters that aren't in tables."""
        return [p for p in self.encoder.parameters() if p.requires_grad]

    def states(self, tokens: NDArray, hidden: NDArray[np.bool_], real: NDArray[np.bool_]) -> list[Tensor]:
        """States of every layer, each (walks, length, dim); see Encoder."""
        return self.encoder(*self.seen(tokens, hidden, real))

    def answers(
        self,
        tokens: NDArray | Tensor,
        hidden: NDArray[np.bool_] | Tensor,
        real: NDArray[np.bool_] | Tensor,
        asked: NDArray | Tensor,
        back: NDArray | Tensor | None = None,
    ) -> Tensor:
        """The states for predictions, (asked + back, dim); see Encoder."""
        behind = None if back is None else _tensor(back, self.device)
        return self.encoder.answers(*self.seen(tokens, hidden, real), _tensor(asked, self.device), behind)

    def slots(self, tokens: NDArray, hidden: NDArray[np.bool_], asked: NDArray[np.bool_]) -> Tensor:
        """The states that predict the tokens at ``asked``, those of both sides where there are two: (asked, width)."""
        real = tokens >= 0
        if not self.encoder.two_sided:
            return self.answers(tokens, hidden, real, asked)
        return torch.cat(torch.chunk(self.answers(tokens, hidden, real, asked, asked), 2), dim=1)

    def seen(
        self, tokens: NDArray | Tensor, hidden: NDArray[np.bool_] | Tensor, real: NDArray[np.bool_] | Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The input of an encoder from walks: vectors, hidden, real, types."""
        ids, behind, there = (_tensor(x, self.device) for x in (tokens, hidden, real))
        ids = ids.long().masked_fill(behind | ~there, 0)  # (B, L)
        types = (ids >= self.n_questions).long() if self.encoder.types.shape[0] > 1 else None
        return self.input.look_up(ids), behind, there, types

    def exercise_loss(self, exercise: TrainingBatch | Exercise, step: int) -> Tensor:
        """Mean training loss of a batch, the ``step``-th."""
        made = exercise.on(self.device) if isinstance(exercise, TrainingBatch) else exercise
        last = self.answers(made.tokens, made.hidden, made.real, made.asked, made.back)  # (N, D)
        if not len(last):  # walks of one token have no neighbour to predict: nothing is learnt from them
            return last.sum()
        return self.scored(last, made, step)

    def scored(self, states: Tensor, exercise: Exercise, step: int) -> Tensor:
        """The loss of predictions from ``states`` (N, D)."""
        counted = () if exercise.share is None else (exercise.share,)
        states = states.float() if states.dtype == torch.bfloat16 else states
        return self.loss(states, exercise.targets, self.output, self.bias, step, *counted)

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
    execution: type[Execution],
) -> tuple[int, list[float]]:
    """Train in place; returns the number of tokens seen and the held-out losses measured during training.

    What is learnt doesn't depend on where: ``execution.py`` says how a step is run on the CPU and on a device.

    Parameters
    ----------
    ask : turns a batch of walks, int32 (walks, length), into an exercise; for the CPU.
    measure : from the losses measured so far, gives held-out figures: ``loss``, and ``floor``, ``excess`` and
        ``verdict`` if there is a floor.
    about : what must agree with a checkpoint to continue from it.
    execution : how steps are run.

    Raises
    ------
    TrainingError : the loss is no longer finite, or has grown far above its start; or the device is out of memory, or
        gone. The last good checkpoint stays.
    """
    first, tokens, began, smooth, best, waited = 0, 0, 0.0, 0.0, math.inf, 0
    told: list[tuple[int, dict[str, Any]]] = []
    with guarded(str(learner.device), lambda: "before its first step", lambda: "lower batch, dim or layers"):
        run = execution(learner, plan, corpus, ask, seed)
        keep = Checkpoint(plan.checkpoint, learner, run.optimiser, about) if plan.checkpoint else None
        if keep is not None and keep.exists():
            first, tokens, began, smooth, best, waited, told = keep.load()
            for step, figures in told:  # who watches sees the whole training
                progress(step, plan.steps, **figures)
    every = max(1, plan.steps // 20)
    clock, done, known = time.perf_counter(), 0, first
    kept = f"; the last good state is in {plan.checkpoint}" if keep else ""
    with torch.random.fork_rng(devices=run.generators), run.guarded(kept):
        run.start(first)
        for step in range(first, plan.steps):
            learner.encoder.train()
            run.step(step, rate(step, plan.steps, plan.warmup))
            pause = not (step + 1) % every or step + 1 == plan.steps
            for value, seen in run.known(wait=pause):
                began = value if known == 0 else began
                smooth = value if known == 0 else 0.95 * smooth + 0.05 * value
                if not math.isfinite(value) or smooth > 2 * began + 1:
                    what = "is not finite" if not math.isfinite(value) else f"grew from {began:.2f} to {smooth:.2f}"
                    share = rate(known, plan.steps, plan.warmup)
                    raise TrainingError(
                        f"training diverged at step {known + 1} of {plan.steps}: the loss {what} at learning rates "
                        f"{plan.lr * share:.2g} (body) and {plan.table_lr * share:.2g} (tables); lower lr and "
                        f"table_lr, or raise warmup{kept}"
                    )
                known, tokens, done = known + 1, tokens + seen, done + seen
            if not pause:
                continue
            figures = dict(measure([figures["loss"] for _, figures in told]))
            speed = done / max(time.perf_counter() - clock, 1e-9)
            progress(step + 1, plan.steps, **figures, tokens_per_second=speed)
            told.append((step + 1, figures))
            goal = figures.get("excess", figures["loss"])
            waited = 0 if goal < best else waited + 1
            best = min(best, goal)
            if keep is not None and run.keeps:
                keep.save(step + 1, tokens, began, smooth, best, waited, told)
            if plan.stop_excess is not None and figures.get("excess", math.inf) <= plan.stop_excess:
                break
            if plan.patience and waited >= plan.patience:
                break
    return tokens, [figures["loss"] for _, figures in told]


class Checkpoint:
    """All that a run needs to continue as if it had never stopped, in one ``.safetensors`` file.

    Every random stream is named after its step, so tensors and a few counters are enough.
    """

    def __init__(self, path: str, learner: Learner, optimiser: torch.optim.Optimizer, about: Mapping[str, Any]) -> None:
        self.path, self.learner, self.optimiser = Path(path), learner, optimiser
        self.about = json.dumps(about, sort_keys=True, default=str)

    def exists(self) -> bool:
        return self.path.exists()

    def save(self, *counters: float | list[tuple[int, dict[str, Any]]]) -> None:
        """Write the state, completely or not at all."""
        from safetensors.torch import save_file

        tensors = {f"encoder.{name}": p for name, p in self.learner.encoder.state_dict().items()}
        for name, table in self.learner.tables.items():
            tensors[name] = table.held
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{part}": t for part, t in state.items()}
        tensors = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
        said = json.loads(json.dumps({"about": self.about, "counters": counters}, default=float))
        said["digest"] = digest(said, {name: t.numpy() for name, t in tensors.items()})
        with whole_path(self.path) as partial:
            save_file(tensors, partial, metadata={"state": json.dumps(said)})  # one key: several come in any order

    def load(self) -> list[Any]:
        """Restore the saved state; returns the counters.

        Raises
        ------
        TrainingError : the file is not a checkpoint, one of another run, or changed since it was written.
        """
        try:
            meta, arrays = read_safetensors(self.path)
            state = from_json(meta.get("state", "{}"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.path}: no readable checkpoint ({error}); remove it to start afresh") from None
        if not isinstance(state, dict) or state.get("about") != self.about or "digest" not in state:
            raise TrainingError(
                f"{self.path}: this checkpoint is of another run (other settings, seed, corpus or version of qcq); "
                "remove it or name another file"
            )
        if state["digest"] != digest(state, arrays):
            raise TrainingError(f"{self.path}: changed or damaged since it was written; remove it to start afresh")
        held = {name: torch.from_numpy(array) for name, array in arrays.items()}

        def under(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in held.items() if key.startswith(f"{name}.")}

        self.learner.encoder.load_state_dict(under("encoder"))
        for name, table in self.learner.tables.items():
            table.held.copy_(held[name])
        moments = self.optimiser.state_dict()
        for key, t in under("adam").items():
            i, part = key.split(".")
            moments["state"].setdefault(int(i), {})[part] = t
        self.optimiser.load_state_dict(moments)
        return state["counters"]


__all__ = ["Checkpoint", "Exercise", "Learner", "SparseTable", "TrainingBatch", "rate", "train"]
