"""What a plan will cost on this machine: sizes by arithmetic, seconds from a short calibration."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qcq.data import Simulated
from qcq.engine.cell import plain
from qcq.errors import QCQError
from qcq.support.calibration import keep, recalled
from qcq.support.memory import unbounded

if TYPE_CHECKING:
    from qcq.evaluation import Partition, Task
    from qcq.models import Trainer

_CACHE = "rates"
_CLASSROOM = {"questions": 300, "concepts": 20, "students": 60, "responses": 30}  # data for the measurement


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a cell.

    Attributes
    ----------
    tokens : training tokens, over all epochs.
    bytes : written to disk.
    memory : peak memory in bytes, without the data.
    seconds : on this machine with no other load; accurate within a factor of a few.
    """

    tokens: int = 0
    bytes: int = 0
    memory: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Rates:
    """How fast this machine is: every trainer and task is timed once, on a small simulated classroom.

    :meth:`of_machine` keeps the times in the user's cache, for this machine and these versions.
    """

    _known: dict[str, float] = field(default_factory=dict)
    kept: bool = False

    @classmethod
    def of_machine(cls) -> Rates:
        """With what was measured on this machine before."""
        return cls({key: float(rate) for key, rate in recalled(_CACHE).items()}, kept=True)

    def _keep(self, key: str, rate: float) -> None:
        self._known[key] = rate
        if self.kept:
            keep(_CACHE, {**recalled(_CACHE), **self._known})

    @cached_property
    def _problem(self) -> Partition:
        from qcq.evaluation import Partition

        return Partition.make(Simulated(**_CLASSROOM).read())

    def training(self, trainer: Trainer, work: int) -> float:
        """Seconds of a training with this amount of work (:meth:`~qcq.models.Trainer.work`)."""
        key = f"{type(trainer).__qualname__} {plain(trainer.config)}"
        if key not in self._known:
            from qcq.models import TrainingData
            from qcq.walks import QCQ

            small = trainer.shortened()
            source = TrainingData(self._problem.graph, QCQ(per_question=2))
            tokens, length = (source.corpus.n_tokens, source.corpus.length) if small.learns else (0, 0)
            with unbounded():
                taken = _timed(lambda: small.fit(source))
            self._keep(key, taken / max(1, small.work(source.graph, tokens, length)))
        return self._known[key] * work

    def scoring(self, task: type[Task], settings: Any, size: int, stages: int = 1) -> float:
        """Seconds to score one table on a task.

        Parameters
        ----------
        size : questions, or responses where the task is over students.
        stages : how many stages are scored. What the task trains for the table is trained once.
        """
        key = f"{task.__qualname__} {plain(settings)}"
        again = f"{key}, the same table again"
        if again not in self._known:
            from qcq.models import Random, TrainingData

            with unbounded():
                emb = Random().fit(TrainingData(self._problem.graph)).embeddings()
            given = () if settings is None else (settings,)
            answers = self._problem.dataset.interactions
            small = len(answers) if task.unit == "students" and answers is not None else len(emb)
            made: list[Task] = []

            def score(anew: bool) -> None:
                if anew or not made:  # a task keeps what it trained
                    made[:] = [task(self._problem, *given)]
                made[0].score(emb, "validation", [emb])

            self._keep(key, _timed(lambda: score(True)) / small)
            self._keep(again, _timed(lambda: score(False)) / small)
        return (self._known[key] + (stages - 1) * self._known[again]) * size


def _timed(work: Any) -> float:
    """Seconds of the second call (the first also compiles and loads, once per process); 0 if it fails."""
    try:
        work()
        began = time.perf_counter()
        work()
    except QCQError:
        return 0.0
    return time.perf_counter() - began
