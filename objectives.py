"""What a model is asked, so that every model and the exact chain answer the very same questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcq.corpus import Corpus


@dataclass(frozen=True, eq=False)
class Probe:
    """A question paper over held-out walks, fixed by its seed.

    Attributes
    ----------
    objective : who set it.
    tokens : int32 (walks, length), the walks as they are; -1 pads.
    asked : bool (walks, length); the positions to predict, in row-major order one item each. None for pairs.
    pairs : int32 (items, 2 + k): centre, context, k negatives (-1 where a negative was skipped). None for positions.
    walk : int64 (items,), the walk each item comes from: items of one walk are not independent.
    """

    objective: Objective
    tokens: NDArray[np.int32]
    walk: NDArray[np.int64]
    asked: NDArray[np.bool_] | None = None
    pairs: NDArray[np.int32] | None = None


class Objective(ABC):
    """Sets papers. ``name`` is what results call it."""

    name: ClassVar[str]

    @abstractmethod
    def probe(self, corpus: Corpus, seed: int = 0) -> Probe:
        """A paper over all of ``corpus`` (held-out walks)."""


@dataclass(frozen=True)
class Masked(Objective):
    """Predict the questions hidden behind a mask; every other token of the walk is visible.

    Each token is hidden with probability ``rate``, independently (pure masks: no random or kept tokens, whatever a
    model's training does).
    """

    name: ClassVar[str] = "masked"
    rate: float = 0.15

    def probe(self, corpus: Corpus, seed: int = 0) -> Probe:
        from qcq.seeds import generator

        tokens = corpus.tokens
        asked = (generator(seed, "probe", self.name).random(tokens.shape) < self.rate) & (tokens >= 0)
        return Probe(self, tokens, np.nonzero(asked)[0], asked=asked)
