"""Coverage-guided fuzzing of every reader of files: data sets, vectors, settings, run folders, walks, models.

    python benchmarks/fuzz.py --minutes 30 --json FILE
    python benchmarks/fuzz.py --minutes 5 --only csv --only .parquet

It needs atheris (the extra ``fuzz``). Each reader gets its CPU-minutes in a process of its own. An input is an edit
script: its bytes say which file of a small valid sample is changed, where and how (a cell replaced, a line doubled, a
file cut short or lost; members of zip archives are files too). So mutations reach the code behind the syntax. Files are
in memory (``/dev/shm``, where there is one). A typed error or an OSError is an answer; anything else is a finding, and
so is an input that takes 20 CPU-seconds. It goes on with its corpus, a folder for each reader, where the files of
each finding and the counts so far are kept too. A new folder begins with the corpus in ``fuzz_corpus.json``, and
``--keep`` writes the folder's corpus there: inputs as Base64, and the counts. ``tests/test_fuzz_corpus.py`` reads them.

The report counts inputs, paths (inputs that reached new code), the paths that the last tenth of the inputs added, and
findings, one for each kind of exception and line of the package. All are of every run on this corpus, together; with
``--minutes 0`` it only reports.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CODE = ["data", "support", "config", "run", "embeddings", "corpus", "graph", "recipes"]
CODE += ["engine.verify", "engine.store", "models.inference", "models.weights"]
MEMORY = 6 * 2**30  # bytes that a reader may ask for; a file that announces more is refused before, or MemoryError
SLOW = 20  # CPU-seconds
CORPUS = Path(__file__).with_name("fuzz_corpus.json")

TOKENS = [
    *(b"", b"0", b"1", b"-1", b"2", b"0.5", b"1e309", b"-1e-320", b"nan", b"NULL", b"inf", b"True", b"null", b"[]"),
    *(b"{}", b"[1, 2]", b'"', b"'", b",", b";", b"\t", b"\n", b"\r\n", b"\n\n", b" ", b"\0", b"\xff", b"\x80", b"."),
    *(
        b"\\ud800",
        b"\\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1f\x8b",
        b"PK\x03\x04",
        "题".encode(),
        "é".encode(),
        b"\xe2\x80\xa8",
    ),
    *("１".encode(), "²".encode(), b"1_000", b"0x1f", b"9" * 25, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000),
    *(b"-" * 3000 + b"1", b"question", b"concepts", b"student", b"correct", b"timestamp", b"weight", b"name", b"ids"),
    *(b"vectors", b"__import__('os')", b"../../x", b"/etc/passwd", b"shape", b"O", b"<M8[ns]", b"(", b")", b"=", b":"),
]

Files = dict[str, bytes]


def edited(files: Mapping[str, bytes], script: bytes) -> Files:
    """A sample's files after an edit script: operations of four bytes (what, which file, where), some with more."""
    made, at = dict(files), 0
    names = sorted(files)

    def more(n: int) -> bytes:
        nonlocal at
        found = script[at : at + n]
        at += n
        return found.ljust(n, b"\0")

    while at < len(script) and sum(map(len, made.values())) < 1 << 18:
        operation, which, *place = more(4)
        name = names[which % len(names)]
        data = made.get(name, b"")
        where = int.from_bytes(bytes(place), "little") % (len(data) + 1)
        made[name] = _operation(operation % 14, data, where, more, made, names)
        if operation % 14 == 8:
            del made[name]
    return made


def _operation(
    what: int, data: bytes, at: int, more: Callable[[int], bytes], files: Mapping[str, bytes], names: list[str]
) -> bytes:
    line = data.rfind(b"\n", 0, at) + 1
    end = (data.find(b"\n", at) + 1) or len(data)
    begin = max(data.rfind(mark, 0, at) for mark in (b",", b"\n", b"\t", b";", b" ", b":", b"[")) + 1
    stop = min((found for mark in b',\n\t; :]"' if (found := data.find(mark, at)) >= 0), default=len(data))
    if what == 0:
        return data[:at] + more(1) + data[at + 1 :]
    if what == 1:
        return data[:at] + TOKENS[more(1)[0] % len(TOKENS)] + data[at:]
    if what == 2:
        return data[:begin] + TOKENS[more(1)[0] % len(TOKENS)] + data[stop:]
    if what == 3:
        return data[:begin] + data[stop:]
    if what == 4:
        return data[:line] + data[end:]
    if what == 5:
        return data[:end] + data[line:end] * (1 + more(1)[0] % 40) + data[end:]
    if what == 6:
        return data[:at]
    if what == 7:
        return data[:at] + more(more(1)[0] % 24) + data[at:]
    if what == 9:
        return data[:line] + data[end:] + data[line:end]
    if what == 10:
        return TOKENS[more(1)[0] % len(TOKENS)]
    if what == 11:
        other = files.get(names[more(1)[0] % len(names)], b"")
        return data[:at] + other[: 4 * more(1)[0]] + data[at:]
    if what == 12:
        cell = data[begin:stop]
        return data[:stop] + b"," + cell + data[stop:]
    if what == 13:
        return data[:at] + bytes([(data[at : at + 1] or b"\0")[0] ^ (1 << more(1)[0] % 8)]) + data[at + 1 :]
    return data


def unpacked(folder: Path) -> Files:
    """The files of a folder; the members of a zip archive as ``archive!member``."""
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".npz", ".xlsx", ".pt"):
            with zipfile.ZipFile(path) as held:
                found |= {f"{name}!{member}": held.read(member) for member in held.namelist()}
        else:
            found[name] = path.read_bytes()
    return found


class Disk:
    """A folder that holds some files; only those that differ from the last ones are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: Files = {}

    def hold(self, files: Files) -> Path:
        """Make the folder hold these files and no others."""
        wanted = _packed(files)
        for name in self._held.keys() - wanted.keys():
            (self.folder / name).unlink()
        for name, data in wanted.items():
            if self._held.get(name) != data:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        self._held = wanted
        return self.folder


def _packed(files: Files) -> Files:
    made = {name: data for name, data in files.items() if "!" not in name}
    for archive in {name.partition("!")[0] for name in files if "!" in name}:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as held:
            for name, data in files.items():
                if name.startswith(archive + "!"):
                    held.writestr(zipfile.ZipInfo(name.partition("!")[2]), data)
        made[archive] = out.getvalue()
    return made


# ---------------------------------------------------------------------------------------------------------- targets


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
            _answered(step)

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


def _answered(step: Callable[[], object]) -> None:
    """Run a step; a typed error or an OSError is an answer."""
    from qcq.errors import QCQError

    try:
        step()
    except (QCQError, OSError):
        return


# ---------------------------------------------------------------------------------------------------------- one reader


def where(error: BaseException) -> str:
    """Kind of the exception and the innermost line of the package: findings alike are one."""
    lines = traceback.extract_tb(error.__traceback__)
    mine = [line for line in lines if f"{ROOT.name}/" in line.filename or "/qcq/" in line.filename]
    mine = [line for line in mine if "/benchmarks/" not in line.filename]
    last = mine[-1] if mine else lines[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno} {last.name}"


class TooSlow(Exception):
    """An input took too many CPU-seconds."""


def _stopped(*_: object) -> None:
    raise TooSlow(f"{SLOW} CPU-seconds")


def fuzz(name: str, minutes: float, corpus: Path) -> None:
    """Fuzz one reader in this process; never returns."""
    import atheris

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + 4 * 2**30, MEMORY + 4 * 2**30))
    with atheris.instrument_imports(include=[f"qcq.{part}" for part in CODE]):
        sample, act = targets()[name]()
    seeds, findings = corpus / "inputs", corpus / "findings"
    for folder in (seeds, findings):
        folder.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    disk = Disk(scratch)
    act(disk.hold(sample))  # the sample itself must be readable
    known = {path.stem for path in findings.glob("*.json")}
    count, last = 0, time.process_time() + 60 * minutes

    def one(script: bytes) -> None:
        nonlocal count
        count += 1
        if count % 64 == 0 and time.process_time() > last:
            shutil.rmtree(scratch, ignore_errors=True)
            print(f"#{count}\tEND", file=sys.stderr, flush=True)
            os._exit(0)
        files, began = edited(sample, script), time.process_time()
        try:
            signal.setitimer(signal.ITIMER_PROF, SLOW)
            _answered(lambda: act(disk.hold(files)))
            if time.process_time() - began > SLOW:  # where it was, was swallowed
                raise TooSlow(f"{time.process_time() - began:.0f} CPU-seconds")
        except Exception as error:
            said = where(error)
            stem = re.sub(r"\W+", "-", said)
            if stem not in known:
                known.add(stem)
                text = "".join(traceback.format_exception(error))
                held = {file: data.decode("latin-1") for file, data in files.items() if data != sample.get(file)}
                lost = sorted(sample.keys() - files.keys())
                about = {"reader": name, "finding": said, "error": text, "files": held, "lost": lost}
                (findings / f"{stem}.json").write_text(json.dumps(about, indent=1))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, _stopped)
    options = [f"-timeout={20 * SLOW}", "-max_len=400", f"-rss_limit_mb={MEMORY >> 20}"]
    options.append(f"-artifact_prefix={corpus}/stopped-")
    atheris.Setup([sys.argv[0], *options, str(seeds)], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU-minutes for each reader")
    parser.add_argument("--only", action="append", metavar="READER", help="may be repeated; see --list")
    parser.add_argument("--corpus", type=Path, default=ROOT / "build" / "fuzz", help="a folder; it goes on with it")
    parser.add_argument("--keep", action="store_true", help=f"write the corpus to {CORPUS.name} at the end")
    parser.add_argument("--list", action="store_true", help="name the readers and leave")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None and not given.list:
        print("fuzzing needs atheris; install it with: pip install 'qcq[fuzz]'")
        return
    if given.one:
        fuzz(given.one, given.minutes, given.corpus)
    names = list(targets())
    if given.list:
        print("\n".join(names))
        return
    if unknown := set(given.only or ()) - set(names):
        sys.exit(f"no reader {min(unknown)!r}; see --list")
    rows = []
    for name in given.only or names:
        folder = given.corpus / name.replace(" ", "-").replace(".", "")
        if not folder.exists():
            unpack(name, folder)
        rows.append(reader(name, given.minutes, folder))
        if given.keep:
            keep(name, folder)
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        if given.json:
            written(given.json, rows)
    if any(row["findings"] for row in rows):
        sys.exit(1)


def kept() -> dict[str, dict[str, Any]]:
    """The corpus in the repository: for each reader its counts and its inputs."""
    return json.loads(CORPUS.read_text()) if CORPUS.is_file() else {}


def unpack(name: str, folder: Path) -> None:
    """Begin a folder with the inputs and counts in the repository."""
    held = kept().get(name)
    (folder / "inputs").mkdir(parents=True)
    if held is None:
        return
    for at, script in enumerate(held["inputs"]):
        (folder / "inputs" / f"{at:05}").write_bytes(base64.b64decode(script))
    (folder / "counts.json").write_text(json.dumps(held["counts"]))


def keep(name: str, folder: Path) -> None:
    """Put a folder's inputs and counts into the repository."""
    scripts = sorted({base64.b64encode(path.read_bytes()).decode() for path in (folder / "inputs").iterdir()})
    every = {**kept(), name: {"counts": json.loads((folder / "counts.json").read_text()), "inputs": scripts}}
    lines = (f"{json.dumps(reader)}: {_lines(held)}" for reader, held in sorted(every.items()))
    CORPUS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _lines(held: Mapping[str, Any]) -> str:
    scripts = ",\n".join(map(json.dumps, held["inputs"]))
    return f'{{"counts": {json.dumps(held["counts"])}, "inputs": [\n{scripts}\n]}}'


def reader(name: str, minutes: float, corpus: Path) -> dict[str, Any]:
    """Fuzz a reader in a process of its own; one that stops (a hang, a crash of compiled code) is started again."""
    corpus.mkdir(parents=True, exist_ok=True)
    counts = corpus / "counts.json"  # of all runs on this corpus
    before: dict[str, Any] = {"seconds": 0, "inputs": 0, "new": [], "ended": [], "found": []}
    if counts.is_file():
        before = json.loads(counts.read_text())
    found = {*before["found"]}
    inputs, new, stopped, used, stops = before["inputs"], before["new"], before["ended"], 0.0, 0
    while used < 60 * minutes and stops < 50:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, __file__, "--one", name, "--corpus", str(corpus)]
        command += ["--minutes", str(minutes - used / 60)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        used += spent.ru_utime + spent.ru_stime - began.ru_utime - began.ru_stime
        new += [inputs + int(n) for n in re.findall(r"^#(\d+)\s+NEW", done.stderr, flags=re.MULTILINE)]
        inputs += max(map(int, re.findall(r"^#(\d+)\s", done.stderr, flags=re.MULTILINE)), default=0)
        if done.returncode:
            stops += 1
            how, _, script = _stop(done.stderr).partition("; input ")
            if all(how != kind for kind, _ in stopped):  # one finding, however often it happens
                stopped.append([how, script])
        found |= {json.loads(path.read_text())["finding"] for path in corpus.glob("findings/*.json")}
        held = {"seconds": before["seconds"] + used, "inputs": inputs, "new": new, "ended": stopped}
        counts.write_text(json.dumps({**held, "found": sorted(found)}))
    return {
        "reader": name,
        "CPU-minutes": round((before["seconds"] + used) / 60, 1),
        "inputs": inputs,
        "paths": len(new),
        "paths in the last tenth": sum(n > 0.9 * inputs for n in new),
        "findings": len(found) + len(stopped),
        "found": sorted(found) + [f"{how}; input {script}" for how, script in stopped],
    }


def _stop(said: str) -> str:
    """How a process ended that could not say so itself, and the input that did it: one line."""
    # Most panics are exceptions that were caught; the last one counts, where no memory was refused after it.
    memory, panics = "memory allocation" in said, re.findall(r"panicked at .*", said)
    why = ["too much memory is asked for"] if memory else panics[-1:]
    why += re.findall(r"^SUMMARY: .*", said, flags=re.MULTILINE)
    script = re.findall(r"^Base64: (\S+)", said, flags=re.MULTILINE)
    return "; ".join([*why, *(f"input {each} (Base64)" for each in script)]) or "the process ended without a word"


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a results file in place of those of the same readers."""
    from record import made

    fresh = {row["reader"]: row for row in rows}
    held = json.loads(path.read_text())["rows"] if path.is_file() else []
    every = [*(row for row in held if row["reader"] not in fresh and row["reader"] != "all readers"), *fresh.values()]
    counts = ("CPU-minutes", "inputs", "paths", "paths in the last tenth", "findings")
    total = {"reader": "all readers", **{key: round(sum(row[key] for row in every), 1) for key in counts}}
    path.write_text(json.dumps({"rows": [*every, total], "made": made()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
