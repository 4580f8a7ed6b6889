"""Memory for the wide scores of a step, kept from step to step: to get new pages costs as much as the sums in them."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 8  # pieces that are kept


class Scratch:
    """Pieces of memory on the CPU that were used before. Elsewhere torch's own allocator does the same."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, like: Tensor, *shape: int) -> Tensor:
        """A tensor of ``shape`` with anything in it, of the kind of ``like``. Nobody else has it until :meth:`give`."""
        n = torch.Size(shape).numel()
        if like.device.type != "cpu":
            return like.new_empty(shape)
        for i, room in enumerate(self._free):
            if room.dtype == like.dtype and n <= room.numel() <= 2 * n + 4096:
                return self._free.pop(i)[:n].view(shape)
        return like.new_empty(n + n // 8)[:n].view(shape)

    def give(self, room: Tensor) -> None:
        """``room`` isn't needed any more. What is never given back, after an error say, is freed like any tensor."""
        if room.device.type != "cpu":
            return
        whole = room.new_empty(0).set_(room.untyped_storage())
        self._free = [whole, *self._free[: _MOST - 1]]


SCRATCH = Scratch()
