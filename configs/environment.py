"""The machine and the installed versions become facts to print beside every measurement."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("feast", "mlflow", "bentoml", "evidently", "lightgbm", "torch", "pandas")


def describe_environment() -> dict[str, Any]:
    """Name the machine and the versions that a result was got on."""
    return {
        "cpu": _read_cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _read_cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
