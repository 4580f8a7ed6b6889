"""What the process of the caller has set has no say in a result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class _Blocks:
    """The blocks that are entered; several Python threads may be in one at once, and leave in any order."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.limits = ExitStack()
        self.libraries: list[ThreadpoolController] = []

    def enter(self) -> None:
        with self.lock:
            found = _blas(len(sys.modules), next(reversed(sys.modules)))
            if found not in self.libraries:
                self.limits.enter_context(found.limit(limits=1))
                self.libraries.append(found)
            self.limits.enter_context(_float32())
            self.limits.enter_context(_exact())
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:  # all is again as it was before the first block
                self.limits.close()
                self.libraries.clear()


_blocks = _Blocks()


@contextmanager
def reproducible() -> Iterator[None]:
    """Work whose result doesn't hang on what the process has set.

    BLAS has one thread: with more, sums are rounded in another order. torch's default type and device, the precision of
    its products and its gradients are as torch has them by itself.
    """
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, which isn't limited if it is loaded in the block)

    _blocks.enter()
    try:
        with _thread():
            yield
    finally:
        _blocks.leave()


def _torch() -> ModuleType | None:
    """torch, if it is loaded: a block that doesn't need it doesn't load it."""
    if "torch" not in sys.modules:
        return None
    import torch  # waits where another thread is loading it

    return torch


@contextmanager
def _thread() -> Iterator[None]:
    """What torch keeps for each Python thread: where arrays are made, gradients, and types of products."""
    torch = _torch()
    with ExitStack() as own:
        if torch is not None:  # entered for nothing, a device would slow every step
            if torch.get_default_device().type != "cpu":
                own.enter_context(torch.device("cpu"))
            if torch.is_inference_mode_enabled():
                own.enter_context(torch.inference_mode(False))
            if not torch.is_grad_enabled():
                own.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    own.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def _float32() -> Iterator[None]:
    """torch's default type is float32."""
    torch = _torch()
    if torch is None or (before := torch.get_default_dtype()) == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _exact() -> Iterator[None]:
    """Products of float32 are computed in float32, and by the library that torch takes by itself."""
    torch = _torch()
    with ExitStack() as before:
        if torch is not None:
            if not torch.backends.mkldnn.enabled:
                torch.backends.mkldnn.set_flags(True)
                before.callback(torch.backends.mkldnn.set_flags, False)
            if not hasattr(torch.backends, "fp32_precision"):  # before torch 2.9
                if (shorter := torch.get_float32_matmul_precision()) != "highest":
                    torch.set_float32_matmul_precision("highest")
                    before.callback(torch.set_float32_matmul_precision, shorter)
            else:
                one = torch.backends.mkldnn
                for each in (one.matmul, one.conv, one.rnn, torch.backends.cuda.matmul):
                    if (shorter := each.fp32_precision) not in ("none", "ieee"):
                        inherited = shorter == torch.backends.fp32_precision
                        each.fp32_precision = "ieee"
                        before.callback(setattr, each, "fp32_precision", "none" if inherited else shorter)
        yield


@lru_cache(maxsize=1)
def _blas(modules: int, last: str) -> ThreadpoolController:
    """The BLAS libraries of this process, looked for again when a module was imported: it may bring one.

    Then there are more ``modules``, or another one is the ``last``, where one went in between.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
