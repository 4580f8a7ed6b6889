"""``qcq study``: five conjectures on why a Transformer lost to skip-gram, each measured and judged.

A conjecture's rule stands in ``qcq.conjectures`` and was fixed beforehand; here are the experiments that feed it. An
experiment is a set of named cells (a law worked out exactly, or a model trained on a walk), whose rows are kept as they
finish, so that a study that was stopped goes on where it stood. Cells that two experiments share are run once.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.chain import Chain
from qcq.config import Config
from qcq.conjectures import UNJUDGED, Measured, rulings
from qcq.corpus import Corpus
from qcq.cost import measured
from qcq.errors import ChainError, ConfigError, EvaluationError, TrainingError, UnknownNameError
from qcq.evaluation import Contest, Difference, Task, paired_bootstrap, simultaneous
from qcq.graph import KnowledgeGraph
from qcq.identifiability import inspect
from qcq.losses import Paper
from qcq.models import TRAINERS, Model, Source, Trainer
from qcq.models.language import LanguageModel, first_walks
from qcq.objectives import HIDDEN, Masked, NextQuestion, Probe
from qcq.pipeline import Experiment
from qcq.progress import Watch
from qcq.run import write
from qcq.seeds import generator
from qcq.settings import settings
from qcq.walks import QCQ, ConceptHop, Metapath, Session, WalkStrategy
from qcq.walks.tables import Tables

Row = dict[str, Any]
Units = dict[str, NDArray[np.float64]]

TASKS = ("edges", "difficulty", "kt-fast")
HEADLINE = ("edges/mrr", "difficulty/r2", "kt-fast/auc")
WIDTHS = (1, 2, 5)  # how many tokens to either side a prediction may see
FAR = 5  # steps between far-apart questions
LAW_WALKS = 300  # walks on which exact posteriors are asked
LOSS_WALKS = 400  # held-out walks on which a loss is measured, the same for all
# Steps that take about as long as one of mlm's (experiments/objectives.toml)
EQUAL_COMPUTE = {"mlm": 1.0, "cloze": 0.61, "clm": 0.58, "bilm": 0.42, "rtd": 0.5}
RICHER: Mapping[str, str] = {
    "difficulty": "0.6*q-c-q + 0.4*q-d-q",
    "students and order": "0.4*q-c-q + 0.3*q-q + 0.3*q-s-q",
}
# The note's own settings: experiments/note.toml
NOTE: Mapping[str, Any] = {
    "layers": 1,
    "heads": 4,
    "norm": "post",
    "dropout": 0.1,
    "position": "absolute",
    "tying": "tied",
    "init": 0.16,
    "softmax": "full",
    "mask_rate": 0.15,
    "mask_share": 0.8,
    "random_share": 0.1,
    "lr": 1e-3,
    "table_lr": 1e-3,
}
# One change each, away from the trap that it may be
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "two layers": {"layers": 2},
    "tables not tied": {"tying": "start"},
    "40 % masked": {"mask_rate": 0.4},
    "faster tables": {"table_lr": 5e-2},
    "neighbours first": {"position": "local"},
}


@settings
class Size:
    """How much of a study is run.

    Parameters
    ----------
    steps : of a masked model; the others get what takes equally long.
    per_question : walks a question.
    seeds : of skip-gram. A language model has one.
    windows : of skip-gram.
    lengths : of walks, at about 40 * per_question tokens a question.
    kt : whether the five objectives are judged by the task ``kt`` too (minutes a model on real data).
    """

    steps: int
    per_question: int = 3
    seeds: int = 3
    windows: tuple[int, ...] = (1, 2, 5, 10)
    lengths: tuple[int, ...] = (5, 10, 20, 80)
    kt: bool = False


SIZES: dict[str, Size] = {
    "small": Size(steps=300, per_question=5, windows=(1, 5, 10), lengths=(5, 20)),
    "medium": Size(steps=1500, lengths=(5, 20, 60)),
    "full": Size(steps=8000, per_question=10, windows=(1, 2, 3, 5, 10, 20), kt=True),
}


@settings
class Shuffled(WalkStrategy):
    """Another walk with the tokens of each walk in random order: what is left when only "in one walk" is known.

    Parameters
    ----------
    walk : the walk whose order is destroyed.
    """

    name: ClassVar[str] = "shuffled"

    walk: WalkStrategy = field(default_factory=QCQ)

    def prepare(self, graph: KnowledgeGraph, train: Any) -> KnowledgeGraph:
        return self.walk.prepare(graph, train)

    def tables(self, graph: KnowledgeGraph) -> Tables:
        return self.walk.tables(graph)

    def sample(self, graph: KnowledgeGraph, seed: int = 0, *, limit: int | None = None) -> Corpus:
        return self._mixed(self.walk.sample(graph, seed, limit=limit))

    def heldout(self, graph: KnowledgeGraph, seed: int, limit: int) -> Corpus:
        return self._mixed(self.walk.heldout(graph, seed, limit))

    def chain(self, graph: KnowledgeGraph) -> Chain:
        raise ChainError("no exact chain for shuffled walks: their order is gone")

    def _mixed(self, corpus: Corpus) -> Corpus:
        tokens = corpus.tokens
        key = generator(corpus.seed, "shuffled").random(tokens.shape)
        mixed = np.take_along_axis(tokens, np.argsort(np.where(tokens < 0, 2.0, key), axis=1), axis=1)  # pads stay last
        about = {"name": self.name, **self.config}
        return Corpus([mixed], corpus.n_questions, corpus.n_concepts, corpus.graph_digest, about, corpus.seed)

    @property
    def config(self) -> dict[str, Any]:
        return {"walk": {"name": self.walk.name, **self.walk.config}}


# ------------------------------------------------------------------------------------------------------------- cells


class Bench:
    """One data set with all that its cells share: graph, tasks, walks, and held-out papers with their floors.

    Parameters
    ----------
    experiment : gives data, division and tasks.
    watch : who is told of progress.
    """

    def __init__(self, experiment: Experiment, watch: Watch) -> None:
        self.experiment, self.watch = experiment, watch
        self.problem, self.name = experiment.problem, experiment.data.name
        self._sources: dict[str, Source] = {}
        self._papers: dict[str, Paper] = {}

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks that this data set can answer."""
        return self.experiment.tasks(self.watch)[0]

    @property
    def has_students(self) -> bool:
        """Whether there are answers in order: for sessions, typed edges and knowledge tracing."""
        split = self.problem.split
        return split is not None and split.train.interactions.ordered

    def source(self, walk: WalkStrategy, seed: int) -> Source:
        """The walks of one seed, sampled once."""
        key = json.dumps([walk.name, walk.config, seed])
        if key not in self._sources:
            split = self.problem.split
            graph = walk.prepare(self.problem.graph, None if split is None else split.train)
            self._sources[key] = Source(graph, walk, seed)
        return self._sources[key]

    def paper(self, source: Source, model: Model) -> Paper:
        """The model's own paper over the source's held-out walks, with its floor worked out once."""
        assert model.objective is not None
        asked = model.objective
        key = f"{id(source)} {asked.name} {getattr(asked, 'window', '')} {getattr(asked, 'ordered', '')}"
        if key not in self._papers:
            self._papers[key] = Paper(source, first(asked.probe(source.heldout, 0), source.heldout.n_walks))
        return self._papers[key]

    def describe(self) -> Row:
        """Size and kind of the data, for the page."""
        data = self.experiment.data
        answers = data.interactions
        return {
            "questions": len(data.questions),
            "concepts": len(data.concepts),
            "students": len(data.students),
            "responses": 0 if answers is None else len(answers),
        }


def first(probe: Probe, n_walks: int) -> Probe:
    """The questions of a paper over ``n_walks`` walks that are about the first LOSS_WALKS of them: an exact floor over
    thousands of students takes minutes for a paper of all."""
    if probe.asked is not None:
        twice = len(probe.asked) // n_walks  # a paper of both directions holds each walk twice
        return first_walks(probe, twice * LOSS_WALKS)
    assert probe.pairs is not None
    assert probe.apart is not None
    kept = probe.walk < LOSS_WALKS
    return replace(probe, pairs=probe.pairs[kept], walk=probe.walk[kept], apart=probe.apart[kept])


class Cell(ABC):
    """One thing to work out. Its settings are all that its result hangs on beside the data."""

    @abstractmethod
    def about(self) -> Row:
        """What it is, as plain values."""

    @abstractmethod
    def run(self, bench: Bench) -> tuple[Row, Units]:
        """The row of results, and figures unit by unit."""


@dataclass(frozen=True)
class Law(Cell):
    """What the exact law of a walk says, before anything is trained.

    Parameters
    ----------
    walk : whose.
    """

    walk: WalkStrategy

    def about(self) -> Row:
        return {"law of": self.walk.name, **self.walk.config, "walks asked": LAW_WALKS}

    def run(self, bench: Bench) -> tuple[Row, Units]:
        graph = bench.source(self.walk, 0).graph
        found = inspect(graph, self.walk)
        apart = found["mutual_information_above_components"]
        row: Row = {
            "information": found["mutual_information"],
            "above_components": apart,
            "component_entropy": found["component_entropy"],
            "entropy": found["unigram"],
            "exchangeable": found["indistinguishable_share"],
            "notes": found["notes"],
        }
        if len(apart) >= FAR:
            row["fading"] = apart[FAR - 1] / apart[0] if apart[0] > 1e-9 else 0.0
        try:
            row["near"] = {str(w): asdict(n) for w, n in nearness(graph, self.walk, found["component_entropy"]).items()}
            row["direction"] = direction(replace(self.walk, start="degree"), graph)
        except (ChainError, ConfigError) as none:
            row["notes"] = [*row["notes"], str(none)]
        return row, {}


def nearness(
    graph: KnowledgeGraph, walk: WalkStrategy, component: float, walks: int = LAW_WALKS, seed: int = 0
) -> dict[int, Measured]:
    """Of what all other tokens say of the middle question beyond its component, the share that the w nearest on either
    side say: 1 - I(X; all | w nearest) / (I(X; all) - H(component)), from exact posteriors on sampled walks.

    Parameters
    ----------
    graph, walk : what is walked, and how; with an exact chain.
    component : entropy of the component, nats.
    walks : how many are sampled.
    seed : which.
    """
    chain = walk.chain(graph)
    tokens = walk.sample(graph, seed, limit=walks).tokens
    tokens = tokens[(tokens >= 0).all(axis=1)]
    middle = tokens.shape[1] // 2
    asked = np.zeros(tokens.shape, dtype=bool)
    asked[:, middle] = True
    away = np.abs(np.arange(tokens.shape[1]) - middle)
    every = chain.log_posterior(tokens, asked, tokens, tokens)
    alone = chain.log_posterior(tokens, asked, None, None)
    said = float((every - alone).mean()) - component
    out = {}
    for width in WIDTHS:
        seen = np.where(away <= width, tokens, HIDDEN)
        lost = paired_bootstrap(every, chain.log_posterior(tokens, asked, seen, seen), seed=seed)
        if said <= 1e-9 or lost.high - lost.low < 1e-9:  # nothing is said, or the nearest say all of it
            out[width] = Measured(1.0 if said <= 1e-9 else 1.0 - lost.mean / said)
        else:
            out[width] = Measured(1 - lost.mean / said, 1 - lost.high / said, 1 - lost.low / said)
    return out


def direction(walk: WalkStrategy, graph: KnowledgeGraph, seed: int = 0) -> float:
    """Nats a token that a walk's exact law gives away when its walks are read backwards: 0 where it is reversible."""
    return backwards(walk.chain(graph), walk.sample(graph, seed, limit=LAW_WALKS).tokens)


def backwards(chain: Chain, tokens: NDArray[np.int32]) -> float:
    """Mean of ln p(walk) - ln p(walk read backwards) a token, for whole walks of the chain's own law."""
    tokens = tokens[(tokens >= 0).all(axis=1)]

    def log_likelihood(walks: NDArray[np.int32]) -> NDArray[np.float64]:
        after = np.zeros(walks.shape, dtype=bool)
        after[:, 1:] = True
        steps = chain.log_posterior(walks, after, walks, None).reshape(len(walks), -1)
        return steps.sum(axis=1) + np.log(chain.marginal(0)[walks[:, 0]])

    turned = np.ascontiguousarray(tokens[:, ::-1])
    return float((log_likelihood(tokens) - log_likelihood(turned)).mean() / tokens.shape[1])


@dataclass(frozen=True)
class Trained(Cell):
    """A model trained on a walk, judged by its loss against the floor and by tasks.

    Parameters
    ----------
    trainer : the name it is registered under.
    changes : its settings where they differ from the defaults.
    walk : what it is trained on.
    seed : of walks and training.
    tasks : who judges its vectors, as far as the data set can answer them.
    marked : whether its loss is read against its floor. The exact floor of a walk over thousands of students takes an
        hour.
    """

    trainer: str
    walk: WalkStrategy
    changes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    tasks: tuple[str, ...] = TASKS
    marked: bool = True

    @property
    def made(self) -> Trainer:
        return TRAINERS[self.trainer](**self.changes)

    def about(self) -> Row:
        walk = {"name": self.walk.name, **self.walk.config}
        return {
            "trainer": self.trainer,
            **self.made.config,
            "walk": walk,
            "seed of both": self.seed,
            "tasks": list(self.tasks),
            "loss on walks": LOSS_WALKS if self.marked else 0,
        }

    def run(self, bench: Bench) -> tuple[Row, Units]:
        source = bench.source(self.walk, self.seed)
        _ = source.corpus  # sampling is not the trainer's cost
        with bench.watch.progress(f"{bench.name}: {self.trainer}") as progress, measured() as cost:
            model = self.made.fit(source, self.seed, progress)
        row: Row = {"seconds": round(cost.seconds, 2), "tokens": model.tokens}
        units: Units = {}
        if self.marked and model.objective is not None:
            paper = bench.paper(source, model)
            losses = model.losses(paper.probe)
            report = paper.mark(losses, model.history)
            kept = ("objective", "loss", "floor", "excess", "se", "unigram", "verdict")
            row |= {key: getattr(report, key) for key in kept}
            n = source.heldout.n_walks
            units["loss"] = by_walk(losses if paper.floor is None else losses - paper.floor, paper.probe.walk, n)
        row |= self._looks(model, source, units)
        judged, readout = self._judged(bench, model, source)
        row |= {"readout": readout, "scores": {}}
        for task, score in judged.items():
            row["scores"] |= {f"{task}/{metric}": float(value) for metric, value in score.metrics.items()}
            units |= {f"{task}/{metric}": value for metric, value in score.units.items()}
        return row, units

    def _looks(self, model: Model, source: Source, units: Units) -> Row:
        """Where a masked model looks, what it can do in a smaller window, and what another reads backwards."""
        if not isinstance(model, LanguageModel):
            return {}
        tokens = source.heldout.tokens[:LOSS_WALKS]
        if isinstance(model.objective, NextQuestion):
            turned = np.full_like(tokens, -1)
            for n in np.unique((tokens >= 0).sum(axis=1)):  # pads stay last
                mine = (tokens >= 0).sum(axis=1) == n
                turned[mine, :n] = tokens[mine, :n][:, ::-1]
            both = []
            for walks in (tokens, turned):
                probe = model.objective.probe(replace_tokens(source.heldout, walks))
                both.append(by_walk(model.losses(probe), probe.walk, len(walks)))
            lost = _found(paired_bootstrap(*(x[np.isfinite(both[0])] for x in both[::-1])))
            return {"backwards": asdict(lost)}
        if self.trainer != "mlm":
            return {}
        asked = model.objective.probe(source.heldout, 0)
        row: Row = {"attention": [float(a) for a in model.attention(asked)]}
        if self.changes.get("position", "local") in ("relative", "local"):
            row["window"] = {str(w): asdict(m) for w, m in in_windows(model, tokens).items()}
        return row

    def _judged(self, bench: Bench, model: Model, source: Source) -> tuple[dict[str, Any], str]:
        """Test scores of the read-out that is best on validation (by the tasks that take no students to answer)."""
        tasks = {name: task for name, task in bench.tasks.items() if name in self.tasks}
        judges = [task for task in tasks.values() if task.tunes and not task.of_students]
        best, chosen = -np.inf, model.readouts[0]
        for readout in model.readouts if judges else ():
            emb = source.walk.fold(bench.problem.graph, model.embeddings(readout))
            mean = float(np.mean([task.score(emb, "validation").metrics[task.metric] for task in judges]))
            if mean > best:
                best, chosen = mean, readout
        emb = source.walk.fold(bench.problem.graph, model.embeddings(chosen))
        return {name: task.score(emb, "test") for name, task in tasks.items()}, chosen


def by_walk(values: NDArray[np.float64], walk: NDArray, n: int) -> NDArray[np.float64]:
    """Mean of ``values`` (items,) a walk: float64 (n,), NaN where a walk has none."""
    count = np.bincount(walk, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.bincount(walk, values, minlength=n) / count)


def replace_tokens(corpus: Corpus, tokens: NDArray[np.int32]) -> Corpus:
    """The same corpus with other tokens."""
    return Corpus([tokens], corpus.n_questions, corpus.n_concepts, corpus.graph_digest, corpus.strategy, corpus.seed)


def in_windows(model: LanguageModel, tokens: NDArray[np.int32]) -> dict[int, Measured]:
    """What a trained model loses at the middle question seeing only the w nearest tokens on either side, less what it
    loses there seeing the whole walk: nats by w. Below 0, the rest of the walk confuses it."""
    tokens = tokens[(tokens >= 0).all(axis=1)]
    if len(tokens) == 0:
        return {}
    middle = tokens.shape[1] // 2

    def losses(walks: NDArray[np.int32], at: int) -> NDArray[np.float64]:
        asked = np.zeros(walks.shape, dtype=bool)
        asked[:, at] = True
        return model.losses(Probe(Masked(), walks, np.arange(len(walks)), asked=asked))

    whole = losses(tokens, middle)
    out = {}
    for w in WIDTHS:
        if middle >= w and middle + w < tokens.shape[1]:
            near = np.ascontiguousarray(tokens[:, middle - w : middle + w + 1])
            out[w] = _found(paired_bootstrap(losses(near, w), whole))
    return out


def _found(d: Difference) -> Measured:
    return Measured(d.mean, d.low, d.high)


# ------------------------------------------------------------------------------------------------------- experiments

Cells = Mapping[str, Sequence[Cell]]  # a name's cells differ in their seed alone


@dataclass(frozen=True, eq=False)
class Found:
    """The finished cells of one experiment on one data set.

    Attributes
    ----------
    rows : name → its rows, one a seed.
    units : name → its figures unit by unit, one mapping a seed.
    """

    rows: Mapping[str, Sequence[Row]]
    units: Mapping[str, Sequence[Units]]

    def row(self, name: str) -> Row:
        """The first seed's row.

        Raises
        ------
        EvaluationError : the cell failed; the text says why.
        """
        row = self.rows[name][0]
        if "error" in row:
            raise EvaluationError(f"{name}: {row['error']}")
        return row

    def figure(self, name: str, key: str) -> NDArray[np.float64] | None:
        """Figures unit by unit, averaged over the seeds that have them: float64 (units,)."""
        self.row(name)
        held = [units[key] for units in self.units[name] if key in units]
        return np.mean(held, axis=0) if held else None

    def differences(self, pairs: Mapping[str, tuple[str, str, str]]) -> dict[str, Measured]:
        """Ours less theirs, for each (ours, theirs, figure): intervals that hold at once. Left out where not scored.

        A higher score is better; a higher ``loss`` is worse.
        """
        contests, names = [], []
        for name, (ours, theirs, key) in pairs.items():
            a, b = self.figure(ours, key), self.figure(theirs, key)
            if a is None or b is None:
                continue
            both = np.isfinite(a) & np.isfinite(b)
            contests.append(Contest(np.stack([a[both], b[both]]), [(0, 1)]))
            names.append(name)
        if not contests:
            return {}
        return {name: _found(d[0]) for name, d in zip(names, simultaneous(contests), strict=True)}

    def shares(self, whole: str, names: Sequence[str]) -> dict[str, Measured]:
        """The share r of the excess of ``whole`` that is gone in each other cell: intervals of the ratio that hold at
        once, from what is left of (1 - r) whole - other walk by walk, whose mean is 0 (the delta method)."""
        n, contests, ratios = self.figure(whole, "loss"), [], []
        for name in names:
            e = self.figure(name, "loss")
            if n is None or e is None:
                raise EvaluationError(f"{name}: a loss without a floor has no excess")
            both = np.isfinite(n) & np.isfinite(e)
            all_of_it = max(float(n[both].mean()), 1e-9)
            share = 1 - float(e[both].mean()) / all_of_it
            contests.append(Contest(np.stack([n[both] * (1 - share), e[both]]), [(0, 1)]))
            ratios.append((share, all_of_it))
        away = [d[0] for d in simultaneous(contests)]
        return {
            name: Measured(share, share + (d.low - d.mean) / of, share + (d.high - d.mean) / of)
            for name, (share, of), d in zip(names, ratios, away, strict=True)
        }


@dataclass(frozen=True)
class Inquiry:
    """How a conjecture is measured: its cells, and the figures that its rule takes from them."""

    cells: Callable[[Size, Bench], Cells]
    measures: Callable[[Found], dict[str, Measured]]


def _qcq(size: Size, **changes: Any) -> QCQ:
    return QCQ(per_question=size.per_question, **changes)


def _lm(
    size: Size, name: str = "mlm", walk: WalkStrategy | None = None, share: float = 1.0, **changes: Any
) -> list[Cell]:
    """One language model. Without changes its vectors are judged by ``kt-fast`` too, which takes longest."""
    steps = max(1, round(size.steps * EQUAL_COMPUTE[name] * share))
    tasks: tuple[str, ...] = TASKS[:2]
    if walk is None and not changes:
        tasks = (*TASKS, "kt") if size.kt else TASKS
    return [Trained(name, walk or _qcq(size), {"steps": steps, **changes}, tasks=tasks)]


def _sgns(size: Size, walk: WalkStrategy, traced: bool = False, marked: bool = True, **changes: Any) -> list[Cell]:
    """Skip-gram, a cell a seed; ``traced``: judged by knowledge tracing too."""
    tasks = TASKS if traced else TASKS[:2]
    return [Trained("sgns", walk, {"threads": 1, **changes}, seed, tasks, marked) for seed in range(size.seeds)]


def _far_cells(size: Size, bench: Bench) -> Cells:
    tokens = 40 * size.per_question
    lengths = {n: QCQ(length=n, per_question=max(1, round(tokens / n))) for n in size.lengths}
    return {
        "law of qcq": [Law(_qcq(size))],
        "law of concept-hop": [Law(ConceptHop(per_question=size.per_question))],
        **{f"sgns, window {w}": _sgns(size, _qcq(size), window=w) for w in size.windows},
        **{f"sgns, walks of {n}": _sgns(size, walk) for n, walk in lengths.items()},
        "mlm": _lm(size),
        "mlm, relative": _lm(size, position="relative"),
    }


def _exact(found: Found) -> Row:
    """The law of qcq, where its chain is small enough to be worked out."""
    law = found.row("law of qcq")
    if "near" not in law or "fading" not in law:
        raise EvaluationError(f"the exact law of qcq isn't known here: {'; '.join(law['notes']) or 'short walks'}")
    return law


def _far_measures(found: Found) -> dict[str, Measured]:
    law = _exact(found)
    out = {"near": Measured(**law["near"]["1"]), "fading": Measured(law["fading"])}
    widths = [name for name in found.rows if name.startswith("sgns, window")]
    lengths = [name for name in found.rows if name.startswith("sgns, walks of")]
    pairs = {f"widest window {key}": (widths[-1], widths[0], key) for key in HEADLINE[:2]}
    pairs |= {f"longest walks {key}": (lengths[-1], lengths[0], key) for key in HEADLINE[:2]}
    out |= found.differences(pairs)
    look = np.array(found.row("mlm")["attention"])
    start = np.array(found.row("mlm, relative")["attention"])
    out |= {"attention within 2, local": Measured(float(look[1:3].sum()))}
    out |= {"attention within 2, relative": Measured(float(start[1:3].sum()))}
    windows = found.row("mlm").get("window", {})
    return out | {f"loss of mlm seeing {w} on either side less all": Measured(**m) for w, m in windows.items()}


def _order_cells(size: Size, bench: Bench) -> Cells:
    walk = _qcq(size)
    cells: dict[str, Sequence[Cell]] = {
        "law of qcq": [Law(walk)],
        "mlm": _lm(size),
        **{f"mlm, {p}": _lm(size, position=p) for p in ("none", "absolute", "relative")},
        "mlm, shuffled walks": _lm(size, walk=Shuffled(walk=walk)),
        "clm": _lm(size, "clm"),
        "sgns": _sgns(size, walk, traced=True),
        "sgns, ordered": _sgns(size, walk, ordered=True),
        "sgns, shuffled walks": _sgns(size, Shuffled(walk=walk)),
        "sgns on concept-hop": _sgns(size, ConceptHop(per_question=size.per_question), traced=True, marked=False),
    }
    if bench.has_students:
        mixtures = {name: Metapath(pattern=p, per_question=size.per_question) for name, p in RICHER.items()}
        session = Session()
        cells |= {f"sgns on {name}": _sgns(size, walk, traced=True, marked=False) for name, walk in mixtures.items()}
        cells |= {
            "mlm, session": _lm(size, walk=session, share=0.5),
            "mlm, shuffled session": _lm(size, walk=Shuffled(walk=session), share=0.5),
            "clm, session": _lm(size, "clm", walk=session, share=0.5),
            "sgns, session": _sgns(size, session),
            "sgns, ordered session": _sgns(size, session, ordered=True),
        }
    return cells


def _order_measures(found: Found) -> dict[str, Measured]:
    law = _exact(found)
    out = {"direction": Measured(law["direction"]), "exchangeable": Measured(law["exchangeable"])}
    richer = [name for name in found.rows if name.startswith("sgns on ")]
    key = HEADLINE[2]
    gains = {f"gain {name.removeprefix('sgns on ')}": (name, "sgns", key) for name in richer}
    out |= found.differences(gains)
    out |= found.differences(
        {
            "place": ("mlm, none", "mlm", "loss"),
            "place, absolute": ("mlm, absolute", "mlm", "loss"),
            "place, relative": ("mlm, relative", "mlm", "loss"),
        }
    )
    pairs = {f"shuffled walks {key}": ("sgns, shuffled walks", "sgns", key) for key in HEADLINE[:2]}
    pairs |= {f"ordered {key}": ("sgns, ordered", "sgns", key) for key in HEADLINE[:2]}
    pairs |= {f"mlm on shuffled walks {key}": ("mlm, shuffled walks", "mlm", key) for key in HEADLINE[:2]}
    out |= found.differences(pairs)
    out["backwards, qcq"] = Measured(**found.row("clm")["backwards"])
    if "clm, session" in found.rows:
        out["backwards, session"] = Measured(**found.row("clm, session")["backwards"])
        out |= found.differences({"shuffled session": ("mlm, shuffled session", "mlm, session", "loss")})
        pairs = {f"ordered session {key}": ("sgns, ordered session", "sgns, session", key) for key in HEADLINE[:2]}
        out |= found.differences(pairs)
    return out


_LOSSES = {"full softmax": "full", "negative sampling": "negative-sampling", "gbce": "gbce"}


def _weak_cells(size: Size, bench: Bench) -> Cells:
    return {
        "law of qcq": [Law(_qcq(size))],
        **{f"mlm, {name}": _lm(size, softmax=loss) for name, loss in _LOSSES.items()},
        "mlm, sampled softmax": _lm(size),
        "sgns": _sgns(size, _qcq(size), traced=True),
    }


def _weak_measures(found: Found) -> dict[str, Measured]:
    law = found.row("law of qcq")
    step = law["information"][0]
    out = {"information a step": Measured(step), "share of the entropy": Measured(step / max(law["entropy"], 1e-9))}
    out["above components"] = Measured(law["above_components"][0])
    # Edges where they can be held out, else difficulty: whichever comes first.
    scores = {key: ("mlm, negative sampling", "mlm, full softmax", key) for key in HEADLINE[:2]}
    made = found.differences(scores | {"loss": ("mlm, negative sampling", "mlm, full softmax", "loss")})
    key = next((key for key in HEADLINE[:2] if key in made), None)
    if key is None:
        raise EvaluationError("neither edges nor difficulty can be scored here, so vectors can't be compared")
    out |= {"vectors": made[key], "loss": made["loss"]}
    for name in ("gbce", "sampled softmax"):
        pairs = {f"{name}, {what}": (f"mlm, {name}", "mlm, full softmax", what) for what in (key, "loss")}
        out |= found.differences(pairs)
    for name in ("sgns", "mlm, negative sampling", "mlm, full softmax"):
        out[f"excess of {name}"] = _excess(found.row(name))
    return out


def _excess(row: Row) -> Measured:
    if row.get("excess") is None:
        raise EvaluationError("a loss without a floor has no excess")
    reach = 1.96 * row["se"]
    return Measured(row["excess"], row["excess"] - reach, row["excess"] + reach)


def _objective_cells(size: Size, bench: Bench) -> Cells:
    return {name: _lm(size, name) for name in EQUAL_COMPUTE}


def _objective_measures(found: Found) -> dict[str, Measured]:
    keys = (*HEADLINE, "kt/auc")
    pairs = {f"clm-{other} {key}": ("clm", other, key) for other in ("mlm", "cloze") for key in keys}
    out = found.differences(pairs)
    if not out:
        raise EvaluationError("no task can be scored here, so vectors can't be compared")
    return out | {f"excess of {name}": _excess(found.row(name)) for name in ("mlm", "cloze", "clm", "bilm")}


def _traps_cells(size: Size, bench: Bench) -> Cells:
    def note(walk: WalkStrategy | None = None, share: float = 1.0, **changes: Any) -> list[Cell]:
        return _lm(size, walk=walk, share=share, **{**NOTE, **changes})

    return {
        "the note": note(),
        **{name: note(**change) for name, change in CHANGES.items()},
        "one walk a question": note(QCQ(per_question=1)),
        "twice the steps": note(share=2.0),
        "all changes": _lm(size),
        "added": _lm(size, position="absolute"),
        "concatenated": _lm(size, position="absolute", combine="concatenate"),
    }


def _traps_measures(found: Found) -> dict[str, Measured]:
    note = _excess(found.row("the note"))
    changed = [name for name in found.rows if name not in ("the note", "added", "concatenated")]
    same = [name for name in changed if name != "one walk a question"]  # other walks, other held-out walks
    shares = found.shares("the note", same)
    out = {"note": note, "explained": shares.pop("all changes")}
    out |= {f"explained by {name}": share for name, share in shares.items()}
    other = _excess(found.row("one walk a question"))
    out["one walk a question, excess"] = other
    return out | found.differences({"added": ("added", "concatenated", "loss")})


INQUIRIES: dict[str, Inquiry] = {
    "far": Inquiry(_far_cells, _far_measures),
    "order": Inquiry(_order_cells, _order_measures),
    "weak": Inquiry(_weak_cells, _weak_measures),
    "objective": Inquiry(_objective_cells, _objective_measures),
    "traps": Inquiry(_traps_cells, _traps_measures),
}

# ------------------------------------------------------------------------------------------------------------- a study


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
        dict : what ``study.json`` holds; :func:`qcq.conjectures.rulings` reads the verdicts off it.
        """
        from qcq.report.study import write_study

        watch, out = watch or Watch(), Path(out)
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
        for bench in benches:
            results["data"][bench.name] = bench.describe()
            for name in self.only or INQUIRIES:
                results["found"].setdefault(name, {})[bench.name] = _inquire(
                    INQUIRIES[name], size, bench, out / "cells"
                )
                ruled = rulings(results["found"][name], name)[1].get(bench.name, UNJUDGED)
                watch.say(f"{bench.name} · {name}: {ruled.verdict}")
                write(out / "study.json", json.dumps(results, indent=1) + "\n")
            write_study(results, out)
        return results


def _inquire(inquiry: Inquiry, size: Size, bench: Bench, folder: Path) -> Row:
    """One experiment on one data set: its cells' rows, its figures, or why there are none."""
    cells = inquiry.cells(size, bench)
    held = {name: [_finished(cell, name, bench, folder) for cell in each] for name, each in cells.items()}
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


def _finished(cell: Cell, name: str, bench: Bench, folder: Path) -> tuple[Row, Units]:
    """A cell's row and units: from the folder where they are kept, else worked out and kept."""
    about = [type(cell).__name__, cell.about(), bench.experiment.digest, metadata.version("qcq")]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path, arrays = folder / f"{digest}.json", folder / f"{digest}.npz"
    if not path.exists():
        try:
            row, units = cell.run(bench)
        except TrainingError as error:
            row, units = {"error": str(error)}, {}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(arrays, **units)  # type: ignore[arg-type]
        write(path, json.dumps({"of": about, **row}) + "\n")  # last: it says that the cell is whole
        bench.watch.say(f"{bench.name} · {name}: {_headline(row)}")
    row = json.loads(path.read_text(encoding="utf-8"))
    with np.load(arrays) as held:
        return {key: value for key, value in row.items() if key != "of"}, {key: held[key] for key in held.files}


def _headline(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    shown = {"excess": row.get("excess"), **{key: row.get("scores", {}).get(key) for key in HEADLINE}}
    return ", ".join(f"{key} {value:.3f}" for key, value in shown.items() if value is not None) or "done"


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
