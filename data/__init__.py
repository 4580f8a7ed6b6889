"""Data sets by format. ``read("s2kt:DIR")`` reads one; a bare path is recognised by its contents."""

from __future__ import annotations

from qcq.data.dataset import Dataset, Interactions, Part, Split, TestPart, TrainPart, ValidationPart
from qcq.data.reader import Reader

DATASETS: dict[str, type[Reader]] = {}

__all__ = [
    "DATASETS",
    "Dataset",
    "Interactions",
    "Part",
    "Reader",
    "Split",
    "TestPart",
    "TrainPart",
    "ValidationPart",
]
