"""The other side of benchmarks/lookup.py: one peer, run by a Python of its own.

    python lookup_peers.py PEER GRAPH.npz WALKS.npy DIM THREADS OUT.npy

It loads, says its version in one line of JSON, then trains once for every line it is sent, writes the question vectors
to OUT.npy and answers with the tokens and the seconds. Nothing of qcq is imported here.
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

WINDOW, NEGATIVES, LR = 5, 5, 0.05
Trained = tuple[int, float, np.ndarray]  # tokens, seconds, vectors


def fasttext(graph: dict, walks: np.ndarray, dim: int, threads: int) -> Callable[[], Trained]:
    import fasttext as package

    handle, name = tempfile.mkstemp(suffix=".txt")
    with os.fdopen(handle, "w") as out:
        out.writelines(" ".join(map(str, walk[walk >= 0])) + "\n" for walk in walks)

    def train() -> Trained:
        began = time.perf_counter()
        model = package.train_unsupervised(
            name, model="skipgram", dim=dim, ws=WINDOW, neg=NEGATIVES, epoch=1, lr=LR, minCount=1, t=1.0, maxn=0,
            minn=0, thread=threads, verbose=0,
        )  # fmt: skip
        took = time.perf_counter() - began
        vectors = np.array([model.get_word_vector(str(q)) for q in range(int(graph["n_questions"]))])
        return int((walks >= 0).sum()), took, vectors

    return train


def pyg_metapath2vec(graph: dict, walks: np.ndarray, dim: int, threads: int) -> Callable[[], Trained]:
    import torch
    from torch_geometric.nn import MetaPath2Vec

    torch.set_num_threads(threads)
    q, c = torch.as_tensor(graph["q"]), torch.as_tensor(graph["c"])
    edges = {("q", "has", "c"): torch.stack([q, c]), ("c", "of", "q"): torch.stack([c, q])}
    counts = {"q": int(graph["n_questions"]), "c": int(graph["n_concepts"])}
    steps = 40  # batches of 128 walks a round: it is too slow for whole corpora

    def train() -> Trained:
        torch.manual_seed(0)
        model = MetaPath2Vec(
            edges, embedding_dim=dim, metapath=[("q", "has", "c"), ("c", "of", "q")], walk_length=78,
            context_size=2 * WINDOW + 1, walks_per_node=1, num_negative_samples=1, num_nodes_dict=counts, sparse=True,
        )  # fmt: skip
        batches = iter(model.loader(batch_size=128, shuffle=True))
        optimiser = torch.optim.SparseAdam(list(model.parameters()), lr=0.01)
        tokens, began = 0, time.perf_counter()
        for _, (real, noise) in zip(range(steps), batches, strict=False):
            optimiser.zero_grad()
            model.loss(real, noise).backward()
            optimiser.step()
            tokens += 128 * 79
        return tokens, time.perf_counter() - began, model("q").detach().numpy()

    return train


def pecanpy(graph: dict, walks: np.ndarray, dim: int, threads: int) -> Callable[[], Trained]:
    """Its own walks on the same graph (79 nodes each, one from every node), trained by the gensim inside it."""
    from pecanpy import pecanpy as package
    from scipy import sparse

    n_q, n_c = int(graph["n_questions"]), int(graph["n_concepts"])
    w = sparse.csr_matrix((np.ones(len(graph["q"])), (graph["q"], graph["c"])), shape=(n_q, n_c))
    both = sparse.bmat([[None, w], [w.T, None]], format="csr")
    g = package.FirstOrderUnweighted(1, 1, workers=threads, verbose=False)
    g = type(g).from_mat(both.toarray(), [str(i) for i in range(n_q + n_c)], p=1, q=1, workers=threads)

    def train() -> Trained:
        began = time.perf_counter()
        vectors = g.embed(dim=dim, num_walks=1, walk_length=78, window_size=WINDOW, epochs=1)
        return (n_q + n_c) * 79, time.perf_counter() - began, vectors[:n_q]

    return train


PEERS = {
    "fasttext": (fasttext, "fasttext-wheel"),
    "pyg_metapath2vec": (pyg_metapath2vec, "torch_geometric"),
    "pecanpy": (pecanpy, "pecanpy"),
}


def main() -> None:
    peer, graph, walks, dim, threads, out = sys.argv[1:]
    make, package = PEERS[peer]
    train = make(dict(np.load(graph)), np.load(walks), int(dim), int(threads))
    answers = os.fdopen(os.dup(1), "w")  # libraries may print; only answers go to the caller
    os.dup2(2, 1)
    print(json.dumps({"version": version(package)}), file=answers, flush=True)
    for _ in sys.stdin:
        tokens, seconds, vectors = train()
        np.save(out, vectors.astype(np.float32))
        print(json.dumps({"tokens": tokens, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
