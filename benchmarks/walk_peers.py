"""The other side of benchmarks/walks.py: one peer, run by a Python of its own.

    python walk_peers.py PEER EDGES.npz TOKENS

It loads the graph, says what it is in one line of JSON, then runs one round for every line it is sent ("first" for
first-order walks, "node2vec") and answers with the seconds and the hops. Nothing of qcq is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

P, Q = 1.0, 0.5  # node2vec's parameters, the same for everybody
Rounds = dict[str, Callable[[], int]]  # kind of walk → one round, which returns the hops it made


class Edges:
    """Both directions of every edge; concept j is node n_questions + j."""

    def __init__(self, path: str) -> None:
        held = np.load(path)
        self.q, self.c = held["q"].astype(np.int64), held["c"].astype(np.int64)
        self.n_questions, self.n_concepts = int(held["n_questions"]), int(held["n_concepts"])
        self.n = self.n_questions + self.n_concepts

    def csr(self) -> tuple[np.ndarray, np.ndarray]:
        """indptr int64 (nodes + 1,), indices int64 (2 · edges,), sorted inside a row."""
        a = np.concatenate([self.q, self.c + self.n_questions])
        b = np.concatenate([self.c + self.n_questions, self.q])
        order = np.lexsort((b, a))
        return np.concatenate([[0], np.cumsum(np.bincount(a, minlength=self.n))]), b[order]

    def networkx(self):  # type: ignore[no-untyped-def]
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from(range(self.n))
        graph.add_edges_from(zip(self.q.tolist(), (self.c + self.n_questions).tolist(), strict=True))
        return graph


def times(n_walks: int, tokens: int) -> int:
    """How often to walk from every node for about six million hops a round, so that rounds are short."""
    return max(1, round(6_000_000 / (n_walks * (tokens - 1))))


def grape(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    from ensmallen import Graph

    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.write("s\td\n")
        np.savetxt(file, np.stack([edges.q, edges.c + edges.n_questions], axis=1), fmt="%d", delimiter="\t")
        file.flush()
        graph = Graph.from_csv(
            edge_path=file.name, sources_column="s", destinations_column="d", edge_list_header=True,
            edge_list_separator="\t", directed=False, edge_list_numeric_node_ids=True, verbose=False, name="graph",
        )  # fmt: skip
    again = times(edges.n, tokens)

    def walk(**bias: float) -> int:
        made = graph.complete_walks(walk_length=tokens, iterations=again, max_neighbours=None, **bias)
        return made.shape[0] * (made.shape[1] - 1)

    # Without triangles a return weight of q/p is the same walk, and the cheaper one: an explore weight makes ensmallen
    # 0.8.100 stop with an illegal instruction on CPUs without AVX-512.
    return version("ensmallen"), {"first": walk, "node2vec": lambda: walk(return_weight=Q / P)}


def _pecanpy(edges: Edges, tokens: int, public: bool) -> tuple[str, Rounds]:
    from numba_progress import ProgressBar
    from pecanpy import pecanpy

    indptr, indices = edges.csr()

    def made(kind: type, p: float, q: float):  # type: ignore[no-untyped-def]
        graph = kind(p=p, q=q, workers=os.cpu_count(), verbose=False, random_state=1)
        graph.indptr, graph.indices = indptr.astype(np.uint32), indices.astype(np.uint32)
        graph.data = np.ones(len(indices), dtype=np.float32)
        graph.set_node_ids([str(i) for i in range(edges.n)])
        return graph

    again = times(edges.n, tokens)

    def through(graph) -> Callable[[], int]:  # type: ignore[no-untyped-def]
        def walk() -> int:  # it compiles anew at every call, so a call is as large as a user's: ten walks a node
            walks = graph.simulate_walks(num_walks=max(again, 10), walk_length=tokens - 1)
            return sum(map(len, walks)) - len(walks)

        return walk

    def bare(graph) -> Callable[[], int]:  # type: ignore[no-untyped-def]
        starts = np.tile(np.arange(edges.n, dtype=np.uint32), again)
        has, move = graph.get_has_nbrs(), graph.get_move_forward()

        def walk() -> int:
            with ProgressBar(total=len(starts), disable=True) as progress:
                out = graph._random_walks(len(starts), tokens - 1, 1, starts, has, move, progress)
            return len(out) * (tokens - 1)

        return walk

    how = through if public else bare
    return version("pecanpy"), {
        "first": how(made(pecanpy.FirstOrderUnweighted, 1, 1)),
        "node2vec": how(made(pecanpy.SparseOTF, P, Q)),
    }


def pecanpy_simulate_walks(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    return _pecanpy(edges, tokens, public=True)


def pecanpy_kernel(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    return _pecanpy(edges, tokens, public=False)


def fastnode2vec(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    from fastnode2vec import Graph

    pairs = list(zip(edges.q.tolist(), (edges.c + edges.n_questions).tolist(), strict=True))
    graph = Graph(pairs, directed=False, weighted=False, verbose=False)
    nodes = np.random.default_rng(0).integers(len(graph.node_names), size=5000).tolist()

    def walk(p: float, q: float) -> int:
        return sum(len(graph.generate_random_walk(tokens, p, q, node)) - 1 for node in nodes)

    return version("fastnode2vec"), {"first": lambda: walk(1.0, 1.0), "node2vec": lambda: walk(P, Q)}


def graph_walker(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import walker

    graph = edges.networkx()
    again = times(edges.n, tokens)

    def hops(walks) -> int:  # type: ignore[no-untyped-def]
        return walks.shape[0] * (walks.shape[1] - 1)

    def first() -> int:
        return hops(walker.random_walks(graph, n_walks=again, walk_len=tokens, sub_sampling=0.0, verbose=False))

    return version("graph-walker"), {"first": first}


def pyg_metapath2vec(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import torch
    from torch_geometric.nn import MetaPath2Vec

    there = torch.from_numpy(np.stack([edges.q, edges.c]))
    model = MetaPath2Vec(
        {("q", "tests", "c"): there, ("c", "of", "q"): there.flip(0)},
        embedding_dim=1,
        metapath=[("q", "tests", "c"), ("c", "of", "q")],
        walk_length=tokens - 1,
        context_size=tokens,
        walks_per_node=times(edges.n_questions, tokens),
        num_nodes_dict={"q": edges.n_questions, "c": edges.n_concepts},
    )
    batch = torch.arange(edges.n_questions)

    def walk() -> int:
        made = model._pos_sample(batch)
        return made.shape[0] * (made.shape[1] - 1)

    return version("torch_geometric"), {"first": walk}


def torch_cluster(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import torch
    from torch_cluster import random_walk

    indptr, indices = (torch.from_numpy(a) for a in edges.csr())
    row = torch.repeat_interleave(torch.arange(edges.n), indptr.diff())
    starts = torch.arange(edges.n).repeat(times(edges.n, tokens))

    def walk(p: float, q: float) -> int:
        made = random_walk(row, indices, starts, tokens - 1, p, q, num_nodes=edges.n)
        return made.shape[0] * (made.shape[1] - 1)

    return version("torch_cluster"), {"first": lambda: walk(1, 1), "node2vec": lambda: walk(P, Q)}


def dgl(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import dgl as library
    import torch

    q, c = torch.from_numpy(edges.q), torch.from_numpy(edges.c)
    graph = library.heterograph({("q", "tests", "c"): (q, c), ("c", "of", "q"): (c, q)})
    starts = torch.arange(edges.n_questions).repeat(times(edges.n_questions, tokens))
    path = (["tests", "of"] * tokens)[: tokens - 1]

    def walk() -> int:
        made, _ = library.sampling.random_walk(graph, starts, metapath=path)
        return made.shape[0] * (made.shape[1] - 1)

    return version("dgl"), {"first": walk}


def csrgraph(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import csrgraph as library
    from scipy import sparse

    indptr, indices = edges.csr()
    matrix = sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=(edges.n, edges.n))
    graph = library.csrgraph(matrix)

    def walk(epochs: int, **bias: float) -> int:
        made = graph.random_walks(walklen=tokens, epochs=epochs, **bias)
        return made.shape[0] * (made.shape[1] - 1)

    return version("csrgraph"), {
        "first": lambda: walk(times(edges.n, tokens)),
        "node2vec": lambda: walk(1, return_weight=1 / P, neighbor_weight=1 / Q),  # minutes
    }


def karateclub(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    from karateclub.utils.walker import RandomWalker

    graph = edges.networkx()

    def walk() -> int:
        maker = RandomWalker(tokens, 1)
        maker.graph = graph
        made = [maker.do_walk(node) for node in range(200)]
        return sum(len(walk) - 1 for walk in made)

    return version("karateclub"), {"first": walk}


def networkx_loop(edges: Edges, tokens: int) -> tuple[str, Rounds]:
    import random

    graph = edges.networkx()

    def walk() -> int:
        hops = 0
        for start in range(0, edges.n, max(1, edges.n // 300)):
            node = start
            for _ in range(tokens - 1):
                node = random.choice(list(graph.neighbors(node)))
                hops += 1
        return hops

    return version("networkx"), {"first": walk}


def main() -> None:
    name, path, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints goes elsewhere
    which, rounds = globals()[name](Edges(path), tokens)
    answers.write(json.dumps({"version": which, "kinds": list(rounds)}) + "\n")
    answers.flush()
    for line in sys.stdin:
        began = time.perf_counter()
        hops = rounds[line.strip()]()
        answers.write(json.dumps({"seconds": time.perf_counter() - began, "hops": hops}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
