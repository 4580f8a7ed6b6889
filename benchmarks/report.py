"""How long the report's embedding map takes to draw in a browser, and how large the page is.

    python benchmarks/report.py [--quick] [--json FILE]

Cases
-----
draw   seconds from the first call until all maps stand on the screen (WebGL), median of three; the peer draws the very
       same figure with Plotly's ordinary SVG scatter, in the same browser. The goal is 3 s for 17,737 questions.
make   seconds to compute one map (PCA, t-SNE on landmarks, neighbours); the peer is scikit-learn's t-SNE alone on at
       most 4,000 of the same vectors. Left out with --quick.
size   megabytes of report.html; the peer is the limit of 15.

Real data is read from $QCQ_DATA/s2kt_assist09; without it, and with --quick, the simulated classroom stands in. Needs
Chromium on the PATH, which draws without a graphics card here: a real one is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from record import stamped

from qcq.config import Config
from qcq.pipeline import Experiment
from qcq.report import markdown_table
from qcq.report.maps import draw
from qcq.run import Run

Row = dict[str, Any]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--enable-unsafe-swiftshader"]
# The figure on the page, drawn again in a box of its own; two frames later it is on the screen.
DRAW = """async kind => {
  const old = document.getElementById("plot-map"), box = document.createElement("div");
  box.style.width = old.clientWidth + "px";
  document.querySelector("main").append(box);
  const data = old.data.map(t => ({...t, type: kind}));
  const layout = {...old.layout, width: old.clientWidth};
  const began = performance.now();
  await Plotly.newPlot(box, data, layout);
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const seconds = (performance.now() - began) / 1000;
  Plotly.purge(box);
  box.remove();
  return seconds;
}"""


def run_in(folder: Path, quick: bool) -> Run:
    data = Path(os.environ.get("QCQ_DATA", "")) / "s2kt_assist09"
    real = not quick and "QCQ_DATA" in os.environ and data.is_dir()
    simulated = ["data=simulated", f"simulated.questions={2_000 if quick else 17_737}"]
    overrides = ["trainers=svd,concept-onehot,random", "tasks=edges", "seeds=1", "tune=false"]
    return Experiment(Config.load(overrides=[*overrides, *([f"data=s2kt:{data}"] if real else simulated)])).run(folder)


def drawing(run: Run, times: int) -> Row | None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("draw is left out: no Chromium on the PATH")
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto((run.path / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        points = page.evaluate("document.getElementById('plot-map').data.reduce((n, t) => n + t.x.length, 0)")
        seconds = {kind: [page.evaluate(DRAW, kind) for _ in range(times)] for kind in ("scattergl", "scatter")}
        browser.close()
    ours, theirs = (statistics.median(seconds[kind]) for kind in ("scattergl", "scatter"))
    case = f"draw {points:,} points on 3 maps"
    return row(case, "Plotly SVG scatter", metadata.version("plotly"), ours, theirs, "s", theirs / ours)


def making(run: Run) -> Row:
    from sklearn.manifold import TSNE

    emb = run.embeddings("random")
    began = time.perf_counter()
    draw(emb, np.arange(len(emb)))
    ours = time.perf_counter() - began
    some = emb.unit[:4_000]
    began = time.perf_counter()
    TSNE(init="pca", random_state=0).fit_transform(some)
    theirs = time.perf_counter() - began
    case = f"make the map of {len(emb):,} vectors (peer: {len(some):,})"
    return row(case, "scikit-learn TSNE", metadata.version("scikit-learn"), ours, theirs, "s", theirs / ours)


def row(case: str, peer: str, version: str, ours: float, theirs: float, unit: str, ratio: float) -> Row:
    values = {"ours": round(ours, 3), "theirs": round(theirs, 3), "unit": unit, "ratio": round(ratio, 2)}
    return {"benchmark": "report", "case": case, "peer": peer, "peer_version": version, **values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small classroom, once")
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = run_in(Path(folder) / "run", given.quick)
        size = (run.path / "report.html").stat().st_size / 1e6
        rows = [row("size of report.html", "limit", "", size, 15.0, "MB", 15 / size)]
        rows += [r for r in [drawing(run, 1 if given.quick else 3)] if r]
        if not given.quick:
            rows.append(making(run))
    titles = ["case", "peer", "ours", "theirs", "unit", "ratio"]
    print(markdown_table(titles, [[str(r[t]) for t in titles] for r in rows], 2))
    if given.json:
        given.json.write_text(json.dumps(stamped(rows), indent=2) + "\n")


if __name__ == "__main__":
    main()
