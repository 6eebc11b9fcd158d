"""Whatever the stream brings, four ways to the features agree, and so does the score.

Offline replay, Feast's ``get_online_features``, the service's compiled rows and SQL in DuckDB are
asked for the same transactions, each online one at the moment it happened: what follows it is not
there yet.
"""

import shutil
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs.schema import load_fraud_config
from features.fraud_history import to_times
from features.fraud_replay import replay_features
from features.fraud_selection import NEEDS
from features.fraud_stream import connect_stream
from features.publish import publish_labels
from features.store import read_online_features, read_training_features
from features.store_build import build_feature_store
from features.windows import DAY, HOUR, SECOND
from tests.frame_reader import open_frame_reader
from tests.parity.duckdb_oracle import compute_by_duckdb
from training.artefact import Artefact
from training.calibration import Calibration
from training.encoding import Encoding
from training.gbdt import fit_trees
from training.model_spec import ModelSpec
from training.operating_point import Thresholds
from training.scorers import TreeScorer

TOLERANCE = 1e-9
START = int(pd.Timestamp("2026-01-01T05:30:00Z").value // 1000)
LATENESS = (0, 0, 0, -SECOND, 1, SECOND, 10 * SECOND, HOUR - 1, HOUR)
"""How long transactions take to reach their publisher; an hour is just not too late."""
EDGES = (0, SECOND, HOUR, DAY, 7 * DAY, 30 * DAY)
STEPS = (*(max(edge + off, 0) for edge in EDGES for off in (-1, 0, 1)), 31 * DAY, 45 * DAY)
"""From an earlier event of the stream to the next one: ties, bursts, window edges, gaps."""


def some(*values):
    return st.sampled_from(values)


events = st.fixed_dictionaries(
    {
        "anchor": st.integers(0, 5),  # how many events back the step is measured from
        "step": st.sampled_from(STEPS),
        "late": st.sampled_from(LATENESS),
        "is_doubled": st.booleans(),
        "customer_id": some("c1", "c1", "c2", "ça va?"),
        "merchant_id": some("m1", "m2", "m3", None),
        "merchant_category": some("food", "travel", None),
        "ip": some("1.1.1.1", "::1", None),
        "device_id": some("d1", "d2", None),
        "card_type": some("debit", "credit"),
        "amount": some(0.0, 0.01, 7.31, 19.99, 103.7, 2_500.13),
        "place": some((52.52, 13.41), (48.14, 11.58), (0.1, 179.9), (0.1, -179.9), None),
        "label_delay": some(None, 0, DAY // 2, 3 * DAY),
        "is_fraud": st.booleans(),
    }
)
streams = st.lists(events, min_size=2, max_size=10)


def build_stream(drawn):
    """Lay the drawn events out in time."""
    times = []
    for event in drawn:
        anchor = times[max(0, len(times) - 1 - event["anchor"])] if times else START
        times.append(anchor + event["step"])
    rows = pd.DataFrame(drawn).assign(
        transaction_id=[f"t{number}" for number in range(len(drawn))], time=times
    )
    place = [event["place"] or (np.nan, np.nan) for event in drawn]
    rows["latitude"], rows["longitude"] = np.array(place, dtype=np.float64).T
    rows["event_time"] = to_times(rows["time"].to_numpy(np.int64))
    rows["available"] = rows["time"] + rows["late"]
    return rows


COLUMNS = [
    *("transaction_id", "event_time", "customer_id", "card_type", "merchant_id"),
    *("merchant_category", "amount", "ip", "device_id", "latitude", "longitude"),
]


def pick_labels(rows):
    labelled = rows[rows["label_delay"].notna()]
    delays = labelled["label_delay"].to_numpy(np.int64)
    return pd.DataFrame(
        {
            "transaction_id": labelled["transaction_id"].astype(object),
            "is_fraud": labelled["is_fraud"].astype(bool),
            "label_time": to_times(labelled["time"].to_numpy(np.int64) + delays),
        }
    ).reset_index(drop=True)


@pytest.fixture(scope="module")
def champion():
    """Trees that look at every feature, fitted to a truth that many of them have a part in."""
    rng = np.random.default_rng(0)
    names = tuple(name for name in NEEDS if name != "card_type")
    matrix = rng.normal(0, 3, (600, len(names)))
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    encoding = Encoding(names, {})
    is_fraud = np.nansum(matrix * rng.normal(size=len(names)), axis=1) > 0
    content = fit_trees(
        matrix, is_fraud, encoding=encoding,
        parameters={"num_trees": 40, "num_leaves": 15, "min_data_in_leaf": 5, "learning_rate": 0.2},
        seed=0, num_threads=1,
    )  # fmt: skip
    spec = ModelSpec(
        kind="lightgbm", encoding=encoding, calibration=Calibration(1.0, 0.0),
        thresholds=Thresholds(0.3, 0.8, 0.0), request_features=(),
        train_start_time="", train_end_time="", data_hash="", metrics={}, parameters={},
    )  # fmt: skip
    return Artefact(spec, TreeScorer(content))


class World:
    """A feature store whose online half is emptied for each stream; building one costs a second."""

    def __init__(self, runs, redis_url):
        template = build_stream([PLAIN]).assign(transaction_id="template", customer_id="nobody")
        self.runs = runs
        self.store = build_feature_store(
            runs, template[COLUMNS], pick_labels(template).head(0),
            as_of=template["event_time"].iloc[0], redis_url=redis_url,
        )  # fmt: skip
        self.settings = load_fraud_config().stream.model_copy(update={"wait_seconds": 0.001})

    def start_stream(self):
        """Forget everything that was streamed before."""
        shutil.rmtree(self.runs / "stream", ignore_errors=True)
        stream = connect_stream(self.runs, self.store, self.settings)
        stream.states.clear()
        stream.states.mark_whole()
        return stream


PLAIN = {
    "anchor": 0, "step": 0, "late": 0, "is_doubled": False, "customer_id": "c1",
    "merchant_id": "m1", "merchant_category": "food", "ip": "::1", "device_id": "d1",
    "card_type": "debit", "amount": 7.31, "place": (52.52, 13.41), "label_delay": 0,
    "is_fraud": True,
}  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def stream_world(request, tmp_path_factory):
    url = None
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
    world = World(tmp_path_factory.mktemp("runs"), url)
    with open_frame_reader(world.store.folder, url) as world.rows:
        yield world


def list_asks(rows):
    """Say after which arrival each transaction is asked: once all that happened before are there.

    Returns:
        Positions of ``rows``, by position in the order of arrival.
    """
    arrival = rows["available"].rank(method="first").astype(int) - 1
    asks = {}
    for row, time in enumerate(rows["time"]):
        earlier = arrival[rows["time"] < time].max() if (rows["time"] < time).any() else -1
        asks.setdefault(max(int(earlier), int(arrival[row])), []).append(row)
    return asks


def ask_online(world, rows, readers):
    """Stream the rows as they arrive; read each one's features as it happens, with each reader."""
    stream = world.start_stream()
    processor = stream.make_processor()
    labels, asks = pick_labels(rows), list_asks(rows)
    answers = {name: {} for name in readers}
    for position, row in enumerate(rows.sort_values("available", kind="stable").index):
        arrived = rows.loc[[row, row] if rows["is_doubled"][row] else [row]]
        for available, group in arrived.groupby("available"):
            stream.publish(group[COLUMNS], available_time=to_times(np.array([available]))[0])
        processor.run(until_empty=True)
        for asked in asks.get(position, ()):
            today = rows["event_time"][asked].normalize()
            publish_labels(stream.states, rows, labels[labels["label_time"] < today])
            request = rows.loc[[asked], COLUMNS].reset_index(drop=True)
            for name, read in readers.items():
                answers[name][asked] = read(world, request)
    assert processor.counts.accepted == len(rows)
    assert processor.counts.duplicates == rows["is_doubled"].sum()
    return {
        name: pd.concat([found[row] for row in range(len(rows))], ignore_index=True)
        for name, found in answers.items()
    }


READERS = {
    "Feast": lambda world, request: read_online_features(world.store, request),
    "the service's rows": lambda world, request: world.rows.read(request),
}


def assert_same(expected, found, *, name):
    for feature in NEEDS:
        if feature != "card_type":
            np.testing.assert_allclose(
                found[feature], expected[feature], rtol=TOLERANCE, atol=TOLERANCE,
                err_msg=f"{feature} by {name}",
            )  # fmt: skip


def edge(**changes):
    return {**PLAIN, **changes}


@settings(
    max_examples=25,
    deadline=timedelta(seconds=60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=streams)
@example(drawn=[edge(), edge(step=HOUR), edge(step=0), edge(step=1), edge(anchor=5, step=DAY)])
@example(drawn=[edge(), edge(step=30 * DAY, amount=0.01), edge(step=1), edge(step=45 * DAY)])
@example(drawn=[edge(is_doubled=True, late=HOUR), edge(step=SECOND, customer_id="c2")])
def test_replay_feast_the_services_rows_and_duckdb_agree_on_every_feature_and_the_score(
    stream_world, champion, drawn
):
    rows = build_stream(drawn)
    labels = pick_labels(rows)
    found = ask_online(stream_world, rows, READERS)
    in_time_order = rows.sort_values("time", kind="stable")[COLUMNS]
    found["replay"] = replay_features(in_time_order, labels, rows[COLUMNS])
    expected = compute_by_duckdb(rows[COLUMNS], labels)
    for name, features in found.items():
        assert_same(expected, features, name=name)
    scores = {name: champion.predict(features) for name, features in found.items()}
    scores["DuckDB"] = champion.predict(expected)
    for name, score in scores.items():
        np.testing.assert_allclose(score, scores["replay"], rtol=0, atol=TOLERANCE, err_msg=name)


@settings(max_examples=4, deadline=None)
@given(drawn=streams)
@example(drawn=[edge(), edge(step=7 * DAY), edge(step=30 * DAY, is_fraud=False), edge(step=1)])
def test_feasts_training_join_and_duckdb_agree_on_every_feature(tmp_path_factory, drawn):
    rows = build_stream(drawn)
    labels, in_time_order = pick_labels(rows), rows.sort_values("time", kind="stable")[COLUMNS]
    store = build_feature_store(
        tmp_path_factory.mktemp("built"), in_time_order, labels,
        as_of=in_time_order["event_time"].iloc[-1],
    )  # fmt: skip
    joined = read_training_features(store, rows[COLUMNS])
    assert_same(compute_by_duckdb(rows[COLUMNS], labels), joined, name="Feast's training join")
