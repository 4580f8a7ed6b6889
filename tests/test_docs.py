"""Everything a reader can copy is executed: docstring examples, the README's blocks, the notebook."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer

import qcq
from qcq import cli
from qcq.models import SkipGram
from qcq.walks.sampler import Sampler

ROOT = Path(qcq.__file__).parent
SKIPPED = {"qcq.tests", "qcq.benchmarks", "qcq.examples", "qcq.typings", "qcq.build"}
MODULES = ["qcq"] + [
    m.name
    for m in pkgutil.walk_packages(qcq.__path__, "qcq.")
    if not any(m.name == s or m.name.startswith(s + ".") for s in SKIPPED)
]

needs_skipgram = pytest.mark.skipif(bool(SkipGram.missing()), reason=SkipGram.missing())


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_readme_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    found = blocks(ROOT / "README.md", "python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert names["vectors"].shape == names["emb"].vectors.shape == (len(names["data"].questions), 64)
    assert len([line for line in found[0].splitlines() if line.strip()]) <= 10


TUTORIALS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "pykt"
)  # test_tutorial.py has that one


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_docs_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Every command of a page, with the lines that the page shows below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(ROOT / page, "console"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ ").strip(), []))
            else:
                found[-1][1].append(line)
    return found


def _pykt(folder: Path) -> None:
    """A pyKT folder as its preprocessing leaves it, of questions q0 … q39 numbered from 0."""
    folder.mkdir(parents=True)
    numbers = range(40)
    keys = {"questions": {f"q{i}": i for i in numbers}, "concepts": {f"c{i}": i for i in range(5)}}
    (folder / "keyid2idx.json").write_text(json.dumps({**keys, "uid": {f"s{i}": i for i in range(12)}}))
    lines = []
    for student in range(12):
        seen = [(7 * student + 3 * i) % 40 for i in range(15)]
        lines += [f"s{student},{len(seen)}", ",".join(f"q{i}" for i in seen), ",".join(f"c{i % 5}" for i in seen)]
        lines += [",".join(str((i + student) % 2) for i in seen), ",".join("1000" for _ in seen), "NA"]
    (folder / "data.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", *TUTORIALS])
@pytest.mark.slow
def test_readme_commands(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quick commands are run and print what the page shows; those on real data, which take minutes, are only parsed."""
    monkeypatch.chdir(tmp_path)
    for name in ("questions.csv", "new.csv"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    _pykt(tmp_path / "data" / "assist2009")
    if page in TUTORIALS:
        names: dict = {}
        for block in blocks(ROOT / page, "python"):
            exec(compile(block, page, "exec"), names)
    cheap = ["--set", "mlm.steps=5", "--seeds", "1", "--set", "tune=false"]
    ran = 0
    for command, shown in commands(page):
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command
            continue
        assert words[0] == "qcq", command
        if "$QCQ_DATA" in command or any(w.endswith(".toml") for w in words):
            group = typer.main.get_group(cli.app)
            name, sub, rest = group.resolve_command(
                group.make_context("qcq", words[1:], resilient_parsing=True), words[1:]
            )
            assert sub is not None, command
            sub.make_context(name, rest)
            continue
        with pytest.raises(SystemExit) as stop:
            cli.main([*words[1:], *(cheap if "pykt:" in command and words[1] in ("run", "score") else [])])
        said = capsys.readouterr()
        assert stop.value.code == 0, f"{command}\n{said.err}"
        printed = [line.strip() for line in (said.out + said.err).splitlines()]
        # A cosine's last digits may differ between machines; all else is as shown.
        shape = [re.sub(r"\d\.\d{3,}", "#", line) for line in printed]
        missing = [line for line in shown if re.sub(r"\d\.\d{3,}", "#", line.strip()) not in shape]
        assert not missing, f"{command}\n{printed}"
        ran += 1
    assert ran >= (1 if page in TUTORIALS else 5)


def small(words: list[str]) -> list[str]:
    """What makes a run small. A part that isn't in the run can't be set."""
    given = ["tune=false"]
    if "--trainers" not in words:
        given += ["mlm.steps=20"]
    if "--data" not in words:
        given += ["simulated.questions=60", "simulated.students=60"]
    return ["--seeds", "1", *(word for each in given for word in ("--set", each))]


BROWSER = os.environ.get("QCQ_REQUIRE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
LONG = ("$QCQ_DATA", "DIR", ".toml", "qcq study")  # of commands on real data, or over minutes


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in ("report", "typed") else [])
        for page in sorted((ROOT / "docs").glob("*.md"))
    ],
)
def test_commands_of_the_pages(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command is run, in a small size; those on real data are parsed, and scripts are asked for their options."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command, _ in commands(f"docs/{page.name}"):
        words = shlex.split(command)
        if words[0] == "python":
            text = (ROOT / words[1]).read_text(encoding="utf-8")
            assert not [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in text], command
            continue
        assert words[0] == "qcq", command
        words = [word.replace("csv:PATH", "csv:examples/questions.csv") for word in words[1:]]
        if any(each in command for each in LONG) or ("--figures" in words and not BROWSER):
            group = typer.main.get_group(cli.app)
            name, sub, rest = group.resolve_command(group.make_context("qcq", words, resilient_parsing=True), words)
            assert sub is not None, command
            sub.make_context(name, rest)
            continue
        run = next((word for word in words[1:] if word.startswith("runs/")), "")
        if words[0] != "run" and run and not Path(run).exists():
            first = ["run", "--trainers", "sgns,svd", "--out", run, "--quiet"]
            with pytest.raises(SystemExit):
                cli.main([*first, *small(first)])
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, *(small(words) if words[0] == "run" else [])])
        assert stop.value.code == 0, f"{command}\n{capsys.readouterr().err}"


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def test_links_of_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(page))
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.slow
@needs_skipgram
def test_notebook(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        there = {"metadata": {"path": tmp_path}}
        NotebookClient(book, timeout=600, startup_timeout=600, kernel_name="python3", resources=there).execute()


ADDED = "rarer", "projected", "cohesion", "pairs"


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The recipes of CONTRIBUTING.md as a module of somebody's own; the registries are put back."""
    from qcq.data import DATASETS
    from qcq.evaluation import TASKS
    from qcq.models import TRAINERS
    from qcq.walks import WALKS

    (tmp_path / "contributed.py").write_text("\n\n".join(blocks(ROOT / "CONTRIBUTING.md", "python")), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    kept = [(registry, dict(registry)) for registry in (WALKS, TRAINERS, TASKS, DATASETS)]
    try:
        yield importlib.import_module("contributed")
    finally:
        sys.modules.pop("contributed", None)
        for registry, before in kept:
            registry.clear()
            registry.update(before)


def test_recipes_run_by_name(recipes: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bank.pairs").write_text("".join(f"q{i} c{i % 3}\nq{i} c{i % 5}\n" for i in range(30)))
    args = ["--walks", "rarer", "--trainers", "projected,ppmi-svd", "--tasks", "cohesion"]
    args += ["--data", str(tmp_path / "bank.pairs"), "--seeds", "1", "--quiet", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", *args])
    assert stop.value.code == 0
    found = qcq.Run(tmp_path / "run").rows("results")
    assert {(row["task"], row["metric"]) for row in found} == {("cohesion", "gap")}
    assert {(row["walk"], row["trainer"]) for row in found} >= {("rarer", "ppmi-svd"), ("none", "projected")}


@pytest.mark.slow
def test_recipes_keep_the_contracts(recipes: ModuleType, tmp_path: Path) -> None:
    """They pass the tests of every registered part, in a process of their own: parts are looked up before tests are."""
    tests = [str(ROOT / "tests" / "test_contracts.py"), "-k", " or ".join(ADDED)]
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "contributed", "-p", "no:cacheprovider", *tests]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout
    assert all(f"[{name}" in done.stdout for name in ADDED)


def test_the_step_of_a_recipe_is_sampled_by_both_loops(recipes: ModuleType) -> None:
    """The same tokens, which follow the law that the step is described by."""
    graph = qcq.KnowledgeGraph.from_edges([(f"q{i}", f"c{i % k}{k}") for i in range(60) for k in (2, 5, 7)])
    walk = recipes.Rarer(length=8, per_question=100, keep_concepts=True)
    (one, counted), (two, again) = (Sampler(walk, graph, 0, compiled).sample() for compiled in (False, True))
    assert np.array_equal(one, two)
    assert counted.tolist() == again.tolist()
    popular = np.diff(graph.by_concept.indptr)[one[:, 1::2] - graph.n_questions]  # (walks, steps): 8 or 9, 12, or 30
    shares = [np.mean(popular < 10), np.mean(popular == 12), np.mean(popular == 30)]
    assert shares == pytest.approx([5 / 9, 3 / 9, 1 / 9], abs=0.01)


def test_the_picture_of_the_house_is_drawn_from_the_imports() -> None:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert drawing.picture() in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


FOREIGN = {"pretraining/data_utils.py"}  # files of other projects that pages name


def test_pages_name_files_and_modules_that_there_are() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")]
    gone = []
    for page in pages:
        for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            if re.fullmatch(r"[\w/]+/\w+\.py", span) and span not in FOREIGN and not (ROOT / span).is_file():
                gone.append((page.name, span))
            if re.fullmatch(r"qcq(\.[a-z_]+)+", span) and span != "qcq.json":
                path = ROOT.joinpath(*span.split(".")[1:])
                if not (path.is_dir() or path.with_suffix(".py").is_file() or _attribute(span)):
                    gone.append((page.name, span))
    assert not gone


def _attribute(name: str) -> bool:
    """Whether a dotted name is a function or object of the package."""
    module, _, last = name.rpartition(".")
    return module in MODULES and hasattr(importlib.import_module(module), last)


def _messages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_checks_is_what_the_code_says() -> None:
    made = _messages()
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run python docs/messages.py"


def test_every_message_of_a_reader_says_what_where_and_what_to_do() -> None:
    found = list(_messages().messages())
    assert len(found) > 100
    for message in found:
        place = f"{message.file}:{message.line}: {message.says}"
        assert "\n" not in message.says + message.fix, place
        assert message.where, place
        assert message.fix or message.kind == "note", place
