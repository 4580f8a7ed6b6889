"""The interface to the exact distribution of a walk, for all kinds of chain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcq.errors import ChainError


class Chain(ABC):
    """The exact distribution of a walk.

    Attributes
    ----------
    length : questions in a full walk.
    n_questions, n_hubs : sizes; token i < n_questions is question i, token n_questions + j is hub j.
    keep_concepts : whether the hubs between the questions are tokens of the walk.
    graph_digest : digest of its graph ("" if unknown).
    first_order : True where the next question depends only on the last one.
    """

    length: int
    n_questions: int
    n_hubs: int
    keep_concepts: bool
    graph_digest: str
    first_order: bool = True

    @property
    def width(self) -> int:
        """Tokens in a full walk."""
        return 2 * self.length - 1 if self.keep_concepts else self.length

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary of this walk's tokens: questions, and hubs if they are tokens."""
        return self.n_questions + (self.n_hubs if self.keep_concepts else 0)

    @abstractmethod
    def log_posterior(
        self, tokens: NDArray, asked: NDArray[np.bool_], left: NDArray | None, right: NDArray | None
    ) -> NDArray[np.float64]:
        """log p(token | visible tokens before it, visible tokens after it), for every asked position.

        Parameters
        ----------
        tokens : int (walks, width), the walks as they are; -1 pads.
        asked : bool (walks, width); results are in its row-major order. The visible token at the asked position itself
            isn't used.
        left, right : int (walks, width): the visible tokens; HIDDEN hides one. ``left=None`` hides everything before
            the asked position (the position itself stays known), ``right=None`` everything after it, the walk's end
            included.

        Returns
        -------
        float64 (asked positions,), in nats.
        """

    @abstractmethod
    def log_posterior_corrupted(
        self, tokens: NDArray, asked: NDArray[np.bool_], seen: NDArray, noise: Corruption
    ) -> NDArray[np.float64]:
        """The same if any visible token may be a replacement, as in BERT's 80/10/10 rule; ``seen`` has HIDDEN at masks.

        An asked position is known to be selected; for the others this is unknown.
        """

    @abstractmethod
    def posterior(self, seen: ArrayLike, position: int) -> NDArray[np.float64]:
        """The exact distribution of the token at one position: float64 (n_tokens,), given the other visible tokens.

        Parameters
        ----------
        seen : int (width,): one walk; HIDDEN where a token isn't visible, -1 after an early end.
        position : the position asked; the token of ``seen`` there isn't used.
        """

    @abstractmethod
    def pair_law(self, window: int) -> Pairs:
        """The distribution of skip-gram's (centre, context) pairs, with a window that shrinks uniformly."""

    @cached_property
    def unigram(self) -> NDArray[np.float64]:
        """Share of each token among all tokens of these walks: float64 (n_tokens,), sums to 1."""
        total = np.zeros(self.n_tokens)
        for p in range(self.width):
            total += self.marginal(p)
        return total / total.sum()

    @abstractmethod
    def marginal(self, position: int) -> NDArray[np.float64]:
        """mu_t: the probability that the walk reaches ``position`` and has each token there: float64 (n_tokens,)."""

    def check(self, tokens: NDArray, graph_digest: str = "") -> None:
        """Raise ChainError if walks can't come from this chain: they are of another graph or another width."""
        if graph_digest and self.graph_digest and graph_digest != self.graph_digest:
            raise ChainError(
                f"these walks were sampled on another graph (digest {graph_digest[:12]}, the chain's graph has "
                f"{self.graph_digest[:12]}); a floor means nothing there: sample them again on the chain's graph"
            )
        if tokens.ndim != 2 or tokens.shape[1] != self.width:
            raise ChainError(
                f"these walks are {tokens.shape[-1]} tokens wide, the chain's are {self.width}; "
                "build the chain with the settings of the walk that was sampled"
            )
        if tokens.size and tokens.max() >= self.n_tokens:
            raise ChainError(f"token {tokens.max()} isn't one of the chain's {self.n_tokens} tokens")

    def possible(self, log_p: NDArray[np.float64], walk: NDArray) -> NDArray[np.float64]:
        """Return ``log_p``, or raise ChainError if a walk has probability 0 under the chain."""
        bad = np.flatnonzero(~np.isfinite(log_p))
        if len(bad):
            raise ChainError(
                f"walk {int(walk[bad[0]])} takes a step of probability 0 under this chain ({len(bad)} such tokens); "
                "were the walks sampled with other settings?"
            )
        return np.minimum(log_p, 0.0)


class Pairs(Protocol):
    """The distribution of an (input, output) pair of skip-gram."""

    def probability(self, x: ArrayLike) -> NDArray[np.float64]:
        """p(x): how often a pair's input (or output) is token x."""

    def conditional(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """p(y | x), elementwise over token arrays of one shape."""


@dataclass(frozen=True)
class Corruption:
    """BERT's rule: a token is selected with probability ``rate``; then masked, replaced by a uniform question, or kept.

    Parameters
    ----------
    rate : probability of being selected, independently for each token.
    mask, random : shares of the selected tokens that become the mask, and a random question; the rest stays.
    """

    rate: float
    mask: float
    random: float

    @property
    def keep(self) -> float:
        return 1.0 - self.mask - self.random
