"""Arrays in numpy's files. No code in them is run, and whatever can't be read is one ValueError of one line."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def read_npz(path: Path) -> dict[str, NDArray]:
    """The arrays of an ``.npz`` file, by name.

    Raises
    ------
    ValueError : not such a file, damaged, or an array of objects; the text says why.
    OSError : no such file, or one that may not be read.
    """

    def read() -> dict[str, NDArray]:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise TypeError("one array, not an archive of several")
        with opened as held:
            made = {name: held[name] for name in held.files}
        for name, array in made.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name!r} is no array")
            _refuse_others(array)
        return made

    return _careful(read)


def read_npy(path: Path, *, mapped: bool = False) -> NDArray:
    """The array of an ``.npy`` file, on demand from disk if ``mapped``. The same errors as :func:`read_npz`."""

    def read() -> NDArray:
        made = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(made, np.ndarray):
            raise TypeError("an archive, not one array")
        _refuse_others(made)
        return made

    return _careful(read)


def read_sparse(path: Path) -> Any:
    """The matrix that ``scipy.sparse.save_npz`` wrote, in whatever form. The same errors as :func:`read_npz`.

    Its indices are checked: scipy's compiled code writes wherever they point. scipy itself doesn't look at the row
    pointers where the last one is zero.
    """

    def read() -> Any:
        import scipy.sparse

        made = scipy.sparse.load_npz(path)
        refuse_bad_indices(made)
        return made

    return _careful(read)


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, NDArray]]:
    """The metadata and the arrays of a ``.safetensors`` file; types that numpy doesn't have become float32.

    The same errors as :func:`read_npz`.
    """
    from safetensors import safe_open

    def read() -> tuple[dict[str, str], dict[str, NDArray]]:
        with safe_open(str(path), framework="numpy") as file:
            said = file.metadata() or {}
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  (not a dict)
            small = {key for key, kind in kinds.items() if kind.startswith(("BF", "F8"))}
            held = {key: file.get_tensor(key) for key in kinds if key not in small}
        if small:
            with safe_open(str(path), framework="pt") as file:
                held |= {key: file.get_tensor(key).float().numpy() for key in small}
        return said, held

    return _careful(read)


def refuse_bad_indices(matrix: Any) -> None:
    """ValueError where a sparse matrix has indices that point nowhere, or row pointers that decrease."""
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    pointers = getattr(matrix, "indptr", np.zeros(1))
    if (pointers[1:] < pointers[:-1]).any():
        raise ValueError("row pointers that decrease")


def _refuse_others(array: NDArray) -> None:
    """TypeError for records, with which nothing is compared, and for text of bytes that are no characters.

    Numpy takes any four bytes for a character; Python and polars break on those that are none.
    """
    if array.dtype.kind == "V":
        raise TypeError("an array of records; give text or numbers")
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).view(np.uint32 if array.dtype.isnative else array.dtype.byteorder + "u4")
        if (codes > 0x10FFFF).any() or ((codes >= 0xD800) & (codes <= 0xDFFF)).any():
            raise TypeError("text that is no Unicode")


def _careful(read: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how a header is written; what can't be read is an error
            return read()
    except OSError:
        raise
    except Exception as error:  # numpy says that bytes make no sense by whatever they happen to run into
        if "allow_pickle" in str(error):  # numpy's way out is pickle, never ours
            raise ValueError("an array of objects, or no array; give text or numbers") from None
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def digest(said: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str:
    """SHA-256 of arrays by name and of what a file says of them, but for a ``digest`` among that."""
    h = hashlib.sha256(json.dumps({k: v for k, v in said.items() if k != "digest"}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        h.update(f"{name} {array.dtype.str} {array.shape}".encode())
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()
