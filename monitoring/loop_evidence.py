"""The prediction log and the labels become what the guards of a rollout and of a watch look at.

Rows are taken by ``event_time``, which a replay has too. For costs both models score the features
that were logged; an answer that was degraded is nobody's merit.
"""

from __future__ import annotations

import pandas as pd

from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from monitoring.arm_guards import SLICES, ArmFinding
from monitoring.arm_judging import judge_answers, judge_costs
from monitoring.late_labels import explain_unseen
from serving.prediction_log import SHADOW, get_prediction_folder, load_predictions
from training.artefact import load_artefact
from training.registry import find_artefact
from training.rollout import Rollout


def compare_arms(
    config: FraudConfig, rollout: Rollout, since: pd.Timestamp, now: pd.Timestamp
) -> tuple[ArmFinding, ...]:
    """Hold a challenger in the shadow or in a canary against the champion beside it.

    Args:
        config: The fraud problem's configuration.
        rollout: Whose, and which stage.
        since: When the stage began, UTC.
        now: As of when.

    Returns:
        Findings; see ``monitoring.arm_guards``.
    """
    answers, features = _load_between(config, since, now)
    own = answers[answers["model_version"] == rollout.version]
    others = answers[answers["arm"] == "champion"]
    if rollout.stage == SHADOW:
        own = own[own["arm"] == SHADOW].drop_duplicates("transaction_id")
        others = others[others["transaction_id"].isin(own["transaction_id"])]
        own = own[own["transaction_id"].isin(others["transaction_id"])]
    else:
        own = own[own["arm"] == "challenger"]
    others = others[others["model_version"] != rollout.version]
    findings = judge_answers(config, others, own, stage=rollout.stage)
    versions = others["model_version"].unique()
    if len(versions) != 1:
        return findings
    served = answers[answers["arm"] != SHADOW]
    cost = _compare_seen_costs(config, str(versions[0]), rollout.version, served, features, now)
    return (*findings, cost)


def compare_with_previous(
    config: FraudConfig, previous: str, version: str, since: pd.Timestamp, now: pd.Timestamp
) -> tuple[ArmFinding, ...]:
    """Hold a new champion against what the one before it would have decided.

    Args:
        config: The fraud problem's configuration.
        previous: The version before.
        version: The champion's.
        since: When it was promoted, UTC.
        now: As of when.

    Returns:
        One finding, on realised cost.
    """
    answers, features = _load_between(config, since, now)
    served = answers[(answers["arm"] != SHADOW) & (answers["model_version"] == version)]
    return (_compare_seen_costs(config, previous, version, served, features, now),)


def _load_between(
    config: FraudConfig, since: pd.Timestamp, now: pd.Timestamp
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load sound answers with what is known of their transactions, and their features."""
    predictions, features = load_predictions(get_prediction_folder(config.runs), with_shadow=True)
    is_inside = predictions["event_time"].between(since, now, inclusive="right")
    answers = predictions[is_inside & predictions["degraded_reason"].isna()]
    history = load_transactions(config.runs)
    columns = ["customer_id", *(name for name in SLICES if name in history)]
    known = history.set_index("transaction_id")[columns]
    answers = answers.join(known, on="transaction_id")
    return answers.fillna({"customer_id": answers["transaction_id"]}), features.loc[answers.index]


def _compare_seen_costs(
    config: FraudConfig,
    champion: str,
    challenger: str,
    served: pd.DataFrame,
    features: pd.DataFrame,
    now: pd.Timestamp,
) -> ArmFinding:
    """Compare what both models' decisions cost where the outcome has matured and could be seen.

    Unknown where payments were declined and none let through: what the other model would have done
    with those is missing from its costs.
    """
    labels = load_labels(config.runs)
    arrived = labels[labels["label_time"] <= now].set_index("transaction_id")["is_fraud"]
    is_matured = served["event_time"] <= now - pd.Timedelta(days=config.data.label_delay_days)
    matured = served[is_matured].drop_duplicates("transaction_id")
    is_visible = matured["outcome_share"] > 0
    rows = matured[is_visible & matured["transaction_id"].isin(arrived.index)]
    unseen = explain_unseen(
        num_declined=int((~is_visible).sum()), num_explored=int((rows["outcome_share"] < 1).sum())
    )
    if unseen is not None:
        return ArmFinding("cost", "ok", f"not compared on cost: {unseen}")
    models = tuple(
        load_artefact(find_artefact(config.runs, version), version=version)
        for version in (champion, challenger)
    )
    lacking = {name for model in models for name in model.features} - set(features)
    if lacking:
        reason = f"not compared on cost: the log has no {', '.join(sorted(lacking))}"
        return ArmFinding("cost", "ok", reason)
    rows = rows.assign(is_fraud=rows["transaction_id"].map(arrived))
    return judge_costs(config, *models, rows=rows, features=features.loc[rows.index])
