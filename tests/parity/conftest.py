"""A small random world in which everything that can be missing is sometimes missing."""

import numpy as np
import pandas as pd
import pytest

from features.fraud_history import to_times
from features.store_build import build_feature_store
from features.windows import DAY, SECOND


def make_world(*, num_transactions, num_days, seed):
    """Draw transactions with ties, bursts and gaps, and labels that come late or never."""
    rng = np.random.default_rng(seed)
    num = num_transactions
    bursts = rng.integers(0, num_days * DAY // SECOND, num // 4)
    times = np.sort(rng.choice(bursts, num) + rng.integers(0, 3, num)) * SECOND

    def ids(prefix, count, missing=0.0):
        drawn = [f"{prefix}{code}" for code in rng.integers(0, count, num)]
        return [None if rng.random() < missing else name for name in drawn]

    transactions = pd.DataFrame(
        {
            "transaction_id": [f"t{position}" for position in range(num)],
            "event_time": to_times(times),
            "customer_id": ids("c", 20),
            "card_type": ids("card", 3),
            "merchant_id": ids("m", 15, missing=0.05),
            "merchant_category": ids("k", 4, missing=0.05),
            "amount": rng.gamma(2, 30, num).round(2),
            "ip": ids("ip", 12, missing=0.05),
            "device_id": ids("d", 25, missing=0.05),
            "latitude": np.where(rng.random(num) < 0.05, np.nan, rng.uniform(-90, 90, num)),
            "longitude": rng.uniform(-180, 180, num),
        }
    )
    delays = pd.to_timedelta((rng.uniform(0, 7, num) * DAY).astype(np.int64), unit="us")
    labels = pd.DataFrame(
        {
            "transaction_id": transactions["transaction_id"],
            "is_fraud": rng.random(num) < 0.1,
            "label_time": transactions["event_time"] + delays,
        }
    )
    return transactions, labels[rng.random(num) < 0.9].reset_index(drop=True)


@pytest.fixture(scope="session")
def world():
    """3,000 transactions over 60 days."""
    return make_world(num_transactions=3000, num_days=60, seed=1)


@pytest.fixture(scope="session")
def store(world, tmp_path_factory):
    """A feature store of that world, its online half as of the end."""
    transactions, labels = world
    end = transactions["event_time"].iloc[-1] + pd.Timedelta(microseconds=1)
    return build_feature_store(tmp_path_factory.mktemp("runs"), transactions, labels, as_of=end)
