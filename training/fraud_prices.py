"""The fraud problem's configuration becomes the prices that decisions are judged by.

By itself, since the loop's every tick asks for them, and what judges candidates takes seconds to
import.
"""

from __future__ import annotations

from configs.schema import FraudConfig
from training.operating_point import Prices


def read_prices(config: FraudConfig) -> Prices:
    """Take the prices out of a configuration."""
    costs = config.training.costs
    return Prices(costs.review_fee, costs.false_decline_goodwill)
