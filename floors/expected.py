"""Expected floors of a first-order walk, without sampling: the mean loss of the best possible model.

Everything comes from two kinds of entropy, both computed at the size of the distinct questions: that of a position,
H(X_p), and that of a later one given an earlier one, H(X_r | X_l). For l < p < r the chain rule and the Markov property
give

    H(X_p | X_l, X_r) = H(X_p | X_l) + H(X_r | X_p) - H(X_r | X_l),

and a masked token's floor is its mean over positions of the nearest visible neighbours. In the stationary walk that is
2 H_1 - H_2 for both neighbours visible, with H_a the entropy of a question given the one a steps before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcq.errors import ChainError
from qcq.floors.markov import MarkovChain

MOST_CLASSES = 3_000  # with more distinct questions, tables over pairs of them are too large: sample instead


def entropy(p: NDArray, times: NDArray | float = 1.0) -> NDArray[np.float64]:
    """-Σ n p ln p over the last axis, in nats; ``times`` is n, how often each entry of p occurs.

    Examples
    --------
    >>> float(entropy(np.array([0.25]), np.array([4]))) == float(np.log(4))
    True
    """
    each = np.maximum(p, 1e-300)  # 0 ln 0 is 0
    np.log(each, out=each)
    each *= p
    return -(each @ times if isinstance(times, np.ndarray) else times * each.sum(axis=-1))


def log_sum(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """ln(1 + a/b), also where a/b is larger than any float; what it is at b = 0 has no meaning."""
    with np.errstate(all="ignore"):
        ratio = a / b
        return np.where(np.isinf(ratio), np.log(a) - np.log(b), np.log1p(ratio))


class Expected:
    """Expected floors of one chain, in nats per predicted token.

    Parameters
    ----------
    chain : a first-order chain of at most MOST_CLASSES distinct questions.
    like : the Expected of another chain; if that chain has the same steps, from another start, its entropies are used.

    Raises
    ------
    ChainError : too many distinct questions.

    Examples
    --------
    >>> from scipy import sparse
    >>> from qcq.floors.markov import edge_steps
    >>> two_twins = MarkovChain(*edge_steps(sparse.csr_array([[1.0], [1.0]])), np.ones(2), length=3)
    >>> round(Expected(two_twins).next_question(), 6)  # a fair coin: ln 2
    0.693147
    """

    def __init__(self, chain: MarkovChain, like: Expected | None = None) -> None:
        if chain.n_classes > MOST_CLASSES:
            raise ChainError(
                f"{chain.n_classes:,} distinct questions are too many for an expected floor "
                f"(at most {MOST_CLASSES:,}); measure the floor on sampled walks"
            )
        self.chain = chain
        k = chain.n_classes
        start = chain.start[chain._members]  # (classes,): of one member
        self._stuck = np.diff(chain.out.indptr)[chain._members] == 0
        lost = start * self._stuck * chain.sizes
        self.dead = float(lost.sum()) if chain.length > 1 else 0.0  # share of walks that end at their first question
        self._dead_entropy = 0.0  # the entropy of such a walk: of its only question
        if self.dead:
            self._dead_entropy = float(entropy(start[self._stuck] / self.dead, chain.sizes[self._stuck]))
        at = np.zeros((chain.width, k + chain.n_hubs))  # of one member of each kind, given that the walk goes on
        for p in range(chain.width):
            t = p // 2 if chain.keep_concepts else p
            if chain.keep_concepts and p % 2:
                at[p, k:] = chain.hub_law[t + 1][: chain.n_hubs]
            else:
                at[p, :k] = chain.class_marginal(t)
        if self.dead:
            at[0, :k][self._stuck] = 0.0
        self._at = at / (1.0 - self.dead) if self.dead < 1 else at
        self._sizes = np.r_[chain.sizes, np.ones(chain.n_hubs, dtype=np.int64)]
        self._rows: dict[tuple[bool, bool], tuple[NDArray | None, list[NDArray[np.float64]]]] = {}
        if like is not None and _same_steps(chain, like.chain):
            self._rows = like._rows

    def _kinds(self, position: int) -> slice:
        """Kinds that may occur at a position."""
        k = self.chain.n_classes
        return slice(k, k + self.chain.n_hubs) if self.chain.keep_concepts and position % 2 else slice(0, k)

    def row_entropies(self, steps: int, hub_first: bool = False, hub_last: bool = False) -> NDArray[np.float64]:
        """Entropy of the token after ``steps`` further steps of M, given each kind: float64 (kinds of one type,)."""
        key = (hub_first, hub_last)
        chain, k = self.chain, self.chain.n_classes
        rows, known = self._rows.setdefault(key, (None, []))
        types = {False: slice(0, k), True: slice(k, k + chain.n_hubs)}
        last = types[hub_last]
        while len(known) <= steps:
            first = chain._out[types[hub_first]]
            rows = (first if isinstance(first, np.ndarray) else first.toarray()) if rows is None else rows @ chain._step
            into = chain._into[last]
            p = rows @ into.T
            known.append(entropy(p, self._sizes[last]))
            self._rows[key] = (rows, known)
        return known[steps]

    def position(self, p: int) -> float:
        """H(X_p), of walks that don't end at their start."""
        return float(entropy(self._at[p], self._sizes))

    def later(self, first: int, last: int) -> float:
        """H(X_last | X_first) for positions first < last."""
        chain = self.chain
        hub_first, hub_last = chain.keep_concepts and first % 2 == 1, chain.keep_concepts and last % 2 == 1
        before, behind = chain._slots(np.array([last]))[0][0], chain._slots(np.array([first]))[1][0]
        kinds = self._kinds(first)
        return float((self._at[first] * self._sizes)[kinds] @ self.row_entropies(before - behind, hub_first, hub_last))

    def next_question(self) -> float:
        """Mean of H(X_p | X_(p-1)) over the positions after the first."""
        self._need(2)
        return float(np.mean([self.later(p - 1, p) for p in range(1, self.chain.width)]))

    def previous_question(self) -> float:
        """Mean of H(X_p | X_(p+1)) = H(X_p) + H(X_(p+1) | X_p) - H(X_(p+1))."""
        self._need(2)
        each = [self.position(p) + self.later(p, p + 1) - self.position(p + 1) for p in range(self.chain.width - 1)]
        return float(np.mean(each))

    def masked(self, rate: float = 0.15) -> float:
        """Mean over positions and over those of the nearest visible neighbours: each token is hidden at ``rate``.

        Neighbourhoods with a probability under 1e-13 are left out.
        """
        return self._hidden(rate)

    def cloze(self) -> float:
        """Both neighbours always visible."""
        return self._hidden(0.0)

    def _hidden(self, rate: float) -> float:
        width = self.chain.width
        gaps = np.arange(width)
        chance = (1.0 - rate) * rate**gaps  # nearest visible neighbour after this many hidden ones
        none = rate**gaps  # all of this many hidden
        alone = [self.position(p) for p in range(width)]
        held: dict[tuple[int, int], float] = {}

        def later(a: int, b: int) -> float:
            if b == width:  # nothing is known after the end
                return 0.0
            if a < 0:
                return alone[b]
            if (a, b) not in held:
                held[a, b] = self.later(a, b)
            return held[a, b]

        total = weights = 0.0
        for p in range(width):
            lefts = [(-1, none[p])] + [(left, chance[p - left - 1]) for left in range(p)]
            rights = [(width, none[width - 1 - p])] + [(r, chance[r - p - 1]) for r in range(p + 1, width)]
            for left, wl in lefts:
                for right, wr in rights:
                    if wl * wr > 1e-13:
                        total += wl * wr * (later(left, p) + later(p, right) - later(left, right))
                        weights += wl * wr
        mean = total / weights
        # Walks that end at their start have one token, and their length is known.
        n_alive, n_dead = (1.0 - self.dead) * width, self.dead
        return float((n_alive * mean + n_dead * self._dead_entropy) / (n_alive + n_dead))

    def skipgram(self, window: int = 5, negative: int = 5, exponent: float = 0.75) -> float:
        """Nats per pair (one output and ``negative`` negatives), noise from the exact unigram^exponent.

        With p = p(y|x) and r = k p_n(y) (1 - p), the floor is Σ_x p(x) Σ_y p ln((p+r)/p) + r ln((p+r)/r).
        """
        px, p, r = self._pairs(window, negative, exponent)
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = np.where(p > 0, p * log_sum(r, p), 0.0) + np.where(r > 0, r * log_sum(p, r), 0.0)
        n = self._sizes[: len(px)]
        return float((px * n)[px > 0] @ (cost[px > 0] @ n))

    def skipgram_of_rank(self, dim: int, window: int = 5, negative: int = 5, exponent: float = 0.75) -> float:
        """The least loss of skip-gram *found* with vectors of ``dim`` dimensions: nats per pair, not a floor.

        Skip-gram's scores are products of an input and an output vector, a matrix of rank ``dim``. Its expected loss

            Σ_x p(x) Σ_y p(y|x) ln(1 + e^-s(x,y)) + r(x,y) ln(1 + e^s(x,y)),        r = k p_n(y) (1 - p(y|x)),

        is minimised by L-BFGS over one pair of vectors for each kind of question, from the truncated SVD of the best
        scores (at least -10) weighted by how many questions are of a kind. The problem isn't convex: some vectors reach
        the loss that is found, but a lower one may be possible. The budget is about three seconds, or shorter with few
        kinds.
        """
        from scipy.optimize import minimize
        from scipy.special import expit
        from sklearn.utils.extmath import randomized_svd as svd
        from threadpoolctl import threadpool_limits

        px, p, r = self._pairs(window, negative, exponent)
        n = self._sizes[: len(px)]
        weight = (px * n)[:, None] * n  # (kinds, kinds)
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.nan_to_num(np.clip(np.log(p) - np.log(r), -10.0, 10.0))  # NaN: neither a pair nor a negative
        root = np.sqrt(n)
        dim, k = min(dim, len(n)), len(n)
        u, s, vt = svd(best * root * root[:, None], dim, random_state=0)
        first = np.stack([u * np.sqrt(s), vt.T * np.sqrt(s)]) / root[:, None]

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            x, y = flat.reshape(2, k, dim)
            score = x @ y.T  # (kinds, kinds)
            soft, chance = np.logaddexp(0.0, score), expit(score)
            value = weight * ((p + r) * soft - p * score)
            slope = weight * ((p + r) * chance - p)
            return float(value.sum()), np.stack([slope @ y, slope.T @ x]).ravel()

        steps = int(np.clip(1e7 / k**2, 4, 150))
        with threadpool_limits(1):  # products too small for several threads
            return float(minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps}).fun)

    def _pairs(self, window: int, negative: int, exponent: float) -> tuple[NDArray, NDArray, NDArray]:
        """p(x) of one input of each kind, (kinds,); p(y|x) and k p_n(y) (1 - p(y|x)) for a pair, (kinds, kinds)."""
        self._need(2)
        chain = self.chain
        law = chain.pair_law(window)
        one = chain._members
        if chain.keep_concepts:
            one = np.r_[one, chain.n_questions + np.arange(chain.n_hubs)]
        share = chain.unigram
        raised = np.where(share > 0, share**exponent, 0.0)
        noise = raised[one] / raised.sum()
        px = law.probability(one)
        used = np.flatnonzero(px > 0)
        p = np.zeros((len(one), len(one)))
        p[used] = law.conditional(np.repeat(one[used], len(one)), np.tile(one, len(used))).reshape(len(used), -1)
        return px, p, negative * noise * (1.0 - p)

    def _need(self, questions: int) -> None:
        if self.chain.length < questions or self.dead == 1.0:
            raise ChainError("walks of one question have no neighbours to predict or to be predicted from")


def _same_steps(one: MarkovChain, other: MarkovChain) -> bool:
    """Whether both have the same U, V and classes of questions."""
    pairs = ((one.out, other.out), (one.into, other.into))
    return np.array_equal(one.classes, other.classes) and all(
        np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices) and np.array_equal(a.data, b.data)
        for a, b in pairs
    )
