"""``throughline monitor ui``: Evidently's user interface over the monitoring reports.

It listens on this machine only and changes nothing: whatever would write is asked for a secret that
nobody has. Evidently is kept from phoning home.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from configs.progress import show_progress
from configs.schema import FraudConfig
from monitoring.evidently_workspace import WORKSPACE, add_reports, add_run, make_application
from monitoring.report_folders import find_reports, get_monitoring_folder
from monitoring.status_loop import read_tick_looks

HOST = "127.0.0.1"


def run_monitor_ui(config: FraudConfig, *, port: int) -> dict[str, Any]:
    """Add the reports and ticks that the workspace lacks, and show it until Ctrl-C.

    Args:
        config: ``runs`` says where the reports are.
        port: Where to listen.

    Returns:
        ``url``, ``reports``, ``ticks``, ``added`` (the others were there), ``wrote`` and ``next``.

    Raises:
        FileNotFoundError: If there is neither a report nor a tick.
        ValueError: If the port cannot be listened on.
    """
    folder = get_monitoring_folder(config.runs)
    reports, looks = find_reports(folder), dict(read_tick_looks(config))
    if not reports and not looks:
        raise FileNotFoundError(f"no report in {folder}; run `throughline fraud monitor` first")
    with _listen(port) as listener:
        with show_progress(f"Adding what is new of {len(reports) + len(looks)} reports"):
            num_added = add_reports(folder, problem=config.problem)
            for name, look in looks.items():
                num_added += add_run(
                    folder, problem=config.problem, name=name, read=partial(dict, look)
                )
        with suppress(KeyboardInterrupt):
            _serve(folder / WORKSPACE, listener)
    return {
        "url": f"http://{HOST}:{port}",
        "reports": len(reports),
        "ticks": len(looks),
        "added": num_added,
        "wrote": [str(folder / WORKSPACE)],
        "next": "throughline fraud status",
    }


def _listen(port: int) -> socket.socket:
    """Take the port before anything slow begins."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(f"--port {port} cannot be listened on ({error}); name another") from error


def _serve(workspace: Path, listener: socket.socket) -> None:
    import uvicorn

    application = make_application(workspace, secret=secrets.token_hex())
    print(f"Evidently on http://{HOST}:{listener.getsockname()[1]}; Ctrl-C stops it", flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])
