"""Where monitoring reports are: one folder each, named for when it was written, with its files."""

from __future__ import annotations

from pathlib import Path

REPORT_FILE = "monitor.json"


def get_monitoring_folder(runs: Path) -> Path:
    """Return the folder of the monitoring reports below ``runs``."""
    return runs / "monitoring"


def find_reports(folder: Path) -> list[Path]:
    """Return the folders of all reports in the monitoring folder, the oldest first."""
    return sorted(file.parent for file in folder.glob(f"*/{REPORT_FILE}"))
