"""Is every file of a run what was written? Hashes of artefacts, compared again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcq.engine.comparison import TABLES
from qcq.engine.folder import MANIFEST, TRACERS, VIEWS
from qcq.engine.store import ROW, UNREADABLE, intact
from qcq.errors import ConfigError
from qcq.support.files import sha256, write_text
from qcq.support.folders import MARK
from qcq.support.lock import LOCK, OWNER, occupied

if TYPE_CHECKING:
    from qcq.run import Run

SETTINGS = "config.toml"
FILES: tuple[str, ...] = (SETTINGS, "environment.json", "about.json", "questions.csv", "concepts.csv", "graph.npz")
FILES += (*(f"{name}.jsonl" for name in TABLES), "report.md", "report.html")
OWN = {*FILES, *VIEWS, MANIFEST, MARK, LOCK, OWNER, "cells"}  # what a run writes


@dataclass(frozen=True)
class Fault:
    """A file that is not what was written.

    Attributes
    ----------
    path : the file or folder.
    what : what is wrong with it.
    cell : the cell to do again, by its label; empty for a view or a foreign file.
    """

    path: Path
    what: str
    cell: str = ""

    def __str__(self) -> str:
        again = f"; cell to do again: {self.cell}" if self.cell else ""
        return f"{self.path}: {self.what}{again}"


def write_manifest(run: Run) -> None:
    """Write the hashes of a run's files, its cells apart: each cell's row has those of its artefacts."""
    _write(run, _views(run), {})


def add_to_manifest(run: Run, files: Iterable[Path]) -> None:
    """Write the hashes of new files of a finished run beside those that it has, which stay, so that no fault is hidden.

    A run that isn't finished has no hashes yet; they are written when it is.
    """
    if (run.path / MANIFEST).is_file():
        _write(run, files, _hashes(run) or {})


def _write(run: Run, files: Iterable[Path], before: Mapping[str, str]) -> None:
    known: dict[tuple[int, int], str] = {}
    made = {path.relative_to(run.path).as_posix(): _hash(path, known) for path in files}
    write_text(run.path / MANIFEST, json.dumps({"files": dict(sorted({**before, **made}.items()))}, indent=1) + "\n")


def _hashes(run: Run) -> dict[str, str] | None:
    """The hashes written with a run's files; None if they can't be read."""
    try:
        held = dict(json.loads((run.path / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return held if all(isinstance(digest, str) for digest in held.values()) else None


def settled(run: Run) -> bool:
    """Whether a run's settings are those that were written; True also where there is no hash of them."""
    held = _hashes(run) if (run.path / MANIFEST).is_file() else None
    path = run.path / SETTINGS
    return not held or SETTINGS not in held or (path.is_file() and sha256(path) == held[SETTINGS])


def verify(run: Run) -> tuple[list[Fault], int]:
    """Compare every file of a run, and every cell of its store, with the hashes written with them.

    Returns
    -------
    faults : files that changed, are cut short, missing, or were not written by the run; empty if all is well.
    checked : number of files that were compared.

    Raises
    ------
    ConfigError : the run was made by a qcq that wrote no hashes, or is not finished.
    """
    if not (run.path / MANIFEST).is_file():
        what, fix, finished = "is not finished", "finish it by the same command", False
        with suppress(ConfigError):  # what says so may be lost too
            finished = run.finished
        if finished:
            what, fix = "was made by a qcq that wrote no hashes", "to have them, make it again by the same command"
        raise ConfigError(f"{run.path}: the run {what}, so there is nothing to compare; {fix}")
    known: dict[tuple[int, int], str] = {}
    faults: list[Fault] = []
    checked = 0
    store = _store(run)
    if not store.is_dir():
        faults.append(Fault(store, "is missing"))
    for folder in sorted(store.iterdir()) if store.is_dir() else ():
        if folder.is_dir() and "." not in folder.name:
            found, n = _cell(folder, known)
            faults, checked = faults + found, checked + n
        elif folder.name != MARK and not folder.name.startswith("."):
            left = ".partial" in folder.name or ".dropped" in folder.name
            faults.append(Fault(folder, "left by a process that was stopped" if left else "not written by qcq"))
    held = _hashes(run)
    if held is None:
        return [*faults, Fault(run.path / MANIFEST, "cannot be read")], checked
    there = {path.relative_to(run.path).as_posix(): path for path in _views(run)}
    there |= {path.name: path for path in run.path.iterdir() if path.name not in OWN}
    for name in sorted({*held, *there}):
        path = run.path / name
        if name not in there:
            faults.append(Fault(path, "is missing"))
        elif name not in held:
            faults.append(Fault(path, "not written by this run"))
        elif _hash(path, known) != held[name]:
            faults.append(Fault(path, "changed since it was written"))
    return faults, checked + len(there)


def discard(run: Run, faults: list[Fault]) -> list[Path]:
    """Remove what is faulty, so that the same run makes it again. Files that the run did not write stay.

    Returns
    -------
    list : faulty models of :func:`qcq.report.trace`, which the run itself doesn't make again.

    Raises
    ------
    ConfigError : the settings themselves are faulty, so it isn't known what to make again. They stay, all else that is
        faulty is removed.
    """
    file = run.path / SETTINGS
    with occupied(run.path):
        dropped = _discarded(run, _store(run), [fault for fault in faults if fault.path != file])
    if file in {fault.path for fault in faults}:
        raise ConfigError(f"{file}: the run's settings are faulty; run the first command again to repair it")
    return dropped


def _discarded(run: Run, store: Path, faults: list[Fault]) -> list[Path]:
    for fault in faults:
        if fault.path.is_relative_to(store) and fault.path != store:
            cell = store / fault.path.relative_to(store).parts[0]
            if cell.is_dir():
                shutil.rmtree(cell, ignore_errors=True)
        elif fault.what != "not written by this run":
            fault.path.unlink(missing_ok=True)
    models = {fault.path.with_suffix(".safetensors") for fault in faults if fault.path.parent == run.path / TRACERS}
    for model in models:  # a model and what is said of it go together
        model.unlink(missing_ok=True)
        model.with_suffix(".json").unlink(missing_ok=True)
    return sorted(models)


def _store(run: Run) -> Path:
    try:
        where = str(run.config.get("store", ""))
    except ConfigError:  # settings that can't be read are a fault of their own
        where = ""
    return Path(where) if where and "://" not in where else run.path / "cells"  # in front of an address, too


def _views(run: Run) -> Iterator[Path]:
    """Files that a run writes, beyond its cells and the manifest."""
    for path in sorted(run.path.iterdir()):
        if path.name in VIEWS:
            yield from (file for file in sorted(path.rglob("*")) if file.is_file())
        elif path.name in FILES:
            yield path


def _cell(folder: Path, known: dict[tuple[int, int], str]) -> tuple[list[Fault], int]:
    """Faults of a finished cell, and the number of its files."""
    try:
        text = (folder / ROW).read_text(encoding="utf-8")
        held: dict[str, Any] = json.loads(text)
        label = f"{held['kind']} {held['label']}"
        files: dict[str, str] = held.get("files", {})
        if not isinstance(files, dict):
            raise TypeError("not names and hashes")
    except UNREADABLE:
        return [Fault(folder / ROW, "cannot be read", f"folder {folder.name}")], 1
    if not intact(held, text):
        return [Fault(folder / ROW, "changed since it was written", label)], 1
    if "seal" not in held:
        return [], 0  # made before hashes were written
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    faults = []
    for name in sorted({*files, *there} - {ROW}):
        if name not in there:
            faults.append(Fault(folder / name, "is missing", label))
        elif name not in files:
            faults.append(Fault(folder / name, "not written by this cell", label))
        elif _hash(there[name], known) != files[name]:
            faults.append(Fault(folder / name, "changed since it was written", label))
    return faults, len(there)


def _hash(path: Path, known: dict[tuple[int, int], str]) -> str:
    """SHA-256 of a file; a view and its artefact are often one file on disk, which is read once."""
    at = path.stat()
    key = (at.st_dev, at.st_ino)
    if key not in known:
        known[key] = sha256(path)
    return known[key]
