"""The handbook's models with its settings, and grids of them that share their fits.

Every model is seeded and uses one thread: folds run beside each other, and a sum's order is fixed.
A forest of 100 trees holds the forest of 25, and so do boosted trees: one fit answers for all
numbers of trees of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from training.encoding import Booleans, Floats

MakeModel = Callable[[], Any]
NUM_TREES = (25, 50, 100)


@dataclass(frozen=True)
class Family:
    """One kind of model and the settings a search goes through.

    Attributes:
        models: How to make each unfitted model, by its settings in words.
        num_trees: After how many trees its scores are read; empty for other models.
        published: Rows of the published table, by the settings that gave them.
        chosen_as: The published row that the settings chosen here are held against, where the
            published settings are not known.
    """

    models: Mapping[str, MakeModel]
    num_trees: tuple[int, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)
    chosen_as: str | None = None


def build_single_split_models() -> dict[str, MakeModel]:
    """Make the handbook's first models, in chapter 3, by their names in the published table."""
    return {
        "logistic regression": lambda: LogisticRegression(random_state=0),
        "decision tree, depth 2": lambda: DecisionTreeClassifier(max_depth=2, random_state=0),
        "decision tree, unlimited": lambda: DecisionTreeClassifier(random_state=0),
        "random forest": lambda: RandomForestClassifier(random_state=0, n_jobs=1),
        "XGBoost": make_xgboost,
    }


def build_families() -> dict[str, Family]:
    """Make the grids of chapter 5, and LightGBM as it comes."""
    return {
        "logistic regression": Family(
            {f"C {c}": _make_logistic_regression(c) for c in (0.1, 1, 10, 100)},
            chosen_as="logistic regression",
        ),
        "random forest": Family(
            {f"depth {depth}": _make_forest(depth) for depth in (5, 10, 20, 50)},
            NUM_TREES,
            {"100 trees, depth 20": "random forest"},
        ),
        "XGBoost": Family(
            {
                f"rate {rate}, depth {depth}": _make_xgboost(rate, depth)
                for rate in (0.1, 0.3)
                for depth in (3, 6, 9)
            },
            NUM_TREES,
            {
                "50 trees, rate 0.3, depth 3": "XGBoost, best on validation",
                "100 trees, rate 0.1, depth 3": "XGBoost, best on test",
            },
        ),
        "LightGBM, untuned": Family(
            {"defaults": _make_lightgbm}, published={"defaults": "LightGBM, untuned (a re-run)"}
        ),
    }


def make_xgboost(**settings: float) -> Any:  # noqa: ANN401
    """Make an XGBoost classifier that splits and starts as the handbook's release did.

    Raises:
        ValueError: If XGBoost, an optional dependency, is not installed.
    """
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        raise ValueError(
            "the handbook's table has XGBoost in it: uv pip install xgboost-cpu"
        ) from error
    return XGBClassifier(tree_method="exact", base_score=0.5, random_state=0, n_jobs=1, **settings)


def score_settings(
    make_model: MakeModel,
    num_trees: tuple[int, ...],
    *,
    train: tuple[Floats, Booleans],
    test_matrix: Floats,
) -> dict[str, Floats]:
    """Fit one model on standardised inputs and score the test rows with it.

    Args:
        make_model: Makes the unfitted model.
        num_trees: Read the scores after so many trees; once, when empty.
        train: Inputs ``(rows, inputs)`` and truth ``(rows,)``.
        test_matrix: Shape ``(test rows, inputs)``.

    Returns:
        Shares of fraud by ``"100 trees, "`` or, without numbers of trees, by ``""``.
    """
    scaler = StandardScaler().fit(train[0])
    model = make_model().fit(scaler.transform(train[0]), train[1])
    scaled = scaler.transform(test_matrix)
    if not num_trees:
        return {"": np.asarray(model.predict_proba(scaled)[:, 1])}
    if isinstance(model, RandomForestClassifier):
        votes = np.array([tree.predict_proba(scaled)[:, 1] for tree in model.estimators_])
        return {f"{num} trees, ": votes[:num].mean(axis=0) for num in num_trees}
    return {
        f"{num} trees, ": np.asarray(model.predict_proba(scaled, iteration_range=(0, num))[:, 1])
        for num in num_trees
    }


def _make_logistic_regression(c: float) -> MakeModel:
    return lambda: LogisticRegression(C=c, random_state=0)


def _make_forest(depth: int) -> MakeModel:
    return lambda: RandomForestClassifier(max(NUM_TREES), max_depth=depth, random_state=0, n_jobs=1)


def _make_xgboost(rate: float, depth: int) -> MakeModel:
    return lambda: make_xgboost(n_estimators=max(NUM_TREES), learning_rate=rate, max_depth=depth)


def _make_lightgbm() -> LGBMClassifier:
    return LGBMClassifier(
        random_state=0, n_jobs=1, deterministic=True, force_row_wise=True, verbosity=-1
    )
