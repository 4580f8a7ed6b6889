"""Numbers with their nouns, and objects in one line."""

from __future__ import annotations


def several(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Examples
    --------
    >>> several(1, "question"), several(51033, "repeated attempt"), several(2, "box", "boxes")
    ('1 question', '51,033 repeated attempts', '2 boxes')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def in_short(kind: str, *facts: str) -> str:
    """What an object with large arrays shows of itself: its kind and what is counted in it, in one line.

    Examples
    --------
    >>> in_short("Embeddings", several(2, "question"), "", several(64, "dimension"))
    '<Embeddings: 2 questions, 64 dimensions>'
    """
    return f"<{kind}: {', '.join(' '.join(fact.split()) for fact in facts if fact)}>"
