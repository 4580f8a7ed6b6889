"""Vectors of questions (and concepts) with their names and provenance."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qcq.errors import ArgumentError, EmbeddingError, UnknownNameError
from qcq.support.files import from_json, whole_path
from qcq.support.folders import MARK, claim
from qcq.support.notebook import first, html_table
from qcq.support.types import check, takes
from qcq.support.vectors import READERS, WRITERS, Vectors, as_names, by_ending, refuse_foreign
from qcq.support.words import in_short, several

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import torch
    from gensim.models import KeyedVectors

    from qcq.data import Dataset


@runtime_checkable  # settings with vectors among them check their fields
class Inference(Protocol):
    """What places new questions in a table: the protocol of :class:`qcq.models.inference.InferenceModel`."""

    def named(
        self,
        table: Embeddings,
        concepts: Mapping[str, Sequence[str]],
        neighbours: Mapping[str, Sequence[str]],
        responses: Any = None,
    ) -> tuple[list[str], NDArray[np.float64], list[str], tuple[str, ...]]:
        """The new questions, their vectors, how each was made, and notes."""

    def save(self, folder: Path, *tables: Embeddings) -> Path:
        """Write it into a folder; it belongs to ``tables``."""


Opener = Callable[[Path, "Embeddings"], Inference]
_OPENERS: list[Opener] = []


def opens(opener: Opener) -> Opener:
    """Registers what reads the model of a table from its folder: ``models`` does, which vectors can't import."""
    _OPENERS[:] = [opener]
    return opener


def _plain(numbers: Any, what: str) -> Any:
    """Numbers without what numpy would lose or can't take: torch's tensors, and masks.

    Raises
    ------
    EmbeddingError : a masked number, or a tensor without numbers in it.
    """
    if isinstance(numbers, list | tuple) and any(hasattr(each, "detach") for each in numbers):
        return [_plain(each, what) for each in numbers]
    if callable(detach := getattr(numbers, "detach", None)):  # it may be learning, or on another device
        tensor = detach()
        if tensor.device.type == "meta":
            raise EmbeddingError(f"{what} on torch's device 'meta', which holds no numbers; make them on another one")
        tensor = tensor.cpu()
        # numpy has no bfloat16; float64 stays, to see what float32 would lose
        return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    if np.ma.is_masked(numbers):
        raise EmbeddingError(f"{what} have masked numbers; fill them in, or leave these rows out")
    return numbers


def _in_order(given: Any, ids: Sequence[str], what: str) -> Any:
    """What pandas has labelled with questions, in the order of ``ids``; everything else as it is.

    Raises
    ------
    EmbeddingError : other labels than the questions; by their places they could belong to other questions.
    """
    index: Any = getattr(given, "index", None)
    if not hasattr(given, "iloc") or type(index).__name__ == "RangeIndex":
        return given
    names = as_names(list(index))
    if len(names) != len(ids) or set(names) != set(ids):
        raise EmbeddingError(
            f"{what} has an index that isn't the questions; give what .reindex(table.ids) has, or .to_numpy() if the "
            "order is the table's"
        )
    at = {name: row for row, name in enumerate(names)}
    return given.iloc[[at[name] for name in ids]]


def _truths(where: Any) -> NDArray[np.bool_]:
    """A new array of truth values. EmbeddingError for anything else: names and "False" would be true."""
    given = np.asarray(where)
    if given.dtype == object and all(isinstance(each, bool | np.bool_) for each in given.ravel()):
        given = given.astype(bool)  # pandas' own type, without missing values
    if given.dtype != bool:
        raise EmbeddingError(f"where holds {given.dtype}, not truth values; give one True or False per question")
    return given.copy()


def _checked(vectors: NDArray, names: Sequence[str], kind: str) -> NDArray[np.float32]:
    check("Embeddings", "ids" if kind == "question" else "concept_ids", names, "list")
    vectors = _plain(vectors, f"{kind} vectors")
    try:
        if np.iscomplexobj(vectors):
            raise EmbeddingError(f"{kind} vectors of complex numbers; give real ones")
        with np.errstate(over="ignore", under="ignore"):  # what becomes infinity or zero is reported below
            out = np.ascontiguousarray(vectors, dtype=np.float32)
    except OverflowError:  # a whole number of hundreds of digits
        raise EmbeddingError(f"{kind} vectors have a number that is too large; give finite numbers") from None
    except (TypeError, ValueError):
        what = type(vectors).__name__
        raise EmbeddingError(
            f"{kind} vectors are no table of numbers ({what}); give numbers in rows of one length"
        ) from None
    if out.ndim != 2 or out.shape[0] != len(names):
        raise EmbeddingError(f"{kind} vectors of shape {np.shape(vectors)} for {len(names)} {kind}s; give one row each")
    strips = (out[at : at + _ROWS] for at in range(0, len(out), _ROWS))
    bad = np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *(~np.isfinite(s).all(axis=1) for s in strips)]))
    if len(bad):
        raise EmbeddingError(
            f"the vector of {kind} {names[int(bad[0])]!r} has NaN or infinity "
            f"({len(bad)} such rows); give finite numbers"
        )
    if lost := _vanished(vectors, out):
        raise EmbeddingError(
            f"the vector of {kind} {names[lost[0]]!r} is too small for float32 and would become zeros "
            f"({len(lost)} such rows); scale the vectors, say to length 1"
        )
    if len(set(names)) < len(names):
        _, first = np.unique(np.asarray(names, dtype=object).astype(str), return_index=True)
        again = names[int(np.setdiff1d(np.arange(len(names)), first)[0])]
        raise EmbeddingError(
            f"{len(names) - len(first)} of {len(names)} {kind} ids occur more than once, {again!r} first; "
            f"give every {kind} one vector"
        )
    return out


def _vanished(given: Any, made: NDArray[np.float32]) -> list[int]:
    """The rows that are zeros in float32 alone."""
    if isinstance(given, np.ndarray) and (given.dtype == np.float32 or given.dtype.kind in "iub"):
        return []
    zero = _zeros(made)
    rows = given if isinstance(given, np.ndarray | list | tuple) or not len(zero) else np.asarray(given)
    return [int(i) for i in zero if np.asarray(rows[i], dtype=np.float64).any()]


def _zeros(table: NDArray[np.float32], columns: Any = slice(None)) -> NDArray[np.int64]:
    """The rows that are zeros."""
    strips = (table[at : at + _ROWS, columns] for at in range(0, len(table), _ROWS))
    return np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *(~strip.any(axis=1) for strip in strips)]))


def _named(question: object) -> bool:
    """Whether it can be the name of one question: text, or one number of an array."""
    return isinstance(question, str | bytes) or getattr(question, "ndim", None) == 0


def _text(question: object) -> str:
    """How a question is called in a table, as text; for what is no name, a text that calls none."""
    if isinstance(question, str):
        return question
    try:
        return as_names([question])[0]
    except EmbeddingError:
        return f"{type(question).__name__} {str(question)[:60]}"


@dataclass(frozen=True, eq=False)
class Embeddings(Mapping[str, NDArray[np.float32]]):
    """Row i is question i. A mapping from a question's identifier to its vector.

    Parameters
    ----------
    ids : question identifiers, one per row. They are text; numbers become text, here and where a question is looked up.
    vectors : float32 (questions, dim); finite.
    concept_ids, concept_vectors : the same for concepts, float32 (concepts, dim), if a model has them.
    provenance : their origin: data set, walk, trainer, settings, seed, corpus digest.
    model : what :meth:`infer` needs, or the folder of it next to the file; None if there is none.

    Raises
    ------
    EmbeddingError : a wrong shape, NaN or infinity, a row that is zeros in float32 alone, an id that is missing or
        occurs twice, or a provenance whose parts, numbers or seed are not what :meth:`concatenate` and ``qcq`` write.

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
    model: Inference | Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, kind in (("ids", "question"), ("concept_ids", "concept")):
            check("Embeddings", name, getattr(self, name), "list")
            object.__setattr__(self, name, as_names(getattr(self, name), kind))
        object.__setattr__(self, "vectors", _checked(self.vectors, self.ids, "question"))
        if self.concept_vectors is not None:
            object.__setattr__(self, "concept_vectors", _checked(self.concept_vectors, self.concept_ids, "concept"))
        refuse_foreign(self.provenance, self.dim)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    __eq__ = object.__eq__  # a mapping would compare arrays
    __hash__ = object.__hash__

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return np.array(self.vectors, dtype=dtype) if copy or dtype else self.vectors

    @cached_property
    def index(self) -> dict[str, int]:
        return dict(zip(self.ids, range(len(self)), strict=True))

    def __getitem__(self, question: str) -> NDArray[np.float32]:
        return self.vectors[self._row(question)]

    def __contains__(self, question: object) -> bool:
        return question is not None and _text(question) in self.index

    def get(self, question: str, default: Any = None) -> Any:
        """The vector of a question, or ``default``."""
        row = None if question is None else self.index.get(_text(question))
        return default if row is None else self.vectors[row]

    def _row(self, question: str) -> int:
        row = self.index.get(_text(question))
        if row is None and (isinstance(question, slice) or (isinstance(question, Iterable) and not _named(question))):
            raise ArgumentError(
                f"Embeddings: a question's identifier is asked for, given {type(question).__name__}; "
                "vectors has all rows, ids their order"
            )
        if row is None:
            raise UnknownNameError("question", _text(question), self.ids)
        return row

    @cached_property
    def unit(self) -> NDArray[np.float32]:
        """Rows scaled to length 1 (a zero row stays zero), without columns of numbers: float32 (questions, dim)."""
        kept = self.compared
        out = np.empty((len(self), int(kept.sum())), dtype=np.float32)  # in rows, which are fetched faster
        for at in range(0, len(self), _ROWS):
            vectors = self.vectors[at : at + _ROWS]
            vectors = vectors if kept.all() else np.ascontiguousarray(vectors[:, kept])
            with np.errstate(over="ignore", under="ignore"):
                norm = np.linalg.norm(vectors, axis=1, keepdims=True)
            np.divide(vectors, np.where(norm > 0, norm, 1), out=out[at : at + _ROWS])
            # Squares of very small and very large numbers are beyond float32: such rows once more, in float64.
            odd = np.flatnonzero(~((norm > _SMALL) & (norm < _HUGE)))
            if len(odd):
                wide = vectors[odd].astype(np.float64)
                norm = np.linalg.norm(wide, axis=1, keepdims=True)
                out[at + odd] = wide / np.where(norm > 0, norm, 1)
        return out

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Which columns are compared: bool (dim,), false for numbers such as difficulty that were added as columns."""
        kept = np.ones(self.dim, dtype=bool)
        for part in self.provenance.get("parts", ()):
            if part["name"] in self.provenance.get("numbers", ()):
                kept[slice(*part["columns"])] = False
        return kept

    def remarks(self, question: str | None = None, *, numbers: bool = False) -> tuple[str, ...]:
        """What these vectors can't tell: how many are all zeros, as a note.

        A question of which nothing is known may rightly have a vector of zeros, so it is an error only where it is the
        one asked about.

        Parameters
        ----------
        question : the one that others are compared with; None: all with all.
        numbers : look at columns of numbers such as difficulty too, which cosines leave out (``compared``).

        Raises
        ------
        EmbeddingError : all questions have the same vector, or ``question`` has one of zeros.

        Examples
        --------
        >>> Embeddings(["a", "b"], np.array([[1.0, 0.0], [0.0, 0.0]])).remarks()
        ("1 of 2 questions have a vector of zeros, 'b' first: it is equally similar to all questions",)
        """
        kept = np.ones(self.dim, dtype=bool) if numbers else self.compared
        some = kept if not kept.all() else slice(None)  # a slice is no copy
        strips = (self.vectors[at : at + _ROWS, some] for at in range(0, len(self), _ROWS))
        if len(self) > 1 and all((strip == self.vectors[0, some]).all() for strip in strips):
            raise EmbeddingError(
                f"the vectors of all {len(self):,} questions are equal, so nothing tells one question from another; "
                "make them anew"
            )
        if question is not None:
            if not self[question][some].any():
                raise EmbeddingError(
                    f"the vector of question {_text(question)!r} is all zeros, so it is equally similar to all "
                    "questions; ask about another one, or make its vector anew"
                )
            return ()
        zero = _zeros(self.vectors, some)
        if not len(zero):
            return ()
        return (
            f"{len(zero):,} of {len(self):,} questions have a vector of zeros, {self.ids[zero[0]]!r} first: "
            "it is equally similar to all questions",
        )

    @takes(k="int")
    def nearest(self, question: str, k: int = 10, *, where: NDArray[np.bool_] | None = None) -> list[tuple[str, float]]:
        """The ``k`` other questions of highest cosine similarity, best first; ties in index order.

        Parameters
        ----------
        where : bool (questions,), which questions to choose from; None: all.

        Raises
        ------
        UnknownNameError : no such question; the text has the nearest names.
        ArgumentError : a list, a vector or a slice in the place of one question.
        EmbeddingError : ``where`` leaves no other question, ``k`` is less than 1, the question has a vector of zeros,
            or all questions have the same vector.

        Examples
        --------
        >>> emb = Embeddings(["a", "b", "c"], np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
        >>> emb.nearest("a", where=np.array([True, False, True]))
        [('c', 0.0)]
        """
        if k < 1:
            raise EmbeddingError(f"k is {k}; ask for 1 neighbour or more")
        i = self._row(question)
        allowed = np.ones(len(self), dtype=bool) if where is None else _truths(_in_order(where, self.ids, "where"))
        if allowed.shape != (len(self),):
            raise EmbeddingError(f"where has shape {allowed.shape}; one truth value per question")
        allowed[i] = False
        if where is not None and not allowed.any():
            raise EmbeddingError(f"no question but {question!r} is left to choose from; loosen the filter")
        self.remarks(question)
        left = int(allowed.sum())
        if left < _FEW * len(self) and len(self) > _LARGE:  # fetching a few rows is cheaper than passing over all
            rows = np.flatnonzero(allowed)
            similarity = self.unit[rows] @ self.unit[i]  # (left,)
            best = _highest(similarity, min(k, left))
            return [(self.ids[rows[j]], float(similarity[j])) for j in best]
        similarity = self.unit @ self.unit[i]  # (questions,)
        similarity[~allowed] = -np.inf
        best = _highest(similarity, min(k, left))
        return [(self.ids[j], float(similarity[j])) for j in best]

    @takes(path="path")
    def save(self, path: str | Path) -> Path:
        """Write the vectors in the format of the path's ending (see :meth:`load`).

        ``.safetensors`` holds everything; the other formats hold the questions' ids and vectors only. A model that an
        earlier table left beside the file is removed.

        Raises
        ------
        EmbeddingError : an unknown ending, or an id that the format can't hold.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Embeddings(["a", "b"], np.eye(2)).save(f"{folder}/vectors.parquet")
        ...     Embeddings.load(file)["b"].tolist()
        [0.0, 1.0]
        """
        write = by_ending(Path(path), WRITERS, "written as")
        held = Vectors(self.ids, self.vectors, self.concept_ids, self.concept_vectors, self.provenance)
        with whole_path(path) as partial:
            write(held, partial)
            release_model(Path(path), self)
        return Path(path)

    @classmethod
    @takes(path="path")
    def load(cls, path: str | Path) -> Embeddings:
        """Read vectors from a file of any origin; its ending gives the format.

        - ``.safetensors``: the format of :meth:`save`; or a tensor ``vectors``, and ids as a JSON list under ``ids``
          in the metadata.
        - ``.npz``: arrays ``ids`` and ``vectors``.
        - ``.parquet``: a column ``question`` (or ``id``, or pandas' index), and either one column of lists or
          one column per dimension.
        - ``.json``: an object, id → list of numbers.
        - ``.csv``: a heading, a column ``question`` (or ``id``), one column per dimension. An id that a spreadsheet
          program would take for a formula (``=1+1``) has an apostrophe in front there.
        - ``.pt``: torch's, a dict of ``ids``, a list of text, and ``vectors``, a tensor; read with ``weights_only``.
        - ``.txt``, ``.vec``: word2vec's text (a line "rows dimensions", then "id number number …"), or GloVe's, without
          the first line; ``.bin``: word2vec's binary.

        Ids are text. Numbers may have any type but complex; ``.safetensors`` may hold bfloat16 and float8. No code in a
        file is ever run: no pickles are read.

        Raises
        ------
        EmbeddingError : no such file, an unknown ending, or an error in it (an id twice, rows of different lengths,
            NaN, something that isn't a number).
        """
        file = Path(path)
        if not file.is_file():
            raise EmbeddingError(f"{file}: no such file; check the spelling and the current folder")
        read = by_ending(file, READERS, "read from")
        try:
            beside = model_folder(file.absolute())  # it is read later, maybe from another folder
            made = cls(*read(file))
            return replace(made, model=beside) if (beside / MODEL).is_file() else made
        except EmbeddingError as error:
            raise EmbeddingError(f"{file}: {error}") from None
        except (OSError, EOFError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split()).partition(" If you trust")[0]  # numpy's way out is pickle, never ours
            raise EmbeddingError(f"{file}: no readable embeddings ({said}); write the file again") from None

    @takes(path="path")
    def save_model(self, path: str | Path) -> Path | None:
        """Write what :meth:`infer` needs beside the file of vectors, as ``PATH.model/``.

        Returns
        -------
        The folder; None if the table has no model (that of an earlier table is then removed).
        """
        folder = model_folder(Path(path))
        if self.model is None:
            release_model(Path(path))
            return None
        claim(folder, "model", also=(MODEL,))
        return self.inference().save(folder, self)

    def inference(self) -> Inference:
        """The model of the table; read from its folder when it is first asked for.

        Raises
        ------
        EmbeddingError : there is none, it can't be read, or it belongs to another table.
        """
        if self.model is None:
            raise EmbeddingError(
                "the table has no model next to it; move FILE.model and FILE together, or give the bank to "
                "qcq.recipes.add"
            )
        if isinstance(self.model, Path):
            object.__setattr__(self, "model", _OPENERS[0](self.model, self))
        assert not isinstance(self.model, Path)
        return self.model

    @takes(concepts="mapping")
    def infer(
        self,
        concepts: Mapping[str, Sequence[str]],
        neighbours: Mapping[str, Sequence[str]] | None = None,
        responses: Any = None,
    ) -> Embeddings:
        """Vectors of questions that were not there, by the model of this table; see ``docs/vectors.md``.

        Parameters
        ----------
        concepts : new question → its concepts, by the names of the bank. Names that the bank doesn't have say nothing.
        neighbours : new question → old questions that it is like; their concepts count as its own too.
        responses : training students' answers to the new questions: a frame, a file, or a mapping of columns
            ``student``, ``question``, ``correct`` and, if the rows are not in order, ``timestamp``. Rows on old
            questions show which stand beside the new ones.

        Returns
        -------
        Embeddings : the new rows. ``provenance["inferred"]`` counts how they were made: ``twins``, the mean of the old
            questions with exactly these concepts; ``model``; ``concepts``, the mean of its concepts' means;
            ``nothing``, the mean of all rows; ``provenance["unplaced"]`` names the last. ``provenance["answers"]`` says
            what became of the answers.

        Raises
        ------
        EmbeddingError : a table without a model, a question that is in the table already, or one whose name is missing
            or can't be written.
        UnknownNameError : a neighbour that isn't in the table. A concept that the bank doesn't have is a warning.
        DataError : answers of students outside the training part, or to a question that is neither new nor old.

        Examples
        --------
        >>> from qcq.data import read
        >>> from qcq.recipes import embed
        >>> bank = read([("q1", "halves"), ("q2", "thirds"), ("q3", "thirds")])
        >>> table = embed(bank, "concepts", dim=2)
        >>> table.infer({"q4": ["thirds"]}).provenance["inferred"]
        {'twins': 1}
        """
        model = self.inference()
        again = [str(q) for q in (*concepts, *(neighbours or ())) if q in self]
        if again:
            raise EmbeddingError(f"{len(again)} questions are in the table already, {again[0]!r} first; give new ones")
        ids, rows, how, notes = model.named(self, concepts, neighbours or {}, responses)
        counts = {kind: how.count(kind) for kind in sorted(set(how))}
        none = [q for q, kind in zip(ids, how, strict=True) if kind == "nothing"]
        said = {} if responses is None else {"answers": list(notes)}
        about = {**self.provenance, "inferred": counts, "unplaced": none, **said}
        return Embeddings(ids, rows, provenance=about)  # type: ignore[arg-type]  # becomes float32 there

    @takes(questions="list")
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
        questions = as_names(questions)
        missing = [q for q in questions if q not in self.index]
        if missing:
            raise EmbeddingError(_mismatch(self.ids, questions, missing))
        if len(self) > len(questions):
            known = set(questions)
            extra = [name for name in self.ids if name not in known]
            raise EmbeddingError(
                f"{len(extra)} vectors belong to no question of the data set, {extra[0]!r} first; leave them out"
            )
        order = [self.index[q] for q in questions]
        return Embeddings(questions, self.vectors[order], self.concept_ids, self.concept_vectors, dict(self.provenance))

    @takes(dataset="Dataset")
    def matched(
        self, dataset: Dataset, missing: Literal["refuse", "mean-of-concepts"] = "refuse"
    ) -> tuple[Embeddings, tuple[str, ...]]:
        """The vectors of a data set's questions, in its order, from a file that may hold other rows too.

        Rows called like the data set's concepts become concept vectors. Rows that word2vec and BERT tools add
        (``</s>``, ``[PAD]`` …) are left out.

        Parameters
        ----------
        missing : what becomes of a question without a vector: an error, or the mean over its concepts of the mean
            vector of each concept's questions.

        Returns
        -------
        embeddings : one row per question.
        notes : what was left out, used for concepts, or filled in, with counts; how many vectors are all zeros.

        Raises
        ------
        EmbeddingError : a question without a vector (and, where they are filled in, without a concept that has one), a
            row that is none of these, or equal vectors for all questions.
        """
        if missing not in ("refuse", "mean-of-concepts"):
            raise ArgumentError(f"matched: missing takes 'refuse' or 'mean-of-concepts', given {missing!r}")
        notes = []
        of = f" (data set {dataset.name})"
        extra = [name for name in self.ids if name not in set(dataset.questions)]
        added = [name for name in extra if name in ADDED]
        concepts = [name for name in extra if name not in ADDED and name in set(dataset.concepts)]
        unknown = len(extra) - len(added) - len(concepts)
        missed = [q for q in dataset.questions if q not in self.index]
        if unknown and not missed:
            known = {*dataset.concepts, *ADDED}
            first = next(name for name in extra if name not in known)
            raise EmbeddingError(
                f"{unknown} vectors belong to no question of the data set, {first!r} first; leave them out{of}"
            )
        if added:
            notes.append(f"{len(added)} rows that are no questions, left out: {', '.join(added)}")
        if concepts:
            notes.append(f"{len(concepts)} rows of concepts, taken as concept vectors")
        vectors = np.full((len(dataset.questions), self.dim), np.nan, dtype=np.float32)
        there = np.array([q in self.index for q in dataset.questions])
        if missed and (missing == "refuse" or not there.any()):
            fill = "; --missing mean-of-concepts fills them in" if there.any() else ""
            raise EmbeddingError(_mismatch(self.ids, dataset.questions, missed) + fill + of)
        vectors[there] = self.vectors[[self.index[q] for q in dataset.questions if q in self.index]]
        if missed:
            vectors[~there] = _mean_of_concepts(dataset, vectors, there)
            notes.append(f"{len(missed)} of {len(there)} questions have no vector: the mean of their concepts' vectors")
        whole = len(concepts) == len(dataset.concepts)
        rows = self.vectors[[self.index[c] for c in dataset.concepts]] if whole else self.concept_vectors
        ids = dataset.concepts if whole else self.concept_ids
        made = Embeddings(dataset.questions, vectors, ids, rows, dict(self.provenance))
        return made, (*notes, *made.remarks(numbers=True))

    @takes(others="mapping")
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
        EmbeddingError : a name that occurs twice, is ``question`` or no text; other questions, not one row per
            question, or features that are no finite numbers.

        Examples
        --------
        >>> both = Embeddings(["a", "b"], np.eye(2)).concatenate({"difficulty": [0.25, 0.75]}, name="walks")
        >>> both["b"].tolist(), both.columns
        ([0.0, 1.0, 0.75], ['walks.0', 'walks.1', 'difficulty'])
        """
        if name in others:
            raise EmbeddingError(f"two parts are called {name!r}; give this one another name")
        if odd := [key for key in (name, *others) if not isinstance(key, str)]:
            raise EmbeddingError(f"a part is called {odd[0]!r}, which is no text; give it another name")
        if "question" in (name, *others):
            raise EmbeddingError("a part is called 'question', as the column of the ids is; give it another name")
        parts = {name: self}
        for key, given in others.items():
            if isinstance(given, Embeddings):
                parts[key] = given.aligned(self.ids)
                continue
            try:
                numbers = np.asarray(_plain(_in_order(given, self.ids, repr(key)), repr(key)))
            except (TypeError, ValueError, RuntimeError):
                raise EmbeddingError(f"{key!r} has rows of different lengths; give all as many numbers") from None
            if numbers.ndim not in (1, 2) or len(numbers) != len(self):
                raise EmbeddingError(
                    f"{key!r} has shape {numbers.shape}; give one number or row to each of {len(self)}"
                )
            try:
                parts[key] = Embeddings(self.ids, numbers[:, None] if numbers.ndim == 1 else numbers)
            except EmbeddingError as error:
                raise EmbeddingError(f"{key!r}: {error}") from None
        listed, numbers_in, at = [], [], 0
        for key, part in parts.items():
            about = {name: value for name, value in part.provenance.items() if name not in ("parts", "numbers")}
            whole_part: Mapping[str, Any] = {"name": key, "columns": (0, part.dim)}
            for each in part.provenance.get("parts") or (whole_part,):  # a part that has parts keeps their names
                begin, end = each["columns"]
                listed.append({**about, **each, "columns": [at + begin, at + end]})
            numbers_in += part.provenance.get("numbers", ())
            at += part.dim
        names = [each["name"] for each in listed]
        if again := [each for at, each in enumerate(names) if each in names[:at]]:
            raise EmbeddingError(f"two parts are called {again[0]!r}; give one of them another name")
        concepts = [part.concept_vectors for part in parts.values() if list(part.concept_ids) == list(self.concept_ids)]
        held = [each for each in concepts if each is not None]
        whole = len(held) == len(parts)
        made = Embeddings(
            self.ids,
            np.concatenate([part.vectors for part in parts.values()], axis=1),
            self.concept_ids if whole else (),
            np.concatenate(held, axis=1) if whole else None,
            {"parts": listed, **({"numbers": numbers_in} if numbers_in else {})},
        )
        columns = made.columns
        if len(set(columns)) < len(columns):
            again = [each for at, each in enumerate(columns) if each in columns[:at]]
            raise EmbeddingError(f"two columns would be called {again[0]!r}; give a part another name")
        return made

    @property
    def columns(self) -> list[str]:
        """Names of the dimensions: d0, d1 …, or names from the concatenated parts."""
        if not self.provenance.get("parts"):
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

    @classmethod
    @takes(kv="KeyedVectors")
    def from_keyedvectors(cls, kv: KeyedVectors) -> Embeddings:
        """The vectors of gensim's KeyedVectors (``model.wv``), in their order.

        gensim's own file (``.kv``) is a pickle, which could run code: load it in gensim, and pass the result on.

        Raises
        ------
        EmbeddingError : NaN or infinity, or a key that occurs twice as text.
        """
        return cls([str(key) for key in kv.index_to_key], np.array(kv.vectors))

    def to_torch(self) -> torch.Tensor:
        """The question vectors as a float32 tensor (questions, dim), a copy: training it changes nothing here."""
        import torch

        return torch.tensor(self.vectors)

    def to_pandas(self) -> pd.DataFrame:
        """A pandas frame: ``question`` and ``columns``, one per dimension.

        Raises
        ------
        EmbeddingError : pandas isn't installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise EmbeddingError("pandas can't be imported here; install it, or take to_frame()") from None
        frame = pd.DataFrame(self.vectors.copy(), columns=self.columns)
        frame.insert(0, "question", list(self.ids))
        return frame

    def __repr__(self) -> str:
        concepts = "" if self.concept_vectors is None else several(len(self.concept_ids), "concept")
        return in_short("Embeddings", several(len(self), "question"), concepts, several(self.dim, "dimension"))

    def _repr_html_(self) -> str:
        said = {key: self.provenance.get(key) for key in ("dataset", "data", "recipe", "walk", "trainer", "seed")}
        said = {key: value.get("name") if isinstance(value, Mapping) else value for key, value in said.items()}
        origin = [f"{key} {value}" for key, value in said.items() if value is not None]
        rows = {"questions": f"{len(self):,}", "dimensions": f"{self.dim:,}"}
        if self.concept_vectors is not None:
            rows["concepts"] = f"{len(self.concept_ids):,}"
        return html_table("Embeddings", {**rows, "first questions": first(self.ids), "from": ", ".join(origin)})

    def to_frame(self) -> pl.DataFrame:
        """A polars frame: ``question`` and ``columns``, one per dimension."""
        import polars as pl

        columns: dict[str, Any] = {"question": list(self.ids)}
        columns |= dict(zip(self.columns, self.vectors.T, strict=True))
        return pl.DataFrame(columns)


def load_matched(
    files: Mapping[str, str], dataset: Dataset, missing: Literal["refuse", "mean-of-concepts"] = "refuse"
) -> dict[str, tuple[Embeddings, tuple[str, ...]]]:
    """The vectors of several files, by name, matched with a data set (:meth:`Embeddings.matched`).

    Raises
    ------
    EmbeddingError : a file that can't be read, or that doesn't fit the questions; the text begins with the file.
    """
    out = {}
    for name, file in files.items():
        try:
            out[name] = Embeddings.load(file).matched(dataset, missing)
        except EmbeddingError as error:
            said = str(error)
            raise EmbeddingError(said if said.startswith(str(Path(file))) else f"{file}: {said}") from None
    return out


# In the folder of a model.
MODEL, WEIGHTS, STUDENTS = "model.safetensors", "weights.safetensors", "students.safetensors"
_LARGE, _FEW = 100_000, 0.05  # rows of a large table, and the share of them that is fetched rather than passed over
_ROWS = 1 << 14  # rows checked or scaled at a time: both hold copies of them
_SMALL, _HUGE = 1e-15, 1e18  # between them float32 holds the square of a length, and of all that matters in it
_BLOCK = 1024  # rows whose largest value is looked at first


def _highest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The indices of the ``k`` largest values, best first; ties in index order.

    The k-th largest of the maxima of blocks is at most the k-th largest value, so only what reaches it is sorted.
    """
    blocks = len(values) // _BLOCK
    at = np.arange(len(values))
    if 0 < k <= blocks:
        most = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)  # (blocks,)
        at = np.flatnonzero(values >= np.partition(most, blocks - k)[blocks - k])
    return at[np.argsort(-values[at], kind="stable")[:k]]


def model_folder(file: Path) -> Path:
    """Where the model of a file of vectors is: ``vectors.parquet.model`` beside ``vectors.parquet``."""
    return file.with_name(f"{file.name}.model")


def identity(table: Embeddings) -> str:
    """SHA-256 over ids and numbers of a table."""
    held = hashlib.sha256("\0".join(table.ids).encode())
    held.update(table.vectors.tobytes())
    return held.hexdigest()


def release_model(file: Path, table: Embeddings | None = None) -> None:
    """Remove the model beside a file, unless it belongs to ``table``, which takes the place of the file's table.

    It is called before the table gets its name: a process that is killed in between leaves a table without its model,
    not one with the model of another. Other files in the folder stay, and so does a model that qcq didn't put there.
    """
    folder = model_folder(file)
    tables = _tables(folder / MODEL)
    if tables is None or (table is not None and identity(table) in tables):
        return
    for name in (MODEL, WEIGHTS, STUDENTS, MARK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # something of the user's is in it
        folder.rmdir()


def _tables(model: Path) -> list[str] | None:
    """The tables that a model belongs to; None if there is no model of a table."""
    if not model.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(model), framework="numpy") as held:
            return [str(each) for each in from_json((held.metadata() or {})["model"])["tables"]]
    except SafetensorError:
        return [] if (model.parent / MARK).is_file() else None  # a damaged model of qcq is that of no table
    except (OSError, KeyError, TypeError, ValueError):
        return None  # a language model, say


ADDED = ("</s>", "<s>", "<unk>", "<pad>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # rows that tools add


def _mean_of_concepts(dataset: Dataset, vectors: NDArray, there: NDArray[np.bool_]) -> NDArray:
    """float64 (questions without a vector, dim): for each, the mean over its concepts of their questions' mean."""
    w = dataset.q_matrix.astype(bool).astype(np.float64)
    known = w[there]  # (with a vector, concepts)
    n = known.sum(axis=0)  # (concepts,)
    means = (known.T @ vectors[there].astype(np.float64)) / np.maximum(n, 1)[:, None]  # (concepts, dim)
    wanted = w[~there] * (n > 0)  # (without a vector, concepts)
    degree = np.asarray(wanted.sum(axis=1)).ravel()
    if (degree == 0).any():
        first = [q for q, has in zip(dataset.questions, there, strict=True) if not has][int((degree == 0).argmax())]
        raise EmbeddingError(
            f"{int((degree == 0).sum())} questions have neither a vector nor a concept whose other questions have one, "
            f"{first!r} first; give them vectors"
        )
    return (wanted @ means) / degree[:, None]


def _mismatch(ids: Sequence[str], questions: Sequence[str], missing: Sequence[str]) -> str:
    """Which questions have no vector, ids of both sides, and the rule by which they would match."""
    known = set(questions)
    spare = [name for name in ids if name not in known]
    said = f"{len(missing)} of {len(questions)} questions have no vector: {_some(missing)}"
    if not spare:
        return f"{said}; give each question one"
    prefix = _shared(spare).rstrip("0123456789")
    suffix = _shared([name[::-1] for name in spare])[::-1].lstrip("0123456789")
    before = _shared(missing).rstrip("0123456789")
    rules: dict[str, Callable[[str], str]] = {
        f"with {before!r} before them": lambda name: before + name,
        f"without the prefix {prefix!r}": lambda name: name.removeprefix(prefix),
        f"without the ending {suffix!r}": lambda name: name.removesuffix(suffix),
        "without space around them": str.strip,
        "in lower case": str.lower,
        "in upper case": str.upper,
        "without leading zeros": lambda name: name.lstrip("0") or "0",
    }
    wanted = set(missing)
    matches = {rule: len(wanted.intersection(map(change, spare))) for rule, change in rules.items()}
    best = max(matches, key=lambda rule: matches[rule])
    hint = f"; {matches[best]} of them would match {best}" if matches[best] else "; ids are compared as text"
    return f"{said}; the file's other ids are {_some(spare)}{hint}"


def _shared(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:n]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (", …" if len(names) > 4 else "")
