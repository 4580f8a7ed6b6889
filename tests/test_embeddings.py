"""Reading anybody's vectors: every format against the library that writes it, and one clear line for every mistake."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qcq.data import read
from qcq.embeddings import Embeddings, _highest
from qcq.errors import EmbeddingError, QCQError, UnknownNameError
from qcq.evaluation.ranking import Cosines
from qcq.evaluation.tracing.tasks import principal
from qcq.graph import KnowledgeGraph
from qcq.report.diff import difference
from qcq.report.similar import similar_in
from qcq.run import Run
from qcq.support.arrays import read_npy
from qcq.support.vectors import READERS
from qcq.support.vectors import WRITERS as ENDINGS

IDS = ["q1", "10_13", "fractions—½", "q4"]
VECTORS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def keyed(ids=IDS):
    out = pytest.importorskip("gensim.models").KeyedVectors(3)
    out.add_vectors(ids, VECTORS)
    return out


WRITERS = {
    "ours.safetensors": lambda path: Embeddings(IDS, VECTORS, ["c"], VECTORS[:1], {"seed": 3}).save(path),
    "theirs.safetensors": lambda path: save_file({"vectors": VECTORS}, path, {"ids": json.dumps(IDS)}),
    "text.npz": lambda path: np.savez(path, ids=IDS, vectors=VECTORS),
    "wide.parquet": lambda path: Embeddings(IDS, VECTORS).to_frame().write_parquet(path),
    "lists.parquet": lambda path: pl.DataFrame({"vector": VECTORS.tolist(), "id": IDS}).write_parquet(path),
    "array.parquet": lambda path: pl.DataFrame(
        {"question": IDS, "v": VECTORS}, schema_overrides={"v": pl.Array(pl.Float32, 3)}
    ).write_parquet(path),
    "object.json": lambda path: path.write_text(json.dumps(dict(zip(IDS, VECTORS.tolist(), strict=True)))),
    "table.csv": lambda path: Embeddings(IDS, VECTORS).to_pandas().to_csv(path, index=False),
    "index.csv": lambda path: Embeddings(IDS, VECTORS).to_pandas().set_index("question").to_csv(path),
    "dict.pt": lambda path: torch.save({"ids": IDS, "vectors": torch.tensor(VECTORS, requires_grad=True)}, path),
    "word2vec.txt": lambda path: keyed().save_word2vec_format(path),
    "word2vec.vec": lambda path: keyed().save_word2vec_format(path),
    "word2vec.bin": lambda path: keyed().save_word2vec_format(path, binary=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_comes_back_as_it_was_written(name, tmp_path):
    WRITERS[name](tmp_path / name)
    emb = Embeddings.load(tmp_path / name)
    assert list(emb.ids) == IDS
    assert emb.vectors == pytest.approx(VECTORS, abs=1e-6)
    assert set(READERS) == set(ENDINGS) == {"." + n.rpartition(".")[2] for n in WRITERS}


@pytest.mark.parametrize("ending", ENDINGS)
def test_save_goes_by_the_ending(ending, tmp_path):
    emb = Embeddings(["q1", "10_13", "fractions—½", "q4"], VECTORS)
    back = Embeddings.load(emb.save(tmp_path / f"v{ending}"))
    assert list(back.ids) == IDS
    assert np.array_equal(back.vectors, VECTORS)


def test_an_ending_that_no_writer_has_is_refused(tmp_path):
    with pytest.raises(EmbeddingError, match=r"no vectors are written as '.kv'; give .safetensors"):
        Embeddings(IDS, VECTORS).save(tmp_path / "v.kv")
    with pytest.raises(EmbeddingError, match="'adding halves' has white space in it"):
        Embeddings(["adding halves"], VECTORS[:1]).save(tmp_path / "v.vec")
    assert not list(tmp_path.iterdir())


def test_embeddings_are_a_mapping():
    emb = Embeddings(IDS, VECTORS)
    assert "q1" in emb
    assert "q2" not in emb
    assert list(emb) == list(emb.keys()) == IDS
    assert np.array_equal(emb["q4"], VECTORS[3])
    assert emb.get("q2") is None
    assert len(emb) == len(dict(emb)) == 4
    with pytest.raises(UnknownNameError, match=r"unknown question 'q2' \(known: .*, q1, q4\)"):
        emb["q2"]  # any other name of two letters is as near
    with pytest.raises(UnknownNameError, match="did you mean fractions—½"):
        emb["fractions-½"]
    assert emb == emb


@pytest.mark.parametrize("ids", [np.array([b"1", b"2"]), np.array([1, 2]), np.array([1.0, 2.0])])
def test_ids_of_any_type_are_text(ids, tmp_path):
    np.savez(tmp_path / "v.npz", ids=ids, vectors=VECTORS[:2])
    assert list(Embeddings.load(tmp_path / "v.npz").ids) == ["1", "2"]


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2", "int8"])
def test_numbers_of_every_type_that_safetensors_holds(kind, tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    table = torch.tensor([[1.0, 2.0], [0.5, -4.0]]).to(getattr(torch, kind))
    save_torch({"vectors": table}, tmp_path / "v.safetensors", {"ids": json.dumps(["a", "b"])})
    assert np.array_equal(Embeddings.load(tmp_path / "v.safetensors").vectors, table.float().numpy())


def test_the_index_of_a_pandas_frame_is_no_dimension(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(VECTORS, columns=["d0", "d1", "d2"])
    frame.insert(0, "question", IDS)
    frame.sample(frac=1, random_state=1).to_parquet(tmp_path / "shuffled.parquet")
    emb = Embeddings.load(tmp_path / "shuffled.parquet")
    assert emb.dim == 3
    assert np.array_equal(emb.aligned(IDS).vectors, VECTORS)
    frame.set_index("question").rename_axis(None).to_parquet(tmp_path / "index.parquet")
    assert np.array_equal(Embeddings.load(tmp_path / "index.parquet").aligned(IDS).vectors, VECTORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bom.txt", "\ufeff2 2\na 1 2\nb 3 4\n"),
        ("tabs.vec", "2\t2\na\t1\t2\nb\t3\t4\n"),
        ("text.bin", "2 2\na 1 2\nb 3 4\n"),
        ("glove.txt", "a 1 2\nb 3 4\n"),
    ],
)
def test_text_as_other_programs_write_it(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    emb = Embeddings.load(tmp_path / name)
    assert {q: row.tolist() for q, row in emb.items()} == {"a": [1, 2], "b": [3, 4]}


def test_ids_of_another_form_are_shown_with_the_rule_that_matches():
    emb = Embeddings(["q_1", "q_2", "q_7"], VECTORS[:3])
    with pytest.raises(
        EmbeddingError, match=r"'1', '2', '7'; the file's other ids are 'q_1', .*without the prefix 'q_'"
    ):
        emb.aligned(["1", "2", "7"])
    with pytest.raises(EmbeddingError, match=r"2 of 2 questions .* in lower case"):
        Embeddings(["A", "B"], VECTORS[:2]).aligned(["a", "b"])


BANK = [("q1", "a"), ("q2", "a"), ("q3", "a"), ("q3", "b"), ("q4", "c")]


def test_concepts_and_added_rows_in_a_file_are_told_from_questions():
    data = read(BANK)
    rows = np.arange(8 * 2, dtype=np.float32).reshape(8, 2)
    emb, notes = Embeddings(["</s>", "q1", "q2", "q3", "q4", "a", "b", "c"], rows).matched(data)
    assert np.array_equal(emb.vectors, rows[1:5])
    assert np.array_equal(emb.concept_vectors, rows[5:])
    assert [note.split()[0] for note in notes] == ["1", "3"]
    with pytest.raises(EmbeddingError, match="1 vectors belong to no question of the data set, 'q9' first"):
        Embeddings(["q1", "q2", "q3", "q4", "q9"], rows[:5]).matched(data)


def test_missing_rows_are_refused_or_the_mean_of_their_concepts():
    data = read(BANK)
    emb = Embeddings(["q1", "q2"], [[1.0, 0.0], [0.0, 3.0]])
    with pytest.raises(EmbeddingError, match="2 of 4 questions have no vector: 'q3', 'q4'"):
        emb.matched(data)
    with pytest.raises(EmbeddingError, match=r"1 questions have neither a vector nor a concept .*'q4' first"):
        emb.matched(data, "mean-of-concepts")
    whole, notes = Embeddings([*emb.ids, "q4"], [*emb.vectors, [5.0, 5.0]]).matched(data, "mean-of-concepts")
    assert whole["q3"].tolist() == [0.5, 1.5]
    assert notes == ("1 of 4 questions have no vector: the mean of their concepts' vectors",)


def test_equal_vectors_tell_nothing_apart_and_zeros_are_named():
    data = read(BANK)
    with pytest.raises(EmbeddingError, match="the vectors of all 4 questions are equal, so nothing tells one question"):
        Embeddings(data.questions, np.full((4, 3), 0.1)).matched(data)
    emb, notes = Embeddings(data.questions, [[1.0, 0], [0, 0], [0, 1], [0, 0]]).matched(data)
    assert notes == ("2 of 4 questions have a vector of zeros, 'q2' first: it is equally similar to all questions",)
    assert not emb["q2"].any()


@pytest.mark.parametrize("heading", ["", "Unnamed: 0"])
def test_the_index_of_a_frame_in_a_csv_is_refused(heading, tmp_path):
    (tmp_path / "v.csv").write_text(f"{heading},question,d0\n0,q1,0.5\n1,q2,0.25\n")
    with pytest.raises(EmbeddingError, match="has no name, as a frame's index; write the file without"):
        Embeddings.load(tmp_path / "v.csv")


def test_a_damaged_npz_does_not_send_anybody_to_pickle(tmp_path):
    (tmp_path / "v.npz").write_bytes(b"x")
    with pytest.raises(EmbeddingError, match="no readable embeddings") as caught:
        Embeddings.load(tmp_path / "v.npz")
    assert "trust" not in str(caught.value)


def test_numbers_as_ids_are_text(tmp_path):
    np.savez(tmp_path / "v.npz", ids=np.arange(4), vectors=VECTORS)
    assert list(Embeddings.load(tmp_path / "v.npz").ids) == ["0", "1", "2", "3"]


def test_an_id_may_have_spaces_in_word2vec_text(tmp_path):
    keyed(["adding halves", *IDS[1:]]).save_word2vec_format(tmp_path / "v.txt")
    assert list(Embeddings.load(tmp_path / "v.txt").ids) == ["adding halves", *IDS[1:]]


NAN = [[1.0, 2.0], [float("nan"), 1.0]]
BAD = [
    ("v.h5", b"", "no vectors are read from '.h5'; give .safetensors, .npz"),
    ("v.kv", b"", "gensim's own file is a pickle, which could run code; in gensim write kv.save_word2vec_format"),
    ("v.pkl", b"", "a pickle could run code; save .npz"),
    ("v.npy", b"", "it has no ids; give Embeddings(ids, np.load(path))"),
    ("v.csv", b"", "the file is empty; write the vectors again"),
    ("v.csv", b"q,d0\na,1\n", "it has columns 'q', 'd0'; name one 'question'"),
    ("v.csv", b"question\na\n", "there is no column except 'question'; give numbers, with commas between"),
    ("v.csv", b"question;d0\na;1\n", "it has columns 'question;d0'; name one 'question'"),
    ("v.csv", b"question,d0\n", "no vectors in it"),
    ("v.csv", b"question,d0,d1\na,1,2\nb,1\n", "row 3 has 2 cells, the heading 3"),
    ("v.csv", b"d0,id,d1\n1,a,2\n1,b,x\n", "row 3, column 'd1': 'x' is no number; write one"),
    ("v.csv", b"question,d0\na,\n", "row 2, column 'd0': '' is no number"),
    ("v.csv", b"question,d0\na,nan\n", "question 'a' has NaN or infinity"),
    ("v.csv", b"question,d0\na,1\na,2\n", "1 of 2 question ids occur more than once, 'a' first"),
    ("v.csv", b'question,d0\n"a,1\n', "no readable CSV"),
    ("v.csv", b"question,d0\n\xff,1\n", "no readable embeddings"),
    ("v.pt", b"", "save {'ids': [text, …], 'vectors': tensor} with torch.save"),
    ("v.pt", b"not torch", "save {'ids': [text, …], 'vectors': tensor} with torch.save"),
    ("v", b"", "no vectors are read from 'no ending'"),
    ("v.json", b"[[1, 2]]", "not an object"),
    ("v.json", b"{", "no readable embeddings"),
    ("v.json", b"{}", "no vectors in it"),
    ("v.json", b'{"a": [1, 2], "b": [1]}', "question 'b' has dimension 1, that of 'a' 2"),
    ("v.json", b'{"a": 1}', "question 'a' has dimension a single number"),
    ("v.json", b'{"a": ["x"]}', "question 'a' isn't a list of numbers"),
    ("v.json", b'{"a": [1, null]}', "question 'a' has NaN or infinity"),
    ("v.json", b'{"a": [1], "b": [2], "a": [3]}', "1 of 3 question ids occur more than once, 'a' first"),
    ("v.json", json.dumps(dict(zip("ab", NAN, strict=True))).encode(), "question 'b' has NaN or infinity"),
    ("v.json", b'{"a": [1e60]}', "question 'a' has NaN or infinity"),
    ("v.npz", b"not a zip", "no readable embeddings"),
    ("v.npz", b"", "no readable embeddings"),
    ("v.npz", {"names": np.array(IDS), "vectors": VECTORS}, "it holds names, vectors; give arrays 'ids'"),
    ("v.npz", {"ids": np.array(IDS, dtype=object), "vectors": VECTORS}, "an array of objects"),
    ("v.npz", {"ids": np.array(IDS[1:]), "vectors": VECTORS}, "3 ids for 4 vectors"),
    ("v.npz", {"ids": np.array(IDS), "vectors": VECTORS[:, 0]}, "of shape (4,)"),
    ("v.npz", {"ids": np.array(["a", "b", "a", "b"]), "vectors": VECTORS}, "2 of 4 question ids occur more"),
    ("v.parquet", b"PAR1", "no readable embeddings"),
    ("v.parquet", pl.DataFrame({"a": [1]}), "it has columns 'a'; name one 'question'"),
    ("v.parquet", pl.DataFrame({"question": ["a"]}), "no column except 'question'"),
    ("v.parquet", pl.DataFrame({"question": ["a"], "x": ["b"]}), "column 'x' doesn't hold numbers"),
    ("v.parquet", pl.DataFrame({"id": ["a"], "x": [None]}, {"id": pl.String, "x": pl.Float64}), "has NaN"),
    ("v.safetensors", b"junk", "no readable embeddings"),
    ("v.txt", b"a 1 x\n", "its first line is 'a 1 x'"),
    ("v.txt", b"2 2\na 1 2\nb 1\n", "row 3 has 1 numbers; the first says 2"),
    ("v.npz", {"ids": np.array(IDS), "vectors": VECTORS * 1j}, "complex numbers"),
    ("v.txt", b"1 2\na 1 x\n", "row 2 doesn't end in 2 numbers"),
    ("v.txt", b"3 1\na 1\nb 2\n", "2 vectors follow; the heading says 3"),
    ("v.txt", b"2 1\na 1\na 2\n", "1 of 2 question ids occur more than once, 'a' first"),
    ("v.bin", b"\xff\xfe\n", "no readable embeddings"),
    ("v.bin", b"999999999 999999\n", "can't hold the 999999999 vectors"),
    ("v.bin", b"1 2\na \0\0\0\0\0\0", "it ends inside vector 1 of 1"),
    ("v.bin", b"1 1\na \0\0\0\0\nb \0\0\0\0", "more follows after the 1 vectors"),
]


@pytest.mark.parametrize(("name", "held", "words"), BAD, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BAD)])
def test_a_mistake_is_one_line_that_names_the_file(name, held, words, tmp_path):
    path = tmp_path / name
    if isinstance(held, bytes):
        path.write_bytes(held)
    elif isinstance(held, dict):
        np.savez(path, **held)
    else:
        held.write_parquet(path)
    with pytest.raises(EmbeddingError) as caught:
        Embeddings.load(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


class Runs:
    """A pickle that runs code where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([1, 2], "it holds list; save {'ids'"),
        (torch.nn.Embedding(3, 2).state_dict(), "it holds weight; save {'ids'"),
        ({"ids": ["a"]}, "it holds ids; save {'ids'"),
        ({"ids": ["a"], "vectors": torch.ones(2, 3)}, "1 ids for 2 vectors"),
        ({"ids": ["a"], "vectors": torch.ones(3)}, "tensor of shape (3,), torch.strided; give dense (n, d)"),
        ({"ids": ["a"], "vectors": torch.eye(1).to_sparse()}, "torch.sparse_coo; give dense (n, d)"),
        ({"ids": ["a"], "vectors": torch.ones(1, 2, dtype=torch.complex64)}, "question 'a' has complex numbers"),
        ({"ids": ["a"], "vectors": torch.tensor([[1.0, float("inf")]])}, "question 'a' has NaN or infinity"),
        ({"ids": ["a", "a"], "vectors": torch.ones(2, 2)}, "'a' first"),
    ],
)
def test_what_is_wrong_in_a_file_of_torch_is_said(held, words, tmp_path):
    torch.save(held, tmp_path / "v.pt")
    with pytest.raises(EmbeddingError) as caught:
        Embeddings.load(tmp_path / "v.pt")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'v.pt'}: ")


def test_no_code_in_a_file_of_torch_is_run(tmp_path):
    torch.save({"ids": Runs(tmp_path / "ran"), "vectors": torch.ones(1, 2)}, tmp_path / "v.pt")
    with pytest.raises(EmbeddingError, match="it holds more than text, numbers and tensors"):
        Embeddings.load(tmp_path / "v.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["v.npz", "v.npy", "v.kv", "v.pkl", "v.pickle", "run/scores/v.npz", "walks/shard.npy"])
def test_no_code_in_a_file_is_run(name, tmp_path):
    path, ran = tmp_path / name, Runs(tmp_path / "ran")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, ids=np.array([ran], dtype=object), vectors=np.ones((1, 2)))
    elif path.suffix == ".npy":
        np.save(path, np.array([ran], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps((["a"], ran)))
    read = {"run": lambda: Run(tmp_path / "run").arrays("scores/v.npz"), "walks": lambda: read_npy(path)}
    with pytest.raises((QCQError, ValueError)):
        read.get(name.partition("/")[0], lambda: Embeddings.load(path))()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "int8"])
def test_numbers_of_every_type_that_torch_holds(kind, tmp_path):
    table = torch.tensor([[1.0, 2.0], [0.5, -4.0]]).to(getattr(torch, kind))
    torch.save({"ids": [7, "b"], "vectors": table}, tmp_path / "v.pt")
    emb = Embeddings.load(tmp_path / "v.pt")
    assert list(emb.ids) == ["7", "b"]
    assert np.array_equal(emb.vectors, table.float().numpy())


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_vectors_are_the_same_bytes(ending, tmp_path):
    files = [Embeddings(["a", "b"], VECTORS[:2]).save(tmp_path / f"{name}{ending}") for name in ("v", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_gensim_both_ways():
    kv = keyed()
    emb = Embeddings.from_keyedvectors(kv)
    assert list(emb.ids) == IDS
    assert np.array_equal(emb.vectors, VECTORS)
    back = emb.to_keyedvectors()
    assert [name for name, _ in back.most_similar("q1")] == [name for name, _ in emb.nearest("q1")]
    kv.vectors[0] = 9  # a copy: gensim's table is its own
    assert np.array_equal(emb.vectors, VECTORS)
    with pytest.raises(TypeError, match="kv takes a KeyedVectors, given dict; give gensim's, for example model"):
        Embeddings.from_keyedvectors({})


def test_a_row_of_zeros_is_like_nothing():
    emb = Embeddings(["a", "b", "c"], [[0, 0], [1, 2], [2, 4]])
    assert np.isfinite(emb.unit).all()
    assert [name for name, _ in emb.nearest("b")] == ["c", "a"]
    for ask in (emb.nearest, lambda question: similar_in(emb, question)):
        with pytest.raises(EmbeddingError, match="the vector of question 'a' is all zeros, so it is equally similar"):
            ask("a")


def test_equal_vectors_are_refused_wherever_they_are_compared():
    columns = {"parts": [{"name": "x", "columns": [0, 2]}, {"name": "difficulty", "columns": [2, 3]}]}
    rows = np.array([[1.0, 2, 0.1], [1, 2, 0.2], [1, 2, 0.3]])
    one = Embeddings(["a", "b", "c"], rows, provenance={**columns, "numbers": ["difficulty"]})
    assert Embeddings(one.ids, rows).nearest("a")[0][0] == "b"  # a number among them tells them apart
    said = "the vectors of all 3 questions are equal, so nothing tells one question from another; make them anew"
    for ask in (one.nearest, lambda question: similar_in(one, question)):
        with pytest.raises(EmbeddingError, match=said):
            ask("a")
    other = Embeddings(["c", "b", "a", "d"], np.eye(4)[:, :2])
    with pytest.raises(EmbeddingError, match=f"the second table: {said}"):
        difference(other, one)
    with pytest.raises(EmbeddingError, match=f"the first table: {said}"):
        difference(one, other)
    with pytest.raises(EmbeddingError, match="the second table: the vectors of all 2 questions are equal"):
        difference(Embeddings(["a", "d"], np.eye(2)), other)  # of the questions that are compared


def test_a_question_of_zeros_in_both_tables_has_not_moved():
    table = Embeddings(["a", "b", "c"], [[1.0, 0], [0, 0], [0, 1]])
    found = difference(table, table, k=1)
    assert found.moved.tolist() == [0, 0, 0]
    assert found.before == 0
    assert [note.partition(",")[0] for note in found.notes] == [
        f"the {name} table: 1 of 3 questions have a vector of zeros" for name in ("first", "second")
    ]
    assert difference(table, Embeddings(table.ids, [[1.0, 0], [1, 1], [0, 1]]), k=1).moved[1] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e-15, 1e18, 1e25, 1e38])
def test_a_cosine_does_not_depend_on_the_size_of_the_vectors(size):
    wanted, made = Embeddings(IDS, VECTORS), Embeddings(IDS, size * VECTORS.astype(np.float64))
    assert made.unit == pytest.approx(wanted.unit, abs=1e-6)
    assert [name for name, _ in made.nearest("q1")] == [name for name, _ in wanted.nearest("q1")]
    assert next(Cosines(made.vectors).of(np.array([0])))[1] == pytest.approx(
        next(Cosines(VECTORS).of(np.array([0])))[1], abs=1
    )
    assert principal(made.vectors) == pytest.approx(principal(VECTORS), abs=1e-5)
    assert difference(wanted, made, k=1).moved == pytest.approx(0, abs=1e-6)
    mixed = VECTORS * np.array(
        [[1.0], [size], [0.0], [1.0]], dtype=np.float32
    )  # each row by itself, a row of zeros among them
    assert Embeddings(IDS, mixed).unit == pytest.approx(wanted.unit * [[1], [1], [0], [1]], abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.array, list, pl.DataFrame, torch.tensor])
def test_a_row_too_small_for_float32_is_refused(kind):
    rows = np.array([[1.0, 1e-300], [0.0, 0.0], [1e-300, 0.0], [0.0, -1e-60]])
    with pytest.raises(EmbeddingError, match=r"of question 'fractions—½' is too small for float32 .* \(2 such rows\)"):
        Embeddings(IDS, kind(rows))
    assert Embeddings(IDS[:2], kind(rows[:2])).vectors.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    with pytest.raises(EmbeddingError, match="the vector of concept 'c' is too small for float32"):
        Embeddings(IDS, VECTORS, ["c"], kind(rows[2:3]))


@pytest.mark.parametrize("ending", [".npz", ".json", ".csv", ".parquet", ".pt", ".txt"])
def test_a_row_too_small_for_float32_is_refused_in_every_format_that_can_hold_it(ending, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("qcq.embeddings._checked", lambda rows, *_: np.array(rows))
        wide = Embeddings(["a", "b"], np.array([[1.0, 0.0], [1e-300, 0.0]])).save(tmp_path / f"v{ending}")
    with pytest.raises(EmbeddingError, match="the vector of question 'b' is too small for float32"):
        Embeddings.load(wide)


def test_torch_and_pandas_get_copies():
    emb = Embeddings(IDS, VECTORS)
    table, frame = emb.to_torch(), emb.to_pandas()
    assert table.dtype == torch.float32
    assert np.array_equal(table.numpy(), VECTORS)
    assert frame["question"].tolist() == IDS
    assert np.array_equal(frame[emb.columns].to_numpy(), VECTORS)
    table[0], frame.loc[0, "d0"] = 9.0, 9.0
    assert np.array_equal(emb.vectors, VECTORS)


def test_a_notebook_shows_counts_and_escaped_names():
    emb = Embeddings(["<script>", *IDS[1:]], VECTORS, ["c"], VECTORS[:1], {"seed": 3, "walk": {"name": "QCQ"}})
    shown = emb._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;, 10_13" in shown
    assert "<td>walk QCQ, seed 3</td>" in shown
    data = read([("<b>q", "a"), ("q2", "a"), ("q2", "<i>")])
    for each in (data, KnowledgeGraph.from_dataset(data)):
        shown = each._repr_html_()
        assert "&lt;b&gt;q" in shown
        assert "<b>" not in shown
        assert "<i>" not in shown
        assert "<th>edges</th><td>3</td>" in shown


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(EmbeddingError, match="no such file"):
        Embeddings.load(tmp_path / "v.npz")


def part(name="a", columns=(0, 3)):
    return {"name": name, "columns": list(columns)}


FOREIGN = [
    ([1], "the provenance is of type list; give an object"),
    ("x", "the provenance is of type str; give an object"),
    (None, "the provenance is of type NoneType; give an object"),
    ({"parts": [{"name": "a"}], "numbers": ["a"]}, r"the provenance, parts\.0\.columns: field required"),
    ({"parts": {"a": 1}}, "the provenance, parts: input should be an instance of sequence"),
    ({"parts": ["a"]}, r"the provenance, parts\.0: input should be a valid dictionary"),
    ({"parts": [part(1)]}, r"the provenance, parts\.0\.name: input should be a valid string"),
    ({"parts": [part(columns=[0])]}, r"the provenance, parts\.0\.columns: .*at least 2 items"),
    ({"parts": [part(columns=[0, 1, 3])]}, r"the provenance, parts\.0\.columns: .*at most 2 items"),
    ({"parts": [part(columns=[0, "3"])]}, r"the provenance, parts\.0\.columns\.1: input should be a valid integer"),
    ({"parts": [part(columns=[0, 3.5])]}, r"the provenance, parts\.0\.columns\.1: input should be a valid integer"),
    ({"parts": [part(columns=[0, 4])]}, "parts of columns 0 to 4; let one follow the other from 0 to 3"),
    ({"parts": [part(columns=[0, 2])]}, "parts of columns 0 to 2; let one follow the other from 0 to 3"),
    ({"parts": [part(columns=[-1, 3])]}, "parts of columns -1 to 3"),
    ({"parts": [part(columns=[0, 5]), part("b", [5, 3])]}, "parts of columns 0 to 5, 5 to 3"),
    ({"parts": [part(columns=[0, 2]), part("b", [1, 3])]}, "parts of columns 0 to 2, 1 to 3"),
    ({"numbers": "a"}, "the provenance, numbers: "),
    ({"numbers": [1]}, r"the provenance, numbers\.0: input should be a valid string"),
    ({"seed": "x"}, "the provenance, seed: input should be a valid integer"),
]


@pytest.mark.parametrize(("said", "words"), FOREIGN, ids=[json.dumps(said) for said, _ in FOREIGN])
def test_a_foreign_provenance_is_one_line(said, words, tmp_path):
    with pytest.raises(EmbeddingError, match=words):
        Embeddings(IDS, VECTORS, provenance=said)
    tensors = {"questions": VECTORS, "question_ids": np.frombuffer(json.dumps(IDS).encode(), dtype=np.uint8)}
    save_file(tensors, tmp_path / "v.safetensors", {"provenance": json.dumps(said)})
    with pytest.raises(EmbeddingError, match=f"v.safetensors: .*{words}"):
        Embeddings.load(tmp_path / "v.safetensors")


def test_a_provenance_may_hold_what_nobody_knows(tmp_path):
    for said in ({}, {"name": "x", "columns": 3, "walk": None, "trainer": [1]}, {"parts": [], "numbers": []}):
        emb = Embeddings.load(Embeddings(IDS, VECTORS, provenance=said).save(tmp_path / "v.safetensors"))
        assert emb.columns == ["d0", "d1", "d2"]
        assert emb.compared.all()
        assert "dimensions" in emb._repr_html_()
        both = emb.concatenate({"n": range(4)})
        assert both.columns == ["embedding.0", "embedding.1", "embedding.2", "n"]
        assert Embeddings.load(both.save(tmp_path / "w.safetensors")).columns == both.columns


def test_foreign_safetensors_say_what_they_lack(tmp_path):
    save_file({"vectors": VECTORS}, tmp_path / "v.safetensors")
    with pytest.raises(EmbeddingError, match="the metadata has no 'ids'"):
        Embeddings.load(tmp_path / "v.safetensors")
    save_file({"weight": VECTORS}, tmp_path / "v.safetensors")
    with pytest.raises(EmbeddingError, match="it holds weight; give 'questions'"):
        Embeddings.load(tmp_path / "v.safetensors")


@budget(max_examples=40, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(sorted(READERS)))
def test_whatever_the_bytes_nothing_but_our_own_error_comes_out(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"v{suffix}"
    path.write_bytes(data)
    with suppress(EmbeddingError):
        Embeddings.load(path)


def test_vectors_are_put_into_the_order_of_the_questions():
    emb = Embeddings(IDS, VECTORS)
    order = [2, 0, 3, 1]
    turned = emb.aligned([IDS[i] for i in order])
    assert np.array_equal(turned.vectors, VECTORS[order])
    with pytest.raises(EmbeddingError, match=r"1 of 5 questions have no vector: 'q5'; give each question one$"):
        emb.aligned([*IDS, "q5"])
    with pytest.raises(EmbeddingError, match=r"2 of 2 questions have no vector: 'a', 'b'; .*compared as text"):
        emb.aligned(["a", "b"])
    with pytest.raises(EmbeddingError, match="1 vectors belong to no question of the data set, 'q4' first"):
        emb.aligned(IDS[:3])


@pytest.mark.parametrize(("n", "k"), [(5, 3), (1024, 1), (5000, 4), (5000, 5), (5000, 200), (3000, 0)])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_the_highest_are_those_of_a_whole_sort(n: int, k: int, levels: int) -> None:
    """Ties, of which three levels give many, in index order; one block more or less than ``k`` too."""
    values = np.random.default_rng(n + k).integers(0, levels, n).astype(np.float32)
    assert _highest(values, k).tolist() == np.argsort(-values, kind="stable")[:k].tolist()
    values[::2] = -np.inf
    assert _highest(values, k).tolist() == np.argsort(-values, kind="stable")[:k].tolist()


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5])
def test_a_filter_on_a_large_table_finds_what_brute_force_finds(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcq.embeddings._LARGE", 10)
    rng = np.random.default_rng(1)
    emb = Embeddings([f"q{i}" for i in range(6000)], rng.normal(size=(6000, 8)))
    where = rng.random(6000) < share
    where[0] = True
    cosine = emb.unit.astype(np.float64) @ emb.unit[0]
    rows = [i for i in np.argsort(-cosine) if where[i] and i != 0][:7]
    found = emb.nearest("q0", 7, where=where)
    assert [name for name, _ in found] == [f"q{i}" for i in rows]
    assert [s for _, s in found] == pytest.approx(cosine[rows], abs=1e-6)
