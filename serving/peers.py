"""What ``throughline bench serving`` measures side by side: each a process on a free port.

All have the same champion, the same Redis and the same transactions, and answer with a score that
is held against the champion's own. Each is started alone and stopped with everything it started.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec

from configs.files import write_json
from configs.schema import FraudConfig
from serving.peer_settings import (
    ANSWER_VARIABLE,
    BATCH_VARIABLE,
    CONFIG_VARIABLE,
    FAST_READER_VARIABLE,
)
from serving.server import SOURCE_FOLDER, find_free_port, get_service_folder, start_service, stop

TEXTBOOK, UVICORN = "textbook: Feast SDK, pandas", "uvicorn, constant answer"
OURS = "throughline"
CONNECTIONS = 64
"""Of a closed loop, each of which asks again as soon as it has its answer."""
OURS_TWO = "throughline, 2 workers"
BENTOML_TUNED = "logging.access.enabled=false", "metrics.enabled=false", "tracing.sample_rate=0.0"

ReadScore = Callable[[bytes], float]


@dataclass(frozen=True)
class PeerWorld:
    """What peers are started on.

    Attributes:
        config: ``runs`` has the store's registry and the champion.
        model_folder: The champion as MLflow logged it.
        answer: An answer of our service, for what answers always the same.
    """

    config: FraudConfig
    model_folder: Path
    answer: str


@dataclass(frozen=True)
class Request:
    """A transaction to be scored.

    Attributes:
        message: As ``/v1/score`` takes it.
        features: Its features, for a server that has no store.
    """

    message: Mapping[str, Any]
    features: Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """A service to be measured.

    Attributes:
        name: Of its row.
        path: Where it takes transactions.
        start: Runs it beside a block; yields its address.
        render: A request -> the body.
        read_score: An answer's body -> the score; raises where there is none.
    """

    name: str
    path: str
    start: Callable[[PeerWorld, bytes], Any]
    render: Callable[[Request], bytes]
    read_score: ReadScore


class _Scored(msgspec.Struct):
    score: float
    decision: str


class _Invoked(msgspec.Struct):
    predictions: list[float]


_decode_scored = msgspec.json.Decoder(_Scored).decode
_decode_invoked = msgspec.json.Decoder(_Invoked).decode


def read_score(body: bytes) -> float:
    """Read the score of an answer in our form."""
    return _decode_scored(body).score


def read_invocation(body: bytes) -> float:
    """Read the score of an answer of MLflow's server."""
    (score,) = _decode_invoked(body).predictions
    return score


def render_message(request: Request) -> bytes:
    """Render a transaction."""
    return msgspec.json.encode(request.message)


def render_features(request: Request) -> bytes:
    """Render ready-made features, in MLflow's ``dataframe_split``."""
    split = {"columns": [*request.features], "data": [[*request.features.values()]]}
    return msgspec.json.encode({"dataframe_split": split})


@dataclass
class ScoreCheck:
    """Asks every answer for a probability (see ``serving.load_plan.Check``)."""

    read_score: ReadScore
    tallies: dict[str, Counter[str]] = field(default_factory=dict)

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:
        """Say what is wrong with an answer, or None."""
        del row, serial
        try:
            score = self.read_score(body)
        except (msgspec.DecodeError, ValueError):
            return "no score"
        return None if 0.0 <= score <= 1.0 else "score outside [0, 1]"


def make_answer(transaction_id: str, score: float) -> str:
    """Make an answer as long as ours, for what answers always the same."""
    return (
        f'{{"transaction_id":"{transaction_id}","score":{score!r},"decision":"approve",'
        '"model_version":"1","degraded_reason":null}'
    )


def list_peers() -> tuple[Peer, ...]:
    """List what is measured side by side, ours last."""
    return (
        _bentoml(TEXTBOOK, "peer_textbook:TextbookService"),
        _mlflow(),
        _bentoml("our scorer, BentoML's API", "peer_typed:TypedService", options=BENTOML_TUNED),
        _uvicorn(
            "our scorer, FastAPI", "serving.peer_fastapi:create_app", "--factory", path="/score"
        ),
        _uvicorn(UVICORN, "serving.peer_constant:answer", path="/v1/score"),
        _ours(OURS, workers=1),
        _ours(OURS_TWO, workers=2),
    )


def list_steps() -> tuple[Peer, ...]:
    """List the way from the textbook to ours, one change a step."""
    typed = "peer_typed:TypedService"
    return (
        _bentoml("textbook", "peer_textbook:TextbookService"),
        _bentoml(
            "one round trip, no SDK",
            "peer_textbook:TextbookService",
            environment={FAST_READER_VARIABLE: "1"},
        ),
        _bentoml(
            "asynchronous, compiled features",
            typed,
            environment={BATCH_VARIABLE: "1"},
        ),
        _bentoml("one batch a tick", typed),
        _bentoml("log, metrics, tracing off", typed, options=BENTOML_TUNED),
        _ours("before BentoML's middleware", workers=1, lane="asgi"),
        _ours("straight from the HTTP parser", workers=1),
        _ours("two workers", workers=2),
    )


def _ours(name: str, *, workers: int, lane: Literal["parser", "asgi"] = "parser") -> Peer:
    @contextmanager
    def start(world: PeerWorld, _: bytes) -> Iterator[str]:
        serving = world.config.serving.model_copy(update={"workers": workers, "lane": lane})
        config = world.config.model_copy(update={"serving": serving})
        with start_service(config, port=find_free_port()) as url:
            yield url

    return Peer(name, "/v1/score", start, render_message, read_score)


def _bentoml(
    name: str,
    service: str,
    *,
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Peer:
    _, _, class_name = service.partition(":")
    settings = [f"services.{class_name}.{option}" for option in options]
    command = ["-m", "bentoml", "serve", f"serving.{service}", "--host", "127.0.0.1", "--port"]
    return _process(
        name,
        "/score",
        lambda _, port: [*command, str(port)],
        environment={"BENTOML_CONFIG_OPTIONS": " ".join(settings), **(environment or {})},
    )


def _uvicorn(name: str, app: str, *arguments: str, path: str) -> Peer:
    command = ["-m", "uvicorn", app, *arguments, "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--host", "127.0.0.1", "--port"]
    return _process(name, path, lambda _, port: [*command, str(port)])


def _mlflow() -> Peer:
    """Serve the champion as the registry holds it; it has no store and decides nothing."""

    def command(world: PeerWorld, port: int) -> list[str]:
        address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        model = ["--model-uri", str(world.model_folder), "--env-manager", "local"]
        return ["-m", "mlflow", "models", "serve", *model, *address]

    return _process(
        "mlflow, features sent along",
        "/invocations",
        command,
        render=render_features,
        read_score=read_invocation,
    )


def _process(
    name: str,
    path: str,
    command: Callable[[PeerWorld, int], list[str]],
    *,
    environment: Mapping[str, str] | None = None,
    render: Callable[[Request], bytes] = render_message,
    read_score: ReadScore = read_score,
) -> Peer:
    @contextmanager
    def start(world: PeerWorld, body: bytes) -> Iterator[str]:
        port = find_free_port()
        arguments = [sys.executable, *command(world, port)]
        with _run(arguments, world, environment or {}, port=port, name=name) as process:
            url = f"http://127.0.0.1:{port}"
            seconds = world.config.serving.startup_timeout_seconds
            _wait_until_it_scores(process, f"{url}{path}", body, name=name, seconds=seconds)
            yield url

    return Peer(name, path, start, render, read_score)


@contextmanager
def _run(
    arguments: list[str], world: PeerWorld, environment: Mapping[str, str], *, port: int, name: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, which is ended with the block."""
    folder = get_service_folder(world.config.runs).resolve() / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / f"{port}.json"
    document = world.config.model_dump(mode="json")
    write_json(settings, {**document, "runs": str(world.config.runs.resolve())})
    variables = {
        **os.environ,
        CONFIG_VARIABLE: str(settings),
        ANSWER_VARIABLE: world.answer,
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(SOURCE_FOLDER),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        **environment,
    }
    variables.pop("PROMETHEUS_MULTIPROC_DIR", None)  # another service's counts
    with (folder / f"{re.sub('[^a-z]+', '-', name.lower())}.log").open("w") as log:
        process = subprocess.Popen(
            arguments,
            cwd=SOURCE_FOLDER,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            stop(process)


def _wait_until_it_scores(
    process: subprocess.Popen[bytes], url: str, body: bytes, *, name: str, seconds: float
) -> None:
    """Return when a request is answered with 200.

    Raises:
        ValueError: If the process ends, or time is up, before that.
    """
    deadline = time.monotonic() + seconds
    headers = {"Content-Type": "application/json"}
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                if client.post(url, content=body, headers=headers).status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
    raise ValueError(f"the peer '{name}' did not answer; its log is in serving/peers")
