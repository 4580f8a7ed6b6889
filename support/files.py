"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write the same file: each needs a temporary name of its own.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 text file or none of it."""
    with whole(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to disk, if the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows can't open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
