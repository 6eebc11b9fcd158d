"""Suspicious results become alarms that stop the run, because a leak looks like success.

Each alarm is a ``LeakAlarm``, a ``ValueError`` of one line that says what was seen and what to do.
Ceilings come from the configuration; a run that trips one and is honest after all is a run whose
owner raises the ceiling on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from training.encoding import Booleans, Floats
from training.metrics import roc_auc

NUM_SHUFFLES = 2
NUM_STANDARD_ERRORS = 4.0
FUTURE_TOLERANCE = 1e-6
"""Relative difference a feature may show when computed again from truncated history."""

FitAndScore = Callable[[Floats, Booleans, Floats], Floats]


class LeakAlarm(ValueError):  # noqa: N818 - an alarm is what it is
    """The run looks too good, or wrong, to be honest."""


def find_constant_features(matrix: Floats, *, names: Sequence[str]) -> list[str]:
    """Name the columns that hold one single value, or none at all, in every row.

    >>> find_constant_features(np.array([[1.0, 2.0], [1.0, np.nan]]), names=["a", "b"])
    ['a']
    """
    # a column of one value and gaps still tells the gaps apart: not constant
    first = matrix[:1]
    same = (matrix == first) | (np.isnan(matrix) & np.isnan(first))
    return [name for name, constant in zip(names, same.all(axis=0), strict=True) if constant]


def check_constant_features(
    matrix: Floats, *, names: Sequence[str], computed: Collection[str], rare: Collection[str]
) -> dict[str, str]:
    """Stop on a constant feature of ours; report constant columns that teach nothing.

    A feature we compute varies unless a join or a window is broken. Two kinds may honestly be
    constant, and are to be dropped with a note: a column of the user's own file, and a rare event
    that never happened.

    Args:
        matrix: Raw model columns of the training slice. Shape ``(rows, features)``.
        names: Their names.
        computed: Those this system computes.
        rare: Those that are 0 unless something unusual happens.

    Returns:
        The columns to drop, with the reason.

    Raises:
        LeakAlarm: If a computed feature holds one single value, or none.
    """
    dropped = {}
    for name in find_constant_features(matrix, names=names):
        value = matrix[0, list(names).index(name)]
        if name in computed and not (name in rare and value == 0):
            held = "missing" if np.isnan(value) else f"{value:g}"
            raise LeakAlarm(
                f"leak alarm: feature {name} is {held} in every training row, so a join or a "
                "window is broken; if the data truly are so, leave the column it needs out of the "
                "mapping"
            )
        dropped[name] = "never varies in the training rows"
    return dropped


def check_no_future(
    features: pd.DataFrame, *, recompute: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    """Stop if a feature changes once everything after its transaction is taken away.

    Args:
        features: A sample of training rows: ``transaction_id, event_time`` and features.
        recompute: Computes the features of such rows from a history that ends before each one;
            returns ``transaction_id`` and features, one row per asked row.

    Raises:
        LeakAlarm: If a feature differs, one of the two being missing included.
    """
    again = recompute(features).set_index("transaction_id").loc[features["transaction_id"]]
    for name in again.columns:
        trained, honest = (
            frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for frame in (features, again)
        )
        agrees = np.isclose(
            trained, honest, rtol=FUTURE_TOLERANCE, atol=FUTURE_TOLERANCE, equal_nan=True
        )
        if not agrees.all():
            row = int(np.argmin(agrees))
            raise LeakAlarm(
                f"leak alarm: feature {name} of transaction {features['transaction_id'].iloc[row]} "
                f"is {trained[row]:g}, but {honest[row]:g} once later events and labels are "
                "removed, so it is computed after the event; fix its window"
            )


def check_shuffled_labels(
    fit_and_score: FitAndScore,
    *,
    train_matrix: Floats,
    later_matrix: Floats,
    train_ids: pd.Series[str],
    later_ids: pd.Series[str],
    is_fraud: pd.Series[bool],
    max_deviation: float,
    seed: int,
) -> float:
    """Stop if a model trained on shuffled labels predicts later shuffled labels.

    Labels are dealt out anew over all transactions, each transaction keeping one label, so rows
    can only be told apart by recognising them: a transaction on both sides of the split, or an
    input that names it. Averaged over ``NUM_SHUFFLES`` deals; where frauds are few, chance itself
    strays, and the tolerance is at least ``NUM_STANDARD_ERRORS`` of that mean.

    Args:
        fit_and_score: Fits on the first matrix and labels, scores the second matrix.
        train_matrix: Rows to fit on. Shape ``(rows, features)``.
        later_matrix: Rows to score.
        train_ids: Transaction ids of the rows to fit on.
        later_ids: Transaction ids of the rows to score.
        is_fraud: The truth, indexed by transaction id, of all these rows.
        max_deviation: Largest tolerated distance of the mean ROC AUC from one half.
        seed: Seed of the deals.

    Returns:
        The mean ROC AUC.

    Raises:
        LeakAlarm: If it is further from one half.

    Source: variance of Mann-Whitney's U under the null hypothesis, (m + n + 1) / (12 m n).
    """
    generator = np.random.default_rng(seed)
    truths = is_fraud.to_numpy(dtype=bool)
    areas = []
    for _ in range(NUM_SHUFFLES):
        dealt = pd.Series(generator.permutation(truths), index=is_fraud.index)
        scores = fit_and_score(
            train_matrix, train_ids.map(dealt).to_numpy(dtype=bool), later_matrix
        )
        areas.append(roc_auc(later_ids.map(dealt).to_numpy(dtype=bool), scores))
    area = float(np.mean(areas))
    num_frauds = max(1.0, truths.mean() * len(later_ids))
    num_legitimate = max(1.0, len(later_ids) - num_frauds)
    variance = (len(later_ids) + 1.0) / (12.0 * num_frauds * num_legitimate * NUM_SHUFFLES)
    tolerance = max(max_deviation, NUM_STANDARD_ERRORS * float(np.sqrt(variance)))
    if not abs(area - 0.5) <= tolerance:
        raise LeakAlarm(
            f"leak alarm: trained on shuffled labels, a model still reaches ROC AUC {area:.3f} on "
            f"later rows (0.5 +- {tolerance:.3g} is chance), so rows are shared between training "
            "and evaluation; check the split"
        )
    return area


def check_feature_importance(shares: Mapping[str, float], *, max_share: float) -> None:
    """Stop if one feature carries most of the model.

    Args:
        shares: Each feature's share of the importance; they sum to 1.
        max_share: Largest tolerated share.

    Raises:
        LeakAlarm: If a feature has more.
    """
    name, share = max(shares.items(), key=lambda item: item[1])
    if share > max_share:
        raise LeakAlarm(
            f"leak alarm: feature {name} carries {share:.0%} of the model's importance; more than "
            f"training.leaks.max_feature_importance_share ({max_share:.0%}) suggests it knows the "
            "truth"
        )


def check_average_precision(
    average_precision: float, *, model: str, max_average_precision: float
) -> None:
    """Stop if a model is better than the problem allows.

    Args:
        average_precision: On rows the model has not seen.
        model: Named in the message.
        max_average_precision: Largest believable value.

    Raises:
        LeakAlarm: If it is exceeded.
    """
    if average_precision > max_average_precision:
        raise LeakAlarm(
            f"leak alarm: {model} reaches average precision {average_precision:.3f}, more than "
            f"training.leaks.max_average_precision ({max_average_precision:g}); an input knows the "
            "truth, or the ceiling is too low for this data"
        )
