"""A random share of what would be declined is let through, and its probability is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.decisions import NO_EXPLORATION, Exploration
from serving.prediction_log import LOAD_TEST_PREFIX

HALF = Exploration(0.5, b"key")
IDS = [f"t{number}" for number in range(2000)]


def let_through(exploration, decisions, *, ids=None, amounts=None):
    decided = list(decisions)
    shares = exploration.let_through(
        decided,
        transaction_ids=IDS[: len(decided)] if ids is None else ids,
        amounts=np.full(len(decided), 50.0) if amounts is None else np.array(amounts),
        min_review_amount=3.0,
    )
    return decided, shares.tolist()


def test_what_would_not_be_declined_stays_as_it_is_and_its_outcome_will_be_seen():
    assert let_through(HALF, ["approve", "review"]) == (["approve", "review"], [1.0, 1.0])


def test_without_exploration_a_declined_payment_has_no_outcome():
    assert let_through(NO_EXPLORATION, ["decline", "approve"]) == (["decline", "approve"], [0, 1])


def test_what_is_let_through_is_reviewed_unless_the_review_costs_more_than_it_can_save():
    decisions, shares = let_through(
        Exploration(1.0, b"key"), ["decline"] * 3, amounts=[3.0, 3.01, 500.0]
    )
    assert decisions == ["approve", "review", "review"]
    assert shares == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_share_that_is_let_through_is_the_share_that_was_asked_for(share):
    decisions, shares = let_through(Exploration(share, b"key"), ["decline"] * len(IDS))
    spread = math.sqrt(share * (1 - share) / len(IDS))  # of a binomial's mean
    assert decisions.count("review") / len(IDS) == pytest.approx(share, abs=4 * spread)
    expected = [share if decision == "review" else 0.0 for decision in decisions]
    assert shares == expected


def test_weighing_by_the_inverse_of_the_share_gives_back_the_number_of_the_declined():
    _, shares = let_through(HALF, ["decline"] * len(IDS))
    seen = [1 / share for share in shares if share]
    assert sum(seen) == pytest.approx(len(IDS), rel=0.1)


def test_a_repeated_transaction_gets_the_same_answer_and_another_key_other_transactions():
    def choose(exploration):
        return [exploration.has(name) for name in IDS]

    assert choose(HALF) == choose(Exploration(0.5, b"key"))
    same = np.mean(np.array(choose(HALF)) == np.array(choose(Exploration(0.5, b"other"))))
    assert same == pytest.approx(0.5, abs=0.05)


def test_who_is_let_through_at_a_small_share_is_let_through_at_a_larger_one():
    few, many = Exploration(0.1, b"key"), Exploration(0.4, b"key")
    assert all(many.has(name) for name in IDS if few.has(name))


def test_a_load_tests_invention_is_never_let_through():
    ids = [f"{LOAD_TEST_PREFIX}{number}" for number in range(3)]
    decisions, shares = let_through(Exploration(1.0, b"key"), ["decline"] * 3, ids=ids)
    assert (decisions, shares) == (["decline"] * 3, [0.0] * 3)
