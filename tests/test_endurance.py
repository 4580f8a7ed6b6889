"""Many runs in one process and several at once, in small: the benchmark of it, and that it notices a leak."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

import qcq

BENCHMARKS = Path(qcq.__file__).parent / "benchmarks"
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured in /proc")


@pytest.fixture(scope="module")
def endurance() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("endurance", BENCHMARKS / "endurance.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made


@pytest.mark.slow
def test_some_runs_in_one_process_and_some_at_once(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "endurance.py"), "--runs", "15", "--at-once", "2"]
    made = subprocess.run([*command, "--json", str(tmp_path / "made.json")], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    rows = {row["case"]: row for row in json.loads((tmp_path / "made.json").read_text())["rows"]}
    assert {row["tried"] - row["survived"] for row in rows.values()} == {0}
    assert rows["all in one folder"]["worked"] >= 1
    assert rows["runs in one process"]["from run"] == 7


@pytest.mark.parametrize(
    "leak",
    [
        "open files",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("threads", "memory, MiB", "temporary files", "left")),
    ],
)
def test_a_leak_is_noticed(leak: str, endurance: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    kept: list[object] = []
    end = threading.Event()

    def one(number: int, home: Path) -> None:
        if leak == "open files":
            kept.append((home.parent / "open").open("w"))
        elif leak == "threads":
            for _ in range(5):  # others end meanwhile
                kept.append(threading.Thread(target=end.wait))
                kept[-1].start()  # type: ignore[attr-defined]
        elif leak == "memory, MiB":
            kept.append(bytearray(b"x" * 2**26))
        elif leak == "temporary files":
            kept.append(Path(tempfile.mkdtemp()))
        else:
            (home / f"left-{number}").touch()

    monkeypatch.setattr(endurance, "one", one)
    found = endurance.endurance(3)["findings"]
    end.set()
    for each in kept:
        if leak == "open files":
            each.close()  # type: ignore[attr-defined]
        elif leak == "threads":
            each.join()  # type: ignore[attr-defined]
    assert found == ([leak] if leak != "left" else ["left-0", "left-1", "left-2"])
