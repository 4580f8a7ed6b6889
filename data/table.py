"""A table of text cells that knows the file and row of each cell."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qcq.data.checks import CONCEPTS, bare, doubt, meant, refuse_names, second_heading, unread
from qcq.data.excel import sheet
from qcq.data.text import lone, read_text, records, separator
from qcq.errors import DataError
from qcq.support.forked import refuse_forked
from qcq.support.names import exact, named
from qcq.support.parquet import parquet_columns, read_parquet
from qcq.support.times import refuse_far_times
from qcq.support.words import several

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


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
    called : its headings that were read under the name of a column (heading, column).
    changed : what was done to cells, one line for each kind of it and each column.
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
    called: tuple[tuple[str, str], ...] = ()
    changed: tuple[str, ...] = ()

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
        name = Path(self.source).name
        names = [f"{name}: column {heading!r} read as {column}" for heading, column in self.called]
        names += self.changed
        if self.text is None:
            return [*names, *unread(self.source, "column", self.unread, self.absent)]
        assert isinstance(self.source, Path)
        said = []
        if self.encoding != "utf-8":
            beyond = re.search(r"\w*[^\x00-\x7f]+\w*", self.text)
            example = f", for example {beyond[0][:20]!r}" if beyond else ""
            said.append(f"{self.source.name}: read as {self.encoding}{example}")
            if self.encoding == "gb18030" and lone(self.text[: 1 << 20]):
                what = f"Chinese characters, each alone, may be letters of Windows' code page 1252{example}"
                said.append(doubt(what, file=self.source, fix="save the file as UTF-8"))
        if self.between != ",":
            said.append(f"{self.source.name}: columns separated by {self.between!r}")
        return [
            *said,
            *names,
            *unread(self.source, "column", self.unread, self.absent),
            *unread(self.source, "sheet", self.sheets, ()),
        ]

    def without_space(self, columns: Sequence[str]) -> RawTable:
        """The table without space at the ends of the cells of these columns, where it has them; its notes count it."""
        import polars as pl

        frame, said = self.frame, []
        for column in (name for name in columns if name in frame.columns):
            cells = frame[column]
            listed = cells.dtype == pl.List
            cell = pl.element() if listed else pl.col(column)
            split = column == CONCEPTS and not listed
            if split:  # a blank beside a separator belongs to it, and is no news
                cell = cell.str.replace_all(" *; *", ";")
            stripped = (cell.str.replace_all(r"\s*;\s*", ";") if split else cell).str.strip_chars()
            trim = pl.when(stripped == "").then(cell).otherwise(stripped)  # space alone is reported as it is
            bare = cells.list.eval(trim) if listed else frame.select(trim.alias(column))[column]
            flat, plain = (cells.explode(), bare.explode()) if listed else (cells, bare)
            had = ((frame.select(cell)[column] if split else flat) != plain).fill_null(False)
            if n := int(had.sum()):
                example = flat.filter(had)[0]
                where = f"{Path(self.source).name}: {several(n, 'cell')} of {column}"
                said.append(f"{where} read without the space around the name, for example {example!r}")
            if n or split:
                frame = frame.with_columns(bare.alias(column))
        return replace(self, frame=frame, changed=(*self.changed, *said))

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

        cells = self._with_points(column)
        cells = cells.str.replace("(?i)^true$", "1").str.replace("(?i)^false$", "0")  # as spreadsheets write them
        number = cells.cast(pl.Float64, strict=False)
        wrong = ~number.is_in([0.0, 1.0]).fill_null(False)
        self.reject(wrong, "response is neither 0 nor 1", column, "write 1 for a right answer and 0 for a wrong one")
        return number.cast(pl.Int8).to_numpy()

    def seconds(self, column: str) -> NDArray[np.float64]:
        """The cells of a column of times as float64 seconds: numbers, or dates and times as ISO 8601 writes them.

        Dates such as ``13.03.2024`` are read where their order is known (:meth:`dates`).

        Raises
        ------
        DataError : a cell that is neither.
        """
        import polars as pl

        cells = self._with_points(column)
        number = cells.cast(pl.Float64, strict=False)
        wrong = ~number.is_finite().fill_null(False)
        if wrong.any():
            order = self.dates(column)
            if order is not None:
                cells = cells.str.replace(_DATE, "${year}-${b}-${a}" if order[0] else "${year}-${a}-${b}")
            elif (slashed := cells.str.contains(_DATE)).any():
                fix = "write year-month-day, as 2024-03-01T10:05:00"
                self.reject(slashed, "a date whose day and month can't be told apart", column, fix)
            short = cells.str.contains(_SHORT)
            self.reject(short, "a date whose year has two digits", column, "write the year in full, as 2024-03-01")
            try:
                moment = cells.str.to_datetime(strict=False, time_unit="us")
            except pl.exceptions.PolarsError:  # no cell shows the format
                moment = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(cells))
            if moment.null_count() < wrong.sum():  # most are dates: the others are the wrong ones
                self.reject(moment.is_null(), "not a time", column, "write it as the other rows do, in ISO 8601")
                return (moment.dt.epoch("us") / 1e6).to_numpy()
        self.reject(wrong, "not a time", column, "give seconds as a number, or ISO 8601 in every row")
        return number.to_numpy()

    def numbers(self, column: str) -> pl.Series:
        """The cells of a column of numbers as Float64, null for what is none; :meth:`decimal_comma` says how.

        Raises
        ------
        DataError : commas that may be decimal or between thousands.
        """
        import polars as pl

        return self._with_points(column).cast(pl.Float64, strict=False)

    def decimal_comma(self, column: str) -> str | None:
        """A number of the column with a decimal comma, as in ``0,5``; None where the column has none.

        The whole column must fit: digits with at most one comma, and no number with a point. Where every comma may be
        one between thousands, as in ``1,234``, it isn't known what they are.

        Raises
        ------
        DataError : commas that may be either.
        """
        cells = self.frame[column].str.strip_chars()
        cut = cells.str.contains(",", literal=True).fill_null(False)
        if not cut.any() or not cells.filter(cells != "").str.contains(r"^[+-]?\d+(,\d+)?$").all():
            return None
        thousands = cells.filter(cut).str.contains(r"^[+-]?[1-9]\d{0,2},\d{3}$")
        if thousands.all():
            self.reject(cut, "a comma that may be decimal or between thousands", column, "write 1.234 or 1234")
        return str(cells.filter(cut)[0])

    def _with_points(self, column: str) -> pl.Series:
        """The cells without space around them, and with decimal points."""
        cells = self.frame[column].str.strip_chars()
        return cells.str.replace(",", ".", literal=True) if self.decimal_comma(column) else cells

    def dates(self, column: str) -> tuple[bool, str] | None:
        """Whether dates such as 13/03/2024 begin with the day, and why; None where there are none, or both orders fit.

        Dates with points, as 12.03.2024, begin with the day unless a number above 12 shows the other order: where
        points are usual, the month never comes first (https://cldr.unicode.org).
        """
        import polars as pl

        cells = self.frame[column].str.strip_chars()
        pairs = cells.str.extract_groups(_DATE).struct.unnest()
        a, b = pairs["a"].cast(pl.Int64), pairs["b"].cast(pl.Int64)
        found = a.is_not_null()
        beyond = bool((a > 12).any()), bool((b > 12).any())
        if beyond[0] != beyond[1]:
            return beyond[0], "no other order fits all of them"
        if found.any() and not beyond[0] and cells.filter(found).str.contains(r"^\d+\.\d+\.").all():
            return True, "dates with points begin with the day"
        return None

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
        also: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> RawTable:
        """The required columns of a CSV file, a Parquet file or a workbook's first sheet, and the optional ones it has.

        Columns are separated by commas, semicolons or tabs, whichever the heading has most; their names are compared
        without case and space.

        Parameters
        ----------
        also : other headings under which a column is read where it is missing and exactly one of them is there.

        Raises
        ------
        DataError : missing file or column, two headings for one column, wrong encoding, NUL byte, ragged row,
            broken quotes, no rows.
        """
        if path.suffix.lower() == ".parquet":
            given = _parquet(path, parquet_columns)
            take = partial(_parquet, path, read_parquet)
            return cls._of(given, take, path, required, optional, also)
        if path.suffix.lower() == ".xlsx":
            held = sheet(path)
            made = cls.parse(path, held.text, "utf-8", required, optional, also, held.sheets)
            if not held.filled:
                return made
            cells = several(len(held.filled), "cell")
            note = f"{path.name}: {cells} read with the value of the merged cell above, for example {held.filled[0]}"
            return replace(made, changed=(note,))
        return cls.parse(path, *read_text(path, encodings), required, optional, also)

    @classmethod
    def parse(
        cls,
        path: Path,
        text: str,
        encoding: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        also: Mapping[str, Sequence[str]] = MappingProxyType({}),
        book: Sequence[str] = (),
    ) -> RawTable:
        """:meth:`read` for a text that is known already; ``book`` has the sheets of its workbook."""
        import polars as pl

        refuse_forked()
        row = 1
        if text[:4].lower() == "sep=":  # a line that spreadsheet programs write for themselves
            text, row = text.partition("\n")[2], 2
        between = separator(text.partition("\n")[0])
        first = next(records(text, path, between, row), None)
        if first is None or not first[1]:
            what = "no header in the first row" if text.strip() else "the file is empty"
            raise DataError(what, file=path, fix=f"it needs the columns {', '.join(required)}")
        names, called = headings(path, first[1], required, optional, also, row=first[0], book=book)
        wanted = [name for name in (*required, *optional) if name in names]
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
        made = cls(path, frame, text, encoding, between, row, left, absent, tuple(book[1:]), called)
        second_heading(made)
        return made

    @classmethod
    def of_frame(
        cls,
        frame: pl.DataFrame,
        source: Path | str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        also: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> RawTable:
        """The same columns of a polars frame; ``source`` names it in errors, whose rows count from 0.

        Raises
        ------
        DataError : missing columns, two headings for one column, no rows, cells that are no text, number, time or list;
            lists in another column than a question's concepts.
        """
        return cls._of(frame.columns, frame.select, source, required, optional, also)

    @classmethod
    def _of(
        cls,
        given: Sequence[str],
        take: Callable[[Sequence[str]], pl.DataFrame],
        source: Path | str,
        required: Sequence[str],
        optional: Sequence[str],
        also: Mapping[str, Sequence[str]],
    ) -> RawTable:
        """:meth:`of_frame` for columns of which only those that are wanted are taken."""
        import polars as pl

        refuse_forked()
        names, called = headings(source, given, required, optional, also)
        wanted = [name for name in (*required, *optional) if name in names]
        called_there = {given[names.index(name)]: name for name in wanted}
        frame = take(list(called_there)).rename(called_there)
        if frame.height == 0:
            raise DataError("no rows", file=source, fix="give at least one")

        def as_text(cells: pl.Series) -> pl.Series:
            kind = cells.dtype
            refuse_far_times(cells)
            if isinstance(kind, pl.List | pl.Array):
                if cells.name not in listed or isinstance(kind.inner, pl.List | pl.Array):
                    fix = "give each value a row of its own: one row per answer"
                    raise DataError("a list in each cell", file=source, column=cells.name, value=str(kind), fix=fix)
                cells = cells.cast(pl.List(kind.inner))
                # Polars' versions differ in what an empty list becomes; a missing one becomes one missing text.
                some = pl.when(pl.col(cells.name).list.len() > 0).then(cells.name)
                cells = cells.to_frame().select(some)[cells.name]
                at = np.repeat(np.arange(len(cells)), cells.list.len().fill_null(1).to_numpy())
                long = pl.DataFrame({"at": at, "text": as_text(cells.explode())})
                return long.group_by("at", maintain_order=True).agg(pl.col("text").drop_nulls())["text"]
            if kind == pl.Boolean:
                return cells.cast(pl.Int8).cast(pl.String)
            if (kind == pl.Date or kind == pl.Datetime) and cells.name != "timestamp":  # a name that became a date
                return cells.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
            if kind == pl.Date or kind == pl.Datetime:
                return (cells.cast(pl.Datetime("us")).dt.epoch("us") / 1e6).cast(pl.String)
            if kind == pl.Duration:
                return (cells.dt.total_microseconds() / 1e6).cast(pl.String)
            if kind == pl.Object:
                return pl.Series(cells.name, [named(value) for value in cells], dtype=pl.String)
            if kind.is_float():  # perhaps integers, made floats by a missing value
                cells = cells.fill_nan(None)
                text = cells.cast(pl.String).str.replace(r"\.0$", "")
                coarse = (cells.abs() >= exact(np.float32 if kind == pl.Float32 else np.float64)).arg_true()
                return text.scatter(coarse, [named(value) for value in cells.gather(coarse).to_numpy()])
            if kind.is_decimal():
                return cells.cast(pl.String).str.replace(r"\.0+$", "")
            return cells.cast(pl.String)

        # Only a table of questions has lists, and only of concepts.
        listed = [name for name in wanted if name.startswith("concept") and "question" in wanted]
        made = {}
        for name in wanted:
            try:
                made[name] = as_text(frame[name])
            except pl.exceptions.PolarsError:
                kind = str(frame[name].dtype)
                raise DataError(
                    "neither text, numbers, times nor lists",
                    file=source,
                    column=name,
                    value=kind,
                    fix="convert it to text",
                ) from None
            except ValueError as error:
                raise DataError(str(error), file=source, column=name, fix="correct it or leave it out") from None
        left = tuple(name for name in names if name not in wanted)
        absent = tuple(name for name in optional if name not in names)
        return cls(source, pl.DataFrame(made), unread=left, absent=absent, called=called)


def _parquet(path: Path, read: Callable[..., T], *columns: Sequence[str]) -> T:
    """What is read from a Parquet file; DataError for one that can't be."""
    try:
        return read(path, *columns)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", file=path, fix="check the folder and the spelling of the name") from None
    except OSError as error:
        raise DataError(f"the file can't be read ({error.strerror})", file=path, fix="check its permissions") from None
    except ValueError as error:
        raise DataError(f"no readable Parquet file ({error})", file=path, fix="write it again, or as CSV") from None


_SHORT = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2}(\D|$)"
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


def headings(
    source: Path | str,
    names: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    also: Mapping[str, Sequence[str]] = MappingProxyType({}),
    *,
    row: int | None = None,
    book: Sequence[str] = (),
) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Headings as they are called here, and those that were read under the name of a column.

    A heading that differs in case or space only is taken for the known one. So is one of the names in ``also``, where
    the column is missing and exactly one of them is there.

    Raises
    ------
    DataError : missing columns, all of them named; two headings for one column; a column that occurs twice.
    """
    wanted = (*required, *optional)
    plain = [name.strip().lower() for name in names]
    exact, count = set(names), Counter(plain)
    made = [
        low if low in wanted and low not in exact and count[low] == 1 else name
        for name, low in zip(names, plain, strict=True)
    ]
    called, bared = [], [bare(name) for name in names]
    for column in (name for name in wanted if name not in made):
        fits = [i for i, name in enumerate(made) if name not in wanted and bared[i] in also.get(column, ())]
        if len(fits) > 1:
            both = ", ".join(repr(names[i]) for i in fits)
            what = f"{len(fits)} columns that may be {column}: {both}"
            raise DataError(what, file=source, row=row, column=column, fix=f"call the right one {column}")
        if fits:
            called.append((names[fits[0]], column))
            made[fits[0]] = column
    missing = [name for name in required if name not in made]
    if missing:
        free = [name for name in dict.fromkeys(made) if name not in wanted]
        near = {name: next((each for each in free if meant(each, [name]) == name), None) for name in missing}
        renames = [f"rename {heading!r} to {name!r}" for name, heading in near.items() if heading]
        if len(renames) < len(missing):
            renames.append(f"the columns are {', '.join(names[:12])}")
        what = "missing column" if len(missing) == 1 else f"missing columns {' and '.join(missing)}"
        if len(book) > 1:
            what += f" on sheet {book[0]!r}"
            shown = ", ".join(map(repr, book[:8])) + (", …" if len(book) > 8 else "")
            renames.append(f"only the first sheet is read: move the one with the table to the front of {shown}")
        alone = missing[0] if len(missing) == 1 else None
        raise DataError(what, file=source, row=row, column=alone, fix="; ".join(renames))
    for name in wanted:
        if made.count(name) > 1:
            raise DataError("a column occurs twice", file=source, row=row, column=name, fix="keep one of them")
    return made, tuple(called)


def codes(cells: pl.Series, names: pl.Series) -> pl.Series:
    """The index of each cell in ``names`` (which are distinct), null where it isn't in them."""
    import polars as pl

    return cells.cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int64)
