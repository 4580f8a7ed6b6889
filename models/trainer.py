"""The input and output of every trainer."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.corpus import Corpus
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, CorpusError, EmbeddingError, TrainingError
from qcq.floors.objectives import HeldOutBatch, Objective
from qcq.graph import KnowledgeGraph
from qcq.models.weights import Weights
from qcq.support.memory import bound, shown
from qcq.support.progress import Progress, silent
from qcq.support.reproducible import reproducible
from qcq.support.seeds import derive
from qcq.support.settings import settings
from qcq.support.types import check, takes
from qcq.support.words import in_short, several
from qcq.walks import QCQ, WalkStrategy

if TYPE_CHECKING:
    from qcq.data import TrainPart
    from qcq.floors.chain import Chain

Fit = TypeVar("Fit", bound=Callable[..., Any])
HELD_OUT_WALKS = 2_000  # walks on which losses are measured: about 12,000 masked tokens at length 40


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a trainer may use. Walks are sampled only when needed: a closed form never needs them.

    Parameters
    ----------
    graph : the training graph.
    walk : the strategy of the corpus.
    seed : the seed of its walks.
    sampled : a corpus that is already sampled (for example from disk); otherwise it is sampled on first use.
    start : weights that a trainer with ``warm`` begins from, a row for each token; it then takes a quarter of its steps
        at a twentieth of its learning rates. Others refuse it.

    Raises
    ------
    CorpusError : the sampled corpus belongs to another graph.
    """

    graph: KnowledgeGraph
    walk: WalkStrategy = QCQ()  # noqa: RUF009  (frozen: sharing it is safe)
    seed: int = 0
    sampled: Corpus | None = None
    start: Weights | None = None

    def __post_init__(self) -> None:
        check("TrainingData", "graph", self.graph, "KnowledgeGraph")
        check("TrainingData", "walk", self.walk, "WalkStrategy")
        if self.sampled is not None and self.sampled.graph_digest != self.graph.digest:
            raise CorpusError(
                f"the corpus was sampled on another graph (digest {self.sampled.graph_digest[:12]}, "
                f"this graph has {self.graph.digest[:12]}); sample it again"
            )

    def __repr__(self) -> str:
        bank = several(self.graph.n_questions, "question"), several(self.graph.n_concepts, "concept")
        return in_short("TrainingData", *bank, f"walk {self.walk.name}", f"seed {self.seed}")

    @cached_property
    def corpus(self) -> Corpus:
        """The training walks: the same bytes for every trainer."""
        return self.sampled if self.sampled is not None else self.walk.sample(self.graph, self.seed)

    @cached_property
    def heldout(self) -> Corpus:
        """Held-out walks from the same distribution: at most HELD_OUT_WALKS, from a random stream of their own."""
        return self.walk.heldout(self.graph, derive(self.seed, "held-out"), HELD_OUT_WALKS)

    @cached_property
    def chain(self) -> Chain:
        """The exact chain of the walk. Raises ChainError if there is none."""
        return self.walk.chain(self.graph)


class Model(ABC):
    """The result of a trainer.

    Attributes
    ----------
    readouts : names of the vectors that can be read from it, the default first.
    objective : the objective that it was trained on, or None if it has no likelihood.
    tokens : training tokens over all epochs (0 for a closed form).
    history : held-out losses measured during training, nats per item, oldest first.
    """

    readouts: tuple[str, ...] = ("table",)
    objective: Objective | None = None
    tokens: int = 0
    history: Sequence[float] = ()

    def __init_subclass__(cls) -> None:
        for name in {"embeddings", "losses"} & vars(cls).keys():
            setattr(cls, name, reproducible()(vars(cls)[name]))

    def __repr__(self) -> str:
        graph = getattr(self, "graph", None)
        bank = () if graph is None else (several(graph.n_questions, "question"), several(graph.n_concepts, "concept"))
        return in_short(type(self).__name__, *bank, f"read-outs {' '.join(self.readouts)}")

    def frozen(self) -> Mapping[str, NDArray]:
        """What :meth:`Trainer.infer` needs beside graph and vectors, frozen; empty where it can't infer."""
        return {}

    @reproducible()
    def embeddings(self, readout: str | None = None) -> Embeddings:
        """The vectors called ``readout`` (default: the first).

        Raises
        ------
        ConfigError : the model has no such read-out; the text names those it has.
        """
        name = readout or self.readouts[0]
        if name not in self.readouts:
            raise ConfigError(f"{type(self).__name__} has no read-out {name!r}; it has {', '.join(self.readouts)}")
        return self._read(name)

    @abstractmethod
    def _read(self, readout: str) -> Embeddings: ...

    def weights(self) -> Weights | None:
        """What a further training can begin from; None where its trainer always begins afresh."""
        return None

    def losses(self, batch: HeldOutBatch) -> NDArray[np.float64]:
        """Nats per item of a held-out batch: float64 (items,). Only where ``objective`` isn't None."""
        raise ConfigError(f"{type(self).__name__} has no held-out loss")


Length = int | range | None


@dataclass(frozen=True, eq=False)
class Frozen:
    """What is left of a training, for :meth:`Trainer.infer`.

    Attributes
    ----------
    graph, walk : what it was trained on.
    vectors : float64 (questions, dim), the rows of the table.
    parts : ``Model.frozen()``.
    weights : ``Model.weights()``, where the trainer has any.
    """

    graph: KnowledgeGraph
    walk: WalkStrategy
    vectors: NDArray[np.float64]
    parts: Mapping[str, NDArray]
    weights: Weights | None = None

    def part(self, name: str, *shape: Length) -> NDArray:
        """The part ``name``, as :func:`frozen_part` gives it."""
        return frozen_part(self.parts, name, *shape)


def frozen_part(parts: Mapping[str, NDArray], name: str, *shape: Length) -> NDArray:
    """One of a model's frozen parts, of the given shape: a length, those that are possible, or None for any.

    Raises
    ------
    EmbeddingError : the part is missing, has another shape, or holds something else than finite numbers.
    """
    found = parts.get(name)
    if found is None:
        raise EmbeddingError(f"the model lacks its part {name!r}; write the table again with qcq embed")
    lengths = zip(shape, found.shape, strict=False)
    if found.ndim != len(shape) or any(m not in n if isinstance(n, range) else n not in (None, m) for n, m in lengths):
        raise EmbeddingError(
            f"the model's part {name!r} of shape {found.shape} doesn't fit its graph and settings; "
            "write the table again with qcq embed"
        )
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise EmbeddingError(
            f"the model's part {name!r} holds something else than finite numbers; write the table again with qcq embed"
        )
    return found


@settings
class Trainer(ABC):
    """Learns question vectors. The class is its configuration.

    Parameters
    ----------
    dim : dimension of the vectors.

    Class attributes
    ----------------
    learns : False for baselines, which don't use walks.
    warm : True where a training can begin from the weights of an earlier one (``TrainingData.start``).
    tuning : candidate settings tried on validation, at most three, the default among them as ``{}``.
    revision : raised by its author when the same settings and seed give other vectors; finished runs then train again.
    """

    dim: Annotated[int, Field(ge=1, le=1_000_000)] = 64

    learns: ClassVar[bool] = True
    warm: ClassVar[bool] = False
    tuning: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    revision: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        if "fit" in vars(cls):
            begun = reproducible()(_begun(cls.fit))
            cls.fit = takes(source="TrainingData", seed="int")(begun)  # type: ignore[method-assign]

    @abstractmethod
    def fit(self, source: TrainingData, seed: int = 0, progress: Progress = silent) -> Model:
        """Learn from ``source``. The same source, settings and seed give the same vectors, unless the text says no."""

    def prepare(self, graph: KnowledgeGraph, train: TrainPart | None) -> KnowledgeGraph:
        """The graph that it learns from, with what it needs of the training responses: ``graph`` itself for most.

        Asked only of a trainer that doesn't use walks; others get the graph that their walk prepared.
        """
        return graph

    def infer(self, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64] | None:
        """Vectors of new questions in the space of the old ones, which stay as they are.

        Parameters
        ----------
        frozen : what this trainer's model left.
        weights : csr_array (new questions × concepts of the graph), each with a concept.

        Returns
        -------
        float64 (new questions, dim), or None: there is no way, and the caller takes the mean of concepts.
        """
        return None

    @classmethod
    def missing(cls) -> str:
        """Why it can't learn on this machine and what to do, in one line; empty where it can.

        Only a trainer that needs a library which isn't installed everywhere has something to say.
        """
        return ""

    def refuse_unusable(self) -> None:  # noqa: B027  (most have nothing to refuse)
        """QCQError for settings that can't be used on this machine; asked before any work begins."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    @property
    def effort(self) -> float:
        """Rough duration of a training in arbitrary units: long ones start first."""
        return 10.0 if self.learns else 1.0

    def work(self, graph: KnowledgeGraph, tokens: int, length: int) -> int:
        """The amount of work, proportional to time: training tokens, or edges if no walks are used.

        Parameters
        ----------
        graph : the training graph.
        tokens, length : of the corpus and of a walk; 0 without walks.
        """
        return tokens or graph.n_edges

    def memory(self, graph: KnowledgeGraph, walks: int, length: int) -> int:
        """Bytes that a training holds at most, about: without the graph and without a corpus on disk.

        Parameters
        ----------
        graph : the training graph.
        walks, length : of the corpus; 0 without walks.
        """
        return 16 * self.dim * (graph.n_questions + graph.n_concepts) + 4 * walks * length

    def shortened(self) -> Trainer:
        """The same settings for a trial of a second or less, which predicts the time of a whole training."""
        return self

    @property
    def reproducible(self) -> bool:
        """Whether the same seed gives the same bytes with these settings; reports say so if not."""
        return True


def _begun(fit: Fit) -> Fit:
    """``fit``, with an error where it is given a start and can't begin from one."""

    @functools.wraps(fit)
    def checked(self: Trainer, source: TrainingData, *args: Any, **kwargs: Any) -> Any:
        if source.start is not None and not self.warm:
            raise ConfigError(f"{type(self).__name__} always begins afresh; leave out the start")
        _refuse_beyond_bound(self, source)
        return fit(self, source, *args, **kwargs)

    return checked  # type: ignore[return-value]


def _refuse_beyond_bound(trainer: Trainer, source: TrainingData) -> None:
    """TrainingError for a training that needs more memory than is allowed."""
    limit = bound()
    if limit is None:
        return
    walks = length = 0
    if trainer.learns:
        length = source.walk.length
        held = source.sampled
        walks = source.graph.n_questions * source.walk.per_question if held is None else held.n_walks
    need = trainer.memory(source.graph, walks, length)
    if need > limit:
        raise TrainingError(
            f"{type(trainer).__name__} needs about {shown(need)}, the bound is {shown(limit)}: "
            "raise --max-memory, or take fastrp or spectral, or fewer dimensions"
        )


@dataclass(frozen=True, eq=False, repr=False)
class LookupModel(Model):
    """A look-up table without a likelihood: the result of baselines and closed forms."""

    graph: KnowledgeGraph
    vectors: NDArray[np.float32]
    concept_vectors: NDArray[np.float32] | None = None
    tokens: int = 0
    parts: Mapping[str, NDArray] = field(default_factory=dict)

    def frozen(self) -> Mapping[str, NDArray]:
        return self.parts

    def _read(self, readout: str) -> Embeddings:
        has = self.concept_vectors is not None
        return Embeddings(self.graph.questions, self.vectors, self.graph.concepts if has else (), self.concept_vectors)
