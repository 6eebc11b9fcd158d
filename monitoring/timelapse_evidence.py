"""Answers and a world become the evidence of one tick: by the monitor's own measures, from memory.

What depends on a model and some days alone (the feed's quality, drift) is measured once and shared
by the policies; what depends on a policy's declines (outcomes) is measured for each. Only what a
policy asks for is measured at all.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.data_quality import Finding, QualityLimits, check_quality
from monitoring.drift import DriftLimits, measure_drift
from monitoring.late_labels import join_outcomes, measure_performance
from monitoring.retrain import GateLimits, GateVerdict, compare_scores
from monitoring.retraining_policy import Alarm, Observation, Trigger
from monitoring.timelapse_answers import Answers
from monitoring.timelapse_models import TrainedModel, repeat_by_weight
from monitoring.timelapse_worlds import DAY, World


class Evidence:
    """What a world's policies are told at their ticks.

    Args:
        config: Of the world.
        world: The history.
    """

    def __init__(self, config: FraudConfig, world: World) -> None:
        self._config = config
        self._world = world
        self._findings: dict[tuple[str, int, int], tuple[Finding, ...]] = {}
        self._drift: dict[tuple[str, int, int], Alarm] = {}

    def observe(
        self,
        answers: Answers,
        champion: TrainedModel,
        *,
        now: pd.Timestamp,
        since_day: int,
        triggers: Collection[Trigger],
        looks_at_feed: bool,
    ) -> Observation:
        """Look as of a midnight.

        Args:
            answers: Of the policy.
            champion: What serves.
            now: As of when, UTC.
            since_day: Served day from which the champion has answered.
            triggers: What the policy listens to; nothing else is measured.
            looks_at_feed: Whether it asks if the feed is sound.
        """
        day = (now - self._world.first_time) // DAY
        first = max(day - self._config.monitoring.window_days, since_day, 0)
        blocking: tuple[str, ...] = ()
        if looks_at_feed:
            findings = self._check_feed(champion, first, day)
            blocking = tuple(item.message for item in findings if item.severity == "block")
        alarms: dict[Trigger, Alarm] = {}
        if "drift" in triggers:
            alarms["drift"] = self._measure_drift(champion, first, day)
        if "matured" in triggers:
            alarms["matured"] = self._measure_performance(answers, champion, now, since_day)
        return Observation(
            now=now,
            champion=champion.artefact.version,
            champion_trained_time=champion.split.now,
            blocking=blocking,
            alarms=alarms,
            num_new_frauds=self._count_new_frauds(answers, champion, now),
        )

    def judge(
        self,
        answers: Answers,
        *,
        champion: TrainedModel,
        challenger: TrainedModel,
        now: pd.Timestamp,
    ) -> GateVerdict:
        """Compare two models on the newest matured days, as far as their outcomes were seen."""
        config, world = self._config, self._world
        until = now - config.data.label_delay_days * DAY
        since = until - config.training.test_days * DAY
        times = world.transactions["event_time"]
        first, last = times.searchsorted([since, until])
        places = np.arange(first, last)
        known = (world.truth["label_time"].iloc[first:last] <= now).to_numpy()
        places = places[known & (answers.outcome_shares[first:last] > 0)]
        places = places[repeat_by_weight(answers.outcome_shares[places])]
        features = world.features.iloc[places]
        return compare_scores(
            world.is_fraud[places] == 1,
            champion_scores=champion.artefact.predict(features),
            challenger_scores=challenger.artefact.predict(features),
            customer_id=world.transactions["customer_id"].iloc[places],
            limits=GateLimits(
                confidence=config.monitoring.gate_confidence,
                min_frauds=config.monitoring.min_matured_frauds,
                max_brier_increase=config.monitoring.max_brier_increase,
            ),
            seed=config.seed,
        )

    def _check_feed(self, model: TrainedModel, first: int, last: int) -> tuple[Finding, ...]:
        key = (model.key, first, last)
        if key not in self._findings:
            limits, world = self._config.monitoring, self._world
            rows = slice(*(int(place) for place in world.day_starts[[first, last]]))
            names = model.artefact.features
            predictions = world.transactions[["transaction_id", "event_time"]].iloc[rows]
            self._findings[key] = check_quality(
                world.features[list(names)].iloc[rows],
                predictions=predictions.assign(degraded_reason=None),
                reference=model.reference,
                names=names,
                categorical=tuple(model.artefact.spec.encoding.vocabularies),
                until=world.get_time(last),
                limits=QualityLimits(
                    max_null_share_increase=limits.max_null_share_increase,
                    max_unit_ratio=limits.max_unit_ratio,
                    max_duplicate_share=limits.max_duplicate_share,
                    max_degraded_share=limits.max_degraded_share,
                ),
                expected_rows_per_day=None,
            )
        return self._findings[key]

    def _measure_drift(self, model: TrainedModel, first: int, last: int) -> Alarm:
        """Measure drift every few days; in between, what was measured last still stands."""
        last -= last % self._config.timelapse.drift_every_days
        if last <= first:
            return Alarm(None, "drift: nothing served yet")
        key = (model.key, first, last)
        if key not in self._drift:
            limits, world = self._config.monitoring, self._world
            rows = slice(*(int(place) for place in world.day_starts[[first, last]]))
            names = list(model.artefact.features)
            verdict = measure_drift(
                world.features[["event_time", *names]]
                .iloc[rows]
                .assign(score=model.score_days(first, last)),
                reference=model.reference,
                categorical=tuple(model.artefact.spec.encoding.vocabularies),
                limits=DriftLimits(
                    min_rows=limits.min_rows,
                    max_rows=limits.max_rows,
                    num_reference_windows=limits.num_reference_windows,
                    false_alarm_rate=limits.false_alarm_rate,
                    min_drifted_features=limits.min_drifted_features,
                ),
                seed=self._config.seed,
            )
            self._drift[key] = Alarm(verdict.is_detected, verdict.reason)
        return self._drift[key]

    def _measure_performance(
        self, answers: Answers, model: TrainedModel, now: pd.Timestamp, since_day: int
    ) -> Alarm:
        """Hold matured answers of the champion against what its own test period promised."""
        config, day = self._config, (now - self._world.first_time) // DAY
        last = day - config.data.label_delay_days
        first = max(last - config.monitoring.window_days, since_day, 0)
        if last <= first:
            return Alarm(None, "performance unknown: no answer of this champion has matured")
        answered = answers.select(first, last)
        answered = answered[answered["outcome_share"] > 0]
        outcomes = join_outcomes(
            answered,
            labels=self._world.labels,
            now=now,
            label_delay_days=config.data.label_delay_days,
        )
        found = measure_performance(
            outcomes.iloc[repeat_by_weight(outcomes["outcome_share"].to_numpy())],
            expected_average_precision=float(model.artefact.spec.metrics["average_precision"]),
            max_drop=config.monitoring.max_matured_average_precision_drop,
            min_frauds=config.monitoring.min_matured_frauds,
            num_resamples=config.training.num_bootstrap,
            seed=config.seed,
        )
        return Alarm(None if found.average_precision is None else found.is_degraded, found.reason)

    def _count_new_frauds(self, answers: Answers, model: TrainedModel, now: pd.Timestamp) -> int:
        """Count frauds seen to have happened since the last day the champion was made from."""
        world, split = self._world, model.split
        until = now - self._config.data.label_delay_days * DAY
        times = world.transactions["event_time"]
        first, last = times.searchsorted([split.calibration.end_time, until])
        part = slice(first, max(first, last))
        is_seen = (answers.outcome_shares[part] > 0) & (
            world.truth["label_time"].iloc[part] <= now
        ).to_numpy()
        return int((world.is_fraud[part][is_seen] == 1).sum())
