"""Which device a setting means, and what a device can do to a training, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qcq.errors import ConfigError, TrainingError


def place(device: str) -> str:
    """The device that a setting means here: ``auto`` is the first of cuda, mps and cpu that is there."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def refuse_unusable(device: str) -> None:
    """ConfigError for a device that isn't there."""
    if device in ("cpu", "auto"):
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError if it was built without CUDA
        raise ConfigError(f"setting device: {device!r} can't be used here ({_line(error)}); use 'cpu'") from None


@contextmanager
def guarded(device: str, step: Callable[[], str], less: Callable[[], str], kept: str = "") -> Iterator[None]:
    """Turn what a device can do to a training into a TrainingError of one line; other errors pass.

    Parameters
    ----------
    step : where the training is, for example "at step 3 of 100".
    less : what to do where memory is short.
    kept : where the last good state is.
    """
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


def _gone(error: RuntimeError) -> bool:
    """Whether an error says that the device failed, and not the code."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or "CUDA error" in str(error) or "MPS" in str(error)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(". ")
