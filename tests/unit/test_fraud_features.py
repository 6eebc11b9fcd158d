"""Each fraud feature at values a reader can check by hand, and the choice of features."""

import numpy as np
import pandas as pd
import pytest

from data.fraud_columns import TRANSACTION_COLUMNS
from features.fraud import (
    DERIVED,
    amount_to_merchant_mean,
    customer_amount_zscore_7d,
    day_of_week,
    derive,
    hour_cos,
    hour_sin,
    ip_distance_km_from_usual,
    is_far_and_fast,
    is_known_device,
    is_new_merchant_and_high_amount,
    is_night,
    is_weekend,
)
from features.fraud_selection import NEEDS, select_features
from features.fraud_windows import (
    PRIOR_FRAUD_RATE,
    Grouped,
    aggregate_customer_places,
    aggregate_label_days,
    to_unit_vectors,
)
from features.windows import DAY, HOUR


def floats(*values):
    return np.array(values, dtype=np.float64)


def microseconds(*times):
    return pd.DatetimeIndex(times).as_unit("us").asi8


def test_the_day_of_week_agrees_with_pandas_before_and_after_1970():
    times = pd.date_range("1969-12-20", periods=40, freq="D")
    assert (day_of_week(microseconds(*times)) == times.dayofweek).all()


def test_saturday_and_sunday_are_the_weekend():
    assert is_weekend(floats(4, 5, 6, 0)).tolist() == [0, 1, 1, 0]


def test_night_ends_at_six_sharp():
    times = microseconds("2026-01-01T00:00:00", "2026-01-01T05:59:59", "2026-01-01T06:00:00")
    assert is_night(times).tolist() == [1, 1, 0]


def test_six_in_the_morning_points_up_and_noon_points_left():
    six, noon = microseconds("2026-01-01T06:00:00", "2026-01-01T12:00:00")
    assert np.allclose(hour_sin(np.array([six, noon])), [1, 0], atol=1e-12)
    assert np.allclose(hour_cos(np.array([six, noon])), [0, -1], atol=1e-12)


def test_a_zscore_counts_deviations_and_equal_amounts_count_currency_units():
    zscores = customer_amount_zscore_7d(floats(30, 30), floats(10, 10), floats(5, 0))
    assert zscores.tolist() == [4.0, 20.0]


def test_the_ratio_to_a_merchant_without_history_is_unknown():
    ratio = amount_to_merchant_mean(floats(10, 10, 10), floats(5, np.nan, 0))
    assert ratio[0] == 2.0
    assert np.isnan(ratio[1:]).all()


@pytest.mark.parametrize(
    ("place", "usual", "kilometres"),
    [
        ((0.0, 0.0), (0.0, 0.0), 0.0),
        ((0.0, 90.0), (0.0, 0.0), 6371.0088 * np.pi / 2),
        ((0.0, 180.0), (0.0, 0.0), 6371.0088 * np.pi),
        ((90.0, 0.0), (-90.0, 17.0), 6371.0088 * np.pi),
        ((0.0, 179.5), (0.0, -179.5), 6371.0088 * np.pi / 180),
    ],
)
def test_distances_are_great_circles_also_across_the_date_line(place, usual, kilometres):
    distance = ip_distance_km_from_usual(
        floats(place[0]), floats(place[1]), *to_unit_vectors(floats(usual[0]), floats(usual[1]))
    )
    assert distance[0] == pytest.approx(kilometres, abs=1e-6)


def test_the_usual_place_of_a_customer_on_the_date_line_is_on_the_date_line():
    groups = Grouped(np.array([0, 1]), np.array([0, 2]), np.array([2]), np.array([0, 1]))
    usual = aggregate_customer_places(groups, floats(0, 0), floats(179, -179))
    assert usual["customer_usual_x"][0] == pytest.approx(-np.cos(np.radians(1)))
    assert usual["customer_usual_y"][0] == pytest.approx(0, abs=1e-12)


def test_flags_are_unknown_where_what_they_ask_about_is_unknown():
    nan = np.nan
    assert np.isnan(is_known_device(floats(nan))[0])
    assert np.isnan(is_new_merchant_and_high_amount(floats(0), floats(nan))[0])
    assert np.isnan(is_far_and_fast(floats(nan), floats(10))[0])


def test_a_new_merchant_needs_a_high_amount_too():
    flags = is_new_merchant_and_high_amount(floats(0, 0, 1), floats(2.5, 2.0, 2.5))
    assert flags.tolist() == [1, 0, 0]


def test_far_and_fast_needs_both():
    assert is_far_and_fast(floats(101, 101, 99), floats(3599, 3600, 3599)).tolist() == [1, 0, 0]


def label_rate_at(hours, *, num_labels, num_frauds):
    groups = Grouped(np.array([0]), np.array([0, 1]), np.array([hours * HOUR]), np.array([0, 1]))
    return aggregate_label_days(groups, np.array([num_labels]), np.array([num_frauds]))[0]


def test_labels_count_from_the_day_after_they_arrived():
    assert label_rate_at(23, num_labels=50, num_frauds=50) == PRIOR_FRAUD_RATE
    assert label_rate_at(24, num_labels=50, num_frauds=50) == pytest.approx(50.5 / 100)


def test_labels_are_forgotten_after_thirty_whole_days():
    assert label_rate_at(30 * 24, num_labels=50, num_frauds=50) == pytest.approx(0.505)
    assert label_rate_at(31 * 24, num_labels=50, num_frauds=50) == PRIOR_FRAUD_RATE


def test_every_function_is_reached_from_the_request_and_the_windows():
    inputs = {"amount": floats(10), "event_time_us": np.array([DAY])}
    assert set(derive(inputs)) == {
        "amount_log", "hour_sin", "hour_cos", "day_of_week", "is_weekend", "is_night",
    }  # fmt: skip
    assert set(DERIVED) <= set(NEEDS)


def test_a_full_transaction_drops_nothing():
    transactions = pd.DataFrame(columns=list(TRANSACTION_COLUMNS))
    chosen = select_features(transactions)
    assert chosen.dropped == {}
    assert chosen.names == tuple(NEEDS)


def test_missing_columns_drop_exactly_the_features_that_need_them():
    chosen = select_features(pd.DataFrame({"amount": [1.0], "merchant_id": ["m"]}))
    assert chosen.dropped["is_known_device"] == "needs column device_id"
    assert chosen.dropped["is_far_and_fast"] == "needs column latitude and longitude"
    assert "merchant_fraud_rate" in chosen.names


def test_extra_columns_pass_through_by_their_type():
    chosen = select_features(pd.DataFrame({"amount": [1.0], "v1": [0.5], "browser": ["x"]}))
    assert chosen.numeric[-1] == "v1"
    assert chosen.categorical == ("browser",)
