"""Predictions, history and what the stream accepted become a verdict, value by value.

Every difference is listed, with the legitimate cause that was found for it or without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from configs.progress import show_progress
from features.fraud_history import to_microseconds
from features.fraud_replay import replay_features
from features.windows import SECOND
from monitoring.parity import list_mismatches, summarise_mismatches
from monitoring.parity_causes import CAUSES, Known, find_cause, find_state


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
    passed = {str(name): rows[name] for name in served if name in rows}
    passed |= {"amount": rows["amount"], "event_time": pd.Series(0.0, rows.index)}
    replayed = replayed.assign(**passed)
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
