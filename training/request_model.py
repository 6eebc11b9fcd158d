"""What answers when history is out of reach: a model of the request alone, and below it a rule.

The champion was fitted with history; without it every window is missing, which it hardly ever saw.
This model was fitted to do without, and its calibration and thresholds are its own. Part of every
kind of artefact (``training.artefact``), and the same for all of a training run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.amount_rule import AmountRule
from training.calibration import Calibration
from training.encoding import Floats
from training.operating_point import Decisions, Thresholds
from training.scorers import Scorer, TreeScorer


@dataclass(frozen=True)
class FallbackSpec:
    """The request model beside its trees, and the rule: ``fallback`` in ``model.json``.

    Attributes:
        features: The request model's inputs, in order.
        calibration: From its margin to probability.
        thresholds: From its probability to decision.
        rule: What answers without any model.
    """

    features: tuple[str, ...]
    calibration: Calibration
    thresholds: Thresholds
    rule: AmountRule

    def to_document(self) -> dict[str, Any]:
        """Return the JSON form; ``read_fallback_spec`` is its inverse."""
        return {**asdict(self), "features": list(self.features)}


def read_fallback_spec(document: Mapping[str, Any]) -> FallbackSpec:
    """Rebuild a specification from its JSON form."""
    return FallbackSpec(
        features=tuple(document["features"]),
        calibration=Calibration(**document["calibration"]),
        thresholds=Thresholds(**document["thresholds"]),
        rule=AmountRule(**document["rule"]),
    )


@dataclass(frozen=True)
class RequestModel:
    """The request model, ready to score rows of the champion's matrix.

    Attributes:
        spec: Calibration and thresholds.
        scorer: The trees, over the request's columns only.
        positions: Where in the champion's matrix those columns are.
    """

    spec: FallbackSpec
    scorer: Scorer
    positions: tuple[int, ...]

    def predict(self, matrix: Floats) -> Floats:
        """Return calibrated probabilities; of ``(rows, features)`` only the request's are read."""
        columns = np.ascontiguousarray(matrix[:, self.positions])
        return self.spec.calibration.apply(self.scorer.margins(columns))

    def decide(self, scores: Floats, amounts: Floats) -> Decisions:
        """Say ``approve``, ``review`` or ``decline`` for each score and amount."""
        return self.spec.thresholds.decide(scores, amounts)


def load_request_model(
    spec: FallbackSpec, content: bytes, *, features: Sequence[str]
) -> RequestModel:
    """Make a request model.

    Args:
        spec: What it is.
        content: LightGBM's text format.
        features: The columns of the matrix it will be given.

    Raises:
        ValueError: If one of its inputs is not among ``features``.
    """
    absent = [name for name in spec.features if name not in features]
    if absent:
        raise ValueError(f"the request model reads columns the model lacks: {', '.join(absent)}")
    positions = tuple(list(features).index(name) for name in spec.features)
    return RequestModel(spec, TreeScorer(content), positions)
