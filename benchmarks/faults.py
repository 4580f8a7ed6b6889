"""Kill commands at random moments, make a call of theirs fail, or damage a file of a run that they read.

    python benchmarks/faults.py kills --times 1000 --json FILE
    python benchmarks/faults.py kills --times 50 --of experiments/classroom.toml --jobs 2 --json FILE
    python benchmarks/faults.py injected --json FILE
    python benchmarks/faults.py damaged --times 300 --json FILE

``kills`` stops a run once (SIGKILL, SIGTERM and SIGINT in turn) at a moment drawn uniformly over a whole run's time.
``injected`` counts the calls by which each command opens a file for writing, writes, flushes, renames, links or makes a
folder; then it repeats the command with a fault at one of these calls, until every call has failed once, in turn for
each kind of fault (``--every``: in all of them). What is asked of each fault: one line, no traceback, exit code 2 (1 if
single cells of a run failed), nothing half-written under a final name; and that the same command then ends with the
same bytes, in a folder where ``qcq verify`` finds no fault.

``damaged`` changes, cuts, empties or removes one file of a finished run, drawn at random. Then ``qcq verify`` has to
find it, and every command that reads runs has to do its work, or to end with exit code 2 and one line.

Each command is run in a process forked from one that has imported everything. All files are compared, but for those
that hold times or the command (environment.json, the reports, manifest.json) and the measured fields of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fault_cases import ANSWERS, BANK, CALLS, CASES, SETTINGS, TRACED, Case
from injection import FAULTS, Fault, Shim, sites

KILLED = ["run", "--quiet", "--seeds", "2", "--trainers", "sgns,mlm,svd", *SETTINGS]
FINISHED = [*KILLED, "--tasks", "edges,retrieval,kt-difficulty", *TRACED[2:]]
USES = (  # verify first: others write a report again
    "verify RUN",
    "report RUN",
    "similar RUN q1",
    "similar RUN q1 --trainer mlm",
    "trace RUN HOME/student.csv --trainer svd --quiet",
    "export RUN --trainer svd --out HOME/table.npz",
    "diff RUN/embeddings/none--svd--table--seed-0.safetensors RUN/embeddings/none--svd--table--seed-1.safetensors",
    "add --to RUN --trainer svd --questions HOME/new.csv --out HOME/more.npz",
    "audit RUN",
)
ALL = "all commands"
KILLS = "all kills"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MEASURED = (
    "environment.json",
    "report.md",
    "manifest.json",
    ".owner.json",
)  # and pages, with random names of their plots
TOKENS = (b"null", b"1e999", b"[]", b"{}", b'"', b"NaN", b"-1", b"\xff", b"\0")
TIMES = ("seconds", "peak_rss_mb", "fit_seconds", "tokens_per_second")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are made from results, without what a clock measured."""
    out = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in (*MEASURED, "row.json") or path.suffix == ".html":
            continue
        out[name] = path.read_bytes()
        if path.suffix == ".jsonl" or (path.parent.name == "tracers" and path.suffix == ".json"):
            rows = [json.loads(line) for line in out[name].splitlines()]
            out[name] = json.dumps([{key: each[key] for key in each if key not in TIMES} for each in rows]).encode()
    return out


def unverified(folder: Path, log: Path) -> list[str]:
    """What ``qcq verify`` says of the runs in a folder, if it finds faults."""
    runs = [manifest.parent for manifest in sorted(folder.rglob("manifest.json"))]
    return [
        f"qcq verify {run.name}: {log.read_text().strip()[-600:]}"
        for run in runs
        if ended(forked(command(["verify", str(run)]), log))
    ]


def torn(folder: Path) -> list[str]:
    """Files under a final name that can't be read as what they are."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or ".partial" in name:
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{name} ({type(error).__name__})")
    return found


def _read(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        for line in data.splitlines() if path.suffix == ".jsonl" else [data]:
            json.loads(line)
    elif path.suffix == ".toml":
        tomllib.loads(data.decode())
    elif path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            if (bad := held.testzip()) is not None:
                raise ValueError(bad)
    elif path.suffix == ".npy":
        np.load(io.BytesIO(data))
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load

        load(data)
    if path.suffix in (".json", ".jsonl", ".toml", ".csv", ".md", ".html", ".txt", ".vec") and data:
        data.decode()
        if path.suffix in (".jsonl", ".csv", ".md", ".txt", ".vec") and not data.endswith(b"\n"):
            raise ValueError("no end of line")
        if path.suffix == ".html" and not data.rstrip().endswith(b"</html>"):
            raise ValueError("no end")


def warm(words: list[str], home: Path) -> None:
    """Import in this process all that a command imports, by running it in another.

    No threads are started by this: a forked process would wait for them for ever.
    """
    notes = home / "modules"

    def work() -> int:
        code = command(words)()
        notes.write_text("\n".join(sys.modules))
        return code

    if code := ended(forked(work, home / "log"), 3600):
        sys.exit(f"{' '.join(words)} ended with exit code {code}: {(home / 'log').read_text()}")
    for name in notes.read_text().split():
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # made by others while they were imported
                importlib.import_module(name)


def forked(work: Callable[[], int], log: Path) -> int:
    """The process id of a copy of this process that does the work, with its output in a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            code = work()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(70)


def ended(pid: int, seconds: float = 300) -> int:
    """The exit code of a process; minus the signal that ended it. It is killed after some time."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def called(function: Callable[[str], None], path: str) -> None:
    """A call of Python whose typed errors are shown as those of a command."""
    from qcq.errors import QCQError

    try:
        function(path)
    except (QCQError, OSError, MemoryError) as error:
        print(f"error: {error}")
        raise SystemExit(2) from None


def command(words: list[str], shim: Shim | None = None, notes: Path | None = None) -> Callable[[], int]:
    """A command of qcq as work for a process; the calls that a shim counted are written to ``notes``."""

    def work() -> int:
        from qcq import cli

        sys.argv = ["qcq", *words]
        try:
            with contextlib.nullcontext() if shim is None else shim.under():
                if words[0] in CALLS:
                    called(CALLS[words[0]], words[1])
                else:
                    cli.main(words)
        except SystemExit as left:
            return int(left.code or 0)
        finally:
            if shim is not None and notes is not None:
                notes.write_bytes(pickle.dumps((shim.calls, shim.lines, shim.struck)))
        return 0

    return work


def inputs(home: Path) -> None:
    """Files that commands ask for."""
    (home / "bank").mkdir(parents=True)
    (home / "bank" / "questions.csv").write_text(BANK)
    (home / "bank" / "interactions.csv").write_text(ANSWERS)
    (home / "order.json").write_text(json.dumps({f"q{i}": 23 - i for i in range(24)}))
    (home / "student.csv").write_text("question,correct\nq1,1\nq2,0\nq3,1\nq8,0\n")
    (home / "new.csv").write_text("question,concepts\nn1,c1;d2\nn2,c3\n")


def prepared(case: Case, home: Path) -> None:
    """The inputs, and what the command needs."""
    inputs(home)
    for words in case.before:
        made = [word.replace("HOME", str(home)) for word in words]
        if code := ended(forked(command(made), home / "before.log")):
            sys.exit(f"{' '.join(made)} ended with exit code {code}: {(home / 'before.log').read_text()}")


def injected(case: Case, home: Path, faults: list[Fault], every: bool, step: int, first: int) -> dict[str, Any]:
    """Every call of a command, failed: what became of it."""
    prepared(case, home)
    words = [word.replace("HOME", str(home)) for word in case.words]
    made, start, notes, log = home / case.made, home / "start", home / "notes", home / "log"
    if made.exists():
        shutil.copytree(made, start)
    warm(words, home)

    def once(fault: Fault | None, at: int) -> tuple[int, list[str], set[tuple[str, int]], str | None]:
        notes.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, made)
        code = ended(forked(command(words, Shim(made, fault, at), notes), log))
        calls, lines, struck = pickle.loads(notes.read_bytes()) if notes.is_file() else ([], set(), "killed")
        return code, calls, lines, struck

    code, calls, lines, _ = once(None, 0)
    if code:
        sys.exit(f"{case.name} ended with exit code {code}: {log.read_text()}")
    reference = contents(made)
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    exits: Counter[str] = Counter()
    findings = []
    for i, at in enumerate(range(first, len(calls), step)):
        for fault in faults if every else [faults[(i + i // len(faults)) % len(faults)]]:
            code, _, more, struck = once(fault, at)
            lines |= more
            said = log.read_text(errors="replace")
            if struck is None:  # no call of these kinds came any more
                continue
            wrong = [f"half-written: {name}" for name in torn(made)]
            ends = [line for line in said.splitlines() if line.startswith("error: ") or " failed: " in line]
            if fault.raised is not None and (code not in (0, 1, 2) or "Traceback" in said or (code and not ends)):
                wrong.append(f"exit code {code}: {said.strip()[-600:]}")
            if fault.raised is None and code != -signal.SIGKILL:
                wrong.append(f"exit code {code}, not killed")
            again = ended(forked(command(words), log))
            there = "exists already" in log.read_text(errors="replace")  # a file that was whole before the fault
            if again and not (again == 2 and there):
                wrong.append(f"the second time exit code {again}: {log.read_text(errors='replace').strip()[-600:]}")
            now = contents(made)
            if unlike := sorted(name for name in {*now, *reference} if now.get(name) != reference.get(name)):
                wrong.append(f"other bytes: {unlike}")
            wrong += unverified(made, log)
            tried[fault.name] += 1
            survived[fault.name] += not wrong
            exits[f"{fault.name} {code}"] += 1
            if wrong:
                findings.append({"call": at, "fault": fault.name, "struck": struck or calls[at], "wrong": wrong})
                print(f"  call {at} ({calls[at]}), {fault.name}: {wrong}", flush=True)
    return {
        "case": case.name,
        "calls": len(calls),
        "kinds of calls": dict(Counter(calls)),
        "tried": tried.total(),
        "survived": survived.total(),
        "tried and survived": {name: [tried[name], survived[name]] for name in tried},
        "exit codes": dict(sorted(exits.items())),
        "findings": findings,
        "lines": sorted(lines),
    }


def missed(lines: set[tuple[str, int]]) -> list[str]:
    """Where the package writes and no fault came by."""
    return [
        f"{file}:{begin}"
        for (file, begin), end in sorted(sites().items())
        if not any(at == file and begin <= number <= end for at, number in lines)
    ]


def all_injected(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    lines: set[tuple[str, int]] = set()
    rows = []
    for case in CASES:
        if given.only and case.name not in given.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            faults = [FAULTS[name] for name in given.faults.split(",")]
            row = injected(case, Path(scratch, "home").absolute(), faults, given.every, given.step, given.first)
        lines |= {(file, number) for file, number in row.pop("lines")}
        print(f"{case.name}: {row['calls']} calls, {row['survived']} of {row['tried']} faults survived", flush=True)
        rows.append({"kind": "injected", **row})
    yield from rows
    if not given.only:
        counts = {key: sum(row[key] for row in rows) for key in ("calls", "tried", "survived")}
        yield {
            "kind": "injected",
            "case": ALL,
            **counts,
            "lines that write": len(sites()),
            "never reached": missed(lines),
        }


def kills(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A run, killed once at a random moment and run again."""
    words = KILLED if given.of is None else ["run", str(given.of.absolute()), "--quiet"]
    words = [*words, "--jobs", str(given.jobs)]
    rng = np.random.default_rng(given.seed)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        log = home / "log"

        def whole(out: Path) -> float:
            began = time.perf_counter()
            if code := ended(forked(command([*words, "--out", str(out)]), log), 3600):
                sys.exit(f"the run in {out} ended with exit code {code}: {log.read_text()}")
            return time.perf_counter() - began

        warm([*words, "--out", str(home / "warm")], home)  # compiled loops are cached on disk, too
        length = whole(home / "reference")
        reference = contents(home / "reference")
        for i in range(given.times):
            kill, moment, out = SIGNALS[i % len(SIGNALS)], float(rng.uniform(0, length)), home / "run"
            pid = forked(command([*words, "--out", str(out)]), log)
            time.sleep(moment)
            os.kill(pid, kill)
            code = ended(pid)
            said = log.read_text(errors="replace")
            cells = len(list((out / "cells").glob("*/row.json")))
            wrong = [f"half-written: {name}" for name in torn(out)]
            # Before main() has set its handlers and after it has said where the report is, Python's own speak.
            if kill != signal.SIGKILL and "Traceback" in said and cells and "\nreport: " not in said:
                wrong.append(said.strip()[-600:])
            whole(out)
            now = contents(out)
            if unlike := sorted(name for name in {*now, *reference} if now.get(name) != reference.get(name)):
                wrong.append(f"other bytes: {unlike}")
            wrong += unverified(out, log)
            shutil.rmtree(out)
            found.append({"signal": kill.name, "after": round(moment, 2), "exit": code, "cells": cells, "wrong": wrong})
            if wrong or i % 20 == 19:
                same = sum(not one["wrong"] for one in found)
                print(f"{i + 1}: {same} the same; last {kill.name} after {moment:.1f} s: {wrong or 'ok'}", flush=True)
    ended_so = Counter(f"{one['signal']} {one['exit']}" for one in found)
    yield {
        "kind": "kills",
        "case": ("the main job" if given.of is not None else "a run of seconds")
        + (", two processes" if given.jobs > 1 else ""),
        "tried": given.times,
        "survived": sum(not one["wrong"] for one in found),
        "jobs": given.jobs,
        "seed": given.seed,
        "seconds of a whole run": round(length, 2),
        "killed with no cell finished": sum(one["cells"] == 0 for one in found),
        "killed after the last cell": sum(one["cells"] == max(each["cells"] for each in found) for one in found),
        "exit codes": dict(sorted(ended_so.items())),
        "findings": [one for one in found if one["wrong"]],
    }


def harmed(held: bytes, rng: np.random.Generator) -> bytes:
    """Other bytes: some changed, taken out or put in, or the rest is missing."""
    at, n = int(rng.integers(len(held))), int(rng.integers(1, 20))
    ways: list[Callable[[], bytes]] = [
        lambda: held[:at] + bytes([held[at] ^ 1 << int(rng.integers(8))]) + held[at + 1 :],
        lambda: held[:at],
        lambda: b"",
        lambda: held[:at] + held[at + n :],
        lambda: held[:at] + held[at : at + n] + held[at:],
        lambda: held[:at] + bytes(rng.integers(48, 58, size=1).tolist()) + held[at + 1 :],
        lambda: held[:at] + TOKENS[int(rng.integers(len(TOKENS)))] + held[at + n :],
    ]
    made = held
    while made == held:
        made = ways[int(rng.integers(len(ways)))]()
    return made


def damaged(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A file of a finished run is changed or removed; then every command that reads runs is given it."""
    rng = np.random.default_rng(given.seed)
    findings: list[dict[str, str]] = []
    found = uses = survived = 0
    with tempfile.TemporaryDirectory() as scratch:
        home, log = Path(scratch), Path(scratch, "log")
        whole, run = home / "whole", home / "run"
        inputs(home)
        warm([*FINISHED, "--out", str(whole)], home)

        def use(words: str) -> tuple[int, str]:
            for left in home.glob("*.npz*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            given = [word.replace("RUN", str(run)).replace("HOME", str(home)) for word in words.split()]
            return ended(forked(command(given), log)), log.read_text(errors="replace")

        shutil.copytree(whole, run)
        for words in USES:
            if (made := use(words))[0]:
                sys.exit(f"{words} on a whole run ended with exit code {made[0]}: {made[1]}")
        names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
        for i in range(given.times):
            shutil.rmtree(run)
            shutil.copytree(whole, run)
            name = names[int(rng.integers(len(names)))]
            if i % 10 == 9:
                (run / name).unlink()
            else:
                (run / name).write_bytes(harmed((run / name).read_bytes(), rng))
            wrong = []
            for words in USES:
                code, said = use(words)
                uses += 1
                if words == USES[0]:
                    found += code != 0
                    fine = code != 0
                else:
                    fine = code in (0, 1, 2)
                errors = [line for line in said.splitlines() if line.startswith("error: ")]
                if not fine or "Traceback" in said or (code == 2 and len(errors) != 1):
                    wrong.append({"file": str(name), "command": words, "exit": str(code), "said": said[-400:]})
            findings += wrong
            survived += not wrong
            if wrong or i % 20 == 19:
                print(f"{i + 1}: {wrong or 'ok'}", flush=True)
    yield {
        "kind": "damaged",
        "case": "a file of a finished run",
        "tried": given.times,
        "found by verify": found,
        "files": len(names),
        "commands run": uses,
        "survived": survived,
        "seed": given.seed,
        "findings": findings,
    }


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["kind"], row["case"], row.get("jobs"), row.get("seed")


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a results file in place of those of the same kind and case, and of the same drawn moments."""
    from record import made

    held = json.loads(path.read_text())["rows"] if path.is_file() else []
    now = made()
    fresh = [{**row, "command": now["command"]} for row in rows]
    every = [*(row for row in held if all(_which(row) != _which(one) for one in fresh)), *fresh]
    each = [row for row in every if row["kind"] == "injected" and row["case"] != ALL]
    for row in every:
        if row["case"] == ALL:  # some commands may have been tried again since
            row |= {key: sum(one[key] for one in each) for key in ("calls", "tried", "survived")}
    every = [row for row in every if row["case"] != KILLS]
    killed = [row for row in every if row["kind"] == "kills"]
    total = {"kind": "kills", "case": KILLS} | {key: sum(row[key] for row in killed) for key in ("tried", "survived")}
    every = [*every, total] if killed else every
    every.sort(key=lambda row: row["case"] in (ALL, KILLS))
    path.write_text(json.dumps({"rows": every, "made": now}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("kills")
    one.add_argument("--times", type=int, default=100)
    one.add_argument("--jobs", type=int, default=1)
    one.add_argument("--of", type=Path, help="settings of a run, TOML; without it, a run of seconds")
    one.add_argument("--seed", type=int, default=0, help="of the moments")
    two = kinds.add_parser("injected")
    two.add_argument("--faults", default=",".join(FAULTS), help="names, with commas between")
    two.add_argument("--every", action="store_true", help="every call in every way, not in turn")
    two.add_argument("--step", type=int, default=1, help="every so many calls")
    two.add_argument("--first", type=int, default=0, help="from this call on")
    two.add_argument("--only", action="append", help="a command, by its name in the results; may be repeated")
    three = kinds.add_parser("damaged")
    three.add_argument("--times", type=int, default=100)
    three.add_argument("--seed", type=int, default=0, help="of files and damages")
    for each in (one, two, three):
        each.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = list({"kills": kills, "injected": all_injected, "damaged": damaged}[given.kind](given))
    for row in rows:
        print(f"{row['case']}: {row['survived']} of {row['tried']} survived")
    if given.json:
        written(given.json, rows)
    if any(row["survived"] < row["tried"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
