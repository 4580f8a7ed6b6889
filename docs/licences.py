"""The page docs/licences.md: what ``pip install`` brings with qcq, and under which licence: python docs/licences.py

Followed are the requirements of each package's metadata, from pyproject.toml on, without extras, as they are for
Python 3.11 on every operating system. A licence is what the metadata declares: the SPDX expression, or else the
classifier, or else the first line of the field. Run it in the environment that ``make env`` makes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
# No operating system: what is needed on one alone isn't listed.
ANYWHERE = dict.fromkeys(("os_name", "sys_platform", "platform_system", "platform_machine"), "")
WHERE: dict[str, str | AbstractSet[str]] = {
    **{key: str(value) for key, value in default_environment().items()},
    **ANYWHERE,
    "python_version": "3.11",
    "python_full_version": "3.11.0",
}
# Licences that ask for more than their text and a notice in copies.
COPYLEFT = re.compile(r"\b[AL]?GPL|\bMPL|\bEPL|\bEUPL|\bCDDL|\bSSPL|GNU|Mozilla|propriet", flags=re.IGNORECASE)

HEAD = """# Licences

*Made by `python docs/licences.py` from the metadata of the installed packages; a test compares the two.*

This page lists what `pip install` brings with qcq: its dependencies and theirs, without extras. Look here if your
organisation has to approve licences. qcq itself is under the [MIT licence](https://opensource.org/license/mit).

"""

TAIL = """
**What isn't in the table.** What only one operating system needs, such as `colorama` on Windows. On Linux, `torch`
from PyPI brings NVIDIA's libraries for GPUs (`nvidia-*`), whose licence is proprietary. The CPU build of torch has none
of them; [install it first](https://pytorch.org/get-started/locally/).

Metadata is what the authors declare. A wheel can hold further libraries, and names them in the `licenses` folder of its
`.dist-info`.
"""


def needed(requirements: Iterable[str], found: dict[str, set[str]], extras: Iterable[str] = ("",)) -> None:
    """Add the requirements that hold, and theirs, to ``found``: name → its extras."""
    for each in map(Requirement, requirements):
        if each.marker and not any(each.marker.evaluate({**WHERE, "extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(each.name)
        new = {"", *each.extras} - found.get(name, set())
        if new:
            found.setdefault(name, set()).update(new)
            needed(metadata.requires(name) or [], found, new)


def licence(name: str) -> str:
    """The licence that a package's metadata declare."""
    about = metadata.metadata(name)
    if about["License-Expression"]:
        return about["License-Expression"]
    classifiers = [
        each.split(" :: ")[-1] for each in about.get_all("Classifier") or [] if each.startswith("License ::")
    ]
    lines = (about["License"] or "").strip().splitlines()
    if not classifiers and not lines:
        raise SystemExit(f"{name}: its metadata declare no licence; read its files and add the case here")
    return ", ".join(classifiers) or lines[0]


def asked() -> list[str]:
    """The requirements of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def made() -> str:
    """The page, from what is installed here."""
    found: dict[str, set[str]] = {}
    needed(asked(), found)
    direct = {canonicalize_name(Requirement(each).name) for each in asked()}
    table, other = "| package | version | licence | asked for by |\n|---|---|---|---|\n", []
    for name in sorted(found):
        version, under = Version(metadata.version(name)).public, licence(name)
        table += f"| {name} | {version} | {under} | {'qcq' if name in direct else 'a dependency'} |\n"
        if COPYLEFT.search(under):
            other.append(f"`{name}` ({under})")
    said = (
        f"Not permissive: {', '.join(other)}. qcq imports it and does not contain it."
        if other
        else "All are permissive."
    )
    return f"{HEAD}{said}\n\n{table}{TAIL}"


if __name__ == "__main__":
    PAGE.write_text(made(), encoding="utf-8")
