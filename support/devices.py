"""Which device a setting means, and what a device can do to a training, in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from qcq.errors import ConfigError, TrainingError

_inside: ContextVar[bool] = ContextVar("inside a guarded part", default=False)


def place(device: str) -> str:
    """The device that a setting means here: ``auto`` is the first of cuda, mps and cpu that is there."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def refuse_unusable(device: str, setting: str = "device") -> None:
    """ConfigError for a device that isn't there; ``setting`` is what names it."""
    if device in ("cpu", "auto"):
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError if it was built without CUDA
        raise ConfigError(f"setting {setting}: {device!r} can't be used here ({_line(error)}); use 'cpu'") from None


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """torch with operations alone that give the same bytes on the same kind of device, if ``wanted``.

    Raises
    ------
    TrainingError : torch has no such operation for something that is computed inside.
    """
    import torch

    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it; cuBLAS reads it at its first use
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingError(f"torch can't repeat this exactly ({_line(error)}); use deterministic = false") from None
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


@contextmanager
def guarded(device: str, step: Callable[[], str], less: Callable[[], str], kept: str = "") -> Iterator[None]:
    """Turn what a device can do to a training into a TrainingError of one line; other errors pass.

    Of parts inside each other the outermost one speaks: it knows where the last good state is.

    Parameters
    ----------
    step : where the training is, for example "at step 3 of 100".
    less : what to do where memory is short.
    kept : where the last good state is.
    """
    if _inside.get():
        yield
        return
    token = _inside.set(True)
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are such
        import torch

        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            raise TrainingError(f"{device} is out of memory {step()} ({_line(error)}); {less()}{kept}") from None
        if not _gone(error):
            raise
        raise TrainingError(
            f"{device} stopped {step()} ({_line(error)}); run again when it is back, or with device = 'cpu'{kept}"
        ) from None
    finally:
        _inside.reset(token)


def _gone(error: RuntimeError) -> bool:
    """Whether an error says that the device failed, and not the code."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or "CUDA error" in str(error) or "MPS" in str(error)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
