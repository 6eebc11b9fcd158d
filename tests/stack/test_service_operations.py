"""A service of two workers under load, an operator at work on it, and what is traced of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from configs.schema import FraudConfig
from data.fraud import load_transactions
from serving.admin import TOKEN_VARIABLE
from serving.champion_changes import AUDIT_FILE
from serving.lane_metrics import PUBLISH_SECONDS
from serving.load_messages import draw_messages
from serving.server import check_can_serve, find_free_port, get_service_folder, start_service
from serving.tracing import TRACES_FILE
from tests.stack.stream_world import wait_until
from tests.stack.twin_versions import make_version
from training.promotion import set_alias
from training.registry import CHAMPION, get_champion

pytestmark = pytest.mark.stack
TOKEN = "correct-horse-battery"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
TAKES_EFFECT_SECONDS = 2.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def messages(tiny_world: FraudConfig) -> list[dict[str, Any]]:
    return draw_messages(load_transactions(tiny_world.runs), num_messages=20, seed=11)


@pytest.fixture(scope="module")
def url(tiny_world: FraudConfig) -> Iterator[str]:
    """Two workers behind one port, and an operator's token."""
    serving = tiny_world.serving.model_copy(update={"workers": 2})
    config = tiny_world.model_copy(update={"serving": serving})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        with start_service(config, port=find_free_port()) as started:
            patch.delenv(TOKEN_VARIABLE)
            wait_until(lambda: len(find_workers(started)) == 2)
            yield started


def find_workers(url: str) -> set[int]:
    """Ask over some connections which process answers; each is accepted by any worker."""
    return {
        httpx.get(f"{url}/model", timeout=10, trust_env=False).json()["worker"] for _ in range(8)
    }


def find_versions(url: str) -> set[str]:
    """Ask over some connections which model answers."""
    return {
        httpx.get(f"{url}/model", timeout=10, trust_env=False).json()["model_version"]
        for _ in range(8)
    }


def read_counts(url: str) -> dict[str, float]:
    """Read how many requests were answered, by outcome, all workers together."""
    text = httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "throughline_requests_total" and sample.labels["route"] == "score"
    }


def test_the_counts_of_both_workers_add_up(url, messages):
    before, answered = read_counts(url), {"ok": 0, "invalid": 0}
    workers: set[int] = set()
    while len(workers) < 2 or answered["ok"] < 100:
        with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
            workers.add(client.get("/model").json()["worker"])
            for message in messages[:10]:
                assert client.post("/v1/score", json=message).status_code == 200
            assert client.post("/v1/score", json={}).status_code == 400
        answered["ok"] += 10
        answered["invalid"] += 1
    time.sleep(4 * PUBLISH_SECONDS)
    after = read_counts(url)
    assert {outcome: after[outcome] - before[outcome] for outcome in answered} == answered


class Load:
    """Asks single transactions and batches over and over, and remembers who answered."""

    def __init__(self, url: str, messages: list[dict[str, Any]]) -> None:
        self._url, self._messages = url, messages
        self._is_over = threading.Event()
        self.statuses: set[int] = set()
        self.seen: list[tuple[float, frozenset[str]]] = []

    def run(self) -> None:
        while not self._is_over.is_set():  # a connection at a time, so that both workers are met
            with httpx.Client(base_url=self._url, timeout=10, trust_env=False) as client:
                for _ in range(5):
                    asked = time.monotonic()
                    batch = client.post("/v1/score_batch", json={"transactions": self._messages})
                    single = client.post("/v1/score", json=self._messages[0])
                    self.statuses |= {batch.status_code, single.status_code}
                    for answers in (batch.json()["predictions"], [single.json()]):
                        versions = frozenset(answer["model_version"] for answer in answers)
                        self.seen.append((asked, versions))

    def stop(self) -> None:
        self._is_over.set()


def move(url: str, path: str, **body: str) -> tuple[float, dict[str, str]]:
    answer = httpx.post(
        f"{url}{path}", json=body or None, headers=RIGHT, timeout=30, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    return time.monotonic(), answer.json()


def test_a_swap_and_a_rollback_reach_both_workers_under_load_with_no_failed_or_mixed_answer(
    tiny_world, url, messages, tmp_path
):
    first, _ = get_champion(tiny_world.runs)
    other = make_version(tiny_world, tmp_path, shift=0.7)
    audit_file = get_service_folder(tiny_world.runs) / AUDIT_FILE
    load = Load(url, messages)
    try:
        with ThreadPoolExecutor() as threads:
            running = [threads.submit(load.run) for _ in range(2)]
            time.sleep(0.5)
            swapped, swap = move(url, "/admin/swap", version=other)
            time.sleep(TAKES_EFFECT_SECONDS + 0.5)
            moved_back, rollback = move(url, "/admin/rollback")
            time.sleep(TAKES_EFFECT_SECONDS + 0.5)
            load.stop()
            for future in running:
                future.result()
    finally:
        load.stop()
        set_alias(tiny_world.runs, CHAMPION, version=first)
    assert (swap, rollback) == ({"from": first, "to": other}, {"from": other, "to": first})
    assert load.statuses == {200}
    assert {len(versions) for _, versions in load.seen} == {1}

    def seen(start: float, end: float = float("inf")) -> set[str]:
        return {version for asked, each in load.seen if start < asked < end for version in each}

    assert seen(swapped + TAKES_EFFECT_SECONDS, moved_back - 0.2) == {other}
    assert seen(moved_back + TAKES_EFFECT_SECONDS) == {first}
    lines = [json.loads(line) for line in audit_file.read_text().splitlines()[-2:]]
    assert [(line["action"], line["from"], line["to"]) for line in lines] == [
        ("swap", first, other),
        ("rollback", other, first),
    ]


def test_the_status_is_for_the_operator_only(url, tiny_world):
    ask = httpx.Client(base_url=url, timeout=10, trust_env=False)
    with ask:
        assert ask.get("/admin/status").status_code == 401
        status = ask.get("/admin/status", headers=RIGHT)
    assert status.status_code == 200
    assert status.json()["champion"] == get_champion(tiny_world.runs)[0]
    assert status.json()["worker"]["ready"] is True


def test_a_token_that_is_no_secret_is_told_before_anything_starts(tiny_world, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(ValueError, match="THROUGHLINE_ADMIN_TOKEN has 5 characters"):
        check_can_serve(tiny_world, port=find_free_port())


@pytest.fixture(scope="module")
def traced_url(tiny_world: FraudConfig) -> Iterator[str]:
    """A service that traces every request."""
    serving = tiny_world.serving.model_copy(update={"trace_share": 1.0})
    config = tiny_world.model_copy(update={"serving": serving})
    with start_service(config, port=find_free_port()) as started:
        yield started


def read_spans(config: FraudConfig, trace: str) -> list[dict[str, Any]]:
    file = get_service_folder(config.runs) / TRACES_FILE
    lines = file.read_text().splitlines() if file.exists() else []
    spans = [json.loads(line) for line in lines]
    return [span for span in spans if span["context"]["trace_id"] == f"0x{trace}"]


def test_a_request_of_a_callers_trace_is_written_down_stage_by_stage(
    tiny_world, traced_url, messages
):
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = httpx.post(
        f"{traced_url}/v1/score", json=messages[0], headers=headers, trust_env=False
    ).json()
    wait_until(lambda: len(read_spans(tiny_world, TRACE)) == 7)
    spans = {span["name"]: span for span in read_spans(tiny_world, TRACE)}
    stages = {"decode", "store", "features", "model", "record", "encode"}
    assert spans.keys() == stages | {"/v1/score"}
    assert spans["/v1/score"]["parent_id"] == "0x00f067aa0ba902b7"
    assert spans["/v1/score"]["attributes"]["decision"] == answer["decision"]


def test_without_a_token_there_is_nothing_below_admin(traced_url):
    answer = httpx.post(f"{traced_url}/admin/rollback", headers=RIGHT, trust_env=False)
    assert answer.status_code == 404
    assert Path(TRACES_FILE).exists() is False


def test_a_store_on_files_is_not_served_as_if_it_were_in_redis(tiny_world):
    with pytest.raises(ValueError, match="fraud features --set profile=stack"):
        check_can_serve(tiny_world.model_copy(update={"profile": "stack"}), port=find_free_port())
