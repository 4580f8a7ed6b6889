"""Nothing of the user's is overwritten: a folder that qcq did not make is refused, whoever writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcq
from qcq import cli
from qcq.config import Config
from qcq.corpus import Corpus
from qcq.errors import ConfigError
from qcq.pipeline import Experiment, run_folds
from qcq.study import Study
from qcq.study.experiments import Size
from qcq.support.folders import claim

BANK = "question,name,concepts\nq1,one,halves\nq2,two,halves;thirds\nq3,three,thirds\nq4,four,halves\n"
SMALL = ["trainers=random,svd", "tasks=retrieval", "seeds=1", "walk.per_question=2"]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    folder = tmp_path / "bank"
    folder.mkdir()
    (folder / "questions.csv").write_text(BANK)
    (folder / "concepts.csv").write_text("concept,name,parent\nhalves,Halves,\nthirds,Thirds,halves\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--data", "csv:BANK", "--out", "BANK", *(f"--set={s}" for s in SMALL)],
        ["run", "--data", "simulated", "--out", "BANK", "--set", "folds=2", *(f"--set={s}" for s in SMALL)],
        ["score", "VECTORS", "--data", "csv:BANK", "--out", "BANK", "--tasks", "retrieval"],
        ["walk", "--data", "csv:BANK", "--out", "BANK"],
        ["walk", "--data", "csv:BANK", "--out", "BANK", "--redo"],
        ["study", "--out", "BANK"],
    ],
    ids=lambda command: " ".join(command[:5]),
)
def test_a_folder_of_the_users_is_refused_and_left_alone(command, bank, tmp_path, capsys):
    emb = qcq.Embeddings(["q1", "q2", "q3", "q4"], np.eye(4, dtype=np.float32))
    vectors = emb.save(tmp_path / "vectors.safetensors")
    before = contents(bank)
    with pytest.raises(SystemExit) as stop:
        cli.main([word.replace("BANK", str(bank)).replace("VECTORS", str(vectors)) for word in command])
    assert stop.value.code == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "holds files that qcq did not make ('concepts.csv', 'questions.csv')" in said
    assert "name another folder" in said
    assert contents(bank) == before


def test_figures_and_corpora_too(bank, tmp_path):
    made = Experiment(Config.load(overrides=[*SMALL, f"data=csv:{bank}"])).run(tmp_path / "run")
    before = contents(bank)
    from qcq.report import write_run_figures

    with pytest.raises(ConfigError, match="did not make"):
        write_run_figures(made, bank)
    with pytest.raises(ConfigError, match="did not make"):
        Corpus([np.zeros((1, 2), dtype=np.int32)], 4, 2, "").save(bank)
    with pytest.raises(ConfigError, match="is a file"):
        claim(bank / "questions.csv", "run")
    assert contents(bank) == before


def test_a_run_goes_on_in_its_own_folder_but_not_on_other_data(bank, tmp_path):
    config = Config.load(overrides=[*SMALL, f"data=csv:{bank}"])
    out = tmp_path / "run"
    Experiment(config).run(out)
    Experiment(config).run(out)
    before = contents(out)
    (bank / "questions.csv").write_text(BANK.replace("q4,four,halves", "q4,four,thirds"))  # tagged anew
    with pytest.raises(ConfigError, match=r"holds a run on other data .*--redo"):
        Experiment(config).run(out)
    assert contents(out) == before
    Experiment(config).run(out, redo=True)
    assert contents(out)["about.json"] != before["about.json"]


def test_kinds_of_folders_are_not_taken_for_each_other(tmp_path):
    for one, other in (("run", "study"), ("folds", "run"), ("corpus", "figures")):
        folder = claim(tmp_path / one, one)
        assert claim(folder, one) == folder
        with pytest.raises(ConfigError, match=f"holds a {one}, not a {other}"):
            claim(folder, other)
    with pytest.raises(ConfigError, match="holds a run, not a folds"):
        run_folds(Config.load(overrides=[*SMALL, "folds=2"]), tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run, not a study"):
        Study(Size(steps=1)).run(tmp_path / "run")


def test_an_older_run_says_that_it_is_one(tmp_path):
    for name in ("config.toml", "about.json", "environment.json"):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=r"a run of qcq 0\.1"):
        claim(tmp_path, "run")


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="run: is a link to nothing; name another folder"):
        claim(tmp_path / "run", "run")
