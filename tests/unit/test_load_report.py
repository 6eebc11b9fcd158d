from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from serving.load_figures import _name_lines, plot_latency, plot_rung_latency, plot_throughput
from serving.load_histogram import NUM_BUCKETS, build_histogram, find_buckets
from serving.load_ladder import climb, describe_ladder
from serving.load_page import write_load_page
from serving.load_plan import WorkerReport
from serving.load_report import build_time_series, describe_load, write_percentiles
from serving.load_result import LoadResult, merge_reports
from tests.unit.test_load_ladder import make_result, make_settings


def make_report(latencies_us: np.ndarray, **facts: object) -> WorkerReport:
    counts = np.bincount(find_buckets(latencies_us / 1e6), minlength=NUM_BUCKETS)
    return WorkerReport(
        latencies=counts[None, :],
        failures=np.zeros(1, np.int64),
        requests=len(latencies_us),
        accepted=len(latencies_us),
        service_times=counts,
        ended=10.0,
        **facts,
    )


def merge(*reports: WorkerReport, rate: float | None = None) -> LoadResult:
    return merge_reports(reports, offered_qps=rate, interval_seconds=10.0, max_send_lag_ms=5.0)


def test_percentiles_of_two_processes_agree_with_numpy_to_the_histograms_three_digits():
    generator = np.random.default_rng(0)
    latencies_us = generator.gamma(2.0, 3000.0, size=5001).astype(int) + 1
    summary = describe_load(
        merge(make_report(latencies_us[:2000]), make_report(latencies_us[2000:]))
    )
    for key, percentile in [("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("p99_9_ms", 99.9)]:
        expected = np.percentile(latencies_us, percentile, method="inverted_cdf") / 1e3
        assert summary[key] == pytest.approx(expected, rel=2e-3)
    assert summary["max_ms"] == pytest.approx(latencies_us.max() / 1e3, rel=2e-3)
    assert summary["requests"] == 5001
    assert summary["qps"] == 500.1


def test_the_summary_adds_up_what_the_processes_counted():
    latency = np.array([1000])
    first = make_report(latency, errors=Counter({"status 500": 2}), shed=1, cpu_seconds=0.5)
    second = make_report(latency, errors=Counter({"status 500": 1, "never sent": 4}), shed=2)
    first.tallies = {"degraded_reason": Counter({"store": 3})}
    second.tallies = {"degraded_reason": Counter({"store": 1, "age": 1})}
    summary = describe_load(merge(first, second))
    assert summary["errors_by_kind"] == {"status 500": 3, "never sent": 4}
    assert (summary["errors"], summary["shed"], summary["degraded"]) == (7, 3, 5)
    assert summary["degraded_by_reason"] == {"store": 4, "age": 1}
    assert summary["generator_us_per_request"] == 250_000.0
    json.dumps(summary, allow_nan=False)


def test_a_closed_loop_confesses_and_an_open_one_says_from_when_it_counts():
    report = make_report(np.array([1000]))
    assert "coordinated omission" in describe_load(merge(report))["caveat"]
    assert "from when a request was due" in describe_load(merge(report, rate=10.0))["caveat"]


def test_a_busy_generator_in_one_process_makes_the_whole_result_invalid():
    quiet, busy = (make_report(np.array([1000]), cpu_share=share) for share in (0.1, 0.95))
    summary = describe_load(merge(quiet, busy))
    assert (summary["valid"], summary["generator_was_busy"]) == (False, True)
    assert describe_load(merge(quiet))["why"] == []


def test_the_time_series_has_a_row_per_interval_until_the_end():
    counts = np.zeros((4, NUM_BUCKETS), np.int64)
    for interval, latency_us in [(0, 1000), (2, 2000)]:
        counts[interval, find_buckets(np.array([latency_us / 1e6]))] = 5
    result = replace(merge(make_report(np.array([1000]))), intervals=counts, seconds=25.0)
    series = build_time_series(result)
    assert series["start_seconds"].tolist() == [0.0, 10.0, 20.0]
    assert series["requests"].tolist() == [5, 0, 5]
    assert series["p99_ms"].tolist() == pytest.approx([1.0, np.nan, 2.0], nan_ok=True)


def test_intervals_in_which_everything_failed_after_the_last_answer_are_in_the_series():
    counts = np.zeros((4, NUM_BUCKETS), np.int64)
    counts[[0, 2], find_buckets(np.array([0.001]))] = 5
    result = replace(merge(make_report(np.array([1000]))), intervals=counts, seconds=9.0)
    assert build_time_series(result)["requests"].tolist() == [5, 0, 5]


def test_the_percentile_file_ends_with_every_request_and_is_in_milliseconds(tmp_path):
    result = merge(make_report(np.full(400, 2000)))
    write_percentiles(tmp_path / "a.hgrm", result.latencies)
    lines = (tmp_path / "a.hgrm").read_text().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    assert [float(rows[-1][0]), float(rows[-1][1]), int(rows[-1][2])] == [2.0, 1.0, 400]


def test_the_picture_is_svg_that_is_the_same_for_the_same_numbers():
    histogram = build_histogram(np.bincount([1000], minlength=NUM_BUCKETS))
    first, second = (plot_latency({"a": histogram}) for _ in range(2))
    assert first == second
    assert ET.fromstring(first).tag.endswith("svg")
    assert "99.9" in first


def test_no_line_runs_behind_the_legend_however_high_it_is():
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [1, 1], label="p50")
    axes.plot([0, 1], [9, 9], label="p99")
    _name_lines(axes)
    figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_the_page_is_whole_in_itself_and_escapes_what_it_is_given(tmp_path):
    histogram = build_histogram(np.bincount([1000], minlength=NUM_BUCKETS))
    summary = {
        "title": "<b>Load</b>",
        "caveat": "open loop",
        "valid": False,
        "why": ["the <generator> was busy"],
        "interrupted": True,
        "errors_by_kind": {"status <500>": 2},
        "environment": {"cpu": "none"},
        "qps": 12.5,
    }
    figures = {
        "latency": plot_latency({"a": histogram}),
        "over_time": plot_latency({"b": histogram}),
    }
    write_load_page(tmp_path / "load.html", summary=summary, figures=figures)
    page = (tmp_path / "load.html").read_text()
    assert page.count("<svg") == 2
    assert "&lt;b&gt;Load" in page
    assert "<generator>" not in page
    assert "<500>" not in page
    assert "Interrupted" in page
    assert "Not valid" in page
    assert "12.5" in page
    assert "<script" not in page
    assert 'src="http' not in page
    ids = pd.Series(pd.Series(page).str.findall(r'\sid="([^"]+)"')[0])
    assert ids.is_unique


def test_a_ladders_page_has_a_row_for_each_rung_and_says_why_one_did_not_hold(tmp_path):
    settings = make_settings(max_rungs=3, num_bisections=0)
    ladder = climb(lambda rate: make_result(rate, seconds=max(rate / 150, 1.0)), settings=settings)
    figures = {
        "throughput": plot_throughput(ladder),
        "rung_latency": plot_rung_latency(ladder, max_p99_ms=50.0),
    }
    summary = {"title": "Load ladder", "environment": {}, **describe_ladder(ladder)}
    write_load_page(tmp_path / "load.html", summary=summary, figures=figures)
    page = (tmp_path / "load.html").read_text()
    assert [page.count(f'<th scope="row">{rate}</th>') for rate in (100, 200, 400)] == [1, 1, 0]
    assert "answered 150 of 200 requests/s" in page
    assert page.count("<svg") == 2
