"""What the pipeline bench counts, and what it says to a run that went wrong."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from serving.load_histogram import NUM_BUCKETS, build_histogram
from serving.load_result import LoadResult
from serving.pipeline_figures import Measured, Verdict, build_rows, build_targets
from serving.pipeline_load import AcceptedCheck, Phase
from serving.pipeline_picture import plot_freshness
from serving.pipeline_probe import Sighting
from serving.pipeline_processors import ProcessorReport
from serving.pipeline_world import draw_coming

ALL_RIGHT = Verdict(wrong_states=0, lost=0, invented=0, dead_letters=0, unseen=0)
ANSWER = (
    b'{"transaction_id":"p-7","score":0.5,"decision":"approve","model_version":"1",'
    b'"degraded_reason":%s}'
)


def make_load() -> LoadResult:
    empty = build_histogram(np.zeros(NUM_BUCKETS, np.int64))
    return LoadResult(
        requests=4,
        accepted=4,
        shed=0,
        errors=Counter(),
        waited=0,
        reconnects=0,
        offered_qps=2.0,
        qps=2.0,
        seconds=2.0,
        latencies=empty,
        service_times=empty,
        send_lags=empty,
        interval_seconds=1.0,
        intervals=np.zeros((2, NUM_BUCKETS), np.int64),
        failures=np.zeros(2, np.int64),
        tallies={"accepted": Counter(), "degraded_reason": Counter()},
        generator_cpu_seconds=0.0,
        cpu_share=0.1,
        core_wait_share=None,
    )


def make_measured(*scored_and_freshness: tuple[float, float]) -> Measured:
    """Make a run that began at 1000 s and lasted 2 s."""
    scored, freshness = np.array(scored_and_freshness).T
    report = ProcessorReport({}, 1000.0 + scored + freshness, freshness, cpu_seconds=0.1)
    return Measured(
        main=Phase(1000.0, make_load(), pd.DataFrame()),
        accepted=pd.DataFrame(),
        reports=[report],
        published={"published": 4, "dropped": 0},
        cores={},
        stages_us={},
        probe=SimpleNamespace(sightings=[Sighting("a", "b", 0.25)]),
    )


def judge(measured: Measured, verdict: Verdict = ALL_RIGHT) -> dict[str, float | None]:
    return {target.name: target.value for target in build_targets(measured, verdict)}


def test_the_rate_of_the_whole_path_runs_until_the_last_transaction_is_readable():
    # Scored from 0 s to 1.5 s, the last of them readable at 2 s: four in two seconds.
    measured = make_measured((0.0, 0.1), (0.5, 0.1), (1.0, 0.1), (1.5, 0.5))
    assert judge(measured)["tx_per_second"] == pytest.approx(2.0)


def test_what_was_scored_before_or_after_the_main_stretch_does_not_count():
    measured = make_measured((-3.0, 9.0), (0.0, 0.5), (1.0, 0.5), (2.5, 9.0))
    _, readable, *_ = build_rows(measured, (make_load(), make_load()), rate=2.0, workers=1)
    assert readable["transactions"] == 2
    assert readable["max_ms"] == 500.0
    assert judge(measured)["freshness_p99_s"] == pytest.approx(0.5)


def test_the_path_is_a_share_of_the_faster_of_the_two_runs_of_plain_uvicorn():
    measured = make_measured((0.0, 0.5), (1.0, 1.0))
    ceilings = [replace(make_load(), qps=qps) for qps in (8.0, 4.0)]
    _, readable, _, before, after = build_rows(measured, ceilings, rate=2.0, workers=1)
    assert (before["tx_per_second"], after["tx_per_second"]) == (8.0, 4.0)
    assert readable["tx_per_second"] == 1.0
    assert readable["share_of_uvicorn"] == pytest.approx(1.0 / 8.0)


def test_whatever_the_comparison_found_is_a_target_that_is_not_met():
    wrong = Verdict(wrong_states=1, lost=2, invented=3, dead_letters=4, unseen=5)
    targets = build_targets(make_measured((0.0, 0.1), (1.0, 0.1)), wrong)
    assert [(t.name, t.value) for t in targets[2:] if not t.is_met] == [
        ("wrong_states", 1),
        ("transactions_lost", 2),
        ("transactions_invented", 3),
        ("dead_letters", 4),
        ("probes_unseen", 5),
    ]


def test_a_probe_that_saw_nobody_meets_no_target():
    measured = make_measured((0.0, 0.1), (1.0, 0.1))
    measured.probe.sightings.clear()
    (probe,) = [t for t in build_targets(measured, ALL_RIGHT) if t.name == "probes_unseen"]
    assert probe.value is None
    assert not probe.is_met


def test_an_answer_counts_its_transaction_as_accepted_and_says_if_it_was_degraded():
    check = AcceptedCheck("p-")
    assert check(ANSWER % b"null", row=7, serial=b"") is None
    assert check.tallies["accepted"] == {"p-7": 1}
    assert check.tallies["degraded_reason"] == {}
    check(ANSWER % b'"no store"', row=7, serial=b"")
    assert check.tallies["degraded_reason"] == {"no store": 1}


def test_an_answer_to_another_transaction_is_an_error():
    assert AcceptedCheck("p-")(ANSWER % b"null", row=8, serial=b"") == "wrong transaction id"


def test_the_check_survives_the_way_to_the_generators_process():
    check = pickle.loads(pickle.dumps(AcceptedCheck("p-")))
    assert check(ANSWER % b"null", row=7, serial=b"") is None


def test_coming_transactions_are_past_ones_made_again_in_time_order_from_now_on():
    history = pd.DataFrame(
        {
            "transaction_id": ["t1", "t2"],
            "event_time": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
            "customer_id": ["ann", "bob"],
            "amount": [1.0, 2.0],
        }
    )
    before = pd.Timestamp.now("UTC").floor("us")
    coming = draw_coming(history, rate=4.0, num_rows=20, seed=1, id_prefix="p-")
    assert coming["transaction_id"].tolist() == [f"p-{number}" for number in range(20)]
    assert coming["event_time"].iloc[0] >= before
    assert set(coming["event_time"].diff().dropna()) == {pd.Timedelta(milliseconds=250)}
    pairs = set(zip(coming["customer_id"], coming["amount"], strict=True))
    assert pairs == {("ann", 1.0), ("bob", 2.0)}


def test_the_picture_names_its_three_lines_and_is_the_same_for_the_same_run():
    scored, freshness = np.linspace(0, 2, 50), np.full(50, 0.1)
    text = plot_freshness(scored, freshness)
    assert all(f">{label}</text>" in text for label in ("p50", "p99", "max"))
    assert text == plot_freshness(scored, freshness)


def test_a_run_without_transactions_has_a_picture_too():
    assert "</svg>" in plot_freshness(np.empty(0), np.empty(0))
