"""Both readers of batches: what the store holds now, in the order asked, and nothing made up."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import numpy as np
import pytest
import redis

from features import redis_rows
from features.feast_layout import encode_redis_field, encode_redis_key, encode_value
from features.fraud_rows import COLUMNS, UNREADABLE
from features.fraud_state import CUSTOMER_EVENT, IP_EVENT, LABEL_DAY, MERCHANT_EVENT, pack
from features.redis_link import RedisLink
from features.redis_rows import RedisRows
from features.redis_states import RedisStates
from features.row_requests import build_row_requests
from features.row_states import compute_features
from features.sqlite_rows import SqliteRows
from features.sqlite_states import SqliteStates
from features.state_store import StoreEmptyError, Update
from features.windows import DAY
from serving.score_messages import Transaction
from tests.unit.feast_tables import make_feast_tables

NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


class Store:
    """A store, as those who write to it and those who read from it see it."""

    def __init__(self, states, open_rows):
        self.states, self.open_rows = states, open_rows
        self.states.clear()
        self.states.mark_whole()

    def write(self, state, entity, value):
        self.states.write([Update(state, entity, value, NOW_US)], lease=None)


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path):
    """A store that is whole and empty."""
    if request.param == "sqlite":
        path = tmp_path / "online.db"
        make_feast_tables(path)
        yield Store(SqliteStates(path), lambda: SqliteRows(lambda: SqliteStates(path)))
        return
    with open_redis_store(request.getfixturevalue("redis_url")) as opened:
        yield opened


@contextmanager
def open_redis_store(url):
    with redis.Redis.from_url(url, protocol=2) as client:
        yield Store(RedisStates(client), lambda: RedisRows(url))


def run(store, scenario):
    """Run ``scenario(rows)`` with a reader of its own."""

    async def play():
        with closing(store.open_rows()) as rows:
            return await asyncio.wait_for(scenario(rows), 120)  # the first compiles the kernel

    return asyncio.run(play())


def ask(*rows, **columns):
    """Make requests of (customer, merchant, category, ip)."""
    return build_row_requests(
        [
            Transaction(
                transaction_id="t", event_time=NOW, amount=10.0, customer_id=customer,
                merchant_id=merchant, merchant_category=category, ip=ip, **columns,
            )
            for customer, merchant, category, ip in rows
        ]
    )  # fmt: skip


def payments(*amounts, dtype=MERCHANT_EVENT):
    """Make a state of payments in the last seconds."""
    events = np.zeros(len(amounts), dtype)
    events["event_time"] = NOW_US - 1_000_000 * np.arange(len(amounts), 0, -1)
    if dtype is not IP_EVENT:
        events["amount"] = amounts
    else:
        events["customer"] = amounts
    return pack(events)


def labels(num_labels, num_frauds):
    day = np.zeros(1, LABEL_DAY)
    day["event_time"] = NOW_US - NOW_US % DAY - DAY
    day["num_labels"], day["num_frauds"] = num_labels, num_frauds
    return pack(day)


async def read_feature(rows, requests, name):
    await rows.read(requests)  # brings, before its replies, what Redis says has changed
    features, _ = compute_features(await rows.read(requests), requests)
    return features[:, COLUMNS.index(name)].tolist()


def test_customers_and_addresses_come_in_the_order_asked_and_unknown_ones_empty(store):
    ann, bob = payments(1.0, dtype=CUSTOMER_EVENT), payments(2.0, 3.0, dtype=CUSTOMER_EVENT)
    address = payments(11, 12, dtype=IP_EVENT)
    store.write("customer_events", "ann", ann)
    store.write("customer_events", "bob", bob)
    store.write("ip_events", "::1", address)
    requests = ask(
        ("bob", None, None, "::1"), ("?", None, None, None), ("ann", None, None, "?"),
        ("bob", None, None, "::1"),
    )  # fmt: skip

    async def scenario(rows):
        return await rows.read(requests)

    states = run(store, scenario)
    wrapped = [encode_value(state) for state in (ann, bob, address)]
    assert list(states.customers) == [wrapped[1], b"", wrapped[0], wrapped[1]]
    assert list(states.ips) == [wrapped[2], b"", b"", wrapped[2]]
    assert states.summaries.places.tolist() == [[-1, -1]] * 4


def test_a_merchant_written_by_another_process_is_seen_by_the_next_batch(store):
    requests = ask(("ann", "m1", None, None), ("bob", "m2", None, None))

    async def scenario(rows):
        seen = []
        for amounts in ((), (10.0,), (10.0, 30.0), (10.0, 30.0, 80.0)):
            store.write("merchant_events", "m1", payments(*amounts))
            seen.append(await read_feature(rows, requests, "merchant_amount_mean_30d"))
        return seen

    means = run(store, scenario)
    np.testing.assert_array_equal(
        means, [[np.nan, np.nan], [10.0, np.nan], [20.0, np.nan], [40.0, np.nan]]
    )


def test_labels_of_a_merchant_and_of_a_category_are_seen_by_the_next_batch(store):
    requests = ask(("ann", "m1", "food", None))

    async def scenario(rows):
        before = await read_feature(rows, requests, "merchant_fraud_rate")
        before += await read_feature(rows, requests, "merchant_category_risk")
        store.write("merchant_labels", "m1", labels(100, 50))
        store.write("category_labels", "food", labels(1000, 20))
        after = await read_feature(rows, requests, "merchant_fraud_rate")
        return before, after + await read_feature(rows, requests, "merchant_category_risk")

    before, after = run(store, scenario)
    assert before == [0.01, 0.01]  # what nothing is known of has the rate of all
    assert after[0] > 0.2
    assert 0.01 < after[1] < 0.02


def test_two_merchants_of_one_batch_keep_their_own_summaries(store):
    store.write("merchant_events", "m1", payments(10.0))
    store.write("merchant_events", "m2", payments(50.0, 70.0))
    requests = ask(*[("ann", merchant, None, None) for merchant in ("m2", None, "m1", "m2")])

    async def scenario(rows):
        return await read_feature(rows, requests, "merchant_amount_mean_30d")

    np.testing.assert_array_equal(run(store, scenario), [60.0, np.nan, 10.0, 60.0])


def test_a_flushed_store_is_an_error_and_not_an_empty_history_until_it_is_rebuilt(store):
    requests = ask(("ann", "m1", None, None))

    async def scenario(rows):
        await rows.read(requests)
        store.states.clear()
        with pytest.raises(StoreEmptyError):
            await rows.read(requests)
        store.write("merchant_events", "m1", payments(70.0))
        store.states.mark_whole()
        return await read_feature(rows, requests, "merchant_amount_mean_30d")

    store.write("merchant_events", "m1", payments(10.0))
    assert run(store, scenario) == [70.0]


def test_summaries_thrown_away_while_a_batch_is_under_way_are_read_again(store):
    store.write("merchant_events", "m1", payments(70.0))
    requests = ask(("ann", "m1", "food", None))

    async def scenario(rows):
        await rows.read(requests)
        reading = asyncio.create_task(rows.read(requests))
        await asyncio.sleep(0)  # what is missing was listed: nothing
        rows.summaries.clear()
        features, _ = compute_features(await reading, requests)
        return features[0, COLUMNS.index("merchant_amount_mean_30d")]

    assert run(store, scenario) == 70.0


def test_bytes_that_are_no_state_of_a_merchant_cost_its_rows_their_features_and_no_other(store):
    store.write("merchant_events", "m1", b"of a later release")
    store.write("merchant_events", "m2", payments(70.0))
    requests = ask(("ann", "m1", None, None), ("ann", "m2", None, None))

    async def scenario(rows):
        for _ in range(2):  # from the store, and as it is remembered
            features, marks = compute_features(await rows.read(requests), requests)
        return features[:, COLUMNS.index("merchant_amount_mean_30d")].tolist(), marks.tolist()

    means, marks = run(store, scenario)
    assert marks == [UNREADABLE, 0]
    assert np.isnan(means[0])
    assert means[1] == 70.0


def test_a_value_that_feast_would_not_have_written_costs_its_rows_their_features(redis_url):
    with redis.Redis.from_url(redis_url) as client, open_redis_store(redis_url) as store:
        store.write("merchant_events", "m1", payments(10.0))
        key = encode_redis_key("merchant_id", "m1")
        client.hset(key, encode_redis_field("merchant_events_state", "merchant_events"), b"?")
        requests = ask(("ann", "m1", None, None), ("ann", "m2", None, None))

        async def scenario(rows):
            _, marks = compute_features(await rows.read(requests), requests)
            return marks.tolist()

        assert run(store, scenario) == [UNREADABLE, 0]


def test_reads_that_wait_when_the_reader_is_closed_are_answered(tmp_path):
    make_feast_tables(tmp_path / "online.db")
    states = SqliteStates(tmp_path / "online.db")
    states.mark_whole()
    may_open = threading.Event()

    def open_states():
        may_open.wait(20)
        return states

    async def play():
        rows = SqliteRows(open_states)
        requests = ask(("ann", None, None, None))
        reading = [asyncio.create_task(rows.read(requests)) for _ in range(2)]
        await asyncio.sleep(0)
        rows.close()
        may_open.set()
        return await asyncio.wait_for(asyncio.gather(*reading), 20)

    assert [list(found.customers) for found in asyncio.run(play())] == [[b""]] * 2


class Wire(asyncio.Transport):
    """A transport that keeps nothing, and whether it was given up."""

    is_aborted = False

    def write(self, data):
        """Drop what is sent."""

    def abort(self):
        self.is_aborted = True


def run_on_a_wire(monkeypatch, scenario):
    """Run ``scenario(rows, link, wire)`` with a link whose replies the test makes up."""

    async def play():
        links = []

        async def open_wire(_, *, on_change):
            links.append(RedisLink(on_change))
            links[-1].connection_made(Wire())
            return links[-1]

        monkeypatch.setattr(redis_rows, "open_link", open_wire)
        with closing(RedisRows("redis://nowhere")) as rows:
            reading = asyncio.create_task(rows.read(ask(("ann", "m1", "food", None))))
            while not links:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            return await asyncio.wait_for(scenario(rows, links[-1], reading), 20)

    return asyncio.run(play())


NOTHING_OF_ANN, NOTHING_OF_M1, NOTHING_OF_FOOD = (
    b"_\r\n",
    b"+OK\r\n*2\r\n_\r\n_\r\n",
    b"+OK\r\n*1\r\n_\r\n",
)


def tell_of(key):
    """Make Redis' message that a key has changed."""
    return b">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n" % (len(key), key)


def test_a_merchant_that_changes_between_its_reply_and_the_batchs_last_is_read_again(monkeypatch):
    async def scenario(rows, link, reading):
        told = tell_of(encode_redis_key("merchant_id", "m1"))
        link.data_received(b":1\r\n" + NOTHING_OF_ANN + NOTHING_OF_M1 + told)
        link.data_received(NOTHING_OF_FOOD)
        await reading
        return rows.summaries.list_missing(["m1"], ["food"])

    assert run_on_a_wire(monkeypatch, scenario) == (["m1"], [])


@pytest.mark.parametrize("reply", [b":1\r\n", b""], ids=["slow", "silent"])
def test_a_link_is_given_up_with_a_batch_only_if_it_said_nothing_meanwhile(monkeypatch, reply):
    async def scenario(_, link, reading):
        if reply:
            link.data_received(reply)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return link.is_open

    assert run_on_a_wire(monkeypatch, scenario) is bool(reply)


def test_what_was_known_of_merchants_answers_while_a_flushed_redis_is_empty(redis_url):
    requests = ask(("ann", "m1", "food", None))
    with open_redis_store(redis_url) as store:
        store.write("merchant_events", "m1", payments(10.0))

        async def scenario(rows):
            await rows.read(requests)
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            with pytest.raises(StoreEmptyError):
                await rows.read(requests)
            missing = rows.summaries.list_missing(requests.merchants, requests.categories)
            return rows.summaries.has(requests, 0), missing

        assert run(store, scenario) == (True, (["m1"], ["food"]))


def count_merchant_reads(client):
    return client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"]


def test_a_merchant_that_did_not_change_is_read_from_redis_once(redis_url):
    requests = ask(*[("ann", "m1", None, None)] * 3)
    with redis.Redis.from_url(redis_url) as client, open_redis_store(redis_url) as store:
        store.write("merchant_events", "m1", payments(10.0))
        client.config_resetstat()

        async def scenario(rows):
            for _ in range(3):
                await rows.read(requests)
            once = count_merchant_reads(client)
            store.write("merchant_events", "m1", payments(20.0))
            for _ in range(3):
                await rows.read(requests)
            return once, count_merchant_reads(client)

        assert run(store, scenario) == (1, 2)


def test_an_address_of_several_requests_is_read_once_for_all_of_them(redis_url):
    requests = ask(*[(customer, None, None, "::1") for customer in ("ann", "bob", "cid")])
    with redis.Redis.from_url(redis_url) as client, open_redis_store(redis_url) as store:
        store.write("ip_events", "::1", payments(11, dtype=IP_EVENT))
        client.config_resetstat()

        async def scenario(rows):
            return (await rows.read(requests)).ips

        assert run(store, scenario) == [encode_value(payments(11, dtype=IP_EVENT))] * 3
        assert client.info("commandstats")["cmdstat_hget"]["calls"] == 3 + 1


def test_a_batch_that_is_given_up_takes_its_link_along_and_the_next_opens_another(redis_url):
    requests = ask(("ann", "m1", None, None))
    with redis.Redis.from_url(redis_url) as client, open_redis_store(redis_url) as store:
        store.write("merchant_events", "m1", payments(10.0))

        async def scenario(rows):
            await rows.read(requests)
            before = count_connections(client)
            client.client_pause(300)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await rows.read(requests)
            means = await read_feature(rows, requests, "merchant_amount_mean_30d")
            return means, count_connections(client) - before

        assert run(store, scenario) == ([10.0], 1)


def count_connections(client):
    return client.info("stats")["total_connections_received"]


def test_what_changed_while_the_link_was_down_is_read_again(own_redis):
    requests = ask(("ann", "m1", None, None))
    with open_redis_store(own_redis.url) as store:
        store.write("merchant_events", "m1", payments(10.0))

        async def scenario(rows):
            before = await read_feature(rows, requests, "merchant_amount_mean_30d")
            with redis.Redis.from_url(own_redis.url) as client:
                client.client_kill_filter(_type="normal", skipme=True)
                store.write("merchant_events", "m1", payments(30.0))
            with pytest.raises(ConnectionError):
                await rows.read(requests)
            return before + await read_feature(rows, requests, "merchant_amount_mean_30d")

        assert run(store, scenario) == [10.0, 30.0]
