"""What the processes of ``throughline bench serving`` are told, by environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from configs.schema import FraudConfig, load_fraud_config

CONFIG_VARIABLE = "THROUGHLINE_CONFIG"
"""Where the configuration is, as for our own service."""
BATCH_VARIABLE = "THROUGHLINE_PEER_BATCH_ROWS"
"""At most so many transactions of a tick are scored together."""
FAST_READER_VARIABLE = "THROUGHLINE_PEER_FAST_READER"
"""If set, the textbook reads the store in one round trip, without Feast's SDK."""
ANSWER_VARIABLE = "THROUGHLINE_PEER_ANSWER"
"""What the service that does nothing answers."""


def read_peer_config() -> FraudConfig:
    """Read the configuration that the environment names."""
    return load_fraud_config(Path(os.environ[CONFIG_VARIABLE]))
