"""The store: the results of finished cells, each in a folder named by the cell's key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from qcq.engine.cell import Cell, Row
from qcq.errors import StoreError
from qcq.support.arrays import read_npz
from qcq.support.files import from_json, partial_path, sha256, sync_folder, tidy, write_text
from qcq.support.folders import MARK, claim

T = TypeVar("T")

ROW = "row.json"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
MOST_CACHED = 24  # objects made from finished cells that a process caches


class Store:
    """A folder of finished cells.

    ``KEY/row.json`` is the row of a cell, with the SHA-256 of its artefacts, which are in the same folder. A cell is
    written into ``KEY.HOST-PID.partial``, which is renamed when it is complete. So a folder with a plain key is always
    finished, and two processes that run the same cell at once don't disturb each other: the second drops its result.

    Parameters
    ----------
    path : the folder; created if necessary.
    data : digest → data that cells work on; cells refer to them by digest.

    Raises
    ------
    ConfigError : the folder holds files that qcq did not make.
    """

    def __init__(self, path: str | Path, data: Mapping[str, Any] | None = None) -> None:
        self.path, self.data = Path(path), dict(data or {})
        self._cached: OrderedDict[str, Any] = OrderedDict()
        self._rows: dict[str, dict[str, Any]] = {}
        self._running: set[str] = set()

    def open(self) -> Store:
        """Make the folder and tidy it."""
        claim(self.path, "store")
        self.tidy()
        return self

    def seen(self) -> bool:
        """Whether this machine sees the opened store."""
        return (self.path / MARK).is_file()

    def tidy(self) -> None:
        """Remove what processes of this machine left unfinished when they were killed."""
        tidy(self.path)

    def finished(self, cell: Cell) -> bool:
        """Whether the cell's result is in the store, with all its files. What is in them isn't looked at."""
        return self._here(cell)

    def _here(self, cell: Cell) -> bool:
        """Whether the folder has the cell's result."""
        made = self.path / cell.key
        if not (made / ROW).is_file():
            return False
        try:
            return all((made / name).is_file() for name in self._read(cell).get("files", ()))
        except UNREADABLE:  # :meth:`row` says so
            return True

    def row(self, cell: Cell) -> Row:
        """The row of a finished cell.

        Raises
        ------
        StoreError : the cell isn't finished, or its row can't be read, or changed since it was written.
        """
        try:
            row: Row = self._read(cell)["row"]
        except UNREADABLE as error:
            raise StoreError(
                f"{self.path / cell.key}: no readable row of {type(cell).__name__} {cell.label!r} ({error}); "
                "remove that folder and run again"
            ) from None
        return row

    def _read(self, cell: Cell) -> dict[str, Any]:
        """What the file of a cell's row says."""
        if cell.key not in self._rows:
            text = (self.path / cell.key / ROW).read_text(encoding="utf-8")
            held: dict[str, Any] = from_json(text)
            if not intact(held, text):
                raise ValueError("changed since it was written")
            self._rows[cell.key] = held
        return self._rows[cell.key]

    def file(self, cell: Cell, name: str) -> Path:
        """Where an artefact of a cell is; while the cell runs, where to write it."""
        return (self._workspace(cell) if cell.key in self._running else self.path / cell.key) / name

    def arrays(self, cell: Cell, name: str) -> dict[str, NDArray]:
        """The arrays of an ``.npz`` artefact of a finished cell.

        Raises
        ------
        StoreError : it can't be read.
        """
        path = self.file(cell, name)
        try:
            return read_npz(path)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise StoreError(
                f"{path}: {type(cell).__name__} {cell.label!r} has no readable arrays ({said}); "
                "remove its folder and run again"
            ) from None

    def perform(self, cell: Cell, run: Callable[[], Row], *, redo: bool = False) -> Row:
        """The row of a cell: read if it is finished, otherwise ``run`` and stored, all or nothing."""
        if redo and self.finished(cell):
            self.drop(cell)
        if self._here(cell):
            return self.row(cell)
        made = self.path / cell.key
        if made.is_dir():
            if self._here(cell):  # another process has just finished it
                return self.row(cell)
            self._remove(cell)  # it was whole when it got its name, and has lost a file since
        work = self._workspace(cell)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self._running.add(cell.key)
        try:
            row = run()
            files = {p.relative_to(work).as_posix(): sha256(p) for p in sorted(work.rglob("*")) if p.is_file()}
            named = {"kind": type(cell).__name__, "label": cell.label, "revision": cell.revision}
            about = json.loads(json.dumps({**named, "row": row, "files": files}))  # as it is read again
            write_text(work / ROW, json.dumps({**about, "seal": sealed(about)}) + "\n")
            try:
                os.rename(work, made)
            except OSError:
                if not self._here(cell):  # otherwise another process finished first, with the same bytes
                    raise
            sync_folder(self.path)
        finally:
            self._running.discard(cell.key)
            shutil.rmtree(work, ignore_errors=True)
        return self.row(cell)

    def drop(self, cell: Cell) -> None:
        """Remove a finished cell."""
        self._cached.clear()
        self._remove(cell)

    def _remove(self, cell: Cell) -> None:
        self._rows.pop(cell.key, None)
        gone = partial_path(self.path / f"{cell.key}.dropped")  # a name that is tidied up if this process is killed
        try:
            os.rename(self.path / cell.key, gone)
        except FileNotFoundError:  # another process has dropped it first
            return
        shutil.rmtree(gone, ignore_errors=True)

    def cached(self, key: str, make: Callable[[], T]) -> T:
        """An object that many cells of one process need (graph, task, exact chain): cached; the oldest are dropped."""
        if key not in self._cached:
            self._cached[key] = make()
            while len(self._cached) > MOST_CACHED:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        return self._cached[key]

    def _workspace(self, cell: Cell) -> Path:
        return partial_path(self.path / cell.key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": OrderedDict(), "_rows": {}, "_running": set()}


def intact(held: Mapping[str, Any], text: str) -> bool:
    """Whether a row's file is as it was written; True of rows from before seals and hashes were written."""
    if "seal" not in held:
        return "files" not in held
    return held["seal"] == sealed(held) and text == json.dumps(held) + "\n"


def sealed(about: Mapping[str, Any]) -> str:
    """SHA-256 of what a row's file says, its own seal apart."""
    held = {key: value for key, value in about.items() if key != "seal"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
