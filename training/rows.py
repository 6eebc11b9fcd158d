"""Transactions, their truth and their model inputs side by side, for one slice of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.time_split import Slice
from training.encoding import Booleans, Floats, Integers


@dataclass(frozen=True)
class LabelledRows:
    """Rows in time order; one that stands for several is there several times.

    Attributes:
        transactions: The contract's columns beside ``is_fraud``, ``label_time`` (both missing where
            the truth never arrived) and ``fraud_pattern`` ("" unless the truth names one).
        matrix: Raw model columns. Shape ``(rows, features)``.
    """

    transactions: pd.DataFrame
    matrix: Floats

    def __len__(self) -> int:
        return len(self.transactions)

    def take(self, rows: Booleans) -> LabelledRows:
        """Keep the flagged rows."""
        return LabelledRows(self.transactions[rows], self.matrix[rows])

    def select(self, part: Slice) -> LabelledRows:
        """Keep the rows of a slice whose truth was known in time for it."""
        return self.take(
            part.select(self.transactions["event_time"], label_time=self.transactions["label_time"])
        )

    def take_once(self) -> LabelledRows:
        """Keep each transaction once, whatever it stands for."""
        return self.take(~self.transactions["transaction_id"].duplicated().to_numpy())

    @property
    def is_fraud(self) -> Booleans:
        """The truth; only meaningful after ``select``."""
        return self.transactions["is_fraud"].to_numpy(dtype=bool)

    @property
    def amounts(self) -> Floats:
        """Account currency."""
        return self.transactions["amount"].to_numpy(dtype=np.float64)

    @property
    def days(self) -> Integers:
        """A number per UTC day."""
        days: Integers = self.transactions["event_time"].dt.floor("D").astype("int64").to_numpy()
        return days


def check_both_classes(rows: LabelledRows, *, name: str) -> None:
    """Stop where a slice cannot teach or judge anything.

    Args:
        rows: The rows of a slice.
        name: What the slice is called, for the message.

    Raises:
        ValueError: If the slice holds no fraud, or nothing else.
    """
    num_frauds = int(rows.is_fraud.sum())
    if num_frauds in (0, len(rows)):
        raise ValueError(
            f"the {name} slice holds {num_frauds} frauds among {len(rows)} labelled transactions, "
            "and needs both kinds; use more data or longer slices (training.*_days)"
        )
