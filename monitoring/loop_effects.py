"""What an attempt's state asks of the registry is carried out; what another hand did is noticed.

Carrying out is idempotent: whoever finds a state that is only intended does it, perhaps again.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema import FraudConfig
from monitoring.loop_parts import LoopParts
from monitoring.loop_records import OPEN, Attempt, Change
from monitoring.loop_stages import find_rollout


def apply_state(attempt: Attempt, *, config: FraudConfig, parts: LoopParts) -> None:
    """Bring the champion and the rollout to where an attempt's state wants them.

    Raises:
        ValueError: If the registry refuses, a model's file being damaged for example.
    """
    wanted = find_rollout(attempt)
    if wanted is not None:
        parts.set_rollout(config, wanted)
        return
    if attempt.challenger is None:
        return
    is_champion = parts.get_champion_version(config) == attempt.challenger
    if attempt.state == "watching" and not is_champion:
        parts.promote(config, attempt.challenger, attempt.trigger_key)
    if attempt.state == "rolled_back" and is_champion:
        parts.roll_back(config, attempt.challenger, attempt.champion, attempt.trigger_key)
    parts.checkpoint(f"while applying {attempt.state}")
    rollout = parts.get_rollout(config)
    if rollout is not None and rollout.version == attempt.challenger:
        parts.set_rollout(config, None)


def find_overtaking(
    attempt: Attempt, *, config: FraudConfig, parts: LoopParts, later: Sequence[Attempt]
) -> Change | None:
    """Tell whether the champion or the rollout is not what an open attempt's state left.

    Args:
        attempt: Which; one that has ended is never overtaken.
        config: The fraud problem's configuration.
        parts: Whom to ask.
        later: Attempts opened after it: one that was promoted ends the watch before it.

    Returns:
        Where that leads, or ``None``.
    """
    if attempt.state not in OPEN:
        return None
    champion = parts.get_champion_version(config)
    if champion not in _expect_champion(attempt):
        if any(item.challenger == champion for item in later):
            return Change("done", (f"version {champion} has replaced it in its turn",), {})
        reason = f"version {champion} is the champion; {attempt.champion} was when this began"
        return Change("superseded", (reason,), {"champion": champion})
    wanted = find_rollout(attempt)
    if wanted is None:
        return None
    rollout = parts.get_rollout(config)
    is_before = rollout is None or rollout.version == attempt.challenger
    if rollout == wanted or (is_before and not attempt.is_applied):
        return None
    reason = f"another hand changed the rollout from '{wanted}' to '{rollout or 'none'}'"
    return Change("superseded", (reason,), {"rollout": rollout and str(rollout)})


def _expect_champion(attempt: Attempt) -> tuple[str | None, ...]:
    """Return who may be champion: after a promotion the challenger, before it the champion."""
    if attempt.state != "watching":
        return (attempt.champion,)
    return (attempt.challenger,) if attempt.is_applied else (attempt.champion, attempt.challenger)
