"""The handbook's weeks, cards left out and metrics, on worlds a reader can count."""

import numpy as np
import pandas as pd
import pytest

from training.handbook import PUBLISHED_CALENDAR
from training.handbook_protocol import assess, find_day, split_folds, split_weeks


def make_rows(*rows):
    """Rows of day, customer, is_fraud."""
    table = pd.DataFrame(rows, columns=["day", "customer_id", "is_fraud"])
    return table.assign(time_seconds=table["day"] * 86_400 + 60)


def test_a_week_of_training_a_week_of_delay_a_week_of_test():
    rows = make_rows(*((day, day, False) for day in range(30)))
    split = split_weeks(rows, first_day=3)
    assert split.train.tolist() == list(range(3, 10))
    assert split.test.tolist() == list(range(17, 24))


def test_a_card_leaves_the_test_once_its_fraud_is_known_and_stays_out():
    frauds = [(2, 1, True), (9, 2, True), (10, 3, True)]  # training week 0 to 6, test 14 to 20
    uses = [(day, card, False) for day in range(14, 21) for card in (1, 2, 3, 4)]
    rows = make_rows(*frauds, *uses)
    kept = rows.iloc[split_weeks(rows, first_day=0).test]
    days = {card: part["day"].tolist() for card, part in kept.groupby("customer_id")}
    assert days == {
        2: [14, 15, 16],  # known from day 17 on: the day after 9 + 7
        3: [14, 15, 16, 17],
        4: list(range(14, 21)),
    }
    everything = split_weeks(rows, first_day=0, drop_known_cards=False).test
    assert len(everything) == len(uses)


def test_frauds_before_the_training_week_leave_a_card_in_as_the_handbook_does():
    rows = make_rows((0, 1, True), (15, 1, False))
    assert split_weeks(rows, first_day=1).test.tolist() == [1]


def test_folds_are_counted_back_by_a_week():
    rows = make_rows(*((day, day, False) for day in range(60)))
    folds = split_folds(rows, last_first_day=30, num_folds=3)
    assert [fold.train[0] for fold in folds] == [30, 23, 16]
    assert [fold.test[0] for fold in folds] == [44, 37, 30]


def test_every_label_used_to_choose_is_known_before_the_first_test_week():
    calendar = PUBLISHED_CALENDAR
    last_validated = calendar.last_validation_day + 20
    first_tested = calendar.last_test_day - 7 * (calendar.num_folds - 1) + 14
    assert last_validated + 7 < first_tested
    assert calendar.last_test_day == find_day("2018-08-15")
    assert first_tested == find_day("2018-08-08")


def test_card_precision_counts_cards_and_forgets_those_caught():
    """Card 7 is caught on the first day; on the second only card 8's fraud is new."""
    rows = make_rows((0, 7, True), (0, 7, False), (0, 9, False), (1, 7, True), (1, 8, True))
    metrics = assess(rows, np.arange(5), np.array([0.9, 0.1, 0.2, 0.9, 0.8]))
    assert metrics["card_precision_at_100"] == pytest.approx((1 / 100 + 1 / 100) / 2)


def test_only_the_hundred_riskiest_cards_are_looked_at():
    rows = make_rows(*((0, card, card == 100) for card in range(150)))
    scores = -np.arange(150.0)
    assert assess(rows, np.arange(150), scores)["card_precision_at_100"] == 0.0
    assert assess(rows, np.arange(150), -scores)["card_precision_at_100"] == 0.01
