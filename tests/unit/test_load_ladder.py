from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from configs.sections import LadderSection
from serving.load_histogram import NUM_BUCKETS, find_buckets
from serving.load_ladder import climb, describe_ladder, judge_rung
from serving.load_plan import WorkerReport
from serving.load_result import LoadResult, merge_reports


def make_settings(**changes: float) -> LadderSection:
    return LadderSection.model_validate(
        {
            "first_rate": 100.0,
            "factor": 2.0,
            "rung_seconds": 1.0,
            "max_rungs": 10,
            "num_bisections": 3,
            "max_p99_ms": 50.0,
            "min_achieved_share": 0.95,
            "max_error_share": 0.01,
            **changes,
        }
    )


def make_result(
    rate: float,
    *,
    accepted: int | None = None,
    p99_ms: float = 5.0,
    shed: int = 0,
    seconds: float = 1.0,
    cpu_share: float = 0.2,
    interrupted: bool = False,
) -> LoadResult:
    accepted = int(rate) if accepted is None else accepted
    latencies = np.zeros((1, NUM_BUCKETS), np.int64)
    latencies[0, find_buckets(np.array([p99_ms / 1e3]))[0]] = accepted
    report = WorkerReport(
        latencies=latencies,
        failures=np.zeros(1, np.int64),
        requests=int(rate),
        accepted=accepted,
        shed=shed,
        ended=seconds,
        cpu_share=cpu_share,
        errors=Counter({"lost": int(rate) - accepted - shed}),
    )
    return merge_reports(
        [report],
        offered_qps=rate,
        interval_seconds=1.0,
        max_send_lag_ms=5.0,
        interrupted=interrupted,
    )


def serve(rate: float, *, capacity: float) -> LoadResult:
    """A server that is instant up to its capacity and takes the surplus's time above."""
    return make_result(rate, seconds=max(rate / capacity, 1.0))


def test_the_ladder_rises_until_the_server_cannot_follow_and_then_bisects():
    ladder = climb(lambda rate: serve(rate, capacity=500.0), settings=make_settings())
    rates = [rung.rate for rung in ladder.rungs]
    # 95 % of a rate must be answered, so up to 500 / 0.95 = 526 holds.
    assert rates[:4] == [100, 200, 400, 800]
    assert rates[4:] == pytest.approx([(400 * 800) ** 0.5, 400 * 2**0.25, 400 * 2**0.375])
    assert [rung.holds for rung in ladder.rungs] == [True] * 3 + [False] * 2 + [True, True]
    assert ladder.knee is not None
    assert ladder.knee.rate == pytest.approx(400 * 2**0.375)
    assert ladder.ceiling is not None
    assert ladder.ceiling.rate == pytest.approx(400 * 2**0.5)


def test_where_the_first_rung_does_not_hold_the_ladder_goes_down():
    settings = make_settings(num_bisections=0)
    ladder = climb(lambda rate: serve(rate, capacity=30.0), settings=settings)
    assert [rung.rate for rung in ladder.rungs] == [100, 50, 25]
    assert ladder.knee is not None
    assert ladder.knee.rate == 25


def test_a_server_that_fails_every_rung_has_no_knee():
    ladder = climb(lambda rate: serve(rate, capacity=1.0), settings=make_settings(max_rungs=3))
    assert [rung.rate for rung in ladder.rungs] == [100, 50, 25]
    assert describe_ladder(ladder)["knee_qps"] is None


def test_a_server_that_follows_everywhere_has_a_knee_that_is_only_a_bound():
    ladder = climb(lambda rate: serve(rate, capacity=1e9), settings=make_settings(max_rungs=3))
    assert [rung.rate for rung in ladder.rungs] == [100, 200, 400]
    assert describe_ladder(ladder)["knee_is_a_lower_bound"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (make_result(100, p99_ms=51.0), "p99 51.0 ms is above 50 ms"),
        (make_result(100, seconds=1.1), "answered 91 of 100 requests/s"),
        (make_result(1000, accepted=980, shed=20), "2.0% failed or were shed"),
        (make_result(1000, accepted=980), "2.0% failed or were shed"),
    ],
)
def test_a_rung_that_does_not_hold_says_why(result, reason):
    assert list(judge_rung(result.offered_qps, result, settings=make_settings())) == [reason]


def test_a_rung_within_every_limit_holds():
    result = make_result(1000, accepted=991, shed=9, p99_ms=49.0, seconds=1.03)
    assert list(judge_rung(1000, result, settings=make_settings())) == []


def test_a_busy_generator_beside_the_knee_makes_it_doubtful_and_a_busy_one_elsewhere_does_not():
    def climb_with_busy(busy_rate: float) -> tuple[str, ...]:
        def measure(rate: float) -> LoadResult:
            busy = 0.95 if rate == busy_rate else 0.2
            return make_result(rate, seconds=max(rate / 350, 1.0), cpu_share=busy)

        return climb(measure, settings=make_settings(num_bisections=0)).why

    assert climb_with_busy(100.0) == ()
    assert climb_with_busy(200.0)[0].startswith("at 200 requests/s a generator process used 95%")
    assert climb_with_busy(400.0)[0].startswith("at 400 requests/s")


def test_ctrl_c_leaves_the_rungs_that_were_finished():
    def measure(rate: float) -> LoadResult:
        return make_result(rate, interrupted=rate > 150)

    ladder = climb(measure, settings=make_settings())
    assert [rung.rate for rung in ladder.rungs] == [100]
    assert ladder.interrupted
