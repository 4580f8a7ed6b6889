"""The readers that benchmarks/fuzz.py tries: of each a small valid sample, and what is done with its files."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from fuzz_inputs import Files, unpacked

ROOT = Path(__file__).resolve().parents[1]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


Target = tuple[Files, Callable[[Path], object]]  # a sample, and what is done with a folder that holds it


def targets() -> dict[str, Callable[[], Target]]:
    """Reader → how its target is made. Nothing of qcq but the registries is imported before one is made."""
    from qcq.data import DATASETS, graphs
    from qcq.support import vectors

    found: dict[str, Callable[[], Target]] = {}
    for name, kind in DATASETS.items():
        if kind.needs_path:
            found[name] = partial(_dataset, name)
    found |= {f"csv {ending}": partial(_table, ending) for ending in (".parquet", ".xlsx")}
    found |= {f"graph {ending}": partial(_graph, ending) for ending in graphs.READERS}
    found |= {f"vectors {ending}": partial(_vectors, ending) for ending in vectors.READERS}
    return found | {"settings": _settings, "run folder": _run, "walks": _walks, "model": _model, "weights": _weights}


def _dataset(name: str) -> Target:
    """The tests' own small sample of a data set, and its reader."""
    from qcq.data import DATASETS, load
    from qcq.graph import KnowledgeGraph

    contracts, bad = (_module(ROOT / "tests" / f"test_{each}.py") for each in ("contracts", "bad_input"))
    with tempfile.TemporaryDirectory() as home:
        if name not in contracts.MADE and hasattr(bad, name):
            for file, text in getattr(bad, name)().items():
                Path(home, file).write_text(text, encoding="utf-8")
        else:
            contracts.sample(name, Path(home))
        if name == "csv":
            Path(home, "concepts.csv").write_text("concept,name,parent\nhalves,Halves,\nthirds,Thirds,halves\n")
            rows = "s1,q1,1,2020-01-01 00:00:00\ns1,q2,0,2020-01-01 00:00:01\n"
            Path(home, "interactions.csv").write_text("student,question,correct,timestamp\n" + rows)
        files = unpacked(Path(home))

    def read(folder: Path) -> object:
        there = [path for path in folder.iterdir() if path.is_file()]
        path = there[0] if name == "graph" and there else folder
        DATASETS[name].recognises(path)
        return KnowledgeGraph.from_dataset(load(f"{name}:{path}")).digest

    return files, read


def _table(ending: str) -> Target:
    """A bank and its responses in files of another kind than text."""
    import datetime

    import polars as pl

    from qcq.data import load
    from qcq.graph import KnowledgeGraph

    bank = {"question": ["q1", "q2", "q3"], "concepts": ["halves;thirds", "halves", "thirds"], "text": ["a", "b", None]}
    when = [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)]
    answers = {"student": [1, 1], "question": ["q1", "q2"], "correct": [1.0, 0.0], "timestamp": when}
    with tempfile.TemporaryDirectory() as home:
        for name, columns in (("questions", bank), ("interactions", answers)):
            _write_table(pl.DataFrame(columns), Path(home, name + ending))
        files = unpacked(Path(home))
    return files, lambda folder: KnowledgeGraph.from_dataset(load(f"csv:{folder}")).digest


def _write_table(frame: Any, file: Path) -> None:
    if file.suffix == ".parquet":
        frame.write_parquet(file)
        return
    import openpyxl

    book = openpyxl.Workbook()
    for row in (frame.columns, *frame.rows()):
        book.active.append(row)
    if None in frame.row(-1):
        book.active.merge_cells("C3:C4")
    book.save(file)


def _bank() -> Any:
    from qcq.data import read

    return read([(f"q{i}", f"c{i % 3}") for i in range(12)] + [(f"q{i}", f"d{i % 2}") for i in range(12)])


def _graph(ending: str) -> Target:
    from qcq.data import read
    from qcq.graph import KnowledgeGraph

    with tempfile.TemporaryDirectory() as home:
        KnowledgeGraph.from_dataset(_bank()).save(Path(home, f"graph{ending}"))
        return unpacked(Path(home)), lambda folder: read(f"graph:{folder / f'graph{ending}'}")


def _vectors(ending: str) -> Target:
    import numpy as np

    from qcq.embeddings import Embeddings

    names = ["q1", "q2" if ending in (".txt", ".vec", ".bin") else "题 2", "q3"]
    with tempfile.TemporaryDirectory() as home:
        rows = (np.arange(6).reshape(3, 2) / 7).astype(np.float32)
        Embeddings(names, rows).save(Path(home, f"table{ending}"))
        return unpacked(Path(home)), lambda folder: Embeddings.load(folder / f"table{ending}")


def _settings() -> Target:
    from qcq.config import Config

    text = (
        'data = "simulated"\nwalks = ["qcq", "node2vec@x"]\ntrainers = "svd,mlm"\ntasks = ["edges"]\nseeds = 2\n'
        "[walk]\nlength = 20\n[mlm]\nsteps = 3\n[node2vec]\np = 0.5\n[sizes.small]\nseeds = 1\n"
        "[sizes.small.mlm]\nsteps = 2\n"
    )
    return {"a.toml": text.encode()}, lambda folder: Config.load(folder / "a.toml", size="small").to_dict()


def _run() -> Target:
    from qcq.config import Config
    from qcq.engine.verify import verify
    from qcq.pipeline import Experiment
    from qcq.run import Run

    with tempfile.TemporaryDirectory() as home:
        config = Config.load(overrides=["trainers=svd", "tasks=edges", "seeds=1", "tune=false", "dim=4"])
        Experiment(config, _bank()).run(Path(home, "run"))
        files = {name: data for name, data in unpacked(Path(home)).items() if "report" not in name}

    def read(folder: Path) -> None:
        made = Run.open(folder / "run")
        steps: list[Any] = [lambda: made.config, lambda: made.finished, made.best]
        steps += [lambda: verify(made), made._repr_html_]
        steps += [lambda name=name: made.rows(name) for name in ("results", "training", "tuning", "curves")]
        steps += [lambda: made.embeddings("svd"), lambda: made.units("none", "svd", "table", 0), made.frame]
        for step in steps:  # each by itself: the first error would hide the others
            answered(step)

    return files, read


def _walks() -> Target:
    from qcq.corpus import Corpus
    from qcq.graph import KnowledgeGraph
    from qcq.walks import WALKS

    with tempfile.TemporaryDirectory() as home:
        WALKS["qcq"](length=4, per_question=1).sample(KnowledgeGraph.from_dataset(_bank())).save(Path(home, "walks"))
        return unpacked(Path(home)), lambda folder: Corpus.load(folder / "walks").n_walks


def _model() -> Target:
    from qcq.embeddings import Embeddings
    from qcq.recipes import embed

    with tempfile.TemporaryDirectory() as home:
        table = embed(_bank(), "concepts", dim=3)
        table.save(Path(home, "table.npz"))
        table.save_model(Path(home, "table.npz"))
        _drop_digest(Path(home, "table.npz.model", "model.safetensors"))
        files = unpacked(Path(home))
    return files, lambda folder: Embeddings.load(folder / "table.npz").infer({"new": ["c1", "d0"]})


def _drop_digest(file: Path) -> None:
    """A model as earlier versions wrote it. With its digest every change would be noticed at once."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(str(file), framework="numpy") as held:
        said = json.loads(held.metadata()["model"])
        arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  (not a dict)
    del said["digest"]
    save_file(arrays, file, {"model": json.dumps(said)})


def _weights() -> Target:
    import numpy as np

    from qcq.models.weights import Weights

    with tempfile.TemporaryDirectory() as home:
        rows = np.arange(6, dtype=np.float32).reshape(3, 2)
        made = Weights(["q1", "q2"], ["c1"], {"input": rows, "output": rows}, trainer={"name": "sgns", "dim": 2})
        made.save(Path(home, "weights.safetensors"))
        files = unpacked(Path(home))
    return files, lambda folder: Weights.load(folder / "weights.safetensors").refuse_other("sgns", 2, 3)


def answered(step: Callable[[], object]) -> None:
    """Run a step; a typed error or an OSError is an answer."""
    from qcq.errors import QCQError

    try:
        step()
    except (QCQError, OSError):
        return
