"""What a study is made of: a law worked out exactly, or a model trained on a walk and judged.

A cell's row is kept as it finishes, under a digest of all that it hangs on, so that a study that was stopped goes on
where it stood, and cells that two experiments share are run once.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import HIDDEN, Corpus
from qcq.errors import ChainError, ConfigError, TrainingError
from qcq.evaluation import Difference, Task, paired_bootstrap
from qcq.floors.chain import Chain
from qcq.floors.identifiability import inspect
from qcq.floors.losses import Paper
from qcq.floors.objectives import Masked, NextQuestion, Probe
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Model, Source, Trainer
from qcq.models.language.trainers import LanguageModel, first_walks
from qcq.pipeline import Experiment
from qcq.study.conjectures import Measured
from qcq.support.cost import measured
from qcq.support.files import write_text
from qcq.support.progress import Watch
from qcq.walks import WalkStrategy

Row = dict[str, Any]
Units = dict[str, NDArray[np.float64]]

TASKS = ("edges", "difficulty", "kt-fast")
HEADLINE = ("edges/mrr", "difficulty/r2", "kt-fast/auc")
WIDTHS = (1, 2, 5)  # how many tokens to either side a prediction may see
FAR = 5  # steps between far-apart questions
LAW_WALKS = 300  # walks on which exact posteriors are asked
LOSS_WALKS = 400  # held-out walks on which a loss is measured, the same for all


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

    def finished(self, name: str, bench: Bench, folder: Path) -> tuple[Row, Units]:
        """The row and units: from the folder where they are kept, else worked out and kept.

        Parameters
        ----------
        name : what the experiment calls this cell, for whoever watches.
        bench : the data set.
        folder : where finished cells are.
        """
        about = [type(self).__name__, self.about(), bench.experiment.digest, metadata.version("qcq")]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path, arrays = folder / f"{digest}.json", folder / f"{digest}.npz"
        if not path.exists():
            try:
                row, units = self.run(bench)
            except TrainingError as error:
                row, units = {"error": str(error)}, {}
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(arrays, **units)  # type: ignore[arg-type]
            write_text(path, json.dumps({"of": about, **row}) + "\n")  # last: it says that the cell is whole
            bench.watch.say(f"{bench.name} · {name}: {_headline(row)}")
        row = json.loads(path.read_text(encoding="utf-8"))
        with np.load(arrays) as held:
            return {key: value for key, value in row.items() if key != "of"}, {key: held[key] for key in held.files}


def _headline(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    shown = {"excess": row.get("excess"), **{key: row.get("scores", {}).get(key) for key in HEADLINE}}
    return ", ".join(f"{key} {value:.3f}" for key, value in shown.items() if value is not None) or "done"


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
            lost = interval(paired_bootstrap(*(x[np.isfinite(both[0])] for x in both[::-1])))
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
            out[w] = interval(paired_bootstrap(losses(near, w), whole))
    return out


def interval(d: Difference) -> Measured:
    """A difference as a figure of the study."""
    return Measured(d.mean, d.low, d.high)
