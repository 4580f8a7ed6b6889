"""The undirected question–concept graph."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data.bipartite import refuse_bad_weights, two_sides
from qcq.data.checks import Doubt
from qcq.data.dataset import TrainPart
from qcq.data.frames import from_edges
from qcq.data.graphs import Content, GraphFile, save_graph
from qcq.errors import DataError, GraphError, LeakageError
from qcq.graph import pyg
from qcq.support.names import named
from qcq.support.notebook import first, html_table
from qcq.support.types import check, takes
from qcq.support.words import in_short, several

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import HeteroData

    from qcq.data import Dataset


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """Questions, concepts and the weighted edges between them. One id space: questions 0…Q-1, concepts Q…Q+C-1.

    Parameters
    ----------
    questions, concepts : identifiers, in index order. They name nodes of different types, so one string may be both.
    weights : scipy.sparse.csr_array float64 (questions × concepts), positive and finite where there is an edge, with
        sorted indices and no explicit zeros.
    responses : int64 (questions,), training responses per question, or None (:meth:`with_responses`).
    parents, prerequisites : relations between concepts, where known; as in :class:`~qcq.data.Dataset`.

    Raises
    ------
    GraphError : wrong shape, or a zero, negative or non-finite weight.

    Examples
    --------
    >>> g = KnowledgeGraph.from_edges([("q1", "c1"), ("q2", "c1"), ("q2", "c2")])
    >>> g.n_questions, g.n_concepts, g.n_edges
    (2, 2, 3)
    """

    questions: Sequence[str]
    concepts: Sequence[str]
    weights: scipy.sparse.csr_array
    responses: NDArray[np.int64] | None = None
    parents: Mapping[str, str] = field(default_factory=dict)
    prerequisites: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        w = scipy.sparse.csr_array(self.weights, dtype=np.float64)
        if w.shape != (len(self.questions), len(self.concepts)):
            raise GraphError(
                f"weights of shape {w.shape} don't fit {len(self.questions)} questions × "
                f"{len(self.concepts)} concepts; give a row per question, a column per concept"
            )
        if not w.has_canonical_format:
            w = w.copy()
            w.sum_duplicates()
        if not w.has_sorted_indices:
            w = w.sorted_indices()
        for side in ("questions", "concepts"):
            object.__setattr__(self, side, _names(getattr(self, side), side[:-1]))
        refuse_bad_weights(self.questions, self.concepts, w)
        object.__setattr__(self, "weights", w)

    @property
    def n_questions(self) -> int:
        return len(self.questions)

    @property
    def n_concepts(self) -> int:
        return len(self.concepts)

    @property
    def n_edges(self) -> int:
        return int(self.weights.nnz)

    def __repr__(self) -> str:
        bank = several(self.n_questions, "question"), several(self.n_concepts, "concept")
        return in_short(type(self).__name__, *bank, several(self.n_edges, "edge"))

    def _repr_html_(self) -> str:
        return html_table(
            type(self).__name__,
            {
                "questions": f"{self.n_questions:,}",
                "concepts": f"{self.n_concepts:,}",
                "edges": f"{self.n_edges:,}",
                "training responses": "" if self.responses is None else f"{int(self.responses.sum()):,}",
                "first questions": first(self.questions),
                "first concepts": first(self.concepts),
            },
        )

    @cached_property
    def by_concept(self) -> scipy.sparse.csr_array:
        """The same edges seen from the concepts: csr_array float64 (concepts × questions), indices sorted."""
        turned = scipy.sparse.csr_array(self.weights.T.tocsr())
        turned.sort_indices()
        return turned

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of the graph: equal exactly when the graphs are equal."""
        return self._hash().hexdigest()

    def _hash(self) -> hashlib._Hash:
        h = hashlib.sha256(np.array(self.weights.shape, dtype=np.int64).tobytes())
        h.update(self.weights.indptr.astype(np.int64).tobytes())
        h.update(self.weights.indices.astype(np.int64).tobytes())
        h.update(self.weights.data.tobytes())
        for names in (self.questions, self.concepts):
            h.update("\0".join(names).encode())
        for kind, pairs in (("parents", sorted(self.parents.items())), ("prerequisites", self.prerequisites)):
            if pairs:
                h.update("\0".join([kind, *(name for pair in pairs for name in pair)]).encode())
        if self.responses is not None:
            h.update(self.responses.astype(np.int64).tobytes())
        return h

    @cached_property
    def question_index(self) -> dict[str, int]:
        return {q: i for i, q in enumerate(self.questions)}

    @cached_property
    def concept_sets(self) -> NDArray[np.int64]:
        """Class of each question, int64 (questions,): equal exactly if concepts and weights are equal.

        Such questions are exchangeable: swapping two of them doesn't change the distribution of any walk.
        """
        w = self.weights
        seen: dict[bytes, int] = {}
        rows = range(self.n_questions)
        keys = (
            w.indices[w.indptr[r] : w.indptr[r + 1]].tobytes() + w.data[w.indptr[r] : w.indptr[r + 1]].tobytes()
            for r in rows
        )
        return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), dtype=np.int64, count=self.n_questions)

    def without(self, rows: NDArray, columns: NDArray) -> KnowledgeGraph:
        """The graph without the edges ``(rows[i], columns[i])``; every question and concept stays."""
        coo = self.weights.tocoo()
        gone = np.isin(
            coo.row.astype(np.int64) * self.n_concepts + coo.col,
            np.asarray(rows, dtype=np.int64) * self.n_concepts + np.asarray(columns, dtype=np.int64),
        )
        kept = scipy.sparse.csr_array((coo.data[~gone], (coo.row[~gone], coo.col[~gone])), shape=self.weights.shape)
        return replace(self, weights=kept)

    def with_responses(self, train: TrainPart) -> KnowledgeGraph:
        """The graph with the number of training responses of each question, for walks weighted by them.

        Raises
        ------
        LeakageError : the argument isn't the training part.
        GraphError : the part has other questions.
        """
        if not isinstance(train, TrainPart):
            raise LeakageError(
                f"a graph may learn from the training part only, given {type(train).__name__}; pass split.train"
            )
        if len(train.dataset.questions) != self.n_questions or tuple(train.dataset.questions) != tuple(self.questions):
            raise GraphError(
                f"responses to the questions of {train.dataset.name!r} don't fit this graph's questions; "
                "take the split of the graph's own data"
            )
        return replace(self, responses=train.counts.astype(np.int64))

    def describe(self) -> dict[str, int | float]:
        """Counts: questions, concepts, edges, degrees, and anomalies (isolated nodes, components)."""
        w = self.weights
        both = scipy.sparse.block_array([[None, w], [w.T, None]], format="csr")
        n_components = scipy.sparse.csgraph.connected_components(both, directed=False, return_labels=False)
        of_question, of_concept = np.diff(w.indptr), np.diff(self.by_concept.indptr)
        return {
            "questions": self.n_questions,
            "concepts": self.n_concepts,
            "edges": self.n_edges,
            "concepts_a_question_mean": round(float(of_question.mean()), 3),
            "concepts_a_question_most": int(of_question.max(initial=0)),
            "questions_a_concept_median": float(np.median(of_concept)) if len(of_concept) else 0.0,
            "questions_a_concept_most": int(of_concept.max(initial=0)),
            "questions_without_concept": int((of_question == 0).sum()),
            "concepts_without_question": int((of_concept == 0).sum()),
            "components": int(n_components),
        }

    @classmethod
    @takes(dataset="Dataset")
    def from_dataset(cls, dataset: Dataset) -> KnowledgeGraph:
        """The graph of a data set's Q-matrix. Responses aren't used."""
        return cls(
            dataset.questions,
            dataset.concepts,
            dataset.q_matrix,
            parents=dataset.parents,
            prerequisites=dataset.prerequisites,
        )

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[str, str]]) -> KnowledgeGraph:
        """From (question, concept) pairs, indices in order of appearance; a repeated edge counts once.

        What :func:`qcq.read` would note as doubtful in them is a warning here.

        Raises
        ------
        GraphError : there are none.
        DataError : something that is no pair, or an identifier that is surely none.
        """
        check("from_edges", "edges", edges, "list")
        pairs = list(edges)
        if not pairs:
            raise GraphError("no edges given; give (question, concept) pairs")
        data = from_edges(pairs)
        _warn(note for note in data.notes if isinstance(note, Doubt))
        return cls.from_dataset(data)

    @classmethod
    @takes(path="path")
    def load(cls, path: str | Path) -> KnowledgeGraph:
        """From a file as :meth:`save` writes it, or another one of its formats (:class:`qcq.data.GraphFile`).

        What is doubtful in it, or was given twice, is a warning.

        Raises
        ------
        DataError : what is wrong with the file, and what to do.
        """
        data = GraphFile().read(Path(path))
        _warn(note for note in data.notes if isinstance(note, Doubt) or "more than once" in note)
        return cls.from_dataset(data)

    @takes(path="path")
    def save(self, path: str | Path) -> Path:
        """Write the graph in the format of the path's ending, whole or not at all.

        ======================  ==========================================================================
        ``.graphml``            nodes with ``bipartite`` (0 for questions) and ``identifier``; ``weight``
        ``.csv``, ``.tsv``      an edge list ``question,concept,weight``; ``=1+1`` is written ``'=1+1``
        ``.npz``                as ``scipy.sparse.save_npz``, with ``questions`` and ``concepts`` beside it
        ======================  ==========================================================================

        Identifiers, their order and the weights come back exactly, questions and concepts without an edge too. Only
        ``.npz`` has a place for ``parents`` and ``prerequisites``, and none for ``responses``, which come from
        students; what is left out is a warning.

        Returns
        -------
        Path : the file.

        Raises
        ------
        DataError : an unknown ending, or an identifier that no reader would take.
        """
        path = Path(path)
        held = Content(self.questions, self.concepts, self.weights, 0, dict(self.parents), tuple(self.prerequisites))
        left = save_graph(path, held)
        if self.responses is not None:
            left.append(f"{path.name}: training responses of {self.n_questions:,} questions left out: count them again")
        _warn(left)
        return path

    @classmethod
    @takes(graph="Graph")
    def from_networkx(cls, graph: nx.Graph, *, attribute: str = "bipartite", question: Any = 0) -> KnowledgeGraph:
        """From an undirected networkx graph whose nodes give their side in an attribute.

        Parameters
        ----------
        graph : edges may have a ``weight`` (default 1); one given twice counts once.
        attribute : the node attribute that tells the sides apart (networkx's own convention is ``bipartite``).
        question : its value on question nodes; a node with any other value is a concept.

        Raises
        ------
        GraphError : a node without the attribute, no question, an edge between two nodes of the same side, a weight
            that is no number, or an edge with two weights.
        """
        return cls(*two_sides(graph, attribute, question))

    def to_networkx(self) -> nx.Graph:
        """As networkx: nodes ``("question", id)`` and ``("concept", id)`` with ``bipartite`` 0 and 1; weighted."""
        import networkx as nx

        out = nx.Graph()
        out.add_nodes_from((("question", q) for q in self.questions), bipartite=0)
        out.add_nodes_from((("concept", c) for c in self.concepts), bipartite=1)
        coo = self.weights.tocoo()
        out.add_weighted_edges_from(
            (("question", self.questions[r]), ("concept", self.concepts[c]), float(v))
            for r, c, v in zip(coo.row, coo.col, coo.data, strict=True)
        )
        return out

    @classmethod
    @takes(data="HeteroData")
    def from_pyg(cls, data: HeteroData, *, question: str = "question", concept: str = "concept") -> KnowledgeGraph:
        """From a ``HeteroData`` of PyTorch Geometric.

        Parameters
        ----------
        data : the two types of nodes have a list ``ids``, their identifiers in order; edges between them have an
            ``edge_index`` and perhaps an ``edge_weight`` (default 1). Edges the other way (``ToUndirected`` makes
            them) are read only where there are none this way. An edge given twice counts once.
        question, concept : how the two types of nodes are called.

        Raises
        ------
        GraphError : a type of nodes or its ``ids`` are missing, several kinds of edges, an index without an
            identifier, or an edge with two weights.
        """
        return cls(*pyg.from_hetero(data, question, concept))

    def to_pyg(self) -> HeteroData:
        """As ``HeteroData`` of PyTorch Geometric.

        Node types ``question`` and ``concept`` have ``num_nodes`` and ``ids`` (a list of text). Edges
        ``("question", "tests", "concept")`` have an ``edge_index`` and an ``edge_weight`` in float64, in the order of
        questions. Relations between concepts and responses aren't in it.

        Raises
        ------
        ConfigError : PyTorch Geometric isn't installed.

        References
        ----------
        https://pytorch-geometric.readthedocs.io/en/latest/generated/torch_geometric.data.HeteroData.html
        """
        return pyg.to_hetero(self.questions, self.concepts, self.weights)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        warnings.warn(line, stacklevel=4)


def _names(given: Sequence[Any], kind: str) -> Sequence[str]:
    """The identifiers of one side as text; text is passed on as it is.

    Raises
    ------
    GraphError : one that is no name, occurs twice, or has half a character.
    """
    names = given
    if not (isinstance(given, list | tuple) and set(map(type, given)) <= {str}):  # millions of texts are usual
        try:
            names = tuple(named(each) or "" for each in given)
        except DataError as error:
            raise GraphError(f"a {kind} has no name ({error}); give text or numbers") from None
    if len(set(names)) < len(names):
        again = next(name for name, n in Counter(names).items() if n > 1)
        raise GraphError(f"two {kind}s are called {again!r}; give each a name of its own")
    try:
        "\n".join(names).encode()
    except UnicodeEncodeError:
        raise GraphError(f"a {kind} has a name with half a character, which no file can hold; write it anew") from None
    return names
