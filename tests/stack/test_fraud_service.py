"""The fraud service as a user has it: ``bentoml serve``, a real store, a real model, real HTTP."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from configs.schema import FraudConfig
from data.fraud import load_transactions
from data.fraud_columns import TRANSACTION_COLUMNS
from features.fraud_rebuild import run_rebuild
from features.fraud_stream import connect_stream
from features.store import get_store_folder, open_feature_store, read_online_features
from features.store_build import run_features
from serving.client import replay_transactions
from serving.decisions import STALE
from serving.load_messages import draw_messages
from serving.loadtest import run_load
from serving.online_store import REOPEN_SECONDS
from serving.prediction_log import get_prediction_folder, load_predictions
from serving.server import check_can_serve, find_free_port, get_service_folder, start_service
from tests.stack.twin_versions import make_version
from training.artefact import load_artefact
from training.promotion import set_alias
from training.registry import CHAMPION, get_champion

pytestmark = pytest.mark.stack
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def messages(tiny_world: FraudConfig) -> list[dict[str, Any]]:
    """Transactions of known customers just after the history ends, with ids of our own."""
    drawn = draw_messages(load_transactions(tiny_world.runs), num_messages=40, seed=5)
    return [{**message, "transaction_id": f"new-{i}"} for i, message in enumerate(drawn)]


def post(url: str, path: str, document: object) -> httpx.Response:
    return httpx.post(url + path, json=document, timeout=30, trust_env=False)


def get_state(url: str) -> dict[str, Any]:
    state: dict[str, Any] = httpx.get(f"{url}/model", timeout=10, trust_env=False).json()
    return state


def wait_for(condition: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_score_over_http_is_the_model_applied_to_the_online_features(tiny_world, url, messages):
    version, folder = get_champion(tiny_world.runs)
    artefact = load_artefact(folder)
    rows = pd.DataFrame(messages, columns=list(TRANSACTION_COLUMNS))
    rows["event_time"] = pd.to_datetime(rows["event_time"], format="ISO8601", utc=True)
    features = read_online_features(open_feature_store(tiny_world.runs), rows)
    expected = artefact.predict(features)
    answers = post(url, "/predict_batch", {"transactions": messages}).json()["predictions"]
    assert [answer["transaction_id"] for answer in answers] == rows["transaction_id"].tolist()
    assert [answer["score"] for answer in answers] == pytest.approx(expected.tolist(), abs=1e-12)
    assert [answer["decision"] for answer in answers] == list(
        artefact.decide(expected, rows["amount"].to_numpy())
    )
    assert {answer["model_version"] for answer in answers} == {version}
    assert {answer["degraded_reason"] for answer in answers} == {None}
    assert features["customer_tx_count_7d"].notna().all()  # history was there to be used


def test_one_transaction_scores_as_it_does_in_a_batch(url, messages):
    batch = post(url, "/predict_batch", {"transactions": messages[:3]}).json()["predictions"]
    single = [post(url, "/predict", {"transaction": message}).json() for message in messages[:3]]
    assert single == batch


def vary(message: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """Leave fields out, change the amount and the time, or make somebody up."""
    kept = {name: message[name] for name in message if name in VALID or generator.random() < 0.8}
    if generator.random() < 0.2:
        kept["customer_id"] = f"stranger-{generator.random()}"
    if generator.random() < 0.3:
        kept["amount"] = round(generator.uniform(0, 5000), 2)
    if generator.random() < 0.3:
        shift = pd.Timedelta(seconds=generator.uniform(-40 * 86_400, 86_400))
        kept["event_time"] = (pd.Timestamp(message["event_time"]) + shift).isoformat()
    return kept


def test_both_lanes_give_the_same_answers_one_by_one_and_in_batches(url, messages):
    generator = random.Random(7)
    rows = [
        {**vary(message, generator), "transaction_id": f"lanes-{i}"}
        for i, message in enumerate(messages * 3)
    ]
    fast = post(url, "/v1/score_batch", {"transactions": rows}).json()["predictions"]
    typed = post(url, "/predict_batch", {"transactions": rows}).json()["predictions"]
    assert [{**answer, "reasons": None} for answer in fast] == typed
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        assert [client.post("/v1/score", json=row).json() for row in rows] == fast
        for row, answer in zip(rows[:10], typed, strict=False):
            assert client.post("/predict", json={"transaction": row}).json() == answer
    assert len({answer["score"] for answer in fast}) > 20


def test_the_fast_lane_refuses_with_a_status_and_one_line(url):
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        answers = {
            400: client.post("/v1/score", json={**VALID, "amount": -1}),
            405: client.get("/v1/score"),
            413: client.post("/v1/score", content=b"x" * 3_000_000),
            415: client.post("/v1/score", content=b"{}", headers={"content-type": "text/plain"}),
        }
    assert {status: answer.status_code for status, answer in answers.items()} == {
        status: status for status in answers
    }
    for answer in answers.values():
        assert answer.json().keys() == {"error"}


def test_reasons_come_when_asked_for_largest_first(url, messages):
    asked = post(url, "/predict", {"transaction": messages[0], "explain": True}).json()
    moved = [abs(reason["contribution"]) for reason in asked["reasons"]]
    assert len(moved) == 5
    assert moved == sorted(moved, reverse=True)
    assert post(url, "/predict", {"transaction": messages[0]}).json()["reasons"] is None


def test_a_transaction_with_only_the_required_fields_is_scored(url, messages):
    names = ("transaction_id", "event_time", "customer_id", "amount")
    answer = post(url, "/predict", {"transaction": {name: messages[0][name] for name in names}})
    assert answer.status_code == 200
    assert answer.json()["degraded_reason"] is None


def test_an_unknown_customer_is_scored(url, messages):
    stranger = {**messages[0], "customer_id": "never-seen\u0000", "ip": "no address"}
    assert post(url, "/predict", {"transaction": stranger}).status_code == 200


VALID = {
    "transaction_id": "bad-1",
    "event_time": "2026-03-12T00:00:00Z",
    "customer_id": "c00001",
    "amount": 12.5,
}


def with_field(name: str, literal: str) -> bytes:
    document = json.dumps({"transaction": {**VALID, name: "HERE"}})
    return document.replace('"HERE"', literal).encode()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"transaction": {', "Invalid JSON"),
        (b"", "transaction"),
        (b"null", "object"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (json.dumps({"transaction": {**VALID, "amount": None}}).encode(), "amount"),
        (json.dumps({"transaction": VALID, "unheard_of": 1}).encode(), "unheard_of"),
        (json.dumps({"transaction": {"amount": 1}}).encode(), "customer_id"),
        (with_field("unheard_of", "1"), "unheard_of"),
        (with_field("extra", '{"V9": 1}'), "V9"),
        (with_field("amount", "NaN"), "amount"),
        (with_field("amount", "1e400"), "amount"),
        (with_field("amount", "-1"), "amount"),
        (with_field("amount", '"12.5"'), "amount"),
        (with_field("amount", "9" * 300), "amount"),
        (with_field("amount", "9" * 5000), "number out of range"),
        (with_field("event_time", '"2026-03-12T00:00:00"'), "event_time"),
        (with_field("event_time", "1767225600"), "event_time"),
        (with_field("latitude", "91"), "latitude"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_what_is_wrong(url, body, named):
    answer = httpx.post(
        f"{url}/predict", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert answer.status_code == 400
    assert named in answer.text
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_a_body_of_ten_megabytes_is_refused_by_its_size(url):
    body = b'{"transaction": "' + b"x" * 10_000_000 + b'"}'
    for content in (body, iter([body[:1_000_000]] * 10)):  # with its length announced, and without
        answer = httpx.post(f"{url}/predict", content=content, timeout=30)
        assert answer.status_code == 413
        assert "at most 2097152 bytes" in answer.json()["error"]


def test_forms_and_pickles_are_refused_by_their_type(url):
    for media_type in ("application/vnd.bentoml+pickle", "multipart/form-data; boundary=x"):
        answer = httpx.post(
            f"{url}/predict", content=b"x", headers={"content-type": media_type}, timeout=30
        )
        assert answer.status_code == 415


def test_a_batch_with_too_many_rows_is_refused_and_one_at_the_limit_is_not(
    tiny_world, url, messages
):
    limit = tiny_world.serving.max_batch_rows
    rows = [{**messages[0], "transaction_id": f"many-{i}"} for i in range(limit + 1)]
    refused = post(url, "/predict_batch", {"transactions": rows})
    assert refused.status_code == 400
    assert f"at most {limit} are allowed" in refused.text
    assert post(url, "/predict_batch", {"transactions": rows[:limit]}).status_code == 200


def test_a_batch_names_the_position_of_its_wrong_transaction(url, messages):
    answer = post(url, "/predict_batch", {"transactions": [messages[0], {**VALID, "amount": -1}]})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["transactions", 1, "amount"]


def test_no_refused_request_was_counted_as_the_servers_fault_or_left_a_trace_in_its_log(
    tiny_world, url
):
    post(url, "/predict", {"transaction": {}})
    metrics = httpx.get(f"{url}/metrics", timeout=10).text
    counts = re.findall(r'request_total{.*http_response_code="(\d+)".*} (\S+)', metrics)
    codes = {code for code, count in counts if float(count) > 0}
    assert "400" in codes
    assert not {code for code in codes if code.startswith("5")}
    log = (get_service_folder(tiny_world.runs) / f"{url.rsplit(':', 1)[1]}.log").read_text()
    assert "ValidationError" not in log


def test_the_api_describes_itself_and_every_reference_in_it_resolves(url):
    document = httpx.get(f"{url}/docs.json", timeout=10).json()
    assert {"/predict", "/predict_batch", "/readyz"} <= document["paths"].keys()
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    transaction = document["components"]["schemas"]["Transaction"]
    assert set(transaction["required"]) == set(VALID)
    assert transaction["additionalProperties"] is False


def test_every_answer_is_recorded_with_the_features_it_was_given(tiny_world, url, messages):
    mine = [{**message, "transaction_id": f"logged-{i}"} for i, message in enumerate(messages)]
    answers = post(url, "/predict_batch", {"transactions": mine}).json()["predictions"]
    wanted = {answer["transaction_id"]: answer for answer in answers}

    def find() -> tuple[pd.DataFrame, pd.DataFrame]:
        predictions, features = load_predictions(get_prediction_folder(tiny_world.runs))
        is_mine = predictions["transaction_id"].isin(wanted)
        return predictions[is_mine], features[is_mine]

    assert wait_for(lambda: len(find()[0]) == len(wanted))
    predictions, features = find()
    for record in predictions.itertuples():
        answer = wanted[record.transaction_id]
        assert (record.score, record.decision) == (answer["score"], answer["decision"])
    _, folder = get_champion(tiny_world.runs)
    recomputed = load_artefact(folder).predict(features)
    assert recomputed.tolist() == pytest.approx(predictions["score"].tolist(), abs=1e-9)


def test_a_replay_scores_all_transactions_in_order(tiny_world, url):
    rows = load_transactions(tiny_world.runs).tail(250)
    predictions = replay_transactions(url, [rows.head(200), rows.tail(50)], batch_rows=150)
    assert predictions["transaction_id"].tolist() == rows["transaction_id"].tolist()
    assert predictions["score"].between(0, 1).all()


def test_a_load_run_finds_no_error_and_stays_out_of_the_predictions(tiny_world, url):
    result = run_load(tiny_world, url=url)
    assert (result["requests"], result["errors"], result["degraded"]) == (60, 0, 0)
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]
    assert all(Path(path).is_file() for path in result["wrote"])
    time.sleep(3 * tiny_world.serving.log_flush_seconds)
    predictions, _ = load_predictions(get_prediction_folder(tiny_world.runs))
    assert not predictions["transaction_id"].str.contains("load").any()


def test_a_broken_champion_is_refused_and_the_old_one_keeps_serving(
    tiny_world, url, messages, tmp_path
):
    version, _ = get_champion(tiny_world.runs)
    known = set((tiny_world.runs / "mlflow").rglob("model.txt"))
    broken = make_version(tiny_world, tmp_path, shift=1.0)
    (model,) = set((tiny_world.runs / "mlflow").rglob("model.txt")) - known
    model.write_bytes(model.read_bytes()[:-100])
    set_alias(tiny_world.runs, CHAMPION, version=broken)
    try:
        assert wait_for(lambda: get_state(url)["refused"] is not None)
        state = get_state(url)
        assert state["refused"]["version"] == broken
        assert "model.txt has changed" in state["refused"]["reason"]
        answer = post(url, "/predict", {"transaction": messages[0]}).json()
        assert answer["model_version"] == state["model_version"] == version
    finally:
        set_alias(tiny_world.runs, CHAMPION, version=version)
    assert wait_for(lambda: get_state(url)["refused"] is None)


def test_a_promotion_reaches_the_running_service_without_a_failed_or_mixed_answer(
    tiny_world, url, messages, tmp_path
):
    version, _ = get_champion(tiny_world.runs)
    promoted = make_version(tiny_world, tmp_path, shift=0.7)
    seen: list[str] = []
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:

        def ask() -> None:
            answer = client.post("/predict_batch", json={"transactions": messages[:10]})
            assert answer.status_code == 200
            versions = {each["model_version"] for each in answer.json()["predictions"]}
            assert len(versions) == 1
            seen.extend(versions)

        ask()
        set_alias(tiny_world.runs, CHAMPION, version=promoted)
        try:
            deadline = time.monotonic() + 10
            while seen[-1] != promoted and time.monotonic() < deadline:
                ask()
            ask()
        finally:
            set_alias(tiny_world.runs, CHAMPION, version=version)
    assert seen[0] == version
    assert seen[-2:] == [promoted, promoted]
    assert sorted(seen, key=[version, promoted].index) == seen  # once over, never back
    assert wait_for(lambda: get_state(url)["model_version"] == version)


def test_a_lost_store_costs_the_history_and_the_answer_says_so_until_it_is_back(
    tiny_world, url, messages
):
    database = get_store_folder(tiny_world.runs) / "online.db"
    before = post(url, "/predict", {"transaction": messages[0]}).json()
    database.rename(f"{database}.away")
    try:
        answer = post(url, "/predict", {"transaction": messages[0]})
        assert answer.status_code == 200
        assert answer.json()["degraded_reason"] == STALE  # it was asked for just before
        assert 0.0 <= answer.json()["score"] <= 1.0
        assert get_state(url)["store_error"] is not None
        assert httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    finally:
        Path(f"{database}.away").rename(database)
    assert wait_for(lambda: has_history(url, messages[0]))
    assert post(url, "/predict", {"transaction": messages[0]}).json() == before


def test_a_store_rebuilt_under_a_running_service_is_read_from_then_on(tiny_world, url, messages):
    run_features(tiny_world)
    time.sleep(REOPEN_SECONDS)
    assert wait_for(lambda: has_history(url, messages[0]))
    known = pd.DataFrame(messages[:1]).assign(
        transaction_id="just-now",
        event_time=pd.Timestamp(messages[0]["event_time"]) - pd.Timedelta(minutes=1),
    )
    store = open_feature_store(tiny_world.runs)
    stream = connect_stream(tiny_world.runs, store, tiny_world.stream)
    stream.publish(known)
    stream.make_processor().run(until_empty=True)
    after = post(url, "/predict", {"transaction": messages[0], "explain": True}).json()
    assert after["degraded_reason"] is None
    assert count_last_hour(tiny_world, url, messages[0]) == 1.0


def test_a_flushed_store_costs_the_history_until_it_is_rebuilt(tiny_world, url, messages):
    assert wait_for(lambda: has_history(url, messages[1]))
    before = post(url, "/predict", {"transaction": messages[1]}).json()
    open_feature_store(tiny_world.runs).states.clear()
    flushed = post(url, "/predict", {"transaction": messages[1]}).json()
    assert flushed["degraded_reason"] == STALE
    run_rebuild(tiny_world)
    assert wait_for(lambda: has_history(url, messages[1]))
    assert post(url, "/predict", {"transaction": messages[1]}).json() == before


def has_history(url: str, message: dict[str, Any]) -> bool:
    """Whether an answer has all that the store knows."""
    answer = post(url, "/predict", {"transaction": message}).json()
    return answer["degraded_reason"] is None


def count_last_hour(config: FraudConfig, url: str, message: dict[str, Any]) -> float:
    """Score once more, and read how often the customer was said to have paid in the last hour."""
    probe = {**message, "transaction_id": f"probe-{time.time_ns()}"}
    post(url, "/predict", {"transaction": probe})

    def find() -> pd.Series:
        predictions, features = load_predictions(get_prediction_folder(config.runs))
        is_probe = predictions["transaction_id"] == probe["transaction_id"]
        return features.loc[is_probe, "customer_tx_count_1h"]

    assert wait_for(lambda: len(find()) == 1)
    return float(find().iloc[0])


FOREGROUND = """
import sys
from pathlib import Path
from configs.schema import load_fraud_config
from serving.server import run_serve
changes = {"serving.workers": 2, "serving.log_flush_seconds": 3600.0}
config = load_fraud_config(Path(sys.argv[1]), changes=changes)
print(run_serve(config)["next"])
"""


@contextmanager
def leave_half_sent(port: int, path: str) -> Iterator[None]:
    """Keep a connection open whose body will never be whole."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        yield


def test_serving_in_the_foreground_ends_with_no_process_left_and_every_record_on_disk(
    tiny_world, messages, tmp_path
):
    """Bodies that are only half sent when it is told to end must not keep it from that."""
    port = find_free_port()
    document = tiny_world.model_dump(mode="json")
    document["serving"]["port"] = port
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    process = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(tmp_path / "config.yaml")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    half_sent = ExitStack()
    try:
        assert process.stdout is not None
        assert f"serving on http://127.0.0.1:{port}" in process.stdout.readline()
        workers: set[int] = set()

        def has_met_both() -> bool:
            workers.add(get_state(f"http://127.0.0.1:{port}")["worker"])
            return len(workers) == 2

        assert wait_for(has_met_both, seconds=60)
        last = {**messages[0], "transaction_id": "last-words"}
        answer = post(f"http://127.0.0.1:{port}", "/predict", {"transaction": last})
        assert answer.status_code == 200
        half_sent.enter_context(leave_half_sent(port, "/v1/score"))
        half_sent.enter_context(leave_half_sent(port, "/v1/score_batch"))
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        half_sent.close()
    assert process.returncode == 0
    assert output.endswith("throughline fraud monitor\n")
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    check_can_serve(tiny_world, port=port)  # the port can be had again
    predictions, _ = load_predictions(get_prediction_folder(tiny_world.runs))
    assert "last-words" in set(predictions["transaction_id"])


def test_serving_before_the_features_are_built_says_what_to_run(tiny_world, tmp_path):
    config = tiny_world.model_copy(update={"runs": tmp_path})
    with pytest.raises(FileNotFoundError, match="run `throughline fraud features`"):
        check_can_serve(config, port=find_free_port())


def test_serving_before_a_model_is_trained_says_what_to_run(tiny_world, tmp_path):
    store = get_store_folder(tiny_world.runs)
    get_store_folder(tmp_path).symlink_to(store)
    config = tiny_world.model_copy(update={"runs": tmp_path})
    with pytest.raises(FileNotFoundError, match="run `throughline fraud train`"):
        check_can_serve(config, port=find_free_port())


def test_a_broken_champion_is_told_before_anything_is_started(tiny_world):
    version, folder = get_champion(tiny_world.runs)
    port = find_free_port()
    content = (folder / "model.txt").read_bytes()
    (folder / "model.txt").write_bytes(content[: len(content) // 2])
    try:
        with (
            pytest.raises(
                ValueError, match=f"model version {version} cannot be served: .*model.tx"
            ),
            start_service(tiny_world, port=port),
        ):
            pass
    finally:
        (folder / "model.txt").write_bytes(content)
    assert not (get_service_folder(tiny_world.runs) / f"{port}.log").exists()
