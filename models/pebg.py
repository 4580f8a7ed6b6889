"""PEBG: question vectors that recover who shares a concept with whom, and how hard a question is."""

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
from qcq.graph.typed import TypedGraph
from qcq.models.trainer import Model, Trainer, TrainingData
from qcq.support.progress import Progress, silent
from qcq.support.seeds import derive, generator
from qcq.support.settings import settings
from qcq.support.threads import torch_alone

if TYPE_CHECKING:
    from torch import Tensor

    from qcq.data import TrainPart

_START = 0.1  # standard deviation of the first vertices


@settings
class PEBG(Trainer):
    """A published rival: question vectors pre-trained on the bipartite graph and on difficulty, without walks.

    Questions q and concepts s have a vector each, their *vertices*. They are trained to recover three relations by the
    logistic loss of their products: a question has a concept (L1), two questions share a concept (L2), two concepts
    share a question (L3). A *product layer* makes the vector e of a question from Z = (q, s'), with s' the mean of the
    vertices of its concepts, and from the products P of Z with itself; a linear function of e is trained to recover the
    share d of right answers to the question (L4):

        e = max(0, W_z·Z + W_p·P + b),   loss = balance (L1 + L2 + L3) + (1 - balance) mean (d - w·e - c)²

    What differs from the paper: L1 to L3 are means over pairs, as in its published code, where the paper writes sums;
    with many questions the mean of L2 and L3 is estimated from ``columns`` drawn anew in each step. Z has no attributes
    of a question (its type, its mean response time), because a data set here knows none. A question without training
    answers has no part in L4.

    The other defaults are those of the published code.

    Difficulty is that of the training students. On a graph without their answers L4 is left out; then there is no e,
    and the vertices are the vectors. Read-outs: ``product`` is e, ``vertex`` is q.

    Parameters
    ----------
    vertices : dimension of the vertices; ``dim`` is that of e.
    balance : weight of the relations; the rest is that of difficulty.
    dropout : share of e that is dropped in training.
    epochs, batch, lr : passes over the questions, questions in a step, and Adam's learning rate.
    columns : questions (and concepts) on the other side of a relation in one step; all of them where there are fewer.

    References
    ----------
    Liu, Yang, Chen, Shen, Zhang & Yu 2020, Improving knowledge tracing via pre-training question embeddings (IJCAI),
    https://arxiv.org/abs/2012.05031. Its code, https://github.com/lyf-1/PEBG, has no licence: it was read for facts.
    """

    vertices: Annotated[int, Field(ge=1)] = 64
    balance: Annotated[float, Field(gt=0, lt=1)] = 0.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    epochs: Annotated[int, Field(ge=1)] = 200
    batch: Annotated[int, Field(ge=1)] = 256
    lr: Annotated[float, Field(gt=0)] = 1e-3
    columns: Annotated[int, Field(ge=1)] = 512

    learns: ClassVar[bool] = False

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        return graph if train is None else TypedGraph.of(graph, train)

    @torch_alone()
    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        import torch

        graph = source.graph
        if graph.n_edges == 0:
            raise TrainingError("pebg needs edges, and the graph has none")
        known = Relations.of(graph)
        weights = {name: torch.from_numpy(start).requires_grad_() for name, start in self._start(graph, seed).items()}
        taught = [each for name, each in weights.items() if name in VERTICES or known.right is not None]
        adam = torch.optim.Adam(taught, lr=self.lr, fused=True)
        n, m = graph.n_questions, graph.n_concepts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "pebg", "dropout"))
            for epoch in range(self.epochs):
                rng = generator(seed, "pebg", "batches", epoch)
                order, total = rng.permutation(n), 0.0
                for at in range(0, n, self.batch):
                    others = _some(rng, n, self.columns)
                    block = known.block(order[at : at + self.batch], others, _some(rng, m, self.columns))
                    found = loss(weights, block, self.balance, self.dropout)
                    adam.zero_grad()
                    torch.autograd.backward(found)
                    adam.step()
                    total += float(found.detach()) * len(block.questions)
                if not np.isfinite(total):
                    raise TrainingError(f"pebg diverged in epoch {epoch + 1}; lower lr (given {self.lr})")
                progress(epoch + 1, self.epochs, train_loss=total / n)
            with torch.no_grad():
                made = {name: weights[name].numpy() for name in VERTICES}
                if known.right is not None:
                    parts = (known.block(np.arange(n)[i : i + 4096]) for i in range(0, n, 4096))
                    made["product"] = torch.cat([product(weights, part)[0] for part in parts]).numpy()
        return _PEBG(graph, made, self.epochs * n)

    def _start(self, graph: KnowledgeGraph, seed: int) -> dict[str, NDArray[np.float32]]:
        """The first weights, by name."""
        rng = generator(seed, "pebg", "weights")
        inside = 2 * self.vertices + 4  # numbers that the product layer reads
        return {
            "question": (_START * rng.standard_normal((graph.n_questions, self.vertices))).astype(np.float32),
            "concept": (_START * rng.standard_normal((graph.n_concepts, self.vertices))).astype(np.float32),
            "linear": (rng.standard_normal((self.dim, 2 * self.vertices)) / np.sqrt(inside)).astype(np.float32),
            "quadratic": (rng.standard_normal((self.dim, 4)) / np.sqrt(inside)).astype(np.float32),
            "bias": np.zeros(self.dim, dtype=np.float32),
            "difficulty": (rng.standard_normal(self.dim) / np.sqrt(self.dim)).astype(np.float32),
            "constant": np.zeros((), dtype=np.float32),
        }

    @property
    def effort(self) -> float:
        return 10.0

    def work(self, graph: KnowledgeGraph, tokens: int, length: int) -> int:
        pairs = min(self.columns, graph.n_questions) + graph.n_concepts
        return self.epochs * graph.n_questions * pairs

    def shortened(self) -> Trainer:
        return replace(self, epochs=1)


VERTICES = ("question", "concept")  # the weights that exist without difficulty too


@dataclass(frozen=True, eq=False)
class Block:
    """The questions of one step, and what is known of their relations: float32, 0 or 1.

    Attributes
    ----------
    questions, others, concepts : indices, int64: the rows, the questions beside which they are put, and the concepts
        that are put beside each other.
    tested : (questions, all concepts), whether the question has the concept.
    shared : (questions, others), whether they share a concept.
    joint : (concepts, concepts), whether they share a question.
    right : (questions,), share of right answers, NaN without answers; None where no answers are known at all.
    """

    questions: Tensor
    others: Tensor
    concepts: Tensor
    tested: Tensor
    shared: Tensor
    joint: Tensor
    right: Tensor | None


@dataclass(frozen=True, eq=False)
class Relations:
    """What PEBG recovers: which question has which concept, and the share of right answers of training students.

    Attributes
    ----------
    tested : csr_array float32 (questions, concepts), 0 or 1.
    joint : csr_array bool (concepts, concepts), whether they share a question.
    right : float32 (questions,), NaN where nobody answered; None where no answers are known.
    """

    tested: scipy.sparse.csr_array
    joint: scipy.sparse.csr_array
    right: NDArray[np.float32] | None

    @classmethod
    def of(cls, graph: KnowledgeGraph) -> Relations:
        tested = scipy.sparse.csr_array(graph.weights > 0).astype(np.float32)
        joint = scipy.sparse.csr_array((tested.T @ tested) > 0)
        train = graph.train if isinstance(graph, TypedGraph) else None
        if train is None or not len(train.interactions):
            return cls(tested, joint, None)
        r = train.interactions
        right = np.bincount(r.question, r.correct, graph.n_questions)
        share = np.where(train.counts > 0, right / np.maximum(train.counts, 1), np.nan)
        return cls(tested, joint, share.astype(np.float32))

    def block(self, questions: NDArray, others: NDArray | None = None, concepts: NDArray | None = None) -> Block:
        """The relations of some questions with ``others`` and among ``concepts`` (default: none)."""
        import torch

        others = np.empty(0, dtype=np.int64) if others is None else others
        concepts = np.empty(0, dtype=np.int64) if concepts is None else concepts
        rows = self.tested[questions]
        shared = (rows @ self.tested[others].T).toarray() > 0 if len(others) else np.zeros((len(questions), 0))
        joint = self.joint[concepts][:, concepts].toarray() if len(concepts) else np.zeros((0, 0))
        return Block(
            torch.from_numpy(questions),
            torch.from_numpy(others),
            torch.from_numpy(concepts),
            torch.from_numpy(rows.toarray()),
            torch.from_numpy(shared.astype(np.float32)),
            torch.from_numpy(joint.astype(np.float32)),
            None if self.right is None else torch.from_numpy(self.right[questions]),
        )


def product(weights: Mapping[str, Tensor], block: Block, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
    """The vectors e of a block's questions, (questions, dim), and the share of right answers they say, (questions,)."""
    import torch
    import torch.nn.functional as F

    own = weights["question"][block.questions]
    mean = (block.tested @ weights["concept"]) / block.tested.sum(dim=1, keepdim=True).clamp(min=1)
    z = torch.stack([own, mean], dim=1)  # (questions, 2, vertices)
    p = z @ z.transpose(1, 2)  # (questions, 2, 2)
    e = torch.relu(z.flatten(1) @ weights["linear"].T + p.flatten(1) @ weights["quadratic"].T + weights["bias"])
    if dropout:
        e = F.dropout(e, dropout)
    return e, e @ weights["difficulty"] + weights["constant"]


def loss(weights: Mapping[str, Tensor], block: Block, balance: float, dropout: float = 0.0) -> Tensor:
    """PEBG's joint loss of one step."""
    from torch.nn.functional import binary_cross_entropy_with_logits as recovered

    question, concept = weights["question"], weights["concept"]
    own, some = question[block.questions], concept[block.concepts]
    relations = (
        recovered(own @ concept.T, block.tested)
        + recovered(own @ question[block.others].T, block.shared)
        + recovered(some @ some.T, block.joint)
    )
    if block.right is None or not (seen := ~block.right.isnan()).any():
        return balance * relations
    off = product(weights, block, dropout)[1][seen] - block.right[seen]
    return balance * relations + (1 - balance) * (off**2).mean()


def _some(rng: np.random.Generator, n: int, most: int) -> NDArray[np.int64]:
    """``most`` of n indices, drawn without repeats; all of them where there are no more."""
    return np.arange(n) if n <= most else rng.choice(n, most, replace=False)


@dataclass(frozen=True, eq=False, repr=False)
class _PEBG(Model):
    graph: KnowledgeGraph
    made: Mapping[str, NDArray[np.float32]]
    tokens: int  # questions read

    @property
    def readouts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("product", "vertex") if "product" in self.made else ("vertex",)

    def _read(self, readout: str) -> Embeddings:
        if readout == "product":
            return Embeddings(self.graph.questions, self.made["product"])
        return Embeddings(self.graph.questions, self.made["question"], self.graph.concepts, self.made["concept"])
