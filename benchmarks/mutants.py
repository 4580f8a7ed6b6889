"""Change the code of floors, walks and evaluation in one place, and see whether a test fails: so many times.

    python benchmarks/mutants.py --n 500 --seed 0 --json FILE
    python benchmarks/mutants.py --again --json FILE

A mutant is one change of a syntax tree: a comparison turned or moved by its edge, a constant off by one, a sign, a term
dropped, a condition negated, ``and`` for ``or``, ``min`` for ``max``. Defaults of settings, messages and types stay.
Mutants are drawn at random from all that can be made. The draw goes by a hash of the change, so a change elsewhere
leaves it as it is. Each runs the tests that reach the changed line, the fastest first, until one fails. A mutant that
takes ten times as long as its tests do is killed too.

``--again`` tries those survivors of a results file that have no reason yet, on the present code and tests. What was
killed without it stays in the file as "killed at first".

Which test reaches which line is found by one run of the tests, kept in ``build/mutants``. Each mutant is a process
forked from one that has imported the libraries but not qcq, so it starts in a second. Compiled loops are compiled anew
where walks are changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("floors", "walks", "evaluation")
# Tests of these rooms. Not those that run notebooks, other processes or whole studies: they'd find little more.
TESTS: tuple[str, ...]
TESTS = (
    "answers",
    "areas",
    "audit",
    "chain",
    "choices",
    "contracts",
    "evaluation",
    "floors",
    "folds",
    "hidden",
    "kt",
    "mutants",
    "oracle",
)
TESTS += ("baselines", "published", "register", "scale", "similar", "tasks", "typed", "walks")
LIBRARIES = (
    "numpy scipy.sparse scipy.stats scipy.special torch numba polars pandas networkx sklearn.linear_model pytest"
)
LIBRARIES += " hypothesis pydantic safetensors.torch gensim threadpoolctl rich typer _pytest.doctest"
KILLED = ("killed", "too slow")
SLOWER = 10.0  # a mutant this much slower than the tests alone is killed


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes
    ----------
    file, line, function : where.
    number : which of the file's changes.
    before, after : the expression.
    """

    file: str
    line: int
    function: str
    number: int
    before: str
    after: str


COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
COMPUTED: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
NAMES = {"min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any"}
NAMES |= {"sum": "mean", "mean": "sum", "cumsum": "cumprod", "maximum": "minimum", "minimum": "maximum"}


class Changer(ast.NodeTransformer):
    """Makes change number ``wanted`` in a tree; counts and describes all of them."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.found: list[tuple[int, str, str, str]] = []
        self._inside: list[str] = []

    def _offer(self, node: ast.AST, changed: list[ast.AST]) -> ast.AST:
        kept: ast.AST = node
        for each in changed:
            if len(self.found) == self.wanted:
                kept = ast.copy_location(each, node)
            where = getattr(node, "lineno", 0), ".".join(self._inside)
            self.found.append((*where, ast.unparse(node)[:120], ast.unparse(each)[:120]))
        return kept

    def _named(self, node: Any) -> ast.AST:
        self._inside.append(node.name)
        default = ast.AnnAssign if isinstance(node, ast.ClassDef) else ()
        node.body = [each if isinstance(each, default) else self.visit(each) for each in node.body]
        self._inside.pop()
        return node  # neither decorators nor annotations

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _named

    def _untouched(self, node: ast.AST) -> ast.AST:
        return node

    visit_Raise = visit_JoinedStr = visit_Import = visit_ImportFrom = visit_Assert = _untouched

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node
        node.test = self._negated(node.test)
        for field in ("body", "orelse"):
            setattr(node, field, [self.visit(each) for each in getattr(node, field)])
        return node

    def _negated(self, test: ast.expr) -> Any:
        inner = self.visit(copy.deepcopy(test))
        if isinstance(test, ast.Compare):  # turned by its own rule
            return inner
        return self._offer(inner, [ast.UnaryOp(ast.Not(), copy.deepcopy(inner))])

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node.test = self._negated(node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        changed: list[ast.AST] = []
        for i, operator in enumerate(node.ops):
            for other in COMPARED.get(type(operator), ()):
                made = copy.deepcopy(node)
                made.ops[i] = other()
                changed.append(made)
        return self._offer(node, changed)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        changed: list[ast.AST] = [
            ast.BinOp(copy.deepcopy(node.left), other(), copy.deepcopy(node.right))
            for other in COMPUTED.get(type(node.op), ())
        ]
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            changed.append(copy.deepcopy(node.left))  # a term dropped
        return self._offer(node, changed)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        made = copy.deepcopy(node)
        made.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return self._offer(node, [made])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
            inner = self.visit(node.operand)
            node.operand = inner
            return self._offer(node, [copy.deepcopy(inner)])
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            return self._offer(node, [ast.Constant(not value)])
        if isinstance(value, int):
            return self._offer(node, [ast.Constant(value + 1), ast.Constant(value - 1)])
        if isinstance(value, float):
            return self._offer(node, [ast.Constant(value * 1.5 + (value == 0))])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        made = copy.deepcopy(node)
        called = made.func
        if isinstance(called, ast.Attribute) and called.attr in NAMES:
            called.attr = NAMES[called.attr]
        elif isinstance(called, ast.Name) and called.id in NAMES:
            called.id = NAMES[called.id]
        else:
            return node
        return self._offer(node, [made])


def source_files() -> list[Path]:
    """The files that are changed. Tests of ``kt-peer`` need another toolkit (`make tools-test`)."""
    found = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if path.name not in {"__init__.py", "toolkit.py", "peer.py"}]


def mutants(path: Path) -> list[Mutant]:
    """Every change of a file."""
    changer = Changer()
    changer.visit(ast.parse(path.read_text(encoding="utf-8")))
    name = path.relative_to(ROOT).as_posix()
    return [
        Mutant(name, line, function, number, before, after)
        for number, (line, function, before, after) in enumerate(changer.found)
        if before != after
    ]


def drawn(every: list[Mutant], n: int, seed: int) -> list[Mutant]:
    """``n`` mutants, those with the smallest hashes of file, function, change and how often it came before."""
    seen: Counter[tuple[str, ...]] = Counter()
    by: list[tuple[str, Mutant]] = []
    for one in every:
        what = _what(asdict(one))
        by.append((hashlib.sha256(repr((seed, what, seen[what])).encode()).hexdigest(), one))
        seen[what] += 1
    return [one for _, one in sorted(by, key=lambda pair: pair[0])[:n]]


def changed(mutant: Mutant) -> CodeType:
    """The compiled file with the change in it."""
    tree = Changer(mutant.number).visit(ast.parse((ROOT / mutant.file).read_text(encoding="utf-8")))
    return compile(ast.fix_missing_locations(tree), str(imported(mutant.file)), "exec", dont_inherit=True)


def imported(file: str) -> Path:
    """A file's path as Python imports it (a link may lead to the package)."""
    found = importlib.util.find_spec("qcq")
    home = Path(next(iter(found.submodule_search_locations or [str(ROOT)]))) if found is not None else ROOT
    return home / file


# ------------------------------------------------------------------------------------------ -- which test reaches what


class Watched:
    """A pytest plugin: the lines that each test reaches, by itself or in its fixtures; its time and outcome."""

    def __init__(self) -> None:
        self.reached: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._fixtures: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._now: set[str] = set()
        self._files: dict[CodeType, str] = {}

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        file = self._files.get(code)
        if file is None and not code.co_flags & inspect.CO_OPTIMIZED:  # of a module or class: run once, by its import
            file = self._files[code] = ""
        if file is None:
            path = Path(code.co_filename).as_posix()
            place = next((path.rindex(f"/{r}/") for r in ROOMS if f"/{r}/" in path and "/qcq/" in path), None)
            file = self._files[code] = "" if place is None else path[place + 1 :]
        if not file:
            return None
        self._now.add(f"{file}:{code.co_qualname}".replace(".<locals>", ""))
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._now.add(f"{self._files[frame.f_code]}:{frame.f_lineno}")
        return self._line

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        self._now = self.reached[item.nodeid]
        self._began = time.process_time()
        sys.settrace(self._called)
        threading.settrace(self._called)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        before, self._now = self._now, self._fixtures[fixturedef.argname, fixturedef.baseid]
        try:
            return (yield)
        finally:
            self._now = before

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        for found in item._fixtureinfo.name2fixturedefs.values():
            for fixture in found:  # made for this test, or for an earlier one
                self._now |= self._fixtures[fixture.argname, fixture.baseid]

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        sys.settrace(None)
        self.seconds[nodeid] = time.process_time() - self._began

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


def watched(home: Path, tests: list[str]) -> dict[str, Any]:
    """What each test reaches, from one run of the tests; read back if neither code nor tests changed."""
    files = [*source_files(), *(ROOT / "tests" / f"test_{name}.py" for name in tests)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files if path.is_file())).hexdigest()
    kept = home / f"reached-{digest[:16]}.json"
    if not kept.is_file():
        home.mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if not pid:
            _watch(kept, tests)
        os.waitpid(pid, 0)
    return json.loads(kept.read_text())


def _watch(kept: Path, tests: list[str]) -> None:
    made = Watched()
    there = [f"tests/test_{name}.py" for name in tests if (ROOT / "tests" / f"test_{name}.py").is_file()]
    modules = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in source_files()]
    there += [f"tests/test_docs.py::test_docstring_examples[qcq.{module}]" for module in modules]
    with kept.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        pytest.main([*there, "-q", "-p", "no:cacheprovider"], plugins=[made])
    by: dict[str, list[str]] = defaultdict(list)
    for test, places in made.reached.items():
        if test not in made.failed:  # failing or skipped without a mutant: no use
            for place in places:
                by[place].append(test)
    kept.write_text(json.dumps({"tests": by, "seconds": made.seconds}))
    os._exit(0)


def covering(mutant: Mutant, held: dict[str, Any]) -> list[str]:
    """The tests that reach the changed line, the fastest first; of code outside functions and of compiled code, those
    that reach the function, the file or its sampler."""
    by = held["tests"]
    near = f"{Path(mutant.file).parent.as_posix()}/sampler.py:"
    wanted = [f"{mutant.file}:{mutant.line}", f"{mutant.file}:{mutant.function}"] if mutant.function else []
    found = next((set(by[place]) for place in wanted if place in by), None)
    for start in (f"{mutant.file}:", near):
        found = found or {test for place in by if place.startswith(start) for test in by[place]}
    return sorted(found or (), key=lambda test: held["seconds"][test])


# ------------------------------------------------------------------------------------------------------- one mutant


def outcome(mutant: Mutant, tests: list[str], seconds: float, log: Path) -> str:
    """``killed``, ``survived`` or ``too slow``, of a change under some tests."""
    code = exit_code(tests, seconds, log, mutant.file, changed(mutant))
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "too slow"
    return "survived" if code == 0 else "killed"


def exit_code(
    tests: list[str], seconds: float, log: Path, file: str = "", code: CodeType | None = None, *plugins: object
) -> int:
    """pytest's exit code for some tests, run in a forked process that imports ``code`` in place of ``file``; negative
    for a signal."""
    pid = os.fork()
    if not pid:
        try:
            _test(tests, seconds, log, file, code, plugins)
        finally:
            os._exit(70)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _test(
    tests: list[str], seconds: float, log: Path, file: str, code: CodeType | None, plugins: Sequence[object]
) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + int(seconds), used + int(seconds) + 5))
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(log.parent / "hypothesis")
    if code is not None:
        _replace(file, code)
        if _compiles(file):
            import numba

            numba.config.CACHE_DIR = tempfile.mkdtemp(dir=log.parent)  # type: ignore[attr-defined]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
    ended = pytest.main([*tests, *options], plugins=[*plugins])
    sys.stdout.flush()
    os._exit(int(ended))


def _compiles(file: str) -> bool:
    """Whether compiled loops are made of this file: their cache knows nothing of the change."""
    return file.startswith("walks/") or "numba" in (ROOT / file).read_text(encoding="utf-8")


def _replace(file: str, code: CodeType) -> None:
    """Let Python import the changed file in place of the file."""
    path = imported(file)
    get = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        return code if Path(self.path) == path else get(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def import_libraries() -> None:
    """Import what the package needs, so that a forked process begins at once."""
    for name in LIBRARIES.split():
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="FILE", help="a file, as floors/chain.py; may be repeated")
    parser.add_argument("--again", action="store_true", help="the survivors in the results file that have no reason")
    parser.add_argument("--tests", help="names of test files, with commas between; without it, all of these rooms")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.again and not given.json:
        parser.error("--again needs --json FILE")
    target = given.json.resolve() if given.json else None
    os.chdir(ROOT)
    os.environ["CI"] = "1"  # hypothesis draws the same examples each time
    import_libraries()
    held = watched(given.folder, given.tests.split(",") if given.tests else list(TESTS))
    every = [one for path in source_files() for one in mutants(path)]
    if given.again:
        again(target, every, held)
        return
    if given.only:
        every = [one for one in every if one.file in given.only]
    chosen = drawn(every, given.n, given.seed)
    kept = given.folder / f"seed-{given.seed}.jsonl"
    done = {}
    if kept.is_file():  # go on where it was stopped
        for line in kept.read_text().splitlines():
            row = json.loads(line)
            done[row["code"], row["file"], row["number"]] = row
    code = {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in source_files()}
    rows = []
    for i, mutant in enumerate(chosen, start=1):
        row = done.get((code[mutant.file], mutant.file, mutant.number))
        if row is None:
            row = {**asdict(mutant), "code": code[mutant.file], **tried(mutant, held)}
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
        said(f"{i} {row['outcome']}", mutant)
        if target and (i % 10 == 0 or i == len(chosen)):
            written(target, *figures(rows, target), possible=len(every))


def said(outcome: str, mutant: Mutant) -> None:
    print(f"{outcome}: {mutant.file}:{mutant.line} {mutant.before} → {mutant.after}", flush=True)


def again(path: Path, every: list[Mutant], held: dict[str, Any]) -> None:
    """Try the survivors of a results file that have no reason, and take those that are killed now from its list."""
    about = json.loads(path.read_text())
    table, survivors = about["rows"], about["survivors"]
    for one in [each for each in survivors if not each["why"]]:
        alike = [mutant for mutant in every if _what(asdict(mutant)) == _what(one)]
        if not alike:
            print(f"no longer in the code: {one['file']} {one['before']} → {one['after']}")
            continue
        mutant = min(alike, key=lambda mutant: abs(mutant.line - one["line"]))
        found = tried(mutant, held)["outcome"]
        said(found, mutant)
        if found in KILLED:
            survivors.remove(one)
            for row in table:
                if row["room"] in ("all", one["file"].partition("/")[0]):
                    row |= {"killed": row["killed"] + 1, "share": round((row["killed"] + 1) / row["made"], 3)}
        written(path, table, survivors, possible=table[-1]["possible"])


def _what(row: dict[str, Any]) -> tuple[str, ...]:
    return row["file"], row["function"], row["before"], row["after"]


def tried(mutant: Mutant, held: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a mutant and the number of tests that it was given."""
    tests = covering(mutant, held)
    if not tests:
        return {"outcome": "not tested", "tests": 0}
    with tempfile.TemporaryDirectory() as scratch:
        found = "survived"
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        for group in (tests[:40], tests[40:]):
            if not group or found != "survived":
                continue
            group.sort(key=lambda test: files.index(test.partition("::")[0]))  # shared fixtures are made once
            compiling = 240 if _compiles(mutant.file) else 60
            seconds = SLOWER * sum(held["seconds"][test] for test in group) + compiling
            found = outcome(mutant, group, seconds, Path(scratch, "log"))
    return {"outcome": found, "tests": len(tests)}


def figures(rows: list[dict[str, Any]], path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Figures for each room, and the survivors; what a results file says about one is kept."""
    before = json.loads(path.read_text())["survivors"] if path.is_file() else []
    why = {_what(one): one["why"] for one in before}
    table = []
    for room in (*ROOMS, "all"):
        mine = [row for row in rows if room == "all" or row["file"].startswith(room)]
        if mine:
            killed = sum(row["outcome"] in KILLED for row in mine)
            row = {"room": room, "made": len(mine), "killed": killed, "share": round(killed / len(mine), 3)}
            table.append(row | {"killed at first": killed})
    survivors = [
        {key: row[key] for key in ("file", "line", "function", "before", "after", "outcome")}
        | {"why": why.get(_what(row), "")}
        for row in rows
        if row["outcome"] not in KILLED
    ]
    return table, survivors


def written(path: Path, table: list[dict[str, Any]], survivors: list[dict[str, Any]], possible: int) -> None:
    """Write the results file."""
    table[-1] |= {"possible": possible, "explained": sum(bool(one["why"]) for one in survivors)}
    recorded(path, {"rows": table, "survivors": survivors})


def recorded(path: Path, about: dict[str, Any]) -> None:
    """Write results with their record, by a process of its own: this one must not import qcq."""
    pid = os.fork()
    if not pid:
        from record import made

        path.write_text(json.dumps({**about, "made": made()}, indent=1, ensure_ascii=False) + "\n")
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{path}: not written")


if __name__ == "__main__":
    main()
