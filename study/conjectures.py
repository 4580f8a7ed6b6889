"""Five conjectures on why a Transformer lost to skip-gram, and the rules that decide them.

The rules were fixed before anything was measured at size: docs/decisions/0701-verdict-rules.md says what each threshold
means. They are pure functions of measured figures; ``qcq.study.experiments`` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Word = Literal["supported", "refuted", "depends"]

EQUAL = 0.05  # nats per prediction: two losses closer than this count as equal
REVERSIBLE = 0.02  # nats per token that reading backwards may cost if direction has no information
FADED = 0.1  # of the mutual information of neighbours
ALL = 0.95  # of the information in all tokens
COUNTS = 0.02  # of edges MRR or R², a difference that matters
COUNTS_AUC = 0.005
STUCK = 0.5  # nats of excess over the floor
EXPLAINS, EXPLAINS_NOTHING = 0.8, 0.2  # of the excess


@dataclass(frozen=True)
class Measured:
    """A figure and its 95 % interval; ``low`` and ``high`` are the figure itself if it is exact.

    Examples
    --------
    >>> Measured(0.3, 0.1, 0.5).above(0), Measured(0.3).exact
    (True, True)
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def exact(self) -> bool:
        return self.low is None

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above."""
        return (self.value if self.low is None else self.low) > threshold

    def below(self, threshold: float) -> bool:
        """Whether the whole interval lies below."""
        return (self.value if self.high is None else self.high) < threshold

    def __str__(self) -> str:
        return self.shown(3)

    def shown(self, digits: int) -> str:
        """Rounded, with its interval if it has one; no minus before a zero."""
        value, *ends = (
            f"{round(x, digits) + 0.0:.{digits}f}" for x in (self.value, self.low, self.high) if x is not None
        )
        return f"{value} [{', '.join(ends)}]" if ends else value


@dataclass(frozen=True)
class Verdict:
    """A verdict and its reasons.

    Attributes
    ----------
    word : supported, refuted, or depends.
    on : what it depends on; "" otherwise.
    because : the rule's sentence with the figures that decided.
    parts : the verdicts that this one summarises: halves of a conjecture, or data sets.
    """

    word: Word
    because: str
    on: str = ""
    parts: tuple[tuple[str, Verdict], ...] = ()

    @property
    def text(self) -> str:
        return f"depends on {self.on}" if self.word == "depends" else self.word


Measures = Mapping[str, Measured]


def far(m: Measures) -> Verdict:
    """Distant questions in a walk are barely related.

    Parameters
    ----------
    m : ``near``: share of the information of all other tokens about a hidden question, beyond its component, that its
        two nearest neighbours give; ``fading``: mutual information five steps apart, divided by that of neighbours,
        both minus the component entropy.

    Examples
    --------
    >>> far({"near": Measured(1.0), "fading": Measured(0.03)}).text
    'supported'
    >>> far({"near": Measured(1.0), "fading": Measured(0.6)}).text
    'depends on what else is seen'
    """
    near, fading = m["near"], m["fading"]
    enough, faded = not near.below(ALL), fading.value <= FADED
    said = (
        f"the two nearest neighbours say {near} of what all tokens say (at least {ALL}: {_yes(enough)}); five steps "
        f"apart {fading} of what neighbours share is left (at most {FADED}: {_yes(faded)})"
    )
    if enough and faded:
        return Verdict("supported", said)
    if enough:
        return Verdict("depends", said, "what else is seen")
    if faded:
        return Verdict("depends", said, "how many of them are seen")
    return Verdict("refuted", said)


def order(m: Measures) -> Verdict:
    """There is no positional order, and question–concept–question is a limited path.

    Parameters
    ----------
    m : ``direction``: nats per token lost by reading walks backwards; ``place``: nats lost without positions;
        ``gain …``: AUC of knowledge tracing gained by richer walks, one figure per walk.
    """
    return _halves(no_order=_no_order(m), limited_path=_limited_path(m))


def _no_order(m: Measures) -> Verdict:
    direction, place = m["direction"], m["place"]
    turned = direction.value > REVERSIBLE
    said = f"reading backwards costs {direction} nat a token (more than {REVERSIBLE}: {_yes(turned)})"
    if turned:
        return Verdict("refuted", said)
    said += f"; a model without positions loses {place} nat (the interval above {EQUAL}: {_yes(place.above(EQUAL))})"
    if place.above(EQUAL):
        return Verdict("depends", said, "what position means: before or behind says nothing, near or far does")
    return Verdict("supported", said) if place.below(EQUAL) else Verdict("depends", said, "more data")


def _limited_path(m: Measures) -> Verdict:
    gains = {name.removeprefix("gain "): figure for name, figure in m.items() if name.startswith("gain ")}
    if not gains:
        return Verdict("depends", "no students' answers in order, so no knowledge tracing to gain from", "more data")
    best = max(gains, key=lambda name: gains[name].value)
    won = [name for name, gain in gains.items() if gain.above(0)]
    said = f"of {len(gains)} richer walks {len(won)} lie above qcq; the best, {best}, gains {gains[best]} AUC"
    if won:
        return Verdict("supported", said)
    nothing = all(gain.below(COUNTS_AUC) for gain in gains.values())
    said += f" (all below {COUNTS_AUC}: {_yes(nothing)})"
    return Verdict("refuted", said) if nothing else Verdict("depends", said, "more data")


def weak(m: Measures) -> Verdict:
    """Skip-gram gains by judging pairs against negatives instead of a softmax.

    Parameters
    ----------
    m : negative sampling minus full softmax in the same Transformer: ``vectors`` (a task score) and ``loss`` (excess,
        nats).
    """
    vectors, loss = m["vectors"], m["loss"]
    said = f"negatives instead of a softmax change the vectors' score by {vectors} and the excess by {loss} nat"
    if vectors.above(0):
        return Verdict("depends", said, "what is judged") if loss.above(EQUAL) else Verdict("supported", said)
    if vectors.below(COUNTS):
        return Verdict("depends", said, "what is judged") if loss.below(-EQUAL) else Verdict("refuted", said)
    return Verdict("depends", said, "more data")


def objective(m: Measures) -> Verdict:
    """Masked or next-token: it matters.

    Parameters
    ----------
    m : ``clm-mlm SCORE`` and ``clm-cloze SCORE``: next-token minus masked, one figure per task score.
    """
    pairs = {pair: {k: f for k, f in m.items() if k.startswith(pair)} for pair in ("clm-mlm", "clm-cloze")}
    sides = [_side(list(figures.values())) for figures in pairs.values()]
    words = {"+": "won by next-token", "-": "won by masked", "0": "undecided in every score", "±": "each wins a score"}
    said = f"clm against mlm: {words[sides[0]]}; against cloze, which asks for every token: {words[sides[1]]}"
    found = set(sides)
    if found in ({"+"}, {"-"}):
        return Verdict("supported", said)
    if found != {"0"}:
        return Verdict(
            "depends", said, "the score" if found == {"±"} else "how many tokens the masked model is asked for"
        )
    every = [(COUNTS_AUC if k.endswith("auc") else COUNTS, f) for figures in pairs.values() for k, f in figures.items()]
    equal = all(figure.above(-least) and figure.below(least) for least, figure in every)
    said += f" (every interval close enough to 0 to say that none counts: {_yes(equal)})"
    return Verdict("refuted", said) if equal else Verdict("depends", said, "more data")


def _side(differences: Sequence[Measured]) -> str:
    won, lost = any(d.above(0) for d in differences), any(d.below(0) for d in differences)
    return "±" if won and lost else "+" if won else "-" if lost else "0"


def traps(m: Measures) -> Verdict:
    """Traps of training explain the note; token, type and position vectors may be added.

    Parameters
    ----------
    m : ``note``: excess of the note's configuration; ``explained``: share of it that the defaults remove; ``added``:
        excess with input vectors added minus excess with vectors concatenated, nats.
    """
    return _halves(traps=_traps(m), adding=_adding(m["added"]))


def _traps(m: Measures) -> Verdict:
    note, explained = m["note"], m["explained"]
    said = f"the note's configuration ends {note} nat above its floor (more than {STUCK}: {_yes(note.value > STUCK)})"
    if note.value <= STUCK:
        return Verdict("refuted", said)
    said += f"; the defaults remove {explained} of it"
    if explained.above(EXPLAINS):
        return Verdict("supported", f"{said} (the interval above {EXPLAINS}: yes)")
    if explained.below(EXPLAINS_NOTHING):
        return Verdict("refuted", f"{said} (the interval below {EXPLAINS_NOTHING}: yes)")
    return Verdict("depends", f"{said} (the interval above {EXPLAINS}: no)", "what else is changed")


def _adding(added: Measured) -> Verdict:
    said = f"adding instead of concatenating costs {added} nat (the interval below {EQUAL}: {_yes(added.below(EQUAL))})"
    if added.below(EQUAL):
        return Verdict("supported", said)
    return Verdict("refuted", said) if added.above(EQUAL) else Verdict("depends", said, "more data")


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _halves(**parts: Verdict) -> Verdict:
    return together({name.replace("_", " "): part for name, part in parts.items()}, _WHICH)


_WHICH = "which half is meant"


def together(parts: Mapping[str, Verdict], what: str = "the data") -> Verdict:
    """One verdict over several: theirs if they agree, else it depends on ``what``.

    Examples
    --------
    >>> yes, no = Verdict("supported", "a"), Verdict("refuted", "b")
    >>> together({"one": yes, "other": yes}).text, together({"one": yes, "other": no}).text
    ('supported', 'depends on the data: one supported, other refuted')
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    verdicts = {part.text for part in parts.values()}
    said = "; ".join(f"{name}: {part.because}" for name, part in parts.items())
    kept = tuple(parts.items())
    if len(verdicts) == 1:
        one = next(iter(parts.values()))
        return Verdict(one.word, said, one.on, kept)
    return Verdict(
        "depends", said, f"{what}: " + ", ".join(f"{name} {part.text}" for name, part in parts.items()), kept
    )


@dataclass(frozen=True)
class Conjecture:
    """What is claimed, and the rule that decides it."""

    claim: str
    rule: Callable[[Measures], Verdict]


CONJECTURES: dict[str, Conjecture] = {
    "far": Conjecture("Far-apart questions in a walk are barely related.", far),
    "order": Conjecture("There is no positional order, and question–concept–question is a limited path.", order),
    "weak": Conjecture("Relations are weak, and skip-gram gains by negatives instead of a softmax.", weak),
    "objective": Conjecture("Masked or next-token: it matters which.", objective),
    "traps": Conjecture("Traps of training explain the note, and input vectors may be added.", traps),
}


UNJUDGED = Verdict("depends", "no data set has all that it takes", "data that can answer it")


def verdicts(found: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Verdict, dict[str, Verdict]]:
    """The verdict on one conjecture over all data sets, and that of each data set with the necessary results.

    Parameters
    ----------
    found : data set → its entry in ``study.json``: ``measures``, or ``why`` there are none.
    name : of the conjecture.
    """
    each = {
        data: CONJECTURES[name].rule({key: Measured(**measure) for key, measure in one["measures"].items()})
        for data, one in found.items()
        if "measures" in one
    }
    if not each:
        return UNJUDGED, each
    halves = [half for half, _ in next(iter(each.values())).parts]
    if not halves:
        return together(each), each
    over = {half: together({data: dict(verdict.parts)[half] for data, verdict in each.items()}) for half in halves}
    return together(over, _WHICH), each
