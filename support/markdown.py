"""Text of any origin in a page of Markdown: it is shown as it is, whatever it looks like."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qcq.support.terminal import markdown_table

_LINES = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")

# What can be markup in CommonMark, on GitHub, on the Hub or in MyST. An ordinary name has none of it: "_" inside a
# word, "*" between spaces, "-0.1" and "[0.1, 0.2]" are text to all of them.
_MARKUP = re.compile(
    r"""
      [`<$]
    | \\ (?= [!-/:-@\[-`{-~] | $ )                    # else a backslash is itself
    | (?<!\s)[*~] | [*~](?!\s)
    | (?<![^\W_])_ | _(?![^\W_])
    | & (?= \#?\w+; )                                # an entity
    | ^\[ | (?<=!)\[ | \[(?=[\[^])                    # a definition, a picture, a footnote
    | \](?=[(\[:{])                                   # the second half of a link
    | : (?=//) | (?<=[Ww]{3})\.                       # an address that becomes a link
    | ^[\#>%] | ^[+-](?=[\s+-]|$) | ^:(?=:)           # a block
    | (?<=\s)\#(?=\#*$)                               # the end of a heading
    """,
    re.VERBOSE,
)
_NUMBERED = re.compile(r"^(\d+)(?=[.)](?:\s|$))")


def plain(text: object) -> str:
    """Text without markup: a backslash before each sign that would be some, and line ends as spaces.

    A page puts a space or a comma after it, or a colon; not a bracket, which could make a link of it.

    Examples
    --------
    >>> print(plain("<b>n|x [l](javascript:1)"), plain("two_words, -0.5 [0.1, 0.2]"))
    \\<b>n|x [l\\](javascript:1) two_words, -0.5 [0.1, 0.2]
    """
    line = _LINES.sub(" ", str(text)).strip(" \t")
    return _NUMBERED.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", line))


def code(text: object) -> str:
    """A span of code, whose fence is longer than any in the text.

    Examples
    --------
    >>> print(code("qcq run"), code("a`b"), code("``"))
    `qcq run` ``a`b`` ``` `` ```
    """
    line = _LINES.sub(" ", str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    ends = line[:1] + line[-1:]
    # One space on each side is taken away by whoever shows it, if there is something else between.
    pad = " " if not line or "`" in ends or (ends == "  " and line.strip(" ")) else ""
    return f"{fence}{pad}{line}{pad if line else ''}{fence}"


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """:func:`qcq.support.terminal.markdown_table` of cells that are all :func:`plain`."""
    return markdown_table(list(map(plain, titles)), [list(map(plain, row)) for row in rows], left)
