"""Break each public promise in the code, place by place, and see whether a test notices.

    python benchmarks/promises.py --json FILE
    python benchmarks/promises.py --only lock

``promises.toml`` has a sentence for each promise, and breakages: a text of a file of the package, what it is replaced
by, and the tests that keep the promise there. First all tests of a promise run on the code as it is, and have to pass.
Then each breakage is made, in memory only, in a forked process as in ``mutants.py``, and at least one of its tests has
to fail. The command ends with 1 if a breakage isn't noticed.

Tests that start other processes see the code as it is there. So they notice only what is broken in their own process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import mutants
import pytest

SECONDS = 900.0  # of CPU time, for the tests of one promise
FAILED, PASSED = int(pytest.ExitCode.TESTS_FAILED), int(pytest.ExitCode.OK)


class Breakage(NamedTuple):
    """A change by which a promise is broken.

    Attributes
    ----------
    file : of the package.
    old, new : a text that is in the file exactly once, and what it is replaced by.
    tests : who has to notice, each as ``verify::test_name``, which is in ``tests/test_verify.py``.
    """

    file: str
    old: str
    new: str
    tests: list[str]

    @property
    def nodes(self) -> list[str]:
        return ["tests/test_{}.py::{}".format(*test.split("::", 1)) for test in self.tests]

    def code(self) -> CodeType:
        """The compiled file with the change in it. SystemExit if the text isn't there, or there twice."""
        text = (mutants.ROOT / self.file).read_text(encoding="utf-8")
        if (n := text.count(self.old)) != 1:
            raise SystemExit(f"{self.file}: {self.old!r} is {n} times in it; write the breakage anew")
        broken = text.replace(self.old, self.new)
        return compile(broken, str(mutants.imported(self.file)), "exec", dont_inherit=True)


@dataclass(frozen=True)
class Promise:
    """A promise in one sentence, and how it would be broken."""

    said: str
    breakages: tuple[Breakage, ...]

    @property
    def nodes(self) -> list[str]:
        every = dict.fromkeys(node for one in self.breakages for node in one.nodes)
        return sorted(every, key=lambda node: node.partition("::")[0])  # fixtures of a file are made once


def read() -> dict[str, Promise]:
    """The promises by name, as ``promises.toml`` has them."""
    held = tomllib.loads((Path(__file__).parent / "promises.toml").read_text(encoding="utf-8"))
    return {
        name: Promise(one["said"], tuple(Breakage(**each) for each in one["breakages"])) for name, one in held.items()
    }


PROMISES = read()


class Seen:
    """A pytest plugin: writes how many test cases passed, and which ones did not."""

    def __init__(self, file: Path) -> None:
        self.file, self.passed, self.others = file, 0, set[str]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.others.add(f"{report.nodeid} {report.outcome}")
        elif report.when == "call":
            self.passed += 1

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps([self.passed, sorted(self.others)]))


def kept(promise: Promise) -> int:
    """How many test cases keep a promise. SystemExit unless all pass on the code as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        seen = Seen(Path(scratch, "seen"))
        code = mutants.exit_code(promise.nodes, SECONDS, Path(scratch, "log"), "", None, seen)
        passed, others = json.loads(seen.file.read_text()) if seen.file.is_file() else (0, [])
        if code != PASSED or others or not passed:
            log = Path(scratch, "log").read_text()[-2000:]
            raise SystemExit(f"{log}\nthe tests don't pass on the code as it is: {'; '.join(others) or code}")
    return int(passed)


def noticed(breakage: Breakage) -> bool:
    """Whether a test fails under a breakage. SystemExit if no test could be run."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        code = mutants.exit_code(breakage.nodes, SECONDS, log, breakage.file, breakage.code())
        if code not in (PASSED, FAILED) and code >= 0:
            raise SystemExit(f"{log.read_text()[-2000:]}\n{breakage.file}: {breakage.new!r}: pytest ended with {code}")
        return code != PASSED


def row(name: str) -> dict[str, Any]:
    made = PROMISES[name]
    tests = kept(made)
    missed = [one for one in made.breakages if not noticed(one)]
    return {
        "promise": made.said,
        "tests": tests,
        "breakages": len(made.breakages),
        "noticed": len(made.breakages) - len(missed),
        "not noticed": [f"{one.file}: {one.old.strip()} → {one.new.strip()}" for one in missed],
    }


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {key: sum(each[key] for each in rows) for key in ("tests", "breakages", "noticed")}
    return {"promise": "all promises", **sums, "not noticed": [one for each in rows for one in each["not noticed"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PROMISES), metavar="PROMISE", help=", ".join(PROMISES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    target = given.json.resolve() if given.json else None
    os.chdir(mutants.ROOT)
    os.environ["CI"] = "1"  # hypothesis draws the same examples each time
    wanted = given.only or list(PROMISES)
    for one in (one for name in wanted for one in PROMISES[name].breakages):
        one.code()  # all texts are there, before the first test runs
    mutants.import_libraries()
    rows = []
    for name in wanted:
        began = time.monotonic()
        rows.append(found := row(name))
        said = f"{name}: {found['noticed']} of {found['breakages']} breakages noticed by {found['tests']} test cases"
        print(f"{said}, {time.monotonic() - began:.0f} s", *found["not noticed"], sep="\n  not noticed: ", flush=True)
    rows.append(together(rows))
    print(f"all: {rows[-1]['noticed']} of {rows[-1]['breakages']} breakages noticed")
    if target is not None:
        mutants.recorded(target, {"rows": rows})
    sys.exit(int(rows[-1]["noticed"] < rows[-1]["breakages"]))


if __name__ == "__main__":
    main()
