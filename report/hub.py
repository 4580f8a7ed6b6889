"""A folder for the Hugging Face Hub: vectors, a model card made from the run, and its results. Nothing is uploaded.

References
----------
https://huggingface.co/docs/hub/model-cards and https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qcq.data.catalogue import PUBLIC
from qcq.evaluation import TASKS
from qcq.report.comparison import cautions, comparison, standings
from qcq.run import FILE, Row, Run
from qcq.support.markdown import code, plain, plain_table
from qcq.support.registry import find

if TYPE_CHECKING:
    from qcq.report.export import Table

VECTORS, CARD, RESULTS = "vectors.safetensors", "README.md", ".eval_results/qcq.yaml"
# Those of the Hub's names for licences that data sets have: https://huggingface.co/docs/hub/repositories-licenses
LICENCES = ("mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0")


class Figure(NamedTuple):
    """A figure on test: the mean over seeds, and its 95 % interval over units if there is one."""

    task: str
    metric: str
    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{self.low:.3f} to {self.high:.3f}"


def write_card(table: Table, path: Path) -> None:
    """``README.md``: metadata that the Hub reads, then data, split, figures, loss and floor, and how to load it."""
    folder = path.parent
    model = (folder / "config.json").is_file()  # a language model that was written here before
    lines = ["---", *_yaml(_metadata(table, folder.resolve().name, model)), "---", ""]
    path.write_text("\n".join([*lines, *_text(table, folder.resolve().name, model)]), encoding="utf-8")


def write_results(table: Table, path: Path) -> None:
    """``.eval_results/qcq.yaml``. The Hub shows results whose ``dataset.id`` is a benchmark of its own: this one is the
    data set's name in the run, to be replaced where the Hub has the data."""
    assert table.run is not None
    about, seeds = table.run.read_json("about.json"), table.run.config["seeds"]
    entries = []
    for figure in _figures(table):
        said = [f"mean over {_seeds(seeds)}, test set", f"95 % interval {figure.interval}" if figure.interval else ""]
        notes = "; ".join(each for each in said if each)
        dataset = {"id": about["dataset"], "task_id": f"{figure.task}-{figure.metric}"}
        entries.append({"dataset": dataset, "value": figure.value, "notes": notes})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*_yaml(entries), ""]), encoding="utf-8")
    table.notes.append(
        f"{RESULTS}: the Hub shows figures of its own benchmarks only; where it has these data, put their name for "
        f"{about['dataset']!r}"
    )


def upload(folder: Path) -> str:
    """The command that uploads the folder, for the user to run."""
    return f"to upload it: hf upload YOUR-NAME/{shlex.quote(folder.resolve().name)} {shlex.quote(str(folder))} ."


def _figures(table: Table) -> list[Figure]:
    """The headline figures of the exported trainer and read-out."""
    run, row = table.run, table.row
    assert run is not None
    assert row is not None
    made = comparison(run)
    out = []
    for line, places in zip(made.lines, standings(run, made), strict=True):
        if line.error or (line.walk, line.trainer) != (row["walk"], row["trainer"]):
            continue
        for column, values, place in zip(made.columns[3:], line.values, places, strict=True):
            value = float(np.mean(values)) if values else np.nan
            if column.task in TASKS and np.isfinite(value):
                out.append(Figure(column.task, column.metric, value, place.low, place.high))
    return out


def _licence(run: Run) -> tuple[str, str]:
    """The licence of the data and where it is stated, if all public data sets of the run's format have the same."""
    kind = run.config["data"].partition(":")[0]
    found = {(each.licence, each.licence_source) for each in PUBLIC.values() if each.reader == kind}
    return found.pop() if len(found) == 1 else ("", "")


def _metadata(table: Table, name: str, model: bool) -> dict[str, Any]:
    held: dict[str, Any] = {
        "library_name": "transformers" if model else "qcq",
        "tags": ["knowledge-tracing", "education", "question-embeddings", "qcq"],
    }
    if table.run is None:
        return held
    licence, source = _licence(table.run)
    named = "-".join(licence.lower().replace(",", "").replace(":", "").split())
    if named in LICENCES:
        held["license"] = named
    elif licence:
        held |= {"license": "other", "license_name": named, "license_link": source}
    data = table.run.read_json("about.json")["dataset"]
    results = [
        {
            "task": {"type": "feature-extraction", "name": figure.task},
            "dataset": {"type": data, "name": data, "split": "test"},
            "metrics": [{"type": figure.metric, "name": f"{figure.task} {figure.metric}", "value": figure.value}],
        }
        for figure in _figures(table)
    ]
    return held | ({"model-index": [{"name": name, "results": results}]} if results else {})


def _text(table: Table, name: str, model: bool) -> list[str]:
    emb, run, row = table.embeddings, table.run, table.row
    parts = [f"# {plain(name)}", f"{len(emb):,} question vectors of {emb.dim:,} dimensions, made by qcq."]
    if run is not None and row is not None:
        parts += _of_run(run, row, _figures(table))
    else:
        parts += ["They come from a file: data, split and figures aren't known here."]
    load = ["from huggingface_hub import hf_hub_download", "from qcq import Embeddings", ""]
    place = json.dumps(f"YOUR-NAME/{name}", ensure_ascii=False)  # text of Python too
    load += [f'emb = Embeddings.load(hf_hub_download({place}, "{VECTORS}"))']
    load += [f"vector = emb[{str(emb.ids[0])!r}]"]
    if model:
        load += ["", "from transformers import AutoModelForMaskedLM, AutoTokenizer", ""]
        load += [f"{each.lower()} = {cls}.from_pretrained({place})" for each, cls in _CLASSES.items()]
    parts += ["## How to load it", "\n".join(["```python", *load, "```"])]
    said = "`questions` is float32 (questions, dim); `question_ids` holds a JSON list of names as bytes."
    parts += [f"Without qcq: `safetensors.numpy.load_file` reads {VECTORS}. {said}"]
    return ["\n\n".join(parts) + "\n"]


_CLASSES = {"Model": "AutoModelForMaskedLM", "Tokenizer": "AutoTokenizer"}


def _of_run(run: Run, row: Row, figures: Sequence[Figure]) -> list[str]:
    about, made = run.read_json("about.json"), run.read_json("environment.json")
    graph, students, held = about["graph"], about["students"], about["held_out_edges"]
    data = [
        f"{plain(about['dataset'])}: {graph['questions']:,} questions, {graph['concepts']:,} concepts, "
        f"{about['responses']:,} responses. SHA-256 of graph and responses: {code(about['data_digest'])}."
    ]
    licence, source = _licence(run)
    unknown = "not known here. State it before you upload, and whether what is made from the data may be shared"
    data += [f"Licence of the data: {f'{licence} ({source})' if licence else unknown}."]
    split = ", ".join(f"{n:,} for {part}" for part, n in students.items()) if students else "none"
    edges = ", ".join(f"{n:,} for {stage}" for stage, n in held.items()) or "none"
    trainer = row["trainer"] if row["walk"] == FILE else f"{row['trainer']} on walk {row['walk']}"
    parts = [
        f"Trainer: {plain(trainer)}, read-out {plain(row['readout'])}, seed {row['seed']}.",
        "## Data",
        *data,
        "## Split",
        f"Students: {split}. Held-out edges: {edges}. Divided with seed {run.config['seed']} before anything was "
        "derived from a response. Settings and read-out were chosen on validation.",
    ]
    if figures:
        cells = [[find("task", f.task, TASKS).description, f.metric, f"{f.value:.3f}", f.interval] for f in figures]
        parts += [
            "## Figures",
            f"On the test set, mean over {_seeds(run.config['seeds'])}, 95 % intervals (bootstrap).",
            plain_table(["task", "metric", "value", "95 % interval"], cells, 1),
        ]
    parts += ["## Loss and floor", _floor(row)]
    if careful := cautions(run, comparison(run)):
        parts += ["## To be careful about", "\n".join(f"- {plain(each)}" for each in careful)]
    settings = code(json.dumps(row["settings"], ensure_ascii=False))
    return [
        *parts,
        "## How it was made",
        f"qcq {made['versions'].get('qcq', '')}, the trainer's settings: {settings}.",
    ]


def _floor(row: Row) -> str:
    if row["loss"] is None:
        return "This trainer predicts no tokens, so there is no loss."
    if row["floor"] is None:
        return f"Held-out loss {row['loss']:.4f} nats; no floor is known ({plain(row['why_no_floor'])})."
    spread = "" if row["excess_se"] is None else f" ± {row['excess_se']:.4f}"
    return (
        f"Held-out loss {row['loss']:.4f} nats, exact floor {row['floor']:.4f}, excess {row['excess']:.4f}{spread} "
        "(standard error over walks). The floor is the least loss that any model can reach on the same tokens."
    )


def _yaml(value: Any, indent: int = 0) -> list[str]:
    """Lines of YAML: blocks of mappings and lists, and each scalar as JSON, which YAML contains."""
    pad, lines = " " * indent, []
    if isinstance(value, Mapping):
        for key, held in value.items():
            nested = isinstance(held, Mapping | list)
            lines += [f"{pad}{key}:", *_yaml(held, indent + 2)] if nested else [f"{pad}{key}: {_scalar(held)}"]
    else:
        for held in value:
            inner = _yaml(held, indent + 2) if isinstance(held, Mapping) else [f"{pad}  {_scalar(held)}"]
            lines += [f"{pad}- {inner[0][indent + 2 :]}", *inner[1:]]
    return lines


def _scalar(value: Any) -> str:
    # YAML 1.1 takes 1e-06, without a point, for text.
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"
