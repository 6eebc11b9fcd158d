"""A history becomes train, calibration and test slices in time order, with the label delay between.

Invariant: no slice holds a row whose truth was unknown when the slice would have been used. The
test period plays the future of a model deployed at its first instant ``T``, so everything before
it must have been labelled by ``T``; a tuning fold repeats the same inside the training slice.

::

    |- warm-up -|-------- train --------|- calibration -|- label delay -|- test -|- delay -|
                                                                        T        M        now
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Slice:
    """Events of ``[start_time, end_time)`` whose truth was known by ``known_by_time``."""

    start_time: pd.Timestamp
    end_time: pd.Timestamp
    known_by_time: pd.Timestamp

    def select(
        self, event_time: pd.Series[Any], *, label_time: pd.Series[Any]
    ) -> npt.NDArray[np.bool_]:
        """Say which rows belong to the slice.

        Args:
            event_time: When each row happened, UTC.
            label_time: When each row's truth arrived, UTC; missing where it never did.

        Returns:
            One flag per row, in order; never true for a row without a label time.

        >>> day = pd.date_range("2026-01-01", periods=3, tz="UTC").to_series()
        >>> two_days = Slice(day.iloc[0], day.iloc[2], known_by_time=day.iloc[2])
        >>> two_days.select(day, label_time=day + pd.Timedelta(days=1)).tolist()
        [True, True, False]
        """
        inside = (event_time >= self.start_time) & (event_time < self.end_time)
        return np.asarray(inside & (label_time <= self.known_by_time), dtype=bool)

    def describe(self) -> dict[str, str]:
        """Return the bounds as ISO 8601 text, for JSON."""
        return {"start_time": self.start_time.isoformat(), "end_time": self.end_time.isoformat()}


@dataclass(frozen=True)
class Fold:
    """One step of prequential validation: fit on ``train``, judge on the later ``validation``."""

    train: Slice
    validation: Slice


@dataclass(frozen=True)
class TimeSplit:
    """The slices of one training run; ``folds`` lie inside ``train``, oldest first."""

    now: pd.Timestamp
    train: Slice
    calibration: Slice
    test: Slice
    folds: tuple[Fold, ...]

    def describe(self) -> dict[str, Any]:
        """Return every bound as ISO 8601 text, for JSON."""
        return {
            "now": self.now.isoformat(),
            "train": self.train.describe(),
            "calibration": self.calibration.describe(),
            "test": self.test.describe(),
            "folds": [fold.validation.describe() for fold in self.folds],
        }


def build_time_split(
    now: pd.Timestamp,
    *,
    first_event_time: pd.Timestamp,
    label_delay_days: int,
    warm_up_days: int,
    train_days: int,
    calibration_days: int,
    test_days: int,
    num_folds: int,
    fold_days: int,
) -> TimeSplit:
    """Lay the slices out backwards from the latest instant whose labels have matured.

    Args:
        now: The instant at which training runs, UTC; nothing later exists yet.
        first_event_time: When the history begins, UTC.
        label_delay_days: Days after which a transaction without a report counts as legitimate.
        warm_up_days: Days at the start that only fill the feature windows.
        train_days: Length of the training slice; shorter where the history is shorter.
        calibration_days: Length of the calibration slice.
        test_days: Length of the test slice.
        num_folds: How many validation periods the training slice ends with.
        fold_days: Length of each validation period.

    Returns:
        Slices of whole UTC days that share no row; the last fold ends where training ends.

    Raises:
        ValueError: If the history is too short to leave the first fold a day to train on.

    Source: prequential validation with a delay period, Fraud Detection Handbook, chapter 5.
    """
    delay = pd.Timedelta(days=label_delay_days)
    test_end = (now - delay).floor("D")
    deployed = test_end - pd.Timedelta(days=test_days)
    calibration_end = deployed - delay
    train_end = calibration_end - pd.Timedelta(days=calibration_days)
    train_start = max(
        (first_event_time + pd.Timedelta(days=warm_up_days)).ceil("D"),
        train_end - pd.Timedelta(days=train_days),
    )
    needed_days = num_folds * fold_days + label_delay_days + 1
    if train_days < needed_days:
        raise ValueError(
            f"training.train_days is {train_days}; {num_folds} folds of {fold_days} days after a "
            f"label delay of {label_delay_days} days need at least {needed_days}"
        )
    left_days = max((train_end - train_start).days, 0)
    if left_days < needed_days:
        raise ValueError(
            f"the history is too short: from {first_event_time:%Y-%m-%d} to {now:%Y-%m-%d}, "
            f"warm-up, calibration, test and label delays leave {left_days} days to train on, and "
            f"training.num_folds, fold_days and the label delay need {needed_days} days; use more "
            "data, or lower num_folds, fold_days or warm_up_days"
        )
    return TimeSplit(
        now=now,
        train=Slice(train_start, train_end, known_by_time=deployed),
        calibration=Slice(train_end, calibration_end, known_by_time=deployed),
        test=Slice(deployed, test_end, known_by_time=now),
        folds=tuple(
            _build_fold(
                train_end - pd.Timedelta(days=fold_days * steps_back),
                train_start=train_start,
                validation_days=fold_days,
                delay=delay,
                known_by_time=deployed,
            )
            for steps_back in range(num_folds, 0, -1)
        ),
    )


def _build_fold(
    validation_start: pd.Timestamp,
    *,
    train_start: pd.Timestamp,
    validation_days: int,
    delay: pd.Timedelta,
    known_by_time: pd.Timestamp,
) -> Fold:
    """Train on what was labelled when the validation begins, judge on the days that follow."""
    validation_end = validation_start + pd.Timedelta(days=validation_days)
    return Fold(
        train=Slice(train_start, validation_start - delay, known_by_time=validation_start),
        validation=Slice(validation_start, validation_end, known_by_time=known_by_time),
    )
