"""Who is better, and could it be chance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qcq.errors import EvaluationError
from qcq.seeds import generator

_BLOCK = 1 << 22  # drawn indices held at once


@dataclass(frozen=True)
class Difference:
    """A mean difference of paired figures, ours minus theirs, and its interval.

    Attributes
    ----------
    mean, low, high : the difference and the ends of its interval.
    units, clusters : how many pairs, in how many independent clusters.
    """

    mean: float
    low: float
    high: float
    units: int
    clusters: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    ours: ArrayLike,
    theirs: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Difference:
    """The mean of ``ours - theirs`` with a percentile bootstrap interval; whole groups are drawn where given.

    Parameters
    ----------
    ours, theirs : the figures of the same units in the same order, (units,).
    groups : label of each unit's cluster, (units,). Units that aren't independent (one question under several seeds,
        items of one walk) belong to one cluster. None: every unit is its own.
    level : of the interval.
    draws : bootstrap samples.
    seed : which ones.

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
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise EvaluationError(f"paired figures of shapes {a.shape} and {b.shape}; give two equally long lists")
    difference = a - b
    if not np.isfinite(difference).all():
        raise EvaluationError(f"figure {int(np.flatnonzero(~np.isfinite(difference))[0])} of the pairs isn't finite")
    label = np.arange(len(a)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if label.shape != a.shape:
        raise EvaluationError(f"{len(label)} group labels for {len(a)} pairs; give one each")
    total, size = np.bincount(label, difference), np.bincount(label)
    rng = generator(seed, "bootstrap")
    step = max(1, _BLOCK // len(total))
    means = []
    for at in range(0, draws, step):
        drawn = rng.integers(0, len(total), (min(step, draws - at), len(total)))  # (draws, clusters)
        means.append(total[drawn].sum(axis=1) / size[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Difference(float(difference.mean()), float(low), float(high), len(a), len(total))
