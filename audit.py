"""Did a run learn from answers of test students? The audit repeats it on data in which these answers are changed.

A run is rebuilt in two variants of the data ("worlds"), which differ from the real data only in the test students'
responses. The run's training inputs must come out the same, byte for byte, and must agree with the run folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from qcq.config import Config
from qcq.corpus import Corpus
from qcq.data import Dataset, duplicate_students
from qcq.data.dataset import Interactions
from qcq.embeddings import Embeddings
from qcq.engine import Plan, Store, make_executor
from qcq.engine.kinds import Trained
from qcq.errors import CorpusError, EmbeddingError, WalkError
from qcq.evaluation import Task
from qcq.evaluation.register import said, test_parts
from qcq.graph import KnowledgeGraph
from qcq.models import Trainer
from qcq.pipeline import Experiment
from qcq.run import FILE, NO_WALK, Run
from qcq.support.progress import Watch
from qcq.support.seeds import generator
from qcq.support.types import takes


@dataclass(frozen=True)
class Check:
    """One check and its result.

    Attributes
    ----------
    name : of the check.
    ok : whether it holds; None if it can't be decided.
    found : what was found, in one line.
    """

    name: str
    ok: bool | None
    found: str


@takes(run="Run")
def audit(
    run: Run, dataset: Dataset | None = None, *, retrain: bool = False, watch: Watch | None = None
) -> list[Check]:
    """Check that no test student's response reached graph, walks, difficulty, choices or vectors of a run.

    Two other worlds are made. In one, the test students' answers are inverted and put on other questions. In the other,
    these students never answered. The run's settings are applied to both.

    Parameters
    ----------
    run : the run folder.
    dataset : its data, if they shouldn't be read from the run's own source.
    retrain : train every model of the first seed again in the first of these worlds, and score one table on each costly
        task, instead of only checking the inputs. Takes as long as the run with one seed, or longer.
    watch : receives the progress.

    Returns
    -------
    The checks, in the order of the data flow.

    Raises
    ------
    DataError : the data can't be read.
    ConfigError : the folder holds no run.
    """
    return list(_Audit(run, dataset, retrain, watch or Watch()).checks())


@dataclass(frozen=True, eq=False)
class _Audit:
    run: Run
    dataset: Dataset | None
    retrain: bool
    watch: Watch

    @cached_property
    def config(self) -> Config:
        return Config.load(self.run.path / "config.toml")

    @cached_property
    def real(self) -> Experiment:
        return Experiment(self.config, self.dataset)

    @cached_property
    def others(self) -> dict[str, Experiment]:
        """The same experiment with other answers of the test students, and without them."""
        split, seen = self.real.partition.split, self.real.data.interactions
        assert split is not None
        assert seen is not None
        test = np.isin(seen.student, split.test.students)
        made = {"turned": _turned(seen, test, len(self.real.data.questions)), "without": _without(seen, test)}
        return {name: Experiment(self.config, replace(self.real.data, interactions=r)) for name, r in made.items()}

    @cached_property
    def about(self) -> dict[str, Any]:
        return self.run.read_json("about.json")

    @cached_property
    def trained(self) -> list[dict[str, Any]]:
        return [row for row in self.run.rows("training") if "error" not in row]

    def checks(self) -> Iterator[Check]:
        with self.watch.progress("data and split"):
            yield (data := self.data())
            if data.ok is False:
                return  # nothing can be checked on other data
            if self.real.partition.split is None:
                yield Check("students", True, "the data set has no responses, so none can have leaked")
                return
            yield self.students()
            yield self.duplicates()
            yield from self.test_parts()
        with self.watch.progress("graph, walks and difficulty"):
            yield self.graph()
            for name in self.config.walks:
                yield _guarded(f"walk {name}", partial(self.walk, name))
            yield _guarded("difficulty", self.difficulty)
        with self.watch.progress("choices"):
            yield _guarded("choices", self.choices)
        with self.watch.progress("vectors"):
            yield _guarded("vectors", self.vectors)
        yield from self.costly()

    def data(self) -> Check:
        wanted = self.about.get("data_digest")
        if wanted is None:
            same = self.about["graph_digest"] == self.real.partition.graph.digest
            same &= self.about["responses"] == len(self.real.data.interactions or ())
            return Check(
                "data", None if same else False, "an older run without a digest of its responses; run it again"
            )
        was, now = self.about.get("left_out", 0), len(self.real.data.left_out)
        if was != now:
            return Check(
                "data",
                False,
                f"the run left {was:,} identifiers of students out, of these data {now:,} are; run it again",
            )
        if wanted != (real := self.real.partition.data_digest):
            return Check(
                "data",
                False,
                f"digest {real[:12]}, the run read {wanted[:12]}: other data, so nothing else is checked",
            )
        n = self.about["responses"]
        return Check("data", True, f"what the run read: {n:,} responses, digest {wanted[:12]}")

    def students(self) -> Check:
        split, seen = self.real.partition.split, self.real.data.interactions
        assert split is not None
        assert seen is not None
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        places = np.zeros(len(self.real.data.students), dtype=np.int64)
        for part in parts.values():
            places[part.students] += 1
            if not np.isin(part.interactions.student, part.students).all():
                return Check("students", False, f"{type(part).__name__} holds a response of another part's student")
        counts = {name: len(part.students) for name, part in parts.items()}
        wanted = np.ones_like(places)
        wanted[self.real.data.left_out] = 0
        held = int(np.isin(seen.student, self.real.data.left_out, invert=True).sum())
        if (places != wanted).any() or sum(len(p.interactions) for p in parts.values()) != held:
            return Check("students", False, f"{int((places != wanted).sum())} students are in no part, or in several")
        if counts != self.about["students"]:
            return Check("students", False, f"now {counts}, in the run {self.about['students']}")
        said = ", ".join(f"{n:,} {name}" for name, n in counts.items())
        return Check("students", True, f"{said}; each in one part, every response with its student")

    def duplicates(self) -> Check:
        """No student is in training under one identifier and in the test under another."""
        split, data = self.real.partition.split, self.real.data
        assert split is not None
        assert data.interactions is not None
        part = np.full(len(data.students), -1)
        for i, each in enumerate((split.train, split.validation, split.test)):
            part[each.students] = i
        pairs = duplicate_students(data.interactions, len(data.students), len(data.questions))
        across = pairs[(part[pairs] >= 0).all(axis=1) & (part[pairs[:, 0]] != part[pairs[:, 1]])]
        if len(across):
            one, other = (data.students[int(i)] for i in across[0])
            return Check(
                "duplicates",
                False,
                f"{len(across)} pairs of students in different parts gave the same answers, {one!r} and {other!r} "
                "first: one person under two identifiers; without split.duplicates = 'as-published' one is left out",
            )
        said = f"; {len(data.left_out):,} identifiers are left out" if len(data.left_out) else ""
        return Check("duplicates", True, f"no person found in two parts under two identifiers{said}")

    def test_parts(self) -> Iterator[Check]:
        """Which test parts the run has read, and what the register of test readings knows of them."""
        for part in test_parts(self.real.partition, self.real.tasks):
            kept = {each["unit"]: each["digest"] for each in self.about.get("test_parts", ())}
            name = f"test {part['unit']}"
            if not kept:
                yield Check(name, None, f"an older run that doesn't name what it read; now {said(part)}")
            elif kept.get(part["unit"]) != part["digest"]:
                was = kept.get(part["unit"], "none")[:12]
                yield Check(name, False, f"the run names the test set {was}, its data have {part['digest'][:12]}")
            else:
                yield Check(name, True, said(part))

    def graph(self) -> Check:
        wanted = self.about["graph_digest"]
        for name, other in self.others.items():
            if other.partition.graph.digest != wanted:
                return Check(
                    "graph", False, f"digest {other.partition.graph.digest[:12]} {_WORLDS[name]}, not {wanted[:12]}"
                )
        return Check(
            "graph", True, f"digest {wanted[:12]}, as in the run, {_WORLDS['turned']} and {_WORLDS['without']}"
        )

    def walk(self, name: str) -> Check:
        about = f"walk {name}"
        rows = {r["seed"]: r["corpus_digest"] for r in self.trained if r["walk"] == name and r["corpus_digest"]}
        wanted = self.real.graphs[name].digest
        for world, other in self.others.items():
            if other.graphs[name].digest != wanted:
                return Check(
                    about,
                    False,
                    f"its graph has digest {other.graphs[name].digest[:12]} {_WORLDS[world]}, "
                    f"not {wanted[:12]}: it looks at test students",
                )
        if not rows:
            return Check(about, True, f"its graph has the same digest {wanted[:12]} in both worlds; it has no walks")
        for seed, digest in rows.items():
            kept = Corpus.load(self.run.corpus(name, seed))
            kept.verify()
            if kept.graph_digest != wanted or kept.digest != digest:
                return Check(
                    about, False, f"seed {seed}: the corpus in the folder isn't the one the models were trained on"
                )
            for world, other in self.others.items():
                with tempfile.TemporaryDirectory() as scratch:
                    strategy = other.config.build_walks()[name]
                    again = strategy.stream(other.graphs[name], scratch, seed).digest
                if again != digest:
                    return Check(
                        about,
                        False,
                        f"seed {seed}: sampled again {_WORLDS[world]} it has digest {again[:12]}, "
                        f"not {digest[:12]}: it looks at test students",
                    )
        n = len(rows)
        return Check(about, True, f"{n} {'corpora' if n > 1 else 'corpus'} sampled again in both worlds: same digests")

    def difficulty(self) -> Check:
        held = self.run.edges()
        kept = {key: held[key] for key in ("responses", "difficulty") if key in held}
        for world, other in self.others.items():
            assert other.partition.split is not None
            train = other.partition.split.train
            for key, now in (("responses", train.counts), ("difficulty", train.difficulty)):
                if key not in kept or not np.array_equal(kept[key], now, equal_nan=True):
                    return Check(
                        "difficulty",
                        False,
                        f"the run's {key} of questions aren't what training students say {_WORLDS[world]}",
                    )
        n = int((kept["responses"] > 0).sum())
        return Check("difficulty", True, f"counts and shares of {n:,} answered questions are the same in both worlds")

    def choices(self) -> Check:
        """Settings and read-outs: their validation figures are recomputed with other answers of the test students."""
        tuning, other = self.run.rows("tuning"), self.others["turned"]
        judges = {
            each.name: each.made(other.partition) for each in other.tasks if each.task.tunes and not each.task.costly
        }
        figures = 0
        for row in self.trained:
            mine = [t for t in tuning if (t["walk"], t["trainer"]) == (row["walk"], row["trainer"])]
            chosen = [t for t in mine if t["chosen"]]
            label = f"{row['trainer']} on {row['walk']}"
            if len(chosen) != 1 or (chosen[0]["score"] or 0.0) < max(t["score"] or 0.0 for t in mine):
                return Check(
                    "choices", False, f"{label}: the settings taken aren't those with the best validation figures"
                )
            if chosen[0]["readout"] != row["readout"]:
                return Check(
                    "choices", False, f"{label}: read-out {row['readout']}, validation chose {chosen[0]['readout']}"
                )
            for t in mine:
                told = [t[name] for name in self.config.tasks if name in t]
                if told and not np.isclose(t["score"], np.mean(told), rtol=1e-6, atol=1e-9):
                    return Check("choices", False, f"{label}: a score isn't the mean of its validation figures")
            if row["seed"] != self.config.seed:
                continue
            for t in (t for t in mine if t["candidate"] == chosen[0]["candidate"]):
                emb = self._stored(row, t["readout"])
                for name, task in judges.items():
                    if name not in t:
                        continue
                    now = task.score(emb, "validation").metrics[task.metric]
                    figures += 1
                    if not np.isclose(now, t[name], rtol=1e-5, atol=1e-6):
                        return Check(
                            "choices",
                            False,
                            f"{label}: {name} on validation is {now:.6f} {_WORLDS['turned']}, {t[name]:.6f} in the run",
                        )
        return Check(
            "choices", True, f"{figures} validation figures are the same {_WORLDS['turned']}; the best were taken"
        )

    def vectors(self) -> Check:
        """The inputs of every table; closed forms (with ``retrain`` all tables) are made again."""
        tables, again = 0, []
        trainers = self.config.build_trainers()
        for row in self.trained:
            label = f"{row['trainer']} on {row['walk']}"
            if row["walk"] == FILE:
                continue
            trainer = trainers[row["trainer"]]
            graph = _graph(self.real, row["walk"], trainer)
            for readout in row["readouts"]:
                made = self._stored(row, readout).provenance
                if made["graph_digest"] != graph.digest or made["corpus_digest"] != row["corpus_digest"]:
                    return Check("vectors", False, f"{label}: {readout} was made from another graph or corpus")
                tables += 1
            first = row["seed"] == self.config.seed
            if first and (self.retrain or not trainer.learns):
                trainer = replace(trainer, **{k: v for k, v in row["settings"].items() if k in trainer.config})
                said = self._retrained(row, trainer, label)
                if said is not None:
                    return Check("vectors", False, said)
                again.append(row["trainer"])
        files = sum(row["walk"] == FILE for row in self.trained)
        own = f"; {files} from files, which can't be checked" if files else ""
        said = f"; made again {_WORLDS['turned']}, same vectors: {', '.join(dict.fromkeys(again))}" if again else ""
        return Check("vectors", True, f"{tables} tables were made from that graph and those walks{said}{own}")

    def _retrained(self, row: dict[str, Any], trainer: Trainer, label: str) -> str | None:
        """What is wrong, if anything, when the model is trained again with other answers of the test students."""
        turned = self._train(self.others["turned"], row, trainer)
        stored = {readout: self._stored(row, readout).vectors for readout in row["readouts"]}
        if all(np.array_equal(turned[r], stored[r]) for r in stored):
            return None
        if not trainer.reproducible:
            return None  # two trainings differ anyway: a difference proves nothing
        real = self._train(self.real, row, trainer)  # rounding depends on the machine: only the data may differ
        if all(np.array_equal(turned[r], real[r]) for r in stored):
            return None
        return f"{label}: trained again {_WORLDS['turned']} it gives other vectors: it looks at test students"

    def _train(self, world: Experiment, row: dict[str, Any], trainer: Trainer) -> dict[str, np.ndarray]:
        """The vectors of a model trained in another world, by read-out, in a store of its own."""
        cell = Trained(
            data=world.partition.digest,
            walked=world.walked(row["walk"], row["seed"]),
            trainer=trainer,
            seed=row["seed"],
            graph=_graph(world, NO_WALK, trainer).digest,
            dataset=world.data.name,
            loss_walks=0,
            label=f"{row['trainer']} again",
        )
        with tempfile.TemporaryDirectory() as scratch:
            store = Store(scratch, {world.partition.digest: world.partition}).open()
            with make_executor(store, watch=self.watch) as workers:
                readouts = Plan([cell]).execute(workers, store).row(cell)["readouts"]
            return {readout: cell.embeddings(store, readout).vectors for readout in readouts}

    @cached_property
    def half(self) -> tuple[Experiment, np.ndarray]:
        """The same experiment with other answers of every second test student, and which test students kept theirs."""
        split, seen = self.real.partition.split, self.real.data.interactions
        assert split is not None
        assert seen is not None
        kept = np.unique(split.test.interactions.student)[1::2]
        turned = np.isin(seen.student, np.setdiff1d(split.test.students, kept))
        other = _turned(seen, turned, len(self.real.data.questions))
        return Experiment(self.config, replace(self.real.data, interactions=other)), kept

    def costly(self) -> Iterator[Check]:
        """Tasks that train a model of students: neither the model nor the chosen epoch may depend on the test students,
        nor the prediction for one of them on another's answers."""
        there = [name for name, task in self.config.task_classes().items() if task.costly]
        for name in there:
            row = next((r for r in self.trained if r["walk"] != FILE), None)
            if not self.retrain or row is None:
                yield Check(name, None, "trains a model for each table; --retrain trains one again in both worlds")
                continue
            emb = self._stored(row, row["readout"])
            other, kept = self.half
            with self.watch.progress(f"{name} again"):
                tasks = [_task(world, name) for world in (self.real, other)]
                figures = [task.score(emb, "validation").metrics for task in tasks]
                losses = [_losses(task, emb, kept) for task in tasks]
            if figures[0] != figures[1]:
                yield Check(name, False, f"{row['trainer']}: other figures on validation {_WORLDS['half']}")
            elif any(not np.allclose(losses[0][each], losses[1][each], rtol=1e-6, atol=1e-9) for each in losses[0]):
                yield Check(
                    name,
                    False,
                    f"{row['trainer']}: predictions for a test student are others {_WORLDS['half']}: "
                    "it looks at other test students",
                )
            else:
                found = "model, epoch, validation figures and the predictions for the other half are the same"
                yield Check(name, True, f"{row['trainer']}: {found} {_WORLDS['half']}")

    def _stored(self, row: dict[str, Any], readout: str) -> Embeddings:
        path = self.run.file("embeddings", row["walk"], row["trainer"], readout, row["seed"], ".safetensors")
        return Embeddings.load(path)


def _graph(world: Experiment, walk: str, trainer: Trainer) -> KnowledgeGraph:
    """What the trainer learns from."""
    if walk != NO_WALK:
        return world.graphs[walk]
    split = world.partition.split
    return trainer.prepare(world.partition.graph, None if split is None else split.train)


def _task(world: Experiment, name: str) -> Task:
    return next(each.made(world.partition) for each in world.tasks if each.name == name)


def _losses(task: Task, embeddings: Embeddings, students: np.ndarray) -> dict[str, np.ndarray]:
    """The log-loss of each of some test students, by figure: their answers alone, whatever the others answered."""
    split = task.partition.split
    assert split is not None
    every, n = np.unique(split.test.interactions.student, return_counts=True)
    found = {}
    for name, units in task.score(embeddings, "test").units.items():
        if name.rpartition("/")[2] == "log-loss" and len(units) == len(n):
            # A unit is the mean over all answers plus the student's deviation from it: the mean is taken out again.
            own = units - units.mean() * (1 - n * len(n) / n.sum())
            found[name] = own[np.isin(every, students)]
    return found


_WORLDS = {
    "turned": "with the test students' answers turned round",
    "without": "without the test students",
    "half": "with half of the test students' answers turned round",
}


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check whose files are missing or broken has failed."""
    try:
        return check()
    except (CorpusError, EmbeddingError, WalkError, OSError) as error:
        return Check(name, False, str(error))


def _turned(seen: Interactions, test: np.ndarray, n_questions: int) -> Interactions:
    """Test students' answers inverted, each on a question drawn at random."""
    rng = generator(0, "audit", "questions")
    question, correct = seen.question.copy(), seen.correct.copy()
    question[test] = rng.integers(0, n_questions, int(test.sum()))
    correct[test] = 1 - correct[test]
    return replace(seen, question=question, correct=correct)


def _without(seen: Interactions, test: np.ndarray) -> Interactions:
    time = None if seen.timestamp is None else seen.timestamp[~test]
    return Interactions(seen.student[~test], seen.question[~test], seen.correct[~test], time, seen.ordered)
