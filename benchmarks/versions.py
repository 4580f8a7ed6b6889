"""The same seed with the lowest and the newest dependencies that pyproject.toml allows, and on other Pythons.

    python benchmarks/versions.py --json docs/results/versions.json
    python benchmarks/versions.py --torch 2.13.0 --python python3.12 --python python3.13 --json FILE

qcq is installed from the checkout, as a wheel, into an environment of its own for each case. There every trainer
without an extra learns on walks of one kind, and one trainer on walks of every kind, on a small simulated classroom.
Compared are the walks, all vectors, losses and scores: equal bytes, or the largest difference. A difference of vectors
is relative to the largest number in them; one of losses and scores is absolute.

uv (installed into the same folder) chooses the versions; those of transitive dependencies are the newest in both cases.
``--torch`` fixes torch in both, where an index has small builds of one release alone. ``--python`` adds two cases on
another Python, with the same versions and with the newest there; torch and its trainers are left out. An environment
takes up to 2 GB (far more with torch for GPUs) and is removed after its job. With ``--folder`` an interrupted benchmark
goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from record import made
from safetensors.numpy import load_file

from qcq.models import TRAINERS
from qcq.walks import WALKS

ROOT = Path(__file__).resolve().parents[1]
WITH_EXTRA = {"hf-bert"}
WITH_TORCH = {"pebg", "simqe", "mlm", "cloze", "clm", "bilm", "rtd"}
CLASSROOM = """
data = "simulated"
seeds = 1
dim = 16
tune = false
simulated = { questions = 200, concepts = 12, students = 120, responses = 30, sets = 12 }
walk = { length = 12, per_question = 4 }
kt = { epochs = 2, hidden = 16, tables = ["frozen"] }
"""
QUICK = {
    **{name: {"steps": 40, "batch": 16} for name in ("mlm", "cloze", "clm", "bilm", "rtd")},
    "pebg": {"epochs": 20},
}
# How the libraries are told how many threads to take, and where Python looks for modules, is not taken over.
LEFT_OUT = ("PYTHONPATH", "VIRTUAL_ENV")
VERSIONS = "versions.json"


@dataclass(frozen=True)
class Case:
    """An environment.

    Parameters
    ----------
    name : in the results.
    python : its interpreter.
    resolution : which versions uv takes: ``lowest-direct`` or ``highest``.
    torch : whether torch is installed.
    like : the name of a case whose versions are taken instead.
    """

    name: str
    python: str
    resolution: str
    torch: bool = True
    like: str = ""

    @property
    def trainers(self) -> list[str]:
        """The trainers that can learn there."""
        return [name for name in TRAINERS if name not in WITH_EXTRA and (self.torch or name not in WITH_TORCH)]

    @property
    def tasks(self) -> list[str]:
        """The tasks that score them."""
        return ["edges", "difficulty", "retrieval", "kt-fast", "kt-baselines", *(["kt"] if self.torch else [])]


def called(*command: str | Path) -> str:
    """The output of a command, which must succeed."""
    plain = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=plain)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def wheel(folder: Path) -> Path:
    """The wheel of the checkout, built from a copy, which leaves nothing in the checkout."""
    source = folder / "source"
    for name in called("git", "-C", ROOT, "ls-files", "-z").split("\0"):
        if (path := ROOT / name).is_file() and not path.is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / name)
    called(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    return next(folder.glob("*.whl"))


def installed(case: Case, fixed: dict[str, str], folder: Path) -> dict[str, str]:
    """Make the environment ``folder``/python; returns the versions of the direct dependencies in it."""
    called(sys.executable, "-m", "venv", folder / "uv")
    called(folder / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "uv")
    called(case.python, "-m", "venv", folder / "python")
    python, pins, given = folder / "python" / "bin" / "python", folder / "pins.txt", folder / "fixed.txt"
    pinned = {name: version.partition("+")[0] for name, version in fixed.items() if name != "python"}
    given.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
    number = called(python, "-c", "import platform; print(platform.python_version())").strip()
    compile_ = [str(folder / "uv" / "bin" / "uv"), "pip", "compile", str(ROOT / "pyproject.toml")]
    wanted: list[str | Path] = ["--resolution", case.resolution, "--python-version", number, "--constraint", given]
    called(*compile_, "--only-binary", ":all:", *wanted, "--output-file", pins)
    direct = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    asked = [each for each in direct if case.torch or Requirement(each).name != "torch"]
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    called(*install, "--constraint", pins, *asked)
    called(*install, "--no-deps", wheel(folder))
    listed = json.loads(called(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    names = {Requirement(each).name for each in direct}
    return {"python": number} | {each["name"].lower(): each["version"] for each in listed if each["name"] in names}


def worked(case: Case, folder: Path, done: Path, fixed: dict[str, str]) -> None:
    """The job in its environment: every trainer on one walk, then one trainer on every walk."""
    versions = installed(case, fixed, folder)
    shutil.rmtree(done, ignore_errors=True)
    done.mkdir()
    settings = "".join(
        f"{name} = {{ {', '.join(f'{key} = {value}' for key, value in QUICK[name].items())} }}\n" for name in QUICK
    )
    (done / "job.toml").write_text(CLASSROOM + settings)
    command: list[str | Path] = [folder / "python" / "bin" / "qcq", "run", done / "job.toml", "--quiet"]
    called(*command, "--trainers", ",".join(case.trainers), "--tasks", ",".join(case.tasks), "--out", done / "trainers")
    called(*command, "--walks", ",".join(WALKS), "--trainers", "ppmi-svd", "--tasks", "edges", "--out", done / "walks")
    (done / VERSIONS).write_text(json.dumps(versions))  # last: it says that the job is done


def results(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(walk, trainer) → its vectors, scores, losses and the digest of its walks."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in (run / "training.jsonl").read_text().splitlines():
        row = json.loads(line)
        stem = f"{row['walk']}--{row['trainer']}--*".replace(":", "-")
        arrays = {
            (path.name, key): array
            for path in sorted((run / "embeddings").glob(f"{stem}.safetensors"))
            for key, array in load_file(path).items()
        }
        numbers = {(key,): row[key] for key in ("loss", "floor", "unigram")}
        found[row["walk"], row["trainer"]] = {"arrays": arrays, "numbers": numbers, "walks": row["corpus_digest"]}
    for line in (run / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        at = found.setdefault((row["walk"], row["trainer"]), {"arrays": {}, "numbers": {}, "walks": None})
        at["numbers"] |= {(row["task"], row["metric"], row["readout"]): row["value"]}
    return found


def apart(a: float | None, b: float | None) -> float:
    """How far two numbers are apart; nothing if both are missing, infinite if one is."""
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    return abs(a - b)


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Whether the results of one trainer are equal in two environments, and how far they are apart."""
    a, b = one["arrays"], other["arrays"]
    if a.keys() != b.keys() or any(a[key].shape != b[key].shape for key in a):
        raise SystemExit(f"other vectors: {sorted(a)} and {sorted(b)}")
    vectors = [float(np.abs(a[key] - b[key]).max() / max(np.abs(a[key]).max(), 1e-30)) for key in a if a[key].size]
    # Without torch there are fewer scores; those of both are compared.
    both = sorted(one["numbers"].keys() & other["numbers"].keys())
    numbers = {key: apart(one["numbers"][key], other["numbers"][key]) for key in both}
    worst = max(numbers, key=lambda key: numbers[key])
    return {
        "walks": "equal" if one["walks"] == other["walks"] else "differ",
        "vectors": "equal" if all(a[key].tobytes() == b[key].tobytes() for key in a) else "differ",
        "vectors apart, relative": max(vectors, default=0.0),
        "scores": len(numbers),
        "scores equal": sum(not each for each in numbers.values()),
        "scores apart": numbers[worst],
        "furthest": " ".join(worst) if numbers[worst] else "",
    }


def rows(base: Path, other: Path, case: str) -> Iterator[dict[str, Any]]:
    """A row for each trainer and each walk, and one for all."""
    for kind in ("trainers", "walks"):
        here, there = results(base / kind), results(other / kind)
        found = [
            {"case": case, "of": kind, "walk": walk, "trainer": trainer}
            | compared(here[walk, trainer], there[walk, trainer])
            for walk, trainer in sorted(here.keys() & there.keys())
        ]
        yield {
            "case": case,
            "of": f"all {kind}",
            "compared": len(found),
            **{f"{what} equal": sum(row[what] == "equal" for row in found) for what in ("walks", "vectors")},
            **{what: sum(row[what] for row in found) for what in ("scores", "scores equal")},
            **{what: max(row[what] for row in found) for what in ("vectors apart, relative", "scores apart")},
        }
        yield from found


def main() -> None:
    """Make the environments, run the job in each, compare."""
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--torch", help="a release of torch for the lowest and the newest dependencies alike")
    about.add_argument("--python", action="append", default=[], help="a further Python, without torch")
    about.add_argument("--folder", type=Path, help="keeps the results, so that a case is not done again")
    about.add_argument("--json", type=Path)
    given = about.parse_args()
    cases = [Case("newest", sys.executable, "highest"), Case("lowest", sys.executable, "lowest-direct")]
    for python in given.python:
        number = called(python, "-c", "import sys; print('.'.join(map(str, sys.version_info[:2])))").strip()
        cases.append(Case(f"the same on Python {number}", python, "highest", torch=False, like="newest"))
        cases.append(Case(f"newest on Python {number}", python, "highest", torch=False))
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        environments: list[dict[str, Any]] = []
        out: list[dict[str, Any]] = []
        for case in cases:
            done = folder / case.name.replace(" ", "-")
            if not (done / VERSIONS).is_file():
                fixed = {} if given.torch is None else {"torch": given.torch}
                if case.like:
                    fixed |= json.loads((folder / case.like / VERSIONS).read_text())
                with tempfile.TemporaryDirectory(dir=folder) as home:
                    worked(case, Path(home), done, fixed)
            versions = json.loads((done / VERSIONS).read_text())
            environments.append({"environment": case.name, "versions": versions})
            print(f"{case.name}: {versions}", flush=True)
            if case is not cases[0]:
                out += rows(folder / cases[0].name, done, f"{cases[0].name} and {case.name}")
    for row in out:
        print({key: value for key, value in row.items() if value != ""})
    if given.json is not None:
        record = {**made(), "torch": given.torch, "environments": environments, "rows": out}
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
