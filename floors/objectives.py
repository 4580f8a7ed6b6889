"""What a model has to predict. Every model and the exact chain predict exactly the same items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, CorpusError
from qcq.support.seeds import generator

if TYPE_CHECKING:
    from qcq.floors.chain import Chain
    from qcq.floors.expected import Expected


@dataclass(frozen=True, eq=False)
class HeldOutBatch:
    """What is predicted of held-out walks, fixed by its seed.

    Attributes
    ----------
    objective : the objective of the batch.
    tokens : int32 (walks, length), the walks as they are; -1 pads.
    asked : bool (walks, length); the positions to predict, in row-major order one item each. None for pairs.
    pairs : int32 (items, 2 + k): input, output, k negatives (-1 where a negative was skipped because it equals the
        output). None for positions.
    walk : int64 (items,), the walk each item comes from: items of one walk are not independent.
    seen : int32 (walks, length), the visible tokens if they aren't the walk itself: -2 is a mask. None where every item
        hides something else (cloze, next question).
    noise : float64 (vocabulary,), the distribution that negatives were drawn from. None for positions.
    apart : int64 (items,), how many steps after the output the input is; negative before it. None for positions.
    n_questions, n_concepts : the vocabulary: token Q + j is concept j.
    graph_digest : digest of the graph of the walks.
    """

    objective: Objective
    tokens: NDArray[np.int32]
    walk: NDArray[np.int64]
    asked: NDArray[np.bool_] | None = None
    pairs: NDArray[np.int32] | None = None
    seen: NDArray[np.int32] | None = None
    noise: NDArray[np.float64] | None = None
    apart: NDArray[np.int64] | None = None
    n_questions: int = 0
    n_concepts: int = 0
    graph_digest: str = ""

    def __len__(self) -> int:
        return len(self.walk)

    @property
    def targets(self) -> NDArray[np.int32]:
        """The right answers: int32 (items,)."""
        if self.pairs is not None:
            return self.pairs[:, 1]
        assert self.asked is not None
        return self.tokens[self.asked]


def first_walks(batch: HeldOutBatch, n_walks: int, most: int) -> HeldOutBatch:
    """The items of the first ``most`` walks in a batch over ``n_walks`` walks."""
    if batch.pairs is not None:
        assert batch.apart is not None
        kept = batch.walk < most
        return replace(batch, pairs=batch.pairs[kept], walk=batch.walk[kept], apart=batch.apart[kept])
    assert batch.asked is not None
    n = len(batch.asked) // n_walks * most  # a batch of both directions has each walk twice
    seen = None if batch.seen is None else batch.seen[:n]
    walk = batch.walk[: int(batch.asked[:n].sum())]  # items are in row-major order
    return replace(batch, tokens=batch.tokens[:n], asked=batch.asked[:n], walk=walk, seen=seen)


class Objective(ABC):
    """Defines what is predicted in walks, and its floor. ``name`` is its name in results."""

    name: ClassVar[str]

    @abstractmethod
    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        """A batch over all of ``corpus`` (held-out walks)."""

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        """The oracle's nats for each item of the same batch: float64 (items,). No model has a lower expected loss.

        Raises
        ------
        ChainError : there is no floor for this objective, or the walks are not this chain's.
        """
        raise ChainError(f"no floor is known for the objective {self.name!r}, so its losses have none")

    def expected(self, law: Expected) -> float | None:
        """The mean of the floor over all walks, in closed form; None if there is none."""
        return None

    def unigram(self, batch: HeldOutBatch, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nats of the best answer that ignores all context, for each item: float64 (items,).

        Parameters
        ----------
        share : float64 (vocabulary,), the share of each token among all tokens of the walks.
        """
        with np.errstate(divide="ignore"):
            return -np.log(share[batch.targets])

    def blank(self, batch: HeldOutBatch) -> float:
        """The nats per item of the uniform answer: all tokens of the vocabulary are equally likely."""
        kept = batch.tokens.size and int(batch.tokens.max()) >= batch.n_questions
        return float(np.log(max(batch.n_questions + (batch.n_concepts if kept else 0), 1)))


def _paper(objective: Objective, corpus: Corpus, asked: NDArray[np.bool_]) -> HeldOutBatch:
    if not asked.any():
        raise CorpusError(f"no position of {corpus.n_walks} walks can be asked for objective {objective.name!r}")
    return HeldOutBatch(
        objective,
        corpus.tokens,
        np.nonzero(asked)[0],
        asked=asked,
        n_questions=corpus.n_questions,
        n_concepts=corpus.n_concepts,
        graph_digest=corpus.graph_digest,
    )


@dataclass(frozen=True)
class Masked(Objective):
    """Predict the tokens hidden behind a mask; every other token of the walk is visible.

    Each token is hidden with probability ``rate``, independently (pure masks: no random or unchanged tokens, whatever a
    model's training does).

    The floor of a question x whose nearest visible neighbours are l, a steps to the left, and r, b steps to the right
    is -log(P^a[l,x] P^b[x,r] / P^(a+b)[l,r]); without a left one -log(mu_t(x) P^b[x,r] / mu_(t+b)(r)); without a right
    one -log P^a[l,x]; with neither -log mu_t(x).
    """

    name: ClassVar[str] = "masked"
    rate: float = 0.15

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        tokens = corpus.tokens
        asked = (generator(seed, "probe", self.name).random(tokens.shape) < self.rate) & (tokens >= 0)
        return replace(_paper(self, corpus, asked), seen=np.where(asked, np.int32(HIDDEN), tokens))

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        assert batch.asked is not None
        chain.check(batch.tokens, batch.graph_digest)
        seen = np.where(batch.asked, HIDDEN, batch.tokens)
        return -chain.log_posterior(batch.tokens, batch.asked, seen, seen)

    def expected(self, law: Expected) -> float | None:
        return law.masked(self.rate)


@dataclass(frozen=True)
class Cloze(Objective):
    """Predict every token from all others: each is hidden alone."""

    name: ClassVar[str] = "cloze"

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        return _paper(self, corpus, corpus.tokens >= 0)

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        assert batch.asked is not None
        chain.check(batch.tokens, batch.graph_digest)
        return -chain.log_posterior(batch.tokens, batch.asked, batch.tokens, batch.tokens)

    def expected(self, law: Expected) -> float | None:
        return law.cloze()


@dataclass(frozen=True)
class NextQuestion(Objective):
    """Predict each token from those before it (or, backward, from those after it), the first (last) one left out.

    A bidirectional language model makes both predictions. The floor forward is -log P[l,x]. Backward it is
    -log(mu_t(x) P[x,r] / mu_(t+1)(r)): the position is known, because a walk has a fixed length.

    Parameters
    ----------
    direction : "forward" or "backward".
    """

    direction: Literal["forward", "backward"] = "forward"

    @property
    def name(self) -> str:  # type: ignore[override]
        return "next_question" if self.direction == "forward" else "previous_question"

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        there = corpus.tokens >= 0
        asked = np.zeros_like(there)
        if self.direction == "forward":
            asked[:, 1:] = there[:, 1:]
        else:
            asked[:, :-1] = there[:, 1:]
        return _paper(self, corpus, asked)

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        assert batch.asked is not None
        chain.check(batch.tokens, batch.graph_digest)
        left, right = (batch.tokens, None) if self.direction == "forward" else (None, batch.tokens)
        return -chain.log_posterior(batch.tokens, batch.asked, left, right)

    def expected(self, law: Expected) -> float | None:
        return law.next_question() if self.direction == "forward" else law.previous_question()


@dataclass(frozen=True)
class BothDirections(Objective):
    """The two batches of a bidirectional language model in one: each walk occurs twice, first to be predicted forwards
    and then backwards. Its floor is that of both."""

    name: ClassVar[str] = "next_and_previous"
    halves: ClassVar[tuple[NextQuestion, NextQuestion]] = (NextQuestion("forward"), NextQuestion("backward"))

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        forward, backward = (half.held_out_batch(corpus, seed) for half in self.halves)
        assert forward.asked is not None
        assert backward.asked is not None
        asked = np.stack([forward.asked, backward.asked], axis=1).reshape(-1, corpus.length)  # (2 walks, length)
        where = np.nonzero(asked)[0] // 2  # both are the same walk
        return replace(forward, objective=self, tokens=np.repeat(corpus.tokens, 2, axis=0), asked=asked, walk=where)

    def each(self, batch: HeldOutBatch, answer: Callable[[HeldOutBatch], NDArray[np.float64]]) -> NDArray[np.float64]:
        """``answer`` of the forward and of the backward batch, for each item: float64 (items,)."""
        assert batch.asked is not None
        direction = np.nonzero(batch.asked)[0] % 2  # (items,)
        out = np.empty(len(batch))
        for i, half in enumerate(self.halves):
            asked, mine = batch.asked[i::2], direction == i
            out[mine] = answer(
                replace(batch, objective=half, tokens=batch.tokens[i::2], asked=asked, walk=batch.walk[mine])
            )
        return out

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        return self.each(batch, lambda half: half.objective.floor(chain, half))

    def expected(self, law: Expected) -> float | None:
        return (law.next_question() + law.previous_question()) / 2


@dataclass(frozen=True)
class Replaced(Objective):
    """Predict for every token whether it is the walk's own or comes from a generator (ELECTRA).

    Each token is given to the generator with probability ``rate``. The generator's token may be right by chance; then
    it counts as the walk's own. The best answer depends on the generator, which is trained as well: no floor.
    """

    name: ClassVar[str] = "replaced"
    rate: float = 0.15

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        tokens = corpus.tokens
        given = (generator(seed, "probe", self.name).random(tokens.shape) < self.rate) & (tokens >= 0)
        return replace(_paper(self, corpus, tokens >= 0), seen=np.where(given, np.int32(HIDDEN), tokens))

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        raise ChainError(
            "replaced-token detection has no floor: what can be detected depends on a generator that learns as well"
        )

    def unigram(self, batch: HeldOutBatch, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Knowing only the rate, with a generator that is never right: the entropy of the rate."""
        return np.full(len(batch), -self.rate * np.log(self.rate) - (1 - self.rate) * np.log1p(-self.rate))

    def blank(self, batch: HeldOutBatch) -> float:
        return float(np.log(2.0))


@dataclass(frozen=True)
class MaskedBert(Objective):
    """BERT's own rule: of the selected tokens most are masked, some replaced by a random question, some unchanged.

    Only selected tokens are asked. The model sees ``seen``. It knows that an asked position was selected, but not which
    others were. The floor runs forward–backward with these emissions.

    Parameters
    ----------
    rate : share of tokens selected, independently.
    mask, random : shares of the selected that become the mask, and a uniformly drawn question; the rest is unchanged.
    """

    name: ClassVar[str] = "masked_bert"
    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        rng = generator(seed, "probe", self.name)
        tokens = corpus.tokens
        asked = (rng.random(tokens.shape) < self.rate) & (tokens >= 0)
        fate = rng.random(tokens.shape)
        strangers = rng.integers(corpus.n_questions, size=tokens.shape, dtype=np.int32)
        seen = np.where(asked & (fate < self.mask + self.random), strangers, tokens)
        seen = np.where(asked & (fate < self.mask), np.int32(HIDDEN), seen)
        return replace(_paper(self, corpus, asked), seen=seen)

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        from qcq.floors.chain import Corruption

        assert batch.asked is not None
        assert batch.seen is not None
        chain.check(batch.tokens, batch.graph_digest)
        noise = Corruption(self.rate, self.mask, self.random)
        return -chain.log_posterior_corrupted(batch.tokens, batch.asked, batch.seen, noise)


@dataclass(frozen=True, eq=False)
class SkipGram(Objective):
    """Distinguish real (input, output) pairs from noise, with pairs sampled as in gensim.

    At every centre the window shrinks to a uniform size of 1 … ``window``. Each token inside is an input, the centre is
    its output. ``negative`` noise tokens are drawn from counts^``exponent``; those equal to the output are skipped. The
    loss of one item is -log σ(s(x,y)) - Σ log σ(-s(x,n)), and its expectation is least at

        s(x, y) = log( p(y|x) / (k p_n(y) (1 - p(y|x))) ).

    Parameters
    ----------
    window : tokens to either side, at most.
    negative : k.
    exponent : of the noise.
    counts : float64 (vocabulary,), token counts of the *training* corpus that the noise is made from; None takes the
        batch's own walks, with one count added for every token that this corpus could have.
    ordered : the model also gets the distance and order of the two tokens. The pairs are the same; the floor for pairs
        without order doesn't apply, so there is none here.
    """

    name: ClassVar[str] = "skipgram"
    window: int = 5
    negative: int = 5
    exponent: float = 0.75
    counts: NDArray[np.float64] | None = None
    ordered: bool = False

    def held_out_batch(self, corpus: Corpus, seed: int = 0) -> HeldOutBatch:
        rng = generator(seed, "probe", self.name)
        tokens = corpus.tokens
        if self.counts is None:
            counts = np.bincount(tokens[tokens >= 0], minlength=corpus.n_questions + corpus.n_concepts) + 1.0
            if corpus.n_tokens and int(tokens.max()) < corpus.n_questions:
                counts[corpus.n_questions :] = 0.0
        else:
            counts = np.asarray(self.counts, dtype=np.float64)
        noise = np.where(counts > 0, counts**self.exponent, 0.0)
        noise = noise / noise.sum()  # (vocabulary,)
        reach = rng.integers(1, self.window + 1, size=tokens.shape)
        walk, inputs, outputs, apart = [], [], [], []
        for d in range(1, min(self.window, tokens.shape[1] - 1) + 1):
            both = tokens[:, d:] >= 0  # pads are at the end, so the earlier token is there too
            for centre, other, wide, steps in (
                (tokens[:, d:], tokens[:, :-d], reach[:, d:], -d),
                (tokens[:, :-d], tokens[:, d:], reach[:, :-d], d),
            ):
                chosen = both & (wide >= d)
                walk.append(np.nonzero(chosen)[0])
                inputs.append(other[chosen])
                outputs.append(centre[chosen])
                apart.append(np.full(len(outputs[-1]), steps, dtype=np.int64))
        if not sum(map(len, walk)):
            raise CorpusError(f"{corpus.n_walks} walks hold no pair of tokens within a window of {self.window}")
        where = np.concatenate(walk)
        order = np.argsort(where, kind="stable")
        x, y = np.concatenate(inputs)[order], np.concatenate(outputs)[order]
        drawn = np.searchsorted(np.cumsum(noise)[:-1], rng.random((len(x), self.negative)), side="right")
        drawn = np.where(drawn == y[:, None], -1, drawn)
        pairs = np.concatenate([x[:, None], y[:, None], drawn], axis=1).astype(np.int32)  # (items, 2 + k)
        return HeldOutBatch(
            self,
            tokens,
            where[order],
            pairs=pairs,
            noise=noise,
            apart=np.concatenate(apart)[order],
            n_questions=corpus.n_questions,
            n_concepts=corpus.n_concepts,
            graph_digest=corpus.graph_digest,
        )

    def score(self, p: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """The best score of a pair: log( p / (k p_n (1 - p)) ), from p = p(y|x) and p_n = p_n(y)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(p) - np.log(self.negative * noise) - np.log1p(-np.minimum(p, 1.0))

    def losses(self, batch: HeldOutBatch, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nats per item: float64 (items,), from scores float64 (items, 1 + k) of the output and the negatives."""
        assert batch.pairs is not None
        kept = batch.pairs[:, 2:] >= 0
        wrong = np.logaddexp(0.0, np.where(kept, scores[:, 1:], -np.inf)).sum(axis=1)
        return np.logaddexp(0.0, -scores[:, 0]) + wrong

    def floor(self, chain: Chain, batch: HeldOutBatch) -> NDArray[np.float64]:
        if self.ordered:
            return super().floor(chain, batch)
        assert batch.pairs is not None
        assert batch.noise is not None
        chain.check(batch.tokens, batch.graph_digest)
        x, y = batch.pairs[:, :1], np.maximum(batch.pairs[:, 1:], 0)  # (items, 1), (items, 1 + k)
        p = chain.pair_law(self.window).conditional(np.broadcast_to(x, y.shape), y)
        chain.possible(np.log(np.maximum(p[:, 0], 0.0), where=p[:, 0] > 0, out=np.full(len(p), -np.inf)), batch.walk)
        return self.losses(batch, self.score(p, batch.noise[y]))

    def expected(self, law: Expected) -> float | None:
        # Counts of a real corpus differ inside a class of equal questions; then the closed form doesn't hold.
        if self.ordered or self.counts is not None:
            return None
        return law.skipgram(self.window, self.negative, self.exponent)

    def unigram(self, batch: HeldOutBatch, share: NDArray[np.float64]) -> NDArray[np.float64]:
        assert batch.pairs is not None
        assert batch.noise is not None
        y = np.maximum(batch.pairs[:, 1:], 0)
        return self.losses(batch, self.score(share[y], batch.noise[y]))

    def blank(self, batch: HeldOutBatch) -> float:
        assert batch.pairs is not None
        return float(np.log(2.0) * (1 + (batch.pairs[:, 2:] >= 0).sum(axis=1).mean()))
