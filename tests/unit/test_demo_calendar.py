"""The demo's calendar and its folder."""

import pandas as pd
import pytest

from configs.schema import load_fraud_config
from fraud_demo import clear_earlier_demo, run_demo
from fraud_demo_calendar import plan_calendar


def instant(text):
    return pd.Timestamp(text, tz="UTC")


def test_the_calendar_counts_whole_days_from_the_first_midnight():
    calendar = plan_calendar(
        instant("2026-01-01T07:00"),
        instant("2026-01-20T12:00"),
        serve_from=0.5,
        replay_days=2,
        late_days=3,
    )
    assert calendar.serve == instant("2026-01-11")
    assert calendar.change == instant("2026-01-13")
    assert calendar.replayed == instant("2026-01-15")
    assert calendar.late == instant("2026-01-18")
    assert calendar.present > instant("2026-01-20T12:00")


def test_a_history_too_short_for_the_calendar_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="the history has 3 days"):
        plan_calendar(
            instant("2026-01-01"),
            instant("2026-01-03T10:00"),
            serve_from=0.65,
            replay_days=3,
            late_days=3,
        )


def test_an_earlier_demo_is_cleared_finished_or_not(tmp_path):
    runs = tmp_path / "demo"
    clear_earlier_demo(runs)
    (runs / "half.parquet").write_text("half")
    clear_earlier_demo(runs)
    assert [item.name for item in runs.iterdir()] == [".demo"]


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("ten years of work")
    with pytest.raises(ValueError, match="--runs"):
        clear_earlier_demo(tmp_path)
    assert precious.read_text() == "ten years of work"


def test_an_earlier_demo_stays_if_the_new_ones_file_is_not_there(tmp_path):
    runs = tmp_path / "demo"
    clear_earlier_demo(runs)
    (runs / "report.html").write_text("a finished demo")
    config = load_fraud_config(changes={"runs": str(runs)})
    with pytest.raises(FileNotFoundError, match="--mapping"):
        run_demo(config, transactions=tmp_path / "cards.csv", mapping=tmp_path / "cards.yaml")
    assert (runs / "report.html").read_text() == "a finished demo"


def test_an_earlier_demo_stays_if_the_new_ones_history_is_too_short(tmp_path):
    runs = tmp_path / "demo"
    clear_earlier_demo(runs)
    (runs / "report.html").write_text("a finished demo")
    size = {"num_customers": 20, "num_merchants": 10, "num_days": 3}
    changes = {"runs": str(runs), "data.size": "tiny", "data.sizes": {"tiny": size}}
    with pytest.raises(ValueError, match="the history has 3 days"):
        run_demo(load_fraud_config(changes=changes))
    assert (runs / "report.html").read_text() == "a finished demo"
