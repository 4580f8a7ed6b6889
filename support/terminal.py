"""Output on a terminal, and in a log file instead."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from qcq.support.progress import Progress, Watch

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SHARE, SECONDS = 0.1, 60.0  # a log line is written after this share of the work, or this time


class Screen(Console):
    """A console that shows control characters of names and files as JSON writes them: a terminal would obey them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        if self.width < 1:  # COLUMNS=0; everything would be cut off
            self.width = 80

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _CONTROL.sub(_written, text), style, control)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _written(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


class Terminal(Watch):
    """Progress bars with the time left, one per running cell; without a terminal, a line now and then.

    Parameters
    ----------
    console : where to write.
    quiet : say nothing but what is doubtful in the data.
    clock : returns the time in seconds.
    """

    def __init__(self, console: Console, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.quiet, self.clock = console, quiet, clock
        self._bars: Bars | None = None
        self._doubts: set[str] = set()
        self._running = 0

    def say(self, line: str) -> None:
        doubtful = line.startswith("doubtful: ")  # shown in any case, but once: every fold has the same notes
        if doubtful and line in self._doubts:
            return
        self._doubts |= {line} if doubtful else set()
        if doubtful or not self.quiet:
            self.console.print(line, markup=False, style="yellow" if doubtful and self.console.is_terminal else None)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        if self.quiet or not self.console.is_terminal:
            yield self._lines(label)
            return
        bars = self._bars = self._bars or self._started()
        self._running += 1
        task = bars.add_task(label, total=None, figures="")

        def draw(done: int, total: int, **figures: float | str) -> None:
            bars.update(task, completed=done, total=total, figures=_figures(figures))

        try:
            yield draw
        finally:
            bars.remove_task(task)
            self._running -= 1
            if not self._running:  # the bars disappear when nothing is running
                bars.stop()
                self._bars = None

    def _started(self) -> Bars:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        bars.start()
        return bars

    def _lines(self, label: str) -> Progress:
        """One line per tenth of the work and at least one per minute: label, per cent, figures, time left."""
        began = last = self.clock()
        next_share = SHARE

        def tell(done: int, total: int, **figures: float | str) -> None:
            nonlocal last, next_share
            now, share = self.clock(), done / total if total else 1.0
            if share >= 1 or (share < next_share and now - last < SECONDS):
                return
            last, next_share = now, (int(share / SHARE) + 1) * SHARE
            left = (now - began) * (1 - share) / share if share > 0 else None
            shown = _figures(figures)
            parts = [f"{share:.0%}", *([shown] if shown else []), *([f"{duration(left)} left"] if left else [])]
            self.say(f"{label}: {', '.join(parts)}")

        return tell


def duration(seconds: float) -> str:
    """Seconds in readable form.

    Examples
    --------
    >>> duration(0.4), duration(75), duration(600), duration(9000)
    ('1 s', '75 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(n: float) -> str:
    """Bytes in readable form.

    Examples
    --------
    >>> size(900), size(16_000), size(3.2e9)
    ('900 bytes', '16.0 kB', '3.2 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _figures(figures: dict[str, float | str]) -> str:
    return "  ".join(f"{k} {v:,.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


def show(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """A table: drawn on a terminal, Markdown for other output. The first ``left`` columns are text."""
    if not console.is_terminal:
        console.print(markdown_table(titles, rows, left), markup=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, title in enumerate(titles):
        table.add_column(Text(title), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a cell may look like markup
    console.print(table)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A GitHub-flavoured table; the first ``left`` columns are text, the others numbers.

    Examples
    --------
    >>> print(markdown_table(["a", "n"], [["x|y", "1"]], 1))
    | a    |   n |
    |------|----:|
    | x\\|y |   1 |
    """
    head, *cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (titles, *rows)]
    wide = [max(3, len(t), *(len(row[i]) for row in cells)) if cells else max(3, len(t)) for i, t in enumerate(head)]

    def line(row: Sequence[str]) -> str:
        shown = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, wide, strict=True))]
        return f"| {' | '.join(shown)} |"

    rule = "|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(wide))
    return "\n".join([line(head), f"|{rule}|", *map(line, cells)])
