"""What a reader sees: numbers come from results, sentences are short, words are the field's own."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import qcq

ROOT = Path(qcq.__file__).parent
# Made by commands, and held to their sources by tests of their own.
MADE = {"checks.md", "licences.md", "study.md", "tests_read.md"}
PAGES = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")]
HELD = sorted(path.relative_to(ROOT).as_posix() for path in PAGES if path.name not in MADE)
WRITTEN = ["README.md", "README.zh.md", *HELD]
# Pages whose words and sentences are held, but not their digits.
WORDED = [
    *WRITTEN,
    "docs/checks.md",
    "docs/licences.md",
    "docs/study.md",
    "docs/tests_read.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
LONGEST = 35  # words in a sentence; a semicolon or a colon ends none
LONGEST_CHINESE = 90  # characters without spaces
# Everyday words that once had a meaning of our own; the glossary has the field's terms.
# "part" and "less" are fine where they have their everyday meaning.
PRIVATE = (
    r"\b(foresee\w*|drawn to|hangs? on|stands?|stood|beside|marked papers?|units?|probe|(?<!online )judge"
    r"|(?:test|training|validation) parts?|parts? of (?:a|the) split|less (?:theirs|the \w+'s|skip-gram's))\b"
)


@pytest.fixture(scope="module")
def quoted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quoted", ROOT / "docs" / "quoted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numbers_of_the_pages_are_those_of_the_results(quoted: ModuleType) -> None:
    drawn = [*quoted.decisions(), *quoted.pages()]
    stale = [page.name for page in drawn if quoted.drawn(text := page.read_text(encoding="utf-8")) != text]
    assert not stale, "run python docs/quoted.py"


def test_remarks_of_the_study_quote_the_results(quoted: ModuleType) -> None:
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert quoted.drawn(text) == text, "change the remarks in docs/results/study_medium.json"


def test_every_digit_has_a_source(quoted: ModuleType) -> None:
    found = [
        f"{page.name}:{line}: {hit}"
        for page in (ROOT / name for name in WRITTEN)
        for line, hit in quoted.loose(page.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("An AUC of 0.777 was reached.", ["0.777"]),
        ("| skipgram | 0.5 |", ["0.5"]),
        ("An excess of 3.57 nats, on Python 3.11 to 3.14.", ["3.57"]),
        ("It has 17,737 questions, 95 % intervals, in 2009, by word2vec, `dim=64`.", ["17,737"]),
        ("Three seeds [0611](decisions/0611-what.md), 0.8<!--x.md: a :: b-->", []),
    ],
)
def test_a_planted_digit_is_found(quoted: ModuleType, text: str, found: list[str]) -> None:
    assert [hit for _, hit in quoted.loose(text)] == found


def test_figures_of_a_decision_have_an_origin(quoted: ModuleType) -> None:
    assert len(quoted.decisions()) > 30
    found = [
        f"{page.name}:{line}: {hit}"
        for page in quoted.decisions()
        for line, hit in quoted.unexplained(page.read_text(encoding="utf-8"))
    ]
    assert not found, "draw them from a results file, or say below where they come from: docs/quoted.py"


TABLE = "| trainer | auc |\n|---|---|\n| svd | 0.75 |\n| sgns | 0.77 |\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TABLE, ["0.75", "0.77"]),
        (f"{TABLE}\nBoth are high.\n\nFigures: by `python benchmarks/kt.py`.\n", ["0.75", "0.77"]),
        (f"{TABLE}\nFigures: by `python benchmarks/kt.py`.\n", []),
        (f"{TABLE}\nFigures: by `python benchmarks/gone.py`.\n", ["Figures: by `python benchmarks/gone.py`."]),
        (f"{TABLE}\nFigures: taken once with a script\nthat was not kept.\n", []),
        (f"{TABLE}\nFigures: measured.\n", ["Figures: measured."]),
        (f"{TABLE}\nFigures: arithmetic.\n\nThe best has 0.8.\n\n{TABLE}", ["0.75", "0.77"]),
        ("The gain is 0.004, of 17,737 questions, in 3 runs.", ["0.004", "17,737"]),
        ("The gain is 0.004.\n\nFigures: by `qcq run --data simulated`.\n", []),
        ("The gain is 0.004<!--a.md: svd :: auc-->, in 3 runs of `x=0.5`.", []),
    ],
)
def test_a_planted_figure_of_a_decision_is_found(quoted: ModuleType, text: str, found: list[str]) -> None:
    assert [hit for _, hit in quoted.unexplained(text)] == found


def test_a_changed_result_changes_the_page(quoted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quoted, "RESULTS", tmp_path)
    quoted.rows.cache_clear()
    (tmp_path / "a.md").write_text(
        "- 17,737 questions, 123 concepts\n- auc: a beats b by +0.004 [+0.001, +0.007]\n\n"
        "| trainer | auc | cost, s |\n|---|---|---|\n| svd | 0.75 ± 0.01 | 3 |\n| sgns | 0.77 ± 0.02 | 12 |\n"
    )
    (tmp_path / "b.json").write_text('{"rounds": 5, "rows": [{"case": "x", "peer": "y", "ratio": 2.7182}]}')
    assert quoted.drawn("0.1<!--a.md: sgns :: auc-->") == "0.8<!--a.md: sgns :: auc-->"
    assert quoted.drawn("0.10 ± 0.00<!--a.md: svd :: auc-->").startswith("0.75 ± 0.01<")
    assert quoted.drawn("0.000 [0.000, 0.000]<!--a.md: ~a beats b :: difference-->").startswith("0.004 [0.001, 0.007]<")
    assert quoted.drawn("1<!--a.md: :: questions-->").startswith("17,737<")
    assert quoted.drawn("1.0<!--b.json: x, peer=y, rounds=5 :: ratio-->").startswith("2.7<")
    rows = quoted.drawn("<!--rows a.md: sgns; svd :: trainer; cost, s-->\nold\n<!--end-->")
    assert rows.splitlines()[1:-1] == ["| trainer | cost, s |", "| --- | ---: |", "| sgns | 12 |", "| svd | 3 |"]
    (tmp_path / "c.json").write_text(
        '{"far": {"lags": [1, 0.25]}, "runs": [{"row": "0.6*q-c-q", "r2": 0.5, "r2_sd": 3e-3}, {"row": "b", "r2": 1}]}'
    )
    assert quoted.drawn("0.00<!--c.json: path=far/ :: lags 2-->").startswith("0.25<")
    assert quoted.drawn("0.00 ± 0.00<!--c.json: ~q-c-q :: r2-->").startswith("0.50 ± 0.00<")
    (tmp_path / "d.json").write_text('{"gain": {"value": 0.126, "low": 0.09, "high": 0.15}}')
    assert quoted.drawn("0.00 [0.00, 0.00]<!--d.json: in=gain :: interval-->").startswith("0.13 [0.09, 0.15]<")
    rows = quoted.drawn("<!--rows c.json: ~q-c-q; b :: row; r2 .3-->\n<!--end-->")
    assert rows.splitlines()[3:-1] == ["| 0.6\\*q-c-q | 0.500 ± 0.003 |", "| b | 1.000 |"]
    assert "beats b" in quoted.drawn("<!--lines a.md: a beats-->\n<!--end-->")


@pytest.mark.parametrize(
    "place", ["a.md: :: auc", "a.md: mlm :: auc", "a.md: svd :: loss", "a.md: svd :: trainer", "none.md: svd :: auc"]
)
def test_a_place_that_names_no_single_number_is_refused(
    quoted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(quoted, "RESULTS", tmp_path)
    quoted.rows.cache_clear()
    (tmp_path / "a.md").write_text("| trainer | auc |\n|---|---|\n| svd | 0.75 |\n| sgns | 0.77 |\n")
    with pytest.raises(quoted.SourceError):
        quoted.drawn(f"0.5<!--{place}-->")


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose, without code, tables, comments and targets of links."""
    text = re.sub(r"```.*?```|<!--.*?-->|<picture>.*?</picture>", " ", text, flags=re.DOTALL)
    text = "\n".join("" if line.startswith(("|", "#")) else line for line in text.splitlines())
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    return [s for block in text.split("\n\n") for s in re.split(r"(?<=[.!?])\s+", " ".join(block.split())) if s]


@pytest.mark.parametrize("page", WORDED)
def test_sentences_are_short_and_words_are_the_fields(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    long = [s for s in sentences(text) if len(s.split()) > LONGEST]
    assert not long
    prose = re.sub(r"`[^`\n]*`|<!--.*?-->|```.*?```", "", text, flags=re.DOTALL)
    assert not re.findall(PRIVATE, prose, flags=re.IGNORECASE)


def test_chinese_sentences_are_short() -> None:
    text = re.sub(
        r"<!--.*?-->|```.*?```|\]\([^)]*\)", "", (ROOT / "README.zh.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    parts = ["".join(part.split()) for part in re.split(r"[。！？]|\n\n|\n\d+\. ", text)]
    assert max(map(len, parts)) > 20
    assert not [part for part in parts if len(part) > LONGEST_CHINESE]
