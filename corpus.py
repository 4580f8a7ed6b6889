"""Walks as int32 tokens: the training data of every trainer, byte for byte the same.

On disk a corpus is a folder of ``walks-*.npy`` shards and a ``corpus.json``. No file is ever incomplete: a file gets
its name when it is complete, and ``corpus.json`` comes last. Until then ``sampling.json`` says which shards are done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcq.errors import CorpusError
from qcq.support.arrays import read_npy
from qcq.support.files import from_json, whole, whole_path
from qcq.support.folders import claim, refuse_newer
from qcq.support.forked import refuse_forked
from qcq.support.types import takes
from qcq.support.words import in_short, several

PAD = -1
HIDDEN = -2  # replaces a masked token in the walks shown to a model
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # the first tokens of a BERT-family vocabulary
_TEXT_BLOCK = 2**22  # bytes of text made at a time
_TABLE_BLOCK = 2**22  # tokens of a parquet file
_DIGEST_BLOCK = 2**24  # tokens hashed at a time when they are read back from disk


@dataclass(frozen=True, eq=False)
class Corpus:
    """Walks over one graph.

    Parameters
    ----------
    shards : int32 arrays (walks, length), in walk order; token i < Q is question i, token Q + j is concept j, -1 pads
        the end of a walk that stopped early. Memory-mapped when read from disk.
    n_questions, n_concepts : size of the vocabulary: all nodes are in it, even those that are in no walk.
    graph_digest : digest of the graph of the walks.
    strategy : name and settings of the walk.
    seed : the seed of the sampling.
    counts : events during sampling (early ends, fallbacks), by name.
    """

    shards: Sequence[NDArray[np.int32]]
    n_questions: int
    n_concepts: int
    graph_digest: str
    strategy: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        made = f"by {self.strategy['name']}" if "name" in self.strategy else ""
        return in_short("Corpus", several(self.n_walks, "walk"), made, several(self.n_questions, "question"))

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
        """SHA-256 over vocabulary size, length and all token bytes in walk order, however they are sharded.

        A corpus from disk has the digest that was written with it; :meth:`verify` computes it again.
        """
        return self._digest()

    def _digest(self) -> str:
        h = _start_digest(self.n_questions, self.n_concepts, self.length)
        for shard in self.shards:
            _update(h, shard)
        return h.hexdigest()

    def verify(self) -> None:
        """Read all bytes and compare them with the digest.

        Raises
        ------
        CorpusError : the bytes differ from those that were written.
        """
        if (found := self._digest()) != self.digest:
            raise CorpusError(f"the walks have digest {found[:12]}, {self.digest[:12]} was written; sample them again")

    def sentences(self) -> Iterator[NDArray[np.int32]]:
        """The walks one by one, without padding."""
        for shard in self.shards:
            for walk, n in zip(shard, (shard >= 0).sum(axis=1), strict=True):
                yield walk[:n]

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int32]]:
        """Walks in random order, for ever: int32 (size, length). A new order each epoch; shards are read completely."""
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
        """Write ``corpus.json`` and one ``*.npy`` per shard, replacing an earlier corpus; returns the directory."""
        about = Header(
            self.n_walks,
            self.length,
            self.n_questions,
            self.n_concepts,
            self.graph_digest,
            dict(self.strategy),
            self.seed,
        )
        writer = CorpusWriter(directory, about, resume=False, replace=True)
        for shard in self.shards:
            writer.add(shard)
        writer.finish(self.counts)
        return Path(directory)

    @classmethod
    @takes(directory="path")
    def load(cls, directory: str | Path) -> Corpus:
        """Read a corpus written by :meth:`save` or a streaming walk, memory-mapped.

        Raises
        ------
        CorpusError : no corpus, an unfinished one, a missing shard, or a shard of another size than was written.
        ConfigError : a newer qcq made it.
        """
        folder = Path(directory)
        refuse_newer(folder)
        try:
            about = from_json((folder / "corpus.json").read_text(encoding="utf-8"))
            shards = [read_npy(folder / name, mapped=True) for name in about["shards"]]
            made = cls(
                shards,
                about["questions"],
                about["concepts"],
                about["graph_digest"],
                about["strategy"],
                about["seed"],
                about["counts"],
            )
            made.__dict__.update(digest=about["digest"], n_tokens=about["tokens"])  # known: no need to read all walks
            walks, length = about["walks"], about["length"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if (folder / "sampling.json").exists() and not (folder / "corpus.json").exists():
                raise CorpusError(
                    f"{folder}: sampling was interrupted here; run the same walk again to finish it"
                ) from None
            raise CorpusError(f"{folder}: no readable corpus ({error}); make one with 'qcq walk'") from None
        for name, shard in zip(about["shards"], shards, strict=True):
            if shard.dtype != np.int32 or shard.ndim != 2 or shard.shape[1] != length:
                raise CorpusError(f"{folder / name}: {shard.dtype} {shard.shape}, walks are int32 (walks, {length})")
        if made.n_walks != walks:
            raise CorpusError(f"{folder}: {made.n_walks} walks on disk, corpus.json says {walks}")
        return made

    @takes(path="path", ids="list")
    def to_text(self, path: str | Path, ids: Sequence[str]) -> Path:
        """Write one walk per line, its tokens by name with spaces between: gensim's ``corpus_file``, and plain text.

        The file is written in pieces and gets its name when it is complete; a corpus may be larger than memory.

        Parameters
        ----------
        path : the file.
        ids : names of the tokens: the questions, then (if they are tokens) the concepts.

        Raises
        ------
        CorpusError : a name that can't be read back: empty, with white space in it, or occurring twice.

        Examples
        --------
        >>> import tempfile
        >>> corpus = Corpus([np.array([[0, 1, 0], [2, -1, -1]], dtype=np.int32)], 3, 1, "")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     corpus.to_text(f"{folder}/walks.txt", ["q1", "q2", "q3"]).read_text()
        'q1 q2 q1\\nq3\\n'
        """
        names = self._words(ids)
        width = max(map(len, names)) + 1
        # Slots of equal width, filled up with NULs. A whole block of walks is looked up at once; then the NULs are
        # deleted. The row after the last name is empty, so that a pad (-1) adds nothing.
        first = np.array([*names, b""], dtype=f"S{width}")
        later = np.array([*(b" " + name for name in names), b""], dtype=f"S{width}")
        rows = max(1, _TEXT_BLOCK // (self.length * width + 1))
        with whole(Path(path)) as file:
            for shard in self.shards:
                for begin in range(0, len(shard), rows):
                    walks = shard[begin : begin + rows]
                    block = bytearray(len(walks) * (self.length * width + 1))
                    slots = np.frombuffer(block, dtype=np.uint8).reshape(len(walks), -1)
                    slots[:, :width] = first.take(walks[:, :1]).view(np.uint8).reshape(len(walks), -1)
                    slots[:, width:-1] = later.take(walks[:, 1:]).view(np.uint8).reshape(len(walks), -1)
                    slots[:, -1] = ord("\n")
                    file.write(block.translate(None, b"\0"))
        return Path(path)

    @takes(folder="path", ids="list")
    def to_parquet(self, folder: str | Path, ids: Sequence[str]) -> Path:
        """Write the walks as Spark writes a table: a folder of parquet files with one column, an array of text a walk.

        The column is called ``random_walk``, as in the cached walks of GraphFrames (``RandomWalkEmbeddings``); Spark's
        ``Word2Vec`` takes it as its input column. The last file is ``_SUCCESS``, as Spark marks a whole table.

        Parameters
        ----------
        folder : where the files go; an earlier table in it is replaced.
        ids : as for :meth:`to_text`.

        Raises
        ------
        CorpusError : a name that can't be read back: empty, with white space in it, or occurring twice.

        References
        ----------
        https://spark.apache.org/docs/latest/sql-data-sources-parquet.html
        https://github.com/graphframes/graphframes, ``RandomWalkBase.rwColName``.
        """
        import polars as pl

        refuse_forked()
        names = pl.Series([name.decode() for name in self._words(ids)], dtype=pl.String)
        folder = Path(folder)
        _clear_table(folder)
        rows, made = max(1, _TABLE_BLOCK // self.length), 0
        for shard in self.shards:
            for begin in range(0, len(shard), rows):
                walks = np.asarray(shard[begin : begin + rows])
                which, _ = np.nonzero(walks >= 0)
                table = pl.DataFrame({"walk": which, "random_walk": names.gather(walks[walks >= 0])})
                table = table.group_by("walk", maintain_order=True).agg("random_walk").select("random_walk")
                with whole_path(folder / f"part-{made:05d}.parquet") as partial:
                    table.write_parquet(partial, compression="snappy")
                made += 1
        with whole(folder / "_SUCCESS"):
            pass
        return folder

    @takes(path="path", ids="list")
    def write_vocabulary(self, path: str | Path, ids: Sequence[str]) -> Path:
        """Write ``vocab.txt`` for BERT-family tools: [PAD] [UNK] [CLS] [SEP] [MASK], then every token's name.

        Token i of the walks is line i + 5, counted from 0; nodes that are in no walk have their line too.
        """
        words = self._words(ids)
        with whole(Path(path)) as file:
            file.write("".join(f"{word}\n" for word in SPECIAL).encode())
            file.writelines(word + b"\n" for word in words)
        return Path(path)

    def _words(self, ids: Sequence[str]) -> list[bytes]:
        """The names as bytes, after checking that a reader gets the same tokens back."""
        kept = self.n_questions + (self.n_concepts if self.strategy.get("keep_concepts") else 0)
        if len(ids) < kept:
            raise CorpusError(f"{len(ids)} names for {kept} tokens; pass the questions' names and then the concepts'")
        return words(ids[:kept])


def words(names: Sequence[str]) -> list[bytes]:
    """The names as bytes, after checking that a reader of a text gets the same tokens back.

    Raises
    ------
    CorpusError : a name that is empty, has white space in it, or occurs twice.
    """
    seen = set(SPECIAL)
    for name in names:
        if name.split() != [name] or "\0" in name:
            raise CorpusError(f"{name!r} can't be a word of a text: it is empty or has white space in it; rename it")
        if name in seen:
            raise CorpusError(f"{name!r} names two tokens, so a text can't tell them apart; rename one")
        seen.add(name)
    return [name.encode() for name in names]


@dataclass(frozen=True)
class Header:
    """The identity of a corpus, known before its first walk is sampled.

    Attributes
    ----------
    walks, length : rows and columns of all shards together.
    questions, concepts, graph_digest, strategy, seed : as in :class:`Corpus`.
    """

    walks: int
    length: int
    questions: int
    concepts: int
    graph_digest: str
    strategy: dict[str, Any]
    seed: int


class CorpusWriter:
    """Writes a corpus shard by shard; continues after an interruption.

    Parameters
    ----------
    directory : created if necessary.
    about : the corpus to write.
    resume : continue if the folder has exactly the same corpus, or part of it.
    replace : delete another corpus in the folder; otherwise that is an error.

    Attributes
    ----------
    done : walks that are on disk.
    finished : True if the whole corpus was there already.
    counts : sum of the counts of the shards on disk, by name.

    Raises
    ------
    CorpusError : the folder holds another corpus.
    ConfigError : it has files that qcq did not make.
    """

    def __init__(self, directory: str | Path, about: Header, *, resume: bool = True, replace: bool = False) -> None:
        self.folder, self.about = Path(directory), about
        self.shards: list[dict[str, Any]] = []
        self.finished = False
        self._hash = _start_digest(about.questions, about.concepts, about.length)
        self._tokens = 0
        claim(self.folder, "corpus", also=("corpus.json", "sampling.json"))
        for left in self.folder.glob("*.partial"):  # from a process that was killed
            left.unlink()
        held = self._held()
        if held is not None and held["of"] != asdict(about) and not replace:
            raise CorpusError(
                f"{self.folder}: holds {'part of ' if held['digest'] is None else ''}another corpus "
                f"(walk {held['of']['strategy'].get('name')}, seed {held['of']['seed']}); "
                "choose another folder, or replace this one (replace=True, on the command line --redo)"
            )
        if held is not None and held["of"] == asdict(about) and resume:
            self._resume(held)
        else:
            self._clear()
        if not self.finished:
            self._note_progress()

    @property
    def done(self) -> int:
        return sum(shard["walks"] for shard in self.shards)

    @property
    def counts(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for shard in self.shards:
            for name, n in shard["counts"].items():
                total[name] = total.get(name, 0) + n
        return total

    def add(self, walks: NDArray[np.int32], counts: Mapping[str, int] | None = None) -> None:
        """Write the next walks, int32 (walks, length), as a shard of their own."""
        name = f"walks-{len(self.shards):05d}.npy"
        walks = np.ascontiguousarray(walks, dtype=np.int32)
        with whole(self.folder / name) as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(walks))
            file.write(walks.data)
        self._take(walks)
        self.shards.append({"name": name, "walks": len(walks), "counts": dict(counts or {})})
        self._note_progress()

    def finish(self, counts: Mapping[str, int] | None = None) -> Corpus:
        """Write ``corpus.json`` (``counts`` in place of the sums over the shards) and read the corpus back."""
        if self.done != self.about.walks:
            raise CorpusError(f"{self.folder}: {self.done} of {self.about.walks} walks were written")
        if not self.finished:
            made = {"digest": self._hash.hexdigest(), "shards": [shard["name"] for shard in self.shards]}
            total = dict(self.counts if counts is None else counts)
            self._note("corpus.json", {**made, "tokens": self._tokens, **asdict(self.about), "counts": total})
        (self.folder / "sampling.json").unlink(missing_ok=True)
        return Corpus.load(self.folder)

    def _held(self) -> dict[str, Any] | None:
        """Identity and shards of the corpus in the folder, complete or partial; None if there is none."""
        try:
            about = from_json((self.folder / "corpus.json").read_text(encoding="utf-8"))
            shards = [{"name": name, "walks": 0, "counts": {}} for name in about["shards"]]
            of = {key: about.get(key) for key in asdict(self.about)}
            return {"of": of, "shards": shards, "digest": about["digest"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        try:
            about = from_json((self.folder / "sampling.json").read_text(encoding="utf-8"))
            return {"of": about["of"], "shards": about["shards"], "digest": None}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _resume(self, held: dict[str, Any]) -> None:
        if held["digest"] is not None:
            try:
                Corpus.load(self.folder)
            except CorpusError:
                return self._clear()
            self.finished = True
            self.shards = [{"name": "", "walks": self.about.walks, "counts": {}}]
            return None
        for shard in held["shards"]:
            try:
                walks = read_npy(self.folder / shard["name"], mapped=True)
            except (OSError, ValueError):
                break
            if walks.shape != (shard["walks"], self.about.length) or walks.dtype != np.int32:
                break
            self._take(walks)
            self.shards.append(shard)
        return None

    def _clear(self) -> None:
        """Remove the earlier walks, and what was written of them in other forms: it would pass for the new ones."""
        for name in ("corpus.json", "sampling.json", "corpus.txt", "vocab.txt"):
            (self.folder / name).unlink(missing_ok=True)
        for left in self.folder.glob("walks-*.npy"):
            left.unlink()
        table = self.folder / "walks.parquet"
        _clear_table(table)
        if table.is_dir() and not any(table.iterdir()):
            table.rmdir()

    def _take(self, walks: NDArray[np.int32]) -> None:
        """Add to the digest and the count of tokens. Pads are at the end, so a walk without a final pad is full."""
        _update(self._hash, walks)
        whole = walks[:, -1] >= 0
        self._tokens += int(whole.sum()) * self.about.length + int((walks[~whole] >= 0).sum())

    def _note_progress(self) -> None:
        self._note("sampling.json", {"of": asdict(self.about), "shards": self.shards})

    def _note(self, name: str, content: dict[str, Any]) -> None:
        with whole(self.folder / name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def _clear_table(folder: Path) -> None:
    for left in [folder / "_SUCCESS", *folder.glob("part-*.parquet")]:
        left.unlink(missing_ok=True)


def _start_digest(n_questions: int, n_concepts: int, length: int) -> hashlib._Hash:
    return hashlib.sha256(np.array([n_questions, n_concepts, length], dtype=np.int64).tobytes())


def _update(digest: hashlib._Hash, shard: NDArray[np.int32]) -> None:
    rows = max(1, _DIGEST_BLOCK // max(1, shard.shape[1]))
    for begin in range(0, len(shard), rows):
        digest.update(np.ascontiguousarray(shard[begin : begin + rows]).data)
