"""The application: its consoles, the options that several commands have, and what all commands show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from qcq.errors import ConfigError
from qcq.support.terminal import Screen, Terminal, show
from qcq.support.threads import affordable_jobs

if TYPE_CHECKING:
    from qcq.config import Config
    from qcq.engine import Plan, RayCluster

app = typer.Typer(
    name="qcq",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Question embeddings from question-concept-question walks, with the exact floor of a loss where one is known.",
    epilog="Settings are named section.key: walk.length, mlm.steps, node2vec.p ...; 'qcq list NAME' shows them.",
)
out = Screen(highlight=False, soft_wrap=True)
err = Screen(stderr=True, highlight=False, soft_wrap=True)

WORTH_PROCESSES = 200.0  # weight of a plan (:attr:`qcq.engine.Cell.weight`) from which starting processes pays off

DataOption = Annotated[
    str, typer.Option("--data", help="format:path, a bare path (recognised by its contents), or 'simulated'.")
]
UNGIVEN = "data set simulated, taken where --data isn't given"
OWN = {"walks": "--walk", "trainers": "--trainer"}  # options of commands that take one; the others are --KEY
NOT_BY_SET = {"run": (), "score": ("data", "walks", "trainers", "vectors", "size")}  # others take only strict


class OnData(TyperCommand):
    """A command whose data are an option: it says so to a word without one."""

    allow_extra_args = True

    def invoke(self, ctx: Any) -> Any:
        if ctx.args:
            raise ConfigError(f"{ctx.args[0]!r}: qcq {self.name} takes data as --data {ctx.args[0]}")
        return super().invoke(ctx)


def read_here(ctx: typer.Context, given: list[str] | None) -> list[str] | None:
    """``--set`` as it was given. ConfigError for a key that the command wouldn't read from there."""
    from qcq.config import Config
    from qcq.support.settings import fields

    for each in given or ():
        key = each.partition("=")[0].partition(".")[0].strip()
        refused = NOT_BY_SET.get(str(ctx.command.name), fields(Config).keys() - {"strict", "sections"})
        if key in refused:
            option = OWN.get(key, f"--{key}")
            has = any(option in parameter.opts for parameter in ctx.command.params)
            why = f"takes {key} from {option}; give it there" if has else f"has no use for {key}; leave it out"
            raise ConfigError(f"--set {key}: qcq {ctx.command.name} {why}")
    return given


def say_unused(settled: Config, given: list[str] | None) -> None:
    """Tell of every ``--set`` that changes nothing in this run."""
    for line in settled.unused(given or ()):
        err.print(line, markup=False)


SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", callback=read_here, help="A setting, for example walk.length=20."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
StrictOption = Annotated[
    bool | None, typer.Option("--strict", help="Make an error of everything doubtful in the data.", show_default=False)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result and errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, help="Processes; changes no result.", show_default="the cores, as memory allows"
    ),
]
EngineOption = Annotated[
    Literal["processes", "ray"],
    typer.Option("--engine", help="Processes of this machine, or a Ray cluster; changes no result."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", help="HOST:PORT of a Ray cluster, or auto.", show_default="a local one that ends with the run"
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option("--max-memory", help="What a stage may hold, for example 4G.", show_default="no bound"),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="A folder (or s3://, gs:// …) of finished work that several runs share.",
        show_default="in the run folder",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        out.print(f"qcq {metadata.version('qcq')}")
        raise typer.Exit


@app.callback()
def qcq(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Question embeddings from question-concept-question walks, with the exact floor of a loss where one is known."""


def terminal(quiet: bool) -> Terminal:
    """Where progress is shown: standard error."""
    return Terminal(err, quiet)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """A table on standard output; the first ``left`` columns are aligned left."""
    show(out, titles, rows, left)


def ray_cluster(engine: str, address: str | None, jobs: int | None) -> RayCluster | None:
    """The cluster of ``--engine ray``; None for processes. ConfigError, before any work, if there is none."""
    if engine != "ray":
        if address is not None:
            raise ConfigError("--address names a Ray cluster; add --engine ray")
        return None
    from qcq.engine import RayCluster

    return RayCluster(address or "", jobs or 0)


def processes(given: int | None, plan: Plan) -> int:
    """The requested number of processes; else one per core if memory allows, or one if the plan is short."""
    if given is not None:
        return given
    return affordable_jobs() if sum(cell.weight for cell in plan.cells) >= WORTH_PROCESSES else 1
