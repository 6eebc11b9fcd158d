"""One policy's answers become what gate and guards compare: the loop's own, from memory."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.arm_guards import SLICES, ArmFinding, compare_answers, compare_costs
from monitoring.retrain import GateVerdict, compare_scores, read_gate_limits
from monitoring.timelapse_answers import LATENCY_MS, Answers
from monitoring.timelapse_models import TrainedModel, mask_outcomes
from monitoring.timelapse_worlds import DAY
from training.encoding import Booleans, Floats, Integers
from training.operating_point import measure_costs
from training.seen_outcomes import repeat_by_weight


def judge(
    config: FraudConfig,
    answers: Answers,
    *,
    champion: TrainedModel,
    challenger: TrainedModel,
    now: pd.Timestamp,
) -> GateVerdict:
    """Compare two models on the newest matured days, as far as their outcomes were seen.

    The challenger's own split keeps these days, its test period, from it; they are later than
    anything the champion has seen, which was trained earlier.
    """
    until = now - config.data.label_delay_days * DAY
    since = until - config.training.test_days * DAY
    rows = _find_seen(answers, since, until, now=now)
    rows = rows[repeat_by_weight(answers.outcome_shares[rows])]
    features = answers.world.features.iloc[rows]
    return compare_scores(
        answers.world.is_fraud[rows] == 1,
        champion_scores=champion.artefact.predict(features),
        challenger_scores=challenger.artefact.predict(features),
        customer_id=answers.world.transactions["customer_id"].iloc[rows],
        limits=read_gate_limits(config),
        seed=config.seed,
    )


def compare_arms(
    config: FraudConfig,
    answers: Answers,
    *,
    champion: TrainedModel,
    challenger: TrainedModel,
    stage: Literal["shadow", "canary"],
    days: tuple[int, int],
    now: pd.Timestamp,
) -> tuple[ArmFinding, ...]:
    """Hold a challenger against the champion on the served days since its stage began.

    In the shadow both are held on every transaction; in a canary each on its own customers'.
    """
    answered = answers.select(*days)
    others = answered[answered["arm"] == "champion"]
    if stage == "canary":
        own = answered[answered["arm"] == "challenger"]
    else:
        own = _answer(challenger, answers, others)
    columns = [name for name in SLICES if name in answers.world.transactions]
    known = answers.world.transactions[columns]
    findings = compare_answers(
        others.join(known),
        own.join(known),
        slices=tuple(columns),
        max_latency_ratio=config.rollout.max_latency_ratio if stage == "canary" else None,
        max_decline_ratio=config.rollout.max_decline_ratio,
        max_decline_change=config.rollout.max_decline_change,
        min_decline_ratio=config.rollout.min_decline_ratio,
    )
    rows = answered.index.to_numpy()
    cost = _compare_costs(config, answers, champion, challenger, rows=rows, now=now)
    return (*findings, cost)


def compare_with_previous(
    config: FraudConfig,
    answers: Answers,
    *,
    previous: TrainedModel,
    champion: TrainedModel,
    days: tuple[int, int],
    now: pd.Timestamp,
) -> tuple[ArmFinding, ...]:
    """Hold a new champion against what the one before it would have decided."""
    answered = answers.select(*days)
    mine = answered[answered["model_version"] == champion.artefact.version]
    rows = mine.index.to_numpy()
    return (_compare_costs(config, answers, previous, champion, rows=rows, now=now),)


def _answer(model: TrainedModel, answers: Answers, rows: pd.DataFrame) -> pd.DataFrame:
    """Return what a model in the shadow would have said to the same transactions."""
    scores = model.artefact.predict(answers.world.features.loc[rows.index])
    decisions = model.artefact.decide(scores, rows["amount"].to_numpy(np.float64))
    return rows.assign(score=scores, decision=decisions, latency_ms=LATENCY_MS)


def _compare_costs(
    config: FraudConfig,
    answers: Answers,
    champion: TrainedModel,
    challenger: TrainedModel,
    *,
    rows: Integers,
    now: pd.Timestamp,
) -> ArmFinding:
    """Price both models' decisions where the outcome has matured and could be seen."""
    world = answers.world
    times = world.transactions["event_time"].iloc[rows]
    is_matured = (times <= now - config.data.label_delay_days * DAY).to_numpy()
    seen = rows[is_matured]
    seen = seen[_is_seen(answers, seen, now=now)]
    is_fraud, amounts = world.is_fraud[seen] == 1, world.amounts[seen]
    features = world.features.iloc[seen]

    def price(model: TrainedModel) -> Floats:
        if not seen.size:
            return np.zeros(0)
        decisions = model.artefact.decide(model.artefact.predict(features), amounts)
        return measure_costs(decisions, is_fraud=is_fraud, amounts=amounts, prices=answers.prices)

    return compare_costs(
        pd.DataFrame(
            {
                "customer_id": world.transactions["customer_id"].iloc[seen].to_numpy(),
                "is_fraud": is_fraud,
                "champion_cost": price(champion),
                "challenger_cost": price(challenger),
                "weight": 1.0 / answers.outcome_shares[seen],
            }
        ),
        max_increase=config.rollout.max_cost_increase,
        confidence=config.monitoring.gate_confidence,
        min_frauds=config.monitoring.min_matured_frauds,
        seed=config.seed,
    )


def _find_seen(
    answers: Answers, since: pd.Timestamp, until: pd.Timestamp, *, now: pd.Timestamp
) -> Integers:
    """Return the places of a period's transactions whose outcome is known at ``now``."""
    first, last = answers.world.transactions["event_time"].searchsorted([since, until])
    rows: Integers = np.arange(first, last)
    return rows[_is_seen(answers, rows, now=now)]


def _is_seen(answers: Answers, rows: Integers, *, now: pd.Timestamp) -> Booleans:
    known = mask_outcomes(answers.world.truth.iloc[rows], answers.outcome_shares[rows], now=now)
    return np.asarray(known["is_fraud"].notna())
