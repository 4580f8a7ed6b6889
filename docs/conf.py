"""Settings of Sphinx; docs/build.py assembles what it reads."""

from __future__ import annotations

import re
from typing import Any

project, author, html_title = "qcq", "", "qcq"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_static_path, html_css_files = ["static"], ["site.css"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "misc.highlighting_failure", "toc.not_included"]
autodoc_typehints = "signature"
napoleon_google_docstring = False


def plain(lines: list[str]) -> list[str]:
    """A docstring whose "name : what it is" is a name and a description; the types are in the signature."""
    made: list[str] = []
    inside = False
    for at, line in enumerate(lines):
        after = lines[at + 1].strip() if at + 1 < len(lines) else ""
        if re.fullmatch(r"-{3,}", after):
            inside = line.strip() in {"Parameters", "Attributes", "Returns", "Raises", "Yields"}
        found = re.match(r"(\s*)(\S[^:]*?) : (.*)$", line) if inside else None
        made += [f"{found[1]}{found[2]}", f"{found[1]}    {found[3]}"] if found else [line]
    return made


def setup(app: Any) -> None:
    """Before napoleon reads a docstring, its entries are put into the form that it expects."""
    app.connect("autodoc-process-docstring", lambda *given: given[-1].__setitem__(slice(None), plain(given[-1])), 100)
