"""What a person sees in a terminal: answers, one-line errors, exit codes, and how much is loaded to say so."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcq import cli
from qcq.config import Config
from qcq.data import Simulated, read
from qcq.errors import ConfigError
from qcq.pipeline import Experiment
from qcq.report.similar import similar
from qcq.run import Run
from qcq.support.progress import Watch
from qcq.support.terminal import Screen

SMALL = [
    "--set",
    "simulated.questions=120",
    "--set",
    "simulated.students=60",
    "--seeds",
    "1",
    "--trainers",
    "svd,random",
]


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    return int(stop.value.code or 0)


def test_list_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom qcq.cli import main\n"
        "try: main(['list', '--json'])\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'gensim', 'numba', 'polars', 'sklearn', 'networkx', 'scipy.sparse')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_list_json_names_all_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    names = {kind: {row["name"] for row in rows} for kind, rows in listed.items()}
    assert {"skipgram", "mlm", "random", "concept-onehot", "svd"} <= names["trainers"]
    assert "qcq" in names["walks"]
    assert {"edges", "difficulty", "retrieval", "stability"} <= names["tasks"]
    assert {"s2kt", "akt", "pebg", "csv", "simulated"} <= names["data"]
    assert all(row["about"] for rows in listed.values() for row in rows)


def test_run_then_similar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    assert call("run", *SMALL, "--out", folder) == 0
    shown = capsys.readouterr()
    assert "| svd" in shown.out
    assert shown.out.splitlines()[-1] == f"report: {folder}/report.html (and report.md)"
    question = json.loads((tmp_path / "run" / "results.jsonl").read_text().splitlines()[0])["dataset"] and "q7"
    assert call("similar", folder, question, "-k", "4", "--json", "--trainer", "svd") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["similar"]) == 4
    assert {"question", "similarity", "name", "concepts", "shared", "tied"} < set(answer["similar"][0])
    assert call("similar", folder, "q7") == 2
    assert "a baseline is taken only by its name; give --trainer with one of svd, random" in capsys.readouterr().err
    assert call("similar", folder, "q7x", "--trainer", "svd") == 2
    assert "did you mean" in capsys.readouterr().err


def test_similar_says_why_a_column_is_missing(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in the settings of a run is as it was given, so from another folder it may lead nowhere."""
    rows = [f"s{s},q{(s * 7 + k) % 12},c{(s * 7 + k) % 3},{(s + k) % 2}" for s in range(30) for k in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["student,question,concepts,correct", *rows]))
    monkeypatch.chdir(tmp_path)
    settings = ["--trainers", "svd", "--tasks", "retrieval", "--seeds", "1", "--quiet"]
    assert call("run", "--data", "log.csv", *settings, "--out", "run") == 0
    capsys.readouterr()
    assert call("similar", "run", "q1", "--trainer", "svd") == 0
    here = capsys.readouterr()
    assert "answered both" in here.out
    assert not here.err
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert call("similar", "../run", "q1", "--trainer", "svd") == 0
    there = capsys.readouterr()
    assert "answered both" not in there.out
    assert "how many students answered both isn't known: log.csv" in there.err


@pytest.mark.parametrize(
    ("args", "key", "kind"),
    [
        (["--trainers", "svd"], "mlm.steps=5", "trainer 'mlm'"),
        (["--walks", "qcq", "--trainers", "svd"], "node2vec.p=2", "walk 'node2vec'"),
        (["--tasks", "edges", "--trainers", "svd"], "kt.epochs=1", "task 'kt'"),
        (["--data", "q.csv", "--trainers", "svd"], "simulated.seed=1", "data format 'simulated'"),
        (["--data", "csv:q.csv", "--trainers", "svd"], "pykt.fold=1", "data format 'pykt'"),
        (["--trainers", "svd,mlm"], "mlm.steps=5", ""),
        (["--data", "q.csv", "--trainers", "svd"], "csv.merge_repeats=true", ""),
        (["--tasks", "kt@a,edges", "--trainers", "svd"], "kt.epochs=1", ""),
    ],
)
def test_a_setting_that_changes_nothing_is_told(args, key, kind, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.csv").write_text("question,concepts\n" + "".join(f"q{i},c{i % 3};c{i % 4}\n" for i in range(20)))
    assert call("run", *args, "--seeds", "1", "--set", key, "--dry-run") == 0
    said = capsys.readouterr().err
    line = f"--set {key.partition('=')[0]} changes nothing: this run has no {kind}"
    assert (line in said.splitlines()) if kind else ("changes nothing" not in said)


ROOM = ["--set", "simulated.questions=120", "--set", "simulated.students=60", "--seeds", "1", "--quiet"]


def test_score_puts_the_truth_first_and_noise_behind_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Simulated(questions=120, students=60).read()
    truth = np.column_stack([data.q_matrix.toarray(), 0.2 * data.truth["difficulty"]])
    turned = list(data.questions)[::-1]  # in any order
    (tmp_path / "truth.json").write_text(json.dumps(dict(zip(turned, truth[::-1].tolist(), strict=True))))
    noise = np.random.default_rng(0).standard_normal((120, 8))
    np.savez(tmp_path / "noise.npz", ids=data.questions, vectors=noise)
    files = [str(tmp_path / "truth.json"), str(tmp_path / "noise.npz")]
    assert call("score", *files, *ROOM, "--tasks", "edges,difficulty", "--out", str(tmp_path / "run")) == 0
    shown = capsys.readouterr().out
    assert "edges mrr: truth beats" in shown
    assert "difficulty r2: truth beats noise" in shown
    for text in (shown, *((tmp_path / "run" / name).read_text() for name in ("report.md", "report.html"))):
        assert "have seen the held-out edges" in text
    made = Run(tmp_path / "run")
    figures = {(r["task"], r["trainer"]): r["value"] for r in made.rows("results") if r["metric"] in ("mrr", "r2")}
    for task in ("edges", "difficulty"):
        mine = {name: value for (t, name), value in figures.items() if t == task}
        assert set(mine) == {"random", "concept-mean", "concept-onehot", "svd", "truth", "noise"}
        assert max(mine, key=mine.__getitem__) == "truth"
    assert made.embeddings("truth").provenance["trainer"]["file"] == files[0]
    assert (made.path / "report.html").is_file()
    assert call("audit", str(made.path), "--quiet") == 0
    assert "2 from files, which can't be checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([f"q{i}" for i in range(119)], "1 of 120 questions have no vector: 'q119'"),
        ([f"q{i}" for i in range(121)], "1 vectors belong to no question of the data set, 'q120' first"),
        ([f"q{i % 60}" for i in range(120)], "60 of 120 question ids occur more than once, 'q0' first"),
        (list(range(120)), "the file's other ids are '0', '1', '2', '3', …; 120 of them would match with 'q' before"),
    ],
)
def test_score_says_what_is_wrong_with_the_ids(
    ids: list, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "v.npz", ids=ids, vectors=np.ones((len(ids), 3)))
    assert call("score", str(tmp_path / "v.npz"), *ROOM, "--out", str(tmp_path / "run")) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {tmp_path / 'v.npz'}: ")
    assert words in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_vectors_are_judged_again_only_where_the_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    said: list[str] = []
    monkeypatch.setattr(Watch, "say", lambda self, line: said.append(line))
    path = tmp_path / "mine.npz"
    room = ["simulated.questions=120", "simulated.students=60", "trainers=random", "tasks=difficulty", "seeds=1"]
    config = Config.load(overrides=[*room, "walks=[]", f"vectors.mine={path}"])
    assert config.vectors == {"mine": str(path)}
    assert Config.load(overrides=[*room, "walks=[]", f"vectors.mine={path}"]).to_dict() == config.to_dict()
    skipped = []
    for seed in (0, 0, 1):
        vectors = np.random.default_rng(seed).standard_normal((120, 4))
        np.savez(path, ids=[f"q{i}" for i in range(120)], vectors=vectors)
        said.clear()
        made = Experiment(config).run(tmp_path / "run")
        skipped.append([line.split(":")[0] for line in said if "finished earlier" in line])
    assert skipped == [[], ["random", "mine"], ["random"]]
    assert np.array_equal(made.embeddings("mine").vectors, vectors.astype(np.float32))
    with pytest.raises(ConfigError, match="no walk given"):
        Config(walks=(), trainers=("skipgram",))


def test_a_table_from_a_file_gets_every_seed_of_a_task_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("write_report", "write_page"):
        monkeypatch.setattr(f"qcq.pipeline.{name}", lambda *_: None)
    np.savez(tmp_path / "mine.npz", ids=[f"q{i}" for i in range(60)], vectors=np.eye(60))
    monkeypatch.setattr("qcq.evaluation.KT.baselines", ())
    room = ["simulated.questions=60", "simulated.students=30", "simulated.responses=10", "trainers=random", "walks=[]"]
    quick = ["kt.epochs=1", "kt.hidden=4", 'kt.tables=["frozen"]', "tasks=retrieval,stability,kt", "seeds=2"]
    made = Experiment(Config.load(overrides=[*room, *quick, f"vectors.mine={tmp_path / 'mine.npz'}"])).run(
        tmp_path / "run"
    )
    mine = {(r["task"], r["metric"], r["seed"]): r["value"] for r in made.rows("results") if r["trainer"] == "mine"}
    assert mine["kt", "auc", 0] != mine["kt", "auc", 1]
    assert mine["retrieval", "map", 0] == mine["retrieval", "map", 1]
    assert not [key for key in mine if key[0] == "stability"]


def test_score_wants_names_that_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("score", "a/v.npz", "b/v.json") == 2
    assert "two files have the same name" in capsys.readouterr().err


def test_quiet_says_only_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", *SMALL, "--out", str(tmp_path / "run"), "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_walk_prints_the_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["walk", "--set", "simulated.questions=120", "--set", "walk.length=7"]
    assert call(*args, "--out", str(tmp_path / "a")) == 0
    first = capsys.readouterr().out
    assert call(*args, "--out", str(tmp_path / "b")) == 0
    digest = json.loads((tmp_path / "a" / "corpus.json").read_text())["digest"]
    assert digest in first
    assert digest in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "--data", "csv:missing-folder"], "missing-folder"),
        (["run", "--trainers", "svdd"], "did you mean svd"),
        (["run", "--set", "walk.lenght=3"], "did you mean"),
        (["run", "missing.toml"], "missing.toml"),
        (["run", "--size", "small"], "no file: no size 'small'; it has none"),
        (["similar", "no-run", "q1"], "no-run: no such folder"),
        (["export", "no-run", "--out", "v.npz"], "no-run: no such run folder or file of vectors"),
        (["export", "no-run", "--out", "v"], "no-run: no such run folder or file of vectors"),
        (["diff", "no-run", "no-run"], "no-run: no such file"),
        (["score", "no-run"], "no-run: no such file"),
        (["inspect", "--walk", "qcp"], "did you mean qcq"),
        (["inspect", "--walk", "qcq,node2vec"], "unknown walk 'qcq,node2vec'"),
        (["walk", "--walk", " qcq"], "unknown walk ' qcq'; did you mean qcq"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    text = capsys.readouterr().err
    assert words in text
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("inspect --set data=bank", "--set data: qcq inspect takes data from --data; give it there"),
        ("split --out S --set seed=5", "--set seed: qcq split takes seed from --seed"),
        ("walk --set walks=node2vec", "--set walks: qcq walk takes walks from --walk"),
        ("walk --set seeds=2", "--set seeds: qcq walk has no use for seeds; leave it out"),
        ("embed --out v.npz --set dim=8", "--set dim: qcq embed takes dim from --dim"),
        ("embed --out v.npz --set trainers=svd", "--set trainers: qcq embed takes trainers from --trainer"),
        ("score v.npz --set data=bank", "--set data: qcq score takes data from --data"),
        ("score v.npz --set trainers=random", "--set trainers: qcq score has no use for trainers"),
        ("score v.npz --set vectors.b=w.npz", "--set vectors: qcq score has no use for vectors"),
        ("score v.npz --seeds 1 --set seeds=2", "seeds is given by --seeds and by --set; give one"),
        ("run --data bank --set data=other", "data is given by --data and by --set; give one"),
        ("run --seeds 1 --set seeds=1", "seeds is given by --seeds and by --set; give one"),
        ("inspect --strict --set strict=false", "strict is given by --strict and by --set; give one"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(
    args: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*args.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")
    assert not list(tmp_path.iterdir())


def test_settings_that_a_command_reads_are_taken() -> None:
    given = ["--set", "simulated.questions=60", "--set", "strict=true"]
    assert call("inspect", *given, "--set", "walk.length=7", "--json") == 0


def test_other_walks_take_the_text_of_earlier_ones_away(tmp_path: Path) -> None:
    walk = ["walk", "--set", "simulated.questions=60", "--set", "simulated.students=0", "--out", str(tmp_path / "w")]
    assert call(*walk, "--text", "--parquet", "--quiet") == 0
    (tmp_path / "w" / "mine.txt").write_text("my own")
    kept = {path.name for path in (tmp_path / "w").iterdir()}
    assert call(*walk, "--redo", "--quiet") == 0  # the same walks: their text is right
    assert {path.name for path in (tmp_path / "w").iterdir()} == kept
    assert call(*walk, "--redo", "--seed", "1", "--quiet") == 0
    assert kept - {path.name for path in (tmp_path / "w").iterdir()} == {"corpus.txt", "vocab.txt", "walks.parquet"}


INTERRUPT = """
import os, signal, sys, threading
import qcq.data, qcq.pipeline, qcq.cli
def stop(*_, **__):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    threading.Event().wait(60)
qcq.data.load = qcq.pipeline._data.load = stop
qcq.cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("args", "more"),
    [
        (["run", "--quiet"], "; the same command goes on where it was stopped"),
        (["walk"], "; the same command goes on where it was stopped"),
        pytest.param(["run", "--redo"], "", marks=pytest.mark.slow),
        pytest.param(["inspect", "--json"], "", marks=pytest.mark.slow),
    ],
)
def test_an_interruption_is_one_line_and_exit_130(name: str, args: list[str], more: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", INTERRUPT, name, *args]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"interrupted{more}\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_is_whole_on_a_stream_of_few_characters(encoding: str, tmp_path: Path) -> None:
    names = ["проблема", "é", "𝄞"]
    np.savez(tmp_path / "v.npz", ids=names, vectors=np.eye(3) + 0.1)
    code = "import sys; from qcq.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "similar", str(tmp_path / "v.npz"), names[0], "--json"]
    # Arguments are read by the locale, output is written by PYTHONIOENCODING alone.
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    done = subprocess.run(words, capture_output=True, env=environment, check=True)
    told = json.loads(done.stdout.decode(encoding))
    assert {told["question"], *(each["question"] for each in told["similar"])} == set(names)


@pytest.mark.parametrize("args", [["inspect", "--data", "b\udcff"], ["walk", "--out", "o\udcff"]])
def test_a_name_that_is_not_utf_8_is_refused_before_any_work(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    assert capsys.readouterr().err == f"error: {args[-1]!r}: not UTF-8; rename the file, or write the word as UTF-8\n"
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback() -> None:
    from qcq.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        cli.main(["run", "--trainers", "svdd", "--debug"])


def test_inspect_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "--set", "simulated.questions=120", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["floors"]["stationary"]["next_question"] <= found["ln_q"]


def test_the_exit_code_stays_where_the_error_can_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qcq.cli.err.print", full)
    assert call("list", "nothing-of-this-name") == 2


def test_a_width_of_nothing_hides_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """COLUMNS=0, as some systems set it where there is no terminal."""
    monkeypatch.setenv("COLUMNS", "0")
    written = io.StringIO()
    Screen(soft_wrap=True, file=written).print("every word")
    assert written.getvalue() == "every word\n"
    assert call("--help") == 0
    assert "similar" in capsys.readouterr().out


def test_pipeline_script_is_qcq_run(tmp_path: Path) -> None:
    script = Path(cli.__file__).parents[1] / "pipeline.py"
    done = subprocess.run(
        [sys.executable, str(script), *SMALL, "--out", "made"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "report.md").is_file()


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it was stopped"),
        (OSError(28, "No space left on device", "cells"), 2, "error: cells: No space left on device; finished work is"),
        (MemoryError(), 2, "error: not enough memory; finished work is kept."),
        (ConfigError("[red]x[/red]: no [/b]"), 2, "error: [red]x[/red]: no [/b]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_ends_a_command_is_one_line_and_an_exit_code(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "_commands", lambda: end)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        cli.main(["run"])
    assert repr(stop.value) == repr(SystemExit(code))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)
    assert told.err.count("\n") == 1


def test_the_code_that_typer_makes_of_ctrl_c_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for code, said in ((130, "interrupted"), (1, ""), (None, "")):
        monkeypatch.setattr(cli, "_commands", lambda made=code: lambda *_, **__: made)
        assert call("inspect") == (code or 0)
        assert capsys.readouterr().err.strip() == said


def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "_commands", lambda: lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert call("run") == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_similar_looks_whether_the_data_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers are found by a question's row: in a file of another order they would be those of other questions."""
    monkeypatch.chdir(tmp_path)
    bank, answers = tmp_path / "bank" / "questions.csv", tmp_path / "bank" / "interactions.csv"
    bank.parent.mkdir()
    questions = [f"q{i},c{i % 3}" for i in range(12)]
    bank.write_text("\n".join(["question,concepts", *questions]))
    rows = [f"s{s},q{(s + k) % 12},{(s + k) % 2}" for s in range(30) for k in range(6)]
    answers.write_text("\n".join(["student,question,correct", *rows]))
    settings = ["--trainers", "svd", "--tasks", "retrieval", "--seeds", "1", "--quiet"]
    assert call("run", "--data", "bank", *settings, "--out", "run") == 0
    asked = ("similar", "run", "q1", "--trainer", "svd")
    assert call(*asked, "--unseen-by", "s0", "-k", "2") == 0
    bank.write_text("\n".join(["question,concepts", *reversed(questions)]))
    capsys.readouterr()
    assert call(*asked, "--unseen-by", "s0") == 2
    assert "run: its data have changed since (digest" in capsys.readouterr().err
    assert call(*asked) == 0
    said = capsys.readouterr()
    assert "answered both" not in said.out
    assert "how many students answered both isn't known: run: its data have changed since" in said.err
    with pytest.raises(ConfigError, match="its data have changed since: other questions, or another order"):
        similar(Run.open("run"), "q1", trainer="svd", data=read("bank"))


def test_of_a_trainer_the_walk_that_is_best_on_validation_is_taken(tmp_path: Path, capsys) -> None:
    """The run's first walk was taken."""
    folder = tmp_path / "run"
    words = ["--walks", "just,qcq", "--trainers", "ppmi-svd", "--tasks", "edges", "--seeds", "1", "--quiet"]
    assert call("run", *SMALL[: SMALL.index("--trainers")], *words, "--out", str(folder)) == 0
    run = Run.open(folder)
    score = {row["walk"]: row["score"] for row in run.rows("tuning") if row["chosen"]}
    best = max(score, key=score.__getitem__)
    worst = min(score, key=score.__getitem__)
    table = (folder / "tuning.jsonl").read_text().splitlines(keepends=True)
    (folder / "tuning.jsonl").write_text("".join(sorted(table, key=lambda row: json.loads(row)["walk"] == best)))
    training = (folder / "training.jsonl").read_text().splitlines(keepends=True)
    (folder / "training.jsonl").write_text("".join(sorted(training, key=lambda row: json.loads(row)["walk"] == best)))
    assert run.best(trainer="ppmi-svd") == ("ppmi-svd", best)
    assert run.trained("ppmi-svd")["walk"] == best
    assert run.trained("ppmi-svd", walk=worst)["walk"] == worst
    capsys.readouterr()
    assert call("similar", str(folder), "q1", "--trainer", "ppmi-svd") == 0
    assert f"q1, vectors of ppmi-svd on {best}" in capsys.readouterr().out
    assert call("diff", str(folder), str(folder), "--trainer", "ppmi-svd") == 0
    assert f"A: ppmi-svd on {best}; B: ppmi-svd on {best}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="unknown table 'reslts'; did you mean results"):
        run.rows("reslts")
    with pytest.raises(ConfigError, match="no such folder"):
        Run(tmp_path / "none").frame()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("embed --dat x", r"error: no such option: --dat .*--data.*; see qcq embed --help"),
        ("embd", r"error: no such command 'embd'; did you mean 'embed'; see qcq --help"),
        ("similar", r"error: missing argument 'RUN-or-FILE'; see qcq similar --help"),
        ("embed --dim x", r"error: invalid value for '--dim': .*; see qcq embed --help"),
    ],
)
def test_a_misspelt_word_is_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words.split())
    assert left.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(said, shown.err.strip())


def test_no_word_at_all_is_asked_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([])
    shown = capsys.readouterr()
    assert "Usage:" in shown.out + shown.err
    assert "error" not in shown.err
