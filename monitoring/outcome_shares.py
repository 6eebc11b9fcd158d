"""The prediction log says with which chance each transaction's outcome can be seen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from serving.prediction_log import get_prediction_folder, load_predictions


def read_outcome_shares(runs: Path) -> pd.Series[float]:
    """Read the chance with which each answered transaction's outcome can be seen.

    Args:
        runs: Its prediction log may be absent: nothing was answered yet.

    Returns:
        ``outcome_share`` in [0, 1] of each transaction's first answer, by ``transaction_id``: 1
        where it was approved or reviewed, 0 where it was declined, between where it was let through
        by chance.

    Raises:
        ValueError: If a segment of the log is damaged or was written by an earlier release.
    """
    predictions, _ = load_predictions(get_prediction_folder(runs))
    first_answers = predictions.drop_duplicates("transaction_id")
    return first_answers.set_index("transaction_id")["outcome_share"]
