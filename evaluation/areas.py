"""Areas under the ROC curve, taken apart: whose answers are compared with whose?

The pooled area compares every right answer with every wrong one, whoever gave it to whatever question. Nearly all of
these pairs are of two students and of two questions, so a model that knows which questions are hard has a high area and
need not trace anything. Here the pairs are counted by stratum: within one student, within one question, or weighted so
that every question has as many right as wrong answers. Everything takes one sort, O(n log n) for n answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcq.errors import EvaluationError
from qcq.evaluation.statistics import answers, check_draws
from qcq.support.seeds import generator


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every right answer compared with every wrong one of the same stratum.

    With h(i, j) = 1 where the right answer i has a higher score than the wrong answer j, ½ where the two tie, else 0,
    and weights w, the area is

        A = Σ w_i w_j h(i, j) / Σ w_i w_j    over pairs (right i, wrong j) of one stratum.

    Attributes
    ----------
    right : bool (n,).
    weight : float64 (n,).
    wins : float64 (n,), the weight of the answers of the other kind in the stratum against which this one is ranked
        correctly, ties half.
    pairs : float64 (n,), the weight of all answers of the other kind in the stratum.
    """

    right: NDArray[np.bool_]
    weight: NDArray[np.float64]
    wins: NDArray[np.float64]
    pairs: NDArray[np.float64]

    @classmethod
    def of(
        cls, truth: ArrayLike, scores: ArrayLike, strata: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> Pairs:
        """Count the pairs.

        Parameters
        ----------
        truth : 0 or 1 for each answer, (n,).
        scores : of the same answers; higher means right is likelier.
        strata : label of each answer; only answers of one stratum are compared. None: all of them.
        weights : of the answers, at least 0; None: 1 each.

        Raises
        ------
        EvaluationError : lists of different lengths, or a score that isn't finite.

        Examples
        --------
        >>> Pairs.of([1, 0, 1, 0], [0.9, 0.4, 0.6, 0.6]).area
        0.875
        >>> Pairs.of([1, 0, 1, 0], [0.9, 0.4, 0.6, 0.6], strata=["a", "a", "b", "b"]).area
        0.75
        """
        right, score = answers(truth), np.asarray(scores, dtype=np.float64)
        n = len(right)
        stratum = np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
        weight = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
        if not right.shape == score.shape == stratum.shape == weight.shape:
            raise EvaluationError(
                f"{n} answers, {len(score)} scores, {len(stratum)} labels, {len(weight)} weights; give one each"
            )
        if not np.isfinite(score).all():
            raise EvaluationError(f"score {int(np.argmin(np.isfinite(score)))} isn't finite")
        order = np.lexsort((score, stratum))
        begins = np.ones(n, dtype=bool)  # of a block of answers of one stratum and one score
        begins[1:] = (np.diff(stratum[order]) != 0) | (np.diff(score[order]) != 0)
        block = np.empty(n, dtype=np.int64)
        block[order] = np.cumsum(begins) - 1
        of_block = stratum[order][begins]  # (blocks,)
        kinds = np.stack([np.bincount(block, weight * ~right), np.bincount(block, weight * right)])  # wrong, right
        total = np.stack([np.bincount(of_block, kind) for kind in kinds])  # (2, strata)
        upto = np.cumsum(kinds, axis=1)
        first = np.searchsorted(of_block, np.arange(total.shape[1]))  # the first block of a stratum
        below = upto - kinds - (upto - kinds)[:, first][:, of_block]  # in the stratum, before the block
        wrong_below, right_above = below[0] + kinds[0] / 2, total[1][of_block] - below[1] - kinds[1] / 2
        wins = np.where(right, wrong_below[block], right_above[block])
        return cls(right, weight, wins, np.where(right, total[0][stratum], total[1][stratum]))

    @property
    def total(self) -> float:
        """The weight of all pairs, Σ w_i w_j."""
        return float((self.weight * self.pairs)[self.right].sum())

    @property
    def won(self) -> float:
        """The weight of the pairs that are ranked correctly, Σ w_i w_j h(i, j)."""
        return float((self.weight * self.wins)[self.right].sum())

    @property
    def area(self) -> float:
        """The area A; NaN if there is no pair."""
        return self.won / self.total if self.total else float("nan")

    def units(self, groups: ArrayLike, inside: bool = False) -> NDArray[np.float64]:
        """One figure per cluster (a student) whose mean is the area: float64 (clusters,), sorted labels.

        With U_g and W_g the won and the whole weight of the pairs that cluster g takes part in, and W the weight of all
        pairs, the figure is A + G (U_g - A W_g) / W for G clusters: the area plus G times its derivative by the
        cluster's weight. So the mean over clusters drawn with replacement is, to first order, the area of the drawn
        clusters, as in :func:`~qcq.evaluation.statistics.auc_units`, which this is where there are no strata.

        Parameters
        ----------
        groups : label of each answer's cluster, (n,).
        inside : True where strata are the clusters themselves, so that both answers of a pair are the same cluster's
            and a pair counts once.

        Raises
        ------
        EvaluationError : there is no pair.
        """
        if not self.total:
            raise EvaluationError("no stratum has both right and wrong answers; there is no area under a curve")
        label = np.unique(groups, return_inverse=True)[1]
        area = self.area
        away = np.bincount(label, self.weight * (self.wins - area * self.pairs))
        return area + len(away) * away / (self.total * (2 if inside else 1))


@dataclass(frozen=True)
class Decomposition:
    """The pooled area as a mean of two: pooled = share · within + (1 - share) · between, exactly.

    Attributes
    ----------
    pooled : over all pairs of a right and a wrong answer.
    within : over the pairs of one group (a student); NaN if there are none.
    between : over the pairs of two groups; NaN if there are none.
    share : of the pairs that are within a group, λ.
    mean : the plain mean of the groups' own areas, over groups with right and wrong answers: every student counts
        alike, however many pairs they have. It is no part of the decomposition. NaN if there are none.
    """

    pooled: float
    within: float
    between: float
    share: float
    mean: float


def decompose(truth: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Decomposition:
    """Take the pooled area apart into pairs within a group and pairs between groups. Weights are pairs, ties half.

    With U the pairs won (ties ½) and W all pairs, pooled = U/W; within = U_w/W_w over pairs of one group; between =
    (U - U_w)/(W - W_w); λ = W_w/W.

    Parameters
    ----------
    truth, scores : as in :meth:`Pairs.of`.
    groups : label of each answer's group, (n,): students, or questions.

    Raises
    ------
    EvaluationError : all answers are right, or all wrong.

    Examples
    --------
    >>> found = decompose([1, 0, 1, 0], [0.9, 0.4, 0.3, 0.2], groups=["a", "a", "b", "b"])
    >>> found.within, found.between, round(found.share, 3)
    (1.0, 0.5, 0.5)
    """
    every, inside = Pairs.of(truth, scores), Pairs.of(truth, scores, groups)
    if not every.total:
        n = len(every.right)
        raise EvaluationError(f"all {n} answers are {'right' if every.right.any() else 'wrong'}; there is no area")
    label = np.unique(groups, return_inverse=True)[1]
    pairs = np.bincount(label, inside.pairs * inside.right)
    won = np.bincount(label, inside.wins * inside.right)
    return _decomposition(every.won, every.total, won, pairs)


def _decomposition(
    won: float, total: float, inside: NDArray, pairs: NDArray, times: NDArray | None = None
) -> Decomposition:
    """From the sums over all pairs and, (groups,), the sums within; ``times`` is how often each group counts."""
    times = np.ones(len(pairs)) if times is None else times
    has = pairs > 0
    own, of_own = float(times @ inside), float(times @ pairs)
    seen = times[has].sum()
    return Decomposition(
        pooled=won / total if total else float("nan"),
        within=own / of_own if of_own else float("nan"),
        between=(won - own) / (total - of_own) if total - of_own > 0 else float("nan"),
        share=of_own / total if total else float("nan"),
        mean=float((times[has] * (inside[has] / pairs[has])).sum() / seen) if seen else float("nan"),
    )


def bootstrap_decomposition(
    truth: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, level: float = 0.95, draws: int = 1_000, seed: int = 0
) -> tuple[Decomposition, Decomposition]:
    """The ends of percentile intervals of every figure of :func:`decompose`: groups are drawn with replacement.

    A group that is drawn twice counts as two groups with the same answers. Each draw takes O(n).

    Parameters
    ----------
    truth, scores, groups : as in :func:`decompose`.
    level, draws, seed : of the intervals and the samples.

    Returns
    -------
    low, high : the lower and the upper ends.

    Raises
    ------
    EvaluationError : all answers are right, or all wrong.

    References
    ----------
    Efron & Tibshirani 1993, An introduction to the bootstrap, ch. 13; Field & Welsh 2007, Bootstrapping clustered data
    (JRSS B 69), for drawing whole clusters.
    """
    check_draws(level, draws)
    decompose(truth, scores, groups)  # says what is wrong
    right, score = answers(truth), np.asarray(scores, dtype=np.float64)
    label = np.unique(groups, return_inverse=True)[1]
    n = int(label.max()) + 1
    inside = Pairs.of(truth, scores, groups)
    pairs, won = np.bincount(label, inside.pairs * right), np.bincount(label, inside.wins * right)
    block = np.unique(score, return_inverse=True)[1]
    rng = generator(seed, "bootstrap", "decomposition")
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        weight = times[label]
        good, bad = np.bincount(block, weight * right), np.bincount(block, weight * ~right)
        total = float(good.sum() * bad.sum())
        found.append(_decomposition(float(good @ (np.cumsum(bad) - bad / 2)), total, won, pairs, times))
    names = ("pooled", "within", "between", "share", "mean")
    figures = np.array([[getattr(each, name) for name in names] for each in found])
    tail = (1 - level) / 2
    low, high = np.nanquantile(figures, [tail, 1 - tail], axis=0)
    return Decomposition(*low.tolist()), Decomposition(*high.tolist())


def balanced(truth: ArrayLike, questions: ArrayLike) -> NDArray[np.float64]:
    """Weights that balance every question: as many right as wrong answers, float64 (n,).

    The sample keeps m = min(right, wrong) answers of each kind of every question, drawn without replacement, and takes
    the pooled area over the sample. The number of pairs is the same in every draw, and right answers are drawn
    independently of wrong ones, so the mean over all draws is the area with the weight m/right for a right answer and
    m/wrong for a wrong one. It is computed, not sampled. A model that knows only how hard a question is has 0.5 here,
    exactly: each of its scores has the same weight of right and of wrong answers.

    References
    ----------
    Cui et al. 2023, Do we fully understand students' knowledge states? Identifying and mitigating answer bias in
    knowledge tracing (arXiv 2308.07779), their unbiased evaluation. edmine's ``core_metric`` with
    ``allow_replace=False`` draws this sample once; with replacement it takes (right + wrong) // 2 of each kind, which
    weighs easy and hard questions more than this does.
    """
    right = answers(truth)
    label = np.unique(questions, return_inverse=True)[1]
    good, bad = np.bincount(label, right), np.bincount(label, ~right)
    least = np.minimum(good, bad)
    return least[label] / np.where(right, good[label], bad[label])
