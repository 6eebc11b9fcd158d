"""Unchanged worlds become the share of monitoring reports that raise a false alarm.

Each world is simulated, a champion trained, and every following week judged as if it had just been
served: the real verdicts of ``monitoring.fraud_weighing``, on worlds in which nothing happens. An
alarm there is false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from configs.benchmark import Target, build_benchmark
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions, run_data
from features.store import open_feature_store, read_training_features
from features.store_build import run_features
from monitoring.fraud_evidence import Evidence, Material, Window
from monitoring.fraud_weighing import weigh_evidence
from training.artefact import Artefact, load_artefact, load_reference
from training.registry import get_champion

Train = Callable[..., dict[str, Any]]
DAY = pd.Timedelta(days=1)
WEEK = 7 * DAY
SERVED_FROM_DAY = 91
"""As of when the champion is trained: the first day on which every slice of the split is full."""


def measure_false_alarms(
    config: FraudConfig, *, train: Train, seeds: Sequence[int], num_weeks: int
) -> dict[str, Any]:
    """Judge the weeks of unchanged worlds, and count the alarms.

    Args:
        config: Limits, prices and the size of the worlds; ``data.changes`` are left out, and of
            what would be declined ``serving.explore_share`` is let through, all of it if that is 0.
        train: ``train(config, now=)`` registers a champion.
        seeds: One world each.
        num_weeks: Reports per world.

    Returns:
        A benchmark's result: a row for each trigger and for the data-quality gate, with ``reports``
        (those in which there was enough to tell), ``alarms``, ``rate`` and its 95 % interval; and
        the stated rate of the drift alarm as the target.
    """
    found: list[Evidence] = []
    with show_progress("Judging unchanged worlds", total=len(seeds)) as advance:
        for seed in seeds:
            with TemporaryDirectory(prefix="throughline-alarms-") as folder:
                world = _describe_world(config, seed, Path(folder), num_weeks=num_weeks)
                found += judge_weeks(world, train=train, num_weeks=num_weeks)
            advance(1)
    rows = [_count_alarms(name, flags) for name, flags in _list_alarms(found)]
    drift = next(row for row in rows if row["name"] == "drift")
    stated = 3 * config.monitoring.false_alarm_rate
    return build_benchmark(rows, [Target("drift_alarm_rate", drift["rate"], stated, "at_most")])


def judge_weeks(config: FraudConfig, *, train: Train, num_weeks: int) -> Iterator[Evidence]:
    """Make a world, train its champion, and judge each of the weeks that follow.

    Args:
        config: ``runs`` is a folder without a world.
        train: As for ``measure_false_alarms``.
        num_weeks: How many.

    Yields:
        What was found at the end of each week.
    """
    run_data(config, world="simulated", transactions=None, mapping=None)
    run_features(config)
    served_time = pd.Timestamp(config.data.start_time) + SERVED_FROM_DAY * DAY
    train(config, now=served_time)
    material = answer_all(config, since=served_time)
    for week in range(1, num_weeks + 1):
        now = served_time + week * WEEK
        since = now - config.monitoring.window_days * DAY
        yield weigh_evidence(config, material, Window(now, since, now, is_chosen=False))


def answer_all(config: FraudConfig, *, since: pd.Timestamp) -> Material:
    """Let the champion answer every transaction from an instant on, as the service would."""
    version, folder = get_champion(config.runs)
    champion = load_artefact(folder, version=version)
    history, labels = load_transactions(config.runs), load_labels(config.runs)
    served = history[history["event_time"] >= since].reset_index(drop=True)
    features = read_training_features(open_feature_store(config.runs), served)
    return Material(
        champion=champion,
        reference=load_reference(folder),
        predictions=_answer(champion, served, features, config),
        features=features[list(champion.features)],
        history=history,
        labels=labels,
    )


def _answer(
    champion: Artefact, served: pd.DataFrame, features: pd.DataFrame, config: FraudConfig
) -> pd.DataFrame:
    scores, amounts = champion.predict(features), served["amount"].to_numpy(dtype=np.float64)
    decisions = champion.decide(scores, amounts)
    share = config.serving.explore_share or 1.0
    is_declined = decisions == "decline"
    is_let_through = np.random.default_rng(config.seed).random(len(served)) < share
    return pd.DataFrame(
        {
            "transaction_id": served["transaction_id"],
            "event_time": served["event_time"],
            "amount": amounts,
            "model_version": champion.version,
            "score": scores,
            "decision": np.where(is_declined & is_let_through & (share < 1), "review", decisions),
            "outcome_share": np.where(is_declined, np.where(is_let_through, share, 0.0), 1.0),
            "degraded_reason": None,
        }
    )


def _describe_world(config: FraudConfig, seed: int, runs: Path, *, num_weeks: int) -> FraudConfig:
    size = config.world_size.model_copy(update={"num_days": SERVED_FROM_DAY + 7 * num_weeks})
    sizes = {**config.data.sizes, config.data.size: size}
    data = config.data.model_copy(update={"changes": (), "sizes": sizes})
    return config.model_copy(update={"data": data, "seed": seed, "runs": runs / "runs"})


def _list_alarms(found: Sequence[Evidence]) -> Iterator[tuple[str, list[bool]]]:
    """Yield the name of each kind of alarm and what every report said that could tell."""
    for trigger in ("drift", "matured", "estimated"):
        alarms = (evidence.alarms[trigger] for evidence in found)
        yield trigger, [alarm.is_on for alarm in alarms if alarm.is_on is not None]
    yield "features or scores", [evidence.drift.is_detected for evidence in found]
    rates = [evidence.base_rate for evidence in found]
    yield "share of frauds", [rate.is_changed for rate in rates if rate.share is not None]
    yield "data quality", [bool(evidence.blocking) for evidence in found]


def _count_alarms(name: str, flags: Sequence[bool]) -> dict[str, Any]:
    low, high = find_wilson_interval(sum(flags), len(flags))
    return {
        "name": name,
        "reports": len(flags),
        "alarms": sum(flags),
        "rate": sum(flags) / len(flags) if flags else None,
        "rate_low": low,
        "rate_high": high,
    }


def find_wilson_interval(num_hits: int, num_trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share; all of [0, 1] without a trial.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    >>> [round(bound, 3) for bound in find_wilson_interval(0, 100)]
    [0.0, 0.037]
    """
    if num_trials == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.975))
    share = num_hits / num_trials
    centre = share + z**2 / (2 * num_trials)
    spread = z * np.sqrt(share * (1 - share) / num_trials + z**2 / (4 * num_trials**2))
    scale = 1 + z**2 / num_trials
    return max(float((centre - spread) / scale), 0.0), float((centre + spread) / scale)
