"""Every input that reached new code in benchmarks/fuzz.py is read again: an answer, or a typed error of one line."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import qcq
from qcq.errors import QCQError


def _benchmark(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(qcq.__file__).parent / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


INPUTS, TARGETS, FUZZ = map(_benchmark, ("fuzz_inputs", "fuzz_targets", "fuzz"))  # each imports those before it
CORPUS = FUZZ.kept()


@pytest.mark.filterwarnings("ignore")  # doubtful files are what this is about
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", sorted(CORPUS))
def test_every_input_is_answered(reader: str, every: int, tmp_path: Path) -> None:
    sample, act = TARGETS.targets()[reader]()
    disk = INPUTS.Disk(tmp_path)
    act(disk.hold(sample))
    for script in CORPUS[reader]["inputs"][::every]:
        folder = disk.hold(INPUTS.edited(sample, base64.b64decode(script)))
        said = ""
        try:
            act(folder)
        except QCQError as error:
            said = str(error)
        except OSError:
            pass
        except Exception as error:
            error.add_note(f"input {script}")
            raise
        assert "\n" not in said, script


def test_a_corpus_goes_into_the_repository_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FUZZ, "CORPUS", tmp_path / "corpus.json")
    first, inputs = tmp_path / "first", [b"", b"\x00\xff", b"abcd"]
    FUZZ.unpack("csv", first)  # nothing is known of it: an empty corpus
    assert list((first / "inputs").iterdir()) == []
    for at, script in enumerate(inputs):
        (first / "inputs" / str(at)).write_bytes(script)
    counts = {"seconds": 6.0, "inputs": 7, "new": [1, 7], "ended": [], "found": ["ValueError in a.py:1 f"]}
    (first / "counts.json").write_text(json.dumps(counts))
    FUZZ.keep("csv", first)
    FUZZ.keep("s2kt", first)
    FUZZ.keep("csv", first)
    assert sorted(FUZZ.kept()) == ["csv", "s2kt"]
    FUZZ.unpack("csv", tmp_path / "second")
    assert sorted(path.read_bytes() for path in (tmp_path / "second" / "inputs").iterdir()) == sorted(inputs)
    row = FUZZ.reader("csv", 0, tmp_path / "second")
    assert (row["inputs"], row["CPU-minutes"], row["paths"], row["findings"]) == (7, 0.1, 2, 1)


def test_the_readers_of_the_corpus_are_those_that_are_fuzzed() -> None:
    assert set(CORPUS) == set(TARGETS.targets())
