"""An operator over HTTP: who may, what moves, and what is left of it in the audit."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from serving.admin import build_admin_routes, read_admin_token
from serving.champion_changes import AUDIT_FILE
from tests.stack.registry_world import add_version, save_small_artefact
from training.promotion import roll_back, set_alias
from training.registry import find_artefact, find_version, get_champion, get_tracking_uri

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "correct-horse-battery"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = [("POST", "/admin/swap"), ("POST", "/admin/rollback"), ("GET", "/admin/status")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions that load, and a fourth whose model file is truncated."""
    artefact = tmp_path_factory.mktemp("artefact") / "small"
    save_small_artefact(artefact)
    runs = tmp_path_factory.mktemp("registry") / "runs"
    for _ in range(4):
        add_version(runs, artefact)
    damaged = find_artefact(runs, "4") / "model.json"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    return runs


@pytest.fixture
def runs(registry: Path) -> Path:
    """The registry with version 1 as its champion, and none before it."""
    import mlflow

    uri = get_tracking_uri(registry)
    set_alias(registry, "champion", version="1")
    mlflow.MlflowClient(uri, uri).delete_registered_model_alias("fraud", "previous")
    return registry


class Operator:
    """Sends requests to the routes, over ASGI as a server would."""

    def __init__(self, runs: Path, folder: Path, token: str | None = TOKEN) -> None:
        routes = build_admin_routes(
            runs, token=token, folder=folder, describe=lambda: {"model_version": "1"}
        )
        self.application = Starlette(routes=routes)
        self.audit_file = folder / AUDIT_FILE

    def ask(self, *requests: tuple[str, str], headers: Any = RIGHT, **options: Any) -> list[Any]:
        """Send requests at once; return (status, document) of each."""

        async def send_all() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.application, client=("192.0.2.7", 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await asyncio.gather(
                    *(
                        client.request(method, path, headers=headers, **options)
                        for method, path in requests
                    )
                )

        answers = asyncio.run(send_all())
        return [
            (answer.status_code, answer.json() if answer.text[:1] == "{" else answer.text)
            for answer in answers
        ]

    def swap(self, version: str) -> tuple[int, Any]:
        (answer,) = self.ask(("POST", "/admin/swap"), json={"version": version})
        return answer

    def roll_back(self) -> tuple[int, Any]:
        (answer,) = self.ask(("POST", "/admin/rollback"))
        return answer

    def read_audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]


@pytest.fixture
def operator(runs: Path, tmp_path: Path) -> Operator:
    return Operator(runs, tmp_path / "serving")


def test_a_swap_moves_the_champion_and_says_from_where(operator, runs):
    assert operator.swap("2") == (200, {"from": "1", "to": "2"})
    assert get_champion(runs)[0] == "2"


def test_a_rollback_brings_the_champion_before_back(operator, runs):
    operator.swap("2")
    assert operator.roll_back() == (200, {"from": "2", "to": "1"})
    assert get_champion(runs)[0] == "1"


def test_a_rollback_takes_back_a_promotion_by_anybody(operator, runs):
    set_alias(runs, "champion", version="3")
    assert operator.roll_back() == (200, {"from": "3", "to": "1"})


def test_a_rollback_sent_twice_does_not_bring_the_bad_model_back(operator, runs):
    operator.swap("2")
    operator.roll_back()
    status, document = operator.roll_back()
    assert (status, get_champion(runs)[0]) == (409, "1")
    assert document["error"] == "version 1 is the champion; there is none to go back to"


def test_promoting_the_champion_once_more_keeps_the_way_back(operator):
    operator.swap("2")
    operator.swap("2")
    assert operator.roll_back() == (200, {"from": "2", "to": "1"})


@pytest.mark.parametrize(
    ("version", "reason"),
    [("9", "there is no version 9 of the model"), ("4", "has changed since it was written")],
)
def test_a_version_that_could_not_answer_is_refused_and_nothing_moves(
    operator, runs, version, reason
):
    status, document = operator.swap(version)
    assert status == 409
    assert reason in document["error"]
    assert (find_version(runs, "champion"), find_version(runs, "previous")) == ("1", None)
    assert operator.read_audit() == []


def test_a_rollback_to_a_version_that_could_not_answer_is_refused(operator, runs):
    set_alias(runs, "champion", version="4")
    set_alias(runs, "champion", version="2")
    assert operator.roll_back()[0] == 409
    assert get_champion(runs)[0] == "2"


def test_a_registry_without_any_version_is_a_refusal_and_makes_no_registry(tmp_path):
    operator = Operator(tmp_path / "runs", tmp_path / "serving")
    assert operator.swap("1")[0] == 409
    assert operator.roll_back()[0] == 409
    assert not (tmp_path / "runs" / "mlflow" / "mlflow.db").exists()


def test_status_tells_the_aliases_and_what_this_worker_serves(operator):
    operator.swap("2")
    assert operator.ask(("GET", "/admin/status")) == [
        (
            200,
            {
                "champion": "2",
                "previous": "1",
                "challenger": None,
                "rollout": None,
                "worker": {"model_version": "1"},
            },
        )
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_the_token_nothing_is_done_and_nothing_is_told(operator, runs, headers):
    requests = [*ROUTES, ("DELETE", "/admin/swap")]
    answers = operator.ask(*requests, headers=headers, content=b'{"version": "2"}')
    assert answers == [(401, {"error": "unauthorized"})] * 4
    assert get_champion(runs)[0] == "1"


def test_a_service_without_a_token_has_no_such_routes(runs, tmp_path):
    operator = Operator(runs, tmp_path, token=None)
    requests = [*ROUTES, ("DELETE", "/admin/swap"), ("GET", "/admin/other")]
    for headers in (RIGHT, {"Authorization": "Bearer None"}, {"Authorization": "Bearer "}):
        assert operator.ask(*requests, headers=headers) == [(404, "Not Found")] * 5


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"{}", b"2", b'{"version": 2}', b'{"version": "x"}'),
        *(b'{"version": "../2"}', b'{"version": "2", "force": true}'),
        b'{"version": "2"}' + b" " * 2000,  # right, and too large
    ],
)
def test_a_body_that_names_no_version_is_refused(operator, runs, body):
    ((status, document),) = operator.ask(("POST", "/admin/swap"), content=body)
    assert status == 400
    assert document["error"]
    assert get_champion(runs)[0] == "1"


def test_a_method_that_a_route_does_not_take_is_refused(operator):
    requests = [("GET", "/admin/swap"), ("GET", "/admin/rollback"), ("POST", "/admin/status")]
    assert [status for status, _ in operator.ask(*requests)] == [405] * 3


def test_each_change_is_a_line_that_says_when_what_and_who(operator):
    operator.swap("2")
    operator.swap("3")
    operator.roll_back()
    lines = operator.read_audit()
    assert [(line["action"], line["from"], line["to"], line["who"]) for line in lines] == [
        ("swap", "1", "2", "192.0.2.7"),
        ("swap", "2", "3", "192.0.2.7"),
        ("rollback", "3", "2", "192.0.2.7"),
    ]
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)


def test_what_could_not_be_written_down_is_not_begun(runs, tmp_path):
    (tmp_path / "serving").touch()
    operator = Operator(runs, tmp_path / "serving")
    status, document = operator.swap("2")
    assert (status, get_champion(runs)[0]) == (503, "1")
    assert str(tmp_path) not in document["error"]


def test_swaps_at_once_happen_one_after_another(operator, runs):
    def swap(version: str) -> int:
        return operator.swap(version)[0]

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(swap, ["2", "3", "1", "2", "3", "1", "2", "3"]))

    lines = operator.read_audit()
    assert statuses == [200] * 8
    assert [line["from"] for line in lines] == ["1", *(line["to"] for line in lines[:-1])]
    assert get_champion(runs)[0] == lines[-1]["to"]


def test_nothing_moves_while_another_process_is_at_it(operator, runs):
    operator.audit_file.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with operator.audit_file.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            answer = pool.submit(operator.swap, "2")
            with pytest.raises(TimeoutError):
                answer.result(timeout=1.0)
            assert get_champion(runs)[0] == "1"
        assert answer.result(timeout=30) == (200, {"from": "1", "to": "2"})


def test_a_token_must_be_long_enough_to_be_a_secret():
    name = "THROUGHLINE_ADMIN_TOKEN"
    assert read_admin_token({}) is None
    assert read_admin_token({name: "x" * 16}) == "x" * 16
    for short in ("", "x" * 15):
        with pytest.raises(ValueError, match=f"{name} has {len(short)} characters; it needs"):
            read_admin_token({name: short})


def test_two_rollbacks_at_once_go_back_once(runs):
    set_alias(runs, "champion", version="2")

    def try_it(_: int) -> str:
        try:
            return roll_back(runs, check=lambda _: None)[1]
        except ValueError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(try_it, range(4))) == ["1", "refused", "refused", "refused"]
    assert get_champion(runs)[0] == "1"


def test_the_command_line_takes_a_promotion_back_and_is_in_the_audit(runs):
    set_alias(runs, "champion", version="2")
    command = [sys.executable, "-m", "throughline", "fraud", "rollback", "--runs", str(runs)]
    first, second = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2)
    )
    (line,) = (runs / "serving" / AUDIT_FILE).read_text().splitlines()
    assert first.returncode == 0, first.stderr
    assert (json.loads(line)["from"], json.loads(line)["to"]) == ("2", "1")
    assert json.loads(line)["who"].endswith("(command)")
    assert second.returncode == 2
    assert "there is none to go back to" in second.stderr
