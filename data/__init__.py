"""Data sets by format. ``read("s2kt:DIR")`` reads one; a bare path is recognised by its contents."""

from __future__ import annotations

from qcq.data.dataset import Dataset, Interactions, Part, Split, TestPart, TrainPart, ValidationPart
from qcq.data.reader import Reader
from qcq.data.simulated import Simulated

DATASETS: dict[str, type[Reader]] = {
    "simulated": Simulated,
}

__all__ = [
    "DATASETS",
    "Dataset",
    "Interactions",
    "Part",
    "Reader",
    "Simulated",
    "Split",
    "TestPart",
    "TrainPart",
    "ValidationPart",
]
