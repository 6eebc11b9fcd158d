"""The names of a transaction's columns: the vocabulary every stage of the fraud problem shares."""

TRANSACTION_COLUMNS = (
    *("transaction_id", "event_time", "customer_id", "card_type", "merchant_id"),
    *("merchant_category", "amount", "ip", "device_id", "latitude", "longitude"),
)
"""All others of a user's own columns are extra, and pass through as features."""
