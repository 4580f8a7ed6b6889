"""The main job on Ray: what it costs against --jobs on the same cores, and workers killed at random moments.

    python benchmarks/cluster.py --kills 20 --json docs/results/cluster.json

First ``qcq run`` is timed with ``--jobs N`` and with ``--engine ray --jobs N``, by turns, in empty folders; the start
and the end of Ray are part of its time. Then a small run is done on three raylets of this machine (the first without a
CPU), so many times. In each, one worker is killed (SIGKILL) at a moment drawn uniformly over the length of an
undisturbed run. All files are compared with those of one process, as ``benchmarks/faults.py`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from faults import contents
from jobs import differing, timed, vectors
from record import made

from qcq.config import Config
from qcq.engine import RayCluster
from qcq.pipeline import Experiment
from qcq.support.progress import Watch

SMALL = ["walk.length=8", "walk.per_question=2", "mlm.steps=20", "simulated.questions=80", "simulated.students=40"]


class Heard(Watch):
    """Counts the cells that were begun again."""

    again = 0

    def say(self, line: str) -> None:
        self.again += line.endswith("it is begun again")


def working(labels: set[str]) -> list[int]:
    """Process ids of this user's Ray workers that run one of these cells; Ray names a process by its task."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes().split(b"\0")[0].decode().strip()
            if path.stat().st_uid == os.getuid() and name.removeprefix("ray::") in labels and name.startswith("ray::"):
                found.append(int(path.name))
        except OSError:  # it has ended
            continue
    return found


def overhead(home: Path, options: list[str], jobs: int, times: int) -> dict[str, object]:
    """Wall seconds of both engines, and the tables that differ."""
    ways = {"--jobs": ["--jobs", str(jobs)], "--engine ray": ["--engine", "ray", "--jobs", str(jobs)]}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(times):
        for way, more in ways.items():
            seconds[way].append(timed(home / f"{way.strip('-')}-{turn}", [*options, *more]))
            print(f"{way}: {seconds[way][-1]:.1f} s")
    tables = [vectors(home / f"{way.strip('-')}-0") for way in ways]
    ratio = statistics.median(seconds["--engine ray"]) / statistics.median(seconds["--jobs"])
    print(f"--engine ray takes {ratio:.3f} of the time of --jobs {jobs}")
    return {"jobs": jobs, "seconds": seconds, "ratio": ratio, "unlike": differing(*tables)}


def kills(home: Path, times: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """One worker killed a run: the cells begun again, and the files that differ."""
    from ray.cluster_utils import Cluster

    experiment = Experiment(Config.load(overrides=[*SMALL, "dim=8", "seeds=1", "tune=false", "trainers=sgns,mlm,svd"]))
    labels = {cell.label for cell in experiment.plan.cells}
    reference = contents(experiment.run(home / "one").path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    where = RayCluster(cluster.address)
    began = time.perf_counter()
    experiment.run(home / "undisturbed", jobs=where)
    length = time.perf_counter() - began
    found: list[dict[str, object]] = []
    while len(found) < times:
        i = len(found)
        moment, ended, heard = float(rng.uniform(0, length)), threading.Event(), Heard()
        killed: list[float] = []

        def kill(moment: float = moment, ended: threading.Event = ended, killed: list[float] = killed) -> None:
            start = time.perf_counter()
            ended.wait(moment)
            while not ended.wait(0.01):
                if running := working(labels):
                    os.kill(running[int(rng.integers(len(running)))], signal.SIGKILL)
                    killed.append(time.perf_counter() - start)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        run = experiment.run(home / f"run-{i}", jobs=where, watch=heard)
        ended.set()
        killer.join()
        now = contents(run.path)
        unlike = sorted(name for name in {*now, *reference} if now.get(name) != reference.get(name))
        if killed or unlike:  # a run that had ended before the moment is done again
            found.append({"after": killed[0] if killed else None, "begun again": heard.again, "unlike": unlike})
            print(f"{i + 1}: {found[-1]}", flush=True)
        else:
            shutil.rmtree(run.path)
    cluster.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--times", type=int, default=3, help="how often each engine is timed; 0 for not at all")
    parser.add_argument("--data", default="simulated")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--set", action="append", default=["mlm.steps=600"], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    options = ["--data", given.data, "--seeds", str(given.seeds), *(f"--set={s}" for s in given.set)]
    found: dict[str, object] = {"settings": options}
    with tempfile.TemporaryDirectory() as scratch:
        if given.times:
            found["overhead"] = overhead(Path(scratch), options, given.jobs, given.times)
        done = kills(Path(scratch), given.kills, np.random.default_rng(given.seed))
    same, hit = sum(not one["unlike"] for one in done), sum(one["after"] is not None for one in done)
    print(f"{hit} workers were killed; {same} of {given.kills} runs ended with the same bytes")
    if given.json:
        held = {**found, "case": f"{given.kills} kills", "killed": hit, "same": same, "kills": done, "made": made()}
        given.json.write_text(json.dumps(held, indent=1) + "\n")
    if same < given.kills:
        sys.exit(1)


if __name__ == "__main__":
    main()
