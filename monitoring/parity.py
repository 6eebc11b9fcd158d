"""Served features and history's become the values on which they disagree, feature by feature.

Equal means equal to ``TOLERANCE``, absolute or relative, and missing on both sides or on neither.
What a disagreement is due to is ``monitoring.parity_causes``' to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from features.store import FraudFeatureStore, read_training_features
from serving.prediction_log import get_prediction_folder, load_predictions

TOLERANCE = 1e-9

Mask = np.ndarray


def find_mismatches(served: pd.DataFrame, replayed: pd.DataFrame) -> Mask:
    """Mark the values that differ.

    Args:
        served: Numbers (NaN for missing) and strings (None for missing).
        replayed: The same rows in the same order, holding the same columns and maybe others.

    Returns:
        Whether each of the served values differs. Shape ``(rows, features)``.

    >>> find_mismatches(pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [1.0, np.nan]}))
    array([[False],
           [ True]])
    """
    masks = [_differ(served[name], replayed[name]) for name in served]
    return np.stack(masks, axis=1) if masks else np.zeros((len(served), 0), dtype=bool)


def list_mismatches(served: pd.DataFrame, replayed: pd.DataFrame) -> pd.DataFrame:
    """List the values that differ.

    Returns:
        ``row`` (position), ``feature``, ``served`` and ``replayed``, in the order of the rows.
    """
    rows, columns = np.nonzero(find_mismatches(served, replayed))
    names = [str(served.columns[column]) for column in columns.tolist()]
    cells = list(zip(rows, names, strict=True))
    return pd.DataFrame(
        {
            "row": rows,
            "feature": pd.Series(names, dtype=object),
            "served": pd.Series([served[name].iloc[row] for row, name in cells], dtype=object),
            "replayed": pd.Series([replayed[name].iloc[row] for row, name in cells], dtype=object),
        }
    )


def summarise_mismatches(served: pd.DataFrame, replayed: pd.DataFrame) -> pd.DataFrame:
    """Count and measure the mismatches of each feature.

    Returns:
        One row per feature, in order: ``feature, compared, mismatches, mismatch_share,
        max_abs_difference, max_relative_difference`` (to the replayed value; both over the values
        that are there on both sides, 0 without any) and ``missing_in_served,
        missing_in_replay``, how often a value was there on the other side only.
    """
    mask = find_mismatches(served, replayed)
    rows = []
    for column, name in enumerate(served):
        is_served, is_replayed = served[name].notna(), replayed[name].notna()
        difference, relative = _measure(served[name], replayed[name])
        num = int(mask[:, column].sum())
        rows.append(
            {
                "feature": str(name),
                "compared": len(served),
                "mismatches": num,
                "mismatch_share": num / max(len(served), 1),
                "max_abs_difference": difference,
                "max_relative_difference": relative,
                "missing_in_served": int((is_replayed & ~is_served).sum()),
                "missing_in_replay": int((is_served & ~is_replayed).sum()),
            }
        )
    return pd.DataFrame(rows)


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
    names = list(store.features.numeric)
    summary = summarise_mismatches(
        served[names], past.loc[predictions["transaction_id"], names].reset_index(drop=True)
    )
    return {
        "rows": len(predictions),
        "features": len(names),
        "max_abs_difference": float(summary["max_abs_difference"].max()),
        "missing_mismatches": int(summary[["missing_in_served", "missing_in_replay"]].sum().sum()),
    }


def check_parity(parity: Mapping[str, float]) -> None:
    """Stop if what was served is not what history gives.

    Raises:
        ValueError: If a value differs by more than ``TOLERANCE`` or is missing on one side.
    """
    if parity["max_abs_difference"] > TOLERANCE or parity["missing_mismatches"]:
        raise ValueError(
            f"served features differ from history's by up to {parity['max_abs_difference']:.3g},"
            f" and {parity['missing_mismatches']} values are missing on one side only; a service"
            " and a history that disagree make every score doubtful"
        )


def _differ(served: pd.Series, replayed: pd.Series) -> Mask:
    if not pd.api.types.is_numeric_dtype(served):
        same = served.fillna("").to_numpy(object) == replayed.fillna("").to_numpy(object)
        return ~np.asarray(same, dtype=bool)
    there, here = served.to_numpy(np.float64), replayed.to_numpy(np.float64)
    return np.asarray(~np.isclose(there, here, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))


def _measure(served: pd.Series, replayed: pd.Series) -> tuple[float, float]:
    """Return the largest absolute and relative difference of numbers on both sides."""
    if not pd.api.types.is_numeric_dtype(served):
        return 0.0, 0.0
    there, here = served.to_numpy(np.float64), replayed.to_numpy(np.float64)
    difference = np.abs(there - here)
    known = np.isfinite(difference)
    scale = np.maximum(np.abs(here[known]), TOLERANCE)
    relative = (difference[known] / scale).max(initial=0.0)
    return float(difference[known].max(initial=0.0)), float(relative)
