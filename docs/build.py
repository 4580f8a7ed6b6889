"""The site: every page of the repository, and a reference made from the code.

    python docs/build.py build/site        (or: make docs)

The pages are copied with their links moved to where the pages are on the site. The reference is written next to them,
and Sphinx builds the whole. A warning is an error. Nothing is fetched.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Where a page is on the site, if not at its path below docs/ or at the root.
MOVED = {"README.md": "index.md"}
RAISED = ["README.md", "README.zh.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
CONTENTS = {
    "Tutorials": [
        "tutorials/first_run",
        "tutorials/spreadsheet",
        "tutorials/new_question",
        "tutorials/your_model",
        "tutorials/pykt",
        "report",
    ],
    "How to": ["data", "checks", "vectors", "interop", "choosing", "walks", "typed", "scale", "cluster", "simulated"],
    "Reference": [f"reference/{n}" for n in ("commands", "walks", "trainers", "tasks", "data", "run", "python")]
    + ["glossary"],
    "Explanation": ["floors", "evaluation", "transformer", "objectives", "reliability", "ARCHITECTURE"],
    "Findings": ["findings", "study", "referee", "results/index", "decisions/index"],
    "Project": ["CONTRIBUTING", "CHANGELOG", "licences", "README.zh"],
}
COMMON = {
    "dataset": "name of the data set",
    "walk": "name or label of the walk; `none` for a trainer that reads no walks",
    "trainer": "name or label of the trainer",
    "seed": "seed of the walks and of training",
    "readout": "where in the model the vectors were taken",
}
FIELDS = {
    "results": {
        **COMMON,
        "task": "name of the task",
        "metric": "name of the figure",
        "value": "the figure on the test set; null where it is undefined",
    },
    "training": {
        **COMMON,
        "seconds": "time of training and read-out, seconds",
        "peak_rss_mb": "largest memory of the process, MB",
        "tokens": "tokens of the corpus",
        "objective": "what the loss asks for",
        "loss": "held-out loss, nats",
        "floor": "the least expected loss on the same tokens, nats; null without one",
        "excess": "loss minus floor, nats",
        "excess_se": "standard error of the excess, nats",
        "unigram": "loss of a model that knows only frequencies, nats",
        "verdict": "`at floor`, `under-trained`, `unigram trap`, `overfitting` …",
        "why_no_floor": "the reason where there is no floor",
        "device": "where a language model was trained: `cpu`, `cuda` or `mps`",
        "reproducible": "whether the same seed gives the same bytes",
        "corpus_digest": "SHA-256 of the walks",
        "judged": "other losses of the same model",
        "readouts": "all read-outs of the model",
        "comparison": "key of the cell that chose settings and read-out",
        "settings": "settings of the trainer",
    },
    "curves": {
        **{key: COMMON[key] for key in ("dataset", "walk", "trainer", "seed")},
        "step": "training step",
        "steps": "steps in all",
        "loss": "held-out loss at this step, nats",
        "floor": "its floor, nats",
        "excess": "loss minus floor, nats",
        "verdict": "the verdict at this step",
    },
    "tuning": {
        **{key: COMMON[key] for key in ("dataset", "walk", "trainer", "readout")},
        "candidate": "settings that were tried, beyond the defaults",
        "score": "mean of the validation figures that may choose; null where the run has none",
        "chosen": "whether these settings were taken",
    },
}
PYTHON = {
    "Read data": ["data.read", "data.load", "data.Dataset", "graph.KnowledgeGraph"],
    "Vectors": ["recipes.embed", "recipes.add", "embeddings.Embeddings"],
    "Walks and training": [
        "walks.WalkStrategy",
        "corpus.Corpus",
        "models.TrainingData",
        "models.Trainer",
        "models.Model",
    ],
    "Runs": ["pipeline.Experiment", "config.Config", "run.Run"],
    "Evaluation": ["evaluation.Task", "evaluation.Partition"],
}
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s]+)(\))")
ATTRIBUTE = re.compile(r'((?:src|srcset)=")([^"]+)(")')


def assemble(out: Path) -> None:
    """Write the sources of the site into a folder."""
    pages = [ROOT / name for name in RAISED] + [p for p in (ROOT / "docs").rglob("*") if p.suffix in {".md", ".json"}]
    pages += [p for p in (ROOT / "docs").rglob("*") if p.suffix in {".svg", ".png"}]
    for path in pages:
        to = out / place(path.relative_to(ROOT).as_posix())
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            to.write_text(moved(path, out), encoding="utf-8")
        else:
            shutil.copy(path, to)
    (out / "reference").mkdir(exist_ok=True)
    for name, text in reference().items():
        (out / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    (out / "decisions" / "index.md").write_text(decisions(), encoding="utf-8")
    (out / "results" / "index.md").write_text(results(), encoding="utf-8")
    with (out / "index.md").open("a", encoding="utf-8") as index:
        for caption, names in CONTENTS.items():
            listed = "\n".join(names)
            index.write(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n")


def place(path: str) -> str:
    """Where a file of the repository is on the site."""
    return MOVED.get(path, path.removeprefix("docs/"))


def moved(path: Path, out: Path) -> str:
    """A page with its links moved; files that it links to and that are no pages are copied."""
    folder = path.parent.relative_to(ROOT).as_posix()
    here = posixpath.dirname(place(path.relative_to(ROOT).as_posix()))

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or "://" in target:
            return found[0]
        inside = posixpath.normpath(posixpath.join(folder, target))
        source = ROOT / inside
        to = place(inside)
        if source.is_dir():
            return found[1].rstrip("(")  # a folder is named, not linked
        if source.suffix not in {".md", ".svg", ".png", ".json"} and source.is_file():
            (out / to).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, out / to)
        return f"{found[1]}{posixpath.relpath(to, here or '.')}{'#' + anchor if anchor else ''}{found[3]}"

    text = path.read_text(encoding="utf-8")
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)  # code stays as it is
    return "".join(part if at % 2 else ATTRIBUTE.sub(link, LINK.sub(link, part)) for at, part in enumerate(parts))


def reference() -> dict[str, str]:
    """The pages that are made from the code: name → Markdown."""
    from qcq.data import DATASETS
    from qcq.evaluation import TASKS
    from qcq.models import TRAINERS
    from qcq.walks import WALKS

    said: dict[str, tuple[Mapping[str, type], str, str]] = {
        "walks": (WALKS, "Walks", "`--walks NAME` adds one to a run; a setting is given as `--set NAME.key=value`."),
        "trainers": (TRAINERS, "Trainers", "`--trainers NAME` adds one to a run; settings as `--set NAME.key=value`."),
        "tasks": (TASKS, "Tasks", "`--tasks NAME` scores every table; settings as `--set NAME.key=value`."),
        "data": (
            DATASETS,
            "Data formats",
            "`--data NAME:PATH` reads a folder or file; most are recognised without NAME.",
        ),
    }
    pages = {
        name: f"# {title}\n\n{text}\n\n" + "".join(_entries(entries)) for name, (entries, title, text) in said.items()
    }
    python = "".join(
        f"## {group}\n\n" + "".join(_documented(f"qcq.{n}") for n in names) for group, names in PYTHON.items()
    )
    errors = "## Errors\n\n```{eval-rst}\n.. automodule:: qcq.errors\n   :members:\n```\n"
    return {**pages, "python": f"# Python\n\n{python}{errors}", "commands": commands(), "run": fields()}


def _documented(name: str) -> str:
    """A directive that documents a function or class from its docstring."""
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last)
    home = f"{found.__module__}.{found.__qualname__}"
    kind = "autoclass" if inspect.isclass(found) else "autofunction"
    members = "   :members:\n" if kind == "autoclass" else ""
    return f"```{{eval-rst}}\n.. {kind}:: {home}\n{members}```\n\n"


def _entries(registry: Mapping[str, type]) -> Iterator[str]:
    from qcq.support.settings import fields as settings

    for name, cls in registry.items():
        home = f"{cls.__module__}.{cls.__qualname__}"
        yield f"## `{name}`\n\n```{{eval-rst}}\n.. autoclass:: {home}()\n   :no-index:\n```\n\n"
        held = settings(cls) if hasattr(cls, "__dataclass_fields__") else {}
        if held:
            rows = "".join(f"| `{name}.{key}` | `{value!r}` |\n" for key, value in held.items())
            yield f"| setting | default |\n|---|---|\n{rows}\n"


def commands() -> str:
    """Every command with its options."""
    import typer

    from qcq import cli

    group: Any = typer.main.get_command(cli.app)
    made = ["# Commands\n"]
    for name, command in sorted(group.commands.items()):
        made.append(f"## `qcq {name}`\n\n{inspect.cleandoc(command.help or '')}\n")
        rows = []
        for each in command.params:
            if each.name == "help":
                continue
            flags = ", ".join(f"`{o}`" for o in [*each.opts, *each.secondary_opts] if o != each.name)
            shown = flags or f"`{(each.metavar or each.name).upper()}`"
            said = " ".join((getattr(each, "help", None) or "").split())
            rows.append(f"| {shown} | {re.sub(r'([<|*])', chr(92) + chr(92) + '1', said)} |")
        made.append("| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(made)


def fields() -> str:
    """The files of a run folder and the fields of its tables."""
    made = [f"# Files of a run\n\n{inspect.getdoc(_run())}\n".split("\nParameters\n")[0].replace("``", "`") + "\n"]
    for table, names in FIELDS.items():
        rows = "".join(f"| `{name}` | {text} |\n" for name, text in names.items())
        made.append(f"## `{table}.jsonl`\n\n| field | meaning |\n|---|---|\n{rows}")
    return "\n".join(made)


def _run() -> type:
    from qcq.run import Run

    return Run


def results() -> str:
    """Every results file: what made it, when, and the folders of the package that have changed since."""
    now = _record().code()
    rows = []
    for path in sorted((ROOT / "docs" / "results").iterdir()):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            records = list(_records(json.loads(text)))
        else:
            records = [json.loads(found) for found in re.findall(r"<!-- made (\{.*\}) -->", text)]
        if records:
            days = sorted(each["date"] for each in records)
            command, date = records[-1]["command"], " to ".join(dict.fromkeys((days[0], days[-1])))
            changed = {folder for each in records for folder in now if each["code"].get(folder) != now[folder]}
            since = ", ".join(folder for folder in now if folder in changed) or "nothing"
        else:
            found = re.search(r"- command: (.*?);", text)
            version = re.search(r"qcq (\d+\.\d+\.\d+)", text)
            command, date = found[1].strip("`") if found else "", ""
            since = f"made by qcq {version[1]}" if version else "not recorded"
        rows.append(f"| [{path.name}]({path.name}) | {f'`{command}`' if command else '–'} | {date or '–'} | {since} |")
    opening = (
        "# Results files\n\nEvery number of the pages comes from one of these files. The last column names the folders "
        "of the package whose code has changed since a file was made.\n\n"
        "| file | command | date | changed since |\n|---|---|---|---|\n"
    )
    return opening + "\n".join(rows) + "\n"


def _records(held: Any) -> Iterator[dict[str, Any]]:
    """Every record in a document of JSON."""
    if isinstance(held, dict):
        if "code" in held and "command" in held:
            yield held
        for each in held.values():
            yield from _records(each)
    elif isinstance(held, list):
        for each in held:
            yield from _records(each)


def _record() -> ModuleType:
    """benchmarks/record.py."""
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decisions() -> str:
    """An index of the decisions by their headings."""
    found = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    rows = [
        f"| [{path.stem[:4]}]({path.name}) | {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')[5:]} |"
        for path in found
    ]
    opening = "# Decisions\n\nEach page: a question, what was tried, the figures of its day, and the choice.\n\n"
    tree = "\n".join(path.stem for path in found)
    return (
        f"{opening}| number | decision |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
    )


def main(out: str) -> int:
    """Assemble and build; the exit status of Sphinx."""
    from sphinx.cmd.build import main as build

    source, site = Path(out) / "source", Path(out) / "html"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    assemble(source)
    # Sphinx copies no files that raw HTML names, as README's <picture> does.
    shutil.copytree(ROOT / "docs" / "pictures", site / "pictures", dirs_exist_ok=True)
    return int(build(["-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "docs"), str(source), str(site)]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
