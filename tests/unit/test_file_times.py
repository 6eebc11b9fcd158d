"""Times in every form a file may hold become UTC, or an error that names the column."""

import pandas as pd
import pytest
from pydantic import ValidationError

from data.file_times import TimeColumn, read_times


def read(values, **source):
    return read_times(pd.Series(values), source=TimeColumn(column="paid_at", **source))


def test_texts_with_one_offset_become_utc_microseconds():
    times = read(["2026-03-01T12:00:00+02:00", "2026-03-01 12:00:00.123456+0200", None])
    assert str(times.dtype) == "datetime64[us, UTC]"
    assert times[0] == pd.Timestamp("2026-03-01T10:00:00Z")
    assert times[1] == pd.Timestamp("2026-03-01T10:00:00.123456Z")
    assert pd.isna(times[2])


def test_every_way_to_write_utc_is_the_same_zone():
    times = read([f"2026-03-01 12:00:00{zone}" for zone in ("Z", " UTC", "+00:00", "+0000", "+00")])
    assert (times == pd.Timestamp("2026-03-01T12:00:00Z")).all()


def test_an_unreadable_text_is_missing_and_does_not_count_as_a_zone():
    assert read(["2026-03-01T12:00:00Z", "soon", "2026-13-01T12:00:00Z"]).isna().tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2026-03-01T12:00:00"], "column paid_at holds times without a time zone, as '2026"),
        (["2026-03-01"], "column paid_at holds times without a time zone"),
        (
            ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00"],
            "without a time zone, as '2026-03-01T12:00:00' and others with one, as '.*Z'",
        ),
        (
            ["2026-03-01T12:00:00+01:00", "2026-04-01T12:00:00+02:00"],
            "column paid_at mixes time zones, as '.*01:00' and '.*02:00'",
        ),
        ([1, 2, 3], "column paid_at holds numbers; say what they count"),
        (pd.date_range("2026-03-01", periods=2), "column paid_at holds times without a time zone"),
    ],
)
def test_times_whose_zone_is_not_clear_are_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        read(values)


def test_a_named_zone_reads_local_times_and_leaves_those_with_an_offset_alone():
    times = read(["2026-07-01 12:00:00", "2026-07-01 12:00:00+00:00"], time_zone="Europe/Paris")
    assert times[0] == pd.Timestamp("2026-07-01T10:00:00Z")
    assert times[1] == pd.Timestamp("2026-07-01T12:00:00Z")
    stamps = read(pd.date_range("2026-07-01", periods=1), time_zone="Europe/Paris")
    assert stamps[0] == pd.Timestamp("2026-06-30T22:00:00Z")


def test_a_local_time_the_clock_showed_twice_or_never_is_missing():
    times = read(
        ["2026-10-25 02:30:00", "2026-03-29 02:30:00", "2026-10-25 03:30:00"],
        time_zone="Europe/Paris",
    )
    assert times.isna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [
        ("us", 1_772_366_400_123_456, "2026-03-01T12:00:00.123456Z"),
        ("ms", 1_772_366_400_000, "2026-03-01T12:00:00Z"),
        ("s", 1_772_366_400.25, "2026-03-01T12:00:00.25Z"),
        ("h", 24, "1970-01-02T00:00:00Z"),
        ("D", 1.5, "1970-01-02T12:00:00Z"),
    ],
)
def test_numbers_count_from_1970_in_their_unit(unit, number, expected):
    assert read([number], unit=unit)[0] == pd.Timestamp(expected)


def test_numbers_count_from_the_origin_whatever_its_zone():
    times = read([60, "x", None, 1e300], unit="s", origin="2026-03-01T01:00:00+01:00")
    assert times[0] == pd.Timestamp("2026-03-01T00:01:00Z")
    assert times.isna().tolist() == [False, True, True, True]


def test_a_format_reads_what_iso_does_not():
    times = read(["31/12/2025 23:59"], format="%d/%m/%Y %H:%M", time_zone="UTC")
    assert times[0] == pd.Timestamp("2025-12-31T23:59:00Z")


@pytest.mark.parametrize(
    "settings",
    [
        {"unit": "s", "time_zone": "UTC"},
        {"origin": "2026-01-01T00:00:00Z"},
        {"unit": "s", "origin": "2026-01-01T00:00:00"},
        {"unit": "weeks"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValidationError):
        TimeColumn(column="paid_at", **settings)
