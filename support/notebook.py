"""Small tables that a notebook shows where an object is the last line of a cell."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

SHOWN = 5  # names in a list
LONGEST = 60  # characters of a name


def html_table(title: str, rows: Mapping[str, str]) -> str:
    """A title and its rows, name → value. All text is escaped; rows without a value are left out.

    Examples
    --------
    >>> html_table("Dataset <b>", {"questions": "1,200", "students": ""})
    '<table><caption>Dataset &lt;b&gt;</caption><tr><th>questions</th><td>1,200</td></tr></table>'
    """
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items() if value
    )
    return f"<table><caption>{html.escape(title)}</caption>{cells}</table>"


def first(names: Sequence[str]) -> str:
    """The first names of a list, long ones cut.

    Examples
    --------
    >>> first(["a", "b"]), first([str(i) for i in range(9)])
    ('a, b', '0, 1, 2, 3, 4, …')
    """
    shown = [str(name) if len(str(name)) <= LONGEST else f"{str(name)[:LONGEST]}…" for name in names[:SHOWN]]
    return ", ".join([*shown, "…"] if len(names) > SHOWN else shown)
