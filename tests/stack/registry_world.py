"""A registry of small models, each with an artefact that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from training.artefact import save_artefact
from training.calibration import IDENTITY
from training.encoding import Encoding
from training.linear import fit_linear
from training.model_spec import ModelSpec
from training.operating_point import Thresholds
from training.registration import RunRecord, log_run, register

ENCODING = Encoding(("amount", "card_type"), {"card_type": ("credit", "debit")})
RECORD = RunRecord(
    name="logistic_regression",
    parameters={"l2_penalty": 1.0, "data_hash": "0" * 64},
    metrics={"average_precision": 0.6},
    curves={"valid_loss": (0.3, 0.2, 0.25)},
    pictures={"cost": "<svg/>"},
    documents={"features": {"features": ["amount", "card_type"]}},
    tags={"kind": "logistic_regression"},
)
FEATURES = pd.DataFrame({"amount": [5.0, 80.0, None], "card_type": ["debit", "gift", None]})


def save_small_artefact(folder: Path) -> None:
    """Fit a logistic regression on four rows and write its artefact."""
    matrix = np.array([[1.0, 0.0], [9.0, 1.0], [40.0, 0.0], [90.0, 1.0]])
    save_artefact(
        folder,
        spec=ModelSpec(
            kind="logistic_regression",
            encoding=ENCODING,
            calibration=IDENTITY,
            thresholds=Thresholds(review=0.3, decline=0.7, min_review_amount=3.0),
            request_features=ENCODING.features,
            train_start_time="2026-01-01T00:00:00+00:00",
            train_end_time="2026-02-01T00:00:00+00:00",
            data_hash="0" * 64,
            metrics={},
            parameters={},
        ),
        content=fit_linear(matrix, matrix[:, 0] > 30, encoding=ENCODING),
        golden_features=FEATURES,
        reference_features=FEATURES.assign(event_time=pd.Timestamp("2026-01-01", tz="UTC")),
    )


def add_version(runs: Path, artefact: Path) -> str:
    """Register the artefact once more; return its version."""
    return register(runs, log_run(runs, RECORD, artefact=artefact, encoding=ENCODING))
