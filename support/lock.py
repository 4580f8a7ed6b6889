"""One process at a time in a folder: a lock whose owner is named.

The lock is the kernel's (``flock`` by the library filelock). It is given back when its process ends, however it ends,
also over NFS (version 4, or 3 with lockd), SMB, CephFS and GPFS. So none is left by a process that was killed, on this
machine or another one. A file that is made with ``O_EXCL`` would be left, and on another machine nobody could tell
whether its owner lives. It is used only where the file system has no locks (Lustre without ``-o flock``): filelock then
takes over a file of a process of this machine that is dead, and any other one has to be removed by hand.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qcq.errors import ConfigError
from qcq.support.files import from_json, write_text

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK, OWNER = ".lock", ".owner.json"  # the first stays in the folder, empty; the second says who works there
LOCKLESS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what a file system without locks answers
PATIENCE = 2.0  # seconds for which the name of an owner is waited for, who may have just begun

_mine: set[tuple[int, Path]] = set()  # (thread, folder) that this process holds


@contextmanager
def occupied(*folders: str | Path) -> Iterator[None]:
    """Let no other process or thread work in these folders until the block ends. A thread may ask for one again.

    Raises
    ------
    ConfigError : another one works in a folder; the text says which, since when and by what command.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home, occupied(home), occupied(home):
    ...     json.loads(Path(home, OWNER).read_text())["pid"] == os.getpid()
    True
    """
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(_one(Path(folder)))
        yield


@contextmanager
def _one(folder: Path) -> Iterator[None]:
    key = threading.get_ident(), folder.resolve()
    if key in _mine:
        yield
        return
    lock = _locked(folder)
    try:
        _mine.add(key)
        write_text(folder / OWNER, json.dumps(_self()) + "\n")
        yield
    finally:
        _mine.discard(key)
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _locked(folder: Path) -> BaseFileLock:
    from filelock import FileLock, SoftFileLock, Timeout

    try:
        try:
            lock: BaseFileLock = FileLock(folder / LOCK, timeout=0)
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in LOCKLESS):
                raise
            lock = SoftFileLock(folder / LOCK, timeout=0)
            lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{folder}: {_owner(folder)} works in this folder; wait until it ends, or name another folder"
        ) from None
    return lock


def _self() -> dict[str, str | int]:
    """What others are told of this process."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "python"
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def _owner(folder: Path) -> str:
    """Who holds the lock."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            told = from_json((folder / OWNER).read_text(encoding="utf-8"))
            command = " ".join(str(told["command"]).split())
            shown = command if len(command) <= 100 else f"{command[:97]}..."
            return f"process {told['pid']} on {told['host']} (since {told['since']}: {shown})"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > until:
                return "another process"
            time.sleep(0.05)
