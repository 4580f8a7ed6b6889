"""Is every file of a run what was written? Hashes of artefacts, compared again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcq.engine.comparison import TABLES
from qcq.engine.folder import TRACERS, VIEWED, VIEWS, links
from qcq.engine.store import ROW, UNREADABLE, intact
from qcq.errors import ConfigError
from qcq.run import MANIFEST, cells_of
from qcq.support.files import abandoned, from_json, sha256, within, write_text
from qcq.support.folders import MARK, as_written, refuse_newer, write_mark
from qcq.support.lock import LOCK, OWNER, occupied

if TYPE_CHECKING:
    from qcq.run import Run

SETTINGS = "config.toml"
FILES: tuple[str, ...] = (SETTINGS, "environment.json", "about.json", "questions.csv", "concepts.csv", "graph.npz")
FILES += (*(f"{name}.jsonl" for name in TABLES), "report.md", "report.html")
OWN = {*FILES, *VIEWS, MANIFEST, VIEWED, MARK, LOCK, OWNER, "cells"}  # what a run writes
CELL = re.compile(r"[0-9a-f]{32}")  # the folder of a finished cell
FOREIGN = "not written by"  # how what is said of a file begins that isn't the run's: it is never removed
LEFT = "left by a process that was stopped"


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
    """Write the hashes of what a run has written, its cells apart: each cell's row has those of its artefacts."""
    with suppress(FileNotFoundError):  # in a run of qcq 0.1 all views are taken for its own
        viewed = set(from_json((run.path / VIEWED).read_text(encoding="utf-8")))
        own = (path for path in _views(run) if path.relative_to(run.path).as_posix() in {*FILES, *viewed})
        _write(run, own, {})
        (run.path / VIEWED).unlink()
        return
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
    write_text(run.path / MANIFEST, _listed({**before, **made}))


def _listed(hashes: Mapping[str, str]) -> str:
    return json.dumps({"files": dict(sorted(hashes.items()))}, indent=1) + "\n"


def _hashes(run: Run) -> dict[str, str] | None:
    """The hashes written with a run's files; None if they are not as they were written."""
    try:
        text = (run.path / MANIFEST).read_text(encoding="utf-8")
        held = dict(from_json(text)["files"])
        whole = text == _listed(held)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return held if whole and all(isinstance(digest, str) and within(name) for name, digest in held.items()) else None


def settled(run: Run) -> bool:
    """Whether a run's settings are those that were written; True also where there is no hash of them."""
    held = _hashes(run) if (run.path / MANIFEST).is_file() else None
    path = run.path / SETTINGS
    return not held or SETTINGS not in held or (path.is_file() and sha256(path) == held[SETTINGS])


def verify(run: Run) -> tuple[list[Fault], int]:
    """Compare every file of a run, and every cell of its store, with the hashes written with them.

    Of a run without a list of hashes only the cells are compared, and the missing list is a fault: the run isn't
    finished, or a qcq made it that wrote no hashes.

    Returns
    -------
    faults : files that changed, are cut short, missing, or were not written by the run; empty if all is well.
    checked : number of files that were compared.
    """
    known: dict[tuple[int, int], str] = {}
    store = _store(run)
    faults = [
        *_marks(run, store),
        *(Fault(path, "is a link") for path in links(run.path)),
    ]
    checked = 0
    if not store.is_dir():
        faults.append(Fault(store, "is missing"))
    for path in sorted(store.iterdir()) if store.is_dir() else ():
        if CELL.fullmatch(path.name) and path.is_dir():
            found, n = _cell(path, known)
            faults, checked = faults + found, checked + n
        elif abandoned(path):
            faults.append(Fault(path, LEFT))
        elif path.name != MARK and not path.name.startswith(".") and not path.name.endswith(".partial"):
            faults.append(Fault(path, f"{FOREIGN} qcq"))
    held = _hashes(run) if (run.path / MANIFEST).is_file() else None
    if held is None:
        return [*faults, Fault(run.path / MANIFEST, _no_hashes(run))], checked
    there = {path.relative_to(run.path).as_posix(): path for path in _views(run)}
    there |= {
        path.name: path for path in run.path.iterdir() if path.name not in OWN and not path.name.endswith(".partial")
    }
    for name in sorted({*held, *there}):
        path = run.path / name
        if name not in there:
            faults.append(Fault(path, "is missing" if not path.exists() else "is not a file"))
        elif name not in held:
            faults.append(Fault(path, f"{FOREIGN} this run"))
        elif not path.is_file():
            faults.append(Fault(path, "is not a file"))
        elif _hash(path, known) != held[name]:
            faults.append(Fault(path, "changed since it was written"))
    with suppress(ConfigError):  # a file that can't be read is a fault already
        keys = run.read_json("about.json").get("cells", ())
        faults += [
            Fault(store / key, "is missing", key)
            for key in keys
            if store.is_dir() and CELL.fullmatch(str(key)) and not (store / key).is_dir()
        ]
    return faults, checked + len(there)


def _no_hashes(run: Run) -> str:
    """Why a run's list of hashes can't be read."""
    if (run.path / MANIFEST).is_file():
        return "changed since it was written"
    with suppress(ConfigError):  # what says that the run is finished may be lost too
        if run.finished:
            return "is missing, so the tables and views can't be compared; the run's command or --repair writes it"
    return "is missing, because the run is not finished; the same command or --repair finishes it"


def _marks(run: Run, store: Path) -> Iterator[Fault]:
    """Marks that a run and its store have lost."""
    for folder, kind in ((run.path, "run"), (store, "store")):
        try:
            if folder.is_dir() and refuse_newer(folder) != kind:
                yield Fault(folder / MARK, "is missing" if not (folder / MARK).exists() else f"is not that of a {kind}")
            elif folder.is_dir() and not as_written(folder, kind):
                yield Fault(folder / MARK, "changed since it was written")
        except ConfigError:
            yield Fault(folder / MARK, "cannot be read")


def discard(run: Run, faults: list[Fault]) -> list[Path]:
    """Remove what is faulty, so that the same run makes it again. Files that the run did not write stay.

    Returns
    -------
    list : faulty models of :func:`qcq.report.trace`, which the run itself doesn't make again.

    Raises
    ------
    ConfigError : the settings themselves are faulty, so it isn't known what to make again. They stay, all else that is
        faulty is removed. Or a folder that isn't empty is in the place of a file, or a link in the place of a folder.
    """
    file = run.path / SETTINGS
    for fault in faults:
        at = fault.path
        if fault.what == "is a link" or (fault.what == "is not a file" and not at.is_symlink() and any(at.iterdir())):
            raise ConfigError(f"{at}: {fault.what}, and qcq did not make it; move it away, and repair again")
    with occupied(run.path):
        dropped = _discarded(run, _store(run), [fault for fault in faults if fault.path != file])
    if file in {fault.path for fault in faults}:
        raise ConfigError(f"{file}: the run's settings are faulty; run the first command again to repair it")
    return dropped


def _discarded(run: Run, store: Path, faults: list[Fault]) -> list[Path]:
    foreign = {fault.path.parent for fault in faults if fault.what.startswith(FOREIGN)}  # of cells, among others
    for fault in faults:
        if fault.path.name == MARK:
            fault.path.unlink(missing_ok=True)
            write_mark(fault.path.parent, "store" if fault.path.parent == store else "run")
        elif fault.what.startswith(FOREIGN):
            continue
        elif fault.path.is_relative_to(store) and fault.path != store:
            cell = store / fault.path.relative_to(store).parts[0]
            if cell in foreign:
                raise ConfigError(
                    f"{cell}: a faulty cell, with files that qcq did not write; move them away, and repair again"
                )
            if cell.is_dir():
                shutil.rmtree(cell, ignore_errors=True)
            else:
                cell.unlink(missing_ok=True)
        elif fault.path.is_dir() and not fault.path.is_symlink():
            fault.path.rmdir()
        else:
            fault.path.unlink(missing_ok=True)
    models = {fault.path.with_suffix(".safetensors") for fault in faults if fault.path.parent == run.path / TRACERS}
    for model in models:  # a model and what is said of it go together
        model.unlink(missing_ok=True)
        model.with_suffix(".json").unlink(missing_ok=True)
    return sorted(models)


def _store(run: Run) -> Path:
    where, fold = "", 0
    with suppress(ConfigError):  # settings that can't be read are a fault of their own
        where, fold = str(run.config.get("store", "")), int(run.config.get("fold", 0))
    if not where or "://" in where:  # in front of an address, too
        return cells_of(run.path, fold)
    if not Path(where).is_absolute() and not Path(where).is_dir():
        raise ConfigError(
            f"{run.path}: its store {where} isn't here; that path begins in the folder where the run was started: "
            "verify the run there"
        )
    return Path(where)


def _views(run: Run) -> Iterator[Path]:
    """Files that a run writes, beyond its cells and the manifest."""
    for path in sorted(run.path.iterdir()):
        if path.name in VIEWS:
            yield from (file for file in sorted(path.rglob("*")) if file.is_file() and not path.is_symlink())
        elif path.name in FILES:
            yield path


def _cell(folder: Path, known: dict[tuple[int, int], str]) -> tuple[list[Fault], int]:
    """Faults of a finished cell, and the number of its files."""
    try:
        text = (folder / ROW).read_text(encoding="utf-8")
        held: dict[str, Any] = from_json(text)
        label = f"{held['kind']} {held['label']}"
        files: dict[str, str] = held.get("files", {})
        if not isinstance(files, dict) or not all(map(within, files)):
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
            faults.append(Fault(folder / name, f"{FOREIGN} this cell", label))
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
