"""The prediction log and the labels become the evidence of one instant.

In order: is the feed sound, did the world move, how did matured answers turn out, how are today's
expected to. All of it is held against the champion's own artefact, as of one instant ``now``:
nothing that happened or became known later is looked at, and nothing is acted upon.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from configs.schema import FraudConfig
from features.fraud_history import to_microseconds
from monitoring.base_rate import check_base_rate
from monitoring.data_quality import Finding, QualityLimits, check_quality
from monitoring.drift import measure_drift
from monitoring.drift_verdict import DriftLimits, DriftVerdict
from monitoring.estimated_performance import Estimate, estimate_performance, measure_gap
from monitoring.feature_importance import measure_importance
from monitoring.fraud_evidence import Evidence, Material, Window
from monitoring.late_labels import (
    PerformanceLimits,
    join_outcomes,
    measure_performance,
    select_known,
)
from monitoring.partition_quality import check_partitions
from monitoring.reference_windows import plan_windows
from training.artefact import Artefact
from training.fraud_prices import read_prices
from training.operating_point import Prices


def weigh_evidence(
    config: FraudConfig,
    material: Material,
    window: Window,
    *,
    report: Path | None = None,
    checks_feed: bool = True,
) -> Evidence:
    """Look at everything there is to see at ``window.now``.

    Args:
        config: The fraud problem's configuration.
        material: What is known.
        window: Which answers are looked at. The labels' reach back over as many days that have
            matured, unless a person chose the window.
        report: Where Evidently's page goes; ``None`` for none.
        checks_feed: ``False`` finds nothing wrong with the feed, and takes less time.

    Returns:
        The evidence. Answers that were degraded are part of the feed's and not of the model's.
    """
    served = window.select(material.predictions)
    own = material.select_own(served)
    sound = own[own["degraded_reason"].isna()]
    outcomes = _find_outcomes(config, material, window)
    past = _label_history(config, material, now=window.now)
    known = select_known(outcomes)
    limits, champion = config.monitoring, material.champion
    prices = read_prices(config)
    frauds = past["event_time"][past["is_fraud"].to_numpy(dtype=bool)]
    made_until = _find_made_until(config, champion)
    delay = pd.Timedelta(days=config.data.label_delay_days)
    findings: tuple[Finding, ...] = ()
    if checks_feed:
        findings = _check_feed(config, material, window, own) if len(own) else _tell_silence(served)
    return Evidence(
        window=window,
        champion=champion,
        num_rows=len(own),
        num_rows_of_others=len(served) - len(own),
        num_truncated=material.predictions.attrs.get("num_truncated", 0),
        findings=findings,
        drift=_measure_drift(config, material, sound, report=report),
        base_rate=check_base_rate(
            known[known["is_fraud"].notna()],
            history=past[past["event_time"] <= material.reference["event_time"].max()],
            min_frauds=limits.min_matured_frauds,
            false_alarm_rate=limits.false_alarm_rate,
        ),
        performance=measure_performance(
            outcomes,
            expected=champion.spec.metrics,
            prices=prices,
            limits=PerformanceLimits(
                max_average_precision_drop=limits.max_matured_average_precision_drop,
                max_cost_increase=limits.max_matured_cost_increase,
                min_frauds=limits.min_matured_frauds,
                false_alarm_rate=limits.false_alarm_rate,
            ),
            num_resamples=config.training.num_bootstrap,
            seed=config.seed,
        ),
        estimate=_estimate(config, material, sound, prices),
        gap=measure_gap(
            known,
            max_drop=limits.max_matured_average_precision_drop,
            min_frauds=limits.min_matured_frauds,
            false_alarm_rate=limits.false_alarm_rate,
            num_resamples=config.training.num_bootstrap,
            seed=config.seed,
        ),
        champion_trained_time=made_until + 2 * delay + pd.Timedelta(days=config.training.test_days),
        num_new_frauds=int((frauds >= made_until).sum()),
    )


def _tell_silence(served: pd.DataFrame) -> tuple[Finding, ...]:
    """Block if nobody answered; a champion that has just taken over has no answers to be judged."""
    if len(served):
        return ()
    return (Finding("volume", "", "block", 0.0, 1.0, "nothing was answered in the whole window"),)


def _find_made_until(config: FraudConfig, champion: Artefact) -> pd.Timestamp:
    """Return the end of the days the champion was fitted or calibrated on."""
    end = pd.Timestamp(champion.spec.train_end_time)
    return end + pd.Timedelta(days=config.training.calibration_days)


def _name_customers(rows: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Add ``customer_id``; a transaction that the history lacks is a customer of its own."""
    customers = history.set_index("transaction_id")["customer_id"]
    named = rows["transaction_id"].map(customers).fillna(rows["transaction_id"])
    return rows.assign(customer_id=named)


def _find_outcomes(config: FraudConfig, material: Material, window: Window) -> pd.DataFrame:
    """Join the champion's answers with their outcomes, as far back as there is to judge."""
    delay = pd.Timedelta(days=config.data.label_delay_days)
    earliest = window.now - delay - pd.Timedelta(days=config.monitoring.window_days)
    since = window.since if window.is_chosen else min(window.since, earliest)
    asked = Window(window.now, since, window.until, is_chosen=True)
    answers = material.select_own(asked.select(material.predictions))
    outcomes = join_outcomes(
        answers[answers["degraded_reason"].isna()],
        labels=material.labels,
        now=window.now,
        label_delay_days=config.data.label_delay_days,
    )
    return _name_customers(outcomes, material.history)


def _label_history(config: FraudConfig, material: Material, *, now: pd.Timestamp) -> pd.DataFrame:
    """Return the labelled, matured transactions since the champion's first training day."""
    start = pd.Timestamp(material.champion.spec.train_start_time)
    end = now - pd.Timedelta(days=config.data.label_delay_days)
    is_matured = material.history["event_time"].between(start, end)
    rows = material.history.loc[is_matured, ["transaction_id", "customer_id", "event_time"]]
    answered = material.predictions[["transaction_id", "outcome_share"]]
    answered = answered.drop_duplicates("transaction_id").set_index("transaction_id")
    shares = rows["transaction_id"].map(answered["outcome_share"]).fillna(1.0)
    outcomes = join_outcomes(
        rows.assign(outcome_share=shares),
        labels=material.labels,
        now=now,
        label_delay_days=config.data.label_delay_days,
    )
    return outcomes[outcomes["is_fraud"].notna()]


def _check_feed(
    config: FraudConfig, material: Material, window: Window, own: pd.DataFrame
) -> tuple[Finding, ...]:
    """Gate the window and its days; the usual volume is that of the reference's days."""
    times = material.reference["event_time"]
    first, last = times.min(), times.max()
    days = max((last - first) / pd.Timedelta(days=1), 1.0)
    limits = QualityLimits(
        max_null_share_increase=config.monitoring.max_null_share_increase,
        max_unit_ratio=config.monitoring.max_unit_ratio,
        max_duplicate_share=config.monitoring.max_duplicate_share,
        max_degraded_share=config.monitoring.max_degraded_share,
    )
    champion, features = material.champion, material.features.loc[own.index]
    expected = float(material.history["event_time"].between(first, last).sum() / days)
    categorical = tuple(champion.spec.encoding.vocabularies)
    whole = check_quality(
        features,
        predictions=own,
        reference=material.reference,
        names=champion.features,
        categorical=categorical,
        until=window.until,
        limits=limits,
        expected_rows_per_day=expected,
    )
    found = {(finding.check, finding.column) for finding in whole if finding.severity == "block"}
    partitions = check_partitions(
        features,
        event_times=own["event_time"],
        since=max(window.since, own["event_time"].min()),
        until=min(window.until, own["event_time"].max().ceil("D")),
        reference=material.reference,
        names=champion.features,
        categorical=categorical,
        limits=limits,
        expected_rows_per_day=expected,
    )
    further = [item for item in partitions if (item.check, item.column) not in found]
    return tuple(sorted([*whole, *further], key=lambda finding: finding.severity))


def _measure_drift(
    config: FraudConfig, material: Material, sound: pd.DataFrame, *, report: Path | None
) -> DriftVerdict:
    """Measure drift of the score, and of the champion's features the log has, on sound answers."""
    champion, limits = material.champion, config.monitoring
    features = material.features.loc[sound.index]
    names = [name for name in champion.features if name in features]
    is_enough = len(sound) >= limits.min_rows
    return measure_drift(
        features[names].assign(event_time=sound["event_time"], score=sound["score"]),
        reference=material.reference,
        categorical=tuple(champion.spec.encoding.vocabularies),
        importance=measure_importance(champion, material.reference) if is_enough else {},
        limits=DriftLimits(
            min_rows=limits.min_rows,
            max_rows=limits.max_rows,
            num_reference_windows=limits.num_reference_windows,
            false_alarm_rate=limits.false_alarm_rate,
            min_drifted_importance=limits.min_drifted_importance,
        ),
        seed=config.seed,
        report=report,
    )


def _estimate(
    config: FraudConfig, material: Material, sound: pd.DataFrame, prices: Prices
) -> Estimate:
    """Estimate the performance of the window's sound answers, those that are declined included."""
    limits, reference = config.monitoring, material.reference
    times = to_microseconds(sound["event_time"])
    plan = plan_windows(
        to_microseconds(reference["event_time"]),
        start_time=int(times.min()) if times.size else 0,
        end_time=int(times.max()) if times.size else 0,
        num_windows=limits.num_reference_windows,
        max_rows=limits.max_rows,
        seed=config.seed,
    )
    return estimate_performance(
        _name_customers(sound.drop_duplicates("transaction_id"), material.history),
        reference_scores=reference["score"].to_numpy(dtype="float64"),
        plan=plan,
        prices=prices,
        max_drop=limits.max_matured_average_precision_drop,
        min_frauds=limits.min_matured_frauds,
        false_alarm_rate=limits.false_alarm_rate,
        num_resamples=config.training.num_bootstrap,
        seed=config.seed,
    )
