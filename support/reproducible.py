"""What the process of the caller has set has no say in a result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache
from threading import Lock
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

    BLAS has one thread: with more, sums are rounded in another order. torch's default type and device are its own:
    otherwise modules and arrays would not fit together.
    """
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, which isn't limited if it is loaded in the block)

    _blocks.enter()
    try:
        with _cpu():
            yield
    finally:
        _blocks.leave()


def _cpu() -> AbstractContextManager[object]:
    """torch makes arrays on the CPU, where nothing is said of a device."""
    torch = sys.modules.get("torch")
    default = getattr(torch, "get_default_device", None)  # none while another thread imports it
    if torch is None or default is None or default().type == "cpu":  # entered for nothing, it would slow every step
        return nullcontext()
    return torch.device("cpu")


@contextmanager
def _float32() -> Iterator[None]:
    """torch's default type is float32."""
    torch = sys.modules.get("torch")
    before = getattr(torch, "get_default_dtype", lambda: None)()
    if torch is None or before in (None, torch.float32):
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@lru_cache(maxsize=1)
def _blas(modules: int, last: str) -> ThreadpoolController:
    """The BLAS libraries of this process, looked for again when a module was imported: it may bring one.

    Then there are more ``modules``, or another one is the ``last``, where one went in between.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
