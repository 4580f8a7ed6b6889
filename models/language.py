"""Language models over walks: masked prediction (``mlm``) and leave-one-out cloze (``cloze``).

A trainer is embedding × encoder × position × objective × loss. This module holds the settings and the objectives; torch
is loaded when something is trained.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from qcq.embeddings import Embeddings
from qcq.errors import ConfigError
from qcq.graph import KnowledgeGraph
from qcq.losses import Paper
from qcq.models import readout
from qcq.models.trainer import Model, Source, Trainer
from qcq.objectives import Masked, Objective, Probe
from qcq.progress import Progress, silent
from qcq.seeds import derive
from qcq.settings import settings

if TYPE_CHECKING:
    from qcq.models.training import Exercise, Learner
    from qcq.models.transformer import Encoder

Share = Annotated[float, Field(ge=0, le=1)]

DEFAULT_READOUTS = ("table", "output", "hidden", "context")


@settings
class LanguageTrainer(Trainer):
    """What all language models share: encoder, position, loss and training. The budget is counted in steps.

    Parameters
    ----------
    layers, heads : of the encoder; ``dim`` must be a multiple of ``heads``.
    norm : layer norm before or after each half of a block.
    dropout : share of activations dropped in training.
    position : none, absolute, sinusoidal, relative, or local (a relative bias that sees neighbours first).
    combine : token, node-type and position vectors are added, or concatenated and mapped back to ``dim``.
    tying : the output table *is* the input table, is a table of its own, or starts as a copy of it.
    softmax : full, or sampled with ``negatives`` shared by a batch and drawn from ``proposal``.
    init : standard deviation of a token vector's entries times sqrt(dim), that is about its length.
    steps, batch : updates, and walks an update.
    lr, table_lr : peak learning rates of the body and of the tables.
    warmup : share of the steps in which rates rise; they fall to 0 in the rest.
    clip : largest norm of a gradient.
    patience : stop after so many measurements (20 a run) without a new best on held-out walks; 0 never does.
    stop_excess : stop as soon as the held-out loss is within so many nats of its floor.
    device : where to train: "cpu", "cuda", "mps".
    threads : of the processor. One gives the same bytes in every run; more round differently from run to run, and pay
        only with the full softmax or a wide encoder.
    readouts : which vectors are looked at, the default first; none names table, output, hidden and context, as far as
        the model has them. See ``readout.py``; ``+centred``, ``+abtt`` and ``+whitened`` may follow a name.
    checkpoint : a ``.safetensors`` file: written now and then, continued from where it exists.
    """

    layers: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] = 1
    norm: Literal["pre", "post"] = "pre"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    position: Literal["none", "absolute", "sinusoidal", "relative", "local"] = "local"
    combine: Literal["add", "concatenate"] = "add"
    tying: Literal["tied", "untied", "start"] = "start"
    softmax: Literal["full", "sampled"] = "sampled"
    negatives: Annotated[int, Field(ge=1)] = 2048
    proposal: Literal["unigram", "log-uniform"] = "unigram"
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
    threads: Annotated[int, Field(ge=1)] = 1
    readouts: tuple[str, ...] = ()
    checkpoint: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> LanguageTrainer:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}; change one of them")
        return self

    @abstractmethod
    def exercise(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> Exercise:
        """Turn a batch of walks, int32 (walks, length) with -1 pads, into questions."""

    @abstractmethod
    def encoder(self) -> type[Encoder]:
        """The kind of encoder that answers them."""

    def fit(self, source: Source, seed: int = 0, progress: Progress = silent) -> LanguageModel:
        """Train on the source's walks.

        Raises
        ------
        ConfigError : a device that isn't there, or a read-out that this model lacks.
        TrainingError : training diverged; the text says at which step and learning rate.
        """
        import torch

        from qcq.models.training import train

        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
            text = str(error).splitlines()[0]
            raise ConfigError(f"setting device: {self.device!r} can't be used here ({text}); use 'cpu'") from None
        corpus, before = source.corpus, torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            learner, counts = self.learner(source, seed)
            model = LanguageModel(source, learner, self.readouts)
            model.tokens, model.history = train(
                learner,
                self,
                corpus,
                lambda walks, rng: self.exercise(walks, corpus.n_questions, rng),
                seed,
                progress,
                Monitor(model, source, len(counts)),
                {**self.config, "checkpoint": None, "seed": seed, "corpus": corpus.digest},
            )
        finally:
            torch.set_num_threads(before)
        return model

    def learner(self, source: Source, seed: int) -> tuple[Learner, NDArray[np.int64]]:
        """An untrained learner for the source's vocabulary, and how often each token occurs: int64 (V,)."""
        import torch

        from qcq.models.softmax import LOSSES
        from qcq.models.training import Learner, Table

        corpus = source.corpus
        counts = np.zeros(corpus.n_questions + corpus.n_concepts, dtype=np.int64)
        for shard in corpus.shards:
            for i in range(0, len(shard), 2**16):  # memory-mapped shards are read in pieces
                part = shard[i : i + 2**16]
                counts += np.bincount(part[part >= 0], minlength=len(counts))
        n_types = 2 if counts[corpus.n_questions :].any() else 1
        counts = counts if n_types == 2 else counts[: corpus.n_questions]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "init"))
            encoder = self.encoder()(
                dim=self.dim,
                layers=self.layers,
                heads=self.heads,
                norm=self.norm,
                dropout=self.dropout,
                position=self.position,
                length=corpus.length,
                n_types=n_types,
                combine=self.combine,
            ).to(self.device)
            first = torch.randn(len(counts), self.dim) * (self.init / self.dim**0.5)
            second = first.clone() if self.tying == "start" else torch.randn_like(first) * (self.init / self.dim**0.5)
        share = np.maximum(counts, 0.5) / counts.sum()
        bias = torch.from_numpy(np.log(share)).float()[:, None]  # predictions start at the unigram distribution
        table = Table(first.to(self.device))
        output = table if self.tying == "tied" else Table(second.to(self.device))
        loss = LOSSES[self.softmax](counts, self.negatives, self.proposal, seed)
        return Learner(encoder, table, output, Table(bias.to(self.device)), loss, corpus.n_questions), counts


@settings
class MLM(LanguageTrainer):
    """Masked prediction (Devlin et al. 2019): hide some tokens, predict them from all the others.

    Parameters
    ----------
    mask_rate : share of tokens that is predicted.
    mask_share, random_share : of those, the share replaced by the mask and by a random question; the rest stays as it
        is. BERT's rule is 0.15, 0.8, 0.1; (…, 1, 0) is pure masking.

    References
    ----------
    Devlin et al. 2019, BERT, section 3.1. Wettig et al. 2023, Should you mask 15%?
    """

    mask_rate: Annotated[float, Field(gt=0, le=1)] = 0.4
    mask_share: Share = 1.0
    random_share: Share = 0.0

    @model_validator(mode="after")
    def _shares(self) -> MLM:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1")
        return self

    def encoder(self) -> type[Encoder]:
        from qcq.models.transformer import Bidirectional

        return Bidirectional

    def exercise(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> Exercise:
        from qcq.models.training import Exercise

        real = tokens >= 0
        asked = (rng.random(tokens.shape) < self.mask_rate) & real
        if not asked.any():  # a batch with nothing to predict teaches nothing: ask for one real token
            asked.flat[rng.choice(np.flatnonzero(real))] = True
        fate = rng.random(tokens.shape)
        hidden = asked & (fate < self.mask_share)
        swapped = asked & ~hidden & (fate < self.mask_share + self.random_share)
        given = np.where(swapped, rng.integers(0, n_questions, tokens.shape), tokens)
        return Exercise(given.astype(np.int64), hidden, real, asked, tokens[asked].astype(np.int64))


@settings
class Cloze(LanguageTrainer):
    """Leave-one-out prediction of every token in one pass, by self-excluding two-stream attention.

    Parameters
    ----------
    hide_rate : share of tokens that nobody may see in training (they are still predicted), so that the model also
        answers where its neighbours are hidden.

    References
    ----------
    Yang et al. 2019, XLNet, section 2.3, for the two streams; here keys and values are raw token
    vectors in every layer.
    """

    hide_rate: Share = 0.1

    def encoder(self) -> type[Encoder]:
        from qcq.models.transformer import TwoStream

        return TwoStream

    def exercise(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> Exercise:
        from qcq.models.training import Exercise

        real = tokens >= 0
        hidden = (rng.random(tokens.shape) < self.hide_rate) & real
        return Exercise(tokens.astype(np.int64), hidden, real, real, tokens[real].astype(np.int64))


class Monitor:
    """Held-out loss, floor, excess and verdict, on a paper small enough to be marked many times."""

    def __init__(self, model: LanguageModel, source: Source, vocabulary: int) -> None:
        probe = model.objective.probe(source.heldout, seed=1)
        n = int(np.clip(2**25 / (vocabulary * 0.15 * probe.tokens.shape[1]), 16, 256))  # about 128 MiB of scores
        self.model, self.paper = model, Paper(source, first_walks(probe, n))

    def __call__(self, history: Sequence[float]) -> dict[str, float | str]:
        losses = self.model.losses(self.paper.probe)
        return self.paper.mark(losses, [*history, float(losses.mean())]).figures


def first_walks(paper: Probe, n: int) -> Probe:
    """The questions of a paper that are about its first ``n`` walks."""
    assert paper.asked is not None
    seen = None if paper.seen is None else paper.seen[:n]
    return replace(paper, tokens=paper.tokens[:n], asked=paper.asked[:n], walk=paper.walk[paper.walk < n], seen=seen)


class LanguageModel(Model):
    """A trained encoder with its tables.

    Attributes
    ----------
    known : every read-out that can be asked for; each may be followed by changes, "context+whitened".
    readouts : those that are looked at when nothing is asked for.
    """

    objective: Objective = Masked()

    def __init__(self, source: Source, learner: Learner, readouts: tuple[str, ...] = ()) -> None:
        self.graph: KnowledgeGraph = source.graph
        self.source, self.learner = source, learner
        encoder = learner.encoder
        self.known = readout.names(len(encoder.blocks), learner.output is learner.input, encoder.sees_itself)
        self.readouts = readouts or tuple(name for name in self.known if name in DEFAULT_READOUTS)
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

    def losses(self, probe: Probe) -> NDArray[np.float64]:
        if probe.asked is None:
            raise ConfigError("a language model predicts positions, not pairs; give it a masked paper")
        return self.learner.nats(probe.tokens, probe.asked)

    def _read(self, name: str) -> Embeddings:
        readout.refuse_unknown(name, self.known, "this model")
        plain, *changes = name.split("+")
        vectors = self._vectors(plain)
        n = self.graph.n_questions
        rows, others = vectors[:n], vectors[n:]
        for change in changes:  # fitted on the questions; concepts aren't changed, so they have no place beside them
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
        layer = int(inner) if inner else len(self.learner.encoder.blocks)
        tokens = len(self.learner.input.weight)
        if kind == "hidden":
            return readout.lone(self.learner, layer, tokens)
        if self._met is None or self._met[0] != layer:  # ``context`` and ``principal`` share their states
            self._met = layer, readout.Occurrences(self.learner, self.source.corpus, layer, tokens)
        return self._met[1].mean() if kind == "context" else self._met[1].principal()


__all__ = ["MLM", "Cloze", "LanguageModel", "LanguageTrainer"]
