"""What the store said lately answers for it: as old as it says, and no older than allowed."""

from __future__ import annotations

import numpy as np
import pytest

from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import SharedSummaries
from serving import last_known
from serving.last_known import LastKnown


class World:
    """A clock to be set, the store's last words, and what is known of merchants."""

    def __init__(self, max_age_seconds=60.0):
        self.now = 1000.0
        self.known = LastKnown(max_age_seconds=max_age_seconds, clock=lambda: self.now)
        self.summaries = SharedSummaries()

    def keep(self, *rows):
        """Keep rows of (customer, state, ip, its state)."""
        customers, states, ips, ip_states = zip(*rows, strict=True)
        located = self.summaries.locate([None] * len(rows), [None] * len(rows))
        self.known.keep(
            ask(*zip(customers, ips, strict=True)), RowStates(states, ip_states, located)
        )

    def recall(self, *rows):
        """Recall rows of (customer, ip) or (customer, ip, merchant)."""
        return self.known.recall(ask(*rows), self.summaries)


def ask(*rows):
    rows = [(*row, None)[:3] for row in rows]
    customers, ips, merchants = map(list, zip(*rows, strict=True))
    none = np.zeros((len(rows), 0))
    return RowRequests(customers, ips, merchants, [None] * len(rows), none, none)


def test_states_come_back_with_their_age():
    world = World()
    world.keep(("ann", b"a", "::1", b"i"), ("bob", b"", None, b""))
    world.now += 7.0
    states, ages = world.recall(("bob", None), ("ann", "::1"), ("ann", None))
    assert states.customers == [b"", b"a", b"a"]
    assert states.ips == [b"", b"i", b""]
    assert ages == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("row", [("eve", None), ("ann", "::2"), ("ann", "::1", "m1")])
def test_a_row_of_which_a_part_is_unknown_is_unknown_as_a_whole(row):
    world = World()
    world.keep(("ann", b"a", "::1", b"i"))
    states, ages = world.recall(row)
    assert (states.customers, states.ips, ages) == ([b""], [b""], [None])
    assert states.summaries.places.tolist() == [[-1, -1]]


def test_a_merchant_the_store_told_of_is_known():
    world = World()
    world.summaries.put_merchants(["m1"], [None], [None])
    world.keep(("ann", b"a", None, b""))
    states, ages = world.recall(("ann", None, "m1"))
    assert ages == [0.0]
    assert states.summaries.places[0, 0] >= 0


def test_states_older_than_allowed_do_not_answer():
    world = World(max_age_seconds=60.0)
    world.keep(("ann", b"a", None, b""))
    world.now += 60.0
    assert world.recall(("ann", None))[1] == [60.0]
    world.now += 0.1
    assert world.recall(("ann", None))[1] == [None]


def test_the_newest_state_of_a_customer_answers():
    world = World(max_age_seconds=60.0)
    world.keep(("ann", b"old", None, b""))
    world.now += 20.0  # another generation
    world.keep(("ann", b"new", None, b""))
    world.now += 1.0
    states, ages = world.recall(("ann", None))
    assert (states.customers, ages) == ([b"new"], [1.0])


def test_an_age_is_never_told_too_young_and_at_most_a_generation_too_old():
    world = World(max_age_seconds=60.0)
    world.keep(("bob", b"b", None, b""))
    world.now += 14.0  # the same generation, a quarter of the limit
    world.keep(("ann", b"a", None, b""))
    world.now += 5.0
    (age,) = world.recall(("ann", None))[1]
    assert 5.0 <= age <= 5.0 + 60.0 / last_known.NUM_GENERATIONS


def test_the_oldest_generation_makes_room_for_the_fifth():
    world = World(max_age_seconds=60.0)
    for generation in range(5):
        world.keep((f"c{generation}", b"s", None, b""))
        world.now += 15.1
    assert len(world.known._generations) == last_known.NUM_GENERATIONS
    assert [age is None for age in world.recall(("c0", None), ("c4", None))[1]] == [True, False]


def test_a_generation_that_is_full_gives_way_before_its_time(monkeypatch):
    monkeypatch.setattr(last_known, "MAX_STATES", 2)
    world = World()
    for customer in range(20):
        world.keep((f"c{customer}", b"s", None, b""))
    kept = sum(len(generation.customers) for generation in world.known._generations)
    assert kept <= last_known.NUM_GENERATIONS * 3
