"""What a log file gets where there is no terminal: a line each tenth of the work, and at least one a minute."""

from __future__ import annotations

import io

from rich.console import Console

from qcq.support.terminal import Terminal


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
