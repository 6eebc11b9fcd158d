"""Training rows become what answers when history cannot be read: a request model and a rule.

No search: with a handful of inputs there is little to find, and a fallback that changes with luck
would be one more thing to explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.amount_rule import choose_amount_rule
from training.calibration import fit_calibration
from training.candidates import TrainingRows
from training.encoding import Encoding, Floats
from training.gbdt import fit_trees
from training.operating_point import Prices, choose_thresholds
from training.request_model import FallbackSpec, RequestModel, load_request_model
from training.rows import LabelledRows
from training.scorers import TreeScorer

PARAMETERS = {
    "num_trees": 60,
    "learning_rate": 0.08,
    "num_leaves": 8,
    "min_data_in_leaf": 100,
    "lambda_l2": 5.0,
}


@dataclass(frozen=True)
class Fallback:
    """A fitted request model (its file's bytes and itself) and, in its ``spec``, the rule."""

    content: bytes
    model: RequestModel

    @property
    def spec(self) -> FallbackSpec:
        """What ``model.json`` says of it."""
        return self.model.spec

    def score(self, rows: LabelledRows) -> dict[str, Floats]:
        """Score rows by both, as ``request_model`` and ``amount_threshold``."""
        return {
            "request_model": self.model.predict(rows.matrix),
            "amount_threshold": self.spec.rule.scores(rows.amounts),
        }


def fit_fallback(
    rows: TrainingRows,
    *,
    request_features: Sequence[str],
    prices: Prices,
    daily_review_capacity: int,
    seed: int,
) -> Fallback:
    """Fit both on the rows the champion is fitted on, and calibrate on its calibration slice.

    Args:
        rows: What any model of the run may see.
        request_features: Inputs that need no history; those the encoding lacks are passed over.
        prices: What outcomes cost.
        daily_review_capacity: Reviews possible per day.
        seed: LightGBM's.

    Returns:
        The fallback.

    Raises:
        ValueError: If no input can be had without history.
    """
    encoding = rows.encoding
    names = tuple(name for name in encoding.features if name in request_features)
    if not names:
        raise ValueError("no feature comes from the request alone; a fallback needs one")
    own = Encoding(names, {n: v for n, v in encoding.vocabularies.items() if n in names})
    positions = [encoding.features.index(name) for name in names]
    content = fit_trees(
        rows.train.matrix[:, positions],
        rows.train.is_fraud,
        encoding=own,
        parameters=PARAMETERS,
        seed=seed,
    )
    rule = choose_amount_rule(
        rows.train.amounts,
        is_fraud=rows.train.is_fraud,
        days=rows.train.days,
        prices=prices,
        daily_review_capacity=daily_review_capacity,
    )

    later = rows.calibration
    margins = TreeScorer(content).margins(later.matrix[:, positions])
    calibration = fit_calibration(margins, later.is_fraud)
    thresholds = choose_thresholds(
        calibration.apply(margins),
        is_fraud=later.is_fraud,
        amounts=later.amounts,
        days=later.days,
        prices=prices,
        daily_review_capacity=daily_review_capacity,
    )
    spec = FallbackSpec(names, calibration, thresholds, rule)
    return Fallback(content, load_request_model(spec, content, features=encoding.features))
