"""An empty database as Feast makes it, at no time's cost."""

import sqlite3

from features.feast_layout import PROJECT
from features.fraud_state import STATE_KEYS


def make_feast_tables(path):
    """Make the tables as Feast's SQLite store does (``feast/infra/online_stores/sqlite.py``)."""
    connection = sqlite3.connect(path)
    for state in STATE_KEYS:
        connection.execute(
            f"CREATE TABLE {PROJECT}_{state}_state (entity_key BLOB, feature_name TEXT,"
            " value BLOB, vector_value BLOB, event_ts timestamp, created_ts timestamp,"
            " PRIMARY KEY(entity_key, feature_name))"
        )
    connection.commit()
    connection.close()
