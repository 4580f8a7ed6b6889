"""Names of questions are text, whatever they were given as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from qcq import Embeddings, embed, read
from qcq.errors import ArgumentError, EmbeddingError, UnknownNameError

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


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, np.float64("nan"), np.float32("nan")])
def test_a_missing_name_is_an_error(missing: object) -> None:
    with pytest.raises(EmbeddingError, match="row 2 has no question id"):
        Embeddings(["a", missing, "c", "d"], VECTORS)  # type: ignore[list-item]


@pytest.mark.parametrize("name", [np.float32(3), np.float64(3), 3.0, np.int8(3), b"3", np.str_("3")])
def test_a_name_of_any_type_is_the_same_text(name: object) -> None:
    assert list(Embeddings([name], VECTORS[:1])) == ["3"]  # type: ignore[list-item]


HALF = ("\ud800", "a\udfff", np.str_("\ud834"))


@pytest.mark.parametrize("name", [*HALF, b"\xff", b"\xed\xa0\x80"])
def test_a_name_that_is_no_text_is_an_error_wherever_it_is_given(name: object) -> None:
    said = "row 2 has the question id .* with half a character" if name in HALF else "row 2 has .* which isn't UTF-8"
    with pytest.raises(EmbeddingError, match=said):
        Embeddings(["a", name], VECTORS[:2])  # type: ignore[list-item]
    with pytest.raises(EmbeddingError, match=said.replace("question", "concept")):
        Embeddings(["a", "b"], VECTORS[:2], ["c", name], VECTORS[:2])  # type: ignore[list-item]
    with pytest.raises(EmbeddingError, match=said):
        Embeddings(["a", "b"], VECTORS[:2]).aligned(["a", name])  # type: ignore[list-item]
    table = embed(read([("q1", "a"), ("q2", "b")]), "concepts", dim=2)
    for new, neighbours in (({"n": ["a"], name: ["a"]}, {}), ({}, {"n": ["q1"], name: ["q1"]})):
        with pytest.raises(EmbeddingError, match=said if isinstance(name, str) else "isn't UTF-8"):
            table.infer(new, neighbours)  # type: ignore[arg-type]
    with pytest.raises(EmbeddingError, match=f"infer: concepts of 'n': {said.replace('question', 'concept')}"):
        table.infer({"n": ["a", name]})  # type: ignore[list-item]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA])
def test_a_new_question_without_a_name_is_an_error(missing: object) -> None:
    table = embed(read([("q1", "a"), ("q2", "b")]), "concepts", dim=2)
    with pytest.raises(EmbeddingError, match=r"row \d has no question id"):
        table.infer({"n": ["a"], missing: ["a"]})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="infer: concepts of 'n': a missing value among"):
        table.infer({"n": ["a", missing]})  # type: ignore[list-item]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1e300, 1.0], "'x': the vector of question 'a' has NaN or infinity"),
        ([1e-300, 1.0], "'x': the vector of question 'a' is too small for float32"),
        ([1.0, float("nan")], "'x': the vector of question 'b' has NaN or infinity"),
        (["low", "high"], "'x': question vectors are no table of numbers"),
        ([None, 1.0], "'x': (question vectors are no table of numbers|the vector of question 'a' has NaN)"),
        ([1 + 2j, 1.0], "'x': question vectors of complex numbers; give real ones"),
        ([[1.0, 2.0], [1.0]], "'x' has rows of different lengths; give all as many numbers"),
        ([1.0], r"'x' has shape \(1,\); give one number or row to each of 2"),
        (1.0, r"'x' has shape \(\); give one number or row to each of 2"),
        ("ab", r"'x' has shape \(\); give one number or row to each of 2"),
    ],
)
def test_features_that_are_no_finite_numbers_are_refused(given: object, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said):
        Embeddings(["a", "b"], VECTORS[:2]).concatenate({"x": given})  # type: ignore[dict-item]


def test_a_part_is_called_by_text() -> None:
    with pytest.raises(EmbeddingError, match="a part is called 1, which is no text; give it another name"):
        Embeddings(["a", "b"], VECTORS[:2]).concatenate({1: [1.0, 2.0]})  # type: ignore[dict-item]


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
