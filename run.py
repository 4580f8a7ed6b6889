"""A run folder on disk: its content, and reading it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EmbeddingError, UnknownNameError
from qcq.support.arrays import read_npz, refuse_bad_indices
from qcq.support.files import from_json, from_toml, validated
from qcq.support.folders import refuse_newer
from qcq.support.forked import refuse_forked
from qcq.support.formulas import restored_frame
from qcq.support.notebook import first, html_table
from qcq.support.types import takes

if TYPE_CHECKING:
    import polars as pl


Row = Mapping[str, Any]
T = TypeVar("T")
NO_WALK = "none"  # the walk of a trainer that doesn't look at walks
COLUMNS = {"questions.csv": ("question", "name", "concepts"), "concepts.csv": ("concept", "name")}
FILE = "file"  # the walk of vectors that come from a file
MANIFEST = "manifest.json"  # SHA-256 of every file of a finished run beyond its cells


class _Held(BaseModel):
    """What a file of a run must hold; more may be in it."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class _Settings(_Held):  # config.toml
    data: str
    walks: list[str]
    trainers: list[str]
    tasks: list[str]
    seeds: int
    seed: int


class _Graph(_Held):
    questions: int
    concepts: int
    edges: int


class _About(_Held):  # about.json
    dataset: str
    notes: list[str]
    graph: _Graph
    graph_digest: str
    data_digest: str
    students: dict[str, int]
    responses: int
    skipped_tasks: dict[str, str]
    cells: list[str] = []


class _Row(_Held):  # of curves.jsonl
    walk: str
    trainer: str


class _Tuned(_Row):  # of tuning.jsonl
    candidate: dict[str, Any]
    readout: str
    score: float | None
    chosen: bool


class _Failed(_Row):  # of training.jsonl
    seed: int
    error: str


class _Trained(_Row):  # of training.jsonl
    seed: int
    readout: str
    readouts: list[str]
    settings: dict[str, Any]
    objective: str | None
    loss: float | None
    floor: float | None
    excess: float | None
    excess_se: float | None
    unigram: float | None
    verdict: str | None
    corpus_digest: str | None
    judged: dict[str, dict[str, float | str | None]] = {}


class _Result(_Row):  # of results.jsonl
    readout: str
    seed: int
    task: str
    metric: str
    value: float | None


HELD: Mapping[str, type[_Held]] = {"config.toml": _Settings, "about.json": _About}
ROWS: Mapping[str, type[_Row]] = {"tuning": _Tuned, "training": _Trained, "curves": _Row, "results": _Result}


def filed(name: str) -> str:
    """How the name of a walk, a trainer or a table is written in the name of a file: without separators of folders."""
    return name.replace("/", "-").replace(":", "-")


def cells_of(folder: Path, fold: int) -> Path:
    """The folder of a run's cells, if it has no other store; all folds of a run share one."""
    home = folder.parent if fold and refuse_newer(folder.parent) == "folds" else folder
    return home / "cells"


@dataclass(frozen=True)
class Page:
    """A written report; a notebook shows it if it is the last line of a cell.

    Attributes
    ----------
    path : the file.
    """

    path: Path

    def _repr_html_(self) -> str:
        text = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe title="qcq report" style="width:100%;height:80vh;border:0" srcdoc="{text}"></iframe>'


@dataclass(frozen=True)
class Run:
    """A run folder.

    ``config.toml`` (resolved), ``environment.json``, ``about.json`` (the data set and its graph), ``questions.csv``,
    ``concepts.csv``, ``graph.npz`` (edges, degree, responses and difficulty among training students),
    ``inspect/<walk>.json`` (what the walk can tell), ``corpus/<walk>/seed-<n>/``, ``embeddings/*.safetensors``
    (each with the model that infers new questions, in ``*.safetensors.model/``),
    ``scores/*.npz`` (figures by unit), ``maps/*.npz``, ``weights/*.safetensors`` (of trainers that
    can begin from them), ``tracers/`` (models of :func:`qcq.report.trace`), ``tuning.jsonl``, ``training.jsonl``,
    ``curves.jsonl`` (losses during training), ``results.jsonl``, ``report.md`` and ``report.html``.

    Parameters
    ----------
    path : the folder.

    Examples
    --------
    >>> Run("runs/simulated").embeddings("skipgram")  # doctest: +SKIP
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    @takes(path="path")
    def open(cls, path: str | Path) -> Run:
        """An existing run.

        Raises
        ------
        ConfigError : the folder holds no run, or one that a newer qcq made. A run of qcq 0.1 opens.
        """
        run = cls(Path(path))
        if not run.path.exists():
            raise ConfigError(f"{path}: no such folder; check the spelling and the current folder")
        kind = refuse_newer(run.path)
        if not (run.path / "config.toml").is_file():
            if (run.path / "fold-1").is_dir():
                raise ConfigError(
                    f"{path}: holds a run for each fold of the students; name one, as {run.path / 'fold-1'}"
                )
            if run.path.is_file():
                raise ConfigError(f"{path}: is a file, and a run is a folder; name one that 'qcq run' made")
            found = f"a {kind}, no run," if kind not in ("", "run") else "no run"
            raise ConfigError(f"{path}: {found} in this folder (config.toml is missing); make one with 'qcq run'")
        return run

    @property
    def config(self) -> dict[str, Any]:
        return self._read("config.toml", from_toml)

    def _repr_html_(self) -> str:
        if not (self.path / "about.json").is_file():
            return html_table(f"Run {self.path}", {"state": "nothing in this folder yet"})
        about, config, trained = self.read_json("about.json"), self.config, self.rows("training")
        return html_table(
            f"Run {self.path}",
            {
                "data": about["dataset"],
                "state": "finished" if self.finished else "not finished: the same command goes on with it",
                "questions": f"{about['graph']['questions']:,}",
                "concepts": f"{about['graph']['concepts']:,}",
                "walks": first(config["walks"]),
                "trainers": first(list(dict.fromkeys(row["trainer"] for row in trained if "error" not in row))),
                "failed": first(list(dict.fromkeys(row["trainer"] for row in trained if "error" in row))),
                "seeds": first(list(dict.fromkeys(str(row["seed"]) for row in trained))),
            },
        )

    @property
    def finished(self) -> bool:
        """False if the run was interrupted and not continued; its tables then have the finished results."""
        about = self.read_json("about.json")
        return bool(about.get("finished", (self.path / "report.md").is_file()))  # qcq 0.1 ended with that file

    def refuse_other_data(self, digest: str, redo: bool) -> None:
        """ConfigError if the folder has a run on data with another digest, unless that run should be replaced."""
        if redo or not (self.path / "about.json").exists():
            return
        about = self.read_json("about.json")
        if about["data_digest"] != digest:
            raise ConfigError(
                f"{self.path}: holds a run on other data ({about['dataset']}, digest {about['data_digest'][:12]}, "
                f"these have {digest[:12]}); name another folder, or replace that run with --redo"
            )

    def read_json(self, name: str | Path) -> dict[str, Any]:
        """The object in a file of the run.

        Raises
        ------
        ConfigError : the file is damaged.
        """
        return self._read(name, lambda text: dict(from_json(text)))

    def _read(self, name: str | Path, parse: Callable[[str], T]) -> T:
        path = self.path / name
        try:
            held = parse(path.read_text(encoding="utf-8"))
            if (kind := HELD.get(str(name))) is not None:
                validated(held, kind)
            return held
        except FileNotFoundError:
            raise self.damaged(path, ValueError("it is missing")) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise self.damaged(path, error) from None

    def damaged(self, path: Path, error: BaseException) -> ConfigError:
        """The error for a file of the run that holds something else than it should: why, and what makes it again."""
        said = " ".join(str(error).split())[:200]
        whole = (self.path / MANIFEST).is_file()  # of a finished run
        redo = "run the same command again"
        fix = f"remove it and {redo}" if path.exists() else redo
        again = f"'qcq verify {self.path} --repair' makes it again" if whole else fix
        return ConfigError(f"{path}: is damaged ({said}); {again}")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The objects of ``name``.jsonl (``results``, ``training``, ``tuning``, ``curves``); empty if there is none.

        Raises
        ------
        UnknownNameError : no such table.
        ConfigError : the file is damaged, or there is no run in the folder.
        """
        if name not in ROWS:
            raise UnknownNameError("table", name, ROWS)
        file = f"{name}.jsonl"
        if not (self.path / file).exists():
            if not self.path.is_dir():
                raise ConfigError(f"{self.path}: no such folder; check the spelling and the current folder")
            return []

        def rows(text: str) -> list[dict[str, Any]]:
            found = [dict(from_json(line)) for line in text.splitlines()]
            for number, row in enumerate(found, start=1):
                validated(row, _Failed if name == "training" and "error" in row else ROWS[name], f"row {number}, ")
            return found

        return self._read(file, rows)

    def frame(self, name: str = "results") -> pl.DataFrame:
        """The rows of ``name``.jsonl as a polars frame."""
        import polars as pl

        return pl.DataFrame(self.rows(name), infer_schema_length=None)

    def corpus(self, walk: str, seed: int) -> Path:
        """The folder of the walks of one seed."""
        return self.path / "corpus" / filed(walk) / f"seed-{seed}"

    def inspection(self, walk: str) -> Path:
        """The file of what the graph can tell under a walk."""
        return self.path / "inspect" / f"{filed(walk)}.json"

    def file(self, kind: str, walk: str, trainer: str, readout: str, seed: int, suffix: str) -> Path:
        """The path of an embedding or of its scores."""
        stem = filed(f"{walk}--{trainer}--{readout}--seed-{seed}")
        return self.path / kind / f"{stem}{suffix}"

    def weights(self, walk: str, trainer: str, seed: int) -> Path:
        """The file of what a further training of a model can begin from; only some trainers have one."""
        return self.file("weights", walk, trainer, "all", seed, ".safetensors")

    def best(self, walk: str | None = None, trainer: str | None = None) -> tuple[str, str]:
        """The trainer on walks that did best on validation, and its walk; among those on ``walk``, if one is given.

        Of a ``trainer`` that is given, the walk on which it did best. Best by the figures that chose settings, or else
        by the validation figures of the kt tasks; the first of the run where nothing was judged on validation. A
        baseline is never taken by itself: name it.

        Raises
        ------
        UnknownNameError : no trainer of the run was chosen on that walk.
        ConfigError : no trainer on walks is finished.
        """
        every = [row for row in self.rows("tuning") if row["chosen"]]
        if trainer is not None:
            return trainer, self._walk_of(trainer, walk, every)
        chosen = [row for row in every if row["walk"] not in (NO_WALK, FILE)]
        if not chosen:
            names = ", ".join(dict.fromkeys(row["trainer"] for row in every))
            if not names:
                raise ConfigError(f"{self.path}: no trainer is finished; the same 'qcq run' goes on with this run")
            raise ConfigError(
                f"{self.path}: no trainer on walks, and a baseline is taken only by its name; give --trainer with one "
                f"of {names}"
            )
        mine = [row for row in chosen if walk in (None, row["walk"])]
        if not mine:
            raise UnknownNameError("walk", str(walk), {row["walk"] for row in chosen})
        row = max(mine, key=self._figure)
        return row["trainer"], row["walk"]

    def _walk_of(self, trainer: str, walk: str | None, chosen: list[dict[str, Any]]) -> str:
        """The walk on which a trainer did best on validation; among all of them, if none is given."""
        rows = self.rows("training")
        mine = list(dict.fromkeys(row["walk"] for row in rows if row["trainer"] == trainer))
        if not mine:
            raise UnknownNameError("trainer", trainer, {row["trainer"] for row in rows})
        if walk is not None and walk not in mine:
            raise UnknownNameError("walk", walk, mine)
        its = [row for row in chosen if row["trainer"] == trainer and walk in (None, row["walk"])]
        return str(max(its, key=self._figure)["walk"]) if its else walk or mine[0]  # a trainer that failed has none

    def _figure(self, chosen: Row) -> float:
        """The score that chose settings, or else the mean validation figure of the tasks that train a model of their
        own on a table; -inf if there are none."""
        if chosen["score"] is not None:
            return float(chosen["score"])
        its = [r for r in self.rows("training") if all(r[key] == chosen[key] for key in ("walk", "trainer"))]
        # The headline figure comes first, what was chosen by it follows.
        found = [next(iter(judged.values())) for row in its for judged in row.get("judged", {}).values() if judged]
        numbers = [float(each) for each in found if isinstance(each, int | float)]
        return float(np.mean(numbers)) if numbers else float("-inf")

    def winner(self) -> tuple[str, str]:
        """The trainer that did best on validation of all, baselines and files included, and its walk.

        Raises
        ------
        ConfigError : no trainer is finished.
        """
        chosen = [row for row in self.rows("tuning") if row["chosen"]]
        if not chosen:
            raise ConfigError(f"{self.path}: no finished trainer; run it first")
        row = max(chosen, key=self._figure)
        return row["trainer"], row["walk"]

    def trained(self, trainer: str, *, walk: str | None = None, seed: int | None = None) -> Row:
        """The row of ``training.jsonl`` of a trainer: by default on the walk that is best on validation, with its
        first seed.

        Raises
        ------
        UnknownNameError : the run has no such trainer or walk.
        ConfigError : no such seed, or the trainer failed.
        """
        _, on = self.best(walk, trainer)
        mine = [row for row in self.rows("training") if (row["trainer"], row["walk"]) == (trainer, on)]
        row = next((row for row in mine if seed in (None, row["seed"])), None)
        if row is None:
            raise ConfigError(
                f"{self.path}: no seed {seed}; it has {', '.join(dict.fromkeys(str(row['seed']) for row in mine))}"
            )
        if "error" in row:
            raise ConfigError(f"{self.path}: {trainer} failed and has no vectors ({row['error']}); run it again")
        return row

    def embeddings(
        self, trainer: str, readout: str | None = None, *, walk: str | None = None, seed: int | None = None
    ) -> Embeddings:
        """The vectors of a trainer: by default the read-out and the walk chosen on validation, and the first seed.

        Raises
        ------
        UnknownNameError : the run has no such trainer, walk or read-out.
        ConfigError : no such seed, the trainer failed, or the file of vectors is damaged.
        """
        row = self.trained(trainer, walk=walk, seed=seed)
        name = readout or row["readout"]
        if name not in row["readouts"]:
            raise UnknownNameError("read-out", name, row["readouts"])
        file = self.file("embeddings", row["walk"], trainer, name, row["seed"], ".safetensors")
        try:
            return Embeddings.load(file)
        except EmbeddingError as error:
            why = "it is missing" if not file.is_file() else str(error).removeprefix(f"{file}: ").partition("; ")[0]
            raise self.damaged(file, ValueError(why)) from None

    def report(self) -> Page:
        """``report.html``; a notebook shows it. ``qcq.report.write_page(run)`` writes it again.

        Raises
        ------
        ConfigError : the run has no report yet.

        Examples
        --------
        >>> Run("runs/simulated").report()  # doctest: +SKIP
        """
        path = self.path / "report.html"
        if not path.is_file():
            raise ConfigError(f"{path}: no report yet; the same 'qcq run' goes on with this run and writes it")
        return Page(path)

    def units(self, walk: str, trainer: str, readout: str, seed: int) -> dict[str, NDArray[np.float64]]:
        """The figures by unit, ``task/metric`` → float64 (units,)."""
        path = self.file("scores", walk, trainer, readout, seed, ".npz")
        if not path.exists():
            return {}
        return self.arrays(path.relative_to(self.path))

    def arrays(self, name: str | Path) -> dict[str, NDArray]:
        """The arrays of an ``.npz`` file of the run.

        Raises
        ------
        ConfigError : the file is damaged.
        """
        try:
            return read_npz(self.path / name)
        except FileNotFoundError:
            raise self.damaged(self.path / name, ValueError("it is missing")) from None
        except ValueError as error:
            raise self.damaged(self.path / name, error) from None

    def edges(self) -> dict[str, NDArray]:
        """The arrays of ``graph.npz``: the concepts of each question as rows of a csr_array (``indptr``, ``indices``),
        and figures of the questions (``degree``; ``responses`` and ``difficulty`` where students answered).

        Raises
        ------
        ConfigError : the file is damaged, or is of other questions or concepts than ``questions.csv`` and
            ``concepts.csv``.
        """
        held = self.arrays("graph.npz")
        shape = len(self.table("questions.csv")), len(self.table("concepts.csv"))
        try:
            at = held["indices"], held["indptr"]
            if any(array.ndim != 1 or array.dtype.kind != "i" for array in at):
                raise ValueError("indices that are no whole numbers")
            refuse_bad_indices(scipy.sparse.csr_array((np.ones(len(at[0])), *at), shape))
            figures = [held["degree"], *(held[key] for key in ("responses", "difficulty") if key in held)]
            if any(array.shape != shape[:1] or array.dtype.kind not in "fiu" for array in figures):
                raise ValueError(f"figures of others than the {shape[0]} questions")
        except KeyError as error:
            raise self.damaged(self.path / "graph.npz", ValueError(f"without {error}")) from None
        except ValueError as error:
            said = ValueError(f"it doesn't fit questions.csv and concepts.csv: {error}")
            raise self.damaged(self.path / "graph.npz", said) from None
        return held

    def table(self, name: str) -> pl.DataFrame:
        """The rows of ``questions.csv`` or ``concepts.csv``, as text.

        Raises
        ------
        ConfigError : the file is damaged.
        """
        import polars as pl

        refuse_forked()
        try:
            frame = pl.read_csv(self.path / name, infer_schema=False)
            if missing := set(COLUMNS[name]) - set(frame.columns):
                raise pl.exceptions.ColumnNotFoundError(f"no column {min(missing)!r}")
            ids = frame[COLUMNS[name][0]]
            if twice := ids.filter(ids.is_duplicated()).to_list():
                raise pl.exceptions.DuplicateError(f"{twice[0]!r} occurs twice")
            return restored_frame(frame, *COLUMNS[name])
        except FileNotFoundError:
            raise self.damaged(self.path / name, ValueError("it is missing")) from None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise self.damaged(self.path / name, error) from None
