"""Published tracers as a task: knowledge-tracing models that this project didn't write, scored as its own are."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EvaluationError
from qcq.evaluation.task import Partition, Score, Stage, Task
from qcq.evaluation.tracing.tasks import AHEAD, FIGURES, TABLE_MODES, Attempts, TableMode, principal
from qcq.support.settings import settings

if TYPE_CHECKING:
    from qcq.evaluation.tracing.toolkit import Peer

OWN = "own"  # prefix of the figures of a model with its own embedding
KEPT = 4  # trained models that the task caches, beside those with their own embedding
Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """How a model of edmine is built and trained by the script that its authors publish for it.

    Attributes
    ----------
    module : its class and the module of that name in ``edmine.model.sequential_kt_model``.
    arrange : (questions, concepts, dim, length) → its part of edmine's ``models_config``.
    table : name of the embedding that has a row for each question, in edmine's ``EmbedLayer``; empty where a parameter
        ``pro_embed`` of the model's own width takes its place.
    dim, batch, lr, decay : width, sequences in a batch, learning rate of Adam, its weight decay.
    clip : largest norm of a gradient; 0: any.
    accumulate : batches whose gradients are added up for a step.
    halve : epochs after which the learning rate is halved, again and again; 0: never.
    losses : weights of the parts of its loss, edmine's ``loss_config``.
    difficulty : whether it is given levels of difficulty from training students.
    weighs : whether a question's vector does nothing but weigh the question's concepts.
    """

    module: str
    arrange: Callable[[int, int, int, int], Config]
    table: str
    dim: int
    batch: int
    lr: float
    decay: float = 0.0
    clip: float = 0.0
    accumulate: int = 1
    halve: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)
    difficulty: bool = False
    weighs: bool = False


def _rows(n: int, dim: int, **more: Any) -> Config:
    return {"num_item": n, "dim_item": dim, **more}


def _head(inputs: int, *, layers: int, middle: int, dropout: float) -> Config:
    """The layers that end in a probability."""
    return {
        "type": "direct",
        "dim_predict_in": inputs,
        "dim_predict_mid": middle,
        "dim_predict_out": 1,
        "num_predict_layer": layers,
        "dropout": dropout,
        "activate_type": "relu",
        "last_layer_max_value": 1,
    }


def _qdkt(questions: int, concepts: int, dim: int, length: int) -> Config:
    embed = {
        "question": _rows(questions, dim),
        "concept": _rows(concepts, dim),
        "correctness": {"init_method": "init_correctness_1", "dim_item": dim},
    }
    head = _head(3 * dim, layers=3, middle=128, dropout=0.3)
    about = {"dim_latent": dim, "rnn_type": "gru", "num_rnn_layer": 1, "dropout": 0.3}
    return {"embed_config": embed, "predictor_config": head, **about}


def _attention(questions: int, concepts: int, dim: int, length: int, own: int) -> Config:
    """What simpleKT and AKT have in common; ``own`` is the width of a question's difficulty."""
    embed = {
        "question_diff": _rows(questions, own, init_method="init_zero"),
        "concept": _rows(concepts, dim),
        "concept_var": _rows(concepts, dim),
        "interaction": _rows(2, dim),
        "interaction_var": _rows(2, dim),
    }
    return {"embed_config": embed, "dim_model": dim, "seq_len": length, "key_query_same": True, "separate_qa": False}


def _simple_kt(questions: int, concepts: int, dim: int, length: int) -> Config:
    made = _attention(questions, concepts, dim, length, dim)
    head = _head(2 * dim, layers=2, middle=64, dropout=0.2)
    about = {"num_block": 4, "num_head": 4, "dim_ff": 64, "dropout": 0.2, "difficulty_scalar": False}
    return {**made, "predictor_config": head, **about}


def _akt(questions: int, concepts: int, dim: int, length: int) -> Config:
    made = _attention(questions, concepts, dim, length, 1)
    head = _head(2 * dim, layers=2, middle=64, dropout=0.1)
    return {**made, "predictor_config": head, "num_block": 2, "num_head": 8, "dim_ff": dim, "dropout": 0.1}


def _dimkt(questions: int, concepts: int, dim: int, length: int) -> Config:
    embed = {"question": _rows(questions, dim), "concept": _rows(concepts, dim), "correctness": _rows(2, dim)}
    return {"embed_config": embed, "dropout": 0.1}  # the levels of difficulty are added when they are known


def _qikt(questions: int, concepts: int, dim: int, length: int) -> Config:
    embed = {"question": _rows(questions, dim), "concept": _rows(concepts, dim)}
    about = {"rnn_type": "gru", "num_rnn_layer": 1, "num_mlp_layer": 1, "dropout": 0.5, "use_irt": True}
    return {"embed_config": embed, **about, "lambda_q_all": 1, "lambda_c_next": 1, "lambda_c_all": 1}


def _mikt(questions: int, concepts: int, dim: int, length: int) -> Config:
    about = {"dim_emb": dim, "dim_state": dim, "dropout": 0.2, "seq_len": length}
    return {"num_question": questions, "num_concept": concepts, **about}


_QIKT = {"q all loss": 1.5, "q next loss": 1.0, "c all loss": 2.0, "c next loss": 2.0}
PEERS: Mapping[str, Published] = {
    "qDKT": Published("qDKT", _qdkt, "question", 64, 64, 1e-3, 1e-4),
    "simpleKT": Published("SimpleKT", _simple_kt, "question_diff", 256, 24, 1e-4),
    "AKT": Published("AKT", _akt, "question_diff", 256, 24, 1e-4, clip=10.0, losses={"rasch loss": 1e-5}),
    "DIMKT": Published("DIMKT", _dimkt, "question", 128, 64, 1e-3, 1e-3, halve=10, difficulty=True),
    "QIKT": Published("QIKT", _qikt, "question", 256, 32, 1e-4, 1e-5, losses=_QIKT),
    "MIKT": Published("MIKT", _mikt, "", 64, 40, 1e-3, 1e-5, clip=15.0, accumulate=2, weighs=True),
}


@settings
class KTPeerSettings:
    """Which published model ``kt-peer`` trains, and how; 0 stands for the value of the script published for the model.

    Parameters
    ----------
    model : ``qDKT``, ``simpleKT``, ``AKT``, ``DIMKT``, ``QIKT`` or ``MIKT``.
    tables : ways to use a table, as in ``kt``; each is tried, and validation chooses the best. ``fine-tuned``: the
        table is where the model's embedding begins, as edmine does it; ``frozen``: it stays as it is; ``small-start``:
        fine-tuned from a tenth of its size.
    epochs, patience : number of epochs at most, and epochs without a better validation AUC after which to stop. The
        published scripts have 200 and 20.
    dim : width of the model. Published: qDKT and MIKT 64, DIMKT 128, simpleKT, AKT and QIKT 256.
    batch : sequences in a batch. Published: qDKT and DIMKT 64, MIKT 40, QIKT 32, simpleKT and AKT 24.
    lr : learning rate of Adam. Published: qDKT, DIMKT and MIKT 1e-3, simpleKT, AKT and QIKT 1e-4.
    length : longest sequence that the model reads at once, the start of the sequence included; a student with more
        attempts has several.
    device : ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
    """

    model: str = "simpleKT"
    tables: tuple[TableMode, ...] = ("fine-tuned",)
    epochs: Annotated[int, Field(ge=1)] = 20
    patience: Annotated[int, Field(ge=1)] = 3
    dim: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(ge=0)] = 0
    lr: Annotated[float, Field(ge=0)] = 0.0
    length: Annotated[int, Field(ge=3)] = 200
    device: Literal["auto", "cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.model not in PEERS:
            names = {name.lower(): name for name in PEERS}
            near = [names[each] for each in difflib.get_close_matches(self.model.lower(), names, 3, 0.5)]
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            raise ConfigError(f"setting model: unknown model {self.model!r}; {guess}(known: {', '.join(PEERS)})")
        if not self.tables:
            raise ConfigError(f"setting tables: none given; name some of {', '.join(TABLE_MODES)}")
        heads = {"simpleKT": 4, "AKT": 8}.get(self.model, 1)
        if self.dim % heads:
            raise ConfigError(
                f"setting dim: {self.model} has {heads} heads; give a multiple of {heads}, not {self.dim}"
            )


class KTPeer(Task):
    """The next answer of a student, predicted by a published model that takes our vectors for its question embedding.

    The models are those of edmine (pyedmine), imported as they are; their loss, their optimiser and their sizes are
    those of its example scripts. The split, one identifier a person, the choice of the epoch on validation and the
    figures are those of ``kt``. Every figure is given twice: with the table, and as ``own/FIGURE`` with the model's own
    embedding, trained from the same seed. Both choose their epoch on validation; a model with several ``tables``
    chooses among them there too.

    - Every attempt is predicted once, the first one too: a sequence begins with an extra question without meaning.
      Attempts beyond ``length`` are predicted from windows that hold at least half of it before them.
    - A table is centred, rotated to its principal axes and scaled as a whole to a mean square of 1, which is the size
      that edmine's embeddings begin with. edmine scales each row that it reads from a file to the length √questions;
      the rows get their own lengths back, so the model sees the table itself. If its width isn't the model's, edmine
      puts a linear layer between them. simpleKT and AKT have no question embedding but a question's difficulty (in AKT
      one number), which then is a linear map of the vector. MIKT has no such layer: a narrower table is filled with
      zeros, a wider one is refused. In MIKT a vector does nothing but weigh the question's concepts. So where each
      question has one concept, no vectors change anything, and MIKT is refused.
    - DIMKT's levels of difficulty are counted on training students.

    ``auc-next-5`` is left out: edmine's models predict one step.

    References
    ----------
    edmine 1.0.0 (https://pypi.org/project/edmine, MIT); settings from ``examples/knowledge_tracing/train`` in
    https://github.com/ZhijieXiong/pyedmine. The models: qDKT after Sonkar et al. 2020 (EDM); simpleKT: Liu et al.
    2023 (ICLR); AKT: Ghosh, Heffernan & Lan 2020 (KDD); DIMKT: Shen et al. 2022 (SIGIR); QIKT: Chen et al. 2023 (AAAI);
    MIKT: Sun et al. 2024 (WWW).
    """

    metric = "auc"
    slices = ("auc-cold",)
    unit = "students"
    description = (
        "the next answer of unseen students, by a published model (extra kt) with the vectors and with its own"
    )
    tunes = False
    costly = True
    baselines = ("random", "svd")
    settings = KTPeerSettings
    rival = OWN
    figures: ClassVar[Mapping[str, str]] = {
        **{name: line for name, line in FIGURES.items() if name != f"auc-next-{AHEAD}"},
        f"{OWN}/FIGURE": "of kt-peer: the figure of the same model with its own question embedding",
    }

    def __init__(self, partition: Partition, plan: KTPeerSettings | None = None) -> None:
        super().__init__(partition)
        self.plan: KTPeerSettings = self.settled(plan)
        self.attempts = Attempts(partition, "kt-peer")
        if why := self.missing():
            raise ConfigError(why)
        model = self.plan.model
        if PEERS[model].weighs and (np.diff(self.attempts.graph.weights.indptr) <= 1).all():
            others = ", ".join(name for name, each in PEERS.items() if not each.weighs)
            raise EvaluationError(
                f"kt-peer: {model} uses a question's vector only to weigh the question's concepts, and no question has "
                f"two concepts, so vectors change nothing; choose another model: {others}"
            )
        self._kept: dict[str, tuple[str, Peer]] = {}
        self._own: dict[int, Peer] = {}

    @classmethod
    def missing(cls) -> str:
        there = importlib.util.find_spec("edmine") is not None
        return "" if there else "kt-peer: edmine isn't installed; install it with: pip install 'qcq[kt]'"

    def own(self, seed: int) -> Peer:
        """The model with its own embedding, trained from ``seed``."""
        if seed not in self._own:
            self._own[seed] = self._fit(None, True, seed)
        return self._own[seed]

    def peer(self, embeddings: Embeddings) -> tuple[str, Peer]:
        """The way to use the table that is best on validation, and the model trained so."""
        vectors = principal(self.vectors(embeddings))
        if not vectors.shape[1]:
            raise EvaluationError("kt-peer: all question vectors are the same; give vectors that differ")
        seed = int(embeddings.provenance.get("seed", self.partition.seed))
        key = hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest() + f"/{vectors.shape}/{seed}"
        if key not in self._kept:
            found = []
            for way in self.plan.tables:
                size, moves = TABLE_MODES[way]
                found.append((way, self._fit(np.float32(size) * vectors, moves, seed)))
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = max(found, key=lambda each: max(each[1].history))
        self._kept[key] = self._kept.pop(key)  # now the most recently used
        return self._kept[key]

    def _fit(self, vectors: NDArray[np.float32] | None, moves: bool, seed: int) -> Peer:
        from qcq.evaluation.tracing.toolkit import Peer

        made = Peer(PEERS[self.plan.model], self.attempts.graph, self.attempts.train, vectors, moves, self.plan, seed)
        return made.fit(self.attempts.train.interactions, self.attempts.parts["validation"].interactions)

    def score(self, embeddings: Embeddings, stage: Stage = "test", others: Sequence[Embeddings] = ()) -> Score:
        way, peer = self.peer(embeddings)
        answers = self.attempts.parts[stage].interactions
        score = self.attempts.judge(peer.predict(answers), stage)
        own = self.attempts.judge(self.own(peer.seed).predict(answers), stage)
        return Score(
            {**score.metrics, **{f"{OWN}/{name}": value for name, value in own.metrics.items()}},
            {**score.units, **{f"{OWN}/{name}": values for name, values in own.units.items()}},
            {"way": way, "toolkit": peer.toolkit},
        )
