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

from qcq.models.kernels import language as kernels
from qcq.models.language.memory import SCRATCH
from qcq.support.seeds import generator

if TYPE_CHECKING:
    from qcq.models.language.tables import Table
    from qcq.models.language.trainers import LanguageTrainer

_AT_ONCE = 2**26  # scores of the full softmax that are held at a time
_WHOLE = 2**29  # scores of a step up to which a device takes the full softmax for a sampled one


class Loss(ABC):
    """A training loss, and the probabilities that its scores mean.

    Attributes
    ----------
    narrow : the type in which products of states and tables may be computed where a loss allows it; None for their own.
    """

    narrow: torch.dtype | None = None

    @classmethod
    def planned(cls, plan: LanguageTrainer, counts: NDArray[np.int64], seed: int) -> Loss:
        """The loss with a trainer's settings, for tokens that occur ``counts`` times: int64 (V,)."""
        return cls(counts, plan.negatives, plan.proposal, seed)  # type: ignore[call-arg]

    @abstractmethod
    def __call__(
        self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int, share: Tensor | None = None
    ) -> Tensor:
        """Mean nats per prediction.

        Parameters
        ----------
        h, targets : (N, D), int64 (N,).
        share : (N,), how much each prediction counts; they sum to 1. None counts all alike.
        """

    def start(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """The bias (V,) that predicts ``share`` (V,) for everything."""
        return np.log(share)

    def log_shares(self, scores: Tensor) -> Tensor:
        """Logits (N, V) whose softmax is the probability that ``scores`` (N, V) mean for each token."""
        return scores


class Full(Loss):
    """-log softmax(W h + b)[target] over the whole vocabulary, computed for predicted positions only, in pieces."""

    def __init__(self, counts: NDArray[np.int64], negatives: int, proposal: str, seed: int = 0) -> None:
        pass

    def __call__(
        self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int, share: Tensor | None = None
    ) -> Tensor:
        """Mean nats per prediction; ``h`` (N, D), ``targets`` int64 (N,)."""
        weight, offset = (table.weight.detach() for table in (output, bias))
        return cast(Tensor, _FullSoftmax.apply(h, weight, offset, output, bias, targets, share, self.narrow))  # type: ignore[no-untyped-call]


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
        self.held: tuple[Tensor, Tensor] | None = None

    def draw(self, step: int) -> NDArray[np.int64]:
        """The set S of a step, ascending."""
        at, turn = divmod(step, self.round_steps)
        if at != self.round:  # a pass over the vocabulary, but so rarely that its cost per step is constant
            rng = generator(self.seed, "negatives", at)
            self.round, self.order, self.shift = at, rng.permutation(len(self.q)), rng.random()
            self.upto = np.cumsum(self.q[self.order])[:-1]
        points = (np.arange(self.negatives) + (turn + self.shift) / self.round_steps) / self.negatives
        return np.unique(self.order[np.searchsorted(self.upto, points, side="right")])

    def __call__(
        self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int, share: Tensor | None = None
    ) -> Tensor:
        """Mean nats per prediction, on the scale of a choice among S and the target."""
        drawn, spare = self.negatives_of(step, h.device)
        correction = self.log_inclusion = self.log_inclusion.to(h.device)  # moved once
        offsets = -correction[targets], spare - correction[drawn]  # (N,), (S,)
        return cast(
            Tensor,
            _SharedSoftmax.apply(h, output, bias, targets, drawn, *offsets, share),  # type: ignore[no-untyped-call]
        )

    def negatives_of(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The set S of a step, int64 (S,), and what is added to its scores: 0, or -inf for one that only fills up."""
        if self.held is not None:
            return self.held
        drawn = torch.from_numpy(self.draw(step)).to(device)
        return drawn, torch.zeros(len(drawn), device=device)

    def hold(self, step: int, device: torch.device) -> None:
        """Draw the set of a step into buffers of a fixed size, from which every call reads until the next ``hold``."""
        most = min(self.negatives, len(self.q))
        if self.held is None:
            self.held = torch.zeros(most, dtype=torch.int64, device=device), torch.zeros(most, device=device)
        ids = self.draw(step)
        drawn = np.concatenate([ids, np.repeat(ids[-1:], most - len(ids))])  # stays ascending
        spare = np.where(np.arange(most) < len(ids), 0.0, -np.inf).astype(np.float32)
        for to, made in zip(self.held, (drawn, spare), strict=True):
            to.copy_(torch.from_numpy(made))


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

    def __call__(
        self, h: Tensor, targets: Tensor, output: Table, bias: Table, step: int, share: Tensor | None = None
    ) -> Tensor:
        """Mean nats per prediction, on the scale of all the binary choices together."""
        drawn, spare = self.negatives_of(step, h.device)
        self.weight = self.weight.to(h)  # moved once
        weight = torch.where(spare == 0, self.weight[drawn], 0.0)
        return cast(
            Tensor,
            _SharedBinary.apply(h, output, bias, targets, drawn, weight, self.positive, share),  # type: ignore[no-untyped-call]
        )

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


def _exponentials(scores: Tensor, top: Tensor) -> Tensor:
    """``scores`` (N, S) become e^(score - top), in place; their sums (N,)."""
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        return scores.sub_(top[:, None]).exp_().sum(1)
    total = torch.empty_like(top)
    kernels.exponentiate(scores.numpy(), top.numpy(), total.numpy())
    return total


def _met(wrong: Tensor, targets: Tensor, drawn: Tensor) -> None:
    """-inf for a negative that is the target itself; ``drawn`` is ascending."""
    at = torch.searchsorted(drawn, targets).clamp_(max=len(drawn) - 1)[:, None]  # (N, 1)
    wrong.scatter_(1, at, torch.where(drawn[at] == targets[:, None], -torch.inf, wrong.gather(1, at)))


class _SharedSoftmax(torch.autograd.Function):
    """log(e^right + sum e^wrong) - right, averaged. The gradient comes from the forward pass, with the (N, S) scores
    exponentiated in place: a third of the time of separate operations. Rows get theirs straight into their tables."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # torch's autocast stays outside
    def forward(
        ctx: Any, h: Tensor, output: Table, bias: Table, targets: Tensor, drawn: Tensor, right: Tensor, wrong: Tensor,
        share: Tensor | None,
    ) -> Tensor:  # fmt: skip
        w, s = output.read(targets), output.read(drawn)  # (N, D), (S, D)
        right = (h * w).sum(-1) + bias.read(targets)[:, 0] + right  # (N,)
        wrong = torch.addmm(
            bias.read(drawn)[:, 0] + wrong, h, s.T, out=(room := SCRATCH.take(h, len(h), len(drawn)))
        )  # (N, S)
        _met(wrong, targets, drawn)
        top = torch.maximum(wrong.amax(1), right)  # (N,)
        own = (right - top).exp()  # (N,)
        total = own + _exponentials(wrong, top)  # (N,)
        part = torch.full_like(total, 1 / len(h)) if share is None else share
        each = part / total  # (N,), folded into the narrow factors: no pass over the wide one
        miss = (own * each - part)[:, None]  # (N, 1), d loss / d right
        ctx.output, ctx.bias, ctx.targets, ctx.drawn = output, bias, targets, drawn
        ctx.slopes = (
            torch.addcmul(miss * w, wrong @ s, each[:, None]),  # (N, D)
            miss * h,  # (N, D)
            wrong.T @ (h * each[:, None]),  # (S, D)
            miss,  # (N, 1)
            (wrong.T @ each)[:, None],  # (S, 1)
        )
        SCRATCH.give(room)
        return ((top + total.log() - right) * part).sum()

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _given(ctx, grad), None, None, None, None, None, None, None


def _given(ctx: Any, grad: Tensor) -> Tensor:
    """Puts the slopes of a shared loss into its tables; returns that of the states."""
    states, right, wrong, right_bias, wrong_bias = (slope * grad for slope in ctx.slopes)
    ctx.output.add(ctx.drawn, wrong)
    ctx.output.add(ctx.targets, right)
    ctx.bias.add(ctx.drawn, wrong_bias)
    ctx.bias.add(ctx.targets, right_bias)
    return cast(Tensor, states)


class _SharedBinary(torch.autograd.Function):
    """β softplus(-right) + Σ w softplus(wrong), averaged; the gradient is computed in the forward pass, as above."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # torch's autocast stays outside
    def forward(
        ctx: Any, h: Tensor, output: Table, bias: Table, targets: Tensor, drawn: Tensor, weight: Tensor,
        positive: float, share: Tensor | None,
    ) -> Tensor:  # fmt: skip
        w, s = output.read(targets), output.read(drawn)  # (N, D), (S, D)
        right = (h * w).sum(-1) + bias.read(targets)[:, 0]  # (N,)
        wrong = torch.addmm(bias.read(drawn)[:, 0], h, s.T, out=(room := SCRATCH.take(h, len(h), len(drawn))))  # (N, S)
        _met(wrong, targets, drawn)
        part = torch.full_like(right, 1 / len(h)) if share is None else share
        loss = ((positive * F.softplus(-right) + F.softplus(wrong) @ weight) * part).sum()
        up = (torch.sigmoid(-right) * (-positive * part))[:, None]  # (N, 1), d loss / d right
        wrong.sigmoid_()
        ctx.output, ctx.bias, ctx.targets, ctx.drawn = output, bias, targets, drawn
        ctx.slopes = (
            up * w + (wrong @ (s * weight[:, None])) * part[:, None],  # (N, D)
            up * h,  # (N, D)
            (wrong.T @ (h * part[:, None])) * weight[:, None],  # (S, D)
            up,  # (N, 1)
            ((wrong.T @ part) * weight)[:, None],  # (S, 1)
        )
        SCRATCH.give(room)
        return loss

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _given(ctx, grad), None, None, None, None, None, None, None


class _FullSoftmax(torch.autograd.Function):
    """The full softmax in pieces of a few predictions, with its gradient from the forward pass."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # torch's autocast stays outside
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, offset: Tensor, output: Table, bias: Table, targets: Tensor,
        share: Tensor | None, kind: torch.dtype | None,
    ) -> Tensor:  # fmt: skip
        kind = kind or h.dtype
        table = weight.to(kind).contiguous()  # (V, D)
        part = h.new_full((len(h),), 1 / len(h)) if share is None else share
        slope, d_table, d_offset = torch.empty_like(h), torch.zeros_like(table, dtype=h.dtype), torch.zeros_like(offset)
        loss = h.new_zeros(())
        most = max(1, _AT_ONCE // len(table))
        for i in range(0, len(h), most):
            at, right, own = h[i : i + most].to(kind), targets[i : i + most, None], part[i : i + most]
            scores = (at @ table.T).to(h.dtype).add_(offset[:, 0])  # (n, V)
            log_total = torch.logsumexp(scores, 1, keepdim=True)  # (n, 1)
            loss = loss + ((log_total - scores.gather(1, right))[:, 0] * own).sum()
            shares = scores.sub_(log_total).exp_()
            shares.scatter_add_(1, right, -torch.ones_like(own)[:, None])
            shares.mul_(own[:, None])  # (n, V), d loss / d scores
            d_offset += shares.sum(0)[:, None]
            shares = shares.to(kind)
            slope[i : i + most] = shares @ table
            d_table += shares.T @ at
        ctx.output, ctx.bias, ctx.slopes = output, bias, (slope, d_table, d_offset)
        return loss

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, table, offset = (slope * grad for slope in ctx.slopes)
        ctx.output.add_all(table)
        ctx.bias.add_all(offset)
        return states, None, None, None, None, None, None, None


def fits_whole(predictions: int, tokens: int) -> bool:
    """Whether a device can score all tokens for every prediction of a step in reasonable time and memory."""
    return predictions * tokens <= _WHOLE


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
