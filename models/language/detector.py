"""ELECTRA's two networks on one table of token vectors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qcq.models.language.training import Exercise, Learner, TrainingBatch
from qcq.models.language.transformer import Bidirectional
from qcq.support.seeds import derive


class Detector(Bidirectional):
    """BERT's encoder as discriminator, and a narrow encoder as generator of replaced tokens.

    The generator reads the same token vectors, mapped to a quarter of their width. Its states are mapped back by a
    second map and scored with the output table; the second map starts as the transpose of the first.
    """

    def __init__(self, *, dim: int, heads: int, layers: int, **sizes: object) -> None:
        super().__init__(dim=dim, heads=heads, layers=layers, **sizes)
        self.judge = nn.Linear(dim, 1)
        width = max(1, dim // 4)
        self.down, self.up = nn.Linear(dim, width, bias=False), nn.Linear(width, dim, bias=False)
        nn.init.orthogonal_(self.down.weight)
        with torch.no_grad():
            self.up.weight.copy_(self.down.weight.T)
        self.generator = Bidirectional(dim=width, heads=1, layers=1, **sizes)

    def guesses(self, tokens: Tensor, hidden: Tensor, real: Tensor, types: Tensor | None, asked: Tensor) -> Tensor:
        """The states from which the generator predicts the tokens at ``asked``: (asked, D)."""
        return self.up(self.generator.answers(self.down(tokens), hidden, real, types, asked))

    def judgements(self, tokens: Tensor, hidden: Tensor, real: Tensor, types: Tensor | None) -> Tensor:
        """Log-odds that each token was replaced, at padding too: (walks · length,)."""
        return self.judge(self(tokens, hidden, real, types)[-1]).flatten()


class DetectiveLearner(Learner):
    """A learner of both: the generator's masked loss plus ``weight`` times the discriminator's binary loss."""

    encoder: Detector

    def __init__(self, *, weight: float, **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[arg-type]
        self.weight = weight

    def exercise_loss(self, exercise: TrainingBatch | Exercise, step: int) -> Tensor:
        made = exercise.on(self.device) if isinstance(exercise, TrainingBatch) else exercise
        tokens, real = made.tokens.long(), made.real
        guesses = self.encoder.guesses(*self.seen(tokens, made.hidden, real), made.asked)  # (N, D)
        scored = self.scored(guesses, made, step)
        with torch.no_grad():
            drawn = self.drawn(guesses, torch.rand(len(guesses), 1, device=self.device))
            # A prediction that fills up writes behind the walks.
            at = made.asked if made.share is None else torch.where(made.share > 0, made.asked, tokens.numel())
            shown = torch.cat([tokens.flatten(), tokens.new_zeros(1)]).scatter_(0, at, drawn)[:-1].view_as(tokens)
        odds = self.encoder.judgements(*self.seen(shown, torch.zeros_like(real), real))  # (B L,)
        wrong = (shown != tokens).flatten().to(odds)
        share = real.flatten() / real.sum()
        return scored + self.weight * (F.binary_cross_entropy_with_logits(odds, wrong, reduction="none") * share).sum()

    def slots(self, tokens: NDArray, hidden: NDArray[np.bool_], asked: NDArray[np.bool_]) -> Tensor:
        """The generator's: the discriminator never meets a mask."""
        return self.encoder.guesses(*self.seen(tokens, hidden, tokens >= 0), torch.from_numpy(asked))

    def drawn(self, guesses: Tensor, chance: Tensor) -> Tensor:
        """Tokens sampled from the generator's distribution: int64 (N,), by uniform random ``chance`` (N, 1)."""
        most = max(1, 2**22 // len(self.output.weight))
        out = []
        for h, u in zip(torch.split(guesses, most), torch.split(chance.to(guesses), most), strict=True):
            scores = self.loss.log_shares(torch.addmm(self.bias.weight[:, 0], h, self.output.weight.T))  # (most, V)
            upto = scores.softmax(-1).cumsum(-1)
            out.append(torch.searchsorted(upto, u * upto[:, -1:])[:, 0].clamp_(max=scores.shape[1] - 1))
        return torch.cat(out)

    @torch.no_grad()
    def judged(self, tokens: NDArray[np.int32], given: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Nats of the discriminator at every real token, row-major, with ``given`` filled by the generator: float64."""
        self.encoder.eval()
        luck = torch.Generator().manual_seed(derive(0, "replaced"))
        out = []
        for i in range(0, len(tokens), 256):
            walks, masked = tokens[i : i + 256], given[i : i + 256]
            real, shown = walks >= 0, walks.copy()
            seen = self.seen(walks, masked, real)
            guesses = self.encoder.guesses(*seen, seen[1])
            shown[masked] = self.drawn(guesses, torch.rand(len(guesses), 1, generator=luck)).cpu().numpy()
            odds = self.encoder.judgements(*self.seen(shown, np.zeros_like(real), real))[seen[2].flatten()]
            wrong = torch.from_numpy((shown != walks)[real]).to(odds)
            out.append(F.binary_cross_entropy_with_logits(odds, wrong, reduction="none"))
        return torch.cat(out).double().cpu().numpy()
