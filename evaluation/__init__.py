"""Tasks by name."""

from __future__ import annotations

from qcq.evaluation.task import HeldOut, Problem, Score, Stage, Task

TASKS: dict[str, type[Task]] = {}

__all__ = ["TASKS", "HeldOut", "Problem", "Score", "Stage", "Task"]
