"""Vectors of questions that were not there in training: what a table's model keeps, and how a new question meets it.

A trainer that can infer leaves frozen parts (``Model.frozen``) and has a method ``infer``. The old questions, their
vectors and their chain stay as they are; a new question only gets a first step into that chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from qcq.embeddings import Embeddings
from qcq.errors import ChainError, EmbeddingError, UnknownNameError
from qcq.floors.markov import MarkovChain
from qcq.graph import KnowledgeGraph
from qcq.models.trainer import Frozen, Trainer
from qcq.support.files import whole_path
from qcq.walks import WalkStrategy

FORMAT = 1  # of the files beside a table


@dataclass(frozen=True, eq=False)
class Part:
    """Columns of a table that one trainer made.

    Attributes
    ----------
    trainer, walk : a registered name and its settings.
    dim : how many columns.
    arrays : the trainer's frozen parts.
    """

    trainer: tuple[str, Mapping[str, Any]]
    walk: tuple[str, Mapping[str, Any]]
    dim: int
    arrays: Mapping[str, NDArray] = field(default_factory=dict)

    @classmethod
    def of(cls, trainer: Trainer, walk: WalkStrategy, dim: int, arrays: Mapping[str, NDArray]) -> Part:
        """A trainer's part; one that isn't registered can't be found again, so its arrays aren't kept."""
        from qcq.models import TRAINERS

        name = next((name for name, kind in TRAINERS.items() if kind is type(trainer)), "")
        return cls((name, trainer.config), (walk.name, walk.config), dim, arrays if name else {})

    def infer(self, graph: KnowledgeGraph, vectors: NDArray, weights: scipy.sparse.csr_array) -> NDArray | None:
        """The trainer's own vectors of new questions, float64 (new questions, dim); None where it has no way."""
        from qcq.models import TRAINERS
        from qcq.walks import WALKS

        if not self.arrays or self.trainer[0] not in TRAINERS or self.walk[0] not in WALKS:
            return None
        trainer: Trainer = TRAINERS[self.trainer[0]](**self.trainer[1])
        walk: WalkStrategy = WALKS[self.walk[0]](**self.walk[1])
        return trainer.infer(Frozen(graph, walk, vectors, self.arrays), weights)


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """What a table needs to place new questions.

    Attributes
    ----------
    graph : the questions and concepts that it was trained on.
    parts : who made which columns, from left to right.
    """

    graph: KnowledgeGraph
    parts: Sequence[Part]

    def infer(
        self, table: Embeddings, weights: scipy.sparse.csr_array, partly: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """Vectors of new questions.

        Parameters
        ----------
        table : the table that this model belongs to.
        weights : csr_array (new questions × concepts of ``graph``).
        partly : bool (new questions,), which also have concepts that ``graph`` doesn't: they have no twins.

        Returns
        -------
        vectors : float64 (new questions, dim). A question without a concept gets the mean of all rows.
        how : for each, ``twins`` (the mean of the old questions with exactly its concepts and weights), ``model``,
            ``concepts`` (the mean of its concepts' means, where the trainer has no other way) or ``nothing``.
        """
        rows = table.vectors[[table.index[q] for q in self.graph.questions]].astype(np.float64)
        keys = [_key(weights, i) + b"?" * bool(partly[i]) for i in range(weights.shape[0])]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        kinds = list(first)
        of = {key: i for i, key in enumerate(kinds)}
        made, how = self._each(rows, scipy.sparse.csr_array(weights[list(first.values())]), kinds)
        at = [of[key] for key in keys]
        return made[at], [how[i] for i in at]

    def named(
        self, table: Embeddings, concepts: Mapping[str, Sequence[str]], neighbours: Mapping[str, Sequence[str]]
    ) -> tuple[list[str], NDArray[np.float64], list[str]]:
        """The same by names: questions, their vectors, and how each was made (:meth:`Embeddings.infer`)."""
        ids = list(dict.fromkeys([*concepts, *neighbours]))
        at = {name: i for i, name in enumerate(self.graph.concepts)}
        known = np.diff(self.graph.by_concept.indptr) > 0
        weights = scipy.sparse.lil_array((len(ids), self.graph.n_concepts))
        partly = np.zeros(len(ids), dtype=bool)
        for i, question in enumerate(ids):
            for name in concepts.get(question, ()):
                if name in at and known[at[name]]:
                    weights[i, at[name]] = 1.0
                else:
                    partly[i] = True
            for other in neighbours.get(question, ()):
                if other not in self.graph.question_index:
                    raise UnknownNameError("question", other, self.graph.questions)
                own = self.graph.weights
                row = self.graph.question_index[other]
                weights[i, own.indices[own.indptr[row] : own.indptr[row + 1]]] = 1.0
        rows, how = self.infer(table, weights.tocsr(), partly)
        return ids, rows, how

    def _each(
        self, rows: NDArray[np.float64], weights: scipy.sparse.csr_array, keys: Sequence[bytes]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """The same for distinct sets of concepts."""
        made = by_concepts(self.graph.weights, rows, weights)
        how = np.where(np.diff(weights.indptr) > 0, "concepts", "nothing").astype(object)
        twins: dict[bytes, list[int]] = {}
        for i in range(self.graph.n_questions):
            twins.setdefault(_key(self.graph.weights, i), []).append(i)
        for at, key in enumerate(keys):
            if how[at] != "nothing" and key in twins:
                made[at], how[at] = rows[twins[key]].mean(axis=0), "twins"
        some = np.flatnonzero(how == "concepts")
        column = 0
        for part in self.parts if len(some) else ():
            span = slice(column, column + part.dim)
            column += part.dim
            found = part.infer(self.graph, rows[:, span], scipy.sparse.csr_array(weights[some]))
            if found is not None:
                made[some, span] = found
                how[some] = "model"
        return made, how.tolist()

    def save(self, folder: Path, table: Embeddings) -> Path:
        """Write ``model.safetensors`` into ``folder``: arrays, and everything else as JSON in its metadata."""
        from safetensors.numpy import save_file

        w = self.graph.weights
        arrays = {"graph.indptr": w.indptr, "graph.indices": w.indices, "graph.data": w.data}
        for i, part in enumerate(self.parts):
            arrays |= {f"{i}.{name}": array for name, array in part.arrays.items()}
        said = {
            "format": FORMAT,
            "table": identity(table),
            "questions": list(self.graph.questions),
            "concepts": list(self.graph.concepts),
            "parts": [{"trainer": part.trainer, "walk": part.walk, "dim": part.dim} for part in self.parts],
            "provenance": dict(table.provenance),
        }
        with whole_path(folder / "model.safetensors") as partial:
            held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(held, partial, metadata={"model": json.dumps(said, sort_keys=True)})
        return folder

    @classmethod
    def load(cls, folder: Path, table: Embeddings) -> InferenceModel:
        """Read what :meth:`save` wrote.

        Raises
        ------
        EmbeddingError : no readable model, or one that belongs to another table.
        """
        from safetensors import SafetensorError, safe_open

        file = folder / "model.safetensors"
        try:
            with safe_open(str(file), framework="numpy") as held:
                said = json.loads((held.metadata() or {})["model"])
                arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  (not a dict)
            if said["format"] != FORMAT:
                raise ValueError(f"format {said['format']}, this version reads {FORMAT}")
            shape = len(said["questions"]), len(said["concepts"])
            w = scipy.sparse.csr_array(tuple(arrays[f"graph.{name}"] for name in ("data", "indices", "indptr")), shape)
            w.check_format(full_check=True)
            parts = []
            for i, part in enumerate(said["parts"]):
                own = {n.partition(".")[2]: array for n, array in arrays.items() if n.startswith(f"{i}.")}
                parts.append(Part(tuple(part["trainer"]), tuple(part["walk"]), part["dim"], own))
            whose = said["table"]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise EmbeddingError(f"{file}: no readable model ({why}); write the table again with qcq embed") from None
        if whose != identity(table):
            raise EmbeddingError(f"{folder}: the model of another table; write table and model again with qcq embed")
        return cls(KnowledgeGraph(said["questions"], said["concepts"], w), parts)


def identity(table: Embeddings) -> str:
    """SHA-256 over ids and numbers of a table."""
    held = hashlib.sha256("\0".join(table.ids).encode())
    held.update(table.vectors.tobytes())
    return held.hexdigest()


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


def logistic_rows(
    start: NDArray[np.float64],
    outputs: NDArray[np.float64],
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    prior: float,
    steps: int = 8,
) -> NDArray[np.float64]:
    """Rows x that minimise −Σ_y p_y log σ(x·o_y) − Σ_y n_y log σ(−x·o_y) + prior/2 |x − start|², o frozen: by Newton.

    The problem is convex, and each row has its own. Half steps are taken where a whole one doesn't lower the loss.

    Parameters
    ----------
    start : float64 (rows, dim).
    outputs : float64 (tokens, dim).
    positive : p, float64 (rows, tokens).
    negative : n, float64 (tokens,), expected number of negatives a pair.
    prior : how strongly a row is held at its start.
    """
    x = start.copy()
    ridge = max(prior, 1e-9) * np.eye(x.shape[1])

    def loss(x: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
        z = x @ outputs.T  # (rows, tokens)
        apart: NDArray[np.float64] = prior / 2 * np.square(x - start[at]).sum(axis=1)
        return apart + (positive[at] * np.logaddexp(0, -z)).sum(axis=1) + np.logaddexp(0, z) @ negative

    now = loss(x, np.arange(len(x)))
    alive = np.arange(len(x))
    for _ in range(steps):
        if not len(alive):
            break
        p = positive[alive]
        real = 1 / (1 + np.exp(-np.clip(x[alive] @ outputs.T, -60, 60)))  # (alive, tokens)
        weight = p + negative
        slope = (real * weight - p) @ outputs + prior * (x[alive] - start[alive])  # (alive, dim)
        bend = (real * (1 - real) * weight)[:, :, None]
        move = np.empty_like(slope)
        for i in range(len(alive)):
            move[i] = np.linalg.solve(outputs.T @ (bend[i] * outputs) + ridge, slope[i])
        scale = np.ones(len(alive))
        trial = loss(x[alive] - move, alive)
        for _ in range(12):
            worse = np.flatnonzero(trial > now[alive])
            if not len(worse):
                break
            scale[worse] /= 2
            trial[worse] = loss(x[alive[worse]] - scale[worse, None] * move[worse], alive[worse])
        better = trial <= now[alive]
        gained = now[alive] - trial
        x[alive[better]] -= scale[better, None] * move[better]
        now[alive[better]] = trial[better]
        alive = alive[better & (gained > 1e-9)]
    return x


def opened(table: Embeddings) -> InferenceModel | None:
    """The model of a table, read from beside its file on first use."""
    if isinstance(table.model, Path):
        object.__setattr__(table, "model", InferenceModel.load(table.model, table))
    model: InferenceModel | None = table.model
    return model


def with_model(table: Embeddings, graph: KnowledgeGraph, parts: Sequence[Part]) -> Embeddings:
    """The same table with what it needs to infer."""
    return replace(table, model=InferenceModel(graph, parts))
