"""The interface of every reader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from qcq.data.dataset import Dataset
from qcq.support.settings import settings


@settings
class Reader(ABC):
    """Reads one public format. The class is its configuration (most formats need none).

    Class attributes
    ----------------
    needs_path : False for data that is made, not read.
    needs : the files by which the format is recognised, in a few words; shown when a folder is not recognised.
    """

    needs_path: ClassVar[bool] = True
    needs: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the folder (or file) looks like this format by its contents; never raises."""

    @abstractmethod
    def read(self, path: Path | None) -> Dataset:
        """Read it.

        Raises
        ------
        DataError : what is wrong, with file, row, column, value and what to do.
        """
