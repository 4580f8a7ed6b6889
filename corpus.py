"""Walks as int32 tokens: what every trainer eats, byte for byte the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcq.errors import CorpusError

PAD = -1


@dataclass(frozen=True, eq=False)
class Corpus:
    """Walks over one graph.

    Parameters
    ----------
    shards : int32 arrays (walks, length), in walk order; token i < Q is question i, token Q + j is concept j, -1 pads
        the end of a walk that stopped early. Memory-mapped when read from disk.
    n_questions, n_concepts : size of the vocabulary: all nodes are in it, even those that no walk reached.
    graph_digest : which graph was walked.
    strategy : name and settings of the walk.
    seed : the seed it was sampled with.
    counts : what happened on the way (early ends, fallbacks), by name.
    """

    shards: Sequence[NDArray[np.int32]]
    n_questions: int
    n_concepts: int
    graph_digest: str
    strategy: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Columns: the most tokens that a walk can have."""
        return int(self.shards[0].shape[1])

    @property
    def n_walks(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @cached_property
    def n_tokens(self) -> int:
        """Tokens that aren't padding."""
        return sum(int((shard >= 0).sum()) for shard in self.shards)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """All walks as one array, int32 (walks, length); copies when there are several shards."""
        return self.shards[0] if len(self.shards) == 1 else np.concatenate(self.shards)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over vocabulary size, length and all token bytes in walk order, however they are sharded."""
        h = hashlib.sha256(np.array([self.n_questions, self.n_concepts, self.length], dtype=np.int64).tobytes())
        for shard in self.shards:
            h.update(np.ascontiguousarray(shard).data)
        return h.hexdigest()

    def sentences(self) -> Iterator[NDArray[np.int32]]:
        """Walk by walk, without padding."""
        for shard in self.shards:
            for walk, n in zip(shard, (shard >= 0).sum(axis=1), strict=True):
                yield walk[:n]

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int32]]:
        """Walks in random order, for ever: int32 (size, length). A new order each epoch; a shard is read as a whole."""
        if self.n_walks == 0:
            raise CorpusError("the corpus holds no walks")
        rest = np.empty((0, self.length), dtype=np.int32)
        while True:
            for s in rng.permutation(len(self.shards)):
                shard = self.shards[s]
                order = rng.permutation(len(shard))
                for i in range(0, len(order), max(size, 8192)):
                    rest = np.concatenate([rest, shard[np.sort(order[i : i + max(size, 8192)])]])
                    rest = rest[rng.permutation(len(rest))]
                    while len(rest) >= size:
                        yield rest[:size]
                        rest = rest[size:]

    def save(self, directory: str | Path) -> Path:
        """Write ``corpus.json`` and one ``*.npy`` a shard; returns the directory."""
        out = Path(directory)
        out.mkdir(parents=True, exist_ok=True)
        names = []
        for i, shard in enumerate(self.shards):
            names.append(f"walks-{i:05d}.npy")
            np.save(out / names[-1], shard)
        about = {
            "digest": self.digest,
            "shards": names,
            "walks": self.n_walks,
            "length": self.length,
            "tokens": self.n_tokens,
            "questions": self.n_questions,
            "concepts": self.n_concepts,
            "graph_digest": self.graph_digest,
            "strategy": dict(self.strategy),
            "seed": self.seed,
            "counts": dict(self.counts),
        }
        (out / "corpus.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return out

    @classmethod
    def load(cls, directory: str | Path) -> Corpus:
        """Read what :meth:`save` wrote, memory-mapped.

        Raises
        ------
        CorpusError : no corpus there, a shard missing, or bytes that don't match the digest's length.
        """
        folder = Path(directory)
        try:
            about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
            shards = [np.load(folder / name, mmap_mode="r") for name in about["shards"]]
        except (OSError, ValueError, KeyError) as error:
            raise CorpusError(f"{folder}: no readable corpus ({error}); make one with 'qcq walk'") from None
        made = cls(
            shards,
            about["questions"],
            about["concepts"],
            about["graph_digest"],
            about["strategy"],
            about["seed"],
            about["counts"],
        )
        if made.n_walks != about["walks"]:
            raise CorpusError(f"{folder}: {made.n_walks} walks on disk, corpus.json says {about['walks']}")
        return made
