"""What every registered walk, trainer, task and reader promises. Being registered is enough to be tested here."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import chi2

from qcq.corpus import Corpus
from qcq.data import DATASETS, Dataset, Simulated, TrainPart
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.errors import ChainError, ConfigError, DataError, EvaluationError, UnknownNameError
from qcq.evaluation import TASKS, Partition, paired_bootstrap
from qcq.floors.losses import HeldOutLoss
from qcq.floors.objectives import first_walks
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.language.trainers import LanguageTrainer
from qcq.support.settings import fields
from qcq.walks import QCQ, WALKS, WalkStrategy

# Settings that make a trainer quick enough for a test. One that isn't here runs as it is.
CHEAP: dict[str, dict] = {
    "skipgram": {"epochs": 3},
    "cbow": {"epochs": 10},
    "fasttext": {"epochs": 3},
    "pebg": {"lr": 1e-2},
    "simqe": {"per_question": 5},
    "mlm": {"steps": 150, "batch": 16},
    "cloze": {"steps": 100, "batch": 16},
    "clm": {"steps": 100, "batch": 16},
    "bilm": {"steps": 100, "batch": 16},
    "rtd": {"steps": 200, "batch": 16},
    "hf-bert": {"steps": 700, "lr": 2e-2, "dropout": 0.0, "mask_rate": 0.3},
}
QUICK: dict[str, dict] = {  # the same for a task
    "kt": {"epochs": 3, "hidden": 16, "tables": ("frozen",)},
    # Without difficulty beside them: with it, chance vectors do well too.
    "kt-difficulty": {"epochs": 3, "hidden": 16, "tables": ("frozen",), "features": ("popularity",)},
    "kt-attention": {"epochs": 3, "hidden": 16, "tables": ("frozen",)},
    "kt-peer": {"model": "qDKT", "epochs": 6, "dim": 16, "lr": 1e-2, "tables": ("frozen",)},
}
ROOMS = {  # a classroom of its own for a task whose target is noisy
    "discrimination": Simulated(questions=800, concepts=16, students=5_000, responses=60, sets=24, seed=2),
}
WALK = QCQ(length=15, per_question=8)
CAN_LEARN = [  # the trainers; one whose library isn't installed is skipped, and says why
    pytest.param(
        name,
        marks=[
            pytest.mark.skipif(bool(cls.missing()), reason=cls.missing()),
            # Of the language models the first one is enough for the quick tests.
            *([pytest.mark.slow] if "language" in cls.__module__ and name != "mlm" else []),
        ],
    )
    for name, cls in TRAINERS.items()
]
CAN_ASK = [  # the same of the tasks
    pytest.param(name, marks=pytest.mark.skipif(bool(cls.missing()), reason=cls.missing()))
    for name, cls in TASKS.items()
]
REAL = {  # under $QCQ_DATA
    "s2kt": "s2kt_assist09",
    "akt": "akt_assist2009_pid",
    "pebg": "pebg_ednet",
    "eedi": "eedi_csc311",
    "icd": "icd_math_ec",
    "math2015": "icd_Math2015",
    "assistments": "raw_assist2009_sample",
}


@pytest.fixture(autouse=True)
def _silence(capfd):
    """The library prints nothing, whatever it is asked for."""
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@functools.cache
def classroom() -> Dataset:
    return Simulated(questions=260, concepts=16, students=200, responses=60, sets=24, seed=2).read()


@functools.cache
def partition() -> Partition:
    return Partition.make(classroom(), seed=0)


def moved(graph: KnowledgeGraph, order: np.ndarray) -> KnowledgeGraph:
    """The same graph with question order[i] in place i, name and all."""
    return replace(graph, questions=[graph.questions[i] for i in order], weights=graph.weights[order])


def moved_part(train: TrainPart, order: np.ndarray) -> TrainPart:
    """The same responses to the questions in their new places."""
    place = np.argsort(order).astype(np.int32)
    data = train.dataset
    questions = [data.questions[i] for i in order]
    data = replace(data, questions=questions, q_matrix=data.q_matrix[order], interactions=None)
    r = train.interactions
    return replace(train, dataset=data, interactions=replace(r, question=place[r.question]))


def fingerprint(graph: KnowledgeGraph) -> str:
    return replace(graph).digest  # a new object: the digest of a graph is computed once


def cosines(emb: Embeddings) -> np.ndarray:
    return emb.unit.astype(float) @ emb.unit.astype(float).T


# --- all of them ----------------------------------------------------------------------------------------------------

PARTS = [(kind, name) for kind in (WALKS, TRAINERS, TASKS, DATASETS) for name in kind]


@pytest.mark.parametrize(("registry", "name"), PARTS, ids=[name for _, name in PARTS])
def test_it_says_what_it_is(registry, name):
    cls = registry[name]
    assert cls.__doc__
    assert cls.__doc__.strip().splitlines()[0]
    assert "__init__" not in cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "a docstring that dataclass made up"
    assert name == name.lower().replace("_", "-").replace(" ", "-")
    if registry is TASKS:
        assert cls.description
        assert cls.metric


SETTINGS: list[tuple[Any, str]] = [(kind, name) for kind in (WALKS, TRAINERS, DATASETS) for name in kind]
SETTINGS += [(TASKS, name) for name in TASKS if TASKS[name].settings]


@pytest.mark.parametrize(("registry", "name"), SETTINGS, ids=[name for _, name in SETTINGS])
def test_its_settings_are_checked_and_frozen(registry, name):
    cls = TASKS[name].settings if registry is TASKS else registry[name]
    made = cls()
    with pytest.raises(UnknownNameError, match="unknown setting 'nonsense_'"):
        cls(nonsense_=1)
    for key in fields(cls):
        with pytest.raises((AttributeError, TypeError)):
            setattr(made, key, 1)
        with pytest.raises(UnknownNameError, match=f"did you mean .*{key}"):
            cls(**{key + "x": 1})


# --- walks ----------------------------------------------------------------------------------------------------------


def awkward() -> tuple[KnowledgeGraph, TrainPart]:
    """A question alone, a concept alone, a concept with one question, two components, uneven degrees; six students,
    who never met some questions."""
    w = np.zeros((12, 6))
    w[[0, 1, 2, 3], 0] = 1
    w[[3, 4, 5], 1] = [1, 2, 0.5]
    w[[5, 0], 2] = 1
    w[6, 3] = 1
    w[[7, 8, 9, 10], 4] = [3, 1, 1, 1]  # question 11 and concept 5 have no edge
    rng = np.random.default_rng(0)
    student = np.repeat(np.arange(6, dtype=np.int32), 9)
    question = rng.choice([0, 1, 2, 4, 5, 7, 9, 10], 54).astype(np.int32)
    r = Interactions(student, question, rng.integers(0, 2, 54).astype(np.int8))
    names = [[f"{kind}{i}" for i in range(n)] for kind, n in (("q", 12), ("c", 6), ("s", 6))]
    links = (("c0", "c1"), ("c4", "c2"))
    data = Dataset("awkward", names[0], names[1], sparse.csr_array(w), r, names[2], prerequisites=links)
    return KnowledgeGraph.from_dataset(data), TrainPart(data, np.arange(6, dtype=np.int32), r)


def prepared(walk: WalkStrategy) -> KnowledgeGraph:
    return walk.prepare(*awkward())


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", WALKS)
def test_a_walk_only_uses_edges(name, keep):
    walk = WALKS[name](length=9, per_question=6)
    try:
        walk = replace(walk, keep_concepts=keep)
    except ConfigError:
        pytest.skip(f"{name} has no concepts between its questions")
    graph = prepared(walk)
    before = fingerprint(graph)
    corpus = walk.sample(graph, 3)
    assert fingerprint(graph) == before == corpus.graph_digest
    assert corpus.n_walks == 12 * 6 or not walk.sampled
    linked = np.zeros((18, 18), dtype=bool)
    linked[:12, 12:] = graph.weights.toarray() > 0
    linked |= linked.T
    if not keep:
        linked = (linked.astype(int) @ linked) > 0  # two questions of one concept
    if isinstance(graph, TypedGraph):
        for kind in ("s", "d"):
            edges = graph.relation("q", kind)
            linked[:12, :12] |= (edges @ edges.T).toarray() > 0
        near = np.linalg.matrix_power(np.eye(6) + graph.relation("c", "c").toarray(), 6)  # concepts, over others
        linked[:12, :12] |= (graph.weights @ near @ graph.weights.T) > 0
        r = graph.train.interactions  # a student's questions one after the other: of one student, so linked already
        assert linked[r.question[:-1], r.question[1:]][r.student[1:] == r.student[:-1]].all()
    jumps = 0
    for tokens in corpus.sentences():
        assert len(tokens) >= 1
        assert tokens.min() >= 0
        assert tokens.max() < (18 if keep else 12)
        loose = np.flatnonzero(~linked[tokens[:-1], tokens[1:]])
        assert (tokens[loose + 1] == tokens[0]).all()  # only a jump home may leave the edges, and it is counted
        jumps += len(loose)
    assert jumps <= corpus.counts.get("restarts", 0)
    pads = corpus.tokens < 0
    assert (pads[:, 1:] >= pads[:, :-1]).all()


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_is_fixed_by_its_seed(name):
    walk = WALKS[name](length=6, per_question=2)
    graph = walk.prepare(partition().graph, partition().split.train)
    assert walk.sample(graph, 5).digest == walk.sample(graph, 5).digest != walk.sample(graph, 6).digest
    assert walk.sample(graph, 5, limit=7).n_walks == 7


@pytest.mark.parametrize("name", WALKS)
def test_relabelling_the_questions_leaves_the_law_of_a_walk(name):
    """Where walks of two independent corpora end, question by question: chi-squared over one token a walk."""
    graph, train = partition().graph, partition().split.train
    order = np.random.default_rng(0).permutation(graph.n_questions)
    walk = WALKS[name](length=5, per_question=60)
    both = walk.prepare(graph, train), walk.prepare(moved(graph, order), moved_part(train, order))
    ends = [walk.sample(g, seed).tokens[:, -1] for seed, g in enumerate(both)]
    a, b = (np.bincount(e[e >= 0], minlength=len(order)).astype(float) for e in ends)
    a = a[order]
    seen = a + b > 0
    statistic = ((a - b)[seen] ** 2 / (a + b)[seen]).sum()
    assert chi2.sf(statistic, seen.sum() - 1) > 1e-4


@pytest.mark.parametrize("name", WALKS)
def test_a_corpus_comes_back_from_disk(name, tmp_path):
    walk = WALKS[name](length=6, per_question=2)
    corpus = walk.sample(prepared(walk), 1)
    back = Corpus.load(corpus.save(tmp_path / "corpus"))
    assert back.digest == corpus.digest
    assert np.array_equal(back.tokens, corpus.tokens)
    assert (back.strategy, back.seed, dict(back.counts)) == (corpus.strategy, corpus.seed, dict(corpus.counts))
    assert back.graph_digest == corpus.graph_digest
    assert back.strategy["name"] == name


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_has_an_exact_chain_or_says_why_not(name):
    said = name
    try:
        WALKS[name]().chain(prepared(WALKS[name]()))
    except ChainError as error:
        said = str(error)
    assert name in said


# --- trainers -------------------------------------------------------------------------------------------------------


@functools.cache
def corpus_on_disk(folder: Path, permuted: bool) -> TrainingData:
    """The classroom's walks, read back memory-mapped, so that nobody can write into them."""
    graph = partition().graph
    if permuted:
        graph = moved(graph, permutation())
    corpus = WALK.sample(graph, 4 if permuted else 3).save(folder / f"corpus-{permuted}")
    return TrainingData(graph, WALK, 4 if permuted else 3, Corpus.load(corpus))


@functools.cache
def permutation() -> np.ndarray:
    return np.random.default_rng(1).permutation(partition().graph.n_questions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contracts")


def trainer(name):
    wanted = {"dim": 16, **CHEAP.get(name, {})}
    return TRAINERS[name](**{key: value for key, value in wanted.items() if key in fields(TRAINERS[name])})


@functools.cache
def fitted(name, folder, permuted=False):
    if name == "hf-bert":
        pytest.importorskip("transformers", reason="needs the extra hf")
    return trainer(name).fit(corpus_on_disk(folder, permuted), seed=0)


@functools.cache
def room(name) -> Partition:
    return Partition.make(ROOMS[name].read(), seed=0) if name in ROOMS else partition()


@functools.cache
def chance(seed=0, of="") -> Embeddings:
    return TRAINERS["random"](dim=16).fit(TrainingData(room(of).graph), seed=seed).embeddings()


@functools.cache
def task(name):
    return TASKS[name](room(name), *([TASKS[name].settings(**QUICK[name])] if name in QUICK else []))


@pytest.mark.parametrize("name", CAN_LEARN)
def test_vectors_are_what_was_promised(name, folder):
    model = fitted(name, folder)
    graph = partition().graph
    assert model.readouts
    assert model.tokens >= 0
    for readout in model.readouts:
        emb = model.embeddings(readout)
        assert list(emb.ids) == list(graph.questions)
        assert np.isfinite(emb.vectors).all()
        assert np.ptp(emb.vectors) > 0
        if emb.concept_vectors is not None:
            assert list(emb.concept_ids) == list(graph.concepts)


@pytest.mark.parametrize("name", [each for each in CAN_LEARN if each.values != ("random",)])
def test_the_planted_truth_is_found_better_than_by_chance(name, folder):
    """Questions of one concept and, for who learns, held-out edges, unit by unit against `random` over five seeds."""
    emb = fitted(name, folder).embeddings()
    for which in ("retrieval", "edges") if TRAINERS[name].learns else ("retrieval",):
        metric = TASKS[which].metric
        ours, *theirs = (
            np.concatenate([task(which).score(e, stage).units[metric] for stage in ("validation", "test")])
            for e in (emb, *map(chance, range(5)))
        )
        assert paired_bootstrap(ours, np.mean(theirs, axis=0)).low > 0, which


@pytest.mark.parametrize("name", CAN_LEARN)
def test_same_seed_same_vectors(name, folder):
    """Whether the corpus lies on disk or in memory."""
    source = corpus_on_disk(folder, False)
    held = replace(source.corpus, shards=[np.array(shard) for shard in source.corpus.shards])
    first = fitted(name, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # whatever state the generators of the process are in
        np.random.seed(7)  # noqa: NPY002
        random.seed(7)
        again = trainer(name).fit(replace(source, sampled=held), seed=0)
    assert np.array_equal(again.embeddings().vectors, first.embeddings().vectors)


@pytest.mark.parametrize("name", CAN_LEARN)
def test_relabelling_the_questions_permutes_the_vectors(name, folder):
    """Exactly (up to a rotation) where nothing is drawn, else in distribution: the same quality, from other walks."""
    here, there = fitted(name, folder).embeddings(), fitted(name, folder, True).embeddings()
    order = permutation()
    back = Embeddings(here.ids, there.vectors[np.argsort(order)])
    assert list(there.ids) == [here.ids[i] for i in order]
    if fitted(name, folder).tokens == 0 and name not in ("random", "fastrp"):  # these draw a row a question
        assert np.abs(cosines(here) - cosines(back)).max() < 1e-3
    else:
        a, b = (task("retrieval").score(e).metrics["map"] for e in (here, back))
        assert a == pytest.approx(b, abs=0.1)


@pytest.mark.parametrize("name", CAN_LEARN)
def test_embeddings_come_back_from_disk(name, folder, tmp_path):
    model = fitted(name, folder)
    for readout in model.readouts:
        emb = model.embeddings(readout)
        back = Embeddings.load(emb.save(tmp_path / f"{readout}.safetensors"))
        assert list(back.ids) == list(emb.ids)
        assert np.array_equal(back.vectors, emb.vectors)
        assert (back.concept_vectors is None) == (emb.concept_vectors is None)
        if emb.concept_vectors is not None:
            assert np.array_equal(back.concept_vectors, emb.concept_vectors)


@pytest.mark.parametrize("name", CAN_LEARN)
def test_a_trainer_changes_nothing_it_is_given(name, folder):
    source = corpus_on_disk(folder, False)
    fitted(name, folder)
    assert fingerprint(source.graph) == partition().graph.digest
    assert replace(source.corpus).digest == WALK.sample(partition().graph, 3).digest


@pytest.mark.parametrize("name", CAN_LEARN)
def test_a_likelihood_is_a_number_for_each_item_and_never_below_its_floor(name, folder):
    model, source = fitted(name, folder), corpus_on_disk(folder, False)
    if model.objective is None:
        pytest.skip(f"{name} has no likelihood")
    paper = model.objective.held_out_batch(source.heldout, seed=0)
    losses = model.losses(paper)
    assert losses.shape == (len(paper.walk),)
    assert np.isfinite(losses).all()
    try:
        floor = model.objective.floor(source.chain, paper)
    except ChainError as error:
        pytest.skip(f"{name} has no floor: {error}")
    excess = losses - floor
    a_walk = np.bincount(paper.walk, excess)[np.unique(paper.walk)]  # items of one walk are not independent
    assert a_walk.mean() >= -3 * a_walk.std() / np.sqrt(len(a_walk))


@functools.cache
def real_walks() -> TrainingData:
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / REAL["s2kt"]).is_dir():
        pytest.skip(f"needs the real data set {REAL['s2kt']} under $QCQ_DATA")
    graph = KnowledgeGraph.from_dataset(DATASETS["s2kt"]().read(Path(root) / REAL["s2kt"]))
    return TrainingData(graph, QCQ(per_question=2))


@pytest.mark.parametrize("name", [name for name in TRAINERS if isinstance(TRAINERS[name](), LanguageTrainer)])
def test_no_language_model_goes_below_its_floor_on_real_data(name):
    source = real_walks()
    cls: Any = TRAINERS[name]
    model = cls(steps=40, dim=16).fit(source)
    if model.objective is None:
        pytest.skip(f"{name} has no likelihood")
    paper = HeldOutLoss(
        source, first_walks(model.objective.held_out_batch(source.heldout, seed=0), source.heldout.n_walks, 100)
    )
    report = paper.report(model.losses(paper.batch))
    if report.excess is None:
        assert report.why
        pytest.skip(f"{name} has no floor: {report.why}")
    assert report.excess >= -3 * report.se
    assert report.loss < report.unigram + 3 * report.se  # it has learnt something, or at least unlearnt nothing


# --- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["validation", "test"])
@pytest.mark.parametrize("name", CAN_ASK)
def test_a_task_prefers_the_planted_truth_to_chance(name, stage):
    data = room(name).dataset
    hard, sharp = data.truth["difficulty"], data.truth["discrimination"]
    planted = Embeddings(data.questions, np.column_stack([data.q_matrix.toarray(), 0.2 * hard, sharp]))
    good = task(name).score(planted, stage, [planted])
    bad = task(name).score(chance(0, name), stage, [chance(1, name)])
    if not TASKS[name].of_tables:  # models without vectors: every table gets the same figures
        assert good.metrics == bad.metrics
        return
    assert good.metrics[TASKS[name].metric] > bad.metrics[TASKS[name].metric] + 0.05
    assert paired_bootstrap(good.units[TASKS[name].metric], bad.units[TASKS[name].metric]).low > 0
    for score in (good, bad):
        assert all(np.isfinite(value) for value in score.metrics.values())
        assert TASKS[name].metric in score.units
        for metric, values in score.units.items():
            assert values.dtype == np.float64
            assert score.metrics[metric] == pytest.approx(values.mean())
    assert {m: len(u) for m, u in good.units.items()} == {m: len(u) for m, u in bad.units.items()}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_answers_or_says_what_is_missing(name):
    """Two questions, nothing known about anybody."""
    w = sparse.csr_array(np.eye(2))
    with pytest.raises(EvaluationError, match=name):
        TASKS[name](Partition.make(Dataset("bare", ["a", "b"], ["c", "d"], w)))


# --- readers --------------------------------------------------------------------------------------------------------


STEP = "Anon Student Id,Problem Name,Problem View,Step Name,First Transaction Time"
MADE: dict[str, dict[str, str]] = {
    "kddcup": {
        "algebra_2005_2006_train.txt": (
            f"{STEP},Correct First Attempt,KC(Default)\n"
            "s1,P,1,a,2005-09-09 12:24:35.0,1,halves~~thirds\ns2,P,1,b,2005-09-09 12:24:36.0,0,thirds\n"
        ).replace(",", "\t")
    },
    "statics": {
        "AllData_student_step_2011F.csv": f"{STEP},First Attempt,KC (F2011)\n"
        "s1,P,1,a,2011/9/21 17:35,correct,couple\ns2,P,1,b,2011/9/21 17:36,incorrect,couple~~force\n"
    },
    "junyi": {
        "junyi_Exercise_table.csv": "name,prerequisites,topic,area\nadding,,sums,numbers\narea,adding,plane,geometry\n",
        "junyi_ProblemLog_original.csv": "user_id,exercise,time_done,correct\n1,area,1420714810324490,True\n"
        "2,adding,1403098400836660,False\n",
    },
    "edudata": {
        "item.csv": 'item_id,knowledge_code\n1,"[3, 7]"\n2,[3]\n',
        **{f"{part}.txt": "3\n1,2,1\n1,0,1\n2\n2,2,\n0,1,\n" for part in ("train", "valid", "test")},
    },
    "poj": {
        "poj_log.csv": "User,Problem,Result,Submit Time\nann,1000,Accepted,2008-01-02 03:04:05\n"
        "bob,1001,Wrong Answer,2008-01-02 03:04:06\n",
        "poj_tags.csv": "Problem,Tags\n1000,sums;loops\n1001,loops\n",
    },
    "graph": {"bank.csv": "question,concept,weight\nq1,halves,2\nq1,thirds,0.5\nq2,thirds,1\n"},
}


def sample(name: str, folder: Path) -> Path | None:
    """Something the reader can read."""
    if not DATASETS[name].needs_path:
        return None
    if name == "csv":
        (folder / "questions.csv").write_text("question,concepts\nq1,halves;thirds\nq2,thirds\n", encoding="utf-8")
        (folder / "interactions.csv").write_text("student,question,correct\ns1,q1,1\ns1,q2,0\n", encoding="utf-8")
        return folder
    if name == "ednet":
        (folder / "contents").mkdir()
        (folder / "contents" / "questions.csv").write_text("question_id,correct_answer,tags\nq1,a,1;2\nq2,b,2\n")
        (folder / "KT1").mkdir()
        rows = "timestamp,solving_id,question_id,user_answer,elapsed_time\n1,1,q1,a,2\n5,2,q2,a,2\n"
        (folder / "KT1" / "u1.csv").write_text(rows)
        return folder
    if name == "pykt":
        students = "".join(f"s{i},3\na,b,a\nx,x_y,x\n1,0,1\n1,2,3\nNA\n" for i in range(9))
        (folder / "data.txt").write_text(students)
        return folder
    if name == "edmine":
        students = "".join(f"{i}\n2\n0,1\n1,0\n" for i in range(9))
        (folder / "data.txt").write_text("user_id,seq_len;question_seq,correctness_seq\n" + students)
        np.save(folder / "Q_table.npy", np.array([[1, 0], [1, 1]]))
        return folder
    if name == "xes3g5m":
        (folder / "metadata").mkdir()
        route = '{"content": "?", "kc_routes": ["root----x"]}'
        (folder / "metadata" / "questions.json").write_text(f'{{"0": {route}, "1": {route}}}')
        (folder / "metadata" / "kc_routes_map.json").write_text('{"0": "x", "1": "root"}')
        (folder / "question_level").mkdir()
        rows = "".join(f'{fold},{uid},"0,1","0,0","1,0"\n' for uid, fold in enumerate((0, 1, 2, -1)))
        for part, keep in (("train_valid", lambda row: row[0] != "-"), ("test", lambda row: row[0] == "-")):
            text = "".join(row for row in rows.splitlines(keepends=True) if keep(row))
            head = "fold,uid,questions,concepts,responses\n"
            (folder / "question_level" / f"{part}_quelevel.csv").write_text(head + text)
        return folder
    if name in MADE:
        for file, text in MADE[name].items():
            (folder / file).write_text(text, encoding="utf-8")
        return folder / "bank.csv" if name == "graph" else folder
    root = os.environ.get("QCQ_DATA")
    if not root or not (Path(root) / REAL.get(name, name)).exists():
        pytest.skip(f"needs the real data set {REAL.get(name, name)} under $QCQ_DATA")
    return Path(root) / REAL[name]


def bytes_in(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("name", DATASETS)
def test_a_reader_gives_a_sound_data_set_and_leaves_the_files_alone(name, tmp_path):
    path = sample(name, tmp_path)
    before = bytes_in(path) if path else {}
    data = DATASETS[name]().read(path)
    assert (bytes_in(path) if path else {}) == before
    assert data.name
    assert data.q_matrix.shape == (len(data.questions), len(data.concepts))
    assert (data.q_matrix.data > 0).all()
    for ids in (data.questions, data.concepts, data.students):
        assert len(set(ids)) == len(ids)
    assert set(data.question_names) <= set(data.questions)
    assert set(data.concept_names) <= {*data.concepts, *data.parents, *data.parents.values()}
    assert KnowledgeGraph.from_dataset(data).n_edges == data.q_matrix.nnz
    seen = data.interactions
    if seen is not None:
        assert (np.diff(seen.student) >= 0).all()
        assert seen.student.max() < len(data.students)
        assert 0 <= seen.question.min() <= seen.question.max() < len(data.questions)
        assert set(np.unique(seen.correct).tolist()) <= {0, 1}
        assert seen.student.dtype == seen.question.dtype == np.int32
        assert seen.correct.dtype == np.int8
        split = data.split(0)
        assert len(split.train.interactions) <= len(seen)


def test_the_table_of_data_sets_has_a_command_for_every_format(tmp_path):
    """Every row is a command whose format is registered; the reader itself is run on a sample by the tests above."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    named = re.findall(r"`qcq run --data ([a-z0-9]+):PATH`", page.partition("\n\n`qcq run")[0])
    assert sorted(named) == sorted(name for name, kind in DATASETS.items() if kind.needs_path)


@pytest.mark.parametrize("name", [n for n in DATASETS if DATASETS[n].needs_path])
def test_a_reader_knows_when_there_is_nothing_to_read(name, tmp_path):
    reader = DATASETS[name]()
    for path in (tmp_path, tmp_path / "nowhere"):
        assert not reader.recognises(path)
        with pytest.raises(DataError):
            reader.read(path)
