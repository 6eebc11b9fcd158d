"""A configuration becomes a running ``bentoml serve``, and leaves no process behind when it ends.

The service runs in a session of its own, and is stopped as a whole: BentoML's supervisor is asked
to end, and after ``STOP_SECONDS`` it is killed with all that it started. Everything BentoML writes
stays below ``runs``, and it tells nobody that it runs.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

import httpx
import psutil

from configs.files import write_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from serving.prediction_log import get_prediction_folder

STOP_SECONDS = 15.0
"""How long the service may take to finish what it has begun and to write its last records."""
DRAIN_SECONDS = 5
"""How long requests under way are waited for; a client may never send the rest of its body."""
SERVICE = "serving.fraud:FraudService"
SOURCE_FOLDER = Path(__file__).resolve().parent.parent


def run_serve(config: FraudConfig) -> dict[str, Any]:
    """Serve the champion in the foreground until Ctrl-C, SIGTERM or the end of the service.

    Args:
        config: ``serving`` says where to listen; ``runs`` where model and store are.

    Returns:
        ``url``, ``wrote`` and ``next``, once the service has been stopped.

    Raises:
        FileNotFoundError: If there is no champion or no feature store.
        ValueError: If the address cannot be listened on, or the service ended by itself.
    """
    check_can_serve(config, port=config.serving.port)
    url = f"http://{config.serving.host}:{config.serving.port}"
    with _take_sigterm_for_ctrl_c(), suppress(KeyboardInterrupt):
        process = _launch(config, port=config.serving.port, output=sys.stderr)
        try:
            _wait_until_ready(process, url, seconds=config.serving.startup_timeout_seconds)
            print(f"serving on {url} (see {url}/model and {url}/docs.json); Ctrl-C stops it")
            process.wait()
        finally:
            stop(process)
        raise ValueError(f"the service on {url} ended by itself; its last messages are above")
    return {
        "url": url,
        "wrote": [str(get_prediction_folder(config.runs))],
        "next": "throughline fraud monitor",
    }


@contextmanager
def start_service(config: FraudConfig, *, port: int | None = None) -> Iterator[str]:
    """Run the service beside the block and stop it, with everything it started, at the end.

    Args:
        config: As for ``run_serve``.
        port: Where to listen instead of ``serving.port``.

    Yields:
        The service's address, as ``http://127.0.0.1:3000``, once ``/readyz`` says yes.

    Raises:
        FileNotFoundError: If there is no champion or no feature store.
        ValueError: If the address cannot be listened on, or the service does not become ready.
    """
    port = port or config.serving.port
    check_can_serve(config, port=port)
    url = f"http://{config.serving.host}:{port}"
    log_file = get_service_folder(config.runs) / f"{port}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w") as output:
        process = _launch(config, port=port, output=output)
        try:
            with show_progress("Starting the service"):
                _wait_until_ready(
                    process, url, seconds=config.serving.startup_timeout_seconds, log_file=log_file
                )
            yield url
        finally:
            stop(process)


def get_service_folder(runs: Path) -> Path:
    """Return where the service's own log, settings and BentoML's home are, below ``runs``."""
    return runs / "serving"


def find_free_port(host: str = "127.0.0.1") -> int:
    """Ask the system for a port that nobody listens on now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def check_can_serve(config: FraudConfig, *, port: int) -> None:
    """Check that the address is free and that there is something to serve.

    Raises:
        FileNotFoundError: If there is no champion or no feature store.
        ValueError: If the host is no IP address, the port cannot be listened on, the store is not
            where the profile says, or does not answer, or the champion is damaged.
    """
    host = config.serving.host
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise ValueError(
            f"serving.host is '{host}'; it must be an IP address such as 127.0.0.1"
        ) from error
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port"
        ) from error
    # Imported here because a load test of a service that runs needs neither Feast nor MLflow.
    from features.store import open_feature_store
    from serving.admin import read_admin_token
    from training.registry import get_champion

    read_admin_token(os.environ)
    store = open_feature_store(config.runs)
    if config.profile == "stack" and store.redis_url is None:
        raise ValueError(
            f"profile is stack, but the feature store in {config.runs} is on files; "
            "run `throughline fraud features --set profile=stack`, or leave the profile out"
        )
    version, folder = get_champion(config.runs)
    _check_champion(folder, version=version, device=config.serving.device)


def _check_champion(folder: Path, *, version: str, device: Literal["cpu", "cuda"]) -> None:
    """Load the champion once, so that a damaged one is told before anything is started."""
    from serving.device import check_can_use
    from training.artefact import load_artefact

    try:
        artefact = load_artefact(folder, version=version)
    except ValueError as error:
        raise _refuse(version, str(error)) from error
    if device != "cpu":
        check_can_use(artefact, device)


def _refuse(version: str, reason: str) -> ValueError:
    return ValueError(
        f"model version {version} cannot be served: {reason}; "
        "run `throughline fraud train` for another one"
    )


def _launch(config: FraudConfig, *, port: int, output: IO[str]) -> subprocess.Popen[bytes]:
    """Start BentoML's supervisor in a process group of its own."""
    folder = get_service_folder(config.runs).resolve()
    settings = folder / f"{port}.json"  # JSON is YAML
    document = config.model_dump(mode="json")
    write_json(settings, {**document, "runs": str(config.runs.resolve())})
    workers = config.serving.workers
    environment = {
        **os.environ,
        "THROUGHLINE_CONFIG": str(settings),
        "BENTOML_HOME": str(folder / "bentoml" / str(port)),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_WAIT_POLICY": "passive",  # threads that wait must not spin on the requests' cores
        "BENTOML_CONFIG_OPTIONS": f"services.FraudService.workers={workers}",
        "PYTHONUNBUFFERED": "1",
        "FORWARDED_ALLOW_IPS": "",  # nobody's word for where a request came from is taken
    }
    environment.pop("THROUGHLINE_RUNS", None)
    address = ["--host", config.serving.host, "--port", str(port)]
    address += ["--timeout-graceful-shutdown", str(DRAIN_SECONDS)]
    return subprocess.Popen(
        [sys.executable, "-m", "bentoml", "serve", SERVICE, *address],
        cwd=SOURCE_FOLDER,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _wait_until_ready(
    process: subprocess.Popen[bytes], url: str, *, seconds: float, log_file: Path | None = None
) -> None:
    """Return when ``/readyz`` says yes; explain if the process ends or the time is up first."""
    where = f"; see {log_file}" if log_file else ""
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=2.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ValueError(f"the service ended before it was ready{where}")
            with suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
                _check_not_refused(client.get("/model").json())
            time.sleep(0.1)
    raise ValueError(
        f"the service was not ready after {seconds:g} s; a first start compiles, a busy machine is "
        f"slow: try again, or with --set serving.startup_timeout_seconds={4 * seconds:g}{where}"
    )


def _check_not_refused(state: dict[str, Any]) -> None:
    """Give up on a service whose only champion cannot be used: waiting would not mend it."""
    refused = state["refused"]
    if state["model_version"] is None and refused is not None:
        raise _refuse(refused["version"], refused["reason"])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the supervisor to end; then kill whatever is left of it.

    Workers are in process groups of their own, and are nobody's children once the supervisor has
    gone: so they are looked up before.
    """
    started: list[psutil.Process] = []
    try:
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:  # even if a second Ctrl-C comes while waiting
        for left in started:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _take_sigterm_for_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that the service is stopped either way."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
