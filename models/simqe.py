"""SimQE: question vectors from walks over several relations, fused by what training students answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.embeddings import Embeddings
from qcq.errors import TrainingError
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import LEAST, TypedGraph
from qcq.models.sgns import SGNS
from qcq.models.trainer import Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings
from qcq.support.threads import torch_alone
from qcq.walks import Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from qcq.data import TrainPart

PRIOR = 5.0  # answers at the usual share that every student is given, so that few answers say little about ability


@settings
class SimQE(Trainer):
    """A published rival, followed in its outline: a table for each kind of walk, and a learned fusion of them.

    Three relations lead from a question to another one, each through nodes of one kind:

    - ``concepts``: the concepts of a question, with the weights of the Q-matrix;
    - ``students``: a node for the right and one for the wrong answers of each training student. An answer weighs the
      more, the less it was to be expected of the student: 1 - a for a right and a for a wrong one, where the ability a
      is the student's share of right answers, shrunk towards that of all;
    - ``difficulty``: nodes made for bins of questions with similar shares of wrong answers.

    On each, walks in proportion to weights train a table x of their own by ``sgns``. The tables are fused to

        e = Σ_r β_r A_r x_r,    β = softmax over the relations that the question has,

    and A, β, student vectors u and numbers a, w, c are trained to predict the answers of training students by

        P(right) = 1 / (1 + exp(-(u·e + a + w·e + c))),

    whose mean logistic loss is minimised with ``decay`` times the mean of u·u added. A question in no relation gets
    zeros. On a graph without answers there are only concepts, and their table is not changed.

    This follows the outline that the paper's abstract gives (metapaths with attributes, biased walks, auxiliary nodes,
    fusion for knowledge tracing). The formulas of weights, nodes and fusion are this project's own, so its figures say
    nothing certain about the paper's method. Read-outs: ``fused``, and the table of each relation.

    Parameters
    ----------
    length, per_question : of the walks on each relation.
    bins : of difficulty.
    epochs, batch, lr : passes over the answers, answers in a step, and Adam's learning rate, of the fusion.
    decay : how strongly the vectors of students are held at zero.

    References
    ----------
    Sun et al. 2024, Question embedding on weighted heterogeneous information network for knowledge tracing (TKDD 19),
    https://doi.org/10.1145/3703158.
    """

    length: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    per_question: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    bins: Annotated[int, Field(ge=2)] = 10
    epochs: Annotated[int, Field(ge=1)] = 10
    batch: Annotated[int, Field(ge=1)] = 1024
    lr: Annotated[float, Field(gt=0)] = 3e-3
    decay: Annotated[float, Field(ge=0)] = 0.01

    learns: ClassVar[bool] = False

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        return graph if train is None else TypedGraph.of(graph, train)

    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        graph = source.graph
        made, tokens = {}, 0
        known = {name: each for name, each in relations(graph, self.bins).items() if each.n_edges}
        if not known:
            raise TrainingError("simqe needs edges, and the graph has none")
        for i, (name, each) in enumerate(known.items()):
            walk = Weighted(length=self.length, per_question=self.per_question)
            data = TrainingData(each, walk, derive(seed, "simqe", name))
            model = SGNS(dim=self.dim).fit(data, derive(seed, "simqe", name))
            made[name], tokens = model.embeddings().vectors, tokens + model.tokens
            progress(i + 1, len(known) + self.epochs)
        train = graph.train if isinstance(graph, TypedGraph) else None
        if train is not None and len(train.interactions):
            has = np.stack([np.diff(each.weights.indptr) > 0 for each in known.values()], axis=1)
            made = {"fused": self._fused(graph, train, list(made.values()), has, seed, progress), **made}
        return _SimQE(graph, made, tokens)

    @torch_alone()
    def _fused(
        self,
        graph: KnowledgeGraph,
        train: TrainPart,
        tables: list[NDArray[np.float32]],
        has: NDArray[np.bool_],
        seed: int,
        progress: Progress,
    ) -> NDArray[np.float32]:
        """The fused table, float32 (questions, dim)."""
        import torch

        scaled = [table / max(float(np.sqrt(np.square(table).mean())), 1e-12) for table in tables]
        x = torch.from_numpy(np.stack(scaled, axis=1))  # (questions, relations, dim)
        there = torch.from_numpy(has)
        r = train.interactions
        student = np.searchsorted(np.sort(train.students), r.student)
        rng, size = generator(seed, "simqe", "weights"), (len(tables), self.dim, self.dim)
        start = {
            "map": np.broadcast_to(np.eye(self.dim), size) + 0.01 * rng.standard_normal(size),
            "share": np.zeros(len(tables)),
            "student": 0.01 * rng.standard_normal((len(train.students), self.dim)),
            "ability": np.zeros(len(train.students)),
            "easy": np.zeros(self.dim),
            "constant": np.zeros(()),
        }
        weights = {
            name: torch.tensor(np.asarray(each), dtype=torch.float32).requires_grad_() for name, each in start.items()
        }
        adam = torch.optim.Adam(weights.values(), lr=self.lr, fused=True)
        for epoch in range(self.epochs):
            order, total = generator(seed, "simqe", "batches", epoch).permutation(len(r)), 0.0
            for at in range(0, len(order), self.batch):
                some = order[at : at + self.batch]
                asked = torch.from_numpy(r.question[some].astype(np.int64))
                right = torch.from_numpy(r.correct[some].astype(np.float32))
                found = loss(weights, x[asked], there[asked], torch.from_numpy(student[some]), right, self.decay)
                adam.zero_grad()
                torch.autograd.backward(found)
                adam.step()
                total += float(found.detach()) * len(some)
            if not np.isfinite(total):
                raise TrainingError(f"simqe diverged in epoch {epoch + 1} of its fusion; lower lr (given {self.lr})")
            progress(len(tables) + epoch + 1, len(tables) + self.epochs, train_loss=total / len(r))
        with torch.no_grad():
            parts = (slice(at, at + 4096) for at in range(0, graph.n_questions, 4096))
            return torch.cat([fused(weights, x[part], there[part]) for part in parts]).numpy()

    @property
    def effort(self) -> float:
        return 10.0

    def work(self, graph: KnowledgeGraph, tokens: int, length: int) -> int:
        answers = len(graph.train.interactions) if isinstance(graph, TypedGraph) and graph.train is not None else 0
        return 3 * self.per_question * self.length * graph.n_questions + self.epochs * answers

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        walked = self.per_question * graph.n_questions
        one = SGNS(dim=self.dim).memory(graph, walked, self.length) + 4 * walked * self.length
        return one + 40 * self.dim * graph.n_questions

    def shortened(self) -> Trainer:
        return replace(self, epochs=1, per_question=1)


def relations(graph: KnowledgeGraph, bins: int = 10) -> dict[str, KnowledgeGraph]:
    """What leads from question to question, each relation as a graph of questions and the nodes between them.

    Examples
    --------
    >>> from qcq.data import Simulated
    >>> data = Simulated(questions=60, concepts=8, students=40, responses=30).read()
    >>> graph = TypedGraph.of(KnowledgeGraph.from_dataset(data), data.split().train)
    >>> {name: each.n_concepts for name, each in relations(graph).items()}
    {'concepts': 8, 'students': 56, 'difficulty': 10}
    """
    made = {"concepts": KnowledgeGraph(graph.questions, graph.concepts, graph.weights)}
    train = graph.train if isinstance(graph, TypedGraph) else None
    if train is None or not len(train.interactions):
        return made
    r, n = train.interactions, len(train.students)
    student = np.searchsorted(np.sort(train.students), r.student)
    usual = float(r.correct.mean())
    ability = (np.bincount(student, r.correct, n) + PRIOR * usual) / (np.bincount(student, minlength=n) + PRIOR)
    weight = np.where(r.correct == 1, 1 - ability[student], ability[student])
    node = np.where(r.correct == 1, student, n + student)
    answers = scipy.sparse.csr_array((weight, (r.question, node)), shape=(graph.n_questions, 2 * n))
    answers.sum_duplicates()
    answers.eliminate_zeros()
    made["students"] = KnowledgeGraph(graph.questions, [f"{i} {how}" for how in ("+", "-") for i in range(n)], answers)
    if (train.counts >= LEAST).any():
        assert isinstance(graph, TypedGraph)
        made["difficulty"] = KnowledgeGraph(graph.questions, [str(i) for i in range(bins)], graph.difficulty(bins))
    return made


def fused(weights: Mapping[str, Tensor], x: Tensor, there: Tensor) -> Tensor:
    """Σ_r β_r A_r x_r of some questions: (questions, dim).

    Parameters
    ----------
    x : their rows in each table, (questions, relations, dim).
    there : bool (questions, relations), which relations they have.
    """
    import torch

    share = weights["share"].expand(there.shape).masked_fill(~there, -torch.inf)
    beta = torch.softmax(share, dim=1).nan_to_num(0.0)  # all zero for a question in no relation
    return torch.einsum("qr,rij,qrj->qi", beta, weights["map"], x)


def loss(
    weights: Mapping[str, Tensor], x: Tensor, there: Tensor, student: Tensor, right: Tensor, decay: float
) -> Tensor:
    """The loss of some answers: ``x`` and ``there`` of their questions as in :func:`fused`, ``right`` 1 or 0."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    e, u = fused(weights, x, there), weights["student"][student]
    said = (u * e).sum(dim=1) + weights["ability"][student] + e @ weights["easy"] + weights["constant"]
    return binary_cross_entropy_with_logits(said, right) + decay * u.square().sum(dim=1).mean()


@dataclass(frozen=True, eq=False, repr=False)
class _SimQE(Model):
    graph: KnowledgeGraph
    made: Mapping[str, NDArray[np.float32]]
    tokens: int

    @property
    def readouts(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.made)

    def _read(self, readout: str) -> Embeddings:
        return Embeddings(self.graph.questions, self.made[readout])
