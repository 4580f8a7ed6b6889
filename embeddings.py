"""Vectors of questions (and concepts) with the names they belong to and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcq.errors import EmbeddingError, UnknownNameError

if TYPE_CHECKING:
    import polars as pl
    from gensim.models import KeyedVectors


def _checked(vectors: NDArray, names: Sequence[str], kind: str) -> NDArray[np.float32]:
    out = np.ascontiguousarray(vectors, dtype=np.float32)
    if out.ndim != 2 or out.shape[0] != len(names):
        raise EmbeddingError(f"{kind} vectors of shape {np.shape(vectors)} for {len(names)} {kind}s; give one row each")
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        raise EmbeddingError(f"the vector of {kind} {names[int(bad[0])]!r} has NaN or infinity ({len(bad)} such rows)")
    return out


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Row i is question i.

    Parameters
    ----------
    ids : question identifiers, one a row.
    vectors : float32 (questions, dim); finite.
    concept_ids, concept_vectors : the same for concepts, float32 (concepts, dim), where a model has them.
    provenance : what made them: data set, walk, trainer, settings, seed, corpus digest.

    Raises
    ------
    EmbeddingError : a wrong shape, NaN or infinity.

    Examples
    --------
    >>> emb = Embeddings(["a", "b", "c"], np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    >>> emb.nearest("a", k=1)[0][0]
    'b'
    """

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    concept_ids: Sequence[str] = ()
    concept_vectors: NDArray[np.float32] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", _checked(self.vectors, self.ids, "question"))
        if self.concept_vectors is not None:
            object.__setattr__(self, "concept_vectors", _checked(self.concept_vectors, self.concept_ids, "concept"))

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return np.array(self.vectors, dtype=dtype) if copy or dtype else self.vectors

    @cached_property
    def index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    def __getitem__(self, question: str) -> NDArray[np.float32]:
        if question not in self.index:
            raise UnknownNameError("question", question, self.ids)
        return self.vectors[self.index[question]]

    @cached_property
    def unit(self) -> NDArray[np.float32]:
        """Rows scaled to length 1 (a zero row stays zero): float32 (questions, dim)."""
        norm = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return (self.vectors / np.where(norm > 0, norm, 1)).astype(np.float32, copy=False)

    def nearest(self, question: str, k: int = 10) -> list[tuple[str, float]]:
        """The ``k`` other questions of highest cosine similarity, best first; equal ones in index order.

        Raises
        ------
        UnknownNameError : no such question; the nearest names are given.
        """
        i = self.index.get(question)
        if i is None:
            raise UnknownNameError("question", question, self.ids)
        similarity = self.unit @ self.unit[i]  # (questions,)
        similarity[i] = -np.inf
        best = np.argsort(-similarity, kind="stable")[: min(k, len(self) - 1)]
        return [(self.ids[j], float(similarity[j])) for j in best]

    def save(self, path: str | Path) -> Path:
        """Write a ``.safetensors`` file: tensors ``questions`` and ``concepts``, ids and provenance as JSON bytes."""
        from safetensors.numpy import save_file

        def text(value: Any) -> NDArray[np.uint8]:
            return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)

        tensors: dict[str, NDArray] = {"questions": self.vectors, "question_ids": text(list(self.ids))}
        if self.concept_vectors is not None:
            tensors |= {"concepts": self.concept_vectors, "concept_ids": text(list(self.concept_ids))}
        out = Path(path)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        # One key only: safetensors writes several in no fixed order, and the same vectors should be the same bytes.
        save_file(tensors, partial, metadata={"provenance": json.dumps(dict(self.provenance), sort_keys=True)})
        partial.replace(out)
        return out

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what :meth:`save` wrote.

        Raises
        ------
        EmbeddingError : no such file, or not written by :meth:`save`.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                meta = file.metadata() or {}
                held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            ids = json.loads(held["question_ids"].tobytes())
            concept_ids = json.loads(held["concept_ids"].tobytes()) if "concepts" in held else ()
            return cls(
                ids, held["questions"], concept_ids, held.get("concepts"), json.loads(meta.get("provenance", "{}"))
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EmbeddingError(f"{path}: no readable embeddings ({error})") from None

    def to_keyedvectors(self) -> KeyedVectors:
        """The question vectors as gensim's KeyedVectors."""
        from gensim.models import KeyedVectors

        out = KeyedVectors(self.dim)
        out.add_vectors(list(self.ids), self.vectors)
        return out

    def to_frame(self) -> pl.DataFrame:
        """A polars frame: ``question`` and one column a dimension; ``.to_pandas()`` gives a pandas one."""
        import polars as pl

        columns: dict[str, Any] = {"question": list(self.ids)}
        columns |= {f"d{j}": self.vectors[:, j] for j in range(self.dim)}
        return pl.DataFrame(columns)
