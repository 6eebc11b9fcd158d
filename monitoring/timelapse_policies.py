"""A configuration becomes the policies that the time-lapse sets side by side.

A policy is a ``retraining`` and a ``rollout`` section, run by the real loop. The simple ones are
what most published systems do: they train when their one rule says so and promote what comes out,
without a look at the feed, a gate, a shadow or a canary. Ours is the configuration's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import FraudConfig
from configs.sections import RetrainingSection, RolloutSection
from monitoring.retraining_policy import Trigger

OURS, WEEKLY = "ours", "every_7_days"
UNLIMITED = 10_000


@dataclass(frozen=True)
class Policy:
    """When to train, and how a challenger takes over.

    Attributes:
        name: As in results.
        title: In words.
        retraining: When to train.
        rollout: What a challenger goes through.
        looks_at_feed: Whether a broken feed is told to its loop; the simple ones do not look.
    """

    name: str
    title: str
    retraining: RetrainingSection
    rollout: RolloutSection
    looks_at_feed: bool = False

    def configure(self, config: FraudConfig) -> FraudConfig:
        """Return a configuration with this policy's sections."""
        return config.model_copy(update={"retraining": self.retraining, "rollout": self.rollout})


def list_policies(config: FraudConfig) -> tuple[Policy, ...]:
    """List the policies, the simplest first and ours last."""
    looks = config.retraining.num_recent
    days = (looks - 1) * config.timelapse.look_every_days + 1  # that hold as many looks
    ours = config.retraining.model_copy(update={"database_url": None, "num_recent": days})
    return (
        _simplify("never", "never", config),
        _simplify(WEEKLY, "every 7 days", config, floor_days=7.0),
        _simplify("every_28_days", "every 28 days", config, floor_days=28.0),
        _simplify("drift_only", "on drift alone", config, triggers=("drift",)),
        _simplify("matured_only", "on matured performance alone", config, triggers=("matured",)),
        Policy(OURS, "ours", ours, config.rollout, looks_at_feed=True),
    )


def _simplify(
    name: str,
    title: str,
    config: FraudConfig,
    *,
    floor_days: float | None = None,
    triggers: tuple[Trigger, ...] = (),
) -> Policy:
    """Take everything out of a configuration's policy but one rule; alarms still cool down."""
    retraining = config.retraining.model_copy(
        update={
            "database_url": None,
            "floor_days": floor_days,
            "follow_up_days": None,
            "triggers": triggers,
            "min_alarms": 1,
            "min_joint_alarms": 1,
            "num_recent": 1,
            "cooldown_days": config.retraining.cooldown_days if triggers else 0.0,
            "budget": UNLIMITED,
            "min_new_frauds": 0,
        }
    )
    rollout = config.rollout.model_copy(
        update={"gate": False, "shadow_days": 0.0, "canary_shares": (), "watch_days": 0.0}
    )
    return Policy(name, title, retraining, rollout)
