"""The main job end to end, small: what stands in the run folder, what is skipped, what is reproducible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcq
from qcq import models
from qcq.config import Config
from qcq.corpus import Corpus
from qcq.errors import ConfigError, DataError, UnknownNameError
from qcq.pipeline import Experiment
from qcq.run import NO_WALK, Run
from qcq.support.progress import Watch
from qcq.walks import WALKS

TRAINERS = list(Config().trainers)
FIRST = TRAINERS[0]  # skipgram, or sgns where gensim isn't installed
SMALL = ["walk.length=10", "walk.per_question=4", "mlm.steps=20", "simulated.questions=150", "simulated.students=80"]


class Said(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(overrides=[*SMALL, "dim=16", "seeds=2"])


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Experiment(config).run(tmp_path_factory.mktemp("runs") / "first")


def test_run_folder_holds_what_is_promised(run: Run, config: Config) -> None:
    for name in ("config.toml", "environment.json", "training.jsonl", "results.jsonl", "report.md"):
        assert (run.path / name).stat().st_size > 0, name
    assert not list(run.path.rglob("*.partial"))
    assert Config.load(run.path / "config.toml").to_dict() == config.to_dict()
    training, results = run.rows("training"), run.rows("results")
    assert {(r["trainer"], r["seed"]) for r in training} == {(t, s) for t in TRAINERS for s in (0, 1)}
    keys = {
        "dataset",
        "walk",
        "trainer",
        "seed",
        "seconds",
        "peak_rss_mb",
        "tokens",
        "loss",
        "floor",
        "excess",
        "verdict",
    }
    assert all(keys <= set(row) for row in training)
    assert all(
        set(row) == {"dataset", "walk", "trainer", "readout", "seed", "task", "metric", "value"} for row in results
    )
    assert {r["task"] for r in results} == set(config.tasks)
    assert {r["trainer"] for r in results} == set(TRAINERS)
    assert all(np.isfinite(r["value"]) for r in results)
    mlm = [row for row in training if row["trainer"] == "mlm"]
    assert all(row["loss"] > row["floor"] > 0 for row in mlm)
    assert all(row["excess"] == pytest.approx(row["loss"] - row["floor"]) for row in mlm)


def test_every_trainer_ate_the_same_corpus(run: Run) -> None:
    for seed in (0, 1):
        corpus = Corpus.load(run.path / "corpus" / "qcq" / f"seed-{seed}")
        about = json.loads((run.path / "corpus" / "qcq" / f"seed-{seed}" / "corpus.json").read_text())
        assert corpus.digest == about["digest"]
        rows = [row for row in run.rows("training") if row["seed"] == seed and row["walk"] == "qcq"]
        assert len(rows) == 2
        assert {row["corpus_digest"] for row in rows} == {corpus.digest}


def test_embeddings_are_read_back(run: Run) -> None:
    emb = run.embeddings(FIRST, seed=1)
    assert emb.vectors.shape == (150, 16)
    assert emb.provenance["trainer"]["dim"] == 16
    assert emb.provenance["seed"] == 1
    with pytest.raises(UnknownNameError, match=FIRST):
        run.embeddings(FIRST[:-1])


def test_report_names_every_trainer_and_says_what_was_asked(run: Run) -> None:
    text = (run.path / "report.md").read_text()
    for word in (*TRAINERS, "edges", "circular", "floor", "command"):
        assert word in text, word


def test_rerun_skips_finished_cells_and_redo_does_not(run: Run, config: Config, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(run.path, tmp_path / "run")))
    before = (run.path / "training.jsonl").read_bytes()
    said = Said()
    Experiment(config).run(run.path, watch=said)
    assert sum("skipped" in line for line in said.lines) == len(TRAINERS)
    assert (run.path / "training.jsonl").read_bytes() == before
    others = Config.load(overrides=[*SMALL, "dim=16", "seeds=2", "trainers=random,svd", "svd.power=0.25"])
    with pytest.raises(ConfigError, match=f"{FIRST} on qcq is in it, not here"):
        Experiment(others).run(run.path)
    said = Said()
    Experiment(Config.load(overrides=[*SMALL, "dim=16", "seeds=2", "trainers=random"])).run(
        run.path, redo=True, watch=said
    )
    assert not any("skipped" in line for line in said.lines)
    # Tables and vectors are those of this run alone; what the others finished is still in the store.
    assert {row["trainer"] for row in run.rows("training")} == {"random"}
    assert {path.name.split("--")[1] for path in (run.path / "embeddings").iterdir()} == {"random"}
    said = Said()
    Experiment(config).run(run.path, watch=said)
    assert sum("skipped" in line for line in said.lines) == len(TRAINERS)
    assert (run.path / "training.jsonl").read_bytes().count(b"random") == before.count(b"random")


def test_same_seed_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcq.pipeline.write_page", lambda *_: None)
    few = Config.load(overrides=[*SMALL, "dim=16", "seeds=1", f"trainers={FIRST},svd,mlm", "tune=false"])
    a, b = (Experiment(few).run(tmp_path / name) for name in "ab")
    assert a.rows("results") == b.rows("results")
    for kind in ("embeddings/*.safetensors", "corpus/**/*.npy"):
        files = sorted(p.relative_to(a.path) for p in a.path.glob(kind))
        assert files
        for name in files:
            assert (a.path / name).read_bytes() == (b.path / name).read_bytes(), name


def test_held_out_edges_reach_no_walk(run: Run, config: Config) -> None:
    partition = Experiment(config).partition
    gone = {
        (int(q), int(c))
        for edges in partition.edges.values()
        for q, c in zip(edges.questions, edges.concepts, strict=True)
    }
    assert gone
    coo = partition.graph.weights.tocoo()
    assert not gone & set(zip(coo.row.tolist(), coo.col.tolist(), strict=True))
    corpus = Corpus.load(run.path / "corpus" / "qcq" / "seed-0")
    assert corpus.graph_digest == partition.graph.digest != qcq.KnowledgeGraph.from_dataset(partition.dataset).digest


def test_a_graph_without_responses_is_compared_on_what_it_has(tmp_path: Path) -> None:
    bank = [(f"q{i}", f"c{j}") for i in range(60) for j in {i % 7, (i * 5 + 1) % 7}]
    data = qcq.read(qcq.KnowledgeGraph.from_edges(bank).to_networkx())
    config = Config.load(trainers=["svd", "random"], seeds=1)
    said = Said()
    made = Experiment(config, data).run(tmp_path / "run", watch=said)
    assert any("difficulty is left out" in line for line in said.lines)
    assert {r["task"] for r in made.rows("results")} >= {"edges", "retrieval"}
    assert "left out" in (made.path / "report.md").read_text()


def test_a_failing_trainer_is_reported_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qcq.models.baselines import SVD

    def fail(self: SVD, *args: object) -> None:
        raise qcq.errors.TrainingError("diverged at step 3")

    monkeypatch.setattr(SVD, "fit", fail)
    config = Config.load(overrides=[*SMALL, "trainers=svd,random", "seeds=1"])
    made = Experiment(config).run(tmp_path / "run")
    assert "svd on none failed: diverged at step 3" in (made.path / "report.md").read_text()
    assert {r["trainer"] for r in made.rows("results")} == {"random"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["walk.lenght=3"], "unknown setting 'walk.lenght'; did you mean walk.length"),
        (["mlm.stepz=3"], "unknown setting 'mlm.stepz'; did you mean mlm.steps"),
        (["walks=metapath@x", "metapath@y.length=9"], "unknown section 'metapath@y'; did you mean metapath@x"),
        (["trainers=svd@a", "svd@a.powr=2"], "unknown setting 'svd@a.powr'; did you mean svd@a.power"),
        (["trainers=svdd@a"], "unknown trainer 'svdd'; did you mean svd"),
        (["skipgrm.window=3"], "unknown section 'skipgrm'; did you mean skipgram"),
        (["walks=qcp"], "unknown walk 'qcp'; did you mean qcq"),
        (["trainers=svdd"], "unknown trainer 'svdd'; did you mean svd"),
        (["tasks=edge"], "unknown task 'edge'; did you mean edges"),
        (["dim=big"], "setting dim: .*given 'big'"),
        (
            ["sgns.window=99999999999999999999"],
            "setting sgns.window: an integer is at most 2,147,483,647, given one of about 20 digits",
        ),
        (["sgns.epochs=3000000000"], "setting sgns.epochs: an integer is at most 2,147,483,647, given 3,000,000,000"),
        (["mlm.steps=many"], "setting mlm.steps: .*given 'many'"),
        (["seedz=3"], "unknown setting 'seedz'; did you mean seed or seeds"),
        (["seeds=0"], "setting seeds: .*greater than or equal to 1"),
        (["data=nothing:here"], "unknown format 'nothing'"),
        (["trainers=svd,svd"], "'svd' is given twice"),
        (["nonsense"], "write key=value"),
        (["trainers=os:path"], "trainer 'os:path': not a class that derives from Trainer"),
        (["trainers=os.path:join"], "trainer 'os.path:join': not a class that derives from Trainer"),
        (["walks=pathlib:Path"], "walk 'pathlib:Path': not a class that derives from WalkStrategy"),
        (["tasks=qcq.walks:QCQ"], "task 'qcq.walks:QCQ': not a class that derives from Task"),
        (["trainers=qcq.models:Trainer"], "trainer 'qcq.models:Trainer': not a class that derives"),
        (["trainers=.foo:Bar"], "unknown trainer '.foo:Bar'"),
        (["trainers=:x"], "unknown trainer ':x'"),
        (["walks=no_such:Walk"], "unknown walk .no_such:Walk .No module named 'no_such'"),
        (["dim=1000000000000000000"], "setting dim: .*less than or equal to 1000000"),
        (["svd.dim=1000000000000000000"], "setting svd.dim: .*less than or equal to 1000000"),
        (["seeds=1000000000000000000"], "setting seeds: .*less than or equal to 1000000"),
        (["walk.per_question=99999999999999999999"], "setting walk.per_question: .*less than or equal to 1000000"),
        (["simulated.students=99999999999999999999"], "setting simulated.students: .*less than or equal to 1"),
        (["simulated.sets=99999999999999999999"], "setting simulated.sets: .*less than or equal to 1"),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        Experiment(Config.load(overrides=overrides)).run("never-made")
    assert "\n" not in str(caught.value)
    assert not Path("never-made").exists()


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (WALKS["qcq"], {"per_question": 10**20}, "setting per_question: .*less than or equal to 1000000, given 1000"),
        (
            models.TRAINERS["sgns"],
            {"window": 3 * 10**9},
            "setting window: an integer is at most 2,147,483,647, given 3,0",
        ),
        (
            models.TRAINERS["mlm"],
            {"heads": 3},
            "^settings of MLM: dim 64 is not a multiple of heads 3; change one of them$",
        ),
    ],
)
def test_wrong_settings_are_named_in_python_too(kind: Any, values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("sizes = 3", {}, "sizes is a value, given 3; sizes are tables such as"),
        ("[sizes]\nsmall = 3", {}, "sizes.small is a value, given 3"),
        ("walk = 3\n[sizes.small.walk]\nlength = 3", {"size": "small"}, "walk is a value there, and a section in"),
        ("[sizes.big]\nseedz = 1", {}, r"\[sizes.big\]: unknown setting 'seedz'; did you mean seed or seeds"),
        ("[sizes.small]\n[sizes.big]\nmlm.steps = 'x'", {"size": "small"}, r"\[sizes.big\]: setting mlm.steps: "),
        ("[sizes.small]", {"overrides": ['size=["small"]']}, "setting size: input should be a valid string"),
    ],
)
def test_faulty_sizes_are_named_whichever_is_run(text: str, options: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(tmp_path / "c.toml", **options)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_byte_order_mark_and_a_size_with_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbfseeds = 2\n[sizes.small]\nseeds = 1\n")
    assert Config.load(tmp_path / "c.toml").seeds == 2
    assert Config.load(tmp_path / "c.toml", [" size = small"]).seeds == 1


def test_a_part_may_take_part_twice_with_settings_of_its_own(tmp_path: Path) -> None:
    config = Config.load(
        overrides=[
            "data=simulated",
            "simulated.questions=60",
            "walks=metapath@order,metapath@difficulty",
            "trainers=ppmi-svd,svd,svd@small",
            "tasks=difficulty",
            "seeds=1",
            "tune=false",
            "walk.per_question=1",
            "metapath.length=9",
            "metapath@order.pattern=q-q",
            "metapath@difficulty.pattern=q-d-q",
            "metapath@difficulty.length=7",
            "svd@small.dim=4",
        ]
    )
    walks: Any = config.build_walks()
    assert [(w.pattern, w.length, w.per_question) for w in walks.values()] == [("q-q", 9, 1), ("q-d-q", 7, 1)]
    run = Experiment(config).run(tmp_path / "run")
    rows = {(row["walk"], row["trainer"]): row["settings"]["dim"] for row in run.rows("training")}
    assert set(rows) == {*((walk, "ppmi-svd") for walk in walks), (NO_WALK, "svd"), (NO_WALK, "svd@small")}
    assert (rows[NO_WALK, "svd"], rows[NO_WALK, "svd@small"]) == (64, 4)
    again = Config.load(run.path / "config.toml")
    assert Config.load(run.path / "config.toml", walks=["qcq"]).walks == ("qcq",)  # labels of a file need not take part
    assert (again.build_walks(), again.build_trainers()) == (walks, config.build_trainers())


def test_one_question_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    data = qcq.read(qcq.KnowledgeGraph.from_edges([("q", "c")]).to_networkx())
    with pytest.raises(DataError, match="at least two questions"):
        Experiment(Config(), data).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "path", sorted((Path(qcq.__file__).parent / "experiments").glob("*.toml")), ids=lambda p: p.stem
)
def test_shipped_experiments_are_valid(path: Path) -> None:
    config = Config.load(path)
    assert config.build_walks()
    assert config.build_trainers()


def test_weights_from_training_responses(tmp_path: Path) -> None:
    config = Config.load(overrides=[*SMALL, "walks=weighted", "weighted.by=responses", f"trainers={FIRST}", "seeds=1"])
    experiment = Experiment(config)
    made = experiment.run(tmp_path / "run")
    assert made.rows("results")
    train = experiment.partition.split.train
    prepared = config.build_walks()["weighted"].prepare(experiment.partition.graph, train)
    assert np.array_equal(prepared.responses, train.counts)
    assert Corpus.load(made.path / "corpus" / "weighted" / "seed-0").graph_digest == prepared.digest
