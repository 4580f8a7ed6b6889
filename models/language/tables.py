"""Tables of vectors, one for each way to run a step: a few rows are updated on the CPU, all rows on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcq.models.kernels import language as kernels

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's (Kingma & Ba 2015)


class Table(ABC):
    """A table of vectors, updated by Adam. Each row has a step count of its own (bias correction uses the row's
    count), and a row that a step didn't read stays unchanged.

    Attributes
    ----------
    held : float32 (rows, 3 dim + 1). A row has its vector, Adam's two moments and its count side by side, because most
        of a step's cost is fetching rows from memory.
    """

    def __init__(self, weight: Tensor) -> None:
        self.dim = weight.shape[1]
        self.held = weight.new_zeros(len(weight), 3 * self.dim + 1)
        self.held[:, : self.dim] = weight

    @property
    def weight(self) -> Tensor:
        """The vectors: a view, (rows, dim)."""
        return self.held[:, : self.dim]

    @abstractmethod
    def look_up(self, ids: Tensor) -> Tensor:
        """Vectors (..., dim) of ``ids`` int64 (...), which may repeat; their gradient is stored for :meth:`step`."""

    @abstractmethod
    def rows(self, ids: Tensor | None = None) -> Tensor:
        """Rows (n, dim) for ``ids`` int64 (n,), or all of them; their gradient is stored for :meth:`step`."""

    @abstractmethod
    def read(self, ids: Tensor) -> Tensor:
        """Rows (n, dim) for ``ids`` int64 (n,), without a gradient: :meth:`add` can give one later."""

    @abstractmethod
    def add(self, ids: Tensor, grad: Tensor) -> None:
        """Add ``grad`` (n, dim) to the gradient of the rows ``ids`` int64 (n,), which may repeat."""

    @abstractmethod
    def add_all(self, grad: Tensor) -> None:
        """Add ``grad`` (rows, dim) to the gradient of all rows."""

    @abstractmethod
    def gradients(self) -> tuple[Tensor | None, Tensor] | None:
        """Rows read since the last step (None: all) and their gradient; a row read twice gets the sum. Clears them."""

    @torch.no_grad()
    def step(self, ids: Tensor | None, grad: Tensor, rate: float | Tensor, shrink: float | Tensor = 1.0) -> None:
        """One Adam step for the rows ``ids`` with ``shrink`` times ``grad`` (n, dim)."""
        row = self.held if ids is None else self.held.index_select(0, ids)
        weight, mean, square, count = torch.split(row, [self.dim, self.dim, self.dim, 1], dim=1)
        grad = grad * shrink
        count += 1
        mean.lerp_(grad, 1 - BETAS[0])
        square.lerp_(grad.square(), 1 - BETAS[1])
        spread = (square / (1 - BETAS[1] ** count)).sqrt_().add_(EPSILON)
        weight -= rate * mean / (1 - BETAS[0] ** count) / spread
        if ids is not None:
            self.held.index_copy_(0, ids, row)


class SparseTable(Table):
    """A table on the CPU. A step reads and updates only a few rows, so its cost doesn't grow with the vocabulary.

    Gradients are added up, row by row in the order in which they come, in a buffer for the rows of one step.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self._place = np.full(len(weight), -1, dtype=np.int32)  # of a row in the buffer
        self._listed = np.empty(0, dtype=np.int64)  # rows by place
        self._total = weight.new_empty(0, self.dim)
        self._met = 0
        self._whole: list[Tensor] = []
        self._anchor = weight.new_zeros((), requires_grad=True)

    def look_up(self, ids: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.embedding(ids, self.weight)
        return cast(Tensor, _LookUp.apply(self._anchor, self, ids))  # type: ignore[no-untyped-call]

    def rows(self, ids: Tensor | None = None) -> Tensor:
        if ids is not None:
            return self.look_up(ids)
        if not torch.is_grad_enabled():
            return self.weight
        leaf = self.weight.detach().requires_grad_()
        self._whole.append(leaf)
        return leaf

    def read(self, ids: Tensor) -> Tensor:
        out = self.held.new_empty(len(ids), self.dim)
        kernels.gather(self.held.numpy(), ids.contiguous().numpy(), out.numpy())
        return out

    def add(self, ids: Tensor, grad: Tensor) -> None:
        if self._met + len(ids) > len(self._listed):
            room = min(len(self.held), 2 * (self._met + len(ids)))
            self._listed = np.concatenate([self._listed[: self._met], np.empty(room - self._met, dtype=np.int64)])
            self._total = torch.cat([self._total[: self._met], self._total.new_empty(room - self._met, self.dim)])
        at, met = kernels.places(ids.contiguous().numpy(), self._place, self._listed, self._met)
        self._total[self._met : met] = 0
        self._met = met
        kernels.add_rows(self._total.numpy(), at, grad.contiguous().numpy())

    def add_all(self, grad: Tensor) -> None:
        leaf = self.weight.detach()
        leaf.grad = grad
        self._whole.append(leaf)

    def gradients(self) -> tuple[Tensor | None, Tensor] | None:
        whole = [leaf.grad for leaf in self._whole if leaf.grad is not None]
        ids, grad = torch.from_numpy(self._listed[: self._met]), self._total[: self._met]
        kernels.forget(self._place, self._listed, self._met)
        self._whole, self._met = [], 0
        if whole:
            return None, sum(whole[1:], whole[0]).index_add(0, ids, grad)
        return (ids, grad) if len(ids) else None

    @torch.no_grad()
    def step(self, ids: Tensor | None, grad: Tensor, rate: float | Tensor, shrink: float | Tensor = 1.0) -> None:
        if ids is None:
            super().step(ids, grad, rate, shrink)
            return
        number = grad.numpy().dtype.type
        rates = number(rate), number(shrink), number(BETAS[0]), number(BETAS[1]), number(EPSILON)
        rows = ids.contiguous().numpy(), grad.contiguous().numpy()
        kernels.adam(self.held.numpy(), *rows, *rates, *_corrections())


class DenseTable(Table):
    """A table on a device, where a pass over all rows costs less than to find out which ones to leave out.

    Every shape is known beforehand, and nothing waits for the device, so that a step can be captured.

    Parameters
    ----------
    every : whether every step reads every row, as the full softmax does. Without it, the rows that a step read are
        noted, and the others stay unchanged.
    """

    def __init__(self, weight: Tensor, every: bool = True) -> None:
        super().__init__(weight)
        self._grad = torch.zeros_like(weight)
        self._touched = None if every else weight.new_zeros(len(weight), 1)
        self._anchor = weight.new_zeros((), requires_grad=True)

    def look_up(self, ids: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.embedding(ids, self.weight)
        return cast(Tensor, _LookUp.apply(self._anchor, self, ids))  # type: ignore[no-untyped-call]

    def rows(self, ids: Tensor | None = None) -> Tensor:
        return self.weight if ids is None else self.look_up(ids)

    def read(self, ids: Tensor) -> Tensor:
        return self.held.index_select(0, ids)[:, : self.dim]

    def add(self, ids: Tensor, grad: Tensor) -> None:
        self._grad.index_add_(0, ids, grad)
        if self._touched is not None:
            self._touched.index_fill_(0, ids, 1.0)

    def add_all(self, grad: Tensor) -> None:
        self._grad += grad
        if self._touched is not None:
            self._touched.fill_(1.0)

    def gradients(self) -> tuple[Tensor | None, Tensor] | None:
        return None, self._grad

    @torch.no_grad()
    def step(self, ids: Tensor | None, grad: Tensor, rate: float | Tensor, shrink: float | Tensor = 1.0) -> None:
        """One Adam step for the rows that were read. The gradient is cleared afterwards."""
        weight, mean, square, count = torch.split(self.held, [self.dim, self.dim, self.dim, 1], dim=1)
        grad = grad * shrink
        if self._touched is None:
            super().step(None, grad, rate)
        else:
            now = self._touched
            count += now
            mean += (1 - BETAS[0]) * now * (grad - mean)
            square += (1 - BETAS[1]) * now * (grad.square() - square)
            n = count.clamp(min=1)
            spread = (square / (1 - BETAS[1] ** n)).sqrt_().add_(EPSILON)
            weight -= rate * now * mean / (1 - BETAS[0] ** n) / spread
            now.zero_()
        self._grad.zero_()


class _LookUp(torch.autograd.Function):
    """Rows of a table; backwards, their gradient goes to the table and not through torch's graph."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, table: Table, ids: Tensor) -> Tensor:
        ctx.table, ctx.ids = table, ids.reshape(-1)
        return table.read(ctx.ids).view(*ids.shape, table.dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        ctx.table.add(ctx.ids, grad.reshape(-1, ctx.table.dim))
        return None, None, None


@cache
def _corrections() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return kernels.corrections(BETAS[0]), kernels.corrections(BETAS[1])


__all__ = ["BETAS", "EPSILON", "DenseTable", "SparseTable", "Table"]
