"""The decision to retrain and the gate: every outcome, with reasons."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss

from monitoring.retrain import GateLimits, compare_scores, decide
from monitoring.retraining_policy import Alarm

QUIET = {
    "drift": Alarm(is_on=False, reason="0 of 2 features drifted"),
    "matured": Alarm(is_on=None, reason="performance unknown"),
    "estimated": Alarm(is_on=False, reason="as estimated"),
}


def raise_alarm(**alarms: str) -> dict[str, Alarm]:
    return {**QUIET, **{name: Alarm(is_on=True, reason=why) for name, why in alarms.items()}}


def test_a_quiet_world_is_kept_and_says_what_was_looked_at():
    decision = decide((), alarms=QUIET)
    assert decision.action == "keep"
    assert decision.reasons == ("0 of 2 features drifted", "performance unknown", "as estimated")


def test_any_alarm_retrains_and_only_those_that_went_off_are_named():
    decision = decide((), alarms=raise_alarm(drift="2 drifted", estimated="estimate is low"))
    assert decision.action == "retrain"
    assert decision.reasons == ("2 drifted", "estimate is low")


def test_a_broken_feed_blocks_whatever_else_is_seen():
    decision = decide(("amount_log is empty",), alarms=raise_alarm(matured="worse"))
    assert decision.action == "blocked"
    assert decision.reasons == ("not retraining on a broken feed", "amount_log is empty")


LIMITS = GateLimits(confidence=0.9, min_frauds=30, max_brier_increase=0.1)


@pytest.fixture
def scored() -> pd.DataFrame:
    """A matured window: the truth and honest probabilities of a strong and a weak model."""
    generator = np.random.default_rng(0)
    weak_signal, strong_signal = generator.normal(size=(2, 4000))
    is_fraud = generator.random(4000) < 1 / (1 + np.exp(4.5 - weak_signal - 2 * strong_signal))
    return pd.DataFrame(
        {
            "customer_id": [f"c{i % 400}" for i in range(4000)],
            "is_fraud": is_fraud,
            "strong": 1 / (1 + np.exp(4.5 - weak_signal - 2 * strong_signal)),
            "weak": 1 / (1 + np.exp(3.2 - weak_signal)),
        }
    )


def compare(
    scored: pd.DataFrame,
    champion: np.ndarray,
    challenger: np.ndarray,
    limits=LIMITS,
    weights: np.ndarray | None = None,
):
    return compare_scores(
        scored["is_fraud"].to_numpy(),
        champion_scores=np.asarray(champion),
        challenger_scores=np.asarray(challenger),
        customer_id=scored["customer_id"],
        limits=limits,
        seed=0,
        weights=weights,
    )


def test_a_better_challenger_is_promoted_with_the_evidence(scored):
    verdict = compare(scored, scored["weak"], scored["strong"])
    assert verdict.promote
    expected = [average_precision_score(scored["is_fraud"], scored[m]) for m in ("weak", "strong")]
    assert verdict.champion_average_precision == pytest.approx(expected[0])
    assert verdict.challenger_average_precision == pytest.approx(expected[1])
    assert verdict.interval[0] < expected[1] - expected[0] < verdict.interval[1]
    assert verdict.challenger_brier_score == pytest.approx(
        brier_score_loss(scored["is_fraud"], scored["strong"])
    )


def test_a_row_counts_for_as_many_as_it_stands_for(scored):
    weights = np.where(np.arange(4000) % 10 == 0, 20.0, 1.0)
    verdict = compare(scored, scored["weak"], scored["strong"], weights=weights)
    assert verdict.champion_average_precision == pytest.approx(
        average_precision_score(scored["is_fraud"], scored["weak"], sample_weight=weights)
    )
    assert verdict.challenger_brier_score == pytest.approx(
        brier_score_loss(scored["is_fraud"], scored["strong"], sample_weight=weights)
    )


def test_a_worse_challenger_is_not_promoted(scored):
    verdict = compare(scored, scored["strong"], scored["weak"])
    assert not verdict.promote
    assert verdict.reasons[0].startswith("does not rank better: average precision 0.")


def test_with_a_margin_a_small_gain_passes_that_chance_may_have_made_and_a_small_loss_does_not(
    scored,
):
    few = scored.head(1500)
    nearly = few["strong"] * np.exp(0.15 * np.random.default_rng(3).normal(size=len(few)))
    nearly = np.clip(nearly, 0.0, 1.0)
    gain = average_precision_score(few["is_fraud"], few["strong"]) - average_precision_score(
        few["is_fraud"], nearly
    )
    worse, better = (nearly, few["strong"]) if gain > 0 else (few["strong"], nearly)
    lenient = replace(LIMITS, margin=0.05)
    strict = compare(few, worse, better)
    assert strict.interval[0] < 0 < strict.difference
    assert not strict.promote
    assert strict.reasons[0].startswith("not shown to rank better: average precision 0.")
    assert compare(few, worse, better, lenient).promote
    assert not compare(few, better, worse, lenient).promote


def test_the_same_model_again_is_not_promoted(scored):
    verdict = compare(scored, scored["strong"], scored["strong"])
    assert not verdict.promote
    assert verdict.interval == [0, 0]


def test_a_better_ranking_with_wrong_probabilities_is_not_promoted(scored):
    verdict = compare(scored, scored["weak"], scored["strong"] ** 0.25)
    assert verdict.interval[0] > 0
    assert not verdict.promote
    assert verdict.reasons[0].startswith("ranks better: ")
    assert verdict.reasons[1].startswith("miscalibrated: Brier score 0.")
    assert verdict.reasons[1].endswith("; limit 10% more")


def test_too_few_frauds_decide_nothing(scored):
    few = GateLimits(
        confidence=0.9, min_frauds=int(scored["is_fraud"].sum()) + 1, max_brier_increase=0.1
    )
    verdict = compare(scored, scored["weak"], scored["strong"], few)
    assert not verdict.promote
    assert verdict.difference is None
    assert verdict.reasons[0].startswith("too few frauds to compare on: ")
    assert f"{few.min_frauds} are needed" in verdict.reasons[0]


def test_an_equal_challenger_passes_about_one_time_in_twenty():
    """A 90 % interval leaves 5 % above: 60 gates of two equally noisy models, binomial bound."""
    generator = np.random.default_rng(1)
    customers = pd.Series([f"c{i % 500}" for i in range(1500)])
    limits = GateLimits(confidence=0.9, min_frauds=30, max_brier_increase=0.1, num_resamples=200)
    promoted = 0
    for _ in range(60):
        signal = generator.normal(size=1500)
        is_fraud = generator.random(1500) < 1 / (1 + np.exp(3 - 2 * signal))
        noisy = [1 / (1 + np.exp(3 - signal - generator.normal(size=1500))) for _ in range(2)]
        promoted += compare_scores(
            is_fraud,
            champion_scores=noisy[0],
            challenger_scores=noisy[1],
            customer_id=customers,
            limits=limits,
            seed=0,
        ).promote
    assert promoted <= 9  # P(Binomial(60, 0.05) > 9) < 0.2 %
