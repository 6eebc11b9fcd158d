"""What the prediction log says of a probe's two payments decides whether the first was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.fraud_selection import FeatureSet
from serving.pipeline_probe import Sighting, count_unseen
from serving.prediction_log import PredictionLog, ScoredBatch

FEATURES = FeatureSet(names=("customer_tx_count_1h",), categorical=(), dropped={})
SEEN = Sighting("first", "second", seconds=0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "predictions"


def write_second(folder: Path, *, count: float, degraded_reason: str | None = None) -> None:
    """Log that the second payment was scored with so many payments in the hour before."""
    log = PredictionLog(folder, feature_set=FEATURES, flush_seconds=60.0, max_pending=10)
    log.append(
        ScoredBatch(
            prediction_time_us=1_772_366_400_000_000,
            model_version="1",
            arm="champion",
            transaction_ids=["second"],
            event_times_us=np.array([1_772_366_400_000_000]),
            amounts=np.array([10.0]),
            features=np.array([[count]]),
            categories=[],
            scores=np.array([0.5]),
            decisions=["approve"],
            degraded_reasons=[degraded_reason],
            latency_ms=np.array([1.0]),
        )
    )
    log.close()


def test_a_second_payment_that_was_scored_with_the_first_is_a_sight(folder):
    write_second(folder, count=1.0)
    assert count_unseen([SEEN], folder) == 0


def test_a_second_payment_that_was_scored_without_the_first_counts(folder):
    write_second(folder, count=0.0)
    assert count_unseen([SEEN], folder) == 1


def test_an_answer_that_says_it_lacks_its_history_tells_nothing(folder):
    write_second(folder, count=0.0, degraded_reason="online store unavailable")
    assert count_unseen([SEEN], folder) == 0


def test_a_payment_that_never_reached_the_store_counts(folder):
    write_second(folder, count=1.0)
    assert count_unseen([SEEN, Sighting("third", None, seconds=None)], folder) == 1


def test_a_second_payment_without_an_answer_tells_nothing(folder):
    write_second(folder, count=1.0)
    assert count_unseen([Sighting("third", None, seconds=0.2)], folder) == 0
