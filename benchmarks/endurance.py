"""Many small runs in one process, and several at once: what grows, and whether each ends as it would alone.

    python benchmarks/endurance.py --runs 500 --json FILE
    python benchmarks/endurance.py --at-once 10 --json FILE

``--runs`` makes so many runs of data of their own, in folders of their own. Each is written with its report, read
again, compared with its hashes, refused once with other settings, and removed; every fiftieth uses two processes. From
the fiftieth run to the last ten, memory, threads, child processes, open files and the temporary folder may not grow
beyond LIMITS.

``--at-once`` starts so many commands at the same moment, first each in a folder of its own, then all in one. A folder
of its own has to hold the bytes of a run made alone. In one folder, each command either works or is told in one line
who does, and the folder ends with those bytes too. ``qcq verify`` has to find no fault. What is compared, and what
not, is as in ``benchmarks/faults.py``.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fault_cases import ROOM
from faults import command, contents, ended, forked, warm, written

EVERY = ["walk.length=8", "walk.per_question=2", "sgns.epochs=1", "dim=8", "seeds=1", "tune=false"]
SETTINGS = [*ROOM, *EVERY, "trainers=random,svd,sgns", "tasks=edges,difficulty"]
FIRST = 50  # runs before growth is measured: imports, compiled loops and caches of bounded size are not a leak
LAST = 10  # growth is that of the least among so many last runs: pools of threads come and go
LIMITS = {"memory, MiB": 32.0, "threads": 0, "processes": 0, "open files": 0, "temporary files": 0}
TOLD = re.compile(r"error: \S+: process (\d+) on \S+ \(since .*\) works in this folder; wait until it ends, .*\n")


def one(number: int, home: Path) -> None:
    """A run as somebody makes it from Python."""
    import qcq
    from qcq.config import Config
    from qcq.engine.verify import verify
    from qcq.errors import ConfigError
    from qcq.pipeline import Experiment

    given = [*SETTINGS, f"simulated.seed={number}"]
    out = home / f"run-{number}"
    made = Experiment(Config.load(overrides=given)).run(out, jobs=2 if number % 50 == 49 else 1)
    table = qcq.Run.open(out).embeddings("sgns")
    table.nearest(table.ids[0], k=3)
    table.save(home / "table.safetensors")
    (home / "table.safetensors").unlink()
    if (faults := verify(made)[0]) or not made.finished:
        raise SystemExit(f"run {number}: {faults}")
    try:
        Experiment(Config.load(overrides=[*given, "dim=4"])).run(out)
        raise SystemExit(f"run {number}: another run replaced it")
    except ConfigError:
        pass
    shutil.rmtree(out)


def measured(temporary: Path) -> dict[str, float]:
    """What this process holds now."""
    gc.collect()
    here = Path("/proc/self")
    pages = int((here / "statm").read_text().split()[1])
    children: list[str] = []
    for task in (here / "task").iterdir():
        with suppress(OSError):  # a thread has ended
            children += (task / "children").read_text().split()
    return {
        "memory, MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "threads": len(os.listdir(here / "task")),
        "processes": len(children),
        "open files": len(os.listdir(here / "fd")),
        "temporary files": sum(1 for _ in temporary.rglob("*")),
    }


def endurance(runs: int) -> dict[str, Any]:
    """So many runs, and what grew."""
    first = min(FIRST, runs // 2)
    with tempfile.TemporaryDirectory() as scratch:
        home, temporary = Path(scratch, "home"), Path(scratch, "temporary")
        for folder in (home, temporary):
            folder.mkdir()
        os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
        at, began = [], time.process_time()
        for number in range(runs):
            one(number, home)
            at.append(measured(temporary))
            if number % 25 == 24:
                print(f"{number + 1}: { ({key: round(value, 1) for key, value in at[-1].items()}) }", flush=True)
        left = sorted(path.name for path in home.iterdir())
    del os.environ["TMPDIR"]
    tempfile.tempdir = None
    last = at[-min(LAST, runs - first) :]
    grown = {key: round(min(each[key] for each in last) - at[first - 1][key], 1) for key in LIMITS}
    over = [key for key, most in LIMITS.items() if grown[key] > most] + left
    return {
        "kind": "endurance",
        "case": "runs in one process",
        "tried": runs,
        "survived": runs,
        "from run": first,
        **{f"growth: {key}": value for key, value in grown.items()},
        **{f"limit: {key}": value for key, value in LIMITS.items()},
        "at run": {str(n): {key: round(value, 1) for key, value in at[n - 1].items()} for n in (1, first, runs)},
        "CPU seconds": round(time.process_time() - began),
        "findings": over,
    }


def together(works: list[Callable[[], int]], home: Path) -> list[tuple[int, int, str]]:
    """Processes that begin at the same moment: process id, exit code and output of each."""
    gate = home / "gate"
    gate.touch()

    def waiting(i: int) -> int:
        (home / f"there-{i}").touch()
        while gate.exists():
            time.sleep(0.001)
        return works[i]()

    pids = [forked(lambda i=i: waiting(i), home / f"log-{i}") for i in range(len(works))]  # type: ignore[misc]
    while not all((home / f"there-{i}").exists() for i in range(len(works))):
        time.sleep(0.01)
    gate.unlink()
    codes = [ended(pid, 3600) for pid in pids]
    return [(pid, code, (home / f"log-{i}").read_text()) for i, (pid, code) in enumerate(zip(pids, codes, strict=True))]


def at_once(times: int) -> Iterator[dict[str, Any]]:
    """Commands in folders of their own, and in one."""
    from qcq.support import lock

    lock.PATIENCE = 60.0  # the owner's name is looked for below, also where a disk is slow
    words = ["run", "--quiet", *(word for each in SETTINGS for word in ("--set", each)), "--out"]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)

        def unlike(folder: Path, reference: dict[str, bytes]) -> list[str]:
            now = contents(folder)
            found = [f"other bytes: {name}" for name in {*now, *reference} if now.get(name) != reference.get(name)]
            if ended(forked(command(["verify", str(folder)]), home / "log")):
                found.append(f"qcq verify: {(home / 'log').read_text().strip()[-600:]}")
            return found

        warm([*words, str(home / "warm")], home)
        if code := ended(forked(command([*words, str(home / "alone")]), home / "log")):
            sys.exit(f"the run ended with exit code {code}: {(home / 'log').read_text()}")
        reference = contents(home / "alone")
        folders = [home / f"run-{i}" for i in range(times)]
        wrong = []
        for folder, (_, code, said) in zip(
            folders, together([command([*words, str(each)]) for each in folders], home), strict=True
        ):
            found = [f"exit code {code}: {said.strip()[-600:]}"] if code else unlike(folder, reference)
            wrong += [f"{folder.name}: {each}" for each in found[:1]]
        yield {
            "kind": "at once",
            "case": "each in its own folder",
            "tried": times,
            "survived": times - len(wrong),
            "findings": wrong,
        }
        wrong, worked = [], 0
        ends = together([command([*words, str(home / "one")])] * times, home)
        for _, code, said in ends:
            told = TOLD.fullmatch(said)
            worked += code == 0
            if code and not (code == 2 and told and int(told[1]) in {pid for pid, *_ in ends}):
                wrong.append(f"exit code {code}: {said.strip()[-600:]}")
        whole = unlike(home / "one", reference)
        yield {
            "kind": "at once",
            "case": "all in one folder",
            "tried": times,
            "survived": times - len(wrong) if worked and not whole else 0,
            "worked": worked,
            "told who works there": times - worked - len(wrong),
            "findings": [*wrong, *whole],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="runs in one process; two at least")
    parser.add_argument("--at-once", type=int, default=0, help="commands that begin at the same moment")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = list(at_once(given.at_once)) if given.at_once else []  # first: it forks, which wants no threads
    rows += [endurance(given.runs)] if given.runs else []
    for row in rows:
        print(f"{row['case']}: {row['survived']} of {row['tried']}; {row['findings'] or 'nothing found'}")
    if given.json:
        written(given.json, rows)
    if any(row["findings"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
