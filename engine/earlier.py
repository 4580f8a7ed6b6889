"""The run that a folder holds already: what another run may add to it, and what it would replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcq.data import DATASETS
from qcq.engine.comparison import Method
from qcq.engine.verify import SETTINGS, settled
from qcq.errors import ConfigError, QCQError
from qcq.run import FILE, NO_WALK
from qcq.support.progress import Watch
from qcq.support.settings import fields

if TYPE_CHECKING:
    from qcq.config import Config
    from qcq.run import Run

FREE = (
    "data",
    "strict",
    "store",
)  # the digest of the data is compared, not where they were; the others change no result
LISTS = ("walks", "trainers", "tasks", "seeds", "vectors")  # they may grow; what is in the tables must stay
SHOWN = 3  # differences that a message names


def goes_on(
    run: Run, config: Config, methods: Sequence[Method], digest: str, redo: bool, watch: Watch | None = None
) -> None:
    """Refuse a folder that holds the results of another run, and say what is new in it, and which results change.

    The same settings go on with a run. Others may add trainers, walks, seeds, vectors and tasks, if no result that the
    tables show is lost, and none changes because of the addition.

    Parameters
    ----------
    run : the folder; it may hold no run yet.
    config, methods, digest : the settings, the methods and the digest of the data of the run that is asked for.
    redo : replace whatever is there.
    watch : is told what is added, and what was made from another file.

    Raises
    ------
    ConfigError : the folder holds results of another run, which would be replaced.
    """
    there = run.path.is_dir() and not redo
    rows = [row for row in run.rows("training") if "error" not in row] if there else []
    watch = watch or Watch()
    if not rows:
        return
    here = {(method.walk, method.name): method for method in methods}
    now = config.to_dict()
    lost = dict.fromkeys(_lost(rows, here))
    methods_there = ((row, here.get((row["walk"], row["trainer"]))) for row in rows)
    changed = dict.fromkeys(one.label for row, one in methods_there if one and one.chosen.key != row["comparison"])
    try:
        if not settled(run):
            raise ConfigError(f"{run.path / SETTINGS}: changed since it was written")
        before = type(config).load(run.path / SETTINGS).to_dict()
    except QCQError as error:
        if lost or changed:  # otherwise the settings were these, and their file is written again
            raise _refused(run, [f"its settings can't be read: {error}"]) from None
        run.refuse_other_data(digest, redo)
        return
    differ = [*lost, *_differences(before, now), *_unsettling(before, now, config)]
    if differ:
        raise _refused(run, differ)
    run.refuse_other_data(digest, redo)
    added = [
        f"{kind} {', '.join(new)}"
        for kind in LISTS
        if kind != "seeds" and (new := [name for name in now.get(kind, ()) if name not in before.get(kind, ())])
    ]
    added += [f"seeds to {now['seeds']}"] if now["seeds"] > before["seeds"] else []
    if added:
        watch.say(f"{run.path}: goes on with the run in it, and adds {'; '.join(added)}")
    if changed:  # vectors in a file that changed, or a revision
        names = ", ".join(changed)
        watch.say(f"{names}: made from another file or by another version, so the results are replaced")


def _refused(run: Run, differ: Sequence[str]) -> ConfigError:
    more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    return ConfigError(
        f"{run.path}: holds the results of another run ({'; '.join(differ[:SHOWN])}{more}); name another folder with "
        "--out, or replace that run with --redo"
    )


def _lost(rows: Sequence[Mapping[str, Any]], here: Mapping[tuple[str, str], Method]) -> Iterator[str]:
    """Results in the tables that the run which is asked for doesn't have."""
    for row in rows:
        method = here.get((row["walk"], row["trainer"]))
        if method is None:
            on = "" if row["walk"] in (NO_WALK, FILE) else f" on {row['walk']}"
            yield f"{row['trainer']}{on} is in it, not here"
        elif row["seed"] not in method.trained:
            yield f"seed {row['seed']} is in it, not here"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Settings with another value, those of parts that are in one of the two alone left out."""
    plain = [key for key, value in now.items() if not isinstance(value, Mapping) and key not in {*FREE, *LISTS}]
    differ = [key for key in plain if before.get(key) != now[key]]
    for key in differ:
        yield _said(key, before.get(key), now[key])
    for section in sorted({*before, *now} - {*plain, *FREE, *LISTS}):
        default = fields(DATASETS[section]) if section in DATASETS else None
        if default is None and not (section in before and section in now):
            continue
        one, other = ({**(default or {}), **settings.get(section, {})} for settings in (before, now))
        for name in sorted({*one, *other} - {*differ}):  # the dimension of all trainers is said once
            if one.get(name) != other.get(name):
                yield _said(f"{section}.{name}", one.get(name), other.get(name))


def _unsettling(before: Mapping[str, Any], now: Mapping[str, Any], config: Config) -> Iterator[str]:
    """Tasks that are lost, and new ones that change what others have found."""
    for name in before["tasks"]:
        if name not in now["tasks"]:
            yield f"task {name} is in it, not here"
    classes = config.task_classes()
    held = any(classes[name].holds_out_edges for name in before["tasks"] if name in classes)
    for name, task in classes.items():
        if name not in before["tasks"]:
            if task.holds_out_edges and not held:
                yield f"task {name} is new and takes edges out of the graph"
            elif task.tunes:
                yield f"task {name} is new and takes part in the choice of settings"


def _said(key: str, there: Any, here: Any) -> str:
    return f"{key} is {_short(there)} in it, {_short(here)} here"


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return "not set" if value is None else text if len(text) <= 40 else f"{text[:37]}..."
