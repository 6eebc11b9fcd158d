"""A run's files become what training needs: slices of labelled rows, checked for leaks.

Everything is read once, through the feature store, as of ``now``: nothing later exists. Whatever
could make a result dishonest is looked for here, before any model is fitted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import hash_file
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import labels_path, load_labels, load_transactions, transactions_path
from data.time_split import TimeSplit, build_time_split
from features.fraud import derive
from features.fraud_replay import recompute_features
from features.fraud_selection import FeatureSet
from features.store import open_feature_store, read_training_features
from training.candidates import TrainingRows
from training.encoding import Booleans, Encoding, Floats, build_encoding, encode_features
from training.gbdt import FoldRows, fit_trees
from training.leakage import check_constant_features, check_no_future, check_shuffled_labels
from training.rows import LabelledRows, check_both_classes
from training.scorers import TreeScorer
from training.seen_outcomes import look_up_shares, repeat_by_weight

NUM_RECOMPUTED = 24
"""Transactions whose features are computed again from truncated history."""
PROBE_TREES = {"num_trees": 20, "num_leaves": 63, "min_data_in_leaf": 5, "learning_rate": 0.2}
"""Trees that memorise: they find rows that training and evaluation share."""


@dataclass(frozen=True)
class Material:
    """What training works with.

    Attributes:
        split: The slices.
        features: Feature rows from the start of training to the end of the test period, labelled
            or not, in time order, each once.
        training: What candidates may see: rows whose outcome was seen, as often as they count.
        test: What they may not.
        known_frauds: ``customer_id`` and ``label_time`` of every fraud reported by ``now``.
        request_features: Inputs that need no history.
        dropped: Features that are not used, with the reason.
        data_hash: sha256 over the transactions' and the labels' file, and outcome shares below 1.
        leak_checks: What the alarms that stayed silent measured.
    """

    split: TimeSplit
    features: pd.DataFrame
    training: TrainingRows
    test: LabelledRows
    known_frauds: pd.DataFrame
    request_features: tuple[str, ...]
    dropped: dict[str, str]
    data_hash: str
    leak_checks: dict[str, float]


@dataclass(frozen=True)
class _History:
    """All transactions and labels that exist at ``now``."""

    transactions: pd.DataFrame
    labels: pd.DataFrame


def load_material(
    config: FraudConfig,
    *,
    now: pd.Timestamp | None = None,
    outcome_shares: pd.Series[float] | None = None,
) -> Material:
    """Read, split, encode and check.

    Args:
        config: Where ``runs`` is, the split and the alarms' ceilings.
        now: The instant at which training runs, UTC; by default the end of the last
            transaction's day.
        outcome_shares: As ``training.fraud.run_train`` takes them.

    Returns:
        Slices in time order, each with both kinds of transactions.

    Raises:
        FileNotFoundError: If the data or the feature stage has not run.
        ValueError: If the history is too short, a slice lacks a class, or an alarm goes off.
    """
    history = _load_history(config.runs, now=now)
    times = history.transactions["event_time"]
    end_time = times.iloc[-1].floor("D") + pd.Timedelta(days=1)
    split = plan_split(config, now=end_time if now is None else now, first_event_time=times.iloc[0])
    store = open_feature_store(config.runs)
    with show_progress("Reading features"):
        seen = _leave_out_unseen(history, outcome_shares)
        rows = _join_labels(seen, start=split.train.start_time, end=split.test.end_time)
        features = read_training_features(store, rows)
    repeated = repeat_by_weight(look_up_shares(rows["transaction_id"], outcome_shares))
    cut = cut_slices(
        rows.iloc[repeated], features.iloc[repeated], chosen=store.features, split=split
    )
    material = Material(
        split=split,
        features=features,
        training=cut.training,
        test=cut.test,
        known_frauds=_find_known_frauds(seen),
        request_features=_find_request_features(store.features),
        dropped={**store.features.dropped, **cut.constant},
        data_hash=_hash_data(config.runs, outcome_shares),
        leak_checks={},
    )
    return replace(material, leak_checks=_check_leaks(config, material, history))


@dataclass(frozen=True)
class Cut:
    """Labelled rows by slice, and the features that never vary, with the reason."""

    training: TrainingRows
    test: LabelledRows
    constant: dict[str, str]


def cut_slices(
    rows: pd.DataFrame, features: pd.DataFrame, *, chosen: FeatureSet, split: TimeSplit
) -> Cut:
    """Encode labelled rows by what the training slice knows, and cut them.

    Args:
        rows: Transactions of the split's period in time order, with ``is_fraud``, ``label_time``
            and ``fraud_pattern``; one that stands for several is there several times.
        features: Theirs, row by row.
        chosen: Which features there are.
        split: The slices.

    Returns:
        The slices, each with both kinds of transactions.

    Raises:
        ValueError: If a slice lacks a class, or a feature of ours is empty.
    """
    encoding, matrix, constant = _encode(
        features,
        chosen,
        is_training=split.train.select(rows["event_time"], label_time=rows["label_time"]),
    )
    labelled = LabelledRows(rows, matrix)
    cut = Cut(_slice(labelled, split, encoding), labelled.select(split.test), constant)
    check_both_classes(cut.test, name="test")
    return cut


def _find_known_frauds(history: _History) -> pd.DataFrame:
    """Return ``customer_id`` and ``label_time`` of every reported fraud, the warm-up's included."""
    frauds = history.labels.loc[history.labels["is_fraud"], ["transaction_id", "label_time"]]
    owners = history.transactions[["transaction_id", "customer_id"]]
    return frauds.merge(owners, on="transaction_id")[["customer_id", "label_time"]]


def _load_history(runs: Path, *, now: pd.Timestamp | None) -> _History:
    transactions, labels = load_transactions(runs), load_labels(runs)
    if now is not None:
        transactions = transactions[transactions["event_time"] < now]
        labels = labels[labels["label_time"] <= now]
    if transactions.empty:
        raise ValueError(f"{transactions_path(runs)} holds no transaction before {now}")
    return _History(transactions, labels)


def _leave_out_unseen(history: _History, outcome_shares: pd.Series[float] | None) -> _History:
    """Take away the labels of transactions whose outcome cannot be seen, whatever they say."""
    shares = look_up_shares(history.labels["transaction_id"], outcome_shares)
    return replace(history, labels=history.labels[shares > 0])


def plan_split(
    config: FraudConfig, *, now: pd.Timestamp, first_event_time: pd.Timestamp
) -> TimeSplit:
    """Lay out the slices of a training at ``now``; see ``data.time_split.build_time_split``."""
    training = config.training
    return build_time_split(
        now,
        first_event_time=first_event_time,
        label_delay_days=config.data.label_delay_days,
        warm_up_days=training.warm_up_days,
        train_days=training.train_days,
        calibration_days=training.calibration_days,
        test_days=training.test_days,
        num_folds=training.num_folds,
        fold_days=training.fold_days,
    )


def _join_labels(history: _History, *, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """Put the truth, where it is known, beside the transactions of a period."""
    times = history.transactions["event_time"]
    period = history.transactions[(times >= start) & (times < end)]
    rows = period.merge(history.labels, on="transaction_id", how="left", validate="one_to_one")
    if "fraud_pattern" not in rows:
        rows["fraud_pattern"] = ""
    return rows.assign(fraud_pattern=rows["fraud_pattern"].fillna(""))


def _encode(
    features: pd.DataFrame, chosen: FeatureSet, *, is_training: Booleans
) -> tuple[Encoding, Floats, dict[str, str]]:
    """Encode the features that vary; say which do not."""
    train = features[is_training]
    if train.empty:
        raise ValueError("the training slice holds no labelled transaction; use more data")
    encoding = build_encoding(train, names=chosen.names, categorical=chosen.categorical)
    matrix = encode_features(features, encoding=encoding)
    constant = check_constant_features(
        matrix[is_training],
        names=chosen.names,
        computed=chosen.computed,
        rare=[
            name for name in chosen.names if name.startswith("is_") or name.endswith("_by_night")
        ],
    )
    if constant:
        names = [name for name in chosen.names if name not in constant]
        categorical = [name for name in chosen.categorical if name not in constant]
        encoding = build_encoding(train, names=names, categorical=categorical)
        matrix = encode_features(features, encoding=encoding)
    return encoding, matrix, constant


def _slice(rows: LabelledRows, split: TimeSplit, encoding: Encoding) -> TrainingRows:
    """Cut out what candidates may see."""
    train, calibration = rows.select(split.train), rows.select(split.calibration)
    check_both_classes(train, name="training")
    check_both_classes(calibration, name="calibration")
    folds = []
    for number, fold in enumerate(split.folds, start=1):
        fit, judge = rows.select(fold.train), rows.select(fold.validation)
        check_both_classes(fit, name=f"fold {number} training")
        check_both_classes(judge, name=f"fold {number} validation")
        folds.append(FoldRows(fit.matrix, fit.is_fraud, judge.matrix, judge.is_fraud))
    return TrainingRows(train, tuple(folds), calibration, encoding)


def _check_leaks(config: FraudConfig, material: Material, history: _History) -> dict[str, float]:
    """Sound the alarms that need no fitted model."""
    training, encoding = material.training, material.training.encoding
    train = training.train.take_once()
    later = [part.take_once() for part in (training.calibration, material.test)]
    later_rows = pd.concat([part.transactions for part in later])
    known = pd.concat([train.transactions, later_rows])
    generator = np.random.default_rng(config.seed)
    sample = np.sort(generator.choice(len(material.features), NUM_RECOMPUTED))
    sampled_ids = material.features["transaction_id"].iloc[sample].unique()
    asked = history.transactions[history.transactions["transaction_id"].isin(sampled_ids)]

    def fit_and_score(matrix: Floats, is_fraud: Booleans, later_matrix: Floats) -> Floats:
        content = fit_trees(
            matrix, is_fraud, encoding=encoding, parameters=PROBE_TREES, seed=config.seed
        )
        return TreeScorer(content).margins(later_matrix)

    with show_progress("Looking for leaks", total=2) as advance:
        check_no_future(
            material.features[material.features["transaction_id"].isin(sampled_ids)],
            recompute=lambda _: recompute_features(history.transactions, history.labels, asked),
        )
        advance(1)
        area = check_shuffled_labels(
            fit_and_score,
            train_matrix=train.matrix,
            later_matrix=np.vstack([part.matrix for part in later]),
            train_ids=train.transactions["transaction_id"],
            later_ids=later_rows["transaction_id"],
            is_fraud=_truth_by_id(known),
            max_deviation=config.training.leaks.max_shuffled_auc_deviation,
            seed=config.seed,
        )
        advance(1)
    return {"shuffled_labels_roc_auc": area, "transactions_recomputed": float(len(asked))}


def _truth_by_id(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows.drop_duplicates("transaction_id").set_index("transaction_id")["is_fraud"]


def _find_request_features(chosen: FeatureSet) -> tuple[str, ...]:
    """Name the inputs the transaction alone gives: derived from it, or passed through."""
    instant = {"amount": np.zeros(1), "event_time_us": np.zeros(1, dtype=np.int64)}
    from_request: dict[str, Any] = derive(instant)
    return tuple(
        name for name in chosen.names if name in from_request or name not in chosen.computed
    )


def _hash_data(runs: Path, outcome_shares: pd.Series[float] | None) -> str:
    hashes = f"{hash_file(transactions_path(runs))} {hash_file(labels_path(runs))}"
    if outcome_shares is not None and (outcome_shares < 1).any():
        hashes += " " + outcome_shares[outcome_shares < 1].sort_index().to_json()
    return hashlib.sha256(hashes.encode()).hexdigest()
