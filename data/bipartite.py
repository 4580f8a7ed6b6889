"""A networkx graph whose nodes have an attribute for their side, as identifiers and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its submodules load when they are first used

from qcq.errors import GraphError
from qcq.support.names import named

if TYPE_CHECKING:
    import networkx as nx


def two_sides(
    graph: nx.Graph, attribute: str = "bipartite", question: Any = 0, name: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...], scipy.sparse.csr_array]:
    """Questions, concepts and the weights between them.

    Parameters
    ----------
    graph : edges may have a ``weight`` (default 1). An edge given more than once, in both directions or in a
        multigraph, counts once.
    attribute : the node attribute that tells the sides apart (networkx's own convention is ``bipartite``).
    question : its value on question nodes; a node with any other value is a concept.
    name : the node attribute that holds the identifiers; empty where the nodes themselves do.

    Returns
    -------
    questions, concepts : identifiers, in the order of the nodes.
    weights : csr_array float64 (questions × concepts), not checked.

    Raises
    ------
    GraphError : a node without the attribute, no question, an edge between two nodes of the same side, a weight that
        is no number, or an edge with two weights.
    """
    side = {}
    for node, values in graph.nodes(data=True):
        if attribute not in values:
            raise GraphError(f"node {node!r} has no attribute {attribute!r}; set it to {question!r} on questions")
        side[node] = values[attribute] == question
    if side and not any(side.values()):
        found = sorted({repr(values[attribute]) for _, values in graph.nodes(data=True)})[:4]
        raise GraphError(
            f"no node has {attribute}={question!r}, which marks questions; the values are {', '.join(found)}: set "
            "it on the questions, or name the value of questions in KnowledgeGraph.from_networkx(graph, question=...)"
        )

    def label(node: Any) -> str:
        if name:
            return named(graph.nodes[node][name]) or ""
        if isinstance(node, tuple) and len(node) == 2 and node[0] in ("question", "concept"):
            node = node[1]  # KnowledgeGraph names nodes so, that one id may be both
        return named(node) or ""

    questions = {node: i for i, node in enumerate(n for n in side if side[n])}
    concepts = {node: i for i, node in enumerate(n for n in side if not side[n])}
    edges: dict[tuple[int, int], float] = {}
    for a, b, given in graph.edges(data="weight", default=1.0):
        if side[a] == side[b]:
            kind = "questions" if side[a] else "concepts"
            raise GraphError(f"edge {a!r} – {b!r} joins two {kind}; only question–concept edges are allowed")
        try:
            weight = float(given)
        except (TypeError, ValueError, OverflowError):
            raise GraphError(f"the weight of edge {a!r} – {b!r} is {given!r}; give a positive number") from None
        q, c = (a, b) if side[a] else (b, a)
        known = edges.setdefault((questions[q], concepts[c]), weight)
        if known != weight and weight == weight:  # NaN is refused later, by name
            raise GraphError(f"edge {q!r} – {c!r} is given with the weights {known} and {weight}; give it one")
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    shape = (len(questions), len(concepts))
    weights = scipy.sparse.csr_array((list(edges.values()), (rows, columns)), shape=shape, dtype=np.float64)
    return tuple(map(label, questions)), tuple(map(label, concepts)), weights


def refuse_bad_weights(
    questions: tuple[str, ...] | Any, concepts: tuple[str, ...] | Any, weights: scipy.sparse.csr_array
) -> None:
    """GraphError where a weight is not positive and finite, or too small or large to reckon with; the text names it.

    A float under 2.3e-308 has lost digits, and its inverse is infinite. If all weights have a finite sum, so have those
    of each question and concept.
    """
    bad = np.flatnonzero(~(np.isfinite(weights.data) & (weights.data >= np.finfo(np.float64).tiny)))
    if len(bad):
        row = int(np.searchsorted(weights.indptr, bad[0], side="right") - 1)
        q, c = questions[row], concepts[int(weights.indices[bad[0]])]
        raise GraphError(
            f"the weight of edge {q!r} – {c!r} is {weights.data[bad[0]]}; weights must be positive and finite, "
            "and 2.3e-308 at least; leave an edge out to give it none"
        )
    with np.errstate(over="ignore"):
        total = weights.data.sum()
    if not np.isfinite(total):
        raise GraphError(
            f"the weights of {weights.nnz:,} edges sum to more than the largest float; divide all of them by the "
            f"largest, {weights.data.max()}"
        )
