"""Knowledge-tracing models: they predict the next answer from past answers and the vector of the next question.

Models get vectors, never question numbers, so they know of a question only what its vector says. Each is a step
function with a state: a long sequence is read in chunks, and the state is passed from one chunk to the next, so no
answer is forgotten at a border and padding stays small.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qcq.data.dataset import Interactions
from qcq.errors import EvaluationError, TrainingError
from qcq.models.language.transformer import Bias
from qcq.support.devices import guarded, place, refuse_unusable
from qcq.support.files import from_json, whole_path
from qcq.support.progress import Progress, silent
from qcq.support.reproducible import reproducible
from qcq.support.seeds import derive, generator
from qcq.support.threads import torch_alone

if TYPE_CHECKING:
    from qcq.evaluation.tracing.tasks import KTSettings

CHUNK = 100  # attempts of a student that are read at once
TOKENS = 2_048  # attempts in a batch at most, padding included
BATCHES = 64  # in an epoch at least, if a batch then has four students or more
BACK = 200  # attempts to which attention looks back

State = Any


class Chunk:
    """A chunk of the attempts of some students: int64 (students, steps) each, tensors.

    Attributes
    ----------
    at : the index of each attempt in the part's responses, -1 pads (at the end of a row).
    question, correct : of each attempt, 0 where padded.
    before, answer : question and answer of the attempt before; -1 where there is none.
    """

    def __init__(self, at: NDArray[np.int64], question: NDArray, correct: NDArray, first: NDArray[np.bool_]) -> None:
        real = np.maximum(at, 0)
        last = np.maximum(real - 1, 0)
        alone = first[real] | (at < 0)
        self.at = at  # (B, T)
        self.question = torch.from_numpy(question[real])
        self.correct = torch.from_numpy(correct[real])
        self.before = torch.from_numpy(np.where(alone, -1, question[last]))
        self.answer = torch.from_numpy(np.where(alone, -1, correct[last]))
        self.real = torch.from_numpy(at >= 0)

    def on(self, device: str) -> Chunk:
        """The same with its tensors on ``device``."""
        moved = copy.copy(self)
        for name in ("question", "correct", "before", "answer", "real"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved


class Sequences:
    """The responses of one part as sequences, one per student.

    Parameters
    ----------
    part : the responses.
    version : which version of the features each response gets, int64 (responses,), the same for all of a student.
    """

    def __init__(self, part: Interactions, version: NDArray[np.int64]) -> None:
        self.question = part.question.astype(np.int64)
        self.correct = part.correct.astype(np.int64)
        self.version = version
        self.first = np.ones(len(part), dtype=bool)
        self.first[1:] = part.student[1:] != part.student[:-1]
        self.begin = np.flatnonzero(self.first)
        self.length = np.diff(np.append(self.begin, len(part)))

    def __len__(self) -> int:
        return len(self.question)

    def batches(self, rng: np.random.Generator | None = None, multiple: int = 1) -> Iterator[list[Chunk]]:
        """Batches of students of about equal length, each cut in time into chunks.

        A batch has about TOKENS attempts per chunk, fewer if there are few in all. With ``rng``, the students of a
        batch and the order of batches are random. Chunks begin at multiples of ``multiple``.
        """
        size = max(CHUNK - CHUNK % multiple, multiple)
        key = np.log(self.length) + (0.0 if rng is None else rng.uniform(0, 0.3, len(self.length)))
        order = np.argsort(-key, kind="stable")
        cuts, at = [], 0
        tokens = min(TOKENS, len(self) // BATCHES)
        while at < len(order):
            n = max(4, tokens // min(size, int(self.length[order[at]])))
            cuts.append(order[at : at + n])
            at += n
        for i in range(len(cuts)) if rng is None else rng.permutation(len(cuts)):
            who = cuts[i][np.argsort(-self.length[cuts[i]], kind="stable")]  # the longest first
            chunks = []
            for start in range(0, int(self.length[who[0]]), size):
                who = who[self.length[who] > start]  # students with further attempts; other states are dropped
                step = np.arange(start, min(start + size, int(self.length[who[0]])))
                place = np.where(step < self.length[who][:, None], self.begin[who][:, None] + step, -1)  # (B, T)
                chunks.append(Chunk(place, self.question, self.correct, self.first))
            yield chunks


class QuestionInput(nn.Module):
    """The input for each question: its vector, and fixed features.

    Parameters
    ----------
    vectors : float32 (questions, dim).
    features : float32 (versions, questions, features): one version for each fold of students and, last, one for all
        others; ``features`` may be 0.
    moves : learn a change of each vector; it starts at 0 and decays to 0, so rarely answered questions hardly change.
    """

    vectors: Tensor
    features: Tensor

    def __init__(self, vectors: NDArray[np.float32], features: NDArray[np.float32], moves: bool) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)
        self.register_buffer("features", torch.from_numpy(features), persistent=False)
        self.change = nn.Parameter(torch.zeros(vectors.shape)) if moves else None
        self.dim = vectors.shape[1] + features.shape[2]

    def forward(self, question: Tensor, version: Tensor) -> Tensor:
        """Rows of questions, (…, dim), zeros where the question is -1; ``version`` broadcasts with ``question``."""
        there = question >= 0
        at = question.clamp(min=0)
        x = F.embedding(at, self.vectors)
        if self.change is not None:
            x = x + F.embedding(at, self.change)
        if self.features.shape[2]:
            x = torch.cat([x, self.features[version.expand_as(at), at]], -1)
        return x * there[..., None]


class Dropout(nn.Module):
    """nn.Dropout with a mask from uniform numbers: torch's own draws each bit by itself, ten times as slowly."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        return x * ((torch.rand_like(x) >= self.share) * (1 / (1 - self.share)))


class Linear(nn.Linear):
    """torch's. It may read no columns, as where all questions have one vector; torch warns that it can't draw them."""

    def reset_parameters(self) -> None:
        if self.in_features:
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.uniform_(self.bias, 0, 0)  # as torch does, so that what is drawn next stays the same


class OutputHead(nn.Module):
    """From the state of a student and the vector of a question to the logit of a right answer.

    v · relu(A known + B asked) + w · asked + b
    """

    def __init__(self, known: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.known, self.asked = nn.Linear(known, hidden), Linear(dim, hidden, bias=False)
        self.out, self.straight = nn.Linear(hidden, 1), Linear(dim, 1, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, known: Tensor, asked: Tensor) -> Tensor:
        """Logits (B, T, K); ``known`` (B, T, 1 or K, ·), ``asked`` (B, T, K, dim)."""
        hidden = F.relu(self.known(self.dropout(known)) + self.asked(asked))
        return (self.out(self.dropout(hidden)) + self.straight(asked))[..., 0]


class DKT(nn.Module):
    """An LSTM over embedding × response; its state and the next question's vector give the next answer.

    The input at a step is [x, ±x, ±1] of the attempt before (x its question's vector, + where it was right), zeros at
    the first step.

    References
    ----------
    Piech et al. 2015, Deep knowledge tracing (NeurIPS), with question vectors in the place of one-hot skills.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.reader = nn.LSTM(2 * dim + 1, hidden, batch_first=True)
        self.head = OutputHead(hidden, dim, hidden, dropout)

    def forward(self, before: Tensor, answer: Tensor, asked: Tensor, state: State) -> tuple[Tensor, State]:
        known, state = self.reader(torch.cat([before, before * answer, answer], -1), state)  # (B, T, hidden)
        return self.head(known[:, :, None], asked), state

    @staticmethod
    def cut(state: State, students: int) -> State:
        return tuple(s[:, :students].detach().contiguous() for s in state)


class Attention(nn.Module):
    """Attention of the next question over the attempts before it.

    The query is the vector of the question asked, keys are the vectors of the questions answered before, values are
    question and answer together. The score of a head for an attempt ``a`` steps back is q · k / √d - θ a with a learned
    θ ≥ 0, so near attempts can weigh more. It looks at most BACK attempts back from where a chunk begins.

    References
    ----------
    Pandey & Karypis 2019, A self-attentive model for knowledge tracing (EDM), sections 3.1-3.3; the exponential decay
    after Ghosh, Heffernan & Lan 2020, Context-aware attentive knowledge tracing (KDD), section 3.2, in plain steps
    instead of its context-aware distance.
    """

    HEADS = 4

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.each = -(-hidden // self.HEADS)
        wide = self.each * self.HEADS
        self.key, self.query = Linear(dim, wide), Linear(dim, wide)
        self.value = nn.Linear(2 * dim + 1, wide)
        self.decay = nn.Parameter(torch.linspace(-6.0, -1.0, self.HEADS))
        self.head = OutputHead(wide, dim, hidden, dropout)

    def forward(self, before: Tensor, answer: Tensor, asked: Tensor, state: State) -> tuple[Tensor, State]:
        b, t, k, _ = asked.shape
        if state is not None:
            before, answer = torch.cat([state[0], before], 1), torch.cat([state[1], answer], 1)
        s = before.shape[1]

        def heads(x: Tensor) -> Tensor:
            return x.reshape(b, -1, self.HEADS, self.each).transpose(1, 2)  # (B, heads, ·, each)

        place = torch.arange(s, device=asked.device)
        back = place[s - t :, None] - place  # (T, S), how long ago; negative is the future
        decay = -F.softplus(self.decay)[:, None, None] * back
        decay = decay.masked_fill(back < 0, -torch.inf).repeat_interleave(k, dim=1)  # (heads, T K, S)
        q, keys = heads(self.query(asked)), heads(self.key(before))
        values = heads(self.value(torch.cat([before, before * answer, answer], -1)))
        bias = Bias(torch.ones(b, 1, s, dtype=torch.bool, device=q.device), decay)
        found = bias.attend(q, keys, values)
        known = found.transpose(1, 2).reshape(b, t, k, -1)
        return self.head(known, asked), (before[:, -BACK:], answer[:, -BACK:])

    @staticmethod
    def cut(state: State, students: int) -> State:
        return tuple(s[:students].detach() for s in state)


MODELS: Mapping[str, Any] = {"dkt": DKT, "attention": Attention}


def auc(probability: NDArray, correct: NDArray) -> float:
    """Area under the ROC curve; a half if all answers are the same."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(correct, probability)) if 0 < correct.sum() < len(correct) else 0.5


class Tracer:
    """A knowledge-tracing model with its table of questions. :meth:`fit` trains one.

    Parameters
    ----------
    vectors, features, moves : of the :class:`QuestionInput`.
    plan : the settings.
    seed : of the first weights, the order of batches and dropout.

    Attributes
    ----------
    history : validation AUC after each epoch.
    device : where it computes.
    """

    def __init__(
        self, vectors: NDArray[np.float32], features: NDArray[np.float32], moves: bool, plan: KTSettings, seed: int
    ) -> None:
        with torch_alone(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "kt", "weights"))
            self.table = QuestionInput(vectors, features, moves)
            self.model = MODELS[plan.model](self.table.dim, plan.hidden, plan.dropout)
        refuse_unusable(plan.device)
        self.device = place(plan.device)
        with guarded(self.device, lambda: "while its tables were made", lambda: "lower hidden, or use device = 'cpu'"):
            self._modules().to(self.device).eval()
        self.plan, self.seed, self.last = plan, seed, len(features) - 1
        self.history: list[float] = []

    @torch_alone()
    @reproducible()
    def fit(self, train: Sequences, validation: Sequences, progress: Progress = silent) -> Tracer:
        """Learn from ``train``; use the epoch with the highest AUC on ``validation``.

        Adam; the learning rate falls linearly to a twentieth over the epochs. Training stops early after ``patience``
        epochs without improvement. Students of fold f are shown version f of the features.

        Raises
        ------
        TrainingError : the loss is no longer finite.
        """
        plan = self.plan
        model = list(self.model.parameters())
        groups: list[dict[str, Any]] = [{"params": model, "lr": plan.lr, "weight_decay": 0.0}]
        if self.table.change is not None:
            groups.append({"params": [self.table.change], "lr": plan.table_lr, "weight_decay": plan.table_decay})
        adam = torch.optim.AdamW(groups, fused=True)
        full = [group["lr"] for group in adam.param_groups]
        best: dict[str, Tensor] = {}
        cuda = [torch.cuda.current_device()] if self.device == "cuda" else []
        epoch = 0
        with (
            torch.random.fork_rng(devices=cuda),
            guarded(self.device, lambda: f"in epoch {epoch + 1}", lambda: "lower hidden, or use device = 'cpu'"),
        ):
            torch.manual_seed(derive(self.seed, "kt", "dropout"))
            for epoch in range(plan.epochs):
                rng = generator(self.seed, "kt", "batches", epoch)
                batches = list(train.batches(rng))
                total = torch.zeros((), device=self.device)
                self.model.train()
                for i, batch in enumerate(batches):
                    share = (epoch + i / len(batches)) / plan.epochs
                    for group, lr in zip(adam.param_groups, full, strict=True):
                        group["lr"] = lr * (1 - 0.95 * share)
                    for chunk, logits in self._read(train, batch):
                        loss = F.binary_cross_entropy_with_logits(
                            logits[..., 0][chunk.real], chunk.correct[chunk.real].to(logits.dtype)
                        )
                        adam.zero_grad()
                        torch.autograd.backward(loss)
                        nn.utils.clip_grad_norm_(model, 1.0)
                        adam.step()
                        total += loss.detach()
                    progress(epoch * len(batches) + i + 1, plan.epochs * len(batches))
                if not torch.isfinite(total):
                    raise TrainingError(f"kt: the loss of epoch {epoch + 1} isn't finite; lower lr ({plan.lr})")
                self.history.append(auc(self.predict(validation), validation.correct))
                place = int(np.argmax(self.history))
                if place == epoch:
                    best = {k: v.clone() for k, v in self._modules().state_dict().items()}
                if epoch - place >= plan.patience:
                    break
            self._modules().load_state_dict(best)
        self.model.eval()
        return self

    def _modules(self) -> nn.Module:
        return nn.ModuleList([self.table, self.model])

    def _read(self, part: Sequences, batch: list[Chunk], ahead: int = 1) -> Iterator[tuple[Chunk, Tensor]]:
        """The chunks of a batch in order with their logits, (B, T, ahead): at (·, t, k) those of attempt t + k from the
        attempts before t; the last attempt of the chunk where it has no such attempt."""
        state: State = None
        for chunk in batch:
            if state is not None:
                state = self.model.cut(state, len(chunk.at))
            chunk = chunk.on(self.device)
            version = torch.from_numpy(part.version[chunk.at[:, 0]])[:, None].to(self.device)  # (B, 1)
            t = chunk.question.shape[1]
            both = self.table(torch.cat([chunk.before, chunk.question], 1), version)  # read at once: one gradient
            before, own = both.split([chunk.before.shape[1], t], 1)
            step = torch.arange(max(t, ahead), device=self.device)
            later = (step[:t, None] + step[:ahead]).clamp(max=t - 1)  # (T, ahead)
            asked = own[:, :, None] if ahead == 1 else own[:, later]  # (B, T, ahead, dim)
            sign = (2.0 * chunk.answer - 1) * (chunk.before >= 0)
            logits, state = self.model(before, sign[..., None], asked, state)
            yield chunk, logits

    @torch_alone()
    @reproducible()
    def predict(self, part: Sequences, ahead: int = 1) -> NDArray[np.float64]:
        """Probability that each response is right: float64 (responses,).

        A student's responses are cut into blocks of ``ahead``. Each is predicted from the responses before its block,
        the block's own answers unknown; with ``ahead = 1`` from all responses before it.
        """
        out = np.empty(len(part))
        training = self.model.training
        self.model.eval()
        short = guarded(self.device, lambda: "in a prediction", lambda: "use device = 'cpu'")
        with torch.no_grad(), short:
            for batch in part.batches(multiple=ahead):
                for chunk, logits in self._read(part, batch, ahead):
                    at = np.arange(chunk.at.shape[1])
                    mine = logits[:, at - at % ahead, at % ahead]  # (B, T)
                    out[chunk.at[chunk.at >= 0]] = torch.sigmoid(mine[chunk.real].double()).cpu().numpy()
        self.model.train(training)
        return out

    @reproducible()
    def mastery(self, question: NDArray, correct: NDArray, asked: NDArray) -> NDArray[np.float32]:
        """Probability that a student would answer each of ``asked`` right, before the first attempt and after each.

        Parameters
        ----------
        question, correct : the attempts of one student in order, (steps,); indices of questions, and 0 or 1.
        asked : indices of questions, (asked,).

        Returns
        -------
        float32 (steps + 1, asked)
        """
        known = np.r_[-1, question].astype(np.int64)
        sign = np.r_[0.0, 2.0 * np.asarray(correct) - 1].astype(np.float32)
        version = torch.full((1, 1), self.last, device=self.device)
        rows, state = [], None
        short = guarded(self.device, lambda: "in a prediction", lambda: "use device = 'cpu'")
        with torch.no_grad(), short:
            of = torch.from_numpy(np.asarray(asked, dtype=np.int64))[None].to(self.device)
            every = self.table(of, version)  # (1, asked, dim)
            for at in range(0, len(known), CHUNK):
                before = torch.from_numpy(known[None, at : at + CHUNK]).to(self.device)
                t = before.shape[1]
                logits, state = self.model(
                    self.table(before, version),
                    torch.from_numpy(sign[None, at : at + CHUNK, None]).to(self.device),
                    every[:, None].expand(1, t, -1, -1),
                    state,
                )
                rows.append(torch.sigmoid(logits[0]).cpu().numpy())
        return np.concatenate(rows)

    def save(self, path: Path) -> Path:
        """Write what :meth:`mastery` needs as ``.safetensors``: weights, vectors, features for new students."""
        from safetensors.torch import save_file

        held = {name: t.contiguous() for name, t in self._modules().state_dict().items()}
        held |= {"vectors": self.table.vectors, "features": self.table.features[-1:].contiguous()}
        plan = {name: getattr(self.plan, name) for name in ("model", "hidden", "dropout")}
        about = json.dumps({"plan": plan, "seed": self.seed})
        with whole_path(path) as partial:
            save_file(held, partial, metadata={"about": about})  # one key: several come in any order
        return path

    @classmethod
    @reproducible()
    def load(cls, path: Path) -> Tracer:
        """A model that :meth:`save` wrote.

        Raises
        ------
        EvaluationError : the file holds no such model.
        """
        from safetensors import SafetensorError, safe_open

        from qcq.evaluation.tracing.tasks import KTSettings

        try:
            with safe_open(str(path), framework="pt") as file:
                about = from_json((file.metadata() or {})["about"])
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            vectors, features = held.pop("vectors").numpy(), held.pop("features").numpy()
            made = cls(vectors, features, "0.change" in held, KTSettings(**about["plan"]), about["seed"])
            made._modules().load_state_dict(held)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise EvaluationError(f"{path}: no readable tracing model ({said}); remove it to train it again") from None
        return made
