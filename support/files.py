"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError

CHARACTERS, POINTS = 100_000, 1_000  # characters of a file of settings, and points of a line of it, at most

Held = TypeVar("Held", bound=BaseModel)


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """A path to write a file at, which gets its name when the block ends and is gone if the block fails.

    For libraries that write files by path; :func:`whole` gives an open file.
    """
    path = Path(path)
    made = make_folder(path.parent)
    tidy(path.parent, path.name)
    partial = partial_path(path)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    # A name is on disk only when its folder is.
    for folder in (path.parent, *made):
        sync_folder(folder)


def within(name: str) -> bool:
    """Whether a name in a list of a folder's files is that of a file in the folder: a foreign list may say anything.

    Examples
    --------
    >>> within("scores/a.npz"), within("../a.npz"), within("/home/a.npz")
    (True, False, False)
    """
    return not Path(name).anchor and ".." not in Path(name).parts


_HALF, _HALF_BYTES = re.compile(r"\\u[dD][89a-fA-F]"), re.compile(rb"\\u[dD][89a-fA-F]|\xed")


def from_json(text: str | bytes, **options: Any) -> Any:
    """What a text of JSON holds.

    Raises
    ------
    ValueError : no JSON, brackets inside each other that are too many to follow, or half a character, which an escape
        like ``\\ud800`` can name, and no file can hold.

    Examples
    --------
    >>> from_json("[" * 100_000)
    Traceback (most recent call last):
    ...
    ValueError: too many brackets inside each other
    """
    try:
        made = json.loads(text, **options)
        if _HALF.search(text) if isinstance(text, str) else _HALF_BYTES.search(text):  # it may be one half of two
            json.dumps(made, ensure_ascii=False, default=str).encode()
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None
    except UnicodeEncodeError:
        raise ValueError("half a character") from None
    return made


def from_toml(text: str) -> dict[str, Any]:
    """What a text of TOML holds. ValueError: no TOML, brackets inside each other that are too many to follow, more than
    100,000 characters, or more than 1,000 points in a line: the time for a key grows with the square of its points.

    Examples
    --------
    >>> from_toml("dim = 8")
    {'dim': 8}
    >>> from_toml("#" * 100_001)
    Traceback (most recent call last):
    ...
    ValueError: 100,001 characters, where settings have at most 100,000
    """
    if len(text) > CHARACTERS:
        raise ValueError(f"{len(text):,} characters, where settings have at most {CHARACTERS:,}")
    if (most := max(line.count(".") for line in text.split("\n"))) > POINTS:
        raise ValueError(f"a line with {most:,} points, where settings have at most {POINTS:,}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("not valid TOML: too many brackets inside each other") from None
    except ValueError as error:
        raise ValueError(f"not valid TOML: {str(error)[:200]}") from None


def validated(held: Any, kind: type[Held], where: str = "") -> Held:
    """What was read from a file, as a pydantic model that says what must be in it; ``where`` begins the error.

    Raises
    ------
    ValueError : the first key that is missing, or holds something else than it should.
    """
    try:
        return kind.model_validate(held)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(map(str, wrong["loc"]))
        raise ValueError(where + ": ".join(filter(None, (key, wrong["msg"].lower())))) from None


def make_folder(folder: Path) -> list[Path]:
    """Create a folder with those above it, and return the folders that got a new name in them."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return [each.parent for each in missing]


def partial_path(path: Path) -> Path:
    """The temporary name of a file or folder. Two processes may write the same one: each has a name of its own."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.partial")


def tidy(folder: Path, name: str = "") -> None:
    """Remove what processes of this machine left unfinished in ``folder`` when killed: all, or of one name."""
    for left in folder.glob(f"{glob.escape(name)}*.partial"):
        if not abandoned(left):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(PermissionError):  # of another user
                left.unlink(missing_ok=True)


def abandoned(path: Path) -> bool:
    """Whether a temporary file or folder belongs to a process of this machine that is gone."""
    owner = path.name.removesuffix(".partial").rpartition(f".{socket.gethostname()}-")
    return path.name.endswith(".partial") and owner[2].isdecimal() and not _alive(int(owner[2]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that gets its name after all of it is written and flushed to disk; if that fails, it is removed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     with whole(Path(home, "new", "a.txt")) as file:
    ...         _ = file.write(b"all of it")
    ...     Path(home, "new", "a.txt").read_text()
    'all of it'
    """
    with whole_path(path) as partial, partial.open("wb") as file:
        yield file


def link(made: Path, view: Path) -> None:
    """Let ``view`` be the finished file ``made``: a hard link where the file system has them, else a copy."""
    with whole_path(view) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(made, partial)
        except OSError:
            shutil.copyfile(made, partial)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 text file or none of it."""
    with whole(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to disk, if the system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows can't open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems can't flush a folder
            raise
    finally:
        os.close(handle)
