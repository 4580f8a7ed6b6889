"""Trackers: what they get, that they change nothing, that one that fails loses nothing; and two released ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qcq
from qcq import cli
from qcq.config import Config
from qcq.errors import ConfigError, UnknownNameError
from qcq.pipeline import Experiment, run_folds
from qcq.report.tracking import TRACKERS, figures, open_tracker
from qcq.run import Run
from qcq.support.progress import Watch

SETTINGS = ["simulated.questions=60", "simulated.students=40", "simulated.responses=20", "walk.length=8", "tune=false"]


def config(*more: str) -> Config:
    options = {"trainers": ("svd", "mlm"), "tasks": ("edges", "difficulty"), "seeds": 1}
    given = {each.partition("=")[0] for each in more}
    options = {key: value for key, value in options.items() if key not in given}
    return Config.load(None, [*SETTINGS, "mlm.steps=20", *more], **options)


class Fake:
    """Keeps what it is told; raises in the call of the given name."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, []

    def _told(self, name: str, given: Any) -> None:
        self.calls.append((name, given))
        if name == self.fails:
            raise RuntimeError(f"{name} has no network\nand more")

    def init(self, **about: Any) -> None:
        self._told("init", about)

    def log(self, values: dict[str, Any]) -> None:
        self._told("log", dict(values))

    def finish(self) -> None:
        self._told("finish", None)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [given for name, given in self.calls if name == "log"]


class Heard(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without a tracker."""
    return Experiment(config()).run(tmp_path_factory.mktemp("plain") / "run")


def same(one: Run, other: Run) -> None:
    """All but times, and the memory and places of the two runs."""
    for name in ("results", "tuning", "curves"):
        assert one.rows(name) == other.rows(name)
    timed = ("seconds", "peak_rss_mb")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in run.rows("training")] for run in (one, other)]
    assert rows[0] == rows[1]
    for name in ("config.toml", "about.json", "questions.csv"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    tables = sorted((one.path / "embeddings").glob("*.safetensors"))
    assert tables
    assert all(each.read_bytes() == (other.path / "embeddings" / each.name).read_bytes() for each in tables)


def test_a_tracker_gets_losses_floors_figures_and_the_report_and_changes_nothing(plain: Run, tmp_path: Path) -> None:
    fake = Fake()
    run = Experiment(config()).run(tmp_path / "run", tracker=fake)
    same(plain, run)
    assert fake.calls[0] == ("init", {"project": "qcq", "name": "run", "config": run.config})
    assert fake.calls[-1] == ("finish", None)
    assert [name for name, _ in fake.calls].count("init") == 1
    *steps, table, report = fake.logged
    for row in run.rows("curves"):
        told = {f"qcq · mlm, seed 0/{key}": row[key] for key in ("step", "loss", "floor", "excess")}
        told = {key: value for key, value in told.items() if value is not None}
        assert any(told.items() <= each.items() for each in steps)
    assert len(steps) == len(run.rows("curves"))
    assert report == {"report": (run.path / "report.md").read_text(encoding="utf-8")}
    (trained,) = (row for row in run.rows("training") if row["trainer"] == "mlm")
    assert [table[f"mlm on qcq/{key}"] for key in ("loss", "floor")] == [trained["loss"], trained["floor"]]
    for row in run.rows("results"):
        if (row["metric"], row["readout"]) == ("mrr", trained["readout"]) and row["trainer"] == "mlm":
            assert table["mlm on qcq/edges mrr"] == row["value"]
            assert table["mlm on qcq/edges mrr low"] <= row["value"] <= table["mlm on qcq/edges mrr high"]
    assert {type(value) for each in (*steps, table) for value in each.values()} <= {int, float}


@pytest.mark.parametrize("fails", ["log", *(pytest.param(name, marks=pytest.mark.slow) for name in ("init", "finish"))])
def test_a_tracker_that_fails_is_one_line_and_loses_nothing(fails: str, plain: Run, tmp_path: Path) -> None:
    fake, heard = Fake(fails), Heard()
    run = Experiment(config()).run(tmp_path / "run", tracker=fake, watch=heard)
    same(plain, run)
    assert run.finished
    said = [line for line in heard.lines if "tracker" in line]
    why = f"RuntimeError: {fails} has no network"
    assert said == [f"doubtful: the tracker failed in {fails} ({why}); the run goes on without it"]
    called = [name for name, _ in fake.calls]
    assert called[-1] == ("init" if fails == "init" else "finish")  # what was begun is closed
    assert called.count("log") == {"init": 0, "log": 1}.get(fails, called.count("log"))


def test_an_interrupted_run_is_closed_at_the_tracker(tmp_path: Path) -> None:
    class Stops(Fake):
        def log(self, values: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    fake = Stops()
    with pytest.raises(KeyboardInterrupt):
        Experiment(config()).run(tmp_path / "run", tracker=fake)
    assert [name for name, _ in fake.calls] == ["init", "finish"]


@pytest.mark.slow
def test_processes_report_to_the_tracker_too(plain: Run, tmp_path: Path) -> None:
    fake = Fake()
    same(plain, Experiment(config()).run(tmp_path / "run", tracker=fake, jobs=2))
    assert any("qcq · mlm, seed 0/loss" in each for each in fake.logged)


def test_folds_are_one_run_of_the_tracker(tmp_path: Path) -> None:
    fake = Fake()
    runs = run_folds(config("folds=2", "trainers=svd"), tmp_path / "folds", tracker=fake)
    assert [name for name, _ in fake.calls].count("init") == 1
    assert fake.calls[0][1]["name"] == "folds"
    told = {key: value for each in fake.logged for key, value in each.items()}
    for run in runs:
        assert told[f"{run.path.name}/report"] == (run.path / "report.md").read_text(encoding="utf-8")
        assert {f"{run.path.name}/{key}": value for key, value in figures(run).items()}.items() <= told.items()


def test_a_tracker_that_is_not_there_is_one_line_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
        with pytest.raises(ConfigError, match=rf"{name} isn't installed; install it with: pip install {name}"):
            open_tracker(name)
    with pytest.raises(UnknownNameError, match="did you mean wandb"):
        open_tracker("wandbb")
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--track", "trackio", "--out", "run"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: trackio isn't installed; install it with: pip install trackio"
    ]
    assert not list(tmp_path.iterdir())


def test_wandb_gets_text_as_html(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in with the same functions, because wandb itself wants an account."""
    fake = Fake()
    fake.Html = lambda text: ("html", text)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    Experiment(config("trainers=svd")).run(tmp_path / "run", tracker=open_tracker("wandb"))
    kind, text = fake.logged[-1]["report"]
    assert kind == "html"
    assert text.startswith("<pre># simulated")


def test_the_page_has_every_tracker() -> None:
    page = (Path(qcq.__file__).parent / "docs" / "interop.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| .+ \| `qcq run --track (\w+)` \|$", page, flags=re.MULTILINE)) == set(TRACKERS)


# --- the released tools themselves, where they are installed ----------------------------------------------------------


def command(tracker: str, tmp_path: Path) -> Run:
    """``qcq run --track``, on a small classroom."""
    options = [word for each in (*SETTINGS, "mlm.steps=20") for word in ("--set", each)]
    args = ["--trainers", "svd,mlm", "--tasks", "edges,difficulty", "--seeds", "1", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--track", tracker, *args, *options, "--quiet"])
    assert stop.value.code == 0
    return Run(tmp_path / "run")


@pytest.mark.tools
def test_mlflow_itself_keeps_the_run(plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    run = command("mlflow", tmp_path)
    same(plain, run)
    assert "doubtful: the tracker" not in capsys.readouterr().err
    client = mlflow.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("qcq").experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "run"
    assert kept.data.params["mlm.steps"] == "20"
    table = figures(run)
    assert kept.data.metrics["mlm on qcq/floor"] == pytest.approx(table["mlm on qcq/floor"])
    losses = [each.value for each in client.get_metric_history(kept.info.run_id, "qcq - mlm- seed 0/loss")]
    assert losses == pytest.approx([row["loss"] for row in run.rows("curves")])
    text = client.download_artifacts(kept.info.run_id, "report.md")
    assert Path(text).read_text(encoding="utf-8") == (run.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.tools
def test_trackio_itself_keeps_the_run(plain: Run, tmp_path: Path) -> None:
    """In processes of its own, because Trackio reads where its store is when it is imported."""
    pytest.importorskip("trackio", reason="needs trackio")
    options = [word for each in (*SETTINGS, "mlm.steps=20") for word in ("--set", each)]
    args = [
        "run",
        "--track",
        "trackio",
        "--trainers",
        "svd,mlm",
        "--tasks",
        "edges,difficulty",
        "--seeds",
        "1",
        *options,
    ]
    done = python(f"from qcq.cli import main; main({[*args, '--out', 'run']!r})", tmp_path)
    assert "doubtful: the tracker" not in done.stderr
    assert "Trackio" not in done.stdout  # what it prints is no result
    run = Run(tmp_path / "run")
    same(plain, run)
    code = "from trackio.sqlite_storage import SQLiteStorage; import json; "
    kept = json.loads(python(code + "print(json.dumps(SQLiteStorage.get_logs('qcq', 'run')))", tmp_path).stdout)
    told = {key: value for row in kept for key, value in row.items()}
    assert figures(run).items() <= told.items()
    losses = [row["qcq · mlm, seed 0/loss"] for row in kept if "qcq · mlm, seed 0/loss" in row]
    assert losses == [row["loss"] for row in run.rows("curves")]
    assert (run.path / "report.md").read_text(encoding="utf-8")[:30] in json.dumps(told["report"], ensure_ascii=False)


def python(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRACKIO_DIR": str(home / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_wandb_shows_text_as_it_is() -> None:
    fake = Fake()
    fake.Html = lambda text: text  # type: ignore[attr-defined]
    TRACKERS["wandb"].open(fake).log({"report": "<img src=x> & more"})
    assert fake.logged[-1]["report"] == "<pre>&lt;img src=x&gt; &amp; more</pre>"
