"""What the loop asks of the rest of the system, as functions that a test or a replay may replace.

Contract of every part: asked again after a kill, it comes to the same end. Training finds the
version it registered for a key before, moving an alias or the rollout to where it is moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from configs.schema import FraudConfig
from monitoring.arm_guards import ArmFinding
from monitoring.retrain import GateVerdict
from monitoring.retraining_policy import Observation
from training.rollout import Rollout


def pass_checkpoint(name: str) -> None:
    """Do nothing at a checkpoint."""


@dataclass(frozen=True)
class LoopParts:
    """The functions of a loop; all times are UTC.

    Attributes:
        observe: ``(config, now)``: this tick's evidence.
        train: ``(config, now, trigger_key)``: the version registered for the key, trained as of
            ``now`` unless it is there already; ValueError if training must not go on.
        judge: ``(config, champion, challenger, now)``: whether the challenger may take over.
        get_champion_version: ``(config)``: what serves.
        get_rollout: ``(config)``: the challenger beside it, or ``None``.
        set_rollout: ``(config, rollout)``: put it there; ``None`` takes it away.
        promote: ``(config, version, trigger_key)``: make it the champion, and write that down.
        roll_back: ``(config, version, to, trigger_key)``: where the version is champion, make
            ``to``, the one before it, the champion again, and write that down.
        compare_arms: ``(config, rollout, since, now)``: how the challenger did beside the champion.
        compare_with_previous: ``(config, previous, version, since, now)``: how the new champion
            has done against what the one before would have answered.
        checkpoint: Called with a name between any two steps; a test ends the process there.
    """

    observe: Callable[[FraudConfig, pd.Timestamp], Observation]
    train: Callable[[FraudConfig, pd.Timestamp, str], str]
    judge: Callable[[FraudConfig, str, str, pd.Timestamp], GateVerdict]
    get_champion_version: Callable[[FraudConfig], str]
    get_rollout: Callable[[FraudConfig], Rollout | None]
    set_rollout: Callable[[FraudConfig, Rollout | None], None]
    promote: Callable[[FraudConfig, str, str], None]
    roll_back: Callable[[FraudConfig, str, str, str], None]
    compare_arms: Callable[
        [FraudConfig, Rollout, pd.Timestamp, pd.Timestamp], tuple[ArmFinding, ...]
    ]
    compare_with_previous: Callable[
        [FraudConfig, str, str, pd.Timestamp, pd.Timestamp], tuple[ArmFinding, ...]
    ]
    checkpoint: Callable[[str], None] = pass_checkpoint
