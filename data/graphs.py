"""Files of a question–concept graph, both ways: GraphML, an edge list with weights, and scipy's sparse matrix.

Identifiers, their order and the weights come back exactly as they were. Nothing is guessed: a file without the names of
its questions and concepts is refused.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data.assembly import q_matrix, remarks
from qcq.data.bipartite import refuse_bad_weights, two_sides
from qcq.data.checks import alike, converted
from qcq.data.csv import weighted
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.table import RawTable, codes
from qcq.data.text import OFFICE, read_text
from qcq.errors import DataError, GraphError
from qcq.support.arrays import read_npz, read_sparse
from qcq.support.files import whole
from qcq.support.formulas import guarded, restored_frame
from qcq.support.settings import settings
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

SIDES = ("question", "concept")
SIDE, NAME = "bipartite", "identifier"  # attributes of a node in GraphML
MATRIX = ("format", "shape", "data")  # what scipy.sparse.save_npz always writes
AGAIN = "get the file again from its source"
PAIRS = {"parents": "parents of concepts", "prerequisites": "prerequisites between concepts"}


class Content(NamedTuple):
    """What a file of a graph holds.

    Attributes
    ----------
    questions, concepts : identifiers, in index order.
    weights : csr_array float64 (questions × concepts).
    repeated : how many edges were given again, with the same weight.
    parents, prerequisites : relations between concepts; as in :class:`~qcq.data.Dataset`.
    """

    questions: Sequence[str]
    concepts: Sequence[str]
    weights: scipy.sparse.csr_array
    repeated: int = 0
    parents: Mapping[str, str] = {}
    prerequisites: Sequence[tuple[str, str]] = ()


@settings
class GraphFile(Reader):
    """One file with a graph and no responses: ``.graphml``, or ``.npz`` with scipy's sparse matrix and its names.

    - ``.graphml``: nodes have the attribute ``bipartite``, 0 for questions and 1 for concepts, and perhaps
      ``identifier`` (else a node's id is its identifier); edges have perhaps ``weight``.
    - ``.npz``: as ``scipy.sparse.save_npz`` writes a matrix of questions × concepts, with two more arrays of text,
      ``questions`` and ``concepts``.
    - ``.csv``, ``.tsv``: an edge list ``question,concept,weight``; a row without a concept is a question alone. Rows
      without a question, at the end, list all concepts in their order. A name that a spreadsheet program would take
      for a formula (``=1+1``) has an apostrophe in front. By its contents such a file is taken for ``csv``, which reads
      it as well, unless concepts are listed or a name has the apostrophe; then write ``graph:PATH``.

    References
    ----------
    http://graphml.graphdrawing.org/specification.html;
    https://docs.scipy.org/doc/scipy/reference/generated/scipy.sparse.save_npz.html.
    """

    needs: ClassVar[str] = (
        "one file .graphml with the attribute bipartite on its nodes, or one .npz of scipy with names"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if not path.is_file():
            return False
        if path.suffix.lower() == ".npz":
            return {f"{name}.npy" for name in MATRIX} <= set(_members(path))
        return path.suffix.lower() == ".graphml"

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        if path.is_dir() or not path.exists():
            fix = f"name one file: {', '.join(READERS)}"
            raise DataError("a folder isn't a graph" if path.is_dir() else "no such file", file=path, fix=fix)
        found = READERS[_ending(path)](path)
        checked = _names(path, found.questions, found.concepts)
        try:
            refuse_bad_weights(found.questions, found.concepts, found.weights)
        except GraphError as error:
            raise _in_file(error, path) from None
        doubts = [
            doubt
            for side, names in zip(SIDES, checked, strict=True)
            for doubt in (*alike(path, names, side), *converted(path, names, side))
        ]
        return Dataset(
            path.name.partition(".")[0],
            tuple(found.questions),
            tuple(found.concepts),
            found.weights,
            parents=found.parents,
            prerequisites=tuple(found.prerequisites),
            notes=(*doubts, "a graph without responses", *remarks(found.weights, found.repeated)),
            own=True,
        )


def save_graph(path: Path, graph: Content) -> list[str]:
    """Write a graph in the format of the ending, whole or not at all.

    Returns
    -------
    list[str] : what the format has no place for and was left out, a line each.

    Raises
    ------
    DataError : an unknown ending, or an identifier that no reader would take.
    """
    write = WRITERS[_ending(path)]
    _names(path, graph.questions, graph.concepts)
    write(path, graph)
    if write is _write_npz:
        return []
    held = {"parents": len(graph.parents), "prerequisites": len(graph.prerequisites)}
    return [f"{path.name}: {n:,} {PAIRS[kind]} left out; .npz keeps them" for kind, n in held.items() if n]


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in READERS:
        raise DataError("no format of graphs has this ending", file=path, fix=f"the endings are {', '.join(READERS)}")
    return ending


def _names(path: Path, questions: Sequence[str], concepts: Sequence[str]) -> list[pl.Series]:
    """The identifiers of both sides; DataError for one that is surely none, or that two nodes have."""
    import polars as pl

    made = []
    for side, names in zip(SIDES, (questions, concepts), strict=True):
        if len(names) == 0:
            raise DataError(f"there are no {side}s", file=path, fix=f"a graph needs at least one {side}")
        table = RawTable(path, pl.DataFrame({side: list(names)}, schema={side: pl.String}))
        checked = table.identifiers(side)
        table.reject(~checked.is_first_distinct(), f"two {side}s with one name", side, "name them apart")
        made.append(checked)
    return made


def _in_file(error: GraphError, path: Path) -> DataError:
    """What is wrong with a graph, with the name of its file."""
    what, _, fix = str(error).partition("; ")
    return DataError(what, file=path, fix=fix)


# ----------------------------------------------------------------------------------------------------------- GraphML


def _read_graphml(path: Path) -> Content:
    import networkx as nx

    text, _ = read_text(path)
    # A document type may define entities that expand without end, or name files to read. GraphML needs none.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError("a document type in the file", file=path, value="<!DOCTYPE", fix="take the document type out")
    try:
        graph = nx.parse_graphml(text, node_type=str)
    except (nx.NetworkXException, SyntaxError, ValueError, KeyError, TypeError, RecursionError, IndexError) as error:
        what = f"not readable as GraphML ({str(error) or type(error).__name__})"
        raise DataError(what, file=path, fix="write it with networkx.write_graphml, or get it again") from None
    named = [node for node, values in graph.nodes(data=True) if NAME in values]
    if named and len(named) < len(graph):
        node = next(node for node, values in graph.nodes(data=True) if NAME not in values)
        what = f"{len(graph) - len(named):,} of {len(graph):,} nodes without the attribute {NAME!r}"
        raise DataError(what, file=path, value=node, fix="give it to all nodes or to none")
    try:
        questions, concepts, weights = two_sides(graph, SIDE, name=NAME if named else "")
    except GraphError as error:
        raise _in_file(error, path) from None
    return Content(questions, concepts, weights, graph.number_of_edges() - weights.nnz)


def _write_graphml(path: Path, graph: Content) -> None:
    import networkx as nx

    for side, names in zip(SIDES, (graph.questions, graph.concepts), strict=True):
        wrong = next((name for name in names if re.search(r"[\ufffe\uffff]", name)), None)
        if wrong is not None:
            what = f"a {side} whose name has a character that XML can't hold"
            raise DataError(what, file=path, value=wrong, fix="take it out, or save as .npz")
    made = nx.Graph()
    for kind, (side, names) in enumerate(zip(SIDES, (graph.questions, graph.concepts), strict=True)):
        made.add_nodes_from((f"{side}:{name}", {SIDE: kind, NAME: name}) for name in names)
    coo = graph.weights.tocoo()
    made.add_weighted_edges_from(
        (f"question:{graph.questions[q]}", f"concept:{graph.concepts[c]}", float(weight))
        for q, c, weight in zip(coo.row, coo.col, coo.data, strict=True)
    )
    with whole(path) as file:
        nx.write_graphml_xml(made, file)


# --------------------------------------------------------------------------------------------------------- edge list


def _read_edges(path: Path) -> Content:
    import polars as pl

    table = RawTable.read(path, SIDES, ("weight",), OFFICE)
    alone, listed = table.blank("concept"), table.blank("question")
    table.reject(alone & listed, "neither a question nor a concept", "question", "take the row out")
    last = 0 if listed.all() else len(table) - int((~listed).reverse().arg_max() or 0)  # edges end before this row
    early = listed & (pl.Series(np.arange(len(table))) < last)
    table.reject(early, "blank identifier", "question", "write rows that list concepts after all edges")
    edge = ~(alone | listed)
    if "weight" in table.frame.columns:
        loose = ~table.blank("weight") & ~edge
        table.reject(loose, "a weight without an edge", "weight", "leave the cell empty")
        filled = table.frame.with_columns(pl.when(edge).then("weight").otherwise(pl.lit("1")).alias("weight"))
        table = replace(table, frame=filled)
    frame = restored_frame(table.frame, *SIDES)
    called, tested = frame["question"], frame["concept"]
    questions = called.filter(~listed).unique(maintain_order=True)
    concepts = tested.filter(listed if listed.any() else edge).unique(maintain_order=True)
    again = listed & ~tested.set(~listed, None).is_first_distinct()
    table.reject(again, "a concept listed twice", "concept", "keep one of its rows")
    record = np.flatnonzero(edge.to_numpy())
    column = codes(tested, concepts)
    table.reject(edge & column.is_null(), "a concept that isn't among those listed", "concept", "list it too")
    rows, columns = codes(called.set(listed, None), questions).to_numpy()[record], column.to_numpy()[record]
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    matrix, repeated = q_matrix(len(questions), len(concepts), rows, columns)
    if "weight" in table.frame.columns and len(record):
        matrix = weighted(table, matrix, rows, columns, record)
    return Content(tuple(questions), tuple(concepts), matrix, repeated)


def _write_edges(path: Path, graph: Content) -> None:
    weights = graph.weights
    text = io.StringIO(newline="")
    rows = csv.writer(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n")
    rows.writerow([*SIDES, "weight"])
    met: dict[int, None] = {}
    concepts = list(map(guarded, graph.concepts))
    for row, question in enumerate(map(guarded, graph.questions)):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        met.update(dict.fromkeys(weights.indices[part].tolist()))
        for column, weight in zip(weights.indices[part].tolist(), weights.data[part].tolist(), strict=True):
            rows.writerow([question, concepts[column], repr(weight)])
        if part.start == part.stop:
            rows.writerow([question, "", ""])
    if list(met) != list(range(len(concepts))):  # else their order is that of the edges
        rows.writerows(["", concept, ""] for concept in concepts)
    with whole(path) as file:
        file.write(text.getvalue().encode())


# --------------------------------------------------------------------------------------------------- scipy's matrix


def _members(path: Path) -> list[str]:
    """The names in an archive of numpy; empty where it is none. Never raises."""
    try:
        with zipfile.ZipFile(path) as held:
            return held.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def _read_npz(path: Path) -> Content:
    try:
        held = read_npz(path)
    except (OSError, ValueError) as error:
        raise DataError(f"not an archive of numpy arrays ({error})", file=path, fix=AGAIN) from None
    arrays = {name: array for name, array in held.items() if name in _ARRAYS}
    missing = [name for name in (*MATRIX, "questions", "concepts") if name not in arrays]
    if missing and path.with_name("config.toml").is_file() and {"indptr", "indices", "degree"} <= set(held):
        fix = "it is a run's own file; give the data of the run, which its config.toml names"
        raise DataError("these arrays of a graph are missing", file=path, value=missing, fix=fix)
    if missing and set(missing) <= {"questions", "concepts"}:
        fix = "add two arrays of text, or write KnowledgeGraph(questions, concepts, scipy.sparse.load_npz(path))"
        raise DataError("a matrix without the names of its rows and columns", file=path, value=missing, fix=fix)
    if missing:
        fix = "write it with KnowledgeGraph.save, or scipy.sparse.save_npz"
        raise DataError("no sparse matrix of scipy, these arrays are missing", file=path, value=missing, fix=fix)
    questions, concepts = (_texts(path, arrays, name) for name in ("questions", "concepts"))
    try:
        loaded = read_sparse(path)
        if loaded.shape != (len(questions), len(concepts)):
            shape = "×".join(map(str, loaded.shape))
            what = f"a matrix of {shape} for {len(questions):,} questions and {len(concepts):,} concepts"
            raise DataError(what, file=path, fix="give a name to each row and each column")
        if loaded.dtype.kind not in "biuf":
            raise DataError("weights that are no real numbers", file=path, value=str(loaded.dtype), fix=AGAIN)
        made = scipy.sparse.csr_array(loaded, dtype=np.float64)
        again = made.nnz
        made.sum_duplicates()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError, NotImplementedError) as error:
        raise DataError(f"no readable sparse matrix ({error})", file=path, fix=AGAIN) from None
    if made.nnz < again:
        fix = "give each edge one entry"
        raise DataError(f"{several(again - made.nnz, 'edge')} with several entries", file=path, fix=fix)
    parents = _pairs(path, arrays, "parents")
    return Content(questions, concepts, made, 0, dict(parents), _pairs(path, arrays, "prerequisites"))


_ARRAYS = (*MATRIX, "questions", "concepts", *PAIRS)


def _texts(path: Path, arrays: Mapping[str, NDArray], name: str) -> tuple[str, ...]:
    given = arrays[name]
    if given.ndim != 1 or given.dtype.kind != "U":
        what = f"{name} of shape {given.shape} and type {given.dtype}"
        raise DataError(what, file=path, column=name, fix="give one array of text, an identifier each")
    return tuple(given.tolist())


def _pairs(path: Path, arrays: Mapping[str, NDArray], name: str) -> tuple[tuple[str, str], ...]:
    if name not in arrays:
        return ()
    given = arrays[name]
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind != "U":
        what = f"{name} of shape {given.shape} and type {given.dtype}"
        raise DataError(what, file=path, column=name, fix="give an array of text with two columns")
    return tuple((a, b) for a, b in given.tolist())


def _write_npz(path: Path, graph: Content) -> None:
    """As ``scipy.sparse.save_npz``, which has no place for names, with arrays that ``load_npz`` passes over."""
    w = graph.weights
    arrays: dict[str, Any] = {
        "format": np.array(b"csr"),
        "shape": np.array(w.shape),
        "data": w.data,
        "indices": w.indices,
        "indptr": w.indptr,
        "_is_array": np.array(True),  # so that load_npz gives a csr_array
        "questions": np.array(list(graph.questions), dtype=str),
        "concepts": np.array(list(graph.concepts), dtype=str),
    }
    for kind, pairs in (("parents", list(graph.parents.items())), ("prerequisites", list(graph.prerequisites))):
        if pairs:
            arrays[kind] = np.array(pairs, dtype=str)
    with whole(path) as file:
        np.savez_compressed(file, **arrays)


READERS: dict[str, Callable[[Path], Content]] = {
    ".graphml": _read_graphml,
    ".csv": _read_edges,
    ".tsv": _read_edges,
    ".npz": _read_npz,
}
WRITERS: dict[str, Callable[[Path, Content], None]] = {
    ".graphml": _write_graphml,
    ".csv": _write_edges,
    ".tsv": _write_edges,
    ".npz": _write_npz,
}
