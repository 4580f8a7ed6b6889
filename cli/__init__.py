"""The command line: arguments and output; other modules do the work."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Sequence

from qcq.cli import bank, comparisons, console, vectors
from qcq.cli.console import app, err
from qcq.errors import QCQError
from qcq.support.memory import scoped

__all__ = ["app", "bank", "comparisons", "console", "main", "vectors"]


def _terminated(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: processes are stopped, and finished cells stay."""
    raise KeyboardInterrupt


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: one-line errors, exit code 2; ``--debug`` shows their traceback."""
    given = list(sys.argv[1:] if args is None else args)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show must not end finished work
            stream.reconfigure(errors="replace")
    try:
        with scoped():
            app(given)
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on where it was stopped", markup=False)
        raise SystemExit(130) from None
    except (QCQError, OSError, MemoryError) as error:
        if "--debug" in given:
            raise
        err.print(f"error: {_reason(error)}", markup=False, style="red" if err.is_terminal else None)
        raise SystemExit(2) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, QCQError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}; finished work is kept: the same command goes on with it"
    return "not enough memory; finished work is kept. Take fewer --jobs, or a smaller dim or corpus"
