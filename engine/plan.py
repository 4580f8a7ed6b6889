"""A plan: cells with all that they read, done in an order that keeps every slot busy."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from qcq.engine.cell import Cell, Row
from qcq.engine.estimate import Estimate, Rates
from qcq.engine.executor import Executor
from qcq.engine.store import Store
from qcq.errors import QCQError


@dataclass(frozen=True)
class Step:
    """A cell of a plan as a dry run shows it.

    Attributes
    ----------
    cell : which.
    finished : whether its result is in the store; None where that hangs on a choice still to be made.
    estimate : what it will cost; None where that can't be said.
    """

    cell: Cell
    finished: bool | None
    estimate: Estimate | None


@dataclass(frozen=True)
class Outcome:
    """What became of the cells of a plan.

    Attributes
    ----------
    store : where the results are.
    settled : cell → the same with its choices made, which the store knows.
    errors : cell → why it has no result: its own error, or that of a cell that it reads.
    worked : cells that were not finished before.
    """

    store: Store
    settled: dict[Cell, Cell] = field(default_factory=dict)
    errors: dict[Cell, QCQError] = field(default_factory=dict)
    worked: set[Cell] = field(default_factory=set)

    def row(self, cell: Cell) -> Row:
        """The row of a cell of the plan.

        Raises
        ------
        QCQError : the cell failed, or one that it reads.
        """
        if cell in self.errors:
            raise self.errors[cell]
        return self.store.row(self.settled[cell])


class Plan:
    """A set of cells closed under what they read.

    Parameters
    ----------
    cells : those that are wanted; what they read is added.

    Attributes
    ----------
    cells : all of them, each after what it reads.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells: list[Cell] = []
        seen: set[Cell] = set()
        stack: list[tuple[Cell, bool]] = [(cell, False) for cell in reversed(list(cells))]
        while stack:
            cell, opened = stack.pop()
            if opened:
                self.cells.append(cell)
            elif cell not in seen:
                seen.add(cell)
                stack.append((cell, True))
                stack += [(each, False) for each in reversed(cell.inputs) if each not in seen]

    def execute(
        self,
        executor: Executor,
        store: Store,
        *,
        redo: bool = False,
        told: Callable[[Cell, Outcome], None] = lambda cell, outcome: None,
    ) -> Outcome:
        """Do what isn't finished. A cell that fails takes with it those that read it; everything else goes on.

        Parameters
        ----------
        executor, store : who does the cells, and where results go.
        redo : do finished cells again.
        told : called after each cell that is over.
        """
        outcome = Outcome(store)
        readers: dict[Cell, list[Cell]] = {cell: [] for cell in self.cells}
        missing = {cell: set(cell.inputs) for cell in self.cells}
        for cell in self.cells:
            for read in missing[cell]:
                readers[read].append(cell)
        urgency = _urgency(self.cells, readers)
        place = {cell: i for i, cell in enumerate(self.cells)}
        ready = [(-urgency[cell], place[cell], cell) for cell in self.cells if not missing[cell]]
        heapq.heapify(ready)
        running: dict[Cell, list[Cell]] = {}
        redone: set[Cell] = set()

        def over(cell: Cell) -> None:
            told(cell, outcome)
            for reader in readers[cell]:
                missing[reader].discard(cell)
                if cell in outcome.errors:
                    outcome.errors.setdefault(reader, outcome.errors[cell])
                if not missing[reader]:
                    heapq.heappush(ready, (-urgency[reader], place[reader], reader))

        while ready or running:
            while ready and len(running) < executor.slots:
                cell = heapq.heappop(ready)[-1]
                if cell in outcome.errors:
                    over(cell)
                    continue
                made = cell.settled(outcome.settled.__getitem__, store)
                outcome.settled[cell] = made
                if made in running:
                    running[made].append(cell)
                elif store.finished(made) and (not redo or made in redone):
                    over(cell)
                else:
                    running[made] = [cell]
                    redone.add(made)
                    executor.submit(made, redo)
            if running:
                done = executor.finished()
                for cell in running.pop(done.cell):
                    if done.error is not None:
                        outcome.errors[cell] = done.error
                    outcome.worked.add(cell)
                    over(cell)
        return outcome

    def steps(self, store: Store, rates: Rates) -> list[Step]:
        """What a dry run shows: every cell, whether it is finished, and what it will cost."""
        settled: dict[Cell, Cell] = {}
        out = []
        for cell in self.cells:
            known = all(read in settled and store.finished(settled[read]) for read in cell.inputs)
            finished: bool | None = None
            if known or not any(read.decides for read in _behind(cell)):
                settled[cell] = cell.settled(lambda read: settled.get(read, read), store) if known else cell
                finished = store.finished(settled[cell])
            out.append(Step(cell, finished, None if finished else cell.estimate(store, rates)))
        return out


def _behind(cell: Cell) -> Iterable[Cell]:
    for read in cell.inputs:
        yield read
        yield from _behind(read)


def _urgency(cells: list[Cell], readers: Mapping[Cell, list[Cell]]) -> dict[Cell, float]:
    """The longest way from a cell to the end of the plan: whoever has the longest goes first."""
    out: dict[Cell, float] = {}
    for cell in reversed(cells):
        out[cell] = cell.weight + max((out[reader] for reader in readers[cell]), default=0.0)
    return out
