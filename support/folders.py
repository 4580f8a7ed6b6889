"""Folders that belong to qcq. Nothing is written into a folder with files that qcq did not make."""

from __future__ import annotations

import json
from pathlib import Path

from qcq.errors import ConfigError
from qcq.support.files import from_json, make_folder, sync_folder, tidy, write_text

MARK = "qcq.json"  # is in every folder that qcq made, and says what kind of folder it is, and in which format
FORMAT = 2  # raised when a folder can no longer be read by an older qcq; 1, and no number, is that of qcq 0.1


def claim(folder: str | Path, kind: str, *, also: tuple[str, ...] = ()) -> Path:
    """Create ``folder`` if it is missing, mark it, tidy it (:func:`qcq.support.files.tidy`), and return it.

    Parameters
    ----------
    folder : the folder to write into.
    kind : what the folder is: ``run``, ``folds``, ``store``, ``corpus``, ``study``, ``split``, ``figures`` or
        ``model``.
    also : other file names that count as a mark, as ``qcq.json`` does.

    Raises
    ------
    ConfigError : the folder is a file, holds files that qcq did not make, or is a folder of another kind. Nothing is
        changed then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     _ = Path(home, "questions.csv").write_text("question,concept")
    ...     claim(home, "run")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    qcq.errors.ConfigError: ...: holds files that qcq did not make ('questions.csv'); name another folder...
    """
    folder = Path(folder)
    refuse_foreign(folder, kind, also=also)
    for above in make_folder(folder):
        sync_folder(above)
    tidy(folder)
    if not (folder / MARK).is_file():
        write_mark(folder, kind)
    return folder


def write_mark(folder: Path, kind: str) -> None:
    """Mark a folder as one of qcq's."""
    write_text(folder / MARK, _mark(kind, FORMAT))


def _mark(kind: str, number: int) -> str:
    return json.dumps({"kind": kind, "format": number} if number > 1 else {"kind": kind}) + "\n"


def as_written(folder: Path, kind: str) -> bool:
    """Whether the mark of a folder of this kind is, byte by byte, one that this or an earlier qcq writes."""
    return (folder / MARK).read_bytes() in {_mark(kind, number).encode() for number in range(1, FORMAT + 1)}


def refuse_foreign(folder: Path, kind: str, *, also: tuple[str, ...] = ()) -> None:
    """The check of :func:`claim` alone: the same errors, and nothing is created."""
    if folder.is_symlink() and not folder.exists():
        raise ConfigError(f"{folder}: is a link to nothing; name another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, not a folder; name a folder")
    if (folder / MARK).is_file():
        held = refuse_newer(folder)
        if held != kind:
            raise ConfigError(f"{folder}: holds a {held}, not a {kind}; name another folder")
        return
    if any((folder / name).is_file() for name in also):
        return
    # Another process may be writing the mark at this moment, or was killed while it wrote it.
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", f"{MARK}.")))
    if not there:
        return
    if (folder / MARK).is_file():  # another process has written it since
        refuse_foreign(folder, kind, also=also)
        return
    if {"config.toml", "about.json", "environment.json", "manifest.json"} <= set(there):
        raise ConfigError(f"{folder}: its mark {MARK} is missing; 'qcq verify {folder} --repair' writes it again")
    if {"config.toml", "about.json", "environment.json"} <= set(there):
        raise ConfigError(f"{folder}: holds a run of qcq 0.1, which can't be continued; name another folder")
    shown = ", ".join(map(repr, there[:3])) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
    raise ConfigError(
        f"{folder}: holds files that qcq did not make ({shown}); name another folder, so that nothing is overwritten"
    )


def refuse_newer(folder: Path) -> str:
    """The kind of a folder that qcq made; empty without a mark.

    Raises
    ------
    ConfigError : the mark can't be read, or a newer qcq made the folder in a format that this one doesn't know.
    """
    if not (folder / MARK).is_file():
        return ""
    try:
        held = from_json((folder / MARK).read_text(encoding="utf-8"))
        kind, number = str(held["kind"]), int(held.get("format", 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{folder / MARK}: unreadable mark ({error}); name another folder") from None
    if number > FORMAT:
        raise ConfigError(
            f"{folder}: holds a {kind} in format {number}, made by a newer qcq, and this one reads formats up to "
            f"{FORMAT}; install a newer qcq (pip install -U qcq)"
        )
    return kind
