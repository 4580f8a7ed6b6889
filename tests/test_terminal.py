"""What a log file gets where there is no terminal: a line each tenth of the work, and at least one a minute."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from qcq.cli import console
from qcq.support.terminal import Screen, Terminal, show


def lines(steps: list[tuple[float, int, float]], total: int = 100) -> list[str]:
    """What is said of work that is ``done`` of ``total`` at so many seconds, with a loss."""
    out, now = io.StringIO(), [0.0]
    watch = Terminal(Console(file=out, width=200), clock=lambda: now[0])
    with watch.progress("mlm, seed 0") as progress:
        for now[0], done, loss in steps:
            progress(done, total, loss=loss, floor=5.5)
    return out.getvalue().splitlines()


def test_a_line_each_tenth() -> None:
    said = lines([(n / 10, n, 9.0 - n / 100) for n in range(1, 101)])
    assert len(said) == 9  # the end is told by whoever has the result
    assert said[0] == "mlm, seed 0: 10%, loss 8.900  floor 5.500, 9 s left"
    assert said[-1].startswith("mlm, seed 0: 90%")


def test_a_line_a_minute_where_a_tenth_takes_longer() -> None:
    said = lines([(float(t), t // 60, 9.0) for t in range(0, 541, 20)])
    assert len(said) == 9
    assert said[0] == "mlm, seed 0: 1%, loss 9.000  floor 5.500, 1.6 h left"


def test_a_quiet_one_says_nothing() -> None:
    out = io.StringIO()
    watch = Terminal(Console(file=out), quiet=True)
    watch.say("a line")
    with watch.progress("work") as progress:
        progress(50, 100)
    assert out.getvalue() == ""


@pytest.mark.parametrize("drawn", [False, True])
def test_no_name_gives_a_terminal_a_command(drawn: bool) -> None:
    """A name may hold the sequences that a terminal obeys: a colour, a title, a cleared screen, 8-bit ones."""
    bad = "q\x1b[2J\x1b]0;title\x07\x9b31m"
    out = io.StringIO()
    screen = Screen(file=out, width=200, force_terminal=drawn)
    screen.print(bad, markup=False)
    screen.print_json(json.dumps({"name": bad}))
    show(screen, [bad], [[bad]], left=1)
    watch = Terminal(screen)
    watch.say(bad)
    with watch.progress(bad) as progress:
        progress(50, 100, figure=bad)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()) if drawn else out.getvalue()  # those of rich
    assert "\x1b[2J" not in out.getvalue()
    assert not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", plain)
    assert "q\\u001b[2J" in plain


def test_both_consoles_show_control_characters_as_text() -> None:
    assert isinstance(console.out, Screen)
    assert isinstance(console.err, Screen)


def test_markup_in_what_is_said_is_shown_as_written() -> None:
    out = io.StringIO()
    watch = Terminal(Console(file=out, width=200, force_terminal=True, highlight=False))
    watch.say("[red]halves[/red]")
    with watch.progress("[b]label[/b]") as progress:
        progress(50, 100, figure="[i]figure[/i]")
        assert watch._bars is not None
        watch._bars.refresh()
    for text in ("[red]halves[/red]", "[b]label[/b]", "[i]figure[/i]"):
        assert text in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
