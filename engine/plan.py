"""A plan: cells with all that they read, run in an order that keeps every slot busy."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Generic, TypeVar

from qcq.engine.cell import AnyCell, Cell, Row
from qcq.engine.estimate import Estimate, Rates
from qcq.engine.executor import Executor
from qcq.engine.store import Store
from qcq.errors import QCQError

Key = TypeVar("Key", bound=Hashable)


class Groups(Generic[Key]):
    """Tells when all cells of a group have ended.

    Parameters
    ----------
    groups : name of a group → its cells.
    """

    def __init__(self, groups: Mapping[Key, Iterable[Cell]]) -> None:
        self._left = {key: set(cells) for key, cells in groups.items()}

    def done(self, cell: Cell) -> list[Key]:
        """The groups that become complete when this cell ends."""
        out = []
        for key, left in self._left.items():
            if cell in left:
                left.remove(cell)
                if not left:
                    out.append(key)
        return out

    def complete(self, key: Key) -> bool:
        """Whether all its cells have ended."""
        return not self._left[key]


@dataclass(frozen=True)
class Step:
    """A cell of a plan as a dry run shows it.

    Attributes
    ----------
    cell : the cell.
    finished : whether its result is in the store; None where that depends on a choice that isn't made yet.
    estimate : its expected cost; None where that isn't known.
    """

    cell: Cell
    finished: bool | None
    estimate: Estimate | None


@dataclass(frozen=True)
class Outcome:
    """The outcome of the cells of a plan.

    Attributes
    ----------
    store : where the results are.
    errors : cell → why it has no result: its own error, or that of a cell that it reads.
    executed : cells that were run, whether or not they succeeded.
    """

    store: Store
    errors: dict[Cell, QCQError] = field(default_factory=dict)
    executed: set[Cell] = field(default_factory=set)
    _resolved: dict[Cell, Cell] = field(default_factory=dict)

    def row(self, cell: Cell) -> Row:
        """The row of a cell of the plan.

        Raises
        ------
        QCQError : the cell failed, or one that it reads.
        """
        if cell in self.errors:
            raise self.errors[cell]
        return self.store.row(self.resolved(cell))

    def resolved(self, cell: AnyCell) -> AnyCell:
        """The resolved cell, as it is in the store."""
        return self._resolved[cell]  # type: ignore[return-value]

    def resolve(self, cell: Cell) -> Cell:
        """Resolve a cell when all its inputs are finished."""
        self._resolved[cell] = cell.resolved(self.resolved, self.store)
        return self._resolved[cell]


class Plan:
    """A set of cells closed under what they read.

    Parameters
    ----------
    cells : the wanted cells; the cells that they read are added.

    Attributes
    ----------
    reads : cell → the cells that it reads.
    cells : all of them, each after what it reads.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.reads: dict[Cell, tuple[Cell, ...]] = {}
        stack = list(cells)[::-1]
        while stack:
            cell = stack.pop()
            if cell not in self.reads:
                self.reads[cell] = cell.inputs
                stack += cell.inputs[::-1]
        self.cells: list[Cell] = list(TopologicalSorter(self.reads).static_order())

    def execute(
        self,
        executor: Executor,
        store: Store,
        *,
        redo: bool = False,
        on_done: Callable[[Cell, Outcome], None] = lambda cell, outcome: None,
    ) -> Outcome:
        """Run what isn't finished. If a cell fails, the cells that read it fail too; all others are run.

        Parameters
        ----------
        executor, store : what runs the cells, and where results go.
        redo : run finished cells again.
        on_done : called when a cell ends.
        """
        outcome, waiting, priority = Outcome(store), TopologicalSorter(self.reads), self._priority()
        waiting.prepare()
        ready: list[tuple[float, int, Cell]] = []  # a heap: the longest path to the end of the plan first
        running: dict[Cell, list[Cell]] = {}  # a resolved cell → the planned cells that resolve to it
        redone: set[Cell] = set()

        def over(cell: Cell) -> None:
            on_done(cell, outcome)
            waiting.done(cell)

        while waiting.is_active():
            for cell in waiting.get_ready():
                heapq.heappush(ready, (*priority[cell], cell))
            while ready and len(running) < executor.slots:
                cell = heapq.heappop(ready)[-1]
                failed = next((outcome.errors[read] for read in cell.inputs if read in outcome.errors), None)
                if failed is not None:
                    outcome.errors[cell] = failed
                    over(cell)
                    continue
                made = outcome.resolve(cell)
                if made in running:
                    running[made].append(cell)
                elif store.finished(made) and (not redo or made in redone):
                    over(cell)
                else:
                    running[made] = [cell]
                    redone.add(made)
                    executor.submit(made, redo)
            if running:
                result = executor.wait()
                for cell in running.pop(result.cell):
                    outcome.executed.add(cell)
                    if result.error is not None:
                        outcome.errors[cell] = result.error
                    over(cell)
        store.tidy()
        return outcome

    def _priority(self) -> dict[Cell, tuple[float, int]]:
        """Cell → (minus the weight of the longest path from it to the end of the plan, its position)."""
        way = dict.fromkeys(self.cells, 0.0)
        for cell in reversed(self.cells):
            way[cell] += cell.weight
            for read in cell.inputs:
                way[read] = max(way[read], way[cell])
        return {cell: (-way[cell], place) for place, cell in enumerate(self.cells)}

    def steps(self, store: Store, rates: Rates, redo: bool = False) -> list[Step]:
        """What a dry run shows: every cell, whether it is finished, and its expected cost; ``redo``: none is."""
        outcome = Outcome(store)
        undecided: set[Cell] = set()  # cells that depend on a choice that isn't made yet
        out = []
        for cell in self.cells:
            if any(read in undecided or (read.decides and (redo or not store.finished(read))) for read in cell.inputs):
                undecided.add(cell)
            finished = None if cell in undecided else not redo and store.finished(outcome.resolve(cell))
            out.append(Step(cell, finished, None if finished else cell.estimate(store, rates)))
        return out
