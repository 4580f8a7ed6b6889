"""Strict reading of files: bytes to text to values; anything wrong is a DataError with file and row."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qcq.errors import DataError
from qcq.support.parquet import parquet_columns

UTF16 = (b"\xff\xfe", b"\xfe\xff")
GZIP = b"\x1f\x8b"
EIGHT_BIT = "any-8-bit"  # stands for GB18030 or a Windows code page, whichever the bytes look like
OFFICE = ("utf-8", EIGHT_BIT)  # what spreadsheet programs write
csv.field_size_limit(2**31 - 1)  # a cell may hold the text of a question


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; those inside a gzip file.

    Raises
    ------
    DataError : it is missing, a folder, or can't be opened.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == GZIP else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"damaged gzip file ({error})", file=path, fix="get it again") from None
    except FileNotFoundError:
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name") from None
    except OSError as error:
        raise DataError(f"the file can't be read ({error.strerror})", file=path, fix="check its permissions") from None


def read_text(path: Path, encodings: tuple[str, ...] = ("utf-8",)) -> tuple[str, str]:
    """The text of a file, without a byte order mark, and its encoding: the first one that fits.

    Raises
    ------
    DataError : missing file, none of the encodings fits, or a NUL byte (which no text has).
    """
    data = read_bytes(path)
    if data[:2] in UTF16:
        try:
            return data.decode("utf-16"), "utf-16"
        except UnicodeDecodeError:
            raise DataError("damaged UTF-16", file=path, fix="save the file as UTF-8") from None
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError(
            "NUL byte in the file", file=path, row=row, value="\0", fix="it is damaged or binary; save as text"
        )
    failed: UnicodeDecodeError | None = None
    for name in encodings:
        encoding = _eight_bit(data) if name == EIGHT_BIT else name
        try:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        except UnicodeDecodeError as error:
            failed = failed or error
    assert failed is not None
    row = data.count(b"\n", 0, failed.start) + 1
    bad = data[failed.start : failed.start + 1]
    raise DataError("wrong encoding", file=path, row=row, value=bad, fix="save the file as UTF-8") from None


def _eight_bit(data: bytes) -> str:
    """GB18030 where bytes beyond ASCII come in pairs, as Chinese characters do; else the Windows code page 1252.

    A pair inside a word, as in "Größe", is two letters of that word.
    """
    runs = re.findall(rb"[\x80-\xff]+", data[: 1 << 20])
    if len(re.findall(rb"(?<=[A-Za-z])[\x80-\xff]{1,2}(?=[A-Za-z])", data[: 1 << 20])) == len(runs):
        return "cp1252"
    paired = sum(len(run) % 2 == 0 for run in runs)
    return "gb18030" if paired == len(runs) or (len(runs) > 20 and paired > 0.95 * len(runs)) else "cp1252"


def lone(text: str) -> bool:
    """Whether characters beyond ASCII are few, each alone, and one beside a letter, as two accents in a word are."""
    runs = re.findall(r"[^\x00-\x7f]+", text)
    beside = re.search(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]", text)
    return beside is not None and len(runs) <= 20 and max(map(len, runs)) == 1


def separator(line: str) -> str:
    """What is between the columns of a heading: a comma, a semicolon or a tab, whichever occurs most.

    Examples
    --------
    >>> separator("question,concepts"), separator("question;concepts"), separator("question")
    (',', ';', ',')
    """
    bare = re.sub(r'"[^"]*"', "", line)
    return max((",", ";", "\t"), key=bare.count)


def header(path: Path) -> list[str]:
    """The column names of a CSV or Parquet file; empty if there is no such file or no names in it. Never raises.

    Reads the first line only: recognising a format must not read the whole file.
    """
    if path.suffix.lower() == ".parquet":
        try:
            return [name.strip().lower() for name in parquet_columns(path)]
        except (OSError, ValueError):
            return []
    try:
        with path.open("rb") as file:
            start = file.read(2)
        with gzip.open(path) if start == GZIP else path.open("rb") as file:
            line = file.readline(1 << 16)
            if line[:2] in UTF16:
                line += b"\0" if len(line) % 2 else b""  # the second half of a line feed
                text = (line.decode("utf-16", errors="replace").splitlines() or [""])[0]
            else:
                text = line.decode("utf-8-sig", errors="replace")
            if text[:4].lower() == "sep=":  # written by spreadsheet programs for themselves
                text = file.readline(1 << 16).decode("utf-8", errors="replace")
        return [name.strip().lower() for name in next(csv.reader([text], delimiter=separator(text)), [])]
    except (OSError, EOFError, ValueError, csv.Error, zlib.error):
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
        raise DataError(
            f"not valid JSON ({error.msg})", file=path, row=error.lineno, fix="get the file again from its source"
        ) from None
    except RecursionError:
        raise DataError(
            "not valid JSON (nested too deeply)", file=path, fix="get the file again from its source"
        ) from None
    except ValueError as error:  # a whole number of more digits than Python reads
        raise DataError(f"not valid JSON ({error})", file=path, fix="get the file again from its source") from None
    _refuse_half_characters(made, text, path)
    if not isinstance(made, dict):
        raise DataError("not a JSON object", file=path, row=1, value=text[:40], fix='it should look like {"id": index}')
    return made


def _refuse_half_characters(made: Any, text: str, file: Path, row: int | None = None) -> None:
    """Escapes like ``\\ud800`` can name half a character, which no file can be written with."""
    half = re.search(r"\\u[dD][89a-fA-F]", text)
    if half is None:
        return
    try:
        json.dumps(made, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        fix = "get the file again from its source"
        raise DataError("half a character", file=file, row=row, value=half[0], fix=fix) from None


def by_index(found: dict[str, Any], file: Path, column: str | None = None) -> tuple[str, ...]:
    """The identifiers of an identifier → index map, in index order.

    Raises
    ------
    DataError : the map is empty, or its indices aren't 0, 1, 2 …, each once.
    """
    if not found:
        raise DataError("the map is empty", file=file, column=column, fix='it should look like {"id": index}')
    made: list[str | None] = [None] * len(found)
    for name, index in found.items():
        if type(index) is not int or not 0 <= index < len(found) or made[index] is not None:
            what = f"the indices are not 0 to {len(found) - 1}, each once"
            raise DataError(what, file=file, column=name, value=index, fix="get the file again from its source")
        made[index] = name
    return tuple(name for name in made if name is not None)


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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the style of what is no code
                made = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise DataError(
                "not a Python literal", file=file, row=row, value=text[:80], fix="get the file again from its source"
            ) from None
    _refuse_half_characters(made, text, file, row)
    if not isinstance(made, kind):
        raise DataError(
            f"not a {kind.__name__}", file=file, row=row, value=text[:80], fix="get the file again from its source"
        )
    return made


def records(text: str, file: Path, between: str = ",", first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV text and the row on which each begins; blank lines at the end aren't records.

    ``between`` separates the columns; ``first`` is the row of the file on which the text begins.

    Raises
    ------
    DataError : a quote that is never closed, or text after a closing one.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=between)
    row = first
    blank: list[int] = []
    try:
        for fields in reader:
            if any(fields):  # a record of empty cells, as spreadsheets leave below a table, is a blank line
                yield from ((at, []) for at in blank)
                blank = []
                yield row, fields
            else:
                blank.append(row)
            row = reader.line_num + first
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", file=file, row=row, fix="check the quotes of this row") from None
