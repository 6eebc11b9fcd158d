"""A known model's parameters and newer rows become an artefact: training without the ceremony.

What ``training.fraud.run_train`` does with ``only="lightgbm"`` and ``params``, less what costs most
and changes nothing about the model: folds, leak alarms, intervals, pictures, the fallback, MLflow.
Invariant: the same rows give the same trees, calibration and thresholds (a test holds the two
against each other).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from data.time_split import TimeSplit
from features.fraud_selection import FeatureSet
from training.artefact import Artefact
from training.bootstrap import draw_customers
from training.calibration import fit_calibration
from training.evaluation import evaluate_cost, evaluate_scores
from training.fraud_material import cut_slices
from training.fraud_prices import read_prices
from training.fraud_records import MAX_REFERENCE_ROWS
from training.gbdt import fit_trees, measure_importance
from training.model_spec import ModelSpec
from training.operating_point import choose_thresholds
from training.scorers import TreeScorer

KIND = "lightgbm"


@dataclass(frozen=True)
class Refitted:
    """A model, what monitoring holds its predictions against, and what it looks at.

    Attributes:
        artefact: The model; its version is empty, and it has no fallback.
        reference: ``event_time``, the model's inputs and ``score`` of recent rows it was not fitted
            on, in time order.
        importance: Each feature's share; the shares sum to 1.
    """

    artefact: Artefact
    reference: pd.DataFrame
    importance: dict[str, float]


def refit(
    config: FraudConfig,
    rows: pd.DataFrame,
    features: pd.DataFrame,
    *,
    chosen: FeatureSet,
    split: TimeSplit,
    parameters: Mapping[str, Any],
    max_reference_rows: int = MAX_REFERENCE_ROWS,
) -> Refitted:
    """Fit, calibrate and set thresholds.

    Args:
        config: Costs and the seed.
        rows: Transactions from the start of training to the end of the test period in time order,
            with ``is_fraud``, ``label_time`` (missing where unknown) and ``fraud_pattern``; one
            that stands for several is there several times.
        features: Theirs, row by row.
        chosen: Which features there are.
        split: From ``training.fraud_material.plan_split``.
        parameters: LightGBM's, ``num_trees`` among them.
        max_reference_rows: Of the reference.

    Raises:
        ValueError: If a slice lacks frauds, or a feature of ours is empty.
    """
    cut = cut_slices(rows, features, chosen=chosen, split=replace(split, folds=()))
    train, later, encoding = cut.training.train, cut.training.calibration, cut.training.encoding
    content = fit_trees(
        train.matrix, train.is_fraud, encoding=encoding, parameters=parameters, seed=config.seed
    )
    scorer = TreeScorer(content)
    margins = scorer.margins(later.matrix)
    calibration = fit_calibration(margins, later.is_fraud)
    thresholds = choose_thresholds(
        calibration.apply(margins),
        is_fraud=later.is_fraud,
        amounts=later.amounts,
        days=later.days,
        prices=read_prices(config),
        daily_review_capacity=config.training.costs.daily_review_capacity,
    )
    test = cut.test
    test_scores = calibration.apply(scorer.margins(test.matrix))
    bootstrap = draw_customers(
        test.transactions["customer_id"],
        num_resamples=config.training.num_bootstrap,
        seed=config.seed,
    )
    prices = read_prices(config)
    spec = ModelSpec(
        kind=KIND,
        encoding=encoding,
        calibration=calibration,
        thresholds=thresholds,
        request_features=(),
        train_start_time=split.train.start_time.isoformat(),
        train_end_time=split.train.end_time.isoformat(),
        data_hash=hashlib.sha256(content).hexdigest(),
        metrics={
            **evaluate_scores(test, test_scores, bootstrap=bootstrap),
            **evaluate_cost(
                test, test_scores, thresholds=thresholds, prices=prices, bootstrap=bootstrap
            ),
        },
        parameters=dict(parameters),
    )
    artefact = Artefact(spec, scorer)
    recent = features[features["event_time"] >= split.calibration.start_time]
    recent = recent.drop_duplicates("transaction_id")
    recent = recent.sample(min(len(recent), max_reference_rows), random_state=config.seed)
    kept = recent.sort_index()[["event_time", *artefact.features]]
    reference = kept.assign(score=artefact.predict(kept)).reset_index(drop=True)
    return Refitted(artefact, reference, measure_importance(content, encoding=encoding))
