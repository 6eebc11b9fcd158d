"""How far a challenger has come: it scores in the shadow, or answers for a share of the customers.

The registry holds one rollout at most, as one word of text, so that whoever reads it never sees
half of a change. None means that the champion answers everybody and nobody shadows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mmh3

Stage = Literal["shadow", "canary"]


@dataclass(frozen=True)
class Rollout:
    """A challenger beside the champion.

    Attributes:
        version: The challenger's, in the registry.
        stage: ``shadow``: it scores all and answers none; ``canary``: it answers ``share``.
        share: Of the customers, in (0, 1) for a canary; 0 in the shadow.

    Raises:
        ValueError: If the share does not fit the stage.
    """

    version: str
    stage: Stage
    share: float

    def __post_init__(self) -> None:
        """Check that the share fits the stage."""
        if not (self.share == 0.0 if self.stage == "shadow" else 0.0 < self.share < 1.0):
            raise ValueError(
                f"a {self.stage} with a share of {self.share} of the customers is none; a shadow"
                " answers nobody (0), a canary some and not all"
            )

    def has(self, customer_id: str) -> bool:
        """Whether the challenger answers this customer.

        A customer stays where they are as the share grows: 5 % are part of the later 25 %. Another
        challenger meets other customers first.

        >>> Rollout("7", "shadow", 0.0).has("c1")
        False
        """
        if self.share == 0.0:
            return False
        return mmh3.hash(f"{self.version}:{customer_id}", signed=False) < self.share * 2**32

    def __str__(self) -> str:
        return f"{self.version} {self.stage} {self.share!r}"


def parse_rollout(text: str) -> Rollout:
    """Read what ``str`` wrote.

    Raises:
        ValueError: If it is something else.

    >>> parse_rollout(str(Rollout("7", "canary", 0.25)))
    Rollout(version='7', stage='canary', share=0.25)
    """
    match text.split():
        case [version, "shadow" | "canary" as stage, share]:
            return Rollout(version, stage, float(share))
    raise ValueError(f"'{text}' is no rollout; it should be like '7 canary 0.25'")
