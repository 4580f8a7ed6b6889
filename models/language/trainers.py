"""Language models over walks: masked prediction (``mlm``), leave-one-out cloze (``cloze``), the next question
(``clm``), the next and the previous one (``bilm``).

A trainer is embedding × encoder × position × objective × loss. This module has the settings and the objectives; torch
is loaded when something is trained.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field, model_validator

from qcq.corpus import Corpus
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, TrainingError
from qcq.floors.losses import HeldOutLoss
from qcq.floors.objectives import BothDirections, HeldOutBatch, Masked, NextQuestion, Objective, first_walks
from qcq.graph import KnowledgeGraph
from qcq.models.language import readout
from qcq.models.trainer import Frozen, Model, Trainer, TrainingData
from qcq.models.weights import WARM_RATE, WARM_STEPS, Weights
from qcq.models.word2vec import token_counts
from qcq.support import devices
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive
from qcq.support.settings import settings
from qcq.support.threads import torch_alone

if TYPE_CHECKING:
    import torch

    from qcq.models.language.training import Learner, TrainingBatch
    from qcq.models.language.transformer import Encoder
    from qcq.walks import WalkStrategy

Share = Annotated[float, Field(ge=0, le=1)]


class Numbers(Protocol):
    """A source of random numbers: numpy's Generator, or one on a device."""

    def random(self, size: Any, /) -> Any:
        """Uniform numbers in [0, 1) of shape ``size``."""

    def integers(self, low: int, high: int, size: Any, /) -> Any:
        """Uniform whole numbers from ``low`` to below ``high`` of shape ``size``."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What an objective makes of a batch of walks: arrays of numpy or tensors of torch, (walks, length) each.

    Attributes
    ----------
    tokens : what the model is given.
    hidden : tokens behind a mask.
    asked : the positions to predict.
    back : the positions to predict from their right; None if there are none.
    """

    tokens: Any
    hidden: Any
    asked: Any
    back: Any = None


@settings
class LanguageTrainer(Trainer):
    """What all language models share: encoder, position, loss and training. The budget is counted in steps.

    Parameters
    ----------
    layers, heads : of the encoder; ``dim`` must be a multiple of ``heads``. An LSTM has no heads and no positions.
    norm : layer norm before or after each half of a block.
    dropout : share of activations dropped in training.
    position : none, absolute, sinusoidal, relative, or local (a relative bias that sees neighbours first).
    combine : token, node-type and position vectors are added, or concatenated and mapped back to ``dim``.
    tying : the output table *is* the input table, is a table of its own, or starts as a copy of it.
    softmax : the loss. Full, or with ``negatives`` that are shared by a batch and drawn from ``proposal``: sampled
        softmax, negative-sampling (skip-gram's loss), or gbce. The held-out loss is a cross-entropy over the whole
        vocabulary with all of them.
    ns_k : negatives per prediction: the total weight of the drawn set in negative sampling.
    gbce_t : how far gbce damps its positives: 0 is plain binary cross-entropy, 1 makes its scores probabilities.
    layout : "bert" adds the layer norm below the blocks and the transform above them that BERT has. With post-norm,
        absolute positions, heads as you like and vectors added it *is* BERT, and ``to_huggingface`` can export it.
    init : standard deviation of a token vector's entries times sqrt(dim), which is about its length.
    steps, batch : updates, and walks per update.
    lr, table_lr : peak learning rates of the body and of the tables.
    warmup : share of the steps in which rates rise; they fall to 0 in the rest.
    clip : largest norm of a gradient.
    patience : stop after this many measurements (20 per run) without a new best on held-out walks; 0 never stops.
    stop_excess : stop as soon as the held-out loss is within this many nats of its floor.
    device : where to train: "cpu", "cuda", "mps", or "auto": the first of cuda, mps and cpu that is there. A device
        runs another plan of the same training (docs/transformer.md), and draws other walks and masks than the CPU.
    deterministic : torch's deterministic mode, so that the same seed gives the same vectors on CUDA too, on the same
        kind of device; some operations are slower. The CPU does so with one thread, and without this setting.
    threads : CPU threads. One gives the same bytes in every run; more round differently from run to run, and are faster
        only with the full softmax or a wide encoder.
    processes : how many processes take a share of every batch; all take the same step, which is that of one process up
        to rounding. Ray starts them (``pip install 'qcq[ray]'``), on the CPU; one that dies is started again.
    readouts : the vectors to use, the default first; none means table, output, hidden and context, if the model has
        them. See ``readout.py``; ``+centred``, ``+abtt`` and ``+whitened`` may follow a name.
    checkpoint : a ``.safetensors`` file: written now and then, continued from where it exists.
    """

    layers: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] = 4
    norm: Literal["pre", "post"] = "pre"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    position: Literal["none", "absolute", "sinusoidal", "relative", "local"] = "local"
    combine: Literal["add", "concatenate"] = "add"
    tying: Literal["tied", "untied", "start"] = "start"
    layout: Literal["plain", "bert"] = "plain"
    softmax: Literal["full", "sampled", "negative-sampling", "gbce"] = "sampled"
    negatives: Annotated[int, Field(ge=1)] = 2048
    proposal: Literal["unigram", "log-uniform", "uniform"] = "unigram"
    ns_k: Annotated[int, Field(ge=1)] = 5
    gbce_t: Share = 0.75
    init: Annotated[float, Field(gt=0)] = 0.1
    steps: Annotated[int, Field(ge=1)] = 6000
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 3e-3
    table_lr: Annotated[float, Field(gt=0)] = 5e-2
    warmup: Share = 0.05
    clip: Annotated[float, Field(gt=0)] = 1.0
    patience: Annotated[int, Field(ge=0)] = 0
    stop_excess: float | None = None
    device: str = "cpu"
    deterministic: bool = False
    threads: Annotated[int, Field(ge=1)] = 1
    processes: Annotated[int, Field(ge=1)] = 1
    readouts: tuple[str, ...] = ()
    checkpoint: str | None = None

    revision = 2
    objective: ClassVar[Objective] = Masked()
    shown: ClassVar[tuple[str, ...]] = ("table", "output", "hidden", "context")

    @model_validator(mode="after")
    def _fits(self) -> LanguageTrainer:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}; change one of them")
        if self.deterministic and self.device.startswith("mps"):
            raise ValueError(f"device {self.device!r} has no deterministic mode; use 'cpu' or 'cuda'")
        if self.processes > 1 and self.device != "cpu":
            raise ValueError(f"{self.processes} processes train on the CPU only, given device {self.device!r}")
        if self.processes > 1 and not self.divisible:
            raise ValueError(
                f"{type(self).__name__.lower()} is trained by one process, given processes {self.processes}"
            )
        return self

    static: ClassVar[bool] = False  # run a device's program of fixed shapes, even on the CPU
    divisible: ClassVar[bool] = True  # its loss is a sum over walks, so processes can share a batch

    @property
    def asks(self) -> float:
        """The share of the tokens that are asked for."""
        return 1.0

    @abstractmethod
    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        """The objective: what is hidden and asked of a batch of walks, (walks, length) with -1 pads.

        Written once for numpy's arrays and torch's tensors: comparisons, ``&``, ``~``, sums and products.
        """

    def training_batch(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> TrainingBatch:
        """Turn a batch of walks, int32 (walks, length) with -1 pads, into a prediction exercise."""
        from qcq.models.language.training import TrainingBatch

        made = self.ask(tokens, n_questions, rng)
        targets = tokens[made.asked] if made.back is None else np.r_[tokens[made.asked], tokens[made.back]]
        return TrainingBatch(
            made.tokens.astype(np.int64), made.hidden, tokens >= 0, made.asked, targets.astype(np.int64), made.back
        )

    @abstractmethod
    def architecture(self) -> type[Encoder]:
        """The kind of encoder for it."""

    @property
    def effort(self) -> float:
        return 0.05 * self.steps * self.layers

    def work(self, graph: KnowledgeGraph, tokens: int, length: int) -> int:
        return self.steps * self.batch * length  # a step costs the same for any vocabulary

    def shortened(self) -> LanguageTrainer:
        return replace(self, steps=min(self.steps, 20))

    def model(self, source: TrainingData, learner: Learner) -> LanguageModel:
        """A learner with the read-outs that this trainer offers."""
        return LanguageModel(source, learner, self.objective, self.readouts, self.shown)

    @property
    def place(self) -> str:
        """The device that ``device`` means here."""
        return devices.place(self.device)

    @property
    def reproducible(self) -> bool:
        if self.place == "cpu":
            return self.threads == 1
        return self.deterministic and self.place.startswith("cuda")

    def refuse_unusable(self) -> None:
        devices.refuse_unusable(self.device)

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> LanguageModel:
        """Train on the source's walks.

        Raises
        ------
        ConfigError : a missing device, or a read-out that this model lacks.
        TrainingError : training diverged; the text says at which step and learning rate.
        """

        from qcq.models.language.execution import execution
        from qcq.models.language.training import train

        self.refuse_unusable()
        plan, began = self, {}
        if source.start is not None:
            steps = max(1, math.ceil(WARM_STEPS * self.steps))
            plan = replace(self, steps=steps, lr=WARM_RATE * self.lr, table_lr=WARM_RATE * self.table_lr)
            began = {"start": source.start.digest}
        corpus = source.corpus
        with torch_alone(self.threads):
            with devices.guarded(self.place, lambda: "while its tables were made", lambda: "lower dim or layers"):
                learner, counts = self.learner(source, seed)
            model = self.model(source, learner)
            about = {**self.config, "checkpoint": None, "seed": seed, "corpus": corpus.digest, **began}
            if self.processes > 1:
                from qcq.models.language.distributed import by_ray

                model.tokens, model.history = by_ray(plan, source, seed, learner, about)
            else:
                monitor, ask = Monitor(model, source, len(counts)), self.asker(corpus)
                how = execution(learner, plan)
                with devices.deterministic(self.deterministic):
                    model.tokens, model.history = train(learner, plan, corpus, ask, seed, progress, monitor, about, how)
            model.trainer = {"name": type(self).__name__.lower(), **self.config}
        return model

    def asker(self, corpus: Corpus) -> Callable[[NDArray[np.int32], np.random.Generator], TrainingBatch]:
        """:meth:`training_batch` for the walks of a corpus."""
        return lambda walks, rng: self.training_batch(walks, corpus.n_questions, rng)

    def learner(self, source: TrainingData, seed: int) -> tuple[Learner, NDArray[np.int64]]:
        """An untrained learner for the source's vocabulary, and how often each token occurs: int64 (V,)."""
        import torch

        from qcq.models.language.softmax import LOSSES, fits_whole
        from qcq.models.language.tables import DenseTable, SparseTable, Table
        from qcq.models.language.training import Learner

        corpus = source.corpus
        counts, paired = token_counts(corpus)
        if not (self.architecture().hides or paired.any()):
            raise TrainingError("no walk has two tokens, so there is no next one to learn; the graph may have no edges")
        n_types = 2 if len(counts) > corpus.n_questions else 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "init"))
            encoder = self._encoder(corpus.length, n_types).to(self.place)
            first = torch.randn(len(counts), self.dim) * (self.init / self.dim**0.5)
            second = first.clone() if self.tying == "start" else torch.randn_like(first) * (self.init / self.dim**0.5)
        rows = self.place == "cpu" and not self.static
        # With every token drawn, the sampled softmax is the full one: a device computes it where there is room.
        whole = not rows and self.softmax == "sampled" and fits_whole(self.batch * corpus.length, len(counts))
        kind = "full" if whole else self.softmax
        loss = LOSSES[kind].planned(self, counts, seed)
        start = loss.start(np.maximum(counts, 0.5) / counts.sum())  # predictions start at the unigram distribution
        bias = torch.from_numpy(start).float()[:, None]
        if source.start is not None:
            held = self._begin_from(source.start, encoder, len(counts))
            first, second, bias = held.get("input", first), held.get("output", second), held.get("bias", bias)

        def made(weight: torch.Tensor, every: bool) -> Table:
            return SparseTable(weight) if rows else DenseTable(weight.to(self.place), every)

        every = kind == "full"
        table = made(first, every and self.tying == "tied")
        output = table if self.tying == "tied" else made(second, every)
        return self._around(Learner(encoder, table, output, made(bias, every), loss, corpus.n_questions)), counts

    def _encoder(self, length: int, n_types: int) -> Encoder:
        """A new encoder of walks of up to ``length`` tokens."""
        return self.architecture()(
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            norm=self.norm,
            dropout=self.dropout,
            position=self.position,
            length=length,
            n_types=n_types,
            combine=self.combine,
            layout=self.layout,
        )

    def restored(self, weights: Weights, walk: WalkStrategy) -> Learner:
        """The learner that a training on ``walk`` ended with, on the CPU, for predictions alone."""
        import torch

        from qcq.models.language.softmax import LOSSES
        from qcq.models.language.tables import SparseTable
        from qcq.models.language.training import Learner

        length = 2 * walk.length - 1 if walk.keep_concepts else walk.length
        with torch_alone(), torch.random.fork_rng(devices=[]):
            encoder = self._encoder(length, 2 if weights.concepts else 1)
        encoder.load_state_dict({name: torch.from_numpy(rows.copy()) for name, rows in weights.body.items()})
        held = {name: SparseTable(torch.from_numpy(rows.copy())) for name, rows in weights.tables.items()}
        loss = LOSSES["full"].planned(self, np.zeros(len(weights), dtype=np.int64), 0)
        made = Learner(
            encoder, held["input"], held.get("output", held["input"]), held["bias"], loss, len(weights.questions)
        )
        return self._around(made)

    def _around(self, learner: Learner) -> Learner:
        """The learner that this trainer makes of a plain one."""
        return learner

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64] | None:
        """By the model's state in the question's place, mapped to the table: :mod:`qcq.models.language.slot`."""
        from qcq.models.language.slot import inferred

        return inferred(self, frozen, weights)

    def _begin_from(self, start: Weights, encoder: Encoder, tokens: int) -> dict[str, torch.Tensor]:
        """The tables of an earlier training; its encoder is loaded where it is known."""
        import torch

        start.refuse_other(type(self).__name__.lower(), self.dim, tokens)
        if start.body:
            try:
                encoder.load_state_dict({name: torch.from_numpy(rows.copy()) for name, rows in start.body.items()})
            except RuntimeError:
                changed = [name for name in _SHAPE if start.trainer.get(name) != getattr(self, name)]
                which = ", ".join(changed) or "the length of the walks"
                raise ConfigError(
                    f"the start was trained with another encoder ({which}); take the settings it was trained with"
                ) from None
        return {name: torch.from_numpy(rows.copy()) for name, rows in start.tables.items()}


_SHAPE = ("layers", "heads", "norm", "position", "combine", "layout")  # settings that decide an encoder's weights


@settings
class MLM(LanguageTrainer):
    """Masked prediction (Devlin et al. 2019): hide some tokens, predict them from all the others.

    Parameters
    ----------
    mask_rate : share of tokens that is predicted.
    mask_share, random_share : of those, the share replaced by the mask and by a random question; the rest is unchanged.
        BERT's rule is 0.15, 0.8, 0.1; (…, 1, 0) is pure masking.

    References
    ----------
    Devlin et al. 2019, BERT, section 3.1. Wettig et al. 2023, Should you mask 15%?
    """

    warm = True
    steps: Annotated[int, Field(ge=1)] = 6000
    tying: Literal["tied", "untied", "start"] = "tied"
    mask_rate: Annotated[float, Field(gt=0, le=1)] = 0.4
    mask_share: Share = 1.0
    random_share: Share = 0.0

    @model_validator(mode="after")
    def _shares(self) -> MLM:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1")
        return self

    @property
    def asks(self) -> float:
        return self.mask_rate

    def architecture(self) -> type[Encoder]:
        from qcq.models.language.transformer import Bidirectional

        return Bidirectional

    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        asked = (rng.random(tokens.shape) < self.mask_rate) & (tokens >= 0)
        fate = rng.random(tokens.shape)
        hidden = asked & (fate < self.mask_share)
        if not self.random_share:
            return Asked(tokens, hidden, asked)
        swapped = asked & ~hidden & (fate < self.mask_share + self.random_share)
        return Asked(tokens + swapped * (rng.integers(0, n_questions, tokens.shape) - tokens), hidden, asked)

    def training_batch(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> TrainingBatch:
        made = super().training_batch(tokens, n_questions, rng)
        if made.asked.any():
            return made
        # Nothing is learnt from a batch without predictions: hide and ask for one real token.
        made.asked.flat[one := rng.choice(np.flatnonzero(made.real))] = True
        made.hidden.flat[one] = True
        return replace(made, targets=tokens[made.asked].astype(np.int64))


@settings
class Cloze(LanguageTrainer):
    """Leave-one-out prediction of every token in one pass, by self-excluding two-stream attention.

    Parameters
    ----------
    hide_rate : share of tokens hidden from all predictions in training (they are still predicted), so that the model
        can also predict when neighbours are hidden.

    References
    ----------
    Yang et al. 2019, XLNet, section 2.3, for the two streams; here keys and values are raw token
    vectors in every layer.
    """

    warm = True
    steps: Annotated[int, Field(ge=1)] = 4000
    tying: Literal["tied", "untied", "start"] = "tied"
    hide_rate: Share = 0.1

    def architecture(self) -> type[Encoder]:
        from qcq.models.language.transformer import TwoStream

        return TwoStream

    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        real = tokens >= 0
        return Asked(tokens, (rng.random(tokens.shape) < self.hide_rate) & real, real)


@settings
class CLM(LanguageTrainer):
    """Predict the next question from those before it, as GPT does; later questions are hidden.

    Parameters
    ----------
    encoder : a causal Transformer, or an LSTM.

    References
    ----------
    Radford et al. 2018, Improving language understanding by generative pre-training, eq. 1.
    """

    encoder: Literal["transformer", "lstm"] = "transformer"

    objective = NextQuestion()

    def architecture(self) -> type[Encoder]:
        from qcq.models.language.recurrent import LSTM
        from qcq.models.language.transformer import Causal

        encoders: dict[str, type[Encoder]] = {"transformer": Causal, "lstm": LSTM}
        return encoders[self.encoder]

    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        asked = tokens >= 0
        asked[:, 0] = False
        return Asked(tokens, tokens < -1, asked)  # nothing is hidden


@settings
class BiLM(LanguageTrainer):
    """ELMo's bidirectional language model: one LSTM predicts the next question, another the previous one.

    The two share the token vectors and the output table, and neither sees what it has to predict. A state above the
    input concatenates both directions, so it has 2 ``dim`` entries, as have the read-outs ``context`` (the top layer)
    and ``mean`` (of embedding and layers); ``concat`` (all of them) has more.

    References
    ----------
    Peters et al. 2018, Deep contextualized word representations, eq. 1–3.
    """

    objective = BothDirections()
    shown = ("table", "output", "context", "mean", "concat")

    def architecture(self) -> type[Encoder]:
        from qcq.models.language.recurrent import BiLSTM

        return BiLSTM

    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        real, asked, back = tokens >= 0, tokens >= 0, tokens < -1
        asked[:, 0] = False
        back[:, :-1] = real[:, 1:]
        return Asked(tokens, tokens < -1, asked, back)


class Monitor:
    """Held-out loss, floor, excess and verdict, on a batch small enough for many measurements."""

    def __init__(self, model: LanguageModel, source: TrainingData, vocabulary: int) -> None:
        batch = model.objective.held_out_batch(source.heldout, seed=1)
        n = int(np.clip(2**25 / (vocabulary * len(batch) / len(batch.tokens)), 16, 256))  # about 128 MiB of scores
        self.model, self.held = model, HeldOutLoss(source, first_walks(batch, len(batch.tokens), n))

    def __call__(self, history: Sequence[float]) -> dict[str, float | str]:
        losses = self.model.losses(self.held.batch)
        return self.held.report(losses, [*history, float(losses.mean())]).figures


class LanguageModel(Model):
    """A trained encoder with its tables.

    Attributes
    ----------
    known : all read-outs of the model; each may be followed by changes, "context+whitened".
    readouts : the default selection of read-outs.
    """

    objective: Objective
    trainer: Mapping[str, Any] | None = None

    def __init__(
        self,
        source: TrainingData,
        learner: Learner,
        objective: Objective,
        readouts: tuple[str, ...],
        shown: tuple[str, ...],
    ) -> None:
        self.graph: KnowledgeGraph = source.graph
        self.source, self.learner, self.objective = source, learner, objective
        encoder = learner.encoder
        self.known = readout.names(len(encoder.blocks), learner.output is learner.input, encoder.sees_itself)
        self.readouts = readouts or tuple(name for name in self.known if name in shown)
        for name in self.readouts:
            readout.refuse_unknown(name, self.known, "this model")
        self._met: tuple[int, readout.Occurrences] | None = None

    def embeddings(self, readout: str | None = None) -> Embeddings:
        """The vectors called ``readout``: any of ``known``, with changes after a plus sign, or the first default.

        Raises
        ------
        ConfigError : the model has no such read-out; the text names those it has.
        """
        return self._read(readout or self.readouts[0])

    def weights(self) -> Weights | None:
        if self.trainer is None:
            return None
        with self._guarded("while its weights were read"):
            tables = {name: table.weight.cpu().numpy() for name, table in self.learner.tables.items()}
            body = {name: rows.cpu().numpy() for name, rows in self.learner.encoder.state_dict().items()}
        concepts = self.graph.concepts if len(tables["input"]) > self.graph.n_questions else ()
        return Weights(self.graph.questions, concepts, tables, body, dict(self.trainer))

    def losses(self, batch: HeldOutBatch) -> NDArray[np.float64]:
        if batch.asked is None:
            raise ConfigError("a language model predicts positions, not pairs; give it a masked batch")
        given, mine = batch.objective, self.objective
        if isinstance(given, BothDirections) and isinstance(mine, BothDirections):
            return given.each(batch, self.losses)
        directions = {NextQuestion: (mine,), BothDirections: BothDirections.halves}.get(type(mine), ())
        if given in directions:
            with self._guarded("in a held-out loss"):
                return self.learner.nats(batch.tokens, batch.asked, back=given == NextQuestion("backward"))
        if directions or isinstance(given, (NextQuestion, BothDirections)):
            raise ConfigError(f"a model of {mine.name!r} has no predictions for the objective {given.name!r}")
        with self._guarded("in a held-out loss"):
            return self.learner.nats(batch.tokens, batch.asked)

    def _guarded(self, step: str) -> AbstractContextManager[None]:
        """Turns what a device can do to a prediction into one line."""
        return devices.guarded(str(self.learner.device), lambda: step, lambda: "use device = 'cpu'")

    def attention(self, batch: HeldOutBatch, walks: int = 256) -> NDArray[np.float64]:
        """Mean attention of asked positions to tokens d = 0, 1 … steps away, over all heads.

        float64 (length,), sums to 1. Only for a masked model, where the asked position is the query.

        Raises
        ------
        ConfigError : a model of another kind.
        """
        import torch

        from qcq.models.language.transformer import Attention, Bidirectional

        encoder = self.learner.encoder.eval()
        if not isinstance(encoder, Bidirectional) or batch.asked is None:
            raise ConfigError(f"no attention by distance for a model of {self.objective.name!r}; use a masked one")
        found: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda layer, given: found.append(layer.weights(*given)))
            for layer in encoder.modules()
            if isinstance(layer, Attention)
        ]
        tokens, asked = batch.tokens[:walks], batch.asked[:walks]
        with torch.no_grad(), self._guarded("in a prediction"):
            try:
                self.learner.answers(tokens, asked, tokens >= 0, asked)
            finally:
                for hook in hooks:
                    hook.remove()
            looks = torch.stack(found).mean(dim=(0, 2)).double().cpu().numpy()[asked]  # (asked, L)
        place = np.arange(tokens.shape[1])
        away = np.abs(place - np.nonzero(asked)[1][:, None])  # (asked, L)
        return np.bincount(away.ravel(), looks.ravel(), minlength=len(place)) / len(looks)

    def to_huggingface(self, folder: str | Path) -> Path:
        """Write the model as a folder that transformers loads: see :func:`qcq.models.language.huggingface.export`."""
        from qcq.models.language.huggingface import export

        return export(self, folder)

    def _read(self, name: str) -> Embeddings:
        readout.refuse_unknown(name, self.known, "this model")
        plain, *changes = name.split("+")
        with self._guarded(f"in the read-out {plain}"):
            vectors = self._vectors(plain)
        n = self.graph.n_questions
        rows, others = vectors[:n], vectors[n:]
        for change in changes:  # fitted on the questions; concepts aren't changed, so they are left out
            rows, others = readout.CHANGES[change](rows), vectors[:0]
        if len(others):
            return Embeddings(self.graph.questions, rows, self.graph.concepts, others)
        return Embeddings(self.graph.questions, rows)

    def _vectors(self, name: str) -> NDArray[np.float32]:
        """The read-out ``name`` of all tokens: float32 (V, dim)."""
        tables = {"table": self.learner.input, "output": self.learner.output}
        if name in tables:
            return np.ascontiguousarray(tables[name].weight.cpu().numpy())
        kind, _, inner = name.partition("-")
        top = len(self.learner.encoder.blocks)
        layer = int(inner) if inner else top
        tokens = len(self.learner.input.weight)
        if kind in ("mean", "concat"):
            each = [readout.Occurrences(self.learner, self.source.corpus, i, tokens).mean() for i in range(top + 1)]
            # Both directions of a bidirectional model are concatenated, except at the input, which they share.
            wide = [np.tile(x, each[-1].shape[1] // x.shape[1]) for x in each]
            return np.mean(wide, axis=0, dtype=np.float32) if kind == "mean" else np.concatenate(each, axis=1)
        if kind == "hidden":
            return readout.lone(self.learner, layer, tokens)
        if self._met is None or self._met[0] != layer:  # ``context`` and ``principal`` share their states
            self._met = layer, readout.Occurrences(self.learner, self.source.corpus, layer, tokens)
        return self._met[1].mean() if kind == "context" else self._met[1].principal()


__all__ = ["CLM", "MLM", "BiLM", "Cloze", "LanguageModel", "LanguageTrainer"]
