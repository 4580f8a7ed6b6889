"""Vectors of questions (and concepts) with their names and provenance."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcq.errors import EmbeddingError, UnknownNameError
from qcq.support.files import whole_path

if TYPE_CHECKING:
    import polars as pl
    from gensim.models import KeyedVectors


def _checked(vectors: NDArray, names: Sequence[str], kind: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinity, which is reported below
        out = np.ascontiguousarray(vectors, dtype=np.float32)
    if out.ndim != 2 or out.shape[0] != len(names):
        raise EmbeddingError(f"{kind} vectors of shape {np.shape(vectors)} for {len(names)} {kind}s; give one row each")
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        raise EmbeddingError(f"the vector of {kind} {names[int(bad[0])]!r} has NaN or infinity ({len(bad)} such rows)")
    if len(set(names)) < len(names):
        _, first = np.unique(np.asarray(names, dtype=object).astype(str), return_index=True)
        again = names[int(np.setdiff1d(np.arange(len(names)), first)[0])]
        raise EmbeddingError(
            f"{len(names) - len(first)} of {len(names)} {kind} ids occur more than once, {again!r} first; "
            f"give every {kind} one vector"
        )
    return out


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Row i is question i.

    Parameters
    ----------
    ids : question identifiers, one per row.
    vectors : float32 (questions, dim); finite.
    concept_ids, concept_vectors : the same for concepts, float32 (concepts, dim), if a model has them.
    provenance : their origin: data set, walk, trainer, settings, seed, corpus digest.

    Raises
    ------
    EmbeddingError : a wrong shape, NaN or infinity, or an id that occurs twice.

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
        """The ``k`` other questions of highest cosine similarity, best first; ties in index order.

        Raises
        ------
        UnknownNameError : no such question; the text has the nearest names.
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
        # One key only: safetensors writes several in no fixed order, and the same vectors should be the same bytes.
        about = {"provenance": json.dumps(dict(self.provenance), sort_keys=True)}
        with whole_path(path) as partial:
            save_file(tensors, partial, metadata=about)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read vectors from a file of any origin; its ending gives the format.

        - ``.safetensors``: the format of :meth:`save`; or a tensor ``vectors``, and ids as a JSON list under ``ids``
          in the metadata.
        - ``.npz``: arrays ``ids`` and ``vectors``.
        - ``.parquet``: a column ``question`` (or ``id``), and either one column of lists or one column per dimension.
        - ``.json``: an object, id → list of numbers.
        - ``.txt``, ``.vec``: word2vec's text (a line "rows dimensions", then "id number number …"); ``.bin``: its
          binary.

        Ids are text. No code in a file is ever run: no pickles are read.

        Raises
        ------
        EmbeddingError : no such file, an unknown ending, or an error in it (an id twice, rows of different lengths,
            NaN, something that isn't a number).
        """
        file = Path(path)
        if file.suffix.lower() not in FORMATS:
            raise EmbeddingError(f"{file}: no vectors are read from {file.suffix or 'no ending'!r}; {_endings()}")
        if not file.is_file():
            raise EmbeddingError(f"{file}: no such file; check the spelling and the current folder")
        try:
            return FORMATS[file.suffix.lower()](file)
        except EmbeddingError as error:
            raise EmbeddingError(f"{file}: {error}") from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split())
            raise EmbeddingError(f"{file}: no readable embeddings ({said})") from None

    def aligned(self, questions: Sequence[str]) -> Embeddings:
        """The same vectors in the order of ``questions``, which must be the same questions.

        Raises
        ------
        EmbeddingError : a question without a vector, or a vector without a question.

        Examples
        --------
        >>> Embeddings(["a", "b"], np.eye(2)).aligned(["b", "a"]).vectors.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        missing = [q for q in questions if q not in self.index]
        if missing:
            hint = "; ids are compared as text" if len(missing) == len(questions) else ""
            raise EmbeddingError(
                f"{len(missing)} of {len(questions)} questions have no vector, {missing[0]!r} first; "
                f"give each question one{hint}"
            )
        if len(self) > len(questions):
            known = set(questions)
            extra = [name for name in self.ids if name not in known]
            raise EmbeddingError(
                f"{len(extra)} vectors belong to no question of the data set, {extra[0]!r} first; leave them out"
            )
        order = [self.index[q] for q in questions]
        return Embeddings(questions, self.vectors[order], self.concept_ids, self.concept_vectors, dict(self.provenance))

    def concatenate(
        self, others: Mapping[str, Embeddings | NDArray | Sequence[float]], name: str = "embedding"
    ) -> Embeddings:
        """These vectors concatenated with other features, without scaling.

        Concept vectors are included if every part has them.

        Parameters
        ----------
        others : name → features: other embeddings of the same questions, in any order, or numbers in the order of
            ``ids``, (questions,) or (questions, k).
        name : of these vectors among the parts.

        Returns
        -------
        Embeddings : its provenance lists the parts, their columns and where each comes from; ``columns`` names them.

        Raises
        ------
        EmbeddingError : a name that occurs twice, other questions, or not one row per question.

        Examples
        --------
        >>> both = Embeddings(["a", "b"], np.eye(2)).concatenate({"difficulty": [0.25, 0.75]}, name="walks")
        >>> both["b"].tolist(), both.columns
        ([0.0, 1.0, 0.75], ['walks.0', 'walks.1', 'difficulty'])
        """
        if name in others:
            raise EmbeddingError(f"two parts are called {name!r}; give this one another name")
        parts = {name: self}
        for key, given in others.items():
            if isinstance(given, Embeddings):
                parts[key] = given.aligned(self.ids)
                continue
            numbers = np.asarray(given, dtype=np.float32)
            if numbers.ndim not in (1, 2) or len(numbers) != len(self):
                raise EmbeddingError(
                    f"{key!r} has shape {numbers.shape}; give one number or row to each of {len(self)}"
                )
            parts[key] = Embeddings(self.ids, numbers.reshape(len(self), -1))
        listed, at = [], 0
        for key, part in parts.items():
            listed.append({"name": key, "columns": [at, at + part.dim], **part.provenance})
            at += part.dim
        concepts = [part.concept_vectors for part in parts.values() if list(part.concept_ids) == list(self.concept_ids)]
        held = [each for each in concepts if each is not None]
        whole = len(held) == len(parts)
        return Embeddings(
            self.ids,
            np.concatenate([part.vectors for part in parts.values()], axis=1),
            self.concept_ids if whole else (),
            np.concatenate(held, axis=1) if whole else None,
            {"parts": listed},
        )

    @property
    def columns(self) -> list[str]:
        """Names of the dimensions: d0, d1 …, or names from the concatenated parts."""
        if "parts" not in self.provenance:
            return [f"d{j}" for j in range(self.dim)]
        spans = [(part["name"], part["columns"][1] - part["columns"][0]) for part in self.provenance["parts"]]
        return [name if wide == 1 else f"{name}.{j}" for name, wide in spans for j in range(wide)]

    def to_keyedvectors(self) -> KeyedVectors:
        """The question vectors as gensim's KeyedVectors.

        Raises
        ------
        EmbeddingError : gensim can't be imported.
        """
        try:
            from gensim.models import KeyedVectors
        except ImportError:
            raise EmbeddingError(
                "gensim can't be imported here (it has no wheel for Python 3.14 and later), and KeyedVectors are its "
                "own; take to_frame(), or save() the vectors for another Python"
            ) from None

        out = KeyedVectors(self.dim)
        out.add_vectors(list(self.ids), self.vectors)
        return out

    def to_frame(self) -> pl.DataFrame:
        """A polars frame: ``question`` and ``columns``, one per dimension; ``.to_pandas()`` gives a pandas frame."""
        import polars as pl

        columns: dict[str, Any] = {"question": list(self.ids)}
        columns |= dict(zip(self.columns, self.vectors.T, strict=True))
        return pl.DataFrame(columns)


def _rows(ids: Sequence[Any], rows: Sequence[Any] | NDArray) -> Embeddings:
    """Embeddings from single vectors, whose lengths are checked."""
    names = [str(name) for name in ids]
    if len(names) == 0:
        raise EmbeddingError("there are no vectors in it")
    if len(names) != len(rows):
        raise EmbeddingError(f"{len(names)} ids for {len(rows)} vectors; give one each")
    made = []
    for name, row in zip(names, rows, strict=True):
        try:
            made.append(np.asarray(row, dtype=np.float64))
        except (TypeError, ValueError):
            raise EmbeddingError(f"the vector of question {name!r} isn't a list of numbers") from None
        if made[-1].ndim != 1 or made[-1].shape != made[0].shape or len(made[0]) == 0:
            shape = "×".join(map(str, made[-1].shape)) or "a single number"
            raise EmbeddingError(
                f"the vector of question {name!r} has dimension {shape}, that of {names[0]!r} "
                f"{'×'.join(map(str, made[0].shape)) or 'a single number'}; give all the same, 1 at least"
            )
    return Embeddings(names, np.stack(made))


def _safetensors(path: Path) -> Embeddings:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            meta = file.metadata() or {}
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError as error:
        raise EmbeddingError(f"no readable embeddings ({error})") from None
    if "vectors" in held:
        if "ids" not in meta:
            raise EmbeddingError("the metadata has no 'ids'; put a JSON list of question ids there")
        return _rows(_list(json.loads(meta["ids"])), held["vectors"])
    if not {"questions", "question_ids"} <= held.keys():
        raise EmbeddingError(f"it holds {', '.join(sorted(held)) or 'nothing'}; give 'questions' and 'question_ids'")
    concept_ids = json.loads(held["concept_ids"].tobytes()) if "concepts" in held else ()
    ids, provenance = json.loads(held["question_ids"].tobytes()), json.loads(meta.get("provenance", "{}"))
    return Embeddings(ids, held["questions"], concept_ids, held.get("concepts"), provenance)


def _npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as held:
        if not {"ids", "vectors"} <= set(held.files):
            raise EmbeddingError(f"it holds {', '.join(held.files) or 'nothing'}; give arrays 'ids' and 'vectors'")
        try:
            ids, vectors = held["ids"], held["vectors"]
        except ValueError:
            raise EmbeddingError("'ids' or 'vectors' is an array of objects; give text or numbers") from None
    if ids.ndim != 1 or vectors.ndim != 2:
        raise EmbeddingError(f"'ids' of shape {ids.shape} and 'vectors' of shape {vectors.shape}; give (n,) and (n, d)")
    return _rows(ids.tolist(), vectors)


def _parquet(path: Path) -> Embeddings:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise EmbeddingError(f"no readable embeddings ({str(error).splitlines()[0]})") from None
    name = next((column for column in ("question", "id") if column in frame.columns), None)
    if name is None:
        raise EmbeddingError(f"it has columns {', '.join(frame.columns[:8])}; name one 'question'")
    rest = frame.drop(name)
    if rest.width == 1 and rest.dtypes[0].is_nested():
        return _rows(frame[name].to_list(), rest.to_series().to_list())
    wrong = [column for column, kind in zip(rest.columns, rest.dtypes, strict=True) if not kind.is_numeric()]
    if wrong or rest.width == 0:
        raise EmbeddingError(
            f"column {wrong[0]!r} doesn't hold numbers" if wrong else f"there is no column except {name!r}"
        )
    return _rows(frame[name].to_list(), rest.to_numpy())  # an empty cell becomes NaN


def _json(path: Path) -> Embeddings:
    # Pairs, because a dictionary would hide an id that occurs twice.
    found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    if not isinstance(found, tuple):
        raise EmbeddingError("not an object; write {id: [number, …], …}")
    return _rows([name for name, _ in found], [row for _, row in found])


def _word2vec_text(path: Path) -> Embeddings:
    ids, rows = [], []
    with path.open(encoding="utf-8") as file:
        n, dim = _heading(file.readline())
        for number, line in enumerate(file, start=2):
            if not line.strip():
                continue
            name, *numbers = line.rstrip().rsplit(" ", dim)  # from the right: an id may have spaces in it
            if len(numbers) != dim:
                raise EmbeddingError(f"row {number} has {len(numbers)} numbers; the heading says {dim}")
            try:
                rows.append(np.array(numbers, dtype=np.float64))
            except ValueError:
                raise EmbeddingError(f"row {number} doesn't end in {dim} numbers") from None
            ids.append(name)
    if len(ids) != n:
        raise EmbeddingError(f"{len(ids)} vectors follow; the heading says {n}")
    return _rows(ids, rows)


def _word2vec_binary(path: Path) -> Embeddings:
    # gensim reads this format too, but silently drops an id that occurs twice.
    data = path.read_bytes()
    at = data.find(b"\n") + 1
    n, dim = _heading(data[:at].decode("utf-8"))
    if n * 4 * dim > len(data):
        raise EmbeddingError(f"{len(data):,} bytes can't hold the {n} vectors of {dim} dimensions it announces")
    ids, rows = [], np.empty((n, dim), dtype=np.float32)
    for i in range(n):
        space = data.find(b" ", at)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(data):
            raise EmbeddingError(f"it ends inside vector {i + 1} of {n}")
        ids.append(data[at:space].lstrip(b"\n").decode("utf-8"))
        rows[i] = np.frombuffer(data, "<f4", dim, space + 1)
        at = end
    if data[at:].strip():
        raise EmbeddingError(f"more follows after the {n} vectors that the heading announces")
    return _rows(ids, rows)


def _heading(line: str) -> tuple[int, int]:
    words = line.split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        raise EmbeddingError(
            f"its first line is {line.strip()[:40]!r}; word2vec's says how many vectors and dimensions"
        )
    return int(words[0]), int(words[1])


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise EmbeddingError(f"'ids' holds {type(value).__name__}; give a JSON list of question ids")
    return value


FORMATS: dict[str, Callable[[Path], Embeddings]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".parquet": _parquet,
    ".json": _json,
    ".txt": _word2vec_text,
    ".vec": _word2vec_text,
    ".bin": _word2vec_binary,
}


def _endings() -> str:
    return f"give {', '.join(FORMATS)}"
