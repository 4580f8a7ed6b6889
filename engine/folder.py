"""Writing a run folder: the settings, and the finished cells under readable names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcq.engine.comparison import TABLES, Method
from qcq.engine.kinds import Walked
from qcq.engine.plan import Groups, Plan
from qcq.errors import ConfigError
from qcq.evaluation.register import record, said, test_parts
from qcq.run import MANIFEST
from qcq.support.environment import environment
from qcq.support.files import from_json, link, sha256, tidy, whole, within, write_text
from qcq.support.formulas import guarded_frame
from qcq.support.progress import Watch

if TYPE_CHECKING:
    from qcq.config import Config
    from qcq.engine.cell import Cell
    from qcq.engine.plan import Outcome
    from qcq.evaluation import Partition
    from qcq.run import Run

TRACERS = "tracers"  # models that a run's own command does not make
VIEWS = ("corpus", "embeddings", "scores", "traces", "maps", "inspect", TRACERS, "weights")  # folders with views only
FOLDERS = ("corpus/*", "corpus/*/*", "embeddings/*.model")  # in these
VIEWED = ".views.json"  # the views of an unfinished run, and of the run before it: what else is there is the user's


def write_description(
    run: Run, config: Config, partition: Partition, skipped: Mapping[str, str], notes: Sequence[str], watch: Watch
) -> None:
    """What a run will do, and with what: settings, versions, data, graph; ``notes`` come after those of the data."""
    import tomli_w

    data = partition.dataset
    for name, why in skipped.items():
        watch.say(f"task {name} is left out: {why}")
    notes = [*config.notes, *data.notes, *notes]
    for note in notes:
        watch.say(note)
    about: dict[str, Any] = {
        "dataset": data.name,
        "notes": notes,
        "graph": partition.graph.describe(),
        "graph_digest": partition.graph.digest,
        "data_digest": partition.data_digest,
        "split_digest": partition.digest,
        "held_out_edges": {stage: len(edges) for stage, edges in partition.edges.items()},
        "students": partition.part_sizes,
        "left_out": len(data.left_out),
        "sealed": int(np.isin(data.left_out, data.sealed).sum()),
        "responses": 0 if data.interactions is None else len(data.interactions),
        "skipped_tasks": dict(skipped),
        "finished": False,
    }
    about["test_parts"] = test_parts(partition, [each for each in config.task_specs() if each.name not in skipped])
    for part in about["test_parts"]:
        watch.say(said(part))
        if part["sealed"]:
            file = record(part, data.name, run.path, f"the seal was opened for a run of {', '.join(part['tasks'])}")
            watch.say(f"the reading of sealed students is entered in {file}; commit it with what follows from it")
    counts = about["graph"]
    watch.say(
        f"{data.name}: {counts['questions']:,} questions, {counts['concepts']:,} concepts, "
        f"{counts['edges']:,} edges ({sum(about['held_out_edges'].values()):,} more held out), "
        f"{about['responses']:,} responses"
    )
    if counts["concepts"] < 2:
        watch.say("warning: a single concept; every pair of questions shares it, so walks carry no structure")
    for folder in (run.path / name for name in VIEWS):  # of the run folder itself: claim() did it
        for each in (folder, *folder.rglob("*/")):
            tidy(each)
    write_text(run.path / VIEWED, json.dumps(sorted(_listed(run))) + "\n")
    (run.path / MANIFEST).unlink(missing_ok=True)  # it is written again with the last file
    write_text(run.path / "config.toml", tomli_w.dumps(config.to_dict()))
    write_text(run.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
    write_text(run.path / "about.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    _write_questions(run, partition)


def _write_questions(run: Run, partition: Partition) -> None:
    import polars as pl

    data = partition.dataset
    w, concepts = data.q_matrix, data.concepts
    names = [data.question_names.get(q, "") for q in data.questions]
    sets = [
        "; ".join(data.concept_names.get(concepts[c], concepts[c]) for c in w.indices[w.indptr[i] : w.indptr[i + 1]])
        for i in range(w.shape[0])
    ]
    labels = [data.concept_names.get(c, "") for c in concepts]
    for name, columns in {
        "questions.csv": {"question": list(data.questions), "name": names, "concepts": sets},
        "concepts.csv": {"concept": list(concepts), "name": labels},
    }.items():
        with whole(run.path / name) as file:
            guarded_frame(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))).write_csv(file)
    arrays = {"indptr": w.indptr, "indices": w.indices, "degree": np.diff(partition.graph.weights.indptr)}
    if partition.split is not None:
        train = partition.split.train
        arrays |= {"responses": train.counts, "difficulty": train.difficulty}
    with whole(run.path / "graph.npz") as file:
        np.savez_compressed(file, **arrays)


def write_tables(
    run: Run, methods: Sequence[Method], outcome: Outcome, *earlier: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """``tuning.jsonl``, ``training.jsonl``, ``curves.jsonl`` and ``results.jsonl``: the rows of these methods.

    Those of ``earlier``, table → rows, come after them.
    """
    rows = [*(method.rows(outcome) for method in methods), *earlier]
    for name in TABLES:
        text = "".join(json.dumps(row) + "\n" for each in rows for row in each.get(name, []))
        write_text(run.path / f"{name}.jsonl", text)


class Tables:
    """The tables of unfinished runs, written again whenever a method is finished.

    What the tables of a folder show of a method stays until the method is finished again, with more seeds perhaps.

    Parameters
    ----------
    methods : run → the methods compared in it.
    watch : receives the outcome of each method.
    redo : nothing that the tables show stays.
    """

    def __init__(self, methods: Mapping[Run, Sequence[Method]], watch: Watch, redo: bool = False) -> None:
        self._earlier = {} if redo else {run: _earlier(run, each) for run, each in methods.items()}
        self._methods, self._watch = methods, watch
        self._groups = Groups({(run, method): method.cells for run, each in methods.items() for method in each})

    def on_done(self, cell: Cell, outcome: Outcome) -> None:
        """A cell has ended."""
        for run, method in self._groups.done(cell):
            self._watch.say(method.said(outcome))
            complete = [m for m in self._methods[run] if self._groups.complete((run, m))]
            over = {(m.walk, m.name) for m in complete}
            kept = (rows for of, rows in self._earlier.get(run, {}).items() if of not in over)
            write_tables(run, complete, outcome, *kept)


def _earlier(run: Run, methods: Sequence[Method]) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Walk and trainer of methods that the tables show as they would be made now → their rows of each table."""
    now = {(method.walk, method.name): method.chosen.key for method in methods}
    shown = [row for row in run.rows("training") if "error" not in row]
    same = [of for row in shown if now.get(of := (row["walk"], row["trainer"])) == row["comparison"]]
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {of: {} for of in same}
    for name in TABLES:
        for row in run.rows(name) if found else ():
            if (of := (row["walk"], row["trainer"])) in found:
                found[of].setdefault(name, []).append(row)
    return found


def write_views(
    run: Run,
    methods: Sequence[Method],
    inspected: Mapping[str, Cell],
    maps: Mapping[Method, Cell],
    outcome: Outcome,
) -> None:
    """Tables, walks, vectors, scores, maps and facts of a finished run; views of another run are removed."""
    write_tables(run, methods, outcome)
    earlier, there = _listed(run), set[Path]()
    for method in methods:
        there |= set(method.link(run, outcome))
        there |= set(_link_walks(run, method, outcome))
        if maps[method] not in outcome.errors and method.error(outcome) is None:
            seed = next(iter(method.trained))
            view = run.file("maps", method.walk, method.name, method.readout(outcome), seed, ".npz")
            link(outcome.store.file(outcome.resolved(maps[method]), "map.npz"), view)
            there.add(view)
    for walk, cell in inspected.items():
        if cell not in outcome.errors:
            view = run.inspection(walk)
            write_text(view, json.dumps(outcome.row(cell), indent=1) + "\n")
            there.add(view)
    there |= set(_tracers(run, {sha256(view) for view in there if view.parent.name == "embeddings"}))
    names = {path.relative_to(run.path).as_posix() for path in there}
    for name in sorted(earlier - names, reverse=True):
        (run.path / name).unlink(missing_ok=True)
        for folder in (run.path / name).parents[: name.count("/") - 1]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    write_text(run.path / VIEWED, json.dumps(sorted(names)) + "\n")
    cells = {
        outcome.resolved(cell).key
        for cell in Plan(_cells(methods, inspected, maps)).reads
        if cell not in outcome.errors
    }
    about = {**run.read_json("about.json"), "finished": True, "cells": sorted(cells)}
    write_text(run.path / "about.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _cells(methods: Sequence[Method], inspected: Mapping[str, Cell], maps: Mapping[Method, Cell]) -> Iterator[Cell]:
    for method in methods:
        yield from method.cells
    yield from inspected.values()
    yield from maps.values()


def _listed(run: Run) -> set[str]:
    """Views that an earlier run in this folder has written, by its manifest: what the user added isn't among them."""
    found: set[str] = set()
    for name in (MANIFEST, VIEWED):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            held = from_json((run.path / name).read_text(encoding="utf-8"))
            found |= {str(each) for each in (held["files"] if name == MANIFEST else held)}
    return {name for name in found if name.partition("/")[0] in VIEWS and within(name)}


def refuse_links(folder: Path) -> None:
    """ConfigError if a folder of views is a link: files behind it would be replaced and removed."""
    for path in links(folder):
        raise ConfigError(f"{path}: is a link; move the folder back here, or name another --out")


def links(folder: Path) -> Iterator[Path]:
    """Links where a run has folders of views."""
    for pattern in (*VIEWS, *FOLDERS):
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_symlink())


def _tracers(run: Run, tables: Set[str]) -> Iterator[Path]:
    """Models of ``qcq trace`` that were made from these tables, with what is said of them."""
    for about in sorted((run.path / TRACERS).glob("*.json")):
        try:
            if from_json(about.read_text(encoding="utf-8"))["vectors"] in tables:
                yield from (about, about.with_suffix(".safetensors"))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it belongs to nothing that is known, and is removed


def _link_walks(run: Run, method: Method, outcome: Outcome) -> Iterable[Path]:
    for seed, trained in method.trained.items():
        walked = trained.walked
        if not isinstance(walked, Walked) or walked in outcome.errors:
            continue
        view = run.corpus(method.walk, seed)
        for file in sorted(outcome.store.file(walked, "corpus").iterdir()):
            link(file, view / file.name)
            yield view / file.name
