"""Vectors of a run or a file, in the form that another tool reads.

It stands in ``report`` because embedding-atlas gets what a report shows of a question: its name, its concepts, its
difficulty and its place on the map of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcq.embeddings import Embeddings, release_model
from qcq.errors import ConfigError, EmbeddingError, UnknownNameError
from qcq.report import hub
from qcq.report.facts import Bank
from qcq.report.maps import Map
from qcq.run import Row, Run
from qcq.support.files import from_json, whole_path
from qcq.support.folders import claim, refuse_foreign
from qcq.support.forked import refuse_forked
from qcq.support.types import takes
from qcq.support.vectors import WRITERS, Vectors

PADDING = "[PAD]"  # the id of a padding row where a format has ids


@dataclass(frozen=True)
class Order:
    """Which row each question stands in.

    Attributes
    ----------
    rows : question → row; the rows are 0 … n - 1, or 1 … n.
    file : where it was read, for messages.
    """

    rows: Mapping[str, int]
    file: Path

    @classmethod
    def read(cls, file: Path) -> Order:
        """Read ``keyid2idx.json``, which pyKT's preprocessing writes, or a plain JSON object id → index.

        pyKT's file holds ``{"questions": {id: index}, "concepts": {id: index}, …}`` (``pykt/preprocess/utils.py``).

        Raises
        ------
        ConfigError : no such file, no JSON object, no questions, or indices that aren't those of a table's rows.
        """
        try:
            # Pairs, because a dictionary would hide a question that occurs twice.
            held = from_json(file.read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}; give the keyid2idx.json of the data") from None
        except ValueError as error:
            raise ConfigError(f"{file}: no readable JSON ({error}); give the keyid2idx.json of the data") from None
        pairs = dict(held).get("questions", held) if isinstance(held, _Pairs) else held
        if not isinstance(pairs, _Pairs):
            raise ConfigError(
                f'{file}: no object of indices; write {{"questions": {{id: index, …}}}}, or {{id: index}}'
            )
        if not pairs:
            raise ConfigError(f"{file}: no questions in it; a data set of concepts alone has no use for their vectors")
        for name, row in pairs:
            if type(row) is not int or row < 0:
                raise ConfigError(f"{file}: question {name!r} has the index {row!r}; give a whole number from 0")
        rows: dict[str, int] = dict(pairs)
        if len(rows) < len(pairs):
            raise ConfigError(f"{file}: {len(pairs) - len(rows)} questions occur more than once; give each one index")
        found, least = sorted(rows.values()), min(rows.values())
        if found != list(range(least, least + len(rows))) or least > 1:
            raise ConfigError(
                f"{file}: {len(rows)} questions have {len(set(found))} indices from {found[0]} to {found[-1]}; "
                "number them from 0 (or from 1) without gaps"
            )
        return cls(rows, file)

    def arrange(self, emb: Embeddings, padding: Literal["first", "last"] | None) -> tuple[Embeddings, list[str]]:
        """The vectors in this order, with a row of zeros first or last if a model pads there; and what was left out.

        Raises
        ------
        EmbeddingError : a question of the order has no vector.
        ConfigError : the order counts from 1 and row 0 isn't asked for.
        """
        names = sorted(self.rows, key=self.rows.__getitem__)
        if self.rows[names[0]] == 1 and padding != "first":
            raise ConfigError(f"{self.file}: its indices begin with 1, so row 0 is for padding; add --padding first")
        if any(name not in emb.index for name in names):
            try:
                emb.aligned(names)
            except EmbeddingError as error:
                raise EmbeddingError(f"{self.file}: {error}") from None
        notes = []
        if left := len(emb) - len(names):
            known = set(names)
            out = next(name for name in emb.ids if name not in known)
            notes.append(f"{left:,} of {len(emb):,} vectors left out, no questions of {self.file}: {out!r} first")
        vectors = emb.vectors[[emb.index[name] for name in names]]
        if padding is not None:
            zeros, at = np.zeros((1, emb.dim), dtype=np.float32), 0 if padding == "first" else len(names)
            names.insert(at, PADDING)
            vectors = np.concatenate([zeros, vectors] if padding == "first" else [vectors, zeros])
            notes.append(f"row {at:,} is the padding row, zeros")
        return Embeddings(names, vectors, provenance=emb.provenance), notes


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as its pairs, told from an array by its type."""


@dataclass(frozen=True, eq=False)
class Table:
    """What is exported: vectors, and the run that they come from, if any.

    Attributes
    ----------
    run, row : the run and the row of its ``training.jsonl``, or None.
    notes : what a writer found and did, one line each.
    """

    embeddings: Embeddings
    run: Run | None = None
    row: Row | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def bank(self) -> Bank | None:
        """What the run knows of its questions.

        Raises
        ------
        ConfigError : the folder's questions aren't those of the vectors.
        """
        bank = None if self.run is None else Bank.of(self.run)
        if self.run is not None and bank is not None and bank.ids != list(self.embeddings.ids):
            raise ConfigError(
                f"{self.run.path}: questions.csv isn't in the order of the vectors; run it again with --redo"
            )
        return bank

    @cached_property
    def map(self) -> Map | None:
        """The run's map of these vectors; None where there is none (a run draws the first seed of each trainer)."""
        if self.run is None or self.row is None:
            return None
        row = self.row
        file = self.run.file("maps", row["walk"], row["trainer"], row["readout"], row["seed"], ".npz")
        return Map.load(file)

    def concepts(self) -> list[list[str]]:
        """The names of each question's concepts."""
        assert self.bank is not None
        w = self.bank.members
        return [[self.bank.label(c) for c in w.indices[a:b]] for a, b in zip(w.indptr, w.indptr[1:], strict=False)]


def _write_array(table: Table, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, table.embeddings.vectors)


def _write_numbered(table: Table, path: Path) -> None:
    """``{"0": [number, …], "1": …}``, as edmine's ``embed_path`` and KCQRL's pyKT (also for XES3G5M) read it.

    Both divide each row by its length, so a row of zeros would become NaN there.

    References
    ----------
    edmine 1.0.0, ``edmine/model/module/EmbedLayer.py``; KCQRL (Ozyurt et al. 2024, Automated Knowledge Concept
    Annotation and Question Representation Learning for Knowledge Tracing), ``pykt/models/qdkt.py``.
    """
    rows = table.embeddings.vectors
    if zero := int((~rows.any(axis=1)).sum()):
        table.notes.append(
            f"{zero:,} rows are zeros: edmine and KCQRL divide rows by their length and get NaN from these"
        )
    held = {str(i): [float(str(x)) for x in row] for i, row in enumerate(rows)}
    path.write_text(json.dumps(held), encoding="utf-8")


def _write_tsv(table: Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in table.embeddings.vectors)


def _write_metadata(table: Table, path: Path) -> None:
    """One column has no heading, several have one: so the projector tells them apart.

    References
    ----------
    https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin and https://projector.tensorflow.org
    """
    emb, bank = table.embeddings, table.bank
    columns: list[list[str]] = [list(map(str, emb.ids))]
    if wrong := next((name for name in columns[0] if " ".join(name.split()) != name), None):
        raise EmbeddingError(
            f"{wrong!r} has white space in it that a line of TSV can't hold; take .parquet or --to atlas"
        )
    if bank is not None:
        columns += [["name", *bank.names], ["concepts", *("; ".join(names) for names in table.concepts())]]
        columns[0] = ["question", *columns[0]]
        if bank.difficulty is not None:
            columns.append(["difficulty", *("" if np.isnan(x) else f"{x:.4g}" for x in bank.difficulty)])
    flat = [[" ".join(cell.split()) for cell in column] for column in columns]
    if changed := sum(a != b for one, two in zip(columns, flat, strict=True) for a, b in zip(one, two, strict=True)):
        table.notes.append(f"{changed:,} names had tabs, line ends or double spaces: single spaces in the metadata")
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines("\t".join(cells) + "\n" for cells in zip(*flat, strict=True))


def _write_atlas(table: Table, path: Path) -> None:
    """Parquet for ``embedding-atlas``: a row a question, the vector in one column of lists.

    ``x`` and ``y`` are the question's place on the run's map (t-SNE, or PCA where there is none), ``neighbours`` its
    nearest rows, counted from 0, with their distances (1 - cosine), as ``--neighbors`` takes them.

    References
    ----------
    https://apple.github.io/embedding-atlas/tool.html and ``embedding-atlas --help``, 0.26.0.
    """
    import polars as pl

    refuse_forked()
    emb, bank, drawn = table.embeddings, table.bank, table.map
    columns: dict[str, pl.Series] = {
        "id": pl.Series(list(emb.ids), dtype=pl.String),
        "vector": pl.Series(list(emb.vectors), dtype=pl.List(pl.Float32)),
    }
    if bank is None:
        table.notes.append("names, concepts and difficulty are known of a run's questions only: left out")
    else:
        columns["name"] = pl.Series([name or None for name in bank.names], dtype=pl.String)
        columns["concepts"] = pl.Series(table.concepts(), dtype=pl.List(pl.String))
        if bank.difficulty is not None:
            columns["difficulty"] = pl.Series(bank.difficulty, dtype=pl.Float64).fill_nan(None)
    if drawn is None:
        table.notes.append("no map of these vectors: x, y and neighbours left out; embedding-atlas --vector makes them")
    else:
        columns |= _places(drawn, len(emb))
        if missing := len(emb) - len(drawn.shown):
            table.notes.append(f"{missing:,} of {len(emb):,} questions aren't on the map: no x, y and neighbours")
    pl.DataFrame(columns).write_parquet(path)


def _places(drawn: Map, n: int) -> dict[str, Any]:
    """Columns x, y and neighbours of a table of ``n`` questions; null for those that aren't on the map."""
    import polars as pl

    places = drawn.tsne if len(drawn.tsne) else drawn.pca
    xy: NDArray[np.float32] = np.full((n, 2), np.nan, dtype=np.float32)
    xy[drawn.shown] = places
    near: list[dict[str, list] | None] = [None] * n
    for i, ids, similar in zip(drawn.shown, drawn.shown[drawn.nearest], drawn.similarity, strict=True):
        near[i] = {"ids": ids.tolist(), "distances": (1 - similar).clip(min=0).tolist()}
    kind = pl.Struct({"ids": pl.List(pl.Int64), "distances": pl.List(pl.Float32)})
    x, y = (pl.Series(xy[:, j]).fill_nan(None) for j in (0, 1))
    return {"x": x, "y": y, "neighbours": pl.Series(near, dtype=kind)}


Write = Callable[[Table, Path], None]


class Format(NamedTuple):
    """One form of vectors.

    Attributes
    ----------
    ending : of its path.
    files : addition to the name of the file → who writes that file.
    by_index : who writes it where ``--order`` gives each question a row; None if the format has no use for that.
    whole : whether it holds concept vectors and provenance too.
    of_run : further files that are written for a run only.
    folder : what is said of a folder of this format; None if the path is that of a file. In a folder, ``files`` and
        ``of_run`` have the files' names.
    """

    ending: str
    files: Mapping[str, Write]
    by_index: Write | None = None
    whole: bool = False
    of_run: Mapping[str, Write] = {}
    folder: Callable[[Path], str] | None = None

    def paths(self, out: Path, run: bool) -> dict[Path, Write]:
        """Who writes which file."""
        files = {**self.files, **(self.of_run if run else {})}
        if self.folder is not None:
            return {out / name: write for name, write in files.items()}
        return {out.with_name(f"{out.stem}{added}{out.suffix}"): write for added, write in files.items()}


def _saved(ending: str) -> Write:
    """By the writer of :meth:`qcq.Embeddings.save`."""

    def write(table: Table, path: Path) -> None:
        emb = table.embeddings
        WRITERS[ending](Vectors(emb.ids, emb.vectors, emb.concept_ids, emb.concept_vectors, emb.provenance), path)

    return write


FORMATS: dict[str, Format] = {
    **{ending[1:]: Format(ending, {"": _saved(ending)}) for ending in WRITERS},
    "safetensors": Format(".safetensors", {"": _saved(".safetensors")}, whole=True),
    "pt": Format(".pt", {"": _saved(".pt")}, by_index=_saved(".pt")),
    "json": Format(".json", {"": _saved(".json")}, by_index=_write_numbered),
    "npy": Format(".npy", {}, by_index=_write_array),
    "tensorboard": Format(".tsv", {"": _write_tsv, "-metadata": _write_metadata}),
    "atlas": Format(".parquet", {"": _write_atlas}),
    "hub": Format(
        "",
        {hub.VECTORS: _saved(".safetensors"), hub.CARD: hub.write_card},
        whole=True,
        of_run={hub.RESULTS: hub.write_results},
        folder=hub.upload,
    ),
}


def _format(path: Path, to: str | None) -> tuple[str, Format]:
    """The format by its name, or by the path's ending.

    Raises
    ------
    UnknownNameError : no such format.
    ConfigError : no format has that ending, or the named one has another.
    """
    ending = path.suffix.lower()
    if to is not None:
        if to not in FORMATS:
            raise UnknownNameError("format", to, FORMATS)
        if FORMATS[to].folder is None and FORMATS[to].ending != ending:
            raise ConfigError(f"{path}: {to} is written to a path that ends in {FORMATS[to].ending}; name it so")
        return to, FORMATS[to]
    by_ending = {name: each.ending for name, each in FORMATS.items() if each.folder is None}
    found = next((name for name, each in by_ending.items() if each == ending), None)
    if found is None:
        endings = ", ".join(dict.fromkeys(by_ending.values()))
        raise ConfigError(f"{path}: nothing is exported as {path.suffix or 'no ending'!r}; give {endings}")
    return found, FORMATS[found]


class Exported(NamedTuple):
    """What was written.

    Attributes
    ----------
    files : one, two for the projector, or those of a folder.
    embeddings : the vectors in the order of the rows.
    label : whose they are.
    notes : what was left out or filled in, with counts.
    next : what to do with the folder, if it is one.
    """

    files: tuple[Path, ...]
    embeddings: Embeddings
    label: str
    notes: tuple[str, ...]
    next: str = ""


@takes(source="path", out="path")
def export(
    source: str | Path,
    out: str | Path,
    to: str | None = None,
    *,
    trainer: str | None = None,
    walk: str | None = None,
    seed: int | None = None,
    order: str | Path | None = None,
    padding: Literal["first", "last"] | None = None,
    redo: bool = False,
) -> Exported:
    """Write the vectors of a run, or of a file, in the form that another tool reads.

    Parameters
    ----------
    source : a run folder, or a file that :meth:`qcq.Embeddings.load` reads.
    out : the path, that of a folder for ``hub``; its ending gives the format where ``to`` is None.
    to : a name of ``FORMATS``.
    trainer, walk, seed : whose vectors of a run; by default those that did best on validation, and the first seed.
    order : a ``keyid2idx.json``: rows are written by index, in its order (``.npy``, ``.pt``, ``.json``).
    padding : whether a row of zeros stands before the rows or after them.
    redo : replace a file that exists, and with it all files that the format has beside it.

    Raises
    ------
    ConfigError : an unknown format, a file that exists, or options that don't go together.
    UnknownNameError : no such trainer or walk in the run.
    EmbeddingError : a file that can't be read, or a question of ``order`` without a vector.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise ConfigError(f"{source}: no such run folder or file of vectors; check the spelling and the current folder")
    name, form = _format(out, to)
    if order is None and padding is not None:
        raise ConfigError("a padding row needs an order of rows; add --order keyid2idx.json")
    if order is None and not form.files:
        raise ConfigError(f"{out}: {name} has no ids, only rows; say which row is whose with --order keyid2idx.json")
    if order is not None and form.by_index is None:
        able = ", ".join(f".{key}" for key, each in FORMATS.items() if each.by_index)
        raise ConfigError(f"{out}: {name} goes by ids, not by rows; leave --order out, or write {able}")
    files = form.paths(out, source.is_dir())
    if order is not None and form.by_index is not None:
        files = {out: form.by_index}
    if form.folder is not None:
        refuse_foreign(out, "model")  # a language model's folder gets a card and vectors
    owned = dict.fromkeys([*files, *form.paths(out, True)])
    for path in owned:
        if path.is_dir() or (path.exists() and not redo):
            raise ConfigError(f"{path}: exists already; name another file, or replace it with --redo")
    table, label = _table(source, trainer, walk, seed)
    emb = table.embeddings
    if emb.concept_vectors is not None and not form.whole:
        table.notes.append(f"{len(emb.concept_ids):,} concept vectors left out: .safetensors holds them")
    if order is not None:
        made, notes = Order.read(Path(order)).arrange(emb, padding)
        table = replace(table, embeddings=made, notes=[*table.notes, *notes])
    if form.folder is not None:
        claim(out, "model")
    with ExitStack() as stack:
        for path, write in files.items():
            write(table, stack.enter_context(whole_path(path)))
        _make_way(owned, files, table.embeddings)
    after = "" if form.folder is None else form.folder(out)
    return Exported(tuple(files), table.embeddings, label, tuple(table.notes), after)


def _make_way(owned: Iterable[Path], files: Iterable[Path], emb: Embeddings) -> None:
    """Remove what an earlier export left under the names of the format: it would pass for a part of the new one.

    It is called when all new files are written and have no names yet. One file takes the place of another at once, but
    several don't: a process that is killed among them must not leave some of each.
    """
    files = list(files)
    for path in owned:
        if path not in files:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the export's own folder, or one with other files
                path.parent.rmdir()
        elif len(files) > 1:
            path.unlink(missing_ok=True)
    for path in files:
        release_model(path, emb)


def _table(source: Path, trainer: str | None, walk: str | None, seed: int | None) -> tuple[Table, str]:
    """The chosen vectors, and whose they are."""
    if not source.is_dir():
        if given := [f"--{k}" for k, v in (("trainer", trainer), ("walk", walk), ("seed", seed)) if v is not None]:
            raise ConfigError(f"{source}: a file holds one table; leave {', '.join(given)} out, or name a run folder")
        return Table(Embeddings.load(source)), source.name
    run = Run.open(source)
    if trainer is None:
        trainer, walk = run.best(walk)
    row = run.trained(trainer, walk=walk, seed=seed)
    emb = run.embeddings(trainer, walk=row["walk"], seed=row["seed"])
    notes = [] if run.finished else ["this run isn't finished: the same command goes on with it"]
    return Table(emb, run, row, notes), f"{trainer} on walk {row['walk']}, {row['readout']}, seed {row['seed']}"
