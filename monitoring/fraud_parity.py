"""The prediction log becomes proof that what was served is what history gives, or the exception.

A sample of the records, chosen by a hash of the transaction so that every run chooses alike, is
held against history and the stream's archive. What differs without a legitimate cause is skew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels
from features.fraud_history import to_microseconds
from features.fraud_rebuild import load_known_transactions
from features.fraud_state import encode_ids
from features.fraud_stream import open_archive
from features.store import open_feature_store
from features.stream_archive import Archive
from features.windows import Integers
from monitoring.parity_causes import CAUSES, STREAM_LAG, Known
from monitoring.parity_verdict import Verdict, judge_parity
from serving.prediction_log import get_prediction_folder, load_predictions

SAMPLE = 2_000
MAX_LAG_SECONDS = 60.0
MAX_LISTED = 20
"""Transactions named one by one in the summary; all of them are in the table."""


def run_parity(
    config: FraudConfig,
    *,
    sample: int = SAMPLE,
    since: pd.Timestamp | None = None,
    max_lag_seconds: float = MAX_LAG_SECONDS,
    max_mismatch_share: float = 0.0,
) -> dict[str, Any]:
    """Run the stage: replay a sample of the prediction log, and say what differs and why.

    Args:
        config: ``runs`` holds the log, the history, the feature store and the stream's archive.
        sample: How many transactions to replay, chosen by a hash of their ids.
        since: Only predictions of transactions from then on, UTC.
        max_lag_seconds: How far the stream may have been behind.
        max_mismatch_share: The share of predictions of which a feature may differ unexplained.

    Returns:
        ``predictions``, ``compared``, ``not_replayable``, ``features`` (see ``Verdict``) and those
        of them that are ``differing``, ``causes`` (mismatches by cause), ``stream_lag_seconds``,
        ``unexplained_share``, ``agrees``, ``wrote`` and ``next``; the same is in
        ``monitoring/parity.json``.

    Raises:
        FileNotFoundError: If there is no prediction.
        ValueError: If none of the sampled transactions is in the history or the archive.
    """
    store = open_feature_store(config.runs)
    predictions, served = load_sample(config.runs, sample=sample, since=since)
    with show_progress(f"Replaying {len(predictions):,} predictions"):
        transactions = load_known_transactions(config, store)
        known = Known(
            transactions,
            _find_available(transactions, open_archive(config.runs)),
            load_labels(config.runs),
        )
    verdict = judge_parity(predictions, served, known, max_lag_seconds=max_lag_seconds)
    if not verdict.rows:
        raise ValueError(
            f"none of the {len(predictions)} sampled transactions is known: the stream has not"
            " accepted them; run `throughline fraud stream`, which brings them to the archive"
        )
    folder = config.runs / "monitoring"
    wrote = [folder / "parity.json", folder / "parity_mismatches.csv"]
    agrees = verdict.unexplained_share <= max_mismatch_share
    result = {
        "predictions": len(predictions),
        **_describe(verdict),
        "max_mismatch_share": max_mismatch_share,
        "agrees": agrees,
        "wrote": [str(path) for path in wrote],
        "next": "throughline fraud monitor" if agrees else f"look into {wrote[1]}",
    }
    write_json(wrote[0], result)
    with write_whole(wrote[1]) as part:
        verdict.mismatches.to_csv(part, index=False)
    return result


def load_sample(
    runs: Path, *, sample: int, since: pd.Timestamp | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the predictions of the transactions whose ids hash lowest.

    Returns:
        ``predictions`` and their features, as ``serving.prediction_log.load_predictions``.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = get_prediction_folder(runs)
    predictions, served = load_predictions(folder)
    if since is not None:
        predictions = predictions[predictions["event_time"] >= since]
    if predictions.empty:
        raise FileNotFoundError(
            f"no predictions in {folder}{f' since {since}' if since else ''}; start"
            " `throughline fraud serve` and score transactions"
        )
    ids = predictions["transaction_id"].drop_duplicates()
    order = np.argsort(encode_ids(ids), kind="stable")
    chosen = ids.iloc[order[:sample]]
    predictions = predictions[predictions["transaction_id"].isin(chosen)]
    return predictions.reset_index(drop=True), served.loc[predictions.index].reset_index(drop=True)


def _find_available(transactions: pd.DataFrame, archive: Archive) -> Integers:
    """Say when each transaction reached its publisher: those of the history when they happened."""
    streamed = transactions["transaction_id"].map(archive.load_available_times())
    times = to_microseconds(transactions["event_time"])
    return np.where(streamed.isna(), times, streamed.fillna(0).to_numpy(np.int64)).astype(np.int64)


def _describe(verdict: Verdict) -> dict[str, Any]:
    """Turn a verdict into JSON-able facts."""
    lags = verdict.mismatches.loc[verdict.mismatches["cause"] == STREAM_LAG, "behind_seconds"]
    measures = ("mismatch_share", "max_abs_difference", "max_relative_difference", "unexplained")
    records = verdict.features.to_dict("records")
    return {
        "compared": verdict.rows,
        "not_replayable": {"num": len(verdict.unknown), "first": verdict.unknown[:MAX_LISTED]},
        "features": records,
        "differing": {
            record["feature"]: {name: record[name] for name in measures}
            for record in records
            if record["mismatches"]
        },
        "causes": {cause: int(verdict.features[cause].sum()) for cause in CAUSES},
        "stream_lag_seconds": None
        if lags.empty
        else {"p50": float(lags.median()), "max": float(lags.max())},
        "unexplained": int(verdict.features["unexplained"].sum()),
        "unexplained_share": verdict.unexplained_share,
    }
