"""Experiment trackers: losses, floors, figures and the report of a run, sent to one while it runs.

A tracker is whatever has the three functions of wandb: ``init(project=, name=, config=)``, ``log({name: value})`` and
``finish()``. It reads along: no byte of a run depends on it, and the run goes on without one that fails.
"""

from __future__ import annotations

import html
import importlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from qcq.errors import ConfigError
from qcq.report.comparison import comparison, standings
from qcq.run import Run
from qcq.support.progress import Progress, Watch
from qcq.support.registry import Registry

PROJECT = "qcq"


class Tracker(Protocol):
    """What gets the figures of a run: wandb, Trackio, or an object with these three functions."""

    def init(self, *, project: str, name: str, config: dict[str, Any]) -> Any:
        """A run begins, with these settings."""

    def log(self, values: dict[str, Any], /) -> Any:
        """Figures by name; a report is text in Markdown."""

    def finish(self) -> Any:
        """The run has ended, or was interrupted."""


@dataclass(frozen=True)
class ModuleTracker:
    """A module with wandb's functions, and the form in which it shows text.

    References
    ----------
    https://docs.wandb.ai/ref/python and https://huggingface.co/docs/trackio
    """

    module: Any
    text: Callable[[str], Any]

    def init(self, **about: Any) -> None:
        self.module.init(**about)

    def log(self, values: Mapping[str, Any], /) -> None:
        self.module.log({k: self.text(v) if isinstance(v, str) else v for k, v in values.items()})

    def finish(self) -> None:
        self.module.finish()


class MLflow:
    """MLflow by its own client: settings as parameters, figures as metrics, reports as files.

    It writes where MLflow's own variable ``MLFLOW_TRACKING_URI`` says.

    References
    ----------
    https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html
    """

    def __init__(self, module: Any) -> None:
        self._entities = importlib.import_module("mlflow.entities")
        self._client, self._run, self._step = module.MlflowClient(), "", 0

    def init(self, *, project: str, name: str, config: dict[str, Any]) -> None:
        found = self._client.get_experiment_by_name(project)
        experiment = self._client.create_experiment(project) if found is None else found.experiment_id
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        given = [self._entities.Param(_plain(key), str(value)) for key, value in _flat(config)]
        for at in range(0, len(given), 100):  # as many as one request may have
            self._client.log_batch(self._run, params=given[at : at + 100])

    def log(self, values: Mapping[str, Any], /) -> None:
        self._step += 1
        now, metrics = int(time.time() * 1000), []
        for key, value in values.items():
            if isinstance(value, str):
                self._client.log_text(self._run, value, f"{_plain(key)}.md")
            else:
                metrics.append(self._entities.Metric(_plain(key), value, now, self._step))
        for at in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[at : at + 1000])

    def finish(self) -> None:
        self._client.set_terminated(self._run)


def _plain(name: str) -> str:
    """A name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]+", "-", name, flags=re.ASCII)


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


class Known(NamedTuple):
    """A tracker by its package.

    Attributes
    ----------
    package : what is imported and installed.
    open : the module → the tracker.
    """

    package: str
    open: Callable[[Any], Tracker]


TRACKERS: Registry[Known] = Registry(
    "tracker",
    {
        "wandb": Known(
            "wandb", lambda wandb: ModuleTracker(wandb, lambda s: wandb.Html(f"<pre>{html.escape(s)}</pre>"))
        ),
        "trackio": Known("trackio", lambda trackio: ModuleTracker(trackio, trackio.Markdown)),
        "mlflow": Known("mlflow", MLflow),
    },
)


def open_tracker(name: str) -> Tracker:
    """The tracker of this name.

    Raises
    ------
    UnknownNameError : there is none.
    ConfigError : its package isn't installed.
    """
    known = TRACKERS[name]
    try:
        module = importlib.import_module(known.package)
    except ImportError as error:
        if error.name != known.package:
            raise ConfigError(f"{known.package} can't be imported ({error}); install it again") from None
        raise ConfigError(f"{known.package} isn't installed; install it with: pip install {known.package}") from None
    return known.open(module)


class Tracked(Watch):
    """A watch that also sends what it sees to a tracker.

    Whatever the tracker raises is said in one line, and it gets nothing more.
    """

    def __init__(self, tracker: Tracker, watch: Watch) -> None:
        self.tracker, self.watch, self.works = tracker, watch, True

    def say(self, line: str) -> None:
        self.watch.say(line)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        with self.watch.progress(label) as shown:

            def tell(done: int, total: int, **figures: float | str) -> None:
                shown(done, total, **figures)
                if "loss" in figures:
                    self.send({f"{label}/step": done, **{f"{label}/{key}": x for key, x in figures.items()}})

            yield tell

    def send(self, values: Mapping[str, Any]) -> None:
        """Log numbers and text; what isn't a number yet (no floor, not finite) is left out."""
        held = {k: v for k, v in values.items() if isinstance(v, int) or (isinstance(v, float) and math.isfinite(v))}
        if held:
            self.attempt("log", held)

    def attempt(self, what: str, *args: Any, **options: Any) -> None:
        """Call a function of the tracker, if nothing has failed yet."""
        if not self.works:
            return
        try:
            with redirect_stdout(sys.stderr):  # what it prints is no result of the command
                getattr(self.tracker, what)(*args, **options)
        except Exception as error:  # whatever a tracker may raise: it is no reason to lose a run
            self.works = False
            why = next(iter(str(error).splitlines()), "") or "no reason given"
            self.say(
                f"doubtful: the tracker failed in {what} ({type(error).__name__}: {why}); the run goes on without it"
            )


@contextmanager
def tracked(tracker: Tracker | None, watch: Watch, runs: Sequence[Run]) -> Iterator[Watch]:
    """The watch to use while runs are made; their figures and reports are sent when the block has ended.

    Several runs are the folds of one: they are one run of the tracker, in which the fold stands before a figure's name.

    Parameters
    ----------
    tracker : None for none.
    watch : sees everything as before.
    runs : described already, in their folders.
    """
    if tracker is None:
        yield watch
        return
    made, first = Tracked(tracker, watch), runs[0]
    name = first.path.name if len(runs) == 1 else first.path.parent.name
    made.attempt("init", project=PROJECT, name=name, config=first.config)
    begun = made.works
    try:
        yield made
        for run in runs:
            before = "" if len(runs) == 1 else f"{run.path.name}/"
            made.send({before + key: value for key, value in figures(run).items()})
            made.attempt("log", {f"{before}report": (run.path / "report.md").read_text(encoding="utf-8")})
    finally:
        if begun:
            made.works = True  # it is closed even if it failed
            made.attempt("finish")


def figures(run: Run) -> dict[str, float]:
    """The table of a finished run by name: means over seeds, intervals over units, losses, floors.

    ``svd on qcq/edges auc``, with ``… low`` and ``… high``; ``mlm on qcq/loss``, ``mlm on qcq/floor``.
    """
    table, out = comparison(run), {}
    for line, places in zip(table.lines, standings(run, table), strict=True):
        if line.error:
            continue
        for column, values, place in zip(table.columns[3:], line.values, places, strict=True):
            name = f"{line.label}/{column.title}"
            if values:
                out[name] = float(np.mean(values))
            if place.low is not None and place.high is not None:
                out |= {f"{name} low": place.low, f"{name} high": place.high}
        rows = [r for r in run.rows("training") if (r["walk"], r["trainer"]) == (line.walk, line.trainer)]
        for key in ("loss", "floor"):
            if held := [row[key] for row in rows if row[key] is not None]:
                out[f"{line.label}/{key}"] = float(np.mean(held))
    return out
