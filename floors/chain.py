"""What can be asked of the exact law of a walk, whichever kind of chain it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcq.errors import ChainError


class Chain(ABC):
    """The exact law of a walk, as something that can be asked.

    Attributes
    ----------
    length : questions in a full walk.
    n_questions, n_hubs : sizes; token i < n_questions is question i, token n_questions + j is hub j.
    keep_concepts : whether the hubs between the questions are tokens of the walk.
    graph_digest : which graph it describes ("" where that isn't known).
    first_order : True where the next question depends on the last one alone.
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
        """Size of the vocabulary of this walk's tokens: questions, and hubs where they are kept."""
        return self.n_questions + (self.n_hubs if self.keep_concepts else 0)

    @abstractmethod
    def log_posterior(
        self, tokens: NDArray, asked: NDArray[np.bool_], left: NDArray | None, right: NDArray | None
    ) -> NDArray[np.float64]:
        """log p(token | what is seen before it, what is seen after it), for every asked position.

        Parameters
        ----------
        tokens : int (walks, width), the walks as they are; -1 pads.
        asked : bool (walks, width); answers come in its row-major order. What is seen at the asked position itself
            plays no part.
        left, right : int (walks, width): what is seen; HIDDEN hides a token. ``left=None`` hides everything before
            the asked position (which position it is stays known), ``right=None`` everything after it, the walk's end
            included.

        Returns
        -------
        float64 (asked positions,), in nats.
        """

    @abstractmethod
    def log_posterior_corrupted(
        self, tokens: NDArray, asked: NDArray[np.bool_], seen: NDArray, noise: Corruption
    ) -> NDArray[np.float64]:
        """The same where every seen token may be a lie, as in BERT's 80/10/10 rule; ``seen`` holds HIDDEN at masks.

        An asked position is known to be selected; whether another one was selected is not.
        """

    @abstractmethod
    def posterior(self, seen: ArrayLike, position: int) -> NDArray[np.float64]:
        """The exact distribution of the token at one position: float64 (n_tokens,), given the other seen tokens.

        Parameters
        ----------
        seen : int (width,): one walk; HIDDEN where a token isn't shown, -1 after an early end.
        position : the position asked; what ``seen`` holds there plays no part.
        """

    @abstractmethod
    def pair_law(self, window: int) -> Pairs:
        """The law of the (centre, context) pairs that skip-gram draws with a window that shrinks uniformly."""

    @cached_property
    def unigram(self) -> NDArray[np.float64]:
        """Share of each token among all tokens of these walks: float64 (n_tokens,), sums to 1."""
        total = np.zeros(self.n_tokens)
        for p in range(self.width):
            total += self.marginal(p)
        return total / total.sum()

    @abstractmethod
    def marginal(self, position: int) -> NDArray[np.float64]:
        """mu_t: the probability that the walk is alive at ``position`` and there is each token: float64 (n_tokens,)."""

    def check(self, tokens: NDArray, graph_digest: str = "") -> None:
        """Raise ChainError where walks can't be of this chain: another graph's, or of another width."""
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
        """Give ``log_p`` back, or raise ChainError where a walk did what it can't do by this law."""
        bad = np.flatnonzero(~np.isfinite(log_p))
        if len(bad):
            raise ChainError(
                f"walk {int(walk[bad[0]])} takes a step of probability 0 under this chain ({len(bad)} such tokens); "
                "were the walks sampled with other settings?"
            )
        return np.minimum(log_p, 0.0)


class Pairs(Protocol):
    """The law of an (input, output) pair of skip-gram."""

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
