"""From a bank to one table of vectors: recipes by name, and vectors for questions that came later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data import DATASETS, Dataset, Interactions, TrainPart
from qcq.data.checks import doubt, plain
from qcq.embeddings import WEIGHTS, Embeddings
from qcq.errors import ArgumentError, ConfigError, DataError, EmbeddingError, UnknownNameError, WalkError, nearest
from qcq.evaluation.tracing.arrivals import NumberPart
from qcq.evaluation.tracing.features import NUMBERS, Number
from qcq.evaluation.tracing.tasks import principal
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Trainer, TrainingData
from qcq.models.answers import HALFWAY, Students
from qcq.models.inference import InferenceModel, Part, opened, with_model
from qcq.models.weights import Weights
from qcq.run import Run
from qcq.support.folders import claim
from qcq.support.progress import Progress, silent
from qcq.support.registry import Registry
from qcq.support.types import check, takes
from qcq.support.words import several
from qcq.walks import WALKS, Metapath, WalkStrategy

SHOWN = 5  # names in a message
WIDEST = 512  # concepts up to which the recipe for tracing has a dimension for each


@dataclass(frozen=True)
class Bank:
    """What a recipe may use: a graph, and the answers of the training students where there are any.

    Attributes
    ----------
    start : weights that the training begins from.
    keep : the folder in which weights are kept, where a further training can begin from them.
    """

    graph: KnowledgeGraph
    train: TrainPart | None
    dim: int
    seed: int
    progress: Progress
    start: Weights | None = None
    keep: Path | None = None

    def prepared(self, trainer: Trainer, walk: WalkStrategy) -> KnowledgeGraph:
        """The graph with the answers that the walk, or a trainer without walks, needs."""
        return (walk if trainer.learns else trainer).prepare(self.graph, self.train)

    def fit(self, trainer: Trainer, walk: WalkStrategy | None = None) -> Embeddings:
        """The vectors of one trainer on one walk."""
        walk = walk or WALKS["qcq"]()
        source = TrainingData(self.prepared(trainer, walk), walk, self.seed, start=self.start)
        model = trainer.fit(source, self.seed, self.progress)
        if self.keep is not None and (weights := model.weights()) is not None:
            claim(self.keep, "model")
            weights.save(self.keep / WEIGHTS)
        made = model.embeddings()
        table = walk.to_questions(self.graph, made)
        # Where a walk makes other rows of the trainer's, its parts don't fit them.
        part = Part.of(trainer, walk, table.dim, model if table is made else None)
        return with_model(table, self.graph, [part], self.students)

    @property
    def students(self) -> Students | None:
        """Who may be read and who may not; None where there are no students."""
        return None if self.train is None else Students.of(self.train)


@dataclass(frozen=True)
class Recipe:
    """A named way to a table.

    Attributes
    ----------
    description : what it is made of and what it is for, in one line.
    reads_answers : whether the answers of training students enter it.
    make : bank → vectors.
    """

    description: str
    reads_answers: bool
    make: Callable[[Bank], Embeddings]


def _concepts(bank: Bank) -> Embeddings:
    return bank.fit(TRAINERS["netmf"](dim=bank.dim))


def _similar(bank: Bank) -> Embeddings:
    return bank.fit(TRAINERS["sgns"](dim=bank.dim))


def _tracing(bank: Bank) -> Embeddings:
    assert bank.train is not None
    names = ("concept-onehot", "concept-mean")
    known = bank.fit(TRAINERS[names[bank.graph.n_concepts > WIDEST]](dim=bank.dim))
    try:
        order = bank.fit(TRAINERS["ppmi-svd"](dim=bank.dim), Metapath(pattern="q-q", per_question=2))
    except WalkError as error:  # of a walk that the user didn't name
        why = _no_sequence(bank.train.interactions) or str(error)
        what = f"the recipe tracing follows training students of {bank.train.dataset.name} from question to question"
        raise ConfigError(f"{what}, and {why}; take the recipe concepts") from None
    drawn = shrunk(order.vectors, bank.graph, bank.train)
    turned = principal(drawn)
    # With no answers to a question its order is that of its concepts, so the second part has no arrays.
    first, second = _parts(known)[0], replace(_parts(order)[0], dim=turned.shape[1], arrays={})
    both = Embeddings(known.ids, np.hstack([known.vectors, turned]))
    return with_model(both, bank.graph, [first, second], bank.students)


def _parts(table: Embeddings) -> Sequence[Part]:
    model = opened(table)
    return () if model is None else model.parts


RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {
        "concepts": Recipe("netmf on q-c-q walks: what skip-gram tends to, in closed form; seconds", False, _concepts),
        "similar": Recipe("sgns on q-c-q walks: for finding questions that are alike", False, _similar),
        "tracing": Recipe(
            "one-hot concepts beside vectors of the order of questions, shrunk to the concepts: for knowledge tracing",
            True,
            _tracing,
        ),
    },
)


def shrunk(vectors: NDArray[np.float32], graph: KnowledgeGraph, train: TrainPart) -> NDArray[np.float32]:
    """c + n / (n + 30) (x - c) for each question: n training responses, c the mean over its concepts.

    A concept's vector is the mean over training responses to its questions. Vectors of questions that few have answered
    are mostly noise; ``docs/decisions/0611`` has the figures.
    """
    n = train.counts[:, None].astype(np.float64)  # (questions, 1)
    tested = (graph.weights > 0).astype(np.float64)  # (questions, concepts)
    concepts = (tested.T @ (n * vectors)) / np.maximum(tested.T @ n, 1e-9)  # (concepts, dim)
    centre = (tested @ concepts) / np.maximum(tested.sum(axis=1), 1)[:, None]  # (questions, dim)
    return (centre + n / (n + HALFWAY) * (vectors - centre)).astype(np.float32)


def default_recipe(data: Dataset) -> tuple[str, str]:
    """``tracing`` for data that say which question follows which, with an answer a question on average; else
    ``concepts``, and why, where there are answers."""
    seen = data.interactions
    if seen is None:
        return "concepts", ""
    if len(seen) < len(data.questions):
        why = f"only {several(len(seen), 'answer')} to {several(len(data.questions), 'question')}"
    else:
        why = _no_sequence(seen)
    return ("concepts" if why else "tracing"), why


def _no_sequence(seen: Interactions) -> str:
    """Why no question follows another in these answers; empty where one does."""
    if not seen.ordered:
        return "the answers have no order"
    follows = (seen.student[1:] == seen.student[:-1]) & (seen.question[1:] != seen.question[:-1])
    return "" if follows.any() else "no student answered two questions"


@takes(data="Dataset", dim="int", seed="int", numbers="list")
def embed(
    data: Dataset,
    recipe: str = "",
    *,
    walk: str = "",
    trainer: str = "",
    dim: int = 64,
    seed: int = 0,
    sections: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    students: Sequence[str] | Literal["train", "all"] = "train",
    fold: tuple[int, int] | None = None,
    numbers: Sequence[str] = (),
    start: str | Path | None = None,
    keep: str | Path | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """One table of vectors for all questions of a data set.

    Parameters
    ----------
    data : as :func:`qcq.read` returns it.
    recipe : a name in ``RECIPES``; by default :func:`default_recipe`.
    walk, trainer : instead of a recipe: names from the registries; the walk is ``qcq`` if only a trainer is named.
    dim : dimensions (the recipe ``tracing`` adds one per concept).
    seed : of walks, training and the split of the students.
    sections : settings of walk and trainer by name, as in a configuration; those of others change nothing.
    students : whose answers may be read: those of the training part of the split, all, or those with these identifiers.
    fold : (k, n): the training students of the k-th of n folds.
    numbers : columns that are added to the vectors: ``difficulty``, ``popularity``, ``rasch``, from the same students.
        ``nearest`` does not use them.
    start : a table or run of an earlier time, which ``sgns``, ``mlm`` and ``cloze`` can begin from: a quarter of the
        steps at a twentieth of the learning rates, so that the space stays. Questions that weren't there begin where
        :func:`add` puts them.
    keep : a folder for weights that a later training can begin from; only these trainers have any.

    Returns
    -------
    Embeddings : provenance says by which recipe or trainer, and whose answers are inside.

    Raises
    ------
    ArgumentError : an argument of another type, such as the name of one student where a list of them belongs.
    ConfigError : an unknown name, both a recipe and a trainer, settings beside a recipe, or answers where the data have
        none.
    UnknownNameError : no such recipe or number.
    DataError : an unknown student.
    EmbeddingError : ``start`` is a table of another bank.

    Examples
    --------
    >>> from qcq.data import Simulated
    >>> room = Simulated(questions=60, concepts=6, students=40, responses=10).read()
    >>> made = embed(room, "concepts", dim=4)
    >>> made.vectors.shape, made.provenance["recipe"], made.provenance["students"]
    ((60, 4), 'concepts', 0)
    """
    from qcq.config import Config  # checks settings; `import qcq` does without

    if isinstance(students, str):
        if students not in ("train", "all"):  # its letters are no students
            what = "embed: students takes 'train', 'all' or a list of identifiers"
            raise ArgumentError(f"{what}, given str {students!r}; give a list: [{students!r}]")
    else:
        check("embed", "students", students, "list")
        students = [str(name) for name in students]
    if recipe and (walk or trainer):
        raise ConfigError(f"a recipe ({recipe}) and a walk or trainer are given; give one or the other")
    for each in numbers:
        if each not in NUMBERS:
            raise UnknownNameError("number", each, NUMBERS)
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"a number is given twice ({', '.join(numbers)}); name each once")
    learnt = bool(walk or trainer)
    name = "" if learnt else recipe or default_recipe(data)[0]
    if not learnt and (idle := [section for section in sections if section not in (*DATASETS, "split")]):
        fix = "name a walk or a trainer instead of it"
        raise ConfigError(f"sections: {idle[0]}: the recipe {name} has settings of its own; {fix}")
    made = RECIPES[name] if name else None
    train = None if data.interactions is None else _training(data, students, fold, seed)
    config = Config(
        data="simulated", walks=(walk or "qcq",), trainers=(trainer or "sgns",), dim=dim, seed=seed, sections=sections
    )
    strategy, model = config.build_walks()[walk or "qcq"], config.build_trainers()[trainer or "sgns"]
    graph = KnowledgeGraph.from_dataset(data)
    begun, about, earlier = None, {}, 0
    if start is not None:
        if made is not None and name != "similar":
            raise ConfigError(f"the recipe {name} always begins afresh; start the recipe similar, or name a trainer")
        if strategy.prepare(graph, train).questions != graph.questions:
            raise ConfigError(f"walks of {walk} have tokens that are no questions, so nothing can begin from a table")
        begun = beginning(Path(start), trainer or "sgns", data)
        about = {"from": {"file": Path(start).name, "digest": begun.digest, **begun.trainer}}
        if Path(start).is_file():  # the answers in it are in what begins from it
            students_in = Embeddings.load(start).provenance.get("students")
            earlier = students_in if isinstance(students_in, int) else 0
    bank = Bank(graph, train, dim, seed, progress, begun, None if keep is None else Path(keep))
    if train is None and (numbers or (made is not None and made.reads_answers)):
        what = f"the recipe {name}" if made is not None and made.reads_answers else ", ".join(numbers)
        fix = "take the recipe concepts" if made is not None and made.reads_answers else "leave them out"
        raise ConfigError(f"{what} needs answers of students, and {data.name} has none; {fix}")
    # Who needs answers gets a graph of its own that holds them.
    reads = made.reads_answers if made is not None else bank.prepared(model, strategy) is not bank.graph
    if not (reads or numbers) and (fold is not None or students != "train"):
        taken = "" if recipe or learnt else f" (taken because {default_recipe(data)[1] or 'the data have no answers'})"
        what = f"{name or trainer or walk}{taken} reads no answers"
        raise ConfigError(f"{what}, so it is the same for all students; leave out which students to read")
    table = made.make(bank) if made is not None else bank.fit(model, strategy)
    inside = max(earlier, 0 if train is None or not (reads or numbers) else len(train.students))
    provenance = {
        "data": data.name,
        "graph": bank.graph.digest,
        "dim": model.dim if learnt else dim,
        "seed": seed,
        "students": inside,
        **about,
        **(
            {"recipe": name}
            if made is not None
            else {
                "walk": {"name": walk or "qcq", **strategy.config},
                "trainer": {"name": trainer or "sgns", **model.config},
            }
        ),
    }
    table = replace(table, provenance=provenance)
    if not numbers:
        return table
    assert train is not None
    columns: dict[str, Embeddings | NDArray | Sequence[float]] = {
        each: NUMBERS[cast(Number, each)](train.interactions, bank.graph) for each in numbers
    }
    both = table.concatenate(columns, name=name or trainer)
    both = replace(both, provenance={**provenance, **both.provenance, "numbers": list(numbers)})
    parts = [*_parts(table), *(NumberPart.made(each, train, bank.graph) for each in numbers)]
    return with_model(both, bank.graph, parts, bank.students)


def _training(
    data: Dataset, students: Sequence[str] | Literal["train", "all"], fold: tuple[int, int] | None, seed: int
) -> TrainPart:
    """The students whose answers may be read."""
    if students == "train":
        return data.split(seed, fold=fold).train
    if fold is not None:
        raise ConfigError("folds divide the students themselves; leave out which students to read")
    part = np.zeros(len(data.students), dtype=np.int8)
    if not len(students):
        what = "no student whose answers may be read"
        raise DataError(what, file=data.name, fix="write their identifiers, one per line, or take all students")
    if students != "all":
        known = {name: i for i, name in enumerate(data.students)}
        missing = [name for name in students if name not in known]
        if missing:
            what = f"{len(missing)} of {len(students)} students aren't in the data"
            raise DataError(what, file=data.name, value=missing[0], fix="write their identifiers, one per line")
        part[:] = 2
        part[[known[name] for name in students]] = 0
    return replace(data, parts=part).split(seed).train


def beginning(source: Path, trainer: str, data: Dataset) -> Weights:
    """Weights of an earlier time with a row for each question of ``data``.

    Old questions keep their rows; new ones get the rows where :func:`add` puts them, in every table. Of a table without
    kept weights only the vectors are known: outputs and an encoder then begin afresh.

    Parameters
    ----------
    source : a run, a table (with its ``.model`` folder beside it, where there is one), or such a folder.
    trainer : the trainer that is going to begin from them; a run may have several.

    Raises
    ------
    ConfigError : nothing to begin from in ``source``, or a table of another trainer.
    EmbeddingError : a table of another bank: fewer than half of its questions are in ``data``.
    """
    if (source / WEIGHTS).is_file():
        held = Weights.load(source / WEIGHTS)
    elif source.is_dir():
        run = Run.open(source)
        row = run.trained(trainer)
        file = run.weights(row["walk"], trainer, row["seed"])
        held = Weights.load(file) if file.is_file() else _bare(run.embeddings(trainer, "table"), trainer)
    elif (beside := source.with_name(f"{source.name}.model") / WEIGHTS).is_file():
        held = Weights.load(beside)
    else:
        held = _bare(Embeddings.load(source), trainer)
    there = set(data.questions)
    kept = [name for name in held.questions if name in there]
    if 2 * len(kept) < len(held.questions):
        raise EmbeddingError(
            f"{source}: {len(held.questions) - len(kept):,} of its {len(held.questions):,} questions are not in "
            f"{data.name}, so it is a table of another bank; start from one of this bank"
        )
    wide = np.cumsum([rows.shape[1] for rows in held.tables.values()])[:-1]
    every = np.hstack(list(held.tables.values()))  # (tokens, all tables side by side)
    n = len(held.questions)
    at = {name: i for i, name in enumerate(held.questions)}
    old = np.array([name in at for name in data.questions])
    bank = _part(data, np.flatnonzero(old))
    rows = Embeddings(bank.questions, every[[at[name] for name in bank.questions]])
    if not old.all():
        rows = add(rows, bank, _part(data, np.flatnonzero(~old))).embeddings
    rows = rows.aligned(data.questions)
    under = np.empty((0, every.shape[1]), dtype=np.float32)
    if held.concepts:
        tested = (data.q_matrix > 0).astype(np.float64)
        under = np.asarray((tested.T @ rows.vectors) / np.maximum(tested.sum(axis=0), 1)[:, None], dtype=np.float32)
        place = {name: n + i for i, name in enumerate(held.concepts)}
        for i, name in enumerate(data.concepts):
            if name in place:
                under[i] = every[place[name]]
    tables = np.split(np.vstack([rows.vectors, under]), wide, axis=1)
    concepts = data.concepts if held.concepts else ()
    return replace(
        held, questions=data.questions, concepts=concepts, tables=dict(zip(held.tables, tables, strict=True))
    )


def _bare(table: Embeddings, trainer: str) -> Weights:
    """Weights of which only the vectors are known."""
    recipe = table.provenance.get("recipe")
    if recipe not in (None, "similar"):
        raise ConfigError(
            f"{trainer} can't start from a table of the recipe {recipe}; start from a table of {trainer}, for example "
            f"made with --trainer {trainer}"
        )
    about = table.provenance.get("trainer", {"name": "sgns"} if recipe else None)
    named = str(about.get("name", trainer) if isinstance(about, Mapping) else about or trainer).lower()
    if named != trainer.partition("@")[0]:
        raise ConfigError(f"{trainer} can't start from a table of {named}; start from a table of {trainer}")
    vectors = table.vectors
    return Weights(list(table.ids), (), {"input": vectors}, trainer={"name": named, "dim": table.dim})


def _part(data: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Some questions of a data set, without answers."""
    matrix = scipy.sparse.csr_array(data.q_matrix[rows])
    return Dataset(data.name, [data.questions[i] for i in rows], data.concepts, matrix)


@dataclass(frozen=True)
class Inferred:
    """A table with new rows.

    Attributes
    ----------
    embeddings : the old rows, byte for byte, then the new ones.
    by_set, by_concepts : how many new questions have the mean of the old questions with exactly their concepts, and how
        many the mean of their concepts.
    by_model : how many were inferred by the table's own model.
    unplaced : new questions without a concept that the table knows: they have the mean of all vectors.
    notes : what is doubtful in the new questions: concepts that the bank doesn't have, and those it may have meant;
        and that the table has no model, where it has none.
    partly : new questions of whose concepts the table knows only some: their vectors are made from those.
    """

    embeddings: Embeddings
    by_set: int
    by_concepts: int
    by_model: int
    unplaced: tuple[str, ...]
    notes: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()


def chosen(
    source: Path, trainer: str | None = None, walk: str | None = None, seed: int | None = None
) -> tuple[Embeddings, Dataset | None]:
    """The vectors in a file, or those of a run; and the run's data where it has no model (older runs).

    Parameters
    ----------
    source : a file of vectors, or a run folder.
    trainer, walk, seed : which vectors of a run; by default those of the trainer on walks that is best on validation.

    Raises
    ------
    ConfigError : no run in the folder, or a choice among the vectors of a file.
    UnknownNameError : the run has no such trainer or walk.
    """
    from qcq.report.facts import partition_of

    if not source.is_dir():
        if trainer or walk or seed is not None:
            raise ConfigError(f"{source}: is a file with one table; leave out --trainer, --walk and --seed")
        return Embeddings.load(source), None
    run = Run.open(source)
    name, on = run.best(walk, trainer)
    table = run.embeddings(name, walk=on, seed=seed)
    if table.model is not None:
        return table, None
    return table, partition_of(run).dataset


@takes(table="Embeddings", new="Dataset")
def add(table: Embeddings, bank: Dataset | None, new: Dataset, responses: Any = None) -> Inferred:
    """Vectors for new questions, by the model of the table.

    Questions with equal concepts can be swapped without changing any walk, so a new one gets the mean vector of the old
    ones that have exactly its concepts. Where there are none, the model infers it (:meth:`Trainer.infer
    <qcq.models.Trainer.infer>`); without a model, or where the trainer has no way, it gets the mean over its concepts
    of the mean vector of their old questions. ``docs/results/unseen.json`` has the figures.

    Parameters
    ----------
    table : vectors of the bank's questions.
    bank : the data they were made from; may be None for a table with a model.
    new : the new questions with their concepts, read like a bank.
    responses : training students' answers to them, as in :meth:`Embeddings.infer`.

    Returns
    -------
    Inferred : a new question without a known concept gets the mean of all vectors, and is named.

    Raises
    ------
    DataError : a new question that is in the table already, or answers that may not be read.
    EmbeddingError : the table is of another bank, or has neither a model nor a bank.

    Examples
    --------
    >>> from qcq.data import read
    >>> bank = read([("q1", "halves"), ("q2", "thirds")])
    >>> table = Embeddings(["q1", "q2"], np.eye(2))
    >>> add(table, bank, read([("q3", "halves"), ("q4", "halves"), ("q4", "thirds")])).embeddings["q4"].tolist()
    [0.5, 0.5]
    """
    again = [q for q in new.questions if q in table]
    if again:
        what = f"{len(again)} of {len(new.questions)} new questions are in the table already"
        raise DataError(what, value=again[0], fix="give only new ones")
    model, notes = opened(table), []
    if bank is not None:
        table.aligned(bank.questions)
    if model is None:
        if bank is None:
            raise EmbeddingError(
                "the table has no model next to it; move FILE.model and FILE together, or give the bank that it was "
                "made from"
            )
        model = InferenceModel(KnowledgeGraph.from_dataset(bank), ())
        notes.append("the table has no model next to it: new questions get the mean of old ones on their concepts")
    own = new.q_matrix
    sets = {
        q: tuple(new.concepts[c] for c in own.indices[a:b])
        for q, a, b in zip(new.questions, own.indptr[:-1], own.indptr[1:], strict=True)
    }
    weights, lacking = _columns(model.graph, new)
    rows, how, said = model.infer(table, weights, lacking, model.answers(responses, new.questions))
    notes.extend(said)
    made = Embeddings(
        [*table.ids, *new.questions],
        np.concatenate([table.vectors, rows.astype(np.float32)]),
        table.concept_ids,
        table.concept_vectors,
        {
            **table.provenance,
            "added": {"questions": len(new.questions), "by": {kind: how.count(kind) for kind in sorted(set(how))}},
        },
        table.model and replace(model, added={**model.added, **sets}),
    )
    unplaced = tuple(q for q, kind in zip(new.questions, how, strict=True) if kind == "nothing")
    partly = tuple(q for q, some, kind in zip(new.questions, lacking, how, strict=True) if some and kind != "nothing")
    notes.extend(_unknown(model.graph.concepts, new))
    counts = how.count("twins"), how.count("concepts"), how.count("model")
    return Inferred(made, *counts, unplaced, tuple(notes), partly)


def _columns(graph: KnowledgeGraph, new: Dataset) -> tuple[scipy.sparse.csr_array, NDArray[np.bool_]]:
    """The q-matrix of new questions in the columns of a graph, and which of them have concepts that it hasn't."""
    at = {
        name: i for i, name in enumerate(graph.concepts) if graph.by_concept.indptr[i] < graph.by_concept.indptr[i + 1]
    }
    w = new.q_matrix.tocoo()
    to = np.array([at.get(name, -1) for name in new.concepts])[w.col]
    there = to >= 0
    shape = len(new.questions), graph.n_concepts
    made = scipy.sparse.csr_array((w.data[there], (w.row[there], to[there])), shape=shape, dtype=np.float64)
    return made.sorted_indices(), np.bincount(w.row[~there], minlength=len(new.questions)) > 0


def _unknown(known: Sequence[str], new: Dataset) -> tuple[str, ...]:
    """A doubt on concepts of new questions that the bank doesn't have; empty if it has all."""
    import polars as pl

    names = [name for name in new.concepts if name not in set(known)]
    if not names:
        return ()
    bare = dict(zip(plain(pl.Series(list(known))), known, strict=True))
    them, say = ("it", "it says") if len(names) == 1 else ("them", "they say")
    near = [(name, bare[other]) for name, other in zip(names, plain(pl.Series(names)), strict=True) if other in bare]
    if not near:  # by their letters; comparing thousands takes its time
        near = [(name, other) for name in names[:SHOWN] for other in nearest(name, known)[:1]]
    meant = f", {near[0][0]!r} may be {near[0][1]!r}" if near else ""
    fix = f"write {them} as the bank does{meant}" if near else f"leave {them}, or add questions on {them} to the bank"
    what = f"{several(len(names), 'concept')} that the bank doesn't have, so {say} nothing here"
    return (doubt(what, file=new.name, value=names[:SHOWN], fix=fix),)
