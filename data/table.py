"""A table of text cells that knows the file and row of each cell."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcq.data.checks import meant, refuse_names, second_heading, unread
from qcq.data.excel import others, sheet
from qcq.data.text import read_text, records, separator
from qcq.errors import DataError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class RawTable:
    """Cells as text (blank ones null), a source to name in errors, and the rows of the file they are on.

    Each check is made for all rows at once; the row of the file is worked out for an error only.

    Attributes
    ----------
    source : the file, or the name of a frame in an error.
    frame : polars frame of strings (a column of a frame given by hand may hold lists of strings).
    text : the file's text, from which the row of a record is found; None for a frame, whose rows count from 0.
    encoding : the encoding the file was read in.
    between, first : what separates its columns, and the row on which its heading is.
    unread, absent : its columns that weren't read, and the columns looked for that it lacks.
    sheets : the sheets of its workbook that weren't read.
    """

    source: Path | str
    frame: pl.DataFrame
    text: str | None = None
    encoding: str = "utf-8"
    between: str = ","
    first: int = 1
    unread: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def _rows(self) -> list[int]:
        assert self.text is not None
        assert isinstance(self.source, Path)
        return [row for row, _ in records(self.text, self.source, self.between, self.first)][
            1:
        ]  # the header is a record too

    def error(self, what: str, *, at: int | None = None, column: str | None = None, **more: Any) -> DataError:
        """A DataError for record ``at`` (counted from 0 without the header)."""
        row = at if at is None or self.text is None else self._rows[at]
        return DataError(what, file=self.source, row=row, column=column, **more)

    def reject(self, bad: pl.Series, what: str, column: str, fix: str | None = None) -> None:
        """Raise for the first record where ``bad`` is true, if there is one: its cell, and how many more there are."""
        bad = bad.fill_null(False)
        at = bad.arg_max()
        if at is None or not bad[at]:
            return
        cells = self.frame[column].filter(bad)
        if len(cells) > 1:
            shown = ", ".join(repr(cell if cell is not None else "") for cell in cells.unique(maintain_order=True)[:4])
            what = f"{what} (in {len(cells):,} rows: {shown})"
        raise self.error(what, at=at, column=column, value=cells[0] if cells[0] is not None else "", fix=fix)

    def notes(self) -> list[str]:
        """How the file was read, and what of it was not read."""
        if self.text is None:
            return unread(self.source, "column", self.unread, self.absent)
        assert isinstance(self.source, Path)
        said = []
        if self.encoding != "utf-8":
            beyond = re.search(r"\w*[^\x00-\x7f]+\w*", self.text)
            example = f", for example {beyond[0][:20]!r}" if beyond else ""
            said.append(f"{self.source.name}: read as {self.encoding}{example}")
        if self.between != ",":
            said.append(f"{self.source.name}: columns separated by {self.between!r}")
        return [
            *said,
            *unread(self.source, "column", self.unread, self.absent),
            *unread(self.source, "sheet", self.sheets, ()),
        ]

    def blank(self, column: str) -> pl.Series:
        """Where cells are empty or only space."""
        cells = self.frame[column]
        return cells.is_null() | (cells.str.strip_chars() == "").fill_null(False)

    def identifiers(self, column: str, cells: pl.Series | None = None, rows: pl.Series | None = None) -> pl.Series:
        """The cells of a column of names.

        Parameters
        ----------
        cells, rows : parts of the cells, where a cell has several names, and the record of each part.

        Raises
        ------
        DataError : a blank name, space around one, an invisible character in it, or a word for an empty cell.
        """
        cells = self.frame[column] if cells is None else cells
        refuse_names(self, column, cells, cells.unique(), rows)
        return cells

    def distinct(self, column: str) -> pl.Series:
        """The distinct cells of a column of names, in order of appearance; errors as in :meth:`identifiers`."""
        names = self.frame[column].unique(maintain_order=True)
        refuse_names(self, column, self.frame[column], names)
        return names

    def binary(self, column: str) -> NDArray[np.int8]:
        """The cells of a column of responses as int8, 0 or 1.

        Raises
        ------
        DataError : a cell that is anything else, NaN and blank included.
        """
        import polars as pl

        cells = self.frame[column].str.strip_chars()
        cells = cells.str.replace("(?i)^true$", "1").str.replace("(?i)^false$", "0")  # as spreadsheets write them
        number = cells.cast(pl.Float64, strict=False)
        wrong = ~number.is_in([0.0, 1.0]).fill_null(False)
        self.reject(wrong, "response is neither 0 nor 1", column, "write 1 for a right answer and 0 for a wrong one")
        return number.cast(pl.Int8).to_numpy()

    def seconds(self, column: str) -> NDArray[np.float64]:
        """The cells of a column of times as float64 seconds: numbers, or dates and times as ISO 8601 writes them.

        Raises
        ------
        DataError : a cell that is neither.
        """
        import polars as pl

        cells = self.frame[column].str.strip_chars()
        number = cells.cast(pl.Float64, strict=False)
        wrong = ~number.is_finite().fill_null(False)
        if wrong.any():
            first = self.day_first(column)
            if first is not None:
                cells = cells.str.replace(_DATE, "${year}-${b}-${a}" if first else "${year}-${a}-${b}")
            elif (slashed := cells.str.contains(_DATE)).any():
                fix = "write year-month-day, as 2024-03-01T10:05:00"
                self.reject(slashed, "a date whose day and month can't be told apart", column, fix)
            try:
                moment = cells.str.to_datetime(strict=False, time_unit="us")
            except pl.exceptions.PolarsError:  # no cell shows the format
                moment = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(cells))
            if moment.null_count() < wrong.sum():  # most are dates: the others are the wrong ones
                self.reject(moment.is_null(), "not a time", column, "write it as the other rows do, in ISO 8601")
                return (moment.dt.epoch("us") / 1e6).to_numpy()
        self.reject(wrong, "not a time", column, "give seconds as a number, or ISO 8601 in every row")
        return number.to_numpy()

    def day_first(self, column: str) -> bool | None:
        """Whether dates such as 13/03/2024 begin with the day; None where there are none, or both orders fit."""
        import polars as pl

        pairs = self.frame[column].str.strip_chars().str.extract_groups(_DATE).struct.unnest()
        a, b = pairs["a"].cast(pl.Int64).max(), pairs["b"].cast(pl.Int64).max()
        if a is None or b is None or (a > 12) == (b > 12):  # type: ignore[operator]
            return None
        return bool(a > 12)  # type: ignore[operator]

    def shares(self, column: str) -> NDArray[np.float64]:
        """The cells of a column of scores as float64 from 0 to 1.

        Raises
        ------
        DataError : a cell that is anything else, NaN and blank included.
        """
        import polars as pl

        number = self.frame[column].str.strip_chars().cast(pl.Float64, strict=False)
        wrong = ~number.is_between(0.0, 1.0).fill_null(False)
        self.reject(wrong, "no score from 0 to 1", column, "give the share of the full marks")
        return number.to_numpy()

    def whole(self, column: str) -> pl.Series:
        """The cells of a column of numbers used as names, without the ``.0`` that frames with gaps give them."""
        return self.frame[column].str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")

    def integer_lists(self, column: str) -> list[list[int]]:
        """The cells of a column of lists in the form ``[1, 2]``.

        Raises
        ------
        DataError : a cell that is no list of whole numbers.
        """
        made = []
        for at, cell in enumerate(self.frame[column]):
            try:
                value = json.loads(cell or "")
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, list) or not all(type(entry) is int for entry in value):
                raise self.error(
                    "not a list of whole numbers", at=at, column=column, value=cell or "", fix="write [1, 2]"
                )
            made.append(value)
        return made

    @classmethod
    def read(
        cls,
        path: Path,
        required: Sequence[str],
        optional: Sequence[str] = (),
        encodings: tuple[str, ...] = ("utf-8",),
    ) -> RawTable:
        """The required columns of a CSV or parquet file or the first sheet of a workbook, and the optional ones it has.

        Columns are separated by commas, semicolons or tabs, whichever the heading has most; their names are compared
        without case and space.

        Raises
        ------
        DataError : missing file or column, wrong encoding, NUL byte, ragged row, broken quotes, no rows.
        """
        if path.suffix.lower() == ".parquet":
            from qcq.data import parquet  # it makes tables by this module

            return parquet.table(path, required, optional)
        if path.suffix.lower() == ".xlsx":
            made = cls.parse(path, sheet(path), "utf-8", required, optional)
            return replace(made, sheets=tuple(others(path)))
        return cls.parse(path, *read_text(path, encodings), required, optional)

    @classmethod
    def parse(
        cls, path: Path, text: str, encoding: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> RawTable:
        """:meth:`read` for a text that is known already."""
        import polars as pl

        row = 1
        if text[:4].lower() == "sep=":  # a line that spreadsheet programs write for themselves
            text, row = text.partition("\n")[2], 2
        between = separator(text.partition("\n")[0])
        first = next(records(text, path, between, row), None)
        if first is None or not first[1]:
            what = "no header in the first row" if text.strip() else "the file is empty"
            raise DataError(what, file=path, fix=f"it needs the columns {', '.join(required)}")
        names = _headings(first[1], (*required, *optional))
        for name in required:
            if name not in names:
                near = next((each for each in names if meant(each, [name]) == name), None)
                fix = f"rename {near!r} to {name!r}" if near else f"the columns are {', '.join(names[:12])}"
                raise DataError("missing column", file=path, row=first[0], column=name, fix=fix)
        wanted = [name for name in (*required, *optional) if name in names]
        for name in wanted:
            if names.count(name) > 1:
                raise DataError("a column occurs twice", file=path, row=first[0], column=name, fix="keep one of them")
        # Polars is fast but accepts short rows; so anything suspicious is checked again, record by record.
        columns = [f"{i}" for i in range(len(names))]
        data = _without_tail(text, between).encode()
        try:
            frame = pl.read_csv(data, infer_schema=False, has_header=True, new_columns=columns, separator=between)
            short = frame[columns[-1]].null_count() > 0 and not _rectangular(data, between, frame.shape)
            odd = frame.width != len(names) or short
        except pl.exceptions.PolarsError:
            odd = True
        del data
        if odd:
            rows: list[list[str]] = []
            for at, fields in records(text, path, between, row):
                if len(fields) != len(names):
                    what = (
                        f"ragged row: {len(fields)} fields where the header has {len(names)}"
                        if fields
                        else "blank line"
                    )
                    value = between.join(fields) if fields else None
                    fix = "fill the row up, or take it out"
                    if len(fields) > len(names):
                        fix = f"quote fields that hold {between!r}"
                    raise DataError(what, file=path, row=at, value=value, fix=fix)
                rows.append(fields)
            frame = pl.DataFrame(rows[1:], schema=dict.fromkeys(columns, pl.String), orient="row")
        frame = frame.select(pl.col(columns[names.index(name)]).alias(name) for name in wanted)
        if frame.height == 0:
            raise DataError("no rows under the header", file=path, fix="give at least one")
        left = tuple(name for name in names if name and name not in wanted)
        absent = tuple(name for name in optional if name not in names)
        made = cls(path, frame, text, encoding, between, row, left, absent)
        second_heading(made)
        return made


_DATE = r"^(?P<a>\d{1,2})[/.-](?P<b>\d{1,2})[/.-](?P<year>\d{4})"


def _without_tail(text: str, between: str) -> str:
    """A text without the rows of empty cells that spreadsheets leave below a table; they would need the slow way."""
    end = len(text.rstrip("\r\n" + between))
    at = min((i for i in (text.find("\n", end), text.find("\r", end)) if i >= 0), default=len(text))
    return text[:at]


def _rectangular(data: bytes, between: str, shape: tuple[int, int]) -> bool:
    """Whether a CSV text surely has ``shape`` rows × columns and no blank row: counted outside of quotes.

    False means that it isn't certain.
    """
    text = np.frombuffer(data.rstrip(b"\r\n") + b"\n", dtype=np.uint8)
    ends, parts = text == 10, text == ord(between)
    quotes = text == 34
    if quotes.any():
        outside = ~np.logical_xor.accumulate(quotes)
        ends &= outside
        parts &= outside
    at = np.flatnonzero(ends)
    counts = np.diff(np.searchsorted(np.flatnonzero(parts), at), prepend=0)
    filled = np.diff(at, prepend=-1) - 1 - counts - (text[at - 1] == 13)
    return len(at) == shape[0] + 1 and bool((counts == shape[1] - 1).all()) and bool((filled > 0).all())


def _headings(names: list[str], known: Sequence[str]) -> list[str]:
    """Headings as they are called here: one that differs in case or space only is taken for the known one."""
    plain = [name.strip().lower() for name in names]
    exact = set(names)
    return [
        low if low in known and low not in exact and plain.count(low) == 1 else name
        for name, low in zip(names, plain, strict=True)
    ]


def codes(cells: pl.Series, names: pl.Series) -> pl.Series:
    """The index of each cell in ``names`` (which are distinct), null where it isn't in them."""
    import polars as pl

    return cells.cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int64)
