"""Published tracers: what they are handed, what they are asked, planted truth, leaks, and their place in a report."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import ttest_1samp

import qcq
from qcq.config import Config
from qcq.data import Dataset, Simulated
from qcq.data.assembly import interactions
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EvaluationError, TrainingError
from qcq.evaluation import TASKS, KTPeer, Partition, paired_bootstrap
from qcq.evaluation.tracing.peer import OWN, PEERS, KTPeerSettings
from qcq.evaluation.tracing.tasks import FIGURES, Attempts, principal
from qcq.evaluation.tracing.toolkit import ENOUGH_CONCEPT, ENOUGH_QUESTION, LEVELS, Peer, Windows, _concepts, _levels
from qcq.pipeline import Experiment
from qcq.report import beside_baselines, comparison

QUICK: dict[str, Any] = {"epochs": 4, "dim": 16, "batch": 16, "lr": 1e-2, "length": 30}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Simulated(questions=100, concepts=8, students=200, responses=40, sets=12, seed=3).read()


@pytest.fixture(scope="module")
def partition(data) -> Partition:
    return Partition.make(data, seed=0)


@pytest.fixture(scope="module")
def attempts(partition) -> Attempts:
    return Attempts(partition, "kt-peer")


def oracle(partition) -> Embeddings:
    """Concepts and the planted difficulty."""
    data = partition.dataset
    vectors = np.column_stack([data.q_matrix.toarray(), 0.3 * data.truth["difficulty"]])
    return Embeddings(partition.graph.questions, vectors.astype(np.float32))


def chance(partition, dim=9) -> Embeddings:
    drawn = np.random.default_rng(0).standard_normal((partition.graph.n_questions, dim))
    return Embeddings(partition.graph.questions, drawn.astype(np.float32))


# --- without the toolkit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 100])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_attempt_is_asked_once_and_windows_are_no_longer_than_allowed(steps, overlap):
    lengths = [1, 7, 8, 9, 30, 2, 16]
    student = np.repeat(np.arange(len(lengths)), lengths)
    part = interactions(student, np.arange(len(student)) % 5, np.arange(len(student)) % 2)
    windows = Windows(part, steps, overlap)
    asked = np.concatenate([np.arange(a, b) for a, b in zip(windows.since, windows.stop, strict=True)])
    assert sorted(asked) == list(range(len(student)))
    for start, since, stop in zip(windows.start, windows.since, windows.stop, strict=True):
        assert 0 < stop - start <= steps
        assert len(set(student[start:stop])) == 1
        first = start == 0 or student[start - 1] != student[start]
        if overlap and not first:
            assert since - start >= steps // 2
    for rng in (None, np.random.default_rng(0)):
        seen = np.concatenate(list(windows.batches(3, rng)))
        assert sorted(seen) == list(range(len(windows.start)))
    places = windows.places(np.arange(len(windows.start)))
    for row, start, stop in zip(places, windows.start, windows.stop, strict=True):
        assert row[row >= 0].tolist() == list(range(start, stop))
        assert (row[stop - start :] == -1).all()


def test_every_row_and_column_of_the_concept_table_has_an_entry(partition):
    graph = partition.graph
    weights = graph.weights.toarray().copy()
    weights[3], weights[:, 2] = 0, 0  # a question without concepts, and a concept without questions
    held = _concepts(replace(graph, weights=graph.weights.__class__(weights)))
    assert held.shape == (graph.n_questions + 1, graph.n_concepts)
    assert held.any(axis=0).all()
    alone = [3, graph.n_questions, *np.flatnonzero(~(weights > 0).any(axis=1))]
    assert held[alone].sum(axis=1).tolist() == held[alone, -1].tolist() == [1] * len(alone)
    others = np.setdiff1d(np.arange(graph.n_questions), alone)
    assert np.array_equal(held[others, :-1], (np.delete(weights, 2, axis=1) > 0)[others])
    assert not held[others, -1].any()


def test_levels_of_difficulty_are_those_of_training_students(attempts):
    table = _concepts(attempts.graph)
    of_question, of_concept = _levels(attempts.train, table)
    r = attempts.train.interactions
    own = LEVELS
    for question in range(attempts.graph.n_questions + 1):
        answers = r.correct[r.question == question].tolist()
        level = int((LEVELS - 1) * sum(answers) / len(answers)) if len(answers) >= ENOUGH_QUESTION else own
        own += len(answers) < ENOUGH_QUESTION
        assert of_question[question] == level
    assert own > LEVELS + 1, "no question with few answers"
    for concept in range(table.shape[1]):
        answers = r.correct[table[r.question, concept] > 0].tolist()
        few = len(answers) < ENOUGH_CONCEPT
        assert of_concept[concept] == (LEVELS if few else int((LEVELS - 1) * sum(answers) / len(answers)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("model=simplKT", r"setting kt-peer\.model: unknown model 'simplKT'; did you mean simpleKT\b.*\(known: qDKT, "),
        ("model=dimkt", r"did you mean DIMKT\b"),
        ("model=42x", r"unknown model '42x'; \(known: qDKT"),
        ("dim=30", r"setting kt-peer\.dim: simpleKT has 4 heads; give a multiple of 4, not 30"),
        ("tables=[]", r"setting kt-peer\.tables: none given; name some of frozen"),
        ("device=gpu", r"setting kt-peer\.device: input should be 'auto', 'cpu' or 'cuda'"),
        ("length=2", r"setting kt-peer\.length: "),
    ],
)
def test_bad_settings_are_one_line(given, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Config.load(None, ["tasks=kt-peer", f"kt-peer.{given}"])
    assert "\n" not in str(caught.value)


def test_settings_come_back_from_a_file():
    made = Config.load(None, ["tasks=kt-peer", "kt-peer.model=QIKT", "kt-peer.dim=8"])
    assert made.to_dict()["kt-peer"]["model"] == "QIKT"
    assert made.task_settings()["kt-peer"] == KTPeerSettings(model="QIKT", dim=8)
    several = Config.load(
        None, ["tasks=kt-peer,kt-peer@hard", "kt-peer.epochs=2", "kt-peer@hard.model=DIMKT", "kt-peer@hard.dim=8"]
    )
    assert several.task_settings() == {
        "kt-peer": KTPeerSettings(epochs=2),
        "kt-peer@hard": KTPeerSettings(model="DIMKT", epochs=2, dim=8),
    }
    assert [spec.name for spec in several.task_specs()] == ["kt-peer", "kt-peer@hard"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tasks=kt-per@a"], "unknown task 'kt-per@a'; did you mean kt-peer"),
        (["tasks=kt-peer@a", "kt-peer@b.dim=8"], "unknown section 'kt-peer@b'; did you mean kt-peer@a"),
        (["tasks=kt-peer@a", "kt-peer@a.dims=8"], "unknown setting 'kt-peer@a.dims'; did you mean kt-peer@a.dim"),
        (["tasks=kt-peer@a", "kt-peer@a.model=qkt"], r"setting kt-peer@a\.model: unknown model 'qkt'; did you mean"),
        (["tasks=kt-peer@a,kt-peer@a"], "task 'kt-peer@a' is given twice"),
    ],
)
def test_a_wrong_label_or_a_setting_of_it_is_named(given, said):
    with pytest.raises(ConfigError, match=said):
        Config.load(None, given)


def test_without_the_toolkit_one_line_says_how_to_get_it(partition, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "edmine" else find(name, *more)
    )
    assert "kt-peer" in TASKS
    with pytest.raises(ConfigError, match=r"kt-peer: edmine isn't installed; install it with: pip install 'qcq\[kt\]'"):
        TASKS["kt-peer"](partition)


@pytest.mark.parametrize(("batch", "less"), [(64, "batch=32"), (1, "device=cpu")])
def test_a_device_without_room_is_one_line_that_says_what_to_lower(batch, less):
    peer = object.__new__(Peer)
    peer.device, peer.published, peer.plan = "cuda", PEERS["AKT"], KTPeerSettings(model="AKT", batch=batch)
    with (
        pytest.raises(TrainingError, match=rf"cuda is out of memory in epoch 3 \(CUDA out.*\); use kt-peer.{less}$"),
        peer._guarded(lambda: "in epoch 3"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")


def test_responses_without_order_are_refused(data):
    loose = replace(data, interactions=replace(data.interactions, ordered=False))
    with pytest.raises(EvaluationError, match="kt-peer: the responses of simulated have no order"):
        TASKS["kt-peer"](Partition.make(loose))


class Known:
    """Predicts each question's share of right answers in training, with some noise where the table is its own."""

    toolkit = "none"

    def __init__(self, attempts, vectors, seed):
        self.seed, self.history = seed, [0.5 if vectors is None else float(vectors[0, 0])]
        r = attempts.train.interactions
        self.share = np.bincount(r.question, r.correct + 0.5) / np.bincount(r.question, np.ones(len(r)) + 1)
        self.noise = 0.3 if vectors is None else 0.0

    def predict(self, part):
        drawn = np.random.default_rng(0).standard_normal(len(part))
        return np.clip(self.share[part.question] + self.noise * drawn, 0.01, 0.99)


def test_a_report_shows_the_models_own_embedding_once_beside_the_tables(data, tmp_path, monkeypatch):
    monkeypatch.setattr(KTPeer, "missing", classmethod(lambda cls: ""))
    fits = []

    def fit(self, vectors, moves, seed):
        fits.append((vectors is None, seed))
        return Known(self.attempts, vectors, seed)

    monkeypatch.setattr(KTPeer, "_fit", fit)
    sections = {"ppmi-svd": {"dim": 8}, "kt-baselines": {"models": ["rasch"]}, "kt-peer@wide": {"dim": 16}}
    config = Config(
        tasks=("kt-peer", "kt-peer@wide", "kt-baselines"),
        trainers=("ppmi-svd", "random"),
        seeds=2,
        tune=False,
        sections=sections,
    )
    run = Experiment(config, data).run(tmp_path / "run")
    assert fits.count((True, 0)) == fits.count((True, 1)) == 2, "its own embedding is trained once a seed and model"
    wide = {row["metric"]: row["value"] for row in run.rows("results") if row["task"] == "kt-peer@wide"}
    assert f"{OWN}/auc" in wide
    rows = [row for row in run.rows("results") if row["task"] == "kt-peer"]
    names = {row["metric"] for row in rows}
    assert {"auc", f"{OWN}/auc", f"{OWN}/auc-within-students"} <= names
    assert "auc-next-5" not in names
    table = comparison(run)
    assert {column.metric for column in table.columns if column.task == "kt-peer"} <= {"auc", "auc-cold"}
    assert {"kt-peer@wide auc", "kt-peer auc"} <= {column.title for column in table.columns}
    beside = [each for each in beside_baselines(run, table) if each.column.title == "kt-peer auc"]
    assert [(each.line.trainer, each.baseline) for each in beside if not each.line.baseline] == [
        ("ppmi-svd", "rasch"),
        ("ppmi-svd", "the same model with its own embedding"),
    ]
    mine = next(each for each in beside if each.baseline.endswith("its own embedding"))
    figures = {row["metric"]: row["value"] for row in rows if row["trainer"] == mine.line.trainer}
    assert mine.difference.mean == pytest.approx(figures["auc"] - figures[f"{OWN}/auc"])
    assert mine.difference.low > 0
    page = (run.path / "report.md").read_text()
    section = page.split("## Without vectors")[1].split("\n## ")[0]
    assert len(re.findall(r"\n\| kt-peer +\| its own embedding", section)) == 1
    assert len(re.findall(r"\n\| kt-baselines +\| rasch", section)) == 1
    assert "is ahead of the same model with its own embedding: " in section
    every = page.split("## Knowledge tracing")[1].split("\n## ")[0]
    assert f"{OWN}/auc" not in every
    assert [line.split("|")[1].strip() for line in every.splitlines() if "| ppmi-svd" in line] == [
        "kt-peer",
        "kt-peer@wide",
    ]
    titles, row = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in every.splitlines()
        if "| task " in line or ("kt-peer@wide" in line and "ppmi-svd" in line)
    )
    means = np.mean(
        [
            r["value"]
            for r in run.rows("results")
            if (r["task"], r["trainer"], r["metric"]) == ("kt-peer@wide", "ppmi-svd", "auc-within-students")
        ]
    )
    assert float(row[titles.index("auc-within-students")]) == pytest.approx(means, abs=5e-4)
    assert "## Every other figure" not in page
    html = (run.path / "report.html").read_text()
    assert str(mine).replace("'", "&#39;") in html
    assert "<summary>Every other figure" not in html
    for title in ("Knowledge tracing", "Without vectors"):
        _same(title, html, page)


def _same(title, html, markdown):
    """Both reports show a table with the same cells."""
    drawn = html.split(f"<summary>{title}</summary>")[1].split("</table>")[0]
    cells = re.compile(r"<t[hd][^>]*>(?:<button[^>]*>)?([^<]*)(?:</button>)?</t[hd]>")
    below = markdown.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in below.splitlines() if line[:1] == "|"]
    assert len(lines) > 2
    assert [cells.findall(line) for line in drawn.splitlines() if "<tr>" in line] == [lines[0], *lines[2:]]


def _benchmark(name, monkeypatch):
    folder = Path(qcq.__file__).parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", folder / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
def test_the_fixed_comparison_is_computed_from_a_run_of_its_settings_alone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(KTPeer, "missing", classmethod(lambda cls: ""))
    monkeypatch.setattr(KTPeer, "_fit", lambda self, vectors, moves, seed: Known(self.attempts, vectors, seed))
    referee = _benchmark("referee", monkeypatch)
    claim, file = referee.CLAIM, referee.REFEREE
    assert claim["task"] in file["tasks"]
    assert claim["trainer"] in file["trainers"]
    assert claim["walk"] in file["walks"]
    said = (referee.ROOT / "experiments" / "referee.toml").read_text()
    assert f"measure: {claim['metric']} of {claim['task']}; " in said
    assert f"table: {claim['trainer']} on {claim['walk']}." in said

    sections = {"walk": file["walk"], claim["walk"]: file[claim["walk"]], "kt-peer": file["kt-peer"]}
    config = Config(
        walks=(claim["walk"],),
        trainers=(claim["trainer"],),
        tasks=(claim["task"], "kt-baselines"),
        seeds=file["seeds"],
        tune=False,
        sections={**sections, claim["task"]: file[claim["task"]], "kt-baselines": {"models": ["rasch"]}},
    )
    run = Experiment(config, data).run(tmp_path / "run")
    row = referee.claimed(run)
    asked = (claim["task"], claim["trainer"], claim["walk"])
    results = [r for r in run.rows("results") if (r["task"], r["trainer"], r["walk"]) == asked]
    mean = {name: np.mean([r["value"] for r in results if r["metric"] == name]) for name in ("auc", f"{OWN}/auc")}
    assert row["seeds"] == 3
    assert row["with the table"] == pytest.approx(mean["auc"], abs=1e-4)
    assert row["own embedding"] == pytest.approx(mean[f"{OWN}/auc"], abs=1e-4)
    assert row["ahead"]["value"] == pytest.approx(mean["auc"] - mean[f"{OWN}/auc"], abs=1e-4)
    assert row["above zero"] == ("yes" if row["ahead"]["low"] > 0 else "no") == "yes"

    for _ in range(2):  # a row is in the file once
        referee.compare(argparse.Namespace(runs=[run.path, run.path], json=tmp_path / "models.json", beside=None))
    held = json.loads((tmp_path / "models.json").read_text())
    ahead = {(each["model"], each["vectors"]): each for each in held["differences"]}
    assert set(ahead) == {("qDKT", claim["trainer"]), ("qDKT", "svd"), ("qDKT", "random")}
    mine = ahead["qDKT", claim["trainer"]]
    assert mine["ahead"]["value"] == row["ahead"]["value"]
    assert len(held["differences"]) == len(ahead)
    low, high = (mine["ahead"][end] - mine["ahead"]["value"] for end in ("low", "high"))
    assert low == pytest.approx(-high, abs=2e-4)
    units = [run.units(claim["walk"], claim["trainer"], "table", seed) for seed in range(3)]
    d = np.mean([u[f"{claim['task']}/auc"] - u[f"{claim['task']}/{OWN}/auc"] for u in units], axis=0)
    family = ttest_1samp(d, 0).confidence_interval(1 - 0.05 / len(ahead))
    assert mine["ahead"]["high"] == pytest.approx(family.high, abs=2e-4)

    turned = [{**each, "ahead": {"value": -0.1, "low": -0.2, "high": -0.01}} for each in held["differences"][1:]]
    (tmp_path / "other.json").write_text(json.dumps({"differences": turned}))
    files = {"json": tmp_path / "beside.json", "beside": tmp_path / "other.json"}
    referee.compare(argparse.Namespace(runs=[run.path], **files))
    first, *rest = json.loads(files["json"].read_text())["differences"]
    assert "other file" not in first  # the other file has no such row
    assert {each["other file"] for each in rest} == {"-0.1 [-0.2, -0.01]"}
    assert [each["same side"] for each in rest] == ["yes" if each["ahead"]["high"] < 0 else "no" for each in rest]
    assert [referee.side({"low": low, "high": high}) for low, high in ((1, 2), (-1, 2), (-2, -1))] == [1, 0, -1]

    auc = {(each["model"], each["vectors"]): each["auc"] for each in held["results"] if each["seeds"] == 3}
    assert set(auc) == {*ahead, ("qDKT", "random"), ("qDKT", "its own embedding"), ("rasch", "none")}
    assert auc["qDKT", claim["trainer"]] == pytest.approx(row["with the table"], abs=1e-4)
    assert auc["qDKT", "its own embedding"] == pytest.approx(row["own embedding"], abs=1e-4)

    text = (run.path / "training.jsonl").read_text()
    (run.path / "training.jsonl").write_text(text.replace('"judged"', '"error": "planted", "judged"', 1))
    with pytest.raises(EvaluationError, match="failed: planted"):
        referee.compare(argparse.Namespace(runs=[run.path], json=None, beside=None))
    (run.path / "training.jsonl").write_text(text)

    for changed in ({"seeds": 1}, {"sections": {**config.sections, claim["task"]: {"model": "qDKT", "epochs": 3}}}):
        other = Experiment(replace(config, **changed), data).run(tmp_path / str(len(changed) + changed.get("seeds", 5)))
        with pytest.raises(EvaluationError, match="the comparison is fixed for"):
            referee.claimed(other)


@pytest.mark.parametrize("given", ["--models=qDKT,DKT2", "--walks=metapath@nowhere"])
def test_the_choice_refuses_unknown_names_in_one_line(given, monkeypatch, capsys):
    referee = _benchmark("referee", monkeypatch)
    monkeypatch.setattr("sys.argv", ["referee.py", "choose", "--data", "nothing", given])
    with pytest.raises(SystemExit):
        referee.main()
    option, names = given.split("=")
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{option}: unknown: {names.split(',')[-1]}; known: " in said


# --- with the toolkit -----------------------------------------------------------------------------------------------


@pytest.fixture
def edmine() -> None:
    pytest.importorskip("edmine", reason="needs the extra kt")


_MADE: dict[str, KTPeer] = {}


def task(partition, model, **more) -> KTPeer:
    lr = 3e-3 if model in ("simpleKT", "AKT") else QUICK["lr"]
    key = f"{model} {more}"
    if key not in _MADE:
        _MADE[key] = KTPeer(partition, KTPeerSettings(model=model, **{**QUICK, "lr": lr, **more}))
    return _MADE[key]


@pytest.mark.tools
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("model", PEERS)
def test_what_the_model_holds_is_our_table(attempts, partition, model, moves, edmine):
    """Row for row, after edmine's own code has read and rescaled it; also where rows are zero."""
    vectors = principal(oracle(partition).vectors)
    vectors[7] = 0
    peer = Peer(PEERS[model], attempts.graph, attempts.train, vectors, moves, KTPeerSettings(model=model, **QUICK), 0)
    held = peer.table.detach().numpy()
    width = vectors.shape[1]
    assert np.array_equal(held[:-1, :width], vectors)
    assert not held[-1].any()
    assert not held[:, width:].any()
    assert peer.table.requires_grad == moves
    assert sum(p is peer.table for p in peer.model.parameters()) == 1, "the model doesn't use it"


@pytest.mark.tools
def test_edmine_alone_would_lose_the_lengths_of_the_rows(partition, tmp_path, edmine):
    """Why rows are put back: the day this fails, they needn't be."""
    from edmine.model.module.EmbedLayer import EmbedLayer

    vectors = principal(oracle(partition).vectors)
    n, width = vectors.shape
    (tmp_path / "rows.json").write_text(json.dumps(dict(enumerate(vectors.tolist()))))
    layer = EmbedLayer({"question": {"num_item": n, "dim_item": width, "embed_path": str(tmp_path / "rows.json")}})
    assert np.linalg.norm(layer.question.weight.detach().numpy(), axis=1) == pytest.approx(np.sqrt(n), rel=1e-4)
    assert np.ptp(np.linalg.norm(vectors, axis=1)) > 0.1


@pytest.mark.tools
@pytest.mark.parametrize("model", PEERS)
def test_each_model_learns_from_our_vectors_and_from_its_own(partition, model, edmine):
    asked = task(partition, model)
    score = asked.score(oracle(partition))
    assert min(score.metrics["auc"], score.metrics[f"{OWN}/auc"]) > 0.58
    names = {name.removeprefix(f"{OWN}/") for name in score.metrics}
    assert names - {"auc-cold", "auc-unseen"} == set(FIGURES) - {"auc-cold", "auc-unseen", "auc-next-5"}
    assert {f"{OWN}/{name}" for name in names} <= set(score.metrics)
    assert score.choices["way"] == "fine-tuned"
    assert score.choices["toolkit"].startswith("edmine ")
    _, peer = asked.peer(oracle(partition))
    handed = principal(oracle(partition).vectors)
    assert not np.array_equal(peer.table.detach().numpy()[:-1, : handed.shape[1]], handed), "it was to be fine-tuned"


@pytest.mark.tools
@pytest.mark.parametrize("model", PEERS)
def test_later_answers_change_nothing_before_them(partition, attempts, model, edmine):
    """A test student's answers from some attempt on are turned around: what was predicted up to there stays."""
    _, peer = task(partition, model).peer(oracle(partition))
    r = attempts.parts["test"].interactions
    begin = int(np.flatnonzero(np.r_[True, np.diff(r.student) != 0])[3])
    whole = peer.predict(r)
    assert np.isfinite(whole).all()
    assert ((whole > 0) & (whole < 1)).all()
    mine = r.student == r.student[begin]
    for back in (0, 9, 32):  # the first attempt, one in the first window, one that a later window is for
        at = begin + back
        turned = mine & (np.arange(len(r)) >= at)
        assert turned.sum() > 1
        other = peer.predict(replace(r, correct=np.where(turned, 1 - r.correct, r.correct)))
        same = ~mine | (np.arange(len(r)) <= at)
        assert other[same] == pytest.approx(whole[same], abs=1e-6)
        assert np.abs(other - whole)[~same].max() > 1e-5


@pytest.mark.tools
@pytest.mark.parametrize("model", ["qDKT", "DIMKT"])
def test_a_seed_fixes_everything(partition, attempts, model, edmine):
    plan = KTPeerSettings(model=model, **{**QUICK, "epochs": 1})
    r = attempts.parts["validation"].interactions

    def made(seed):
        peer = Peer(PEERS[model], attempts.graph, attempts.train, None, True, plan, seed)
        return peer.fit(attempts.train.interactions, r).predict(r)

    assert np.array_equal(made(1), made(1))
    assert not np.array_equal(made(1), made(2))


@pytest.mark.tools
def test_a_frozen_table_stays_and_validation_chooses_the_way(partition, edmine):
    asked = task(partition, "qDKT", tables=("frozen", "small-start"), epochs=2)
    vectors = principal(oracle(partition).vectors)
    frozen = asked._fit(vectors, False, 0)
    assert np.array_equal(frozen.table.detach().numpy()[:-1], vectors)
    way, peer = asked.peer(oracle(partition))
    other = asked._fit(np.float32(0.1) * vectors, True, 0)
    assert max(peer.history) == max(*frozen.history, *other.history)
    assert way == ("frozen" if max(frozen.history) >= max(other.history) else "small-start")


@pytest.mark.tools
def test_the_planted_truth_is_preferred_to_chance(partition, edmine):
    asked = task(partition, "qDKT", tables=("frozen",))
    good, bad = asked.score(oracle(partition)), asked.score(chance(partition))
    assert good.metrics[f"{OWN}/auc"] == bad.metrics[f"{OWN}/auc"]
    assert paired_bootstrap(good.units["auc"], bad.units["auc"]).low > 0


@pytest.mark.tools
def test_mikt_is_refused_where_no_question_has_two_concepts(data, edmine):
    """There it would say that all vectors are equally good."""
    first = data.q_matrix.indptr[:-1]
    ones = (np.ones(len(first), np.int8), data.q_matrix.indices[first], np.arange(len(first) + 1))
    single = Partition.make(replace(data, q_matrix=csr_array(ones, shape=data.q_matrix.shape)), seed=0)
    with pytest.raises(EvaluationError, match=r"kt-peer: MIKT .*no question has two concepts.*qDKT, simpleKT"):
        KTPeer(single, KTPeerSettings(model="MIKT"))
    KTPeer(single, KTPeerSettings(model="QIKT"))


@pytest.mark.tools
def test_vectors_wider_than_mikt_are_refused_in_one_line(partition, edmine):
    with pytest.raises(
        EvaluationError, match=r"kt-peer: the vectors have 17 dimensions, MIKT takes 16; use kt-peer\.dim"
    ):
        task(partition, "MIKT", epochs=1).peer(chance(partition, 17))
    same = Embeddings(partition.graph.questions, np.ones((partition.graph.n_questions, 3), dtype=np.float32))
    with pytest.raises(EvaluationError, match="kt-peer: all question vectors are the same"):
        task(partition, "qDKT").score(same)
