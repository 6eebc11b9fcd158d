"""One policy's answers become what gate and guards compare: the loop's own, from memory."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.arm_guards import SLICES, ArmFinding
from monitoring.arm_judging import judge_answers, judge_costs
from monitoring.retrain import GateVerdict, compare_scores, read_gate_limits
from monitoring.timelapse_answers import LATENCY_MS, Answers
from monitoring.timelapse_models import TrainedModel, mask_outcomes
from monitoring.timelapse_worlds import DAY
from training.encoding import Booleans, Integers
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
    transactions = answers.world.transactions
    known = transactions[[name for name in SLICES if name in transactions]]
    findings = judge_answers(config, others.join(known), own.join(known), stage=stage)
    rows = answered.index.to_numpy()
    cost = _compare_seen_costs(config, answers, champion, challenger, rows=rows, now=now)
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
    return (_compare_seen_costs(config, answers, previous, champion, rows=rows, now=now),)


def _answer(model: TrainedModel, answers: Answers, rows: pd.DataFrame) -> pd.DataFrame:
    """Return what a model in the shadow would have said to the same transactions."""
    scores = model.artefact.predict(answers.world.features.loc[rows.index])
    decisions = model.artefact.decide(scores, rows["amount"].to_numpy(np.float64))
    return rows.assign(score=scores, decision=decisions, latency_ms=LATENCY_MS)


def _compare_seen_costs(
    config: FraudConfig,
    answers: Answers,
    champion: TrainedModel,
    challenger: TrainedModel,
    *,
    rows: Integers,
    now: pd.Timestamp,
) -> ArmFinding:
    """Compare what both models' decisions cost where the outcome has matured and could be seen."""
    world = answers.world
    times = world.transactions["event_time"].iloc[rows]
    is_matured = (times <= now - config.data.label_delay_days * DAY).to_numpy()
    seen = rows[is_matured]
    seen = seen[_is_seen(answers, seen, now=now)]
    known = pd.DataFrame(
        {
            "customer_id": world.transactions["customer_id"].iloc[seen].to_numpy(),
            "amount": world.amounts[seen],
            "is_fraud": world.is_fraud[seen] == 1,
            "outcome_share": answers.outcome_shares[seen],
        }
    )
    models = champion.artefact, challenger.artefact
    return judge_costs(config, *models, rows=known, features=world.features.iloc[seen])


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
