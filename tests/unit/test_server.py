from __future__ import annotations

import socket
import subprocess

import psutil
import pytest

from configs.schema import load_fraud_config
from serving.server import _check_not_refused, check_can_serve, find_free_port, start_service, stop


def test_a_port_in_use_is_told_before_anything_starts(tmp_path):
    config = load_fraud_config(changes={"runs": str(tmp_path)})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port} .*--port"),
            start_service(config, port=port),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_host_name_is_refused_because_bentoml_takes_addresses_only(tmp_path):
    config = load_fraud_config(changes={"runs": str(tmp_path), "serving.host": "localhost"})
    with pytest.raises(ValueError, match="is 'localhost'; it must be an IP address"):
        check_can_serve(config, port=find_free_port())


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path):
    config = load_fraud_config(changes={"runs": str(tmp_path), "serving.host": "192.0.2.1"})
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1"):
        check_can_serve(config, port=find_free_port())


def test_a_service_that_refused_its_only_champion_is_not_waited_for():
    refused = {"version": "7", "reason": "the store lacks ip"}
    with pytest.raises(ValueError, match="version 7 cannot be served: the store lacks ip; run"):
        _check_not_refused({"model_version": None, "refused": refused})
    for state in (
        {"model_version": "6", "refused": refused},
        {"model_version": None, "refused": None},
    ):
        assert _check_not_refused(state) is None


def test_a_worker_does_not_outlive_a_supervisor_that_ends_without_ending_it():
    supervisor = subprocess.Popen(
        ["sh", "-c", "setsid sh -c 'echo $$; exec sleep 60' & wait"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert supervisor.stdout is not None
    worker = psutil.Process(int(supervisor.stdout.readline()))
    supervisor.stdout.close()
    stop(supervisor)
    _, alive = psutil.wait_procs([worker], timeout=20)
    assert alive == []
