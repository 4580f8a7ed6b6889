"""The main job in one process and in several: the same bytes, and how much sooner.

    python benchmarks/jobs.py --data s2kt:DIR --seeds 4 --jobs 2 --before COMMIT --set mlm.steps=600 --json FILE

Every run starts with an empty folder. ``--before`` checks a commit out beside and compares the vectors that it makes.
At one job a trainer may use all cores (``sgns``, the walks); at N jobs each process gets its share of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import made

import qcq
from qcq.embeddings import Embeddings

ROOT = Path(qcq.__file__).parent
CODE = "from qcq.cli import main; main()"


def timed(out: Path, options: list[str], source: Path | None = None) -> float:
    """Wall seconds of ``qcq run`` with these options; ``source`` is a folder whose ``qcq`` is another version."""
    env = dict(os.environ) if source is None else {**os.environ, "PYTHONPATH": str(source)}
    began = time.perf_counter()
    command = [sys.executable, "-c", CODE, "run", "--quiet", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=out.parent)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Every table of a run: file name → float32 (questions, dim)."""
    return {path.name: Embeddings.load(path).vectors for path in sorted((folder / "embeddings").glob("*.safetensors"))}


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Names of the tables that are not the same, byte for byte."""
    names = sorted({*one, *other})
    return [n for n in names if n not in one or n not in other or one[n].tobytes() != other[n].tobytes()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="simulated")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--before", help="a commit whose vectors have to be the same")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    options = ["--data", given.data, "--seeds", str(given.seeds), *(f"--set={s}" for s in given.set)]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        seconds = {n: timed(home / f"jobs-{n}", [*options, "--jobs", str(n)]) for n in (1, given.jobs)}
        one = vectors(home / "jobs-1")
        unlike = {f"--jobs {given.jobs}": differing(one, vectors(home / f"jobs-{given.jobs}"))}
        if given.before:
            tree = home / "tree"
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "-q", "--detach", str(tree), given.before], check=True)
            try:
                (home / "path").mkdir()
                (home / "path" / "qcq").symlink_to(tree)
                seconds_before = timed(home / "before", options, home / "path")
                unlike[given.before] = differing(one, vectors(home / "before"))
            finally:
                subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    ratio = seconds[given.jobs] / seconds[1]
    print(
        f"{given.data}, {given.seeds} seeds, {len(one)} tables: {seconds[1]:.0f} s in one process, "
        f"{seconds[given.jobs]:.0f} s in {given.jobs}: {ratio:.2f} of the time"
    )
    if given.before:
        print(f"{given.before} took {seconds_before:.0f} s")
    for name, tables in unlike.items():
        print(f"{name}: {'the same vectors' if not tables else f'other vectors: {tables}'}")
    if given.json:
        found = {
            "case": f"{Path(given.data).name}, {given.seeds} seeds",
            "peer": "--jobs 1",
            "ratio": ratio,
            "seconds": {str(n): s for n, s in seconds.items()},
            "settings": given.set,
            "tables": len(one),
            "unlike": unlike,
            "made": made(),
        }
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if any(unlike.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
