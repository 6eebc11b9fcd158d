"""Reports become runs that Evidently itself reads, once each, and its pages only show them."""

import json
from pathlib import Path

import pytest

from configs.files import write_json
from monitoring.drift import import_evidently
from monitoring.evidently_workspace import add_report, add_reports, make_application
from monitoring.report_folders import find_reports
from monitoring.report_numbers import collect_numbers
from monitoring.workspace_panels import FEATURE_DRIFT, NUMBER, PANELS

COLUMN = {"value": 0.3, "threshold": 0.1, "drifted": True}
REPORT = {
    "now": "2026-04-05T00:00:00+00:00",
    "since": "2026-03-29T00:00:00+00:00",
    "until": "2026-04-05T00:00:00+00:00",
    "champion": {"name": "lightgbm", "version": "3"},
    "rows": 2000,
    "quality": {"findings": []},
    "drift": {"columns": {"amount_log": COLUMN}, "score": COLUMN, "drifted_importance": 0.3},
    "estimate": {"average_precision": 0.62},
    "performance": {
        name: value
        for metric in ("average_precision", "cost_per_1000")
        for name, value in ((metric, 0.6), (f"{metric}_interval", [0.5, 0.7]))
    }
    | {"expected_average_precision": 0.65, "immature_share": 0.2},
    "decision": {"action": "keep", "reasons": ["1 of 28 features drifted"]},
}
WIDGET = {"type": "counter", "title": "drawn by Evidently", "size": 2, "id": "w", "params": {}}


@pytest.fixture
def write_report(tmp_path):
    def write(name: str, **changes: object) -> Path:
        write_json(tmp_path / name / "monitor.json", REPORT | changes)
        return tmp_path / name

    return write


def read_runs(folder: Path) -> list:
    """Read every run with Evidently's own reader."""
    import_evidently()
    from evidently.ui.workspace import Workspace

    workspace = Workspace(str(folder / "workspace"))
    (project,) = workspace.list_projects()
    assert project.name == "fraud"
    runs = (workspace.get_run(project.id, run) for run in workspace.list_runs(project.id))
    return sorted(runs, key=lambda run: run.timestamp)


def test_every_report_becomes_one_run_as_of_its_instant(tmp_path, write_report):
    write_report("a")
    write_report("b", now="2026-04-06T00:00:00+00:00")
    assert add_reports(tmp_path, problem="fraud") == 2
    times = [run.timestamp.isoformat() for run in read_runs(tmp_path)]
    assert times == ["2026-04-05T00:00:00+00:00", "2026-04-06T00:00:00+00:00"]


def test_a_report_that_is_there_is_not_added_again(tmp_path, write_report):
    report = write_report("a")
    assert add_report(report, problem="fraud")
    assert not add_report(report, problem="fraud")
    assert add_reports(tmp_path, problem="fraud") == 0
    assert len(read_runs(tmp_path)) == 1


def test_a_run_holds_the_reports_numbers_under_their_names(tmp_path, write_report):
    add_report(write_report("a"), problem="fraud")
    (run,) = read_runs(tmp_path)
    held = {
        result.metric_value_location.metric.params["name"]: result.value
        for result in run.metric_results.values()
        if result.metric_value_location.metric.params["type"] == NUMBER
    }
    assert held == collect_numbers(REPORT)


def test_a_run_is_tagged_with_the_decision_and_names_the_champion(tmp_path, write_report):
    add_report(write_report("a"), problem="fraud")
    (run,) = read_runs(tmp_path)
    assert (run.tags, run.metadata["champion"]) == (["keep"], "3")


def test_a_run_shows_what_evidently_drew_below_the_decision(tmp_path, write_report):
    report = write_report("a")
    write_json(report / "snapshot.json", {"widgets": [WIDGET]})
    add_report(report, problem="fraud")
    (run,) = read_runs(tmp_path)
    assert run.widgets[0].params["counters"][0]["value"] == "keep"
    assert [widget.title for widget in run.widgets[1:]] == ["drawn by Evidently"]


def test_every_series_of_the_dashboard_is_in_a_whole_report():
    numbers = {*collect_numbers(REPORT)}
    asked = {
        labels["name"]
        for panel in PANELS
        if panel.metric == NUMBER
        for labels in panel.series.values()
    }
    assert asked <= numbers
    assert {panel.metric for panel in PANELS} == {NUMBER, FEATURE_DRIFT}


def test_nothing_but_whole_runs_is_left_beside_the_reports(tmp_path, write_report, monkeypatch):
    report = write_report("a")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no space"):
            add_report(report, problem="fraud")
    assert list((tmp_path / "workspace").rglob("*.json")) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "workspace"]
    assert add_report(report, problem="fraud")


def test_reports_are_found_oldest_first_and_the_workspace_is_none(tmp_path, write_report):
    later, earlier = write_report("20260406"), write_report("20260405")
    add_report(later, problem="fraud")
    assert find_reports(tmp_path) == [earlier, later]


def test_a_project_without_its_dashboard_gets_it_again(tmp_path, write_report):
    add_report(write_report("a"), problem="fraud")
    (file,) = (tmp_path / "workspace").rglob("dashboard.json")
    file.unlink()
    add_reports(tmp_path, problem="fraud")
    panels = json.loads(file.read_text())["panels"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in PANELS]


def test_the_pages_are_made_without_a_warning(tmp_path, write_report):
    add_report(write_report("a"), problem="fraud")
    assert make_application(tmp_path / "workspace", secret="s")
