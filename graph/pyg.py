"""A question–concept graph as ``HeteroData`` of PyTorch Geometric, and back; the library is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy  # its submodules load when they are first used

from qcq.errors import ConfigError, GraphError

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

RELATION = ("question", "tests", "concept")
IDS = "ids"


def to_hetero(questions: Sequence[str], concepts: Sequence[str], weights: scipy.sparse.csr_array) -> HeteroData:
    """Nodes with ``ids``, and one kind of weighted edges, from questions to concepts.

    Raises
    ------
    ConfigError : PyTorch Geometric isn't installed.
    """
    import torch

    try:
        from torch_geometric.data import HeteroData
    except ImportError:
        raise ConfigError("torch_geometric isn't installed; install it with: pip install torch_geometric") from None
    made = HeteroData()
    for kind, names in ((RELATION[0], questions), (RELATION[2], concepts)):
        made[kind].num_nodes = len(names)
        made[kind][IDS] = list(names)
    coo = weights.tocoo()
    made[RELATION].edge_index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    made[RELATION].edge_weight = torch.from_numpy(coo.data.astype(np.float64))
    return made


def from_hetero(
    data: HeteroData, question: str, concept: str
) -> tuple[tuple[str, ...], tuple[str, ...], scipy.sparse.csr_array]:
    """Identifiers of both sides, and the weights between them (not checked).

    Raises
    ------
    GraphError : as :meth:`qcq.graph.KnowledgeGraph.from_pyg` says.
    """
    sides = tuple(_ids(data, kind) for kind in (question, concept))
    there = [kind for kind in data.edge_types if (kind[0], kind[2]) == (question, concept)]
    back = [kind for kind in data.edge_types if (kind[0], kind[2]) == (concept, question)]
    found = there or back
    if len(found) != 1:
        said = f"{len(found)} kinds of edges" if found else "no edges"
        fix = f"keep one of {found}" if found else f"the kinds of edges are {data.edge_types}"
        raise GraphError(f"{said} between {question!r} and {concept!r}; {fix}")
    edges = data[found[0]]
    if "edge_index" not in edges:
        raise GraphError(f"the edges {found[0]} have no edge_index; give one, or take data before ToSparseTensor")
    ends = edges.edge_index.detach().cpu().numpy().astype(np.int64)
    rows, columns = ends if there else ends[::-1]
    given = np.ones(len(rows))
    if "edge_weight" in edges:
        given = edges.edge_weight.detach().cpu().double().numpy()
        if given.shape != rows.shape:
            raise GraphError(f"edge_weight of shape {given.shape} for {len(rows)} edges; give one number each")
    for ids, kind, ends in ((sides[0], question, rows), (sides[1], concept, columns)):
        outside = ends[(ends < 0) | (ends >= len(ids))]
        if len(outside):
            raise GraphError(f"node {outside[0]} of {kind!r} has no identifier; there are {len(ids)} in {IDS}")
    place = rows * max(len(sides[1]), 1) + columns
    order = np.argsort(place, kind="stable")
    place, given = place[order], given[order]
    again = np.diff(place) == 0
    apart = np.flatnonzero(again & (np.diff(given) != 0))
    if len(apart):
        q, c = divmod(int(place[apart[0]]), len(sides[1]))
        both = f"{given[apart[0]]} and {given[apart[0] + 1]}"
        raise GraphError(f"edge {sides[0][q]!r} – {sides[1][c]!r} is given with the weights {both}; give it one")
    first = np.concatenate([[True], ~again]) if len(place) else np.zeros(0, dtype=bool)
    ends = np.divmod(place[first], max(len(sides[1]), 1))
    shape = (len(sides[0]), len(sides[1]))
    return sides[0], sides[1], scipy.sparse.csr_array((given[first], ends), shape=shape)


def _ids(data: HeteroData, kind: str) -> tuple[str, ...]:
    if kind not in data.node_types:
        raise GraphError(
            f"no nodes of type {kind!r}; the types are {data.node_types}, name them with question= and so on"
        )
    if IDS not in data[kind]:
        fix = f"set data[{kind!r}].{IDS} to the list of them: an index is not a name"
        raise GraphError(f"nodes of type {kind!r} have no identifiers; {fix}")
    ids = tuple(str(name) for name in data[kind][IDS])
    # What the library infers from the edges may be too few.
    given = data[kind]
    known = int(given["num_nodes"]) if "num_nodes" in given else len(given["x"]) if "x" in given else len(ids)
    if known != len(ids):
        raise GraphError(f"{len(ids)} identifiers for {known} nodes of type {kind!r}; give one each")
    if len(set(ids)) < len(ids):
        raise GraphError(f"two nodes of type {kind!r} with one identifier; name them apart")
    return ids
