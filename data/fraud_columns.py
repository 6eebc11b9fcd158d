"""The names of a transaction's columns: the vocabulary every stage of the fraud problem shares."""

import pandas as pd

TRANSACTION_COLUMNS = (
    *("transaction_id", "event_time", "customer_id", "card_type", "merchant_id"),
    *("merchant_category", "amount", "ip", "device_id", "latitude", "longitude"),
)
"""All others of a user's own columns are extra, and pass through as features."""

MAX_AMOUNT = 1e12
"""Beyond it a number is a slip of the keyboard, in any currency."""
EARLIEST_TIME = pd.Timestamp("1970-01-01", tz="UTC").as_unit("us")
LATEST_TIME = pd.Timestamp("2100-01-01", tz="UTC").as_unit("us")
