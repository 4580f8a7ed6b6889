"""Parquet: what others write is what is read, and no damage ends the process."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from qcq.data import read
from qcq.data.table import RawTable
from qcq.embeddings import Embeddings
from qcq.errors import QCQError
from qcq.support.parquet import parquet_columns, read_parquet

WHEN = datetime.datetime(2024, 5, 6, 7, 8, 9)
FRAME = pl.DataFrame(
    {
        "text": ["a", None, "题"],
        "whole": [1, 2, None],
        "number": [0.5, float("nan"), None],
        "yes": [True, False, None],
        "day": [WHEN.date()] * 3,
        "time": [WHEN, None, WHEN],
        "list": [["a", "b"], [], None],
        "": [1, 2, 3],
        "a.b": [1, 2, 3],
    }
).with_columns(
    pl.Series("kind", ["a", "b", "a"], pl.Categorical),
    pl.Series("four", [[1.0, 2.0]] * 3, pl.Array(pl.Float32, 2)),
    pl.Series("small", [1, 2, 3], pl.UInt8),
    pl.Series("there", [WHEN] * 3).dt.replace_time_zone("Europe/Berlin"),
    pl.Series("exact", ["1.50", "2.25", "3.00"]).cast(pl.Decimal(10, 2)),
    pl.Series("while", [datetime.timedelta(seconds=2)] * 3),
)


def bank(home: Path) -> Path:
    pl.DataFrame({"question": ["q1", "q2"], "concepts": ["a;b", None]}).write_parquet(home / "bank.parquet")
    return home / "bank.parquet"


def vectors(home: Path) -> Path:
    return Embeddings(["q1", "q2"], np.eye(2, dtype=np.float32)).save(home / "vectors.parquet")


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "uncompressed"])
def test_what_polars_writes_is_read(compression: str, tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet", compression=compression)
    assert parquet_columns(tmp_path / "a.parquet") == FRAME.columns
    assert_frame_equal(read_parquet(tmp_path / "a.parquet"), pl.read_parquet(tmp_path / "a.parquet"))
    some = ["a.b", "text", ""]
    assert_frame_equal(read_parquet(tmp_path / "a.parquet", some), FRAME.select(some))


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    made = pandas.DataFrame({"question": pandas.Categorical(["q1", "q2"]), "d0": [1.0, 2.0]}, index=["x", "y"])
    made.to_parquet(tmp_path / "a.parquet")
    assert_frame_equal(read_parquet(tmp_path / "a.parquet"), pl.read_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("make", "bit"),
    [(vectors, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((bank, 0), (vectors, 3), (vectors, 7)))],
)
def test_a_flipped_bit_is_an_answer_or_one_line(make, bit: int, tmp_path: Path) -> None:
    """With polars' own reader, bit 0 of a number of values (its sign) ended the process."""
    file = make(tmp_path)
    whole = file.read_bytes()
    kept = 0
    said = []
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        try:
            read(f"csv:{file}") if make is bank else Embeddings.load(file)
            kept += 1
        except QCQError as error:
            said.append(str(error))
    assert [text for text in said if "\n" in text or not text.startswith(str(file))] == []
    assert 0 < kept < len(whole)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    file = vectors(tmp_path)
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(QCQError, match=r"^[^\n]*vectors.parquet: no readable embeddings \([^\n]+; write"):
            Embeddings.load(file)


def test_text_that_is_none(tmp_path: Path) -> None:
    """Arrow doesn't look whether text is UTF-8, and polars believes Arrow."""
    bad = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"question": bad, "concept": ["a"]}), tmp_path / "bank.parquet")
    with pytest.raises(QCQError, match=r"no readable Parquet file.*UTF8"):
        read(f"csv:{tmp_path / 'bank.parquet'}")


def test_what_is_said_of_a_column_is_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """polars panics over anything else, and writes that on the terminal; a list of no length makes it panic too."""
    bad: dict[Any, Any] = {b"\xff": b"x"}
    inner = pa.list_(pa.field("item", pa.string(), metadata=bad))
    for column, kind in (
        (pa.array(["a"]), pa.field("concept", pa.string(), metadata=bad)),
        (pa.array([["a"]], inner), pa.field("concept", inner)),
        (pa.array([[]], pa.list_(pa.string(), 0)), pa.field("concept", pa.list_(pa.string(), 0))),
    ):
        table = pa.table([pa.array(["q"]), column], schema=pa.schema([pa.field("question", pa.string()), kind]))
        pq.write_table(table, tmp_path / "bank.parquet")
        with pytest.raises(QCQError, match="no readable Parquet file"):
            read(f"csv:{tmp_path / 'bank.parquet'}")
    assert capfd.readouterr().err == ""


def test_what_is_said_of_the_whole_table_may_be_anything(tmp_path: Path) -> None:
    table = pa.table({"question": ["q"], "concept": ["a"]}).replace_schema_metadata({b"\xff": b"\xfe"})
    pq.write_table(table, tmp_path / "bank.parquet")
    assert read(tmp_path / "bank.parquet").questions == ("q",)


LOG = {"student": ["1", "1"], "question": ["a", "b"], "concept": ["x", "y"], "correct": [1, 0]}


def test_times_of_earlier_sparks(tmp_path: Path) -> None:
    """96 bits, which Arrow reads as nanoseconds by itself: the year 9999 would be another one."""
    when = pa.array([datetime.datetime(2024, 1, 1), datetime.datetime(9999, 12, 31)], pa.timestamp("us"))
    pq.write_table(pa.table({**LOG, "timestamp": when}), tmp_path / "log.parquet", use_deprecated_int96_timestamps=True)
    found = read(f"csv:{tmp_path / 'log.parquet'}").interactions
    assert found is not None
    assert found.timestamp is not None
    assert found.timestamp.tolist() == [1704067200, 253402214400]


def test_a_period_is_no_number(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    when = pandas.period_range("2020-01-01", periods=2, freq="D")
    pandas.DataFrame({**LOG, "timestamp": when}).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(QCQError, match=r"column timestamp: neither text, numbers, times nor lists"):
        read(f"csv:{tmp_path / 'log.parquet'}")


FAR = {
    "a date": pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()),
    "a time": pa.array([2**63 - 1, 0], pa.timestamp("us")),
    "a duration": pa.array([2**62, 0], pa.duration("ms")),
    "dates": pa.array([[2**31 - 1], [0]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
}


@pytest.mark.parametrize("kind", FAR)
def test_times_that_no_calendar_reaches(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "far.parquet"
    pq.write_table(pa.table({"question": FAR[kind], "d0": [1.0, 2.0]}), file)
    with pytest.raises(QCQError, match=r"257,000 years|list"):
        Embeddings.load(file)
    pq.write_table(pa.table({"question": ["a", "b"], "concept": FAR[kind]}), file)
    with pytest.raises(QCQError, match=r"column concept: (a time more than 257,000 years|a list in each cell)|years"):
        read(f"csv:{file}")
    if kind == "a time":
        pq.write_table(pa.table({**LOG, "timestamp": FAR[kind]}), file)
        with pytest.raises(QCQError, match="column timestamp: a time more than 257,000 years"):
            read(f"csv:{file}")
    assert capfd.readouterr().err == ""


def test_a_date_far_away_is_a_name(tmp_path: Path) -> None:
    days = pa.array([94_000_000, -94_000_000], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"question": ["a", "b"], "concept": days}), tmp_path / "bank.parquet")
    assert len(read(f"csv:{tmp_path / 'bank.parquet'}").concepts) == 2


def test_decimals_of_256_bits(tmp_path: Path) -> None:
    ids = pa.array([Decimal("1.0"), Decimal("22.0")], pa.decimal256(60, 1))
    pq.write_table(pa.table({"question": ["a", "b"], "concept": ids}), tmp_path / "bank.parquet")
    assert read(f"csv:{tmp_path / 'bank.parquet'}").concepts == ("1", "22")


def test_the_reason_is_said_where_the_format_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "bank.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(QCQError, match=r"bank.parquet: no readable Parquet file \(.*write it again, or as CSV"):
        read(tmp_path / "bank.parquet")
    (tmp_path / "bank.parquet").rename(tmp_path / "file")
    with pytest.raises(QCQError, match="no such file"):
        RawTable.read(tmp_path / "file" / "bank.parquet", ["question"])


def test_a_page_that_differs_from_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    table = pa.table({"question": ["q1", "q2"], "d0": [1.0, 2.0]})
    pq.write_table(
        table, file, write_page_checksum=True, write_statistics=False, use_dictionary=False, compression="none"
    )
    whole = file.read_bytes()
    assert Embeddings.load(file).vectors[0, 0] == 1
    file.write_bytes(whole.replace(np.float64(1).tobytes(), np.float64(3).tobytes(), 1))
    with pytest.raises(QCQError, match="no readable embeddings"):
        Embeddings.load(file)


def test_two_columns_with_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(["q1"]), pa.array([1.0]), pa.array([2.0])], names=["question", "d0", "d0"])
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(QCQError, match="two columns 'd0'"):
        Embeddings.load(tmp_path / "v.parquet")


def test_a_column_that_nobody_wants_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "bank.parquet"
    frame = pl.DataFrame({"question": ["q1", "q2"], "notes": ["long text " * 9, "more"], "concept": ["a", "b"]})
    frame.write_parquet(file)
    column = pq.read_metadata(file).row_group(0).column(1)
    begin = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_parquet(file)
    assert read(f"csv:{file}").questions == ("q1", "q2")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for act in (parquet_columns, read_parquet):
        with pytest.raises(FileNotFoundError):
            act(tmp_path / "no.parquet")
    with pytest.raises(QCQError, match=r"no.parquet"):
        read(f"csv:{tmp_path / 'no.parquet'}")
