"""The tables of public data sets in docs/data.md, from :mod:`qcq.data.catalogue`.

``python docs/catalogue.py`` writes them anew; a test holds page and code together.
"""

from __future__ import annotations

from pathlib import Path

from qcq.data.catalogue import PUBLIC, QCQ, Counts

PAGE = Path(__file__).resolve().parent / "data.md"
BEGIN, END = "<!-- python docs/catalogue.py -->\n", "<!-- end -->\n"


def _link(text: str, address: str) -> str:
    return f"[{text}]({address})" if address.startswith("http") else text


def _counted(name: str, counts: Counts) -> str:
    cells = (counts.students, counts.questions, counts.concepts, counts.responses)
    by = _link(counts.by, counts.source) + (f", {counts.note}" if counts.note else "")
    return f"| {name} | {' | '.join('–' if n is None else f'{n:,}' for n in cells)} | {by} |"


def tables() -> str:
    """Data sets with page and licence; then counts of others; then known digests, but for files of a pinned commit."""
    sets = [
        f"| `{name}` | {_link(each.title, each.page)} | {f'`{each.reader}`' if each.reader else 'none'} | "
        f"{_link(each.licence, each.licence_source) or '–'} |"
        for name, each in PUBLIC.items()
    ]
    counts = [_counted(name, one) for name, each in PUBLIC.items() for one in each.counts if one.source != QCQ]
    known = [
        f"| {name} | `{copy.path}` | {'–' if copy.size is None else f'{copy.size:,}'} | `{copy.sha256}` | "
        f"{_link('source', copy.source)} |"
        for name, each in PUBLIC.items()
        for file in each.files
        for copy in file.copies
        if copy.source and "/tree/" not in copy.source
    ]
    return "\n".join(
        [
            "| name | data set | reader | licence |",
            "|---|---|---|---|",
            *sets,
            "",
            "| name | students | questions | concepts | responses | counted by |",
            "|---|---|---|---|---|---|",
            *counts,
            "",
            "| name | file | bytes | SHA-256 | stated at |",
            "|---|---|---|---|---|",
            *known,
            "",
        ]
    )


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + tables() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
