"""The generator against real sockets: what it counts, and from when it takes the time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from serving.load_histogram import NUM_BUCKETS, build_histogram, find_buckets, read_counts
from serving.load_http import SERIAL_FIELD
from serving.load_ladder import climb
from serving.load_plan import Target
from serving.load_result import LoadResult, judge_generator
from serving.load_run import measure_load
from tests.unit.test_load_ladder import make_settings
from tests.unit.toy_server import ToyServer, render_answer

BODY = b'{"id":"' + SERIAL_FIELD + b'"}'


@contextmanager
def serve_until_killed(*, seconds: float) -> Iterator[ToyServer]:
    """Serve, and die so long after the first request, however long the generator takes to start."""
    asked = threading.Event()

    def answer(_: bytes) -> bytes:
        asked.set()
        return render_answer()

    with ToyServer(answer) as server:

        def kill() -> None:
            if asked.wait(60):
                time.sleep(seconds)
                server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        yield server
        killer.join()


class Echo:
    """Wants the request's own body back, and counts how often each row was answered."""

    def __init__(self) -> None:
        self.tallies: dict[str, Counter[str]] = {"row": Counter()}

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:
        self.tallies["row"][str(row)] += 1
        return None if body == b'{"id":"' + serial + b'"}' else "another's answer"


def load(server: ToyServer, **options: object) -> LoadResult:
    chosen = {
        "rate": 200.0,
        "connections": 4,
        "seconds": 1.0,
        "warm_up_seconds": 0.2,
        "max_send_lag_ms": 1000.0,
        "timeout_seconds": 3.0,
        "bodies": [BODY],
        **options,
    }
    return measure_load(Target(server.url, "/"), **chosen)  # type: ignore[arg-type]


def count_above(histogram: object, *, seconds: float) -> int:
    counts = read_counts(histogram)
    return int(counts[find_buckets(np.array([seconds]))[0] + 1 :].sum())


def test_every_request_has_a_number_of_its_own_in_all_processes():
    with ToyServer(render_answer) as server:
        result = load(server, processes=2, check=Echo(), bodies=[BODY, BODY])
    assert result.errors == {}
    assert result.accepted == result.requests == sum(result.tallies["row"].values()) > 100
    assert set(result.tallies["row"]) == {"0", "1"}
    assert len(set(server.bodies)) == len(server.bodies) > result.requests  # the warm-up, too


def test_constant_arrivals_send_what_the_rate_says_and_not_the_warm_up():
    with ToyServer() as server:
        result = load(server, arrivals="constant", rate=100.0, seconds=1.0, warm_up_seconds=0.5)
    assert result.requests == result.accepted == result.latencies.get_total_count() == 100
    assert len(server.bodies) == 150


def test_answers_are_read_in_pieces_and_reused_connections_are_not_counted_as_new():
    with ToyServer(lambda _: render_answer(b"x" * 500), piece_bytes=130) as server:
        result = load(server, rate=50.0)
    assert result.accepted == result.requests > 0
    assert result.reconnects == 0


def test_a_body_larger_than_a_socket_takes_at_once_arrives_whole():
    body = b"[" + b"1," * 3_000_000 + b"1]"
    with ToyServer() as server:
        result = load(server, bodies=[body], num_requests=3, rate=None, connections=1, seconds=5.0)
    assert result.accepted == 3
    assert set(map(len, server.bodies)) == {len(body)}


def test_a_stall_shows_in_the_open_loop_from_when_requests_were_due():
    with ToyServer(stall=(1.0, 1.0)) as server:
        result = load(server, rate=200.0, seconds=3.0, warm_up_seconds=0.2)
    assert result.errors == {}
    # About 200 were due in the second without answers; half of them waited for half of it or more.
    assert count_above(result.latencies, seconds=0.5) >= 60
    assert result.latencies.get_value_at_percentile(99.0) > 800_000
    # Timed from the real send, only the requests that were under way see it: coordinated omission.
    assert count_above(result.service_times, seconds=0.5) <= 4
    assert result.waited >= 100


def test_a_stall_that_ends_with_closed_connections_shows_in_the_percentiles():
    with ToyServer(stall=(1.0, 1.0), cuts=True) as server:
        result = load(server, rate=20.0, arrivals="constant", seconds=3.0, connections=40)
    # About 20 were due in the second without answers; half of them had waited for half of it.
    assert 15 <= result.errors["connection closed"] == sum(result.errors.values()) <= 21
    assert count_above(result.latencies, seconds=0.5) >= 8
    assert result.latencies.get_value_at_percentile(99.0) > 900_000
    assert count_above(result.service_times, seconds=0.5) == 0  # of accepted ones only
    # By interval of a second of the due time; the stall begins a second after the first request.
    assert result.failures.sum() == result.errors["connection closed"]
    assert result.failures[2] <= 1


def test_a_closed_loop_sends_as_much_as_is_answered_and_hides_the_stall():
    with ToyServer(stall=(1.0, 1.0), capacity=500.0) as server:
        result = load(server, rate=None, seconds=3.0)
    assert count_above(result.latencies, seconds=0.5) <= result.requests / 20
    assert result.requests == result.accepted < 1500


def test_requests_may_be_bounded_in_number():
    with ToyServer() as server:
        closed = load(server, rate=None, num_requests=25, processes=2)
        opened = load(server, num_requests=25)
    assert (closed.requests, closed.accepted) == (25, 25)
    assert (opened.requests, opened.accepted) == (25, 25)


def test_unavailable_is_counted_apart_and_not_timed():
    answers = iter([render_answer(), render_answer(status="503 Service Unavailable")] * 10_000)
    with ToyServer(lambda _: next(answers)) as server:
        result = load(server)
    assert result.errors == {}
    assert abs(result.shed - result.accepted) <= 1
    assert result.latencies.get_total_count() == result.accepted
    assert result.shed + result.accepted == result.requests


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (render_answer(status="500 No"), "status 500"),
        (render_answer(b"{}"), "another's answer"),
        (b"", "connection closed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked answer: not supported"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "no answer in time"),
    ],
)
def test_a_bad_answer_is_counted_by_kind(answer, kind):
    with ToyServer(lambda _: answer) as server:
        result = load(server, rate=20.0, check=Echo(), timeout_seconds=0.3)
    kinds = set(result.errors) - ({"never sent"} if kind == "no answer in time" else set())
    assert kinds == {kind}
    assert sum(result.errors.values()) == result.requests > 0
    assert result.latencies.get_total_count() == result.requests
    assert result.accepted == 0


def test_an_answer_that_never_comes_counts_with_the_time_it_was_waited_for():
    with ToyServer(lambda _: b"HTTP/1.1 200 OK\r\n") as server:
        result = load(server, rate=20.0, arrivals="constant", timeout_seconds=0.5, connections=40)
    assert result.errors == {"no answer in time": 20}
    assert result.latencies.get_total_count() == 20
    assert result.latencies.get_value_at_percentile(0.001) >= 400_000


def test_a_killed_server_leaves_errors_and_no_request_uncounted():
    with serve_until_killed(seconds=0.7) as server:
        result = load(server, seconds=2.0)
    assert result.accepted > 0
    assert result.errors["connection refused"] > 0
    assert result.requests == result.accepted + result.shed + sum(result.errors.values())
    assert result.requests == result.latencies.get_total_count()


def test_a_killed_server_does_not_keep_a_closed_loop_busy():
    with serve_until_killed(seconds=0.7) as server:
        result = load(server, rate=None, seconds=1.5)
    assert 0 < result.errors["connection refused"] <= 4 * 16  # a try each 0.1 s a connection
    assert result.requests == result.accepted + sum(result.errors.values())


def test_connections_that_the_server_closes_after_each_answer_are_opened_again():
    with ToyServer(lambda _: render_answer(headers="Connection: close\r\n")) as server:
        result = load(server, rate=50.0)
    assert result.accepted == result.requests > 0
    assert result.reconnects >= result.requests


def test_nobody_at_the_target_is_the_users_mistake():
    with ToyServer() as server:
        url = server.url
    with pytest.raises(ValueError, match=f"nobody answers at {url}"):
        measure_load(Target(url, "/"), [BODY], rate=1.0, connections=1, seconds=1.0)


@pytest.fixture
def hears_ctrl_c():
    """A shell starts what runs in its background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_the_run_with_what_there_is():
    begun = time.perf_counter()
    with ToyServer() as server:
        timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        result = load(server, seconds=60.0)
        timer.join()
    assert result.interrupted
    assert time.perf_counter() - begun < 30
    assert result.requests == result.accepted > 0


def test_a_generator_that_was_late_has_its_result_vetoed():
    with ToyServer() as server:
        result = load(server, max_send_lag_ms=1e-6)
    assert not result.valid
    assert any("requests left late by the generator's own fault" in why for why in result.why)


def test_a_generator_without_spare_time_is_vetoed_and_one_with_it_is_not():
    def judge(cpu_share: float, *, lag_seconds: float) -> list[str]:
        lags = np.bincount(find_buckets(np.full(100, lag_seconds)), minlength=NUM_BUCKETS)
        return list(judge_generator(cpu_share, build_histogram(lags), max_send_lag_ms=5.0))

    assert judge(0.5, lag_seconds=0.001) == []
    assert "used 95% of a core" in judge(0.95, lag_seconds=0.001)[0]
    assert "p99 6.0 ms" in judge(0.5, lag_seconds=0.006)[0]


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="no body"):
        measure_load(Target("http://127.0.0.1:9", "/"), [], rate=1.0, connections=1, seconds=1.0)
    with pytest.raises(ValueError, match="2 processes need as many connections"):
        measure_load(
            Target("http://127.0.0.1:9", "/"),
            [BODY],
            rate=1.0,
            connections=1,
            processes=2,
            seconds=1.0,
        )


def test_the_ladder_finds_the_knee_of_a_server_of_known_capacity():
    with ToyServer(capacity=200.0) as server:
        ladder = climb(
            lambda rate: load(server, rate=rate, arrivals="constant", timeout_seconds=1.0),
            settings=make_settings(first_rate=60.0, factor=2.0, max_p99_ms=300.0),
        )
    assert ladder.knee is not None
    assert ladder.ceiling is not None
    assert ladder.knee.rate <= 240 <= 1.5 * ladder.ceiling.rate
    assert ladder.knee.rate >= 120
