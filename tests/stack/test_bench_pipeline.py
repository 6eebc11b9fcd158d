"""``throughline bench pipeline``, small, as a user would run it; and the service that publishes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import psutil
import pytest
import redis

from features.fraud_stream import connect_stream
from features.store import open_feature_store
from serving.server import find_free_port, start_service
from tests.stack.served_world import ask

pytestmark = pytest.mark.stack


@pytest.mark.usefixtures("redis_url")  # skipped, or failed, where there is no redis-server
def test_the_pipeline_bench_finds_every_answered_transaction_in_the_right_states(tmp_path):
    file = tmp_path / "pipeline.json"
    small = ("--customers=80", "--merchants=40", "--rate=60", "--seconds=2")
    subprocess.run(
        [sys.executable, "-m", "throughline", "bench", "pipeline", *small, f"--json={file}"],
        check=True,
        capture_output=True,
    )
    result = json.loads(file.read_text())
    scored, readable, probe, *ceilings = result["rows"]
    assert scored["transactions"] > 60
    assert scored["errors"] == 0
    # The probe's transactions are among those that became readable.
    assert readable["transactions"] >= scored["transactions"]
    assert probe["transactions"] > 0
    assert [row["errors"] for row in ceilings] == [0, 0]
    highest = max(row["tx_per_second"] for row in ceilings)
    assert readable["share_of_uvicorn"] == pytest.approx(
        readable["tx_per_second"] / highest, rel=0.01
    )
    targets = {target["name"]: target["value"] for target in result["targets"]}
    verdicts = ("wrong_states", "transactions_lost", "transactions_invented", "dead_letters")
    assert {name: targets[name] for name in verdicts} == dict.fromkeys(verdicts, 0)
    assert targets["probes_unseen"] == 0
    assert file.with_suffix(".svg").read_text().startswith("<?xml")
    left = [process.name() for process in psutil.Process().children(recursive=True)]
    assert "bentoml" not in left


def test_a_service_that_is_told_to_publishes_what_it_scored_and_counts_it(tiny_world, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(tiny_world.runs, runs, ignore=shutil.ignore_patterns("serving", "stream"))
    serving = tiny_world.serving.model_copy(update={"publish_scored": True})
    config = tiny_world.model_copy(update={"runs": runs, "serving": serving})
    message = {
        "event_time": datetime.now(UTC).isoformat(),
        "customer_id": "ann",
        "amount": 5.0,
    }
    with start_service(config, port=find_free_port()) as url:
        for lane, transaction_id in (("/v1/score", "fast"), ("/predict", "typed")):
            body = {**message, "transaction_id": transaction_id}
            whole = {"transaction": body} if lane == "/predict" else body
            assert httpx.post(f"{url}{lane}", json=whole, timeout=20).status_code == 200
        refused = httpx.post(f"{url}/v1/score", json={**message, "amount": "5"}, timeout=20)
        assert refused.status_code == 400
    # The service has ended, and published all of it first.
    stream = connect_stream(runs, open_feature_store(runs), config.stream)
    stream.make_processor().run(until_empty=True)
    assert set(stream.archive.load()["transaction_id"]) == {"fast", "typed"}


def test_a_service_that_is_not_told_to_publishes_nothing(served_world):
    assert len(ask(served_world.url, served_world.messages)) == len(served_world.messages)
    assert served_world.get_state()["publisher"] is None
    with redis.Redis.from_url(served_world.redis.url) as client:
        assert list(client.scan_iter(_type="stream")) == []
