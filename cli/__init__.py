"""The command line: arguments and output; other modules do the work."""

from __future__ import annotations

import codecs
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import typer

from qcq.cli import bank, comparisons, console, vectors
from qcq.cli.console import app, err
from qcq.errors import ConfigError, QCQError
from qcq.support.memory import scoped

__all__ = ["app", "bank", "comparisons", "console", "main", "vectors"]


INTERRUPTED = 130  # exit code, as of a shell's command
MISUSED: Any = typer.BadParameter.__mro__[1]  # click's UsageError, wherever this version of typer has it
RESUMED = ("run", "score", "study", "walk")  # they keep what is finished, and the same command goes on with it


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What a stream can't show, as JSON escapes it, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("qcq-json", _escaped)


@cache
def _commands() -> Any:
    """The commands as the parser knows them: made once in a process."""
    return typer.main.get_command(app)


def _terminated(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: processes are stopped, and finished cells stay."""
    raise KeyboardInterrupt


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: one-line errors, exit code 2; ``--debug`` shows their traceback."""
    given = list(sys.argv[1:] if args is None else args)
    if not os.environ.get("COLUMNS", "1").strip("0"):  # the help would be cut off
        del os.environ["COLUMNS"]
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show must not end finished work
            escapes = stream is sys.stdout and "--json" in given
            stream.reconfigure(errors="qcq-json" if escapes else "replace")
    try:
        _refuse_undecodable(given)
        with scoped():
            code = _commands()(given, prog_name="qcq", standalone_mode=False)  # else typer draws a box around errors
        if code == INTERRUPTED:  # typer makes it of a KeyboardInterrupt
            raise KeyboardInterrupt
        raise SystemExit(code or 0)
    except KeyboardInterrupt:
        resumed = _command(given) in RESUMED and not {"--redo", "--dry-run"} & set(given)
        with suppress(OSError):  # the exit code says it, where the stream is full or gone
            err.print(
                f"interrupted{'; the same command goes on where it was stopped' if resumed else ''}", markup=False
            )
        raise SystemExit(INTERRUPTED) from None
    except (QCQError, OSError, MemoryError, MISUSED) as error:
        if "--debug" in given:
            raise
        if said := _reason(error, _command(given) in RESUMED):
            with suppress(OSError):
                err.print(f"error: {said}", markup=False, style="red" if err.is_terminal else None)
        raise SystemExit(2) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _refuse_undecodable(given: Sequence[str]) -> None:
    """ConfigError for a word that isn't text: it could be written into no result."""
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!r}: not UTF-8; rename the file, or write the word as UTF-8") from None


def _command(given: Sequence[str]) -> str:
    return next((word for word in given if not word.startswith("-")), "")


def _reason(error: Exception, resumed: bool) -> str:
    """What went wrong, in one line; and that work is kept, where the same command goes on with it."""
    if isinstance(error, QCQError):
        return str(error)
    if isinstance(error, MISUSED):
        said = error.format_message().rstrip(".?").replace(". Did you", "; did you")
        see = error.ctx.command_path if error.ctx else "qcq"
        return said and f"{said[0].lower()}{said[1:]}; see {see} --help"  # nothing where no word is given: it is helped
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        kept = "; finished work is kept: the same command goes on with it" if resumed else ""
        return f"{where}{error.strerror or error}{kept}"
    kept = "; finished work is kept" if resumed else ""
    return f"not enough memory{kept}. Take fewer --jobs, or a smaller dim or corpus"
