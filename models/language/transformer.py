"""Encoders: attention, positions and blocks, written by hand on torch's scaled-dot-product attention.

An encoder turns token vectors into states. It gets masks for existing and for hidden tokens, and returns the states of
every layer, so that one training loop and one set of read-outs serve all encoders.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcq.models.kernels import language as kernels
from qcq.models.language.memory import SCRATCH

# --------------------------------------------------------------------------------------------------------- positions


class Position(nn.Module):
    """The position of a token: as a vector added to it, as a bias on attention, as both or as neither.

    Parameters
    ----------
    length : the longest walk.
    dim, heads : sizes of the encoder.
    """

    def __init__(self, length: int, dim: int, heads: int) -> None:
        super().__init__()
        self.length, self.dim, self.heads = length, dim, heads

    def vectors(self, length: int) -> Tensor | None:
        """One vector per position, (length, dim), or None."""
        return None

    def bias(self, length: int) -> Tensor | None:
        """Added to the attention scores, (heads, queries, keys), or None."""
        return None

    def veil(self) -> Tensor | None:
        """Added to the attention scores of hidden keys, (heads,), or None."""
        return None


class Absolute(Position):
    """A learned vector for each position (Devlin et al. 2019)."""

    def __init__(self, length: int, dim: int, heads: int) -> None:
        super().__init__(length, dim, heads)
        self.table = nn.Parameter(torch.randn(length, dim) * 0.02)

    def vectors(self, length: int) -> Tensor:
        return self.table[:length]  # (L, D)


class Sinusoidal(Position):
    """Fixed sine and cosine waves of geometric wavelengths (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(self, length: int, dim: int, heads: int) -> None:
        super().__init__(length, dim, heads)
        place = torch.arange(length, dtype=torch.float32)[:, None]
        wave = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
        angle = place * wave  # (L, ceil(D / 2))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]
        # Token vectors start small; waves of amplitude 1 would dominate them.
        self.register_buffer("table", table / math.sqrt(dim), persistent=False)

    def vectors(self, length: int) -> Tensor:
        return self.table[:length]  # (L, D)


class Relative(Position):
    """A learned bias for each head and each signed distance key - query, zero at first (Raffel et al. 2020)."""

    def __init__(self, length: int, dim: int, heads: int) -> None:
        super().__init__(length, dim, heads)
        self.table = nn.Parameter(self.start(length, heads))  # (H, 2 length - 1)

    @staticmethod
    def start(length: int, heads: int) -> Tensor:
        return torch.zeros(heads, 2 * length - 1)

    def bias(self, length: int) -> Tensor:
        place = torch.arange(length, device=self.table.device)
        return self.table[:, place[None, :] - place[:, None] + self.length - 1]  # (H, L, L)


class Local(Relative):
    """A relative bias that starts by falling with distance, so that attention starts at the neighbours.

    Head h starts at -s_h |distance|. The first head attends to both sides, the second to the left, the third to the
    right (the other side starts 4 lower), all with slope 2; the next three do the same with half the slope, and so on.
    A mask has no information about its neighbours, so hidden keys start 4 lower as well.
    """

    def __init__(self, length: int, dim: int, heads: int) -> None:
        super().__init__(length, dim, heads)
        self.masks = nn.Parameter(torch.full((heads,), -4.0))

    def veil(self) -> Tensor:
        return self.masks  # (H,)

    @staticmethod
    def start(length: int, heads: int) -> Tensor:
        distance = torch.arange(1 - length, length, dtype=torch.float32)
        rows = []
        for head in range(heads):
            group, side = divmod(head, 3)
            away = {0: torch.zeros(()), 1: distance > 0, 2: distance < 0}[side]
            rows.append(-2.0 * 0.5**group * distance.abs() - 4.0 * away)
        return torch.stack(rows)


POSITIONS: Mapping[str, type[Position]] = {
    "none": Position,
    "absolute": Absolute,
    "sinusoidal": Sinusoidal,
    "relative": Relative,
    "local": Local,
}

# ------------------------------------------------------------------------------------------------------------ layers


@dataclass(frozen=True, eq=False)
class Bias:
    """What is added to attention scores: ``place``, ``veil`` at hidden keys, and -inf at keys that can't be seen.

    Attributes
    ----------
    seen : bool (B, L or 1, M).
    place : (H, L, M), or None for 0.
    veil, hidden : (H,) and bool (B, M), or None for 0.
    """

    seen: Tensor
    place: Tensor | None = None
    veil: Tensor | None = None
    hidden: Tensor | None = None

    def whole(self, like: Tensor) -> Tensor:
        """All of it in one tensor, which broadcasts to (B, H, L, M)."""
        place = like.new_zeros(()) if self.place is None else self.place
        if self.veil is not None and self.hidden is not None:
            place = place + self.veil[:, None, None] * self.hidden[:, None, None, :]
        return torch.where(self.seen[:, None], place, -torch.inf)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        """softmax(Q K^T / sqrt(d) + bias) V, each (B, H, ·, d); for float32 on the CPU in a compiled loop."""
        if dropout or q.device.type != "cpu" or q.dtype != torch.float32:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.whole(q), dropout_p=dropout)
        heads, length, keys = q.shape[1], q.shape[2], k.shape[2]
        place = q.new_zeros(heads, length, keys) if self.place is None else self.place
        veil = q.new_zeros(heads) if self.veil is None else self.veil
        hidden = self.seen.new_zeros(len(q), keys) if self.hidden is None else self.hidden
        return cast(Tensor, _Attend.apply(q, k, v, place, veil, hidden, self.seen))  # type: ignore[no-untyped-call]


class _Attend(torch.autograd.Function):
    """Attention with scores that become shares in the place where they stand; no pass for each part of the bias."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, place: Tensor, veil: Tensor, hidden: Tensor, seen: Tensor
    ) -> Tensor:
        b, heads, length, width = q.shape
        q, k, v = (x.reshape(b * heads, -1, width) for x in (q, k, v))
        scores = torch.bmm(q, k.transpose(1, 2), out=SCRATCH.take(q, b * heads, length, k.shape[1]))  # (B H, L, M)
        shares = scores.view(b, heads, length, -1)
        given = (x.detach().contiguous().numpy() for x in (place, veil, hidden, seen))
        kernels.attend(shares.numpy(), np.float32(1 / math.sqrt(width)), *given)
        found = torch.bmm(scores, v).view(b, heads, length, width)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, v, hidden)
            ctx.shares = shares
        else:
            SCRATCH.give(scores)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden = ctx.saved_tensors
        shares = ctx.shares
        b, heads, length, keys = shares.shape
        grad, flat = grad.reshape(q.shape), shares.view(b * heads, length, keys)
        slope = torch.bmm(grad, v.transpose(1, 2), out=SCRATCH.take(q, *flat.shape))  # (B H, L, M)
        place, veil = shares.new_zeros(heads, length, keys), shares.new_zeros(heads)
        scale = np.float32(1 / math.sqrt(q.shape[-1]))
        weights, by_weights, masked = shares.numpy(), slope.view(shares.shape).numpy(), hidden.contiguous().numpy()
        kernels.attended(weights, by_weights, scale, masked, place.numpy(), veil.numpy())
        made = torch.bmm(slope, k), torch.bmm(slope.transpose(1, 2), q), torch.bmm(flat.transpose(1, 2), grad)
        for room in (slope, flat):
            SCRATCH.give(room)
        return *(x.view(b, heads, -1, q.shape[-1]) for x in made), place, veil, None, None


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d_head) + bias) V (Vaswani et al. 2017, eq. 1).

    Values and output start as the identity: at first, a query copies the mean vector of the tokens that it attends to.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.value, self.out):
            nn.init.eye_(layer.weight)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, memory: Tensor, bias: Bias | Tensor | None) -> Tensor:
        """``queries`` (B, L, D) attend to ``memory`` (B, M, D); ``bias`` broadcasts to (B, H, L, M), -inf hides."""
        q, k = self._heads(self.query(queries)), self._heads(self.key(memory))  # (B, H, L, D / H), (B, H, M, D / H)
        v = self._heads(self.value(memory))  # (B, H, M, D / H)
        p = self.dropout if self.training else 0.0
        if isinstance(bias, Bias):
            seen = bias.attend(q, k, v, p)  # (B, H, L, D / H)
        else:
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        return self.out(seen.transpose(1, 2).flatten(2))  # (B, L, D)

    def weights(self, queries: Tensor, memory: Tensor, bias: Bias | Tensor | None) -> Tensor:
        """The attention of each query to each position of the memory: (B, H, L, M), rows sum to 1."""
        q, k = self._heads(self.query(queries)), self._heads(self.key(memory))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])  # (B, H, L, M)
        bias = bias.whole(q) if isinstance(bias, Bias) else bias
        return torch.softmax(scores if bias is None else scores + bias, dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, L, D) → (B, H, L, D / H)


class Block(nn.Module):
    """Attention and a feed-forward net of width 4 D with GELU, each with a residual path and layer norm.

    Parameters
    ----------
    norm : "pre" normalises what goes into each half (Xiong et al. 2020), "post" what comes out (Vaswani et al. 2017).
    """

    def __init__(self, dim: int, heads: int, norm: Literal["pre", "post"], dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        self.pre = norm == "pre"
        for layer in (self.wide, self.narrow):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, bias: Bias | Tensor | None, memory: Tensor | None = None, only: Tensor | None = None
    ) -> Tensor:
        """States (B, L, D) → (B, L, D). Attends to ``memory`` (B, M, D), or to itself without one.

        With ``only`` (see Encoder), the second half is computed only at those positions: (N, D).
        """
        n = self.norm1(x) if self.pre else x
        x = x + self.drop(self.attention(n, n if memory is None else memory, bias))
        x = x if only is None else at(x, only)
        if self.pre:
            return x + self.drop(self.feed(self.norm2(x)))
        x = self.norm1(x)
        return self.norm2(x + self.drop(self.feed(x)))

    def feed(self, x: Tensor) -> Tensor:
        return self.narrow(self.drop(F.gelu(self.wide(x))))  # (B, L, D) → (B, L, 4 D) → (B, L, D)


# ---------------------------------------------------------------------------------------------------------- encoders


class Encoder(nn.Module, ABC):
    """Token vectors → states of every layer.

    Parameters
    ----------
    dim, layers, heads, norm, dropout : sizes and kind of the blocks.
    position : one of POSITIONS.
    length : the longest walk.
    n_types : node types ("segments").
    combine : token, type and position vectors are added, or concatenated and mapped back to ``dim``.
    layout : "bert" adds what BERT has in addition: a layer norm below the blocks, a Transform above them.
    """

    sees_itself = True  # whether the state of a visible token depends on that token
    hides = True  # whether a token must be hidden to be predicted
    two_sided = False  # whether it predicts from either side by states of their own

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        heads: int,
        norm: Literal["pre", "post"],
        dropout: float,
        position: str,
        length: int,
        n_types: int = 1,
        combine: Literal["add", "concatenate"] = "add",
        layout: Literal["plain", "bert"] = "plain",
    ) -> None:
        super().__init__()
        self.position = POSITIONS[position](length, dim, heads)
        self.types = nn.Parameter(torch.zeros(n_types, dim))
        self.blocks = nn.ModuleList(self.block(dim, heads, norm, dropout) for _ in range(layers))
        self.below = nn.LayerNorm(dim) if layout == "bert" else nn.Identity()
        self.head = Transform(dim) if layout == "bert" else nn.Identity()
        self.last = nn.LayerNorm(dim) if norm == "pre" else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.join: nn.Linear | None = None
        if combine == "concatenate":
            self.join = nn.Linear(3 * dim, dim, bias=False)
            with torch.no_grad():  # starts as the sum, which is one of the maps it can represent
                self.join.weight.copy_(torch.eye(dim).repeat(1, 3))

    def block(self, dim: int, heads: int, norm: Literal["pre", "post"], dropout: float) -> nn.Module:
        """One layer."""
        return Block(dim, heads, norm, dropout)

    def combined(self, tokens: Tensor, types: Tensor | None) -> Tensor:
        """Token (B, L, D), type (B, L, or None for type 0) and position as one vector: (B, L, D)."""
        kind = self.types[0] if types is None else self.types[types]
        place = self.position.vectors(tokens.shape[1])
        if self.join is None:
            return self.below(tokens + kind if place is None else tokens + kind + place)
        none = tokens.new_zeros(tokens.shape[-1])
        parts = [tokens, kind.expand_as(tokens), (none if place is None else place).expand_as(tokens)]
        return self.below(self.join(torch.cat(parts, dim=-1)))  # (B, L, 3 D) → (B, L, D)

    def through(self, x: Tensor, bias: Bias, memory: Tensor | None, only: Tensor | None) -> list[Tensor]:
        """``x`` and the states after each block."""
        states = [x]
        for i, block in enumerate(self.blocks):
            states.append(block(states[-1], bias, memory, only if i == len(self.blocks) - 1 else None))
        return [*states[:-1], self.last(states[-1])]

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        """States of every layer, the input first.

        Parameters
        ----------
        tokens : (B, L, D), vectors of the tokens; those at hidden or padded positions are not used.
        hidden : bool (B, L), tokens that must not be seen.
        real : bool (B, L), False at padding.
        types : int64 (B, L), node types; None if there is only one.
        only : the positions whose last state is needed, bool (B, L), or int64 (N,) in B · L; None for all.

        Returns
        -------
        list of (B, L, D), ``layers + 1`` of them; the last one, used for predictions, is (N, D) with ``only``.
        """

    def answers(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None,
        asked: Tensor,
        back: Tensor | None = None,
    ) -> Tensor:
        """The states that predict the tokens at ``asked``: (asked, D), row-major.

        ``asked`` are positions like ``only`` above. ``back`` are those to predict from their right, after the others:
        (asked + back, D). Only a bidirectional model has states for them.
        """
        return self.head(self(tokens, hidden, real, types, asked)[-1])


class Transform(nn.Sequential):
    """BERT's last step before the output table: a linear map, GELU and a layer norm (Devlin et al. 2019, their code).

    The map starts as the identity.
    """

    def __init__(self, dim: int) -> None:
        map = nn.Linear(dim, dim)
        nn.init.eye_(map.weight)
        nn.init.zeros_(map.bias)
        super().__init__(map, nn.GELU(), nn.LayerNorm(dim))


class Bidirectional(Encoder):
    """BERT's encoder: every token attends to every other; a hidden one is replaced by a learned mask vector."""

    def __init__(self, *, dim: int, **sizes: object) -> None:
        super().__init__(dim=dim, **sizes)  # type: ignore[arg-type]
        self.mask = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        x = self.drop(self.combined(torch.where(hidden[..., None], self.mask, tokens), types))  # (B, L, D)
        bias = Bias(real[:, None], self.position.bias(x.shape[1]), self.position.veil(), hidden)
        return self.through(x, bias, None, only)


class TwoStream(Encoder):
    """Every position predicted in one pass: a query knows only its position and never its own token.

    Queries start from the position alone. In every layer they attend to the raw vectors of the other visible tokens,
    not to states, because from the second layer on the state of a neighbour would contain the query's own token. A
    learned first key is always visible, so that a walk with all tokens hidden still has a prediction.
    """

    sees_itself = False

    def __init__(self, *, dim: int, norm: Literal["pre", "post"], **sizes: object) -> None:
        super().__init__(dim=dim, norm=norm, **sizes)  # type: ignore[arg-type]
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)
        self.far = nn.Parameter(torch.full((self.position.heads,), -4.0))  # bias towards ``nothing``
        self.norm = nn.LayerNorm(dim) if norm == "pre" else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        n, length, _ = tokens.shape
        raw = self.drop(self.combined(tokens, types))  # (B, L, D)
        memory = self.norm(torch.cat([self.nothing.expand(n, 1, -1), raw], dim=1))  # (B, 1 + L, D)
        other = ~torch.eye(length, dtype=torch.bool, device=tokens.device)
        seen = F.pad((real & ~hidden)[:, None, :] & other, (1, 0), value=True)  # (B, L, 1 + L)
        place = self.position.bias(length)
        if place is not None:
            place = torch.cat([self.far[:, None, None].expand(-1, length, 1), place], dim=2)  # (H, L, 1 + L)
        return self.through(self.combined(self.query.expand(n, length, -1), None), Bias(seen, place), memory, only)


class Causal(Encoder):
    """GPT's encoder: a token attends to itself and to those before it; its state predicts the next one.

    References
    ----------
    Radford et al. 2018, Improving language understanding by generative pre-training, section 3.1.
    """

    hides = False

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        real: Tensor,
        types: Tensor | None = None,
        only: Tensor | None = None,
    ) -> list[Tensor]:
        x = self.drop(self.combined(tokens.masked_fill(hidden[..., None], 0.0), types))  # (B, L, D)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        past = itself.cumsum(1).T > 0  # (L, L), keys up to the query
        seen = (past & (real & ~hidden)[:, None, :]) | itself  # a softmax over nothing is not defined
        return self.through(x, Bias(seen, self.position.bias(x.shape[1])), None, only)

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


def at(x: Tensor, only: Tensor) -> Tensor:
    """The states of ``x`` (B, L, D) at ``only``, bool (B, L) or int64 (N,) in B · L: (N, D)."""
    return x[only] if only.dtype == torch.bool else x.flatten(0, 1).index_select(0, only)


def before(asked: Tensor) -> Tensor:
    """The positions one to the left of ``asked``, bool (B, L) or int64 (N,); the first of a walk has none."""
    return F.pad(asked[:, 1:], (0, 1)) if asked.dtype == torch.bool else (asked - 1).clamp(min=0)


def behind(asked: Tensor) -> Tensor:
    """The positions one to the right of ``asked``, bool (B, L) or int64 (N,); the last of a walk has none."""
    return F.pad(asked[:, :-1], (1, 0)) if asked.dtype == torch.bool else asked + 1
