"""What the service answers while its Redis is stopped, paused, cut off, slow or emptied."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest
import redis

from serving.decisions import REQUEST_ONLY, STALE
from tests.stack.served_world import ServedWorld, ask, load_through
from tests.stack.stream_world import wait_until

pytestmark = pytest.mark.stack
NOTICE_SLOTS = 10
"""A second, in which what was under way when the fault came has been answered."""


def flush(world: ServedWorld) -> None:
    with redis.Redis.from_url(world.redis.url) as client:
        client.flushall()


LASTING: dict[str, tuple[Callable[[ServedWorld], object], Callable[[ServedWorld], object]]] = {
    "stopped": (lambda world: world.redis.stop(), lambda world: world.redis.start()),
    "paused": (lambda world: world.redis.pause(), lambda world: world.redis.resume()),
    "stalled": (lambda world: world.proxy.stall(), lambda world: world.proxy.pass_on()),
    "slow": (lambda world: world.proxy.delay(0.05), lambda world: world.proxy.pass_on()),
    "flushed": (flush, lambda world: world.rebuild_store()),
}


@pytest.mark.parametrize("fault", LASTING)
def test_answers_go_on_from_the_last_known_history_until_the_store_is_back(
    served_world, fault, record_property
):
    begin, end = LASTING[fault]
    run = load_through(
        served_world, begin=lambda: begin(served_world), end=lambda: end(served_world)
    )
    wait_until(served_world.is_whole, seconds=30)
    record_property("recovery_seconds", run.recovery_seconds)
    assert run.result.errors == {}  # each answer is 200 or 503, and right or said to be degraded
    assert run.result.accepted > 0.9 * run.result.requests
    assert run.count("whole", first=run.begun + NOTICE_SLOTS, last=run.ended - 1) == 0
    assert run.count("degraded", first=run.begun, last=run.ended) > 0
    assert run.result.tallies["degraded_reason"].keys() <= {STALE, REQUEST_ONLY}
    assert run.recovery_seconds < 30


def test_connections_that_are_reset_again_and_again_cost_history_and_no_answer(
    served_world, record_property
):
    is_over = threading.Event()

    def reset_repeatedly() -> None:
        while not is_over.wait(0.05):
            served_world.proxy.reset()

    thread = threading.Thread(target=reset_repeatedly)
    run = load_through(served_world, begin=thread.start, end=is_over.set)
    thread.join()
    wait_until(served_world.is_whole, seconds=30)
    record_property("recovery_seconds", run.recovery_seconds)
    assert run.result.errors == {}
    assert run.result.accepted > 0.9 * run.result.requests
    assert run.count("degraded", first=run.begun, last=run.ended) > 0


def test_a_customer_never_seen_before_is_answered_from_the_request_alone(served_world):
    stranger = {**served_world.messages[0], "customer_id": "first-seen-while-slow"}
    served_world.proxy.delay(0.05)
    wait_until(
        lambda: ask(served_world.url, served_world.messages[:1])[0]["degraded_reason"] == STALE
    )
    (answer,) = ask(served_world.url, [stranger])
    assert answer["degraded_reason"] == REQUEST_ONLY
    assert 0.0 <= answer["score"] <= 1.0


def test_readiness_stays_while_the_store_is_away(served_world):
    served_world.redis.stop()
    try:
        wait_until(
            lambda: (
                ask(served_world.url, served_world.messages[:1])[0]["degraded_reason"] is not None
            )
        )
        assert (
            httpx.get(f"{served_world.url}/readyz", timeout=10, trust_env=False).status_code == 200
        )
        assert served_world.get_state()["store_error"] is not None
    finally:
        served_world.redis.start()
