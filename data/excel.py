"""The first sheet of an .xlsx workbook as CSV text, for a reader of CSV files."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from qcq.data.text import named
from qcq.errors import DataError

ROWS = 2**20  # that a sheet has at most (Microsoft, "Excel specifications and limits")


def sheet(path: Path) -> str:
    """The cells of the first sheet, rows at the end without any cell left out.

    Raises
    ------
    DataError : no such file, no workbook, a damaged one, or openpyxl isn't installed.
    """
    out, ends, width = io.StringIO(), 0, 0
    writer = csv.writer(out, lineterminator="\n")
    with _opened(path) as book:
        for at, row in enumerate(_rows(book), start=1):
            if at > ROWS:
                raise ValueError(f"more than {ROWS:,} rows")
            cells = [_text(cell) for cell in row]
            width = width or max((i for i, cell in enumerate(cells, start=1) if cell), default=0)
            cells += [""] * (width - len(cells))
            writer.writerow(cells[:width] + [cell for cell in cells[width:] if cell])
            if any(cells):
                ends = out.tell()
    return out.getvalue()[:ends]


def first_row(path: Path) -> list[str]:
    """The heading of the first sheet, lower-cased. The same errors as :func:`sheet`."""
    with _opened(path) as book:
        return [_text(cell).strip().lower() for cell in next(_rows(book), ())]


def sheets(path: Path) -> tuple[str, ...]:
    """The names of the sheets; :func:`sheet` reads the first one. The same errors as :func:`sheet`."""
    with _opened(path) as book:
        return tuple(book.sheetnames)


def _rows(book: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of the first sheet, each as long as it is."""
    first = book.worksheets[0]
    first.reset_dimensions()  # some programs write a smaller size into the file, and openpyxl would leave out the rest
    return iter(first.iter_rows(values_only=True))


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
    except MemoryError:
        raise
    except Exception as error:  # openpyxl lets errors of zipfile, XML and its own through, while it reads rows too
        said = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise DataError(f"no readable workbook ({said})", file=path, fix="save it anew") from None


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    return named(cell) or ""
