"""Kill a small run at a random moment, run the same command again, and compare every byte: so many times.

    python benchmarks/faults.py --times 100 --jobs 2 --json FILE

Each time the run begins in an empty folder, is killed once (SIGKILL, SIGTERM and SIGINT in turn) at a moment drawn
uniformly over the time that a whole run takes, and is then run to its end. All files of the run folder are compared,
but for those that hold times or the command (environment.json, the reports) and two fields of training.jsonl.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import made

SETTINGS = ["walk.length=8", "walk.per_question=2", "mlm.steps=20", "simulated.questions=80", "simulated.students=40"]
COMMAND = [sys.executable, "-c", "from qcq.cli import main; main()", "run", "--quiet", "--seeds", "2"]
COMMAND += ["--trainers", "skipgram,mlm,svd", *(f"--set={setting}" for setting in [*SETTINGS, "dim=8"])]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MEASURED = ("environment.json", "report.html", "report.md", "manifest.json")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run that are made from results."""
    out = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith("cells") or name in MEASURED:
            continue
        out[name] = path.read_bytes()
        if name == "training.jsonl":
            rows = [{**json.loads(line), "seconds": 0, "peak_rss_mb": 0} for line in out[name].splitlines()]
            out[name] = json.dumps(rows).encode()
    return out


def begun(out: Path, jobs: int) -> subprocess.Popen[bytes]:
    """The command, started."""
    command = [*COMMAND, "--jobs", str(jobs), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def whole(out: Path, jobs: int) -> None:
    """The command, run to its end."""
    if code := begun(out, jobs).wait():
        sys.exit(f"the run in {out} ended with exit code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        began = time.perf_counter()
        whole(home / "reference", given.jobs)
        length = time.perf_counter() - began
        reference = contents(home / "reference")
        for i in range(given.times):
            kill, moment = SIGNALS[i % len(SIGNALS)], float(rng.uniform(0, length))
            process = begun(home / f"run-{i}", given.jobs)
            time.sleep(moment)
            process.send_signal(kill)
            code = process.wait()
            cells = len(list((home / f"run-{i}" / "cells").glob("*/row.json")))
            whole(home / f"run-{i}", given.jobs)
            now = contents(home / f"run-{i}")
            unlike = sorted(name for name in {*now, *reference} if now.get(name) != reference.get(name))
            left = len(list((home / f"run-{i}" / "cells").glob("*.partial")))
            found.append(
                {"signal": kill.name, "after": moment, "exit": code, "cells": cells, "unlike": unlike, "left": left}
            )
            print(f"{i + 1}: {kill.name} after {moment:.1f} s, {cells} cells finished: {unlike or 'the same bytes'}")
    same = sum(not one["unlike"] for one in found)
    print(f"{same} of {given.times} runs ended with the same bytes")
    if given.json:
        held = {"case": f"{given.times} kills, --jobs {given.jobs}", "same": same, "seconds of a whole run": length}
        given.json.write_text(json.dumps({**held, "kills": found, "made": made()}, indent=1) + "\n")
    if same < given.times:
        sys.exit(1)


if __name__ == "__main__":
    main()
