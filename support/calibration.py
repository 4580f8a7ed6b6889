"""Measurements of this machine, kept in the user's cache so that they are made once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from qcq.support.environment import environment
from qcq.support.files import from_json, write_text


def file_of(name: str) -> Path:
    """The file of some measurements: another one for another machine, version of Python, qcq or a library."""
    here = environment()
    key = hashlib.sha256(json.dumps([here[part] for part in ("python", "cpu", "threads", "versions", "git")]).encode())
    return _cache() / f"{name}-{key.hexdigest()[:12]}.json"


def recalled(name: str) -> dict[str, Any]:
    """What was kept under a name; empty if there is nothing, or nothing readable."""
    try:
        held = from_json(file_of(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def keep(name: str, held: dict[str, Any]) -> None:
    """Keep measurements; where the cache can't be written, they are made again next time."""
    with suppress(OSError):
        file_of(name).parent.mkdir(parents=True, exist_ok=True)
        write_text(file_of(name), json.dumps(held, sort_keys=True) + "\n")


def _cache() -> Path:
    """The user's folder for files that can be made again, by the custom of the system."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "qcq"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "qcq" / "Cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "qcq"
