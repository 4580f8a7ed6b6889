"""How long reading takes and how much memory, with the checks of own data, beside an earlier state and beside pandas.

Each reading runs in a process of its own; the states take turns, so that a busy machine slows all of them. Medians.

    python benchmarks/readers.py --before 114ff19 --data s2kt:DIR --data pebg:DIR --json docs/results/readers.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import made

HERE = Path(__file__).resolve().parent.parent
READ = r"""
import re, sys, time
import qcq.data
started = time.perf_counter()
data = qcq.data.read(sys.argv[1])
seconds = time.perf_counter() - started
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024  # of this program alone
print(seconds, peak, len(data.interactions or ()))
"""
PANDAS = r"""
import re, sys, time
import pandas
started = time.perf_counter()
folder = sys.argv[1].removeprefix("csv:")
files = [pandas.read_csv(f"{folder}/{n}.csv", dtype=str) for n in ("questions", "interactions")]
seconds = time.perf_counter() - started
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024  # of this program alone
print(seconds, peak, len(files[1]))
"""


def write_bank(folder: Path, rows: int, comment: bool, seed: int = 0) -> None:
    """A bank of 50,000 questions and ``rows`` responses with times.

    ``comment`` : a last column that nobody reads, with one empty cell.
    """
    import polars as pl

    rng = np.random.default_rng(seed)
    n, concepts = 50_000, 500
    folder.mkdir(parents=True)
    first, second = rng.integers(concepts, size=(2, n))
    questions = pl.DataFrame(
        {
            "question": [f"q{i}" for i in range(n)],
            "concepts": [f"c{a};c{b}" for a, b in zip(first, second, strict=True)],
        }
    )
    questions.write_csv(folder / "questions.csv")
    student = np.sort(rng.integers(rows // 100, size=rows))
    pl.DataFrame(
        {
            "student": pl.Series(student).cast(pl.String),
            "question": "q" + pl.Series(rng.integers(n, size=rows)).cast(pl.String),
            "correct": rng.integers(2, size=rows),
            "timestamp": np.arange(rows) * 30,
            **({"comment": ["x"] * (rows - 1) + [None]} if comment else {}),
        }
    ).write_csv(folder / "interactions.csv")


def measure(code: str, source: str, package: Path | None) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one reading in a process of its own."""
    environment = os.environ | ({} if package is None else {"PYTHONPATH": str(package)})
    done = subprocess.run(
        [sys.executable, "-c", code, source], env=environment, capture_output=True, text=True, check=True
    )
    seconds, memory, _ = map(float, done.stdout.split())
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        places = {}
        for name, commit in (("before", given.before), ("now", "HEAD")):
            subprocess.run(["git", "worktree", "add", "-q", "--detach", f"{home}/{name}", commit], cwd=HERE, check=True)
            places[name] = Path(home, f"path-{name}")
            places[name].mkdir()
            (places[name] / "qcq").symlink_to(Path(home, name))
        try:
            banks = {f"csv:{home}/bank": "", f"csv:{home}/empty": ", one empty last cell"}
            for source, said in banks.items():
                write_bank(Path(source.removeprefix("csv:")), given.rows, comment=bool(said))
            results = []
            for source in [*given.data, *banks]:
                own = source in banks
                found: dict[str, list[tuple[float, float]]] = {
                    "before": [],
                    "now": [],
                    **({"pandas": []} if own else {}),
                }
                for _ in range(given.repeats):
                    for name in found:
                        code = PANDAS if name == "pandas" else READ
                        found[name].append(measure(code, source, places.get(name)))
                middle = {
                    name: {
                        "seconds": statistics.median(s for s, _ in made),
                        "MiB": statistics.median(m for _, m in made),
                    }
                    for name, made in found.items()
                }
                shown = (
                    f"csv, {given.rows:,} responses{banks[source]}"
                    if own
                    else source.partition(":")[0] + ":" + Path(source).name
                )
                ratio = middle["now"]["seconds"] / middle["before"]["seconds"]
                memory = middle["now"]["MiB"] / middle["before"]["MiB"]
                results.append({"data": shown, **middle, "ratio": ratio, "memory_ratio": memory})
                parts = ", ".join(f"{name} {m['seconds']:.2f} s {m['MiB']:,.0f} MiB" for name, m in middle.items())
                print(f"{shown}: {parts}; time {ratio:.2f}, memory {memory:.2f} of before")
        finally:
            for name in places:
                subprocess.run(["git", "worktree", "remove", "--force", f"{home}/{name}"], cwd=HERE, check=False)
    if given.json:
        about = {"cores": os.cpu_count(), "python": platform.python_version(), "repeats": given.repeats}
        given.json.write_text(
            json.dumps({"about": about, "made": made(), "before": given.before, "results": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
