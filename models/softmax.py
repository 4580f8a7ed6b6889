"""Losses over a large vocabulary: the full softmax, and a sampled one whose cost doesn't grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcq.seeds import generator

if TYPE_CHECKING:
    from qcq.models.training import Table


class Full:
    """-log softmax(W h + b)[target] over the whole vocabulary; only predicted positions pay for it."""

    def __init__(self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0) -> None:
        pass

    def __call__(self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int) -> Tensor:
        """Mean nats a prediction; ``h`` (N, D), ``targets`` int64 (N,)."""
        return F.cross_entropy(h @ output.rows().T + bias.rows()[:, 0], targets)  # (N, V)


class Sampled:
    """Softmax over the target and a set of negatives shared by the batch (Jean et al. 2015; Bengio & Senécal 2008).

    The set S holds token v with probability pi(v) = min(1, negatives · q(v)), q being the proposal. Scores are
    corrected by -log pi, so that the scores which minimise the loss are those of the full softmax whatever q is; a
    negative that happens to be the target is masked. With S the whole vocabulary this *is* the full softmax.

    S is a systematic sample: the tokens lie in random order on a line, each as long as its q, and ``negatives`` equally
    spaced points are laid on it. From step to step the points move on, and when they have covered the line a new order
    is drawn. So each token comes about once a round, where independent draws would have some come thrice and some not
    at all: the same mean, and less noise in the tables (docs/decisions/0402).

    Parameters
    ----------
    counts : int64 (V,), how often each token stands in the corpus.
    negatives : points a batch.
    proposal : "unigram" is count^0.75 (Mikolov et al. 2013), "log-uniform" is Zipf's law over ranks by count.
    seed : of the orders.
    """

    def __init__(self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0) -> None:
        self.negatives, self.seed = negatives, seed
        self.q = PROPOSALS[proposal](counts)
        self.log_inclusion = torch.from_numpy(np.log(np.minimum(1.0, negatives * self.q))).float()
        self.round_steps = -(-len(counts) // negatives)
        self.round = -1

    def draw(self, step: int) -> NDArray[np.int64]:
        """The set S of a step, ascending."""
        at, turn = divmod(step, self.round_steps)
        if at != self.round:  # a pass over the vocabulary, but once in so many steps that a step's share is constant
            rng = generator(self.seed, "negatives", at)
            self.round, self.order, self.shift = at, rng.permutation(len(self.q)), rng.random()
            self.upto = np.cumsum(self.q[self.order])[:-1]
        points = (np.arange(self.negatives) + (turn + self.shift) / self.round_steps) / self.negatives
        return np.unique(self.order[np.searchsorted(self.upto, points, side="right")])

    def __call__(self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int) -> Tensor:
        """Mean nats a prediction, on the scale of a choice among S and the target."""
        drawn = torch.from_numpy(self.draw(step)).to(targets.device)  # (S,)
        ids, where = torch.unique(targets, return_inverse=True)
        rows = output.rows(ids), output.rows(drawn)  # (T, D), (S, D); a token may be in both
        correction = self.log_inclusion = self.log_inclusion.to(h.device)  # moved once
        offsets = bias.rows(ids)[:, 0] - correction[ids], bias.rows(drawn)[:, 0] - correction[drawn]  # (T,), (S,)
        # Where a target stands among the sorted negatives, if it does.
        at = torch.searchsorted(drawn, targets).clamp_(max=len(drawn) - 1)
        met = drawn[at] == targets
        return cast(Tensor, _SharedSoftmax.apply(h, *rows, *offsets, where, at, met))  # type: ignore[no-untyped-call]


class _SharedSoftmax(torch.autograd.Function):
    """log(e^right + sum e^wrong) - right, averaged. The gradient is made on the way forward, with the (N, S) scores
    exponentiated in place: a third of the time of the same in separate operations."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, t: Tensor, s: Tensor, b_t: Tensor, b_s: Tensor, where: Tensor, at: Tensor, met: Tensor
    ) -> Tensor:
        w = F.embedding(where, t)  # (N, D), the target's row
        right = (h * w).sum(-1) + b_t[where]  # (N,)
        wrong = torch.addmm(b_s, h, s.T)  # (N, S)
        hits = met.nonzero()[:, 0]
        wrong[hits, at[hits]] = -torch.inf
        top = torch.maximum(wrong.amax(1), right)  # (N,)
        wrong.sub_(top[:, None]).exp_()
        own = (right - top).exp()  # (N,)
        total = own + wrong.sum(1)  # (N,)
        loss = (top + total.log() - right).mean()
        share = 1 / (total * len(h))  # (N,), folded into the narrow factors: no pass over the wide one
        miss = (own * share - 1 / len(h))[:, None]  # (N, 1), d loss / d right
        ctx.save_for_backward(
            torch.addcmul(miss * w, wrong @ s, share[:, None]),  # (N, D)
            torch.zeros_like(t).index_add_(0, where, miss * h),  # (T, D)
            wrong.T @ (h * share[:, None]),  # (S, D)
            torch.zeros_like(b_t).index_add_(0, where, miss[:, 0]),  # (T,)
            wrong.T @ share,  # (S,)
        )
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(g * grad for g in ctx.saved_tensors), None, None, None


def unigram(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise in proportion to count^0.75; a token that never occurs counts half, so that its probability isn't zero."""
    q = np.maximum(counts, 0.5) ** 0.75
    return q / q.sum()


def log_uniform(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise log((r + 2) / (r + 1)) / log(V + 1) for the token of rank r by count, ties in index order."""
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.log1p(1 / (rank + 1.0)) / np.log(len(counts) + 1.0)


PROPOSALS = {"unigram": unigram, "log-uniform": log_uniform}

LOSSES: Mapping[str, type[Full] | type[Sampled]] = {"full": Full, "sampled": Sampled}
