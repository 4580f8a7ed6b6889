"""A run never replaces another one unasked: what may be added to a finished run, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qcq import cli
from qcq.config import Config
from qcq.errors import ConfigError
from qcq.pipeline import Experiment, run_folds
from qcq.run import Run
from qcq.support.progress import Watch

SMALL = ["simulated.questions=60", "simulated.students=30", "simulated.responses=10", "walk.per_question=2", "dim=4"]
FIRST = [*SMALL, "trainers=random,svd", "tasks=retrieval", "seeds=2", "tune=false"]


class Said(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def added(self) -> list[str]:
        return [line for line in self.lines if "goes on with the run in it" in line]


@pytest.fixture(autouse=True, scope="module")
def _without_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qcq.pipeline.write_page", lambda *_: None)
        yield


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(folder: Path, *changes: str, redo: bool = False, watch: Watch | None = None) -> Run:
    return Experiment(Config.load(overrides=[*FIRST, *changes])).run(folder, redo=redo, watch=watch)


def results(made: Run) -> dict[tuple, float]:
    keys = ("walk", "trainer", "readout", "seed", "task", "metric")
    return {tuple(row[key] for key in keys): row["value"] for row in made.rows("results")}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("earlier") / "run").path


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["trainers=random"], "svd is in it, not here"),
        (["trainers=sgns,random"], "svd is in it, not here"),
        (["seeds=1"], "seed 1 is in it, not here"),
        (["seed=1"], "seed 0 is in it, not here"),
        (["tasks=stability"], "task retrieval is in it, not here"),
        (["tasks=retrieval,edges"], "task edges is new and takes edges out of the graph"),
        (["tasks=retrieval,difficulty"], "task difficulty is new and takes part in the choice of settings"),
        (["dim=8"], "dim is 4 in it, 8 here"),
        (["tune=true"], "tune is False in it, True here"),
        (["svd.power=0.25"], "svd.power is 1.0 in it, 0.25 here"),
        (["simulated.questions=61"], "simulated.questions is 60 in it, 61 here"),
        (["simulated.seed=1"], "simulated.seed is 0 in it, 1 here"),
        (["folds=2", "fold=1"], "folds is 1 in it, 2 here; fold is 0 in it, 1 here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_another_run_is_refused_by_what_differs_and_nothing_is_touched(
    changes: list[str], said: str, folder: Path
) -> None:
    before = contents(folder)
    with pytest.raises(ConfigError) as caught:
        run(folder, *changes)
    text = str(caught.value)
    assert text.startswith(f"{folder}: holds the results of another run ({said}")
    assert text.endswith("; name another folder with --out, or replace that run with --redo")
    assert "\n" not in text
    assert len(text) < 400
    assert contents(folder) == before


def test_the_same_settings_go_on_however_the_data_are_named_or_checked(folder: Path) -> None:
    before = results(Run(folder))
    for changes in ([], ["strict=true"], ["simulated.seed=0"], ["data=simulated"]):
        heard = Said()
        assert results(run(folder, *changes, watch=heard)) == before
        assert not heard.added


def test_what_is_added_is_said_and_nothing_shown_before_is_lost_or_changed(folder: Path) -> None:
    before = results(Run(folder))
    for changes, said in (
        (["trainers=random,svd,sgns"], "adds trainers sgns"),
        (["trainers=random,svd,sgns", "seeds=3"], "adds seeds to 3"),
        (["trainers=random,svd,sgns", "seeds=3", "tasks=retrieval,stability"], "adds tasks stability"),
    ):
        heard = Said()
        after = results(run(folder, *changes, watch=heard))
        assert before.items() <= after.items()
        assert len(after) > len(before)
        assert [line.endswith(said) for line in heard.added] == [True]
        before = after
    with pytest.raises(ConfigError, match="seed 2 is in it, not here; sgns on qcq is in it, not here; task stability"):
        run(folder)


def test_redo_replaces_because_it_was_asked_for(folder: Path) -> None:
    made = run(folder, "trainers=random", "dim=8", redo=True)
    assert {row["trainer"] for row in made.rows("training")} == {"random"}


def test_a_trainer_that_failed_has_no_result_to_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qcq.errors import TrainingError
    from qcq.models.baselines import SVD

    def fail(*_: object) -> None:
        raise TrainingError("diverged")

    with monkeypatch.context() as patch:
        patch.setattr(SVD, "fit", fail)
        made = run(tmp_path / "run")
    assert [row["trainer"] for row in made.rows("training") if "error" in row] == ["svd"]
    assert {row["trainer"] for row in run(tmp_path / "run", "trainers=random").rows("training")} == {"random"}


def test_settings_that_cannot_be_read_are_written_again_by_the_same_command_only(folder: Path) -> None:
    file = folder / "config.toml"
    whole = file.read_bytes()
    file.write_text("trainers = [")
    with pytest.raises(ConfigError, match=r"its settings can't be read: .*config\.toml: not valid TOML"):
        run(folder, "dim=8")
    run(folder)
    assert file.read_bytes() == whole


def test_vectors_of_a_file_that_changed_are_judged_again_and_that_is_said(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.npz", tmp_path / "run"
    for seed in (0, 1):
        np.savez(path, ids=[f"q{i}" for i in range(60)], vectors=np.random.default_rng(seed).standard_normal((60, 4)))
        heard = Said()
        run(out, f"vectors.mine={path}", watch=heard)
        assert [line for line in heard.lines if line.startswith("mine: made from another file")] == [
            "mine: made from another file or by another version, so the results are replaced"
        ] * seed
    with pytest.raises(ConfigError, match="mine is in it, not here"):
        run(out)


def test_no_fold_is_written_if_one_holds_another_run(tmp_path: Path) -> None:
    two = Config.load(overrides=[*FIRST, "folds=2"])
    run_folds(two, tmp_path / "folds")
    (tmp_path / "folds" / "fold-1" / "training.jsonl").unlink()  # nothing to lose in the first
    before = contents(tmp_path / "folds")
    with pytest.raises(ConfigError, match=r"fold-2: holds the results of another run \(dim is 4 in it, 8 here"):
        run_folds(Config.load(overrides=[*FIRST, "folds=2", "dim=8"]), tmp_path / "folds")
    assert contents(tmp_path / "folds") == before


def test_the_command_line_says_it_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for each in FIRST for word in ("--set", each)]
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", *words, "--set", "dim=8", "--out", str(folder), "--quiet"])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "dim is 4 in it, 8 here" in text
    assert json.loads((folder / "about.json").read_text())["finished"]
