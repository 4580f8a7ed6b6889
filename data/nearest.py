"""Which formats a folder or file that none of them recognises looks like, by names of files and columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from qcq.data.reader import Reader
from qcq.data.text import header

MOST = 1000  # names in a folder that are looked at
SHOWN = 3  # formats that are named


def nearest(path: Path, formats: Mapping[str, type[Reader]]) -> list[str]:
    """The formats that share most names of files or columns with a path, best first; at most three, perhaps none.

    Examples
    --------
    >>> from qcq.data import DATASETS
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     Path(home, "problem_id_hashmap.json").touch()
    ...     nearest(Path(home), DATASETS)
    ['s2kt']
    """
    shared = {name: _shared(path, kind.needs) for name, kind in formats.items() if kind.needs_path}
    found = sorted((name for name, n in shared.items() if n), key=lambda name: -shared[name])
    return found[:SHOWN]


def _shared(path: Path, needs: str) -> int:
    """How many names of files (of a folder) or columns (of a file) are among those that a format needs."""
    if path.is_dir():
        there = [each.name for each in islice(path.iterdir(), MOST)]
        asked = {_pattern(word) for word in re.findall(r"[\w*…/-]+\.(?:csv|txt|json|npz|npy|graphml)", needs)}
        return sum(any(fnmatch(name, pattern) for name in there) for pattern in asked)
    columns = {name for name in header(path) if len(name) > 2}
    return sum(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", needs.lower()) is not None for name in columns)


def _pattern(name: str) -> str:
    """A name in a sentence as a pattern: its first folder, any text for ``…`` and capitals, any digit for a digit."""
    first = name.split("/")[0]
    return re.sub(r"\d", "[0-9]", re.sub(r"…|\bNAME(?=_)", "*", first))
