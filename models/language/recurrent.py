"""Recurrent encoders: an LSTM that reads from left to right, and a pair of them, one from either end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from qcq.models.language.transformer import Encoder, at, before, behind


class Layer(nn.Module):
    """An LSTM with a residual path and layer norm, before it ("pre") or after it ("post")."""

    def __init__(self, dim: int, norm: Literal["pre", "post"], dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.pre = norm == "pre"

    def forward(self, x: Tensor) -> Tensor:
        """States (B, L, D) → (B, L, D)."""
        new, _ = self.lstm(self.norm(x) if self.pre else x)
        x = x + self.drop(new)
        return x if self.pre else self.norm(x)


class LSTM(Encoder):
    """Reads from left to right (Hochreiter & Schmidhuber 1997). The reading gives the order: no positions, no heads."""

    hides = False

    def __init__(self, *, position: str, **sizes: object) -> None:
        super().__init__(position="none", **sizes)  # type: ignore[arg-type]

    def block(self, dim: int, heads: int, norm: Literal["pre", "post"], dropout: float) -> nn.Module:
        return Layer(dim, norm, dropout)

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        x = self.drop(self.combined(tokens.masked_fill(hidden[..., None], 0.0), types))  # (B, L, D)
        states = read(x, self.blocks)
        last = self.last(states[-1] if only is None else at(states[-1], only))
        return [*states[:-1], last]

    def answers(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None,
        asked: Tensor,
        back: Tensor | None = None,
    ) -> Tensor:
        return self.head(self(tokens, hidden, real, types, before(asked))[-1])


class BiLSTM(LSTM):
    """ELMo's encoder: one stack of LSTMs reads from the left, another from the right, without connections between them.

    The states above the input concatenate both directions, (B, L, 2 D), left to right first. They share only
    the token vectors and the output table.

    References
    ----------
    Peters et al. 2018, Deep contextualized word representations, section 3.1.
    """

    two_sided = True

    def __init__(self, *, dim: int, norm: Literal["pre", "post"], dropout: float, layers: int, **sizes: object) -> None:
        super().__init__(dim=dim, norm=norm, dropout=dropout, layers=layers, **sizes)  # type: ignore[arg-type]
        self.back = nn.ModuleList(Layer(dim, norm, dropout) for _ in range(layers))
        self.last_back = nn.LayerNorm(dim) if norm == "pre" else nn.Identity()

    def both(
        self, tokens: Tensor, hidden: Tensor, real: Tensor, types: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """States of either direction, each (B, L, D), the input first."""
        x = self.drop(self.combined(tokens.masked_fill(hidden[..., None], 0.0), types))
        place = torch.arange(x.shape[1], device=x.device)
        n = real.sum(dim=1, keepdim=True)  # (B, 1); pads are at the end
        turn = torch.where(place < n, n - 1 - place, place)[..., None]  # (B, L, 1), its own inverse
        there = read(x, self.blocks)
        back = [s.take_along_dim(turn, 1) for s in read(x.take_along_dim(turn, 1), self.back)]
        return [*there[:-1], self.last(there[-1])], [*back[:-1], self.last_back(back[-1])]

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        there, back = self.both(tokens, hidden, real, types)
        states = [there[0], *(torch.cat(pair, dim=-1) for pair in zip(there[1:], back[1:], strict=True))]
        return states if only is None else [*states[:-1], at(states[-1], only)]

    def answers(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None,
        asked: Tensor,
        back: Tensor | None = None,
    ) -> Tensor:
        left, right = self.both(tokens, hidden, real, types)
        found = at(left[-1], before(asked))  # (asked, D)
        return self.head(found if back is None else torch.cat([found, at(right[-1], behind(back))]))


def read(x: Tensor, layers: Iterable[nn.Module]) -> list[Tensor]:
    """``x`` (B, L, D) and the states after each layer."""
    states = [x]
    for layer in layers:
        states.append(layer(states[-1]))
    return states
