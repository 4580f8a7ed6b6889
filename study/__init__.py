"""``qcq study``: five conjectures on why a Transformer lost to skip-gram, each measured and judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from qcq.config import Config
from qcq.errors import ConfigError, EvaluationError, UnknownNameError
from qcq.pipeline import Experiment
from qcq.study.cells import TASKS, Bench, Row
from qcq.study.conjectures import UNJUDGED, rulings
from qcq.study.inquiries import INQUIRIES, SIZES, Found, Inquiry, Size
from qcq.support.files import write_text
from qcq.support.folders import claim, refuse_foreign
from qcq.support.progress import Watch


@dataclass(frozen=True, eq=False)
class Study:
    """All experiments, or some, on the simulated classroom and on data sets of yours.

    Parameters
    ----------
    size : how much is run: a name of ``SIZES`` or a Size of your own.
    data : data sets beside the simulated classroom, as ``qcq run --data`` takes them.
    only : names of the experiments to run; none: all.
    first : the data set that always comes first.

    Examples
    --------
    >>> Study("small").run("runs/study")  # doctest: +SKIP
    """

    size: str | Size
    data: Sequence[str] = ()
    only: Sequence[str] = ()
    first: str | Experiment = "simulated"

    def __post_init__(self) -> None:
        if isinstance(self.size, str) and self.size not in SIZES:
            raise UnknownNameError("size", self.size, SIZES)
        for name in self.only:
            if name not in INQUIRIES:
                raise UnknownNameError("experiment", name, INQUIRIES)

    def run(self, out: str | Path, *, watch: Watch | None = None) -> Row:
        """Run what isn't finished yet; write ``study.json``, ``study.md`` and its figures.

        Parameters
        ----------
        out : folder of the study; finished cells in it are kept and skipped.
        watch : who is told of progress.

        Returns
        -------
        dict : what ``study.json`` holds; :func:`qcq.study.conjectures.rulings` reads the verdicts off it.
        """
        from qcq.study.page import write_study

        watch, out = watch or Watch(), Path(out)
        refuse_foreign(out, "study")
        size = self.size if isinstance(self.size, Size) else SIZES[self.size]
        named = self.size if isinstance(self.size, str) else "of your own"
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(size).items()}
        results: Row = {"size": named, "settings": plain, "qcq": metadata.version("qcq")}
        results |= {"data": {}, "found": {}}
        tasks = (*TASKS, "kt") if size.kt else TASKS
        experiments = [
            source if isinstance(source, Experiment) else Experiment(Config(data=source, tasks=tasks))
            for source in dict.fromkeys([self.first, *self.data])
        ]
        names = [experiment.data.name for experiment in experiments]  # what can't be read fails before anything is run
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ConfigError(f"two data sets are called {twice[0]!r}; give each once")
        benches = [Bench(experiment, watch) for experiment in experiments]
        for bench in benches:
            _ = bench.tasks  # what can't be asked here fails now too
        claim(out, "study")
        for bench in benches:
            results["data"][bench.name] = bench.describe()
            for name in self.only or INQUIRIES:
                results["found"].setdefault(name, {})[bench.name] = _inquire(
                    INQUIRIES[name], size, bench, out / "cells"
                )
                ruled = rulings(results["found"][name], name)[1].get(bench.name, UNJUDGED)
                watch.say(f"{bench.name} · {name}: {ruled.verdict}")
                write_text(out / "study.json", json.dumps(results, indent=1) + "\n")
            write_study(results, out)
        return results


def _inquire(inquiry: Inquiry, size: Size, bench: Bench, folder: Path) -> Row:
    """One experiment on one data set: its cells' rows, its figures, or why there are none."""
    cells = inquiry.cells(size, bench)
    held = {name: [cell.finished(name, bench, folder) for cell in each] for name, each in cells.items()}
    found = Found(
        {name: [row for row, _ in each] for name, each in held.items()},
        {name: [units for _, units in each] for name, each in held.items()},
    )
    out: Row = {"cells": {name: _summary(rows) for name, rows in found.rows.items()}}
    try:
        out["measures"] = {name: asdict(measure) for name, measure in inquiry.measures(found).items()}
    except EvaluationError as error:
        out["why"] = str(error)
    return out


def _summary(rows: Sequence[Row]) -> Row:
    """What the page shows of a cell: means over its seeds."""
    first = next((row for row in rows if "error" in row), rows[0])
    if "scores" not in first:
        return dict(first)
    out: Row = {key: first.get(key) for key in ("objective", "verdict", "readout") if first.get(key) is not None}
    out |= {"seeds": len(rows), "seconds": round(sum(row["seconds"] for row in rows), 1), "tokens": first["tokens"]}
    for key in ("loss", "floor", "excess", "se"):
        if first.get(key) is not None:
            out[key] = float(np.mean([row[key] for row in rows]))
    keys = dict.fromkeys(key for row in rows for key in row["scores"])
    out["scores"] = {k: float(np.mean([row["scores"][k] for row in rows if k in row["scores"]])) for k in keys}
    return out | {key: first[key] for key in ("attention", "window", "backwards") if key in first}
