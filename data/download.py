"""Whether a downloaded folder is what was published: files, sizes, digests, headings, and the counts of a reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qcq.data import DATASETS, Dataset, load
from qcq.data.catalogue import Copy, Counts, Expected, PublicData
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.words import several

MISSING = "missing"  # what is found of a file that isn't there
PARTS = ("students", "questions", "concepts", "responses")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what : a file, a heading, the reader, or somebody's counts.
    ok : False where something is missing or another version; None where it can't be judged.
    found : what was found, in words.
    """

    what: str
    ok: bool | None
    found: str


def likeliest(entries: Mapping[str, PublicData], folder: Path) -> str:
    """The name of the data set of which most of the expected files are in a folder; the first one of equals.

    Examples
    --------
    >>> from qcq.data.catalogue import named
    >>> likeliest(named("junyi"), Path("nowhere"))
    'junyi-2015'
    """
    return max(entries, key=lambda name: _share(entries[name], folder))


def look(data: PublicData, folder: Path, *, read: bool = True) -> Iterator[Finding]:
    """Compare a folder with what is published of a data set.

    Parameters
    ----------
    read : whether to read it, so that its counts can be compared; large sets take minutes.

    Yields
    ------
    Finding : files first, then their headings, then the reader, then counts.
    """
    if not folder.is_dir():
        raise DataError("no such folder", file=folder, fix="name the folder that holds the files")
    for expected in data.files:
        yield from _file(expected, folder)
    if not data.reader:
        yield Finding("reader", None, data.note)
        return
    kind = DATASETS[data.reader]
    known = kind.recognises(folder)
    yield Finding(
        "recognised", known, f"as {data.reader}" if known else f"not as {data.reader}, which needs {kind.needs}"
    )
    if not read:
        return
    try:
        made = load(f"{data.reader}:{folder}", {data.reader: data.settings})
    except DataError as error:
        yield Finding("read", False, str(error))
        return
    yield Finding("read", True, _words(_counted(made)))
    for counts in data.counts:
        yield _compared(counts, _counted(made))


def editions(expected: Expected) -> list[Copy]:
    """The copies of a file that differ by more than the folder they lie in.

    Examples
    --------
    >>> [copy.path for copy in editions(Expected((Copy("a/x.csv"), Copy("x.csv"), Copy("y.csv"))))]
    ['a/x.csv', 'y.csv']
    """
    first: dict[str, Copy] = {}
    for copy in expected.copies:
        first.setdefault(Path(copy.path).name, copy)
    return list(first.values())


def _share(data: PublicData, folder: Path) -> float:
    needed = [each for each in data.files if each.needed]
    return sum(any(_paths(copy, folder) for copy in each.copies) for each in needed) / max(len(needed), 1)


def _paths(copy: Copy, folder: Path) -> list[Path]:
    if "*" not in copy.path:
        return [folder / copy.path] if (folder / copy.path).is_file() else []
    return sorted(file for file in folder.glob(copy.path) if file.is_file())


def _file(expected: Expected, folder: Path) -> Iterator[Finding]:
    found = [(copy, paths) for copy in expected.copies if (paths := _paths(copy, folder))]
    if not found:
        if expected.needed:
            yield Finding(" or ".join(copy.path for copy in editions(expected)), False, MISSING)
        return
    copies = found if any(copy.sha256 for copy in expected.copies) else found[:1]
    for copy, paths in copies:
        what = paths[0].relative_to(folder).as_posix() if len(paths) == 1 else copy.path
        if expected.number is not None:
            ok = len(paths) == expected.number
            yield Finding(what, ok, f"{several(len(paths), 'file')} of {expected.number:,}")
        else:
            yield _version(what, copy, paths[0])
        if expected.columns:
            heading = header(paths[0])
            missing = [name for name in expected.columns if name.lower() not in heading]
            said = (
                f"no column {', '.join(missing)}"
                if missing
                else several(len(expected.columns), "column") + " as expected"
            )
            yield Finding(f"{paths[0].relative_to(folder).as_posix()}, heading", not missing, said)


def _version(what: str, copy: Copy, path: Path) -> Finding:
    """Size first, then the digest, which reads the whole file."""
    size = path.stat().st_size
    if copy.size is not None and size != copy.size:
        return Finding(what, False, f"another version: {size:,} bytes, where {copy.size:,} are published")
    if copy.sha256:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != copy.sha256:
            said = f"another version: SHA-256 {digest[:12]}…, where {copy.sha256[:12]}… is published"
            return Finding(what, False, said)
        return Finding(what, True, f"{size:,} bytes, SHA-256 as published")
    return Finding(what, True, f"{size:,} bytes" if copy.size is None else f"{size:,} bytes as published")


def _counted(made: Dataset) -> dict[str, int]:
    responses = 0 if made.interactions is None else len(made.interactions)
    return dict(zip(PARTS, (len(made.students), len(made.questions), len(made.concepts), responses), strict=True))


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(several(n, part[:-1]) for part, n in counts.items())


def _compared(counts: Counts, found: Mapping[str, int]) -> Finding:
    """Counts of the same reader must be equal; those of others come after filters of their own."""
    stated = {part: n for part in PARTS if (n := getattr(counts, part)) is not None}
    apart = {part: n for part, n in stated.items() if n != found[part]}
    what = f"counts of {counts.by}"
    if not apart:
        return Finding(what, True, f"equal: {_words(stated)}")
    said = f"{_words(apart)} stated" + (f" ({counts.note})" if counts.note else "")
    return Finding(what, False if counts.ours else None, said)
