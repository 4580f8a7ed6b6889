"""Five experiments: which cells each has, and which figures its rule takes from them.

The rules are in ``qcq.study.conjectures`` and were fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcq.engine import Row
from qcq.errors import EvaluationError
from qcq.evaluation import Contest, simultaneous
from qcq.study.cells import HEADLINE, TASKS, LawTrial, ModelTrial, StudyData, Trial, Units, interval
from qcq.study.conjectures import Measured
from qcq.study.shuffled import Shuffled
from qcq.support.settings import settings
from qcq.walks import QCQ, ConceptHop, Metapath, Session, WalkStrategy

# Steps that take about as long as one step of mlm (experiments/objectives.toml)
EQUAL_COMPUTE = {"mlm": 1.0, "cloze": 0.61, "clm": 0.58, "bilm": 0.42, "rtd": 0.5}
SKIPGRAM: Mapping[str, Any] = {"threads": 1, "epochs": 3}  # after one epoch it is far above its floor
# Walks made of answers. kt-fast must not judge their vectors (docs/evaluation.md), so kt does, where it is scored.
RICHER: Mapping[str, str] = {
    "difficulty": "0.6*q-c-q + 0.4*q-d-q",
    "students and order": "0.4*q-c-q + 0.3*q-q + 0.3*q-s-q",
}
# The note's own settings: experiments/note.toml
NOTE: Mapping[str, Any] = {
    "layers": 1,
    "heads": 4,
    "norm": "post",
    "dropout": 0.1,
    "position": "absolute",
    "tying": "tied",
    "init": 0.16,
    "softmax": "full",
    "mask_rate": 0.15,
    "mask_share": 0.8,
    "random_share": 0.1,
    "lr": 1e-3,
    "table_lr": 1e-3,
}
# One change each, to avoid one possible trap
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "two layers": {"layers": 2},
    "tables not tied": {"tying": "start"},
    "40 % masked": {"mask_rate": 0.4},
    "faster tables": {"table_lr": 5e-2},
    "neighbours first": {"position": "local"},
}


@settings
class Size:
    """How much of a study is run.

    Parameters
    ----------
    steps : of a masked model; the others get as many as take equally long.
    per_question : walks per question.
    seeds : number of seeds of skip-gram. A language model has one seed.
    windows : of skip-gram.
    lengths : of walks, at about 40 * per_question tokens per question.
    kt : whether the five objectives and skip-gram are also scored on the task ``kt`` (minutes per model on real data).
    """

    steps: int
    per_question: int = 3
    seeds: int = 3
    windows: tuple[int, ...] = (1, 2, 5, 10)
    lengths: tuple[int, ...] = (5, 10, 20, 80)
    kt: bool = False


SIZES: dict[str, Size] = {
    "small": Size(steps=300, per_question=5, windows=(1, 5, 10), lengths=(5, 20)),
    "medium": Size(steps=1500, lengths=(5, 20, 60), kt=True),
    "full": Size(steps=8000, per_question=10, windows=(1, 2, 3, 5, 10, 20), kt=True),
}

Trials = Mapping[str, Sequence[Trial]]  # the trials of a name differ only in their seed


@dataclass(frozen=True, eq=False)
class ExperimentResults:
    """The finished cells of one experiment on one data set.

    Attributes
    ----------
    rows : name → its rows, one per seed.
    units : name → its figures by unit, one mapping per seed.
    """

    rows: Mapping[str, Sequence[Row]]
    units: Mapping[str, Sequence[Units]]

    def row(self, name: str) -> Row:
        """The first seed's row.

        Raises
        ------
        EvaluationError : the cell failed; the text says why.
        """
        row = self.rows[name][0]
        if "error" in row:
            raise EvaluationError(f"{name}: {row['error']}")
        return row

    def figure(self, name: str, key: str) -> NDArray[np.float64] | None:
        """Figures by unit, averaged over the seeds that have them: float64 (units,)."""
        self.row(name)
        held = [units[key] for units in self.units[name] if key in units]
        return np.mean(held, axis=0) if held else None

    def differences(self, pairs: Mapping[str, tuple[str, str, str]]) -> dict[str, Measured]:
        """Ours minus theirs, for each (ours, theirs, figure), with simultaneous intervals. Left out if not scored.

        A higher score is better; a higher ``loss`` is worse.
        """
        contests, names = [], []
        for name, (ours, theirs, key) in pairs.items():
            a, b = self.figure(ours, key), self.figure(theirs, key)
            if a is None or b is None:
                continue
            both = np.isfinite(a) & np.isfinite(b)
            contests.append(Contest(np.stack([a[both], b[both]]), [(0, 1)]))
            names.append(name)
        if not contests:
            return {}
        return {name: interval(d[0]) for name, d in zip(names, simultaneous(contests), strict=True)}

    def shares(self, whole: str, names: Sequence[str]) -> dict[str, Measured]:
        """The share r of the excess of ``whole`` that is gone in each other cell, with simultaneous intervals of the
        ratio, from (1 - r) whole - other walk by walk, whose mean is 0 (the delta method)."""
        n, contests, ratios = self.figure(whole, "loss"), [], []
        for name in names:
            e = self.figure(name, "loss")
            if n is None or e is None:
                raise EvaluationError(f"{name}: a loss without a floor has no excess")
            both = np.isfinite(n) & np.isfinite(e)
            all_of_it = max(float(n[both].mean()), 1e-9)
            share = 1 - float(e[both].mean()) / all_of_it
            contests.append(Contest(np.stack([n[both] * (1 - share), e[both]]), [(0, 1)]))
            ratios.append((share, all_of_it))
        away = [d[0] for d in simultaneous(contests)]
        return {
            name: Measured(share, share + (d.low - d.mean) / of, share + (d.high - d.mean) / of)
            for name, (share, of), d in zip(names, ratios, away, strict=True)
        }


@dataclass(frozen=True)
class StudyExperiment:
    """How a conjecture is measured: its cells, and the figures that its rule takes from them."""

    cells: Callable[[Size, StudyData], Trials]
    measures: Callable[[ExperimentResults], dict[str, Measured]]


def _qcq(size: Size, **changes: Any) -> QCQ:
    return QCQ(per_question=size.per_question, **changes)


def _traced(size: Size) -> tuple[str, ...]:
    return (*TASKS, "kt") if size.kt else TASKS


def _lm(
    size: Size, name: str = "mlm", walk: WalkStrategy | None = None, share: float = 1.0, **changes: Any
) -> list[Trial]:
    """One language model. Without changes its vectors are also scored on ``kt-fast``, which takes longest."""
    steps = max(1, round(size.steps * EQUAL_COMPUTE[name] * share))
    tasks = _traced(size) if walk is None and not changes else TASKS[:2]
    return [ModelTrial(name, walk or _qcq(size), {"steps": steps, **changes}, tasks=tasks)]


def _sgns(
    size: Size, walk: WalkStrategy, tasks: tuple[str, ...] = TASKS[:2], measured: bool = True, **changes: Any
) -> list[Trial]:
    """Skip-gram, one cell per seed."""
    return [ModelTrial("sgns", walk, {**SKIPGRAM, **changes}, seed, tasks, measured) for seed in range(size.seeds)]


def _far_cells(size: Size, data: StudyData) -> Trials:
    tokens = 40 * size.per_question
    lengths = {n: QCQ(length=n, per_question=max(1, round(tokens / n))) for n in size.lengths}
    return {
        "law of qcq": [LawTrial(_qcq(size))],
        "law of concept-hop": [LawTrial(ConceptHop(per_question=size.per_question))],
        **{f"sgns, window {w}": _sgns(size, _qcq(size), window=w) for w in size.windows},
        **{f"sgns, walks of {n}": _sgns(size, walk) for n, walk in lengths.items()},
        "mlm": _lm(size),
        "mlm, relative": _lm(size, position="relative"),
    }


def _exact(found: ExperimentResults) -> Row:
    """The row of qcq's exact distribution, if its chain is small enough to compute."""
    law = found.row("law of qcq")
    if "near" not in law or "fading" not in law:
        raise EvaluationError(f"the exact law of qcq isn't known here: {'; '.join(law['notes']) or 'short walks'}")
    return law


def _far_measures(found: ExperimentResults) -> dict[str, Measured]:
    law = _exact(found)
    out = {"near": Measured(**law["near"]["1"]), "fading": Measured(law["fading"])}
    widths = [name for name in found.rows if name.startswith("sgns, window")]
    lengths = [name for name in found.rows if name.startswith("sgns, walks of")]
    pairs = {f"widest window {key}": (widths[-1], widths[0], key) for key in HEADLINE[:2]}
    pairs |= {f"longest walks {key}": (lengths[-1], lengths[0], key) for key in HEADLINE[:2]}
    out |= found.differences(pairs)
    look = np.array(found.row("mlm")["attention"])
    start = np.array(found.row("mlm, relative")["attention"])
    out |= {"attention within 2, local": Measured(float(look[1:3].sum()))}
    out |= {"attention within 2, relative": Measured(float(start[1:3].sum()))}
    windows = found.row("mlm").get("window", {})
    return out | {f"loss of mlm seeing {w} on either side less all": Measured(**m) for w, m in windows.items()}


def _order_cells(size: Size, data: StudyData) -> Trials:
    walk = _qcq(size)
    cells: dict[str, Sequence[Trial]] = {
        "law of qcq": [LawTrial(walk)],
        "mlm": _lm(size),
        **{f"mlm, {p}": _lm(size, position=p) for p in ("none", "absolute", "relative")},
        "mlm, shuffled walks": _lm(size, walk=Shuffled(walk=walk)),
        "clm": _lm(size, "clm"),
        "sgns": _sgns(size, walk, tasks=_traced(size)),
        "sgns, ordered": _sgns(size, walk, ordered=True),
        "sgns, shuffled walks": _sgns(size, Shuffled(walk=walk)),
        "sgns on concept-hop": _sgns(size, ConceptHop(per_question=size.per_question), tasks=TASKS, measured=False),
    }
    if data.has_students and size.kt:
        mixtures = {name: Metapath(pattern=p, per_question=size.per_question) for name, p in RICHER.items()}
        tasks = (*TASKS[:2], "kt")
        for name, mixture in mixtures.items():  # one seed, because kt takes minutes
            cells[f"sgns on {name}"] = _sgns(size, mixture, tasks=tasks, measured=False)[:1]
    if data.has_students:
        session = Session()
        cells |= {
            "mlm, session": _lm(size, walk=session, share=0.5),
            "mlm, shuffled session": _lm(size, walk=Shuffled(walk=session), share=0.5),
            "clm, session": _lm(size, "clm", walk=session, share=0.5),
            "sgns, session": _sgns(size, session),
            "sgns, ordered session": _sgns(size, session, ordered=True),
        }
    return cells


def _order_measures(found: ExperimentResults) -> dict[str, Measured]:
    law = _exact(found)
    out = {"direction": Measured(law["direction"]), "exchangeable": Measured(law["exchangeable"])}
    gains = {}
    for name in [name for name in found.rows if name.startswith("sgns on ")]:
        key = "kt/auc" if (walk := name.removeprefix("sgns on ")) in RICHER else HEADLINE[2]
        gains[f"gain {walk}, {key.removesuffix('/auc')}"] = (name, "sgns", key)
    out |= found.differences(gains)
    out |= found.differences(
        {
            "place": ("mlm, none", "mlm", "loss"),
            "place, absolute": ("mlm, absolute", "mlm", "loss"),
            "place, relative": ("mlm, relative", "mlm", "loss"),
        }
    )
    pairs = {f"shuffled walks {key}": ("sgns, shuffled walks", "sgns", key) for key in HEADLINE[:2]}
    pairs |= {f"ordered {key}": ("sgns, ordered", "sgns", key) for key in HEADLINE[:2]}
    pairs |= {f"mlm on shuffled walks {key}": ("mlm, shuffled walks", "mlm", key) for key in HEADLINE[:2]}
    out |= found.differences(pairs)
    out["backwards, qcq"] = Measured(**found.row("clm")["backwards"])
    if "clm, session" in found.rows:
        out["backwards, session"] = Measured(**found.row("clm, session")["backwards"])
        out |= found.differences({"shuffled session": ("mlm, shuffled session", "mlm, session", "loss")})
        pairs = {f"ordered session {key}": ("sgns, ordered session", "sgns, session", key) for key in HEADLINE[:2]}
        out |= found.differences(pairs)
    return out


_LOSSES = {"full softmax": "full", "negative sampling": "negative-sampling", "gbce": "gbce"}


def _weak_cells(size: Size, data: StudyData) -> Trials:
    return {
        "law of qcq": [LawTrial(_qcq(size))],
        **{f"mlm, {name}": _lm(size, softmax=loss) for name, loss in _LOSSES.items()},
        "mlm, sampled softmax": _lm(size),
        "sgns": _sgns(size, _qcq(size), tasks=TASKS),
    }


def _weak_measures(found: ExperimentResults) -> dict[str, Measured]:
    law = found.row("law of qcq")
    step = law["information"][0]
    out = {"information a step": Measured(step), "share of the entropy": Measured(step / max(law["entropy"], 1e-9))}
    out["above components"] = Measured(law["above_components"][0])
    # Edges if they can be held out, else difficulty.
    scores = {key: ("mlm, negative sampling", "mlm, full softmax", key) for key in HEADLINE[:2]}
    made = found.differences(scores | {"loss": ("mlm, negative sampling", "mlm, full softmax", "loss")})
    key = next((key for key in HEADLINE[:2] if key in made), None)
    if key is None:
        raise EvaluationError("neither edges nor difficulty can be scored here, so vectors can't be compared")
    out |= {"vectors": made[key], "loss": made["loss"]}
    for name in ("gbce", "sampled softmax"):
        pairs = {f"{name}, {what}": (f"mlm, {name}", "mlm, full softmax", what) for what in (key, "loss")}
        out |= found.differences(pairs)
    for name in ("sgns", "mlm, negative sampling", "mlm, full softmax"):
        out[f"excess of {name}"] = _excess(found.row(name))
    return out


def _excess(row: Row) -> Measured:
    if row.get("excess") is None:
        raise EvaluationError("a loss without a floor has no excess")
    reach = 1.96 * row["se"]
    return Measured(row["excess"], row["excess"] - reach, row["excess"] + reach)


def _objective_cells(size: Size, data: StudyData) -> Trials:
    return {name: _lm(size, name) for name in EQUAL_COMPUTE} | {"sgns": _sgns(size, _qcq(size), _traced(size))}


def _objective_measures(found: ExperimentResults) -> dict[str, Measured]:
    pairs = {f"clm-{other} {key}": ("clm", other, key) for other in ("mlm", "cloze") for key in HEADLINE}
    out = found.differences(pairs)
    if not out:
        raise EvaluationError("no task can be scored here, so vectors can't be compared")
    # No rule uses these, so a failed cell among them doesn't matter.
    whole = [name for name, rows in found.rows.items() if "error" not in rows[0]]
    whom = [pair for pair in (("clm", "mlm"), ("clm", "cloze"), ("sgns", "mlm")) if set(pair) <= set(whole)]
    out |= found.differences({f"kt, {ours} less {theirs}": (ours, theirs, "kt/auc") for ours, theirs in whom})
    return out | {f"excess of {name}": _excess(found.row(name)) for name in ("mlm", "cloze", "clm", "bilm")}


def _traps_cells(size: Size, data: StudyData) -> Trials:
    def note(walk: WalkStrategy | None = None, share: float = 1.0, **changes: Any) -> list[Trial]:
        return _lm(size, walk=walk, share=share, **{**NOTE, **changes})

    return {
        "the note": note(),
        **{name: note(**change) for name, change in CHANGES.items()},
        "one walk a question": note(QCQ(per_question=1)),
        "twice the steps": note(share=2.0),
        "all changes": _lm(size),
        "added": _lm(size, position="absolute"),
        "concatenated": _lm(size, position="absolute", combine="concatenate"),
    }


def _traps_measures(found: ExperimentResults) -> dict[str, Measured]:
    note = _excess(found.row("the note"))
    changed = [name for name in found.rows if name not in ("the note", "added", "concatenated")]
    same = [name for name in changed if name != "one walk a question"]  # excluded: other walks, so other held-out walks
    shares = found.shares("the note", same)
    out = {"note": note, "explained": shares.pop("all changes")}
    out |= {f"explained by {name}": share for name, share in shares.items()}
    other = _excess(found.row("one walk a question"))
    out["one walk a question, excess"] = other
    return out | found.differences({"added": ("added", "concatenated", "loss")})


EXPERIMENTS: dict[str, StudyExperiment] = {
    "far": StudyExperiment(_far_cells, _far_measures),
    "order": StudyExperiment(_order_cells, _order_measures),
    "weak": StudyExperiment(_weak_cells, _weak_measures),
    "objective": StudyExperiment(_objective_cells, _objective_measures),
    "traps": StudyExperiment(_traps_cells, _traps_measures),
}
