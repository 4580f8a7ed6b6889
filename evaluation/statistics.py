"""Which method is better, and could it be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcq.errors import EvaluationError
from qcq.support.seeds import generator

_BLOCK = 1 << 22  # drawn indices held at once
_LARGEST = 1e150  # of a figure: its square is still a float


@dataclass(frozen=True)
class Difference:
    """A mean difference of paired figures, ours minus theirs, and its interval.

    Attributes
    ----------
    mean, low, high : the difference and the ends of its interval; infinite if all units are in one cluster, which says
        nothing about other clusters.
    units, clusters : number of pairs, and of independent clusters.
    comparisons : how many differences were computed together; their intervals are simultaneous.
    """

    mean: float
    low: float
    high: float
    units: int
    clusters: int
    comparisons: int = 1

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if self.clusters == 1:
            return f"{self.mean:+.3f} (no interval: it rests on one unit)"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_bootstrap(
    ours: ArrayLike,
    theirs: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Difference:
    """The mean of ``ours - theirs`` with a percentile bootstrap interval; with ``groups``, whole groups are resampled.

    Parameters
    ----------
    ours, theirs : the figures of the same units in the same order, (units,).
    groups : label of each unit's cluster, (units,). Units that aren't independent (one question under several seeds,
        items of one walk) are in one cluster. None: each unit is its own cluster.
    level : of the interval.
    draws : bootstrap samples.
    seed : of the samples.

    Raises
    ------
    EvaluationError : different numbers of figures, none at all, or a figure that isn't finite.

    Examples
    --------
    >>> d = paired_bootstrap([0.9, 0.8, 1.0, 0.7], [0.5, 0.6, 0.4, 0.5])
    >>> round(d.mean, 3), d.decided
    (0.35, True)

    References
    ----------
    Efron & Tibshirani 1993, An introduction to the bootstrap, ch. 13 (percentile intervals).
    """
    check_draws(level, draws)
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise EvaluationError(f"paired figures of shapes {a.shape} and {b.shape}; give two equally long lists")
    difference = a - b
    label = _labels(difference, groups)
    total, size = np.bincount(label, difference).astype(np.float64), np.bincount(label)
    drawn = _resampled(total[None], size, draws, generator(seed, "bootstrap"))[:, 0]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(total) > 1 else (-np.inf, np.inf)
    return Difference(float(difference.mean()), float(low), float(high), len(a), len(total))


def _labels(figures: NDArray[np.float64], groups: ArrayLike | None) -> NDArray[np.int64]:
    """Cluster of each unit, counted from 0: int64 (units,). ``figures`` is (…, units)."""
    bad = np.flatnonzero(~np.isfinite(figures).reshape(-1, figures.shape[-1]).all(axis=0))
    if len(bad):
        raise EvaluationError(f"figure {int(bad[0])} of the pairs isn't finite")
    if (largest := np.abs(figures).max(initial=0.0)) > _LARGEST:
        raise EvaluationError(f"a figure of {largest:.3g} is too large to compare; divide all of them by one number")
    n = figures.shape[-1]
    label = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if label.shape != (n,):
        raise EvaluationError(f"{len(label)} group labels for {n} pairs; give one each")
    return label


def _resampled(
    total: NDArray[np.float64], size: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of bootstrap samples of whole clusters: float64 (draws, tables), from sums (tables, clusters)."""
    n = len(size)
    out = np.empty((draws, len(total)))
    step = max(1, _BLOCK // n)
    for at in range(0, draws, step):
        k = min(step, draws - at)
        drawn = rng.integers(0, n, (k, n)) + n * np.arange(k)[:, None]
        times = np.bincount(drawn.ravel(), minlength=k * n).reshape(k, n).astype(np.float64)  # (draws, clusters)
        out[at : at + k] = (times @ total.T) / (times @ size)[:, None]
    return out


@dataclass(frozen=True, eq=False)
class Contest:
    """Tables scored on the same units, and the pairs to compare.

    Attributes
    ----------
    figures : float64 (tables, units).
    pairs : (i, j): the difference of row i minus row j is wanted.
    groups : cluster of each unit, as in :func:`paired_bootstrap`.
    """

    figures: NDArray[np.float64]
    pairs: Sequence[tuple[int, int]]
    groups: ArrayLike | None = None


def simultaneous(
    contests: Sequence[Contest], *, level: float = 0.95, draws: int = 2_000, seed: int = 0
) -> list[list[Difference]]:
    """Differences of several pairs with simultaneous intervals of coverage ``level``: one list per contest.

    The interval of pair k is d_k ± t s_k: d_k is the mean difference, s_k its standard error over bootstrap means d*_k
    (times √(n/(n - 1)) for n clusters), and t the ``level`` quantile over draws of max_k |d*_k - d_k| / s_k, converted
    from the normal distribution to Student's t with n - 1 degrees of freedom at the same probability, because the
    standard errors come from few clusters. Contests with equally many clusters share their draws, so correlated tables
    aren't corrected as if they were independent. With one pair t is near 1.96; with m independent pairs near
    Bonferroni's value.

    Parameters
    ----------
    contests : the comparisons made together, on the same units or on different ones.
    level : probability that all intervals contain their true values.
    draws : bootstrap samples.
    seed : of the samples.

    Raises
    ------
    EvaluationError : a figure that isn't finite, or no units.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> same = rng.normal(size=200)
    >>> figures = np.stack([same + 1, same + rng.normal(scale=0.1, size=200), same])
    >>> [[d.decided for d in found] for found in simultaneous([Contest(figures, [(0, 2), (1, 2)])])]
    [[True, False]]

    References
    ----------
    Romano & Wolf 2005, Exact and approximate stepdown methods for multiple hypothesis testing (JASA 100), whose first
    step this is (max-T); Dudoit & van der Laan 2008, Multiple testing procedures, ch. 4.
    """
    from scipy.stats import norm

    check_draws(level, draws)
    from scipy.stats import t as student

    asked = sum(len(contest.pairs) for contest in contests)
    worst = np.zeros(draws)  # the largest |d* - d| / s of each draw
    found: list[list[tuple[float, float, int, int]]] = []
    for contest in contests:
        figures = np.asarray(contest.figures, dtype=np.float64)
        if figures.ndim != 2 or figures.shape[1] == 0:
            raise EvaluationError(f"figures of shape {figures.shape}; give (tables, units), one unit at least")
        label = _labels(figures, contest.groups)
        size = np.bincount(label)
        total = np.stack([np.bincount(label, row).astype(np.float64) for row in figures])  # (tables, clusters)
        drawn = _resampled(total, size, draws, generator(seed, "bootstrap"))  # (draws, tables)
        mine = []
        for i, j in contest.pairs:
            mean = float(figures[i].mean() - figures[j].mean())
            away = drawn[:, i] - drawn[:, j] - mean
            spread = float(away.std(ddof=1))
            if spread > 1e-12 * np.abs(figures[[i, j]]).max():  # otherwise the difference is the same in every unit
                np.maximum(worst, np.abs(away) / spread, out=worst)
            mine.append((mean, spread, figures.shape[1], len(size)))
        found.append(mine)
    tail = norm.sf(np.quantile(worst, level))

    def made(mean: float, spread: float, units: int, clusters: int) -> Difference:
        if clusters == 1:
            return Difference(mean, -np.inf, np.inf, units, clusters, asked)
        few = clusters - 1
        half = float(student.isf(tail, few) * spread * np.sqrt(clusters / few)) if spread else 0.0
        return Difference(mean, mean - half, mean + half, units, clusters, asked)

    return [[made(*each) for each in mine] for mine in found]


def answers(truth: ArrayLike) -> NDArray[np.bool_]:
    """Which answers are right, bool.

    Raises
    ------
    EvaluationError : something else than 0 and 1, such as a missing answer.
    """
    try:
        given = np.asarray(truth, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # None, pandas' NA, text
        given = np.full(1, np.nan)
    if odd := given[(given != 0) & (given != 1)].tolist():
        raise EvaluationError(f"truth holds {odd[0]}, which is neither 0 nor 1; leave missing answers out")
    return given == 1


def check_draws(level: float, draws: int) -> None:
    """EvaluationError for intervals that there are none of."""
    if not 0 < level < 1:
        raise EvaluationError(f"level is {level}; give a share between 0 and 1, such as 0.95")
    if draws < 2:
        raise EvaluationError(f"draws is {draws}; give 2 at least")


def auc_units(truth: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.float64]:
    """One figure per cluster (a student) whose mean is the area under the ROC curve: float64 (clusters,), by label.

    With P and N right and wrong answers among n, V(i) is the share of the other kind against which answer i is ranked
    correctly (ties half). The area is A = mean of V over the right answers = mean over the wrong ones, and the
    influence of answer i on it is n/P (V(i) - A) or n/N (V(i) - A). A student's figure is A plus the influence of their
    answers, summed and divided by the mean number of answers per student. So :func:`paired_bootstrap` can resample
    students, who are independent, although an area is not a mean over students.

    Parameters
    ----------
    truth : 0 or 1 for each response; both must occur.
    scores : of the same responses; higher means right is likelier.
    groups : the student of each response; None: each is its own cluster.

    Raises
    ------
    EvaluationError : all responses are right, or all wrong.

    Examples
    --------
    >>> float(auc_units([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.5], groups=["a", "a", "b", "b"]).mean())
    0.75

    References
    ----------
    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44); Obuchowski 1997 (Biometrics 53), for clustered data.
    """
    from scipy.stats import rankdata

    right, score = answers(truth), np.asarray(scores, dtype=np.float64)
    n, p = len(right), int(right.sum())
    if p in (0, n):
        raise EvaluationError(f"all {n} responses are {'right' if p else 'wrong'}; there is no area under a curve")
    rank = rankdata(score)
    below = np.where(right, rank, n + 1 - rank)  # of all answers, itself included, ties half
    for kind in (right, ~right):
        own = rankdata(score[kind])
        below[kind] -= own if kind is right else kind.sum() + 1 - own
    share = below / np.where(right, n - p, p)  # (responses,)
    area = float(share[right].mean())
    return mean_units(area + (share - area) * n / np.where(right, p, n - p), groups)


def mean_units(figures: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.float64]:
    """One figure per cluster whose mean is the mean of ``figures``: float64 (clusters,), sorted labels.

    A cluster's figure is m + (Σ of its figures' differences from the mean m) / (mean size of a cluster): its
    contribution to a mean over responses when students have different numbers of responses.

    Examples
    --------
    >>> mean_units([1.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"]).tolist()
    [0.25, 0.75]
    """
    x = np.asarray(figures, dtype=np.float64)
    label = _labels(x, groups)
    away = np.bincount(label, x - x.mean())
    return x.mean() + away * len(away) / len(x)
