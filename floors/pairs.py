"""The distribution of a skip-gram pair under a first-order walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import ArrayLike, NDArray

from qcq.errors import ChainError
from qcq.floors.blocks import BLOCK, pick

if TYPE_CHECKING:
    from qcq.floors.markov import MarkovChain


class PairLaw:
    """The distribution of an (input, output) pair of skip-gram: p(x, y) ∝ Σ_δ w_δ (J_δ[x, y] + J_δ[y, x]).

    J_δ[x, y] sums, over all positions, the probability of x there and y δ tokens later. gensim shrinks its window to a
    uniform size of 1 … window at every centre, so w_δ = (window - δ + 1) / window. Every pair occurs in both
    directions, so the distribution is symmetric.

    Parameters
    ----------
    chain : a first-order chain.
    window : tokens to either side, before it shrinks.
    """

    _TABLE = 2**24  # most entries of a table over pairs of kinds: 128 MiB
    _WORK = (3e11, 1e13)  # most multiplications, sparse and dense: minutes of a core

    def __init__(self, chain: MarkovChain, window: int) -> None:
        self._chain, self._window = chain, window
        k, keep = chain.n_classes, chain.keep_concepts
        n = k + (chain.n_hubs if keep else 0)
        at = np.zeros((chain.width, n))  # probability of one member of each kind at each position
        for p in range(chain.width):
            if keep and p % 2:
                at[p, k:] = chain.hub_law[(p + 1) // 2][: chain.n_hubs]
            else:
                at[p, :k] = chain.class_marginal(p // 2 if keep else p)
        moving = np.r_[np.diff(chain.out.indptr)[chain._members] > 0, np.ones(n - k, dtype=bool)]
        shrink = 1.0 - np.arange(window) / window  # (window,): w_δ for δ = 1 …
        spans = range(1, window + 1)
        self._first = shrink[:, None] * np.array([at[: max(chain.width - d, 0)].sum(axis=0) * moving for d in spans])
        later = shrink[:, None] * np.array([at[d:].sum(axis=0) for d in spans])
        self._each = (self._first + later).sum(axis=0)  # unscaled p(x) of one member: (kinds,)
        self._scale = float(self._each @ np.r_[chain.sizes, np.ones(n - k)])
        self._n = n
        self._table: NDArray[np.float64] | None = None
        if n * n <= self._TABLE and chain.dense:
            half = self._half()
            self._table = half + half.T

    def _half(self) -> NDArray[np.float64]:
        """Σ_δ w_δ J_δ over all pairs of kinds."""
        chain, k, n = self._chain, self._chain.n_classes, self._n
        half = np.zeros((n, n))
        types = {False: slice(0, k), True: slice(k, n)}
        for x_hub in (False, True) if chain.keep_concepts else (False,):
            row, gap = chain._out[types[x_hub]], 0
            for d in range(1, self._window + 1):
                y_hub = chain.keep_concepts and x_hub != (d % 2 == 1)
                steps = d - 1 if not chain.keep_concepts else (d // 2 if x_hub else (d - 1) // 2)
                while gap < steps:
                    row, gap = row @ chain._step, gap + 1
                x, y = types[x_hub], types[y_hub]
                half[x, y] += self._first[d - 1][x, None] * (row @ chain._into[y].T)
        return half

    def _joint(self, x: NDArray, y: NDArray) -> NDArray[np.float64]:
        """Σ_δ w_δ (J_δ[x, y] + J_δ[y, x]) elementwise over kinds."""
        if self._table is not None:
            return self._table[x, y]
        chain, k = self._chain, self._chain.n_classes
        code, back = np.unique(x * self._n + y, return_inverse=True)
        x, y = code // self._n, code % self._n
        out = np.zeros(len(x))
        kinds, start = np.unique(x, return_index=True)
        work = 2.0 * (self._window - 1) * len(kinds) * chain.hub_steps
        if work > self._WORK[chain.dense]:
            raise ChainError(
                f"no skip-gram floor: {chain.n_hubs:,} nodes between questions and {chain.hub_steps:,} steps between "
                f"those take {work:.0e} multiplications; walk without s and q-q edges, or take window 1"
            )
        start = np.r_[start, len(x)]
        size = max(1, BLOCK // (chain.n_hubs + 3))
        into, leave = scipy.sparse.csr_array(chain._into), scipy.sparse.csr_array(chain._out)
        for i in range(0, len(kinds), size):  # this many inputs at a time, with all their outputs
            some = kinds[i : i + size]
            part = slice(start[i], start[min(i + size, len(kinds))])
            a, b = x[part], y[part]
            whose = np.searchsorted(some, a)
            a_hub, b_hub = a >= k, b >= k
            ahead, before = leave[some].toarray(), into[some].toarray()  # x first, x last
            for m in range(self._window):  # steps of M between the two
                after = earlier = None
                for d in range(1, self._window + 1):
                    if chain.keep_concepts:
                        fits = (a_hub != b_hub) if d % 2 else (a_hub == b_hub)
                        forth = fits & (np.where(a_hub, d // 2, (d - 1) // 2) == m)
                        reverse = fits & (np.where(b_hub, d // 2, (d - 1) // 2) == m)
                    else:
                        forth = reverse = np.full(len(a), d - 1 == m)
                    if forth.any():
                        after = pick(ahead, into, whose, b) if after is None else after
                        out[part] += np.where(forth, self._first[d - 1][a] * after, 0.0)
                    if reverse.any():
                        earlier = pick(before, leave, whose, b) if earlier is None else earlier
                        out[part] += np.where(reverse, self._first[d - 1][b] * earlier, 0.0)
                if m < self._window - 1:
                    ahead, before = ahead @ chain._step, before @ chain._step_back
        return out[back]

    def probability(self, x: ArrayLike) -> NDArray[np.float64]:
        """p(x): how often a pair's input (or output) is token x."""
        return self._each[self._chain._kind(np.asarray(x))] / self._scale

    def log_ratio(self) -> NDArray[np.float64]:
        """max(0, ln p(x, y) / (p(x) p(y))) between one member of each class of questions: float64 (classes, classes).

        Rows and columns of classes that are in no pair are 0. The full matrix over questions repeats a class's row for
        each of its members.
        """
        one = self._chain._members
        p = self.probability(one)
        used = np.flatnonzero(p > 0)
        some = one[used]
        given = self.conditional(np.repeat(some, len(some)), np.tile(some, len(some))).reshape(len(some), -1)
        out = np.zeros((len(one), len(one)))
        with np.errstate(divide="ignore", over="ignore"):
            ratio = given / p[used]
            ratio = np.where(np.isinf(ratio), np.log(given) - np.log(p[used]), np.log(ratio))
        ratio = np.maximum(ratio, 0.0)
        out[np.ix_(used, used)] = (ratio + ratio.T) / 2  # symmetric but for rounding
        return out

    def conditional(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """p(y | x), elementwise over token arrays of one shape; 0 for a token that isn't in these walks."""
        x, y = np.asarray(x), np.asarray(y)
        there = (x < self._chain.n_tokens) & (y < self._chain.n_tokens)
        a, b = self._chain._kind(x[there]), self._chain._kind(y[there])
        out = np.zeros(x.shape)
        each = self._each[a]
        out[there] = self._joint(a, b) / np.where(each > 0, each, 1.0)
        return out
