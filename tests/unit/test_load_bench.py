from __future__ import annotations

import shutil

import httpx
import pytest

from serving.bench_load import parse_wrk, run_bench_load, start_constant_target
from serving.load_messages import check_answer

REPORT = """Running 4s test @ http://127.0.0.1:8765/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.64ms    1.57ms  20.89ms   85.14%
    Req/Sec    24.29k     6.60k   33.37k    67.50%
  Latency Distribution
     50%  809.00us
     75%    3.33ms
     90%    4.31ms
     99%    1.20s
  96929 requests in 4.02s, 20.61MB read
  Socket errors: connect 1, read 2, write 3, timeout 9
  Non-2xx or 3xx responses: 5
Requests/sec:  24110.11
Transfer/sec:      5.13MB
"""


def test_a_report_of_wrk_is_read_in_our_units():
    row, requests = parse_wrk(REPORT)
    assert row == {"qps": 24110.11, "p50_ms": 0.809, "p99_ms": 1200.0, "errors": 11}
    assert requests == 96929


def test_what_is_no_report_of_wrk_is_told():
    with pytest.raises(ValueError, match="no report of wrk: unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.stack
def test_the_constant_target_answers_what_the_fraud_service_might():
    with start_constant_target() as url:
        answer = httpx.post(url, json={"a": 1}, trust_env=False)
    assert check_answer(answer.status_code, answer.content, "t1") is None


@pytest.mark.stack
def test_the_bench_has_a_row_per_generator_and_no_errors():
    result = run_bench_load(seconds=1.0, connections=4, rounds=1)
    rows = {row["name"]: row for row in result["rows"]}
    peers = {"wrk, closed loop"} if shutil.which("wrk") else set()
    assert set(rows) == {"ours, closed loop", "ours, open loop"} | peers
    assert all(row["errors"] == 0 and row["qps"] > 0 for row in rows.values())


@pytest.mark.stack
def test_without_wrk_the_bench_says_that_there_is_nothing_to_compare_with(monkeypatch):
    monkeypatch.setattr("serving.bench_load.shutil.which", lambda _: None)
    result = run_bench_load(seconds=0.5, connections=2, rounds=1)
    assert result["targets"][0]["value"] is None
    assert "wrk is not installed" in result["note"]
