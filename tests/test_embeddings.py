"""Reading anybody's vectors: every format against the library that writes it, and one clear line for every mistake."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qcq.embeddings import FORMATS, Embeddings
from qcq.errors import EmbeddingError

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
    assert set(FORMATS) == {"." + n.rpartition(".")[2] for n in WRITERS}


def test_numbers_as_ids_are_text(tmp_path):
    np.savez(tmp_path / "v.npz", ids=np.arange(4), vectors=VECTORS)
    assert list(Embeddings.load(tmp_path / "v.npz").ids) == ["0", "1", "2", "3"]


def test_an_id_may_have_spaces_in_word2vec_text(tmp_path):
    keyed(["adding halves", *IDS[1:]]).save_word2vec_format(tmp_path / "v.txt")
    assert list(Embeddings.load(tmp_path / "v.txt").ids) == ["adding halves", *IDS[1:]]


NAN = [[1.0, 2.0], [float("nan"), 1.0]]
BAD = [
    ("v.pt", b"", "no vectors are read from '.pt'; give .safetensors, .npz"),
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
    ("v.parquet", pl.DataFrame({"a": [1]}), "it has columns a; name one 'question'"),
    ("v.parquet", pl.DataFrame({"question": ["a"]}), "no column except 'question'"),
    ("v.parquet", pl.DataFrame({"question": ["a"], "x": ["b"]}), "column 'x' doesn't hold numbers"),
    ("v.parquet", pl.DataFrame({"id": ["a"], "x": [None]}, {"id": pl.String, "x": pl.Float64}), "has NaN"),
    ("v.safetensors", b"junk", "no readable embeddings"),
    ("v.txt", b"a 1 2\n", "its first line is 'a 1 2'"),
    ("v.txt", b"2 2\na 1 2\nb 1\n", "row 3 has 1 numbers; the heading says 2"),
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


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(EmbeddingError, match="no such file"):
        Embeddings.load(tmp_path / "v.npz")


def test_foreign_safetensors_say_what_they_lack(tmp_path):
    save_file({"vectors": VECTORS}, tmp_path / "v.safetensors")
    with pytest.raises(EmbeddingError, match="the metadata has no 'ids'"):
        Embeddings.load(tmp_path / "v.safetensors")
    save_file({"weight": VECTORS}, tmp_path / "v.safetensors")
    with pytest.raises(EmbeddingError, match="it holds weight; give 'questions'"):
        Embeddings.load(tmp_path / "v.safetensors")


@budget(max_examples=40, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(sorted(FORMATS)))
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
    with pytest.raises(EmbeddingError, match=r"1 of 5 questions have no vector, 'q5' first; give each question one$"):
        emb.aligned([*IDS, "q5"])
    with pytest.raises(EmbeddingError, match=r"2 of 2 questions have no vector, 'a' first; .*compared as text"):
        emb.aligned(["a", "b"])
    with pytest.raises(EmbeddingError, match="1 vectors belong to no question of the data set, 'q4' first"):
        emb.aligned(IDS[:3])
