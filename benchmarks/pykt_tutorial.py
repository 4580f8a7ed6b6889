"""Runs the commands of docs/tutorials/pykt.md one after the other and times them.

    python benchmarks/pykt_tutorial.py --json docs/results/pykt_tutorial.json

The data are the sample of pyKT's ASSISTments 2009 in ``QCQ_DATA``. ``pip`` isn't run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorials" / "pykt.md"
SAMPLE = "pykt_assist2009_sample"
QCQ = "import sys; from qcq.cli import main; sys.argv[0] = 'qcq'; main()"
PROGRAMS = {"qcq": [sys.executable, "-c", QCQ], "python": [sys.executable]}


def commands() -> list[str]:
    """The commands of the page, in order."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def run(home: Path, sample: Path) -> list[tuple[str, float, str]]:
    """Run all but ``pip`` in the folder ``home``: the command, its seconds, and the last line it writes.

    Raises
    ------
    RuntimeError : a command failed.
    """
    shutil.copytree(sample, home / "assist2009")
    shutil.copy(ROOT / "examples" / "pykt_vectors.py", home)
    out = []
    for command in commands():
        program, *words = shlex.split(command)
        if program == "pip":
            continue
        began = time.perf_counter()
        done = subprocess.run([*PROGRAMS[program], *words], cwd=home, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
        out.append((command, time.perf_counter() - began, done.stdout.splitlines()[-1]))
    return out


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--json", type=Path)
    given = about.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), Path(os.environ["QCQ_DATA"]) / SAMPLE)
    for command, seconds, said in found:
        print(f"{seconds:6.1f} s  {command}\n          {said}")
    if given.json is not None:
        rows = [{"command": command, "seconds": round(seconds, 1)} for command, seconds, _ in found]
        given.json.write_text(json.dumps({"data": SAMPLE, "cores": os.cpu_count(), "commands": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
