"""A store at any address that fsspec knows: a bucket, a folder of another file system."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qcq.engine.cell import Cell, Row
from qcq.engine.store import ROW, Store
from qcq.errors import ConfigError, StoreError
from qcq.support.folders import MARK, claim


class RemoteStore(Store):
    """Finished cells at an address, with a folder of this machine in front of it.

    Cells are written and read in the folder, as in any store. A finished one is copied to the address: its artefacts
    first, its row last, so a cell whose row is there is whole. A cell that the folder lacks is fetched from the address
    when it is first asked for. Machines that share nothing but the address can so work on one plan.

    Parameters
    ----------
    address : ``s3://BUCKET/FOLDER``, ``gs://…``, ``file:///…`` and so on; what fsspec knows.
    path : the folder of this machine.
    data : as for :class:`Store`.

    Raises
    ------
    ConfigError : the address is of a kind that needs a library which isn't installed, or holds something else.

    References
    ----------
    https://filesystem-spec.readthedocs.io
    """

    def __init__(self, address: str, path: str | Path, data: Mapping[str, Any] | None = None) -> None:
        import fsspec

        super().__init__(path, data)
        self.address = address.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"store {address}: no such store can be opened ({error})") from None

    def open(self) -> RemoteStore:
        mark, files = f"{self._root}/{MARK}", self._files
        if not files.exists(mark):
            if files.exists(self._root) and files.ls(self._root):
                raise ConfigError(f"store {self.address}: holds files that qcq did not make; name another folder")
            files.makedirs(self._root, exist_ok=True)
            files.pipe_file(mark, b'{"kind": "store"}\n')
        elif json.loads(files.cat_file(mark))["kind"] != "store":
            raise ConfigError(f"store {self.address}: holds no store; name another folder")
        super().open()
        return self

    def seen(self) -> bool:
        """True: a machine without the folder takes one of its own."""
        if not super().seen():
            self.path = Path(tempfile.gettempdir()) / f"qcq-{hashlib.sha256(self.address.encode()).hexdigest()[:16]}"
            claim(self.path, "store")
        return True

    def finished(self, cell: Cell) -> bool:
        return super().finished(cell) or self._files.exists(f"{self._root}/{cell.key}/{ROW}")

    def row(self, cell: Cell) -> Row:
        self._fetch(cell)
        return super().row(cell)

    def file(self, cell: Cell, name: str) -> Path:
        if cell.key not in self._running:
            self._fetch(cell)
        return super().file(cell, name)

    def perform(self, cell: Cell, run: Callable[[], Row], *, redo: bool = False) -> Row:
        row = super().perform(cell, run, redo=redo)
        there = f"{self._root}/{cell.key}"
        if not self._files.exists(f"{there}/{ROW}"):
            made = [path for path in sorted((self.path / cell.key).rglob("*")) if path.is_file()]
            for path in sorted(made, key=lambda path: path.name == ROW):  # the row last
                self._files.makedirs(f"{there}/{path.relative_to(self.path / cell.key).parent}", exist_ok=True)
                self._files.put_file(str(path), f"{there}/{path.relative_to(self.path / cell.key).as_posix()}")
        return row

    def drop(self, cell: Cell) -> None:
        there = f"{self._root}/{cell.key}"
        if self._files.exists(f"{there}/{ROW}"):
            self._files.rm_file(f"{there}/{ROW}")  # without its row it isn't finished
            self._files.rm(there, recursive=True)
        if super().finished(cell):
            super().drop(cell)

    def _fetch(self, cell: Cell) -> None:
        """Copy a finished cell from the address into the folder, all or nothing."""
        there, here = f"{self._root}/{cell.key}", self.path / cell.key
        if super().finished(cell) or not self._files.exists(f"{there}/{ROW}"):
            return
        work = self._workspace(cell)
        shutil.rmtree(work, ignore_errors=True)
        try:
            about = json.loads(self._files.cat_file(f"{there}/{ROW}"))
            for name in [*about["files"], ROW]:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{there}/{name}", str(work / name))
            if here.is_dir():  # it has lost a file
                self._remove(cell)
            work.rename(here)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.address}/{cell.key}: no readable cell ({error}); remove it and run again"
            ) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)


def make_store(where: str | Path, folder: Path, data: Mapping[str, Any]) -> Store:
    """The store of a run: at an address, in a folder that several runs share, or (where empty) in ``folder``."""
    if "://" in str(where):
        return RemoteStore(str(where), folder, data)
    return Store(where or folder, data)
