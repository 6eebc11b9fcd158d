"""A challenger that ranks better is still turned down if it costs more or loses a slice."""

import numpy as np
import pandas as pd
import pytest

from monitoring.gate_guards import guard_verdict
from monitoring.retrain import GateLimits, GateVerdict

LIMITS = GateLimits(confidence=0.9, min_frauds=30, max_brier_increase=0.1, num_resamples=200)
YES = GateVerdict(True, ("it ranks better",), num_rows=2000, num_frauds=400, difference=0.1)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Each fifth a fraud; both models know it well and cost the same."""
    generator = np.random.default_rng(0)
    is_fraud = np.arange(2000) % 5 == 0
    score = np.clip(0.5 * is_fraud + 0.4 * generator.random(2000), 0, 1)
    return pd.DataFrame(
        {
            "customer_id": [f"c{i % 300}" for i in range(2000)],
            "is_fraud": is_fraud,
            "card_type": np.where(np.arange(2000) % 2 == 0, "credit", "debit"),
            "champion_score": score,
            "challenger_score": score,
            "champion_cost": np.where(is_fraud, 50.0, 1.0),
            "challenger_cost": np.where(is_fraud, 50.0, 1.0),
            "weight": 1.0,
        }
    )


def guard(rows: pd.DataFrame, verdict: GateVerdict = YES) -> GateVerdict:
    return guard_verdict(
        verdict, rows, slices=("card_type",), limits=LIMITS, max_cost_increase=0.1, seed=0
    )


def test_a_challenger_that_does_no_harm_stays_promoted(rows):
    verdict = guard(rows)
    assert verdict.promote
    assert verdict.reasons[0] == "it ranks better"
    assert verdict.reasons[-1] == "no slice is ranked worse"


def test_one_that_costs_clearly_more_is_turned_down(rows):
    verdict = guard(rows.assign(challenger_cost=rows["champion_cost"] * 1.2))
    assert not verdict.promote
    assert verdict.reasons[1].startswith("breach: 1,000 transactions cost ")


def test_what_was_let_through_costs_as_often_as_it_stands_for(rows):
    is_let_through = rows.index % 100 == 1
    dearer = rows.assign(challenger_cost=rows["champion_cost"] + 20.0 * is_let_through)
    assert guard(dearer).promote
    assert not guard(dearer.assign(weight=np.where(is_let_through, 20.0, 1.0))).promote


def test_within_a_slice_too_what_was_let_through_counts_for_the_rest(rows):
    is_let_through = rows.index % 20 == 0  # each a fraud paid by credit
    worse = rows["champion_score"].mask(is_let_through, 0.2)
    better = rows["champion_score"].mask(rows["is_fraud"] & ~is_let_through, 0.2)
    changed = rows.assign(champion_score=better, challenger_score=worse)
    assert guard(changed).promote
    assert not guard(changed.assign(weight=np.where(is_let_through, 20.0, 1.0))).promote


def test_one_that_ranks_a_slice_worse_is_turned_down_and_the_slice_is_named(rows):
    is_credit = rows["card_type"] == "credit"
    worse = rows["champion_score"].where(~is_credit, 1 - rows["champion_score"])
    verdict = guard(rows.assign(challenger_score=worse))
    assert not verdict.promote
    assert any(
        reason.startswith("ranks worse where card_type is credit: ") for reason in verdict.reasons
    )
    assert not any("debit" in reason for reason in verdict.reasons)


def test_a_slice_with_few_frauds_turns_nobody_down(rows):
    is_rare = rows.index < 100  # 20 frauds
    worse = rows["champion_score"].where(~is_rare, 1 - rows["champion_score"])
    kinds = np.where(is_rare, "rare", "usual")
    assert guard(rows.assign(card_type=kinds, challenger_score=worse)).promote


def test_ten_slices_turn_a_challenger_that_is_no_worse_down_no_more_often_than_one():
    """At 5 % a world, more than 7 of 40 are found 0.1 % of the time; undivided, 16 are expected."""
    turned_down = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        is_fraud = np.arange(2000) % 5 == 0
        scores = [0.5 * is_fraud + generator.normal(0, 0.3, 2000) for _ in range(2)]
        world = pd.DataFrame(
            {
                "customer_id": [f"c{i}" for i in range(2000)],
                "is_fraud": is_fraud,
                "card_type": np.arange(2000) // 200,
                "champion_score": scores[0],
                "challenger_score": scores[1],
                "champion_cost": 1.0,
                "challenger_cost": 1.0,
                "weight": 1.0,
            }
        )
        turned_down += not guard(world).promote
    assert turned_down <= 7


def test_what_the_gate_turned_down_stays_so(rows):
    no = GateVerdict(False, ("it does not",), num_rows=2000, num_frauds=400)
    assert guard(rows, no) == no
