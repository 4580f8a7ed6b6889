"""Models of edmine on our data: its tensors, its question tables, training and prediction.

edmine's classes are imported and never changed. What its scripts do around them (files of sequences, a trainer that
needs accounts elsewhere) isn't used: a model gets the same tensors from here.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcq.data import TrainPart
from qcq.data.dataset import Interactions
from qcq.errors import ConfigError, EvaluationError, TrainingError
from qcq.evaluation.tracing.models import auc
from qcq.graph import KnowledgeGraph
from qcq.support.devices import guarded, place, refuse_unusable
from qcq.support.seeds import derive, generator
from qcq.support.threads import torch_alone

if TYPE_CHECKING:
    from qcq.evaluation.tracing.peer import KTPeerSettings, Published

LEVELS = 100  # of difficulty, for DIMKT: of a question and of a concept
ENOUGH_QUESTION, ENOUGH_CONCEPT = 15, 30  # training answers from which it has a level; below, a number of its own


class Windows:
    """The responses of a part as sequences of limited length.

    Parameters
    ----------
    part : the responses, in order.
    steps : attempts in a window at most.
    overlap : False: the windows of a student follow one another. True: those after the first begin half a window
        later than the one before and are for the attempts that it didn't hold.

    Attributes
    ----------
    start, since, stop : of each window, places in the responses, int64 (windows,): the window is ``start:stop``, and it
        is for the attempts from ``since`` on.
    """

    def __init__(self, part: Interactions, steps: int, overlap: bool) -> None:
        self.question, self.correct = part.question.astype(np.int64), part.correct.astype(np.int64)
        begins = np.flatnonzero(np.r_[True, part.student[1:] != part.student[:-1]])
        half = max(1, steps // 2) if overlap else steps
        rows = []
        for begin, end in zip(begins.tolist(), np.r_[begins[1:], len(part)].tolist(), strict=True):
            start, since = begin, begin
            while since < end:
                stop = min(start + steps, end)
                rows.append((start, since, stop))
                start, since = start + half, stop
        self.start, self.since, self.stop = np.array(rows, dtype=np.int64).T

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[NDArray[np.int64]]:
        """Windows of about equal length, ``size`` at a time; with ``rng``, in random company and order."""
        key = np.log(self.stop - self.start) + (0.0 if rng is None else rng.uniform(0, 0.3, len(self.start)))
        order = np.argsort(-key, kind="stable")
        cuts = [order[at : at + size] for at in range(0, len(order), size)]
        for i in range(len(cuts)) if rng is None else rng.permutation(len(cuts)):
            yield cuts[i]

    def places(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each attempt in the responses, -1 pads: (windows, steps)."""
        start, stop = self.start[windows, None], self.stop[windows, None]
        at = start + np.arange(int((stop - start).max()))
        return np.where(at < stop, at, -1)


class Peer:
    """A model of edmine with a question table of ours, or its own. :meth:`fit` trains it.

    Parameters
    ----------
    published : which model, and its settings.
    graph : concepts of the questions.
    train : the training students, for levels of difficulty.
    vectors : a row for each question, float32 (questions, width); None for the model's own embedding.
    moves : whether the table is trained.
    plan : settings of the task.
    seed : of the first weights, the order of batches and dropout.

    Attributes
    ----------
    model : edmine's module.
    toolkit : name and version of the toolkit.
    history : validation AUC after each epoch.
    """

    def __init__(
        self,
        published: Published,
        graph: KnowledgeGraph,
        train: TrainPart,
        vectors: NDArray[np.float32] | None,
        moves: bool,
        plan: KTPeerSettings,
        seed: int,
    ) -> None:
        self.published, self.plan, self.seed = published, plan, seed
        refuse_unusable(plan.device, "kt-peer.device")
        self.device = "cuda" if place(plan.device) == "cuda" else "cpu"  # the toolkit wasn't tried elsewhere
        self.toolkit = f"edmine {importlib.metadata.version('edmine')}"
        self.history: list[float] = []
        self.dim, self.n = plan.dim or published.dim, graph.n_questions
        table = _concepts(graph)
        arranged = published.arrange(table.shape[0], table.shape[1], self.dim, plan.length)
        self.levels: NDArray[np.int64] | None = None
        made = _toolkit(f"model.sequential_kt_model.{published.module}")
        if published.difficulty:
            self.levels, of_concept = _levels(train, table)
            size = {"question_diff": self.levels, "concept_diff": of_concept}
            rows = {name: {"num_item": int(of.max()) + 1, "dim_item": self.dim} for name, of in size.items()}
            arranged["embed_config"] |= rows
        params = {
            "device": self.device,
            "models_config": {published.module: arranged},
            "loss_config": dict(published.losses),
        }
        tables_made = guarded(
            self.device,
            lambda: "while its tables were made",
            lambda: "use a smaller kt-peer.dim, or kt-peer.device=cpu",
        )
        with self._random("weights"), tables_made:
            objects = {"dataset": self._tables(table)}
            if published.difficulty:
                objects[published.module] = {"q2c_diff_table": torch.from_numpy(of_concept).to(self.device)}
            self.model: nn.Module = self._built(getattr(made, published.module), params, objects, vectors, moves)
        self.model.eval()

    @property
    def table(self) -> nn.Parameter:
        """What the model holds for each question; the last row stands for the start of a sequence."""
        held = getattr(self.model.embed_layer, self.published.table).weight if self.published.table else None
        return self.model.pro_embed if held is None else held  # type: ignore[return-value]

    def _built(
        self, kind: Any, params: dict[str, Any], objects: dict[str, Any], vectors: NDArray | None, moves: bool
    ) -> nn.Module:
        """The model, with ``vectors`` in the place of its table."""
        if vectors is None:
            return kind(params, objects).to(self.device)
        if not self.published.table:
            if vectors.shape[1] > self.dim:
                raise EvaluationError(
                    f"kt-peer: the vectors have {vectors.shape[1]} dimensions, {self.plan.model} takes {self.dim}; "
                    f"use kt-peer.dim={vectors.shape[1]} or narrower vectors"
                )
            vectors = np.pad(vectors, ((0, 0), (0, self.dim - vectors.shape[1])))
        rows = np.vstack([vectors, np.zeros_like(vectors[:1])])  # the start of a sequence has a row of zeros
        with tempfile.TemporaryDirectory() as folder:
            if self.published.table:
                file = Path(folder) / "rows.json"
                file.write_text(json.dumps({str(i): row for i, row in enumerate(rows.tolist())}), encoding="utf-8")
                embed = params["models_config"][self.published.module]["embed_config"]
                embed[self.published.table] |= {"embed_path": str(file), "learnable": moves}
            self.model = kind(params, objects).to(self.device)
        # edmine has brought every row to one length, and a row of zeros to NaN: the rows as they were come back.
        self.table.data.copy_(torch.from_numpy(rows))
        self.table.requires_grad_(moves)
        return self.model

    def _tables(self, table: NDArray[np.int64]) -> dict[str, Any]:
        """edmine's objects for the concepts of a question."""
        of_question, mask = _toolkit("utils.use_torch").parse_q_table(table, self.device)
        return {
            "q_table": table,
            "q_table_tensor": torch.from_numpy(table).to(self.device),
            "q2c_transfer_table": of_question,
            "q2c_mask_table": mask,
        }

    def fit(self, train: Interactions, validation: Interactions) -> Peer:
        """Learn from ``train``; use the epoch with the highest AUC on ``validation``.

        Raises
        ------
        TrainingError : the loss is no longer finite, or the device has too little memory.
        """
        published, plan = self.published, self.plan
        windows = Windows(train, plan.length - 1, overlap=False)
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        adam = torch.optim.Adam(learnt, lr=plan.lr or published.lr, weight_decay=published.decay)
        best: dict[str, Tensor] = {}
        truth = validation.correct
        epoch = 0
        with self._random("dropout"), self._guarded(lambda: f"in epoch {epoch + 1}"):
            for epoch in range(plan.epochs):
                for group in adam.param_groups:
                    group["lr"] = (plan.lr or published.lr) * 0.5 ** (
                        epoch // published.halve if published.halve else 0
                    )
                self.model.train()
                total = 0.0
                adam.zero_grad()
                rng = generator(self.seed, "kt-peer", "batches", epoch)
                for i, batch in enumerate(windows.batches(plan.batch or published.batch, rng)):
                    loss = self.model.get_predict_loss(self._batch(windows, windows.places(batch)))["total_loss"]  # type: ignore[operator]
                    (loss / published.accumulate).backward()
                    total += float(loss.detach())
                    if (i + 1) % published.accumulate == 0:
                        if published.clip:
                            nn.utils.clip_grad_norm_(learnt, published.clip)
                        adam.step()
                        adam.zero_grad()
                if not np.isfinite(total):
                    rate = plan.lr or published.lr
                    raise TrainingError(
                        f"kt-peer: the loss of epoch {epoch + 1} isn't finite; use kt-peer.lr={rate / 3:.1g}"
                    )
                self.history.append(auc(self.predict(validation), truth))
                place = int(np.argmax(self.history))
                if place == epoch:
                    best = copy.deepcopy(self.model.state_dict())
                if epoch - place >= plan.patience:
                    break
            self.model.load_state_dict(best)
        self.model.eval()
        return self

    def predict(self, part: Interactions) -> NDArray[np.float64]:
        """Probability that each response is right, from the student's responses before it: float64 (responses,)."""
        windows = Windows(part, self.plan.length - 1, overlap=True)
        out = np.empty(len(part))
        self.model.eval()
        # DIMKT draws the state in which a student begins, also when it predicts.
        with self._random("prediction"), self._guarded(lambda: "in a prediction"), torch.no_grad():
            for batch in windows.batches(self.plan.batch or self.published.batch):
                places = windows.places(batch)
                made = self.model.get_predict_score(self._batch(windows, places))["predict_score_batch"]  # type: ignore[operator]
                wanted = places >= windows.since[batch, None]
                out[places[wanted]] = made.double().cpu().numpy()[wanted]
        return out

    def _batch(self, windows: Windows, places: NDArray[np.int64]) -> dict[str, Tensor]:
        """edmine's tensors: (windows, 1 + steps), the start of the sequence first, zeros where padded."""
        real = places >= 0
        at = np.maximum(places, 0)
        begin = np.ones((len(places), 1), dtype=np.int64)
        question = np.hstack([self.n * begin, np.where(real, windows.question[at], 0)])
        made = {
            "question_seq": question,
            "correctness_seq": np.hstack([0 * begin, np.where(real, windows.correct[at], 0)]),
            "mask_seq": np.hstack([begin, real.astype(np.int64)]),
        }
        if self.levels is not None:
            made["question_diff_seq"] = self.levels[question]
        return {name: torch.from_numpy(values).to(self.device) for name, values in made.items()}

    @contextmanager
    def _random(self, *stream: str) -> Iterator[None]:
        """torch's random numbers from a stream of their own, on one thread of the CPU."""
        cuda = self.device == "cuda"
        with torch_alone(), torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
            torch.manual_seed(derive(self.seed, "kt-peer", *stream))
            yield

    def _guarded(self, step: Callable[[], str]) -> AbstractContextManager[None]:
        """Turns what a device can do to a model into one line."""
        batch = self.plan.batch or self.published.batch
        less = f"use kt-peer.batch={batch // 2}" if batch > 1 else "use kt-peer.device=cpu"
        return guarded(self.device, step, lambda: less)


def _toolkit(module: str) -> Any:
    """A module of edmine."""
    try:
        return importlib.import_module(f"edmine.{module}")
    except ImportError as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"kt-peer: edmine can't be imported ({said}); install it with: pip install 'qcq[kt]'"
        ) from None


def _concepts(graph: KnowledgeGraph) -> NDArray[np.int64]:
    """Which question has which concept, 0 or 1: (questions + 1, concepts + 1).

    The last row is the start of a sequence, the last column the concept of those that have none. edmine wants an entry
    in every row and column, so concepts without questions are left out.
    """
    held = graph.weights.toarray() > 0
    held = held[:, held.any(axis=0)]
    made = np.zeros((held.shape[0] + 1, held.shape[1] + 1), dtype=np.int64)
    made[:-1, :-1] = held
    made[:, -1] = ~made[:, :-1].any(axis=1)
    return made


def _levels(train: TrainPart, table: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """DIMKT's level of difficulty of each question and of each concept, as edmine counts them.

    ⌊(LEVELS - 1) share of right answers⌋ among training students; with too few answers a number of its own.
    """
    r = train.interactions
    asked = np.bincount(r.question, minlength=len(table))
    right = np.bincount(r.question, r.correct, len(table))
    made = []
    for n, good, least in ((asked, right, ENOUGH_QUESTION), (asked @ table, right @ table, ENOUGH_CONCEPT)):
        few = n < least
        level = ((LEVELS - 1) * good / np.maximum(n, 1)).astype(np.int64)
        level[few] = LEVELS + np.arange(int(few.sum()))
        made.append(level)
    return made[0], made[1]
