from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.load_schedule import draw_arrivals


def take(count: int, **options) -> np.ndarray:
    return np.array(list(islice(draw_arrivals(**options), count)))


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.5, 50_000.0), seed=st.integers(0, 2**31))
def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential(rate, seed):
    gaps = np.diff(take(20_000, rate=rate, arrivals="poisson", seed=seed), prepend=0.0)
    assert (gaps >= 0).all()
    # Standard errors of mean and variance of 20,000 exponential gaps: 0.7 % and 2 %; five of them.
    assert gaps.mean() * rate == pytest.approx(1.0, abs=0.036)
    assert gaps.var() * rate**2 == pytest.approx(1.0, abs=0.1)


def test_poisson_counts_vary_as_much_as_their_mean():
    times = take(100_000, rate=1000.0, arrivals="poisson", seed=4)
    counts = np.bincount((times[times < 90] * 100).astype(int))  # 9,000 stretches of 10 ms
    assert counts.mean() == pytest.approx(10.0, abs=0.2)
    assert counts.var() == pytest.approx(10.0, abs=0.8)


def test_the_schedules_of_several_processes_are_together_poisson_at_the_rate():
    options = {"rate": 300.0, "arrivals": "poisson", "seed": 1, "processes": 3}
    parts = [take(20_000, process=process, **options) for process in range(3)]
    together = np.sort(np.concatenate(parts))
    gaps = np.diff(together[together < 150])
    assert gaps.mean() * 300 == pytest.approx(1.0, abs=0.03)
    assert gaps.var() * 300**2 == pytest.approx(1.0, abs=0.08)


def test_constant_arrivals_of_several_processes_interleave_evenly():
    options = {"rate": 10.0, "arrivals": "constant", "seed": 0, "processes": 2}
    together = np.sort([*take(3, process=0, **options), *take(3, process=1, **options)])
    assert together.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_the_same_seed_gives_the_same_schedule_and_another_another():
    options = {"rate": 5.0, "arrivals": "poisson"}
    first = take(5, seed=1, **options).tolist()
    assert take(5, seed=1, **options).tolist() == first
    assert take(5, seed=2, **options).tolist() != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0, "arrivals": "poisson"}, "above 0"),
        ({"rate": float("nan"), "arrivals": "poisson"}, "above 0"),
        ({"rate": 1.0, "arrivals": "bursts"}, "must be poisson or constant"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_arrivals(seed=0, **options)
