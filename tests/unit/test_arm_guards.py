"""Two arms side by side: what is a breach, what is chance, what is too little to tell."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import monitoring.loop_evidence
from configs.schema import load_fraud_config
from monitoring.arm_guards import MIN_ROWS, compare_answers, compare_costs
from monitoring.loop_evidence import compare_arms, compare_with_previous
from training.rollout import Rollout

NOW = pd.Timestamp("2026-05-01", tz="UTC")


def make_arm(
    rows: int = 1000, *, declines: int = 50, score: float = 0.05, ms: float = 2.0, **columns: object
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "score": np.full(rows, score),
            "decision": ["decline"] * declines + ["approve"] * (rows - declines),
            "latency_ms": np.full(rows, ms),
            **columns,
        }
    )


def judge(champion: pd.DataFrame, challenger: pd.DataFrame, *slices: str) -> dict[str, str]:
    findings = compare_answers(
        champion,
        challenger,
        slices=slices,
        max_latency_ratio=1.5,
        max_decline_ratio=2.0,
        max_decline_change=0.03,
        min_decline_ratio=0.2,
    )
    return {finding.guard: finding.verdict for finding in findings}


def test_two_arms_that_say_the_same_are_in_order():
    assert judge(make_arm(), make_arm()) == {"latency": "ok", "scores": "ok", "declines": "ok"}


@pytest.mark.parametrize("sizes", [(MIN_ROWS - 1, 1000), (1000, MIN_ROWS - 1), (1000, 0)])
def test_too_few_rows_of_either_arm_wait(sizes):
    champion, challenger = (make_arm(rows, declines=0) for rows in sizes)
    assert judge(champion, challenger) == {"rows": "wait"}


@pytest.mark.parametrize(("ms", "verdict"), [(3.0, "ok"), (3.1, "breach"), (0.1, "ok")])
def test_a_slower_challenger_is_a_breach_and_a_faster_one_is_not(ms, verdict):
    assert judge(make_arm(ms=2.0), make_arm(ms=ms))["latency"] == verdict


@pytest.mark.parametrize(("stage", "share"), [("shadow", 0.0), ("canary", 0.5)])
def test_a_challenger_that_takes_longer_is_a_breach_in_the_canary_only(monkeypatch, stage, share):
    champion = make_arm(ms=2.0, arm="champion", model_version="1", transaction_id=range(1000))
    champion.loc[0, "model_version"] = "0"  # two champions: no cost is compared
    arm = "shadow" if stage == "shadow" else "challenger"
    challenger = champion.assign(arm=arm, model_version="2", latency_ms=20.0)
    answers = pd.concat([champion, challenger], ignore_index=True)
    monkeypatch.setattr(monitoring.loop_evidence, "_load_between", lambda *_: (answers, answers))
    found = compare_arms(load_fraud_config(), Rollout("2", stage, share), NOW, NOW)
    breached = [finding.guard for finding in found if finding.verdict == "breach"]
    assert breached == (["latency"] if stage == "canary" else [])


@pytest.mark.parametrize(("let_through", "said"), [(0, "not compared on cost"), (1, "cost 0.00")])
def test_what_declined_payments_would_have_cost_is_known_only_if_some_were_let_through(
    monkeypatch, let_through, said
):
    """The label file lacks the 50 that were declined; both models approve everything."""
    shares = [0.05] * let_through + [0.0] * (50 - let_through) + [1.0] * 950
    answers = make_arm(
        arm="champion",
        model_version="2",
        transaction_id=[str(row) for row in range(1000)],
        customer_id=[str(row % 100) for row in range(1000)],
        event_time=NOW - pd.Timedelta(days=30),
        amount=0.0,
        outcome_share=shares,
    )
    labels = answers[["transaction_id", "event_time"]].assign(is_fraud=answers.index % 10 == 0)
    labels = labels.rename(columns={"event_time": "label_time"})[answers["outcome_share"] > 0]
    model = SimpleNamespace(
        features=(),
        predict=lambda rows: np.zeros(len(rows)),
        decide=lambda scores, _: np.full(len(scores), "approve"),
    )
    known = {
        "_load_between": lambda *_: (answers, answers),
        "load_labels": lambda _: labels,
        "find_artefact": lambda *_: None,
        "load_artefact": lambda *_, **__: model,
    }
    for name, value in known.items():
        monkeypatch.setattr(monitoring.loop_evidence, name, value)
    (found,) = compare_with_previous(load_fraud_config(), "1", "2", NOW, NOW)
    assert (found.guard, found.verdict) == ("cost", "ok")
    assert said in found.reason


@pytest.mark.parametrize(("declines", "verdict"), [(90, "ok"), (150, "breach"), (0, "breach")])
def test_declining_far_more_or_far_less_is_a_breach(declines, verdict):
    assert judge(make_arm(declines=50), make_arm(declines=declines))["declines"] == verdict


def test_three_times_as_many_declines_are_no_breach_where_both_are_few():
    champion, challenger = make_arm(10_000, declines=100), make_arm(10_000, declines=300)
    assert judge(champion, challenger)["declines"] == "ok"


@pytest.mark.parametrize("share", [0.01, 0.05, 0.099])
def test_a_challenger_that_declines_nobody_is_a_breach_by_the_shipped_limits(share):
    limits = load_fraud_config().rollout
    champion = make_arm(10_000, declines=int(10_000 * share), score=share)
    findings = compare_answers(
        champion,
        make_arm(10_000, declines=0, score=0.0),
        slices=(),
        max_latency_ratio=limits.max_latency_ratio,
        max_decline_ratio=limits.max_decline_ratio,
        max_decline_change=limits.max_decline_change,
        min_decline_ratio=limits.min_decline_ratio,
    )
    verdicts = {finding.guard: finding.verdict for finding in findings}
    assert verdicts == {"latency": "ok", "scores": "breach", "declines": "breach"}


@pytest.mark.parametrize(("ms", "verdict"), [(0.6, "ok"), (0.8, "breach")])
def test_nobody_notices_a_third_of_a_millisecond(ms, verdict):
    assert judge(make_arm(ms=0.2), make_arm(ms=ms))["latency"] == verdict


def test_one_decline_against_three_is_chance():
    champion, challenger = make_arm(declines=3), make_arm(declines=1)
    assert judge(champion, challenger)["declines"] == "ok"


def test_a_challenger_that_declines_everything_is_a_breach_beside_one_that_declined_nothing():
    assert judge(make_arm(declines=0), make_arm(declines=1000))["declines"] == "breach"


@pytest.mark.parametrize(("score", "verdict"), [(0.09, "ok"), (0.15, "breach"), (0.01, "breach")])
def test_probabilities_on_another_level_are_a_breach(score, verdict):
    assert judge(make_arm(score=0.05), make_arm(score=score))["scores"] == verdict


def test_a_slice_that_is_declined_is_found_in_a_whole_that_is_in_order():
    """As many declines in all, but the challenger's are all of one card type."""
    kind = ["credit"] * 1000 + ["debit"] * 4000
    champion = make_arm(5000, declines=250, card_type=kind)
    champion["decision"] = champion["decision"].sample(frac=1, random_state=0).to_numpy()
    challenger = make_arm(5000, declines=250, card_type=kind)
    assert judge(champion, challenger, "card_type") == {
        "latency": "ok",
        "scores": "ok",
        "declines": "ok",
        "declines of card_type=credit": "breach",
        "declines of card_type=debit": "breach",
    }


def test_a_finding_says_its_verdict_first_then_the_figures_then_the_limit():
    findings = compare_answers(
        make_arm(declines=50),
        make_arm(declines=150, ms=2.5),
        slices=(),
        max_latency_ratio=1.5,
        max_decline_ratio=2.0,
        max_decline_change=0.03,
        min_decline_ratio=0.2,
    )
    limit = "limit: 2 times either way and by more than 0.03; or below 0.2 times; and beyond chance"
    assert [finding.reason for finding in findings] == [
        "in order: a decision takes 2.50 ms, the champion's 2.00 ms; limit 1.5 times as long",
        f"in order: the mean score is 0.0500, the champion's 0.0500; {limit}",
        f"breach: the share declined is 0.1500, the champion's 0.0500; {limit}",
    ]


def test_a_slice_with_few_rows_is_not_judged():
    kind = ["credit"] * 50 + ["debit"] * 950
    champion = make_arm(card_type=kind, declines=0)
    assert not [
        guard
        for guard in judge(champion, make_arm(card_type=kind), "card_type")
        if "=credit" in guard
    ]


def test_equal_arms_are_hardly_ever_breached():
    """300 canaries of one model, whose customers are declined four times in a row or not at all."""
    generator = np.random.default_rng(0)
    breaches = 0
    for _ in range(300):
        champion, challenger = (make_arm(rows, declines=0) for rows in (8000, 1200))
        for arm in (champion, challenger):
            is_hit = np.repeat(generator.random(len(arm) // 4) < 0.05, 4)
            arm["decision"] = np.where(is_hit, "decline", "approve")
        findings = compare_answers(
            champion,
            challenger,
            slices=(),
            max_latency_ratio=None,
            max_decline_ratio=1.01,
            max_decline_change=0.0,
            min_decline_ratio=0.0,
        )
        breaches += findings[1].verdict == "breach"
    assert breaches <= 4


def make_costs(*, extra: float, rows: int = 600) -> pd.DataFrame:
    """Each tenth transaction a fraud; the challenger pays ``extra`` more for each fraud."""
    is_fraud = np.arange(rows) % 10 == 0
    champion = np.where(is_fraud, 50.0 + np.arange(rows) % 7, 1.0)
    return pd.DataFrame(
        {
            "customer_id": [f"c{i % 120}" for i in range(rows)],
            "is_fraud": is_fraud,
            "champion_cost": champion,
            "challenger_cost": champion + np.where(is_fraud, extra, 0.0),
            "weight": 1.0,
        }
    )


def judge_costs(costs: pd.DataFrame):
    return compare_costs(costs, max_increase=0.1, confidence=0.9, min_frauds=30, seed=0)


@pytest.mark.parametrize(
    ("extra", "verdict"), [(0.0, "ok"), (5.0, "ok"), (20.0, "breach"), (-20.0, "ok")]
)
def test_costing_clearly_more_is_a_breach(extra, verdict):
    assert judge_costs(make_costs(extra=extra)).verdict == verdict


def test_one_expensive_fraud_is_chance():
    costs = make_costs(extra=0.0)
    costs.loc[0, "challenger_cost"] += 5000.0
    finding = judge_costs(costs)
    assert (
        finding.evidence["challenger_cost_per_1000"]
        > 1.1 * finding.evidence["champion_cost_per_1000"]
    )
    assert finding.verdict == "ok"


def test_too_few_known_frauds_are_no_cost():
    assert "29 frauds are known" in judge_costs(make_costs(extra=99.0, rows=290)).reason


def test_costs_are_weighted_by_the_chance_of_seeing_them():
    costs = make_costs(extra=20.0)
    costs["weight"] = np.where(costs["is_fraud"], 20.0, 1.0)
    evidence = judge_costs(costs).evidence
    by_hand = np.average(costs["champion_cost"], weights=costs["weight"]) * 1000
    assert evidence["champion_cost_per_1000"] == pytest.approx(by_hand)
