from itertools import pairwise

import pandas as pd
import pytest

from data.time_split import Slice, build_time_split

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2026-01-01", tz="UTC")
DAYS = {
    "label_delay_days": 7,
    "warm_up_days": 30,
    "train_days": 40,
    "calibration_days": 7,
    "test_days": 5,
    "num_folds": 2,
    "fold_days": 6,
}


def split_at(now, **changes):
    return build_time_split(now, first_event_time=START, **{**DAYS, **changes})


def test_slices_are_laid_out_backwards_from_the_latest_matured_day():
    split = split_at(START + 100 * DAY)

    assert split.test.end_time == START + 93 * DAY
    assert split.test.start_time == START + 88 * DAY
    assert split.calibration.end_time == START + 81 * DAY
    assert split.train.end_time == split.calibration.start_time == START + 74 * DAY
    assert split.train.start_time == START + 34 * DAY


def test_training_starts_after_the_warm_up_where_the_history_is_short():
    assert split_at(START + 80 * DAY).train.start_time == START + 30 * DAY


def test_every_bound_is_midnight_whatever_the_hour_of_now():
    late = split_at(START + 100 * DAY + pd.Timedelta(hours=17)).describe()

    assert late["now"] == "2026-04-11T17:00:00+00:00"
    assert {**late, "now": None} == {**split_at(START + 100 * DAY).describe(), "now": None}


def test_everything_before_the_test_was_labelled_when_the_test_begins():
    split = split_at(START + 100 * DAY)
    delay = DAYS["label_delay_days"] * DAY

    for part in (split.train, split.calibration):
        assert part.end_time + delay <= split.test.start_time
        assert part.known_by_time == split.test.start_time


def test_a_fold_trains_only_on_what_was_labelled_before_its_validation_begins():
    split = split_at(START + 100 * DAY)

    assert len(split.folds) == 2
    for fold in split.folds:
        assert fold.train.end_time + 7 * DAY == fold.validation.start_time
        assert fold.train.known_by_time == fold.validation.start_time
        assert fold.train.start_time == split.train.start_time


def test_folds_follow_each_other_up_to_the_end_of_training():
    split = split_at(START + 100 * DAY)

    assert split.folds[-1].validation.end_time == split.train.end_time
    for earlier, later in pairwise(split.folds):
        assert earlier.validation.end_time == later.validation.start_time


def test_a_row_whose_truth_came_too_late_or_never_is_in_no_slice():
    part = Slice(START, START + 2 * DAY, known_by_time=START + 9 * DAY)
    event_time = pd.Series([START] * 4)
    label_time = pd.Series([START + 9 * DAY, START + 10 * DAY, pd.NaT, START])

    assert part.select(event_time, label_time=label_time).tolist() == [True, False, False, True]


def test_a_slice_holds_its_first_instant_and_not_its_last():
    part = Slice(START, START + DAY, known_by_time=START + 9 * DAY)
    event_time = pd.Series([START - pd.Timedelta(microseconds=1), START, START + DAY])

    assert part.select(event_time, label_time=event_time).tolist() == [False, True, False]


def test_a_short_history_is_an_error_that_says_how_many_days_are_needed():
    with pytest.raises(
        ValueError, match=r"history is too short: .* leave \d+ days .* 20 days; use"
    ):
        split_at(START + 70 * DAY)


def test_folds_that_cannot_fit_into_training_are_an_error_that_names_the_key():
    with pytest.raises(ValueError, match=r"training\.train_days is 15; .* at least 20"):
        split_at(START + 300 * DAY, train_days=15)
