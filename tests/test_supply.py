"""What is installed with qcq: licences, versions with hashes, results with other versions."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from safetensors.numpy import save_file

import qcq

ROOT = Path(qcq.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED = ("locked.txt", "locked-torch.txt")


def names(requirements: list[str]) -> set[NormalizedName]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def pinned() -> dict[NormalizedName, str]:
    """constraints.txt: name → version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def locked(file: str) -> dict[NormalizedName, tuple[Requirement, list[str]]]:
    """name → what is asked for, and its hashes."""
    text = re.sub(r"\\\n\s*", "", (ROOT / file).read_text(encoding="utf-8"))
    found = {}
    for line in text.splitlines():
        asked, *hashes = line.split(" --hash=")
        found[canonicalize_name(Requirement(asked).name)] = (Requirement(asked), [each.strip() for each in hashes])
    return found


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_dependency_has_its_licence_listed(licences: ModuleType) -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| (.*) \|$", page, flags=re.MULTILINE))
    listed = {name: row.split(" | ") for name, row in rows.items() if name != "package"}
    assert {name for name, row in listed.items() if row[2] == "qcq"} == names(PROJECT["dependencies"])
    assert {name: row[0] for name, row in listed.items()} == {name: pinned()[name] for name in listed}
    for name, (version, licence, _) in listed.items():
        try:
            same = metadata.version(name).split("+")[0] == version
        except metadata.PackageNotFoundError:  # gensim, on a Python without a wheel
            continue
        assert not same or licences.licence(name) == licence, "run python docs/licences.py"


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ("License-Expression: MIT\nLicense: something else", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: a whole text\nof two lines", "BSD License"),
        ("License: LGPL-2.1-only", "LGPL-2.1-only"),
    ],
)
def test_a_licence_is_what_the_metadata_declare(
    licences: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str, shown: str
) -> None:
    folder = tmp_path / "planted-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: planted\nVersion: 1.0\n{declared}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert licences.licence("planted") == shown


def test_a_licence_that_asks_for_more_is_named(licences: ModuleType) -> None:
    for asking in ("LGPL-2.1-only", "GPL-3.0-or-later", "MPL-2.0 AND MIT", "GNU Affero General Public License"):
        assert licences.COPYLEFT.search(asking)
    for permissive in (
        "MIT",
        "BSD-3-Clause AND 0BSD",
        "Apache-2.0 WITH LLVM-exception",
        "ISC License (ISCL)",
        "PSF-2.0",
    ):
        assert not licences.COPYLEFT.search(permissive)
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for line in page.splitlines():
        if line.startswith("| ") and licences.COPYLEFT.search(line):
            assert f"`{line.split()[1]}` (" in page


def test_every_locked_version_has_hashes_and_is_the_constrained_one() -> None:
    every = {name: found for file in LOCKED for name, found in locked(file).items()}
    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"] + extras["dev"] + extras["hf"]) <= every.keys()
    versions = pinned()
    for name, (asked, hashes) in every.items():
        assert len(asked.specifier) == 1
        assert str(asked.specifier).startswith("==")
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), name
        if name in versions:
            assert str(asked.specifier) == f"=={versions[name]}", "run make lock"


def test_only_torch_and_its_libraries_for_gpus_may_come_without_hashes() -> None:
    assert "torch" in locked("locked-torch.txt")
    assert all(re.fullmatch(r"torch|triton|(nvidia|cuda)-.*", name) for name in locked("locked-torch.txt"))
    assert not any(re.fullmatch(r"torch|triton|(nvidia|cuda)-.*", name) for name in locked("locked.txt"))


def results_of(folder: Path, vectors: np.ndarray, auc: float | None) -> Path:
    """What a run leaves of one trainer."""
    for kind in ("trainers", "walks"):
        (folder / kind / "embeddings").mkdir(parents=True)
        at = {"walk": "qcq", "trainer": "svd"}
        losses = {"loss": None, "floor": None, "unigram": None}
        (folder / kind / "training.jsonl").write_text(json.dumps({**at, **losses, "corpus_digest": "d"}) + "\n")
        save_file({"vectors": vectors}, folder / kind / "embeddings" / "qcq--svd--table--seed-0.safetensors")
        row = {**at, "task": "kt", "metric": "auc", "readout": "table", "value": auc}
        (folder / kind / "results.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.mark.parametrize(
    ("change", "auc", "vectors", "scores", "apart"),
    [(0.0, 0.75, "equal", 1, 0.0), (2.0**-10, 0.75, "differ", 1, 2.0**-12), (0.0, 0.5, "equal", 0, 0.0)],
)
def test_results_of_two_environments_are_compared_byte_by_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: float,
    auc: float,
    vectors: str,
    scores: int,
    apart: float,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    versions = importlib.import_module("versions")
    table = np.array([[1.0, 4.0], [2.0, 3.0]], dtype=np.float32)
    one = results_of(tmp_path / "one", table, 0.75)
    other = results_of(tmp_path / "other", table + np.float32(change), auc)
    found = list(versions.rows(one, other, "two"))
    assert [row["of"] for row in found] == ["all trainers", "trainers", "all walks", "walks"]
    assert found[0]["vectors equal"] == (vectors == "equal")
    assert (found[1]["vectors"], found[1]["vectors apart, relative"]) == (vectors, apart)
    assert found[1]["scores equal"] == 3 + scores
    assert found[1]["scores apart"] == abs(auc - 0.75)
    assert found[1]["furthest"] == ("kt auc table" if auc != 0.75 else "")
