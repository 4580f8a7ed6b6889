"""A run's configuration: one TOML file, or the same keys on the command line."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from qcq.data import DATASETS, Dataset, Reader, SplitSettings
from qcq.data.csv import ENDINGS
from qcq.errors import ConfigError, UnknownNameError
from qcq.evaluation import TASKS, Partition, Task, TaskSpec
from qcq.models import TRAINERS, Trainer
from qcq.run import filed
from qcq.support.files import from_toml
from qcq.support.registry import find
from qcq.support.settings import fields, settings
from qcq.support.types import check, takes
from qcq.walks import WALKS, WalkStrategy

LONGEST = 80  # bytes of a name: a file has those of walk, trainer and read-out in its own
BASELINES = ("random", "concept-onehot", "svd")
YARDSTICKS = ("random", "concept-mean", "concept-onehot", "svd")  # baselines for every comparison of vectors from files
SUBSTITUTES = {"skipgram": "sgns"}  # what a run without named trainers takes where the first can't learn here


def default_trainers() -> tuple[str, ...]:
    """The trainers of a run that names none; a substitute for one that can't learn on this machine."""
    names = ("skipgram", "mlm", *BASELINES)
    return tuple(SUBSTITUTES.get(name, name) if TRAINERS[name].missing() else name for name in names)


@settings
class Config:
    """What to run.

    Parameters
    ----------
    data : ``format:path``, a bare path (recognised by its contents), or ``simulated``.
    walks, trainers, tasks : names from the registries, or ``package.module:Class``. Each may occur more than once, each
        time with its own settings: as ``name@label``, whose section overrides that of the name. By default skip-gram, a
        masked Transformer and three baselines; ``sgns`` for ``skipgram`` where gensim isn't installed.
    seeds : number of seeds; every random step is repeated for each.
    seed : the first seed; the split and the held-out edges depend on it alone.
    dim : dimension of every trainer's vectors.
    folds : 1, or the number of parts into which the students are divided, so that each student is a test student in one
        of as many runs. The runs have folders of their own; the data set's own split isn't used.
    fold : which of them to run, from 1; 0 runs all.
    tune : try each trainer's candidate settings on validation before the seeds are run.
    vectors : name → file of vectors made elsewhere (:meth:`~qcq.embeddings.Embeddings.load` reads them), which are
        compared with those of the trainers.
    missing : what becomes of questions without a vector in such a file: ``refuse``, or ``mean-of-concepts``
        (:meth:`~qcq.embeddings.Embeddings.matched`).
    size : which of the file's ``[sizes.NAME]`` tables replaces settings of the same names; none if empty.
    strict : whether something doubtful in the data is an error instead of a note.
    store : a folder of finished cells that several runs share; empty for one in the run's own folder.
    sections : settings of single parts by section: ``walk`` (all walks), ``split`` (:class:`qcq.data.SplitSettings`), a
        walk's, a trainer's, a task's or a data format's name.
    """

    data: str = "simulated"
    walks: tuple[str, ...] = ("qcq",)
    trainers: tuple[str, ...] = Field(default_factory=default_trainers)
    tasks: tuple[str, ...] = ("edges", "difficulty", "retrieval", "stability")
    seeds: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    seed: int = 0
    dim: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    folds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    fold: Annotated[int, Field(ge=0)] = 0
    tune: bool = True
    size: str = ""
    store: str = ""
    strict: bool = False
    vectors: Mapping[str, str] = Field(default_factory=dict)
    missing: Literal["refuse", "mean-of-concepts"] = "refuse"
    sections: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, names in (("walk", self.walks), ("trainer", self.trainers), ("task", self.tasks)):
            if not names and not (kind == "walk" and not any(t.learns for t in self.build_trainers().values())):
                raise ConfigError(f"no {kind} given; name at least one")
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"{kind} {name!r} is given twice")
        if self.fold > self.folds or (self.fold and self.folds == 1):
            raise ConfigError(
                f"setting fold: there are {self.folds} folds, given {self.fold}; set folds, or leave it 0"
            )
        self._refuse_names()
        if taken := set(self.vectors) & set(TRAINERS):
            raise ConfigError(f"vectors {min(taken)!r}: a trainer has this name; give the vectors another one")
        # Building every component once makes a wrong name or setting fail here, before anything is read or written.
        self.build_walks(), self.build_trainers(), self.task_settings(), self.reader(self.data.partition(":")[0])
        known = ["walk", "split", *WALKS, *TRAINERS, *DATASETS, *(name for name in TASKS if TASKS[name].settings)]
        for section in self.sections:
            labelled = "@" in section and _part(section) in (*WALKS, *TRAINERS, *TASKS)  # it need not be used
            if not labelled and section not in known:
                raise UnknownNameError("section", section, known)
            # Settings of a component that isn't used here are checked too: the name may be wrong.
            if cls := self._settings_of(section):
                _build(cls, self._given(_part(section), section))

    def _refuse_names(self) -> None:
        """ConfigError for names that can't be those of files, and for two that would share one."""
        for kind, names in (("walk", self.walks), ("trainer", (*self.trainers, *self.vectors))):
            files: dict[str, str] = {}
            for name in names:
                if len(filed(name).encode(errors="replace")) > LONGEST or not name.isprintable():
                    raise ConfigError(
                        f"{kind} {name[:40]!r}: a name is part of the names of files; give one that can be printed, "
                        f"of at most {LONGEST} bytes"
                    )
                other = files.setdefault(filed(name), name)
                if other != name:
                    raise ConfigError(
                        f"{kind}s {other!r} and {name!r} would share the file {filed(name)!r}; rename one"
                    )

    def build_walks(self) -> dict[str, WalkStrategy]:
        """The walk strategies, by name."""
        return {
            name: _build(find("walk", _part(name), WALKS, WalkStrategy), self._given("walk", _part(name), name))
            for name in self.walks
        }

    def build_trainers(self) -> dict[str, Trainer]:
        """The trainers, by name; the baselines that a task always needs come last."""
        shared = {"": {"dim": self.dim}}
        needed = (name for task in self.task_classes().values() for name in task.baselines)
        names = dict.fromkeys((*self.trainers, *needed))
        return {
            name: _build(find("trainer", _part(name), TRAINERS, Trainer), shared | self._given(_part(name), name))
            for name in names
        }

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know: which default trainer was replaced by which, and why."""
        replaced = {} if self.trainers != default_trainers() else SUBSTITUTES
        return [
            f"{other} takes the place of {name}, with settings of its own: {why}"
            for name, other in replaced.items()
            if (why := TRAINERS[name].missing())
        ]

    def _settings_of(self, section: str) -> type[Any] | None:
        """The class of a section's settings; None for ``walk``, whose settings are for all walks."""
        name = _part(section)
        task = TASKS[name].settings if name in TASKS else None
        split = {"split": SplitSettings}.get(name)
        found = (WALKS.get(name), TRAINERS.get(name), DATASETS.get(name), task, split)
        return next((part for part in found if part), None)

    def _given(self, *sections: str) -> dict[str, Mapping[str, Any]]:
        return {name: self.sections[name] for name in sections if name in self.sections}

    def task_classes(self) -> dict[str, type[Task]]:
        """The tasks' classes, by name."""
        return {name: find("task", name, TASKS, Task) for name in self.tasks}

    def task_specs(self) -> list[TaskSpec]:
        """The tasks with their settings, in order."""
        settings = self.task_settings()
        return [TaskSpec(name, cls, settings.get(name)) for name, cls in self.task_classes().items()]

    def unused(self, overrides: Iterable[str]) -> list[str]:
        """A sentence for each ``SECTION.key=value`` whose walk, trainer, task or data format is not in this run."""
        prefix = self.data.partition(":")[0]
        formats = [prefix] if prefix in DATASETS else [name for name, kind in DATASETS.items() if kind.needs_path]
        parts: Mapping[str, tuple[Container[str], Iterable[str]]] = {
            "walk": (WALKS, self.walks),
            "trainer": (TRAINERS, self.build_trainers()),
            "task": (TASKS, self.task_classes()),
            "data format": (DATASETS, formats),
        }
        found = []
        for override in overrides:
            key = override.partition("=")[0].strip()
            section, dot, _ = key.partition(".")
            for kind, (registry, names) in parts.items():
                if dot and _part(section) in registry and section not in {*names, *map(_part, names)}:
                    found.append(f"--set {key} changes nothing: this run has no {kind} {section!r}")
        return found

    def partition(self, data: Dataset) -> Partition:
        """The data as a run of this configuration divides them."""
        hold_out = any(task.holds_out_edges for task in self.task_classes().values())
        fold = (self.fold, self.folds) if self.fold else None
        return Partition.make(data, self.seed, hold_out_edges=hold_out, fold=fold)

    def task_settings(self) -> dict[str, Any]:
        """The settings of those tasks that have any, by name."""
        classes = self.task_classes()
        return {
            name: _build(cls.settings, self._given(_part(name), name)) for name, cls in classes.items() if cls.settings
        }

    def reader(self, name: str) -> Reader | None:
        """The reader of format ``name`` with its settings; None if ``name`` is not a format (a bare path)."""
        return _build(DATASETS[name], self._given(name)) if name in DATASETS else None

    def to_dict(self) -> dict[str, Any]:
        """Every setting with its value, as nested plain values, ready for TOML."""
        flat = _plain(
            {key: getattr(self, key) for key in fields(Config) if key not in ("sections", "size", "store", "vectors")}
        )
        parts: list[tuple[str, Any]] = [*self.build_walks().items(), *self.build_trainers().items()]
        sections = {name: {k: v for k, v in part.config.items() if v is not None} for name, part in parts}
        sections |= {name: _plain(asdict(plan)) for name, plan in self.task_settings().items()}
        for name in ("split", *DATASETS):
            if name in self.sections:
                sections[name] = dict(self.sections[name])
        if self.store:
            flat["store"] = self.store
        if self.vectors:
            sections["vectors"] = dict(self.vectors)
        return flat | sections

    @classmethod
    @takes(overrides="list")
    def load(cls, path: str | Path | None = None, overrides: Sequence[str] = (), **options: Any) -> Config:
        """From a TOML file, ``key=value`` overrides and keyword options (None: not given), later ones override.

        Raises
        ------
        ConfigError : unreadable TOML; a wrong key or value, and the text names the key and the nearest valid ones; a
            key among both overrides and options.

        Examples
        --------
        >>> Config.load(overrides=["walk.length=20", "trainers=svd,random"]).build_walks()["qcq"].length
        20
        """
        options = {key: value for key, value in options.items() if value is not None}
        if twice := sorted(options.keys() & {o.partition("=")[0].partition(".")[0].strip() for o in overrides}):
            raise ConfigError(f"{twice[0]} is given by --{twice[0]} and by --set; give one")
        given: dict[str, Any] = {}
        if path is not None:
            check("Config.load", "path", path, "path")
            try:
                given = from_toml(Path(path).read_text(encoding="utf-8-sig"))
            except OSError as error:
                fix = f"; data are given as --data {path}" if Path(path).is_dir() else ""
                raise ConfigError(f"{path}: can't be read ({error.strerror}); give a TOML file{fix}") from None
            except ValueError as error:
                if str(path).lower().endswith((*ENDINGS, ".json", ".npz", ".graphml")):
                    what = "settings are a TOML file, and by its ending this is data"
                    raise ConfigError(f"{path}: {what}; give it as --data {path}") from None
                raise ConfigError(f"{path}: {error}") from None
        pairs = {key.strip(): value.strip() for key, _, value in (o.partition("=") for o in overrides)}
        file, sizes = given, _sizes(given, path)
        size = options.get("size") or _value(pairs.get("size", "")) or given.get("size", "")
        given = _sized(file, sizes, size, path)
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals or not key.strip():
                raise ConfigError(f"--set {override!r}: write key=value, for example walk.length=20")
            _put(given, key.strip().split("."), _value(text.strip()), key.strip())
        made = cls._of(given | options)
        for section in (key.partition(".")[0].strip() for key in pairs):
            if "@" in section and section not in (used := (*made.walks, *made.trainers, *made.tasks)):
                raise UnknownNameError("section", section, used)
        for other in sorted(sizes.keys() - {size}):  # a fault in one is told now, not on the day that it is run
            try:
                cls._of(_sized(file, sizes, other, path))
            except ConfigError as error:
                raise ConfigError(f"{path}, [sizes.{other}]: {error}") from None
        return made

    @classmethod
    def _of(cls, given: Mapping[str, Any]) -> Config:
        """From one tree of settings, as a TOML file has them."""
        top = {key: value for key, value in given.items() if key in fields(cls) and key != "sections"}
        sections = {key: value for key, value in given.items() if key not in top}
        for key, value in sections.items():
            if not isinstance(value, Mapping):
                known = [name for name in fields(cls) if name != "sections"]
                known += [f"walk.{name}" for name in fields(WalkStrategy)]
                raise UnknownNameError("setting", key, _with_section(key) or known)
        lists = {
            key: tuple(n.strip() for n in v.split(",")) if isinstance(v, str) else v
            for key, v in top.items()
            if key in _LISTS
        }
        return cls(**{**top, **lists}, sections=sections)


def _with_section(key: str) -> list[str]:
    """The settings SECTION.key that exist; of those that all walks have, that of all walks."""
    if key in fields(WalkStrategy):
        return [f"walk.{key}"]
    tasks = {name: task.settings for name, task in TASKS.items() if task.settings}
    parts: dict[str, type[Any]] = {**WALKS, **TRAINERS, **tasks, **DATASETS, "split": SplitSettings}
    return [f"{section}.{key}" for section, part in parts.items() if key in fields(part)]


_LISTS = ("walks", "trainers", "tasks")


def _part(name: str) -> str:
    """The registered name of a walk, trainer or task, without its label."""
    return name.partition("@")[0]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _sizes(given: Mapping[str, Any], path: object) -> Mapping[str, Mapping[str, Any]]:
    """The tables ``[sizes.NAME]`` of a file."""
    sizes = given.get("sizes", {})
    for name, each in (sizes if isinstance(sizes, dict) else {"": sizes}).items():
        if not isinstance(each, dict):
            key = f"sizes.{name}" if name else "sizes"
            raise ConfigError(f"{path}: {key} is a value, given {each!r}; sizes are tables such as [sizes.small]")
    return sizes


def _sized(given: Mapping[str, Any], sizes: Mapping[str, Any], size: object, path: object) -> dict[str, Any]:
    """The settings of a file, with those of its table ``[sizes.<size>]`` in their places."""
    if not isinstance(size, str):
        raise ConfigError(f"setting size: input should be a valid string, given {size!r}; name one of the file's sizes")
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in given.items() if key != "sizes"}
    if not size:
        return made
    if size not in sizes:
        raise ConfigError(f"{path or 'no file'}: no size {size!r}; it has {', '.join(sizes) or 'none'}")
    for key, value in sizes[size].items():
        if isinstance(value, dict) and not isinstance(made.get(key, {}), dict):
            raise ConfigError(
                f"{path}: {key} is a value there, and a section in [sizes.{size}]; write [{key}] there too"
            )
        made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) else value
    return made


def _value(text: str) -> Any:
    """A TOML value if the text is one, otherwise the text itself, so that ``data=path`` needs no quotes."""
    try:
        return from_toml(f"v = {text}")["v"]
    except ValueError:
        return text


def _put(tree: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"setting {key}: {part!r} is a value, not a section")
    tree[path[-1]] = value


def _build(cls: type[Any], sections: Mapping[str, Mapping[str, Any]]) -> Any:
    """An instance of a settings class from its sections, later ones override; errors name the key as it was written."""
    origin = {key: f"{section}.{key}" if section else key for section, values in sections.items() for key in values}
    given = {key: value for values in sections.values() for key, value in values.items()}
    try:
        return cls(**given)
    except UnknownNameError:
        wrong = next(key for key in origin if key not in fields(cls))
        section = origin[wrong].partition(".")[0]
        raise UnknownNameError("setting", origin[wrong], [f"{section}.{key}" for key in fields(cls)]) from None
    except ConfigError as error:
        key = str(error).split()[1].rstrip(":")
        raise ConfigError(str(error).replace(f"setting {key}", f"setting {origin.get(key, key)}", 1)) from None
