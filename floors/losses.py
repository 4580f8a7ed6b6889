"""A model's held-out loss and its floor: loss, floor, excess, standard error, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from qcq.errors import ChainError, ConfigError
from qcq.support.reproducible import reproducible

if TYPE_CHECKING:
    from qcq.floors.objectives import HeldOutBatch
    from qcq.models.trainer import Model, TrainingData

Verdict = Literal["at floor", "under-trained", "unigram trap", "overfitting", "diverged"]

# Shares of the way from the unigram loss down to the floor.
AT_FLOOR = 0.02  # still to go
RISE = 0.01  # above its own best
TRAP = 0.1  # done
LEAST = 0.005  # nats: a way so short that nothing is to be learnt on it


def clustered(values: NDArray[np.float64], walk: NDArray) -> tuple[float, float]:
    """Mean of per-item values and its standard error, with the items of one walk as a cluster.

    With S_w the sum and n_w the number of items of walk w, of W walks, and N = Σ n_w: mean m = Σ S_w / N, and
    se = sqrt( W/(W-1) Σ (S_w - n_w m)² ) / N. NaN for the error of a single walk.

    Examples
    --------
    >>> mean, se = clustered(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    >>> mean, round(se, 6)
    (2.0, 1.0)
    """
    _, which, n = np.unique(walk, return_inverse=True, return_counts=True)
    mean = float(values.mean())
    if not np.isfinite(mean) or len(n) < 2:
        return mean, float("nan")
    off = np.bincount(which, weights=values - mean)  # (walks,)
    return mean, float(np.sqrt(len(n) / (len(n) - 1) * (off**2).sum()) / len(values))


def verdict(
    loss: float, floor: float, unigram: float, blank: float, se: float = 0.0, history: Sequence[float] = ()
) -> Verdict:
    """The state of training in one word.

    The *way* is unigram - floor: for an objective that predicts a token it is the mutual information of the token and
    its context, all that can be learnt. Thresholds are shares of it, so that they mean the same for a floor of 0.4 nat
    (skip-gram) and of 5.6 nats (a masked model). The first rule that fits decides:

    1. ``diverged``: the loss is NaN or infinite, or over 1 nat above that of a blank answer, without ever having been
       better than the blank answer.
    2. ``at floor``: loss - floor is at most 2 % of the way, or 3 of its standard errors if those are more.
    3. ``overfitting``: the loss is over 1 % of the way (and 3 standard errors) above its own best earlier measurement.
    4. ``unigram trap``: less than a tenth of the way is done: the model knows how frequent questions are and nothing of
       their order. (A loss over 5 % above the unigram loss is no trap: it is still approaching it.)
    5. ``under-trained``: anything else. There is something left to learn.

    Parameters
    ----------
    loss, floor, unigram, blank : nats per item on the same items; ``unigram`` of the best answer without context,
        ``blank`` of the uniform answer.
    se : standard error of loss - floor.
    history : earlier held-out losses on the same batch, oldest first.

    Examples
    --------
    >>> verdict(5.6, 5.57, 9.6, 9.78), verdict(9.55, 5.57, 9.6, 9.78), verdict(7.0, 5.57, 9.6, 9.78)
    ('at floor', 'unigram trap', 'under-trained')
    >>> verdict(7.0, 5.57, 9.6, 9.78, history=[8.0, 6.5]), verdict(float("nan"), 5.57, 9.6, 9.78)
    ('overfitting', 'diverged')
    """
    se = se if np.isfinite(se) else 0.0
    best = min(history, default=np.inf)
    if not np.isfinite(loss) or (loss > blank + 1.0 and best > blank):
        return "diverged"
    way = max(unigram - floor, 0.0)
    if loss - floor <= max(AT_FLOOR * way, LEAST, 3 * se):
        return "at floor"
    if loss - best > max(RISE * way, LEAST, 3 * se):
        return "overfitting"
    if (1 - TRAP) * way <= loss - floor <= unigram - floor + 0.05 * unigram:
        return "unigram trap"
    return "under-trained"


def share_left(excess: float | None, floor: float | None, unigram: float) -> float | None:
    """excess / (unigram - floor); None without a floor, or where there is nothing to learn.

    Examples
    --------
    >>> share_left(0.5, 5.0, 10.0), share_left(0.0, 5.0, 5.0)
    (0.1, None)
    """
    if excess is None or floor is None or unigram - floor <= LEAST:
        return None
    return excess / (unigram - floor)


@dataclass(frozen=True)
class LossReport:
    """A model's held-out loss, compared with its floor.

    Attributes
    ----------
    objective : name of what was predicted.
    items : number of predictions.
    loss : nats per item.
    floor : the oracle's nats per item on the same items, or None if there is no exact floor.
    excess : loss - floor, paired item by item, or None.
    se : standard error of the excess (of the loss if there is no floor), items clustered by walk.
    unigram : nats per item of the best answer without context.
    verdict : see :func:`verdict`; None without a floor.
    why : why there is no floor, in one line; "" if there is one.
    """

    objective: str
    items: int
    loss: float
    floor: float | None
    excess: float | None
    se: float
    unigram: float
    verdict: Verdict | None
    why: str = ""

    @property
    def left(self) -> float | None:
        """The share of the way from the unigram loss to the floor that is still to go: excess / (unigram - floor)."""
        return share_left(self.excess, self.floor, self.unigram)

    @property
    def figures(self) -> dict[str, float | str]:
        """For a progress line: loss, floor, excess, verdict; those that exist."""
        named = {"loss": self.loss, "floor": self.floor, "excess": self.excess, "verdict": self.verdict}
        return {key: value for key, value in named.items() if value is not None}


class HeldOutLoss:
    """A held-out batch with its floor computed once, so that a training loop can measure its loss many times.

    Parameters
    ----------
    source : gives the exact chain of the walk; its corpus gives token shares if there is no chain.
    batch : what is predicted.

    Attributes
    ----------
    batch : the same.
    floor : float64 (items,), or None if there is no exact floor; ``why`` says why.
    """

    def __init__(self, source: TrainingData, batch: HeldOutBatch) -> None:
        self.batch = batch
        self.floor: NDArray[np.float64] | None = None
        self.why = ""
        try:
            chain = source.chain
            self.floor = batch.objective.floor(chain, batch)
            share = np.zeros(max(chain.n_tokens, int(batch.n_questions + batch.n_concepts)))
            share[: chain.n_tokens] = chain.unigram
        except ChainError as error:
            self.why = str(error)
            share = np.zeros(batch.n_questions + batch.n_concepts)
            kept = batch.tokens.max() >= batch.n_questions
            share[: None if kept else batch.n_questions] = 1.0  # one added to each, so that no token is impossible
            for shard in source.corpus.shards:
                share += np.bincount(shard[shard >= 0], minlength=len(share))
            share /= share.sum()
        self.unigram = float(batch.objective.unigram(batch, share).mean())
        self.blank = batch.objective.blank(batch)

    def report(self, losses: NDArray[np.float64], history: Sequence[float] = ()) -> LossReport:
        """Compare a model's losses, float64 (items,) on this batch, with the floor.

        ``history``: losses measured during training on one held-out batch, the last one at the end of training. That
        batch may be another, easier or harder one, so only the differences inside ``history`` count.

        Raises
        ------
        ConfigError : not one loss per item.
        """
        name = self.batch.objective.name
        losses = np.asarray(losses, dtype=np.float64)
        if losses.shape != (len(self.batch),):
            raise ConfigError(f"{losses.shape} losses for {len(self.batch)} items of the batch {name!r}")
        if self.floor is None:
            loss, se = clustered(losses, self.batch.walk)
            return LossReport(name, len(losses), loss, None, None, se, self.unigram, None, self.why)
        loss, floor = float(losses.mean()), float(self.floor.mean())
        excess, se = clustered(losses - self.floor, self.batch.walk)
        shifted = [earlier + loss - history[-1] for earlier in history]
        word = verdict(loss, floor, self.unigram, self.blank, se, shifted)
        return LossReport(name, len(losses), loss, floor, excess, se, self.unigram, word)


@reproducible()
def measure(model: Model, source: TrainingData, seed: int = 0, history: Sequence[float] = ()) -> LossReport:
    """A trained model's held-out loss against its floor, on ``source.heldout``.

    Parameters
    ----------
    model : anything with an ``objective``.
    source : its training data.
    seed : of the batch.
    history : held-out losses measured during training, oldest first (:meth:`HeldOutLoss.report`).

    Raises
    ------
    ConfigError : the model has no likelihood, so there is no loss to measure.
    """
    if model.objective is None:
        raise ConfigError(f"{type(model).__name__} has no held-out loss")
    held = HeldOutLoss(source, model.objective.held_out_batch(source.heldout, seed))
    return held.report(model.losses(held.batch), history)
