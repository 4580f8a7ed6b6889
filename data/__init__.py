"""Data sets by format. ``read("s2kt:DIR")`` reads one; a bare path is recognised by its contents."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcq.data.akt import AKT
from qcq.data.assistments import ASSISTments
from qcq.data.checks import SYNONYMS, refuse_doubts
from qcq.data.csv import CSV
from qcq.data.dataset import Dataset, Interactions, Part, Split, TestPart, TrainPart, ValidationPart
from qcq.data.datashop import KDDCup, Statics
from qcq.data.duplicates import SplitSettings, duplicate_students, same_person, without_duplicates
from qcq.data.edmine import EDMine
from qcq.data.ednet import EdNet
from qcq.data.edudata import EduData
from qcq.data.eedi import Eedi
from qcq.data.frames import from_edges, from_frames, from_graph, is_frame, is_graph
from qcq.data.graphs import GraphFile
from qcq.data.icd import ICD
from qcq.data.junyi import Junyi
from qcq.data.math2015 import Math2015
from qcq.data.nearest import nearest
from qcq.data.pebg import PEBG
from qcq.data.poj import POJ
from qcq.data.pykt import PyKT
from qcq.data.reader import Reader
from qcq.data.s2kt import S2KT
from qcq.data.simulated import Simulated
from qcq.data.xes3g5m import XES3G5M
from qcq.errors import DataError, UnknownNameError
from qcq.support.forked import refuse_forked
from qcq.support.registry import Registry, find

DATASETS: Registry[type[Reader]] = Registry(
    "format",
    {
        "simulated": Simulated,
        "csv": CSV,
        "s2kt": S2KT,
        "akt": AKT,
        "pebg": PEBG,
        "ednet": EdNet,
        "eedi": Eedi,
        "icd": ICD,
        "math2015": Math2015,
        "assistments": ASSISTments,
        "pykt": PyKT,
        "xes3g5m": XES3G5M,
        "edmine": EDMine,
        "kddcup": KDDCup,
        "statics": Statics,
        "junyi": Junyi,
        "edudata": EduData,
        "poj": POJ,
        "graph": GraphFile,
    },
)


LISTED = "'qcq list data' shows what each format needs"


def read(
    source: Any,
    *,
    interactions: Any = None,
    concepts: Any = None,
    merge_repeats: bool | None = None,
    strict: bool = False,
) -> Dataset:
    """A data set from wherever it is.

    Parameters
    ----------
    source : ``"format:path"``; the name of a format that needs no path (``"simulated"``); a path, recognised by its
        contents, in which ``~`` and environment variables are expanded; a polars or pandas frame with the columns
        ``question`` and ``concept`` or ``concepts``; a networkx graph whose nodes have the attribute ``bipartite``; or
        a list of pairs (question, concept).
    interactions : together with a frame or a graph: a frame with ``student, question, correct`` and optionally
        ``timestamp``.
    concepts : together with a frame of questions: a frame with ``concept`` and optionally ``name`` and ``parent``.
    merge_repeats : with a frame: as in :class:`qcq.data.CSV`.
    strict : whether something doubtful is an error instead of a note.

    Returns
    -------
    Dataset : its first note says what it was read or recognised as.

    Raises
    ------
    DataError : what is wrong, with file, row, column, value and what to do.
    UnknownNameError : the format isn't registered.

    Examples
    --------
    >>> import polars as pl
    >>> data = read(pl.DataFrame({"question": ["q1", "q2"], "concepts": ["halves", "halves;thirds"]}))
    >>> data.concepts, data.q_matrix.nnz
    (('halves', 'thirds'), 3)
    """
    if is_frame(source):
        made = from_frames(source, interactions, concepts, merge_repeats=merge_repeats)
        return _checked(made, "read from a frame", strict)
    if merge_repeats is not None:
        fix = "give frames, or the setting csv.merge_repeats"
        raise DataError("merge_repeats goes with a frame", value=type(source).__name__, fix=fix)
    if is_graph(source):
        if concepts is not None:
            raise DataError("a graph brings its concepts along", file="networkx graph", fix="leave concepts= out")
        return _checked(from_graph(source, interactions), "read from a networkx graph", strict)
    if isinstance(source, list):
        if concepts is not None:
            raise DataError("edges bring their concepts along", file="edges", fix="leave concepts= out")
        return _checked(from_edges(source, interactions), "read from edges", strict)
    if interactions is not None or concepts is not None:
        fix = "put interactions.csv and concepts.csv into the folder"
        raise DataError("frames of interactions and concepts go with a frame of questions", value=source, fix=fix)
    if not isinstance(source, str | os.PathLike):
        fix = "give a path, a polars or pandas frame, a networkx graph, or a list of pairs"
        raise DataError("no data set can be read from this", value=type(source).__name__, fix=fix)
    return load(os.fspath(source), strict=strict)


def load(source: str, settings: Mapping[str, Mapping[str, Any]] | None = None, *, strict: bool = False) -> Dataset:
    """What :func:`read` does with text; ``settings`` are by format (``{"simulated": {"students": 50}}``), and those of
    the split (:class:`SplitSettings`)."""
    refuse_forked()
    split = SplitSettings(**(settings or {}).get("split", {}))
    name, where = _parts(source)
    if name is not None:
        kind = find("format", name, DATASETS)
        path = _path(where) if where else None
        if kind.needs_path and path is None:
            raise DataError("no path given", value=source, fix=f"write {name}:PATH; it needs {kind.needs}")
        said = f"read as {name}" if kind.needs_path else f"made by {name}"
    else:
        path = _path(where)
        name = recognise(path)
        kind = DATASETS[name]
        said = f"recognised as {name}"
    return _checked(kind(**(settings or {}).get(name, {})).read(path), said, strict, split)


def recognise(path: Path) -> str:
    """The format of a folder or file, recognised by its contents.

    Raises
    ------
    DataError : it is in none of the known formats; the text names those that it looks like.
    """
    for name, kind in DATASETS.items():
        if kind.needs_path and kind.recognises(path):
            return name
    if CSV.recognises(path, SYNONYMS):  # last: published formats have such headings too
        return "csv"
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("the file is empty", file=path, fix="write it again")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError("the folder is empty", file=path, fix=f"put the files of a data set into it; {LISTED}")
    if renames := CSV.nearly(path):
        raise DataError("no known format", file=path, fix=f"to have it read as csv, rename {renames}")
    near = nearest(path, DATASETS)
    if missing := CSV.lacks(path):
        also = "".join(f"{name}, " for name in near if name != "csv")
        fix = f"add it if this is a table of questions; {also and f'otherwise it looks like {also[:-2]}; '}{LISTED}"
        raise DataError(f"no known format, and no column {missing!r}", file=path, fix=fix)
    if near:
        fix = f"it looks like {', '.join(near)}: {near[0]}:PATH says what is missing; {LISTED}"
        raise DataError("no known format", file=path, fix=fix)
    raise DataError("no known format", file=path, fix=LISTED)


def _parts(source: str) -> tuple[str | None, str]:
    """Format (None: to be recognised) and path. Text that exists as a path is a path, even if it has colons."""
    if source in DATASETS and not (DATASETS[source].needs_path and Path(source).exists()):
        return source, ""
    prefix, _, rest = source.partition(":")
    if prefix in DATASETS:
        return prefix, rest
    outside = re.match(r"((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*:[A-Za-z_]\w*)(?::(.*))?$", source)
    if Path(os.path.expandvars(source)).expanduser().exists():
        return None, source
    if outside:
        return outside[1], outside[2] or ""
    # One letter is a Windows drive; text with a slash before the colon is a path with a colon in it.
    if rest and re.fullmatch(r"[A-Za-z][\w.-]+", prefix):
        raise UnknownNameError("format", prefix, DATASETS)
    return None, source


def _path(text: str) -> Path:
    path = Path(os.path.expandvars(text)).expanduser()
    if not path.exists():
        unset = re.search(r"\$\{?(\w+)", str(path))
        fix = f"the environment variable {unset[1]} isn't set" if unset else "check the spelling and the current folder"
        raise DataError("no such file or folder", file=path, fix=fix)
    if not path.is_file() and not path.is_dir():
        raise DataError("a pipe or a device, which can't be read twice", file=path, fix="write it to a file first")
    return path


def _checked(dataset: Dataset, said: str, strict: bool, split: SplitSettings | None = None) -> Dataset:
    if strict:
        refuse_doubts(dataset.notes)
    return (split or SplitSettings()).applied(dataset.noting([said]))


__all__ = [
    "AKT",
    "CSV",
    "DATASETS",
    "ICD",
    "PEBG",
    "POJ",
    "S2KT",
    "XES3G5M",
    "ASSISTments",
    "Dataset",
    "EDMine",
    "EdNet",
    "EduData",
    "Eedi",
    "GraphFile",
    "Interactions",
    "Junyi",
    "KDDCup",
    "Math2015",
    "Part",
    "PyKT",
    "Reader",
    "Simulated",
    "Split",
    "SplitSettings",
    "Statics",
    "TestPart",
    "TrainPart",
    "ValidationPart",
    "duplicate_students",
    "load",
    "read",
    "recognise",
    "same_person",
    "without_duplicates",
]
