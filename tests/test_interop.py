"""Text and vocabulary as other tools read them: readers written from each tool's documentation give the walks back."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from qcq.corpus import SPECIAL, Corpus
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
