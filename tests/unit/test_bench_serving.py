"""Rows, steps and targets of the serving benchmark follow from what was measured."""

import asyncio
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.files import write_json
from monitoring.benchmark_table import SERVING_TITLES, build_benchmark_tables
from serving.bench_serving import Measured, build_rows, build_steps, build_targets
from serving.load_histogram import NUM_BUCKETS, build_histogram
from serving.load_result import LoadResult
from serving.peer_constant import answer
from serving.peer_settings import ANSWER_VARIABLE
from serving.peers import (
    OURS,
    OURS_TWO,
    TEXTBOOK,
    UVICORN,
    Request,
    ScoreCheck,
    list_peers,
    list_steps,
    read_invocation,
    read_score,
    render_features,
    render_message,
)
from serving.serving_pictures import plot_peers, plot_stages
from serving.stage_times import parse_stage_times


def make_load(qps, *, latency_us=1000, why=(), requests=100, errors=0):
    latencies = build_histogram(np.zeros(NUM_BUCKETS, np.int64))
    latencies.record_value(latency_us)
    nothing = build_histogram(np.zeros(NUM_BUCKETS, np.int64))
    return LoadResult(
        requests=requests,
        accepted=requests - errors,
        shed=0,
        errors=Counter({"status 500": errors}),
        waited=0,
        reconnects=0,
        offered_qps=None,
        qps=qps,
        seconds=1.0,
        latencies=latencies,
        service_times=nothing,
        send_lags=nothing,
        interval_seconds=1.0,
        intervals=np.zeros((1, NUM_BUCKETS), np.int64),
        failures=np.zeros(1, np.int64),
        tallies={},
        generator_cpu_seconds=0.1,
        cpu_share=0.1,
        core_wait_share=None,
        why=why,
    )


def measure(qps, *, cores=1.0, difference=0.0, open_run=None):
    return Measured(make_load(qps), cores, difference, open_run)


def get_targets(measured):
    every = {peer.name: [] for peer in list_peers()} | measured
    return {target.name: target for target in build_targets(every)}


def test_a_service_is_judged_by_its_best_round_and_held_against_the_others_best():
    measured = {peer.name: [] for peer in list_peers()} | {
        TEXTBOOK: [measure(100.0), measure(200.0)],
        UVICORN: [measure(40_000.0)],
        OURS: [measure(10_000.0, cores=0.5), measure(9_000.0, cores=0.1)],
    }
    rows = {row["name"]: row for row in build_rows(list_peers(), measured)}
    assert rows[OURS]["qps"] == 10_000.0
    assert rows[OURS]["qps_per_core"] == 20_000.0
    assert rows[OURS]["ratio_to_textbook"] == 50.0
    assert rows[OURS]["share_of_uvicorn"] == 0.25
    assert rows[OURS]["measured"]["qps_of_rounds"] == [10_000.0, 9_000.0]


def test_a_service_that_did_not_start_has_a_row_without_figures():
    rows = build_rows(list_peers(), {peer.name: [] for peer in list_peers()})
    assert [set(row) for row in rows] == [{"name"}] * len(list_peers())


def test_each_step_says_what_it_gained_over_the_one_before():
    steps = list_steps()
    measured = {peer.name: [measure(100.0 * 2**place)] for place, peer in enumerate(steps)}
    measured[steps[2].name] = []
    gains = [row.get("gain_factor") for row in build_steps(steps, measured)]
    assert gains == [None, 2.0, None, 4.0, 2.0, 2.0, 2.0, 2.0]


def test_throughput_may_come_from_two_workers_and_the_share_of_uvicorn_from_one():
    targets = get_targets(
        {
            TEXTBOOK: [measure(300.0)],
            UVICORN: [measure(40_000.0)],
            OURS: [measure(18_000.0)],
            OURS_TWO: [measure(21_000.0)],
        }
    )
    assert targets["qps"].value == 21_000.0
    assert targets["ratio_to_textbook"].value == 70.0
    assert targets["share_of_uvicorn"].value == 0.45
    assert all(targets[name].is_met for name in ("qps", "ratio_to_textbook", "share_of_uvicorn"))


def test_what_was_not_measured_is_no_target_met():
    targets = get_targets({OURS: [measure(30_000.0)]})
    assert targets["ratio_to_textbook"].value is None
    assert not targets["ratio_to_textbook"].is_met
    assert targets["p99_ms_at_10000"].value is None


@pytest.mark.parametrize(
    ("run", "value"),
    [
        (make_load(10_000.0, latency_us=4000), 4.0),
        (make_load(10_000.0, latency_us=4000, why=("left late",)), None),
        (make_load(10_000.0, latency_us=4000, errors=2), None),
    ],
)
def test_latency_counts_only_if_the_generator_kept_up_and_requests_were_answered(run, value):
    target = get_targets({OURS: [measure(1.0, open_run=run)]})["p99_ms_at_10000"]
    assert target.value == pytest.approx(value, rel=0.01) if value else target.value is None


def test_one_wrong_score_of_any_service_misses_the_target():
    targets = get_targets({OURS: [measure(1.0)], TEXTBOOK: [measure(1.0, difference=1e-3)]})
    assert not targets["difference_from_champion"].is_met


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"score":0.5,"decision":"review","transaction_id":"t"}', None),
        (b'{"score":1.5,"decision":"review"}', "score outside [0, 1]"),
        (b'{"decision":"review"}', "no score"),
        (b"<html>", "no score"),
    ],
)
def test_an_answer_is_asked_for_a_probability(body, problem):
    check = pickle.loads(pickle.dumps(ScoreCheck(read_score)))  # it goes to another process
    assert check(body, row=0, serial=b"") == problem


def test_mlflow_is_sent_features_and_its_one_prediction_is_the_score():
    request = Request({"transaction_id": "t"}, {"amount_log": 1.5, "card_type": None})
    assert json.loads(render_features(request)) == {
        "dataframe_split": {"columns": ["amount_log", "card_type"], "data": [[1.5, None]]}
    }
    assert json.loads(render_message(request)) == {"transaction_id": "t"}
    assert read_invocation(b'{"predictions": [0.25]}') == 0.25
    with pytest.raises(ValueError, match="unpack"):
        read_invocation(b'{"predictions": [0.25, 0.5]}')


def test_the_ceiling_reads_the_whole_body_before_it_answers(monkeypatch):
    monkeypatch.setenv(ANSWER_VARIABLE, '{"score":0.5}')
    parts = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
    ]
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(answer({"type": "http"}, receive, send))
    assert parts == []
    assert dict(sent[0]["headers"])[b"content-length"] == b"13"
    assert sent[1]["body"] == b'{"score":0.5}'


def test_stages_are_shared_by_the_transactions_of_their_batches():
    text = "\n".join(
        [
            "# TYPE throughline_stage_seconds histogram",
            'throughline_stage_seconds_sum{stage="store"} 2.0',
            'throughline_stage_seconds_sum{stage="decode"} 0.0',
            "# TYPE throughline_batch_rows histogram",
            "throughline_batch_rows_sum 1000.0",
            "throughline_batch_rows_count 50.0",
            "",
        ]
    )
    assert parse_stage_times(text) == {"store": 2000.0}


def test_a_service_that_scored_nothing_has_no_stages():
    assert parse_stage_times("") == {}


def test_pictures_show_what_was_measured_and_nothing_else():
    rows = [{"name": TEXTBOOK}, {"name": OURS, "qps": 20_000.0}]
    rows += [{"name": f"{OURS}, at 10,000/s", "qps": 10_000.0}]
    picture = plot_peers(rows)
    assert "20,000" in picture
    assert TEXTBOOK not in picture
    assert "10,000/s" not in picture
    assert "store" in plot_stages({"store": 12.34})
    assert "12.3" in plot_stages({"store": 12.34})


def test_the_page_has_a_table_of_services_one_of_stages_and_one_of_steps(tmp_path: Path):
    environment = {"date": "2026-11-01", "cores": 2, "cpu": "a cpu"}
    row = {"name": OURS, "qps": 20_000.0, "measured": {"cores": 1.0}}
    target = {"name": "qps", "value": 20_000.0, "target": 20_000, "at_least": 20_000, "met": True}
    base = {"environment": environment, "rows": [row], "targets": [target]}
    write_json(tmp_path / "serving.json", base | {"stages_us": {"store": 9.5}})
    write_json(tmp_path / "serving-steps.json", base | {"targets": [], "stages_us": {}})
    text = "\n".join(build_benchmark_tables(tmp_path, titles=SERVING_TITLES))
    assert "| µs of one request | 9.5 |" in text
    assert "`throughline bench serving --ablate`" in text
    assert text.count("| throughline | 20,000 |") == 2
    assert text.count("| requests/s | 20,000 | ≥ 20,000 | yes |") == 1
    assert "cores': 1.0" not in text
