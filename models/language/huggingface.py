"""Hugging Face both ways: BERT as a trainer of its own, and models as folders that transformers reads and writes.

BERT's vocabulary is that of :meth:`Corpus.write_vocabulary`: five special tokens, then the questions. A walk is a text
without [CLS] and [SEP], because its begin and end have no meaning.
"""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from qcq.corpus import SPECIAL, Corpus
from qcq.errors import ConfigError, TrainingError
from qcq.floors.objectives import Masked
from qcq.graph import KnowledgeGraph
from qcq.models.language.trainers import LanguageModel, LanguageTrainer, Monitor
from qcq.models.trainer import Trainer, TrainingData
from qcq.models.word2vec import token_counts
from qcq.support.folders import claim
from qcq.support.progress import Progress, silent
from qcq.support.reproducible import reproducible
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings
from qcq.support.threads import torch_alone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qcq.models.language.training import Learner

SHIFT = len(SPECIAL)  # token i of a walk is token i + 5 of the vocabulary
_MASK = SPECIAL.index("[MASK]")
_NEVER = -1e4  # the bias of a special token: it is never the answer


def _extra(name: str) -> Any:
    """A module of the extra ``hf``."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} isn't installed; install it with: pip install 'qcq[hf]'") from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the log lines and progress bars of transformers."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def _tokenizer(transformers: Any, words: Sequence[str]) -> Any:
    """One token per word, words separated by white space, nothing added."""
    tokenizers = _extra("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token="[UNK]")  # noqa: S106  (a token, not a password)
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True)))


# ------------------------------------------------------------------------------------------------------------- trainer


@settings
class HFBert(Trainer):
    """BertForMaskedLM of transformers, from scratch on the same walks, with its own collator (extra ``hf``).

    An independent implementation: its own model, masking and initial values, and one AdamW for all parameters, with
    linear warm-up and decay. It is read out and compared with the floor like ``mlm``; probabilities are those among the
    questions.

    Parameters
    ----------
    layers, heads : of the encoder; ``dim`` must be a multiple of ``heads``. The feed-forward width is 4 ``dim``.
    dropout : of states and attention.
    mask_rate : share of tokens the collator selects; of them 80 % are masked, 10 % replaced, 10 % unchanged.
    steps, batch : updates, and walks per update.
    lr, warmup : peak learning rate, and the share of the steps in which it rises.
    threads : CPU threads; with one, the same seed gives the same bytes.
    readouts : as for ``mlm``.

    References
    ----------
    Devlin et al. 2019, BERT. Wolf et al. 2020, Transformers: state-of-the-art natural language processing.
    """

    layers: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mask_rate: Annotated[float, Field(gt=0, le=1)] = 0.15
    steps: Annotated[int, Field(ge=1)] = 6000
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 3e-3
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    threads: Annotated[int, Field(ge=1)] = 1
    readouts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> HFBert:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}; change one of them")
        return self

    @property
    def effort(self) -> float:
        return 0.05 * self.steps * self.layers

    def work(self, graph: KnowledgeGraph, tokens: int, length: int) -> int:
        return self.steps * self.batch * length

    def shortened(self) -> HFBert:
        return replace(self, steps=min(self.steps, 20))

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> LanguageModel:
        """Train on the source's walks.

        Raises
        ------
        ConfigError : transformers isn't installed; the text says how to install it.
        TrainingError : the loss is no longer finite.
        """
        transformers = _extra("transformers")
        import torch

        with torch_alone(self.threads), torch.random.fork_rng(devices=[]), _quiet(transformers):
            return self._train(transformers, source, seed, progress)

    def _train(self, transformers: Any, source: TrainingData, seed: int, progress: Progress) -> LanguageModel:
        import torch

        corpus = source.corpus
        counts, _ = token_counts(corpus)
        torch.manual_seed(derive(seed, "init"))
        bert = transformers.BertForMaskedLM(
            _config(transformers, len(counts), self.dim, self.layers, self.heads, corpus.length, dropout=self.dropout)
        )
        collate = transformers.DataCollatorForLanguageModeling(
            _tokenizer(transformers, [str(i) for i in range(len(counts))]), mlm_probability=self.mask_rate
        )
        optimiser = torch.optim.AdamW(bert.parameters(), lr=self.lr)
        schedule = transformers.get_linear_schedule_with_warmup(optimiser, round(self.warmup * self.steps), self.steps)
        batches = corpus.batches(self.batch, generator(seed, "batches"))
        model = LanguageModel(
            source, _learner(bert, corpus, len(counts)), Masked(), self.readouts, LanguageTrainer.shown
        )
        monitor = Monitor(model, source, len(counts))
        every, clock, done = max(1, self.steps // 20), time.perf_counter(), 0
        history: list[float] = []
        for step in range(self.steps):
            torch.manual_seed(derive(seed, "step", step))
            walks = next(batches)
            done += int((walks >= 0).sum())
            rows = [torch.from_numpy(walk[walk >= 0] + SHIFT).long() for walk in walks]
            # No token is special: saying so here saves a check of every walk.
            made = collate([{"input_ids": row, "special_tokens_mask": torch.zeros_like(row)} for row in rows])
            if (made["labels"] >= 0).any():
                bert.train()
                loss = bert(**made).loss
                if not math.isfinite(value := float(loss.detach())):
                    raise TrainingError(f"training diverged at step {step + 1}: the loss is {value}; lower lr")
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(bert.parameters(), 1.0)
                optimiser.step()
            schedule.step()
            if (step + 1) % every and step + 1 < self.steps:
                continue
            model.learner = _learner(bert, corpus, len(counts))
            figures = monitor(history)
            history.append(float(figures["loss"]))
            speed = done / max(time.perf_counter() - clock, 1e-9)
            progress(step + 1, self.steps, **figures, tokens_per_second=speed)
        model.tokens, model.history = done, history
        return model


def _config(
    transformers: Any, tokens: int, dim: int, layers: int, heads: int, length: int, *, dropout: float, tied: bool = True
) -> Any:
    return transformers.BertConfig(
        vocab_size=tokens + SHIFT,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=length,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )


# ------------------------------------------------------------------------------------------------------------- folders


def _names(layer: int) -> dict[str, str]:
    """BERT's names for a block's parameters, and ours."""
    there, here = f"bert.encoder.layer.{layer}.", f"blocks.{layer}."
    return {
        f"{there}attention.self.query": f"{here}attention.query",
        f"{there}attention.self.key": f"{here}attention.key",
        f"{there}attention.self.value": f"{here}attention.value",
        f"{there}attention.output.dense": f"{here}attention.out",
        f"{there}attention.output.LayerNorm": f"{here}norm1",
        f"{there}intermediate.dense": f"{here}wide",
        f"{there}output.dense": f"{here}narrow",
        f"{there}output.LayerNorm": f"{here}norm2",
    }


def _parts(layers: int) -> dict[str, str]:
    """BERT's names for all tensors that both models have, and ours."""
    both = {
        "bert.embeddings.LayerNorm": "below",
        "cls.predictions.transform.dense": "head.0",
        "cls.predictions.transform.LayerNorm": "head.2",
    }
    for layer in range(layers):
        both |= _names(layer)
    weights = {f"{there}.{kind}": f"{here}.{kind}" for there, here in both.items() for kind in ("weight", "bias")}
    return {**weights, "bert.embeddings.position_embeddings.weight": "position.table"}


@reproducible()
def export(model: LanguageModel, folder: str | Path) -> Path:
    """Write a BERT-compatible model so that transformers loads it offline, without code from this package.

    ``AutoModelForMaskedLM``, ``AutoModel`` and ``AutoTokenizer`` read the folder. A text is a walk: the questions'
    names, separated by spaces; it gets the same logits. ``vocab.txt`` is written as well. The vector of a node type is
    added to the vectors of its tokens, and special tokens get a bias of -10,000.

    Parameters
    ----------
    model : trained with ``layout="bert"``, ``norm="post"``, ``position="absolute"``, ``combine="add"``, and a softmax.
    folder : created if necessary.

    Raises
    ------
    ConfigError : the model differs from BERT; the text says how. Or transformers isn't installed.
    CorpusError : a question's name can't be a word.
    """
    import torch

    learner = model.learner
    if reasons := _differences(learner):
        raise ConfigError(
            f"this model is no BERT and can't be exported: {'; '.join(reasons)}; train mlm with layout='bert', "
            "norm='post', position='absolute', combine='add'"
        )
    transformers = _extra("transformers")
    encoder, corpus = learner.encoder, model.source.corpus
    table, dim = learner.input.weight.cpu(), learner.input.dim
    held = {name: t.detach().cpu() for name, t in encoder.state_dict().items()}
    kinds = held["types"]
    special = torch.zeros(SHIFT, dim)
    special[_MASK] = held["mask"] + kinds[0]
    type_of = (torch.arange(len(table)) >= learner.n_questions).long() * (len(kinds) - 1)
    bias = torch.cat([torch.full((SHIFT,), _NEVER), learner.bias.weight[:, 0].cpu()])
    blocks = encoder.blocks
    config = _config(
        transformers,
        len(table),
        dim,
        len(blocks),
        encoder.position.heads,
        encoder.position.length,
        dropout=encoder.drop.p,
        tied=False,
    )
    config.layer_norm_eps = encoder.below.eps
    tensors = {there: held[here] for there, here in _parts(len(blocks)).items()} | {
        "bert.embeddings.word_embeddings.weight": torch.cat([special, table + kinds[type_of]]),
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(1, dim),
        "cls.predictions.decoder.weight": torch.cat([torch.zeros(SHIFT, dim), learner.output.weight.cpu()]),
        "cls.predictions.decoder.bias": bias,
        "cls.predictions.bias": bias.clone(),
    }
    out = claim(folder, "model")
    names = [*model.graph.questions, *model.graph.concepts]
    with _quiet(transformers):
        corpus.write_vocabulary(out / "vocab.txt", names)
        bert = transformers.BertForMaskedLM(config).eval()
        bert.load_state_dict(tensors, strict=True)
        bert.save_pretrained(out)
        _tokenizer(transformers, names[: len(table)]).save_pretrained(out)
    return out


def _differences(learner: Learner) -> list[str]:
    """The differences between a learner and BERT."""
    from qcq.models.language.softmax import Binary
    from qcq.models.language.transformer import Absolute, Bidirectional, Block, Transform

    encoder = learner.encoder
    if type(encoder) is not Bidirectional:
        return [f"its encoder is {type(encoder).__name__}, not one that sees both sides and masks"]
    first = encoder.blocks[0]
    assert isinstance(first, Block)
    checks = {
        "it lacks the layer norm and the transform of layout 'bert'": isinstance(encoder.head, Transform),
        "norm is 'pre', BERT's is 'post'": not first.pre,
        f"position is {type(encoder.position).__name__.lower()!r}, BERT's is 'absolute'": isinstance(
            encoder.position, Absolute
        ),
        "its three vectors are concatenated, BERT's are added": encoder.join is None,
        "its scores are read as binary choices, BERT's as a softmax": not isinstance(learner.loss, Binary),
    }
    return [reason for reason, fine in checks.items() if not fine]


@reproducible()
def load(folder: str | Path, source: TrainingData) -> LanguageModel:
    """Read a BertForMaskedLM whose vocabulary has the source's questions by name, as :func:`export` writes it.

    Vectors, read-outs and held-out losses then work as for any trained model; losses are over the questions only.

    Parameters
    ----------
    folder : with ``config.json``, weights and a tokenizer; only files in it are read.
    source : the graph with these questions, and the walks for read-outs such as ``context``.

    Raises
    ------
    ConfigError : no such folder, a BERT that this encoder can't represent, or a question without a word.
    """
    import torch

    transformers = _extra("transformers")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"{folder}: no config.json; give a folder that save_pretrained or export wrote")
    closed = {"local_files_only": True, "trust_remote_code": False}  # else it asks whether to run code of the folder
    with _quiet(transformers):
        try:
            bert = transformers.AutoModelForMaskedLM.from_pretrained(folder, **closed)
            known = transformers.AutoTokenizer.from_pretrained(folder, **closed).get_vocab()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{folder}: transformers can't load it ({str(error).splitlines()[0]})") from None
    config, corpus = bert.config, source.corpus
    wanted = {"model_type": "bert", "hidden_act": "gelu", "intermediate_size": 4 * config.hidden_size}
    for key, value in wanted.items():
        if getattr(config, key, None) != value:
            raise ConfigError(f"{folder}: {key} is {getattr(config, key, None)!r}, only {value!r} can be read")
    if config.max_position_embeddings < corpus.length:
        raise ConfigError(
            f"{folder}: {config.max_position_embeddings} positions, the walks have {corpus.length} tokens"
        )
    names = [*source.graph.questions, *(source.graph.concepts if corpus.strategy.get("keep_concepts") else ())]
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(f"{folder}: no word for {len(missing)} of {len(names)} questions, {missing[0]!r} the first")
    rows = torch.tensor([known[name] for name in names])
    mask = known.get("[MASK]", _MASK)
    learner = _learner(bert, corpus, len(names), rows, mask)
    return LanguageModel(source, learner, Masked(), (), LanguageTrainer.shown)


def _learner(bert: Any, corpus: Corpus, tokens: int, rows: Any = None, mask: int = _MASK) -> Learner:
    """BertForMaskedLM as a learner: token i has the row ``rows[i]``, i + 5 without it."""
    import torch

    from qcq.models.language.softmax import Full
    from qcq.models.language.training import Learner, SparseTable
    from qcq.models.language.transformer import Bidirectional

    config = bert.config
    held = {name: t.detach().cpu().clone() for name, t in bert.state_dict().items()}
    encoder = Bidirectional(
        dim=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        norm="post",
        dropout=config.hidden_dropout_prob,
        position="absolute",
        length=config.max_position_embeddings,
        layout="bert",
    )
    # All tokens are of type 0 there: its vector is added to theirs, as in export.
    kind = held["bert.embeddings.token_type_embeddings.weight"][:1]
    words = held["bert.embeddings.word_embeddings.weight"] + kind
    rows = torch.arange(SHIFT, SHIFT + tokens) if rows is None else rows
    state = {here: held[there] for there, here in _parts(config.num_hidden_layers).items()}
    encoder.load_state_dict(state | {"mask": words[mask], "types": torch.zeros_like(kind)}, strict=True)
    for part in encoder.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = config.layer_norm_eps
    bias = SparseTable(held["cls.predictions.decoder.bias"][rows][:, None])
    loss = Full(np.ones(tokens, dtype=np.int64), 1, "unigram")
    output = SparseTable(held["cls.predictions.decoder.weight"][rows])
    return Learner(encoder.eval(), SparseTable(words[rows]), output, bias, loss, corpus.n_questions)


__all__ = ["HFBert", "export", "load"]
