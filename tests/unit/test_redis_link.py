"""The link to Redis: replies in order, changes told, and no caller left waiting."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import hiredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from features.redis_link import RedisLink, open_link, pack

CACHING = pack([b"CLIENT", b"CACHING", b"YES"])


def run(url, scenario):
    """Run ``scenario(link, changes)``; ``changes`` gathers what Redis tells."""

    async def play():
        changes = []
        link = await open_link(url, on_change=changes.append)
        try:
            return await asyncio.wait_for(scenario(link, changes), 20)
        finally:
            link.close()

    return asyncio.run(play())


def call(link, *commands):
    packed = b"".join(pack(command) for command in commands)
    return link.call(packed, num_replies=len(commands), decode=list)


def test_replies_come_to_their_calls_in_order(redis_url):
    async def scenario(link, _):
        first = call(link, [b"SET", b"a", b"1"], [b"GET", b"a"])
        second = call(link, [b"GET", b"b"])
        return await second, await first

    assert run(redis_url, scenario) == ([None], [b"OK", b"1"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda client: client.set("watched", "2"), [b"watched"]),
        (lambda client: client.delete("watched"), [b"watched"]),
        (lambda client: client.flushall(), None),
    ],
    ids=["set", "deleted", "flushed"],
)
def test_a_change_of_a_key_that_was_read_with_caching_is_told_before_the_next_reply(
    redis_url, change, told
):
    with redis.Redis.from_url(redis_url) as client:
        client.set("watched", "1")

        async def scenario(link, changes):
            await link.call(CACHING + pack([b"GET", b"watched"]), num_replies=2, decode=list)
            change(client)
            await call(link, [b"PING"])
            return changes

        assert run(redis_url, scenario) == [told]


def test_keys_read_without_caching_are_not_told_of(redis_url):
    with redis.Redis.from_url(redis_url) as client:

        async def scenario(link, changes):
            await call(link, [b"GET", b"plain"])
            client.set("plain", "2")
            await call(link, [b"PING"])
            return changes

        assert run(redis_url, scenario) == []


def test_an_error_reply_fails_its_own_call_and_no_other(redis_url):
    async def scenario(link, _):
        wrong = call(link, [b"SET", b"a", b"1"], [b"HGET", b"a", b"field"], [b"GET", b"a"])
        right = call(link, [b"GET", b"a"])
        with pytest.raises(hiredis.ReplyError, match="WRONGTYPE"):
            await wrong
        return await right

    assert run(redis_url, scenario) == [b"1"]


def test_what_decoding_raises_is_the_calls_own(redis_url):
    def refuse(_):
        raise ValueError("no state")

    async def scenario(link, _):
        broken = link.call(pack([b"PING"]), num_replies=1, decode=refuse)
        after = call(link, [b"PING"])
        with pytest.raises(ValueError, match="no state"):
            await broken
        return await after

    assert run(redis_url, scenario) == [b"PONG"]


def test_the_replies_of_a_caller_who_left_go_to_nobody(redis_url):
    async def scenario(link, _):
        left = call(link, [b"ECHO", b"left"])
        stayed = call(link, [b"ECHO", b"stayed"])
        left.cancel()
        return await stayed

    assert run(redis_url, scenario) == [b"stayed"]


def test_a_server_that_dies_fails_the_calls_that_wait_and_those_after(own_redis):
    async def scenario(link, _):
        waiting = [call(link, [b"BLPOP", b"never", b"0"]), call(link, [b"PING"])]
        await asyncio.sleep(0.01)
        own_redis.kill()
        for future in waiting:
            with pytest.raises(ConnectionError):
                await future
        with pytest.raises(ConnectionError, match="closed"):
            call(link, [b"PING"])
        return link.is_open

    assert run(own_redis.url, scenario) is False


def test_closing_the_link_fails_the_calls_that_wait(redis_url):
    async def scenario(link, _):
        waiting = call(link, [b"BLPOP", b"never", b"0"])
        link.close()
        with pytest.raises(ConnectionError):
            await waiting
        return link.is_open

    assert run(redis_url, scenario) is False


def test_a_password_is_needed_where_redis_asks_for_one(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "s3 cret/")

    async def ping(link, _):
        return await call(link, [b"PING"])

    host = own_redis.url.removeprefix("redis://")
    with pytest.raises(hiredis.ReplyError, match="NOAUTH"):
        run(own_redis.url, ping)
    with pytest.raises(hiredis.ReplyError, match="WRONGPASS"):
        run(f"redis://:wrong@{host}", ping)
    assert run(f"redis://:s3%20cret%2F@{host}", ping) == [b"PONG"]


def test_the_database_of_the_address_is_the_one_read(redis_url):
    third = redis_url.removesuffix("/0") + "/3"
    with redis.Redis.from_url(third) as client:
        client.set("a", "three")

    async def scenario(link, _):
        return await call(link, [b"GET", b"a"])

    assert run(third, scenario) == [b"three"]
    assert run(redis_url, scenario) == [None]


def test_where_nobody_listens_there_is_no_link(own_redis):
    own_redis.kill()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        run(own_redis.url, None)


class Wire(asyncio.Transport):
    """A transport that keeps nothing and can be aborted."""

    def write(self, data):
        """Drop what is sent."""

    def abort(self):
        """Do nothing."""


REPLIES = (
    b"$5\r\nhello\r\n*2\r\n$1\r\na\r\n_\r\n"
    b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"
    b":7\r\n>2\r\n+invalidate\r\n_\r\n$4\r\n\r\n\r\n\r\n"
)


@given(st.sets(st.integers(1, len(REPLIES) - 1)))
def test_replies_may_arrive_in_any_pieces(cuts):
    async def play():
        changes = []
        link = RedisLink(changes.append)
        link.connection_made(Wire())
        first = link.call(b"", num_replies=2, decode=list)
        second = link.call(b"", num_replies=2, decode=list)
        borders = [0, *sorted(cuts), len(REPLIES)]
        for start, end in pairwise(borders):
            link.data_received(REPLIES[start:end])
        return await first, await second, changes

    first, second, changes = asyncio.run(play())
    assert first == [b"hello", [b"a", None]]
    assert second == [7, b"\r\n\r\n"]
    assert changes == [[b"k"], None]


@pytest.mark.parametrize("data", [b"nonsense\r\n", b"+OK\r\n+OK\r\n"], ids=["garbled", "unasked"])
def test_bytes_that_are_no_replies_close_the_link_and_fail_who_waits(data):
    async def play():
        link = RedisLink([].append)
        link.connection_made(Wire())
        future = link.call(b"", num_replies=1, decode=list) if data[:1] != b"+" else None
        link.data_received(data)
        if future is not None:
            with pytest.raises(hiredis.ProtocolError):
                await future
        return link.is_open

    assert asyncio.run(play()) is False
