"""The prediction log becomes proof that what was served is what history gives, or the exception.

A sample of the records, chosen by a hash of the transaction so that every run chooses alike, is
held against history and the stream's archive. What differs without a legitimate cause is skew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from configs.files import write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels
from features.fraud_history import to_microseconds
from features.fraud_rebuild import load_known_transactions
from features.fraud_replay import replay_features
from features.fraud_state import encode_ids
from features.fraud_stream import open_archive
from features.store import open_feature_store
from features.stream_archive import Archive
from features.windows import SECOND, Integers
from monitoring.parity import list_mismatches, summarise_mismatches
from monitoring.parity_causes import CAUSES, STREAM_LAG, Known, find_cause, find_state
from serving.prediction_log import get_prediction_folder, load_predictions

SAMPLE = 2_000
MAX_LAG_SECONDS = 60.0
MAX_LISTED = 20
"""Transactions named one by one in the summary; all of them are in the table."""


@dataclass(frozen=True)
class Verdict:
    """How served features compare with history's.

    Attributes:
        rows: How many predictions were compared.
        unknown: Transactions that neither history nor the stream's archive holds.
        features: One row per feature: ``monitoring.parity.summarise_mismatches``, ``unexplained``
            and how many mismatches each cause explains.
        mismatches: One row per differing value: ``transaction_id, event_time, prediction_time,
            feature, served, replayed, cause`` (None for none), ``behind_seconds``.
    """

    rows: int
    unknown: list[str]
    features: pd.DataFrame
    mismatches: pd.DataFrame

    @property
    def unexplained(self) -> pd.DataFrame:
        """The mismatches without a cause: skew."""
        return self.mismatches[self.mismatches["cause"].isna()]

    @property
    def unexplained_share(self) -> float:
        """The worst feature's share of predictions that differ without a cause."""
        return float(self.features["unexplained"].max() / self.rows) if self.rows else 0.0


def judge_parity(
    predictions: pd.DataFrame, served: pd.DataFrame, known: Known, *, max_lag_seconds: float
) -> Verdict:
    """Hold predictions against history, value by value.

    Beside the features, the request's own ``amount`` and ``event_time`` (seconds after history's)
    are compared.

    Args:
        predictions: ``transaction_id, event_time, amount, prediction_time, degraded_reason``.
        served: The features of each, same order.
        known: History, the archive and the labels.
        max_lag_seconds: How far the stream may be behind without it being an error.
    """
    is_known = predictions["transaction_id"].isin(known.transactions["transaction_id"]).to_numpy()
    unknown = predictions.loc[~is_known, "transaction_id"].tolist()
    predictions = predictions[is_known].reset_index(drop=True)
    facts = known.transactions.set_index("transaction_id", drop=False)
    rows = facts.loc[predictions["transaction_id"]].reset_index(drop=True)
    replayed = replay_features(known.transactions, known.labels, rows)
    passed = [name for name in served if name in rows]
    replayed = replayed.assign(**rows[passed], amount=rows["amount"], event_time=0.0)
    names = [name for name in served if name in replayed]
    asked_late = to_microseconds(predictions["event_time"]) - to_microseconds(rows["event_time"])
    compared = served.loc[is_known, names].reset_index(drop=True)
    compared = compared.assign(amount=predictions["amount"], event_time=asked_late / SECOND)
    mismatches = list_mismatches(compared, replayed)
    rows = rows.assign(degraded_reason=predictions["degraded_reason"])
    causes = _find_causes(mismatches, rows, compared, known, round(max_lag_seconds * SECOND))
    mismatches = mismatches.assign(**causes)
    summary = summarise_mismatches(compared, replayed)
    for cause in CAUSES:
        counts = mismatches.loc[mismatches["cause"] == cause, "feature"].value_counts()
        summary[cause] = summary["feature"].map(counts).fillna(0).astype(int)
    summary["unexplained"] = summary["mismatches"] - summary[list(CAUSES)].sum(axis=1)
    ids = predictions[["transaction_id", "event_time", "prediction_time"]]
    listed = ids.loc[mismatches["row"]].reset_index(drop=True)
    return Verdict(
        rows=len(predictions),
        unknown=unknown,
        features=summary,
        mismatches=pd.concat([listed, mismatches.drop(columns="row")], axis=1),
    )


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
        ``predictions``, ``compared``, ``not_replayable``, ``features`` (by name), ``causes``
        (mismatches by cause), ``stream_lag_seconds``, ``unexplained_share``, ``agrees``, ``wrote``
        and ``next``; the same is in ``monitoring/parity.json``.

    Raises:
        FileNotFoundError: If there is no prediction.
        ValueError: If none of the sampled transactions is in the history or the archive.
    """
    store = open_feature_store(config.runs)
    predictions, served = _load_sample(config.runs, sample=sample, since=since)
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


def _load_sample(
    runs: Path, *, sample: int, since: pd.Timestamp | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the predictions of the transactions whose ids hash lowest."""
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
    measures = ("compared", "mismatch_share", "max_abs_difference", "max_relative_difference")
    missing = ("missing_in_served", "missing_in_replay")
    records = verdict.features.to_dict("records")
    return {
        "compared": verdict.rows,
        "not_replayable": {"num": len(verdict.unknown), "first": verdict.unknown[:MAX_LISTED]},
        "features": {
            record["feature"]: {
                **{name: record[name] for name in (*measures, "unexplained")},
                "missing": {name: record[name] for name in missing},
                "causes": {cause: record[cause] for cause in CAUSES},
            }
            for record in records
        },
        "causes": {cause: int(verdict.features[cause].sum()) for cause in CAUSES},
        "stream_lag_seconds": None
        if lags.empty
        else {"p50": float(lags.median()), "max": float(lags.max())},
        "unexplained": int(verdict.features["unexplained"].sum()),
        "unexplained_share": verdict.unexplained_share,
    }


def _find_causes(
    mismatches: pd.DataFrame,
    rows: pd.DataFrame,
    served: pd.DataFrame,
    known: Known,
    max_lag: int,
) -> dict[str, np.ndarray]:
    """Find the cause of each mismatch; those of one row and state have one cause."""
    names = np.full(len(mismatches), None, dtype=object)
    seconds = np.full(len(mismatches), np.nan)
    states = {str(name): find_state(str(name)) for name in served}
    # Grouping leaves out what the request alone decides: its state is None.
    groups = mismatches.groupby(["row", mismatches["feature"].map(states)]).indices
    with show_progress("Looking for causes", total=max(len(groups), 1)) as advance:
        for key, cells in groups.items():
            row, state = cast("tuple[int, str]", key)
            own = [name for name in states if states[name] == state]
            found = find_cause(
                state, rows.iloc[[row]], served[own].iloc[[row]], known, max_lag=max_lag
            )
            if found is not None:
                names[cells], seconds[cells] = found
            advance(1)
    return {"cause": names, "behind_seconds": seconds}
