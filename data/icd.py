"""Folders of the incremental cognitive diagnosis papers: items with lists of knowledge codes, records where present."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from qcq.data.assembly import halves, interactions, q_matrix, remarks
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import header
from qcq.errors import DataError
from qcq.support.settings import settings

ITEMS, SKILLS, RECORDS = "item.csv", "skill.csv", "record.csv"


@settings
class ICD(Reader):
    """``item.csv``; and, where present, names and parents from ``skill.csv`` and responses from ``record.csv``.

    Records are shuffled in some of the published folders, so they count as unordered. A score between 0 and 1 counts
    as right from one half on. ``concept_relationship.csv`` is not read: in most folders it isn't a hierarchy.
    """

    needs: ClassVar[str] = f"{ITEMS} with the columns item_id and knowledge_code"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return {"item_id", "knowledge_code"} <= set(header(path / ITEMS))

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        table = RawTable.read(path / ITEMS, ("item_id", "knowledge_code"))
        items = table.identifiers("item_id")
        table.reject(~items.is_first_distinct(), "an item listed twice", "item_id", "keep one of its rows")
        concepts: dict[str, int] = {}
        edges = [
            (row, concepts.setdefault(str(code), len(concepts)))
            for row, listed in enumerate(table.integer_lists("knowledge_code"))
            for code in listed
        ]
        if not edges:
            raise DataError("no item has a knowledge code", file=path / ITEMS, fix="get the file again from its source")
        matrix, repeated = q_matrix(len(items), len(concepts), *zip(*edges, strict=True))
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
            tuple(concepts),
            matrix,
            responses,
            students,
            concept_names=names,
            parents=parents,
            notes=tuple(notes),
        )
