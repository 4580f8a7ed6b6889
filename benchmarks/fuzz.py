"""Coverage-guided fuzzing of every reader of files: data sets, vectors, settings, run folders, walks, models.

    python benchmarks/fuzz.py --minutes 30 --json FILE
    python benchmarks/fuzz.py --minutes 5 --only csv --only .parquet

It needs atheris (the extra ``fuzz``). Each reader (``fuzz_targets.py``) has its CPU-minutes in a process of its own. An
input is an edit script (``fuzz_inputs.py``): its bytes say which file of a small valid sample is changed, where, how.
A cell is replaced, a line doubled, a file cut short or lost; members of zip archives are files too. So mutations reach
the code behind the syntax. Files are in memory (``/dev/shm``, where there is one). A typed error or an OSError is an
answer. Anything else is a finding, and so is an input that takes 20 CPU-seconds. It goes on with its corpus, a folder
for each reader, where the files of each finding and the counts so far are kept too. A new folder begins with the corpus
in ``fuzz_corpus.json``, and ``--keep`` writes the folder's corpus there: inputs as Base64, and the counts.
``tests/test_fuzz_corpus.py`` reads them.

The report counts inputs, paths (inputs that reached new code), the paths that the last tenth of the inputs added, and
findings, one for each kind of exception and line of the package. All are of every run on this corpus, together; with
``--minutes 0`` it only reports.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuzz_inputs import Disk, edited
from fuzz_targets import answered, targets

ROOT = Path(__file__).resolve().parents[1]
CODE = ["data", "support", "config", "run", "embeddings", "corpus", "graph", "recipes"]
CODE += ["engine.verify", "engine.store", "models.inference", "models.weights"]
MEMORY = 6 * 2**30  # bytes that a reader may ask for; a file that announces more is refused before, or MemoryError
SLOW = 20  # CPU-seconds
CORPUS = Path(__file__).with_name("fuzz_corpus.json")


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
            answered(lambda: act(disk.hold(files)))
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
