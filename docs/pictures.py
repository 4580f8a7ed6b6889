"""The pictures of the README.

python docs/pictures.py                  writes docs/pictures/walk.svg
python docs/pictures.py --report RUN     photographs the report of a run, light and dark (needs chromium)
"""

from __future__ import annotations

import argparse
import shutil
from itertools import pairwise
from pathlib import Path

PICTURES = Path(__file__).resolve().parent / "pictures"
QUESTIONS = {"q1": (90, 60), "q2": (90, 140), "q3": (90, 220)}
CONCEPTS = {"fractions": (330, 95), "addition": (330, 185)}
PLACES = {**QUESTIONS, **CONCEPTS}
EDGES = [("q1", "fractions"), ("q2", "fractions"), ("q2", "addition"), ("q3", "addition")]
WALK = ["q1", "fractions", "q2", "addition", "q3"]
STYLE = """
  text { font: 16px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; dominant-baseline: central }
  .label { font-size: 13px; fill: #59636e }
  .question { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5 }
  .concept { fill: #fff8c5; stroke: #9a6700; stroke-width: 1.5 }
  .edge { stroke: #8c959f; stroke-width: 1.5 }
  .walk { stroke: #cf222e; stroke-width: 2.5; fill: none; marker-end: url(#tip) }
  .tip { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .label { fill: #9198a1 }
    .question { fill: #0c2d4d; stroke: #4493f8 }
    .concept { fill: #3a2c04; stroke: #d29922 }
    .edge { stroke: #656c76 }
    .walk { stroke: #f85149 }
    .tip { fill: #f85149 }
  }
"""


def walk() -> str:
    """Three questions, two concepts, and a walk that visits them in turn."""
    ends = [(PLACES[a], PLACES[b]) for a, b in EDGES]
    edges = [f'<line class="edge" x1="{x}" y1="{y}" x2="{u}" y2="{v}"/>' for (x, y), (u, v) in ends]
    steps = [_step(a, b) for a, b in pairwise(WALK)]
    nodes = [
        f'<circle class="question" cx="{x}" cy="{y}" r="24"/><text x="{x}" y="{y}">{name}</text>'
        for name, (x, y) in QUESTIONS.items()
    ] + [
        f'<rect class="concept" x="{x - 58}" y="{y - 20}" width="116" height="40" rx="8"/>'
        f'<text x="{x}" y="{y}">{name}</text>'
        for name, (x, y) in CONCEPTS.items()
    ]
    title = '<text class="label" x="90" y="18">questions</text><text class="label" x="330" y="18">concepts</text>'
    said = f'<text class="label" x="210" y="272">a walk: {" → ".join(WALK)}</text>'
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 290" width="420" role="img" '
        'aria-label="Three questions, two concepts, and a walk from question to concept to question">\n'
        f"<style>{STYLE}</style>\n"
        f'<defs>{tip}<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>\n'
        + "\n".join([title, *edges, *nodes, *steps, said])
        + "\n</svg>\n"
    )


def _step(start: str, end: str) -> str:
    """A step of the walk: an arrow a little above its edge, from rim to rim."""
    (x, y), (u, v) = PLACES[start], PLACES[end]
    length = ((u - x) ** 2 + (v - y) ** 2) ** 0.5
    a, b = (62 if start in CONCEPTS else 28) / length, 1 - (62 if end in CONCEPTS else 28) / length
    from_, to = (x + a * (u - x), y + a * (v - y) - 7), (x + b * (u - x), y + b * (v - y) - 7)
    return f'<path class="walk" d="M{from_[0]:.0f} {from_[1]:.0f} L{to[0]:.0f} {to[1]:.0f}"/>'


def photograph(run: Path) -> None:
    """The first screen of a run's report, in both colour schemes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1080, "height": 760}, color_scheme=scheme)
            page.goto((run / "report.html").resolve().as_uri())
            page.screenshot(path=PICTURES / f"report-{scheme}.png")
        browser.close()


def main() -> None:
    """Draw, and photograph if a run is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, metavar="RUN")
    given = parser.parse_args()
    (PICTURES / "walk.svg").write_text(walk(), encoding="utf-8")
    if given.report:
        photograph(given.report)


if __name__ == "__main__":
    main()
