import re
from xml.etree import ElementTree

import pytest

from training.plots import (
    plot_calibration,
    plot_costs,
    plot_feature_importance,
    plot_precision_recall,
    plot_training_curves,
)

COSTS = {
    "thresholds": [0.1, 0.5, 0.9],
    "moving_review": [9.0, 4.0, 8.0],
    "moving_decline": [8.0, 4.0, 6.0],
    "approve_all": 10.0,
    "chosen": {"review": 0.2, "decline": 0.8, "cost_per_day": 4.0},
}
PICTURES = {
    "precision and recall": lambda: plot_precision_recall(
        {name: {"recall": [0.5, 1.0], "precision": [1.0, 0.4]} for name in ("lightgbm", "constant")}
    ),
    "calibration": lambda: plot_calibration(
        {
            "before": {"probability": [0.01, 0.2], "fraud_share": [0.0, 0.3]},
            "after": {"probability": [0.02, 0.2], "fraud_share": [0.02, 0.2]},
        },
        model="pytorch",
    ),
    "calibration without a fraud": lambda: plot_calibration(
        {name: {"probability": [0.1], "fraud_share": [0.0]} for name in ("before", "after")},
        model="lightgbm",
    ),
    "costs": lambda: plot_costs(COSTS),
    "costs of never deciding": lambda: plot_costs(
        {**COSTS, "chosen": {"review": 1.01, "decline": 1.01, "cost_per_day": 10.0}}
    ),
    "training curves": lambda: plot_training_curves(
        {"train": [0.3, 0.2], "valid": [0.3, 0.25], "best_epoch": 1}
    ),
    "importance": lambda: plot_feature_importance({"amount_log": 0.7, "a < b & c": 0.3}),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES.keys())
def test_a_picture_is_one_svg_without_scripts_or_outside_addresses(draw):
    svg = draw()

    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "<script" not in svg
    assert not re.findall(r'(?:href|src)="http', svg)


def test_the_same_numbers_draw_the_same_picture():
    assert plot_costs(COSTS) == plot_costs(COSTS)


def test_letters_stay_text():
    assert "LightGBM" in PICTURES["precision and recall"]()
    assert "amount_log" in PICTURES["importance"]()
