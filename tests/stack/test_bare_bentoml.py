"""The service as ``bentoml serve`` runs it when nobody says how."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest

from serving.server import SERVICE, SOURCE_FOLDER, find_free_port, stop
from tests.stack.stream_world import wait_until

pytestmark = pytest.mark.stack


def test_bentoml_serve_without_a_host_listens_on_loopback_only(tiny_world, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps(tiny_world.model_dump(mode="json")))
    environment = {
        **os.environ,
        "THROUGHLINE_CONFIG": str(tmp_path / "config.yaml"),
        "BENTOML_HOME": str(tmp_path),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    port = find_free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bentoml", "serve", SERVICE, "--port", str(port)],
        cwd=SOURCE_FOLDER,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: bool(find_listeners(port)), seconds=120)
        assert find_listeners(port) == {"127.0.0.1"}
    finally:
        stop(process)


def find_listeners(port: int) -> set[str]:
    """Return the addresses on which this machine listens at a port."""
    listening = psutil.net_connections("tcp")
    return {
        found.laddr.ip
        for found in listening
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port
    }
