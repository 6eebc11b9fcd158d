"""What two arms answered becomes findings: in order, a breach, or too little to tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ArmFinding:
    """What one guard found.

    Attributes:
        guard: Its name.
        verdict: ``breach`` takes the challenger back; ``wait`` keeps it where it is.
        reason: One line for a person.
        evidence: The numbers, as JSON.
    """

    guard: str
    verdict: Literal["ok", "breach", "wait"]
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
