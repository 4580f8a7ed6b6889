"""The first sheet of an .xlsx workbook as CSV text, for a reader of CSV files."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qcq.errors import DataError
from qcq.support.names import named

ROWS = 2**20  # that a sheet has at most (Microsoft, "Excel specifications and limits")
PART = 2**20  # bytes of a sheet that are searched at once; a cell has far fewer

_P = rb"(?:\w+:)?"  # a namespace
_EMPTY = rb"(?:<" + _P + rb"v\s*/>|<" + _P + rb"v></" + _P + rb"v>)?"
_FORMULA = re.compile(
    rb"<"
    + _P
    + rb"c\s([^<>]*)><"
    + _P
    + rb"f(?:\s[^<>]*)?(?:/>|>[^<]*</"
    + _P
    + rb"f>)"
    + _EMPTY
    + rb"</"
    + _P
    + rb"c>"
)
_TEXT, _AT = re.compile(rb't="str"'), re.compile(rb'r="([A-Z]{1,3})(\d{1,7})"')
_MERGED = re.compile(rb"<" + _P + rb'mergeCell\s[^<>]*ref="([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})"')


@dataclass(frozen=True)
class Sheet:
    """The first sheet of a workbook.

    Attributes
    ----------
    text : its cells as CSV, rows at the end without any cell left out.
    sheets : the names of all sheets of the workbook, this one first.
    filled : cells that got the value of the merged cell they belong to, as ``B3``.
    """

    text: str
    sheets: tuple[str, ...]
    filled: tuple[str, ...]


def sheet(path: Path) -> Sheet:
    """The first sheet. Where cells below each other are merged, the file has a value for the upper one; all get it.

    Raises
    ------
    DataError : no such file, no workbook, a damaged one, a formula without its value, or openpyxl isn't installed.
    """
    out, ends, width = io.StringIO(), 0, 0
    writer = csv.writer(out, lineterminator="\n")
    with _opened(path) as book:
        merged, filled = _merged(book.worksheets[0], path), []
        under: dict[int, tuple[int, str]] = {}  # column → the last row of a merged cell that has begun, its value
        for at, row in enumerate(_rows(book), start=1):
            if at > ROWS:
                raise ValueError(f"more than {ROWS:,} rows")
            cells = [_text(cell) for cell in row]
            under = {column: (last, value) for column, (last, value) in under.items() if at <= last}
            if any(cells):
                for column, (_, value) in under.items():
                    cells += [""] * (column - len(cells))
                    if not cells[column - 1]:
                        cells[column - 1] = value
                        filled.append(_place(at, column))
            under |= {column: (last, cells[column - 1]) for column, last in merged.get(at, ()) if column <= len(cells)}
            width = width or max((i for i, cell in enumerate(cells, start=1) if cell), default=0)
            cells += [""] * (width - len(cells))
            writer.writerow(cells[:width] + [cell for cell in cells[width:] if cell])
            if any(cells):
                ends = out.tell()
        return Sheet(out.getvalue()[:ends], tuple(book.sheetnames), tuple(filled))


def first_row(path: Path) -> list[str]:
    """The heading of the first sheet, lower-cased. The same errors as :func:`sheet`."""
    with _opened(path) as book:
        return [_text(cell).strip().lower() for cell in next(_rows(book), ())]


def _rows(book: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of the first sheet, each as long as it is."""
    first = book.worksheets[0]
    first.reset_dimensions()  # some programs write a smaller size into the file, and openpyxl would leave out the rest
    return iter(first.iter_rows(values_only=True))


def _merged(first: Any, path: Path) -> dict[int, list[tuple[int, int]]]:
    """Row → column and last row of each merged cell that begins there, below the heading.

    openpyxl says nothing of them while it reads row by row, nor of formulas without a value; so the file is looked at.
    """
    from openpyxl.utils import range_boundaries

    found: dict[int, list[tuple[int, int]]] = {}
    for part in _parts(first._get_source()):
        for formula in _FORMULA.finditer(part):
            if not _TEXT.search(formula[1]):  # of a text, no value is an empty one
                at = _AT.search(formula[1])
                row, column = (int(at[2]), at[1].decode()) if at else (None, None)
                what, fix = "a formula without its value", "open the file in a spreadsheet program and save it"
                raise DataError(what, file=path, row=row, column=column, fix=fix)
        for area in _MERGED.finditer(part):
            left, top, _, last = range_boundaries(area[1].decode())
            if 1 < top < last:
                found.setdefault(top, []).append((left, last))
    return found


def _parts(source: IO[bytes]) -> Iterator[bytes]:
    """A file part by part, each with the end of the one before, so that nothing is cut in every part."""
    with source:
        kept = b""
        while more := source.read(PART):
            yield kept + more
            kept = (kept + more)[-PART // 8 :]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import openpyxl
    except ImportError:
        fix = "install it with: pip install 'qcq[excel]', or save the sheet as CSV"
        raise DataError("reading .xlsx needs openpyxl", file=path, fix=fix) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and headers
            with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
                if not book.worksheets:
                    raise ValueError("there is no sheet in it")
                yield book
    except FileNotFoundError:
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name") from None
    except OSError as error:
        raise DataError(f"the file can't be read ({error.strerror})", file=path, fix="check its permissions") from None
    except (DataError, MemoryError):
        raise
    except Exception as error:  # openpyxl lets errors of zipfile, XML and its own through, while it reads rows too
        said = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise DataError(f"no readable workbook ({said})", file=path, fix="save it anew") from None


def _place(row: int, column: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    return named(cell) or ""
