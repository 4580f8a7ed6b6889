"""gensim's word2vec family on walks: skip-gram, CBOW, and fastText whose subwords are concepts.

gensim is fed integers, not words: a walk's row becomes a short-lived list of ints, and gensim looks ids up in a
dictionary of ids. Its own traps are handled here: a sentence is cut silently after 10,000 tokens (longer walks are
handed over in pieces), its defaults drop rare and frequent tokens (here every token of the corpus is in the vocabulary
and none is subsampled), and an exception in the feeding thread would leave its workers waiting for ever (here it
surfaces in the caller). Where gensim isn't installed (it has no wheel for Python 3.14 and later) its trainers say so.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.corpus import Corpus
from qcq.embeddings import Embeddings
from qcq.errors import TrainingError, UnknownNameError
from qcq.floors import objectives
from qcq.floors.objectives import HeldOutBatch, Objective
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Frozen, Model, Trainer, TrainingData
from qcq.models.weights import Weights
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings

if TYPE_CHECKING:
    from gensim.models import Word2Vec

PRIOR = 0.3  # how strongly an inferred row is held at the mean of its concepts; docs/decisions/0903 has the figures
_CUT = 10_000  # tokens of a sentence that gensim reads; it drops the rest without a word
_CHUNK = 4_096  # walks turned into lists at a time


def token_counts(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How often each token stands in the corpus, and whether it ever stands beside another.

    Returns
    -------
    counts : int64 (vocabulary,). The vocabulary is all questions and, where the corpus keeps them, all concepts.
    paired : bool (vocabulary,).
    """
    counts = np.zeros(corpus.n_questions + corpus.n_concepts, dtype=np.int64)
    paired = np.zeros(len(counts), dtype=bool)
    for shard in corpus.shards:
        for at in range(0, len(shard), 65_536):
            walks = np.asarray(shard[at : at + 65_536])  # (walks, length)
            seen = walks >= 0
            counts += np.bincount(walks[seen], minlength=len(counts))
            paired[walks[seen & (seen.sum(axis=1, keepdims=True) > 1)]] = True
    size = len(counts) if counts[corpus.n_questions :].any() else corpus.n_questions
    return counts[:size], paired[:size]


def shuffled(
    corpus: Corpus, size: int, rng: np.random.Generator, most: int | None = None
) -> Iterator[NDArray[np.int32]]:
    """All walks once (or ``most`` of them), in random order, ``size`` at a time: int32 (up to size, length).

    Neighbours in a corpus often start at neighbouring questions. Trained in that order a small component sees all its
    walks at once and then none for long, which costs skip-gram much of its quality.
    """
    ends = np.cumsum([len(shard) for shard in corpus.shards])
    order = rng.permutation(ends[-1])[:most]
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        home = np.searchsorted(ends, chosen, side="right")  # (walks,), each one's shard
        walks = np.empty((len(chosen), corpus.length), dtype=np.int32)
        for s in np.unique(home):
            walks[home == s] = corpus.shards[s][chosen[home == s] - (ends[s] - len(corpus.shards[s]))]
        yield walks


@dataclass(frozen=True, eq=False, repr=False)
class PairModel(Model):
    """A look-up table with a second one for the predicted side: p(pair is real) = σ(input · output).

    Parameters
    ----------
    graph : whose questions these are.
    inputs : float32 (vocabulary, dim), questions first, then concepts where the corpus kept them.
    outputs : float32 (vocabulary, dim), or None where there is no such table (hierarchical softmax). Where the
        objective is ordered, float32 (2 · window · vocabulary, dim): a table for an input ``window`` steps before the
        output, and so on to one ``window`` steps behind it.
    paired : bool (vocabulary,); a token that never stood beside another has learnt nothing, and reads as zeros.
    tokens : training tokens seen, all epochs together.
    objective : what it was trained to answer, if it has a likelihood.
    concept_vectors : float32 (concepts, dim) where they don't stand in ``inputs``.
    trainer : what a further training must agree with; None where none can begin from it.
    """

    graph: KnowledgeGraph
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32] | None
    paired: NDArray[np.bool_]
    tokens: int = 0
    objective: Objective | None = None
    concept_vectors: NDArray[np.float32] | None = None
    trainer: Mapping[str, Any] | None = None

    def weights(self) -> Weights | None:
        if self.trainer is None or self.outputs is None:
            return None
        v, dim = self.inputs.shape
        outputs = self.outputs.reshape(-1, v, dim).swapaxes(0, 1).reshape(v, -1)  # (vocabulary, tables · dim)
        concepts = self.graph.concepts if v > self.graph.n_questions else ()
        return Weights(
            self.graph.questions, concepts, {"input": self.inputs, "output": outputs}, trainer=dict(self.trainer)
        )

    def frozen(self) -> Mapping[str, NDArray]:
        """Outputs and counts, for inference against them: float32 (vocabulary, dim), float64 (vocabulary,)."""
        plain = isinstance(self.objective, objectives.SkipGram) and not self.objective.ordered
        if self.outputs is None or not plain:
            return {}
        assert isinstance(self.objective, objectives.SkipGram)
        assert self.objective.counts is not None
        return {"outputs": self.outputs, "counts": self.objective.counts}

    def _read(self, readout: str) -> Embeddings:
        vectors = self.inputs if self.paired.all() else np.where(self.paired[:, None], self.inputs, np.float32(0))
        n = self.graph.n_questions
        concepts = vectors[n:] if len(vectors) > n else self.concept_vectors
        return Embeddings(self.graph.questions, vectors[:n], () if concepts is None else self.graph.concepts, concepts)

    def losses(self, batch: HeldOutBatch) -> NDArray[np.float64]:
        """−log σ(x·y) − Σ log σ(−x·n) over the item's negatives n (a skipped one costs nothing): float64 (items,)."""
        if self.outputs is None or batch.pairs is None:
            return super().losses(batch)
        out = np.empty(len(batch.pairs))
        table = np.zeros((len(out), 1), dtype=np.int64)  # where each item's table of outputs begins
        if isinstance(self.objective, objectives.SkipGram) and self.objective.ordered:
            assert batch.apart is not None
            place = batch.apart + self.objective.window - (batch.apart > 0)
            table[:, 0] = place * len(self.inputs)
        for at in range(0, len(out), 8_192):
            pairs = batch.pairs[at : at + 8_192]  # (items, 2 + k)
            x = self.inputs[pairs[:, 0]].astype(np.float64)
            y = table[at : at + 8_192] + np.maximum(pairs[:, 1:], 0)
            logits = np.einsum("id,ikd->ik", x, self.outputs[y])  # (items, 1 + k)
            logits[:, 0] *= -1
            out[at : at + 8_192] = np.where(pairs[:, 1:] >= 0, np.logaddexp(0, logits), 0).sum(axis=1)
        return out


def inferred(
    frozen: Frozen, weights: scipy.sparse.csr_array, window: int, negatives: int
) -> NDArray[np.float64] | None:
    """New input rows against the frozen output table, on exact expected co-occurrences: float64 (rows, dim).

    Each row minimises −Σ_y p(y) log σ(x·o_y) − k Σ_n q(n) log σ(−x·o_n), where p is the exact law of its neighbours
    (:func:`qcq.models.inference.pair_law`), q the noise, and o the outputs. Questions with the same concepts have the
    same law, so their outputs are averaged. Training stops long before this loss is least, and its least rows are far
    longer than trained ones; so the row is held at the mean of its concepts, PRIOR/2 |x − mean|². Noise that equals the
    output is not skipped here. None where the walk has no such chain.
    """
    from qcq.models.inference import by_concepts, logistic_rows, pair_law

    found = pair_law(frozen, weights, (window - np.arange(window)) / window)
    if found is None:
        return None
    law, classes = found
    n, size = frozen.graph.n_questions, law.shape[1]
    label = np.r_[classes, np.arange(classes.max() + 1, size)]  # of every token
    counts = frozen.part("counts", None)
    if len(label) != len(counts):
        return None
    noise = counts**0.75
    merge = scipy.sparse.csr_array((np.ones(len(label)), (label, np.arange(len(label)))))
    outputs = (
        np.asarray(merge @ frozen.part("outputs", len(label), frozen.vectors.shape[1]).astype(np.float64))
        / np.asarray(merge.sum(axis=1))[:, None]
    )
    start = by_concepts(frozen.graph.weights, frozen.vectors[:n], weights)
    return logistic_rows(start, outputs, law, negatives * np.asarray(merge @ noise) / noise.sum(), PRIOR)


class _Sentences:
    """A corpus as gensim wants it: lists, again and again. Reports what it has handed over, keeps what went wrong."""

    def __init__(self, corpus: Corpus, epochs: int, rng: np.random.Generator, progress: Progress) -> None:
        self.corpus, self.rng, self.progress = corpus, rng, progress
        self.done, self.total = 0, epochs * corpus.n_tokens
        self.failed: BaseException | None = None

    def __iter__(self) -> Iterator[list[int]]:
        # gensim runs this in a thread of its own; an exception there would hang its workers, so it is kept for fit().
        try:
            yield from self._walks()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failed = error

    def _walks(self) -> Iterator[list[int]]:
        if self.failed is not None:
            return
        for chunk in shuffled(self.corpus, _CHUNK, self.rng):
            sizes = (chunk >= 0).sum(axis=1)
            for walk, n in zip(chunk.tolist(), sizes.tolist(), strict=True):
                whole = walk if n == len(walk) else walk[:n]
                if n <= _CUT:
                    yield whole
                else:
                    yield from (whole[i : i + _CUT] for i in range(0, n, _CUT))
            self.done += int(sizes.sum())
            self.progress(self.done, self.total)


@settings
class _Gensim(Trainer):
    """What gensim's trainers share.

    Parameters
    ----------
    window : most steps between the two tokens of a pair; each centre draws its own reach from 1…window, as word2vec
        does, so near neighbours count more.
    negatives : noise tokens a pair, drawn in proportion to count^0.75.
    epochs : passes over the corpus.
    lr : learning rate at the start; it falls linearly to lr / 250 at the end.
    workers : threads. Only one gives the same vectors twice: with more, gensim's threads race each other.
    hierarchical : hierarchical softmax over a Huffman tree instead of negative sampling (no held-out loss then).
    """

    window: Annotated[int, Field(ge=1)] = 5
    negatives: Annotated[int, Field(ge=1)] = 5
    epochs: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 0.05
    workers: Annotated[int, Field(ge=1)] = 1
    hierarchical: bool = False

    tuning = ({}, {"window": 2}, {"window": 10})
    skip_gram: ClassVar[bool] = True

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        self._library()  # before walks are sampled for nothing
        corpus = source.corpus
        counts, paired = token_counts(corpus)
        if not paired.any():
            raise TrainingError(
                "no walk has two tokens, so there is nothing to learn from; the graph may have no edges"
            )
        words = np.flatnonzero(counts)  # gensim's row → token
        model = self._start(
            source.graph,
            words,
            derive(seed, type(self).__name__) % 2**32,
            max(1_000, min(_CUT, corpus.n_tokens // 100)),
        )
        model.build_vocab_from_freq(dict(zip(words.tolist(), counts[words].tolist(), strict=True)))
        self._prepare(model, source.graph, words)
        sentences = _Sentences(corpus, self.epochs, generator(seed, type(self).__name__, "order"), progress)
        model.train(sentences, total_words=corpus.n_tokens, epochs=self.epochs)
        if sentences.failed is not None:
            raise sentences.failed
        made = self._finish(model, source.graph, words, paired, self.epochs * corpus.n_tokens)
        return replace(made, objective=self._objective(counts))

    @classmethod
    def missing(cls) -> str:
        return "" if importlib.util.find_spec("gensim") else cls._unable("it isn't installed")

    @classmethod
    def _unable(cls, why: str) -> str:
        return (
            f"{cls.__name__} learns with gensim, which can't be imported here ({' '.join(why.split())}); gensim has no "
            "wheel for Python 3.14 and later: take an older Python, or sgns, which is skip-gram without gensim"
        )

    def _library(self) -> Any:
        """The module ``gensim.models``; TrainingError where it can't be imported."""
        if why := self.missing():
            raise TrainingError(why)
        try:
            return importlib.import_module("gensim.models")
        except ImportError as error:  # installed, but broken or made for other versions
            raise TrainingError(self._unable(str(error))) from None

    def _options(self, seed: int, batch_words: int) -> dict[str, Any]:
        return {
            "vector_size": self.dim,
            "window": self.window,
            "sg": int(self.skip_gram),
            "hs": int(self.hierarchical),
            "negative": 0 if self.hierarchical else self.negatives,
            "epochs": self.epochs,
            "alpha": self.lr,
            "min_alpha": self.lr / 250,
            "workers": self.workers,
            "seed": seed,
            "sample": 0,
            "min_count": 1,
            "sorted_vocab": 0,  # keeps our order of ids
            "hashfxn": int,  # gensim 4 no longer hashes words for their start vectors; should it again, ids do
            "batch_words": batch_words,  # the learning rate falls once a batch: small corpora need small batches
        }

    def _start(self, graph: KnowledgeGraph, words: NDArray[np.int64], seed: int, batch_words: int) -> Word2Vec:
        return self._library().Word2Vec(**self._options(seed, batch_words))

    def _prepare(self, model: Word2Vec, graph: KnowledgeGraph, words: NDArray[np.int64]) -> None:
        """Last touches between vocabulary and training."""

    def _finish(
        self,
        model: Word2Vec,
        graph: KnowledgeGraph,
        words: NDArray[np.int64],
        paired: NDArray[np.bool_],
        tokens: int,
    ) -> PairModel:
        inputs = _spread(model.wv.vectors, words, len(paired))
        outputs = None if self.hierarchical else _spread(model.syn1neg, words, len(paired))
        return PairModel(graph, inputs, outputs, paired, tokens)

    def _objective(self, counts: NDArray[np.int64]) -> Objective | None:
        if not self.skip_gram or self.hierarchical:
            return None
        return objectives.SkipGram(self.window, self.negatives, counts=counts.astype(np.float64))


def _spread(rows: NDArray[np.float32], words: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    out = np.zeros((size, rows.shape[1]), dtype=np.float32)
    out[words] = rows
    return out


@settings
class SkipGram(_Gensim):
    """gensim's skip-gram: each token predicts those within its window against noise.

    Maximises Σ log σ(x·y) + Σ_k log σ(−x·n_k) over pairs (x, y) of the walks, n_k drawn from count^0.75. The default
    is negative sampling on all tokens: no subsampling, no minimum count. One worker gives the same vectors for the
    same seed, in any process; more are faster and not reproducible.

    A question that never stands beside another in any walk gets a zero vector: nothing is known of it.

    References
    ----------
    Mikolov et al. 2013, Distributed representations of words and phrases and their compositionality (NIPS), eq. 4.
    """

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64] | None:
        """New rows alone, against the frozen outputs: :func:`inferred`."""
        return inferred(frozen, weights, self.window, self.negatives)


@settings
class CBOW(_Gensim):
    """gensim's continuous bag of words: the mean of a window's vectors predicts the token in its middle.

    Parameters and remarks as for skip-gram. It has no held-out loss here: its items are windows, not pairs.

    References
    ----------
    Mikolov et al. 2013, Efficient estimation of word representations in vector space (ICLR workshop), section 3.1.
    """

    skip_gram: ClassVar[bool] = False


@settings
class FastText(_Gensim):
    """gensim's fastText, with a question's concepts for subwords.

    fastText composes a word from its character n-grams. An identifier's characters are noise, so here a question's
    vector is the mean of a vector of its own and the vectors of its concepts, ``x_q = (u_q + Σ_c v_c) / (1 + |c|)``,
    and both are learnt. A question that no walk reached still gets the mean of its concepts' vectors, and so does one
    that wasn't in the graph at all: :meth:`ConceptSubwords.unseen`. Edge weights are not used.

    Parameters and remarks as for skip-gram.

    References
    ----------
    Bojanowski et al. 2017, Enriching word vectors with subword information (TACL), section 3.2.
    """

    def _start(self, graph: KnowledgeGraph, words: NDArray[np.int64], seed: int, batch_words: int) -> Word2Vec:
        return self._library().FastText(**self._options(seed, batch_words), max_n=0)  # no character n-grams

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64]:
        """The mean of its concepts' vectors: composed without a vector of its own."""
        tested = (weights > 0).astype(np.float64)
        concepts = frozen.part("concepts", weights.shape[1], self.dim)
        return np.asarray(tested @ concepts) / np.asarray(tested.sum(axis=1))[:, None]

    def _prepare(self, model: Word2Vec, graph: KnowledgeGraph, words: NDArray[np.int64]) -> None:
        own = np.split(graph.weights.indices.astype(np.uint32), graph.weights.indptr[1:-1])
        own += [np.array([c], dtype=np.uint32) for c in range(graph.n_concepts)]  # a concept token's subword is itself
        wv = model.wv
        wv.bucket = graph.n_concepts
        wv.buckets_word = [own[w] for w in words]
        wv.recalc_char_ngram_buckets = lambda: None  # keep those just set
        wv.resize_vectors(seed=model.seed)

    def _finish(
        self,
        model: Word2Vec,
        graph: KnowledgeGraph,
        words: NDArray[np.int64],
        paired: NDArray[np.bool_],
        tokens: int,
    ) -> PairModel:
        made = super()._finish(model, graph, words, paired, tokens)
        subwords = np.array(model.wv.vectors_ngrams, dtype=np.float32)
        n = graph.n_questions
        vectors, reached = made.inputs.copy(), paired.copy()
        lost = np.flatnonzero(~paired[:n] & (np.diff(graph.weights.indptr) > 0))
        for q in lost:
            vectors[q] = subwords[graph.weights.indices[graph.weights.indptr[q] : graph.weights.indptr[q + 1]]].mean(0)
        reached[lost] = True
        return ConceptSubwords(graph, vectors, made.outputs, reached, tokens, concept_vectors=subwords)


@dataclass(frozen=True, eq=False, repr=False)
class ConceptSubwords(PairModel):
    """What ``fasttext`` gives: a :class:`PairModel` that can compose a question it never met."""

    def frozen(self) -> Mapping[str, NDArray]:
        """The concepts' vectors, float32 (concepts, dim)."""
        return {} if self.concept_vectors is None else {"concepts": self.concept_vectors}

    def unseen(self, concepts: Sequence[str]) -> NDArray[np.float32]:
        """The vector of a question known by its concepts alone, their mean: float32 (dim,).

        Raises
        ------
        UnknownNameError : a concept that isn't in the graph.
        TrainingError : no concept given.
        """
        if not concepts:
            raise TrainingError("an unseen question needs at least one concept to get a vector")
        if self.concept_vectors is None:
            raise TrainingError("this model holds no concept vectors")
        index = {c: i for i, c in enumerate(self.graph.concepts)}
        for concept in concepts:
            if concept not in index:
                raise UnknownNameError("concept", concept, self.graph.concepts)
        vector: NDArray[np.float32] = self.concept_vectors[[index[c] for c in concepts]].mean(axis=0)
        return vector
