"""MLflow, once imported, leaves the process as a user expects it."""

import signal
import subprocess
import sys
import time

WAIT = """
import subprocess
from training.mlflow_client import import_mlflow
import_mlflow("mlflow")
with subprocess.Popen(["sleep", "60"], stderr=subprocess.DEVNULL) as waited_for:
    print("ready", flush=True)
    try:
        waited_for.wait()
    finally:
        waited_for.kill()
"""


def hear_ctrl_c() -> None:
    """Undo what a shell does to what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_wait_after_mlflow_was_imported():
    with subprocess.Popen(
        [sys.executable, "-c", WAIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no threads
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.5)  # until it waits
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in said
