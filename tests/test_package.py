"""The wheel and the sdist: what ships, and that it imports from a clean folder."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import qcq

ROOT = Path(qcq.__file__).parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing in it."""
    out = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = files.stdout.split("\0") if files.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(path.read_bytes())
    return out


def build(what: str, source: Path, out: Path) -> Path:
    """Build a wheel or an sdist."""
    command = [sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.iterdir())


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"qcq", f"qcq-{qcq.__version__}.dist-info"}
    inside = {name.split("/")[1] for name in names if name.startswith("qcq/")}
    assert not inside & {"tests", "benchmarks", "examples", "docs", "typings", "conftest.py", "setup.py"}
    assert {"py.typed", "walks", "models", "data", "evaluation", "report", "pipeline.py", "cli"} <= inside
    for package in (ROOT).iterdir():
        if (package / "__init__.py").exists() and package.name not in ("tests", "benchmarks", "typings"):
            ours = {str(p.relative_to(ROOT)) for p in package.rglob("*.py")}
            assert ours <= {name.removeprefix("qcq/") for name in names}, f"{package.name} is missing from the wheel"


def test_wheel_imports_from_a_clean_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    assert {p.name for p in site.iterdir() if p.is_dir() and not p.name.endswith(".dist-info")} <= {"qcq", "bin"}
    code = "import qcq, qcq.cli; print(qcq.__file__); print(len(qcq.TRAINERS))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(site)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", source, tmp_path / "sdist")
    name = f"qcq-{qcq.__version__}"
    assert sdist.name == f"{name}.tar.gz"
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    assert {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= {each.name for each in (tmp_path / name).iterdir()}
    again = build("wheel", tmp_path / name, tmp_path / "again")
    assert again.name == wheel.name
    first, second = (
        {each: archive.read(each) for each in archive.namelist()} for archive in map(zipfile.ZipFile, (wheel, again))
    )
    assert first.keys() == second.keys()
    assert [each for each in first if first[each] != second[each]] == []


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pythons() -> list[str]:
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in project()["classifiers"])
    return [each[1] for each in found if each]


def test_the_pythons_named_are_those_it_is_for() -> None:
    assert pythons() == ["3.11", "3.12", "3.13", "3.14"]
    allowed = SpecifierSet(project()["requires-python"])
    assert all(allowed.contains(python) for python in pythons())
    assert not allowed.contains("3.10")
    wanted = subprocess.run(["make", "--dry-run", "resolve"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"for python in {' '.join(pythons())};" in wanted.stdout


def test_gensim_is_left_out_where_it_has_no_wheel() -> None:
    needed = [Requirement(each) for each in project()["dependencies"]]
    missing = {
        python: {each.name for each in needed if each.marker and not each.marker.evaluate({"python_version": python})}
        for python in (*pythons(), "3.15")
    }
    assert missing == {"3.11": set(), "3.12": set(), "3.13": set(), "3.14": {"gensim"}, "3.15": {"gensim"}}
