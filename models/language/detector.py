"""ELECTRA's two networks on one table of token vectors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qcq.models.language.training import Learner, TrainingBatch
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

    def guesses(self, tokens: Tensor, hidden: Tensor, real: Tensor, types: Tensor | None) -> Tensor:
        """The states from which the generator predicts the hidden tokens: (hidden, D)."""
        return self.up(self.generator.answers(self.down(tokens), hidden, real, types, hidden))

    def judgements(self, tokens: Tensor, hidden: Tensor, real: Tensor, types: Tensor | None) -> Tensor:
        """Log-odds that each real token was replaced: (real,)."""
        return self.judge(self(tokens, hidden, real, types, real)[-1])[:, 0]


class DetectiveLearner(Learner):
    """A learner of both: the generator's masked loss plus ``weight`` times the discriminator's binary loss."""

    encoder: Detector

    def __init__(self, *, weight: float, **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[arg-type]
        self.weight = weight

    def exercise_loss(self, exercise: TrainingBatch, step: int) -> Tensor:
        guesses = self.encoder.guesses(*self.seen(exercise.tokens, exercise.asked, exercise.real))  # (N, D)
        targets = torch.from_numpy(exercise.targets).to(self.device)
        made = self.loss(guesses, targets, self.output, self.bias, step)
        with torch.no_grad():
            drawn = self.drawn(guesses, torch.rand(len(guesses), 1))
        shown = exercise.tokens.copy()
        shown[exercise.asked] = drawn
        wrong = torch.from_numpy(shown != exercise.tokens)[torch.from_numpy(exercise.real)].to(self.device)
        odds = self.encoder.judgements(*self.seen(shown, np.zeros_like(exercise.real), exercise.real))
        return made + self.weight * F.binary_cross_entropy_with_logits(odds, wrong.to(odds))

    def drawn(self, guesses: Tensor, chance: Tensor) -> NDArray[np.int64]:
        """Tokens sampled from the generator's distribution: int64 (N,), by uniform random ``chance`` (N, 1)."""
        most = max(1, 2**22 // len(self.output.weight))
        out = []
        for h, u in zip(torch.split(guesses, most), torch.split(chance.to(guesses), most), strict=True):
            scores = self.loss.log_shares(torch.addmm(self.bias.weight[:, 0], h, self.output.weight.T))  # (most, V)
            upto = scores.softmax(-1).cumsum(-1)
            out.append(torch.searchsorted(upto, u * upto[:, -1:])[:, 0].clamp_(max=scores.shape[1] - 1))
        return torch.cat(out).cpu().numpy()

    @torch.no_grad()
    def judged(self, tokens: NDArray[np.int32], given: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Nats of the discriminator at every real token, row-major, with ``given`` filled by the generator: float64."""
        self.encoder.eval()
        luck = torch.Generator().manual_seed(derive(0, "replaced"))
        out = []
        for i in range(0, len(tokens), 256):
            walks, masked = tokens[i : i + 256], given[i : i + 256]
            real, shown = walks >= 0, walks.copy()
            guesses = self.encoder.guesses(*self.seen(walks, masked, real))
            shown[masked] = self.drawn(guesses, torch.rand(len(guesses), 1, generator=luck))
            odds = self.encoder.judgements(*self.seen(shown, np.zeros_like(real), real))
            wrong = torch.from_numpy(shown != walks)[torch.from_numpy(real)].to(odds)
            out.append(F.binary_cross_entropy_with_logits(odds, wrong, reduction="none"))
        return torch.cat(out).double().cpu().numpy()
