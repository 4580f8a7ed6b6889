"""Replaced-token detection (``rtd``): a small generator fills masks, and the model detects the replaced tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qcq.corpus import HIDDEN
from qcq.errors import ConfigError
from qcq.floors.objectives import HeldOutBatch, Replaced
from qcq.models.language.trainers import MLM, Asked, LanguageModel, LanguageTrainer, Numbers
from qcq.models.trainer import TrainingData
from qcq.support.settings import settings

if TYPE_CHECKING:
    from qcq.models.language.training import Learner, TrainingBatch
    from qcq.models.language.transformer import Encoder


@settings
class RTD(LanguageTrainer):
    """ELECTRA: a small masked model replaces some tokens by likely ones, and the model detects them.

    Both share the token vectors and learn at the same time; only the model's states are read out. The generator has a
    quarter of the width, one layer and one head. There is a held-out loss but no floor: the best answer depends on the
    generator, which is trained as well.

    Parameters
    ----------
    mask_rate : share of tokens given to the generator.
    weight : of the detection loss, against 1 for the generator's loss.

    References
    ----------
    Clark et al. 2020, ELECTRA, sections 2 and 3.2.
    """

    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    weight: Annotated[float, Field(gt=0)] = 50.0

    shown = ("table", "hidden", "context")
    divisible = False

    def architecture(self) -> type[Encoder]:
        from qcq.models.language.detector import Detector

        return Detector

    @property
    def asks(self) -> float:
        return self.mask_rate

    def ask(self, tokens: Any, n_questions: int, rng: Numbers) -> Asked:
        return MLM(mask_rate=self.mask_rate).ask(tokens, n_questions, rng)

    def training_batch(self, tokens: NDArray[np.int32], n_questions: int, rng: np.random.Generator) -> TrainingBatch:
        return MLM(mask_rate=self.mask_rate).training_batch(tokens, n_questions, rng)

    def _around(self, learner: Learner) -> Learner:
        from qcq.models.language.detector import DetectiveLearner

        return DetectiveLearner(**vars(learner), weight=self.weight)

    def model(self, source: TrainingData, learner: Learner) -> LanguageModel:
        return Detecting(source, learner, Replaced(rate=self.mask_rate), self.readouts, self.shown)


class Detecting(LanguageModel):
    """A trained detector with its generator."""

    def losses(self, batch: HeldOutBatch) -> NDArray[np.float64]:
        """Nats per decision; the generator samples with a fixed seed, so the same batch has the same losses."""
        from qcq.models.language.detector import DetectiveLearner

        if batch.seen is None or not isinstance(batch.objective, Replaced):
            raise ConfigError(f"a model of 'replaced' has no predictions for the objective {batch.objective.name!r}")
        assert isinstance(self.learner, DetectiveLearner)
        return self.learner.judged(batch.tokens, batch.seen == HIDDEN)


__all__ = ["RTD"]
