"""A split of students as files that others can use without qcq: a CSV and its description in Croissant's vocabulary."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcq.data import Dataset, Split, same_person
from qcq.errors import ConfigError, DataError
from qcq.evaluation.register import students_digest
from qcq.support.files import write_text
from qcq.support.folders import claim
from qcq.support.formulas import guarded_frame

TABLE, METADATA = "students.csv", "croissant.json"
PARTS = ("train", "validation", "test", "duplicate", "sealed", "left out")
CONTEXT = {  # the vocabulary of Croissant 1.1, as its specification prints it
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
COLUMNS = {
    "student": "Identifier of the student in the data set.",
    "part": "train, validation or test; duplicate: in no part, because the same person has another identifier; sealed: "
    "in no part, kept for a later test; left out: in no part for another reason.",
    "same_as": "Of a duplicate: the identifier under which the person is in a part. Empty for everybody else.",
}


@dataclass(frozen=True)
class SplitFiles:
    """A written split.

    Attributes
    ----------
    folder : with ``students.csv`` and ``croissant.json``.
    digest : SHA-256 of ``students.csv``: equal for equal splits of equal students.
    test_digest : of the test part, as the register of test readings has it.
    counts : students by part, those of :data:`PARTS` that occur.
    """

    folder: Path
    digest: str
    test_digest: str
    counts: dict[str, int]


def write_split(dataset: Dataset, split: Split, folder: str | Path, how: str, *, replace: bool = False) -> SplitFiles:
    """Write which student is in which part, and nothing of what they answered.

    Parameters
    ----------
    dataset : as :func:`qcq.data.read` gives it, duplicates left out.
    split : of its students.
    folder : made if it is missing; a folder with other files is refused.
    how : how the students were divided, in a few words.
    replace : replace another split in the folder; otherwise that is an error.

    Raises
    ------
    DataError : two students have the same identifier, so that the files would tell them apart no more.
    ConfigError : the folder holds something else, or another split.

    References
    ----------
    Croissant 1.1, https://docs.mlcommons.org/croissant/ ; Akhtar et al. 2024, Croissant: a metadata format for ML-ready
    datasets (DEEM).
    """
    import polars as pl

    names = [str(each) for each in dataset.students]
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise DataError("two students with one identifier", value=twice, fix="give every student one of their own")
    part = np.full(len(names), PARTS.index("left out"))
    for which, each in enumerate((split.train, split.validation, split.test)):
        part[each.students] = which
    out = part == PARTS.index("left out")
    same = same_person(dataset)
    part[out & np.isin(np.arange(len(names)), dataset.sealed)] = PARTS.index("sealed")
    part[[i for i in same if out[i]]] = PARTS.index("duplicate")
    other = [names[same[i]] if out[i] and i in same else None for i in range(len(names))]
    columns = {"student": names, "part": [PARTS[i] for i in part], "same_as": other}
    text = io.BytesIO()
    guarded_frame(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))).write_csv(text)
    digest = hashlib.sha256(text.getvalue()).hexdigest()
    counts = {PARTS[i]: int((part == i).sum()) for i in range(len(PARTS)) if (part == i).any()}
    home = claim(folder, "split")
    made = SplitFiles(home, digest, students_digest(split.test), counts)
    about = json.dumps(_metadata(dataset, made, how, len(text.getvalue())), indent=1) + "\n"
    files = {home / TABLE: text.getvalue(), home / METADATA: about.encode()}
    for path, content in files.items():
        if not replace and path.is_file() and path.read_bytes() != content:
            raise ConfigError(
                f"{path}: is of another split, or was edited; name another folder, or replace it (replace=True, on the "
                "command line --redo)"
            )
    for path, content in files.items():
        write_text(path, content.decode())
    return made


def _metadata(dataset: Dataset, made: SplitFiles, how: str, size: int) -> dict[str, Any]:
    """The split in Croissant's vocabulary."""
    shown = ", ".join(f"{n:,} {part}" for part, n in made.counts.items())
    about = (
        f"Which student of {dataset.name} is in which part: {shown}; {how}. A person under two identifiers is marked. "
        f"No answers are in it. SHA-256 of the test students with their numbers of responses: {made.test_digest}."
    )
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"students/{name}",
            "name": name,
            "description": line,
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": TABLE}, "extract": {"column": name}},
        }
        for name, line in COLUMNS.items()
    ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{dataset.name}-students",
        "description": about,
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": TABLE,
                "name": TABLE,
                "description": "One row a student, in the order of the data set.",
                "contentUrl": TABLE,
                "contentSize": f"{size} B",
                "encodingFormat": "text/csv",
                "sha256": made.digest,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "students",
                "name": "students",
                "description": "The students and their parts.",
                "key": {"@id": "students/student"},
                "field": fields,
            }
        ],
    }
