"""Vectors of questions that were not there in training: what a table's model keeps, and how a new question meets it.

A trainer that can infer leaves frozen parts (``Model.frozen``) and has a method ``infer``. The old questions, their
vectors and their chain stay as they are; a new question only gets a first step into that chain.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from qcq.embeddings import MODEL, STUDENTS, WEIGHTS, Embeddings, identity, opens
from qcq.errors import ArgumentError, ChainError, ConfigError, EmbeddingError, GraphError, UnknownNameError, WalkError
from qcq.floors.markov import MarkovChain
from qcq.graph import KnowledgeGraph
from qcq.models.answers import Answers, Students, drawn
from qcq.models.trainer import Frozen, Model, Trainer, frozen_part
from qcq.models.weights import Weights
from qcq.support.arrays import digest, read_safetensors, refuse_bad_indices
from qcq.support.files import from_json, validated, whole_path
from qcq.support.names import missing
from qcq.support.reproducible import reproducible
from qcq.support.types import check
from qcq.support.vectors import as_names
from qcq.support.words import in_short, several
from qcq.walks import WalkStrategy

FORMAT = 2  # of the files of a model


@dataclass(frozen=True, eq=False)
class Part:
    """Columns of a table that one trainer made.

    Attributes
    ----------
    trainer, walk : a registered name and its settings.
    dim : how many columns; 0 is all.
    arrays : the trainer's frozen parts.
    weights : what its training ended with, where a trainer has that.

    Class attributes
    ----------------
    kind : what a file calls this kind of part; a subclass has one of its own.
    exchangeable : False where equal concepts don't mean equal columns, so that the mean of twins says nothing.
    """

    kind: ClassVar[str] = "trainer"
    exchangeable: ClassVar[bool] = True
    kinds: ClassVar[dict[str, type[Part]]] = {}

    trainer: tuple[str, Mapping[str, Any]]
    walk: tuple[str, Mapping[str, Any]]
    dim: int
    arrays: Mapping[str, NDArray] = field(default_factory=dict)
    weights: Weights | None = None

    def __init_subclass__(cls) -> None:
        Part.kinds[cls.kind] = cls

    @classmethod
    def of(cls, trainer: Trainer, walk: WalkStrategy, dim: int, model: Model | None) -> Part:
        """A trainer's part; without a model, or of a trainer that isn't registered, it only names who made it."""
        from qcq.models import TRAINERS

        name = next((name for name, kind in TRAINERS.items() if kind is type(trainer)), "")
        about = (name, trainer.config), (walk.name, walk.config), dim
        return cls(*about) if model is None or not name else cls(*about, model.frozen(), model.weights())

    def infer(self, graph: KnowledgeGraph, vectors: NDArray, weights: scipy.sparse.csr_array) -> NDArray | None:
        """The trainer's own vectors of new questions, float64 (new questions, dim); None where it has no way.

        Raises
        ------
        EmbeddingError : arrays or settings that don't fit the graph and the table.
        """
        from qcq.models import TRAINERS
        from qcq.walks import WALKS

        if not (self.arrays or self.weights) or self.trainer[0] not in TRAINERS or self.walk[0] not in WALKS:
            return None
        trainer: Trainer = TRAINERS[self.trainer[0]](**self.trainer[1])
        walk: WalkStrategy = WALKS[self.walk[0]](**self.walk[1])
        made = trainer.infer(Frozen(graph, walk, vectors, self.arrays, self.weights), weights)
        if made is not None and made.shape[1] != vectors.shape[1]:
            raise EmbeddingError(
                f"the settings of {self.trainer[0]} in the model give {made.shape[1]} columns, and the table has "
                f"{vectors.shape[1]}; write the table again with qcq embed"
            )
        return made

    def answered(
        self,
        graph: KnowledgeGraph,
        vectors: NDArray,
        made: NDArray[np.float64],
        weights: scipy.sparse.csr_array,
        answers: Answers,
    ) -> tuple[NDArray[np.float64], str]:
        """Columns of new questions with answers to them, and what was done, in words.

        Walks that read answers stand beside a new question where students did: :func:`qcq.models.answers.drawn`.

        Parameters
        ----------
        vectors : float64 (questions, dim), the old ones.
        made : float64 (new questions, dim), without answers.
        weights : csr_array (new questions × concepts of the graph).
        """
        from qcq.walks import WALKS

        name = f"{self.trainer[0] or 'this trainer'} on {self.walk[0]}"
        try:
            if self.walk[0] in WALKS:
                WALKS[self.walk[0]](**self.walk[1]).prepare(graph, None)
            return made, f"{name}: walks read no answers, so they change nothing"
        except WalkError:
            made, n = drawn(answers, made, vectors)
        if not n:
            return made, f"{name}: no answer to an old question comes directly before or after one to a new question"
        return made, f"{name}: {n:,} of {len(made):,} new questions by the old ones directly before and after them"


Part.kinds[Part.kind] = Part


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """What a table needs to place new questions.

    Attributes
    ----------
    graph : the questions and concepts that it was trained on.
    parts : who made which columns, from left to right.
    students : which students were divided into parts; None where there are none.
    added : questions of the table that were inferred, and their concepts.
    """

    graph: KnowledgeGraph
    parts: Sequence[Part]
    students: Students | None = None
    added: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        graph, parts = self.graph, [part.trainer[0] for part in self.parts]
        bank = several(graph.n_questions, "question"), several(graph.n_concepts, "concept")
        return in_short("InferenceModel", *bank, f"parts {' '.join(parts)}" if parts else "")

    @property
    def concepts(self) -> dict[str, tuple[str, ...]]:
        """The concepts of each question of the table."""
        w = self.graph.weights
        spans = zip(self.graph.questions, w.indptr[:-1], w.indptr[1:], strict=True)
        known = {q: tuple(self.graph.concepts[c] for c in w.indices[a:b]) for q, a, b in spans}
        return known | {q: tuple(each) for q, each in self.added.items()}

    @reproducible()
    def infer(
        self,
        table: Embeddings,
        weights: scipy.sparse.csr_array,
        partly: NDArray[np.bool_],
        answers: Answers | None = None,
    ) -> tuple[NDArray[np.float64], list[str], tuple[str, ...]]:
        """Vectors of new questions.

        Parameters
        ----------
        table : the table that this model belongs to.
        weights : csr_array (new questions × concepts of ``graph``).
        partly : bool (new questions,), which also have concepts that ``graph`` doesn't: they have no twins.
        answers : training students' answers to the new questions.

        Returns
        -------
        vectors : float64 (new questions, dim). A question without a concept gets the mean of all rows.
        how : for each, ``twins`` (the mean of the old questions with exactly its concepts and weights), ``model``,
            ``concepts`` (the mean of its concepts' means, where the trainer has no other way) or ``nothing``.
        notes : how the answers were read, and what each part made of them.
        """
        rows = table.vectors[[table.index[q] for q in self.graph.questions]].astype(np.float64)
        keys = [_key(weights, i) + b"?" * bool(partly[i]) for i in range(weights.shape[0])]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        kinds = list(first)
        of = {key: i for i, key in enumerate(kinds)}
        made, how = self._each(rows, scipy.sparse.csr_array(weights[list(first.values())]), kinds)
        at = [of[key] for key in keys]
        made, notes = made[at], [] if answers is None else list(answers.notes)
        if answers is not None:
            if not self.parts:
                notes.append("the table has no model, so the answers change nothing")
            for part, span in self._spans(rows.shape[1]):
                made[:, span], said = part.answered(self.graph, rows[:, span], made[:, span], weights, answers)
                notes.append(said)
        return made, [how[i] for i in at], tuple(notes)

    def named(
        self,
        table: Embeddings,
        concepts: Mapping[str, Sequence[str]],
        neighbours: Mapping[str, Sequence[str]],
        responses: Any = None,
    ) -> tuple[list[str], NDArray[np.float64], list[str], tuple[str, ...]]:
        """The same by names: questions, their vectors, how each was made, and notes (:meth:`Embeddings.infer`)."""
        check("infer", "neighbours", neighbours, "mapping")
        concepts, neighbours = _lists("concepts", concepts), _lists("neighbours", neighbours)
        ids = list(dict.fromkeys([*concepts, *neighbours]))
        if again := [q for q in ids if q in table.index]:  # also one that was given as a number
            raise EmbeddingError(f"{len(again)} questions are in the table already, {again[0]!r} first; give new ones")
        at = {name: i for i, name in enumerate(self.graph.concepts)}
        known = np.diff(self.graph.by_concept.indptr) > 0
        weights = scipy.sparse.lil_array((len(ids), self.graph.n_concepts))
        partly = np.zeros(len(ids), dtype=bool)
        unknown: dict[str, str] = {}  # concept → the first question that has it
        for i, question in enumerate(ids):
            for name in concepts.get(question, ()):
                if name in at and known[at[name]]:
                    weights[i, at[name]] = 1.0
                else:
                    partly[i] = True
                    unknown.setdefault(name, question)
            for other in neighbours.get(question, ()):
                if other not in self.graph.question_index:
                    raise UnknownNameError("question", other, self.graph.questions)
                own = self.graph.weights
                row = self.graph.question_index[other]
                weights[i, own.indices[own.indptr[row] : own.indptr[row + 1]]] = 1.0
        for name, question in unknown.items():
            said = UnknownNameError("concept", name, [each for each in self.graph.concepts if known[at[each]]])
            warnings.warn(f"doubtful: {question!r} has an {said}; it says nothing about the question", stacklevel=4)
        rows, how, notes = self.infer(table, weights.tocsr(), partly, self.answers(responses, ids))
        return ids, rows, how, notes

    def answers(self, responses: Any, new: Sequence[str]) -> Answers | None:
        """Answers to new questions, checked (:meth:`Answers.read <qcq.models.answers.Answers.read>`); None of None."""
        return None if responses is None else Answers.read(responses, new, self.graph.questions, self.students)

    def _spans(self, width: int) -> Iterator[tuple[Part, slice]]:
        """Each part with its columns."""
        column = 0
        for part in self.parts:
            span = slice(column, column + (part.dim or width))
            column = span.stop
            yield part, span

    def _each(
        self, rows: NDArray[np.float64], weights: scipy.sparse.csr_array, keys: Sequence[bytes]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """The same for distinct sets of concepts, without answers."""
        made = by_concepts(self.graph.weights, rows, weights)
        how = np.where(np.diff(weights.indptr) > 0, "concepts", "nothing").astype(object)
        twins: dict[bytes, list[int]] = {}
        for i in range(self.graph.n_questions):
            twins.setdefault(_key(self.graph.weights, i), []).append(i)
        for at, key in enumerate(keys):
            if how[at] != "nothing" and key in twins:
                made[at], how[at] = rows[twins[key]].mean(axis=0), "twins"
        some = np.flatnonzero(how == "concepts")
        for part, span in self._spans(rows.shape[1]):
            which = some if part.exchangeable else np.arange(len(keys))
            if not len(which):
                continue
            found = part.infer(self.graph, rows[:, span], scipy.sparse.csr_array(weights[which]))
            if found is not None:
                made[which, span] = found
                how[some] = "model" if part.exchangeable else how[some]
        return made, how.tolist()

    def save(self, folder: Path, *tables: Embeddings) -> Path:
        """Write it into ``folder``: ``model.safetensors``; ``weights.safetensors`` where a trainer has weights, and
        ``students.safetensors`` where there are students.

        Parameters
        ----------
        tables : those that it belongs to: several read-outs of one training have one model.
        """
        from safetensors.numpy import save_file

        w = self.graph.weights
        arrays = {"graph.indptr": w.indptr, "graph.indices": w.indices, "graph.data": w.data}
        for i, part in enumerate(self.parts):
            arrays |= {f"{i}.{name}": array for name, array in part.arrays.items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        kept = [part.weights for part in self.parts if part.weights is not None]
        assert len(kept) < 2
        said = {
            "format": FORMAT,
            "tables": [identity(table) for table in tables],
            "questions": list(self.graph.questions),
            "concepts": list(self.graph.concepts),
            "added": {question: list(concepts) for question, concepts in self.added.items()},
            "parts": [
                {
                    "kind": part.kind,
                    "trainer": part.trainer,
                    "walk": part.walk,
                    "dim": part.dim,
                    "weights": part.weights is not None,
                }
                for part in self.parts
            ],
            "weights": kept[0].digest if kept else None,
        }
        said["digest"] = digest(said, arrays)
        for weights in kept:
            weights.save(folder / WEIGHTS)
        if not kept:
            (folder / WEIGHTS).unlink(missing_ok=True)
        if self.students is None:
            (folder / STUDENTS).unlink(missing_ok=True)
        else:
            self.students.save(folder)
        with whole_path(folder / MODEL) as partial:
            save_file(arrays, partial, metadata={"model": json.dumps(said, sort_keys=True)})
        return folder

    @classmethod
    def load(cls, folder: Path, table: Embeddings) -> InferenceModel:
        """Read what :meth:`save` wrote.

        Raises
        ------
        EmbeddingError : no readable model, a damaged one, or one that belongs to another table.
        """
        file = folder / MODEL
        try:
            meta, arrays = read_safetensors(file)
            read = from_json(meta["model"])
            if read["format"] != FORMAT:
                raise ValueError(f"format {read['format']}, this version reads {FORMAT}")
            said = validated(read, _Said)
            if said.digest not in (None, digest(read, arrays)):
                raise ValueError("it was changed or damaged since it was written")
            if identity(table) not in said.tables or not table.index.keys() >= {*said.questions, *said.added}:
                raise EmbeddingError(
                    f"{folder}: the model of another table; write table and model again with qcq embed"
                )
            weights = None if said.weights is None else Weights.load(folder / WEIGHTS)
            if weights is not None and weights.digest != said.weights:
                raise ValueError(f"{WEIGHTS} is of another training")
            for names in (said.questions, said.concepts):
                if again := [name for name, n in Counter(names).items() if n > 1]:
                    raise ValueError(f"{again[0]!r} occurs twice")
            data, *at = (frozen_part(arrays, f"graph.{name}", None) for name in ("data", "indices", "indptr"))
            if any(array.dtype.kind != "i" for array in at):
                raise ValueError("indices of its graph that are no whole numbers")
            w = scipy.sparse.csr_array((data, *at), (len(said.questions), len(said.concepts)))
            refuse_bad_indices(w)
            graph = KnowledgeGraph(said.questions, said.concepts, w)
            parts = []
            for i, part in enumerate(said.parts):
                own = {n.partition(".")[2]: array for n, array in arrays.items() if n.startswith(f"{i}.")}
                about = part.trainer, part.walk, part.dim
                parts.append(Part.kinds[part.kind](*about, own, weights if part.weights else None))
            if sum(part.dim for part in parts) > table.dim:
                raise ValueError(f"its parts have more columns than the {table.dim} of the table")
            students = Students.load(folder)
            if students is None and "students" in arrays:  # earlier versions wrote them into the same file
                students = Students(arrays["students"], arrays["training"])
        except (OSError, ConfigError, GraphError, KeyError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise EmbeddingError(f"{file}: no readable model ({why}); write the table again with qcq embed") from None
        return cls(graph, parts, students, {question: tuple(own) for question, own in said.added.items()})


class _Strict(BaseModel):  # what a file must hold, and nothing else
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class _SaidPart(_Strict):
    kind: str
    trainer: Annotated[tuple[str, dict[str, Any]], Field(strict=False)]
    walk: Annotated[tuple[str, dict[str, Any]], Field(strict=False)]
    dim: Annotated[int, Field(ge=0)]
    weights: bool


class _Said(_Strict):
    format: int
    tables: list[str]
    questions: list[str]
    concepts: list[str]
    added: dict[str, list[str]] = {}
    parts: list[_SaidPart]
    weights: str | None
    digest: str | None = None  # earlier versions wrote none


def _lists(what: str, given: Mapping[Any, Any]) -> dict[str, list[str]]:
    """Question → names, all as text; ``what`` the names are.

    Raises
    ------
    ArgumentError : a value that is no list of names (of text, each letter would be one), or two keys that are one name.
    EmbeddingError : a name that is missing, or can't be written as UTF-8.
    """
    made: dict[str, list[str]] = {}
    for question, names in zip(as_names(list(given)), given.values(), strict=True):
        where = f"infer: {what} of {question!r}"
        if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
            shown = f"given {type(names).__name__} {names!r}"[:80]
            fix = f"[{names!r}]" if isinstance(names, str | int) else "['name', …], or [] for none"
            raise ArgumentError(f"{where} are a list of names, {shown}; give a list: {fix}")
        names = list(names)
        if any(map(missing, names)):
            shown = repr(names)[:80]
            raise ArgumentError(f"{where}: a missing value among {shown}; leave it out")
        if question in made:
            raise ArgumentError(f"{where}: {question!r} is given twice, as text and as a number; give it once")
        try:
            made[question] = list(as_names(names, what.removesuffix("s")))
        except EmbeddingError as error:
            raise EmbeddingError(f"{where}: {error}") from None
    return made


def _key(weights: scipy.sparse.csr_array, i: int) -> bytes:
    span = slice(weights.indptr[i], weights.indptr[i + 1])
    return weights.indices[span].astype(np.int64).tobytes() + weights.data[span].astype(np.float64).tobytes()


def by_concepts(
    old: scipy.sparse.csr_array, rows: NDArray[np.float64], weights: scipy.sparse.csr_array
) -> NDArray[np.float64]:
    """For each new question the mean, over its concepts, of the mean row of a concept's old questions.

    Parameters
    ----------
    old : (old questions × concepts).
    rows : float64 (old questions, dim).
    weights : (new questions × concepts).

    Returns
    -------
    float64 (new questions, dim); the mean of all rows where no concept has old questions.
    """
    tested, wanted = (old > 0).astype(np.float64), (weights > 0).astype(np.float64)
    n = np.asarray(tested.sum(axis=0)).ravel()  # (concepts,)
    means = np.asarray(tested.T @ rows) / np.maximum(n, 1)[:, None]
    wanted = scipy.sparse.csr_array(wanted @ scipy.sparse.diags_array((n > 0).astype(np.float64)))
    degree = np.asarray(wanted.sum(axis=1)).ravel()[:, None]
    return np.where(degree > 0, np.asarray(wanted @ means) / np.maximum(degree, 1), rows.mean(axis=0))


def pair_law(
    frozen: Frozen, weights: scipy.sparse.csr_array, decay: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Exactly how often each old token stands near a new question, where skip-gram counts.

    The law of the token δ = 1 … window steps after the question, mixed by ``decay``. The question steps to its concepts
    as the walk would, and from there the old bank's own chain goes on. (On undirected edges the law is the same in both
    directions, but for walks' ends.)

    Parameters
    ----------
    weights : (new questions × concepts).
    decay : float64 (window,).

    Returns
    -------
    law : float64 (new questions, classes [+ concepts, where they are tokens]), rows sum to 1 where a walk can leave.
    classes : int64 (old questions,): questions of the same chain, whose law is summed in one column.

    None where the walk has no first-order chain over the concepts.
    """
    graph, n = frozen.graph, weights.shape[0]
    both = KnowledgeGraph(
        [*(f"old {q}" for q in graph.questions), *(f"new {i}" for i in range(n))],
        graph.concepts,
        scipy.sparse.csr_array(scipy.sparse.vstack([graph.weights, weights])),
    )
    try:
        chain, wider = frozen.walk.chain(graph), frozen.walk.chain(both)
    except ChainError:
        return None
    if not (isinstance(chain, MarkovChain) and isinstance(wider, MarkovChain) and chain.n_hubs == graph.n_concepts):
        return None
    sizes = scipy.sparse.csr_array((np.ones(graph.n_questions), (np.arange(graph.n_questions), chain.classes)))
    into = chain.into @ sizes  # (concepts, classes)
    middle = chain.into @ chain.out  # (concepts, concepts)
    hub = wider.out[-n:].toarray()  # (new questions, concepts)
    law = np.zeros((n, into.shape[1]))
    tokens = np.zeros((n, graph.n_concepts))
    for step, share in enumerate(decay, start=1):
        if chain.keep_concepts and step % 2:
            tokens += share * hub
            continue
        law += share * np.asarray(hub @ into)
        hub = np.asarray(hub @ middle)
    if chain.keep_concepts:
        law = np.hstack([law, tokens])
    return law / np.maximum(law.sum(axis=1, keepdims=True), 1e-300), chain.classes


_AT_ONCE = 1 << 16  # scores of a block of rows: they stay in the processor's cache
TOLERANCE = 5e-7  # of an entry of a row


def logistic_rows(
    start: NDArray[np.float64],
    outputs: NDArray[np.float64],
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    prior: float,
    steps: int = 200,
) -> NDArray[np.float64]:
    """Rows x that minimise −Σ_y p_y log σ(x·o_y) − Σ_y n_y log σ(−x·o_y) + prior/2 |x − start|², o frozen.

    The problem is convex, and each row has its own. All rows of a block take steps of conjugate gradients together. The
    curvature at the mean start, which all rows share, is the preconditioner: a step costs two products with the outputs
    and no curvature of a single row. The length of a step comes from the curvature φ″ along it. As
    φ″(t) ≤ φ″(0) e^{Rt} with R the largest |change of a score|, the step t = log(1 + R |φ′|/φ″) / R never goes past the
    lowest point along its line. A row is done when its gradient is at most ``prior`` × TOLERANCE long: by strong
    convexity it is then within TOLERANCE of the solution.

    Parameters
    ----------
    start : float64 (rows, dim).
    outputs : float64 (tokens, dim).
    positive : p, float64 (rows, tokens).
    negative : n, float64 (tokens,), expected number of negatives a pair.
    prior : how strongly a row is held at its start.
    steps : at most so many.

    References
    ----------
    Bach 2010, Self-concordant analysis for logistic regression (EJS), for the bound. Polak & Ribière 1969.
    """
    if not len(start):
        return start.copy()
    prior = max(prior, 1e-9)
    real = 1 / (1 + np.exp(-np.clip(start.mean(axis=0) @ outputs.T, -60, 60)))  # (tokens,)
    bend = real * (1 - real) * (positive.mean(axis=0) + negative)
    inverse = np.linalg.inv((outputs.T * bend) @ outputs + prior * np.eye(outputs.shape[1]))  # (dim, dim)
    most = max(1, _AT_ONCE // len(outputs))
    blocks = [slice(i, i + most) for i in range(0, len(start), most)]
    made = [_descend(start[b], outputs, positive[b], negative, prior, inverse, steps) for b in blocks]
    return np.concatenate(made)


def _descend(
    start: NDArray[np.float64],
    outputs: NDArray[np.float64],
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    prior: float,
    inverse: NDArray[np.float64],
    steps: int,
) -> NDArray[np.float64]:
    """A block of rows of :func:`logistic_rows`; ``inverse``, the inverse of their shared curvature."""
    solved = start.copy()
    alive, x, p = np.arange(len(start)), start.copy(), positive
    weight, z = p + negative, x @ outputs.T  # (rows, tokens)
    way = before = gain = np.empty(0)
    for step in range(steps + 1):
        real = np.exp(-np.clip(z, -60, 60))
        real += 1
        np.reciprocal(real, out=real)
        slope = (real * weight - p) @ outputs + prior * (x - start[alive])  # (rows, dim)
        going = np.square(slope).sum(axis=1) > (prior * TOLERANCE) ** 2
        if step == steps:
            going[:] = False
        if not going.all():
            solved[alive[~going]] = x[~going]
            alive, x, p, weight, z, real, slope = (each[going] for each in (alive, x, p, weight, z, real, slope))
            if step:
                way, before, gain = way[going], before[going], gain[going]
            if not len(alive):
                break
        down = slope @ inverse
        fall = (slope * down).sum(axis=1)
        if step:
            keep = np.maximum((slope * (down - before)).sum(axis=1) / gain, 0)
            way = keep[:, None] * way - down
            lost = (way * slope).sum(axis=1) >= 0  # uphill: begin afresh
            way[lost] = -down[lost]
        else:
            way = -down
        before, gain = down, fall
        change = way @ outputs.T  # (rows, tokens)
        real -= np.square(real)
        real *= weight
        curve = np.einsum("ij,ij,ij->i", real, change, change) + prior * np.square(way).sum(axis=1)
        reach = np.maximum(np.abs(change).max(axis=1), 1e-12)
        length = np.log1p(-reach * (way * slope).sum(axis=1) / curve) / reach
        x = x + length[:, None] * way
        change *= length[:, None]
        z = z + change
    return solved


opens(InferenceModel.load)


def opened(table: Embeddings) -> InferenceModel | None:
    """The model of a table, read from its folder on first use; None where there is none."""
    return None if table.model is None else cast(InferenceModel, table.inference())


def with_model(
    table: Embeddings, graph: KnowledgeGraph, parts: Sequence[Part], students: Students | None = None
) -> Embeddings:
    """The same table with what it needs to infer."""
    return replace(table, model=InferenceModel(graph, parts, students))
