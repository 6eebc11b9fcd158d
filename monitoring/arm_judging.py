"""Two arms' rows, from the log's files or from memory, become findings by a configuration's limits.

For costs both models score the same features and are priced by their own decisions, so that they
are held against each other on the same transactions, whoever of them answered.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.arm_guards import SLICES, ArmFinding, compare_answers, compare_costs
from training.artefact import Artefact
from training.encoding import Floats
from training.fraud_prices import read_prices
from training.operating_point import Prices, measure_costs


def judge_answers(
    config: FraudConfig,
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    *,
    stage: Literal["shadow", "canary"],
) -> tuple[ArmFinding, ...]:
    """Compare what two arms said, by ``rollout``'s limits.

    Args:
        config: The fraud problem's configuration.
        champion: See ``monitoring.arm_guards.compare_answers``; with those of ``SLICES`` that the
            transactions have.
        challenger: The same columns.
        stage: Of the challenger; a shadow's latency keeps nobody waiting and is not compared.

    Returns:
        Findings; see ``monitoring.arm_guards``.
    """
    limits = config.rollout
    return compare_answers(
        champion,
        challenger,
        slices=tuple(name for name in SLICES if name in champion),
        max_latency_ratio=None if stage == "shadow" else limits.max_latency_ratio,
        max_decline_ratio=limits.max_decline_ratio,
        max_decline_change=limits.max_decline_change,
        min_decline_ratio=limits.min_decline_ratio,
    )


def judge_costs(
    config: FraudConfig,
    champion: Artefact,
    challenger: Artefact,
    *,
    rows: pd.DataFrame,
    features: pd.DataFrame,
) -> ArmFinding:
    """Price both models' decisions and compare, by ``rollout``'s limits.

    Args:
        config: The fraud problem's configuration.
        champion: What serves, or served before.
        challenger: What is held against it.
        rows: ``customer_id``, ``amount``, ``is_fraud`` and ``outcome_share`` (the chance with which
            the outcome was seen, above 0) of transactions whose outcome has matured and was seen.
        features: Both models' features of the same rows, in the same order.

    Returns:
        One finding, on realised cost.
    """
    prices = read_prices(config)
    champion_cost, challenger_cost = (
        price_decisions(
            model, rows, model.predict(features) if len(rows) else np.empty(0), prices=prices
        )
        for model in (champion, challenger)
    )
    return compare_costs(
        pd.DataFrame(
            {
                "customer_id": rows["customer_id"].to_numpy(),
                "is_fraud": rows["is_fraud"].to_numpy(dtype=bool),
                "champion_cost": champion_cost,
                "challenger_cost": challenger_cost,
                "weight": 1.0 / rows["outcome_share"].to_numpy(np.float64),
            }
        ),
        max_increase=config.rollout.max_cost_increase,
        confidence=config.monitoring.gate_confidence,
        min_frauds=config.monitoring.min_matured_frauds,
        seed=config.seed,
    )


def price_decisions(
    model: Artefact, rows: pd.DataFrame, scores: Floats, *, prices: Prices
) -> Floats:
    """Price what a model decides by its scores, account currency.

    Args:
        model: Whose thresholds decide.
        rows: ``amount`` and ``is_fraud``.
        scores: The model's, one per row.
        prices: What outcomes cost.

    Returns:
        One cost per row, in the same order.
    """
    amounts = rows["amount"].to_numpy(np.float64)
    return measure_costs(
        model.decide(scores, amounts),
        is_fraud=rows["is_fraud"].to_numpy(dtype=bool),
        amounts=amounts,
        prices=prices,
    )
