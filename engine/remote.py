"""A store at any address that fsspec knows: a bucket, a folder of another file system."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qcq.engine.cell import Cell, Row
from qcq.engine.store import ROW, Store
from qcq.errors import ConfigError, QCQError, StoreError
from qcq.support.files import from_json, within
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
        with self._reached("opened"):
            if not files.exists(mark):
                if files.exists(self._root) and files.ls(self._root):
                    raise ConfigError(f"store {self.address}: holds files that qcq did not make; name another folder")
                files.makedirs(self._root, exist_ok=True)
                files.pipe_file(mark, b'{"kind": "store"}\n')
            elif _kind(files.cat_file(mark)) != "store":
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
        """Whether the address has the cell's result: a cell that could not be copied there is not finished."""
        with self._reached("read"):
            return bool(self._files.exists(f"{self._root}/{cell.key}/{ROW}"))

    def row(self, cell: Cell) -> Row:
        self._fetch(cell)
        return super().row(cell)

    def file(self, cell: Cell, name: str) -> Path:
        if cell.key not in self._running:
            self._fetch(cell)
        return super().file(cell, name)

    def perform(self, cell: Cell, run: Callable[[], Row], *, redo: bool = False) -> Row:
        if not redo:
            self._fetch(cell)
        elif self._here(cell) and not self.finished(cell):
            super().drop(cell)
        row = super().perform(cell, run, redo=redo)
        self._copy(cell)
        return row

    def drop(self, cell: Cell) -> None:
        there = f"{self._root}/{cell.key}"
        if self.finished(cell):
            with self._reached("changed"), suppress(FileNotFoundError):  # another process has dropped it first
                self._files.rm_file(f"{there}/{ROW}")  # without its row it isn't finished
                self._files.rm(there, recursive=True)
        if self._here(cell):
            super().drop(cell)

    def _copy(self, cell: Cell) -> None:
        """Copy a finished cell from the folder to the address, its row last."""
        if self.finished(cell):
            return
        here, there = self.path / cell.key, f"{self._root}/{cell.key}"
        made = [path for path in sorted(here.rglob("*")) if path.is_file()]
        with self._reached("written"):
            for path in sorted(made, key=lambda path: path.name == ROW):
                name = path.relative_to(here)
                self._files.makedirs(f"{there}/{name.parent}", exist_ok=True)
                self._files.put_file(str(path), f"{there}/{name.as_posix()}")

    def _fetch(self, cell: Cell) -> None:
        """Copy a finished cell from the address into the folder, all or nothing."""
        there, here = f"{self._root}/{cell.key}", self.path / cell.key
        if self._here(cell) or not self.finished(cell):
            return
        work = self._workspace(cell)
        shutil.rmtree(work, ignore_errors=True)
        try:
            with self._reached("read"):
                text = self._files.cat_file(f"{there}/{ROW}")
            for name in [*from_json(text)["files"], ROW]:
                if not within(name):
                    raise ValueError(f"a file {name!r}")
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                with self._reached("read"):
                    self._files.get_file(f"{there}/{name}", str(work / name))
            if here.is_dir() and not self._here(cell):  # it has lost a file
                self._remove(cell)
            try:
                work.rename(here)
            except OSError:
                if not self._here(cell):  # otherwise another process fetched it first
                    raise
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.address}/{cell.key}: no readable cell ({error}); remove it and run again"
            ) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _reached(self, done: str) -> Iterator[None]:
        """Turn what an address answers to a request into a StoreError of one line."""
        try:
            yield
        except (QCQError, MemoryError):
            raise
        except Exception as error:  # every kind of address has errors of its own
            name = getattr(error, "filename", None)
            if isinstance(name, str) and Path(name).is_relative_to(self.path):  # of this machine's folder
                raise
            why = " ".join(str(error).split())[:200] or "no reason given"
            raise StoreError(
                f"store {self.address}: can't be {done} ({type(error).__name__}: {why}); check the address and your "
                "rights there, then give the same command again: finished work is kept"
            ) from None


def _kind(mark: bytes) -> str:
    """What a folder's mark says that the folder is; empty if it is no mark."""
    try:
        return str(from_json(mark)["kind"])
    except (ValueError, KeyError, TypeError):
        return ""


def make_store(where: str | Path, folder: Path, data: Mapping[str, Any]) -> Store:
    """The store of a run: at an address, in a folder that several runs share, or (where empty) in ``folder``.

    Raises
    ------
    ConfigError : the store would lie in the run's own folder, whose files are replaced.
    """
    if "://" in str(where):
        return RemoteStore(str(where), folder, data)
    if where and Path(where).resolve().is_relative_to(folder.parent.resolve()):
        raise ConfigError(f"setting store: {where} is in the run's own folder {folder.parent}; name one outside it")
    return Store(where or folder, data)
