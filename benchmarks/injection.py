"""A fault at the n-th call that changes a folder: every open for writing, write, flush, rename, link and new folder.

The shim replaces Python's own functions in this process, so it is under every writer: ours, and those of numpy, json,
polars, torch and safetensors. The last two write files by path in compiled code; a call of theirs is one call here,
and a fault in it leaves half a file.
"""

from __future__ import annotations

import ast
import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import qcq

PACKAGE = Path(qcq.__file__).parent
OUTSIDE = ("tests", "benchmarks", "docs", "examples", "typings", "experiments")


@dataclass(frozen=True)
class Fault:
    """What a call does instead of its work.

    Parameters
    ----------
    name : in the results.
    raised : the exception; None for SIGKILL.
    lasting : whether all later calls of the same kinds fail too, as on a full disk.
    operations : the calls that can fail so; all if empty.
    """

    name: str
    raised: Callable[[str], BaseException] | None
    lasting: bool = False
    operations: tuple[str, ...] = ()


def _os_error(number: int) -> Callable[[str], BaseException]:
    return lambda path: OSError(number, os.strerror(number), path)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("ENOSPC", _os_error(errno.ENOSPC), lasting=True, operations=("open", "write", "mkdir", "link", "save")),
        Fault("EIO", _os_error(errno.EIO)),
        Fault("EACCES", _os_error(errno.EACCES)),
        Fault("ESTALE", _os_error(errno.ESTALE), lasting=True),  # a network mount that vanished
        Fault("MemoryError", lambda path: MemoryError()),
        Fault("SIGKILL", None),
    )
}


@dataclass
class Shim:
    """Counts the calls that change a folder, and makes one of them fail.

    Parameters
    ----------
    folder : calls elsewhere are not counted.
    fault : what the call does; None to count only.
    at : which call, from 0.

    Attributes
    ----------
    calls : the kinds of the calls so far.
    lines : the lines of the package that a call came through: (file, line).
    struck : the call and the line of the package where the fault was; None as long as there was none.
    """

    folder: Path
    fault: Fault | None = None
    at: int = 0
    calls: list[str] = field(default_factory=list)
    lines: set[tuple[str, int]] = field(default_factory=set)
    struck: str | None = None

    def call(self, operation: str, path: Any, half: Callable[[], object] = lambda: None) -> None:
        """One call; ``half`` does half of its work, which is done before a fault in the middle of a write."""
        if not self._inside(path):
            return
        number = len(self.calls)
        self.calls.append(operation)
        where = list(_package_lines(sys._getframe(2)))
        self.lines.update(where)
        if self.fault is None or (self.fault.operations and operation not in self.fault.operations):
            return
        if self.struck is None and number >= self.at:
            near = next((line for line in where if line[0] != "support/files.py"), ("", 0))
            self.struck = f"{operation} in {near[0]}:{near[1]}"
        elif self.struck is None or not self.fault.lasting:
            return
        half()
        if self.fault.raised is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise self.fault.raised(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path))

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return False
        return isinstance(path, str | os.PathLike) and Path(os.path.abspath(path)).is_relative_to(self.folder)

    @contextmanager
    def under(self) -> Iterator[Shim]:
        """While the block runs, the shim is under every writer of this process."""
        import polars as pl
        import safetensors.numpy
        import safetensors.torch

        opened, raw_open = io.open, os.open

        def open_(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
            if not set("wxa+") & set(mode) or isinstance(file, int) or not self._inside(file):
                return opened(file, mode, buffering, *rest, **more)
            self.call("open", file)
            return self._file(file, mode, *rest, **more)

        def os_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and more.get("dir_fd") is None:
                self.call("open", path)
            return raw_open(path, flags, *rest, **more)

        patched: list[tuple[Any, str, Any]] = [(builtins, "open", open_), (io, "open", open_), (os, "open", os_open)]
        for name, operation, which in (
            ("fsync", "fsync", 0),
            ("replace", "rename", 1),
            ("rename", "rename", 1),
            ("link", "link", 1),
            ("mkdir", "mkdir", 0),
            ("unlink", "unlink", 0),
        ):
            patched.append((os, name, self._counted(getattr(os, name), operation, which)))
        by_path: list[tuple[Any, str]] = [(module, "save_file") for module in (safetensors.numpy, safetensors.torch)]
        by_path += [(pl.DataFrame, name) for name in ("write_csv", "write_parquet")]
        patched += [(where, name, self._saved(getattr(where, name))) for where, name in by_path]
        before = [(where, name, getattr(where, name)) for where, name, _ in patched]
        try:
            for where, name, made in patched:
                setattr(where, name, made)
            yield self
        finally:
            for where, name, made in before:
                setattr(where, name, made)

    def _counted(self, function: Callable[..., Any], operation: str, which: int) -> Callable[..., Any]:
        def counted(*given: Any, **more: Any) -> Any:
            if not any(more.get(key) is not None for key in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
                self.call(operation, given[which])
            return function(*given, **more)

        return counted

    def _saved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A writer by path: with a fault, half of its file is there."""

        def saved(*given: Any, **more: Any) -> Any:
            path = given[1] if len(given) > 1 else None
            if not isinstance(path, str | os.PathLike):
                return function(*given, **more)

            def half() -> None:
                function(*given, **more)
                os.truncate(path, os.path.getsize(path) // 2)

            self.call("save", path, half)
            return function(*given, **more)

        return saved

    def _file(self, path: Any, mode: str, encoding: Any = None, errors: Any = None, newline: Any = None) -> IO[Any]:
        """An open file whose every write to the system is a call."""
        shim = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                held = bytes(data)
                shim.call("write", path, lambda: super(Raw, self).write(held[: len(held) // 2]))
                return super().write(held)

        raw = Raw(path, mode.replace("b", "").replace("t", ""))
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


def _package_lines(frame: Any) -> Iterator[tuple[str, int]]:
    """The lines of the package that are being executed, the innermost first."""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE) or (file := file.resolve()).is_relative_to(PACKAGE.resolve()):
            root = PACKAGE if file.is_relative_to(PACKAGE) else PACKAGE.resolve()
            name = file.relative_to(root).as_posix()
            if name.split("/")[0] not in OUTSIDE:
                yield name, frame.f_lineno
        frame = frame.f_back


WRITERS = {"write_text", "save_file", "write_csv", "write_parquet", "mkdir", "touch"}
WRITERS |= {"savez", "savez_compressed", "tofile", "write_image", "copyfile"}
OF_FILES = {"whole", "whole_path", "link"}  # of support/files.py; a frame has a method whole of its own


def sites() -> dict[tuple[str, int], int]:
    """Where the package writes: (file, first line of the call) → its last line."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] in OUTSIDE or "typings" in name:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "qcq.support.files"
            for alias in node.names
        } | (OF_FILES if name == "support/files.py" else set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _writes(node, known & OF_FILES):
                found[name, node.lineno] = node.end_lineno or node.lineno
    return found


def _writes(node: ast.Call, of_files: set[str]) -> bool:
    if isinstance(node.func, ast.Name):
        called = node.func.id
        if called in of_files:
            return True
    else:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if called == "open":
        modes = [*node.args, *(word.value for word in node.keywords)]
        return any(
            isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wxa") for m in modes
        )
    if called in ("replace", "rename"):  # text and frames have methods of these names
        return isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "os"
    return called in WRITERS
