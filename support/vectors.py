"""Files of vectors: one reader and one writer a format, chosen by the ending. Ids are text; no pickle is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcq.errors import DataError, EmbeddingError
from qcq.support.arrays import read_npz, read_safetensors
from qcq.support.files import from_json
from qcq.support.forked import refuse_forked
from qcq.support.formulas import guarded, restored
from qcq.support.names import named
from qcq.support.parquet import read_parquet
from qcq.support.times import refuse_far_times

if TYPE_CHECKING:
    import polars as pl


class Vectors(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    ids : names of the rows.
    vectors : (rows, dim).
    concept_ids, concept_vectors, provenance : as in :class:`qcq.Embeddings`, where the format has them.
    """

    ids: Sequence[str]
    vectors: NDArray
    concept_ids: Sequence[str] = ()
    concept_vectors: NDArray | None = None
    provenance: Mapping[str, Any] = {}


class _Said(BaseModel):
    """What a provenance must hold; more may be in it."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class _Part(_Said):
    name: str
    columns: Annotated[Sequence[int], Field(min_length=2, max_length=2)]


class _Provenance(_Said):  # what vectors are read by; the rest is only shown
    parts: Sequence[_Part] = ()
    numbers: Sequence[str] = ()
    seed: int = 0


def refuse_foreign(provenance: Any, dim: int) -> None:
    """Look through the provenance of vectors with ``dim`` columns.

    Raises
    ------
    EmbeddingError : it is no object, or its parts, numbers or seed aren't what ``concatenate`` and ``qcq`` write.
    """
    if not isinstance(provenance, Mapping):
        raise EmbeddingError(f"the provenance is of type {type(provenance).__name__}; give an object, as {{}}")
    try:
        made = _Provenance.model_validate({k: v for k, v in provenance.items() if k in _Provenance.model_fields})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(map(str, wrong["loc"]))
        raise EmbeddingError(f"the provenance, {key}: {wrong['msg'].lower()}; correct it or leave it out") from None
    spans = [tuple(part.columns) for part in made.parts]
    ends = [0, *(end for _, end in spans)]
    if spans and (ends != sorted(ends) or [start for start, _ in spans] != ends[:-1] or ends[-1] != dim):
        shown = ", ".join(f"{start} to {end}" for start, end in spans)
        raise EmbeddingError(
            f"the provenance has parts of columns {shown[:80]}; let one follow the other from 0 to {dim}"
        )


def as_names(ids: Iterable[Any], kind: str = "question") -> Sequence[str]:
    """Identifiers as text; text is passed on as it is. Bytes are decoded, and whole floats lose their ``.0``.

    Raises
    ------
    EmbeddingError : an identifier is missing (None, NaN), or can't be written as UTF-8.
    """
    names: Sequence[str]
    if isinstance(ids, list | tuple) and set(map(type, ids)) <= {str}:  # millions of texts are usual
        names = ids
    else:
        names = [_name(value, row, kind) for row, value in enumerate(ids, start=1)]
    try:
        "\n".join(names).encode()
    except UnicodeEncodeError:
        row = next(row for row, name in enumerate(names, start=1) if not _whole(name))
        raise EmbeddingError(
            f"row {row} has the {kind} id {names[row - 1]!r} with half a character, which no file can hold; "
            "write the id anew"
        ) from None
    return names


def _whole(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _rows(ids: Iterable[Any], rows: Sequence[Any] | NDArray) -> Vectors:
    """Vectors whose lengths are checked, one by one unless they are a table already."""
    names = as_names(ids)
    if len(names) == 0:
        raise EmbeddingError("there are no vectors in it; give one at least")
    if len(names) != len(rows):
        raise EmbeddingError(f"{len(names)} ids for {len(rows)} vectors; give one each")
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] and rows.dtype.kind in "fiu":
        return Vectors(names, rows)  # one length already; a million rows one by one take their time
    made = []
    for name, row in zip(names, rows, strict=True):
        try:
            numbers = np.asarray(row)
            if np.iscomplexobj(numbers):
                raise EmbeddingError(f"the vector of question {name!r} has complex numbers; give real ones")
            made.append(numbers.astype(np.float64))
        except (TypeError, ValueError):
            raise EmbeddingError(
                f"the vector of question {name!r} isn't a list of numbers; write [number, …]"
            ) from None
        except OverflowError:  # a whole number of hundreds of digits
            raise EmbeddingError(
                f"the vector of question {name!r} has a number that is too large; give finite numbers"
            ) from None
        if made[-1].ndim != 1 or made[-1].shape != made[0].shape or len(made[0]) == 0:
            shape = "×".join(map(str, made[-1].shape)) or "a single number"
            raise EmbeddingError(
                f"the vector of question {name!r} has dimension {shape}, that of {names[0]!r} "
                f"{'×'.join(map(str, made[0].shape)) or 'a single number'}; give all the same, 1 at least"
            )
    return Vectors(names, np.stack(made))


def _name(value: Any, row: int, kind: str) -> str:
    try:
        name = named(value)
    except DataError as error:
        raise EmbeddingError(f"row {row} has a {kind} id that is none ({error}); give text or numbers") from None
    if name is None:
        raise EmbeddingError(f"row {row} has no {kind} id ({value!r}); give every row one")
    return name


def _safetensors(path: Path) -> Vectors:
    try:
        meta, held = read_safetensors(path)
    except ValueError as error:
        raise EmbeddingError(f"no readable embeddings ({error}); write the file again") from None
    if "vectors" in held:
        if "ids" not in meta:
            raise EmbeddingError("the metadata has no 'ids'; put a JSON list of question ids there")
        return _rows(_list(from_json(meta["ids"])), held["vectors"])
    if not {"questions", "question_ids"} <= held.keys():
        raise EmbeddingError(f"it holds {', '.join(sorted(held)) or 'nothing'}; give 'questions' and 'question_ids'")
    concept_ids = from_json(held["concept_ids"].tobytes()) if "concepts" in held else ()
    ids, provenance = from_json(held["question_ids"].tobytes()), from_json(meta.get("provenance", "{}"))
    return Vectors(ids, held["questions"], concept_ids, held.get("concepts"), provenance)


def _npz(path: Path) -> Vectors:
    try:
        held = read_npz(path)
    except ValueError as error:
        if "array of objects" not in str(error) or not is_zipfile(path):
            raise
        raise EmbeddingError(
            "it holds an array of objects, which is never read; "
            "save ids as np.array(ids, dtype=str), and vectors as one table of numbers"
        ) from None
    if not {"ids", "vectors"} <= held.keys():
        raise EmbeddingError(f"it holds {', '.join(held) or 'nothing'}; give arrays 'ids' and 'vectors'")
    ids, vectors = held["ids"], held["vectors"]
    if ids.ndim != 1 or vectors.ndim != 2:
        raise EmbeddingError(f"'ids' of shape {ids.shape} and 'vectors' of shape {vectors.shape}; give (n,) and (n, d)")
    return _rows(ids.tolist(), vectors)


def _unnamed(column: str) -> bool:
    """Whether it is what pandas writes of an index without a name."""
    return not column.strip() or column.startswith(("Unnamed:", "__index_level_"))


def _without_ids(columns: Sequence[str], named: str) -> EmbeddingError:
    """No column of ids; ``named`` is how pandas writes an index with a name."""
    shown = ", ".join(map(repr, columns[:8])) + (", …" if len(columns) > 8 else "")
    index = f"; if a frame's index has the ids, write it by {named}" if any(map(_unnamed, columns)) else ""
    return EmbeddingError(f"it has columns {shown}; name one 'question'{index}")


def _refuse_no_numbers(frame: pl.DataFrame, wrong: str) -> None:
    """EmbeddingError for a column without numbers, which says how the vectors are read."""
    import polars as pl

    kind, others = frame[wrong].dtype, [column for column in frame.columns if column != wrong]
    if isinstance(kind, pl.Struct):
        raise EmbeddingError(f"column {wrong!r} holds structs; write one list of numbers, or a column per dimension")
    if kind.is_nested():
        shown = ", ".join(map(repr, others[:4])) + (", …" if len(others) > 4 else "")
        raise EmbeddingError(
            f"column {wrong!r} holds lists, which are read where there is no other column; take out {shown}"
        )
    if not others:
        raise EmbeddingError(f"column {wrong!r} doesn't hold numbers; write lists of them, or a column per dimension")
    raise EmbeddingError(f"column {wrong!r} doesn't hold numbers; take it out")


def _refuse_index(name: str, columns: Sequence[str]) -> None:
    """EmbeddingError for a column that is an index or another id, and would become a dimension."""
    other = {*NAMED, "index", "level_0"} - {name}
    if extra := next((column for column in columns if column in other), None):
        raise EmbeddingError(f"column {extra!r} looks like an index or a second id next to {name!r}; take it out")


def _parquet(path: Path) -> Vectors:
    import polars as pl

    try:
        frame = read_parquet(path)
        for column in frame:
            refuse_far_times(column)
    except ValueError as error:
        raise EmbeddingError(f"no readable embeddings ({error}); write the file again") from None
    index = [column for column in frame.columns if column.startswith("__index_level_")]  # pandas' own
    named = [column for column in (*NAMED, *index) if column in frame.columns]
    if not named or (named[0] in index and frame[named[0]].dtype != pl.String):
        raise _without_ids(frame.columns, "frame.rename_axis('question')")
    name = named[0]
    rest = frame.drop(name, *(column for column in index if column != name))
    _refuse_index(name, rest.columns)
    if rest.width == 1 and isinstance(rest.dtypes[0], pl.List | pl.Array):
        return _rows(frame[name].to_list(), rest.to_series().to_list())
    if rest.width == 0:
        raise EmbeddingError(f"there is no column except {name!r}; give numbers")
    wrong = [column for column, kind in zip(rest.columns, rest.dtypes, strict=True) if not kind.is_numeric()]
    if wrong:
        _refuse_no_numbers(rest, wrong[0])
    ids = frame[name].to_list()
    del frame
    return _rows(ids, rest.to_numpy(order="c"))  # an empty cell becomes NaN


def _csv(path: Path) -> Vectors:
    """A heading, then an id and its numbers a row; the ids' column may stand anywhere."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            rows = [(lines.line_num, row) for row in lines if row]
        except csv.Error as error:
            raise EmbeddingError(f"row {lines.line_num}: no readable CSV ({error}); write the file again") from None
    if not rows:
        raise EmbeddingError("the file is empty; write the vectors again")
    heading = rows[0][1]
    at = next((heading.index(name) for name in NAMED if name in heading), None)
    if at is None:
        raise _without_ids(heading, "to_csv(path, index_label='question')")
    index = next(filter(_unnamed, heading), None)
    if index is not None:
        raise EmbeddingError(f"column {index!r} has no name, as a frame's index; write the file without (index=False)")
    if len(heading) == 1:
        raise EmbeddingError(f"there is no column except {heading[0]!r}; give numbers, with commas between")
    _refuse_index(heading[at], heading)
    ids, made = [], []
    for number, row in rows[1:]:
        if len(row) != len(heading):
            raise EmbeddingError(f"row {number} has {len(row)} cells, the heading {len(heading)}; give as many")
        ids.append(row.pop(at))
        try:
            made.append(np.array(row, dtype=np.float64))
        except ValueError:
            cell, column = next((c, name) for c, name in zip(row, _but(heading, at), strict=True) if not _is_number(c))
            raise EmbeddingError(f"row {number}, column {column!r}: {cell!r} is no number; write one") from None
    return _rows(restored(ids), made)


def _but(names: list[str], at: int) -> list[str]:
    return names[:at] + names[at + 1 :]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _pt(path: Path) -> Vectors:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how old a file is; what can't be read is an error
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise EmbeddingError(
            "it holds more than text, numbers and tensors, or isn't torch's; "
            "save {'ids': [text, …], 'vectors': tensor} with torch.save"
        ) from None
    except Exception as error:  # torch says that bytes make no sense by whatever they happen to run into
        raise EmbeddingError(
            f"no readable embeddings ({type(error).__name__}); "
            "save {'ids': [text, …], 'vectors': tensor} with torch.save"
        ) from None
    ids, table = (held.get("ids"), held.get("vectors")) if isinstance(held, dict) else (None, None)
    if not isinstance(ids, list) or not isinstance(table, torch.Tensor):
        found = ", ".join(map(str, list(held)[:8])) if isinstance(held, dict) else type(held).__name__
        raise EmbeddingError(
            f"it holds {found or 'nothing'}; save {{'ids': [text, …], 'vectors': tensor}} with torch.save"
        )
    if table.ndim != 2 or table.layout != torch.strided:
        raise EmbeddingError(f"'vectors' is a tensor of shape {tuple(table.shape)}, {table.layout}; give dense (n, d)")
    table = table.detach()
    small = table.is_floating_point() and table.dtype not in (torch.float32, torch.float64)  # numpy may not have it
    return _rows(ids, (table.float() if small else table).numpy())


def _json(path: Path) -> Vectors:
    # Pairs, because a dictionary would hide an id that occurs twice.
    found = from_json(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    if not isinstance(found, tuple):
        raise EmbeddingError("not an object; write {id: [number, …], …}")
    return _rows([name for name, _ in found], [row for _, row in found])


def _word2vec_text(path: Path) -> Vectors:
    """word2vec's text; GloVe's, which is the same without the heading; spaces or tabs between."""
    ids, rows = [], []
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
        n, dim = (None, len(first.split()) - 1) if _is_row(first) else _heading(first)
        if n is None:
            file.seek(0)
        for number, line in enumerate(file, start=1 if n is None else 2):
            if not line.strip():
                continue
            name, *numbers = line.rstrip().rsplit(None, dim)  # from the right: an id may have spaces in it
            if len(numbers) != dim:
                raise EmbeddingError(f"row {number} has {len(numbers)} numbers; the first says {dim}")
            try:
                rows.append(np.array(numbers, dtype=np.float64))
            except ValueError:
                raise EmbeddingError(
                    f"row {number} doesn't end in {dim} numbers; write a name and its numbers"
                ) from None
            ids.append(name)
    if n is not None and len(ids) != n:
        raise EmbeddingError(f"{len(ids)} vectors follow; the heading says {n}")
    return _rows(ids, rows)


def _is_row(line: str) -> bool:
    """Whether a first line is a vector already: a name and two numbers or more."""
    words = line.split()
    try:
        return len(words) > 2 and all(np.isfinite(float(word)) for word in words[1:])
    except ValueError:
        return False


def _word2vec_binary(path: Path) -> Vectors:
    # gensim reads this format too, but silently drops an id that occurs twice.
    data = path.read_bytes()
    if _is_text(data):  # some programs write the text under this ending
        return _word2vec_text(path)
    at = data.find(b"\n") + 1
    n, dim = _heading(data[:at].decode("utf-8"))
    if n * 4 * dim > len(data):
        raise EmbeddingError(
            f"{len(data):,} bytes can't hold the {n} vectors of {dim} dimensions it announces; write the file again"
        )
    ids, rows = [], np.empty((n, dim), dtype=np.float32)
    for i in range(n):
        space = data.find(b" ", at)
        end = space + 1 + 4 * dim
        if space < 0 or end > len(data):
            raise EmbeddingError(f"it ends inside vector {i + 1} of {n}; write the file again")
        ids.append(data[at:space].lstrip(b"\n").decode("utf-8"))
        rows[i] = np.frombuffer(data, "<f4", dim, space + 1)
        at = end
    if data[at:].strip():
        raise EmbeddingError(f"more follows after the {n} vectors that the heading announces; correct the heading")
    return _rows(ids, rows)


def _is_text(data: bytes) -> bool:
    """Whether the row after the heading is a name and as many numbers as the heading says, written in digits."""
    try:
        heading, row = data[: 1 << 20].decode("utf-8-sig", errors="ignore").split("\n")[:2]
        float(row.split()[-1])
        return len(row.split()) > int(heading.split()[1])
    except (ValueError, IndexError):
        return False


_DIGITS = 12  # of a number in a heading: no file holds more


def _heading(line: str) -> tuple[int, int]:
    words = line.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not words[1].strip("0"):
        raise EmbeddingError(
            f"its first line is {line.strip()[:40]!r}; word2vec's says how many vectors and dimensions"
        )
    if max(map(len, words)) > _DIGITS:
        raise EmbeddingError(
            f"its heading announces {words[0][:20]} vectors of {words[1][:30]} dimensions; correct the heading"
        )
    return int(words[0]), int(words[1])


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise EmbeddingError(f"'ids' holds {type(value).__name__}; give a JSON list of question ids")
    return value


def _write_safetensors(held: Vectors, path: Path) -> None:
    from safetensors.numpy import save_file

    def text(value: Any) -> NDArray[np.uint8]:
        return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)

    tensors: dict[str, NDArray] = {"questions": held.vectors, "question_ids": text(list(held.ids))}
    if held.concept_vectors is not None:
        tensors |= {"concepts": held.concept_vectors, "concept_ids": text(list(held.concept_ids))}
    # One key only: safetensors writes several in no fixed order, and the same vectors should be the same bytes.
    save_file(tensors, path, metadata={"provenance": json.dumps(dict(held.provenance), sort_keys=True)})


def _write_npz(held: Vectors, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, ids=np.array(list(held.ids), dtype=str), vectors=held.vectors)


def _write_parquet(held: Vectors, path: Path) -> None:
    import polars as pl

    refuse_forked()
    columns = {"question": list(held.ids), **{f"d{j}": held.vectors[:, j] for j in range(held.vectors.shape[1])}}
    pl.DataFrame(columns).write_parquet(path)


def _write_csv(held: Vectors, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["question", *(f"d{j}" for j in range(held.vectors.shape[1]))])
        rows = zip(map(str, held.ids), held.vectors, strict=True)
        lines.writerows([guarded(name), *map(str, row)] for name, row in rows)


def _write_pt(held: Vectors, path: Path) -> None:
    import torch

    # Into an open file: given a path, torch writes its name into the file, and the same vectors would be other bytes.
    with path.open("wb") as file:
        torch.save({"ids": list(map(str, held.ids)), "vectors": torch.tensor(held.vectors, device="cpu")}, file)


def _write_json(held: Vectors, path: Path) -> None:
    made = {name: [float(str(x)) for x in row] for name, row in zip(held.ids, held.vectors, strict=True)}
    path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")


def _write_word2vec_text(held: Vectors, path: Path) -> None:
    def row(name: str, numbers: NDArray) -> bytes:
        return f"{_word(name)} {' '.join(map(str, numbers.tolist()))}\n".encode()

    _write_word2vec(held, path, row)


def _write_word2vec_binary(held: Vectors, path: Path) -> None:
    _write_word2vec(held, path, lambda name, numbers: _word(name).encode() + b" " + numbers.astype("<f4").tobytes())


def _write_word2vec(held: Vectors, path: Path, row: Callable[[str, NDArray], bytes]) -> None:
    with path.open("wb") as file:
        file.write(f"{len(held.ids)} {held.vectors.shape[1]}\n".encode())
        file.writelines(row(name, numbers) for name, numbers in zip(held.ids, held.vectors, strict=True))


def _word(name: str) -> str:
    """A name that other readers of word2vec's formats read back."""
    if name.split() != [name]:
        raise EmbeddingError(
            f"{name!r} has white space in it, which word2vec's format can't hold; save .parquet or .npz"
        )
    return name


NAMED = ("question", "id")  # columns of ids, the first one that there is

READERS: dict[str, Callable[[Path], Vectors]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".parquet": _parquet,
    ".json": _json,
    ".csv": _csv,
    ".pt": _pt,
    ".txt": _word2vec_text,
    ".vec": _word2vec_text,
    ".bin": _word2vec_binary,
}
WRITERS: dict[str, Callable[[Vectors, Path], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".csv": _write_csv,
    ".pt": _write_pt,
    ".txt": _write_word2vec_text,
    ".vec": _write_word2vec_text,
    ".bin": _write_word2vec_binary,
}


# Why a known ending isn't read, and what to do instead.
REFUSED = {
    ".kv": "gensim's own file is a pickle, which could run code; in gensim write kv.save_word2vec_format('v.bin', "
    "binary=True), or take Embeddings.from_keyedvectors(kv)",
    ".pkl": "a pickle could run code; save .npz with arrays 'ids' and 'vectors'",
    ".pickle": "a pickle could run code; save .npz with arrays 'ids' and 'vectors'",
    ".npy": "it has no ids; give Embeddings(ids, np.load(path)), or save .npz with arrays 'ids' and 'vectors'",
}


def by_ending(path: Path, formats: Mapping[str, Any], done: str) -> Any:
    """The reader or writer for a path.

    Raises
    ------
    EmbeddingError : there is none for its ending.
    """
    kind = formats.get(path.suffix.lower())
    if kind is None and path.suffix.lower() in REFUSED and formats is READERS:
        raise EmbeddingError(f"{path}: {REFUSED[path.suffix.lower()]}")
    if kind is None:
        raise EmbeddingError(f"{path}: no vectors are {done} {path.suffix or 'no ending'!r}; give {', '.join(formats)}")
    return kind
