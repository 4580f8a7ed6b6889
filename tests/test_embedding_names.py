"""Names of questions are text, whatever they were given as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from qcq import Embeddings, embed, read
from qcq.errors import EmbeddingError, UnknownNameError

VECTORS = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
NUMBERED = {"list": [10, 20, 30, 40], "array": np.array([10, 20, 30, 40]), "floats": [10.0, 20.0, 30.0, 40.0]}


def test_a_sorted_or_filtered_series_names_the_rows_it_stands_at() -> None:
    frame = pd.DataFrame({"question": list("abcd"), "x": VECTORS[:, 0], "y": VECTORS[:, 1]}).iloc[[2, 0, 3, 1]]
    made = Embeddings(frame["question"], frame[["x", "y"]].to_numpy())
    assert made.nearest("a", 1)[0][0] == "b"
    assert made.nearest("c", 1)[0][0] == "d"
    again = Embeddings(list("abcd"), VECTORS).aligned(frame["question"])
    assert again.nearest("a", 1)[0][0] == "b"
    assert list(again) == list("cadb")
    part = frame[frame["x"] > 0.5]
    assert Embeddings(part["question"], part[["x", "y"]].to_numpy()).nearest("a", 1)[0][0] == "b"


@pytest.mark.parametrize(
    "ids", [pl.Series(list("abcd")), dict.fromkeys("abcd").keys(), iter("abcd"), np.array(list("abcd"))]
)
def test_any_run_of_names_will_do(ids: object) -> None:
    made = Embeddings(ids, VECTORS)  # type: ignore[arg-type]
    assert list(made) == list("abcd")
    assert made.nearest("c", 1)[0][0] == "d"


@pytest.mark.parametrize("ids", NUMBERED.values(), ids=NUMBERED)
@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".parquet", ".json", ".csv", ".pt", ".vec", ".bin"])
def test_numbers_become_text_and_find_their_rows(ids: object, ending: str, tmp_path: Path) -> None:
    made = Embeddings(ids, VECTORS)  # type: ignore[arg-type]
    assert list(made) == ["10", "20", "30", "40"]
    assert 10 in made
    assert "10" in made
    assert 11 not in made
    assert None not in made
    np.testing.assert_array_equal(made[20], made["20"])  # type: ignore[index]
    assert made.get(11) is None  # type: ignore[arg-type]
    assert made.nearest(10, 1)[0][0] == "20"  # type: ignore[arg-type]
    assert list(made.aligned([40, 30, 20, 10])) == ["40", "30", "20", "10"]  # type: ignore[list-item]
    read_again = Embeddings.load(made.save(tmp_path / f"v{ending}"))
    assert list(read_again) == list(made)
    np.testing.assert_allclose(read_again.vectors, made.vectors, rtol=1e-6)


def test_a_bank_with_numbers_is_asked_by_numbers() -> None:
    table = embed(read([(1, 10), (2, 10), (3, 20)]), "concepts", dim=2)
    np.testing.assert_array_equal(table[1], table["1"])  # type: ignore[index]
    with pytest.raises(UnknownNameError, match="unknown question '4'"):
        table[4]  # type: ignore[index]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, np.float64("nan")])
def test_a_missing_name_is_an_error(missing: object) -> None:
    with pytest.raises(EmbeddingError, match="row 2 has no question id"):
        Embeddings(["a", missing, "c", "d"], VECTORS)  # type: ignore[list-item]


def test_a_missing_name_in_a_file_is_an_error(tmp_path: Path) -> None:
    pl.DataFrame({"question": ["a", None], "d0": [1.0, 2.0]}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(EmbeddingError, match="row 2 has no question id"):
        Embeddings.load(tmp_path / "v.parquet")


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
@pytest.mark.parametrize("column", ["index", "id", "level_0"])
def test_an_index_beside_the_questions_is_no_dimension(column: str, ending: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({column: [3, 1, 0], "question": list("abc"), "d0": [1.0, 0.9, 0.0], "d1": [0.0, 0.1, 1.0]})
    file = tmp_path / f"v{ending}"
    frame.write_parquet(file) if ending == ".parquet" else frame.write_csv(file)
    with pytest.raises(
        EmbeddingError, match=f"column '{column}' looks like an index or a second id next to 'question'"
    ):
        Embeddings.load(file)


def test_names_that_a_table_lacks_cost_no_search_for_similar_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difflib.get_close_matches", lambda *given, **more: pytest.fail("names were compared"))
    made = Embeddings(list("abcd"), VECTORS)
    assert "e" not in made
    assert made.get("e") is None


@pytest.mark.parametrize("k", [0, -1])
def test_neighbours_are_counted_from_one(k: int) -> None:
    with pytest.raises(EmbeddingError, match=f"k is {k}; ask for 1 neighbour or more"):
        Embeddings(list("abcd"), VECTORS).nearest("a", k)


def test_no_part_is_called_as_the_column_of_names_is() -> None:
    made = Embeddings(list("abcd"), VECTORS)
    with pytest.raises(EmbeddingError, match="a part is called 'question'"):
        made.concatenate({"question": [1, 2, 3, 4]})
    with pytest.raises(EmbeddingError, match="a part is called 'question'"):
        made.concatenate({"x": [1, 2, 3, 4]}, name="question")
