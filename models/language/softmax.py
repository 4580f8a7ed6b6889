"""Losses over a large vocabulary: the full softmax, a sampled one whose cost doesn't grow with it, and two that only
distinguish the right token from noise. All of them give probabilities that sum to 1 (``log_shares``), so their held-out
losses are on one scale and have the same floor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcq.support.seeds import generator

if TYPE_CHECKING:
    from qcq.models.language.trainers import LanguageTrainer
    from qcq.models.language.training import SparseTable


class Loss(ABC):
    """A training loss, and the probabilities that its scores mean."""

    @classmethod
    def planned(cls, plan: LanguageTrainer, counts: NDArray[np.int64], seed: int) -> Loss:
        """The loss with a trainer's settings, for tokens that occur ``counts`` times: int64 (V,)."""
        return cls(counts, plan.negatives, plan.proposal, seed)  # type: ignore[call-arg]

    @abstractmethod
    def __call__(self, h: Tensor, targets: Tensor, output: SparseTable, bias: SparseTable, step: int) -> Tensor:
        """Mean nats per prediction; ``h`` (N, D), ``targets`` int64 (N,)."""

    def start(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """The bias (V,) that predicts ``share`` (V,) for everything."""
        return np.log(share)

    def log_shares(self, scores: Tensor) -> Tensor:
        """Logits (N, V) whose softmax is the probability that ``scores`` (N, V) mean for each token."""
        return scores


class Full(Loss):
    """-log softmax(W h + b)[target] over the whole vocabulary, computed for predicted positions only."""

    def __init__(self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0) -> None:
        pass

    def __call__(self, h: Tensor, targets: Tensor, output: SparseTable, bias: SparseTable, step: int) -> Tensor:
        """Mean nats per prediction; ``h`` (N, D), ``targets`` int64 (N,)."""
        return F.cross_entropy(h @ output.rows().T + bias.rows()[:, 0], targets)  # (N, V)


class Sampled(Loss):
    """Softmax over the target and a set of negatives shared by the batch (Jean et al. 2015; Bengio & Senécal 2008).

    The set S has token v with probability pi(v) = min(1, negatives · q(v)), q being the proposal. Scores are
    corrected by -log pi, so that the scores which minimise the loss are those of the full softmax for any q; a negative
    that is also the target is masked. With S the whole vocabulary this *is* the full softmax.

    S is a systematic sample. The tokens are in random order on a line, each with a length of its q, and ``negatives``
    equally spaced points are put on the line. The points move from step to step; when they have covered the line, a new
    order is drawn. So each token occurs about once per round, where with independent draws some would occur three times
    and some never: the same mean, and less noise in the tables (docs/decisions/0402).

    Parameters
    ----------
    counts : int64 (V,), how often each token occurs in the corpus.
    negatives : points per batch.
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
        if at != self.round:  # a pass over the vocabulary, but so rarely that its cost per step is constant
            rng = generator(self.seed, "negatives", at)
            self.round, self.order, self.shift = at, rng.permutation(len(self.q)), rng.random()
            self.upto = np.cumsum(self.q[self.order])[:-1]
        points = (np.arange(self.negatives) + (turn + self.shift) / self.round_steps) / self.negatives
        return np.unique(self.order[np.searchsorted(self.upto, points, side="right")])

    def __call__(self, h: Tensor, targets: Tensor, output: SparseTable, bias: SparseTable, step: int) -> Tensor:
        """Mean nats per prediction, on the scale of a choice among S and the target."""
        ids, drawn, *parts = self.gathered(targets, output, bias, step)
        rows, scores, places = parts[:2], parts[2:4], parts[4:]
        correction = self.log_inclusion = self.log_inclusion.to(h.device)  # moved once
        offsets = scores[0] - correction[ids], scores[1] - correction[drawn]  # (T,), (S,)
        return cast(Tensor, _SharedSoftmax.apply(h, *rows, *offsets, *places))  # type: ignore[no-untyped-call]

    def gathered(self, targets: Tensor, output: SparseTable, bias: SparseTable, step: int) -> tuple[Tensor, ...]:
        """Distinct targets (T,), negatives (S,), their output rows (T, D) and (S, D) and biases (T,) and (S,); the
        index of each target among the distinct ones (N,) and among the negatives (N,), and if it is there (N,)."""
        drawn = torch.from_numpy(self.draw(step)).to(targets.device)  # (S,)
        ids, where = torch.unique(targets, return_inverse=True)
        rows = output.rows(ids), output.rows(drawn)  # (T, D), (S, D); a token may be in both
        biases = bias.rows(ids)[:, 0], bias.rows(drawn)[:, 0]  # (T,), (S,)
        # The index of a target among the sorted negatives, if it is one.
        at = torch.searchsorted(drawn, targets).clamp_(max=len(drawn) - 1)
        return ids, drawn, *rows, *biases, where, at, drawn[at] == targets


class Binary(Sampled):
    """Distinguishes the right token from noise, each token by itself:

        -β log σ(s(target)) - Σ_v w_v log σ(-s(v)), v over the drawn set without the target.

    With m_v = w_v pi(v), the expected weight of v as a negative, the loss is least if the odds of v are
    β p_v / (m_v (1 - p_v)), so a trained score means p_v = σ(s(v) + log(m_v / β)). ``log_shares`` gives these
    probabilities, normalised to sum to 1: held-out losses are cross-entropies as for all other losses. (For small p
    this is the familiar p ∝ e^s m.)

    Attributes
    ----------
    weight : float32 (V,), w.
    positive : β.
    offset : float32 (V,), log(m / β).
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        negatives: int,
        proposal: str,
        seed: int,
        weight: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
        positive: Callable[[NDArray[np.float64]], float],
    ) -> None:
        super().__init__(counts, negatives, proposal, seed)
        inclusion = np.minimum(1.0, negatives * self.q)  # pi
        w = weight(self.q, inclusion)
        self.weight, self.positive = torch.from_numpy(w).float(), positive(inclusion)
        self.offset = torch.from_numpy(np.log(w * inclusion / self.positive)).float()

    def __call__(self, h: Tensor, targets: Tensor, output: SparseTable, bias: SparseTable, step: int) -> Tensor:
        """Mean nats per prediction, on the scale of all the binary choices together."""
        _, drawn, *parts = self.gathered(targets, output, bias, step)
        self.weight = self.weight.to(h)  # moved once
        return cast(Tensor, _SharedBinary.apply(h, *parts, self.weight[drawn], self.positive))  # type: ignore[no-untyped-call]

    def start(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(share) - np.log1p(-np.minimum(share, 1 - 1e-9)) - self.offset.double().cpu().numpy()

    def log_shares(self, scores: Tensor) -> Tensor:
        self.offset = self.offset.to(scores)
        return F.logsigmoid(scores + self.offset)


class NegativeSampling(Binary):
    """Skip-gram's own loss (Mikolov et al. 2013, eq. 4): β = 1, and m_v = k q(v), so that a prediction has ``k``
    negatives in expectation. They are spread over the whole drawn set, w_v = k q(v) / pi(v): less noise, same mean.

    A negative that is also the target is left out, as in word2vec's code.
    """

    def __init__(self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0, k: int = 5) -> None:
        super().__init__(counts, negatives, proposal, seed, lambda q, inclusion: k * q / inclusion, lambda _: 1.0)

    @classmethod
    def planned(cls, plan: LanguageTrainer, counts: NDArray[np.int64], seed: int) -> Loss:
        return cls(counts, plan.negatives, plan.proposal, seed, plan.ns_k)


class GBCE(Binary):
    """gBCE, binary cross-entropy with damped positives (Petrov & Macdonald 2023, gSASRec, section 5): w = 1 and
    β = 1 - t (1 - α), with α the share of the vocabulary that is drawn.

    With t = 1 and a uniform proposal, σ(s) itself is p; with t = 0 it is plain binary cross-entropy, which is
    overconfident. In the original, negatives are uniform.
    """

    def __init__(
        self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0, t: float = 0.75
    ) -> None:
        super().__init__(
            counts,
            negatives,
            proposal,
            seed,
            lambda q, inclusion: np.ones_like(q),
            lambda inclusion: 1.0 - t * (1.0 - float(inclusion.mean())),
        )

    @classmethod
    def planned(cls, plan: LanguageTrainer, counts: NDArray[np.int64], seed: int) -> Loss:
        return cls(counts, plan.negatives, plan.proposal, seed, plan.gbce_t)


class _SharedSoftmax(torch.autograd.Function):
    """log(e^right + sum e^wrong) - right, averaged. The gradient comes from the forward pass, with the (N, S) scores
    exponentiated in place: a third of the time of separate operations."""

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


class _SharedBinary(torch.autograd.Function):
    """β softplus(-right) + Σ w softplus(wrong), averaged; the gradient is computed in the forward pass, as above."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, t: Tensor, s: Tensor, b_t: Tensor, b_s: Tensor, where: Tensor, at: Tensor, met: Tensor,
        weight: Tensor, positive: float,
    ) -> Tensor:  # fmt: skip
        w = F.embedding(where, t)  # (N, D), the target's row
        right = (h * w).sum(-1) + b_t[where]  # (N,)
        wrong = torch.addmm(b_s, h, s.T)  # (N, S)
        hits = met.nonzero()[:, 0]
        wrong[hits, at[hits]] = -torch.inf
        loss = (positive * F.softplus(-right) + F.softplus(wrong) @ weight).mean()
        up = torch.sigmoid(-right)[:, None] * (-positive / len(h))  # (N, 1), d loss / d right
        wrong.sigmoid_()
        s_weight = weight / len(h)  # (S,), folded into the narrow factors: no pass over the wide one
        ctx.save_for_backward(
            up * w + wrong @ (s * s_weight[:, None]),  # (N, D)
            torch.zeros_like(t).index_add_(0, where, up * h),  # (T, D)
            (wrong.T @ h) * s_weight[:, None],  # (S, D)
            torch.zeros_like(b_t).index_add_(0, where, up[:, 0]),  # (T,)
            wrong.sum(0) * s_weight,  # (S,)
        )
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(g * grad for g in ctx.saved_tensors), None, None, None, None, None


def unigram(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise in proportion to count^0.75; a token that never occurs counts 1/2, so that its probability isn't zero."""
    q = np.maximum(counts, 0.5) ** 0.75
    return q / q.sum()


def log_uniform(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Noise log((r + 2) / (r + 1)) / log(V + 1) for the token of rank r by count, ties in index order."""
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.log1p(1 / (rank + 1.0)) / np.log(len(counts) + 1.0)


def uniform(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform noise."""
    return np.full(len(counts), 1.0 / len(counts))


PROPOSALS = {"unigram": unigram, "log-uniform": log_uniform, "uniform": uniform}

LOSSES: Mapping[str, type[Loss]] = {
    "full": Full,
    "sampled": Sampled,
    "negative-sampling": NegativeSampling,
    "gbce": GBCE,
}
