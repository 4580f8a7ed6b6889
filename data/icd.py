"""Folders of the incremental cognitive diagnosis papers: items with lists of knowledge codes, records where present."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import scipy  # its submodules load when they are first used

from qcq.data.assembly import halves, interactions, q_matrix, remarks
from qcq.data.blocks import are_triples
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings

if TYPE_CHECKING:
    import polars as pl

ITEMS, SKILLS, RECORDS = "item.csv", "skill.csv", "record.csv"
COLUMNS = ("item_id", "knowledge_code")
TRIPLES = (".tl", ".txt", ".csv")  # endings under which triple lines are published
MOST = 50  # files of a folder that are looked at


@settings
class ICD(Reader):
    """``item.csv``; and, where present, names and parents from ``skill.csv`` and responses from ``record.csv``.

    Records are shuffled in some of the published folders, so they count as unordered. A score between 0 and 1 counts
    as right from one half on. ``concept_relationship.csv`` is not read: in most folders it isn't a hierarchy.
    """

    needs: ClassVar[str] = f"{ITEMS} with the columns item_id and knowledge_code"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        # EduData's triple lines bring the same table along, and the responses in another form.
        return set(COLUMNS) <= set(header(path / ITEMS)) and not triple_files(path)

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        items, concepts, matrix, repeated = read_items(path / ITEMS)
        notes = remarks(matrix, repeated)
        names: dict[str, str] = {}
        parents: dict[str, str] = {}
        if (path / SKILLS).is_file():
            skills = RawTable.read(path / SKILLS, ("knowledge_code",), ("name", "parent"))
            code = skills.whole("knowledge_code")
            if "name" in skills.frame.columns:
                filled = ~skills.blank("name")
                names = dict(zip(code.filter(filled), skills.frame["name"].filter(filled), strict=True))
            if "parent" in skills.frame.columns:
                filled = ~skills.blank("parent")
                parents = dict(zip(code.filter(filled), skills.whole("parent").filter(filled), strict=True))
        responses, students = None, ()
        if (path / RECORDS).is_file():
            records = RawTable.read(path / RECORDS, ("user_id", "item_id", "score"))
            item = codes(records.identifiers("item_id"), items)
            records.reject(item.is_null(), "unknown item", "item_id", f"it isn't in {ITEMS}")
            users = records.identifiers("user_id")
            known = users.unique(maintain_order=True)
            correct, said = halves(records.shares("score"))
            responses = interactions(codes(users, known), item, correct, ordered=False)
            students = tuple(known)
            notes = [*said, "the records have no order", *notes]
        else:
            notes = [f"no {RECORDS}: a graph without responses", *notes]
        return Dataset(
            path.resolve().name,
            tuple(items),
            concepts,
            matrix,
            responses,
            students,
            concept_names=names,
            parents=parents,
            notes=tuple(notes),
        )


def read_items(file: Path) -> tuple[pl.Series, tuple[str, ...], scipy.sparse.csr_array, int]:
    """The items, their knowledge codes, the Q-matrix, and how many of its pairs were repeated.

    Raises
    ------
    DataError : an item listed twice, a cell that is no list of whole numbers, or no knowledge code at all.
    """
    table = RawTable.read(file, COLUMNS)
    items = table.identifiers("item_id")
    table.reject(~items.is_first_distinct(), "an item listed twice", "item_id", "keep one of its rows")
    concepts: dict[str, int] = {}
    edges = [
        (row, concepts.setdefault(str(code), len(concepts)))
        for row, listed in enumerate(table.integer_lists("knowledge_code"))
        for code in listed
    ]
    if not edges:
        raise DataError("no item has a knowledge code", file=file, fix="get the file again from its source")
    matrix, repeated = q_matrix(len(items), len(concepts), *zip(*edges, strict=True))
    return items, tuple(concepts), matrix, repeated


def triple_files(path: Path) -> list[Path]:
    """The files of triple lines in a folder; the file itself if it is one. Never raises."""
    try:
        found = sorted(file for file in path.iterdir() if file.suffix in TRIPLES) if path.is_dir() else [path]
    except OSError:
        return []
    return [file for file in found[:MOST] if file.is_file() and are_triples(file)]
