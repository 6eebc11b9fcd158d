"""Every alarm is shown a planted leak and must go off, and an honest twin and must not."""

import numpy as np
import pandas as pd
import pytest

from training.encoding import Encoding
from training.gbdt import fit_trees, measure_importance
from training.leakage import (
    LeakAlarm,
    check_average_precision,
    check_constant_features,
    check_feature_importance,
    check_no_future,
    check_shuffled_labels,
)
from training.metrics import average_precision
from training.scorers import TreeScorer

NAMES = ("amount", "count", "noise")
ENCODING = Encoding(NAMES, {})
TREES = {"num_trees": 20, "num_leaves": 31, "min_data_in_leaf": 5, "learning_rate": 0.2}
HOUR = pd.Timedelta(hours=1)


def make_rows(num_rows=4000, seed=0):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(num_rows, 3))
    return matrix, generator.random(num_rows) < 1 / (1 + np.exp(3.5 - 1.5 * matrix[:, 0]))


def fit_and_score(matrix, is_fraud, later_matrix):
    content = fit_trees(matrix, is_fraud, encoding=ENCODING, parameters=TREES, seed=0)
    return TreeScorer(content).margins(later_matrix)


def check_shuffled(train_rows, later_rows, *, matrix, is_fraud):
    ids = pd.Series([f"t{row}" for row in range(len(matrix))])
    return check_shuffled_labels(
        fit_and_score,
        train_matrix=matrix[train_rows],
        later_matrix=matrix[later_rows],
        train_ids=ids[train_rows],
        later_ids=ids[later_rows],
        is_fraud=pd.Series(is_fraud, index=ids),
        max_deviation=0.08,
        seed=0,
    )


def test_shuffled_labels_give_chance_where_no_row_is_shared():
    matrix, is_fraud = make_rows()

    area = check_shuffled(slice(0, 2500), slice(2500, 4000), matrix=matrix, is_fraud=is_fraud)

    assert area == pytest.approx(0.5, abs=0.08)


def test_rows_on_both_sides_of_the_split_are_caught():
    matrix, is_fraud = make_rows()

    with pytest.raises(LeakAlarm, match="shuffled labels, a model still reaches ROC AUC"):
        check_shuffled(slice(0, 4000), slice(2500, 4000), matrix=matrix, is_fraud=is_fraud)


def test_with_a_handful_of_frauds_chance_is_given_its_room():
    matrix, _ = make_rows(num_rows=600)
    is_fraud = np.zeros(600, dtype=bool)
    is_fraud[::100] = True

    area = check_shuffled(slice(0, 300), slice(300, 600), matrix=matrix, is_fraud=is_fraud)

    assert abs(area - 0.5) > 0.08  # beyond the ceiling, and yet no alarm


def test_a_feature_that_holds_the_truth_is_caught_by_its_importance():
    matrix, is_fraud = make_rows()
    honest = fit_trees(matrix, is_fraud, encoding=ENCODING, parameters=TREES, seed=0)
    leaking = matrix.copy()
    leaking[:, 2] = is_fraud + 0.1 * leaking[:, 2]
    planted = fit_trees(leaking, is_fraud, encoding=ENCODING, parameters=TREES, seed=0)

    check_feature_importance(measure_importance(honest, encoding=ENCODING), max_share=0.9)
    with pytest.raises(LeakAlarm, match=r"feature noise carries \d+% of the model's importance"):
        check_feature_importance(measure_importance(planted, encoding=ENCODING), max_share=0.9)


def test_a_result_beyond_belief_is_caught():
    matrix, is_fraud = make_rows()
    later, truth = make_rows(seed=1)
    honest = average_precision(truth, fit_and_score(matrix, is_fraud, later))
    matrix[:, 2], later[:, 2] = is_fraud, truth
    planted = average_precision(truth, fit_and_score(matrix, is_fraud, later))

    check_average_precision(honest, model="lightgbm", max_average_precision=0.97)
    with pytest.raises(LeakAlarm, match=r"lightgbm reaches average precision 1\.000"):
        check_average_precision(planted, model="lightgbm", max_average_precision=0.97)


@pytest.mark.parametrize(("value", "word"), [(0.0, "0"), (7.0, "7"), (np.nan, "missing")])
def test_a_computed_feature_that_never_varies_is_caught(value, word):
    matrix, _ = make_rows(num_rows=50)
    matrix[:, 1] = value

    with pytest.raises(LeakAlarm, match=f"feature count is {word} in every training row"):
        check_constant_features(matrix, names=NAMES, computed=NAMES, rare=[])


def test_a_feature_with_one_value_and_gaps_still_varies():
    matrix, _ = make_rows(num_rows=50)
    matrix[:, 1] = 7.0
    matrix[3, 1] = np.nan

    assert check_constant_features(matrix, names=NAMES, computed=NAMES, rare=[]) == {}


def test_a_constant_column_of_the_users_own_is_dropped_with_a_reason():
    matrix, _ = make_rows(num_rows=50)
    matrix[:, 2] = 4.0

    found = check_constant_features(matrix, names=NAMES, computed=["amount", "count"], rare=[])

    assert found == {"noise": "never varies in the training rows"}


def test_a_rare_event_that_never_happened_is_dropped_and_one_that_always_does_is_caught():
    matrix, _ = make_rows(num_rows=50)
    matrix[:, 1] = 0.0

    found = check_constant_features(matrix, names=NAMES, computed=NAMES, rare=["count"])

    assert list(found) == ["count"]
    matrix[:, 1] = 1.0
    with pytest.raises(LeakAlarm, match="count is 1"):
        check_constant_features(matrix, names=NAMES, computed=NAMES, rare=["count"])


def count_own_events(transactions, *, rows, window):
    """Count the customer's events in ``(t - before, t + after)``; honest if ``after`` is 0."""
    before, after = window
    counts = []
    for customer, time in zip(rows["customer_id"], rows["event_time"], strict=True):
        own = transactions.loc[transactions["customer_id"] == customer, "event_time"]
        counts.append(float(((own > time - before) & (own < time + after)).sum()))
    return rows[["transaction_id", "event_time"]].assign(count=counts)


def make_history(num_rows=60):
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{row}" for row in range(num_rows)],
            "event_time": pd.date_range("2026-01-01", periods=num_rows, freq="h", tz="UTC"),
            "customer_id": generator.choice(["a", "b"], num_rows),
        }
    )


@pytest.mark.parametrize(
    ("window", "is_honest"), [((9 * HOUR, 0 * HOUR), True), ((9 * HOUR, 9 * HOUR), False)]
)
def test_a_window_that_reaches_past_its_event_is_caught(window, is_honest):
    history = make_history()
    sample = history.iloc[[20, 30, 40]]
    features = count_own_events(history, rows=sample, window=window)

    def recompute(rows):
        parts = [
            count_own_events(
                history[history["event_time"] < row["event_time"].iloc[0]], rows=row, window=window
            )
            for row in (rows.iloc[[position]] for position in range(len(rows)))
        ]
        return pd.concat(parts)[["transaction_id", "count"]]

    asked = sample.merge(features)
    if is_honest:
        check_no_future(asked, recompute=recompute)
    else:
        with pytest.raises(LeakAlarm, match=r"feature count of transaction t20 is .* once later"):
            check_no_future(asked, recompute=recompute)


def test_a_value_that_goes_missing_without_the_future_is_caught():
    features = pd.DataFrame({"transaction_id": ["t1", "t2"], "rate": [0.1, 0.2]})

    with pytest.raises(LeakAlarm, match=r"feature rate of transaction t2 is 0\.2, but nan"):
        check_no_future(features, recompute=lambda rows: rows.assign(rate=[0.1, np.nan]))


def test_rows_that_come_back_in_another_order_are_compared_by_transaction():
    features = pd.DataFrame({"transaction_id": ["t1", "t2"], "rate": [0.1, 0.2]})
    swapped = pd.DataFrame({"transaction_id": ["t2", "t1"], "rate": [0.1, 0.2]})

    check_no_future(features, recompute=lambda rows: rows.iloc[::-1])
    with pytest.raises(LeakAlarm, match=r"transaction t1 is 0\.1, but 0\.2"):
        check_no_future(features, recompute=lambda _: swapped)


def test_every_alarm_is_a_value_error_of_one_line():
    with pytest.raises(ValueError, match="leak alarm") as alarm:
        check_average_precision(0.99, model="pytorch", max_average_precision=0.97)

    assert "\n" not in str(alarm.value)
