"""Names are text in every page of Markdown, as a reader of Markdown shows it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy import sparse

from qcq.config import Config
from qcq.data import Dataset
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.pipeline import Experiment
from qcq.report import write_folds, write_report
from qcq.report.export import export
from qcq.run import Run
from qcq.study.page import _cells, _measures, _ran, _section, _table
from qcq.support.markdown import code, plain, plain_table
from qcq.support.terminal import markdown_table

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = "<b>n|x [l](javascript:1) `t\n# h ``` &lt; *e* _e_ ~~s~~ ![i](x)"
SHOWN = NASTY.replace("\n", " ")
PIECES = (
    *("<b>", "</b>", "<!--", "-->", "<http://x.y>", "&lt;", "&#60;", "[l](x)", "![i](x)", "[x]: y", "[^1]", "`", "``"),
    *("**", "*", "_", "__", "~~", "\\", "\\\\", "\\|", "|", "#", "# ", "- ", "+ ", "> ", "1. ", "1) ", "---", "***"),
    *("```", "~~~", "$x$", " ", "    ", "\t", "\n", "\r\n", "\u2028", "a", "é", "7", ".", ":", "@", "{x}"),
)
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=12)
LINE_END = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


def written(text: str) -> str:
    """HTML of a text that has no markup."""
    return html.escape(text.replace("\0", "\ufffd")).replace("&#x27;", "'")


def spaced(text: str) -> str:
    """With the spaces that a reader sees."""
    return re.sub(r"[ \t]+", " ", LINE_END.sub(" ", text)).strip()


class Seen(HTMLParser):
    """The tags of a rendered page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.text = ""
        self.feed(READER.render(page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for _, value in attrs]
        else:
            self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("- ", "", "<ul>\n<li>(.*)</li>\n</ul>\n"),
        ("# ", "", "<h1>(.*)</h1>\n"),
        ("# ", ": which", "<h1>(.*): which</h1>\n"),
        ("", ": 3 questions", "<p>(.*): 3 questions</p>\n"),
        ("- the best, ", ", is", "<ul>\n<li>the best,(.*), is</li>\n</ul>\n"),
    ],
)
@given(TEXT)
@example(NASTY)
def test_any_text_is_text_wherever_it_stands(before: str, after: str, wanted: str, text: str) -> None:
    found = re.fullmatch(wanted, READER.render(f"{before}{plain(text)}{after}\n"), flags=re.DOTALL)
    assert found, plain(text)
    assert spaced(found[1]) == spaced(written(text))


@given(TEXT, TEXT)
@example(NASTY, "a\\|b")
def test_any_text_is_one_cell_or_one_span_of_code(one: str, two: str) -> None:
    table = READER.render(plain_table(["a", one], [[one, two]], 2))
    assert list(map(spaced, re.findall("<td>(.*?)</td>", table, re.DOTALL))) == [spaced(written(x)) for x in (one, two)]
    assert len(re.findall("<th>", table)) == 2
    spans = READER.render(f"x {code(one)}, {plain(two)}, {code(two)}\n")
    wanted = [LINE_END.sub(" ", written(x)) or " " for x in (one, two)]
    assert re.findall("<code>(.*?)</code>", spans, re.DOTALL) == wanted


@pytest.mark.parametrize(
    "name",
    [
        *(
            "two_words",
            "kt-peer@qdkt",
            "q7",
            "-0.5",
            "+0.012 [-0.003, +0.027]",
            "p > 0.05",
            "3 * 4",
            "AT&T",
            "C:\\data",
        ),
        *("Brüche (leicht)", "分数", "0.633 ± 0.182", "–", "1.5", "metapath@order", "a/b: c; d", "5 %"),
    ],
)
def test_an_ordinary_name_is_written_as_it_is(name: str) -> None:
    assert plain(name) == name
    assert code(name) == f"`{name}`"


def test_a_table_for_a_terminal_has_no_other_signs_than_its_cells() -> None:
    assert markdown_table(["a|b"], [["<b>_x_ `y`"]], 1).splitlines()[2] == "| <b>_x_ `y` |"
    assert markdown_table(["a|b"], [], 1).splitlines()[0] == "| a\\|b |"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a data set that is called something awkward, with a file of vectors that is too."""
    home, rng = tmp_path_factory.mktemp("nasty"), np.random.default_rng(0)
    questions = [f"{NASTY} {i}" if i < 3 else f"q{i}" for i in range(60)]
    tests = np.zeros((60, 7))
    for i in range(60):
        tests[i, [i % 7, (i * 3 + 1) % 7]] = 1
    student, question = np.repeat(np.arange(40), 20), np.concatenate([rng.permutation(60)[:20] for _ in range(40)])
    answers = Interactions(
        *(x.astype(t) for x, t in ((student, "i4"), (question, "i4"), (rng.random(800) < 0.6, "i1")))
    )
    students, concepts = [f"s{i}" for i in range(40)], [f"c{i}" for i in range(7)]
    notes = (f"doubtful: two names, {NASTY!r} and {NASTY}", f"files not read: {NASTY}")
    data = Dataset(SHOWN, questions, concepts, sparse.csr_array(tests), answers, students, notes=notes)
    Embeddings(questions, rng.standard_normal((60, 4))).save(home / "v.npz")
    options = {"trainers": ["svd"], "tasks": ["edges", "difficulty"], "seeds": 1, "tune": False}
    made = Experiment(Config.load(**options, vectors={SHOWN.replace("/", "-"): str(home / "v.npz")}), data)
    return made.run(home / "run")


ALLOWED = set(re.findall(r"\w+", "h1 h2 ul li p strong code pre table thead tbody tr th td"))


def told(page: str, *links: str) -> str:
    """The text of a page that has only the tags and the links of its writer."""
    seen = Seen(page)
    assert not seen.tags - ALLOWED
    assert seen.links == list(links)
    return seen.text


def test_no_name_is_markup_in_a_report(nasty: Run) -> None:
    text = told((nasty.path / "report.md").read_text(encoding="utf-8"))
    assert f"{SHOWN}: which question vectors" in text
    assert f"doubtful: two names, {NASTY!r} and {SHOWN}" in text
    assert f"files not read: {SHOWN}" in text
    assert f"{SHOWN}: read from a file" in text


def test_no_command_and_no_reason_is_markup_in_a_report(nasty: Run, tmp_path: Path) -> None:
    class Changed(Run):
        def read_json(self, name: str | Path) -> dict[str, Any]:
            instead: dict[str, dict[str, Any]] = {
                "about.json": {"skipped_tasks": {NASTY: NASTY}},
                "environment.json": {"command": NASTY},
            }
            return super().read_json(name) | instead[str(name)]

    changed = Changed(nasty.path)
    before = (nasty.path / "report.md").read_text(encoding="utf-8")
    try:
        write_report(changed)
        text = told((nasty.path / "report.md").read_text(encoding="utf-8"))
    finally:
        (nasty.path / "report.md").write_text(before, encoding="utf-8")
    assert f"{SHOWN} was left out: {SHOWN}" in text
    assert f"command: {SHOWN}; every setting" in text


def test_no_name_is_markup_in_a_card(nasty: Run, tmp_path: Path) -> None:
    folder = tmp_path / 'my "v" *x*'
    (trainer,) = nasty.config["vectors"]
    export(nasty.path, folder, "hub", trainer=trainer)
    page = (folder / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]
    text = told(page)
    assert text.lstrip().startswith('my "v" *x*\n')
    assert f"{SHOWN}: 60 questions" in text
    assert f"Trainer: {SHOWN}, read-out" in text
    assert f"doubtful: two names, {NASTY!r} and {SHOWN}" in text
    assert "the trainer's settings: {" in text
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    compile(block, "README.md", "exec")


def test_no_name_is_markup_in_the_report_of_folds(nasty: Run, tmp_path: Path) -> None:
    page = write_folds([nasty, nasty], tmp_path).read_text(encoding="utf-8")
    text = told(page, "fold-1/report.md", "fold-2/report.md")
    assert f"{SHOWN}, 2 folds" in text
    assert f"\n{SHOWN}\n" in text  # a cell of the table


def test_no_name_is_markup_on_the_page_of_a_study() -> None:
    about = {"questions": 1, "concepts": 1, "responses": 0}
    cells = {NASTY: {"error": NASTY}}
    found = {NASTY: {"cells": cells, "measures": {}}, f"{NASTY} 2": {"cells": {}, "why": NASTY}}
    results = {"data": dict.fromkeys(found, about), "size": "own", "found": {"far": found}}
    for text in map(told, (_ran(results), _measures(results, "far"), _cells(found))):
        assert SHOWN in text
    assert f"{SHOWN} 2: not judged: {SHOWN}" in Seen(_section(results, "far", False)).text
    assert SHOWN in told(_table({**results, "found": {"far": {}}}, []))
