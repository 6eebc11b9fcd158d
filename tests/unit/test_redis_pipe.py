"""Many commands in one go: replies in order, and never those of a connection before."""

import gc

import pytest
import redis

from features.redis_link import pack
from features.redis_pipe import RedisPipe
from tests.conftest import RedisServer

PING, GET = pack([b"PING"]), pack([b"GET", b"key"])
NO_COMMAND = pack([b"NONSENSE"])


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def call(pipe, *commands):
    with pipe.open() as send:
        return send(commands)


def end_connections_of_others(client):
    for one in client.client_list():
        if int(one["id"]) != client.client_id():
            client.client_kill_filter(_id=one["id"])


def test_replies_come_in_the_order_of_their_commands(client):
    commands = [pack([b"ECHO", str(number).encode() * 100]) for number in range(5_000)]
    expected = [str(number).encode() * 100 for number in range(5_000)]
    assert call(RedisPipe(client), *commands) == expected


def test_a_refused_command_is_an_error_whose_other_replies_meet_nobody(client):
    pipe = RedisPipe(client)
    with pytest.raises(redis.ResponseError, match="NONSENSE"):
        call(pipe, PING, NO_COMMAND, GET)
    client.set("key", "value")
    assert call(pipe, GET, PING) == [b"value", b"PONG"]


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(client):
    pipe = RedisPipe(client)
    call(pipe, PING)
    end_connections_of_others(client)
    assert call(pipe, PING) == [b"PONG"]


def test_a_connection_lost_within_a_block_is_an_error_since_what_it_watched_is_lost(client):
    pipe = RedisPipe(client)

    def lose_it_between_two_calls():
        with pipe.open() as send:
            send([PING])
            end_connections_of_others(client)
            send([PING])

    with pytest.raises(redis.ConnectionError):
        lose_it_between_two_calls()
    assert call(pipe, PING) == [b"PONG"]


def test_a_pipe_that_is_thrown_away_in_a_cycle_closes_its_connection_without_a_warning(client):
    for _ in range(20):
        pipe = RedisPipe(client)
        call(pipe, PING)
        pipe.itself = pipe
    del pipe
    gc.collect()  # a ResourceWarning would be an error
    assert len(client.client_list()) == 1


def test_the_clients_password_and_database_are_used(tmp_path, client):
    del client  # skipped where there is no redis-server
    server = RedisServer(tmp_path)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as open_to_all:
            open_to_all.config_set("requirepass", "secret")
        url = f"redis://:secret@127.0.0.1:{server.port}/3"
        with redis.Redis.from_url(url) as allowed:
            allowed.set("key", "in the third")
            assert call(RedisPipe(allowed), GET) == [b"in the third"]
    finally:
        server.stop()
