"""A simulated classroom with known true parameters, which needs no download. docs/simulated.md describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray
from pydantic import Field

from qcq.data.dataset import Dataset, Interactions
from qcq.data.reader import Reader
from qcq.errors import ConfigError, DataError
from qcq.support.seeds import generator
from qcq.support.settings import settings

STEPS = ("naming", "comparing", "adding", "subtracting", "multiplying", "dividing", "estimating", "word problems with")
STRANDS = (
    *("whole numbers", "fractions", "decimals", "percentages", "ratios", "negative numbers", "powers", "roots"),
    *("expressions", "equations", "inequalities", "functions", "lengths", "angles", "areas", "volumes"),
    *("coordinates", "vectors", "averages", "probabilities"),
)
SIZES = (0.50, 0.30, 0.15, 0.05)  # share of questions with 1, 2, 3, 4 concepts
MASTERED = 0.5  # a concept becomes available when the mastery of all its prerequisites is at least this
KNOWN = 0.6  # mastery of the concepts that a student knows at the start
RATE = 0.2  # share of the distance to full mastery that one more question removes
STAY = 0.7  # probability of another question on the same concepts
BLOCK = 2048  # students simulated together; each block has its own random stream


@settings
class Simulated(Reader):
    """A simulated classroom: concepts with prerequisites, questions on one to four of them, students who learn.

    A response is right with probability σ(a_q (θ_sq(t) - b_q)), the two-parameter logistic model, where θ_sq(t) is the
    student's ability plus ``gain`` times the mean mastery of the question's concepts, and every question practised
    moves the mastery m of its concepts to m + RATE (1 - m). A question is asked only once the prerequisites of all its
    concepts are mastered. The true parameters are in ``Dataset.truth``.

    Parameters
    ----------
    questions : at least as many as concepts: each concept has a question on it alone.
    concepts : in strands of eight concepts, each after its prerequisites.
    students : 0 makes a data set without responses.
    responses : responses per student; 0 makes a data set without them.
    sets : at most this many distinct sets of two to four concepts (in addition to the single concepts).
    gain : difference in logits between a concept never practised and one fully mastered.
    seed : of all random numbers.

    Raises
    ------
    ConfigError : fewer questions than concepts.

    Examples
    --------
    >>> data = Simulated(questions=50, concepts=10, students=20, responses=30).read()
    >>> len(data.questions), data.concept_names["c2"], len(data.interactions)
    (50, 'adding whole numbers', 600)

    References
    ----------
    Birnbaum 1968, in Lord & Novick, Statistical theories of mental test scores, ch. 17 (the response model).
    """

    needs_path = False

    questions: Annotated[int, Field(ge=1, le=100_000_000)] = 2_000
    concepts: Annotated[int, Field(ge=1)] = 40
    students: Annotated[int, Field(ge=0, le=10_000_000_000)] = 600
    responses: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    sets: Annotated[int, Field(ge=0, le=1_000_000)] = 80
    gain: Annotated[float, Field(ge=0)] = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.questions < self.concepts:
            raise ConfigError(
                f"setting questions: {self.questions} questions can't cover {self.concepts} concepts; "
                "give at least one question a concept"
            )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def read(self, path: Path | None = None) -> Dataset:
        """Simulate the classroom.

        Raises
        ------
        DataError : a path was given; there is nothing to read.
        """
        if path is not None:
            raise DataError("the simulated classroom is made, not read", file=path, fix="give its name alone")
        room = _plan(self)
        q_matrix = room.incidence(room.set_of)
        names = [_name(c) for c in range(self.concepts)]
        set_names = [" and ".join(names[c] for c in members if c >= 0) for members in room.members]
        interactions, planted = None, {}
        if self.students and self.responses:
            blocks = list(_respond(self, room))
            student, question, correct, time = (np.concatenate([getattr(b, f) for b in blocks]) for f in _COLUMNS)
            interactions = Interactions(student, question, correct, time)
            planted = {f: np.concatenate([getattr(b, f) for b in blocks]) for f in _PLANTED}
        return Dataset(
            "simulated",
            [f"q{i}" for i in range(self.questions)],
            [f"c{c}" for c in range(self.concepts)],
            q_matrix,
            interactions,
            [f"s{i}" for i in range(self.students)] if interactions is not None else (),
            _Readable(set_names, room.set_of),
            {f"c{c}": name for c, name in enumerate(names)},
            prerequisites=tuple((f"c{a}", f"c{b}") for a, b in room.prerequisites.tolist()),
            notes=(f"simulated from seed {self.seed}: {len(room.members)} distinct concept sets",),
            truth={
                "prerequisites": room.prerequisites,
                "concept_difficulty": room.concept_difficulty,
                "concept_set": room.set_of,
                "difficulty": room.difficulty,
                "discrimination": room.discrimination,
                **planted,
            },
        )

    def blocks(self) -> Iterator[Interactions]:
        """The same responses, up to 2,048 students at a time: for classrooms whose responses don't fit into memory.

        A block isn't kept in memory after it is returned. The questions come from ``read`` with ``responses=0``.

        Examples
        --------
        >>> room = Simulated(questions=50, concepts=10, students=5_000, responses=3)
        >>> [len(block) for block in room.blocks()]
        [6144, 6144, 2712]
        """
        if self.students and self.responses:
            for block in _respond(self, _plan(self)):
                yield Interactions(*(getattr(block, f) for f in _COLUMNS))


@dataclass(frozen=True, eq=False)
class _Readable(Mapping[str, str]):
    """Readable names of the questions, made when they are asked for: ten million of them would fill 3 GB."""

    sets: Sequence[str]
    set_of: NDArray[np.int64]

    def __getitem__(self, question: str) -> str:
        digits = question.removeprefix("q")
        if (
            not digits.isdecimal()
            or len(digits) > 9
            or question != f"q{int(digits)}"
            or int(digits) >= len(self.set_of)
        ):
            raise KeyError(question)
        return f"{self.sets[self.set_of[int(digits)]]}, question {digits}"

    def __iter__(self) -> Iterator[str]:
        return (f"q{i}" for i in range(len(self.set_of)))

    def __len__(self) -> int:
        return len(self.set_of)


@dataclass(frozen=True, eq=False)
class _Room:
    """The parameters of concepts and questions, before students are simulated."""

    prerequisites: NDArray[np.int64]  # (edges, 2): before, after
    members: NDArray[np.int64]  # (sets, 4): concepts of each distinct set, -1 pads
    concept_difficulty: NDArray[np.float64]  # (concepts,)
    set_of: NDArray[np.int64]  # (questions,): row of members
    difficulty: NDArray[np.float64]  # (questions,)
    discrimination: NDArray[np.float64]  # (questions,)

    def incidence(self, sets: NDArray[np.int64] | slice = slice(None)) -> scipy.sparse.csr_array:
        """1 where a set holds a concept: csr_array float64 (sets, concepts)."""
        wide = self.members[sets]  # (sets, 4)
        held = wide >= 0
        indptr = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        shape = (len(wide), len(self.concept_difficulty))
        return scipy.sparse.csr_array((np.ones(indptr[-1]), wide[held].astype(np.int32), indptr), shape=shape)


def _name(concept: int) -> str:
    """Readable name of a concept; after the last strand the names repeat with a number."""
    strand, step = divmod(concept, len(STEPS))
    lap, strand = divmod(strand, len(STRANDS))
    return f"{STEPS[step]} {STRANDS[strand]}" + (f" {lap + 1}" if lap else "")


def _plan(room: Simulated) -> _Room:
    rng = generator(room.seed, "simulated", "concepts")
    before: list[list[int]] = []
    for c in range(room.concepts):
        first = c % len(STEPS) == 0
        needs = [c - 1] if not first else [int(rng.integers(c))] if c and rng.random() < 0.8 else []
        if c and rng.random() < 0.25:
            needs.append(int(rng.integers(max(0, c - 2 * len(STEPS)), c)))
        before.append(sorted(set(needs)))
    pairs = [(a, c) for c, needs in enumerate(before) for a in needs]
    near: list[list[int]] = [[] for _ in range(room.concepts)]
    for a, c in pairs:
        near[a].append(c)
        near[c].append(a)
    # A set grows from a concept along prerequisite edges, so that consecutive concepts occur together in questions.
    grown: dict[tuple[int, ...], None] = {}
    upto = np.cumsum(SIZES[1:]) / sum(SIZES[1:])
    for _ in range(20 * room.sets):
        if len(grown) == room.sets:
            break
        size = 2 + int(np.searchsorted(upto, rng.random(), side="right"))  # rng.choice, without its checks
        picked = [int(rng.integers(room.concepts))]
        while len(picked) < size:
            open_ = sorted({n for c in picked for n in near[c]} - set(picked))
            if not open_:
                break
            picked.append(open_[rng.integers(len(open_))])
        if len(picked) == size:
            grown[tuple(sorted(picked))] = None
    every = [(c,) for c in range(room.concepts)] + sorted(grown)
    members = np.array([s + (-1,) * (4 - len(s)) for s in every], dtype=np.int64)  # (sets, 4)

    rng = generator(room.seed, "simulated", "questions")
    n_members = (members >= 0).sum(axis=1)
    weight = rng.lognormal(0.0, 0.7, len(members))  # some sets are much more popular than others
    for size, share in enumerate(SIZES, start=1):
        of = n_members == size
        weight[of] *= share / weight[of].sum() if of.any() else 0
    set_of = rng.choice(len(members), size=room.questions, p=weight / weight.sum())
    set_of[: room.concepts] = np.arange(room.concepts)  # one question on each concept alone
    set_of = rng.permutation(set_of)
    concept_difficulty = rng.normal(0.0, 0.5, room.concepts)
    padded = np.append(concept_difficulty, 0.0)
    set_difficulty = padded[members].sum(axis=1) / n_members  # (sets,)
    return _Room(
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        members,
        concept_difficulty,
        set_of,
        set_difficulty[set_of] + rng.normal(0.0, 1.0, room.questions),
        rng.lognormal(0.0, 0.25, room.questions),
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """The responses of some students, student by student, with the true parameters behind them."""

    student: NDArray[np.int32]
    question: NDArray[np.int32]
    correct: NDArray[np.int8]
    timestamp: NDArray[np.float64]
    ability: NDArray[np.float64]  # (students of the block,)
    entry: NDArray[np.int64]  # (students of the block,)
    mastery: NDArray[np.float64]  # (responses,)
    probability: NDArray[np.float64]  # (responses,)


_COLUMNS = ("student", "question", "correct", "timestamp")
_PLANTED = ("ability", "entry", "mastery", "probability")


def _respond(room: Simulated, plan: _Room) -> Iterator[_Block]:
    """Block after block of students; a block isn't kept in memory after it is returned."""
    from scipy.special import expit

    by_set = np.argsort(plan.set_of, kind="stable")
    count = np.bincount(plan.set_of, minlength=len(plan.members))
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    incidence = plan.incidence()  # (sets, concepts)
    before, after = plan.prerequisites.T
    needs = scipy.sparse.csr_array((np.ones(len(before)), (after, before)), shape=(room.concepts, room.concepts))
    members = np.maximum(plan.members, 0)
    held = (plan.members >= 0).astype(np.float64)  # (sets, 4)
    for block, start in enumerate(range(0, room.students, BLOCK)):
        rng = generator(room.seed, "simulated", "students", block)
        n = min(BLOCK, room.students - start)
        everybody = np.arange(n)
        ability = rng.normal(-0.5, 1.0, n)
        entry = rng.integers(0, room.concepts, n)
        mastery = np.where(np.arange(room.concepts) < entry[:, None], KNOWN, 0.0)  # (students, concepts)
        shape = (room.responses, n)
        question = np.empty(shape, dtype=np.int32)
        correct = np.empty(shape, dtype=np.int8)
        level, probability = np.empty(shape), np.empty(shape)
        current = np.full(n, -1)
        for t in range(room.responses):
            moves = np.flatnonzero((current < 0) | (rng.random(n) >= STAY))
            m = mastery[moves].T  # (concepts, moves)
            locked = incidence @ (needs @ (m < MASTERED)) > 0  # (sets, moves)
            want = incidence @ (1.05 - m) * (count / held.sum(axis=1))[:, None]  # less mastered, higher weight
            mass = np.cumsum(np.where(locked, 0.0, want), axis=0)  # (sets, moves)
            current[moves] = (mass <= rng.random(len(moves)) * mass[-1]).sum(axis=0)
            q = by_set[first[current] + rng.integers(0, count[current])]
            its, on = members[current], held[current]  # (students, 4) each
            now = mastery[everybody[:, None], its]
            level[t] = (now * on).sum(axis=1) / on.sum(axis=1)
            probability[t] = expit(plan.discrimination[q] * (ability + room.gain * level[t] - plan.difficulty[q]))
            question[t], correct[t] = q, rng.random(n) < probability[t]
            row, column = np.nonzero(on)
            mastery[row, its[row, column]] += RATE * (1 - now[row, column])
        # A question takes about half a minute; every twentieth response is followed by a night.
        pause = np.ceil(rng.lognormal(np.log(30), 0.6, shape)) + 86_400 * (rng.random(shape) < 0.05)
        time = np.cumsum(pause, axis=0) + 86_400 * rng.integers(0, 30, n)
        yield _Block(
            np.repeat(np.arange(start, start + n, dtype=np.int32), room.responses),
            question.T.ravel(),
            correct.T.ravel(),
            time.T.ravel().astype(np.float64),
            ability,
            entry,
            level.T.ravel(),
            probability.T.ravel(),
        )
