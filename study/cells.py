"""What a study is made of: an exact distribution of walks, or a model trained on a walk and scored, each as cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import HIDDEN, Corpus
from qcq.engine import Cell, Outcome, Row, Store
from qcq.engine.kinds import Chosen, OnData, Scored, Trained, Walked, mean_by_walk
from qcq.errors import ChainError, ConfigError, QCQError
from qcq.evaluation import Difference, TaskSpec, paired_bootstrap
from qcq.floors.chain import Chain
from qcq.floors.identifiability import inspect
from qcq.floors.objectives import HeldOutBatch, Masked, NextQuestion
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Model, TrainingData
from qcq.models.language.trainers import LanguageModel
from qcq.pipeline import Experiment
from qcq.study.conjectures import Measured
from qcq.support.progress import Progress
from qcq.walks import WalkStrategy

Units = dict[str, NDArray[np.float64]]

TASKS = ("edges", "difficulty", "kt-fast")
HEADLINE = ("edges/mrr", "difficulty/r2", "kt-fast/auc")
WIDTHS = (1, 2, 5)  # how many tokens to either side a prediction may see
FAR = 5  # steps between distant questions
LAW_WALKS = 300  # walks for which exact posteriors are computed
LOSS_WALKS = 400  # held-out walks on which a loss is measured: an exact floor over thousands of students takes minutes


@dataclass(frozen=True, eq=False)
class StudyData:
    """One data set of a study.

    Parameters
    ----------
    experiment : gives data, split and tasks.
    """

    experiment: Experiment

    @property
    def name(self) -> str:
        return self.experiment.data.name

    @property
    def digest(self) -> str:
        return self.experiment.partition.digest

    @property
    def has_students(self) -> bool:
        """Whether there are answers in order: for sessions, typed edges and knowledge tracing."""
        split = self.experiment.partition.split
        return split is not None and split.train.interactions.ordered

    def tasks(self, names: tuple[str, ...]) -> list[TaskSpec]:
        """Those of the tasks that this data set can answer."""
        return [each for each in self.experiment.tasks if each.name in names]

    def walked(self, walk: WalkStrategy, seed: int) -> Walked:
        """The walks of one seed."""
        split = self.experiment.partition.split
        graph = walk.prepare(self.experiment.partition.graph, None if split is None else split.train)
        label = f"{self.name}: walks of {walk.name}, seed {seed}"
        return Walked(data=self.digest, walk=walk, seed=seed, graph=graph.digest, label=label)

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


class Trial(ABC):
    """One line of a study's experiment: the cells that it needs, and the figures taken from them."""

    @abstractmethod
    def cells(self, data: StudyData) -> list[Cell]:
        """The cells; the plan adds the cells that they read."""

    @abstractmethod
    def read(self, data: StudyData, outcome: Outcome) -> tuple[Row, Units]:
        """The row of results, and the figures of each unit.

        Raises
        ------
        QCQError : a cell failed.
        """

    def result(self, data: StudyData, outcome: Outcome) -> tuple[Row, Units]:
        """:meth:`read`, or a row that says why there are no results."""
        try:
            return self.read(data, outcome)
        except QCQError as error:
            return {"error": str(error)}, {}


def headline(row: Row) -> str:
    """A row in one line."""
    if "error" in row:
        return f"failed: {row['error']}"
    shown = {"excess": row.get("excess"), **{key: row.get("scores", {}).get(key) for key in HEADLINE}}
    return ", ".join(f"{key} {value:.3f}" for key, value in shown.items() if value is not None) or "done"


@dataclass(frozen=True)
class LawTrial(Trial):
    """Facts from the exact distribution of a walk, before anything is trained.

    Parameters
    ----------
    walk : the walk.
    """

    walk: WalkStrategy

    def cells(self, data: StudyData) -> list[Cell]:
        return [Law(data=data.digest, walk=self.walk, label=f"{data.name}: law of {self.walk.name}")]

    def read(self, data: StudyData, outcome: Outcome) -> tuple[Row, Units]:
        return outcome.row(self.cells(data)[0]), {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Law(OnData):
    """The facts about a walk's exact distribution that the rules use.

    Parameters
    ----------
    walk : the walk.
    walks : number of walks for which exact posteriors are computed.
    """

    code = ("qcq.walks", "qcq.floors", "qcq.evaluation.statistics", "qcq.study.cells", "qcq.study.conjectures")

    walk: WalkStrategy
    walks: int = LAW_WALKS

    def run(self, store: Store, progress: Progress) -> Row:
        graph = self.prepared(store, self.walk)
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
        return row


def nearness(
    graph: KnowledgeGraph, walk: WalkStrategy, component: float, walks: int = LAW_WALKS, seed: int = 0
) -> dict[int, Measured]:
    """The share of the information about the middle question, beyond its component, that its w nearest tokens on either
    side give: 1 - I(X; all | w nearest) / (I(X; all) - H(component)), from exact posteriors on sampled walks.

    Parameters
    ----------
    graph, walk : what is walked, and how; with an exact chain.
    component : entropy of the component, nats.
    walks : how many are sampled.
    seed : of the sample.
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
        if said <= 1e-9 or lost.high - lost.low < 1e-9:  # no information, or the nearest give all of it
            out[width] = Measured(1.0 if said <= 1e-9 else 1.0 - lost.mean / said)
        else:
            out[width] = Measured(1 - lost.mean / said, 1 - lost.high / said, 1 - lost.low / said)
    return out


def direction(walk: WalkStrategy, graph: KnowledgeGraph, seed: int = 0) -> float:
    """Nats per token lost when walks are read backwards, by the exact distribution: 0 if it is reversible."""
    return backwards(walk.chain(graph), walk.sample(graph, seed, limit=LAW_WALKS).tokens)


def backwards(chain: Chain, tokens: NDArray[np.int32]) -> float:
    """Mean of ln p(walk) - ln p(walk read backwards) per token, for full walks sampled from the chain."""
    tokens = tokens[(tokens >= 0).all(axis=1)]

    def log_likelihood(walks: NDArray[np.int32]) -> NDArray[np.float64]:
        after = np.zeros(walks.shape, dtype=bool)
        after[:, 1:] = True
        steps = chain.log_posterior(walks, after, walks, None).reshape(len(walks), -1)
        return steps.sum(axis=1) + np.log(chain.marginal(0)[walks[:, 0]])

    turned = np.ascontiguousarray(tokens[:, ::-1])
    return float((log_likelihood(tokens) - log_likelihood(turned)).mean() / tokens.shape[1])


@dataclass(frozen=True)
class ModelTrial(Trial):
    """A model trained on a walk, evaluated by its loss against the floor and by tasks.

    Parameters
    ----------
    trainer : the name it is registered under.
    changes : its settings that differ from the defaults.
    walk : what it is trained on.
    seed : of walks and training.
    tasks : tasks that score its vectors, if the data set has what they need.
    measured : whether its loss is compared with the exact floor, which takes an hour for a walk over thousands of
        students.
    """

    trainer: str
    walk: WalkStrategy
    changes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    tasks: tuple[str, ...] = TASKS
    measured: bool = True

    def trained(self, data: StudyData) -> Trained:
        """The cell that trains the model."""
        windows = self.changes.get("position", "local") in ("relative", "local")
        return Trained(
            data=data.digest,
            walked=data.walked(self.walk, self.seed),
            trainer=TRAINERS[self.trainer](**self.changes),
            seed=self.seed,
            graph=data.experiment.partition.graph.digest,
            dataset=data.name,
            loss_walks=LOSS_WALKS if self.measured else 0,
            measurements=(Looks(windows),) if self.trainer in ("mlm", "clm") else (),
            label=f"{data.name}: {self.trainer}, seed {self.seed}",
        )

    def chosen(self, data: StudyData) -> Chosen:
        """The read-out that is best on validation, by the tasks that need no students."""
        judges = [each for each in data.tasks(self.tasks) if each.task.tunes and each.task.unit != "students"]
        judged = tuple(self._scored(data, each, stages=("validation",)) for each in judges)
        return Chosen(candidates=(self.trained(data),), judged=(judged,), label=f"{data.name}: read-out")

    def scored(self, data: StudyData) -> dict[str, Scored]:
        """Test scores of that read-out, by task."""
        chosen = self.chosen(data)
        tasks = data.tasks(self.tasks)
        return {each.name: self._scored(data, each, stages=("test",), readout=chosen) for each in tasks}

    def _scored(self, data: StudyData, each: TaskSpec, **stages: Any) -> Scored:
        trained = self.trained(data)
        label = f"{trained.label}: {each.name}"
        return Scored(data=data.digest, trained=trained, task=each.task, settings=each.settings, label=label, **stages)

    def cells(self, data: StudyData) -> list[Cell]:
        return [self.chosen(data), *self.scored(data).values()]

    def read(self, data: StudyData, outcome: Outcome) -> tuple[Row, Units]:
        trained, store = self.trained(data), outcome.store
        made = outcome.row(trained)
        row: Row = {key: made[key] for key in ("seconds", "tokens")}
        units: Units = {}
        excess = trained.loss_by_walk(store)
        if excess is not None:
            kept = ("objective", "loss", "floor", "excess", "unigram", "verdict")
            row |= {key: made[key] for key in kept} | {"se": made["excess_se"]}
            units["loss"] = excess
        row |= {key: made[key] for key in ("attention", "window", "backwards") if key in made}
        outcome.row(self.chosen(data))
        row |= {"readout": outcome.resolved(self.chosen(data)).readout(store), "scores": {}}
        for task, cell in self.scored(data).items():
            scores = outcome.row(cell)["scores"][row["readout"]]["test"]["metrics"]
            row["scores"] |= {f"{task}/{metric}": value for metric, value in scores.items()}
            scored = outcome.resolved(cell)
            units |= {f"{task}/{metric}": v for metric, v in scored.units(store, row["readout"], "test").items()}
        return row, units


@dataclass(frozen=True)
class Looks:
    """Where a masked model attends, its loss in smaller windows, and what a next-token model loses reading backwards.

    Parameters
    ----------
    windows : whether positions are relative, so that the model can be given a part of a walk.
    walks : held-out walks that are shown.
    """

    revision: ClassVar[int] = 1
    code: ClassVar[tuple[str, ...]] = ("qcq.study.cells", "qcq.models.language", "qcq.evaluation.statistics")

    windows: bool
    walks: int = LOSS_WALKS

    def measure(self, model: Model, source: TrainingData) -> Row:
        if not isinstance(model, LanguageModel):
            return {}
        tokens = source.heldout.tokens[: self.walks]
        if isinstance(model.objective, NextQuestion):
            turned = np.full_like(tokens, -1)
            for n in np.unique((tokens >= 0).sum(axis=1)):  # pads stay last
                mine = (tokens >= 0).sum(axis=1) == n
                turned[mine, :n] = tokens[mine, :n][:, ::-1]
            both = []
            for walks in (tokens, turned):
                batch = model.objective.held_out_batch(replace_tokens(source.heldout, walks))
                both.append(mean_by_walk(model.losses(batch), batch.walk, len(walks)))
            lost = interval(paired_bootstrap(*(x[np.isfinite(both[0])] for x in both[::-1])))
            return {"backwards": asdict(lost)}
        row: Row = {"attention": [float(a) for a in model.attention(model.objective.held_out_batch(source.heldout, 0))]}
        if self.windows:
            row["window"] = {str(w): asdict(m) for w, m in in_windows(model, tokens).items()}
        return row


def replace_tokens(corpus: Corpus, tokens: NDArray[np.int32]) -> Corpus:
    """The same corpus with other tokens."""
    return Corpus([tokens], corpus.n_questions, corpus.n_concepts, corpus.graph_digest, corpus.strategy, corpus.seed)


def in_windows(model: LanguageModel, tokens: NDArray[np.int32]) -> dict[int, Measured]:
    """The extra loss of a trained model at the middle question if it sees only the w nearest tokens on either side and
    not the whole walk: nats by w. Below 0, the rest of the walk confuses the model."""
    tokens = tokens[(tokens >= 0).all(axis=1)]
    if len(tokens) == 0:
        return {}
    middle = tokens.shape[1] // 2

    def losses(walks: NDArray[np.int32], at: int) -> NDArray[np.float64]:
        asked = np.zeros(walks.shape, dtype=bool)
        asked[:, at] = True
        return model.losses(HeldOutBatch(Masked(), walks, np.arange(len(walks)), asked=asked))

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
