"""Question vectors from a language model, and transformations of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import Corpus
from qcq.errors import ConfigError
from qcq.support.seeds import generator

if TYPE_CHECKING:
    from qcq.models.language.training import Learner

OCCURRENCES = 16  # states per question, on average, for ``context`` and ``principal``


def names(layers: int, tied: bool, sees_itself: bool) -> tuple[str, ...]:
    """The read-outs of a model, the default ones first.

    - ``table``: the input table;
    - ``output``: the output table, if it isn't the input table itself;
    - ``hidden``: the last layer's state of the question alone, if a state depends on its own token;
    - ``context``: the mean of the last layer's states over the question's occurrences in training walks;
    - ``principal``: the first principal component of those states, through the origin (Ethayarajh 2019, section 5);
    - ``mean``: the mean over layers, the input among them, of such mean states (ELMo's, Peters et al. 2018, eq. 1, with
      equal weights); ``concat``: all of them side by side. Both if a state depends on its own token;
    - ``hidden-1``, ``context-1`` …: the same of an inner layer, counted from the input; ``principal-1`` too.

    Examples
    --------
    >>> names(1, tied=False, sees_itself=True)
    ('table', 'output', 'hidden', 'context', 'principal', 'mean', 'concat')
    >>> names(2, tied=True, sees_itself=False)
    ('table', 'context', 'principal', 'context-1', 'principal-1')
    """
    kinds = (*(["hidden"] if sees_itself else []), "context", "principal")
    inner = [f"{kind}-{layer}" for layer in range(1, layers) for kind in kinds]
    whole = ["mean", "concat"] if sees_itself else []
    return ("table", *([] if tied else ["output"]), *kinds, *whole, *inner)


def refuse_unknown(readout: str, known: tuple[str, ...], whose: str) -> None:
    """Raises ConfigError where ``readout`` (a name, then any number of ``+change``) isn't among ``known``."""
    name, *changes = readout.split("+")
    if name not in known:
        raise ConfigError(f"{whose} has no read-out {name!r}; it has {', '.join(known)}")
    for change in changes:
        if change not in CHANGES:
            raise ConfigError(f"read-out {readout!r}: no change {change!r}; there are {', '.join(CHANGES)}")


def lone(learner: Learner, layer: int, tokens: int) -> NDArray[np.float32]:
    """State of each of the first ``tokens`` tokens as a walk of its own: float32 (tokens, dim)."""
    import torch

    learner.encoder.eval()
    out = []
    with torch.no_grad():
        for i in range(0, tokens, 4096):
            walks = np.arange(i, min(i + 4096, tokens), dtype=np.int32)[:, None]  # (B, 1)
            none = np.zeros(walks.shape, dtype=bool)
            out.append(learner.states(walks, none, ~none)[layer][:, 0].cpu().numpy())
    return np.concatenate(out)


class Occurrences:
    """States of tokens at their positions in training walks, nothing hidden.

    Enough walks are used for OCCURRENCES states per token on average; a token that isn't in them gets one more walk.

    Attributes
    ----------
    token : int64 (states,), which token each state belongs to.
    states : float32 (states, dim).
    """

    def __init__(self, learner: Learner, corpus: Corpus, layer: int, tokens: int) -> None:
        import torch

        walks = choose(corpus, tokens)
        learner.encoder.eval()
        token, states = [], []
        with torch.no_grad():
            for i in range(0, len(walks), 256):
                part = walks[i : i + 256]
                real = part >= 0
                states.append(learner.states(part, np.zeros_like(real), real)[layer][torch.from_numpy(real)].cpu())
                token.append(part[real])
        self.token, self.states = np.concatenate(token).astype(np.int64), torch.cat(states).numpy()
        self.tokens = tokens

    def sums(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum of ``states`` (states, dim) per token: float32 (tokens, dim)."""
        import torch

        out = torch.zeros(self.tokens, states.shape[1])
        return out.index_add_(0, torch.from_numpy(self.token), torch.from_numpy(states)).numpy()

    def mean(self) -> NDArray[np.float32]:
        """Mean state per token, float32 (tokens, dim); a token without states gets the mean of the others."""
        n = np.bincount(self.token, minlength=self.tokens)[:, None]
        mean = self.sums(self.states) / np.maximum(n, 1)
        return np.where(n > 0, mean, mean[n[:, 0] > 0].mean(axis=0)).astype(np.float32)

    def principal(self, rounds: int = 12) -> NDArray[np.float32]:
        """The unit vector v with the largest sum of (state · v)² for each token, with the sign of the token's mean.

        By power iteration from the mean: float32 (tokens, dim).
        """
        mean = self.mean()
        v = mean
        for _ in range(rounds):
            along = np.einsum("nd,nd->n", self.states, v[self.token])[:, None]  # (states, 1)
            v = self.sums(along * self.states)  # (tokens, dim)
            length = np.linalg.norm(v, axis=1, keepdims=True)
            v = np.where(length > 1e-12, v / np.maximum(length, 1e-12), mean)
        return np.where((v * mean).sum(axis=1, keepdims=True) < 0, -v, v).astype(np.float32)


def choose(corpus: Corpus, tokens: int) -> NDArray[np.int32]:
    """Walks, int32 (n, length), with each of the first ``tokens`` tokens OCCURRENCES times on average."""
    n = min(corpus.n_walks, -(-OCCURRENCES * tokens // corpus.length))
    rng = generator(corpus.seed, "occurrences")
    picked = np.sort(rng.choice(corpus.n_walks, size=n, replace=False))
    chosen, start = [], 0
    missing = np.ones(max(tokens, corpus.n_questions + corpus.n_concepts), dtype=bool)
    for shard in corpus.shards:
        inside = picked[(picked >= start) & (picked < start + len(shard))] - start
        chosen.append(np.asarray(shard[inside]))
        missing[chosen[-1][chosen[-1] >= 0]] = False
        start += len(shard)
    missing[tokens:] = False
    for shard in corpus.shards:
        for i in range(0, len(shard) if missing.any() else 0, 2**14):
            part = np.asarray(shard[i : i + 2**14])
            rows, columns = np.nonzero((part >= 0) & missing[part])
            _, first = np.unique(part[rows, columns], return_index=True)
            chosen.append(part[np.unique(rows[first])])
            missing[chosen[-1][chosen[-1] >= 0]] = False
    return np.concatenate(chosen)


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus the mean vector."""
    return vectors - vectors.mean(axis=0)


def all_but_the_top(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred, without the max(1, dim / 100) strongest directions (Mu & Viswanath 2018, algorithm 1)."""
    x = centred(vectors)
    _, directions = np.linalg.eigh(x.T @ x)  # ascending
    top = directions[:, -max(1, vectors.shape[1] // 100) :]  # (dim, k)
    return x - (x @ top) @ top.T


def whitened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred, and scaled to unit variance along each principal direction (Su et al. 2021)."""
    x = centred(vectors)
    variance, directions = np.linalg.eigh(x.T @ x / len(x))
    scale = np.where(variance > 1e-7 * variance[-1], 1 / np.sqrt(np.maximum(variance, 1e-30)), 0.0)
    return ((x @ directions) * scale).astype(np.float32)


CHANGES: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "centred": centred,
    "abtt": all_but_the_top,
    "whitened": whitened,
}
