"""Served features and history's features become one number: how far what was served is from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from features.store import FraudFeatureStore, read_training_features
from serving.prediction_log import get_prediction_folder, load_predictions

MAX_DIFFERENCE = 1e-9


def measure_parity(
    runs: Path, store: FraudFeatureStore, history: pd.DataFrame
) -> dict[str, float | int]:
    """Compare the features that were served with those that history gives, transaction by one.

    Returns:
        ``rows``, ``features``, ``max_abs_difference`` over both, and ``missing_mismatches``: how
        often a value was missing on one side only.
    """
    predictions, served = load_predictions(get_prediction_folder(runs))
    rows = history[history["transaction_id"].isin(predictions["transaction_id"])]
    past = read_training_features(store, rows).set_index("transaction_id")
    past = past.loc[predictions["transaction_id"]]
    names = list(store.features.numeric)
    there, here = past[names].to_numpy(np.float64), served[names].to_numpy(np.float64)
    one_sided = np.isnan(there) != np.isnan(here)
    difference = np.abs(there - here)[~np.isnan(there) & ~np.isnan(here)]
    return {
        "rows": len(predictions),
        "features": len(names),
        "max_abs_difference": float(difference.max(initial=0.0)),
        "missing_mismatches": int(one_sided.sum()),
    }


def check_parity(parity: Mapping[str, float]) -> None:
    """Stop if what was served is not what history gives.

    Raises:
        ValueError: If a value differs by more than ``MAX_DIFFERENCE`` or is missing on one side.
    """
    if parity["max_abs_difference"] > MAX_DIFFERENCE or parity["missing_mismatches"]:
        raise ValueError(
            f"served features differ from history's by up to {parity['max_abs_difference']:.3g},"
            f" and {parity['missing_mismatches']} values are missing on one side only; a service"
            " and a history that disagree make every score doubtful"
        )
