"""Monitoring reports become runs of an Evidently workspace, for Evidently's own user interface.

One workspace below the runs folder, one project in it for the problem, one run per report. The
workspace is made from the reports and can be made again: a report's run has an id that follows from
the report's name, so adding it twice, or from two processes, changes nothing.

Each run shows Evidently's drift page, and carries the report's numbers as metrics of ours: those of
Evidently are labelled with their thresholds, which are calibrated for each report, so that each
report would begin a series of its own.
"""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from configs.files import read_json
from monitoring.drift import import_evidently
from monitoring.report_folders import REPORT_FILE, find_reports
from monitoring.report_numbers import collect_feature_drifts, collect_numbers
from monitoring.workspace_panels import FEATURE_DRIFT, NUMBER, PANELS, Panel

SNAPSHOT_FILE = "snapshot.json"
WORKSPACE = "workspace"
NAMESPACE = uuid.UUID("9f3c0f9a-5c8b-4d6e-9d4e-6b1f8f0f6a51")
"""Ours, drawn at random; ids follow from it and a name (RFC 9562, version 5)."""


def add_reports(folder: Path, *, problem: str) -> int:
    """Add every report that the workspace lacks.

    Args:
        folder: The monitoring folder, which the reports are in, and the workspace.
        problem: The project's name.

    Returns:
        How many there were.
    """
    _write_project(folder / WORKSPACE, problem)
    return sum(add_report(report, problem=problem) for report in find_reports(folder))


def add_report(report: Path, *, problem: str) -> bool:
    """Add one report as a run of the problem's project.

    Args:
        report: Its folder in the monitoring folder; ``monitor.json`` is in it and, if Evidently's
            page was made, its ``snapshot.json``.
        problem: The project's name.

    Returns:
        Whether it was new.
    """
    drawn = report / SNAPSHOT_FILE
    return add_run(
        report.parent,
        problem=problem,
        name=report.name,
        read=lambda: read_json(report / REPORT_FILE),
        read_pictures=lambda: read_json(drawn)["widgets"] if drawn.exists() else [],
    )


def add_run(
    folder: Path,
    *,
    problem: str,
    name: str,
    read: Callable[[], Mapping[str, Any]],
    read_pictures: Callable[[], Sequence[Any]] = list,
) -> bool:
    """Add a run unless one of its name is there.

    Args:
        folder: The monitoring folder.
        problem: The project's name.
        name: The run's.
        read: Returns what was found, as ``monitor.json`` holds it; only called for a new run.
        read_pictures: Returns Evidently's widgets, to be shown below the decision.

    Returns:
        Whether it was new.
    """
    workspace = folder / WORKSPACE
    project = workspace / str(_make_id(problem))
    file = project / "snapshots" / f"{_make_id(f'{problem}/{name}')}.json"
    if file.exists():
        return False
    if not project.exists():
        _write_project(workspace, problem)
    run = _make_run(name, read(), read_pictures())
    _place(file, run.json(), workspace=workspace)
    return True


def _make_id(name: str) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, name)


def _write_project(workspace: Path, problem: str) -> None:
    """Write the project and its dashboard, as this release wants it."""
    import_evidently()
    from evidently.sdk.models import DashboardModel, DashboardTabModel, ProjectModel

    panels = [_make_panel(panel) for panel in PANELS]
    tab = DashboardTabModel(
        id=_make_id("dashboard"), title=problem, panels=[panel.id for panel in panels]
    )
    dashboard = DashboardModel(tabs=[tab], panels=panels)
    project = ProjectModel(
        id=_make_id(problem),
        name=problem,
        description="One run per monitoring report, as of the instant the report was for.",
    )
    folder = workspace / str(project.id)
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    _place(folder / "dashboard.json", dashboard.json(), workspace=workspace)
    _place(folder / "metadata.json", project.json(), workspace=workspace)


def _make_panel(panel: Panel) -> Any:  # noqa: ANN401 (Evidently ships no types)
    from evidently.sdk.models import DashboardPanelPlot, PanelMetric

    return DashboardPanelPlot(
        id=_make_id(panel.title),
        title=panel.title,
        subtitle=panel.subtitle,
        size=panel.size,
        values=[
            PanelMetric(metric=panel.metric, metric_labels=dict(labels), legend=legend)
            for legend, labels in panel.series.items()
        ],
        plot_params={"plot_type": panel.plot, "aggregation": "last"},
    )


def _make_run(name: str, found: Mapping[str, Any], pictures: Sequence[Any]) -> Any:  # noqa: ANN401
    """Build a run: what was found in words, Evidently's pictures, our numbers."""
    import_evidently()
    from evidently.core.serialization import ReportModel, SnapshotModel

    return SnapshotModel(
        report=ReportModel(items=[]),
        name=name,
        timestamp=pd.Timestamp(found["now"]).to_pydatetime(),
        metadata={
            "champion": found["champion"]["version"],
            "since": found["since"],
            "until": found["until"],
        },
        tags=[found["decision"]["action"]],
        metric_results={m.metric_value_location.metric.metric_id: m for m in _make_metrics(found)},
        top_level_metrics=[],
        widgets=[_make_summary(found), *pictures],
        tests_widgets=[],
    )


def _make_metrics(found: Mapping[str, Any]) -> Iterator[Any]:
    from evidently.core.metric_types import MetricConfig, SingleValue, single_value_location

    drifts = collect_feature_drifts(found)
    series = {
        **{(NUMBER, "name", name): value for name, value in collect_numbers(found).items()},
        **{(FEATURE_DRIFT, "feature", name): ratio for name, ratio in drifts.items()},
    }
    for (metric, label, name), value in series.items():
        config = MetricConfig(metric_id=f"{metric}:{name}", params={"type": metric, label: name})
        yield SingleValue(
            display_name=name, value=value, metric_value_location=single_value_location(config)
        )


def _make_summary(found: Mapping[str, Any]) -> Any:  # noqa: ANN401 (as above)
    """Put the decision and its reasons on top of the run's page."""
    from evidently.legacy.renderers.html_widgets import CounterData, counter

    reasons = "; ".join(found["decision"]["reasons"])
    return counter(counters=[CounterData(reasons, found["decision"]["action"])])


def _place(file: Path, text: str, *, workspace: Path) -> None:
    """Move a whole file into the workspace.

    A running user interface reads a file as it appears, and does not start on half of one. It does
    not notice one that is renamed within the workspace: so it is written outside.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.parent, prefix=".") as outside:
        part = Path(outside) / file.name
        part.write_text(text, encoding="utf-8")
        part.replace(file)


def make_application(workspace: Path, *, secret: str) -> Any:  # noqa: ANN401 (as above)
    """Make Evidently's user interface over a workspace, an ASGI application.

    Args:
        workspace: Its folder; runs that are added later appear by themselves.
        secret: What a request that writes must bring, in the header ``evidently-secret``.
    """
    import_evidently()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # written for older litestar
        from evidently.ui.service.app import create_app, get_config

        return create_app(get_config(workspace=str(workspace), secret=secret))
