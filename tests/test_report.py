"""The HTML report: what it says is what the run holds, ids are text whatever they look like, and it works in a browser.

The browser tests need Chromium. Where there is none they are skipped, unless QCQ_REQUIRE_CHROMIUM is set.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import qcq
from qcq import cli
from qcq.config import Config
from qcq.data import Dataset
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, TrainingError
from qcq.evaluation import Difference
from qcq.pipeline import Experiment
from qcq.report import comparison, maps, write_page
from qcq.report.comparison import _NAMES as comparison_names
from qcq.report.comparison import Column, Comparison, Line, PairedComparison, standings
from qcq.report.facts import Bank, WalkFacts, traces
from qcq.report.figures import hubs, mastery, write_figure, write_figures
from qcq.report.maps import Map, read_maps, sample
from qcq.report.page import _who_wins, write_run_figures
from qcq.run import Run

NASTY = [
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 2'>",
    "\"quoted\" & 'single'",
    "{{ 7 * 7 }} {% raw %}",
    "<b>bold</b>",
    "🙂🇪🇺 emoji",
    "سؤال عن الكسور",
    "分数的加法",
    "\u202eright to left",
    "$x^2$ \\frac{1}{2}",
]


def classroom() -> Dataset:
    """80 questions on 10 concepts, all of them called something awkward, and 60 students."""
    rng = np.random.default_rng(0)
    questions = [NASTY[i] if i < len(NASTY) else f"q{i}" for i in range(80)]
    concepts = [f"concept {name}" for name in NASTY]
    q_matrix = np.zeros((80, 10))
    for i in range(80):
        q_matrix[i, [i % 10, (i * 3 + 1) % 10][: 1 + (i % 3 > 0)]] = 1
    student, question = np.repeat(np.arange(60), 30), np.concatenate([rng.permutation(79)[:30] for _ in range(60)])
    right = rng.random(len(student)) < 0.3 + 0.5 * (question % 10) / 10
    interactions = Interactions(student.astype(np.int32), question.astype(np.int32), right.astype(np.int8))
    return Dataset(
        "nasty <i>classroom</i>",
        questions,
        concepts,
        sparse.csr_array(q_matrix),
        interactions,
        [f"s{i}" for i in range(60)],
        question_names={q: f"the question {q}" for q in questions[:40]},
        concept_names={concepts[0]: "plain & simple"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = ["trainers=mlm,svd,random", "seeds=2", "dim=8", "mlm.steps=20", "walk.length=8", "walk.per_question=4"]
    return Experiment(Config.load(overrides=overrides), classroom()).run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """No students, no language model, one trainer, one seed."""
    bank = [(f"q{i}", f"c{j}") for i in range(60) for j in {i % 7, (i * 5 + 1) % 7}]
    data = qcq.read(qcq.KnowledgeGraph.from_edges(bank).to_networkx())
    return Experiment(Config.load(trainers=["svd"], seeds=1), data).run(tmp_path_factory.mktemp("bare"))


class Outline(HTMLParser):
    """Elements by name, attributes and all text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


def page_of(run: Run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_one_file_and_holds_the_tables_without_a_script(run: Run) -> None:
    page = page_of(run)
    assert len(page) < 15e6
    seen = Outline(page)
    assert [tag for tag, _ in seen.tags].count("script") == 3
    assert not [tag for tag, attrs in seen.tags if tag in ("img", "iframe", "object") or "src" in attrs]
    assert {str(attrs["href"])[0] for tag, attrs in seen.tags if "href" in attrs} <= {"#", "d"}  # anchors, data:
    table = comparison(run)
    for row in table.cells():
        for cell in row[1:]:
            assert cell in seen.text, cell
    for trained in run.rows("training"):
        assert (trained["corpus_digest"] or "") in seen.text
    for word in ("Verdict", "nasty <i>classroom</i>", "mlm", "config.toml", "torch", "floor of masked"):
        assert word in seen.text, word


def test_ids_and_names_are_text_in_the_markup(run: Run) -> None:
    page = page_of(run)
    head, _, rest = page.partition('<script type="application/json" id="data">')
    data, _, _ = rest.partition("</script>")
    assert not set("<>&'") & set(data)
    written = head[: head.index("<script>")]
    for name in NASTY:
        if html.escape(name) != name:
            assert f"concept {name}" not in written
    assert "concept " + html.escape(NASTY[1], quote=True).replace("&#x27;", "&#39;") in written


def test_best_and_level_are_the_paired_bootstrap_s(run: Run) -> None:
    from qcq.evaluation.statistics import paired_bootstrap

    table = comparison(run)
    found = standings(run, table)
    for j, column in enumerate(table.columns[3:]):
        marks = [row[j].mark for row in found]
        if column.task == "training":
            assert set(marks) == {""}
            continue
        means = [np.mean(line.values[j]) for line in table.lines]
        assert found[int(np.argmax(means))][j].mark == "best"
        best = table.lines[int(np.argmax(means))]
        for line, row, mean in zip(table.lines, found, means, strict=True):
            both = [
                np.mean(
                    [run.units(w.walk, w.trainer, w.readout, s)[f"{column.task}/{column.metric}"] for s in (0, 1)], 0
                )
                for w in (best, line)
            ]
            assert row[j].low <= mean <= row[j].high
            if row[j].mark == "":
                assert paired_bootstrap(*both).low > 0
            elif row[j].mark == "level":
                assert not paired_bootstrap(*both).decided


def test_curves_and_inspection_are_data_in_the_run_folder(run: Run) -> None:
    curves = run.rows("curves")
    assert {(r["trainer"], r["seed"]) for r in curves} == {("mlm", 0), ("mlm", 1)}
    steps = [r["step"] for r in curves if r["seed"] == 0]
    assert steps == sorted(steps)
    assert steps[-1] == 20
    assert run.read_json("inspect/qcq.json")["questions"] == 80
    bank, data = Bank.of(run), classroom()
    assert bank is not None
    assert bank.ids == list(data.questions)
    assert (bank.members != data.q_matrix).nnz == 0
    train = data.split(0).train
    assert np.array_equal(bank.responses, train.counts)
    assert np.array_equal(bank.difficulty, train.difficulty, equal_nan=True)
    assert bank.names[0] == f"the question {NASTY[0]}"
    assert bank.names[50] == ""
    for i in range(80):
        its = bank.members.indices[bank.members.indptr[i] : bank.members.indptr[i + 1]]
        place = min((list(bank.largest).index(c) for c in its), default=3)
        assert bank.groups(3)[i] == min(place, 3)


def test_walk_facts_are_those_of_the_tokens(run: Run) -> None:
    tokens = qcq.Corpus.load(run.path / "corpus" / "qcq" / "seed-0").tokens
    walks = [walk[walk >= 0].tolist() for walk in tokens]
    facts = WalkFacts.of(run, "qcq")
    assert facts is not None
    assert facts.length == pytest.approx(np.mean([len(w) for w in walks]))
    steps = [(a, b) for w in walks for a, b in pairwise(w)]
    assert facts.stays == pytest.approx(np.mean([a == b for a, b in steps]))
    again = sum(q in w[:t] for w in walks for t, q in enumerate(w))
    assert facts.returns == pytest.approx(again / sum(map(len, walks)))
    assert facts.reached == pytest.approx(len({q for w in walks for q in w}) / 80)


def test_neighbours_are_those_of_brute_force(run: Run) -> None:
    emb, data = run.embeddings("mlm"), classroom()
    made = Map.load(run.file("maps", "qcq", "mlm", run.rows("training")[0]["readout"], 0, ".npz"))
    assert made is not None
    train = data.split(0).train.interactions
    by = [set(train.student[train.question == q].tolist()) for q in range(80)]
    for i in range(0, 80, 7):
        wanted = emb.nearest(emb.ids[i], 10)
        assert made.similarity[i] == pytest.approx([s for _, s in wanted], abs=1e-5)
        assert {emb.ids[j] for j in made.nearest[i, :5]} == {q for q, _ in wanted[:5]}
        assert made.together[i].tolist() == [len(by[i] & by[j]) for j in made.nearest[i]]


def test_pca_keeps_what_a_dense_svd_keeps() -> None:
    rng = np.random.default_rng(1)
    emb = Embeddings([f"q{i}" for i in range(300)], rng.normal(size=(300, 12)) * np.linspace(3, 0.1, 12))
    made = maps.draw(emb, np.arange(300))
    values = np.linalg.svd(emb.unit - emb.unit.mean(axis=0), compute_uv=False) ** 2
    assert made.explained == pytest.approx(values[:2] / values.sum(), rel=1e-4)
    assert made.pca.var(axis=0) == pytest.approx(values[:2] / 300, rel=1e-3)


@pytest.mark.filterwarnings("error")
def test_equal_vectors_are_one_point_of_the_map() -> None:
    made = maps.draw(Embeddings([f"q{i}" for i in range(3_000)], np.ones((3_000, 7))), np.arange(3_000))
    assert not made.explained.any()  # and the questions are spread over the disc of one position
    assert len(np.unique(made.pca, axis=0)) > 1


def test_tsne_keeps_planted_clusters_those_beyond_its_landmarks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "LANDMARKS", 120)
    rng = np.random.default_rng(2)
    cluster = rng.integers(0, 4, 300)
    vectors = 6 * np.eye(8)[cluster] + rng.normal(size=(300, 8)) * 0.6
    made = maps.draw(Embeddings([f"q{i}" for i in range(300)], vectors), np.arange(300))
    assert made.landmarks == 120
    distance = ((made.tsne[:, None] - made.tsne[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    assert (cluster[distance.argmin(axis=1)] == cluster).mean() > 0.97
    again = maps.draw(Embeddings([f"q{i}" for i in range(300)], vectors), np.arange(300))
    assert np.array_equal(made.tsne, again.tsne)


def test_questions_of_one_vector_stand_beside_one_another_and_are_counted() -> None:
    vectors = np.eye(6)[np.arange(60) % 6]
    made = maps.draw(Embeddings([f"q{i}" for i in range(60)], vectors), np.arange(60))
    assert (made.twins == 9).all()
    assert (made.nearest[:, :9] % 6 == np.arange(60)[:, None] % 6).all()
    for places in (made.pca, made.tsne):
        assert len(np.unique(places, axis=0)) == 60
        radius = [np.linalg.norm(places[c::6] - places[c::6].mean(axis=0), axis=1).max() for c in range(6)]
        assert max(radius) < 0.03 * np.ptp(places, axis=0).max()


@pytest.mark.parametrize("vectors", [np.zeros((4, 3)), np.ones((4, 1)), np.eye(4)[:, :3]])
def test_degenerate_tables_have_maps_too(vectors: np.ndarray) -> None:
    made = maps.draw(Embeddings(list("abcd"), vectors), np.arange(4))
    assert np.isfinite(made.pca).all()
    assert made.nearest.shape == (4, 3)
    assert all(i not in row for i, row in enumerate(made.nearest))
    assert len(made.tsne) == 0


@pytest.mark.slow
def test_a_large_bank_is_sampled_and_the_page_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.array_equal(sample(500, 3, 0), np.arange(500))
    assert len(np.unique(sample(30_000, 3, 0))) == 20_000
    monkeypatch.setattr(maps, "MOST", 30)
    copy = Experiment(Config.load(run.path / "config.toml"), classroom()).run(tmp_path / "copy")
    assert "The maps show 30 of 80 questions" in Outline(page_of(copy)).text
    assert all(made.nearest.max() < 30 for _, made in read_maps(copy))
    assert "The maps show" not in Outline(page_of(run)).text


def test_every_method_has_a_map(run: Run) -> None:
    assert [one.label for one, _ in read_maps(run)] == ["mlm", "svd", "random"]


def test_what_is_missing_is_said(bare: Run) -> None:
    text = Outline(page_of(bare)).text
    for words in (
        "no students",
        "no loss curves",
        "single trainer",
        "single seed",
        "difficulty was left out",
        "No walks",
    ):
        assert words in text, words
    assert "Only svd was run" in text


def test_a_failed_trainer_stands_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qcq.models.baselines import SVD, Random

    def fail(self: Any, *args: object) -> None:
        raise TrainingError("diverged at <step> 3")

    monkeypatch.setattr(SVD, "fit", fail)
    small = ["simulated.questions=120", "simulated.students=60", "seeds=1", "trainers=svd,random"]
    made = Experiment(Config.load(overrides=small)).run(tmp_path / "some")
    assert "svd failed: diverged at <step> 3" in Outline(page_of(made)).text
    monkeypatch.setattr(Random, "fit", fail)
    made = Experiment(Config.load(overrides=small)).run(tmp_path / "none")
    text = Outline(page_of(made)).text
    assert "No trainer finished" in text
    assert "There is no map" in text


def test_report_command_and_notebook(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = page_of(run)
    (run.path / "report.html").unlink()
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(run.path)])
    assert not stop.value.code
    assert capsys.readouterr().out == f"report: {run.path / 'report.html'}\n"
    assert page_of(run) == before
    shown = run.report()._repr_html_()
    frame = Outline(shown).tags
    assert [tag for tag, _ in frame] == ["iframe"]
    assert frame[0][1]["srcdoc"] == before


# ---- in a browser --------------------------------------------------------------------------------------------------

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        said = "no chromium on the PATH; Debian's package is called chromium"
        if os.environ.get("QCQ_REQUIRE_CHROMIUM"):
            pytest.fail(said)
        pytest.skip(said)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page opened from disk; what went wrong on it is kept."""

    def __init__(self, browser: Any, run: Run, width: int = 1200, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 850}, **context)
        self.context.set_default_timeout(120_000)  # a busy machine is no failure
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.url = (run.path / "report.html").resolve().as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready]")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.wrong == []
        # It asks for nothing but itself; plots may make images out of what they hold.
        assert {url for url in self.asked if not url.startswith(("data:", "blob:"))} == {self.url}


def serious(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")]


def ring(page: Any, m: int) -> tuple[float, float]:
    """Where the chosen question lies on map ``m``, in pixels of the window."""
    box = page.locator("#plot-map")
    box.scroll_into_view_if_needed()
    return tuple(
        page.evaluate(
            """m => {
              const gd = document.getElementById("plot-map"), r = gd.getBoundingClientRect(), full = gd._fullLayout;
              const tag = m ? m + 1 : "", x = full["xaxis" + tag], y = full["yaxis" + tag], t = gd.data[3 * m + 2];
              return [r.left + x._offset + x.l2p(t.x[0]), r.top + y._offset + y.l2p(t.y[0])];
            }""",
            m,
        )
    )


@pytest.mark.slow
def test_browser_table_search_hover_and_theme(chromium: Any, run: Run) -> None:
    with Visit(chromium, run, color_scheme="light") as page:
        assert serious(page) == []
        table = page.locator("#comparison-table")
        head = table.locator("thead th", has_text="edges mrr")
        column = head.evaluate("cell => cell.cellIndex")
        values = "(t, c) => [...t.tBodies[0].rows].map(r => +r.cells[c].dataset.value)"
        for wanted in ("descending", "ascending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == wanted
            shown = table.evaluate(f"t => ({values})(t, {column})")
            assert shown == sorted(shown, reverse=wanted == "descending")
            assert len(shown) == 3

        page.fill("#search", "q77")
        page.wait_for_selector("#search-results button")
        page.keyboard.press("Enter")
        card = page.locator("#question")
        assert card.locator("h3").inner_text() == "q77"
        assert "Nearest by mlm" in card.inner_text()
        assert "answered both" in card.inner_text()
        page.mouse.move(*ring(page, 0))
        page.wait_for_selector("#tip:not([hidden])")
        assert page.locator("#tip .id").inner_text() == "q77"
        assert "concept" in page.locator("#tip").inner_text()

        for way in ("tsne", "pca"):
            page.check(f"input[value={way}]")
        for colour in ("difficulty", "rate", "degree", "concept"):
            page.select_option("#colour", colour)
        page.select_option("#concept", index=1)
        assert page.evaluate("document.getElementById('plot-map').data[1].selectedpoints.length") > 0

        page.click("#theme")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert serious(page) == []
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#ffffff"
        )


@pytest.mark.slow
def test_browser_shows_awkward_names_as_text(chromium: Any, run: Run) -> None:
    with Visit(chromium, run) as page:
        for name in NASTY:
            page.fill("#search", name)
            page.wait_for_selector("#search-results button")
            page.keyboard.press("Enter")
            assert page.locator("#question h3").text_content() == f"{name} · the question {name}"
            page.mouse.move(0, 0)
            page.mouse.move(*ring(page, 2))
            page.wait_for_selector("#tip:not([hidden])")
            assert page.locator("#tip .id").text_content() == f"{name} · the question {name}"
        ticks = "[...document.querySelectorAll('#plot-hubs .yaxislayer-above text')].map(t => t.textContent.trim())"
        shown = page.evaluate(ticks)
        for name in ("concept <b>bold</b>", f"concept {NASTY[7]}", f"concept {NASTY[6]}", "plain & simple"):
            assert name in shown, shown
        assert page.evaluate("window.hacked") is None
        assert page.locator("main bdi", has_text="concept 🙂🇪🇺 emoji").count() > 0


@pytest.mark.slow
def test_browser_phone_and_keyboard(chromium: Any, run: Run, bare: Run) -> None:
    with Visit(chromium, run, width=390, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
    with Visit(chromium, bare, width=900) as page:
        page.focus("#comparison-table th:nth-child(2) button")
        page.keyboard.press("Enter")
        assert page.get_attribute("#comparison-table th:nth-child(2)", "aria-sort") == "ascending"
        page.focus("#search")
        page.keyboard.type("q7")
        page.wait_for_function("document.querySelector('#search-results button bdi')?.textContent === 'q7'")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "question"
        for _ in range(2):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("#question h3").inner_text() != "q7"
        assert page.evaluate("[...document.querySelector('#colour').options].filter(o => o.disabled).length") == 2


def test_a_phone_shows_small_tables_whole_and_no_empty_panels(chromium: Any, run: Run) -> None:
    with Visit(chromium, run, width=390, has_touch=True, is_mobile=True) as page:
        walks = page.locator("#walks .scroll").first
        assert walks.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
        page.wait_for_selector("#plot-cost .xaxislayer-above", state="attached")
        drawn, high = page.evaluate(
            """() => { const gd = document.getElementById("plot-cost");
              return [new Set(gd.data.map(t => t.xaxis || "x")).size, gd.layout.height]; }"""
        )
        assert high <= 300 * drawn + 200


@pytest.mark.slow
def test_a_figure_as_a_page_follows_the_readers_colours(chromium: Any, bare: Run, tmp_path: Path) -> None:
    bank = Bank.of(bare)
    assert bank is not None
    file = write_figure(hubs(bank), tmp_path / "hubs.html")
    seen = {}
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.goto(file.resolve().as_uri())
        page.wait_for_function("document.querySelector('.js-plotly-plot').layout.plot_bgcolor === 'rgba(0,0,0,0)'")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[scheme] = back, page.evaluate("document.querySelector('.js-plotly-plot').layout.font.color")
        context.close()
    assert seen == {"light": ("rgb(255, 255, 255)", "#1b2430"), "dark": ("rgb(23, 28, 36)", "#e6eaf0")}


@pytest.mark.slow
def test_figures_are_written_as_png_svg_and_pdf(chromium: Any, bare: Run, tmp_path: Path) -> None:
    bank = Bank.of(bare)
    assert bank is not None
    files = write_figures({"hubs": hubs(bank)}, tmp_path / "figures")
    heads = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    assert [file.suffix for file in files] == list(heads)
    for file in files:
        assert file.read_bytes().startswith(heads[file.suffix]), file


def test_figures_of_another_run_do_not_stay(
    bare: Run, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            job["path"].write_text(job["fig"].to_json())

    monkeypatch.setattr("qcq.report.figures._draw", draw)
    monkeypatch.setattr("qcq.report.figures._refuse_without_kaleido", lambda: None)
    folder = tmp_path / "figures"
    first = write_run_figures(run, folder)
    (folder / "mine.png").write_text("mine")
    second = write_run_figures(bare, folder)
    assert {file.stem for file in first} > {file.stem for file in second}
    assert set(folder.iterdir()) == {*second, folder / "mine.png", folder / "qcq.json"}
    before = {file: file.read_bytes() for file in second}
    monkeypatch.setattr("qcq.report.figures._draw", lambda jobs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_run_figures(run, folder)
    assert set(folder.iterdir()) == {*second, folder / "mine.png", folder / "qcq.json"}
    assert {file: file.read_bytes() for file in second} == before


def test_figures_without_their_library_say_what_to_install(
    bare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qcq.report.figures.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(bare.path), "--figures", str(tmp_path / "figures")])
    assert stop.value.code == 2
    assert "pip install 'qcq[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.mark.skipif("QCQ_DATA" not in os.environ, reason="needs the real data sets; set QCQ_DATA to their folder")
def test_browser_opens_a_real_run(chromium: Any, tmp_path: Path) -> None:
    data = Path(os.environ["QCQ_DATA"]) / "s2kt_assist09"
    config = Config.load(data=f"s2kt:{data}", trainers=["svd", "random"], tasks=["edges"], seeds=1, tune=False)
    made = Experiment(config).run(tmp_path / "run")
    assert (made.path / "report.html").stat().st_size < 15e6
    last = made.embeddings("svd").ids[-1]
    with Visit(chromium, made) as page:
        assert page.evaluate(
            "document.getElementById('plot-map').data.slice(0, 2).reduce((n, t) => n + t.x.length, 0)"
        ) == (17_737)
        page.fill("#search", last)
        page.wait_for_selector("#search-results button")
        page.keyboard.press("Enter")
        assert page.locator("#question h3").inner_text() == last
        page.mouse.move(*ring(page, 1))
        page.wait_for_selector("#tip:not([hidden])")
        assert "Nearest by random" in page.locator("#tip").inner_text()
        assert serious(page) == []


# --- mastery --------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced(run: Run, tmp_path: Path) -> Run:
    """The run as a task would leave it that traces students: two of them, on the table with the highest figure."""
    made = Run(Path(shutil.copytree(run.path, tmp_path / "run")))
    rows = [r for r in made.rows("training") if r["seed"] == 0]
    for row in rows:
        held = {}
        for student, attempts in ((7, 12), (11, 3)):
            question = (np.arange(attempts) * 7 + student) % 80
            bank = Bank.of(made)
            assert bank is not None
            concepts = np.unique(bank.members[question].indices)
            mastery = np.linspace(0.2, 0.9, (attempts + 1) * len(concepts)).reshape(attempts + 1, -1)
            held |= {
                f"{student}/question": question,
                f"{student}/correct": np.arange(attempts) % 2,
                f"{student}/concepts": concepts,
                f"{student}/mastery": mastery if row["trainer"] == "svd" else mastery * 0,
            }
        path = made.file("traces", row["walk"], row["trainer"], f"edges--{row['readout']}", 0, ".npz")
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **held)
    best = [{**r, "value": 2.0} if (r["trainer"], r["task"]) == ("svd", "edges") else r for r in made.rows("results")]
    (made.path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in best))
    return made


def test_the_mastery_of_students_is_drawn_as_it_was_kept(traced: Run) -> None:
    found = traces(traced)
    assert [(one.student, len(one.question), one.label, one.task) for one in found] == [
        (7, 12, "svd", "edges"),
        (11, 3, "svd", "edges"),
    ]
    bank = Bank.of(traced)
    assert bank is not None
    figure = mastery(bank, found)
    assert figure is not None
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heat) == 2
    for trace, one in zip(heat, found, strict=True):
        rows = one.shown(bank, 16)
        assert np.array_equal(np.array(trace.z), one.mastery[:, rows].T)
    marks = [trace for trace in figure.data if trace.type == "scatter"][:2]
    right, wrong = (sorted(set(trace.x)) for trace in marks)
    assert right == [2, 4, 6, 8, 10, 12]
    assert wrong == [1, 3, 5, 7, 9, 11]
    assert len(found[0].shown(bank, 2)) == 2
    text = Outline(page_of(Run(write_page(traced).path.parent))).text
    assert "Mastery over time" in text
    assert "Test student 7: 12 attempts, 50.0% right" in " ".join(text.split())
    assert "90.0%" in text


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("question", lambda array: array + 80, "question holds others than the 80 of the run"),
        ("concepts", lambda array: array - 99, "concepts holds others than"),
        ("question", lambda array: array + 0.5, "question holds others than"),
        ("mastery", lambda array: array[1:], "mastery of shape"),
        ("correct", lambda array: array[1:], "correct of shape"),
        ("mastery", None, "without '7/mastery'"),
    ],
)
def test_a_damaged_trace_is_named(part: str, change: Any, said: str, traced: Run) -> None:
    for path in (traced.path / "traces").iterdir():
        held = dict(np.load(path))
        array = held.pop(f"7/{part}")
        np.savez(path, **(held if change is None else {**held, f"7/{part}": change(array)}))
    with pytest.raises(ConfigError, match=rf"traces/.*is damaged \({re.escape(said)}") as caught:
        traces(traced)
    assert "\n" not in str(caught.value)


def test_without_a_traced_student_there_is_no_mastery(run: Run) -> None:
    assert traces(run) == []
    assert "Mastery over time" not in page_of(run)


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(("low", "high"), [(-0.2, 0.1), (0.0, 0.3), (-0.3, 0.0), (0.1, 0.2), (-0.2, -0.1)])
def test_nobody_is_called_better_unless_the_interval_leaves_out_zero(low: float, high: float, baseline: bool) -> None:
    column = Column("edges mrr", "edges", "mrr")
    lines = Line("qcq", "a", "table", ((0.5,),)), Line("none" if baseline else "qcq", "b", "table", ((0.4,),))
    pair = PairedComparison(column, *lines, Difference((low + high) / 2, low, high, 50, 50))
    table = Comparison((*comparison_names, column), lines)
    for text in (str(pair), _who_wins(table, [pair])):
        claims = any(word in text for word in ("beats", "wins", "better"))
        if text.startswith("Only"):
            continue  # without a baseline the first sentence claims nothing
        assert claims == (low > 0 or high < 0), text
