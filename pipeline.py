"""The main job: data → graph → walks → corpus → models → embeddings → evaluation → report. No algorithm lives here.

``python pipeline.py`` is the same as ``qcq run``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from qcq import data as _data
from qcq.config import Config
from qcq.data import Dataset
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, DataError, EmbeddingError, EvaluationError, TrainingError
from qcq.evaluation import Problem, Task
from qcq.floors.losses import measure
from qcq.graph import KnowledgeGraph
from qcq.models import Source, Trainer
from qcq.models.given import Given
from qcq.run import Row, Run
from qcq.support.cost import measured
from qcq.support.files import whole, write_text
from qcq.support.folders import claim, refuse_foreign
from qcq.support.progress import Watch

NO_WALK = "none"  # the walk of a trainer that doesn't look at walks
FILE = "file"  # the walk of vectors that somebody else made


@dataclass(frozen=True, eq=False)
class _Trained:
    """One trained model, reduced to what the run keeps of it."""

    embeddings: Mapping[str, Embeddings]
    row: Row
    curve: list[Row]


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config in, results out.

    Parameters
    ----------
    config : what to run.
    dataset : the data to run it on, if it isn't to be read from ``config.data``: whatever ``qcq.data.read`` returns.

    Examples
    --------
    >>> Experiment(Config()).run("runs/simulated")  # doctest: +SKIP
    """

    config: Config
    dataset: Dataset | None = None

    @cached_property
    def data(self) -> Dataset:
        """The data set, read once."""
        return self.dataset if self.dataset is not None else _data.load(self.config.data, self.config.sections)

    @cached_property
    def problem(self) -> Problem:
        """The students divided and the edges held out, before anything else happens."""
        if len(self.data.questions) < 2:
            raise DataError(
                "a comparison needs at least two questions", value=self.data.name, fix="give a larger question bank"
            )
        hold_out = any(task.holds_out_edges for task in self.config.task_classes().values())
        fold = (self.config.fold, self.config.folds) if self.config.fold else None
        return Problem.make(self.data, self.config.seed, hold_out_edges=hold_out, fold=fold)

    @cached_property
    def graphs(self) -> dict[str, KnowledgeGraph]:
        """The training graph of each walk, with what the walk needs of the training students."""
        train = None if self.problem.split is None else self.problem.split.train
        return {name: walk.prepare(self.problem.graph, train) for name, walk in self.config.build_walks().items()}

    @cached_property
    def given(self) -> dict[str, Given]:
        """The vectors that somebody else made, by name, in the order of the questions.

        Raises
        ------
        EmbeddingError : a file that can't be read, or that doesn't fit the questions.
        """
        out = {}
        for name, file in self.config.vectors.items():
            try:
                emb = Embeddings.load(file).aligned(self.data.questions)
            except EmbeddingError as error:
                said = str(error)
                raise EmbeddingError(said if said.startswith(str(Path(file))) else f"{file}: {said}") from None
            out[name] = Given(embeddings=emb, file=str(file), dim=emb.dim)
        return out

    @cached_property
    def seeds(self) -> range:
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def run(self, out: str | Path, *, redo: bool = False, watch: Watch | None = None) -> Run:
        """Do the main job; finished cells of an earlier run in the same folder are skipped unless ``redo``.

        Parameters
        ----------
        out : the run folder; made only once data and settings have been found good.
        redo : do finished cells again.
        watch : who is told about progress.

        Returns
        -------
        Run : the folder, with ``report.md`` and ``report.html`` in it.

        Raises
        ------
        ConfigError : all folds are asked for, which :func:`run_folds` runs.
        """
        if self.config.folds > 1 and not self.config.fold:
            raise ConfigError(f"setting fold: name one of the {self.config.folds} folds, or run them all by run_folds")
        watch = watch or Watch()
        run = Run(Path(out))
        tasks, skipped = self.tasks(watch)
        # A walk that can't be had here, or vectors of other questions, say so before a folder is made.
        graphs, given = self.graphs, self.given
        self._claim(run, redo)
        self._describe(run, skipped, watch)
        for name, walk in self.config.build_walks().items():
            for line in walk.remarks(graphs[name]):
                watch.say(line)
        for name, trainer in self.config.build_trainers().items():
            # A baseline doesn't look at walks, so one row of it serves all of them.
            for each in graphs if trainer.learns else (NO_WALK,):
                sources = {seed: self._source(run, each, seed) for seed in self.seeds}
                self._compare(run, each, name, trainer, sources, tasks, redo, watch)
        # A table from a file has no seeds, but a task that trains a model of its own on it has.
        seeds = self.seeds if any(task.costly for task in tasks.values()) else self.seeds[:1]
        for name, table in given.items():
            sources = {seed: self._source(run, FILE, seed) for seed in seeds}
            self._compare(run, FILE, name, table, sources, tasks, redo, watch)
        from qcq.report import write_maps, write_page, write_report

        write_report(run)
        with watch.progress("maps and report.html"):
            write_maps(run, None if self.problem.split is None else self.problem.split.train)
            write_page(run)
        return run

    def tasks(self, watch: Watch | None = None) -> tuple[dict[str, Task], dict[str, str]]:
        """The tasks that can be asked here, by name; and why the others can't.

        Raises
        ------
        EvaluationError : none of them can.
        """
        watch = watch or Watch()
        tasks: dict[str, Task] = {}
        skipped: dict[str, str] = {}
        plans = self.config.task_settings()
        for name, cls in self.config.task_classes().items():
            try:
                if cls.compares_seeds and self.config.seeds < 2:
                    raise EvaluationError(f"{name} compares seeds; ask for at least two")
                tasks[name] = cls(self.problem, *[plans[name] for _ in range(name in plans)])
            except EvaluationError as error:
                skipped[name] = str(error)
                watch.say(f"task {name} is left out: {error}")
        if not tasks:
            raise EvaluationError(f"{self.data.name}: none of the tasks can be scored: {'; '.join(skipped.values())}")
        return tasks, skipped

    def _claim(self, run: Run, redo: bool) -> None:
        """The folder is this run's, and its data are these; else ConfigError, and nothing is changed."""
        refuse_foreign(run.path, "run")
        if (run.path / "about.json").exists() and not redo:
            held = run.read_json("about.json")
            if held["data_digest"] != self.digest:
                raise ConfigError(
                    f"{run.path}: holds a run on other data ({held['dataset']}, digest {held['data_digest'][:12]}, "
                    f"these have {self.digest[:12]}); name another folder, or replace that run with --redo"
                )
        claim(run.path, "run")

    def _describe(self, run: Run, skipped: Mapping[str, str], watch: Watch) -> None:
        for note in self.data.notes:
            watch.say(note)
        graph = self.problem.graph
        about: dict[str, Any] = {
            "dataset": self.data.name,
            "notes": list(self.data.notes),
            "graph": graph.describe(),
            "graph_digest": graph.digest,
            "data_digest": self.digest,
            "held_out_edges": {stage: len(edges) for stage, edges in self.problem.edges.items()},
            "students": self._part_sizes(),
            "left_out": len(self.data.left_out),
            "responses": 0 if self.data.interactions is None else len(self.data.interactions),
            "skipped_tasks": dict(skipped),
        }
        counts = about["graph"]
        watch.say(
            f"{self.data.name}: {counts['questions']:,} questions, {counts['concepts']:,} concepts, "
            f"{counts['edges']:,} edges ({sum(about['held_out_edges'].values()):,} more held out), "
            f"{about['responses']:,} responses"
        )
        if counts["concepts"] < 2:
            watch.say("warning: a single concept; every pair of questions shares it, so walks carry no structure")
        import tomli_w

        write_text(run.path / "config.toml", tomli_w.dumps(self.config.to_dict()))
        write_text(run.path / "environment.json", json.dumps(_environment(), indent=2) + "\n")
        write_text(run.path / "about.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        self._write_questions(run)
        self._inspect(run)

    def _part_sizes(self) -> dict[str, int]:
        split = self.problem.split
        if split is None:
            return {}
        return {part: len(getattr(split, part).students) for part in ("train", "validation", "test")}

    def _write_questions(self, run: Run) -> None:
        import polars as pl

        w, concepts = self.data.q_matrix, self.data.concepts
        names = [self.data.question_names.get(q, "") for q in self.data.questions]
        sets = [
            "; ".join(
                self.data.concept_names.get(concepts[c], concepts[c]) for c in w.indices[w.indptr[i] : w.indptr[i + 1]]
            )
            for i in range(w.shape[0])
        ]
        labels = [self.data.concept_names.get(c, "") for c in concepts]
        for name, columns in {
            "questions.csv": {"question": list(self.data.questions), "name": names, "concepts": sets},
            "concepts.csv": {"concept": list(concepts), "name": labels},
        }.items():
            with whole(run.path / name) as file:
                pl.DataFrame(columns).write_csv(file)
        arrays = {"indptr": w.indptr, "indices": w.indices, "degree": np.diff(self.problem.graph.weights.indptr)}
        if self.problem.split is not None:
            train = self.problem.split.train
            arrays |= {"responses": train.counts, "difficulty": train.difficulty}
        np.savez_compressed(run.path / "graph.npz", **arrays)

    def _inspect(self, run: Run) -> None:
        """What the graph can tell under each walk, worked out once a graph and walk."""
        from qcq.floors.identifiability import inspect

        train = None if self.problem.split is None else self.problem.split.train
        for name, strategy in self.config.build_walks().items():
            graph = self.graphs[name]
            path = run.path / "inspect" / f"{name.replace(':', '-')}.json"
            about = {"graph_digest": graph.digest, "walk": strategy.config, "qcq": metadata.version("qcq")}
            if path.exists() and json.loads(path.read_text(encoding="utf-8"))["of"] == about:
                continue
            write_text(path, json.dumps({"of": about, **inspect(graph, strategy, train)}, indent=1) + "\n")

    def _source(self, run: Run, walk: str, seed: int) -> Source:
        """The walks of one seed: sampled once into the run folder, then read from there by every trainer."""
        if walk in (NO_WALK, FILE):
            return Source(self.problem.graph, seed=seed)
        strategy, graph = self.config.build_walks()[walk], self.graphs[walk]
        folder = run.path / "corpus" / walk.replace(":", "-") / f"seed-{seed}"
        corpus = strategy.stream(graph, folder, seed, replace=True)  # read as it is where it is whole already
        return Source(graph, strategy, seed, given=corpus)

    def _cell(self, walk: str, name: str, trainer: Trainer, seed: int) -> str:
        """Digest of all that the result of one cell hangs on."""
        strategy = {} if walk in (NO_WALK, FILE) else self.config.build_walks()[walk].config
        about = [self.digest, walk, strategy, name, trainer.config, seed, self.config.seed, metadata.version("qcq")]
        about += [[self.config.fold, self.config.folds]] if self.config.fold else []
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the training graph and all responses: equal exactly where a run would see the same data."""
        h = hashlib.sha256(self.problem.graph.digest.encode())
        if self.data.interactions is not None:
            for array in (
                self.data.interactions.student,
                self.data.interactions.question,
                self.data.interactions.correct,
            ):
                h.update(np.ascontiguousarray(array).data)
            h.update(np.ascontiguousarray(self.data.left_out).data)
        return h.hexdigest()

    def _compare(
        self,
        run: Run,
        walk: str,
        name: str,
        trainer: Trainer,
        sources: Mapping[int, Source],
        tasks: Mapping[str, Task],
        redo: bool,
        watch: Watch,
    ) -> None:
        """One trainer on one walk: choose its settings on validation, train every seed, score on test."""

        def mine(row: Row) -> bool:
            return (row["walk"], row["trainer"]) == (walk, name)

        label = name if walk in (NO_WALK, FILE) else f"{walk} · {name}"
        asked = [f"{task} {self.config.task_settings().get(task, '')}" for task in sorted(tasks)]
        wanted = self._cell(walk, name, trainer, -1) + str([asked, list(sources), self.config.tune])
        done = [row for row in run.rows("training") if mine(row) and row["comparison"] == wanted]
        if not redo and {row["seed"] for row in done} == set(sources):
            watch.say(f"{label}: finished earlier, skipped")
            return
        for table in ("training", "results", "tuning", "curves"):
            run.replace(table, [], mine)
        about = {"dataset": self.data.name, "walk": walk, "trainer": name}
        try:
            chosen, readout, first = self._tune(run, about, trainer, sources[self.seeds[0]], tasks, label, watch)
            trained = {}
            for seed in sources:
                trained[seed] = (
                    first if seed == self.seeds[0] else self._train(chosen, sources[seed], seed, label, watch)
                )
        except TrainingError as error:
            watch.say(f"{label}: failed: {error}")
            run.replace("training", [{**about, "seed": self.seeds[0], "comparison": wanted, "error": str(error)}], mine)
            return
        results: list[Row] = []
        judged: dict[int, dict[str, Any]] = {seed: {} for seed in trained}  # what costly tasks chose
        for each in first.embeddings:
            embeddings = {seed: t.embeddings[each] for seed, t in trained.items()}
            for seed, emb in embeddings.items():
                emb.save(run.file("embeddings", walk, name, each, seed, ".safetensors"))
                others = [e for s, e in embeddings.items() if s != seed and walk != FILE]
                scores = {}
                for task, made in tasks.items():
                    if (made.compares_seeds and not others) or (made.costly and each != readout):
                        continue
                    with watch.progress(f"{label}, seed {seed}: {task}") if made.costly else nullcontext():
                        scores[task] = made.score(emb, "test", others)
                        if made.costly:
                            held = made.score(emb, "validation", others)
                            judged[seed][task] = {made.metric: held.metrics[made.metric], **held.choices}
                    if traces := made.traces(emb):
                        path = run.file("traces", walk, name, f"{task}--{each}", seed, ".npz")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        np.savez_compressed(path, **traces)  # type: ignore[arg-type]
                results += [
                    {**about, "readout": each, "seed": seed, "task": task, "metric": metric, "value": float(value)}
                    for task, score in scores.items()
                    for metric, value in score.metrics.items()
                ]
                units = {f"{task}/{key}": v for task, score in scores.items() for key, v in score.units.items()}
                path = run.file("scores", walk, name, each, seed, ".npz")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(path, **units)  # type: ignore[arg-type]
        run.replace("results", results, mine)
        run.replace("curves", [{**about, "seed": s, **at} for s, t in trained.items() for at in t.curve], mine)
        cell = {"readout": readout, "readouts": list(first.embeddings), "comparison": wanted, "settings": chosen.config}
        rows = [{**about, "seed": s, **t.row, "judged": judged[s], **cell} for s, t in trained.items()]
        run.replace("training", rows, mine)
        shown = [r for r in results if r["readout"] == readout]
        watch.say(f"{label}: " + ", ".join(_headlines(shown, tasks)))

    def _tune(
        self,
        run: Run,
        about: Row,
        trainer: Trainer,
        source: Source,
        tasks: Mapping[str, Task],
        label: str,
        watch: Watch,
    ) -> tuple[Trainer, str, _Trained]:
        """The candidate settings and the read-out with the best validation figures, and the model that had them."""
        judges = {name: task for name, task in tasks.items() if task.tunes}
        candidates = trainer.tuning if self.config.tune and judges else ({},)
        tried: list[tuple[float, Trainer, str, _Trained]] = []
        rows = []
        for i, candidate in enumerate(candidates):
            made = replace(trainer, **candidate)
            suffix = f" (settings {i + 1} of {len(candidates)})" if len(candidates) > 1 else ""
            trained = self._train(made, source, self.seeds[0], label + suffix, watch)
            for readout, emb in trained.embeddings.items():
                figures = {name: task.score(emb, "validation").metrics[task.metric] for name, task in judges.items()}
                mean = float(np.mean(list(figures.values()))) if figures else 0.0
                rows.append({**about, "candidate": dict(candidate), "readout": readout, "score": mean, **figures})
                tried.append((mean, made, readout, trained))
        best = max(range(len(tried)), key=lambda i: tried[i][0])
        rows = [{**row, "chosen": i == best} for i, row in enumerate(rows)]
        run.replace("tuning", rows, lambda row: (row["walk"], row["trainer"]) == (about["walk"], about["trainer"]))
        return tried[best][1], tried[best][2], tried[best][3]

    def _train(self, trainer: Trainer, source: Source, seed: int, label: str, watch: Watch) -> _Trained:
        if trainer.learns:
            _ = source.corpus  # sampling is not the trainer's cost
        curve: list[Row] = []
        with watch.progress(f"{label}, seed {seed}") as progress, measured() as cost:

            def watched(done: int, total: int, **figures: float | str) -> None:
                progress(done, total, **figures)
                if "loss" in figures:
                    held = {key: figures.get(key) for key in ("loss", "floor", "excess", "verdict")}
                    curve.append({"step": done, "steps": total, **held})

            model = trainer.fit(source, seed, watched)
        provenance = {
            "dataset": self.data.name,
            "graph_digest": source.graph.digest,
            "walk": {} if source.given is None else dict(source.given.strategy),
            "corpus_digest": None if source.given is None else source.given.digest,
            "trainer": {"name": type(trainer).__name__, **trainer.config},
            "seed": seed,
        }
        embeddings = {}
        for readout in model.readouts:
            e = source.walk.fold(self.problem.graph, model.embeddings(readout))
            embeddings[readout] = Embeddings(
                e.ids, e.vectors, e.concept_ids, e.concept_vectors, {**provenance, "readout": readout}
            )
        loss = None if model.objective is None else measure(model, source, history=model.history)
        row = {
            "seconds": round(cost.seconds, 3),
            "peak_rss_mb": round(cost.peak_rss_mb, 1),
            "tokens": model.tokens,
            "objective": None if loss is None else loss.objective,
            "loss": None if loss is None else loss.loss,
            "floor": None if loss is None else loss.floor,
            "excess": None if loss is None else loss.excess,
            "excess_se": None if loss is None else loss.se,
            "unigram": None if loss is None else loss.unigram,
            "verdict": None if loss is None else loss.verdict,
            "why_no_floor": None if loss is None else loss.why or None,
            "reproducible": trainer.reproducible,
            "corpus_digest": provenance["corpus_digest"],
        }
        return _Trained(embeddings, row, curve)


def run_folds(
    config: Config, out: str | Path, dataset: Dataset | None = None, *, redo: bool = False, watch: Watch | None = None
) -> list[Run]:
    """Every fold of the students in turn: ``out/fold-1`` … are runs like any other; ``out/report.md`` pools them.

    Parameters
    ----------
    config : with ``folds`` of two at least.
    out, dataset, redo, watch : as in :class:`Experiment`.

    Raises
    ------
    ConfigError : there are no folds to run.
    DataError : the data set has no students to divide.
    """
    if config.folds < 2:
        raise ConfigError(f"setting folds: {config.folds} is no number of folds; give 2 at least")
    data, made, watch = Experiment(config, dataset).data, [], watch or Watch()
    if data.interactions is None:
        raise DataError("no students to divide into folds", value=data.name, fix="leave folds at 1")
    claim(out, "folds")
    for k in range(1, config.folds + 1):
        watch.say(f"fold {k} of {config.folds}")
        made.append(Experiment(replace(config, fold=k), data).run(Path(out) / f"fold-{k}", redo=redo, watch=watch))
    from qcq.report import write_folds

    write_folds(made, Path(out))
    return made


def _headlines(results: list[Row], tasks: Mapping[str, Task]) -> list[str]:
    out = []
    for name, task in tasks.items():
        values = [r["value"] for r in results if (r["task"], r["metric"]) == (name, task.metric)]
        if values:
            out.append(f"{name} {task.metric} {np.mean(values):.3f}")
    return out


def _environment() -> dict[str, Any]:
    """Versions, processor, threads and, in a git checkout, the revision."""
    root = Path(__file__).resolve().parent
    git = None
    if (root / ".git").exists():
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
        git = found.stdout.strip() or None
    names = ("qcq", "numpy", "scipy", "numba", "gensim", "torch", "networkx", "polars", "scikit-learn", "plotly")
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "threads": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in names},
        "git": git,
        "command": " ".join(["qcq", *sys.argv[1:]]),
    }


def main() -> None:
    """``python pipeline.py …`` is ``qcq run …``."""
    from qcq.cli import main as command

    sys.argv.insert(1, "run")  # a run's page shows the command that repeats it
    command()


__all__ = ["Config", "ConfigError", "Experiment"]

if __name__ == "__main__":
    # Run as a script this module is called __main__; the one that everybody imports is qcq.pipeline.
    from qcq.pipeline import main as _main

    _main()
