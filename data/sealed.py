"""Students kept for a claim that isn't made yet: no part of a split has them unless they are asked for by name.

Every student of the small real data sets has been read: trained on, validated on, or tested on. A new claim needs
students whom no choice has seen. EdNet KT1 is large, so a share of its students is set aside by a rule that looks at
identifiers only. Whoever has the data can apply it; nobody needs to have seen an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcq.data.dataset import Dataset
from qcq.errors import DataError
from qcq.support.seeds import generator
from qcq.support.words import several

SALT = "qcq/sealed/ednet/1:"  # a new sealed test has a new number, so it seals other students
SHARE = 0.05
VALIDATION = 0.1  # share of the other students, once the seal is opened
ASKED = 1_000_000  # the digest covers u1 to one below this number, whichever of them exist
DIGEST = "992a95932bf45a7dd797eba7d8751a38354521f50c81eb0fae1a578c3f6ec364"  # of the sealed identifiers among them

Seal = Literal["closed", "test"]


def is_sealed(identifier: str) -> bool:
    """Whether a student of EdNet KT1 is sealed: SHA-256(SALT + identifier) begins with four bytes below SHARE · 2^32.

    Examples
    --------
    >>> sum(is_sealed(f"u{number}") for number in range(1, 1001))
    52
    """
    first = hashlib.sha256((SALT + identifier).encode()).digest()[:4]
    return int.from_bytes(first, "big") < SHARE * 2**32


def digest(lines: Iterable[str]) -> str:
    """SHA-256 over lines in sorted order: equal for equal sets."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def sealed_students(identifiers: Sequence[str]) -> NDArray[np.int32]:
    """Indices of the sealed students, ascending: int32."""
    return np.flatnonzero([is_sealed(each) for each in identifiers]).astype(np.int32)


def with_seal(dataset: Dataset, seal: Seal) -> Dataset:
    """The data set with its sealed students in no part of a split (``closed``), or as its test part (``test``).

    Opened, the other students are for training and validation only, so the test part is the sealed students and
    nobody else.

    Raises
    ------
    DataError : there are no sealed students to test on.
    """
    sealed = sealed_students(dataset.students)
    if seal == "closed":
        if not len(sealed):
            return dataset
        said = f"{several(len(sealed), 'student')} sealed for a later test: in no part of a split (docs/tests_read.md)"
        return replace(
            dataset,
            sealed=sealed,
            left_out=np.union1d(dataset.left_out, sealed).astype(np.int32),
            notes=(*dataset.notes, said),
        )
    if not len(sealed):
        raise DataError(
            "none of the students is sealed, so there is nobody to test on",
            value=f"{len(dataset.students):,} students",
            fix="read more students, or leave sealed at closed",
        )
    parts = np.zeros(len(dataset.students), dtype=np.int8)
    others = generator(0, "sealed", "validation").permutation(np.setdiff1d(np.arange(len(parts)), sealed))
    parts[others[: round(VALIDATION * len(others))]] = 1
    parts[sealed] = 2
    said = f"the seal is opened: {several(len(sealed), 'sealed student')} are the test set (docs/tests_read.md)"
    return replace(dataset, sealed=sealed, parts=parts, notes=(*dataset.notes, said))
