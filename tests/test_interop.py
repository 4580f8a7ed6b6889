"""Text and vocabulary as other tools read them: readers written from each tool's documentation give the walks back."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from qcq.corpus import SPECIAL, Corpus
from qcq.embeddings import Embeddings
from qcq.errors import CorpusError
from qcq.graph import KnowledgeGraph
from qcq.walks import QCQ

WORDLIKE = [f"q{i}" for i in range(9)] + ["Prob17", "été", "17", "x" * 200, "naïve2"]


@pytest.fixture
def files(tmp_path) -> tuple[Corpus, Path, Path]:
    edges = [(name, f"c{i % 3}") for i, name in enumerate(WORDLIKE)] + [("q0", "c1"), ("q5", "c0")]
    graph = KnowledgeGraph.from_edges(edges)
    corpus = QCQ(length=7, per_question=3).sample(graph, 1)
    names = list(graph.questions)
    return (
        corpus,
        corpus.to_text(tmp_path / "corpus.txt", names),
        corpus.write_vocabulary(tmp_path / "vocab.txt", names),
    )


def walks(corpus: Corpus) -> list[list[int]]:
    return [[int(t) + len(SPECIAL) for t in walk] for walk in corpus.sentences()]


def vocabulary(path: Path) -> dict[str, int]:
    """One token a line, its number is the line's (google-research/bert, UER-py, bert4keras)."""
    return {line.split()[0]: i for i, line in enumerate(path.read_text(encoding="utf-8").splitlines())}


def is_punctuation(char: str) -> bool:
    """All ASCII that is neither letter nor digit nor white space, and Unicode's punctuation."""
    return (char.isascii() and char.isprintable() and not char.isalnum() and char != " ") or unicodedata.category(char)[
        0
    ] == "P"


def is_cjk(char: str) -> bool:
    blocks = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
    return any(low <= ord(char) <= high for low, high in blocks)


def pieces(word: str, known: dict[str, int]) -> list[str]:
    """Greedy longest match first; what can't be covered, or is longer than 200 characters, is unknown."""
    out: list[str] = []
    at = 0
    while at < len(word) <= 200:
        ends = [e for e in range(len(word), at, -1) if ("##" if at else "") + word[at:e] in known]
        if not ends:
            return ["[UNK]"]
        out.append(("##" if at else "") + word[at : ends[0]])
        at = ends[0]
    return out if len(word) <= 200 else ["[UNK]"]


def bert(line: str, known: dict[str, int], lower: bool = False) -> list[int]:
    """BERT's basic tokenizer, then word pieces: google-research/bert, and the default of UER-py and bert4keras."""
    if lower:
        line = "".join(c for c in unicodedata.normalize("NFD", line.lower()) if unicodedata.category(c) != "Mn")
    line = "".join(c for c in line if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    spaced = "".join(f" {c} " if is_punctuation(c) or is_cjk(c) else c for c in line)
    return [known[piece] for word in spaced.split() for piece in pieces(word, known)]


def test_google_bert_reads_the_walks_back(files):
    """A line is a sentence; documents are divided by empty lines, of which there are none."""
    corpus, text, vocab = files
    known = vocabulary(vocab)
    lines = text.read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    assert all(line.strip() for line in lines[:-1])
    assert [bert(line, known) for line in lines[:-1]] == walks(corpus)
    assert list(known)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(known) == 5 + corpus.n_questions


def test_uer_py_reads_the_walks_back_with_its_space_tokenizer(files):
    """Words between single spaces, and no other white space; a line is a document."""
    corpus, text, vocab = files
    known = vocabulary(vocab)
    lines = text.read_text(encoding="utf-8").splitlines()
    assert [[known[word] for word in line.strip().split(" ")] for line in lines] == walks(corpus)


def test_bert4keras_reads_the_walks_back_word_by_word(files):
    """Its pre-processing cuts a text into words by a function that it is given, and looks each up by itself."""
    corpus, text, vocab = files
    known = vocabulary(vocab)
    lines = text.read_text(encoding="utf-8").splitlines()
    assert [[i for word in line.split() for i in bert(word, known)] for line in lines] == walks(corpus)


def test_names_with_punctuation_are_for_tools_that_divide_words_by_spaces_only(tmp_path):
    """What docs/interop.md warns of is so, and numbering the questions, as it says, avoids it."""
    graph = KnowledgeGraph.from_edges([("q_1", "c"), ("q.2", "c"), ("第三", "c")])
    corpus = QCQ(length=4, per_question=2).sample(graph, 0)
    for names, split in ((list(graph.questions), True), ([f"q{i}" for i in range(3)], False)):
        text = corpus.to_text(tmp_path / "c.txt", names).read_text(encoding="utf-8").splitlines()
        known = vocabulary(corpus.write_vocabulary(tmp_path / "v.txt", names))
        assert [[known[w] for w in line.split(" ")] for line in text] == walks(corpus)
        assert ([bert(line, known) for line in text] != walks(corpus)) == split
    known = {**known, "prob": 8}
    assert bert("Prob", known) == [1]
    assert bert("Prob", known, lower=True) == [8]


def test_transformers_reads_the_walks_back(files):
    """With the tokenizer that google's files are loaded into."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    corpus, text, vocab = files
    tokenizer = transformers.BertTokenizer(str(vocab), do_lower_case=False, strip_accents=False)
    lines = text.read_text(encoding="utf-8").splitlines()[:12]
    long = [i for i, line in enumerate(lines) if "x" * 200 not in line]
    found = tokenizer([lines[i] for i in long], add_special_tokens=False)["input_ids"]
    assert found == [walks(corpus)[i] for i in long]
    assert np.array_equal(vocabulary(vocab)["[MASK]"], tokenizer.mask_token_id)


# --- Spark ------------------------------------------------------------------------------------------------------------


def test_a_table_for_spark_has_a_column_of_arrays_of_text(tmp_path, monkeypatch):
    import polars as pl

    monkeypatch.setattr("qcq.corpus._TABLE_BLOCK", 7 * 4)  # several files a shard
    tokens = np.random.default_rng(0).integers(0, 5, (40, 4)).astype(np.int32)
    tokens[::3, 2:] = -1
    names = ["q 1", "q,2", 'q"3', "题", "q5"]
    with pytest.raises(CorpusError, match="white space"):
        Corpus([tokens], 5, 0, "").to_parquet(tmp_path / "walks.parquet", names)
    names[0] = "q1"
    for shards in ([tokens, tokens], np.split(tokens, [1, 30])):  # the second is smaller: no file of the first is left
        corpus = Corpus(shards, 5, 0, "")
        folder = corpus.to_parquet(tmp_path / "walks.parquet", names)
        table = pl.read_parquet(folder / "*.parquet")
        assert table.schema == {"random_walk": pl.List(pl.String)}
        assert table["random_walk"].to_list() == [[names[t] for t in walk] for walk in corpus.sentences()]
    others = [path.name for path in folder.iterdir() if not path.name.startswith("part-")]
    assert others == ["_SUCCESS"]


def test_vectors_that_spark_wrote_are_read(tmp_path):
    """Spark's part file after ``vector_to_array``: a column of text and one of arrays of float64."""
    import polars as pl

    rows = np.random.default_rng(0).standard_normal((3, 4))
    frame = pl.DataFrame({"question": ["q1", "q2", "q3"], "vector": rows.tolist()})
    frame.write_parquet(tmp_path / "part-00000.snappy.parquet")
    emb = Embeddings.load(tmp_path / "part-00000.snappy.parquet")
    assert list(emb.ids) == ["q1", "q2", "q3"]
    assert np.array_equal(emb.vectors, rows.astype(np.float32))


def test_the_command_writes_the_table(tmp_path, capsys):
    import polars as pl

    from qcq.cli import main

    small = ["--set=simulated.questions=60", "--set=simulated.students=10", "--set=walk.length=6"]
    with pytest.raises(SystemExit) as ended:
        main(["walk", "--quiet", "--parquet", "--out", str(tmp_path / "corpus"), *small])
    assert ended.value.code in (0, None)
    corpus = Corpus.load(tmp_path / "corpus")
    assert len(pl.read_parquet(tmp_path / "corpus" / "walks.parquet" / "*.parquet")) == corpus.n_walks


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_spark_itself_reads_the_walks_and_its_vectors_come_back(tmp_path):
    pytest.importorskip("pyspark", reason="needs pyspark")
    from pyspark.ml.feature import Word2Vec
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    graph = KnowledgeGraph.from_edges([(f"q{i}", f"c{i % 4}") for i in range(20)])
    corpus = QCQ(length=10, per_question=5).sample(graph, 0)
    folder = corpus.to_parquet(tmp_path / "walks.parquet", graph.questions)
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        walks = spark.read.parquet(str(folder))
        assert walks.dtypes == [("random_walk", "array<string>")]
        assert walks.count() == corpus.n_walks
        model = Word2Vec(inputCol="random_walk", outputCol="mean", vectorSize=8, minCount=1, seed=0).fit(walks)
        named = f.col("word").alias("question"), vector_to_array("vector").alias("vector")
        model.getVectors().select(*named).coalesce(1).write.parquet(str(tmp_path / "vectors"))
    finally:
        spark.stop()
    emb = Embeddings.load(next((tmp_path / "vectors").glob("part-*.parquet")))
    assert set(emb.ids) == set(graph.questions)
    assert emb.vectors.shape == (20, 8)
