"""Simulated events as plain columns of numbers, and the codes their texts are made from.

A simulator that draws a million events cannot afford a million objects: an event is one position in
nine arrays, an ip or a device is a whole number, and texts are made once, at the end, for the
values that occur. Invariant: the arrays of one ``Events`` have the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rng = np.random.Generator

PATTERNS = (
    "card_testing",
    "account_takeover",
    "compromised_merchant",
    "ip_ring",
    "first_seen_high",
)
LEGITIMATE = 0
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

# Addresses have 24 bits and devices 40; each kind of holder starts at its own code.
GATEWAY_IPS = 1 << 22  # below it: one home address a customer
VENUE_IPS = GATEWAY_IPS + (1 << 20)
RING_IPS = VENUE_IPS + (1 << 20)
PROXY_IPS = RING_IPS + (1 << 20)
FRESH_IPS = 1 << 23
RING_DEVICES = 1 << 38  # below it: the customers' own devices
FRESH_DEVICES = 1 << 39


@dataclass(frozen=True)
class Events:
    """What happened, one position an event, in the order it was drawn.

    Attributes:
        time: Microseconds since the world's first instant.
        customer: Position of the customer in the population.
        merchant: Position of the merchant in the population.
        amount: Account currency, above zero, in cents' precision.
        ip: Address code, see ``GATEWAY_IPS`` and its neighbours.
        device: Device code, see ``RING_DEVICES`` and its neighbour.
        latitude: Degrees north of where the customer seems to be.
        longitude: Degrees east of where the customer seems to be.
        pattern: ``LEGITIMATE``, or 1 + the position in ``PATTERNS``.
    """

    time: Integers
    customer: Integers
    merchant: Integers
    amount: Floats
    ip: Integers
    device: Integers
    latitude: Floats
    longitude: Floats
    pattern: Integers

    def __len__(self) -> int:
        return len(self.time)

    def take(self, positions: Integers | Flags) -> Events:
        """Return the events at ``positions`` (whole numbers or a mask), in that order."""
        return Events(**{item.name: getattr(self, item.name)[positions] for item in fields(self)})


def join_events(parts: Sequence[Events]) -> Events:
    """Put ``parts`` one after the other."""
    return Events(
        **{
            item.name: np.concatenate([getattr(part, item.name) for part in parts])
            for item in fields(Events)
        }
    )


def draw_fresh_ips(rng: Rng, *, size: int) -> Integers:
    """Draw addresses nobody in the population has."""
    return FRESH_IPS + rng.integers(FRESH_IPS, size=size)


def draw_fresh_devices(rng: Rng, *, size: int) -> Integers:
    """Draw devices nobody in the population has."""
    return FRESH_DEVICES + rng.integers(FRESH_DEVICES, size=size)


def count_within(episode: Integers) -> Integers:
    """Number the rows of each episode from 0; rows of an episode stand together.

    >>> count_within(np.array([0, 0, 1, 1, 1])).tolist()
    [0, 1, 0, 1, 2]
    """
    position = np.arange(len(episode))
    return position - np.searchsorted(episode, episode, side="left")


def sum_within(values: Integers, episode: Integers) -> Integers:
    """Sum ``values`` along each episode's rows, the row itself included.

    >>> sum_within(np.array([5, 1, 2, 2]), np.array([0, 0, 1, 1])).tolist()
    [5, 6, 2, 4]
    """
    running = np.cumsum(values)
    first = np.searchsorted(episode, episode, side="left")
    return running - running[first] + values[first]


def name_positions(prefix: str, *, count: int, digits: int = 5) -> NDArray[np.object_]:
    """Name positions 0 to ``count - 1``.

    >>> name_positions("c", count=2).tolist()
    ['c00000', 'c00001']
    """
    return np.array([f"{prefix}{number:0{digits}d}" for number in range(count)], dtype=object)


def name_ips(codes: Integers) -> NDArray[np.object_]:
    """Write address codes as private IPv4 addresses.

    The code is scrambled first, so that an address does not betray what kind of holder it has.

    >>> name_ips(np.array([0, 1, 0])).tolist()
    ['10.0.0.0', '10.112.176.177', '10.0.0.0']
    """
    distinct, position = np.unique(codes, return_inverse=True)
    scrambled = (distinct * 0x70B0B1) % (1 << 24)  # odd, so no two codes meet
    names = [f"10.{code >> 16}.{code >> 8 & 255}.{code & 255}" for code in scrambled.tolist()]
    return np.array(names, dtype=object)[position]


def name_devices(codes: Integers) -> NDArray[np.object_]:
    """Write device codes as 40-bit fingerprints, scrambled like addresses.

    >>> name_devices(np.array([1])).tolist()
    ['d9e3779b1']
    """
    distinct, position = np.unique(codes, return_inverse=True)
    scrambled = (distinct.astype(np.uint64) * np.uint64(0x9E3779B1)) % np.uint64(1 << 40)
    return np.array([f"d{code:x}" for code in scrambled.tolist()], dtype=object)[position]
