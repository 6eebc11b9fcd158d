"""The online store's states, read and written in Feast's own layout, in one round trip.

Two stores, one interface: ``RedisStates`` and ``SqliteStates``. Reading needs nothing; writing
needs a partition's lease, and checking the lease and writing are one transaction, so a processor
that was paused for longer than its lease cannot overwrite what its successor wrote.

The store is marked whole when it was built. Without the mark (a flushed Redis, a rebuild under way)
reading and writing raise ``StoreEmptyError``: an unknown customer and a lost one look alike.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class LeaseLostError(RuntimeError):
    """Another processor holds the partition now."""


class StoreEmptyError(RuntimeError):
    """The online store is not whole: it was flushed, or is being rebuilt."""

    def __init__(self) -> None:
        super().__init__("the online store is empty; run `throughline fraud rebuild`")


@dataclass(frozen=True)
class Lease:
    """The right to write the states of one partition's entities."""

    partition: int
    token: str


class Update(NamedTuple):
    """One entity's new state of one kind.

    Attributes:
        state: One of ``features.fraud_state.STATE_KEYS``.
        entity: The entity's id.
        value: The state.
        event_time: Of its latest event, microseconds; Feast keeps it beside the value.
    """

    state: str
    entity: str
    value: bytes
    event_time: int


class StateStore(Protocol):
    """An online store of states; every method may raise the store's own connection errors."""

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities in one round trip.

        Args:
            entities: Ids by join key; ``""`` stands for none.
            states: Which states; each has its join key among ``entities``.

        Returns:
            For each of ``states``, one per id of its join key, in order; ``None`` if unknown.

        Raises:
            StoreEmptyError: If the store is not whole.
        """

    def write(self, updates: Sequence[Update], *, lease: Lease | None) -> None:
        """Write states; if it fails, some may be written, and writing them again does no harm.

        Args:
            updates: New states.
            lease: Of the partition their entities belong to; ``None`` writes without asking, for
                whoever builds the store or writes states that no processor owns.

        Raises:
            LeaseLostError: If the lease is not held any more.
            StoreEmptyError: If the store is not whole; never with ``None``.
        """

    def acquire(self, partition: int, *, seconds: float) -> Lease | None:
        """Take a partition's lease if nobody holds it."""

    def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Prolong a lease; false if it is not held any more."""

    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is still held."""

    def list_processors(self, processor: str, *, seconds: float) -> list[str]:
        """Say that a processor lives; list those that said so in the last ``seconds``, sorted."""

    def forget_processor(self, processor: str) -> None:
        """Say that a processor has ended."""

    def clear(self) -> None:
        """Take the mark and all leases away, then remove every state."""

    def mark_whole(self) -> None:
        """Say that the store holds every entity's state."""

    def is_whole(self) -> bool:
        """Whether the store holds every entity's state."""


def new_token() -> str:
    """Return a name that no other lease bears."""
    return uuid.uuid4().hex
