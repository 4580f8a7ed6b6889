"""The first sheet of an .xlsx workbook as CSV text, for a reader of CSV files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from qcq.data.text import named
from qcq.errors import DataError


def sheet(path: Path) -> str:
    """The cells of the first sheet, rows at the end without any cell left out.

    Raises
    ------
    DataError : no such file, no workbook, or openpyxl isn't installed.
    """
    book = _opened(path)
    out, ends = io.StringIO(), 0
    writer = csv.writer(out, lineterminator="\n")
    rows = book.worksheets[0].iter_rows(values_only=True)
    width = 0
    for row in rows:
        cells = [_text(cell) for cell in row]
        width = width or max((i for i, cell in enumerate(cells, start=1) if cell), default=0)
        writer.writerow(cells[:width] + [cell for cell in cells[width:] if cell])
        if any(cells):
            ends = out.tell()
    book.close()
    return out.getvalue()[:ends]


def first_row(path: Path) -> list[str]:
    """The heading of the first sheet, lower-cased."""
    book = _opened(path)
    row: tuple[Any, ...] = next(iter(book.worksheets[0].iter_rows(values_only=True)), ())
    book.close()
    return [_text(cell).strip().lower() for cell in row]


def sheets(path: Path) -> tuple[str, ...]:
    """The names of the sheets; :func:`sheet` reads the first one."""
    book = _opened(path)
    names = tuple(book.sheetnames)
    book.close()
    return names


def _opened(path: Path) -> Any:
    try:
        import openpyxl
    except ImportError:
        fix = "install it with: pip install 'qcq[excel]', or save the sheet as CSV"
        raise DataError("reading .xlsx needs openpyxl", file=path, fix=fix) from None
    try:
        return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except FileNotFoundError:
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name") from None
    except Exception as error:  # openpyxl lets errors of zipfile, XML and its own through
        raise DataError(f"no readable workbook ({type(error).__name__})", file=path, fix="save it anew") from None


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    return named(cell) or ""
