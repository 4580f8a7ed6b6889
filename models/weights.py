"""What a training ended with, so that another one can begin there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from qcq.errors import ConfigError
from qcq.support.arrays import read_safetensors
from qcq.support.files import from_json, validated, whole_path
from qcq.support.words import in_short, several

WARM_STEPS = 0.25  # of a cold start's steps: what a warm one takes
WARM_RATE = 0.05  # of a cold start's learning rates: new rows are learnt, and the old space stays


@dataclass(frozen=True, eq=False)
class Weights:
    """Tables with a row for each token, and the other weights of a model.

    Attributes
    ----------
    questions, concepts : what the rows stand for, in order; ``concepts`` are empty where they have no rows.
    tables : name → float32 (questions + concepts, width): ``input`` always, ``output`` and ``bias`` if there are any.
    body : name → array, what isn't a table: an encoder. Empty where it is not known; it then starts afresh.
    trainer : name, dim and the settings that it was trained with.
    """

    questions: Sequence[str]
    concepts: Sequence[str]
    tables: Mapping[str, NDArray[np.float32]]
    body: Mapping[str, NDArray] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.questions) + len(self.concepts)

    def __repr__(self) -> str:
        return in_short("Weights", several(len(self), "row"), f"tables {' '.join(self.tables)}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all numbers."""
        h = hashlib.sha256()
        for held in (self.tables, self.body):
            for name, rows in sorted(held.items()):
                h.update(f"{name} {rows.shape}".encode())
                h.update(np.ascontiguousarray(rows).tobytes())
        return h.hexdigest()

    def save(self, path: Path) -> Path:
        """Write them as ``.safetensors``."""
        from safetensors.numpy import save_file

        held = {f"table.{name}": np.ascontiguousarray(rows) for name, rows in self.tables.items()}
        held |= {f"body.{name}": np.ascontiguousarray(rows) for name, rows in self.body.items()}
        names = {"questions": list(self.questions), "concepts": list(self.concepts), "trainer": dict(self.trainer)}
        with whole_path(path) as partial:
            save_file(held, partial, metadata={"weights": json.dumps(names)})  # one key: several come in any order
        return path

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Weights that :meth:`save` wrote.

        Raises
        ------
        ConfigError : the file holds none.
        """
        try:
            said, held = read_safetensors(path)
            meta = validated(from_json(said["weights"]), _Said)
            tables = {name.removeprefix("table."): rows for name, rows in held.items() if name.startswith("table.")}
            body = {name.removeprefix("body."): rows for name, rows in held.items() if name.startswith("body.")}
            made = cls(meta.questions, meta.concepts, tables, body, meta.trainer)
            if tables["input"].ndim != 2 or any(rows.shape[:1] != (len(made),) for rows in tables.values()):
                raise ValueError("tables of other lengths than the names")
        except (OSError, KeyError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise ConfigError(
                f"{path}: no readable weights ({why}); start from a table or run that qcq wrote"
            ) from None
        return made

    def refuse_other(self, trainer: str, dim: int, tokens: int) -> None:
        """ConfigError where a training of ``trainer`` with ``dim`` and so many tokens can't begin from them."""
        name, wide = self.trainer.get("name", trainer), self.tables["input"].shape[1]
        if name != trainer:
            raise ConfigError(f"{trainer} can't start from weights of {name}; start from a table of {trainer}")
        if wide != dim:
            raise ConfigError(f"a start of {wide} dimensions for a table of {dim}; take --dim {wide}")
        if len(self) != tokens:
            raise ConfigError(
                f"a start with rows for {len(self):,} tokens, and the walks have {tokens:,}; take the walk it was "
                "trained on"
            )


class _Said(BaseModel):  # what is written beside the numbers
    model_config = ConfigDict(strict=True, defer_build=True)

    questions: list[str]
    concepts: list[str]
    trainer: dict[str, Any]
