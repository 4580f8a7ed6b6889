"""Strict reading of files: bytes to text to values; anything wrong is a DataError with file and row."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qcq.errors import DataError

BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises
    ------
    DataError : it is missing, a folder, or can't be opened.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name") from None
    except OSError as error:
        raise DataError(f"the file can't be read ({error.strerror})", file=path) from None


def read_text(path: Path, encodings: tuple[str, ...] = ("utf-8",)) -> tuple[str, str]:
    """The text of a file, without a byte order mark, and its encoding: the first one that fits.

    Raises
    ------
    DataError : missing file, none of the encodings fits, or a NUL byte (which no text has).
    """
    data = read_bytes(path)
    if data[:2] in BOMS:
        raise DataError("wrong encoding", file=path, row=1, value=BOMS[data[:2]], fix="save the file as UTF-8")
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError(
            "NUL byte in the file", file=path, row=row, value="\0", fix="it is damaged or binary; save as text"
        )
    failed: UnicodeDecodeError | None = None
    for encoding in encodings:
        try:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        except UnicodeDecodeError as error:
            failed = failed or error
    assert failed is not None
    row = data.count(b"\n", 0, failed.start) + 1
    bad = data[failed.start : failed.start + 1]
    raise DataError("wrong encoding", file=path, row=row, value=bad, fix="save the file as UTF-8") from None


def header(path: Path) -> list[str]:
    """The column names of a CSV file; empty if there is no such file or no names in it. Never raises.

    Reads the first line only: recognising a format must not read the whole file.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16).decode("utf-8-sig")
        return next(csv.reader([line]), [])
    except (OSError, ValueError, csv.Error):
        return []


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file with one object.

    Raises
    ------
    DataError : not JSON, or not an object.
    """
    text, _ = read_text(path)
    try:
        made = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error.msg})", file=path, row=error.lineno) from None
    except RecursionError:
        raise DataError("not valid JSON (nested too deeply)", file=path) from None
    if not isinstance(made, dict):
        raise DataError("not a JSON object", file=path, row=1, value=text[:40], fix='it should look like {"id": index}')
    return made


def literal(text: str, kind: type, *, file: Path, row: int) -> Any:
    """The value of a Python literal of numbers, strings, lists and dicts, read without running it.

    Where the text is JSON as well (a list of numbers) the much faster JSON parser reads it.

    Raises
    ------
    DataError : not a literal, or not of the ``kind`` asked for.
    """
    try:
        made = json.loads(text)
    except (ValueError, RecursionError):
        try:
            made = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise DataError("not a Python literal", file=file, row=row, value=text[:80]) from None
    if not isinstance(made, kind):
        raise DataError(f"not a {kind.__name__}", file=file, row=row, value=text[:80])
    return made


def records(text: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV text and the row on which each begins; blank lines at the end aren't records.

    Raises
    ------
    DataError : a quote that is never closed, or text after a closing one.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    row = 1
    blank: list[int] = []
    try:
        for fields in reader:
            if fields:
                yield from ((at, []) for at in blank)
                blank = []
                yield row, fields
            else:
                blank.append(row)
            row = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", file=file, row=row, fix="check the quotes of this row") from None
